package authority

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/hub/internal/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	hubID   = "0193b7c5-6b1e-7d0e-8000-000000000001"
	agentID = "0193b7c5-6b1e-7d0e-8000-0000000000a1"
)

// A clock shows what it is set to.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 11, 26, 12, 0, 0, 123, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

type tester interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
	Errorf(string, ...any)
}

// start opens an authority, which the caller closes.
func start(t tester, s state.Store, c *clock, dir string) *Authority {
	t.Helper()
	a, err := Open(context.Background(), Options{Store: s, Secret: &state.Secret{1}, Dir: dir, Hub: hubID, Names: []string{"hub.example.", "192.0.2.1"}, Now: c.Now})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func open(t *testing.T, s state.Store, c *clock) *Authority {
	t.Helper()
	a := start(t, s, c, t.TempDir())
	t.Cleanup(a.Close)
	return a
}

func memory() state.Store { return new(state.Memory).Open() }

func certificates(t tester, text []byte) []*x509.Certificate {
	t.Helper()
	var list []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, c)
	}
	return list
}

func pool(list ...*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range list {
		p.AddCert(c)
	}
	return p
}

var agentKey = sync.OnceValue(func() *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return k
})

// issue certifies an agent.
func issue(t tester, a *Authority, generation uint64) []*x509.Certificate {
	t.Helper()
	text, _, err := a.IssueAgent(agentKey().Public(), control.Peer{ID: agentID, Generation: generation})
	if err != nil {
		t.Fatal(err)
	}
	return certificates(t, text)
}

// shown returns what a hub shows on a connection to an address, "" for none.
func shown(t tester, a *Authority, address string) []*x509.Certificate {
	t.Helper()
	hello := &tls.ClientHelloInfo{}
	if address != "" {
		hello.Conn = arrived{local: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(address))}
	}
	c, err := a.ServerCertificate(hello)
	if err != nil {
		t.Fatal(err)
	}
	list := []*x509.Certificate{}
	for _, der := range c.Certificate {
		one, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, one)
	}
	return list
}

type arrived struct {
	net.Conn
	local net.Addr
}

func (c arrived) LocalAddr() net.Addr { return c.local }

// refusal returns the code of a refusal, "" for none.
func refusal(err error) string {
	var r *control.Refusal
	switch {
	case err == nil:
		return ""
	case errors.As(err, &r):
		return r.Code
	}
	return err.Error()
}

func code(err error) string {
	var e *api.Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.Code
	}
	return err.Error()
}

func change(t tester, a *Authority, step string) {
	t.Helper()
	if err := a.Change(context.Background(), api.AuthorityChange{Step: step}, 0); err != nil {
		t.Fatalf("%s: %v", step, err)
	}
}

// TestHandshake has an agent and a hub meet over TCP, and a client that goes by names.
func TestHandshake(t *testing.T) {
	a := open(t, memory(), &clock{now: time.Now()})
	chain := issue(t, a, 7)
	mine := tls.Certificate{PrivateKey: agentKey()}
	for _, c := range chain {
		mine.Certificate = append(mine.Certificate, c.Raw)
	}
	bundle, _ := a.Bundle()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{GetCertificate: a.ServerCertificate, ClientAuth: tls.RequestClientCert})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, name := range []string{"127.0.0.1", "localhost", "hub.example", "192.0.2.1"} {
			server := make(chan error, 1)
			var peer control.Peer
			go func() {
				conn, err := l.Accept()
				if err == nil {
					defer conn.Close()
					if err = conn.(*tls.Conn).Handshake(); err == nil {
						peer, err = a.Verify(conn.(*tls.Conn).ConnectionState().PeerCertificates)
					}
				}
				server <- err
			}()
			conn, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{RootCAs: pool(certificates(t, bundle)...), ServerName: name, MaxVersion: version, Certificates: []tls.Certificate{mine}})
			if err != nil {
				t.Fatal(err)
			}
			cs := conn.ConnectionState()
			if err := <-server; err != nil || peer != (control.Peer{ID: agentID, Generation: 7}) {
				t.Errorf("%x: the hub sees %+v, %v", version, peer, err)
			}
			if p, err := control.PeerOf(cs.PeerCertificates[0]); err != nil || p != (control.Peer{Hub: true, ID: hubID}) {
				t.Errorf("%x: the agent sees %+v, %v", version, p, err)
			}
			if last := cs.PeerCertificates[len(cs.PeerCertificates)-1]; control.FingerprintOf(last.Raw) != a.Fingerprint() {
				t.Errorf("%x: the root is not sent", version)
			}
			conn.Close()
		}
	}
}

