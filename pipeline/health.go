package pipeline

import (
	"sync"
	"time"
)

// health is whether one component does its work, and if not, why.
type health struct {
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
