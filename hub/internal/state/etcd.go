package state

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/creelhq/creel/tlsconf"
)

const (
	root = "/creel/v1/" // what all keys begin with in etcd
	page = 1000         // entries asked for at once
)

// etcd is a Store on an etcd client.
type etcd struct {
	client *clientv3.Client
	leases pb.LeaseClient // the same etcd: its client does not tell when it has asked for what it is answered
	stop   func()         // what else is to be closed, after the client
	cancel context.CancelFunc
	ctx    context.Context

	mu    sync.Mutex
	lease *Lease // of now, or the one that comes
	once  sync.Once

	full chan struct{} // has one after a Put that there was no room for
}

// DialOptions say where an etcd cluster is.
type DialOptions struct {
	Endpoints      []string
	Timeout        time.Duration  // for the first answer; 0: 5 s
	TLS            tlsconf.Client // what endpoints that begin with https:// are trusted by and shown; CAFile is read once
	User, Password string         // empty: nobody's
}

// Dial returns a Store in an etcd cluster outside.
func Dial(ctx context.Context, o DialOptions) (Store, error) {
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Second
	}
	secure, err := o.secure()
	if err != nil {
		return nil, fmt.Errorf("connect to etcd at %s: %w", strings.Join(o.Endpoints, ", "), err)
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: o.Endpoints, DialTimeout: o.Timeout, DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 5 * time.Second,
		TLS: secure, Username: o.User, Password: o.Password, Logger: quiet(),
		DialOptions: []grpc.DialOption{
			grpc.WithChainUnaryInterceptor(failFast),
			// By itself gRPC would come to wait two minutes between attempts, and hubs that long for an etcd that is there again.
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff: backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second}, MinConnectTimeout: o.Timeout,
			}),
		},
	})
	if err != nil {
		return nil, fmt.Errorf("connect to etcd at %s: %w%s", strings.Join(o.Endpoints, ", "), err, o.hint(err))
	}
	s := newEtcd(client, pb.NewLeaseClient(client.ActiveConnection()), func() {})
	var trouble contact
	first, cancel := context.WithTimeout(context.WithValue(ctx, contact{}, &trouble), o.Timeout)
	defer cancel()
	if _, err := client.Get(first, root+"incarnation"); err != nil {
		if errors.Is(err, context.DeadlineExceeded) && trouble.err != nil {
			err = trouble.err
		}
		return nil, errors.Join(fmt.Errorf("reach etcd at %s: %w%s", strings.Join(o.Endpoints, ", "), err, o.hint(err)), s.Close())
	}
	return s, nil
}

// contact, in the context of the first call, is told why attempts fail.
type contact struct{ err error }

// failFast makes attempts of the first call fail when no member can be reached: etcd's client would have them wait in silence, tries
// again, and says at the end only that it took too long.
func failFast(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	first, _ := ctx.Value(contact{}).(*contact)
	if first == nil {
		return call(ctx, method, req, reply, cc, opts...)
	}
	err := call(ctx, method, req, reply, cc, append(opts, grpc.WaitForReady(false))...)
	if err != nil && ctx.Err() == nil {
		first.err = err
	}
	return err
}

// secure returns the client's side of TLS, nil if no endpoint has it.
func (o DialOptions) secure() (*tls.Config, error) {
	if !slices.ContainsFunc(o.Endpoints, func(e string) bool { return strings.HasPrefix(e, "https://") }) {
		if o.TLS != (tlsconf.Client{}) {
			return nil, errors.New("there are a certificate or authorities, but no endpoint begins with https://")
		}
		return nil, nil
	}
	ca := o.TLS.CAFile
	o.TLS.CAFile = "" // with it, tlsconf must know for which host: there are several
	t, err := o.TLS.Config("", nil, nil)
	if err != nil || ca == "" {
		return t, err
	}
	text, err := os.ReadFile(ca)
	if err != nil {
		return nil, fmt.Errorf("read the authorities to trust: %w", err)
	}
	if t.RootCAs = x509.NewCertPool(); !t.RootCAs.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("read the authorities to trust: there is no certificate in PEM in %s", ca)
	}
	return t, nil
}

// hint says what to do about an error of the first contact.
func (o DialOptions) hint(err error) string {
	switch {
	case errors.Is(err, rpctypes.ErrAuthFailed), errors.Is(err, rpctypes.ErrUserEmpty), errors.Is(err, rpctypes.ErrPermissionDenied):
		return "; it asks who comes: check user and password, and that the user may read and write all under " + root
	case strings.Contains(err.Error(), "certificate") || strings.Contains(err.Error(), "tls:"):
		return "; check the authorities that are trusted, and the certificate that is shown"
	}
	return "; is it running, and may this host reach it?"
}

