package pipeline

import (
	"sync"
	"sync/atomic"

	"github.com/creelhq/creel/metric"
	"github.com/creelhq/creel/report"
)

// Reason says why a record was dropped. The list is closed: dashboards and alarms may rely on it.
type Reason uint8

// The reasons.
const (
	Refused        Reason = iota // the far side refused it for good
	Rejected                     // the far side took the request, but not this record
	ProcessorError               // a processor failed on it
	Abandoned                    // the agent had to stop, or the exporter was removed, before it was safe; it may be collected again
	QueueFull                    // the exporter's queue was full, and is configured to drop the oldest then
	SpoolFull                    // the exporter's disk queue was full, and is configured to drop records then
	Damaged                      // the disk did not give back what the disk queue had written
	Duplicate                    // the disk queue had it already: its batch was sent twice
	Shed                         // there was too little memory, and its pipeline has not the highest priority
	reasons
)

var reasonNames = [reasons]string{"refused", "rejected", "processor_error", "abandoned", "queue_full", "spool_full", "damaged", "duplicate", "shed"}

// String returns the reason's name in metrics and at /ledger.
func (r Reason) String() string { return reasonNames[r] }

type dropped [reasons]atomic.Int64

func (d *dropped) add(r Reason, n int) {
	if n > 0 {
		d[r].Add(int64(n))
	}
}

// snapshot returns the counts that are not zero.
func (d *dropped) snapshot() (m map[string]int64, total int64) {
	for r := range reasons {
		if n := d[r].Load(); n > 0 {
			if m == nil {
				m = make(map[string]int64)
			}
			m[r.String()] = n
			total += n
		}
	}
	return m, total
}

// book counts the records of one pipeline, from admission to the exporters' queues. It lives as long as the engine:
// reloads do not reset it.
type book struct {
	accepted, created, filtered, absorbed, routed, passed atomic.Int64

	dropped dropped
}

// account counts the records that one pipeline has given to one exporter, or those that were left to an exporter's disk queue.
type account struct {
	pipeline, exporter string // no pipeline: of a disk queue

	in, delivered, deadLettered, queued atomic.Int64

	spooled   atomic.Int64 // of a pipeline's: left to the disk queue
	recovered atomic.Int64 // of a disk queue's: there when it was opened

	dropped dropped
}

// work counts what one component has done. Like a book it lives as long as the engine.
type work struct {
	collected atomic.Int64 // records that a collector's Sink has admitted
	failed    atomic.Int64 // calls
}

// books are all books of an engine, by name, in the order in which they were opened.
type books struct {
	mu       sync.Mutex
	order    []string
	books    map[string]*book
	accounts map[string][]*account // by pipeline
	spools   []*account
	works    map[string]*work // by component key
	metrics  *metric.Set
}

func (bs *books) book(pipeline string) *book {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	if b := bs.books[pipeline]; b != nil {
		return b
	}
	if bs.books == nil {
		bs.books, bs.accounts = make(map[string]*book), make(map[string][]*account)
	}
	b := &book{}
	meterBook(bs.metrics.Sub(metric.Label{Name: "pipeline", Value: pipeline}), b)
	bs.books[pipeline] = b
	bs.order = append(bs.order, pipeline)
	return b
}

// work returns what a component has done, by its key.
func (bs *books) work(key string) *work {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	t := bs.works[key]
	if t == nil {
		if bs.works == nil {
			bs.works = make(map[string]*work)
		}
		t = &work{}
		bs.works[key] = t
	}
	return t
}

func (bs *books) account(pipeline, exporter string) *account {
	bs.book(pipeline)
	bs.mu.Lock()
	defer bs.mu.Unlock()
	for _, a := range bs.accounts[pipeline] {
		if a.exporter == exporter {
			return a
		}
	}
	a := &account{pipeline: pipeline, exporter: exporter}
	meterAccount(bs.metrics.Sub(metric.Label{Name: "pipeline", Value: pipeline}, metric.Label{Name: "exporter", Value: exporter}), a)
	bs.accounts[pipeline] = append(bs.accounts[pipeline], a)
	return a
}

// waiting returns how many records wait at an exporter, in memory and on disk.
func (bs *books) waiting(exporter string) (n int64) {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	for _, list := range bs.accounts {
		for _, a := range list {
			if a.exporter == exporter {
				n += a.queued.Load()
			}
		}
	}
	for _, a := range bs.spools {
		if a.exporter == exporter {
			n += a.queued.Load()
		}
	}
	return n
}

// spool returns the account of an exporter's disk queue.
func (bs *books) spool(exporter string) *account {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	for _, a := range bs.spools {
		if a.exporter == exporter {
			return a
		}
	}
	a := &account{exporter: exporter}
	meterSpool(bs.metrics.Sub(metric.Label{Name: "exporter", Value: exporter}), a)
	bs.spools = append(bs.spools, a)
	return a
}

func (bs *books) ledger(held func(pipeline string) int64) report.Ledger {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	l := report.Ledger{Pipelines: []report.Pipeline{}}
	for _, name := range bs.order {
		b := bs.books[name]
		e := report.Pipeline{
			Pipeline: name, Accepted: b.accepted.Load(), Created: b.created.Load(), Filtered: b.filtered.Load(),
			Absorbed: b.absorbed.Load(), Routed: b.routed.Load(), Held: held(name), Passed: b.passed.Load(), Exporters: []report.Exporter{},
		}
		var total int64
		e.Dropped, total = b.dropped.snapshot()
		e.Unexplained = e.Accepted + e.Created - e.Filtered - e.Absorbed - e.Routed - total - e.Held - e.Passed
		for _, a := range bs.accounts[name] {
			x := report.Exporter{
				Exporter: a.exporter, In: a.in.Load(), Delivered: a.delivered.Load(), DeadLettered: a.deadLettered.Load(),
				Spooled: a.spooled.Load(), Queued: a.queued.Load(),
			}
			x.Dropped, total = a.dropped.snapshot()
			x.Unexplained = x.In - x.Delivered - total - x.DeadLettered - x.Spooled - x.Queued
			e.Exporters = append(e.Exporters, x)
		}
		l.Pipelines = append(l.Pipelines, e)
	}
	for _, a := range bs.spools {
		x := report.SpoolAccount{
			Exporter: a.exporter, Recovered: a.recovered.Load(), In: a.in.Load(), Delivered: a.delivered.Load(),
			DeadLettered: a.deadLettered.Load(), Waiting: a.queued.Load(),
		}
		var total int64
		x.Dropped, total = a.dropped.snapshot()
		x.Unexplained = x.Recovered + x.In - x.Delivered - total - x.DeadLettered - x.Waiting
		l.Spools = append(l.Spools, x)
	}
	return l
}
