package otlp_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/plugins/otlp"
	"github.com/creelhq/creel/tlsconf"
)

// An issuer is a certificate that issues others, or itself, for a server and a client on this machine.
type issuer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// issue writes a certificate and its key. Without an issuer it is its own authority.
func (by *issuer) issue(t testing.TB, name, cert, key string) *issuer {
	t.Helper()
	return by.issueUntil(t, name, cert, key, time.Now().Add(time.Hour))
}

func (by *issuer) issueUntil(t testing.TB, name, cert, key string, end time.Time) *issuer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: end,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	own := &issuer{template, k}
	if by == nil {
		by = own
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.cert, &k.PublicKey, by.key)
	if err != nil {
		t.Fatal(err)
	}
	if own.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "EC PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return own
}

// certificate writes a certificate that is its own authority.
func certificate(t testing.TB) (cert, key string) {
	t.Helper()
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	(*issuer)(nil).issue(t, "test", cert, key)
	return cert, key
}

// TestTLS: with certificates on both sides records arrive; without them, or without trust, an error says what to do, and
// the records are tried again.
func TestTLS(t *testing.T) {
	cert, key := certificate(t)
	out := &sink{settle: takeAll}
	server := fmt.Sprintf("tls: {cert_file: %s, key_file: %s, client_ca_file: %s}", cert, key, cert)
	grpcAddress, httpAddress := serve(t, fmt.Sprintf("{grpc: {endpoint: '0.0.0.0:1', %s}, http: {endpoint: '0.0.0.0:2', %s}}", server, server), out)
	for protocol, address := range map[string]string{"grpc": grpcAddress, "http": httpAddress} {
		for _, c := range []struct{ tls, want string }{
			{fmt.Sprintf("{ca_file: %s, cert_file: %s, key_file: %s}", cert, cert, key), ""},
			{fmt.Sprintf("{insecure_skip_verify: true, cert_file: %s, key_file: %s}", cert, key), ""},
			{fmt.Sprintf("{ca_file: %s}", cert), "127.0.0.1"}, // the server hangs up; how that looks is a matter of luck
			{fmt.Sprintf("{cert_file: %s, key_file: %s}", cert, key), "tls.ca_file names authorities to trust"},
			{"{insecure: true}", "127.0.0.1"},
		} {
			x := open(t, otlp.Exporter, fmt.Sprintf("{endpoint: '%s', protocol: %s, tls: %s}", address, protocol, c.tls), creel.Host{}).(creel.Exporter)
			err := x.Export(t.Context(), batches()[:1])
			got := out.got()
			switch {
			case c.want == "" && (err != nil || got != "log hello"):
				t.Errorf("%s with %s: %v, got %q", protocol, c.tls, err, got)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || got != ""):
				t.Errorf("%s with %s: %v, got %q", protocol, c.tls, err, got)
			case c.want != "" && creel.IsPermanent(err) && c.tls != "{insecure: true}":
				t.Errorf("%s with %s: an error of TLS makes records be dropped: %v", protocol, c.tls, err)
			}
		}
	}
}

// TestHandshakesThatFail: certificates that are worth nothing, on whichever side, are no reason to drop anything: an export is to be
// tried again, however often.
func TestHandshakesThatFail(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	a, b := (*issuer)(nil).issue(t, "a", file("a.pem"), file("a.key")), (*issuer)(nil).issue(t, "b", file("b.pem"), file("b.key"))
	past := time.Now().Add(-time.Minute)
	for name, by := range map[string]*issuer{"good": a, "other": b} {
		by.issue(t, name, file(name+".pem"), file(name+".key"))
	}
	a.issueUntil(t, "old", file("old.pem"), file("old.key"), past)
	for _, c := range []struct{ name, server, client string }{
		{"the client's has expired", "good", "old"}, {"the client's is of an unknown authority", "good", "other"},
		{"the server's has expired", "old", "good"}, {"the server's is of an unknown authority", "other", "good"},
		{"all is well", "good", "good"},
	} {
		server := fmt.Sprintf("tls: {cert_file: %s, key_file: %s, client_ca_file: %s}", file(c.server+".pem"), file(c.server+".key"), file("a.pem"))
		out := &sink{settle: takeAll}
		grpcAddress, httpAddress := serve(t, fmt.Sprintf("{grpc: {%s}, http: {%s}}", server, server), out)
		for protocol, address := range map[string]string{"grpc": grpcAddress, "http": httpAddress} {
			x := open(t, otlp.Exporter, fmt.Sprintf("{endpoint: '%s', protocol: %s, tls: {ca_file: %s, cert_file: %s, key_file: %s}}", address, protocol, file("a.pem"), file(c.client+".pem"), file(c.client+".key")), creel.Host{}).(creel.Exporter)
			for range 5 {
				err := x.Export(t.Context(), batches()[:1])
				if want := map[bool]string{true: "delivered", false: "again"}[c.name == "all is well"]; outcome(err) != want {
					t.Errorf("%s, over %s: %s, %v", c.name, protocol, outcome(err), err)
				}
			}
		}
	}
}

