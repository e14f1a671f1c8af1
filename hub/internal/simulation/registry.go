package simulation

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/hub/internal/documents"
	"github.com/creelhq/creel/hub/internal/registry"
	"github.com/creelhq/creel/hub/internal/state"
	"github.com/creelhq/creel/report"
)

// This file is what package registry does with agents. A session is an agent's connection, in the control state under the hub's
// lease: who connects last has it.

// A member is what a hub knows of an agent, as package registry has it.
type member struct {
	id         string
	labels     map[string]string // nil: it has not said
	working    bool
	selectable map[string]string // its labels as selectors see them
	connected  bool              // as far as is known, somewhere
	mine       bool              // this hub is the agent's, or was the last
	held       bool              // connected here, or was and is not given up
	conn       *conn
	broke      time.Time
	seen       time.Time
	timer      int       // what an earlier one was set for does not happen
	leased     time.Time // until when it may have a lease, at most

	unsure  bool // it has connected here since its session was written
	session session
	claim   *lease // under which this hub has written the session

	given      time.Time        // until when a lease lasts that it was given in this connection
	confirmed  map[string]int64 // exclusive documents that it has for sure until then
	confirming *int             // that is being found out; names the attempt
	said       time.Time        // when it said something last
	placed     string           // the hash of what it is to run, as it was seen last,
	placedAt   time.Time        // and when it came to be that

	asked   time.Time
	keeping bool // a write is under way
	owed    bool // the session is to be written
	look    bool // it is another than this hub has heard

	told    bool // it has said who it is, in this connection
	runs    []report.Document
	remote  control.RemoteStatus // of the offer that it was given last
	offered string
	offerAt time.Time
}

// presence is the value of sessions/<agent>.
type presence struct {
	Hub   string `json:"hub"`
	Broke bool   `json:"broke"`
}

// A session is the last of an agent that a hub has heard of.
type session struct {
	presence
	revision int64 // 0: there is none
	heard    int64
}

// record is the value of agents/<agent>.
type record struct {
	Hub       string            `json:"hub"`
	Labels    map[string]string `json:"labels"`
	Working   bool              `json:"working"`
	Connected bool              `json:"connected"`
}

func (h *hub) member(id string) *member {
	m := h.fleet[id]
	if m == nil {
		m = &member{id: id, working: true}
		h.fleet[id] = m
		i, _ := slices.BinarySearch(h.ids, id)
		h.ids = slices.Insert(h.ids, i, id)
	}
	return m
}

// recorded takes in what is kept of an agent.
func (h *hub) recorded(e state.Entry) {
	m := h.member(strings.TrimPrefix(e.Key, agentsPrefix))
	if m.held {
		return
	}
	var r record
	if err := json.Unmarshal(e.Value, &r); err != nil {
		panic("BUG: " + err.Error())
	}
	m.labelled(r.Labels)
	m.working = r.Working
	if m.session.revision < e.Revision { // else the record is older than what is known of the session
		m.connected = r.Connected
	}
	h.heard()
}

// record has it written what this hub knows of an agent, unless it is another's by now.
func (h *hub) record(m *member, connected bool) {
	r := record{h.id, m.labels, m.working, connected}
	h.ask(func() error {
		s, key := h.w.store, agentsPrefix+m.id
		var p presence
		if e, there := s.entries[sessionsPrefix+m.id]; there {
			if err := json.Unmarshal(e.Value, &p); err != nil {
				panic("BUG: " + err.Error())
			}
			switch {
			case p.Hub != h.id:
				return nil
			case !connected: // that goes first
				return state.ErrConflict
			}
		}
		if value := encode(r); string(s.entries[key].Value) != string(value) {
			_, err := s.put(key, value, nil, state.Always())
			return err
		}
		return nil
	}, func(err error) {
		if err != nil && m.mine == (r.Hub == h.id) && m.connected == connected {
			h.after(100*time.Millisecond, func() { h.record(m, m.connected) })
		}
	})
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return b
}

// took takes in at which hub an agent is.
func (h *hub) took(e state.Entry) {
	m := h.member(strings.TrimPrefix(e.Key, sessionsPrefix))
	if e.Revision <= m.session.heard {
		return
	}
	m.session = session{heard: e.Revision}
	if e.Value != nil {
		m.session.revision = e.Revision
		if err := json.Unmarshal(e.Value, &m.session.presence); err != nil {
			panic("BUG: " + err.Error())
		}
	}
	switch {
	case m.unsure:
	case e.Value == nil && !m.mine && m.connected:
		h.vanished(m)
	case e.Value != nil && m.session.Hub != h.id:
		h.moved(m)
	case e.Value == nil && m.held:
		h.save(m)
	}
	h.heard()
}

