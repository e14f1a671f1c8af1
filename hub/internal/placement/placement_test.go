package placement

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestGuard(t *testing.T) {
	f := func(known, lost int, since time.Duration, released bool, want Verdict) {
		t.Helper()
		if v := Guard(Loss{known, lost, since, 5 * time.Minute, released}); v != want {
			t.Errorf("%d of %d lost, since %v, released %v: %v, want %v", lost, known, since, released, v, want)
		}
	}
	f(0, 0, 0, false, Go)
	f(9, 9, 0, false, Go) // fewer than ten say nothing
	f(10, 10, 0, false, Stop)
	f(1000, 150, 0, false, Go)
	f(1000, 151, 0, false, Freeze)
	f(1000, 151, 5*time.Minute-1, false, Freeze)
	f(1000, 151, 5*time.Minute, false, Go)
	f(1000, 550, 0, false, Freeze)
	f(1000, 550, 5*time.Minute, false, Go)
	f(1000, 551, 0, false, Stop)
	f(1000, 551, 1000*time.Hour, false, Stop)
	f(1000, 551, 0, true, Go)
	f(1000, 151, 0, true, Go)
}

// TestReasons has a case for whatever can be said of a slot, beside Spread, which TestSpread has.
func TestReasons(t *testing.T) {
	a, b := Agent{ID: "a", Labels: map[string]string{"even": "true"}}, Agent{ID: "b"}
	with := func(a Agent, f func(*Agent)) Agent { f(&a); return a }
	draining, lost := with(a, func(a *Agent) { a.State = Draining }), with(a, func(a *Agent) { a.State = Lost })
	leased, small, exact := with(lost, func(a *Agent) { a.Leased = true }), with(a, func(a *Agent) { a.Capacity = 1 }), with(a, func(a *Agent) { a.Capacity = 3 })
	f := func(want string, task Task, agents ...Agent) {
		t.Helper()
		s := fleet(0, 0)
		s.Agents = agents
		want, s.Frozen = strings.CutPrefix(want, "*")
		if s.Tasks = []Task{task}; task.ID == "" {
			s.Tasks[0].ID = "t"
		}
		if task.ID == "less" { // beside one that is more important
			s.Tasks = append(s.Tasks, Task{ID: "more", Replicas: 1, Priority: 1, Cost: 2})
		}
		p, got := Place(s), ""
		for _, m := range p.Moves {
			if m.Task != "more" {
				got += fmt.Sprintf("%d %s>%s %s %v;", m.Slot, m.From, m.To, m.Reason, m.Handover)
			}
		}
		for _, h := range p.Held {
			got += fmt.Sprintf("%d held by %s %s;", h.Slot, h.Agent, h.Reason)
		}
		for _, u := range p.Unplaced {
			got += fmt.Sprintf("%d missing, %s;", u.Missing, u.Reason)
		}
		if got != want {
			t.Errorf("%+v on %+v: %q, want %q", task, agents, got, want)
		}
	}
	owned := func(n int, owners ...string) Task { return Task{Replicas: n, Owners: owners} }
	even := Task{Replicas: 1, Owners: []string{"b"}, Selector: "even"}
	exclusive := Task{Replicas: 1, Owners: []string{"a"}, Exclusive: true}
	f("0 >a new false;", owned(1), a)
	f("0 gone>a lost false;", owned(1, "gone"), a)
	f("0 a>b lost false;", owned(1, "a"), lost, b)
	f("1 missing, no agent;", owned(1, "a"), lost)
	f("0 held by a leased;", exclusive, leased, b)
	f("0 a>b lost false;", owned(1, "a"), leased, b)
	f("0 a>b draining true;", owned(1, "a"), draining, b)
	f("0 a>b draining false;", exclusive, draining, b)
	f("0 held by a draining;", owned(1, "a"), draining)
	f("*0 held by a frozen;", owned(1, "a"), draining, b)
	f("*0 held by a frozen;", owned(1, "a"), lost, b)
	f("*0 held by gone frozen;", owned(1, "gone"), b)
	f("*0 >a new false;", owned(1), a)
	f("*1 held by a frozen;", owned(1, "b", "a"), a, b)
	f("0 b>a ineligible true;", even, a, b)
	f("0 b> ineligible false;1 missing, no agent;", even, b)
	f("1 a>b duplicate false;", owned(2, "a", "a"), a, b)
	f("1 a> duplicate false;1 missing, too few agents;", owned(2, "a", "a"), a)
	f("1 >b new false;3 missing, too few agents;", owned(5, "a"), a, b)
	f("999999 missing, too few agents;", owned(1e6, "a"), a)
	f("0 a>b capacity true;", Task{Replicas: 1, Owners: []string{"a"}, Cost: 2}, small, b)
	f("0 a> capacity false;1 missing, no capacity;", Task{Replicas: 1, Owners: []string{"a"}, Cost: 2}, small)
	f("1 missing, no capacity;", Task{Replicas: 1, Cost: 1.001}, small)
	f("", Task{ID: "less", Replicas: 1, Owners: []string{"a"}}, exact)
	f("0 a> preempted false;1 missing, no capacity;", Task{ID: "less", Replicas: 1, Owners: []string{"a"}, Cost: 1.5}, exact)
	f("1 a> surplus false;", owned(1, "b", "a"), a, b)
	f("0 b> surplus false;", owned(-1, "b"), a, b)
	f("", owned(2, "b", "a"), a, b)
}

