// Package cluster knows which hubs share a control state: each keeps an entry there, with its lease, that says where it is.
//
// It knows nothing of what hubs do for each other.
package cluster

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/hub/internal/state"
	"github.com/creelhq/creel/metric"
)

const (
	// hubsPrefix is where hubs say where they are: hubs/<id>.
	hubsPrefix = "hubs/"
	// drainedPrefix is which hubs are to be left: drained/<id>, until somebody takes that back.
	drainedPrefix = "drained/"
	// patience is how long a hub that finds its own id taken waits for whoever has it to say so.
	patience = 500 * time.Millisecond
	// look is how often a hub looks whether what it says of itself is true still. That many agents or bytes more or less, of a
	// hundred, are worth an entry of its own: which takes some bytes itself.
	look      = 5 * time.Second
	share     = 5
	sizeShare = 10
)

// A Hub is one that is there, as it says itself.
type Hub struct {
	control.HubAt
	Name    string    `json:"name"` // of its host
	Version string    `json:"version"`
	Started time.Time `json:"started"`
	State   int64     `json:"state,omitempty"` // bytes that the database of its etcd has on disk, about; 0: it has none
}

// entry is a Hub in the control state. Draining is not of that.
type entry struct {
	Hub
	Run string `json:"run"` // it is another for each start
}

// ErrTwin is what Open fails with when another hub has the same id.
var ErrTwin = errors.New("another hub that runs has the same id: a state directory belongs to one hub; give the copy an empty one, or remove the file id from it")

// Options configure a Cluster. Store and Self are required.
type Options struct {
	Store   state.Store
	Self    func() Hub // this hub as it is now, with its id; it is asked every few seconds
	Log     *slog.Logger
	Metrics *metric.Set
}

// Health is how this hub stands to the control state.
type Health struct {
	Answered time.Time     // when the control state has answered last
	Took     time.Duration // how long that took
	Leased   bool          // what this hub says of itself is there, and its lease is kept
	Error    string        // why it does not answer, or does not take what this hub says; empty: it does
}

// A Cluster is the hubs that there are. Its methods may be called concurrently.
type Cluster struct {
	o    Options
	id   string
	run  string
	wake chan struct{}
	stop context.CancelFunc
	over sync.WaitGroup

	mu      sync.Mutex
	self    Hub              // as it was asked last
	hubs    map[string]known // others, and this one as the control state has it
	drained map[string]int64 // revisions, negative where it was taken back
	under   *state.Lease     // on which this hub's entry hangs
	health  Health
	twin    bool // another hub has this hub's id, and was told
	changed chan struct{}
}

// known is what was heard of a hub.
type known struct {
	entry
	revision int64
	gone     bool
}

// Open says in the control state that this hub is there, and follows which others are. Close ends both. The error is ErrTwin if
// another hub that runs has the same id; one that does not answer within half a second does not run, and was killed.
func Open(ctx context.Context, o Options) (*Cluster, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = metric.NewSet()
	}
	c := &Cluster{
		o: o, id: o.Self().ID, run: rand.Text(), wake: make(chan struct{}, 1), hubs: make(map[string]known), drained: make(map[string]int64), changed: make(chan struct{}),
	}
	hubs, atHubs, err := o.Store.List(ctx, hubsPrefix)
	if err != nil {
		return nil, fmt.Errorf("ask which hubs there are: %w", err)
	}
	c.allHubs(hubs, atHubs)
	drained, atDrained, err := o.Store.List(ctx, drainedPrefix)
	if err != nil {
		return nil, fmt.Errorf("ask which hubs are drained: %w", err)
	}
	c.allDrained(drained, atDrained)
	before, there := c.hubs[c.id]
	if err := c.write(ctx); err != nil {
		return nil, fmt.Errorf("say that this hub is there: %w", err)
	}
	following, stop := context.WithCancel(context.Background())
	c.stop = stop
	c.over.Go(func() { state.Follow(following, o.Store, hubsPrefix, atHubs, o.Log, c.allHubs, c.oneHub) })
	c.over.Go(func() {
		state.Follow(following, o.Store, drainedPrefix, atDrained, o.Log, c.allDrained, c.oneDrained)
	})
	if there && c.contested(ctx) {
		c.stop()
		c.over.Wait()
		return nil, fmt.Errorf("%w (it has run on %s since %s)", ErrTwin, before.Name, before.Started.Format(time.RFC3339))
	}
	c.over.Go(func() { c.keep(following) })
	o.Metrics.GaugeFunc("creel.hub.cluster.hubs", "Hubs that share the control state, this one among them.", "{hub}", func() float64 { return float64(len(c.Hubs())) })
	o.Metrics.GaugeFunc("creel.hub.cluster.leased", "Is 1 while this hub has a lease in the control state.", "", func() float64 {
		if c.Health().Leased {
			return 1
		}
		return 0
	})
	return c, nil
}

