package state

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"
	"go.etcd.io/etcd/server/v3/proxy/grpcproxy/adapter"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// EmbeddedOptions configure an etcd within this process. Dir is required.
type EmbeddedOptions struct {
	Dir     string
	Log     *slog.Logger
	Timeout time.Duration // to start; 0: 30 s, or of a member as long as ctx lets it wait for the others
	Quota   int64         // bytes that the database may have; 0: 512 MiB
	Member  *MemberOptions

	// Ended, which must not block, is told once at most why etcd has ended by itself: ErrRemoved if it was removed from its cluster. nil: nobody is.
	Ended func(error)
}

// MemberOptions make an embedded etcd a member of a cluster, or one that others can be added to. All are required but Cluster.
type MemberOptions struct {
	Name      string   // of the member: the hub's id
	Listen    string   // where the other members come in: an IP address and a port
	Advertise string   // where they find that: https://host:port
	Secret    *Secret  // who has it is a member
	TLS       string   // a directory for the certificates, which are made anew at each start
	Cluster   []string // what Advertise is of all members that there are, its own included; used if Dir is empty. nil: it is the first
}

const (
	room     = 32 << 20  // by how much the database can grow on a full disk: some 100 000 agents' worth
	quota    = 512 << 20 // bytes that the database may have
	learners = 16        // hubs that may be joining at once
)

// embedded is a Store in an etcd within, and an OwnCluster.
type embedded struct {
	*etcd
	server *embed.Etcd
	o      EmbeddedOptions
	peers  *http.Client // asks other members; nil: it is no member
	over   sync.WaitGroup
}

// Embedded returns a Store in an etcd of its own, which listens nowhere but at a loopback port that its raft needs, or, if it is
// a member, where its options say. One process at a time may use the directory. When what is there is damaged, the error says
// so, and the way out. A member that has just been added is one that counts when Embedded returns.
func Embedded(ctx context.Context, o EmbeddedOptions) (Store, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Timeout == 0 && o.Member == nil {
		o.Timeout = 30 * time.Second
	}
	if o.Quota == 0 {
		o.Quota = quota
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open control state: %w", err)
	}
	if err := verify(o.Dir); err != nil {
		return nil, o.damaged(err)
	}
	if o.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, o.Timeout, fmt.Errorf("it is not ready after %v", o.Timeout))
		defer cancel()
	}
	s := &embedded{o: o}
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	// etcd ends the process when it cannot write, and a hub must outlive a full disk. Its log reserves its room itself.
	if err := reserve(filepath.Join(o.Dir, "member", "snap", "db"), room); err != nil {
		o.Log.Warn("no room can be reserved for the control state; should its disk become full the hub will end", "error", err)
	}
	s.over.Go(s.tend)
	s.over.Go(s.mourn)
	return s, nil
}

// HasMember reports whether there is data of an embedded etcd in a directory.
func HasMember(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "member", "wal"))
	return err == nil
}

// Close ends etcd.
func (s *embedded) Close() error {
	err := s.etcd.Close()
	s.over.Wait()
	if s.peers != nil {
		s.peers.CloseIdleConnections()
	}
	return err
}

// mourn tells when etcd ends by itself.
func (s *embedded) mourn() {
	select {
	case <-s.ctx.Done():
	case <-s.server.Server.StopNotify():
		if s.ctx.Err() == nil && s.o.Ended != nil {
			s.o.Ended(s.why(s.ctx))
		}
	}
}

// damaged says what to do about it.
func (o *EmbeddedOptions) damaged(err error) error {
	if o.Member != nil {
		return fmt.Errorf("open control state in %s: it is damaged: %w; if this is one of several hubs, move the directory away and let the hub join the others again: creel token create --role hub, at one of them", o.Dir, err)
	}
	return fmt.Errorf("open control state in %s: it is damaged: %w; move the directory away and start again: agents register themselves anew, only the history of their connections is lost", o.Dir, err)
}

// verify reads what etcd would stumble over: it ends the process when it finds damage.
func verify(dir string) error {
	file := filepath.Join(dir, "member", "snap", "db")
	if _, err := os.Stat(file); err == nil {
		if err := verifyDB(file); err != nil {
			return err
		}
	}
	logs := filepath.Join(dir, "member", "wal")
	if _, err := os.Stat(logs); err != nil {
		return nil // it is new
	}
	snap, err := wal.ValidSnapshotEntries(quiet(), logs)
	if err != nil {
		return fmt.Errorf("read its log: %w", err)
	}
	from := &walpb.Snapshot{}
	if n := len(snap); n > 0 {
		from = snap[n-1]
	}
	if _, err := wal.Verify(quiet(), logs, from); err != nil {
		return fmt.Errorf("read its log: %w", err)
	}
	return nil
}

