// Package pipeline runs a plan: it opens the components, leads batches from collectors through processors to the
// queues of exporters, delivers them, keeps the ledger, and changes all of it while data flows.
//
// A batch is admitted by a collector's Sink (collect.go), which reserves room in every queue that it can reach. It runs
// through a generation of the graph (graph.go) in the collector's goroutine, up to the queues (queue.go), from which
// senders (deliver.go) take it when the rate limit (limit.go), the breaker (breaker.go) and the number of requests under
// way (adapt.go) allow. Compile makes a Plan of a configuration (plan.go), Apply (engine.go) makes the Plan run.
//
// The package knows no plugin by name, no wire format, and nothing of hosts, hubs or signals of the operating system.
package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/url"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/deadletter"
	"github.com/creelhq/creel/metric"
	"github.com/creelhq/creel/report"
	"github.com/creelhq/creel/task"
)

// Options are what an Engine works with. The zero Options work.
type Options struct {
	Log       *slog.Logger
	Metrics   *metric.Set
	Memory    *creel.Memory
	Tasks     *task.Scheduler                    // runs polled collectors; whoever gives it runs it. nil: there can be none
	State     func(component string) creel.State // by path; nil: in memory
	Resource  creel.Resource
	Self      creel.Telemetry
	Sender    creel.Sender      // what exporters say of this agent, but for Exporter
	Admission creel.Admission   // of what is sent to collectors; nil: everything is welcome
	Spools    string            // the directory of the exporters' disk queues, one in it for each; "": there can be none
	Letters   *deadletter.Store // for what is refused for good; nil: it is dropped
	Patience  time.Duration     // how long a reload waits for what is under way, such as the queue of an exporter that is removed; 0: 5 s
}

// An Engine runs one Plan at a time. Its methods may be called concurrently.
type Engine struct {
	Options
	tasks   *task.Scheduler
	sockets *sockets
	books   books
	edges   edges
	audit   audit

	current  atomic.Pointer[generation]
	previous atomic.Pointer[generation] // while it is being left
	pressure atomic.Pointer[pressure]   // nil: none

	applying sync.Mutex // held during Apply; guards what follows
	plan     *Plan
	drained  bool

	mu      sync.Mutex // guards the maps, which Apply changes
	sources map[string]*source
	stages  map[string]*stage
	exports map[string]*export
}

// An export is an exporter's id at work: the queue, which stays, and the instance behind it.
type export struct {
	comp   Component
	queue  *queue
	store  *store // nil: there is no disk queue
	opened bool   // the store was opened with it
	gauges *metric.Set
	*instance
}

// instance is one exporter's instance.
type instance struct {
	sender *sender
	health *health
	meters *metric.Set
}

// New returns an Engine that runs nothing yet.
func New(o Options) *Engine {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Patience == 0 {
		o.Patience = 5 * time.Second
	}
	e := &Engine{
		Options: o, tasks: o.Tasks, sockets: newSockets(), books: books{metrics: o.Metrics}, plan: &Plan{},
		sources: make(map[string]*source), stages: make(map[string]*stage), exports: make(map[string]*export),
	}
	e.current.Store(newGeneration(&Plan{}))
	return e
}

// Apply makes next the plan that runs, with the smallest change. Opening what is new may fail; then nothing has
// happened. What is no longer part of the plan is stopped, flushed and drained, until it is done, the Engine's Patience
// ends or ctx is done; what is not safe by then is abandoned, and counted so.
func (e *Engine) Apply(ctx context.Context, next *Plan) (report.Change, error) {
	ctx, cancel := context.WithTimeout(ctx, e.Patience)
	defer cancel()
	e.applying.Lock()
	defer e.applying.Unlock()
	if e.drained {
		return report.Change{}, errors.New("apply configuration: everything is being stopped")
	}
	return e.apply(ctx, next)
}

// Drain stops everything: collectors first, then it waits until all that was admitted is delivered. When ctx is done
// before, the rest is abandoned, and counted so. No plan can be applied afterwards.
func (e *Engine) Drain(ctx context.Context) error {
	e.applying.Lock()
	defer e.applying.Unlock()
	e.drained = true
	_, err := e.apply(ctx, &Plan{})
	return err
}

func (e *Engine) apply(ctx context.Context, next *Plan) (report.Change, error) {
	r := &reload{e: e, old: e.plan, next: next, change: Diff(e.plan, next)}
	if err := r.open(); err != nil {
		return report.Change{}, err
	}
	r.rewire(ctx)
	r.closeOld(ctx)
	r.startSources()
	e.plan = next
	return r.change, nil
}

