package otlp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"go.opentelemetry.io/collector/pdata/plog/plogotlp"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/plugins/otlp"
	"github.com/creelhq/creel/trace"
)

// traced runs a collector whose spans go to a channel.
func traced(t *testing.T, out creel.Sink) (grpcAddress, httpAddress string, spans chan trace.Data) {
	t.Helper()
	spans = make(chan trace.Data, 100)
	tr := trace.New(trace.Options{RemoteRate: 1000}).With(slog.String("component", "collectors.otlp"))
	tr.Subscribe(func(d trace.Data) { spans <- d })
	grpcAddress, httpAddress = serveOn(t, "", creel.Host{Tracer: tr}, out)
	return grpcAddress, httpAddress, spans
}

// TestTraceOverAHop: the span that an exporter sends in is the parent of the one that the collector receives in, over every
// transport, as far as the exporter says so.
func TestTraceOverAHop(t *testing.T) {
	s := &sink{settle: takeAll}
	grpcAddress, httpAddress, spans := traced(t, s)
	from := trace.Context{Trace: [16]byte{0xab, 15: 1}, Span: [8]byte{0xcd, 7: 2}, Sampled: true, State: "a=b,c=d"}
	for _, transport := range []string{"grpc", "http"} {
		endpoint := "{protocol: " + transport + ", endpoint: 'http://" + map[string]string{"grpc": grpcAddress, "http": httpAddress}[transport] + "'"
		send := func(ctx context.Context, options string) {
			t.Helper()
			x := open(t, otlp.Exporter, endpoint+options+"}", creel.Host{}).(creel.Exporter)
			if err := x.Export(ctx, batches()[:1]); err != nil {
				t.Fatal(err)
			}
			if got := s.got(); got != "log hello" {
				t.Fatalf("got %q", got)
			}
		}
		f := func(options, state string) {
			t.Helper()
			send(t.Context(), options)                                                                // no span
			send(trace.With(t.Context(), trace.Context{Trace: from.Trace, Span: from.Span}), options) // not sampled
			send(trace.With(t.Context(), from), ", propagate: []")                                    // not told
			send(trace.With(t.Context(), from), options)
			d := <-spans
			want := "[component=collectors.otlp transport=" + transport + " signal=logs]"
			if d.Trace != from.Trace || d.Parent != from.Span || !d.Remote || d.Name != "receive" || d.Kind != trace.Server || d.Failed || d.State != state || fmt.Sprint(d.Attrs) != want {
				t.Errorf("%s%s: the span is %+v", transport, options, d)
			}
			if len(spans) > 0 {
				t.Errorf("%s%s: and then %+v", transport, options, <-spans)
			}
		}
		f("", from.State)
		f(", propagate: [b3]", "")
		f(", propagate: [b3, w3c]", from.State)
	}
}

// TestTracesOfOthers: a request says in any of the ways there are which trace it belongs to; one that is refused is a span
// that failed.
func TestTracesOfOthers(t *testing.T) {
	refuse := false
	s := &sink{settle: func() (bool, error) {
		if refuse {
			return true, creel.Permanent(errors.New("not this"))
		}
		return true, nil
	}}
	grpcAddress, httpAddress, spans := traced(t, s)
	body, _ := logsRequest(t, "x").MarshalProto()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	conn, err := grpc.NewClient(grpcAddress, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	post := func(pairs []string) {
		req, err := http.NewRequest("POST", "http://"+httpAddress+"/v1/logs", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-protobuf")
		for pair := range slices.Chunk(pairs, 2) {
			req.Header.Add(pair[0], pair[1])
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if want := map[bool]int{false: 200, true: 400}[refuse]; resp.StatusCode != want {
			t.Fatalf("answered %s", resp.Status)
		}
	}
	call := func(pairs []string) {
		ctx := metadata.AppendToOutgoingContext(t.Context(), pairs...)
		if _, err := plogotlp.NewGRPCClient(conn).Export(ctx, logsRequest(t, "x")); (err != nil) != refuse {
			t.Fatal(err)
		}
	}
	const id, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	for transport, send := range map[string]func([]string){"http": post, "grpc": call} {
		f := func(pairs ...string) {
			t.Helper()
			send([]string{"traceparent", "00-" + id + "-" + span + "-01", "traceparent", "00-" + id + "-" + span + "-01"}) // none
			send([]string{"b3", "0"})
			send(pairs)
			d := <-spans
			if d.TraceID() != id || fmt.Sprintf("%x", d.Parent) != span || d.Failed != refuse || refuse != strings.Contains(d.Error, "not this") || len(spans) > 0 {
				t.Errorf("%s: of %q the span is %+v, and there are %d more", transport, pairs, d, len(spans))
			}
		}
		refuse = false
		f("traceparent", "00-"+id+"-"+span+"-01", "tracestate", "a=b", "tracestate", "c=d")
		f("b3", id+"-"+span+"-1")
		f("X-B3-TraceId", id, "X-B3-SpanId", span, "X-B3-Sampled", "1")
		refuse = true
		f("b3", id+"-"+span+"-d")
	}
}
