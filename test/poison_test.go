package test

import (
	"encoding/json"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/creelhq/creel/agent"
)

// creel runs a command on the agent's state directory.
func (m *mortal) creel(args ...string) string {
	m.t.Helper()
	out, err := m.asks(args...)
	if err != nil {
		m.t.Fatalf("creel %v: %v", args, err)
	}
	return out
}

// asks runs a command that may say no.
func (m *mortal) asks(args ...string) (string, error) {
	m.t.Helper()
	bin, err := creelBinary()
	if err != nil {
		m.t.Fatal(err)
	}
	out, err := exec.Command(bin, append(args, "--data", m.data)...).Output()
	return string(out), err
}

// TestPoison: the far side refuses for good each request with a certain line in it, one in ten thousand. All others
// arrive, once; those few are dead letters, found with two requests for each time that the request can be halved. When the
// far side takes them, they can be sent again.
func TestPoison(t *testing.T) {
	const every = 10_000
	n := 50_000
	if *torture {
		n = 1_000_000
	}
	for _, spool := range []string{"{min_free: 0}", "null"} {
		t.Run("spool "+spool, func(t *testing.T) {
			r, dir, far := newRand(t), shortDir(t), newTally().started(t)
			first := r.IntN(every)
			poison := func(line int) bool { return line%every == first }
			var mu sync.Mutex
			extra, alone, largest := 0, 0, 0
			far.answerWith(func(w http.ResponseWriter, lines []int, note func()) {
				if !slices.ContainsFunc(lines, poison) {
					note()
					return
				}
				mu.Lock()
				if largest = max(largest, len(lines)); len(lines) > 1 {
					extra += 2 // its halves
				} else {
					alone++
				}
				mu.Unlock()
				http.Error(w, "I do not like this", http.StatusBadRequest)
			})
			w := &appender{path: dir + "/app.log", r: r, burst: 1000, pad: 376, until: n}
			_, written := w.start(t)
			<-written
			m := newMortal(t, dir, "agent", fmt.Sprintf(`
collectors: {file: {include: [%s/app.log], start_at: beginning, poll_interval: 20ms}}
exporters: {otlp: {endpoint: "http://%s", protocol: http, compression: none, delivery: {spool: %s, retry: {initial: 20ms, max: 200ms}}}}
pipelines: {p: {from: [file], to: [otlp]}}
`, dir, far.address, spool))
			bad := n / every
			eventually(t, "the good lines arrive, and the others are found", func() bool {
				mu.Lock()
				defer mu.Unlock()
				return far.count() >= n-bad && alone >= bad
			})
			l := m.balanced(far)
			if far.copies > 0 {
				t.Errorf("%d lines came twice", far.copies)
			}
			if dead := l.Totals().DeadLettered; dead != int64(bad) {
				t.Errorf("the ledger has %d dead letters, not %d", dead, bad)
			}
			var list agent.LetterList
			if err := json.Unmarshal([]byte(m.creel("deadletter", "ls", "-o", "json", "--limit", "10000")), &list); err != nil {
				t.Fatal(err)
			}
			if list.Total != bad || list.Records != bad || alone != bad {
				t.Errorf("%d dead letters with %d records, %d were refused alone; there are %d bad lines", list.Total, list.Records, alone, bad)
			}
			most := bad * 2 * bits.Len(uint(largest-1))
			if t.Logf("%d lines, %d of them refused: %v; %d more requests, in requests of up to %d lines: %d at most", n, bad, far, extra, largest, most); extra > most {
				t.Errorf("%d more requests than without bad lines, over %d", extra, most)
			}
			far.answerWith(nil)
			t.Logf("%s", m.creel("deadletter", "replay", "--all"))
			arrived(t, far, n)
			if far.copies > 0 {
				t.Errorf("%d lines came twice", far.copies)
			}
			m.balanced(far)
			if err := json.Unmarshal([]byte(m.creel("deadletter", "ls", "-o", "json")), &list); err != nil || list.Total != 0 {
				t.Errorf("%d dead letters are left: %v", list.Total, err)
			}
		})
	}
}

