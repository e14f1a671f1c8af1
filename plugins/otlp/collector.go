package otlp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/metric"
	"github.com/creelhq/creel/tlsconf"
	"github.com/creelhq/creel/trace"
)

// Config is the collector's options.
type Config struct {
	GRPC                     Server        `name:"grpc" doc:"The gRPC server."`
	HTTP                     Server        `name:"http" doc:"The HTTP server: POST /v1/logs, /v1/metrics, /v1/traces, as protobuf or JSON."`
	MaxRequestSize           config.Size   `doc:"Bytes of one request, compressed and decompressed." default:"16MiB" min:"1KiB" max:"64MiB"`
	MaxRequestBytes          config.Size   `doc:"Bytes of all requests that are being read over HTTP at the same time; more are told to come again." default:"32MiB" min:"1KiB"`
	MaxConnections           int           `doc:"Connections from other machines that each server has at the same time. When there are more, one that has not yet sent a request that was let in makes room." default:"10000" min:"1"`
	MaxConnectionsPerAddress int           `doc:"Of these, those from one address, or one /64 of IPv6. Machines behind one proxy, or one NAT, have one address." default:"2000" min:"1"`
	Timeout                  time.Duration `doc:"How long a request waits for its records to be safe; then the client is told to send them again." default:"30s" min:"1ms"`
}

// Server is one of the collector's servers.
type Server struct {
	Enabled  bool           `doc:"Whether it serves." default:"true"`
	Endpoint string         `doc:"Address to listen on, host:port. By default 127.0.0.1:4317 for gRPC and 127.0.0.1:4318 for HTTP." optional:"true"`
	TLS      tlsconf.Server `doc:"Certificates."`
}

// Validate checks that a server is not open to the network by mistake.
func (s Server) Validate() error {
	if !s.Enabled || s.Endpoint == "" {
		return nil
	}
	return checkBind(s.Endpoint, s.TLS)
}

// Validate checks that there is something to do.
func (c Config) Validate() error {
	if !c.GRPC.Enabled && !c.HTTP.Enabled {
		return errors.New("serves neither gRPC nor HTTP; leave the collector out instead")
	}
	return nil
}

// farewell is how long requests under way may take when the collector is stopped.
const farewell = 5 * time.Second

type collector struct {
	Config
	host    creel.Host
	servers []*server
	reading atomic.Int64 // bytes of HTTP requests
	crowd   crowd

	requests, refused, turned *metric.Counter
}

// server is a listener and what serves on it until ctx is done.
type server struct {
	endpoint string
	protocol string
	tls      *tls.Config
	listener net.Listener
	serve    func(ctx context.Context, l net.Listener, t *tls.Config, out creel.Sink) error // t is nil for no TLS
}

// NewCollector binds the sockets; the collector accepts when it collects.
func NewCollector(c Config, h creel.Host) (creel.Collector, error) {
	col := &collector{
		Config: c, host: h,
		requests: h.Metrics.Counter("creel.otlp.requests", "Requests that were taken.", "{request}"),
		refused:  h.Metrics.Counter("creel.otlp.refused", "Requests that were refused: malformed, too large, no room, not authenticated.", "{request}"),
		turned:   h.Metrics.Counter("creel.otlp.turned_away", "Connections from other machines that were closed because there were too many, or because no request of theirs was let in within 30 s.", "{connection}"),
	}
	add := func(s Server, protocol, standard string, serve func(context.Context, net.Listener, *tls.Config, creel.Sink) error) error {
		if !s.Enabled {
			return nil
		}
		if s.Endpoint == "" {
			s.Endpoint = standard
		}
		t, err := s.TLS.Config(h.Identity, h.Log)
		if err != nil {
			return err
		}
		sv := &server{endpoint: s.Endpoint, protocol: protocol, tls: t, serve: serve}
		if err := col.listen(sv); err != nil {
			return err
		}
		col.servers = append(col.servers, sv)
		return nil
	}
	err := add(c.GRPC, creel.OTLPGRPC, "127.0.0.1:4317", col.serveGRPC)
	if err == nil {
		err = add(c.HTTP, creel.OTLPHTTP, "127.0.0.1:4318", col.serveHTTP)
	}
	if err != nil {
		return nil, errors.Join(err, col.Close())
	}
	return col, nil
}

func (c *collector) listen(s *server) error {
	l, err := c.host.Listen("tcp", s.endpoint, s.protocol)
	if err != nil {
		return err
	}
	s.listener = l
	return nil
}

