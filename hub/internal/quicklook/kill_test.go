package quicklook

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/metric"
)

var torture = flag.Bool("torture", false, "long runs")

const childEnv = "CREEL_QUICKLOOK_TEST_CHILD"

// TestMain lets the test be its own victim.
func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		child(dir)
	}
	os.Exit(m.Run())
}

// perRequest is how many logs or spans a request has, and hours in how many files they are at least. streams is how many there
// are of each kind of points.
const (
	perRequest = 20
	hours      = 5
	streams    = 4
)

// batch is request n: always the same. Some records are of hours before base, some have no time, some one that is not to be
// believed, or only some hours later.
func batch(seed uint64, n int, base time.Time) *creel.Batch {
	random := rand.New(rand.NewPCG(seed, uint64(n)))
	kind := random.IntN(4)
	times := make([]int64, perRequest)
	for i := range times {
		switch t := base.Add(-time.Duration(1+i)*time.Hour + time.Duration(n)*time.Millisecond); {
		case i < hours-1:
			times[i] = t.UnixNano()
		case i == hours-1: // none
		case i == hours:
			times[i] = base.Add(3 * time.Hour).UnixNano()
		case i == hours+1:
			times[i] = base.Add(-6*24*time.Hour - 22*time.Hour).UnixNano() // will be too old
		case random.IntN(4) > 0:
			times[i] = base.Add(-time.Duration(random.IntN(hours*3600)) * time.Second).UnixNano()
		}
	}
	switch kind {
	case 0:
		spans := make([]creel.Span, perRequest)
		for i := range spans {
			spans[i] = creel.Span{TraceID: trace(n), SpanID: creel.SpanID{1, byte(i)}, Name: "span", Start: times[i], End: times[i] + 1e6}
		}
		return creel.NewSpans(spans)
	case 1, 2:
		logs := make([]creel.Log, perRequest)
		for i := range logs {
			logs[i] = creel.Log{Time: times[i], Body: creel.String(fmt.Sprintf("%d %d", n, i))}
		}
		return creel.NewLogs(logs)
	}
	at := base.Add(time.Duration(n) * time.Millisecond).UnixNano()
	gauge := func(name string) *creel.Descriptor { return &creel.Descriptor{Name: name, Kind: creel.Gauge} }
	sum := &creel.Descriptor{Name: "delta", Kind: creel.Sum, Monotonic: true, Temporality: creel.Delta}
	sizes := &creel.Descriptor{Name: "sizes", Kind: creel.HistogramKind, Temporality: creel.Delta}
	native := &creel.Descriptor{Name: "native", Kind: creel.ExponentialKind, Temporality: creel.Cumulative}
	attr := func(i int) creel.Attrs { return creel.Attrs{{Key: "i", Value: creel.Int(int64(i))}} }
	var points []creel.Metric
	for i := range streams {
		late := at - int64(random.IntN(40*60))*1e9 // out of order
		points = append(points,
			creel.Metric{Desc: gauge("gauge"), Attrs: attr(i), Time: at, Value: creel.Int(int64(n))},
			creel.Metric{Desc: gauge("late"), Attrs: attr(i), Time: late, Value: creel.Int(1)},
			creel.Metric{Desc: gauge("undated"), Attrs: attr(n*streams + i), Value: creel.Int(int64(n))},
			creel.Metric{Desc: sum, Attrs: attr(i), Time: at, Value: creel.Int(int64(n))},
			creel.Metric{Desc: sizes, Attrs: attr(i), Time: late, Histogram: &creel.Histogram{Count: 3, Bounds: []float64{1}, Counts: []uint64{1, 2}}},
			creel.Metric{Desc: native, Attrs: attr(i), Time: at, Exponential: &creel.ExponentialHistogram{Count: 2, Positive: creel.Buckets{Counts: []uint64{2}}}})
	}
	return creel.NewMetrics(points)
}

func trace(n int) (id creel.TraceID) {
	id[0] = 1
	binary.BigEndian.PutUint64(id[8:], uint64(n))
	return id
}

// child delivers requests from one on, as the hub's pipelines do, until it kills itself: a moment after it has begun with as
// many as its life is long. It says on stdout what it was told
// to be stored, and how many parts of it were found to be there.
func child(dir string) {
	var seed uint64
	var first, end, life, lifetime int
	var base int64
	if _, err := fmt.Sscan(os.Getenv(childEnv+"_ARGS"), &seed, &base, &first, &end, &life, &lifetime); err != nil {
		panic(err)
	}
	begin := time.Unix(base, 0)
	m := metric.NewSet()
	s, err := Open(Options{Dir: dir, Metrics: m, now: func() time.Time { return begin.Add(time.Duration(life) * 20 * time.Minute) }})
	if err != nil {
		panic(err)
	}
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		panic(err)
	}
	repeats := m.Counter("creel.quicklook.repeats", "", "")
	for n := first; n < end; n++ {
		if n == first+lifetime { // a request takes some milliseconds
			time.AfterFunc(time.Duration(rand.IntN(8000))*time.Microsecond, func() { _ = self.Kill() })
		}
		before := repeats.Load()
		ctx := creel.WithRequest(context.Background(), creel.Request{Log: creel.ID{1}, Seq: uint64(n * perRequest)})
		b := batch(seed, n, begin)
		if err := s.export(ctx, []*creel.Batch{b}); err != nil {
			panic(fmt.Sprintf("request %d, %v: %v", n, b.Signal(), err))
		}
		fmt.Println(n, repeats.Load()-before)
	}
	_ = self.Kill()
	select {}
}