// TestBound: nobody has more than the bound, from nothing and after losses; agents have as much as they have weight.
func TestBound(t *testing.T) {
	s := fleet(100, 5000)
	for i := range s.Agents {
		s.Agents[i].Capacity = float64(100 * (1 + i%3))
	}
	for _, lost := range []int{0, 1, 10, 30} {
		for i := range lost {
			s.Agents[i].State = Lost
		}
		moved(t, Place(s), New, OwnerLost, Balance)
		s.carry(Place(s))
		weight, cost := 0.0, 0.0
		for _, a := range s.Agents[lost:] {
			weight += a.Capacity
		}
		on, _ := s.tally()
		var byThird [3]float64
		for i, a := range s.Agents[lost:] {
			if bound := math.Ceil((1 + Headroom) * 5000 * a.Capacity / weight); on[a.ID] > bound+1 { // cost is divided in thousandths
				t.Errorf("%d lost: %s has %v, more than %v", lost, a.ID, on[a.ID], bound)
			}
			cost += on[a.ID]
			byThird[(i+lost)%3] += on[a.ID] / a.Capacity
		}
		if cost != 5000 {
			t.Errorf("%d lost: %v of 5000 are placed", lost, cost)
		}
		if lost == 0 && slices.Max(byThird[:])/slices.Min(byThird[:]) > 1.15 {
			t.Errorf("agents of different weight have different parts of it: %v", byThird)
		}
	}
}

// TestLossAndReturn: only what was lost is moved, beside the budget; who comes back gets its part again, by and by.
func TestLossAndReturn(t *testing.T) {
	for _, c := range []struct {
		lost      int
		rebalance float64
	}{{1, 0}, {2, 0.05}, {20, 0}, {20, 0.05}, {100, 0.05}} {
		const agents, tasks = 200, 2000
		s := fleet(agents, tasks)
		s.Rebalance = c.rebalance
		s.carry(Place(s))
		if p := Place(s); len(p.Moves)+len(p.Held)+len(p.Unplaced) > 0 {
			t.Fatalf("moved at once: %+v", p)
		}
		_, before := s.tally()
		share := 0
		for i := range c.lost {
			s.Agents[i].State = Lost
			share += before[s.Agents[i].ID]
		}
		n := moved(t, Place(s), OwnerLost, Balance)
		if n[OwnerLost] != share || float64(n[Balance]) > tasks*c.rebalance || share == 0 {
			t.Errorf("%+v: %v moved, %d slots were lost", c, n, share)
		}
		s.quiet(t, 100)
		for i := range c.lost {
			s.Agents[i].State = Live
		}
		plans := s.quiet(t, 100)
		if len(plans) > 0 && float64(slices.Max(plans)) > tasks*c.rebalance {
			t.Errorf("%+v: a plan moves %d", c, slices.Max(plans))
		}
		_, after := s.tally()
		got := 0
		for i := range c.lost {
			got += after[s.Agents[i].ID]
		}
		if c.rebalance == 0 && got != 0 || c.rebalance > 0 && (got < share/2 || got > share*5/4) {
			t.Errorf("%+v: who was lost had %d, has %d after %v", c, share, got, plans)
		}
	}
}

