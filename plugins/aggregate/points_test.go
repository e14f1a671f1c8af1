package aggregate

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/otlp"
)

var (
	gauge = &creel.Descriptor{Name: "g", Kind: creel.Gauge}
	delta = &creel.Descriptor{Name: "d", Kind: creel.Sum, Temporality: creel.Delta, Monotonic: true}
	total = &creel.Descriptor{Name: "t", Kind: creel.Sum, Temporality: creel.Cumulative, Monotonic: true}
	level = &creel.Descriptor{Name: "l", Kind: creel.Sum, Temporality: creel.Cumulative}
	hist  = &creel.Descriptor{Name: "h", Kind: creel.HistogramKind, Temporality: creel.Delta}
	histT = &creel.Descriptor{Name: "ht", Kind: creel.HistogramKind, Temporality: creel.Cumulative}
)

func point(d *creel.Descriptor, start, at int64, v int64, as ...any) creel.Metric {
	return creel.Metric{Desc: d, Start: start, Time: at, Value: creel.Int(v), Attrs: attrs(as...)}
}

func histogram(d *creel.Descriptor, start, at int64, bounds []float64, counts ...uint64) creel.Metric {
	h := &creel.Histogram{Bounds: bounds, Counts: counts, Sum: creel.Optional{Value: 1, Valid: true}}
	for _, n := range counts {
		h.Count += n
	}
	return creel.Metric{Desc: d, Start: start, Time: at, Histogram: h}
}

func TestGauge(t *testing.T) {
	f := func(mode, want string) {
		t.Helper()
		s := newStand(t, "{points: {gauge: "+mode+"}}")
		s.points(point(gauge, 0, 2, 10), point(gauge, 0, 4, 2))
		s.points(point(gauge, 0, 3, 6))
		s.expect()
		s.flush("g{}[0 4]" + want)
		s.flush()
		s.points(point(gauge, 0, 5, 1))
		s.flush("g{}[0 5]1")
	}
	f("last", "2")
	f("min", "2")
	f("max", "10")
	f("mean", "6")
	f("sum", "18")
}

func TestSums(t *testing.T) {
	s := newStand(t, "{points: {}}")
	s.points(point(delta, 10, 20, 5), point(delta, 20, 30, 7), point(total, 1, 20, 100), point(total, 1, 30, 110), point(total, 1, 25, 105))
	s.points(point(delta, 30, 40, 1, "a", "b"))
	s.flush("d{}[10 30]12", "t{}[1 30]110", `d{"a":"b"}[30 40]1`)
	s.points(point(delta, 30, 40, 1), point(total, 1, 40, 120))
	s.flush("d{}[30 40]1", "t{}[1 40]120")
	s.points(point(delta, 40, 50, math.MaxInt64), point(delta, 50, 60, 1), creel.Metric{Desc: gauge, Time: 1, Value: creel.Double(0.5)})
	s.flush("d{}[40 60]9.223372036854776e+18", "g{}[0 1]0.5")
}

func TestHistograms(t *testing.T) {
	s := newStand(t, "{points: {}}")
	bounds := []float64{1, 2}
	s.points(histogram(hist, 1, 2, bounds, 1, 2, 3), histogram(hist, 2, 3, []float64{1, 2}, 1, 0, 0), histogram(hist, 3, 4, []float64{7}, 1, 1))
	s.expect("h{}[3 4]n=2 sum=1 min=0 max=0 [7] [1 1]") // other bounds: it passes
	s.flush("h{}[1 3]n=7 sum=2 min=0 max=0 [1 2] [2 2 3]")
	s.points(histogram(hist, 3, 4, []float64{7}, 1, 1), histogram(histT, 1, 4, bounds, 5, 0, 0), histogram(histT, 1, 5, []float64{3}, 6, 0))
	s.flush("h{}[3 4]n=2 sum=1 min=0 max=0 [7] [1 1]", "ht{}[1 5]n=6 sum=1 min=0 max=0 [3] [6 0]")
}

