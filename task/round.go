package task

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// A round that exists holds its class and key, and is in one of these states. It owns a slot while it runs.
type state uint8

const (
	running  state = iota
	parked         // it is blocked, or ends without a slot because its context is done
	resuming       // it waits for a slot to go on
	stuck          // it was cancelled and has not returned in time
	ended
)

// round is one run of a task, and the Yielder in its context. The scheduler's mu guards it. It may be asked by several
// goroutines of the round, and by some that outlive it.
type round struct {
	s         *Scheduler
	job       *job
	made      atomic.Pointer[made] // its context; nil: it has not asked for anything yet
	cause     error                // of its being cancelled
	began     time.Time
	index     int // in Scheduler.rounds
	state     state
	blocked   int // goroutines between Park and Unpark
	cancelled bool
	vacates   bool          // it is counted in Scheduler.vacating
	slotted   int64         // since when it has its slot
	left      time.Duration // of its timeout
	timeout   *time.Timer
	patience  *time.Timer   // after which it is stuck
	resume    chan struct{} // closed when it need not wait for a slot any more; made when it must
}

// begin starts a round of j, which waits and may have a slot.
func (s *Scheduler) begin(j *job, now time.Time) *round {
	s.limits.take(j)
	j.waited += s.rank(now) - j.asked
	j.sure = true
	r := &round{s: s, job: j, began: now, left: j.Timeout, index: len(s.rounds)}
	j.round = r
	s.rounds = append(s.rounds, r)
	s.take(r, now)
	return r
}

// take gives r a slot, vacate takes it back.
func (s *Scheduler) take(r *round, now time.Time) {
	s.free--
	r.state, r.slotted = running, s.rank(now)
	if r.job.Preempt == Restart {
		s.victims = append(s.victims, r)
	}
	switch {
	case r.job.Timeout == 0 || r.cancelled:
	case r.timeout == nil:
		r.timeout = time.AfterFunc(r.left, r.expire)
	default:
		r.timeout.Reset(r.left)
	}
}

func (s *Scheduler) vacate(r *round, now time.Time, to state) {
	s.free++
	r.state = to
	if r.job.record != nil {
		r.job.record.busy += time.Duration(s.rank(now) - r.slotted)
	}
	if r.job.Preempt == Restart {
		i := slices.Index(s.victims, r)
		s.victims = slices.Delete(s.victims, i, i+1)
	}
	if r.vacates {
		r.vacates = false
		s.vacating--
	}
	if r.timeout != nil {
		r.timeout.Stop()
		r.left = max(0, r.left-time.Duration(s.rank(now)-r.slotted))
	}
}

// grant lets r, which waits for a slot, go on in one.
func (s *Scheduler) grant(r *round, now time.Time) {
	s.forget(r)
	s.take(r, now)
}

// forget ends r's wait for a slot.
func (s *Scheduler) forget(r *round) {
	i := slices.Index(s.resuming, r)
	s.resuming = slices.Delete(s.resuming, i, i+1)
	close(r.resume)
}

func (r *round) expire() {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	if r.state == running {
		r.s.cancel(r, ErrTimeout)
	}
}

// cancel ends r's context, and its slot if r does not return.
func (s *Scheduler) cancel(r *round, cause error) {
	if r.cancelled {
		return
	}
	r.cancelled, r.cause = true, cause
	r.done(cause)
	r.patience = time.AfterFunc(s.Abandon, r.abandon)
}

func (r *round) abandon() {
	s := r.s
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	switch r.state {
	case ended:
		return
	case running:
		s.vacate(r, now, stuck)
	case resuming:
		s.forget(r)
	}
	r.state = stuck
	s.stuck++
	s.settle()
	s.dispatch(now)
}

// work runs r, and then what is to begin when it has ended.
func (r *round) work() {
	for r != nil {
		r = r.turn()
	}
}

// turn runs r, and returns a round that has begun and is to be run by this worker, if any.
func (r *round) turn() *round {
	returned := false
	defer func() {
		if returned {
			return
		}
		if next := r.end(errExit); next != nil { // this goroutine cannot run it
			r.s.mu.Lock()
			r.s.launch(next)
			r.s.mu.Unlock()
		}
	}()
	err := protect(func() error { return r.job.Run((*lazy)(r)) })
	if err != nil {
		switch r.cancelledFor() {
		case ErrPreempted:
			if next, again := r.restart(); again {
				returned = true
				return next
			}
		case ErrTimeout:
			err = fmt.Errorf("%w: %w", ErrTimeout, err)
		}
	}
	next := r.end(err)
	returned = true
	return next
}

// cancelledFor returns why r was cancelled; nil if it was not.
func (r *round) cancelledFor() error {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	return r.cause
}

// restart queues r's job again, unless it is to end.
func (r *round) restart() (next *round, again bool) {
	s, j := r.s, r.job
	s.mu.Lock()
	defer s.mu.Unlock()
	if j.removed || s.stopping {
		return nil, false
	}
	now := time.Now()
	s.close(r, now)
	if j.record != nil {
		j.record.counts.Preemptions++
	}
	s.enqueue(j, now)
	return s.assignOne(now), true
}

