package pipeline

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// Document names a document that a hub has handed out.
type Document struct{ Name, Version string }

// Terms are on what terms an agent works on a document that a hub has placed on it and not on all.
type Terms struct {
	Epoch   int64     // of the placing: what is collected is stamped with it
	Until   time.Time // when it must stop; the zero time: it must not begin
	Forever bool      // Until does not count
	Why     string    // why it does nothing then

	// Once means that collectors that work in rounds have one in this epoch, for each version of the document: see Results.
	Once bool

	// Run and Cancel count what was asked of whoever has the document in this epoch: a round at once, and to give up the round
	// under way. What was asked before a collector was told of the document first is not done.
	Run, Cancel int64
}

// Allow reports whether it may work at now. Where the clocks differ the stricter one counts: the monotonic one stands still
// while a machine sleeps, the other one can be set back.
func (t *Terms) Allow(now time.Time) bool {
	return t.Forever || now.Before(t.Until) && now.Round(0).Before(t.Until.Round(0))
}

// terms are those in force.
type terms struct {
	of   map[string]*Terms // by document
	over chan struct{}     // closed when others are in force
}

// SetTerms says on what terms documents are worked on, by their names, until the next call; a document that is not named has
// none. list must not be changed any more. What was sent before is not touched. While its document's terms forbid it, a
// collector's Send waits, TrySend says no, and collectors that work in rounds have none: one under way is cancelled. They go
// on as soon as they may, with a round at once if they have missed one, or if it is the only one. It does not block, and outlives Apply.
func (e *Engine) SetTerms(list map[string]*Terms) {
	if old := e.terms.Swap(&terms{list, make(chan struct{})}); old != nil {
		close(old.over)
	}
	e.fencing.Reset(0)
}

// terms returns the collector's document, its terms (nil: it has none), and what is closed when others are in force.
func (s *source) terms(g *generation) (Document, *Terms, <-chan struct{}) {
	d, is := g.plan.Documents[s.comp.ID]
	if !is {
		return d, nil, nil
	}
	now := s.e.terms.Load()
	if now == nil {
		return d, nil, nil
	}
	return d, now.of[d.Name], now.over
}

// forbidden reports whether the collector must do nothing now.
func (s *source) forbidden() bool {
	_, t, _ := s.terms(s.e.current.Load())
	return t != nil && !t.Allow(time.Now())
}

// A fence keeps a collector back whose document's terms forbid that it works.
type fence struct {
	round atomic.Pointer[context.CancelCauseFunc] // of the round that is under way; nil: none that has terms
	owes  atomic.Bool                             // it has missed a round
	shut  bool                                    // as it was told last; Engine.mu guards it
	asked asked                                   // likewise
}

// asked is what terms have asked for last.
type asked struct {
	epoch, run, cancel int64
	only               turn // for which a round was asked for
}

// errAsked is why a round is cancelled that somebody does not want any more.
var errAsked = errors.New("round cancelled: somebody has asked for that")

// errFenced is why a round is cancelled.
var errFenced = errors.New("round cancelled: the terms of its document do not allow it any more")

// errClosed is why a round is cancelled whose document stays.
var errClosed = errors.New("round cancelled: its collector closes, or is opened anew")

// closing returns why a round is cancelled whose collector closes, which may be before the terms that forbid it were enforced.
func (s *source) closing(document string) error {
	if d, is := s.e.current.Load().plan.Documents[s.comp.ID]; !is || d.Name != document || s.forbidden() {
		return errFenced
	}
	return errClosed
}

// within returns the context of a round, which is done when its terms end, and whether it may begin. end is to be called when
// it is over.
func (s *source) within(ctx context.Context) (round context.Context, allowed bool, end func()) {
	if _, t, _ := s.terms(s.e.current.Load()); t == nil {
		return ctx, true, func() {}
	}
	round, cancel := context.WithCancelCause(ctx)
	s.fence.round.Store(&cancel) // before it is asked whether it may: else enforce could pass in between
	end = func() {
		s.fence.round.Store(nil)
		if context.Cause(round) == errFenced {
			s.owe()
		}
		cancel(nil)
	}
	if s.forbidden() {
		s.owe()
		if s.forbidden() { // likewise
			return round, false, end
		}
	}
	s.fence.owes.Store(false)
	return round, true, end
}

// owe notes that a round was missed, if that is to be made up for.
func (s *source) owe() {
	if s.schedule.Missed != "skip" || s.fresh.Load() {
		s.fence.owes.Store(true)
	}
}

// enforce cancels the rounds that must not go on, has those begin that may, and looks again when the next terms end.
func (e *Engine) enforce() {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	var next time.Time
	for _, s := range e.sources {
		_, t, _ := s.terms(e.current.Load())
		if t != nil && !t.Allow(now) {
			if cancel := s.fence.round.Load(); cancel != nil {
				(*cancel)(errFenced)
			}
			if !s.fence.shut {
				s.fence.shut = true
				s.log.Warn("collector does nothing", "reason", t.Why)
			}
			continue
		}
		if s.fence.shut {
			s.fence.shut = false
			s.log.Info("collector goes on")
		}
		if s.fence.asks(s, t) || s.fence.owes.Swap(false) {
			_ = e.tasks.Trigger(s.comp.Path()) // it is there, or is being taken out
		}
		if t != nil && !t.Forever && (next.IsZero() || t.Until.Before(next)) {
			next = t.Until
		}
	}
	if !next.IsZero() {
		e.fencing.Reset(next.Sub(now))
	}
}

// asks does what terms ask for, and reports whether that is a round at once. Engine.mu is held.
func (f *fence) asks(s *source, t *Terms) (round bool) {
	if t == nil {
		f.asked = asked{}
		return false
	}
	was := f.asked
	f.asked = asked{epoch: t.Epoch, run: t.Run, cancel: t.Cancel, only: was.only}
	if was.epoch == t.Epoch && t.Cancel > was.cancel {
		if cancel := f.round.Load(); cancel != nil {
			(*cancel)(errAsked)
		}
	}
	if t.Once && s.comp.Plugin.Polled {
		f.asked.only = s.turn(t)
		return f.asked.only != was.only
	}
	return was.epoch == t.Epoch && t.Run > was.run
}
