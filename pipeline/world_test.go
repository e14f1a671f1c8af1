package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/deadletter"
	"github.com/creelhq/creel/metric"
	"github.com/creelhq/creel/pipeline"
	"github.com/creelhq/creel/report"
	"github.com/creelhq/creel/task"
	"github.com/creelhq/creel/trace"
)

// world is what the tests' plugins do and see. Its collectors number their records; its exporters note what arrives.
type world struct {
	t      *testing.T
	dir    string // of disk queues and dead letters
	memory creel.Memory

	tracer  *trace.Tracer
	labels  map[string]string
	opening atomic.Pointer[func() error] // is called by Open of mark; nil: nobody is
	letters bool                         // what is refused becomes a dead letter
	faults  bool                         // components fail now and then

	size     int                                      // records of a batch of the manual collector
	holdLong bool                                     // hold flushes only in the end
	refuse   func(string) bool                        // records that the exporter refuses for good; nil: none
	answer   func(context.Context, string, int) error // what an exporter's far side says to a request of so many records; nil: yes
	took     func(int64)                              // is called with the number of each record that arrives; nil: nobody is
	deaf     chan struct{}                            // the first export waits for it, whatever its context says

	mu       sync.Mutex
	next     map[string]int64          // by collector: the number of its next record
	arrived  map[string]map[string]int // by exporter, by record: how often
	results  map[string][]error        // by record: what OnDone said
	safe     int                       // records that OnDone said are safe
	failures map[string]error          // by exporter: what every export returns, if not nil
	hung     map[string]chan struct{}  // by exporter: exports wait until it is closed
	requests []creel.Request           // of exports that were taken
	calls    map[string][]int          // by exporter: records of each attempt
	open     map[string]int            // by kind and id: instances that are open
	received chan struct{}             // gets an element, if there is room, when records arrive
	injected atomic.Int64              // faults that happened
}

func newWorld(t *testing.T) *world {
	w := &world{
		t: t, dir: t.TempDir(), size: 4, next: make(map[string]int64), arrived: make(map[string]map[string]int), results: make(map[string][]error),
		failures: make(map[string]error), open: make(map[string]int), received: make(chan struct{}, 1), hung: make(map[string]chan struct{}),
		calls: make(map[string][]int),
	}
	w.memory.Poison = true
	return w
}

func (w *world) plugins() []creel.Plugin {
	return []creel.Plugin{
		creel.NewCollector("gen", "Makes records without end.", w.gen),
		creel.NewPolled("poll", "Makes one batch a round.", w.poll),
		creel.NewCollector("manual", "Makes records when the test says so.", w.manual),
		creel.NewCollector("net", "Accepts connections.", w.net),
		creel.NewCollector("broken", "Cannot be opened.", func(none, creel.Host) (creel.Collector, error) { return nil, errors.New("broken on purpose") }),
		creel.NewProcessor("mark", "Adds an attribute.", w.mark),
		creel.NewProcessor("thin", "Drops records whose number is odd.", w.thin),
		creel.NewProcessor("hold", "Keeps batches back for a while.", w.hold),
		creel.NewProcessor("route", "Sends every second record to another pipeline.", w.route),
		creel.NewProcessor("fail", "Fails.", w.fail),
		creel.NewExporter("sink", "Notes what arrives.", w.sink),
	}
}

type none struct {
	Variant int `doc:"Means nothing; a change reopens the component." default:"0"`
}

type component struct {
	w      *world
	key    string
	closed atomic.Bool
}

func (w *world) component(kind string, h creel.Host) *component {
	c := &component{w: w, key: kind + " " + h.ID}
	w.mu.Lock()
	w.open[c.key]++
	w.mu.Unlock()
	return c
}

func (c *component) use() {
	if c.closed.Load() {
		panic("BUG: " + c.key + " is used after it was closed")
	}
}

