package otlp

import (
	"math"

	"github.com/creelhq/creel"
)

func metricOrigin(m *creel.Metric) *creel.Origin { return m.Origin }

// metrics writes data points of one origin, neighbours of one descriptor as one metric.
func (e encoder) metrics(records []creel.Metric) encoder {
	none := creel.Descriptor{Kind: creel.Gauge}
	for n := len(records); n > 0; {
		desc := records[n-1].Desc
		i := n - 1
		for i > 0 && records[i-1].Desc == desc {
			i--
		}
		if desc == nil {
			desc = &none
		}
		e.metric(desc, records[i:n])
		n = i
	}
	return e
}

func (e *encoder) metric(desc *creel.Descriptor, points []creel.Metric) {
	end := e.written()
	e.attrs(12, desc.Metadata)
	inner := e.written()
	data := 5
	switch desc.Kind {
	case creel.Sum:
		data = 7
		if desc.Monotonic {
			e.varint(3, 1)
		}
		e.varint(2, uint64(desc.Temporality))
	case creel.HistogramKind:
		data = 9
		e.varint(2, uint64(desc.Temporality))
	case creel.ExponentialKind:
		data = 10
		e.varint(2, uint64(desc.Temporality))
	case creel.SummaryKind:
		data = 11
	}
	for i := len(points) - 1; i >= 0; i-- {
		m := &points[i]
		start := e.written()
		switch desc.Kind {
		case creel.HistogramKind:
			e.histogram(m)
		case creel.ExponentialKind:
			e.exponential(m)
		case creel.SummaryKind:
			e.summary(m)
		default:
			e.number(m)
		}
		e.close(1, start)
	}
	e.close(data, inner)
	e.string(3, desc.Unit)
	e.string(2, desc.Description)
	e.string(1, desc.Name)
	e.close(2, end)
}

func (e *encoder) number(m *creel.Metric) {
	e.varint(8, uint64(m.Flags))
	e.attrs(7, m.Attrs)
	e.asInt(6, m.Value)
	e.exemplars(5, m.Exemplars)
	e.asDouble(4, m.Value)
	e.times(m)
}

func (e *encoder) times(m *creel.Metric) {
	e.fixed64(3, uint64(m.Time))
	e.fixed64(2, uint64(m.Start))
}

func (e *encoder) asInt(num int, v creel.Number) {
	if v.Kind() == creel.ValueInt {
		e.room(maxHeader)
		e.putFixed64(num, uint64(v.Int()))
	}
}

func (e *encoder) asDouble(num int, v creel.Number) {
	if v.Kind() == creel.ValueDouble {
		e.room(maxHeader)
		e.putFixed64(num, math.Float64bits(v.Double()))
	}
}

func (e *encoder) histogram(m *creel.Metric) {
	h := m.Histogram
	if h == nil {
		h = &creel.Histogram{}
	}
	e.optional(12, h.Max)
	e.optional(11, h.Min)
	e.varint(10, uint64(m.Flags))
	e.attrs(9, m.Attrs)
	e.exemplars(8, m.Exemplars)
	e.doubles(7, h.Bounds)
	e.fixed64s(6, h.Counts)
	e.optional(5, h.Sum)
	e.fixed64(4, h.Count)
	e.times(m)
}

func (e *encoder) exponential(m *creel.Metric) {
	h := m.Exponential
	if h == nil {
		h = &creel.ExponentialHistogram{}
	}
	e.double(14, h.ZeroThreshold)
	e.optional(13, h.Max)
	e.optional(12, h.Min)
	e.exemplars(11, m.Exemplars)
	e.varint(10, uint64(m.Flags))
	e.buckets(9, &h.Negative)
	e.buckets(8, &h.Positive)
	e.fixed64(7, h.ZeroCount)
	e.sint32(6, h.Scale)
	e.optional(5, h.Sum)
	e.fixed64(4, h.Count)
	e.times(m)
	e.attrs(1, m.Attrs)
}

func (e *encoder) buckets(num int, h *creel.Buckets) {
	end := e.written()
	if len(h.Counts) > 0 {
		e.room(len(h.Counts) * maxHeader)
		for i := len(h.Counts) - 1; i >= 0; i-- {
			e.putVarint(h.Counts[i])
		}
		e.close(2, end)
	}
	e.sint32(1, h.Offset)
	if e.written() > end {
		e.close(num, end)
	}
}

func (e *encoder) summary(m *creel.Metric) {
	s := m.Summary
	if s == nil {
		s = &creel.Summary{}
	}
	e.varint(8, uint64(m.Flags))
	e.attrs(7, m.Attrs)
	for i := len(s.Quantiles) - 1; i >= 0; i-- {
		end := e.written()
		e.double(2, s.Quantiles[i].Value)
		e.double(1, s.Quantiles[i].Q)
		e.close(6, end)
	}
	e.double(5, s.Sum)
	e.fixed64(4, s.Count)
	e.times(m)
}

func (e *encoder) exemplars(num int, xs []creel.Exemplar) {
	for i := len(xs) - 1; i >= 0; i-- {
		x := &xs[i]
		end := e.written()
		e.attrs(7, x.Attrs)
		e.asInt(6, x.Value)
		e.traceID(5, x.TraceID)
		e.spanID(4, x.SpanID)
		e.asDouble(3, x.Value)
		e.fixed64(2, uint64(x.Time))
		e.close(num, end)
	}
}

func (e *encoder) optional(num int, f creel.Optional) {
	if f.Valid {
		e.room(maxHeader)
		e.putFixed64(num, math.Float64bits(f.Value))
	}
}

func (e *encoder) fixed64s(num int, ns []uint64) {
	if len(ns) > 0 {
		e.room(8*len(ns) + maxHeader)
		end := e.written()
		for i := len(ns) - 1; i >= 0; i-- {
			e.putBits(ns[i])
		}
		e.close(num, end)
	}
}

func (e *encoder) doubles(num int, fs []float64) {
	if len(fs) > 0 {
		e.room(8*len(fs) + maxHeader)
		end := e.written()
		for i := len(fs) - 1; i >= 0; i-- {
			e.putBits(math.Float64bits(fs[i]))
		}
		e.close(num, end)
	}
}
