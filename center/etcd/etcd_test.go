package etcd

import (
	"context"
	"errors"
	"fmt"
	"github.com/creelhq/creel/center/centertest"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"google.golang.org/grpc"
)

// server is a real etcd in this process.
type server struct {
	t      testing.TB
	dir    string
	client url.URL
	peer   url.URL
	tls    *transport.TLSInfo // nil: it speaks none
	etcd   *embed.Etcd
	*clientv3.Client
}

// start starts an etcd in a directory, at an address if it has one already.
func start(t testing.TB, dir string, at *server) *server {
	t.Helper()
	s := &server{t: t, dir: dir, client: free(t), peer: free(t)}
	if at != nil {
		s.client, s.peer, s.tls = at.client, at.peer, at.tls
	}
	c := embed.NewConfig()
	own := clientv3.Config{Logger: zap.NewNop()}
	if s.tls != nil {
		s.client.Scheme = "https"
		c.ClientTLSInfo = *s.tls
		var err error
		if own.TLS, err = s.tls.ClientConfig(); err != nil {
			t.Fatal(err)
		}
	}
	own.Endpoints = []string{s.client.String()}
	c.Dir = dir
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{s.client}, []url.URL{s.client}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{s.peer}, []url.URL{s.peer}
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.TickMs, c.ElectionMs, c.UnsafeNoFsync, c.BcryptCost = 20, 200, true, 4
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	var err error
	if s.etcd, err = embed.StartEtcd(c); err != nil {
		t.Fatal(err)
	}
	<-s.etcd.Server.ReadyNotify()
	if s.Client, err = clientv3.New(own); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.stop)
	return s
}

func (s *server) stop() {
	if s.etcd != nil {
		_ = s.Client.Close() // what it was doing is over
		s.etcd.Close()
		s.etcd = nil
	}
}

// free returns an address below the ports that systems give to whoever connects: one of those could be taken until it is used.
func free(t testing.TB) url.URL {
	t.Helper()
	for {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20_000+rand.IntN(12_000)))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return url.URL{Scheme: "http", Host: l.Addr().String()}
	}
}

func (s *server) put(key, text string) int64 {
	s.t.Helper()
	resp, err := s.Put(context.Background(), key, text)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.Header.Revision
}

func (s *server) delete(key string, options ...clientv3.OpOption) {
	s.t.Helper()
	if _, err := s.Delete(context.Background(), key, options...); err != nil {
		s.t.Fatal(err)
	}
}

// comes waits for a document with the given text; others may come before.
func comes(t testing.TB, r *centertest.Rig, want string) {
	t.Helper()
	for late := time.After(centertest.Soon); ; {
		select {
		case s := <-r.Said:
			if d := s.Documents; len(d) == 1 && d[0].Name+"="+string(d[0].Text) == want {
				return
			}
		case <-late:
			t.Fatalf("the center never says %q", want)
		}
	}
}

func (s *server) options(more string) string {
	return fmt.Sprintf("{endpoints: [%q], %s}", s.client.String(), more)
}

func TestKey(t *testing.T) {
	s := start(t, t.TempDir(), nil)
	s.put("web.yaml", "a: 1")
	s.put("web.yaml.old", "not asked for")
	r := watch(t, s.options("key: web.yaml"), nil)
	r.Wants("web.yaml=a: 1")
	revision := s.put("web.yaml", "a: 2")
	if got := r.Wants("web.yaml=a: 2").Revision; got != fmt.Sprint(revision) {
		t.Errorf("the revision is %s, not %d", got, revision)
	}
	s.put("web.yaml", "a: 2")
	s.put("web.yaml.old", "still not")
	s.put("web.yaml", "")
	r.Troubled("document web.yaml of the center is empty")
	s.delete("web.yaml")
	r.Troubled("no document any more")
	s.put("web.yaml", "a: 3")
	r.Wants("web.yaml=a: 3")
	r.Well()
}

func TestPrefix(t *testing.T) {
	s := start(t, t.TempDir(), nil)
	r := watch(t, s.options("prefix: /web/, allow_empty: true"), nil)
	r.Wants("")
	s.put("/web/b", "b")
	r.Wants("/web/b=b")
	if _, err := s.Txn(t.Context()).Then(clientv3.OpPut("/web/a", "a"), clientv3.OpDelete("/web/b"), clientv3.OpPut("/web/c.json", "{}")).Commit(); err != nil {
		t.Fatal(err)
	}
	r.Wants("/web/a=a /web/c.json={}") // a transaction is one change
	s.put("/webs", "not asked for")
	s.delete("/web/", clientv3.WithPrefix())
	r.Wants("")
}

// TestCompacted: what was to be watched is forgotten between the list and the watch.
func TestCompacted(t *testing.T) {
	s := start(t, t.TempDir(), nil)
	s.put("k", "1")
	var happened atomic.Int32
	between := func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		err := call(ctx, method, req, reply, cc, opts...)
		if strings.HasSuffix(method, "/Range") && happened.Add(1) == 1 {
			s.put("k", "2")
			if _, err := s.Compact(ctx, s.put("k", "3")); err != nil {
				t.Error(err)
			}
		}
		return err
	}
	r := watch(t, s.options("key: k"), func(s *source) { s.dial = []grpc.DialOption{grpc.WithChainUnaryInterceptor(between)} })
	r.Wants("k=1")
	r.Wants("k=3")
	if n := happened.Load(); n != 2 {
		t.Errorf("it has listed %d times", n)
	}
	s.put("k", "4")
	r.Wants("k=4")
	select {
	case err := <-r.Health:
		t.Errorf("compaction is trouble: %v", err)
	default:
	}
}

