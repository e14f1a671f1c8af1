package pipeline

import (
	"context"
	"sync"
	"time"

	"github.com/creelhq/creel/config"
)

// RateLimit bounds what is sent in a second. Nothing is dropped for it: the queue fills up instead.
type RateLimit struct {
	RecordsPerSecond  float64       `doc:"Records a second; 0 for no limit." default:"0" min:"0"`
	BytesPerSecond    config.Size   `doc:"Bytes of records a second, as the queue counts them; 0 for no limit." default:"0"`
	RequestsPerSecond float64       `doc:"Requests a second, those that are tried again included; 0 for no limit." default:"0" min:"0"`
	Burst             time.Duration `doc:"What the limits leave unused is saved up, as far as it comes in within this time." default:"1s" min:"0s"`
}

// A load is what a request weighs: requests (one), records and bytes, in the order of the limits.
type load [3]float64

func loadOf(items []item) load {
	l := load{1}
	for _, it := range items {
		l[1] += float64(it.b.Len())
		l[2] += float64(it.bytes)
	}
	return l
}

// A limiter is a token bucket for each limit. A bucket may be overdrawn by one request, which so can be of any size;
// then nothing is sent until the debt is paid. Within any time, at most what comes in, one burst and one request go out.
// A nil limiter limits nothing.
type limiter struct {
	turn chan struct{} // has an element while nobody waits for tokens: who came first is first

	mu         sync.Mutex
	rate, full load // a rate of 0: no limit
	tokens     load
	at         time.Time // when the tokens were counted
}

func newLimiter(c RateLimit, now time.Time) *limiter {
	l := &limiter{rate: load{c.RequestsPerSecond, c.RecordsPerSecond, float64(c.BytesPerSecond)}, at: now, turn: make(chan struct{}, 1)}
	if l.rate == (load{}) {
		return nil
	}
	for i, r := range l.rate {
		l.full[i] = r * c.Burst.Seconds()
	}
	l.full[0] = max(0, l.full[0]-1) // the one that may overdraw is known to weigh 1
	l.tokens = l.full
	l.turn <- struct{}{}
	return l
}

// pay waits until there is no debt, and takes what a request weighs. It fails only when ctx is done, and then has taken
// nothing.
func (l *limiter) pay(ctx context.Context, request load) error {
	if l == nil {
		return nil
	}
	select {
	case <-l.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { l.turn <- struct{}{} }()
	for {
		wait := l.take(time.Now(), request)
		if wait == 0 {
			return nil
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

// take takes what a request weighs. If there is debt it does not, and returns when to try again.
func (l *limiter) take(now time.Time, request load) (wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	since := max(0, now.Sub(l.at).Seconds())
	l.at = now
	for i, r := range l.rate {
		if r == 0 {
			continue
		}
		l.tokens[i] = min(l.full[i], l.tokens[i]+r*since)
		if debt := -l.tokens[i]; debt > 0 {
			seconds := min(debt/r, 1e6) // then look again
			wait = max(wait, time.Duration(seconds*1e9)+1)
		}
	}
	if wait == 0 {
		l.add(request, -1)
	}
	return wait
}

// refund gives back what was taken for a request that was not sent.
func (l *limiter) refund(request load) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.add(request, 1)
}

func (l *limiter) add(request load, sign float64) {
	for i, r := range l.rate {
		if r > 0 {
			l.tokens[i] = min(l.full[i], l.tokens[i]+sign*request[i])
		}
	}
}

// pause waits, or until ctx is done, and then returns its error.
func pause(ctx context.Context, wait time.Duration) error {
	if wait <= 0 {
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
