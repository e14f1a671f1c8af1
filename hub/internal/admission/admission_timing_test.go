package admission

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/creelhq/creel"
)

// What a request costs, of one of 1000 agents. The limit to hold it against: a request of 1000 records takes tens of
// microseconds to receive.
func BenchmarkRequest(b *testing.B) {
	agents := make([]creel.Sender, 1000)
	for i := range agents {
		agents[i] = from(fmt.Sprintf("0193b7c5-6b1e-7d0e-8000-%012d", i))
	}
	for _, o := range []struct {
		name string
		Options
	}{{"unlimited", Options{}}, {"limited", Options{Records: 1 << 40, Bytes: 1 << 40}}} {
		b.Run(o.name, func(b *testing.B) {
			a := New(o.Options)
			var n atomic.Uint64
			b.ReportAllocs()
			b.RunParallel(func(p *testing.PB) {
				i := n.Add(1 << 32)
				for p.Next() {
					i++
					s := agents[i%1000]
					_ = a.Admit(creel.Caller{}, s, creel.Logs, 1000, 100_000)
					a.Took(s, named(i), creel.Logs, 1000)
				}
			})
		})
	}
	b.Run("throttled", func(b *testing.B) {
		a := New(Options{Records: 1})
		b.ReportAllocs()
		for b.Loop() {
			_ = a.Admit(creel.Caller{}, agents[0], creel.Logs, 1000, 100_000)
		}
	})
}
