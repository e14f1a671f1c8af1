package etcd

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// BenchmarkWriteToCall is the time from a write in etcd, begun, to f: some of the 300 ms that it may take until an agent
// runs what was written. The limit is the write's own time.
func BenchmarkWriteToCall(b *testing.B) {
	s := start(b, b.TempDir(), nil)
	r := watch(b, s.options("key: k"), nil)
	r.Wants("")
	var all, writes []time.Duration
	for i := 0; b.Loop(); i++ {
		text := fmt.Sprint(i)
		begin := time.Now()
		s.put("k", text)
		writes = append(writes, time.Since(begin))
		r.Wants("k=" + text)
		all = append(all, time.Since(begin))
	}
	slices.Sort(all)
	slices.Sort(writes)
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "µs/p50")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "µs/p99")
	b.ReportMetric(float64(writes[len(writes)*99/100].Microseconds()), "µs/p99write")
}
