package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/otlp"
	"github.com/creelhq/creel/pipeline"
	"github.com/creelhq/creel/report"
	"github.com/creelhq/creel/task"
)

// fenced is an engine whose collectors note what they do and whose exporter what comes, in seconds since it began.
type fenced struct {
	*pipeline.Engine
	t     *testing.T
	began time.Time

	mu      sync.Mutex
	opened  map[string]int
	rounds  map[string][]float64 // by collector: when they began
	cut     []error              // the causes with which rounds of slow were cancelled
	arrived map[string][]arrival // by collector
}

type arrival struct {
	at    float64
	attrs string // of the resource
}

func (f *fenced) now() float64 { return time.Since(f.began).Seconds() }

// newFenced must be called in a bubble.
func newFenced(t *testing.T) *fenced {
	f := &fenced{t: t, began: time.Now(), opened: make(map[string]int), rounds: make(map[string][]float64), arrived: make(map[string][]arrival)}
	tasks := task.New(task.Options{Slots: 10})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = tasks.Run(ctx) })
	f.Engine = pipeline.New(pipeline.Options{Tasks: tasks})
	t.Cleanup(func() {
		if err := f.Drain(context.Background()); err != nil {
			t.Error(err)
		}
		cancel()
		wg.Wait()
	})
	return f
}

// recordOf makes a batch of a record of a collector, that is delivered at once.
func recordOf(id string) *creel.Batch {
	b := creel.NewLogs([]creel.Log{{Body: creel.String(id), Origin: &creel.Origin{Resource: creel.Resource{Attrs: creel.Attrs{{Key: "of", Value: creel.String(id)}}}}}})
	b.OnDone(func(error) {})
	return b
}

