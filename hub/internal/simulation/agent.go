package simulation

import (
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/report"
)

const (
	interval     = time.Second // of work
	dialTimeout  = 10 * time.Second
	maxReconnect = 30 * time.Second
	keeps        = 40 // results that wait
)

// An agent is one process of an agent.
type agent struct {
	node
	index  int
	id     string
	labels map[string]string
	holds  bool                     // an operator has paused it
	cut    []struct{ up, down int } // from hubs, by how many faults

	// What survives the process.
	docs    map[string]control.OfferedDocument
	remote  string // the hash of what it was offered last
	results []result

	conn    *conn
	last    int // the hub that it was connected to last; -1: none
	failed  int
	ends    time.Time // of its lease
	works   map[string]Event
	wanted  map[string]control.Tenure // what a hub has said last, which counts at once; nil: nothing in this process
	offer   *control.Offer            // to be applied
	sending int                       // the request that is under way; 0: none
	sent    int
	astray  bool // the last one was not answered: the next one goes to any hub
}

// A result is of one interval of work on a document.
type result struct {
	agent    *agent
	document int
	epoch    int64
	serial   int
	begun    time.Duration
}

func (a *agent) start() {
	a.node.begin()
	a.conn, a.failed, a.ends, a.works, a.wanted, a.offer, a.sending = nil, 0, time.Time{}, map[string]Event{}, nil, nil, 0
	if a.remote = ""; len(a.docs) > 0 {
		a.remote = offerOf(a.docs).Hash()
	}
	a.refresh()
	a.after(a.w.between(0, time.Second), a.dial)
	a.after(a.w.between(0, interval), a.work)
}

// stop ends the process. If its host goes on, that says so to the hub.
func (a *agent) stop(host bool) {
	if !a.up {
		return
	}
	if c := a.conn; c != nil && host {
		c.close(true)
	}
	a.node.kill()
	a.conn = nil
	a.refresh()
}

// reaches reports whether what one of the two sends gets to the other.
func (a *agent) reaches(h *hub, up bool) bool {
	if up {
		return a.cut[h.index].up == 0
	}
	return a.cut[h.index].down == 0
}

// dial connects to a hub: to another than before, if there is one.
func (a *agent) dial() {
	hubs := slices.Clone(a.w.hubs)
	if a.last >= 0 && len(hubs) > 1 && (a.failed > 0 || a.w.chance(0.3)) {
		hubs = slices.Delete(hubs, a.last, a.last+1)
	}
	h := hubs[a.w.rand.IntN(len(hubs))]
	a.last = h.index
	fails := func(after time.Duration) {
		a.after(after, func() {
			a.failed++
			a.after(a.w.between(0, min(maxReconnect, time.Second/2<<min(a.failed, 10))), a.dial)
		})
	}
	life := a.life
	a.w.after(3*a.w.latency(), func() {
		switch {
		case !a.reaches(h, true) || !a.reaches(h, false) || h.up && h.paused > 0:
			fails(dialTimeout)
		case !h.up:
			fails(0)
		default:
			a.get(life, func() { a.connect(h) })
		}
	})
}

func (a *agent) connect(h *hub) {
	if !h.up {
		a.after(0, a.dial)
		return
	}
	a.failed = 0
	c := &conn{w: a.w, a: a, h: h, agentLife: a.life, hubLife: h.life, open: [2]bool{true, true}}
	a.conn = c
	a.w.conns = append(a.w.conns, c)
	c.up(func() { h.connect(c) })
	a.patience(c)
	a.beat(c)
}

// beat speaks to the hub, and goes on doing so.
func (a *agent) beat(c *conn) {
	if a.conn == c {
		a.speak()
		a.after(heartbeat, func() { a.beat(c) })
	}
}

func (a *agent) speak() {
	c := a.conn
	if c == nil {
		return
	}
	b := beat{sent: a.clock(), labels: maps.Clone(a.labels), working: !a.holds, remote: control.RemoteStatus{Hash: a.remote, Status: control.Applied}}
	if a.offer != nil {
		b.remote.Status = control.Applying
	}
	for _, name := range slices.Sorted(maps.Keys(a.docs)) {
		b.runs = append(b.runs, report.Document{Source: "hub", Name: name, Version: a.docs[name].Version, Status: "running"})
	}
	c.up(func() { c.h.hear(c, b) })
}

