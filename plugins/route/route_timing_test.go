//go:build !race

package route_test

import (
	"testing"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/plugins/route"
)

// run returns what sends a recycled batch of n records through the processor.
func run(t testing.TB, config string, n int) func() {
	settle := creel.NextFunc(func(b *creel.Batch) { creel.Settle(b, nil) })
	canonical, err := options(config)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := route.Plugin.Open(canonical, creel.Host{Outputs: map[string]creel.Next{"a": settle, "b": settle}})
	if err != nil {
		t.Fatal(err)
	}
	memory, from := &creel.Memory{}, logs(n)
	return func() {
		r := memory.NewRecords()
		r.Logs = append(r.Logs, from...)
		if err := opened.(creel.Processor).Process(t.Context(), creel.NewBatch(creel.Logs, r), settle); err != nil {
			t.Fatal(err)
		}
	}
}

var timed = []struct{ name, config string }{
	{"whole", `rules: [{when: attributes.n >= 0, to: a}]`},
	{"three", `rules: [{when: attributes.n % 3 == 0, to: a}, {when: attributes.n % 3 == 1, to: b}]`},
	{"copy", `rules: [{when: attributes.n % 2 == 0, to: a, copy: true}]`},
}

// TestAllocations: routing allocates for batches, and nothing by record.
func TestAllocations(t *testing.T) {
	for _, c := range timed {
		few, many := testing.AllocsPerRun(100, run(t, c.config, 10)), testing.AllocsPerRun(100, run(t, c.config, 5000))
		if many > few+2 {
			t.Errorf("%s: 10 records cost %v allocations, 5000 cost %v", c.name, few, many)
		}
	}
}

// BenchmarkRoute is one record.
func BenchmarkRoute(b *testing.B) {
	const n = 1000
	for _, c := range timed {
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
