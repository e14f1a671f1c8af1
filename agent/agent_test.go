package agent_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/report"
)

// running is an agent that runs for a test.
type running struct {
	t      *testing.T
	o      agent.Options
	log    *lockedBuffer
	reload chan struct{}
	stop   context.CancelFunc
	done   chan error
}

type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

// tick is a collector that sends one record and then only waits; stuck is an exporter that never delivers; sink takes all.
func plugins(delivered *int) []creel.Plugin {
	type none struct {
		Secret string `doc:"A secret." optional:"true" secret:"true"`
	}
	return []creel.Plugin{
		creel.NewCollector("tick", "Sends one record.", func(none, creel.Host) (creel.Collector, error) {
			return creel.CollectorFunc(func(ctx context.Context, out creel.Sink) error {
				if err := out.Send(ctx, creel.NewLogs(make([]creel.Log, 1))); err != nil {
					return err
				}
				<-ctx.Done()
				return nil
			}), nil
		}),
		creel.NewCollector("listen", "Only listens.", func(c struct {
			Endpoint string `doc:"Address."`
		}, h creel.Host) (creel.Collector, error) {
			l, err := h.Listen("tcp", c.Endpoint, "test")
			if err != nil {
				return nil, err
			}
			return listener{l}, nil
		}),
		creel.NewCollector("remember", "Counts its starts in its state.", func(_ none, h creel.Host) (creel.Collector, error) {
			return creel.CollectorFunc(func(ctx context.Context, _ creel.Sink) error {
				data, version, err := h.State.Load()
				if err != nil {
					return err
				}
				h.Log.Info("remembered", "starts", len(data))
				if _, err := h.State.Save(append(data, 'x'), version); err != nil {
					return err
				}
				<-ctx.Done()
				return nil
			}), nil
		}),
		creel.NewExporter("sink", "Takes all.", func(none, creel.Host) (creel.Exporter, error) {
			return creel.ExporterFunc(func(_ context.Context, bs []*creel.Batch) error {
				for _, b := range bs {
					*delivered += b.Len()
				}
				return nil
			}), nil
		}),
		creel.NewExporter("stuck", "Never delivers.", func(none, creel.Host) (creel.Exporter, error) {
			return creel.ExporterFunc(func(context.Context, []*creel.Batch) error { return errors.New("stuck on purpose") }), nil
		}),
	}
}

type listener struct{ net.Listener }

func (l listener) Collect(ctx context.Context, _ creel.Sink) error {
	<-ctx.Done()
	return nil
}

// start runs an agent with a configuration until the test ends.
func start(t *testing.T, text string, o agent.Options) *running {
	t.Helper()
	r := &running{t: t, o: o, log: &lockedBuffer{}, reload: make(chan struct{}), done: make(chan error, 1)}
	if r.o.Data == "" {
		r.o.Data = filepath.Join(shortDir(t), "data")
	}
	if r.o.Plugins == nil {
		r.o.Plugins = plugins(new(int))
	}
	r.o.Config = filepath.Join(t.TempDir(), "c.yaml")
	r.o.Log, r.o.Reload, r.o.Version = r.log, r.reload, "test"
	r.write(text)
	ready := make(chan struct{})
	r.o.Ready = func() { close(ready) }
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	go func() { r.done <- agent.Run(ctx, r.o) }()
	select {
	case <-ready:
		t.Cleanup(func() { r.end() })
	case err := <-r.done:
		cancel()
		r.done <- err
	}
	return r
}

