package authority

import (
	"crypto/tls"
	"testing"

	"github.com/creelhq/creel/control"
)

// What an identity costs here. The limit to hold it against: a whole enrolment may take 60 ms of a core (1 000 a minute).
func BenchmarkIssueAgent(b *testing.B) {
	a := start(b, memory(), newClock(), b.TempDir())
	defer a.Close()
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := a.IssueAgent(agentKey().Public(), control.Peer{ID: agentID, Generation: 1}); err != nil {
			b.Fatal(err)
		}
	}
}

// What a connection and each request for a token cost: of an agent that is known, and of one that is not.
func BenchmarkVerify(b *testing.B) {
	a := start(b, memory(), newClock(), b.TempDir())
	defer a.Close()
	chain := issue(b, a, 1)
	b.Run("known", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := a.Verify(chain); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("new", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := a.set.Load().verify(chain); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// What the certificate costs in each handshake, which itself takes hundreds of microseconds.
func BenchmarkServerCertificate(b *testing.B) {
	a := start(b, memory(), newClock(), b.TempDir())
	defer a.Close()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.ServerCertificate(&tls.ClientHelloInfo{}); err != nil {
			b.Fatal(err)
		}
	}
}
