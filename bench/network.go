//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/otlp"
)

// raw hands gRPC messages through as bytes.
type raw struct{}

func (raw) Name() string                                { return "proto" }
func (raw) Marshal(v any) (mem.BufferSlice, error)      { return v.(mem.BufferSlice), nil }
func (raw) Unmarshal(data mem.BufferSlice, v any) error { return nil }

// sink takes OTLP and forgets it, over HTTP and gRPC. It counts bytes, so that it costs little.
type sink struct {
	away       atomic.Bool // HTTP requests fail
	http, grpc string
	bytes      atomic.Int64
	httpServer *http.Server
	grpcServer *grpc.Server
}

func newSink() (*sink, error) {
	s := &sink{}
	h, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	g, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, h.Close())
	}
	s.http, s.grpc = h.Addr().String(), g.Addr().String()
	s.httpServer = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.away.Load() {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		n, err := io.Copy(io.Discard, r.Body)
		if err == nil {
			s.bytes.Add(n)
			w.Header().Set("Content-Type", "application/x-protobuf")
		}
	})}
	s.grpcServer = grpc.NewServer(grpc.ForceServerCodecV2(raw{}), grpc.MaxRecvMsgSize(64<<20), grpc.InitialWindowSize(8<<20),
		grpc.InitialConnWindowSize(16<<20), grpc.ReadBufferSize(256<<10), grpc.WriteBufferSize(256<<10),
		grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
			var in any
			if err := stream.RecvMsg(&in); err != nil {
				return err
			}
			s.bytes.Add(1)
			return stream.SendMsg(mem.BufferSlice{})
		}))
	go s.httpServer.Serve(h)
	go s.grpcServer.Serve(g)
	return s, nil
}

func (s *sink) close() {
	s.httpServer.Close()
	s.grpcServer.Stop()
}

func (s *sink) endpoint(protocol string) string {
	if protocol == "grpc" {
		return "http://" + s.grpc
	}
	return "http://" + s.http
}

// perRequest is how many records a client sends at once.
const perRequest = 1000

// request returns an export request of perRequest records of about 350 bytes.
func request(signal creel.Signal) []byte {
	o := &creel.Origin{Resource: creel.Resource{Attrs: creel.Attrs{{Key: "service.name", Value: creel.String("shop")}, {Key: "host.name", Value: creel.String("node-17")}}}, Scope: creel.Scope{Name: "bench"}}
	attrs := func(i int) creel.Attrs {
		as := creel.Attrs{{Key: "http.request.method", Value: creel.String("GET")}, {Key: "url.path", Value: creel.String("/api/v1/things")}, {Key: "http.response.status_code", Value: creel.Int(200)}, {Key: "n", Value: creel.Int(int64(i))}}
		return append(as, creel.Attr{Key: "user_agent.original", Value: creel.String("Mozilla/5.0 (X11; Linux x86_64)")})
	}
	at := time.Now().UnixNano()
	switch signal {
	case creel.Logs:
		logs := make([]creel.Log, perRequest)
		for i := range logs {
			logs[i] = creel.Log{Origin: o, Time: at, Observed: at, Severity: creel.SeverityInfo, Body: creel.String(strings.Repeat("a log line ", 14)), Attrs: attrs(i)}
		}
		return otlp.Append(nil, creel.NewLogs(logs))
	case creel.Metrics:
		d := &creel.Descriptor{Name: "http.server.requests", Unit: "{request}", Kind: creel.Sum, Temporality: creel.Cumulative, Monotonic: true}
		points := make([]creel.Metric, perRequest)
		for i := range points {
			points[i] = creel.Metric{Origin: o, Desc: d, Start: at, Time: at, Value: creel.Int(int64(i)), Attrs: attrs(i)}
		}
		return otlp.Append(nil, creel.NewMetrics(points))
	}
	spans := make([]creel.Span, perRequest)
	for i := range spans {
		spans[i] = creel.Span{Origin: o, TraceID: creel.TraceID{byte(i), 1}, SpanID: creel.SpanID{byte(i), 2}, Name: "GET /api/v1/things", Kind: creel.SpanServer, Start: at, End: at + 1e6, Attrs: attrs(i)}
	}
	return otlp.Append(nil, creel.NewSpans(spans))
}

// load sends requests over eight connections or streams; each is answered before the next is sent on it.
func load(protocol, address string, signal creel.Signal, requests int) error {
	body := request(signal)
	send := func() error {
		resp, err := http.Post("http://"+address+"/v1/"+signal.String(), "application/x-protobuf", bytes.NewReader(body))
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode == http.StatusTooManyRequests {
			return errAgain
		}
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("answered %s", resp.Status)
		}
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}
	http.DefaultTransport.(*http.Transport).MaxIdleConnsPerHost = 16
	if protocol == "grpc" {
		conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodecV2(raw{})),
			grpc.WithInitialWindowSize(8<<20), grpc.WithInitialConnWindowSize(16<<20), grpc.WithReadBufferSize(256<<10), grpc.WithWriteBufferSize(256<<10))
		if err != nil {
			return err
		}
		defer conn.Close()
		service := map[creel.Signal]string{creel.Logs: "logs.v1.LogsService", creel.Metrics: "metrics.v1.MetricsService", creel.Traces: "trace.v1.TraceService"}[signal]
		send = func() error {
			var out any
			return conn.Invoke(context.Background(), "/opentelemetry.proto.collector."+service+"/Export", mem.BufferSlice{mem.SliceBuffer(body)}, &out)
		}
	}
	var left atomic.Int64
	left.Store(int64(requests))
	errs := make(chan error, 8)
	var wg sync.WaitGroup
	for range cap(errs) {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				err := send()
				for errors.Is(err, errAgain) {
					time.Sleep(time.Millisecond)
					err = send()
				}
				if err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}

var errAgain = errors.New("no room")
