// Package etcd is the center etcd: documents are the values of a key, or of all keys with a prefix; instances of services are
// keys under leases.
//
// It lists at one revision and watches from the next one on, as etcd means it (https://etcd.io/docs/v3.6/learning/api/).
package etcd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	"github.com/creelhq/creel/center"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/tlsconf"
)

// Center is the center etcd.
var Center = center.New("etcd", "Keys in etcd: documents, and services under leases; a change is heard at once.", New, NewRegistry)

// Config says where what is to be watched is.
type Config struct {
	Endpoints []string `doc:"Where the members of the cluster are: http://host:port, or https://host:port for TLS." default:"http://127.0.0.1:2379"`
	Key       string   `doc:"The key whose value is the one document. Without key and prefix there are only services." optional:"true" example:"/creel/web.yaml"`
	Prefix    string   `doc:"What the keys of the documents begin with." optional:"true" example:"/creel/web/"`
	Services  string   `doc:"What the keys of services begin with: an instance is the JSON at services/SERVICE/ID, under a lease." default:"/creel/services"`
	Username  string   `doc:"Who is to read, if etcd wants to know." optional:"true"`
	Password  string   `doc:"The user's password. Without TLS it is sent in the clear." optional:"true" secret:"true" example:"${env:ETCD_PASSWORD}"`

	TLS tlsconf.Client `doc:"Certificates, for https."`
}

// Validate checks what no tag can.
func (c Config) Validate() error {
	if c.Key != "" && c.Prefix != "" {
		return config.FieldError("key", errors.New("give either key or prefix"))
	}
	if strings.Trim(c.Services, "/") == "" {
		return config.FieldError("services", errors.New("must not be empty: keys of services would be everywhere"))
	}
	if (c.Username == "") != (c.Password == "") {
		return config.FieldError("username", errors.New("username and password go together"))
	}
	if len(c.Endpoints) == 0 {
		return config.FieldError("endpoints", errors.New("give at least one, such as http://127.0.0.1:2379"))
	}
	for _, e := range c.Endpoints {
		u, err := url.Parse(e)
		switch {
		case err != nil || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.User != nil || u.RawQuery != "":
			return config.FieldError("endpoints", errors.New("must be addresses such as http://host:2379"))
		case u.Scheme != "http" && u.Scheme != "https":
			return config.FieldError("endpoints", fmt.Errorf("must begin with http:// or https://, and %s does not", e))
		case (u.Scheme == "https") != c.secure():
			return config.FieldError("endpoints", errors.New("must be all http:// or all https://"))
		}
	}
	switch {
	case c.TLS.Insecure:
		return config.FieldError("tls.insecure", errors.New("has no meaning here; endpoints that begin with http:// are reached without TLS"))
	case c.TLS.Identity:
		return config.FieldError("tls.identity", errors.New("is between this agent and its hub, not for etcd; set tls.cert_file and tls.key_file"))
	case c.TLS != (tlsconf.Client{}) && !c.secure():
		return config.FieldError("tls", errors.New("is for endpoints that begin with https://, and these begin with http://"))
	}
	return nil
}

// secure reports whether the members speak TLS.
func (c Config) secure() bool { return strings.HasPrefix(c.Endpoints[0], "https://") }

const (
	patience = 5 * time.Second                      // with one call
	answer   = center.MaxTotal + center.MaxTotal/10 // bytes of one: the documents and what is about them
	many     = int64(center.MaxDocuments) + 1       // keys asked for
	alive    = 10 * time.Second                     // after which a silent connection is asked whether it is there
)

// connection is how the cluster is reached.
type connection struct {
	Config
	log  *slog.Logger      // nil: none
	dial []grpc.DialOption // for tests
}

// connect returns a client that is of use until ctx is done.
func (c *connection) connect(ctx context.Context) (*clientv3.Client, error) {
	dial := append([]grpc.DialOption{grpc.WithChainUnaryInterceptor(failFast)}, c.dial...)
	if c.secure() {
		creds, err := newSecured(c.TLS, c.log)
		if err != nil {
			return nil, fmt.Errorf("tls: %w", err)
		}
		dial = append(dial, grpc.WithTransportCredentials(creds))
	}
	return clientv3.New(clientv3.Config{
		Endpoints: c.Endpoints, Username: c.Username, Password: c.Password, Context: ctx, Logger: zap.NewNop(),
		DialOptions: dial,
		DialTimeout: patience, DialKeepAliveTime: alive, DialKeepAliveTimeout: alive / 2, MaxUnaryRetries: 3, MaxCallRecvMsgSize: answer,
	})
}

type source struct {
	host    center.Host
	options []clientv3.OpOption // a prefix, or nothing
	connection

	cluster  uint64 // that was last believed
	revision int64  // the highest seen of it
}

// New returns the Source.
func New(c Config, h center.Host) (center.Source, error) {
	s := &source{host: h, connection: connection{Config: c, log: h.Log}}
	if c.Key == "" && c.Prefix == "" {
		return nil, config.FieldError("key", errors.New("give either key or prefix"))
	}
	if c.Prefix != "" {
		s.Key = c.Prefix
		s.options = []clientv3.OpOption{clientv3.WithPrefix()}
	}
	return s, nil
}

// Watch lists and watches, and begins anew whenever the connection was lost: only a list shows an etcd that was restored.
func (s *source) Watch(ctx context.Context, f func(center.Snapshot)) {
	f = center.Changes(f)
	center.Keep(ctx, s.host, func(worked func()) error { return s.session(ctx, worked, f) })
}

