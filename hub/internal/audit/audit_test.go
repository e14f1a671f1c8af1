package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/hub/internal/state"
)

// faulty is a Store that fails as it is told, and counts.
type faulty struct {
	state.Store
	put       atomic.Pointer[func(do func() (int64, error)) (int64, error)]
	conflicts atomic.Int64
}

func (s *faulty) Put(ctx context.Context, key string, value []byte, leased bool, c state.Condition) (int64, error) {
	do := func() (int64, error) { return s.Store.Put(ctx, key, value, leased, c) }
	if f := s.put.Load(); f != nil {
		return (*f)(do)
	}
	revision, err := do()
	if errors.Is(err, state.ErrConflict) {
		s.conflicts.Add(1)
	}
	return revision, err
}

func open(t interface {
	Fatal(...any)
	Cleanup(func())
}, o Options) *Log {
	if o.Hub == "" {
		o.Hub = "hub"
	}
	l, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func did(action string) api.AuditEntry {
	return api.AuditEntry{Who: "anna", Role: api.Admin, Address: "192.0.2.1", Action: action, Target: "t", Outcome: Done}
}

// all returns the whole log by pages, oldest first, and what is broken on any.
func all(t interface{ Fatal(...any) }, l *Log, q api.AuditQuery) (list []api.AuditEntry, broken int64) {
	for {
		page, err := l.List(context.Background(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Entries {
			list = append([]api.AuditEntry{e}, list...)
		}
		broken = max(broken, page.Broken)
		if page.Next == 0 {
			return list, broken
		}
		q.Before = page.Next
	}
}

// TestHubsAtOnce: what many hubs write at the same time is one chain without gaps.
func TestHubsAtOnce(t *testing.T) {
	const hubs, writers, each = 4, 3, 25
	m := &state.Memory{}
	var wg sync.WaitGroup
	var conflicts atomic.Int64
	for h := range hubs {
		s := &faulty{Store: m.Open()}
		l := open(t, Options{Store: s, Hub: fmt.Sprint("hub", h)})
		for w := range writers {
			wg.Go(func() {
				for i := range each {
					if err := l.Add(t.Context(), did(fmt.Sprintf("%d.%d.%d", h, w, i))); err != nil {
						t.Error(err)
					}
				}
				conflicts.Add(s.conflicts.Swap(0))
			})
		}
	}
	wg.Wait()
	list, broken := all(t, open(t, Options{Store: m.Open()}), api.AuditQuery{Limit: 70})
	if broken != 0 || len(list) != hubs*writers*each {
		t.Errorf("%d entries, %d is broken", len(list), broken)
	}
	seen := map[string]bool{}
	for i, e := range list {
		if e.Number != int64(i+1) || seen[e.Action] || !strings.HasPrefix(e.Action, e.Hub[3:]+".") {
			t.Fatalf("entry %d is %+v", i+1, e)
		}
		seen[e.Action] = true
	}
	if conflicts.Load() == 0 {
		t.Log("no hub was in another's way: the machine does one thing at a time")
	}
}

// TestBehind has a hub that knows an old end go on from the new one, also when what it knows was removed meanwhile.
func TestBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &state.Memory{}
		late := open(t, Options{Store: m.Open(), Hub: "late", keep: 150, remove: 50})
		busy := open(t, Options{Store: m.Open(), Hub: "busy", keep: 150, remove: 50})
		want := int64(0)
		for _, n := range []int{1, 99, 100, 250, 500, 98} {
			for i := range n + 1 {
				l := busy
				if i == n {
					l = late
				}
				if err := l.Add(t.Context(), did("x")); err != nil {
					t.Fatal(err)
				}
				synctest.Wait() // until the oldest are removed
				if want++; l.known().number != want {
					t.Fatalf("the newest is %d, want %d", l.known().number, want)
				}
			}
		}
		list, broken := all(t, open(t, Options{Store: m.Open(), keep: 150, remove: 50}), api.AuditQuery{})
		if first := list[0].Number; broken != 0 || first != 901 || list[len(list)-1].Number != want || int64(len(list)) != want-first+1 {
			t.Errorf("%d entries, from %d, are left of %d; %d is broken", len(list), first, want, broken)
		}
	})
}