// sessions takes in where all agents are.
func (h *hub) sessions(list []state.Entry, revision int64) {
	is := map[string]bool{}
	for _, e := range list {
		is[e.Key] = true
		h.took(e)
	}
	for _, id := range h.ids {
		if key := sessionsPrefix + id; !is[key] {
			h.took(state.Entry{Key: key, Revision: revision})
		}
	}
	h.upto = revision
}

// Heard is as the registry has it.
func (h *hub) Heard() int64 { return h.upto }

// moved takes note that an agent is at another hub.
func (h *hub) moved(m *member) {
	if c := m.conn; c != nil {
		m.conn = nil
		c.close(false)
	}
	m.mine, m.held, m.connected = false, false, true
	m.timer++
	switch {
	case !m.session.Broke:
		m.broke = time.Time{}
	case m.broke.IsZero():
		m.broke = h.clock()
	}
	h.mayHaveLease(m)
}

// vanished takes note that an agent's hub is gone, or has lost the control state: it has time to come to another.
func (h *hub) vanished(m *member) {
	h.mayHaveLease(m)
	h.later(m, missed*heartbeat, func() {
		if m.connected && !m.mine && m.session.revision == 0 {
			h.record(m, false)
		}
	})
}

// later does something unless the agent's timer is set anew.
func (h *hub) later(m *member, d time.Duration, do func()) {
	m.timer++
	timer := m.timer
	h.after(d, func() {
		if m.timer == timer {
			do()
		}
	})
}

// mayHaveLease notes that the agent may have got a lease just now. Clocks do not run alike: a tenth more.
func (h *hub) mayHaveLease(m *member) {
	if until := h.clock().Add(longest); until.After(m.leased) {
		m.leased = until
	}
}

// grants reports whether the hub may give an agent a lease: the others know that it is here, what it has that no two may have is
// surely its own, and the hub has a lease itself.
func (h *hub) grants(m *member) bool {
	if !h.here(m) || !h.sure(m, h.placement(m)) {
		return false
	}
	return h.w.Wrong == GrantsForEver || m.claim == h.lease && h.lease != nil && (h.w.Wrong == LateLoss || h.clock().Before(h.kept.Add(state.LeaseTTL)))
}

// save has an agent's session written.
func (h *hub) save(m *member) {
	if m.owed = true; !m.keeping {
		m.keeping = true
		h.after(0, func() { h.keepSession(m, 0) })
	}
}

// keepSession makes an agent's session what it is to be.
func (h *hub) keepSession(m *member, tries int) {
	key, s := sessionsPrefix+m.id, h.w.store
	if m.look {
		var e state.Entry
		h.ask(func() error { e = s.entries[key].Entry; return nil }, func(err error) {
			if err != nil {
				h.after(time.Second, func() { h.keepSession(m, 0) })
				return
			}
			m.look = false
			if e.Revision == 0 {
				m.session.presence, m.session.revision = presence{}, 0
			} else {
				h.took(e)
			}
			h.keepSession(m, tries)
		})
		return
	}
	c := state.Unchanged(m.session.revision)
	if m.held && m.unsure && m.broke.IsZero() {
		c = state.Always()
	}
	if m.owed && m.mine && !c.Any && m.session.revision > 0 && m.session.Hub != h.id {
		m.unsure = false
		h.moved(m)
	}
	if !m.owed || !m.mine || !m.held && m.session.revision == 0 {
		m.owed, m.keeping = false, false
		return
	}
	m.owed = false
	held, p, was := m.held, presence{h.id, !m.broke.IsZero()}, m.conn
	h.leased(func(l *lease, err error) {
		if err != nil || l == nil {
			m.owed = true
			h.after(time.Second, func() { h.keepSession(m, 0) })
			return
		}
		var revision int64
		h.ask(func() (err error) {
			if held {
				revision, err = s.put(key, encode(p), l, c)
				return err
			}
			return s.delete(key, c)
		}, func(err error) {
			pause := time.Duration(0)
			switch {
			case err == state.ErrConflict:
				if m.owed, m.look = true, true; tries > 8 {
					pause = time.Second
				}
			case err != nil:
				m.owed, pause = true, time.Second
			case held:
				if m.conn == was || m.conn == nil {
					m.unsure = false
				}
				h.claimed(m, p, revision, l, !c.Any && c.Revision > 0)
			default:
				m.session.revision = 0
			}
			h.after(pause, func() { h.keepSession(m, tries+1) })
		})
	})
}

