package gate

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/hub/internal/access"
	"github.com/creelhq/creel/hub/internal/state"
	"github.com/creelhq/creel/metric"
)

// fatal is what *testing.T and *rapid.T have in common.
type fatal interface {
	Helper()
	Fatalf(format string, args ...any)
}

// clock is a time that stands still until it is moved.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time       { c.mu.Lock(); defer c.mu.Unlock(); return c.t }
func (c *clock) pass(d time.Duration) { c.mu.Lock(); defer c.mu.Unlock(); c.t = c.t.Add(d) }

// authority is one certificate that issues others.
type authority struct {
	certificate *x509.Certificate
	key         crypto.Signer
	now         func() time.Time
	issuing     func() error // nil: nothing happens
}

const life = 24 * time.Hour

func newAuthority(now func() time.Time) *authority {
	key := newKey()
	t := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: now().Add(-time.Hour), NotAfter: now().Add(100 * life), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	c, err2 := x509.ParseCertificate(der)
	if err != nil || err2 != nil {
		panic(errors.Join(err, err2))
	}
	return &authority{certificate: c, key: key, now: now}
}

func (a *authority) IssueAgent(key crypto.PublicKey, p control.Peer) ([]byte, time.Duration, error) {
	if a.issuing != nil {
		if err := a.issuing(); err != nil {
			return nil, 0, err
		}
	}
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	t := &x509.Certificate{SerialNumber: serial, URIs: []*url.URL{p.URI()}, NotBefore: a.now().Add(-time.Minute), NotAfter: a.now().Add(life), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, t, a.certificate, key, a.key)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), life, err
}

func (a *authority) Verify(chain []*x509.Certificate) (control.Peer, error) {
	if len(chain) == 0 {
		return control.Peer{}, &control.Refusal{Code: control.NoCertificate, Text: "none"}
	}
	roots := x509.NewCertPool()
	roots.AddCert(a.certificate)
	if _, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, CurrentTime: chain[0].NotBefore, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return control.Peer{}, &control.Refusal{Code: control.UnknownAuthority, Text: "unknown", Remedy: "join"}
	}
	p, err := control.PeerOf(chain[0])
	if err != nil {
		return p, &control.Refusal{Code: control.NoCertificate, Text: err.Error()}
	}
	if a.now().After(chain[0].NotAfter) {
		return p, &control.Refusal{Code: control.Expired, Text: "expired", Remedy: "it is to renew"}
	}
	return p, nil
}

func (a *authority) Bundle() ([]byte, string) {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.certificate.Raw}), control.FingerprintOfBundle([][]byte{a.certificate.Raw})
}

// tokens are enrolment tokens in memory.
type tokens struct {
	now   func() time.Time
	mu    sync.Mutex
	list  map[string]*api.AccessToken // by text
	spent int
}

func (s *tokens) create(uses int, labels map[string]string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	digits := strings.ToLower(strings.ReplaceAll(rand.Text()+rand.Text(), "=", ""))
	t := control.Token{ID: digits[:8], Secret: digits[8:34], Fingerprint: strings.Repeat("a", 26)}
	s.list[t.String()] = &api.AccessToken{ID: t.ID, Name: "token of the test", Role: api.Enrol, Uses: uses, Labels: labels, Created: s.now(), Ends: s.now().Add(time.Hour)}
	return t.String()
}

func (s *tokens) Spend(_ context.Context, text string) (api.AccessToken, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.list[text]
	switch {
	case t == nil:
		return api.AccessToken{}, &control.Refusal{Code: control.TokenUnknown, Text: "the token is unknown", Remedy: "creel token create"}
	case !s.now().Before(t.Ends):
		return api.AccessToken{}, &control.Refusal{Code: control.TokenExpired, Text: "the token has expired", Remedy: "creel token create"}
	case t.Uses == 0:
		return api.AccessToken{}, &control.Refusal{Code: control.TokenSpent, Text: "the token is spent", Remedy: "creel token create"}
	}
	t.Uses--
	t.Used++
	s.spent++
	return *t, nil
}

func (s *tokens) JWT(p access.Principal, bound *x509.Certificate) (control.AccessToken, error) {
	if p.Role != api.Enrol || p.Agent == "" || p.Name != p.Agent || bound == nil {
		return control.AccessToken{}, errors.New("that is no agent's")
	}
	return control.AccessToken{Token: "jwt of " + p.Agent, Lifetime: 10 * time.Minute}, nil
}

// world is a hub, or two with one control state, and all that they did.
type world struct {
	f         fatal
	clock     *clock
	memory    *state.Memory
	store     *faulty
	authority *authority
	tokens    *tokens
	gate      *Gate
	log       bytes.Buffer
	logging   sync.Mutex
	mu        sync.Mutex
	audit     []api.AuditEntry
	expelled  []string
}

// faulty is a Store that fails when it is told to.
type faulty struct {
	state.Store
	mu      sync.Mutex
	put     func(key string) (before, after error) // nil: nothing happens
	happens int
}

func (s *faulty) Put(ctx context.Context, key string, value []byte, leased bool, c state.Condition) (int64, error) {
	s.mu.Lock()
	var before, after error
	if s.put != nil {
		if before, after = s.put(key); before != nil || after != nil {
			s.happens++
		}
	}
	s.mu.Unlock()
	if before != nil {
		return 0, before
	}
	revision, err := s.Store.Put(ctx, key, value, leased, c)
	return revision, errors.Join(err, after)
}

