package dedup

import (
	"strconv"
	"testing"

	"github.com/creelhq/creel"
)

// few returns records of which each of ten comes again and again; many, records that are all different.
func few(i int) creel.Value  { return bodies[i%10] }
func many(i int) creel.Value { return bodies[i%len(bodies)] }

var bodies = func() (list []creel.Value) {
	for i := range 10000 {
		list = append(list, creel.String("no connection to the database at 10.0.0.1:5432, attempt "+strconv.Itoa(i)))
	}
	return list
}()

var origin = &creel.Origin{Resource: creel.Resource{Attrs: creel.Attrs{{Key: "service.name", Value: creel.String("shop")}, {Key: "host.name", Value: creel.String("web-7")}}}}

func (s *stand) batch(n int, body func(int) creel.Value) *creel.Batch {
	r := s.memory.NewRecords()
	for i := range n {
		attrs := r.Attrs.Make(2)
		attrs[0], attrs[1] = creel.Attr{Key: "logger", Value: creel.String("db")}, creel.Attr{Key: "code", Value: creel.Int(17)}
		r.Logs = append(r.Logs, creel.Log{Origin: origin, Body: body(i), Attrs: attrs, Observed: 1, Severity: 17})
	}
	return creel.NewBatch(creel.Logs, r)
}

// BenchmarkProcess gives the time of a record, that of flushing what is new included.
func BenchmarkProcess(b *testing.B) {
	for name, body := range map[string]func(int) creel.Value{"repeated": few, "new": many} {
		b.Run(name, func(b *testing.B) {
			const n = 1000
			s := newStand(b, "{}", nil)
			s.memory.Poison = false
			s.quiet = true
			b.ReportAllocs()
			for b.Loop() {
				s.give(s.batch(n, body))
				if name == "new" {
					s.d.flush(s)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/record")
			s.d.flush(s)
		})
	}
}
