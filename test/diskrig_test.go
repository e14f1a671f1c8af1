package test

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
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/otlp"
	"github.com/creelhq/creel/report"
)

const diskMounts = "CREEL_TEST_MOUNTS"

// diskApart runs the test in a process with mounts of its own, which end with it, and reports whether this is that process.
func diskApart(t *testing.T) bool {
	if os.Getenv(diskMounts) != "" {
		return true
	}
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		t.Skip("to mount a file system, one must be root on Linux")
	}
	args := []string{"--mount", "--propagation", "private", os.Args[0], "-test.run=^" + t.Name() + "$", "-test.v", "-test.timeout=20m"}
	if *torture {
		args = append(args, "-torture")
	}
	cmd := exec.Command("unshare", args...)
	cmd.Env = append(os.Environ(), diskMounts+"=1")
	out, err := cmd.CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) || bytes.Contains(out, []byte("unshare failed")) {
		t.Skipf("mounts of one's own are not possible here: %v: %s", err, out)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if t.Logf("%s", out); bytes.Contains(out, []byte("--- SKIP")) {
		t.Skip("see above")
	}
	return false
}

// soon is eventually, for what must not take long.
func (w *diskWorld) soon(what string, f func() bool) {
	w.Helper()
	for late := time.Now().Add(15 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(late) {
			w.Fatalf("not within 15 s: %s", what)
		}
	}
}

// diskMount runs mount or umount.
func diskMount(t *testing.T, command string, args ...string) {
	t.Helper()
	if out, err := exec.Command(command, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v: %s", command, args, err, out)
	}
}

// A diskWorld is an agent with a disk queue, its two sources, a file and OTLP clients, and a far side that comes and goes.
type diskWorld struct {
	*testing.T
	dir   string // on a sound disk
	data  string // the agent's state directory
	otlp  string // where the agent listens
	far   *sink
	away  bool
	agent *process

	file    *os.File // that the agent reads
	written int      // lines in it

	clients sync.WaitGroup
	stop    context.CancelFunc
	mu      sync.Mutex
	safe    map[string]bool // lines of requests that were acknowledged
	later   int             // requests that were answered "try later"
	strange []string        // answers that a client can do nothing with
	took    atomic.Int64    // requests acknowledged
}

func newDiskWorld(t *testing.T) *diskWorld {
	t.Helper()
	ownProcess(t)
	dir, err := os.MkdirTemp("", "creel") // short: it holds a Unix socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := &diskWorld{
		T: t, dir: dir, data: filepath.Join(dir, "data"), otlp: freeAddress(t), away: true,
		far: &sink{address: freeAddress(t), lines: map[string]int{}}, safe: map[string]bool{},
	}
	if w.file, err = os.Create(filepath.Join(dir, "app.log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.rest()
		w.comesAndGoes(false)
		w.file.Close()
		if t.Failed() && w.agent != nil {
			t.Logf("the agent's log ends so:\n%s", w.agent.tail())
		}
	})
	return w
}

func (w *diskWorld) comesAndGoes(there bool) {
	w.Helper()
	switch {
	case there && w.away:
		if err := w.far.open(); err != nil {
			w.Fatal(err)
		}
	case !there && !w.away:
		w.far.server.Close()
	}
	w.away = !there
}

// configure writes the configuration: exporters' id and spool options, and the pipeline's ack.
func (w *diskWorld) configure(exporter, spool, ack string) {
	w.Helper()
	text := fmt.Sprintf(`
agent: {drain: 200ms, dead_letters: {max_size: 1MiB}}
collectors:
  file: {include: [%s/app.log], start_at: beginning, poll_interval: 20ms}
  otlp: {grpc: {enabled: false}, http: {endpoint: %q}}
exporters:
  %s:
    endpoint: "http://%s"
    protocol: http
    compression: none
    delivery: {queue: {max_bytes: 256KiB}, batch: {max_bytes: 64KiB}, retry: {initial: 20ms, max: 200ms}, spool: %s}
pipelines: {p: {from: [file, otlp], to: [%s], ack: %s}}
`, w.dir, w.otlp, exporter, w.far.address, spool, exporter, ack)
	text = strings.ReplaceAll(text, ", spool: none", "")
	if strings.Contains(spool, "in_order") {
		text = strings.ReplaceAll(text, "delivery: {", "delivery: {concurrency: 1, ")
	}
	if err := os.WriteFile(filepath.Join(w.dir, "c.yaml"), []byte(text), 0o600); err != nil {
		w.Fatal(err)
	}
}

func (w *diskWorld) start() {
	w.Helper()
	w.agent = startCreel(w.T, filepath.Join(w.dir, "agent.log"), "agent", "-c", filepath.Join(w.dir, "c.yaml"), "--data", w.data)
	w.soon("the agent runs", func() bool { return w.health().State == "running" })
}

// refuses starts the agent, wants it to end with an error, and returns what it says.
func (w *diskWorld) refuses() string {
	w.Helper()
	bin, err := creelBinary()
	if err != nil {
		w.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, bin, "agent", "-c", filepath.Join(w.dir, "c.yaml"), "--data", w.data).CombinedOutput()
	if err == nil || ctx.Err() != nil {
		w.Errorf("the agent starts, or hangs: %v, %v", err, ctx.Err())
	}
	return string(out)
}

// creel runs a command of the program.
func (w *diskWorld) creel(args ...string) (out string, code int) {
	w.Helper()
	bin, err := creelBinary()
	if err != nil {
		w.Fatal(err)
	}
	cmd := exec.Command(bin, args...)
	text, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		w.Fatal(err)
	}
	return string(text), cmd.ProcessState.ExitCode()
}

