package test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/otlp"
	"github.com/creelhq/creel/report"
)

// This file is the rig of the tests that kill, cut and poison: the real program as a process, a writer of numbered lines,
// and a far side that counts. What was written is compared with what came, and with what the agent says of it.

var torture = flag.Bool("torture", false, "run the long forms of the tests")

// newRand returns a source of chance, and prints what it began with.
func newRand(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d (what happens when also depends on the machine)", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// A tally is an OTLP/HTTP server that counts the lines it takes. It can be taken away and brought back.
type tally struct {
	address string
	server  *http.Server
	rate    int64 // bytes a second that it takes; 0: as many as come

	mu       sync.Mutex
	answer   func(w http.ResponseWriter, lines []int, note func()) // instead of taking it; nil: take it
	paced    time.Time
	took     []uint16 // how often, by the line's number
	distinct int
	copies   int // of lines that were there already
	fresh    int // of those, what came under a name that was not there already: it cannot be told to be a repeat
	requests int
	largest  int              // lines of a request
	names    map[string]named // requests by their names
	repeats  int              // requests under a name that was there already
	lives    map[int64]int    // lines by the start of the agent that sent them
	strange  []string         // what must not come
	delays   []time.Duration  // of lines that tell when they were written
	since    time.Time        // of which lines delays are noted; zero: of none
}

// named is what a name stands for.
type named struct{ lines, first, last int }

func newTally() *tally {
	return &tally{address: "127.0.0.1:0", names: map[string]named{}, lives: map[int64]int{}}
}

const freshLine = "fresh "

func (s *tally) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	now := time.Now()
	b, err := otlp.Parse(creel.Logs, body, nil)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var lines []int
	var delays []time.Duration
	for _, l := range b.Logs() {
		text := l.Body.Str()
		if at, ok := strings.CutPrefix(text, freshLine); ok {
			if ns, err := strconv.ParseInt(at, 10, 64); err == nil && time.Unix(0, ns).After(s.interest()) {
				delays = append(delays, now.Sub(time.Unix(0, ns)))
			}
			continue
		}
		n, err := number(text)
		if err != nil {
			s.wonder(err.Error())
			continue
		}
		lines = append(lines, n)
	}
	s.pace(len(body))
	s.mu.Lock()
	answer := s.answer
	s.delays = append(s.delays, delays...)
	s.mu.Unlock()
	note := func() { s.note(r.Header.Get("creel-batch-id"), r.Header.Get("creel-sender"), lines, b.Len()) }
	if answer != nil {
		answer(w, lines, note)
		return
	}
	note()
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// number returns the first number in a line.
func number(text string) (int, error) {
	_, rest, _ := strings.Cut(text, " ")
	rest = strings.TrimLeft(rest, "abcdefghijklmnopqrstuvwxyz ")
	digits, _, _ := strings.Cut(rest, " ")
	n, err := strconv.Atoi(digits)
	if err != nil || n < 0 || n > 1<<28 {
		return 0, fmt.Errorf("a line that was never written: %.100q", text)
	}
	return n, nil
}

func (s *tally) interest() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.since.IsZero() {
		return time.Now()
	}
	return s.since
}

// look notes from now on the delays of lines that are written after since, and returns those noted before; zero: of none.
func (s *tally) look(since time.Time) (delays []time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delays, s.delays, s.since = s.delays, nil, since
	return delays
}

// pace waits as long as n bytes take.
func (s *tally) pace(n int) {
	if s.rate == 0 {
		return
	}
	s.mu.Lock()
	if now := time.Now(); s.paced.Before(now) {
		s.paced = now
	}
	s.paced = s.paced.Add(time.Duration(int64(n) * int64(time.Second) / s.rate))
	until := s.paced
	s.mu.Unlock()
	time.Sleep(time.Until(until)) // it is a slow far side
}

func (s *tally) wonder(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.strange = append(s.strange, what)
}

