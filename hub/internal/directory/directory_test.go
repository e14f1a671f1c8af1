package directory_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/expr"
	"github.com/creelhq/creel/hub/internal/directory"
	"github.com/creelhq/creel/hub/internal/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var everybody expr.Selector

// faulty is a control state whose watch breaks when it is told to, and is deaf until it is told otherwise.
type faulty struct {
	state.Store
	mu      sync.Mutex
	cut     context.CancelFunc
	deaf    bool
	relists int
}

func (f *faulty) Watch(ctx context.Context, prefix string, after int64, do func(state.Entry) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f.mu.Lock()
	f.cut = cancel
	f.mu.Unlock()
	err := f.Store.Watch(ctx, prefix, after, do)
	return errors.Join(err, errors.New("the watch broke"))
}

func (f *faulty) List(ctx context.Context, prefixes ...string) ([]state.Entry, int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.deaf {
		return nil, 0, errors.New("the control state does not answer")
	}
	f.relists++
	return f.Store.List(ctx, prefixes...)
}

// hear has the hub hear of the control state, or not any more.
func (f *faulty) hear(yes bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.deaf = !yes; f.deaf && f.cut != nil {
		f.cut()
	}
}

func open(t *testing.T, s state.Store, o directory.Options) *directory.Directory {
	t.Helper()
	o.Store = s
	d, err := directory.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// client is somebody who watches, at this hub and that, and knows what it was told.
type client struct {
	t      *testing.T
	within expr.Selector
	q      api.DirectoryQuery

	mu      sync.Mutex
	id      string
	known   map[string]api.DirectoryEntry
	all     int // how often it had to forget
	resumed int // how often not
	block   chan struct{}
	stop    func() error
}

func newClient(t *testing.T) *client {
	return &client{t: t, known: make(map[string]api.DirectoryEntry), stop: func() error { return nil }}
}

func keyOf(e api.DirectoryEntry) string { return e.Kind + "/" + e.Service + "/" + e.ID }

func (c *client) take(events []api.DirectoryEvent) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, e := range events {
		switch e.Event {
		case api.DirectoryAll:
			c.all++
			clear(c.known)
			for _, x := range e.Entries {
				c.known[keyOf(x)] = x
			}
		case api.DirectoryPut:
			c.known[keyOf(*e.Entry)] = *e.Entry
		case api.DirectoryDelete:
			if _, ok := c.known[keyOf(*e.Entry)]; !ok && c.resumed == 0 { // who resumes may hear the last revision once more
				c.t.Errorf("%s is gone, of which it has never heard", keyOf(*e.Entry))
			}
			delete(c.known, keyOf(*e.Entry))
		}
		if last := i+1 == len(events) || events[i+1].Revision != e.Revision; last != (e.ID != "") {
			c.t.Errorf("event %d of %d at revision %d has the id %q", i, len(events), e.Revision, e.ID)
		}
		if e.ID != "" {
			c.id = e.ID
		}
	}
	return nil
}

// watch begins to watch at a hub, where it was.
func (c *client) watch(d *directory.Directory) {
	ctx, cancel := context.WithCancel(c.t.Context())
	c.mu.Lock()
	after, before := c.id, c.all
	c.mu.Unlock()
	first, ended := true, make(chan error, 1)
	go func() {
		ended <- d.Watch(ctx, c.within, api.DirectoryWatch{DirectoryQuery: c.q, After: after}, func(events []api.DirectoryEvent) error {
			if c.block != nil {
				<-c.block
			}
			err := c.take(events)
			if c.mu.Lock(); first && c.all == before {
				c.resumed++
			}
			c.mu.Unlock()
			first = false
			return err
		})
	}()
	c.stop = func() error {
		cancel()
		c.stop = func() error { return nil }
		return <-ended
	}
}

// check compares what was told with what there is.
func (c *client) check(d *directory.Directory) {
	c.t.Helper()
	l, err := d.List(c.within, c.q)
	if err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.id != l.ID && idRevision(c.id) > l.Revision {
		c.t.Errorf("it is at %s, the hub at %s", c.id, l.ID)
	}
	want := make(map[string]api.DirectoryEntry)
	for _, e := range l.Entries {
		want[keyOf(e)] = e
	}
	if !reflect.DeepEqual(c.known, want) {
		c.t.Errorf("of %s it knows\n%v, there are\n%v", c.q.Kind, c.known, want)
	}
}

func idRevision(id string) (n int64) {
	_, text, _ := strings.Cut(id, ".")
	fmt.Sscan(text, &n)
	return n
}

// world is hubs that write, and hubs that tell.
type world struct {
	t      *testing.T
	random *rand.Rand
	memory state.Memory
	writer []state.Store
	stores []*faulty
	hubs   []*directory.Directory
	keep   int
}

