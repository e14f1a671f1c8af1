package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/hub/internal/state"
)

// shared is a control state whose answers take their time, and which fails now and then.
type shared struct {
	m  state.Memory
	mu sync.Mutex // one operation at a time, so that what is deleted is known

	random *rand.Rand
	faults int      // in a hundred operations
	wrong  []string // what one hub did to another's
	failed int      // operations
}

// hubStore is what one hub sees of it. Its lease can be lost.
type hubStore struct {
	state.Store
	hub    string
	all    *shared
	leased state.Store
}

func (s *shared) open(hub string) *hubStore {
	return &hubStore{Store: s.m.Open(), hub: hub, all: s, leased: s.m.Open()}
}

func (h *hubStore) Lease() *state.Lease {
	h.all.mu.Lock()
	defer h.all.mu.Unlock()
	return h.leased.Lease()
}

// lose takes the lease away.
func (h *hubStore) lose() {
	h.all.mu.Lock()
	defer h.all.mu.Unlock()
	h.leased.Close()
	h.leased = h.all.m.Open()
}

func (h *hubStore) close() {
	h.leased.Close()
	h.Store.Close()
}

// slow waits for a while, and may fail before or after the operation.
func (h *hubStore) slow(do func() error) error {
	h.all.mu.Lock()
	before, after := h.all.random.IntN(20), h.all.random.IntN(20)
	fault := h.all.random.IntN(200)
	h.all.mu.Unlock()
	time.Sleep(time.Duration(before) * time.Millisecond)
	h.all.mu.Lock()
	var err error
	if fault < h.all.faults {
		h.all.failed++
		err = errors.New("it did not arrive")
	} else if err = do(); err == nil && fault < 2*h.all.faults {
		h.all.failed++
		err = errors.New("the answer did not arrive")
	}
	h.all.mu.Unlock()
	time.Sleep(time.Duration(after) * time.Millisecond)
	return err
}

func (h *hubStore) Get(ctx context.Context, key string) (e state.Entry, err error) {
	err = h.slow(func() (err error) { e, err = h.Store.Get(ctx, key); return err })
	return e, err
}

func (h *hubStore) Put(ctx context.Context, key string, value []byte, leased bool, c state.Condition) (revision int64, err error) {
	err = h.slow(func() (err error) {
		s := h.Store
		if leased {
			s = h.leased
		}
		revision, err = s.Put(ctx, key, value, leased, c)
		return err
	})
	return revision, err
}

func (h *hubStore) Delete(ctx context.Context, key string, c state.Condition) error {
	return h.slow(func() error {
		var p presence
		e, err := h.Store.Get(ctx, key)
		if err == nil && strings.HasPrefix(key, sessionsPrefix) {
			if err = json.Unmarshal(e.Value, &p); err != nil {
				return err
			}
		}
		if err := h.Store.Delete(ctx, key, c); err != nil {
			return err
		}
		if p.Hub != "" && p.Hub != h.hub {
			h.all.wrong = append(h.all.wrong, fmt.Sprintf("%s deleted %s's session", h.hub, p.Hub))
		}
		return nil
	})
}

func held(a *agent) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.held
}

// TestSessions: an agent connects to this hub and that in any order, with a control state that is slow and fails; hubs hear late
// or never that a connection is over, and lose their leases. In the end all agree where it is, or that it has gone, and no hub has
// ever ended another's session.
func TestSessions(t *testing.T) {
	seed := rand.Uint64()
	rounds := 60
	if testing.Short() {
		rounds = 20
	}
	failed, moves, again := 0, 0, 0
	for round := range rounds {
		random := rand.New(rand.NewPCG(seed, uint64(round)))
		synctest.Test(t, func(t *testing.T) {
			all := &shared{random: random, faults: random.IntN(3) * 15}
			sessions(t, all, &moves, &again)
			failed += all.failed
		})
		if t.Failed() {
			t.Fatalf("seed %d, round %d", seed, round)
		}
	}
	if failed == 0 || moves == 0 || again > rounds/2 {
		t.Errorf("%d operations failed, the agent moved %d times, and had to come %d times again", failed, moves, again)
	}
}