// TestAway: an etcd that is away changes nothing.
func TestAway(t *testing.T) {
	s := start(t, t.TempDir(), nil)
	s.put("k", "1")
	r := watch(t, s.options("key: k"), nil)
	r.Wants("k=1")
	s.stop()
	r.Troubled("the connection is lost")
	r.Troubled("connection refused")
	s = start(t, s.dir, s)
	r.Well()
	r.Silent()
	s.put("k", "2")
	r.Wants("k=2")
}

// TestOlderRevision: the cluster was restored from a backup.
func TestOlderRevision(t *testing.T) {
	s := start(t, t.TempDir(), nil)
	s.put("k", "1")
	s.stop()
	backup := t.TempDir()
	if err := os.CopyFS(backup, os.DirFS(s.dir)); err != nil {
		t.Fatal(err)
	}
	s = start(t, s.dir, s)
	r := watch(t, s.options("key: k"), nil)
	r.Wants("k=1")
	seen := int64(0)
	for i := range 5 {
		seen = s.put("k", fmt.Sprint("new", i))
	}
	comes(t, r, "k=new4")
	s.stop()
	s = start(t, backup, s)
	r.Troubled(fmt.Sprintf("it says revision 2, and %d was seen already", seen))
	r.Silent()
	for s.put("k", "newest") < seen {
	}
	r.Well()
	comes(t, r, "k=newest")
}

// TestAnotherCluster: revisions of two clusters cannot be compared.
func TestAnotherCluster(t *testing.T) {
	s := start(t, t.TempDir(), nil)
	for range 5 {
		s.put("k", "1")
	}
	r := watch(t, s.options("key: k"), nil)
	r.Wants("k=1")
	s.stop()
	other := &server{client: s.client, peer: free(t)} // the cluster's ID is made from the peers' addresses
	other = start(t, t.TempDir(), other)
	r.Troubled("the center has no document any more")
	other.put("k", "other")
	r.Wants("k=other")
	r.Well()
}

func TestPassword(t *testing.T) {
	s := start(t, t.TempDir(), nil)
	s.put("k", "1")
	ctx := t.Context()
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := s.UserAdd(ctx, "root", "r00t")
	do(err)
	_, err = s.UserGrantRole(ctx, "root", "root")
	do(err)
	_, err = s.RoleAdd(ctx, "reader")
	do(err)
	_, err = s.RoleGrantPermission(ctx, "reader", "k", "", clientv3.PermissionType(clientv3.PermRead))
	do(err)
	_, err = s.UserAdd(ctx, "creel", "right")
	do(err)
	_, err = s.UserGrantRole(ctx, "creel", "reader")
	do(err)
	_, err = s.AuthEnable(ctx)
	do(err)
	watch(t, s.options("key: k, username: creel, password: right"), nil).Wants("k=1")
	watch(t, s.options("key: k, username: creel, password: wrong"), nil).Troubled("authentication failed, invalid user ID or password; check username")
	watch(t, s.options("key: other, username: creel, password: right"), nil).Troubled("permission denied; check username")
	watch(t, s.options("key: k"), nil).Troubled("user name is empty; check username")
}

func TestTooMuch(t *testing.T) {
	s := start(t, t.TempDir(), nil)
	s.put("k/a", "1")
	r := watch(t, s.options("prefix: k/"), nil)
	r.Wants("k/a=1")
	s.put("k/a", strings.Repeat("a", 1<<20+1))
	r.Troubled("document k/a has 1048577 bytes")
	r.Silent()
	s.put("k/a", "2")
	r.Wants("k/a=2")
}

func TestOptions(t *testing.T) {
	f := func(yaml, want string) {
		t.Helper()
		centertest.Refuses(t, Center, yaml, want)
	}
	f("{}", "give either key or prefix")
	f("{key: a, prefix: b}", "give either key or prefix")
	f("{key: a, endpoints: []}", "give at least one")
	f("{key: a, endpoints: ['https://a:2379', 'http://b:2379']}", "all http:// or all https://")
	f("{key: a, tls: {ca_file: a.pem}}", "these begin with http://")
	f("{key: a, endpoints: ['https://a:2379'], tls: {insecure: true}}", "begin with http:// are reached without TLS")
	f("{key: a, endpoints: ['https://a:2379'], tls: {identity: true}}", "not for etcd")
	f("{key: a, endpoints: ['https://a:2379'], tls: {cert_file: a.pem}}", "key_file")
	f("{key: a, endpoints: ['etcd:2379']}", "endpoints")
	f("{key: a, endpoints: ['unix://x']}", "must begin with http:// or https://")
	f("{key: a, username: u}", "go together")
}
