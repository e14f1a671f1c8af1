package deadletter_test

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/creelhq/creel/deadletter"
)

// The limit of Put is one synchronisation of the disk for all who put at the same time; Get reads one record of the spool.
func BenchmarkStore(b *testing.B) {
	for _, many := range []int{1, 16} {
		b.Run(fmt.Sprintf("put by %d", many), func(b *testing.B) {
			s := open(b, b.TempDir(), deadletter.Options{})
			l := letter(0, 500)
			b.SetParallelism(max(many/runtime.GOMAXPROCS(0), 1))
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := s.Put(l); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
	b.Run("get", func(b *testing.B) {
		s := open(b, b.TempDir(), deadletter.Options{})
		for n := range 100 {
			put(b, s, letter(n, 500))
		}
		heads, err := s.Select(deadletter.Filter{})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		b.ResetTimer()
		for i := 0; b.Loop(); i++ {
			if _, err := s.Get(heads[i%len(heads)].Seq); err != nil {
				b.Fatal(err)
			}
		}
	})
}