func (c *component) Close() error {
	if c.closed.Swap(true) {
		panic("BUG: " + c.key + " is closed twice")
	}
	c.w.mu.Lock()
	c.w.open[c.key]--
	c.w.mu.Unlock()
	return nil
}

// batch makes a batch of n new records of collector id.
func (w *world) batch(id string, n int) *creel.Batch {
	w.mu.Lock()
	first := w.next[id]
	w.next[id] += int64(n)
	w.mu.Unlock()
	r := w.memory.NewRecords()
	for i := range int64(n) {
		attrs := creel.Attrs(r.Attrs.Make(1))
		attrs[0] = creel.Attr{Key: "collector", Value: creel.String(id)}
		r.Logs = append(r.Logs, creel.Log{Body: creel.Int(first + i), Attrs: attrs})
	}
	b := creel.NewBatch(creel.Logs, r)
	b.OnDone(func(err error) {
		w.mu.Lock()
		for i := range int64(n) {
			w.results[name(id, first+i)] = append(w.results[name(id, first+i)], err)
		}
		if err == nil {
			w.safe += n
		}
		w.mu.Unlock()
	})
	return b
}

func name(id string, n int64) string { return fmt.Sprintf("%s#%d", id, n) }

type funcCollector struct {
	*component
	collect func(context.Context, creel.Sink) error
}

func (c funcCollector) Collect(ctx context.Context, out creel.Sink) error {
	c.use()
	return c.collect(ctx, out)
}

// unsent takes back the number of records of a batch that was not admitted.
func (w *world) unsent(id string, b *creel.Batch) {
	n := b.Len()
	creel.Settle(b, context.Canceled)
	w.mu.Lock()
	defer w.mu.Unlock()
	for range n {
		w.next[id]--
		delete(w.results, name(id, w.next[id]))
	}
}

func (w *world) gen(_ none, h creel.Host) (creel.Collector, error) {
	return funcCollector{w.component("collector", h), func(ctx context.Context, out creel.Sink) error {
		for {
			b := w.batch(h.ID, 1+rand.IntN(20))
			if rand.IntN(2) == 0 && out.TrySend(b) {
				continue
			}
			if err := out.Send(ctx, b); err != nil {
				w.unsent(h.ID, b)
				return err
			}
			if w.faults && rand.IntN(50) == 0 {
				w.injected.Add(1)
				return errors.New("collector fails on purpose")
			}
		}
	}}, nil
}

func (w *world) poll(_ none, h creel.Host) (creel.Collector, error) {
	return funcCollector{w.component("collector", h), func(ctx context.Context, out creel.Sink) error {
		b := w.batch(h.ID, 3)
		err := out.Send(ctx, b)
		if err != nil {
			w.unsent(h.ID, b)
		}
		return err
	}}, nil
}

// manual sends what is put into w.manualIn.
func (w *world) manual(_ none, h creel.Host) (creel.Collector, error) {
	return funcCollector{w.component("collector", h), func(ctx context.Context, out creel.Sink) error {
		b := w.batch(h.ID, w.size)
		if err := out.Send(ctx, b); err != nil {
			w.unsent(h.ID, b)
			return err
		}
		<-ctx.Done()
		return nil
	}}, nil
}

type netConfig struct {
	none
	Endpoint string `doc:"Address."`
}

type netCollector struct {
	*component
	net.Listener
}

func (w *world) net(c netConfig, h creel.Host) (creel.Collector, error) {
	l, err := h.Listen("tcp", c.Endpoint, "test")
	if err != nil {
		return nil, err
	}
	return &netCollector{w.component("collector", h), l}, nil
}

func (c *netCollector) Collect(ctx context.Context, _ creel.Sink) error {
	stop := context.AfterFunc(ctx, func() { c.Listener.Close() })
	defer stop()
	for {
		conn, err := c.Accept()
		if err != nil {
			return err
		}
		conn.Close()
	}
}

func (c *netCollector) Close() error {
	c.Listener.Close()
	return c.component.Close()
}

type funcProcessor struct {
	*component
	process func(*creel.Batch, creel.Next) error
}

