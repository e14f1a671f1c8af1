package redact

import (
	"context"
	"testing"

	"github.com/creelhq/creel"
)

const line = `192.0.2.17 - - [24/Nov/2026:12:00:00 +0000] "GET /shop/items/4711?lang=en HTTP/1.1" 200 2326 "https://shop.example/start" "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"`

func batchOf(m *creel.Memory, body string, n int) *creel.Batch {
	r, o := m.NewRecords(), &creel.Origin{}
	for range n {
		r.Logs = append(r.Logs, creel.Log{Origin: o, Body: creel.String(body)})
	}
	return creel.NewBatch(creel.Logs, r)
}

// BenchmarkProcess is for a line of 172 bytes; the time is that of a record. The limit is one look at each byte.
func BenchmarkProcess(b *testing.B) {
	for name, c := range map[string]struct{ yaml, body string }{
		"nothing": {"{}", line},
		"all":     {everything, line},
		"found":   {"{}", line + " ann@example.com"},
		"pattern": {"{detect: [], patterns: [{name: order, pattern: 'ORD-[0-9]{8}'}]}", line},
	} {
		b.Run(name, func(b *testing.B) {
			var m creel.Memory
			const n = 1000
			r := open(b, c.yaml, creel.Host{Memory: &m})
			settle := creel.NextFunc(func(b *creel.Batch) { creel.Settle(b, nil) })
			b.ReportAllocs()
			b.SetBytes(int64(n * len(c.body)))
			for b.Loop() {
				if err := r.Process(context.Background(), batchOf(&m, c.body, n), settle); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/record")
		})
	}
}
