package otlp_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/plugins/otlp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open opens a component of a plugin with options written in YAML.
func open(t testing.TB, p creel.Plugin, options string, h creel.Host) any {
	t.Helper()
	n, err := config.Parse("test.yaml", []byte(options), config.Env{})
	if err != nil {
		t.Fatal(err)
	}
	canonical, errs := p.Config.Check(n)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	c, err := p.Open(canonical, h)
	if err != nil {
		t.Fatal(err)
	}
	if closer, ok := c.(io.Closer); ok {
		t.Cleanup(func() { closer.Close() })
	}
	return c
}

// sockets hands out sockets of ports that are free, and remembers them.
type sockets struct {
	mu        sync.Mutex
	addresses []string
}

func (s *sockets) Listen(network, address, _ string) (net.Listener, error) {
	l, err := net.Listen(network, "127.0.0.1:0")
	if err == nil {
		s.mu.Lock()
		s.addresses = append(s.addresses, l.Addr().String())
		s.mu.Unlock()
	}
	return l, err
}

// sink settles what it gets as settle says; nil takes nothing.
type sink struct {
	mu      sync.Mutex
	batches []string // as text
	settle  func() (taken bool, err error)
}

func (s *sink) Send(ctx context.Context, b *creel.Batch) error {
	panic("BUG: a receiver must not wait for room")
}

func (s *sink) TrySend(b *creel.Batch) bool {
	taken, err := s.settle()
	if !taken {
		return false
	}
	s.mu.Lock()
	switch b.Signal() {
	case creel.Logs:
		for _, l := range b.Logs() {
			s.batches = append(s.batches, "log "+l.Body.String())
		}
	case creel.Metrics:
		for _, m := range b.Metrics() {
			s.batches = append(s.batches, "metric "+m.Desc.Name+" "+m.Value.String())
		}
	case creel.Traces:
		for _, sp := range b.Spans() {
			s.batches = append(s.batches, "span "+sp.Name+" "+sp.TraceID.String())
		}
	}
	s.mu.Unlock()
	go creel.Settle(b, err)
	return true
}

func (s *sink) got() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := strings.Join(s.batches, ", ")
	s.batches = nil
	return text
}

// serve runs a collector until the test ends, and returns its gRPC and HTTP addresses.
func serve(t *testing.T, options string, out creel.Sink) (grpcAddress, httpAddress string) {
	t.Helper()
	return serveOn(t, options, creel.Host{}, out)
}

// serveOn is serve on h, but for sockets and memory.
func serveOn(t testing.TB, options string, h creel.Host, out creel.Sink) (grpcAddress, httpAddress string) {
	t.Helper()
	var socks sockets
	var memory creel.Memory
	memory.Poison = true
	h.Sockets, h.Memory = &socks, &memory
	c := open(t, otlp.Collector, options, h).(creel.Collector)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Collect(ctx, out) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if n := memory.Out(); n != 0 {
			t.Errorf("%d batches are not settled", n)
		}
	})
	return socks.addresses[0], socks.addresses[1]
}

func takeAll() (bool, error) { return true, nil }

func batches() []*creel.Batch {
	o := &creel.Origin{Resource: creel.Resource{Attrs: creel.Attrs{{Key: "host.name", Value: creel.String("h")}}}}
	d := &creel.Descriptor{Name: "m", Kind: creel.Gauge}
	return []*creel.Batch{
		creel.NewLogs([]creel.Log{{Origin: o, Body: creel.String("hello")}}),
		creel.NewMetrics([]creel.Metric{{Origin: o, Desc: d, Value: creel.Int(7)}}),
		creel.NewSpans([]creel.Span{{Origin: o, Name: "s", TraceID: creel.TraceID{1}, SpanID: creel.SpanID{2}}}),
	}
}

