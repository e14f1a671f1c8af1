// Package hub runs a hub: the registry that agents connect to, a store for a first look, the API and the web UI, and an
// agent of its own that takes data in. It can be embedded: a program of one's own hands Run its plugins.
//
// It knows no plugin by name but the exporter quicklook, which it adds, and nothing of command lines.
package hub

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/expr"
	"github.com/creelhq/creel/hub/internal/access"
	"github.com/creelhq/creel/hub/internal/admission"
	"github.com/creelhq/creel/hub/internal/audit"
	"github.com/creelhq/creel/hub/internal/authority"
	"github.com/creelhq/creel/hub/internal/cluster"
	"github.com/creelhq/creel/hub/internal/directory"
	"github.com/creelhq/creel/hub/internal/documents"
	"github.com/creelhq/creel/hub/internal/flood"
	"github.com/creelhq/creel/hub/internal/gate"
	"github.com/creelhq/creel/hub/internal/peers"
	"github.com/creelhq/creel/hub/internal/placer"
	"github.com/creelhq/creel/hub/internal/quicklook"
	"github.com/creelhq/creel/hub/internal/registry"
	"github.com/creelhq/creel/hub/internal/spread"
	"github.com/creelhq/creel/hub/internal/state"
	"github.com/creelhq/creel/hub/internal/web"
	"github.com/creelhq/creel/metric"
	"github.com/creelhq/creel/pipeline"
	"github.com/creelhq/creel/report"
	"github.com/creelhq/creel/tlsconf"
	"github.com/creelhq/creel/ui"
)

// Where a hub listens if nothing else is said.
const (
	DefaultAddress = "127.0.0.1:4380"
	DefaultOpAMP   = "127.0.0.1:4320"
)

// Options say what to run. Data, Plugins and Config or Text are required.
type Options struct {
	Data     string   // the state directory; it is made, with mode 0700, if it does not exist
	Address  string   // of the UI, the API and OpAMP; empty: DefaultAddress
	OpAMP    string   // a second address of the same, where OpAMP agents expect it; empty: DefaultOpAMP; none: not
	NextPort bool     // take the next free port when one is taken
	Insecure bool     // allow addresses that are not loopback without TLS
	Hosts    []string // names under which the hub may be asked for

	// TLS is of both addresses. Without certificates the hub's own authority makes them, where an address is not loopback or
	// Identity says so.
	TLS       tlsconf.Server
	AgentLife time.Duration // of agents' certificates; 0: 24 h

	// The control state is in an etcd outside, or in one within, in the state directory. What was learned by joining is kept there.
	Etcd         []string       // endpoints of an etcd outside; empty: one within
	EtcdTLS      tlsconf.Client // of endpoints that begin with https://
	EtcdUser     string
	EtcdPassword string
	EtcdListen   string // address of this machine at which other hubs reach the etcd within, port 2380 if it has none; empty: as the last time, or nowhere, or of one that joins on the host of Address
	Join         string // URL of a hub whose control state this one is to share; empty: of none
	JoinToken    string // a token of the role hub for that

	Heartbeat time.Duration // least interval between an agent's heartbeats; 0: 5 s
	MaxBytes  int64         // of the quick look on disk; 0: 4 GiB
	MaxAge    time.Duration // of records in the quick look; 0: 7 days

	AgentRecords int64 // a second that one agent may send; 0: no limit
	AgentBytes   int64 // likewise

	Register Registration // with centers; without Text: with none

	// The hub's own agent: as for agent.Options. Its configuration may name the exporter quicklook.
	Config  string
	Text    []byte
	Plugins []creel.Plugin
	Version string
	Log     io.Writer
	Env     *config.Env
	Reload  <-chan struct{}

	// Ready is told once everything runs, if it is not nil.
	Ready func(Endpoints)
}

// QuickLook returns the exporter quicklook for programs that only check or explain configurations. Run brings its own.
func QuickLook() creel.Plugin { return (*quicklook.Store)(nil).Plugin() }

