package etcd

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
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
)

// certificates are files of an authority, and of a certificate that it has signed for 127.0.0.1, for both sides.
type certificates struct{ ca, cert, key string }

func newCertificates(t *testing.T) (c certificates) {
	t.Helper()
	dir := t.TempDir()
	file := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	var parent *x509.Certificate
	var signer *ecdsa.PrivateKey
	sign := func(name string, x x509.Certificate) (cert, key string) {
		private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		x.SerialNumber, x.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: name}
		x.NotBefore, x.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		if parent == nil {
			parent, signer = &x, private
		}
		der, err := x509.CreateCertificate(rand.Reader, &x, parent, &private.PublicKey, signer)
		if err != nil {
			t.Fatal(err)
		}
		text, err := x509.MarshalECPrivateKey(private)
		if err != nil {
			t.Fatal(err)
		}
		return file(name+".pem", "CERTIFICATE", der), file(name+".key", "EC PRIVATE KEY", text)
	}
	c.ca, _ = sign("authority", x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	c.cert, c.key = sign("both", x509.Certificate{
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	return c
}

// TestTLS: an etcd that wants certificates, and what is told when one is wrong.
func TestTLS(t *testing.T) {
	c, others := newCertificates(t), newCertificates(t)
	s := start(t, t.TempDir(), &server{client: free(t), peer: free(t), tls: &transport.TLSInfo{CertFile: c.cert, KeyFile: c.key, TrustedCAFile: c.ca, ClientCertAuth: true}})
	s.put("k", "1")
	with := func(ca string, pair *certificates) string {
		own := ""
		if pair != nil {
			own = fmt.Sprintf("cert_file: %s, key_file: %s", pair.cert, pair.key)
		}
		return s.options(fmt.Sprintf("key: k, tls: {ca_file: %q, %s}", ca, own))
	}
	r := watch(t, with(c.ca, &c), nil)
	r.Wants("k=1")
	s.put("k", "2")
	r.Wants("k=2")
	watch(t, with(c.ca, nil), nil).Troubled("tls.cert_file and tls.key_file name one")
	watch(t, with(c.ca, &others), nil).Troubled("tls.cert_file and tls.key_file name one")
	watch(t, with(others.ca, &c), nil).Troubled("tls.ca_file names authorities to trust")
	watch(t, s.options("key: k"), nil).Troubled("tls.ca_file names authorities to trust")
	watch(t, with(c.ca+".gone", nil), nil).Troubled("load the authorities")
	plain := start(t, t.TempDir(), nil)
	watch(t, fmt.Sprintf("{endpoints: ['https://%s'], key: k}", plain.client.Host), nil).Troubled("Write http:// if it does not")
	watch(t, fmt.Sprintf("{endpoints: ['http://%s'], key: k}", s.client.Host), nil).Troubled("if it talks TLS, write https://")
}
