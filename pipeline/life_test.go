package pipeline_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/metric"
	"github.com/creelhq/creel/pipeline"
	"github.com/creelhq/creel/report"
	"github.com/creelhq/creel/trace"
)

// stubborn are plugins whose calls do what the test says.
type stubborn struct {
	t    *testing.T
	sink chan creel.Sink // of collectors as they start

	mu     sync.Mutex
	call   func(id, what string) error // is called by each of their calls; nil does nothing
	opened map[string]int
	closed map[string]int
}

func newStubborn(t *testing.T) *stubborn {
	return &stubborn{t: t, sink: make(chan creel.Sink, 10), opened: make(map[string]int), closed: make(map[string]int)}
}

func (s *stubborn) calls(id, what string) error {
	s.mu.Lock()
	call := s.call
	s.mu.Unlock()
	if call == nil {
		return nil
	}
	return call(id, what)
}

// on says what calls do from now on.
func (s *stubborn) on(call func(id, what string) error) {
	s.mu.Lock()
	s.call = call
	s.mu.Unlock()
}

// body is a component of each kind.
type body struct {
	s  *stubborn
	id string
	l  net.Listener
}

func (s *stubborn) open(endpoint string, h creel.Host) (*body, error) {
	b := &body{s: s, id: h.ID}
	if endpoint != "" {
		var err error
		if b.l, err = h.Listen("tcp", endpoint, "test"); err != nil {
			return nil, err
		}
	}
	if err := s.calls(h.ID, "Open"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened[h.ID]++
	return b, nil
}

func (b *body) Close() error {
	if b.l != nil {
		b.l.Close()
	}
	err := b.s.calls(b.id, "Close")
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	b.s.closed[b.id]++
	return err
}

func (b *body) Collect(ctx context.Context, out creel.Sink) error {
	b.s.sink <- out
	if err := b.s.calls(b.id, "Collect"); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func (b *body) Process(_ context.Context, batch *creel.Batch, next creel.Next) error {
	if err := b.s.calls(b.id, "Process"); err != nil {
		return err
	}
	next.Send(batch)
	return nil
}

func (b *body) Export(context.Context, []*creel.Batch) error { return b.s.calls(b.id, "Export") }

// runner is a body that has Run, and holds what it is given until that ends.
type runner struct {
	*body
	mu   sync.Mutex
	held []*creel.Batch
}

func (r *runner) Process(_ context.Context, b *creel.Batch, _ creel.Next) error {
	b.Hold()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = append(r.held, b)
	return nil
}

func (r *runner) Run(ctx context.Context, next creel.Next) error {
	if err := r.s.calls(r.id, "Run"); err != nil {
		return err
	}
	<-ctx.Done()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range r.held {
		next.Send(b)
	}
	return nil
}

type stubbornConfig struct {
	none
	Endpoint string `doc:"Address." default:""`
}

func (s *stubborn) plugins() []creel.Plugin {
	return []creel.Plugin{
		creel.NewCollector("in", "Lends its sink.", func(c stubbornConfig, h creel.Host) (creel.Collector, error) { return s.open(c.Endpoint, h) }),
		creel.NewProcessor("pass", "Sends on.", func(c stubbornConfig, h creel.Host) (creel.Processor, error) { return s.open(c.Endpoint, h) }),
		creel.NewProcessor("keep", "Holds until the end.", func(c stubbornConfig, h creel.Host) (creel.Processor, error) {
			b, err := s.open(c.Endpoint, h)
			return &runner{body: b}, err
		}),
		creel.NewExporter("out", "Takes all.", func(c stubbornConfig, h creel.Host) (creel.Exporter, error) { return s.open(c.Endpoint, h) }),
	}
}

func (s *stubborn) compile(text string, labels map[string]string) (*pipeline.Plan, error) {
	s.t.Helper()
	root, err := config.Parse("c", []byte(text), config.Env{})
	if err != nil {
		s.t.Fatal(err)
	}
	return pipeline.Compile(root, s.plugins(), labels)
}

func (s *stubborn) apply(e *pipeline.Engine, text string) (report.Receipt, error) {
	s.t.Helper()
	plan, err := s.compile(text, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return e.Apply(s.t.Context(), plan)
}

func (s *stubborn) must(e *pipeline.Engine, text string) report.Receipt {
	s.t.Helper()
	r, err := s.apply(e, text)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// count returns how many instances of a component were opened and closed.
func (s *stubborn) count(id string) (opened, closed int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opened[id], s.closed[id]
}

// allClosed checks that all that was opened was closed once.
func (s *stubborn) allClosed() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, n := range s.opened {
		if s.closed[id] != n {
			s.t.Errorf("%d of %d instances of %s were closed in the end", s.closed[id], n, id)
		}
	}
}

// send sends a batch of n records; the channel gets what becomes of it.
func send(t *testing.T, out creel.Sink, n int) chan error {
	t.Helper()
	r := new(creel.Memory).NewRecords()
	for i := range int64(n) {
		r.Logs = append(r.Logs, creel.Log{Body: creel.Int(i)})
	}
	b := creel.NewBatch(creel.Logs, r)
	done := make(chan error, 1)
	b.OnDone(func(err error) { done <- err })
	if err := out.Send(t.Context(), b); err != nil {
		t.Error(err)
	}
	return done
}

const simple = "collectors: {in: }\nprocessors: {keep: , pass: {variant: %V}}\nexporters: {out: }\npipelines: {p: {from: [in], through: [pass], to: [out]}}"

func variant(v string) string { return strings.ReplaceAll(simple, "%V", v) }

// TestHangingOpen: a change whose component does not open is refused, and the others that were new are closed; the late one
// is closed when it has opened after all. Ten that are slow take no longer than one.
func TestHangingOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStubborn(t)
		e := pipeline.New(pipeline.Options{})
		s.must(e, variant("0"))
		hang := make(chan struct{})
		s.on(func(id, what string) error {
			if id == "out/new" && what == "Open" {
				<-hang
			}
			return nil
		})
		began := time.Now()
		_, err := s.apply(e, "collectors: {in: , in/new: }\nexporters: {out: , out/new: }\npipelines: {p: {from: [in, in/new], to: [out, out/new]}}")
		if err == nil || !strings.Contains(err.Error(), "open exporters.out/new: it has taken longer than 30s") || time.Since(began) != 30*time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		if opened, closed := s.count("in/new"); opened != 1 || closed != 1 {
			t.Errorf("what was opened with it: opened %d, closed %d", opened, closed)
		}
		close(hang)
		synctest.Wait()
		if opened, closed := s.count("out/new"); opened != 1 || closed != 1 {
			t.Errorf("the late one: opened %d, closed %d", opened, closed)
		}
		if err := <-send(t, <-s.sink, 3); err != nil {
			t.Error(err)
		}

		s.on(func(id, what string) error {
			if what == "Open" {
				time.Sleep(20 * time.Second)
			}
			return nil
		})
		began = time.Now()
		s.must(e, "collectors: {in: }\nexporters: {out/0: , out/1: , out/2: , out/3: , out/4: }\npipelines: {p: {from: [in], to: [out/0, out/1, out/2, out/3, out/4]}}")
		if took := time.Since(began); took != 20*time.Second {
			t.Errorf("five that take 20 s to open take %v", took)
		}

		// What is opening is given up when there is no reason to wait for it any more.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		plan, _ := s.compile(variant("9"), nil)
		if _, err := e.Apply(ctx, plan); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after its context was done: %v", err)
		}
		cancel()
		refused := make(chan error)
		go func() {
			_, err := e.Apply(context.Background(), plan)
			refused <- err
		}()
		synctest.Wait()
		began = time.Now()
		if err := e.Drain(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-refused; err == nil || !strings.Contains(err.Error(), "stopped") || time.Since(began) != 0 {
			t.Errorf("Drain has waited %v, Apply says %v", time.Since(began), err)
		}
		time.Sleep(time.Minute)
		s.allClosed()
	})
}

