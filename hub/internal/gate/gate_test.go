package gate

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/hub/internal/state"
)

func open(t testing.TB) *world {
	w := newWorld(t)
	t.Cleanup(func() { w.gate.Close() })
	return w
}

// serveTLS serves a gate as a hub does: certificates are asked for, nobody is refused in the handshake.
func serveTLS(t testing.TB, g *Gate) *httptest.Server {
	mux := http.NewServeMux()
	mux.Handle("/v1/identity/", g)
	mux.HandleFunc(control.Path, func(w http.ResponseWriter, r *http.Request) {
		p, labels, err := g.Enter(r)
		var refused *control.Refusal
		if errors.As(err, &refused) {
			_ = json.NewEncoder(w).Encode(refused)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"id": p.ID, "generation": p.Generation, "labels": labels})
	})
	s := httptest.NewUnstartedServer(mux)
	s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// client is of a host, with its certificate.
func (h *host) client(s *httptest.Server) *http.Client {
	c := s.Client().Transport.(*http.Transport).Clone()
	if h.chain != nil {
		raw := make([][]byte, len(h.chain))
		for i, one := range h.chain {
			raw[i] = one.Raw
		}
		own := &tls.Certificate{Certificate: raw, PrivateKey: h.key}
		c.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own, nil }
	}
	return &http.Client{Transport: c}
}

