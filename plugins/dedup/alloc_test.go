//go:build !race

package dedup

import "testing"

// TestAllocations: records that repeat others cost none; those that are new cost chunks for their text.
func TestAllocations(t *testing.T) {
	s := newStand(t, "{}", nil)
	s.memory.Poison = false
	s.quiet = true
	run := func(n int) float64 {
		return testing.AllocsPerRun(50, func() { s.give(s.batch(n, few)) })
	}
	if few, many := run(10), run(2000); many > few+2 {
		t.Errorf("a batch of 10 records costs %v allocations, one of 2000 costs %v", few, many)
	}
	s.d.flush(s)
	fresh := testing.AllocsPerRun(10, func() {
		s.give(s.batch(5000, many))
		s.d.flush(s)
	})
	if fresh > 500 {
		t.Errorf("5000 records that are new cost %v allocations", fresh)
	}
}