func newWorld(f fatal) *world {
	w := &world{f: f, clock: &clock{t: time.Now().Truncate(time.Second)}, memory: &state.Memory{}}
	w.authority = newAuthority(w.clock.now)
	w.tokens = &tokens{now: w.clock.now, list: make(map[string]*api.AccessToken)}
	w.store = &faulty{Store: w.memory.Open()}
	w.gate = w.open(w.store)
	return w
}

func (w *world) open(s state.Store) *Gate {
	g, err := Open(context.Background(), Options{
		Store: s, Authority: w.authority, Tokens: w.tokens, Now: w.clock.now, Metrics: metric.NewSet(),
		Log:       slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Addresses: func(host string) control.Addresses { return control.Addresses{URL: "https://" + host + ":4380"} },
		Expel: func(agent, why string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.expelled = append(w.expelled, agent+": "+why)
		},
		Audit: func(_ context.Context, e api.AuditEntry) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.audit = append(w.audit, e)
		},
	})
	if err != nil {
		w.f.Fatalf("open: %v", err)
	}
	return g
}

// Write takes the log.
func (w *world) Write(p []byte) (int, error) {
	w.logging.Lock()
	defer w.logging.Unlock()
	return w.log.Write(p)
}

func (w *world) audited(action string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.audit {
		if e.Action == action {
			n++
		}
	}
	return n
}

func (w *world) expulsions() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.expelled)
}

// eventually waits for what happens moments later.
func eventually(f fatal, what string, ok func() bool) {
	f.Helper()
	for range 2000 {
		if ok() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	f.Fatalf("it never came to be that %s", what)
}

// host is a machine that has, or wants, an identity: what lies in its state directory.
type host struct {
	id      string
	address string
	key     crypto.Signer
	chain   []*x509.Certificate
	pending crypto.Signer // of a request that was not answered yet
}

func newHost() *host {
	return &host{id: uuid.NewString(), address: "192.0.2.7:1234"}
}

func newKey() crypto.Signer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

func newEdKey() crypto.Signer {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

func requestOf(key crypto.Signer) []byte {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "somebody else"}}, key)
	if err != nil {
		panic(err)
	}
	return der
}

func (h *host) csr() []byte {
	if h.pending == nil {
		h.pending = newKey()
	}
	return requestOf(h.pending)
}

// take takes in an answer.
func (h *host) take(g *control.Grant) {
	h.chain = nil
	for rest := g.Certificate; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			panic(err)
		}
		h.chain = append(h.chain, c)
	}
	h.key, h.pending = h.pending, nil
}

func (h *host) request(path, body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "https://hub.example"+path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.RemoteAddr = h.address
	r.TLS = &tls.ConnectionState{PeerCertificates: h.chain}
	at := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 4380}
	return r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.Addr(at)))
}

// ask sends a request without a network between. The code is of the refusal, if it was one.
func ask[T any](f fatal, g *Gate, r *http.Request) (answer T, refused control.Refusal) {
	f.Helper()
	w := httptest.NewRecorder()
	g.ServeHTTP(w, r)
	var into any = &answer
	if w.Code != http.StatusOK {
		into = &refused
	}
	if err := json.Unmarshal(w.Body.Bytes(), into); err != nil || (w.Code == http.StatusOK) != (refused.Code == "") {
		f.Fatalf("answered %d %q: %v", w.Code, w.Body, err)
	}
	if refused.Code != "" && refused.Text == "" {
		f.Fatalf("refused without a word: %+v", refused)
	}
	return answer, refused
}

func toJSON(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func (h *host) enrol(f fatal, g *Gate, token string) (control.Grant, control.Refusal) {
	f.Helper()
	return ask[control.Grant](f, g, h.request(control.EnrolPath, toJSON(control.EnrolRequest{Token: token, Agent: h.id, Name: "host-1", CSR: h.csr()})))
}

func (h *host) renew(f fatal, g *Gate) (control.Grant, control.Refusal) {
	f.Helper()
	return ask[control.Grant](f, g, h.request(control.RenewPath, toJSON(control.RenewRequest{CSR: h.csr()})))
}

func (h *host) token(f fatal, g *Gate) (control.AccessToken, control.Refusal) {
	f.Helper()
	return ask[control.AccessToken](f, g, h.request(control.TokenPath, ""))
}

// join enrols and takes the answer.
func (h *host) join(w *world, labels map[string]string) *host {
	w.f.Helper()
	grant, refused := h.enrol(w.f, w.gate, w.tokens.create(1, labels))
	if refused.Code != "" {
		w.f.Fatalf("enrol: %+v", refused)
	}
	h.take(&grant)
	return h
}

// next renews and takes the answer.
func (h *host) next(f fatal, g *Gate) {
	f.Helper()
	grant, refused := h.renew(f, g)
	if refused.Code != "" {
		f.Fatalf("renew: %+v", refused)
	}
	h.take(&grant)
}

// copied is another machine with a copy of the state directory.
func (h *host) copied() *host {
	c := *h
	c.address = "192.0.2.66:99"
	return &c
}

func (h *host) generation() uint64 {
	p, err := control.PeerOf(h.chain[0])
	if err != nil {
		panic(err)
	}
	return p.Generation
}

func want(f fatal, what string, got control.Refusal, code string) {
	f.Helper()
	if got.Code != code {
		f.Fatalf("%s: got %q (%s; %s), want %q", what, got.Code, got.Text, got.Remedy, code)
	}
}
