package pipeline

import (
	"cmp"
	"log/slog"
	"net"
	"slices"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/report"
	"github.com/creelhq/creel/trace"
)

// This file is what an engine tells of itself.

// Ledger returns the books of all pipelines that have ever run.
func (e *Engine) Ledger() report.Ledger {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, x := range e.exports {
		if x.store != nil {
			x.store.count()
		}
	}
	held := make(map[string]int64)
	for st := range e.holders() {
		held[st.comp.Pipeline] += st.holds()
	}
	return e.books.ledger(func(pipeline string) int64 { return held[pipeline] })
}

// Plan returns the plan that runs, which must not be changed. It does not wait for an Apply under way.
func (e *Engine) Plan() *Plan { return e.current.Load().plan }

// Routes returns the pipelines that run.
func (e *Engine) Routes() []report.Route {
	plan := e.Plan()
	routes := make([]report.Route, 0, len(plan.Pipelines))
	for _, p := range plan.Pipelines {
		routes = append(routes, report.Route{Pipeline: p.ID, From: p.From, Through: p.Through, To: p.To, Outputs: p.Outputs})
	}
	slices.SortFunc(routes, func(a, b report.Route) int { return cmp.Compare(a.Pipeline, b.Pipeline) })
	return routes
}

// Listen binds a socket as those of components are: it refuses an address that a component has, and is one of the
// Endpoints.
func (e *Engine) Listen(owner, network, address, protocol string) (net.Listener, error) {
	return e.sockets.of(owner).Listen(network, address, protocol)
}

// Endpoints returns the addresses that are listened on, sorted by component.
func (e *Engine) Endpoints() []report.Endpoint { return e.sockets.list() }

// Components returns the status of every component, sorted by name.
func (e *Engine) Components() []report.Component {
	e.mu.Lock()
	defer e.mu.Unlock()
	list := []report.Component{}
	add := func(c Component, h *health) *report.Component {
		since, err := h.get()
		st := report.Component{Component: c.Key(), Plugin: c.Plugin.Name, Healthy: err == nil, Since: since}
		if err != nil {
			st.Error = err.Error()
		}
		list = append(list, st)
		return &list[len(list)-1]
	}
	now := time.Now()
	for _, s := range e.sources {
		st := add(s.comp, s.health)
		st.Records = s.health.work.collected.Load()
		if _, t, _ := s.terms(e.current.Load()); t != nil && !t.Allow(now) {
			st.Healthy, st.Error = false, t.Why
			if !t.Until.IsZero() {
				st.Since = t.Until
			}
		}
	}
	for _, st := range e.stages {
		add(st.comp, st.health)
	}
	for _, x := range e.exports {
		st := add(x.comp, x.health)
		st.Queued, st.Limit = x.queue.fill()
		if state, _ := x.sender.breaker.get(); x.sender.breaker != nil {
			st.Breaker = state.String()
		}
		if x.store != nil {
			st.Spool = x.store.status()
			if st.Spool.Error != "" {
				if !st.Healthy {
					st.Error += "; "
				}
				st.Healthy, st.Error = false, st.Error+"disk queue: "+st.Spool.Error
			}
		}
	}
	list = e.audit.complain(list)
	slices.SortFunc(list, func(a, b report.Component) int { return cmp.Compare(a.Component, b.Component) })
	return list
}

// selfView is the agent's telemetry as one component sees it: without what its own records cause.
type selfView struct {
	creel.Telemetry
	e    *Engine
	comp Component
}

// Subscribe leaves out the log records of the component and of those that its records meet.
func (v selfView) Subscribe(f func(slog.Record)) (cancel func()) {
	return v.Telemetry.Subscribe(func(r slog.Record) {
		own := false
		r.Attrs(func(a slog.Attr) bool {
			own = v.causes(a)
			return a.Key != "component"
		})
		if !own {
			f(r)
		}
	})
}

// SubscribeSpans leaves out the spans of the component and of those that its records meet.
func (v selfView) SubscribeSpans(f func(trace.Data)) (cancel func()) {
	return v.Telemetry.SubscribeSpans(func(d trace.Data) {
		if !slices.ContainsFunc(d.Attrs, v.causes) {
			f(d)
		}
	})
}

// causes reports whether a names the component, or one that its records meet.
func (v selfView) causes(a slog.Attr) bool {
	if a.Key != "component" {
		return false
	}
	path := a.Value.String()
	return path == v.comp.Path() || v.e.current.Load().reach[v.comp.ID][path]
}
