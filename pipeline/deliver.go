package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
)

// Delivery is what stands in front of every exporter. It is the framework's, the same for all.
type Delivery struct {
	Queue       Queue         `doc:"What waits in memory for the exporter."`
	Batch       Batching      `doc:"How batches are gathered into one request."`
	Retry       Retry         `doc:"What happens when the far side cannot take a request."`
	Timeout     time.Duration `doc:"How long one attempt may take." default:"30s" min:"1ms"`
	Concurrency int           `doc:"Requests under way at the same time. 1 keeps the order." default:"4" min:"1" max:"256"`
}

// Queue bounds the queue.
type Queue struct {
	MaxBytes config.Size `doc:"Bytes of records that may wait. When it is full, collectors wait, or answer that they cannot take more." default:"16MiB" min:"64KiB"`
	WhenFull string      `doc:"What happens when it is full: collectors wait, and with them the pipeline's other exporters (block), or the oldest records are dropped, and counted (drop_oldest)." default:"block" enum:"block|drop_oldest"`
}

const dropOldest = "drop_oldest"

// Batching bounds one request.
type Batching struct {
	MaxBytes config.Size   `doc:"Bytes of records in one request; a single batch may be larger." default:"4MiB" min:"1KiB"`
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

// A sender takes from a queue and exports: one exporter's instance at work.
type sender struct {
	exporter creel.Exporter
	d        Delivery
	q        *queue
	log      *slog.Logger
	health   *health
	meter    *exportMeter

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
	for range s.d.Concurrency {
		s.work.Go(func() {
			var items []item
			for {
				var err error
				if items, err = s.q.take(stopped, s.d.Batch, items); err != nil {
					return
				}
				r := &request{sender: s, stopped: stopped, aborted: aborted}
				s.q.putBack(r.deliver(items))
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

// A request is what a sender took from the queue at once, on its way to be delivered.
type request struct {
	*sender
	stopped, aborted context.Context
	refused          int // records in a row, each alone in its attempt
}

// deliver exports items until each is delivered or dropped. When the sender is stopped before, it returns those that
// are neither.
func (r *request) deliver(items []item) (undone []item) {
	for failed := 1; ; failed++ {
		err := r.export(items)
		partial := (*creel.Partial)(nil)
		switch {
		case err == nil:
			r.refused = 0
			r.health.ok()
			for _, it := range items {
				it.settle(it.b.Len(), 0, nil)
			}
			return nil
		case errors.As(err, &partial):
			r.refused = 0
			r.health.ok()
			r.log.Warn("records rejected", "records", partial.Rejected, "reason", partial.Reason)
			reject(items, partial)
			return nil
		case creel.IsPermanent(err):
			return r.divide(items, err)
		}
		wait := r.d.Retry.pause(failed, err)
		r.health.fail(err)
		r.log.Warn("export failed, will retry", "attempt", failed, "wait", wait.Round(time.Millisecond), "error", err)
		timer := time.NewTimer(wait)
		select {
		case <-r.stopped.Done():
			timer.Stop()
			return items
		case <-timer.C:
		}
	}
}

// divide finds the records that were refused for good, by sending halves, and drops them.
func (r *request) divide(items []item, refusal error) (undone []item) {
	n := 0
	for _, it := range items {
		n += it.b.Len()
	}
	if n <= 1 || r.refused >= hopeless {
		r.refused += n
		r.logRefused(n, items[0].b.Signal(), refusal)
		r.health.fail(refusal)
		for _, it := range items {
			it.settle(0, it.b.Len(), refusal)
		}
		return nil
	}
	var left, right []item
	if len(items) > 1 {
		left, right = items[:len(items)/2:len(items)/2], items[len(items)/2:]
	} else {
		half := items[0]
		half.b = items[0].b.Split(items[0].b.Len() / 2)
		left, right = items[:1:1], []item{half}
	}
	undone = r.half(left, refusal)
	if r.stopped.Err() != nil {
		return append(undone, right...)
	}
	return append(undone, r.half(right, refusal)...)
}

// half delivers one half, unless that is hopeless.
func (r *request) half(items []item, refusal error) (undone []item) {
	if r.refused >= hopeless {
		return r.divide(items, refusal)
	}
	return r.deliver(items)
}

// settle ends the item's batch and enters its records into the account.
func (it item) settle(delivered, refused int, err error) {
	n := it.b.Len()
	it.acct.delivered.Add(int64(delivered))
	it.acct.dropped.add(Refused, refused)
	it.acct.queued.Add(int64(-n))
	creel.Settle(it.b, err)
}

func reject(items []item, p *creel.Partial) {
	left := p.Rejected
	for _, it := range items {
		n := min(left, it.b.Len())
		left -= n
		it.acct.dropped.add(Rejected, n)
		it.settle(it.b.Len()-n, 0, nil)
	}
}

// abandon gives up items that nobody decided against.
func abandon(items []item) (records int) {
	for _, it := range items {
		records += it.b.Len()
		it.acct.dropped.add(Abandoned, it.b.Len())
		it.settle(0, 0, creel.ErrAbandoned)
	}
	return records
}

// export makes one attempt. A call that does not return in time is given up on, and its batches' memory with it.
func (r *request) export(items []item) error {
	batches := make([]*creel.Batch, len(items))
	for i, it := range items {
		batches[i] = it.b
	}
	ctx, cancel := context.WithTimeout(r.aborted, r.d.Timeout)
	defer cancel()
	back := creel.Lend(batches)
	began := time.Now()
	result := make(chan error, 1)
	go func() {
		err := r.call(ctx, batches)
		back()
		result <- err
	}()
	err := r.await(ctx, result)
	r.meter.attempt(time.Since(began), err)
	return err
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
