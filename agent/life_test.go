package agent_test

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/report"
	"github.com/creelhq/creel/trace"
)

func (r *running) state() (s agent.State) {
	r.t.Helper()
	code, body := r.request("GET", "/state")
	if err := json.Unmarshal([]byte(body), &s); code != 200 || err != nil {
		r.t.Fatalf("state answers %d %s", code, body)
	}
	return s
}

func (r *running) order(do string) report.Life {
	r.t.Helper()
	code, body := r.request("POST", "/-/"+do+"?cause=for+a+test")
	var l report.Life
	if err := json.Unmarshal([]byte(body), &l); code != 200 || err != nil {
		r.t.Fatalf("%s answers %d %s", do, code, body)
	}
	return l
}

// An operator's pause outlives the process.
func TestPause(t *testing.T) {
	r := start(t, good, agent.Options{})
	if l := r.order("pause"); l.State != "paused" || len(l.Holds) != 1 || l.Holds[0].Cause != "for a test" {
		t.Errorf("paused: %+v", l)
	}
	if code, _ := r.request("GET", "/readyz"); code != 503 {
		t.Errorf("a paused agent says %d", code)
	}
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	r = start(t, good, agent.Options{Data: r.o.Data})
	if l := r.state().Life; l.State != "paused" || l.Holds[0].By != "operator" {
		t.Errorf("started again: %+v", l)
	}
	if l := r.order("resume"); l.State != "running" || len(l.Holds) != 0 {
		t.Errorf("resumed: %+v", l)
	}
	if l := r.order("drain"); l.State != "paused" {
		t.Errorf("drained: %+v", l)
	}
	await(t, func() bool { return strings.Contains(r.log.String(), "all is delivered") })
}

func TestRestartAndStop(t *testing.T) {
	for do, want := range map[string]error{"restart": agent.ErrRestart, "stop": nil} {
		r := start(t, good, agent.Options{})
		r.order(do)
		if err := <-r.done; !errors.Is(err, want) {
			t.Errorf("%s: Run returns %v", do, err)
		}
		r.done <- nil
	}
}

