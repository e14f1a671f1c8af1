package tlsconf_test

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/creelhq/creel/tlsconf"
)

// An authority issues certificates.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  crypto.Signer
	pem  []byte
}

func newAuthority(t testing.TB, name string) *authority {
	a := &authority{t: t, key: newKey(t)}
	a.cert, a.pem = a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, KeyUsage: x509.KeyUsageCertSign}, a.key.Public())
	return a
}

func newKey(t testing.TB) crypto.Signer {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (a *authority) sign(c *x509.Certificate, key crypto.PublicKey) (*x509.Certificate, []byte) {
	a.t.Helper()
	c.SerialNumber, c.BasicConstraintsValid = big.NewInt(1), true
	if c.NotBefore.IsZero() {
		c.NotBefore = time.Now().Add(-time.Hour)
	}
	if c.NotAfter.IsZero() {
		c.NotAfter = time.Now().Add(time.Hour)
	}
	by := cmp.Or(a.cert, c)
	der, err := x509.CreateCertificate(rand.Reader, c, by, key, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return parsed, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// issue returns a certificate for 127.0.0.1 and hub.example, for servers and clients, which the name tells apart from others.
func (a *authority) issue(name string, key crypto.Signer, from, until time.Time) (cert, keyPEM []byte) {
	a.t.Helper()
	_, cert = a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, DNSNames: []string{"hub.example"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: from, NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, key.Public())
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// files are the files that options name.
type files struct {
	t   testing.TB
	dir string
}

func (f files) path(name string) string { return filepath.Join(f.dir, name) }

// write writes a file as of now, which may be a test's.
func (f files) write(name string, text []byte) {
	f.t.Helper()
	if err := os.WriteFile(f.path(name), text, 0o600); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Chtimes(f.path(name), time.Now(), time.Now()); err != nil {
		f.t.Fatal(err)
	}
}

// give writes NAME.pem and NAME.key.
func (f files) give(name string, a *authority, title string) {
	f.t.Helper()
	cert, key := a.issue(title, newKey(f.t), time.Time{}, time.Time{})
	f.write(name+".pem", cert)
	f.write(name+".key", key)
}

func (f files) server() tlsconf.Server {
	return tlsconf.Server{CertFile: f.path("server.pem"), KeyFile: f.path("server.key")}
}

func (f files) config(s tlsconf.Server, log io.Writer) *tls.Config {
	f.t.Helper()
	c, err := s.Config(nil, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		f.t.Fatal(err)
	}
	return c
}

func (f files) client(c tlsconf.Client, host string) *tls.Config {
	f.t.Helper()
	t, err := c.Config(host, nil, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	t = t.Clone() // as net/http does
	if t.ServerName == "" {
		t.ServerName = host
	}
	return t
}

// meet lets a client and a server talk. The error is the client's.
func meet(server, client *tls.Config) (tls.ConnectionState, error) {
	x, y := net.Pipe()
	near, far := newEager(x), newEager(y)
	defer x.Close()
	defer near.Close()
	go func() {
		defer far.Close()
		if s := tls.Server(far, server); s.Handshake() == nil {
			s.Write([]byte("x")) // the client will say so
		}
	}()
	c := tls.Client(near, client)
	_, err := io.ReadFull(c, make([]byte, 1)) // with TLS 1.3 a client hears only then that it is refused
	return c.ConnectionState(), err
}

// eager is a pipe's end that can be written to without anybody who reads, as sockets can, and works with a test's time.
type eager struct {
	net.Conn
	out chan []byte
}

func newEager(c net.Conn) *eager {
	e := &eager{c, make(chan []byte, 100)}
	go func() {
		for b := range e.out {
			if _, err := c.Write(b); err != nil {
				break // the other end is gone
			}
		}
		c.Close()
	}()
	return e
}

func (e *eager) Write(b []byte) (int, error) {
	e.out <- bytes.Clone(b)
	return len(b), nil
}

// Close closes the pipe when all is written.
func (e *eager) Close() error {
	close(e.out)
	return nil
}

func title(cs tls.ConnectionState) string {
	if len(cs.PeerCertificates) == 0 {
		return ""
	}
	return cs.PeerCertificates[0].Subject.CommonName
}

// TestRotation: good files are used after a second, bad ones never, and the log says so once.
func TestRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := files{t, t.TempDir()}
		a := newAuthority(t, "a")
		f.write("ca.pem", a.pem)
		f.give("server", a, "first")
		var log bytes.Buffer
		server, client := f.config(f.server(), &log), f.client(tlsconf.Client{CAFile: f.path("ca.pem")}, "127.0.0.1")
		see := func(want, said string, lines int) {
			t.Helper()
			for range 3 { // seconds
				time.Sleep(time.Second)
				if cs, err := meet(server, client); err != nil || title(cs) != want {
					t.Errorf("sees %q, %v, want %q", title(cs), err, want)
				}
			}
			if n := strings.Count(log.String(), "\n"); n != lines || !strings.Contains(log.String(), said) {
				t.Errorf("%d lines of log, want %d with %q:\n%s", n, lines, said, &log)
			}
			log.Reset()
		}
		see("first", "", 0)
		f.give("server", a, "second")
		see("second", "has changed", 1)

		key := newKey(t)
		cert, keyPEM := a.issue("third", key, time.Time{}, time.Time{})
		f.write("server.pem", cert)
		see("second", "does not match", 1)
		f.write("server.key", keyPEM[:len(keyPEM)/2])
		see("second", "no use", 1)
		f.write("server.key", nil)
		see("second", "", 0) // it is the same to the log
		f.write("server.key", keyPEM)
		see("third", "has changed", 1)

		chained := append(bytes.Clone(cert), a.pem...)
		f.write("server.pem", chained[:len(chained)-20])
		see("third", "cut off", 1)
		f.write("server.pem", cert)
		see("third", "", 0)

		if err := os.Remove(f.path("server.key")); err != nil {
			t.Fatal(err)
		}
		see("third", "no such file", 1)
		expired, _ := a.issue("expired", key, time.Now().Add(-time.Hour), time.Now().Add(-time.Minute))
		f.write("server.key", keyPEM)
		f.write("server.pem", expired)
		see("third", "it has expired", 1)
		early, _ := a.issue("fourth", key, time.Now().Add(10*time.Second), time.Time{})
		f.write("server.pem", early)
		see("third", "only from", 1)
		time.Sleep(10 * time.Second)
		see("fourth", "has changed", 1)
	})
}

// TestSameTime: a file that is written twice without its size and time telling is seen, if it is young.
func TestSameTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := files{t, t.TempDir()}
		a := newAuthority(t, "a")
		f.give("server", a, "first")
		server, any := f.config(f.server(), io.Discard), &tls.Config{InsecureSkipVerify: true}
		cert, key := a.issue("other", newKey(t), time.Time{}, time.Time{})
		written := time.Now()
		f.write("server.key", key)
		f.write("server.pem", append(bytes.Repeat([]byte("\n"), len(cert)), cert...)) // as it was, in a way, but for its text
		time.Sleep(time.Second)
		if cs, err := meet(server, any); title(cs) != "other" {
			t.Errorf("sees %q, %v", title(cs), err)
		}
		again, key := a.issue("again", newKey(t), time.Time{}, time.Time{})
		f.write("server.key", key)
		f.write("server.pem", append(bytes.Repeat([]byte("\n"), 2*len(cert)-len(again)), again...))
		for _, name := range []string{"server.key", "server.pem"} {
			if err := os.Chtimes(f.path(name), written, written); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		if cs, err := meet(server, any); title(cs) != "again" {
			t.Errorf("sees %q, %v", title(cs), err)
		}
	})
}

