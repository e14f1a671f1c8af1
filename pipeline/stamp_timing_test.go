//go:build !race

package pipeline_test

import (
	"context"
	"testing"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/pipeline"
)

// place makes a document's of f's collector.
func (f *flow) place(t testing.TB) {
	p := *f.Plan()
	p.Documents = map[string]pipeline.Document{"in": {Name: "web", Version: "12"}}
	if _, err := f.Apply(context.Background(), &p); err != nil {
		t.Fatal(err)
	}
	f.SetTerms(map[string]*pipeline.Terms{"web": {Epoch: 9, Forever: true}})
}

// TestStampDoesNotAllocate: what a document's collector sends costs no allocation more, once its origins are known.
func TestStampDoesNotAllocate(t *testing.T) {
	var m creel.Memory
	f := newFlow(t, &m, "concurrency: 1")
	without := testing.AllocsPerRun(200, func() { f.send(&m, 1000) })
	f.place(t)
	if with := testing.AllocsPerRun(200, func() { f.send(&m, 1000) }); with > without+1 {
		t.Errorf("a batch costs %v allocations, and %v without a stamp", with, without)
	}
}

// BenchmarkStamp is BenchmarkPipeline of a document's collector.
func BenchmarkStamp(b *testing.B) {
	var m creel.Memory
	f := newFlow(b, &m, "concurrency: 1")
	f.place(b)
	for b.Loop() {
		f.send(&m, 1000)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/record")
}
