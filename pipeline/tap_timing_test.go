package pipeline

import (
	"testing"

	"github.com/creelhq/creel"
)

// TestEdgeWithoutTapIsFree: who is not looked at does not pay, in memory at least.
func TestEdgeWithoutTapIsFree(t *testing.T) {
	e, b := &edge{}, creel.NewLogs(make([]creel.Log, 10))
	if n := testing.AllocsPerRun(100, func() { e.see(b) }); n > 0 {
		t.Errorf("a batch costs %v allocations", n)
	}
}

// BenchmarkEdge passes batches of 1000 records: nobody looks; somebody looks who has seen enough for this second.
func BenchmarkEdge(b *testing.B) {
	batch := creel.NewLogs(make([]creel.Log, 1000))
	e := &edge{}
	b.Run("no tap", func(b *testing.B) {
		for b.Loop() {
			e.see(batch)
		}
	})
	taps := []*Tap{{o: TapOptions{Render: func(*creel.Batch, int) []byte { return nil }}, lines: make(chan []byte, 1000), look: budget{rate: 1}, show: budget{rate: 1}}}
	e.taps.Store(&taps)
	b.Run("tapped", func(b *testing.B) {
		for b.Loop() {
			e.see(batch)
		}
	})
}
