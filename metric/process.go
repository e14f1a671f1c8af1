package metric

import (
	"runtime"
	"runtime/metrics"
	"time"
)

// Process adds instruments that show this process and its Go runtime, with the names of OpenTelemetry's semantic
// conventions. They are read when they are gathered.
func Process(s *Set) {
	started := time.Now()
	s.GaugeFunc("process.uptime", "Time since the agent was started.", "s", func() float64 { return time.Since(started).Seconds() })
	s.GaugeFunc("go.goroutine.count", "Live goroutines.", "{goroutine}", func() float64 { return float64(runtime.NumGoroutine()) })
	for _, m := range []struct {
		name, help, unit, from string
		counter                bool
	}{
		{"go.memory.used", "Memory that the Go runtime has mapped.", "By", "/memory/classes/total:bytes", false},
		{"go.memory.live", "Live bytes on the heap after the last collection.", "By", "/gc/heap/live:bytes", false},
		{"go.memory.allocated", "Bytes that were allocated on the heap.", "By", "/gc/heap/allocs:bytes", true},
		{"go.memory.allocations", "Objects that were allocated on the heap.", "{allocation}", "/gc/heap/allocs:objects", true},
		{"go.gc.cycles", "Garbage collections.", "{cycle}", "/gc/cycles/total:gc-cycles", true},
	} {
		read := func() float64 {
			sample := []metrics.Sample{{Name: m.from}}
			metrics.Read(sample)
			if sample[0].Value.Kind() != metrics.KindUint64 {
				return 0
			}
			return float64(sample[0].Value.Uint64())
		}
		if m.counter {
			s.CounterFunc(m.name, m.help, m.unit, read)
		} else {
			s.GaugeFunc(m.name, m.help, m.unit, read)
		}
	}
	processOS(s)
}
