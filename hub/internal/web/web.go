// Package web is the hub's HTTP: the API, the pages, Prometheus' query API and the way in for agents, behind checks of
// host, origin and token.
//
// Who may do what is in one place, for every operation alike: see Server.serve. It asks the rooms behind it and holds nothing
// itself.
package web

import (
	"context"
	"crypto/tls"
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
	"github.com/creelhq/creel/expr"
	"github.com/creelhq/creel/hub/internal/peers"
)

// Fleet is what the hub knows of agents: of those whose labels meet a condition, where one is asked for. The others are not
// there.
type Fleet interface {
	http.Handler // their OpAMP
	List(within expr.Selector, q api.AgentQuery) (api.AgentList, error)
	Agent(within expr.Selector, id string) (api.AgentDetail, error)
	Counts(within expr.Selector) map[string]int // by status
	Ledger(q api.LedgerQuery) (api.Ledger, error)
	Configurations() []api.Configuration
	Configuration(id string) (api.Configuration, bool)
	Changed() <-chan struct{}

	// Order asks an agent, or the only one whose id begins so, to do something. by is who asks.
	Order(ctx context.Context, within expr.Selector, agent, do, by, cause string) (api.Order, error)
	// Confirmed counts the connected agents that trust what they are to trust by now, and names those that do not.
	Confirmed() (confirmed int, behind []string)
}

// Documents is what the hub hands out. by is who asks, who sees only agents within a condition on their labels. Errors are an
// *api.Error where the request is to blame.
type Documents interface {
	List(within expr.Selector) api.DocumentList
	Tasks
	Get(ctx context.Context, within expr.Selector, name string, version int64) (api.DocumentDetail, error) // version 0: the newest
	History(ctx context.Context, within expr.Selector, name string) (api.DocumentHistory, error)
	Apply(ctx context.Context, by string, within expr.Selector, c api.DocumentChange) (api.DocumentApplied, error)
	Delete(ctx context.Context, by string, within expr.Selector, name string, dryRun bool) error
	Rollback(ctx context.Context, by string, within expr.Selector, name string, to int64) (api.DocumentApplied, error) // to 0: the one before the newest
}

