package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/deadletter"
	"github.com/creelhq/creel/spool"
	"github.com/creelhq/creel/trace"
)

// Delivery is what stands in front of every exporter. It is the framework's, the same for all.
type Delivery struct {
	Queue       Queue         `doc:"What waits in memory for the exporter."`
	Batch       Batching      `doc:"How batches are gathered into one request."`
	RateLimit   RateLimit     `doc:"How much is sent in a second at most."`
	Breaker     Breaker       `doc:"Leaves a far side alone that mostly fails."`
	Retry       Retry         `doc:"What happens when the far side cannot take a request."`
	Timeout     time.Duration `doc:"How long one attempt may take." default:"30s" min:"1ms"`
	Concurrency int           `doc:"Requests under way at the same time. 1 keeps the order." default:"4" min:"1" max:"256"`
	Adaptive    Adaptive      `doc:"Concurrency that follows what the far side can take."`
	Spool       *Spool        `doc:"A disk queue, {} for one with its standard options. With it, records are safe as soon as they are there, unless their pipeline's ack says otherwise; and while the far side does not take them, they wait there."`
}

// Validate checks what must fit together.
func (d Delivery) Validate() error {
	if d.Spool != nil && d.Spool.Order == string(spool.InOrder) && d.Concurrency != 1 {
		return config.FieldError("spool.order", errors.New("in_order needs concurrency: 1"))
	}
	return nil
}

// Queue bounds the queue.
type Queue struct {
	MaxBytes config.Size `doc:"Bytes of records that may wait. When it is full, collectors wait, or answer that they cannot take more." default:"16MiB" min:"64KiB"`
	WhenFull string      `doc:"What happens when it is full: collectors wait, and with them the pipeline's other exporters (block), or the oldest records are dropped, and counted (drop_oldest)." default:"block" enum:"block|drop_oldest"`
}

const dropOldest = "drop_oldest"

// Batching bounds one request.
type Batching struct {
	MaxBytes config.Size   `doc:"Bytes of records in one request; a single batch may be larger. With a disk queue 1MiB counts if it is less." default:"4MiB" min:"1KiB"`
	MaxWait  time.Duration `doc:"How long records that nobody waits for may wait for company. Others are sent as soon as the exporter is idle." default:"200ms" min:"0s"`
}

// Retry sets the pause between attempts: random between nothing and a bound which doubles from Initial to Max (full
// jitter, as in Marc Brooker's "Exponential Backoff And Jitter"). There is no last attempt.
type Retry struct {
	Initial time.Duration `doc:"Bound of the first pause." default:"500ms" min:"1ms"`
	Max     time.Duration `doc:"Bound that the pauses grow to." default:"30s" min:"1ms"`
}

// pause returns how long to wait before the attempt after the given number of failed ones, of which the last ended in
// err.
func (r Retry) pause(failed int, err error) time.Duration {
	bound := r.Max
	if shift := failed - 1; shift < 32 && r.Initial<<shift > 0 {
		bound = min(bound, r.Initial<<shift)
	}
	wait := rand.N(bound + 1)
	if t := (*creel.Throttled)(nil); errors.As(err, &t) {
		wait += t.After
	}
	return wait
}

// overdue is how long a call of Export is waited for after its context is done, before it is given up on.
const overdue = 5 * time.Second

// hopeless is how many records in a row must be refused, each in a request of its own, before the rest of the original
// request is believed to be refused as well.
const hopeless = 64

// An outlet is where a sender takes from.
type outlet interface {
	// take waits for what is to be sent next; it fails only when ctx is done.
	take(ctx context.Context, b Batching) (*parcel, error)
	putBack(p *parcel)
}

// A sender takes from an outlet and exports: one exporter's instance at work.
type sender struct {
	exporter creel.Exporter
	id       string
	d        Delivery
	from     outlet
	store    *store            // nil: there is no disk queue
	letters  *deadletter.Store // nil: what is refused is dropped
	log      *slog.Logger
	health   *health
	tracer   *trace.Tracer
	meter    *exportMeter

	turn    chan struct{} // has an element while nobody is about to take from the queue
	limit   *limiter
	breaker *breaker
	window  *window

	successes atomic.Int64 // requests that the far side took

	asked atomic.Pointer[time.Time] // since when the far side has asked to wait, and taken nothing; nil: it has not

	work  sync.WaitGroup
	stop  context.CancelFunc // no more is taken, and pauses end
	abort context.CancelFunc // attempts under way end

	refusals struct { // that were logged
		sync.Mutex
		last   string
		at     time.Time
		silent int // records since, which were not
	}
}