// TestPasses: what cannot be aggregated passes as it is, a batch of nothing else with its bytes.
func TestPasses(t *testing.T) {
	s := newStand(t, "{points: {where: 'name != \"x\"'}}")
	s.points(
		creel.Metric{Desc: gauge, Flags: 1}, point(gauge, 0, 1, 1), creel.Metric{Desc: delta},
		creel.Metric{Desc: &creel.Descriptor{Name: "e", Kind: creel.ExponentialKind, Temporality: creel.Delta}, Exponential: &creel.ExponentialHistogram{}},
		creel.Metric{Desc: &creel.Descriptor{Name: "s", Kind: creel.SummaryKind}, Summary: &creel.Summary{}},
		histogram(hist, 1, 2, []float64{1}, 1), point(&creel.Descriptor{Name: "x", Kind: creel.Gauge}, 0, 1, 1),
	)
	s.expect("g{}[0 0]null", "d{}[0 0]null", "e{}[0 0]null", "s{}[0 0]null", "h{}[1 2]n=1 sum=1 min=0 max=0 [1] [1]", "x{}[0 1]1")
	s.flush("g{}[0 1]1")
	s = newStand(t, "{metrics: [{name: n}]}")
	s.points(point(gauge, 0, 1, 1))
	s.expect("g{}[0 1]1")

	wire := otlp.Append(nil, creel.NewMetrics([]creel.Metric{{Origin: &creel.Origin{}, Desc: &creel.Descriptor{Name: "s", Kind: creel.SummaryKind}, Summary: &creel.Summary{}}}))
	b, err := otlp.Parse(creel.Metrics, wire, nil)
	if err != nil {
		t.Fatal(err)
	}
	s = newStand(t, "{points: {}}")
	if pass, _ := s.a.takePoints(b, &scratch{}); pass != b || b.Wire() == nil {
		t.Error("the bytes do not pass")
	}
}

// TestIdentity: series are told apart by all but description, order of attributes, and which pointer came.
func TestIdentity(t *testing.T) {
	s := newStand(t, "{points: {gauge: sum}}")
	other := *gauge
	other.Description = "other"
	unit := *gauge
	unit.Unit = "s"
	scoped := point(gauge, 0, 1, 16)
	scoped.Origin = &creel.Origin{Scope: creel.Scope{Name: "lib"}}
	resource := point(gauge, 0, 1, 32)
	resource.Origin = &creel.Origin{Resource: creel.Resource{Attrs: attrs("r", 1)}}
	s.points(point(gauge, 0, 1, 1, "a", 1, "b", 2), point(&other, 0, 1, 2, "b", 2, "a", 1), point(gauge, 0, 1, 4, "a", 1), point(&unit, 0, 1, 8, "a", 1, "b", 2), scoped, resource)
	s.flush(`g{"a":1,"b":2}[0 1]3`, `g{"a":1}[0 1]4`, `g{"a":1,"b":2}[0 1]8`, `g{}[0 1]16`, `g{}{"r":1}[0 1]32`)
}

func TestDropAttributes(t *testing.T) {
	s := newStand(t, "{points: {gauge: max, drop_attributes: [pid]}}")
	s.points(point(gauge, 0, 1, 5, "pid", 1, "x", 1), point(gauge, 0, 1, 7, "x", 1, "pid", 2), point(gauge, 0, 1, 3), point(delta, 1, 2, 5, "pid", 1), point(delta, 1, 2, 7, "pid", 2))
	s.flush(`g{"x":1}[0 1]7`, "g{}[0 1]3", "d{}[1 2]12")
	s = newStand(t, "{points: {gauge: max, keep_attributes: [x]}}")
	s.points(point(gauge, 0, 1, 5, "pid", 1, "x", 1), point(gauge, 0, 1, 7, "x", 1, "pid", 2), point(gauge, 0, 1, 3))
	s.flush(`g{"x":1}[0 1]7`, "g{}[0 1]3")
}

// TestGroups: without an attribute, cumulative series add up to one that grows on.
func TestGroups(t *testing.T) {
	s := newStand(t, "{points: {drop_attributes: [pid]}}")
	s.points(point(total, 5, 10, 100, "pid", 1), point(total, 6, 10, 10, "pid", 2), point(level, 1, 10, 7, "pid", 1), point(level, 1, 10, 8, "pid", 2))
	s.flush("t{}[5 10]110", "l{}[1 10]15")
	s.points(point(total, 5, 20, 105, "pid", 1)) // nothing of the other
	s.flush("t{}[5 20]115")
	s.points(point(total, 25, 30, 3, "pid", 1), point(total, 6, 30, 11, "pid", 2)) // the first begins anew
	s.flush("t{}[5 30]119")
	s.points(point(total, 35, 40, 8, "pid", 1)) // again, and is beyond what it had
	s.flush("t{}[5 40]127")
	for i := range int64(2 * idleLimit) { // the first has ended
		at := 50 + 10*i
		s.points(point(total, 6, at, 12, "pid", 2), point(level, 1, at, 9, "pid", 2))
		s.a.flush(s)
		if got := s.out[0]; got != fmt.Sprintf("t{}[5 %d]128", at) {
			t.Errorf("after %d intervals: %s", i, got)
		}
		if i == 2*idleLimit-1 && s.out[1] != fmt.Sprintf("l{}[1 %d]9", at) {
			t.Errorf("a level has what has ended: %s", s.out[1])
		}
		s.out = nil
	}
	if n := len(s.a.table.series); n != 4 {
		t.Errorf("%d series are left, not two groups with a member each", n)
	}
	bounds := []float64{1}
	h := func(pid int, at int64, counts ...uint64) creel.Metric {
		m := histogram(histT, 1, at, bounds, counts...)
		m.Attrs = attrs("pid", pid)
		return m
	}
	s.points(h(1, 10, 1, 2), h(2, 10, 10, 20))
	s.flush("ht{}[1 10]n=33 sum=2 min=0 max=0 [1] [11 22]")
	s.points(h(1, 20, 1, 0))
	s.flush("ht{}[1 20]n=34 sum=3 min=0 max=0 [1] [12 22]")
	other := h(3, 30, 1, 0)
	other.Histogram.Bounds = []float64{2}
	s.points(other)
	s.flush(`ht{"pid":3}[1 30]n=1 sum=1 min=0 max=0 [2] [1 0]`)
}

