// Package task is the local scheduler: it runs rounds of work on a few slots.
//
// A Task is due by an interval or a Schedule. A round that is due waits, most urgent first: by priority, which rises with
// waiting, then by age. To begin, it takes a place of its Class and its Key at once, keeps both until it ends, and gets a
// slot. It gives the slot up while it is blocked (creel.Blocking) and, where it calls creel.Yield, to the more urgent and,
// once its time slice is used up, to its equals; a task with Preempt: Restart is cancelled for the more urgent instead,
// and begins again. Whoever holds a class or key that others wait for is as urgent as the most urgent of them.
// A round that exceeds its timeout is cancelled; if it does not return, its slot (never its class and key) goes to others.
// A task whose rounds keep exceeding it rests: its breaker is open until a probe succeeds.
// Rounds run on a Pool: a goroutine for each that has begun, none for those that wait, nothing at all at rest.
// Intervals, slices and timeouts are measured by the monotonic clock, and setting the wall clock does not touch them;
// Schedules follow the wall clock, which is looked at once a minute at least.
// Nothing is remembered across restarts. What a task wants to keep is in its creel.State, whose Save is compare-and-swap:
// of two owners of one task, the stale one is refused there.
//
// The package knows nothing of collectors or pipelines. Time is the time package's, so that tests run it in a synctest
// bubble.
package task

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"
)

// A Task is work that is done in rounds.
type Task struct {
	ID       string                      // unique in the scheduler
	Every    time.Duration               // between the starts of two rounds, the first of which is due at once; 0: one round only
	Schedule Schedule                    // when rounds are due, instead of Every; nil: Every counts
	Jitter   time.Duration               // each round is due later by a chance amount below it, made of Options.Seed, ID and time
	Missed   Missed                      // what becomes of rounds that could not begin in time
	Priority int                         // from 0 to 9; 9 goes first. Waiting raises it, by 1 every Options.Ageing
	Preempt  Preempt                     // how it makes way for the more urgent
	Timeout  time.Duration               // of one round, without the time that it owns no slot; 0: none
	Class    string                      // of which no more rounds exist at the same time than Options.Classes says
	Key      string                      // rounds with the same key never exist at the same time; "": no such rule
	Run      func(context.Context) error // one round. It must return soon after the context is done
	Done     func(Round)                 // is told after each round; may be nil. It must be quick and not call the scheduler
}

// Preempt is how a running round makes way for a more urgent one.
type Preempt uint8

// The ways to make way.
const (
	PreemptYield Preempt = iota // at creel.Yield it waits until it has a slot again
	Restart                     // it is cancelled with ErrPreempted, and begins anew later: for rounds that emit at their end only
)

// A Round is what happened once.
type Round struct {
	Start   time.Time
	Took    time.Duration
	Err     error // of Run; a *PanicError if it panicked; context.Cause is ErrTimeout after a timeout
	Skipped int   // rounds that were due since and are not made up for; see Missed
}

// The causes with which a round's context is cancelled.
var (
	ErrTimeout   = errors.New("round took longer than its timeout")
	ErrPreempted = errors.New("round makes way for a more urgent one, and begins anew")
	ErrStopped   = errors.New("the scheduler stops")
)

var errExit = errors.New("round ended its goroutine instead of returning")

// Options size a Scheduler. Zero means the default.
type Options struct {
	Slots   int            // rounds that run at the same time; default twice the number of CPUs that Go uses
	Workers int            // rounds that exist at the same time, with parked and stuck ones; default 1024, at least Slots
	Slice   time.Duration  // how long a round may keep its slot while an equal waits; default 100 ms
	Ageing  time.Duration  // how long a waiting round takes to rise by one priority; default 30 s
	Classes map[string]int // rounds of a class that exist at the same time, at least 1; classes not listed are unlimited
	Trip    int            // timeouts in a row that open a task's breaker; default 3, negative: never
	Rest    time.Duration  // of a task whose breaker opened; doubles with each failed probe to at most 1 h; default 1 min
	Abandon time.Duration  // how long a cancelled round may take to return before its slot goes to others; default 30 s
	Seed    uint64         // of Jitter
}

// A Scheduler runs tasks. Its methods may be called concurrently, and before Run.
type Scheduler struct {
	Options

	base time.Time        // ranks are nanoseconds since, by the monotonic clock
	wall func() time.Time // the wall clock
	pool *Pool

	mu       sync.Mutex
	jobs     map[string]*job // those that were added
	due      heap[job]       // jobs whose time has not come
	limits   limits          // rounds that wait to begin
	resuming []*round        // rounds that wait for a slot to go on
	rounds   []*round        // that exist
	victims  []*round        // running ones that may be cancelled for others
	seq      uint64          // of the last order
	free     int             // slots
	stuck    int             // rounds
	vacating int             // victims that were cancelled and still own their slots
	started  bool
	paused   bool
	stopping bool
	quiet    chan struct{} // closed when no round exists but stuck ones; nil: nobody wants to know
	wake     chan struct{} // has one element when the head of due changed
}

