package pipeline

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/creelhq/creel/task"
)

// This file is what is said of the rounds of placed documents. It goes into the agent's log, with attributes that say of which
// document, version and epoch it is; the collector self makes records of that. They are the record's own attributes, not its
// resource's as with what was collected: a hub refuses what was collected in an epoch that is over, but how a round went stays true.

// How a round went.
const (
	done      = "done"
	failed    = "failed"
	cancelled = "cancelled"
)

// Of a document that is to be done once each round is told. Else it is the first in an epoch, one that went otherwise than the last
// that was told, and of those that go on failing one now and then.
const (
	apart = 10 * time.Second // least time between what is told of one collector
	again = time.Minute      // between failures that go on
)

// outcome returns how the round went, and why. One that was cancelled is none, whatever it returns.
func (a *attempt) outcome(ctx context.Context, err error) (how string, why error) {
	cause := context.Cause(ctx)
	switch {
	case cause == context.Canceled:
		return cancelled, a.source.closing(a.Name)
	case cause != nil && !errors.Is(cause, task.ErrTimeout):
		return cancelled, cause
	case err != nil || cause != nil:
		return failed, cmp.Or(err, cause)
	}
	return done, nil
}

// A diary knows what was said of a collector's rounds.
type diary struct {
	mu sync.Mutex
	turn
	nth int64     // the last one's: see attempt
	how string    // as it was said last; "": nothing was
	at  time.Time // when
}

// An attempt is a round of a placed document's collector.
type attempt struct {
	turn
	source *source
	once   bool
	began  time.Time
	before int64 // records that the collector had sent
	nth    int64 // which round it is since the last that went well, or since the epoch has begun, from 1
}

// begins notes that a round begins, which is j's if that is not nil. It returns nil if the collector has no terms.
func (s *source) begins(j *job) *attempt {
	a := &attempt{source: s, once: j != nil, began: time.Now(), before: s.health.work.collected.Load()}
	if j != nil {
		a.turn, j.attempt = j.turn, a
	} else if _, t, _ := s.terms(s.e.current.Load()); t != nil {
		a.turn = s.turn(t)
	} else {
		return nil
	}
	d := &s.diary
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.turn != a.turn {
		d.turn, d.nth, d.how, d.at = a.turn, 0, "", time.Time{}
	}
	d.nth++
	a.nth = d.nth
	return a
}

// due notes how the round went, and reports whether that is to be said.
func (a *attempt) due(how string) bool {
	d, now := &a.source.diary, time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.turn != a.turn {
		return a.once // another one has begun
	}
	if how == done {
		d.nth = 0
	}
	since := now.Sub(d.at)
	if !a.once && (how == d.how && (how != failed || since < again) || since < apart) {
		return false
	}
	d.how, d.at = how, now
	return true
}

// say says how the round went, if that is due.
func (a *attempt) say(how string, why error) {
	if !a.due(how) {
		return
	}
	level, text := slog.LevelInfo, "a round of a placed document is done"
	switch how {
	case failed:
		level, text = slog.LevelWarn, "a round of a placed document has failed"
	case cancelled:
		text = "a round of a placed document was cancelled"
	}
	attrs := []slog.Attr{
		slog.String(nameAttr, a.Name), slog.String(versionAttr, a.Version), slog.Int64(epochAttr, a.epoch), slog.String("outcome", how), slog.Int64("attempt", a.nth),
		slog.Float64("seconds", time.Since(a.began).Round(time.Microsecond).Seconds()), slog.Int64("records", a.source.health.work.collected.Load()-a.before),
	}
	if why != nil {
		attrs = append(attrs, slog.String("error", why.Error()))
	}
	a.source.log.LogAttrs(context.Background(), level, text, attrs...)
}
