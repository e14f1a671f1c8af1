// Package pipeline runs a plan: it opens the components, leads batches from collectors through processors to the
// queues of exporters, delivers them, keeps the ledger, and changes all of it while data flows.
//
// A batch is admitted by a collector's Sink (collect.go), which reserves room in every queue that it can reach. It runs
// through a generation of the graph (graph.go) in the collector's goroutine, up to the queues (queue.go), from which
// senders (deliver.go) take it when the rate limit (limit.go), the breaker (breaker.go) and the number of requests under
// way (adapt.go) allow. Compile makes a Plan of a configuration (plan.go), Apply (engine.go, reload.go) makes the Plan run.
//
// The package knows no plugin by name, no wire format, and nothing of hosts, hubs or signals of the operating system.
package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/deadletter"
	"github.com/creelhq/creel/metric"
	"github.com/creelhq/creel/report"
	"github.com/creelhq/creel/task"
	"github.com/creelhq/creel/trace"
)

// Options are what an Engine works with. The zero Options work.
type Options struct {
	Log     *slog.Logger
	Metrics *metric.Set
	Memory  *creel.Memory
	Tasks   *task.Scheduler // runs polled collectors; whoever gives it runs it. nil: there can be none
	Self    creel.Telemetry

	// State returns what a component saves its state in, by its path. document is that of which it is a collector whose state is
	// portable, "" of none. nil: in memory. It is called when the component is opened.
	State func(component, document string) creel.State

	Tracer    *trace.Tracer     // of reloads, deliveries and rounds; nil: they are not traced
	Sender    creel.Sender      // what exporters say of this agent, but for Exporter
	Admission creel.Admission   // of what is sent to collectors; nil: everything is welcome
	Identity  creel.Identity    // of this agent; nil: it has none
	Hubs      creel.Hubs        // that this agent knows; nil: it has none
	Spools    string            // the directory of the exporters' disk queues, one in it for each; "": there can be none
	Letters   *deadletter.Store // for what is refused for good; nil: it is dropped
	Patience  time.Duration     // how long a reload waits for what is under way, such as the queue of an exporter that is removed; 0: 5 s
	Opening   time.Duration     // how long a component may take to open; 0: 30 s
	Ended     func()            // is called when Results has more; must not block. nil: nobody wants to know
	Closing   time.Duration     // how long one may take to stop, and to close, before it is left behind; 0: 10 s
}

// An Engine runs one Plan at a time. Its methods may be called concurrently.
type Engine struct {
	Options
	tasks   *task.Scheduler
	sockets *sockets
	books   books
	edges   edges
	audit   audit
	leaks   *metric.Counter

	current  atomic.Pointer[generation]
	previous atomic.Pointer[generation] // while it is being left
	pressure gate
	terms    atomic.Pointer[terms] // nil: nothing was said of any yet
	fencing  *time.Timer           // fires when the fences are to be looked at
	stalled  atomic.Int64          // nanoseconds: the longest since a generation took another's place

	ending  context.Context // is done when Drain is called
	end     context.CancelFunc
	hurried context.Context // is done when Drain's time is over while an Apply is at work
	hurry   context.CancelFunc
	turns   turns

	applying chan struct{} // has an element while no reload is at work; who takes it owns plan
	plan     *Plan

	mu        sync.Mutex // guards what follows, which a reload changes
	sources   map[string]*source
	stages    map[string]*stage
	exports   map[string]*export
	lingering []*stage // that were left behind, and may hold records
}

// An export is an exporter's id at work: the queue, which stays, and the instance behind it.
type export struct {
	queue  *queue
	store  *store // nil: there is no disk queue
	opened bool   // the store was opened with it
	gauges *metric.Set
	*instance
}

// instance is one exporter's instance.
type instance struct {
	part
	sender *sender
	health *health
}

// New returns an Engine that runs nothing yet.
func New(o Options) *Engine {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Patience = cmp.Or(o.Patience, 5*time.Second)
	o.Opening = cmp.Or(o.Opening, 30*time.Second)
	o.Closing = cmp.Or(o.Closing, 10*time.Second)
	e := &Engine{
		Options: o, tasks: o.Tasks, sockets: newSockets(), books: books{metrics: o.Metrics}, plan: &Plan{}, applying: make(chan struct{}, 1),
		sources: make(map[string]*source), stages: make(map[string]*stage), exports: make(map[string]*export),
		leaks: o.Metrics.Counter("creel.component.leaked", "Components that did not stop or close in time and were left behind.", "{component}"),
	}
	e.ending, e.end = context.WithCancel(context.Background())
	e.hurried, e.hurry = context.WithCancel(context.Background())
	e.applying <- struct{}{}
	e.current.Store(newGeneration(&Plan{}))
	e.fencing = time.AfterFunc(time.Hour, e.enforce)
	e.fencing.Stop()
	return e
}

