package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/pipeline"
	"github.com/creelhq/creel/report"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// one is a pipeline from one collector to one exporter, with options for the delivery.
func one(collector, through, delivery, ack string) string {
	return fmt.Sprintf("collectors: {%s: }\nprocessors: {hold: , fail: , thin: }\nexporters: {sink: {delivery: {retry: {initial: 1ms, max: 2ms}, %s}}}\npipelines: {p: {from: [%s], through: [%s], to: [sink], ack: %s}}",
		collector, delivery, collector, through, ack)
}

// balanced checks that the books of pipeline p balance, and returns them.
func balanced(t *testing.T, e *pipeline.Engine) (report.Pipeline, report.Exporter) {
	t.Helper()
	p := e.Ledger().Pipelines[0]
	if p.Unexplained != 0 || p.Exporters[0].Unexplained != 0 {
		t.Errorf("the books do not balance: %+v", p)
	}
	return p, p.Exporters[0]
}

// TestRefusedRecordsAreFound: of a request that is refused for good, only the records to blame are dropped.
func TestRefusedRecordsAreFound(t *testing.T) {
	w := newWorld(t)
	e := w.engine()
	w.refuse = func(record string) bool { return record == "manual#1" }
	w.apply(e, one("manual", "", "concurrency: 1", "delivered"))
	w.await("the others arrive", func() bool { return len(w.arrived["sink"]) == 3 && len(w.results["manual#1"]) == 1 })
	if err := w.results["manual#1"][0]; !creel.IsPermanent(err) {
		t.Errorf("who waits is told %v", err)
	}
	if p, x := balanced(t, e); x.Delivered != 3 || x.Dropped["refused"] != 1 || p.Accepted != 4 {
		t.Errorf("the ledger says %+v", x)
	}
	if !slices.Equal(w.calls["sink"], []int{4, 2, 1, 1, 2}) {
		t.Errorf("attempts of %v records", w.calls["sink"])
	}
}

// TestHopelessRequestsEnd: a far side that refuses everything is not asked once for each record.
func TestHopelessRequestsEnd(t *testing.T) {
	w := newWorld(t)
	e := w.engine()
	w.size = 5000
	w.refuse = func(string) bool { return true }
	w.apply(e, one("manual", "", "concurrency: 1", "delivered"))
	w.await("all are refused", func() bool { return len(w.results["manual#4999"]) == 1 })
	if _, x := balanced(t, e); x.Dropped["refused"] != 5000 {
		t.Errorf("the ledger says %+v", x)
	}
	if n := len(w.calls["sink"]); n > 250 {
		t.Errorf("%d attempts", n)
	}
}

func TestPartialSuccess(t *testing.T) {
	w := newWorld(t)
	e := w.engine()
	w.failures["sink"] = &creel.Partial{Rejected: 3, Reason: "too old"}
	w.apply(e, one("manual", "", "concurrency: 1", "delivered"))
	w.await("it is settled", func() bool { return len(w.results["manual#0"]) == 1 })
	if _, x := balanced(t, e); x.Dropped["rejected"] != 3 || x.Delivered != 1 {
		t.Errorf("the ledger says %+v", x)
	}
}

// TestAdmission: when a queue is full, collectors wait; who waits is not forgotten, and no byte of room is lost.
func TestAdmission(t *testing.T) {
	w := newWorld(t)
	e := w.engine()
	gate := make(chan struct{})
	w.hung["sink"] = gate
	w.apply(e, one("gen", "", "queue: {max_bytes: 64KiB}, batch: {max_bytes: 8KiB}, concurrency: 2", "delivered"))
	w.await("exports hang", func() bool { return len(w.calls["sink"]) == 2 })
	var before int64
	full := func() bool { // nothing is admitted any more
		n := e.Ledger().Pipelines[0].Accepted
		same := n == before
		before = n
		return same && n > 0
	}
	for !full() {
		time.Sleep(20 * time.Millisecond)
	}
	if c := e.Components()[1]; c.Queued > c.Limit || c.Queued < c.Limit/2 {
		t.Errorf("the full queue holds %d of %d bytes", c.Queued, c.Limit)
	}
	w.mu.Lock()
	delete(w.hung, "sink")
	w.mu.Unlock()
	close(gate)
	w.await("it goes on", func() bool { return int64(len(w.arrived["sink"])) > 2*before })
	if err := e.Drain(context.Background()); err != nil {
		t.Fatal(err)
	}
	if p, x := balanced(t, e); x.Delivered != p.Accepted || x.Queued != 0 {
		t.Errorf("the ledger says %+v", x)
	}
}

