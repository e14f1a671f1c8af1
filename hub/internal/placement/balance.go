package placement

import (
	"cmp"
	"math"
	"slices"
)

// pairs of slots and receivers are compared at most for a plan, which bounds the time for it.
const pairs = 100_000_000

// A receiver is an agent that has much less than its share.
type receiver struct {
	hash  uint64
	scale float64
	agent int32
}

// rebalance moves slots that could stay, as many as a plan may.
func (p *planner) rebalance() {
	budget := int(math.Ceil(max(min(p.Rebalance, 1), 0) * float64(len(p.slots)))) // not a number makes it negative or none
	if budget <= 0 {
		return
	}
	budget = p.even(budget)
	budget = p.relieve(budget)
	p.feed(budget)
}

// stays reports whether nothing has been done with a slot.
func (p *planner) stays(s int) bool {
	sl := &p.slots[s]
	return sl.at != none && sl.at == sl.was && sl.held == "" && p.agents[sl.at].takes
}

// shift moves a slot of the job that is looked at.
func (p *planner) shift(s int, a int32, why Reason) {
	p.take(s)
	p.put(s, a)
	p.slots[s].why = why
}

func (p *planner) scoreOf(j *job, a int32) float64 {
	return score(chance(dice(j.hash, p.hashes[a])), p.scales[a])
}

// even moves replicas from zones with many to those with two fewer or less.
func (p *planner) even(budget int) int {
	var list []*job
	for t := range p.jobs {
		if j := &p.jobs[t]; j.kind.zones != nil && j.n > 1 {
			p.look(j)
			if p.uneven(j) {
				list = append(list, j)
			}
		}
	}
	slices.SortFunc(list, (*job).before)
	for _, j := range list {
		for budget > 0 && p.evenOne(j) {
			budget--
		}
	}
	return budget
}

// uneven reports whether a replica of the job that is looked at could be in a better zone, were there room.
func (p *planner) uneven(j *job) bool {
	most, least := int32(0), everywhere
	for z, size := range j.kind.sizes {
		most = max(most, p.counts[z])
		if size > p.counts[z] {
			least = min(least, p.counts[z])
		}
	}
	return most > 1 && least <= most-2
}

func (p *planner) evenOne(j *job) bool {
	p.look(j)
	if !p.uneven(j) {
		return false
	}
	most := slices.Max(p.counts[:len(j.kind.sizes)])
	worst, worstScore := -1, 0.0
	for s := j.first; s < j.first+j.n; s++ {
		if !p.stays(s) || p.counts[j.kind.zones[p.slots[s].at]] < most {
			continue
		}
		if n := p.scoreOf(j, p.slots[s].at); worst < 0 || n > worstScore {
			worst, worstScore = s, n
		}
	}
	if worst < 0 {
		return false
	}
	a := p.pick(j, most-2, false)
	if a == none {
		return false
	}
	p.shift(worst, a, Spread)
	return true
}

// relieve moves slots from agents beyond their bounds to others that are below, without making spread worse. An agent is
// beyond its bound if it would be even without its heaviest slot: filling does not lead there as long as another is below.
func (p *planner) relieve(budget int) int {
	hopeless := map[*kind]int64{} // the least cost that nobody takes
	for i := range p.agents {
		a := &p.agents[i]
		if !a.takes || a.burden < a.bound || budget <= 0 {
			continue
		}
		list, heaviest := p.on(int32(i)), int64(0)
		for _, s := range list {
			heaviest = max(heaviest, p.jobs[p.slots[s].job].burden)
		}
		slices.SortFunc(list, func(x, y int) int { // those first that belong elsewhere
			j, k := &p.jobs[p.slots[x].job], &p.jobs[p.slots[y].job]
			return cmp.Or(cmp.Compare(p.scoreOf(k, int32(i)), p.scoreOf(j, int32(i))), j.before(k), x-y)
		})
		for _, s := range list {
			j := &p.jobs[p.slots[s].job]
			if a.burden-heaviest < a.bound || budget <= 0 {
				break
			}
			if least, ok := hopeless[j.kind]; !p.stays(s) || ok && j.cost >= least {
				continue
			}
			to := p.pick(j, p.without(j, int32(i)), true)
			if to == none {
				if j.n == 1 {
					hopeless[j.kind] = j.cost
				}
				continue
			}
			p.shift(s, to, Balance)
			budget--
		}
	}
	return budget
}

