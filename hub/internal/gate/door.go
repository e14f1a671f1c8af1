package gate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/hub/internal/access"
)

const (
	bodyTimeout = 10 * time.Second // for reading a request
	workTimeout = 15 * time.Second // for doing what it asks, whether or not who asks waits for it
)

// statuses are what refusals are answered with.
var statuses = map[string]int{
	control.TokenUnknown: http.StatusUnauthorized, control.TokenExpired: http.StatusUnauthorized, control.TokenSpent: http.StatusUnauthorized,
	control.NoCertificate: http.StatusUnauthorized, control.UnknownAuthority: http.StatusUnauthorized, control.Expired: http.StatusUnauthorized,
	control.Revoked: http.StatusForbidden, control.OtherIdentity: http.StatusForbidden,
	control.Cloned: http.StatusConflict, control.IdentityTaken: http.StatusConflict, control.NotJoinable: http.StatusConflict,
	control.Malformed: http.StatusBadRequest, control.Busy: http.StatusTooManyRequests,
}

func malformed(format string, args ...any) *control.Refusal {
	return &control.Refusal{Code: control.Malformed, Text: fmt.Sprintf(format, args...), Remedy: "use creel join, of a version that this hub knows"}
}

// A visit is a request, and what has become known of who makes it.
type visit struct {
	*http.Request
	host    string // where it comes from, without the port
	network netip.Prefix
	agent   string // its id; "": it has said none
	name    string // of its host, as it says
}

func visitOf(r *http.Request) *visit {
	v := &visit{Request: r}
	v.host, v.network = placeOf(r.RemoteAddr)
	return v
}

// ServeHTTP makes identities, renews them, and gives JWTs to who has one.
func (g *Gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v := visitOf(r)
	answer, err := g.serve(w, v)
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "no-store")
	status := http.StatusOK
	if err != nil {
		refused := g.refusal(v, err)
		answer, status = refused, statuses[refused.Code]
		if r.Method != http.MethodPost {
			header.Set("Allow", http.MethodPost)
			status = http.StatusMethodNotAllowed
		}
		if refused.After > 0 {
			header.Set("Retry-After", strconv.Itoa(int(math.Ceil(refused.After.Seconds()))))
		}
		if status == 0 {
			status = http.StatusForbidden
		}
	}
	text, err := json.Marshal(answer)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	w.WriteHeader(status)
	_, _ = w.Write(text) // who asked has gone
}

// refusal returns what whoever visits is told, and notes it. Errors that are no refusals are the hub's own trouble.
func (g *Gate) refusal(v *visit, err error) *control.Refusal {
	var refused *control.Refusal
	if !errors.As(err, &refused) {
		g.o.Log.Error("an agent cannot be served; it tries again", "agent", v.agent, "address", v.host, "error", err)
		refused = busy(5*time.Second, "the hub cannot do this now: its log says why")
	}
	g.Refused(v.agent, v.name, v.host, refused)
	return refused
}

// serve does what a request asks: what costs little comes first.
func (g *Gate) serve(w http.ResponseWriter, v *visit) (any, error) {
	now := g.o.Now()
	over := g.limits.network.wait(v.network, now, true)
	if over == 0 {
		over = g.limits.all.wait(netip.Prefix{}, now, true)
	}
	switch {
	case over > 0:
		return nil, busy(over, "there are too many requests at the moment")
	case v.Method != http.MethodPost:
		return nil, malformed("this is asked for by POST, got %s", clean(v.Method, maxName))
	case v.Header.Get("Origin") != "":
		return nil, malformed("requests of web pages are refused")
	}
	switch v.URL.Path {
	case control.EnrolPath:
		return serveStranger(g, w, v, g.enrol)
	case control.HubPath:
		return serveStranger(g, w, v, func(ctx context.Context, v *visit, q control.HubRequest) (*control.HubGrant, error) {
			v.name = clean(q.Name, maxName)
			return g.o.Join(ctx, v.host, q)
		})
	case control.RenewPath:
		var q control.RenewRequest
		return g.serveAgent(w, v, &q, func(ctx context.Context, h holder) (any, error) { return g.renew(ctx, v, h, q) })
	case control.TokenPath:
		return g.serveAgent(w, v, &struct{}{}, func(ctx context.Context, h holder) (any, error) { return g.token(ctx, v, h) })
	}
	return nil, malformed("there is nothing at this path")
}