// patience ends a connection that nothing comes from.
func (a *agent) patience(c *conn) {
	at := a.w.now
	c.heard = at
	a.after(missed*heartbeat+dialTimeout, func() {
		if a.conn == c && c.heard == at {
			c.close(true)
			a.left(c)
		}
	})
}

// left notes that a connection is over, and makes another one.
func (a *agent) left(c *conn) {
	if a.conn == c {
		a.conn = nil
		a.after(a.w.between(0, heartbeat), a.dial)
	}
}

// leased takes in a lease.
func (a *agent) leased(c *conn, sent time.Time, expires time.Duration) {
	if a.conn != c {
		return
	}
	a.patience(c)
	if expires <= 0 {
		return
	}
	a.ends = sent.Add(expires)
	a.refresh()
}

// offered takes in what the agent shall run. It is applied a while later.
func (a *agent) offered(c *conn, o *control.Offer) {
	if a.conn != c {
		return
	}
	a.patience(c)
	busy := a.offer != nil
	a.offer, a.remote, a.wanted = o, o.Hash(), map[string]control.Tenure{}
	for _, d := range o.Documents {
		a.wanted[d.Name] = d.Tenure
	}
	a.refresh()
	if !busy {
		a.after(a.w.between(20*time.Millisecond, time.Second), a.apply)
	}
}

// offerOf is the offer that has become what an agent runs.
func offerOf(docs map[string]control.OfferedDocument) *control.Offer {
	o := &control.Offer{}
	for _, name := range slices.Sorted(maps.Keys(docs)) {
		o.Documents = append(o.Documents, docs[name])
	}
	return o
}

func (a *agent) apply() {
	o := a.offer
	a.offer, a.docs = nil, map[string]control.OfferedDocument{}
	for _, d := range o.Documents {
		a.docs[d.Name] = d
	}
	a.refresh()
	a.after(20*time.Millisecond, a.speak)
}

// tenure returns on what terms the agent has a document that it runs: those of now.
func (a *agent) tenure(name string) control.Tenure {
	if a.wanted == nil {
		return a.docs[name].Tenure
	}
	return a.wanted[name]
}

// allowed reports whether the agent may work on a document that it runs.
func (a *agent) allowed(name string) bool {
	t := a.tenure(name)
	return t.Epoch != 0 && (a.w.Wrong == AllowsAlways || t.Allows(a.ends, a.clock()))
}

