package pressure

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/creelhq/creel/metric"
)

// How often memory is looked at: seldom while there is no pressure. Whoever has used up what was granted looks as well.
const (
	seldom = 500 * time.Millisecond
	often  = 50 * time.Millisecond
)

// stale is how old what is known to be in use may be under pressure: when nobody takes anything, nobody makes garbage, and
// nothing would be collected, and found to be free.
const stale = time.Second

// Garbage is collected on purpose for one part in share of the time at most, and with pauses.
const (
	share = 10
	pause = 2 * time.Millisecond
)

// A Guard watches the memory of this process. Its methods may be called concurrently.
type Guard struct {
	set  func(Order) // is called with mu held
	log  *slog.Logger
	read func() (r Reading, collections uint64)
	free func(give bool) // collects garbage, and gives back to the system what is free
	poke chan struct{}   // gets an element when Run is to look at once

	mu      sync.Mutex // guards what follows
	limit   int64      // 0: none
	last    Reading
	order   Order
	control Controller
	seen    uint64    // collections
	fresh   time.Time // when the last of them was seen
	next    time.Time // when garbage may be collected on purpose again
	since   time.Time // when pressure began
	before  int64     // the runtime's limit, before ours
	ours    int64     // 0: not set
}

// NewGuard returns a Guard that gives set its orders, in their order, and tells log when pressure begins and ends. It is shown
// in metrics. set must not call the Guard.
func NewGuard(set func(Order), log *slog.Logger, metrics *metric.Set) *Guard {
	g := &Guard{set: set, log: log, read: NewMeter().Read, free: collect, poke: make(chan struct{}, 1)}
	metrics.GaugeFunc("creel.agent.memory.usage", "Memory that the agent has from the system, as pressure counts it.", "By", func() float64 {
		r, _ := NewMeter().Read()
		return float64(r.Used)
	})
	metrics.GaugeFunc("creel.agent.memory.limit", "Memory that the agent may have; 0: there is no limit.", "By", func() float64 {
		g.mu.Lock()
		defer g.mu.Unlock()
		return float64(g.limit)
	})
	metrics.GaugeFunc("creel.agent.pressure", "How scarce memory is: pipelines whose priority is lower take nothing. 0: there is enough, 10: nothing is taken.", "1", func() float64 {
		g.mu.Lock()
		defer g.mu.Unlock()
		return float64(g.order.Level)
	})
	return g
}

// Limit says how many bytes the process may have; 0: as many as it wants. The runtime is asked to collect garbage so that it
// stays below, unless the environment's GOMEMLIMIT or a lower limit asks it for something else.
func (g *Guard) Limit(bytes int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.limit = bytes
	g.release()
	g.wake()
	if _, theirs := os.LookupEnv("GOMEMLIMIT"); bytes > 0 && !theirs {
		if now := debug.SetMemoryLimit(-1); bytes*soft/1000 < now {
			g.before, g.ours = now, bytes*soft/1000
			debug.SetMemoryLimit(g.ours)
		}
	}
}

func (g *Guard) wake() {
	select {
	case g.poke <- struct{}{}:
	default:
	}
}

func collect(give bool) {
	if give {
		debug.FreeOSMemory()
		return
	}
	runtime.GC()
}

// release gives the runtime back the limit that it had.
func (g *Guard) release() {
	if g.ours != 0 && debug.SetMemoryLimit(-1) == g.ours {
		debug.SetMemoryLimit(g.before)
	}
	g.ours = 0
}

// Run watches until ctx is done. Then there is no pressure any more, and the runtime has the limit that it had before.
func (g *Guard) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	told := 0 // the highest level, of the pressure that the log knows of
	for {
		select {
		case <-ctx.Done():
			g.Limit(0)
			g.More()
			g.tell(&told)
			return
		case <-g.poke:
		case <-timer.C:
		}
		g.More()
		g.tell(&told)
		timer.Reset(g.collect())
	}
}

// More looks at once, and gives an order unless it is to wait, and that is known.
func (g *Guard) More() {
	g.mu.Lock()
	defer g.mu.Unlock()
	now, before := time.Now(), g.order
	switch {
	case g.limit > 0:
		r, collections := g.read()
		if collections != g.seen {
			g.seen, g.fresh = collections, now
		}
		g.last = r
		g.order = g.control.Observe(now, r, g.limit)
	case before == Order{}:
		return
	default:
		g.order, g.control = Order{}, Controller{}
	}
	if g.order.Collect {
		g.wake()
	}
	if before.Level == 0 && g.order.Level > 0 {
		g.since = now
	}
	if g.order.Grant > 0 || g.order != before {
		g.set(g.order)
	}
}

// collect collects garbage if that is called for, and returns when to look again.
func (g *Guard) collect() time.Duration {
	g.mu.Lock()
	now := time.Now()
	r, limit := g.last, g.limit
	due := g.order.Collect || g.order.Level > 0 && now.Sub(g.fresh) >= stale
	wait := seldom
	switch {
	case limit <= 0:
		wait = math.MaxInt64
	case due:
		wait = min(often, max(0, g.next.Sub(now)))
	case g.order.Level > 0:
		wait = often
	}
	g.mu.Unlock()
	if !due || wait > 0 {
		return wait
	}
	g.free(onUsed.level(r.Used, limit) > onLive.level(r.Live, limit))
	g.mu.Lock()
	g.fresh = time.Now()
	g.next = g.fresh.Add(max(pause, share*g.fresh.Sub(now)))
	g.mu.Unlock()
	return 0
}

// tell logs when pressure begins and ends.
func (g *Guard) tell(told *int) {
	g.mu.Lock()
	level, since, r, limit := g.order.Level, g.since, g.last, g.limit
	g.mu.Unlock()
	switch {
	case *told == 0 && level > 0:
		g.log.Warn("memory is scarce: pipelines take less, those of low priority first", "used", r.Used, "live", r.Live, "limit", limit, "nothing_below_priority", level)
	case *told > 0 && level == 0:
		g.log.Info("there is enough memory again", "used", r.Used, "live", r.Live, "limit", limit, "took", time.Since(since).Round(time.Millisecond), "highest_level", *told)
		*told = 0
		return
	}
	*told = max(*told, level)
}

// Scarce returns what there is to say while memory is scarce, and since when it is; "" while there is enough.
func (g *Guard) Scarce() (what string, since time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.order.Level == 0 || g.limit <= 0 {
		return "", time.Time{}
	}
	who := fmt.Sprintf("pipelines below priority %d take nothing", g.order.Level)
	if g.order.Level == Full {
		who = "no pipeline takes anything"
	}
	return fmt.Sprintf("%d %% of %s: %s", g.last.Used*100/g.limit, size(g.limit), who), g.since
}

func size(n int64) string {
	if n >= 10<<30 {
		return fmt.Sprintf("%.0f GiB", float64(n)/(1<<30))
	}
	return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20))
}
