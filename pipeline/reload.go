package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/url"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/metric"
	"github.com/creelhq/creel/report"
)

// A part is one instance of a component.
type part struct {
	comp   Component
	opened any
	log    *slog.Logger
	meters *metric.Set
	lease  *lease
}

// end closes the instance.
func (p *part) end() {
	defer p.meters.Close()
	closer, ok := p.opened.(io.Closer)
	if !ok {
		return
	}
	if err := safely(closer.Close); err != nil {
		p.log.Warn("component does not close cleanly", "error", err)
	}
}

// safely calls f, and makes an error of a panic.
func safely(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	return f()
}

// own returns the plugin's own part of c's options.
func (c Component) own() []byte { return c.Plugin.Config.Pick(c.Options) }

// common returns the framework's part of c's options.
func common[T any](c Component) T {
	t, err := config.Decode[T](config.Of[T]().Pick(c.Options))
	if err != nil {
		panic("BUG: checked options do not decode: " + err.Error())
	}
	return t
}

// A reload is one Apply.
type reload struct {
	e         *Engine
	old, next *Plan
	change    report.Change
	over      context.Context // when it is done, there is no time to wait for what does not end

	sources []*source // opened
	stages  []*stage
	exports []*export

	oldSources []*source // to be closed
	oldStages  []*stage
	oldExports []*instance // of exporters that go on
	oldStores  []*store    // of exporters that go on without
	gone       []*export

	inHand int64 // records, when the next generation took the place of the old one

	mu     sync.Mutex // guards what follows
	still  time.Duration
	leaked []string // keys of components
}

// lastMoment is how long a component that is asked to end still has when time is over.
const lastMoment = 100 * time.Millisecond

// awaits waits until done is closed, which is the end of a component or of something that it does. It reports false when
// that takes longer than it may.
func (r *reload) awaits(done <-chan struct{}) bool {
	late := time.NewTimer(r.e.Closing)
	defer late.Stop()
	select {
	case <-done:
		return true
	case <-late.C:
		return false
	case <-r.over.Done():
	}
	last := time.NewTimer(lastMoment)
	defer last.Stop()
	select {
	case <-done:
		return true
	case <-late.C:
	case <-last.C:
	}
	return false
}

// leave leaves an instance behind which does not do what it must. Nobody finds the way to it any more.
func (r *reload) leave(p *part, why string) {
	p.lease.revoke()
	r.e.leaks.Inc()
	p.log.Error("component is left behind: "+why, "waited", r.e.Closing)
	r.mu.Lock()
	r.leaked = append(r.leaked, p.comp.Key())
	r.mu.Unlock()
}

// end closes instances, all at the same time. Those that do not end are left behind.
func (r *reload) end(parts ...*part) {
	var wg sync.WaitGroup
	for _, p := range parts {
		wg.Go(func() {
			done := make(chan struct{})
			go func() {
				defer close(done)
				p.end()
			}()
			if !r.awaits(done) {
				r.leave(p, "its Close does not return")
			}
		})
	}
	wg.Wait()
}

func (r *reload) opens(c Component) bool {
	return slices.Contains(r.change.Open, c.Key()) || slices.Contains(r.change.Reopen, c.Key())
}

// An opening is an instance that is being opened.
type opening struct {
	part
	host   creel.Host
	result chan error // gets an element; opened is set by then
}

// openUnlessDraining is open that is given up when Drain is called.
func (r *reload) openUnlessDraining(ctx context.Context) error {
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	defer context.AfterFunc(r.e.ending, func() { giveUp(errDraining) })()
	return r.open(ctx)
}

// open opens everything new, at the same time. When something fails, or does not end in time, what was opened is closed again.
func (r *reload) open(ctx context.Context) error {
	leaving := make(map[string]bool)
	for _, key := range slices.Concat(r.change.Close, r.change.Reopen) {
		leaving[key] = true
	}
	r.e.sockets.begin(leaving)
	ctx, cancel := context.WithTimeoutCause(ctx, r.e.Opening, fmt.Errorf("it has taken longer than %v and was given up", r.e.Opening))
	defer cancel()
	var list []*opening
	for c := range r.next.Components() {
		if r.opens(c) {
			list = append(list, r.begin(c))
		}
	}
	var errs []error
	for _, o := range list {
		if err := r.adopt(ctx, o); err != nil {
			errs = append(errs, fmt.Errorf("open %s: %w", o.comp.Path(), err))
		}
	}
	if len(errs) == 0 {
		return nil
	}
	var parts []*part
	for _, s := range r.sources {
		parts = append(parts, &s.part)
	}
	for _, st := range r.stages {
		parts = append(parts, &st.part)
	}
	for _, x := range r.exports {
		parts = append(parts, &x.part)
		if x.opened {
			x.store.abort()
		}
	}
	r.end(parts...)
	return errors.Join(errs...)
}

