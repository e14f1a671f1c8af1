package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/creelhq/creel/hub/internal/state"
)

// store is a Store whose lease can be lost, and which can be cut off.
type store struct {
	state.Store
	m *state.Memory

	mu     sync.Mutex
	leased state.Store
	down   bool
}

func newStore(m *state.Memory) *store { return &store{Store: m.Open(), m: m, leased: m.Open()} }

func (s *store) lease() (state.Store, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return nil, errors.New("cut off")
	}
	return s.leased, nil
}

func (s *store) Get(ctx context.Context, key string) (state.Entry, error) {
	if _, err := s.lease(); err != nil {
		return state.Entry{}, err
	}
	return s.Store.Get(ctx, key)
}

func (s *store) Put(ctx context.Context, key string, value []byte, leased bool, c state.Condition) (int64, error) {
	l, err := s.lease()
	switch {
	case err != nil:
		return 0, err
	case leased:
		return l.Put(ctx, key, value, true, c)
	}
	return s.Store.Put(ctx, key, value, false, c)
}

func (s *store) Lease() *state.Lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leased.Lease()
}

// lose takes away what is leased.
func (s *store) lose(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leased.Close()
	s.leased, s.down = s.m.Open(), down
}

func (s *store) up() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = false
}

func (s *store) close() {
	s.Store.Close()
	s.leased.Close()
}

// self is what a hub says of itself, which can change.
type self struct {
	mu sync.Mutex
	Hub
}

func (s *self) now() Hub {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Hub
}

func (s *self) set(f func(*Hub)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.Hub)
}

func newSelf(id string) *self {
	s := &self{Hub: Hub{Name: "host-" + id, Version: "1", Started: time.Now()}}
	s.ID, s.URL, s.Agents = id, "http://"+id, 100
	return s
}

func open(t *testing.T, s state.Store, self *self) *Cluster {
	t.Helper()
	c, err := Open(t.Context(), Options{Store: s, Self: self.now})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func describe(list []Hub) string {
	var words []string
	for _, h := range list {
		word := fmt.Sprintf("%s %s %d", h.ID, h.URL, h.Agents)
		if h.Draining {
			word += " draining"
		}
		words = append(words, word)
	}
	return strings.Join(words, ", ")
}

func revision(t *testing.T, s state.Store) int64 {
	t.Helper()
	_, r, err := s.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestHubsKnowEachOther: hubs come, change, are drained, lose the control state and go, and all see the same. When nothing
// happens nothing is written.
func TestHubsKnowEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := new(state.Memory)
		stores, selves, hubs := make([]*store, 3), make([]*self, 3), make([]*Cluster, 3)
		for i := range 3 {
			stores[i], selves[i] = newStore(m), newSelf(string(rune('c'-i)))
			hubs[i] = open(t, stores[i], selves[i])
			defer stores[i].close()
		}
		all := func(what, want string) {
			t.Helper()
			synctest.Wait()
			for i, c := range hubs {
				if c == nil {
					continue
				}
				if got := describe(c.Hubs()); got != want {
					t.Errorf("%s: %s sees %s, want %s", what, selves[i].ID, got, want)
				}
			}
		}
		all("all came", "a http://a 100, b http://b 100, c http://c 100")

		before := revision(t, stores[0])
		time.Sleep(time.Minute)
		selves[0].set(func(h *Hub) { h.Agents = 105 })
		time.Sleep(time.Minute)
		if now := revision(t, stores[0]); now != before {
			t.Errorf("%d writes, and nothing has happened", now-before)
		}
		changed := hubs[2].Changed()
		selves[0].set(func(h *Hub) { h.Agents = 94 })
		selves[1].set(func(h *Hub) { h.URL = "http://elsewhere" })
		time.Sleep(time.Minute)
		if now := revision(t, stores[0]); now != before+2 {
			t.Errorf("%d writes of two changes", now-before)
		}
		<-changed
		all("two changed", "a http://a 100, b http://elsewhere 100, c http://c 94")

		if err := hubs[0].Drain(t.Context(), "x", true); err == nil {
			t.Error("a hub is drained that is not there")
		}
		if err := hubs[0].Drain(t.Context(), "a", true); err != nil {
			t.Fatal(err)
		}
		all("one is drained", "a http://a 100 draining, b http://elsewhere 100, c http://c 94")
		hubs[2].Close()
		hubs[2] = nil
		all("one has gone", "b http://elsewhere 100, c http://c 94")
		hubs[2] = open(t, stores[2], selves[2])
		all("it is back", "a http://a 100 draining, b http://elsewhere 100, c http://c 94")
		if err := hubs[0].Drain(t.Context(), "a", false); err != nil {
			t.Fatal(err)
		}
		all("it is drained no more", "a http://a 100, b http://elsewhere 100, c http://c 94")
		if h, ok := hubs[0].Get("a"); !ok || h.Name != "host-a" {
			t.Errorf("got %+v %v", h, ok)
		}

		if h := hubs[1].Health(); !h.Leased || h.Error != "" || time.Since(h.Answered) > look {
			t.Errorf("the health is %+v", h)
		}
		stores[1].lose(true)
		time.Sleep(10 * time.Second)
		if h := hubs[1].Health(); h.Leased || h.Error != "cut off" {
			t.Errorf("cut off: the health is %+v", h)
		}
		if got := describe(hubs[0].Hubs()); got != "a http://a 100, c http://c 94" {
			t.Errorf("one is cut off: the others see %s", got)
		}
		stores[1].up()
		time.Sleep(10 * time.Second)
		if h := hubs[1].Health(); !h.Leased || h.Error != "" {
			t.Errorf("back: the health is %+v", h)
		}
		all("it is back", "a http://a 100, b http://elsewhere 100, c http://c 94")
		for _, c := range hubs {
			c.Close()
		}
		if list, _, err := stores[0].List(t.Context(), ""); err != nil || len(list) != 0 {
			t.Errorf("%v is left, %v", list, err)
		}
	})
}