func sessions(t *testing.T, all *shared, moves, again *int) {
	const hubs = 3
	id := uuid.NewString()
	var stores []*hubStore
	var regs []*Registry
	roll := func(n int) int {
		all.mu.Lock()
		defer all.mu.Unlock()
		return all.random.IntN(n)
	}
	for i := range hubs {
		s := all.open(fmt.Sprintf("hub-%d", i))
		r, err := Open(t.Context(), Options{Hub: s.hub, Store: s, Heartbeat: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		stores, regs = append(stores, s), append(regs, r)
	}
	var history []string
	at := -1
	connect := func(hub int) {
		if at >= 0 && at != hub {
			*moves++
		}
		at = hub
		history = append(history, fmt.Sprintf("to %d", hub))
		a := regs[hub].get(id)
		a.connect(nil, visitor{}, fmt.Sprintf("connection %d", len(history)))
	}
	for range 2 + roll(8) {
		switch hub := roll(hubs); roll(6) {
		case 0, 1, 2:
			connect(hub)
		case 3: // a hub notes that its connection broke: the last one, or one before
			history = append(history, fmt.Sprintf("broke at %d", hub))
			if a := regs[hub].known(id, false); a != nil {
				a.left(nil, "it broke", false)
			}
			if hub == at {
				at = -1
			}
		case 4:
			if at >= 0 {
				history = append(history, fmt.Sprintf("left %d", at))
				regs[at].get(id).left(nil, "it was stopped", true)
				at = -1
			}
		case 5:
			history = append(history, fmt.Sprintf("%d lost its lease", hub))
			stores[hub].lose()
		}
		time.Sleep(time.Duration(1+roll(50)) * time.Millisecond)
	}
	goodbye, last := roll(3) == 0, roll(hubs)
	fresh := !held(regs[last].get(id)) // else it has polled again
	connect(last)
	time.Sleep(time.Minute)
	if a := regs[last].get(id); !held(a) { // another hub was late, and has had this connection closed: it comes again
		*again++
		connect(last)
		time.Sleep(time.Minute)
	}
	if goodbye {
		history = append(history, "goodbye")
		regs[last].get(id).left(nil, "it was stopped", true)
	}
	time.Sleep(time.Minute)
	synctest.Wait()
	want := api.Connected
	if goodbye {
		want = api.Disconnected
	}
	for i, r := range regs {
		a := r.known(id, false)
		if a == nil {
			t.Fatalf("%v: %d does not know it", history, i)
		}
		a.mu.Lock()
		if a.Hub != regs[last].o.Hub || a.Connection != want || a.held != (i == last && !goodbye) || (a.session.revision > 0) == goodbye || a.owed != (owed{}) {
			t.Errorf("%v: %d believes that it is %s at %s, held %v, session %+v, owes %+v", history, i, a.Connection, a.Hub, a.held, a.session, a.owed)
		}
		if n := len(a.Timeline); n == 0 || (fresh || goodbye) && a.Timeline[n-1].Kind != string(want) {
			t.Errorf("%v: %d has the timeline %+v", history, i, a.Timeline)
		}
		a.mu.Unlock()
		if n := int(r.connected.Load() + r.elsewhere.Load()); n != map[bool]int{false: 1, true: 0}[goodbye] || r.Connected() > n {
			t.Errorf("%v: %d counts %d agents", history, i, n)
		}
	}
	var rec record
	e, err := all.m.Open().Get(t.Context(), agentsPrefix+id)
	if err != nil || json.Unmarshal(e.Value, &rec) != nil || rec.Hub != regs[last].o.Hub || rec.By != rec.Hub || rec.Connection != want {
		t.Errorf("%v: kept is %s, %v", history, e.Value, err)
	}
	for _, w := range all.wrong {
		t.Errorf("%v: %s", history, w)
	}
	for i, r := range regs {
		r.Close()
		stores[i].close()
	}
}
