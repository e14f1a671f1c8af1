package registry

import (
	"cmp"
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
	"github.com/creelhq/creel/hub/internal/state"
	"github.com/creelhq/creel/report"
)

const (
	timelineLength = 50
	maxLabels      = 64
	maxCursors     = 1000    // documents of which it is remembered how far an agent has come
	maxText        = 1 << 10 // of a label, a name, a cause
)

// An agent is what the registry knows of one.
type agent struct {
	r  *Registry
	ID string // the record's; it never changes, and needs no lock

	mu sync.Mutex
	record
	revision int64 // of the record in the control state; 0: there is none
	read     int64 // the latest revision of it of which this hub has heard
	session  entry
	owed     owed

	// Of an agent that has connected here: held, until it has gone or is another hub's.
	held     bool
	connects int           // how often it has
	claimed  int           // how often it had when its session was written last
	conn     *control.Conn // nil: none, or it polls
	since    time.Time     // when it came
	seq      uint64
	asked    uint64       // the nonce of a Beat that has not been answered with a lease
	under    *state.Lease // on which the session hangs

	timer  *time.Timer // until it is lost; nil while it is connected
	broke  time.Time   // when this hub heard that the connection broke without a word; zero: it did not
	leased time.Time   // until when the agent may believe that it has a lease; with the monotonic clock, which nobody can set

	health     *protobufs.ComponentHealth
	components []report.Component
	routes     []report.Route
	ledger     report.Ledger
	effective  string
	services   []control.Service
	cursors    map[string]documents.Cursor // by document; what it has once shown does not change
	written    map[string]written          // services that this hub has written, by name

	life          *report.Life          // nil: it has not told
	configuration *report.Configuration // likewise
	told          wanted                // what it was told by this connection
	set           *documents.Set        // that placement is of
	placement     *documents.Placement
	placedAt      time.Time // when placement came to be what it is

	before time.Time // when the run began that an earlier process of the hub heard of last
	run    *run      // nil: no report since the hub was started

	now  sample
	past []sample // oldest first; what rates are reckoned from is the first
}

// owed is what is to be written of an agent.
type owed struct {
	record, session bool
	look            bool // at the session, before that: it may be another hub's
	loss            bool // its hub is gone
	services        bool
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

func short(s string) string {
	if len(s) > maxText {
		return strings.ToValidUTF8(s[:maxText], "") + "…"
	}
	return s
}

// connect notes that the agent is there: with a connection, or polling if conn is nil.
func (a *agent) connect(conn *control.Conn, who visitor, from string) {
	a.mu.Lock()
	old := a.conn
	if !a.ours() && a.Connection == api.Connected { // that hub may have leased it until now
		a.leasedFor(a.far())
	}
	fresh := !a.held
	a.conn, a.told, a.broke, a.held, a.asked = conn, wanted{rival: a.rivalOf()}, time.Time{}, true, 0
	a.connects++
	a.known(who)
	a.stopTimer()
	a.at(api.Connected, a.r.o.Hub)
	a.Cause = ""
	a.LastSeen = time.Now().UTC()
	if fresh || conn != nil {
		a.event("connected", "from "+from)
	}
	a.since = a.LastSeen
	a.save()
	a.saveSession()
	a.mu.Unlock()
	if old != nil && old != conn {
		go old.Close(goingAway, "the agent has connected again, from "+from)
	}
	a.r.alter()
}

// left notes that a connection is over. The agent is lost three heartbeats after it was heard last, if it does not come
// back before; at once disconnected if it said goodbye. That this hub ends is not the agent's doing.
func (a *agent) left(conn *control.Conn, cause string, goodbye bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.conn != conn || !a.held {
		return // it has come back already, or is elsewhere
	}
	a.conn = nil
	if goodbye {
		a.gone(api.Disconnected, cause)
		return
	}
	if a.r.ends() {
		return
	}
	a.broke = time.Now()
	a.saveSession()
	a.wait(cause, a.LastSeen)
	a.r.alter()
}

// wait gives the agent until three heartbeats after heard. a.mu is held.
func (a *agent) wait(cause string, heard time.Time) {
	a.Cause = short(cause)
	a.after(time.Until(heard.Add(missed*a.r.Heartbeat())), func() {
		a.gone(api.Lost, fmt.Sprintf("%s; three heartbeats missed", cause))
	})
}

// after calls f later, with a.mu held, unless the timer is stopped or set anew. a.mu is held.
func (a *agent) after(d time.Duration, f func()) {
	a.stopTimer()
	var t *time.Timer
	t = time.AfterFunc(max(d, 0), func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.timer == t {
			a.timer = nil
			f()
		}
	})
	a.timer = t
}

