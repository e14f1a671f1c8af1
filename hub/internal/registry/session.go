package registry

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/hub/internal/state"
	"github.com/creelhq/creel/report"
)

// This file is at which hub an agent is: sessions/<agent>, under the lease of that hub. Who connects last has it: a hub writes
// its entry over another's when the agent connects to it, and from then on changes or deletes only what is still its own, by
// comparing revisions. So a hub that is late can never end what another has begun.

// presence is what other hubs see of a connection.
type presence struct {
	Hub       string        `json:"hub"`
	Since     time.Time     `json:"since"`
	Broke     time.Time     `json:"broke,omitzero"` // when it broke without a word, by that hub's clock; zero: it did not
	Heartbeat time.Duration `json:"heartbeat"`      // nanoseconds: the least that this hub asks for
}

// announced is a presence as it is written, for the directory: hubs know from the record who an agent is.
type announced struct {
	presence
	Name   string            `json:"name"`
	Labels map[string]string `json:"labels"`
}

// entry is an agent's session as this hub has heard of it last.
type entry struct {
	presence
	revision int64 // 0: there is none
	heard    int64 // the latest revision of which this hub has heard
}

// attempts is how often a write is tried in a row whose entry others change as well.
const attempts = 8

// at notes where the agent is. a.mu is held.
func (a *agent) at(c api.Connection, hub string) {
	if n := a.r.tally(&a.record); n != nil {
		n.Add(-1)
	}
	a.Connection, a.Hub = c, hub
	if n := a.r.tally(&a.record); n != nil {
		n.Add(1)
	}
}

// ours reports whether this hub is the agent's, or was the last. a.mu is held.
func (a *agent) ours() bool { return a.Hub == a.r.o.Hub }

// unsure reports whether the agent has connected here since its session was written. a.mu is held.
func (a *agent) unsure() bool { return a.connects != a.claimed }

// here reports whether it is in the control state that the agent is at this hub. a.mu is held.
func (a *agent) here() bool {
	return a.held && !a.unsure() && a.session.revision > 0 && a.session.Hub == a.r.o.Hub
}

// keep writes what has changed: where the agent is before what there is to say of that. It is not called twice at once.
func (r *Registry) keep(ctx context.Context, a *agent) error {
	if err := a.keepSession(ctx); err != nil {
		return err
	}
	if err := a.keepServices(ctx); err != nil {
		return err
	}
	if err := a.keepRecord(ctx); err != nil {
		return err
	}
	return a.keepLoss(ctx)
}

// keepSession makes the agent's session what it is to be, if that is for this hub to say.
func (a *agent) keepSession(ctx context.Context) error {
	key, store := sessionsPrefix+a.ID, a.r.o.Store
	for range attempts {
		a.mu.Lock()
		if a.owed.look {
			a.mu.Unlock()
			if err := a.lookForSession(ctx); err != nil {
				return err
			}
			a.mu.Lock()
			a.owed.look = false
		}
		connects, c := a.connects, state.Unchanged(a.session.revision)
		if a.held && a.unsure() && a.broke.IsZero() {
			c = state.Always()
		}
		p := presence{Hub: a.r.o.Hub, Since: a.since, Broke: a.broke, Heartbeat: a.r.o.Heartbeat}
		if a.owed.session && a.ours() && !c.Any && a.session.revision > 0 && a.session.Hub != p.Hub { // it broke before it was written
			a.claimed = connects
			a.moved()
		}
		if !a.owed.session || !a.ours() || !a.held && a.session.revision == 0 {
			if a.owed.session {
				a.owed.session, a.claimed = false, connects
			}
			a.mu.Unlock()
			return nil
		}
		a.owed.session = false
		held, value := a.held, encodeJSON(announced{p, a.Name, a.Labels})
		a.mu.Unlock()
		var revision int64
		var err error
		lease := store.Lease()
		if held {
			revision, err = store.Put(ctx, key, value, true, c)
		} else {
			err = store.Delete(ctx, key, c)
		}
		a.mu.Lock()
		switch {
		case errors.Is(err, state.ErrConflict):
			a.owed.session, a.owed.look = true, true
		case err != nil:
			a.owed.session = true
		case held:
			a.claimed = connects
			a.kept(p, revision, lease, !c.Any && c.Revision > 0)
		default:
			a.claimed = connects
			a.none(c.Revision)
		}
		a.mu.Unlock()
		if !errors.Is(err, state.ErrConflict) {
			return err
		}
	}
	return state.ErrConflict
}

