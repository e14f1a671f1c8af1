package registry_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"github.com/open-telemetry/opamp-go/protobufs"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
	identities "github.com/creelhq/creel/hub/internal/gate"
	"github.com/creelhq/creel/hub/internal/registry"
	"github.com/creelhq/creel/hub/internal/state"
	"github.com/creelhq/creel/metric"
	"github.com/creelhq/creel/report"
)

// leasing is a Store whose lease can be lost, for a while or for good.
type leasing struct {
	state.Store
	m *state.Memory

	mu     sync.Mutex
	leased state.Store
	lease  *state.Lease // nil: that of leased
	down   bool
	writes int
}

func newLeasing(m *state.Memory) *leasing {
	return &leasing{Store: m.Open(), m: m, leased: m.Open()}
}

func (l *leasing) Put(ctx context.Context, key string, value []byte, leased bool, c state.Condition) (int64, error) {
	l.mu.Lock()
	s, down := l.leased, l.down
	l.writes++
	l.mu.Unlock()
	switch {
	case down:
		return 0, errors.New("cut off")
	case leased:
		return s.Put(ctx, key, value, true, c)
	}
	return l.Store.Put(ctx, key, value, false, c)
}

func (l *leasing) Lease() *state.Lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lease != nil {
		return l.lease
	}
	return l.leased.Lease()
}

// lose takes away what is leased. down: and nothing can be written.
func (l *leasing) lose(down bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leased.Close()
	l.leased, l.down = l.m.Open(), down
}

// has gives it a lease that ends by itself.
func (l *leasing) has(lease *state.Lease) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lease = lease
}

func (l *leasing) up() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = false
}

func (l *leasing) written() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.writes
}

func (l *leasing) Close() error { return errors.Join(l.leased.Close(), l.Store.Close()) }

// hubs returns hub-1 and so on, on one control state.
func hubs(t *testing.T, n int, o registry.Options) (*state.Memory, []*world) {
	m := new(state.Memory)
	var list []*world
	for i := range n {
		list = append(list, newWorldAt(t, fmt.Sprintf("hub-%d", i+1), newLeasing(m), o))
	}
	return m, list
}

// talker is an agent over a bare WebSocket.
type talker struct {
	t    *testing.T
	id   uuid.UUID
	seq  uint64
	conn *websocket.Conn
}

func newTalker(t *testing.T) *talker { return &talker{t: t, id: uuid.Must(uuid.NewV7())} }

// to connects to a hub, and leaves the connection before as it is.
func (a *talker) to(w *world, trusts string) {
	a.t.Helper()
	ws := dial(a.t, w.server.URL)
	a.t.Cleanup(func() { ws.Close() })
	a.conn, a.seq = ws, 0
	a.say(&protobufs.AgentToServer{
		AgentDescription: &protobufs.AgentDescription{
			IdentifyingAttributes:    []*protobufs.KeyValue{attr("service.name", control.AgentType)},
			NonIdentifyingAttributes: []*protobufs.KeyValue{attr("host.name", "alpha")},
		},
		Health: &protobufs.ComponentHealth{Healthy: false, LastError: "ill"},
	}, &control.Beat{Authorities: trusts, Life: &report.Life{State: "paused"}, Ledger: &report.Ledger{Pipelines: []report.Pipeline{{Pipeline: "p", Accepted: 7}}}})
}

func (a *talker) say(m *protobufs.AgentToServer, b *control.Beat) {
	a.t.Helper()
	a.seq++
	b.Nonce = a.seq
	m.InstanceUid, m.SequenceNum, m.CustomMessage = a.id[:], a.seq, b.Message()
	send(a.t, a.conn, m)
}

// goesOn has the agent heard, until stop is called or the connection ends. It must not say anything else meanwhile.
func (a *talker) goesOn() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil && a.conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(time.Second)) == nil {
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	})
	stop = func() { cancel(); wg.Wait() }
	a.t.Cleanup(stop)
	return stop
}

// leased returns how long a lease the hub gives by the next answer to the last Beat that is one; 0 if the first one is none and
// want is so.
func (a *talker) leased(want bool) time.Duration {
	a.t.Helper()
	return lease(a.t, a.conn, func(l *control.Lease) bool { return l.Nonce == a.seq || !want && l.Nonce == 0 }).Expires
}

