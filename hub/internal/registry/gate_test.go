package registry_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"github.com/open-telemetry/opamp-go/protobufs"
	"google.golang.org/protobuf/proto"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/expr"
	"github.com/creelhq/creel/hub/internal/documents"
	"github.com/creelhq/creel/hub/internal/registry"
	"github.com/creelhq/creel/report"
)

// gate lets in or refuses whoever comes as the test says.
type gate struct {
	mu      sync.Mutex
	peer    control.Peer
	labels  map[string]string
	refusal *control.Refusal
	asked   func() // called within Enter
	entered int
	knocks  []string
}

func (g *gate) Enter(*http.Request) (control.Peer, map[string]string, error) {
	g.mu.Lock()
	asked := g.asked
	g.mu.Unlock()
	if asked != nil {
		asked()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.entered++
	if g.refusal != nil {
		return control.Peer{}, nil, g.refusal
	}
	return g.peer, g.labels, nil
}

func (g *gate) Refused(id, name, address string, r *control.Refusal) {
	g.set(func() { g.knocks = append(g.knocks, fmt.Sprint(id, " ", name, " ", address, " ", r.Code)) })
}

func (g *gate) set(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f()
}

// TestPinnedLabels: what an identity pins wins over what the agent says, in lists, in selectors and for documents, and stays
// when the hub is started again; nobody outside is a hub's own agent.
func TestPinnedLabels(t *testing.T) {
	g := &gate{}
	f := &fleet{world: &world{t: t, hub: "hub-1", store: newWorld(t, registry.Options{}).store}}
	start := func() {
		t.Helper()
		var err error
		if f.docs, err = documents.Open(t.Context(), documents.Options{Store: f.store}); err != nil {
			t.Fatal(err)
		}
		f.open(registry.Options{Documents: f.docs, Gate: g})
	}
	start()
	t.Cleanup(f.end)
	f.apply("document: s\nselector: site == \"south\" && team == \"a\"\nexporters: {debug: {}}")
	f.apply("document: n\nselector: site == \"north\" || creel.role == \"hub\"\nexporters: {debug/n: {}}")
	known := make(chan struct{})
	g.set(func() { g.labels, g.asked = map[string]string{"site": "south", "team": "a"}, func() { <-known } })
	p := f.peer("alpha", map[string]string{"site": "north", "rack": "7", "creel.role": "hub"})
	g.set(func() { g.peer = control.Peer{ID: p.id, Generation: 1} })
	close(known)
	south := func(d api.AgentDetail) bool {
		return d.Labels["site"] == "south" && d.Labels["team"] == "a" && d.Labels["rack"] == "7" && d.Labels["creel.role"] == "" && d.Name == "alpha"
	}
	f.await(p.id, "pinned to south", func(d api.AgentDetail) bool { return south(d) && is("s running")(d) })
	if l, err := f.reg.List(everybody, api.AgentQuery{Label: "site=south"}); err != nil || l.Total != 1 {
		t.Errorf("listed: %+v, %v", l, err)
	}
	p.stop()
	f.await(p.id, "disconnected", func(d api.AgentDetail) bool { return !connected(d) })
	f.end()
	start()
	if d, err := f.reg.Agent(everybody, p.id); err != nil || !south(d) || len(d.Intended.Documents) != 1 || d.Intended.Documents[0].Name != "s" {
		t.Errorf("after the hub was started again: %+v, %v", d, err)
	}
	// Another identity of the same agent pins nothing any more.
	g.set(func() { g.labels = nil })
	id := uuid.MustParse(p.id)
	ws := dial(t, f.server.URL)
	defer ws.Close()
	send(t, ws, &protobufs.AgentToServer{InstanceUid: id[:], SequenceNum: 1, AgentDescription: &protobufs.AgentDescription{
		IdentifyingAttributes:    []*protobufs.KeyValue{attr("service.name", control.AgentType)},
		NonIdentifyingAttributes: []*protobufs.KeyValue{attr("host.name", "alpha"), attr("site", "north")},
	}})
	f.await(p.id, "in north again", func(d api.AgentDetail) bool {
		return connected(d) && d.Labels["site"] == "north" && d.Labels["team"] == "" && len(d.Intended.Documents) == 1 && d.Intended.Documents[0].Name == "n"
	})
}

// TestTurnedAway: whoever is refused hears what is wrong and what to do, over both transports, and comes back when it was told.
func TestTurnedAway(t *testing.T) {
	g := &gate{}
	w := newWorld(t, registry.Options{Gate: g})
	for code, status := range map[string]int{
		control.NoCertificate: 401, control.UnknownAuthority: 401, control.Expired: 401, control.Revoked: 403, control.Cloned: 403, control.Busy: 503,
	} {
		for _, text := range []string{"it is so", strings.Repeat("\x01<é", 300)} {
			g.set(func() {
				g.refusal = &control.Refusal{Code: code, Text: text, Remedy: "do something", After: 1500 * time.Millisecond}
			})
			_, ws, err := websocket.DefaultDialer.Dial(strings.Replace(w.server.URL, "http", "ws", 1), nil)
			if err == nil || ws == nil {
				t.Fatalf("%s: let in: %v", code, err)
			}
			poll, err := http.Post(w.server.URL, "application/x-protobuf", strings.NewReader(""))
			if err != nil {
				t.Fatal(err)
			}
			for _, resp := range []*http.Response{ws, poll} {
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				var got control.Refusal
				if err != nil || json.Unmarshal(body, &got) != nil || resp.StatusCode != status || resp.Header.Get("Retry-After") != "2" || got.Code != code || got.Remedy != "do something" || !strings.HasPrefix(text, got.Text) || got.Text == "" {
					t.Errorf("%s: %s %v: %s", code, resp.Status, err, body)
				}
			}
		}
	}
	if n := g.entered; n != 24 {
		t.Errorf("the gate was asked %d times", n)
	}
	var log syncBuffer
	g.set(func() {
		g.refusal = &control.Refusal{Code: control.Revoked, Text: "ann has revoked it", Remedy: "admit it", After: time.Hour}
	})
	c, err := control.NewClient(control.ClientOptions{URLs: []string{w.server.URL}, Log: slog.New(slog.NewTextHandler(&log, nil)), Agent: control.Agent{ID: uuid.NewString()}})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	ctx := t.Context()
	go func() { defer close(done); c.Run(ctx) }()
	t.Cleanup(func() { <-done })
	text := log.await(t, "next_attempt=10m0s")
	if !strings.Contains(text, "it refuses this agent: ann has revoked it; admit it") {
		t.Errorf("the agent says %q", text)
	}
	http.DefaultClient.CloseIdleConnections()
}

// syncBuffer is what was written so far.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) await(t *testing.T, word string) string {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		b.mu.Lock()
		text := b.buf.String()
		b.mu.Unlock()
		if strings.Contains(text, word) || time.Now().After(deadline) {
			if !strings.Contains(text, word) {
				t.Errorf("%q has no %s", text, word)
			}
			return text
		}
	}
}