// job is a task in the scheduler: it is in due, or one round of it waits, or exists. While it waits it is all there is.
type job struct {
	Task
	lane    *lane
	due     node[job]
	wait    node[job]
	order   order         // of the waiting round
	asked   int64         // since when it waits for its slot
	waited  int64         // what this round has waited before, in nanoseconds: for those that begin anew
	at      time.Time     // when the round is, or the next is, due
	delay   time.Duration // that Jitter adds
	round   *round        // that exists; nil: none
	record  *record       // nil: the job was submitted, nobody asks
	late    int           // rounds in a row that were due before the one before them had ended
	sure    bool          // triggered, or begun: not to be skipped
	again   bool          // triggered meanwhile
	removed bool
}

// record is what is remembered of the rounds of a task.
type record struct {
	last    Round
	counts  Counters
	busy    time.Duration // that slots were owned until the last was given back
	breaker breaker
	idle    chan struct{} // closed when the round has ended; nil: nobody waits
}

// New returns a Scheduler that does nothing until Run is called.
func New(o Options) *Scheduler {
	if o.Slots <= 0 {
		o.Slots = 2 * runtime.GOMAXPROCS(0)
	}
	if o.Workers <= 0 {
		o.Workers = 1024
	}
	o.Workers = max(o.Workers, o.Slots)
	for _, d := range []struct {
		of  *time.Duration
		def time.Duration
	}{{&o.Slice, 100 * time.Millisecond}, {&o.Ageing, 30 * time.Second}, {&o.Rest, time.Minute}, {&o.Abandon, 30 * time.Second}} {
		if *d.of <= 0 {
			*d.of = d.def
		}
	}
	if o.Trip == 0 {
		o.Trip = 3
	}
	return &Scheduler{
		Options: o, base: time.Now(), wall: time.Now, jobs: make(map[string]*job), limits: newLimits(o.Classes), free: o.Slots,
		pool: NewPool(PoolOptions{Workers: o.Workers, Queue: o.Workers}), // the queue is for work whose worker is just ending another
		wake: make(chan struct{}, 1),
	}
}

// Run starts rounds when they are due, until ctx is done; then it cancels those that exist and waits for them, but not for
// those that do not return within Options.Abandon.
func (s *Scheduler) Run(ctx context.Context) error {
	s.mu.Lock()
	s.started = true
	s.dispatch(time.Now()) // what was submitted before
	s.mu.Unlock()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		s.mu.Lock()
		wait, some := s.promote(time.Now())
		s.mu.Unlock()
		if some {
			timer.Reset(wait)
		} else {
			timer.Stop()
		}
		select {
		case <-timer.C:
		case <-s.wake:
		case <-ctx.Done():
			s.stop()
			return ctx.Err()
		}
	}
}

func (s *Scheduler) stop() {
	over, cancel := context.WithCancel(context.Background())
	cancel()
	_ = s.Drain(over) // it tells of what was cancelled
	_ = s.pool.Close(over)
}

