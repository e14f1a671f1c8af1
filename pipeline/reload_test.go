package pipeline_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/creelhq/creel/pipeline"
)

var torture = flag.Bool("torture", false, "run the long forms of the tests")

// randomConfig returns a configuration of some of a few collectors, processors and exporters.
func randomConfig(r *rand.Rand) string {
	var c strings.Builder
	pick := func(from ...string) []string {
		var some []string
		for _, s := range from {
			if r.IntN(2) == 0 {
				some = append(some, s)
			}
		}
		if len(some) == 0 {
			some = append(some, from[0])
		}
		r.Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
		return some
	}
	collectors, processors, exporters := []string{"gen/a", "gen/b", "poll/c"}, []string{"mark", "thin", "hold"}, []string{"sink/x", "sink/y", "sink/z"}
	fmt.Fprintln(&c, "collectors:")
	for _, id := range collectors {
		every := ""
		if strings.HasPrefix(id, "poll") {
			every = ", every: 10ms"
		}
		enabled := []string{"true", "true", "false", "site == 'north'", "site != 'north'"}[r.IntN(5)]
		fmt.Fprintf(&c, "  %s: {variant: %d, enabled: \"%s\"%s}\n", id, r.IntN(2), enabled, every)
	}
	fmt.Fprintln(&c, "processors:")
	for _, id := range processors {
		fmt.Fprintf(&c, "  %s: {variant: %d}\n", id, r.IntN(2))
	}
	fmt.Fprintln(&c, "  route: {to: side}")
	fmt.Fprintln(&c, "exporters:")
	for _, id := range exporters {
		fmt.Fprintf(&c, "  %s: {variant: %d, delivery: {concurrency: %d, queue: {max_bytes: 64KiB}, batch: {max_wait: 1ms, max_bytes: 8KiB}, retry: {initial: 1ms, max: 4ms}%s}}\n",
			id, r.IntN(2), 1+r.IntN(3), strings.Join(pick("", limit(r), breaker(r), fmt.Sprintf(", adaptive: {enabled: true, max: %d}", 1+r.IntN(8)), spooled(r)), ""))
	}
	fmt.Fprintln(&c, "pipelines:")
	ack := []string{"", "ack: delivered", "ack: memory"}
	for _, id := range pick("one", "two") {
		through := pick(processors...)
		if r.IntN(2) == 0 {
			through = append(through, "route")
		}
		fmt.Fprintf(&c, "  %s: {from: [%s], through: [%s], to: [%s], %s}\n", id,
			strings.Join(pick(collectors...), ", "), strings.Join(through, ", "), strings.Join(pick(exporters...), ", "), ack[r.IntN(3)])
	}
	fmt.Fprintf(&c, "  side: {through: [%s], to: [%s]}\n", strings.Join(pick("mark", "hold"), ", "), strings.Join(pick(exporters...), ", "))
	return c.String()
}

// changed returns the configuration with another variant of one component, or of a few.
func changed(r *rand.Rand, text string) string {
	parts := strings.Split(text, "variant: ")
	for range 1 + r.IntN(2) {
		p := &parts[1+r.IntN(len(parts)-1)]
		*p = fmt.Sprint(1-int((*p)[0]-'0')) + (*p)[1:]
	}
	return strings.Join(parts, "variant: ")
}

// steps are random changes, one after the other.
type steps struct {
	r       *rand.Rand
	w       *world
	e       *pipeline.Engine
	text    string // of what runs
	kept    int
	refused int // changes, because something did not open
	paused  int
}