// shortDir is a directory with a path that is short enough for a Unix socket.
func shortDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "creel")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (r *running) write(text string) {
	r.t.Helper()
	if err := os.WriteFile(r.o.Config, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// end stops the agent and returns what Run returned.
func (r *running) end() error {
	r.stop()
	err := <-r.done
	r.done <- err
	return err
}

func (r *running) request(method, path string) (int, string) {
	r.t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", agent.AdminSocket(r.o.Data))
	}}}
	req, err := http.NewRequest(method, "http://agent"+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

const good = `
collectors: {tick: , remember: }
exporters: {sink: {secret: hunter2}}
pipelines: {p: {from: [tick, remember], to: [sink]}}
`

func TestLifeOfAnAgent(t *testing.T) {
	defer goleak.VerifyNone(t)
	t.Run("agent", func(t *testing.T) {
		r := start(t, good, agent.Options{})
		if info, err := os.Stat(r.o.Data); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("the state directory is %v, %v", info.Mode(), err)
		}
		for path, want := range map[string]string{
			"/metrics": "creel_pipeline_accepted_total", "/healthz": `"health": "healthy"`, "/readyz": `"state": "running"`,
			"/ledger": `"pipeline": "p"`, "/components": `"collectors.tick"`, "/config": `[redacted]`, "/debug/pprof/": "goroutine",
		} {
			code, body := r.request("GET", path)
			if code != 200 || !strings.Contains(body, want) {
				t.Errorf("%s answers %d without %s: %s", path, code, want, body)
			}
			if strings.Contains(body, "hunter2") {
				t.Errorf("%s tells a secret", path)
			}
		}
		var e agent.Endpoints
		text, err := os.ReadFile(filepath.Join(r.o.Data, "endpoints.json"))
		if err != nil || json.Unmarshal(text, &e) != nil || e.PID != os.Getpid() || e.ID == "" {
			t.Errorf("endpoints.json says %s, %v", text, err)
		}
		if err := r.end(); err != nil {
			t.Error(err)
		}
		if strings.Contains(r.log.String(), "hunter2") {
			t.Error("the log tells a secret")
		}
	})
}

func TestIdentityAndStateSurvive(t *testing.T) {
	data := filepath.Join(shortDir(t), "data")
	var ids []string
	for i := range 3 {
		r := start(t, good, agent.Options{Data: data})
		var h report.Health
		_, body := r.request("GET", "/healthz")
		if err := json.Unmarshal([]byte(body), &h); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, h.ID)
		await(t, func() bool { return strings.Contains(r.log.String(), fmt.Sprintf("starts=%d", i)) })
		if err := r.end(); err != nil {
			t.Fatal(err)
		}
	}
	if ids[0] == "" || ids[0] != ids[1] || ids[1] != ids[2] || ids[0][14] != '7' {
		t.Errorf("the agent was %v", ids)
	}
}

// await polls until a condition holds, for a minute at most.
func await(t *testing.T, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain")
		}
	}
}

