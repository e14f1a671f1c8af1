package hub

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/hub/internal/authority"
	"github.com/creelhq/creel/hub/internal/state"
	"github.com/creelhq/creel/tlsconf"
)

// TestHubsKnowEachOther: over TLS each side proves which hub it is, whatever it was called; nobody else can.
func TestHubsKnowEachOther(t *testing.T) {
	memory := new(state.Memory)
	open := func(id string, s state.Store) *hub {
		t.Helper()
		a, err := authority.Open(t.Context(), authority.Options{Store: s, Secret: new(state.Secret), Dir: t.TempDir(), Hub: id})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(a.Close)
		h := &hub{id: id, authority: a}
		h.TLS = tlsconf.Server{Identity: true}
		if h.secure, err = h.TLS.Config(certified{h}, nil); err != nil {
			t.Fatal(err)
		}
		return h
	}
	const idA, idB, idX = "a0000000-0000-4000-8000-000000000000", "b0000000-0000-4000-8000-000000000000", "c0000000-0000-4000-8000-000000000000"
	a, b := open(idA, memory.Open()), open(idB, memory.Open())
	stranger := open(idB, new(state.Memory).Open()) // says that it is b, by an authority of its own

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	chain, _, err := a.authority.IssueAgent(key.Public(), control.Peer{ID: idA, Generation: 1})
	if err != nil {
		t.Fatal(err)
	}
	agent := tls.Certificate{PrivateKey: key}
	for block, rest := pem.Decode(chain); block != nil; block, rest = pem.Decode(rest) {
		agent.Certificate = append(agent.Certificate, block.Bytes)
	}
	asAgent := a.towards(idB)
	asAgent.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &agent, nil }
	nobody := a.towards(idB)
	nobody.GetClientCertificate = nil

	f := func(what string, client *tls.Config, server *hub, refused string, want error, id string) {
		t.Helper()
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		shown := make(chan error, 1)
		go func() {
			c, err := l.Accept()
			if err != nil {
				shown <- err
				return
			}
			defer c.Close()
			s := tls.Server(c, server.inviting())
			if err := s.HandshakeContext(t.Context()); err != nil {
				shown <- err
				return
			}
			cs := s.ConnectionState()
			shown <- server.shown(&cs, id)
		}()
		c, err := tls.Dial("tcp", l.Addr().String(), client)
		if (err == nil) != (refused == "") || err != nil && !strings.Contains(err.Error(), refused) {
			t.Errorf("%s: %v, want %q", what, err, refused)
		}
		got := <-shown
		if c != nil {
			c.Close()
		}
		if refused == "" && (got == nil) != (want == nil) {
			t.Errorf("%s: the asked hub says %v", what, got)
		}
	}
	no := errors.New("refused")
	f("a asks b", a.towards(idB), b, "", nil, idA)
	f("b asks a", b.towards(idA), a, "", nil, idB)
	f("any hub", a.towards(idB), b, "", nil, "")
	f("a says that it is another", a.towards(idB), b, "", no, idX)
	f("an agent that says that it is a", asAgent, b, "", no, idA)
	f("nobody", nobody, b, "", no, idA)
	f("a is where b should be", b.towards(idB), a, "hub "+idA+" answers where hub "+idB+" should be", nil, idB)
	f("a stranger is where b should be", a.towards(idB), stranger, "verify a hub's certificate", nil, idA)
}