// claimed notes that the session is written, over this hub's own or not, and gives the lease that has waited for that.
func (h *hub) claimed(m *member, p presence, revision int64, l *lease, over bool) {
	if !over || m.claim != l {
		m.confirmed, m.confirming = nil, nil
	}
	m.claim = l
	switch {
	case m.session.heard < revision:
		m.session = session{p, revision, revision}
	case m.session.heard > revision && !m.unsure && m.session.revision > 0 && m.session.Hub != h.id:
		h.moved(m)
		return
	}
	if m.told {
		h.record(m, true)
	}
	if h.sure(m, h.placement(m)) && m.conn != nil && !m.asked.IsZero() {
		h.answer(m)
	}
}

// here reports whether it is in the control state that an agent is at this hub.
func (h *hub) here(m *member) bool {
	return m.held && !m.unsure && m.session.revision > 0 && m.session.Hub == h.id
}

// sure reports whether what p has that no two agents may do is this one's, and has that found out if it is not known.
func (h *hub) sure(m *member, p *documents.Placement) bool {
	if h.w.Wrong == LeasesBlind {
		return true
	}
	if len(p.Exclusive) > 0 && (!h.here(m) || !m.broke.IsZero()) {
		return false
	}
	if h.clock().After(m.given) {
		m.confirmed = nil
	}
	for name, epoch := range p.Exclusive {
		if m.confirmed[name] != epoch {
			if m.confirming == nil {
				h.confirm(m, p.Exclusive)
			}
			return false
		}
	}
	return true
}

// confirm finds out whether an agent still has documents.
func (h *hub) confirm(m *member, epochs map[string]int64) {
	attempt, until, session := new(int), h.clock().Add(longest), m.session.revision
	m.confirming = attempt
	var err error
	h.run(func() {
		for _, name := range slices.Sorted(maps.Keys(epochs)) { // as Confirm does, but always in the same order
			if err = h.docs.Confirm(context.Background(), m.id, session, map[string]int64{name: epochs[name]}); err != nil {
				return
			}
		}
	}, func() {
		if m.confirming != attempt {
			return
		}
		if m.confirming = nil; err == nil {
			if m.confirmed, m.given = epochs, until; m.conn != nil && !m.asked.IsZero() {
				h.answer(m)
			}
			h.tell(m)
		}
	})
}

// connect takes in a connection.
func (h *hub) connect(c *conn) {
	m := h.member(c.a.id)
	if old := m.conn; old != nil {
		m.conn = nil
		old.close(false)
	}
	m.timer++
	m.conn, m.broke, m.mine, m.held, m.connected, m.unsure = c, time.Time{}, true, true, true, true
	m.seen, m.remote, m.offered, m.asked, m.told, m.runs = h.clock(), control.RemoteStatus{}, "", time.Time{}, false, nil
	m.given, m.confirmed, m.confirming, m.said = time.Time{}, nil, nil, time.Time{}
	h.save(m)
	h.patience(c)
	h.heard()
}

// patience ends a connection that nothing comes from.
func (h *hub) patience(c *conn) {
	c.beats++
	beats, m := c.beats, h.fleet[c.a.id]
	h.after(missed*heartbeat, func() {
		if m.conn == c && c.beats == beats {
			c.close(false)
			h.left(c)
		}
	})
}

// left notes that a connection is over.
func (h *hub) left(c *conn) {
	m := h.fleet[c.a.id]
	if m == nil || m.conn != c {
		return
	}
	m.conn, m.broke = nil, h.clock()
	h.save(m)
	h.given(m, max(m.seen.Add(missed*heartbeat).Sub(h.clock()), 0))
	h.heard()
}

// given gives an agent up after a while.
func (h *hub) given(m *member, after time.Duration) {
	h.later(m, after, func() {
		if m.conn == nil && m.mine {
			m.held, m.connected = false, false
			h.save(m)
			h.record(m, false)
			h.heard()
		}
	})
}

// A beat is what an agent says.
type beat struct {
	sent    time.Time
	labels  map[string]string
	working bool
	runs    []report.Document
	remote  control.RemoteStatus
}

// hear takes in a beat, and answers it.
func (h *hub) hear(c *conn, b beat) {
	m := h.fleet[c.a.id]
	if m == nil || m.conn != c {
		return
	}
	m.seen, m.said, m.asked = h.clock(), h.clock(), b.sent
	h.patience(c)
	if m.labels == nil || !maps.Equal(m.labels, b.labels) || m.working != b.working || !m.told {
		m.labelled(b.labels)
		m.working, m.told = b.working, true
		h.record(m, true)
		h.heard()
	}
	if m.remote != b.remote || !slices.Equal(m.runs, b.runs) {
		m.runs, m.remote = b.runs, b.remote
		h.heard()
	}
	h.answer(m)
}

