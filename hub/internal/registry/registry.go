// Package registry knows the fleet: which agents there are, whether they are connected, and what they report. It takes
// their OpAMP connections; heartbeats stay in its memory, and what must outlive the hub goes into the control state.
//
// It brings agents what documents say, and orders, but decides nothing of that. It knows neither the API that shows the fleet
// nor where data goes.
package registry

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/hub/internal/documents"
	"github.com/creelhq/creel/hub/internal/state"
	"github.com/creelhq/creel/metric"
)

// Options configure a Registry. Hub and Store are required.
type Options struct {
	Hub         string           // this hub's id
	Store       state.Store      // what must outlive the hub is there
	Heartbeat   time.Duration    // least interval between an agent's heartbeats; 0: 5 s. Beyond 2000 agents a second it grows
	MaxMessage  int64            // bytes; 0: control.MaxMessage
	MaxAgents   int              // that are remembered; 0: 100 000
	Door        Door             // what was taken of agents' data; nil: that is not known
	Shared      bool             // other hubs take data of the same agents: what agents have sent is not compared with what this hub took
	Documents   *documents.Store // what agents shall run; nil: nothing
	Gate        Gate             // who may come in; nil: everybody
	Authorities func() string    // control.FingerprintOfBundle of what agents with an identity are to trust; nil: they are not told
	Balancer    Balancer         // which hubs agents can go to, and are to; nil: there is this one alone
	Patience    time.Duration    // how long a difference between them must last to be told; 0: a minute
	Log         *slog.Logger
	Metrics     *metric.Set
}

// perSecond is how many heartbeats a second a hub takes.
const perSecond = 2000

// missed is after how many missed heartbeats an agent is lost.
const missed = 3

// A Registry knows the fleet. Its methods may be called concurrently.
type Registry struct {
	o        Options
	opened   time.Time
	rejected func(reason string)
	keeper   *keeper

	mu             sync.Mutex
	agents         map[string]*agent // by id
	configurations map[string]*configuration
	orders         map[string]order // by agent; the last of each
	closed         bool
	wg             sync.WaitGroup // connections

	ctx  context.Context    // of what follows documents and orders
	stop context.CancelFunc // ends it
	over sync.WaitGroup

	connected atomic.Int64 // agents that are at this hub
	elsewhere atomic.Int64 // agents that are at others
	expelled  atomic.Int64 // how often Expel was called
	changed   atomic.Pointer[chan struct{}]
	altered   atomic.Pointer[chan struct{}]
	heard     atomic.Int64 // the revision up to which all sessions were heard of
}

// configuration is one that agents run, kept once.
type configuration struct {
	text   string
	agents map[string]bool
}

// Open loads the fleet as it was left. Close ends it.
func Open(ctx context.Context, o Options) (*Registry, error) {
	if o.Heartbeat == 0 {
		o.Heartbeat = 5 * time.Second
	}
	if o.MaxMessage == 0 {
		o.MaxMessage = control.MaxMessage
	}
	if o.MaxAgents == 0 {
		o.MaxAgents = 100_000
	}
	if o.Patience == 0 {
		o.Patience = time.Minute
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = metric.NewSet()
	}
	r := &Registry{o: o, opened: time.Now(), agents: make(map[string]*agent), configurations: make(map[string]*configuration), orders: make(map[string]order)}
	changed, altered := make(chan struct{}), make(chan struct{})
	r.changed.Store(&changed)
	r.altered.Store(&altered)
	r.meter()
	r.keeper = newKeeper(r.keep, o.Log)
	if err := r.load(ctx); err != nil {
		r.keeper.close()
		return nil, fmt.Errorf("load the fleet: %w", err)
	}
	return r, nil
}

// load takes up what is kept, and follows what may change.
func (r *Registry) load(ctx context.Context) error {
	records, sessions, err := r.loadAgents(ctx)
	if err != nil {
		return err
	}
	for _, a := range r.all() { // nobody knows when they were heard last
		a.leasedFor(r.Heartbeat())
	}
	orders, revision, err := r.o.Store.List(ctx, ordersPrefix)
	if err != nil {
		return err
	}
	r.allOrdered(orders, revision)
	ctx, r.stop = context.WithCancel(context.Background())
	r.ctx = ctx
	r.over.Go(func() { state.Follow(ctx, r.o.Store, ordersPrefix, revision, r.o.Log, r.allOrdered, r.ordered) })
	r.over.Go(func() { state.Follow(ctx, r.o.Store, agentsPrefix, records, r.o.Log, r.allRecords, r.tookRecord) })
	r.heard.Store(sessions)
	r.over.Go(func() {
		state.Follow(ctx, r.o.Store, sessionsPrefix, sessions, r.o.Log, r.allSessions, func(e state.Entry) {
			r.tookSession(e)
			r.heard.Store(e.Revision)
		})
	})
	r.over.Go(func() { r.keepSessions(ctx) })
	if r.o.Documents != nil {
		r.over.Go(func() { r.followDocuments(ctx) })
	}
	return nil
}

// tally returns what counts the agents that are where a is, nil if it is nowhere.
func (r *Registry) tally(a *record) *atomic.Int64 {
	switch {
	case a.Connection != api.Connected:
		return nil
	case a.Hub == r.o.Hub:
		return &r.connected
	}
	return &r.elsewhere
}

