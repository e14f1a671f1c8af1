package registry_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"github.com/open-telemetry/opamp-go/client"
	"github.com/open-telemetry/opamp-go/client/types"
	"github.com/open-telemetry/opamp-go/protobufs"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/expr"
	"github.com/creelhq/creel/hub/internal/registry"
	"github.com/creelhq/creel/hub/internal/state"
	"github.com/creelhq/creel/report"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// everybody is the condition of those who see all agents.
var everybody expr.Selector

// world is a registry behind a real socket.
type world struct {
	t      *testing.T
	hub    string      // its id
	store  state.Store // outlives registries
	reg    *registry.Registry
	server *httptest.Server
}

func newWorld(t *testing.T, o registry.Options) *world {
	return newWorldAt(t, "hub-1", new(state.Memory).Open(), o)
}

// newWorldAt returns one of several hubs.
func newWorldAt(t *testing.T, hub string, s state.Store, o registry.Options) *world {
	w := &world{t: t, hub: hub, store: s}
	w.open(o)
	t.Cleanup(func() {
		w.close()
		if err := w.store.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *world) open(o registry.Options) {
	w.t.Helper()
	o.Hub, o.Store = w.hub, w.store
	if o.Heartbeat == 0 {
		o.Heartbeat = 50 * time.Millisecond
	}
	reg, err := registry.Open(w.t.Context(), o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.reg, w.server = reg, httptest.NewServer(reg)
}

func (w *world) close() {
	if w.reg != nil {
		w.reg.Close()
		w.server.Close()
		w.reg = nil
	}
}

// fake is an agent for a control.Client.
type fake struct {
	id       string
	accepted atomic.Int64
	broken   atomic.Pointer[string]
	spool    atomic.Pointer[report.Spool]
	started  time.Time
	stop     func()
}

func (w *world) agent(name string) *fake {
	f := &fake{id: uuid.Must(uuid.NewV7()).String(), started: time.Now()}
	w.connect(f, name, func() report.Ledger {
		n := f.accepted.Add(1000)
		return report.Ledger{Pipelines: []report.Pipeline{{Pipeline: "p", Accepted: n, Passed: n, Exporters: []report.Exporter{{Exporter: "otlp", In: n, Delivered: n}}}}}
	})
	return f
}

// agentThatSends makes an agent which says that it has delivered so much, some of it out of a disk queue.
func (w *world) agentThatSends(name string, sent *atomic.Int64) *fake {
	f := &fake{id: uuid.Must(uuid.NewV7()).String(), started: time.Now()}
	w.agentAgain(f, name, sent)
	return f
}

func (w *world) agentAgain(f *fake, name string, sent *atomic.Int64) {
	w.connect(f, name, func() report.Ledger {
		n := sent.Load()
		late, lost := n/100, n/1000
		return report.Ledger{
			Pipelines: []report.Pipeline{{Pipeline: "p", Accepted: n + late + lost, Exporters: []report.Exporter{{Exporter: "otlp", Delivered: n - late, Dropped: map[string]int64{"refused": lost}}}}},
			Spools:    []report.SpoolAccount{{Exporter: "otlp", Delivered: late, Waiting: late}},
		}
	})
}

func (w *world) connect(f *fake, name string, ledger func() report.Ledger) {
	components := func() []report.Component {
		c := []report.Component{{Component: "collectors.host", Plugin: "host", Healthy: true, Records: f.accepted.Load()}, {Component: "exporters.otlp", Plugin: "otlp", Healthy: true, Queued: 7, Limit: 9}}
		if text := f.broken.Load(); text != nil {
			c[1].Healthy, c[1].Error = false, *text
		}
		c[1].Spool = f.spool.Load()
		return c
	}
	c, err := control.NewClient(control.ClientOptions{URLs: []string{w.server.URL}, Agent: control.Agent{
		ID: f.id, Version: "1.2.3", Labels: func() map[string]string { return map[string]string{"host.name": name, "site": "north"} },
		Health: func() report.Health {
			h := report.Health{ID: f.id, Health: report.Healthy, State: "running", Started: f.started}
			if f.broken.Load() != nil {
				h.Health = report.Degraded
			}
			return h
		},
		Components: components,
		Routes: func() []report.Route {
			return []report.Route{{Pipeline: "p", From: []string{"host"}, To: []string{"otlp"}}}
		},
		Ledger:    ledger,
		Effective: func() []byte { return []byte(`{"collectors.host":{}}`) },
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { c.Run(ctx) })
	f.stop = func() { cancel(); wg.Wait() }
	w.t.Cleanup(func() { f.stop() })
}

// await waits until the one agent with an id is as ok says.
func (w *world) await(id, what string, ok func(api.AgentDetail) bool) api.AgentDetail {
	w.t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		changed := w.reg.Changed()
		d, err := w.reg.Agent(everybody, id)
		if err == nil && ok(d) {
			return d
		}
		select {
		case <-changed:
		case <-deadline:
			w.t.Fatalf("the agent is not %s but %+v (%v)", what, d, err)
		}
	}
}

func connected(d api.AgentDetail) bool { return d.Connection == api.Connected }

func TestAnAgentReports(t *testing.T) {
	w := newWorld(t, registry.Options{})
	f := w.agent("alpha")
	d := w.await(f.id, "counted", func(d api.AgentDetail) bool { return connected(d) && d.In > 0 && d.Out > 0 })
	if d.Name != "alpha" || d.Type != "creel" || d.Version != "1.2.3" || d.Labels["site"] != "north" || d.Health != report.Healthy {
		t.Errorf("the row is %+v", d.Agent)
	}
	if len(d.Components) != 2 || d.QueueBytes != 7 || d.QueueLimit != 9 || d.Effective == "" || d.Config == "" {
		t.Errorf("the detail is %+v", d)
	}
	if len(d.Routes) != 1 || d.Routes[0].In <= 0 || d.Routes[0].ToRates["otlp"] <= 0 || d.Routes[0].FromRates["host"] <= 0 {
		t.Errorf("the rates are %+v", d.Routes)
	}
	if docs := w.reg.Configurations(); len(docs) != 1 || docs[0].ID != d.Config || len(docs[0].Agents) != 1 {
		t.Errorf("documents are %+v", docs)
	}
	text := "no route to host"
	f.broken.Store(&text)
	d = w.await(f.id, "degraded", func(d api.AgentDetail) bool { return d.Health == report.Degraded })
	if d.Cause != "exporters.otlp: no route to host" || d.Timeline[0].Kind != report.Degraded {
		t.Errorf("the cause is %q, the timeline %+v", d.Cause, d.Timeline)
	}
	f.stop()
	d = w.await(f.id, "disconnected", func(d api.AgentDetail) bool { return d.Connection == api.Disconnected })
	if d.Cause != "it was stopped" {
		t.Errorf("the cause is %q", d.Cause)
	}
}

// TestAgentIsLost kills a connection without a goodbye: the agent is lost three heartbeats later, and returns.
func TestAgentIsLost(t *testing.T) {
	w := newWorld(t, registry.Options{})
	id := uuid.Must(uuid.NewV7())
	ws := dial(t, w.server.URL)
	send(t, ws, &protobufs.AgentToServer{InstanceUid: id[:], SequenceNum: 1, AgentDescription: &protobufs.AgentDescription{}, CustomMessage: (&control.Beat{Nonce: 1}).Message()})
	before := w.await(id.String(), "connected", connected)
	lease(t, ws, func(l *control.Lease) bool { return l.Nonce == 1 }) // nothing is under way any more
	ws.NetConn().Close()
	d := w.await(id.String(), "lost", func(d api.AgentDetail) bool { return d.Connection == api.Lost })
	if !strings.Contains(d.Cause, "the connection broke") || !strings.Contains(d.Cause, "three heartbeats") {
		t.Errorf("the cause is %q", d.Cause)
	}
	if quiet := d.Timeline[0].Time.Sub(before.LastSeen); quiet < 140*time.Millisecond {
		t.Errorf("lost %v after it was heard, sooner than three heartbeats", quiet)
	}
	ws = dial(t, w.server.URL)
	defer ws.Close()
	send(t, ws, &protobufs.AgentToServer{InstanceUid: id[:], SequenceNum: 1, AgentDescription: &protobufs.AgentDescription{}, CustomMessage: (&control.Beat{Nonce: 1}).Message()})
	w.await(id.String(), "back", connected)
	send(t, ws, &protobufs.AgentToServer{InstanceUid: id[:], SequenceNum: 2, CustomMessage: (&control.Beat{Nonce: 2}).Message()}) // from now on three heartbeats count
	d = w.await(id.String(), "lost for its silence", func(d api.AgentDetail) bool { return d.Connection == api.Lost })
	if !strings.Contains(d.Cause, "not a word") {
		t.Errorf("the cause is %q", d.Cause)
	}
}

func TestHubStartsAgain(t *testing.T) {
	w := newWorld(t, registry.Options{})
	agents := make([]*fake, 20)
	for i := range agents {
		agents[i] = w.agent(fmt.Sprintf("agent-%02d", i))
	}
	for _, f := range agents {
		w.await(f.id, "connected", connected)
	}
	agents[0].stop()
	w.await(agents[0].id, "disconnected", func(d api.AgentDetail) bool { return !connected(d) })
	address := w.server.Listener.Addr().String()
	w.close()
	w.open(registry.Options{})
	w.server.Close()
	w.server = serveOn(t, address, w.reg)
	for _, f := range agents[1:] {
		w.await(f.id, "back", func(d api.AgentDetail) bool { return connected(d) && d.Effective != "" })
	}
	if d, err := w.reg.Agent(everybody, agents[0].id); err != nil || d.Connection != api.Disconnected || d.Name != "agent-00" {
		t.Errorf("the one that had gone is %+v, %v", d.Agent, err)
	}
	if n := w.reg.Counts(everybody)[report.Healthy]; n != 19 {
		t.Errorf("%d are healthy", n)
	}
}

func TestLostWhileTheHubWasAway(t *testing.T) {
	w := newWorld(t, registry.Options{})
	f := w.agent("alpha")
	w.await(f.id, "connected", connected)
	w.close()
	f.stop()
	w.open(registry.Options{})
	d := w.await(f.id, "lost", func(d api.AgentDetail) bool { return d.Connection == api.Lost })
	if !strings.Contains(d.Cause, "the hub was started again") {
		t.Errorf("the cause is %q", d.Cause)
	}
}

// TestOfficialClient connects the reference implementation, over both transports.
func TestOfficialClient(t *testing.T) {
	w := newWorld(t, registry.Options{})
	for scheme, c := range map[string]client.OpAMPClient{"ws": client.NewWebSocket(nil), "http": client.NewHTTP(nil)} {
		id := uuid.Must(uuid.NewV7())
		err := c.SetAgentDescription(&protobufs.AgentDescription{
			IdentifyingAttributes:    []*protobufs.KeyValue{attr("service.name", "io.opentelemetry.collector"), attr("service.version", "0.159")},
			NonIdentifyingAttributes: []*protobufs.KeyValue{attr("host.name", "beta")},
		})
		if err != nil {
			t.Fatal(err)
		}
		health := &protobufs.ComponentHealth{Healthy: false, ComponentHealthMap: map[string]*protobufs.ComponentHealth{
			"pipeline:logs": {Healthy: false, ComponentHealthMap: map[string]*protobufs.ComponentHealth{"exporter:otlp": {LastError: "refused"}}},
		}}
		if err := c.SetHealth(health); err != nil {
			t.Fatal(err)
		}
		capabilities := protobufs.AgentCapabilities_AgentCapabilities_ReportsHealth | protobufs.AgentCapabilities_AgentCapabilities_ReportsEffectiveConfig | protobufs.AgentCapabilities_AgentCapabilities_ReportsStatus
		if err := c.SetCapabilities(&capabilities); err != nil {
			t.Fatal(err)
		}
		var failed atomic.Pointer[string]
		err = c.Start(t.Context(), types.StartSettings{
			OpAMPServerURL: strings.Replace(w.server.URL, "http", scheme, 1) + control.Path, InstanceUid: types.InstanceUid(id),
			Callbacks: types.Callbacks{
				GetEffectiveConfig: func(context.Context) (*protobufs.EffectiveConfig, error) {
					return &protobufs.EffectiveConfig{ConfigMap: &protobufs.AgentConfigMap{ConfigMap: map[string]*protobufs.AgentConfigFile{"": {Body: []byte("receivers: {}")}}}}, nil
				},
				OnError: func(_ context.Context, e *protobufs.ServerErrorResponse) { s := e.String(); failed.Store(&s) },
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		d := w.await(id.String(), "reported", func(d api.AgentDetail) bool { return connected(d) && d.Effective == "receivers: {}" })
		if d.Name != "beta" || d.Type != "io.opentelemetry.collector" || d.Health != report.Degraded || !strings.Contains(d.Cause, "refused") || len(d.Components) != 2 {
			t.Errorf("%s: the agent is %+v", scheme, d)
		}
		if err := c.Stop(context.Background()); err != nil {
			t.Error(err)
		}
		if s := failed.Load(); s != nil {
			t.Errorf("%s: the client was told %s", scheme, *s)
		}
		if scheme == "ws" {
			w.await(id.String(), "disconnected", func(d api.AgentDetail) bool { return d.Connection == api.Disconnected })
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestHostileMessages(t *testing.T) {
	w := newWorld(t, registry.Options{MaxMessage: 10_000})
	id := uuid.Must(uuid.NewV7())
	good, err := proto.Marshal(&protobufs.AgentToServer{InstanceUid: id[:], SequenceNum: 1})
	if err != nil {
		t.Fatal(err)
	}
	other := uuid.Must(uuid.NewV7())
	second, err := proto.Marshal(&protobufs.AgentToServer{InstanceUid: other[:], SequenceNum: 2})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		kind     int
		messages [][]byte
		want     string
	}{
		"garbage":      {websocket.BinaryMessage, [][]byte{append([]byte{0}, "garbage"...)}, "no protobuf"},
		"header":       {websocket.BinaryMessage, [][]byte{append([]byte{7}, good...)}, "header"},
		"empty":        {websocket.BinaryMessage, [][]byte{{}}, "header"},
		"text":         {websocket.TextMessage, [][]byte{[]byte("hello")}, "binary"},
		"no id":        {websocket.BinaryMessage, [][]byte{{0}}, "instance_uid"},
		"another's id": {websocket.BinaryMessage, [][]byte{append([]byte{0}, good...), append([]byte{0}, second...)}, "another instance_uid"},
	} {
		ws := dial(t, w.server.URL)
		for _, m := range c.messages {
			if err := ws.WriteMessage(c.kind, m); err != nil {
				t.Fatal(err)
			}
		}
		var got []string
		for {
			_, data, err := ws.ReadMessage()
			if err != nil {
				got = append(got, err.Error())
				break
			}
			m := &protobufs.ServerToAgent{}
			if err := control.Decode(data, m); err != nil {
				t.Fatal(err)
			}
			got = append(got, m.GetErrorResponse().GetErrorMessage())
		}
		ws.Close()
		if text := strings.Join(got, "\n"); strings.Count(text, c.want) != 2 {
			t.Errorf("%s: the agent is told %q", name, got)
		}
	}
	ws := dial(t, w.server.URL)
	defer ws.Close()
	if err := ws.WriteMessage(websocket.BinaryMessage, make([]byte, 20_000)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ws.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseMessageTooBig) {
		t.Errorf("an oversized message is answered %v", err)
	}
	resp, err := http.Post(w.server.URL, "application/x-protobuf", bytes.NewReader(make([]byte, 20_000)))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("an oversized request is answered %s", resp.Status)
	}
	header := http.Header{"Origin": {"http://evil.example"}}
	if _, resp, err := websocket.DefaultDialer.Dial(strings.Replace(w.server.URL, "http", "ws", 1), header); err == nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("a web page gets %v", resp)
	}
	http.DefaultClient.CloseIdleConnections()
}

// TestListPages walks the fleet page by page, and compares with what was asked for.
func TestListPages(t *testing.T) {
	w := newWorld(t, registry.Options{Heartbeat: time.Minute})
	var last string
	for i := range 25 {
		id := uuid.Must(uuid.NewV7())
		ws := dial(t, w.server.URL)
		defer ws.Close()
		send(t, ws, &protobufs.AgentToServer{InstanceUid: id[:], SequenceNum: 1, Health: &protobufs.ComponentHealth{Healthy: i%5 != 0, LastError: "ill"}, AgentDescription: &protobufs.AgentDescription{
			NonIdentifyingAttributes: []*protobufs.KeyValue{attr("host.name", fmt.Sprintf("agent-%02d", i)), attr("rack", fmt.Sprint(i%2))},
		}})
		last = id.String()
		w.await(last, "connected", func(d api.AgentDetail) bool { return connected(d) && d.Name != "" })
	}
	f := func(q api.AgentQuery, want int, first string) {
		t.Helper()
		q.Limit = 4
		var names []string
		for {
			list, err := w.reg.List(everybody, q)
			if err != nil {
				t.Fatal(err)
			}
			if list.Total != want {
				t.Fatalf("%+v: %d match, want %d", q, list.Total, want)
			}
			for _, a := range list.Agents {
				names = append(names, a.Name)
			}
			if q.Cursor = list.Next; q.Cursor == "" {
				break
			}
		}
		if len(names) != want || want > 0 && names[0] != first {
			t.Errorf("%+v gives %v", q, names)
		}
	}
	f(api.AgentQuery{}, 25, "agent-00")
	f(api.AgentQuery{Status: report.Degraded}, 5, "agent-00")
	f(api.AgentQuery{Status: report.Healthy}, 20, "agent-01")
	f(api.AgentQuery{Label: "rack=1"}, 12, "agent-05")
	f(api.AgentQuery{Label: "rack=1,host.name=agent-03"}, 1, "agent-03")
	f(api.AgentQuery{Search: "AGENT rack=0 ill"}, 3, "agent-00")
	f(api.AgentQuery{Search: last}, 1, "agent-24")
	f(api.AgentQuery{Status: string(api.Lost)}, 0, "")
	for _, q := range []api.AgentQuery{{Status: "sad"}, {Label: "rack"}, {Cursor: "?"}, {Limit: 1001}, {Limit: -1}} {
		if _, err := w.reg.List(everybody, q); err == nil {
			t.Errorf("%+v is answered", q)
		}
	}
}

// TestDiskQueuesInTheList: what agents tell of their disk queues decides who stands first.
func TestDiskQueuesInTheList(t *testing.T) {
	w := newWorld(t, registry.Options{})
	calm, fills, full := w.agent("a"), w.agent("b"), w.agent("c")
	fills.spool.Store(&report.Spool{Bytes: 5, Limit: 10, Waiting: 3, FullIn: 60})
	full.spool.Store(&report.Spool{Bytes: 10, Limit: 10, Waiting: 9, Full: true})
	w.await(calm.id, "connected", func(d api.AgentDetail) bool { return connected(d) && d.In > 0 })
	w.await(fills.id, "filling", func(d api.AgentDetail) bool {
		return connected(d) && d.Disk != nil && d.Disk.FullIn == 60 && d.Disk.Exporter == "otlp"
	})
	w.await(full.id, "full", func(d api.AgentDetail) bool {
		return connected(d) && d.Disk != nil && d.Disk.Full && d.Disk.Waiting == 9
	})
	var names []string
	for q := (api.AgentQuery{Limit: 1}); ; {
		list, err := w.reg.List(everybody, q)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range list.Agents {
			names = append(names, a.Name)
		}
		if q.Cursor = list.Next; q.Cursor == "" {
			break
		}
	}
	if got := strings.Join(names, " "); got != "c b a" {
		t.Errorf("the list is %s", got)
	}
}

func attr(k, v string) *protobufs.KeyValue {
	return &protobufs.KeyValue{Key: k, Value: &protobufs.AnyValue{Value: &protobufs.AnyValue_StringValue{StringValue: v}}}
}

func dial(t *testing.T, url string) *websocket.Conn {
	t.Helper()
	ws, _, err := websocket.DefaultDialer.Dial(strings.Replace(url, "http", "ws", 1), nil)
	if err != nil {
		t.Fatal(err)
	}
	return ws
}

func send(t *testing.T, ws *websocket.Conn, m *protobufs.AgentToServer) {
	t.Helper()
	data, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := ws.WriteMessage(websocket.BinaryMessage, append([]byte{0}, data...)); err != nil {
		t.Fatal(err)
	}
}

// serveOn serves on an address that was just in use.
func serveOn(t *testing.T, address string, h http.Handler) *httptest.Server {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(h)
	s.Listener.Close()
	s.Listener = l
	s.Start()
	return s
}