// TestAckLevels: with ack memory, whoever waits is told when the records are in a queue.
func TestAckLevels(t *testing.T) {
	for _, ack := range []string{"memory", "delivered"} {
		w := newWorld(t)
		e := w.engine()
		gate := make(chan struct{})
		w.hung["sink"] = gate
		w.apply(e, one("manual", "", "batch: {max_wait: 1ms}", ack))
		w.await("the export hangs", func() bool { return len(w.calls["sink"]) == 1 })
		w.mu.Lock()
		told := len(w.results["manual#0"])
		delete(w.hung, "sink")
		w.mu.Unlock()
		if want := map[string]int{"memory": 1, "delivered": 0}[ack]; told != want {
			t.Errorf("ack %s: before the export has ended, who waits was told %d times", ack, told)
		}
		close(gate)
		w.await("it arrives", func() bool { return len(w.arrived["sink"]) == 4 && len(w.results["manual#0"]) == 1 })
	}
}

// TestNaturalBatching: what gathers while requests are under way goes out in one.
func TestNaturalBatching(t *testing.T) {
	w := newWorld(t)
	e := w.engine()
	gate := make(chan struct{})
	w.hung["sink"] = gate
	w.apply(e, one("gen", "", "concurrency: 1, queue: {max_bytes: 256KiB}, batch: {max_bytes: 32KiB}", "delivered"))
	for e.Components()[1].Queued < 128<<10 {
		time.Sleep(time.Millisecond)
	}
	w.mu.Lock()
	delete(w.hung, "sink")
	w.mu.Unlock()
	close(gate)
	w.await("more requests", func() bool { return len(w.calls["sink"]) > 3 })
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := w.calls["sink"][1]; n < 60 { // a batch of the collector has 20 at most
		t.Errorf("the second request had %d records", n)
	}
}

// TestDrainDeadline: what cannot be delivered in time is abandoned, and whoever waits is told so.
func TestDrainDeadline(t *testing.T) {
	w := newWorld(t)
	e := w.engine()
	w.failures["sink"] = errors.New("away on purpose")
	w.apply(e, one("manual", "", "concurrency: 1", "delivered"))
	w.await("exports fail", func() bool { return len(w.calls["sink"]) > 1 })
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := e.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	if err := w.results["manual#0"]; len(err) != 1 || !errors.Is(err[0], creel.ErrAbandoned) {
		t.Errorf("who waits was told %v", err)
	}
	if _, x := balanced(t, e); x.Dropped["abandoned"] != 4 {
		t.Errorf("the ledger says %+v", x)
	}
	if _, err := e.Apply(context.Background(), w.compile(one("manual", "", "concurrency: 1", "delivered"))); err == nil {
		t.Error("a plan was applied after everything was stopped")
	}
}

func TestProcessorThatFails(t *testing.T) {
	w := newWorld(t)
	e := w.engine()
	w.apply(e, one("manual", "fail", "concurrency: 1", "delivered"))
	w.await("it has failed", func() bool { return len(w.results["manual#0"]) == 1 })
	if err := w.results["manual#0"][0]; !creel.IsPermanent(err) || !strings.Contains(err.Error(), "processor fails on purpose") {
		t.Errorf("who waits was told %v", err)
	}
	if p, _ := balanced(t, e); p.Dropped["processor_error"] != 4 || w.injected.Load() == 0 {
		t.Errorf("the ledger says %+v", p)
	}
}

// TestHeldRecordsAreFlushed when the processor that holds them is taken away.
func TestHeldRecordsAreFlushed(t *testing.T) {
	w := newWorld(t)
	e := w.engine()
	w.holdLong = true
	w.apply(e, one("manual", "hold", "concurrency: 1", "delivered"))
	for e.Ledger().Pipelines[0].Held != 4 {
		time.Sleep(time.Millisecond)
	}
	w.apply(e, one("manual", "", "concurrency: 1", "delivered"))
	w.await("they arrive", func() bool { return len(w.arrived["sink"]) == 4 })
}