// TestTampering spoils the log in every way, and expects to be told where.
func TestTampering(t *testing.T) {
	edit := func(f func(e *api.AuditEntry)) func(v []byte) []byte {
		return func(v []byte) []byte {
			var e api.AuditEntry
			if err := json.Unmarshal(v, &e); err != nil {
				t.Fatal(err)
			}
			f(&e)
			v, _ = json.Marshal(e)
			return v
		}
	}
	good := (&state.Memory{}).Open()
	writer := open(t, Options{Store: good})
	for range 130 {
		if err := writer.Add(t.Context(), did("x")); err != nil {
			t.Fatal(err)
		}
	}
	written, _, err := good.List(t.Context(), prefix)
	if err != nil {
		t.Fatal(err)
	}
	f := func(name string, broken int64, spoil func(get func(int64) []byte, put func(int64, []byte))) {
		t.Helper()
		m := &state.Memory{}
		s := m.Open()
		l := open(t, Options{Store: s})
		for _, e := range written {
			if _, err := s.Put(t.Context(), e.Key, e.Value, false, state.Unchanged(0)); err != nil {
				t.Fatal(err)
			}
		}
		if n, err := l.newest(t.Context()); err != nil || n != 130 {
			t.Fatalf("the newest is %d, %v", n, err)
		}
		spoil(func(n int64) []byte {
			e, err := s.Get(t.Context(), key(n))
			if err != nil {
				t.Fatal(err)
			}
			return e.Value
		}, func(n int64, v []byte) {
			var err error
			if v == nil {
				err = s.Delete(t.Context(), key(n), state.Always())
			} else {
				_, err = s.Put(t.Context(), key(n), v, false, state.Always())
			}
			if err != nil {
				t.Fatal(err)
			}
		})
		if _, got := all(t, l, api.AuditQuery{Limit: 33}); got != broken {
			t.Errorf("%s: %d is broken, want %d", name, got, broken)
		}
		if _, got := all(t, l, api.AuditQuery{Search: "nothing has this word"}); got != broken {
			t.Errorf("%s: a search says that %d is broken, want %d", name, got, broken)
		}
		if err := l.Add(t.Context(), did("afterwards")); err != nil {
			t.Errorf("%s: nothing can be added: %v", name, err)
		}
		if list, got := all(t, l, api.AuditQuery{}); got != broken && got != 131 || list[len(list)-1].Number != 131 {
			t.Errorf("%s: after one more %d is broken, and %d is the last", name, got, list[len(list)-1].Number)
		}
	}
	type get = func(int64) []byte
	type put = func(int64, []byte)
	f("untouched", 0, func(get, put) {})
	for _, n := range []int64{1, 99, 100, 130} {
		f("who", n, func(g get, p put) { p(n, edit(func(e *api.AuditEntry) { e.Who = "bert" })(g(n))) })
		f("time", n, func(g get, p put) { p(n, edit(func(e *api.AuditEntry) { e.Time = e.Time.Add(time.Second) })(g(n))) })
		f("moved text", n, func(g get, p put) { p(n, edit(func(e *api.AuditEntry) { e.Target, e.Outcome = "", "tdone" })(g(n))) })
		above := min(n+1, 130) // what comes behind it hangs in the air as well
		f("garbage", above, func(_ get, p put) { p(n, []byte("garbage")) })
		f("removed", above, func(_ get, p put) { p(n, nil) })
		f("anew", above, func(g get, p put) {
			p(n, edit(func(e *api.AuditEntry) { e.Who = "bert"; e.Hash = sum("", *e) })(g(n)))
		})
	}
	f("swapped", 121, func(g get, p put) { a, b := g(50), g(120); p(50, b); p(120, a) })
	f("swapped with their numbers", 121, func(g get, p put) {
		a, b := g(50), g(120)
		p(50, edit(func(e *api.AuditEntry) { e.Number = 50 })(b))
		p(120, edit(func(e *api.AuditEntry) { e.Number = 120 })(a))
	})
	f("the newest ten", 130, func(_ get, p put) {
		for n := range int64(10) {
			p(121+n, nil)
		}
	})
	f("the oldest 110", 111, func(_ get, p put) {
		for n := range int64(110) {
			p(1+n, nil)
		}
	})
}

