package otlp

import (
	"net/http"
	"testing"

	"google.golang.org/grpc/metadata"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/trace"
)

// TestTracesCostOthersNothing: a request that belongs to no trace allocates nothing for traces, whether or not spans are made;
// nor does one that belongs to a trace while they are not.
func TestTracesCostOthersNothing(t *testing.T) {
	made := trace.New(trace.Options{})
	made.Subscribe(func(trace.Data) { t.Error("a span is made") })
	plain := http.Header{"Content-Type": {typeProtobuf}, "Content-Length": {"7"}, "User-Agent": {"x"}}
	traced := http.Header{"Traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}
	x := ExporterConfig{Propagate: []string{"w3c", "b3"}}
	for _, c := range []struct {
		tracer *trace.Tracer
		header http.Header
	}{{nil, plain}, {nil, traced}, {trace.New(trace.Options{}), traced}, {made, plain}} {
		col := &collector{host: creel.Host{Tracer: c.tracer}}
		md := metadata.MD{"user-agent": {"x"}, "content-type": {"application/grpc"}}
		if value := c.header["Traceparent"]; value != nil {
			md["traceparent"] = value
		}
		ctx := metadata.NewIncomingContext(t.Context(), md)
		if n := testing.AllocsPerRun(100, func() {
			_, span := col.follow(ctx, "http", creel.Logs, func(key string) string { return traceHeader(c.header, key) })
			span.End()
			_, span = col.follow(ctx, "grpc", creel.Logs, func(key string) string { return traceMetadata(ctx, key) })
			span.End()
			x.propagate(ctx, func(string, string) { t.Error("a span is told") })
		}); n > 0 {
			t.Errorf("%v allocations, tracer %v, header %v", n, c.tracer, c.header)
		}
	}
}