// end settles what r has done, and plans what comes next. Plan and Done are outside of the lock: the job is r's alone, but
// for what Trigger and Drop leave there.
func (r *round) end(err error) *round {
	s, j := r.s, r.job
	now := time.Now()
	result := Round{Start: r.began, Took: now.Sub(r.began), Err: err}
	var at time.Time // zero: never
	if j.recurs() {
		at, result.Skipped = j.next(now, s.wall().Round(0))
	}
	if j.Done != nil {
		if e := protect(func() error { j.Done(result); return nil }); e != nil {
			result.Err = errors.Join(err, e)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.close(r, now)
	if p := j.record; p != nil {
		timedOut := errors.Is(result.Err, ErrTimeout) && r.cause == ErrTimeout
		p.last = result
		p.counts.add(result, timedOut)
		p.breaker.note(&s.Options, now, timedOut, result.Err)
		if p.idle != nil {
			close(p.idle)
			p.idle = nil
		}
	}
	j.waited, j.sure = 0, false
	s.again(j, now, at)
	return s.assignOne(now)
}

// assignOne is dispatch for a worker, which runs one of the rounds itself.
func (s *Scheduler) assignOne(now time.Time) *round {
	mine := s.assign(now)
	if mine != nil {
		s.dispatch(now)
	}
	return mine
}

// close takes from r all that it holds.
func (s *Scheduler) close(r *round, now time.Time) {
	switch r.state {
	case running:
		s.vacate(r, now, ended)
	case resuming:
		s.forget(r)
	case stuck:
		s.stuck--
	}
	r.state = ended
	r.done(nil)
	if r.patience != nil {
		r.patience.Stop()
	}
	last := len(s.rounds) - 1
	s.rounds[r.index] = s.rounds[last]
	s.rounds[r.index].index = r.index
	s.rounds[last] = nil
	s.rounds = s.rounds[:last]
	s.limits.release(r.job)
	r.job.round = nil
	s.settle()
}

// again plans j's next round, which is due at at, or not at all if that is zero.
func (s *Scheduler) again(j *job, now, at time.Time) {
	switch {
	case j.removed:
		s.limits.leave(j.lane)
		return
	case j.again:
		j.at, j.delay, j.again, j.sure = now, 0, false, true
		s.plan(j, now)
		return
	}
	clock := now
	if j.Schedule != nil {
		clock = s.wall().Round(0)
	}
	if p := j.record; p != nil && p.breaker.rest > 0 {
		var skipped int
		at, skipped = j.notBefore(at, clock.Add(p.breaker.until.Sub(now)))
		p.counts.Skipped += skipped
	}
	if at.IsZero() {
		j.removed = true
		if s.jobs[j.ID] == j {
			delete(s.jobs, j.ID)
		}
		s.limits.leave(j.lane)
		return
	}
	if j.late++; !at.Before(clock) {
		j.late = 0
	}
	j.at = at
	j.delay = j.chance(s.Seed)
	s.plan(j, now)
}

// Yield implements creel.Yielder. It gives the slot up if the slice is used up and somebody waits who is due, or if
// somebody more urgent waits.
func (r *round) Yield(ctx context.Context) error {
	s, j := r.s, r.job
	now := time.Now()
	s.mu.Lock()
	if r.state != running || !s.mustYield(r, s.rank(now)) {
		s.mu.Unlock()
		return ctx.Err()
	}
	s.vacate(r, now, parked)
	if j.record != nil {
		j.record.counts.Preemptions++
	}
	s.dispatch(now) // before r waits itself
	s.mu.Unlock()
	return r.regain(ctx)
}

func (s *Scheduler) mustYield(r *round, now int64) bool {
	begins, goesOn, first := s.next()
	if begins == nil && goesOn == nil {
		return false
	}
	need := r.job.Priority + 1
	if now-r.slotted >= int64(s.Slice) {
		need = r.job.Priority
	}
	if now-s.priority(need) < first.rank {
		return false
	}
	heir := r.job.heir()
	return heir == nil || first.before(heir.order)
}

// Park implements creel.Yielder.
func (r *round) Park() {
	s := r.s
	s.mu.Lock()
	defer s.mu.Unlock()
	r.blocked++
	if r.state == running {
		now := time.Now()
		s.vacate(r, now, parked)
		s.dispatch(now)
	}
}

// Unpark implements creel.Yielder. While another goroutine of the round is blocked, the round owns no slot.
func (r *round) Unpark(ctx context.Context) error {
	r.s.mu.Lock()
	r.blocked--
	others := r.blocked > 0
	r.s.mu.Unlock()
	if others {
		return ctx.Err()
	}
	return r.regain(ctx)
}

// regain returns when r has a slot, or with ctx's error.
func (r *round) regain(ctx context.Context) error {
	s := r.s
	for {
		s.mu.Lock()
		if r.state == parked {
			now := time.Now()
			r.state, r.resume = resuming, make(chan struct{})
			r.job.asked = s.rank(now)
			r.job.order = s.order(r.job.asked - s.priority(r.job.Priority))
			s.resuming = append(s.resuming, r)
			s.dispatch(now)
		}
		waits, granted := r.state == resuming, r.resume
		s.mu.Unlock()
		if !waits {
			return ctx.Err()
		}
		select {
		case <-granted:
			continue
		case <-ctx.Done():
		}
		s.mu.Lock()
		if r.state == resuming && r.resume == granted {
			s.forget(r)
			r.state = parked
		}
		s.mu.Unlock()
		return ctx.Err()
	}
}