// TestModel holds the log of some hubs against a list.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &state.Memory{}
		const keep, remove = 40, 10
		logs := make([]*Log, 3)
		start := func(i int) {
			logs[i] = open(t, Options{Store: m.Open(), Hub: fmt.Sprint("hub", i), keep: keep, remove: remove})
		}
		for i := range logs {
			start(i)
		}
		var model []api.AuditEntry // without times and hashes
		words := []string{"apply", "order", "Größe", "x"}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				i := rapid.IntRange(0, 2).Draw(t, "hub")
				for range rapid.SampledFrom([]int{1, 1, 5, 30}).Draw(t, "n") {
					e := did(rapid.SampledFrom(words).Draw(t, "action"))
					if err := logs[i].Add(t.Context(), e); err != nil {
						t.Fatal(err)
					}
					e.Hub, e.Number = logs[i].o.Hub, int64(len(model)+1)
					model = append(model, e)
				}
			},
			"restart": func(t *rapid.T) {
				i := rapid.IntRange(0, 2).Draw(t, "hub")
				logs[i].Close()
				start(i)
			},
			"look": func(t *rapid.T) {
				word := rapid.SampledFrom(append(words, "")).Draw(t, "search")
				got, broken := all(t, logs[0], api.AuditQuery{Search: strings.ToUpper(word), Limit: rapid.IntRange(15, 90).Draw(t, "limit")})
				if broken != 0 {
					t.Fatalf("%d is broken", broken)
				}
				var want []api.AuditEntry
				for _, e := range model {
					if strings.Contains(e.Action+" anna t done", word) {
						want = append(want, e)
					}
				}
				for i := range got {
					got[i].Time, got[i].Hash = time.Time{}, ""
				}
				// What is older than what must stay may be removed at any time.
				must := int64(len(model)) - keep
				for len(want) > len(got) && want[0].Number <= must {
					want = want[1:]
				}
				if !slices.Equal(want, got) {
					t.Fatal(cmp.Diff(want, got))
				}
			},
		})
	})
}

// TestAway: what cannot be written is an error, and an answer that is lost is none.
func TestAway(t *testing.T) {
	m := &state.Memory{}
	s := &faulty{Store: m.Open()}
	l := open(t, Options{Store: s})
	away := errors.New("away")
	calls := 0
	fault := func(f func(do func() (int64, error)) (int64, error)) {
		counted := func(do func() (int64, error)) (int64, error) { calls++; return f(do) }
		s.put.Store(&counted)
	}
	fault(func(func() (int64, error)) (int64, error) { return 0, away })
	if err := l.Add(t.Context(), did("not")); !errors.Is(err, away) {
		t.Errorf("what cannot be written is %v", err)
	}
	fault(func(do func() (int64, error)) (int64, error) { _, _ = do(); return 0, away })
	for i := range 3 {
		if err := l.Add(t.Context(), did(fmt.Sprint("lost answer ", i))); err != nil {
			t.Error(err)
		}
	}
	if calls != 4 {
		t.Errorf("%d faults", calls)
	}
	s.put.Store(nil)
	if err := l.Add(t.Context(), did("back")); err != nil {
		t.Error(err)
	}
	list, broken := all(t, l, api.AuditQuery{})
	if broken != 0 || len(list) != 4 || list[0].Action != "lost answer 0" || list[3].Action != "back" {
		t.Errorf("the log is %+v, %d is broken", list, broken)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Add(ctx, did("cancelled")); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled one is %v", err)
	}
}