// Endpoints say where a running hub is. They are in the file hub.json of its state directory.
type Endpoints struct {
	Version int    `json:"version"` // of this format: 1
	ID      string `json:"id"`      // the hub's
	PID     int    `json:"pid"`
	URL     string `json:"url"`
	OpAMP   string `json:"opamp,omitempty"`
	Token   string `json:"-"` // it is in the file token

	// With TLS: what to trust on this machine, and the name to ask for if the certificate is not for the host in URL.
	CAFile     string `json:"ca_file,omitempty"`
	ServerName string `json:"server_name,omitempty"`

	// Inside is where agents in this process reach the hub, without TLS: with it, the Unix socket opamp.sock of the state
	// directory, which nobody else may enter.
	Inside string `json:"-"`
}

// SignIn returns the link that signs a browser in.
func (e Endpoints) SignIn() string { return e.URL + "/signin?token=" + url.QueryEscape(e.Token) }

// AgentData returns the state directory of a hub's own agent.
func AgentData(data string) string { return filepath.Join(data, "agent") }

// Run runs the hub until ctx is done, and returns nil. Any other return is an error to start, a config.Errors if the configuration of
// its agent is wrong, or tells that the control state has ended, as when the hub was removed from those that share it.
func Run(ctx context.Context, o Options) error {
	o = o.withDefaults()
	if err := o.checkAddresses(); err != nil {
		return err
	}
	registrar, err := o.registrar()
	if err != nil {
		return err
	}
	unlock, err := agent.LockDir(o.Data)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := finishRestore(o.Data); err != nil { // that was begun
		return err
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	h := &hub{Options: o, registrar: registrar, named: o.Hosts, started: time.Now(), metrics: metric.NewSet(), ended: make(chan error, 1)}
	h.end = func(err error) {
		h.ended <- err
		end(err)
	}
	h.log = slog.New(slog.NewTextHandler(o.Log, &slog.HandlerOptions{Level: slog.LevelInfo}))
	h.libraries = slog.New(slog.NewTextHandler(o.Log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	defer h.closeAll()
	if err := h.open(ctx); err != nil {
		return err
	}
	err = h.run(ctx)
	select {
	case ended := <-h.ended:
		return errors.Join(ended, err)
	default:
		return err
	}
}

func (o Options) withDefaults() Options {
	if o.Address == "" {
		o.Address = DefaultAddress
	}
	if o.OpAMP == "" {
		o.OpAMP = DefaultOpAMP
	}
	if o.Log == nil {
		o.Log = os.Stderr
	}
	return o
}

func (o *Options) checkAddresses() error {
	for _, address := range []string{o.Address, o.OpAMP} {
		if address == "none" {
			continue
		}
		if _, _, err := net.SplitHostPort(address); err != nil {
			return fmt.Errorf("read address %q: must be host:port: %w", address, err)
		}
	}
	return nil
}

// hub is one run.
type hub struct {
	Options
	id      string
	token   string
	started time.Time
	log     *slog.Logger

	libraries *slog.Logger // for those that say more than an operator wants to read

	metrics *metric.Set
	close   []func()    // in the order of opening
	end     func(error) // ends the hub; once
	ended   chan error

	state     state.Store
	authority *authority.Authority
	audit     *audit.Log
	access    *access.Access
	gate      *gate.Gate
	flood     *flood.Guard
	documents *documents.Store
	admission *admission.Admission
	registry  *registry.Registry
	cluster   *cluster.Cluster
	directory *directory.Directory
	quick     *quicklook.Store
	peers     *peers.Peers
	web       *web.Server
	listeners []net.Listener
	inside    string      // see Endpoints
	secure    *tls.Config // nil: no TLS
	named     []string    // Options.Hosts
	registrar *registrar  // nil: the hub registers nowhere
}

func (h *hub) closeAll() {
	for i := len(h.close) - 1; i >= 0; i-- {
		h.close[i]()
	}
}

func (h *hub) open(ctx context.Context) error {
	var err error
	if err = h.loadTLS(); err != nil {
		return err
	}
	if h.id, err = keep(filepath.Join(h.Data, "id"), func() string { return newID() }); err != nil {
		return err
	}
	if h.token, err = keep(filepath.Join(h.Data, "token"), rand.Text); err != nil {
		return err
	}
	// The store of a first look and the control state take their time to open; neither needs the other.
	var wg sync.WaitGroup
	var stateErr, quickErr error
	wg.Go(func() { h.state, stateErr = h.openState(ctx) })
	wg.Go(func() {
		h.quick, quickErr = quicklook.Open(quicklook.Options{Dir: filepath.Join(h.Data, "quicklook"), MaxBytes: h.MaxBytes, MaxAge: h.MaxAge, Log: h.libraries, Metrics: h.metrics})
	})
	wg.Wait()
	if quickErr == nil {
		h.close = append(h.close, func() { h.complain("close the quick look", h.quick.Close()) })
	}
	if stateErr == nil {
		h.close = append(h.close, func() { h.complain("close the control state", h.state.Close()) })
	}
	if err := errors.Join(stateErr, quickErr); err != nil {
		return err
	}
	if err := h.openSecurity(ctx); err != nil {
		return err
	}
	plugins := known{withQuickLook(h.Plugins, QuickLook())}
	h.documents, err = documents.Open(ctx, documents.Options{
		Store: h.state, Log: h.log, Check: plugins.check, Conceal: plugins.conceal, Agents: func() []documents.Agent { return h.registry.Documented() },
	})
	if err != nil {
		return err
	}
	h.close = append(h.close, h.documents.Close)
	h.admission = admission.New(admission.Options{Records: h.AgentRecords, Bytes: h.AgentBytes, Access: h.senders(), Epochs: h.documents, Metrics: h.metrics})
	h.registry, err = registry.Open(ctx, registry.Options{
		Hub: h.id, Store: h.state, Documents: h.documents, Heartbeat: h.Heartbeat, Door: h.admission, Shared: h.shared(), Log: h.log, Metrics: h.metrics,
		Gate: h.entry(), Authorities: func() string { _, fingerprint := trusted{h}.Bundle(); return fingerprint },
		Balancer: spread.New(h.id, clustered{h}.places),
	})
	if err != nil {
		return err
	}
	h.close = append(h.close, h.registry.Close)
	if h.directory, err = directory.Open(ctx, directory.Options{Store: h.state, Log: h.log, Metrics: h.metrics}); err != nil {
		return err
	}
	h.close = append(h.close, h.directory.Close)
	if err := h.openGate(ctx); err != nil {
		return err
	}
	schema, err := documentSchema(plugins.plugins)
	if err != nil {
		return err
	}
	return h.listen(ctx, schema)
}

// place has this hub stand for election as the one that places documents. It asks the others of the cluster.
func (h *hub) place() {
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		placer.Run(ctx, placer.Options{
			Hub: h.id, Store: h.state, Documents: h.documents, Fleet: h.registry, Lease: h.registry.Lease, Answers: h.peers.Answers,
			Log: h.log, Metrics: h.metrics,
		})
	})
	h.close = append(h.close, func() { stop(); wg.Wait() })
}

// openCluster says to the other hubs that this one is there. It is the last thing before agents come.
func (h *hub) openCluster(ctx context.Context) error {
	var err error
	h.cluster, err = cluster.Open(ctx, cluster.Options{Store: h.state, Self: h.self, Log: h.log, Metrics: h.metrics})
	if err == nil {
		h.close = append(h.close, h.cluster.Close)
	}
	return err
}

// self is what this hub says of itself to the others.
func (h *hub) self() cluster.Hub {
	host, _, _ := net.SplitHostPort(h.listeners[0].Addr().String()) // it is one
	if !tlsconf.IsLoopback(host) {
		host = h.name()
	}
	name, err := os.Hostname()
	if err != nil {
		name = host
	}
	x := cluster.Hub{
		HubAt: control.HubAt{ID: h.id, Addresses: h.addresses(host), Agents: h.registry.Connected()},
		Name:  name, Version: h.Version, Started: h.started.UTC(),
	}
	if own, ok := h.state.(state.OwnCluster); ok {
		x.State = own.Size()
	}
	return x
}

func (h *hub) complain(what string, err error) {
	if err != nil {
		h.log.Error(what, "error", err)
	}
}

// listen binds the addresses. They are served before the agent starts: it connects to them.
func (h *hub) listen(ctx context.Context, schema []byte) error {
	h.flood = flood.New(flood.Options{Log: h.log, Metrics: h.metrics})
	h.openPeers()
	h.web = web.New(h.secured(web.Options{
		Hosts: h.Hosts, Version: h.Version, Log: h.log, Hub: h.describe, Fleet: h.registry, Cluster: clustered{h}, Directory: h.directory, Documents: h.documents, Schema: schema,
		Rows: h.quick.Rows, Prom: h.quick.Series.Handler(), Pages: ui.Files(),
	}))
	server := h.server(h.web)
	if h.secure != nil {
		server.TLSConfig = h.inviting()
	}
	for _, address := range []string{h.Address, h.OpAMP} {
		if address == "none" {
			continue
		}
		l, err := bind(address, h.NextPort)
		if err != nil {
			h.closeListeners()
			return err
		}
		h.listeners = append(h.listeners, l)
	}
	if h.secure != nil {
		if err := h.listenInside(); err != nil {
			h.closeListeners()
			return err
		}
	}
	if err := h.openCluster(ctx); err != nil {
		h.closeListeners()
		return err
	}
	h.place()
	for _, l := range h.listeners {
		l := h.flood.Listen(l)
		if h.secure != nil {
			go h.served(func() error { return server.ServeTLS(l, "", "") })
		} else {
			go h.served(func() error { return server.Serve(l) })
		}
	}
	h.close = append(h.close, func() {
		h.web.Close()
		shutdown(server)
	})
	return nil
}

// listenInside serves agents within this process, at a socket that nobody else can reach: they need neither trust the hub's
// certificate, which may be for any name, nor have one themselves.
func (h *hub) listenInside() error {
	socket, err := filepath.Abs(filepath.Join(h.Data, "opamp.sock"))
	if err != nil {
		return fmt.Errorf("listen inside: %w", err)
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) { // it is of a hub that was killed: this one has the lock
		return fmt.Errorf("listen inside: %w", err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return fmt.Errorf("listen inside: %w; is the path of the state directory too long for a Unix socket?", err)
	}
	h.inside = (&url.URL{Scheme: "unix", Path: socket}).String()
	mux := http.NewServeMux()
	mux.Handle(control.Path, h.registry)
	server := h.server(mux)
	go h.served(func() error { return server.Serve(l) })
	h.close = append(h.close, func() { shutdown(server) })
	return nil
}

func (h *hub) closeListeners() {
	for _, l := range h.listeners {
		l.Close()
	}
}

func (h *hub) server(handler http.Handler) *http.Server {
	return &http.Server{
		Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(h.log.Handler(), slog.LevelDebug),
	}
}

// served serves until the server is closed.
func (h *hub) served(serve func() error) {
	if err := serve(); !errors.Is(err, http.ErrServerClosed) {
		h.log.Error("the hub's HTTP server ended", "error", err)
	}
}

func shutdown(server *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if server.Shutdown(ctx) != nil {
		server.Close()
	}
}

// bind listens on an address, or on the next port that is free if that is allowed.
func bind(address string, next bool) (net.Listener, error) {
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("read address %q: %w", address, err)
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return nil, fmt.Errorf("read address %q: the port must be a number", address)
	}
	for tries := 0; ; tries++ {
		l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port+tries)))
		if err == nil {
			return l, nil
		}
		if !next || port == 0 || !errors.Is(err, syscall.EADDRINUSE) || tries == 100 {
			return nil, pipeline.ExplainListen(err, "tcp", address)
		}
	}
}