func newSender(exporter creel.Exporter, d Delivery, q *queue, st *store, l *deadletter.Store, h creel.Host, state *health) *sender {
	now := time.Now()
	s := &sender{
		exporter: exporter, id: h.ID, d: d, from: q, store: st, letters: l, log: h.Log, tracer: h.Tracer, health: state, turn: make(chan struct{}, 1),
		limit: newLimiter(d.RateLimit, now), breaker: newBreaker(d.Breaker, now), window: newWindow(d.Adaptive, d.Concurrency, now),
	}
	if st != nil {
		s.from = st
	}
	s.turn <- struct{}{}
	s.meter = newExportMeter(h.Metrics, s)
	return s
}

// concurrency returns how many requests may be under way.
func (s *sender) concurrency() int {
	if s.window == nil {
		return s.d.Concurrency
	}
	return s.window.size()
}

// refusalsEvery is how often the same refusal is logged: each batch may meet with it.
const refusalsEvery = 10 * time.Second

// logRefused logs that n records were refused, and how many there were since the last time that it said so.
func (s *sender) logRefused(n int, signal creel.Signal, refusal error) {
	l := &s.refusals
	l.Lock()
	defer l.Unlock()
	now, text := time.Now(), refusal.Error()
	l.silent += n
	if text == l.last && now.Sub(l.at) < refusalsEvery {
		return
	}
	s.log.Error("records refused", "records", l.silent, "signal", signal.String(), "error", refusal)
	l.last, l.at, l.silent = text, now, 0
}

// start begins to send. Until halt has returned, the sender owns what it has taken.
func (s *sender) start() {
	aborted, abort := context.WithCancel(context.Background())
	stopped, stop := context.WithCancel(aborted)
	s.stop, s.abort = stop, abort
	workers := s.d.Concurrency
	if s.window != nil {
		workers = s.window.max
	}
	for range workers {
		s.work.Go(func() {
			for s.window.claim(stopped) == nil {
				r := &request{sender: s, stopped: stopped, aborted: aborted}
				if !r.take() {
					return
				}
				r.send()
				s.window.release()
			}
		})
	}
}

// halt stops sending. Attempts under way may end until ctx is done. What was not delivered is back in the queue.
func (s *sender) halt(ctx context.Context) {
	s.stop()
	cut := context.AfterFunc(ctx, s.abort)
	s.work.Wait()
	cut()
	s.abort()
}

// A request is a parcel on its way to be delivered.
type request struct {
	*sender
	parcel           *parcel
	stopped, aborted context.Context
	traced           context.Context // of the last attempt: what is logged of it says in which span
	failed           int             // attempts since the last that did not
	refused          int             // records in a row, each alone in its attempt
	paid             bool            // the next attempt is, to the limiter
}

// take waits for something that may be sent, and takes it; in vain if the sender is stopped before. What the limits or the
// breaker hold back stays where it is, where it gathers company, or is shed.
func (r *request) take() bool {
	select {
	case <-r.turn:
	case <-r.stopped.Done():
		return false
	}
	defer func() { r.turn <- struct{}{} }()
	if r.pay(load{}) != nil || r.breaker.await(r.stopped) != nil {
		return false
	}
	p, err := r.from.take(r.stopped, r.d.Batch)
	if err != nil {
		return false
	}
	if r.pay(loadOf(p.items)) != nil {
		r.from.putBack(p)
		return false
	}
	r.parcel, r.paid = p, true
	return true
}

// send delivers the parcel, as far as that is possible now.
func (r *request) send() {
	p := r.parcel
	p.items = r.deliver(p.items, p.id)
	if len(p.items) == 0 {
		p.done()
		return
	}
	if p.divided {
		p.id = newID()
	}
	r.from.putBack(p)
}

// pay waits for the rate limit; in vain if the sender is stopped before.
func (r *request) pay(weight load) error {
	if r.limit == nil {
		return nil
	}
	began := time.Now()
	err := r.limit.pay(r.stopped, weight)
	r.meter.limited.Add(int64(time.Since(began)))
	return err
}

