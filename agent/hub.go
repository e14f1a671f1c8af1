package agent

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/creelhq/creel/agent/change"
	"github.com/creelhq/creel/agent/identity"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/report"
	"github.com/creelhq/creel/tlsconf"
)

// connect makes the client that tells the hub of this agent, and hears what the hub wants of it.
func (a *agent) connect() (*control.Client, error) {
	urls := a.own.Hub.URL
	for _, text := range urls {
		u, err := control.HubURL(text)
		if err != nil {
			return nil, fmt.Errorf("read the hub's URL: %w", err)
		}
		if _, _, err := a.secure(u); err != nil && u.Scheme == "https" {
			return nil, fmt.Errorf("read agent.hub.tls: %w", err)
		}
	}
	c := control.ClientOptions{URLs: urls, Known: a.hubs.known(), Balance: control.Balance(a.own.Hub.Balance), Stay: a.Stay, TLS: a.secure, Log: a.hubLog(), Tracer: a.tracer, Agent: control.Agent{
		ID: a.dir.id, Version: a.Version, Labels: a.said,
		Health: a.health, Components: a.components, Routes: a.engine.Routes, Ledger: a.engine.Ledger,
		Effective: a.effectiveJSON,
		Life:      a.life.Life, Configuration: a.configuration, Remote: a.remote, Done: a.done, Offered: a.offered, Ordered: a.ordered, Services: a.services, Cursors: a.saved,
		Hubs:   a.hubs.learn,
		Leased: a.terms.lease,
	}}
	if i := a.joined; i != nil && a.hubOptions().Identity { // else the hub may be another one
		c.Agent.Trusted, c.Agent.Trust, c.Agent.Refused = i.Trusted, i.Trust, i.Refused
	}
	return control.NewClient(c)
}

func (a *agent) hubLog() *slog.Logger { return a.log.With("component", "agent.hub") }

// hubOptions say what TLS to a hub is like.
func (a *agent) hubOptions() tlsconf.Client {
	options := a.own.Hub.TLS
	if options == (tlsconf.Client{}) && a.hubs.joined != "" {
		options.Identity = true
	}
	return options
}

// secure returns the configuration of TLS to a hub, and whether it is by the agent's identity.
func (a *agent) secure(hub *url.URL) (*tls.Config, bool, error) {
	options := a.hubOptions()
	c, err := options.Config(hub.Hostname(), a.Identity, a.hubLog())
	return c, options.Identity, err
}

// join finds out which hub the agent has joined, if it has, and connects it to that where nothing else is said.
func (a *agent) join() error {
	if a.Identity != nil {
		return nil
	}
	o := identity.Options{Log: a.log.With("component", identityComponent)}
	if a.own.Hub.TLS.Identity && len(a.own.Hub.URL) > 0 {
		o.URL = a.own.Hub.URL[0]
	}
	i, err := identity.Open(IdentityDir(a.Data), o)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if i.Agent() != a.dir.id {
		return fmt.Errorf("the identity in %s is agent %s's, but this is agent %s; creel join URL --token TOKEN makes this one the hub's", IdentityDir(a.Data), i.Agent(), a.dir.id)
	}
	a.joined, a.Identity = i, i
	a.own.Hub.URL = a.hubURL(a.own.Hub.URL)
	a.settings.Hub.URL = a.own.Hub.URL
	return nil
}

// identityComponent is what trouble with the identity is told of.
const identityComponent = "agent.identity"

// hubURL returns where hubs are, if the configuration says that they are at urls.
func (a *agent) hubURL(urls []string) []string {
	switch {
	case a.Hub != "":
		return []string{a.Hub}
	case len(urls) == 0 && a.joined != nil:
		return []string{a.joined.Addresses().URL}
	}
	return urls
}

// sameHub reports whether two URLs are of one hub.
func sameHub(a, b string) bool {
	x, errX := control.HubURL(a)
	y, errY := control.HubURL(b)
	return errX == nil && errY == nil && x.Scheme == y.Scheme && strings.EqualFold(x.Host, y.Host) && strings.Trim(x.Path, "/") == strings.Trim(y.Path, "/")
}

// hubState is how the connection to the hub is, and the identity.
func (a *agent) hubState() report.Hub {
	var h report.Hub
	if a.hub != nil {
		h = a.hub.State()
	}
	if a.joined != nil {
		s := a.joined.Status()
		h.Identity = &s
	}
	return h
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
		p[i] = change.Document{Name: d.Name, Version: d.Version, Text: []byte(d.Text), Terms: d.Tenure.String()}
	}
	a.terms.want(p)
	a.changes.Offer(HubSource, o.Hash(), p)
}

// offerOf is the offer that has become p.
func offerOf(p change.Pieces) *control.Offer {
	o := &control.Offer{Documents: make([]control.OfferedDocument, len(p))}
	for i, d := range p {
		o.Documents[i] = control.OfferedDocument{Name: d.Name, Version: d.Version, Text: string(d.Text), Tenure: control.ParseTenure(d.Terms)}
	}
	return o
}

// configuration is what the agent says of its configuration, of what documents cost, and of those that are to be done once.
func (a *agent) configuration() report.Configuration {
	c, results, costs := a.changes.Report(), a.engine.Results(), a.costs.look(time.Now(), a.engine.Efforts)
	for i := range c.Documents {
		d := &c.Documents[i]
		if d.Source == HubSource {
			d.Cost = costs[d.Name]
		}
		r, over := results[d.Name]
		if !over || d.Source != HubSource || d.Version != r.Version || d.Status != report.Running {
			continue
		}
		d.Status, d.Epoch, d.Ended = report.Done, r.Epoch, r.Ended.UTC()
		if r.Err != nil {
			d.Status, d.Error = report.Failure, r.Err.Error()
		}
	}
	return c
}

// remote says what became of it.
func (a *agent) remote() control.RemoteStatus {
	s := control.RemoteStatus{}
	var status string
	s.Hash, status, s.Error = a.changes.Status(HubSource)
	if s.Hash == "" { // it was started with what the hub has offered to an earlier run: else that could not be taken away again
		if p := a.changes.Running()[HubSource]; len(p) > 0 {
			s = control.RemoteStatus{Hash: offerOf(p).Hash()}
		}
	}
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
