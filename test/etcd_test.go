package test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	mrand "math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/creelhq/creel/api"
)

// This file is the rig of the tests whose hubs keep their control state in an etcd outside: a process of its own, on a host of its own,
// which this test binary becomes when it is told to.

// etcdProcess is the variable that makes this binary an etcd. It holds an etcdConfig.
const etcdProcess = "CREEL_TEST_ETCD"

// An etcdConfig is what such an etcd is told. It is asked over TLS, by users with passwords: root, and hubs, who may read and write
// what is the hubs'.
type etcdConfig struct{ Dir, Address, Cert, Key string }

const (
	etcdDisk  = 64 << 20 // bytes that etcd's disk has
	etcdQuota = 4 << 20  // bytes that its database may have
	etcdWord  = "secret" // every user's password
)

// serveEtcd runs an etcd until it ends by itself, or is killed.
func serveEtcd(text string) {
	if err := runEtcd(text); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func runEtcd(text string) error {
	var o etcdConfig
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	wal.SegmentSizeBytes = 256 << 10 // of its log; some are reserved ahead
	c := embed.NewConfig()
	c.ClientTLSInfo.CertFile, c.ClientTLSInfo.KeyFile = o.Cert, o.Key
	c.BcryptCost = 4 // the least there is
	client, peer := url.URL{Scheme: "https", Host: o.Address}, url.URL{Scheme: "http", Host: "127.0.0.1:2380"}
	c.Dir, c.QuotaBackendBytes = o.Dir, etcdQuota
	c.ListenClientUrls, c.AdvertiseClientUrls, c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{client}, []url.URL{client}, []url.URL{peer}, []url.URL{peer}
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.TickMs, c.ElectionMs = 50, 500
	c.LogLevel, c.SnapshotCount = "warn", 200
	_, err := os.Stat(filepath.Join(o.Dir, "member"))
	fresh := errors.Is(err, os.ErrNotExist)
	e, err := embed.StartEtcd(c)
	if err != nil {
		return err
	}
	<-e.Server.ReadyNotify()
	if fresh {
		if err := askForUsers(v3client.New(e.Server)); err != nil {
			return err
		}
	}
	return <-e.Err()
}

// askForUsers has an etcd ask from now on who comes.
func askForUsers(c *clientv3.Client) error {
	ctx := context.Background()
	var errs []error
	did := func(_ any, err error) { errs = append(errs, err) }
	did(c.RoleAdd(ctx, "root"))
	did(c.UserAdd(ctx, "root", etcdWord))
	did(c.UserGrantRole(ctx, "root", "root"))
	did(c.RoleAdd(ctx, "hubs"))
	did(c.RoleGrantPermission(ctx, "hubs", "/creel/v1/", clientv3.GetPrefixRangeEnd("/creel/v1/"), clientv3.PermissionType(clientv3.PermReadWrite)))
	did(c.UserAdd(ctx, "hubs", etcdWord))
	did(c.UserGrantRole(ctx, "hubs", "hubs"))
	did(c.AuthEnable(ctx))
	return errors.Join(errs...)
}

// An etcd is such a process, and whoever looks after it.
type etcd struct {
	*host
	o       *open
	args    []string // that a hub finds it with
	env     []string // likewise
	process *process
	config  etcdConfig
	admin   *clientv3.Client
}

// newEtcd starts an etcd with a small disk of its own.
func newEtcd(o *open, h *host) *etcd {
	o.Helper()
	e := &etcd{host: h, o: o, config: etcdConfig{Dir: o.path("etcd"), Address: h.address + ":2379", Cert: o.path("etcd.pem"), Key: o.path("etcd.key")}}
	url := "https://" + e.config.Address
	e.args = []string{"--etcd", url, "--etcd-ca", e.config.Cert}
	e.env = []string{"CREEL_ETCD_USER=hubs", "CREEL_ETCD_PASSWORD=" + etcdWord}
	roots := selfSigned(o.T, net.ParseIP(h.address), e.config.Cert, e.config.Key)
	if err := os.Mkdir(e.config.Dir, 0o700); err != nil {
		o.Fatal(err)
	}
	if err := syscall.Mount("creel", e.config.Dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", etcdDisk)); err != nil {
		o.Skipf("this machine lets nobody mount a file system: %v", err)
	}
	o.Cleanup(func() {
		if err := syscall.Unmount(e.config.Dir, syscall.MNT_DETACH); err != nil {
			o.Error(err)
		}
	})
	e.start()
	eventually(o.T, "etcd answers", func() bool {
		var err error
		e.admin, err = clientv3.New(clientv3.Config{
			Endpoints: []string{url}, TLS: &tls.Config{RootCAs: roots}, Username: "root", Password: etcdWord, DialTimeout: time.Second, Logger: zap.NewNop(),
			DialOptions: []grpc.DialOption{grpc.WithContextDialer(func(_ context.Context, address string) (net.Conn, error) { return o.stranger.dial("tcp", address) })},
		})
		return err == nil
	})
	o.Cleanup(func() { e.admin.Close() })
	return e
}

// start starts it, and does not wait until it answers.
func (e *etcd) start() {
	e.o.Helper()
	config, err := json.Marshal(e.config)
	if err != nil {
		e.o.Fatal(err)
	}
	log, err := os.OpenFile(e.o.path("etcd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		e.o.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command("ip", "netns", "exec", e.name, os.Args[0])
	cmd.Env = append(os.Environ(), etcdProcess+"="+string(config))
	cmd.Stdout, cmd.Stderr = log, log
	p := &process{cmd, e.o.T, log.Name()}
	if err := p.Start(); err != nil {
		e.o.Fatal(err)
	}
	e.o.Cleanup(func() {
		p.kill()
		if e.o.Failed() && p == e.process {
			e.o.Logf("the log of etcd ends so:\n%s", p.tail())
		}
	})
	e.process = p
}

// do asks it for something as long as that fails.
func (e *etcd) do(what string, f func(ctx context.Context) error) {
	e.o.Helper()
	eventually(e.o.T, what, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		return f(ctx) == nil
	})
}

// selfSigned writes a certificate that is its own authority, and its key.
func selfSigned(t *testing.T, ip net.IP, cert, key string) *x509.CertPool {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IPAddresses: []net.IP{ip},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, public, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	public509 := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := errors.Join(os.WriteFile(cert, public509, 0o600), os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600)); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(public509)
	return roots
}

// away is for how long etcd is gone: sometimes hubs lose their leases.
func away(r *mrand.Rand) time.Duration {
	return 1500*time.Millisecond + time.Duration(r.Int64N(int64(3*time.Second)))
}

// TestEtcd: hubs whose control state lies in an etcd outside, which has one member, a small disk, TLS and users. It is killed,
// stopped, compacted under their watches, full, and without a disk. Hubs keep their agents, what these do goes on, changes are
// refused with what to do, and all is well again by itself. Nothing that was acknowledged is lost.
func TestEtcd(t *testing.T) {
	ownProcess(t)
	t.Parallel() // it waits more than it works, on a network of its own
	rounds := 1
	if *torture {
		rounds = 10
	}
	r, began := newRand(t), time.Now()
	f := newFleet(t, 2, 4, newEtcd)
	f.place()
	f.steady()
	t.Logf("all is well after %v", time.Since(began).Round(time.Millisecond))
	faults := map[string]func(*mrand.Rand){"kill": f.killEtcd, "stop": f.stopEtcd, "compact": f.compactEtcd, "full": f.fillEtcd, "disk": f.fillDisk}
	for round := range rounds {
		names := slices.Sorted(maps.Keys(faults))
		r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		for _, name := range names {
			began := time.Now()
			faults[name](r)
			over := time.Now()
			f.steady()
			f.wantNotes()
			if name != "compact" { // else a hub is away
				f.wantWork(began, over)
			}
			t.Logf("round %d, %s for %v: all is well %v later; at most %v without a probe", round+1, name, over.Sub(began).Round(time.Millisecond), time.Since(over).Round(time.Millisecond), f.seen.gap(began))
		}
	}
	for i := 1; i < probed; i += 2 {
		f.wantOne(i)
	}
	f.wantLines()
}

// change writes a document anew, and returns what the hub says.
func (f *fleet) change(hub *node, pad int) error {
	f.notes++
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second) // longer than a hub takes at most
	defer cancel()
	name := fmt.Sprintf("note%d", f.notes%4)
	_, err := hub.client.ApplyDocument(ctx, api.DocumentChange{Text: fmt.Sprintf("document: %s\nselector: site == \"nowhere\"\n# %d %s\npipelines: {}\n", name, f.notes, strings.Repeat("x", pad))})
	if err == nil {
		f.noted[name] = f.notes
	}
	return err
}

