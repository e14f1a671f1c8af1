package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/metric"
	"github.com/creelhq/creel/pipeline"
)

// These tests run in a bubble of testing/synctest: the time is not real, and passes when everybody waits.

// attempt is a request that a far side has seen.
type attempt struct {
	at      time.Duration // since the beginning
	records int
}

// farSide notes the attempts, and answers them.
type farSide struct {
	mu       sync.Mutex
	begin    time.Time
	attempts []attempt
	answer   error
}

// watch makes a far side of w's exporters.
func watch(w *world) *farSide {
	f := &farSide{begin: time.Now()}
	w.answer = func(_ context.Context, _ string, records int) error {
		time.Sleep(5 * time.Millisecond) // or time would stand still
		f.mu.Lock()
		defer f.mu.Unlock()
		f.attempts = append(f.attempts, attempt{time.Since(f.begin), records})
		return f.answer
	}
	return f
}

// say sets the answer, and returns the attempts so far.
func (f *farSide) say(err error) []attempt {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = err
	return slices.Clone(f.attempts)
}

// value returns what a metric of the engine says, the sum over its exporters; -1 if there is none.
func value(e *pipeline.Engine, name string) float64 {
	found, sum := false, 0.0
	e.Metrics.Gather(func(p metric.Point) {
		if p.Name == name {
			found = true
			sum += p.Value
		}
	})
	if !found {
		return -1
	}
	return sum
}

// TestRateLimits: no limit is exceeded, none keeps anything back for ever, and nothing is dropped.
func TestRateLimits(t *testing.T) {
	for _, c := range []struct {
		limits string
		rate   func(attempt) float64 // what one weighs
		want   float64               // a second
		most   float64               // at once
	}{
		{"{requests_per_second: 5}", func(attempt) float64 { return 1 }, 5, 5},
		{"{records_per_second: 200}", func(a attempt) float64 { return float64(a.records) }, 200, 400},
		{"{records_per_second: 10, requests_per_second: 100, burst: 0s}", func(a attempt) float64 { return float64(a.records) }, 10, 200},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			e := w.engine()
			f := watch(w)
			w.apply(e, one("gen", "", "rate_limit: "+c.limits+", queue: {max_bytes: 64KiB}, batch: {max_bytes: 16KiB}", "delivered"))
			const span = 100 * time.Second
			time.Sleep(span)
			sum, most := 0.0, 0.0
			for _, a := range f.say(nil) {
				if came := c.want*a.at.Seconds() + c.most; sum > came {
					t.Fatalf("%s: %v were sent before %v", c.limits, sum, a.at)
				}
				sum += c.rate(a)
				most = max(most, c.rate(a))
			}
			if sum < c.want*span.Seconds()-most || value(e, "creel.export.limited") < 50 {
				t.Errorf("%s: %v were sent in %v; it has waited %v s", c.limits, sum, span, value(e, "creel.export.limited"))
			}
			w.apply(e, one("gen", "", "queue: {max_bytes: 64KiB}, concurrency: 2, rate_limit: {requests_per_second: 1000}", "delivered"))
			if err := e.Drain(t.Context()); err != nil { // interrupts nobody's wait for ever
				t.Fatal(err)
			}
			if p, x := balanced(t, e); x.Delivered != p.Accepted || len(x.Dropped) > 0 {
				t.Errorf("the ledger says %+v", x)
			}
		})
	}
}

const (
	aBreaker  = "breaker: {enabled: true, window: 1m, min_calls: 4, open_for: 10s, probes: 2}"
	openSince = "the breaker is open since 2000-01-01T00:00:"
)

