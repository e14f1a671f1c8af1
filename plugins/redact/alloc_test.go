//go:build !race

package redact

import (
	"context"
	"testing"

	"github.com/creelhq/creel"
)

// TestAllocations: records in which nothing is found cost none.
func TestAllocations(t *testing.T) {
	var m creel.Memory
	r := open(t, "{keys: [password, '*secret*'], patterns: [{name: order, pattern: 'ORD-[0-9]{8}'}]}", creel.Host{Memory: &m})
	settle := creel.NextFunc(func(b *creel.Batch) { creel.Settle(b, nil) })
	run := func(n int) float64 {
		return testing.AllocsPerRun(50, func() {
			if err := r.Process(context.Background(), batchOf(&m, line, n), settle); err != nil {
				t.Fatal(err)
			}
		})
	}
	if few, many := run(10), run(2000); many > few+2 {
		t.Errorf("a batch of 10 records costs %v allocations, one of 2000 costs %v", few, many)
	}
}
