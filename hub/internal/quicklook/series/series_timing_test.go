package series_test

import (
	"fmt"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/creelhq/creel"
)

// BenchmarkExport stores points of 1 000 series that exist, and of 50; spooled are those of a disk queue, whose places are
// kept. The mark is 500 k samples a second and core.
func BenchmarkExport(b *testing.B) {
	o := origin("host.name", "h", "service.name", "s")
	for kind, temporality := range map[string]creel.Temporality{"cumulative": creel.Cumulative, "delta": creel.Delta} {
		d := &creel.Descriptor{Name: "system.network.io", Unit: "By", Kind: creel.Sum, Monotonic: true, Temporality: temporality}
		for _, size := range []int{1000, 50} {
			for name, queue := range map[string]creel.ID{"": {}, "/spooled": {1}} {
				b.Run(fmt.Sprint(kind, "/", size, name), func(b *testing.B) {
					s := open(b, b.TempDir())
					defer s.Close()
					points := make([]creel.Metric, size)
					for i := range points {
						points[i] = creel.Metric{Origin: o, Desc: d, Attrs: creel.Attrs{
							{Key: "network.interface.name", Value: creel.String(fmt.Sprintf("eth%d", i/2))},
							{Key: "network.io.direction", Value: creel.String([]string{"receive", "transmit"}[i%2])},
						}}
					}
					now := time.Now().UnixNano()
					for n := uint64(0); b.Loop(); n++ {
						for i := range points {
							points[i].Time, points[i].Value = now+int64(n)*1e9, creel.Int(int64(n)*int64(i))
						}
						ctx := creel.WithRequest(b.Context(), creel.Request{Log: queue, Seq: n})
						if err := s.Export(ctx, []*creel.Batch{creel.NewMetrics(points)}); err != nil {
							b.Fatal(err)
						}
					}
					b.ReportMetric(float64(b.N)*float64(size)/b.Elapsed().Seconds(), "samples/s")
				})
			}
		}
	}
}

// BenchmarkSumByRate asks for an hour of 1 000 series, a point every 10 s. The mark is 100 ms.
func BenchmarkSumByRate(b *testing.B) {
	s := open(b, b.TempDir())
	defer s.Close()
	d := &creel.Descriptor{Name: "requests", Kind: creel.Sum, Monotonic: true, Temporality: creel.Cumulative}
	now := time.Now()
	for n := range 360 {
		points := make([]creel.Metric, 1000)
		for i := range points {
			points[i] = creel.Metric{Desc: d, Time: now.Add(time.Duration(n-360) * 10 * time.Second).UnixNano(), Value: creel.Int(int64(n * i)), Attrs: creel.Attrs{{Key: "path", Value: creel.String(fmt.Sprint(i))}, {Key: "code", Value: creel.Int(int64(200 + i%5))}}}
		}
		if err := s.Export(b.Context(), []*creel.Batch{creel.NewMetrics(points)}); err != nil {
			b.Fatal(err)
		}
	}
	q := url.Values{"query": {"sum by (code) (rate(requests_total[1m]))"}, "start": {fmt.Sprint(now.Add(-time.Hour).Unix())}, "end": {fmt.Sprint(now.Unix())}, "step": {"30"}}
	for b.Loop() {
		rec := httptest.NewRecorder()
		s.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/api/v1/query_range?"+q.Encode(), nil))
		if rec.Code != 200 || rec.Body.Len() < 1000 {
			b.Fatal(rec.Body)
		}
	}
}