func (p funcProcessor) Process(_ context.Context, b *creel.Batch, next creel.Next) error {
	p.use()
	return p.process(b, next)
}

func (w *world) mark(_ none, h creel.Host) (creel.Processor, error) {
	if opening := w.opening.Load(); opening != nil {
		if err := (*opening)(); err != nil {
			return nil, err
		}
	}
	return funcProcessor{w.component("processor", h), func(b *creel.Batch, next creel.Next) error {
		for i := range b.EditLogs() {
			b.EditLogs()[i].Attrs.Set("mark", creel.Bool(true))
		}
		if b.Len() > 3 && rand.IntN(3) == 0 {
			half := b.Split(b.Len() / 2)
			next.Send(half)
		}
		next.Send(b)
		return nil
	}}, nil
}

func (w *world) thin(_ none, h creel.Host) (creel.Processor, error) {
	return funcProcessor{w.component("processor", h), func(b *creel.Batch, next creel.Next) error {
		logs := b.Logs()
		b.Keep(func(i int) bool { return logs[i].Body.Int()%2 == 0 })
		next.Send(b)
		return nil
	}}, nil
}

func (w *world) fail(_ none, h creel.Host) (creel.Processor, error) {
	return funcProcessor{w.component("processor", h), func(b *creel.Batch, next creel.Next) error {
		w.injected.Add(1)
		return errors.New("processor fails on purpose")
	}}, nil
}

type routeConfig struct {
	To string `doc:"Where the odd ones go." ref:"pipeline"`
}

func (w *world) route(c routeConfig, h creel.Host) (creel.Processor, error) {
	other, err := h.Output(c.To)
	if err != nil {
		return nil, err
	}
	return funcProcessor{w.component("processor", h), func(b *creel.Batch, next creel.Next) error {
		if b.Len() > 1 {
			other.Send(b.Split(b.Len() / 2))
		}
		next.Send(b)
		return nil
	}}, nil
}

type holder struct {
	*component
	mu   sync.Mutex
	held []*creel.Batch
}

func (w *world) hold(_ none, h creel.Host) (creel.Processor, error) {
	return &holder{component: w.component("processor", h)}, nil
}

// Process holds b, or joins it to one that is held.
func (p *holder) Process(_ context.Context, b *creel.Batch, _ creel.Next) error {
	p.use()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.held) > 0 && rand.IntN(2) == 0 {
		p.held[0].Join(b)
		return nil
	}
	b.Hold()
	p.held = append(p.held, b)
	return nil
}

// Run sends on what is held every few milliseconds, and in the end.
func (p *holder) Run(ctx context.Context, next creel.Next) error {
	every := 2 * time.Millisecond
	if p.w.holdLong {
		every = time.Hour
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		done := false
		select {
		case <-tick.C:
		case <-ctx.Done():
			done = true
		}
		p.use()
		p.mu.Lock()
		held := p.held
		p.held = nil
		p.mu.Unlock()
		for _, b := range held {
			next.Send(b)
		}
		if done {
			return nil
		}
	}
}

type sinkExporter struct {
	*component
	id string
}

func (w *world) sink(_ none, h creel.Host) (creel.Exporter, error) {
	return &sinkExporter{w.component("exporter", h), h.ID}, nil
}

// faults are what exports fail with now and then.
var faults = []error{
	errors.New("export fails on purpose"),
	&creel.Throttled{Err: errors.New("overloaded on purpose")},
	&creel.Throttled{Err: errors.New("busy on purpose"), After: time.Millisecond},
	context.DeadlineExceeded,
}