// begin begins to open an instance of c.
func (r *reload) begin(c Component) *opening {
	log := r.e.Log.With("component", c.Path())
	labels := []metric.Label{{Name: "component", Value: c.Path()}}
	if c.Pipeline != "" {
		log = log.With("pipeline", c.Pipeline)
		labels = append(labels, metric.Label{Name: "pipeline", Value: c.Pipeline})
	}
	o := &opening{part: part{comp: c, log: log, meters: r.e.Metrics.Sub(labels...), lease: r.e.sockets.of(c.Key())}, result: make(chan error, 1)}
	o.host = creel.Host{
		ID: c.ID, Log: log, Metrics: o.meters, Tracer: r.e.Tracer.With(slog.String("component", c.Path())), Memory: r.e.Memory, Resource: r.next.Resource,
		Sockets: o.lease, Outputs: make(map[string]creel.Next), Sender: r.e.Sender, Admission: r.e.Admission, Identity: r.e.Identity, Hubs: r.e.Hubs,
	}
	h := &o.host
	h.Sender.Exporter = c.ID
	if r.e.State != nil {
		document := ""
		if c.Plugin.Portable {
			document = r.next.Documents[c.ID].Name
		}
		h.State = r.e.State(c.Key(), document)
	}
	h.Taken = r.e.taken(c)
	if r.e.Self != nil {
		h.Self = selfView{r.e.Self, r.e, c}
	}
	for _, ref := range c.refs {
		if ref.Kind == "pipeline" {
			h.Outputs[ref.Name] = &output{r.e, c.Pipeline, r.e.books.book(c.Pipeline), ref.Name}
		}
	}
	go func() {
		o.result <- safely(func() (err error) {
			o.opened, err = c.Plugin.Open(c.own(), o.host)
			return err
		})
	}()
	return o
}

// adopt waits until o is open, and makes it one of the reload's.
func (r *reload) adopt(ctx context.Context, o *opening) (err error) {
	select {
	case err = <-o.result:
	case <-ctx.Done():
		select {
		case err = <-o.result:
		default:
			o.giveUp()
			return context.Cause(ctx)
		}
	}
	if err != nil {
		o.meters.Close()
		return err
	}
	h, c := o.host, o.comp
	health := &health{work: r.e.books.work(c.Key())}
	switch c.Plugin.Kind {
	case creel.KindCollector:
		s := &source{
			part: o.part, e: r.e, collector: o.opened.(creel.Collector), salt: salt(c), health: health, tracer: h.Tracer, settled: make(chan struct{}), edge: r.e.edges.of(c.Key(), false),
		}
		meterCollector(h.Metrics, health.work)
		if c.Plugin.Polled {
			s.schedule = common[Schedule](c)
		}
		r.sources = append(r.sources, s)
	case creel.KindProcessor:
		st := &stage{
			part: o.part, id: c.Key(), proc: o.opened.(creel.Processor), health: health, book: r.e.books.book(c.Pipeline),
			before: r.e.edges.of(c.Key(), true), after: r.e.edges.of(c.Key(), false),
		}
		if _, ok := o.opened.(creel.Runner); ok {
			st.held = creel.NewStandingCustody()
		}
		r.stages = append(r.stages, st)
	case creel.KindExporter:
		x, err := r.newExport(o, health)
		if err != nil {
			r.end(&o.part)
			return err
		}
		r.exports = append(r.exports, x)
	}
	return nil
}

// giveUp lets an instance go that has not opened in time. Should it do so after all, it is closed.
func (o *opening) giveUp() {
	o.lease.revoke()
	go func() {
		if <-o.result != nil {
			o.meters.Close()
			return
		}
		o.log.Warn("component has opened after it was given up, and is closed")
		o.end()
	}()
}

