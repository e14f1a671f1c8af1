package placement

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func drawAgent(t *rapid.T, n int) Agent {
	a := Agent{ID: fmt.Sprint("a", n), Labels: map[string]string{
		"zone": rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "zone"), "even": fmt.Sprint(n%2 == 0)}}
	a.Capacity = rapid.SampledFrom([]float64{0, 0, 2, 5, 10}).Draw(t, "capacity")
	return a
}

func drawTask(t *rapid.T, n int) Task {
	return Task{ID: fmt.Sprint("t", n),
		Selector:  rapid.SampledFrom([]string{"", "", "even", "a or b", "none"}).Draw(t, "selector"),
		Replicas:  rapid.SampledFrom([]int{1, 1, 1, 2, 3, 6, 20}).Draw(t, "replicas"),
		Spread:    rapid.SampledFrom([]string{"", "zone", "missing"}).Draw(t, "spread"),
		Priority:  rapid.SampledFrom([]int{-1, 0, 3, 3, 9, 12}).Draw(t, "priority"),
		Cost:      rapid.SampledFrom([]float64{0, 0.3, 1, 2.5}).Draw(t, "cost"),
		Measured:  rapid.SampledFrom([]float64{0, 0.001, 0.02, 0.5, 3}).Draw(t, "measured"),
		Exclusive: rapid.Bool().Draw(t, "exclusive"),
	}
}

func draw(t *rapid.T) *Snapshot {
	s := fleet(0, 0)
	s.Rebalance = rapid.SampledFrom([]float64{0, 0.05, 1, math.NaN(), -1, 7}).Draw(t, "rebalance")
	for i := range rapid.IntRange(0, 9).Draw(t, "agents") {
		s.Agents = append(s.Agents, drawAgent(t, i))
	}
	for i := range rapid.IntRange(0, 20).Draw(t, "tasks") {
		s.Tasks = append(s.Tasks, drawTask(t, i))
	}
	return s
}

// change does something to a world. The next new task has the number fresh.
func change(t *rapid.T, s *Snapshot, fresh *int) {
	if len(s.Agents) > 0 {
		a := &s.Agents[rapid.IntRange(0, len(s.Agents)-1).Draw(t, "agent")]
		switch rapid.IntRange(0, 6).Draw(t, "change") {
		case 0, 1:
			a.State, a.Leased = rapid.SampledFrom([]State{Live, Draining, Lost}).Draw(t, "state"), rapid.Bool().Draw(t, "leased")
		case 2:
			a.Capacity = rapid.SampledFrom([]float64{0, 1, 4, 20}).Draw(t, "capacity")
		case 3:
			*a = s.Agents[len(s.Agents)-1]
			s.Agents = s.Agents[:len(s.Agents)-1]
		case 4:
			a.Labels = map[string]string{"zone": rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "zone"), "even": a.Labels["even"]}
		}
	}
	if len(s.Tasks) > 0 {
		task := &s.Tasks[rapid.IntRange(0, len(s.Tasks)-1).Draw(t, "task")]
		switch rapid.IntRange(0, 5).Draw(t, "change") {
		case 0:
			owners := task.Owners
			*task = drawTask(t, *fresh)
			*fresh++
			task.Owners = owners
		case 1:
			task.Replicas = rapid.IntRange(-1, 5).Draw(t, "replicas")
		case 2:
			task.Owners = rapid.SliceOfN(rapid.SampledFrom([]string{"", "a0", "a1", "a1", "a2", "gone"}), 0, 4).Draw(t, "owners")
		}
	}
	if rapid.IntRange(0, 3).Draw(t, "new") == 0 && s.agent("a99") == nil {
		s.Agents = append(s.Agents, drawAgent(t, 99))
	}
	s.Frozen = rapid.IntRange(0, 4).Draw(t, "frozen") == 0
}

