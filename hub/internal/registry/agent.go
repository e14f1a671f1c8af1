package registry

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/hub/internal/documents"
	"github.com/creelhq/creel/report"
)

const (
	agentsPrefix   = "agents/"
	sessionsPrefix = "sessions/"
	timelineLength = 50
	maxLabels      = 64
	maxText        = 1 << 10 // of a label, a name, a cause
)

// record is what is kept of an agent in the control state.
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
	Timeline   []api.Event       `json:"timeline"` // oldest first

	State   string   `json:"state,omitempty"`   // of its life
	Receipt string   `json:"receipt,omitempty"` // which of its receipts the timeline has last
	Refused []string `json:"refused,omitempty"` // hashes of offers that have failed there; the last is the latest
	Done    string   `json:"done,omitempty"`    // the id of the last order that it did
}

// An agent is what the registry knows of one.
type agent struct {
	r *Registry

	mu sync.Mutex
	record
	conn  *control.Conn // nil: none, or it polls
	timer *time.Timer   // until it is lost; nil while it is connected
	broke time.Time     // when the connection broke without a word; zero: it did not
	since time.Time     // when it came
	seq   uint64

	leased time.Time // until when it may believe that it has a lease; with the monotonic clock, which nobody can set

	health     *protobufs.ComponentHealth
	components []report.Component
	routes     []report.Route
	ledger     report.Ledger
	effective  string

	life          *report.Life          // nil: it has not told
	configuration *report.Configuration // likewise
	session       wanted                // what this connection was told
	set           *documents.Set        // that placement is of
	placement     *documents.Placement
	placedAt      time.Time // when placement came to be what it is

	before time.Time // when the run began that an earlier process of the hub heard of last
	run    *run      // nil: no report since the hub was started

	now  sample
	past []sample // oldest first; what rates are reckoned from is the first
}

// Rates are over rateWindow at least, for what many collectors do they do in rounds; a sample is kept each rateStep.
const (
	rateWindow = 10.0 // seconds
	rateStep   = rateWindow / 4
)

// sample is what an agent had counted at a moment.
type sample struct {
	uptime     float64
	ledger     report.Ledger
	components []report.Component
}

// event adds to the timeline. a.mu is held.
func (a *agent) event(kind, cause string) {
	cause = short(cause)
	if n := len(a.Timeline); n > 0 && a.Timeline[n-1].Kind == kind && a.Timeline[n-1].Cause == cause {
		a.Timeline[n-1].Time = time.Now().UTC() // once more
	} else {
		a.Timeline = append(a.Timeline, api.Event{Time: time.Now().UTC(), Kind: kind, Cause: cause})
	}
	if n := len(a.Timeline); n > timelineLength {
		a.Timeline = slices.Delete(a.Timeline, 0, n-timelineLength)
	}
}

func short(s string) string {
	if len(s) > maxText {
		return strings.ToValidUTF8(s[:maxText], "") + "…"
	}
	return s
}

// save has the record kept. a.mu is held.
func (a *agent) save() { a.r.keeper.put(agentsPrefix+a.ID, a.record, false) }

// connect notes that the agent is there: with a connection, or polling if conn is nil.
func (a *agent) connect(conn *control.Conn, who visitor, from string) {
	a.mu.Lock()
	old := a.conn
	a.conn, a.session, a.broke = conn, wanted{}, time.Time{}
	a.known(who)
	if a.timer != nil {
		a.timer.Stop()
		a.timer = nil
	}
	fresh := a.Connection != api.Connected
	if fresh {
		a.r.connected.Add(1)
	}
	a.Connection, a.Cause, a.Hub = api.Connected, "", a.r.o.Hub
	a.LastSeen = time.Now().UTC()
	if fresh || conn != nil {
		a.event("connected", "from "+from)
	}
	a.since = a.LastSeen
	a.save()
	a.keepSession()
	a.mu.Unlock()
	if old != nil && old != conn {
		go old.Close(goingAway, "the agent has connected again, from "+from)
	}
	a.r.notify()
}

// presence is what other hubs see of a connection.
type presence struct {
	Hub   string    `json:"hub"`
	Since time.Time `json:"since"`
}

// keepSession has it kept that the agent is connected here. a.mu is held.
func (a *agent) keepSession() {
	a.r.keeper.put(sessionsPrefix+a.ID, presence{Hub: a.r.o.Hub, Since: a.since}, true)
}

