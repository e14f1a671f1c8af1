package pipeline

import (
	"context"
	"testing"
	"time"
)

// stages makes a request pass all stages but the exporter.
func stages() (pass func()) {
	now := time.Now()
	l := newLimiter(RateLimit{RecordsPerSecond: 1e12, BytesPerSecond: 1e15, RequestsPerSecond: 1e12}, now)
	b := newBreaker(Breaker{Enabled: true, Window: time.Minute, MinCalls: 5, ErrorRatio: 0.5, SlowRatio: 0.5, SlowCall: time.Hour, Probes: 3}, now)
	w := newWindow(Adaptive{Enabled: true, Max: 4}, 2, now)
	ctx := context.Background()
	request := load{1, 1000, 100_000}
	return func() {
		if w.claim(ctx) != nil || l.pay(ctx, load{}) != nil || b.await(ctx) != nil || l.pay(ctx, request) != nil {
			panic("BUG: held up")
		}
		pass, ok := b.enter(time.Now())
		if !ok {
			panic("BUG: held up")
		}
		w.begin()
		began := time.Now()
		w.end(began, time.Now(), 100_000, true, false)
		b.leave(pass, time.Now(), time.Since(began), nil)
		w.release()
	}
}

// TestStagesDoNotAllocate while nothing fails.
func TestStagesDoNotAllocate(t *testing.T) {
	if n := testing.AllocsPerRun(100, stages()); n > 0 {
		t.Errorf("a request costs %v allocations", n)
	}
}

// BenchmarkStages passes all stages with one request; the limit is BenchmarkPipeline, of which it is a part.
func BenchmarkStages(b *testing.B) {
	pass := stages()
	for b.Loop() {
		pass()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N), "ns/request")
}
