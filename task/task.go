// Package task schedules rounds of work: a queue by priority and due time, a few slots, time slices. A running round
// owns a slot; it gives it up while it is blocked (creel.Blocking) and, to those that have waited long enough or are
// more urgent, where it calls creel.Yield.
//
// The package knows nothing of collectors or pipelines. Time is the time package's, so that tests run it in a synctest
// bubble.
package task

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/creelhq/creel"
)

// A Task is work that is done in rounds.
type Task struct {
	ID       string                      // unique in the scheduler
	Every    time.Duration               // between the starts of two rounds; 0: one round only
	Priority int                         // from 0 to 9; 9 goes first. Waiting raises it, by 1 every Options.Ageing
	Timeout  time.Duration               // of one round, without the time that it owns no slot; 0: none
	Key      string                      // rounds with the same key never run at the same time; "": no such rule
	Run      func(context.Context) error // one round. It must return soon after the context is done
	Done     func(Round)                 // is told after each round; may be nil. It must be quick and not call the scheduler
}

// A Round is what happened once.
type Round struct {
	Start   time.Time
	Took    time.Duration
	Err     error // of Run; context.Cause is ErrTimeout after a timeout
	Skipped int   // rounds that were due since, while this one was still running or waiting
}

// ErrTimeout is the cause of the cancellation when a round takes longer than its Timeout.
var ErrTimeout = errors.New("round took longer than its timeout")

// Options size a Scheduler. Zero means the default.
type Options struct {
	Slots  int           // rounds that run at the same time; default twice the number of CPUs that Go uses
	Slice  time.Duration // how long a round may keep its slot while an equal waits; default 100 ms
	Ageing time.Duration // how long a waiting round takes to rise by one priority; default 30 s
}

// A Scheduler runs tasks. Its methods may be called concurrently, and before Run.
type Scheduler struct {
	Options

	mu      sync.Mutex
	jobs    map[string]*job
	due     timeline            // jobs whose time has not come
	ready   queue               // rounds that wait for a slot, new or to go on
	blocked map[string][]*entry // new rounds that wait for their key
	keys    map[string]bool     // in use
	free    int                 // slots
	started bool
	paused  bool
	stopped bool
	wake    chan struct{} // has one element when the timeline changed
	running sync.WaitGroup
}

// job is a task in the scheduler.
type job struct {
	Task
	at      time.Time // when the next round is due
	index   int       // in the timeline, -1 if not there
	removed bool
	active  bool // a round waits or runs
	again   bool // triggered meanwhile
	cancel  context.CancelFunc
	idle    chan struct{} // closed when no round waits or runs; nil unless active
	last    Round
	rounds  int
}

// entry is a round that waits for a slot.
type entry struct {
	job    *job
	rank   time.Time     // since when it waits, less its priority in ageing time: the least goes first
	resume chan struct{} // nil: a new round; else closed when a parked one has its slot back
	gone   bool
}

// New returns a Scheduler that does nothing until Run is called.
func New(o Options) *Scheduler {
	if o.Slots <= 0 {
		o.Slots = 2 * runtime.GOMAXPROCS(0)
	}
	if o.Slice <= 0 {
		o.Slice = 100 * time.Millisecond
	}
	if o.Ageing <= 0 {
		o.Ageing = 30 * time.Second
	}
	return &Scheduler{
		Options: o, jobs: make(map[string]*job), blocked: make(map[string][]*entry), keys: make(map[string]bool),
		free: o.Slots, wake: make(chan struct{}, 1),
	}
}

// Run starts rounds when they are due, until ctx is done; then it cancels those that run and waits for them.
func (s *Scheduler) Run(ctx context.Context) error {
	s.mu.Lock()
	s.started = true
	s.dispatch()
	s.mu.Unlock()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		s.mu.Lock()
		wait := s.promote(time.Now())
		s.dispatch()
		s.mu.Unlock()
		timer.Reset(wait)
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
	s.mu.Lock()
	s.stopped = true
	for _, j := range s.jobs {
		s.drop(j)
	}
	s.mu.Unlock()
	s.running.Wait()
}

// promote makes rounds that are due ready, and returns how long until the next is.
func (s *Scheduler) promote(now time.Time) time.Duration {
	for len(s.due) > 0 {
		j := s.due[0]
		if wait := j.at.Sub(now); wait > 0 {
			return wait
		}
		heap.Pop(&s.due)
		s.enqueue(j, now)
	}
	return time.Hour
}

// enqueue makes a new round of j wait for a slot.
func (s *Scheduler) enqueue(j *job, now time.Time) {
	j.active, j.idle = true, make(chan struct{})
	heap.Push(&s.ready, s.entry(j, now, nil))
}

func (s *Scheduler) entry(j *job, now time.Time, goOn chan struct{}) *entry {
	return &entry{job: j, rank: s.rank(now, j.Priority), resume: goOn}
}

// rank orders waiting rounds. Priorities that grow with time at one speed keep their order, so the rank is constant.
func (s *Scheduler) rank(since time.Time, priority int) time.Time {
	return since.Add(-time.Duration(priority) * s.Ageing)
}