// knock connects anew, and returns whose certificate it sees, once the server has begun to speak HTTP/2 (RFC 9113, section
// 3.4): then it has taken the client's.
func knock(address string, c *tls.Config) (string, error) {
	c = c.Clone()
	c.NextProtos = []string{"h2"}
	conn, err := tls.Dial("tcp", address, c)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"); err != nil {
		return "", err
	}
	if _, err := io.ReadFull(conn, make([]byte, 9)); err != nil {
		return "", err
	}
	return conn.ConnectionState().PeerCertificates[0].Subject.CommonName, nil
}

// TestRotation changes certificates, keys and authorities of both sides under way. An exporter on a connection that stands
// goes on, though it could not connect any more; whoever follows the files is never refused; who does not is, in the end.
func TestRotation(t *testing.T) {
	for i, protocol := range []string{"grpc", "http"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			file := func(name string) string { return filepath.Join(dir, name) }
			a, b := (*issuer)(nil).issue(t, "a", file("a.pem"), file("a.key")), (*issuer)(nil).issue(t, "b", file("b.pem"), file("b.key"))
			trust := func(names ...string) {
				var bundle []byte
				for _, name := range names {
					text, err := os.ReadFile(file(name + ".pem"))
					if err != nil {
						t.Fatal(err)
					}
					bundle = append(bundle, text...)
				}
				if err := os.WriteFile(file("trust.pem"), bundle, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			trust("a", "b")
			a.issue(t, "old server", file("server.pem"), file("server.key"))
			a.issue(t, "client", file("client.pem"), file("client.key"))
			a.issue(t, "stays", file("stays.pem"), file("stays.key"))
			server := fmt.Sprintf("endpoint: '0.0.0.0:1', tls: {cert_file: %s, key_file: %s, client_ca_file: %s}", file("server.pem"), file("server.key"), file("trust.pem"))
			var addresses [2]string
			out := &sink{settle: takeAll}
			addresses[0], addresses[1] = serve(t, fmt.Sprintf("{grpc: {%s}, http: {%s}}", server, server), out)
			address := addresses[i]

			stays := tlsconf.Client{CAFile: file("a.pem"), CertFile: file("stays.pem"), KeyFile: file("stays.key")}
			x := open(t, otlp.Exporter, fmt.Sprintf("{endpoint: '%s', protocol: %s, tls: {ca_file: %s, cert_file: %s, key_file: %s}}", address, protocol, stays.CAFile, stays.CertFile, stays.KeyFile), creel.Host{}).(creel.Exporter)
			follows, err := tlsconf.Client{CAFile: file("trust.pem"), CertFile: file("client.pem"), KeyFile: file("client.key")}.Config("127.0.0.1", nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			late, err := stays.Config("127.0.0.1", nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			sent := 0
			until := func(what string, done func(seen string) bool) {
				t.Helper()
				for deadline := time.Now().Add(time.Minute); ; {
					if err := x.Export(t.Context(), batches()[:1]); err != nil {
						t.Fatalf("%s: on the connection that stands: %v", what, err)
					}
					sent++
					seen, err := knock(address, follows)
					if err != nil {
						t.Fatalf("%s: on a new connection: %v", what, err)
					}
					if done(seen) {
						return
					}
					if time.Now().After(deadline) {
						t.Fatalf("%s: still not; sees %q", what, seen)
					}
				}
			}
			until("at first", func(seen string) bool { return seen == "old server" })
			if _, err := knock(address, late); err != nil {
				t.Fatal(err)
			}
			b.issue(t, "new server", file("server.pem"), file("server.key"))
			b.issue(t, "client", file("client.pem"), file("client.key"))
			until("new certificates", func(seen string) bool {
				pair, err := follows.GetClientCertificate(nil)
				return err == nil && pair.Leaf.Issuer.CommonName == "b" && seen == "new server"
			})
			trust("b")
			until("an authority is gone", func(string) bool {
				late.InsecureSkipVerify, late.VerifyConnection = true, nil // it is about the server's judgement
				_, err := knock(address, late)
				return err != nil
			})
			if got := strings.Count(out.got(), "log hello"); got != sent {
				t.Errorf("%d of %d requests have arrived", got, sent)
			}
			t.Logf("%d requests, and as many new connections", sent)
		})
	}
}

// TestOldTLS: neither server talks to clients without forward secrecy and authentication.
func TestOldTLS(t *testing.T) {
	cert, key := certificate(t)
	server := fmt.Sprintf("tls: {cert_file: %s, key_file: %s}", cert, key)
	grpcAddress, httpAddress := serve(t, fmt.Sprintf("{grpc: {%s}, http: {%s}}", server, server), &sink{settle: takeAll})
	for _, address := range []string{grpcAddress, httpAddress} {
		for _, c := range []struct {
			version, suite uint16
			ok             bool
		}{
			{tls.VersionTLS13, 0, true},
			{tls.VersionTLS12, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, true},
			{tls.VersionTLS12, tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, false},
			{tls.VersionTLS12, tls.TLS_RSA_WITH_AES_128_GCM_SHA256, false},
			{tls.VersionTLS11, tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, false},
		} {
			_, err := knock(address, &tls.Config{MinVersion: c.version, MaxVersion: c.version, CipherSuites: []uint16{c.suite}, InsecureSkipVerify: true})
			if (err == nil) != c.ok {
				t.Errorf("%s with %x and %s: %v", address, c.version, tls.CipherSuiteName(c.suite), err)
			}
		}
	}
}
