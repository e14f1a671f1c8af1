package access

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/creelhq/creel/hub/internal/state"
)

// TestRFC8037 has the key of RFC 8037, appendix A: what JWKS and kid are made of, and a signature that we did not make.
func TestRFC8037(t *testing.T) {
	seed, err := base64.RawURLEncoding.DecodeString("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")
	if err != nil {
		t.Fatal(err)
	}
	k := newKey("", keyRecord{Seed: seed}, 1)
	if got := hex.EncodeToString(k.public); got != "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a" {
		t.Errorf("A.1: the key is %s", got)
	}
	if k.id != "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k" {
		t.Errorf("A.3: the thumbprint is %s", k.id)
	}
	text, signature, _ := strings.Cut("eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc!hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg", "!")
	sig, err := base64.RawURLEncoding.DecodeString(signature)
	if err != nil || !ed25519.Verify(k.public, []byte(text), sig) || !bytes.Equal(sig, ed25519.Sign(k.private, []byte(text))) {
		t.Errorf("A.4 and A.5: %v", err)
	}
}

// published verifies a JWT as a stranger would, with the JWKS and nothing of ours.
func published(t testing.TB, jwks []byte, text string) bool {
	t.Helper()
	var set struct {
		Keys []struct{ Kty, Crv, X, Kid, Use, Alg string }
	}
	if err := json.Unmarshal(jwks, &set); err != nil || bytes.Contains(jwks, []byte(`"d"`)) {
		t.Fatalf("%s: %v", jwks, err)
	}
	header, _, signature := partsOf(t, text)
	for _, k := range set.Keys {
		if k.Kty != "OKP" || k.Crv != "Ed25519" || k.Use != "sig" || k.Alg != "EdDSA" {
			t.Fatalf("a key is %+v", k)
		}
		x, err := base64.RawURLEncoding.DecodeString(k.X)
		if err != nil {
			t.Fatal(err)
		}
		if k.Kid == header["kid"] {
			return ed25519.Verify(x, []byte(text[:strings.LastIndex(text, ".")]), signature)
		}
	}
	return false
}

// rehear brings a hub up to date, as when its watch broke.
func rehear(t testing.TB, a *Access) {
	t.Helper()
	for prefix, all := range map[string]func([]state.Entry, int64){keyPrefix: a.keys.all, tokenPrefix: a.all} {
		list, revision, err := a.o.Store.List(t.Context(), prefix)
		if err != nil {
			t.Fatal(err)
		}
		all(list, revision)
	}
}

// next returns when to look again: in an hour, or at midnight when the clocks of the hubs have it one after the other.
func next(now time.Time) time.Time {
	at, midnight := now.Add(time.Hour), now.Truncate(keyDay)
	for _, off := range []time.Duration{10 * time.Second, 30 * time.Second, keyDay - 30*time.Second, keyDay - 10*time.Second, keyDay + 10*time.Second} {
		if m := midnight.Add(off); m.After(now) && m.Before(at) {
			at = m
		}
	}
	return at
}

// TestRotation runs three hubs, whose clocks differ, for four days. What one has signed is good at all until it ends, and with
// the JWKS that were fetched an hour before it was signed; no key is kept for long.
func TestRotation(t *testing.T) {
	type cookie struct {
		text string
		ends time.Time
	}
	type fetched struct {
		jwks []byte
		at   time.Time
	}
	c, m := newClock(), new(state.Memory)
	var hubs []*Access
	for _, off := range []time.Duration{0, 20 * time.Second, -20 * time.Second} {
		hubs = append(hubs, open(t, m.Open(), c, func(o *Options) { o.Now = func() time.Time { return c.now().Add(off) } }))
	}
	p := bearer(t, hubs[0], rootToken)
	var valid []cookie
	var known []fetched
	signers, checked, end := map[string]bool{}, 0, c.now().Add(4*24*time.Hour)
	for round := 0; c.now().Before(end); round++ {
		now := c.now()
		for _, a := range hubs {
			a.tend(t.Context())
		}
		for i, a := range hubs {
			rehear(t, a)
			if n := len(a.keys.current()); n < 2 || n > 3 {
				t.Fatalf("at %v hub %d has %d keys", now, i, n)
			}
		}
		known = append(known, fetched{hubs[0].JWKS(), now})
		for len(known) > 1 && !known[1].at.After(now.Add(-time.Hour)) {
			known = known[1:]
		}
		for i, a := range hubs {
			jwt, err := a.JWT(p, nil)
			if err != nil {
				t.Fatal(err)
			}
			header, _, _ := partsOf(t, jwt.Token)
			signers[header["kid"].(string)] = true
			if !published(t, known[0].jwks, jwt.Token) {
				t.Fatalf("at %v: the key was not published an hour before it signed", now)
			}
			if _, err := hubs[(i+1)%3].Bearer(jwt.Token, nil); err != nil {
				t.Fatalf("at %v: the next hub: %v", now, err)
			}
		}
		text, life, err := hubs[round%3].NewSession(p)
		if err != nil {
			t.Fatal(err)
		}
		valid = append(valid, cookie{text, now.Add(life)})
		c.add(next(now).Sub(now))
		for len(valid) > 0 && !valid[0].ends.After(c.now().Add(time.Minute)) {
			valid = valid[1:]
		}
		for i, one := range valid { // those that end soon, and some
			if one.ends.After(c.now().Add(90*time.Minute)) && (round+i)%8 > 0 {
				continue
			}
			checked++
			a := hubs[(round+i)%3]
			a.cache.forget() // so that its key is asked for
			if _, err := a.Session(one.text); err != nil {
				t.Fatalf("at %v, %v before its end: %v", c.now(), one.ends.Sub(c.now()), err)
			}
		}
	}
	if len(signers) != 5 || checked < 200 {
		t.Errorf("%d keys have signed in four days, and %d sessions were checked", len(signers), checked)
	}
	list, _, err := m.Open().List(t.Context(), keyPrefix)
	if err != nil || len(list) > 3 {
		t.Errorf("%d keys are kept, %v", len(list), err)
	}
}