// TestHangingEnds: what does not return from Close, Collect or Run is left behind, named and counted; the others are closed,
// records go on, and Drain keeps to its time.
func TestHangingEnds(t *testing.T) {
	for _, c := range []struct{ id, what string }{{"out", "Close"}, {"in", "Close"}, {"in", "Collect"}, {"keep", "Close"}, {"keep", "Run"}, {"pass", "Process"}} {
		t.Run(c.id+" "+c.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStubborn(t)
				e := pipeline.New(pipeline.Options{Metrics: metric.NewSet()})
				hang, hung := make(chan struct{}), make(chan struct{}, 10)
				s.on(func(id, what string) error {
					if id == c.id && what == c.what {
						hung <- struct{}{}
						<-hang
					}
					return nil
				})
				text := "collectors: {in: {variant: %V}}\nprocessors: {keep: {variant: %V}, pass: {variant: %V}}\nexporters: {out: {variant: %V}}\npipelines: {p: {from: [in], through: [pass, keep], to: [out]}}"
				s.must(e, strings.ReplaceAll(text, "%V", "1"))
				out := <-s.sink
				if c.what == "Process" {
					go send(t, out, 1)
				} else {
					send(t, out, 3)
				}
				synctest.Wait()
				r := s.must(e, strings.ReplaceAll(text, "%V", "2"))
				key := map[string]string{"out": "exporters.out", "in": "collectors.in", "keep": "pipelines.p.keep", "pass": "pipelines.p.pass"}[c.id]
				if !slices.Contains(r.Leaked, key) || len(hung) == 0 || r.Took < 10*time.Second || r.Took > 31*time.Second {
					t.Errorf("%d calls hang, and the receipt is %+v", len(hung), r)
				}
				if n := value(e, "creel.component.leaked"); n < 1 {
					t.Errorf("%v are counted as left behind", n)
				}
				if c.what == "Collect" { // it can do no harm
					b := creel.NewBatch(creel.Logs, new(creel.Memory).NewRecords())
					if out.TrySend(b) || out.Send(t.Context(), b) == nil {
						t.Error("a collector that was left behind can send")
					}
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				began := time.Now()
				if err := e.Drain(ctx); err != nil {
					t.Error(err)
				}
				if took := time.Since(began); took > 2*time.Second {
					t.Errorf("Drain has taken %v", took)
				}
				close(hang)
				time.Sleep(time.Minute)
				s.allClosed()
				for _, p := range e.Ledger().Pipelines {
					if p.Unexplained != 0 || p.Held != 0 || p.Accepted == 0 {
						t.Errorf("the books do not balance: %+v", p)
					}
				}
			})
		})
	}
}

