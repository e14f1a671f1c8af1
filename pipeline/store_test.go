package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/deadletter"
	"github.com/creelhq/creel/pipeline"
	"github.com/creelhq/creel/report"
)

const small = "queue: {max_bytes: 64KiB}, batch: {max_bytes: 8KiB, max_wait: 1ms}"

var errAway = errors.New("away on purpose")

// fail makes all exports of an exporter fail; nil ends that.
func (w *world) failing(exporter string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failures[exporter] = err; err == nil {
		delete(w.failures, exporter)
	}
}

// told returns how many records somebody was told are safe.
func (w *world) told() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.safe
}

// spoolOf checks that the books of the only disk queue balance, and returns them.
func spoolOf(t *testing.T, e *pipeline.Engine) report.SpoolAccount {
	t.Helper()
	s := e.Ledger().Spools[0]
	if s.Unexplained != 0 {
		t.Errorf("the books of the disk queue do not balance: %+v", s)
	}
	return s
}

// allArrived checks that every record that was sent arrived once.
func (w *world) allArrived(exporter string) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	sent := 0
	for id, n := range w.next {
		for i := range n {
			sent++
			if got := w.arrived[exporter][name(id, i)]; got != 1 {
				w.t.Fatalf("%s arrived %d times", name(id, i), got)
			}
		}
	}
	if sent == 0 {
		w.t.Error("nothing was sent")
	}
}

// TestOutage: while the far side is away, collectors go on, and are told that their records are safe; when it is back, all
// arrive once. So they do with every level that may use the disk queue.
func TestOutage(t *testing.T) {
	for _, ack := range []string{"", "ack: process", "ack: disk", "ack: memory"} {
		for _, stages := range []string{"", ", breaker: {enabled: true, open_for: 20ms, probes: 1}", ", concurrency: 1, spool: {order: in_order, min_free: 0}"} {
			t.Run(ack+stages, func(t *testing.T) {
				w := newWorld(t)
				e := w.engine()
				if !strings.Contains(stages, "spool") {
					stages += ", spool: {min_free: 0}"
				}
				text := strings.Replace(one("gen", "", small+stages, "memory"), "ack: memory", ack, 1)
				w.failing("sink", errAway)
				w.apply(e, text)
				w.await("records are safe on disk", func() bool { return w.safe > 2000 })
				if s := spoolOf(t, e); s.Waiting == 0 || s.In == 0 {
					t.Errorf("the far side is away, and the disk queue has %+v", s)
				}
				w.failing("sink", nil)
				w.apply(e, strings.ReplaceAll(text, "gen", "manual"))
				w.await("what waited arrives", func() bool { return len(w.arrived["sink"]) > 2000 && e.Ledger().Spools[0].Waiting == 0 })
				if err := e.Drain(t.Context()); err != nil {
					t.Fatal(err)
				}
				s := spoolOf(t, e)
				p, x := balanced(t, e)
				if s.Waiting > 0 { // it came last
					w.apply(w.engine(), strings.ReplaceAll(text, "gen", "manual"))
					w.await("the rest arrives", func() bool { return len(w.arrived["sink"]) == int(p.Accepted)+4 })
				}
				w.allArrived("sink")
				if x.Delivered+x.Spooled != p.Accepted || x.Spooled != s.In || len(x.Dropped)+len(s.Dropped) > 0 {
					t.Errorf("the ledger says %+v, %+v", x, s)
				}
			})
		}
	}
}

