package gate

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/hub/internal/access"
	issuer "github.com/creelhq/creel/hub/internal/authority"
	"github.com/creelhq/creel/hub/internal/state"
)

// whole is a gate with the authority and the tokens that it has in a hub, over TLS.
type whole struct {
	*issuer.Authority
	*access.Access
	gate   *Gate
	server *httptest.Server
}

func openWhole(t testing.TB) *whole {
	memory, secret := &state.Memory{}, &state.Secret{}
	if _, err := rand.Read(secret[:]); err != nil {
		t.Fatal(err)
	}
	w := &whole{}
	var err error
	if w.Authority, err = issuer.Open(t.Context(), issuer.Options{Store: memory.Open(), Secret: secret, Dir: t.TempDir(), Hub: uuid.NewString()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Authority.Close)
	revoked := func(agent string) bool { return w.gate.Revoked(agent) }
	if w.Access, err = access.Open(t.Context(), access.Options{Store: memory.Open(), Secret: secret, Fingerprint: w.Fingerprint, Revoked: revoked}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Access.Close)
	if w.gate, err = Open(t.Context(), Options{Store: memory.Open(), Authority: w.Authority, Tokens: w.Access}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.gate.Close)
	mux := http.NewServeMux()
	mux.Handle("/v1/identity/", w.gate)
	mux.HandleFunc("/data", func(rw http.ResponseWriter, r *http.Request) {
		c, err := w.Authenticate(creel.Credentials{Authorization: r.Header.Get("Authorization"), TLS: r.TLS, Local: r.Context().Value(http.LocalAddrContextKey).(interface {
			Network() string
			String() string
		}), Forwarded: true}, creel.Logs)
		if err != nil {
			http.Error(rw, err.Error(), http.StatusUnauthorized)
			return
		}
		_, _ = rw.Write([]byte(c.Agent))
	})
	w.server = httptest.NewUnstartedServer(mux)
	w.server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12, GetCertificate: w.ServerCertificate}
	w.server.StartTLS()
	t.Cleanup(w.server.Close)
	return w
}

// client is of a host that trusts what the authority says.
func (w *whole) client(t testing.TB, h *host) *http.Client {
	t.Helper()
	roots := x509.NewCertPool()
	bundle, _ := w.Bundle()
	if !roots.AppendCertsFromPEM(bundle) {
		t.Fatal("the bundle is empty")
	}
	c := h.client(w.server)
	c.Transport.(*http.Transport).TLSClientConfig.RootCAs = roots
	c.Transport.(*http.Transport).TLSClientConfig.ServerName = "localhost"
	return c
}

// TestWhole: an agent joins, has a token with which data is taken, renews, and is revoked; with everything that a hub has.
func TestWhole(t *testing.T) {
	w := openWhole(t)
	created, err := w.Create(t.Context(), "ops", api.AccessTokenRequest{Name: "rack 1", Role: api.Enrol})
	if err != nil {
		t.Fatal(err)
	}
	h := newHost()
	q := control.EnrolRequest{Token: created.Text, Agent: h.id, Name: "n", CSR: h.csr()}
	var grant control.Grant
	for range 2 {
		if code := post(t, w.client(t, h), w.server.URL+control.EnrolPath, q, &grant); code != 200 || grant.Lifetime < 23*time.Hour {
			t.Fatalf("enrol: %d", code)
		}
	}
	h.take(&grant)
	var refused control.Refusal
	other := newHost()
	q = control.EnrolRequest{Token: created.Text, Agent: other.id, Name: "n", CSR: other.csr()}
	if code := post(t, w.client(t, other), w.server.URL+control.EnrolPath, q, &refused); code != 401 || refused.Code != control.TokenSpent {
		t.Fatalf("a second use: %d %+v", code, refused)
	}
	if code := post(t, w.client(t, h), w.server.URL+control.RenewPath, control.RenewRequest{CSR: h.csr()}, &grant); code != 200 {
		t.Fatalf("renew: %d", code)
	}
	h.take(&grant)
	var jwt control.AccessToken
	if code := post(t, w.client(t, h), w.server.URL+control.TokenPath, struct{}{}, &jwt); code != 200 {
		t.Fatalf("token: %d", code)
	}
	data := func(want int) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.server.URL+"/data", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+jwt.Token)
		c := w.client(t, h)
		defer c.CloseIdleConnections()
		resp, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != want {
			t.Fatalf("data: %s, want %d", resp.Status, want)
		}
	}
	data(200)
	if err := w.gate.Revoke(t.Context(), "ops", h.id, "", ""); err != nil {
		t.Fatal(err)
	}
	data(401)
	if code := post(t, w.client(t, h), w.server.URL+control.RenewPath, control.RenewRequest{CSR: h.csr()}, &refused); code != 403 || refused.Code != control.Revoked {
		t.Fatalf("renew: %d %+v", code, refused)
	}
}

// What an agent's joining costs both sides together, over TLS, a connection each: the agent's key and request, the handshake,
// the checks, the token's use, the certificate, the record. The limit: a core does 1000 a minute, 60 ms each; here the
// control state is in memory, and an fsync adds some 2 ms of waiting.
func BenchmarkEnrol(b *testing.B) {
	w := openWhole(b)
	created, err := w.Create(b.Context(), "ops", api.AccessTokenRequest{Name: "all", Role: api.Enrol, Uses: 10_000})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	begun, n := time.Now(), 0
	for b.Loop() {
		if n++; n%9000 == 0 {
			b.StopTimer()
			if created, err = w.Create(b.Context(), "ops", api.AccessTokenRequest{Name: "all", Role: api.Enrol, Uses: 10_000}); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
		h := newHost()
		var grant control.Grant
		if code := post(b, w.client(b, h), w.server.URL+control.EnrolPath, control.EnrolRequest{Token: created.Text, Agent: h.id, Name: "n", CSR: h.csr()}, &grant); code != 200 {
			b.Fatalf("enrol: %d", code)
		}
	}
	b.ReportMetric(float64(n)/time.Since(begun).Minutes(), "enrolments/min")
}

// What it costs on the way of every request for data.
func BenchmarkRevoked(b *testing.B) {
	w := newWorld(b)
	defer w.gate.Close()
	h := newHost()
	if err := w.gate.Revoke(b.Context(), "ops", h.id, "", ""); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if !w.gate.Revoked(h.id) {
			b.Fatal("it is not revoked")
		}
	}
}