// TestNewAgent: it gets work by the budget, and hardly any other slots move.
func TestNewAgent(t *testing.T) {
	s := fleet(10, 400)
	s.carry(Place(s))
	s.Agents = append(s.Agents, Agent{ID: "newcomer"})
	total := 0
	for range 10 {
		p := Place(s)
		moved(t, p, Balance)
		if len(p.Moves) > 20 {
			t.Errorf("%d moves at a time", len(p.Moves))
		}
		total += len(p.Moves)
		s.carry(p)
	}
	if _, n := s.tally(); n["newcomer"] < 18 || n["newcomer"] > 36 || total > n["newcomer"]+8 { // some were at their bounds, which are lower now
		t.Errorf("of 400 slots, the eleventh agent has %d after %d moves", n["newcomer"], total)
	}
	two := fleet(1, 2)
	two.carry(Place(two))
	two.Agents = append(two.Agents, Agent{ID: "second"}, Agent{ID: "third"}, Agent{ID: "fourth"})
	two.quiet(t, 5)
	if _, n := two.tally(); n["agent-00000"] != 1 {
		t.Errorf("two tasks, four agents: %v", n)
	}
}

// TestDrain: everything goes elsewhere, others first take over unless two owners are forbidden; and nothing comes back.
func TestDrain(t *testing.T) {
	s := fleet(10, 200)
	for i := range s.Tasks {
		s.Tasks[i].Exclusive = i%2 == 0
	}
	s.carry(Place(s))
	_, before := s.tally()
	s.Agents[3].State = Draining
	p := Place(s)
	if n := moved(t, p, Drain, Balance); n[Drain] != before[s.Agents[3].ID] || n[Drain] == 0 {
		t.Errorf("moved %v of %d", n, before[s.Agents[3].ID])
	}
	for _, m := range p.Moves {
		var n int
		if _, err := fmt.Sscanf(m.Task, "probe/%d", &n); err != nil || m.Handover != (n%2 == 1) {
			t.Errorf("%+v", m)
		}
	}
	s.carry(p)
	s.quiet(t, 10)
	if _, n := s.tally(); n[s.Agents[3].ID] != 0 {
		t.Errorf("%d are still there", n[s.Agents[3].ID])
	}
	for i := range s.Agents { // with nobody to take over, work goes on
		s.Agents[i].State = Draining
	}
	if p := Place(s); len(p.Moves)+len(p.Unplaced) > 0 || len(p.Held) != 200 {
		t.Errorf("all drain: %d moves, %d held, %d unplaced", len(p.Moves), len(p.Held), len(p.Unplaced))
	}
}

// TestSpread is as even as agents allow, from nothing and after a zone was away.
func TestSpread(t *testing.T) {
	zones := func(s *Snapshot, task Task) (n [3]int) {
		for _, o := range task.Owners {
			n[s.agent(o).Labels["zone"][0]-'a']++
		}
		slices.Sort(n[:])
		return n
	}
	s := fleet(30, 40)
	for i := range s.Tasks {
		s.Tasks[i].Replicas, s.Tasks[i].Spread = 1+i%12, "zone"
	}
	even := func(when string) {
		t.Helper()
		for _, task := range s.Tasks {
			if n := zones(s, task); n[2]-n[0] > 1 || n[0]+n[1]+n[2] != task.Replicas {
				t.Errorf("%s: %d replicas are spread as %v", when, task.Replicas, n)
			}
		}
	}
	s.carry(Place(s))
	even("from nothing")
	set := func(state State) {
		for i := range s.Agents {
			if s.Agents[i].Labels["zone"] == "b" {
				s.Agents[i].State = state
			}
		}
	}
	set(Lost)
	s.quiet(t, 100)
	for _, task := range s.Tasks {
		if n := zones(s, task); n[0] != 0 || n[2]-n[1] > 1 {
			t.Errorf("a zone is lost: %d replicas are spread as %v", task.Replicas, n)
		}
	}
	set(Live)
	if p := Place(s); len(p.Moves) > 13 || moved(t, p, Spread, Balance)[Spread] == 0 { // of 255 slots
		t.Errorf("a zone is back: %d moves", len(p.Moves))
	}
	s.quiet(t, 100)
	even("after a zone was away")
}

