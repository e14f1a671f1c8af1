package otlp

import (
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// How long clients that found no room are asked to wait: soonest at least, longest at most, and perRefusal more on top of
// soonest for each request that found none, so that about 1/perRefusal come back a second.
const (
	soonest    = time.Second
	longest    = 5 * time.Second // SDKs give up after 10 s
	perRefusal = 20 * time.Millisecond
)

// A crowd counts the requests that found no room, less those that were taken since. The zero crowd is ready. Its methods
// may be called concurrently.
type crowd struct{ n atomic.Int64 }

// refused notes a request that found no room, and returns how long its client is to wait: random (full jitter), so that
// many who were refused at once do not come back at once.
func (c *crowd) refused() time.Duration {
	n := c.n.Load()
	for full := int64((longest - soonest) / perRefusal); n < full && !c.n.CompareAndSwap(n, n+1); {
		n = c.n.Load()
	}
	return max(soonest, rand.N(soonest+time.Duration(n)*perRefusal)+1)
}

// taken notes a request that was taken.
func (c *crowd) taken() {
	for n := c.n.Load(); n > 0 && !c.n.CompareAndSwap(n, n-1); {
		n = c.n.Load()
	}
}

// seconds returns d as Retry-After has it: in whole seconds, at least one.
func seconds(d time.Duration) int64 {
	return max(1, int64((d+time.Second-1)/time.Second))
}
