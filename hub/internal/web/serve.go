package web

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/hub/internal/access"
)

// This file is who may do what, and that it is noted: for every operation alike.

// Access knows who may come in, and what as. Errors are an *api.Error.
type Access interface {
	// Bearer returns who shows a text as a bearer token; cs is the connection's, nil without TLS.
	Bearer(text string, cs *tls.ConnectionState) (access.Principal, error)
	Session(cookie string) (access.Principal, error)
	NewSession(p access.Principal) (cookie string, life time.Duration, err error)
	JWT(p access.Principal, bound *x509.Certificate) (control.AccessToken, error)
	JWKS() []byte
	FromHub(shown string) (access.Principal, error) // on whose behalf another hub asks

	Create(ctx context.Context, by string, r api.AccessTokenRequest) (api.AccessTokenCreated, error)
	Delete(ctx context.Context, id string) (api.AccessToken, error)
	List() api.AccessTokenList
}

// Audit is the log of what was changed.
type Audit interface {
	Add(ctx context.Context, e api.AuditEntry) error // an error, which it has logged, says that it is not written
	List(ctx context.Context, q api.AuditQuery) (api.AuditList, error)
}

// Flood is told of failed logins, so that it can bound how many connections somebody makes for more of them.
type Flood interface{ Failed(from net.Addr) }

// The names of the cookie. With the prefix, browsers take it from nobody but this host over TLS (RFC 6265bis, section 4.1.3).
const (
	plainCookie  = "creel_session"
	secureCookie = "__Host-" + plainCookie
)

func cookieName(r *http.Request) string {
	if r.TLS != nil {
		return secureCookie
	}
	return plainCookie
}

// A call is a request, and who has made it.
type call struct {
	access.Principal
	request *http.Request

	// For the audit log.
	target, detail string
	trial          bool // it changes nothing, or is noted already

	fresh time.Duration // how old what other hubs have told may be
}

func (c *call) path(name string) string { return c.request.PathValue(name) }

func newCall(p access.Principal, r *http.Request) *call {
	c := &call{Principal: p, request: r}
	for _, name := range []string{"id", "name"} {
		if v := r.PathValue(name); v != "" {
			c.target = v
		}
	}
	return c
}

// serve answers an operation: for whom may ask for it, within queryTimeout or changeTimeout and maxQueries if it is no stream, and
// noted in the audit log if it changes something. What has begun to change something is not given up when who asked goes away: else nobody
// would know how it ended.
func (s *Server) serve(o api.Operation, f operation) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := s.admit(o, r)
		var v any
		if err == nil {
			timeout := queryTimeout
			if changes(o) {
				timeout, r = changeTimeout, r.WithContext(context.WithoutCancel(r.Context()))
			}
			if o.Stream {
				v, err = f(w, r, c)
			} else {
				v, err = s.limited(w, r, c, f, timeout)
			}
		}
		if changes(o) && !c.trial {
			err = s.note(r, o.ID, c, err)
		}
		switch v.(type) {
		case answered:
			return
		case none:
			if err == nil {
				w.WriteHeader(http.StatusNoContent)
				return
			}
		}
		if err != nil {
			fail(w, err)
			return
		}
		partial(w.Header(), v)
		answer(w, http.StatusOK, v)
	})
}

// changes reports whether an operation changes something.
func changes(o api.Operation) bool {
	return o.Method != http.MethodGet && o.Role.May(api.Operator)
}

// limited answers so many requests at once, each within a time.
func (s *Server) limited(w http.ResponseWriter, r *http.Request, c *call, f operation, timeout time.Duration) (any, error) {
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	slots := s.slots
	if c.Hub != "" { // who waits for this hub may hold slots of another, which this one waits for
		slots = s.hubSlots
	}
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
	case <-ctx.Done():
		return nil, &api.Error{Code: "unavailable", Message: "the hub is busy with other requests; try again"}
	}
	return f(w, r.WithContext(ctx), c)
}

