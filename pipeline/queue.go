package pipeline

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/creelhq/creel"
)

// A queue stands in front of one exporter, for as long as its id exists: a changed exporter inherits the backlog. It is
// bounded in bytes, which are reserved before a batch is admitted to the pipeline and given back when it is settled, or in
// the disk queue.
type queue struct {
	mu       sync.Mutex
	max      int64 // bytes
	shed     bool  // when it is full, the oldest go
	reserved int64
	room     chan struct{} // closed when room was made; nil while nobody waits
	turned   any           // who was turned away, and does not wait; nil: nobody
	turnedAt time.Time
	direct   lanes         // what goes to the far side from here
	keeps    bool          // there is a disk queue
	keeping  lanes         // what goes into it first
	ready    []*parcel     // to be sent next: those that came back, and what the disk queue has just taken
	popped   time.Time     // when one of ready was last taken
	idle     int           // takers that wait for wake
	wake     chan struct{} // closed when there may be something to take
	over     bool          // nobody takes from it any more
}

type lanes [creel.Traces + 1]lane

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
	origin string // the pipeline that a dead letter first came from
	since  time.Time
	level  ackLevel
	waited bool // somebody waits for it: it must not wait for company
}

func newQueue(c Queue) *queue {
	return &queue{max: int64(c.MaxBytes), shed: c.WhenFull == dropOldest, wake: make(chan struct{})}
}

// reserve takes n bytes if there is room; an empty queue has room for anything, and so has one that sheds. If there is none, it returns a channel
// which is closed when trying again makes sense. The queue remembers who asks and does not wait.
func (q *queue) reserve(n int64, who any, waits bool) (ok bool, room <-chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.turned == who {
		if waits {
			q.turned = nil
		}
	} else if !waits && q.turned == nil {
		defer func() {
			if !ok {
				q.turned, q.turnedAt = who, time.Now()
				q.wakeTakers()
			}
		}()
	}
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

// put appends it. When the queue is too full then, and such is wanted, the oldest go.
func (q *queue) put(it item) {
	shed, over := q.push(it)
	if over {
		abandon(shed)
		return
	}
	for _, it := range shed {
		drop([]item{it}, QueueFull) // that is what was asked for
	}
}

// push appends it. What it returns has to go because the queue is too full, or over.
func (q *queue) push(it item) (shed []item, over bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.over {
		return []item{it}, true
	}
	in := &q.direct
	if q.keeps && it.level != ackDelivered {
		in = &q.keeping
	}
	l := &in[it.b.Signal()]
	l.items = append(l.items, it)
	l.count(it, 1)
	q.wakeTakers()
	for above := q.reserved - q.max; q.shed && above > 0; {
		n := len(shed)
		if shed = q.shedOldest(shed); len(shed) == n {
			break // the rest is being sent
		}
		for _, it := range shed[n:] {
			above -= it.bytes
		}
	}
	return shed, false
}

// shedOldest takes out what has waited longest, and nothing has been decided about.
func (q *queue) shedOldest(into []item) []item {
	for i, p := range q.ready {
		if p.store == nil {
			q.ready = slices.Delete(q.ready, i, i+1)
			return append(into, p.items...)
		}
	}
	oldest := q.direct.oldest()
	if o := q.keeping.oldest(); oldest == nil || o != nil && o.items[0].since.Before(oldest.items[0].since) {
		oldest = o
	}
	if oldest == nil {
		return into
	}
	return oldest.pop(0, into)
}

// oldest returns the lane of what has waited longest, nil if nothing waits.
func (ls *lanes) oldest() (oldest *lane) {
	for s := range ls {
		if l := &ls[s]; len(l.items) > 0 && (oldest == nil || l.items[0].since.Before(oldest.items[0].since)) {
			oldest = l
		}
	}
	return oldest
}

// putBack makes p what is sent next.
func (q *queue) putBack(p *parcel) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ready = slices.Insert(q.ready, 0, p)
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

// poke wakes the takers: there may be something for them elsewhere.
func (q *queue) poke() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.wakeTakers()
}

