package aggregate

import (
	"github.com/creelhq/creel"
)

// idleLimit is how many intervals a series is remembered in which nothing came.
const idleLimit = 5

// A series is what data points become that have all in common but time and value.
type series struct {
	place *place
	kind  *kind
	attrs creel.Attrs
	made  *maker // of what is made of records; nil for data points
	hash  uint64
	next  *series // another with the same hash

	// If attributes are dropped, a cumulative series as it came is a member of the group that it is without them.
	group   *series
	isGroup bool
	members int

	idle int // intervals in which nothing came
	n    int // what came in this interval

	start, time int64 // of the earliest and the latest point
	tally
	base tally // of a group: what members had that have ended or begun anew
}

// table finds series.
type table struct {
	creel.Hasher
	max    int
	places interner[creel.Origin]
	kinds  interner[creel.Descriptor]
	byHash map[uint64]*series
	series []*series // as they came
	extra  int       // of them, those for what is beyond max
}

func (t *table) init(most int) {
	t.Hasher, t.max = creel.NewHasher(), most
	t.byHash = make(map[uint64]*series)
	t.places.byHash, t.places.max = make(map[uint64][]*place), most
	t.kinds.byHash, t.kinds.max = make(map[uint64][]*kind), most
}

// find returns the series like want, or nil.
func (t *table) find(want *series, same func(*series) bool) *series {
	for s := t.byHash[want.hash]; s != nil; s = s.next {
		if s.place == want.place && s.kind == want.kind && s.made == want.made && (s.group != nil) == (want.group != nil) && s.isGroup == want.isGroup && same(s) {
			return s
		}
	}
	return nil
}

func (t *table) full() bool { return len(t.series)-t.extra >= t.max }

// add adds a copy of s.
func (t *table) add(s series) *series {
	c := &s
	c.next = t.byHash[s.hash]
	t.byHash[s.hash] = c
	t.series = append(t.series, c)
	if c.group != nil {
		c.group.members++
	}
	return c
}

func (t *table) touched() bool {
	for _, s := range t.series {
		if s.n > 0 {
			return true
		}
	}
	return false
}

// total sums up groups.
func (t *table) total() {
	for _, s := range t.series {
		if s.isGroup && s.n > 0 {
			s.tally.reset()
			s.tally.add(&s.base)
		}
	}
	for _, s := range t.series {
		if s.group != nil && s.group.n > 0 {
			s.group.tally.add(&s.tally)
		}
	}
}

// forget ends the interval: what was sent is taken back, and series in which nothing came for long are given up. When
// there are too many, not so long: but of a member the latest value must be known, should it come again.
func (t *table) forget() {
	limit := idleLimit
	if t.full() {
		limit = 0
	}
	for _, s := range t.series {
		if s.n > 0 {
			s.idle = 0
			s.restart()
		} else {
			s.idle++
		}
		if s.group != nil && s.idle > idleLimit {
			s.group.members--
			if s.monotonic() {
				s.group.base.add(&s.tally)
			}
		}
	}
	kept := t.series[:0]
	for _, s := range t.series {
		if s.group != nil && s.idle > idleLimit || s.group == nil && s.idle > limit && s.members == 0 {
			t.remove(s)
			continue
		}
		kept = append(kept, s)
	}
	clear(t.series[len(kept):])
	t.series = kept
	t.places.forget()
	t.kinds.forget()
}

func (t *table) remove(s *series) {
	if s.made != nil && s.made.overflow == s {
		s.made.overflow = nil
		t.extra--
		return // it cannot be found by its hash
	}
	if t.byHash[s.hash] == s {
		if t.byHash[s.hash] = s.next; s.next == nil {
			delete(t.byHash, s.hash)
		}
		return
	}
	for p := t.byHash[s.hash]; p != nil; p = p.next {
		if p.next == s {
			p.next = s.next
		}
	}
}

// cumulative reports whether the points count from a fixed start.
func (s *series) cumulative() bool {
	return s.kind.is.Kind != creel.Gauge && s.kind.is.Temporality == creel.Cumulative
}

// monotonic reports whether a cumulative value only grows, until it begins anew.
func (s *series) monotonic() bool {
	return s.kind.is.Kind == creel.HistogramKind || s.kind.is.Monotonic
}

