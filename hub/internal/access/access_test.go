package access

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/hub/internal/state"
	"github.com/creelhq/creel/metric"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	rootToken = "the-root-token-of-this-hub"
	agentID   = "0193b7c5-6b1e-7d0e-8000-000000000001"
)

// clock is a clock that stands still.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Date(2026, 11, 26, 9, 30, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// heard is a Store that tells what its watches have been through, and can be told to fail, or to do something before a Put.
type heard struct {
	state.Store
	events chan state.Entry

	mu        sync.Mutex
	fail      error
	before    func() // the next Put, once
	conflicts int
}

func hear(s state.Store) *heard { return &heard{Store: s, events: make(chan state.Entry, 1000)} }

func (h *heard) failWith(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fail = err
}

func (h *heard) failing() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.fail
}

func (h *heard) Get(ctx context.Context, key string) (state.Entry, error) {
	if err := h.failing(); err != nil {
		return state.Entry{}, err
	}
	return h.Store.Get(ctx, key)
}

func (h *heard) Put(ctx context.Context, key string, value []byte, leased bool, c state.Condition) (int64, error) {
	if err := h.failing(); err != nil {
		return 0, err
	}
	h.mu.Lock()
	f := h.before
	h.before = nil
	h.mu.Unlock()
	if f != nil {
		f()
	}
	revision, err := h.Store.Put(ctx, key, value, leased, c)
	if errors.Is(err, state.ErrConflict) {
		h.mu.Lock()
		h.conflicts++
		h.mu.Unlock()
	}
	return revision, err
}

func (h *heard) Watch(ctx context.Context, prefix string, after int64, f func(state.Entry) error) error {
	return h.Store.Watch(ctx, prefix, after, func(e state.Entry) error {
		err := f(e)
		select {
		case h.events <- e:
		case <-ctx.Done():
		}
		return err
	})
}

// until waits until a watch has been through an event.
func (h *heard) until(t testing.TB, what string, ok func(state.Entry) bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		select {
		case e := <-h.events:
			if ok(e) {
				return
			}
		case <-deadline:
			t.Fatalf("the hub does not hear of %s", what)
		}
	}
}

