// Package authority is what a hub's certificates and those of its agents come from: a root, and an intermediate that issues.
// They lie sealed in the control state, where every hub follows them; only the root's key is a file, of the hub that made it.
//
// It says who a certificate is for. It must not know who may come in, nor over what connections.
package authority

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/hub/internal/state"
)

const (
	agentLife = 24 * time.Hour
	hubLife   = 7 * 24 * time.Hour

	interval = time.Hour // between two looks whether something must be renewed
)

// Options configure an Authority. Store, Secret, Dir and Hub are required.
type Options struct {
	Store  state.Store
	Secret *state.Secret
	Dir    string   // where root.key lies, or is put
	Hub    string   // this hub's id
	Names  []string // host names and addresses of this hub beside those of the machine

	AgentLife, HubLife time.Duration // of certificates; 0: 24 h and 7 days

	Log *slog.Logger
	Now func() time.Time // nil: time.Now
}

// An Authority certifies a hub and its agents. Its methods may be called concurrently.
type Authority struct {
	o         Options
	names     []string // of DNS
	addresses []netip.Addr
	stop      context.CancelFunc
	over      sync.WaitGroup
	look      chan struct{} // has one when something may have to be renewed

	files sync.Mutex // held while root.key is changed

	mu      sync.Mutex // held while set is changed
	trouble error      // why what the control state has is not what is used; nil: it is used
	set     atomic.Pointer[set]
	changed atomic.Pointer[chan struct{}]
}

// Open loads the authority, or makes one where there is none, and follows it. Close ends that.
func Open(ctx context.Context, o Options) (*Authority, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.AgentLife == 0 {
		o.AgentLife = agentLife
	}
	if o.HubLife == 0 {
		o.HubLife = hubLife
	}
	if _, err := uuid.Parse(o.Hub); err != nil {
		return nil, fmt.Errorf("open the authority: read the hub's id %q: %w", o.Hub, err)
	}
	a := &Authority{o: o, look: make(chan struct{}, 1)}
	ch := make(chan struct{})
	a.changed.Store(&ch)
	if err := a.name(); err != nil {
		return nil, fmt.Errorf("open the authority: %w", err)
	}
	e, err := a.load(ctx)
	if err != nil {
		return nil, fmt.Errorf("open the authority: %w", err)
	}
	ctx, a.stop = context.WithCancel(context.Background())
	a.over.Go(func() { state.Follow(ctx, o.Store, recordKey, e.Revision, o.Log, a.all, a.one) })
	a.over.Go(func() { a.run(ctx) })
	return a, nil
}

// Close ends following. The control state stays open, and what was loaded can still be used.
func (a *Authority) Close() {
	a.stop()
	a.over.Wait()
}

// name reads the names that this hub is to be reached by.
func (a *Authority) name() error {
	names := append([]string{"localhost"}, a.o.Names...)
	if host, err := os.Hostname(); err == nil && ascii(host) {
		names = append(names, host)
	}
	a.addresses = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	seen := make(map[string]bool)
	for _, name := range names {
		name = strings.ToLower(strings.TrimSuffix(strings.TrimSpace(name), "."))
		if name == "" || seen[name] {
			continue
		}
		seen[name] = true
		if ip, err := netip.ParseAddr(name); err == nil {
			if ip = ip.Unmap().WithZone(""); !ip.IsUnspecified() && !slices.Contains(a.addresses, ip) {
				a.addresses = append(a.addresses, ip)
			}
			continue
		}
		if !ascii(name) {
			return fmt.Errorf("take the name %q into the hub's certificate: it has letters that certificates cannot have; write it as DNS does, with xn--", name)
		}
		a.names = append(a.names, name)
	}
	return nil
}

func ascii(s string) bool {
	for _, r := range s {
		if r <= ' ' || r > '~' {
			return false
		}
	}
	return s != ""
}

// load takes in the authority that there is, or makes one. Of several hubs that do so at once, one makes it.
func (a *Authority) load(ctx context.Context) (state.Entry, error) {
	for {
		e, err := a.o.Store.Get(ctx, recordKey)
		if err == nil {
			s, err := a.read(e)
			if err == nil {
				a.set.Store(s)
			}
			return e, err
		}
		if !errors.Is(err, state.ErrNotFound) {
			return e, err
		}
		if err := a.create(ctx); err != nil && !errors.Is(err, state.ErrConflict) {
			return e, err
		}
	}
}

// create makes an authority where there is none.
func (a *Authority) create(ctx context.Context) error {
	r, err := newRoot(a.o.Now())
	if err != nil {
		return err
	}
	return a.introduce(ctx, r, func() error {
		if _, err := a.write(ctx, &record{Version: version, Phase: steady, Roots: []root{r.root}}, 0); err != nil {
			return err
		}
		a.o.Log.Info("made an authority: its root's key can be moved away from here, to be put back when it warns", "file", a.keyFile(), "fingerprint", fingerprint(r.root.Certificate))
		return nil
	})
}

