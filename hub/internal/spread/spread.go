// Package spread decides which agents a hub asks to go to another: all when it is drained, some when it has far more than the
// others. They go slowly, for each of them costs the other hub a handshake, and data that goes elsewhere.
//
// It must not know how agents are asked, nor how hubs are found.
package spread

import (
	"maps"
	"sync"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/control"
)

const (
	drainTime = 10 * time.Second // over which agents leave a hub that is drained
	drainRate = 10.0             // a second leave it at least

	// A hub is crowded when it has more than crowd times the mean of the hubs, and slack more, for as long as patience.
	crowd    = 1.25
	slack    = 5.0
	patience = 30 * time.Second
	share    = 0.02 / 10 // of its agents are then asked each second

	again = 30 * time.Second // an agent that has not gone is not asked before
)

// An Order is how many agents are to go, and where to; the zero Order is none.
type Order struct {
	Rate float64 // a second
	To   string  // the id of the least loaded hub, or control.AnyHub
}

// Decide returns what the hub own is to ask of its agents now, if fleet of them were there when it began. crowded is for how long
// Crowded has held.
func Decide(own string, hubs []control.HubAt, fleet int, crowded time.Duration) Order {
	self, others, least := survey(own, hubs)
	switch {
	case self.ID == "" || len(others) == 0:
		return Order{} // there is nowhere to go
	case self.Draining:
		return Order{Rate: max(drainRate, float64(fleet)/drainTime.Seconds()), To: control.AnyHub}
	case crowded >= patience && Crowded(own, hubs):
		return Order{Rate: float64(self.Agents) * share, To: least.ID}
	}
	return Order{}
}

// Crowded reports whether a hub that is not drained has far more agents than the others.
func Crowded(own string, hubs []control.HubAt) bool {
	self, others, _ := survey(own, hubs)
	return self.ID != "" && !self.Draining && len(others) > 0 && float64(self.Agents) > crowd*mean(self, others)+slack
}

// survey returns the hub own, the others that are not drained, and the one of them that has fewest agents.
func survey(own string, hubs []control.HubAt) (self control.HubAt, others []control.HubAt, least control.HubAt) {
	for _, h := range hubs {
		switch {
		case h.ID == own:
			self = h
		case !h.Draining:
			if others = append(others, h); len(others) == 1 || h.Agents < least.Agents {
				least = h
			}
		}
	}
	return self, others, least
}

func mean(self control.HubAt, others []control.HubAt) float64 {
	sum := self.Agents
	for _, h := range others {
		sum += h.Agents
	}
	return float64(sum) / float64(len(others)+1)
}

// A Spreader decides for one hub, agent by agent. Its methods may be called concurrently.
type Spreader struct {
	own  string
	hubs func() []control.HubAt

	mu     sync.Mutex // guards what follows
	looked time.Time
	fleet  int                  // that was there when draining began
	since  time.Time            // the hub is crowded; zero: it is not
	order  Order                // that counts
	tokens float64              // so many may be asked now
	asked  map[string]time.Time // agents, of the last while
	swept  time.Time            // asked was
}

// New returns a Spreader for the hub own. hubs tells which there are, that one among them, and is called often.
func New(own string, hubs func() []control.HubAt) *Spreader {
	return &Spreader{own: own, hubs: hubs, asked: make(map[string]time.Time)}
}

// Hubs returns all hubs.
func (s *Spreader) Hubs() []control.HubAt { return s.hubs() }

// Leave returns where an agent that is connected here is to go: the id of a hub, control.AnyHub, or "" if it may stay. It counts
// on being called with each heartbeat, and that the agent is told.
func (s *Spreader) Leave(agent string) string {
	hubs := s.hubs()
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.look(hubs, now)
	if s.tokens < 1 {
		return ""
	}
	to := s.destination(agent, hubs)
	if last, ok := s.asked[agent]; to == "" || ok && now.Sub(last) < again {
		return ""
	}
	s.tokens--
	s.asked[agent] = now
	return to
}

// look fills the bucket for the time since it was called last. s.mu is held.
func (s *Spreader) look(hubs []control.HubAt, now time.Time) {
	self, _, _ := survey(s.own, hubs)
	if !self.Draining {
		s.fleet = 0
	}
	s.fleet = max(s.fleet, self.Agents)
	switch {
	case !Crowded(s.own, hubs):
		s.since = time.Time{}
	case s.since.IsZero():
		s.since = now
	}
	var crowded time.Duration
	if !s.since.IsZero() {
		crowded = now.Sub(s.since)
	}
	elapsed := now.Sub(s.looked)
	if s.looked.IsZero() {
		elapsed = 0
	}
	s.looked = now
	s.order = Decide(s.own, hubs, s.fleet, crowded)
	// What was not used within a second is not saved up: agents would leave all at once.
	s.tokens = min(s.tokens+s.order.Rate*elapsed.Seconds(), s.order.Rate+1)
	if s.order.Rate == 0 {
		s.tokens = 0
	}
	if now.Sub(s.swept) >= again {
		s.swept = now
		maps.DeleteFunc(s.asked, func(_ string, when time.Time) bool { return now.Sub(when) >= again })
	}
}

// destination returns where an agent goes: where its id leads it, if that is elsewhere and not crowded itself, so that it stays
// there when it connects anew; else to the least loaded hub. s.mu is held.
func (s *Spreader) destination(agent string, hubs []control.HubAt) string {
	if s.order.To == control.AnyHub || s.order.To == "" {
		return s.order.To
	}
	self, others, _ := survey(s.own, hubs)
	ids := []string{s.own}
	for _, h := range others {
		ids = append(ids, h.ID)
	}
	best := creel.Rendezvous(agent, ids)[0]
	for _, h := range others {
		if h.ID == best && float64(h.Agents) < mean(self, others) {
			return best
		}
	}
	return s.order.To
}