// TestCertificates checks what is in them, with openssl as a second opinion.
func TestCertificates(t *testing.T) {
	c := newClock()
	a := open(t, memory(), c)
	agent, hub := issue(t, a, 1), shown(t, a, "198.51.100.7:4380")
	root := hub[len(hub)-1]
	if got := []int{len(agent), len(hub)}; !slices.Equal(got, []int{2, 3}) || !agent[1].Equal(hub[1]) {
		t.Fatalf("chains of %v", got)
	}
	if !root.IsCA || root.CheckSignatureFrom(root) != nil || root.NotAfter.Sub(c.Now()).Round(time.Hour) != rootLife {
		t.Errorf("the root ends at %v", root.NotAfter)
	}
	if i := agent[1]; !i.IsCA || !i.MaxPathLenZero || i.MaxPathLen != 0 || i.KeyUsage&x509.KeyUsageCertSign == 0 || i.KeyUsage&x509.KeyUsageDigitalSignature != 0 || i.NotAfter.Sub(c.Now()).Round(time.Hour) != intermediateLife {
		t.Errorf("the intermediate is %+v", i)
	}
	if l := agent[0]; l.IsCA || l.KeyUsage != x509.KeyUsageDigitalSignature || !slices.Equal(l.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) || l.Subject.CommonName != agentID || len(l.DNSNames) != 0 || !l.NotBefore.Before(c.Now()) {
		t.Errorf("the agent's is %+v", l)
	}
	for name, want := range map[string]bool{"localhost": true, "hub.example": true, "127.0.0.1": true, "::1": true, "192.0.2.1": true, "198.51.100.7": true, "198.51.100.8": false, "other.example": false} {
		if err := hub[0].VerifyHostname(name); (err == nil) != want {
			t.Errorf("the hub's certificate for %s: %v", name, err)
		}
	}
	for _, one := range slices.Concat(agent, hub) {
		if one.SerialNumber.BitLen() < 64 || one.SerialNumber.BitLen() > 128 {
			t.Errorf("the serial number of %s has %d bits", one.Subject, one.SerialNumber.BitLen())
		}
	}
	if _, _, err := a.IssueAgent(agentKey().Public(), control.Peer{Hub: true, ID: agentID}); err == nil {
		t.Error("a hub is an agent")
	}
	if _, _, err := a.IssueAgent(agentKey().Public(), control.Peer{ID: "../x", Generation: 1}); err == nil {
		t.Error("an agent has any id")
	}
	if _, _, err := a.IssueAgent(&rsa.PublicKey{}, control.Peer{ID: agentID, Generation: 1}); err == nil {
		t.Error("an agent has any key")
	}

	t.Run("openssl", func(t *testing.T) {
		tool, err := exec.LookPath("openssl")
		if err != nil {
			t.Skip("there is no openssl here")
		}
		openssl(t, tool, c, []*x509.Certificate{root}, agent, "sslclient", true)
		openssl(t, tool, c, []*x509.Certificate{root}, agent, "sslserver", false)
		openssl(t, tool, c, []*x509.Certificate{root}, hub, "sslserver", true)
		change(t, a, "rotate")
		change(t, a, "next")
		during := shown(t, a, "")
		renewed := during[len(during)-1]
		if renewed.Equal(root) {
			t.Fatal("the root is the old one")
		}
		for _, trusted := range [][]*x509.Certificate{{root}, {renewed}, {root, renewed}} {
			openssl(t, tool, c, trusted, during, "sslserver", true)
		}
		openssl(t, tool, c, []*x509.Certificate{root}, issue(t, a, 2), "sslclient", false) // agents' have no way to the old root
	})
}

