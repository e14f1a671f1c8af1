// Package web is the hub's HTTP: the API, the pages, Prometheus' query API and the way in for agents, behind checks of
// host, origin and token.
//
// It asks the rooms behind it and holds nothing itself but who is signed in.
package web

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
)

// Fleet is what the hub knows of agents.
type Fleet interface {
	http.Handler // their OpAMP
	List(q api.AgentQuery) (api.AgentList, error)
	Agent(id string) (api.AgentDetail, error)
	Ledger(q api.LedgerQuery) (api.Ledger, error)
	Configurations() []api.Configuration
	Configuration(id string) (api.Configuration, bool)
	Changed() <-chan struct{}

	// Order asks an agent, or the only one whose id begins so, to do something. by is who asks.
	Order(ctx context.Context, agent, do, by, cause string) (api.Order, error)
}

// Documents is what the hub hands out. by is who asks. Errors are an *api.Error where the request is to blame.
type Documents interface {
	List() api.DocumentList
	Get(ctx context.Context, name string, version int64) (api.DocumentDetail, error) // version 0: the newest
	History(ctx context.Context, name string) (api.DocumentHistory, error)
	Apply(ctx context.Context, by string, c api.DocumentChange) (api.DocumentApplied, error)
	Delete(ctx context.Context, by, name string, dryRun bool) error
	Rollback(ctx context.Context, by, name string, to int64) (api.DocumentApplied, error) // to 0: the one before the newest
}

// Rows is the store of logs and spans.
type Rows interface {
	SearchLogs(ctx context.Context, q api.LogQuery) (api.LogResult, error)
	CountLogs(ctx context.Context, q api.LogQuery) (api.Histogram, error)
	TailLogs(ctx context.Context, q api.LogQuery, f func(api.Log) error) error
	SearchTraces(ctx context.Context, q api.TraceQuery) (api.TraceList, error)
	Trace(ctx context.Context, id string) (api.Trace, error)
	Services(ctx context.Context, w api.Window) (api.ServiceList, error)
}

// Options are what a Server serves. All are required but Hosts.
type Options struct {
	Token     string   // whoever has it may do everything
	Hosts     []string // names, beside loopback and the addresses of the machine, under which the hub may be asked for
	Version   string
	Log       *slog.Logger
	Hub       func() api.Hub
	Fleet     Fleet
	Documents Documents
	Schema    []byte // JSON Schema of a document: see api.DocumentSchema
	Rows      Rows
	Prom      http.Handler // Prometheus' query API, under /api/v1
	Pages     fs.FS        // the web UI
}

const (
	cookieName   = "creel_session"
	queryTimeout = 30 * time.Second
	maxQueries   = 16                  // that are answered at once; more wait
	maxBody      = 4 * api.MaxDocument // of a request: a text grows as JSON
	bodyTimeout  = 10 * time.Second    // for reading it
)

// A Server answers the hub's HTTP requests.
type Server struct {
	Options
	mux     *http.ServeMux
	session string // the cookie's value
	slots   chan struct{}
	openAPI []byte
	stop    context.CancelFunc
	stopped context.Context // done when streams must end
}

// New returns a Server.
func New(o Options) *Server {
	mac := hmac.New(sha256.New, []byte(o.Token))
	mac.Write([]byte("session"))
	s := &Server{Options: o, mux: http.NewServeMux(), session: hex.EncodeToString(mac.Sum(nil)), slots: make(chan struct{}, maxQueries)}
	s.stopped, s.stop = context.WithCancel(context.Background())
	var err error
	if s.openAPI, err = json.MarshalIndent(api.OpenAPI(o.Version), "", "  "); err != nil {
		panic("BUG: " + err.Error())
	}
	s.routes()
	return s
}

// Close ends streams: http.Server.Shutdown waits for them.
func (s *Server) Close() { s.stop() }

func (s *Server) routes() {
	for id, h := range s.operations() {
		i := slices.IndexFunc(api.Operations(), func(o api.Operation) bool { return o.ID == id })
		o := api.Operations()[i]
		if !o.Stream {
			h = s.limited(h)
		}
		s.mux.Handle(o.Method+" "+api.Prefix+o.Path, s.authenticated(h))
	}
	s.mux.HandleFunc("GET "+api.Prefix+"/openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(s.openAPI) // the client has gone
	})
	s.mux.HandleFunc("POST "+api.Prefix+"/login", s.login)
	s.mux.HandleFunc("POST "+api.Prefix+"/logout", func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: cookieName, Path: "/", MaxAge: -1, HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteStrictMode})
		w.WriteHeader(http.StatusNoContent)
	})
	s.mux.HandleFunc("GET /signin", s.signIn)
	s.mux.Handle("/prom/", s.authenticated(s.limited(http.StripPrefix("/prom", s.Prom))))
	s.mux.Handle(control.Path, s.Fleet)
	s.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	s.mux.HandleFunc("/api/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, &api.Error{Code: "not_found", Message: "there is no " + r.Method + " " + r.URL.Path + "; " + api.Prefix + "/openapi.json lists what there is"})
	})
	s.mux.HandleFunc("/", s.page)
}

