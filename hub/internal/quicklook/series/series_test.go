package series_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/api"
	v1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	"go.uber.org/goleak"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/hub/internal/quicklook/series"
	"github.com/creelhq/creel/metric"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/golang/glog.(*fileSink).flushDaemon"))
}

func open(t testing.TB, dir string) *series.Store {
	t.Helper()
	s, err := series.Open(series.Options{Dir: dir, MaxBytes: 1 << 30, MaxAge: 24 * time.Hour, Metrics: metric.NewSet()})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// world is a store behind HTTP, with the official client.
type world struct {
	t      *testing.T
	store  *series.Store
	server *httptest.Server
	prom   v1.API
	now    time.Time
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, store: open(t, t.TempDir()), now: time.Now().Truncate(time.Second)}
	w.server = httptest.NewServer(http.StripPrefix("/prom", w.store.Handler()))
	client, err := api.NewClient(api.Config{Address: w.server.URL + "/prom", RoundTripper: &http.Transport{DisableKeepAlives: true}})
	if err != nil {
		t.Fatal(err)
	}
	w.prom = v1.NewAPI(client)
	t.Cleanup(func() {
		w.server.Close()
		if err := w.store.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func origin(pairs ...string) *creel.Origin {
	o := &creel.Origin{}
	for i := 0; i < len(pairs); i += 2 {
		o.Resource.Attrs = append(o.Resource.Attrs, creel.Attr{Key: pairs[i], Value: creel.String(pairs[i+1])})
	}
	return o
}

func (w *world) export(points ...creel.Metric) error {
	b := creel.NewMetrics(points)
	err := w.store.Export(context.Background(), []*creel.Batch{b})
	creel.Settle(b, err)
	return err
}

// value evaluates an expression, which must have exactly one value.
func (w *world) value(expr string) float64 {
	w.t.Helper()
	v, _, _, err := w.prom.Query(w.t.Context(), expr, w.now)
	if err != nil {
		w.t.Fatalf("%s: %v", expr, err)
	}
	vector, ok := v.(model.Vector)
	if !ok || len(vector) != 1 {
		w.t.Fatalf("%s is %v", expr, v)
	}
	return float64(vector[0].Value)
}

func at(t time.Time) int64 { return t.UnixNano() }

// TestTranslation stores a point of each kind, and asks for what Prometheus' users expect.
func TestTranslation(t *testing.T) {
	w := newWorld(t)
	o := origin("service.name", "cart", "service.namespace", "shop", "service.instance.id", "i1", "host.name", "h1", "os.type", "linux", "creel.agent.id", "a1")
	now := at(w.now.Add(-time.Second))
	gauge := &creel.Descriptor{Name: "system.cpu.utilization", Unit: "1", Kind: creel.Gauge, Description: "How busy."}
	sum := &creel.Descriptor{Name: "http.requests", Kind: creel.Sum, Monotonic: true, Temporality: creel.Cumulative}
	updown := &creel.Descriptor{Name: "queue.size", Unit: "By", Kind: creel.Sum, Temporality: creel.Cumulative}
	histogram := &creel.Descriptor{Name: "latency", Unit: "s", Kind: creel.HistogramKind, Temporality: creel.Cumulative}
	exponential := &creel.Descriptor{Name: "fine", Unit: "ms", Kind: creel.ExponentialKind, Temporality: creel.Cumulative}
	summary := &creel.Descriptor{Name: "gc", Kind: creel.SummaryKind}
	attrs := creel.Attrs{{Key: "http.method", Value: creel.String("GET")}, {Key: "code", Value: creel.Int(200)}}
	err := w.export(
		creel.Metric{Origin: o, Desc: gauge, Time: now, Value: creel.Double(0.5), Attrs: creel.Attrs{{Key: "cpu.state", Value: creel.String("user")}}},
		creel.Metric{Origin: o, Desc: sum, Time: now, Value: creel.Int(7), Attrs: attrs},
		creel.Metric{Origin: o, Desc: updown, Time: now, Value: creel.Int(-3)},
		creel.Metric{Origin: o, Desc: histogram, Time: now, Histogram: &creel.Histogram{Count: 6, Sum: creel.Optional{Value: 9, Valid: true}, Bounds: []float64{0.5, 1}, Counts: []uint64{1, 2, 3}}},
		creel.Metric{Origin: o, Desc: exponential, Time: now, Exponential: &creel.ExponentialHistogram{Count: 6, Sum: creel.Optional{Value: 21, Valid: true}, Scale: 10, ZeroCount: 1, Positive: creel.Buckets{Offset: 3, Counts: []uint64{1, 0, 4}}}},
		creel.Metric{Origin: o, Desc: summary, Time: now, Summary: &creel.Summary{Count: 3, Sum: 6, Quantiles: []creel.Quantile{{Q: 0.5, Value: 2}, {Q: 0.99, Value: 3}}}},
	)
	if err != nil {
		t.Fatal(err)
	}
	for expr, want := range map[string]float64{
		`system_cpu_utilization_ratio{cpu_state="user", job="shop/cart", instance="i1", host_name="h1", creel_agent_id="a1", service_name="cart", os_type=""}`: 0.5,
		`http_requests_total{http_method="GET", code="200"}`: 7,
		`queue_size_bytes`:                   -3,
		`latency_seconds_bucket{le="0.5"}`:   1,
		`latency_seconds_bucket{le="1"}`:     3,
		`latency_seconds_bucket{le="+Inf"}`:  6,
		`latency_seconds_count`:              6,
		`latency_seconds_sum`:                9,
		`histogram_count(fine_milliseconds)`: 6,
		`histogram_sum(fine_milliseconds)`:   21,
		`gc{quantile="0.99"}`:                3,
		`gc_sum`:                             6,
	} {
		if got := w.value(expr); got < want-0.01 || got > want+0.01 {
			t.Errorf("%s is %v, want %v", expr, got, want)
		}
	}
	meta, err := w.prom.Metadata(t.Context(), "", "")
	if err != nil || len(meta["system_cpu_utilization_ratio"]) != 1 || meta["system_cpu_utilization_ratio"][0].Help != "How busy." || meta["http_requests_total"][0].Type != v1.MetricTypeCounter {
		t.Errorf("metadata is %v, %v", meta, err)
	}
}

func TestDeltasBecomeCumulative(t *testing.T) {
	w := newWorld(t)
	d := &creel.Descriptor{Name: "jobs", Kind: creel.Sum, Monotonic: true, Temporality: creel.Delta}
	h := &creel.Descriptor{Name: "sizes", Kind: creel.HistogramKind, Temporality: creel.Delta}
	for i := range 5 {
		now := at(w.now.Add(time.Duration(i-5) * time.Second))
		// Each request has origins and descriptors of its own, as decoded ones have.
		o, d, h := origin("service.name", "batch"), *d, *h
		err := w.export(
			creel.Metric{Origin: o, Desc: &d, Time: now, Value: creel.Int(int64(i))},
			creel.Metric{Origin: o, Desc: &h, Time: now, Histogram: &creel.Histogram{Count: 2, Bounds: []float64{1}, Counts: []uint64{1, 1}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := w.value("jobs_total"); got != 10 {
		t.Errorf("counted %v, want 10", got)
	}
	if got := w.value(`sizes_bucket{le="+Inf"}`); got != 10 {
		t.Errorf("counted %v, want 10", got)
	}
}

func TestWhatCannotBeStoredIsCounted(t *testing.T) {
	w := newWorld(t)
	g := &creel.Descriptor{Name: "g", Kind: creel.Gauge}
	point := func(when time.Time, v float64) creel.Metric {
		return creel.Metric{Desc: g, Time: at(when), Value: creel.Double(v)}
	}
	if err := w.export(point(w.now, 1)); err != nil {
		t.Fatal(err)
	}
	partial := (*creel.Partial)(nil)
	err := w.export(point(w.now, 2), point(w.now.Add(-3*time.Hour), 3), point(w.now.Add(time.Second), 4), creel.Metric{Desc: &creel.Descriptor{Kind: creel.Gauge}}, creel.Metric{Desc: &creel.Descriptor{Name: "h", Kind: creel.HistogramKind}})
	if !errors.As(err, &partial) || partial.Rejected != 4 {
		t.Fatalf("got %v", err)
	}
	w.now = w.now.Add(time.Second)
	if got := w.value("g"); got != 4 {
		t.Errorf("the good point is %v", got)
	}
	if err := w.export(point(w.now.Add(-10*time.Minute), 5)); err != nil { // late, but not too late
		t.Error(err)
	}
}

// TestOfficialClient uses each call of Prometheus' own client library.
func TestOfficialClient(t *testing.T) {
	w := newWorld(t)
	d := &creel.Descriptor{Name: "up", Kind: creel.Gauge}
	for i := range 60 {
		for h := range 3 {
			err := w.export(creel.Metric{Origin: origin("host.name", fmt.Sprintf("h%d", h)), Desc: d, Time: at(w.now.Add(time.Duration(i-60) * time.Second)), Value: creel.Int(int64(i))})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	ctx, from := t.Context(), w.now.Add(-time.Minute)
	v, _, _, err := w.prom.QueryRange(ctx, "sum(up)", v1.Range{Start: from, End: w.now, Step: 10 * time.Second})
	if m, ok := v.(model.Matrix); err != nil || !ok || len(m) != 1 || len(m[0].Values) != 7 || m[0].Values[1].Value != 30 {
		t.Errorf("query_range answers %v, %v", v, err)
	}
	names, _, _, err := w.prom.LabelNames(ctx, nil, from, w.now)
	if err != nil || !slices.Equal(names, model.LabelNames{"__name__", "host_name"}) {
		t.Errorf("labels answers %v, %v", names, err)
	}
	values, _, _, err := w.prom.LabelValues(ctx, "host_name", []string{"up"}, from, w.now)
	if err != nil || len(values) != 3 {
		t.Errorf("label values answers %v, %v", values, err)
	}
	set, _, _, err := w.prom.Series(ctx, []string{`up{host_name=~"h[12]"}`}, from, w.now)
	if err != nil || len(set) != 2 {
		t.Errorf("series answers %v, %v", set, err)
	}
	if info, err := w.prom.Buildinfo(ctx); err != nil || info.Version == "" {
		t.Errorf("buildinfo answers %v, %v", info, err)
	}
	if rules, err := w.prom.Rules(ctx, nil); err != nil || len(rules.Groups) != 0 {
		t.Errorf("rules answers %v, %v", rules, err)
	}
	if x, err := w.prom.QueryExemplars(ctx, "up", from, w.now); err != nil || len(x) != 0 {
		t.Errorf("query_exemplars answers %v, %v", x, err)
	}
}

// get asks as a browser or Grafana does.
func (w *world) get(method, path string, form url.Values) (int, string) {
	w.t.Helper()
	var req *http.Request
	var err error
	if method == http.MethodPost {
		req, err = http.NewRequest(method, w.server.URL+"/prom/api/v1/"+path, strings.NewReader(form.Encode()))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	} else {
		req, err = http.NewRequest(method, w.server.URL+"/prom/api/v1/"+path+"?"+form.Encode(), nil)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// TestGrafanaStartsUp replays what Grafana asks of a Prometheus data source when it is added and looked into.
func TestGrafanaStartsUp(t *testing.T) {
	w := newWorld(t)
	if err := w.export(creel.Metric{Desc: &creel.Descriptor{Name: "up", Kind: creel.Gauge}, Time: at(w.now), Value: creel.Int(1)}); err != nil {
		t.Fatal(err)
	}
	start, end := fmt.Sprint(w.now.Add(-time.Hour).Unix()), fmt.Sprint(w.now.Unix()+1)
	window := url.Values{"start": {start}, "end": {end}}
	with := func(pairs ...string) url.Values {
		v := url.Values{"start": {start}, "end": {end}}
		for i := 0; i < len(pairs); i += 2 {
			v.Add(pairs[i], pairs[i+1])
		}
		return v
	}
	for _, c := range []struct {
		method, path string
		form         url.Values
		want         string
	}{
		{"POST", "query", url.Values{"query": {"1+1"}, "time": {"4"}}, `{"resultType":"scalar","result":[4,"2"]}`},
		{"GET", "query", url.Values{"query": {"1+1"}, "time": {"4"}}, `{"resultType":"scalar","result":[4,"2"]}`},
		{"GET", "status/buildinfo", nil, `"application":"creel"`},
		{"GET", "rules", nil, `{"groups":[]}`},
		{"POST", "query_exemplars", url.Values{"query": {"test"}, "start": {start + "000"}, "end": {end + "000"}}, `"data":[]`},
		{"POST", "labels", window, `"data":["__name__"]`},
		{"GET", "labels", with("match[]", `{__name__="up"}`), `"data":["__name__"]`},
		{"GET", "label/__name__/values", with("limit", "40000"), `"data":["up"]`},
		{"GET", "label/U______name____/values", window, `"data":["up"]`},
		{"POST", "series", with("match[]", `{__name__!=""}`, "limit", "40000"), `{"__name__":"up"}`},
		{"GET", "metadata", url.Values{"limit": {"40000"}}, `"type":"gauge"`},
		{"POST", "query_range", with("query", "up / 0", "step", "60"), `"+Inf"`},
		{"POST", "query_range", with("query", "up - up / 0 + up / 0", "step", "1m"), `"NaN"`},
	} {
		code, body := w.get(c.method, c.path, c.form)
		if code != 200 || !strings.Contains(body, c.want) || !strings.Contains(body, `"status":"success"`) || !json.Valid([]byte(body)) {
			t.Errorf("%s %s answers %d %s, want %s", c.method, c.path, code, body, c.want)
		}
	}
}

func TestErrors(t *testing.T) {
	w := newWorld(t)
	d := &creel.Descriptor{Name: "m", Kind: creel.Gauge}
	var points []creel.Metric
	for i := range 3000 {
		points = append(points, creel.Metric{Desc: d, Time: at(w.now), Value: creel.Int(1), Attrs: creel.Attrs{{Key: "i", Value: creel.Int(int64(i))}}})
	}
	if err := w.export(points...); err != nil {
		t.Fatal(err)
	}
	now := fmt.Sprint(w.now.Unix())
	for _, c := range []struct {
		path string
		form url.Values
		code int
		kind string
	}{
		{"query", url.Values{"query": {"sum("}}, 400, "bad_data"},
		{"query", url.Values{"query": {"1"}, "time": {"yesterday"}}, 400, "bad_data"},
		{"query", url.Values{"query": {"1"}, "timeout": {"soon"}}, 400, "bad_data"},
		{"query", url.Values{"query": {"1"}, "limit": {"-1"}}, 400, "bad_data"},
		{"query_range", url.Values{"query": {"1"}, "start": {"0"}, "end": {"11001"}, "step": {"1"}}, 400, "bad_data"},
		{"query_range", url.Values{"query": {"1"}, "start": {"10"}, "end": {"0"}, "step": {"1"}}, 400, "bad_data"},
		{"query_range", url.Values{"query": {"1"}, "start": {"0"}, "end": {"10"}, "step": {"0"}}, 400, "bad_data"},
		{"query_range", url.Values{"query": {"1"}, "end": {"10"}, "step": {"1"}}, 400, "bad_data"},
		{"series", nil, 400, "bad_data"},
		{"series", url.Values{"match[]": {"{"}}, 400, "bad_data"},
		{"query", url.Values{"query": {"m * on() group_left m"}, "time": {now}}, 422, "execution"},
		{"query_range", url.Values{"query": {"m"}, "start": {now}, "end": {fmt.Sprint(w.now.Unix() + 10_000)}, "step": {"1"}, "timeout": {"1ms"}}, 503, "timeout"},
	} {
		code, body := w.get("POST", c.path, c.form)
		if code != c.code || !strings.Contains(body, `"errorType":"`+c.kind+`"`) || !strings.Contains(body, `"status":"error"`) {
			t.Errorf("%s %v answers %d %s", c.path, c.form, code, body)
		}
	}
	// Too much is refused before it is in memory.
	code, body := w.get("POST", "query", url.Values{"query": {"sum_over_time(m[200s:50ms])"}, "time": {fmt.Sprint(w.now.Unix() + 200)}})
	if code != 422 || !strings.Contains(body, "too many samples") {
		t.Errorf("a query over too much answers %d %.200s", code, body)
	}
}

func TestRestartAndDamage(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "series")
	d := &creel.Descriptor{Name: "g", Kind: creel.Gauge}
	now := time.Now()
	count := func(s *series.Store) string {
		rec := httptest.NewRecorder()
		s.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/api/v1/query?query=count_over_time(g[1h])", nil))
		return rec.Body.String()
	}
	for i := range 3 {
		s := open(t, dir)
		b := creel.NewMetrics([]creel.Metric{{Desc: d, Time: at(now.Add(time.Duration(i-10) * time.Second)), Value: creel.Int(1)}})
		if err := s.Export(t.Context(), []*creel.Batch{b}); err != nil {
			t.Fatal(err)
		}
		if got := count(s); !strings.Contains(got, fmt.Sprintf(`"%d"]`, i+1)) {
			t.Errorf("start %d counts %s", i, got)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	segments, err := filepath.Glob(filepath.Join(dir, "wal", "0*"))
	if err != nil || len(segments) == 0 {
		t.Fatal("no segment to damage")
	}
	for _, garbage := range []string{"garbage that is no record at all", ""} {
		if err := os.WriteFile(segments[len(segments)-1], []byte(garbage), 0o600); err != nil {
			t.Fatal(err)
		}
		s := open(t, dir)
		if got := count(s); !strings.Contains(got, `"success"`) {
			t.Errorf("after damage it answers %s", got)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	// What cannot be mended is set aside.
	if err := os.RemoveAll(filepath.Join(dir, "wal")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "wal"), []byte("a file where a directory should be"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir)
	if _, _, damaged := s.Stats(); len(damaged) != 1 {
		t.Errorf("set aside: %v", damaged)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
