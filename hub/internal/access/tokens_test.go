package access

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/hub/internal/state"
)

func TestRequests(t *testing.T) {
	a := open(t, new(state.Memory).Open(), newClock())
	f := func(r api.AccessTokenRequest, want string) {
		t.Helper()
		made, err := a.Create(t.Context(), "ann", r)
		if want == "" {
			if err != nil {
				t.Errorf("%+v: %v", r, err)
			} else if _, err := control.ParseToken(made.Text); err != nil {
				t.Errorf("%+v: %v", r, err)
			}
			return
		}
		if code(err) != "bad_request" || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, not %q", r, err, want)
		}
	}
	type req = api.AccessTokenRequest
	many := map[string]string{}
	for i := range maxLabels + 1 {
		many[fmt.Sprint(i)] = ""
	}
	f(req{Role: api.Viewer}, "name says")
	f(req{Name: strings.Repeat("é", 101), Role: api.Viewer}, "name says")
	f(req{Name: "a\nb", Role: api.Viewer}, "printable")
	f(req{Name: "\xff", Role: api.Viewer}, "printable")
	f(req{Name: "Root", Role: api.Viewer}, "must not be root")
	f(req{Name: strings.Repeat("é", 100), Role: api.Viewer}, "")
	f(req{Name: "x"}, "role must be")
	f(req{Name: "x", Role: "boss"}, `not "boss"`)
	f(req{Name: "x", Role: api.Viewer, Seconds: -1}, "seconds")
	f(req{Name: "x", Role: api.Viewer, Seconds: 1 << 62}, "seconds")
	f(req{Name: "x", Role: api.Viewer, Seconds: 1}, "")
	f(req{Name: "x", Role: api.Operator, Within: `site == "north"`}, "")
	f(req{Name: "x", Role: api.Operator, Within: `site = "north"`}, "within must be a condition")
	f(req{Name: "x", Role: api.Admin, Within: `site == "` + strings.Repeat("<", 300) + `"`}, "too long")
	f(req{Name: "x", Role: api.Ingest, Within: `site == "north"`}, "within is only")
	f(req{Name: "x", Role: api.Enrol, Within: `site == "north"`}, "within is only")
	f(req{Name: "x", Role: api.Ingest, Signals: []string{"logs", "traces"}, Records: 100}, "")
	f(req{Name: "x", Role: api.Ingest, Signals: []string{"profiles"}}, `there is no "profiles"`)
	f(req{Name: "x", Role: api.Ingest, Signals: []string{"logs", "logs"}}, "twice")
	f(req{Name: "x", Role: api.Ingest, Records: -1}, "records must not be negative")
	f(req{Name: "x", Role: api.Viewer, Records: 1}, "records is only")
	f(req{Name: "x", Role: api.Viewer, Signals: []string{"logs"}}, "signals is only")
	f(req{Name: "x", Role: api.Ingest, Uses: 1}, "uses is only")
	f(req{Name: "x", Role: api.Admin, Labels: map[string]string{"a": "b"}}, "labels is only")
	f(req{Name: "x", Role: api.Enrol, Uses: 10_000, Seconds: 3600, Labels: map[string]string{"site": "north"}}, "")
	f(req{Name: "x", Role: api.Enrol, Uses: 10_001}, "uses must be")
	f(req{Name: "x", Role: api.Enrol, Uses: -1}, "uses must be")
	f(req{Name: "x", Role: api.Enrol, Seconds: 3601}, "3600 at most")
	f(req{Name: "x", Role: api.Enrol, Labels: map[string]string{"creel.role": "hub"}}, "creel.role")
	f(req{Name: "x", Role: api.Enrol, Labels: map[string]string{"": "x"}}, "names of labels")
	f(req{Name: "x", Role: api.Enrol, Labels: map[string]string{"a": "\x00"}}, "values of labels")
	f(req{Name: "x", Role: api.Enrol, Labels: many}, "32 at most")
	made := create(t, a, req{Role: api.Enrol})
	if made.Uses != 1 || made.Ends.Sub(made.Created) != time.Hour || made.By != "ann" {
		t.Errorf("what was not asked for: %+v", made)
	}
	_, err := a.Create(t.Context(), "ann", req{Name: "x", Role: api.Role(made.Text)})
	if code(err) != "bad_request" || quotes(err.Error(), made.Text[len("creel_12345678_"):]) {
		t.Errorf("a token in a wrong place: %v", err)
	}
	for _, id := range []string{made.Text, "", "aaaaaaaa", "root"} {
		if _, err := a.Delete(t.Context(), id); code(err) != "not_found" || len(id) > 8 && quotes(err.Error(), made.Text) {
			t.Errorf("delete %q: %v", id, err)
		}
	}
}

