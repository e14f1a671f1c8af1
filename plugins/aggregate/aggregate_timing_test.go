package aggregate

import (
	"testing"

	"github.com/creelhq/creel"
)

var origin = &creel.Origin{Resource: creel.Resource{Attrs: creel.Attrs{{Key: "service.name", Value: creel.String("shop")}, {Key: "host.name", Value: creel.String("web-7")}}}}

// pointBatch returns n points of 100 series.
func (s *stand) pointBatch(n int) *creel.Batch {
	r := s.memory.NewRecords()
	for i := range n {
		as := r.Attrs.Make(3)
		as[0], as[1] = creel.Attr{Key: "route", Value: creel.String("/items")}, creel.Attr{Key: "code", Value: creel.Int(int64(i % 100))}
		as[2] = creel.Attr{Key: "pid", Value: creel.Int(int64(i % 1000))}
		r.Metrics = append(r.Metrics, creel.Metric{Origin: origin, Desc: delta, Start: 1, Time: 2, Value: creel.Int(1), Attrs: as})
	}
	return creel.NewBatch(creel.Metrics, r)
}

// logBatch returns n records with 10 loggers.
func (s *stand) logBatch(n int) *creel.Batch {
	r := s.memory.NewRecords()
	for i := range n {
		as := r.Attrs.Make(2)
		as[0], as[1] = creel.Attr{Key: "logger", Value: creel.Int(int64(i % 10))}, creel.Attr{Key: "bytes", Value: creel.Int(int64(i))}
		r.Logs = append(r.Logs, creel.Log{Origin: origin, Body: creel.String("line"), Severity: 17, Attrs: as})
	}
	return creel.NewBatch(creel.Logs, r)
}

const twoMetrics = `{metrics: [{name: errors, where: severity >= ERROR, by: {logger: 'attributes["logger"]'}}, {name: sizes, kind: histogram, value: 'attributes["bytes"]'}]}`

// BenchmarkProcess gives the time of a record: a data point, or a log record that goes into two metrics.
func BenchmarkProcess(b *testing.B) {
	for name, c := range map[string]struct {
		yaml  string
		batch func(*stand, int) *creel.Batch
	}{
		"points": {"{points: {drop_attributes: [pid]}}", (*stand).pointBatch},
		"logs":   {twoMetrics, (*stand).logBatch},
	} {
		b.Run(name, func(b *testing.B) {
			const n = 1000
			s := newStand(b, c.yaml)
			s.memory.Poison, s.quiet = false, true
			b.ReportAllocs()
			for b.Loop() {
				s.give(c.batch(s, n))
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/record")
			s.a.flush(s)
		})
	}
}

// BenchmarkFlush gives the time of a series.
func BenchmarkFlush(b *testing.B) {
	s := newStand(b, "{points: {}}")
	s.memory.Poison, s.quiet = false, true
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		s.give(s.pointBatch(1000))
		b.StartTimer()
		s.a.flush(s)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*1000), "ns/series")
}
