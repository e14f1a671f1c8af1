package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/metric"
	"github.com/creelhq/creel/task"
)

// restart is the pause before a collector that failed is started again.
var restart = Retry{Initial: time.Second, Max: time.Minute}

// A source is a collector's instance at work, and the Sink that it sends to.
type source struct {
	e         *Engine
	comp      Component
	collector creel.Collector
	schedule  Schedule // of a polled one
	salt      uint64   // tells its sources from those of other collectors
	log       *slog.Logger
	meters    *metric.Set
	health    health
	collected *metric.Counter
	edge      *edge

	stop context.CancelFunc
	done sync.WaitGroup

	inflight atomic.Int64 // batches that are not settled
	settled  chan struct{}
	ending   atomic.Bool
	once     sync.Once
}

// start lets the collector work.
func (s *source) start() error {
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	if !s.comp.Plugin.Polled {
		s.done.Go(func() { s.supervise(ctx) })
		return nil
	}
	return s.e.tasks.Add(task.Task{
		ID: s.comp.Path(), Every: s.schedule.Every, Timeout: s.schedule.Timeout, Priority: s.schedule.Priority,
		Run: func(ctx context.Context) error {
			err := s.collect(ctx)
			if err != nil && ctx.Err() == nil {
				s.fault(err, s.schedule.Every)
			} else if err == nil {
				s.health.ok()
			}
			return err
		},
	})
}

// supervise runs the collector, again after a pause when it fails, until ctx is done.
func (s *source) supervise(ctx context.Context) {
	for failed := 1; ; failed++ {
		began := time.Now()
		err := s.collect(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = errors.New("collect: returned before it was asked to")
		}
		if time.Since(began) > restart.Max {
			failed = 1
		}
		wait := restart.pause(failed, err)
		s.fault(err, wait)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// fault notes an error; one that repeats is logged once.
func (s *source) fault(err error, wait time.Duration) {
	if _, before := s.health.get(); before == nil || before.Error() != err.Error() {
		s.log.Error("collector failed, will start again", "wait", wait.Round(time.Millisecond), "error", err)
	}
	s.health.fail(err)
}

func (s *source) collect(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("collect: panic: %v\n%s", p, debug.Stack())
		}
	}()
	return s.collector.Collect(ctx, s)
}

// end stops the collector and waits until it has returned.
func (s *source) end(ctx context.Context) {
	if s.comp.Plugin.Polled {
		if err := s.e.tasks.Remove(ctx, s.comp.Path()); err != nil {
			s.log.Error("collector does not stop", "error", err)
		}
		return
	}
	if s.stop == nil {
		return // never started
	}
	s.stop()
	returned := make(chan struct{})
	go func() {
		s.done.Wait()
		close(returned)
	}()
	select {
	case <-returned:
	case <-ctx.Done():
		s.log.Error("collector does not stop", "error", ctx.Err())
	}
}

// rest waits until every batch that the collector, which has ended, has sent is settled, or ctx is done.
func (s *source) rest(ctx context.Context) {
	s.inflight.Add(1)
	s.ending.Store(true)
	s.landed()
	select {
	case <-s.settled:
	case <-ctx.Done():
	}
}

func (s *source) landed() {
	if s.inflight.Add(-1) == 0 && s.ending.Load() {
		s.once.Do(func() { close(s.settled) })
	}
}

func (s *source) close() {
	closeComponent(s.collector, s.log)
	s.meters.Close()
}

// Send admits b when there is room in every queue that it can reach.
func (s *source) Send(ctx context.Context, b *creel.Batch) error {
	for {
		ok, g, room := s.admit(b, true)
		if ok {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
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
	for {
		ok, _, room := s.admit(b, false)
		if ok {
			return true
		}
		if room != nil {
			return false
		}
	}
}

// admit reserves room for b everywhere, and then moves it on. Otherwise nothing has happened to b, and room tells when
// to try again; nil for at once. When memory is scarce, only some pipelines take it, or none.
func (s *source) admit(b *creel.Batch, waits bool) (ok bool, g *generation, room <-chan struct{}) {
	g = s.e.current.Load()
	pipes := g.routes[s.comp.ID]
	if len(pipes) == 0 { // about to be stopped
		return false, g, g.next
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
		return false, g, nil
	}
	defer g.leave()
	s.edge.see(b)
	s.collected.Add(uint64(b.Len()))
	s.inflight.Add(1)
	for i := range b.Parts() {
		b.Parts()[i].Source ^= s.salt
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
