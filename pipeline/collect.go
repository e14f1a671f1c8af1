package pipeline

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/task"
	"github.com/creelhq/creel/trace"
)

// A source is a collector's instance at work, and the Sink that it sends to.
type source struct {
	part
	e         *Engine
	collector creel.Collector
	schedule  Schedule      // of a polled one
	clock     task.Schedule // likewise; nil: it goes by an interval
	salt      uint64        // tells its sources from those of other collectors
	health    *health
	tracer    *trace.Tracer
	edge      *edge

	stop  context.CancelFunc // nil: it has not started, or works in rounds
	done  chan struct{}      // closed when Collect has returned for good
	fresh atomic.Bool        // it works in rounds at an interval, and has had none yet
	fence fence
	mark  atomic.Pointer[stamp] // the last that it was given; nil: none yet
	job   atomic.Pointer[job]   // the last of a document that is to be done once; nil: none
	diary diary

	inflight atomic.Int64 // batches that are not settled
	settled  chan struct{}
	ending   atomic.Bool
	once     sync.Once
	left     atomic.Bool // it was left behind, and sends in vain
}

// begin lets the collector work.
func (s *source) begin() {
	if err := s.start(); err != nil {
		s.health.fail(err)
		s.log.Error("collector does not start", "error", err)
	}
}

func (s *source) start() error {
	if !s.comp.Plugin.Polled {
		ctx, cancel := context.WithCancel(context.Background())
		s.stop, s.done = cancel, make(chan struct{})
		go func() {
			defer close(s.done)
			supervise(ctx, func() (bool, error) {
				err := s.collect(ctx)
				if err == nil && ctx.Err() == nil {
					err = errors.New("collect: returned before it was asked to")
				}
				return false, err
			}, s.health, s.log)
		}()
		return nil
	}
	t, err := s.schedule.task(s.comp.Path(), s.round)
	if err != nil {
		return err // it was checked
	}
	s.clock = t.Schedule
	s.fresh.Store(s.clock == nil)
	return s.e.tasks.Add(t)
}

// round is one round of a polled collector. While the engine is paused, or its document's terms forbid it, there is none.
func (s *source) round(ctx context.Context) error {
	if s.e.paused() {
		if _, t, _ := s.terms(s.e.current.Load()); t != nil && t.Once {
			s.fence.owes.Store(true)
		}
		return nil
	}
	ctx, allowed, end := s.within(ctx)
	defer end()
	if !allowed {
		return nil
	}
	j, begins := s.only()
	if !begins {
		return nil
	}
	a := s.begins(j)
	s.fresh.Store(false)
	ctx, span := s.tracer.Start(ctx, "round", trace.Internal)
	err := s.collect(ctx)
	span.Fail(err)
	span.End()
	if err != nil && ctx.Err() == nil {
		s.health.fault(s.log, err, s.wait())
	} else if err == nil {
		s.health.ok()
	}
	if j != nil {
		j.end(ctx, err)
	} else if a != nil {
		a.say(a.outcome(ctx, err))
	}
	return err
}

// wait is how long it takes until the next round.
func (s *source) wait() time.Duration {
	if s.clock != nil {
		return time.Until(s.clock.Next(time.Now()))
	}
	return s.schedule.Every
}

func (s *source) collect(ctx context.Context) error {
	return safely(func() error { return s.collector.Collect(ctx, s) })
}

// end stops the collector. What it returns is closed when Collect has returned.
func (s *source) end() <-chan struct{} {
	switch {
	case s.comp.Plugin.Polled:
		return s.e.tasks.Drop(s.comp.Path())
	case s.stop == nil: // never started
		s.done = make(chan struct{})
		close(s.done)
	default:
		s.stop()
	}
	return s.done
}

// rest waits until every batch that the collector, which has ended, has sent is settled. It reports false if ctx is done
// before.
func (s *source) rest(ctx context.Context) bool {
	s.inflight.Add(1)
	s.ending.Store(true)
	s.landed()
	select {
	case <-s.settled:
		return true
	case <-ctx.Done():
		return false
	}
}

