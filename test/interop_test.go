package test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
	"go.opentelemetry.io/collector/receiver/receivertest"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploggrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploghttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	otellog "go.opentelemetry.io/otel/log"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/plugins/all"
)

// receiver is OpenTelemetry's own OTLP receiver and what it has got.
type receiver struct {
	grpc, http string
	logs       consumertest.LogsSink
	metrics    consumertest.MetricsSink
	traces     consumertest.TracesSink
}

// freePort returns an address that nobody listens on at the moment.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func startReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{grpc: freePort(t), http: freePort(t)}
	factory := otlpreceiver.NewFactory()
	cfg := factory.CreateDefaultConfig()
	conf := confmap.NewFromStringMap(map[string]any{"protocols": map[string]any{
		"grpc": map[string]any{"endpoint": r.grpc}, "http": map[string]any{"endpoint": r.http},
	}})
	if err := conf.Unmarshal(cfg); err != nil {
		t.Fatal(err)
	}
	settings := receivertest.NewNopSettings(factory.Type())
	logs, err := factory.CreateLogs(t.Context(), settings, cfg, &r.logs)
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := factory.CreateMetrics(t.Context(), settings, cfg, &r.metrics)
	if err != nil {
		t.Fatal(err)
	}
	traces, err := factory.CreateTraces(t.Context(), settings, cfg, &r.traces)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []interface {
		Start(context.Context, component.Host) error
		Shutdown(context.Context) error
	}{logs, metrics, traces} {
		if err := c.Start(context.Background(), componenttest.NewNopHost()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := c.Shutdown(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	return r
}

// lines returns what has arrived, a line of JSON for each record with its resource and scope, sorted.
func (r *receiver) lines(t *testing.T) []string {
	t.Helper()
	var lines []string
	add := func(text []byte, err error) {
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, string(text))
	}
	for _, all := range r.logs.AllLogs() {
		for _, rl := range all.ResourceLogs().All() {
			for _, sl := range rl.ScopeLogs().All() {
				for _, l := range sl.LogRecords().All() {
					one := plog.NewLogs()
					to := one.ResourceLogs().AppendEmpty()
					rl.Resource().CopyTo(to.Resource())
					to.SetSchemaUrl(rl.SchemaUrl())
					scope := to.ScopeLogs().AppendEmpty()
					sl.Scope().CopyTo(scope.Scope())
					scope.SetSchemaUrl(sl.SchemaUrl())
					l.CopyTo(scope.LogRecords().AppendEmpty())
					add((&plog.JSONMarshaler{}).MarshalLogs(one))
				}
			}
		}
	}
	for _, all := range r.metrics.AllMetrics() {
		for _, rm := range all.ResourceMetrics().All() {
			for _, sm := range rm.ScopeMetrics().All() {
				for _, m := range sm.Metrics().All() {
					one := pmetric.NewMetrics()
					to := one.ResourceMetrics().AppendEmpty()
					rm.Resource().CopyTo(to.Resource())
					to.SetSchemaUrl(rm.SchemaUrl())
					scope := to.ScopeMetrics().AppendEmpty()
					sm.Scope().CopyTo(scope.Scope())
					scope.SetSchemaUrl(sm.SchemaUrl())
					m.CopyTo(scope.Metrics().AppendEmpty())
					add((&pmetric.JSONMarshaler{}).MarshalMetrics(one))
				}
			}
		}
	}
	for _, all := range r.traces.AllTraces() {
		for _, rs := range all.ResourceSpans().All() {
			for _, ss := range rs.ScopeSpans().All() {
				for _, s := range ss.Spans().All() {
					one := ptrace.NewTraces()
					to := one.ResourceSpans().AppendEmpty()
					rs.Resource().CopyTo(to.Resource())
					to.SetSchemaUrl(rs.SchemaUrl())
					scope := to.ScopeSpans().AppendEmpty()
					ss.Scope().CopyTo(scope.Scope())
					scope.SetSchemaUrl(ss.SchemaUrl())
					s.CopyTo(scope.Spans().AppendEmpty())
					add((&ptrace.JSONMarshaler{}).MarshalTraces(one))
				}
			}
		}
	}
	slices.Sort(lines)
	return lines
}

func (r *receiver) reset() {
	r.logs.Reset()
	r.metrics.Reset()
	r.traces.Reset()
}

// send lets OpenTelemetry's SDK exporters send rich records of each signal.
func send(t *testing.T, protocol, address string) {
	t.Helper()
	ctx := t.Context()
	var logs sdklog.Exporter
	var metrics sdkmetric.Exporter
	var traces *otlptrace.Exporter
	var errs [3]error
	if protocol == "grpc" {
		logs, errs[0] = otlploggrpc.New(ctx, otlploggrpc.WithEndpoint(address), otlploggrpc.WithInsecure(), otlploggrpc.WithCompressor("gzip"))
		metrics, errs[1] = otlpmetricgrpc.New(ctx, otlpmetricgrpc.WithEndpoint(address), otlpmetricgrpc.WithInsecure())
		traces, errs[2] = otlptracegrpc.New(ctx, otlptracegrpc.WithEndpoint(address), otlptracegrpc.WithInsecure())
	} else {
		logs, errs[0] = otlploghttp.New(ctx, otlploghttp.WithEndpoint(address), otlploghttp.WithInsecure(), otlploghttp.WithCompression(otlploghttp.GzipCompression))
		metrics, errs[1] = otlpmetrichttp.New(ctx, otlpmetrichttp.WithEndpoint(address), otlpmetrichttp.WithInsecure())
		traces, errs[2] = otlptracehttp.New(ctx, otlptracehttp.WithEndpoint(address), otlptracehttp.WithInsecure())
	}
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	res := resource.NewWithAttributes("https://opentelemetry.io/schemas/1.40.0", attribute.String("service.name", "shop"), attribute.StringSlice("list", []string{"a", "b"}))
	sendLogs(t, logs, res)
	if err := metrics.Export(ctx, richMetrics(res)); err != nil {
		t.Fatal(err)
	}
	if err := traces.ExportSpans(ctx, richSpans(res).Snapshots()); err != nil {
		t.Fatal(err)
	}
	for _, shutdown := range []func(context.Context) error{logs.Shutdown, metrics.Shutdown, traces.Shutdown} {
		if err := shutdown(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

var when = time.Date(2026, 11, 24, 1, 2, 3, 456789, time.UTC)

func sendLogs(t *testing.T, x sdklog.Exporter, res *resource.Resource) {
	t.Helper()
	provider := sdklog.NewLoggerProvider(sdklog.WithResource(res), sdklog.WithProcessor(sdklog.NewSimpleProcessor(x)))
	logger := provider.Logger("lib", otellog.WithInstrumentationVersion("1.2"), otellog.WithSchemaURL("https://example.com/s"), otellog.WithInstrumentationAttributes(attribute.Bool("scoped", true)))
	span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1, 2, 3}, SpanID: trace.SpanID{4, 5}, TraceFlags: trace.FlagsSampled})
	for i, body := range []attribute.Value{
		attribute.StringValue("a line with \x00 and ünïcode"), attribute.Int64Value(-7), attribute.Float64Value(0.1), attribute.BoolValue(true), attribute.ByteSliceValue([]byte{0, 255}),
		attribute.SliceValue(attribute.Int64Value(1), attribute.StringValue("x")), attribute.MapValue(attribute.String("k", "v"), attribute.KeyValue{Key: "deep", Value: attribute.MapValue(attribute.Int("n", 1))}), {},
	} {
		var r otellog.Record
		r.SetTimestamp(when.Add(time.Duration(i)))
		r.SetObservedTimestamp(when.Add(time.Hour))
		r.SetBody(body)
		r.SetSeverity(otellog.SeverityWarn2)
		r.SetSeverityText("careful")
		r.SetEventName("happened")
		r.AddAttributes(attribute.String("s", "v"), attribute.BoolSlice("l", []bool{false}), attribute.KeyValue{Key: "b", Value: attribute.ByteSliceValue([]byte("x"))}, attribute.KeyValue{Key: "e"})
		ctx := context.Background()
		if i%2 == 0 {
			ctx = trace.ContextWithSpanContext(ctx, span)
		}
		logger.Emit(ctx, r)
	}
	if err := provider.ForceFlush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func richMetrics(res *resource.Resource) *metricdata.ResourceMetrics {
	set := attribute.NewSet(attribute.String("k", "v"), attribute.Float64("f", 1.5), attribute.Int64Slice("i", []int64{1, 2}))
	exemplars := []metricdata.Exemplar[float64]{{FilteredAttributes: []attribute.KeyValue{attribute.Bool("ok", true)}, Time: when, Value: 2.5, SpanID: []byte{1, 2, 3, 4, 5, 6, 7, 8}, TraceID: bytes.Repeat([]byte{9}, 16)}}
	return &metricdata.ResourceMetrics{Resource: res, ScopeMetrics: []metricdata.ScopeMetrics{{
		Scope: instrumentation.Scope{Name: "lib", Version: "1", SchemaURL: "https://example.com/m", Attributes: attribute.NewSet(attribute.Int("n", 1))},
		Metrics: []metricdata.Metrics{
			{Name: "gauge", Description: "A gauge.", Unit: "1", Data: metricdata.Gauge[int64]{DataPoints: []metricdata.DataPoint[int64]{{Attributes: set, StartTime: when, Time: when, Value: -3}, {Time: when}}}},
			{Name: "sum", Unit: "By", Data: metricdata.Sum[float64]{Temporality: metricdata.DeltaTemporality, IsMonotonic: true, DataPoints: []metricdata.DataPoint[float64]{{Attributes: set, StartTime: when, Time: when.Add(1), Value: 1e300, Exemplars: exemplars}}}},
			{Name: "histogram", Unit: "s", Data: metricdata.Histogram[float64]{Temporality: metricdata.CumulativeTemporality, DataPoints: []metricdata.HistogramDataPoint[float64]{{
				Attributes: set, StartTime: when, Time: when.Add(1), Count: 3, Bounds: []float64{1, 2}, BucketCounts: []uint64{1, 0, 2}, Sum: 7, Min: metricdata.NewExtrema(0.5), Max: metricdata.NewExtrema(4.0), Exemplars: exemplars,
			}}}},
			{Name: "exponential", Data: metricdata.ExponentialHistogram[float64]{Temporality: metricdata.DeltaTemporality, DataPoints: []metricdata.ExponentialHistogramDataPoint[float64]{{
				Attributes: set, StartTime: when, Time: when.Add(1), Count: 6, Sum: 9, Scale: -2, ZeroCount: 1, ZeroThreshold: 0.01, PositiveBucket: metricdata.ExponentialBucket{Offset: -3, Counts: []uint64{1, 2}}, NegativeBucket: metricdata.ExponentialBucket{Offset: 4, Counts: []uint64{2}}, Exemplars: exemplars,
			}}}},
			{Name: "summary", Data: metricdata.Summary{DataPoints: []metricdata.SummaryDataPoint{{Attributes: set, StartTime: when, Time: when.Add(1), Count: 2, Sum: 3, QuantileValues: []metricdata.QuantileValue{{Quantile: 0.5, Value: 1}, {Quantile: 1, Value: 2}}}}}},
		},
	}}}
}

func richSpans(res *resource.Resource) tracetest.SpanStubs {
	state, err := trace.ParseTraceState("vendor=value")
	if err != nil {
		panic(err)
	}
	id := func(n byte) trace.SpanContext {
		return trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{n, 1}, SpanID: trace.SpanID{n, 2}, TraceFlags: trace.FlagsSampled, TraceState: state, Remote: n%2 == 0})
	}
	attrs := []attribute.KeyValue{attribute.String("s", "v"), attribute.Float64Slice("f", []float64{1, 2.5})}
	span := tracetest.SpanStub{
		Name: "GET /things", SpanContext: id(1), Parent: id(2), SpanKind: trace.SpanKindServer, StartTime: when, EndTime: when.Add(time.Millisecond), Attributes: attrs,
		Resource: res, InstrumentationScope: instrumentation.Scope{Name: "lib", Version: "1", SchemaURL: "https://example.com/t", Attributes: attribute.NewSet(attribute.Int("n", 1))},
		DroppedAttributes: 1, DroppedEvents: 2, DroppedLinks: 3,
	}
	span.Status.Code, span.Status.Description = codes.Error, "it broke"
	span.Events = append(span.Events, sdktrace.Event{Name: "event", Attributes: attrs, Time: when, DroppedAttributeCount: 4})
	span.Links = append(span.Links, sdktrace.Link{SpanContext: id(4), Attributes: attrs, DroppedAttributeCount: 5})
	plain := tracetest.SpanStub{Name: "child", SpanContext: id(3), SpanKind: trace.SpanKindInternal, StartTime: when, EndTime: when, Resource: res, InstrumentationScope: span.InstrumentationScope}
	return tracetest.SpanStubs{span, plain}
}

