package center

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

const (
	firstPause = 500 * time.Millisecond // bounds the pause after a failure
	maxPause   = 30 * time.Second       // what the bound is doubled to
	settled    = 10 * time.Second       // that a session must work for the next pause to be short again
	forget     = time.Minute            // after which the same trouble, come again, is logged again
	maxTold    = 16                     // kinds of trouble that are told apart
)

// Keep calls session until ctx is done, with a random pause after each (exponential backoff with full jitter: Marc
// Brooker, "Exponential Backoff And Jitter"). A session talks to the center until it cannot, and returns why; it calls
// worked whenever the center has said something that makes sense. h is told.
func Keep(ctx context.Context, h Host, session func(worked func()) error) {
	t := Trouble{Host: h}
	for failed := 0; ctx.Err() == nil; {
		var since time.Time
		err := session(func() {
			if since.IsZero() {
				since = time.Now()
			}
			t.Over()
		})
		if ctx.Err() != nil {
			return
		}
		if !since.IsZero() && time.Since(since) >= settled {
			failed = 0
		}
		pause := rand.N(min(maxPause, firstPause<<min(failed, 10)))
		failed++
		if later := (*Later)(nil); errors.As(err, &later) {
			pause += min(later.After, maxLater)
		}
		t.Tell(err)
		_ = Sleep(ctx, pause) // the loop looks at ctx
	}
}

// Later is an error of a session of Keep that is not to be called again until some time has passed.
type Later struct {
	After time.Duration
	Err   error
}

// maxLater bounds what a center can ask for.
const maxLater = 10 * time.Minute

// Error returns what Err says.
func (l *Later) Error() string { return l.Err.Error() }

// Unwrap returns Err.
func (l *Later) Unwrap() error { return l.Err }

// Trouble tells of what does not work: Host.Health each time, the log once for each kind. Errors with the same innermost
// error are of one kind. A Trouble serves one goroutine.
type Trouble struct {
	Host   Host
	on     bool
	logged bool                 // of this spell of trouble
	told   map[string]time.Time // by kind, when it was logged
}

// Tell says that something does not work.
func (t *Trouble) Tell(err error) {
	t.on = true
	kind := innermost(err).Error()
	if _, old := t.told[kind]; !old && len(t.told) < maxTold {
		if t.told == nil {
			t.told = map[string]time.Time{}
		}
		t.told[kind] = time.Now()
		t.logged = true
		t.Host.Log.Warn("the center cannot be used; what it said before goes on", "error", err)
	}
	t.Host.Health(err)
}

// Over says that it works.
func (t *Trouble) Over() {
	if !t.on {
		return
	}
	if t.logged {
		t.Host.Log.Info("the center works again")
	}
	for kind, at := range t.told {
		if time.Since(at) > forget {
			delete(t.told, kind)
		}
	}
	t.on, t.logged = false, false
	t.Host.Health(nil)
}

func innermost(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

// Sleep waits, and returns an error only if ctx is done before.
func Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A Pace keeps a loop from running hot, whatever the far side answers: Burst rounds may follow at once, then there is one
// in Every. A Pace serves one goroutine.
type Pace struct {
	Every time.Duration
	Burst int
	next  time.Time // when the next round is due, were there no burst (the generic cell rate algorithm)
}

// Wait waits until the next round may begin, and returns an error only if ctx is done before.
func (p *Pace) Wait(ctx context.Context) error {
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	wait := p.next.Sub(now) - time.Duration(p.Burst)*p.Every
	p.next = p.next.Add(p.Every)
	if wait <= 0 {
		return ctx.Err()
	}
	return Sleep(ctx, wait)
}
