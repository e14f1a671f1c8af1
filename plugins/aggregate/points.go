package aggregate

import (
	"slices"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/expr"
)

// noRecordedValue is the flag of a point that says only that its series has ended (OTLP DataPointFlags).
const noRecordedValue = 1

// takePoints takes data points in. It returns those that pass as they are, nil if there are none; and what answer does.
func (a *aggregate) takePoints(b *creel.Batch, s *scratch) (pass, counted *creel.Batch) {
	if a.Points == nil || !a.measurePoints(b, s) {
		return b, nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	points := b.Metrics()
	passing := 0
	v := viewer{table: &a.table}
	for i := range points {
		if s.hashes[i] == 0 {
			passing++
		} else if !a.takePoint(&v, &points[i], s.hashes[i]) {
			s.hashes[i] = 0
			passing++
		}
	}
	switch passing {
	case len(points):
		return b, nil
	case 0:
		return nil, a.answer(b)
	}
	part(b.EditMetrics(), s.hashes)
	return b, a.answer(b.Split(passing))
}

// part moves the records without a hash to the front, in their order. That of the others does not matter any more.
func part[T any](records []T, hashes []uint64) {
	n := 0
	for i := range records {
		if hashes[i] == 0 {
			records[n], records[i] = records[i], records[n]
			n++
		}
	}
}

// measurePoints fills s with hashes of the attributes of those points that are to be taken in.
func (a *aggregate) measurePoints(b *creel.Batch, s *scratch) (some bool) {
	s.hashes = s.hashes[:0]
	points, rec := b.Metrics(), expr.Read(b)
	for i := range points {
		p := &points[i]
		h := uint64(0)
		if canFold(p) {
			rec.Seek(i)
			if a.Points.Where.IsZero() || a.Points.Where.Match(rec) {
				h, some = max(1, a.table.Attrs(p.Attrs, a.keep)), true
			}
		}
		s.hashes = append(s.hashes, h)
	}
	return some
}

// keep returns what says of an attribute whether it tells series apart; nil if all do.
func (p *Points) keep() func(string) bool {
	switch {
	case p == nil:
	case len(p.DropAttributes) > 0:
		return func(key string) bool { return !slices.Contains(p.DropAttributes, key) }
	case len(p.KeepAttributes) > 0:
		return func(key string) bool { return slices.Contains(p.KeepAttributes, key) }
	}
	return nil
}

// canFold reports whether a point is of a kind that can be aggregated, and sound.
func canFold(p *creel.Metric) bool {
	if p.Flags&noRecordedValue != 0 {
		return false
	}
	switch p.Desc.Kind {
	case creel.Gauge:
		return p.Value.Kind() != creel.ValueEmpty
	case creel.Sum:
		return p.Value.Kind() != creel.ValueEmpty && p.Desc.Temporality != creel.TemporalityUnspecified
	case creel.HistogramKind:
		h := p.Histogram
		return h != nil && p.Desc.Temporality != creel.TemporalityUnspecified && (len(h.Counts) == len(h.Bounds)+1 || len(h.Counts)+len(h.Bounds) == 0)
	}
	return false
}

// viewer remembers the place and kind of the point before: most points share them.
type viewer struct {
	table  *table
	origin *creel.Origin
	place  *place
	desc   *creel.Descriptor
	kind   *kind
}

func (v *viewer) see(o *creel.Origin, d *creel.Descriptor) (*place, *kind) {
	if o != v.origin {
		v.origin, v.place = o, v.table.place(&o.Resource, &o.Scope)
	}
	if d != v.desc {
		v.desc, v.kind = d, v.table.kind(d)
	}
	return v.place, v.kind
}

// takePoint returns false when p is to pass.
func (a *aggregate) takePoint(v *viewer, p *creel.Metric, hash uint64) bool {
	place, kind := v.see(p.Origin, p.Desc)
	if place == nil || kind == nil {
		a.overflow.Inc()
		return false
	}
	want := series{place: place, kind: kind, hash: a.table.Mix(a.table.Mix(hash, place.hash), kind.hash)}
	want.isGroup = a.keep != nil && want.cumulative()
	s := a.series(&want, p.Attrs, a.keep)
	if s == nil {
		return false
	}
	if !want.isGroup {
		return s.fold(p, a.Points.Gauge)
	}
	if h := p.Histogram; h != nil && !(s.takes(h) && s.base.takes(h)) {
		return false
	}
	want = series{place: place, kind: kind, hash: a.table.Mix(a.table.Mix(a.table.Attrs(p.Attrs, nil), place.hash), kind.hash), group: s}
	m := a.series(&want, p.Attrs, nil)
	if m == nil {
		return false
	}
	if h := p.Histogram; h != nil && !s.filled {
		s.setHistogram(h) // its bounds are those of the group from now on
	}
	m.replace(p)
	s.see(p)
	return true
}

// series returns the series like want with the attributes that keep wants; nil if there are too many.
func (a *aggregate) series(want *series, attrs creel.Attrs, keep func(string) bool) *series {
	s := a.table.find(want, func(s *series) bool { return sameAttrs(s.attrs, attrs, keep) })
	if s != nil {
		return s
	}
	if a.table.full() {
		a.overflow.Inc()
		return nil
	}
	for i := range attrs {
		if keep == nil || keep(attrs[i].Key) {
			want.attrs = append(want.attrs, attrs[i])
		}
	}
	want.attrs = want.attrs.Clone()
	return a.table.add(*want)
}

// fold works a point into s. It returns false, and has done nothing, when it cannot.
func (s *series) fold(p *creel.Metric, gauge string) bool {
	switch {
	case s.cumulative():
		s.replace(p)
		return true
	case p.Desc.Kind == creel.HistogramKind:
		if !s.takes(p.Histogram) {
			return false
		}
		s.addHistogram(p.Histogram)
	case p.Desc.Kind == creel.Sum || gauge == "sum" || gauge == "mean":
		s.value = plus(s.value, p.Value)
	case s.n == 0 || gauge == "last" && p.Time >= s.time || gauge == "min" && float(p.Value) < float(s.value) || gauge == "max" && float(p.Value) > float(s.value):
		s.value = p.Value
	}
	s.see(p)
	return true
}

// replace makes p the last point of a cumulative series, unless it is older. A member that begins anew leaves what it had
// to its group.
func (s *series) replace(p *creel.Metric) {
	s.n++
	if p.Time < s.time {
		return
	}
	if s.group != nil && s.monotonic() && s.began(p) {
		s.group.base.add(&s.tally)
	}
	s.start, s.time = p.Start, p.Time
	if p.Histogram != nil {
		s.setHistogram(p.Histogram)
		return
	}
	s.value = p.Value
}

// began reports whether p counts from a later start than what s has.
func (s *series) began(p *creel.Metric) bool {
	if p.Start > s.time && s.time != 0 {
		return true
	}
	if p.Histogram != nil {
		return s.filled && p.Histogram.Count < s.hist.Count
	}
	return s.value.Kind() != creel.ValueEmpty && float(p.Value) < float(s.value)
}
