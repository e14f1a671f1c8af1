package creel

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
)

// This file is the framework's side of a batch: who answers for it, who waits for it, and when it is over. The pipeline
// uses it; a plugin has no need to.

// ErrAbandoned is what OnDone reports when the framework had to stop before the records were safe, and nobody decided
// against them.
var ErrAbandoned = errors.New("abandoned before it was safe")

// A Ticket is told when the last share of what it is attached to is settled. It travels with the batch through Clone,
// Split, Join and Absorb.
type Ticket struct {
	owner  any
	shares atomic.Int32
	err    atomic.Pointer[error]
	done   func(error)
}

// Room is the owner of a Ticket that stands for the room which records take, and is over when they are.
type Room interface{ Room() }

// NewTicket returns a Ticket that calls done once, with the first error of its shares. The owner tells the framework's
// tickets (not nil) from those of OnDone (nil).
func NewTicket(owner any, done func(error)) *Ticket { return &Ticket{owner: owner, done: done} }

// Owner returns what NewTicket was given.
func (t *Ticket) Owner() any { return t.owner }

func (t *Ticket) settle(err error) {
	if err != nil {
		t.err.CompareAndSwap(nil, &err)
	}
	switch n := t.shares.Add(-1); {
	case n > 0:
		return
	case n < 0:
		panic("BUG: a ticket was settled more often than shared")
	}
	if e := t.err.Load(); e != nil {
		t.done(*e)
		return
	}
	t.done(nil)
}

// Attach makes b carry a share of t.
func Attach(b *Batch, t *Ticket) {
	b.mustLive()
	t.shares.Add(1)
	b.tickets = append(b.tickets, t)
}

// Detach settles, as safe, b's shares of the tickets that keep does not want, and lets b go on without them.
func Detach(b *Batch, keep func(*Ticket) bool) { Postpone(b, keep)(nil) }

// Postpone takes from b its shares of the tickets that keep does not want; what it returns is to be called once, and settles
// them.
func Postpone(b *Batch, keep func(*Ticket) bool) (settle func(error)) {
	b.mustLive()
	var off []*Ticket
	b.tickets = slices.DeleteFunc(b.tickets, func(t *Ticket) bool {
		if keep(t) {
			return false
		}
		off = append(off, t)
		return true
	})
	return func(err error) {
		for _, t := range off {
			t.settle(err)
		}
	}
}

// Encoded gives b, which is not changed any more, the bytes that its records were encoded as: whoever needs them encoded
// finds them with Wire. They must stay as they are until b is settled, and calls that were lent b have returned.
func Encoded(b *Batch, wire []byte) {
	b.mustLive()
	b.wire = wire
}

// Waited reports whether somebody waits, with OnDone, for b to be safe.
func Waited(b *Batch) bool {
	return slices.ContainsFunc(b.tickets, func(t *Ticket) bool { return t.owner == nil })
}

// Settle ends b: its records are safe (nil), or given up because of err. It panics when b is settled twice, or while a
// processor has it in hand.
func Settle(b *Batch, err error) {
	if b.custody != nil {
		panic("BUG: a batch was settled while a component has it in hand")
	}
	tickets := b.tickets
	b.tickets = nil
	b.end()
	for _, t := range tickets {
		t.settle(err)
	}
}

// end marks b as over and gives up its records.
func (b *Batch) end() {
	if !b.state.CompareAndSwap(0, 1) {
		panic("BUG: a batch was settled twice")
	}
	b.logs, b.metrics, b.spans, b.wire = nil, nil, nil, nil
	b.rec.release()
}

// Counts is what a component did to the records it was given.
type Counts struct{ Created, Filtered, Absorbed, Dropped int }

// Custody is the list of batches that a component has in hand: during one call of Process, or held beyond it. What is
// read from a batch stays readable until the custody ends, even if the batch itself is over before; but who passes a
// batch on may find it changed. Its methods may be called concurrently.
type Custody struct {
	mu      sync.Mutex
	live    []*Batch
	records int // of live: whoever has a batch may change it meanwhile
	recs    []*Records
	counts  Counts
	held    *Custody // where Hold puts batches
	outer   *Custody // of the call that has passed the batch on, and waits for this one to return
	// A standing custody has no end of call until which anything could stay readable: it retains no records.
	standing bool
}

