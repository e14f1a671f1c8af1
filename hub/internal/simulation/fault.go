package simulation

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/expr"
	"github.com/creelhq/creel/hub/internal/documents"
	"github.com/creelhq/creel/hub/internal/state"
)

// A Fault is a kind of thing that goes wrong, or that an operator does.
type Fault uint8

// The kinds of faults.
const (
	AgentKilled     Fault = iota // its host tells the hub
	AgentCrashed                 // with its host, which tells nobody
	AgentPaused                  // SIGSTOP
	AgentCut                     // from some hubs, one way or both
	AgentReset                   // its connection breaks
	AgentFlaps                   // it is killed, and started again, and so on
	AgentTwin                    // another one with its identity is started
	AgentHeld                    // an operator pauses it
	AgentMoved                   // its labels are others for a while
	AllLost                      // all agents, and then all are back
	HubKilled                    // and started again after a while; its host tells agents
	HubCrashed                   // with its host, which tells nobody
	HubPaused                    // SIGSTOP
	HubCut                       // from the control state
	HubLags                      // it hears late of changes in the control state, or has to list them anew
	HubJumps                     // its clock for the time of day jumps
	LeaderKilled                 // between two writes of a plan
	LeaderPaused                 // likewise
	LeaderDeposed                // another hub takes it to be silent, though it goes on
	StoreAway                    // for all hubs
	StoreCompacted               // so that who lags has to list anew
	AnswersLost                  // of the control state: it has done what it was asked, and the hub does not hear of it
	DocumentWritten              // on how many agents a document is to be changes
	faults

	Relisted = faults // is no fault, but what one is to lead to
)

// String returns what a message calls it.
func (f Fault) String() string {
	return [...]string{
		"agent killed", "agent crashed", "agent paused", "agent cut off", "connection reset", "agent flaps", "agent twice", "agent held", "labels changed", "all agents lost",
		"hub killed", "hub crashed", "hub paused", "hub cut off", "hub lags", "clock jumps", "leader killed", "leader paused", "leader deposed", "control state away", "control state compacted", "answers lost",
		"document written", "listed anew",
	}[f]
}

// A Strike is a fault that happened.
type Strike struct {
	Fault      Fault
	Hub, Agent int           // -1: none
	From, To   time.Duration // when the last of it was healed
}

// strike plans all faults.
func (w *world) strike() {
	kinds := w.Only
	if kinds == nil {
		for k := range faults {
			kinds = append(kinds, k)
		}
	}
	for range w.Faults {
		kind := kinds[w.rand.IntN(len(kinds))]
		at := 20*time.Second + time.Duration(w.rand.Int64N(int64(w.Length-20*time.Second)))
		long := w.between(200*time.Millisecond, 60*time.Second)
		w.after(at, func() { w.happen(kind, long) })
	}
}