func (f *fenced) plan(text string, documents map[string]pipeline.Document) *pipeline.Plan {
	f.t.Helper()
	collector := func(collect func(id string, ctx context.Context, out creel.Sink) error) func(none, creel.Host) (creel.Collector, error) {
		return func(_ none, h creel.Host) (creel.Collector, error) {
			f.mu.Lock()
			f.opened[h.ID]++
			f.mu.Unlock()
			return creel.CollectorFunc(func(ctx context.Context, out creel.Sink) error {
				f.mu.Lock()
				f.rounds[h.ID] = append(f.rounds[h.ID], f.now())
				f.mu.Unlock()
				return collect(h.ID, ctx, out)
			}), nil
		}
	}
	plugins := []creel.Plugin{
		creel.NewCollector("stream", "Sends a record every second.", collector(func(id string, ctx context.Context, out creel.Sink) error {
			for tick := time.NewTicker(time.Second); ; {
				if err := out.Send(ctx, recordOf(id)); err != nil {
					return err
				}
				select {
				case <-tick.C:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		})),
		creel.NewCollector("try", "Tries to send a record every second.", collector(func(id string, ctx context.Context, out creel.Sink) error {
			for tick := time.NewTicker(time.Second); ; {
				out.TrySend(recordOf(id))
				select {
				case <-tick.C:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		})),
		creel.NewPolled("poll", "Sends a record each round.", collector(func(id string, ctx context.Context, out creel.Sink) error { return out.Send(ctx, recordOf(id)) })),
		creel.NewPolled("slow", "Takes ten seconds for a round.", collector(func(id string, ctx context.Context, out creel.Sink) error {
			select {
			case <-time.After(10 * time.Second):
				return out.Send(ctx, recordOf(id))
			case <-ctx.Done():
				f.mu.Lock()
				f.cut = append(f.cut, context.Cause(ctx))
				f.mu.Unlock()
				return ctx.Err()
			}
		})),
		creel.NewExporter("sink", "Notes what comes.", func(none, creel.Host) (creel.Exporter, error) {
			return creel.ExporterFunc(func(_ context.Context, bs []*creel.Batch) error {
				f.mu.Lock()
				defer f.mu.Unlock()
				for _, b := range bs {
					for _, l := range b.Logs() {
						f.arrived[l.Body.Str()] = append(f.arrived[l.Body.Str()], arrival{f.now(), string(l.Origin.Resource.Attrs.Append(nil))})
					}
				}
				return nil
			}), nil
		}),
	}
	root, err := config.Parse("test.yaml", []byte(text), config.Env{})
	if err != nil {
		f.t.Fatal(err)
	}
	p, err := pipeline.Compile(root, plugins, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	p.Documents = documents
	return p
}

func (f *fenced) apply(p *pipeline.Plan) report.Change {
	f.t.Helper()
	r, err := f.Apply(context.Background(), p)
	if err != nil {
		f.t.Fatal(err)
	}
	return r.Change
}

// between returns how many records of a collector came in a time, its end left out.
func (f *fenced) between(id string, from, to float64) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range f.arrived[id] {
		if a.at >= from && a.at < to {
			n++
		}
	}
	return n
}

// begun returns when the rounds of a collector began.
func (f *fenced) begun(id string) []float64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.rounds[id])
}

// sick returns why a collector is not healthy.
func (f *fenced) sick(id string) string {
	f.t.Helper()
	for _, c := range f.Components() {
		if c.Component == "collectors."+id {
			if c.Healthy != (c.Error == "") {
				f.t.Errorf("health is %+v", c)
			}
			return c.Error
		}
	}
	f.t.Fatalf("there is no collector %s", id)
	return ""
}

const fencedText = `collectors: {stream: , try: , stream/keep: , stream/own: , poll: {every: 2s}, poll/skip: {every: 2s, missed: skip}, poll/own: {every: 2s}, slow: {every: 12s}}
exporters: {sink: }
pipelines: {p: {from: [stream, try, stream/keep, stream/own, poll, poll/skip, poll/own, slow], to: [sink]}}`

func fencedDocuments(version string) map[string]pipeline.Document {
	d := pipeline.Document{Name: "probes", Version: version}
	return map[string]pipeline.Document{"stream": d, "try": d, "poll": d, "poll/skip": d, "slow": d, "stream/keep": {Name: "kept", Version: "1"}, "stream/own": {Name: "all", Version: "1"}}
}

// TestFence: what has terms begins when they allow it, ends when they do, and goes on at once when they allow it again; what has
// none, or for ever, does not notice. New terms and another version open nothing again.
func TestFence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFenced(t)
		placed := []string{"stream", "try", "poll", "poll/skip", "slow"}
		free := []string{"stream/keep", "stream/own", "poll/own"}
		set := func(epoch int64, until time.Time) {
			f.SetTerms(map[string]*pipeline.Terms{"probes": {Epoch: epoch, Until: until, Why: "no hub says so"}, "kept": {Epoch: 3, Forever: true}})
			synctest.Wait()
		}
		count := func(ids []string, from, to float64, least, most int) {
			t.Helper()
			for _, id := range ids {
				if n := f.between(id, from, to); n < least || n > most {
					t.Errorf("from %v s to %v s %d records of %s came, want %d to %d", from, to, n, id, least, most)
				}
			}
		}
		set(7, time.Time{})
		f.apply(f.plan(fencedText, fencedDocuments("1")))
		time.Sleep(20 * time.Second)
		count(placed, 0, 20, 0, 0)
		count(free, 0, 20, 9, 21)
		if n := len(f.begun("poll")) + len(f.begun("slow")); n > 0 {
			t.Errorf("without a lease there were %d rounds", n)
		}
		for _, id := range placed {
			if f.sick(id) != "no hub says so" {
				t.Errorf("of %s is said %q", id, f.sick(id))
			}
		}
		for _, id := range free {
			if f.sick(id) != "" {
				t.Errorf("of %s is said %q", id, f.sick(id))
			}
		}
		if v := f.Vitals().Components["collectors.poll"]; !v.Healthy {
			t.Errorf("what watches a change is told %+v", v)
		}

		set(7, f.began.Add(35*time.Second))                              // at 20
		count([]string{"stream", "poll", "poll/skip"}, 20, 20.001, 1, 2) // a tick has waited, too
		time.Sleep(10*time.Second + time.Millisecond)                    // past the end of slow's round
		count([]string{"slow"}, 30, 30.001, 1, 1)
		if why := f.sick("stream"); why != "" {
			t.Errorf("with a lease is said %q", why)
		}
		time.Sleep(30*time.Second - time.Millisecond) // to 60; at 32 slow has begun again
		count([]string{"stream", "try"}, 20, 35, 14, 16)
		count(placed, 35, 60, 0, 0)
		count(free, 35, 60, 12, 26)
		f.mu.Lock()
		if len(f.cut) != 1 || !strings.Contains(f.cut[0].Error(), "terms") {
			t.Errorf("slow's rounds were cancelled for %v", f.cut)
		}
		f.mu.Unlock()
		if rounds := f.begun("slow"); len(rounds) != 2 {
			t.Errorf("slow had rounds at %v", rounds)
		}

		// It goes on at once, but for what shall not make up for what it has missed, and with the new epoch.
		time.Sleep(500 * time.Millisecond)
		set(8, f.began.Add(75*time.Second)) // at 60.5
		count([]string{"stream", "poll"}, 60.5, 60.501, 1, 2)
		count([]string{"poll/skip"}, 60, 61, 0, 0)
		if rounds := f.begun("slow"); len(rounds) != 3 {
			t.Errorf("slow had rounds at %v", rounds)
		}
		if ch := f.apply(f.plan(fencedText, fencedDocuments("2"))); len(ch.Open)+len(ch.Reopen)+len(ch.Close) > 0 {
			t.Errorf("another version of what is the same makes the change %+v", ch)
		}
		time.Sleep(4 * time.Second)
		set(8, f.began.Add(200*time.Second)) // renewed before it ends
		time.Sleep(30 * time.Second)
		count([]string{"stream", "try"}, 61, 94, 31, 34)
		count([]string{"slow"}, 61, 94, 1, 3)

		// What is taken away ends at once, whatever it was allowed.
		f.SetTerms(map[string]*pipeline.Terms{"probes": {Epoch: 8, Why: "taken away"}})
		at := f.now()
		time.Sleep(10 * time.Second)
		count(placed, at+0.001, 200, 0, 0)
		f.SetTerms(nil) // it is for all
		time.Sleep(5 * time.Second)
		count([]string{"stream", "try", "poll"}, at+10, 200, 2, 7)

		f.mu.Lock()
		defer f.mu.Unlock()
		for id, n := range f.opened {
			if n != 1 {
				t.Errorf("%s was opened %d times", id, n)
			}
		}
		stamp := func(document, version string, epoch int) string {
			return fmt.Sprintf(`,"creel.document.name":%q,"creel.document.version":%q,"creel.document.epoch":%d}`, document, version, epoch)
		}
		for id, list := range f.arrived {
			for _, a := range list {
				want := fmt.Sprintf(`{"of":%q`, id)
				switch has := slices.Contains(placed, id) && a.at < 100; {
				case has && a.at < 60:
					want += stamp("probes", "1", 7)
				case has && a.at < 60.75:
					if a.attrs == want+stamp("probes", "1", 8) { // before Apply
						continue
					}
					want += stamp("probes", "2", 8)
				case has:
					want += stamp("probes", "2", 8)
				case id == "stream/keep" && a.at < at:
					want += stamp("kept", "1", 3)
				default:
					want += "}"
				}
				if a.attrs != want && a.at != at {
					t.Errorf("at %v s the resource of %s was %s, want %s", a.at, id, a.attrs, want)
				}
			}
		}
	})
}

