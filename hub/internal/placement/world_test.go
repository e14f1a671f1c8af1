package placement

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// fleet is so many agents in three zones, and tasks of one replica, that nobody owns.
func fleet(agents, tasks int) *Snapshot {
	s := &Snapshot{Rebalance: 0.05}
	for i := range agents {
		s.Agents = append(s.Agents, Agent{ID: fmt.Sprintf("agent-%05d", i), Labels: map[string]string{"zone": string(rune('a' + i%3)), "even": fmt.Sprint(i%2 == 0)}})
	}
	for i := range tasks {
		s.Tasks = append(s.Tasks, Task{ID: fmt.Sprintf("probe/%06d", i), Replicas: 1})
	}
	s.Eligible = func(selector string, a *Agent) bool {
		switch selector {
		case "none":
			return false
		case "even":
			return a.Labels["even"] == "true"
		case "a or b":
			return a.Labels["zone"] != "c"
		}
		return true
	}
	return s
}

// carry does what a plan says.
func (s *Snapshot) carry(p Plan) {
	at := map[string]*Task{}
	for i := range s.Tasks {
		at[s.Tasks[i].ID] = &s.Tasks[i]
	}
	for _, m := range p.Moves {
		t := at[m.Task]
		for len(t.Owners) <= m.Slot {
			t.Owners = append(t.Owners, "")
		}
		t.Owners[m.Slot] = m.To
	}
	for i := range s.Tasks {
		t := &s.Tasks[i]
		for n := len(t.Owners); n > 0 && t.Owners[n-1] == ""; n-- {
			t.Owners = t.Owners[:n-1]
		}
	}
}

// clone copies a snapshot, in another order.
func (s *Snapshot) clone(r *rand.Rand) *Snapshot {
	c := *s
	c.Agents, c.Tasks = slices.Clone(s.Agents), slices.Clone(s.Tasks)
	for i := range c.Tasks {
		c.Tasks[i].Owners = slices.Clone(c.Tasks[i].Owners)
	}
	r.Shuffle(len(c.Agents), func(i, j int) { c.Agents[i], c.Agents[j] = c.Agents[j], c.Agents[i] })
	r.Shuffle(len(c.Tasks), func(i, j int) { c.Tasks[i], c.Tasks[j] = c.Tasks[j], c.Tasks[i] })
	return &c
}

func (s *Snapshot) agent(id string) *Agent {
	if i := slices.IndexFunc(s.Agents, func(a Agent) bool { return a.ID == id }); i >= 0 {
		return &s.Agents[i]
	}
	return nil
}

// costOf is what a task counts.
func costOf(t *Task) float64 {
	if t.Cost > 0 {
		return t.Cost
	}
	return 1
}

// tally is the cost and the number of slots on each agent.
func (s *Snapshot) tally() (cost map[string]float64, slots map[string]int) {
	cost, slots = map[string]float64{}, map[string]int{}
	for i := range s.Tasks {
		for _, o := range s.Tasks[i].Owners {
			if o != "" {
				cost[o] += costOf(&s.Tasks[i])
				slots[o]++
			}
		}
	}
	return cost, slots
}

// moved counts moves by reason, and fails for others than those that are named.
func moved(t testing.TB, p Plan, may ...Reason) map[Reason]int {
	t.Helper()
	n := map[Reason]int{}
	for _, m := range p.Moves {
		if n[m.Reason]++; !slices.Contains(may, m.Reason) {
			t.Fatalf("unexpected: %+v", m)
		}
	}
	return n
}

// quiet carries out plans until nothing more is to do, and returns how many there were, and the moves of each.
func (s *Snapshot) quiet(t rapid.TB, limit int) (plans []int) {
	t.Helper()
	for {
		p := Place(s)
		if len(p.Moves) == 0 {
			return plans
		}
		if plans = append(plans, len(p.Moves)); len(plans) > limit {
			t.Fatalf("it does not come to rest: %v moves; now %+v", plans, p.Moves[:min(len(p.Moves), 5)])
		}
		s.carry(p)
	}
}

// naive is pick without its short cuts.
func (p *planner) naive(j *job, most int32, strict bool) int32 {
	type candidate struct {
		agent       int32
		count, over int
		rank        float64
	}
	var list []candidate
	for i := range p.agents {
		a := &p.agents[i]
		c := candidate{agent: int32(i), rank: -math.Log1p(-chance(dice(j.hash, hashOf(a.ID, 1)))) / a.weight}
		own := false
		for _, sl := range p.slots[j.first : j.first+j.n] {
			own = own || sl.at == c.agent
			if j.kind.zones != nil && sl.at != none && p.agents[sl.at].Labels[j.Spread] == a.Labels[j.Spread] {
				c.count++
			}
		}
		if a.burden >= a.bound {
			c.over, c.rank = 1, float64(a.burden)/a.weight
		}
		if a.State != Live || own || a.capacity-a.load < j.cost || p.Eligible != nil && !p.Eligible(j.Selector, a.Agent) ||
			c.count > int(most) || strict && c.over == 1 {
			continue
		}
		list = append(list, c)
	}
	if len(list) == 0 {
		return none
	}
	return slices.MinFunc(list, func(x, y candidate) int {
		switch {
		case x.count != y.count:
			return x.count - y.count
		case x.over != y.over:
			return x.over - y.over
		case x.rank < y.rank && !close(x.rank, y.rank):
			return -1
		case x.rank > y.rank && !close(x.rank, y.rank):
			return 1
		}
		return int(x.agent - y.agent)
	}).agent
}

// close: 1 / weight is rounded, which a naive division is not.
func close(x, y float64) bool { return math.Abs(x-y) <= 1e-12*math.Abs(x) }
