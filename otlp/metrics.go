package otlp

import (
	"math"

	"github.com/creelhq/creel"
)

// metrics decodes the data points of a scope group.
func (d *decoder) metrics(b []byte, o *creel.Origin) {
	for p := 0; p < len(b); {
		if b[p] != tagInner {
			p = skip(b, p, 0)
			continue
		}
		var m []byte
		m, p = bytesAt(b, p+1)
		d.metric(m, o)
	}
}

// metric decodes the data points of a metric: first what they share, which may stand after them.
func (d *decoder) metric(b []byte, o *creel.Origin) {
	desc := &creel.Descriptor{}
	data, from := uint64(0), 0 // the last of the oneof's fields to be set, and where it was first set in a row
	for p := 0; p < len(b); {
		tag, q := varint(b, p)
		switch tag {
		case 1<<3 | wireBytes:
			desc.Name, p = stringAt(b, q)
		case 2<<3 | wireBytes:
			desc.Description, p = stringAt(b, q)
		case 3<<3 | wireBytes:
			desc.Unit, p = stringAt(b, q)
		case 12<<3 | wireBytes:
			desc.Metadata, p = attrsAt(d.own, desc.Metadata, b, p)
		default:
			if kind := dataKind(tag); kind != creel.MetricNone {
				if tag != data {
					data, from = tag, p
					desc.Kind, desc.Temporality, desc.Monotonic = kind, 0, false
				}
				var group []byte
				group, p = bytesAt(b, q)
				describe(group, desc)
				continue
			}
			p = skip(b, p, 0)
		}
	}
	for p := from; p < len(b) && data != 0; {
		tag, q := varint(b, p)
		if tag != data {
			p = skip(b, p, 0)
			continue
		}
		var group []byte
		group, p = bytesAt(b, q)
		d.points(group, o, desc)
	}
}

// dataKind returns which kind of metric the field with this tag makes, if any.
func dataKind(tag uint64) creel.MetricKind {
	switch tag {
	case 5<<3 | wireBytes:
		return creel.Gauge
	case 7<<3 | wireBytes:
		return creel.Sum
	case 9<<3 | wireBytes:
		return creel.HistogramKind
	case 10<<3 | wireBytes:
		return creel.ExponentialKind
	case 11<<3 | wireBytes:
		return creel.SummaryKind
	}
	return creel.MetricNone
}

// describe reads what stands beside the data points.
func describe(b []byte, desc *creel.Descriptor) {
	for p := 0; p < len(b); {
		tag, q := varint(b, p)
		var n uint64
		switch {
		case tag == tagItem:
			_, p = bytesAt(b, q)
		case tag == 2<<3 && desc.Kind != creel.Gauge && desc.Kind != creel.SummaryKind:
			n, p = varint(b, q)
			desc.Temporality = temporality(n)
		case tag == 3<<3 && desc.Kind == creel.Sum:
			n, p = varint(b, q)
			desc.Monotonic = n != 0
		default:
			p = skip(b, p, 0)
		}
	}
}

// temporality takes numbers that OTLP does not define for unspecified.
func temporality(n uint64) creel.Temporality {
	if n > uint64(creel.Cumulative) {
		return creel.TemporalityUnspecified
	}
	return creel.Temporality(n)
}

// points decodes the data points in a metric's data.
func (d *decoder) points(b []byte, o *creel.Origin, desc *creel.Descriptor) {
	for p := 0; p < len(b); {
		if b[p] != tagItem {
			p = skip(b, p, 0)
			continue
		}
		n := run(b, p)
		d.r.Metrics = grow(d.r.Metrics, n)
		for range n {
			var point []byte
			point, p = bytesAt(b, p+1)
			d.r.Metrics = append(d.r.Metrics, creel.Metric{Origin: o, Desc: desc})
			m := &d.r.Metrics[len(d.r.Metrics)-1]
			switch desc.Kind {
			case creel.HistogramKind:
				d.histogram(point, m)
			case creel.ExponentialKind:
				d.exponential(point, m)
			case creel.SummaryKind:
				d.summary(point, m)
			default:
				d.number(point, m)
			}
		}
	}
}