// TestEfforts: the rounds of collectors count whose documents have terms and are not to be done once, and the time that they own slots.
func TestEfforts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFenced(t)
		f.SetTerms(map[string]*pipeline.Terms{"d": {Epoch: 1, Forever: true}, "once": {Epoch: 1, Forever: true, Once: true}})
		ids := map[string]pipeline.Document{"slow/d": {Name: "d", Version: "1"}, "stream/d": {Name: "d", Version: "1"}, "slow/once": {Name: "once", Version: "1"}, "slow/all": {Name: "all", Version: "1"}}
		p := f.plan("collectors: {slow/d: {every: 1m}, stream/d: {}, slow/once: {every: 1m}, slow/all: {every: 1m}, slow/own: {every: 1m}}\nexporters: {sink: {}}\npipelines: {p: {from: [slow/d, stream/d, slow/once, slow/all, slow/own], to: [sink]}}", ids)
		if _, err := f.Apply(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		time.Sleep(65 * time.Second) // in the second round
		if got, want := f.Efforts(), (map[string]pipeline.Effort{"collectors.slow/d": {Document: "d", Rounds: 1, Busy: 15 * time.Second}}); !maps.Equal(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

// TestFenceLetsGo: who waits at a fence is stopped as anybody else is, and what waits is not lost but refused.
func TestFenceLetsGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFenced(t)
		f.SetTerms(map[string]*pipeline.Terms{"probes": {Epoch: 1}})
		f.apply(f.plan(fencedText, fencedDocuments("1")))
		time.Sleep(time.Second)
		began := time.Now()
		if ch := f.apply(f.plan("collectors: {stream: }\nexporters: {sink: }\npipelines: {p: {from: [stream], to: [sink]}}", nil)); len(ch.Close) != 7 || time.Since(began) != 0 {
			t.Errorf("after %v the change is %+v", time.Since(began), ch)
		}
		synctest.Wait() // no document defines it now, so that it goes on
		if n := f.between("stream", 1, 1.001); n == 0 {
			t.Errorf("%d records came", n)
		}
	})
}

