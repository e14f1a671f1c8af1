// Package placement decides which agent does what: Place makes a plan of a snapshot, Guard says whether plans may be made at all
// while many agents are lost. Both are pure: no input or output, no clock, no chance. It must not know where agents and tasks
// come from, nor how a plan is carried out.
//
// Capacity is a promise about what is said: a task that says no cost takes 1 of it, whatever was measured, so that no measure ever
// makes a task homeless. How even agents are is a matter of burden: a task's cost if one is said, else what was measured, where 1 is
// the mean of all that were, else 1.
//
// A task has as many slots as it wants replicas. An owner that is live, eligible and within its capacity keeps its slot; only
// what is left over is placed. That goes by priority, then the task first that has the least choice, then the dearest, then the
// heaviest. Among
// the agents that have room, an agent of the zone with the fewest replicas is taken, one that is below its bound, and the one
// with the highest rendezvous score: weighted by capacity, a hash of both names decides, so that the loss of an agent concerns
// nobody else's tasks. The bound is 1 + Headroom times the fair share, which is what the agent would have if the burden of all
// tasks of a selector were divided among its agents by weight. If all are at their bounds, the one takes it that has the least
// for its weight. If none has room, slots of lower priority give way. At last, with a budget per plan, slots go from crowded
// zones to empty ones, from agents beyond their bounds to others, and to agents below their share that score higher than the
// owner: only those that have come or come back do. Without a budget, a plan that was carried out is followed by an empty one; with
// one, after a few.
//
// Sources: Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998 (rendezvous); Mirrokni, Thorup and
// Zadimoghaddam, "Consistent hashing with bounded loads", 2018 (the bound); Schindelhauer and Schomaker, "Weighted distributed
// hash tables", 2005 (the logarithm of the hash over the weight). Each slot is scored with all agents, which is exact and costs
// about a nanosecond a pair.
package placement

import (
	"cmp"
	"slices"
)

// Headroom is how far beyond its fair share an agent may be loaded as long as others are not.
const Headroom = 0.25

// Priorities is how many there are: 0 to 9, and 9 goes first.
const Priorities = 10

// A State says what may be placed on an agent.
type State uint8

const (
	Live     State = iota // it works, and may be given more
	Draining              // it works, and shall have nothing as soon as others have taken over
	Lost                  // it is not heard of
)

// An Agent may own slots.
type Agent struct {
	ID       string            // unique
	Labels   map[string]string // that tasks are spread by
	Capacity float64           // the cost that it can carry, in the unit of Task.Cost; 0: it has no limit, and the weight of the others' mean
	State    State
	Leased   bool // it is lost, but may not have noticed: exclusive tasks must not be given to others yet
}

// A Task is work that Replicas different agents shall do.
type Task struct {
	ID        string   // unique; placement follows from it
	Selector  string   // tasks with the same text may be placed on the same agents
	Replicas  int      // how many agents shall have it
	Spread    string   // a label; as many replicas at each of its values, as far as there is room. Agents without it are one value
	Priority  int      // 0 to 9; what is beyond counts as the nearest
	Cost      float64  // of one replica, as somebody says; 0: nobody does, which is 1 of an agent's capacity. Resolution 0.001
	Measured  float64  // the share of a slot that one replica was seen to take; 0: not known. It counts where nobody says a cost
	Exclusive bool     // overlap: never; no two owners of a slot at a time
	Owners    []string // agents, by slot; "": nobody. May be shorter or longer than Replicas
}

// A Snapshot is what a plan is made of. The order of agents and tasks has no influence.
type Snapshot struct {
	Agents    []Agent // with all that are lost and may come back, or may still hold a lease
	Tasks     []Task
	Eligible  func(selector string, a *Agent) bool // asked at least once per selector and agent; nil: all are
	Rebalance float64                              // the share of all slots, rounded up, that a plan may move only for balance or spread, 0 to 1
	Frozen    bool                                 // Guard's verdict: what has an owner stays with it, whatever it is; the rest is placed
}

// A Reason says why something is as it is.
type Reason string

const (
	// Of moves.
	New        Reason = "new"        // the slot had no owner
	OwnerLost  Reason = "lost"       // the owner is lost or unknown
	Drain      Reason = "draining"   // the owner is draining
	Ineligible Reason = "ineligible" // the selector does not select the owner any more
	Duplicate  Reason = "duplicate"  // the owner has another slot of the task
	Overload   Reason = "capacity"   // the owner's capacity does not suffice
	Preempted  Reason = "preempted"  // a task of higher priority needs the room
	Spread     Reason = "spread"     // too many replicas are at one value of the label
	Balance    Reason = "balance"    // the owner has more than its share, or an agent that the slot belongs to has come
	Surplus    Reason = "surplus"    // the task wants fewer replicas

	// Of slots that are held, beside Drain: nobody could take over.
	Frozen Reason = "frozen" // nothing is moved at present
	Leased Reason = "leased" // the owner is lost, but its lease may still run

	// Of slots that are not placed.
	NoAgent Reason = "no agent"       // no live agent is eligible
	TooFew  Reason = "too few agents" // all eligible live agents have a replica already
	NoRoom  Reason = "no capacity"    // no eligible agent has room, even if what is less important gave way
)