// lease reads until a lease comes that is ok.
func lease(t *testing.T, ws *websocket.Conn, ok func(*control.Lease) bool) *control.Lease {
	t.Helper()
	for {
		_, data, err := ws.ReadMessage()
		m := &protobufs.ServerToAgent{}
		if err != nil || control.Decode(data, m) != nil {
			t.Fatal(err)
		}
		l, err := control.LeaseOf(m.GetCustomMessage())
		if err != nil {
			t.Fatal(err)
		}
		if l != nil && ok(l) {
			return l
		}
	}
}

// closed returns why the hub has closed the connection.
func closed(t *testing.T, ws *websocket.Conn) string {
	t.Helper()
	for {
		if _, _, err := ws.ReadMessage(); err != nil {
			var e *websocket.CloseError
			if !errors.As(err, &e) {
				t.Errorf("the connection ended with %v", err)
				return ""
			}
			return e.Text
		}
	}
}

// at is whether an agent is connected to a hub.
func at(hub string) func(api.AgentDetail) bool {
	return func(d api.AgentDetail) bool { return connected(d) && d.Hub == hub }
}

// TestMoves: an agent goes from one hub to another. Both, and a third, know where it is and what has happened to it; the first
// closes the old connection and has no figures of it any more; heartbeats are written by nobody.
func TestMoves(t *testing.T) {
	a := newTalker(t)
	id := a.id.String()
	_, list := hubs(t, 3, registry.Options{Heartbeat: time.Minute, Authorities: func() string { return "new" }, Gate: &gate{peer: control.Peer{ID: id, Generation: 1}}})
	a.to(list[0], "old")
	if d := a.leased(true); d != 3*time.Minute {
		t.Errorf("leased for %v", d)
	}
	for _, w := range list {
		d := w.await(id, "at hub-1", func(d api.AgentDetail) bool {
			return at("hub-1")(d) && d.Name == "alpha" && d.State == "paused" && d.Health == report.Degraded
		})
		if d.Cause != "ill" || kinds(d) != "connected paused degraded" {
			t.Errorf("%s: the cause is %q, the timeline %s", w.hub, d.Cause, kinds(d))
		}
		if hub, here := w.reg.Owner(id); hub != "hub-1" || here != (w == list[0]) {
			t.Errorf("%s: the owner is %s, here %v", w.hub, hub, here)
		}
		if n, behind := w.reg.Confirmed(); n != 0 || !slices.Equal(behind, []string{id}) {
			t.Errorf("%s: %d have confirmed, behind %v", w.hub, n, behind)
		}
		c := w.reg.Candidates()
		if len(c) != 1 || c[0].Hub != "hub-1" || !c[0].There || c[0].Working || !c[0].Broke.IsZero() || time.Until(c[0].Leased) < 3*time.Minute {
			t.Errorf("%s: the candidates are %+v", w.hub, c)
		}
		if n := w.reg.Counts(everybody)[report.Degraded]; n != 1 {
			t.Errorf("%s: %d are degraded", w.hub, n)
		}
	}
	written := func() (n int) {
		for _, w := range list {
			n += w.store.(*leasing).written()
		}
		return n
	}
	before := written()
	for range 20 {
		a.say(&protobufs.AgentToServer{}, &control.Beat{})
		if a.leased(true) == 0 {
			t.Fatal("it is not leased")
		}
	}
	if n := written() - before; n != 0 {
		t.Errorf("%d writes for 20 heartbeats", n)
	}

	old := a.conn
	a.to(list[1], "new")
	if text := closed(t, old); !strings.Contains(text, "hub-2") {
		t.Errorf("the old connection was closed: %q", text)
	}
	a.leased(true)
	for _, w := range list {
		d := w.await(id, "at hub-2", func(d api.AgentDetail) bool {
			return at("hub-2")(d) && kinds(d) == "connected paused degraded connected"
		})
		if (d.Totals.In == 7) != (w == list[1]) || d.Health != report.Degraded {
			t.Errorf("%s: it has %+v", w.hub, d.Agent)
		}
		if n := w.reg.Connected(); n != map[bool]int{true: 1}[w == list[1]] {
			t.Errorf("%s: %d are connected here", w.hub, n)
		}
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
			n, behind := w.reg.Confirmed()
			if n == 1 && len(behind) == 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %d have confirmed, behind %v", w.hub, n, behind)
			}
		}
	}

	a.conn.NetConn().Close()
	for _, w := range list {
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
			c := w.reg.Candidates()
			if len(c) == 1 && c[0].There && !c[0].Broke.IsZero() {
				if left := time.Until(c[0].Leased); left > 200*time.Second || left < 3*time.Minute {
					t.Errorf("%s: it may be leased for %v", w.hub, left)
				}
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: the candidates are %+v", w.hub, c)
			}
		}
	}
	a.to(list[2], "new")
	list[0].await(id, "at hub-3", at("hub-3"))
	a.seq++
	send(t, a.conn, &protobufs.AgentToServer{InstanceUid: a.id[:], SequenceNum: a.seq, AgentDisconnect: &protobufs.AgentDisconnect{}})
	for _, w := range list {
		d := w.await(id, "disconnected", func(d api.AgentDetail) bool { return d.Connection == api.Disconnected })
		if d.Cause != "it was stopped" || d.Hub != "hub-3" || kinds(d) != "connected paused degraded connected connected disconnected" {
			t.Errorf("%s: %q at %s, the timeline %s", w.hub, d.Cause, d.Hub, kinds(d))
		}
	}
}

