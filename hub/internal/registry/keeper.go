package registry

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"time"

	"github.com/creelhq/creel/hub/internal/state"
)

// A keeper writes what has changed into the control state, without making those wait who change it: of several changes
// to a key the last is written.
type keeper struct {
	store state.Store
	log   *slog.Logger
	wake  chan struct{}
	stop  chan struct{}
	done  sync.WaitGroup

	mu    sync.Mutex
	dirty map[string]write
}

// write is a value to be put, or to be deleted if value is nil.
type write struct {
	value  []byte
	leased bool
}

// parallel is how many writes are under way at once: etcd syncs them together.
const parallel = 64

func newKeeper(s state.Store, log *slog.Logger) *keeper {
	k := &keeper{store: s, log: log, wake: make(chan struct{}, 1), stop: make(chan struct{}), dirty: make(map[string]write)}
	k.done.Go(k.run)
	return k
}

func (k *keeper) put(key string, v any, leased bool) {
	value, err := json.Marshal(v)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	k.set(key, write{value, leased})
}

func (k *keeper) delete(key string) { k.set(key, write{}) }

func (k *keeper) set(key string, w write) {
	k.mu.Lock()
	k.dirty[key] = w
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
	k.dirty = make(map[string]write)
	k.mu.Unlock()
	slots := make(chan struct{}, parallel)
	var wg sync.WaitGroup
	for key, w := range todo {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			var err error
			if w.value == nil {
				err = k.store.Delete(ctx, key, state.Always())
			} else {
				_, err = k.store.Put(ctx, key, w.value, w.leased, state.Always())
			}
			if err != nil {
				k.again(key, w, err)
			}
		})
	}
	wg.Wait()
}

// again puts a write back, unless there is a newer one.
func (k *keeper) again(key string, w write, err error) {
	k.log.Warn("write control state; will try again", "key", key, "error", err)
	k.mu.Lock()
	if _, newer := k.dirty[key]; !newer {
		k.dirty[key] = w
	}
	k.mu.Unlock()
	time.AfterFunc(time.Second, func() {
		select {
		case k.wake <- struct{}{}:
		default:
		}
	})
}

// close writes what is left.
func (k *keeper) close() {
	close(k.stop)
	k.done.Wait()
}