// ask gets what the agent tells at path into v. It reports whether the agent answers.
func (w *diskWorld) ask(path string, v any) bool {
	c := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(w.data, "admin.sock"))
		},
	}}
	resp, err := c.Get("http://agent" + path)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(v) == nil
}

func (w *diskWorld) health() (h report.Health) {
	w.ask("/healthz", &h)
	return h
}

func (w *diskWorld) ledger() (l report.Ledger) {
	w.ask("/ledger", &l)
	return l
}

func (w *diskWorld) exporter(id string) (x report.Component) {
	var list []report.Component
	w.ask("/components", &list)
	for _, c := range list {
		if c.Component == "exporters."+id {
			return c
		}
	}
	return x
}

// reload tells the agent to read its configuration, and waits until it has.
func (w *diskWorld) reload() {
	w.Helper()
	before := w.health().Reload.Time
	if err := w.agent.Process.Signal(syscall.SIGHUP); err != nil {
		w.Fatal(err)
	}
	w.soon("reloaded", func() bool { return !w.health().Reload.Time.Equal(before) })
	if e := w.health().Reload.Error; e != "" {
		w.Fatalf("the reload is refused: %s", e)
	}
}

// lines appends n lines to the file.
func (w *diskWorld) lines(n int) {
	w.Helper()
	var b bytes.Buffer
	for range n {
		fmt.Fprintf(&b, "file %d %s\n", w.written, strings.Repeat("x", w.written%200))
		w.written++
	}
	if _, err := w.file.Write(b.Bytes()); err != nil {
		w.Fatal(err)
	}
}

// clamour starts clients that send, one request after the other.
func (w *diskWorld) clamour(clients int) {
	ctx, cancel := context.WithCancel(context.Background())
	w.stop = cancel
	run := time.Now().UnixNano()
	for c := range clients {
		w.clients.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				w.send(ctx, fmt.Sprintf("otlp %d %d %d", run, c, n))
			}
		})
	}
}

// rest ends them.
func (w *diskWorld) rest() {
	if w.stop != nil {
		w.stop()
	}
	w.clients.Wait()
}

const diskRequest = 20 // records

// send sends one request, and does not repeat it.
func (w *diskWorld) send(ctx context.Context, name string) {
	lines, logs := make([]string, diskRequest), make([]creel.Log, diskRequest)
	for i := range lines {
		lines[i] = fmt.Sprintf("%s %d", name, i)
		logs[i].Body = creel.String(lines[i] + strings.Repeat(".", 1500))
	}
	body := otlp.Append(nil, creel.NewLogs(logs))
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+w.otlp+"/v1/logs", bytes.NewReader(body))
	req.Header.Set("Content-Type", "application/x-protobuf")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		select { // the agent is away, or does not answer while it waits for room
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
		return
	}
	text, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	w.mu.Lock()
	switch {
	case resp.StatusCode == http.StatusOK:
		for _, l := range lines {
			w.safe[l] = true
		}
		w.took.Add(1)
	case (resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable) && resp.Header.Get("Retry-After") != "":
		w.later++
	default:
		w.strange = append(w.strange, fmt.Sprintf("%d %s", resp.StatusCode, text))
	}
	w.mu.Unlock()
	if resp.StatusCode != http.StatusOK {
		select { // load, not synchronisation: a client that heeds Retry-After would wait longer
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// turnedAway returns how many requests were answered "try later".
func (w *diskWorld) turnedAway() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.later
}

// arrived returns the lines that the far side has, without their padding.
func (w *diskWorld) arrived() (lines map[string]bool, copies int) {
	w.far.mu.Lock()
	defer w.far.mu.Unlock()
	lines = make(map[string]bool, len(w.far.lines))
	for l, n := range w.far.lines {
		if strings.HasPrefix(l, "file ") {
			l = strings.TrimRight(l, " x")
		}
		lines[strings.TrimRight(l, ".")] = true
		copies += n
	}
	return lines, copies - len(w.far.lines)
}

// missing returns what was promised and has not arrived: acknowledged lines, and those of the file.
func (w *diskWorld) missing() (list []string) {
	there, _ := w.arrived()
	w.mu.Lock()
	defer w.mu.Unlock()
	for l := range w.safe {
		if !there[l] {
			list = append(list, l)
		}
	}
	for n := range w.written {
		if l := fmt.Sprintf("file %d", n); !there[l] {
			list = append(list, l)
		}
	}
	return list
}

// wantAll waits until all that was promised has arrived.
func (w *diskWorld) wantAll() {
	w.Helper()
	var list []string
	for late := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if list = w.missing(); len(list) == 0 {
			break
		}
		if time.Now().After(late) {
			w.Fatalf("%d of %d acknowledged lines and %d of the file are missing, such as %v; %+v", len(list), len(w.safe), w.written, list[:min(len(list), 5)], w.ledger())
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.strange) > 0 {
		w.Errorf("%d answers that a client can do nothing with, such as %s", len(w.strange), w.strange[0])
	}
}

// wantBalance waits until the books balance: they may not while records are worked on.
func (w *diskWorld) wantBalance() (l report.Ledger) {
	w.Helper()
	w.soon("the books balance", func() bool {
		l = w.ledger()
		for _, p := range l.Pipelines {
			if p.Unexplained != 0 {
				return false
			}
			for _, x := range p.Exporters {
				if x.Unexplained != 0 {
					return false
				}
			}
		}
		for _, s := range l.Spools {
			if s.Unexplained != 0 {
				return false
			}
		}
		return l.Pipelines != nil
	})
	return l
}
