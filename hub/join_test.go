package hub_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/agent/identity"
	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/hub"
	"github.com/creelhq/creel/plugins/otlp"
	"github.com/creelhq/creel/tlsconf"
)

// A member is one of several hubs in this process.
type member struct {
	*testing.T
	o      hub.Options
	client *api.Client
	url    string
	over   chan error
	stop   context.CancelFunc
}

// start runs a hub, and returns why not if it does not start.
func (m *member) start() error {
	m.Helper()
	ctx, stop := context.WithCancel(context.Background())
	ready := make(chan hub.Endpoints, 1)
	m.over, m.stop = make(chan error, 1), stop
	m.o.Address, m.o.OpAMP, m.o.Config, m.o.Text, m.o.Log = "127.0.0.1:0", "none", "hub.yaml", []byte(hubText), io.Discard
	m.o.Plugins = []creel.Plugin{otlp.Collector}
	m.o.Ready = func(e hub.Endpoints) { ready <- e }
	go func() { m.over <- hub.Run(ctx, m.o) }()
	select {
	case err := <-m.over:
		stop()
		return err
	case e := <-ready:
		secure, err := tlsconf.Client{CAFile: e.CAFile}.Config("127.0.0.1", nil, nil)
		if err != nil {
			m.Fatal(err)
		}
		m.url = e.URL
		m.client = &api.Client{URL: e.URL, Token: e.Token, HTTP: &http.Client{Transport: &http.Transport{TLSClientConfig: secure, DisableKeepAlives: true}}}
		return nil
	}
}

func (m *member) end() {
	m.stop()
	if err := <-m.over; err != nil {
		m.Error(err)
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// token makes one for a hub to join with.
func (m *member) token() string {
	m.Helper()
	t, err := m.client.CreateToken(m.Context(), api.AccessTokenRequest{Name: "hubs", Role: api.Member})
	if err != nil {
		m.Fatal(err)
	}
	if want := " --join " + m.url + " --token " + t.Text; !strings.HasPrefix(t.Join, "creel up --data creel-"+t.ID+" ") || !strings.HasSuffix(t.Join, want) || m.o.EtcdListen != "" && strings.Contains(t.Join, m.o.EtcdListen+" ") {
		m.Errorf("to be run is %q, want …%q and a port for etcd that is free", t.Join, want)
	}
	return t.Text
}

// sees waits until a hub says of the cluster what is wanted.
func (m *member) sees(what string, f func(x api.Cluster, took time.Duration) bool) {
	m.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		began := time.Now()
		x, err := m.client.Cluster(m.Context())
		if err == nil && f(x, time.Since(began)) {
			return
		}
		if time.Now().After(deadline) {
			m.Fatalf("the hub does not see %s: %+v, %v", what, x, err)
		}
	}
}

// TestJoin: a hub joins another over TLS, after an attempt whose answer got lost; it starts again without being told, and is removed.
func TestJoin(t *testing.T) {
	dir := t.TempDir()
	secure := tlsconf.Server{Identity: true}
	a := &member{T: t, o: hub.Options{Data: filepath.Join(dir, "a"), TLS: secure}}
	if err := a.start(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.client.CreateToken(t.Context(), api.AccessTokenRequest{Name: "hubs", Role: api.Member}); err == nil || !strings.Contains(err.Error(), "--etcd-listen") {
		t.Errorf("a hub that keeps to itself is joined: %v", err)
	}
	a.end()
	a.o.EtcdListen = freeAddress(t)
	if err := a.start(); err != nil {
		t.Fatal(err)
	}
	defer func() { a.end() }()

	text := a.token()
	token, err := control.ParseToken(text)
	if err != nil {
		t.Fatal(err)
	}
	b := &member{T: t, o: hub.Options{Data: filepath.Join(dir, "b"), TLS: secure, EtcdListen: freeAddress(t), Join: a.url}}
	other := token
	other.Fingerprint = strings.Repeat("a", 26)
	b.o.JoinToken = other.String()
	if err := b.start(); err == nil || !strings.Contains(err.Error(), "somebody is in between") {
		t.Errorf("a hub with another fingerprint is joined: %v", err)
	}
	b.o.JoinToken = text

	// The answer is lost, and the hub killed: its state directory has no more than the question.
	id, err := os.ReadFile(filepath.Join(dir, "b", "id"))
	if err != nil {
		t.Fatal(err)
	}
	q := control.HubRequest{Token: text, Hub: strings.TrimSpace(string(id)), Key: make([]byte, 32), Peer: "https://" + b.o.EtcdListen}
	var lost control.HubGrant
	if err := identity.AskFirst(t.Context(), a.url, text, control.HubPath, q, &lost); err != nil {
		t.Fatal(err)
	}
	asked, err := json.Marshal(map[string]any{"version": 1, "token": token.ID, "key": q.Key})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "b", "cluster.json"), asked, 0o600); err != nil {
		t.Fatal(err)
	}
	thief := q
	thief.Key = append(make([]byte, 31), 1)
	if err := identity.AskFirst(t.Context(), a.url, text, control.HubPath, thief, &lost); err == nil || !strings.Contains(err.Error(), "was used") {
		t.Errorf("with a token that was used somebody else joins: %v", err)
	}
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.client.ApplyDocument(t.Context(), api.DocumentChange{Text: "document: d\nselector: site == \"x\"\n"}); err != nil {
		t.Fatal(err)
	}
	seen := func() {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			list, err := b.client.Documents(t.Context())
			if err == nil && len(list.Documents) == 1 {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("the other hub has %+v, %v", list, err)
			}
		}
	}
	seen()
	a.sees("both sizes", func(x api.Cluster, _ time.Duration) bool {
		return x.State.Healthy && len(x.State.Members) == 2 && x.State.Members[0].Size > 0 && x.State.Members[1].Size > 0
	})
	b.end()
	a.sees("at once that it is one of two", func(x api.Cluster, took time.Duration) bool {
		return !x.State.Healthy && strings.HasPrefix(x.State.Error, "1 of the 2 members") && len(x.State.Members) == 2 && took < time.Second
	})
	b.o.Join, b.o.JoinToken, b.o.EtcdListen = "", "", ""
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	seen()

	if err := a.client.RemoveHub(t.Context(), q.Hub[:30]); err != nil {
		t.Fatal(err)
	}
	if err := <-b.over; err == nil || !strings.Contains(err.Error(), "was removed") {
		t.Errorf("a hub that was removed ends with %v", err)
	}
	if err := b.start(); err == nil || !strings.Contains(err.Error(), "--join") {
		t.Errorf("a hub that was removed starts: %v", err)
	}
	log, err := a.client.Audit(t.Context(), api.AuditQuery{})
	if err != nil {
		t.Fatal(err)
	}
	joins := 0
	for _, e := range log.Entries {
		if e.Action == "joinHub" && e.Target == q.Hub {
			joins++
		}
	}
	if joins != 1 || log.Entries[0].Action != "removeHub" || log.Entries[0].Target != q.Hub {
		t.Errorf("it has joined %d times, and the audit log says %+v", joins, log.Entries)
	}
}