// lookForSession asks for the session, because it is another than this hub has heard.
func (a *agent) lookForSession(ctx context.Context) error {
	a.mu.Lock()
	before := a.session.revision
	a.mu.Unlock()
	e, err := a.r.o.Store.Get(ctx, sessionsPrefix+a.ID)
	switch {
	case errors.Is(err, state.ErrNotFound):
		a.mu.Lock()
		a.none(before)
		a.mu.Unlock()
	case err != nil:
		return err
	default:
		a.r.tookSession(e)
	}
	return nil
}

// none notes that the session of a revision is gone, unless a newer one has been heard of meanwhile. a.mu is held.
func (a *agent) none(revision int64) {
	if a.session.revision == revision {
		a.session.Hub, a.session.revision = "", 0
	}
}

// kept notes that this hub has written the session, over its own entry or not, and leases what has waited for that. a.mu is held.
func (a *agent) kept(p presence, revision int64, lease *state.Lease, over bool) {
	if !over || a.under != lease { // there was none for a while: who leads may have heard of that, and not of this one
		a.told.confirmed, a.told.confirming = nil, nil
	}
	a.under = lease
	switch {
	case a.session.heard < revision:
		a.session = entry{p, revision, revision}
	case a.session.heard > revision && !a.unsure() && a.session.revision > 0 && a.session.Hub != p.Hub:
		a.moved()
		return
	}
	if a.sure(a.placed()) {
		a.leaseNow()
	}
}

// leaseNow leases the agent if it has asked for that and can have it by now. a.mu is held.
func (a *agent) leaseNow() {
	if a.conn == nil {
		return
	}
	if l := a.lease(); l.Nonce > 0 {
		m := a.message()
		m.CustomMessage = l.Message()
		a.offerWith(m)
		_ = a.conn.Send(m) // else the connection is over
	}
}

// lease returns what to answer to the last Beat: nothing but the rhythm if that was leased already, or as long as it is not in the
// control state that the agent is here, under a lease that this hub has for sure, and that what it has of exclusive documents is still
// its. For only then do the others know that they must not give away what the agent has. a.mu is held.
func (a *agent) lease() control.Lease {
	h := a.r.Heartbeat()
	l := control.Lease{Hub: a.r.o.Hub, Heartbeat: h, Authorities: a.toTrust()}
	if a.asked == 0 || !a.here() || !a.under.Held() || !a.sure(a.placed()) {
		return l
	}
	l.Nonce, l.Expires = a.asked, missed*h
	a.leasedFor(h)
	a.told.given = a.leased
	a.asked = 0
	return l
}

// leasedFor notes that the agent may have been leased just now by a hub with such a heartbeat. Clocks do not run alike: a tenth
// more. a.mu is held.
func (a *agent) leasedFor(heartbeat time.Duration) {
	until := time.Now().Add(missed * heartbeat * 11 / 10)
	if until.After(a.leased) {
		a.leased = until
	}
}

// far returns what the heartbeat is at another hub where the agent is, at most. a.mu is held.
func (a *agent) far() time.Duration {
	return max(a.r.o.Heartbeat, a.session.Heartbeat, time.Duration(a.r.elsewhere.Load())*time.Second/perSecond)
}

// moved takes note that the agent's session is another hub's: what this hub knew of it as its own is over. Nothing is written.
// a.mu is held.
func (a *agent) moved() {
	p := a.session.presence
	conn := a.conn
	a.conn = nil
	if a.ours() {
		a.forget()
		a.handOver()
	}
	a.stopTimer()
	if p.Broke.IsZero() {
		a.broke = time.Time{}
	} else if a.broke.IsZero() {
		a.broke = time.Now()
	}
	a.at(api.Connected, p.Hub)
	a.Cause = ""
	a.leasedFor(a.far())
	if conn != nil {
		a.r.o.Log.Info("agent moved", "agent", a.ID, "name", a.Name, "hub", p.Hub)
		go conn.Close(goingAway, "the agent has connected to hub "+p.Hub)
	}
}

// forget drops what only the hub knows to which the agent is connected. a.mu is held.
func (a *agent) forget() {
	a.r.ended(a.ID, a.Config)
	a.held, a.broke, a.told = false, time.Time{}, wanted{}
	a.health, a.components, a.routes, a.ledger, a.effective = nil, nil, nil, report.Ledger{}, ""
	a.life, a.configuration, a.run, a.before, a.services, a.cursors = nil, nil, nil, a.Started, nil, nil
	a.now, a.past = sample{}, nil
}