func (s *source) session(ctx context.Context, worked func(), f func(center.Snapshot)) error {
	client, err := s.connect(ctx)
	if err != nil {
		return s.explain(err)
	}
	defer client.Close() // an error would say that ctx is done
	pace := center.Pace{Every: time.Second, Burst: 5}
	for {
		if err := pace.Wait(ctx); err != nil {
			return err
		}
		docs, err := s.list(ctx, client)
		if err != nil {
			return s.explain(err)
		}
		worked()
		f(docs.snapshot(s.revision))
		if err := s.follow(ctx, client, docs, f); !errors.Is(err, rpctypes.ErrCompacted) {
			return s.explain(err)
		}
	}
}

// failFast makes calls fail, and say why, when no member can be reached: etcd's client would have them wait in silence.
func failFast(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	return call(ctx, method, req, reply, cc, append(opts, grpc.WaitForReady(false))...)
}

// explain says where, and what to do.
func (c *connection) explain(err error) error {
	hint := ""
	switch {
	case errors.Is(err, rpctypes.ErrAuthFailed), errors.Is(err, rpctypes.ErrPermissionDenied), errors.Is(err, rpctypes.ErrUserEmpty):
		hint = "; check username, password and what the user may read"
	case errors.Is(err, context.DeadlineExceeded):
		hint = "; is it running, and may this host reach it?"
	case c.secure() && strings.Contains(err.Error(), "handshake failed: EOF"): // etcd hangs up without a word
		hint = "; does it talk TLS? Write http:// if it does not"
	case !c.secure() && strings.Contains(err.Error(), "server preface: EOF"):
		hint = "; if it talks TLS, write https://"
	default:
		hint = tlsconf.Hint(err, "tls.ca_file", "tls.cert_file and tls.key_file")
	}
	return fmt.Errorf("use etcd at %s: %w%s", strings.Join(c.Endpoints, ", "), err, hint)
}

// documents are what is known, by key.
type documents map[string][]byte

func (d documents) list() []center.Document {
	list := make([]center.Document, 0, len(d))
	for key, text := range d {
		list = append(list, center.Document{Name: key, Text: text})
	}
	slices.SortFunc(list, func(a, b center.Document) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

func (d documents) snapshot(revision int64) center.Snapshot {
	return center.Snapshot{Revision: strconv.FormatInt(revision, 10), Documents: d.list()}
}

// list asks for everything, as a quorum of the cluster has it.
func (s *source) list(ctx context.Context, client *clientv3.Client) (documents, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	resp, err := client.Get(ctx, s.Key, append(s.options[:len(s.options):len(s.options)], clientv3.WithLimit(many))...)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", s.Key, err)
	}
	docs := make(documents, len(resp.Kvs))
	for _, kv := range resp.Kvs {
		docs[string(kv.Key)] = kv.Value
	}
	if err := center.Bound(docs.list()); err != nil {
		return nil, err
	}
	if cluster := resp.Header.ClusterId; cluster != s.cluster {
		if s.cluster != 0 {
			s.host.Log.Warn("this is another cluster than before, and is believed", "cluster", fmt.Sprintf("%x", cluster), "before", fmt.Sprintf("%x", s.cluster))
		}
		s.cluster, s.revision = cluster, 0
	}
	if resp.Header.Revision < s.revision {
		return nil, &olderError{resp.Header.Revision, s.revision}
	}
	s.revision = resp.Header.Revision
	return docs, nil
}

// olderError is not told apart by its numbers: their change is no news.
type olderError struct{ revision, seen int64 }

func (e *olderError) Error() string {
	return fmt.Sprintf("it says revision %d, and %d was seen already: it was probably restored from a backup. Nothing changes until it has passed that; "+
		"etcdutl snapshot restore --bump-revision avoids this, and an agent that is restarted believes it", e.revision, e.seen)
}

func (e *olderError) Unwrap() error { return errOlder }

var errOlder = errors.New("an older revision")

// whileConnected returns a context that is done when the connection is lost: the client would go on in silence, and trust
// whatever it reaches next.
func whileConnected(ctx context.Context, client *clientv3.Client) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		conn := client.ActiveConnection()
		for state := conn.GetState(); state == connectivity.Ready; state = conn.GetState() {
			if !conn.WaitForStateChange(ctx, state) {
				return
			}
		}
		cancel(errors.New("the connection is lost"))
	}()
	return ctx, cancel
}

// follow watches from the next revision on, until something is wrong.
func (s *source) follow(ctx context.Context, client *clientv3.Client, docs documents, f func(center.Snapshot)) error {
	ctx, cancel := whileConnected(ctx, client)
	defer cancel(nil)
	options := append(s.options[:len(s.options):len(s.options)], clientv3.WithRev(s.revision+1), clientv3.WithProgressNotify())
	for resp := range client.Watch(clientv3.WithRequireLeader(ctx), s.Key, options...) {
		if err := resp.Err(); err != nil {
			return fmt.Errorf("watch %s: %w", s.Key, cmp.Or(context.Cause(ctx), err))
		}
		if resp.Header.ClusterId != s.cluster {
			return errors.New("another cluster answers than before")
		}
		s.revision = max(s.revision, resp.Header.Revision) // the member that answers may be a little behind
		for _, e := range resp.Events {
			if e.Type == mvccpb.DELETE {
				delete(docs, string(e.Kv.Key))
			} else {
				docs[string(e.Kv.Key)] = e.Kv.Value
			}
		}
		if len(resp.Events) == 0 {
			continue
		}
		if err := center.Bound(docs.list()); err != nil {
			return err
		}
		f(docs.snapshot(s.revision))
	}
	return cmp.Or(context.Cause(ctx), errors.New("the watch has ended"))
}
