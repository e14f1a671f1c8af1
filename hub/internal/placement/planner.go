package placement

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
)

const (
	none       = int32(-1)            // no agent
	everywhere = int32(math.MaxInt32) // as a limit of replicas in a zone: no limit
)

// Costs are counted in whole thousandths, so that their sums do not depend on the order of addition.
const (
	unit    = 1000
	maxCost = 1e9 * unit // beyond that it is no measure: a million slots of it can still be added
)

// A planner is a plan in the making.
type planner struct {
	*Snapshot
	agents []node // by id
	hashes []uint64
	scales []float64 // 1 / weight
	scale  float64   // the least
	index  map[string]int32
	jobs   []job // as Snapshot.Tasks
	slots  []slot
	levels [Priorities][]int32 // jobs to fill, by priority
	loads  [Priorities]int64   // on all agents
	marks  []int32             // by agent; the current mark: it has a replica of the job that is looked at
	mark   int32
	counts []int32 // by zone, replicas of the job that is looked at
	plan   Plan
}

// A node is an agent and what is on it.
type node struct {
	*Agent
	takes    bool // something may be placed on it
	weight   float64
	capacity int64
	share    int64 // its fair part of all burden
	bound    int64 // it takes more only below it, or if all others are beyond theirs as well
	burden   int64
	load     int64 // cost
	loads    [Priorities]int64
	head     int32 // its first slot
}

func (n *node) room() int64 { return n.capacity - n.load }

// A job is a task.
type job struct {
	*Task
	hash     uint64
	kind     *kind
	cost     int64 // of capacity
	burden   int64 // of what is shared out
	priority int
	first, n int // its slots
	queued   bool
}

// A slot belongs to a job.
type slot struct {
	job     int32
	at, was int32  // agents
	next    int32  // on the same agent
	why     Reason // it was taken from its owner
	held    Reason // it stays, against
}

// A kind is what tasks with the same selector and spread have in common.
type kind struct {
	members []uint64 // a bit per agent
	takers  int
	burden  float64 // of all slots that can be placed
	zones   []int32 // by agent; nil: tasks are not spread
	sizes   []int32 // takers, by zone
	noRoom  int64   // there was no room for this cost
	hungry  []receiver
}

func (k *kind) has(a int32) bool { return k.members[a>>6]>>(a&63)&1 != 0 }

func newPlanner(s *Snapshot) *planner {
	p := &planner{Snapshot: s, agents: make([]node, len(s.Agents)), jobs: make([]job, len(s.Tasks)), index: make(map[string]int32, len(s.Agents))}
	p.addAgents()
	kinds := p.addTasks()
	for _, k := range kinds {
		p.divide(k)
	}
	for i := range p.agents {
		a := &p.agents[i]
		a.bound = max(int64(math.Ceil(float64(a.share)*(1+Headroom))), 1)
	}
	return p
}

func (p *planner) addAgents() {
	known, sum := 0, int64(0)
	for i := range p.Agents {
		a := &p.Agents[i]
		n := node{Agent: a, takes: a.State == Live, capacity: math.MaxInt64, head: none}
		if a.Capacity > 0 {
			n.capacity = whole(a.Capacity)
			n.weight = float64(n.capacity)
			if n.takes {
				known, sum = known+1, sum+n.capacity
			}
		}
		p.agents[i] = n
	}
	slices.SortFunc(p.agents, func(x, y node) int { return cmp.Compare(x.ID, y.ID) })
	mean := 1.0
	if known > 0 {
		mean = float64(sum) / float64(known)
	}
	p.hashes, p.scales, p.marks = make([]uint64, len(p.agents)), make([]float64, len(p.agents)), make([]int32, len(p.agents))
	p.scale = math.Inf(1)
	for i := range p.agents {
		a := &p.agents[i]
		if a.weight == 0 {
			a.weight = mean
		}
		p.index[a.ID], p.hashes[i], p.scales[i] = int32(i), hashOf(a.ID, 1), 1/a.weight
		p.scale = min(p.scale, p.scales[i])
	}
}

func (p *planner) addTasks() map[[2]string]*kind {
	kinds := map[[2]string]*kind{}
	members := map[string][]uint64{}
	zones := map[string][]int32{}
	total, mean := 0, p.mean()
	for i := range p.Tasks {
		t := &p.Tasks[i]
		key := [2]string{t.Selector, t.Spread}
		k := kinds[key]
		if k == nil {
			k = p.newKind(t, members, zones)
			kinds[key] = k
		}
		j := job{Task: t, hash: hashOf(t.ID, 2), kind: k, cost: unit, priority: min(max(t.Priority, 0), Priorities-1), first: total}
		if t.Cost > 0 {
			j.cost = whole(t.Cost)
		}
		if j.burden = j.cost; !(t.Cost > 0) && t.Measured > 0 {
			j.burden = whole(t.Measured / mean)
		}
		j.n = min(max(t.Replicas, 0), len(t.Owners)+k.takers)
		k.burden += float64(min(j.n, k.takers)) * float64(j.burden)
		total += j.n
		p.jobs[i] = j
	}
	p.slots = make([]slot, total)
	for i := range p.jobs {
		for s := range p.jobs[i].n {
			p.slots[p.jobs[i].first+s] = slot{job: int32(i), at: none, was: none, next: none}
		}
	}
	return kinds
}

// mean returns what replicas of tasks that say no cost were seen to take, on average.
func (p *planner) mean() float64 {
	sum, n := int64(0), int64(0) // whole, so that the order of addition does not count
	for i := range p.Tasks {
		if t := &p.Tasks[i]; !(t.Cost > 0) && t.Measured > 0 {
			replicas := int64(min(max(t.Replicas, 0), len(p.agents)))
			sum, n = sum+replicas*whole(min(t.Measured, unit)*unit), n+replicas // a thousand slots are beyond all measure
		}
	}
	return float64(max(sum, 1)) / float64(max(n, 1)) / (unit * unit)
}

