package creel

import (
	"fmt"
	"sync/atomic"
)

// A Batch is a group of records of one signal. The records of one wire request are one Batch.
//
// Invariant: every Batch is settled exactly once, by the framework. Settling tells everybody who asked with OnDone, and
// lets the records' memory be recycled.
//
// A Batch is used by one goroutine at a time. Clones and halves of a Split are batches of their own, which may be used
// concurrently with each other. After it was given away (Send, Join, Absorb) a Batch must not be touched.
type Batch struct {
	signal Signal
	state  atomic.Int32 // 0 live, 1 settled or joined to another
	n      int
	bytes  int // 0: not counted yet
	wire   []byte
	rec    *Records
	viewed bool // logs, metrics, spans are set

	// One of these is the batch's own part of rec, once viewed.
	logs    []Log
	metrics []Metric
	spans   []Span

	id      ID     // see delivery.go
	parts   []Part // likewise
	tickets []*Ticket
	custody *Custody
	from    *Custody // the custody of the call that passes the batch on, while it does
}

// NewLogs returns a Batch of logs. The slice belongs to the Batch from now on.
func NewLogs(logs []Log) *Batch { return NewBatch(Logs, &Records{Logs: logs}) }

// NewMetrics returns a Batch of data points. The slice belongs to the Batch from now on.
func NewMetrics(metrics []Metric) *Batch { return NewBatch(Metrics, &Records{Metrics: metrics}) }

// NewSpans returns a Batch of spans. The slice belongs to the Batch from now on.
func NewSpans(spans []Span) *Batch { return NewBatch(Traces, &Records{Spans: spans}) }

// NewBatch returns a Batch of r's records of signal s. r belongs to the Batch from now on.
func NewBatch(s Signal, r *Records) *Batch {
	r.retain()
	b := &Batch{signal: s, rec: r}
	b.view()
	b.n = b.viewLen()
	return b
}

// NewWire returns a Batch of the n records in wire, which are decoded when first looked at. wire must not be changed
// afterwards, and must be sound: decode cannot fail. Package otlp makes such batches.
func NewWire(s Signal, n int, wire []byte, m *Memory, decode Decode) *Batch {
	r := m.NewRecords()
	r.retain()
	r.wire, r.decode = wire, decode
	return &Batch{signal: s, n: n, bytes: len(wire), wire: wire, rec: r}
}

// Signal returns what kind of records b holds.
func (b *Batch) Signal() Signal { return b.signal }

// Len returns the number of records: log records, data points or spans. It does not decode.
func (b *Batch) Len() int { return b.n }

// Bytes estimates the memory that b keeps alive; queues and limits count it. It does not decode.
func (b *Batch) Bytes() int {
	if b.bytes == 0 && b.n > 0 {
		switch b.signal {
		case Logs:
			b.bytes = sizeOf(b.logs, (*Log).size)
		case Metrics:
			b.bytes = sizeOf(b.metrics, (*Metric).size)
		case Traces:
			b.bytes = sizeOf(b.spans, (*Span).size)
		}
	}
	return b.bytes
}

func sizeOf[T any](records []T, size func(*T) int) int {
	n := 0
	for i := range records {
		n += size(&records[i])
	}
	return n
}

// Wire returns b's records as an OTLP export request: the bytes that b came in, if it has not been changed since, or was
// encoded as on its way; nil when there are none.
func (b *Batch) Wire() []byte { return b.wire }

// Logs returns the log records, to read.
func (b *Batch) Logs() []Log {
	b.look(Logs)
	return b.logs
}

// Metrics returns the data points, to read.
func (b *Batch) Metrics() []Metric {
	b.look(Metrics)
	return b.metrics
}

// Spans returns the spans, to read.
func (b *Batch) Spans() []Span {
	b.look(Traces)
	return b.spans
}

// EditLogs returns the log records, to change: fields, and attributes by Set and Delete; values and origins are
// replaced, never changed. The batch is unshared first, and gives up its wire bytes.
func (b *Batch) EditLogs() []Log {
	b.look(Logs)
	b.edit()
	return b.logs
}

// EditMetrics returns the data points, to change as EditLogs says.
func (b *Batch) EditMetrics() []Metric {
	b.look(Metrics)
	b.edit()
	return b.metrics
}

// EditSpans returns the spans, to change as EditLogs says.
func (b *Batch) EditSpans() []Span {
	b.look(Traces)
	b.edit()
	return b.spans
}

// look makes the records of signal s readable.
func (b *Batch) look(s Signal) {
	b.mustLive()
	if s != b.signal {
		panic(fmt.Sprintf("BUG: asked a batch of %v for its %v", b.signal, s))
	}
	if !b.viewed {
		b.view()
	}
}