// refresh notes on what it works, and looks again when that may change by itself.
func (a *agent) refresh() {
	now, next := a.clock(), time.Duration(0)
	is := map[string]int64{}
	if a.runs() && !a.holds {
		for name := range a.docs {
			t := a.tenure(name)
			if a.allowed(name) {
				is[name] = t.Epoch
			}
			for _, end := range []time.Time{a.ends, a.ends.Add(t.Orphan)} {
				if left := end.Sub(now); left > 0 && t.Orphan >= 0 && (next == 0 || left < next) {
					next = left
				}
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(a.works)) {
		if e := a.works[name]; is[name] == 0 || is[name] != e.Epoch {
			e.Kind = Ended
			a.w.note(e)
			delete(a.works, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(is)) {
		if _, already := a.works[name]; !already && is[name] != 0 {
			d := a.w.document(name)
			e := Event{Kind: Began, Hub: -1, Agent: a.index, Document: d, Place: a.w.texts[d].places[is[name]], Epoch: is[name]}
			a.works[name] = e
			a.w.note(e)
		}
	}
	if next > 0 {
		ends := a.ends
		a.after(next, func() {
			if a.ends.Equal(ends) {
				a.refresh()
			}
		})
	}
}

// work makes results, each interval.
func (a *agent) work() {
	for _, name := range slices.Sorted(maps.Keys(a.works)) {
		if a.allowed(name) {
			a.made(name)
		}
	}
	a.send()
	a.after(interval, a.work)
}

// made adds a result.
func (a *agent) made(name string) {
	e := a.works[name]
	a.sent++
	a.results = append(a.results, result{a, e.Document, e.Epoch, a.sent, a.w.now})
	if over := len(a.results) - keeps*max(len(a.works), 1); over > 0 {
		a.results = slices.Delete(a.results, 0, over)
	}
}

// pause stops the process as SIGSTOP does. What it is in the midst of it does when it goes on, without asking again.
func (a *agent) pause() {
	if a.paused++; a.paused == 1 && a.up {
		for _, name := range slices.Sorted(maps.Keys(a.works)) {
			if a.w.chance(0.5) {
				e, begun, life := a.works[name], a.w.now, a.life
				a.get(life, func() { a.results = append(a.results, result{a, e.Document, e.Epoch, 0, begun}) })
			}
		}
		a.refresh()
	}
}

// resume lets it go on.
func (a *agent) resume() {
	a.goOn()
	a.refresh()
}

// send gives results to a hub: that of the connection, or any.
func (a *agent) send() {
	if len(a.results) == 0 || a.sending != 0 {
		return
	}
	h := a.w.hubs[a.w.rand.IntN(len(a.w.hubs))]
	if a.conn != nil && !a.astray && a.w.chance(0.8) {
		h = a.conn.h
	}
	a.astray = true
	a.sent++
	attempt, life, hubLife, batch := a.sent, a.life, h.life, slices.Clone(a.results)
	a.sending = attempt
	a.after(5*time.Second, func() {
		if a.sending == attempt {
			a.sending = 0
		}
	})
	a.w.after(a.w.latency(), func() {
		if !a.reaches(h, true) {
			return
		}
		if !h.up {
			a.get(life, func() { a.sending = 0 })
		}
		h.get(hubLife, func() {
			for _, r := range batch {
				h.take(r)
			}
			h.w.after(h.w.latency(), func() {
				if !a.reaches(h, false) {
					return
				}
				a.get(life, func() {
					a.astray = false
					a.results = slices.DeleteFunc(a.results, func(r result) bool { return slices.Contains(batch, r) })
					if a.sending == attempt {
						a.sending = 0
					}
				})
			})
		})
	})
}

// A conn is a connection of an agent to a hub. What is sent comes in order, or waits until it can.
type conn struct {
	w                  *world
	a                  *agent
	h                  *hub
	agentLife, hubLife int
	open               [2]bool // at the agent, at the hub
	last               [2]time.Duration
	waits              [2][]func()   // up, down: what could not get through
	heard              time.Duration // by the agent
	beats              int           // that came
}

func (c *conn) up(do func())   { c.send(0, do) }
func (c *conn) down(do func()) { c.send(1, do) }

// send has something done at the other side.
func (c *conn) send(way int, do func()) {
	c.last[way] = max(c.w.now+c.w.latency(), c.last[way]+1)
	c.w.after(c.last[way]-c.w.now, func() { c.arrive(way, do) })
}

func (c *conn) arrive(way int, do func()) {
	if !c.a.reaches(c.h, way == 0) || len(c.waits[way]) > 0 {
		c.waits[way] = append(c.waits[way], do)
		return
	}
	to, life := &c.h.node, c.hubLife
	if way == 1 {
		to, life = &c.a.node, c.agentLife
	}
	if to.up && to.life != life { // its host knows of no such connection
		c.w.after(c.w.latency(), func() { c.closed(way) })
		return
	}
	to.take(life, true, func() {
		if c.open[1-way] {
			do()
		}
	})
}

// healed lets through what waited, as repeated packets do: a while later.
func (c *conn) healed() {
	for way := range c.waits {
		if len(c.waits[way]) == 0 || !c.a.reaches(c.h, way == 0) {
			continue
		}
		c.w.after(c.w.between(10*time.Millisecond, 3*time.Second), func() {
			list := c.waits[way]
			c.waits[way] = nil
			for i, do := range list {
				c.w.after(time.Duration(i), func() { c.arrive(way, do) })
			}
		})
	}
}

// close ends the connection on one side, and has the other one told.
func (c *conn) close(atAgent bool) {
	side := 1
	if atAgent {
		side = 0
	}
	if !c.open[side] {
		return
	}
	c.open[side] = false
	c.send(side, func() { c.closed(1 - side) })
	if !c.open[1-side] {
		c.w.forget(c)
	}
}

// closed tells one side that the connection is over.
func (c *conn) closed(side int) {
	if !c.open[side] {
		return
	}
	tell := func() {
		c.open[side] = false
		if side == 0 {
			c.a.left(c)
		} else if c.h.fleet[c.a.id] != nil {
			c.h.left(c)
		}
	}
	if side == 0 {
		c.a.get(c.agentLife, tell)
	} else {
		c.h.get(c.hubLife, tell)
	}
}

func (w *world) forget(c *conn) {
	w.conns = slices.DeleteFunc(w.conns, func(x *conn) bool { return x == c })
}

// String names the agent.
func (a *agent) String() string { return "agent " + strconv.Itoa(a.index) }
