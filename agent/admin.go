package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"slices"
	"time"

	"github.com/creelhq/creel/agent/life"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/metric"
	"github.com/creelhq/creel/pipeline"
	"github.com/creelhq/creel/report"
)

// adminServer is the admin endpoint: a Unix socket in the state directory, and TCP if configured.
type adminServer struct {
	server *http.Server
	stop   context.CancelFunc // ends answers that have no end of their own
}

func (a *agent) serveAdmin() (*adminServer, error) {
	socket := AdminSocket(a.Data)
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) { // the last one's; the lock is ours
		return nil, fmt.Errorf("open admin endpoint: %w", err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, fmt.Errorf("open admin endpoint: %w; a shorter --data may help", err)
	}
	listeners := []net.Listener{l}
	if address := a.own.Admin.Address; address != "" {
		l, err := a.engine.Listen("agent.admin", "tcp", address, "http")
		if err != nil {
			listeners[0].Close()
			return nil, fmt.Errorf("open admin endpoint: %w", err)
		}
		listeners = append(listeners, l)
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &http.Server{
		Handler: a.adminHandler(), ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 64 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	for _, l := range listeners {
		go func() {
			if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				a.log.Error("admin endpoint ended", "error", err)
			}
		}()
	}
	return &adminServer{s, stop}, nil
}

func (s *adminServer) close() {
	s.stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if s.server.Shutdown(ctx) != nil {
		s.server.Close()
	}
}

func (a *agent) adminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		_ = metric.WriteText(w, a.metrics) // the client has gone
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, a.health()) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		h := a.health()
		if h.State != life.Running {
			answer(w, http.StatusServiceUnavailable, h)
			return
		}
		answer(w, http.StatusOK, h)
	})
	mux.HandleFunc("GET /state", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, a.state()) })
	mux.HandleFunc("GET /ledger", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, a.engine.Ledger()) })
	mux.HandleFunc("GET /components", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, a.components()) })
	mux.HandleFunc("GET /config", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("origin") != "" {
			answer(w, http.StatusOK, a.origins())
			return
		}
		answer(w, http.StatusOK, a.effective())
	})
	mux.HandleFunc("GET /tap", a.tap)
	mux.HandleFunc("GET /bundle", a.bundle)
	(&DeadLetters{Store: a.letters, Resend: a.engine.Resend, Log: a.log}).Register(mux)
	mux.HandleFunc("POST /-/reload", a.ownOnly(func(w http.ResponseWriter, r *http.Request) {
		receipt, err := a.reload(r.Context(), "request", r.FormValue("force") != "")
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
			return
		}
		answer(w, http.StatusOK, receipt)
	}))
	for _, do := range []string{control.Pause, control.Resume, control.Drain, control.Restart, control.Stop} {
		mux.HandleFunc("POST /-/"+do, a.ownOnly(func(w http.ResponseWriter, r *http.Request) {
			o := control.Order{Do: do, Cause: r.FormValue("cause"), Time: time.Now()}
			if do == control.Restart || do == control.Stop {
				a.ordered(o)
			} else {
				a.order(o)
			}
			answer(w, http.StatusOK, a.life.Life())
		}))
	}
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

// ownOnly refuses what a web page asks for, and what comes before the agent has a configuration.
func (a *agent) ownOnly(f http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Origin") != "": // a web page must not command an agent
			http.Error(w, "requests of web pages are refused", http.StatusForbidden)
		case !a.started.Load():
			http.Error(w, "the agent has not started yet: creel status says what it waits for", http.StatusServiceUnavailable)
		default:
			f(w, r)
		}
	}
}

// State is what GET /state answers.
type State struct {
	Life          report.Life          `json:"life"`
	Configuration report.Configuration `json:"configuration"`
}

func (a *agent) state() State { return State{a.life.Life(), a.changes.Report()} }

// running returns the configuration that runs; nil before the start.
func (a *agent) running() *Config {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.config
}

// effective returns the options that are in force, secrets redacted.
func (a *agent) effective() map[string]json.RawMessage {
	if c := a.running(); c != nil {
		return c.Effective()
	}
	return map[string]json.RawMessage{}
}

// origins tells where the values that are in force come from.
func (a *agent) origins() []Origin {
	if c := a.running(); c != nil {
		return c.Origins()
	}
	return []Origin{}
}

// answer writes v as JSON.
func answer(w http.ResponseWriter, code int, v any) {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(text, '\n')) // the client has gone
}

func (a *agent) health() report.Health {
	h := report.Health{ID: a.dir.id, Version: a.Version, State: a.life.State(), Health: report.Healthy, Started: a.began}
	if n := a.changes.Report().Receipts; len(n) > 0 {
		h.Reload = n[len(n)-1]
	}
	h.Hub = a.hubState()
	for _, c := range a.components() {
		if !c.Healthy {
			h.Degraded = append(h.Degraded, c)
			h.Health = report.Degraded
		}
	}
	return h
}

// components returns how the engine's are, and what else does not work: the memory while it is scarce, centers, the
// identity while it ends and is not renewed, and the configuration if it is not the one that was asked for.
func (a *agent) components() []report.Component {
	list := a.engine.Components()
	if scarce, since := a.guard.Scarce(); scarce != "" {
		list = append(list, report.Component{Component: "memory", Error: scarce, Since: since})
	}
	if a.joined != nil {
		if why, since := a.joined.Trouble(); why != "" {
			list = append(list, report.Component{Component: identityComponent, Error: why, Since: since})
		}
	}
	if c := a.changes.Report(); c.Error != "" {
		list = append(list, report.Component{Component: "configuration", Error: c.Error, Since: c.Since})
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, path := range slices.Sorted(maps.Keys(a.troubles)) {
		t := a.troubles[path]
		list = append(list, report.Component{Component: path, Error: t.err.Error(), Since: t.since})
	}
	return list
}

// A planText is what effective says of a plan, as text.
type planText struct {
	plan *pipeline.Plan
	text []byte
}

// effectiveJSON is effective of the plan that runs, as text. It is made once for each plan: the hub is to be told of another one
// with each heartbeat.
func (a *agent) effectiveJSON() []byte {
	p, made := a.engine.Plan(), a.shown.Load()
	if made == nil || made.plan != p {
		text, err := json.MarshalIndent(effective(p), "", "  ")
		if err != nil {
			panic("BUG: " + err.Error()) // it was JSON before
		}
		made = &planText{p, text}
		a.shown.Store(made)
	}
	return made.text
}

// effective returns the options that run, defaults filled in and secrets redacted, by component, and the pipelines.
func effective(p *pipeline.Plan) map[string]json.RawMessage {
	options := make(map[string]json.RawMessage)
	for c := range p.Components() {
		options[c.Key()] = c.Redacted()
	}
	for _, r := range p.Pipelines {
		text, err := json.Marshal(map[string][]string{"from": r.From, "through": r.Through, "to": r.To})
		if err != nil {
			panic("BUG: " + err.Error())
		}
		options["pipelines."+r.ID] = text
	}
	return options
}
