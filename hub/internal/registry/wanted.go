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

	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"

	"github.com/creelhq/creel/agent/life"
	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/expr"
	"github.com/creelhq/creel/hub/internal/documents"
	"github.com/creelhq/creel/hub/internal/state"
	"github.com/creelhq/creel/report"
)

// wanted is what an agent was asked for in one connection, and what it has said to that.
type wanted struct {
	capabilities uint64
	described    bool // its labels are those of now
	remote       control.RemoteStatus
	offered      string // hash of the last offer
	offeredAt    time.Time
	ordered      string // id of the last order
	hubs         []control.HubAt

	given      time.Time         // until when a lease lasts that was given to it in this connection
	confirmed  map[string]int64  // exclusive documents that it has for sure until then
	confirming *struct{ _ byte } // that is being found out; names the attempt
	said       time.Time         // when it said something last

	rival rival // that may be leased beside it
}

const (
	ordersPrefix = "orders/"
	maxRefused   = 20               // offers that have failed at an agent and are remembered
	offerAgain   = 30 * time.Second // when an agent that takes offers does not say that it has one

	// roleLabel says that an agent is a hub's own.
	roleLabel = "creel.role"
)

// followDocuments offers all agents what documents say whenever that changes. Sending does not wait for an agent: one that
// does not read is left behind by its own queue.
func (r *Registry) followDocuments(ctx context.Context) {
	for {
		changed := r.o.Documents.Changed()
		for _, a := range r.all() {
			a.tell()
		}
		r.notify()
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// tell sends the agent what it does not know yet of what is wanted of it.
func (a *agent) tell() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.conn == nil {
		return
	}
	// When it cannot be sent, the connection is over, and the next one tells it.
	if p := a.offer(); p != nil {
		_ = a.conn.SendShared(a.message(), p.Message)
	}
	if o := a.order(); o.ID != "" && o.ID != a.Done && o.ID != a.told.ordered && a.told.described && a.Type == control.AgentType {
		a.told.ordered = o.ID
		m := a.message()
		m.CustomMessage = o.Message()
		_ = a.conn.Send(m)
	}
}

// offerWith adds to a message with a Lease what is to be offered: an agent must not be leased before it has heard what is wanted
// of it by now. It takes the offer first. a.mu is held.
func (a *agent) offerWith(m *protobufs.ServerToAgent) {
	if a.conn == nil {
		return // it polls: see pollOffer
	}
	if p := a.offer(); p != nil {
		m.RemoteConfig = p.Offer.Message()
	}
}

func (a *agent) message() *protobufs.ServerToAgent {
	id := uuid.MustParse(a.ID)
	return &protobufs.ServerToAgent{InstanceUid: id[:], Capabilities: capabilities}
}

// pollOffer is the part of tell that goes with an answer.
func (a *agent) pollOffer() *protobufs.AgentRemoteConfig {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p := a.offer(); p != nil {
		return p.Offer.Message()
	}
	return nil
}

// placed returns what documents say that the agent shall run. a.mu is held.
func (a *agent) placed() *documents.Placement {
	if a.r.o.Documents == nil || a.Type != control.AgentType {
		return &documents.Placement{}
	}
	if set := a.r.o.Documents.Current(); a.set != set {
		before := a.placement
		if a.set, a.placement = set, set.For(a.selectable()); before == nil || before.Hash != a.placement.Hash {
			a.placedAt = time.Now()
		}
	}
	return a.placement
}

// selectable returns the labels that selectors see. a.mu is held.
func (a *agent) selectable() map[string]string {
	labels := maps.Clone(a.Labels)
	if labels == nil {
		labels = make(map[string]string)
	}
	labels[documents.AgentLabel] = a.ID
	return labels
}

// offer returns what is to be offered to the agent now, nil if there is nothing: it has it, it has failed there before and takes nothing away,
// it is on its way, or something of it may be another agent's. a.mu is held.
func (a *agent) offer() *documents.Placement {
	s := &a.told
	if !s.described || s.capabilities&uint64(protobufs.AgentCapabilities_AgentCapabilities_AcceptsRemoteConfig) == 0 {
		return nil
	}
	p := a.placed()
	switch {
	case !a.sure(p):
		return nil
	case p.Offer == nil, p.Hash == s.remote.Hash, slices.Contains(a.Refused, p.Hash) && !a.hasMore(p.Offer):
		return nil
	case len(p.Offer.Documents) == 0 && s.remote.Hash == "" && s.offered == "": // it has never had any
		return nil
	case p.Hash == s.offered && time.Since(s.offeredAt) < offerAgain:
		return nil
	}
	s.offered, s.offeredAt = p.Hash, time.Now()
	return p
}

// hasMore reports whether the agent says that it was asked last to run something that an offer has not. It must hear that this is not
// its any more, even if it cannot run without: another may have it. a.mu is held.
func (a *agent) hasMore(o *control.Offer) bool {
	return a.configuration != nil && slices.ContainsFunc(a.configuration.Documents, func(r report.Document) bool {
		return r.Source == "hub" && !slices.ContainsFunc(o.Documents, func(d control.OfferedDocument) bool { return d.Name == r.Name })
	})
}

// sure reports whether what p has that no two agents may do is this one's, and has that found out if it is not known: then the
// agent is told when it is. It must be known anew for each session, once that is written, and when the agent has had no lease. Nothing of it
// is the agent's while another process of it may be leased, or while its connection is broken: who leads waits for what is made sure of.
// a.mu is held.
func (a *agent) sure(p *documents.Placement) bool {
	s := &a.told
	if len(p.Exclusive) > 0 && (!a.alone() || !a.here() || !a.broke.IsZero()) {
		return false
	}
	if time.Now().After(s.given) {
		s.confirmed = nil
	}
	for name, epoch := range p.Exclusive {
		if s.confirmed[name] != epoch {
			if s.confirming == nil {
				s.confirming = new(struct{ _ byte })
				attempt, session := s.confirming, a.session.revision
				a.r.beside(func(ctx context.Context) { a.confirm(ctx, attempt, session, p.Exclusive) })
			}
			return false
		}
	}
	return true
}

// confirm is what sure has done beside.
func (a *agent) confirm(ctx context.Context, attempt *struct{ _ byte }, session int64, epochs map[string]int64) {
	until := time.Now().Add(a.r.Lease())
	err := a.r.o.Documents.Confirm(ctx, a.ID, session, epochs)
	a.mu.Lock()
	if a.told.confirming != attempt { // it is in another session
		a.mu.Unlock()
		return
	}
	a.told.confirming = nil
	if err == nil {
		a.told.confirmed, a.told.given = epochs, until
	}
	if err == nil {
		a.leaseNow()
	}
	a.mu.Unlock()
	if err == nil {
		a.tell()
	} else if !errors.Is(err, state.ErrConflict) && ctx.Err() == nil { // a conflict: it is told what it has as soon as that is known here
		a.r.o.Log.Warn("it is not known for sure that exclusive documents are still an agent's, which gets no lease; will try again at its next heartbeat", "agent", a.ID, "error", err)
	}
}

// took takes in what became of the last offer, and reports whether that is worth keeping. a.mu is held.
func (a *agent) took(s control.RemoteStatus) (keep bool) {
	s.Error = short(s.Error)
	was := a.told.remote
	a.told.remote = s
	if s != a.Remote && s.Status != control.Applying {
		a.Remote, keep = s, true
	}
	known := slices.Index(a.Refused, s.Hash)
	switch {
	case s.Hash == "":
	case s.Status == control.Failed && known < 0:
		a.Refused, keep = append(a.Refused, s.Hash), true
		if n := len(a.Refused); n > maxRefused {
			a.Refused = slices.Delete(a.Refused, 0, n-maxRefused)
		}
	case s.Status == control.Applied && known >= 0:
		a.Refused, keep = slices.Delete(a.Refused, known, known+1), true
	}
	if s.Status == control.Failed && s != was && known < 0 && s.Hash != "" && a.configuration == nil { // else its receipts say so
		a.event("refused", s.Error)
	}
	return keep
}

// tells takes in what a Beat says of life, configuration and orders, and reports whether it is worth keeping. a.mu is held.
func (a *agent) tells(b *control.Beat) (keep bool) {
	if b.Life != nil {
		keep = a.lives(b.Life)
	}
	if b.Configuration != nil {
		keep = a.receive(b.Configuration) || keep
	}
	a.saves(b.Cursors)
	if b.Done != "" && b.Done != a.Done {
		a.Done, keep = short(b.Done), true
	}
	return keep
}

// saves takes in what collectors of placed documents have saved. a.mu is held.
func (a *agent) saves(list []control.Cursor) {
	if len(list) == 0 {
		return
	}
	all := maps.Clone(a.cursors)
	if all == nil {
		all = make(map[string]documents.Cursor)
	}
	for _, c := range list {
		if len(c.Data) > control.MaxCursor || len(all) >= maxCursors && all[c.Document].Of == nil {
			continue
		}
		now := documents.Cursor{Epoch: c.Epoch, Of: make(map[string][]byte)}
		if was := all[c.Document]; was.Epoch == c.Epoch {
			now.Of = maps.Clone(was.Of)
		}
		now.Of[c.Component] = c.Data
		all[c.Document] = now
	}
	a.cursors = all
}

// lives takes in where the agent is in its life.
func (a *agent) lives(l *report.Life) (keep bool) {
	a.life = l
	was := a.State
	if a.State = short(l.State); a.State == was {
		return false
	}
	cause := ""
	for _, t := range l.History {
		if t.To == l.State {
			cause = t.Cause
		}
	}
	switch {
	case a.State == life.Paused:
		for _, h := range l.Holds {
			cause = h.By + ": " + h.Cause
		}
		a.event("paused", cause)
	case a.State == "running" && was == life.Paused:
		a.event("resumed", cause)
	}
	return true
}

// receive takes in how changes of the agent's configuration went.
func (a *agent) receive(c *report.Configuration) (keep bool) {
	before := a.configuration
	a.configuration = c
	if runs := ofHub(c.Documents); a.Runs == nil || !slices.Equal(runs, a.Runs) {
		a.Runs, keep = runs, true
	}
	if len(c.Receipts) == 0 {
		return keep
	}
	name := func(r report.Receipt) string {
		return r.Time.UTC().Format(time.RFC3339Nano) + " " + r.Outcome + " " + r.Hash
	}
	news := c.Receipts
	if i := slices.IndexFunc(news, func(r report.Receipt) bool { return short(name(r)) == a.Receipt }); i >= 0 {
		news = news[i+1:]
	} else if a.Receipt == "" && before == nil {
		news = nil // it came with them
	}
	for _, r := range news {
		switch {
		case r.Outcome == report.Applied && r.Source != "start":
			a.event("configured", fmt.Sprintf("runs %s, as %s asked", r.Hash, r.Source))
		case r.Outcome == report.Refused:
			a.event("refused", fmt.Sprintf("%s, which %s asked for: %s", r.Hash, r.Source, r.Error))
		case r.Outcome == report.RolledBack:
			a.event("rolled_back", fmt.Sprintf("from %s, which %s asked for: %s", r.Hash, r.Source, r.Error))
		}
	}
	last := short(name(c.Receipts[len(c.Receipts)-1]))
	keep = keep || last != a.Receipt
	a.Receipt = last
	return keep
}

// ofHub returns how the hub's documents are at an agent, in bounds. It is not nil.
func ofHub(list []report.Document) []report.Document {
	runs := []report.Document{}
	for _, d := range list {
		if d.Source == "hub" && len(runs) < maxRuns {
			runs = append(runs, report.Document{
				Name: short(d.Name), Source: d.Source, Version: short(d.Version), Hash: short(d.Hash), Status: short(d.Status), Error: short(d.Error),
			})
		}
	}
	return runs
}

// stage returns where the agent is in its life. a.mu is held.
func (a *agent) stage() string {
	switch {
	case a.Connection != api.Connected || a.Type != control.AgentType:
		return "unknown"
	case !a.ours() && a.State != "":
		return a.State
	case a.life != nil:
		return a.life.State
	case a.health.GetStatus() != "": // an older agent
		return a.health.GetStatus()
	}
	return "unknown"
}

// documented returns what package documents sees of the agent. a.mu is held.
func (a *agent) documented() documents.Agent {
	x := documents.Agent{
		ID: a.ID, Name: a.Name, Labels: a.selectable(), Connected: a.Connection == api.Connected, Remote: a.told.remote, Placement: a.placed(),
	}
	x.Cursors = a.cursors
	x.Here = x.Connected && a.Hub == a.r.o.Hub && a.broke.IsZero()
	x.Settled = x.Here && a.settled(x.Placement)
	if a.configuration != nil {
		x.Documents = a.configuration.Documents
		if x.Documents == nil {
			x.Documents = []report.Document{}
		}
	}
	if !a.ours() {
		x.Remote, x.Documents = a.Remote, a.Runs
	}
	return x
}

// settled reports whether the agent has said, since p is what it is to run, that it does, and nothing else was offered to it in
// this connection. a.mu is held.
func (a *agent) settled(p *documents.Placement) bool {
	s := &a.told
	switch {
	case p.Offer == nil || !s.described || s.offered != "" && s.offered != p.Hash || !s.said.After(a.placedAt):
		return false
	case s.remote.Hash == "": // it has never had any
		return s.offered == "" && len(p.Offer.Documents) == 0
	}
	return s.remote.Hash == p.Hash && s.remote.Status == control.Applied
}

// Documented returns the creel agents, for package documents.
func (r *Registry) Documented() []documents.Agent {
	var list []documents.Agent
	for _, a := range r.all() {
		a.mu.Lock()
		if a.Type == control.AgentType {
			list = append(list, a.documented())
		}
		a.mu.Unlock()
	}
	return list
}

// A Candidate is an agent on which documents can be placed.
type Candidate struct {
	ID      string
	Name    string
	Labels  map[string]string // as selectors see them
	Hub     string            // that it is or was connected to
	There   bool              // it is connected, or may be: it has been heard within three heartbeats
	Broke   time.Time         // when this hub heard that its connection broke without a word; zero: it did not
	Working bool              // it takes documents, and is not held by anybody

	// Leased is until when it may believe that it has a lease, by this hub's clock. Of an agent that is connected to another
	// hub it is always some time ahead.
	Leased time.Time
}

// Candidates returns the creel agents of all hubs. It is called often.
func (r *Registry) Candidates() []Candidate {
	var list []Candidate
	for _, a := range r.all() {
		a.mu.Lock()
		if a.Type == control.AgentType {
			takes := a.told.capabilities == 0 || a.told.capabilities&uint64(protobufs.AgentCapabilities_AgentCapabilities_AcceptsRemoteConfig) != 0
			if !a.ours() && a.session.revision > 0 && a.broke.IsZero() {
				a.leasedFor(a.far())
			}
			list = append(list, Candidate{
				ID: a.ID, Name: a.Name, Labels: a.selectable(), Hub: a.Hub, There: a.Connection == api.Connected, Broke: a.broke,
				Working: takes && a.State != life.Paused, Leased: a.leased,
			})
		}
		a.mu.Unlock()
	}
	return list
}

// Heard returns a revision of the control state up to which this hub has heard of all sessions of agents.
func (r *Registry) Heard() int64 { return r.heard.Load() }

// intended returns what the hub wants of the agent. a.mu is held.
func (a *agent) intended() api.Intended {
	x := a.documented()
	in := api.Intended{Documents: x.Placed(), Conflict: x.Placement.Conflict}
	if o := a.order(); o.ID != "" {
		in.Order = a.apiOrder(o)
	}
	if a.life != nil {
		in.Life = *a.life
	}
	if a.configuration != nil {
		in.Configuration = *a.configuration
	}
	return in
}

// order is the last order for an agent.
type order struct {
	control.Order
	revision int64 // of the control state
}

// order returns the last one, without an ID if there is none. a.mu is held.
func (a *agent) order() control.Order {
	a.r.mu.Lock()
	defer a.r.mu.Unlock()
	return a.r.orders[a.ID].Order
}

func (a *agent) apiOrder(o control.Order) *api.Order {
	return &api.Order{ID: o.ID, Do: o.Do, By: o.By, Cause: o.Cause, Time: o.Time, Done: o.ID == a.Done}
}

// commands are what can be ordered.
var commands = []string{"pause", "resume", "drain", "restart", "stop"}

// Order asks an agent (that with an id, or the only one whose id begins so or that is called so) to do something. It is told
// at once if it is connected, else when it connects, until it has said that it is done; a newer order replaces an older one.
// Only agents within a condition on their labels are meant. The error is an *api.Error.
func (r *Registry) Order(ctx context.Context, within expr.Selector, id, do, by, cause string) (api.Order, error) {
	if !slices.Contains(commands, do) {
		return api.Order{}, &api.Error{Code: "bad_request", Message: fmt.Sprintf("do must be one of %s, got %q", strings.Join(commands, ", "), do)}
	}
	a, err := r.find(within, id)
	if err != nil {
		return api.Order{}, err
	}
	a.mu.Lock()
	kind, role := a.Type, a.Labels[roleLabel]
	a.mu.Unlock()
	switch {
	case kind != control.AgentType:
		return api.Order{}, &api.Error{Code: "bad_request", Message: fmt.Sprintf("agent %s is not creel's and takes no orders", a.ID)}
	case role == "hub" && (do == "restart" || do == "stop"):
		return api.Order{}, &api.Error{Code: "bad_request", Message: fmt.Sprintf("agent %s is a part of a hub, which would end with it: %s the hub where it runs", a.ID, do)}
	}
	o := control.Order{ID: uuid.Must(uuid.NewV7()).String(), Do: do, By: short(by), Cause: short(cause), Time: time.Now().UTC()}
	value, err := json.Marshal(o)
	if err != nil {
		return api.Order{}, fmt.Errorf("encode the order: %w", err)
	}
	revision, err := r.o.Store.Put(ctx, ordersPrefix+a.ID, value, false, state.Always())
	if err != nil {
		return api.Order{}, &api.Error{Code: "unavailable", Message: fmt.Sprintf("the control state cannot do this now: %v; nothing was ordered", err)}
	}
	r.ordered(state.Entry{Key: ordersPrefix + a.ID, Value: value, Revision: revision})
	a.mu.Lock()
	defer a.mu.Unlock()
	return *a.apiOrder(o), nil
}

// ordered takes in an order that this hub or another was asked for just now.
func (r *Registry) ordered(e state.Entry) {
	a, o := r.keepOrder(e)
	if a == nil {
		return
	}
	a.mu.Lock()
	if a.ours() { // else its record is another hub's
		a.event("ordered", strings.TrimSuffix(fmt.Sprintf("%s, by %s: %s", o.Do, o.By, o.Cause), ": "))
		a.save()
	}
	a.mu.Unlock()
	a.tell()
	r.notify()
}

// keepOrder notes an order, and returns whom it is for if it is news and that one is known.
func (r *Registry) keepOrder(e state.Entry) (*agent, control.Order) {
	id := strings.TrimPrefix(e.Key, ordersPrefix)
	o := order{revision: e.Revision}
	if e.Value != nil {
		if err := json.Unmarshal(e.Value, &o.Order); err != nil {
			r.o.Log.Error("an order cannot be read and is left out", "key", e.Key, "error", err)
			return nil, o.Order
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.orders[id].revision >= e.Revision {
		return nil, o.Order
	}
	r.orders[id] = o
	return r.agents[id], o.Order
}

// allOrdered takes in all orders that there are.
func (r *Registry) allOrdered(list []state.Entry, _ int64) {
	for _, e := range list {
		if a, _ := r.keepOrder(e); a != nil {
			a.tell()
		}
	}
}