// wantWork wants that what many may do at a time went on meanwhile: it wants nothing of etcd.
func (f *fleet) wantWork(from, to time.Time) {
	f.Helper()
	for i := 0; i < probed; i += 2 {
		if !slices.ContainsFunc(f.seen.of(i), func(p probe) bool { return p.at.After(from.Add(interval)) && p.at.Before(to) }) {
			f.Errorf("p%d was not probed from %s to %s", i, from.Format(time.StampMilli), to.Format(time.StampMilli))
		}
	}
}

// during has a change asked for while there is a fault, which ends with end. It cannot be made before: it may wait, or be refused.
func (f *fleet) during(hub *node, r *mrand.Rand, end func()) {
	f.Helper()
	asked, began := make(chan error, 1), time.Now()
	go func() { asked <- f.change(hub, 0) }()
	time.Sleep(away(r)) // chance, not synchronisation
	var err error
	select {
	case err = <-asked:
		if err == nil {
			f.Error("a change is made though there is a fault: the test tests nothing")
		}
		end()
	default:
		end()
		err = <-asked
	}
	f.Logf("%s answers after %v: %v", hub.label, time.Since(began).Round(time.Millisecond), err)
	f.wantClear(err)
}

// wantClear wants a refusal to say what is the matter, and what to do.
func (f *fleet) wantClear(err error) {
	f.Helper()
	var refused *api.Error
	says := func(text string) bool { return strings.Contains(refused.Message, text) }
	if err != nil && (!errors.As(err, &refused) || refused.Code != "unavailable" || !says("the control state cannot do this now") && !says("it was done, but could not be noted")) {
		f.Errorf("a change is refused so: %v", err)
	}
}

