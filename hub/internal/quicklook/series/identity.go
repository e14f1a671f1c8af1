package series

import (
	"hash/maphash"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/otlptranslator"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"

	"github.com/creelhq/creel"
)

// An identity is what the points of one stream have in common, and the series that they go to: one for a number, several
// for a histogram or a summary.
type identity struct {
	resource    uint64 // hash of what is taken of the resource
	name, unit  string
	kind        creel.MetricKind
	monotonic   bool
	temporality creel.Temporality
	attrs       creel.Attrs
	bounds      []float64 // of a histogram; quantiles of a summary

	labels []labels.Labels
	refs   []storage.SeriesRef
	sum    []float64 // of deltas: what was counted so far; nil: it is cumulative
	last   int64     // of deltas: the time of the last sample
	buf    []float64
	hash   uint64
	seen   time.Time
}

type label struct{ name, value string }

// identify finds the identity of a point, or makes it. It returns nil when the point cannot be a series. An error is one
// of the database.
func (w *writer) identify(m *creel.Metric) (*identity, error) {
	if m.Origin != w.origin || m.Origin == nil {
		w.setOrigin(m.Origin)
	}
	var h maphash.Hash
	h.SetSeed(w.s.seed)
	maphash.WriteComparable(&h, w.originHash)
	h.WriteString(m.Desc.Name)
	h.WriteByte(byte(m.Desc.Kind))
	h.WriteString(m.Desc.Unit)
	for i := range m.Attrs {
		h.WriteString(m.Attrs[i].Key)
		h.WriteByte(0)
		if v := m.Attrs[i].Value; v.Kind() == creel.ValueString {
			h.WriteString(v.Str())
		} else {
			h.WriteString(v.String())
		}
		h.WriteByte(1)
	}
	sum := h.Sum64()
	if id := w.s.identities[sum]; id != nil && id.is(m, w.originHash) {
		id.seen = w.now
		return id, nil
	}
	id, err := w.newIdentity(m)
	if id == nil || err != nil {
		return nil, err
	}
	id.hash = sum
	w.s.identities[sum] = id // of two with the same hash, the last one is remembered
	return id, nil
}

// is reports whether the point belongs to id.
func (id *identity) is(m *creel.Metric, resource uint64) bool {
	d := m.Desc
	return id.resource == resource && id.name == d.Name && id.unit == d.Unit && id.kind == d.Kind && id.monotonic == d.Monotonic &&
		id.temporality == d.Temporality && id.attrs.Equal(m.Attrs) && slices.Equal(id.bounds, boundsOf(m, id.bounds))
}

// boundsOf returns what the series of a point differ in. into is memory to compare with, not changed.
func boundsOf(m *creel.Metric, known []float64) []float64 {
	switch {
	case m.Histogram != nil:
		return m.Histogram.Bounds
	case m.Summary != nil:
		if len(known) == len(m.Summary.Quantiles) && !slices.ContainsFunc(m.Summary.Quantiles, func(q creel.Quantile) bool { return !slices.Contains(known, q.Q) }) {
			return known
		}
		qs := make([]float64, len(m.Summary.Quantiles))
		for i, q := range m.Summary.Quantiles {
			qs[i] = q.Q
		}
		return qs
	}
	return nil
}

// setOrigin takes from a resource what becomes labels.
func (w *writer) setOrigin(o *creel.Origin) {
	w.origin, w.originLabels = o, w.originLabels[:0]
	var namespace, service, instance string
	if o != nil {
		for _, a := range o.Resource.Attrs {
			switch {
			case a.Key == "service.name":
				service = a.Value.String()
			case a.Key == "service.namespace":
				namespace = a.Value.String()
			case a.Key == "service.instance.id":
				instance = a.Value.String()
			case a.Key != "host.name" && a.Key != "creel.agent.id" && !strings.HasPrefix(a.Key, "k8s.") && !strings.HasPrefix(a.Key, "service."):
				continue
			}
			w.originLabels = append(w.originLabels, label{labelName(a.Key), strings.Clone(a.Value.String())})
		}
	}
	if service != "" {
		job := service
		if namespace != "" {
			job = namespace + "/" + service
		}
		w.originLabels = append(w.originLabels, label{"job", job})
	}
	if instance != "" {
		w.originLabels = append(w.originLabels, label{"instance", strings.Clone(instance)})
	}
	var h maphash.Hash
	h.SetSeed(w.s.seed)
	for _, l := range w.originLabels {
		h.WriteString(l.name)
		h.WriteByte(0)
		h.WriteString(l.value)
		h.WriteByte(0)
	}
	w.originHash = h.Sum64()
}

func labelName(key string) string {
	namer := otlptranslator.LabelNamer{}
	name, err := namer.Build(key)
	if err != nil {
		return "key_empty"
	}
	return name
}