// admit returns who asks for an operation, if they may. The call is never nil.
func (s *Server) admit(o api.Operation, r *http.Request) (*call, error) {
	if o.Role == "" {
		return newCall(access.Principal{}, r), nil
	}
	p, err := s.who(r)
	c := newCall(p, r)
	switch {
	case err != nil:
		return c, err
	case !p.Role.May(o.Role):
		return c, &api.Error{Code: "forbidden", Message: fmt.Sprintf("this needs the role %s, and %s has the role %s; an admin can make another token: creel token create --role %s", o.Role, p.Name, p.Role, o.Role)}
	case !o.Within && !p.Within.IsZero():
		return c, &api.Error{Code: "forbidden", Message: fmt.Sprintf("this is not of some agents alone, and %s sees only those that meet %s; ask somebody who sees all", p.Name, p.Within)}
	}
	return c, nil
}

// who returns who asks: with a bearer token, as a browser that is signed in, or through another hub.
func (s *Server) who(r *http.Request) (access.Principal, error) {
	if p, ok := r.Context().Value(askingHub{}).(access.Principal); ok {
		return p, nil
	}
	if header := r.Header.Get("Authorization"); header != "" {
		scheme, text, _ := strings.Cut(header, " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return access.Principal{}, &api.Error{Code: "unauthorized", Message: "the header Authorization must be Bearer, and a token"}
		}
		p, err := s.Access.Bearer(strings.TrimSpace(text), r.TLS)
		if err != nil {
			s.failed(r)
		}
		return p, err
	}
	cookie, err := r.Cookie(cookieName(r))
	if err != nil {
		return access.Principal{}, &api.Error{Code: "unauthorized", Message: "sign in: open the link that the hub printed when it was started, or send a token as a bearer token; creel token create makes one, and the hub's own is in the file token of its state directory"}
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead && r.Header.Get("Origin") == "" {
		return access.Principal{}, &api.Error{Code: "forbidden", Message: "a change that is asked for with a cookie must say which page it comes from, in the header Origin; send a bearer token instead"}
	}
	return s.Access.Session(cookie.Value)
}

// failed counts that somebody has shown what is worth nothing. Of what a proxy has passed on it is not known who that was.
func (s *Server) failed(r *http.Request) {
	if creel.Forwarded(r.Header) {
		return
	}
	if from, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		s.Flood.Failed(net.TCPAddrFromAddrPort(from))
	}
}