// TestAuthorities: when an authority is taken away, its certificates are worth nothing for new connections, on both sides,
// and resumed sessions are no way around that.
func TestAuthorities(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := files{t, t.TempDir()}
		a, b := newAuthority(t, "a"), newAuthority(t, "b")
		f.write("ca.pem", a.pem)
		f.write("clients.pem", append(bytes.Clone(a.pem), b.pem...))
		f.give("server", a, "server")
		f.give("client", b, "client")
		o := f.server()
		o.ClientCAFile = f.path("clients.pem")
		server := f.config(o, io.Discard)
		own := tlsconf.Client{CAFile: f.path("ca.pem"), CertFile: f.path("client.pem"), KeyFile: f.path("client.key")}
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			f.write("clients.pem", append(bytes.Clone(a.pem), b.pem...))
			time.Sleep(time.Second)
			fresh := f.client(own, "127.0.0.1")
			fresh.MaxVersion = version
			resumes := fresh.Clone()
			resumes.ClientSessionCache = tls.NewLRUClientSessionCache(1)
			resumed := 0
			for range 3 {
				cs, err := meet(server, resumes)
				if err != nil || cs.Version != version {
					t.Fatal(err)
				}
				if cs.DidResume {
					resumed++
				}
			}
			if resumed != 2 {
				t.Errorf("%x: %d connections were resumed: this shows nothing", version, resumed)
			}
			nobody := f.client(tlsconf.Client{CAFile: f.path("ca.pem")}, "127.0.0.1")
			if _, err := meet(server, nobody); err == nil || !strings.Contains(err.Error(), "certificate") {
				t.Errorf("%x: without a certificate: %v", version, err)
			}
			f.write("clients.pem", a.pem)
			time.Sleep(time.Second)
			for how, c := range map[string]*tls.Config{"anew": fresh, "resumed": resumes} {
				if _, err := meet(server, c); err == nil || !strings.Contains(err.Error(), "bad certificate") {
					t.Errorf("%x: %s with a certificate of an authority that is gone: %v", version, how, err)
				}
			}
		}
		f.give("client", a, "client") // the client follows
		time.Sleep(time.Second)
		follows := f.client(own, "127.0.0.1")
		if _, err := meet(server, follows); err != nil {
			t.Error(err)
		}
		f.write("ca.pem", b.pem)
		time.Sleep(time.Second)
		if _, err := meet(server, follows); err == nil || !strings.Contains(err.Error(), "unknown authority") {
			t.Errorf("a server whose authority is not trusted any more: %v", err)
		}
		f.write("ca.pem", a.pem[:100])
		time.Sleep(time.Second)
		if _, err := meet(server, follows); err == nil || !strings.Contains(err.Error(), "unknown authority") {
			t.Errorf("with a cut file: %v", err)
		}
	})
}