// serveStranger is for who has nothing but a token: who was refused too often from one network is not even read.
func serveStranger[Q, R any](g *Gate, w http.ResponseWriter, v *visit, f func(context.Context, *visit, Q) (*R, error)) (any, error) {
	if over := g.limits.failed.wait(v.network, g.o.Now(), false); over > 0 {
		return nil, busy(over, "too many were refused from this address")
	}
	if v.TLS == nil && !v.trusted() {
		return nil, malformed("identities are made over TLS, which this connection has not; ask at the hub's https:// address")
	}
	var q Q
	err := read(w, v.Request, &q)
	if err == nil {
		var grant *R
		if grant, err = working(v, g.limits.strangers, func(ctx context.Context) (*R, error) { return f(ctx, v, q) }); err == nil {
			return grant, nil
		}
	}
	var refused *control.Refusal
	if errors.As(err, &refused) && refused.Code != control.Busy {
		g.limits.failed.wait(v.network, g.o.Now(), true)
	}
	return nil, err
}

// serveAgent is for who shows a certificate of the authority, even an expired one.
func (g *Gate) serveAgent(w http.ResponseWriter, v *visit, q any, f func(context.Context, holder) (any, error)) (any, error) {
	h, err := g.holder(v)
	if err != nil {
		return nil, err
	}
	if err := read(w, v.Request, q); err != nil {
		return nil, err
	}
	return working(v, g.limits.agents, func(ctx context.Context) (any, error) { return f(ctx, h) })
}

// working calls f when there is room for it. It is not interrupted when who asks goes away: half of it would be of no use.
func working[T any](v *visit, p *pool, f func(context.Context) (T, error)) (T, error) {
	if !p.enter(v.Context()) {
		var none T
		return none, busy(2*time.Second, "the hub is busy with other agents")
	}
	defer p.leave()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(v.Context()), workTimeout)
	defer cancel()
	return f(ctx)
}

// read reads the body, which must be JSON with nothing in it that is not known. One that is empty is an empty object.
func read(w http.ResponseWriter, r *http.Request, into any) error {
	c := http.NewResponseController(w)
	if err := c.SetReadDeadline(time.Now().Add(bodyTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("read the request: %w", err)
	}
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, control.MaxIdentityMessage))
	if err != nil {
		return malformed("the request must come within %v and have at most %d bytes", bodyTimeout, control.MaxIdentityMessage)
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("read the request: %w", err)
	}
	if len(text) == 0 {
		return nil
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return malformed("the request must be JSON, with Content-Type: application/json")
	}
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return malformed("the request is not the JSON that is expected here") // the error may repeat what is secret
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return malformed("there is something behind the JSON of the request")
	}
	return nil
}

// trusted reports whether a connection need not prove anything.
func (v *visit) trusted() bool {
	at, _ := v.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if at == nil {
		return false
	}
	var from net.Addr = &net.UnixAddr{Net: "unix"}
	if _, ok := at.(*net.UnixAddr); !ok {
		ap, err := netip.ParseAddrPort(v.RemoteAddr)
		if err != nil {
			return false
		}
		from = net.TCPAddrFromAddrPort(ap)
	}
	return access.Local(at, from, creel.Forwarded(v.Header))
}

// Enter decides about an agent that connects. A trusted local connection that shows no certificate is the zero Peer's. labels
// are those that are pinned to the agent. The error is a *control.Refusal, and is on the list of those who knock.
func (g *Gate) Enter(r *http.Request) (p control.Peer, labels map[string]string, err error) {
	v := visitOf(r)
	if (r.TLS == nil || len(r.TLS.PeerCertificates) == 0) && v.trusted() {
		return control.Peer{}, nil, nil
	}
	h, err := g.holder(v)
	var rec record
	if err == nil {
		rec, err = working(v, g.limits.agents, func(ctx context.Context) (record, error) { return g.enter(ctx, v, h) })
	}
	if err != nil {
		return control.Peer{}, nil, g.refusal(v, err)
	}
	return h.Peer, maps.Clone(rec.Labels), nil
}

// token gives a JWT that is worth something together with the certificate of the connection.
func (g *Gate) token(ctx context.Context, v *visit, h holder) (*control.AccessToken, error) {
	if _, err := g.enter(ctx, v, h); err != nil {
		return nil, err
	}
	t, err := g.o.Tokens.JWT(access.Principal{Name: h.ID, Role: api.Enrol, Agent: h.ID}, h.certificate)
	if err != nil {
		return nil, fmt.Errorf("make a token for agent %s: %w", h.ID, err)
	}
	g.counted.tokens.Inc()
	return &t, nil
}
