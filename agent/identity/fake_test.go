package identity

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/creelhq/creel/control"
)

// An authority is a root in a test.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB, name string, now time.Time) *authority {
	a := &authority{t: t, key: newTestKey(t)}
	a.cert = a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: now.Add(-5 * time.Minute), NotAfter: now.AddDate(10, 0, 0),
	}, a.key.Public())
	return a
}

func newTestKey(t testing.TB) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) sign(c *x509.Certificate, key any) *x509.Certificate {
	issuer := a.cert
	if issuer == nil {
		issuer = c
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		a.t.Fatal(err)
	}
	c.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, c, issuer, key, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		a.t.Fatal(err)
	}
	return c
}

// server makes a certificate for a server. With a hub's id it has that name, else those that are given.
func (a *authority) server(hub string, from time.Time, life time.Duration, names ...string) *tls.Certificate {
	key := newTestKey(a.t)
	c := &x509.Certificate{NotBefore: from, NotAfter: from.Add(life), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, KeyUsage: x509.KeyUsageDigitalSignature}
	if hub != "" {
		c.URIs = []*url.URL{control.Peer{Hub: true, ID: hub}.URI()}
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
		} else {
			c.DNSNames = append(c.DNSNames, n)
		}
	}
	leaf := a.sign(c, key.Public())
	return &tls.Certificate{Certificate: [][]byte{leaf.Raw, a.cert.Raw}, PrivateKey: key, Leaf: leaf}
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func (a *authority) print() string { return control.FingerprintOf(a.cert.Raw) }

func pemOf(ders ...[]byte) (text []byte) {
	for _, der := range ders {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return text
}

// A FakeHub keeps to the rules by which hubs make identities.
type FakeHub struct {
	t       testing.TB
	ID      string
	Handler http.Handler // of other paths; nil: none

	dialed chan net.Conn
	closed sync.Once
	server *http.Server

	mu       sync.Mutex
	away     bool
	life     time.Duration
	issuer   *authority
	bundle   []*authority
	shows    *tls.Certificate // as its own certificate
	uses     map[string]int   // that tokens have left
	agents   map[string]*fakeAgent
	fault    func(path string, answered bool) error // called before a request is looked at, and before it is answered; an error hangs up
	refuse   func(path string) *control.Refusal
	requests map[string]int
	times    []time.Time       // of renewals
	keys     map[string]bool   // that were certified
	asked    map[string]string // the key that each agent and generation has asked with
	twice    []string          // those that have asked with two
	accepts  []*authority      // beside the bundle
	odd      []string          // what no agent may do
}

type fakeAgent struct {
	generation uint64
	key        string
}

// NewFakeHub returns a hub that is reached by its Dial, or on l if that is not nil.
func NewFakeHub(t testing.TB, l net.Listener) *FakeHub {
	h := &FakeHub{
		t: t, ID: uuid.NewString(), dialed: make(chan net.Conn), life: 24 * time.Hour, uses: map[string]int{}, agents: map[string]*fakeAgent{},
		requests: map[string]int{}, keys: map[string]bool{}, asked: map[string]string{},
	}
	h.issuer = newAuthority(t, "one", time.Now())
	h.bundle = []*authority{h.issuer}
	h.shows = h.issuer.server(h.ID, time.Now().Add(-time.Minute), 7*24*time.Hour)
	h.server = &http.Server{Handler: h, ErrorLog: log.New(io.Discard, "", 0)}
	if l == nil {
		l = pipes{h}
	}
	go h.server.Serve(tls.NewListener(l, &tls.Config{
		ClientAuth: tls.RequestClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			h.mu.Lock()
			defer h.mu.Unlock()
			return h.shows, nil
		},
	}))
	return h
}

// pipes is a listener for what Dial makes.
type pipes struct{ h *FakeHub }

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p.h.dialed
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (p pipes) Addr() net.Addr { return &net.UnixAddr{Name: "fake", Net: "unix"} }
func (p pipes) Close() error   { return nil }

// Close ends the hub.
func (h *FakeHub) Close() error {
	h.closed.Do(func() {
		close(h.dialed)
		h.server.Close()
	})
	return nil
}