// What is required holds the agent until it is there; what it takes a port for, too.
func TestRequires(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mounted")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	text := `agent: {requires: {paths: ["` + path + `"], ports: ["` + l.Addr().String() + `"], every: 100ms}}
collectors: {listen: {endpoint: "` + l.Addr().String() + `"}}
exporters: {sink: }
pipelines: {p: {from: [listen], to: [sink]}}`
	data := filepath.Join(shortDir(t), "data")
	go func() { // start waits until it is ready
		r := &running{t: t, o: agent.Options{Data: data}}
		await(t, func() bool { // the socket is there before it is listened at
			c, err := net.Dial("unix", agent.AdminSocket(data))
			if err == nil {
				c.Close()
			}
			return err == nil
		})
		await(t, func() bool { return r.state().Life.State == "paused" })
		if code, _ := r.request("POST", "/-/reload"); code != 503 {
			t.Errorf("reload before the start answers %d", code)
		}
		l.Close()
	}()
	r := start(t, text, agent.Options{Data: data})
	holds := r.state().Life
	if holds.State != "paused" || len(holds.Holds) != 1 || holds.Holds[0].By != "requires.paths" {
		t.Errorf("without the path: %+v", holds)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	await(t, func() bool { return r.state().Life.State == "running" })
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	await(t, func() bool { return r.state().Life.State == "paused" })
}

// The files beside the configuration are part of it, and what is written is taken in.
func TestFragments(t *testing.T) {
	r := start(t, "agent: {watch: true}\nexporters: {sink: }\n", agent.Options{})
	dir := filepath.Join(filepath.Dir(r.o.Config), agent.Fragments)
	fragment := filepath.Join(dir, "more.yaml")
	if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(fragment, []byte("collectors: {tick: }\npipelines: {p: {from: [tick], to: [sink]}}"), 0o600)); err != nil {
		t.Fatal(err)
	}
	await(t, func() bool {
		_, body := r.request("GET", "/components")
		return strings.Contains(body, "collectors.tick")
	})
	if err := os.WriteFile(fragment, []byte("exporters: {sink: }"), 0o600); err != nil {
		t.Fatal(err)
	}
	await(t, func() bool { return strings.Contains(r.state().Configuration.Error, "is defined twice") })
	if _, body := r.request("GET", "/healthz"); !strings.Contains(body, `"health": "degraded"`) {
		t.Errorf("health is %s", body)
	}
	if err := os.Remove(fragment); err != nil {
		t.Fatal(err)
	}
	await(t, func() bool { c := r.state().Configuration; return c.Error == "" && c.Wanted == "" })
	if c := r.state().Configuration; len(c.Documents) != 1 || c.Receipts[len(c.Receipts)-1].Source != "file" {
		t.Errorf("at the end: %+v", c)
	}
}

// What is logged of a delivery says in which span that was, while somebody looks at spans.
func TestLogsCarrySpans(t *testing.T) {
	type none struct{}
	looks := creel.NewCollector("looks", "Looks at spans.", func(_ none, h creel.Host) (creel.Collector, error) {
		return creel.CollectorFunc(func(ctx context.Context, _ creel.Sink) error {
			defer h.Self.SubscribeSpans(func(trace.Data) {})()
			<-ctx.Done()
			return nil
		}), nil
	})
	r := start(t, `
agent: {drain: 0s}
collectors: {looks: , tick: }
exporters: {stuck: {delivery: {retry: {initial: 10ms, max: 100ms}}}, sink: }
pipelines: {p: {from: [tick], to: [stuck]}, other: {from: [looks], to: [sink]}}`, agent.Options{Plugins: append(plugins(new(int)), looks)})
	line := regexp.MustCompile(`export failed.* trace_id=[0-9a-f]{32} span_id=[0-9a-f]{16}`)
	await(t, func() bool { return line.MatchString(r.log.String()) })
}

// Labels take effect at once: in conditions of what is switched on, and for collectors that say them.
func TestLabelsAndToggles(t *testing.T) {
	text := func(site string) string {
		return "agent: {labels: {site: " + site + "}}\ncollectors: {tick: {enabled: site == \"north\"}, remember: }\nexporters: {sink: }\npipelines: {p: {from: [tick, remember], to: [sink]}}"
	}
	r := start(t, text("south"), agent.Options{})
	if _, body := r.request("GET", "/components"); strings.Contains(body, "collectors.tick") {
		t.Errorf("what is switched off runs: %s", body)
	}
	r.write(text("north"))
	code, body := r.request("POST", "/-/reload")
	var receipt report.Receipt
	if err := json.Unmarshal([]byte(body), &receipt); code != 200 || err != nil || receipt.Outcome != report.Applied {
		t.Fatalf("reload answers %d %s", code, body)
	}
	if ch := receipt.Change; len(ch.Open) != 1 || ch.Open[0] != "collectors.tick" || len(ch.Reopen) != 1 || ch.Reopen[0] != "collectors.remember" {
		t.Errorf("the change was %+v", ch)
	}
}

// A bundle has all that helps, and no secret.
func TestBundle(t *testing.T) {
	r := start(t, good, agent.Options{})
	code, body := r.request("GET", "/bundle")
	zip, err := gzip.NewReader(strings.NewReader(body))
	if code != 200 || err != nil {
		t.Fatalf("code %d, %v", code, err)
	}
	sizes := map[string]int{}
	for files := tar.NewReader(zip); ; {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(files)
		if err != nil {
			t.Fatal(err)
		}
		if sizes[filepath.Base(h.Name)] = len(text); strings.Contains(string(text), "hunter2") {
			t.Errorf("%s has the secret", h.Name)
		}
	}
	for _, name := range []string{"health.json", "state.json", "config.json", "origins.json", "ledger.json", "metrics.txt", "log.txt", "goroutines.txt", "heap.pprof", "cpu.pprof"} {
		if sizes[name] < 20 {
			t.Errorf("%s has %d bytes: %v", name, sizes[name], sizes)
		}
	}
}