// enter returns the pipeline as the current generation has it, and a function to call when the batch has left it; nil
// if it does not run.
func (e *Engine) enter(pipeline string) (*pipe, func()) {
	for {
		g := e.current.Load()
		p := g.pipes[pipeline]
		if p == nil {
			// A processor that is about to be closed sends to a pipeline that is closed after it.
			if old := e.previous.Load(); old != nil && old.pipes[pipeline] != nil {
				return old.pipes[pipeline], func() {}
			}
			return nil, nil
		}
		if g.enter() {
			return p, g.leave
		}
	}
}

// A reload is one Apply.
type reload struct {
	e         *Engine
	old, next *Plan
	change    report.Change

	sources []*source // opened
	stages  []*stage
	exports []*export

	oldSources []*source // to be closed
	oldStages  []*stage
	oldExports []*instance // of exporters that go on
	oldStores  []*store    // of exporters that go on without
	gone       []*export
}

func (r *reload) opens(c Component) bool {
	return slices.Contains(r.change.Open, c.Key()) || slices.Contains(r.change.Reopen, c.Key())
}

// open opens everything new. When something fails, what was opened is closed again.
func (r *reload) open() error {
	leaving := make(map[string]bool)
	for _, key := range slices.Concat(r.change.Close, r.change.Reopen) {
		leaving[key] = true
	}
	r.e.sockets.begin(leaving)
	var errs []error
	for c := range r.next.Components() {
		if !r.opens(c) {
			continue
		}
		if err := r.openOne(c); err != nil {
			errs = append(errs, fmt.Errorf("open %s: %w", c.Path(), err))
		}
	}
	if len(errs) == 0 {
		return nil
	}
	for _, s := range r.sources {
		s.close()
	}
	for _, st := range r.stages {
		closeComponent(st.proc, st.log)
		st.meters.Close()
	}
	for _, x := range r.exports {
		closeComponent(x.sender.exporter, x.sender.log)
		x.meters.Close()
		if x.opened {
			x.store.abort()
		}
	}
	return errors.Join(errs...)
}

// own returns the plugin's own part of c's options.
func (c Component) own() []byte { return c.Plugin.Config.Pick(c.Options) }

// common returns the framework's part of c's options.
func common[T any](c Component) T {
	t, err := config.Decode[T](config.Of[T]().Pick(c.Options))
	if err != nil {
		panic("BUG: checked options do not decode: " + err.Error())
	}
	return t
}

func (r *reload) openOne(c Component) error {
	log := r.e.Log.With("component", c.Path())
	labels := []metric.Label{{Name: "component", Value: c.Path()}}
	if c.Pipeline != "" {
		log = log.With("pipeline", c.Pipeline)
		labels = append(labels, metric.Label{Name: "pipeline", Value: c.Pipeline})
	}
	h := creel.Host{
		ID: c.ID, Log: log, Metrics: r.e.Metrics.Sub(labels...), Memory: r.e.Memory, Resource: r.e.Resource,
		Sockets: r.e.sockets.of(c.Key()), Outputs: make(map[string]creel.Next), Sender: r.e.Sender, Admission: r.e.Admission,
	}
	h.Sender.Exporter = c.ID
	if r.e.State != nil {
		h.State = r.e.State(c.Key())
	}
	h.Taken = r.e.taken(c)
	if r.e.Self != nil {
		h.Self = selfView{r.e.Self, r.e, c}
	}
	for _, ref := range c.refs {
		if ref.Kind == "pipeline" {
			h.Outputs[ref.Name] = &output{r.e, c.Pipeline, r.e.books.book(c.Pipeline), ref.Name}
		}
	}
	opened, err := c.Plugin.Open(c.own(), h)
	if err != nil {
		h.Metrics.Close()
		return err
	}
	switch c.Plugin.Kind {
	case creel.KindCollector:
		s := &source{
			e: r.e, comp: c, collector: opened.(creel.Collector), salt: salt(c), log: log, meters: h.Metrics, settled: make(chan struct{}),
			collected: h.Metrics.Counter("creel.collector.records", "Records that were admitted.", "{record}"), edge: r.e.edges.of(c.Key(), false),
		}
		if c.Plugin.Polled {
			s.schedule = common[Schedule](c)
		}
		r.sources = append(r.sources, s)
	case creel.KindProcessor:
		st := &stage{
			id: c.Key(), comp: c, proc: opened.(creel.Processor), log: log, meters: h.Metrics, health: &health{}, book: r.e.books.book(c.Pipeline),
			before: r.e.edges.of(c.Key(), true), after: r.e.edges.of(c.Key(), false),
		}
		if _, ok := opened.(creel.Runner); ok {
			st.held = creel.NewStandingCustody()
		}
		r.stages = append(r.stages, st)
	case creel.KindExporter:
		x, err := r.newExport(c, opened.(creel.Exporter), h)
		if err != nil {
			closeComponent(opened, log)
			h.Metrics.Close()
			return err
		}
		r.exports = append(r.exports, x)
	}
	return nil
}

