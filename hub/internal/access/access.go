// Package access is who may come in at a hub, and as what: the tokens that people, applications and joining agents have been
// given, the JWTs (RFC 7519) and the session cookies that those are changed for, and the keys that sign them. Tokens and keys
// lie in the control state, and every hub follows them there: what is deleted at one is worth nothing at any.
//
// It knows neither how somebody asks nor what for. What certificates prove is known to packages authority and gate.
package access

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/expr"
	"github.com/creelhq/creel/hub/internal/state"
	"github.com/creelhq/creel/metric"
)

const (
	maxText      = 4 << 10          // bytes of what somebody shows
	tending      = 10 * time.Second // between rounds of tending keys and tokens
	tendPatience = 10 * time.Second // how long the control state may take for one
)

// Options configure an Access. Store and Secret are required.
type Options struct {
	Store       state.Store
	Secret      *state.Secret
	Hub         string                  // this hub's id, by which other hubs name it; empty: they do not ask it
	Root        string                  // the root token of this hub: an admin's, named root; empty: there is none
	Fingerprint func() string           // of the authority that new tokens name; nil or "": none, without TLS
	Revoked     func(agent string) bool // whether an agent may not come in any more; cheap; nil: none is
	// Holder returns the agent that a connection's certificate is or was for, "" for none: the handshake has proven its key.
	// It is cheap when it has seen the certificate before. nil: nobody knows.
	Holder  func(chain []*x509.Certificate) string
	Log     *slog.Logger
	Metrics *metric.Set
	Now     func() time.Time // nil: time.Now
}

// A Principal is somebody who has proven who it is: with a token, or what it was changed for. Whatever else proves that one
// day, such as the ID token of an OpenID provider, comes in beside the cases of Access.open as another way to a Principal, and
// all that is behind stays as it is; it would need a Token of its own, so that it can be deleted, or Within in the JWT.
type Principal struct {
	Name    string
	Role    api.Role
	Within  expr.Selector
	Agent   string         // an agent's id; empty: it is no agent
	Hub     string         // the id of the hub that asks for them; empty: they ask themselves
	Token   string         // the id of the token that stands behind it; empty for agents
	Signals []creel.Signal // that it may send; empty: all. To be read only
	Ends    time.Time      // of what was shown; zero: never. What it is changed for ends no later
}

// An Access knows who may come in. Its methods may be called concurrently.
type Access struct {
	o        Options
	begun    time.Time
	root     [sha256.Size]byte
	rootID   string        // that JWTs have of the root token, which changes with it
	spending chan struct{} // held while a use is counted
	stop     context.CancelFunc
	over     sync.WaitGroup
	keys     *keys
	cache    cache
	parsers  map[string]*jwt.Parser // by audience
	counts   map[result]*metric.Counter

	mu     sync.RWMutex
	tokens map[string]*token // by id
	gone   map[string]bool   // ids that were deleted here, until that is heard from the control state
}

// result is how a check ended.
type result string

const (
	accepted  result = "accepted"
	refused   result = "refused"
	forbidden result = "forbidden" // it is somebody, who may not do this
	local     result = "local"
	throttled result = "throttled"
)