// TestExporterToCollector sends every signal through every transport, compression and encoding.
func TestExporterToCollector(t *testing.T) {
	out := &sink{settle: takeAll}
	grpcAddress, httpAddress := serve(t, "", out)
	for _, transport := range []string{
		"protocol: grpc, endpoint: 'http://" + grpcAddress + "'",
		"protocol: http, endpoint: 'http://" + httpAddress + "'",
		"protocol: http, encoding: json, endpoint: 'http://" + httpAddress + "/'",
		"protocol: http, endpoint: '" + httpAddress + "', tls: {insecure: true}",
	} {
		for _, compression := range []string{"none", "gzip", "zstd"} {
			x := open(t, otlp.Exporter, "{"+transport+", compression: "+compression+"}", creel.Host{}).(creel.Exporter)
			for _, b := range batches() {
				if err := x.Export(t.Context(), []*creel.Batch{b}); err != nil {
					t.Errorf("%s, %s: %v", transport, compression, err)
				}
			}
			if want, got := "log hello, metric m 7, span s 01000000000000000000000000000000", out.got(); got != want {
				t.Errorf("%s, %s: got %s", transport, compression, got)
			}
		}
	}
}

// TestCollectorAnswers: each outcome has its answer, in the request's encoding.
func TestCollectorAnswers(t *testing.T) {
	logs := plog.NewLogs()
	logs.ResourceLogs().AppendEmpty().ScopeLogs().AppendEmpty().LogRecords().AppendEmpty().Body().SetStr("x")
	request := plogotlp.NewExportRequestFromLogs(logs)
	proto, err := request.MarshalProto()
	if err != nil {
		t.Fatal(err)
	}
	jsonText, err := request.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	var outcome func() (bool, error)
	out := &sink{settle: func() (bool, error) { return outcome() }}
	grpcAddress, httpAddress := serve(t, "{max_request_size: 64KiB, timeout: 50ms}", out)
	conn, err := grpc.NewClient(grpcAddress, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	never := func() (bool, error) { return true, errors.New("not yet") }
	for _, c := range []struct {
		name    string
		outcome func() (bool, error)
		http    int
		retry   bool
		grpc    codes.Code
	}{
		{"delivered", takeAll, 200, false, codes.OK},
		{"no room", func() (bool, error) { return false, nil }, 429, true, codes.Unavailable},
		{"refused", func() (bool, error) { return true, creel.Permanent(errors.New("no")) }, 400, false, codes.InvalidArgument},
		{"abandoned", func() (bool, error) { return true, creel.ErrAbandoned }, 503, true, codes.Unavailable},
		{"failed", never, 503, true, codes.Unavailable},
	} {
		outcome = c.outcome
		for kind, body := range map[string][]byte{"application/x-protobuf": proto, "application/json": jsonText} {
			resp, err := http.Post("http://"+httpAddress+"/v1/logs", kind+"; charset=utf-8", bytes.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != c.http || resp.Header.Get("Content-Type") != kind || (resp.Header.Get("Retry-After") != "") != c.retry {
				t.Errorf("%s, %s: answered %s %v", c.name, kind, resp.Status, resp.Header)
			}
		}
		_, err := plogotlp.NewGRPCClient(conn).Export(t.Context(), request)
		if st := status.Convert(err); st.Code() != c.grpc || (len(st.Details()) > 0) != (c.grpc == codes.Unavailable) {
			t.Errorf("%s: gRPC answers %v", c.name, err)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

// TestCollectorRefuses: garbage, wrong methods, types and encodings, and what is too large, before and after decompression.
func TestCollectorRefuses(t *testing.T) {
	out := &sink{settle: takeAll}
	grpcAddress, httpAddress := serve(t, "max_request_size: 64KiB", out)
	zip := func(b []byte) []byte {
		var buf bytes.Buffer
		w := gzip.NewWriter(&buf)
		if _, err := w.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return buf.Bytes()
	}
	big := make([]byte, 10<<20)
	for _, c := range []struct {
		name, method, path, kind, encoding string
		body                               []byte
		want                               int
	}{
		{"empty", "POST", "/v1/logs", "application/x-protobuf", "", nil, 200},
		{"get", "GET", "/v1/logs", "application/x-protobuf", "", nil, 405},
		{"path", "POST", "/v1/profiles", "application/x-protobuf", "", nil, 404},
		{"type", "POST", "/v1/logs", "text/plain", "", nil, 415},
		{"no type", "POST", "/v1/logs", "", "", nil, 415},
		{"garbage", "POST", "/v1/logs", "application/x-protobuf", "", []byte("garbage"), 400},
		{"garbage JSON", "POST", "/v1/metrics", "application/json", "", []byte("{garbage"), 400},
		{"encoding", "POST", "/v1/traces", "application/x-protobuf", "br", nil, 415},
		{"garbage gzip", "POST", "/v1/traces", "application/x-protobuf", "gzip", []byte("garbage"), 400},
		{"garbage zstd", "POST", "/v1/traces", "application/x-protobuf", "zstd", []byte("garbage"), 400},
		{"cut gzip", "POST", "/v1/logs", "application/x-protobuf", "gzip", zip(make([]byte, 100))[:20], 400},
		{"large", "POST", "/v1/logs", "application/x-protobuf", "", big, 413},
		{"bomb", "POST", "/v1/logs", "application/x-protobuf", "gzip", zip(big), 413},
	} {
		for _, chunked := range []bool{false, true} {
			body := io.Reader(bytes.NewReader(c.body))
			if chunked {
				body = io.MultiReader(body) // its length is not told
			}
			req, err := http.NewRequest(c.method, "http://"+httpAddress+c.path, body)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", c.kind)
			req.Header.Set("Content-Encoding", c.encoding)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				if c.want == 413 { // it was closed while we were still sending
					continue
				}
				t.Fatalf("%s: %v", c.name, err)
			}
			text, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode != c.want {
				t.Errorf("%s: answered %s %q", c.name, resp.Status, text)
			}
		}
	}
	http.DefaultClient.CloseIdleConnections()

	logs := plog.NewLogs()
	logs.ResourceLogs().AppendEmpty().ScopeLogs().AppendEmpty().LogRecords().AppendEmpty().Body().SetStr(strings.Repeat("x", 1<<20))
	for _, o := range [][]grpc.CallOption{nil, {grpc.UseCompressor("gzip")}, {grpc.UseCompressor("zstd")}} {
		conn, err := grpc.NewClient(grpcAddress, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		_, err = plogotlp.NewGRPCClient(conn).Export(t.Context(), plogotlp.NewExportRequestFromLogs(logs), o...)
		if st := status.Convert(err); st.Code() != codes.ResourceExhausted || len(st.Details()) > 0 {
			t.Errorf("too large over gRPC with %v: %v", o, err)
		}
		conn.Close()
	}

	for _, address := range []string{grpcAddress, httpAddress} { // and no HTTP at all
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(append([]byte("\x16\x03\x01 garbage \x00\r\n\r\n"), big[:1000]...)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, c); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Fatal(err)
		}
		c.Close()
	}
	if got := out.got(); got != "" {
		t.Errorf("something came through: %s", got)
	}
	x := open(t, otlp.Exporter, "{protocol: grpc, compression: none, endpoint: 'http://"+grpcAddress+"'}", creel.Host{}).(creel.Exporter)
	if err := x.Export(t.Context(), batches()[:1]); err != nil || out.got() != "log hello" {
		t.Errorf("afterwards: %v", err)
	}
}

// TestExporterUnderstandsAnswers: what is tried again, what is not, and what is asked for.
func TestExporterUnderstandsAnswers(t *testing.T) {
	var answer func(w http.ResponseWriter)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer(w) })}
	go s.Serve(l)
	defer s.Close()
	x := open(t, otlp.Exporter, fmt.Sprintf("{protocol: http, endpoint: 'http://%s'}", l.Addr()), creel.Host{}).(creel.Exporter)
	partial := plogotlp.NewExportResponse()
	partial.PartialSuccess().SetRejectedLogRecords(1)
	partial.PartialSuccess().SetErrorMessage("too old")
	partialProto, err := partial.MarshalProto()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		code  int
		after string
		body  []byte
		want  string
	}{
		{200, "", nil, "ok"}, {202, "", nil, "ok"}, {200, "", partialProto, "partial"}, {200, "", []byte("garbage"), "ok"},
		{429, "", nil, "after 0s"}, {429, "7", nil, "after 7s"}, {503, "", nil, "after 0s"}, {503, "0", nil, "after 0s"}, {502, "", nil, "retry"}, {502, "3", nil, "after 3s"}, {504, "", nil, "retry"},
		{401, "", nil, "retry"}, {403, "", nil, "retry"}, {407, "", nil, "retry"},
		{400, "", nil, "permanent"}, {404, "", nil, "permanent"}, {413, "", nil, "permanent"}, {500, "", nil, "permanent"}, {408, "", nil, "permanent"},
		// A login proxy or a captive portal answers for the far side, which has not seen the records: they are kept until it does.
		{300, "", nil, "retry"}, {301, "", nil, "retry"}, {302, "", []byte("<html>sign in"), "retry"}, {303, "", nil, "retry"}, {304, "", nil, "retry"},
		{307, "", nil, "retry"}, {308, "", nil, "retry"}, {302, "9", nil, "retry"}, {511, "", nil, "retry"},
	} {
		answer = func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/x-protobuf")
			if c.after != "" {
				w.Header().Set("Retry-After", c.after)
			}
			w.Header().Set("Location", "http://127.0.0.1:1/login?token=secret")
			w.WriteHeader(c.code)
			w.Write(c.body)
		}
		err := x.Export(t.Context(), batches()[:1])
		got := "retry"
		throttled, part := (*creel.Throttled)(nil), (*creel.Partial)(nil)
		switch {
		case err == nil:
			got = "ok"
		case errors.As(err, &part):
			got = "partial"
		case errors.As(err, &throttled):
			got = fmt.Sprintf("after %v", throttled.After)
		case creel.IsPermanent(err):
			got = "permanent"
		}
		if got != c.want {
			t.Errorf("%d is taken as %s: %v", c.code, got, err)
		}
		if c.code/100 == 3 && (!strings.Contains(err.Error(), "it leads to http://127.0.0.1:1: ") || strings.Contains(err.Error(), "secret")) {
			t.Errorf("%d says %v", c.code, err)
		}
	}
}