// TestOpenErrorChangesNothing: when one component cannot be opened, the old plan goes on and nothing is left open.
func TestOpenErrorChangesNothing(t *testing.T) {
	w := newWorld(t)
	e := w.engine()
	w.apply(e, one("gen", "", "concurrency: 1", "delivered"))
	plan := w.compile("collectors: {broken: , manual: }\nprocessors: {mark: }\nexporters: {sink/2: }\npipelines: {p: {from: [broken, manual], through: [mark], to: [sink/2]}}")
	if _, err := e.Apply(context.Background(), plan); err == nil || !strings.Contains(err.Error(), "open collectors.broken: broken on purpose") {
		t.Errorf("got %v", err)
	}
	w.mu.Lock()
	for key, n := range w.open {
		if want := map[string]int{"collector gen": 1, "exporter sink": 1}[key]; n != want {
			t.Errorf("%d instances of %s are open", n, key)
		}
	}
	before := len(w.arrived["sink"])
	w.mu.Unlock()
	w.await("the old plan goes on", func() bool { return len(w.arrived["sink"]) > before })
}

// TestOverdueExport: a call that ignores its context is given up on; its records stay readable to it.
func TestOverdueExport(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for seconds")
	}
	w := newWorld(t)
	e := w.engine()
	gate := make(chan struct{})
	w.deaf = gate
	w.apply(e, one("manual", "", "concurrency: 1, timeout: 10ms", "delivered"))
	w.await("it is tried again", func() bool { return len(w.calls["sink"]) == 2 })
	close(gate)
	w.await("it arrives", func() bool { return len(w.results["manual#0"]) == 1 })
	w.await("the overdue call has given its memory back", func() bool { return w.memory.Out() == 0 })
}

// TestSocketsOutliveReload: while collectors come and go on an address, no connection is refused, and one address has
// one owner.
func TestSocketsOutliveReload(t *testing.T) {
	w := newWorld(t)
	e := w.engine()
	text := func(id string, variant int) string {
		return fmt.Sprintf("collectors: {%s: {variant: %d, endpoint: '127.0.0.1:0'}}\nexporters: {sink: }\npipelines: {p: {from: [%s], to: [sink]}}", id, variant, id)
	}
	w.apply(e, text("net/a", 0))
	address := e.Endpoints()[0].Address
	stop, dialed := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for {
			select {
			case <-stop:
				dialed <- n
				return
			default:
			}
			c, err := net.Dial("tcp", address)
			if err != nil {
				t.Errorf("a connection was refused: %v", err)
				dialed <- n
				return
			}
			n++
			c.Close()
		}
	}()
	for i := range 50 {
		w.apply(e, text([]string{"net/a", "net/b"}[i%2], i))
		if got := e.Endpoints(); len(got) != 1 || got[0].Address != address {
			t.Fatalf("after reload %d: %v", i, got)
		}
	}
	close(stop)
	if n := <-dialed; n < 50 {
		t.Errorf("only %d connections were made", n)
	}
	both := strings.Replace(text("net/a", 1), "collectors: {", "collectors: {net/c: {endpoint: '127.0.0.1:0'}, ", 1)
	both = strings.Replace(both, "from: [net/a]", "from: [net/a, net/c]", 1)
	if _, err := e.Apply(context.Background(), w.compile(both)); err == nil || !strings.Contains(err.Error(), "does already") {
		t.Errorf("two collectors on one address: %v", err)
	}
	taken := strings.ReplaceAll(text("net/d", 1), "127.0.0.1:0", address)
	if _, err := e.Apply(context.Background(), w.compile(taken)); err == nil || !strings.Contains(err.Error(), "the port is taken by this process itself") {
		t.Errorf("a taken port: %v", err)
	}
}