// without looks at a job as if its replica on an agent were not counted, and returns how many the zone of another agent may
// have that takes it over.
func (p *planner) without(j *job, a int32) int32 {
	p.look(j)
	if j.kind.zones == nil {
		return everywhere
	}
	p.note(j, a, -1)
	return p.counts[j.kind.zones[a]]
}

// feed gives agents that have come, or come back, slots that belong to them more than to their owners. After all slots were
// filled there are none: what scores higher than the owner was at its bound then.
func (p *planner) feed(budget int) {
	if budget <= 0 {
		return
	}
	hungry := p.hungry()
	type offer struct {
		slot int
		to   int32
	}
	var offers []offer
	for s := range p.slots {
		if !p.stays(s) {
			continue
		}
		j := &p.jobs[p.slots[s].job]
		if j.kind.hungry == nil {
			j.kind.hungry = p.receivers(j.kind, hungry)
		}
		if to := p.better(j, s); to != none {
			offers = append(offers, offer{s, to})
		}
	}
	slices.SortFunc(offers, func(x, y offer) int {
		j, k := &p.jobs[p.slots[x.slot].job], &p.jobs[p.slots[y.slot].job]
		return cmp.Or(j.before(k), x.slot-y.slot)
	})
	for _, o := range offers {
		if budget <= 0 {
			return
		}
		j := &p.jobs[p.slots[o.slot].job]
		if to := p.better(j, o.slot); to != none { // others were faster, or it is full by now
			p.shift(o.slot, to, Balance)
			budget--
		}
	}
}

// hungry returns the agents that have much less than their share, those with the least of it if there are very many.
func (p *planner) hungry() (list []int32) {
	for i := range p.agents {
		if a := &p.agents[i]; a.takes && float64(a.burden) <= float64(a.share)*(1-Headroom) {
			list = append(list, int32(i))
		}
	}
	part := func(i int32) float64 { return float64(p.agents[i].burden) / float64(max(p.agents[i].share, 1)) }
	slices.SortFunc(list, func(x, y int32) int { return cmp.Or(cmp.Compare(part(x), part(y)), cmp.Compare(x, y)) })
	return list[:min(len(list), max(pairs/max(len(p.slots), 1), 1))]
}

func (p *planner) receivers(k *kind, hungry []int32) []receiver {
	list := []receiver{}
	for _, a := range hungry {
		if k.has(a) {
			list = append(list, receiver{p.hashes[a], p.scales[a], a})
		}
	}
	return list
}

// better finds the receiver that a slot belongs to more than to its owner. It must not end up with more than its share, nor
// with more for its weight than the owner keeps.
func (p *planner) better(j *job, s int) int32 {
	at := p.slots[s].at
	hash, from, best, limit, most := j.hash, &p.agents[at], none, p.scoreOf(j, at), none
	cut := p.cut(limit)
	for i := range j.kind.hungry {
		r := &j.kind.hungry[i]
		d := dice(hash, r.hash)
		if d > cut {
			continue
		}
		c := chance(d)
		if c*r.scale >= limit {
			continue
		}
		a := &p.agents[r.agent]
		if a.burden+j.burden > a.share || a.room() < j.cost || float64(a.burden+j.burden)*r.scale > float64(from.burden-j.burden)*p.scales[at] {
			continue
		}
		n := score(c, r.scale)
		if n >= limit {
			continue
		}
		if most == none {
			most = p.without(j, at)
		}
		if p.marks[r.agent] == p.mark || j.kind.zones != nil && p.counts[j.kind.zones[r.agent]] > most {
			continue
		}
		best, limit = r.agent, n
	}
	return best
}