// restart begins the next interval. Cumulative values go on.
func (s *series) restart() {
	s.n = 0
	if !s.cumulative() {
		s.start, s.time = 0, 0
		s.tally.reset()
	}
}

// see notes that a point came, and when.
func (s *series) see(p *creel.Metric) {
	if s.start == 0 || p.Start != 0 && p.Start < s.start {
		s.start = p.Start
	}
	s.time = max(s.time, p.Time)
	s.n++
}

// tally is a value that others are added to: a number or a histogram.
type tally struct {
	value  creel.Number
	filled bool // with a histogram
	hist   creel.Histogram
}

// reset empties t, and keeps its memory.
func (t *tally) reset() {
	t.value, t.filled = creel.Number{}, false
	t.hist = creel.Histogram{Counts: t.hist.Counts[:0], Bounds: t.hist.Bounds[:0]}
}

// add adds another's value, which has the same bounds if it is a histogram.
func (t *tally) add(o *tally) {
	if o.value.Kind() != creel.ValueEmpty {
		t.value = plus(t.value, o.value)
	}
	if o.filled {
		t.addHistogram(&o.hist)
	}
}

// takes reports whether h can be added.
func (t *tally) takes(h *creel.Histogram) bool {
	return !t.filled || sameBounds(t.hist.Bounds, h.Bounds)
}

func sameBounds(a, b []float64) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func (t *tally) addHistogram(h *creel.Histogram) {
	if !t.filled {
		t.setHistogram(h)
		return
	}
	t.hist.Count += h.Count
	for i, n := range h.Counts {
		t.hist.Counts[i] += n
	}
	t.hist.Sum.Value, t.hist.Sum.Valid = t.hist.Sum.Value+h.Sum.Value, t.hist.Sum.Valid && h.Sum.Valid
	t.hist.Min.Value, t.hist.Min.Valid = min(t.hist.Min.Value, h.Min.Value), t.hist.Min.Valid && h.Min.Valid
	t.hist.Max.Value, t.hist.Max.Valid = max(t.hist.Max.Value, h.Max.Value), t.hist.Max.Valid && h.Max.Valid
}

func (t *tally) setHistogram(h *creel.Histogram) {
	counts, bounds := append(t.hist.Counts[:0], h.Counts...), append(t.hist.Bounds[:0], h.Bounds...)
	t.hist, t.filled = *h, true
	t.hist.Counts, t.hist.Bounds = counts, bounds
}

// observe counts v into its bucket.
func (t *tally) observe(v float64, bounds []float64) {
	if !t.filled {
		t.filled = true
		t.hist.Bounds = append(t.hist.Bounds[:0], bounds...)
		t.hist.Counts = append(t.hist.Counts[:0], make([]uint64, len(bounds)+1)...)
		t.hist.Sum.Valid = true
		t.hist.Min, t.hist.Max = creel.Optional{Value: v, Valid: true}, creel.Optional{Value: v, Valid: true}
	}
	i := 0
	for i < len(bounds) && v > bounds[i] {
		i++
	}
	t.hist.Counts[i]++
	t.hist.Count++
	t.hist.Sum.Value += v
	t.hist.Min.Value, t.hist.Max.Value = min(t.hist.Min.Value, v), max(t.hist.Max.Value, v)
}

// histogram returns a copy in r.
func (t *tally) histogram(r *creel.Records) *creel.Histogram {
	h := &r.Histograms.Make(1)[0]
	*h = t.hist
	h.Counts, h.Bounds = r.Uint64s.Make(len(t.hist.Counts)), r.Float64s.Make(len(t.hist.Bounds))
	copy(h.Counts, t.hist.Counts)
	copy(h.Bounds, t.hist.Bounds)
	return h
}

// plus returns a sum: an integer if both are and it fits. Nothing and a number are the number.
func plus(a, b creel.Number) creel.Number {
	if a.Kind() == creel.ValueEmpty {
		return b
	}
	if a.Kind() == creel.ValueInt && b.Kind() == creel.ValueInt {
		x, y := a.Int(), b.Int()
		if s := x + y; (s > x) == (y > 0) {
			return creel.Int(s)
		}
	}
	return creel.Double(float(a) + float(b))
}

// float returns a number as a floating-point one.
func float(v creel.Number) float64 {
	if v.Kind() == creel.ValueInt {
		return float64(v.Int())
	}
	return v.Double()
}
