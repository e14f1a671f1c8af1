package pipeline

import (
	"sync/atomic"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/metric"
)

// exportMeter measures one exporter's attempts.
type exportMeter struct {
	attempts, failed, refused, overdue *metric.Counter
	duration                           *metric.Histogram
	limited                            atomic.Int64 // nanoseconds that were waited
}

func newExportMeter(set *metric.Set, s *sender) *exportMeter {
	m := &exportMeter{
		attempts: set.Counter("creel.export.attempts", "Requests that were tried.", "{request}"),
		failed:   set.Counter("creel.export.failures", "Requests that failed and are tried again.", "{request}"),
		refused:  set.Counter("creel.export.refusals", "Requests that were refused for good.", "{request}"),
		overdue:  set.Counter("creel.export.overdue", "Calls that did not return in time and were given up on.", "{request}"),
		duration: set.Histogram("creel.export.duration", "Time from the start of a request to its answer.", "s",
			.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30),
	}
	set.GaugeFunc("creel.export.concurrency", "Requests that may be under way at the same time.", "{request}", func() float64 {
		return float64(s.concurrency())
	})
	if s.limit != nil {
		set.CounterFunc("creel.export.limited", "Time that sending has paused for the rate limit.", "s", func() float64 {
			return time.Duration(m.limited.Load()).Seconds()
		})
	}
	if s.breaker != nil {
		set.GaugeFunc("creel.export.breaker", "The breaker: 0 closed, 1 half-open, 2 open.", "1", func() float64 {
			state, _ := s.breaker.get()
			return float64(state)
		})
		set.CounterFunc("creel.export.breaker_openings", "Times that the breaker has opened.", "{opening}", func() float64 {
			_, opened := s.breaker.get()
			return float64(opened)
		})
	}
	return m
}

func (m *exportMeter) attempt(d time.Duration, err error) {
	m.attempts.Inc()
	m.duration.Observe(d.Seconds())
	switch {
	case err == nil:
	case creel.IsPermanent(err):
		m.refused.Inc()
	default:
		m.failed.Inc()
	}
}

// meterCollector shows what a collector has sent.
func meterCollector(set *metric.Set, t *work) {
	set.CounterFunc("creel.collector.records", "Records that were admitted.", "{record}", func() float64 { return float64(t.collected.Load()) })
}

// meterQueue shows how full q is.
func meterQueue(set *metric.Set, q *queue) {
	set.GaugeFunc("creel.queue.usage", "Bytes of records that are under way to the exporter.", "By", func() float64 {
		n, _ := q.fill()
		return float64(n)
	})
	set.GaugeFunc("creel.queue.limit", "Bytes of records that may be under way to the exporter.", "By", func() float64 {
		_, max := q.fill()
		return float64(max)
	})
}

// meterBook shows a pipeline's part of the ledger.
func meterBook(set *metric.Set, b *book) {
	for _, c := range []struct {
		name, help string
		load       func() int64
	}{
		{"creel.pipeline.accepted", "Records that were admitted.", b.accepted.Load},
		{"creel.pipeline.created", "Records that processors made.", b.created.Load},
		{"creel.pipeline.filtered", "Records that processors removed on purpose.", b.filtered.Load},
		{"creel.pipeline.absorbed", "Records that processors worked into others.", b.absorbed.Load},
		{"creel.pipeline.routed", "Records that processors sent on to other pipelines.", b.routed.Load},
		{"creel.pipeline.passed", "Records that reached the end of the pipeline.", b.passed.Load},
	} {
		set.CounterFunc(c.name, c.help, "{record}", func() float64 { return float64(c.load()) })
	}
	meterDropped(set, "creel.pipeline.dropped", &b.dropped)
}

// meterAccount shows what became of the records that a pipeline gave to an exporter.
func meterAccount(set *metric.Set, a *account) {
	set.CounterFunc("creel.exporter.delivered", "Records that are safe on the far side.", "{record}", func() float64 {
		return float64(a.delivered.Load())
	})
	set.CounterFunc("creel.exporter.dead_lettered", "Records that were refused for good and are kept as dead letters.", "{record}", func() float64 {
		return float64(a.deadLettered.Load())
	})
	set.CounterFunc("creel.exporter.spooled", "Records that were left to the exporter's disk queue.", "{record}", func() float64 {
		return float64(a.spooled.Load())
	})
	set.GaugeFunc("creel.exporter.queued", "Records that wait for the exporter or are being sent.", "{record}", func() float64 {
		return float64(a.queued.Load())
	})
	meterDropped(set, "creel.exporter.dropped", &a.dropped)
}

// meterSpool shows what became of the records that were left to a disk queue.
func meterSpool(set *metric.Set, a *account) {
	for _, c := range []struct {
		name, help string
		load       func() int64
	}{
		{"creel.spool.recovered", "Records that were in the disk queue when it was opened.", a.recovered.Load},
		{"creel.spool.in", "Records that were left to the disk queue.", a.in.Load},
		{"creel.spool.delivered", "Records that were delivered from the disk queue.", a.delivered.Load},
		{"creel.spool.dead_lettered", "Records of the disk queue that were refused for good and are kept as dead letters.", a.deadLettered.Load},
	} {
		set.CounterFunc(c.name, c.help, "{record}", func() float64 { return float64(c.load()) })
	}
	set.GaugeFunc("creel.spool.waiting", "Records that wait on disk to be delivered.", "{record}", func() float64 { return float64(a.queued.Load()) })
	meterDropped(set, "creel.spool.dropped", &a.dropped)
}

// meterStore shows how full a disk queue is.
func meterStore(set *metric.Set, s *store) {
	set.GaugeFunc("creel.spool.usage", "Bytes of the disk queue.", "By", func() float64 { return float64(s.spool.Stats().Bytes) })
	set.GaugeFunc("creel.spool.limit", "Bytes that the disk queue may have.", "By", func() float64 { return float64(s.spool.Stats().MaxBytes) })
}

func meterDropped(set *metric.Set, name string, d *dropped) {
	for r := range reasons {
		set.Sub(metric.Label{Name: "reason", Value: r.String()}).CounterFunc(name, "Records that were lost, by reason.", "{record}",
			func() float64 { return float64(d[r].Load()) })
	}
}
