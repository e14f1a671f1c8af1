package hub_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/hub"
	"github.com/creelhq/creel/plugins/generate"
	"github.com/creelhq/creel/plugins/otlp"
)

const hubText = `
agent: {drain: 2s}
collectors: {otlp: {grpc: {enabled: false}, http: {endpoint: "127.0.0.1:0"}}}
exporters: {quicklook: {}}
pipelines: {received: {from: [otlp], to: [quicklook]}}
`

const agentText = `
agent: {drain: 2s}
collectors:
  generate/logs: {signal: logs, rate: 0, count: %[1]d, batch: 100}
  generate/metrics: {signal: metrics, rate: 0, count: %[1]d, batch: 100}
  generate/traces: {signal: traces, rate: 0, count: %[1]d, batch: 100}
exporters: {otlp/hub: {endpoint: %[2]q, protocol: http, tls: {insecure: true}, delivery: {batch: {max_bytes: 32KiB, max_wait: 10ms}, retry: {initial: 10ms}}}}
pipelines: {made: {from: [generate/logs, generate/metrics, generate/traces], to: [otlp/hub]}}
`

// world is a hub in this process, and what asks it.
type world struct {
	*testing.T
	dir    string
	client *api.Client
}

// goes runs f until the test is over.
func (w *world) goes(what string, f func(ctx context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := f(ctx); err != nil {
			w.Errorf("%s: %v", what, err)
		}
	})
	w.Cleanup(func() { cancel(); wg.Wait() })
}

func startHub(t *testing.T, o hub.Options) *world {
	t.Helper()
	w := &world{T: t, dir: t.TempDir()}
	ready := make(chan hub.Endpoints, 1)
	o.Data, o.Address, o.OpAMP, o.Config, o.Text, o.Log = filepath.Join(w.dir, "hub"), "127.0.0.1:0", "none", "hub.yaml", []byte(hubText), io.Discard
	o.Plugins, o.Heartbeat = append(o.Plugins, otlp.Collector, otlp.Exporter, generate.Plugin), cmp.Or(o.Heartbeat, 50*time.Millisecond)
	o.Ready = func(e hub.Endpoints) { ready <- e }
	w.goes("hub", func(ctx context.Context) error {
		defer close(ready)
		return hub.Run(ctx, o)
	})
	e, ok := <-ready
	if !ok {
		t.Fatal("the hub does not start")
	}
	w.client = &api.Client{URL: e.URL, Token: e.Token, HTTP: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
	return w
}

// otlpHTTP returns where the hub takes OTLP over HTTP in.
func (w *world) otlpHTTP() *url.URL {
	w.Helper()
	text, err := os.ReadFile(filepath.Join(hub.AgentData(filepath.Join(w.dir, "hub")), "endpoints.json"))
	if err != nil {
		w.Fatal(err)
	}
	var e agent.Endpoints
	if err := json.Unmarshal(text, &e); err != nil || len(e.Listen) != 1 {
		w.Fatalf("the hub listens at %s, %v", text, err)
	}
	return &url.URL{Scheme: "http", Host: e.Listen[0].Address}
}

func (w *world) startAgent(count int, endpoint string) {
	w.goes("agent", func(ctx context.Context) error {
		return agent.Run(ctx, agent.Options{
			Data: filepath.Join(w.dir, "agent"), Config: "agent.yaml", Text: fmt.Appendf(nil, agentText, count, endpoint), Log: io.Discard, Hub: w.client.URL,
			Plugins: []creel.Plugin{otlp.Collector, otlp.Exporter, generate.Plugin}, Labels: map[string]string{"site": "far"},
		})
	})
}

// await returns the agent when it is as ok says.
func (w *world) await(what string, ok func(api.AgentDetail) bool) (d api.AgentDetail) {
	w.Helper()
	deadline := time.Now().Add(time.Minute)
	for ; time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		list, err := w.client.Agents(w.Context(), api.AgentQuery{Label: "site=far"})
		if err != nil {
			w.Fatal(err)
		}
		if len(list.Agents) == 1 {
			if d, err = w.client.Agent(w.Context(), list.Agents[0].ID); err != nil {
				w.Fatal(err)
			}
			if ok(d) {
				return d
			}
		}
	}
	w.Fatalf("the agent is not %s but %+v", what, d)
	return d
}

