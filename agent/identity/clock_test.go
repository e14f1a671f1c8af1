package identity

import (
	"crypto/tls"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/creelhq/creel/control"
)

// clock is a machine's that is wrong by so much.
type clock struct{ off atomic.Int64 }

func (c *clock) set(off time.Duration) { c.off.Store(int64(off)) }
func (c *clock) Now() time.Time        { return time.Now().Add(time.Duration(c.off.Load())).Round(0) }

// TestWrongClocks: a clock that is wrong, or that jumps, keeps nobody out, and costs a renewal at most.
func TestWrongClocks(t *testing.T) {
	const years = 10 * 365 * 24 * time.Hour
	offs := []time.Duration{-years, years, -10 * time.Minute, 10 * time.Minute}
	if testing.Short() {
		offs = offs[:2]
	}
	for _, off := range offs {
		world(t, func(t *testing.T, h *FakeHub) {
			var c clock
			var log logged
			c.set(min(off, 10*time.Minute)) // with a clock in ten years nobody joins
			o := joinOptions(t, h)
			o.Now, o.Log = c.Now, log.log()
			i, err := Join(t.Context(), o)
			if err != nil {
				t.Fatalf("%v: %v", off, err)
			}
			defer background(i)()
			for _, off := range []time.Duration{off, 0, off, -off, off} {
				c.set(off)
				for range 4 {
					time.Sleep(9 * time.Hour)
					if time.Until(h.shows.Leaf.NotAfter) < 2*24*time.Hour {
						h.Do(func() { h.shows = h.issuer.server(h.ID, time.Now().Add(-time.Minute), 7*24*time.Hour) })
					}
					if _, err := i.Token(t.Context()); err != nil {
						t.Fatalf("%v: %v", off, err)
					}
				}
			}
			if s := i.Status(); s.Error != "" || s.Generation < 180/20 || s.Generation > 180/16+6 {
				t.Errorf("%v: after 180 hours it is %+v", off, s)
			}
			if n := log.count("this machine's clock seems to be wrong"); n > 180 || n == 0 && (off > time.Hour || off < -time.Hour) {
				t.Errorf("%v: warned %d times", off, n)
			}
		})
	}
}

// TestSleep: after the machine has slept, which the monotonic clock does not count, it is renewed soon.
func TestSleep(t *testing.T) {
	world(t, func(t *testing.T, h *FakeHub) {
		var c clock
		o := joinOptions(t, h)
		o.Now = c.Now
		i, err := Join(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		defer background(i)()
		time.Sleep(time.Hour)
		c.set(48 * time.Hour) // in which h, of course, went on; but it does not know that
		time.Sleep(2 * lookAtClock)
		if s := i.Status(); s.Generation != 2 {
			t.Errorf("it is %+v", s)
		}
	})
}

// TestOldKeys: a certificate of the hub's that has ended is worth nothing any more to an agent that has heard of the hub since,
// whatever its clock says, and though it was started again.
func TestOldKeys(t *testing.T) {
	world(t, func(t *testing.T, h *FakeHub) {
		var c clock
		joinedAt := h.shows
		h.Do(func() { h.life = 1000 * 24 * time.Hour })
		o := joinOptions(t, h)
		o.Now = c.Now
		i, err := Join(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		reach := func() string {
			t.Helper()
			if _, err := i.Token(t.Context()); err != nil {
				return err.Error()
			}
			i.token.text = ""
			return ""
		}
		show := func(s *tls.Certificate) { h.Do(func() { h.shows = s }) }
		see := func(what, want string) {
			t.Helper()
			if got := reach(); (got == "") != (want == "") || !strings.Contains(got, want) {
				t.Errorf("%s: %q, want %q", what, got, want)
			}
			i.token.wait = time.Time{}
		}
		see("at first", "")
		const day = 24 * time.Hour
		time.Sleep(5 * day)
		newer := h.issuer.server(h.ID, time.Now(), 7*day)
		show(newer)
		see("the next one", "")
		show(joinedAt)
		see("the one before, which is valid", "") // others may show it for as long
		time.Sleep(3 * day)
		see("the one before, which has ended", "has shown a newer one")
		c.set(-3 * day)
		see("the same with a clock by which it is valid", "") // nothing here can know
		for _, off := range []time.Duration{-4000 * day, -20 * day, 20 * day, 4000 * day} {
			c.set(off)
			show(joinedAt)
			see("an old one with a wrong clock", "has shown a newer one")
			show(newer)
			see("the right one with a wrong clock", "")
		}
		o2 := Options{Now: c.Now}
		i = reopen(t, h, o.Dir, o2)
		show(joinedAt)
		see("an old one after a start", "has shown a newer one")

		// Of a hub that was never met, what the agent's own certificate says counts.
		show(newer)
		if err := i.renew(t.Context()); err != nil {
			t.Fatal(err)
		}
		show(h.issuer.server("0193e2f4-7f1e-7a3b-9c4d-5e6f708192a3", time.Now().Add(-8*day), 7*day))
		see("another hub's old one", "its authority has made certificates as late as")
		show(h.issuer.server("0193e2f4-7f1e-7a3b-9c4d-5e6f708192a3", time.Now().Add(-2*day), 7*day))
		see("another hub's", "")
		show(newer)
		see("the hub's own, which begins earlier or later", "")
	})
}

// TestServers: only hubs' certificates of the authority are a hub's, and what is not trusted any more is not resumed either.
func TestServers(t *testing.T) {
	world(t, func(t *testing.T, h *FakeHub) {
		i, _ := joined(t, h)
		secure, err := i.ClientTLS()
		if err != nil {
			t.Fatal(err)
		}
		secure.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		reach := func() (resumed bool, err error) {
			transport := &http.Transport{DialContext: h.Dial, TLSClientConfig: secure, DisableKeepAlives: true}
			resp, err := (&http.Client{Transport: transport}).Post(hubURL+control.TokenPath, "", nil)
			if err != nil {
				return false, err
			}
			defer resp.Body.Close()
			return resp.TLS.DidResume, nil
		}
		for n := range 3 {
			if resumed, err := reach(); err != nil || resumed != (n > 0) {
				t.Errorf("connection %d: resumed %v, %v", n, resumed, err)
			}
		}
		next := newAuthority(t, "two", time.Now())
		c := *i.current.Load()
		c.roots = next.pool()
		i.current.Store(&c)
		if _, err := reach(); err == nil || !strings.Contains(err.Error(), "of no authority of the hub") {
			t.Errorf("resumed with an authority that is gone: %v", err)
		}

		agents := next.server("", time.Now(), time.Hour)
		h.Do(func() { h.shows = agents })
		if _, err := reach(); err == nil {
			t.Error("a certificate without a name is a hub's")
		}
		i2, _ := Open(i.folder.path, Options{})
		h.Do(func() { h.shows = i2.current.Load().pair }) // the agent's own
		c.roots = h.issuer.pool()
		i.current.Store(&c)
		if _, err := reach(); err == nil {
			t.Error("an agent's certificate is a hub's")
		}
	})
}