// note takes the lines of a request.
func (s *tally) note(name, sender string, lines []int, records int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	s.largest = max(s.largest, records)
	if part := strings.Split(sender, ";"); len(part) == 3 {
		if start, err := strconv.ParseInt(part[1], 10, 64); err == nil {
			s.lives[start] += records
		}
	}
	p := named{lines: len(lines)}
	if len(lines) > 0 {
		p.first, p.last = lines[0], lines[len(lines)-1]
	}
	before, known := s.names[name]
	if known = known && name != ""; known {
		s.repeats++
		if before != p {
			s.strange = append(s.strange, fmt.Sprintf("request %s was %+v and is %+v", name, before, p))
		}
	} else {
		s.names[name] = p
	}
	for _, n := range lines {
		for n >= len(s.took) {
			s.took = append(s.took, make([]uint16, n+1-len(s.took))...)
		}
		if s.took[n]++; s.took[n] == 1 {
			s.distinct++
			continue
		}
		s.copies++
		if !known {
			s.fresh++
		}
	}
}

func (s *tally) open() error {
	l, err := net.Listen("tcp", s.address)
	if err != nil {
		return err
	}
	s.address = l.Addr().String()
	s.server = &http.Server{Handler: s}
	go s.server.Serve(l)
	return nil
}

// started returns the sink at work, for as long as the test.
func (s *tally) started(t *testing.T) *tally {
	t.Helper()
	if err := s.open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.server.Close() })
	return s
}

func (s *tally) answerWith(f func(w http.ResponseWriter, lines []int, note func())) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = f
}

func (s *tally) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.distinct
}

// missing returns some of the first n lines that have not come.
func (s *tally) missing(n int) (some []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range n {
		if (i >= len(s.took) || s.took[i] == 0) && len(some) < 20 {
			some = append(some, i)
		}
	}
	return some
}

func (s *tally) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprintf("%d lines in %d requests of up to %d; %d came again, in %d requests under a name that was known, %d under another",
		s.distinct, s.requests, s.largest, s.copies, s.repeats, s.fresh)
}

// A appender writes numbered lines to a file and renames it now and then, as logrotate does.
type appender struct {
	path    string
	r       *rand.Rand
	burst   int           // lines at a time, at most
	pad     int           // bytes of a line beside its number, at most
	pause   time.Duration // between, at most
	rotates int           // once in so many times; 0: never
	until   int           // how many lines there are to be; 0: as many as there is time for

	written   atomic.Int64
	bytes     atomic.Int64
	known     atomic.Bool // the agent has seen the file, so that it may be renamed
	rotations int
	f         *os.File
}

// start writes until stop is called, which returns how many lines there are; or until all are written, which done tells.
func (w *appender) start(t *testing.T) (stop func() int, done <-chan struct{}) {
	t.Helper()
	var err error
	if w.f, err = os.OpenFile(w.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		t.Fatal(err)
	}
	quit, end := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(end)
		defer w.f.Close()
		for {
			select {
			case <-quit:
				return
			case <-time.After(time.Duration(w.r.Int64N(int64(w.pause) + 1))):
			}
			if err := w.write(); err != nil {
				t.Error(err)
				return
			}
			if w.until > 0 && w.written.Load() >= int64(w.until) {
				return
			}
		}
	}()
	stopped := sync.OnceFunc(func() { close(quit); <-end })
	t.Cleanup(stopped)
	return func() int { stopped(); return int(w.written.Load()) }, end
}

func (w *appender) write() error {
	out := bufio.NewWriter(w.f)
	n := w.written.Load()
	for range 1 + w.r.IntN(w.burst) {
		if w.until > 0 && n >= int64(w.until) {
			break
		}
		k, _ := fmt.Fprintf(out, "line %d %s\n", n, strings.Repeat("x", w.r.IntN(w.pad+1)))
		w.bytes.Add(int64(k))
		n++
	}
	if err := out.Flush(); err != nil {
		return err
	}
	w.written.Store(n)
	if w.rotates == 0 || !w.known.Load() || w.r.IntN(w.rotates) > 0 {
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
	w.f, err = os.OpenFile(w.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	return err
}

// A mortal is an agent that is started again when it was killed.
type mortal struct {
	*process
	t            *testing.T
	config, data string
	kills        int
	caught       int // kills while something was under way
}

// ownProcess skips a test of processes of their own in the short form, which is for the race detector: it does not look
// into them.
func ownProcess(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("what is tested are processes of their own")
	}
}

// newMortal writes the configuration, and starts the agent. Names of files in it begin with the directory.
func newMortal(t *testing.T, dir, name, config string, args ...string) *mortal {
	t.Helper()
	m := &mortal{t: t, config: filepath.Join(dir, name+".yaml"), data: filepath.Join(dir, name)}
	if err := os.WriteFile(m.config, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	m.start(args...)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the log of %s ends so:\n%s", name, m.tail())
		}
	})
	return m
}