// happen strikes one.
func (w *world) happen(kind Fault, long time.Duration) {
	a, h := w.agents[w.rand.IntN(len(w.agents))], w.hubs[w.rand.IntN(len(w.hubs))]
	s := Strike{Fault: kind, Hub: -1, Agent: -1, From: w.now, To: w.now}
	switch {
	case kind == LeaderKilled || kind == LeaderPaused:
		for _, x := range w.hubs {
			if x.term != nil && x.runs() {
				h = x
			}
		}
		s.Hub = h.index
	case kind >= HubKilled && kind <= HubJumps || kind == AnswersLost:
		s.Hub = h.index
	case kind <= AgentMoved:
		s.Agent = a.index
	}
	w.h.Counts[kind]++
	w.h.Strikes = append(w.h.Strikes, s)
	n := len(w.h.Strikes) - 1
	w.note(Event{Kind: Struck, Fault: kind, Hub: s.Hub, Agent: s.Agent, Document: -1})
	end := func(after time.Duration, do func()) {
		w.h.Strikes[n].To = max(w.h.Strikes[n].To, w.now+after)
		w.after(after, func() {
			do()
			w.h.Strikes[n].To = max(w.h.Strikes[n].To, w.now)
			w.h.Healthy = max(w.h.Healthy, w.now)
			w.note(Event{Kind: Healed, Fault: kind, Hub: s.Hub, Agent: s.Agent, Document: -1})
		})
	}
	switch kind {
	case AgentKilled, AgentCrashed:
		a.stop(kind == AgentKilled)
		end(long, a.restart)
	case AgentPaused:
		a.pause()
		end(long, a.resume)
	case AgentCut:
		w.cutAgent(a, long, end)
	case AgentReset:
		if c := a.conn; c != nil && a.up {
			c.close(true)
			a.get(a.life, func() { a.left(c) })
		}
		end(0, func() {})
	case AgentFlaps:
		d := time.Duration(0)
		for range 2 + w.rand.IntN(8) {
			w.after(d, func() { a.stop(true) })
			d += w.between(50*time.Millisecond, 3*time.Second)
			end(d, a.restart)
			d += w.between(50*time.Millisecond, 4*time.Second)
		}
	case AgentTwin:
		twin := w.newAgent(a.id, a.labels)
		w.agents = append(w.agents, twin)
		twin.start()
		end(long, func() { twin.stop(true) })
	case AgentHeld:
		a.holds = true
		a.told()
		end(long, func() { a.holds = false; a.told() })
	case AgentMoved:
		was := a.labels
		a.labels = map[string]string{"site": "moon", "rack": was["rack"]}
		a.told()
		end(long, func() { a.labels = was; a.told() })
	case AllLost:
		w.allLost(long, end)
	case HubKilled, HubCrashed:
		h.stop(kind == HubKilled)
		end(long, h.restart)
	case HubPaused:
		h.paused++
		end(long, h.goOn)
	case HubCut:
		h.cut++
		end(long, func() { h.cut-- })
	case HubLags:
		h.lags++
		end(long, func() { h.lags-- })
	case HubJumps:
		h.jump += time.Duration(w.rand.Int64N(int64(2*time.Hour))) - time.Hour
		end(0, func() {})
	case LeaderKilled:
		h.mean = func() { h.stop(true); end(long, h.restart) }
		end(long, func() { h.mean = nil })
	case LeaderPaused:
		h.mean = func() { h.paused++; end(long, h.goOn) }
		end(long, func() { h.mean = nil })
	case LeaderDeposed:
		if now, there := w.store.entries[leaderKey]; there && w.store.away == 0 {
			_ = w.store.delete(leaderKey, state.Unchanged(now.Revision))
		}
		end(0, func() {})
	case StoreAway:
		w.store.away++
		end(long, func() {
			if w.store.away--; w.store.away == 0 {
				w.store.back()
			}
		})
	case StoreCompacted:
		w.store.compact()
		end(0, func() {})
	case AnswersLost:
		h.loses++
		end(long, func() { h.loses-- })
	case DocumentWritten:
		w.rewrite(w.texts[w.rand.IntN(len(w.texts))])
		end(0, func() {})
	}
}

// cutAgent cuts an agent from some hubs.
func (w *world) cutAgent(a *agent, long time.Duration, end func(time.Duration, func())) {
	up, down := true, true
	switch w.rand.IntN(4) {
	case 0:
		up = false
	case 1:
		down = false
	}
	all := w.chance(0.6)
	for i := range a.cut {
		if !all && w.chance(0.5) {
			continue
		}
		cut := func(by int) {
			if up {
				a.cut[i].up += by
			}
			if down {
				a.cut[i].down += by
			}
		}
		cut(1)
		end(long, func() {
			cut(-1)
			for _, c := range slices.Clone(w.conns) {
				if c.a == a {
					c.healed()
				}
			}
		})
	}
}

// allLost takes all agents away: they are cut off, crash, or are paused.
func (w *world) allLost(long time.Duration, end func(time.Duration, func())) {
	how := w.rand.IntN(3)
	for _, a := range slices.Clone(w.agents) {
		switch how {
		case 0:
			for i := range a.cut {
				a.cut[i].up++
				a.cut[i].down++
			}
			end(long, func() {
				for i := range a.cut {
					a.cut[i].up--
					a.cut[i].down--
				}
				for _, c := range slices.Clone(w.conns) {
					if c.a == a {
						c.healed()
					}
				}
			})
		case 1:
			a.stop(false)
			end(long, a.restart)
		default:
			a.pause()
			end(long, a.resume)
		}
	}
}

// restart starts an agent that is not up, unless it is only a twin.
func (a *agent) restart() {
	if !a.up && !a.twin() {
		a.start()
	}
}

// twin reports whether it has another one's identity.
func (a *agent) twin() bool { return a.w.agent(a.id) != a.index }

// told has the hub told of what has changed.
func (a *agent) told() { a.refresh(); a.get(a.life, a.speak) }

func (h *hub) restart() {
	if !h.up {
		h.start()
	}
}

// heal ends what goes on. Faults end by themselves.
func (w *world) heal() {
	for _, s := range w.h.Strikes {
		w.h.Healthy = max(w.h.Healthy, s.To)
	}
	w.h.Healthy = max(w.h.Healthy, w.now)
}