// Open loads the tokens and the keys, makes keys if there are none, and follows both. Close ends it.
func Open(ctx context.Context, o Options) (*Access, error) {
	if o.Fingerprint == nil {
		o.Fingerprint = func() string { return "" }
	}
	if o.Revoked == nil {
		o.Revoked = func(string) bool { return false }
	}
	if o.Holder == nil {
		o.Holder = func([]*x509.Certificate) string { return "" }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Metrics == nil {
		o.Metrics = metric.NewSet()
	}
	a := &Access{o: o, begun: o.Now(), spending: make(chan struct{}, 1), tokens: make(map[string]*token), gone: make(map[string]bool),
		root: sha256.Sum256([]byte(o.Root)), counts: make(map[result]*metric.Counter)}
	once := sha256.Sum256(a.root[:]) // nothing of the token itself
	a.rootID = "root-" + hex.EncodeToString(once[:8])
	a.keys = newKeys(&a.o)
	a.parsers = map[string]*jwt.Parser{bearerAudience: newParser(bearerAudience, o.Now), sessionAudience: newParser(sessionAudience, o.Now),
		hubAudience + o.Hub: newParser(hubAudience+o.Hub, o.Now)}
	for _, r := range []result{accepted, refused, forbidden, local, throttled} {
		a.counts[r] = o.Metrics.Sub(metric.Label{Name: "result", Value: string(r)}).Counter("creel.hub.access.checks",
			"Checks of what was shown to come in or to send: accepted, refused, forbidden to somebody known, local and not needed, throttled.", "{check}")
	}
	tokens, tokenRevision, err := o.Store.List(ctx, tokenPrefix)
	if err != nil {
		return nil, fmt.Errorf("load the tokens: %w", err)
	}
	a.all(tokens, tokenRevision)
	keys, keyRevision, err := o.Store.List(ctx, keyPrefix)
	if err != nil {
		return nil, fmt.Errorf("load the keys of JWTs: %w", err)
	}
	a.keys.all(keys, keyRevision)
	if err := a.keys.tend(ctx); err != nil {
		return nil, err
	}
	ctx, a.stop = context.WithCancel(context.Background())
	a.over.Go(func() { state.Follow(ctx, o.Store, tokenPrefix, tokenRevision, o.Log, a.all, a.one) })
	a.over.Go(func() { state.Follow(ctx, o.Store, keyPrefix, keyRevision, o.Log, a.keys.all, a.keys.one) })
	a.over.Go(func() { a.run(ctx) })
	return a, nil
}

// Close ends following. The control state stays open.
func (a *Access) Close() {
	a.stop()
	a.over.Wait()
}

func (a *Access) run(ctx context.Context) {
	tick := time.NewTicker(tending)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			a.tend(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// tend makes the keys that will be needed, and removes what is over.
func (a *Access) tend(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, tendPatience)
	defer cancel()
	if err := a.keys.tend(ctx); err != nil && ctx.Err() == nil {
		a.o.Log.Error("keys of JWTs cannot be renewed; those that there are go on, and it will be tried again", "error", err)
	}
	if err := a.prune(ctx, forget); err != nil && ctx.Err() == nil {
		a.o.Log.Warn("remove tokens that have ended; will try again", "error", err)
	}
	a.cache.age(a.o.Now())
}

// JWKS returns the public keys that verify this hub's JWTs, as JSON (RFC 7517, RFC 8037).
func (a *Access) JWKS() []byte { return a.keys.jwks() }

// Bearer returns who shows a text as a bearer token: the root token, a token, or a JWT. cs is the connection's, nil without
// TLS. The error is an *api.Error.
func (a *Access) Bearer(text string, cs *tls.ConnectionState) (Principal, error) {
	return a.counted(a.open(text, bearerAudience, cs))
}

// Session returns who shows a cookie that NewSession has made. The error is an *api.Error.
func (a *Access) Session(cookie string) (Principal, error) {
	return a.counted(a.open(cookie, sessionAudience, nil))
}

func (a *Access) counted(p Principal, refusal *api.Error) (Principal, error) {
	if refusal != nil {
		a.counts[refused].Inc()
		return Principal{}, refusal
	}
	a.counts[accepted].Inc()
	return p, nil
}

// open finds out who shows a text. Nothing in what it returns is of the text, but for a Principal that was proven.
func (a *Access) open(text, audience string, cs *tls.ConnectionState) (Principal, *api.Error) {
	switch {
	case text == "":
		return Principal{}, unauthorized("nothing was shown that says who asks; " + howToSignIn)
	case len(text) > maxText:
		return Principal{}, unauthorized(fmt.Sprintf("what was shown is no token of this hub: it is longer than %d bytes", maxText))
	}
	sum := digest(text)
	if audience == bearerAudience && a.o.Root != "" && subtle.ConstantTimeCompare(sum[:], a.root[:]) == 1 {
		return a.rootPrincipal(), nil
	}
	p := a.cache.get(sum)
	if p != nil && p.audience == audience {
		return a.alive(p, cs)
	}
	var refusal *api.Error
	if audience == bearerAudience && strings.HasPrefix(text, tokenBegin) {
		p, refusal = a.tokenText(text)
	} else {
		p, refusal = a.verify(text, audience)
	}
	if refusal != nil {
		return Principal{}, refusal
	}
	who, refusal := a.alive(p, cs)
	if refusal == nil {
		a.cache.put(sum, p)
	}
	return who, refusal
}

// digest is the SHA-256 of a text, without a copy on the heap unless it is unusually long.
func digest(text string) [sha256.Size]byte {
	var buf [1 << 10]byte
	return sha256.Sum256(append(buf[:0], text...))
}

// A proof is what was once shown, and found to be authentic. Whether it is still worth something is asked at each use.
type proof struct {
	principal Principal
	audience  string
	begins    time.Time                        // worth nothing before: clocks are set back
	bound     *[sha256.Size]byte               // SHA-256 of the certificate that the connection must show; nil: of none
	right     atomic.Pointer[x509.Certificate] // one that was found to be that
}

// alive returns who a proof is of, if it is worth anything now, on this connection.
func (a *Access) alive(p *proof, cs *tls.ConnectionState) (Principal, *api.Error) {
	who, now := &p.principal, a.o.Now()
	if !who.Ends.IsZero() && !now.Before(who.Ends) {
		return Principal{}, unauthorized("what was shown has ended at " + who.Ends.UTC().Format(time.RFC3339) + "; ask for a new one")
	}
	if now.Before(p.begins) {
		return Principal{}, unauthorized(notYet)
	}
	if p.bound != nil {
		if cs == nil || len(cs.PeerCertificates) == 0 {
			return Principal{}, unauthorized("the JWT is bound to a certificate, which this connection does not show; use it where it was asked for")
		}
		// A connection that stands goes on to show the certificate that was renewed meanwhile.
		if !p.boundTo(cs.PeerCertificates[0]) && (who.Agent == "" || a.o.Holder(cs.PeerCertificates) != who.Agent) {
			return Principal{}, unauthorized("the JWT is bound to another certificate than this connection shows; ask for a new one with this certificate")
		}
	}
	switch {
	case who.Agent != "":
		if a.o.Revoked(who.Agent) {
			return Principal{}, unauthorized("the agent was revoked; creel admit takes it back")
		}
	case who.Token != a.rootID || a.o.Root == "":
		t := a.token(who.Token)
		if t == nil {
			return Principal{}, unauthorized("the token behind it was deleted; " + howToSignIn)
		}
		if t.ended(now) {
			return Principal{}, unauthorized("the token behind it has ended; " + howToSignIn)
		}
	}
	return *who, nil
}

// boundTo reports whether a proof is bound to a certificate. Requests of one connection show the same *x509.Certificate, which
// nobody changes.
func (p *proof) boundTo(c *x509.Certificate) bool {
	if p.right.Load() == c {
		return true
	}
	sum := sha256.Sum256(c.Raw)
	if subtle.ConstantTimeCompare(sum[:], p.bound[:]) != 1 {
		return false
	}
	p.right.Store(c)
	return true
}

func (a *Access) rootPrincipal() Principal {
	return Principal{Name: rootName, Role: api.Admin, Token: a.rootID}
}

// tokenText finds the token that a text is of.
func (a *Access) tokenText(text string) (*proof, *api.Error) {
	shown, err := control.ParseToken(text)
	if err != nil {
		return nil, unauthorized("what was shown begins like a token but is none: part of it may be missing")
	}
	t := a.token(shown.ID)
	if !t.is(shown.Secret) {
		if f := a.o.Fingerprint(); f != shown.Fingerprint && shown.Fingerprint != "" {
			return nil, unauthorized("the token is for another hub, or was deleted; " + howToSignIn)
		}
		return nil, unauthorized("the token is not known here: it was deleted or has never been; " + howToSignIn)
	}
	if t.joins() {
		return nil, unauthorized("the token is to join with, and for nothing else; " + howToSignIn)
	}
	return &proof{principal: t.principal(), audience: bearerAudience}, nil
}

const howToSignIn = "creel token create makes a token, and so does the token in the file token of the hub's state directory"

const notYet = "the JWT is not yet valid: the clocks of the hubs differ by more than a minute, or one was set back; set them"

func unauthorized(text string) *api.Error { return &api.Error{Code: "unauthorized", Message: text} }

func badRequest(format string, args ...any) *api.Error {
	return &api.Error{Code: "bad_request", Message: fmt.Sprintf(format, args...)}
}

func away(err error) *api.Error {
	return &api.Error{Code: "unavailable", Message: fmt.Sprintf("the control state cannot do this now: %v; try again", err)}
}