func post(t testing.TB, c *http.Client, url string, q, into any) int {
	t.Helper()
	resp, err := c.Post(url, "application/json", strings.NewReader(toJSON(q)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	defer c.CloseIdleConnections()
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode
}

// TestLife goes with an agent over real TLS from its token to its revocation and back.
func TestLife(t *testing.T) {
	w := open(t)
	s := serveTLS(t, w.gate)
	h := newHost()
	text := w.tokens.create(1, map[string]string{"env": "prod"})
	q := control.EnrolRequest{Token: text, Agent: h.id, Name: "host\x1b[31m-1\n", CSR: h.csr()}
	var grant, same control.Grant
	for _, into := range []*control.Grant{&grant, &same} { // the second time as if the first answer was lost
		if code := post(t, h.client(s), s.URL+control.EnrolPath, q, into); code != 200 {
			t.Fatalf("enrol: %d", code)
		}
	}
	if w.tokens.spent != 1 || w.audited("enrol") != 1 || grant.Hub.URL != "https://127.0.0.1:4380" || grant.Lifetime != life || !bytes.Equal(grant.Authorities, same.Authorities) {
		t.Fatalf("spent %d, audited %d, granted %+v", w.tokens.spent, w.audited("enrol"), grant)
	}
	h.take(&same)
	enter := func(generation uint64, code string) {
		t.Helper()
		var got struct {
			ID, Code   string
			Generation uint64
			Labels     map[string]string
		}
		post(t, h.client(s), s.URL+control.Path, struct{}{}, &got)
		if got.Code != code || code == "" && (got.ID != h.id || got.Generation != generation || got.Labels["env"] != "prod") {
			t.Fatalf("came in as %+v, want generation %d or code %q", got, generation, code)
		}
	}
	renew := func(want uint64) {
		t.Helper()
		csr := h.csr()
		for range 2 {
			if code := post(t, h.client(s), s.URL+control.RenewPath, control.RenewRequest{CSR: csr}, &grant); code != 200 {
				t.Fatalf("renew: %d", code)
			}
		}
		h.take(&grant)
		if h.generation() != want {
			t.Fatalf("generation %d, want %d", h.generation(), want)
		}
	}
	enter(1, "")
	renew(2)
	enter(2, "")
	var jwt control.AccessToken
	if code := post(t, h.client(s), s.URL+control.TokenPath, struct{}{}, &jwt); code != 200 || jwt.Token != "jwt of "+h.id {
		t.Fatalf("token: %d %+v", code, jwt)
	}
	w.clock.pass(400 * life / 10)
	enter(0, control.Expired)
	var refused control.Refusal
	if code := post(t, h.client(s), s.URL+control.TokenPath, struct{}{}, &refused); code != 401 || refused.Code != control.Expired {
		t.Fatalf("token: %d %+v", code, refused)
	}
	renew(3)
	enter(3, "")
	if list := w.gate.Knocks().Knocks; len(list) != 0 {
		t.Errorf("it came in, and knocks: %+v", list)
	}
	if err := w.gate.Revoke(t.Context(), "ops", h.id, "", "stolen"); err != nil {
		t.Fatal(err)
	}
	enter(0, control.Revoked)
	if code := post(t, h.client(s), s.URL+control.RenewPath, control.RenewRequest{CSR: h.csr()}, &refused); code != 403 || refused.Code != control.Revoked {
		t.Fatalf("renew: %d %+v", code, refused)
	}
	list := w.gate.Knocks()
	if len(list.Knocks) != 1 || list.Knocks[0].Name != "host[31m-1" || list.Knocks[0].Count != 2 || !strings.Contains(list.Knocks[0].Remedy, "creel admit "+h.id) {
		t.Errorf("knocks: %+v", list.Knocks)
	}
	if len(list.Revoked) != 1 || list.Revoked[0].By != "ops" || list.Revoked[0].Cause != "stolen" {
		t.Errorf("revoked: %+v", list.Revoked)
	}
	if err := w.gate.Admit(t.Context(), "ops", h.id, "found"); err != nil {
		t.Fatal(err)
	}
	enter(3, "")
	if list := w.gate.Knocks(); len(list.Knocks)+len(list.Revoked) != 0 {
		t.Errorf("after admitting: %+v", list)
	}
}

// TestRefusals: what is wrong with a request is said with the right code, and costs no token.
func TestRefusals(t *testing.T) {
	w := open(t)
	good := w.tokens.create(1000, nil)
	signed := requestOf(newKey())
	forged := bytes.Clone(signed)
	forged[len(forged)-1] ^= 1
	small, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ended := w.tokens.create(1, nil)
	w.tokens.list[ended].Ends = w.clock.now()
	body := func(change func(*control.EnrolRequest)) string {
		q := control.EnrolRequest{Token: good, Agent: uuid.NewString(), Name: "n", CSR: signed}
		change(&q)
		return toJSON(q)
	}
	n := 0
	f := func(code string, status int, text string, change func(*http.Request)) {
		t.Helper()
		h := newHost()
		n++
		h.address = fmt.Sprintf("198.51.100.%d:1", n)
		r := h.request(control.EnrolPath, text)
		if change != nil {
			change(r)
		}
		rec := httptest.NewRecorder()
		w.gate.ServeHTTP(rec, r)
		var got control.Refusal
		if err := json.Unmarshal(rec.Body.Bytes(), &got); err != nil || rec.Code != status || got.Code != code || got.Text == "" || got.Remedy == "" {
			t.Errorf("case %d: got %d %s, want %d %s", n, rec.Code, rec.Body, status, code)
		}
	}
	f(control.TokenUnknown, 401, body(func(q *control.EnrolRequest) { q.Token = "creel_x" }), nil)
	f(control.TokenUnknown, 401, body(func(q *control.EnrolRequest) {
		q.Token = control.Token{ID: "aaaaaaaa", Secret: strings.Repeat("b", 26)}.String()
	}), nil)
	f(control.TokenExpired, 401, body(func(q *control.EnrolRequest) { q.Token = ended }), nil)
	f(control.TokenSpent, 401, body(func(q *control.EnrolRequest) { q.Token = w.tokens.create(0, nil) }), nil)
	for _, id := range []string{"", "x", uuid.Nil.String(), "urn:uuid:" + uuid.NewString(), "{" + uuid.NewString() + "}", "../../agents/1"} {
		f(control.Malformed, 400, body(func(q *control.EnrolRequest) { q.Agent = id }), nil)
	}
	for _, csr := range [][]byte{nil, []byte("x"), forged, requestOf(small), make([]byte, maxCSR+1)} {
		f(control.Malformed, 400, body(func(q *control.EnrolRequest) { q.CSR = csr }), nil)
	}
	whole := body(func(*control.EnrolRequest) {})
	f(control.Malformed, 400, `{"unknown":1,`+whole[1:], nil)
	f(control.Malformed, 400, whole+"{}", nil)
	f(control.Malformed, 400, "", nil)
	f(control.Malformed, 400, `{"name":"`+strings.Repeat("x", control.MaxIdentityMessage)+`"}`, nil)
	f(control.Malformed, 400, whole, func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") })
	f(control.Malformed, 400, whole, func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") })
	f(control.Malformed, 405, whole, func(r *http.Request) { r.Method = http.MethodGet })
	f(control.Malformed, 400, whole, func(r *http.Request) { r.TLS = nil })
	f(control.Malformed, 400, whole, func(r *http.Request) { r.URL.Path = "/v1/identity/" })
	for _, path := range []string{control.RenewPath, control.TokenPath} {
		f(control.NoCertificate, 401, "{}", func(r *http.Request) { r.URL.Path = path })
		f(control.NoCertificate, 401, "{}", func(r *http.Request) { r.URL.Path, r.TLS = path, nil })
		other := newWorld(t)
		h := newHost().join(other, nil)
		other.gate.Close()
		f(control.UnknownAuthority, 401, "{}", func(r *http.Request) { r.URL.Path, r.TLS.PeerCertificates = path, h.chain })
	}
	if w.tokens.spent != 0 {
		t.Errorf("%d uses of tokens were spent", w.tokens.spent)
	}
	if _, all, err := w.memory.Open().List(t.Context(), ""); err != nil || all != 0 {
		t.Errorf("something was written: revision %d, %v", all, err)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err = keyOf(requestOf(key)); err == nil {
		t.Error("RSA is taken, which the authority does not sign")
	}
	if _, _, err := keyOf(requestOf(newEdKey())); err != nil {
		t.Errorf("Ed25519: %v", err)
	}
}

// TestFiftyWithTenUses: as many identities as uses, whatever happens at once.
func TestFiftyWithTenUses(t *testing.T) {
	w := open(t)
	text := w.tokens.create(10, nil)
	var in, spent atomic.Int64
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			switch _, refused := newHost().enrol(t, w.gate, text); refused.Code {
			case "":
				in.Add(1)
			case control.TokenSpent:
				spent.Add(1)
			default:
				t.Errorf("refused: %+v", refused)
			}
		})
	}
	all.Wait()
	list, _, err := w.store.List(t.Context(), prefix)
	if in.Load() != 10 || spent.Load() != 40 || len(list) != 10 || w.audited("enrol") != 10 || err != nil {
		t.Errorf("%d came in, %d found the token spent, %d records, %d audited, %v", in.Load(), spent.Load(), len(list), w.audited("enrol"), err)
	}
}

// TestOneUseForOneIdentity: an enrolment that is asked for again, whatever went wrong the first time, costs one use; and one
// that another asks for, with another key or another token, is refused.
func TestOneUseForOneIdentity(t *testing.T) {
	w := open(t)
	text := w.tokens.create(1, nil)
	h := newHost()

	w.authority.issuing = func() error { return errors.New("no entropy") }
	_, refused := h.enrol(t, w.gate, text)
	want(t, "issuing fails", refused, control.Busy)
	w.authority.issuing = nil
	if w.tokens.spent != 0 {
		t.Fatal("issuing has failed, and a use is spent")
	}
	down := errors.New("no quorum")
	w.store.put = func(string) (error, error) { return down, nil }
	_, refused = h.enrol(t, w.gate, text)
	want(t, "writing fails", refused, control.Busy)
	if !strings.Contains(refused.Text, "one use of the token is spent") {
		t.Errorf("it is not said that a use is spent: %s", refused.Text)
	}
	w.store.put = func(string) (error, error) { return nil, down } // it is written, and nobody hears of it
	_, refused = h.enrol(t, w.gate, text)
	want(t, "the answer of the store is lost", refused, control.Busy)
	w.store.put = nil
	if w.store.happens != 2 {
		t.Fatalf("the store has failed %d times", w.store.happens)
	}
	var all sync.WaitGroup
	csr := h.csr()
	for range 8 {
		all.Go(func() {
			_, refused := ask[control.Grant](t, w.gate, h.request(control.EnrolPath, toJSON(control.EnrolRequest{Token: text, Agent: h.id, CSR: csr})))
			want(t, "again", refused, "")
		})
	}
	all.Wait()
	if w.tokens.spent != 1 {
		t.Errorf("%d uses are spent", w.tokens.spent)
	}

	fresh, many := newHost(), w.tokens.create(100, nil)
	csr = fresh.csr()
	for range 8 { // all at once, and none was first
		all.Go(func() {
			_, refused := ask[control.Grant](t, w.gate, fresh.request(control.EnrolPath, toJSON(control.EnrolRequest{Token: many, Agent: fresh.id, CSR: csr})))
			want(t, "at once", refused, "")
		})
	}
	all.Wait()
	if w.tokens.spent != 2 {
		t.Errorf("%d uses are spent, want 2", w.tokens.spent)
	}

	thief := &host{id: h.id, address: "203.0.113.1:1"}
	_, refused = thief.enrol(t, w.gate, many)
	want(t, "another key and token", refused, control.IdentityTaken)
	_, refused = thief.enrol(t, w.gate, text)
	want(t, "another key", refused, control.IdentityTaken)
	_, refused = h.enrol(t, w.gate, many)
	want(t, "another token", refused, control.IdentityTaken)
	grant, _ := h.enrol(t, w.gate, text)
	h.take(&grant)
	repeat := &host{id: h.id, address: h.address, pending: h.key}
	h.next(t, w.gate)
	_, refused = repeat.enrol(t, w.gate, text)
	want(t, "after renewing", refused, control.IdentityTaken)
	if w.tokens.spent != 2 {
		t.Errorf("%d uses are spent, want 2", w.tokens.spent)
	}
}

// TestJoinAgain: who shows the certificate may join again, with other labels; who was revoked, with a newer token.
func TestJoinAgain(t *testing.T) {
	w := open(t)
	h := newHost().join(w, map[string]string{"env": "test"})
	h.next(t, w.gate)
	w.clock.pass(2 * life) // it may have expired
	other := newHost().join(w, nil)
	other.id = h.id
	_, refused := other.enrol(t, w.gate, w.tokens.create(1, nil))
	want(t, "with the certificate of another agent", refused, control.IdentityTaken)
	old := h.copied()
	h.join(w, map[string]string{"env": "prod"})
	if h.generation() != 3 {
		t.Errorf("generation %d after joining again, want 3", h.generation())
	}
	_, labels, err := w.gate.Enter(h.request(control.Path, ""))
	if err != nil || labels["env"] != "prod" {
		t.Errorf("came in with %v, %v", labels, err)
	}
	_, refused = old.renew(t, w.gate)
	want(t, "a copy of before", refused, control.Cloned)

	early := w.tokens.create(1, nil)
	w.clock.pass(time.Second)
	if err := w.gate.Revoke(t.Context(), "ops", h.id, "", ""); err != nil {
		t.Fatal(err)
	}
	lost := &host{id: h.id, address: h.address}
	_, refused = lost.enrol(t, w.gate, early)
	want(t, "a token of before", refused, control.Revoked)
	w.clock.pass(time.Second)
	lost.join(w, nil)
	if lost.generation() != 4 {
		t.Errorf("generation %d after it was revoked and has joined again, want 4", lost.generation())
	}
	eventually(t, "it is not revoked", func() bool { return !w.gate.Revoked(h.id) })
	_, refused = h.token(t, w.gate)
	want(t, "the old holder", refused, control.Cloned)
	_, refused = lost.token(t, w.gate)
	want(t, "the new holder", refused, "")

	unseen := newHost()
	if err := errors.Join(w.gate.Revoke(t.Context(), "ops", unseen.id, "x", ""), w.gate.Admit(t.Context(), "ops", unseen.id, "")); err != nil {
		t.Fatal(err)
	}
	unseen.join(w, nil)
}

// TestClones: of two that have the same, the first to renew is the holder; the other is refused until it is admitted, which
// it is once, and even if the answer is lost.
func TestClones(t *testing.T) {
	for _, first := range []string{"the right one", "the copy"} {
		w := open(t)
		a := newHost().join(w, nil)
		a.next(t, w.gate)
		b := a.copied()
		b.pending = nil
		if first == "the copy" {
			a, b = b, a
		}
		a.next(t, w.gate)
		_, refused := b.token(t, w.gate)
		want(t, "the generation before", refused, "")
		for range 3 {
			b.pending = nil
			_, refused = b.renew(t, w.gate)
			want(t, "the other", refused, control.Cloned)
		}
		a.next(t, w.gate)
		_, refused = b.token(t, w.gate)
		want(t, "two generations before", refused, control.Cloned)
		a.next(t, w.gate)
		if w.audited("cloneIdentity") != 1 {
			t.Errorf("audited %d times", w.audited("cloneIdentity"))
		}
		k := w.gate.Knocks().Knocks
		if len(k) != 1 || k[0].Reason != control.Cloned || k[0].Count != 4 || k[0].Address+":"+strings.Split(b.address, ":")[1] != b.address {
			t.Fatalf("knocks: %+v", k)
		}
		for _, command := range []string{"creel token create --role agent", "creel admit " + a.id, "creel revoke " + a.id} {
			if !strings.Contains(k[0].Remedy, command) {
				t.Errorf("%q does not say %q", k[0].Remedy, command)
			}
		}

		if err := w.gate.Admit(t.Context(), "ops", a.id, "the other was the copy"); err != nil {
			t.Fatal(err)
		}
		a.next(t, w.gate) // that costs b nothing
		_, refused = b.token(t, w.gate)
		want(t, "it must renew first", refused, control.Expired)
		before := w.expulsions()
		_, refused = b.renew(t, w.gate)
		want(t, "admitted", refused, "")
		eventually(t, "the other's connection ends", func() bool { return w.expulsions() > before })
		b.next(t, w.gate) // the answer was lost
		_, refused = b.token(t, w.gate)
		want(t, "admitted", refused, "")
		_, refused = a.token(t, w.gate)
		want(t, "the holder of before", refused, control.Cloned)
		b.next(t, w.gate)
		if b.generation() != 8 {
			t.Errorf("generation %d, want 8", b.generation())
		}
	}
	w := open(t)
	var asked *api.Error
	if err := w.gate.Admit(t.Context(), "ops", uuid.NewString(), ""); !errors.As(err, &asked) || asked.Code != "conflict" {
		t.Errorf("admitted nobody: %v", err)
	}
	if err := w.gate.Revoke(t.Context(), "ops", "../x", "", ""); !errors.As(err, &asked) || asked.Code != "bad_request" {
		t.Errorf("revoked nobody: %v", err)
	}
}

// TestRestored: certificates that are newer than the control state are believed, and that is told; even those of agents that
// it does not know at all.
func TestRestored(t *testing.T) {
	w := open(t)
	known := newHost().join(w, map[string]string{"env": "prod"})
	backup, _, err := w.store.List(t.Context(), prefix)
	if err != nil {
		t.Fatal(err)
	}
	unknown, waiting := newHost().join(w, nil), known
	for range 5 {
		waiting.next(t, w.gate)
	}
	_, refused := waiting.renew(t, w.gate) // the answer is lost, and then the hub
	want(t, "renew", refused, "")
	w.restore(backup)
	_, labels, err := w.gate.Enter(known.request(control.Path, ""))
	if err != nil || labels["env"] != "prod" {
		t.Errorf("came in with %v, %v", labels, err)
	}
	_, refused = unknown.token(t, w.gate)
	want(t, "who is not known", refused, "")
	waiting.next(t, w.gate)
	unknown.next(t, w.gate)
	if waiting.generation() != 7 || unknown.generation() != 2 || w.audited("restoreIdentity") != 2 {
		t.Errorf("generations %d and %d, audited %d", waiting.generation(), unknown.generation(), w.audited("restoreIdentity"))
	}
}

// restore has the control state be what it was, and starts the hub again.
func (w *world) restore(backup []state.Entry) {
	w.f.Helper()
	w.gate.Close()
	w.memory = &state.Memory{}
	w.store = &faulty{Store: w.memory.Open()}
	for _, e := range backup {
		if _, err := w.store.Put(context.Background(), e.Key, e.Value, false, state.Always()); err != nil {
			w.f.Fatalf("restore: %v", err)
		}
	}
	w.gate = w.open(w.store)
}

// TestRevokedEverywhere: what is done at one hub takes effect at another.
func TestRevokedEverywhere(t *testing.T) {
	w := open(t)
	second := w.open(w.memory.Open())
	defer second.Close()
	h := newHost().join(w, nil)
	_, refused := h.token(t, second)
	want(t, "at the other hub", refused, "")
	if err := w.gate.Revoke(t.Context(), "ops", h.id, "", "gone"); err != nil {
		t.Fatal(err)
	}
	if !w.gate.Revoked(h.id) || w.expulsions() == 0 {
		t.Error("it is revoked, and not yet here")
	}
	eventually(t, "the second hub has heard", func() bool { return second.Revoked(h.id) && w.expulsions() == 2 })
	_, _, err := second.Enter(h.request(control.Path, ""))
	if err == nil {
		t.Error("it came in")
	}
	third := w.open(w.memory.Open()) // it starts later
	defer third.Close()
	if !third.Revoked(h.id) || len(third.Knocks().Revoked) != 1 || w.expulsions() != 2 {
		t.Error("a hub that starts does not know")
	}
	if err := errors.Join(second.Revoke(t.Context(), "ops", h.id, "", "twice"), second.Admit(t.Context(), "ops", h.id, "")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all have heard", func() bool { return !w.gate.Revoked(h.id) && !second.Revoked(h.id) && !third.Revoked(h.id) })
}

// TestTrusted: who comes from the hub's own machine needs no certificate; if it shows one, that counts.
func TestTrusted(t *testing.T) {
	w := open(t)
	h := newHost().join(w, nil)
	at := func(h *host, local net.Addr, remote string) *http.Request {
		r := h.request(control.Path, "")
		r.RemoteAddr = remote
		return r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, local))
	}
	loop, socket, far := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}, &net.UnixAddr{Net: "unix", Name: "s"}, &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 1}
	f := func(what string, r *http.Request, id, code string) {
		t.Helper()
		p, _, err := w.gate.Enter(r)
		var refused *control.Refusal
		if errors.As(err, &refused); p.ID != id || (refused != nil) != (code != "") || refused != nil && refused.Code != code {
			t.Errorf("%s: got %+v, %v; want %q or %q", what, p, err, id, code)
		}
	}
	nobody := newHost()
	f("loopback", at(nobody, loop, "127.0.0.1:5"), "", "")
	f("socket", at(nobody, socket, "@"), "", "")
	f("loopback with certificate", at(h, loop, "127.0.0.1:5"), h.id, "")
	f("far", at(nobody, far, "10.0.0.2:5"), "", control.NoCertificate)
	f("far with certificate", at(h, far, "10.0.0.2:5"), h.id, "")
	proxied := at(nobody, loop, "127.0.0.1:5")
	proxied.Header.Set("X-Forwarded-For", "10.0.0.2")
	f("behind a proxy", proxied, "", control.NoCertificate)
	if err := w.gate.Revoke(t.Context(), "ops", h.id, "", ""); err != nil {
		t.Fatal(err)
	}
	f("loopback with certificate, revoked", at(h, loop, "127.0.0.1:5"), "", control.Revoked)
	hub := newHost()
	hub.pending = newKey()
	chain, _, err := w.authority.IssueAgent(hub.pending.Public(), control.Peer{Hub: true, ID: hub.id})
	if err != nil {
		t.Fatal(err)
	}
	hub.take(&control.Grant{Certificate: chain})
	f("a hub", at(hub, far, "10.0.0.2:5"), "", control.OtherIdentity)
}