// TestTwins: of two hubs with one id the one that runs stays; what a killed one has left is taken over.
func TestTwins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := new(state.Memory)
		first, second, watcher := newStore(m), newStore(m), newStore(m)
		defer first.close()
		defer second.close()
		defer watcher.close()
		original := newSelf("a")
		c := open(t, first, original)
		time.Sleep(time.Hour)
		copied := newSelf("a")
		copied.Name = "copy"
		if _, err := Open(t.Context(), Options{Store: second, Self: copied.now}); !errors.Is(err, ErrTwin) || !strings.Contains(err.Error(), "host-a") {
			t.Errorf("the copy starts: %v", err)
		}
		other := open(t, watcher, newSelf("b"))
		if h, ok := other.Get("a"); !ok || h.Name != "host-a" || !c.Health().Leased {
			t.Errorf("%+v has the entry", h)
		}
		other.Close()

		c.stop() // it is killed: its lease goes on
		c.over.Wait()
		began := time.Now()
		again := open(t, second, copied)
		if took := time.Since(began); took > time.Second {
			t.Errorf("to start again took %v", took)
		}
		first.lose(false) // its lease ends: what has been written since stays
		time.Sleep(time.Minute)
		if h := again.Health(); !h.Leased {
			t.Errorf("the health is %+v", h)
		}
		again.Close()
	})
}

// TestLateTwin: a hub that was paused while another with its id has started takes its entry back, and the other says so.
func TestLateTwin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := new(state.Memory)
		first, second := newStore(m), newStore(m)
		defer first.close()
		defer second.close()
		older := newSelf("a")
		c := open(t, first, older)
		c.stop() // paused
		c.over.Wait()
		time.Sleep(time.Minute)
		newer := newSelf("a")
		twin := open(t, second, newer)
		ctx, stop := context.WithCancel(t.Context())
		c.over.Go(func() { c.keep(ctx) }) // goes on
		time.Sleep(time.Minute)
		before := revision(t, second)
		time.Sleep(time.Minute)
		if h := twin.Health(); h.Leased || !strings.Contains(h.Error, "same id") || !c.Health().Leased {
			t.Errorf("the health of the newer is %+v", h)
		}
		if now := revision(t, second); now != before {
			t.Errorf("they fight: %d writes", now-before)
		}
		stop()
		twin.Close()
		c.Close()
	})
}
