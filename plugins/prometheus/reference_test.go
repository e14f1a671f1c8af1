package prometheus

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/creelhq/creel"
)

// TestReference: of expositions that Prometheus' own library writes, it and this package read the same.
func TestReference(t *testing.T) {
	random := newRand(t)
	points := 0
	for _, format := range []expfmt.Format{
		expfmt.NewFormat(expfmt.TypeTextPlain).WithEscapingScheme(model.NoEscaping),
		expfmt.NewFormat(expfmt.TypeOpenMetrics).WithEscapingScheme(model.NoEscaping),
	} {
		open := format.FormatType() == expfmt.TypeOpenMetrics
		rounds := 40
		switch { // the reference takes long for each line
		case open && testing.Short():
			rounds = 0
		case open:
			rounds = 3
		}
		for range rounds {
			var text bytes.Buffer
			e := expfmt.NewEncoder(&text, format, expfmt.WithCreatedLines())
			for i := range random.IntN(6) {
				must(t, e.Encode(randomFamily(random, i, open)))
			}
			must(t, e.(expfmt.Closer).Close())
			want, err := reference(text.Bytes(), format)
			if err != nil {
				t.Fatalf("the reference cannot read what it has written: %v\n%s", err, text.Bytes())
			}
			c, tg := bench(t, "{}")
			ms, err := convert(c, tg, text.String(), open)
			if err != nil {
				t.Fatalf("%v in\n%s", err, text.Bytes())
			}
			var got []string
			for i := range ms {
				got = append(got, normal(&ms[i], open))
			}
			slices.Sort(got)
			points += len(got)
			if !slices.Equal(got, want) {
				t.Fatalf("got\n%s\nwant\n%s\nof\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"), text.Bytes())
			}
		}
	}
	if points < 100 {
		t.Errorf("only %d points were compared", points)
	}
}

