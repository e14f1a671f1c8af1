//go:build !race

package transform_test

import (
	"slices"
	"testing"

	"github.com/creelhq/creel"
)

// run returns what sends a recycled batch of n records through the processor.
func run(t testing.TB, config string, n int) func() {
	p, memory, from := open(t, config, creel.Host{}), &creel.Memory{}, log()
	next := creel.NextFunc(func(b *creel.Batch) { creel.Settle(b, nil) })
	return func() {
		r := memory.NewRecords()
		for range n {
			l := from
			l.Attrs = r.Attrs.Make(len(from.Attrs))
			copy(l.Attrs, from.Attrs)
			r.Logs = append(r.Logs, l)
		}
		if err := p.Process(t.Context(), creel.NewBatch(creel.Logs, r), next); err != nil {
			t.Fatal(err)
		}
	}
}

var timed = []struct{ name, config string }{
	{"set", `set: ['attributes.cluster = "prod"']`},
	{"resource", `set: ['resource.cluster = "prod"']`},
	{"where", `{where: attributes.status >= 500, set: [severity = ERROR]}`},
	{"rename", `rename: [attributes.name = attributes.user]`},
	{"hash", `{hash: [attributes.user], salt: pepper}`},
	{"made", `set: ['attributes.x = upper(attributes.user) + "!"']`},
	{"nested", `set: ['attributes.k.b = 1']`},
	{"truncate", `{truncate: 4B, limit: 2}`},
}

// TestAllocations: changing records allocates for the batch and for chunks of strings, and nothing by record.
func TestAllocations(t *testing.T) {
	for _, c := range timed {
		few, many := testing.AllocsPerRun(20, run(t, c.config, 10)), testing.AllocsPerRun(20, run(t, c.config, 2000))
		if many > few+50 { // 2000 hashes fill 32 chunks of 4 KiB
			t.Errorf("%s: 10 records cost %v allocations, 2000 cost %v", c.name, few, many)
		}
	}
}

// BenchmarkTransform is one record. The first figure is what it costs to make and to recycle it.
func BenchmarkTransform(b *testing.B) {
	const n = 1000
	for _, c := range slices.Concat([]struct{ name, config string }{{"nothing", `{where: 'false', limit: 1}`}}, timed) {
		b.Run(c.name, func(b *testing.B) {
			f := run(b, c.config, n)
			b.ReportAllocs()
			for b.Loop() {
				f()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/record")
		})
	}
}