// ErrSuperseded is what Apply returns when a newer plan has come before this one's turn: that is applied instead.
var ErrSuperseded = errors.New("apply configuration: a newer one has come meanwhile, and takes its place")

var errDraining = errors.New("apply configuration: everything is being stopped")

// Apply makes next the plan that runs, with the smallest change. Opening what is new may fail, or not end in time; then
// nothing has happened, nor has it when ctx is done or Drain is called before all is open. What is no longer part of the plan
// is stopped, flushed and drained, until it is done, the Engine's Patience ends or ctx is done; what is not safe by then is
// abandoned, and counted so. One Apply is at work at a time. Of those that wait, all but the newest fail with ErrSuperseded.
//
// The receipt says what was changed: Change, Took (since Apply was called), Still, InHand, Leaked and Trace. Still is the
// longest time that one collector could not send: when it was reopened, from when it was told to stop until its successor was
// started; else what batches have lost which found that their way had just been replaced. InHand is what was in the graph
// when the new one took its place: records in processing, held by processors, and in queues in memory.
func (e *Engine) Apply(ctx context.Context, next *Plan) (rec report.Receipt, err error) {
	ctx, span := e.Tracer.Start(ctx, "reload", trace.Internal)
	defer func() {
		span.Fail(err)
		if span != nil {
			span.Set(slog.Int("open", len(rec.Change.Open)), slog.Int("reopen", len(rec.Change.Reopen)), slog.Int("close", len(rec.Change.Close)),
				slog.Int("keep", len(rec.Change.Keep)), slog.Duration("still", rec.Still), slog.Int64("in_hand", rec.InHand), slog.Int("leaked", len(rec.Leaked)))
			rec.Trace = span.Context().TraceID()
		}
		span.End()
	}()
	began := time.Now()
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	defer context.AfterFunc(e.hurried, func() { giveUp(errDraining) })()
	turn, leave := e.queueUp()
	defer leave()
	select {
	case <-e.applying:
		defer func() {
			leave() // before whoever waits looks
			e.applying <- struct{}{}
		}()
	case <-ctx.Done():
		return report.Receipt{Took: time.Since(began)}, fmt.Errorf("apply configuration: %w", context.Cause(ctx))
	case <-e.ending.Done():
		return report.Receipt{Took: time.Since(began)}, errDraining
	}
	switch {
	case e.draining():
		return report.Receipt{Took: time.Since(began)}, errDraining
	case e.superseded(turn):
		return report.Receipt{Took: time.Since(began)}, ErrSuperseded
	}
	r := &reload{e: e, old: e.plan, next: next, change: Diff(e.plan, next), over: ctx}
	if err := r.openUnlessDraining(ctx); err != nil {
		rec = r.receipt(began)
		rec.Change = report.Change{}
		return rec, err
	}
	patient, cancel := context.WithTimeout(ctx, e.Patience)
	defer cancel()
	r.rewire(patient)
	e.turns.Lock()
	e.turns.done = turn
	e.turns.Unlock()
	e.plan = next
	r.replace(patient)
	return r.receipt(began), nil
}

// Drain stops everything: collectors first, then it waits until all that was admitted is delivered. When ctx is done
// before, the rest is abandoned, and counted so. An Apply under way that is still opening is given up. No plan can be applied
// afterwards.
func (e *Engine) Drain(ctx context.Context) error {
	e.end()
	stop := context.AfterFunc(ctx, e.hurry)
	<-e.applying
	stop()
	defer func() { e.applying <- struct{}{} }()
	next := &Plan{}
	r := &reload{e: e, old: e.plan, next: next, change: Diff(e.plan, next), over: ctx}
	r.rewire(ctx)
	e.plan = next
	r.replace(ctx)
	return nil
}

// draining reports whether Drain was called.
func (e *Engine) draining() bool { return e.ending.Err() != nil }

// turns are the calls of Apply in their order.
type turns struct {
	sync.Mutex
	last, done int
	waiting    []int
}

// queueUp enters a call of Apply. leave is to be called when it is over.
func (e *Engine) queueUp() (turn int, leave func()) {
	t := &e.turns
	t.Lock()
	defer t.Unlock()
	t.last++
	turn = t.last
	t.waiting = append(t.waiting, turn)
	return turn, func() {
		t.Lock()
		defer t.Unlock()
		t.waiting = slices.DeleteFunc(t.waiting, func(other int) bool { return other == turn })
	}
}

// superseded reports whether a newer plan waits, or was applied.
func (e *Engine) superseded(turn int) bool {
	e.turns.Lock()
	defer e.turns.Unlock()
	return e.turns.done > turn || slices.Max(e.turns.waiting) > turn
}

// stood notes that a batch has found its way replaced, and has lost so much time with that.
func (e *Engine) stood(d time.Duration) {
	for {
		longest := e.stalled.Load()
		if int64(d) <= longest || e.stalled.CompareAndSwap(longest, int64(d)) {
			return
		}
	}
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
