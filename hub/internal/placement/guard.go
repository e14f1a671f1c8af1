package placement

import "time"

// From GuardFrom lost agents on, plans are frozen when their share of all that are known exceeds FreezeAbove, in percent, and
// stopped when it exceeds StopAbove: it is likelier then that this hub does not hear them than that they are gone.
const (
	GuardFrom   = 10
	FreezeAbove = 15
	StopAbove   = 55
)

// A Loss is what Guard judges.
type Loss struct {
	Known    int           // agents, with those that are lost
	Lost     int           // of these; not counting those that were lost when moves were last allowed: they are dealt with
	Since    time.Duration // how long Guard has said Freeze or Stop without a break
	Limit    time.Duration // how long Freeze may last
	Released bool          // an operator says that the lost are gone
}

// A Verdict says what plans may do.
type Verdict uint8

const (
	Go     Verdict = iota // all
	Freeze                // place only what has no owner, for a bounded time
	Stop                  // the same, until agents return or an operator releases it
)

func (v Verdict) String() string { return [...]string{"go", "freeze", "stop"}[v] }

// Guard judges a loss of agents. Snapshot.Frozen is whether its verdict is not Go.
func Guard(l Loss) Verdict {
	lost := int64(l.Lost) * 100
	switch {
	case l.Released || l.Lost < GuardFrom:
		return Go
	case lost > int64(l.Known)*StopAbove:
		return Stop
	case lost > int64(l.Known)*FreezeAbove && l.Since < l.Limit:
		return Freeze
	}
	return Go
}
