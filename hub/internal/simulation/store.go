package simulation

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/creelhq/creel/hub/internal/documents"
	"github.com/creelhq/creel/hub/internal/state"
)

const placementsPrefix = "placements/"

// errAway is what a hub hears of a control state that does not answer.
var errAway = errors.New("the control state does not answer")

// A store is the control state. It is always right; who is cut off from it is not.
type store struct {
	w         *world
	away      int // by how many faults
	revision  int64
	entries   map[string]held
	log       []state.Entry // from revision compacted+1 on
	compacted int64
	leases    []*lease
	owners    map[string]documents.Owners // what placements say
	moved     time.Duration               // when that was different last
}

type held struct {
	state.Entry
	lease *lease
}

// A lease is a hub's, until it has not been kept for state.LeaseTTL.
type lease struct {
	ends time.Duration
	over bool
}

func (s *store) put(key string, value []byte, l *lease, c state.Condition) (int64, error) {
	if !c.Any && s.entries[key].Revision != c.Revision {
		s.w.h.Clashes++
		if s.w.Wrong != NoCompare || !strings.HasPrefix(key, placementsPrefix) {
			return 0, state.ErrConflict
		}
	}
	if l != nil && l.over {
		return 0, errors.New("the lease is over")
	}
	return s.change(key, value, l), nil
}

func (s *store) delete(key string, c state.Condition) error {
	e, ok := s.entries[key]
	if !c.Any && e.Revision != c.Revision {
		return state.ErrConflict
	}
	if ok {
		s.change(key, nil, nil)
	}
	return nil
}

func (s *store) list(prefix string) (list []state.Entry) {
	for _, key := range slices.Sorted(maps.Keys(s.entries)) {
		if strings.HasPrefix(key, prefix) {
			list = append(list, s.entries[key].Entry)
		}
	}
	return list
}

// change makes a new revision, and has the hubs told.
func (s *store) change(key string, value []byte, l *lease) int64 {
	s.revision++
	e := state.Entry{Key: key, Value: value, Revision: s.revision, Leased: l != nil}
	if value == nil {
		delete(s.entries, key)
	} else {
		s.entries[key] = held{e, l}
	}
	s.log = append(s.log, e)
	if name, ok := strings.CutPrefix(key, placementsPrefix); ok {
		s.placed(name, value)
	}
	for _, h := range s.w.hubs {
		for _, st := range h.streams {
			if strings.HasPrefix(key, st.prefix) {
				h.pump(st)
			}
		}
	}
	return s.revision
}

// placed notes who is an owner that was none.
func (s *store) placed(name string, value []byte) {
	was, now, d := s.owners[name], ownersOf(value), s.w.document(name)
	s.owners[name] = now
	for i := range max(len(was.Owners), len(now.Owners)) {
		var a, b documents.Owner
		if i < len(was.Owners) {
			a = was.Owners[i]
		}
		if i < len(now.Owners) {
			b = now.Owners[i]
		}
		if a.Agent == b.Agent && a.Epoch == b.Epoch {
			continue
		}
		if s.moved = s.w.now; b.Agent != "" {
			s.w.h.Moves++
			s.w.texts[d].places[b.Epoch] = i
		}
		s.w.note(Event{Kind: Placed, Hub: -1, Document: d, Place: i, Agent: s.w.agent(b.Agent), Epoch: b.Epoch})
	}
}

func ownersOf(value []byte) (o documents.Owners) {
	if value != nil {
		if err := json.Unmarshal(value, &o); err != nil {
			panic("BUG: " + err.Error())
		}
	}
	return o
}

// document returns the number of a document.
func (w *world) document(name string) int {
	return slices.IndexFunc(w.texts, func(t *text) bool { return t.name == name })
}

// agent returns the number of the first agent with an id.
func (w *world) agent(id string) int {
	return slices.IndexFunc(w.agents, func(a *agent) bool { return a.id == id })
}

// grant gives out a lease.
func (s *store) grant() *lease {
	l := &lease{ends: s.w.now + state.LeaseTTL}
	s.leases = append(s.leases, l)
	s.expire(l)
	return l
}

// expire ends a lease when it is time.
func (s *store) expire(l *lease) {
	s.w.after(l.ends-s.w.now, func() {
		switch {
		case l.over:
		case l.ends > s.w.now || s.away > 0:
			if s.away > 0 { // who brings it back gives all leases their full time
				l.ends = s.w.now + state.LeaseTTL
			}
			s.expire(l)
		default:
			s.end(l)
		}
	})
}

func (s *store) end(l *lease) {
	l.over = true
	for _, key := range slices.Sorted(maps.Keys(s.entries)) {
		if s.entries[key].lease == l {
			s.change(key, nil, nil)
		}
	}
	s.leases = slices.DeleteFunc(s.leases, func(x *lease) bool { return x == l })
}