// TestLongestTokenFits makes of the largest token that may be a JWT and a cookie that a browser keeps.
func TestLongestTokenFits(t *testing.T) {
	a := open(t, new(state.Memory).Open(), newClock())
	name := strings.Repeat("&", maxName)
	within := `site == "` + strings.Repeat("n", maxWithin-15) + `"`
	p := bearer(t, a, create(t, a, api.AccessTokenRequest{Name: name, Role: api.Admin, Within: within}).Text)
	cookie, _, err := a.NewSession(p)
	if err != nil || len(cookie) > 4000 {
		t.Fatalf("%d bytes, %v", len(cookie), err)
	}
	jwt, err := a.JWT(p, certificate(t))
	if err != nil || len(jwt.Token) > 4000 {
		t.Fatalf("%d bytes, %v", len(jwt.Token), err)
	}
	if got, err := a.Session(cookie); err != nil || got.Name != name || got.Within.String() != within {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestNothingSecretIsKept(t *testing.T) {
	m := new(state.Memory)
	a := open(t, m.Open(), newClock())
	made := create(t, a, api.AccessTokenRequest{Role: api.Admin})
	shown, err := control.ParseToken(made.Text)
	if err != nil {
		t.Fatal(err)
	}
	list, _, err := m.Open().List(t.Context(), "")
	if err != nil || len(list) != 3 {
		t.Fatalf("%d entries, %v", len(list), err)
	}
	for _, e := range list {
		if bytes.Contains(e.Value, []byte(shown.Secret)) {
			t.Errorf("%s has a secret", e.Key)
		}
		for _, k := range a.keys.current() {
			if bytes.Contains(e.Value, k.private.Seed()) || bytes.Contains(e.Value, []byte("seed")) {
				t.Errorf("%s has a key", e.Key)
			}
		}
	}
}

// TestSpend is what an enrolment token is worth, and why not.
func TestSpend(t *testing.T) {
	fingerprint := ""
	c, store := newClock(), hear(new(state.Memory).Open())
	a := open(t, store, c, func(o *Options) { o.Fingerprint = func() string { return fingerprint } })
	f := func(text, want, says string) {
		t.Helper()
		_, err := a.Spend(t.Context(), text)
		var r *control.Refusal
		if code(err) != want || want != "" && (!errors.As(err, &r) || !strings.Contains(r.Text, says) || r.Remedy == "" || quotes(err.Error(), text[len("creel_12345678"):])) {
			t.Errorf("%v, not %s: %s", err, want, says)
		}
	}
	twice := create(t, a, api.AccessTokenRequest{Role: api.Enrol, Uses: 2, Labels: map[string]string{"site": "north"}})
	spent, err := a.Spend(t.Context(), twice.Text)
	if err != nil || spent.Uses != 1 || spent.Used != 1 || spent.Labels["site"] != "north" || spent.ID != twice.ID {
		t.Errorf("the first use: %+v, %v", spent, err)
	}
	if l := a.List(); len(l.Tokens) != 1 || l.Tokens[0].Used != 1 {
		t.Errorf("listed: %+v", l)
	}
	f(twice.Text, "", "")
	f(twice.Text, control.TokenSpent, "for no more than 2")
	if l := a.List(); len(l.Tokens) != 0 {
		t.Errorf("what is worth nothing is listed: %+v", l)
	}
	late := create(t, a, api.AccessTokenRequest{Role: api.Enrol, Seconds: 60})
	c.add(time.Minute)
	f(late.Text, control.TokenExpired, "ended at 2026-11-26T09:31:00Z")
	f(create(t, a, api.AccessTokenRequest{Role: api.Admin}).Text, control.TokenUnknown, "no agent can join")
	f(create(t, a, api.AccessTokenRequest{Role: api.Member}).Text, control.TokenUnknown, "role hub: no agent can join")
	f("creel_12345678_short", control.TokenUnknown, "part of it")
	f(control.Token{ID: twice.ID, Secret: strings.Repeat("a", 26)}.String(), control.TokenUnknown, "does not know")
	f(control.Token{ID: "aaaaaaaa", Secret: strings.Repeat("a", 26)}.String(), control.TokenUnknown, "does not know")
	fingerprint = strings.Repeat("b", 26)
	mine := create(t, a, api.AccessTokenRequest{Role: api.Enrol})
	fingerprint = strings.Repeat("c", 26)
	f(mine.Text, control.TokenUnknown, "this token is for another hub")
	fingerprint = strings.Repeat("b", 26)
	store.failWith(errors.New("out of order"))
	f(mine.Text, control.Busy, "out of order")
	store.failWith(nil)
	f(mine.Text, "", "")
}

// TestSpendIsExact lets fifty agents have ten uses, at two hubs at once, and two hubs have the same use.
func TestSpendIsExact(t *testing.T) {
	c, m := newClock(), new(state.Memory)
	store := hear(m.Open())
	a, b := open(t, m.Open(), c), open(t, store, c)
	made := create(t, a, api.AccessTokenRequest{Role: api.Enrol, Uses: 10})
	var wg sync.WaitGroup
	var won, lost atomic.Int64
	for i := range 50 {
		hub := []*Access{a, b}[i%2]
		wg.Go(func() {
			switch _, err := hub.Spend(context.Background(), made.Text); code(err) {
			case "":
				won.Add(1)
			case control.TokenSpent:
				lost.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 10 || lost.Load() != 40 {
		t.Errorf("%d got in, %d were refused", won.Load(), lost.Load())
	}

	last := create(t, a, api.AccessTokenRequest{Role: api.Enrol})
	store.mu.Lock()
	store.conflicts = 0
	store.before = func() {
		if _, err := a.Spend(t.Context(), last.Text); err != nil {
			t.Error(err)
		}
	}
	store.mu.Unlock()
	if _, err := b.Spend(t.Context(), last.Text); code(err) != control.TokenSpent {
		t.Errorf("a use was given twice: %v", err)
	}
	if store.conflicts != 1 {
		t.Errorf("the hubs were in each other's way %d times", store.conflicts)
	}
}

// TestOverIsRemoved, a day after the end, and at once when there is no more room.
func TestOverIsRemoved(t *testing.T) {
	c := newClock()
	a := open(t, new(state.Memory).Open(), c)
	there := func(made api.AccessTokenCreated, want bool) {
		t.Helper()
		if _, err := a.o.Store.Get(t.Context(), tokenPrefix+made.ID); (err == nil) != want || (a.token(made.ID) != nil) != want {
			t.Errorf("%s is there: %v", made.Name, err == nil)
		}
	}
	short, long := create(t, a, api.AccessTokenRequest{Name: "short", Role: api.Viewer, Seconds: 60}), create(t, a, api.AccessTokenRequest{Name: "long", Role: api.Viewer})
	c.add(time.Minute + forget - time.Second)
	a.tend(t.Context())
	there(short, true)
	c.add(time.Second)
	a.tend(t.Context())
	there(short, false)
	there(long, true)

	a.mu.Lock()
	for i := range maxTokens - len(a.tokens) - 1 { // as if they were of other hubs
		id := fmt.Sprintf("%08d", i)
		a.tokens[id] = &token{record: record{AccessToken: api.AccessToken{ID: id}}}
	}
	a.mu.Unlock()
	ends := create(t, a, api.AccessTokenRequest{Name: "ends", Role: api.Viewer, Seconds: 60})
	if _, err := a.Create(t.Context(), "ann", api.AccessTokenRequest{Name: "x", Role: api.Viewer}); code(err) != "conflict" || !strings.Contains(err.Error(), "10000") {
		t.Errorf("one too many: %v", err)
	}
	c.add(time.Minute)
	last := create(t, a, api.AccessTokenRequest{Name: "last", Role: api.Viewer})
	there(ends, false)
	there(last, true)
}

// TestDamaged is a token that cannot be read: it is worth nothing, it is told, and it can be deleted.
func TestDamaged(t *testing.T) {
	m, log := new(state.Memory), &bytes.Buffer{}
	store := m.Open()
	for i, text := range []string{"{", `{"id":"other","hash":"AA=="}`, `{"id":"aaaaaaa2","hash":"AA=="}`} {
		if _, err := store.Put(t.Context(), fmt.Sprintf("%saaaaaaa%d", tokenPrefix, i), []byte(text), false, state.Always()); err != nil {
			t.Fatal(err)
		}
	}
	a := open(t, store, newClock(), func(o *Options) { o.Log = slog.New(slog.NewTextHandler(log, nil)) })
	if n := strings.Count(log.String(), "cannot be read"); n != 3 {
		t.Errorf("told %d times: %s", n, log)
	}
	text := control.Token{ID: "aaaaaaa2", Secret: strings.Repeat("a", 26)}.String()
	if _, err := a.Bearer(text, nil); code(err) != "unauthorized" {
		t.Error(err)
	}
	if _, err := a.Spend(t.Context(), text); code(err) != control.TokenUnknown {
		t.Error(err)
	}
	if d, err := a.Delete(t.Context(), "aaaaaaa2"); err != nil || d.ID != "aaaaaaa2" {
		t.Error(d, err)
	}
	store.Close()
	if _, err := a.Create(t.Context(), "ann", api.AccessTokenRequest{Name: "x", Role: api.Viewer}); code(err) != "unavailable" {
		t.Errorf("without a control state: %v", err)
	}
}