// TestModel holds every plan against what plans promise, while agents come, go, and drain, and tasks change.
func TestModel(t *testing.T) {
	seen := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		s, fresh := draw(t), 100
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "order"), 1))
		for range rapid.IntRange(10, 60).Draw(t, "steps") {
			p := Place(s)
			if other := Place(s.clone(r)); !reflect.DeepEqual(p, other) {
				t.Fatalf("another order, another plan:\n%+v\n%+v", p, other)
			}
			check(t, s, p, seen)
			s.carry(p)
			balanced := slices.ContainsFunc(p.Moves, func(m Move) bool { return m.Reason == Balance || m.Reason == Spread })
			checkAfter(t, s, p, s.Frozen || balanced) // the next plan uses the room that balance makes
			rest := *s
			rest.Rebalance = 0
			if again := Place(&rest); len(again.Moves) > 0 && !balanced {
				t.Fatalf("a plan that was carried out is followed by %+v, after %+v", again.Moves, p.Moves)
			}
			change(t, s, &fresh)
		}
	})
	for _, what := range []string{"new", "lost", "surplus", "held frozen", "unplaced no agent", "unplaced too few agents", "unplaced no capacity"} { // TestReasons has all
		if seen[what] == 0 {
			t.Errorf("never seen: %s (seen: %v)", what, seen)
		}
	}
}

// check holds a plan against the snapshot.
func check(t *rapid.T, s *Snapshot, p Plan, seen map[string]int) {
	cost, _ := s.tally()
	tasks, budget, slots := map[string]*Task{}, 0, 0
	for i := range s.Tasks {
		tasks[s.Tasks[i].ID] = &s.Tasks[i]
		slots += min(max(s.Tasks[i].Replicas, 0), len(s.Tasks[i].Owners)+len(s.Agents))
	}
	for _, m := range p.Moves {
		seen[string(m.Reason)]++
		task, owner := tasks[m.Task], ""
		if m.Slot < len(task.Owners) {
			owner = task.Owners[m.Slot]
		}
		from, to := s.agent(m.From), s.agent(m.To)
		live := from != nil && from.State == Live && (m.Slot < task.Replicas && s.Eligible(task.Selector, from))
		var ok bool
		switch m.Reason {
		case New:
			ok = owner == ""
		case OwnerLost:
			ok = owner != "" && (from == nil || from.State == Lost && !(task.Exclusive && from.Leased)) && to != nil
		case Drain:
			ok = from.State == Draining && to != nil
		case Ineligible:
			ok = from.State != Lost && !s.Eligible(task.Selector, from)
		case Duplicate:
			ok = slices.Index(task.Owners, owner) < m.Slot
		case Overload:
			ok = live && from.Capacity > 0 && cost[m.From] > from.Capacity
		case Preempted:
			ok = live && from.Capacity > 0 && task.Priority < 9
		case Surplus:
			ok = m.Slot >= task.Replicas && to == nil
		case Spread, Balance:
			budget++
			ok = live && to != nil
		}
		if !ok || owner != m.From || m.From == m.To || s.Frozen && owner != "" {
			t.Fatalf("wrong: %+v of %+v", m, *task)
		}
		if to != nil && (to.State != Live || !s.Eligible(task.Selector, to)) || m.To != "" && to == nil {
			t.Fatalf("to an agent that must not have it: %+v", m)
		}
		if m.Handover && (task.Exclusive || from == nil || from.State == Lost || to == nil) || m.Reason == Drain && m.Handover == task.Exclusive {
			t.Fatalf("handover: %+v", m)
		}
	}
	if float64(budget) > math.Ceil(max(0, min(1, s.Rebalance))*float64(slots)) && !math.IsNaN(s.Rebalance) || math.IsNaN(s.Rebalance) && budget > 0 {
		t.Fatalf("%d moves for balance only, of %d slots, with %v", budget, slots, s.Rebalance)
	}
	for _, h := range p.Held {
		seen["held "+string(h.Reason)]++
		a := s.agent(h.Agent)
		if tasks[h.Task].Owners[h.Slot] != h.Agent || h.Reason == Frozen && !s.Frozen || h.Reason == Drain && (s.Frozen || a.State != Draining) ||
			h.Reason == Leased && !(a.State == Lost && a.Leased && tasks[h.Task].Exclusive) {
			t.Fatalf("wrongly held: %+v", h)
		}
	}
	for _, u := range p.Unplaced {
		seen["unplaced "+string(u.Reason)]++
	}
}

