package identity

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creelhq/creel/control"
)

// reopen opens an identity as a process that was started again does.
func reopen(t testing.TB, h *FakeHub, dir string, o Options) *Identity {
	t.Helper()
	o.dial = h.Dial
	i, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// TestGenerations: for days a new certificate comes each day, well before the last one ends and not at one instant, each
// with a key of its own.
func TestGenerations(t *testing.T) {
	world(t, func(t *testing.T, h *FakeHub) {
		const many, days = 4, 4
		var ids []*Identity
		for range many {
			i, _ := joined(t, h)
			defer background(i)()
			ids = append(ids, i)
		}
		began := time.Now()
		time.Sleep(days * 24 * time.Hour)
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, i := range ids {
			if s := i.Status(); s.Generation < days*24/20 || s.Generation > days*24/16+1 || s.Error != "" || s.Renews.After(s.Expires.Add(-3*time.Hour)) {
				t.Errorf("after days it is %+v", s)
			}
		}
		if n := h.requests[control.RenewPath] + many; n != len(h.keys) {
			t.Errorf("%d certificates were made of %d keys", n, len(h.keys))
		}
		var early, late time.Duration = time.Hour * 99, 0
		for _, at := range h.times[:many] {
			early, late = min(early, at.Sub(began)), max(late, at.Sub(began))
		}
		if early < 16*time.Hour || late > 20*time.Hour || late-early < 2*time.Minute {
			t.Errorf("the first renewals were after %v to %v", early, late)
		}
	})
}

var errKilled = errors.New("the process was killed")

// TestKilled: whenever the process or the machine dies during a renewal, or an answer is lost, what is on disk is an identity
// that the hub takes, and each generation asks with one key only. After a power failure a rename that was not synced may be
// undone.
func TestKilled(t *testing.T) {
	world(t, func(t *testing.T, h *FakeHub) {
		kills, lost := 0, 0
		for _, power := range []bool{true, false} {
			if testing.Short() && !power {
				continue
			}
			_, dir := joined(t, h)
			file := filepath.Join(dir, fileName)
			for at, done := 0, false; !done; at++ {
				var synced []byte // what a power failure leaves
				synced, _ = os.ReadFile(file)
				steps, dead := 0, false
				step := func(what string) error {
					if steps++; steps > at {
						dead = true
					}
					if dead {
						return errKilled
					}
					if what == "sync the directory" {
						synced, _ = os.ReadFile(file)
					}
					return nil
				}
				h.Do(func() {
					h.fault = func(path string, answered bool) error {
						err := step(path)
						if err != nil && answered {
							lost++
						}
						return err
					}
				})
				i := reopen(t, h, dir, Options{step: step})
				generation := i.Status().Generation
				err := i.renew(t.Context())
				h.Do(func() { h.fault = nil })
				if done = !dead; done {
					if err != nil || i.Status().Generation != generation+1 {
						t.Fatalf("nothing has happened, and it is generation %d after %d: %v", i.Status().Generation, generation, err)
					}
					continue
				}
				kills++
				if power {
					os.WriteFile(file, synced, 0o600)
				}
				i = reopen(t, h, dir, Options{})
				if err := i.renew(t.Context()); err != nil {
					t.Errorf("killed at step %d (power failure: %v): %v", at, power, err)
				}
			}
		}
		for _, who := range h.twice {
			t.Errorf("%s has asked with two keys", who)
		}
		if kills < 12 || lost < 1 {
			t.Errorf("%d kills, %d lost answers: this shows nothing", kills, lost)
		}
	})
}

// TestJoinKilled: the same for joining, with a token that can be used once.
func TestJoinKilled(t *testing.T) {
	world(t, func(t *testing.T, h *FakeHub) {
		kills := 0
		for at, done := 0, false; !done; at++ {
			o := joinOptions(t, h)
			steps := 0
			step := func(string) error {
				if steps++; steps > at {
					return errKilled
				}
				return nil
			}
			h.Do(func() { h.fault = func(path string, _ bool) error { return step(path) } })
			o.step = step
			_, err := Join(t.Context(), o)
			h.Do(func() { h.fault = nil })
			if done = steps <= at; done {
				if err != nil {
					t.Fatal(err)
				}
				continue
			}
			kills++
			o.step = nil
			i, err := Join(t.Context(), o)
			if err != nil {
				t.Errorf("killed at step %d: %v", at, err)
			} else if n := i.Status().Generation; n > 2 || h.uses[o.Token] != 0 && n == 1 {
				t.Errorf("killed at step %d: generation %d, the token can be used %d times", at, n, h.uses[o.Token])
			}
		}
		if kills < 12 {
			t.Errorf("%d kills: this shows nothing", kills)
		}
	})
}

// TestDiskFull: what cannot be kept is used as long as the process lives, and what comes after waits until it can.
func TestDiskFull(t *testing.T) {
	world(t, func(t *testing.T, h *FakeHub) {
		_, dir := joined(t, h)
		full, writes := false, 0
		i := reopen(t, h, dir, Options{step: func(what string) error {
			if what == "write" {
				if writes++; full || writes == 2 {
					return errors.New("no space left on device")
				}
			}
			return nil
		}})
		if err := i.renew(t.Context()); err == nil || i.Status().Generation != 2 {
			t.Errorf("generation %d, %v", i.Status().Generation, err)
		}
		if s := reopen(t, h, dir, Options{}); s.Status().Generation != 1 {
			t.Error("it was kept: this shows nothing")
		} else if err := s.renew(t.Context()); err != nil || s.Status().Generation != 2 {
			t.Errorf("after a restart: %v", err)
		}
		full = true
		asked := h.count(control.RenewPath)
		if err := i.renew(t.Context()); err == nil || h.count(control.RenewPath) != asked {
			t.Errorf("a key that is not kept was sent: %v", err)
		}
		full = false
		if err := i.renew(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestClone: a copy is refused, says so, throws nothing away, and works once it has joined.
func TestClone(t *testing.T) {
	world(t, func(t *testing.T, h *FakeHub) {
		_, dir := joined(t, h)
		text, _ := os.ReadFile(filepath.Join(dir, fileName))
		copied := filepath.Join(t.TempDir(), "identity")
		os.Mkdir(copied, 0o700)
		os.WriteFile(filepath.Join(copied, fileName), text, 0o600)
		var log logged
		a, b := reopen(t, h, dir, Options{}), reopen(t, h, copied, Options{Log: log.log()})
		defer background(a)()
		time.Sleep(24 * time.Hour)
		defer background(b)()
		time.Sleep(24 * time.Hour)
		if why, since := b.Trouble(); !strings.Contains(why, "somebody else has renewed this identity; join the copy anew") || since.IsZero() {
			t.Errorf("the copy says %q since %v", why, since)
		}
		if why, _ := a.Trouble(); why != "" || a.Status().Generation < 3 {
			t.Errorf("the original is of generation %d, and says %q", a.Status().Generation, why)
		}
		if n := log.count("level=WARN"); n != 1 {
			t.Errorf("it was logged %d times", n)
		}
		kept, err := os.ReadFile(filepath.Join(copied, fileName))
		if err != nil || !bytes.Contains(kept, []byte(`"certificate"`)) {
			t.Errorf("the copy has thrown its identity away: %v", err)
		}
		o := joinOptions(t, h)
		o.Dir = copied
		if _, err := Join(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour) // the one that runs sees it
		if s := b.Status(); s.Error != "" || b.Agent() != o.Agent {
			t.Errorf("after joining it is %s, %+v", b.Agent(), s)
		}
	})
}

// TestRevoked: for days an agent hears no, asks no more often than the hub wants, and is back soon after it hears yes.
func TestRevoked(t *testing.T) {
	world(t, func(t *testing.T, h *FakeHub) {
		i, dir := joined(t, h)
		defer background(i)()
		after := 30 * time.Minute
		refusal := func() *control.Refusal {
			return &control.Refusal{Code: control.Revoked, Text: "it was revoked", Remedy: "creel admit", After: after}
		}
		h.Do(func() { h.refuse = func(string) *control.Refusal { return refusal() } })
		time.Sleep(2 * 24 * time.Hour)
		asked := h.count(control.RenewPath)
		if most := 2 * 24 * 2; asked == 0 || asked > most || asked < most/3 {
			t.Errorf("it has asked %d times", asked)
		}
		if s := i.Status(); s.Error != "renew the identity: it was revoked; creel admit" || s.Generation != 1 || s.Since.IsZero() || s.Expires.After(time.Now()) {
			t.Errorf("it is %+v", s)
		}
		if why, _ := i.Trouble(); !strings.Contains(why, "has expired and is not renewed") {
			t.Errorf("it says %q", why)
		}
		h.Do(func() { h.refuse = nil })
		time.Sleep(after * 5 / 4)
		if s := i.Status(); s.Error != "" || s.Generation != 2 {
			t.Errorf("after it was admitted it is %+v", s)
		}
		if reopen(t, h, dir, Options{}).Status().Generation != 2 {
			t.Error("it is not kept")
		}
	})
}

// TestHubAway: an outage that is longer than the certificate's life is over when it is over; and soon, once the hub is heard.
func TestHubAway(t *testing.T) {
	world(t, func(t *testing.T, h *FakeHub) {
		i, _ := joined(t, h)
		defer background(i)()
		away := func(is bool) { h.Do(func() { h.away = is }) }
		away(true)
		for hour := 1; hour <= 36; hour++ {
			time.Sleep(time.Hour)
			why, _ := i.Trouble()
			if hour < 18 && why != "" || hour > 20 && why == "" { // a quarter is left from the 18th on, and by the 20th it has tried
				t.Errorf("after %d h it says %q", hour, why)
			}
		}
		if why, _ := i.Trouble(); !strings.Contains(why, "refused on purpose") {
			t.Errorf("it says %q", why)
		}
		away(false)
		time.Sleep(maxBackoff)
		if s := i.Status(); s.Generation != 2 || s.Error != "" {
			t.Errorf("after the outage it is %+v", s)
		}

		away(true)
		time.Sleep(36 * time.Hour)
		away(false)
		i.Refused(&control.Refusal{Code: control.Expired})
		time.Sleep(time.Millisecond)
		if s := i.Status(); s.Generation != 3 {
			t.Errorf("when the hub says that the certificate has expired it is %+v", s)
		}
	})
}

// TestRestored: a hub that was restored from an old backup takes an agent that is ahead.
func TestRestored(t *testing.T) {
	world(t, func(t *testing.T, h *FakeHub) {
		i, _ := joined(t, h)
		for range 3 {
			if err := i.renew(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		h.Do(func() { h.agents[i.Agent()] = &fakeAgent{generation: 2} })
		if err := i.renew(t.Context()); err != nil || i.Status().Generation != 5 {
			t.Errorf("generation %d, %v", i.Status().Generation, err)
		}
	})
}

// TestStart: after a start it is renewed soon when it is time, when the clock makes no sense, and when a renewal was begun; not
// otherwise.
func TestStart(t *testing.T) {
	world(t, func(t *testing.T, h *FakeHub) {
		f := func(what string, later, clock time.Duration, want bool) {
			t.Helper()
			_, dir := joined(t, h)
			time.Sleep(later)
			i := reopen(t, h, dir, Options{Now: func() time.Time { return time.Now().Add(clock) }})
			defer background(i)()
			time.Sleep(2 * time.Minute)
			if now := i.Status().Generation == 2; now != want {
				t.Errorf("%s: %+v", what, i.Status())
			}
		}
		f("soon", time.Hour, 0, false)
		f("later", 21*time.Hour, 0, true)
		f("when it has expired", 100*time.Hour, 0, true)
		f("a clock that is behind", time.Hour, -2*time.Hour, true)
		f("a clock of ten years ago", time.Hour, -87600*time.Hour, true)
		f("a clock in ten years", time.Hour, 87600*time.Hour, true)

		i, dir := joined(t, h)
		h.Do(func() {
			h.fault = func(_ string, answered bool) error { return map[bool]error{true: errKilled}[answered] }
		})
		if err := i.renew(t.Context()); err == nil {
			t.Error("no answer was lost")
		}
		h.Do(func() { h.fault = nil })
		i = reopen(t, h, dir, Options{})
		defer background(i)()
		time.Sleep(2 * time.Minute)
		if i.Status().Generation != 2 {
			t.Errorf("after a lost answer: %+v", i.Status())
		}
	})
}

// TestRotation: agents follow the hub to another authority without a gap, and trust the old one no more.
func TestRotation(t *testing.T) {
	world(t, func(t *testing.T, h *FakeHub) {
		i, dir := joined(t, h)
		defer background(i)()
		old, next := h.issuer, newAuthority(t, "two", time.Now())
		phase := func(what string, change func()) {
			t.Helper()
			var bundle string
			h.Do(func() { change(); bundle = h.Bundle() })
			before := i.Status().Generation
			i.Trust(bundle)
			time.Sleep(2 * time.Second)
			if s := i.Status(); s.Generation != before+1 || s.Error != "" || i.Trusted() != bundle {
				t.Errorf("%s: %+v", what, s)
			}
			i.Trust(bundle)
			time.Sleep(10 * time.Minute)
			if i.Status().Generation != before+1 {
				t.Errorf("%s: it is renewed again", what)
			}
			if reopen(t, h, dir, Options{}).Trusted() != bundle {
				t.Errorf("%s: it is not kept", what)
			}
		}
		phase("both", func() { h.bundle = []*authority{old, next} })
		h.Do(func() { h.issuer, h.shows = next, next.server(h.ID, time.Now(), 7*24*time.Hour) })
		if err := i.renew(t.Context()); err != nil {
			t.Fatal(err)
		}
		phase("the new one", func() { h.bundle = []*authority{next} })
		good := h.shows
		h.Do(func() { h.shows = old.server(h.ID, time.Now(), time.Hour) })
		if err := i.renew(t.Context()); err == nil || !strings.Contains(err.Error(), "--again") {
			t.Errorf("the old authority is still trusted: %v", err)
		}

		// What would lock it out it does not take.
		h.Do(func() { h.shows, h.bundle = good, []*authority{newAuthority(t, "three", time.Now()), next} })
		bundle := h.Bundle()
		phase("a third", func() {})
		h.Do(func() { h.accepts, h.bundle, h.issuer = h.bundle[1:], h.bundle[:1], h.bundle[0] })
		i.Trust(h.Bundle())
		time.Sleep(20 * time.Minute)
		if s := i.Status(); i.Trusted() != bundle || !strings.Contains(s.Error, "so the old ones stay") || h.count(control.RenewPath) > 60 {
			t.Errorf("it trusts %s, and is %+v after %d requests", i.Trusted(), s, h.count(control.RenewPath))
		}
	})
}

// TestToken: one is asked for seldom, by one for all, and a hub that refuses for long stops nobody for longer than that.
func TestToken(t *testing.T) {
	world(t, func(t *testing.T, h *FakeHub) {
		i, _ := joined(t, h)
		asked := func() int { return h.count(control.TokenPath) }
		get := func() string {
			t.Helper()
			text, err := i.Token(t.Context())
			if err != nil {
				t.Error(err)
			}
			return text
		}
		all := make(chan string, 100)
		for range cap(all) {
			go func() { all <- get() }()
		}
		first := <-all
		for range cap(all) - 1 {
			if text := <-all; text != first || text == "" {
				t.Errorf("got %q and %q", first, text)
			}
		}
		for range 60 * 6 {
			get()
			time.Sleep(10 * time.Second)
		}
		if n := asked(); n < 8 || n > 10 {
			t.Errorf("in an hour it was asked for %d times", n)
		}
		if err := i.renew(t.Context()); err != nil || !strings.Contains(get(), "generation 2") {
			t.Errorf("after a renewal it is another certificate's: %v", err)
		}

		n, had, got := asked(), get(), 0
		h.Do(func() {
			h.refuse = func(string) *control.Refusal { return &control.Refusal{Code: control.Busy, Text: "busy"} }
		})
		for range 60 {
			text, err := i.Token(t.Context())
			switch {
			case err == nil && text == had:
				got++
			case err == nil || !strings.Contains(err.Error(), "busy"):
				t.Fatalf("%q, %v", text, err)
			}
			time.Sleep(time.Minute)
		}
		if got < 9 || got > 10 || asked()-n > 60 {
			t.Errorf("the old one was used for %d min, and the hub asked %d times", got, asked()-n)
		}
		h.Do(func() { h.refuse = nil })
		time.Sleep(tokenRetry)
		get()

		defer background(i)()
		h.Do(func() { h.away = true })
		time.Sleep(48 * time.Hour)
		h.Do(func() { h.away = false })
		if _, err := i.Token(t.Context()); err == nil || !strings.Contains(err.Error(), "expired") {
			t.Errorf("with an expired certificate: %v", err)
		}
		time.Sleep(tokenRetry) // it was renewed, for the hub has said so
		get()
	})
}

// TestTokenSlow: while a hub hangs, those who have a token do not wait for another.
func TestTokenSlow(t *testing.T) {
	world(t, func(t *testing.T, h *FakeHub) {
		i, _ := joined(t, h)
		had, err := i.Token(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(7 * time.Minute)
		h.Do(func() { h.fault = func(string, bool) error { time.Sleep(time.Hour); return nil } })
		began := time.Now()
		one := make(chan string)
		go func() { text, _ := i.Token(t.Context()); one <- text }()
		time.Sleep(time.Second)
		if text, err := i.Token(t.Context()); text != had || err != nil || time.Since(began) != time.Second {
			t.Errorf("%q, %v after %v", text, err, time.Since(began))
		}
		if text := <-one; text != had || time.Since(began) != tokenHurried {
			t.Errorf("%q after %v", text, time.Since(began))
		}
		if text, err := i.Token(t.Context()); text != had || err != nil || time.Since(began) != tokenHurried {
			t.Errorf("%q, %v after %v", text, err, time.Since(began))
		}
		time.Sleep(3 * time.Hour)
	})
}

// TestRefusalText: what a hub says cannot do anything to a terminal, nor fill the log.
func TestRefusalText(t *testing.T) {
	for text, want := range map[string]string{
		`{"code":"revoked","text":"it was\u001b[2J revoked","remedy":"admit it","after":-5}`: "it was [2J revoked; admit it",
		"<html>":                  "the hub answers 403: <html>; is it a creel hub",
		"\x1b[2J":                 "the hub answers 403: [2J; is it",
		"":                        "the hub answers 403: ; is it",
		strings.Repeat("x", 1000): "the hub answers 403: " + strings.Repeat("x", 200) + ";",
	} {
		if err := refusalOf("403", []byte(text)); !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestAnotherHub: while the hub that was joined is away, or silent, another one renews the identity and hands out tokens.
func TestAnotherHub(t *testing.T) {
	world(t, func(t *testing.T, h *FakeHub) {
		_, dir := joined(t, h)
		var asked []string
		silent := false
		o := Options{}
		i := reopen(t, h, dir, o)
		joinedAt := strings.TrimPrefix(i.Addresses().URL, "https://")
		i.o.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			asked = append(asked, address)
			switch {
			case !strings.HasPrefix(address, joinedAt):
				return h.Dial(ctx, network, address)
			case silent:
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return nil, errors.New("connection refused on purpose")
		}
		if err := i.renew(t.Context()); err == nil {
			t.Error("it is renewed by nobody")
		}
		i.Follow([]string{i.Addresses().URL, "http://plain:1", "https://other:4380"})
		if err := i.renew(t.Context()); err != nil || i.Status().Generation != 2 {
			t.Errorf("it is %+v: %v", i.Status(), err)
		}
		silent = true
		began := time.Now()
		if err := i.renew(t.Context()); err != nil || i.Status().Generation != 3 || time.Since(began) > 5*time.Second {
			t.Errorf("after %v it is %+v: %v", time.Since(began), i.Status(), err)
		}
		if _, err := i.Token(t.Context()); err != nil {
			t.Errorf("there is no token: %v", err)
		}
		i.Follow([]string{"https://other:4380", i.Addresses().URL})
		asked = nil
		if err := i.renew(t.Context()); err != nil || len(asked) != 1 || asked[0] != "other:4380" {
			t.Errorf("it asks %q: %v", asked, err)
		}
	})
}
