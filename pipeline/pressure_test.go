package pipeline_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/creelhq/creel/pipeline"
	"github.com/creelhq/creel/report"
)

// book returns the books of a pipeline, and checks that they balance.
func book(t *testing.T, e *pipeline.Engine, name string) report.Pipeline {
	t.Helper()
	for _, p := range e.Ledger().Pipelines {
		if p.Pipeline == name {
			if p.Unexplained != 0 {
				t.Errorf("the books do not balance: %+v", p)
			}
			return p
		}
	}
	t.Fatalf("there is no pipeline %s", name)
	panic("not reached")
}

// TestShedding: pipelines stop taking in the order of their priority. What goes to others as well is shed for those that have
// stopped; a collector that feeds no others waits.
func TestShedding(t *testing.T) {
	w := newWorld(t)
	e := w.engine()
	out, _ := w.sending(t, e, `collectors: {send: }
processors: {route: {to: side}}
exporters: {sink/x: , sink/y: }
pipelines:
  low: {from: [send], to: [sink/x], priority: 2}
  usual: {from: [send], to: [sink/x, sink/y]}
  high: {from: [send], through: [route], to: [sink/y], priority: 9}
  side: {to: [sink/x], priority: 3}`)
	sent, took := int64(0), make(map[string]int64)
	send := func(ok bool) {
		t.Helper()
		b := w.batch("send", 4)
		if out.TrySend(b) != ok {
			t.Fatalf("that it is taken is not %t", ok)
		}
		if ok {
			sent += 4
		} else {
			w.unsent("send", b)
		}
	}
	priorities := map[string]int{"low": 2, "usual": 5, "high": 9, "side": 3}
	levels := []int{0, 1, 2, 3, 4, 5, 6, 9, 10, 11, 10, 9, 0, 5, 0}
	for _, level := range levels {
		e.SetPressure(pipeline.Pressure{Level: level})
		send(level <= 9)
		for name, priority := range priorities {
			if level <= priority {
				took[name] += 4
			}
		}
	}
	if err := e.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name := range priorities {
		p := book(t, e, name)
		accepted, taken := sent, took[name]
		if name == "side" {
			accepted, taken = sent/2, took[name]/2 // every second record
		}
		if p.Accepted != accepted || p.Dropped["shed"] != accepted-taken || p.Passed+p.Routed != taken {
			t.Errorf("of %d records %s should have taken %d: %+v", accepted, name, taken, p)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range sent {
		if r := w.results[name("send", i)]; len(r) != 1 || r[0] != nil {
			t.Errorf("%s was settled as %v", name("send", i), r)
		}
	}
}

// TestWaitersWake: who waits for memory goes on as soon as there is enough for it, in rounds or not; when it is stopped; and
// when a reload says that it may. What it sends is not shed.
func TestWaitersWake(t *testing.T) {
	text := "collectors: {manual: , poll: {every: 10ms}}\nexporters: {sink: }\npipelines: {p: {from: [manual, poll], to: [sink], priority: %d}}"
	for _, end := range []string{"less", "reload", "none", "stop"} {
		t.Run(end, func(t *testing.T) {
			w := newWorld(t)
			e := w.engine()
			e.SetPressure(pipeline.Pressure{Level: 7})
			w.apply(e, fmt.Sprintf(text, 6))
			w.await("both collectors wait", func() bool { return w.next["manual"] > 0 && w.next["poll"] > 0 })
			e.SetPressure(pipeline.Pressure{Level: 8})
			if p := book(t, e, "p"); p.Accepted != 0 {
				t.Errorf("under pressure: %+v", p)
			}
			switch end {
			case "less":
				e.SetPressure(pipeline.Pressure{Level: 6})
			case "none":
				e.SetPressure(pipeline.Pressure{Level: 0})
			case "reload":
				w.apply(e, fmt.Sprintf(text, 8))
			}
			if end != "stop" {
				w.await("records arrive", func() bool {
					return w.arrived["sink"][name("manual", 0)] == 1 && w.arrived["sink"][name("poll", 5)] == 1
				})
			}
			if err := e.Drain(t.Context()); err != nil {
				t.Fatal(err)
			}
			if p := book(t, e, "p"); len(p.Dropped) > 0 || (p.Accepted == 0) != (end == "stop") {
				t.Errorf("in the end: %+v", p)
			}
		})
	}
}

// TestGrants: what may be taken is taken and no more, and more is asked for: an answer at once keeps nobody waiting, a later one
// wakes who waits.
func TestGrants(t *testing.T) {
	w := newWorld(t)
	e := w.engine()
	out, _ := w.sending(t, e, "collectors: {send: }\nexporters: {sink: }\npipelines: {p: {from: [send], to: [sink]}}")
	probe := w.batch("none", 4)
	size := int64(probe.Bytes())
	w.unsent("none", probe)
	asked, answer := make(chan struct{}, 100), false
	var grant func(bytes int64)
	grant = func(bytes int64) {
		e.SetPressure(pipeline.Pressure{Bytes: bytes, More: func() {
			asked <- struct{}{}
			if answer {
				grant(2 * size)
			}
		}})
	}
	try := func(want int) {
		t.Helper()
		for got := 0; ; got++ {
			b := w.batch("send", 4)
			if !out.TrySend(b) {
				w.unsent("send", b)
				if got != want {
					t.Errorf("%d batches were taken, want %d", got, want)
				}
				return
			}
			if got > want {
				t.Fatalf("more than %d batches were taken", want)
			}
		}
	}
	grant(3 * size)
	try(3)
	grant(size/2 + 1) // the last one may be larger
	try(1)
	if n := len(asked); n != 2 {
		t.Errorf("%d times more was asked for, want 2", n)
	}
	sent := make(chan error)
	go func() { sent <- out.Send(t.Context(), w.batch("send", 4)) }()
	<-asked
	<-asked
	<-asked // it waits
	grant(size)
	if err := <-sent; err != nil {
		t.Error(err)
	}
	answer = true
	grant(0)
	for range 10 {
		if !out.TrySend(w.batch("send", 4)) {
			t.Fatal("a batch is not taken, though more is granted at once")
		}
	}
	if n := len(asked); n != 5 {
		t.Errorf("10 batches have asked %d times, want 5", n)
	}
	e.SetPressure(pipeline.Pressure{})
	w.await("all arrives", func() bool { return len(w.arrived["sink"]) == 4*15 })
}

// TestRandomPressure changes pressure and everything else at random: each record is settled once, arrives or is shed, and the
// books balance.
func TestRandomPressure(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	w := newWorld(t)
	w.faults = true
	e := w.engine()
	text := func() string {
		return fmt.Sprintf(`collectors: {gen/a: {variant: %d}, gen/b: , poll/c: {every: 10ms}}
processors: {mark: , hold: {variant: %d}, route: {to: side}}
exporters: {sink/x: {variant: %d, delivery: {%s, retry: {initial: 1ms, max: 2ms}}}, sink/y: {delivery: {%s, retry: {initial: 1ms, max: 2ms}}}}
pipelines:
  one: {from: [gen/a, gen/b], through: [mark, route], to: [sink/x], priority: %d}
  two: {from: [gen/b, poll/c], through: [hold], to: [sink/x, sink/y], priority: %d}
  side: {to: [sink/y], priority: %d}`, r.IntN(2), r.IntN(2), r.IntN(2), small, small, r.IntN(10), r.IntN(10), r.IntN(10))
	}
	ctx, cancel := context.WithCancel(t.Context())
	var asked atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() {
		r := rand.New(rand.NewPCG(seed, 1))
		for ctx.Err() == nil {
			p := pipeline.Pressure{Level: r.IntN(12)}
			if r.IntN(2) == 0 {
				p.Bytes, p.More = r.Int64N(10_000), func() { asked.Add(1) }
			}
			e.SetPressure(p)
			time.Sleep(time.Duration(r.IntN(2000)) * time.Microsecond) // load, not synchronisation
		}
		e.SetPressure(pipeline.Pressure{Level: 0})
	})
	for range 60 {
		w.apply(e, text())
		time.Sleep(time.Duration(r.IntN(20)) * time.Millisecond) // likewise
	}
	cancel()
	wg.Wait()
	w.mu.Lock()
	before := w.safe
	w.mu.Unlock()
	w.await("records flow", func() bool { return w.safe > before+100 })
	if err := e.Drain(context.Background()); err != nil {
		t.Fatal(err)
	}
	var shed int64
	for _, id := range []string{"one", "two", "side"} {
		p := book(t, e, id)
		t.Logf("%+v", p)
		shed += p.Dropped["shed"]
		for _, x := range p.Exporters {
			if x.Unexplained != 0 || x.Queued != 0 || len(x.Dropped) > 0 {
				t.Errorf("pipeline %s, exporter %s: the books do not balance: %+v", id, x.Exporter, x)
			}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	sent := int64(0)
	for id, n := range w.next {
		for i := range n {
			if results := w.results[name(id, i)]; len(results) != 1 || results[0] != nil {
				t.Fatalf("%s was settled as %v", name(id, i), results)
			}
			if id == "poll/c" && w.arrived["sink/x"][name(id, i)] != 1 {
				t.Fatalf("%s, whose collector feeds one pipeline, has not arrived", name(id, i))
			}
			sent++
		}
	}
	if shed == 0 || shed > sent*2 || asked.Load() == 0 || w.injected.Load() == 0 {
		t.Errorf("%d of %d records were shed, %d faults: the test tests nothing", shed, sent, w.injected.Load())
	}
}
