// Package leader elects one hub among those that share a control state: who has put its id under a key, with its lease, leads
// until the key is gone. A hub that is paused may believe for a while that it still leads: what a leader writes must be
// compared with what it has read.
//
// It knows nothing of what a leader does.
package leader

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/creelhq/creel/hub/internal/state"
)

// key is whose entry names the leader.
const key = "leader"

// pause is between two attempts when the control state does not answer.
const pause = time.Second

// A Term is what the entry says of who leads.
type Term struct {
	Hub   string    `json:"hub"`   // its id
	Since time.Time `json:"since"` // by its clock
}

// errOver ends a watch: whose entry it was leads no more.
var errOver = errors.New("the term is over")

// Run stands for election until ctx is done, and calls lead each time that it is elected. The context that lead gets is done
// when the term is over; no other hub is elected before the entry is gone, and this one does not stand again before lead has
// returned.
func Run(ctx context.Context, s state.Store, hub string, log *slog.Logger, lead func(context.Context)) {
	for ctx.Err() == nil {
		if err := stand(ctx, s, hub, log, lead); err != nil && ctx.Err() == nil {
			log.Warn("the election of the hub that places documents; will try again", "error", err)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
		}
	}
}

// stand waits until nobody leads, and leads then if nobody else was faster. What an earlier run of this hub has left, which was
// killed, it takes over.
func stand(ctx context.Context, s state.Store, hub string, log *slog.Logger, lead func(context.Context)) error {
	now, err := s.Get(ctx, key)
	switch t := (Term{}); {
	case err == nil && json.Unmarshal(now.Value, &t) == nil && t.Hub == hub:
	case err == nil:
		return over(ctx, s, now.Revision)
	case !errors.Is(err, state.ErrNotFound):
		return err
	}
	value, err := json.Marshal(Term{Hub: hub, Since: time.Now().UTC()})
	if err != nil {
		panic("BUG: " + err.Error())
	}
	revision, err := s.Put(ctx, key, value, true, state.Unchanged(now.Revision))
	if errors.Is(err, state.ErrConflict) {
		return nil
	}
	if err != nil {
		return err
	}
	lease := s.Lease() // of a later lease, if that was lost meanwhile; then the entry is gone, which is seen as well
	log.Info("this hub leads: it places documents")
	term, end := context.WithCancel(ctx)
	defer end()
	ended := make(chan error, 1)
	go func() {
		ended <- over(term, s, revision)
		end()
	}()
	go func() {
		select {
		case <-lease.Lost():
			end()
		case <-term.Done():
		}
	}()
	lead(term)
	end()
	err = <-ended
	log.Info("this hub leads no more")
	if ctx.Err() != nil { // it goes: the next need not wait until the lease ends
		away, cancel := context.WithTimeout(context.WithoutCancel(ctx), pause)
		defer cancel()
		if err := s.Delete(away, key, state.Unchanged(revision)); err != nil && !errors.Is(err, state.ErrConflict) {
			return fmt.Errorf("step down: %w", err)
		}
	}
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// over returns nil when the entry of a revision is gone or another's.
func over(ctx context.Context, s state.Store, revision int64) error {
	err := s.Watch(ctx, key, revision, func(e state.Entry) error {
		if e.Key == key {
			return errOver
		}
		return nil
	})
	if errors.Is(err, errOver) || errors.Is(err, state.ErrCompacted) { // then it is looked at anew
		return nil
	}
	return err
}

// Current returns who leads; an empty Term if nobody does.
func Current(ctx context.Context, s state.Store) (t Term, err error) {
	e, err := s.Get(ctx, key)
	if errors.Is(err, state.ErrNotFound) {
		return Term{}, nil
	}
	if err != nil {
		return Term{}, fmt.Errorf("ask who leads: %w", err)
	}
	if err := json.Unmarshal(e.Value, &t); err != nil {
		return Term{}, fmt.Errorf("read who leads: %w", err)
	}
	return t, nil
}