// await calls look, with the queue locked, until it is content, and waits in between: for something to happen to the queue,
// or as long as look says (0: as long as it takes). It fails only when ctx is done.
func (q *queue) await(ctx context.Context, look func() (content bool, wait time.Duration)) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		q.mu.Lock()
		content, wait := look()
		if content {
			q.mu.Unlock()
			return nil
		}
		q.idle++
		wake := q.wake
		q.mu.Unlock()
		var late <-chan time.Time
		var timer *time.Timer
		if wait > 0 {
			timer = time.NewTimer(wait)
			late = timer.C
		}
		select {
		case <-ctx.Done():
		case <-wake:
		case <-late:
		}
		if timer != nil {
			timer.Stop()
		}
		q.mu.Lock()
		q.idle--
		q.mu.Unlock()
	}
}

// take waits for something to send and takes it: what came back, or as much as has gathered, up to the limits of one
// request. It fails only when ctx is done.
func (q *queue) take(ctx context.Context, l Batching) (p *parcel, err error) {
	err = q.await(ctx, func() (bool, time.Duration) {
		if p = q.popReady(nil); p != nil {
			return true, 0
		}
		items, wait := q.direct.next(l, time.Now(), false)
		if items != nil {
			p = newParcel(items)
		}
		return p != nil, wait
	})
	return p, err
}

// popReady takes the first of what is to be sent next that no disk queue has but st: another's would not hear of it.
func (q *queue) popReady(st *store) (p *parcel) {
	for i, p := range q.ready {
		if p.store == nil || p.store == st {
			q.ready = slices.Delete(q.ready, i, i+1)
			q.popped = time.Now()
			return p
		}
	}
	return nil
}

// sooner returns the shorter of two times to wait, where 0 means not to.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}

// next pops what is to be sent now, of the signal that has waited longest; with named, batches that have a name alone. If
// there is something but its time has not come, wait says when to look again.
func (ls *lanes) next(l Batching, now time.Time, named bool) (items []item, wait time.Duration) {
	var oldest *lane
	for s := range ls {
		ln := &ls[s]
		if len(ln.items) == 0 {
			continue
		}
		if left := ln.dueIn(l, now); left > 0 {
			wait = sooner(wait, left)
			continue
		}
		if oldest == nil || ln.items[0].since.Before(oldest.items[0].since) {
			oldest = ln
		}
	}
	if oldest == nil {
		return nil, wait
	}
	if named {
		return oldest.popNamed(int64(l.MaxBytes)), 0
	}
	return oldest.pop(int64(l.MaxBytes), nil), 0
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

// popNamed is pop that keeps a batch which has a name apart from others: the name is the request's as well.
func (l *lane) popNamed(max int64) (items []item) {
	bytes := int64(0)
	for n, it := range l.items {
		if alone := !it.b.ID().IsZero(); n > 0 && (alone || bytes+it.bytes > max) {
			break
		} else if items = append(items, it); alone {
			break
		}
		bytes += it.bytes
	}
	for i, it := range items {
		l.count(it, -1)
		l.items[i] = item{}
	}
	l.items = l.items[len(items):]
	return items
}

// end empties the queue, but for what a disk queue has. What is put into it from now on is abandoned.
func (q *queue) end() (all []item) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.over = true
	q.ready = slices.DeleteFunc(q.ready, func(p *parcel) bool {
		if p.store == nil {
			all = append(all, p.items...)
		}
		return p.store == nil
	})
	for _, ls := range []*lanes{&q.direct, &q.keeping} {
		for s := range ls {
			all = append(all, ls[s].items...)
		}
		*ls = lanes{}
	}
	return all
}

// takeStored takes out what st has.
func (q *queue) takeStored(st *store) (stored []*parcel) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ready = slices.DeleteFunc(q.ready, func(p *parcel) bool {
		if p.store == st {
			stored = append(stored, p)
		}
		return p.store == st
	})
	return stored
}

// keep says whether there is a disk queue. When there is none any more, what was meant for it is sent from here.
func (q *queue) keep(yes bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.keeps = yes; yes {
		return
	}
	for s := range q.keeping {
		for _, it := range q.keeping[s].items {
			l := &q.direct[s]
			l.items = append(l.items, it)
			l.count(it, 1)
		}
	}
	q.keeping = lanes{}
	q.wakeTakers()
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
