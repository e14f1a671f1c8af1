// Package leader elects one hub among those that share a control state: who has put its id under a key, with its lease, leads
// until the key is gone. The others ask it for a sign of life, and take the key away when it gives none any more: its lease may end
// seconds later. A hub that is paused, or that others do not reach, may believe for a while that it still leads: what a leader writes
// must be compared with what it has read.
//
// It knows nothing of what a leader does.
package leader

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/creelhq/creel/hub/internal/state"
)

// key is whose entry names the leader.
const key = "leader"

// pause is between two attempts when the control state does not answer.
const pause = time.Second

// The hub that leads is asked so often whether it is there, and does not lead any more when it has not answered so many times in a row.
const (
	askEvery = 500 * time.Millisecond
	silences = 2
	elected  = 3 * time.Second // within that the control state has a leader of its own, and is asked again if not
)

// A Term is what the entry says of who leads.
type Term struct {
	Hub   string    `json:"hub"`   // its id
	Since time.Time `json:"since"` // by its clock
}

// errOver ends a watch: whose entry it was leads no more.
var errOver = errors.New("the term is over")

// A Candidate is a hub that stands for election. All but Answers are required.
type Candidate struct {
	Hub   string // its id
	Store state.Store
	Log   *slog.Logger

	// Answers reports whether another hub gives a sign of life; it takes about a second at most. nil: who leads does until its lease
	// ends.
	Answers func(ctx context.Context, hub string) bool
}

// Run stands for election until ctx is done, and calls lead each time that it is elected. The context that lead gets is done
// when the term is over; no other hub is elected before the entry is gone, and this one does not stand again before lead has
// returned.
func (c Candidate) Run(ctx context.Context, lead func(context.Context)) {
	for ctx.Err() == nil {
		if err := c.stand(ctx, lead); err != nil && ctx.Err() == nil {
			c.Log.Warn("the election of the hub that places documents; will try again", "error", err)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
		}
	}
}

// stand waits until nobody leads, and leads then if nobody else was faster. What an earlier run of this hub has left, which was
// killed, it takes over.
func (c Candidate) stand(ctx context.Context, lead func(context.Context)) error {
	now, err := c.Store.Get(ctx, key)
	switch t := (Term{}); {
	case err == nil && json.Unmarshal(now.Value, &t) == nil && t.Hub == c.Hub:
	case err == nil:
		return c.follow(ctx, t.Hub, now.Revision)
	case !errors.Is(err, state.ErrNotFound):
		return err
	}
	value, err := json.Marshal(Term{Hub: c.Hub, Since: time.Now().UTC()})
	if err != nil {
		panic("BUG: " + err.Error())
	}
	revision, err := c.Store.Put(ctx, key, value, true, state.Unchanged(now.Revision))
	if errors.Is(err, state.ErrConflict) {
		return nil
	}
	if err != nil {
		return err
	}
	lease := c.Store.Lease() // of a later lease, if that was lost meanwhile; then the entry is gone, which is seen as well
	c.Log.Info("this hub leads: it places documents")
	term, end := context.WithCancel(ctx)
	defer end()
	ended := make(chan error, 1)
	go func() {
		ended <- over(term, c.Store, revision)
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
	c.Log.Info("this hub leads no more")
	if ctx.Err() != nil { // it goes: the next need not wait until the lease ends
		away, cancel := context.WithTimeout(context.WithoutCancel(ctx), pause)
		defer cancel()
		if err := c.Store.Delete(away, key, state.Unchanged(revision)); err != nil && !errors.Is(err, state.ErrConflict) {
			return fmt.Errorf("step down: %w", err)
		}
	}
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// follow returns nil when the term of another hub is over, which it ends itself if that hub falls silent.
func (c Candidate) follow(ctx context.Context, leads string, revision int64) error {
	watching, end := context.WithCancel(ctx)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer end()
	if c.Answers != nil {
		asking.Go(func() { c.depose(watching, leads, revision) })
	}
	return over(watching, c.Store, revision)
}

// depose takes the entry away from a hub that has answered in this term, and does so no more. One that has never answered keeps it as long
// as its lease: if two hubs that do not reach each other took it from each other, that would go on for ever.
func (c Candidate) depose(ctx context.Context, leads string, revision int64) {
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	heard, silent := false, 0
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if c.Answers(ctx, leads) {
			heard, silent = true, 0
			continue
		}
		if silent++; !heard || silent < silences {
			continue
		}
		switch err := c.take(ctx, revision); {
		case err == nil:
			c.Log.Warn("the hub that places documents does not answer any more: another one will", "hub", leads)
			return
		case errors.Is(err, state.ErrConflict), errors.Is(err, state.ErrNotFound):
			return
		}
	}
}

// take deletes the entry. The control state may have lost its own leader with the hub: a question waits until there is another, whereas a
// change may be lost on its way to the one that is gone.
func (c Candidate) take(ctx context.Context, revision int64) error {
	ctx, cancel := context.WithTimeout(ctx, elected)
	defer cancel()
	if _, err := c.Store.Get(ctx, key); err != nil {
		return err
	}
	return c.Store.Delete(ctx, key, state.Unchanged(revision))
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
