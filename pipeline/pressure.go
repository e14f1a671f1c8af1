package pipeline

import (
	"sync"
	"sync/atomic"

	"github.com/creelhq/creel"
)

// Pressure is how scarce memory is. The zero Pressure is none.
type Pressure struct {
	// At a Level above 0, pipelines whose priority is lower take nothing more: a collector that feeds no others waits, and
	// what it sends into others as well is shed for those, and counted so. At 10 nobody takes anything.
	Level int
	// When More is not nil, about so many bytes are taken until the next SetPressure. When they have been, More is called: it
	// may call SetPressure at once, or later.
	Bytes int64
	More  func()
}

// pressure is what holds collectors back: a Pressure that is in force, or a pause.
type pressure struct {
	Pressure
	paused bool
	left   atomic.Int64  // of Bytes
	over   chan struct{} // closed when another is in force
}

// A gate is what the collectors' Sinks look at first.
type gate struct {
	atomic.Pointer[pressure] // nil: it is open

	mu     sync.Mutex // guards what follows
	asked  Pressure
	paused bool
}

// SetPressure says how scarce memory is, until the next call. What was taken before is not touched.
func (e *Engine) SetPressure(p Pressure) {
	e.pressure.set(func(g *gate) { g.asked = p })
}

// Pause lets no collector's batch in, or lets them in again. While it is paused Send waits, TrySend says no, and nothing is
// dropped for that; collectors that work in rounds have none, and later do not make up for them, but for the first. What
// was let in before goes on: processors, delivery, disk queues, acknowledgements. It outlives Apply.
func (e *Engine) Pause(paused bool) {
	e.pressure.set(func(g *gate) { g.paused = paused })
	if paused {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.sources {
		if s.fresh.Load() {
			_ = e.tasks.Trigger(s.comp.Path()) // it is there, or is being taken out
		}
	}
	if e.terms.Load() != nil {
		e.fencing.Reset(0)
	}
}

func (e *Engine) paused() bool {
	p := e.pressure.Load()
	return p != nil && p.paused
}

// set changes what is in force.
func (g *gate) set(change func(*gate)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	change(g)
	var next *pressure
	if g.paused || g.asked.Level > 0 || g.asked.More != nil {
		next = &pressure{Pressure: g.asked, paused: g.paused, over: make(chan struct{})}
		next.left.Store(g.asked.Bytes)
	}
	if old := g.Swap(next); old != nil {
		close(old.over)
	}
}

// spent reports whether p's bytes have been taken.
func (p *pressure) spent() bool { return p.More != nil && p.left.Load() <= 0 }

// take notes that n bytes are taken. They may be more than were left: somebody else has taken some since.
func (p *pressure) take(n int64) {
	if p != nil && p.More != nil {
		p.left.Add(-n)
	}
}

// divide tells the pipes that take records from those that take none.
func (p *pressure) divide(pipes []*pipe) (taking, shedding []*pipe) {
	switch {
	case p.paused:
		return nil, nil
	case p.Level == 0:
		return pipes, nil
	}
	for _, pipe := range pipes {
		if pipe.priority < p.Level {
			shedding = append(shedding, pipe)
		} else {
			taking = append(taking, pipe)
		}
	}
	return taking, shedding
}

// shed enters a batch that p does not take.
func (p *pipe) shed(b *creel.Batch) {
	p.book.accepted.Add(int64(b.Len()))
	p.book.dropped.add(Shed, b.Len())
}

// sheds reports whether p takes nothing of what a pipeline sends on to it: that one has a higher priority, and may be
// taking records, which must not wait for those that are less important.
func (p *pipe) sheds(from *pipe, now *pressure) bool {
	return now != nil && from != nil && p.priority < now.Level && p.priority < from.priority
}
