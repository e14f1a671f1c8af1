package simulation

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"time"

	"github.com/creelhq/creel/hub/internal/documents"
	"github.com/creelhq/creel/hub/internal/placer"
	"github.com/creelhq/creel/hub/internal/state"
	"github.com/creelhq/creel/metric"
)

const (
	heartbeat      = 5 * time.Second
	missed         = 3
	longest        = missed * heartbeat * 11 / 10 // that an agent may believe that it has a lease
	rest           = 100 * time.Millisecond       // as package placer has it
	leaderKey      = "leader"
	agentsPrefix   = "agents/"
	sessionsPrefix = "sessions/"
	offerAgain     = 30 * time.Second
	tellEvery      = time.Second // as package placer has it
	look           = 5 * time.Second
)

// A hub is one process of a hub.
type hub struct {
	node
	index int
	id    string
	cut   int // from the control state, by how many faults
	lags  int // likewise, and the other way round: changes come late
	loses int // likewise: answers of the control state get lost

	client  *client
	docs    *documents.Store
	streams []*stream
	fleet   map[string]*member
	ids     []string // of fleet, in order
	upto    int64    // the revision up to which all sessions were heard of

	lease *lease
	kept  time.Time // when the hub asked last for what the control state has granted

	term    *term
	halts   map[int]func() // end what is being done, by its number
	serial  int
	news    bool   // agents are about to be told of it
	tells   bool   // it will tell what agents say
	telling bool   // it does
	mean    func() // what happens to a leader with its next write; nil: nothing
}

// A term is the time for which a hub leads, as it believes.
type term struct {
	revision int64
	placer   *placer.Placer
	ctx      context.Context
	end      context.CancelFunc
	looking  bool
	again    bool          // something has changed since it began to look
	last     time.Duration // when the last look ended
	serial   int           // of the look that is planned
}

func (h *hub) start() {
	h.node.begin()
	h.client = &client{h: h, ready: make(chan *watch)}
	h.streams, h.fleet, h.lease, h.term, h.mean, h.tells, h.telling, h.halts = nil, map[string]*member{}, nil, nil, nil, false, false, map[int]func(){}
	h.ids, h.news = nil, false
	d, err := documents.Open(context.Background(), documents.Options{Store: h.client, Agents: h.documented})
	if err != nil {
		panic("BUG: " + err.Error())
	}
	h.docs = d
	h.client.follow()
	s := h.w.store
	for _, e := range s.list(placementsPrefix) {
		h.applied(e)
	}
	for _, st := range []*stream{
		{prefix: agentsPrefix, one: h.recorded, all: func(list []state.Entry, _ int64) {
			for _, e := range list {
				h.recorded(e)
			}
		}},
		{prefix: sessionsPrefix, one: func(e state.Entry) { h.took(e); h.upto = e.Revision }, all: h.sessions},
		{prefix: leaderKey, one: h.led, all: func(list []state.Entry, revision int64) {
			if len(list) == 0 {
				list = []state.Entry{{Key: leaderKey, Revision: revision}}
			}
			h.led(list[0])
		}},
	} {
		if st.after = s.revision; st.prefix != leaderKey {
			st.all(s.list(st.prefix), s.revision)
		}
		h.streams = append(h.streams, st)
	}
	for _, id := range h.ids { // who was here has three heartbeats to come back
		switch m := h.fleet[id]; {
		case !m.connected && m.session.revision == 0:
		case m.session.revision > 0 && m.session.Hub == h.id:
			m.connected, m.mine, m.seen = true, true, h.clock()
			h.mayHaveLease(m)
			h.given(m, missed*heartbeat)
		case m.session.revision == 0:
			h.vanished(m)
		}
	}
	h.stand()
	h.keep()
	h.tellNow()
}

// stop ends the process; what it was about to do does not happen. If its host goes on, that says so to agents.
func (h *hub) stop(host bool) {
	if !h.up {
		return
	}
	for _, c := range slices.Clone(h.w.conns) {
		if c.h == h && c.hubLife == h.life && host {
			c.close(false)
		}
	}
	h.resign()
	h.client.dead = true
	for _, halt := range h.halts {
		halt()
	}
	h.docs.Close()
	h.node.kill()
}

