package pipeline

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/creelhq/creel"
)

// Breaker stops sending to a far side that mostly fails, and tries it again with few requests.
type Breaker struct {
	Enabled    bool          `doc:"Whether there is one." default:"false"`
	Window     time.Duration `doc:"Time that requests are looked back at." default:"1m" min:"10ms"`
	MinCalls   int           `doc:"Requests in the window below which the ratios are not looked at." default:"5" min:"1"`
	ErrorRatio float64       `doc:"Share of requests in the window that fail which opens it; 0: not looked at. A refusal for good is no failure of the far side." default:"0.5" min:"0" max:"1"`
	SlowRatio  float64       `doc:"Share of requests in the window that are slow which opens it; 0: not looked at." default:"0" min:"0" max:"1"`
	SlowCall   time.Duration `doc:"Time from which a request is slow." default:"5s" min:"1ms"`
	Errors     int           `doc:"Number of requests in the window that fail, of however many, which opens it; 0: not looked at." default:"0" min:"0"`
	OpenFor    time.Duration `doc:"How long nothing is sent once it is open; longer if the far side asks for that." default:"10s" min:"1ms"`
	Probes     int           `doc:"Requests that are then let through, all of which must succeed before it closes." default:"3" min:"1"`
}

type breakerState uint8

// The states, as the metric creel.export.breaker shows them.
const (
	closed breakerState = iota
	halfOpen
	open
)

// String returns the state's name.
func (s breakerState) String() string { return [...]string{"closed", "half-open", "open"}[s] }

// windowParts is how many parts the window moves on in.
const windowParts = 10

// tally is what came of requests.
type tally struct{ calls, errors, slow int }

// A breaker is a circuit breaker over a sliding window. A nil breaker is always closed.
//
// Every change of state begins an epoch. What a request of an earlier one comes to counts for nothing, except that the
// far side may still ask for more time.
type breaker struct {
	c Breaker

	mu     sync.Mutex
	state  breakerState
	epoch  int
	parts  [windowParts]tally
	newest int64 // number of the part that is being filled
	origin time.Time

	opened  time.Time     // when it left the closed state
	until   time.Time     // when it may be tried again
	cause   error         // the last failure
	probes  int           // half-open: let through
	passed  int           // of these, succeeded
	changed chan struct{} // closed when the state is another
	opening int           // times that it left the closed state
}

func newBreaker(c Breaker, now time.Time) *breaker {
	if !c.Enabled {
		return nil
	}
	return &breaker{c: c, origin: now, changed: make(chan struct{})}
}

// enter asks to send one request. After true, leave is to be called with the pass.
func (b *breaker) enter(now time.Time) (pass int, ok bool) {
	if b == nil {
		return 0, true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state == open && !now.Before(b.until) {
		b.turn(halfOpen)
	}
	switch {
	case b.state == open, b.state == halfOpen && b.probes == b.c.Probes:
		return 0, false
	case b.state == halfOpen:
		b.probes++
	}
	return b.epoch, true
}

// leave says what came of a request. It reports whether the breaker has left the closed state for it, or returned.
func (b *breaker) leave(pass int, now time.Time, took time.Duration, err error) (turned bool) {
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	failed, after := failure(err)
	if pass != b.epoch {
		if b.state == open && failed {
			b.cause = err
			b.askedUntil(now.Add(after))
		}
		return false
	}
	slow := b.c.SlowRatio > 0 && took >= b.c.SlowCall
	if failed {
		b.cause = err
	} else if slow {
		b.cause = fmt.Errorf("a request took %v", took.Round(time.Millisecond))
	}
	if b.state == halfOpen {
		if failed || slow {
			b.trip(now, after)
			return false
		}
		if b.passed++; b.passed == b.c.Probes {
			b.parts, b.cause = [windowParts]tally{}, nil
			b.turn(closed)
			return true
		}
		return false
	}
	t := b.part(now)
	t.calls++
	if failed {
		t.errors++
	}
	if slow {
		t.slow++
	}
	if !b.tripped() {
		return false
	}
	b.opened = now
	b.opening++
	b.trip(now, after)
	return true
}

// failure reports whether err is a failure of the far side, and how much time that asks for.
func failure(err error) (failed bool, after time.Duration) {
	if err == nil || creel.IsPermanent(err) {
		return false, 0
	}
	if _, partial := errors.AsType[*creel.Partial](err); partial {
		return false, 0
	}
	if t, ok := errors.AsType[*creel.Throttled](err); ok {
		after = t.After
	}
	return true, after
}

func (b *breaker) trip(now time.Time, after time.Duration) {
	b.until = now.Add(b.c.OpenFor)
	b.askedUntil(now.Add(after))
	b.turn(open)
}

func (b *breaker) askedUntil(t time.Time) {
	if t.After(b.until) {
		b.until = t
	}
}

func (b *breaker) turn(to breakerState) {
	b.state, b.probes, b.passed = to, 0, 0
	b.epoch++
	close(b.changed)
	b.changed = make(chan struct{})
}

// part returns the part of the window that now is in, and forgets what is older than the window.
func (b *breaker) part(now time.Time) *tally {
	n := int64(now.Sub(b.origin) / (b.c.Window / windowParts))
	for ; b.newest < n; b.newest++ {
		if n-b.newest >= windowParts {
			b.parts, b.newest = [windowParts]tally{}, n
			break
		}
		b.parts[(b.newest+1)%windowParts] = tally{}
	}
	return &b.parts[b.newest%windowParts]
}

func (b *breaker) tripped() bool {
	var t tally
	for _, p := range b.parts {
		t.calls, t.errors, t.slow = t.calls+p.calls, t.errors+p.errors, t.slow+p.slow
	}
	over := func(n int, ratio float64) bool { return ratio > 0 && float64(n) >= ratio*float64(t.calls) }
	return b.c.Errors > 0 && t.errors >= b.c.Errors ||
		t.calls >= b.c.MinCalls && (over(t.errors, b.c.ErrorRatio) || over(t.slow, b.c.SlowRatio))
}

// await waits until a request would be let through, or ctx is done.
func (b *breaker) await(ctx context.Context) error {
	for b != nil {
		b.mu.Lock()
		state, changed, wait, busy := b.state, b.changed, time.Until(b.until), b.probes == b.c.Probes
		b.mu.Unlock()
		if state == closed || state == open && wait <= 0 || state == halfOpen && !busy {
			break
		}
		var timer <-chan time.Time
		if state == open {
			timer = time.After(wait)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-timer:
		}
	}
	return nil
}

// down returns why nothing, or not everything, is sent; nil when the breaker is closed.
func (b *breaker) down() error {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state == closed {
		return nil
	}
	return fmt.Errorf("the breaker is open since %s: %w", b.opened.UTC().Format(time.RFC3339), b.cause)
}

// opens reports whether the breaker is not closed, and returns a channel that is when it is time to ask again.
func (b *breaker) opens() (down bool, changed <-chan struct{}) {
	if b == nil {
		return false, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state != closed, b.changed
}

// get returns the state, and how often it has left the closed one.
func (b *breaker) get() (s breakerState, opened int) {
	if b == nil {
		return closed, 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state, b.opening
}
