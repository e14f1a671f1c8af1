package agent

import (
	"math"
	"strconv"
	"sync"
	"time"

	"github.com/creelhq/creel/pipeline"
)

const (
	// costEvery is how often it is looked at what documents cost, costOver how long ago what counts little by now was.
	costEvery = time.Minute
	costOver  = 5 * time.Minute
	// leastCost is what a document costs that costs next to nothing.
	leastCost = 0.001
)

// costs measures what share of a slot the documents take that the hub has placed on this agent: the time that rounds of their
// collectors owned slots, for the time from the end of a round to the end of another; so one that has a round an hour costs the same
// all the time. It is coarse, so that what costs about the same always says the same.
type costs struct {
	mu   sync.Mutex
	at   time.Time
	of   map[string]*measure // by collectors' paths
	told map[string]float64  // by documents' names; immutable
}

// A measure is what a collector has done, what is longer ago counting less.
type measure struct {
	pipeline.Effort           // as it was looked at when it had ended rounds
	at              time.Time // when that was
	busy, over      float64   // seconds
}

// look returns, by documents' names, what they cost. It calls efforts when it is time for that.
func (c *costs) look(now time.Time, efforts func() map[string]pipeline.Effort) map[string]float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.at.IsZero() && now.Sub(c.at) < costEvery {
		return c.told
	}
	c.at = now
	of, sums, told := make(map[string]*measure), make(map[string]float64), make(map[string]float64)
	for path, e := range efforts() {
		m := c.of[path]
		if m == nil || m.Document != e.Document {
			m = new(measure)
		}
		m.note(e, now)
		if of[path] = m; m.over > 0 {
			sums[e.Document] += m.busy / m.over
		}
	}
	for name, cost := range sums {
		told[name] = coarse(c.told[name], cost)
	}
	c.of, c.told = of, told
	return told
}

// note takes in what a collector has done by now.
func (m *measure) note(e pipeline.Effort, now time.Time) {
	switch {
	case m.Rounds == 0 || e.Rounds < m.Rounds: // nothing is known of before, or it was opened again
	case e.Rounds == m.Rounds:
		return
	default:
		long := now.Sub(m.at).Seconds()
		left := math.Exp(-long / costOver.Seconds())
		m.busy = m.busy*left + max(0, (e.Busy-m.Busy).Seconds())
		m.over = m.over*left + long
	}
	m.Effort, m.at = e, now
}

// coarse returns was, unless cost is twice as much or half of it: then cost, to two digits.
func coarse(was, cost float64) float64 {
	cost = max(cost, leastCost)
	if cost < 2*was && cost > was/2 {
		return was
	}
	cost, _ = strconv.ParseFloat(strconv.FormatFloat(cost, 'g', 2, 64), 64)
	return cost
}