// TestKilled: what was said to be safe is, whenever the process ends: here a copy of the directory goes on.
func TestKilled(t *testing.T) {
	for round := range 10 {
		w := newWorld(t)
		e := w.engine()
		text := strings.Replace(one("gen", "", small+", spool: {min_free: 0}", "memory"), "ack: memory", "ack: process", 1)
		w.apply(e, text)
		if round%2 == 0 {
			w.failing("sink", errAway)
		}
		w.await("records are safe", func() bool { return w.safe > 500*(1+round) })
		n := newWorld(t)
		w.mu.Lock()
		var safe []string
		for record, r := range w.results {
			if len(r) == 1 && r[0] == nil {
				safe = append(safe, record)
			}
		}
		w.mu.Unlock()
		if err := os.CopyFS(n.dir, ignoringVanished{os.DirFS(w.dir)}); err != nil {
			t.Fatal(err)
		}
		w.mu.Lock()
		before := len(w.arrived["sink"])
		safe = slices.DeleteFunc(safe, func(record string) bool { return w.arrived["sink"][record] > 0 })
		w.mu.Unlock()
		if round%2 == 0 && len(safe) == 0 {
			t.Fatal("nothing was safe only on disk: the test tests nothing")
		}
		o := n.engine()
		n.apply(o, strings.ReplaceAll(text, "gen", "manual"))
		n.await("what was safe arrives", func() bool {
			return o.Ledger().Spools[0].Waiting == 0
		})
		n.mu.Lock()
		for _, record := range safe {
			if n.arrived["sink"][record] == 0 {
				t.Fatalf("round %d: %s was said to be safe, and did not arrive; %d arrived before", round, record, before)
			}
		}
		n.mu.Unlock()
		w.failing("sink", nil)
		if err := e.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// ignoringVanished is a file system whose files may go while they are copied.
type ignoringVanished struct{ fs.FS }

func (f ignoringVanished) Open(name string) (fs.File, error) {
	file, err := f.FS.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return f.FS.Open("spool/sink/lock")
	}
	return file, err
}

// TestInOrder: with order in_order records arrive in the order in which they came, across an outage and a restart.
func TestInOrder(t *testing.T) {
	w := newWorld(t)
	last := int64(-1)
	w.took = func(n int64) {
		if n != last+1 {
			t.Errorf("record %d arrives after %d", n, last)
		}
		last = n
	}
	text := one("gen", "", small+", concurrency: 1, spool: {order: in_order, min_free: 0}", "process")
	e := w.engine()
	for _, err := range []error{nil, errAway, nil, errAway} {
		w.failing("sink", err)
		w.apply(e, strings.ReplaceAll(text, "max: 2ms", fmt.Sprintf("max: %dms", 2+w.told()%3))) // another instance now and then
		n := w.told()
		w.await("more", func() bool { return w.safe > n+2000 })
	}
	if err := e.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.failing("sink", nil)
	w.next["manual"] = w.next["gen"]
	f := w.engine()
	w.apply(f, strings.ReplaceAll(text, "gen", "manual"))
	w.await("what waited arrives", func() bool { return f.Ledger().Spools[0].Waiting == 0 && len(w.arrived["sink"]) > 8000 })
}

// sending is a collector that sends what the test says.
type sending struct {
	w    *world
	out  chan creel.Sink
	host chan creel.Host
}

func (w *world) sending(t *testing.T, e *pipeline.Engine, text string) (creel.Sink, creel.Host) {
	t.Helper()
	s := sending{w, make(chan creel.Sink, 1), make(chan creel.Host, 1)}
	plugins := append(w.plugins(), creel.NewCollector("send", "Lends its sink.", func(_ none, h creel.Host) (creel.Collector, error) {
		return creel.CollectorFunc(func(ctx context.Context, out creel.Sink) error {
			s.out <- out
			s.host <- h
			<-ctx.Done()
			return nil
		}), nil
	}))
	root, err := config.Parse("test.yaml", []byte(text), config.Env{})
	if err != nil {
		t.Fatal(err)
	}
	plan, err := pipeline.Compile(root, plugins, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Apply(t.Context(), plan); err != nil {
		t.Fatal(err)
	}
	return <-s.out, <-s.host
}

// TestRepeats: a batch that comes twice under one name is delivered once, also across a restart, and who sends it is told
// that it is safe each time.
func TestRepeats(t *testing.T) {
	w := newWorld(t)
	text := one("send", "", "spool: {min_free: 0}", "process")
	for life := range 2 {
		e := w.engine()
		out, _ := w.sending(t, e, text)
		for i := range int64(3) {
			w.mu.Lock()
			w.next["send"] = 4 * i
			w.mu.Unlock()
			b := w.batch("send", 4)
			b.SetID(creel.ID{1, byte(i)})
			if err := out.Send(t.Context(), b); err != nil {
				t.Fatal(err)
			}
			w.await("it is safe", func() bool { return len(w.results[name("send", 4*i)]) == life+1 })
		}
		w.await("it arrives", func() bool { return len(w.arrived["sink"]) == 12 })
		if err := e.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, x := balanced(t, e)
		if want := int64(12 * life); x.Dropped["duplicate"] != want {
			t.Errorf("in life %d the ledger says %+v", life, x)
		}
	}
	w.allArrived("sink")
}

// TestTwoWaysAreNoRepeat: a named batch that two pipelines bring to one exporter is there twice on purpose; that it is sent
// again is recognised on both ways.
func TestTwoWaysAreNoRepeat(t *testing.T) {
	w := newWorld(t)
	e := w.engine()
	out, _ := w.sending(t, e, "collectors: {send: }\nprocessors: {mark: }\nexporters: {sink: {delivery: {spool: {min_free: 0}}}}\n"+
		"pipelines: {p: {from: [send], to: [sink]}, q: {from: [send], to: [sink]}}")
	for life := range 2 {
		w.mu.Lock()
		w.next["send"] = 0
		w.mu.Unlock()
		b := w.batch("send", 1)
		b.SetID(creel.ID{7})
		if err := out.Send(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		w.await("it is safe", func() bool { return len(w.results["send#0"]) == life+1 })
	}
	if err := e.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := w.arrived["sink"]["send#0"]; n != 2 {
		t.Errorf("it arrived %d times", n)
	}
	for _, p := range e.Ledger().Pipelines {
		if x := p.Exporters[0]; x.In != 2 || x.Delivered+x.Spooled != 1 || x.Dropped["duplicate"] != 1 {
			t.Errorf("pipeline %s: %+v", p.Pipeline, x)
		}
	}
}

// TestHalvesHaveNoPlace: a store that knows a request by its place in the disk queue must not take one half of it for a
// repeat of the other, nor, after a kill, the whole for one that it has.
func TestHalvesHaveNoPlace(t *testing.T) {
	w := newWorld(t)
	w.letters, w.size = true, 8
	e := w.engine()
	w.refuse = func(record string) bool { return record == "manual#5" }
	w.apply(e, one("manual", "", "concurrency: 1, spool: {min_free: 0}", "process"))
	w.await("the others arrive", func() bool { return len(w.arrived["sink"]) == 7 })
	for _, r := range w.requests {
		if r.ID.IsZero() || !r.Log.IsZero() || r.Seq != 0 {
			t.Errorf("a part of a request was sent as %+v", r)
		}
	}
	w.mu.Lock()
	w.refuse, w.requests = nil, nil
	w.mu.Unlock()
	w.apply(e, strings.Replace(one("manual", "", "concurrency: 1, spool: {min_free: 0}", "process"), "{manual: }", "{manual: {variant: 1}}", 1))
	w.await("a whole one arrives", func() bool { return len(w.arrived["sink"]) == 15 })
	if r := w.requests[0]; r.Log.IsZero() || r.Seq == 0 {
		t.Errorf("a whole request was sent as %+v", r)
	}
}

// TestGathering: while senders are busy, small batches become large requests.
func TestGathering(t *testing.T) {
	w := newWorld(t)
	e := w.engine()
	busy := make(chan struct{})
	w.hung["sink"] = busy
	out, _ := w.sending(t, e, one("send", "", "concurrency: 1, spool: {min_free: 0}", "process"))
	for range 200 {
		if err := out.Send(t.Context(), w.batch("send", 5)); err != nil {
			t.Fatal(err)
		}
	}
	w.await("all are safe", func() bool { return w.safe == 1000 })
	close(busy)
	w.await("all arrive", func() bool { return len(w.arrived["sink"]) == 1000 })
	w.allArrived("sink")
	if n := len(w.calls["sink"]); n > 50 {
		t.Errorf("200 batches became %d requests", n)
	}
}

// TestTaken: a collector learns what a disk queue has of its sources, in the next life as well.
func TestTaken(t *testing.T) {
	w := newWorld(t)
	w.failing("sink", errAway)
	text := one("send", "", "spool: {min_free: 0}", "process")
	for life := range 2 {
		e := w.engine()
		out, h := w.sending(t, e, text)
		from := uint64(100 * life)
		b := w.batch("send", 4)
		b.SetParts(creel.Part{Source: 7, From: from, To: from + 50})
		if err := out.Send(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		w.await("it is safe", func() bool { return w.safe == 4*(life+1) })
		want := []creel.Range{{From: 0, To: 50}, {From: 100, To: 150}}[:life+1]
		if got := h.Taken(7); !slices.Equal(got, want) {
			t.Errorf("in life %d, %v are taken, not %v", life, got, want)
		}
		if got := h.Taken(8); len(got) > 0 {
			t.Errorf("of another source, %v are taken", got)
		}
		if err := e.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	// Where a source leads to one exporter on two ways, or to one that has no disk queue, nothing can be said.
	for _, pipelines := range []string{
		"{p: {from: [send], to: [sink]}, q: {from: [send], to: [sink]}}", "{p: {from: [send], to: [sink, sink/plain]}}",
	} {
		e := w.engine()
		_, h := w.sending(t, e, "collectors: {send: }\nexporters: {sink: {delivery: {spool: {min_free: 0}}}, sink/plain: }\npipelines: "+pipelines)
		if got := h.Taken(7); len(got) > 0 {
			t.Errorf("with %s, %v are taken", pipelines, got)
		}
		if err := e.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLetters: what is refused for good becomes a dead letter, with its cause, and can be sent again.
func TestLetters(t *testing.T) {
	for _, spool := range []string{"", ", spool: {min_free: 0}"} {
		w := newWorld(t)
		w.letters = true
		e := w.engine()
		w.refuse = func(record string) bool { return record == "manual#1" }
		w.apply(e, one("manual", "", "concurrency: 1"+spool, "delivered"))
		w.await("the others arrive", func() bool { return len(w.arrived["sink"]) == 3 && w.safe == 4 })
		if _, x := balanced(t, e); x.Delivered != 3 || x.DeadLettered != 1 || len(x.Dropped) > 0 {
			t.Errorf("the ledger says %+v", x)
		}
		var letters []deadletter.Letter
		if err := e.Letters.List(func(l deadletter.Letter) error { letters = append(letters, l); return nil }); err != nil {
			t.Fatal(err)
		}
		if len(letters) != 1 || letters[0].Answer != "refused on purpose" || letters[0].Reason != "refused" || letters[0].Exporter != "sink" || letters[0].Pipeline != "p" {
			t.Fatalf("the letters are %+v", letters)
		}
		w.mu.Lock()
		w.refuse = nil
		w.mu.Unlock()
		done, err := e.Resend(t.Context(), "sink", letters[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		w.await("the letter arrives", func() bool { return len(w.arrived["sink"]) == 4 })
		w.allArrived("sink")
		if _, err := e.Resend(t.Context(), "nobody", letters[0]); err == nil {
			t.Error("a letter went to nobody")
		}
	}
}

// TestFullDiskQueue does what it is configured to do: collectors wait, or records go and are counted.
func TestFullDiskQueue(t *testing.T) {
	for _, policy := range []string{"block", "drop_oldest", "drop_newest"} {
		t.Run(policy, func(t *testing.T) {
			w := newWorld(t)
			e := w.engine()
			w.failing("sink", errAway)
			text := one("gen", "", small+", spool: {min_free: 0, max_size: 1MiB, when_full: "+policy+"}", "process")
			w.apply(e, text)
			w.await("it is full", func() bool {
				s := e.Components()
				i := slices.IndexFunc(s, func(c report.Component) bool { return c.Spool != nil })
				if policy == "block" {
					return s[i].Spool.Error != "" && s[i].Spool.Full
				}
				l := e.Ledger()
				dropped := l.Spools[0].Dropped["spool_full"] + l.Pipelines[0].Exporters[0].Dropped["spool_full"]
				return dropped > 1000
			})
			w.failing("sink", nil)
			told := w.told()
			w.await("it goes on", func() bool { return w.safe > told+5000 && len(w.arrived["sink"]) > 5000 })
			w.apply(e, strings.ReplaceAll(text, "gen", "manual"))
			w.await("it is empty", func() bool { return e.Ledger().Spools[0].Waiting == 0 })
			if err := e.Drain(t.Context()); err != nil {
				t.Fatal(err)
			}
			p, x := balanced(t, e)
			s := spoolOf(t, e)
			w.mu.Lock()
			defer w.mu.Unlock()
			dropped := s.Dropped["spool_full"] + x.Dropped["spool_full"]
			if got := int64(len(w.arrived["sink"])); got != s.Delivered+x.Delivered || got+dropped != p.Accepted {
				t.Errorf("%d arrived; the ledger says %+v, %+v", got, x, s)
			}
			if (dropped > 0) != (policy != "block") {
				t.Errorf("%d were dropped", dropped)
			}
		})
	}
}

// TestAckNeedsDiskQueue: a level that cannot be kept is an error of the configuration.
func TestAckNeedsDiskQueue(t *testing.T) {
	w := newWorld(t)
	for _, ack := range []string{"process", "disk"} {
		root, err := config.Parse("test.yaml", []byte(one("gen", "", "", ack)), config.Env{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err = pipeline.Compile(root, w.plugins(), nil); err == nil || !strings.Contains(err.Error(), `ack: `+ack+` needs a disk queue at exporter "sink"`) {
			t.Errorf("got %v", err)
		}
	}
	if _, err := pipeline.New(pipeline.Options{}).Apply(t.Context(), w.compile(one("manual", "", "spool: ", "process"))); err == nil || !strings.Contains(err.Error(), "state directory") {
		t.Errorf("without a directory: %v", err)
	}
	if _, err := os.Stat(filepath.Join(w.dir, "spool")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a disk queue was made by checking")
	}
}
