// Package gate decides which agents come in: it makes and renews their identities, keeps what is known of each in the
// control state, finds out who has copied one, and remembers who was refused and why.
//
// It asks others for certificates, tokens and JWTs, and knows neither how those are made nor what agents do once they are in.
package gate

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/hub/internal/access"
	"github.com/creelhq/creel/hub/internal/state"
	"github.com/creelhq/creel/metric"
)

// Authority makes and verifies certificates.
type Authority interface {
	// IssueAgent certifies an agent's key: PEM of the certificate and those that lead to the authority, and how long it lives.
	IssueAgent(key crypto.PublicKey, p control.Peer) (chainPEM []byte, life time.Duration, err error)
	// Verify returns who a chain is for. The error is a *control.Refusal; when that says Expired, the Peer is right nevertheless.
	Verify(chain []*x509.Certificate) (control.Peer, error)
	// Bundle returns what is to be trusted, PEM.
	Bundle() (pem []byte, fingerprint string)
}

// Tokens knows what agents enrol with, and makes what they send data with.
type Tokens interface {
	// Spend takes one use of an enrolment token. The error is a *control.Refusal when the token is to blame.
	Spend(ctx context.Context, text string) (api.AccessToken, error)
	JWT(p access.Principal, bound *x509.Certificate) (control.AccessToken, error)
}

// Options configure a Gate. Store, Authority and Tokens are required.
type Options struct {
	Store     state.Store
	Authority Authority
	Tokens    Tokens

	System    func() bool                                 // whether agents may trust their systems' authorities as well; nil: they may not
	Addresses func(host string) control.Addresses         // where the hub is, for who has reached it at a host; nil: not told
	Expel     func(agent, why string)                     // ends an agent's connections; it must not block. nil: there are none
	Audit     func(ctx context.Context, e api.AuditEntry) // nil: nobody is told

	// Join lets a hub join that asks from an address. The error is a *control.Refusal when it is to blame. nil: no hub can.
	Join func(ctx context.Context, address string, q control.HubRequest) (*control.HubGrant, error)

	Log     *slog.Logger
	Metrics *metric.Set
	Now     func() time.Time // nil: time.Now
}

// A Gate implements http.Handler for control.EnrolPath, control.RenewPath, control.TokenPath and control.HubPath. Its methods may be called
// concurrently.
//
// Of each identity there is one holder: of two certificates with the same generation and different keys, at most one is
// let in. A record's compare-and-swap decides, so that holds for all hubs of a control state together.
type Gate struct {
	o       Options
	stop    context.CancelFunc
	over    sync.WaitGroup
	knocks  *knocks
	limits  limits
	counted counters

	seed  maphash.Seed
	locks [64]sync.Mutex // by agent: one enrolment of each at a time, so that none costs two uses of a token

	mu      sync.RWMutex
	revoked map[string]standing // those that are, and were since the hub started
	owed    map[string]api.AccessToken
}

// standing is what a hub has heard last of whether an agent may come in.
type standing struct {
	revision   int64
	revocation *api.Revocation // nil: it may
}

