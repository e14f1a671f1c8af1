package control

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

func at(id string, agents int, draining bool) HubAt {
	return HubAt{ID: id, Addresses: Addresses{URL: "https://" + id + ":1"}, Agents: agents, Draining: draining}
}

func idsOf(list []*place) (ids []string) {
	for _, p := range list {
		ids = append(ids, p.key())
	}
	return ids
}

// TestOrder: which hub is to be preferred.
func TestOrder(t *testing.T) {
	hubs := []HubAt{at("a", 50, false), at("b", 10, false), at("c", 30, false), at("d", 0, true)}
	fresh := func(balance Balance, agent string) *places {
		ps := &places{agent: agent, balance: balance, seeds: []string{"https://a:1", "https://seed:1"}}
		ps.learn(hubs, "https://a:1")
		return ps
	}
	counts := map[string]int{}
	for i := range 300 {
		ps := fresh(Rendezvous, fmt.Sprint("agent-", i))
		ids := idsOf(ps.order())
		if !slices.Equal(ids, idsOf(ps.order())) || ids[3] != "https://seed:1" || ids[4] != "d" {
			t.Fatalf("%q: not the same each time, or not the drained hub last", ids)
		}
		counts[ids[0]]++
	}
	if counts["a"] < 70 || counts["b"] < 70 || counts["c"] < 70 {
		t.Errorf("300 agents go to %v", counts)
	}

	ps := fresh(RoundRobin, "agent")
	var turns []string
	for range 4 {
		p := ps.order()[0]
		ps.reached(p, p.ID)
		turns = append(turns, p.ID)
	}
	if turns[0] == turns[1] || turns[1] == turns[2] || turns[0] == turns[2] || turns[3] != turns[0] {
		t.Errorf("in turn it goes to %q", turns)
	}

	clear(counts)
	for range 300 {
		counts[idsOf(fresh(LeastLoaded, "agent").order())[0]]++
	}
	if counts["a"] != 0 || counts["b"] < 150 || counts["c"] < 50 { // of two of three: 2/3 and 1/3
		t.Errorf("by load it goes to %v", counts)
	}
}

// TestLearn: what went wrong somewhere is remembered when the list is told anew; no hub with TLS leads to one without.
func TestLearn(t *testing.T) {
	ps := &places{agent: "agent", seeds: []string{"https://a:1"}}
	ps.learn([]HubAt{at("a", 0, false), at("b", 0, false), {ID: "x", Addresses: Addresses{URL: "http://x:1"}}, {ID: "y"}}, "https://a:1")
	if ids := idsOf(ps.order()); len(ids) != 2 || slices.Contains(ids, "x") {
		t.Errorf("it knows %q", ids)
	}
	now := time.Now()
	first, _ := ps.next(now)
	ps.put(first, now.Add(time.Minute))
	ps.learn([]HubAt{at("b", 0, false), at("a", 0, false)}, "https://a:1")
	second, when := ps.next(now)
	if second.ID == first.ID || when != now {
		t.Errorf("after %s comes %s in %v", first.ID, second.ID, when.Sub(now))
	}
	ps.put(second, now.Add(time.Hour))
	if third, when := ps.next(now); third.ID != first.ID || when.Sub(now) != time.Minute {
		t.Errorf("with all away comes %s in %v", third.ID, when.Sub(now))
	}
	ps.learn([]HubAt{at("b", 0, false)}, "https://b:1") // a is drained and gone; the configuration still names it
	if ids := idsOf(ps.order()); len(ids) != 2 || ids[0] != "b" {
		t.Errorf("it knows %q", ids)
	}
}