// view decodes on first use.
func (b *Batch) view() {
	b.rec.decoded()
	b.viewed = true
	switch b.signal {
	case Logs:
		b.logs = b.rec.Logs
	case Metrics:
		b.metrics = b.rec.Metrics
	case Traces:
		b.spans = b.rec.Spans
	}
	if b.wire != nil && b.viewLen() != b.n {
		panic(fmt.Sprintf("BUG: decoded %d records where %d were counted", b.viewLen(), b.n))
	}
}

func (b *Batch) viewLen() int { return len(b.logs) + len(b.metrics) + len(b.spans) }

// edit makes b the only one that sees its records.
func (b *Batch) edit() {
	b.wire, b.bytes = nil, 0
	alone := int32(1)
	for c := b.custody; c != nil; c = c.outer {
		if c.retains(b.rec) {
			alone++
		}
	}
	if b.rec.refs.Load() == alone {
		return
	}
	r := b.rec.home.NewRecords()
	r.retain()
	r.appendOwn(b)
	b.logs, b.metrics, b.spans = r.Logs, r.Metrics, r.Spans
	if b.custody != nil {
		b.custody.retain(r)
	}
	b.rec.release()
	b.rec = r
}

// appendOwn appends copies of b's records which share only what is immutable.
func (r *Records) appendOwn(b *Batch) {
	switch b.signal {
	case Logs:
		r.Logs = appendOwn(r.Logs, b.logs, func(l *Log) { l.Attrs = copySlice(&r.Attrs, l.Attrs) })
	case Metrics:
		r.Metrics = appendOwn(r.Metrics, b.metrics, r.copyMetric)
	case Traces:
		r.Spans = appendOwn(r.Spans, b.spans, r.copySpan)
	}
}

func appendOwn[T any](to, from []T, own func(*T)) []T {
	n := len(to)
	to = append(to, from...)
	for i := n; i < len(to); i++ {
		own(&to[i])
	}
	return to
}

func (r *Records) copyMetric(m *Metric) {
	m.Attrs = copySlice(&r.Attrs, m.Attrs)
	m.Exemplars = copySlice(&r.Exemplars, m.Exemplars)
	for i := range m.Exemplars {
		m.Exemplars[i].Attrs = copySlice(&r.Attrs, m.Exemplars[i].Attrs)
	}
	if m.Histogram != nil {
		h := &r.Histograms.Make(1)[0]
		*h = *m.Histogram
		h.Counts, h.Bounds = copySlice(&r.Uint64s, h.Counts), copySlice(&r.Float64s, h.Bounds)
		m.Histogram = h
	}
	if m.Exponential != nil {
		h := &r.Exponentials.Make(1)[0]
		*h = *m.Exponential
		h.Positive.Counts = copySlice(&r.Uint64s, h.Positive.Counts)
		h.Negative.Counts = copySlice(&r.Uint64s, h.Negative.Counts)
		m.Exponential = h
	}
	if m.Summary != nil {
		s := &r.Summaries.Make(1)[0]
		*s = *m.Summary
		s.Quantiles = copySlice(&r.Quantiles, s.Quantiles)
		m.Summary = s
	}
}

func (r *Records) copySpan(s *Span) {
	s.Attrs = copySlice(&r.Attrs, s.Attrs)
	s.Events = copySlice(&r.Events, s.Events)
	for i := range s.Events {
		s.Events[i].Attrs = copySlice(&r.Attrs, s.Events[i].Attrs)
	}
	s.Links = copySlice(&r.Links, s.Links)
	for i := range s.Links {
		s.Links[i].Attrs = copySlice(&r.Attrs, s.Links[i].Attrs)
	}
}

func copySlice[T any](slab *Slab[T], from []T) []T {
	out := slab.Make(len(from))
	copy(out, from)
	return out
}

// Keep keeps the records for which keep returns true, in their order. Those it removes are filtered: their fate is
// decided, and counted.
func (b *Batch) Keep(keep func(i int) bool) {
	b.look(b.signal)
	first := 0
	for first < b.n && keep(first) {
		first++
	}
	if first == b.n {
		return
	}
	b.edit()
	kept := 0
	switch b.signal {
	case Logs:
		b.logs = compact(b.logs, first, keep)
		kept = len(b.logs)
	case Metrics:
		b.metrics = compact(b.metrics, first, keep)
		kept = len(b.metrics)
	case Traces:
		b.spans = compact(b.spans, first, keep)
		kept = len(b.spans)
	}
	if b.custody != nil {
		b.custody.note(func(c *Custody) { c.counts.Filtered += b.n - kept; c.records -= b.n - kept })
	}
	b.n = kept
}

// compact keeps s[:first], not s[first], and what keep says of the rest.
func compact[T any](s []T, first int, keep func(i int) bool) []T {
	n := first
	for i := first + 1; i < len(s); i++ {
		if keep(i) {
			s[n] = s[i]
			n++
		}
	}
	return s[:n]
}

