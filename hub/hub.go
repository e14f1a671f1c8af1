// Package hub runs a hub: the registry that agents connect to, a store for a first look, the API and the web UI, and an
// agent of its own that takes data in. It can be embedded: a program of one's own hands Run its plugins.
//
// It knows no plugin by name but the exporter quicklook, which it adds, and nothing of command lines.
package hub

import (
	"context"
	"crypto/rand"
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
	"sync"
	"syscall"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/hub/internal/admission"
	"github.com/creelhq/creel/hub/internal/documents"
	"github.com/creelhq/creel/hub/internal/quicklook"
	"github.com/creelhq/creel/hub/internal/registry"
	"github.com/creelhq/creel/hub/internal/state"
	"github.com/creelhq/creel/hub/internal/web"
	"github.com/creelhq/creel/metric"
	"github.com/creelhq/creel/pipeline"
	"github.com/creelhq/creel/report"
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
	Insecure bool     // allow addresses that are not loopback, though there is no TLS
	Hosts    []string // names under which the hub may be asked for

	Etcd      []string      // endpoints of an etcd cluster; empty: one of its own, in the state directory
	Heartbeat time.Duration // least interval between an agent's heartbeats; 0: 5 s
	MaxBytes  int64         // of the quick look on disk; 0: 4 GiB
	MaxAge    time.Duration // of records in the quick look; 0: 7 days

	AgentRecords int64 // a second that one agent may send; 0: no limit
	AgentBytes   int64 // likewise

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
}

// SignIn returns the link that signs a browser in.
func (e Endpoints) SignIn() string { return e.URL + "/signin?token=" + url.QueryEscape(e.Token) }

// AgentData returns the state directory of a hub's own agent.
func AgentData(data string) string { return filepath.Join(data, "agent") }

// Run runs the hub until ctx is done, and returns nil. Any other return is an error to start: a config.Errors if the
// configuration of its agent is wrong.
func Run(ctx context.Context, o Options) error {
	o = o.withDefaults()
	if err := o.checkAddresses(); err != nil {
		return err
	}
	unlock, err := agent.LockDir(o.Data)
	if err != nil {
		return err
	}
	defer unlock()
	h := &hub{Options: o, started: time.Now(), metrics: metric.NewSet()}
	h.log = slog.New(slog.NewTextHandler(o.Log, &slog.HandlerOptions{Level: slog.LevelInfo}))
	h.libraries = slog.New(slog.NewTextHandler(o.Log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	defer h.closeAll()
	if err := h.open(ctx); err != nil {
		return err
	}
	return h.run(ctx)
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

// checkAddresses keeps the hub from the network unless that is asked for.
func (o *Options) checkAddresses() error {
	for _, address := range []string{o.Address, o.OpAMP} {
		if address == "none" {
			continue
		}
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return fmt.Errorf("read address %q: must be host:port: %w", address, err)
		}
		if ip := net.ParseIP(host); !o.Insecure && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return fmt.Errorf("listen on %s: it is not a loopback address, and the hub has no TLS yet; say --insecure if that is meant", address)
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
	close   []func() // in the order of opening

	state     state.Store
	documents *documents.Store
	admission *admission.Admission
	registry  *registry.Registry
	quick     *quicklook.Store
	web       *web.Server
	listeners []net.Listener
}

func (h *hub) closeAll() {
	for i := len(h.close) - 1; i >= 0; i-- {
		h.close[i]()
	}
}

func (h *hub) open(ctx context.Context) error {
	var err error
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
	plugins := known{withQuickLook(h.Plugins, QuickLook())}
	h.documents, err = documents.Open(ctx, documents.Options{
		Store: h.state, Log: h.log, Check: plugins.check, Conceal: plugins.conceal, Agents: func() []documents.Agent { return h.registry.Documented() },
	})
	if err != nil {
		return err
	}
	h.close = append(h.close, h.documents.Close)
	h.admission = admission.New(admission.Options{Records: h.AgentRecords, Bytes: h.AgentBytes, Metrics: h.metrics})
	h.registry, err = registry.Open(ctx, registry.Options{
		Hub: h.id, Store: h.state, Documents: h.documents, Heartbeat: h.Heartbeat, Door: h.admission, Shared: len(h.Etcd) > 0, Log: h.log, Metrics: h.metrics,
	})
	if err != nil {
		return err
	}
	h.close = append(h.close, h.registry.Close)
	schema, err := documentSchema(plugins.plugins)
	if err != nil {
		return err
	}
	return h.listen(schema)
}

func (h *hub) complain(what string, err error) {
	if err != nil {
		h.log.Error(what, "error", err)
	}
}

// listen binds the addresses. They are served before the agent starts: it connects to them.
func (h *hub) listen(schema []byte) error {
	h.web = web.New(web.Options{
		Token: h.token, Hosts: h.Hosts, Version: h.Version, Log: h.log, Hub: h.describe, Fleet: h.registry, Documents: h.documents, Schema: schema,
		Rows: h.quick.Rows, Prom: h.quick.Series.Handler(), Pages: ui.Files(),
	})
	server := &http.Server{
		Handler: h.web, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(h.log.Handler(), slog.LevelDebug),
	}
	for _, address := range []string{h.Address, h.OpAMP} {
		if address == "none" {
			continue
		}
		l, err := bind(address, h.NextPort)
		if err != nil {
			for _, l := range h.listeners {
				l.Close()
			}
			return err
		}
		h.listeners = append(h.listeners, l)
	}
	for _, l := range h.listeners {
		go func() {
			if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				h.log.Error("the hub's HTTP server ended", "error", err)
			}
		}()
	}
	h.close = append(h.close, func() {
		h.web.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			server.Close()
		}
	})
	return nil
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
func (h *hub) endpoints() Endpoints {
	e := Endpoints{Version: 1, ID: h.id, PID: os.Getpid(), URL: "http://" + h.listeners[0].Addr().String(), Token: h.token}
	if len(h.listeners) > 1 {
		e.OpAMP = "ws://" + h.listeners[1].Addr().String() + "/v1/opamp"
	}
	return e
}

// run runs the hub's agent, and with it the hub.
func (h *hub) run(ctx context.Context) error {
	e := h.endpoints()
	file := filepath.Join(h.Data, "hub.json")
	if err := agent.WriteJSON(file, e); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	defer os.Remove(file)
	return agent.Run(ctx, agent.Options{
		Config: h.Config, Text: h.Text, Data: AgentData(h.Data), Plugins: withQuickLook(h.Plugins, h.quick.Plugin()),
		Version: h.Version, Log: h.Log, Env: h.Env, Reload: h.Reload, Hub: e.URL, Labels: map[string]string{"creel.role": "hub"},
		Metrics: h.metrics, Admission: h.admission,
		Ready: func() {
			h.log.Info("hub runs", "id", h.id, "url", e.URL, "opamp", e.OpAMP)
			if h.Ready != nil {
				h.Ready(e)
			}
		},
	})
}

// describe is what the hub says of itself.
func (h *hub) describe() api.Hub {
	d := api.Hub{ID: h.id, Version: h.Version, Started: h.started.UTC(), Agents: h.registry.Counts(), QuickLook: h.quick.Status()}
	for i, name := range []string{"ui", "opamp"} {
		if i < len(h.listeners) {
			a := h.listeners[i].Addr()
			d.Listen = append(d.Listen, report.Endpoint{Component: name, Network: a.Network(), Address: a.String()})
		}
	}
	return d
}
