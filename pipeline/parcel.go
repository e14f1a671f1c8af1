package pipeline

import (
	"crypto/rand"
	"encoding/binary"

	"github.com/creelhq/creel"
)

// An ackLevel says when whoever waits for a batch at an exporter is told that it is safe.
type ackLevel uint8

// The levels. Batches at the last three may be put into the exporter's disk queue, and those at the last two always are.
const (
	ackDelivered ackLevel = iota // the far side has it
	ackMemory                    // it is in the queue
	ackProcess                   // the disk queue has it, so that it survives the process
	ackDisk                      // and it is durable there
)

var ackLevels = map[string]ackLevel{"delivered": ackDelivered, "memory": ackMemory, "process": ackProcess, "disk": ackDisk}

// A parcel is what is sent in one request: batches of one signal, under one name. If the disk queue has it, it comes from
// there again should the process end before it is delivered.
type parcel struct {
	items   []item
	id      creel.ID
	store   *store // whose disk queue has it; nil: none
	seq     uint64 // in the disk queue
	replay  bool   // it was read from there: its records are in the disk queue's account
	divided bool   // some of it was sent, or decided on, apart from the rest
	overdue bool   // a call that was given up on may still be reading it

	request []byte // what the items were encoded as, in memory; nil: they were not
	memory  []byte // nil: none that is to be used again
}

func newParcel(items []item) *parcel {
	p := &parcel{items: items, id: newID()}
	if len(items) == 1 && !items[0].b.ID().IsZero() {
		p.id = items[0].name()
	}
	return p
}

// name returns the name that the item's batch has on its way from this pipeline to this exporter: on another it is there a
// second time on purpose.
func (it item) name() creel.ID {
	id := it.b.ID()
	binary.LittleEndian.PutUint64(id[8:], binary.LittleEndian.Uint64(id[8:])^hashOf(it.acct.pipeline, it.acct.exporter))
	return id
}

// done is called when all of p is delivered or decided on.
func (p *parcel) done() {
	if p.store == nil {
		return
	}
	p.store.spool.Ack(p.seq)
	if !p.overdue {
		p.store.recycle(p)
	}
}

func newID() (id creel.ID) {
	rand.Read(id[:])
	return id
}

func (p *parcel) bytes() (n int64) {
	for _, it := range p.items {
		n += it.bytes
	}
	return n
}

// level is what the most demanding of the parcel's batches asks for.
func (p *parcel) level() (l ackLevel) {
	for _, it := range p.items {
		l = max(l, it.level)
	}
	return l
}

func (p *parcel) batches() []*creel.Batch {
	list := make([]*creel.Batch, len(p.items))
	for i, it := range p.items {
		list[i] = it.b
	}
	return list
}

func records(items []item) (n int) {
	for _, it := range items {
		n += it.b.Len()
	}
	return n
}

// settle ends the item's batch and enters its records into the account.
func (it item) settle(delivered, refused int, err error) {
	n := it.b.Len()
	it.acct.delivered.Add(int64(delivered))
	it.acct.dropped.add(Refused, refused)
	it.acct.queued.Add(int64(-n))
	creel.Settle(it.b, err)
}

// drop ends items for a reason that nobody is to do anything about, who waits for them included.
func drop(items []item, why Reason) {
	for _, it := range items {
		it.acct.dropped.add(why, it.b.Len())
		it.settle(0, 0, nil)
	}
}

func reject(items []item, p *creel.Partial) {
	left := p.Rejected
	for _, it := range items {
		n := min(left, it.b.Len())
		left -= n
		it.acct.dropped.add(Rejected, n)
		it.settle(it.b.Len()-n, 0, nil)
	}
}

// abandon gives up items that nobody decided against.
func abandon(items []item) (n int) {
	for _, it := range items {
		n += it.b.Len()
		it.acct.dropped.add(Abandoned, it.b.Len())
		it.settle(0, 0, creel.ErrAbandoned)
	}
	return n
}
