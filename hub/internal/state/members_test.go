package state

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"

	"github.com/creelhq/creel/tlsconf"
)

// A place is where a member of the tests lies.
type place struct {
	dir, listen string
	name        string
	ended       chan error
}

func newPlace(t *testing.T, name string) place {
	u := free(t)
	return place{t.TempDir(), u.Host, name, make(chan error, 1)}
}

func (p place) url() string { return "https://" + p.listen }

func (p place) options(secret Secret, cluster ...string) EmbeddedOptions {
	return EmbeddedOptions{
		Dir: filepath.Join(p.dir, "etcd"), Log: slog.New(slog.DiscardHandler), Timeout: 20 * time.Second, Ended: func(err error) { p.ended <- err },
		Member: &MemberOptions{Name: p.name, Listen: p.listen, Advertise: p.url(), Secret: &secret, TLS: filepath.Join(p.dir, "tls"), Cluster: cluster},
	}
}

func (p place) open(t *testing.T, secret Secret, cluster ...string) *embedded {
	t.Helper()
	s, err := Embedded(t.Context(), p.options(secret, cluster...))
	if err != nil {
		t.Fatal(err)
	}
	return s.(*embedded)
}

// kill ends a member without a word to the others.
func (s *embedded) kill() {
	s.cancel() // nobody is told
	s.server.Server.HardStop()
	s.Close()
}

// eventually waits until f returns "", and fails with what it says if that takes too long.
func eventually(t *testing.T, f func() string) {
	t.Helper()
	said := ""
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if said = f(); said == "" {
			return
		}
	}
	t.Fatal(said)
}

func put(t *testing.T, s Store, key, value string) {
	t.Helper()
	eventually(t, func() string {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		if _, err := s.Put(ctx, key, []byte(value), false, Always()); err != nil {
			return err.Error()
		}
		return ""
	})
}

func has(t *testing.T, s Store, key, value string) {
	t.Helper()
	eventually(t, func() string {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		e, err := s.Get(ctx, key)
		if err != nil || string(e.Value) != value {
			return fmt.Sprintf("%s is %q, %v; want %q", key, e.Value, err, value)
		}
		return ""
	})
}