// TestCountsAgree: an agent sends of each signal, and more than the hub takes of one in a second, and every third answer is lost on its way. It
// is throttled and sends again, and in the end it has delivered what the hub has taken, to the record.
func TestCountsAgree(t *testing.T) {
	const records, limit = 600, 150 // 100 in a request: it is more than the limit on a slow machine as well
	w := startHub(t, hub.Options{AgentRecords: limit})
	// It stands for the network, and so says nothing of itself.
	proxy := &httputil.ReverseProxy{Transport: &http.Transport{}, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(w.otlpHTTP()) }}
	var taken, lost atomic.Int64
	proxy.ModifyResponse = func(r *http.Response) error {
		if r.StatusCode == http.StatusOK && taken.Add(1)%3 == 0 {
			lost.Add(1)
			return fmt.Errorf("the answer is lost")
		}
		return nil
	}
	proxy.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) } // the connection breaks
	between := httptest.NewServer(proxy)
	defer between.Close()
	begin := time.Now()
	w.startAgent(records/3, between.URL)
	d := w.await("done", func(d api.AgentDetail) bool { return d.Totals.Out == records })
	if took := time.Since(begin); took < (records-2*limit)*time.Second/limit {
		t.Errorf("%d records came in %v, at a limit of %d a second", records, took, limit)
	}
	if len(d.Hops) != 1 || d.Hops[0].Exporter != "otlp/hub" || d.Hops[0].Sent != records || d.Hops[0].Taken != records || d.Hops[0].Unexplained != 0 || d.Hops[0].Settling {
		t.Errorf("the hops are %+v", d.Hops)
	}
	if lost.Load() == 0 || len(d.Hops) == 1 && d.Hops[0].Repeats == 0 {
		t.Errorf("%d answers were lost, and the hops are %+v", lost.Load(), d.Hops)
	}
	if d.Intake == nil || d.Intake.ThrottledRequests == 0 || d.Intake.Records < records+d.Hops[0].Repeats || d.Intake.Bytes == 0 {
		t.Errorf("let in: %+v", d.Intake)
	}
	l, err := w.client.Ledger(t.Context(), api.LedgerQuery{})
	if err != nil || l.Total.Accepted < records || l.Total.Sent != records || l.Total.Taken != records || l.Total.Unexplained != 0 || len(l.Agents) != 2 {
		t.Errorf("the ledger is %+v, %v", l, err)
	}
	t.Logf("%d answers lost, %d records repeated, %d requests throttled in %v", lost.Load(), d.Hops[0].Repeats, d.Intake.ThrottledRequests, time.Since(begin))
}

// TestDocuments: what is applied at the hub runs on the agent, and what cannot run there is refused at the hub or told by the
// agent. An order pauses it.
func TestDocuments(t *testing.T) {
	w := startHub(t, hub.Options{})
	w.startAgent(100, w.otlpHTTP().String())
	w.await("connected", func(d api.AgentDetail) bool { return d.Connection == api.Connected && d.State == "running" })
	apply := func(text string) error {
		_, err := w.client.ApplyDocument(t.Context(), api.DocumentChange{Text: text})
		return err
	}
	const extra = "document: extra\nselector: site == \"far\"\n" +
		"collectors: {generate/extra: {signal: logs, rate: 0, count: 50, batch: 10}}\npipelines: {extra: {from: [generate/extra], to: [%s]}}\n"
	if err := apply(fmt.Sprintf(extra, "otlp/hub")); err != nil {
		t.Fatal(err)
	}
	status := func(want string) func(d api.AgentDetail) bool {
		return func(d api.AgentDetail) bool {
			return len(d.Intended.Documents) == 1 && d.Intended.Documents[0].Status == want
		}
	}
	w.await("running the document", status("running"))
	w.await("sending what it says", func(d api.AgentDetail) bool { return d.Totals.Out == 3*100+50 })
	if err := apply(fmt.Sprintf(extra, "nowhere")); err != nil { // only the agent knows what it has in its file
		t.Fatal(err)
	}
	d := w.await("refusing the document", status("refused"))
	if text := d.Intended.Documents[0].Error; !strings.Contains(text, "nowhere") {
		t.Errorf("it is refused: %s", text)
	}
	for text, want := range map[string]string{
		"document: bad\ncollectors: {generate: {signal: smoke}}": "line 2, column 33: collectors.generate.signal",
		"document: bad\ncollectors: {generat: {}}":               "did you mean \"generate\"?",
		"document: bad\nagent: {log: {level: loud}}":             "agent.log.level",
		"document: bad\npipelines: {p: {form: [x]}}":             "did you mean \"from\"?",
	} {
		if err := apply(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := w.client.RollBackDocument(t.Context(), "extra", api.Rollback{}); err != nil {
		t.Fatal(err)
	}
	d = w.await("running what was before", status("running"))
	o, err := w.client.Order(t.Context(), d.ID, api.OrderRequest{Do: "pause", Cause: "repairs"})
	if err != nil {
		t.Fatal(err)
	}
	d = w.await("paused", func(d api.AgentDetail) bool {
		return d.State == "paused" && d.Intended.Order != nil && d.Intended.Order.Done
	})
	if d.Intended.Order.ID != o.ID || d.Timeline[0].Kind != "paused" {
		t.Errorf("the order is %+v, the timeline %+v", d.Intended.Order, d.Timeline)
	}
}
