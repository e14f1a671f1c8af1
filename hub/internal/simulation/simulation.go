// Package simulation runs the decisions of several hubs on one control state, and what agents do with them, against faults, in
// one goroutine and with a time of its own. The same seed has the same history, to the bit.
//
// What decides is the real thing: documents.Store, placer.Placer and with it package placement, control.Tenure. What carries it
// (connections, the control state, leases, clocks, the registry's and the election's watching of them) is a model with the same
// rules. No program imports this package: it is for its tests.
package simulation

import (
	"container/heap"
	"encoding/binary"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/creelhq/creel/hub/internal/documents"
)

// Options say what is simulated. Zero values are chosen by the seed, unless they say otherwise.
type Options struct {
	Seed      uint64
	Hubs      int
	Agents    int
	Documents int
	Faults    int           // how many are struck; negative: none
	Only      []Fault       // of these kinds; nil: of all
	Length    time.Duration // in which faults happen; 0: two minutes
	Settle    time.Duration // without faults, at the end, until nothing moves any more: at most; 0: twenty minutes
	Wrong     Wrong         // a bug to plant
	Overlap   string        // of all documents: "never", "allow", "keep" (allow, and agents go on without a hub); "": each has its own
}

// Wrong is a bug that is planted, to see that the checks find it.
type Wrong uint8

// The bugs.
const (
	Nothing       Wrong = iota
	AllowsAlways        // agents work whatever their Tenure says
	NoWait              // the leader does not know who may still have a lease
	NoCompare           // the control state takes every write, whatever has changed meanwhile
	AcceptsAny          // hubs take results of any epoch
	GrantsForEver       // a hub that has lost its own lease goes on giving leases to agents
	LeasesBlind         // a hub gives leases to agents that come to it though it may not have heard of what was placed before
	LateLoss            // a hub believes in its lease until it has been told otherwise, though it was stopped for long
)

// A Kind says what an Event is.
type Kind uint8

// The kinds of events, and what of an Event they have beside At.
const (
	Placed   Kind = iota // Document, Place, Agent (-1: nobody), Epoch: so says the control state from now on
	Began                // Agent, Document, Place, Epoch: it works
	Ended                // the same: it works no more
	Accepted             // Hub, Agent, Document, Place, Epoch, Begun, Clock: a result came, and was taken
	Refused              // the same: it was not
	Applied              // Hub, Document, Owners: the hub has heard of this placing
	Leads                // Hub
	Resigns              // Hub
	Written              // Document, Place: on how many agents it is to be from now on
	Struck               // Fault, Hub or Agent
	Healed               // the same
)

// An Event is something that happened.
type Event struct {
	At    time.Duration // since the beginning
	Begun time.Duration // when the work was done
	Clock time.Time     // the hub's, by the day
	Kind  Kind
	Fault Fault

	Hub, Agent, Document, Place int // -1: none
	Epoch                       int64
	Owners                      *documents.Owners // nil: none
}

// A History is what happened in a run.
type History struct {
	Options // as the seed has chosen
	Events  []Event
	Healthy time.Duration // from when on nothing was wrong any more
	End     time.Duration
	Never   []bool        // by document: no two may work on it
	Places  []int         // by document, at the end
	Able    []int         // by document: how many agents it selects
	Most    []int         // by document: on how many it was to be at most
	IDs     []string      // of agents; two may have the same
	Final   []Final       // by document and place
	Counts  map[Fault]int // how often each fault struck
	Strikes []Strike      // all faults
	Moves   int           // owners that were written
	Clashes int           // writes that found that somebody else had written
	Elected int           // terms
}

// Final is how a place is at the end.
type Final struct {
	Document, Place int
	Owner           int   // -1: nobody
	Workers         []int // who works on it
	Able            int   // how many agents could work on the document
}

// Hash is of all that happened.
func (h *History) Hash() uint64 {
	sum := fnv.New64a()
	var b []byte
	for _, e := range h.Events {
		b = binary.BigEndian.AppendUint64(b[:0], uint64(e.At))
		for _, n := range []int64{int64(e.Begun), int64(e.Kind), int64(e.Fault), int64(e.Hub), int64(e.Agent), int64(e.Document), int64(e.Place), e.Epoch} {
			b = binary.BigEndian.AppendUint64(b, uint64(n))
		}
		if e.Owners != nil {
			for _, o := range e.Owners.Owners {
				b = append(append(b, o.Agent...), o.From...)
				b = binary.BigEndian.AppendUint64(b, uint64(o.Epoch))
			}
		}
		sum.Write(b)
	}
	return sum.Sum64()
}

// A world is a run.
type world struct {
	Options
	rand   *rand.Rand
	now    time.Duration
	serial uint64
	queue  queue
	store  *store
	hubs   []*hub
	agents []*agent
	conns  []*conn
	texts  []*text
	h      *History
}