// Tasks are the documents that are to be on some agents, as Documents.
type Tasks interface {
	Tasks(within expr.Selector) api.TaskList
	Task(ctx context.Context, within expr.Selector, name string) (api.TaskDetail, error)
	Run(ctx context.Context, by string, within expr.Selector, name, cause string) error
	Cancel(ctx context.Context, by string, within expr.Selector, name, cause string) error
	Retry(ctx context.Context, by string, within expr.Selector, name, cause string) error
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

// Cluster is the hubs that share a control state. Errors are an *api.Error where the request is to blame.
type Cluster interface {
	Cluster(ctx context.Context) api.Cluster
	Changed() <-chan struct{} // closed when hubs are others, or other than they were
	Drain(ctx context.Context, id string, on bool) (api.ClusterHub, error)
}

// Directory is who is there, of those whose labels meet a condition. Errors are an *api.Error where the request is to blame.
type Directory interface {
	List(within expr.Selector, q api.DirectoryQuery) (api.Directory, error)
	Watch(ctx context.Context, within expr.Selector, q api.DirectoryWatch, send func([]api.DirectoryEvent) error) error
}

// Options are what a Server serves. All but Hosts, Peers and HubShown are required.
type Options struct {
	Hosts     []string // names, beside loopback and the addresses of the machine, under which the hub may be asked for; nil: none
	Version   string
	Log       *slog.Logger
	Hub       func() api.Hub
	Fleet     Fleet
	Cluster   Cluster
	Directory Directory
	Documents Documents
	Schema    []byte // JSON Schema of a document: see api.DocumentSchema
	Rows      Rows
	Prom      http.Handler // Prometheus' query API, under /api/v1
	Pages     fs.FS        // the web UI

	Peers *peers.Peers // the other hubs; nil: there are none
	// HubShown checks that a connection shows the certificate of the hub with an id, "" for any. nil: none does.
	HubShown func(cs *tls.ConnectionState, hub string) error

	Access      Access // who may do what
	Audit       Audit
	Gate        Gate
	Authority   Authority
	Members     Members
	Flood       Flood
	Certificate func() api.Certificate                 // that the hub shows; zero: none
	Backup      func(context.Context, io.Writer) error // writes the hub's state as a tar stream
	Join        func(api.AccessTokenCreated) string    // what to run on a host that is to join with a token; "": none can
}

const (
	queryTimeout  = 30 * time.Second
	changeTimeout = 15 * time.Second    // of what only writes into the control state: for the body, and more than an election takes there
	maxQueries    = 16                  // that are answered at once; more wait
	maxBody       = 4 * api.MaxDocument // of a request: a text grows as JSON
	bodyTimeout   = 10 * time.Second    // for reading it
)

// policy is what pages of the hub may do: load what the hub itself serves, and nothing else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; font-src 'self'; " +
	"frame-ancestors 'none'; base-uri 'none'; form-action 'self'"

// headers are set on every answer. Strict-Transport-Security is not among them: it is for all ports of a host, of which most
// may be served by others and without TLS, browsers ignore it for addresses, and with a certificate of the hub's own
// authority it would lock out whoever has not imported that yet.
var headers = map[string]string{
	"Content-Security-Policy":      policy,
	"Cross-Origin-Opener-Policy":   "same-origin",
	"Cross-Origin-Resource-Policy": "same-origin",
	"Permissions-Policy":           "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
	"Referrer-Policy":              "no-referrer",
	"X-Content-Type-Options":       "nosniff",
}

// A Server answers the hub's HTTP requests.
type Server struct {
	Options
	mux      *http.ServeMux
	forHubs  *http.ServeMux // what other hubs may ask for
	cross    *http.CrossOriginProtection
	slots    chan struct{}
	hubSlots chan struct{} // likewise, for other hubs
	openAPI  []byte
	stop     context.CancelFunc
	stopped  context.Context // done when streams must end
}

// New returns a Server.
func New(o Options) *Server {
	s := &Server{
		Options: o, mux: http.NewServeMux(), forHubs: http.NewServeMux(), cross: http.NewCrossOriginProtection(),
		slots: make(chan struct{}, maxQueries), hubSlots: make(chan struct{}, maxQueries),
	}
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
	handlers := s.operations()
	for _, o := range api.Operations() {
		h := s.serve(o, handlers[o.ID])
		s.mux.Handle(o.Method+" "+api.Prefix+o.Path, h)
		if o.Joint {
			s.forHubs.Handle(o.Method+" "+api.Prefix+o.Path, h)
		}
	}
	s.mux.HandleFunc("GET "+api.Prefix+"/openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(s.openAPI) // the client has gone
	})
	s.mux.HandleFunc("GET "+api.Prefix+"/backup", s.backup)
	s.mux.HandleFunc("POST "+api.Prefix+"/logout", s.logout)
	s.mux.HandleFunc("GET /signin", s.signIn)
	prom := s.serve(api.Operation{ID: "prom", Role: api.Viewer}, s.prom)
	s.mux.Handle("/prom/", prom)
	s.forHubs.Handle("GET /prom/", prom)
	s.forHubs.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, &api.Error{Code: "forbidden", Message: "hubs do not ask each other for " + r.Method + " " + r.URL.Path})
	})
	s.mux.Handle(control.Path, s.Fleet)
	s.mux.Handle(identityPath, s.Gate)
	s.mux.HandleFunc("GET "+keysPath, s.keys)
	s.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	s.mux.HandleFunc("/api/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, &api.Error{Code: "not_found", Message: "there is no " + r.Method + " " + r.URL.Path + "; " + api.Prefix + "/openapi.json lists what there is"})
	})
	s.mux.HandleFunc("/", s.page)
}

const (
	identityPath = "/v1/identity/"
	keysPath     = "/.well-known/jwks.json"
)

// ServeHTTP answers a request, if it comes from somebody who may ask at all.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for name, value := range headers {
		w.Header().Set(name, value)
	}
	if shown := r.Header.Get(peers.Header); shown != "" { // it is known by that, under whatever name it asks
		s.fromHub(w, r, shown)
		return
	}
	if !s.knownHost(r) {
		fail(w, &api.Error{Code: "forbidden", Message: "this hub is not known as " + r.Host + ": ask for it by its address, or start it with --host " + hostOf(r.Host)})
		return
	}
	if origin := r.Header.Get("Origin"); origin != "" && !sameOrigin(origin, r) {
		fail(w, &api.Error{Code: "forbidden", Message: "pages of " + origin + " may not use this hub"})
		return
	}
	if s.cross.Check(r) != nil {
		fail(w, &api.Error{Code: "forbidden", Message: "another site's page has asked for this; pages may only use the hub that they are of"})
		return
	}
	s.mux.ServeHTTP(w, r)
}

// knownHost reports whether the request is for a name that a web page of somebody else cannot have: else its name could
// be pointed at this machine (DNS rebinding). Agents know the hub by its certificate, under whatever name they reach it: over
// TLS, a page of somebody else does not get as far as here under its own name.
func (s *Server) knownHost(r *http.Request) bool {
	if r.TLS != nil && (r.URL.Path == control.Path || r.URL.Path == keysPath || strings.HasPrefix(r.URL.Path, identityPath)) {
		return true
	}
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

func sameOrigin(origin string, r *http.Request) bool {
	u, err := url.Parse(origin)
	return err == nil && strings.EqualFold(u.Host, r.Host) && (r.TLS == nil || u.Scheme == "https")
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
	if code == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="creel"`)
		w.Header().Set("Connection", "close") // the next attempt passes whoever counts failures
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
