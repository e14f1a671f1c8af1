package test

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creelhq/creel/report"
)

// An outageSize is how much is written, how long the far side is away meanwhile, and how much it takes in a second.
type outageSize struct {
	lines, burst int
	away         time.Duration
	rate         int64
}

func outageOf() outageSize {
	if *torture {
		return outageSize{lines: 1_000_000, burst: 250, away: 20 * time.Second, rate: 20 << 20} // 200 MB in 40 s
	}
	return outageSize{lines: 60_000, burst: 250, away: 1500 * time.Millisecond, rate: 10 << 20}
}

// appender returns who writes that much, 5 MB a second.
func (o outageSize) appender(dir string, r *rand.Rand) *appender {
	return &appender{path: dir + "/app.log", r: r, burst: o.burst, pad: 376, pause: 10 * time.Millisecond, until: o.lines}
}

// A gauge is the resident memory of a process that is started again now and then, its peak in each phase.
type gauge struct {
	mu    sync.Mutex
	pid   int
	phase string
	peak  map[string]int64 // bytes
}

func (g *gauge) of(pid int, phase string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pid, g.phase = pid, phase
}

// start measures until the test is over.
func (g *gauge) start(t *testing.T) {
	g.peak = map[string]int64{}
	quit, end := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(quit); <-end })
	go func() {
		defer close(end)
		for {
			select {
			case <-quit:
				return
			case <-time.After(20 * time.Millisecond):
			}
			g.mu.Lock()
			if n := resident(g.pid); n > g.peak[g.phase] {
				g.peak[g.phase] = n
			}
			g.mu.Unlock()
		}
	}()
}

// steady wants an outage, and catching up, to take little more memory than there was before.
func (g *gauge) steady(t *testing.T) {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	t.Logf("resident at most: %d MiB before, %d MiB in the outage, %d MiB catching up", g.peak["steady"]>>20, g.peak["outage"]>>20, g.peak["replay"]>>20)
	limit := g.peak["steady"] + max(g.peak["steady"]/10, 16<<20)
	if most := max(g.peak["outage"], g.peak["replay"]); most > limit {
		t.Errorf("%d MiB resident, more than the limit of %d MiB", most>>20, limit>>20)
	}
}

// resident returns the bytes of memory that the process has in use; 0 if that is not known.
func resident(pid int) int64 {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if text, ok := strings.CutPrefix(s.Text(), "VmRSS:"); ok {
			n, _ := strconv.ParseInt(strings.Fields(text)[0], 10, 64) // 0 will do
			return n << 10
		}
	}
	return 0
}

