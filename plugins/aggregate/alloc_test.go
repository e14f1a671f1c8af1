//go:build !race

package aggregate

import (
	"testing"

	"github.com/creelhq/creel"
)

// TestAllocations: records that go into series which exist cost none.
func TestAllocations(t *testing.T) {
	f := func(yaml string, batch func(*stand, int) *creel.Batch) {
		t.Helper()
		s := newStand(t, yaml)
		s.memory.Poison, s.quiet = false, true
		run := func(n int) float64 {
			return testing.AllocsPerRun(50, func() { s.give(batch(s, n)) })
		}
		run(2000) // makes the series
		if few, many := run(10), run(2000); many > few+2 {
			t.Errorf("%s: a batch of 10 records costs %v allocations, one of 2000 costs %v", yaml, few, many)
		}
	}
	f("{points: {}}", (*stand).pointBatch)
	f("{points: {drop_attributes: [pid]}}", (*stand).pointBatch)
	f(twoMetrics, (*stand).logBatch)
}
