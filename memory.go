package creel

import (
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"
)

// Memory recycles the memory of records. Each agent has one; a nil *Memory works and recycles nothing. All methods may
// be called concurrently.
//
// What is recycled are slices: of records, attributes, events, bucket counts. Strings, origins and descriptors never
// are, so they may be kept (a string keeps the whole buffer that it came in alive: clone what must outlive the batch).
type Memory struct {
	// Poison makes stale readers fail loudly: recycled records are overwritten with PoisonText and are not used again.
	// Tests set it, before the Memory is first used.
	Poison bool

	pool sync.Pool
	out  atomic.Int64
}

// PoisonText is what recycled strings read as when Memory.Poison is set.
const PoisonText = "\x00POISONED: this batch was recycled\x00"

// NewRecords returns empty records, recycled ones if there are any.
func (m *Memory) NewRecords() *Records {
	if m == nil {
		return &Records{}
	}
	m.out.Add(1)
	if r, ok := m.pool.Get().(*Records); ok {
		return r
	}
	return &Records{home: m}
}

// Out returns how many Records are in use: with batches, or leaked by a call that never returned.
func (m *Memory) Out() int64 {
	if m == nil {
		return 0
	}
	return m.out.Load()
}

// Records is the memory of one batch's records. A collector or decoder that cares for speed fills one and makes a
// Batch of it; slices that records refer to are taken from the slabs, which costs no allocation once they are warm.
// Records are filled by one goroutine, before NewBatch or inside a Decode.
type Records struct {
	Logs    []Log
	Metrics []Metric
	Spans   []Span

	Attrs        Slab[Attr]
	Values       Slab[Value]
	Events       Slab[SpanEvent]
	Links        Slab[SpanLink]
	Exemplars    Slab[Exemplar]
	Histograms   Slab[Histogram]
	Exponentials Slab[ExponentialHistogram]
	Summaries    Slab[Summary]
	Quantiles    Slab[Quantile]
	Uint64s      Slab[uint64]
	Float64s     Slab[float64]

	home *Memory
	refs atomic.Int32 // batches and calls that can see these records

	mu     sync.Mutex // guards what follows: decoding on first use, by any of the batches that share it
	wire   []byte
	decode Decode
}

// Decode fills r with the records of wire, which is known to be sound; so it cannot fail. Strings alias wire.
type Decode func(wire []byte, r *Records)

// Extend returns as, moved to where at least n attributes more can be appended or Set without an allocation. What is
// appended beyond that is on the heap, as ever.
func (r *Records) Extend(as Attrs, n int) Attrs {
	if cap(as)-len(as) >= n {
		return as
	}
	out := r.Attrs.Make(len(as) + n)[:len(as)]
	copy(out, as)
	return out
}

// NewBuffer returns n bytes that are not cleared, to be read into and then aliased by records. Clearing would cost as
// much as a fifth of the reading. As strings may be kept, such memory is never used again.
func NewBuffer(n int) []byte {
	var b strings.Builder
	b.Grow(max(n, 1))
	b.WriteByte(0) // else it has no data to point to
	return unsafe.Slice(unsafe.StringData(b.String()), b.Cap())[:n:n]
}

// decoded makes sure that the records have been decoded.
func (r *Records) decoded() {
	r.mu.Lock()
	if r.decode != nil {
		r.decode(r.wire, r)
		r.wire, r.decode = nil, nil
	}
	r.mu.Unlock()
}

func (r *Records) retain() { r.refs.Add(1) }

func (r *Records) release() {
	switch n := r.refs.Add(-1); {
	case n > 0:
		return
	case n < 0:
		panic("BUG: records released more often than retained")
	}
	if r.home == nil {
		return
	}
	r.home.out.Add(-1)
	if r.home.Poison {
		r.poison()
		return
	}
	r.reset()
	r.home.pool.Put(r)
}

func (r *Records) reset() {
	clear(r.Logs)
	clear(r.Metrics)
	clear(r.Spans)
	r.Logs, r.Metrics, r.Spans = r.Logs[:0], r.Metrics[:0], r.Spans[:0]
	r.Attrs.reset()
	r.Values.reset()
	r.Events.reset()
	r.Links.reset()
	r.Exemplars.reset()
	r.Histograms.reset()
	r.Exponentials.reset()
	r.Summaries.reset()
	r.Quantiles.reset()
	r.Uint64s.reset()
	r.Float64s.reset()
	r.wire, r.decode = nil, nil
}

// poison overwrites everything that a stale reader could still reach.
func (r *Records) poison() {
	bad := String(PoisonText)
	badAttr := Attr{PoisonText, bad}
	origin := &Origin{Resource: Resource{Attrs: Attrs{badAttr}}, Scope: Scope{Name: PoisonText}}
	fill(r.Logs, Log{Origin: origin, Body: bad, Attrs: Attrs{badAttr}, SeverityText: PoisonText, Severity: -1, Time: -1})
	fill(r.Metrics, Metric{Origin: origin, Desc: &Descriptor{Name: PoisonText}, Attrs: Attrs{badAttr}, Value: Int(-1), Time: -1})
	fill(r.Spans, Span{Origin: origin, Name: PoisonText, Attrs: Attrs{badAttr}, State: PoisonText, Start: -1})
	r.Attrs.fill(badAttr)
	r.Values.fill(bad)
	r.Events.fill(SpanEvent{Name: PoisonText, Time: -1})
	r.Links.fill(SpanLink{State: PoisonText})
	r.Exemplars.fill(Exemplar{Time: -1, Value: Int(-1)})
	r.Histograms.fill(Histogram{Count: 1 << 63})
	r.Exponentials.fill(ExponentialHistogram{Count: 1 << 63})
	r.Summaries.fill(Summary{Count: 1 << 63})
	r.Quantiles.fill(Quantile{-1, -1})
	r.Uint64s.fill(1 << 63)
	r.Float64s.fill(-1)
}

func fill[T any](s []T, v T) {
	for i := range s {
		s[i] = v
	}
}

// Slab hands out slices of T from large chunks. The zero Slab is ready.
type Slab[T any] struct {
	chunk []T   // the newest; what is below len is handed out
	older [][]T // full ones
}

// Make returns n zeroed elements, as a slice that cannot grow into its neighbour.
func (s *Slab[T]) Make(n int) []T {
	if n == 0 {
		return nil
	}
	used := len(s.chunk)
	if cap(s.chunk)-used < n {
		if used > 0 {
			s.older = append(s.older, s.chunk)
		}
		s.chunk = make([]T, 0, max(n, 2*cap(s.chunk), 16))
		used = 0
	}
	s.chunk = s.chunk[:used+n]
	return s.chunk[used : used+n : used+n]
}

// Reserve makes room so that the next n elements come from one chunk.
func (s *Slab[T]) Reserve(n int) {
	if cap(s.chunk)-len(s.chunk) >= n {
		return
	}
	if len(s.chunk) > 0 {
		s.older = append(s.older, s.chunk)
	}
	s.chunk = make([]T, 0, n)
}

func (s *Slab[T]) reset() {
	clear(s.chunk)
	clear(s.older)
	s.chunk, s.older = s.chunk[:0], s.older[:0]
}

func (s *Slab[T]) fill(v T) {
	fill(s.chunk, v)
	for _, c := range s.older {
		fill(c, v)
	}
}