// next changes something: everything, a component, the labels; or pauses, or asks for what cannot be opened.
func (s *steps) next() {
	r, w := s.r, s.w
	text := s.text
	switch n := r.IntN(40); {
	case n == 0 || text == "":
		for text = randomConfig(r); len(w.compile(text).Collectors) == 0; text = randomConfig(r) {
		}
	case n < 4:
		w.labels = map[string]string{"site": []string{"north", "south"}[r.IntN(2)]}
	case n < 8:
		s.e.Pause(n < 6)
		s.paused++
		return
	default:
		text = changed(r, text)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	defer cancel()
	late := make(chan struct{})
	defer close(late)
	var opening func() error
	switch r.IntN(8) {
	case 0:
		opening = func() error { return errors.New("does not open, on purpose") }
	case 1:
		opening = func() error {
			cancel() // nobody waits for it any more
			<-late
			return nil
		}
	}
	if opening != nil {
		w.opening.Store(&opening)
	}
	receipt, err := s.e.Apply(ctx, w.compile(text))
	if err != nil {
		// An instance of an Apply that was given up may open so late that it is this one which it spoils.
		if opening == nil || !strings.Contains(err.Error(), "processors.mark") && !errors.Is(err, context.Canceled) {
			w.t.Fatalf("%v in\n%s", err, text)
		}
		s.refused++
	} else {
		s.text = text
	}
	w.opening.Store(nil)
	s.kept += len(receipt.Change.Keep)
	if len(receipt.Leaked) > 0 {
		w.t.Errorf("left behind: %v", receipt.Leaked)
	}
}

// spooled returns a disk queue.
func spooled(r *rand.Rand) string {
	return fmt.Sprintf(", spool: {max_size: %dMiB, min_free: 0, replay: {records_per_second: %d}}", 16+r.IntN(2), r.IntN(2)*100_000)
}

// limit returns limits that hold up now and then, but not for long.
func limit(r *rand.Rand) string {
	return fmt.Sprintf(", rate_limit: {records_per_second: %d, bytes_per_second: %dKiB, requests_per_second: %d, burst: %dms}",
		r.IntN(2)*50_000, r.IntN(2)*10_000, r.IntN(2)*1000, r.IntN(20))
}

// breaker returns one that opens often, and not for long.
func breaker(r *rand.Rand) string {
	return fmt.Sprintf(", breaker: {enabled: true, window: 20ms, min_calls: %d, error_ratio: 0.%d, slow_ratio: 0.%d, slow_call: 1ms, errors: %d, open_for: %dms, probes: %d}",
		1+r.IntN(5), r.IntN(9), r.IntN(9), r.IntN(5), 1+r.IntN(3), 1+r.IntN(3))
}

// TestRandomReloads changes everything at random under load, with exporters and collectors that fail now and then.
// Every batch must be settled once, no record may arrive twice at one exporter or be lost, no component may be used after it was
// closed, and in the end the books must balance.
func TestRandomReloads(t *testing.T) {
	defer goleak.VerifyNone(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	w := newWorld(t)
	w.faults = true
	reloads := 1000
	switch {
	case *torture:
		reloads = 20_000
	case testing.Short():
		reloads = 150
	}
	t.Run("reload", func(t *testing.T) {
		w.t = t
		e := w.engine()
		s := &steps{r: r, w: w, e: e}
		opened, limited, began := 0.0, 0.0, time.Now()
		for i := range reloads {
			if i%10 == 0 {
				opened += max(0, value(e, "creel.export.breaker_openings"))
				limited += max(0, value(e, "creel.export.limited"))
			}
			s.next()
			time.Sleep(time.Duration(r.IntN(2)) * time.Millisecond) // load, not synchronisation
		}
		t.Logf("%d changes took %v; %d were refused, %d were pauses; breakers have opened %v times, limits have held for %v s",
			reloads, time.Since(began), s.refused, s.paused, opened, limited)
		if s.kept == 0 || s.paused == 0 || !testing.Short() && (s.refused == 0 || opened == 0 || limited == 0) {
			t.Error("no reload kept a component, or none was refused, or there was no pause, or no breaker has opened, or no limit was met")
		}
		if err := e.Drain(context.Background()); err != nil {
			t.Fatal(err)
		}
		spooled := false
		for _, s := range e.Ledger().Spools {
			t.Logf("%+v", s)
			spooled = spooled || s.Delivered > 0
			if s.Unexplained != 0 || len(s.Dropped) > 0 {
				t.Errorf("disk queue of %s: the books do not balance: %+v", s.Exporter, s)
			}
		}
		if !spooled && !testing.Short() {
			t.Error("nothing was delivered from a disk queue")
		}
		for _, p := range e.Ledger().Pipelines {
			t.Logf("%+v", p)
			if p.Unexplained != 0 || p.Held != 0 {
				t.Errorf("pipeline %s: the books do not balance: %+v", p.Pipeline, p)
			}
			for _, x := range p.Exporters {
				if x.Unexplained != 0 || x.Queued != 0 || len(x.Dropped) > 0 {
					t.Errorf("pipeline %s, exporter %s: the books do not balance: %+v", p.Pipeline, x.Exporter, x)
				}
			}
		}
	})
	t.Run("what is left on disk", func(t *testing.T) {
		w.t, w.faults = t, false
		e := w.engine()
		w.apply(e, "collectors: {manual: }\nexporters: {sink/x: {delivery: {spool: }}, sink/y: {delivery: {spool: }}, sink/z: {delivery: {spool: }}}\npipelines: {p: {from: [manual], to: [sink/x, sink/y, sink/z]}}")
		w.await("the disk queues are empty", func() bool {
			waiting := int64(0)
			for _, s := range e.Ledger().Spools {
				waiting += s.Waiting
			}
			return waiting == 0
		})
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	sent := 0
	for id, n := range w.next {
		for i := range n {
			sent++
			results := w.results[name(id, i)]
			if len(results) != 1 || results[0] != nil {
				t.Fatalf("%s was settled as %v", name(id, i), results)
			}
			if i%2 == 0 && w.timesArrived(name(id, i)) == 0 {
				t.Fatalf("%s, which nobody filters, has not arrived", name(id, i))
			}
		}
	}
	for x, records := range w.arrived {
		for record, n := range records {
			// Two pipelines and the side pipeline can each bring a record to an exporter once.
			if n > 3 {
				t.Errorf("%s arrived at %s %d times", record, x, n)
			}
		}
	}
	if sent == 0 || w.injected.Load() == 0 {
		t.Errorf("%d records were sent and %d faults happened: the test tests nothing", sent, w.injected.Load())
	}
	t.Logf("%d records, %d faults", sent, w.injected.Load())
}

func (w *world) timesArrived(record string) (n int) {
	for _, records := range w.arrived {
		n += records[record]
	}
	return n
}

// TestChangedExporterInheritsBacklog: what waited for an exporter that could not deliver goes out when its options are
// mended.
func TestChangedExporterInheritsBacklog(t *testing.T) {
	w := newWorld(t)
	e := w.engine()
	text := "collectors: {manual: }\nexporters: {sink: {variant: %d, delivery: {retry: {initial: 1ms, max: 2ms}}}}\npipelines: {p: {from: [manual], to: [sink]}}"
	w.failures["sink"] = errors.New("away on purpose")
	w.apply(e, fmt.Sprintf(text, 1))
	w.await("exports fail", func() bool { return len(w.calls["sink"]) > 2 })
	if c := e.Components(); c[1].Healthy || c[1].Queued == 0 {
		t.Errorf("while the far side is away, its exporter is %+v", c[1])
	}
	w.mu.Lock()
	delete(w.failures, "sink")
	w.mu.Unlock()
	if ch := w.apply(e, fmt.Sprintf(text, 2)); len(ch.Reopen) != 1 || len(ch.Keep) != 1 {
		t.Errorf("changed %+v", ch)
	}
	w.await("the backlog arrives", func() bool { return len(w.arrived["sink"]) == 4 && len(w.results["manual#0"]) == 1 })
	if err := w.results["manual#0"][0]; err != nil {
		t.Error(err)
	}
}