func (r *reload) newExport(o *opening, state *health) (x *export, err error) {
	c, h := o.comp, o.host
	d := common[Sending](c).Delivery
	x = &export{instance: &instance{part: o.part, health: state}}
	old := r.e.exports[c.ID]
	if old != nil {
		x.queue, x.gauges = old.queue, old.gauges
	} else {
		x.queue = newQueue(d.Queue)
	}
	switch {
	case d.Spool == nil:
	case old != nil && old.store != nil:
		x.store = old.store
	case r.e.Spools == "":
		return nil, errors.New("open disk queue: there is no state directory to put it in")
	default:
		x.store, err = openStore(filepath.Join(r.e.Spools, url.PathEscape(c.ID)), *d.Spool, x.queue, r.e.books.spool(c.ID), h.Log)
		if err != nil {
			return nil, err
		}
		x.opened = true
	}
	if old == nil {
		x.gauges = r.e.Metrics.Sub(metric.Label{Name: "component", Value: c.Path()})
		meterQueue(x.gauges, x.queue)
	}
	x.sender = newSender(o.opened.(creel.Exporter), d, x.queue, x.store, r.e.Letters, h, x.health)
	return x, nil
}

// rewire puts the next generation in place, downstream first. What it replaces or leaves out is noted, to be closed.
func (r *reload) rewire(ctx context.Context) {
	e := r.e
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, x := range r.exports {
		if old := e.exports[x.comp.ID]; old != nil {
			r.oldExports = append(r.oldExports, old.instance)
			old.sender.stop()
			if x.sender.d.Concurrency == 1 {
				old.sender.halt(ctx) // the order is kept
			}
			x.queue.reconfigure(x.sender.d.Queue)
			if old.store != nil && x.store == nil {
				r.oldStores = append(r.oldStores, old.store)
				x.queue.keep(false)
			}
		}
		e.exports[x.comp.ID] = x
		x.start()
	}
	r.inHand = e.inHand()
	for _, c := range r.old.Processors { // in flow order, as pipelines are
		if st := e.stages[c.Key()]; st != nil && !slices.Contains(r.change.Keep, c.Key()) {
			r.oldStages = append(r.oldStages, st)
			st.last.Store(true)
			delete(e.stages, c.Key())
		}
	}
	for _, st := range r.stages {
		e.stages[st.id] = st
	}
	for _, c := range r.old.Collectors {
		if s := e.sources[c.ID]; s != nil && !slices.Contains(r.change.Keep, c.Key()) {
			r.oldSources = append(r.oldSources, s)
			delete(e.sources, c.ID)
		}
	}
	for _, s := range r.sources {
		e.sources[s.comp.ID] = s
	}
	next := e.build(r.next)
	for _, st := range r.stages {
		st.start()
	}
	e.stalled.Store(0)
	old := e.current.Load()
	e.previous.Store(old)
	e.current.Store(next)
	close(old.next)
	e.fencing.Reset(0)
	for _, c := range r.old.Exporters {
		if !slices.ContainsFunc(r.next.Exporters, func(n Component) bool { return n.ID == c.ID }) {
			r.gone = append(r.gone, e.exports[c.ID])
		}
	}
}

// replace starts what is new, and ends what is not part of the new plan, in flow order. A collector that is reopened begins
// when all that its predecessor has sent is settled, or ctx is done.
func (r *reload) replace(ctx context.Context) {
	stopped := r.stopSources()
	successors := make(map[string]*source)
	for _, s := range r.sources {
		if stopped[s.comp.ID].IsZero() {
			s.begin()
		} else {
			successors[s.comp.ID] = s
		}
	}
	closed := r.closeStages()
	var wg, exports sync.WaitGroup
	wg.Go(func() { r.end(closed...) })
	exports.Go(func() { r.closeExports(ctx) })
	for _, x := range r.gone {
		exports.Go(func() { r.drain(ctx, x) })
	}
	for _, s := range r.oldSources {
		wg.Go(func() {
			if !s.rest(ctx) {
				exports.Wait() // which brings the last acknowledgements
			}
			if !s.left.Load() {
				r.end(&s.part)
			}
			if next := successors[s.comp.ID]; next != nil {
				next.begin()
				r.stood(time.Since(stopped[s.comp.ID]))
			}
		})
	}
	wg.Wait()
	exports.Wait()
	r.stood(time.Duration(r.e.stalled.Load()))
}

// stood notes that one collector's way into its pipelines has stood still for so long.
func (r *reload) stood(d time.Duration) {
	r.mu.Lock()
	r.still = max(r.still, d)
	r.mu.Unlock()
}

// stopSources stops the collectors that are gone, and returns since when each, by id, sends nothing.
func (r *reload) stopSources() map[string]time.Time {
	var wg sync.WaitGroup
	since := make(map[string]time.Time)
	for _, s := range r.oldSources {
		since[s.comp.ID] = time.Now()
		wg.Go(func() {
			returned := s.end()
			if r.awaits(returned) {
				return
			}
			s.left.Store(true)
			r.leave(&s.part, "its Collect does not return")
			go func() {
				<-returned
				s.part.end()
			}()
		})
	}
	wg.Wait()
	return since
}