// admit waits until an attempt with the items may be made. It may not when the sender is stopped or the breaker is open.
func (r *request) admit(items []item) (pass int, ok bool) {
	weight := loadOf(items)
	if !r.paid && r.pay(weight) != nil {
		return 0, false
	}
	r.paid = false
	if r.stopped.Err() == nil {
		pass, ok = r.breaker.enter(time.Now())
	}
	if !ok {
		r.limit.refund(weight)
	}
	return pass, ok
}

// deliver exports items, under one name, until each is delivered or decided on. It returns those that are neither when the
// sender is stopped before, or the breaker opens, or fewer requests are to be under way.
func (r *request) deliver(items []item, id creel.ID) (undone []item) {
	for successes := r.successes.Load(); ; {
		pass, ok := r.admit(items)
		if !ok {
			return items
		}
		err := r.export(items, id, pass)
		partial := (*creel.Partial)(nil)
		switch {
		case err == nil:
			r.succeeded()
			for _, it := range items {
				it.settle(it.b.Len(), 0, nil)
			}
			return nil
		case errors.As(err, &partial):
			r.succeeded()
			r.log.WarnContext(r.traced, "records rejected", "records", partial.Rejected, "reason", partial.Reason)
			reject(items, partial)
			return nil
		case creel.IsPermanent(err):
			r.failed = 0
			return r.divide(items, err)
		}
		r.failed++
		wait := r.d.Retry.pause(r.failed, err)
		r.fault(err, wait)
		if !r.rest(wait) {
			return items
		}
		switch {
		case !overloaded(err):
		case r.failed == 1: // it may have been taken all the same: under its own name it is recognised
		case records(items) > 1:
			return r.inHalves(items, nil)
		case r.letters != nil && r.failed >= stubborn && r.successes.Load() > successes:
			return r.divide(items, fmt.Errorf("too large, as it seems: others are taken, and this one never: %w", err))
		}
	}
}

// stubborn is how often a far side must call itself overloaded by one record, while it takes others, before that record is
// believed to be larger than it ever takes.
const stubborn = 6

// rest waits before the next attempt. It reports whether there is to be one: not if the sender is stopped, or the breaker
// opens, or fewer requests are to be under way.
func (r *request) rest(wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		down, changed := r.breaker.opens()
		if down {
			return false
		}
		select {
		case <-r.stopped.Done():
			return false
		case <-changed:
		case <-timer.C:
			return !r.window.over()
		}
	}
}

// overloaded reports whether the far side cannot take so much, without a word on when it can. That may be meant of the
// request's size: gRPC's RESOURCE_EXHAUSTED is.
func overloaded(err error) bool {
	t, ok := errors.AsType[*creel.Throttled](err)
	return ok && t.After == 0
}

func (r *request) succeeded() {
	r.failed, r.refused = 0, 0
	r.successes.Add(1)
	r.asked.Store(nil)
	if r.breaker.down() == nil {
		r.health.ok()
	}
}

// fault notes that an attempt failed.
func (r *request) fault(err error, wait time.Duration) {
	if down := r.breaker.down(); down != nil {
		r.health.fail(down)
		return // that was logged
	}
	if r.limits(err) {
		r.log.InfoContext(r.traced, "the far side asks to wait", "attempt", r.failed, "wait", wait.Round(time.Millisecond), "error", err)
		return // that is how it limits, and no fault
	}
	r.health.fail(err)
	r.log.WarnContext(r.traced, "export failed, will retry", "attempt", r.failed, "wait", wait.Round(time.Millisecond), "error", err)
}

// askedFor is how long a far side may ask to wait, and take nothing, before its exporter counts as unhealthy.
const askedFor = time.Minute

// limits reports whether err is no sign of illness: the far side is there, and says when it will take more.
func (s *sender) limits(err error) bool {
	if t, ok := errors.AsType[*creel.Throttled](err); !ok || t.After == 0 {
		return false
	}
	now := time.Now()
	s.asked.CompareAndSwap(nil, &now)
	since := s.asked.Load() // nil if another request was taken just now
	_, ill := s.health.get()
	return ill == nil && (since == nil || now.Sub(*since) < askedFor)
}