// Drain ends everything: no further round begins, those that wait to begin are dropped, those that exist go on until they
// end, or ctx is done, when they are cancelled with ErrStopped. It returns when none is left, but for those that did not
// return within Options.Abandon. The error tells of those that were cancelled. Afterwards the scheduler takes nothing in.
func (s *Scheduler) Drain(ctx context.Context) error {
	s.mu.Lock()
	s.stopping = true
	for _, j := range s.jobs {
		s.drop(j)
	}
	clear(s.jobs)
	for _, j := range s.limits.all() { // that were submitted
		s.drop(j)
	}
	if s.quiet == nil {
		s.quiet = make(chan struct{})
	}
	quiet := s.quiet
	s.settle()
	s.mu.Unlock()
	select {
	case <-quiet:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	n := len(s.rounds)
	for _, r := range s.rounds {
		s.cancel(r, ErrStopped)
	}
	s.mu.Unlock()
	<-quiet
	s.mu.Lock()
	defer s.mu.Unlock()
	if n == 0 {
		return nil
	}
	return fmt.Errorf("drain tasks: %d rounds were cancelled, %d of them do not return: %w", n, s.stuck, context.Cause(ctx))
}

// settle tells those who wait for it that no round is left but stuck ones.
func (s *Scheduler) settle() {
	if s.quiet != nil && len(s.rounds) == s.stuck {
		close(s.quiet)
		s.quiet = nil
	}
}

// promote lets rounds that are due wait for a slot, and returns how long until the next is due, if any.
func (s *Scheduler) promote(now time.Time) (wait time.Duration, some bool) {
	for !s.due.empty() {
		o, j := s.due.first()
		if wait := o.rank - s.rank(now); wait > 0 {
			s.dispatch(now)
			return time.Duration(wait), true
		}
		if j.Schedule != nil && !j.sure && j.at.Add(j.delay).After(s.wall()) {
			s.plan(j, now) // the wall clock says otherwise
			continue
		}
		s.due.remove(&j.due)
		s.enqueue(j, now)
	}
	s.dispatch(now)
	return 0, false
}

// rank is a time as a number.
func (s *Scheduler) rank(t time.Time) int64 { return int64(t.Sub(s.base)) }

// priority is a priority as the time by which it lets a round go ahead. Priorities that grow with time at one speed keep
// their order, so the rank of a waiting round is constant.
func (s *Scheduler) priority(n int) int64 { return int64(n) * int64(s.Ageing) }

func (s *Scheduler) order(rank int64) order {
	s.seq++
	return order{rank, s.seq}
}

// enqueue makes a new round of j wait for a slot.
func (s *Scheduler) enqueue(j *job, now time.Time) {
	j.asked = s.rank(now)
	j.order = s.order(j.asked - j.waited - s.priority(j.Priority))
	s.limits.push(j)
}

// plan puts j where it waits until it is due.
func (s *Scheduler) plan(j *job, now time.Time) {
	rank := s.rank(j.at) + int64(j.delay)
	if j.Schedule != nil && !j.sure {
		rank = s.rank(now) + int64(min(look, j.at.Add(j.delay).Sub(s.wall().Round(0))))
	}
	s.due.put(&j.due, s.order(rank))
	if _, first := s.due.first(); first == j {
		s.kick()
	}
}

func (s *Scheduler) kick() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// dispatch gives free slots to those that wait for one, in their order.
func (s *Scheduler) dispatch(now time.Time) {
	for r := s.assign(now); r != nil; r = s.assign(now) {
		s.launch(r)
	}
}

func (s *Scheduler) launch(r *round) {
	if err := s.pool.TrySubmit(r.work); err != nil {
		panic(fmt.Sprintf("BUG: %d rounds of %d, and yet: %v", len(s.rounds), s.Workers, err))
	}
}

// assign gives free slots to those that go on, in their order, until it comes to a round that is to begin: that it returns,
// in its slot, for the caller to run.
func (s *Scheduler) assign(now time.Time) *round {
	for s.free > 0 {
		begins, goesOn, _ := s.next()
		switch {
		case goesOn != nil:
			s.grant(goesOn, now)
		case begins == nil:
			return nil
		case begins.Missed == MissedSkip && begins.tooLate(now, s.wall()):
			s.limits.remove(begins)
			at, skipped := begins.next(now, s.wall())
			begins.record.counts.Skipped += skipped + 1
			s.again(begins, now, at)
		default:
			return s.begin(begins, now)
		}
	}
	s.preempt(now)
	return nil
}

// next returns who is to have the next slot, to begin or to go on, and its order; two nils if nobody may have one.
func (s *Scheduler) next() (begins *job, goesOn *round, o order) {
	for _, r := range s.resuming {
		mine := r.job.order
		if heir := r.job.heir(); heir != nil && heir.order.before(mine) {
			mine = heir.order
		}
		if goesOn == nil || mine.before(o) {
			goesOn, o = r, mine
		}
	}
	if !s.started || s.paused || s.stopping || len(s.rounds) >= s.Workers {
		return nil, goesOn, o
	}
	if j := s.limits.first(); j != nil && (goesOn == nil || j.order.before(o)) {
		return j, nil, j.order
	}
	return nil, goesOn, o
}

// preempt cancels one victim if somebody more urgent has no slot. What a victim had to wait, before it began at last,
// counts for it and, other than by waiting in the queue, nobody becomes more urgent than it: so it is not cancelled for
// ever.
func (s *Scheduler) preempt(now time.Time) {
	if len(s.victims) == 0 || s.vacating > 0 {
		return
	}
	begins, goesOn, _ := s.next()
	if goesOn != nil {
		begins = goesOn.job
	}
	if begins == nil {
		return
	}
	var victim *round
	least := s.urgency(begins) - begins.waited
	for _, r := range s.victims {
		if u := s.urgency(r.job); !r.cancelled && u < least {
			victim, least = r, u
		}
	}
	if victim != nil {
		victim.vacates = true
		s.vacating++
		s.cancel(victim, ErrPreempted)
	}
}

// urgency is the priority of j, or of who waits for what it holds, and what it had to wait before it began.
func (s *Scheduler) urgency(j *job) int64 {
	u := s.priority(j.Priority)
	if j.round != nil {
		if heir := j.heir(); heir != nil {
			u = max(u, s.priority(heir.Priority))
		}
	}
	return u + j.waited
}