// ask has something done by the control state, and then tells how that went.
func (h *hub) ask(do func() error, then func(error)) {
	life := h.life
	h.w.after(h.w.latency(), func() {
		if h.cut > 0 || h.w.store.away > 0 {
			h.after(h.w.between(time.Second, 5*time.Second), func() { then(errAway) })
			return
		}
		err := do()
		h.w.after(h.w.latency(), func() {
			if h.cut > 0 || h.loses > 0 && h.w.chance(0.5) {
				h.w.h.Counts[AnswersLost] += min(h.loses, 1)
				h.after(h.w.between(time.Second, 5*time.Second), func() { then(errAway) })
				return
			}
			h.get(life, func() { then(err) })
		})
	})
}

// keep keeps the hub's lease.
func (h *hub) keep() {
	l, sent := h.lease, h.clock()
	if l != nil {
		h.ask(func() error {
			if l.over {
				return state.ErrNotFound
			}
			l.ends = h.w.now + state.LeaseTTL
			return nil
		}, func(err error) {
			switch {
			case h.lease != l:
			case err == nil:
				if h.kept = sent; h.w.Wrong == LateLoss {
					h.kept = h.clock()
				}
				h.watchLease()
			case err != errAway:
				h.lose()
			}
		})
	}
	h.after(state.LeaseTTL/3, h.keep)
}

// watchLease notices that the lease cannot be kept.
func (h *hub) watchLease() {
	l, kept := h.lease, h.kept
	h.after(state.LeaseTTL+h.w.between(0, 500*time.Millisecond), func() {
		if h.lease == l && h.kept.Equal(kept) {
			h.lose()
		}
	})
}

// lose takes note that the lease is lost: what hung on it is to be written again.
func (h *hub) lose() {
	h.lease = nil
	h.resign()
	for _, id := range h.ids {
		if m := h.fleet[id]; m.held {
			h.save(m)
		}
	}
}

// leased calls then with a lease.
func (h *hub) leased(then func(*lease, error)) {
	if h.lease != nil {
		then(h.lease, nil)
		return
	}
	var l *lease
	sent := h.clock()
	h.ask(func() error { l = h.w.store.grant(); return nil }, func(err error) {
		if err == nil && h.lease == nil {
			h.lease, h.kept = l, sent
			h.watchLease()
		}
		then(h.lease, err)
	})
}

// The election, as package leader has it.

// stand has the hub elected, unless another one leads.
func (h *hub) stand() {
	if h.term != nil {
		return
	}
	later := func() { h.after(time.Second, h.stand) }
	h.leased(func(l *lease, err error) {
		if err != nil || l == nil {
			later()
			return
		}
		var revision int64
		h.ask(func() (err error) {
			now, there := h.w.store.entries[leaderKey]
			if there && string(now.Value) != h.id {
				return nil
			}
			revision, err = h.w.store.put(leaderKey, []byte(h.id), l, state.Unchanged(now.Revision))
			return err
		}, func(err error) {
			switch {
			case err != nil:
				later()
			case revision > 0 && h.lease == l && h.term == nil:
				h.lead(revision)
			case revision > 0:
				later()
			}
		})
	})
}

// led takes in who leads.
func (h *hub) led(e state.Entry) {
	if t := h.term; t != nil && e.Revision > t.revision {
		h.resign()
	}
	if h.term == nil && e.Value == nil {
		h.stand()
	}
}

func (h *hub) lead(revision int64) {
	t := &term{revision: revision, last: -rest}
	t.ctx, t.end = context.WithCancel(context.Background())
	t.placer = placer.New(h.options())
	h.term = t
	h.w.h.Elected++
	h.w.note(Event{Kind: Leads, Hub: h.index, Agent: -1, Document: -1})
	h.look(0)
}

func (h *hub) resign() {
	t := h.term
	if t == nil {
		return
	}
	h.term = nil
	t.end()
	h.w.note(Event{Kind: Resigns, Hub: h.index, Agent: -1, Document: -1})
	h.after(0, h.stand)
}

// heard has the leader look again, soon.
func (h *hub) heard() {
	if h.term != nil {
		h.look(0)
	} else {
		h.tellSoon()
	}
}

