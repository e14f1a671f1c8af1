package agent

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/creelhq/creel/pipeline"
)

// measured has a collector have rounds, which own a slot for so long, and returns what was told of its document, each time anew.
func measured(every, long time.Duration, busy func() time.Duration) (told []float64) {
	var c costs
	var e pipeline.Effort
	e.Document = "d"
	start := time.Now()
	for at := time.Duration(0); at < long; at += 5 * time.Second {
		for ; time.Duration(e.Rounds)*every < at; e.Rounds++ {
			e.Busy += busy()
		}
		cost := c.look(start.Add(at), func() map[string]pipeline.Effort { return map[string]pipeline.Effort{"collectors.c": e} })["d"]
		if n := len(told); cost > 0 && (n == 0 || told[n-1] != cost) {
			told = append(told, cost)
		}
	}
	return told
}

// TestCosts: what costs about the same is told once, however seldom it has a round, and whatever a round differs from others.
func TestCosts(t *testing.T) {
	const seed = 3
	r := rand.New(rand.NewPCG(seed, 0))
	f := func(every time.Duration, share float64) {
		t.Helper()
		told := measured(every, max(2*time.Hour, 5*every), func() time.Duration {
			return time.Duration(share * float64(every) * (0.7 + 0.6*r.Float64()))
		})
		if len(told) != 1 || told[0] < max(share, leastCost)*0.68 || told[0] > max(share, leastCost)*1.35 {
			t.Errorf("seed %d: of %v every %v it tells %v", seed, share, every, told)
		}
	}
	f(time.Second, 0.2)
	f(time.Second, 0.00001)
	f(17*time.Second, 0.031)
	f(90*time.Second, 0.9)
	f(10*time.Minute, 1)
	f(time.Hour, 0.02)
	f(24*time.Hour, 0.3)
}

// TestCostsFollow: what costs ten times as much from some time on is told so within minutes, and what was opened again is not
// measured by what it had done before.
func TestCostsFollow(t *testing.T) {
	n := 0
	told := measured(10*time.Second, 3*time.Hour, func() time.Duration {
		if n++; n > 360 {
			return time.Second
		}
		return 100 * time.Millisecond
	})
	if len(told) < 2 || told[0] != 0.01 || told[len(told)-1] < 0.06 || len(told) > 5 {
		t.Errorf("it tells %v", told)
	}
	var c costs
	now := time.Now()
	look := func(rounds int, busy time.Duration) float64 {
		now = now.Add(costEvery)
		return c.look(now, func() map[string]pipeline.Effort {
			return map[string]pipeline.Effort{"c": {Document: "d", Rounds: rounds, Busy: busy}}
		})["d"]
	}
	look(1, time.Second)
	look(2, 7*time.Second)
	look(0, 0)
	look(1, 50*time.Second)
	if cost := look(2, 56*time.Second); cost != 0.1 {
		t.Errorf("opened again it costs %v", cost)
	}
}