// closeStages waits until the last batch has left the old generation, and ends the processors that are gone, but for
// closing them: it returns those that are to be closed.
func (r *reload) closeStages() (closed []*part) {
	e := r.e
	defer e.previous.Store(nil)
	old := e.previous.Load()
	old.close()
	if !r.awaits(old.empty) {
		for _, st := range r.oldStages {
			e.linger(st, true)
			r.leave(&st.part, "a batch does not come out of the pipeline")
		}
		go func() {
			<-old.empty
			for _, st := range r.oldStages {
				<-st.halt()
				st.settle()
				e.linger(st, false)
				st.part.end()
			}
		}()
		return nil
	}
	for _, st := range r.oldStages {
		returned := st.halt()
		if r.awaits(returned) {
			st.settle()
			closed = append(closed, &st.part)
			continue
		}
		e.linger(st, true)
		r.awaits(st.cutOff())
		r.leave(&st.part, "its Run does not return")
		go func() {
			<-returned
			st.settle()
			e.linger(st, false)
			st.part.end()
		}()
	}
	return closed
}

// linger notes a stage that was left behind, which may hold records, for as long as that is so.
func (e *Engine) linger(st *stage, does bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if does {
		e.lingering = append(e.lingering, st)
		return
	}
	e.lingering = slices.DeleteFunc(e.lingering, func(other *stage) bool { return other == st })
}

// closeExports ends the instances, and the disk queues, that exporters which go on have no more.
func (r *reload) closeExports(ctx context.Context) {
	var wg sync.WaitGroup
	for _, in := range r.oldExports {
		wg.Go(func() {
			in.sender.halt(ctx)
			r.end(&in.part)
		})
	}
	wg.Wait()
	for _, st := range r.oldStores {
		st.halt()
		if waiting, left := st.close(nil); waiting > 0 || len(left) > 0 {
			st.log.Warn("the exporter has no disk queue any more, but what waits in it stays: give it one again, or take it out with: creel spool export "+st.dir,
				"records", waiting, "directory", st.dir, "abandoned", abandon(left))
		}
	}
}

// drain empties the queue of an exporter that is removed: what its far side does not take in time stays in its disk queue.
func (r *reload) drain(ctx context.Context, x *export) {
	if x.store != nil {
		r.flush(ctx, x)
		x.store.setHurry()
	}
	err := x.queue.emptied(ctx)
	x.sender.halt(ctx)
	if x.store != nil {
		x.store.halt()
	}
	left := x.queue.end()
	if x.store != nil {
		var waiting int64
		switch waiting, left = x.store.close(left); {
		case waiting > 0 && r.e.draining():
			x.sender.log.Info("records wait in the disk queue", "records", waiting, "directory", x.store.dir)
		case waiting > 0:
			x.sender.log.Warn("the exporter is removed, but what waits in its disk queue stays: bring it back, or take it out with: creel spool export "+x.store.dir,
				"records", waiting, "directory", x.store.dir)
		}
	}
	if n := abandon(left); n > 0 {
		x.sender.log.Error("records abandoned: they were not delivered in time", "records", n, "error", err)
	}
	r.end(&x.part)
	x.gauges.Close()
	r.e.mu.Lock()
	delete(r.e.exports, x.comp.ID)
	r.e.mu.Unlock()
}

// flush waits for what waits at an exporter, on disk as well, as long as its far side takes it.
func (r *reload) flush(ctx context.Context, x *export) {
	least, at := int64(math.MaxInt64), time.Now()
	for ctx.Err() == nil && x.sender.breaker.down() == nil && time.Since(at) < patience {
		switch n := r.e.books.waiting(x.comp.ID); {
		case n == 0:
			return
		case n < least:
			least, at = n, time.Now()
		}
		_ = pause(ctx, 5*time.Millisecond)
	}
}

// start lets x work. What it takes over from its predecessor works already.
func (x *export) start() {
	if x.store != nil {
		x.store.breaker.Store(x.sender.breaker)
		x.store.configure(*x.sender.d.Spool, x.sender.d.Batch)
		if x.opened {
			meterStore(x.gauges, x.store)
			x.store.start()
		}
	}
	x.sender.start()
}

// receipt says what has become of the reload so far.
func (r *reload) receipt(began time.Time) report.Receipt {
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.SortFunc(r.leaked, cmp.Compare)
	return report.Receipt{Change: r.change, Took: time.Since(began), Still: r.still, InHand: r.inHand, Leaked: slices.Compact(r.leaked)}
}