// look plans the next look.
func (h *hub) look(d time.Duration) {
	t := h.term
	if t.looking {
		t.again = true
		return
	}
	t.serial++
	serial := t.serial
	h.after(max(d, t.last+rest-h.w.now), func() {
		if h.term == t && t.serial == serial {
			h.place(t)
		}
	})
}

// place looks.
func (h *hub) place(t *term) {
	t.looking, t.again = true, false
	var next time.Duration
	h.run(func() { next = t.placer.Step(t.ctx, h.clock()) }, func() {
		if t.looking, t.last = false, h.w.now; h.term == t {
			if t.again {
				next = 0
			}
			h.look(next)
		}
	})
}

// tellSoon has what agents say written, if this hub does not lead.
func (h *hub) tellSoon() {
	if h.tells {
		return
	}
	h.tells = true
	h.after(tellEvery, func() {
		if h.tells = false; h.term == nil && !h.telling {
			h.telling = true
			h.run(func() { placer.Tell(context.Background(), h.options()) }, func() { h.telling = false })
		}
	})
}

// tellNow does so every so often in any case.
func (h *hub) tellNow() {
	h.tellSoon()
	h.after(look, h.tellNow)
}

// run lets something be done that writes into the control state: each write is a request, for whose answer it waits.
func (h *hub) run(step, then func()) {
	var yield func(*request) bool
	resume, halt := iter.Pull(func(y func(*request) bool) {
		yield, h.client.yield = y, y
		step()
	})
	h.serial++
	life, serial := h.life, h.serial
	h.halts[serial] = halt
	var advance func()
	advance = func() {
		h.client.yield = yield
		r, more := resume()
		h.client.yield = nil
		if !more {
			delete(h.halts, serial)
			halt()
			then()
			return
		}
		if mean := h.mean; mean != nil && h.term != nil {
			h.mean = nil
			if mean(); h.life != life || !h.up {
				return
			}
		}
		h.ask(func() (err error) { r.revision, err = r.do(); return err }, func(err error) { r.err = err; advance() })
	}
	advance()
}

func (h *hub) options() placer.Options {
	return placer.Options{
		Hub: h.id, Store: h.client, Documents: view{h.docs, h}, Fleet: h, Log: slog.New(slog.DiscardHandler), Metrics: metric.NewSet(),
		Lease: h.longest,
	}
}

// longest is how long the placer thinks that agents may believe that they have a lease.
func (h *hub) longest() time.Duration {
	if h.w.Wrong == NoWait {
		return 1
	}
	return longest
}

// A view is the documents as the placer sees them: by its clock, not that of the day.
type view struct {
	*documents.Store
	h *hub
}

// shift moves the times of owners.
func shift(o documents.Owners, by time.Duration) documents.Owners {
	o.Owners = slices.Clone(o.Owners)
	for i := range o.Owners {
		if x := &o.Owners[i]; !x.Since.IsZero() {
			x.Since = x.Since.Add(by)
		}
	}
	o.Past = slices.Clone(o.Past)
	for i := range o.Past {
		o.Past[i].Until = o.Past[i].Until.Add(by)
	}
	return o
}

func (v view) Floating() (list []documents.Floating, gone []string) {
	list, gone = v.Store.Floating()
	for i := range list {
		list[i].Owners = shift(list[i].Owners, -v.h.jump)
	}
	return list, gone
}

func (v view) Place(ctx context.Context, name string, was, next documents.Owners) error {
	return v.Store.Place(ctx, name, was, shift(next, v.h.jump))
}

// take takes results, or refuses them.
func (h *hub) take(r result) {
	e := Event{Kind: Accepted, Hub: h.index, Agent: r.agent.index, Document: r.document, Epoch: r.epoch, Begun: r.begun, Clock: h.clock().Add(h.jump)}
	t := h.w.texts[r.document]
	e.Place = t.places[r.epoch]
	if h.w.Wrong != AcceptsAny && h.docs.Admit(t.name, r.agent.id, r.epoch, e.Clock) != nil {
		e.Kind = Refused
	}
	h.w.note(e)
}

// String names the hub.
func (h *hub) String() string { return fmt.Sprintf("hub %d", h.index) }
