package admission

import (
	"math"
	"math/bits"
	"time"
)

// The limit is the generic cell rate algorithm (ITU-T I.371), which is a window that slides continuously: a bucket
// remembers the moment at which all that it has let in would have come, at the limit's rate. What would put that moment
// more than the burst into the future must wait. A request that is larger than the burst is let in when nothing is owed:
// else it could never be; the next then waits until it is paid off. So within any second no more is let in than a second
// and a burst are worth, or a second and the one request that is larger than a burst.

// burst is how much may come at once: what a second is worth.
const burst = int64(time.Second)

// rate is how many a second; 0 is no limit.
type rate int64

// cost returns how many nanoseconds n are worth, rounded up.
func (r rate) cost(n int) int64 {
	if r <= 0 || n <= 0 {
		return 0
	}
	hi, lo := bits.Mul64(uint64(n), uint64(time.Second))
	if hi >= uint64(r) {
		return math.MaxInt64 / 4
	}
	q, rest := bits.Div64(hi, lo, uint64(r))
	if rest > 0 {
		q++
	}
	return int64(min(q, math.MaxInt64/4))
}

// A bucket is the moment, in nanoseconds, until which the limit is used up.
type bucket int64

// owed returns how far from now that is; not above 0 is not at all.
func (b bucket) owed(now int64) int64 { return int64(b) - now }

// wait returns for how long what costs so much must wait.
func (b bucket) wait(now, cost int64) int64 {
	if cost == 0 {
		return 0
	}
	return max(0, b.owed(now)-max(0, burst-cost))
}

// take uses up what was let in.
func (b *bucket) take(now, cost int64) { *b = bucket(max(int64(*b), now) + cost) }