func (m *mortal) start(args ...string) {
	m.t.Helper()
	m.process = startCreel(m.t, m.data+".log", append([]string{"agent", "-c", m.config, "--data", m.data}, args...)...)
}

// killed ends it with SIGKILL and starts it again. busy says whether there was anything to be lost.
func (m *mortal) killed(busy bool) {
	m.t.Helper()
	m.kill()
	if m.ProcessState.ExitCode() != -1 {
		m.t.Fatalf("it ended before it was killed: %v\n%s", m.ProcessState, m.tail())
	}
	m.kills++
	if busy {
		m.caught++
	}
	m.start()
}

// ask gets something of the agent's admin endpoint.
func (m *mortal) ask(path string, into any) error {
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", agent.AdminSocket(m.data))
		},
	}}
	resp, err := client.Get("http://agent" + path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(into)
}

// balanced waits until nothing is under way in the agent, and the books say so: all is explained, and with a tally what was
// delivered in this life is what the sink counted of it.
func (m *mortal) balanced(s *tally) (l report.Ledger) {
	m.t.Helper()
	var h report.Health
	eventually(m.t, "the agent runs", func() bool { return m.ask("/healthz", &h) == nil && h.State == "running" })
	what := ""
	for late := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if err := m.ask("/ledger", &l); err != nil {
			m.t.Fatal(err)
		}
		counted := -1
		if s != nil {
			s.mu.Lock()
			counted = s.lives[h.Started.UnixNano()]
			s.mu.Unlock()
		}
		if what = unbalanced(l, counted); what == "" {
			return l
		}
		if time.Now().After(late) {
			m.t.Errorf("the ledger: %s: %+v", what, l)
			return l
		}
	}
}

// unbalanced says what is wrong with the books; counted is what the far side has, and -1 if that is not known.
func unbalanced(l report.Ledger, counted int) string {
	for _, p := range l.Pipelines {
		if p.Unexplained != 0 || p.Held != 0 {
			return fmt.Sprintf("pipeline %s: unexplained %d, held %d", p.Pipeline, p.Unexplained, p.Held)
		}
		for _, x := range p.Exporters {
			if x.Unexplained != 0 || x.Queued != 0 {
				return fmt.Sprintf("exporter %s: unexplained %d, queued %d", x.Exporter, x.Unexplained, x.Queued)
			}
		}
	}
	for _, s := range l.Spools {
		if s.Unexplained != 0 || s.Waiting != 0 {
			return fmt.Sprintf("spool %s: unexplained %d, waiting %d", s.Exporter, s.Unexplained, s.Waiting)
		}
	}
	if out := l.Totals().Out; counted >= 0 && out != int64(counted) {
		return fmt.Sprintf("delivered %d, the far side counts %d", out, counted)
	}
	return ""
}

// arrived waits until the first n lines have come to the tally, and nothing that must not.
func arrived(t *testing.T, s *tally, n int) {
	t.Helper()
	last, at := s.count(), time.Now()
	for s.count() < n && time.Since(at) < time.Minute {
		time.Sleep(10 * time.Millisecond)
		if now := s.count(); now > last {
			last, at = now, time.Now()
		}
	}
	if missing := s.missing(n); len(missing) > 0 || s.count() != n {
		t.Fatalf("%d of %d lines have come; missing begins with %v", s.count(), n, missing)
	}
	if len(s.strange) > 0 {
		t.Errorf("%d times what must not come: %s", len(s.strange), s.strange[0])
	}
}