// answers is a gRPC server that answers what the test says.
type answers struct {
	plogotlp.UnimplementedGRPCServer
	err error
}

func (a *answers) Export(context.Context, plogotlp.ExportRequest) (plogotlp.ExportResponse, error) {
	return plogotlp.NewExportResponse(), a.err
}

func TestExporterUnderstandsGRPCCodes(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := &answers{}
	s := grpc.NewServer()
	plogotlp.RegisterGRPCServer(s, a)
	go s.Serve(l)
	defer s.Stop()
	x := open(t, otlp.Exporter, fmt.Sprintf("{endpoint: 'http://%s'}", l.Addr()), creel.Host{}).(creel.Exporter)
	again := map[codes.Code]bool{
		codes.Canceled: true, codes.DeadlineExceeded: true, codes.Aborted: true, codes.OutOfRange: true, codes.Unavailable: true, codes.DataLoss: true,
		codes.Unauthenticated: true, codes.PermissionDenied: true, codes.ResourceExhausted: true,
	}
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		a.err = status.Error(code, "on purpose")
		err := x.Export(t.Context(), batches()[:1])
		if err == nil || creel.IsPermanent(err) == again[code] {
			t.Errorf("%v is taken as %v", code, err)
		}
		if throttled := (*creel.Throttled)(nil); errors.As(err, &throttled) != (code == codes.ResourceExhausted) {
			t.Errorf("%v is taken as %v", code, err)
		}
	}
}