// ServeHTTP answers a request, if it comes from somebody who may ask at all.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.knownHost(r) {
		fail(w, &api.Error{Code: "forbidden", Message: "this hub is not known as " + r.Host + ": ask for it by its address, or start it with --host " + hostOf(r.Host)})
		return
	}
	if origin := r.Header.Get("Origin"); origin != "" && !sameOrigin(origin, r.Host) {
		fail(w, &api.Error{Code: "forbidden", Message: "pages of " + origin + " may not use this hub"})
		return
	}
	h := w.Header()
	h.Set("Content-Security-Policy", "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	s.mux.ServeHTTP(w, r)
}

// knownHost reports whether the request is for a name that a web page of somebody else cannot have: else its name could
// be pointed at this machine (DNS rebinding).
func (s *Server) knownHost(r *http.Request) bool {
	host := hostOf(r.Host)
	if host == "localhost" || slices.Contains(s.Hosts, host) {
		return true
	}
	ip := net.ParseIP(host)
	if ip == nil {
		return false
	}
	if ip.IsLoopback() {
		return true
	}
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	tcp, ok := local.(*net.TCPAddr)
	return ok && tcp.IP.Equal(ip)
}

func hostOf(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return strings.ToLower(host)
	}
	return strings.ToLower(strings.Trim(hostport, "[]"))
}

func sameOrigin(origin, host string) bool {
	u, err := url.Parse(origin)
	return err == nil && strings.EqualFold(u.Host, host)
}

// authenticated lets those through who have the token, or the cookie that it was changed for.
func (s *Server) authenticated(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.who(r) == "" {
			fail(w, &api.Error{Code: "unauthorized", Message: "sign in: open the link that the hub printed when it was started, or send its token as a bearer token; the token is in the file token of the hub's state directory"})
			return
		}
		h.ServeHTTP(w, r)
	})
}

// who says who asks, as far as that is known: whoever has the token, a browser that is signed in, or "" for neither.
func (s *Server) who(r *http.Request) string {
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok && equal(token, s.Token) {
		return "token"
	}
	if c, err := r.Cookie(cookieName); err == nil && equal(c.Value, s.session) {
		return "browser"
	}
	return ""
}

func equal(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// limited answers so many requests at once, each within queryTimeout.
func (s *Server) limited(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), queryTimeout)
		defer cancel()
		select {
		case s.slots <- struct{}{}:
			defer func() { <-s.slots }()
		case <-ctx.Done():
			fail(w, &api.Error{Code: "unavailable", Message: "the hub is busy with other requests; try again"})
			return
		}
		h.ServeHTTP(w, r.WithContext(ctx))
	})
}

// login changes the token for a cookie.
func (s *Server) login(w http.ResponseWriter, r *http.Request) {
	var body struct{ Token string }
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4<<10)).Decode(&body); err != nil {
		fail(w, &api.Error{Code: "bad_request", Message: `the body must be {"token": "…"}`})
		return
	}
	if !s.enter(w, r, body.Token) {
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// signIn is the link that the hub prints.
func (s *Server) signIn(w http.ResponseWriter, r *http.Request) {
	if s.enter(w, r, r.URL.Query().Get("token")) {
		http.Redirect(w, r, "/fleet", http.StatusSeeOther)
	}
}

func (s *Server) enter(w http.ResponseWriter, r *http.Request, token string) bool {
	if !equal(token, s.Token) {
		fail(w, &api.Error{Code: "unauthorized", Message: "the token is not this hub's"})
		return false
	}
	http.SetCookie(w, &http.Cookie{Name: cookieName, Value: s.session, Path: "/", MaxAge: 30 * 24 * 3600, HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteStrictMode})
	return true
}

// page serves the UI: a file of it, or, for the paths that the UI makes up itself, its entrance.
func (s *Server) page(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		fail(w, &api.Error{Code: "not_found", Message: "there is no " + r.Method + " " + r.URL.Path})
		return
	}
	name := strings.TrimPrefix(path.Clean(r.URL.Path), "/")
	if info, err := fs.Stat(s.Pages, name); err != nil || info.IsDir() {
		if strings.HasPrefix(name, "assets/") {
			http.NotFound(w, r)
			return
		}
		name = "index.html"
	}
	if strings.HasPrefix(name, "assets/") { // their names change with their content
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	} else {
		w.Header().Set("Cache-Control", "no-cache")
	}
	http.ServeFileFS(w, r, s.Pages, name)
}

var statusOf = map[string]int{
	"bad_request": http.StatusBadRequest, "unauthorized": http.StatusUnauthorized, "forbidden": http.StatusForbidden, "not_found": http.StatusNotFound,
	"conflict": http.StatusConflict, "too_much": http.StatusUnprocessableEntity, "timeout": http.StatusServiceUnavailable, "unavailable": http.StatusServiceUnavailable,
}

// fail answers with an error.
func fail(w http.ResponseWriter, err error) {
	e := asError(err)
	code, ok := statusOf[e.Code]
	if !ok {
		code = http.StatusInternalServerError
	}
	answer(w, code, e)
}

func asError(err error) *api.Error {
	var e *api.Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, context.DeadlineExceeded):
		return &api.Error{Code: "timeout", Message: "the query took too long: ask for less time, or say more of what you look for"}
	}
	return &api.Error{Code: "internal", Message: err.Error()}
}

func answer(w http.ResponseWriter, code int, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write(text) // the client has gone
}
