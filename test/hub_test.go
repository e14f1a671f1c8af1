package test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/hub"
)

// hubConfig is what the hubs of these tests run: OTLP into the quick look.
const hubConfig = `
agent: {drain: 2s}
collectors:
  self: {every: 1s}
  otlp: {grpc: {endpoint: %q}, http: {endpoint: "127.0.0.1:0"}}
exporters: {quicklook: {}}
pipelines: {received: {from: [otlp, self], to: [quicklook]}}
`

// process is a creel that runs.
type process struct {
	*exec.Cmd
	t   *testing.T
	log string // file
}

func startCreel(t *testing.T, log string, args ...string) *process {
	t.Helper()
	ownProcess(t)
	bin, err := creelBinary()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := &process{exec.Command(bin, args...), t, log}
	p.Stderr = f
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.kill() })
	return p
}

// kill ends the process at once. It does nothing if it has ended.
func (p *process) kill() {
	if p.ProcessState == nil {
		_ = p.Process.Kill()
		_ = p.Wait() // it was killed
	}
}

// stop tells the process to end, and wants it to end well.
func (p *process) stop() {
	p.t.Helper()
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		p.t.Errorf("creel ended with %v:\n%s", err, p.tail())
	}
}

func (p *process) tail() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-4000):])
}

// eventually waits until f reports true.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for late := time.Now().Add(time.Minute); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(late) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// world is a directory with a hub in it.
type world struct {
	*testing.T
	dir          string
	config       string // of the hub, with a place for the address of otlp
	otlp, listen string // addresses that stay the same when the hub is started again
	heartbeat    string // that the hub asks for; "": 300ms
	hub          *process
	client       *api.Client
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "creel") // short: it holds a Unix socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := &world{T: t, dir: dir, config: hubConfig, otlp: freeAddress(t), listen: freeAddress(t)}
	t.Cleanup(func() {
		if t.Failed() && w.hub != nil {
			t.Logf("the hub's log ends so:\n%s", w.hub.tail())
		}
	})
	return w
}

// freeAddress returns an address below the ports that systems give to whoever connects: one of those could be taken until it is
// used.
func freeAddress(t *testing.T) string {
	t.Helper()
	for {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20_000+rand.IntN(12_000)))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return l.Addr().String()
	}
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) write(name, text string) string {
	w.Helper()
	if err := os.WriteFile(w.path(name), []byte(text), 0o600); err != nil {
		w.Fatal(err)
	}
	return w.path(name)
}

func (w *world) startHub() {
	w.Helper()
	config := w.write("hub.yaml", fmt.Sprintf(w.config, w.otlp))
	w.hub = startCreel(w.T, w.path("hub.log"), "hub", "-c", config, "--data", w.path("hub"), "--listen", w.listen, "--opamp", "none", "--heartbeat", cmp.Or(w.heartbeat, "300ms"))
	w.client = &api.Client{URL: "http://" + w.listen}
	eventually(w.T, "the hub answers", func() bool {
		token, err := os.ReadFile(w.path("hub/token"))
		w.client.Token = strings.TrimSpace(string(token))
		if err == nil {
			_, err = w.client.Hub(context.Background())
		}
		return err == nil
	})
}

// startAgent starts the second agent: it reads app.log and sends to the hub.
func (w *world) startAgent() *process {
	w.Helper()
	config := w.write("agent.yaml", fmt.Sprintf(`
agent: {labels: {site: north}}
collectors: {file: {include: [%s], start_at: beginning, poll_interval: 20ms}}
exporters: {otlp: {endpoint: %q, tls: {insecure: true}, delivery: {retry: {initial: 20ms, max: 200ms}}}}
pipelines: {lines: {from: [file], to: [otlp]}}
`, w.path("app.log"), w.otlp))
	return startCreel(w.T, w.path("agent.log"), "agent", "-c", config, "--data", w.path("agent"), "--hub", w.client.URL)
}

// second returns the second agent as the fleet has it.
func (w *world) second() (api.Agent, bool) {
	list, err := w.client.Agents(context.Background(), api.AgentQuery{Label: "site=north"})
	if err != nil || len(list.Agents) != 1 {
		return api.Agent{}, false
	}
	return list.Agents[0], true
}