func newEtcd(client *clientv3.Client, leases pb.LeaseClient, stop func()) *etcd {
	s := &etcd{client: client, leases: leases, stop: stop, lease: newLease(), full: make(chan struct{}, 1)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Get returns an entry.
func (s *etcd) Get(ctx context.Context, key string) (Entry, error) {
	resp, err := s.client.Get(ctx, root+key)
	if err != nil {
		return Entry{}, fmt.Errorf("get %s: %w", key, err)
	}
	if len(resp.Kvs) == 0 {
		return Entry{}, ErrNotFound
	}
	kv := resp.Kvs[0]
	return Entry{Key: key, Value: kv.Value, Revision: kv.ModRevision, Leased: kv.Lease != 0}, nil
}

// List asks page by page, all at the revision of the first.
func (s *etcd) List(ctx context.Context, prefixes ...string) ([]Entry, int64, error) {
	list, revision := []Entry{}, int64(0)
	for _, prefix := range prefixes {
		from, end := root+prefix, clientv3.GetPrefixRangeEnd(root+prefix)
		for more := true; more; {
			resp, err := s.client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(page), clientv3.WithRev(revision))
			if err != nil {
				return nil, 0, fmt.Errorf("list %s: %w", prefix, err)
			}
			if revision == 0 {
				revision = resp.Header.Revision
			}
			for _, kv := range resp.Kvs {
				list = append(list, Entry{Key: strings.TrimPrefix(string(kv.Key), root), Value: kv.Value, Revision: kv.ModRevision, Leased: kv.Lease != 0})
			}
			if more = resp.More; more {
				from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
			}
		}
	}
	return list, revision, nil
}

// compare is a Condition as etcd has it.
func (c Condition) compare(key string) []clientv3.Cmp {
	if c.Any {
		return nil
	}
	return []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(root+key), "=", c.Revision)}
}

// Put writes an entry.
func (s *etcd) Put(ctx context.Context, key string, value []byte, leased bool, c Condition) (int64, error) {
	var options []clientv3.OpOption
	var lease *Lease
	if leased {
		var err error
		if lease, err = s.granted(ctx); err != nil {
			return 0, fmt.Errorf("put %s: %w", key, err)
		}
		options = append(options, clientv3.WithLease(lease.id))
	}
	resp, err := s.client.Txn(ctx).If(c.compare(key)...).Then(clientv3.OpPut(root+key, string(value), options...)).Commit()
	switch {
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		s.lose(lease)
		return 0, fmt.Errorf("put %s: %w", key, err)
	case errors.Is(err, rpctypes.ErrNoSpace):
		select {
		case s.full <- struct{}{}:
		default:
		}
		return 0, fmt.Errorf("put %s: %w", key, ErrFull)
	case err != nil:
		return 0, fmt.Errorf("put %s: %w", key, err)
	case !resp.Succeeded:
		return 0, ErrConflict
	}
	return resp.Header.Revision, nil
}

// Delete removes an entry.
func (s *etcd) Delete(ctx context.Context, key string, c Condition) error {
	resp, err := s.client.Txn(ctx).If(c.compare(key)...).Then(clientv3.OpDelete(root + key)).Commit()
	if err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	if !resp.Succeeded {
		return ErrConflict
	}
	return nil
}

// Watch calls f with every change.
func (s *etcd) Watch(ctx context.Context, prefix string, after int64, f func(Entry) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	news := s.client.Watch(clientv3.WithRequireLeader(ctx), root+prefix, clientv3.WithPrefix(), clientv3.WithRev(after+1))
	for resp := range news {
		if errors.Is(resp.Err(), rpctypes.ErrCompacted) {
			return ErrCompacted
		}
		if err := resp.Err(); err != nil {
			return fmt.Errorf("watch %s: %w", prefix, err)
		}
		for i, e := range resp.Events { // those of a revision come together: nobody asks for fragments
			entry := Entry{Key: strings.TrimPrefix(string(e.Kv.Key), root), Revision: e.Kv.ModRevision, Leased: e.Kv.Lease != 0}
			entry.More = i+1 < len(resp.Events) && resp.Events[i+1].Kv.ModRevision == entry.Revision
			if e.Type == clientv3.EventTypePut {
				if entry.Value = e.Kv.Value; entry.Value == nil {
					entry.Value = []byte{}
				}
			}
			if err := f(entry); err != nil {
				return err
			}
		}
	}
	if s.ctx.Err() != nil {
		return errClosed
	}
	return ctx.Err()
}

// Close gives the lease back, so that what hangs on it goes at once.
func (s *etcd) Close() error {
	var err error
	s.once.Do(func() {
		s.mu.Lock()
		id := s.lease.id
		s.mu.Unlock()
		if id != clientv3.NoLease {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			_, _ = s.client.Revoke(ctx, id) // else it ends by itself
			cancel()
		}
		s.cancel()
		err = s.client.Close()
		s.stop()
	})
	if err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("close etcd client: %w", err)
	}
	return nil
}
