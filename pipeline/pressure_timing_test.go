//go:build !race

package pipeline_test

import (
	"math"
	"testing"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/pipeline"
)

// BenchmarkWithinLimit is BenchmarkPipeline of an agent that has a memory limit, and enough.
func BenchmarkWithinLimit(b *testing.B) {
	var m creel.Memory
	f := newFlow(b, &m, "concurrency: 1")
	f.SetPressure(pipeline.Pressure{Bytes: math.MaxInt64, More: func() {}})
	for b.Loop() {
		f.send(&m, 1000)
	}
}

// TestLimitDoesNotAllocate: that memory is limited costs a batch no allocation.
func TestLimitDoesNotAllocate(t *testing.T) {
	var m creel.Memory
	f := newFlow(t, &m, "concurrency: 1")
	without := testing.AllocsPerRun(200, func() { f.send(&m, 10) })
	f.SetPressure(pipeline.Pressure{Bytes: math.MaxInt64, More: func() {}})
	if with := testing.AllocsPerRun(200, func() { f.send(&m, 10) }); with > without+1 {
		t.Errorf("a batch costs %v allocations, and %v without a limit", with, without)
	}
}
