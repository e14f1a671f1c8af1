package pipeline

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/creelhq/creel"
)

// A queue stands in front of one exporter, for as long as its id exists: a changed exporter inherits the backlog. It is
// bounded in bytes, which are reserved before a batch is admitted to the pipeline and given back when it is settled.
type queue struct {
	mu       sync.Mutex
	max      int64 // bytes
	shed     bool  // when it is full, the oldest go
	reserved int64
	room     chan struct{} // closed when room was made; nil while nobody waits
	lanes    [creel.Traces + 1]lane
	idle     int           // takers that wait for wake
	wake     chan struct{} // closed when there may be something to take
}

// A lane is what waits of one signal, oldest first: a request carries one signal.
type lane struct {
	items  []item
	bytes  int64
	waited int // items that somebody waits for
}

// item is a queued batch.
type item struct {
	b      *creel.Batch
	bytes  int64
	acct   *account
	since  time.Time
	waited bool // somebody waits for it: it must not wait for company
}

func newQueue(c Queue) *queue {
	return &queue{max: int64(c.MaxBytes), shed: c.WhenFull == dropOldest, wake: make(chan struct{})}
}

// reserve takes n bytes if there is room; an empty queue has room for anything, and so has one that sheds. If there is none, it returns a channel
// which is closed when trying again makes sense.
func (q *queue) reserve(n int64) (ok bool, room <-chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.reserved == 0 || q.reserved+n <= q.max || q.shed {
		q.reserved += n
		return true, nil
	}
	if q.room == nil {
		q.room = make(chan struct{})
	}
	return false, q.room
}

// force takes n bytes whether there is room or not: for records made on the way, which nobody can hold back.
func (q *queue) force(n int64) {
	q.mu.Lock()
	q.reserved += n
	q.mu.Unlock()
}

func (q *queue) release(n int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.reserved -= n
	if q.reserved < 0 {
		panic("BUG: more bytes released than reserved")
	}
	q.madeRoom()
}

// reconfigure changes the bound; what is in the queue stays.
func (q *queue) reconfigure(c Queue) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.max, q.shed = int64(c.MaxBytes), c.WhenFull == dropOldest
	q.madeRoom()
}

func (q *queue) madeRoom() {
	if q.room != nil {
		close(q.room)
		q.room = nil
	}
}

// push appends it. What it returns has to go because the queue is too full.
func (q *queue) push(it item) (shed []item) {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := &q.lanes[it.b.Signal()]
	l.items = append(l.items, it)
	l.count(it, 1)
	q.wakeTakers()
	for over := q.reserved - q.max; q.shed && over > 0; {
		oldest := q.oldest()
		if oldest == nil {
			break // the rest is being sent
		}
		shed = oldest.pop(0, shed)
		over -= shed[len(shed)-1].bytes
	}
	return shed
}

// oldest returns the lane of what has waited longest, nil if nothing waits.
func (q *queue) oldest() (oldest *lane) {
	for s := range q.lanes {
		if l := &q.lanes[s]; len(l.items) > 0 && (oldest == nil || l.items[0].since.Before(oldest.items[0].since)) {
			oldest = l
		}
	}
	return oldest
}

// putBack returns items, which are of one signal, to the head of the queue.
func (q *queue) putBack(items []item) {
	if len(items) == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	l := &q.lanes[items[0].b.Signal()]
	l.items = slices.Concat(items, l.items)
	for _, it := range items {
		l.count(it, 1)
	}
	q.wakeTakers()
}

func (l *lane) count(it item, sign int) {
	l.bytes += int64(sign) * it.bytes
	if it.waited {
		l.waited += sign
	}
}

func (q *queue) wakeTakers() {
	if q.idle > 0 {
		close(q.wake)
		q.wake = make(chan struct{})
	}
}

// take waits for something to send and takes it: as much as has gathered, up to the limits of one request. into is
// memory to use for the answer. It fails only when ctx is done.
func (q *queue) take(ctx context.Context, l Batching, into []item) ([]item, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		q.mu.Lock()
		items, wait := q.next(l, time.Now(), into[:0])
		if len(items) > 0 {
			q.mu.Unlock()
			return items, nil
		}
		q.idle++
		wake := q.wake
		q.mu.Unlock()
		var timer <-chan time.Time
		if wait > 0 {
			timer = time.After(wait)
		}
		select {
		case <-ctx.Done():
		case <-wake:
		case <-timer:
		}
		q.mu.Lock()
		q.idle--
		q.mu.Unlock()
	}
}

// next pops what is to be sent now, of the signal that has waited longest. If there is something but its time has not
// come, wait says when to look again.
func (q *queue) next(l Batching, now time.Time, into []item) (items []item, wait time.Duration) {
	var oldest *lane
	for s := range q.lanes {
		ln := &q.lanes[s]
		if len(ln.items) == 0 {
			continue
		}
		if left := ln.dueIn(l, now); left > 0 {
			if wait == 0 || left < wait {
				wait = left
			}
			continue
		}
		if oldest == nil || ln.items[0].since.Before(oldest.items[0].since) {
			oldest = ln
		}
	}
	if oldest == nil {
		return nil, wait
	}
	return oldest.pop(int64(l.MaxBytes), into), 0
}

// dueIn returns how long the lane may still gather company: nothing if somebody waits or a request is full.
func (l *lane) dueIn(b Batching, now time.Time) time.Duration {
	if l.waited > 0 || l.bytes >= int64(b.MaxBytes) {
		return 0
	}
	return max(0, b.MaxWait-now.Sub(l.items[0].since))
}

// pop takes the oldest items, at least one, and not more than max bytes if it can be helped.
func (l *lane) pop(max int64, into []item) []item {
	bytes := int64(0)
	for n := len(into); len(l.items) > 0 && (len(into) == n || bytes+l.items[0].bytes <= max); {
		it := l.items[0]
		bytes += it.bytes
		l.count(it, -1)
		into = append(into, it)
		l.items[0] = item{}
		l.items = l.items[1:]
	}
	return into
}

// takeAll empties the queue.
func (q *queue) takeAll() (all []item) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for s := range q.lanes {
		all = append(all, q.lanes[s].items...)
		q.lanes[s] = lane{}
	}
	return all
}

// fill returns the bytes reserved and their bound.
func (q *queue) fill() (reserved, max int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.reserved, q.max
}

// emptied waits until nothing is reserved any more, or ctx is done.
func (q *queue) emptied(ctx context.Context) error {
	for {
		q.mu.Lock()
		if q.reserved == 0 {
			q.mu.Unlock()
			return nil
		}
		if q.room == nil {
			q.room = make(chan struct{})
		}
		room := q.room
		q.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// A reservation is the owner of the ticket that gives n reserved bytes back when a batch is settled.
type reservation struct {
	q *queue
	n int64
}

// Room marks its ticket as one that is over when the records are.
func (r *reservation) Room() {}

func (r *reservation) attach(b *creel.Batch) {
	creel.Attach(b, creel.NewTicket(r, func(error) { r.q.release(r.n) }))
}