// TestSocketsOfTheLate: what was given up or left behind holds no port, and takes no connection.
func TestSocketsOfTheLate(t *testing.T) {
	s := newStubborn(t)
	e := pipeline.New(pipeline.Options{Opening: 50 * time.Millisecond, Closing: 50 * time.Millisecond})
	hang := make(chan struct{})
	slow := func(what string) func(string, string) error {
		return func(id, call string) error {
			if id == "out" && call == what {
				<-hang
			}
			return nil
		}
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	with := func(id string) string {
		return "collectors: {in: }\nexporters: {out/other: , " + id + ": {endpoint: \"" + address + "\"}}\npipelines: {p: {from: [in], to: [out/other, " + id + "]}}"
	}
	bound := func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
		}
		return err == nil
	}
	s.on(slow("Open"))
	if _, err := s.apply(e, with("out")); err == nil || bound() || len(e.Endpoints()) != 0 {
		t.Errorf("given up with %v, and it is still listened on %v", err, e.Endpoints())
	}
	s.on(slow("Close"))
	s.must(e, with("out"))
	if r := s.must(e, with("out/next")); !slices.Equal(r.Leaked, []string{"exporters.out"}) {
		t.Errorf("left behind were %v", r.Leaked)
	}
	if got := e.Endpoints(); len(got) != 1 || got[0].Component != "exporters.out/next" || !bound() {
		t.Errorf("listening are %+v", got)
	}
	s.must(e, "collectors: {in: }\nexporters: {out/other: }\npipelines: {p: {from: [in], to: [out/other]}}")
	if bound() {
		t.Error("the port is taken though nobody has it any more")
	}
	close(hang)
	if err := e.Drain(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestPause: while it is paused nothing is let in, dropped or collected, and what was let in goes on; it outlives a reload, and
// ends with records.
func TestPause(t *testing.T) {
	w := newWorld(t)
	e := w.engine()
	e.Pause(true)
	text := "collectors: {send: {variant: 1}, gen: , poll: {every: 10ms}, poll/seldom: {every: 1h}}\nprocessors: {hold: }\nexporters: {sink: {variant: 1}}\npipelines: {p: {from: [send, gen, poll, poll/seldom], through: [hold], to: [sink]}}"
	out, _ := w.sending(t, e, text)
	shut := func(when string) {
		t.Helper()
		b := w.batch("send", 1)
		if out.TrySend(b) {
			t.Errorf("%s: a batch is taken", when)
		}
		short, cancel := context.WithCancel(t.Context())
		cancel()
		if err := out.Send(short, b); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: Send says %v", when, err)
		}
		w.unsent("send", b)
		if p := book(t, e, "p"); p.Accepted != p.Passed || len(p.Dropped) > 0 || p.Held > 0 {
			t.Errorf("%s: %+v", when, p)
		}
	}
	w.await("the collector waits", func() bool { return w.next["gen"] > 0 })
	shut("from the beginning")
	e.SetPressure(pipeline.Pressure{Level: 3})
	e.SetPressure(pipeline.Pressure{})
	shut("after pressure")
	e.Pause(false)
	w.await("records flow", func() bool {
		return w.arrived["sink"][name("gen", 100)] == 1 && w.arrived["sink"][name("poll", 5)] == 1 && w.arrived["sink"][name("poll/seldom", 2)] == 1
	})
	e.Pause(true)
	if err := e.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	shut("flushed")
	before := book(t, e, "p").Accepted
	w.mu.Lock()
	safe := w.safe
	w.mu.Unlock()
	if int64(safe) != before {
		t.Errorf("flushed, %d of %d records are safe", safe, before)
	}
	out, _ = w.sending(t, e, strings.ReplaceAll(text, "variant: 1", "variant: 2")) // both are reopened
	shut("after a reload")
	if after := book(t, e, "p").Accepted; after != before {
		t.Errorf("while it was paused %d records were taken", after-before)
	}
}

