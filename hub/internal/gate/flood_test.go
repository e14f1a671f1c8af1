package gate

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/creelhq/creel/control"
)

// TestHundredRenewalsAtOnce: all succeed, from one address.
func TestHundredRenewalsAtOnce(t *testing.T) {
	w := open(t)
	text := w.tokens.create(100, nil)
	hosts := make([]*host, 100)
	var all sync.WaitGroup
	for i := range hosts {
		hosts[i] = newHost()
		grant, refused := hosts[i].enrol(t, w.gate, text)
		want(t, "enrol", refused, "")
		hosts[i].take(&grant)
	}
	for _, h := range hosts {
		all.Go(func() {
			_, refused := h.renew(t, w.gate)
			want(t, "renew", refused, "")
		})
	}
	all.Wait()
}

// TestBusy: what is too much is told when to come again, not all at the same moment, and does not wait behind strangers.
func TestBusy(t *testing.T) {
	w := open(t)
	h := newHost().join(w, nil)
	release := make(chan struct{})
	w.authority.issuing = func() error { <-release; return errors.New("the test is over") }
	w.gate.limits.strangers = newPool(2, 20)
	strangers := w.gate.limits.strangers
	var all sync.WaitGroup
	for i := range cap(strangers.slots) + int(strangers.most) {
		one := newHost()
		one.address = fmt.Sprintf("198.51.%d.%d:1", i/200, i%200)
		all.Go(func() { one.enrol(t, w.gate, "creel_aaaaaaaa_"+strings.Repeat("b", 26)) })
	}
	eventually(t, "everything is full", func() bool {
		return len(strangers.slots) == cap(strangers.slots) && strangers.waiting.Load() == strangers.most
	})
	waits := make(map[time.Duration]bool)
	for i := range 20 {
		one := newHost()
		one.address = fmt.Sprintf("203.0.113.%d:1", i)
		_, refused := one.enrol(t, w.gate, "creel_aaaaaaaa_"+strings.Repeat("b", 26))
		want(t, "enrol", refused, control.Busy)
		if refused.After < time.Second || refused.After > time.Minute {
			t.Errorf("to come again in %v", refused.After)
		}
		waits[refused.After] = true
	}
	if len(waits) < 10 {
		t.Errorf("all come again at the same moment: %v", waits)
	}
	_, refused := h.token(t, w.gate)
	want(t, "an agent meanwhile", refused, "")
	close(release)
	all.Wait()
	for _, k := range w.gate.Knocks().Knocks {
		if k.Reason == control.Busy {
			t.Errorf("knocks: %+v", k)
		}
	}
}

// TestFloodOfStrangers: guessing tokens makes an address wait, not the others and not the agents behind it.
func TestFloodOfStrangers(t *testing.T) {
	w := open(t)
	w.gate.limits.network = newLimiter(10, 400)
	good := newHost().join(w, nil)
	tried, throttled := 0, 0
	guess := newHost()
	body := toJSON(control.EnrolRequest{Token: "creel_aaaaaaaa_" + strings.Repeat("b", 26), Agent: guess.id, CSR: guess.csr()})
	for range 300 {
		_, refused := ask[control.Grant](t, w.gate, guess.request(control.EnrolPath, body))
		switch refused.Code {
		case control.TokenUnknown:
			tried++
		case control.Busy:
			throttled++
		}
	}
	if tried != 60 || throttled != 240 {
		t.Errorf("%d guesses were looked at, %d were not", tried, throttled)
	}
	good.next(t, w.gate)
	other := newHost()
	other.address = "198.51.100.1:1"
	other.join(w, nil)
	w.clock.pass(time.Minute)
	newHost().join(w, nil)
	throttled = 0
	for range 500 {
		r := good.request(control.TokenPath, "")
		r.Method = http.MethodGet
		if _, refused := ask[control.AccessToken](t, w.gate, r); refused.Code == control.Busy {
			throttled++
		}
	}
	if throttled != 101 { // one has come just before
		t.Errorf("%d of 500 requests were too many for one address, want 101", throttled)
	}
	_, refused := other.token(t, w.gate)
	want(t, "another address", refused, "")
}