func (s *source) landed() {
	if s.inflight.Add(-1) == 0 && s.ending.Load() {
		s.once.Do(func() { close(s.settled) })
	}
}

// errLeft is what a collector is told that sends though it was left behind.
var errLeft = errors.New("send: the collector was stopped, and has not returned in time")

// Send admits b when there is room in every queue that it can reach.
func (s *source) Send(ctx context.Context, b *creel.Batch) error {
	var stalled time.Time
	for {
		ok, g, room := s.admit(b, true, &stalled)
		if ok {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if s.left.Load() {
			return errLeft
		}
		if room == nil {
			continue
		}
		err := creel.Blocking(ctx, func() error {
			select {
			case <-room:
			case <-g.next:
			case <-ctx.Done():
				return ctx.Err()
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
}

// TrySend admits b if there is room.
func (s *source) TrySend(b *creel.Batch) bool {
	var stalled time.Time
	for {
		ok, _, room := s.admit(b, false, &stalled)
		if ok {
			return true
		}
		if room != nil {
			return false
		}
	}
}

// admit reserves room for b everywhere, and then moves it on. Otherwise nothing has happened to b, and room tells when
// to try again; nil for at once. When memory is scarce, only some pipelines take it, or none; none does while terms
// forbid it. stalled is when a reload has first come in between.
func (s *source) admit(b *creel.Batch, waits bool, stalled *time.Time) (ok bool, g *generation, room <-chan struct{}) {
	g = s.e.current.Load()
	pipes := g.routes[s.comp.ID]
	if len(pipes) == 0 || s.left.Load() { // about to be stopped, or should have been
		return false, g, g.next
	}
	document, terms, over := s.terms(g)
	if terms != nil && !terms.Allow(time.Now()) {
		return false, g, over
	}
	var shedding []*pipe
	now := s.e.pressure.Load()
	if now != nil {
		if pipes, shedding = now.divide(pipes); len(pipes) == 0 {
			return false, g, now.over
		}
		if now.spent() {
			if now.More(); s.e.pressure.Load() == now {
				return false, g, now.over
			}
			return false, g, nil
		}
	}
	n := int64(b.Bytes())
	for i, p := range pipes {
		for j, q := range p.leaves {
			if ok, room := q.reserve(n, s, waits); !ok {
				unreserve(pipes[:i+1], j, n)
				return false, g, room
			}
		}
	}
	if !g.enter() {
		unreserve(pipes, -1, n)
		if stalled.IsZero() {
			*stalled = time.Now()
		}
		return false, g, nil
	}
	defer g.leave()
	_, last, _ := s.terms(g)
	if s.e.pressure.Load() != now || last != terms || terms != nil && !terms.Allow(time.Now()) { // else a pause could not be relied on: see Flush
		unreserve(pipes, -1, n)
		return false, g, nil
	}
	if terms != nil {
		s.stamp(document, terms.Epoch).put(b)
	}
	if !stalled.IsZero() {
		s.e.stood(time.Since(*stalled))
	}
	s.edge.see(b)
	s.health.work.collected.Add(int64(b.Len()))
	s.inflight.Add(1)
	for i := range b.Parts() {
		b.Parts()[i].Source ^= s.salt
	}
	if j := s.job.Load(); j != nil {
		j.left.Add(1)
		b.OnDone(j.settle)
	}
	creel.Attach(b, creel.NewTicket(s, func(error) { s.landed() }))
	now.take(n)
	for _, p := range shedding {
		p.shed(b)
	}
	for i, p := range pipes {
		share := b
		if i < len(pipes)-1 {
			share = b.Clone()
		}
		for _, q := range p.leaves {
			(&reservation{q, n}).attach(share)
		}
		p.book.accepted.Add(int64(share.Len()))
		p.run(0, share)
	}
	return true, g, nil
}

// unreserve gives back what was reserved: everything in all pipes but the last, of which only the first leaves, all if
// negative.
func unreserve(pipes []*pipe, last int, n int64) {
	for i, p := range pipes {
		leaves := p.leaves
		if i == len(pipes)-1 && last >= 0 {
			leaves = leaves[:last]
		}
		for _, q := range leaves {
			q.release(n)
		}
	}
}