// TestNames: the name that is asked for must be in the certificate, addresses included, whichever authorities are trusted.
func TestNames(t *testing.T) {
	f := files{t, t.TempDir()}
	a := newAuthority(t, "a")
	f.write("ca.pem", a.pem)
	f.give("server", a, "server")
	server := f.config(f.server(), io.Discard)
	for _, c := range []struct{ host, name, want string }{
		{"127.0.0.1", "", ""}, {"hub.example", "", ""}, {"10.0.0.1", "hub.example", ""}, {"127.0.0.2", "", "not 127.0.0.2"}, {"evil.example", "", "not evil.example"},
		{"127.0.0.1", "evil.example", "not evil.example"},
	} {
		_, err := meet(server, f.client(tlsconf.Client{CAFile: f.path("ca.pem"), ServerName: c.name}, c.host))
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s as %q: %v", c.host, c.name, err)
		}
	}
	unknown := f.client(tlsconf.Client{CAFile: f.path("ca.pem")}, "")
	for host, ok := range map[string]bool{"hub.example": true, "evil.example": false, "127.0.0.1": false} { // which crypto/tls does not pass on
		unknown.ServerName = host
		if _, err := meet(server, unknown); (err == nil) != ok {
			t.Errorf("dialled %s: %v", host, err)
		}
	}
	if _, err := meet(server, f.client(tlsconf.Client{}, "hub.example")); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("with the system's authorities: %v", err)
	}
}

// TestVersions: TLS 1.3, and of 1.2 what has forward secrecy and authenticates. Each refusal stands beside what is taken.
func TestVersions(t *testing.T) {
	f := files{t, t.TempDir()}
	a := newAuthority(t, "a")
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	cert, keyPEM := a.issue("rsa", key, time.Time{}, time.Time{})
	f.write("ca.pem", a.pem)
	f.write("server.pem", cert)
	f.write("server.key", keyPEM)
	pair, err := tls.X509KeyPair(cert, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	server, client := f.config(f.server(), io.Discard), f.client(tlsconf.Client{CAFile: f.path("ca.pem")}, "127.0.0.1")
	for _, c := range []struct {
		version, suite uint16
		ok             bool
	}{
		{tls.VersionTLS13, 0, true},
		{tls.VersionTLS12, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, true},
		{tls.VersionTLS12, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, true},
		{tls.VersionTLS12, tls.TLS_RSA_WITH_AES_128_GCM_SHA256, false},
		{tls.VersionTLS12, tls.TLS_RSA_WITH_AES_256_CBC_SHA, false},
		{tls.VersionTLS12, tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA, false},
		{tls.VersionTLS12, tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256, false},
		{tls.VersionTLS11, tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA, false},
		{tls.VersionTLS10, tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA, false},
	} {
		other := &tls.Config{MinVersion: c.version, MaxVersion: c.version, CipherSuites: []uint16{c.suite}, InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}}
		if _, err := meet(other, other); err != nil {
			t.Fatalf("%x with %x does not work at all: %v", c.version, c.suite, err)
		}
		if _, err := meet(server, other); (err == nil) != c.ok {
			t.Errorf("client with %x and %s: %v", c.version, tls.CipherSuiteName(c.suite), err)
		}
		if _, err := meet(other, client); (err == nil) != c.ok {
			t.Errorf("server with %x and %s: %v", c.version, tls.CipherSuiteName(c.suite), err)
		}
	}
}

