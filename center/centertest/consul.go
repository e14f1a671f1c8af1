package centertest

import (
	"encoding/json"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A Consul is one with a KV store (https://developer.hashicorp.com/consul/api-docs/kv), services with TTL checks, and
// blocking queries for both.
type Consul struct {
	server
	Token string // that is needed, if any; set before the first request

	mu    sync.Mutex
	index uint64 // of the whole store
	pairs map[string]*pair
	gone  map[string]uint64 // keys that were deleted, with the index then
	offered
	news  chan struct{} // closed at a change
	woken int           // how often Wake or Restore was called
}

type pair struct {
	LockIndex   uint64
	Key         string
	Flags       uint64
	Value       []byte
	CreateIndex uint64
	ModifyIndex uint64
}

// NewConsul starts a Consul, which ends with the test.
func NewConsul(t testing.TB) *Consul {
	c := &Consul{index: 10, pairs: map[string]*pair{}, gone: map[string]uint64{}, news: make(chan struct{}), offered: offered{instances: map[string]*consulInstance{}}}
	c.begin(t, c)
	return c
}

// Put writes a key.
func (c *Consul) Put(key, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.index++
	p := c.pairs[key]
	if p == nil {
		p = &pair{Key: key, CreateIndex: c.index}
		c.pairs[key] = p
	}
	p.Value, p.ModifyIndex = []byte(text), c.index
	if text == "" {
		p.Value = nil // null
	}
	c.wake()
}

// Delete deletes a key.
func (c *Consul) Delete(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.index++
	delete(c.pairs, key)
	c.gone[key] = c.index
	c.wake()
}

// Wake lets all blocking queries return, though nothing has changed.
func (c *Consul) Wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.woken++
	c.wake()
}

// Restore makes the store one of an older snapshot: only the given keys are there, and all indexes are at most index.
func (c *Consul) Restore(index uint64, pairs map[string]string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.index, c.pairs, c.gone = index, map[string]*pair{}, map[string]uint64{}
	for key, text := range pairs {
		c.pairs[key] = &pair{Key: key, Value: []byte(text), CreateIndex: index, ModifyIndex: index}
	}
	c.woken++
	c.wake()
}

func (c *Consul) wake() {
	close(c.news)
	c.news = make(chan struct{})
}

// find returns the pairs, and the index of the answer: the latest of theirs and of what was deleted there; or, of a key
// that is not there, the store's.
func (c *Consul) find(key string, recurse bool) ([]*pair, uint64) {
	in := func(k string) bool { return k == key || recurse && strings.HasPrefix(k, key) }
	var found []*pair
	index := uint64(0)
	for _, k := range slices.Sorted(maps.Keys(c.pairs)) {
		if in(k) {
			copied := *c.pairs[k]
			found = append(found, &copied)
			index = max(index, copied.ModifyIndex)
		}
	}
	for k, at := range c.gone {
		if in(k) {
			index = max(index, at)
		}
	}
	if index == 0 {
		index = c.index
	}
	return found, index
}

// ServeHTTP answers requests.
func (c *Consul) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if c.Token != "" && r.Header.Get("X-Consul-Token") != c.Token {
		http.Error(w, "Permission denied: token with AccessorID '00000000-0000-0000-0000-000000000002' lacks permission 'key:read'", http.StatusForbidden)
		return
	}
	q := r.URL.Query()
	key, ofKV := strings.CutPrefix(r.URL.Path, "/v1/kv/")
	service, ofHealth := strings.CutPrefix(r.URL.Path, "/v1/health/service/")
	switch {
	case strings.HasPrefix(r.URL.Path, "/v1/agent/") && r.Method == http.MethodPut:
		c.serveAgent(w, r)
	case ofKV && r.Method == http.MethodGet:
		c.block(w, r, func() (any, bool, uint64) {
			found, index := c.find(key, q.Has("recurse"))
			return found, len(found) > 0, index
		})
	case ofHealth && r.Method == http.MethodGet:
		c.block(w, r, func() (any, bool, uint64) {
			found, index := c.alive(service, q.Has("passing"))
			return found, true, index
		})
	default:
		http.Error(w, "Invalid URL path: not a recognized HTTP API endpoint", http.StatusNotFound)
	}
}

// block answers a blocking query: with what look finds when its index is past the one that is asked for.
func (c *Consul) block(w http.ResponseWriter, r *http.Request, look func() (found any, any bool, index uint64)) {
	q := r.URL.Query()
	if q.Has("dc") && q.Get("dc") != "dc1" {
		http.Error(w, "No path to datacenter", http.StatusInternalServerError)
		return
	}
	after, err := strconv.ParseUint(q.Get("index"), 10, 64)
	if err != nil && q.Has("index") {
		http.Error(w, "Invalid index", http.StatusBadRequest)
		return
	}
	wait, err := time.ParseDuration(q.Get("wait"))
	if err != nil && q.Has("wait") {
		http.Error(w, "Invalid wait time", http.StatusBadRequest)
		return
	}
	if wait == 0 {
		wait = 5 * time.Minute
	}
	wait = min(wait, 10*time.Minute)
	late := time.NewTimer(wait + rand.N(wait/16+1))
	defer late.Stop()

	c.mu.Lock()
	found, some, index := look()
	for woken := c.woken; after > 0 && index <= after && woken == c.woken; found, some, index = look() {
		news := c.news
		c.mu.Unlock()
		select {
		case <-news:
		case <-r.Context().Done():
			return
		case <-late.C:
			after = 0
		}
		c.mu.Lock()
	}
	c.mu.Unlock()

	w.Header().Set("X-Consul-Index", strconv.FormatUint(index, 10))
	w.Header().Set("X-Consul-KnownLeader", "true")
	w.Header().Set("X-Consul-LastContact", "0")
	if !some {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(found) // the client may be gone
}
