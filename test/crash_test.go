package test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/otlp"
)

// creelBinary builds the real program, once.
var creelBinary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "creel-bin")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "creel")
	out, err := exec.Command("go", "build", "-o", bin, "github.com/creelhq/creel/cmd/creel").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build creel: %w: %s", err, out)
	}
	return bin, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if bin, err := creelBinary(); err == nil {
		os.RemoveAll(filepath.Dir(bin))
	}
	os.Exit(code)
}

// sink is an OTLP/HTTP server that can be taken away and brought back. It answers when it has noted the lines.
type sink struct {
	address string
	server  *http.Server

	mu    sync.Mutex
	lines map[string]int
}

func (s *sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	b, err := otlp.Parse(creel.Logs, body, nil)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	for _, l := range b.Logs() {
		s.lines[strings.Clone(l.Body.Str())]++
	}
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/x-protobuf")
}

func (s *sink) open() error {
	l, err := net.Listen("tcp", s.address)
	if err != nil {
		return err
	}
	s.address = l.Addr().String()
	s.server = &http.Server{Handler: s}
	go s.server.Serve(l)
	return nil
}

// rotator writes numbered lines to a file and renames it now and then, as logrotate does.
type rotator struct {
	path      string
	written   int
	rotations int
	f         *os.File
}

func (w *rotator) write(r *rand.Rand) error {
	out := bufio.NewWriter(w.f)
	for range 1 + r.IntN(50) {
		fmt.Fprintf(out, "line %d %s\n", w.written, strings.Repeat("x", r.IntN(100)))
		w.written++
	}
	if err := out.Flush(); err != nil {
		return err
	}
	if r.IntN(40) > 0 {
		return nil
	}
	for i := w.rotations; i > 0; i-- {
		if err := os.Rename(fmt.Sprintf("%s.%d", w.path, i), fmt.Sprintf("%s.%d", w.path, i+1)); err != nil {
			return err
		}
	}
	w.rotations++
	if err := errors.Join(w.f.Close(), os.Rename(w.path, w.path+".1")); err != nil {
		return err
	}
	var err error
	w.f, err = os.Create(w.path)
	return err
}

// TestEveryLineArrives: a file is written and rotated, the agent is killed and started again, told to stop and started
// again, and the far side goes away and comes back, all at random. Every line arrives, some of them more than once.
func TestEveryLineArrives(t *testing.T) {
	bin, err := creelBinary()
	if err != nil {
		t.Fatal(err)
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d (what happens when also depends on the machine)", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	dir, err := os.MkdirTemp("", "creel")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	far := &sink{address: "127.0.0.1:0", lines: make(map[string]int)}
	if err := far.open(); err != nil {
		t.Fatal(err)
	}
	defer func() { far.server.Close() }()
	config := filepath.Join(dir, "c.yaml")
	text := fmt.Sprintf(`
collectors: {file: {include: [%s/app.log], start_at: beginning, poll_interval: 20ms}}
exporters: {otlp: {endpoint: "http://%s", protocol: http, compression: none, delivery: {retry: {initial: 20ms, max: 200ms}}}}
pipelines: {p: {from: [file], to: [otlp]}}
`, dir, far.address)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "agent.err"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	start := func() *exec.Cmd {
		t.Helper()
		cmd := exec.Command(bin, "agent", "-c", config, "--data", filepath.Join(dir, "data"))
		cmd.Stderr = log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	w := &rotator{path: filepath.Join(dir, "app.log")}
	if w.f, err = os.Create(w.path); err != nil {
		t.Fatal(err)
	}
	agent := start()
	defer func() {
		agent.Process.Kill()
		agent.Wait()
	}()

	var kills, stops, outages int
	away := false
	span := 15 * time.Second
	if testing.Short() {
		span = 6 * time.Second
	}
	next, end := time.Now(), time.Now().Add(span)
	goesOn := func() bool { // a slow machine needs longer until everything has happened
		now := time.Now()
		return now.Before(end) || (kills == 0 || outages == 0 || w.rotations == 0) && now.Before(end.Add(time.Minute))
	}
	for ; goesOn(); time.Sleep(time.Duration(r.IntN(10)) * time.Millisecond) { // load, not synchronisation
		if err := w.write(r); err != nil {
			t.Fatal(err)
		}
		if time.Now().Before(next) {
			continue
		}
		next = time.Now().Add(time.Duration(r.IntN(500)) * time.Millisecond)
		switch n := r.IntN(10); {
		case n < 4:
			agent.Process.Kill()
			agent.Wait()
			kills++
			agent = start()
		case n < 6:
			agent.Process.Signal(os.Interrupt)
			agent.Wait()
			stops++
			agent = start()
		case away:
			if err := far.open(); err != nil {
				t.Fatal(err)
			}
			away = false
		default:
			far.server.Close()
			away = true
			outages++
		}
	}
	w.f.Close()
	if away {
		if err := far.open(); err != nil {
			t.Fatal(err)
		}
	}
	if kills == 0 || outages == 0 || w.rotations == 0 {
		t.Errorf("%d kills, %d outages, %d rotations: the test tests nothing", kills, outages, w.rotations)
	}
	arrived, copies := 0, 0
	for deadline := time.Now().Add(time.Minute); arrived < w.written && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		far.mu.Lock()
		arrived, copies = len(far.lines), 0
		for _, n := range far.lines {
			copies += n
		}
		far.mu.Unlock()
	}
	t.Logf("%d lines, %d rotations, %d kills, %d stops, %d outages; %d lines arrived twice", w.written, w.rotations, kills, stops, outages, copies-arrived)
	if arrived == w.written {
		return
	}
	seen := make(map[int]bool)
	for l := range far.lines {
		var n int
		if _, err := fmt.Sscanf(l, "line %d ", &n); err != nil {
			t.Errorf("a line that was never written: %q", l)
		}
		seen[n] = true
	}
	var missing []int
	for n := range w.written {
		if !seen[n] && len(missing) < 20 {
			missing = append(missing, n)
		}
	}
	text2, _ := os.ReadFile(log.Name()) // to understand it
	t.Errorf("%d of %d lines arrived; missing begins with %v\n%s", arrived, w.written, missing, text2[max(0, len(text2)-5000):])
}