// wantNotes wants every hub to have what was acknowledged.
func (f *fleet) wantNotes() {
	f.Helper()
	for _, n := range f.hubs {
		for name, number := range f.noted {
			eventually(f.T, fmt.Sprintf("%s has %s as it was written", n.label, name), func() bool {
				d, err := n.client.Document(context.Background(), name, api.DocumentQuery{})
				if err != nil {
					return false
				}
				_, rest, _ := strings.Cut(d.Text, "# ")
				text, _, _ := strings.Cut(rest, " ")
				k, err := strconv.Atoi(text)
				return err == nil && k >= number // what was not acknowledged may be there
			})
		}
	}
}

func (f *fleet) killEtcd(r *mrand.Rand) {
	f.etcd.process.kill()
	f.during(f.hubs[0], r, f.etcd.start)
}

func (f *fleet) stopEtcd(r *mrand.Rand) {
	if err := f.etcd.process.Process.Signal(syscall.SIGSTOP); err != nil {
		f.Fatal(err)
	}
	f.during(f.hubs[1], r, func() {
		if err := f.etcd.process.Process.Signal(syscall.SIGCONT); err != nil {
			f.Fatal(err)
		}
	})
}

// compactEtcd has changes made that a hub does not hear of, and that etcd does not know any more when the hub asks for them.
func (f *fleet) compactEtcd(*mrand.Rand) {
	f.hubs[1].cut(true)
	if err := f.change(f.hubs[0], 0); err != nil {
		f.Error(err)
	}
	var at int64
	f.etcd.do("compact", func(ctx context.Context) error {
		now, err := f.etcd.admin.Get(ctx, "/creel/v1/incarnation")
		if err == nil {
			at = now.Header.Revision
			_, err = f.etcd.admin.Compact(ctx, at)
		}
		return err
	})
	f.etcd.process.kill() // so that what is on its way to the hub does not come any more
	f.etcd.start()
	f.etcd.do("forget what was before", func(ctx context.Context) error {
		_, err := f.etcd.admin.Get(ctx, "/creel/v1/incarnation", clientv3.WithRev(at-1))
		if errors.Is(err, rpctypes.ErrCompacted) {
			return nil
		}
		return fmt.Errorf("what was before the compaction: %v", err)
	})
	f.hubs[1].cut(false)
}

