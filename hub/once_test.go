package hub_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/hub"
	"github.com/creelhq/creel/plugins/debug"
	"github.com/creelhq/creel/plugins/otlp"
)

// A line is how an agent reaches its hub. It can be cut without a word, and lead to another hub.
type line struct {
	net.Listener
	mu    sync.Mutex
	to    string // an address; "": it is cut
	conns []net.Conn
	wg    sync.WaitGroup
}

func newLine(t *testing.T) *line {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	x := &line{Listener: l}
	x.wg.Go(x.serve)
	t.Cleanup(func() { x.Close(); x.lead(""); x.wg.Wait() })
	return x
}

func (x *line) serve() {
	for {
		near, err := x.Accept()
		if err != nil {
			return
		}
		x.mu.Lock()
		far, err := net.Dial("tcp", x.to)
		if err != nil {
			near.Close()
			x.mu.Unlock()
			continue
		}
		x.conns = append(x.conns, near, far)
		x.mu.Unlock()
		for _, c := range [][2]net.Conn{{near, far}, {far, near}} {
			x.wg.Go(func() {
				_, _ = io.Copy(c[0], c[1]) // until the line is cut, or one has hung up
				c[0].Close()
				c[1].Close()
			})
		}
	}
}

// lead breaks all connections, and has new ones go to an address; "": nowhere.
func (x *line) lead(to string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.to = to
	for _, c := range x.conns {
		c.Close()
	}
	x.conns = nil
}

// TestOnceMovesOn: an agent is cut off in the round of a document that is to be done once, and that no two may do. It gives the round up,
// and another does it, with a higher epoch. Nobody does it again: neither who was cut off, when it is back, nor after a restart of the hub.
func TestOnceMovesOn(t *testing.T) {
	w := &world{T: t, dir: t.TempDir()}
	start := func() (address string, stop func()) {
		t.Helper()
		ready, ctx, over := make(chan hub.Endpoints, 1), context.Background(), make(chan struct{})
		ctx, cancel := context.WithCancel(ctx)
		go func() {
			defer close(over)
			defer close(ready)
			err := hub.Run(ctx, hub.Options{
				Data: filepath.Join(w.dir, "hub"), Address: "127.0.0.1:0", OpAMP: "none", Config: "hub.yaml", Text: []byte(hubText), Log: io.Discard, Heartbeat: 50 * time.Millisecond,
				Plugins: []creel.Plugin{otlp.Collector, otlp.Exporter, debug.Plugin, (&worker{}).plugin()}, Ready: func(e hub.Endpoints) { ready <- e },
			})
			if err != nil {
				t.Errorf("hub: %v", err)
			}
		}()
		e, ok := <-ready
		if !ok {
			t.Fatal("the hub does not start")
		}
		w.client = &api.Client{URL: e.URL, Token: e.Token, HTTP: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
		u, err := url.Parse(e.URL)
		if err != nil {
			t.Fatal(err)
		}
		return u.Host, func() { cancel(); <-over }
	}
	address, stop := start()
	defer func() { stop() }()
	var lines [2]*line
	var jobs [2]*worker
	for i := range lines {
		lines[i], jobs[i] = newLine(t), &worker{make(chan struct{}), make(chan error), make(chan struct{}, 1)}
		lines[i].lead(address)
		w.goes("agent", func(ctx context.Context) error {
			return agent.Run(ctx, agent.Options{
				Data: filepath.Join(w.dir, string("ab"[i])), Config: "agent.yaml", Text: []byte("agent: {drain: 1s}"), Log: io.Discard, Hub: "http://" + lines[i].Addr().String(),
				Plugins: []creel.Plugin{jobs[i].plugin(), debug.Plugin}, Labels: map[string]string{"site": "far"},
			})
		})
	}
	eventually := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				d, err := w.client.Task(t.Context(), "job")
				t.Fatalf("%s: it does not happen; %+v, %v", what, d, err)
			}
		}
	}
	both := func() bool {
		list, err := w.client.Agents(t.Context(), api.AgentQuery{Label: "site=far", Status: "healthy"})
		return err == nil && len(list.Agents) == 2
	}
	task := func(name string) api.Task {
		d, err := w.client.Task(t.Context(), name)
		if err != nil || len(d.Tasks) != 1 {
			t.Fatalf("it is %+v, %v", d, err)
		}
		return d.Tasks[0]
	}
	apply := func(text string) {
		t.Helper()
		if _, err := w.client.ApplyDocument(t.Context(), api.DocumentChange{Text: text}); err != nil {
			t.Fatal(err)
		}
	}
	eventually("both agents are there", both)
	apply("document: job\nselector: site == \"far\"\nplace: 1\nonce: true\noverlap: never\ncollectors: {worker: {every: 1h}}\nexporters: {debug: {}}\npipelines: {p: {from: [worker], to: [debug]}}")
	owner := 0
	select {
	case <-jobs[0].begun:
	case <-jobs[1].begun:
		owner = 1
	case <-time.After(20 * time.Second):
		t.Fatalf("it does not begin: %+v", task("job"))
	}
	other, first := jobs[1-owner], task("job")

	lines[owner].lead("")
	select {
	case <-jobs[owner].given: // before the other begins, who waits for nobody here
	case <-other.begun:
		t.Fatal("two do it")
	case <-time.After(20 * time.Second):
		t.Fatal("who is cut off does not give it up")
	}
	select {
	case <-other.begun:
	case <-time.After(20 * time.Second):
		t.Fatalf("the other does not take it over: %+v", task("job"))
	}
	lines[owner].lead(address)
	other.end <- nil
	eventually("it is done", func() bool { return task("job").Status == "done" })
	last := task("job")
	if last.Epoch <= first.Epoch || last.Agent == first.Agent || last.Agent == "" {
		t.Errorf("it is done by %+v, and was placed on %+v", last, first)
	}
	eventually("who was cut off is back", both)

	stop()
	address, stop = start()
	lines[0].lead(address)
	lines[1].lead(address)
	eventually("both agents are there again", both)
	apply("document: next\nselector: site == \"far\"\nplace: 1\nexporters: {debug/next: {}}")
	eventually("the hub places", func() bool { return task("next").Status == "running" })
	select {
	case <-jobs[0].begun:
		t.Error("it is done again")
	case <-jobs[1].begun:
		t.Error("it is done again")
	default:
	}
	if now := task("job"); now.Status != "done" || now.Epoch != last.Epoch || now.Agent != last.Agent {
		t.Errorf("after a restart of the hub it is %+v, and was %+v", now, last)
	}
}