// TestOptions: options and files that are wrong are found at the start, by name.
func TestOptions(t *testing.T) {
	f := files{t, t.TempDir()}
	a := newAuthority(t, "a")
	f.give("server", a, "server")
	f.give("other", a, "other")
	f.write("text", []byte("no PEM"))
	cert, key, none := f.path("server.pem"), f.path("server.key"), f.path("none")
	for _, c := range []struct {
		s    tlsconf.Server
		want string
	}{
		{tlsconf.Server{CertFile: cert}, "set key_file"}, {tlsconf.Server{KeyFile: key}, "set cert_file"}, {tlsconf.Server{ClientCAFile: cert}, "needs cert_file"}, {tlsconf.Server{}, ""},
		{tlsconf.Server{CertFile: cert, KeyFile: key}, ""},
	} {
		if err := c.s.Validate(); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c.s, err)
		}
	}
	for _, c := range []struct {
		c    tlsconf.Client
		want string
	}{
		{tlsconf.Client{CAFile: none}, none}, {tlsconf.Client{CAFile: f.path("text")}, "no certificate"}, {tlsconf.Client{CAFile: key}, "no certificate"},
		{tlsconf.Client{CertFile: cert, KeyFile: f.path("other.key")}, "does not match"}, {tlsconf.Client{CertFile: cert}, "set key_file"},
	} {
		if _, err := c.c.Config("", nil, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c.c, err)
		}
	}
	if c, err := (tlsconf.Server{Insecure: true}).Config(nil, nil); c != nil || err != nil {
		t.Errorf("without a certificate: %v, %v", c, err)
	}
	var log bytes.Buffer
	expired, keyPEM := a.issue("expired", newKey(t), time.Now().Add(-time.Hour), time.Now().Add(-time.Minute))
	f.write("server.pem", expired)
	f.write("server.key", keyPEM)
	if f.config(f.server(), &log); !strings.Contains(log.String(), "will refuse the certificate") { // better than no start: it may be replaced
		t.Errorf("an expired certificate: %s", &log)
	}
}

// identity has one configuration for servers, and one for clients.
type identity struct{ server, client tls.Config }

func (i *identity) ServerTLS() (*tls.Config, error) { return &i.server, nil }
func (i *identity) ClientTLS() (*tls.Config, error) { return &i.client, nil }