// divide finds the records that were refused for good, by sending halves, and drops them.
func (r *request) divide(items []item, refusal error) (undone []item) {
	n := records(items)
	if n > 1 && r.refused < hopeless {
		return r.inHalves(items, refusal)
	}
	r.refused += n
	r.logRefused(n, items[0].b.Signal(), refusal)
	r.health.fail(refusal)
	reason := Refused.String()
	if !creel.IsPermanent(refusal) {
		reason = "too_large"
	}
	for _, it := range items {
		if n := it.b.Len(); r.keepLetter(it, reason, refusal) {
			it.acct.deadLettered.Add(int64(n))
			it.settle(0, 0, nil)
		} else {
			it.settle(0, n, refusal)
		}
	}
	return nil
}

// inHalves delivers the items, which have more than one record, in two requests. With a refusal it does not try when
// that is hopeless.
func (r *request) inHalves(items []item, refusal error) (undone []item) {
	var left, right []item
	r.parcel.divided = true
	if half := len(items) / 2; half > 0 {
		left, right = items[:half:half], items[half:]
	} else {
		it := items[0]
		it.b = items[0].b.Split(items[0].b.Len() / 2)
		it.bytes /= 2
		items[0].bytes -= it.bytes
		left, right = items[:1:1], []item{it}
	}
	for _, half := range [][]item{left, right} {
		switch {
		case len(undone) > 0:
			undone = append(undone, half...)
		case refusal != nil && r.refused >= hopeless:
			undone = r.divide(half, refusal)
		default:
			undone = r.deliver(half, newID())
		}
	}
	return undone
}

// export makes one attempt, which the breaker has let through. A call that does not return in time is given up on, and
// its batches' memory with it.
func (r *request) export(items []item, id creel.ID, pass int) error {
	batches := make([]*creel.Batch, len(items))
	for i, it := range items {
		batches[i] = it.b
	}
	about := creel.Request{ID: id}
	if st := r.parcel.store; st != nil && !r.parcel.divided { // a part of it has no place of its own
		about.Log, about.Seq = st.spool.ID(), r.parcel.seq
	}
	ctx, cancel := context.WithTimeout(creel.WithRequest(r.aborted, about), r.d.Timeout)
	defer cancel()
	ctx, span := r.tracer.Start(ctx, "deliver", trace.Client)
	defer span.End()
	r.traced = ctx
	lent, back := creel.Lend(batches)
	r.window.begin()
	began := time.Now()
	result := make(chan error, 1)
	go func() {
		err := r.call(ctx, lent)
		back()
		result <- err
	}()
	err := r.await(ctx, result)
	if span != nil {
		what := loadOf(items)
		span.Set(slog.String("exporter", r.id), slog.Int64("records", int64(what[1])), slog.Int64("bytes", int64(what[2])), slog.Int("attempt", r.failed+1))
		span.Fail(err)
	}
	r.learn(items, pass, began, err, ctx.Err() == context.DeadlineExceeded)
	return err
}

// learn draws what there is to learn from an attempt; late: it has not come to an end in time.
func (r *request) learn(items []item, pass int, began time.Time, err error, late bool) {
	now := time.Now()
	took := now.Sub(began)
	r.meter.attempt(took, err)
	_, throttled := errors.AsType[*creel.Throttled](err)
	r.window.end(began, now, int64(loadOf(items)[2]), err == nil, throttled || err != nil && late)
	if err != nil && r.aborted.Err() != nil {
		return // our own doing
	}
	if !r.breaker.leave(pass, now, took, err) {
		return
	}
	if down := r.breaker.down(); down != nil {
		r.log.ErrorContext(r.traced, "the breaker has opened: nothing is sent for a while", "for", r.d.Breaker.OpenFor, "error", err)
	} else {
		r.log.Info("the breaker has closed")
		if r.store != nil {
			r.store.spool.Mark() // what has gathered meanwhile is the backlog
		}
	}
}

// await returns what came of a call, and gives it up some time after its context is done.
func (r *request) await(ctx context.Context, result <-chan error) error {
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
	}
	late := time.NewTimer(overdue)
	defer late.Stop()
	select {
	case err := <-result:
		return err
	case <-late.C:
		r.meter.overdue.Inc()
		r.parcel.overdue = true
		return fmt.Errorf("export: no return %v after its deadline", overdue)
	}
}

func (s *sender) call(ctx context.Context, batches []*creel.Batch) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("export: panic: %v\n%s", p, debug.Stack())
		}
	}()
	return s.exporter.Export(ctx, batches)
}
