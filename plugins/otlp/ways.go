package otlp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/metric"
	"github.com/creelhq/creel/tlsconf"
)

// One that fails is left for a time that grows from leastPause to mostPause.
const (
	leastPause = 500 * time.Millisecond
	mostPause  = 30 * time.Second
)

// A way is an endpoint, and how it goes there.
type way struct {
	sender
	endpoint string

	// Guarded by the mutex of ways.
	leave  bool      // only if there is no other
	failed int       // in a row
	since  time.Time // of the last failure that counted
	wait   time.Time // it is not used before that
	users  int
	gone   bool // it is closed when nobody uses it any more
}

// ways are the endpoints of an exporter. Their methods may be called concurrently.
type ways struct {
	open    func(endpoint string, quickly bool) (sender, error)
	balance string
	agent   string
	log     *slog.Logger
	moved   *metric.Counter
	hubs    *hubs // nil: the endpoints are always the same

	mu     sync.Mutex // guards what follows
	list   []*way     // the one to be preferred first
	err    error      // why the list is empty, if that is known
	turn   int
	closed bool
}

// fix sets the endpoints, once and for all.
func (ws *ways) fix(endpoints []string) error {
	if ws.balance == "rendezvous" {
		endpoints = creel.Rendezvous(ws.agent, endpoints)
	}
	for _, endpoint := range endpoints {
		s, err := ws.open(endpoint, len(endpoints) > 1)
		if err != nil {
			return errors.Join(err, ws.close())
		}
		ws.list = append(ws.list, &way{sender: s, endpoint: endpoint})
	}
	return nil
}

// follow takes in which hubs there are now, if that has changed. What is under way to one that is gone goes on. ws.mu is held.
func (ws *ways) follow() {
	if ws.hubs == nil || ws.closed {
		return
	}
	found, news, err := ws.hubs.look()
	if !news {
		return
	}
	before := ws.list
	ws.list = nil
	for _, h := range found {
		i := slices.IndexFunc(before, func(w *way) bool { return w.endpoint == h.endpoint })
		if i < 0 {
			s, wrong := ws.open(h.endpoint, true)
			if wrong != nil {
				ws.log.Warn("a hub cannot be sent to", "endpoint", h.endpoint, "error", wrong)
				err = wrong
				continue
			}
			before, i = append(before, &way{sender: s, endpoint: h.endpoint}), len(before)
		}
		before[i].leave = h.leave
		ws.list = append(ws.list, before[i])
	}
	if ws.balance == "rendezvous" {
		endpoints := make([]string, len(ws.list))
		for i, w := range ws.list {
			endpoints[i] = w.endpoint
		}
		order := creel.Rendezvous(ws.agent, endpoints)
		slices.SortFunc(ws.list, func(a, b *way) int { return slices.Index(order, a.endpoint) - slices.Index(order, b.endpoint) })
	}
	slices.SortStableFunc(ws.list, func(a, b *way) int { return last(a) - last(b) })
	for _, w := range before {
		if !slices.Contains(ws.list, w) {
			ws.drop(w)
		}
	}
	ws.err = err
}

func last(w *way) int {
	if w.leave {
		return 1
	}
	return 0
}

// drop closes a way when it is not used any more. ws.mu is held.
func (ws *ways) drop(w *way) {
	if w.gone = true; w.users == 0 {
		_ = w.Close() // of connections that nobody needs
	}
}