// note writes into the audit log how a change went, and returns err, or that it is not written.
func (s *Server) note(r *http.Request, action string, c *call, err error) error {
	e := api.AuditEntry{Who: c.Name, Role: c.Role, Address: hostOf(r.RemoteAddr), Action: action, Target: c.target, Outcome: "done", Detail: c.detail}
	if err != nil {
		e.Outcome = asError(err).Code
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()
	if e.Outcome == "unavailable" { // the audit log lies where this could not be done; it keeps what was refused for later
		ctx, cancel = context.WithTimeout(ctx, time.Second)
		defer cancel()
	}
	written := s.Audit.Add(ctx, e)
	if written == nil || err != nil {
		return err
	}
	return &api.Error{Code: "unavailable", Message: fmt.Sprintf("it was done, but could not be noted in the audit log: %v; look whether it is as you want it before you try again", written)}
}

// login changes a token for a JWT, and for a cookie.
func (s *Server) login(w http.ResponseWriter, r *http.Request, _ *call) (any, error) {
	var body api.LoginRequest
	if err := decode(w, r, 4<<10, &body); err != nil {
		return nil, &api.Error{Code: "bad_request", Message: `the body must be {"token": "…"}`} // and repeats nothing of it
	}
	p, err := s.enter(w, r, body.Token)
	if err != nil {
		return nil, err
	}
	jwt, err := s.Access.JWT(p, nil)
	if err != nil {
		return nil, err
	}
	answer := api.LoginResponse{Token: jwt.Token, Seconds: jwt.Lifetime.Seconds()}
	if s.Certificate().Own {
		text, _ := s.Authority.Bundle()
		answer.Authorities = string(text)
	}
	return answer, nil
}

// signIn is the link that the hub prints. The browser leaves it at once, so that the token does not stay in the address.
func (s *Server) signIn(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if _, err := s.enter(w, r, r.URL.Query().Get("token")); err != nil {
		fail(w, err)
		return
	}
	http.Redirect(w, r, "/fleet", http.StatusSeeOther)
}

// enter gives a browser a cookie for a token.
func (s *Server) enter(w http.ResponseWriter, r *http.Request, token string) (access.Principal, error) {
	c := newCall(access.Principal{}, r)
	var cookie string
	var life time.Duration
	p, err := s.signedIn(token, r)
	c.Principal = p
	if err == nil {
		cookie, life, err = s.Access.NewSession(p)
	} else {
		s.failed(r)
		if t, wrong := control.ParseToken(token); wrong == nil && c.Name == "" {
			c.target = t.ID // which is no secret
		}
	}
	if err = s.note(r, "signIn", c, err); err != nil {
		return p, err
	}
	http.SetCookie(w, &http.Cookie{Name: cookieName(r), Value: cookie, Path: "/", MaxAge: int(life.Seconds()), HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteStrictMode})
	return p, nil
}

// signedIn returns who a token is of, if it is a person's. A JWT will not do: it could be changed for another for ever, though
// it is worth something for minutes only.
func (s *Server) signedIn(token string, r *http.Request) (access.Principal, error) {
	if strings.HasPrefix(token, "eyJ") && strings.Count(token, ".") == 2 {
		return access.Principal{}, &api.Error{Code: "unauthorized", Message: "this is what a token was changed for, not a token: sign in with the token itself"}
	}
	p, err := s.Access.Bearer(token, r.TLS)
	if err == nil && !p.Role.May(api.Viewer) {
		err = &api.Error{Code: "forbidden", Message: fmt.Sprintf("the token of %s has the role %s, with which nobody signs in; an admin can make another: creel token create --role viewer", p.Name, p.Role)}
	}
	return p, err
}

func (s *Server) logout(w http.ResponseWriter, r *http.Request) {
	http.SetCookie(w, &http.Cookie{Name: cookieName(r), Path: "/", MaxAge: -1, HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteStrictMode})
	w.WriteHeader(http.StatusNoContent)
}

// keys are public: whoever wants to may verify this hub's JWTs.
func (s *Server) keys(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/jwk-set+json")
	w.Header().Set("Cache-Control", "public, max-age=60")
	_, _ = w.Write(s.Access.JWKS()) // the client has gone
}

// backup sends the hub's state. Whoever has it can be this hub: that it was asked for is noted before anything is sent.
func (s *Server) backup(w http.ResponseWriter, r *http.Request) {
	c, err := s.admit(api.Operation{ID: "backup", Method: http.MethodGet, Role: api.Admin}, r)
	if err = s.note(r, "backup", c, err); err != nil {
		fail(w, err)
		return
	}
	out := &counted{ResponseWriter: w}
	w.Header().Set("Content-Type", "application/x-tar")
	w.Header().Set("Content-Disposition", `attachment; filename="creel-hub.tar"`)
	w.Header().Set("Cache-Control", "no-store")
	if err = s.Backup(r.Context(), out); err == nil {
		return
	}
	s.Log.Error("a backup was not finished", "who", c.Name, "error", err)
	if out.n > 0 {
		panic(http.ErrAbortHandler) // so that it cannot be taken for a whole one
	}
	w.Header().Del("Content-Disposition")
	fail(w, err)
}

// counted counts what was written.
type counted struct {
	http.ResponseWriter
	n int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.n += int64(n)
	return n, err
}

// notFound reports whether that is what err says.
func notFound(err error) bool {
	var e *api.Error
	return errors.As(err, &e) && e.Code == "not_found"
}
