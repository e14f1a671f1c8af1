package identity

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/creelhq/creel/control"
)

const (
	lookAtClock = 5 * time.Minute // timers stand still while the machine sleeps
	maxBackoff  = 5 * time.Minute // between two attempts
	minBackoff  = 5 * time.Second // of what backoff grows to, where certificates live for seconds
	maxPatience = time.Hour       // whatever a hub asks for
	breath      = time.Second     // between two renewals that succeed
)

// jitter returns a duration between 0 and most, uniformly.
func jitter(most time.Duration) time.Duration { return rand.N(max(most, 0) + 1) }

// due is in how long to renew. i.mu is held.
func (i *Identity) due(c *credentials, age time.Duration) time.Duration {
	d := c.renew - age
	if i.soon || i.want != "" && i.want != c.bundle {
		d = 0
	}
	return max(d, time.Until(i.wait))
}

// attempt renews once, and notes what came of it.
func (i *Identity) attempt(ctx context.Context) {
	err := i.renew(ctx)
	if ctx.Err() != nil {
		return
	}
	c := i.current.Load()
	i.mu.Lock()
	defer i.mu.Unlock()
	if err == nil {
		i.soon = false
		if i.want != "" && i.want != c.bundle {
			err = errors.New("the hub says that other authorities are to be trusted than it hands out")
		}
	}
	if err == nil {
		i.failed, i.err, i.since, i.wait = 0, nil, time.Time{}, time.Now().Add(breath)
		return
	}
	wait := i.backoff(c, err)
	if i.err == nil {
		i.since = i.o.Now().Round(0)
	}
	if i.err == nil || i.err.Error() != err.Error() {
		i.o.Log.Warn("the identity is not as it should be; what there is stays in use, and renewing it is tried again", "error", err, "next_attempt", wait.Round(time.Millisecond))
	}
	i.err, i.wait = err, time.Now().Add(wait)
}

// backoff is how long to wait after an error: full jitter (Exponential Backoff and Jitter, AWS Architecture Blog, 2015), and no
// less than the hub asks for. i.mu is held.
func (i *Identity) backoff(c *credentials, err error) time.Duration {
	i.failed++
	most := min(maxBackoff, max(minBackoff, c.lifetime/20), time.Second<<min(i.failed, 10))
	wait := jitter(most) + time.Millisecond
	var r *control.Refusal
	if errors.As(err, &r) && r.After > 0 {
		after := min(r.After, maxPatience)
		wait = max(wait, after+jitter(after/4)) // many may have been told the same
	}
	return wait
}

// errReplaced is what renewing fails with when somebody has joined anew meanwhile.
var errReplaced = errors.New("another identity was put in the place of this one")

// renew asks for the next certificate, with a new key.
//
// The request is on disk before it is sent, and the certificate replaces it there in one step. So whenever the process ends,
// what is on disk is a usable identity: the old one, with a request that is sent again, whose answer may have been lost, and
// which the hub answers as it did; or the new one.
func (i *Identity) renew(ctx context.Context) error {
	var asked *request
	err := i.keep(func(r *record) (err error) {
		if r.Renewal == nil {
			r.Renewal, err = newRequest(r.Agent)
		}
		asked = r.Renewal
		return err
	})
	if err != nil {
		return err
	}
	var g control.Grant
	shown, err := i.ask(ctx, control.RenewPath, control.RenewRequest{CSR: asked.CSR}, &g)
	if err != nil {
		return fmt.Errorf("renew the identity: %w", err)
	}
	return i.take(asked, &g, shown)
}

// take switches to a new certificate.
func (i *Identity) take(asked *request, g *control.Grant, shown []*x509.Certificate) error {
	var c *credentials
	var untrusted error
	err := i.keep(func(r *record) (err error) {
		if r.Renewal == nil || r.Renewal.Key != asked.Key {
			return errReplaced
		}
		authorities, system := r.Authorities, r.System
		if err := r.grant(r.Agent, *asked, g, i.o.Now()); err != nil {
			return err
		}
		r.Renewal = nil
		if c, err = r.credentials(); err != nil {
			return err
		}
		if untrusted = c.verifyHub(shown, begin(shown)); untrusted != nil {
			// With what it hands out this agent could not talk to it any more.
			r.Authorities, r.System = authorities, system
			c, err = r.credentials()
		}
		return err
	})
	if c == nil {
		return err
	}
	i.current.Store(c) // also when it is not kept: the request is, and is answered the same way again
	i.o.Log.Info("the identity was renewed", "generation", c.peer.Generation, "lifetime", c.lifetime, "authorities", c.bundle)
	if err != nil {
		return fmt.Errorf("the identity is renewed, but lasts only while the agent runs: %w", err)
	}
	if untrusted != nil {
		return fmt.Errorf("the hub's own certificate is of none of the authorities that it hands out, so the old ones stay: %w", untrusted)
	}
	return nil
}
