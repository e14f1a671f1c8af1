package control_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"

	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/report"
)

// hubs are hubs of one control state, with a diary of all.
type hubs struct {
	t   *testing.T
	all []*fakeHub

	mu    sync.Mutex
	diary []string
	leave map[string]string // by hub: what agents there are told
	cut   map[string]bool   // hubs that lease nobody
	drain map[string]bool
}

type fakeHub struct {
	w      *hubs
	id     string
	server *httptest.Server

	mu    sync.Mutex
	conns map[*control.Conn]string
}

func newHubs(t *testing.T, ids ...string) *hubs {
	w := &hubs{t: t, leave: make(map[string]string), drain: make(map[string]bool), cut: make(map[string]bool)}
	for _, id := range ids {
		h := &fakeHub{w: w, id: id, conns: make(map[*control.Conn]string)}
		h.server = httptest.NewServer(h)
		t.Cleanup(h.kill)
		w.all = append(w.all, h)
	}
	return w
}

func (w *hubs) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.diary = append(w.diary, fmt.Sprintf(format, args...))
}

func (w *hubs) read() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.diary)
}

func (w *hubs) get(id string) *fakeHub {
	return w.all[slices.IndexFunc(w.all, func(h *fakeHub) bool { return h.id == id })]
}

func (w *hubs) list() (list []control.HubAt) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, h := range w.all {
		list = append(list, control.HubAt{ID: h.id, Addresses: control.Addresses{URL: h.server.URL}, Draining: w.drain[h.id]})
	}
	return list
}

// ServeHTTP serves an agent as a hub does.
func (h *fakeHub) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	c, err := control.Upgrade(rw, r, control.MaxMessage, time.Minute, nil)
	if err != nil {
		h.w.t.Error(err)
		return
	}
	defer c.Close(1000, "")
	agent := ""
	for {
		m := &protobufs.AgentToServer{}
		if err := c.Receive(m); err != nil {
			h.w.note("%s: over: %v", h.id, err)
			return
		}
		if m.AgentDisconnect != nil {
			h.w.note("%s: goodbye", h.id)
			return
		}
		b, err := control.BeatOf(m.CustomMessage)
		if err != nil || b == nil {
			continue
		}
		l := control.Lease{Nonce: b.Nonce, Hub: h.id, Expires: time.Minute, Heartbeat: 20 * time.Millisecond}
		if l.Hubs = h.w.list(); agent == "" {
			agent = uuid.UUID(m.InstanceUid).String()
			h.mu.Lock()
			h.conns[c] = agent
			h.mu.Unlock()
			h.w.note("%s: here", h.id)
		}
		h.w.mu.Lock()
		if l.Leave = h.w.leave[h.id]; h.w.cut[h.id] {
			l.Nonce, l.Expires = 0, 0
		}
		h.w.mu.Unlock()
		if c.Send(&protobufs.ServerToAgent{InstanceUid: m.InstanceUid, Capabilities: 1, CustomMessage: l.Message()}) != nil {
			return
		}
	}
}

// kill ends the hub without a word.
func (h *fakeHub) kill() {
	h.server.Listener.Close()
	h.hangUp(0)
	h.server.Close()
}

// hangUp ends all connections, with a code of RFC 6455 or 1006 without a word.
func (h *fakeHub) hangUp(code int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.conns {
		if code == 0 {
			c.Abort()
		} else {
			c.Close(code, "the hub stops")
		}
	}
	clear(h.conns)
}

// client is an agent's, that runs.
type client struct {
	*control.Client
	t    *testing.T
	stop func()

	mu   sync.Mutex
	told []control.HubAt
	at   string
}

func run(t *testing.T, o control.ClientOptions) *client {
	t.Helper()
	c := &client{t: t}
	if o.Agent.ID == "" {
		o.Agent.ID = uuid.NewString()
	}
	o.Agent.Labels, o.Agent.Health = func() map[string]string { return nil }, func() report.Health { return report.Health{} }
	o.Agent.Components, o.Agent.Routes = func() []report.Component { return nil }, func() []report.Route { return nil }
	o.Agent.Ledger, o.Agent.Effective = func() report.Ledger { return report.Ledger{} }, func() []byte { return nil }
	o.Agent.Hubs = func(hubs []control.HubAt, at string) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.told, c.at = hubs, at
	}
	var err error
	if c.Client, err = control.NewClient(o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); c.Run(ctx) }()
	c.stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(c.stop)
	return c
}

// where returns the hub that the agent is connected to, "" if to none.
func (c *client) where() string {
	if s := c.State(); s.Connected {
		return s.ID
	}
	return ""
}