func (r *reload) newExport(c Component, exporter creel.Exporter, h creel.Host) (x *export, err error) {
	d := common[Sending](c).Delivery
	x = &export{comp: c, instance: &instance{health: &health{}, meters: h.Metrics}}
	old := r.e.exports[c.ID]
	if old != nil {
		x.queue, x.gauges = old.queue, old.gauges
	} else {
		x.queue = newQueue(d.Queue)
	}
	switch {
	case d.Spool == nil:
	case old != nil && old.store != nil:
		x.store = old.store
	case r.e.Spools == "":
		return nil, errors.New("open disk queue: there is no state directory to put it in")
	default:
		x.store, err = openStore(filepath.Join(r.e.Spools, url.PathEscape(c.ID)), *d.Spool, x.queue, r.e.books.spool(c.ID), h.Log)
		if err != nil {
			return nil, err
		}
		x.opened = true
	}
	if old == nil {
		x.gauges = r.e.Metrics.Sub(metric.Label{Name: "component", Value: c.Path()})
		meterQueue(x.gauges, x.queue)
	}
	x.sender = newSender(exporter, d, x.queue, x.store, r.e.Letters, h, x.health)
	return x, nil
}

// rewire puts the next generation in place, downstream first. What it replaces or leaves out is noted, to be closed.
func (r *reload) rewire(ctx context.Context) {
	e := r.e
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, x := range r.exports {
		if old := e.exports[x.comp.ID]; old != nil {
			r.oldExports = append(r.oldExports, old.instance)
			old.sender.stop()
			if x.sender.d.Concurrency == 1 {
				old.sender.halt(ctx) // the order is kept
			}
			x.queue.reconfigure(x.sender.d.Queue)
			if old.store != nil && x.store == nil {
				r.oldStores = append(r.oldStores, old.store)
				x.queue.keep(false)
			}
		}
		e.exports[x.comp.ID] = x
		x.start()
	}
	for _, c := range r.old.Processors { // in flow order, as pipelines are
		if st := e.stages[c.Key()]; st != nil && !slices.Contains(r.change.Keep, c.Key()) {
			r.oldStages = append(r.oldStages, st)
			st.last.Store(true)
			delete(e.stages, c.Key())
		}
	}
	for _, st := range r.stages {
		e.stages[st.id] = st
	}
	for _, c := range r.old.Collectors {
		if s := e.sources[c.ID]; s != nil && !slices.Contains(r.change.Keep, c.Key()) {
			r.oldSources = append(r.oldSources, s)
			delete(e.sources, c.ID)
		}
	}
	for _, s := range r.sources {
		e.sources[s.comp.ID] = s
	}
	next := e.build(r.next)
	for _, st := range r.stages {
		st.start()
	}
	old := e.current.Load()
	e.previous.Store(old)
	e.current.Store(next)
	close(old.next)
	for _, c := range r.old.Exporters {
		if !slices.ContainsFunc(r.next.Exporters, func(n Component) bool { return n.ID == c.ID }) {
			r.gone = append(r.gone, e.exports[c.ID])
		}
	}
}

// build makes the generation of a plan, of stages and queues that exist, and points the stages at it.
func (e *Engine) build(plan *Plan) *generation {
	g := newGeneration(plan)
	for _, pl := range slices.Backward(plan.Pipelines) { // targets first
		p := &pipe{gen: g, id: pl.ID, priority: pl.Priority, book: e.books.book(pl.ID)}
		g.pipes[pl.ID] = p
		for _, id := range pl.To {
			q := e.exports[id].queue
			p.exits = append(p.exits, exit{q, e.books.account(pl.ID, id), e.edges.of(Section(creel.KindExporter)+"."+id, false), pl.ackAt(e.exports[id].store != nil)})
			p.leaves = append(p.leaves, q)
		}
		for _, to := range pl.Outputs {
			if target := g.pipes[to]; target != nil {
				p.leaves = append(p.leaves, target.leaves...)
			}
		}
		for _, id := range pl.Through {
			p.stages = append(p.stages, e.stages["pipelines."+pl.ID+"."+id])
		}
		p.hops = make([]hop, len(p.stages)+1)
		for i := range p.hops {
			p.hops[i] = hop{p, i}
		}
		for i, st := range p.stages {
			st.out.Store(&p.hops[i+1])
		}
		for _, id := range pl.From {
			g.routes[id] = append(g.routes[id], p)
		}
	}
	for id, pipes := range g.routes {
		g.reach[id] = make(map[string]bool)
		for _, p := range pipes {
			plan.reach(p.id, g.reach[id])
		}
	}
	return g
}

