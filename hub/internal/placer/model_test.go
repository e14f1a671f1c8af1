package placer

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/hub/internal/documents"
	"github.com/creelhq/creel/hub/internal/registry"
	"github.com/creelhq/creel/hub/internal/state"
	"github.com/creelhq/creel/metric"
)

// This file is a world of hubs and agents in which things go wrong, run against the Placer of exclusive documents.

const (
	tick  = 250 * time.Millisecond
	beat  = time.Second
	lease = 3 * beat                // an agent's, from when it has sent
	late  = lease * 11 / 10         // a hub's, from when it has heard
	ttl   = 2500 * time.Millisecond // of a hub's lease in the control state
)

// model is the world.
type model struct {
	t      *testing.T
	r      *rand.Rand
	now    time.Time
	writes int64
	placed map[string]documents.Owners // the control state
	at     map[string]int              // in the control state: which hub has an agent
	hubs   []*modelHub
	agents []*modelAgent
	leader int
	placer *Placer
	done   map[string]int
}

// modelHub is a hub: what it has heard of the control state, and what of its agents.
type modelHub struct {
	*model
	id       int
	view     map[string]documents.Owners
	fleet    map[string]int       // at, as it has heard of it
	saw      map[string]time.Time // when documents came to be as they are in view
	cut      time.Time            // since when it does not reach the control state; zero: it does
	sessions map[string]*session
}

type session struct {
	connected bool
	broke     time.Time
	heard     time.Time
	leased    time.Time
	offered   string
	remote    string
	runs      map[string]int64
	given     time.Time
	confirmed map[string]int64
}

// modelAgent is an agent, as package agent says that it behaves.
type modelAgent struct {
	id      string
	hub     int // -1: none
	dead    bool
	stopped bool // SIGSTOP
	held    bool // an operator has paused it
	leased  time.Time
	wanted  map[string]int64 // nil: no hub has said anything to this process
	runs    map[string]int64
	applies time.Time // when wanted runs
	spoke   time.Time
	inbox   []message
}

// message goes from hub to agent.
type message struct {
	at     time.Time
	offer  map[string]int64 // nil: none
	leased time.Time        // zero: none
}

func key(offer map[string]int64) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(offer)) {
		fmt.Fprintf(&b, "%s@%d ", name, offer[name])
	}
	return b.String() + "."
}

// offer is what a hub offers.
func (h *modelHub) offer(agent string) map[string]int64 {
	offer := make(map[string]int64)
	for name, owners := range h.view {
		for _, o := range owners.Owners {
			switch {
			case o.Agent == agent:
				offer[name] = o.Epoch
			case o.From == agent && o.Agent != "":
				offer[name] = o.FromEpoch
			}
		}
	}
	return offer
}

// Floating and the others are what the Placer sees of a hub.
func (h *modelHub) Floating() (list []documents.Floating, gone []string) {
	for _, name := range []string{"a", "b", "c"} {
		list = append(list, documents.Floating{
			Name: name, Version: 1, Count: 1, Exclusive: true, Owners: h.view[name], Revision: h.writes, Group: "all", Selects: func(map[string]string) bool { return true },
		})
	}
	return list, nil
}

func (h *modelHub) Runs(string, string) bool                        { return false }
func (h *modelHub) Failures() map[string][]documents.Failure        { return nil }
func (h *modelHub) Results() map[string][]documents.Done            { return nil }
func (h *modelHub) Costs() map[string]map[string]float64            { return nil }
func (h *modelHub) Cursors() map[string]map[string]documents.Cursor { return nil }
func (h *modelHub) Forget(context.Context, string) error            { panic("BUG: nothing is deleted") }
func (h *modelHub) Changed() <-chan struct{}                        { return nil }
func (h *modelHub) Altered() <-chan struct{}                        { return nil }

func (h *modelHub) Has(name, agent string) bool {
	s, offer := h.sessions[agent], h.offer(agent)
	if s == nil || !s.connected || !s.broke.IsZero() || !s.heard.After(h.saw[name]) || s.offered != "" && s.offered != key(offer) || s.remote != key(offer) {
		return true
	}
	_, offered := offer[name]
	_, runs := s.runs[name]
	return offered || runs
}