// randomFamily returns a family of a name that no other has. What OpenMetrics forbids, such as negative counters, it has not.
func randomFamily(random *rand.Rand, number int, open bool) *dto.MetricFamily {
	pick := func(list ...string) string { return list[random.IntN(len(list))] }
	text := func() string {
		var s strings.Builder
		for range random.IntN(5) {
			s.WriteString(pick("a", " ", `\`, `"`, "\n", "ü", "{", "}", ",", "=", "#", "\t", `\n`, "日"))
		}
		return s.String()
	}
	value := func() *float64 {
		v := []float64{0, 1, 12345, 0.25, 1e100, math.Inf(1), float64(random.IntN(1e6)), random.Float64() * 1e6, 123456789012345678}[random.IntN(9)]
		return &v
	}
	count := func(above uint64) *uint64 { n := above + uint64(random.IntN(100)); return &n }
	name, help := fmt.Sprintf("%s%d", pick("family_", "a:b", "with blank ", "dots.", `q"\`), number), text()
	kind := []dto.MetricType{dto.MetricType_COUNTER, dto.MetricType_GAUGE, dto.MetricType_UNTYPED, dto.MetricType_SUMMARY, dto.MetricType_HISTOGRAM}[random.IntN(5)]
	if kind == dto.MetricType_COUNTER && !open {
		name += "_total"
	}
	f := &dto.MetricFamily{Name: &name, Help: &help, Type: &kind}
	for i := range 1 + random.IntN(3) {
		id, idValue := "id", fmt.Sprint(i)
		m := &dto.Metric{Label: []*dto.LabelPair{{Name: &id, Value: &idValue}}}
		for j := range random.IntN(3) {
			name, value := fmt.Sprintf("%s%d", pick("l", "l bl", "é"), j), "v"+text()
			m.Label = append(m.Label, &dto.LabelPair{Name: &name, Value: &value})
		}
		if random.IntN(3) == 0 {
			ms := int64(random.IntN(2e9)) * 1000
			m.TimestampMs = &ms
		}
		switch kind {
		case dto.MetricType_COUNTER:
			m.Counter = &dto.Counter{Value: value()}
		case dto.MetricType_GAUGE:
			m.Gauge = &dto.Gauge{Value: value()}
		case dto.MetricType_UNTYPED:
			m.Untyped = &dto.Untyped{Value: value()}
		case dto.MetricType_SUMMARY:
			m.Summary = &dto.Summary{SampleCount: count(0), SampleSum: value()}
			for q := range random.IntN(3) {
				quantile := float64(q) / 4
				m.Summary.Quantile = append(m.Summary.Quantile, &dto.Quantile{Quantile: &quantile, Value: value()})
			}
		case dto.MetricType_HISTOGRAM:
			n := uint64(0)
			m.Histogram = &dto.Histogram{SampleSum: value()}
			for b := range 1 + random.IntN(4) {
				bound, below := float64(b)*1.5, count(n)
				n = *below
				m.Histogram.Bucket = append(m.Histogram.Bucket, &dto.Bucket{UpperBound: &bound, CumulativeCount: below})
			}
			m.Histogram.SampleCount = count(n)
		}
		f.Metric = append(f.Metric, m)
	}
	return f
}

// reference reads an exposition with Prometheus' library, and writes it as normal does.
func reference(text []byte, format expfmt.Format) (list []string, err error) {
	d := expfmt.NewDecoder(bytes.NewReader(text), format)
	for {
		var f dto.MetricFamily
		if err := d.Decode(&f); errors.Is(err, io.EOF) {
			slices.Sort(list)
			return list, nil
		} else if err != nil {
			return nil, err
		}
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, fmt.Sprintf("%q=%q", l.GetName(), l.GetValue()))
			}
			at := testTime
			if m.TimestampMs != nil {
				at = *m.TimestampMs * 1e6
			}
			s := fmt.Sprintf("%q %q %d %s", f.GetName(), f.GetHelp(), at, labels)
			switch {
			case m.Counter != nil:
				s += fmt.Sprint(" counter ", m.Counter.GetValue())
			case m.Gauge != nil:
				s += fmt.Sprint(" gauge ", m.Gauge.GetValue())
			case m.Untyped != nil:
				s += fmt.Sprint(" gauge ", m.Untyped.GetValue())
			case m.Summary != nil:
				s += fmt.Sprint(" summary ", m.Summary.GetSampleCount(), m.Summary.GetSampleSum())
				for _, q := range m.Summary.Quantile {
					s += fmt.Sprint(" ", q.GetQuantile(), "=", q.GetValue())
				}
			case m.Histogram != nil:
				s += fmt.Sprint(" histogram ", m.Histogram.GetSampleCount(), m.Histogram.GetSampleSum())
				for _, b := range m.Histogram.Bucket {
					s += fmt.Sprint(" ", b.GetUpperBound(), "=", b.GetCumulativeCount())
				}
			}
			list = append(list, s)
		}
	}
}

// normal writes a point with all that was exposed.
func normal(m *creel.Metric, open bool) string {
	name := m.Desc.Name
	if open && m.Desc.Monotonic {
		name = strings.TrimSuffix(name, "_total")
	}
	var labels []string
	for _, a := range m.Attrs {
		labels = append(labels, fmt.Sprintf("%q=%q", a.Key, a.Value.Str()))
	}
	s := fmt.Sprintf("%q %q %d %s", name, m.Desc.Description, m.Time, labels)
	switch {
	case m.Histogram != nil:
		s += fmt.Sprint(" histogram ", m.Histogram.Count, m.Histogram.Sum.Value)
		below := uint64(0)
		for i, n := range m.Histogram.Counts {
			bound := math.Inf(1)
			if i < len(m.Histogram.Bounds) {
				bound = m.Histogram.Bounds[i]
			}
			below += n
			s += fmt.Sprint(" ", bound, "=", below)
		}
	case m.Summary != nil:
		s += fmt.Sprint(" summary ", m.Summary.Count, m.Summary.Sum)
		for _, q := range m.Summary.Quantiles {
			s += fmt.Sprint(" ", q.Q, "=", q.Value)
		}
	case m.Desc.Monotonic:
		s += fmt.Sprint(" counter ", m.Value.Double())
	default:
		s += fmt.Sprint(" gauge ", m.Value.Double())
	}
	return s
}