// TestComeLater: a far side that says when it will take more is not ill before it has taken nothing for a while, and neither
// is it if it takes some in between.
func TestComeLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.engine()
		f := watch(w)
		busy := &creel.Throttled{Err: errors.New("over the limit"), After: time.Second}
		f.say(busy)
		w.apply(e, one("gen", "", "queue: {max_bytes: 64KiB}, batch: {max_bytes: 4KiB}, concurrency: 1", "delivered"))
		for range 3 {
			time.Sleep(50 * time.Second)
			if c := e.Components()[1]; !c.Healthy {
				t.Errorf("asked to come later for less than a minute: %+v", c)
			}
			if n := len(f.say(nil)); n == 0 {
				t.Error("it was not asked")
			}
			time.Sleep(5 * time.Second) // takes some
			f.say(busy)
		}
		time.Sleep(70 * time.Second)
		if c := e.Components()[1]; c.Healthy || !strings.Contains(c.Error, "over the limit") {
			t.Errorf("it takes nothing for more than a minute: %+v", c)
		}
		f.say(nil)
		time.Sleep(5 * time.Second)
		if c := e.Components()[1]; !c.Healthy {
			t.Errorf("it takes records again: %+v", c)
		}
		f.say(errors.New("away"))
		time.Sleep(5 * time.Second)
		if c := e.Components()[1]; c.Healthy {
			t.Error("it is away, and that is not ill")
		}
		f.say(nil)
		if err := e.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// TestBreaker: while it is open nothing is sent, then little; it says so; and when the far side is back, all arrives.
func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.engine()
		f := watch(w)
		f.say(errors.New("away"))
		w.apply(e, one("gen", "", aBreaker+", queue: {max_bytes: 64KiB}, batch: {max_bytes: 4KiB}", "delivered"))
		time.Sleep(9 * time.Second)
		c := e.Components()[1]
		if c.Healthy || !strings.HasPrefix(c.Error, openSince) || !strings.HasSuffix(c.Error, ": away") {
			t.Errorf("the health is %+v", c)
		}
		if n := len(f.say(errors.New("still away"))); n < 4 || n > 7 || value(e, "creel.export.breaker") != 2 { // 3 may have been under way
			t.Errorf("%d attempts, breaker %v", n, value(e, "creel.export.breaker"))
		}
		before := len(f.say(errors.New("still away")))
		time.Sleep(2 * time.Second)
		if n := len(f.say(errors.New("still away"))) - before; n < 1 || n > 2 {
			t.Errorf("%d probes", n)
		}
		f.say(&creel.Throttled{Err: errors.New("come back later"), After: time.Minute})
		time.Sleep(10 * time.Second)
		before = len(f.say(nil))
		time.Sleep(50 * time.Second)
		if n := len(f.say(nil)) - before; n != 0 {
			t.Errorf("%d attempts before the far side wants them", n)
		}
		if c := e.Components()[1]; c.Healthy || !strings.Contains(c.Error, "come back later") {
			t.Errorf("the health is %+v", c)
		}
		time.Sleep(10 * time.Second)
		w.await("records arrive", func() bool { return len(w.arrived["sink"]) > 100 })
		if c := e.Components()[1]; !c.Healthy || value(e, "creel.export.breaker") != 0 || value(e, "creel.export.breaker_openings") != 1 {
			t.Errorf("the health is %+v, breaker %v, openings %v", c, value(e, "creel.export.breaker"), value(e, "creel.export.breaker_openings"))
		}
		if err := e.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if p, x := balanced(t, e); x.Delivered != p.Accepted || len(x.Dropped) > 0 {
			t.Errorf("the ledger says %+v", x)
		}
	})
}

// TestLateSuccess: what was under way when the breaker opened, and succeeds, does not make the far side well.
func TestLateSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.engine()
		var tries atomic.Int64
		w.answer = func(context.Context, string, int) error {
			if tries.Add(1) == 1 {
				time.Sleep(time.Second)
				return errors.New("away")
			}
			time.Sleep(5 * time.Second)
			return nil
		}
		w.apply(e, one("gen", "", "breaker: {enabled: true, errors: 1, open_for: 1m}, concurrency: 2, queue: {max_bytes: 64KiB}, batch: {max_bytes: 4KiB}", "delivered"))
		time.Sleep(30 * time.Second)
		if c := e.Components()[1]; c.Healthy || !strings.HasSuffix(c.Error, ": away") || tries.Load() != 2 {
			t.Errorf("after %d tries the health is %+v", tries.Load(), c)
		}
	})
}