// answer answers the last beat, with a lease if there may be one. What is to be offered goes first: what the agent has from earlier
// may be another's by now.
func (h *hub) answer(m *member) {
	h.tell(m)
	c, sent, expires := m.conn, m.asked, time.Duration(0)
	if h.grants(m) {
		h.mayHaveLease(m)
		m.given = h.clock().Add(longest)
		expires, m.asked = missed*heartbeat, time.Time{}
	}
	c.down(func() { c.a.leased(c, sent, expires) })
}

// labelled takes in an agent's labels, as selectors see them.
func (m *member) labelled(labels map[string]string) {
	m.labels, m.selectable = labels, maps.Clone(labels)
	m.selectable[documents.AgentLabel] = m.id
}

// placement returns what an agent is to run.
func (h *hub) placement(m *member) *documents.Placement {
	p := h.docs.Current().For(m.selectable)
	if p.Hash != m.placed {
		m.placed, m.placedAt = p.Hash, h.clock()
	}
	return p
}

// tell offers an agent what it is to run.
func (h *hub) tell(m *member) {
	if m.conn == nil || !m.told {
		return
	}
	p := h.placement(m)
	switch {
	case p.Conflict != "":
		panic("BUG: " + p.Conflict)
	case p.Hash == m.remote.Hash, len(p.Offer.Documents) == 0 && m.remote.Hash == "" && m.offered == "":
		return
	case p.Hash == m.offered && h.clock().Sub(m.offerAt) < offerAgain:
		return
	case !h.sure(m, p):
		return
	}
	m.offered, m.offerAt = p.Hash, h.clock()
	c, offer := m.conn, p.Offer
	c.down(func() { c.a.offered(c, offer) })
}

// applied takes in a change of documents, which they have taken in.
func (h *hub) applied(e state.Entry) {
	if name, ok := strings.CutPrefix(e.Key, placementsPrefix); ok {
		o := ownersOf(e.Value)
		h.w.note(Event{Kind: Applied, Hub: h.index, Agent: -1, Document: h.w.document(name), Owners: &o})
	}
	h.heard()
	if h.news {
		return
	}
	h.news = true
	h.after(h.w.between(0, 5*time.Millisecond), func() {
		h.news = false
		for _, id := range h.ids {
			h.tell(h.fleet[id])
		}
	})
}

// documented returns the agents as documents asks for them.
func (h *hub) documented() (list []documents.Agent) {
	for _, id := range h.ids {
		m := h.fleet[id]
		x := documents.Agent{ID: id, Name: id, Connected: m.connected, Placement: &documents.Placement{}}
		if m.mine && m.labels != nil {
			x.Labels, x.Documents = m.selectable, m.runs
			x.Placement = h.placement(m)
			x.Remote = m.remote
			x.Settled = x.Connected && m.broke.IsZero() && m.settled(x.Placement)
		}
		list = append(list, x)
	}
	return list
}

// settled reports whether an agent has said that it runs what p offers, and nothing else was offered to it since.
func (m *member) settled(p *documents.Placement) bool {
	switch {
	case !m.told || m.offered != "" && m.offered != p.Hash || !m.said.After(m.placedAt):
		return false
	case m.remote.Hash == "":
		return m.offered == "" && len(p.Offer.Documents) == 0
	}
	return m.remote.Hash == p.Hash && m.remote.Status == control.Applied
}

// Candidates returns the agents as the placer asks for them.
func (h *hub) Candidates() (list []registry.Candidate) {
	for _, id := range h.ids {
		m := h.fleet[id]
		if m.labels == nil {
			continue
		}
		c := registry.Candidate{ID: id, Name: id, Labels: m.selectable, There: m.connected, Working: m.working}
		if m.connected {
			c.Broke = m.broke
		}
		if !m.mine && m.session.revision > 0 && m.broke.IsZero() {
			h.mayHaveLease(m)
		}
		if c.Leased = m.leased; h.w.Wrong == NoWait {
			c.There, c.Leased = c.There && (c.Broke.IsZero() || h.clock().Sub(c.Broke) < time.Second), time.Time{}
		}
		list = append(list, c)
	}
	return list
}

// Changed is not asked for: the simulation decides when the placer looks.
func (h *hub) Altered() <-chan struct{} { return nil }