// TestOutage: the far side is away in the middle of what is written, and the agent is killed then, and once more while it
// catches up. All arrives; what comes twice was under way when it was cut. Meanwhile new lines of another file pass those
// that wait, in the memory that was enough before.
func TestOutage(t *testing.T) {
	r, dir, far, o := newRand(t), shortDir(t), newTally(), outageOf()
	far.rate = o.rate
	far.started(t)
	m := newMortal(t, dir, "agent", fmt.Sprintf(`
collectors: {file: {include: [%s/app.log, %s/fresh.log], start_at: beginning, poll_interval: 20ms}}
exporters:
  otlp:
    endpoint: "http://%s"
    protocol: http
    compression: none
    delivery: {spool: {min_free: 0}, retry: {initial: 50ms, max: 500ms}, breaker: {enabled: true, open_for: 500ms}}
pipelines: {p: {from: [file], to: [otlp]}}
`, dir, dir, far.address))
	var memory gauge
	memory.of(m.Process.Pid, "steady")
	memory.start(t)
	w := o.appender(dir, r)
	_, written := w.start(t)
	stamps(t, dir+"/fresh.log")

	waitLines := func(share int) {
		t.Helper()
		eventually(t, fmt.Sprintf("%d %% are written", share), func() bool { return w.written.Load() >= int64(o.lines*share/100) })
	}
	waitLines(25)
	eventually(t, "lines flow", func() bool { return far.count() > o.lines/10 })
	far.server.Close()
	gone := time.Now()
	memory.of(m.Process.Pid, "outage")
	time.Sleep(o.away / 2)
	m.killed(int(w.written.Load()) > far.count())
	memory.of(m.Process.Pid, "outage")
	time.Sleep(time.Until(gone.Add(o.away)))
	behind := int(w.written.Load()) - far.count()
	back := time.Now()
	if err := far.open(); err != nil {
		t.Fatal(err)
	}
	memory.of(m.Process.Pid, "replay")
	at := far.count()
	eventually(t, "it catches up", func() bool { return far.count() > at+behind/8 })
	m.killed(int(w.written.Load()) > far.count())
	memory.of(m.Process.Pid, "replay")
	at = far.count()
	eventually(t, "it goes on", func() bool { return far.count() > at })
	far.look(time.Now())
	caughtUp := m.caughtUp()
	memory.of(m.Process.Pid, "after")
	delays := far.look(time.Time{})

	<-written
	arrived(t, far, o.lines)
	m.balanced(far)
	slices.Sort(delays)
	if len(delays) == 0 || m.caught != 2 || behind == 0 {
		t.Fatalf("%d lines behind after the outage, %d new lines meanwhile, %d kills of use: the test tests nothing", behind, len(delays), m.caught)
	}
	p99 := delays[len(delays)*99/100]
	t.Logf("%d lines, %d MB, away for %v with %d lines left behind: %v", o.lines, w.bytes.Load()/1e6, o.away, behind, far)
	t.Logf("caught up %v after the return; meanwhile %d lines of another file took %v (median), %v (p99), %v (most)",
		caughtUp.Sub(back).Round(time.Millisecond), len(delays), delays[len(delays)/2], p99, delays[len(delays)-1])
	if most := far.inFlight(2, 1); far.repeats > most || far.fresh > 0 {
		t.Errorf("%d requests came again, %d were under way at most; %d lines under another name", far.repeats, most, far.fresh)
	}
	memory.steady(t)
	if p99 > 2*time.Second {
		t.Errorf("p99 of new lines while catching up is %v", p99)
	}
}

// stamps writes a line every 50 ms that tells when it was written, until the test is over.
func stamps(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	quit, end := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(quit); <-end })
	go func() {
		defer close(end)
		defer f.Close()
		for {
			select {
			case <-quit:
				return
			case <-time.After(50 * time.Millisecond):
				fmt.Fprintf(f, "%s%d\n", freshLine, time.Now().UnixNano())
			}
		}
	}()
}

// caughtUp waits until nothing is left in the agent's disk queues, and returns when that was.
func (m *mortal) caughtUp() time.Time {
	m.t.Helper()
	eventually(m.t, "the disk queue is empty", func() bool {
		var l report.Ledger
		if m.ask("/ledger", &l) != nil || len(l.Spools) == 0 {
			return false
		}
		for _, s := range l.Spools {
			if s.Waiting > 0 || s.Recovered == 0 {
				return false
			}
		}
		return true
	})
	return time.Now()
}

// TestOutageOfHub is the same with a hub: it is killed and stays away, and the agent is killed twice. The quick look has
// each line once.
func TestOutageOfHub(t *testing.T) {
	r, w, o := newRand(t), newWorld(t), outageOf()
	if !*torture {
		o.lines = 30_000
	}
	w.config = hubWithQueue
	w.startHub()
	m := newMortal(t, w.dir, "agent", hubward(w.dir, w.otlp, ", breaker: {enabled: true, open_for: 500ms}"))
	lines := o.appender(w.dir, r)
	_, written := lines.start(t)
	eventually(t, "a quarter is written", func() bool { return lines.written.Load() >= int64(o.lines/4) })
	w.hub.kill()
	time.Sleep(o.away / 2)
	m.killed(true)
	time.Sleep(o.away / 2)
	w.startHub()
	m.killed(true)
	<-written
	eventually(t, "the agent has sent all", func() bool {
		var l report.Ledger
		return m.ask("/ledger", &l) == nil && len(l.Spools) == 1 && unbalanced(l, -1) == ""
	})
	w.once(o.lines)
	m.balanced(nil)
	t.Logf("%d lines, %d MB, the hub killed and away for %v, the agent killed twice: each line is stored once", o.lines, lines.bytes.Load()/1e6, o.away)
}
