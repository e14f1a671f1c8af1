package probe

import (
	"context"
	"errors"
	"io"
	"log"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/creelhq/creel"
)

func discard() *log.Logger { return log.New(io.Discard, "", 0) }

// broken is a resolver with a bug, for names that are no address.
type broken struct{}

func (broken) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	panic("BUG: broken")
}

// slow is a resolver that takes its time, and knows how many wait.
type slow struct {
	time          time.Duration
	now, most, in atomic.Int64
}

func (s *slow) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	s.in.Add(1)
	if n := s.now.Add(1); n > s.most.Load() {
		s.most.Store(n)
	}
	defer s.now.Add(-1)
	select {
	case <-time.After(s.time):
		return nil, errors.New("nothing")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// slot counts as a scheduler does.
type slot struct {
	parked          bool
	yields, parks   int
	wrong           bool
	refuse, refused int // the yield from which on there is no slot any more
}

func (s *slot) Yield(ctx context.Context) error {
	if s.yields++; s.refuse > 0 && s.yields >= s.refuse {
		s.refused++
		return context.Canceled
	}
	s.wrong = s.wrong || s.parked
	return ctx.Err()
}

func (s *slot) Park() {
	s.wrong = s.wrong || s.parked || s.refused > 0
	s.parked = true
	s.parks++
}

func (s *slot) Unpark(ctx context.Context) error {
	s.parked = false
	return ctx.Err()
}

// TestRound: targets are checked some at a time, each has its timeout within the round, and the round holds no slot while
// it waits.
func TestRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := &slow{time: 3 * time.Second}
		var targets []Target
		for i := range 7 {
			targets = append(targets, Target{URL: "tcp://shop.example:1", Name: string(rune('a' + i)), Timeout: 5 * time.Second})
		}
		targets[0].Timeout = time.Second
		c := open(t, hosts, Config{Parallel: 3}, targets...)
		s := &slot{}
		var k kept
		start := time.Now()
		if err := c.Collect(creel.WithYielder(t.Context(), s), &k); err != nil {
			t.Fatal(err)
		}
		// a ends after 1 s, which lets d begin; b and c after 3 s, with e and f; d after 4 s, with g, which ends after 7 s.
		if took := time.Since(start); took != 7*time.Second || hosts.most.Load() != 3 || hosts.in.Load() != 7 {
			t.Errorf("it took %v; %d were checked, %d at a time", took, hosts.in.Load(), hosts.most.Load())
		}
		for i := range c.results {
			want := cannotResolve
			if i == 0 {
				want = timedOut
			}
			wants(t, c.results[i], want, "")
		}
		if s.wrong || s.parked || s.yields != 7 || s.parks < 4 {
			t.Errorf("its slot: %+v", s)
		}
	})
}

// TestRoundEnds: a round that is cancelled, or loses its slot, ends soon, leaves nothing behind, and says nothing of the
// targets that it was about to check.
func TestRoundEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := func(ctx context.Context, s *slot, after time.Duration) {
			t.Helper()
			hosts := &slow{time: time.Hour}
			target := Target{URL: "tcp://shop.example:1", Timeout: 10 * time.Minute}
			second := target
			second.Name = "second"
			c := open(t, hosts, Config{}, target, second)
			var k kept
			start := time.Now()
			err := c.Collect(creel.WithYielder(ctx, s), &k)
			if err == nil || len(k.metrics)+len(k.logs) > 0 || hosts.now.Load() != 0 || hosts.in.Load() == 0 {
				t.Errorf("%v; %d and %d records; %d of %d checks go on", err, len(k.metrics), len(k.logs), hosts.now.Load(), hosts.in.Load())
			}
			if took := time.Since(start); took != after || s.wrong {
				t.Errorf("it took %v; %+v", took, s)
			}
			for _, target := range c.targets {
				if target.known {
					t.Error("what a broken-off round found is remembered")
				}
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		f(ctx, &slot{}, 2*time.Second)
		ctx, cancel = context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		s := &slot{refuse: 2}
		f(ctx, s, 0)
		if s.refused == 0 {
			t.Error("the slot was not lost")
		}
	})
}

// settling counts targets that are up and settles at once.
type settling struct{ up int }

func (s *settling) Send(_ context.Context, b *creel.Batch) error {
	if b.Signal() == creel.Metrics {
		s.up = 0
		for _, m := range b.Metrics() {
			if m.Desc == success && m.Value.Int() == 1 {
				s.up++
			}
		}
	}
	creel.Settle(b, nil)
	return nil
}

func (s *settling) TrySend(b *creel.Batch) bool { return s.Send(context.Background(), b) == nil }
