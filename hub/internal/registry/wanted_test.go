package registry_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/client"
	"github.com/open-telemetry/opamp-go/client/types"
	"github.com/open-telemetry/opamp-go/protobufs"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/hub/internal/documents"
	"github.com/creelhq/creel/hub/internal/registry"
	"github.com/creelhq/creel/hub/internal/state"
	"github.com/creelhq/creel/report"
	"github.com/creelhq/creel/trace"
)

// fleet is a world whose registry hands out documents.
type fleet struct {
	*world
	docs *documents.Store
}

func newFleet(t *testing.T, s state.Store) *fleet { return newFleetAt(t, "hub-1", s) }

func newFleetAt(t *testing.T, hub string, s state.Store) *fleet {
	t.Helper()
	f := &fleet{world: &world{t: t, hub: hub, store: s}}
	f.start()
	t.Cleanup(f.end)
	return f
}

func (f *fleet) start() {
	f.t.Helper()
	var err error
	f.docs, err = documents.Open(f.t.Context(), documents.Options{Store: f.store, Agents: func() []documents.Agent { return f.reg.Documented() }})
	if err != nil {
		f.t.Fatal(err)
	}
	f.open(registry.Options{Documents: f.docs})
}

func (f *fleet) end() {
	if f.reg != nil {
		f.close()
		f.docs.Close()
	}
}

// again ends the hub and starts another on its state, at the same address.
func (f *fleet) again() {
	f.t.Helper()
	address := f.server.Listener.Addr().String()
	f.end()
	f.start()
	f.server.Close()
	f.server = serveOn(f.t, address, f.reg)
}

func (f *fleet) apply(text string) api.DocumentApplied {
	f.t.Helper()
	a, err := f.docs.Apply(f.t.Context(), "ann", everybody, api.DocumentChange{Text: text})
	if err != nil {
		f.t.Fatal(err)
	}
	return a
}

// peer is an agent that takes what its hub wants, and fails at documents whose text has the word bad.
type peer struct {
	id     string
	client *control.Client
	stop   func()

	mu      sync.Mutex
	labels  map[string]string
	clings  string // to this document: it fails at offers that do not have it, as well
	remote  control.RemoteStatus
	config  report.Configuration
	life    report.Life
	done    string
	offers  []*control.Offer
	orders  []control.Order
	offered chan time.Time // when an offer came
	spans   map[string]int // by name
}

func (f *fleet) peer(name string, labels map[string]string) *peer {
	f.t.Helper()
	p := &peer{id: uuid.Must(uuid.NewV7()).String(), labels: map[string]string{"host.name": name}, offered: make(chan time.Time, 1000), spans: make(map[string]int)}
	tracer := trace.New(trace.Options{})
	tracer.Subscribe(func(d trace.Data) { p.mu.Lock(); p.spans[d.Name]++; p.mu.Unlock() })
	for k, v := range labels {
		p.labels[k] = v
	}
	p.life = report.Life{State: "running", Since: time.Now()}
	started := time.Now()
	var err error
	p.client, err = control.NewClient(control.ClientOptions{URLs: []string{f.server.URL}, Tracer: tracer, Agent: control.Agent{
		ID: p.id, Version: "1.2.3", Labels: ask(p, func() map[string]string { return p.labels }),
		Health: func() report.Health {
			return report.Health{ID: p.id, Health: report.Healthy, State: "running", Started: started}
		},
		Components: func() []report.Component { return nil }, Routes: func() []report.Route { return nil },
		Ledger: func() report.Ledger { return report.Ledger{} }, Effective: func() []byte { return []byte(`{}`) },
		Life: ask(p, func() report.Life { return p.life }), Configuration: ask(p, func() report.Configuration { return p.config }),
		Remote: ask(p, func() control.RemoteStatus { return p.remote }), Done: ask(p, func() string { return p.done }),
		Offered: p.take, Ordered: p.obey,
	}})
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { p.client.Run(ctx) })
	p.stop = func() { cancel(); wg.Wait() }
	f.t.Cleanup(func() { p.stop() })
	return p
}

