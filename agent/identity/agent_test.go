package identity_test

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"

	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/agent/identity"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/report"
)

// opamp is a hub's way in for agents, for those with a certificate.
type opamp struct {
	t   *testing.T
	hub *identity.FakeHub

	mu     sync.Mutex
	bundle string // what agents are to trust; empty: what they do
	who    control.Peer
	trusts string
	met    int
}

func (o *opamp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var p control.Peer
	var refused *control.Refusal
	o.hub.Do(func() { p, _, refused = o.hub.Peer(r) })
	if refused != nil {
		w.WriteHeader(http.StatusForbidden)
		_ = json.NewEncoder(w).Encode(refused)
		return
	}
	c, err := control.Upgrade(w, r, control.MaxMessage, time.Minute, nil)
	if err != nil {
		o.t.Error(err)
		return
	}
	defer c.Close(1000, "")
	for {
		m := &protobufs.AgentToServer{}
		if c.Receive(m) != nil {
			return
		}
		b, err := control.BeatOf(m.CustomMessage)
		if err != nil || b == nil {
			continue
		}
		o.mu.Lock()
		o.who = p
		o.met++
		if b.Authorities != "" {
			o.trusts = b.Authorities
		}
		l := control.Lease{Nonce: b.Nonce, Hub: o.hub.ID, Expires: time.Minute, Heartbeat: 20 * time.Millisecond, Authorities: o.bundle}
		o.mu.Unlock()
		if c.Send(&protobufs.ServerToAgent{InstanceUid: m.InstanceUid, Capabilities: 1, CustomMessage: l.Message()}) != nil {
			return
		}
	}
}

func (o *opamp) is(f func() bool) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return f()
}

func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// TestAgent: an agent that has joined a hub finds it, is known there, follows its authorities, and tells how its certificate is.
// Without the hub it starts as well.
func TestAgent(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	hub := identity.NewFakeHub(t, l)
	defer hub.Close()
	defer l.Close()
	way := &opamp{t: t, hub: hub}
	hub.Handler = way
	data, err := os.MkdirTemp("", "creel") // a short path, for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(data)
	id, err := agent.ID(data, false)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := agent.ID(data, false); err != nil || again != id {
		t.Errorf("it is %s, and then %s: %v", id, again, err)
	}
	url := "https://" + l.Addr().String()
	join := func() {
		t.Helper()
		if _, err := identity.Join(t.Context(), identity.JoinOptions{URL: url, Token: hub.Token(1), Dir: agent.IdentityDir(data), Agent: id, Name: "host"}); err != nil {
			t.Fatal(err)
		}
	}
	join()

	run := func() (stop func() error) {
		t.Helper()
		ctx, cancel := context.WithCancel(context.Background())
		ready, done := make(chan struct{}), make(chan error, 1)
		log, err := os.Create(filepath.Join(t.TempDir(), "log"))
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			done <- agent.Run(ctx, agent.Options{Config: "agent.yaml", Text: []byte("agent: {labels: {site: north}}"), Data: data, Log: log, Ready: func() { close(ready) }})
		}()
		select {
		case <-ready:
		case err := <-done:
			cancel()
			done <- err
		}
		return func() error {
			cancel()
			defer log.Close()
			return <-done
		}
	}
	health := func() (h report.Health) {
		t.Helper()
		c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", agent.AdminSocket(data))
		}}}
		resp, err := c.Get("http://agent/healthz")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if err := json.NewDecoder(resp.Body).Decode(&h); err != nil {
			t.Fatal(err)
		}
		return h
	}

	stop := run()
	await(t, "the hub knows it", func() bool {
		return way.is(func() bool { return way.who.ID == id && way.who.Generation == 1 && way.trusts != "" })
	})
	if h := health(); h.Hub.URL != url || h.Hub.Identity == nil || h.Hub.Identity.Generation != 1 || h.Hub.Identity.Expires.Before(time.Now()) || h.Health != report.Healthy {
		t.Errorf("it says %+v of %+v", h.Hub.Identity, h)
	}
	before := hub.Bundle()
	hub.Do(func() { hub.AddAuthority() })
	after := hub.Bundle()
	way.is(func() bool { way.bundle = after; return true })
	await(t, "it trusts another authority", func() bool { return way.is(func() bool { return way.trusts == after && after != before }) })
	if h := health(); h.Hub.Identity.Generation != 2 || h.Hub.Identity.Error != "" {
		t.Errorf("it says %+v", h.Hub.Identity)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}

	hub.Close()
	l.Close()
	if err := os.WriteFile(filepath.Join(data, "identity.json"), nil, 0o600); err != nil { // it is found again
		t.Fatal(err)
	}
	stop = run()
	await(t, "it says that the hub is away", func() bool { return health().Hub.Error != "" })
	if h := health(); h.State != "running" || h.Health != report.Healthy || h.Hub.Identity.Generation != 2 || h.ID != id {
		t.Errorf("without its hub it is %+v", h)
	}
	if _, err := agent.ID(data, true); err == nil {
		t.Error("an agent that runs gets another id")
	}
	if err := stop(); err != nil {
		t.Error(err)
	}

	if err := os.Chmod(agent.IdentityDir(data), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := run()(); err == nil || !strings.Contains(err.Error(), "chmod 0700") {
		t.Errorf("with an identity that others can read: %v", err)
	}
	if err := os.Chmod(agent.IdentityDir(data), 0o700); err != nil {
		t.Fatal(err)
	}
	if other, err := agent.ID(data, true); err != nil || other == id {
		t.Errorf("it stays %s: %v", other, err)
	}
	if err := run()(); err == nil || !strings.Contains(err.Error(), "is agent "+id+"'s, but this is agent") {
		t.Errorf("with another agent's identity: %v", err)
	}
}
