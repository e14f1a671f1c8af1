package agent

import (
	"crypto/tls"
	"fmt"

	"github.com/creelhq/creel/agent/change"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/report"
)

// connect makes the client that tells the hub of this agent, and hears what the hub wants of it.
func (a *agent) connect(address string) (*control.Client, error) {
	u, err := control.HubURL(address)
	if err != nil {
		return nil, fmt.Errorf("read the hub's URL: %w", err)
	}
	log := a.log.With("component", "agent.hub")
	var secure *tls.Config
	if u.Scheme == "https" {
		if secure, err = a.own.Hub.TLS.Config(u.Hostname(), a.Identity, log); err != nil {
			return nil, fmt.Errorf("read agent.hub.tls: %w", err)
		}
	}
	return control.NewClient(control.ClientOptions{URL: address, TLS: secure, Log: log, Tracer: a.tracer, Agent: control.Agent{
		ID: a.dir.id, Version: a.Version, Labels: a.said,
		Health: a.health, Components: a.components, Routes: a.engine.Routes, Ledger: a.engine.Ledger,
		Effective: func() []byte { return effectiveJSON(a.engine.Plan()) },
		Life:      a.life.Life, Configuration: a.changes.Report, Remote: a.remote, Done: a.done, Offered: a.offered, Ordered: a.ordered,
	}})
}

// notify has the hub told at once of what has changed.
func (a *agent) notify() {
	if a.hub != nil {
		a.hub.Notify()
	}
}

// said is what is said of this agent.
func (a *agent) said() map[string]string { return a.now().Labels }

// offered takes in what the hub wants the agent to run.
func (a *agent) offered(o *control.Offer) {
	p := make(change.Pieces, len(o.Documents))
	for i, d := range o.Documents {
		p[i] = change.Document{Name: d.Name, Version: d.Version, Text: []byte(d.Text)}
	}
	a.changes.Offer(HubSource, o.Hash(), p)
}

// remote says what became of it.
func (a *agent) remote() control.RemoteStatus {
	s := control.RemoteStatus{}
	var status string
	s.Hash, status, s.Error = a.changes.Status(HubSource)
	switch {
	case s.Hash == "":
	case status == report.Refused || status == report.RolledBack:
		s.Status = control.Failed
	case status == change.Waiting:
		s.Status = control.Applying
	default:
		s.Status = control.Applied
	}
	return s
}

// done returns the ID of the hub's last order that was done.
func (a *agent) done() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.kept.Order
}
