package pipeline

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// health is whether one component does its work, and if not, why.
type health struct {
	work *work

	mu    sync.Mutex
	err   error
	since time.Time
}

func (h *health) ok() {
	h.mu.Lock()
	if h.err != nil {
		h.err, h.since = nil, time.Now()
	}
	h.mu.Unlock()
}

func (h *health) fail(err error) {
	h.work.failed.Add(1)
	h.mu.Lock()
	if h.err == nil {
		h.since = time.Now()
	}
	h.err = err
	h.mu.Unlock()
}

func (h *health) get() (since time.Time, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.since, h.err
}

// fault notes an error of a component that starts again after a while; one that repeats is logged once.
func (h *health) fault(log *slog.Logger, err error, wait time.Duration) {
	if _, before := h.get(); before == nil || before.Error() != err.Error() {
		log.Error("component failed, will start again", "wait", wait.Round(time.Millisecond), "error", err)
	}
	h.fail(err)
}

// restart is the pause before a component that failed is started again.
var restart = Retry{Initial: time.Second, Max: time.Minute}

// steady is how long a component must work, after it has failed, until it counts as well again.
const steady = 10 * time.Second

// supervise calls run, again after a pause when it fails, until it is done or ctx is.
func supervise(ctx context.Context, run func() (done bool, err error), h *health, log *slog.Logger) {
	for failed := 1; ; failed++ {
		began := time.Now()
		var well *time.Timer
		if failed > 1 {
			well = time.AfterFunc(steady, h.ok)
		}
		done, err := run()
		if well != nil {
			well.Stop()
		}
		switch {
		case done:
			return
		case ctx.Err() != nil:
			if err != nil && !errors.Is(err, ctx.Err()) {
				log.Warn("component does not end cleanly", "error", err)
			}
			return
		}
		if time.Since(began) > restart.Max {
			failed = 1
		}
		wait := restart.pause(failed, err)
		h.fault(log, err, wait)
		if pause(ctx, wait) != nil {
			return
		}
	}
}