// TestLimiter: over any time no more come than the rate and a burst; networks beyond those that are known are one.
func TestLimiter(t *testing.T) {
	l := newLimiter(10, 20)
	now := time.Unix(1_700_000_000, 0)
	network := netip.MustParsePrefix("192.0.2.1/32")
	n := 0
	for range 1000 {
		if l.wait(network, now, true) == 0 {
			n++
		}
		now = now.Add(10 * time.Millisecond)
	}
	if n != 100+19 && n != 100+20 {
		t.Errorf("%d came in ten seconds, want 10 a second and a burst of 20", n)
	}
	if wait := l.wait(network, now, true); wait > 0 {
		if l.wait(network, now.Add(wait), true) != 0 {
			t.Error("it came when told, and must wait")
		}
	}
	if l.wait(network, now.Add(-time.Hour), true) != 0 {
		t.Error("the clock was set back, and nobody comes in")
	}
	for i := range maxNetworks * 3 {
		l.wait(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32), now, true)
	}
	if len(l.until) > maxNetworks+1 {
		t.Errorf("%d networks are known", len(l.until))
	}
	now = now.Add(time.Hour)
	if l.wait(netip.MustParsePrefix("198.51.100.1/32"), now, true) != 0 || len(l.until) > maxNetworks {
		t.Error("networks are never forgotten")
	}
	for address, want := range map[string]string{
		"192.0.2.1:5": "192.0.2.1/32", "[::ffff:192.0.2.1]:5": "192.0.2.1/32", "[2001:db8:1:2:3::4]:5": "2001:db8:1:2::/64", "192.0.2.1": "192.0.2.1/32", "@": "0.0.0.0/32",
	} {
		if _, got := placeOf(address); got.String() != want {
			t.Errorf("%s is of network %s, want %s", address, got, want)
		}
	}
}

// TestPoolGivesUp: who waits too long, or goes away, waits no more.
func TestPoolGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(1, 5)
		if !p.enter(t.Context()) {
			t.Fatal("it is empty")
		}
		begun := time.Now()
		if p.enter(t.Context()) || time.Since(begun) != patience {
			t.Errorf("waited for %v", time.Since(begun))
		}
		p.leave()
		if !p.enter(t.Context()) || p.waiting.Load() != 0 {
			t.Error("it is empty again")
		}
	})
}

// TestKnocks: the list is bounded, nobody pushes others out, and what strangers say is made harmless.
func TestKnocks(t *testing.T) {
	w := open(t)
	refusal := &control.Refusal{Code: control.TokenSpent, Text: "spent", Remedy: "creel token create"}
	victim := uuid.NewString()
	w.gate.Refused(victim, "victim", "192.0.2.1:1", refusal)
	for i := range 300 {
		w.clock.pass(time.Millisecond)
		w.gate.Refused(uuid.NewString(), strings.Repeat("é\x00\x1b[2J\u202e\n", 300), fmt.Sprintf("[2001:db8::%x]:1", i), refusal)
		w.gate.Refused(victim, "", "[2001:db8::1]:1", &control.Refusal{Code: fmt.Sprint(i % 100), Text: "x"})
	}
	list := w.gate.Knocks().Knocks
	if len(list) != 1+maxFromNetwork {
		t.Fatalf("%d knocks of two networks, want %d", len(list), 1+maxFromNetwork)
	}
	found := false
	for _, k := range list {
		found = found || k.Agent == victim && k.Reason == control.TokenSpent && k.Name == "victim" && k.Count == 1
		if len(k.Name) > maxName || !utf8.ValidString(k.Name) || strings.ContainsFunc(k.Name, unicode.IsControl) || strings.Contains(k.Name, "\u202e") {
			t.Fatalf("the name %q is shown", k.Name)
		}
	}
	if !found {
		t.Error("a flood from another network has pushed it out")
	}
	w.gate.Refused(victim, "renamed", "[2001:db8::1]:1", refusal)    // the same, seen from elsewhere
	w.gate.Refused("no UUID \x00", "", "192.0.2.1:1", refusal)       // by its address
	w.gate.Refused("", "", "192.0.2.1:2", refusal)                   // the same
	w.gate.Refused(victim, "", "192.0.2.1:3", busy(1, "come later")) // is no knock
	list = w.gate.Knocks().Knocks
	for _, k := range list {
		if k.Agent == "" && (k.Address != "192.0.2.1" || k.Count != 2) || k.Agent == victim && k.Reason == control.TokenSpent && (k.Count != 2 || k.Name != "renamed" || k.Address != "2001:db8::1") || k.Reason == control.Busy {
			t.Errorf("knocks: %+v", k)
		}
	}
	for i := range maxKnocks + 200 {
		w.clock.pass(time.Millisecond)
		w.gate.Refused("", "", fmt.Sprintf("10.1.%d.%d:1", i/200, i%200), refusal)
	}
	list = w.gate.Knocks().Knocks
	if len(list) != maxKnocks || list[0].Last.Before(list[1].Last) || list[0].Address != "10.1.5.199" {
		t.Errorf("%d knocks, the newest %+v", len(list), list[0])
	}
	if n := w.gate.counted.refused[control.TokenSpent].Load(); n < 1500 {
		t.Errorf("%d are counted", n)
	}
	for in, want := range map[string]string{"a\tb\r\nc": "a b  c", "\xff\xfe": "", " x ": "x", strings.Repeat("é", 60): strings.Repeat("é", 50), "日本\u200b語": "日本語"} {
		if got := clean(in, 100); got != want {
			t.Errorf("%q is shown as %q, want %q", in, got, want)
		}
	}
}
