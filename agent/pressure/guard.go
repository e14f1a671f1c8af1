package pressure

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/creelhq/creel/metric"
)

// How often memory is looked at: seldom while less than half of it is used.
const (
	seldom = 500 * time.Millisecond
	often  = 50 * time.Millisecond
)

// stale is how old what is known to be in use may be under pressure: when nobody takes anything, nobody makes garbage, and
// nothing would be collected, and found to be free.
const stale = time.Second

// A Guard watches the memory of this process. Its methods may be called concurrently.
type Guard struct {
	set   func(level int)
	log   *slog.Logger
	read  func() (r Reading, collections uint64)
	free  func()        // collects garbage, and gives back what is free
	began chan struct{} // gets an element when there is a limit where there was none

	mu      sync.Mutex // guards what follows
	limit   int64      // 0: none
	last    Reading
	level   int
	control Controller
	seen    uint64    // collections
	fresh   time.Time // when the last of them was seen, or asked for
	since   time.Time // when pressure began
	highest int       // level since then
	before  int64     // the runtime's limit, before ours
	ours    int64     // 0: not set
}

// NewGuard returns a Guard that tells set each level that is not the last, and log when pressure begins and ends. It is shown
// in metrics.
func NewGuard(set func(level int), log *slog.Logger, metrics *metric.Set) *Guard {
	g := &Guard{set: set, log: log, read: NewMeter().Read, free: debug.FreeOSMemory, began: make(chan struct{}, 1)}
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
		return float64(g.level)
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
	if bytes <= 0 {
		return
	}
	if _, theirs := os.LookupEnv("GOMEMLIMIT"); !theirs {
		if now := debug.SetMemoryLimit(-1); bytes*soft/1000 < now {
			g.before, g.ours = now, bytes*soft/1000
			debug.SetMemoryLimit(g.ours)
		}
	}
	select {
	case g.began <- struct{}{}:
	default:
	}
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
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.release()
		g.enter(time.Now(), 0)
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.began:
		case <-timer.C:
		}
		timer.Reset(g.look(time.Now()))
	}
}

// look reads once, and returns when to look again.
func (g *Guard) look(now time.Time) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.limit <= 0 && g.level == 0 {
		return math.MaxInt64
	}
	r, collections := g.read()
	if collections != g.seen {
		g.seen, g.fresh = collections, now
	}
	g.last = r
	g.enter(now, g.control.Observe(now, r, g.limit))
	if g.level > 0 && now.Sub(g.fresh) >= stale {
		g.fresh = now
		g.mu.Unlock()
		g.free()
		g.mu.Lock()
		return 0
	}
	if g.level == 0 && r.Used < g.limit/2 {
		return seldom
	}
	return often
}

// enter notes a level, and tells of it if it is another.
func (g *Guard) enter(now time.Time, level int) {
	if level == g.level {
		return
	}
	before := g.level
	g.level = level
	g.set(level)
	switch {
	case before == 0:
		g.since, g.highest = now, level
		g.log.Warn("memory is scarce: pipelines take less, those of low priority first",
			"used", g.last.Used, "live", g.last.Live, "limit", g.limit, "takes_nothing_below_priority", level)
	case level == 0:
		g.log.Info("there is enough memory again", "used", g.last.Used, "live", g.last.Live, "limit", g.limit,
			"took", now.Sub(g.since).Round(time.Millisecond), "highest", g.highest)
	}
	g.highest = max(g.highest, level)
}

// Scarce returns what there is to say while memory is scarce, and since when it is; "" while there is enough.
func (g *Guard) Scarce() (what string, since time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.level == 0 || g.limit <= 0 {
		return "", time.Time{}
	}
	who := fmt.Sprintf("pipelines below priority %d take nothing", g.level)
	if g.level == Full {
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