// TestHeldBackIsNotPaid: what the breaker holds back after it has passed the rate limit is not counted there.
func TestHeldBackIsNotPaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.engine()
		begin := time.Now()
		var mu sync.Mutex
		var at []time.Duration
		w.answer = func(context.Context, string, int) error {
			mu.Lock()
			at = append(at, time.Since(begin).Round(time.Second))
			n := len(at)
			mu.Unlock()
			time.Sleep(5 * time.Second)
			if n > 2 {
				return nil
			}
			return errors.New("away")
		}
		// The first request fails at 5 s, and pays for its second attempt at 10 s, before the second request, which pays at 20 s.
		// At 15 s the breaker opens, until 22 s.
		w.apply(e, one("gen", "", "breaker: {enabled: true, errors: 2, min_calls: 100, open_for: 7s, probes: 1}, rate_limit: {requests_per_second: 0.1, burst: 0s}, concurrency: 2, queue: {max_bytes: 64KiB}, batch: {max_bytes: 4KiB}", "delivered"))
		time.Sleep(35 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		if want := []time.Duration{0, 10 * time.Second, 22 * time.Second, 32 * time.Second}; !slices.Equal(at, want) {
			t.Errorf("attempts at %v, want %v", at, want)
		}
	})
}

// TestRefusalsOpenNoBreaker: a far side that refuses records for good is well.
func TestRefusalsOpenNoBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.engine()
		w.size = 1000
		w.refuse = func(string) bool { return true }
		w.apply(e, one("manual", "", aBreaker+", concurrency: 1", "delivered"))
		w.await("all are refused", func() bool { return len(w.results["manual#999"]) == 1 })
		if value(e, "creel.export.breaker") != 0 {
			t.Error("the breaker is open")
		}
	})
}

// TestOpenBreakerSheds: what a sender had in hand when the breaker opened is back in the queue, so that the oldest go
// and the newest stay.
func TestOpenBreakerSheds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.engine()
		f := watch(w)
		f.say(errors.New("away"))
		w.apply(e, fmt.Sprintf(`collectors: {poll: {every: 10ms}}
exporters: {sink: {delivery: {%s, retry: {initial: 1h, max: 1h}, queue: {max_bytes: 64KiB, when_full: drop_oldest}, batch: {max_bytes: 8KiB}}}}
pipelines: {p: {from: [poll], to: [sink]}}`, strings.Replace(aBreaker, "10s", "1m", 1)))
		time.Sleep(50 * time.Second)
		f.say(nil)
		time.Sleep(20 * time.Second)
		if err := e.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		p, x := balanced(t, e)
		dropped := x.Dropped["queue_full"]
		if dropped == 0 || x.Delivered+dropped != p.Accepted || x.Delivered < 1000 {
			t.Errorf("the ledger says %+v", x)
		}
		const underWay = 100 // probes are not shed
		for i := range w.next["poll"] {
			if arrived := w.arrived["sink"][name("poll", i)] > 0; arrived != (i >= dropped) && max(i-dropped, dropped-i) > underWay {
				t.Fatalf("%d were dropped; that %s arrived is %t", dropped, name("poll", i), arrived)
			}
		}
	})
}