func open(t testing.TB, s state.Store, c *clock, change ...func(*Options)) *Access {
	t.Helper()
	o := Options{Store: s, Secret: &state.Secret{1}, Root: rootToken, Now: c.now, Metrics: metric.NewSet()}
	for _, f := range change {
		f(&o)
	}
	a, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

func create(t testing.TB, a *Access, r api.AccessTokenRequest) api.AccessTokenCreated {
	t.Helper()
	if r.Name == "" {
		r.Name = "somebody"
	}
	c, err := a.Create(context.Background(), "ann", r)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func bearer(t testing.TB, a *Access, text string) Principal {
	t.Helper()
	p, err := a.Bearer(text, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// code returns the code of an error, "" for none.
func code(err error) string {
	var e *api.Error
	var r *control.Refusal
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.Code
	case errors.As(err, &r):
		return r.Code
	}
	return err.Error()
}

// quotes reports whether a message has a piece of a secret.
func quotes(message, secret string) bool {
	const piece = 10
	for i := 0; i+piece <= len(secret); i++ {
		if strings.Contains(message, secret[i:i+piece]) {
			return true
		}
	}
	return false
}

func certificate(t testing.TB) *x509.Certificate {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func showing(c *x509.Certificate) *tls.ConnectionState {
	return &tls.ConnectionState{PeerCertificates: []*x509.Certificate{c}}
}

// TestBearerTexts is who shows the root token and tokens, and what is said to others.
func TestBearerTexts(t *testing.T) {
	c := newClock()
	a := open(t, new(state.Memory).Open(), c, func(o *Options) { o.Fingerprint = func() string { return strings.Repeat("a", 26) } })
	if p := bearer(t, a, rootToken); p.Name != "root" || p.Role != api.Admin || !p.Ends.IsZero() || !p.Within.IsZero() {
		t.Errorf("root: %+v", p)
	}
	viewer := create(t, a, api.AccessTokenRequest{Name: " bob ", Role: api.Viewer, Within: `site == "north"`, Seconds: 60})
	for range 2 { // the second time from the cache
		p := bearer(t, a, viewer.Text)
		if p.Name != "bob" || p.Role != api.Viewer || p.Token != viewer.ID || !p.Ends.Equal(c.now().Add(time.Minute)) || p.Within.String() != `site == "north"` ||
			p.Within.Match(map[string]string{"site": "south"}) {
			t.Errorf("viewer: %+v", p)
		}
	}
	enrol := create(t, a, api.AccessTokenRequest{Role: api.Enrol})
	f := func(text, want string) {
		t.Helper()
		_, err := a.Bearer(text, nil)
		if code(err) != "unauthorized" || !strings.Contains(err.Error(), want) || text != "" && quotes(err.Error(), text) {
			t.Errorf("%q: %v, not %q", text, err, want)
		}
	}
	other := func(text string, at int) string {
		b := []byte(text)
		b[at] = 'a' + (b[at]-'a'+1)%20
		return string(b)
	}
	f("", "nothing was shown")
	f(rootToken+"x", "neither a token nor a JWT")
	f(strings.Repeat("x", maxText+1), "longer")
	f("creel_abc", "begins like a token")
	f(other(viewer.Text, len("creel_")), "not known here")
	f(other(viewer.Text, len("creel_12345678_")), "not known here")
	f(control.Token{ID: "aaaaaaaa", Secret: strings.Repeat("b", 26), Fingerprint: strings.Repeat("c", 26)}.String(), "another hub")
	f(enrol.Text, "to join with")
	c.add(time.Minute)
	f(viewer.Text, "ended at")
	if _, err := a.Bearer("", nil); code(err) != "unauthorized" {
		t.Error(err)
	}
	if got := a.counts[refused].Load(); got != 10 {
		t.Errorf("%d were refused", got)
	}
	if got := a.counts[accepted].Load(); got != 3 {
		t.Errorf("%d were accepted", got)
	}
	none := open(t, new(state.Memory).Open(), c, func(o *Options) { o.Root = "" })
	if _, err := none.Bearer("", nil); code(err) != "unauthorized" {
		t.Errorf("a hub without a root token: %v", err)
	}
}

// TestDeletedEverywhere takes a token away at one hub, and tries it at another, with all that it was changed for.
func TestDeletedEverywhere(t *testing.T) {
	c, m := newClock(), new(state.Memory)
	store := hear(m.Open())
	a, b := open(t, m.Open(), c), open(t, store, c)
	for name, end := range map[string]func(id string){
		"deleted": func(id string) {
			if d, err := a.Delete(t.Context(), id); err != nil || d.ID != id || d.Name != "somebody" {
				t.Errorf("delete: %+v, %v", d, err)
			}
			if _, err := a.Delete(t.Context(), id); code(err) != "not_found" {
				t.Errorf("delete again: %v", err)
			}
			store.until(t, "the deletion", func(e state.Entry) bool { return e.Key == tokenPrefix+id && e.Value == nil })
		},
		"ended": func(string) { c.add(5 * time.Minute) },
	} {
		made := create(t, a, api.AccessTokenRequest{Role: api.Operator, Seconds: 300})
		store.until(t, "the token", func(e state.Entry) bool { return e.Key == tokenPrefix+made.ID })
		jwt, err := a.JWT(bearer(t, a, made.Text), nil)
		if err != nil || jwt.Lifetime != 5*time.Minute {
			t.Fatal(jwt.Lifetime, err)
		}
		cookie, life, err := a.NewSession(bearer(t, a, made.Text))
		if err != nil || life != 5*time.Minute {
			t.Fatal(life, err)
		}
		worth := func(want string) {
			t.Helper()
			for i, hub := range []*Access{a, b} {
				_, err1 := hub.Bearer(made.Text, nil)
				_, err2 := hub.Bearer(jwt.Token, nil)
				_, err3 := hub.Session(cookie)
				if code(err1) != want || code(err2) != want || code(err3) != want {
					t.Errorf("%s, hub %d: %v, %v, %v", name, i, err1, err2, err3)
				}
			}
		}
		worth("")
		worth("")
		end(made.ID)
		worth("unauthorized")
		for _, hub := range []*Access{a, b} {
			if l := hub.List(); len(l.Tokens) != 0 {
				t.Errorf("%s: listed are %+v", name, l)
			}
		}
	}
}

// TestNoOldNews deletes a token before its making is heard of.
func TestNoOldNews(t *testing.T) {
	a := open(t, new(state.Memory).Open(), newClock())
	made := create(t, a, api.AccessTokenRequest{Role: api.Admin})
	e, err := a.o.Store.Get(t.Context(), tokenPrefix+made.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := func() error {
		a.mu.Lock() // so that nothing is heard between
		defer a.mu.Unlock()
		a.gone[made.ID] = true
		delete(a.tokens, made.ID)
		a.take(e)
		if a.tokens[made.ID] != nil {
			return errors.New("old news has brought a token back")
		}
		a.take(state.Entry{Key: e.Key, Revision: e.Revision + 1})
		if len(a.gone) != 0 {
			return errors.New("an id that nobody will name again is kept")
		}
		return nil
	}(); err != nil {
		t.Error(err)
	}
}

// TestRevokedAgent takes an agent's JWT away.
func TestRevokedAgent(t *testing.T) {
	revoked := ""
	a := open(t, new(state.Memory).Open(), newClock(), func(o *Options) { o.Revoked = func(agent string) bool { return agent == revoked } })
	cert := certificate(t)
	jwt, err := a.JWT(Principal{Name: "web1", Role: api.Enrol, Agent: agentID}, cert)
	if err != nil || jwt.Lifetime != bearerLife {
		t.Fatal(jwt.Lifetime, err)
	}
	for range 2 {
		if p, err := a.Bearer(jwt.Token, showing(cert)); err != nil || p.Agent != agentID || p.Token != "" || p.Name != "web1" {
			t.Errorf("%+v, %v", p, err)
		}
	}
	revoked = agentID
	if _, err := a.Bearer(jwt.Token, showing(cert)); code(err) != "unauthorized" || !strings.Contains(err.Error(), "creel admit") {
		t.Errorf("revoked: %v", err)
	}
}

// forget empties the cache, so that all is cold.
func (c *cache) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.young)
	c.old = nil
}

// TestCacheIsBounded fills the cache.
func TestCacheIsBounded(t *testing.T) {
	var c cache
	p, often := &proof{}, digest("often")
	c.put(often, p)
	for i := range 9 * generation / 4 {
		c.put([32]byte{byte(i), byte(i >> 8), byte(i >> 16), 1}, p)
		if i%1000 == 0 && c.get(often) == nil {
			t.Fatal("what is asked for often is forgotten")
		}
	}
	if n := len(c.young) + len(c.old); n > 2*generation || n < generation {
		t.Errorf("it has %d proofs", n)
	}
	if c.get([32]byte{0, 0, 0, 1}) != nil {
		t.Error("what is not asked for is kept")
	}
	now := time.Now()
	c.get(often) // into the young ones
	c.age(now)
	c.age(now.Add(time.Second))
	if c.get(often) == nil {
		t.Error("it is forgotten too early")
	}
	c.age(now.Add(cacheAge))
	c.age(now.Add(2 * cacheAge))
	if len(c.young)+len(c.old) != 0 {
		t.Error("it keeps what is over")
	}
}