// TestNothingSecret: neither the log nor the audit log nor the list of knocks nor an answer nor the control state has a token.
func TestNothingSecret(t *testing.T) {
	w := open(t)
	var texts []string
	var all bytes.Buffer
	for i := range 6 {
		text := w.tokens.create(i%2, nil)
		texts = append(texts, text)
		h := newHost()
		grant, refused := h.enrol(t, w.gate, text)
		grant2, refused2 := (&host{id: h.id, address: h.address}).enrol(t, w.gate, text)
		broken := h.request(control.EnrolPath, `{"token":"`+text+`","agent":`)
		_, refused3 := ask[control.Grant](t, w.gate, broken)
		wrong := h.request(control.EnrolPath, `{"`+text+`":"`+text+`"}`)
		_, refused4 := ask[control.Grant](t, w.gate, wrong)
		fmt.Fprintln(&all, grant, refused, grant2, refused2, refused3, refused4)
	}
	list, _, err := w.store.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		fmt.Fprintln(&all, e.Key, string(e.Value))
	}
	fmt.Fprintln(&all, toJSON(w.audit), toJSON(w.gate.Knocks()), w.log.String())
	if w.tokens.spent != 3 || all.Len() < 5000 {
		t.Fatalf("spent %d, and %d bytes to look through: the test shows nothing", w.tokens.spent, all.Len())
	}
	for _, text := range texts {
		parts := strings.Split(text, "_")
		if strings.Contains(all.String(), parts[2]) {
			t.Errorf("the secret of %s is in\n%s", text, all.String())
		}
	}
}

// readDeadlines is a recorder that notes deadlines.
type readDeadlines struct {
	*httptest.ResponseRecorder
	set []time.Time
}

func (d *readDeadlines) SetReadDeadline(t time.Time) error { d.set = append(d.set, t); return nil }

func TestReadingHasADeadline(t *testing.T) {
	w := open(t)
	h := newHost()
	d := &readDeadlines{ResponseRecorder: httptest.NewRecorder()}
	w.gate.ServeHTTP(d, h.request(control.EnrolPath, toJSON(control.EnrolRequest{Token: w.tokens.create(1, nil), Agent: h.id, CSR: h.csr()})))
	if d.Code != 200 || len(d.set) != 2 || d.set[0].IsZero() || !d.set[1].IsZero() {
		t.Errorf("answered %d, deadlines %v", d.Code, d.set)
	}
}
