package otlp

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/creelhq/creel"
	codec "github.com/creelhq/creel/otlp"
)

// rawCodec hands gRPC messages through as bytes. A received message is copied once, out of grpc-go's recycled buffers
// into memory of its own, which the batch keeps.
type rawCodec struct{}

// Name says what the bytes are.
func (rawCodec) Name() string { return "proto" }

// Marshal takes a mem.BufferSlice, whose ownership it passes on.
func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return v.(mem.BufferSlice), nil
}

// Unmarshal fills a *[]byte.
func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	body := creel.NewBuffer(data.Len())
	data.CopyTo(body)
	*v.(*[]byte) = body
	return nil
}

// serveGRPC serves on l until ctx is done.
func (c *collector) serveGRPC(ctx context.Context, l net.Listener, t *tls.Config, out creel.Sink) error {
	s := grpc.NewServer(
		grpc.Creds(handshake{t}), grpc.InTapHandle(c.knock),
		grpc.ForceServerCodecV2(rawCodec{}), grpc.MaxRecvMsgSize(int(c.MaxRequestSize)),
		grpc.InitialWindowSize(streamWindow), grpc.InitialConnWindowSize(connectionWindow),
		grpc.ReadBufferSize(guestBuffer), grpc.WriteBufferSize(guestBuffer/2),
		grpc.MaxConcurrentStreams(128), grpc.ConnectionTimeout(10*time.Second), grpc.MaxHeaderListSize(64<<10),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Minute, Timeout: 20 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
	)
	for signal, method := range methods {
		service, name, _ := strings.Cut(method[1:], "/")
		s.RegisterService(&grpc.ServiceDesc{
			ServiceName: service, HandlerType: (*any)(nil),
			Methods: []grpc.MethodDesc{{MethodName: name, Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				return c.export(ctx, out, signal, decode)
			}}},
		}, c)
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		hard := time.AfterFunc(farewell, s.Stop)
		s.GracefulStop()
		hard.Stop()
	}()
	err := s.Serve(l)
	if ctx.Err() != nil {
		<-stopped
		return nil
	}
	return fmt.Errorf("serve gRPC: %w", err)
}

// export answers one call.
func (c *collector) export(ctx context.Context, out creel.Sink, s creel.Signal, decode func(any) error) (any, error) {
	in, ok := ctx.Value(callKey{}).(*call)
	if !ok {
		return nil, status.Error(codes.Internal, "BUG: a call has come in that was not looked at")
	}
	ctx, span := c.follow(ctx, "grpc", s, func(key string) string { return traceMetadata(ctx, key) })
	defer span.End()
	var body []byte
	if err := decode(&body); err != nil {
		c.refused.Inc()
		span.Fail(err)
		return nil, err
	}
	err := c.take(ctx, out, request{signal: s, body: body, parse: codec.Parse, id: in.said(headerBatchID), who: in.who})
	if err == nil {
		c.requests.Inc()
		return mem.BufferSlice{}, nil // full success is no bytes at all
	}
	c.refused.Inc()
	span.Fail(err)
	return nil, c.status(ctx, err)
}

// later is the status of a call that is to be made again. OTLP lets RESOURCE_EXHAUSTED with a RetryInfo be sent again as well;
// all clients know to do so with UNAVAILABLE.
func (c *collector) later(err error) error {
	text, after := c.again(err)
	st, detailErr := status.New(codes.Unavailable, text).WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
	if detailErr != nil {
		return status.Error(codes.Unavailable, err.Error())
	}
	return st.Err()
}

// traceMetadata returns what trace.Extract asks for.
func traceMetadata(ctx context.Context, key string) string {
	return strings.Join(metadata.ValueFromIncomingContext(ctx, key), ",")
}
