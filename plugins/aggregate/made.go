package aggregate

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/expr"
)

// scope is that of metrics that are made of records.
var scope = creel.Scope{Name: "github.com/creelhq/creel/plugins/aggregate"}

// maker makes one metric of records.
type maker struct {
	*Made
	kind     *kind
	names    []string // of the attributes, sorted
	by       []expr.Expression
	overflow *series // for what is beyond max_series; nil while there is nothing. Guarded as the table is
}

func newMaker(c *Made, i int) *maker {
	d := &creel.Descriptor{Name: c.Name, Description: c.Description, Unit: c.Unit, Kind: creel.Sum, Temporality: creel.Delta, Monotonic: true}
	switch c.Kind {
	case "gauge":
		d.Kind, d.Temporality, d.Monotonic = creel.Gauge, creel.TemporalityUnspecified, false
	case "histogram":
		d.Kind, d.Monotonic = creel.HistogramKind, false
	}
	m := &maker{Made: c, kind: &kind{is: d, hash: uint64(i)}, names: slices.Sorted(maps.Keys(c.By))}
	for _, name := range m.names {
		m.by = append(m.by, c.By[name])
	}
	return m
}

// sample is one record's contribution to one metric.
type sample struct {
	maker  *maker
	record int
	value  creel.Number
	hash   uint64 // of the attributes
	values int    // where these begin in scratch.values
}

// takeRecords takes log records or spans in. It returns those that pass, nil if there are none; and what answer does.
func (a *aggregate) takeRecords(b *creel.Batch, s *scratch) (pass, counted *creel.Batch) {
	matched := a.measureRecords(b, s)
	if matched == 0 {
		if a.KeepInput {
			return b, nil
		}
		return nil, nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	var origin *creel.Origin
	var place *place
	for i := range s.samples {
		x := &s.samples[i]
		if o := originOf(b, x.record); o != origin {
			origin, place = o, a.table.place(&o.Resource, &scope)
		}
		a.takeSample(x, place, s.values[x.values:x.values+len(x.maker.by)])
	}
	switch {
	case a.KeepInput && a.Ack == "memory":
		return b, nil
	case a.KeepInput:
		a.answer(b.Clone())
		return b, nil
	case matched == b.Len():
		return nil, a.answer(b)
	}
	if b.Signal() == creel.Logs {
		part(b.EditLogs(), s.hashes)
	} else {
		part(b.EditSpans(), s.hashes)
	}
	return nil, a.answer(b.Split(b.Len() - matched)) // and b itself, which nobody wants, is filtered
}

func originOf(b *creel.Batch, i int) *creel.Origin {
	if b.Signal() == creel.Logs {
		return b.Logs()[i].Origin
	}
	return b.Spans()[i].Origin
}

// measureRecords fills s with samples, and returns how many records have one: those with a hash.
func (a *aggregate) measureRecords(b *creel.Batch, s *scratch) (matched int) {
	s.hashes, s.samples, s.values = s.hashes[:0], s.samples[:0], s.values[:0]
	rec := expr.Read(b)
	for i := range b.Len() {
		rec.Seek(i)
		before := len(s.samples)
		for _, m := range a.makers {
			if m.signal() == b.Signal() && (m.Where.IsZero() || m.Where.Match(rec)) {
				a.measure(m, rec, i, s)
			}
		}
		h := uint64(0)
		if len(s.samples) > before {
			h = 1
			matched++
		}
		s.hashes = append(s.hashes, h)
	}
	return matched
}

func (a *aggregate) measure(m *maker, rec *expr.Record, i int, s *scratch) {
	x := sample{maker: m, record: i, value: creel.Int(1), hash: m.kind.hash, values: len(s.values)}
	if m.Kind != "count" {
		v := m.Value.Eval(rec)
		if v.Kind() == creel.ValueEmpty {
			return
		}
		n, ok := number(v)
		if !ok || m.Kind == "sum" && float(n) < 0 {
			a.unusable.Inc()
			return
		}
		x.value = n
	}
	for _, e := range m.by {
		v := e.Eval(rec)
		s.values = append(s.values, v)
		x.hash = a.table.Mix(x.hash, a.table.Value(v))
	}
	s.samples = append(s.samples, x)
}

// number returns the finite number that v is.
func number(v creel.Value) (creel.Number, bool) {
	switch v.Kind() {
	case creel.ValueInt:
		return v, true
	case creel.ValueDouble:
		return v, !math.IsNaN(v.Double()) && !math.IsInf(v.Double(), 0)
	case creel.ValueString:
		s := v.Str()
		if s == "" || s[0] > '9' || len(s) > 32 { // an error would allocate
			return creel.Number{}, false
		}
		if strings.IndexFunc(s, func(r rune) bool { return r > '9' || r == '.' }) < 0 {
			if i, err := strconv.ParseInt(s, 10, 64); err == nil {
				return creel.Int(i), true
			}
		}
		f, err := strconv.ParseFloat(s, 64)
		return creel.Double(f), err == nil && !math.IsNaN(f) && !math.IsInf(f, 0)
	}
	return creel.Number{}, false
}

// takeSample works a sample into its series.
func (a *aggregate) takeSample(x *sample, p *place, values []creel.Value) {
	s := a.seriesOf(x, p, values)
	s.n++
	switch x.maker.Kind {
	case "gauge":
		s.value = x.value
	case "histogram":
		s.observe(float(x.value), x.maker.Buckets)
	default:
		s.value = plus(s.value, x.value)
	}
}

func (a *aggregate) seriesOf(x *sample, p *place, values []creel.Value) *series {
	m := x.maker
	if p == nil {
		return a.overflowOf(m)
	}
	want := series{place: p, kind: m.kind, made: m, hash: a.table.Mix(x.hash, p.hash)}
	s := a.table.find(&want, func(s *series) bool { return m.same(s.attrs, values) })
	if s != nil {
		return s
	}
	if a.table.full() {
		return a.overflowOf(m)
	}
	for i, v := range values {
		if v.Kind() != creel.ValueEmpty {
			want.attrs = append(want.attrs, creel.Attr{Key: m.names[i], Value: v.Clone()})
		}
	}
	return a.table.add(want)
}

// same reports whether attrs are values, of which empty ones are left out.
func (m *maker) same(attrs creel.Attrs, values []creel.Value) bool {
	n := 0
	for i, v := range values {
		if v.Kind() == creel.ValueEmpty {
			continue
		}
		if n == len(attrs) || attrs[n].Key != m.names[i] || !attrs[n].Value.Equal(v) {
			return false
		}
		n++
	}
	return n == len(attrs)
}

// overflowOf returns the series for all that is beyond max_series, as OpenTelemetry's metrics SDK has it. It has no
// resource: these may be too many as well.
func (a *aggregate) overflowOf(m *maker) *series {
	a.overflow.Inc()
	if m.overflow == nil {
		m.overflow = &series{
			place: &place{is: &creel.Origin{Scope: scope}}, kind: m.kind, made: m,
			attrs: creel.Attrs{{Key: "otel.metric.overflow", Value: creel.Bool(true)}},
		}
		a.table.series = append(a.table.series, m.overflow)
		a.table.extra++
	}
	return m.overflow
}