// TestExporterSaysWhatToDo: errors that users meet often.
func TestExporterSaysWhatToDo(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := l.Addr().String()
	l.Close()
	_, httpAddress := serve(t, "", &sink{settle: takeAll})
	for options, want := range map[string]string{
		"{protocol: http, endpoint: 'http://" + gone + "'}": "is the receiver running?",
		"{endpoint: 'http://" + gone + "'}":                 "is the receiver running?",
		"{protocol: http, endpoint: '" + httpAddress + "'}": "tls.insecure: true",
		"{protocol: grpc, endpoint: '" + httpAddress + "'}": "tls.insecure: true",
	} {
		x := open(t, otlp.Exporter, options, creel.Host{}).(creel.Exporter)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		err := x.Export(ctx, batches()[:1])
		cancel()
		if err == nil || creel.IsPermanent(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", options, err)
		}
	}
}

func TestWrongOptions(t *testing.T) {
	for _, c := range []struct {
		p             creel.Plugin
		options, want string
	}{
		{otlp.Collector, "grpc: {endpoint: '0.0.0.0:4317'}", "is not a loopback address and there is no certificate"},
		{otlp.Collector, "http: {endpoint: localhost}", "must be host:port"},
		{otlp.Collector, "{grpc: {enabled: false}, http: {enabled: false}}", "serves neither"},
		{otlp.Exporter, "endpoint: here", "must be host:port or a URL"},
		{otlp.Exporter, "endpoint: 'ftp://hub:1'", "must be host:port"},
		{otlp.Exporter, "endpoint: 'http://u:hunter2@hub:1'", "must be host:port"},
		{otlp.Exporter, "endpoint: 'http://u:hunter2@hub:%'", "must be host:port"},
		{otlp.Exporter, "endpoint: 'http://hub:1/x'", "must not have a path"},
		{otlp.Exporter, "{endpoint: 'hub:1', encoding: json}", "json goes over HTTP only"},
		{otlp.Exporter, "{endpoint: 'hub:1', headers: {'a b': x}}", "is no header's name"},
		{otlp.Exporter, `{endpoint: 'hub:1', headers: {authorization: "Bearer x\n"}}`, "the value of authorization must be printable ASCII"},
	} {
		n, err := config.Parse("test.yaml", []byte(c.options), config.Env{})
		if err != nil {
			t.Fatal(err)
		}
		if _, errs := c.p.Config.Check(n); len(errs) != 1 || !strings.Contains(errs[0].Error(), c.want) || strings.Contains(errs[0].Error(), "hunter2") {
			t.Errorf("%s: %v", c.options, errs)
		}
	}
}

// TestCollectorTakesPdata sends requests made by the official library, of each signal, over gRPC.
func TestCollectorTakesPdata(t *testing.T) {
	out := &sink{settle: takeAll}
	grpcAddress, _ := serve(t, "", out)
	conn, err := grpc.NewClient(grpcAddress, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	metrics := pmetric.NewMetrics()
	m := metrics.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	m.SetName("m")
	m.SetEmptyGauge().DataPoints().AppendEmpty().SetIntValue(7)
	traces := ptrace.NewTraces()
	span := traces.ResourceSpans().AppendEmpty().ScopeSpans().AppendEmpty().Spans().AppendEmpty()
	span.SetName("s")
	span.SetTraceID(pcommon.TraceID{1})
	if _, err := pmetricotlp.NewGRPCClient(conn).Export(t.Context(), pmetricotlp.NewExportRequestFromMetrics(metrics)); err != nil {
		t.Error(err)
	}
	if _, err := ptraceotlp.NewGRPCClient(conn).Export(t.Context(), ptraceotlp.NewExportRequestFromTraces(traces)); err != nil {
		t.Error(err)
	}
	if got := out.got(); got != "metric m 7, span s 01000000000000000000000000000000" {
		t.Errorf("got %s", got)
	}
}
