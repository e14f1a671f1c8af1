package pipeline

import (
	"context"
	"sync"
	"time"
)

// Adaptive lets an exporter find out how many requests at the same time are best.
type Adaptive struct {
	Enabled bool `doc:"Whether concurrency is only where it starts: it is raised while more is delivered in a second for it, and halved when the far side is overloaded. Without effect if concurrency is 1, which keeps the order." default:"false"`
	Max     int  `doc:"The most that it is raised to." default:"64" min:"1" max:"256"`
}

// A window says how many requests may be under way: additive increase, multiplicative decrease, as TCP has it. A nil
// window lets everybody through.
//
// Requests are looked at in rounds. A round counts only if most places were taken: otherwise more change nothing. After one, the limit is raised a step; the next must bring half of what the step promised, or
// the step is taken back and not tried again for a while. It is not raised while requests take much longer than the
// fastest round's, and lowered a step instead: what is sent more then only waits at the far side.
type window struct {
	max   int
	slots chan struct{} // the places that are free

	mu     sync.Mutex
	limit  int
	debt   int // places that are taken, but are not to be when they are given back
	active int // requests that are being tried
	fast   bool
	falls  bool      // it was halved, and more than that are still under way
	cut    time.Time // they no longer were; what began before says nothing new
	round  round

	base  int           // the limit before the step that is being tried; 0 if none is
	best  float64       // bytes per second that it gave
	floor time.Duration // what a request of the fastest round took; creeps up, for the far side may have changed
	rest  int           // rounds until a step is tried
	worse int           // the limit at which the far side was overloaded; 0 when that may be tried again
}

// round is what happened since its beginning.
type round struct {
	began time.Time
	done  int // requests delivered
	bytes int64
	took  time.Duration // sum
}

const (
	restRounds = 20 // without a step, when one did not help
	farAbove   = 3  // times the fastest round: waiting at the far side
	busy       = .7 // share of the places taken that counts as all
)

// newWindow returns one with room for the given number of requests.
func newWindow(c Adaptive, concurrency int, now time.Time) *window {
	if !c.Enabled || concurrency == 1 {
		return nil
	}
	w := &window{max: c.Max, slots: make(chan struct{}, c.Max), fast: true, round: round{began: now}}
	w.set(min(concurrency, c.Max))
	return w
}

// claim waits for a place, or until ctx is done.
func (w *window) claim(ctx context.Context) error {
	if w == nil {
		return nil
	}
	select {
	case <-w.slots:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// release gives a place back.
func (w *window) release() {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.debt > 0 {
		w.debt--
		return
	}
	w.slots <- struct{}{}
}

// over reports whether more places are taken than there are to be.
func (w *window) over() bool {
	if w == nil {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.debt > 0
}

// size returns how many requests may be under way.
func (w *window) size() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.limit
}

// set changes the limit.
func (w *window) set(limit int) {
	for limit = min(max(limit, 1), w.max); w.limit < limit; w.limit++ {
		if w.debt > 0 {
			w.debt--
		} else {
			w.slots <- struct{}{}
		}
	}
	for ; w.limit > limit; w.limit-- {
		select {
		case <-w.slots:
		default:
			w.debt++
		}
	}
}

// begin notes that a request is tried.
func (w *window) begin() {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.active++
}

// end notes what came of a request that began then: delivered, or the far side is overloaded, or neither.
func (w *window) end(began, now time.Time, bytes int64, delivered, overloaded bool) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.active--
	if w.falls && w.active <= w.limit {
		w.falls, w.cut, w.round = false, now, round{began: now}
	}
	if overloaded && !w.falls && !began.Before(w.cut) {
		w.worse = w.limit
		w.set(w.limit / 2)
		w.falls, w.fast, w.base, w.rest = true, false, 0, 0
	}
	if !delivered || w.falls || began.Before(w.round.began) {
		return // of a round that had another limit
	}
	r := &w.round
	r.done++
	r.bytes += bytes
	r.took += now.Sub(began)
	if r.done < max(8, 4*w.limit) {
		return
	}
	// Little's law: on average so many were under way as are delivered in the time that each takes. If those are all that
	// may be, what is delivered in a second is their number by that time; counting it would be less exact.
	if taken := float64(r.took) / float64(max(now.Sub(r.began), 1)); taken > busy*float64(w.limit) {
		w.judge(float64(w.limit)*float64(r.bytes)/max(r.took, 1).Seconds(), r.took/time.Duration(r.done))
	}
	w.round = round{began: now}
}

// judge draws the conclusions of a round.
func (w *window) judge(rate float64, took time.Duration) {
	if w.floor == 0 || took < w.floor {
		w.floor = took
	}
	w.floor += w.floor / 64
	if w.base > 0 {
		promised := float64(w.limit) / float64(w.base)
		helped := rate >= w.best*(1+(promised-1)/2)
		if !helped {
			w.set(w.base)
			w.base, w.fast, w.rest = 0, false, restRounds
			return
		}
	}
	w.base, w.best = 0, rate
	step := 1
	if w.fast {
		step = max(1, w.limit/2)
	}
	switch {
	case took > farAbove*w.floor:
		w.set(w.limit - max(1, w.limit/4))
		w.fast = false
	case w.rest > 0:
		w.rest--
	case w.limit+step == w.worse: // as near as it gets for now
		w.worse, w.rest = 0, restRounds
	case w.limit < w.max:
		w.base = w.limit
		w.set(w.limit + step)
	}
}
