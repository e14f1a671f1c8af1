package placement

import (
	"cmp"
	"math"
	"slices"
)

// shed takes slots from agents whose capacity has become too small.
func (p *planner) shed() {
	for i := range p.agents {
		if p.agents[i].room() < 0 {
			p.evict(int32(i), Priorities, 0, Overload)
		}
	}
}

// fill places what has no agent, by priority. Of these, tasks go first that have the least choice.
func (p *planner) fill() {
	for level := Priorities - 1; level >= 0; level-- {
		list := p.levels[level]
		slices.SortFunc(list, func(x, y int32) int {
			j, k := &p.jobs[x], &p.jobs[y]
			return cmp.Or((j.kind.takers-j.n)-(k.kind.takers-k.n), len(k.kind.sizes)-len(j.kind.sizes), cmp.Compare(k.cost, j.cost), cmp.Compare(k.burden, j.burden), j.before(k))
		})
		for _, t := range list {
			p.fillJob(&p.jobs[t])
		}
	}
}

func (p *planner) fillJob(j *job) {
	k := j.kind
	if k.noRoom <= j.cost {
		return
	}
	replicas := p.look(j)
	for s := j.first; s < j.first+j.n; s++ {
		if p.slots[s].at != none || p.slots[s].held != "" {
			continue
		}
		a := p.pick(j, everywhere, false)
		if a == none && !p.Frozen {
			a = p.preempt(j)
		}
		if a == none {
			if replicas == 0 { // nobody was passed over for having one; and what is less important finds no more room than this
				k.noRoom = j.cost
			}
			return
		}
		p.put(s, a)
		p.note(j, a, 1)
		replicas++
	}
}

// pick finds the best agent for another replica of the job that is looked at, in a zone with at most so many. A strict one
// must be below its bound.
func (p *planner) pick(j *job, most int32, strict bool) int32 {
	k, hash, best, limit, cut := j.kind, j.hash, none, math.Inf(1), uint64(math.MaxUint64)
	var bestCount int32
	var bestOver bool
	var bestScore float64
	least := p.least(k)
	for i, h := range p.hashes {
		d := dice(hash, h)
		if d > cut {
			continue
		}
		c := chance(d)
		if c*p.scales[i] >= limit {
			continue
		}
		a := &p.agents[i]
		if !a.takes || a.room() < j.cost || p.marks[i] == p.mark || !k.has(int32(i)) {
			continue
		}
		count := int32(0)
		if k.zones != nil {
			count = p.counts[k.zones[i]]
		}
		over, rank := a.burden >= a.bound, 0.0
		if count > most || over && strict {
			continue
		}
		if over {
			rank = float64(a.burden) * p.scales[i]
		} else {
			rank = score(c, p.scales[i])
		}
		if best != none && (count > bestCount || count == bestCount && (over && !bestOver || over == bestOver && rank >= bestScore)) {
			continue
		}
		best, bestCount, bestOver, bestScore = int32(i), count, over, rank
		if !over && count == least {
			limit, cut = rank, p.cut(rank) // nothing but a better score is better
		}
	}
	return best
}

// least returns a number of replicas that no zone is below.
func (p *planner) least(k *kind) int32 {
	if k.zones == nil {
		return 0
	}
	least := everywhere
	for z, size := range k.sizes {
		if size > 0 {
			least = min(least, p.counts[z])
		}
	}
	return least
}

// preempt finds the agent where least important slots make room for the job that is looked at, and takes them away.
func (p *planner) preempt(j *job) int32 {
	below := int64(0)
	for _, load := range p.loads[:j.priority] {
		below += load
	}
	if below == 0 {
		return none
	}
	best, bestCount, bestLevel, bestScore := none, int32(0), 0, 0.0
	for i, h := range p.hashes {
		a := &p.agents[i]
		if !a.takes || a.capacity < j.cost || p.marks[i] == p.mark || !j.kind.has(int32(i)) {
			continue
		}
		level, room := -1, a.room()
		for room < j.cost && level+1 < j.priority {
			level++
			room += a.loads[level]
		}
		if room < j.cost {
			continue
		}
		count := int32(0)
		if j.kind.zones != nil {
			count = p.counts[j.kind.zones[i]]
		}
		rank := score(chance(dice(j.hash, h)), p.scales[i])
		if best == none || cmp.Or(cmp.Compare(count, bestCount), cmp.Compare(level, bestLevel), cmp.Compare(rank, bestScore)) < 0 {
			best, bestCount, bestLevel, bestScore = int32(i), count, level, rank
		}
	}
	if best != none {
		p.evict(best, j.priority, j.cost, Preempted)
	}
	return best
}

// evict takes slots below a priority from an agent until it has room: the least important first, then the dearest.
func (p *planner) evict(a int32, priority int, room int64, why Reason) {
	if p.Frozen {
		panic("BUG: slots are moved while all is frozen")
	}
	list := slices.DeleteFunc(p.on(a), func(s int) bool { return p.jobs[p.slots[s].job].priority >= priority })
	slices.SortFunc(list, func(x, y int) int {
		j, k := &p.jobs[p.slots[x].job], &p.jobs[p.slots[y].job]
		return cmp.Or(j.priority-k.priority, cmp.Compare(k.cost, j.cost), j.before(k), x-y)
	})
	n := 0
	for ; n < len(list) && p.agents[a].room() < room; n++ {
		p.take(list[n])
	}
	for _, s := range slices.Backward(list[:n]) { // what has come later may have been enough
		if p.agents[a].room()-p.jobs[p.slots[s].job].cost >= room {
			p.put(s, a)
			continue
		}
		p.slots[s].why = why
		p.queue(p.slots[s].job)
	}
}
