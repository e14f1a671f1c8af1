package authority

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/hub/internal/state"
)

// settle waits until all hubs have heard of everything, and have done what they do about it.
func settle(t tester, hubs ...*Authority) {
	t.Helper()
	for {
		before, err := hubs[0].o.Store.Get(context.Background(), recordKey)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range hubs {
			for {
				changed := a.Changed()
				if a.set.Load().revision >= before.Revision {
					break
				}
				<-changed
			}
			if err := a.tend(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		if after, err := hubs[0].o.Store.Get(context.Background(), recordKey); err != nil || after.Revision == before.Revision {
			return
		}
	}
}

func keysOf(t tester, a *Authority) []rootKey {
	t.Helper()
	keys, err := a.keys()
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func keysIn(t tester, a *Authority) int { return len(keysOf(t, a)) }

// TestTogether has hubs start at once: they end with one authority, whose root's key one of them has.
func TestTogether(t *testing.T) {
	const hubs = 5
	m, c := &state.Memory{}, newClock()
	list := make([]*Authority, hubs)
	dirs := make([]string, hubs)
	var wg sync.WaitGroup
	for i := range hubs {
		dirs[i] = t.TempDir()
		wg.Go(func() { list[i] = start(t, m.Open(), c, dirs[i]) })
	}
	wg.Wait()
	keys := 0
	for i, a := range list {
		defer a.Close()
		if a.Fingerprint() != list[0].Fingerprint() {
			t.Error("two hubs have two authorities")
		}
		if _, err := list[(i+1)%hubs].Verify(issue(t, a, 1)); err != nil {
			t.Errorf("one hub's agent at another: %v", err)
		}
		if info, err := os.Stat(a.keyFile()); err == nil && info.Mode() != 0o600 {
			t.Errorf("root.key has mode %v", info.Mode())
		}
		if a.Describe().RootKey != (keysIn(t, a) == 1) {
			t.Error("RootKey is wrong")
		}
		keys += keysIn(t, a)
		left, err := os.ReadDir(dirs[i])
		if err != nil || len(left) != keysIn(t, a) {
			t.Errorf("%d files are in the directory", len(left))
		}
	}
	if keys != 1 {
		t.Errorf("%d hubs have a root's key", keys)
	}
	s := list[0].set.Load()
	e, err := m.Open().Get(t.Context(), recordKey)
	if err != nil || bytes.Contains(e.Value, s.record.Roots[0].Key[:40]) || bytes.Contains(e.Value, []byte("certificate")) {
		t.Error("the control state is not sealed")
	}
	if _, err := Open(t.Context(), Options{Store: m.Open(), Secret: &state.Secret{2}, Dir: t.TempDir(), Hub: hubID, Now: c.Now}); !errors.Is(err, state.ErrOtherSecret) {
		t.Errorf("with another secret: %v", err)
	}
}

// TestFollow: what the control state says later is used if it can be, and warned of if not.
func TestFollow(t *testing.T) {
	m, c := &state.Memory{}, newClock()
	a, b := open(t, m.Open(), c), open(t, m.Open(), c)
	whole, err := m.Open().Get(t.Context(), recordKey)
	if err != nil {
		t.Fatal(err)
	}
	other, err := (&Authority{o: Options{Secret: &state.Secret{9}}}).seal(&a.set.Load().record)
	if err != nil {
		t.Fatal(err)
	}
	newer := a.set.Load().record
	newer.Version++
	future, err := a.seal(&newer)
	if err != nil {
		t.Fatal(err)
	}
	for text, value := range map[string][]byte{"another secret": other, "newer version": future, "restore a backup": nil} {
		changed := b.Changed()
		if value == nil {
			err = m.Open().Delete(t.Context(), recordKey, state.Always())
		} else {
			_, err = m.Open().Put(t.Context(), recordKey, value, false, state.Always())
		}
		if err != nil {
			t.Fatal(err)
		}
		<-changed
		if w := b.Describe().Warnings; len(w) != 1 || !strings.Contains(w[0], text) {
			t.Errorf("warnings %q, want %s", w, text)
		}
		if _, err := b.Verify(issue(t, a, 1)); err != nil {
			t.Errorf("the hub does not go on: %v", err)
		}
		changed = b.Changed()
		if _, err := m.Open().Put(t.Context(), recordKey, whole.Value, false, state.Always()); err != nil {
			t.Fatal(err)
		}
		<-changed
		if w := b.Describe().Warnings; len(w) != 0 {
			t.Errorf("warnings afterwards: %q", w)
		}
	}
}

// TestRootKey: without root.key everything goes on but renewal, and signing of the next root.
func TestRootKey(t *testing.T) {
	m, c := &state.Memory{}, newClock()
	dir, safe := t.TempDir(), filepath.Join(t.TempDir(), "root.key")
	a := start(t, m.Open(), c, dir)
	a.Close() // so that it is not about to use the key
	if err := os.Rename(a.keyFile(), safe); err != nil {
		t.Fatal(err)
	}
	a = start(t, m.Open(), c, dir)
	t.Cleanup(a.Close)
	b := open(t, m.Open(), c)
	c.add(intermediateLife*2/3 + time.Hour)
	settle(t, a, b)
	d := a.Describe()
	if d.RootKey || len(d.Warnings) != 1 || !strings.Contains(d.Warnings[0], "put root.key back as "+a.keyFile()) {
		t.Errorf("without the key: %+v", d)
	}
	if err := a.Change(t.Context(), api.AuthorityChange{Step: "renew"}, 0); code(err) != "conflict" || !strings.Contains(err.Error(), "root.key") {
		t.Errorf("renewed without the key: %v", err)
	}
	agent := issue(t, b, 1)
	if err := os.WriteFile(a.keyFile(), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if w := a.Describe().Warnings; len(w) != 2 || !strings.Contains(w[0], "move it away") {
		t.Errorf("with garbage: %q", w)
	}
	if err := a.Change(t.Context(), api.AuthorityChange{Step: "rotate"}, 0); err == nil {
		t.Error("garbage is overwritten")
	}
	if err := os.Rename(safe, b.keyFile()); err != nil { // back, though elsewhere
		t.Fatal(err)
	}
	if err := os.Remove(a.keyFile()); err != nil {
		t.Fatal(err)
	}
	settle(t, b, a)
	if d := a.Describe(); len(d.Warnings) != 0 || d.Ends.Sub(c.Now()).Round(time.Hour) != intermediateLife {
		t.Errorf("with the key at the other hub: %+v", d)
	}
	before := b.Describe()
	c.add(time.Hour)
	change(t, b, "renew")
	if after := b.Describe(); !after.Ends.After(before.Ends) || after.Roots[0] != before.Roots[0] {
		t.Errorf("the step renew: %+v", after)
	}
	settle(t, a, b)
	for _, hub := range []*Authority{a, b} {
		if p, err := hub.Verify(agent); err != nil || p.ID != agentID {
			t.Errorf("a certificate of the intermediate before: %+v, %v", p, err)
		}
	}

	change(t, a, "rotate") // the old root's key is at b, which signs the new one
	settle(t, a, b)
	if keysIn(t, a) != 1 || keysIn(t, b) != 1 || a.set.Load().roots[1].cross == nil {
		t.Error("the new root is not signed by the old")
	}
	change(t, b, "back")
	settle(t, a, b)
	if keysIn(t, a) != 0 || keysIn(t, b) != 1 {
		t.Error("the key of a root that was withdrawn is kept")
	}
	if err := os.Remove(b.keyFile()); err != nil { // lost for good
		t.Fatal(err)
	}
	change(t, a, "rotate")
	if w := a.Describe().Warnings; len(w) != 1 || !strings.Contains(w[0], "not signed by the old") {
		t.Errorf("warnings %q", w)
	}
	change(t, a, "next")
	change(t, a, "next")
	if d := a.Describe(); len(d.Warnings) != 0 || !d.RootKey {
		t.Errorf("after the change: %+v", d)
	}
}

// TestTakenBack: an agent that was certified by a new root comes in after the change was taken back, until the next one is done;
// and who trusts only an old root hears so for a while.
func TestTakenBack(t *testing.T) {
	c := newClock()
	a := open(t, memory(), c)
	old, before := a.Bundle()
	for _, step := range []string{"rotate", "next"} {
		change(t, a, step)
	}
	agent := issue(t, a, 1)
	for _, step := range []string{"back", "back", "rotate", "next"} {
		change(t, a, step)
		if p, err := a.Verify(agent); err != nil || p.ID != agentID {
			t.Errorf("after %s, an agent of the root that was taken back: %+v, %v", step, p, err)
		}
		if _, now := a.Bundle(); (now == before) != (a.Describe().Phase == steady) {
			t.Errorf("after %s the bundle is wrong", step)
		}
	}
	change(t, a, "next")
	if _, err := a.Verify(agent); refusal(err) != control.UnknownAuthority || !strings.Contains(err.Error(), "retired on 2026-11-26") {
		t.Errorf("after the next change is done: %v", err)
	}
	believes := func() bool {
		chain := shown(t, a, "")
		_, err := chain[0].Verify(x509.VerifyOptions{Roots: pool(certificates(t, old)...), Intermediates: pool(chain[1:]...), CurrentTime: c.Now()})
		return err == nil
	}
	if !believes() {
		t.Error("who trusts only the old root cannot hear that it was retired")
	}
	c.add(farewell)
	if believes() || len(shown(t, a, "")) != 3 {
		t.Error("the old root is sent for ever")
	}
}

// TestSteps is about what Change refuses.
func TestSteps(t *testing.T) {
	a := open(t, memory(), newClock())
	f := func(c api.AuthorityChange, behind int, want, text string) {
		t.Helper()
		if err := a.Change(t.Context(), c, behind); code(err) != want || err != nil && !strings.Contains(err.Error(), text) {
			t.Errorf("%+v with %d behind: %v, want %s", c, behind, err, want)
		}
	}
	step := func(s string) api.AuthorityChange { return api.AuthorityChange{Step: s} }
	f(step("leap"), 0, "bad_request", "rotate, next, back")
	f(step("next"), 3, "conflict", "begin one with rotate")
	f(step("back"), 0, "conflict", "nothing to go back")
	f(step("rotate"), 3, "", "")
	f(step("rotate"), 0, "conflict", "under way")
	f(step("next"), 3, "conflict", "left behind: 3")
	f(api.AuthorityChange{Step: "next", Force: true}, 3, "", "")
	f(step("back"), 3, "", "")
	f(step("next"), 0, "", "")
	f(step("next"), 1, "conflict", "left behind: 1")
	f(step("next"), 0, "", "")
	f(step("back"), 0, "conflict", "nothing to go back")
}

// A faulty store fails to put, before or after it has.
type faulty struct {
	state.Store
	before, after atomic.Int32 // how often still
	failed        atomic.Int32
}

var errFault = errors.New("the network is down")

func (s *faulty) Put(ctx context.Context, key string, value []byte, leased bool, c state.Condition) (int64, error) {
	if s.before.Add(-1) >= 0 {
		s.failed.Add(1)
		return 0, errFault
	}
	revision, err := s.Store.Put(ctx, key, value, leased, c)
	if s.after.Add(-1) >= 0 {
		s.failed.Add(1)
		return 0, errFault
	}
	return revision, err
}

// TestFaults: the root's key is never lost, and none is left behind, whatever becomes of the answer of the control state.
func TestFaults(t *testing.T) {
	s, c, dir := &faulty{Store: memory()}, newClock(), t.TempDir()
	o := Options{Store: s, Secret: &state.Secret{1}, Dir: dir, Hub: hubID, Now: c.Now}
	s.before.Store(1)
	if _, err := Open(t.Context(), o); !errors.Is(err, errFault) {
		t.Fatalf("opened: %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("%d files are left behind", len(left))
	}
	s.after.Store(1)
	if _, err := Open(t.Context(), o); !errors.Is(err, errFault) {
		t.Fatalf("opened: %v", err)
	}
	a := start(t, s, c, dir)
	defer a.Close()
	if !a.Describe().RootKey {
		t.Fatal("the root's key is lost")
	}
	s.before.Store(1)
	if err := a.Change(t.Context(), api.AuthorityChange{Step: "rotate"}, 0); code(err) != "unavailable" || keysIn(t, a) != 1 {
		t.Errorf("rotated: %v; there are %d keys", err, keysIn(t, a))
	}
	s.after.Store(1)
	if err := a.Change(t.Context(), api.AuthorityChange{Step: "rotate"}, 0); code(err) != "unavailable" || keysIn(t, a) != 2 {
		t.Errorf("rotated: %v; there are %d keys", err, keysIn(t, a))
	}
	settle(t, a)
	if d := a.Describe(); d.Phase != announced {
		t.Errorf("the phase is %s", d.Phase)
	}
	if n := s.failed.Load(); n != 4 {
		t.Errorf("%d faults happened", n)
	}
	if _, err := Open(t.Context(), Options{Store: memory(), Secret: &state.Secret{1}, Dir: t.TempDir(), Hub: hubID, Now: func() time.Time { return time.Unix(0, 0) }}); err == nil || !strings.Contains(err.Error(), "clock") {
		t.Errorf("an authority is made in 1970: %v", err)
	}
}

// A member is an agent in TestRotation: what it has been granted, and what the model knows of that.
type member struct {
	bundle []byte
	chain  []*x509.Certificate
	trusts []string // fingerprints of roots
	of     string   // that of the root that its certificate comes from
}

// A fleet is hubs on one control state, and agents, beside a model of which roots there are.
type fleet struct {
	clock   *clock
	hubs    []*Authority
	agents  []*member // the first renews in every phase, the others when it comes to them
	phase   string
	roots   []string
	past    []string // withdrawn: agents of theirs may renew
	from    map[string]string
	retired map[string]time.Time
}

func (f *fleet) issues() string {
	if f.phase == issuing {
		return f.roots[1]
	}
	return f.roots[0]
}

// renew grants an agent what it needs, in the order that Bundle asks for.
func (f *fleet) renew(t tester, m *member, a *Authority) {
	m.bundle, _ = a.Bundle()
	m.chain, m.trusts, m.of = issue(t, a, 1), slices.Clone(f.roots), f.issues()
}

// meets returns whether the agent believes the hub and whether the hub believes the agent.
func (f *fleet) meets(t tester, m *member, a *Authority) (hub, agent bool, refused error) {
	chain := shown(t, a, "")
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: pool(certificates(t, m.bundle)...), Intermediates: pool(chain[1:]...), CurrentTime: f.clock.Now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	p, refused := a.Verify(m.chain)
	return err == nil, refused == nil && p.ID == agentID, refused
}

// check compares the hubs with the model, and what becomes of the first agents at one of them.
func (f *fleet) check(t *rapid.T, a *Authority, agents int) {
	settle(t, f.hubs...)
	for _, a := range f.hubs {
		if d := a.Describe(); d.Phase != f.phase || a.Fingerprint() != f.issues() || len(d.Roots) != len(f.roots) || len(d.Warnings) != 0 {
			t.Fatalf("a hub is %+v, want phase %s", d, f.phase)
		}
	}
	for i, m := range f.agents[:agents] {
		before := f.from[f.issues()] // whose signature leads to the root that issues
		when := f.retired[before]
		trusts := slices.Contains(m.trusts, f.issues()) || slices.Contains(m.trusts, before) && (when.IsZero() || f.clock.Now().Before(when.Add(farewell)))
		trusted := slices.Contains(f.roots, m.of) || slices.Contains(f.past, m.of)
		hub, agent, refused := f.meets(t, m, a)
		if hub != trusts || agent != trusted {
			t.Fatalf("in phase %s, agent %d trusts %t, want %t; is trusted %t, want %t: %v", f.phase, i, hub, trusts, agent, trusted, refused)
		}
		if when := f.retired[m.of]; !agent && (refusal(refused) != control.UnknownAuthority || !strings.Contains(refused.Error(), "retired on "+when.Format("2006-01-02"))) {
			t.Fatalf("an agent of a root that was retired on %v hears %v", when, refused)
		}
		if i == 0 && (!hub || !agent) {
			t.Fatal("an agent that has renewed in every phase is left behind")
		}
		if _, now := a.Bundle(); now == control.FingerprintOfBundle(raw(certificates(t, m.bundle))) && m.of != f.issues() {
			t.Fatal("an agent has confirmed that has no certificate of the root that issues")
		}
	}
	f.renew(t, f.agents[0], a)
}

// step takes a step at a hub, and in the model.
func (f *fleet) step(t *rapid.T, a *Authority, step string) {
	want := ""
	if step == "rotate" != (f.phase == steady) && step != "renew" || step == "renew" && find(keysOf(t, a), a.set.Load().issues.root) == nil {
		want = "conflict"
	}
	if err := a.Change(context.Background(), api.AuthorityChange{Step: step}, 0); code(err) != want {
		t.Fatalf("%s in phase %s: %v, want %q", step, f.phase, err, want)
	}
	if want != "" {
		return
	}
	switch step + " from " + f.phase {
	case "rotate from steady":
		fresh := fingerprint(a.set.Load().roots[1].root.Raw)
		f.phase, f.from[fresh], f.roots = announced, f.roots[0], []string{f.roots[0], fresh}
	case "next from announced":
		f.phase = issuing
	case "next from issuing":
		for _, root := range append(f.past, f.roots[0]) {
			f.retired[root] = f.clock.Now()
		}
		f.phase, f.roots, f.past = steady, f.roots[1:], nil
	case "back from issuing":
		f.phase = announced
	case "back from announced":
		f.phase, f.roots, f.past = steady, f.roots[:1], append(f.past, f.roots[1])
	}
}

func raw(list []*x509.Certificate) (ders [][]byte) {
	for _, c := range list {
		ders = append(ders, c.Raw)
	}
	return ders
}

// TestRotation takes random steps at random hubs, and compares what comes of it with a model.
func TestRotation(t *testing.T) {
	var done, left, renewed atomic.Int32
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		m := &state.Memory{}
		f := &fleet{clock: newClock(), phase: steady, from: map[string]string{}, retired: map[string]time.Time{}}
		for range 2 {
			own, err := os.MkdirTemp(dir, "")
			if err != nil {
				t.Fatal(err)
			}
			a, err := Open(context.Background(), Options{Store: m.Open(), Secret: &state.Secret{1}, Dir: own, Hub: hubID, AgentLife: 4 * 365 * 24 * time.Hour, Now: f.clock.Now})
			if err != nil {
				t.Fatal(err)
			}
			defer a.Close()
			f.hubs = append(f.hubs, a)
		}
		f.roots = []string{f.hubs[0].Fingerprint()}
		for range 3 {
			f.agents = append(f.agents, &member{})
			f.renew(t, f.agents[len(f.agents)-1], f.hubs[0])
		}
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			a := rapid.SampledFrom(f.hubs).Draw(t, "hub")
			switch step := rapid.SampledFrom([]string{"rotate", "next", "next", "next", "back", "renew", "agent", "days"}).Draw(t, "step"); step {
			case "agent":
				m := rapid.SampledFrom(f.agents[1:]).Draw(t, "agent")
				if hub, agent, _ := f.meets(t, m, a); hub && agent {
					f.renew(t, m, a)
					renewed.Add(1)
				}
			case "days":
				f.clock.add(10 * 24 * time.Hour)
			default:
				f.step(t, a, step)
				if f.phase == steady && step == "next" {
					done.Add(1)
				}
			}
			f.check(t, a, rapid.SampledFrom([]int{1, 1, len(f.agents)}).Draw(t, "watched"))
		}
		f.check(t, f.hubs[1], len(f.agents))
		for _, m := range f.agents {
			if !slices.Contains(f.roots, m.of) && !slices.Contains(f.past, m.of) {
				left.Add(1)
			}
		}
	})
	t.Logf("%d rotations were done, %d agents renewed at random, %d were left behind", done.Load(), renewed.Load(), left.Load())
	if done.Load() == 0 || left.Load() == 0 || renewed.Load() == 0 {
		t.Error("nothing was tried")
	}
}