// endpoints says where the hub is.
func (h *hub) endpoints() (Endpoints, error) {
	e := Endpoints{Version: 1, ID: h.id, PID: os.Getpid(), URL: "http://" + here(h.listeners[0]), Token: h.token}
	if len(h.listeners) > 1 {
		e.OpAMP = "ws://" + here(h.listeners[1]) + control.Path
	}
	if e.Inside = e.URL; !h.TLS.Enabled() {
		return e, nil
	}
	e.Inside = h.inside
	e.URL, e.OpAMP = strings.Replace(e.URL, "http", "https", 1), strings.Replace(e.OpAMP, "ws", "wss", 1)
	var err error
	trust := h.TLS.CertFile // the certificate itself will do, whoever has signed it
	if h.TLS.Identity {
		trust = h.bundleFile()
	}
	if e.CAFile, err = filepath.Abs(trust); err != nil {
		return e, fmt.Errorf("find the hub's certificate: %w", err)
	}
	host, _, _ := net.SplitHostPort(here(h.listeners[0])) // it is one
	if leaf := h.leaf(); leaf.VerifyHostname(host) != nil {
		switch {
		case len(leaf.DNSNames) > 0:
			e.ServerName = strings.Replace(leaf.DNSNames[0], "*", "hub", 1)
		case len(leaf.IPAddresses) > 0:
			e.ServerName = leaf.IPAddresses[0].String()
		}
	}
	return e, nil
}

