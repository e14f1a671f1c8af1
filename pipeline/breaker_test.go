package pipeline

import (
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/creelhq/creel"
)

// naiveBreaker remembers every request, and is a breaker by counting them.
type naiveBreaker struct {
	c     Breaker
	state breakerState
	until time.Duration
	calls []naiveCall // that ended while it was closed, since it has been
	tried int
	good  int
	epoch int
}

type naiveCall struct {
	at           time.Duration
	failed, slow bool
}

func (b *naiveBreaker) turn(to breakerState, now, after time.Duration) {
	b.state, b.calls, b.tried, b.good = to, nil, 0, 0
	b.epoch++
	if to == open {
		b.until = now + max(after, b.c.OpenFor)
	}
}

func (b *naiveBreaker) enter(now time.Duration) bool {
	if b.state == open && now >= b.until {
		b.turn(halfOpen, now, 0)
	}
	if b.state == halfOpen && b.tried < b.c.Probes {
		b.tried++
		return true
	}
	return b.state == closed
}

func (b *naiveBreaker) leave(epoch int, now time.Duration, slow, failed bool, after time.Duration) {
	if epoch != b.epoch {
		if b.state == open && failed {
			b.until = max(b.until, now+after)
		}
		return
	}
	switch b.state {
	case halfOpen:
		if failed || slow {
			b.turn(open, now, after)
		} else if b.good++; b.good == b.c.Probes {
			b.turn(closed, now, 0)
		}
	case closed:
		b.calls = append(b.calls, naiveCall{now, failed, slow})
		calls, errs, slows := 0.0, 0.0, 0.0
		part := b.c.Window / windowParts
		for _, c := range b.calls {
			if now/part-c.at/part < windowParts {
				calls++
				if c.failed {
					errs++
				}
				if c.slow {
					slows++
				}
			}
		}
		if b.c.Errors > 0 && errs >= float64(b.c.Errors) || calls >= float64(b.c.MinCalls) &&
			(b.c.ErrorRatio > 0 && errs >= b.c.ErrorRatio*calls || b.c.SlowRatio > 0 && slows >= b.c.SlowRatio*calls) {
			b.turn(open, now, after)
		}
	}
}

// TestBreakerIsItsModel: whatever requests come to, in whatever order they end, the breaker does what the naive one does.
func TestBreakerIsItsModel(t *testing.T) {
	seen := make(map[breakerState]int)
	rapid.Check(t, func(t *rapid.T) {
		origin := time.Unix(1000, 0)
		c := Breaker{
			Enabled: true, Window: time.Second, MinCalls: rapid.IntRange(1, 8).Draw(t, "min calls"),
			ErrorRatio: rapid.SampledFrom([]float64{0, 0.3, 0.5, 1}).Draw(t, "error ratio"),
			SlowRatio:  rapid.SampledFrom([]float64{0, 0.5, 1}).Draw(t, "slow ratio"), SlowCall: 10 * time.Millisecond,
			Errors:  rapid.SampledFrom([]int{0, 0, 3}).Draw(t, "errors"),
			OpenFor: 500 * time.Millisecond, Probes: rapid.IntRange(1, 3).Draw(t, "probes"),
		}
		b, model := newBreaker(c, origin), &naiveBreaker{c: c}
		now := time.Duration(0)
		type call struct{ pass, epoch int }
		var under []call
		check := func() {
			state, _ := b.get()
			seen[state]++
			if state != model.state {
				t.Fatalf("at %v the breaker is %v, the model %v", now, state, model.state)
			}
			if down := b.down(); (down == nil) != (state == closed) {
				t.Fatalf("in state %v it is down because of %v", state, down)
			}
		}
		take := func() (c call) {
			i := rapid.IntRange(0, len(under)-1).Draw(t, "which")
			c = under[i]
			under = append(under[:i], under[i+1:]...)
			return c
		}
		answers := []error{
			nil, nil, errors.New("away"), creel.Permanent(errors.New("bad")), &creel.Partial{Rejected: 1},
			&creel.Throttled{Err: errors.New("busy"), After: time.Second},
		}
		meaning := func(err error) (failed bool, after time.Duration) {
			switch err {
			case answers[2]:
				return true, 0
			case answers[5]:
				return true, time.Second
			}
			return false, 0
		}
		calls := func(times int, err error) {
			for range times {
				pass, ok := b.enter(origin.Add(now))
				if want := model.enter(now); ok != want {
					t.Fatalf("at %v, state %v: entered is %t, want %t", now, model.state, ok, want)
				}
				if ok {
					b.leave(pass, origin.Add(now), 0, err)
					failed, after := meaning(err)
					model.leave(model.epoch, now, false, failed, after)
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"": func(*rapid.T) { check() },
			"pass": func(t *rapid.T) {
				now += time.Duration(rapid.IntRange(1, 1200).Draw(t, "ms")) * time.Millisecond
			},
			"enter": func(t *rapid.T) {
				pass, ok := b.enter(origin.Add(now))
				if want := model.enter(now); ok != want {
					t.Fatalf("at %v, state %v: entered is %t, want %t", now, model.state, ok, want)
				}
				if ok {
					under = append(under, call{pass, model.epoch})
				}
			},
			"fail": func(t *rapid.T) {
				calls(rapid.IntRange(1, 8).Draw(t, "times"), rapid.SampledFrom(answers[2:]).Draw(t, "answer"))
			},
			"recover": func(t *rapid.T) {
				now = max(now, model.until)
				calls(rapid.IntRange(1, c.Probes).Draw(t, "times"), nil)
			},
			"leave": func(t *rapid.T) {
				if len(under) == 0 {
					return
				}
				c := take()
				i := rapid.IntRange(0, len(answers)-1).Draw(t, "answer")
				slow := rapid.Bool().Draw(t, "slow")
				took := time.Millisecond
				if slow {
					took = 10 * time.Millisecond
				}
				failed, after := meaning(answers[i])
				b.leave(c.pass, origin.Add(now), took, answers[i])
				model.leave(c.epoch, now, slow && model.c.SlowRatio > 0, failed, after)
			},
		})
	})
	if len(seen) != 3 && !testing.Short() {
		t.Errorf("only these states were seen: %v", seen)
	}
}

// TestBreakerSaysWhy it is open, and since when.
func TestBreakerSaysWhy(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	b := newBreaker(Breaker{Enabled: true, Window: time.Minute, MinCalls: 1, ErrorRatio: 1, SlowRatio: 1, SlowCall: time.Second, OpenFor: time.Minute, Probes: 1}, now)
	pass, _ := b.enter(now)
	if !b.leave(pass, now, 2*time.Second, nil) || b.down().Error() != "the breaker is open since 2026-01-02T03:04:05Z: a request took 2s" {
		t.Errorf("slow: %v", b.down())
	}
	later := now.Add(time.Hour)
	pass, _ = b.enter(later)
	if b.leave(pass, later, 0, errors.New("gone")) || !strings.HasSuffix(b.down().Error(), "2026-01-02T03:04:05Z: gone") {
		t.Errorf("probe failed: %v", b.down())
	}
	pass, ok := b.enter(later.Add(time.Hour))
	if !ok || !b.leave(pass, later.Add(time.Hour), 0, nil) || b.down() != nil {
		t.Errorf("probe succeeded: %v", b.down())
	}
}
