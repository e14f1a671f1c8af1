package access

import (
	"crypto/ed25519"
	"crypto/x509"
	"testing"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/hub/internal/state"
)

// timed is a hub with something to show.
func timed(b testing.TB) (a *Access, agent, token string, cert *x509.Certificate) {
	c := newClock()
	a = open(b, new(state.Memory).Open(), c)
	cert = certificate(b)
	jwt, err := a.JWT(Principal{Name: "web1.example.com", Role: api.Enrol, Agent: agentID}, cert)
	if err != nil {
		b.Fatal(err)
	}
	return a, jwt.Token, create(b, a, api.AccessTokenRequest{Role: api.Ingest, Signals: []string{"logs"}, Records: 1 << 60}).Text, cert
}

// TestCheckDoesNotAllocate once it was made.
func TestCheckDoesNotAllocate(t *testing.T) {
	a, agent, token, cert := timed(t)
	for name, c := range map[string]creel.Credentials{"a JWT": {Authorization: "Bearer " + agent, TLS: showing(cert)}, "a token": {Authorization: "Bearer " + token}} {
		if n := testing.AllocsPerRun(100, func() {
			who, err := a.Authenticate(c, creel.Logs)
			if err == nil {
				err = a.Limit(who, 1)
			}
			if err != nil {
				t.Error(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// What a check costs. The limits: 60 µs cold and 2 µs cached. Cold is one Ed25519 verification, which stands beside it, and
// what is around that.
func BenchmarkCheck(b *testing.B) {
	a, agent, token, cert := timed(b)
	cs := showing(cert)
	run := func(name string, limit time.Duration, f func() error) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := f(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(limit.Nanoseconds()), "limit-ns")
		})
	}
	check := func(text string) func() error {
		return func() error { _, err := a.Bearer(text, cs); return err }
	}
	cold := func(text string) func() error {
		return func() error { a.cache.forget(); return check(text)() }
	}
	run("cold-jwt", 60*time.Microsecond, cold(agent))
	run("cold-token", 60*time.Microsecond, cold(token))
	run("cached-jwt", 2*time.Microsecond, check(agent))
	run("cached-token", 2*time.Microsecond, check(token))
	run("refused", 60*time.Microsecond, func() error {
		if check(agent[:len(agent)-4]+"AAAA")() == nil {
			b.Fatal("not refused")
		}
		return nil
	})
	b.Run("verification-alone", func(b *testing.B) {
		k := a.keys.current().signer(a.o.Now())
		message := []byte(agent)
		signature := ed25519.Sign(k.private, message)
		for b.Loop() {
			if !ed25519.Verify(k.public, message, signature) {
				b.Fatal("not verified")
			}
		}
	})
	b.Run("sign", func(b *testing.B) {
		for b.Loop() {
			if _, err := a.JWT(Principal{Role: api.Enrol, Agent: agentID}, cert); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkLimit of one token. The limit: nothing beside a check of 2 µs.
func BenchmarkLimit(b *testing.B) {
	a, _, token, _ := timed(b)
	p := bearer(b, a, token)
	b.ReportAllocs()
	for b.Loop() {
		if err := a.Limit(creel.Caller{Token: p.Token}, 1); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(2000, "limit-ns")
}