// TestOtherIdentity: an agent may only be who its certificate says.
func TestOtherIdentity(t *testing.T) {
	g := &gate{peer: control.Peer{ID: uuid.NewString(), Generation: 1}}
	w := newWorld(t, registry.Options{Gate: g})
	id := uuid.New()
	m := &protobufs.AgentToServer{InstanceUid: id[:], SequenceNum: 1, AgentDescription: &protobufs.AgentDescription{NonIdentifyingAttributes: []*protobufs.KeyValue{attr("host.name", "mallory")}}}
	ws := dial(t, w.server.URL)
	defer ws.Close()
	send(t, ws, m)
	_, data, err := ws.ReadMessage()
	answer := &protobufs.ServerToAgent{}
	if err != nil || control.Decode(data, answer) != nil || !strings.Contains(answer.GetErrorResponse().GetErrorMessage(), g.peer.ID) {
		t.Errorf("told %v, %v", answer, err)
	}
	if _, _, err := ws.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseProtocolError) {
		t.Errorf("then %v", err)
	}
	body, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Post(w.server.URL, "application/x-protobuf", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var refusal control.Refusal
	if err := json.NewDecoder(resp.Body).Decode(&refusal); err != nil || resp.StatusCode != http.StatusForbidden || refusal.Code != control.OtherIdentity {
		t.Errorf("polling: %s %+v, %v", resp.Status, refusal, err)
	}
	want := id.String() + " mallory 127.0.0.1 other_identity"
	if len(g.knocks) != 2 || g.knocks[0] != want || g.knocks[1] != want {
		t.Errorf("noted: %q", g.knocks)
	}
	if _, err := w.reg.Agent(everybody, id.String()); err == nil {
		t.Error("it is in the fleet")
	}
	http.DefaultClient.CloseIdleConnections()
}

// TestExpel: a connection ends at once, and says why; one that was being made meanwhile as well.
func TestExpel(t *testing.T) {
	g := &gate{}
	w := newWorld(t, registry.Options{Gate: g, Heartbeat: time.Minute})
	expelled := func(id string, ws *websocket.Conn) {
		t.Helper()
		var err error
		for err == nil {
			_, _, err = ws.ReadMessage()
		}
		var closed *websocket.CloseError
		if !errors.As(err, &closed) || !strings.Contains(closed.Text, "revoked") {
			t.Errorf("told %v", err)
		}
		ws.Close()
	}
	id := uuid.New()
	first := &protobufs.AgentToServer{InstanceUid: id[:], SequenceNum: 1, AgentDescription: &protobufs.AgentDescription{}}
	ws := dial(t, w.server.URL)
	send(t, ws, first)
	w.await(id.String(), "connected", connected)
	refuse := func() {
		g.set(func() { g.refusal = &control.Refusal{Code: control.Revoked, Text: "it is revoked"} })
		w.reg.Expel(id.String(), "revoked by ann")
	}
	refuse()
	expelled(id.String(), ws)
	d := w.await(id.String(), "disconnected", func(d api.AgentDetail) bool { return d.Connection == api.Disconnected })
	if d.Cause != "revoked by ann" {
		t.Errorf("the cause is %q", d.Cause)
	}
	w.reg.Expel(id.String(), "once more")
	w.reg.Expel(uuid.NewString(), "nobody")
	// The next one has passed the gate, but has not said yet who it is.
	g.set(func() { g.refusal, g.entered = nil, 0 })
	ws = dial(t, w.server.URL)
	refuse()
	send(t, ws, first)
	expelled(id.String(), ws)
	if g.set(func() {}); g.entered != 2 {
		t.Errorf("the gate was asked %d times", g.entered)
	}
}

