package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"time"

	"github.com/creelhq/creel/control"
)

// version is of the format of the file.
const version = 1

// A record is what the file says.
type record struct {
	Version int `json:"version"`

	// Of the identity; empty while the first one is asked for.
	Agent       string            `json:"agent,omitempty"`
	URL         string            `json:"url,omitempty"`         // where the hub was joined
	Key         string            `json:"key,omitempty"`         // PEM
	Certificate string            `json:"certificate,omitempty"` // PEM: the agent's, and those that lead to its authority
	Authorities string            `json:"authorities,omitempty"` // PEM: what to trust
	System      bool              `json:"system,omitempty"`      // trust the system's authorities as well, for the hub's name
	Lifetime    time.Duration     `json:"lifetime,omitempty"`    // nanoseconds, since Granted
	Granted     time.Time         `json:"granted,omitzero"`      // by this machine's clock
	Hub         control.Addresses `json:"hub,omitzero"`
	Token       string            `json:"token,omitempty"` // the ID of the one with which the hub was joined

	// What was asked for, or will be: it is written down before, so that a lost answer does not lose the key.
	Renewal *request `json:"renewal,omitempty"`
	Joining *joining `json:"joining,omitempty"`

	// The beginning of the newest certificate that each hub has shown, by its id. See (*Identity).verify.
	Newest map[string]time.Time `json:"newest,omitempty"`
}

// A request is a key and what asks to certify it. It is never changed.
type request struct {
	Key string `json:"key"` // PEM
	CSR []byte `json:"csr"` // DER
}

// joining is the request to a hub that was not joined yet.
type joining struct {
	request
	Agent       string `json:"agent"`
	Fingerprint string `json:"fingerprint"` // of the token
}

func newRequest(agent string) (*request, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a key: %w", err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: agent}}, key)
	if err != nil {
		return nil, fmt.Errorf("make a request for a certificate: %w", err)
	}
	return &request{Key: string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), CSR: csr}, nil
}

// grant puts an answer of a hub to a request into r. The error says what is wrong with the answer; r is then as it was.
func (r *record) grant(agent string, asked request, g *control.Grant, now time.Time) error {
	next := *r
	next.Agent, next.Key, next.Hub = agent, asked.Key, g.Hub
	next.Certificate, next.Authorities = string(g.Certificate), string(g.Authorities)
	next.System, next.Lifetime, next.Granted = g.System, g.Lifetime, now.Round(0).UTC()
	if _, err := next.credentials(); err != nil {
		return fmt.Errorf("take the certificate that the hub has made: %w", err)
	}
	*r = next
	return nil
}

// saw notes that a hub has shown a certificate that begins then.
func (r *record) saw(hub string, begin time.Time) {
	if !begin.After(r.Newest[hub]) {
		return
	}
	newest := maps.Clone(r.Newest)
	if newest == nil {
		newest = make(map[string]time.Time)
	}
	newest[hub] = begin.UTC()
	r.Newest = newest
}

// credentials are a record's identity, to be used. They are never changed.
type credentials struct {
	agent     string
	url       string
	hub       control.Addresses
	pair      *tls.Certificate
	peer      control.Peer
	roots     *x509.CertPool
	system    *x509.CertPool // nil: they are not trusted
	bundle    string         // its fingerprint
	prints    []string       // the fingerprints of its certificates
	lifetime  time.Duration
	granted   time.Time     // by this machine's clock
	began     time.Time     // when this process began to count, by the monotonic clock
	spent     time.Duration // of the lifetime before that, as far as is known
	senseless bool          // the clock was before granted then, so that nothing is known
	renew     time.Duration // when to renew, of the lifetime
}

// credentials checks the identity, and begins to count its life from the start.
func (r *record) credentials() (*credentials, error) {
	pair, err := tls.X509KeyPair([]byte(r.Certificate), []byte(r.Key))
	if err != nil {
		return nil, err
	}
	c := &credentials{agent: r.Agent, url: r.URL, hub: r.Hub, pair: &pair, lifetime: r.Lifetime, granted: r.Granted, began: time.Now()}
	if c.peer, err = control.PeerOf(pair.Leaf); err != nil {
		return nil, err
	}
	if c.peer.Hub || c.peer.ID != r.Agent {
		return nil, fmt.Errorf("it is for %s, but this is agent %s", c.peer.URI(), r.Agent)
	}
	if r.Lifetime <= 0 {
		return nil, fmt.Errorf("it is said to live for %v", r.Lifetime)
	}
	list, err := certificatesOf(r.Authorities)
	if err != nil {
		return nil, fmt.Errorf("read the authorities: %w", err)
	}
	if r.System {
		if c.system, err = x509.SystemCertPool(); err != nil {
			return nil, fmt.Errorf("read the system's authorities: %w", err)
		}
	}
	c.roots = x509.NewCertPool()
	var ders [][]byte
	for _, a := range list {
		c.roots.AddCert(a)
		ders = append(ders, a.Raw)
		c.prints = append(c.prints, control.FingerprintOf(a.Raw))
	}
	c.bundle = control.FingerprintOfBundle(ders)
	chain, err := certificatesOf(r.Certificate)
	if err != nil {
		return nil, err
	}
	if err := verifyChain(chain, c.roots, x509.ExtKeyUsageClientAuth, begin(chain)); err != nil {
		return nil, err
	}
	// From two thirds on, over half of what is left: many that were started at once do not come at once, and there is time left
	// to try again.
	c.renew = r.Lifetime*2/3 + mathrand.N(r.Lifetime/6+1)
	return c, nil
}

// reopened counts the life of an identity that was granted to a process before, as far as this machine's clock can tell.
func (c *credentials) reopened(now time.Time) *credentials {
	c.spent = now.Round(0).Sub(c.granted)
	if c.senseless = c.spent < 0; c.senseless {
		c.spent = 0
	}
	return c
}

// age is how much of the lifetime is over. The monotonic clock knows, but not while the machine sleeps; the other one does
// then, and if it is wrong, the worst is a renewal that need not be.
func (c *credentials) age(now time.Time) time.Duration {
	return max(c.spent+time.Since(c.began), now.Round(0).Sub(c.granted))
}

// certificatesOf reads PEM text with nothing but certificates.
func certificatesOf(text string) ([]*x509.Certificate, error) {
	var list []*x509.Certificate
	for block, rest := pem.Decode([]byte(text)); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	if len(list) == 0 {
		return nil, errors.New("there is no certificate")
	}
	return list, nil
}
