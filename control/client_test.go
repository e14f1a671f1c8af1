package control_test

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"

	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/report"
	"github.com/creelhq/creel/tlsconf"
)

// TestConnectErrors: an error of TLS says what is wrong and which option to look at. Each is one that a real server gives.
func TestConnectErrors(t *testing.T) {
	serve := func(start func(*httptest.Server), auth tls.ClientAuthType) *httptest.Server {
		s := httptest.NewUnstartedServer(http.NotFoundHandler())
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		s.TLS = &tls.Config{ClientAuth: auth}
		start(s)
		t.Cleanup(s.Close)
		return s
	}
	secure := serve((*httptest.Server).StartTLS, tls.NoClientCert) // its certificate is for 127.0.0.1 and example.com
	strict := serve((*httptest.Server).StartTLS, tls.RequireAnyClientCert)
	plain := serve((*httptest.Server).Start, tls.NoClientCert)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		url  string
		tls  tlsconf.Client
		want string
	}{
		{secure.URL, tlsconf.Client{CAFile: ca}, "it answers 404"},
		{secure.URL, tlsconf.Client{}, "agent.hub.tls.ca_file names authorities"},
		{secure.URL, tlsconf.Client{CAFile: ca, ServerName: "hub.test"}, "a name that is in its certificate"},
		{strings.Replace(plain.URL, "http", "https", 1), tlsconf.Client{CAFile: ca}, "write http://"},
		{strings.Replace(secure.URL, "https", "http", 1), tlsconf.Client{}, "write https://"},
		{strict.URL, tlsconf.Client{CAFile: ca}, "agent.hub.tls.cert_file"},
		{"unix:///nowhere/opamp.sock", tlsconf.Client{}, "no such file"},
	} {
		secure, err := c.tls.Config("127.0.0.1", nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := fails(t, c.url, secure); !strings.Contains(err, c.want) {
			t.Errorf("%s with %+v: %s; want %s", c.url, c.tls, err, c.want)
		}
	}
	for text, ok := range map[string]bool{"unix:///run/hub.sock": true, "unix://host/x": false, "unix:": false, "https://h:1": true, "ftp://h": false, "https://u@h": false,
		"https://u:hunter2@h": false, "https://u:hunter2@h:%": false} {
		if _, err := control.HubURL(text); (err == nil) != ok || err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// fails returns why a client does not get through.
func fails(t *testing.T, at string, secure *tls.Config) string {
	t.Helper()
	c, err := control.NewClient(control.ClientOptions{URLs: []string{at}, TLS: func(*url.URL) (*tls.Config, bool, error) { return secure, false, nil }, Agent: control.Agent{ID: "0193e2f4-7f1e-7a3b-9c4d-5e6f708192a3"}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { c.Run(ctx); close(done) }()
	defer func() { cancel(); <-done }()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if s := c.State(); s.Error != "" {
			return s.Error
		}
	}
	return ""
}

// TestSocket: a hub may be at a Unix socket.
func TestSocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "hub.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan string, 1)
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := control.Upgrade(w, r, control.MaxMessage, time.Minute, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close(1000, "")
		asked <- r.URL.Path
		for conn.Receive(&protobufs.AgentToServer{}) == nil {
		}
	})}
	go s.Serve(l)
	defer s.Close()
	c, err := control.NewClient(control.ClientOptions{URLs: []string{"unix://" + socket}, Agent: control.Agent{
		ID: "0193e2f4-7f1e-7a3b-9c4d-5e6f708192a3", Labels: func() map[string]string { return nil }, Health: func() report.Health { return report.Health{} },
		Components: func() []report.Component { return nil }, Routes: func() []report.Route { return nil }, Ledger: func() report.Ledger { return report.Ledger{} }, Effective: func() []byte { return nil },
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { c.Run(ctx); close(done) }()
	if path := <-asked; path != control.Path {
		t.Errorf("asked for %s", path)
	}
	cancel()
	<-done
}
