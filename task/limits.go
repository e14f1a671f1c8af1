package task

import "math"

// What a round holds from its start to its end, parked or not, is one place of its class and its key. Both are taken at
// once and before it runs, so whoever waits holds nothing, and nobody waits in a circle. The rounds that want the same
// two wait in one lane; a lane whose key is in use, or whose class is full, is not looked at.

// A class is a semaphore of several places.
type class struct {
	free int
	open heap[lane] // lanes in which somebody waits, by the first of each: those whose key is free
	shut heap[lane] // and those whose key is in use
}

// A key is a semaphore of one place.
type key struct {
	used  bool
	lanes []*lane // one for each class that it is used with
}

// A lane is the queue of those that want one class and one key.
type lane struct {
	id    laneID
	class *class
	key   *key // nil: none
	jobs  heap[job]
	node  node[lane]
	users int // jobs that may wait here or hold what it stands for; the lane of no key stays without
}

type laneID struct{ class, key string }

// limits are all semaphores, and all rounds that wait to begin.
type limits struct {
	named   map[string]*class
	classes []*class // the named ones, and at last the unlimited one of all others
	lanes   map[laneID]*lane
	keys    map[string]*key
	plain   *lane // of no class and no key
	waiting int
}

func newLimits(capacity map[string]int) limits {
	l := limits{named: map[string]*class{}, lanes: map[laneID]*lane{}, keys: map[string]*key{}}
	for name, n := range capacity {
		c := &class{free: max(1, n)}
		l.named[name] = c
		l.classes = append(l.classes, c)
	}
	all := &class{free: math.MaxInt}
	l.classes = append(l.classes, all)
	l.plain = &lane{class: all}
	l.plain.node.of = l.plain
	return l
}

// join returns the lane for a class and a key; leave gives it back.
func (l *limits) join(className, keyName string) *lane {
	c := l.named[className]
	if c == nil {
		className, c = "", l.plain.class
	}
	id := laneID{className, keyName}
	if id == (laneID{}) {
		return l.plain
	}
	a := l.lanes[id]
	if a == nil {
		a = &lane{id: id, class: c}
		a.node.of = a
		if keyName != "" {
			k := l.keys[keyName]
			if k == nil {
				k = &key{}
				l.keys[keyName] = k
			}
			k.lanes = append(k.lanes, a)
			a.key = k
		}
		l.lanes[id] = a
	}
	a.users++
	return a
}

func (l *limits) leave(a *lane) {
	if a == l.plain {
		return
	}
	if a.users--; a.users > 0 {
		return
	}
	delete(l.lanes, a.id)
	if a.key == nil {
		return
	}
	for i, other := range a.key.lanes {
		if other == a {
			last := len(a.key.lanes) - 1
			a.key.lanes[i] = a.key.lanes[last]
			a.key.lanes = a.key.lanes[:last]
			break
		}
	}
	if len(a.key.lanes) == 0 {
		delete(l.keys, a.id.key)
	}
}

// push makes j wait in its lane, at j.order.
func (l *limits) push(j *job) {
	l.waiting++
	j.lane.jobs.put(&j.wait, j.order)
	j.lane.settle()
}

// remove takes j out of its lane, if it waits there, and tells whether it did.
func (l *limits) remove(j *job) bool {
	if j.wait.place == 0 {
		return false
	}
	l.waiting--
	j.lane.jobs.remove(&j.wait)
	j.lane.settle()
	return true
}

// all returns everybody who waits.
func (l *limits) all() (list []*job) {
	for _, c := range l.classes {
		for _, h := range []*heap[lane]{&c.open, &c.shut} {
			for _, a := range h.slots {
				for _, j := range a.node.of.jobs.slots {
					list = append(list, j.node.of)
				}
			}
		}
	}
	return list
}

// first returns who may begin next, nil if nobody may.
func (l *limits) first() (best *job) {
	for _, c := range l.classes {
		if c.free == 0 || c.open.empty() {
			continue
		}
		if o, a := c.open.first(); best == nil || o.before(best.order) {
			_, best = a.jobs.first()
		}
	}
	return best
}

// take takes what j needs, release gives it back.
func (l *limits) take(j *job) {
	l.remove(j)
	j.lane.class.free--
	j.lane.lock(true)
}

func (l *limits) release(j *job) {
	j.lane.class.free++
	j.lane.lock(false)
}

func (a *lane) lock(used bool) {
	if a.key == nil {
		return
	}
	for _, other := range a.key.lanes {
		other.heap().remove(&other.node)
	}
	a.key.used = used
	for _, other := range a.key.lanes {
		other.settle()
	}
}

func (a *lane) heap() *heap[lane] {
	if a.key != nil && a.key.used {
		return &a.class.shut
	}
	return &a.class.open
}

// settle puts the lane where the first of its jobs belongs.
func (a *lane) settle() {
	if a.jobs.empty() {
		a.heap().remove(&a.node)
		return
	}
	o, _ := a.jobs.first()
	if h := a.heap(); a.node.place == 0 || h.slots[a.node.place-1].order != o {
		h.put(&a.node, o)
	}
}

// heir returns the most urgent of those that wait for what j, which has begun, holds; nil if nobody does. Those that wait
// hold nothing themselves, so there is no further to look: who waits for a class and a key lends its urgency to the
// holders of both.
func (j *job) heir() (best *job) {
	look := func(o order, a *lane) {
		if best == nil || o.before(best.order) {
			_, best = a.jobs.first()
		}
	}
	if c := j.lane.class; c.free == 0 {
		if !c.open.empty() {
			look(c.open.first())
		}
		if !c.shut.empty() {
			look(c.shut.first())
		}
	}
	if k := j.lane.key; k != nil {
		for _, a := range k.lanes {
			if !a.jobs.empty() {
				o, _ := a.jobs.first()
				look(o, a)
			}
		}
	}
	return best
}