// Dial connects to the hub.
func (h *FakeHub) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	h.mu.Lock()
	away := h.away
	h.mu.Unlock()
	if away {
		return nil, errors.New("connection refused on purpose")
	}
	x, y := net.Pipe()
	select {
	case h.dialed <- newEager(y):
		return newEager(x), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// eager is a pipe's end that can be written to without anybody who reads, as sockets can.
type eager struct {
	net.Conn
	out  chan []byte
	once sync.Once
	done chan struct{}
}

func newEager(c net.Conn) *eager {
	e := &eager{Conn: c, out: make(chan []byte, 1000), done: make(chan struct{})}
	go func() {
		defer c.Close()
		for {
			select {
			case b := <-e.out:
				if _, err := c.Write(b); err != nil {
					return
				}
			case <-e.done:
				for len(e.out) > 0 {
					if _, err := c.Write(<-e.out); err != nil {
						return
					}
				}
				return
			}
		}
	}()
	return e
}

func (e *eager) Write(b []byte) (int, error) {
	select {
	case <-e.done:
		return 0, net.ErrClosed
	case e.out <- bytes.Clone(b):
		return len(b), nil
	}
}

// What is written is on its way, whatever the deadline: crypto/tls sets it to now when it closes.
func (e *eager) SetWriteDeadline(time.Time) error { return nil }
func (e *eager) SetDeadline(t time.Time) error    { return e.SetReadDeadline(t) }

// Close closes the pipe when all is written, or nobody has read it for a second.
func (e *eager) Close() error {
	e.once.Do(func() { e.Conn.SetWriteDeadline(time.Now().Add(time.Second)); close(e.done) })
	return nil
}

// Do changes the hub.
func (h *FakeHub) Do(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
}

// Token makes a token that can be used so often.
func (h *FakeHub) Token(uses int) string {
	letters := func(n int) string { return strings.ToLower(rand.Text())[:n] }
	t := control.Token{ID: letters(8), Secret: letters(26), Fingerprint: h.issuer.print()}
	h.Do(func() { h.uses[t.String()] = uses })
	return t.String()
}

// count returns how many requests there were.
func (h *FakeHub) count(path string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.requests[path]
}

// AddAuthority has agents trust another authority as well.
func (h *FakeHub) AddAuthority() {
	h.bundle = append(h.bundle, newAuthority(h.t, "another", time.Now()))
}

// Bundle is the fingerprint of what agents are to trust.
func (h *FakeHub) Bundle() string {
	var ders [][]byte
	for _, a := range h.bundle {
		ders = append(ders, a.cert.Raw)
	}
	return control.FingerprintOfBundle(ders)
}

func (h *FakeHub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.URL.Path, "/v1/identity/") && h.Handler != nil {
		h.Handler.ServeHTTP(w, r)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.requests[r.URL.Path]++
	if h.fault != nil {
		if h.fault(r.URL.Path, false) != nil {
			panic(http.ErrAbortHandler)
		}
	}
	answer, refused := h.answer(r)
	if h.fault != nil {
		if h.fault(r.URL.Path, true) != nil {
			panic(http.ErrAbortHandler)
		}
	}
	if refused != nil {
		w.WriteHeader(http.StatusForbidden)
		json.NewEncoder(w).Encode(refused)
		return
	}
	json.NewEncoder(w).Encode(answer)
}

func (h *FakeHub) answer(r *http.Request) (any, *control.Refusal) {
	if h.refuse != nil {
		if refused := h.refuse(r.URL.Path); refused != nil {
			return nil, refused
		}
	}
	peer, expired, refused := h.Peer(r)
	switch r.URL.Path {
	case control.EnrolPath:
		var q control.EnrolRequest
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			return nil, &control.Refusal{Code: control.Malformed, Text: err.Error()}
		}
		return h.enrol(q, peer, r.Host)
	case control.RenewPath:
		if refused != nil {
			return nil, refused
		}
		h.times = append(h.times, time.Now())
		var q control.RenewRequest
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			return nil, &control.Refusal{Code: control.Malformed, Text: err.Error()}
		}
		return h.renew(q, peer, r.Host)
	case control.TokenPath:
		if expired && refused == nil {
			refused = &control.Refusal{Code: control.Expired, Text: "the certificate has expired"}
		}
		return control.AccessToken{Token: fmt.Sprintf("token %d of generation %d", h.requests[r.URL.Path], peer.Generation), Lifetime: 10 * time.Minute}, refused
	}
	return nil, &control.Refusal{Code: "none", Text: "no such path"}
}

