//go:build !race

package pipeline_test

import (
	"context"
	"testing"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/pipeline"
)

// flow is an engine with one collector, two processors and one exporter that count only.
type flow struct {
	*pipeline.Engine
	sink chan creel.Sink
	out  creel.Sink
}

func newFlow(t testing.TB, m *creel.Memory, delivery string) *flow {
	f := &flow{sink: make(chan creel.Sink, 1)}
	plugins := []creel.Plugin{
		creel.NewCollector("in", "Lends its sink.", func(none, creel.Host) (creel.Collector, error) {
			return creel.CollectorFunc(func(ctx context.Context, out creel.Sink) error {
				f.sink <- out
				<-ctx.Done()
				return nil
			}), nil
		}),
		creel.NewProcessor("look", "Reads every record.", func(none, creel.Host) (creel.Processor, error) {
			return creel.ProcessorFunc(func(_ context.Context, b *creel.Batch, next creel.Next) error {
				logs := b.Logs()
				b.Keep(func(i int) bool { return logs[i].Severity >= 0 })
				next.Send(b)
				return nil
			}), nil
		}),
		creel.NewExporter("out", "Takes all.", func(none, creel.Host) (creel.Exporter, error) {
			return creel.ExporterFunc(func(context.Context, []*creel.Batch) error { return nil }), nil
		}),
	}
	root, err := config.Parse("t", []byte("collectors: {in: }\nprocessors: {look/1: , look/2: }\nexporters: {out: {delivery: {"+delivery+"}}}\npipelines: {p: {from: [in], through: [look/1, look/2], to: [out]}}"), config.Env{})
	if err != nil {
		t.Fatal(err)
	}
	plan, err := pipeline.Compile(root, plugins, nil)
	if err != nil {
		t.Fatal(err)
	}
	f.Engine = pipeline.New(pipeline.Options{Memory: m, Spools: t.TempDir()})
	if _, err := f.Apply(context.Background(), plan); err != nil {
		t.Fatal(err)
	}
	f.out = <-f.sink
	t.Cleanup(func() {
		if err := f.Drain(context.Background()); err != nil {
			t.Fatal(err)
		}
	})
	return f
}

// send sends n records in one batch and waits until they are delivered.
func (f *flow) send(m *creel.Memory, n int) {
	r := m.NewRecords()
	for range n {
		r.Logs = append(r.Logs, creel.Log{Body: creel.Int(1)})
	}
	b := creel.NewBatch(creel.Logs, r)
	done := make(chan error, 1)
	b.OnDone(func(err error) { done <- err })
	if err := f.out.Send(context.Background(), b); err != nil {
		panic(err)
	}
	if err := <-done; err != nil {
		panic(err)
	}
}

// allStages limits nothing that is sent here, but everything is looked at.
const allStages = "concurrency: 2, adaptive: {enabled: true, max: 2}, breaker: {enabled: true, slow_ratio: 1}, rate_limit: {records_per_second: 1e12, bytes_per_second: 1000TiB, requests_per_second: 1e9}"

// TestRecordsDoNotAllocate: a batch's way through the pipeline costs the same few allocations, however many records it has.
func TestRecordsDoNotAllocate(t *testing.T) {
	var m creel.Memory
	for _, delivery := range []string{allStages, allStages + ", spool: {min_free: 0}"} {
		f := newFlow(t, &m, delivery)
		for range 100 { // the memory to encode in grows
			f.send(&m, 5000)
		}
		few := testing.AllocsPerRun(200, func() { f.send(&m, 10) })
		many := testing.AllocsPerRun(200, func() { f.send(&m, 5000) })
		if few > 50 || many > few+20 {
			t.Errorf("with %s, a batch of 10 records costs %v allocations, one of 5000 costs %v", delivery, few, many)
		}
	}
}

// BenchmarkPipeline sends batches of 1000 records through, BenchmarkAllStages with all stages of delivery; BenchmarkLimit makes and reads the same ones without a
// pipeline.
func BenchmarkPipeline(b *testing.B)  { benchmarkPipeline(b, "concurrency: 1") }
func BenchmarkAllStages(b *testing.B) { benchmarkPipeline(b, allStages) }

// BenchmarkDiskQueue is BenchmarkPipeline with a disk queue, in which records are when they count as safe. Its limit is that
// plus encoding (BenchmarkEncode in package otlp) and appending (BenchmarkAppend in package spool).
func BenchmarkDiskQueue(b *testing.B) { benchmarkPipeline(b, "concurrency: 1, spool: {min_free: 0}") }

func benchmarkPipeline(b *testing.B, delivery string) {
	var m creel.Memory
	f := newFlow(b, &m, delivery)
	for b.Loop() {
		f.send(&m, 1000)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/record")
}

func BenchmarkLimit(b *testing.B) {
	var m creel.Memory
	for b.Loop() {
		r := m.NewRecords()
		for range 1000 {
			r.Logs = append(r.Logs, creel.Log{Body: creel.Int(1)})
		}
		batch := creel.NewBatch(creel.Logs, r)
		for range 2 {
			logs := batch.Logs()
			batch.Keep(func(i int) bool { return logs[i].Severity >= 0 })
		}
		creel.Settle(batch, nil)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/record")
}