// here returns where a listener is reached from this machine.
func here(l net.Listener) string {
	a := l.Addr().(*net.TCPAddr)
	if a.IP.IsUnspecified() {
		return net.JoinHostPort("127.0.0.1", strconv.Itoa(a.Port))
	}
	return a.String()
}

// run runs the hub's agent, and with it the hub.
func (h *hub) run(ctx context.Context) error {
	e, err := h.endpoints()
	if err != nil {
		return err
	}
	file := filepath.Join(h.Data, "hub.json")
	if err := agent.WriteJSON(file, e); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	defer os.Remove(file)
	var registered sync.WaitGroup
	defer registered.Wait()
	serving, stop := context.WithCancel(ctx)
	defer stop()
	return agent.Run(ctx, agent.Options{
		Config: h.Config, Text: h.Text, Data: AgentData(h.Data), Plugins: withQuickLook(h.Plugins, h.quick.Plugin()),
		Version: h.Version, Log: h.Log, Env: h.Env, Reload: h.Reload, Hub: e.Inside, Stay: true, Labels: map[string]string{"creel.role": "hub"},
		Metrics: h.metrics, Admission: h.admission, Identity: identity{certified{h}},
		Ready: func() {
			h.log.Info("hub runs", "id", h.id, "url", e.URL, "opamp", e.OpAMP)
			if h.registrar != nil {
				registered.Go(func() { h.registrar.run(serving, h, e) })
			}
			if h.Ready != nil {
				h.Ready(e)
			}
		},
	})
}

// describe is what the hub says of itself.
func (h *hub) describe() api.Hub {
	d := api.Hub{ID: h.id, Version: h.Version, Started: h.started.UTC(), Agents: h.registry.Counts(expr.Selector{}), QuickLook: h.quick.Status()}
	if own, ok := h.state.(state.OwnCluster); ok && own.Full() {
		d.State = state.ErrFull.Error()
	}
	for i, name := range []string{"ui", "opamp"} {
		if i < len(h.listeners) {
			a := h.listeners[i].Addr()
			d.Listen = append(d.Listen, report.Endpoint{Component: name, Network: a.Network(), Address: a.String()})
		}
	}
	return d
}
