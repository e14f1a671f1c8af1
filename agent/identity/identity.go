// Package identity is who an agent is to its hub: a key, a certificate of the hub's authority that lives for a day, and the
// authorities that the agent trusts. Join gets the first one with a token; an Identity renews it from then on, by itself.
//
// What it has it never throws away, whatever a hub says or does not say: it waits and tries again. An expired certificate is
// no reason to give up either, for a hub renews it to whoever has its key.
//
// It must not know what is said over the connections that it secures, nor whether the agent collects.
package identity

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/report"
)

// Options are how an identity is used. The zero value will do.
type Options struct {
	URL string           // where the hub is now; empty: where it was joined
	Log *slog.Logger     // nil: none
	Now func() time.Time // this machine's clock, which may be wrong; nil: time.Now

	dial dialer                  // nil: as net/http does
	step func(what string) error // of folder
}

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// An Identity is an agent's. It may be used concurrently. It is a creel.Identity.
type Identity struct {
	o       Options
	folder  folder
	current atomic.Pointer[credentials]
	kick    chan struct{} // holds one when Run is to look what is to be done

	disk sync.Mutex // guards what follows; it is not held while a hub is asked
	kept record     // as it is to be on disk
	text []byte     // as it is there

	token accessToken

	hubs atomic.Pointer[[]string] // URLs of hubs, the one to be preferred first; see Follow

	mu     sync.Mutex // guards what follows
	want   string     // the bundle that the hub says is to be trusted; empty: it has not said
	soon   bool       // renew before it is time
	wait   time.Time  // but not before this
	failed int        // attempts in a row
	err    error      // of the last one
	since  time.Time  // when they began to fail, by this machine's clock
	warned time.Time  // of the clock
}

var _ creel.Identity = (*Identity)(nil)

// Open returns the identity that is in a directory, or a fs.ErrNotExist if no hub was joined. A directory that others can read,
// or that is another user's, is an error: so are copies that were made carelessly.
func Open(dir string, o Options) (*Identity, error) {
	i := &Identity{o: o.withDefaults(), folder: folder{dir, o.step}, kick: make(chan struct{}, 1)}
	i.token.init()
	r, text, err := i.folder.load()
	if err != nil {
		return nil, err
	}
	if r.Certificate == "" {
		return nil, fmt.Errorf("read the identity in %s: joining a hub was begun, but has not succeeded; creel join finishes it: %w", dir, fs.ErrNotExist)
	}
	c, err := r.credentials()
	if err != nil {
		return nil, fmt.Errorf("read the identity in %s: %w: %w", dir, errDamaged, err)
	}
	i.kept, i.text = *r, text
	i.use(c.reopened(i.o.Now()))
	return i, nil
}

// use takes what was read from disk as the identity, and finds out whether to renew soon.
func (i *Identity) use(c *credentials) {
	i.current.Store(c)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.failed, i.err, i.since = 0, nil, time.Time{}
	i.soon = c.senseless || i.kept.Renewal != nil // one was begun: the hub may be ahead
	i.wait = time.Now()
	if i.soon || c.age(i.o.Now()) >= c.renew {
		i.wait = i.wait.Add(jitter(min(c.lifetime/20, time.Minute))) // many may have been started at once
	}
}

// flush writes what is kept, if it is not on disk yet. i.disk is held.
func (i *Identity) flush() error {
	text, err := json.MarshalIndent(&i.kept, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the identity: %w", err)
	}
	if text = append(text, '\n'); bytes.Equal(text, i.text) {
		return nil
	}
	if err := i.folder.write(text); err != nil {
		return fmt.Errorf("keep the identity: %w", err)
	}
	i.text = text
	return nil
}

// keep changes what is kept, and writes it. What somebody else has written meanwhile, who has joined anew, counts. When writing
// fails, the change counts as long as the process lives, and is written the next time.
func (i *Identity) keep(change func(*record) error) error {
	i.disk.Lock()
	defer i.disk.Unlock()
	if text, err := i.folder.read(); err == nil && !bytes.Equal(text, i.text) {
		if err := i.reread(); err != nil {
			return err
		}
	}
	next := i.kept
	if err := change(&next); err != nil {
		return err
	}
	i.kept = next
	return i.flush()
}

// reread takes what is on disk. i.disk is held.
func (i *Identity) reread() error {
	r, text, err := i.folder.load()
	if err != nil {
		return err
	}
	if r.Certificate == i.kept.Certificate { // another hub is being joined
		i.kept, i.text = *r, text
		return nil
	}
	c, err := r.credentials()
	if err != nil {
		return fmt.Errorf("read the identity in %s: %w: %w", i.folder.path, errDamaged, err)
	}
	i.kept, i.text = *r, text
	i.use(c.reopened(i.o.Now()))
	i.o.Log.Info("use the identity that was joined meanwhile", "hub", c.url, "generation", c.peer.Generation)
	return nil
}