// Add takes a task in. Its first round is due at once.
func (s *Scheduler) Add(t Task) error {
	switch {
	case t.ID == "" || t.Run == nil:
		return errors.New("add task: needs an id and something to run")
	case t.Every < 0 || t.Timeout < 0 || t.Priority < 0 || t.Priority > 9:
		return fmt.Errorf("add task %s: interval and timeout must not be negative, priority must be from 0 to 9", t.ID)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return fmt.Errorf("add task %s: the scheduler has stopped", t.ID)
	}
	if s.jobs[t.ID] != nil {
		return fmt.Errorf("add task %s: there is one already", t.ID)
	}
	j := &job{Task: t, at: time.Now(), index: -1}
	s.jobs[t.ID] = j
	heap.Push(&s.due, j)
	s.kick()
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
	if j := s.jobs[id]; j != nil {
		delete(s.jobs, id)
		idle = s.drop(j)
	}
	if idle == nil {
		over := make(chan struct{})
		close(over)
		idle = over
	}
	return idle
}

// drop ends j: it starts no more, and what runs is cancelled. It returns what to wait for, nil if nothing runs.
func (s *Scheduler) drop(j *job) <-chan struct{} {
	j.removed = true
	if j.index >= 0 {
		heap.Remove(&s.due, j.index)
	}
	if !j.active {
		return nil
	}
	if j.cancel != nil {
		j.cancel()
		return j.idle
	}
	// It waits for its slot or key; the queues pass over it.
	j.active = false
	close(j.idle)
	return nil
}

// Trigger makes a task due now. If a round waits or runs already, another follows it.
func (s *Scheduler) Trigger(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	j := s.jobs[id]
	if j == nil {
		return fmt.Errorf("trigger task %s: there is none", id)
	}
	if j.active {
		j.again = true
		return nil
	}
	j.at = time.Now()
	heap.Fix(&s.due, j.index)
	s.kick()
	return nil
}

// Pause keeps new rounds from starting. Those that run go on.
func (s *Scheduler) Pause() { s.setPaused(true) }

// Resume ends a Pause. Rounds that were due meanwhile run once.
func (s *Scheduler) Resume() { s.setPaused(false) }

func (s *Scheduler) setPaused(paused bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paused = paused
	s.dispatch()
}

// Status is how a task is.
type Status struct {
	ID      string
	Running bool // or waiting for a slot
	Next    time.Time
	Rounds  int // that have ended
	Last    Round
}

// Tasks returns the status of every task, sorted by id.
func (s *Scheduler) Tasks() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Status
	for _, j := range s.jobs {
		list = append(list, Status{ID: j.ID, Running: j.active, Next: j.at, Rounds: j.rounds, Last: j.last})
	}
	slices.SortFunc(list, func(a, b Status) int { return strings.Compare(a.ID, b.ID) })
	return list
}

func (s *Scheduler) kick() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// dispatch gives free slots to those that wait for one, in their order. mu is held.
func (s *Scheduler) dispatch() {
	for s.free > 0 {
		e := s.next()
		if e == nil {
			return
		}
		heap.Pop(&s.ready)
		s.free--
		if e.resume != nil {
			close(e.resume)
			continue
		}
		s.startRound(e.job)
	}
}

// next returns the first entry that may have a slot, and leaves it at the head of the queue. Rounds whose key is in use
// are put aside until it is free.
func (s *Scheduler) next() *entry {
	for len(s.ready) > 0 {
		e := s.ready[0]
		j := e.job
		switch {
		case e.gone || e.resume == nil && j.removed:
			heap.Pop(&s.ready)
		case e.resume != nil:
			return e
		case !s.started || s.paused || s.stopped:
			return s.resumable()
		case j.Key != "" && s.keys[j.Key]:
			heap.Pop(&s.ready)
			s.blocked[j.Key] = append(s.blocked[j.Key], e)
		default:
			return e
		}
	}
	return nil
}

// resumable returns the first parked round, moved to the head of the queue: while new ones must not start.
func (s *Scheduler) resumable() *entry {
	var best *entry
	for _, e := range s.ready {
		if e.resume != nil && !e.gone && (best == nil || e.rank.Before(best.rank)) {
			best = e
		}
	}
	if best == nil {
		return nil
	}
	heap.Remove(&s.ready, slices.Index(s.ready, best))
	best.rank = time.Time{}
	heap.Push(&s.ready, best)
	return best
}