// TestMembers: a hub that was alone gets two others, one of them after an attempt that was given up. One that leads is killed, the
// others go on, it comes back and has what it missed, and is then removed for good.
func TestMembers(t *testing.T) {
	var open []*embedded
	defer func() { // at once: each waits a second for the others to hang up
		var wg sync.WaitGroup
		for _, s := range open {
			wg.Go(s.kill)
		}
		wg.Wait()
	}()
	secret := Secret{1}
	a, b, c := newPlace(t, "a"), newPlace(t, "b"), newPlace(t, "c")
	lone := a.options(secret)
	lone.Member = nil
	before, err := Embedded(t.Context(), lone)
	if err != nil {
		t.Fatal(err)
	}
	put(t, before, "k", "alone")
	if _, _, err := before.(OwnCluster).Add(t.Context(), Joiner{Name: "b", Peer: b.url()}); !errors.Is(err, ErrAlone) {
		t.Errorf("to one that listens nowhere another is added: %v", err)
	}
	if err := before.Close(); err != nil {
		t.Fatal(err)
	}
	first := a.open(t, secret)
	open = append(open, first)
	has(t, first, "k", "alone")

	// An attempt that goes no further than this, and another at another address: neither is in the way.
	never := newPlace(t, "b")
	id, _, err := first.Add(t.Context(), Joiner{Name: "b", Peer: never.url()})
	if err != nil {
		t.Fatal(err)
	}
	again, peers, err := first.Add(t.Context(), Joiner{Name: "b", Peer: b.url(), Before: never.url()})
	if err != nil || again == id || len(peers) != 2 {
		t.Fatalf("the second attempt is %s after %s, %q, %v", again, id, peers, err)
	}
	put(t, first, "k", "while another is joining")
	if _, err := Embedded(t.Context(), b.options(Secret{2}, peers...)); err == nil || !strings.Contains(err.Error(), "join again") {
		t.Errorf("with another secret: %v", err)
	}
	second := b.open(t, secret, peers...)
	has(t, second, "k", "while another is joining")
	open = append(open, second)
	if _, peers, err = second.Add(t.Context(), Joiner{Name: "c", Peer: c.url()}); err != nil {
		t.Fatal(err)
	}
	third := c.open(t, secret, peers...)
	open = append(open, third)
	list, err := third.Members(t.Context())
	if err != nil || len(list) != 3 {
		t.Fatalf("members are %+v, %v", list, err)
	}
	for _, m := range list {
		if m.Learner || !m.Healthy || m.Full || m.Self != (m.Name == "c") || (m.Size > 0) != m.Self {
			t.Errorf("a member is %+v", m)
		}
	}
	if _, _, err := third.Add(t.Context(), Joiner{Name: "d", Peer: a.url()}); err == nil || !strings.Contains(err.Error(), "two hubs") {
		t.Errorf("with somebody else's address: %v", err)
	}

	led := third.server.Server.Leader() == first.server.Server.MemberID()
	first.kill()
	if e, err := third.Get(t.Context(), "k"); err != nil || !led {
		t.Errorf("while another is elected, instead of the first (%v): %q, %v", led, e.Value, err)
	}
	put(t, second, "k", "without the first")
	has(t, third, "k", "without the first")
	if err := third.Remove(t.Context(), "b"); err == nil || !strings.Contains(err.Error(), "only 1 of the 2") {
		t.Errorf("the one without which nothing goes: %v", err)
	}
	first = a.open(t, secret)
	open = append(open, first)
	has(t, first, "k", "without the first")
	if err := first.Remove(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	if err := <-b.ended; !errors.Is(err, ErrRemoved) {
		t.Errorf("it was removed and says %v", err)
	}
	second.kill()
	put(t, first, "k", "without the second")
	has(t, third, "k", "without the second")
	if _, err := Embedded(t.Context(), b.options(secret)); !errors.Is(err, ErrRemoved) {
		t.Errorf("it was removed and comes again: %v", err)
	}
}

// TestFull: a control state without room says so, still reads and deletes, and lets writes in again when there is room.
func TestFull(t *testing.T) {
	s, err := Embedded(t.Context(), EmbeddedOptions{Dir: t.TempDir(), Quota: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	value := make([]byte, 64<<10)
	for i := 0; ; i++ {
		if _, err = s.Put(t.Context(), fmt.Sprintf("k/%d", i), value, false, Always()); err != nil {
			break
		}
		if i > 100 {
			t.Fatal("it takes more than it has room for")
		}
	}
	if !errors.Is(err, ErrFull) {
		t.Fatalf("without room: %v", err)
	}
	if list, err := s.(Cluster).Members(t.Context()); err != nil || !list[0].Full || !s.(OwnCluster).Full() {
		t.Errorf("without room the member is %+v, %v", list, err)
	}
	list, _, err := s.List(t.Context(), "k/")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if err := s.Delete(t.Context(), e.Key, Always()); err != nil {
			t.Fatal(err)
		}
	}
	put(t, s, "k/again", "there is room")
	eventually(t, func() string {
		if list, err := s.(Cluster).Members(t.Context()); err != nil || list[0].Full || s.(OwnCluster).Full() {
			return fmt.Sprintf("with room the member is %+v, %v", list, err)
		}
		return ""
	})
}

// TestOutsideWithTLS: a cluster that wants certificates and a user's password.
func TestOutsideWithTLS(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	for _, who := range []string{"right", "wrong"} {
		public, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
			IsCA: true, BasicConstraintsValid: true,
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
		if err != nil {
			t.Fatal(err)
		}
		key, err := x509.MarshalPKCS8PrivateKey(private)
		if err != nil {
			t.Fatal(err)
		}
		for name, block := range map[string]*pem.Block{who + ".pem": {Type: "CERTIFICATE", Bytes: der}, who + ".key": {Type: "PRIVATE KEY", Bytes: key}} {
			if err := os.WriteFile(file(name), pem.EncodeToMemory(block), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	client, peer := free(t), free(t)
	client.Scheme = "https"
	c := embed.NewConfig()
	c.Dir = t.TempDir()
	c.ListenClientUrls, c.AdvertiseClientUrls, c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{client}, []url.URL{client}, []url.URL{peer}, []url.URL{peer}
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.TickMs, c.ElectionMs = 50, 500
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(quiet())
	c.BcryptCost = 4 // the least there is
	c.ClientTLSInfo = transport.TLSInfo{CertFile: file("right.pem"), KeyFile: file("right.key"), TrustedCAFile: file("right.pem"), ClientCertAuth: true, MinVersion: tls.VersionTLS12}
	e, err := embed.StartEtcd(c)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	<-e.Server.ReadyNotify()

	right := tlsconf.Client{CAFile: file("right.pem"), CertFile: file("right.pem"), KeyFile: file("right.key")}
	dial := func(o DialOptions) (Store, error) {
		if o.Endpoints = []string{client.String()}; o.User == "" {
			o.Timeout = time.Second // those who are not let in wait so long
		}
		return Dial(t.Context(), o)
	}
	s, err := dial(DialOptions{TLS: right})
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "k", "v")
	list, err := s.(Cluster).Members(t.Context())
	if err != nil || len(list) != 1 || !list[0].Healthy || !list[0].Leader || list[0].Size == 0 {
		t.Errorf("members are %+v, %v", list, err)
	}
	auth := s.(*etcd).client
	if _, err := auth.UserAdd(t.Context(), "root", "secret"); err != nil {
		t.Fatal(err)
	}
	if _, err := auth.RoleAdd(t.Context(), "root"); err != nil {
		t.Fatal(err)
	}
	if _, err := auth.UserGrantRole(t.Context(), "root", "root"); err != nil {
		t.Fatal(err)
	}
	if _, err := auth.AuthEnable(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for want, o := range map[string]DialOptions{
		"check user and password": {TLS: right, User: "root", Password: "guessed"},
		"certificate":             {TLS: tlsconf.Client{CAFile: file("wrong.pem")}},
		"there is no certificate": {TLS: tlsconf.Client{CAFile: file("right.key")}},
	} {
		if s, err := dial(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, %v; want %s", s, err, want)
		}
	}
	if s, err = dial(DialOptions{TLS: right, User: "root", Password: "secret"}); err != nil {
		t.Fatal(err)
	}
	has(t, s, "k", "v")
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
