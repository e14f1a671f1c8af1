package task

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

func (t *Task) check() error {
	switch {
	case t.Run == nil:
		return errors.New("needs something to run")
	case t.Every < 0 || t.Timeout < 0 || t.Jitter < 0 || t.Priority < 0 || t.Priority > 9:
		return errors.New("interval, timeout and jitter must not be negative, priority must be from 0 to 9")
	case t.Every > 0 && t.Schedule != nil:
		return errors.New("has both an interval and a schedule; one must go")
	case t.Missed > MissedAll || t.Preempt > Restart:
		return errors.New("treats missed or more urgent rounds in a way that there is not")
	}
	return nil
}

// Add takes a task in. Its first round is due at once, or when its Schedule says.
func (s *Scheduler) Add(t Task) error {
	err := t.check()
	if t.ID == "" {
		err = errors.New("needs an id")
	}
	j := &job{Task: t, record: &record{}}
	if err == nil {
		j.at = time.Now()
		if t.Schedule != nil {
			if j.at = after(t.Schedule, s.wall().Round(0)); j.at.IsZero() {
				err = errors.New("its schedule has no time that is still to come")
			}
		}
	}
	if err != nil {
		return fmt.Errorf("add task %s: %w", t.ID, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return fmt.Errorf("add task %s: the scheduler has stopped", t.ID)
	}
	if s.jobs[t.ID] != nil {
		return fmt.Errorf("add task %s: there is one already", t.ID)
	}
	s.jobs[t.ID] = j
	j.delay = j.chance(s.Seed)
	s.adopt(j)
	s.plan(j, time.Now())
	return nil
}

func (s *Scheduler) adopt(j *job) {
	j.due.of, j.wait.of = j, j
	j.lane = s.limits.join(j.Class, j.Key)
}

// Submit takes one round in, which is due now. It is the cheap form of Add: the ID need not be unique, Every, Schedule and
// Jitter must be zero, and nobody can ask for the round, trigger or remove it.
func (s *Scheduler) Submit(t Task) error {
	err := t.check()
	if t.Every != 0 || t.Schedule != nil || t.Jitter != 0 {
		err = errors.New("is more than one round at once; add it")
	}
	if err != nil {
		return fmt.Errorf("submit task %s: %w", t.ID, err)
	}
	j := &job{Task: t}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return fmt.Errorf("submit task %s: the scheduler has stopped", t.ID)
	}
	s.adopt(j)
	now := time.Now()
	s.enqueue(j, now)
	s.dispatch(now)
	return nil
}

// Remove takes a task out. A round that runs is cancelled; Remove returns when it has ended, or with ctx's error. A task
// that is not there is no error.
func (s *Scheduler) Remove(ctx context.Context, id string) error {
	select {
	case <-s.Drop(id):
		return nil
	case <-ctx.Done():
		return fmt.Errorf("remove task %s: its round does not end: %w", id, ctx.Err())
	}
}

// Drop is Remove that does not wait: what it returns is closed when the task's round, which is cancelled, has ended.
func (s *Scheduler) Drop(id string) (idle <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	over := make(chan struct{})
	j := s.jobs[id]
	if j == nil || j.round == nil {
		close(over)
	} else {
		j.record.idle = over
	}
	if j != nil {
		delete(s.jobs, id)
		s.drop(j)
		if j.round != nil {
			s.cancel(j.round, context.Canceled)
		}
	}
	return over
}

// drop ends j: it begins no more. A round that exists goes on.
func (s *Scheduler) drop(j *job) {
	j.removed = true
	s.due.remove(&j.due)
	s.limits.remove(j)
	if j.round == nil {
		s.limits.leave(j.lane)
	}
}

// Trigger makes a task due now, even if its breaker is open. If a round waits or runs already, another follows it.
func (s *Scheduler) Trigger(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	j := s.jobs[id]
	if j == nil {
		return fmt.Errorf("trigger task %s: there is none", id)
	}
	if j.due.place == 0 {
		j.again = true
		return nil
	}
	now := time.Now()
	j.at, j.delay, j.sure = now, 0, true
	s.plan(j, now)
	return nil
}