func refused(address, outcome string) api.AuditEntry {
	return api.AuditEntry{Who: "who" + address, Address: address, Action: "signIn", Outcome: outcome}
}

// TestGathered: floods of refusals become few entries that say how many there were, and nothing that was done is among them.
func TestGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &state.Memory{}
		s := &faulty{Store: m.Open()}
		l := open(t, Options{Store: s})
		add := func(e api.AuditEntry) {
			t.Helper()
			if err := l.Add(t.Context(), e); err != nil {
				t.Error(err)
			}
		}
		for range 100 {
			add(refused("192.0.2.1", "unauthorized"))
			add(refused("192.0.2.2", "token_spent"))
			add(did("apply"))
			e := did("delete")
			e.Outcome = "forbidden"
			add(e)
		}
		expect := func(what string, written int, details ...string) {
			t.Helper()
			list, broken := all(t, l, api.AuditQuery{})
			if broken != 0 || len(list) != written+len(details) {
				t.Fatalf("%s: %d entries, want %d and %d; %d is broken", what, len(list), written, len(details), broken)
			}
			for i, want := range details {
				if got := list[written+i]; !strings.Contains(got.Detail, want) {
					t.Errorf("%s: a gathered entry is %+v, want %s", what, got, want)
				}
			}
		}
		written := 3 + 3 + 100 + 60
		expect("at once", written)
		pass := func() { time.Sleep(every); synctest.Wait() }
		pass()
		expect("after a minute", written, "40 more", "97 more", "97 more")
		pass()
		expect("after a quiet minute", written+3)

		// Many addresses, when the control state is away in between.
		away := func(func() (int64, error)) (int64, error) { return 0, errors.New("away") }
		for i := range 5000 {
			add(refused(fmt.Sprintf("2001:db8::%x", i), "unauthorized"))
		}
		list, _ := all(t, l, api.AuditQuery{})
		if written = len(list); written > 166+3+burst {
			t.Errorf("a flood from many addresses wrote %d", written)
		}
		s.put.Store(&away)
		pass()
		s.put.Store(nil)
		expect("away", written)
		pass()
		list, broken := all(t, l, api.AuditQuery{})
		if n := len(list) - written; broken != 0 || n < 1 || n > 1+2*refill {
			t.Errorf("then %d entries were gathered, %d is broken", n, broken)
		}
		total := written - 169
		for _, e := range list[written:] {
			var n int
			if _, err := fmt.Sscanf(e.Detail, "%d more", &n); err != nil {
				t.Error(err)
			}
			total += n
		}
		if total != 5000 {
			t.Errorf("%d of 5000 are told of", total)
		}
		add(refused("192.0.2.9", "a"))
		for range 20 {
			add(refused("192.0.2.9", "a"))
		}
		l.Close()
		list, _ = all(t, open(t, Options{Store: m.Open()}), api.AuditQuery{Search: "more these signin"})
		if len(list) == 0 || list[len(list)-1].Address != "192.0.2.9" {
			t.Errorf("what was gathered last is lost: %+v", list)
		}
	})
}

func TestClean(t *testing.T) {
	f := func(in, want string) {
		t.Helper()
		if got := cut(in, 8); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
	f("plain", "plain")
	f("12345678", "12345678")
	f("123456789", "12345678…")
	f("Größe 日本語", "Größe 日本…")
	f("a\nb\tc", "a b c")
	f("\x1b[31m\x00", "\ufffd[31m\ufffd")
	f("a\u202eb\xffc", "a\ufffdb\ufffdc")
	l := open(t, Options{Store: (&state.Memory{}).Open()})
	e := did(strings.Repeat("x", 1000))
	e.Who, e.Detail = "eve\x1b[2J", strings.Repeat("y\n", 1<<20)
	if err := l.Add(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	list, broken := all(t, l, api.AuditQuery{})
	if got := list[0]; broken != 0 || got.Who != "eve\ufffd[2J" || len(got.Action) > 110 || len(got.Detail) > 2100 {
		t.Errorf("%d is broken; the entry is %+v", broken, got)
	}
}