// begin makes the world.
func (w *world) begin() {
	w.store = &store{w: w, entries: map[string]held{}, owners: map[string]documents.Owners{}}
	for i := range w.Documents {
		t := &text{
			name: fmt.Sprintf("document-%02d", i), never: w.chance(0.5), count: 1 + w.rand.IntN(max(min(w.Agents, 4), 1)), spread: w.chance(0.3),
			places: map[int64]int{},
		}
		switch w.Overlap {
		case "allow", "keep":
			t.never = false
		case "never":
			t.never = true
		}
		if w.chance(0.4) {
			t.site = string("ab"[w.rand.IntN(2)])
		}
		if !t.never {
			t.orphan = []string{"", "stop", "20s"}[w.rand.IntN(3)]
			if w.Overlap == "keep" {
				t.orphan = ""
			}
		}
		w.texts = append(w.texts, t)
		able := w.Agents
		if t.site != "" {
			able = (w.Agents + 1 - strings.Index("ab", t.site)) / 2
		}
		w.h.Never, w.h.Able, w.h.Most = append(w.h.Never, t.never), append(w.h.Able, able), append(w.h.Most, 0)
	}
	for i := range w.Hubs {
		h := &hub{node: newNode(w), index: i, id: fmt.Sprintf("hub-%d", i)}
		w.hubs = append(w.hubs, h)
	}
	for i := range w.Agents {
		id := fmt.Sprintf("agent-%04d", i)
		w.agents = append(w.agents, w.newAgent(id, map[string]string{"site": string("ab"[i%2]), "rack": fmt.Sprint(i % 3)}))
	}
	for _, h := range w.hubs {
		h.start()
	}
	for _, t := range w.texts {
		w.write(t)
	}
	for _, a := range w.agents {
		w.after(w.between(0, 3*time.Second), a.start)
	}
}

func (w *world) newAgent(id string, labels map[string]string) *agent {
	return &agent{
		node: newNode(w), index: len(w.agents), id: id, labels: labels, last: -1, cut: make([]struct{ up, down int }, w.Hubs),
		docs: map[string]control.OfferedDocument{},
	}
}

// write writes a document, by the first hub that can.
func (w *world) write(t *text) bool {
	var b strings.Builder
	fmt.Fprintf(&b, "document: %s\nplace: %d\n", t.name, t.count)
	if t.site != "" {
		fmt.Fprintf(&b, "selector: site == %q\n", t.site)
	}
	if t.spread {
		b.WriteString("spread: rack\n")
	}
	if t.never {
		b.WriteString("overlap: never\n")
	}
	if t.orphan != "" {
		fmt.Fprintf(&b, "orphan: %s\n", t.orphan)
	}
	fmt.Fprintf(&b, "exporters: {debug/%s: {}}\n", t.name)
	for _, h := range w.hubs {
		if h.runs() && h.cut == 0 && w.store.away == 0 {
			if _, err := h.docs.Apply(context.Background(), "simulation", expr.Selector{}, api.DocumentChange{Text: b.String()}); err != nil {
				panic("BUG: " + err.Error() + "\n" + b.String())
			}
			d := w.document(t.name)
			w.h.Most[d] = max(w.h.Most[d], t.count)
			w.note(Event{Kind: Written, Hub: h.index, Agent: -1, Document: d, Place: t.count})
			return true
		}
	}
	return false
}

// rewrite has a document on more or fewer agents.
func (w *world) rewrite(t *text) {
	was := t.count
	t.count = 1 + w.rand.IntN(max(min(w.Agents, 4), 1))
	if !w.write(t) {
		t.count = was
	}
}

// end looks at what there is at the end, and ends all.
func (w *world) end() {
	w.h.Options = w.Options
	w.h.End = w.now
	for _, a := range w.agents {
		w.h.IDs = append(w.h.IDs, a.id)
	}
	for d, t := range w.texts {
		w.h.Places = append(w.h.Places, t.count)
		for i := range t.count {
			f := Final{Document: d, Place: i, Owner: -1}
			if o := w.store.owners[t.name].Owners; i < len(o) {
				f.Owner = w.agent(o[i].Agent)
			}
			for _, a := range w.agents {
				if e, ok := a.works[t.name]; ok && a.up && e.Place == i {
					f.Workers = append(f.Workers, a.index)
				}
				if a.runs() && !a.twin() && (t.site == "" || a.labels["site"] == t.site) {
					f.Able++
				}
			}
			w.h.Final = append(w.h.Final, f)
		}
	}
	for _, h := range w.hubs {
		h.stop(false)
	}
}