// TestKill kills a process that stores, again and again, and has a place before repeated: in the end all is there once.
func TestKill(t *testing.T) {
	end := 200
	if *torture {
		end = 10_000
	}
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	base := time.Now().Truncate(time.Second)
	dir := t.TempDir()
	t.Logf("seed %d", seed)
	next, kills, whole, part := 0, 0, make(map[creel.Signal]int), 0
	for life := 0; next < end; life++ {
		first := max(0, next-random.IntN(10))
		cmd := exec.Command(os.Args[0])
		cmd.Stderr = os.Stderr
		// The clock stands after some lives, or records would become too old.
		cmd.Env = append(os.Environ(), childEnv+"="+dir, fmt.Sprintf("%s_ARGS=%d %d %d %d %d %d", childEnv, seed, base.Unix(), first, end, min(life, 15), 10+random.IntN(10)))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for lines := bufio.NewScanner(out); lines.Scan(); {
			f := strings.Fields(lines.Text())
			n, _ := strconv.Atoi(f[0])
			repeats, _ := strconv.Atoi(f[1])
			signal := batch(seed, n, base).Signal()
			if n >= next { // it is new, or was cut
				next = n + 1
				if repeats > 0 && repeats < hours {
					part++
				}
				if repeats == 0 || signal != creel.Metrics {
					continue
				}
			} else if repeats == 0 {
				t.Errorf("request %d was stored, and not recognised", n)
			}
			whole[signal]++
		}
		if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != -1 {
			t.Fatalf("the child ended by itself: %v", err)
		}
		kills++
	}
	t.Logf("%d kills; repeats recognised %v; cut between two files %d", kills, whole, part)
	if kills < 5 || len(whole) < 3 || part == 0 {
		t.Errorf("too little has happened")
	}
	s, err := Open(Options{Dir: dir, now: func() time.Time { return base.Add(5 * time.Hour) }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	verify(t, s, seed, end, base)
}

// verify looks for each record.
func verify(t *testing.T, s *Store, seed uint64, end int, base time.Time) {
	logs := make(map[string]int)
	for q := (api.LogQuery{Window: api.Window{Start: time.Unix(0, 1), End: base.Add(1000 * time.Hour)}, Limit: 5000}); ; {
		r, err := s.Rows.SearchLogs(t.Context(), q)
		if err != nil || r.Partial != "" {
			t.Fatal(err, r.Partial)
		}
		for _, l := range r.Logs {
			var text string
			if err := json.Unmarshal(l.Body, &text); err != nil {
				t.Fatal(err)
			}
			logs[text]++
		}
		if q.Cursor = r.Next; r.Next == "" {
			break
		}
	}
	points, total := 0, 0
	late := make(map[[2]int64]bool)
	for n := range end {
		b := batch(seed, n, base)
		switch b.Signal() {
		case creel.Logs:
			for i := range perRequest {
				if got := logs[fmt.Sprintf("%d %d", n, i)]; got != 1 {
					t.Errorf("log %d of request %d is there %d times", i, n, got)
				}
			}
		case creel.Traces:
			id := trace(n)
			tr, err := s.Rows.Trace(t.Context(), id.String())
			if err != nil {
				t.Fatal(err)
			}
			seen := make(map[string]bool)
			for _, sp := range tr.Spans {
				seen[sp.SpanID] = true
			}
			if len(tr.Spans) != perRequest || len(seen) != perRequest {
				t.Errorf("of request %d are there %d spans, %d of them different", n, len(tr.Spans), len(seen))
			}
		case creel.Metrics:
			points, total = points+1, total+n
			for _, p := range b.Metrics() {
				if p.Desc.Name == "late" {
					late[[2]int64{p.Attrs[0].Value.Int(), p.Time / 1e6}] = true
				}
			}
		}
	}
	verifyPoints(t, s, base, points, total, len(late))
}

// verifyPoints asks for the points of so many requests, whose numbers are total together.
func verifyPoints(t *testing.T, s *Store, base time.Time, points, total, late int) {
	for expr, want := range map[string]int{
		`sum(count_over_time(gauge[1d]))`:                         points * streams,
		`sum(sum_over_time(gauge[1d]))`:                           total * streams,
		`sum(count_over_time(late[1d]))`:                          late,
		`sum(count_over_time(undated[1d]))`:                       points * streams,
		`sum(count_over_time(delta_total[1d]))`:                   points * streams,
		`sum(last_over_time(delta_total[1d]))`:                    total * streams,
		`sum(resets(delta_total[1d]))`:                            0,
		`sum(last_over_time(sizes_count[1d]))`:                    3 * points * streams,
		`sum(last_over_time(sizes_bucket{le="1"}[1d]))`:           points * streams,
		`sum(resets(sizes_bucket[1d]))`:                           0,
		`sum(count_over_time(sizes_count[1d]))`:                   points * streams,
		`sum(count_over_time(native[1d]))`:                        points * streams,
		`count(count_over_time({"creel.quicklook.request"}[1d]))`: 1,
	} {
		rec := httptest.NewRecorder()
		q := url.Values{"query": {expr}, "time": {fmt.Sprint(base.Add(5 * time.Hour).Unix())}}
		s.Series.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/api/v1/query?"+q.Encode(), nil))
		var answer struct {
			Data struct{ Result []struct{ Value [2]any } }
		}
		if err := json.Unmarshal(rec.Body.Bytes(), &answer); err != nil || len(answer.Data.Result) != 1 {
			t.Errorf("%s: %s", expr, rec.Body)
			continue
		}
		if got := answer.Data.Result[0].Value[1]; got != fmt.Sprint(want) {
			t.Errorf("%s is %v, want %d", expr, got, want)
		}
	}
}