// fillEtcd fills etcd's database up to its quota, until somebody makes room as etcd's own documentation says.
func (f *fleet) fillEtcd(r *mrand.Rand) {
	f.etcd.do("fill", func(ctx context.Context) error {
		for {
			if _, err := f.etcd.admin.Put(ctx, fmt.Sprintf("/other/%d", r.Int64()), strings.Repeat("x", 256<<10)); errors.Is(err, rpctypes.ErrNoSpace) {
				return nil
			} else if err != nil {
				return err
			}
		}
	})
	f.during(f.hubs[0], r, f.empty)
}

// empty makes room in etcd's database.
func (f *fleet) empty() {
	f.etcd.do("make room", func(ctx context.Context) error {
		gone, err := f.etcd.admin.Delete(ctx, "/other/", clientv3.WithPrefix())
		if err != nil {
			return err
		}
		if _, err := f.etcd.admin.Compact(ctx, gone.Header.Revision, clientv3.WithCompactPhysical()); err != nil && !errors.Is(err, rpctypes.ErrCompacted) {
			return err
		}
		if _, err := f.etcd.admin.Defragment(ctx, f.etcd.admin.Endpoints()[0]); err != nil {
			return err
		}
		_, err = f.etcd.admin.AlarmDisarm(ctx, &clientv3.AlarmMember{})
		return err
	})
}

// fillDisk fills etcd's disk, so that it ends when it cannot write. Somebody makes room, and starts it again.
func (f *fleet) fillDisk(r *mrand.Rand) {
	ballast, err := os.Create(filepath.Join(f.etcd.config.Dir, "ballast"))
	if err != nil {
		f.Fatal(err)
	}
	chunk := make([]byte, 64<<10)
	for err == nil {
		_, err = ballast.Write(chunk)
	}
	ballast.Close()
	if !errors.Is(err, syscall.ENOSPC) {
		f.Fatalf("fill the disk: %v", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- f.etcd.process.Wait() }()
	made, began := 0, time.Now()
	for err = f.change(f.hubs[0], 100<<10); err == nil; err = f.change(f.hubs[0], 100<<10) {
		made, began = made+1, time.Now()
	}
	f.Logf("%d changes are made, and the next is refused after %v: %v", made, time.Since(began).Round(time.Millisecond), err)
	f.wantClear(err)
	if err := <-ended; !strings.Contains(f.etcd.process.tail(), "no space left") {
		f.Errorf("etcd has ended, but not for want of room: %v\n%s", err, f.etcd.process.tail())
	}
	time.Sleep(away(r))
	if err := os.Remove(ballast.Name()); err != nil {
		f.Fatal(err)
	}
	f.etcd.start()
}