// TestControlStateAway is four days without one: the last key goes on, and the next waits until all hubs know it.
func TestControlStateAway(t *testing.T) {
	c, m := newClock(), new(state.Memory)
	store := hear(m.Open())
	a, b := open(t, store, c), open(t, m.Open(), c)
	store.failWith(errors.New("away"))
	c.add(4 * 24 * time.Hour)
	a.tend(t.Context())
	if err := a.keys.tend(t.Context()); err == nil || !strings.Contains(err.Error(), "away") {
		t.Fatalf("the control state is there: %v", err)
	}
	sign := func() (string, string) {
		cookie, _, err := a.NewSession(bearer(t, a, rootToken))
		if err != nil {
			t.Fatal(err)
		}
		header, _, _ := partsOf(t, cookie)
		return cookie, header["kid"].(string)
	}
	cookie, kid := sign()
	if _, err := b.Session(cookie); err != nil {
		t.Errorf("the last key: %v", err)
	}
	store.failWith(nil)
	a.tend(t.Context())
	if _, now := sign(); now != kid {
		t.Error("a key signs that no other hub may have heard of")
	}
	c.add(keyLead)
	if _, now := sign(); now == kid {
		t.Error("the new key does not sign")
	}
	rehear(t, b)
	c.add(sessionLife - keyLead - time.Second)
	for _, hub := range []*Access{a, b} {
		hub.tend(t.Context())
		hub.cache.forget()
		if _, err := hub.Session(cookie); err != nil {
			t.Errorf("the old session: %v", err)
		}
	}
	c.add(2 * keySlack)
	if a.keys.current().find(kid, c.now()) != nil || published(t, a.JWKS(), cookie) {
		t.Error("the old key is still good")
	}
}

// TestClockJumps by ten years and back: hubs sign and verify all the while.
func TestClockJumps(t *testing.T) {
	c := newClock()
	a := open(t, new(state.Memory).Open(), c)
	works := func(when string) {
		t.Helper()
		rehear(t, a)
		for range 3 {
			jwt, err := a.JWT(bearer(t, a, rootToken), nil)
			if err != nil {
				t.Fatalf("%s: %v", when, err)
			}
			if _, err := a.Bearer(jwt.Token, nil); err != nil {
				t.Errorf("%s: %v", when, err)
			}
			a.tend(t.Context())
			rehear(t, a)
		}
	}
	const decade = 10 * 365 * 24 * time.Hour
	works("before")
	c.add(decade)
	works("ten years on")
	future, err := a.JWT(bearer(t, a, rootToken), nil)
	if err != nil {
		t.Fatal(err)
	}
	c.add(-decade)
	works("back again")
	if _, err := a.Bearer(future.Token, nil); code(err) != "unauthorized" {
		t.Errorf("what will be valid in ten years: %v", err)
	}
	c.add(-2 * decade)
	works("ten years ago")
}

// TestOtherSecret is a hub whose file secret is another than that of the hub which was there first.
func TestOtherSecret(t *testing.T) {
	c, m := newClock(), new(state.Memory)
	open(t, m.Open(), c)
	a, err := Open(context.Background(), Options{Store: m.Open(), Secret: &state.Secret{2}, Now: c.now})
	if !errors.Is(err, state.ErrOtherSecret) {
		t.Errorf("%v", err)
	}
	if err == nil {
		a.Close()
	}
}

// TestKeysAreFollowed lets a hub hear of another's key, and of none.
func TestKeysAreFollowed(t *testing.T) {
	c, m := newClock(), new(state.Memory)
	store := hear(m.Open())
	a, b := open(t, m.Open(), c), open(t, store, c)
	c.add(keyDay)
	a.tend(t.Context())
	store.until(t, "the key", func(e state.Entry) bool { return e.Key == keyPrefix+"2026-11-28" })
	if n := len(b.keys.current()); n != 3 {
		t.Errorf("it has %d keys", n)
	}
	for _, k := range b.keys.current() {
		if err := store.Delete(t.Context(), k.name, state.Always()); err != nil {
			t.Fatal(err)
		}
	}
	store.until(t, "the end", func(e state.Entry) bool { return e.Key == keyPrefix+"2026-11-28" && e.Value == nil })
	if _, err := b.JWT(bearer(t, b, rootToken), nil); code(err) != "unavailable" {
		t.Errorf("without a key: %v", err)
	}
	b.tend(t.Context())
	if _, err := b.JWT(bearer(t, b, rootToken), nil); err != nil {
		t.Error(err)
	}
}
