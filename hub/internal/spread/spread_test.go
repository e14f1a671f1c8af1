package spread_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/hub/internal/spread"
)

func hub(id string, agents int, draining bool) control.HubAt {
	return control.HubAt{ID: id, Agents: agents, Draining: draining}
}

func TestDecide(t *testing.T) {
	f := func(what string, hubs []control.HubAt, fleet int, crowded time.Duration, want spread.Order) {
		t.Helper()
		if got := spread.Decide("a", hubs, fleet, crowded); got != want {
			t.Errorf("%s: %+v, want %+v", what, got, want)
		}
	}
	type hubs = []control.HubAt
	f("nobody is known", nil, 0, 0, spread.Order{})
	f("it is not listed", hubs{hub("b", 1, false)}, 0, time.Hour, spread.Order{})
	f("alone and drained", hubs{hub("a", 900, true)}, 900, 0, spread.Order{})
	f("all are drained", hubs{hub("a", 900, true), hub("b", 9, true)}, 900, 0, spread.Order{})
	f("drained, few agents", hubs{hub("a", 20, true), hub("b", 9, false)}, 20, 0, spread.Order{Rate: 10, To: control.AnyHub})
	f("drained, many agents", hubs{hub("a", 5000, true), hub("b", 9, false)}, 5000, 0, spread.Order{Rate: 500, To: control.AnyHub})
	f("drained, the rest of many", hubs{hub("a", 50, true), hub("b", 9, false)}, 5000, 0, spread.Order{Rate: 500, To: control.AnyHub})
	f("even", hubs{hub("a", 100, false), hub("b", 100, false)}, 100, time.Hour, spread.Order{})
	f("a little more", hubs{hub("a", 130, false), hub("b", 80, false)}, 130, time.Hour, spread.Order{}) // the mean is 105
	f("crowded", hubs{hub("a", 1000, false), hub("b", 30, false), hub("c", 20, false)}, 1000, 30*time.Second, spread.Order{Rate: 2, To: "c"})
	f("crowded just now", hubs{hub("a", 1000, false), hub("b", 0, false)}, 1000, 29*time.Second, spread.Order{})
	f("crowded, but the other is drained", hubs{hub("a", 1000, false), hub("b", 0, true)}, 1000, time.Hour, spread.Order{})
	f("few agents", hubs{hub("a", 10, false), hub("b", 0, false)}, 10, time.Hour, spread.Order{}) // 5 more than the mean
}

// world is a hub with agents that beat each second, and go when they are asked.
type world struct {
	hubs []control.HubAt
	s    *spread.Spreader
	here map[string]bool
	went map[string]int // by where
}

func newWorld(agents int) *world {
	w := &world{hubs: []control.HubAt{hub("a", agents, false), hub("b", 10, false), hub("c", 10, false)}, here: make(map[string]bool), went: make(map[string]int)}
	for i := range agents {
		w.here[fmt.Sprint("agent-", i)] = true
	}
	w.s = spread.New("a", func() []control.HubAt { return w.hubs })
	return w
}

// second lets a second pass, and returns how many agents went. obey: they do what they are asked.
func (w *world) second(obey bool) (asked int) {
	time.Sleep(time.Second)
	for agent := range w.here {
		to := w.s.Leave(agent)
		if to == "" {
			continue
		}
		asked++
		if obey {
			delete(w.here, agent)
			w.went[to]++
			w.hubs[0].Agents--
		}
	}
	return asked
}

// TestDrain: a hub that is drained is left within some ten seconds, by no more than a tenth a second.
func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(1000)
		for range 5 {
			if n := w.second(true); n != 0 {
				t.Fatalf("%d are asked to leave a hub that nobody drains", n)
			}
		}
		w.hubs[0].Draining = true
		for i := range 12 {
			if n := w.second(true); n > 101 {
				t.Errorf("%d leave in second %d", n, i)
			}
		}
		if len(w.here) != 0 || w.went[control.AnyHub] != 1000 {
			t.Errorf("%d are still there; they went to %v", len(w.here), w.went)
		}
	})
}

// TestStubborn: agents that cannot go are asked again, but not with each heartbeat.
func TestStubborn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(20)
		w.second(false)
		w.hubs[0].Draining = true
		asked := 0
		for range 29 {
			asked += w.second(false)
		}
		if asked != 20 {
			t.Errorf("20 agents are asked %d times in 29 s", asked)
		}
		for range 5 {
			asked += w.second(false)
		}
		if asked != 40 {
			t.Errorf("20 agents are asked %d times in 34 s", asked)
		}
	})
}

// TestCrowd: a crowded hub asks few, waits before, and ends when it is no more than a fourth over the mean. Agents go where
// their ids lead them.
func TestCrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(1000)
		for range 30 {
			if n := w.second(true); n != 0 {
				t.Fatalf("%d are asked at once", n)
			}
		}
		for range 10 {
			w.second(true)
		}
		if gone := w.went["b"] + w.went["c"]; gone < 15 || gone > 25 || w.went["b"] == 0 || w.went["c"] == 0 {
			t.Errorf("in 10 s %v went of 1000", w.went)
		}
		w.hubs[1].Agents, w.hubs[2].Agents = 900, 900
		for range 10 {
			if n := w.second(true); n != 0 {
				t.Fatalf("%d are asked though the hub is not crowded any more", n)
			}
		}
	})
}