// TestConfirmed: agents with an identity are told what to trust, and counted by what they say that they do.
func TestConfirmed(t *testing.T) {
	g := &gate{}
	w := newWorld(t, registry.Options{Gate: g, Heartbeat: time.Minute, Authorities: func() string { return "new" }})
	connect := func(identified bool, trusts string) (string, string) {
		t.Helper()
		id := uuid.New()
		g.set(func() {
			if g.peer = (control.Peer{}); identified {
				g.peer = control.Peer{ID: id.String(), Generation: 1}
			}
		})
		ws := dial(t, w.server.URL)
		t.Cleanup(func() { ws.Close() })
		send(t, ws, &protobufs.AgentToServer{InstanceUid: id[:], SequenceNum: 1, CustomMessage: (&control.Beat{Nonce: 1, Authorities: trusts}).Message(), AgentDescription: &protobufs.AgentDescription{
			IdentifyingAttributes: []*protobufs.KeyValue{attr("service.name", control.AgentType)},
		}})
		// What is not said again is as it was.
		send(t, ws, &protobufs.AgentToServer{InstanceUid: id[:], SequenceNum: 2, CustomMessage: (&control.Beat{Nonce: 2}).Message()})
		told := ""
		for n := uint64(0); n < 2; {
			_, data, err := ws.ReadMessage()
			m := &protobufs.ServerToAgent{}
			if err != nil || control.Decode(data, m) != nil {
				t.Fatal(err)
			}
			if l, err := control.LeaseOf(m.GetCustomMessage()); err == nil && l != nil {
				n, told = l.Nonce, l.Authorities
			}
		}
		return id.String(), told
	}
	for trusts, identified := range map[string]bool{"new": true, "": false} {
		if _, told := connect(identified, trusts); told != trusts {
			t.Errorf("identified %v: told to trust %q", identified, told)
		}
	}
	old, _ := connect(true, "old")
	if n, behind := w.reg.Confirmed(); n != 1 || len(behind) != 1 || behind[0] != old {
		t.Errorf("%d have confirmed, behind are %q; %s is", n, behind, old)
	}
}

// TestWithin: agents outside of what somebody sees are not there.
func TestWithin(t *testing.T) {
	w := newWorld(t, registry.Options{Heartbeat: time.Minute})
	ids := make(map[string]string)
	for i, site := range []string{"north", "south"} {
		id := uuid.UUID{0xab, 0xcd, 0xef, 0x01, 15: byte(i + 1)} // both begin alike
		ids[site] = id.String()
		ws := dial(t, w.server.URL)
		defer ws.Close()
		send(t, ws, &protobufs.AgentToServer{InstanceUid: id[:], SequenceNum: 1, Health: &protobufs.ComponentHealth{Healthy: true}, AgentDescription: &protobufs.AgentDescription{
			IdentifyingAttributes:    []*protobufs.KeyValue{attr("service.name", control.AgentType)},
			NonIdentifyingAttributes: []*protobufs.KeyValue{attr("host.name", site), attr("site", site)},
		}})
		w.await(ids[site], "connected", func(d api.AgentDetail) bool { return connected(d) && d.Name != "" })
	}
	for text, want := range map[string]string{`site == "north"`: "north", fmt.Sprintf("creel.agent.id == %q", ids["south"]): "south"} {
		within, err := expr.ParseSelector(text)
		if err != nil {
			t.Fatal(err)
		}
		l, err := w.reg.List(within, api.AgentQuery{})
		if err != nil || l.Total != 1 || len(l.Agents) != 1 || l.Agents[0].Name != want || l.Counts[report.Healthy] != 1 || w.reg.Counts(within)[report.Healthy] != 1 {
			t.Errorf("within %s: %+v, %v", text, l, err)
		}
		if d, err := w.reg.Agent(within, "abcdef01"); err != nil || d.Name != want { // the only one that is there
			t.Errorf("within %s: %s, %v", text, d.Name, err)
		}
		if _, err := w.reg.Order(t.Context(), within, want, "pause", "ann", ""); err != nil {
			t.Errorf("within %s: %v", text, err)
		}
		for site, id := range ids {
			for _, name := range []string{site, id} {
				_, seen := w.reg.Agent(within, name)
				_, heard := w.reg.Order(t.Context(), within, name, "pause", "ann", "")
				for _, err := range []error{seen, heard} {
					var e *api.Error
					if missing := errors.As(err, &e) && e.Code == "not_found"; missing != (site != want) {
						t.Errorf("within %s: %s: %v", text, name, err)
					}
				}
			}
		}
	}
	if _, err := w.reg.Agent(everybody, "abcdef01"); err == nil {
		t.Error("for who sees both, the beginning of their ids means one")
	}
}