// TestFlushSays: what cannot be delivered is named.
func TestFlushSays(t *testing.T) {
	w := newWorld(t)
	e := w.engine()
	w.holdLong = true
	w.failures["sink"] = errors.New("away on purpose")
	w.apply(e, "collectors: {manual: , manual/held: }\nprocessors: {hold: }\nexporters: {sink: {delivery: {retry: {initial: 1ms, max: 2ms}}}}\n"+
		"pipelines: {p: {from: [manual], to: [sink]}, q: {from: [manual/held], through: [hold], to: [sink]}}")
	w.await("both are under way", func() bool { return len(w.calls["sink"]) > 0 && book(t, e, "q").Held == 4 })
	e.Pause(true)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	err := e.Flush(ctx)
	if err == nil || !strings.Contains(err.Error(), "4 of pipeline p at exporter sink") || !strings.Contains(err.Error(), "4 in pipeline q") || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("flush says %v", err)
	}
	w.mu.Lock()
	delete(w.failures, "sink")
	w.mu.Unlock()
}

// TestComponentFaults: whatever fails or panics is an error of its own, starts again, loses nothing, and takes nobody along.
func TestComponentFaults(t *testing.T) {
	for _, c := range []struct{ id, key, what string }{
		{"in", "collectors.in", "Collect"}, {"keep", "pipelines.q.keep", "Run"}, {"out", "exporters.out", "Export"}, {"pass", "pipelines.p.pass", "Process"},
	} {
		for _, panics := range []bool{false, true} {
			t.Run(c.what, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := newStubborn(t)
					e := pipeline.New(pipeline.Options{})
					var faults atomic.Int64
					s.on(func(id, what string) error {
						if id != c.id || what != c.what || faults.Add(1) > 3 {
							return nil
						}
						if panics {
							panic("on purpose")
						}
						return errors.New("on purpose")
					})
					s.must(e, "collectors: {in: , in/2: }\nprocessors: {pass: , keep: }\nexporters: {out: }\npipelines: {p: {from: [in], through: [pass], to: [out]}, q: {from: [in/2], through: [keep], to: [out]}}")
					a, b := <-s.sink, <-s.sink
					for range 4 {
						send(t, a, 1)
						send(t, b, 1)
					}
					time.Sleep(5 * time.Second)
					v := e.Vitals().Components[c.key]
					if faults.Load() < 3 || v.Failed != 3 || v.Healthy || !strings.Contains(v.Error, "on purpose") && c.what != "Export" {
						if !(c.what == "Export" && v.Healthy && v.Failed == 3) {
							t.Errorf("after %d faults it is %+v", faults.Load(), v)
						}
					}
					time.Sleep(30 * time.Second)
					if v := e.Vitals().Components[c.key]; v.Healthy != (c.what != "Process") {
						t.Errorf("half a minute later it is %+v", v)
					}
					if err := e.Drain(t.Context()); err != nil {
						t.Error(err)
					}
					for _, p := range e.Ledger().Pipelines {
						failed := int64(0)
						if c.what == "Process" && p.Pipeline == "p" {
							failed = 3
						}
						if p.Unexplained != 0 || p.Held != 0 || p.Accepted != 4 || p.Dropped["processor_error"] != failed || p.Exporters[0].Delivered != 4-failed {
							t.Errorf("the books say %+v", p)
						}
					}
				})
			})
		}
	}
}