// back brings the store back: all leases have their full time again.
func (s *store) back() {
	for _, l := range s.leases {
		l.ends = s.w.now + state.LeaseTTL
	}
}

// compact forgets what was changed.
func (s *store) compact() { s.log, s.compacted = nil, s.revision }

// A stream is a hub's watch of a prefix.
type stream struct {
	prefix string
	after  int64
	one    func(state.Entry)
	all    func([]state.Entry, int64)
	busy   bool
}

// pump brings the next change to a hub, if there is one and it is not under way already.
func (h *hub) pump(st *stream) {
	if st.busy || h.next(st) == nil && st.after >= h.w.store.compacted {
		return
	}
	st.busy = true
	delay := h.w.between(time.Millisecond, 50*time.Millisecond)
	if h.lags > 0 {
		delay = h.w.between(time.Second, 8*time.Second)
	}
	h.w.after(delay, func() { h.get(h.life, func() { h.deliver(st) }) })
}

// next returns the next change for a stream.
func (h *hub) next(st *stream) *state.Entry {
	s := h.w.store
	for ; st.after >= s.compacted && st.after < s.revision; st.after++ {
		if e := &s.log[st.after-s.compacted]; strings.HasPrefix(e.Key, st.prefix) {
			return e
		}
	}
	return nil
}

func (h *hub) deliver(st *stream) {
	if !slices.Contains(h.streams, st) {
		return
	}
	if h.cut > 0 || h.w.store.away > 0 { // it is tried again
		h.after(h.w.between(100*time.Millisecond, time.Second), func() { h.deliver(st) })
		return
	}
	st.busy = false
	if s := h.w.store; st.after < s.compacted {
		h.w.h.Counts[Relisted]++
		st.after = s.revision
		st.all(s.list(st.prefix), s.revision)
	} else if e := h.next(st); e != nil {
		st.after = e.Revision
		st.one(*e)
	}
	h.pump(st)
}

// A request is a write of the placer's that waits for an answer.
type request struct {
	do       func() (int64, error)
	revision int64
	err      error
}

// A client is a hub's way to the control state, for documents and the placer: a state.Store.
type client struct {
	h     *hub
	ready chan *watch         // of documents, which watches in goroutines that only wait
	yield func(*request) bool // of the look that goes on; nil: none, and writes are done at once
	dead  bool
}

type watch struct {
	prefix string
	after  int64
	f      func(state.Entry) error
	end    chan error
}

func (c *client) Get(_ context.Context, key string) (state.Entry, error) {
	e, ok := c.h.w.store.entries[key]
	if !ok {
		return state.Entry{}, state.ErrNotFound
	}
	return e.Entry, nil
}

func (c *client) List(_ context.Context, prefixes ...string) (list []state.Entry, revision int64, err error) {
	for _, prefix := range prefixes {
		list = append(list, c.h.w.store.list(prefix)...)
	}
	return list, c.h.w.store.revision, nil
}

func (c *client) write(ctx context.Context, do func() (int64, error)) (int64, error) {
	if c.yield == nil {
		return do()
	}
	r := &request{do: do}
	if ctx.Err() != nil || c.dead {
		return 0, context.Canceled
	}
	if !c.yield(r) {
		c.dead = true
		return 0, context.Canceled
	}
	return r.revision, r.err
}

func (c *client) Put(ctx context.Context, key string, value []byte, leased bool, cond state.Condition) (int64, error) {
	if leased {
		panic("BUG: nothing that is leased is written here")
	}
	return c.write(ctx, func() (int64, error) { return c.h.w.store.put(key, value, nil, cond) })
}

func (c *client) Delete(ctx context.Context, key string, cond state.Condition) error {
	_, err := c.write(ctx, func() (int64, error) { return 0, c.h.w.store.delete(key, cond) })
	return err
}

// Watch hands over f, which the simulation calls.
func (c *client) Watch(ctx context.Context, prefix string, after int64, f func(state.Entry) error) error {
	x := &watch{prefix, after, f, make(chan error)}
	select {
	case c.ready <- x:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-x.end:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *client) Lease() *state.Lease { return nil }
func (c *client) Close() error        { return nil }

// follow makes streams of what documents watches.
func (c *client) follow() {
	list := []*watch{<-c.ready, <-c.ready}
	slices.SortFunc(list, func(x, y *watch) int { return strings.Compare(x.prefix, y.prefix) })
	for _, x := range list {
		st := &stream{prefix: x.prefix, after: x.after}
		st.one = func(e state.Entry) {
			if err := x.f(e); err != nil {
				panic("BUG: " + err.Error())
			}
			c.h.applied(e)
		}
		st.all = func(list []state.Entry, _ int64) {
			x.end <- state.ErrCompacted
			x = <-c.ready // it has listed
			for _, e := range list {
				c.h.applied(e)
			}
		}
		c.h.streams = append(c.h.streams, st)
	}
}