// edit is a processor that makes every batch be decoded and encoded anew, and changes nothing in the end.
var edit = creel.NewProcessor("edit", "Changes every record and changes it back.", func(struct{}, creel.Host) (creel.Processor, error) {
	return creel.ProcessorFunc(func(_ context.Context, b *creel.Batch, next creel.Next) error {
		touch := func(as *creel.Attrs) {
			as.Set("touched", creel.Bool(true))
			as.Delete("touched")
		}
		switch b.Signal() {
		case creel.Logs:
			for i := range b.EditLogs() {
				touch(&b.EditLogs()[i].Attrs)
			}
		case creel.Metrics:
			for i := range b.EditMetrics() {
				touch(&b.EditMetrics()[i].Attrs)
			}
		case creel.Traces:
			for i := range b.EditSpans() {
				touch(&b.EditSpans()[i].Attrs)
			}
		}
		next.Send(b)
		return nil
	}), nil
})

// startAgent runs an agent until the test ends, and returns where it is found.
func startAgent(t *testing.T, text string) (e agent.Endpoints) {
	t.Helper()
	dir, err := os.MkdirTemp("", "creel") // short: it holds a Unix socket
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "c.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var memory creel.Memory
	memory.Poison = true
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- agent.Run(ctx, agent.Options{
			Config: file, Data: filepath.Join(dir, "data"), Plugins: append(all.Plugins(), edit), Log: t.Output(), Memory: &memory, Ready: func() { close(ready) },
		})
	}()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if n := memory.Out(); n != 0 {
			t.Errorf("%d batches are not settled", n)
		}
		os.RemoveAll(dir)
	})
	raw, err := os.ReadFile(filepath.Join(dir, "data", "endpoints.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &e); err != nil {
		t.Fatal(err)
	}
	return e
}