// ask returns f, called with p locked.
func ask[T any](p *peer, f func() T) func() T {
	return func() T {
		p.mu.Lock()
		defer p.mu.Unlock()
		return f()
	}
}

func (p *peer) take(o *control.Offer) {
	p.offered <- time.Now()
	p.mu.Lock()
	p.offers = append(p.offers, o)
	p.remote = control.RemoteStatus{Hash: o.Hash(), Status: control.Applied}
	outcome, why := report.Applied, ""
	if p.clings != "" && !slices.ContainsFunc(o.Documents, func(d control.OfferedDocument) bool { return d.Name == p.clings }) {
		outcome, why = report.Refused, p.clings+" is needed"
	}
	documents := []report.Document{}
	for _, d := range o.Documents {
		if strings.Contains(d.Text, "bad") {
			outcome, why = report.Refused, d.Name+": it is bad"
		}
		documents = append(documents, report.Document{Name: d.Name, Source: "hub", Version: d.Version, Status: "running"})
	}
	if why != "" {
		p.remote.Status, p.remote.Error = control.Failed, why
		for i := range documents {
			documents[i].Status, documents[i].Error = "refused", why
		}
	}
	p.config = report.Configuration{Hash: o.Hash()[:12], Documents: documents, Receipts: append(slices.Clone(p.config.Receipts), report.Receipt{
		Time: time.Now(), Source: "hub", Hash: o.Hash()[:12], Outcome: outcome, Error: why,
	})}
	p.mu.Unlock()
	p.client.Notify()
}

func (p *peer) obey(o control.Order) {
	p.mu.Lock()
	p.orders = append(p.orders, o)
	if p.done != o.ID {
		p.done = o.ID
		was := p.life.State
		p.life = report.Life{State: map[string]string{"pause": "paused", "resume": "running"}[o.Do], Since: time.Now()}
		p.life.History = []report.Transition{{From: was, To: p.life.State, Cause: o.Cause}}
	}
	p.mu.Unlock()
	p.client.Notify()
}

// seen is what the agent was offered, in order: names and versions.
func (p *peer) seen() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []string
	for _, o := range p.offers {
		var docs []string
		for _, d := range o.Documents {
			docs = append(docs, d.Name+"@"+d.Version)
		}
		list = append(list, "["+strings.Join(docs, " ")+"]")
	}
	return strings.Join(list, " ")
}

// statuses is the documents of an agent and how they are there.
func statuses(d api.AgentDetail) string {
	var list []string
	for _, p := range d.Intended.Documents {
		list = append(list, p.Name+" "+p.Status)
	}
	return strings.Join(list, ", ")
}

func is(want string) func(api.AgentDetail) bool {
	return func(d api.AgentDetail) bool { return connected(d) && statuses(d) == want }
}

func kinds(d api.AgentDetail) string {
	var list []string
	for _, e := range slices.Backward(d.Timeline) {
		list = append(list, e.Kind)
	}
	return strings.Join(list, " ")
}

