package test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

// fates are what happens to an agent, in whatever order.
func fates(kills, stops, outages int) (list []string) {
	for range kills {
		list = append(list, "kill")
	}
	for range stops {
		list = append(list, "stop")
	}
	for range outages {
		list = append(list, "cut")
	}
	return list
}

// shortDir is a directory whose name is short: it holds a Unix socket.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "creel")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

const concurrency = 4 // of an exporter, unless told otherwise

// inFlight is what may come twice for each kill and each cut: a request under way for each sender.
func (s *tally) inFlight(kills, cuts int) int { return concurrency * (kills + cuts) }

// slowly takes lines and is slow to say so, so that kills come in between.
func slowly(seed uint64) func(http.ResponseWriter, []int, func()) {
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(seed, 0))
	return func(_ http.ResponseWriter, _ []int, note func()) {
		note()
		mu.Lock()
		pause := time.Duration(r.IntN(30)) * time.Millisecond
		mu.Unlock()
		time.Sleep(pause) // it is a slow far side
	}
}

// TestKilled: a file is written and rotated, the agent is killed and started again, told to stop and started
// again, and the far side goes away and comes back, all at random. Every line arrives. With a disk queue, what comes twice
// was under way when it was cut, and comes under the name that it came with before.
func TestKilled(t *testing.T) {
	for _, c := range []struct{ level, spool string }{{"process", "{min_free: 0}"}, {"disk", "{min_free: 0}"}, {"delivered", "null"}} {
		t.Run(c.level, func(t *testing.T) {
			r, dir, far := newRand(t), shortDir(t), newTally().started(t)
			w := &appender{path: dir + "/app.log", r: rand.New(rand.NewPCG(r.Uint64(), 0)), burst: 200, pad: 100, pause: 10 * time.Millisecond, rotates: 60}
			list := fates(10, 2, 2)
			if *torture {
				list = fates(400, 40, 40)
				w.rotates = 300
			}
			m := newMortal(t, dir, "agent", fmt.Sprintf(`
collectors: {file: {include: [%s/app.log], start_at: beginning, poll_interval: 20ms}}
exporters: {otlp: {endpoint: "http://%s", protocol: http, compression: none, delivery: {spool: %s, retry: {initial: 20ms, max: 200ms}}}}
pipelines: {p: {from: [file], to: [otlp], ack: %s}}
`, dir, far.address, c.spool, c.level))
			far.answerWith(slowly(r.Uint64()))
			stop, _ := w.start(t)
			eventually(t, "the agent knows the file", func() bool { return far.count() > 0 })
			w.known.Store(true)
			stops, cuts := endure(t, r, m, w, far, list)
			eventually(t, "the file was rotated", func() bool { return w.written.Load() > 10000 })
			n := stop()
			arrived(t, far, n)
			m.balanced(nil)
			t.Logf("%d lines written, %d rotations, %d kills (%d while lines were under way), %d stops, %d cuts: %v",
				n, w.rotations, m.kills, m.caught, stops, cuts, far)
			if m.caught == 0 || cuts == 0 || w.rotations == 0 {
				t.Error("the test tests nothing")
			}
			if c.level == "delivered" {
				if most := int64(m.kills+cuts+stops) * 36 << 20; w.bytes.Load()/int64(n)*int64(far.copies) > most {
					t.Errorf("%d lines came again, more than %d bytes", far.copies, most)
				}
				return
			}
			if most := far.inFlight(m.kills, cuts); far.repeats > most {
				t.Errorf("%d requests came again, %d were under way at most", far.repeats, most)
			}
			if far.fresh > 0 {
				t.Errorf("%d lines came again under another name", far.fresh)
			}
			// One life that nothing is done to.
			m.killed(false)
			w.written.Store(int64(n))
			stop, _ = w.start(t)
			eventually(t, "lines come in the last life", func() bool { return far.count() > n+1000 })
			arrived(t, far, stop())
			m.balanced(far)
		})
	}
}

// endure does to the agent and its far side what the list says, in whatever order.
func endure(t *testing.T, r *rand.Rand, m *mortal, w *appender, far *tally, list []string) (stops, cuts int) {
	t.Helper()
	r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	lived := func(most int) { time.Sleep(time.Duration(r.IntN(most)) * time.Millisecond) } // chance, not synchronisation
	for _, fate := range list {
		lived(400)
		switch fate {
		case "kill":
			m.killed(int(w.written.Load()) > far.count())
		case "stop":
			if err := m.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			_ = m.Wait() // in the middle of its start it may end with an error
			m.start()
			stops++
		case "cut":
			far.server.Close()
			lived(300)
			m.killed(true)
			lived(300)
			if err := far.open(); err != nil {
				t.Fatal(err)
			}
			cuts++
		}
	}
	return stops, cuts
}

// hubward is the configuration of an agent that sends a file to a hub, or to what takes its place.
func hubward(dir, to, more string) string {
	return fmt.Sprintf(`
agent: {drain: 1s, labels: {site: north}}
collectors: {file: {include: [%s/app.log], start_at: beginning, poll_interval: 20ms}}
exporters: {otlp: {endpoint: %q, tls: {insecure: true}, delivery: {spool: {min_free: 0}, retry: {initial: 20ms, max: 200ms}%s}}}
pipelines: {p: {from: [file], to: [otlp]}}
`, dir, to, more)
}

