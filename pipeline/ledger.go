package pipeline

import (
	"sync"
	"sync/atomic"

	"github.com/creelhq/creel/metric"
)

// Reason says why a record was dropped. The list is closed: dashboards and alarms may rely on it.
type Reason uint8

// The reasons.
const (
	Refused        Reason = iota // the far side refused it for good
	Rejected                     // the far side took the request, but not this record
	ProcessorError               // a processor failed on it
	Abandoned                    // the agent had to stop, or the exporter was removed, before it was safe; it may be collected again
	reasons
)

var reasonNames = [reasons]string{"refused", "rejected", "processor_error", "abandoned"}

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

// account counts the records that one pipeline has given to one exporter.
type account struct {
	pipeline, exporter string

	in, delivered, queued atomic.Int64

	dropped dropped
}

// Ledger is the state of the books. At every quiet moment
//
//	accepted + created = filtered + absorbed + routed + dropped + held + passed
//
// holds for each pipeline, and passed = delivered + dropped + queued for each of its exporters. Counts are records.
type Ledger struct {
	Pipelines []PipelineEntry `json:"pipelines"`
}

// PipelineEntry is one pipeline's part of the Ledger.
type PipelineEntry struct {
	Pipeline  string           `json:"pipeline"`
	Accepted  int64            `json:"accepted"`
	Created   int64            `json:"created"`
	Filtered  int64            `json:"filtered"`
	Absorbed  int64            `json:"absorbed"`
	Routed    int64            `json:"routed"` // sent on to other pipelines
	Dropped   map[string]int64 `json:"dropped,omitempty"`
	Held      int64            `json:"held"`
	Passed    int64            `json:"passed"`
	Exporters []ExporterEntry  `json:"exporters"`

	// Unexplained is what the equation leaves over; records that are being worked on at this moment are in it.
	Unexplained int64 `json:"unexplained"`
}

// ExporterEntry is what became of the records that a pipeline passed to one exporter.
type ExporterEntry struct {
	Exporter    string           `json:"exporter"`
	In          int64            `json:"in"`
	Delivered   int64            `json:"delivered"`
	Dropped     map[string]int64 `json:"dropped,omitempty"`
	Queued      int64            `json:"queued"`
	Unexplained int64            `json:"unexplained"`
}

// books are all books of an engine, by name, in the order in which they were opened.
type books struct {
	mu       sync.Mutex
	order    []string
	books    map[string]*book
	accounts map[string][]*account // by pipeline
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

func (bs *books) ledger(held func(pipeline string) int64) Ledger {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	l := Ledger{Pipelines: []PipelineEntry{}}
	for _, name := range bs.order {
		b := bs.books[name]
		e := PipelineEntry{
			Pipeline: name, Accepted: b.accepted.Load(), Created: b.created.Load(), Filtered: b.filtered.Load(),
			Absorbed: b.absorbed.Load(), Routed: b.routed.Load(), Held: held(name), Passed: b.passed.Load(), Exporters: []ExporterEntry{},
		}
		var total int64
		e.Dropped, total = b.dropped.snapshot()
		e.Unexplained = e.Accepted + e.Created - e.Filtered - e.Absorbed - e.Routed - total - e.Held - e.Passed
		for _, a := range bs.accounts[name] {
			x := ExporterEntry{Exporter: a.exporter, In: a.in.Load(), Delivered: a.delivered.Load(), Queued: a.queued.Load()}
			x.Dropped, total = a.dropped.snapshot()
			x.Unexplained = x.In - x.Delivered - total - x.Queued
			e.Exporters = append(e.Exporters, x)
		}
		l.Pipelines = append(l.Pipelines, e)
	}
	return l
}