// Open loads who is revoked and follows it. Close ends that.
func Open(ctx context.Context, o Options) (*Gate, error) {
	if o.Addresses == nil {
		o.Addresses = func(string) control.Addresses { return control.Addresses{} }
	}
	if o.System == nil {
		o.System = func() bool { return false }
	}
	if o.Expel == nil {
		o.Expel = func(string, string) {}
	}
	if o.Audit == nil {
		o.Audit = func(context.Context, api.AuditEntry) {}
	}
	if o.Join == nil {
		o.Join = func(context.Context, string, control.HubRequest) (*control.HubGrant, error) {
			return nil, &control.Refusal{Code: control.NotJoinable, Text: "no hub can join here"}
		}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	g := &Gate{
		o: o, knocks: newKnocks(), limits: newLimits(), counted: newCounters(o.Metrics),
		seed: maphash.MakeSeed(), revoked: make(map[string]standing), owed: make(map[string]api.AccessToken),
	}
	list, revision, err := o.Store.List(ctx, prefix)
	if err != nil {
		return nil, fmt.Errorf("load the identities of agents: %w", err)
	}
	for _, e := range list {
		g.hear(e)
	}
	ctx, g.stop = context.WithCancel(context.Background())
	g.over.Go(func() { state.Follow(ctx, o.Store, prefix, revision, o.Log, g.all, g.one) })
	return g, nil
}

// Close ends following. The control state stays open.
func (g *Gate) Close() {
	g.stop()
	g.over.Wait()
}

// all takes in everything that there is as of a revision.
func (g *Gate) all(list []state.Entry, revision int64) {
	there := make(map[string]bool, len(list))
	for _, e := range list {
		there[e.Key] = true
		g.one(e)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for id, s := range g.revoked {
		if !there[prefix+id] && s.revision <= revision {
			delete(g.revoked, id)
		}
	}
}

// one takes in a change, and ends the connections of who may not have them any more.
func (g *Gate) one(e state.Entry) {
	if id, why := g.hear(e); why != "" {
		g.o.Expel(id, why)
	}
}

// hear takes in a change, and returns whose connections are to end, and why.
func (g *Gate) hear(e state.Entry) (id, why string) {
	id = strings.TrimPrefix(e.Key, prefix)
	var rec record
	if e.Value != nil {
		if err := json.Unmarshal(e.Value, &rec); err != nil {
			g.o.Log.Error("the identity of an agent cannot be read: it stays as revoked as it was", "agent", id, "error", err)
			return id, ""
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	old, known := g.revoked[id]
	if known && old.revision >= e.Revision {
		return id, ""
	}
	if known || rec.Revocation != nil {
		g.revoked[id] = standing{e.Revision, rec.Revocation}
	}
	switch {
	case rec.Revocation != nil && old.revocation == nil:
		return id, "it was revoked by " + rec.Revocation.By
	case rec.Replaced:
		return id, "its identity was given to another holder"
	case rec.Admitted != "":
		return id, "two have its identity, and the one that was admitted renews it now"
	}
	return id, ""
}

// Revoked reports whether an agent may not come in: as far as this hub has heard, which takes moments. It is cheap.
func (g *Gate) Revoked(agent string) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.revoked[agent].revocation != nil
}

// Revoke lets an agent in no more, at any hub. name is of its host, for people. Errors are an *api.Error.
func (g *Gate) Revoke(ctx context.Context, by, agent, name, cause string) error {
	return g.change(ctx, agent, func(agent string, rec *record) error {
		if rec.Revocation != nil {
			return errSame
		}
		if name == "" {
			name = rec.Name
		}
		rec.Revocation = &api.Revocation{Agent: agent, Name: clean(name, maxName), By: clean(by, maxName), Cause: clean(cause, maxText), Time: g.o.Now().UTC()}
		rec.Refused, rec.Admitted, rec.Replaced = "", "", false
		return nil
	})
}

// Admit lets an agent in again that was revoked; or, when two have the same identity, the one that was refused last: its next
// renewal makes it the holder, and the other is refused from then on. Errors are an *api.Error. Why is in the audit log of
// who calls.
func (g *Gate) Admit(ctx context.Context, by, agent, cause string) error {
	err := g.change(ctx, agent, func(agent string, rec *record) error {
		switch {
		case rec.Revocation != nil:
			rec.Revocation = nil
		case rec.Refused != "":
			rec.Admitted, rec.Refused = rec.Refused, ""
		case rec.Admitted != "":
			return errSame
		default:
			return &api.Error{Code: "conflict", Message: "there is nothing to admit: agent " + agent + " is not revoked, and nobody else with its identity was refused; if it has none yet: creel token create --role agent"}
		}
		rec.Replaced = false
		return nil
	})
	if err == nil {
		agent, _ = agentID(agent)
		g.knocks.forget(agent)
		g.o.Log.Info("an agent is admitted", "agent", agent, "by", clean(by, maxName), "cause", clean(cause, maxText))
	}
	return err
}

// errSame says that nothing is to be written.
var errSame = errors.New("it is so already")

// change changes a record on behalf of somebody who runs the hub, and has this hub know it when it returns.
func (g *Gate) change(ctx context.Context, agent string, f func(agent string, rec *record) error) error {
	id, ok := agentID(agent)
	if !ok {
		return &api.Error{Code: "bad_request", Message: fmt.Sprintf("an agent's id is a UUID, got %q", clean(agent, maxName))}
	}
	for range attempts {
		rec, revision, err := g.load(ctx, id)
		if err == nil {
			err = f(id, &rec)
		}
		if err == nil {
			revision, err = g.save(ctx, id, rec, revision)
		}
		var asked *api.Error
		switch {
		case errors.Is(err, state.ErrConflict):
			continue
		case errors.Is(err, errSame):
			return nil
		case errors.As(err, &asked):
			return asked
		case err != nil:
			return &api.Error{Code: "unavailable", Message: fmt.Sprintf("the control state cannot do this now: %v; nothing was changed, or it is not known whether; try again", err)}
		}
		value, err := json.Marshal(rec)
		if err != nil {
			panic("BUG: " + err.Error())
		}
		g.one(state.Entry{Key: prefix + id, Value: value, Revision: revision})
		return nil
	}
	return &api.Error{Code: "unavailable", Message: "agent " + id + " is being renewed again and again at this moment; try again"}
}

// Knocks returns who was refused at this hub lately, and who is revoked at all.
func (g *Gate) Knocks() api.KnockList {
	list := api.KnockList{Knocks: g.knocks.list(), Revoked: []api.Revocation{}}
	g.mu.RLock()
	for _, s := range g.revoked {
		if s.revocation != nil {
			list.Revoked = append(list.Revoked, *s.revocation)
		}
	}
	g.mu.RUnlock()
	slices.SortFunc(list.Revoked, func(a, b api.Revocation) int {
		if c := b.Time.Compare(a.Time); c != 0 {
			return c
		}
		return strings.Compare(a.Agent, b.Agent)
	})
	return list
}

// Refused puts somebody on the list of those who knock. address is where they come from, with or without a port. What Enter
// and ServeHTTP refuse is there already.
func (g *Gate) Refused(id, name, address string, r *control.Refusal) {
	g.counted.refuse(r.Code)
	if r.Code == control.Busy {
		return // it comes again, and nobody need do anything
	}
	host, network := placeOf(address)
	id, _ = agentID(id)
	k := api.Knock{Agent: id, Name: clean(name, maxName), Address: host, Reason: clean(r.Code, maxName), Text: clean(r.Text, maxText), Remedy: clean(r.Remedy, maxText)}
	if g.knocks.add(k, network, g.o.Now().UTC()) {
		g.o.Log.Warn("somebody who wants to come in as an agent is refused", "agent", k.Agent, "name", k.Name, "address", k.Address, "reason", k.Reason, "text", k.Text, "remedy", k.Remedy)
	}
}

// counters are the gate's metrics.
type counters struct {
	enrolled, renewed, tokens *metric.Counter
	refused                   map[string]*metric.Counter
	other                     *metric.Counter
}

func newCounters(s *metric.Set) counters {
	of := func(reason string) *metric.Counter {
		return s.Sub(metric.Label{Name: "reason", Value: reason}).Counter("creel.hub.identity.refused", "Agents that were refused: an identity, a renewal, a token or a connection.", "{request}")
	}
	c := counters{
		enrolled: s.Counter("creel.hub.identity.enrolled", "Agents that were given an identity.", "{agent}"),
		renewed:  s.Counter("creel.hub.identity.renewed", "Certificates that were renewed.", "{certificate}"),
		tokens:   s.Counter("creel.hub.identity.tokens", "JWTs that were given to agents.", "{token}"),
		refused:  make(map[string]*metric.Counter),
		other:    of("other"),
	}
	for code := range statuses {
		c.refused[code] = of(code)
	}
	return c
}

func (c *counters) refuse(code string) {
	if n := c.refused[code]; n != nil {
		n.Inc()
		return
	}
	c.other.Inc()
}