func (w *world) waitFor(status string) (a api.Agent) {
	w.Helper()
	eventually(w.T, "the second agent is "+status, func() bool {
		var there bool
		a, there = w.second()
		return there && a.Status() == status
	})
	return a
}

// lines writes numbered lines to app.log, 2000 a second, until it is told to stop, and returns how many there are.
func (w *world) lines() (stop func() int) {
	w.Helper()
	return w.linesOf(10)
}

// linesOf is lines with as many at a time, 200 times a second.
func (w *world) linesOf(many int) (stop func() int) {
	w.Helper()
	f, err := os.OpenFile(w.path("app.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		w.Fatal(err)
	}
	done, count := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				for range many {
					fmt.Fprintf(f, "numbered line n%d\n", n)
					n++
				}
			case <-done:
				f.Close()
				count <- n
				return
			}
		}
	}()
	return func() int {
		close(done)
		return <-count
	}
}

// stored returns how often the quick look has each of the numbered lines.
func (w *world) stored() map[string]int {
	w.Helper()
	return w.search(`"numbered line"`)
}

// search returns how often the quick look has each of the lines that are found.
func (w *world) search(query string) map[string]int {
	w.Helper()
	seen := map[string]int{}
	q := api.LogQuery{Query: query, Order: "asc", Limit: 5000}
	for {
		page, err := w.client.Logs(context.Background(), q)
		if err != nil || page.Partial != "" {
			w.Fatalf("search: %v, partial: %q", err, page.Partial)
		}
		for _, l := range page.Logs {
			var text string
			if err := json.Unmarshal(l.Body, &text); err != nil {
				w.Fatal(err)
			}
			seen[text]++
		}
		if q.Cursor = page.Next; q.Cursor == "" {
			return seen
		}
	}
}

// wantLines waits until the quick look has all of the first n numbered lines.
func (w *world) wantLines(n int) {
	w.Helper()
	if n < 100 {
		w.Fatalf("only %d lines were written: the test tests nothing", n)
	}
	eventually(w.T, fmt.Sprintf("all of %d lines are stored", n), func() bool { return len(w.stored()) >= n })
	seen, twice := w.stored(), 0
	for i := range n {
		switch k := seen[fmt.Sprintf("numbered line n%d", i)]; {
		case k == 0:
			w.Fatalf("line %d of %d is missing", i, n)
		case k > 1:
			twice++
		}
	}
	w.Logf("%d lines, %d of them more than once", n, twice)
}

// TestSecondAgent: it joins, is killed, shows as lost with its cause, returns as the same agent, and no line is missing.
func TestSecondAgent(t *testing.T) {
	w := newWorld(t)
	w.heartbeat = "1s" // that a busy machine keeps: what is lost is counted
	w.startHub()
	stop := w.lines()
	agent := w.startAgent()
	before := w.waitFor("healthy")
	for range 3 {
		agent.kill()
		if lost := w.waitFor("lost"); !strings.Contains(lost.Cause, "three heartbeats missed") {
			t.Errorf("the cause is %q", lost.Cause)
		}
		agent = w.startAgent()
		if now := w.waitFor("healthy"); now.ID != before.ID || !now.FirstSeen.Equal(before.FirstSeen) {
			t.Fatalf("it came back as %s, first seen %v, not as %s, %v", now.ID, now.FirstSeen, before.ID, before.FirstSeen)
		}
	}
	w.wantLines(stop())
	d, err := w.client.Agent(t.Context(), before.ID)
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]int{}
	for _, e := range d.Timeline {
		kinds[e.Kind]++
	}
	if kinds["lost"] != 3 || kinds["connected"] != 4 {
		t.Errorf("the timeline has %v", kinds)
	}
	agent.stop()
	if gone := w.waitFor("disconnected"); !strings.Contains(gone.Cause, "stopped") {
		t.Errorf("told to stop, its cause is %q", gone.Cause)
	}
	w.hub.stop()
}

// TestHubRestarts: the hub is killed again and again while lines come. The agent reconnects by itself, and nothing that
// was acknowledged is missing: had it been, its file would not be read again.
func TestHubRestarts(t *testing.T) {
	w := newWorld(t)
	w.startHub()
	stop := w.lines()
	w.startAgent()
	id := w.waitFor("healthy").ID
	for range 3 {
		n := len(w.stored())
		eventually(t, "lines flow", func() bool { return len(w.stored()) > n })
		w.hub.kill()
		w.startHub()
		if a := w.waitFor("healthy"); a.ID != id {
			t.Fatalf("agent %s is now %s", id, a.ID)
		}
		list, err := w.client.Agents(t.Context(), api.AgentQuery{})
		if err != nil || list.Total != 2 || list.Counts["healthy"] != 2 {
			t.Errorf("the fleet is %v: %v", list.Counts, err)
		}
	}
	w.wantLines(stop())
}

