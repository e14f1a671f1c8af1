package control

import (
	"cmp"
	"maps"
	"reflect"
	"runtime"
	"slices"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"

	"github.com/creelhq/creel/report"
)

// send tells the hub everything, or what has changed; a Beat always.
func (s *session) send(full bool) error {
	a, k := &s.c.o.Agent, &s.known
	if full {
		*k = known{}
	}
	s.seq++
	m := &protobufs.AgentToServer{InstanceUid: s.uid, SequenceNum: s.seq, Capabilities: a.capabilities()}
	if labels := a.Labels(); full || !maps.Equal(labels, k.labels) {
		m.AgentDescription, k.labels = describe(a, labels), labels
	}
	if full {
		m.CustomCapabilities = &protobufs.CustomCapabilities{Capabilities: []string{Capability}}
	}
	h, components := a.Health(), a.Components()
	if now := componentHealth(h, components); k.health == nil || !reflect.DeepEqual(plain(k.health), plain(now)) {
		m.Health, k.health = now, now
	}
	if now := string(a.Effective()); now != k.effective {
		m.EffectiveConfig = &protobufs.EffectiveConfig{ConfigMap: &protobufs.AgentConfigMap{ConfigMap: map[string]*protobufs.AgentConfigFile{
			"": {Body: []byte(now), ContentType: "application/json"},
		}}}
		k.effective = now
	}
	if a.Remote != nil {
		if now := a.Remote(); now != k.remote {
			m.RemoteConfigStatus, k.remote = now.message(), now
		}
	}
	s.nonce++
	m.CustomMessage = s.beat(h, components).Message()
	if len(s.sent) > queued { // a hub that gives no lease
		clear(s.sent)
	}
	s.spoke = time.Now()
	s.sent[s.nonce] = s.spoke
	return s.conn.Send(m)
}

func (s *session) beat(h report.Health, components []report.Component) *Beat {
	a, k := &s.c.o.Agent, &s.known
	b := &Beat{Nonce: s.nonce, Uptime: time.Since(h.Started).Seconds()}
	if !reflect.DeepEqual(components, k.components) { // they have pointers
		b.Components, k.components = components, components
	}
	if routes := a.Routes(); !reflect.DeepEqual(routes, k.routes) {
		b.Routes, k.routes = routes, routes
	}
	if ledger := a.Ledger(); k.ledger == nil || !reflect.DeepEqual(ledger, *k.ledger) {
		b.Ledger, k.ledger = &ledger, &ledger
	}
	if a.Life != nil {
		if life := a.Life(); k.life == nil || !reflect.DeepEqual(life, *k.life) {
			b.Life, k.life = &life, &life
		}
	}
	if a.Configuration != nil {
		if c := a.Configuration(); k.configuration == nil || !reflect.DeepEqual(c, *k.configuration) {
			b.Configuration, k.configuration = &c, &c
		}
	}
	if a.Cursors != nil { // after Configuration: who is not to have a document any more has saved nothing of it since
		b.Cursors = k.fresh(a.Cursors())
	}
	if a.Done != nil {
		if done := a.Done(); done != k.done {
			b.Done, k.done = done, done
		}
	}
	if a.Services != nil {
		if now := append([]Service{}, a.Services()...); k.services == nil || !reflect.DeepEqual(now, k.services) {
			b.Services, k.services = now, now
		}
	}
	if a.Trusted != nil {
		if now := a.Trusted(); now != k.authorities {
			b.Authorities, k.authorities = now, now
		}
	}
	return b
}

// capabilities says what the agent reports and takes.
func (a *Agent) capabilities() uint64 {
	c := protobufs.AgentCapabilities_AgentCapabilities_ReportsStatus |
		protobufs.AgentCapabilities_AgentCapabilities_ReportsEffectiveConfig |
		protobufs.AgentCapabilities_AgentCapabilities_ReportsHealth |
		protobufs.AgentCapabilities_AgentCapabilities_ReportsHeartbeat
	if a.Offered != nil {
		c |= protobufs.AgentCapabilities_AgentCapabilities_AcceptsRemoteConfig
	}
	if a.Remote != nil {
		c |= protobufs.AgentCapabilities_AgentCapabilities_ReportsRemoteConfig
	}
	return uint64(c)
}

// AgentType is the service.name that creel's agents report.
const AgentType = "creel"

func describe(a *Agent, labels map[string]string) *protobufs.AgentDescription {
	d := &protobufs.AgentDescription{IdentifyingAttributes: []*protobufs.KeyValue{
		stringAttr("service.name", AgentType), stringAttr("service.instance.id", a.ID), stringAttr("service.version", a.Version),
	}}
	for k, v := range labels {
		d.NonIdentifyingAttributes = append(d.NonIdentifyingAttributes, stringAttr(k, v))
	}
	if _, ok := labels["os.type"]; !ok {
		d.NonIdentifyingAttributes = append(d.NonIdentifyingAttributes, stringAttr("os.type", runtime.GOOS))
	}
	slices.SortFunc(d.NonIdentifyingAttributes, func(x, y *protobufs.KeyValue) int { return cmp.Compare(x.Key, y.Key) })
	return d
}

func stringAttr(key, value string) *protobufs.KeyValue {
	return &protobufs.KeyValue{Key: key, Value: &protobufs.AnyValue{Value: &protobufs.AnyValue_StringValue{StringValue: value}}}
}

// componentHealth is health as OpAMP puts it: a tree of the agent and its components.
func componentHealth(h report.Health, components []report.Component) *protobufs.ComponentHealth {
	root := &protobufs.ComponentHealth{
		Healthy: h.Health == report.Healthy, Status: h.State, StartTimeUnixNano: uint64(h.Started.UnixNano()),
		ComponentHealthMap: make(map[string]*protobufs.ComponentHealth, len(components)),
	}
	for _, c := range components {
		one := &protobufs.ComponentHealth{Healthy: c.Healthy, LastError: c.Error, Status: c.Plugin}
		if !c.Since.IsZero() {
			one.StatusTimeUnixNano = uint64(c.Since.UnixNano())
		}
		if !c.Healthy && root.LastError == "" {
			root.LastError = c.Component + ": " + c.Error
		}
		root.ComponentHealthMap[c.Component] = one
	}
	return root
}

// plainHealth is the part of a ComponentHealth whose change is worth a message.
type plainHealth struct {
	healthy     bool
	status, err string
	components  map[string]plainHealth
}

func plain(h *protobufs.ComponentHealth) plainHealth {
	p := plainHealth{healthy: h.Healthy, status: h.Status, err: h.LastError}
	if len(h.ComponentHealthMap) > 0 {
		p.components = make(map[string]plainHealth, len(h.ComponentHealthMap))
		for k, v := range h.ComponentHealthMap {
			p.components[k] = plain(v)
		}
	}
	return p
}
