package hub_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/hub"
	"github.com/creelhq/creel/plugins/generate"
	"github.com/creelhq/creel/plugins/otlp"
	"github.com/creelhq/creel/tlsconf"
)

// certify writes a certificate for a name that nobody has issued but itself.
func certify(t *testing.T, name, cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{name},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &k.PublicKey, k)
	if err != nil {
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
}

// TestTLS: a hub that is open to the network, with a certificate that is not for the address it is reached at here. What is
// on the same machine finds in hub.json what to trust; an agent needs its certificate, the hub's own does not.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	certify(t, "hub.example", file("hub.pem"), file("hub.key"))
	certify(t, "agent.example", file("agent.pem"), file("agent.key"))
	ready := make(chan hub.Endpoints, 1)
	w := &world{T: t, dir: dir}
	w.goes("hub", func(ctx context.Context) error {
		defer close(ready)
		return hub.Run(ctx, hub.Options{
			Data: file("hub"), Address: "0.0.0.0:0", OpAMP: "127.0.0.1:0", Config: "hub.yaml", Text: []byte(hubText), Log: io.Discard,
			TLS:     tlsconf.Server{CertFile: file("hub.pem"), KeyFile: file("hub.key"), ClientCAFile: file("agent.pem")},
			Plugins: []creel.Plugin{otlp.Collector, otlp.Exporter, generate.Plugin}, Heartbeat: 50 * time.Millisecond,
			Ready: func(e hub.Endpoints) { ready <- e },
		})
	})
	if _, ok := <-ready; !ok {
		t.Fatal("the hub does not start")
	}
	text, err := os.ReadFile(filepath.Join(dir, "hub", "hub.json"))
	if err != nil {
		t.Fatal(err)
	}
	var e hub.Endpoints
	if err := json.Unmarshal(text, &e); err != nil || !strings.HasPrefix(e.URL, "https://127.0.0.1:") || !strings.HasPrefix(e.OpAMP, "wss://127.0.0.1:") || e.CAFile != file("hub.pem") || e.ServerName != "hub.example" {
		t.Fatalf("hub.json: %s, %v", text, err)
	}
	token, err := os.ReadFile(filepath.Join(dir, "hub", "token"))
	if err != nil {
		t.Fatal(err)
	}
	client := func(o tlsconf.Client) *api.Client {
		t.Helper()
		secure, err := o.Config("127.0.0.1", nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		return &api.Client{URL: e.URL, Token: strings.TrimSpace(string(token)), HTTP: &http.Client{Transport: &http.Transport{TLSClientConfig: secure}}}
	}
	own := tlsconf.Client{CAFile: e.CAFile, ServerName: e.ServerName, CertFile: file("agent.pem"), KeyFile: file("agent.key")}
	w.client = client(own)
	agentTLS := fmt.Sprintf("agent: {drain: 2s, hub: {tls: {ca_file: %s, server_name: hub.example, cert_file: %s, key_file: %s}}}", own.CAFile, own.CertFile, own.KeyFile)
	w.goes("agent", func(ctx context.Context) error {
		return agent.Run(ctx, agent.Options{
			Data: file("agent"), Config: "agent.yaml", Log: io.Discard, Hub: e.URL, Labels: map[string]string{"site": "far"},
			Text:    []byte(strings.Replace(fmt.Sprintf(agentText, 10, w.otlpHTTP()), "agent: {drain: 2s}", agentTLS, 1)),
			Plugins: []creel.Plugin{otlp.Collector, otlp.Exporter, generate.Plugin},
		})
	})
	w.await("connected", func(d api.AgentDetail) bool { return d.Connection == api.Connected && d.State == "running" })
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) { // the hub's own agent comes too
		list, err := w.client.Agents(t.Context(), api.AgentQuery{Label: "creel.role=hub"})
		if err != nil {
			t.Fatal(err)
		}
		if len(list.Agents) == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the hub's own agent does not connect")
		}
	}

	for _, o := range []tlsconf.Client{
		{CAFile: own.CAFile, ServerName: own.ServerName}, {CAFile: own.CAFile, ServerName: own.ServerName, CertFile: file("hub.pem"), KeyFile: file("hub.key")},
	} {
		if _, err := client(o).Hub(t.Context()); !errors.Is(err, api.ErrUnreachable) { // it hangs up; how that looks is a matter of luck
			t.Errorf("with %+v: %v", o, err)
		}
	}
	for want, o := range map[string]tlsconf.Client{
		"unknown authority":                   {CAFile: file("agent.pem"), ServerName: own.ServerName, CertFile: own.CertFile, KeyFile: own.KeyFile},
		"valid for hub.example":               {CAFile: own.CAFile, ServerName: "evil.example", CertFile: own.CertFile, KeyFile: own.KeyFile},
		"cannot validate certificate for 127": {CAFile: own.CAFile, CertFile: own.CertFile, KeyFile: own.KeyFile},
	} {
		if _, err := client(o).Hub(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("with %+v: %v, want %s", o, err, want)
		}
	}
	plain := &api.Client{URL: strings.Replace(e.URL, "https", "http", 1), Token: w.client.Token}
	if _, err := plain.Hub(t.Context()); err == nil || !strings.Contains(tlsconf.Hint(err, "", ""), "write https://") {
		t.Errorf("without TLS: %v", err)
	}
	u, err := url.Parse(e.URL)
	if err != nil {
		t.Fatal(err)
	}
	old := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	if _, err := tls.Dial("tcp", u.Host, old); err == nil || !strings.Contains(err.Error(), "protocol version") {
		t.Errorf("TLS 1.1: %v", err)
	}
	info, err := os.Stat(filepath.Join(dir, "hub"))
	if err != nil || info.Mode().Perm() != 0o700 { // the socket without TLS is in it
		t.Errorf("the state directory has mode %v, %v", info.Mode(), err)
	}
}

// TestAddresses: what cannot be listened on is said before anything is begun.
func TestAddresses(t *testing.T) {
	err := hub.Run(t.Context(), hub.Options{Data: t.TempDir(), Address: "nothing", OpAMP: "none"})
	if err == nil || !strings.Contains(err.Error(), "host:port") {
		t.Errorf("no address: %v", err)
	}
	err = hub.Run(t.Context(), hub.Options{Data: t.TempDir(), Address: "0.0.0.0:0", OpAMP: "none", Log: io.Discard, TLS: tlsconf.Server{CertFile: "none.pem", KeyFile: "none.key"}})
	if err == nil || !strings.Contains(err.Error(), "none.pem") {
		t.Errorf("a certificate that is not there: %v", err)
	}
}
