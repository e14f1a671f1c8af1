package agent_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/plugins/otlp"
)

// fakeHubs are hubs of one control state, each with OpAMP and OTLP over HTTP at one address.
type fakeHubs struct {
	all []*httptest.Server

	mu   sync.Mutex
	conn map[string]*control.Conn // by hub
	beat map[string]int           // likewise: heartbeats
	took map[string]int           // requests
}

func newFakeHubs(t *testing.T, ids ...string) *fakeHubs {
	w := &fakeHubs{conn: make(map[string]*control.Conn), beat: make(map[string]int), took: make(map[string]int)}
	var list []control.HubAt
	for _, id := range ids {
		mux := http.NewServeMux()
		mux.HandleFunc("/v1/logs", func(http.ResponseWriter, *http.Request) { w.count(w.took, id) })
		mux.HandleFunc(control.Path, func(rw http.ResponseWriter, r *http.Request) {
			c, err := control.Upgrade(rw, r, control.MaxMessage, time.Minute, nil)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close(1000, "")
			w.mu.Lock()
			w.conn[id] = c
			w.mu.Unlock()
			for {
				m := &protobufs.AgentToServer{}
				if c.Receive(m) != nil || m.AgentDisconnect != nil {
					return
				}
				b, err := control.BeatOf(m.CustomMessage)
				if err != nil || b == nil {
					continue
				}
				l := control.Lease{Nonce: b.Nonce, Hub: id, Expires: time.Minute, Heartbeat: 20 * time.Millisecond, Hubs: list}
				if c.Send(&protobufs.ServerToAgent{InstanceUid: m.InstanceUid, Capabilities: 1, CustomMessage: l.Message()}) != nil {
					return
				}
				w.count(w.beat, id)
			}
		})
		s := httptest.NewServer(mux)
		t.Cleanup(s.Close)
		w.all = append(w.all, s)
	}
	for i, s := range w.all { // nobody asks yet
		list = append(list, control.HubAt{ID: ids[i], Addresses: control.Addresses{URL: s.URL, OTLPHTTP: s.Listener.Addr().String()}})
	}
	return w
}

func (w *fakeHubs) count(what map[string]int, id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	what[id]++
}

// more returns a function that reports whether a hub has heard more heartbeats and taken more requests since.
func (w *fakeHubs) more(id string) func() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	beat, took := w.beat[id], w.took[id]
	return func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.beat[id] > beat && w.took[id] > took
	}
}

// TestHubs: an agent whose configuration names one hub, and sends to "hub", goes on with another when that is gone; started again
// it remembers the other one. Those of another configuration it forgets.
func TestHubs(t *testing.T) {
	w := newFakeHubs(t, "a", "b")
	data, err := os.MkdirTemp("", "creel") // a short path, for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(data)
	type none struct{}
	steady := creel.NewCollector("steady", "Sends again and again.", func(none, creel.Host) (creel.Collector, error) {
		return creel.CollectorFunc(func(ctx context.Context, out creel.Sink) error {
			for ctx.Err() == nil {
				if err := out.Send(ctx, creel.NewLogs(make([]creel.Log, 1))); err != nil {
					return err
				}
				select {
				case <-ctx.Done():
				case <-time.After(10 * time.Millisecond):
				}
			}
			return ctx.Err()
		}), nil
	})
	var log lockedBuffer
	start := func(text string) (stop func()) {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		log.Reset()
		go func() {
			err := agent.Run(ctx, agent.Options{Config: "agent.yaml", Text: []byte(text), Data: data, Plugins: []creel.Plugin{steady, otlp.Exporter}, Log: &log})
			if err != nil {
				fmt.Fprintln(&log, err)
			}
			done <- err
		}()
		return func() {
			t.Helper()
			cancel()
			if err := <-done; err != nil {
				t.Errorf("%v\n%s", err, &log)
			}
		}
	}
	until := func(what string, holds func() bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); !holds(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("waited in vain: %s\n%s", what, &log)
			}
		}
	}
	text := fmt.Sprintf(`
agent: {hub: {url: %s}, drain: 100ms}
collectors: {steady: }
exporters: {otlp: {endpoint: hub, protocol: http, delivery: {batch: {max_wait: 1ms}}}}
pipelines: {p: {from: [steady], to: [otlp]}}`, w.all[0].URL)
	stop := start(text)
	until("the first hub hears and takes", w.more("a"))
	w.mu.Lock()
	if w.took["b"] > 0 {
		t.Error("data goes elsewhere than the heartbeats")
	}
	w.mu.Unlock()
	until("it is written which hubs there are", func() bool {
		kept, err := os.ReadFile(filepath.Join(data, "hubs.json"))
		return err == nil && strings.Contains(string(kept), w.all[1].URL)
	})
	w.all[0].Listener.Close()
	w.all[0].CloseClientConnections()
	w.mu.Lock()
	conn := w.conn["a"]
	w.mu.Unlock()
	conn.Close(1000, "the test ends it")
	until("the other hub hears and takes", w.more("b"))
	stop()
	stop = start(text)
	until("it remembers the other hub", w.more("b"))
	stop()

	other := newFakeHubs(t, "x")
	forgotten := w.more("b")
	stop = start(strings.Replace(text, w.all[0].URL, other.all[0].URL, 1))
	until("it goes where its configuration says", other.more("x"))
	stop()
	if forgotten() {
		t.Error("it goes to a hub of another configuration")
	}
}
