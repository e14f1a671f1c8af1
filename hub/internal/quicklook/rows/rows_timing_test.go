package rows

import (
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/api"
)

func manyLogs(n int, at time.Time, every time.Duration) []creel.Log {
	o := &creel.Origin{Resource: creel.Resource{Attrs: creel.Attrs{{Key: "service.name", Value: creel.String("cart")}, {Key: "host.name", Value: creel.String("h")}}}}
	logs := make([]creel.Log, n)
	for i := range logs {
		logs[i] = creel.Log{
			Origin: o, Time: at.Add(time.Duration(i) * every).UnixNano(), Severity: creel.Severity(9 + 4*(i%3/2)),
			Body:  creel.String(fmt.Sprintf("10.0.%d.%d - GET /api/cart/%d HTTP/1.1 200 %d \"Mozilla/5.0 (X11; Linux x86_64)\" request %x took %dms in zone eu-west", i%250, i%13, i%1000, i%5000, uint32(i)*2654435761, i%400)),
			Attrs: creel.Attrs{{Key: "http.method", Value: creel.String("GET")}, {Key: "http.status_code", Value: creel.Int(200)}, {Key: "user", Value: creel.String(fmt.Sprint("u", i%1000))}, {Key: "log.file.name", Value: creel.String("access.log")}, {Key: "ok", Value: creel.Bool(true)}},
		}
	}
	return logs
}

// BenchmarkExportLogs stores batches of 5 000 logs of 150 bytes with 5 attributes, and of 100; spooled are those of a disk
// queue, whose places are kept. The mark is 60 k a second and core.
func BenchmarkExportLogs(b *testing.B) {
	for _, n := range []int{5000, 100} {
		for name, queue := range map[string]creel.ID{"": {}, "/spooled": {1}} {
			b.Run(fmt.Sprint(n, name), func(b *testing.B) {
				s := open(b, Options{})
				at := time.Now().Truncate(time.Hour)
				logs := manyLogs(n, at, 0)
				for seq := uint64(0); b.Loop(); seq++ {
					for i := range logs {
						at = at.Add(20 * time.Microsecond)
						logs[i].Time = at.UnixNano()
					}
					deliver(b, s, queue, seq, logs...)
				}
				b.ReportMetric(float64(b.N)*float64(n)/b.Elapsed().Seconds(), "logs/s")
			})
		}
	}
}

var records = flag.Int("records", 1_000_000, "records of the hour that BenchmarkSearchLogs searches")

// BenchmarkSearchLogs searches 15 minutes of an hour of so many records, for the newest 100: all, with a frequent and a
// rare word, with one that is nowhere, by an attribute; and counts them. any is a mix, with its 95th percentile: the
// mark is a second at 10 M records (-records 10000000).
func BenchmarkSearchLogs(b *testing.B) {
	end := time.Now().Truncate(time.Hour)
	s := open(b, Options{Now: func() time.Time { return end }, MaxBytes: 64 << 30})
	const batch = 5000
	every := time.Hour / time.Duration(*records)
	for at := end.Add(-time.Hour); at.Before(end); at = at.Add(batch * every) {
		if err := s.ExportLogs(b.Context(), []*creel.Batch{creel.NewLogs(manyLogs(batch, at, every))}); err != nil {
			b.Fatal(err)
		}
	}
	window := api.Window{Start: end.Add(-15 * time.Minute), End: end}
	questions := map[string]api.LogQuery{
		"all": {}, "frequent": {Query: "GET"}, "rare": {Query: `"10.0.7.3 -"`}, "nowhere": {Query: "absent"}, "attribute": {Filters: []string{"user=u77"}}, "missing": {Filters: []string{"user=nobody"}},
		"severe": {Filters: []string{"severity>=WARN"}, Query: "took"}, "service": {Filters: []string{"service=cart"}}, "not": {Query: "request -zone"},
	}
	search := func(b *testing.B, q api.LogQuery) {
		q.Window = window
		if r, err := s.SearchLogs(b.Context(), q); err != nil || r.Partial != "" {
			b.Fatal(err, r.Partial)
		}
	}
	for name, q := range questions {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				search(b, q)
			}
		})
		b.Run(name+"/histogram", func(b *testing.B) {
			q.Window = window
			for b.Loop() {
				if r, err := s.CountLogs(b.Context(), q); err != nil || r.Partial != "" {
					b.Skip(err, r.Partial) // it has a deadline
				}
			}
		})
	}
	b.Run("any", func(b *testing.B) {
		var took []time.Duration
		for b.Loop() {
			for _, q := range questions {
				begin := time.Now()
				search(b, q)
				took = append(took, time.Since(begin))
			}
		}
		slices.Sort(took)
		b.ReportMetric(took[len(took)*95/100].Seconds(), "p95-s")
	})
}