// Close gives the sockets back.
func (c *collector) Close() error {
	for _, s := range c.servers {
		if s.listener != nil {
			s.listener.Close() // serving may have closed it already
		}
	}
	return nil
}

// Collect serves until ctx is done. Requests under way are answered.
func (c *collector) Collect(ctx context.Context, out creel.Sink) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, len(c.servers))
	for _, s := range c.servers {
		if s.listener == nil { // this is not the first time
			if err := c.listen(s); err != nil {
				ended <- err
				continue
			}
		}
		l := newDoor(s.listener, c.MaxConnections, c.MaxConnectionsPerAddress, c.turned)
		l.verifies = s.tls != nil && s.tls.ClientAuth >= tls.RequireAnyClientCert
		s.listener = nil
		t := s.tls
		if t != nil {
			t = t.Clone()
			t.NextProtos = []string{"h2", "http/1.1"}
		}
		go func() {
			err := s.serve(ctx, l, t, out)
			l.Close()
			cancel() // one does not serve without the other
			ended <- err
		}()
	}
	var errs []error
	for range c.servers {
		errs = append(errs, <-ended)
	}
	return errors.Join(errs...)
}

// Why a request is not taken. Each transport has its own way to say so.
var (
	errNoRoom  = errors.New("no room for more at the moment")
	errTimeout = errors.New("the records are not safe yet; send them again")
	errStopped = errors.New("the collector is about to stop; send them again")
)

// malformed is the error of a request that no repetition will mend; forbidden of one that its sender may not send.
type (
	malformed struct{ error }
	forbidden struct{ error }
)

// request is what one request says.
type request struct {
	signal creel.Signal
	body   []byte
	parse  func(creel.Signal, []byte, *creel.Memory) (*creel.Batch, error)
	id     string // as on the wire
	who    who
}

// follow starts the span of a request whose headers say, as W3C or B3 has it, that it belongs to a trace: if spans are made.
func (c *collector) follow(ctx context.Context, transport string, s creel.Signal, header func(key string) string) (context.Context, *trace.Span) {
	if !c.host.Tracer.Enabled() {
		return ctx, nil
	}
	from, ok := trace.Extract(header)
	if !ok {
		return ctx, nil
	}
	return c.host.Tracer.Start(trace.With(ctx, from), "receive", trace.Server, slog.String("transport", transport), slog.String("signal", s.String()))
}

// take gives a request's records to the pipeline and waits until they are safe.
func (c *collector) take(ctx context.Context, out creel.Sink, r request) error {
	b, err := r.parse(r.signal, r.body, c.host.Memory)
	if err != nil {
		return malformed{err}
	}
	id, records := parseID(r.id), b.Len()
	b.SetID(id)
	done := make(chan error, 1)
	b.OnDone(func(err error) { done <- err })
	asked := c.host.Admission
	if records == 0 {
		asked = nil
	}
	from := r.who.from
	if asked != nil {
		err = c.fence(b, from)
	}
	if asked != nil && err == nil {
		err = asked.Admit(r.who.caller, from, r.signal, records, b.Bytes())
	}
	switch {
	case err != nil || records == 0:
		creel.Settle(b, err)
	case !out.TrySend(b):
		creel.Settle(b, errNoRoom)
	}
	refused := err
	late := time.NewTimer(c.Timeout)
	defer late.Stop()
	select {
	case err = <-done:
	case <-ctx.Done():
		err = ctx.Err()
	case <-late.C:
		err = errTimeout
	}
	throttled := (*creel.Throttled)(nil)
	switch {
	case err == nil:
		if asked != nil {
			asked.Took(from, id, r.signal, records)
		}
		c.crowd.taken()
		return nil
	case errors.Is(err, creel.ErrAbandoned):
		return errStopped
	case creel.IsPermanent(err):
		return malformed{fmt.Errorf("the records were refused: %w", err)}
	case refused != nil && !errors.As(refused, &throttled):
		return forbidden{refused}
	}
	return err
}

// again returns what the client of a request that ended in err is told, and how long it is to wait before it sends it again:
// that is not in the text as well.
func (c *collector) again(err error) (text string, after time.Duration) {
	after = c.crowd.refused()
	if throttled := (*creel.Throttled)(nil); errors.As(err, &throttled) {
		err = throttled.Err
		if throttled.After > 0 {
			after = throttled.After
		}
	}
	return err.Error(), after
}