// TestHubDies: of the agents of a hub that is killed some come to another and some do not: these are lost, by one hub's word.
func TestHubDies(t *testing.T) {
	m, list := hubs(t, 3, registry.Options{Heartbeat: 100 * time.Millisecond})
	agents := make([]*talker, 6)
	for i := range agents {
		agents[i] = newTalker(t)
		agents[i].to(list[0], "")
	}
	for _, w := range list {
		for _, a := range agents {
			w.await(a.id.String(), "at hub-1", func(d api.AgentDetail) bool { return at("hub-1")(d) && d.Health == report.Degraded })
		}
	}
	if err := list[0].store.Close(); err != nil { // it can write nothing any more
		t.Fatal(err)
	}
	ended := time.Now()
	for _, a := range agents[:3] {
		a.to(list[1], "")
		a.goesOn()
	}
	for i, a := range agents {
		for _, w := range list[1:] {
			if i < 3 {
				w.await(a.id.String(), "at hub-2", at("hub-2"))
				continue
			}
			d := w.await(a.id.String(), "lost", func(d api.AgentDetail) bool { return d.Connection == api.Lost })
			if d.Hub != "hub-1" || !strings.Contains(d.Cause, "its hub is gone") || d.Timeline[0].Time.Sub(ended) < 300*time.Millisecond {
				t.Errorf("%s: it was at %s, %q, %v after", w.hub, d.Hub, d.Cause, d.Timeline[0].Time.Sub(ended))
			}
		}
	}
	entries, _, err := m.Open().List(t.Context(), "agents/")
	if err != nil || len(entries) != len(agents) {
		t.Fatalf("%d are kept, %v", len(entries), err)
	}
	for _, e := range entries {
		i := slices.IndexFunc(agents, func(a *talker) bool { return strings.HasSuffix(e.Key, a.id.String()) })
		if n := strings.Count(string(e.Value), `"kind":"lost"`); n != map[bool]int{false: 1}[i < 3] {
			t.Errorf("agent %d: %d times lost: %s", i, n, e.Value)
		}
	}
	// One that was lost comes after all, and the others that were not are still there.
	agents[5].to(list[2], "")
	for _, w := range list[1:] {
		w.await(agents[5].id.String(), "back", func(d api.AgentDetail) bool {
			return at("hub-3")(d) && strings.HasSuffix(kinds(d), "lost connected")
		})
		if d, err := w.reg.Agent(everybody, agents[0].id.String()); err != nil || !at("hub-2")(d) {
			t.Errorf("%s: %+v, %v", w.hub, d.Agent, err)
		}
	}
	for _, a := range agents {
		a.conn.Close()
	}
}

// TestLeaseLost: a hub that has lost the control state leases nobody, though its connections are there; to the others its agents
// are lost. When it is back, so are they, and all have one history.
func TestLeaseLost(t *testing.T) {
	_, list := hubs(t, 2, registry.Options{Heartbeat: 100 * time.Millisecond})
	a := newTalker(t)
	a.to(list[0], "")
	if a.leased(true) == 0 {
		t.Fatal("it is not leased")
	}
	id := a.id.String()
	list[1].await(id, "at hub-1", func(d api.AgentDetail) bool { return at("hub-1")(d) && d.Health == report.Degraded })
	store := list[0].store.(*leasing)
	store.lose(true)
	beat := func() { a.say(&protobufs.AgentToServer{}, &control.Beat{}) }
	beat()
	if d := a.leased(false); d != 0 {
		t.Errorf("leased for %v by a hub that has no lease itself", d)
	}
	stop := a.goesOn()
	list[1].await(id, "lost", func(d api.AgentDetail) bool { return d.Connection == api.Lost })
	store.up()
	for _, w := range list {
		w.await(id, "at hub-1 after all", func(d api.AgentDetail) bool {
			return at("hub-1")(d) && strings.HasSuffix(kinds(d), "lost connected")
		})
	}
	stop()
	for deadline := time.Now().Add(20 * time.Second); ; {
		beat()
		if a.leased(false) > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it is not leased again")
		}
	}
}