func (r *Registry) meter() {
	reject := make(map[string]*metric.Counter)
	var mu sync.Mutex
	r.rejected = func(reason string) {
		mu.Lock()
		defer mu.Unlock()
		c := reject[reason]
		if c == nil {
			c = r.o.Metrics.Sub(metric.Label{Name: "reason", Value: reason}).Counter("creel.hub.opamp.rejected", "Connections and requests of agents that were refused.", "{request}")
			reject[reason] = c
		}
		c.Inc()
	}
	r.o.Metrics.GaugeFunc("creel.hub.agents.connected", "Agents that are connected.", "{agent}", func() float64 { return float64(r.connected.Load()) })
	r.o.Metrics.GaugeFunc("creel.hub.ledger.unexplained", "Records that agents call delivered to this hub, and that it never took.", "{record}", func() float64 {
		var n int64
		for _, a := range r.all() {
			a.mu.Lock()
			n += a.run.unexplained()
			a.mu.Unlock()
		}
		return float64(n)
	})
}

// Close ends all connections, telling the agents to come back.
func (r *Registry) Close() {
	r.mu.Lock()
	r.closed = true
	agents := make([]*agent, 0, len(r.agents))
	for _, a := range r.agents {
		agents = append(agents, a)
	}
	r.mu.Unlock()
	for _, a := range agents {
		a.mu.Lock()
		conn := a.conn
		a.stopTimer()
		a.mu.Unlock()
		if conn != nil {
			go conn.Close(goingAway, "the hub stops")
		}
	}
	r.stop()
	r.over.Wait()
	r.wg.Wait()
	r.keeper.close()
}

// Changed returns a channel that is closed when the fleet has changed, be it that an agent was heard.
func (r *Registry) Changed() <-chan struct{} { return *r.changed.Load() }

// Altered returns a channel that is closed when Candidates, or what agents say of documents, may be others. Heartbeats without news do
// not close it.
func (r *Registry) Altered() <-chan struct{} { return *r.altered.Load() }

func (r *Registry) notify() { closeNext(&r.changed) }

func (r *Registry) alter() {
	closeNext(&r.altered)
	closeNext(&r.changed)
}

// closeNext closes a channel, and puts a new one in its place.
func closeNext(c *atomic.Pointer[chan struct{}]) {
	next := make(chan struct{})
	close(*c.Swap(&next))
}

// beside runs f, unless the registry is closed, which ends its context and waits for it.
func (r *Registry) beside(f func(context.Context)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.wg.Go(func() { f(r.ctx) })
	}
}

// Heartbeat returns how often agents are to be heard: it grows with how many are connected to this hub, so that a hub hears perSecond at most.
func (r *Registry) Heartbeat() time.Duration {
	return max(r.o.Heartbeat, time.Duration(r.connected.Load())*time.Second/perSecond)
}

// Lease returns for how long from now an agent may believe that it has the lease that it is given now, by whichever hub, with a tenth
// more for clocks that run at different speeds.
func (r *Registry) Lease() time.Duration {
	elsewhere := time.Duration(r.elsewhere.Load()) * time.Second / perSecond // there may be one hub that has them all
	return missed * max(r.Heartbeat(), elsewhere) * 11 / 10
}

// get returns the agent with an id, making it if it is new; nil when there are too many.
func (r *Registry) get(id string) *agent {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.agents[id]
	if a == nil && !r.closed && len(r.agents) < r.o.MaxAgents {
		now := time.Now().UTC()
		a = &agent{r: r, ID: id, record: record{ID: id, FirstSeen: now, Connection: api.Disconnected}}
		r.agents[id] = a
	}
	return a
}

// known returns the agent with an id, nil if there is none; made says that there is one, of which another hub has told.
func (r *Registry) known(id string, made bool) *agent {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.agents[id]
	if a == nil && made {
		a = &agent{r: r, ID: id, record: record{ID: id, FirstSeen: time.Now().UTC(), Connection: api.Disconnected}}
		r.agents[id] = a
	}
	return a
}

// ends reports whether the registry is being closed.
func (r *Registry) ends() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}

// ended notes that it is not known here any more which configuration an agent runs.
func (r *Registry) ended(agent, id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if d := r.configurations[id]; d != nil {
		delete(d.agents, agent)
		if len(d.agents) == 0 {
			delete(r.configurations, id)
		}
	}
}

// runs notes which configuration an agent runs, and returns the configuration's id.
func (r *Registry) runs(agent, before, text string) string {
	id := configurationID(text)
	if before != id {
		r.ended(agent, before)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	d := r.configurations[id]
	if d == nil {
		d = &configuration{text: text, agents: make(map[string]bool)}
		r.configurations[id] = d
	}
	d.agents[agent] = true
	return id
}

// Configurations returns the configurations that run, those of most agents first. It leaves out their text.
func (r *Registry) Configurations() []api.Configuration {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]api.Configuration, 0, len(r.configurations))
	for id := range r.configurations {
		list = append(list, r.configuration(id))
	}
	slices.SortFunc(list, CompareConfigurations)
	return list
}

func (r *Registry) configuration(id string) api.Configuration {
	d := api.Configuration{ID: id, Agents: []string{}}
	for a := range r.configurations[id].agents {
		d.Agents = append(d.Agents, a)
	}
	slices.Sort(d.Agents)
	return d
}

// Configuration returns one configuration with its text.
func (r *Registry) Configuration(id string) (api.Configuration, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.configurations[id] == nil {
		return api.Configuration{}, false
	}
	d := r.configuration(id)
	d.Text = r.configurations[id].text
	return d, true
}
