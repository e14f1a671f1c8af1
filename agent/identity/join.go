package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/tlsconf"
)

// JoinOptions say which hub to join as whom. URL, Token, Dir and Agent are required.
type JoinOptions struct {
	URL   string           // of the hub: https://host:port
	Token string           // the text of an enrolment token
	Dir   string           // the identity directory; it is made, with mode 0700, if it does not exist
	Agent string           // the agent's id, a UUID
	Name  string           // of its host, for people
	Again bool             // put the new identity in the place of another hub's, or of one that is damaged
	Log   *slog.Logger     // nil: none
	Now   func() time.Time // this machine's clock; nil: time.Now

	dial dialer
	step func(what string) error
}

// ErrNothingToJoin is what Join's error wraps when connections to the hub need no identity.
var ErrNothingToJoin = errors.New("nothing needs to be joined there")

// Join makes an agent one of a hub's, and returns its identity. The hub is verified by the fingerprint in the token, before it
// is told anything. An answer that is lost is repeated by joining again: the same key is asked for. To join with a token with
// which the agent has joined already does nothing, unless Again is set.
//
// An agent that has joined the same hub before shows its certificate, so that the hub knows it again.
func Join(ctx context.Context, o JoinOptions) (*Identity, error) {
	use := Options{Log: o.Log, Now: o.Now, dial: o.dial, step: o.step}.withDefaults()
	u, token, err := o.check()
	if err != nil {
		return nil, err
	}
	j := &join{o: o, url: u, token: token, use: use, folder: folder{o.Dir, o.step}}
	if done, err := j.prepare(); err != nil {
		return nil, err
	} else if done {
		return Open(o.Dir, use)
	}
	secure, err := base(j.verify)
	if err != nil {
		return nil, err
	}
	secure.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if j.same && j.old.agent == o.Agent {
			return j.old.pair, nil
		}
		return &tls.Certificate{}, nil
	}
	var g control.Grant
	asked := j.record.Joining.request
	shown, err := ask(ctx, o.dial, secure, u.String(), control.EnrolPath, control.EnrolRequest{Token: token.String(), Agent: o.Agent, Name: o.Name, CSR: asked.CSR}, &g)
	if err != nil {
		return nil, fmt.Errorf("join the hub at %s: %w", u, err)
	}
	if err := j.take(asked, &g, shown); err != nil {
		return nil, err
	}
	return Open(o.Dir, use)
}

// check reads URL, token and id.
func (o *JoinOptions) check() (*url.URL, control.Token, error) {
	token, err := control.ParseToken(o.Token)
	if err != nil {
		return nil, token, fmt.Errorf("read the token: %w", err)
	}
	u, err := control.HubURL(strings.TrimSpace(o.URL))
	if err != nil {
		return nil, token, fmt.Errorf("read the hub's URL: %w", err)
	}
	id, err := uuid.Parse(o.Agent)
	if err != nil {
		return nil, token, fmt.Errorf("read the agent's id %q: %w", o.Agent, err)
	}
	o.Agent = id.String()
	u.Path, u.Fragment = strings.TrimSuffix(u.Path, "/"), ""
	switch {
	case u.Scheme == "unix", u.Scheme == "http" && tlsconf.IsLoopback(u.Hostname()):
		return nil, token, fmt.Errorf("join the hub at %s: %w: whoever is on the hub's own machine is trusted, without TLS; name the hub as agent.hub.url", u, ErrNothingToJoin)
	case u.Scheme != "https":
		return nil, token, fmt.Errorf("join the hub at %s: it is not https, so that everybody on the way could take the token; write https://, and give the hub an address with TLS if it has none", u)
	case token.Fingerprint == "":
		return nil, token, fmt.Errorf("join the hub at %s: the token has no fingerprint, by which to know the hub: a hub that has no TLS has made it, where %w; make one at the hub while that has TLS", u, ErrNothingToJoin)
	}
	return u, token, nil
}