// TestDocumentsReachAgents: through another hub than that which the agent is connected to, as its labels say.
func TestDocumentsReachAgents(t *testing.T) {
	m := new(state.Memory)
	here, there := newFleet(t, m.Open()), newFleet(t, m.Open())
	p := here.peer("alpha", map[string]string{"site": "north"})
	here.await(p.id, "connected", connected)
	there.apply("document: north\nselector: site == \"north\"\nexporters: {debug/n: {}}")
	here.await(p.id, "running it", is("north running"))
	there.apply("document: id\nselector: labels[\"creel.agent.id\"] == \"" + p.id + "\"\nexporters: {debug/i: {}}")
	there.apply("document: south\nselector: site == \"south\"\nexporters: {debug/s: {}}")
	here.await(p.id, "running both", is("id running, north running"))
	p.mu.Lock()
	p.labels = map[string]string{"host.name": "alpha", "site": "south"}
	p.mu.Unlock()
	p.client.Notify()
	here.await(p.id, "moved", is("id running, south running"))
	if err := there.docs.Delete(t.Context(), "ann", everybody, "south", false); err != nil {
		t.Fatal(err)
	}
	d := here.await(p.id, "without it", is("id running"))
	if err := here.docs.Delete(t.Context(), "ann", everybody, "id", false); err != nil {
		t.Fatal(err)
	}
	here.await(p.id, "told that there is nothing", func(api.AgentDetail) bool { return strings.HasSuffix(p.seen(), " []") })
	if d.Config == "" || d.State != "running" || !strings.Contains(kinds(d), "configured") {
		t.Errorf("the row is %+v, the timeline %s", d.Agent, kinds(d))
	}
	// What was seen at last is what an agent has that connects once more: it is not told again.
	before := p.seen()
	here.again()
	here.await(p.id, "back", func(d api.AgentDetail) bool { return connected(d) && d.Intended.Life.State == "running" })
	here.apply("document: new\nexporters: {debug/new: {}}")
	here.await(p.id, "running what is new", is("new running"))
	if got := p.seen(); got != before+" [new@1]" {
		t.Errorf("it was offered %s", got)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.spans["connect to the hub"] < 2 || p.spans["offer of the hub"] != len(p.offers) {
		t.Errorf("the spans are %v, with %d offers", p.spans, len(p.offers))
	}
}

// TestWhatFailedIsNotOfferedAgain, not even by a hub that was started again.
func TestWhatFailedIsNotOfferedAgain(t *testing.T) {
	f := newFleet(t, new(state.Memory).Open())
	p := f.peer("alpha", nil)
	f.await(p.id, "connected", connected)
	f.apply("document: web\nexporters: {debug: {}}")
	f.await(p.id, "running it", is("web running"))
	f.apply("document: web\nexporters: {debug: {}} # bad")
	d := f.await(p.id, "refusing it", is("web refused"))
	if got := d.Intended.Documents[0].Error; got != "web: it is bad" || !strings.Contains(kinds(d), "refused") || d.Health != report.Healthy {
		t.Errorf("the error is %q, the timeline %s, health %s", got, kinds(d), d.Health)
	}
	p.mu.Lock()
	p.remote = control.RemoteStatus{} // it has forgotten; the hub has not
	p.mu.Unlock()
	f.again()
	d = f.await(p.id, "back", func(d api.AgentDetail) bool { return connected(d) && d.Intended.Configuration.Hash != "" })
	if n := strings.Count(kinds(d), "refused"); n != 1 {
		t.Errorf("the timeline after a restart of the hub is %s", kinds(d))
	}
	if _, err := f.docs.Rollback(t.Context(), "ann", everybody, "web", 1); err != nil {
		t.Fatal(err)
	}
	f.await(p.id, "running what was before", is("web running"))
	if got := p.seen(); got != "[web@1] [web@2] [web@3]" {
		t.Errorf("it was offered %s", got)
	}
}

// TestTakenAwayIsTold: an agent that has an exclusive document which is another's by now is told so, though it has failed before at what
// it is to run without it: else it would go on, with a lease. And so is one that has forgotten that it was told.
func TestTakenAwayIsTold(t *testing.T) {
	f := newFleet(t, new(state.Memory).Open())
	p := f.peer("alpha", nil)
	p.mu.Lock()
	p.clings = "only"
	p.mu.Unlock()
	f.await(p.id, "connected", connected)
	f.apply("document: only\nplace: 1\noverlap: never\nexporters: {debug/only: {}}")
	place := func(agent string, epoch int64) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
			list, _ := f.docs.Floating()
			err := f.docs.Place(t.Context(), "only", list[0].Owners, documents.Owners{Epoch: epoch, Owners: []documents.Owner{{Agent: agent, Epoch: epoch}}})
			if err == nil {
				return
			}
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
	}
	seen := func(want string) {
		t.Helper()
		f.await(p.id, "offered "+want, func(api.AgentDetail) bool { return p.seen() == want })
	}
	place(p.id, 1)
	f.apply("document: web\nexporters: {debug/web: {}}")
	f.await(p.id, "running both", is("only running, web running"))
	before := p.seen()
	place("another", 2)
	f.await(p.id, "refusing to run one", is("web refused"))
	place(p.id, 3)
	f.await(p.id, "running both again", is("only running, web running"))
	p.mu.Lock()
	remote, config := p.remote, p.config
	p.mu.Unlock()
	place("another", 4)
	seen(before + " [web@1] [only@1 web@1] [web@1]")
	f.await(p.id, "refusing to run one", is("web refused"))

	p.mu.Lock()
	p.remote, p.config = remote, config
	p.mu.Unlock()
	f.again()
	seen(before + " [web@1] [only@1 web@1] [web@1] [web@1]")
}

