package cli

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/plugins/all"
)

// enroller is the part of a hub that makes identities: its root certifies everything.
type enroller struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	root *x509.Certificate
	url  string

	tokens int

	mu      sync.Mutex
	refuse  []*control.Refusal // the next answers
	joined  []control.EnrolRequest
	another control.Addresses
}

func newEnroller(t *testing.T, id string) *enroller {
	e := &enroller{t: t}
	var err error
	if e.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	e.root = e.certify(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, &e.key.PublicKey)
	leaf := e.certify(&x509.Certificate{
		URIs: []*url.URL{control.Peer{Hub: true, ID: id}.URI()}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, &e.key.PublicKey)
	s := httptest.NewUnstartedServer(e)
	s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert, Certificates: []tls.Certificate{{Certificate: [][]byte{leaf.Raw, e.root.Raw}, PrivateKey: e.key}}}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	e.url = s.URL
	e.another = control.Addresses{URL: s.URL, OTLPGRPC: "127.0.0.1:4317"}
	return e
}

func (e *enroller) certify(c *x509.Certificate, key any) *x509.Certificate {
	c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	parent := e.root
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key, e.key)
	if err != nil {
		e.t.Error(err)
	}
	c, err = x509.ParseCertificate(der)
	if err != nil {
		e.t.Error(err)
	}
	return c
}

// token is a new one each time.
func (e *enroller) token() string {
	e.tokens++
	return control.Token{ID: fmt.Sprintf("aaaaaaa%c", 'a'+e.tokens), Secret: strings.Repeat("b", 26), Fingerprint: control.FingerprintOf(e.root.Raw)}.String()
}

func (e *enroller) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var q control.EnrolRequest
	if r.URL.Path == control.Path || r.URL.Path == control.TokenPath {
		w.WriteHeader(http.StatusServiceUnavailable) // an agent that runs comes again
		return
	}
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil || r.URL.Path != control.EnrolPath {
		e.t.Errorf("%s: %v", r.URL, err)
	}
	if len(e.refuse) > 0 {
		w.WriteHeader(http.StatusForbidden)
		_ = json.NewEncoder(w).Encode(e.refuse[0]) // the client has gone
		e.refuse = e.refuse[1:]
		return
	}
	csr, err := x509.ParseCertificateRequest(q.CSR)
	if err != nil {
		e.t.Error(err)
		return
	}
	leaf := e.certify(&x509.Certificate{URIs: []*url.URL{control.Peer{ID: q.Agent, Generation: 1}.URI()}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, csr.PublicKey)
	text := func(c *x509.Certificate) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	e.joined = append(e.joined, q)
	_ = json.NewEncoder(w).Encode(control.Grant{Certificate: text(leaf), Authorities: text(e.root), Lifetime: time.Hour, Hub: e.another}) // likewise
}

func (e *enroller) refuses(list ...*control.Refusal) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.refuse = list
}

// command runs a command, and compares the exit code and what is printed.
func command(t *testing.T, in string, code int, want string, args ...string) {
	t.Helper()
	var out bytes.Buffer
	c := &Commands{Program: Program{Name: "creel", Plugins: all.Plugins()}, Out: &out, Err: &out}
	root := c.root()
	root.SetIn(strings.NewReader(in))
	root.SetArgs(args)
	got := c.exit(root.ExecuteContext(t.Context()))
	if got != code || !strings.Contains(out.String(), want) {
		t.Errorf("%q: exit code %d, not %d with %q\n%s", args, got, code, want, &out)
	}
	if strings.Contains(out.String(), "bbbbbbbb") {
		t.Errorf("%q prints the token:\n%s", args, &out)
	}
}