func TestMaxSeries(t *testing.T) {
	s := newStand(t, "{points: {}, max_series: 2}")
	s.points(point(gauge, 0, 1, 1), point(gauge, 0, 1, 2, "a", 1), point(gauge, 0, 1, 3, "a", 2), point(gauge, 0, 2, 4))
	s.expect(`g{"a":2}[0 1]3`)
	if n := s.counted("creel.aggregate.overflow"); n != 1 {
		t.Errorf("counted %v", n)
	}
	s.flush(`g{}[0 2]4`, `g{"a":1}[0 1]2`)
	s.points(point(gauge, 0, 1, 1))
	s.flush(`g{}[0 1]1`) // after which the other is given up
	s.points(point(gauge, 0, 1, 3, "a", 2))
	s.flush(`g{"a":2}[0 1]3`)
	for i := range 100 { // many origins and descriptors
		m := point(&creel.Descriptor{Name: fmt.Sprint(i), Kind: creel.Gauge}, 0, 1, 1)
		m.Origin = &creel.Origin{Resource: creel.Resource{Attrs: attrs("i", i)}}
		s.points(m)
	}
	if s.a.table.places.n > 2 || s.a.table.kinds.n > 2 || len(s.out) < 98 {
		t.Errorf("%d origins, %d descriptors, %d passed", s.a.table.places.n, s.a.table.kinds.n, len(s.out))
	}
	s.a.flush(s)
	for range idleLimit + 1 {
		s.a.flush(s)
	}
	if n := len(s.a.table.series) + s.a.table.places.n + s.a.table.kinds.n + len(s.a.table.byHash); n != 0 {
		t.Errorf("%d things are remembered", n)
	}
}

// TestAcknowledged: whoever waits for a point is told with the one that it has become part of.
func TestAcknowledged(t *testing.T) {
	s := newStand(t, "{points: {}}")
	first, second := s.points(point(gauge, 0, 1, 1)), s.points(point(gauge, 0, 1, 1), point(gauge, 0, 1, 1, "a", 1))
	if *first == nil || *second == nil {
		t.Error("told of points that are not yet sent")
	}
	s.err = errors.New("refused")
	s.a.flush(s)
	if !errors.Is(*first, s.err) || !errors.Is(*second, s.err) {
		t.Errorf("told %v and %v", *first, *second)
	}
	s = newStand(t, "{points: {}, ack: memory}")
	if first := s.points(point(gauge, 0, 1, 1)); *first != nil {
		t.Errorf("not told: %v", *first)
	}
	s.flush("g{}[0 1]1")
}

// TestModel compares deltas, over intervals that end now and then, with sums in a map; series come and go.
func TestModel(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	s := newStand(t, "{points: {drop_attributes: [pid]}, max_series: 60}")
	s.quiet = true
	want := map[string]int64{}
	got := map[string]int64{}
	for round := range 600 {
		var list []creel.Metric
		for range r.IntN(20) {
			k, v := r.IntN(15)+round/100*15, r.Int64N(100)
			want[fmt.Sprint(k)] += v
			list = append(list, point(delta, 1, 2, v, "pid", r.IntN(3), "k", k))
		}
		s.points(list...)
		if r.IntN(10) == 0 {
			out := s.a.collect(1)
			if out == nil {
				continue
			}
			for _, m := range out.Metrics() {
				k, _ := m.Attrs.Get("k")
				got[k.String()] += m.Value.Int()
			}
			s.Send(out)
			s.expect()
		}
	}
	if out := s.a.collect(1); out != nil {
		for _, m := range out.Metrics() {
			k, _ := m.Attrs.Get("k")
			got[k.String()] += m.Value.Int()
		}
		s.Send(out)
	}
	if s.counted("creel.aggregate.overflow") > 0 {
		t.Errorf("seed %d: series were too many", seed)
	}
	if fmt.Sprint(want) != fmt.Sprint(got) {
		t.Errorf("seed %d: summed up %v, not %v", seed, got, want)
	}
	s.expect()
}