// change changes something.
func (w *world) change() {
	i := w.random.IntN(len(w.writer))
	put := func(key string, v any) {
		text, err := json.Marshal(v)
		if err == nil {
			_, err = w.writer[i].Put(w.t.Context(), key, text, true, state.Always())
		}
		if err != nil {
			w.t.Error(err)
		}
	}
	agent := fmt.Sprintf("agent-%d", w.random.IntN(12))
	labels := map[string]string{"site": []string{"north", "south"}[w.random.IntN(2)]}
	service := fmt.Sprintf("services/s%d/%s", w.random.IntN(3), agent)
	switch w.random.IntN(12) {
	case 0:
		put(fmt.Sprintf("hubs/hub-%d", i), map[string]any{"id": fmt.Sprint("hub-", i), "url": "http://hub", "agents": w.random.IntN(9)})
	case 1, 2, 3:
		put("sessions/"+agent, map[string]any{"hub": fmt.Sprint("hub-", i), "name": agent, "labels": labels})
	case 4, 5:
		put(service, map[string]any{"hub": fmt.Sprint("hub-", i), "address": "a:1", "labels": labels, "weight": 1})
	case 6:
		if err := w.writer[i].Delete(w.t.Context(), service, state.Always()); err != nil {
			w.t.Error(err)
		}
	case 7, 8:
		if err := w.writer[i].Delete(w.t.Context(), "sessions/"+agent, state.Always()); err != nil {
			w.t.Error(err)
		}
	case 9:
		put("sessions/"+agent, "not an object")
	case 10: // what nobody watches
		put("documents/x", labels)
	case 11: // a hub dies, with all that hangs on its lease
		if w.random.IntN(4) == 0 {
			if err := w.writer[i].Close(); err != nil {
				w.t.Error(err)
			}
			w.writer[i] = w.memory.Open()
		}
	}
}

func (w *world) open(i int) {
	w.stores[i] = &faulty{Store: w.memory.Open()}
	w.hubs[i] = open(w.t, w.stores[i], directory.Options{Keep: w.keep, Batch: time.Duration(w.random.IntN(100)) * time.Millisecond, Still: time.Second})
}

func (w *world) close(i int) {
	w.hubs[i].Close()
	if err := w.stores[i].Close(); err != nil {
		w.t.Error(err)
	}
}

// TestModel: whatever changes, and at whichever hubs one watches, some of which do not hear of all or are started again: in the end who
// watches knows what there is, has never heard of the end of what it did not know, and mostly goes on where it was.
func TestModel(t *testing.T) {
	seed := rand.Uint64()
	rounds := 40
	if testing.Short() {
		rounds = 15
	}
	all, resumed, relists := 0, 0, 0
	for round := range rounds {
		synctest.Test(t, func(t *testing.T) {
			w := &world{t: t, random: rand.New(rand.NewPCG(seed, uint64(round))), stores: make([]*faulty, 3), hubs: make([]*directory.Directory, 3)}
			w.keep = 20 + w.random.IntN(400)
			for i := range w.hubs {
				w.writer = append(w.writer, w.memory.Open())
				w.open(i)
			}
			north, err := expr.ParseSelector(`site == "north"`)
			if err != nil {
				t.Fatal(err)
			}
			var clients []*client
			for i := range 6 {
				c := newClient(t)
				c.q.Kind = []string{"", api.KindAgent, api.KindService}[i%3]
				if i == 3 {
					c.within = north
				}
				if i == 4 {
					c.q.Label = "site=south"
				}
				if i == 5 {
					c.q.Service = "s1"
				}
				c.watch(w.hubs[0])
				clients = append(clients, c)
			}
			for range 300 {
				switch w.random.IntN(20) {
				case 0, 1:
					c := clients[w.random.IntN(len(clients))]
					_ = c.stop() // as it likes
					c.watch(w.hubs[w.random.IntN(len(w.hubs))])
				case 2:
					w.stores[w.random.IntN(len(w.hubs))].hear(w.random.IntN(3) > 0)
				case 3:
					time.Sleep(time.Duration(w.random.IntN(3000)) * time.Millisecond)
				case 4:
					if i := 1 + w.random.IntN(2); w.random.IntN(8) == 0 {
						w.close(i) // who watched there hears nothing more
						w.open(i)
					}
				default:
					w.change()
				}
			}
			for _, s := range w.stores {
				s.hear(true)
			}
			time.Sleep(time.Minute)
			for i, c := range clients {
				_ = c.stop()
				for _, h := range []int{i % 3, (i + 1) % 3} { // it may be at one that is gone
					c.watch(w.hubs[h])
					time.Sleep(time.Minute)
					c.check(w.hubs[h])
					_ = c.stop()
				}
				all, resumed = all+c.all, resumed+c.resumed
			}
			for i := range w.hubs {
				relists += w.stores[i].relists - 1
				a, errA := w.hubs[0].List(everybody, api.DirectoryQuery{})
				b, errB := w.hubs[i].List(everybody, api.DirectoryQuery{})
				if errA != nil || errB != nil || !reflect.DeepEqual(a, b) {
					t.Errorf("hub 0 and %d do not agree: %v %v\n%v\n%v", i, errA, errB, a, b)
				}
			}
			for i := range w.hubs {
				w.close(i)
				if err := w.writer[i].Close(); err != nil {
					t.Error(err)
				}
			}
		})
		if t.Failed() {
			t.Fatalf("seed %d, round %d", seed, round)
		}
	}
	if t.Logf("%d times all, %d times resumed, %d times listed anew", all, resumed, relists); resumed < all || relists == 0 || all <= 6*rounds {
		t.Error("that is not what is to be tested")
	}
}