// TestIdentity: an identity stands for all other options but one, so that none of them is thought to be in force; whoever has none
// is told how to get it; without the option it is not used.
func TestIdentity(t *testing.T) {
	f := files{t, t.TempDir()}
	f.give("server", newAuthority(t, "a"), "server")
	cert, key := f.path("server.pem"), f.path("server.key")
	for _, c := range []struct {
		s    tlsconf.Server
		want string
	}{
		{tlsconf.Server{Identity: true}, ""}, {tlsconf.Server{Identity: true, Insecure: true}, ""},
		{tlsconf.Server{Identity: true, CertFile: cert, KeyFile: key}, "excludes files"}, {tlsconf.Server{Identity: true, KeyFile: key}, "excludes files"},
		{tlsconf.Server{Identity: true, ClientCAFile: cert}, "excludes files"},
	} {
		if err := c.s.Validate(); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), "identity: "+c.want) {
			t.Errorf("%+v: %v", c.s, err)
		}
		if id := (&identity{}); c.want == "" {
			if got, err := c.s.Config(id, nil); got != &id.server || err != nil || !c.s.Enabled() {
				t.Errorf("%+v: %v, %v", c.s, got, err)
			}
		} else if _, err := c.s.Config(id, nil); err == nil {
			t.Errorf("%+v has a configuration", c.s)
		}
	}
	for _, c := range []struct {
		c    tlsconf.Client
		want string
	}{
		{tlsconf.Client{Identity: true}, ""},
		{tlsconf.Client{Identity: true, Insecure: true}, "excludes the other"}, {tlsconf.Client{Identity: true, CAFile: cert}, "excludes the other"},
		{tlsconf.Client{Identity: true, CertFile: cert, KeyFile: key}, "excludes the other"}, {tlsconf.Client{Identity: true, ServerName: "x"}, "excludes the other"},
		{tlsconf.Client{Identity: true, InsecureSkipVerify: true}, "excludes the other"},
	} {
		if err := c.c.Validate(); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), "identity: "+c.want) {
			t.Errorf("%+v: %v", c.c, err)
		}
		if id := (&identity{}); c.want == "" {
			if got, err := c.c.Config("h", id, nil); got != &id.client || err != nil {
				t.Errorf("%+v: %v, %v", c.c, got, err)
			}
		} else if _, err := c.c.Config("h", id, nil); err == nil {
			t.Errorf("%+v has a configuration", c.c)
		}
	}
	if _, err := (tlsconf.Server{Identity: true}).Config(nil, nil); err == nil || !strings.Contains(err.Error(), "creel join") {
		t.Errorf("a server without an identity: %v", err)
	}
	if _, err := (tlsconf.Client{Identity: true}).Config("h", nil, nil); err == nil || !strings.Contains(err.Error(), "creel join") {
		t.Errorf("a client without an identity: %v", err)
	}
	id := &identity{}
	if got, err := (tlsconf.Server{CertFile: cert, KeyFile: key}).Config(id, nil); err != nil || got == &id.server {
		t.Errorf("a server with files: %v, %v", got, err)
	}
	if got, err := (tlsconf.Client{}).Config("h", id, nil); err != nil || got == &id.client {
		t.Errorf("a client of any server: %v, %v", got, err)
	}
	if (tlsconf.Server{}).Enabled() {
		t.Error("a server without options has TLS")
	}
}

// TestHint goes by real errors, for they are other projects' texts.
func TestHint(t *testing.T) {
	f := files{t, t.TempDir()}
	a := newAuthority(t, "a")
	f.write("ca.pem", a.pem)
	f.give("server", a, "server")
	expired, key := a.issue("expired", newKey(t), time.Now().Add(-time.Hour), time.Now().Add(-time.Minute))
	f.write("old.pem", expired)
	f.write("old.key", key)
	server := f.config(f.server(), io.Discard)
	old := f.config(tlsconf.Server{CertFile: f.path("old.pem"), KeyFile: f.path("old.key")}, io.Discard)
	strict := f.config(tlsconf.Server{CertFile: f.path("server.pem"), KeyFile: f.path("server.key"), ClientCAFile: f.path("ca.pem")}, io.Discard)
	trusts := tlsconf.Client{CAFile: f.path("ca.pem")}
	for _, c := range []struct {
		server, client *tls.Config
		want           string
	}{
		{server, f.client(tlsconf.Client{}, "127.0.0.1"), "CA names authorities"},
		{server, f.client(trusts, "127.0.0.2"), "a name that is in its certificate"},
		{server, f.client(trusts, "evil.example"), "a name that is in its certificate"},
		{old, f.client(trusts, "127.0.0.1"), "a new certificate"},
		{strict, f.client(trusts, "127.0.0.1"), "PAIR name one"},
		{server, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, "no version of TLS"},
	} {
		_, err := meet(c.server, c.client)
		if err == nil || !strings.Contains(tlsconf.Hint(err, "CA", "PAIR"), c.want) {
			t.Errorf("%v: want %s", err, c.want)
		}
	}
	near, far := net.Pipe()
	go io.Copy(io.Discard, far)
	go io.WriteString(far, "HTTP/1.1 400 Bad Request\r\n\r\n")
	defer far.Close()
	if err := tls.Client(near, f.client(trusts, "127.0.0.1")).Handshake(); err == nil || !strings.Contains(tlsconf.Hint(err, "CA", "PAIR"), "write http://") {
		t.Error(err)
	}
	if h := tlsconf.Hint(io.ErrUnexpectedEOF, "CA", "PAIR"); h != "" {
		t.Error(h)
	}
}
