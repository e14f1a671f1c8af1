package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/hub/internal/state"
	"github.com/creelhq/creel/report"
)

// This file is what hubs tell each other of agents: agents/<agent>.

const (
	agentsPrefix   = "agents/"
	sessionsPrefix = "sessions/"
	maxRuns        = 200 // documents of which is kept how they are
)

// record is what is kept of an agent in the control state. The hub that has the agent writes it, or had it last; when that is
// gone, whoever notes that the agent is lost. It is written when something happens, never because the agent was heard.
type record struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Type       string            `json:"type"`
	Version    string            `json:"version"`
	Labels     map[string]string `json:"labels"`           // Pinned among them
	Pinned     map[string]string `json:"pinned,omitempty"` // labels that it has whatever it says, by its identity
	Connection api.Connection    `json:"connection"`
	Cause      string            `json:"cause,omitempty"`
	Config     string            `json:"config,omitempty"`
	Hub        string            `json:"hub"`
	FirstSeen  time.Time         `json:"first_seen"`
	LastSeen   time.Time         `json:"last_seen"`
	Started    time.Time         `json:"started,omitzero"`
	Earlier    time.Time         `json:"earlier,omitzero"` // when the process before this was started
	Twin       time.Time         `json:"twin,omitzero"`    // when the second was started of two that have the identity
	Timeline   []api.Event       `json:"timeline"`         // oldest first

	State   string   `json:"state,omitempty"`   // of its life
	Receipt string   `json:"receipt,omitempty"` // which of its receipts the timeline has last
	Refused []string `json:"refused,omitempty"` // hashes of offers that have failed there; the last is the latest
	Done    string   `json:"done,omitempty"`    // the id of the last order that it did

	// For the other hubs, as of when it changed.
	By         string               `json:"by"`                   // the hub that has written this
	Health     string               `json:"health,omitempty"`     // in a word
	Ill        string               `json:"ill,omitempty"`        // the first cause, when the word changed
	Identified bool                 `json:"identified,omitempty"` // it has shown a certificate
	Trusts     string               `json:"trusts,omitempty"`     // Beat.Authorities
	Remote     control.RemoteStatus `json:"remote,omitzero"`      // what became of the last offer
	Runs       []report.Document    `json:"runs"`                 // of the hub's documents; nil: it does not tell
}

// event adds to the timeline.
func (r *record) event(kind, cause string) {
	cause = short(cause)
	if n := len(r.Timeline); n > 0 && r.Timeline[n-1].Kind == kind && r.Timeline[n-1].Cause == cause {
		r.Timeline[n-1].Time = time.Now().UTC() // once more
	} else {
		r.Timeline = append(r.Timeline, api.Event{Time: time.Now().UTC(), Kind: kind, Cause: cause})
	}
	r.bound()
}

func (r *record) bound() {
	if n := len(r.Timeline); n > timelineLength {
		r.Timeline = slices.Delete(r.Timeline, 0, n-timelineLength)
	}
}

// merge adds the events that only another timeline has.
func (r *record) merge(timeline []api.Event) {
	for _, e := range timeline {
		if !slices.ContainsFunc(r.Timeline, func(o api.Event) bool { return o.Time.Equal(e.Time) && o.Kind == e.Kind && o.Cause == e.Cause }) {
			r.Timeline = append(r.Timeline, e)
		}
	}
	slices.SortStableFunc(r.Timeline, func(a, b api.Event) int { return a.Time.Compare(b.Time) })
	r.bound()
}

// clone returns a copy whose timeline can be changed.
func (r *record) clone() record {
	c := *r
	c.Timeline = slices.Clone(r.Timeline)
	return c
}

func encodeJSON(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return data
}

// save has the record kept. a.mu is held.
func (a *agent) save() {
	a.owed.record = true
	a.r.keeper.add(a)
}

// keepRecord writes the record, if that is for this hub to do.
func (a *agent) keepRecord(ctx context.Context) error {
	for range attempts {
		a.mu.Lock()
		owed, ours, revision := a.owed.record, a.ours(), a.revision
		a.owed.record = false
		var value []byte
		if owed && ours {
			a.By = a.r.o.Hub
			value = encodeJSON(a.record)
		}
		a.mu.Unlock()
		switch {
		case !owed:
			return nil
		case !ours: // what was to be written came too late
			err := a.reload(ctx)
			a.mu.Lock()
			a.owed.record = err != nil || a.owed.record
			a.mu.Unlock()
			return err
		}
		revision, err := a.r.o.Store.Put(ctx, agentsPrefix+a.ID, value, false, state.Unchanged(revision))
		a.mu.Lock()
		if err == nil {
			a.revision, a.read = max(a.revision, revision), max(a.read, revision)
		} else {
			a.owed.record = true
		}
		a.mu.Unlock()
		if !errors.Is(err, state.ErrConflict) {
			return err
		}
		if err := a.reload(ctx); err != nil {
			return err
		}
		if err := a.keepSession(ctx); err != nil { // it may be another hub's
			return err
		}
	}
	return state.ErrConflict
}