// openssl has a chain verified by who trusts some roots.
func openssl(t *testing.T, tool string, c *clock, trusted, chain []*x509.Certificate, purpose string, want bool) {
	t.Helper()
	dir := t.TempDir()
	file := func(name string, list []*x509.Certificate) string {
		var ders [][]byte
		for _, one := range list {
			ders = append(ders, one.Raw)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, encode(ders...), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	out, err := exec.Command(tool, "verify", "-x509_strict", "-purpose", purpose, "-attime", strconv.FormatInt(c.Now().Unix(), 10), "-no-CAfile", "-no-CApath", "-trusted", file("trusted", trusted), "-untrusted", file("untrusted", chain[1:]), file("leaf", chain[:1])).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if (err == nil) != want {
		t.Errorf("openssl says, of %s, which was to be %t: %s", purpose, want, out)
	}
}

// TestServed: each address has a certificate of its own, once however many ask, and for so many addresses only.
func TestServed(t *testing.T) {
	c := newClock()
	a := open(t, memory(), c)
	first := shown(t, a, "198.51.100.7:4380")[0]
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			address := []string{"198.51.100.7:4380", "[fe80::1%eth0]:4380", "[::ffff:198.51.100.7]:1"}[i%3]
			one, err := a.ServerCertificate(&tls.ClientHelloInfo{ServerName: "unknown.example", Conn: arrived{local: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(address))}})
			if err != nil {
				t.Error(err)
			} else if one.Leaf.Equal(first) != (i%3 != 1) {
				t.Errorf("%s has the certificate for %v", address, one.Leaf.IPAddresses)
			}
		})
	}
	wg.Wait()
	s := a.set.Load()
	if n := len(s.served.list); n != 2 {
		t.Errorf("%d certificates were made", n)
	}
	if one := shown(t, a, "[fe80::1%eth0]:4380")[0]; one.VerifyHostname("fe80::1") != nil || one.VerifyHostname("198.51.100.7") == nil {
		t.Errorf("the certificate of an address is for %v", one.IPAddresses)
	}
	if !shown(t, a, "127.0.0.1:1")[0].Equal(shown(t, a, "")[0]) || !shown(t, a, "192.0.2.1:1")[0].Equal(shown(t, a, "")[0]) {
		t.Error("an address that all have has a certificate of its own")
	}
	for i := range 3 * maxServed {
		shown(t, a, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}), 1).String())
		if n := len(s.served.list); n > maxServed {
			t.Fatalf("%d certificates are kept", n)
		}
	}
}

