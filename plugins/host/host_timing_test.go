//go:build linux

package host

import (
	"context"
	"testing"
	"time"

	"github.com/creelhq/creel"
)

// settling settles what it gets at once.
type settling struct{ points int }

func (s *settling) Send(_ context.Context, b *creel.Batch) error {
	s.points = b.Len()
	creel.Settle(b, nil)
	return nil
}

func (s *settling) TrySend(b *creel.Batch) bool { return s.Send(context.Background(), b) == nil }

// TestRoundAllocations: a round that does not count processes allocates for the batch and the names of the files it
// opens, and nothing by point, device or line.
func TestRoundAllocations(t *testing.T) {
	c, _ := newTiming(t, everything)
	var out settling
	round := func() {
		c.counted = time.Now() // not this time
		if err := c.Collect(t.Context(), &out); err != nil {
			t.Fatal(err)
		}
	}
	round()
	if n := testing.AllocsPerRun(50, round); n > 60 || out.points < 20 {
		t.Errorf("a round of %d points allocated %v times", out.points, n)
	}
}

func newTiming(t testing.TB, collect []string) (*collector, *creel.Memory) {
	memory := &creel.Memory{}
	c, err := newCollector(Config{Collect: collect}, creel.Host{Memory: memory}.Ready(), newMachine("/"))
	if err != nil {
		t.Fatal(err)
	}
	return c, memory
}

// BenchmarkRound is one round on this machine, whole and by source; "counting" includes the count of processes, of which
// there is at most one in countEvery.
func BenchmarkRound(b *testing.B) {
	f := func(name string, collect []string, counting bool) {
		b.Run(name, func(b *testing.B) {
			c, _ := newTiming(b, collect)
			var out settling
			b.ReportAllocs()
			for b.Loop() {
				c.counted = time.Now()
				if counting {
					c.counted = time.Time{}
				}
				if err := c.Collect(b.Context(), &out); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(out.points), "points")
		})
	}
	f("all", everything, false)
	f("all,counting", everything, true)
	for _, name := range everything {
		f(name, []string{name}, false)
	}
}