// contested waits whether a hub with the same id takes its entry back.
func (c *Cluster) contested(ctx context.Context) bool {
	deadline := time.After(patience)
	for {
		changed := c.Changed()
		c.mu.Lock()
		other := c.hubs[c.id]
		c.mu.Unlock()
		if other.Run != c.run {
			return true
		}
		select {
		case <-changed:
		case <-deadline:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// Close takes this hub's entry away. The control state stays open.
func (c *Cluster) Close() {
	c.stop()
	c.over.Wait()
	c.mu.Lock()
	own := c.hubs[c.id]
	c.mu.Unlock()
	if own.gone || own.Run != c.run {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := c.o.Store.Delete(ctx, hubsPrefix+c.id, state.Unchanged(own.revision)); err != nil && !errors.Is(err, state.ErrConflict) {
		c.o.Log.Warn("the hub's entry in the control state stays until its lease ends", "error", err)
	}
}

// Hubs returns the hubs that there are, by id; this one always, as it was some seconds ago. It is cheap.
func (c *Cluster) Hubs() []Hub {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := []Hub{c.withDrain(c.self)}
	for id, k := range c.hubs {
		if id != c.id && !k.gone {
			list = append(list, c.withDrain(k.Hub))
		}
	}
	slices.SortFunc(list, func(a, b Hub) int { return strings.Compare(a.ID, b.ID) })
	return list
}

// Get returns one hub, and whether it is there.
func (c *Cluster) Get(id string) (Hub, bool) {
	list := c.Hubs()
	i := slices.IndexFunc(list, func(h Hub) bool { return h.ID == id })
	if i < 0 {
		return Hub{}, false
	}
	return list[i], true
}

// withDrain adds what the hub does not say itself. c.mu is held.
func (c *Cluster) withDrain(h Hub) Hub {
	h.Draining = c.drained[h.ID] > 0
	return h
}

// Changed returns a channel that is closed when the hubs are others, or other than they were.
func (c *Cluster) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// notify is called with c.mu held.
func (c *Cluster) notify() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// Health returns how this hub stands to the control state.
func (c *Cluster) Health() Health {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.health
	h.Leased = c.leased()
	return h
}

// leased is called with c.mu held.
func (c *Cluster) leased() bool {
	own := c.hubs[c.id]
	return c.under.Held() && !own.gone && own.Run == c.run
}

// Drain says that a hub is to be left by its agents, or not any more. It holds until it is taken back, though the hub be started
// again. There must be such a hub, to be drained.
func (c *Cluster) Drain(ctx context.Context, id string, on bool) error {
	key := drainedPrefix + id
	if !on {
		if err := c.o.Store.Delete(ctx, key, state.Always()); err != nil {
			return fmt.Errorf("take back that hub %s is drained: %w", id, err)
		}
		return nil
	}
	if _, ok := c.Get(id); !ok {
		return fmt.Errorf("drain hub %q: there is no such hub", id)
	}
	revision, err := c.o.Store.Put(ctx, key, []byte("{}"), false, state.Always())
	if err != nil {
		return fmt.Errorf("drain hub %s: %w", id, err)
	}
	c.oneDrained(state.Entry{Key: key, Value: []byte("{}"), Revision: revision})
	return nil
}

func (c *Cluster) oneDrained(e state.Entry) {
	id := strings.TrimPrefix(e.Key, drainedPrefix)
	c.mu.Lock()
	defer c.mu.Unlock()
	if max(c.drained[id], -c.drained[id]) >= e.Revision {
		return
	}
	was := c.drained[id] > 0
	c.drained[id] = e.Revision
	if e.Value == nil {
		c.drained[id] = -e.Revision
	}
	if was != (e.Value != nil) {
		c.notify()
	}
}

func (c *Cluster) allDrained(list []state.Entry, revision int64) {
	c.all(list, revision, c.oneDrained, func() (keys []string) {
		for id := range c.drained {
			keys = append(keys, drainedPrefix+id)
		}
		return keys
	})
}

// all takes in everything that there is as of a revision; known is what there was, called with c.mu held.
func (c *Cluster) all(list []state.Entry, revision int64, one func(state.Entry), known func() []string) {
	there := make(map[string]bool, len(list))
	for _, e := range list {
		there[e.Key] = true
		one(e)
	}
	c.mu.Lock()
	keys := known()
	c.mu.Unlock()
	for _, key := range keys {
		if !there[key] {
			one(state.Entry{Key: key, Revision: revision})
		}
	}
}

func (c *Cluster) oneHub(e state.Entry) {
	id := strings.TrimPrefix(e.Key, hubsPrefix)
	k := known{revision: e.Revision, gone: e.Value == nil}
	if !k.gone {
		if err := json.Unmarshal(e.Value, &k.entry); err != nil || k.ID != id {
			c.o.Log.Error("what a hub says of itself cannot be read and is left out", "key", e.Key, "error", err)
			return
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	old, ok := c.hubs[id]
	if ok && old.revision >= e.Revision {
		return
	}
	c.hubs[id] = k
	c.notify()
	switch fresh := !ok || old.gone; {
	case id == c.id && k.Run != c.run:
		select {
		case c.wake <- struct{}{}:
		default:
		}
	case id == c.id:
	case k.gone && !fresh:
		c.o.Log.Info("a hub is gone", "hub", id, "name", old.Name)
	case !k.gone && fresh:
		c.o.Log.Info("a hub is there", "hub", id, "name", k.Name, "url", k.URL)
	}
}

func (c *Cluster) allHubs(list []state.Entry, revision int64) {
	c.all(list, revision, c.oneHub, func() (keys []string) {
		for id := range c.hubs {
			keys = append(keys, hubsPrefix+id)
		}
		return keys
	})
}

// keep looks after this hub's entry until ctx is done.
func (c *Cluster) keep(ctx context.Context) {
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		c.mu.Lock()
		lost := c.under.Lost()
		c.mu.Unlock()
		select {
		case <-tick.C:
		case <-c.wake:
		case <-lost:
			select { // it may be lost again at once
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return
		}
		asking, cancel := context.WithTimeout(ctx, look)
		err := c.tend(asking)
		cancel()
		if ctx.Err() == nil && err != nil {
			c.mu.Lock()
			c.health.Error = err.Error()
			c.mu.Unlock()
			c.o.Log.Warn("look after the hub's entry in the control state; will try again", "error", err)
		}
	}
}

// tend asks for this hub's entry, which tells how the control state is as well, and writes it if it is not as it should be.
func (c *Cluster) tend(ctx context.Context) error {
	began := time.Now()
	e, err := c.o.Store.Get(ctx, hubsPrefix+c.id)
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return err
	}
	c.mu.Lock()
	c.health = Health{Answered: time.Now(), Took: time.Since(began)}
	leased := c.under.Held()
	c.mu.Unlock()
	if err == nil {
		c.oneHub(e)
		var now entry
		if json.Unmarshal(e.Value, &now) == nil {
			switch self := c.ask(); {
			case now.Run != c.run:
				return c.face(ctx, now)
			case leased && !differs(self, now.Hub):
				return nil
			}
		}
	}
	return c.write(ctx)
}

// face deals with another hub that has taken this hub's entry because it has the same id: the older one keeps it.
func (c *Cluster) face(ctx context.Context, other entry) error {
	c.mu.Lock()
	told := c.twin
	c.twin = true
	c.mu.Unlock()
	if !told {
		c.o.Log.Error("two hubs run with the same id, and take each other's agents for their own: stop the one that has a copied state directory", "id", c.id, "other", other.Name, "started", other.Started)
	}
	if c.ask().Started.After(other.Started) {
		return ErrTwin
	}
	return c.write(ctx)
}

// differs reports whether what a hub says of itself is worth telling anew.
func differs(now, told Hub) bool {
	agents, size := now.Agents-told.Agents, now.State-told.State
	now.Agents, now.State = told.Agents, told.State
	a, b := encode(now), encode(told)
	return max(agents, -agents)*100 > told.Agents*share || max(size, -size)*100 > told.State*sizeShare || !bytes.Equal(a, b)
}

func encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return data
}

// write writes this hub's entry as it is now.
func (c *Cluster) write(ctx context.Context) error {
	self := c.ask()
	value := encode(entry{self, c.run})
	lease := c.o.Store.Lease()
	revision, err := c.o.Store.Put(ctx, hubsPrefix+c.id, value, true, state.Always())
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.under, c.health = lease, Health{Answered: time.Now(), Took: c.health.Took}
	c.mu.Unlock()
	c.oneHub(state.Entry{Key: hubsPrefix + c.id, Value: value, Revision: revision})
	return nil
}

// ask asks what there is to say of this hub.
func (c *Cluster) ask() Hub {
	self := c.o.Self()
	self.Draining = false
	c.mu.Lock()
	defer c.mu.Unlock()
	c.self = self
	return self
}