// TestTraceIsFound: what OpenTelemetry's SDK sends is found by its id, in the API and by the command line.
func TestTraceIsFound(t *testing.T) {
	w := newWorld(t)
	w.startHub()
	x, err := otlptracegrpc.New(t.Context(), otlptracegrpc.WithEndpoint(w.otlp), otlptracegrpc.WithInsecure())
	if err != nil {
		t.Fatal(err)
	}
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSyncer(x))
	ctx, root := tracer.Tracer("test").Start(t.Context(), "checkout")
	_, child := tracer.Tracer("test").Start(ctx, "charge card")
	child.End()
	root.End()
	if err := tracer.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	id := root.SpanContext().TraceID().String()
	found, err := w.client.Trace(t.Context(), id)
	if err != nil || len(found.Spans) != 2 || found.Spans[1].ParentID != root.SpanContext().SpanID().String() {
		t.Fatalf("got %+v, %v", found, err)
	}
	out, code := w.creel("query", "traces", id)
	if code != 0 || !strings.Contains(out, "checkout") || !strings.Contains(out, "  charge card") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	if out, code := w.creel("query", "traces", strings.Repeat("0", 31)+"1"); code != 5 {
		t.Errorf("a trace that is not there: exit code %d:\n%s", code, out)
	}
}

// creel runs a command against the hub.
func (w *world) creel(args ...string) (out string, code int) {
	w.Helper()
	bin, err := creelBinary()
	if err != nil {
		w.Fatal(err)
	}
	cmd := exec.Command(bin, append(args, "--data", w.path("hub"))...)
	text, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.Fatal(err)
	}
	return string(text), cmd.ProcessState.ExitCode()
}

// TestCommandsAskTheHub: each command that asks a hub, on one that runs, and when none does.
func TestCommandsAskTheHub(t *testing.T) {
	w := newWorld(t)
	w.startHub()
	stop := w.lines()
	w.startAgent()
	id := w.waitFor("healthy").ID
	w.wantLinesAtLeast(500)
	stop()
	eventually(t, "a metric is there", func() bool {
		out, _ := w.creel("query", "metrics", "creel_agent_info")
		return strings.Contains(out, "creel_agent_info{")
	})
	for _, c := range []struct {
		want string
		args []string
	}{
		{"healthy", []string{"get", "agents"}},
		{id, []string{"get", "agents", "-l", "site=north", "-o", "name"}},
		{`"id": "` + id, []string{"get", "agents", "-o", "json"}},
		{"collectors.file", []string{"describe", "agent", id}},
		{"AGENTS", []string{"get", "documents"}},
		{"healthy", []string{"top"}},
		{"numbered line n0", []string{"query", "logs", `"line n0"`}},
		{"numbered line n", []string{"logs", "--follow=false"}},
		{"SERVICE", []string{"query", "traces"}},
		{"ok     fleet: 2 healthy", []string{"doctor"}},
		{"connected to hub", []string{"status"}},
	} {
		if out, code := w.creel(c.args...); code != 0 || !strings.Contains(out, c.want) {
			t.Errorf("creel %s: exit code %d, without %q:\n%s", strings.Join(c.args, " "), code, c.want, out)
		}
	}
	for _, c := range []struct {
		code int
		want string
		args []string
	}{
		{5, "no agent", []string{"describe", "agent", "nobody"}},
		{2, "", []string{"get", "agents", "--status", "fine"}},
		{4, "token", []string{"get", "agents", "--token", "wrong"}},
		{3, "creel up", []string{"get", "agents", "--hub", "http://" + freeAddress(t)}},
	} {
		if out, code := w.creel(c.args...); code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("creel %s: exit code %d instead of %d, or without %q:\n%s", strings.Join(c.args, " "), code, c.code, c.want, out)
		}
	}
}

func (w *world) wantLinesAtLeast(n int) {
	w.Helper()
	eventually(w.T, fmt.Sprintf("%d lines are stored", n), func() bool { return len(w.stored()) >= n })
}

