package task

import (
	"context"
	"time"

	"github.com/creelhq/creel"
)

// This file is the context of a round. It is made when the round asks it for something: many are over before that, and it would be a
// quarter of what they cost.

// lazy is a round as its context.
type lazy round

// made is the context of a round that has asked for something.
type made struct {
	context.Context
	stop context.CancelCauseFunc
}

// Deadline returns none: a round's timeout does not count the time in which it owns no slot.
func (l *lazy) Deadline() (time.Time, bool) { return time.Time{}, false }

func (l *lazy) Done() <-chan struct{} { return l.get().Done() }
func (l *lazy) Err() error            { return l.get().Err() }
func (l *lazy) Value(key any) any     { return l.get().Value(key) }

func (l *lazy) get() *made {
	if m := l.made.Load(); m != nil {
		return m
	}
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if m := l.made.Load(); m != nil {
		return m
	}
	ctx, stop := context.WithCancelCause(context.Background())
	m := &made{creel.WithYielder(ctx, (*round)(l)), stop}
	if l.cancelled || l.state == ended {
		stop(l.cause)
	}
	l.made.Store(m)
	return m
}

// done ends the context of a round, for a reason or because the round has ended. Scheduler.mu is held.
func (r *round) done(cause error) {
	if m := r.made.Load(); m != nil {
		m.stop(cause)
	}
}
