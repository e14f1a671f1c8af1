package pipeline

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// TestLimitHolds: within any time, no more goes out than comes in, one burst, and one request.
func TestLimitHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(0, 0)
		c := RateLimit{
			RequestsPerSecond: rapid.SampledFrom([]float64{0, 0.5, 3, 100}).Draw(t, "requests"),
			RecordsPerSecond:  rapid.SampledFrom([]float64{0, 0.1, 100, 1e6}).Draw(t, "records"),
			Burst:             time.Duration(rapid.IntRange(0, 3000).Draw(t, "burst")) * time.Millisecond,
		}
		l := newLimiter(c, now)
		if l == nil {
			return
		}
		type sent struct {
			at   time.Time
			load load
		}
		var log []sent
		for range rapid.IntRange(1, 50).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 2000).Draw(t, "pass")) * time.Millisecond)
			request := load{1, float64(rapid.IntRange(1, 1000).Draw(t, "size"))}
			for tries := 0; ; tries++ {
				wait := l.take(now, request)
				if wait == 0 {
					break
				}
				if tries > 2 {
					t.Fatalf("still to wait %v", wait)
				}
				now = now.Add(wait)
			}
			if rapid.IntRange(0, 4).Draw(t, "give up") == 0 {
				l.refund(request)
				continue
			}
			log = append(log, sent{now, request})
		}
		const rounding = 1e-3
		for i := range log {
			var out load
			for j := i; j < len(log); j++ {
				for k, r := range l.rate {
					if came := r * log[j].at.Sub(log[i].at).Seconds(); r > 0 && out[k] > came+l.full[k]+rounding {
						t.Fatalf("limit %d: %v went out before %v, %v could", k, out[k], log[j].at, came+l.full[k])
					}
					out[k] += log[j].load[k]
				}
			}
		}
	})
}

// TestLimitWastesNothing: who always waits as long as is said sends as much as may be.
func TestLimitWastesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		l := newLimiter(RateLimit{RecordsPerSecond: 100, Burst: time.Second}, begin)
		for sent := 0.0; time.Since(begin) < 100*time.Second; sent += 250 { // more than the bucket holds
			if came := 100 + 100*time.Since(begin).Seconds(); sent > came+250 || sent < came-250 {
				t.Fatalf("after %v, %v were sent", time.Since(begin), sent)
			}
			if err := l.pay(t.Context(), load{1, 250}); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := l.pay(ctx, load{1, 1}); err == nil {
			t.Error("nobody could stop the wait")
		}
	})
}