func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// TestAnotherHub: an agent whose hub is killed is with another well within two seconds, though its configuration names the first
// alone; one that is started then finds another as well.
func TestAnotherHub(t *testing.T) {
	w := newHubs(t, "a", "b", "c")
	c := run(t, control.ClientOptions{URLs: []string{w.get("a").server.URL}})
	await(t, "it is at a", func() bool { return c.where() == "a" })
	c.mu.Lock()
	known := c.told
	if len(known) != 3 || c.at != "a" {
		t.Errorf("it knows %v, and is at %s", known, c.at)
	}
	c.mu.Unlock()
	w.get("a").kill()
	began := time.Now()
	await(t, "it is elsewhere", func() bool { at := c.where(); return at == "b" || at == "c" })
	if took := time.Since(began); took > 1500*time.Millisecond {
		t.Errorf("to find another hub took %v", took)
	}
	c.stop()
	await(t, "it says goodbye", func() bool {
		return slices.ContainsFunc(w.read(), func(s string) bool { return strings.HasSuffix(s, "goodbye") })
	})

	began = time.Now()
	c = run(t, control.ClientOptions{URLs: []string{w.get("a").server.URL}, Known: known})
	await(t, "started again it finds another", func() bool { at := c.where(); return at == "b" || at == "c" })
	if took := time.Since(began); took > 1500*time.Millisecond {
		t.Errorf("to find another hub after a start took %v", took)
	}
	w.get(c.where()).kill()
	await(t, "it finds the last one", func() bool { return c.where() != "" })
}

// TestSameHub: a hub that says that it goes away is tried first.
func TestSameHub(t *testing.T) {
	w := newHubs(t, "a", "b", "c")
	c := run(t, control.ClientOptions{URLs: []string{w.get("a").server.URL}})
	await(t, "it is at a", func() bool { return c.where() == "a" })
	for range 3 {
		w.get("a").hangUp(1001)
		await(t, "it is away", func() bool { return c.where() == "" })
		await(t, "it is back", func() bool { return c.where() != "" })
	}
	if diary := w.read(); slices.ContainsFunc(diary, func(s string) bool { return !strings.HasPrefix(s, "a:") }) {
		t.Errorf("it was elsewhere: %q", diary)
	}
}

// TestHop: agents that lose their hub together do not come to another at one moment.
func TestHop(t *testing.T) {
	w := newHubs(t, "a", "b")
	var all []*client
	for range 30 {
		all = append(all, run(t, control.ClientOptions{URLs: []string{w.get("a").server.URL}}))
	}
	there := func(id string) (n int) {
		for _, c := range all {
			if c.where() == id {
				n++
			}
		}
		return n
	}
	await(t, "all are at a", func() bool { return there("a") == len(all) })
	w.get("a").kill()
	await(t, "one is at b", func() bool { return there("b") > 0 })
	first := time.Now()
	await(t, "all are at b", func() bool { return there("b") == len(all) })
	if took := time.Since(first); took < 150*time.Millisecond || took > 3*time.Second {
		t.Errorf("all came within %v", took)
	}
}

// TestLeave: an agent that is asked to leave is never without a hub, tells the old one where it has gone, and stays if there is no
// other.
func TestLeave(t *testing.T) {
	w := newHubs(t, "a", "b", "c")
	c := run(t, control.ClientOptions{URLs: []string{w.get("a").server.URL}})
	await(t, "it is at a", func() bool { return c.where() == "a" })
	say := func(hub, leave string) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.leave[hub] = leave
	}
	say("a", "c")
	for c.where() != "c" {
		if c.where() == "" {
			t.Fatal("it has no hub")
		}
	}
	await(t, "the old connection is over", func() bool { return len(w.read()) == 3 })
	if got, want := w.read(), []string{"a: here", "c: here", "a: over: closed by the other side: moved to c"}; !slices.Equal(got, want) {
		t.Errorf("it went so: %q, want %q", got, want)
	}

	say("a", "") // it may come again
	w.get("b").kill()
	say("c", "b") // which is gone
	tried := time.Now()
	await(t, "it has had time", func() bool { return time.Since(tried) > 200*time.Millisecond || c.where() != "c" })
	if at := c.where(); at != "c" {
		t.Errorf("it has left c for %q", at)
	}
	say("c", control.AnyHub)
	await(t, "it is at a", func() bool { return c.where() == "a" })
	diary := w.read()
	say("c", control.AnyHub)
	say("a", control.AnyHub) // both: nobody wants it, and it stays
	tried = time.Now()
	await(t, "it has had time", func() bool { return time.Since(tried) > 200*time.Millisecond || c.where() != "a" })
	if at := c.where(); at != "a" {
		t.Errorf("it has left a for %q", at)
	}
	say("c", "")
	w.mu.Lock()
	w.cut["c"] = true // it would take the agent, but cannot lease it
	w.mu.Unlock()
	await(t, "c was asked", func() bool { return slices.Contains(w.read()[len(diary):], "c: here") })
	await(t, "it is left again", func() bool { return strings.HasPrefix(w.read()[len(w.read())-1], "c: over") })
	if at := c.where(); at != "a" {
		t.Errorf("it has left a for %q, which does not lease it", at)
	}
	c.stop()
	diary = w.read()
	if last := diary[len(diary)-1]; last != "a: goodbye" {
		t.Errorf("at the end: %q", diary)
	}
}

// TestStay: a hub's own agent knows no other hub, whatever it is told.
func TestStay(t *testing.T) {
	w := newHubs(t, "a", "b")
	w.leave["a"] = control.AnyHub
	c := run(t, control.ClientOptions{URLs: []string{w.get("a").server.URL}, Stay: true})
	await(t, "it is at a", func() bool { return c.where() == "a" })
	w.get("a").hangUp(1000)
	await(t, "it is back", func() bool { d := w.read(); return len(d) == 3 })
	if diary := w.read(); slices.ContainsFunc(diary, func(s string) bool { return !strings.HasPrefix(s, "a:") }) || c.told != nil {
		t.Errorf("it was elsewhere: %q, or has heard of others: %v", diary, c.told)
	}
}