// TestExpiry walks through the years: everything renews by itself while it can, warns when it cannot, and nothing outlives what
// it comes from.
func TestExpiry(t *testing.T) {
	c := newClock()
	a := open(t, memory(), c)
	began := c.Now()
	agent, hub := issue(t, a, 1), shown(t, a, "")
	check := func(want string) {
		t.Helper()
		p, err := a.Verify(agent)
		if refusal(err) != want || p.ID != agentID {
			t.Errorf("after %v the agent is %+v, %v; want %q", c.Now().Sub(began), p, err, want)
		}
	}
	check("")
	c.add(hubLife*2/3 - 2*time.Second)
	check(control.Expired)
	if !shown(t, a, "")[0].Equal(hub[0]) {
		t.Error("the hub's certificate is made anew too early")
	}
	c.add(2 * time.Second)
	if now := shown(t, a, "")[0]; now.Equal(hub[0]) || now.NotAfter.Sub(c.Now()).Round(time.Minute) != hubLife {
		t.Error("the hub's certificate does not renew")
	}
	agent = issue(t, a, 2)
	c.add(-3 * backdate) // a clock that was wrong is set right
	if p, err := a.Verify(agent); refusal(err) != control.Expired || p.Generation != 2 {
		t.Errorf("a certificate of the future is %+v, %v", p, err)
	}

	c.add(began.Sub(c.Now()))
	if w := a.Describe().Warnings; len(w) != 0 {
		t.Errorf("warnings at the beginning: %q", w)
	}
	renewals, ended := 0, time.Time{}
	for year := 0; year < 25; year++ {
		for range 12 {
			c.add(rootLife / 240)
			if err := a.tend(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		d := a.Describe()
		if d.Ends.After(d.Roots[0].Ends) {
			t.Fatal("the intermediate outlives the root")
		}
		if d.Ends.After(ended) {
			renewals, ended = renewals+1, d.Ends
		}
		warned := slices.ContainsFunc(d.Warnings, func(w string) bool { return strings.Contains(w, "rotate") })
		if want := d.Roots[0].Ends.Sub(c.Now()) <= rootLife/3; warned != want || !want && len(d.Warnings) > 0 {
			t.Errorf("year %d: warnings %q", year, d.Warnings)
		}
		chain, life, err := a.IssueAgent(agentKey().Public(), control.Peer{ID: agentID, Generation: 9})
		if over := !c.Now().Before(d.Roots[0].Ends); over != (err != nil) {
			t.Fatalf("year %d: %v", year, err)
		} else if over {
			if !strings.Contains(err.Error(), "rotate") {
				t.Errorf("the error does not say what to do: %v", err)
			}
			continue
		}
		leaf := certificates(t, chain)
		if leaf[0].NotAfter.After(leaf[1].NotAfter) || leaf[0].NotBefore.Before(leaf[1].NotBefore) || life != leaf[0].NotAfter.Sub(c.Now()) {
			t.Errorf("year %d: a certificate for %v outlives its issuer", year, life)
		}
		agent = leaf
		check("")
	}
	if renewals < 5 || renewals > 7 {
		t.Errorf("%d intermediates in twenty years", renewals)
	}
	check(control.Expired) // though its root has ended as well
	if _, err := a.ServerCertificate(&tls.ClientHelloInfo{}); err == nil {
		t.Error("a hub has a certificate after the end of its root")
	}
	change(t, a, "rotate")
	change(t, a, "next")
	check(control.Expired)
	agent = issue(t, a, 10)
	check("")
}

// TestVerify is about what is refused.
func TestVerify(t *testing.T) {
	c := newClock()
	a, other := open(t, memory(), c), open(t, memory(), c)
	s := a.set.Load()
	forged := func(f func(*x509.Certificate)) []*x509.Certificate {
		leaf := *issue(t, a, 1)[0]
		f(&leaf)
		der, err := s.issues.sign(&leaf, agentKey().Public(), c.Now())
		if err != nil {
			t.Fatal(err)
		}
		return certificates(t, encode(der))
	}
	crooked := bytes.Clone(issue(t, a, 1)[0].Raw)
	crooked[len(crooked)-1] ^= 1
	f := func(chain []*x509.Certificate, code, text string) {
		t.Helper()
		for range 2 { // the second answer is that of the first
			p, err := a.Verify(chain)
			if refusal(err) != code || err != nil && !strings.Contains(err.Error(), text) || err != nil && p != (control.Peer{}) {
				t.Errorf("%+v, %v; want %s: %s", p, err, code, text)
			}
		}
	}
	f(issue(t, a, 1), "", "")
	f(issue(t, a, 1)[:1], "", "")
	f(append(issue(t, a, 1), issue(t, other, 1)...), "", "")
	f(nil, control.NoCertificate, "no certificate")
	f(issue(t, other, 1), control.UnknownAuthority, "another hub's")
	f(append(issue(t, other, 1), shown(t, a, "")...), control.UnknownAuthority, "another hub's")
	f(certificates(t, encode(crooked)), control.UnknownAuthority, "no authority of this hub")
	f(shown(t, a, ""), control.NoCertificate, "hubs are no agents")
	f(forged(func(l *x509.Certificate) { l.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), control.NoCertificate, "another use")
	f(forged(func(l *x509.Certificate) { l.URIs = nil }), control.NoCertificate, "no agent's")
	f(shown(t, a, "")[1:], control.NoCertificate, "no agent's")

	// An intermediate whose key was stolen, and has ended: what the thief makes ends with it.
	was := *s.issues.intermediate
	longer := was
	longer.NotAfter = was.NotAfter.Add(rootLife)
	leaf := &x509.Certificate{URIs: issue(t, a, 1)[0].URIs, NotBefore: c.Now(), NotAfter: was.NotAfter.Add(time.Hour * 24 * 365), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := sign(leaf, &longer, agentKey().Public(), s.issues.key, c.Now())
	if err != nil {
		t.Fatal(err)
	}
	f(certificates(t, encode(der)), "", "")
	c.add(was.NotAfter.Sub(c.Now()) + time.Second)
	if _, err := a.Verify(certificates(t, encode(der))); refusal(err) != control.Expired {
		t.Errorf("a certificate that outlives its issuer: %v", err)
	}
}

func TestCache(t *testing.T) {
	c := cache{max: 10}
	sum := func(i int) [32]byte { return [32]byte{byte(i), byte(i >> 8)} }
	for i := range 1000 {
		c.put(sum(i), verified{peer: control.Peer{Generation: uint64(i)}})
		for j := max(0, i-9); j <= i; j++ {
			if v, ok := c.get(sum(j)); !ok || v.peer.Generation != uint64(j) {
				t.Fatalf("after %d, %d is %v, %t", i, j, v, ok)
			}
		}
		if n := len(c.new) + len(c.old); n > 20 {
			t.Fatalf("%d are kept", n)
		}
	}
}
