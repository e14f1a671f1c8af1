package otlp

import (
	"context"
	"crypto/tls"
	"fmt"
	"sync"
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
	"google.golang.org/grpc/status"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/metric"
	codec "github.com/creelhq/creel/otlp"
)

type grpcSender struct {
	ExporterConfig
	plain   bool
	conn    *grpc.ClientConn
	sent    *metric.Counter
	buffers sync.Pool
}

func newGRPCSender(c ExporterConfig, t target, secure *tls.Config, sent *metric.Counter) (*grpcSender, error) {
	creds := insecure.NewCredentials()
	if secure != nil {
		creds = credentials.NewTLS(secure)
	}
	options := []grpc.CallOption{grpc.ForceCodecV2(rawCodec{}), grpc.MaxCallRecvMsgSize(maxAnswer)}
	if c.Compression != "none" {
		options = append(options, grpc.UseCompressor(c.Compression))
	}
	conn, err := grpc.NewClient("passthrough:///"+t.address, grpc.WithTransportCredentials(creds), grpc.WithDefaultCallOptions(options...),
		grpc.WithInitialWindowSize(streamWindow), grpc.WithInitialConnWindowSize(connectionWindow),
		grpc.WithReadBufferSize(ioBuffer), grpc.WithWriteBufferSize(ioBuffer), grpc.WithUserAgent("creel"),
		grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(),
		grpc.WithConnectParams(grpc.ConnectParams{ // the pauses between exports are the pipeline's
			Backoff: backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second}, MinConnectTimeout: 10 * time.Second,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 20 * time.Second}),
	)
	if err != nil {
		return nil, fmt.Errorf("make gRPC client: %w", err)
	}
	return &grpcSender{ExporterConfig: c, plain: t.plain, conn: conn, sent: sent}, nil
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
	for k, v := range s.Headers {
		ctx = metadata.AppendToOutgoingContext(ctx, k, v)
	}
	var answer []byte
	if err := s.conn.Invoke(ctx, methods[signal], s.message(batches), &answer); err != nil {
		return codec.Result{}, s.refusal(err)
	}
	r, err := codec.ParseResponse(answer)
	if err != nil { // the records are safe all the same
		return codec.Result{Message: "its answer cannot be read: " + err.Error()}, nil
	}
	return r, nil
}

// refusal makes an error of an answer: OTLP says which are worth another try. Missing rights can be given later, so they
// are too. RESOURCE_EXHAUSTED without RetryInfo means by the book that the request is too large for ever, but servers say
// it when they are overloaded: it is no reason to drop anything.
func (s *grpcSender) refusal(err error) error {
	st := status.Convert(err)
	var after time.Duration
	throttled := st.Code() == codes.ResourceExhausted
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			after, throttled = max(0, info.GetRetryDelay().AsDuration()), true
		}
	}
	refused := explain(fmt.Errorf("answered %s: %s", st.Code(), st.Message()), s.Endpoint, s.plain)
	switch st.Code() {
	case codes.Canceled, codes.DeadlineExceeded, codes.Aborted, codes.OutOfRange, codes.Unavailable, codes.DataLoss:
	case codes.Unauthenticated, codes.PermissionDenied, codes.ResourceExhausted:
	default:
		return creel.Permanent(refused)
	}
	if throttled {
		return &creel.Throttled{Err: refused, After: after}
	}
	return refused
}
