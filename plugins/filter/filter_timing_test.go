//go:build !race

package filter_test

import (
	"testing"

	"github.com/creelhq/creel"
)

const noise = `drop: ['severity < INFO', 'attributes.n == 1 && body contains "info"']`

// run returns what sends a recycled batch of n records through the processor.
func run(t testing.TB, n int) func() {
	p, memory, from := open(t, noise), &creel.Memory{}, logs()
	next := creel.NextFunc(func(b *creel.Batch) { creel.Settle(b, nil) })
	return func() {
		r := memory.NewRecords()
		for i := range n {
			r.Logs = append(r.Logs, from[i%len(from)])
		}
		if err := p.Process(t.Context(), creel.NewBatch(creel.Logs, r), next); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAllocations: filtering allocates for the batch, and nothing by record.
func TestAllocations(t *testing.T) {
	few, many := testing.AllocsPerRun(100, run(t, 10)), testing.AllocsPerRun(100, run(t, 5000))
	if many > few+1 {
		t.Errorf("10 records cost %v allocations, 5000 cost %v", few, many)
	}
}

// BenchmarkFilter is one record; half of them are dropped.
func BenchmarkFilter(b *testing.B) {
	const n = 1000
	f := run(b, n)
	b.ReportAllocs()
	for b.Loop() {
		f()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/record")
}