// A join is one in progress.
type join struct {
	o      JoinOptions
	url    *url.URL
	token  control.Token
	use    Options
	folder folder
	record record
	old    *credentials // nil: none was joined
	hub    first        // as it shows itself
	same   bool         // the hub is the one that was joined before
}

// prepare reads what there is, and writes the request. It reports whether there is nothing to be done any more.
func (j *join) prepare() (done bool, err error) {
	if err := j.folder.make(); err != nil {
		return false, err
	}
	r, _, err := j.folder.load()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r, err = &record{}, nil
	case err == nil && r.Certificate != "":
		if j.old, err = r.credentials(); err != nil {
			err = fmt.Errorf("read the identity in %s: %w: %w", j.o.Dir, errDamaged, err)
		}
	}
	if errors.Is(err, errDamaged) && j.o.Again {
		aside, failed := j.folder.setAside(j.use.Now())
		if failed != nil {
			return false, errors.Join(err, failed)
		}
		j.use.Log.Warn("damaged identity set aside, joining without it", "error", err, "kept_as", aside)
		r, err = &record{}, nil
	}
	if err != nil {
		return false, err
	}
	if j.old != nil && r.Agent == j.o.Agent && r.Token == j.token.ID && !j.o.Again {
		return true, nil
	}
	j.record = *r
	j.record.Version = version
	if p := r.Joining; p != nil && p.Agent == j.o.Agent && p.Fingerprint == j.token.Fingerprint {
		return false, nil // it was written before
	}
	asked, err := newRequest(j.o.Agent)
	if err != nil {
		return false, err
	}
	j.record.Joining = &joining{request: *asked, Agent: j.o.Agent, Fingerprint: j.token.Fingerprint}
	return false, j.save()
}

func (j *join) save() error {
	i := Identity{folder: j.folder, kept: j.record}
	return i.flush()
}

// verify checks the hub's certificate, and that it is the hub that is to be joined.
func (j *join) verify(cs tls.ConnectionState) error {
	f, err := verifyFirst(cs, j.token.Fingerprint, j.url.Hostname(), j.use.Now())
	if err != nil {
		return err
	}
	if f.clock {
		j.use.Log.Warn("this machine's clock is behind the hub's; that is no obstacle", "clock", stamp(j.use.Now()), "certificate_from", stamp(f.leaf.NotBefore))
	}
	j.hub = f
	if j.old == nil {
		return nil
	}
	_, known := j.record.Newest[f.hub]
	j.same = slices.Contains(j.old.prints, j.token.Fingerprint) || known && f.hub != "" || f.hub == "" && j.old.url == j.url.String()
	if !j.same && !j.o.Again {
		return fmt.Errorf("this agent belongs to another hub, %s; if it is to change to this one, add --again", j.old.url)
	}
	return nil
}

// take keeps the identity that the hub has made.
func (j *join) take(asked request, g *control.Grant, shown []*x509.Certificate) error {
	r := j.record
	if err := r.grant(j.o.Agent, asked, g, j.use.Now()); err != nil {
		return fmt.Errorf("join the hub at %s: %w", j.url, err)
	}
	r.URL, r.Token, r.Joining, r.Renewal = j.url.String(), j.token.ID, nil, nil
	c, err := r.credentials()
	if err != nil {
		return fmt.Errorf("join the hub at %s: %w", j.url, err)
	}
	if err := c.verifyHub(shown, begin(shown)); err != nil {
		return fmt.Errorf("join the hub at %s: its certificate is of none of the authorities that it tells its agents to trust, so that they could not reach it: %w; the hub's certificate, or what it names as its authorities, must change", j.url, err)
	}
	if !j.same {
		r.Newest = nil
	}
	r.saw(j.hub.hub, j.hub.leaf.NotBefore)
	j.record = r
	if err := j.save(); err != nil {
		return fmt.Errorf("join the hub at %s: it has made an identity, but %w; join once more when that is mended: the hub repeats its answer", j.url, err)
	}
	return nil
}
