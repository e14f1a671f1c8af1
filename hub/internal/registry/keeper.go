package registry

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// A keeper has those agents written into the control state of which something has changed, without making those wait who
// change it: of several changes the last is written. Of each agent one write is under way at a time.
type keeper struct {
	keep func(context.Context, *agent) error
	log  *slog.Logger
	wake chan struct{}
	stop chan struct{}
	done sync.WaitGroup

	mu    sync.Mutex
	dirty map[*agent]bool
}

// parallel is how many agents are written at once: etcd syncs them together.
const parallel = 64

func newKeeper(keep func(context.Context, *agent) error, log *slog.Logger) *keeper {
	k := &keeper{keep: keep, log: log, wake: make(chan struct{}, 1), stop: make(chan struct{}), dirty: make(map[*agent]bool)}
	k.done.Go(k.run)
	return k
}

// add has an agent written soon.
func (k *keeper) add(a *agent) {
	k.mu.Lock()
	k.dirty[a] = true
	k.mu.Unlock()
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

func (k *keeper) run() {
	for {
		select {
		case <-k.wake:
			k.flush()
		case <-k.stop:
			k.flush()
			return
		}
	}
}

// flush writes all that is dirty. What fails is tried again a second later.
func (k *keeper) flush() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	k.mu.Lock()
	todo := k.dirty
	k.dirty = make(map[*agent]bool)
	k.mu.Unlock()
	slots := make(chan struct{}, parallel)
	var wg sync.WaitGroup
	for a := range todo {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := k.keep(ctx, a); err != nil {
				k.log.Warn("write control state; will try again", "agent", a.ID, "error", err)
				time.AfterFunc(time.Second, func() { k.add(a) })
			}
		})
	}
	wg.Wait()
}

// close writes what is left.
func (k *keeper) close() {
	close(k.stop)
	k.done.Wait()
}