// introduce keeps the key of a new root while publish makes it known, and afterwards unless that has failed.
func (a *Authority) introduce(ctx context.Context, r freshRoot, publish func() error) error {
	if err := a.editKeys(func(keys []rootKey) []rootKey { return append(keys, r.key) }); err != nil {
		return err
	}
	err := publish()
	if err == nil {
		return nil
	}
	// It may have been published nevertheless, by an answer that was lost: then the key is all there is of it. When that cannot
	// be known, the key stays.
	e, get := a.o.Store.Get(ctx, recordKey)
	if get != nil && !errors.Is(get, state.ErrNotFound) {
		return err
	}
	if get == nil {
		now, read := a.read(e)
		if read != nil || now.issuerOf(r.key) != nil {
			return err
		}
	}
	return errors.Join(err, a.editKeys(func(keys []rootKey) []rootKey { return without(keys, r.key) }))
}

// write puts a record in the place of that of a revision, and uses it.
func (a *Authority) write(ctx context.Context, r *record, revision int64) (*set, error) {
	sealed, err := a.seal(r)
	if err != nil {
		return nil, err
	}
	e := state.Entry{Key: recordKey, Value: sealed}
	if e.Revision, err = a.o.Store.Put(ctx, recordKey, sealed, false, state.Unchanged(revision)); err != nil {
		return nil, err
	}
	s, err := a.read(e)
	if err != nil {
		return nil, err
	}
	a.take(s, nil)
	return s, nil
}

// all takes in everything that there is as of a revision.
func (a *Authority) all(list []state.Entry, revision int64) {
	for _, e := range list {
		if e.Key == recordKey {
			a.one(e)
			return
		}
	}
	a.one(state.Entry{Key: recordKey, Revision: revision})
}

// one takes in a change. What is no use changes nothing: the hub goes on with what it has.
func (a *Authority) one(e state.Entry) {
	if e.Key != recordKey {
		return
	}
	if e.Value == nil {
		a.take(nil, errors.New("it is gone from the control state; hubs that start now make another, whose certificates are of no use with this one's: stop all hubs and restore a backup"))
		return
	}
	s, err := a.read(e)
	a.take(s, err)
}

// take uses a newer set, or remembers why it cannot.
func (a *Authority) take(s *set, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		a.trouble = err
		a.o.Log.Error("keep the authority as it was: the control state has changed, but is of no use", "error", err)
	} else {
		if old := a.set.Load(); old != nil && old.revision >= s.revision {
			return
		}
		a.trouble = nil
		a.set.Store(s)
	}
	next := make(chan struct{})
	close(*a.changed.Swap(&next))
	select {
	case a.look <- struct{}{}:
	default:
	}
}

// run renews what must be renewed, until ctx is done.
func (a *Authority) run(ctx context.Context) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	said := ""
	for {
		if err := a.tend(ctx); err != nil && ctx.Err() == nil {
			a.o.Log.Warn("renew the authority; will try again", "error", err)
		}
		warnings := strings.Join(a.Describe().Warnings, "; ")
		if warnings != "" && warnings != said {
			a.o.Log.Warn("the authority needs somebody", "warnings", warnings)
		}
		said = warnings
		select {
		case <-a.look:
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// Fingerprint returns that of the root which issues, for the texts of tokens.
func (a *Authority) Fingerprint() string {
	return fingerprint(a.set.Load().issues.root.Raw)
}

// Bundle returns what agents are to trust, PEM, and its control.FingerprintOfBundle.
//
// Whoever grants an identity asks for the bundle first, and for the certificate then: if the authority changes in between, the
// agent has an older bundle than the hub, and renews at once; the other way round it would keep an older certificate.
func (a *Authority) Bundle() (pem []byte, fingerprint string) {
	s := a.set.Load()
	return s.bundle, s.fingerprint
}

// Changed returns a channel that is closed when the authority is another, or Describe says something else.
func (a *Authority) Changed() <-chan struct{} { return *a.changed.Load() }

// Describe returns how the authority is. What agents and TLS add to that is left open.
func (a *Authority) Describe() api.Authority {
	s, now := a.set.Load(), a.o.Now()
	a.mu.Lock()
	trouble := a.trouble
	a.mu.Unlock()
	d := api.Authority{Phase: s.record.Phase, Ends: s.issues.intermediate.NotAfter}
	for _, r := range s.roots {
		d.Roots = append(d.Roots, api.Root{Fingerprint: fingerprint(r.root.Raw), Begins: r.root.NotBefore, Ends: r.root.NotAfter, Issues: r == s.issues})
	}
	keys, err := a.keys()
	d.RootKey = find(keys, s.issues.root) != nil
	switch {
	case trouble != nil:
		d.Warnings = append(d.Warnings, fmt.Sprintf("the authority in the control state is of no use to this hub: %v", trouble))
	case err != nil:
		d.Warnings = append(d.Warnings, err.Error())
	}
	d.Warnings = append(d.Warnings, s.warnings(now, d.RootKey, a.keyFile())...)
	return d
}