// moods are what a far side may do instead of what it should, and whether it has taken the lines nevertheless.
var moods = []struct {
	name string
	took bool
	do   func(w http.ResponseWriter)
}{
	{"hang", false, hang},
	{"hang", true, hang},
	{"reset", false, reset},
	{"reset", true, reset},
	{"unavailable", false, func(w http.ResponseWriter) { http.Error(w, "not now", http.StatusServiceUnavailable) }},
	{"throttle", false, func(w http.ResponseWriter) {
		w.Header().Set("Retry-After", "0")
		http.Error(w, "not so much", http.StatusTooManyRequests)
	}},
	{"bad gateway", true, func(w http.ResponseWriter) { http.Error(w, "who are you?", http.StatusBadGateway) }},
	{"garbage", true, func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "application/x-protobuf")
		_, _ = w.Write([]byte("\xff\xff\xff\xffnonsense")) // the client may have gone
	}},
	{"half an answer", true, func(w http.ResponseWriter) {
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write([]byte("\x0a"))
	}},
	{"endless answer", true, func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "application/x-protobuf")
		for block, n := make([]byte, 1<<20), 0; n < 500; n++ {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	}},
	{"error page", false, func(w http.ResponseWriter) {
		w.WriteHeader(http.StatusInternalServerError)
		for block, n := make([]byte, 1<<20), 0; n < 500; n++ {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	}},
}

// hang answers when nobody waits any more.
func hang(http.ResponseWriter) { time.Sleep(700 * time.Millisecond) }

func reset(w http.ResponseWriter) {
	c, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
}

// TestFarSideMisbehaves: a far side that does what it should every other time only, and an agent that is killed meanwhile.
// Nothing is missing, and nothing is a dead letter.
func TestFarSideMisbehaves(t *testing.T) {
	r, dir, far := newRand(t), shortDir(t), newTally().started(t)
	n, kills := 20_000, 3
	if *torture {
		n, kills = 300_000, 100
	}
	var mu sync.Mutex
	chance := rand.New(rand.NewPCG(r.Uint64(), 0))
	seen, first := make([]int, len(moods)), chance.Perm(len(moods))
	var well atomic.Bool
	far.answerWith(func(w http.ResponseWriter, _ []int, note func()) {
		mu.Lock()
		i := chance.IntN(2 * len(moods))
		if i < len(moods) && len(first) > 0 { // each once, and then at random
			i, first = first[0], first[1:]
		}
		if i < len(moods) && !well.Load() {
			seen[i]++
		}
		mu.Unlock()
		if i >= len(moods) || well.Load() {
			note()
			return
		}
		if moods[i].took {
			note()
		}
		moods[i].do(w)
	})
	m := newMortal(t, dir, "agent", fmt.Sprintf(`
collectors: {file: {include: [%s/app.log], start_at: beginning, poll_interval: 20ms}}
exporters:
  otlp:
    endpoint: "http://%s"
    protocol: http
    compression: none
    delivery: {timeout: 500ms, batch: {max_bytes: 64KiB}, spool: {min_free: 0}, retry: {initial: 10ms, max: 50ms}}
pipelines: {p: {from: [file], to: [otlp]}}
`, dir, far.address))
	w := &appender{path: dir + "/app.log", r: rand.New(rand.NewPCG(r.Uint64(), 0)), burst: 200, pad: 376, pause: 10 * time.Millisecond, until: n}
	_, written := w.start(t)
	for range kills {
		time.Sleep(time.Duration(r.IntN(1000)) * time.Millisecond) // chance, not synchronisation
		m.killed(int(w.written.Load()) > far.count())
	}
	<-written
	eventually(t, "each mood was seen", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return far.count() == n || !slices.Contains(seen, 0)
	})
	arrived(t, far, n)
	well.Store(true)
	l := m.balanced(nil)
	mu.Lock()
	defer mu.Unlock()
	list := ""
	for i, mood := range moods {
		list += fmt.Sprintf(" %s %d", mood.name, seen[i])
		if seen[i] == 0 {
			t.Errorf("%s (lines taken: %v) has not happened: the test tests nothing", mood.name, mood.took)
		}
	}
	t.Logf("%d lines, %d kills (%d while lines were under way): %v; %s", n, m.kills, m.caught, far, list)
	if m.caught == 0 {
		t.Error("no kill was of use: the test tests nothing")
	}
	if t := l.Totals(); t.DeadLettered > 0 || t.Dropped > 0 {
		m.t.Errorf("%d dead letters, %d dropped", t.DeadLettered, t.Dropped)
	}
}