// reload asks for the record, because it is another than this hub believes.
func (a *agent) reload(ctx context.Context) error {
	e, err := a.r.o.Store.Get(ctx, agentsPrefix+a.ID)
	switch {
	case errors.Is(err, state.ErrNotFound):
		a.mu.Lock()
		a.revision = 0
		a.mu.Unlock()
	case err != nil:
		return fmt.Errorf("read what another hub has written: %w", err)
	default:
		a.mu.Lock()
		if a.read == e.Revision { // it is to be taken in once more
			a.read--
		}
		a.mu.Unlock()
		a.r.tookRecord(e)
	}
	return nil
}

// tookRecord takes in what a hub has written of an agent.
func (r *Registry) tookRecord(e state.Entry) {
	a := r.known(strings.TrimPrefix(e.Key, agentsPrefix), e.Value != nil)
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if e.Revision <= a.read {
		return
	}
	var rec record
	if e.Value == nil {
		a.read, a.revision = e.Revision, 0
		return
	}
	if err := json.Unmarshal(e.Value, &rec); err != nil || rec.ID != a.ID {
		r.o.Log.Error("an agent's record cannot be read and is left out", "key", e.Key, "error", err)
		return
	}
	switch {
	case rec.By == r.o.Hub && a.ours(): // it is this hub's word
		a.read, a.revision = e.Revision, e.Revision
		return
	case a.held, a.ours() && a.owed.record && rec.Connection == api.Connected:
		a.contested(rec, e.Revision)
	default:
		a.adopt(rec, e.Revision)
	}
	r.alter()
}

// contested takes in what another hub has written of an agent that is here: it was late, or took it for lost. a.mu is held.
func (a *agent) contested(rec record, revision int64) {
	a.read, a.revision = revision, revision
	a.merge(rec.Timeline)
	if rec.Connection == api.Lost {
		a.event("connected", "it was here all the time: this hub could not reach the control state")
	}
	a.owed.session, a.owed.look = true, true
	a.save()
}

// adopt takes over a record as another hub has written it. a.mu is held.
func (a *agent) adopt(rec record, revision int64) {
	c, hub := rec.Connection, rec.Hub
	if s := &a.session; s.revision > revision && s.Hub != "" { // the record is older than what is known of the session
		c, hub = api.Connected, s.Hub
	}
	if a.ours() {
		a.forget()
	}
	if !maps.Equal(a.Labels, rec.Labels) || a.Type != rec.Type {
		a.set = nil // other labels may be selected by other documents
	}
	rec.Connection, rec.Hub = a.Connection, a.Hub
	a.record, a.read, a.revision, a.before = rec, revision, revision, rec.Started
	a.at(c, hub)
	a.leasedFor(a.far())
	switch {
	case c != api.Connected:
		a.stopTimer()
		a.broke = time.Time{}
	case !a.ours() && a.session.revision == 0 && a.timer == nil:
		a.vanished()
	}
}

// allRecords takes in what is written of all agents.
func (r *Registry) allRecords(list []state.Entry, _ int64) {
	for _, e := range list {
		r.tookRecord(e)
	}
}

// loadAgents takes the agents up as they are kept, and returns the revisions from which to follow.
func (r *Registry) loadAgents(ctx context.Context) (records, sessions int64, err error) {
	agents, records, err := r.o.Store.List(ctx, agentsPrefix)
	if err != nil {
		return 0, 0, err
	}
	list, sessions, err := r.o.Store.List(ctx, sessionsPrefix)
	if err != nil {
		return 0, 0, err
	}
	at := make(map[string]entry, len(list))
	for _, e := range list {
		x := entry{revision: e.Revision, heard: e.Revision}
		if json.Unmarshal(e.Value, &x.presence) == nil {
			at[strings.TrimPrefix(e.Key, sessionsPrefix)] = x
		}
	}
	for _, e := range agents {
		var rec record
		if err := json.Unmarshal(e.Value, &rec); err != nil || agentsPrefix+rec.ID != e.Key {
			r.o.Log.Error("an agent's record cannot be read and is left out; the agent registers itself again", "key", e.Key, "error", err)
			continue
		}
		r.restore(rec, e.Revision, at[rec.ID])
		delete(at, rec.ID)
	}
	for _, a := range r.all() {
		a.resume()
	}
	for _, e := range list { // records follow
		if _, ok := at[strings.TrimPrefix(e.Key, sessionsPrefix)]; ok {
			r.tookSession(e)
		}
	}
	return records, sessions, nil
}

// restore takes an agent up as another run of this hub, or another hub, has left it.
func (r *Registry) restore(rec record, revision int64, s entry) {
	c, hub := rec.Connection, rec.Hub
	if s.revision > 0 && (s.Hub != r.o.Hub || c == api.Connected) {
		c, hub = api.Connected, s.Hub
	}
	rec.Connection = ""
	a := &agent{r: r, ID: rec.ID, record: rec, revision: revision, read: revision, session: s, before: rec.Started}
	r.agents[rec.ID] = a
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at(c, hub)
}

// resume gives an agent that was restored the time to come back, once all are counted.
func (a *agent) resume() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.leasedFor(max(a.far(), a.r.Heartbeat())) // an earlier run may have leased it until now
	switch {
	case a.Connection != api.Connected:
	case a.ours():
		a.wait("the hub was started again, and it has not come back", time.Now())
	case a.session.revision == 0:
		a.vanished()
	case !a.session.Broke.IsZero():
		a.broke = time.Now()
	}
}