// vanished takes note that the agent has no session though nobody has said that it is gone: its hub has ended, or has lost the
// control state. It has three heartbeats to come to another. a.mu is held.
func (a *agent) vanished() {
	far := a.far()
	a.leasedFor(far)
	a.after(missed*far, func() {
		a.owed.loss = true
		a.r.keeper.add(a)
	})
}

// keepLoss writes that an agent is lost whose hub is gone. All hubs try: the first one's is written.
func (a *agent) keepLoss(ctx context.Context) error {
	a.mu.Lock()
	due := a.owed.loss
	a.owed.loss = false
	a.mu.Unlock()
	if !due {
		return nil
	}
	again := func(err error) error {
		a.mu.Lock()
		a.owed.loss = true
		a.mu.Unlock()
		return err
	}
	if err := a.lookForSession(ctx); err != nil {
		return again(err)
	}
	a.mu.Lock()
	if a.ours() || a.Connection != api.Connected || a.session.revision > 0 {
		a.mu.Unlock()
		return nil
	}
	rec, revision := a.record.clone(), a.revision
	a.mu.Unlock()
	rec.Connection, rec.By = api.Lost, a.r.o.Hub
	rec.Cause = "its hub is gone, and it has not come to another; three heartbeats missed"
	rec.event(string(api.Lost), rec.Cause)
	revision, err := a.r.o.Store.Put(ctx, agentsPrefix+a.ID, encodeJSON(rec), false, state.Unchanged(revision))
	switch {
	case errors.Is(err, state.ErrConflict):
		if err := a.reload(ctx); err != nil {
			return again(err)
		}
		return nil
	case err != nil:
		return again(err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.read <= revision && !a.held {
		a.adopt(rec, revision)
		a.r.alter()
		a.r.o.Log.Info("agent lost", "agent", a.ID, "name", a.Name, "cause", rec.Cause)
	}
	return nil
}

// tookSession takes in at which hub an agent is.
func (r *Registry) tookSession(e state.Entry) {
	id := strings.TrimPrefix(e.Key, sessionsPrefix)
	var p presence
	if e.Value != nil {
		if err := json.Unmarshal(e.Value, &p); err != nil {
			r.o.Log.Error("where an agent is connected cannot be read and is left out", "key", e.Key, "error", err)
			return
		}
	}
	a := r.known(id, e.Value != nil)
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if e.Revision <= a.session.heard {
		return
	}
	heartbeat := a.session.Heartbeat
	a.session = entry{presence: p, revision: e.Revision, heard: e.Revision}
	if e.Value == nil {
		a.session.revision, a.session.Heartbeat = 0, heartbeat
	}
	switch {
	case a.unsure(): // this hub's entry is being written
	case e.Value == nil && !a.ours() && a.Connection == api.Connected:
		a.vanished()
	case e.Value != nil && p.Hub != r.o.Hub:
		a.moved()
	case e.Value == nil && a.held:
		a.saveSession()
	default:
		return
	}
	r.alter()
}

// allSessions takes in where all agents are as of a revision.
func (r *Registry) allSessions(list []state.Entry, revision int64) {
	there := make(map[string]bool, len(list))
	for _, e := range list {
		there[e.Key] = true
		r.tookSession(e)
	}
	for _, a := range r.all() {
		if key := sessionsPrefix + a.ID; !there[key] {
			r.tookSession(state.Entry{Key: key, Revision: revision})
		}
	}
	r.heard.Store(revision)
}

// keepSessions has it kept again what was lost with the hub's lease, each time.
func (r *Registry) keepSessions(ctx context.Context) {
	for {
		select {
		case <-r.o.Store.Lease().Lost():
		case <-ctx.Done():
			return
		}
		r.o.Log.Warn("the hub has lost its lease in the control state, because it could not reach it for too long; it gets another")
		for _, a := range r.all() {
			a.mu.Lock()
			if a.held {
				a.saveSession()
				a.saveServices()
			}
			a.mu.Unlock()
		}
		select {
		case <-time.After(time.Second): // it may be lost again at once
		case <-ctx.Done():
			return
		}
	}
}

// saveSession has the session written as it is now. a.mu is held.
func (a *agent) saveSession() {
	a.owed.session = true
	a.r.keeper.add(a)
}

// Owner returns the hub that an agent is connected to, or was last, and whether that is this one: it has the agent's figures.
// Without such an agent hub is empty.
func (r *Registry) Owner(id string) (hub string, here bool) {
	a := r.known(id, false)
	if a == nil {
		return "", false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.Hub, a.ours()
}

// Connected returns how many agents are connected to this hub.
func (r *Registry) Connected() int { return int(r.connected.Load()) }