// TestTermsAllow: where the clocks differ the stricter one counts.
func TestTermsAllow(t *testing.T) {
	now := time.Now()
	terms := &pipeline.Terms{Until: now.Add(10 * time.Second)}
	for offset, want := range map[time.Duration]bool{0: true, 9 * time.Second: true, 10 * time.Second: false, time.Minute: false} {
		if terms.Allow(now.Add(offset)) != want {
			t.Errorf("after %v it is allowed: %t", offset, !want)
		}
		if terms.Allow(now.Add(offset).Round(0)) != want { // the machine has slept: only the wall clock knows
			t.Errorf("after %v by the wall clock it is allowed: %t", offset, !want)
		}
	}
	if (&pipeline.Terms{}).Allow(now) || !(&pipeline.Terms{Forever: true}).Allow(now) {
		t.Error("no end is not the same as for ever")
	}
}

// TestStamp: records of every signal are stamped, decoded or not; what they share stays shared, and what others have of it as
// it was.
func TestStamp(t *testing.T) {
	var memory creel.Memory
	memory.Poison = true
	w := newWorld(t)
	e := w.engine()
	type seen struct {
		origins []*creel.Origin
		wire    bool
	}
	got := make(chan seen, 1)
	sinks := make(chan creel.Sink, 2)
	plugins := []creel.Plugin{
		creel.NewCollector("send", "Lends its sink.", func(none, creel.Host) (creel.Collector, error) {
			return creel.CollectorFunc(func(ctx context.Context, out creel.Sink) error {
				sinks <- out
				<-ctx.Done()
				return nil
			}), nil
		}),
		creel.NewExporter("sink", "Passes on what comes.", func(none, creel.Host) (creel.Exporter, error) {
			return creel.ExporterFunc(func(_ context.Context, bs []*creel.Batch) error {
				s := seen{wire: bs[0].Wire() != nil}
				switch b := bs[0]; b.Signal() {
				case creel.Logs:
					for _, l := range b.Logs() {
						s.origins = append(s.origins, l.Origin)
					}
				case creel.Metrics:
					for _, m := range b.Metrics() {
						s.origins = append(s.origins, m.Origin)
					}
				case creel.Traces:
					for _, p := range b.Spans() {
						s.origins = append(s.origins, p.Origin)
					}
				}
				got <- s
				return nil
			}), nil
		}),
	}
	root, err := config.Parse("test.yaml", []byte("collectors: {send: }\nexporters: {sink: }\npipelines: {p: {from: [send], to: [sink]}}"), config.Env{})
	if err != nil {
		t.Fatal(err)
	}
	apply := func(documents map[string]pipeline.Document) {
		p, err := pipeline.Compile(root, plugins, nil)
		if err == nil {
			p.Documents = documents
			_, err = e.Apply(t.Context(), p)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	apply(nil)
	out := <-sinks
	a := &creel.Origin{Scope: creel.Scope{Name: "lib"}, Resource: creel.Resource{Attrs: creel.Attrs{{Key: "x", Value: creel.Int(1)}}, SchemaURL: "s"}}
	b := &creel.Origin{Resource: creel.Resource{Attrs: creel.Attrs{{Key: "creel.document.name", Value: creel.String("upstream")}}}}
	signals := map[string]func() *creel.Batch{
		"logs": func() *creel.Batch { return creel.NewLogs([]creel.Log{{Origin: a}, {Origin: b}, {Origin: a}, {}}) },
		"metrics": func() *creel.Batch {
			d := &creel.Descriptor{Name: "m", Kind: creel.Gauge}
			return creel.NewMetrics([]creel.Metric{{Origin: a, Desc: d}, {Origin: b, Desc: d}, {Origin: a, Desc: d}, {Desc: d}})
		},
		"traces": func() *creel.Batch { return creel.NewSpans([]creel.Span{{Origin: a}, {Origin: b}, {Origin: a}, {}}) },
	}
	pass := func(batch *creel.Batch) seen {
		t.Helper()
		batch.OnDone(func(error) {}) // it is delivered at once
		if !out.TrySend(batch) {
			t.Fatal("it is not taken")
		}
		return <-got
	}
	attrs := func(o *creel.Origin) string { return string(o.Resource.Attrs.Append(nil)) }
	wires := make(map[string]func() *creel.Batch)
	for name, make := range signals {
		batch := make()
		wire, signal := otlp.Append(nil, batch), batch.Signal()
		wires[name] = func() *creel.Batch {
			b, err := otlp.Parse(signal, wire, &memory)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		if s := pass(batch); s.origins[0] != a || s.origins[1] != b {
			t.Errorf("%s of a collector without a document have %v", name, s.origins)
		}
		if s := pass(wires[name]()); !s.wire {
			t.Errorf("%s of a collector without a document were taken apart", name)
		}
	}
	apply(map[string]pipeline.Document{"send": {Name: "web", Version: "12"}})
	e.SetTerms(map[string]*pipeline.Terms{"web": {Epoch: 9, Forever: true}})
	const stamp = `"creel.document.version":"12","creel.document.epoch":9}`
	want := []string{`{"x":1,"creel.document.name":"web",` + stamp, `{"creel.document.name":"web",` + stamp, `{"x":1,"creel.document.name":"web",` + stamp, `{"creel.document.name":"web",` + stamp}
	known := make(map[*creel.Origin]bool)
	for name := range signals {
		for range 2 {
			s := pass(signals[name]())
			for i, o := range s.origins {
				known[o] = true
				if attrs(o) != want[i] {
					t.Errorf("the resource of %s %d is %s, want %s", name, i, attrs(o), want[i])
				}
			}
			if s.origins[0] != s.origins[2] || s.origins[0].Scope.Name != "lib" || s.origins[0].Resource.SchemaURL != "s" {
				t.Errorf("of what %s share has become %+v and %+v", name, s.origins[0], s.origins[2])
			}
			s = pass(wires[name]())
			slices.SortFunc(s.origins, func(a, b *creel.Origin) int { return -strings.Compare(attrs(a), attrs(b)) }) // grouped by resource
			if len(s.origins) != 4 || s.wire || attrs(s.origins[0]) != want[0] || attrs(s.origins[3]) != want[1] {
				t.Errorf("undecoded %s come as %d with %s and %s, decoded %t", name, len(s.origins), attrs(s.origins[0]), attrs(s.origins[3]), !s.wire)
			}
		}
	}
	if len(known) != 3 {
		t.Errorf("of three origins have become %d", len(known))
	}
	if attrs(a) != `{"x":1}` || attrs(b) != `{"creel.document.name":"upstream"}` {
		t.Errorf("the collector's own have become %s and %s", attrs(a), attrs(b))
	}
	if n := errors.Join(e.Drain(t.Context())); n != nil || memory.Out() != 0 {
		t.Errorf("%v, %d batches are not settled", n, memory.Out())
	}
}
