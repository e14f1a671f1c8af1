package enrich

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/creelhq/creel"
)

// batchOf returns n records of users 0 to 99.
func batchOf(m *creel.Memory, n int) *creel.Batch {
	r := m.NewRecords()
	o := &creel.Origin{Resource: creel.Resource{Attrs: attrs("service.name", "shop", "service.version", "1.2.3")}}
	for i := range n {
		as := creel.Attrs(r.Attrs.Make(1))
		as[0] = creel.Attr{Key: "user", Value: creel.Int(int64(i % 100))}
		r.Logs = append(r.Logs, creel.Log{Origin: o, Attrs: as})
	}
	return creel.NewBatch(creel.Logs, r)
}

func tableOf(rows int) string {
	var s strings.Builder
	s.WriteString("id,name,team,place\n")
	for i := range rows {
		s.WriteString(strconv.Itoa(i) + ",some name,a team,a place\n")
	}
	return s.String()
}

// BenchmarkProcess gives the time of a record that gets two attributes and a resource.
func BenchmarkProcess(b *testing.B) {
	for name, yaml := range map[string]string{
		"static": "{host: true, static: {resource: {a: b}, attributes: {c: d, e: f}}}",
		"lookup": fmt.Sprintf("{host: true, lookup: ["+lookupOptions+"]}", file(b, tableOf(1000))),
	} {
		b.Run(name, func(b *testing.B) {
			const n = 1000
			var m creel.Memory
			p := mustOpen(b, yaml, host)
			settle := creel.NextFunc(func(b *creel.Batch) { creel.Settle(b, nil) })
			b.ReportAllocs()
			for b.Loop() {
				if err := p.Process(context.Background(), batchOf(&m, n), settle); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/record")
		})
	}
}

// BenchmarkRead gives the time in which a table of 100 000 rows is read.
func BenchmarkRead(b *testing.B) {
	name := file(b, tableOf(100_000))
	for b.Loop() {
		mustOpen(b, fmt.Sprintf("{lookup: ["+lookupOptions+"]}", name), creel.Host{})
	}
}