func (d *decoder) number(b []byte, m *creel.Metric) {
	for p := 0; p < len(b); {
		tag, q := varint(b, p)
		var n uint64
		switch tag {
		case 2<<3 | wireFixed64:
			m.Start, p = timeAt(b, q)
		case 3<<3 | wireFixed64:
			m.Time, p = timeAt(b, q)
		case 4<<3 | wireFixed64:
			n, p = fixed64At(b, q)
			m.Value = creel.Double(math.Float64frombits(n))
		case 5<<3 | wireBytes:
			p = d.exemplars(b, p, m)
		case 6<<3 | wireFixed64:
			n, p = fixed64At(b, q)
			m.Value = creel.Int(int64(n))
		case 7<<3 | wireBytes:
			m.Attrs, p = attrsAt(d.r, m.Attrs, b, p)
		case 8 << 3:
			m.Flags, p = uint32At(b, q)
		default:
			p = skip(b, p, 0)
		}
	}
}

func (d *decoder) histogram(b []byte, m *creel.Metric) {
	h := &d.r.Histograms.Make(1)[0]
	m.Histogram = h
	for p := 0; p < len(b); {
		tag, q := varint(b, p)
		switch tag {
		case 2<<3 | wireFixed64:
			m.Start, p = timeAt(b, q)
		case 3<<3 | wireFixed64:
			m.Time, p = timeAt(b, q)
		case 4<<3 | wireFixed64:
			h.Count, p = fixed64At(b, q)
		case 5<<3 | wireFixed64:
			h.Sum, p = optionalAt(b, q)
		case 6<<3 | wireBytes, 6<<3 | wireFixed64:
			h.Counts, p = numbersAt(&d.r.Uint64s, h.Counts, b, p, fixed64At)
		case 7<<3 | wireBytes, 7<<3 | wireFixed64:
			h.Bounds, p = numbersAt(&d.r.Float64s, h.Bounds, b, p, doubleAt)
		case 8<<3 | wireBytes:
			p = d.exemplars(b, p, m)
		case 9<<3 | wireBytes:
			m.Attrs, p = attrsAt(d.r, m.Attrs, b, p)
		case 10 << 3:
			m.Flags, p = uint32At(b, q)
		case 11<<3 | wireFixed64:
			h.Min, p = optionalAt(b, q)
		case 12<<3 | wireFixed64:
			h.Max, p = optionalAt(b, q)
		default:
			p = skip(b, p, 0)
		}
	}
}

func (d *decoder) exponential(b []byte, m *creel.Metric) {
	h := &d.r.Exponentials.Make(1)[0]
	m.Exponential = h
	for p := 0; p < len(b); {
		tag, q := varint(b, p)
		var half []byte
		switch tag {
		case 1<<3 | wireBytes:
			m.Attrs, p = attrsAt(d.r, m.Attrs, b, p)
		case 2<<3 | wireFixed64:
			m.Start, p = timeAt(b, q)
		case 3<<3 | wireFixed64:
			m.Time, p = timeAt(b, q)
		case 4<<3 | wireFixed64:
			h.Count, p = fixed64At(b, q)
		case 5<<3 | wireFixed64:
			h.Sum, p = optionalAt(b, q)
		case 6 << 3:
			h.Scale, p = sint32At(b, q)
		case 7<<3 | wireFixed64:
			h.ZeroCount, p = fixed64At(b, q)
		case 8<<3 | wireBytes:
			half, p = bytesAt(b, q)
			d.buckets(half, &h.Positive)
		case 9<<3 | wireBytes:
			half, p = bytesAt(b, q)
			d.buckets(half, &h.Negative)
		case 10 << 3:
			m.Flags, p = uint32At(b, q)
		case 11<<3 | wireBytes:
			p = d.exemplars(b, p, m)
		case 12<<3 | wireFixed64:
			h.Min, p = optionalAt(b, q)
		case 13<<3 | wireFixed64:
			h.Max, p = optionalAt(b, q)
		case 14<<3 | wireFixed64:
			h.ZeroThreshold, p = doubleAt(b, q)
		default:
			p = skip(b, p, 0)
		}
	}
}

func (d *decoder) buckets(b []byte, h *creel.Buckets) {
	for p := 0; p < len(b); {
		tag, q := varint(b, p)
		switch tag {
		case 1 << 3:
			h.Offset, p = sint32At(b, q)
		case 2<<3 | wireBytes, 2 << 3:
			h.Counts, p = numbersAt(&d.r.Uint64s, h.Counts, b, p, varint)
		default:
			p = skip(b, p, 0)
		}
	}
}