func (h *modelHub) Place(_ context.Context, name string, was, next documents.Owners) error {
	if !h.cut.IsZero() {
		return fmt.Errorf("the control state is away")
	}
	if !was.Equal(h.placed[name]) {
		h.done["conflicts"]++
		return state.ErrConflict
	}
	for _, o := range next.Owners {
		if o.Leaving() {
			h.done["left"]++
		}
	}
	h.writes++
	h.placed[name] = next
	return nil
}

func (h *modelHub) Candidates() (list []registry.Candidate) {
	for _, a := range h.model.agents {
		c := registry.Candidate{ID: a.id, Working: !a.held}
		at, there := h.fleet[a.id]
		if s := h.sessions[a.id]; s != nil && (at == h.id || !there) {
			c.There, c.Broke, c.Leased = s.connected, s.broke, s.leased
		} else {
			c.There = there
		}
		list = append(list, c)
	}
	return list
}

// Heard is later than anything: in this model a hub hears of sessions and of what is placed at once. Package simulation has it otherwise.
func (h *modelHub) Heard() int64 { return math.MaxInt64 }

// blind reports whether a hub has lost its lease: it gives none then.
func (h *modelHub) blind() bool { return !h.cut.IsZero() && h.now.Sub(h.cut) >= ttl }

// hears takes in a beat and answers.
func (h *modelHub) hears(a *modelAgent, sent time.Time) {
	s := h.sessions[a.id]
	if s == nil || !s.connected || !s.broke.IsZero() {
		s = &session{connected: true}
		h.sessions[a.id] = s
	}
	s.heard, s.runs = h.now, maps.Clone(a.runs)
	s.remote = "applying"
	if a.wanted == nil || key(a.runs) == key(a.wanted) {
		s.remote = key(a.runs)
	}
	if !h.blind() {
		h.at[a.id] = h.id
	}
	m := message{at: h.now.Add(h.slow())}
	offer, sure := h.offer(a.id), h.sure(a)
	if sure && key(offer) != s.remote && key(offer) != s.offered {
		m.offer, s.offered = offer, key(offer)
	}
	if sure && !h.blind() {
		m.leased, s.leased, s.given = sent.Add(lease), h.now.Add(late), h.now.Add(late)
	}
	a.inbox = append(a.inbox, m)
}

// sure confirms what is not known for sure to be an agent's.
func (h *modelHub) sure(a *modelAgent) bool {
	s, offer := h.sessions[a.id], h.offer(a.id)
	if h.now.After(s.given) {
		s.confirmed = nil
	}
	for name, epoch := range offer {
		if s.confirmed[name] == epoch {
			continue
		}
		next := h.view[name]
		if !h.cut.IsZero() || !next.Equal(h.placed[name]) || h.r.IntN(2) == 0 {
			return false
		}
		next.Owners = slices.Clone(next.Owners)
		next.Owners[0].Session++
		h.placed[name], h.view[name] = next, next
		h.writes++
		h.done["confirmed"]++
		if s.given.Before(h.now.Add(late)) {
			s.given = h.now.Add(late)
		}
		s.confirmed = maps.Clone(s.confirmed)
		if s.confirmed == nil {
			s.confirmed = make(map[string]int64)
		}
		s.confirmed[name] = epoch
	}
	return true
}

// tend ends sessions, and offers what is new.
func (h *modelHub) tend() {
	for _, a := range h.model.agents {
		s := h.sessions[a.id]
		if s == nil || !s.connected {
			continue
		}
		if h.now.Sub(s.heard) >= lease {
			s.connected = false
			if h.at[a.id] == h.id {
				delete(h.at, a.id)
			}
			continue
		}
		if offer := h.offer(a.id); s.broke.IsZero() && a.hub == h.id && key(offer) != s.offered && key(offer) != s.remote && h.sure(a) {
			s.offered = key(offer)
			a.inbox = append(a.inbox, message{at: h.now.Add(h.slow()), offer: offer})
		}
	}
}

// slow is how long something takes.
func (m *model) slow() time.Duration {
	return time.Duration(m.r.Int64N(int64(tick))) * []time.Duration{0, 1, 1, 8}[m.r.IntN(4)]
}

