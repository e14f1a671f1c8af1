// Package pressure tells how scarce memory is: it reads what the process has and what it may have, and makes of it a level,
// from 0, enough, to 10, none left, and how much more may be let in. Who takes less at which level is not its business: it
// knows neither pipelines nor records.
//
// A Controller makes orders of readings, and is pure. A Guard (guard.go) feeds one with what a Meter (read.go) reads.
package pressure

import "time"

// Full is the highest level.
const Full = 10

// A Reading is how memory is at one moment, in bytes.
type Reading struct {
	Used int64 // what the process has from the system
	Live int64 // what of it is in use, as the last collection of garbage has found
	Most int64 // what of it may be in use: the last collection may be long ago
}

// An Order is what to do until the next one.
type Order struct {
	Level int
	Grant int64 // bytes that may be let in before it is looked again
	// Collect says that garbage should be collected: it is not known how much is in use, and that matters.
	Collect bool
}

// A scale says, in thousandths of the limit, where the first level begins and where the last.
type scale struct{ first, full int64 }

// The collector of garbage keeps what is used below soft, as long as what lives leaves it room to work: near soft it works
// without end. So what lives counts earlier. Only when it fails, or between two readings, is more than soft used.
var (
	onUsed = scale{915, 975}
	onLive = scale{700, 850}
)

// All in thousandths of the limit.
const (
	soft  = 900 // where the collector of garbage is asked to keep what is used
	gap   = 20  // by how much memory must be below where a level begins for it to end
	known = 720 // what may be in use before it matters how much really is
	blind = 30  // by how much more may be in use than was found, beyond that
	least = 2   // a grant is at least so much, or nothing
)

// A level ends when its reason has been over for calm; for twice as long each time that it was needed again, up to restless;
// the next lower ones end sooner.
const (
	calm     = 500 * time.Millisecond
	restless = 16 * time.Second
)

// level returns the level at n of limit bytes.
func (s scale) level(n, limit int64) int {
	over := n*1000/limit - s.first
	if over < 0 {
		return 0
	}
	return int(min(Full, 1+over*(Full-1)/(s.full-s.first)))
}

// A Controller makes orders of readings. Its level rises at once, and falls step by step: what was let in again takes a while
// to be seen. However fast records come, what is in use cannot grow by more than a step before it is known. The zero
// Controller is at level 0.
type Controller struct {
	level int
	quiet time.Time     // since when a lower level would do
	falls int           // how often the level has fallen since it rose
	fell  time.Time     // when it did last
	wait  time.Duration // how long it must be quiet before the level falls for the first time
}

// Observe returns the order after a reading, made now, of a process that may have limit bytes, which are more than 0.
func (c *Controller) Observe(now time.Time, r Reading, limit int64) Order {
	margin := limit * gap / 1000
	rise := max(onUsed.level(r.Used, limit), onLive.level(r.Live, limit))
	keep := max(onUsed.level(r.Used+margin, limit), onLive.level(r.Live+margin, limit))
	switch {
	case rise > c.level:
		switch {
		case c.falls == 0: // it has not come to its highest yet
		case now.Sub(c.fell) < restless: // too early
			c.wait = min(restless, 2*c.wait)
		default:
			c.wait = calm
		}
		c.level, c.quiet, c.falls = rise, now, 0
	case keep >= c.level:
		c.quiet = now
	case now.Sub(c.quiet) >= max(calm, c.wait>>c.falls):
		c.level--
		c.falls++
		c.quiet, c.fell = now, now
	}
	c.wait = max(calm, c.wait)
	o := Order{Level: c.level, Grant: (max(limit*known/1000, r.Live+limit*blind/1000) - r.Most) / 2}
	if o.Grant < limit*least/1000 {
		o.Grant, o.Collect = 0, true
	}
	return o
}