// Clone returns a second batch of the same records, to be settled on its own; b is done when both are.
func (b *Batch) Clone() *Batch {
	if b.custody != nil { // they will not stay the same
		b.forget()
	}
	c := b.share()
	c.id, c.parts = b.id, b.parts
	c.n, c.bytes, c.wire, c.viewed = b.n, b.bytes, b.wire, b.viewed
	c.logs, c.metrics, c.spans = b.logs, b.metrics, b.spans
	if c.custody != nil {
		c.custody.note(func(u *Custody) { u.counts.Created += c.n; u.records += c.n })
	}
	return c
}

// share returns an empty batch with b's tickets, memory and custody.
func (b *Batch) share() *Batch {
	b.mustLive()
	b.rec.retain()
	for _, t := range b.tickets {
		t.shares.Add(1)
	}
	c := &Batch{signal: b.signal, rec: b.rec, tickets: append([]*Ticket(nil), b.tickets...)}
	if b.custody != nil {
		b.custody.add(c)
	}
	return c
}

// Split cuts b in two: b keeps the first i records, the returned batch has the others. What b came from is done when
// both are.
func (b *Batch) Split(i int) *Batch {
	b.look(b.signal)
	if i < 0 || i > b.n {
		panic(fmt.Sprintf("BUG: split at %d of %d records", i, b.n))
	}
	b.forget()
	c := b.share()
	c.viewed = true
	switch b.signal {
	case Logs:
		b.logs, c.logs = b.logs[:i:i], b.logs[i:]
	case Metrics:
		b.metrics, c.metrics = b.metrics[:i:i], b.metrics[i:]
	case Traces:
		b.spans, c.spans = b.spans[:i:i], b.spans[i:]
	}
	b.wire, b.bytes = nil, 0
	b.n, c.n = i, b.n-i
	return c
}

// Join appends the records of o, a batch of the same signal, which is used up by it: b is done when both are.
func (b *Batch) Join(o *Batch) {
	b.look(o.signal)
	o.look(b.signal)
	r := b.rec.home.NewRecords()
	r.retain()
	for _, from := range []*Batch{b, o} {
		r.appendOwn(from)
	}
	if b.custody != nil {
		b.custody.retain(r)
	}
	b.rec.release()
	b.rec, b.wire, b.bytes = r, nil, 0
	b.logs, b.metrics, b.spans = r.Logs, r.Metrics, r.Spans
	b.n += o.n
	if b.custody != nil {
		b.custody.note(func(c *Custody) { c.records += o.n })
	}
	b.forget()
	switch {
	case b.custody == nil && o.custody != nil:
		o.custody.note(func(c *Custody) { c.counts.Absorbed += o.n })
	case b.custody != nil && o.custody == nil:
		b.custody.note(func(c *Custody) { c.counts.Created += o.n })
	}
	b.takeOver(o)
}

// Absorb makes b answer for o as well: o's records have been worked into b's, as an aggregation does. o is used up and
// counted as absorbed; whoever waits for it waits for b. The room that its records took is free.
func (b *Batch) Absorb(o *Batch) {
	b.mustLive()
	o.mustLive()
	if o.custody != nil {
		o.custody.note(func(c *Custody) { c.counts.Absorbed += o.n })
	}
	b.forget()
	Detach(o, func(t *Ticket) bool { _, room := t.owner.(Room); return !room })
	b.takeOver(o)
}

// takeOver moves o's tickets to b and ends o.
func (b *Batch) takeOver(o *Batch) {
	b.tickets = append(b.tickets, o.tickets...)
	o.tickets = nil
	if o.custody != nil {
		o.custody.remove(o)
	}
	o.end()
}

// Hold tells the framework that the processor keeps b beyond the call of Process it came with. It is counted as held
// until it is passed on, with the Next that Run was given, or absorbed.
func (b *Batch) Hold() {
	b.mustLive()
	if b.custody == nil || b.custody.held == nil {
		panic("BUG: only a processor with a Run method can hold a batch")
	}
	held := b.custody.held
	b.custody.remove(b)
	held.add(b)
}

// OnDone asks to be told once, when every record in b is safe (nil) or given up. f is called from any goroutine, must
// not block, and must not touch the batch. errors.Is(err, ErrAbandoned) tells that nobody decided against the records:
// the framework had to stop first, and a collector that can collect them again must.
func (b *Batch) OnDone(f func(err error)) { Attach(b, NewTicket(nil, f)) }

// Records returns the memory that b's records lie in, after unsharing it as EditLogs does. What a processor adds to
// records (attributes, lists, maps) is taken from its slabs, which costs no allocation once they are warm. It may be used
// so until b is sent on, held, cloned, split or joined; the records themselves are those of EditLogs and its likes.
func (b *Batch) Records() *Records {
	b.look(b.signal)
	b.edit()
	return b.rec
}

func (b *Batch) mustLive() {
	if b.state.Load() != 0 {
		panic("BUG: a batch was used after it was settled or joined to another")
	}
}
