package task

import (
	"context"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestAllocations: a submitted round costs its job and, when it begins, itself and what hands it to a worker.
func TestAllocations(t *testing.T) {
	if testing.Short() {
		t.Skip("the short form is for the race detector, which allocates itself")
	}
	s := New(Options{})
	s.started = true
	over := make(chan struct{})
	work := func(context.Context) error { over <- struct{}{}; return nil }
	if n := testing.AllocsPerRun(200, func() {
		if err := s.Submit(Task{Run: work}); err != nil {
			t.Fatal(err)
		}
		<-over
	}); n > 4 {
		t.Errorf("a round costs %v allocations", n)
	}
	if err := s.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	s.stop()
}

func nothing(context.Context) error { return nil }

// BenchmarkSubmit measures a round from Submit to its end, with a backlog as the machine makes it. Limit: 1000 ns.
func BenchmarkSubmit(b *testing.B) {
	s := New(Options{})
	ctx, cancel := context.WithCancel(b.Context())
	var done sync.WaitGroup
	done.Go(func() { _ = s.Run(ctx) })
	var left atomic.Int64
	left.Store(int64(b.N))
	over := make(chan struct{})
	work := func(context.Context) error {
		if left.Add(-1) == 0 {
			close(over)
		}
		return nil
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if err := s.Submit(Task{Priority: i % 10, Run: work}); err != nil {
			b.Fatal(err)
		}
	}
	<-over
	b.StopTimer()
	cancel()
	done.Wait()
}

// BenchmarkQueue measures a submission and a beginning and end without running, while 100 000 others wait. Limit: 1000 ns.
func BenchmarkQueue(b *testing.B) {
	s := New(Options{Slots: 1})
	s.free, s.started = 0, true // nobody begins
	for i := range 100_000 {
		if err := s.Submit(Task{Priority: i % 10, Run: nothing}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if err := s.Submit(Task{Priority: i % 10, Run: nothing}); err != nil {
			b.Fatal(err)
		}
		s.mu.Lock()
		s.free = 1
		now := time.Now()
		begins, _, _ := s.next()
		r := s.begin(begins, now)
		s.close(r, now)
		s.again(r.job, now, time.Time{})
		s.free = 0
		s.mu.Unlock()
	}
}

// BenchmarkPending measures what waiting rounds cost. Limit: 64 MiB for 100 000, which is 671 bytes each.
func BenchmarkPending(b *testing.B) {
	for _, kind := range []string{"submitted", "with keys", "added"} {
		b.Run(kind, func(b *testing.B) {
			const n = 100_000
			for range b.N {
				var before, after runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&before)
				s := New(Options{})
				ids := make([]byte, 5*n)
				for i := range ids {
					ids[i] = byte('a' + rand.IntN(26))
				}
				for i := range n {
					t := Task{Priority: i % 10, Run: nothing}
					var err error
					switch kind {
					case "with keys":
						t.Key = string(ids[5*i : 5*i+5])
						err = s.Submit(t)
					case "added":
						t.ID, t.Every = string(ids[5*i:5*i+5])+strconv.Itoa(i), time.Minute
						err = s.Add(t)
					default:
						err = s.Submit(t)
					}
					if err != nil {
						b.Fatal(err)
					}
				}
				runtime.GC()
				runtime.ReadMemStats(&after)
				b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "B/task")
				runtime.KeepAlive(s)
				runtime.KeepAlive(ids)
			}
		})
	}
}

// BenchmarkDispatch measures from Submit to the first instruction of a round, at 80 % load: rounds of 5 ms that come at
// random into 64 slots. Limit: p99 1000 µs, of which an ideal queue would need about 300 at that load. A channel with 64 places and a
// goroutine for each round says what the machine makes of it.
func BenchmarkDispatch(b *testing.B) {
	const slots = 64
	b.Run("scheduler", func(b *testing.B) {
		s := New(Options{Slots: slots})
		ctx, cancel := context.WithCancel(b.Context())
		var all sync.WaitGroup
		all.Go(func() { _ = s.Run(ctx) })
		dispatch(b, slots, func(run func()) {
			if err := s.Submit(Task{Run: func(context.Context) error { run(); return nil }}); err != nil {
				b.Fatal(err)
			}
		})
		cancel()
		all.Wait()
	})
	b.Run("channel", func(b *testing.B) {
		places := make(chan struct{}, slots)
		dispatch(b, slots, func(run func()) {
			go func() {
				places <- struct{}{}
				run()
				<-places
			}()
		})
	})
}

// dispatch submits rounds, and ends them: timers are a millisecond late, so that rounds took longer, came and ended in bursts, and the
// load were 99 %. What it was is told.
func dispatch(b *testing.B, slots int, submit func(run func())) {
	const takes = 5 * time.Millisecond
	type round struct {
		began time.Time
		over  chan struct{}
	}
	r := rand.New(rand.NewPCG(1, 2))
	late := make([]time.Duration, b.N)
	begun := make(chan round, slots)
	var running []round // the first to begin is the first to end
	var busy time.Duration
	first := time.Now()
	next, left := first, b.N
	b.ResetTimer()
	for i := 0; left > 0; runtime.Gosched() {
		for len(begun) > 0 {
			running = append(running, <-begun)
		}
		now := time.Now()
		for len(running) > 0 && now.Sub(running[0].began) >= takes {
			busy += now.Sub(running[0].began)
			close(running[0].over)
			running = running[1:]
			left--
		}
		if i == b.N || now.Before(next) {
			continue
		}
		next = next.Add(time.Duration(r.ExpFloat64() * float64(takes) / float64(slots) / 0.8))
		at := &late[i]
		i++
		came := time.Now()
		submit(func() {
			x := round{time.Now(), make(chan struct{})}
			*at = x.began.Sub(came)
			begun <- x
			<-x.over
		})
	}
	b.StopTimer()
	b.ReportMetric(100*float64(busy)/float64(slots)/float64(time.Since(first)), "load-%")
	slices.Sort(late)
	b.ReportMetric(float64(late[len(late)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(late[len(late)*99/100].Microseconds()), "p99-µs")
}

// BenchmarkYield measures creel.Yield for nobody. Limit: 200 ns.
func BenchmarkYield(b *testing.B) {
	s := New(Options{Slots: 1})
	s.started = true
	over := make(chan struct{})
	_ = s.Submit(Task{Run: func(ctx context.Context) error {
		defer close(over)
		for b.Loop() {
			if err := s.rounds[0].Yield(ctx); err != nil {
				b.Error(err)
			}
		}
		return nil
	}})
	<-over
}