// ClientTLS returns the configuration of a client of the hub. It shows the certificate that there is, an expired one as well:
// by its key the hub knows it. Whom it trusts verify tells.
func (i *Identity) ClientTLS() (*tls.Config, error) {
	t, err := base(i.verify)
	if err != nil {
		return nil, err
	}
	t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return i.current.Load().pair, nil }
	return t, nil
}

// ServerTLS fails: only hubs have a certificate for servers.
func (i *Identity) ServerTLS() (*tls.Config, error) {
	return nil, errors.New("the identity of an agent is none of a server: others could not know it; name cert_file and key_file instead")
}

// Addresses returns where the hub is. The URL is the one that it was joined at.
func (i *Identity) Addresses() control.Addresses {
	c := i.current.Load()
	a := c.hub
	a.URL = c.url
	return a
}

// Agent returns the id of the agent that the identity is of.
func (i *Identity) Agent() string { return i.current.Load().agent }

// Follow tells where hubs of the authority are, the one to be asked first first. The one that was joined is asked as well, if
// none of them answers.
func (i *Identity) Follow(urls []string) {
	urls = slices.DeleteFunc(slices.Clone(urls), func(u string) bool { return !strings.HasPrefix(u, "https:") })
	i.hubs.Store(&urls)
}

// urls is where hubs are asked, one after the other.
func (i *Identity) urls() []string {
	joined := cmp.Or(i.o.URL, i.current.Load().url)
	hubs := i.hubs.Load()
	switch {
	case hubs == nil:
		return []string{joined}
	case slices.Contains(*hubs, joined):
		return *hubs
	}
	return append(slices.Clip(*hubs), joined)
}

// Trusted returns the control.FingerprintOfBundle of the authorities that are trusted.
func (i *Identity) Trusted() string { return i.current.Load().bundle }

// Trust is told the fingerprint of the authorities that the hub says are to be trusted. If they are others, the identity is
// renewed at once, which brings them. It does not block.
func (i *Identity) Trust(bundle string) {
	i.mu.Lock()
	news := i.want != bundle
	i.want = bundle
	i.mu.Unlock()
	if news {
		i.look()
	}
}

// Refused is told that the hub has refused something else because of the certificate. It does not block.
func (i *Identity) Refused(r *control.Refusal) {
	if r.Code != control.Expired {
		return
	}
	i.mu.Lock()
	var why *control.Refusal
	now := time.Now()
	switch i.soon = true; {
	case !errors.As(i.err, &why): // the hub is there again: what it did not refuse need not wait
		i.wait = now
	case i.wait.After(now.Add(minBackoff)): // it may have changed its mind, but is not asked in a circle
		i.wait = now.Add(rand.N(minBackoff))
	}
	i.mu.Unlock()
	i.look()
}

func (i *Identity) look() {
	select {
	case i.kick <- struct{}{}:
	default:
	}
}

// Status returns how the certificate is.
func (i *Identity) Status() report.Identity {
	c, now := i.current.Load(), i.o.Now()
	age := c.age(now)
	i.mu.Lock()
	defer i.mu.Unlock()
	s := report.Identity{Generation: c.peer.Generation, Expires: now.Add(c.lifetime - age).Round(0), Renews: now.Add(i.due(c, age)).Round(0), Since: i.since}
	if i.err != nil {
		s.Error = i.err.Error()
	}
	return s
}

// Trouble says why the certificate is not renewed, and since when, once it has less than a quarter of its life left; else "".
func (i *Identity) Trouble() (why string, since time.Time) {
	c := i.current.Load()
	left := c.lifetime - c.age(i.o.Now())
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case i.err == nil || left >= c.lifetime/4 && !c.senseless:
		return "", time.Time{}
	case left > 0:
		return fmt.Sprintf("the certificate for the hub ends in %v and is not renewed: %v", left.Round(time.Second), i.err), i.since
	}
	return fmt.Sprintf("the certificate for the hub has expired and is not renewed: %v", i.err), i.since
}

// Run renews the identity until ctx is done.
func (i *Identity) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-i.kick:
		case <-timer.C:
		}
		c := i.current.Load()
		i.mu.Lock()
		wait := i.due(c, c.age(i.o.Now()))
		i.mu.Unlock()
		if wait <= 0 {
			i.attempt(ctx)
			wait = 0
		}
		timer.Reset(min(wait, lookAtClock))
	}
}