// TestKilledBeforeAnother: an agent sends to another, which has a disk queue as a hub has, and sends on. While the first is
// killed, all comes once to the far side, which takes whatever comes. When the second is killed too, what comes twice was
// under way from there.
func TestKilledBeforeAnother(t *testing.T) {
	r, dir, far := newRand(t), shortDir(t), newTally().started(t)
	far.answerWith(slowly(r.Uint64()))
	kills := 8
	if *torture {
		kills = 300
	}
	at := freeAddress(t)
	second := newMortal(t, dir, "second", fmt.Sprintf(`
agent: {drain: 1s}
collectors: {otlp: {grpc: {endpoint: %q}, http: {enabled: false}}}
exporters: {otlp: {endpoint: "http://%s", protocol: http, compression: none, delivery: {spool: {min_free: 0}, retry: {initial: 20ms, max: 200ms}}}}
pipelines: {p: {from: [otlp], to: [otlp]}}
`, at, far.address))
	first := newMortal(t, dir, "first", hubward(dir, at, ""))
	w := &appender{path: dir + "/app.log", r: rand.New(rand.NewPCG(r.Uint64(), 0)), burst: 200, pad: 100, pause: 10 * time.Millisecond, rotates: 100}
	stop, _ := w.start(t)
	eventually(t, "the agent knows the file", func() bool { return far.count() > 0 })
	w.known.Store(true)
	for range kills {
		time.Sleep(time.Duration(r.IntN(400)) * time.Millisecond) // chance, not synchronisation
		first.killed(int(w.written.Load()) > far.count())
	}
	n := stop()
	arrived(t, far, n)
	first.balanced(nil)
	l := second.balanced(far)
	repeats := l.Pipelines[0].Exporters[0].Dropped["duplicate"]
	t.Logf("%d lines written, %d rotations, %d kills of the first (%d while lines were under way): %v; the second dropped %d as repeats",
		n, w.rotations, first.kills, first.caught, far, repeats)
	if first.caught == 0 {
		t.Error("the test tests nothing")
	}
	if far.copies > 0 {
		t.Errorf("%d lines came twice through an agent that knows names", far.copies)
	}

	stop, _ = w.start(t)
	for range kills {
		time.Sleep(time.Duration(r.IntN(400)) * time.Millisecond)
		if r.IntN(2) == 0 {
			first.killed(int(w.written.Load()) > far.count())
		} else {
			second.killed(int(w.written.Load()) > far.count())
		}
	}
	second.killed(int(w.written.Load()) > far.count())
	n = stop()
	arrived(t, far, n)
	first.balanced(nil)
	second.balanced(nil)
	t.Logf("%d lines written, %d kills of the first, %d of the second (%d while lines were under way): %v", n, first.kills, second.kills, second.caught, far)
	if second.caught == 0 {
		t.Error("the test tests nothing")
	}
	if most := far.inFlight(second.kills, 0); far.repeats > most || far.fresh > 0 {
		t.Errorf("%d requests came again, %d were under way at most; %d lines under another name", far.repeats, most, far.fresh)
	}
}

// hubWithQueue is what a hub runs whose quick look has a disk queue, so that it knows repeats.
const hubWithQueue = `
agent: {drain: 2s}
collectors: {otlp: {grpc: {endpoint: %q}, http: {enabled: false}}}
exporters: {quicklook: {delivery: {spool: {min_free: 0}, retry: {initial: 20ms, max: 200ms}}}}
pipelines: {received: {from: [otlp], to: [quicklook]}}
`

// TestKilledBeforeHub: agent and hub are killed at random. The quick look has each line once.
func TestKilledBeforeHub(t *testing.T) {
	r, w := newRand(t), newWorld(t)
	w.config = hubWithQueue
	kills := 8
	if *torture {
		kills = 200
	}
	w.startHub()
	lines := &appender{path: w.path("app.log"), r: rand.New(rand.NewPCG(r.Uint64(), 0)), burst: 60, pad: 100, pause: 20 * time.Millisecond, rotates: 100}
	m := newMortal(t, w.dir, "agent", hubward(w.dir, w.otlp, ""))
	stop, _ := lines.start(t)
	eventually(t, "the agent knows the file", func() bool { return len(w.search("line")) > 0 })
	lines.known.Store(true)
	hubs := 0
	for i := range kills {
		time.Sleep(time.Duration(r.IntN(500)) * time.Millisecond) // chance, not synchronisation
		if i%3 < 2 {
			m.killed(true)
			continue
		}
		w.hub.kill()
		hubs++
		w.startHub()
	}
	n := stop()
	w.once(n)
	m.balanced(nil)
	t.Logf("%d lines, %d rotations, %d kills of the agent, %d of the hub: each line is stored once", n, lines.rotations, m.kills, hubs)
}

// once waits until the quick look has the first n lines, and wants each to be there once.
func (w *world) once(n int) {
	w.Helper()
	if n < 1000 {
		w.Fatalf("only %d lines were written: the test tests nothing", n)
	}
	took, distinct, copies := make([]int, n), 0, 0
	for late := time.Now().Add(2 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		clear(took)
		distinct, copies = 0, 0
		for text, k := range w.search("line") {
			i, err := number(text)
			if err != nil || i >= n {
				w.Fatalf("a line that was never written: %q", text)
			}
			if took[i] == 0 {
				distinct++
			}
			took[i] += k
			copies += k
		}
		copies -= distinct
		if distinct == n || time.Now().After(late) {
			break
		}
	}
	if distinct < n {
		w.Fatalf("%d of %d lines are stored, line %d is missing", distinct, n, slices.Index(took, 0))
	}
	if copies > 0 {
		w.Errorf("%d lines are stored more than once", copies)
	}
}