// TestJoin: what one sees of joining; package identity has tests of what becomes of it.
func TestJoin(t *testing.T) {
	t.Setenv("CREEL_TOKEN", "")
	e, other := newEnroller(t, "0193b7c5-6b1e-7d0e-8000-00000000000a"), newEnroller(t, "0193b7c5-6b1e-7d0e-8000-00000000000b")
	data := filepath.Join(t.TempDir(), "state")
	join := func(in string, code int, want string, args ...string) {
		t.Helper()
		command(t, in, code, want, append([]string{"join", "--data", data, "--no-run"}, args...)...)
	}
	refused := &control.Refusal{Code: control.TokenSpent, Text: "the token was used", Remedy: "make another"}
	join("", ExitUsage, "which token?", e.url)
	join("", ExitUsage, "it is no token of creel's", e.url, "--token", "x")
	join("", ExitUnreachable, "the token is another hub's", e.url, "--token", other.token())
	join("", ExitUsage, "nothing needs to be joined", "http://127.0.0.1:4380", "--token", e.token())
	command(t, "", ExitUsage, "which configuration? Say -c FILE", "agent", "--data", data)
	e.refuses(refused)
	join("", ExitForbidden, "the token was used; make another", e.url, "--token", e.token())
	if len(e.joined) != 0 {
		t.Fatalf("joined %v", e.joined)
	}
	e.refuses(&control.Refusal{Code: control.Busy, Text: "too many", After: time.Millisecond})
	first := e.token()
	join(first+"\nmore", 0, "this agent has joined the hub at "+e.url, e.url, "--token", "-", "--name", "edge-1")
	join("", 0, "this agent belongs to the hub at "+e.url, e.url+"/")
	join("", 0, "this agent has joined the hub at "+e.url, e.url, "--token", first) // the printed line once more
	e.refuses(refused)
	join("", 0, "the token was not taken, and is not needed", e.url, "--token", e.token())
	join("", ExitUsage, "which token?", other.url)
	join("", ExitUnreachable, "add --again", other.url, "--token", other.token())
	if n := len(e.joined); n != 1 || e.joined[0].Name != "edge-1" {
		t.Fatalf("joined %d times: %v", n, e.joined)
	}

	c := &Commands{Program: Program{Name: "creel", Plugins: all.Plugins()}, data: data}
	text, err := c.makeUp()
	if err != nil || !strings.Contains(text, fmt.Sprintf("url: %q, tls: {identity: true}", e.url)) {
		t.Errorf("%v\n%s", err, text)
	}
	ctx, cancel := context.WithCancel(t.Context())
	text, err = joinedConfig(Machine{}, e.another)
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	if err := agent.Run(ctx, agent.Options{Text: []byte(strings.Replace(text, "agent: {", "agent: {drain: 10ms, ", 1)), Data: data, Plugins: all.Plugins(), Log: &said, Ready: cancel}); err != nil {
		t.Errorf("it does not run: %v\n%s", err, &said)
	}
	t.Setenv("CREEL_TOKEN", other.token())
	join("", 0, "this agent has joined the hub at "+other.url, other.url, "--again")
	if len(other.joined) != 1 || other.joined[0].Agent == e.joined[0].Agent {
		t.Errorf("joined %d times", len(other.joined))
	}
	other.refuses(refused)
	join("", ExitForbidden, "the token was used", other.url, "--again") // and nothing has changed
	if id, err := agent.ID(data, false); err != nil || id != other.joined[0].Agent {
		t.Errorf("it is %s, %v", id, err)
	}
	if err := os.WriteFile(filepath.Join(data, "hub.json"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	join("", ExitUsage, "is the state directory of a hub", e.url)
}

// TestJoinedConfig: what an agent runs that was given no configuration is right, whatever was found.
func TestJoinedConfig(t *testing.T) {
	parts := agent.Parts{Plugins: all.Plugins()}
	for _, m := range []Machine{{}, {Journal: true, Logs: []string{"/var/log/a.log"}}} {
		for _, at := range []control.Addresses{{URL: "https://hub.example:4380", OTLPGRPC: "hub.example:4317", OTLPHTTP: "hub.example:4318"}, {URL: "https://[::1]", OTLPHTTP: "[::1]:4318"}} {
			text, err := joinedConfig(m, at)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := parts.Parse("made", []byte(text), config.Env{}); err != nil {
				t.Errorf("%v\n%s", err, text)
			}
		}
	}
	if _, err := joinedConfig(Machine{}, control.Addresses{URL: "https://hub.example"}); err == nil || !strings.Contains(err.Error(), "takes no OTLP") {
		t.Error(err)
	}
}
