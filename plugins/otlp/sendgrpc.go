package otlp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/metric"
	codec "github.com/creelhq/creel/otlp"
)

// maxMessage is maxAnswer in gRPC: a number that no server has as its limit, so that an error about an answer's size differs
// from a server's about the request's.
const maxMessage = maxAnswer + 1

// maxAdded is how many headers a request has beside those that all have: authorization, the batch's name, and three of traces.
const maxAdded = 5

type grpcSender struct {
	ExporterConfig
	plain   bool
	token   *bearer
	header  []string // keys and values that each request has
	conn    *grpc.ClientConn
	wire    *wire
	sent    *metric.Counter
	buffers sync.Pool
}

// A wire is TLS that knows the connection which it has secured last.
type wire struct {
	credentials.TransportCredentials
	last *atomic.Pointer[net.Conn]
}

// ClientHandshake is for grpc-go.
func (w *wire) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	w.last.Store(&raw)
	return w.TransportCredentials.ClientHandshake(ctx, authority, raw)
}

// Clone is for grpc-go.
func (w *wire) Clone() credentials.TransportCredentials {
	return &wire{w.TransportCredentials.Clone(), w.last}
}

// cut ends the connection; the next request makes another.
func (w *wire) cut() {
	if conn := w.last.Load(); conn != nil {
		(*conn).Close()
	}
}

func newGRPCSender(c ExporterConfig, t target, secure *tls.Config, token *bearer, from string, sent *metric.Counter) (*grpcSender, error) {
	w := &wire{insecure.NewCredentials(), &atomic.Pointer[net.Conn]{}}
	if secure != nil {
		w.TransportCredentials = credentials.NewTLS(secure)
	}
	options := []grpc.CallOption{grpc.ForceCodecV2(rawCodec{}), grpc.MaxCallRecvMsgSize(maxMessage)}
	if c.Compression != "none" {
		options = append(options, grpc.UseCompressor(c.Compression))
	}
	conn, err := grpc.NewClient("passthrough:///"+t.address, grpc.WithTransportCredentials(w), grpc.WithDefaultCallOptions(options...),
		grpc.WithInitialWindowSize(streamWindow), grpc.WithInitialConnWindowSize(connectionWindow),
		grpc.WithReadBufferSize(ioBuffer), grpc.WithWriteBufferSize(ioBuffer), grpc.WithUserAgent("creel"),
		grpc.WithDisableRetry(), grpc.WithMaxHeaderListSize(maxHead), grpc.WithStatsHandler(answers{}), grpc.WithDisableServiceConfig(),
		grpc.WithConnectParams(grpc.ConnectParams{ // the pauses between exports are the pipeline's
			Backoff: backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second}, MinConnectTimeout: t.connect,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 20 * time.Second}),
	)
	if err != nil {
		return nil, fmt.Errorf("make gRPC client: %w", err)
	}
	s := &grpcSender{ExporterConfig: c, plain: t.plain, token: token, conn: conn, wire: w, sent: sent}
	if from != "" {
		s.header = append(s.header, headerSender, from)
	}
	for k, v := range c.Headers {
		s.header = append(s.header, k, v)
	}
	return s, nil
}

// Close closes the connection.
func (s *grpcSender) Close() error { return s.conn.Close() }

// message returns the batches as a request. grpc-go says when it has done with what was encoded.
func (s *grpcSender) message(batches []*creel.Batch) mem.BufferSlice {
	var m message
	m.encode(&s.buffers, batches)
	out := make(mem.BufferSlice, len(m.parts))
	for i, b := range m.encoded {
		if b == nil {
			out[i] = mem.SliceBuffer(m.parts[i])
		} else {
			out[i] = mem.NewBuffer(&b.bytes, b)
		}
	}
	s.sent.Add(uint64(m.size))
	return out
}

