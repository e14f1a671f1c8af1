//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/otlp"
	"github.com/creelhq/creel/report"
)

// raw hands gRPC messages through as bytes.
type raw struct{}

func (raw) Name() string                                { return "proto" }
func (raw) Marshal(v any) (mem.BufferSlice, error)      { return v.(mem.BufferSlice), nil }
func (raw) Unmarshal(data mem.BufferSlice, v any) error { return nil }

// sink takes OTLP and forgets it, over HTTP and gRPC. It counts bytes, so that it costs little.
type sink struct {
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

// process is an agent that runs on the first processor.
type process struct {
	cmd  *exec.Cmd
	data string
}

func (b *bench) start(config string) (*process, error) {
	dir, err := os.MkdirTemp(b.dir, "a")
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "c.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	p := &process{data: filepath.Join(dir, "d")}
	p.cmd = b.pinned("exec", b.agent, "-c", file, "--data", p.data)
	p.cmd.Stderr = nil // its log
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(p.data, "endpoints.json")); err == nil {
			return p, nil
		}
		if time.Now().After(deadline) {
			p.stop()
			return nil, errors.New("the agent does not start")
		}
	}
}

func (p *process) stop() {
	p.cmd.Process.Signal(syscall.SIGTERM)
	p.cmd.Wait() // how it ends does not matter any more
}

// delivered asks the agent how many records are safe; it is an error if any was dropped.
func (p *process) delivered() (int, error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", agent.AdminSocket(p.data))
	}}}
	resp, err := client.Get("http://agent/ledger")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	var l report.Ledger
	if err := json.NewDecoder(resp.Body).Decode(&l); err != nil {
		return 0, err
	}
	n := 0
	for _, pl := range l.Pipelines {
		for _, x := range pl.Exporters {
			n += int(x.Delivered)
			if len(x.Dropped) > 0 {
				return n, fmt.Errorf("records were dropped: %v", x.Dropped)
			}
		}
	}
	return n, nil
}

// usage reads what the agent has used so far.
func (p *process) usage() (cpu time.Duration, rss int64, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, 0, err
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+2:]))
	for _, f := range fields[11:13] { // utime and stime, in ticks of 10 ms
		ticks, err := strconv.Atoi(f)
		if err != nil {
			return 0, 0, err
		}
		cpu += time.Duration(ticks) * 10 * time.Millisecond
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, 0, err
	}
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	kib, err := strconv.ParseInt(strings.Fields(after)[0], 10, 64)
	return cpu, kib << 10, err
}

// until waits until n records are delivered.
func (p *process) until(n int) error {
	last, progress := 0, time.Now()
	for {
		got, err := p.delivered()
		switch {
		case err != nil:
			return err
		case got == n:
			return nil
		case got > n:
			return fmt.Errorf("%d records were delivered, more than the %d there are", got, n)
		case got > last:
			last, progress = got, time.Now()
		case time.Since(progress) > 30*time.Second:
			return fmt.Errorf("stuck at %d of %d records", got, n)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (p *process) figure(n int, began time.Time) (figure, error) {
	wall := time.Since(began)
	cpu, rss, err := p.usage()
	return figure{n, wall, cpu, rss}, err
}

func (b *bench) fromFile(protocol, compression string) (figure, error) {
	s, err := newSink()
	if err != nil {
		return figure{}, err
	}
	defer s.close()
	began := time.Now()
	p, err := b.start(fmt.Sprintf(`
collectors: {file: {include: [%s], start_at: beginning}}
exporters: {otlp: {endpoint: "%s", protocol: %s, compression: %s}}
pipelines: {p: {from: [file], to: [otlp]}}`, b.file, s.endpoint(protocol), protocol, compression))
	if err != nil {
		return figure{}, err
	}
	defer p.stop()
	if err := p.until(b.lines); err != nil {
		return figure{}, err
	}
	if s.bytes.Load() == 0 {
		return figure{}, errors.New("nothing came to the sink")
	}
	return p.figure(b.lines, began)
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

// relay sends b.lines records through an agent; through names a processor that looks at every record and keeps them all.
func (b *bench) relay(protocol, signalName, through string) (figure, error) {
	s, err := newSink()
	if err != nil {
		return figure{}, err
	}
	defer s.close()
	p, err := b.start(fmt.Sprintf(`
collectors: {otlp: {grpc: {endpoint: "127.0.0.1:0", enabled: %t}, http: {endpoint: "127.0.0.1:0", enabled: %t}}}
processors: {sample: {rate: 1}}
exporters: {otlp: {endpoint: "%s", protocol: %s, compression: none}}
pipelines: {p: {from: [otlp], through: [%s], to: [otlp]}}`, protocol == "grpc", protocol == "http", s.endpoint(protocol), protocol, through))
	if err != nil {
		return figure{}, err
	}
	defer p.stop()
	text, err := os.ReadFile(filepath.Join(p.data, "endpoints.json"))
	if err != nil {
		return figure{}, err
	}
	var e agent.Endpoints
	if err := json.Unmarshal(text, &e); err != nil {
		return figure{}, err
	}
	signal := map[string]creel.Signal{"logs": creel.Logs, "metrics": creel.Metrics, "traces": creel.Traces}[signalName]
	requests := b.lines / perRequest
	began := time.Now()
	if err := load(protocol, e.Listen[0].Address, signal, requests); err != nil {
		return figure{}, err
	}
	if err := p.until(requests * perRequest); err != nil {
		return figure{}, err
	}
	return p.figure(requests*perRequest, began)
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

// hostOnly watches an agent that measures its host every second and sends that on.
func (b *bench) hostOnly() (figure, error) {
	s, err := newSink()
	if err != nil {
		return figure{}, err
	}
	defer s.close()
	p, err := b.start(fmt.Sprintf(`
collectors: {host: {every: 1s}}
exporters: {otlp: {endpoint: "%s", compression: none}}
pipelines: {p: {from: [host], to: [otlp]}}`, s.endpoint("grpc")))
	if err != nil {
		return figure{}, err
	}
	defer p.stop()
	time.Sleep(time.Second) // its start is not measured
	before, _, err := p.usage()
	if err != nil {
		return figure{}, err
	}
	began := time.Now()
	time.Sleep(b.idle)
	f, err := p.figure(0, began)
	f.cpu -= before
	return f, err
}