// reach adds the paths of all components that records in a pipeline meet.
func (p *Plan) reach(pipeline string, paths map[string]bool) {
	for _, pl := range p.Pipelines {
		if pl.ID != pipeline {
			continue
		}
		for _, id := range pl.Through {
			paths["processors."+id] = true
		}
		for _, id := range pl.To {
			paths["exporters."+id] = true
		}
		for _, id := range pl.Outputs {
			p.reach(id, paths)
		}
	}
}

// closeOld ends what is not part of the new plan, in flow order.
func (r *reload) closeOld(ctx context.Context) {
	e := r.e
	for _, s := range r.oldSources {
		s.end(ctx)
	}
	e.previous.Load().finish()
	for _, st := range r.oldStages {
		st.close()
	}
	e.previous.Store(nil)
	for _, in := range r.oldExports {
		in.sender.halt(ctx)
		in.close()
	}
	for _, st := range r.oldStores {
		st.halt()
		if waiting, left := st.close(nil); waiting > 0 || len(left) > 0 {
			st.log.Warn("the exporter has no disk queue any more, but what waits in it stays: give it one again, or take it out with: creel spool export "+st.dir,
				"records", waiting, "directory", st.dir, "abandoned", abandon(left))
		}
	}
	for _, x := range r.gone {
		r.drain(ctx, x)
	}
	for _, s := range r.oldSources { // their last acknowledgements have come by now, if they come in time
		s.rest(ctx)
		s.close()
	}
}

// drain empties the queue of an exporter that is removed: what its far side does not take in time stays in its disk queue.
func (r *reload) drain(ctx context.Context, x *export) {
	if x.store != nil {
		r.flush(ctx, x)
		x.store.setHurry()
	}
	err := x.queue.emptied(ctx)
	x.sender.halt(ctx)
	if x.store != nil {
		x.store.halt()
	}
	left := x.queue.takeAll()
	if x.store != nil {
		var waiting int64
		switch waiting, left = x.store.close(left); {
		case waiting > 0 && r.e.drained:
			x.sender.log.Info("records wait in the disk queue", "records", waiting, "directory", x.store.dir)
		case waiting > 0:
			x.sender.log.Warn("the exporter is removed, but what waits in its disk queue stays: bring it back, or take it out with: creel spool export "+x.store.dir,
				"records", waiting, "directory", x.store.dir)
		}
	}
	if n := abandon(left); n > 0 {
		x.sender.log.Error("records abandoned: they were not delivered in time", "records", n, "error", err)
	}
	x.close()
	x.gauges.Close()
	r.e.mu.Lock()
	delete(r.e.exports, x.comp.ID)
	r.e.mu.Unlock()
}

// flush waits for what waits at an exporter, on disk as well, as long as its far side takes it.
func (r *reload) flush(ctx context.Context, x *export) {
	least, at := int64(math.MaxInt64), time.Now()
	for ctx.Err() == nil && x.sender.breaker.down() == nil && time.Since(at) < patience {
		switch n := r.e.books.waiting(x.comp.ID); {
		case n == 0:
			return
		case n < least:
			least, at = n, time.Now()
		}
		_ = pause(ctx, 5*time.Millisecond)
	}
}

// start lets x work. What it takes over from its predecessor works already.
func (x *export) start() {
	if x.store != nil {
		x.store.breaker.Store(x.sender.breaker)
		x.store.configure(*x.sender.d.Spool, x.sender.d.Batch)
		if x.opened {
			meterStore(x.gauges, x.store)
			x.store.start()
		}
	}
	x.sender.start()
}

func (in *instance) close() {
	closeComponent(in.sender.exporter, in.sender.log)
	in.meters.Close()
}

func (r *reload) startSources() {
	for _, s := range r.sources {
		if err := s.start(); err != nil {
			s.health.fail(err)
			s.log.Error("collector does not start", "error", err)
		}
	}
}

// closeComponent closes a component that can be closed.
func closeComponent(c any, log *slog.Logger) {
	if closer, ok := c.(io.Closer); ok {
		if err := closer.Close(); err != nil {
			log.Warn("component does not close cleanly", "error", err)
		}
	}
}