// TestTwoHubs: a state directory has one hub, and a port that is taken is refused, saying by whom.
func TestTwoHubs(t *testing.T) {
	w := newWorld(t)
	w.startHub()
	out, code := w.creel("hub", "--listen", "127.0.0.1:0", "--opamp", "none")
	if code == 0 || !strings.Contains(out, "is in use") && !strings.Contains(out, "another") {
		t.Errorf("a second hub on the directory: exit code %d:\n%s", code, out)
	}
	bin, err := creelBinary()
	if err != nil {
		t.Fatal(err)
	}
	text, err := exec.Command(bin, "hub", "--data", w.path("other"), "--listen", w.listen, "--opamp", "none").CombinedOutput()
	if err == nil || !bytes.Contains(text, []byte(w.listen)) || !bytes.Contains(text, []byte("creel")) {
		t.Errorf("a hub on a taken port: %v:\n%s", err, text)
	}
	var e hub.Endpoints
	raw, err := os.ReadFile(w.path("hub/hub.json"))
	if err != nil || json.Unmarshal(raw, &e) != nil || e.PID != w.hub.Process.Pid {
		t.Errorf("hub.json of the one that runs: %s, %v", raw, err)
	}
	w.hub.stop()
	if _, err := os.Stat(w.path("hub/hub.json")); !os.IsNotExist(err) {
		t.Error("hub.json is there though no hub is")
	}
}

// TestDiskFull: a full disk stops the quick look, counted; what is forwarded elsewhere goes on, and when there is room
// again so does the quick look.
func TestDiskFull(t *testing.T) {
	w := newWorld(t)
	small := w.path("hub")
	if err := os.Mkdir(small, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=256m"); err != nil {
		t.Skipf("a file system of its own needs root: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(small, syscall.MNT_DETACH) }) // it goes with its last user
	far := &sink{address: "127.0.0.1:0", lines: make(map[string]int)}
	if err := far.open(); err != nil {
		t.Fatal(err)
	}
	defer far.server.Close()
	config := w.write("hub.yaml", fmt.Sprintf(`
agent: {drain: 2s}
collectors: {otlp: {grpc: {endpoint: %q}, http: {endpoint: "127.0.0.1:0"}}}
exporters:
  quicklook: {delivery: {queue: {max_bytes: 64KiB, when_full: drop_oldest}, retry: {initial: 20ms, max: 100ms}}}
  otlp/far: {endpoint: "http://%s", protocol: http, compression: none}
pipelines: {received: {from: [otlp], to: [quicklook, otlp/far]}}
`, w.otlp, far.address))
	w.hub = startCreel(t, w.path("hub.log"), "hub", "-c", config, "--data", small, "--listen", w.listen, "--opamp", "none", "--heartbeat", "300ms")
	w.client = &api.Client{URL: "http://" + w.listen}
	var full string
	eventually(t, "the hub answers", func() bool {
		token, err := os.ReadFile(w.path("hub/token"))
		w.client.Token = strings.TrimSpace(string(token))
		if err == nil {
			_, err = w.client.Hub(t.Context())
		}
		return err == nil
	})
	stop := w.lines()
	w.startAgent()
	w.waitFor("healthy")
	full = filepath.Join(small, "filler")
	f, err := os.Create(full)
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 64<<10)
	for err == nil {
		_, err = f.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	f.Close()
	eventually(t, "the quick look says that it has stopped", func() bool {
		h, err := w.client.Hub(t.Context())
		return err == nil && strings.Contains(h.QuickLook.Stopped, "full")
	})
	eventually(t, "it drops, counted", func() bool {
		list, err := w.client.Agents(t.Context(), api.AgentQuery{Label: "creel.role=hub"})
		return err == nil && len(list.Agents) == 1 && list.Agents[0].Totals.Dropped > 0
	})
	n := far.count()
	eventually(t, "the other exporter goes on", func() bool { return far.count() > n+500 })
	if err := os.Remove(full); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it stores again", func() bool {
		h, err := w.client.Hub(t.Context())
		return err == nil && h.QuickLook.Stopped == ""
	})
	written := stop()
	eventually(t, "every line has come to the other exporter", func() bool { return far.count() == written })
}

func (s *sink) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.lines)
}