// A Move gives a slot to another agent, or takes it from its owner.
type Move struct {
	Task   string
	Slot   int
	From   string // "": nobody
	To     string // "": nobody; the owner must stop
	Reason Reason
	// Handover means make before break: From goes on until To has taken over. Otherwise a From that is live stops first.
	Handover bool
}

// Held is a slot that stays with an agent that should not have it.
type Held struct {
	Task   string
	Slot   int
	Agent  string
	Reason Reason
}

// Unplaced tells of replicas that nobody does. Slots of lost agents keep their owners meanwhile, who may come back.
type Unplaced struct {
	Task    string
	Missing int
	Reason  Reason
}

// A Plan is what has to be done, by task and slot.
type Plan struct {
	Moves    []Move
	Held     []Held
	Unplaced []Unplaced
}

// Place makes a plan. The same snapshot gives the same plan, whatever the order of its lists.
func Place(s *Snapshot) Plan {
	p := newPlanner(s)
	p.keep()
	if !s.Frozen {
		p.shed()
	}
	p.fill()
	if !s.Frozen {
		p.rebalance()
	}
	return p.finish()
}

// keep leaves slots with their owners where nothing speaks against it.
func (p *planner) keep() {
	for t := range p.jobs {
		j := &p.jobs[t]
		for i, id := range j.Owners {
			if i >= j.Replicas {
				p.release(j, i, id)
				continue
			}
			if id == "" {
				continue
			}
			sl := &p.slots[j.first+i]
			a, known := p.index[id]
			if !known {
				a = none
			}
			sl.was = a
			why := p.against(j, i, a)
			switch {
			case why == "":
				p.put(j.first+i, a)
			case p.Frozen:
				sl.held = Frozen
				p.put(j.first+i, a)
			case why == OwnerLost && known && j.Exclusive && p.agents[a].Leased:
				sl.held = Leased
				p.put(j.first+i, a)
			default:
				sl.why = why
			}
		}
		p.queue(int32(t))
	}
}

// against returns what speaks against agent a as the owner of slot i.
func (p *planner) against(j *job, i int, a int32) Reason {
	switch {
	case a == none || p.agents[a].State == Lost:
		return OwnerLost
	case !j.kind.has(a):
		return Ineligible
	case slices.ContainsFunc(p.slots[j.first:j.first+i], func(sl slot) bool { return sl.at == a }):
		return Duplicate
	case p.agents[a].State == Draining:
		return Drain
	}
	return ""
}

// release ends a slot that is not wanted any more.
func (p *planner) release(j *job, i int, id string) {
	switch {
	case id == "":
	case p.Frozen:
		p.plan.Held = append(p.plan.Held, Held{j.ID, i, id, Frozen})
	default:
		p.plan.Moves = append(p.plan.Moves, Move{Task: j.ID, Slot: i, From: id, Reason: Surplus})
	}
}

// finish tells what has changed.
func (p *planner) finish() Plan {
	for t := range p.jobs {
		j := &p.jobs[t]
		missing := max(j.Replicas, 0) - j.n
		for i := range j.n {
			sl, owner := &p.slots[j.first+i], ""
			if i < len(j.Owners) {
				owner = j.Owners[i]
			}
			switch {
			case sl.held != "":
				p.plan.Held = append(p.plan.Held, Held{j.ID, i, owner, sl.held})
			case sl.at == none && sl.why == Drain:
				p.plan.Held = append(p.plan.Held, Held{j.ID, i, owner, Drain})
			case sl.at == none && (owner == "" || sl.why == OwnerLost):
				missing++
			case sl.at == none:
				missing++
				p.plan.Moves = append(p.plan.Moves, Move{Task: j.ID, Slot: i, From: owner, Reason: sl.why})
			case sl.at != sl.was:
				m := Move{Task: j.ID, Slot: i, From: owner, To: p.agents[sl.at].ID, Reason: cmp.Or(sl.why, New)}
				switch sl.why {
				case Drain, Ineligible, Overload, Spread, Balance:
					m.Handover = !j.Exclusive
				}
				p.plan.Moves = append(p.plan.Moves, m)
			}
		}
		if missing > 0 {
			p.plan.Unplaced = append(p.plan.Unplaced, Unplaced{j.ID, missing, p.shortage(j)})
		}
	}
	slices.SortFunc(p.plan.Moves, func(x, y Move) int { return cmp.Or(cmp.Compare(x.Task, y.Task), x.Slot-y.Slot) })
	slices.SortFunc(p.plan.Held, func(x, y Held) int { return cmp.Or(cmp.Compare(x.Task, y.Task), x.Slot-y.Slot) })
	slices.SortFunc(p.plan.Unplaced, func(x, y Unplaced) int { return cmp.Compare(x.Task, y.Task) })
	return p.plan
}

// shortage says why replicas of a task are missing.
func (p *planner) shortage(j *job) Reason {
	own := 0
	for _, sl := range p.slots[j.first : j.first+j.n] {
		if sl.at != none && p.agents[sl.at].takes && j.kind.has(sl.at) {
			own++
		}
	}
	switch {
	case j.kind.takers == 0:
		return NoAgent
	case own >= j.kind.takers:
		return TooFew
	}
	return NoRoom
}