func (d *decoder) summary(b []byte, m *creel.Metric) {
	s := &d.r.Summaries.Make(1)[0]
	m.Summary = s
	for p := 0; p < len(b); {
		tag, q := varint(b, p)
		switch tag {
		case 2<<3 | wireFixed64:
			m.Start, p = timeAt(b, q)
		case 3<<3 | wireFixed64:
			m.Time, p = timeAt(b, q)
		case 4<<3 | wireFixed64:
			s.Count, p = fixed64At(b, q)
		case 5<<3 | wireFixed64:
			s.Sum, p = doubleAt(b, q)
		case 6<<3 | wireBytes:
			i := len(s.Quantiles)
			s.Quantiles = extend(&d.r.Quantiles, s.Quantiles, run(b, p))
			for ; i < len(s.Quantiles); i++ {
				var one []byte
				one, p = bytesAt(b, p+1)
				s.Quantiles[i] = quantileOf(one)
			}
		case 7<<3 | wireBytes:
			m.Attrs, p = attrsAt(d.r, m.Attrs, b, p)
		case 8 << 3:
			m.Flags, p = uint32At(b, q)
		default:
			p = skip(b, p, 0)
		}
	}
}

func quantileOf(b []byte) (one creel.Quantile) {
	for p := 0; p < len(b); {
		tag, q := varint(b, p)
		switch tag {
		case 1<<3 | wireFixed64:
			one.Q, p = doubleAt(b, q)
		case 2<<3 | wireFixed64:
			one.Value, p = doubleAt(b, q)
		default:
			p = skip(b, p, 0)
		}
	}
	return one
}

// exemplars appends the exemplars at b[p:], all that follow each other.
func (d *decoder) exemplars(b []byte, p int, m *creel.Metric) int {
	i := len(m.Exemplars)
	m.Exemplars = extend(&d.r.Exemplars, m.Exemplars, run(b, p))
	for ; i < len(m.Exemplars); i++ {
		var one []byte
		one, p = bytesAt(b, p+1)
		d.exemplar(one, &m.Exemplars[i])
	}
	return p
}

func (d *decoder) exemplar(b []byte, x *creel.Exemplar) {
	for p := 0; p < len(b); {
		tag, q := varint(b, p)
		var n uint64
		switch tag {
		case 2<<3 | wireFixed64:
			x.Time, p = timeAt(b, q)
		case 3<<3 | wireFixed64:
			n, p = fixed64At(b, q)
			x.Value = creel.Double(math.Float64frombits(n))
		case 4<<3 | wireBytes:
			x.SpanID, p = spanIDAt(b, q)
		case 5<<3 | wireBytes:
			x.TraceID, p = traceIDAt(b, q)
		case 6<<3 | wireFixed64:
			n, p = fixed64At(b, q)
			x.Value = creel.Int(int64(n))
		case 7<<3 | wireBytes:
			x.Attrs, p = attrsAt(d.r, x.Attrs, b, p)
		default:
			p = skip(b, p, 0)
		}
	}
}

// numbersAt appends the numbers of the field at b[p:], packed or a single one, to ns.
func numbersAt[T any](slab *creel.Slab[T], ns []T, b []byte, p int, at func([]byte, int) (T, int)) ([]T, int) {
	tag, p := varint(b, p)
	if tag&7 != wireBytes {
		ns = extend(slab, ns, 1)
		ns[len(ns)-1], p = at(b, p)
		return ns, p
	}
	packed, p := bytesAt(b, p)
	count := 0
	for q := 0; q < len(packed); count++ {
		_, q = at(packed, q)
	}
	i := len(ns)
	ns = extend(slab, ns, count)
	for q := 0; q < len(packed); i++ {
		ns[i], q = at(packed, q)
	}
	return ns, p
}

func doubleAt(b []byte, p int) (float64, int) {
	u, p := fixed64At(b, p)
	return math.Float64frombits(u), p
}

func optionalAt(b []byte, p int) (creel.Optional, int) {
	f, p := doubleAt(b, p)
	return creel.Optional{Value: f, Valid: true}, p
}