// TestLeaseOver: a hub that has not noticed yet that its lease is over leases nobody.
func TestLeaseOver(t *testing.T) {
	_, list := hubs(t, 1, registry.Options{Heartbeat: 100 * time.Millisecond})
	lease := state.NewLease(time.Now().Add(2 * time.Second))
	list[0].store.(*leasing).has(lease)
	a := newTalker(t)
	a.to(list[0], "")
	if a.leased(true) == 0 {
		t.Fatal("it is not leased")
	}
	for lease.Held() {
		time.Sleep(10 * time.Millisecond)
	}
	a.say(&protobufs.AgentToServer{}, &control.Beat{})
	if d := a.leased(false); d != 0 {
		t.Errorf("leased for %v by a hub whose lease is over", d)
	}
}

// TestHubStartsAgainAmongOthers: an agent that has gone to another hub while its own was away is there; one that comes to
// nobody is lost, once.
func TestHubStartsAgainAmongOthers(t *testing.T) {
	m, list := hubs(t, 2, registry.Options{Heartbeat: 100 * time.Millisecond})
	goes, stays := newTalker(t), newTalker(t)
	goes.to(list[0], "")
	stays.to(list[0], "")
	for _, a := range []*talker{goes, stays} {
		list[1].await(a.id.String(), "at hub-1", func(d api.AgentDetail) bool { return at("hub-1")(d) && d.Health == report.Degraded })
	}
	list[0].close() // its lease goes on: it has another store afterwards
	leftover := list[0].store
	f := list[1].agentWithID(goes.id.String())
	list[1].await(f.id, "at hub-2", at("hub-2"))
	list[0].store = newLeasing(m)
	list[0].open(registry.Options{Heartbeat: 100 * time.Millisecond})
	list[0].await(f.id, "at hub-2", at("hub-2"))
	if err := leftover.Close(); err != nil {
		t.Fatal(err)
	}
	for _, w := range list {
		d := w.await(stays.id.String(), "lost", func(d api.AgentDetail) bool { return d.Connection == api.Lost })
		if n := strings.Count(kinds(d), "lost"); n != 1 {
			t.Errorf("%s: the timeline is %s", w.hub, kinds(d))
		}
		if d, err := w.reg.Agent(everybody, f.id); err != nil || !at("hub-2")(d) {
			t.Errorf("%s: %+v, %v", w.hub, d.Agent, err)
		}
	}
	e, err := list[0].store.Get(t.Context(), "agents/"+stays.id.String())
	if err != nil || strings.Count(string(e.Value), `"kind":"lost"`) != 1 {
		t.Errorf("kept is %s, %v", e.Value, err)
	}
	f.stop()
}

// agentWithID makes an agent that reports.
func (w *world) agentWithID(id string) *fake {
	f := &fake{id: id, started: time.Now()}
	w.connect(f, "alpha", func() report.Ledger { return report.Ledger{} })
	return f
}

// TestRevokedElsewhere: who is revoked through one hub loses the connection to another.
func TestRevokedElsewhere(t *testing.T) {
	_, list := hubs(t, 2, registry.Options{Heartbeat: time.Minute})
	var gates []*identities.Gate
	for _, w := range list {
		g, err := identities.Open(t.Context(), identities.Options{Store: w.store, Metrics: metric.NewSet(), Expel: w.reg.Expel})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(g.Close)
		gates = append(gates, g)
	}
	a := newTalker(t)
	a.to(list[1], "")
	id := a.id.String()
	list[0].await(id, "at hub-2", at("hub-2"))
	if err := gates[0].Revoke(t.Context(), "ann", id, "", ""); err != nil {
		t.Fatal(err)
	}
	if text := closed(t, a.conn); !strings.Contains(text, "revoked by ann") {
		t.Errorf("closed: %q", text)
	}
	for _, w := range list {
		d := w.await(id, "disconnected", func(d api.AgentDetail) bool { return d.Connection == api.Disconnected })
		if !strings.Contains(d.Cause, "revoked by ann") || strings.Count(kinds(d), "disconnected") != 1 {
			t.Errorf("%s: %q, the timeline %s", w.hub, d.Cause, kinds(d))
		}
	}
}
