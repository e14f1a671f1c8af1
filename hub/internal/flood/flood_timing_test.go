package flood

import (
	"fmt"
	"net"
	"testing"
)

// What a connection costs beside the system's own accept and close, which take some ten microseconds: let in and gone again,
// or refused. The limit to hold it against is a microsecond.
func BenchmarkAccept(b *testing.B) {
	g := New(Options{})
	addresses := make([]net.Addr, 10_000)
	for i := range addresses {
		addresses[i] = address(fmt.Sprintf("10.0.%d.%d", i>>8, i&255))
	}
	b.Run("in", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			a, known := addressOf(addresses[i%len(addresses)])
			if g.admit(a, known) == nil {
				g.left(a, known)
			}
		}
	})
	b.Run("failed", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			g.Failed(addresses[i%len(addresses)])
		}
	})
	b.Run("refused", func(b *testing.B) {
		bad := address("192.0.2.1")
		for range 100 {
			g.Failed(bad)
		}
		a, known := addressOf(bad)
		b.ReportAllocs()
		for b.Loop() {
			if g.admit(a, known) == nil {
				g.left(a, known)
			}
		}
	})
}