func (p *planner) newKind(t *Task, members map[string][]uint64, zones map[string][]int32) *kind {
	set, ok := members[t.Selector]
	if !ok {
		set = make([]uint64, (len(p.agents)+63)/64)
		for i := range p.agents {
			if p.Eligible == nil || p.Eligible(t.Selector, p.agents[i].Agent) {
				set[i>>6] |= 1 << (i & 63)
			}
		}
		members[t.Selector] = set
	}
	k := &kind{members: set, noRoom: math.MaxInt64}
	if t.Spread != "" {
		if k.zones, ok = zones[t.Spread]; !ok {
			k.zones = p.zonesOf(t.Spread)
			zones[t.Spread] = k.zones
		}
	}
	for i := range p.agents {
		if p.agents[i].takes && k.has(int32(i)) {
			k.takers++
		}
	}
	if k.zones != nil {
		for i, z := range k.zones {
			if int(z) == len(k.sizes) { // zones are numbered as they come
				k.sizes = append(k.sizes, 0)
			}
			if p.agents[i].takes && k.has(int32(i)) {
				k.sizes[z]++
			}
		}
		if len(k.sizes) > len(p.counts) {
			p.counts = make([]int32, len(k.sizes))
		}
	}
	return k
}

// zonesOf numbers the values of a label.
func (p *planner) zonesOf(label string) []int32 {
	numbers, list := map[string]int32{}, make([]int32, len(p.agents))
	for i := range p.agents {
		value := p.agents[i].Labels[label]
		n, ok := numbers[value]
		if !ok {
			n = int32(len(numbers))
			numbers[value] = n
		}
		list[i] = n
	}
	return list
}

// divide adds to the agents' fair shares.
func (p *planner) divide(k *kind) {
	weight := 0.0
	for i := range p.agents {
		if p.agents[i].takes && k.has(int32(i)) {
			weight += p.agents[i].weight
		}
	}
	for i := range p.agents {
		if p.agents[i].takes && k.has(int32(i)) {
			p.agents[i].share += int64(k.burden / weight * p.agents[i].weight)
		}
	}
}

// put gives a slot to an agent.
func (p *planner) put(s int, a int32) {
	sl := &p.slots[s]
	sl.at = a
	if a == none || !p.agents[a].takes {
		return
	}
	p.charge(s, 1)
	sl.next, p.agents[a].head = p.agents[a].head, int32(s)
}

// take takes a slot from the agent that it is on.
func (p *planner) take(s int) {
	sl := &p.slots[s]
	p.charge(s, -1)
	at := &p.agents[sl.at].head
	for *at != int32(s) {
		at = &p.slots[*at].next
	}
	*at = sl.next
	sl.at, sl.next = none, none
}

func (p *planner) charge(s int, sign int64) {
	j, a := &p.jobs[p.slots[s].job], &p.agents[p.slots[s].at]
	a.burden += sign * j.burden
	a.load += sign * j.cost
	a.loads[j.priority] += sign * j.cost
	p.loads[j.priority] += sign * j.cost
}

// on returns the slots of an agent.
func (p *planner) on(a int32) (list []int) {
	for s := p.agents[a].head; s != none; s = p.slots[s].next {
		list = append(list, int(s))
	}
	return list
}

// queue has a job filled, if anything is missing.
func (p *planner) queue(t int32) {
	j := &p.jobs[t]
	if !j.queued && slices.ContainsFunc(p.slots[j.first:j.first+j.n], func(sl slot) bool { return sl.at == none && sl.held == "" }) {
		j.queued = true
		p.levels[j.priority] = append(p.levels[j.priority], t)
	}
}

// look marks the agents that have a replica of a job, and counts them, also by zone.
func (p *planner) look(j *job) (replicas int) {
	p.mark++
	clear(p.counts[:len(j.kind.sizes)])
	for _, sl := range p.slots[j.first : j.first+j.n] {
		if sl.at != none {
			p.note(j, sl.at, 1)
			replicas++
		}
	}
	return replicas
}

func (p *planner) note(j *job, a, n int32) {
	p.marks[a] = p.mark
	if j.kind.zones != nil {
		p.counts[j.kind.zones[a]] += n
	}
}

// before orders jobs by chance, but always in the same way.
func (j *job) before(k *job) int { return cmp.Or(cmp.Compare(j.hash, k.hash), cmp.Compare(j.ID, k.ID)) }

func whole(x float64) int64 { return int64(max(min(math.Round(x*unit), maxCost), 1)) }

// hashOf hashes a name: FNV-1a, whose bits are then mixed as MurmurHash3 does at its end.
func hashOf(s string, seed uint64) uint64 {
	h := 14695981039346656037 ^ seed
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// dice returns a number of 53 bits that belongs to a task and an agent.
func dice(task, agent uint64) uint64 {
	hi, lo := bits.Mul64(task, agent)
	return (hi ^ lo) >> 11
}

// chance makes of it a number from 0 up to, but not including, 1.
func chance(dice uint64) float64 { return float64(dice) * 0x1p-53 }

// cut returns above which dice no agent's score is less than limit: comparing whole numbers costs least, and ends most cases.
func (p *planner) cut(limit float64) uint64 { return uint64(min(limit/p.scale, 1)*0x1p53) + 1 }

// score is how well a task and an agent belong together, given their chance: less is better. It is exponentially distributed
// with the weight as its rate, so that the least of several is an agent's with the likelihood of its weight. It is never less
// than chance times scale, which costs less to find.
func score(chance, scale float64) float64 { return -math.Log1p(-chance) * scale }