// keepSessions has it kept again what was lost with the hub's lease, each time.
func (r *Registry) keepSessions(ctx context.Context) {
	for {
		select {
		case <-r.o.Store.Lost():
		case <-ctx.Done():
			return
		}
		r.o.Log.Warn("the hub has lost its lease in the control state, because it could not reach it for too long; it gets another")
		for _, a := range r.all() {
			a.mu.Lock()
			if a.Connection == api.Connected {
				a.keepSession()
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

// left notes that a connection is over. The agent is lost three heartbeats after it was heard last, if it does not come
// back before; at once disconnected if it said goodbye.
func (a *agent) left(conn *control.Conn, cause string, goodbye bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.conn != conn || a.Connection != api.Connected {
		return // it has come back already
	}
	a.conn = nil
	if goodbye {
		a.gone(api.Disconnected, cause)
		return
	}
	a.broke = time.Now()
	a.wait(cause, a.LastSeen)
	a.r.notify()
}

// wait gives the agent until three heartbeats after heard. a.mu is held.
func (a *agent) wait(cause string, heard time.Time) {
	a.Cause = short(cause)
	after := time.Until(heard.Add(missed * a.r.Heartbeat()))
	if a.timer != nil {
		a.timer.Stop()
	}
	var t *time.Timer
	t = time.AfterFunc(max(after, 0), func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.timer == t && a.Connection == api.Connected {
			a.gone(api.Lost, fmt.Sprintf("%s; three heartbeats missed", cause))
		}
	})
	a.timer = t
}

// gone ends a session. a.mu is held.
func (a *agent) gone(c api.Connection, cause string) {
	a.Connection, a.Cause, a.timer = c, short(cause), nil
	a.now, a.past = sample{}, nil // no rates any more
	a.event(string(c), cause)
	a.r.connected.Add(-1)
	a.r.keeper.delete(sessionsPrefix + a.ID)
	a.save()
	a.r.notify()
	a.r.o.Log.Info("agent "+string(c), "agent", a.ID, "name", a.Name, "cause", cause)
}

// lease reports whether the agent may have a lease of now, which it is given then.
func (a *agent) lease() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.sure(a.placed()) {
		return false
	}
	a.session.given = time.Now().Add(a.r.Lease())
	if a.session.given.After(a.leased) {
		a.leased = a.session.given
	}
	return true
}

// heard notes a sign of life.
func (a *agent) heard() {
	a.mu.Lock()
	a.LastSeen = time.Now().UTC()
	a.mu.Unlock()
}

// report takes in what an agent says. full tells that the agent must tell everything.
func (a *agent) report(m *protobufs.AgentToServer, beat *control.Beat, first bool) (full bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.LastSeen, a.session.said = time.Now().UTC(), time.Now()
	keep := false
	full = m.AgentDescription == nil && (first || m.SequenceNum != a.seq+1)
	a.seq, a.session.capabilities = m.SequenceNum, m.Capabilities
	if d := m.AgentDescription; d != nil {
		keep = a.describe(d) || keep
		a.session.described = true
	}
	was, _ := a.verdict()
	if h := m.Health; h != nil {
		keep = a.judge(h) || keep
	}
	if beat != nil {
		a.session.trusts = cmp.Or(beat.Authorities, a.session.trusts)
		keep = a.tells(beat) || keep
	}
	if s := m.RemoteConfigStatus; s != nil {
		keep = a.took(control.RemoteStatusOf(s)) || keep
	}
	if e := m.EffectiveConfig; e != nil {
		keep = a.configured(configText(e)) || keep
	}
	if beat != nil {
		a.count(beat)
	}
	if is, cause := a.verdict(); is != was && (was != "unknown" || is != report.Healthy) {
		a.event(is, cause)
		keep = true
	}
	if keep {
		a.save()
	}
	return full
}

// describe takes in who the agent is, and reports whether that is new.
func (a *agent) describe(d *protobufs.AgentDescription) bool {
	attrs := make(map[string]string)
	for _, list := range [][]*protobufs.KeyValue{d.IdentifyingAttributes, d.NonIdentifyingAttributes} {
		for _, kv := range list {
			if len(attrs) < maxLabels {
				attrs[short(kv.GetKey())] = short(text(kv.GetValue()))
			}
		}
	}
	kind, version := attrs["service.name"], attrs["service.version"]
	instance := attrs["service.instance.id"]
	for _, k := range []string{"service.name", "service.version", "service.instance.id"} {
		delete(attrs, k)
	}
	if a.session.identified {
		delete(attrs, roleLabel) // a hub's own agent needs no identity there
	}
	maps.Copy(attrs, a.Pinned)
	name := cmp.Or(attrs["host.name"], instance, a.ID)
	same := a.Name == name && a.Type == kind && a.Version == version && fmt.Sprint(a.Labels) == fmt.Sprint(attrs)
	a.Name, a.Type, a.Version, a.Labels = name, kind, version, attrs
	if !same {
		a.set = nil // other labels may be selected by other documents
	}
	return !same
}

func text(v *protobufs.AnyValue) string {
	switch v := v.GetValue().(type) {
	case *protobufs.AnyValue_StringValue:
		return v.StringValue
	case *protobufs.AnyValue_BoolValue:
		return fmt.Sprint(v.BoolValue)
	case *protobufs.AnyValue_IntValue:
		return fmt.Sprint(v.IntValue)
	case *protobufs.AnyValue_DoubleValue:
		return fmt.Sprint(v.DoubleValue)
	}
	return ""
}

// judge takes in the agent's health, and reports whether it is worth keeping.
func (a *agent) judge(h *protobufs.ComponentHealth) (keep bool) {
	a.health = h
	if started := time.Unix(0, int64(h.StartTimeUnixNano)).UTC(); h.StartTimeUnixNano != 0 && !started.Equal(a.Started) {
		if !a.Started.IsZero() {
			a.event("started", "")
		}
		a.Started, keep = started, true
	}
	if a.Type != control.AgentType { // a creel agent tells of its components in its Beats
		a.components = flatten(nil, "", h)
	}
	return keep
}

// verdict returns the agent's health in a word, and the first cause if it is not healthy. An agent that has records
// unexplained on their way to the hub is not, though it does not know of it.
func (a *agent) verdict() (health, cause string) {
	switch {
	case a.health == nil:
		return "unknown", ""
	case a.health.Healthy:
		if cause := a.run.cause(); cause != "" {
			return report.Degraded, cause
		}
		return report.Healthy, ""
	case a.health.LastError != "":
		return report.Degraded, a.health.LastError
	}
	for _, c := range flatten(nil, "", a.health) {
		if !c.Healthy && c.Error != "" {
			return report.Degraded, c.Component + ": " + c.Error
		}
	}
	return report.Degraded, a.health.Status
}

// flatten makes a list of a tree of components.
func flatten(list []report.Component, path string, h *protobufs.ComponentHealth) []report.Component {
	names := make([]string, 0, len(h.ComponentHealthMap))
	for name := range h.ComponentHealthMap {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		c := h.ComponentHealthMap[name]
		if len(list) >= 10_000 || strings.Count(path, "/") > 16 {
			return list
		}
		one := report.Component{Component: path + name, Plugin: c.GetStatus(), Healthy: c.GetHealthy(), Error: c.GetLastError()}
		if t := c.GetStatusTimeUnixNano(); t != 0 {
			one.Since = time.Unix(0, int64(t)).UTC()
		}
		list = flatten(append(list, one), path+name+"/", c)
	}
	return list
}

func configText(e *protobufs.EffectiveConfig) string {
	files := e.GetConfigMap().GetConfigMap()
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	var b strings.Builder
	for _, name := range names {
		if len(names) > 1 {
			fmt.Fprintf(&b, "# %s\n", name)
		}
		b.Write(files[name].GetBody())
		if len(names) > 1 {
			b.WriteByte('\n')
		}
	}
	return strings.ToValidUTF8(b.String(), "\uFFFD")
}

// configurationID names a configuration by its text.
func configurationID(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:6])
}

// configured takes in the configuration that runs, and reports whether it is another than before.
func (a *agent) configured(text string) bool {
	before := a.Config
	id := a.r.runs(a.ID, before, text)
	a.effective, a.Config = text, id
	if id == before {
		return false
	}
	if before != "" && a.configuration == nil { // else its receipts say more
		a.event("configured", "runs "+id+", before "+before)
	}
	return true
}

// count takes in a heartbeat of a creel agent.
func (a *agent) count(b *control.Beat) {
	if b.Components != nil {
		a.components = b.Components
	}
	if b.Routes != nil {
		a.routes = b.Routes
	}
	if b.Ledger != nil {
		a.ledger = *b.Ledger
	}
	s := sample{b.Uptime, a.ledger, a.components}
	if a.now.uptime > b.Uptime { // it was started again
		a.past = nil
	}
	if n := len(a.past); n == 0 || s.uptime-a.past[n-1].uptime >= rateStep {
		a.past = append(a.past, s)
	}
	for len(a.past) > 1 && s.uptime-a.past[1].uptime >= rateWindow {
		a.past = a.past[1:]
	}
	a.now = s
	a.follow()
}