// checkAfter holds what a plan leads to against the promises.
func checkAfter(t *rapid.T, s *Snapshot, p Plan, roomy bool) {
	heldAt := map[string]bool{}
	for _, h := range p.Held {
		heldAt[fmt.Sprint(h.Task, "/", h.Slot)] = true
	}
	missing, reasons := map[string]int{}, map[string]Reason{}
	for _, u := range p.Unplaced {
		missing[u.Task], reasons[u.Task] = u.Missing, u.Reason
	}
	used := map[string]float64{}
	above := func(id string, priority int) (cost float64) { // what is on an agent and does not give way
		for i := range s.Tasks {
			if min(max(s.Tasks[i].Priority, 0), 9) >= priority {
				for _, o := range s.Tasks[i].Owners {
					if o == id {
						cost += costOf(&s.Tasks[i])
					}
				}
			}
		}
		return cost
	}
	for i := range s.Tasks {
		task := &s.Tasks[i]
		has, own := 0, map[string]bool{}
		for slot, o := range task.Owners {
			a, held := s.agent(o), heldAt[fmt.Sprint(task.ID, "/", slot)]
			if slot >= task.Replicas && o != "" && !held {
				t.Fatalf("a slot too many: %+v", *task)
			}
			if slot < task.Replicas && (held || a != nil && a.State != Lost) {
				has++
			}
			if own[o] && a != nil && a.State == Live && !held {
				t.Fatalf("two replicas on %s: %+v", o, *task)
			}
			if own[o] = true; a != nil && a.State == Live {
				used[o] += costOf(task)
			}
		}
		if has+missing[task.ID] != max(task.Replicas, 0) {
			t.Fatalf("%d replicas and %d missing: %+v", has, missing[task.ID], *task)
		}
		if missing[task.ID] == 0 || roomy {
			continue
		}
		eligible := 0
		for _, a := range s.Agents {
			if a.State != Live || !s.Eligible(task.Selector, &a) {
				continue
			}
			if eligible++; own[a.ID] {
				continue
			}
			if reasons[task.ID] != NoRoom || a.Capacity == 0 || above(a.ID, min(max(task.Priority, 0), 9))+costOf(task) <= a.Capacity+1e-9 {
				t.Fatalf("%s could have it: %+v, said: %s", a.ID, *task, reasons[task.ID])
			}
		}
		if (eligible == 0) != (reasons[task.ID] == NoAgent) {
			t.Fatalf("%d agents are eligible, said: %s", eligible, reasons[task.ID])
		}
	}
	for _, a := range s.Agents {
		if a.Capacity > 0 && used[a.ID] > a.Capacity+1e-9 && a.State == Live && !s.Frozen {
			t.Fatalf("%s has %v, and can carry %v", a.ID, used[a.ID], a.Capacity)
		}
	}
}

// TestPickAgainstNaive compares the search that passes over most agents with one that passes over none.
func TestPickAgainstNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := draw(t)
		p := newPlanner(s)
		for i := range p.jobs {
			j := &p.jobs[i]
			most := rapid.SampledFrom([]int32{everywhere, everywhere, 0, 1}).Draw(t, "most")
			strict := rapid.Bool().Draw(t, "strict")
			for n := range j.n {
				p.look(j)
				a := p.pick(j, most, strict)
				if b := p.naive(j, most, strict); a != b {
					t.Fatalf("task %+v: agent %d, naively %d", *j.Task, a, b)
				}
				if a != none {
					p.put(j.first+n, a)
				}
			}
		}
	})
}

// TestRest: what was placed from nothing is not moved if all tasks are alike, and there is room; everything comes to rest.
func TestRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, fresh := draw(t), 100
		s.Rebalance = 1
		mixed := rapid.Bool().Draw(t, "mixed")
		for i := range s.Tasks {
			if !mixed {
				s.Tasks[i] = Task{ID: s.Tasks[i].ID, Replicas: 1}
			}
		}
		for i := range s.Agents {
			if !mixed {
				s.Agents[i].Capacity *= 1000 // weights, but no limits
			}
		}
		s.carry(Place(s))
		if p := Place(s); !mixed && len(p.Moves) > 0 {
			t.Fatalf("moved at once: %+v", p.Moves)
		}
		for range 4 {
			s.quiet(t, 20)
			change(t, s, &fresh)
			s.Frozen = false
		}
	})
}
