package probe

import (
	"fmt"
	"net"
	"testing"

	"github.com/creelhq/creel"
)

// BenchmarkRound is one round over a thousand TCP targets on loopback. Its limit is "dial": connecting as often, by
// itself, with as many at a time.
func BenchmarkRound(b *testing.B) {
	const count = 1000
	address := accepting(b)
	for _, parallel := range []int{10, 100} {
		b.Run(fmt.Sprintf("parallel=%d", parallel), func(b *testing.B) {
			var targets []Target
			for i := range count {
				targets = append(targets, Target{URL: "tcp://" + address, Name: fmt.Sprint("target-", i)})
			}
			c := open(b, net.DefaultResolver, Config{Parallel: parallel}, targets...)
			c.host.Memory = &creel.Memory{}
			var out settling
			b.ReportAllocs()
			for b.Loop() {
				if err := c.Collect(b.Context(), &out); err != nil {
					b.Fatal(err)
				}
			}
			if out.up != count {
				b.Errorf("%d of %d targets are up", out.up, count)
			}
		})
		b.Run(fmt.Sprintf("dial/parallel=%d", parallel), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				slots := make(chan struct{}, parallel)
				for range count {
					slots <- struct{}{}
					go func() {
						if conn, err := net.Dial("tcp", address); err == nil {
							conn.Close()
						}
						<-slots
					}()
				}
				for range parallel {
					slots <- struct{}{}
				}
			}
		})
	}
}

// accepting returns an address at which connections are accepted, and closed.
func accepting(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	return l.Addr().String()
}