// TestResume: what is too old, and what is of another control state, is told anew, all else is not.
func TestResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, stores: make([]*faulty, 1), hubs: make([]*directory.Directory, 1), keep: 10, random: rand.New(rand.NewPCG(1, 1))}
		w.open(0)
		put := func(i int) {
			if _, err := w.stores[0].Put(t.Context(), fmt.Sprint("sessions/", i%30), []byte(`{"hub":"h"}`), true, state.Always()); err != nil {
				t.Fatal(err)
			}
		}
		f := func(id string, all int, what string) {
			t.Helper()
			c := newClient(t)
			c.id = id
			c.watch(w.hubs[0])
			time.Sleep(time.Minute)
			_ = c.stop()
			if c.all != all {
				t.Errorf("%s: all %d times", what, c.all)
			}
		}
		put(0)
		synctest.Wait()
		l, err := w.hubs[0].List(everybody, api.DirectoryQuery{})
		if err != nil {
			t.Fatal(err)
		}
		f(l.ID, 0, "now")
		f("", 1, "without an id")
		f("nonsense", 1, "nonsense")
		f("OTHER"+l.ID, 1, "of another")
		f(l.ID+"7", 0, "ahead of this hub")
		for i := range 10 {
			put(i)
		}
		synctest.Wait()
		f(l.ID, 0, "ten changes ago")
		for i := range 30 {
			put(i)
		}
		synctest.Wait()
		f(l.ID, 1, "forty changes ago")
		w.close(0)
	})
}

// TestSlow: who does not take what it is told holds nobody up, and is let go.
func TestSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, stores: make([]*faulty, 1), hubs: make([]*directory.Directory, 1), keep: 10, random: rand.New(rand.NewPCG(1, 1))}
		w.open(0)
		slow, quick := newClient(t), newClient(t)
		slow.block = make(chan struct{})
		slow.watch(w.hubs[0])
		quick.watch(w.hubs[0])
		for i := range 100 {
			if _, err := w.stores[0].Put(t.Context(), fmt.Sprint("sessions/", i), []byte(`{"hub":"h"}`), true, state.Always()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		quick.check(w.hubs[0])
		if _ = quick.stop(); quick.all != 1 {
			t.Errorf("who is quick hears all %d times", quick.all)
		}
		close(slow.block)
		time.Sleep(time.Second)
		if err := slow.stop(); !errors.Is(err, directory.ErrSlow) {
			t.Errorf("it ends with %v", err)
		}
		slow.watch(w.hubs[0])
		time.Sleep(time.Minute)
		slow.check(w.hubs[0])
		_ = slow.stop()
		w.close(0)
	})
}

// TestQuery: what is asked for must make sense.
func TestQuery(t *testing.T) {
	m := new(state.Memory)
	s := m.Open()
	d := open(t, s, directory.Options{})
	for _, q := range []api.DirectoryQuery{{Kind: "dog"}, {Label: "site"}} {
		var wrong *api.Error
		_, err := d.List(everybody, q)
		if !errors.As(err, &wrong) || wrong.Code != "bad_request" {
			t.Errorf("%+v: %v", q, err)
		}
		if err := d.Watch(t.Context(), everybody, api.DirectoryWatch{DirectoryQuery: q}, nil); !errors.As(err, &wrong) {
			t.Errorf("%+v: %v", q, err)
		}
	}
	d.Close()
	// It has the same name for the next hub, and another one elsewhere.
	names := []string{}
	for _, s := range []state.Store{s, m.Open(), new(state.Memory).Open()} {
		name, err := state.Incarnation(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if names[0] != names[1] || slices.Contains(names[:2], names[2]) {
		t.Error(names)
	}
}