// live lets an agent do what it does.
func (m *model) live(a *modelAgent) {
	if a.dead || a.stopped {
		return
	}
	for len(a.inbox) > 0 && !a.inbox[0].at.After(m.now) {
		x := a.inbox[0]
		a.inbox = a.inbox[1:]
		if x.offer != nil {
			a.wanted, a.applies = x.offer, m.now.Add(m.slow())
		}
		if x.leased.After(a.leased) {
			a.leased = x.leased
		}
	}
	if a.wanted != nil && !m.now.Before(a.applies) {
		a.runs = maps.Clone(a.wanted)
	}
	if a.hub >= 0 && m.now.Sub(a.spoke) >= beat {
		a.spoke = m.now
		m.hubs[a.hub].hears(a, m.now.Add(-time.Duration(m.r.Int64N(int64(tick)))))
	}
}

// allows reports whether an agent works on a document, or would as soon as it wakes.
func (m *model) allows(a *modelAgent, name string) bool {
	epoch, runs := a.runs[name]
	if _, wanted := a.wanted[name]; a.dead || !runs || a.wanted != nil && !wanted {
		return false
	}
	return control.Tenure{Epoch: epoch, Exclusive: true}.Allows(a.leased, m.now)
}

// check is what must be true at any moment.
func (m *model) check() {
	for _, name := range []string{"a", "b", "c"} {
		var who []string
		for _, a := range m.agents {
			if m.allows(a, name) {
				who = append(who, fmt.Sprintf("%s in epoch %d, leased for %v", a.id, a.runs[name], a.leased.Sub(m.now)))
			}
		}
		if len(who) > 1 {
			m.t.Fatalf("after %v document %s may be worked on by %s; it is placed on %+v", m.now.Sub(begin), name, strings.Join(who, ", and by "), m.placed[name])
		}
	}
}

// lead makes a hub the leader.
func (m *model) lead(hub int) {
	h := m.hubs[hub]
	m.leader = hub
	m.placer = New(Options{Hub: fmt.Sprint(hub), Documents: h, Fleet: h, Log: slog.New(slog.DiscardHandler), Metrics: metric.NewSet(), Lease: func() time.Duration { return late }})
}

// begin is when it begins.
var begin = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// connect has an agent go to a hub, or to none.
func (m *model) connect(a *modelAgent, hub int) {
	if a.hub >= 0 {
		if s := m.hubs[a.hub].sessions[a.id]; s != nil && s.connected && m.r.IntN(2) == 0 {
			s.broke = m.now // else nobody notices
		}
	}
	a.hub, a.inbox, a.spoke = hub, nil, time.Time{}
	if hub >= 0 {
		m.hubs[hub].sessions[a.id] = nil
	}
}

// look has a hub hear of all that is in the control state.
func (h *modelHub) look() {
	if !h.cut.IsZero() {
		return
	}
	for name, o := range h.placed {
		if !o.Equal(h.view[name]) {
			h.view[name], h.saw[name] = o, h.now
		}
	}
}

// mishap is one of what goes wrong, or right again.
func (m *model) mishap() {
	a, h := m.agents[m.r.IntN(len(m.agents))], m.hubs[m.r.IntN(len(m.hubs))]
	for i := 0; i < 3 && len(a.runs) == 0; i++ { // rather to one that has something
		a = m.agents[m.r.IntN(len(m.agents))]
	}
	what := []string{"dies", "starts", "starts", "stopped", "wakes", "wakes", "held", "held in sleep", "held in sleep", "free", "free", "cut off", "moves", "moves", "another leader", "hub cut", "hub back", "hub back", "hub again"}[m.r.IntN(19)]
	m.done[what]++
	switch what {
	case "dies":
		a.dead, a.inbox, a.wanted, a.leased = true, nil, nil, time.Time{}
		m.connect(a, -1)
	case "starts":
		if a.dead {
			a.dead = false
			m.connect(a, h.id)
		}
	case "stopped", "wakes":
		a.stopped = what == "stopped"
	case "held in sleep":
		a.held, a.stopped = true, true
	case "held", "free":
		a.held = what == "held"
	case "cut off":
		m.connect(a, -1)
	case "moves":
		m.connect(a, h.id)
	case "another leader":
		if h.cut.IsZero() {
			m.lead(h.id)
		}
	case "hub cut":
		if h.cut.IsZero() {
			h.cut = m.now
		}
	case "hub back":
		h.cut = time.Time{}
		h.look()
	case "hub again": // it is killed and started
		h.sessions = make(map[string]*session)
		for _, a := range m.agents {
			h.sessions[a.id] = &session{broke: m.now, heard: m.now, connected: m.at[a.id] == h.id, leased: m.now.Add(late)}
			if a.hub == h.id {
				a.hub, a.inbox = -1, nil
			}
		}
		if m.leader == h.id {
			m.lead(h.id)
		}
	}
}

