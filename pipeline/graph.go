package pipeline

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/creelhq/creel"
)

// A generation is the graph that one plan makes: immutable routes from each collector, through the pipelines, to the
// exporters' queues. A reload builds the next generation and points everybody at it with one store; the old one is over
// when the last batch has left it. Processing does not block, so that is soon.
type generation struct {
	plan   *Plan
	routes map[string][]*pipe         // by collector
	pipes  map[string]*pipe           // by pipeline
	reach  map[string]map[string]bool // by collector: the paths of components that its records meet

	inside atomic.Int64
	closed atomic.Bool
	empty  chan struct{} // closed when closed and nobody is inside
	once   sync.Once
	next   chan struct{} // closed when the next generation is in place
}

func newGeneration(plan *Plan) *generation {
	return &generation{
		plan:   plan,
		routes: make(map[string][]*pipe), pipes: make(map[string]*pipe), reach: make(map[string]map[string]bool),
		empty: make(chan struct{}), next: make(chan struct{}),
	}
}

// enter is called before a batch takes a route of g. It returns false when g is over: then look for the next.
func (g *generation) enter() bool {
	g.inside.Add(1)
	if g.closed.Load() {
		g.leave()
		return false
	}
	return true
}

func (g *generation) leave() {
	if g.inside.Add(-1) == 0 && g.closed.Load() {
		g.once.Do(func() { close(g.empty) })
	}
}

// close lets nobody in any more; g.empty is closed when the last batch has left. g must not be the current generation any
// more.
func (g *generation) close() {
	g.inside.Add(1)
	g.closed.Store(true)
	g.leave()
}

// A pipe is a pipeline in a generation: processors in a row, and the queues at their end.
type pipe struct {
	gen      *generation
	id       string
	priority int
	book     *book
	hops     []hop // hops[i] leads to stages[i], the last one to the exits
	stages   []*stage
	exits    []exit
	leaves   []*queue // every queue that a batch can reach from here, one entry a path
}

// exit is the way from a pipeline to an exporter.
type exit struct {
	queue *queue
	acct  *account
	edge  *edge
	level ackLevel
}

// A stage is a processor's instance. Processors belong to one pipeline.
type stage struct {
	part
	id      string // pipeline/processor
	proc    creel.Processor
	held    *creel.Custody // nil without a Run method
	health  *health
	custody sync.Pool // of *creel.Custody
	book    *book

	before, after *edge

	out  atomic.Pointer[hop] // where Run sends to
	last atomic.Bool         // the stage is about to be closed, before all that it leads to
	stop context.CancelFunc  // of Run; nil without one
	done chan struct{}       // closed when Run has returned

	flushing sync.Mutex // held while Run sends something for the last time; guards cut
	cut      bool       // the stage was left behind: what it leads to may be closed
}

// runNext is the Next that a stage's Run has: it leads into the generation that is current at the time.
type runNext struct{ st *stage }

// Send moves b on.
func (n runNext) Send(b *creel.Batch) {
	for {
		h := n.st.out.Load()
		if n.st.last.Load() {
			n.st.flush(h, b)
			return
		}
		if h.p.gen.enter() {
			defer h.p.gen.leave()
			h.Send(b)
			return
		}
	}
}

// flush moves b on as the stage ends. When nobody waits for that any more, it is abandoned.
func (st *stage) flush(h *hop, b *creel.Batch) {
	st.flushing.Lock()
	defer st.flushing.Unlock()
	if !st.cut {
		h.Send(b)
		return
	}
	if !creel.Forward(b) {
		st.book.created.Add(int64(b.Len()))
	}
	st.book.dropped.add(Abandoned, b.Len())
	creel.Settle(b, creel.ErrAbandoned)
}

// cutOff lets nothing out of the stage any more. What it returns is closed when that is so.
func (st *stage) cutOff() <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		st.flushing.Lock()
		defer st.flushing.Unlock()
		st.cut = true
	}()
	return done
}

