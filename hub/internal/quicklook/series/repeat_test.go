package series

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/metric"
)

var (
	queue = creel.ID{1}
	delta = &creel.Descriptor{Name: "d", Kind: creel.Sum, Monotonic: true, Temporality: creel.Delta}
	gauge = &creel.Descriptor{Name: "g", Kind: creel.Gauge}
)

func openStore(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(Options{Dir: dir, MaxBytes: 1 << 30, MaxAge: 24 * time.Hour, Metrics: metric.NewSet()})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// deliver stores a request.
func deliver(t testing.TB, s *Store, r creel.Request, points ...creel.Metric) {
	t.Helper()
	if err := s.Export(creel.WithRequest(t.Context(), r), []*creel.Batch{creel.NewMetrics(points)}); err != nil {
		t.Fatal(err)
	}
}

// expect evaluates an expression, which must have one value.
func expect(t *testing.T, s *Store, when time.Time, expr string, want float64) {
	t.Helper()
	rec := httptest.NewRecorder()
	q := url.Values{"query": {expr}, "time": {fmt.Sprint(when.Unix())}}
	s.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/api/v1/query?"+q.Encode(), nil))
	var answer struct {
		Data struct{ Result []struct{ Value [2]any } }
	}
	if err := json.Unmarshal(rec.Body.Bytes(), &answer); err != nil || len(answer.Data.Result) != 1 || answer.Data.Result[0].Value[1] != fmt.Sprint(want) {
		t.Errorf("%s is %s, want %v", expr, rec.Body, want)
	}
}

// TestDeltasOnce: deltas are added up once, across repeats, restarts, failures and streams that were forgotten; what is
// late counts as well.
func TestDeltasOnce(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	s := openStore(t, dir)
	point := func(seconds int) creel.Metric {
		return creel.Metric{Desc: delta, Time: now.Add(time.Duration(seconds-60) * time.Second).UnixNano(), Value: creel.Int(10)}
	}
	check := func(want float64) {
		t.Helper()
		expect(t, s, now, "last_over_time(d_total[1h])", want)
		expect(t, s, now, "resets(d_total[1h])", 0)
		expect(t, s, now, "count_over_time(d_total[1h])", want/10)
	}
	at := func(seq uint64) creel.Request { return creel.Request{Log: queue, Seq: seq} }
	for seq := range uint64(5) {
		deliver(t, s, at(seq), point(int(seq)))
	}
	deliver(t, s, at(3), point(3))
	check(50)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir)
	deliver(t, s, at(3), point(3))
	deliver(t, s, at(4), point(4))
	deliver(t, s, at(5), point(5))
	check(60)
	deliver(t, s, at(6), point(1)) // late
	deliver(t, s, creel.Request{Log: creel.ID{2}, Seq: 6}, point(7))
	check(80)
	clear(s.identities)
	deliver(t, s, at(7), point(8))
	deliver(t, s, creel.Request{}, point(9)) // not from a disk queue
	check(100)
	if n := s.repeats.Load(); n != 2 {
		t.Errorf("%d repeats were recognised", n)
	}

	w := &writer{ctx: t.Context(), s: s, app: s.db.Appender(t.Context()), now: now, lost: make(map[string]int)}
	p := point(10)
	if err := w.point(&p); err != nil {
		t.Fatal(err)
	}
	w.undo()
	check(100)
	deliver(t, s, at(8), p)
	check(110)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestSamplesOnce: samples that are stored twice are there once, also after compaction.
func TestSamplesOnce(t *testing.T) {
	s, now := openStore(t, t.TempDir()), time.Now()
	for range 3 {
		for i := range 300 {
			deliver(t, s, creel.Request{}, creel.Metric{Desc: gauge, Time: now.Add(time.Duration(i-300) * time.Second).UnixNano(), Value: creel.Int(int64(i))})
		}
	}
	expect(t, s, now, "count_over_time(g[1h])", 300)
	if err := s.db.CompactOOOHead(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(s.db.Blocks()) == 0 {
		t.Error("nothing was out of order")
	}
	expect(t, s, now, "count_over_time(g[1h])", 300)
	expect(t, s, now, "sum_over_time(g[1h])", 300*299/2)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestRequestsAreBounded: memory knows the newest requests, and after a restart they are known.
func TestRequestsAreBounded(t *testing.T) {
	dir, now := t.TempDir(), time.Now().UnixNano()
	s := openStore(t, dir)
	for seq := range uint64(remembered + 10) {
		deliver(t, s, creel.Request{Log: queue, Seq: 7 * seq}, creel.Metric{Desc: gauge, Time: now + int64(seq)*1e6, Value: creel.Int(1)})
	}
	for range 2 {
		if len(s.requests.known) != remembered || len(s.requests.order) != remembered || s.requests.known[place{queue, 7 * 9}] || !s.requests.known[place{queue, 7 * 10}] {
			t.Errorf("%d requests are known", len(s.requests.known))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openStore(t, dir)
	}
	// What comes from outside cannot pretend.
	deliver(t, s, creel.Request{}, creel.Metric{
		Desc: &creel.Descriptor{Name: markName, Kind: creel.Gauge}, Time: now, Value: creel.Int(1), Attrs: creel.Attrs{{Key: markLabel, Value: creel.String("02000000000000000000000000000000")}},
	})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir)
	if s.requests.known[place{creel.ID{2}, 1}] {
		t.Error("a metric was taken for a request")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestAllocations: no point of a known series costs an allocation of its own, the place of its request neither.
func TestAllocations(t *testing.T) {
	s, now := openStore(t, t.TempDir()), time.Now().UnixNano()
	points := make([]creel.Metric, 1000)
	for i := range points {
		attrs := creel.Attrs{{Key: "i", Value: creel.String(fmt.Sprint(i / 2))}}
		points[i] = creel.Metric{Desc: []*creel.Descriptor{delta, gauge}[i%2], Value: creel.Int(1), Attrs: attrs}
	}
	batches := []*creel.Batch{creel.NewMetrics(points)}
	seq := uint64(0)
	store := func() {
		seq++
		for i := range points {
			points[i].Time = now + int64(seq)*1e9
		}
		if err := s.Export(creel.WithRequest(t.Context(), creel.Request{Log: queue, Seq: seq}), batches); err != nil {
			t.Fatal(err)
		}
	}
	store()
	if n := testing.AllocsPerRun(20, store); n > 300 {
		t.Errorf("%v allocations for 1000 points", n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