// TestOverloadHalves: what a far side cannot take at once, without a word on when it can, is sent in smaller requests;
// a single record is tried until it is taken. The whole is tried twice, because the far side may have taken it, and then
// knows it by its name. Nothing is dropped.
func TestOverloadHalves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.engine()
		w.size = 1000
		overloaded, tries := &creel.Throttled{Err: errors.New("too much")}, 0
		w.answer = func(_ context.Context, _ string, records int) error {
			if tries++; tries < 30 || records > 300 {
				return overloaded
			}
			return nil
		}
		w.apply(e, one("manual", "", "concurrency: 1", "delivered"))
		w.await("all arrive", func() bool { return len(w.arrived["sink"]) == 1000 && len(w.results["manual#999"]) == 1 })
		if p, x := balanced(t, e); x.Delivered != 1000 || len(x.Dropped) > 0 || p.Accepted != 1000 {
			t.Errorf("the ledger says %+v", x)
		}
		if !slices.Equal(w.calls["sink"][:12], []int{1000, 1000, 500, 250, 125, 62, 31, 15, 7, 3, 1, 1}) || tries > 45 {
			t.Errorf("attempts of %v records", w.calls["sink"])
		}
	})
}

// TestAdaptiveDelivery: with what is best found out, a far side with many places gets more than with concurrency 4, and
// one that is overloaded by more is not.
func TestAdaptiveDelivery(t *testing.T) {
	run := func(delivery string, places int) (delivered int64, concurrency float64) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			e := w.engine()
			free := make(chan struct{}, places)
			w.answer = func(context.Context, string, int) error {
				select {
				case free <- struct{}{}:
					time.Sleep(50 * time.Millisecond)
					<-free
					return nil
				default:
					return &creel.Throttled{Err: errors.New("busy"), After: time.Millisecond}
				}
			}
			w.apply(e, one("gen", "", delivery+"queue: {max_bytes: 1MiB}, batch: {max_bytes: 4KiB}", "delivered"))
			time.Sleep(30 * time.Second)
			_, x := balanced(t, e)
			delivered, concurrency = x.Delivered, value(e, "creel.export.concurrency")
			if err := e.Drain(t.Context()); err != nil {
				t.Fatal(err)
			}
			if p, x := balanced(t, e); x.Delivered != p.Accepted || len(x.Dropped) > 0 {
				t.Errorf("the ledger says %+v", x)
			}
		})
		return delivered, concurrency
	}
	const adaptive = "adaptive: {enabled: true, max: 32}, "
	fixed, _ := run("", 20)
	many, c := run(adaptive, 20)
	few, d := run(adaptive, 2)
	t.Logf("4 requests: %d records, %v: %d records; with places for 2, %v: %d", fixed, c, many, d, few)
	if many < 3*fixed || c < 5 || c > 24 || d > 4 || few < fixed/3 {
		t.Errorf("4 requests: %d records, %v: %d records; with places for 2, %v: %d", fixed, c, many, d, few)
	}
}

// TestStagesKeepTheOrder: with concurrency 1 records arrive in order, whatever holds them up.
func TestStagesKeepTheOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.engine()
		r := rand.New(rand.NewPCG(1, 2))
		var last int64 = -1
		w.answer = func(_ context.Context, _ string, records int) error {
			if r.IntN(2) == 0 {
				return faults[r.IntN(len(faults))]
			}
			return nil
		}
		w.took = func(record int64) {
			if record != last+1 {
				t.Errorf("%d came after %d", record, last)
			}
			last = record
		}
		text := "concurrency: 1, adaptive: {enabled: true}, queue: {max_bytes: 64KiB}, batch: {max_bytes: 4KiB}, rate_limit: {requests_per_second: %d}, breaker: {enabled: true, min_calls: 3, open_for: 50ms, window: 1s}"
		for i := range 20 {
			w.apply(e, one("gen", "", fmt.Sprintf(text, 100+i), "delivered"))
			time.Sleep(3 * time.Second)
		}
		if err := e.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if p, x := balanced(t, e); last != p.Accepted-1 || x.Delivered != p.Accepted || p.Accepted < 1000 {
			t.Errorf("the last is %d; the ledger says %+v", last, x)
		}
		if value(e, "creel.export.breaker_openings") == 0 {
			t.Error("no breaker has opened")
		}
	})
}
