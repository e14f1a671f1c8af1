package task

import (
	"fmt"
	"time"
)

// maxRest is how long a breaker stays open at most before the next probe.
const maxRest = time.Hour

// A breaker keeps a task from rounds whose like only block a slot until their timeout.
type breaker struct {
	timeouts int           // in a row
	rest     time.Duration // 0: it is closed
	until    time.Time
	reason   string
}

// note takes in how a round ended. An open breaker let it run as a probe: only success closes it.
func (b *breaker) note(o *Options, now time.Time, timedOut bool, err error) {
	switch {
	case b.rest > 0 && err == nil:
		*b = breaker{}
	case b.rest > 0:
		b.rest = min(2*b.rest, max(maxRest, o.Rest))
		b.until, b.reason = now.Add(b.rest), fmt.Sprintf("the probe failed: %v", err)
	case !timedOut:
		b.timeouts = 0
	default:
		if b.timeouts++; o.Trip > 0 && b.timeouts >= o.Trip {
			b.rest = o.Rest
			b.until, b.reason = now.Add(b.rest), fmt.Sprintf("%d rounds in a row took too long, the last: %v", b.timeouts, err)
		}
	}
}