func TestDamagedStateIsSetAside(t *testing.T) {
	data := filepath.Join(shortDir(t), "data")
	if err := os.MkdirAll(filepath.Join(data, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"identity.json", "state/collectors.remember"} {
		for _, garbage := range []string{"", "garbage", "creelst1 and then something that is longer than a header"} {
			if err := os.WriteFile(filepath.Join(data, file), []byte(garbage), 0o600); err != nil {
				t.Fatal(err)
			}
			r := start(t, good, agent.Options{Data: data})
			await(t, func() bool { return strings.Contains(r.log.String(), "starts=") })
			if err := r.end(); err != nil {
				t.Fatalf("%s of %q: %v", file, garbage, err)
			}
		}
		if kept, _ := filepath.Glob(filepath.Join(data, file+".damaged-*")); len(kept) == 0 {
			t.Errorf("%s was not kept", file)
		}
	}
}

func TestSecondAgentIsRefused(t *testing.T) {
	r := start(t, good, agent.Options{})
	o := r.o
	o.Ready = nil
	err := agent.Run(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) {
		t.Errorf("got %v", err)
	}
	if code, _ := r.request("GET", "/readyz"); code != 200 {
		t.Errorf("the first agent answers %d", code)
	}
}

func TestWrongConfigurationStartsNothing(t *testing.T) {
	data := filepath.Join(shortDir(t), "data")
	r := start(t, "colectors: {}\ncollectors: {tock: {}}\nagent: {log: {level: loud}, admin: {address: \"0.0.0.0:1\"}}", agent.Options{Data: data})
	err := r.end()
	var errs config.Errors
	if !errors.As(err, &errs) || len(errs) != 4 {
		t.Fatalf("got %v", err)
	}
	for i, want := range []string{`did you mean "collectors"`, `there is no collector "tock"`, "log.level", "insecure: true"} {
		if !strings.Contains(errs[i].Error(), want) {
			t.Errorf("error %d is %v, want %s", i, errs[i], want)
		}
	}
	if _, err := os.Stat(data); err == nil {
		t.Error("a state directory was made")
	}
}

// TestStoppedWhileStarting: whoever is told to stop before everything runs has not failed.
func TestStoppedWhileStarting(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	stopped := false
	abrupt := creel.NewExporter("abrupt", "Stops its agent.", func(struct{}, creel.Host) (creel.Exporter, error) {
		stop()
		stopped = true
		return nil, fmt.Errorf("open abrupt: %w", ctx.Err())
	})
	err := agent.Run(ctx, agent.Options{
		Config: "c.yaml", Text: []byte("collectors: {tick: {}}\nexporters: {abrupt: {}}\npipelines: {p: {from: [tick], to: [abrupt]}}"),
		Data: filepath.Join(shortDir(t), "data"), Plugins: append(plugins(new(int)), abrupt), Log: io.Discard,
	})
	if err != nil || !stopped {
		t.Errorf("got %v (while it started it was stopped: %v)", err, stopped)
	}
}

func TestReload(t *testing.T) {
	r := start(t, good, agent.Options{})
	r.write("exporters: {sink: {secrt: x}}")
	if code, body := r.request("POST", "/-/reload"); code != 422 || !strings.Contains(body, `did you mean "secret"`) {
		t.Errorf("a wrong configuration is answered %d: %s", code, body)
	}
	r.reload <- struct{}{}
	await(t, func() bool { return strings.Count(r.log.String(), "configuration refused") == 2 })
	if code, body := r.request("GET", "/components"); code != 200 || !strings.Contains(body, "collectors.tick") {
		t.Errorf("after a refused reload there is %s", body)
	}
	if _, body := r.request("GET", "/healthz"); !strings.Contains(body, "secrt") {
		t.Errorf("the refused reload is not told: %s", body)
	}
	r.write(strings.Replace(good, "tick, ", "", 1))
	code, body := r.request("POST", "/-/reload")
	var receipt report.Receipt
	err := json.Unmarshal([]byte(body), &receipt)
	if ch := receipt.Change; code != 200 || err != nil || len(ch.Close) != 1 || ch.Close[0] != "collectors.tick" || len(ch.Keep) != 2 {
		t.Errorf("reload answers %d %s", code, body)
	}
}

func TestWebPagesMayNotReload(t *testing.T) {
	r := start(t, good, agent.Options{})
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", agent.AdminSocket(r.o.Data))
	}}}
	req, err := http.NewRequest("POST", "http://agent/-/reload", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Origin", "http://evil.example")
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("answered %s", resp.Status)
	}
}

func TestTakenPortNamesItsHolder(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, text := range map[string]string{
		"component": fmt.Sprintf("collectors: {listen: {endpoint: %q}}\nexporters: {sink: }\npipelines: {p: {from: [listen], to: [sink]}}", l.Addr()),
		"admin":     fmt.Sprintf("agent: {admin: {address: %q}}", l.Addr()),
	} {
		err := start(t, text, agent.Options{}).end()
		if err == nil || !strings.Contains(err.Error(), "taken by this process itself") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestDrainGivesUpInTime(t *testing.T) {
	r := start(t, "agent: {drain: 50ms}\ncollectors: {tick: }\nexporters: {stuck: }\npipelines: {p: {from: [tick], to: [stuck]}}", agent.Options{})
	await(t, func() bool { return strings.Contains(r.log.String(), "stuck on purpose") })
	if _, body := r.request("GET", "/healthz"); !strings.Contains(body, `"health": "degraded"`) {
		t.Errorf("health is %s", body)
	}
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(r.log.String(), "records abandoned") {
		t.Errorf("nothing was abandoned: %s", r.log)
	}
}

func TestJSONLogAndLevels(t *testing.T) {
	r := start(t, "agent: {log: {format: json, level: error}}\n"+good, agent.Options{})
	r.write("agent: {log: {format: json, level: debug}}\n" + good)
	r.reload <- struct{}{}
	await(t, func() bool { return strings.Contains(r.log.String(), `"msg":"configuration applied"`) })
	if strings.Contains(r.log.String(), "agent runs") {
		t.Error("what is below the level is logged")
	}
}

// TestSomebodyElses: a state directory that somebody else has made is not used.
func TestSomebodyElses(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make one")
	}
	dir := t.TempDir()
	if err := os.Chown(dir, 65534, -1); err != nil {
		t.Fatal(err)
	}
	_, err := agent.LockDir(dir)
	if err == nil || !strings.Contains(err.Error(), "belongs to user") {
		t.Errorf("got %v", err)
	}
}