func (s *grpcSender) send(ctx context.Context, signal creel.Signal, batches []*creel.Batch) (codec.Result, error) {
	header := append(make([]string, 0, len(s.header)+2*maxAdded), s.header...)
	authorization, err := s.token.header(ctx)
	if err != nil {
		return codec.Result{}, err
	}
	for _, value := range authorization {
		header = append(header, "authorization", value)
	}
	if id := creel.RequestOf(ctx).ID; !id.IsZero() {
		header = append(header, headerBatchID, formatID(id))
	}
	s.propagate(ctx, func(key, value string) { header = append(header, key, value) })
	if len(header) > 0 {
		ctx = metadata.AppendToOutgoingContext(ctx, header...)
	}
	var answered atomic.Bool
	ctx = context.WithValue(ctx, answers{}, &answered)
	var answer []byte
	if err := s.conn.Invoke(ctx, methods[signal], s.message(batches), &answer); err != nil {
		if status.Code(err) == codes.Unauthenticated && s.token.stale(authorization) {
			s.wire.cut()
		}
		return s.failure(err, answered.Load())
	}
	r, err := codec.ParseResponse(answer)
	if err != nil { // the records are safe all the same
		return unreadable(err), nil
	}
	return r, nil
}

// answers finds out whether an error is an answer of the far side's. grpc-go uses the same codes for what it came upon
// itself: a stream that was reset, a proxy's page, an answer that is none.
type answers struct{}

// TagRPC is for grpc-go.
func (answers) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// HandleRPC notes that a gRPC status has come.
func (answers) HandleRPC(ctx context.Context, s stats.RPCStats) {
	if _, ok := s.(*stats.InTrailer); ok {
		ctx.Value(answers{}).(*atomic.Bool).Store(true)
	}
}

// TagConn is for grpc-go.
func (answers) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn is for grpc-go.
func (answers) HandleConn(context.Context, stats.ConnStats) {}

// failure makes a result or an error of what a call ended in; answered: the far side has said so. If it has not, nobody knows
// whether it took the request, which is sent again. But if it was too long an answer the request was taken: a server that
// refuses one sends no message.
func (s *grpcSender) failure(err error, answered bool) (codec.Result, error) {
	st := status.Convert(err)
	if st.Code() == codes.ResourceExhausted && strings.Contains(st.Message(), strconv.Itoa(maxMessage)) {
		return unreadable(errors.New("it is too long")), nil
	}
	if answered {
		return codec.Result{}, s.refusal(st)
	}
	lost := s.explain(fmt.Errorf("%s: %s", st.Code(), brief(st.Message())), s.Endpoint, s.plain)
	if st.Code() == codes.ResourceExhausted { // HTTP/2's ENHANCE_YOUR_CALM
		return codec.Result{}, &creel.Throttled{Err: lost}
	}
	return codec.Result{}, lost
}

// refusal makes an error of an answer: OTLP says which are worth another try. Missing rights can be given later, so they
// are too. RESOURCE_EXHAUSTED without RetryInfo means by the book that the request is too large for ever, but servers say
// it when they are overloaded: it is no reason to drop anything.
func (s *grpcSender) refusal(st *status.Status) error {
	var after time.Duration
	throttled := st.Code() == codes.ResourceExhausted
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			after, throttled = max(0, info.GetRetryDelay().AsDuration()), true
		}
	}
	refused := fmt.Errorf("send to %s: answered %s: %s", s.Endpoint, st.Code(), brief(st.Message()))
	switch st.Code() {
	case codes.Canceled, codes.DeadlineExceeded, codes.Aborted, codes.OutOfRange, codes.Unavailable, codes.DataLoss:
	case codes.Unauthenticated, codes.PermissionDenied:
		refused = fmt.Errorf("%w%s", refused, s.remedy())
	case codes.ResourceExhausted:
	default:
		return creel.Permanent(refused)
	}
	if throttled {
		return &creel.Throttled{Err: refused, After: after}
	}
	return refused
}