// pick returns the way that the next request takes, or nil: then those that have failed it were all that can be used now. done
// must be called afterwards.
func (ws *ways) pick(failed []*way) (*way, error) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.follow()
	if len(ws.list) == 0 {
		return nil, cmp.Or(ws.err, errNoHub)
	}
	n := len(ws.list) // of those that take turns
	start := 0
	if ws.balance == "round_robin" && len(failed) == 0 {
		ws.turn++
	}
	if ws.balance == "round_robin" {
		for n > 1 && ws.list[n-1].leave {
			n--
		}
		start = ws.turn % n
	}
	var best *way
	now := time.Now()
	for i := range ws.list {
		w := ws.list[i]
		if i < n {
			w = ws.list[(start+i)%n]
		}
		switch {
		case slices.Contains(failed, w):
		case !w.wait.After(now):
			if len(failed) > 0 {
				ws.moved.Inc()
			}
			w.users++
			return w, nil
		case best == nil || w.wait.Before(best.wait):
			best = w
		}
	}
	if len(failed) > 0 {
		return nil, nil
	}
	best.users++ // all have failed: that one has had most time since
	return best, nil
}

// done notes what came of a request that began at a time, and reports whether to try another way: not if the far side has refused
// the request for good, and not if it asks to wait: the next attempt takes another then.
func (ws *ways) done(ctx context.Context, w *way, began time.Time, err error) (another bool) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if w.users--; w.gone && w.users == 0 {
		_ = w.Close() // as in drop
	}
	switch {
	case err == nil || creel.IsPermanent(err):
		w.failed, w.wait = 0, time.Time{}
		return false
	case errors.Is(ctx.Err(), context.Canceled): // that says nothing of the far side
		return false
	}
	now := time.Now()
	if began.After(w.since) { // else it is the same failure: many requests may have met it
		w.failed, w.since = w.failed+1, now
		pause := min(mostPause, leastPause<<min(w.failed-1, 10))
		w.wait = now.Add(pause/2 + rand.N(pause/2))
	}
	var throttled *creel.Throttled
	if errors.As(err, &throttled) {
		if until := now.Add(min(throttled.After, mostPause)); until.After(w.wait) {
			w.wait = until
		}
		return false
	}
	return ctx.Err() == nil && len(ws.list) > 1
}

// close closes all ways, when nobody uses them any more.
func (ws *ways) close() error {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	var err error
	for _, w := range ws.list {
		err = errors.Join(err, w.Close())
	}
	ws.list, ws.closed = nil, true
	return err
}

var errNoHub = errors.New("no hub is known that takes data so; the agent learns of them when it is connected to one, and goes on then: is agent.hub.url right, and has the hub a collector otlp?")

// hubs are the endpoints of the agent's hubs.
type hubs struct {
	creel.Hubs
	c        ExporterConfig
	identity bool // the agent has one
	changed  <-chan struct{}
}

// hubWay is where one of the hubs takes data.
type hubWay struct {
	endpoint string
	leave    bool
}

// look returns where hubs take data, the one to be preferred first, and whether that is not as it was when it was called last.
func (h *hubs) look() (list []hubWay, news bool, err error) {
	if h.changed != nil {
		select {
		case <-h.changed:
		default:
			return nil, false, nil
		}
	}
	known, changed := h.Hubs.Hubs()
	h.changed = changed
	for _, hub := range known {
		address := hub.OTLPGRPC
		if h.c.Protocol == "http" {
			address = hub.OTLPHTTP
		}
		switch {
		case address == "":
			continue
		case hub.Secure && !h.c.TLS.Insecure:
			address = "https://" + address
		case h.c.TLS == tlsconf.Client{} || h.c.TLS == tlsconf.Client{Insecure: true}:
			address = "http://" + address
		default:
			err = fmt.Errorf("send to the hub %s: it takes data without TLS, though tls of this exporter has options", hub.ID)
			continue
		}
		list = append(list, hubWay{address, hub.Leave})
	}
	return list, true, err
}

// config returns the options for one endpoint. Where nothing else is said, the agent shows a hub its identity.
func (h *hubs) config(endpoint string) ExporterConfig {
	c := h.c.at(endpoint)
	if h.identity && c.TLS == (tlsconf.Client{}) && strings.HasPrefix(endpoint, "https://") {
		c.TLS.Identity = true
	}
	return c
}