// TestPriorities: who is important has room, at the cost of as few others as possible.
func TestPriorities(t *testing.T) {
	s := fleet(4, 40)
	for i := range s.Agents {
		s.Agents[i].Capacity = 5
	}
	for i := range s.Tasks {
		s.Tasks[i].Priority = i % 10
	}
	placed := func() (n [10]int) {
		for _, task := range s.Tasks {
			n[task.Priority] += len(task.Owners)
		}
		return n
	}
	p := Place(s)
	s.carry(p)
	if n := placed(); n != [10]int{5: 4, 6: 4, 7: 4, 8: 4, 9: 4} || len(p.Unplaced) != 20 || p.Unplaced[0].Reason != NoRoom {
		t.Errorf("placed by priority: %v; %+v", n, p.Unplaced)
	}
	s.Tasks = append(s.Tasks, Task{ID: "urgent", Replicas: 1, Priority: 9, Cost: 2})
	p = Place(s)
	if n := moved(t, p, Preempted, New); n[Preempted] != 2 || n[New] != 1 {
		t.Errorf("moved %v", p.Moves)
	}
	s.carry(p)
	if n := placed(); n != [10]int{5: 2, 6: 4, 7: 4, 8: 4, 9: 5} && n != [10]int{5: 3, 6: 3, 7: 4, 8: 4, 9: 5} {
		t.Errorf("placed by priority: %v", n)
	}
	s.Agents[0].State = Lost
	s.carry(Place(s))
	for _, task := range s.Tasks {
		if task.Priority == 9 && (len(task.Owners) == 0 || task.Owners[0] == s.Agents[0].ID) {
			t.Errorf("the most important is not placed: %+v", task)
		}
	}
}

// TestFrozen: nothing is moved, whatever is the case; what is new is placed.
func TestFrozen(t *testing.T) {
	s := fleet(20, 200)
	s.carry(Place(s))
	for i := range 12 {
		s.Agents[i].State = Lost
	}
	s.Agents[12].State, s.Agents[13].Capacity, s.Tasks[0].Replicas = Draining, 1, 0
	s.Tasks = append(s.Tasks, Task{ID: "submitted", Replicas: 1})
	s.Frozen = true
	p := Place(s)
	if len(p.Moves) != 1 || p.Moves[0].Task != "submitted" || len(p.Held) < 100 {
		t.Errorf("moves %+v, %d held", p.Moves, len(p.Held))
	}
	s.Frozen = false
	moved(t, Place(s), New, OwnerLost, Drain, Overload, Surplus, Balance)
}

// TestExclusive: a lost owner that may not know it keeps what must never have two.
func TestExclusive(t *testing.T) {
	s := fleet(5, 50)
	for i := range s.Tasks {
		s.Tasks[i].Exclusive = true
	}
	s.carry(Place(s))
	_, n := s.tally()
	a := &s.Agents[2]
	a.State, a.Leased = Lost, true
	if p := Place(s); len(p.Moves) != 0 || len(p.Held) != n[a.ID] || p.Held[0].Reason != Leased {
		t.Errorf("%+v", p)
	}
	a.Leased = false
	if n := moved(t, Place(s), OwnerLost)[OwnerLost]; n == 0 {
		t.Error("nothing is moved after the lease has ended")
	}
}
