package state

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// EmbeddedOptions configure an etcd within this process. Dir is required.
type EmbeddedOptions struct {
	Dir     string
	Log     *slog.Logger
	Timeout time.Duration // to start; 0: 30 s
}

// room is by how much the database can grow on a full disk: some 100 000 agents' worth.
const room = 32 << 20

// Embedded returns a Store in an etcd of its own, which listens nowhere but at a loopback port that its raft needs. One
// process at a time may use the directory. When what is there is damaged, the error says so, and the way out.
func Embedded(ctx context.Context, o EmbeddedOptions) (Store, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open control state: %w", err)
	}
	if err := verify(o.Dir); err != nil {
		return nil, damaged(o.Dir, err)
	}
	e, err := start(ctx, o)
	if err != nil {
		return nil, err
	}
	// etcd ends the process when it cannot write, and a hub must outlive a full disk. Its log reserves its room itself.
	if err := reserve(filepath.Join(o.Dir, "member", "snap", "db"), room); err != nil {
		o.Log.Warn("no room can be reserved for the control state; should its disk become full the hub will end", "error", err)
	}
	return newEtcd(v3client.New(e.Server), e.Close), nil
}

// damaged says what to do about it.
func damaged(dir string, err error) error {
	return fmt.Errorf("open control state in %s: it is damaged: %w; move the directory away and start again: agents register themselves anew, only the history of their connections is lost", dir, err)
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

func start(ctx context.Context, o EmbeddedOptions) (e *embed.Etcd, err error) {
	peer, err := freePort()
	if err != nil {
		return nil, fmt.Errorf("open control state: %w", err)
	}
	c := embed.NewConfig()
	c.Name, c.Dir = "creel", o.Dir
	c.ListenPeerUrls, c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{peer}, nil, nil
	// A single member never calls itself, so that its advertised address need not be where it listens: it is kept in the
	// data, and the port may be another the next time.
	fixed := url.URL{Scheme: "http", Host: "127.0.0.1:2380"}
	c.AdvertisePeerUrls = []url.URL{fixed}
	c.InitialCluster = c.Name + "=" + fixed.String()
	c.AutoCompactionMode, c.AutoCompactionRetention = embed.CompactorModePeriodic, "1h"
	c.QuotaBackendBytes = 512 << 20
	c.MaxSnapFiles, c.MaxWalFiles, c.SnapshotCount = 2, 2, 5000
	c.TickMs, c.ElectionMs = 50, 500
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(bridge(o.Log))
	defer func() {
		if p := recover(); p != nil {
			err = damaged(o.Dir, fmt.Errorf("%v", p))
		}
	}()
	if e, err = embed.StartEtcd(c); err != nil {
		return nil, fmt.Errorf("start control state in %s: %w", o.Dir, err)
	}
	late := time.NewTimer(o.Timeout)
	defer late.Stop()
	select {
	case <-e.Server.ReadyNotify():
		return e, nil
	case err = <-e.Err():
	case <-ctx.Done():
		err = ctx.Err()
	case <-late.C:
		err = fmt.Errorf("it is not ready after %v", o.Timeout)
	}
	e.Close()
	return nil, fmt.Errorf("start control state in %s: %w", o.Dir, err)
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