// verifyDB reads every page that is in use. Damaged ones make bbolt panic, or fault: in this goroutine that is an error.
func verifyDB(file string) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("read its database: %v", p)
		}
	}()
	db, err := bolt.Open(file, 0o600, &bolt.Options{ReadOnly: true, Timeout: time.Second})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return errors.New("another process has its database open")
	}
	if err != nil {
		return fmt.Errorf("read its database: %w", err)
	}
	defer db.Close()
	info, err := os.Stat(file)
	if err != nil {
		return fmt.Errorf("read its database: %w", err)
	}
	return db.View(func(tx *bolt.Tx) error {
		if tx.Size() > info.Size() {
			return fmt.Errorf("its database has %d bytes of %d", info.Size(), tx.Size())
		}
		return tx.ForEach(func(_ []byte, b *bolt.Bucket) error {
			return b.ForEach(func(_, _ []byte) error { return nil })
		})
	})
}

// start starts etcd, and waits until it can be used.
func (s *embedded) start(ctx context.Context) (err error) {
	c := embed.NewConfig()
	c.Dir = s.o.Dir
	c.ListenClientUrls, c.AdvertiseClientUrls = nil, nil
	c.AutoCompactionMode, c.AutoCompactionRetention = embed.CompactorModePeriodic, "1h"
	c.QuotaBackendBytes = s.o.Quota
	c.MaxSnapFiles, c.MaxWalFiles, c.SnapshotCount = 2, 2, 5000
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(bridge(s.o.Log))
	if s.o.Member == nil {
		err = alone(c)
	} else {
		err = s.member(c)
	}
	if err != nil {
		return fmt.Errorf("open control state: %w", err)
	}
	defer func() {
		if p := recover(); p != nil {
			err = s.o.damaged(fmt.Errorf("%v", p))
		}
	}()
	if s.server, err = embed.StartEtcd(c); err != nil {
		return fmt.Errorf("start control state in %s: %w%s", s.o.Dir, err, s.hint(err))
	}
	client := v3client.New(s.server.Server)
	client.KV = patient{client.KV}
	s.etcd = newEtcd(client, adapter.LeaseServerToLeaseClient(v3rpc.NewQuotaLeaseServer(s.server.Server)), s.server.Close)
	if err = s.ready(ctx); err == nil && s.o.Member != nil {
		err = s.settle(ctx)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("start control state in %s: %w", s.o.Dir, err), s.Close())
	}
	return nil
}

// alone configures an etcd that nobody else takes part in.
func alone(c *embed.Config) error {
	peer, err := freePort()
	if err != nil {
		return err
	}
	c.Name, c.ListenPeerUrls = "creel", []url.URL{peer}
	// A single member never calls itself, so that its advertised address need not be where it listens: it is kept in the
	// data, and the port may be another the next time.
	fixed := url.URL{Scheme: "http", Host: "127.0.0.1:2380"}
	c.AdvertisePeerUrls = []url.URL{fixed}
	c.InitialCluster = c.Name + "=" + fixed.String()
	c.TickMs, c.ElectionMs = 50, 500
	return nil
}

// ready waits until etcd has a quorum, and says now and then what it waits for.
func (s *embedded) ready(ctx context.Context) error {
	patience := time.NewTicker(10 * time.Second)
	defer patience.Stop()
	for {
		select {
		case <-s.server.Server.ReadyNotify():
			return nil
		case <-s.server.Server.StopNotify():
			return s.why(ctx)
		case err := <-s.server.Err():
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-patience.C:
			s.o.Log.Warn("waiting for other hubs: more than half of those that keep the control state must run and reach each other", "hubs", len(s.server.Server.Cluster().Members()))
		}
	}
}

func freePort() (url.URL, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return url.URL{}, err
	}
	defer l.Close()
	return url.URL{Scheme: "http", Host: l.Addr().String()}, nil
}

// quiet is a logger that keeps to itself, and panics where zap would end the process.
func quiet() *zap.Logger { return bridge(slog.New(slog.DiscardHandler)) }

// bridge passes etcd's warnings and errors on, each a level lower than etcd has it: what is an error to a cluster's member
// is as a rule none to a member that is alone, and what keeps it from working comes back as an error besides.
func bridge(log *slog.Logger) *zap.Logger {
	return zap.New(core{log: log.With("component", "etcd")}, zap.WithFatalHook(zapcore.WriteThenPanic))
}

type core struct {
	log    *slog.Logger
	fields []zapcore.Field
}

// Enabled reports whether etcd's records of a level are passed on.
func (c core) Enabled(l zapcore.Level) bool { return l >= zapcore.WarnLevel }

// With returns a core whose records carry fields.
func (c core) With(fields []zapcore.Field) zapcore.Core {
	return core{c.log, append(c.fields[:len(c.fields):len(c.fields)], fields...)}
}

// Check adds the core to those that write e.
func (c core) Check(e zapcore.Entry, to *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return to.AddCore(e, c)
	}
	return to
}

// Write passes a record on.
func (c core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	values := zapcore.NewMapObjectEncoder()
	for _, f := range append(c.fields[:len(c.fields):len(c.fields)], fields...) {
		f.AddTo(values)
	}
	level := slog.LevelInfo
	if e.Level > zapcore.ErrorLevel {
		level = slog.LevelError
	}
	args := make([]any, 0, 2*len(values.Fields))
	for k, v := range values.Fields {
		args = append(args, k, v)
	}
	c.log.Log(context.Background(), level, e.Message, args...)
	return nil
}

// Sync has nothing to do.
func (core) Sync() error { return nil }