// TestConflictIsTold: an agent that turns up and would get something twice is offered nothing.
func TestConflictIsTold(t *testing.T) {
	f := newFleet(t, new(state.Memory).Open())
	f.apply("document: one\nexporters: {debug: {}}")
	f.apply("document: two\nselector: site == \"north\"\nexporters: {debug: {}}")
	p := f.peer("alpha", map[string]string{"site": "north"})
	d := f.await(p.id, "in conflict", func(d api.AgentDetail) bool { return connected(d) && d.Intended.Conflict != "" })
	if d.Intended.Conflict != "documents one and two both define exporters.debug" || statuses(d) != "one waiting, two waiting" {
		t.Errorf("the conflict is %q, the documents %s", d.Intended.Conflict, statuses(d))
	}
	if err := f.docs.Delete(t.Context(), "ann", everybody, "one", false); err != nil {
		t.Fatal(err)
	}
	f.await(p.id, "running the other", is("two running"))
	if got := p.seen(); got != "[two@1]" {
		t.Errorf("it was offered %s", got)
	}
}

// TestSlowAgent: one that does not read what it is sent is left behind, and delays nobody.
func TestSlowAgent(t *testing.T) {
	f := newFleet(t, new(state.Memory).Open())
	f.server.Close()
	f.server = httptest.NewUnstartedServer(f.reg)
	f.server.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context { // else the kernel holds megabytes
		if err := c.(*net.TCPConn).SetWriteBuffer(64 << 10); err != nil {
			t.Error(err)
		}
		return ctx
	}
	f.server.Start()
	id := uuid.Must(uuid.NewV7())
	ws := dial(t, f.server.URL)
	defer ws.Close()
	if err := ws.NetConn().(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	const capabilities = uint64(protobufs.AgentCapabilities_AgentCapabilities_AcceptsRemoteConfig)
	send(t, ws, &protobufs.AgentToServer{
		InstanceUid: id[:], SequenceNum: 1, Capabilities: capabilities, // without a Beat it may be silent for long
		AgentDescription: &protobufs.AgentDescription{IdentifyingAttributes: []*protobufs.KeyValue{attr("service.name", "creel")}},
	})
	f.await(id.String(), "connected", func(d api.AgentDetail) bool { return connected(d) && d.Type == "creel" })
	send(t, ws, &protobufs.AgentToServer{InstanceUid: id[:], SequenceNum: 2, Capabilities: capabilities}) // from this word on
	peers := make([]*peer, 2)
	for i := range peers {
		peers[i] = f.peer(fmt.Sprint("fast-", i), nil)
		f.await(peers[i].id, "connected", connected)
	}
	comment := "\n#" + strings.Repeat("x", 25<<10)
	versions, closed := 0, false
	for ; versions < 250 && !closed; versions++ {
		f.apply(fmt.Sprintf("document: large\nagent: {labels: {n: '%d'}}%s", versions, comment))
		for _, p := range peers {
			f.await(p.id, "running it", func(d api.AgentDetail) bool {
				return strings.HasSuffix(p.seen(), fmt.Sprintf("[large@%d]", versions+1))
			})
		}
		d, err := f.reg.Agent(everybody, id.String())
		closed = err != nil || d.Cause != ""
	}
	d := f.await(id.String(), "left behind", func(d api.AgentDetail) bool { return !connected(d) })
	if !strings.Contains(d.Cause, "does not read") {
		t.Errorf("after %d versions its connection ended: %s", versions, d.Cause)
	}
}

// TestOfficialClientIsOffered: the reference implementation gets documents and reports what became of them, over both
// transports.
func TestOfficialClientIsOffered(t *testing.T) {
	f := newFleet(t, new(state.Memory).Open())
	f.apply("document: web\nexporters: {debug: {}}")
	for scheme, c := range map[string]client.OpAMPClient{"ws": client.NewWebSocket(nil), "http": client.NewHTTP(nil)} {
		id := uuid.Must(uuid.NewV7())
		if err := c.SetAgentDescription(&protobufs.AgentDescription{IdentifyingAttributes: []*protobufs.KeyValue{attr("service.name", "creel")}}); err != nil {
			t.Fatal(err)
		}
		capabilities := protobufs.AgentCapabilities_AgentCapabilities_ReportsStatus | protobufs.AgentCapabilities_AgentCapabilities_AcceptsRemoteConfig | protobufs.AgentCapabilities_AgentCapabilities_ReportsRemoteConfig
		if err := c.SetCapabilities(&capabilities); err != nil {
			t.Fatal(err)
		}
		got := make(chan *protobufs.AgentRemoteConfig, 10)
		err := c.Start(t.Context(), types.StartSettings{
			OpAMPServerURL: strings.Replace(f.server.URL, "http", scheme, 1) + control.Path, InstanceUid: types.InstanceUid(id),
			Callbacks: types.Callbacks{OnMessage: func(_ context.Context, m *types.MessageData) {
				if m.RemoteConfig == nil {
					return
				}
				got <- m.RemoteConfig
				status := protobufs.RemoteConfigStatuses_RemoteConfigStatuses_APPLIED
				if scheme == "http" {
					status = protobufs.RemoteConfigStatuses_RemoteConfigStatuses_FAILED
				}
				if err := c.SetRemoteConfigStatus(&protobufs.RemoteConfigStatus{LastRemoteConfigHash: m.RemoteConfig.ConfigHash, Status: status, ErrorMessage: "told"}); err != nil {
					t.Error(err)
				}
			}},
		})
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]string{"ws": "web running", "http": "web refused"}[scheme]
		d := f.await(id.String(), "offered", is(want))
		if o := control.OfferOf(<-got); len(o.Documents) != 1 || o.Documents[0].Name != "web" || o.Documents[0].Version != "1" || len(got) != 0 {
			t.Errorf("%s: the offer is %+v, and %d more came", scheme, o, len(got))
		}
		if scheme == "http" && (d.Intended.Documents[0].Error != "told" || !strings.Contains(kinds(d), "refused")) {
			t.Errorf("%s: the document is %+v, the timeline %s", scheme, d.Intended.Documents[0], kinds(d))
		}
		if err := c.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	}
}