// NewCustody returns an empty Custody for calls. held is the component's standing one, nil if it cannot hold batches.
func NewCustody(held *Custody) *Custody { return &Custody{held: held} }

// NewStandingCustody returns an empty Custody for what a component holds between calls.
func NewStandingCustody() *Custody { return &Custody{standing: true} }

// Give puts b into c.
func (c *Custody) Give(b *Batch) {
	b.mustLive()
	if b.custody != nil {
		panic("BUG: a batch was given to two components at once")
	}
	c.outer, b.from = b.from, nil
	c.retain(b.rec)
	c.add(b)
}

// Forward takes b out of the custody it is in. It returns false when b is in none: then a component has made it.
func Forward(b *Batch) bool {
	b.mustLive()
	if b.custody == nil {
		return false
	}
	b.from = b.custody
	b.custody.remove(b)
	return true
}

// Len returns the number of batches and records in c.
func (c *Custody) Len() (batches, records int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.live), c.records
}

// Take returns what has been counted since the last Take.
func (c *Custody) Take() Counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.counts
	c.counts = Counts{}
	return n
}

// End settles what was neither passed on nor held: as filtered when err is nil, else as dropped because of err. What was
// counted is entered, if enter is not nil, before anybody who waits is told. It leaves c empty, ready to be used again.
func (c *Custody) End(err error, enter func(Counts)) {
	c.mu.Lock()
	live, recs, n := c.live, c.recs, c.counts
	c.live, c.recs, c.counts, c.outer, c.records = nil, nil, Counts{}, nil, 0
	c.mu.Unlock() // settling calls out
	for _, b := range live {
		if err == nil {
			n.Filtered += b.n
		} else {
			n.Dropped += b.n
		}
	}
	if enter != nil {
		enter(n)
	}
	for _, b := range live {
		b.custody = nil
		Settle(b, err)
	}
	for _, r := range recs {
		r.release()
	}
	clear(live)
	clear(recs)
	c.live, c.recs = live[:0], recs[:0]
}

func (c *Custody) add(b *Batch) {
	c.mu.Lock()
	c.live = append(c.live, b)
	c.records += b.n
	c.mu.Unlock()
	b.custody = c
}

func (c *Custody) remove(b *Batch) {
	c.mu.Lock()
	i := slices.Index(c.live, b)
	if i < 0 {
		panic("BUG: a batch is not where it says it is")
	}
	c.live = slices.Delete(c.live, i, i+1)
	c.records -= b.n
	c.mu.Unlock()
	b.custody = nil
}

func (c *Custody) note(f func(*Custody)) {
	c.mu.Lock()
	f(c)
	c.mu.Unlock()
}

func (c *Custody) retain(r *Records) {
	if c.standing {
		return
	}
	r.retain()
	c.mu.Lock()
	c.recs = append(c.recs, r)
	c.mu.Unlock()
}

func (c *Custody) retains(r *Records) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Contains(c.recs, r)
}

// Lend returns the batches as an exporter may have them: batches of their own, of the same records, which stay readable
// until back is called, whatever becomes of the others meanwhile. An exporter that was given up on may still be reading.
func Lend(batches []*Batch) (lent []*Batch, back func()) {
	views := make([]Batch, len(batches))
	lent = make([]*Batch, len(batches))
	for i, b := range batches {
		b.mustLive()
		b.rec.retain()
		v := &views[i]
		v.signal, v.n, v.bytes, v.wire, v.rec, v.viewed = b.signal, b.n, b.bytes, b.wire, b.rec, b.viewed
		v.logs, v.metrics, v.spans = b.logs, b.metrics, b.spans
		lent[i] = v
	}
	return lent, func() {
		for i := range views {
			views[i].rec.release()
		}
	}
}