func (s *Scheduler) startRound(j *job) {
	if j.Key != "" {
		s.keys[j.Key] = true
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	j.cancel = func() { cancel(context.Canceled) }
	r := &round{s: s, job: j, since: time.Now(), left: j.Timeout, cancel: cancel}
	r.startClock()
	s.running.Add(1)
	go r.run(creel.WithYielder(ctx, r))
}

// A round is one run of a task, and the Yielder in its context.
type round struct {
	s      *Scheduler
	job    *job
	cancel context.CancelCauseFunc

	// What follows belongs to the round's own goroutine.
	since   time.Time     // it has its slot
	left    time.Duration // of its timeout
	timer   *time.Timer
	slotted bool
}

// startClock is called when the round has got a slot.
func (r *round) startClock() {
	r.slotted, r.since = true, time.Now()
	if r.job.Timeout > 0 {
		r.timer = time.AfterFunc(r.left, func() { r.cancel(ErrTimeout) })
	}
}

// stopClock is called when the round has given its slot up.
func (r *round) stopClock() {
	r.slotted = false
	if r.timer != nil {
		r.timer.Stop()
		r.left = max(0, r.left-time.Since(r.since))
	}
}

func (r *round) run(ctx context.Context) {
	s, j := r.s, r.job
	defer s.running.Done()
	start := time.Now()
	err := call(ctx, j.Run)
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, ErrTimeout) {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	r.cancel(nil)
	if r.timer != nil {
		r.timer.Stop()
	}
	now := time.Now()
	result := Round{Start: start, Took: now.Sub(start), Err: err, Skipped: int(j.missed(now)) - 1}
	if j.Done != nil {
		j.Done(result)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.slotted {
		s.free++
	}
	if j.Key != "" {
		delete(s.keys, j.Key)
		for _, e := range s.blocked[j.Key] {
			heap.Push(&s.ready, e)
		}
		delete(s.blocked, j.Key)
	}
	j.last = result
	j.rounds++
	s.reschedule(j, now)
	s.dispatch()
}

func call(ctx context.Context, run func(context.Context) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return run(ctx)
}

// missed returns how many rounds have become due since j's last was, at least 1: the next one.
func (j *job) missed(now time.Time) time.Duration {
	if j.Every == 0 {
		return 1
	}
	return max(1, (now.Sub(j.at)+j.Every-1)/j.Every)
}

// reschedule plans j's next round after one has ended.
func (s *Scheduler) reschedule(j *job, now time.Time) {
	j.active, j.cancel = false, nil
	close(j.idle)
	again := j.again
	j.again = false
	switch {
	case j.removed:
		return
	case again:
		j.at = now
	case j.Every == 0:
		delete(s.jobs, j.ID)
		return
	default:
		j.at = j.at.Add(j.missed(now) * j.Every)
	}
	heap.Push(&s.due, j)
	s.kick()
}

// Yield gives the slot up if the slice is used up and somebody waits who is due, or if somebody more urgent waits.
func (r *round) Yield(ctx context.Context) error {
	s := r.s
	now := time.Now()
	s.mu.Lock()
	first := s.next()
	need := r.job.Priority + 1
	if now.Sub(r.since) >= s.Slice {
		need = r.job.Priority
	}
	if first == nil || !r.slotted || s.rank(now, need).Before(first.rank) {
		s.mu.Unlock()
		return ctx.Err()
	}
	goOn := s.release(r, now)
	s.mu.Unlock()
	return r.regain(ctx, goOn)
}

// release gives r's slot up, and makes r wait for another. mu is held.
func (s *Scheduler) release(r *round, now time.Time) *entry {
	r.stopClock()
	e := s.entry(r.job, now, make(chan struct{}))
	s.free++
	s.dispatch() // before r waits itself
	heap.Push(&s.ready, e)
	s.dispatch()
	return e
}

// Park gives the slot up.
func (r *round) Park() {
	s := r.s
	s.mu.Lock()
	defer s.mu.Unlock()
	r.stopClock()
	s.free++
	s.dispatch()
}

// Unpark returns when there is a slot again, or with ctx's error.
func (r *round) Unpark(ctx context.Context) error {
	s := r.s
	s.mu.Lock()
	e := s.entry(r.job, time.Now(), make(chan struct{}))
	heap.Push(&s.ready, e)
	s.dispatch()
	s.mu.Unlock()
	return r.regain(ctx, e)
}

func (r *round) regain(ctx context.Context, e *entry) error {
	select {
	case <-e.resume:
		r.startClock()
		return ctx.Err()
	case <-ctx.Done():
	}
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	select {
	case <-e.resume: // just now
		r.startClock()
	default:
		e.gone = true
	}
	return ctx.Err()
}

// timeline is a heap of jobs by due time.
type timeline []*job

func (t timeline) Len() int           { return len(t) }
func (t timeline) Less(i, j int) bool { return t[i].at.Before(t[j].at) }
func (t timeline) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].index, t[j].index = i, j
}

// Push is for package heap.
func (t *timeline) Push(x any) {
	j := x.(*job)
	j.index = len(*t)
	*t = append(*t, j)
}

// Pop is for package heap.
func (t *timeline) Pop() any {
	last := len(*t) - 1
	j := (*t)[last]
	(*t)[last] = nil
	*t = (*t)[:last]
	j.index = -1
	return j
}

// queue is a heap of waiting rounds by rank.
type queue []*entry

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].rank.Before(q[j].rank) }
func (q queue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }

// Push is for package heap.
func (q *queue) Push(x any) { *q = append(*q, x.(*entry)) }

// Pop is for package heap.
func (q *queue) Pop() any {
	last := len(*q) - 1
	e := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return e
}