// runAgent is startAgent, and returns the addresses of its OTLP collector.
func runAgent(t *testing.T, text string) (grpcAddress, httpAddress string) {
	t.Helper()
	for _, l := range startAgent(t, text).Listen {
		if address := l.Address; strings.HasPrefix(l.Component, "collectors.otlp") {
			if resp, err := http.Get("http://" + address + "/v1/logs"); err == nil && resp.StatusCode == http.StatusMethodNotAllowed {
				resp.Body.Close()
				httpAddress = address
				continue
			}
			grpcAddress = address
		}
	}
	return grpcAddress, httpAddress
}

// TestSDKsThroughCreelToReceiver: what OpenTelemetry's SDKs send through creel arrives at OpenTelemetry's receiver as if they
// had sent it there, whether nobody looked at it on the way or everything was decoded, changed and encoded anew.
func TestSDKsThroughCreelToReceiver(t *testing.T) {
	direct, via := startReceiver(t), startReceiver(t)
	send(t, "grpc", direct.grpc)
	want := direct.lines(t)
	if len(want) != 8+5+2 {
		t.Fatalf("directly, %d records arrive", len(want))
	}
	for _, through := range []string{"", "edit"} {
		for _, out := range []string{"grpc", "http"} {
			address := map[string]string{"grpc": via.grpc, "http": via.http}[out]
			grpcIn, httpIn := runAgent(t, fmt.Sprintf(`
collectors: {otlp: {grpc: {endpoint: "127.0.0.1:0"}, http: {endpoint: "127.0.0.1:00"}}}
processors: {edit: }
exporters: {otlp: {endpoint: "http://%s", protocol: %s}}
pipelines: {p: {from: [otlp], through: [%s], to: [otlp]}}`, address, out, through))
			for _, in := range []string{"grpc", "http", "json"} {
				t.Run(fmt.Sprintf("%s to %s through [%s]", in, out, through), func(t *testing.T) {
					via.reset()
					switch in {
					case "grpc":
						send(t, "grpc", grpcIn)
					case "http":
						send(t, "http", httpIn)
					case "json":
						postJSON(t, httpIn, direct)
					}
					// A client is answered when its records are safe: they have arrived.
					got := via.lines(t)
					for i := range max(len(got), len(want)) {
						var g, w string
						if i < len(got) {
							g = got[i]
						}
						if i < len(want) {
							w = want[i]
						}
						if g != w {
							t.Fatalf("line %d of %d and %d: got\n\t%s\nwant\n\t%s", i, len(got), len(want), g, w)
						}
					}
				})
			}
		}
	}
}

// postJSON sends what a receiver has got, in JSON.
func postJSON(t *testing.T, address string, from *receiver) {
	t.Helper()
	post := func(signal string, body []byte, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.Post("http://"+address+"/v1/"+signal, "application/json", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: answered %s", signal, resp.Status)
		}
	}
	for _, l := range from.logs.AllLogs() {
		body, err := (&plog.JSONMarshaler{}).MarshalLogs(l)
		post("logs", body, err)
	}
	for _, m := range from.metrics.AllMetrics() {
		body, err := (&pmetric.JSONMarshaler{}).MarshalMetrics(m)
		post("metrics", body, err)
	}
	for _, s := range from.traces.AllTraces() {
		body, err := (&ptrace.JSONMarshaler{}).MarshalTraces(s)
		post("traces", body, err)
	}
}