// Export takes everything or nothing.
func (x *sinkExporter) Export(ctx context.Context, batches []*creel.Batch) error {
	x.use()
	w := x.w
	w.mu.Lock()
	failure, hung := w.failures[x.id], w.hung[x.id]
	n := 0
	for _, b := range batches {
		n += b.Len()
	}
	w.calls[x.id] = append(w.calls[x.id], n)
	first := len(w.calls[x.id]) == 1
	w.mu.Unlock()
	if w.deaf != nil && first {
		<-w.deaf
		return errors.New("woken up")
	}
	if hung != nil {
		select {
		case <-hung:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if failure != nil {
		w.injected.Add(1)
		return failure
	}
	if w.answer != nil {
		if err := w.answer(ctx, x.id, n); err != nil {
			w.injected.Add(1)
			return err
		}
	}
	if w.faults && rand.IntN(5) == 0 {
		w.injected.Add(1)
		return faults[rand.IntN(len(faults))]
	}
	for _, b := range batches {
		for _, l := range b.Logs() {
			id, _ := l.Attrs.Get("collector")
			if w.refuse != nil && w.refuse(name(id.Str(), l.Body.Int())) {
				w.injected.Add(1)
				return creel.Permanent(errors.New("refused on purpose"))
			}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.requests = append(w.requests, creel.RequestOf(ctx))
	if w.arrived[x.id] == nil {
		w.arrived[x.id] = make(map[string]int)
	}
	for _, b := range batches {
		for _, l := range b.Logs() {
			id, _ := l.Attrs.Get("collector")
			w.arrived[x.id][name(id.Str(), l.Body.Int())]++
			if w.took != nil {
				w.took(l.Body.Int())
			}
		}
	}
	select {
	case w.received <- struct{}{}:
	default:
	}
	return nil
}

// compile makes a plan of a configuration.
func (w *world) compile(text string) *pipeline.Plan {
	w.t.Helper()
	root, err := config.Parse("test.yaml", []byte(text), config.Env{})
	if err != nil {
		w.t.Fatalf("%v in\n%s", err, text)
	}
	plan, err := pipeline.Compile(root, w.plugins(), w.labels)
	if err != nil {
		w.t.Fatalf("%v in\n%s", err, text)
	}
	plan.Resource.Attrs.Set("site", creel.String(w.labels["site"]))
	return plan
}

// engine returns an engine with a scheduler. It is drained when the test ends, and then nothing may be left.
func (w *world) engine() *pipeline.Engine {
	tasks := task.New(task.Options{Slice: time.Millisecond})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = tasks.Run(ctx) })
	var letters *deadletter.Store
	if w.letters {
		var err error
		if letters, err = deadletter.Open(filepath.Join(w.dir, "letters"), deadletter.Options{}); err != nil {
			w.t.Fatal(err)
		}
	}
	e := pipeline.New(pipeline.Options{
		Tasks: tasks, Memory: &w.memory, Metrics: metric.NewSet(), Patience: time.Minute, Spools: filepath.Join(w.dir, "spool"), Letters: letters, Tracer: w.tracer,
	})
	w.t.Cleanup(func() {
		if err := e.Drain(context.Background()); err != nil {
			w.t.Error(err)
		}
		if letters != nil {
			if err := letters.Close(); err != nil {
				w.t.Error(err)
			}
		}
		cancel()
		wg.Wait()
		w.mu.Lock()
		defer w.mu.Unlock()
		for key, n := range w.open {
			if n != 0 {
				w.t.Errorf("%d instances of %s are left open", n, key)
			}
		}
		if n := w.memory.Out(); n != 0 {
			w.t.Errorf("%d batches are not settled", n)
		}
	})
	return e
}

func (w *world) apply(e *pipeline.Engine, text string) report.Change {
	w.t.Helper()
	r, err := e.Apply(context.Background(), w.compile(text))
	if err != nil {
		w.t.Fatalf("%v in\n%s", err, text)
	}
	return r.Change
}

// await waits until a condition holds, which is looked at whenever records arrive.
func (w *world) await(what string, holds func() bool) {
	w.t.Helper()
	late := time.After(time.Minute)
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for {
		w.mu.Lock()
		ok := holds()
		w.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-w.received:
		case <-poll.C:
		case <-late:
			w.t.Fatalf("waited in vain: %s", what)
		}
	}
}