// TestJoinOutside: of hubs on an etcd outside with TLS, one that joins learns where it is; one that only names it has not the secret.
func TestJoinOutside(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	certify(t, "localhost", file("etcd.pem"), file("etcd.key"))
	at := func(scheme string) url.URL { return url.URL{Scheme: scheme, Host: freeAddress(t)} }
	client, peer := at("https"), at("http")
	c := embed.NewConfig()
	c.Dir = file("etcd")
	c.ListenClientUrls, c.AdvertiseClientUrls, c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{client}, []url.URL{client}, []url.URL{peer}, []url.URL{peer}
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	c.ClientTLSInfo = transport.TLSInfo{CertFile: file("etcd.pem"), KeyFile: file("etcd.key"), TrustedCAFile: file("etcd.pem"), ClientCertAuth: true}
	e, err := embed.StartEtcd(c)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	<-e.Server.ReadyNotify()
	endpoint := "https://localhost:" + client.Port()
	outside := hub.Options{Etcd: []string{endpoint}, EtcdTLS: tlsconf.Client{CAFile: file("etcd.pem"), CertFile: file("etcd.pem"), KeyFile: file("etcd.key")}}

	a := &member{T: t, o: outside}
	a.o.Data, a.o.TLS.Identity = file("a"), true
	if err := a.start(); err != nil {
		t.Fatal(err)
	}
	defer func() { a.end() }()
	b := &member{T: t, o: outside}
	b.o.Data, b.o.TLS.Identity = file("b"), true
	if err := b.start(); err == nil || !strings.Contains(err.Error(), "creel token create --role hub") {
		t.Errorf("without the secret: %v", err)
	}
	wrong := &member{T: t, o: outside}
	wrong.o.Data = file("c")
	if err := os.Mkdir(wrong.o.Data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(wrong.o.Data, "secret"), []byte(strings.Repeat("00", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := wrong.start(); err == nil || !strings.Contains(err.Error(), "creel hub --join") {
		t.Errorf("with another secret: %v", err)
	}
	b.o.Etcd, b.o.EtcdTLS, b.o.Join, b.o.JoinToken = nil, tlsconf.Client{}, a.url, a.token()
	for range 2 {
		if err := b.start(); err != nil {
			t.Fatal(err)
		}
		if _, err := b.client.Documents(t.Context()); err != nil {
			t.Error(err)
		}
		b.end()
		b.o.Join, b.o.JoinToken = "", ""
	}
}