// pass lets a tick pass.
func (m *model) pass() {
	m.now = m.now.Add(tick)
	for _, i := range m.r.Perm(len(m.agents)) {
		m.live(m.agents[i])
		m.check()
	}
	for _, h := range m.hubs {
		if h.blind() {
			maps.DeleteFunc(m.at, func(_ string, at int) bool { return at == h.id })
		}
		if m.r.IntN(10) < 7 {
			h.look()
		}
		if h.cut.IsZero() && m.r.IntN(10) < 7 {
			h.fleet = maps.Clone(m.at)
		}
		h.tend()
		if h.id != m.leader {
			Tell(m.t.Context(), Options{Documents: h, Log: slog.New(slog.DiscardHandler)})
		}
	}
	if m.r.IntN(10) < 8 { // else it is paused
		m.placer.Step(m.t.Context(), m.now)
	}
	m.check()
}

// TestExclusive: whatever happens to agents and hubs, no two agents may work on an exclusive document at any moment; and when all
// is well again, one does.
func TestExclusive(t *testing.T) {
	seed, first := rand.Uint64(), uint64(0)    // SEED="seed round" does it again, ROUNDS does more
	if text := os.Getenv("SEED"); text != "" { // and the round
		if _, err := fmt.Sscan(text, &seed, &first); err != nil {
			t.Fatal(err)
		}
	}
	all, rounds := make(map[string]int), uint64(5)
	if text := os.Getenv("ROUNDS"); text != "" {
		rounds, _ = strconv.ParseUint(text, 10, 64)
	}
	for round := first; round < first+rounds; round++ {
		m := &model{t: t, r: rand.New(rand.NewPCG(seed, round)), now: begin, placed: make(map[string]documents.Owners), at: make(map[string]int), done: all}
		for i := range 3 {
			m.hubs = append(m.hubs, &modelHub{model: m, id: i, sessions: make(map[string]*session), view: make(map[string]documents.Owners), saw: make(map[string]time.Time)})
		}
		for i := range 5 {
			m.agents = append(m.agents, &modelAgent{id: fmt.Sprintf("agent-%d", i), hub: i % 3, runs: make(map[string]int64)})
		}
		m.lead(0)
		ok := t.Run("", func(t *testing.T) {
			m.t = t
			for range 1000 {
				if m.r.IntN(8) == 0 {
					m.mishap()
				}
				m.pass()
			}
			for _, h := range m.hubs {
				h.cut = time.Time{}
			}
			for _, a := range m.agents {
				a.stopped, a.held = false, false
				if a.dead || a.hub < 0 {
					a.dead = false
					m.connect(a, 0)
				}
			}
			idle := map[string]bool{"a": true, "b": true, "c": true}
			for range 240 {
				m.pass()
				maps.DeleteFunc(idle, func(name string, _ bool) bool {
					return slices.ContainsFunc(m.agents, func(a *modelAgent) bool { return m.allows(a, name) })
				})
			}
			for name := range idle {
				t.Errorf("for a minute after all is well again nobody works on document %s, which is placed on %+v", name, m.placed[name])
			}
		})
		for _, o := range m.placed {
			all["epochs"] += int(o.Epoch)
		}
		if !ok {
			t.Fatalf("round %d of seed %d", round, seed)
		}
	}
	t.Logf("seed %d: %v", seed, all)
	for _, what := range []string{"conflicts", "left", "another leader", "hub again", "hub cut", "dies", "stopped", "held", "epochs"} {
		if all[what] == 0 {
			t.Errorf("it has never come to %q", what)
		}
	}
}