var kinds = map[creel.MetricKind]otlptranslator.MetricType{
	creel.Gauge: otlptranslator.MetricTypeGauge, creel.Sum: otlptranslator.MetricTypeNonMonotonicCounter, creel.HistogramKind: otlptranslator.MetricTypeHistogram,
	creel.ExponentialKind: otlptranslator.MetricTypeExponentialHistogram, creel.SummaryKind: otlptranslator.MetricTypeSummary,
}

// newIdentity makes the labels of a point's series.
func (w *writer) newIdentity(m *creel.Metric) (*identity, error) {
	d := m.Desc
	kind := kinds[d.Kind]
	if d.Kind == creel.Sum && d.Monotonic {
		kind = otlptranslator.MetricTypeMonotonicCounter
	}
	namer := otlptranslator.NewMetricNamer("", otlptranslator.UnderscoreEscapingWithSuffixes)
	name, err := namer.Build(otlptranslator.Metric{Name: d.Name, Unit: d.Unit, Type: kind})
	if err != nil {
		return nil, nil
	}
	id := &identity{
		resource: w.originHash, name: strings.Clone(d.Name), unit: strings.Clone(d.Unit), kind: d.Kind, monotonic: d.Monotonic, temporality: d.Temporality,
		attrs: m.Attrs.Clone(), bounds: slices.Clone(boundsOf(m, nil)), seen: w.now,
	}
	add := func(name string, more ...label) { id.labels = append(id.labels, w.labels(name, id.attrs, more)) }
	switch {
	case m.Histogram != nil:
		if len(m.Histogram.Counts) > 0 && len(m.Histogram.Counts) != len(id.bounds)+1 {
			return nil, nil
		}
		for _, b := range id.bounds {
			add(name+"_bucket", label{"le", formatFloat(b)})
		}
		add(name+"_bucket", label{"le", "+Inf"})
		add(name + "_count")
		add(name + "_sum")
	case m.Summary != nil:
		for _, q := range id.bounds {
			add(name, label{"quantile", formatFloat(q)})
		}
		add(name + "_count")
		add(name + "_sum")
	case d.Kind == creel.HistogramKind || d.Kind == creel.SummaryKind || d.Kind == creel.MetricNone:
		return nil, nil
	default:
		add(name)
	}
	id.refs, id.buf = make([]storage.SeriesRef, len(id.labels)), make([]float64, len(id.labels))
	if d.Temporality == creel.Delta {
		id.sum = make([]float64, len(id.labels))
		if err := w.resume(id); err != nil {
			return nil, err
		}
	}
	w.s.metadata[name] = metadata{promType(d), strings.Clone(d.Description), strings.Clone(d.Unit)}
	return id, nil
}

func formatFloat(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

func promType(d *creel.Descriptor) string {
	switch {
	case d.Kind == creel.Sum && d.Monotonic:
		return "counter"
	case d.Kind == creel.Gauge || d.Kind == creel.Sum:
		return "gauge"
	case d.Kind == creel.SummaryKind:
		return "summary"
	}
	return "histogram"
}

// labels returns a series' labels. Attributes whose names become the same are joined, as the specification says.
func (w *writer) labels(name string, attrs creel.Attrs, more []label) labels.Labels {
	b := labels.NewScratchBuilder(len(attrs) + len(w.originLabels) + 2)
	all := make(map[string]string, len(attrs)+len(w.originLabels)+2)
	for _, l := range w.originLabels {
		all[l.name] = l.value
	}
	own := make(map[string]bool, len(attrs))
	for _, a := range attrs {
		k, v := labelName(a.Key), strings.ToValidUTF8(a.Value.String(), "\uFFFD")
		if own[k] {
			v = all[k] + ";" + v
		}
		own[k], all[k] = true, v
	}
	for _, l := range more {
		all[l.name] = l.value
	}
	all[model.MetricNameLabel] = name
	for k, v := range all {
		if v != "" { // an empty label is none
			b.Add(k, v)
		}
	}
	b.Sort()
	return b.Labels()
}

// values returns the samples of a point, in the order of id's series. They are valid until the next call. Those of deltas
// are counted when they are stored: see count.
func (id *identity) values(m *creel.Metric) []float64 {
	vs := id.buf[:0]
	stale := math.Float64frombits(value.StaleNaN)
	switch {
	case m.Histogram != nil:
		h, total := m.Histogram, uint64(0)
		for i := range id.bounds {
			if i < len(h.Counts) {
				total += h.Counts[i]
			}
			vs = append(vs, float64(total))
		}
		vs = append(vs, float64(h.Count), float64(h.Count), h.Sum.Value)
	case m.Summary != nil:
		for _, q := range m.Summary.Quantiles {
			vs = append(vs, q.Value)
		}
		return append(vs, float64(m.Summary.Count), m.Summary.Sum) // it is never a delta
	case m.Value.Kind() == creel.ValueEmpty:
		return append(vs, stale) // a point that says that there is no value
	case m.Value.Kind() == creel.ValueInt:
		vs = append(vs, float64(m.Value.Int()))
	default:
		vs = append(vs, m.Value.Double())
	}
	for i := range id.sum {
		vs[i] += id.sum[i]
	}
	return vs
}
