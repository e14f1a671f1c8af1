package hub_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/hub"
	"github.com/creelhq/creel/plugins/generate"
	"github.com/creelhq/creel/tlsconf"
)

// startEtcd returns where an etcd is reached.
func startEtcd(t *testing.T) string {
	t.Helper()
	c := embed.NewConfig()
	c.Dir = t.TempDir()
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	local, err := url.Parse("http://127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.ListenClientUrls, c.ListenPeerUrls = []url.URL{*local}, []url.URL{*local}
	e, err := embed.StartEtcd(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	<-e.Server.ReadyNotify()
	return e.Clients[0].Addr().String()
}

// TestTogether: two hubs on one etcd, over TLS. Each answers for both: agents with their figures, logs and metrics.
func TestTogether(t *testing.T) {
	etcd, secret := startEtcd(t), strings.Repeat("ab", 32)
	const text = `
agent: {drain: 1s}
collectors: {generate/logs: {signal: logs, rate: 0, count: %d}, generate/metrics: {signal: metrics, rate: 0, count: 10}}
exporters: {quicklook: {}}
pipelines: {made: {from: [generate/logs, generate/metrics], to: [quicklook]}}
`
	var clients []*api.Client
	var warned []string
	for i := range 2 {
		w := &world{T: t, dir: t.TempDir()}
		if err := os.WriteFile(filepath.Join(w.dir, "secret"), []byte(secret), 0o600); err != nil {
			t.Fatal(err)
		}
		ready := make(chan hub.Endpoints, 1)
		w.goes("hub", func(ctx context.Context) error {
			defer close(ready)
			return hub.Run(ctx, hub.Options{
				Data: w.dir, Address: "127.0.0.1:0", OpAMP: "none", TLS: tlsconf.Server{Identity: true}, Etcd: []string{etcd}, Config: "hub.yaml", Text: fmt.Appendf(nil, text, 100*(i+1)),
				Plugins: []creel.Plugin{generate.Plugin}, Log: io.Discard, Heartbeat: 100 * time.Millisecond, Ready: func(e hub.Endpoints) { ready <- e },
			})
		})
		e, ok := <-ready
		if !ok {
			t.Fatal("the hub does not start")
		}
		secure, err := tlsconf.Client{CAFile: e.CAFile, ServerName: e.ServerName}.Config("127.0.0.1", nil, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		transport := &http.Transport{TLSClientConfig: secure}
		t.Cleanup(transport.CloseIdleConnections)
		clients = append(clients, &api.Client{URL: e.URL, Token: e.Token, HTTP: &http.Client{Transport: transport}, Warn: func(text string) { warned = append(warned, text) }})
	}
	for i, c := range clients {
		what := ""
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
			warned = nil
			h, err := c.Hub(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			n, err := c.CountLogs(t.Context(), api.LogQuery{})
			if err != nil {
				t.Fatal(err)
			}
			sum, err := c.PromQL(t.Context(), "query", url.Values{"query": {`count(count by (creel_agent_id) ({__name__=~".+"}))`}})
			if err != nil {
				t.Fatal(err)
			}
			agents, err := c.Agents(t.Context(), api.AgentQuery{Status: "healthy"})
			if err != nil {
				t.Fatal(err)
			}
			if what = fmt.Sprintf("hub %d: %d hubs, %d logs, %d agents, %s, warned %q", i, len(h.Hubs), n.Total, agents.Total, sum, warned); len(h.Hubs) == 2 && n.Total == 300 && agents.Total == 2 && len(warned) == 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal(what)
			}
		}
		// Live figures of an agent come from the hub that has it.
		l, err := c.Agents(t.Context(), api.AgentQuery{})
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range l.Agents {
			d, err := c.Agent(t.Context(), a.ID)
			if err != nil || len(d.Components) == 0 || a.Totals.In == 0 {
				text, _ := json.Marshal(a)
				t.Errorf("agent %s: %v, %d components; %s", a.ID, err, len(d.Components), text)
			}
		}
	}
}