// TestCompileFindsEveryError compares all that is said of wrong configurations.
func TestCompileFindsEveryError(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct{ text, want string }{
		{"collectors: [gen]", `f:1:13: collectors: must be a map from ids to options, such as "host: {}"`},
		{"collectors: {gne: }", `f:1:14: collectors.gne: there is no collector "gne"; did you mean "gen"?`},
		{"collectors: {a b: }", `f:1:14: collectors.a b: "a b" is no id: write type or type/name, of letters, digits, '-', '_' and '.'`},
		{"pipelines: {p: {from: [gen], to: [sink, sink]}}\ncollectors: {gen: }\nexporters: {sink: }", `f:1:41: pipelines.p.to[1]: exporter "sink" is named twice`},
		{"pipelines: {p: {from: [sink], to: [sink]}}\nexporters: {sink: }", `f:1:24: pipelines.p.from[0]: there is no collector "sink"; it stands in exporters`},
		{"processors: {route: {to: q}}\ncollectors: {gen: }\npipelines: {p: {from: [gen], through: [route]}}", `f:3:13: pipelines.p: sends to pipeline "q", which does not exist`},
		{"processors: {route/1: {to: q}, route/2: {to: p}}\ncollectors: {gen: }\npipelines: {p: {from: [gen], through: [route/1]}, q: {through: [route/2]}}", `f:3:51: pipelines.q: goes in a circle: q → p → q`},
		{"exporters: {sink: {delivery: {batch: {max_wait: -1s}, concurrency: 0}}}",
			"f:1:49: exporters.sink.delivery.batch.max_wait: must be at least 0s, got -1s\nf:1:68: exporters.sink.delivery.concurrency: must be at least 1, got 0"},
	} {
		root, err := config.Parse("f", []byte(c.text), config.Env{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pipeline.Compile(root, w.plugins(), nil); err == nil || err.Error() != c.want {
			t.Errorf("%s\ngives\n%v\nwant\n%s", c.text, err, c.want)
		}
	}
}

// TestSwitchedOff: what is switched off is left out wherever it is named, and what then leads nowhere as well.
func TestSwitchedOff(t *testing.T) {
	w := newWorld(t)
	plan := w.compile(`
collectors: {gen: , poll: {enabled: false}}
processors: {mark: {enabled: false}, thin: , route: {to: side}}
exporters: {sink/a: , sink/b: {enabled: false}, sink/c: }
pipelines:
  p: {from: [gen, poll], through: [mark, route], to: [sink/a, sink/b]}
  q: {from: [gen], to: [sink/b]}
  r: {from: [gen], to: [sink/a], enabled: false}
  side: {through: [thin], to: [sink/a]}
`)
	var keys []string
	for c := range plan.Components() {
		keys = append(keys, c.Key())
	}
	want := []string{"exporters.sink/a", "pipelines.p.route", "pipelines.side.thin", "collectors.gen"}
	if !slices.Equal(keys, want) {
		t.Errorf("there are %v, want %v", keys, want)
	}
	if want := []string{"pipelines.q does nothing: nobody feeds it, or all it sends to is switched off", "exporters.sink/c is not used by any pipeline"}; !slices.Equal(plan.Warnings, want) {
		t.Errorf("warned %q", plan.Warnings)
	}
	if ch := pipeline.Diff(plan, plan); len(ch.Keep) != 4 || len(ch.Open)+len(ch.Reopen)+len(ch.Close) != 0 {
		t.Errorf("from itself it differs in %+v", ch)
	}
	rewired := w.compile("collectors: {gen: }\nprocessors: {thin: }\nexporters: {sink/a: {variant: 2}}\npipelines: {side: {from: [gen], through: [thin], to: [sink/a]}}")
	ch := pipeline.Diff(plan, rewired)
	if !slices.Equal(ch.Keep, []string{"pipelines.side.thin", "collectors.gen"}) || !slices.Equal(ch.Reopen, []string{"exporters.sink/a"}) || !slices.Equal(ch.Close, []string{"pipelines.p.route"}) {
		t.Errorf("rewired: %+v", ch)
	}
}

// TestFullQueueShedsTheOldest: an exporter that hangs, and may drop, holds nobody up; the last records are kept, and the
// books balance.
func TestFullQueueShedsTheOldest(t *testing.T) {
	w := newWorld(t)
	e := w.engine()
	gate := make(chan struct{})
	w.hung["sink/stuck"] = gate
	w.apply(e, `collectors: {gen: }
exporters:
  sink: {}
  sink/stuck: {delivery: {concurrency: 1, queue: {max_bytes: 64KiB, when_full: drop_oldest}}}
pipelines: {p: {from: [gen], to: [sink, sink/stuck]}}`)
	w.await("the other exporter has had much more than fits", func() bool { return len(w.arrived["sink"]) > 10_000 })
	stuck := func() report.Exporter {
		for _, x := range e.Ledger().Pipelines[0].Exporters {
			if x.Exporter == "sink/stuck" {
				return x
			}
		}
		return report.Exporter{}
	}
	w.await("records were shed", func() bool { return stuck().Dropped["queue_full"] > 5000 })
	w.mu.Lock()
	delete(w.hung, "sink/stuck")
	w.mu.Unlock()
	close(gate)
	if err := e.Drain(context.Background()); err != nil {
		t.Fatal(err)
	}
	if p, _ := balanced(t, e); p.Passed != stuck().Delivered+stuck().Dropped["queue_full"] || stuck().Unexplained != 0 || stuck().Delivered == 0 {
		t.Errorf("the ledger says %+v", stuck())
	}
}