// TestOrders: an order is done once, however often the hub is started anew; a newer one replaces it; another hub brings it
// as well.
func TestOrders(t *testing.T) {
	m := new(state.Memory)
	f := newFleet(t, m.Open())
	p := f.peer("alpha", nil)
	f.await(p.id, "connected", func(d api.AgentDetail) bool { return connected(d) && d.Name == "alpha" })
	o, err := f.reg.Order(t.Context(), everybody, "alpha", "pause", "ann", "repairs")
	if err != nil || o.Do != "pause" || o.Done {
		t.Fatalf("ordered: %+v, %v", o, err)
	}
	done := func(id string) func(api.AgentDetail) bool {
		return func(d api.AgentDetail) bool {
			return connected(d) && d.Intended.Order != nil && d.Intended.Order.ID == id && d.Intended.Order.Done
		}
	}
	d := f.await(p.id, "paused", done(o.ID))
	if d.State != "paused" || kinds(d) != "connected ordered paused" || d.Timeline[0].Cause != "repairs" || d.Timeline[1].Cause != "pause, by ann: repairs" {
		t.Errorf("it is %s, the timeline %+v", d.State, d.Timeline)
	}
	p.stop()
	f.await(p.id, "gone", func(d api.AgentDetail) bool { return !connected(d) })
	for _, do := range []string{"pause", "resume"} { // the newer one replaces the other
		if o, err = f.reg.Order(t.Context(), everybody, p.id[:30], do, "ann", ""); err != nil {
			t.Fatal(err)
		}
	}
	f.again()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { p.client.Run(ctx) })
	p.stop = func() { cancel(); wg.Wait() }
	d = f.await(p.id, "resumed", done(o.ID))
	if !strings.HasSuffix(kinds(d), "resumed") {
		t.Errorf("the timeline is %s", kinds(d))
	}
	f.again()
	f.await(p.id, "back", done(o.ID))
	other := newFleetAt(t, "hub-2", m.Open())
	other.await(p.id, "at hub-1", func(d api.AgentDetail) bool { return connected(d) && d.Hub == "hub-1" && d.State == "running" })
	if o, err = other.reg.Order(t.Context(), everybody, p.id, "pause", "bob", ""); err != nil {
		t.Fatal(err)
	}
	f.await(p.id, "told by the other hub", done(o.ID))
	p.mu.Lock()
	var got []string
	for _, o := range p.orders {
		got = append(got, o.Do)
	}
	p.mu.Unlock()
	if strings.Join(got, " ") != "pause resume pause" {
		t.Errorf("it was told %v", got)
	}
	d = other.await(p.id, "paused, seen from the other hub", func(d api.AgentDetail) bool { return d.State == "paused" })
	if n := strings.Count(kinds(d), "ordered"); n != 4 || d.Hub != "hub-1" {
		t.Errorf("it is at %s, the timeline %s", d.Hub, kinds(d))
	}
	hub := f.peer("hub", map[string]string{"creel.role": "hub"})
	f.await(hub.id, "connected", func(d api.AgentDetail) bool { return connected(d) && d.Name == "hub" })
	for what, ask := range map[string][2]string{"bad_request": {p.id, "dance"}, "not_found": {"nobody", "pause"}, "bad_request ": {hub.id, "stop"}} {
		_, err := f.reg.Order(t.Context(), everybody, ask[0], ask[1], "ann", "")
		var e *api.Error
		if !errors.As(err, &e) || e.Code != strings.TrimSpace(what) {
			t.Errorf("%v: %v", ask, err)
		}
	}
}

// TestOfferLatency prints how long it takes from Apply to the agent, with an etcd that syncs to the disk.
func TestOfferLatency(t *testing.T) {
	s, err := state.Embedded(t.Context(), state.EmbeddedOptions{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	f := newFleet(t, s)
	p := f.peer("alpha", nil)
	f.await(p.id, "connected", connected)
	rounds := 100
	if testing.Short() {
		rounds = 30
	}
	var took []time.Duration
	for i := range rounds {
		began := time.Now()
		f.apply(fmt.Sprintf("document: web\nexporters: {debug: {n: %d}}", i))
		took = append(took, (<-p.offered).Sub(began))
	}
	slices.Sort(took)
	t.Logf("from Apply to the agent's Offered, %d times: median %v, p99 %v", rounds, took[rounds/2].Round(10*time.Microsecond), took[rounds*99/100].Round(10*time.Microsecond))
	f.await(p.id, "running the last", is("web running"))
}
