package otlp_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/plugins/otlp"
)

// certificate writes a certificate that is its own authority, for a server and a client on this machine.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "EC PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
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