func (a *agent) stopTimer() {
	if a.timer != nil {
		a.timer.Stop()
		a.timer = nil
	}
}

// gone ends a session. a.mu is held.
func (a *agent) gone(c api.Connection, cause string) {
	a.stopTimer()
	a.at(c, a.r.o.Hub)
	a.held, a.Cause = false, short(cause)
	a.now, a.past = sample{}, nil // no rates any more
	a.event(string(c), cause)
	a.save()
	a.saveSession()
	a.saveServices()
	a.r.alter()
	a.r.o.Log.Info("agent "+string(c), "agent", a.ID, "name", a.Name, "cause", cause)
}

// has reports whether a connection is the agent's still.
func (a *agent) has(conn *control.Conn) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.conn == conn
}

// heard notes a sign of life.
func (a *agent) heard() {
	a.mu.Lock()
	a.LastSeen = time.Now().UTC()
	a.mu.Unlock()
}

// report takes in what an agent says. full tells that the agent must tell everything, news that something of it may be other than it
// was for who decides where documents are.
func (a *agent) report(m *protobufs.AgentToServer, beat *control.Beat, first bool) (full, news bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	settled := a.settled(a.placed())
	news = first || m.AgentDescription != nil || m.RemoteConfigStatus != nil || beat != nil && beat.Configuration != nil || a.told.capabilities != m.Capabilities
	a.LastSeen, a.told.said = time.Now().UTC(), time.Now()
	keep := false
	full = m.AgentDescription == nil && (first || m.SequenceNum != a.seq+1)
	a.seq, a.told.capabilities = m.SequenceNum, m.Capabilities
	if d := m.AgentDescription; d != nil {
		keep = a.describe(d) || keep
		a.told.described = true
	}
	if h := m.Health; h != nil {
		keep = a.judge(h) || keep
	}
	if beat != nil {
		trusts := beat.Authorities
		if trusts == "" && !first { // it has not said it again
			trusts = a.Trusts
		}
		keep = a.Trusts != trusts || keep
		a.Trusts = short(trusts)
		a.asked = beat.Nonce
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
	if is, cause := a.verdict(); is != a.Health && is != "unknown" {
		if a.Health != "" || is != report.Healthy {
			a.event(is, cause)
		}
		a.Health, a.Ill, keep = is, short(cause), true
	}
	if keep {
		a.save()
	}
	return full, news || keep || settled != a.settled(a.placed())
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
	if a.Identified {
		delete(attrs, roleLabel) // a hub's own agent needs no identity there
	}
	maps.Copy(attrs, a.Pinned)
	name := cmp.Or(attrs["host.name"], instance, a.ID)
	same := a.Name == name && a.Type == kind && a.Version == version && fmt.Sprint(a.Labels) == fmt.Sprint(attrs)
	a.Name, a.Type, a.Version, a.Labels = name, kind, version, attrs
	if !same {
		a.set = nil // other labels may be selected by other documents
		a.saveSession()
		a.saveServices()
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
	if at := startOf(h); !at.IsZero() {
		keep = a.starts(at)
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
	case a.health == nil && !a.ours():
		return cmp.Or(a.Health, "unknown"), a.Ill
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
	if b.Services != nil {
		a.serves(b.Services)
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