// A text is a document as it is written.
type text struct {
	name   string
	never  bool
	orphan string
	count  int
	spread bool
	site   string        // "": all agents
	places map[int64]int // by epoch
}

// Run simulates.
func Run(o Options) *History {
	w := &world{Options: o, rand: rand.New(rand.NewPCG(o.Seed, 1)), h: &History{Counts: map[Fault]int{}}}
	choose := func(n *int, lo, hi int) {
		if *n == 0 {
			*n = lo + w.rand.IntN(hi-lo+1)
		}
	}
	choose(&w.Hubs, 1, 4)
	choose(&w.Agents, 2, 24)
	choose(&w.Documents, 1, 6)
	choose(&w.Faults, 1, 12)
	if w.Length == 0 {
		w.Length = 2 * time.Minute
	}
	if w.Settle == 0 {
		w.Settle = 20 * time.Minute
	}
	w.begin()
	w.strike()
	w.until(w.Length)
	w.heal()
	for w.until(w.h.Healthy + calm); w.now < w.h.Healthy+w.Settle && w.now < w.store.moved+quiet; {
		w.until(w.now + quiet/10)
	}
	w.end()
	return w.h
}

const (
	calm  = 90 * time.Second // without faults, at least
	quiet = time.Minute      // without moves, at the end
)

// between returns a duration from lo up to hi: short ones are likelier.
func (w *world) between(lo, hi time.Duration) time.Duration {
	f := w.rand.Float64()
	return lo + time.Duration(f*f*float64(hi-lo))
}

// latency is how long a message is under way.
func (w *world) latency() time.Duration { return w.between(200*time.Microsecond, 60*time.Millisecond) }

func (w *world) chance(p float64) bool { return w.rand.Float64() < p }

// note adds to the history.
func (w *world) note(e Event) {
	e.At = w.now
	w.h.Events = append(w.h.Events, e)
}

// A moment is something that is to happen.
type moment struct {
	at     time.Duration
	serial uint64 // of two at a time, the one that was planned first comes first
	do     func()
}

type queue []moment

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].serial < q[j].serial
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(moment)) }
func (q *queue) Pop() any {
	last := len(*q) - 1
	x := (*q)[last]
	*q = slices.Delete(*q, last, last+1)
	return x
}

// after has something done.
func (w *world) after(d time.Duration, do func()) {
	w.serial++
	heap.Push(&w.queue, moment{w.now + max(d, 0), w.serial, do})
}

// until lets time go by.
func (w *world) until(end time.Duration) {
	for len(w.queue) > 0 && w.queue[0].at <= end {
		m := heap.Pop(&w.queue).(moment)
		w.now = m.at
		m.do()
	}
	w.now = end
}

// epoch is when simulations begin.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// A node is a process with a clock of its own.
type node struct {
	w      *world
	up     bool
	life   int // how often it was started: what an earlier life had set going does not happen
	paused int // by how many faults
	missed []late
	offset time.Duration // of its clock, which does not jump: durations are measured with it
	speed  int64         // how much too fast that is, in parts of a million
	jump   time.Duration // of its clock for the time of day
}

// newNode returns one that is not up.
func newNode(w *world) node {
	return node{w: w, offset: time.Duration(w.rand.Int64N(int64(time.Hour))), speed: w.rand.Int64N(20_001) - 10_000}
}

// clock returns the time by the clock that does not jump.
func (n *node) clock() time.Time {
	return epoch.Add(n.offset + n.w.now + n.w.now*time.Duration(n.speed)/1_000_000)
}

// after has something done in this life, by the node's clock.
func (n *node) after(d time.Duration, do func()) {
	life := n.life
	n.w.after(d*1_000_000/time.Duration(1_000_000+n.speed)+1, func() { n.get(life, do) })
}

// late is what came while a node was paused.
type late struct {
	do      func()
	ordered bool
}

// get does something now if it is for this life, or when the node goes on.
func (n *node) get(life int, do func()) { n.take(life, false, do) }

// take does so; what is ordered comes in the order in which it came.
func (n *node) take(life int, ordered bool, do func()) {
	switch {
	case !n.up || n.life != life:
	case n.paused > 0:
		n.missed = append(n.missed, late{func() { n.take(life, ordered, do) }, ordered})
	default:
		do()
	}
}

func (n *node) runs() bool { return n.up && n.paused == 0 }

func (n *node) begin() {
	n.up, n.missed = true, nil
	n.life++
}

func (n *node) kill() { n.up, n.missed = false, nil }

// goOn lets a paused node do what came meanwhile: what was sent in its order, timers and the rest a bit later in any.
func (n *node) goOn() {
	if n.paused--; n.paused > 0 || !n.up {
		return
	}
	missed := n.missed
	n.missed = nil
	for _, x := range missed {
		delay := time.Duration(0)
		if !x.ordered {
			delay = n.w.between(0, time.Millisecond)
		}
		n.w.after(delay, x.do)
	}
}