// TestPanicsOfOpenAndClose are errors.
func TestPanicsOfOpenAndClose(t *testing.T) {
	s := newStubborn(t)
	e := pipeline.New(pipeline.Options{})
	panics := func(id, what string) error {
		if id == "pass" {
			panic("on purpose, in " + what)
		}
		return nil
	}
	s.on(panics)
	if _, err := s.apply(e, variant("1")); err == nil || !strings.Contains(err.Error(), "open processors.pass: panic: on purpose, in Open") {
		t.Errorf("a panic in Open is %v", err)
	}
	s.on(nil)
	s.must(e, variant("1"))
	s.on(panics)
	if r := s.must(e, "collectors: {in: }\nexporters: {out: }\npipelines: {p: {from: [in], to: [out]}}"); len(r.Leaked) != 0 {
		t.Errorf("%+v", r)
	}
	if err := e.Drain(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestToggles: components and pipelines are on where their condition on the labels holds; what that changes opens and closes
// them, and reopens nobody else.
func TestToggles(t *testing.T) {
	s := newStubborn(t)
	text := "collectors: {in: , in/north: {enabled: site == 'north'}}\nprocessors: {pass: {enabled: 'site != \"south\"'}}\nexporters: {out: , out/2: {enabled: %E}}\n" +
		"pipelines: {p: {from: [in, in/north], through: [pass], to: [out, out/2]}, q: {enabled: creel.role == 'edge', from: [in], to: [out]}}"
	plan := func(enabled string, labels map[string]string) *pipeline.Plan {
		p, err := s.compile(strings.ReplaceAll(text, "%E", enabled), labels)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	north := plan("true", map[string]string{"site": "north", "creel.role": "edge"})
	south := plan("site != 'north'", map[string]string{"site": "south"})
	if d := pipeline.Diff(north, south); !slices.Equal(d.Close, []string{"pipelines.p.pass", "collectors.in/north"}) || len(d.Open)+len(d.Reopen) != 0 || len(d.Keep) != 3 {
		t.Errorf("from north to south: %+v", d)
	}
	if len(north.Pipelines) != 2 || len(south.Pipelines) != 1 {
		t.Errorf("north has %+v, south %+v", north.Pipelines, south.Pipelines)
	}
	if _, err := s.compile(strings.ReplaceAll(text, "%E", "site = 'north'"), nil); err == nil || !strings.Contains(err.Error(), "exporters.out/2.enabled: must be true, false, or a condition") || !strings.HasPrefix(err.Error(), "c:") {
		t.Errorf("a wrong condition: %v", err)
	}
	moved := plan("true", map[string]string{"site": "north", "creel.role": "edge"})
	moved.Resource.Attrs.Set("site", creel.String("north"))
	if d := pipeline.Diff(north, moved); !slices.Equal(d.Reopen, []string{"collectors.in", "collectors.in/north"}) || len(d.Keep) != 3 {
		t.Errorf("with another resource: %+v", d)
	}
}

// TestNewestWins: of many changes at once the last is what runs, and each of the others is applied before it or says why not.
func TestNewestWins(t *testing.T) {
	s := newStubborn(t)
	e := pipeline.New(pipeline.Options{})
	s.must(e, variant("1"))
	<-s.sink
	var wg sync.WaitGroup
	var applied, superseded atomic.Int64
	for i := range 100 {
		plan, err := s.compile(variant(string(rune('0'+i%8))), nil)
		if err != nil {
			t.Fatal(err)
		}
		started := make(chan struct{})
		wg.Go(func() {
			close(started)
			switch _, err := e.Apply(t.Context(), plan); {
			case err == nil:
				applied.Add(1)
			case errors.Is(err, pipeline.ErrSuperseded):
				superseded.Add(1)
			default:
				t.Error(err)
			}
		})
		<-started
		if i%10 == 9 {
			wg.Wait()
		}
	}
	wg.Wait()
	last := s.must(e, variant("9"))
	if applied.Load() < 10 || applied.Load()+superseded.Load() != 100 || len(last.Change.Reopen) != 1 || !strings.Contains(string(e.Plan().Processors[0].Options), `"variant":9`) {
		t.Errorf("%d were applied, %d not, last %+v", applied.Load(), superseded.Load(), last)
	}
	if err := e.Drain(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestReceipt: it says how long a reopened collector stood still, and what was in hand.
func TestReceipt(t *testing.T) {
	w := newWorld(t)
	e := w.engine()
	w.holdLong = true
	text := "collectors: {manual: {variant: %V}}\nprocessors: {hold: , mark: {variant: %M}}\nexporters: {sink: }\npipelines: {p: {from: [manual], through: [mark, hold], to: [sink]}}"
	apply := func(v, m string) report.Receipt {
		r, err := e.Apply(t.Context(), w.compile(strings.NewReplacer("%V", v, "%M", m).Replace(text)))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	apply("1", "1")
	w.await("records are held", func() bool { return book(t, e, "p").Held == 4 })
	if r := apply("1", "2"); r.InHand != 4 || r.Still != 0 || r.Took <= 0 || len(r.Change.Reopen) != 1 {
		t.Errorf("a processor: %+v", r)
	}
	plan := w.compile(strings.NewReplacer("%V", "2", "%M", "2").Replace(text))
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	r, err := e.Apply(short, plan) // it waits for records to be settled that are held
	if err != nil || short.Err() == nil || r.Still <= 0 || r.Still > r.Took || r.InHand != 4 {
		t.Errorf("a collector: %+v, %v", r, err)
	}
}

// TestSpans: a reload, a delivery and a round are spans, and an exporter is called in its span.
func TestSpans(t *testing.T) {
	w := newWorld(t)
	tracer := trace.New(trace.Options{Rate: 1000})
	var mu sync.Mutex
	spans := make(map[string]trace.Data)
	defer tracer.Subscribe(func(d trace.Data) {
		mu.Lock()
		defer mu.Unlock()
		spans[d.Name] = d
	})()
	var inside atomic.Pointer[trace.Context]
	w.answer = func(ctx context.Context, _ string, _ int) error {
		c := trace.From(ctx)
		inside.Store(&c)
		return nil
	}
	w.tracer = tracer
	e := w.engine()
	r, err := e.Apply(t.Context(), w.compile("collectors: {poll: {every: 1h}}\nexporters: {sink: }\npipelines: {p: {from: [poll], to: [sink]}}"))
	if err != nil {
		t.Fatal(err)
	}
	w.await("the spans have ended", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(spans) == 3
	})
	d := spans["deliver"]
	if d.Span != inside.Load().Span || d.Kind != trace.Client || r.Trace != spans["reload"].TraceID() || r.Trace == "" {
		t.Errorf("the exporter is called in %v; spans are %+v", inside.Load(), spans)
	}
	attrs := make(map[string]string)
	for _, a := range d.Attrs {
		attrs[a.Key] = a.Value.String()
	}
	if attrs["component"] != "exporters.sink" || attrs["records"] != "3" || attrs["attempt"] != "1" || attrs["exporter"] != "sink" {
		t.Errorf("attributes are %v", attrs)
	}
}