// start begins Run, if the processor has it.
func (st *stage) start() {
	st.done = make(chan struct{})
	r, ok := st.proc.(creel.Runner)
	if !ok {
		close(st.done)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	st.stop = cancel
	go func() {
		defer close(st.done)
		run := func() (bool, error) {
			err := safely(func() error { return r.Run(ctx, runNext{st}) })
			return err == nil, err
		}
		supervise(ctx, run, st.health, st.log) // what it holds stays where it is when it fails
	}()
}

// halt ends Run. What it returns is closed when it has returned. Nobody calls Process any more.
func (st *stage) halt() <-chan struct{} {
	if st.stop != nil {
		st.stop()
	}
	return st.done
}

// settle gives up what the stage has not flushed.
func (st *stage) settle() {
	if st.held != nil {
		st.held.End(creel.ErrAbandoned, func(n creel.Counts) {
			st.book.dropped.add(Abandoned, n.Dropped)
			n.Dropped = 0
			st.count(n)
		})
	}
}

// count enters what the stage did into the pipeline's book.
func (st *stage) count(n creel.Counts) {
	st.book.created.Add(int64(n.Created))
	st.book.filtered.Add(int64(n.Filtered))
	st.book.absorbed.Add(int64(n.Absorbed))
	st.book.dropped.add(ProcessorError, n.Dropped)
}

// hop is the Next that a stage sends to.
type hop struct {
	p *pipe
	i int // the stage that it leads to
}

// Send moves b on, in the goroutine of whoever calls.
func (h *hop) Send(b *creel.Batch) {
	h.p.stages[h.i-1].after.see(b)
	if !creel.Forward(b) {
		h.p.book.created.Add(int64(b.Len()))
	}
	h.p.run(h.i, b)
}

// run moves b through the stages from the i-th on.
func (p *pipe) run(i int, b *creel.Batch) {
	if b.Len() == 0 {
		creel.Settle(b, nil)
		return
	}
	if i == len(p.stages) {
		p.deliver(b)
		return
	}
	st := p.stages[i]
	st.before.see(b)
	c, _ := st.custody.Get().(*creel.Custody)
	if c == nil {
		c = creel.NewCustody(st.held)
	}
	c.Give(b)
	err := st.process(b, &p.hops[i+1])
	c.End(err, st.count)
	st.custody.Put(c)
	if err != nil {
		st.fault(err)
	}
}

// fault notes an error of Process; one that repeats is logged once.
func (st *stage) fault(err error) {
	if _, before := st.health.get(); before == nil || before.Error() != err.Error() {
		st.log.Error("processor failed, its records are dropped", "error", err)
	}
	st.health.fail(err)
}

func (st *stage) process(b *creel.Batch, next creel.Next) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = creel.Permanent(fmt.Errorf("process in %s: panic: %v\n%s", st.id, p, debug.Stack()))
		}
	}()
	if err := st.proc.Process(context.Background(), b, next); err != nil {
		return creel.Permanent(fmt.Errorf("process in %s: %w", st.id, err))
	}
	return nil
}

// deliver hands b to the queues at the end of the pipeline. A pipeline that only sends to others has none: what is left
// then was filtered.
func (p *pipe) deliver(b *creel.Batch) {
	if len(p.exits) == 0 {
		p.book.filtered.Add(int64(b.Len()))
		creel.Settle(b, nil)
		return
	}
	p.book.passed.Add(int64(b.Len()))
	last := len(p.exits) - 1
	for i := range p.exits {
		share := b
		if i < last {
			share = b.Clone()
		}
		p.exits[i].push(share)
	}
}

// push puts b into the exit's queue.
func (x *exit) push(b *creel.Batch) {
	x.edge.see(b)
	reserved := int64(0)
	creel.Detach(b, func(t *creel.Ticket) bool {
		r, ok := t.Owner().(*reservation)
		if !ok {
			return x.level != ackMemory // whoever waits for b
		}
		if r.q != x.queue {
			return false
		}
		reserved += r.n
		return true
	})
	bytes := int64(b.Bytes())
	if grown := bytes - reserved; grown > 0 { // on the way: nobody could hold it back
		x.queue.force(grown)
		(&reservation{x.queue, grown}).attach(b)
	}
	n := int64(b.Len())
	x.acct.in.Add(n)
	x.acct.queued.Add(n)
	x.queue.put(item{b: b, bytes: bytes, acct: x.acct, since: time.Now(), level: x.level, waited: creel.Waited(b)})
}

// output is the Next to a pipeline that a processor's options name.
type output struct {
	e        *Engine
	pipeline string // that it leads out of
	from     *book
	to       string
}

// Send moves b into the pipeline.
func (o *output) Send(b *creel.Batch) {
	n := int64(b.Len())
	p, leave := o.e.enter(o.to)
	if leave != nil {
		defer leave()
	}
	if !creel.Forward(b) {
		o.from.created.Add(n)
	}
	if p == nil { // switched off
		o.from.filtered.Add(n)
		creel.Settle(b, nil)
		return
	}
	o.from.routed.Add(n)
	if p.sheds(p.gen.pipes[o.pipeline], o.e.pressure.Load()) {
		p.shed(b)
		creel.Settle(b, nil)
		return
	}
	p.book.accepted.Add(n)
	p.run(0, b)
}
