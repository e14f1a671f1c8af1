package pipeline

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/creelhq/creel"
)

// This file is documents that are done once: by one round of each of their collectors.

// A Result is how a document went that is to be done once.
type Result struct {
	Version string // of the document
	Epoch   int64
	Ended   time.Time
	Err     error // of a round, or of what became of its records; nil: all that was sent is delivered, or on disk
}

// A turn is what a collector is to do once.
type turn struct {
	Document
	epoch int64
}

// turn returns the collector's, by these terms.
func (s *source) turn(t *Terms) turn {
	return turn{s.e.current.Load().plan.Documents[s.comp.ID], t.Epoch}
}

// A job is the round of a collector's turn, and what it has sent.
type job struct {
	turn
	left   atomic.Int64 // batches that are not settled, and one while the round is under way
	err    atomic.Pointer[error]
	result atomic.Pointer[Result] // nil: it is not over
	source *source
	*attempt
}

// only returns the job that a round is to do, if it is to be done once; false: it is done, or under way.
func (s *source) only() (*job, bool) {
	_, t, _ := s.terms(s.e.current.Load())
	if t == nil || !t.Once {
		s.job.Store(nil)
		return nil, true
	}
	now := s.turn(t)
	if was := s.job.Load(); was != nil && was.turn == now {
		return nil, false
	}
	j := &job{turn: now, source: s}
	j.left.Store(1)
	s.job.Store(j)
	return j, true
}

// end notes that the round is over. One that was cancelled, because the collector stops or its terms have ended, was none.
func (j *job) end(ctx context.Context, err error) {
	how, err := j.outcome(ctx, err)
	if how == cancelled {
		j.source.job.CompareAndSwap(j, nil)
		j.say(how, err)
		return
	}
	j.settle(err)
}

// settle notes that a batch is safe, or what became of it.
func (j *job) settle(err error) {
	if err != nil {
		j.err.CompareAndSwap(nil, &err)
	}
	if j.left.Add(-1) > 0 {
		return
	}
	r := &Result{Version: j.Version, Epoch: j.epoch, Ended: time.Now()}
	if p := j.err.Load(); p != nil {
		r.Err = *p
	}
	e := j.source.e
	if errors.Is(r.Err, creel.ErrAbandoned) { // nobody has decided against the records: they are to be collected again
		j.source.fence.owes.Store(true)
		j.source.job.CompareAndSwap(j, nil)
		j.say(cancelled, r.Err)
		e.fencing.Reset(0)
		return
	}
	how := done
	if r.Err != nil {
		how = failed
	}
	j.say(how, r.Err)
	j.result.Store(r)
	if e.Ended != nil {
		e.Ended()
	}
}

// Results returns how documents went that are to be done once, by their names: those of which all rounds are done, or one has
// failed.
func (e *Engine) Results() map[string]Result {
	e.mu.Lock()
	defer e.mu.Unlock()
	list, open := make(map[string]Result), make(map[string]bool)
	for _, s := range e.sources {
		d, t, _ := s.terms(e.current.Load())
		if t == nil || !t.Once || !s.comp.Plugin.Polled {
			continue
		}
		j := s.job.Load()
		if j == nil || j.turn != s.turn(t) || j.result.Load() == nil {
			open[d.Name] = true
			continue
		}
		r := *j.result.Load()
		if was, is := list[d.Name]; is && (was.Err != nil || r.Err == nil && was.Ended.After(r.Ended)) {
			r = was
		}
		list[d.Name] = r
	}
	for name := range open {
		if list[name].Err == nil {
			delete(list, name)
		}
	}
	return list
}