// Peer returns who has sent a request.
func (h *FakeHub) Peer(r *http.Request) (p control.Peer, expired bool, refused *control.Refusal) {
	if len(r.TLS.PeerCertificates) == 0 {
		return p, false, &control.Refusal{Code: control.NoCertificate, Text: "no certificate was shown"}
	}
	leaf := r.TLS.PeerCertificates[0]
	roots := x509.NewCertPool()
	for _, a := range slices.Concat(h.bundle, h.accepts) {
		roots.AddCert(a.cert)
	}
	if err := verifyChain(r.TLS.PeerCertificates, roots, x509.ExtKeyUsageClientAuth, leaf.NotBefore); err != nil {
		return p, false, &control.Refusal{Code: control.UnknownAuthority, Text: err.Error()}
	}
	p, err := control.PeerOf(leaf)
	if err != nil {
		h.odd = append(h.odd, err.Error())
	}
	return p, time.Now().After(leaf.NotAfter), nil
}

func (h *FakeHub) enrol(q control.EnrolRequest, shown control.Peer, host string) (any, *control.Refusal) {
	csr, err := x509.ParseCertificateRequest(q.CSR)
	if err != nil || csr.CheckSignature() != nil {
		return nil, &control.Refusal{Code: control.Malformed, Text: "the CSR is none"}
	}
	a := h.agents[q.Agent]
	if a != nil && a.key == string(csr.RawSubjectPublicKeyInfo) {
		return h.grant(q.Agent, a, csr, host), nil
	}
	left, known := h.uses[q.Token]
	switch {
	case !known:
		return nil, &control.Refusal{Code: control.TokenUnknown, Text: "the token is not known here", Remedy: "make another with creel token create"}
	case left == 0:
		return nil, &control.Refusal{Code: control.TokenSpent, Text: "the token was used as often as it may", Remedy: "make another with creel token create"}
	case a != nil && shown.ID != q.Agent:
		return nil, &control.Refusal{Code: control.IdentityTaken, Text: "another agent has this id"}
	}
	h.uses[q.Token]--
	if a == nil {
		a = &fakeAgent{}
		h.agents[q.Agent] = a
	}
	a.generation, a.key = a.generation+1, string(csr.RawSubjectPublicKeyInfo)
	return h.grant(q.Agent, a, csr, host), nil
}

func (h *FakeHub) renew(q control.RenewRequest, p control.Peer, host string) (any, *control.Refusal) {
	csr, err := x509.ParseCertificateRequest(q.CSR)
	if err != nil || csr.CheckSignature() != nil {
		return nil, &control.Refusal{Code: control.Malformed, Text: "the CSR is none"}
	}
	key := string(csr.RawSubjectPublicKeyInfo)
	name := p.URI().String()
	if before := h.asked[name]; before != "" && before != key {
		h.twice = append(h.twice, name)
	}
	h.asked[name] = key
	a := h.agents[p.ID]
	switch {
	case a == nil:
		return nil, &control.Refusal{Code: control.UnknownAuthority, Text: "not known"}
	case p.Generation >= a.generation: // newer: this hub was restored from a backup
		a.generation, a.key = p.Generation+1, key
	case p.Generation == a.generation-1 && a.key == key: // its answer was lost
	default:
		return nil, &control.Refusal{Code: control.Cloned, Text: "somebody else has renewed this identity", Remedy: "join the copy anew", After: 30 * time.Minute}
	}
	return h.grant(p.ID, a, csr, host), nil
}

func (h *FakeHub) grant(id string, a *fakeAgent, csr *x509.CertificateRequest, host string) control.Grant {
	h.keys[a.key] = true
	now := time.Now()
	leaf := h.issuer.sign(&x509.Certificate{
		NotBefore: now.Add(-time.Minute), NotAfter: now.Add(h.life), URIs: []*url.URL{control.Peer{ID: id, Generation: a.generation}.URI()},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, KeyUsage: x509.KeyUsageDigitalSignature,
	}, csr.PublicKey)
	var trust [][]byte
	for _, a := range h.bundle {
		trust = append(trust, a.cert.Raw)
	}
	return control.Grant{
		Certificate: pemOf(leaf.Raw, h.issuer.cert.Raw), Authorities: pemOf(trust...), Lifetime: h.life,
		Hub: control.Addresses{URL: "https://" + host, OTLPGRPC: host},
	}
}