// Pause keeps new rounds from starting. Those that run go on.
func (s *Scheduler) Pause() { s.setPaused(true) }

// Resume ends a Pause. What was due meanwhile is treated as Task.Missed says.
func (s *Scheduler) Resume() { s.setPaused(false) }

func (s *Scheduler) setPaused(paused bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paused = paused
	s.dispatch(time.Now())
}

// Counters count the rounds of a task since it was added.
type Counters struct {
	Rounds      int // that have ended
	Failures    int // of those, with an error, timeouts included
	Timeouts    int
	Preemptions int // slots given up to others at creel.Yield, and rounds cancelled to begin anew
	Skipped     int // rounds that were due and not made up for
}

func (c *Counters) add(r Round, timedOut bool) {
	c.Rounds++
	c.Skipped += r.Skipped
	if r.Err != nil {
		c.Failures++
	}
	if timedOut {
		c.Timeouts++
	}
}

// Status is how a task is. Times that do not apply are zero.
type Status struct {
	ID      string
	Running bool          // or waiting for a slot, to begin or to go on
	Next    time.Time     // when the round is due, with its jitter: the next one, or the one that waits or runs
	Waiting time.Time     // since when it waits for a slot
	Started time.Time     // when the round that exists began
	Parked  bool          // it is blocked, and owns no slot
	Stuck   bool          // it was cancelled, does not return, and lost its slot
	Busy    time.Duration // how long its rounds have owned a slot since it was added
	// Priority is that in effect now: raised by waiting, and by those that wait for what the round holds. It may be over 9.
	Priority float64
	Breaker  Breaker
	Counters
	Last Round
}

// Breaker is how a task's breaker is.
type Breaker struct {
	Open   bool
	Until  time.Time // then the next probe may begin
	Reason string
}

// Tasks returns the status of every task that was added, sorted by id.
func (s *Scheduler) Tasks() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Status, 0, len(s.jobs))
	for _, j := range s.jobs {
		list = append(list, s.status(j, s.rank(time.Now())))
	}
	slices.SortFunc(list, func(a, b Status) int { return strings.Compare(a.ID, b.ID) })
	return list
}

func (s *Scheduler) status(j *job, now int64) Status {
	p, b := j.record, &j.record.breaker
	st := Status{
		ID: j.ID, Running: j.due.place == 0, Next: j.at.Add(j.delay), Busy: p.busy, Counters: p.counts, Last: p.last,
		Breaker: Breaker{Open: b.rest > 0, Until: b.until, Reason: b.reason},
	}
	urgency := s.priority(j.Priority)
	waits := j.wait.place > 0
	if r := j.round; r != nil {
		st.Started, st.Parked, st.Stuck = r.began, r.state == parked, r.state == stuck
		waits = r.state == resuming
		if r.state == running {
			st.Busy += time.Duration(now - r.slotted)
		}
	}
	if waits {
		st.Waiting = s.base.Add(time.Duration(j.asked))
		urgency = now - j.order.rank
	}
	if j.round != nil {
		if heir := j.heir(); heir != nil {
			urgency = max(urgency, now-heir.order.rank)
		}
	}
	st.Priority = float64(urgency) / float64(s.Ageing)
	return st
}

// Load is how busy a Scheduler is, in rounds.
type Load struct {
	Waiting int // to begin
	Running int // in a slot
	Parked  int // begun, without a slot: blocked, or waiting to go on
	Stuck   int // cancelled, and not returned in time; each keeps a goroutine, and its class and key
}

// Load tells how busy s is, with what was submitted.
func (s *Scheduler) Load() Load {
	s.mu.Lock()
	defer s.mu.Unlock()
	busy := s.Slots - s.free
	return Load{Waiting: s.limits.waiting, Running: busy, Parked: len(s.rounds) - busy - s.stuck, Stuck: s.stuck}
}
