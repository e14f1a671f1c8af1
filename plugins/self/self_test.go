package self_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/metric"
	"github.com/creelhq/creel/plugin/plugintest"
	"github.com/creelhq/creel/plugins/self"
	"github.com/creelhq/creel/trace"
)

// telemetry is an agent's, as a test makes it.
type telemetry struct {
	*metric.Set
	tracer *trace.Tracer
	mu     sync.Mutex
	subs   map[int]func(slog.Record)
	next   int
}

func (t *telemetry) SubscribeSpans(f func(trace.Data)) func() { return t.tracer.Subscribe(f) }

func (t *telemetry) Subscribe(f func(slog.Record)) func() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.subs == nil {
		t.subs = map[int]func(slog.Record){}
	}
	id := t.next
	t.next++
	t.subs[id] = f
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.subs, id)
	}
}

func (t *telemetry) log(level slog.Level, message string, args ...any) {
	r := slog.NewRecord(time.Unix(1, 0), level, message, 0)
	r.Add(args...)
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range t.subs {
		f(r)
	}
}

func newTelemetry() *telemetry {
	t := &telemetry{Set: metric.NewSet(metric.Label{Name: "a", Value: "b"}), tracer: trace.New(trace.Options{Rate: 1000})}
	t.Counter("c", "C.", "{thing}").Add(3)
	t.Gauge("g", "G.", "By").Set(1.5)
	t.Histogram("h", "H.", "s", 1, 2).Observe(1.5)
	return t
}

func TestConformance(t *testing.T) {
	plugintest.Run(t, self.Plugin, plugintest.Options{Host: creel.Host{Self: newTelemetry()}})
}

// keep is a sink that keeps copies of the records.
type keep struct {
	logs    []creel.Log
	metrics []creel.Metric
	spans   []creel.Span
	full    bool
}

func (k *keep) Send(_ context.Context, b *creel.Batch) error {
	if k.full {
		return context.Canceled
	}
	switch b.Signal() {
	case creel.Logs:
		k.logs = append(k.logs, b.Logs()...)
	case creel.Metrics:
		k.metrics = append(k.metrics, b.Metrics()...)
	case creel.Traces:
		k.spans = append(k.spans, b.Spans()...)
	}
	return nil
}

func (k *keep) TrySend(*creel.Batch) bool { panic("BUG: self may wait") }

func TestMetricsAndLogsBecomeRecords(t *testing.T) {
	tel := newTelemetry()
	c, err := self.Plugin.Open(nil, creel.Host{Self: tel, Resource: creel.Resource{Attrs: creel.Attrs{{Key: "host.name", Value: creel.String("h")}}}})
	if err != nil {
		t.Fatal(err)
	}
	var k keep
	round := func() {
		t.Helper()
		if err := c.(creel.Collector).Collect(t.Context(), &k); err != nil {
			t.Fatal(err)
		}
	}
	round()
	if len(k.metrics) != 3 || len(k.logs) != 0 {
		t.Fatalf("got %d metrics, %d logs", len(k.metrics), len(k.logs))
	}
	m := k.metrics[0]
	if m.Desc.Name != "c" || m.Desc.Kind != creel.Sum || !m.Desc.Monotonic || m.Value.Double() != 3 || m.Attrs[0].Key != "a" || m.Start == 0 {
		t.Errorf("the counter is %+v %+v", m, m.Desc)
	}
	if h := k.metrics[2].Histogram; h == nil || h.Count != 1 || h.Sum.Value != 1.5 || len(h.Counts) != 3 {
		t.Errorf("the histogram is %+v", h)
	}
	tel.log(slog.LevelDebug, "not this")
	tel.log(slog.LevelWarn, "this", "trace_id", "000102030405060708090a0b0c0d0e0f", "span_id", "0001020304050607", "n", 7, "ok", true, "f", 0.5, "err", errors.New("oh"), slog.Group("g", "x", "y"))
	round()
	round()
	if len(k.logs) != 1 {
		t.Fatalf("got %d logs", len(k.logs))
	}
	l := k.logs[0]
	var attrs strings.Builder
	for _, a := range l.Attrs {
		attrs.WriteString(a.Key + "=" + a.Value.String() + " ")
	}
	if l.Body.Str() != "this" || l.Severity != creel.SeverityWarn || l.Time != 1e9 || attrs.String() != `n=7 ok=true f=0.5 err=oh g={"x":"y"} ` {
		t.Errorf("the log is %+v with %s", l, attrs.String())
	}
	if l.TraceID.String() != "000102030405060708090a0b0c0d0e0f" || l.SpanID.String() != "0001020304050607" {
		t.Errorf("the log is of trace %v, span %v", l.TraceID, l.SpanID)
	}
	tel.log(slog.LevelWarn, "not ours", "trace_id", "7", "span_id", "000102030405060x")
	round()
	if l := k.logs[1]; len(l.Attrs) != 2 || l.TraceID != (creel.TraceID{}) || l.SpanID != (creel.SpanID{}) {
		t.Errorf("of ids that are none the log is %+v", l)
	}
	tel.log(slog.LevelDebug, "a round", "creel.document.name", "d", "outcome", "done")
	round()
	if len(k.logs) != 3 || k.logs[2].Body.Str() != "a round" {
		t.Errorf("of how a round went there is no log, whatever its level: %+v", k.logs)
	}
	for range 1500 {
		tel.log(slog.LevelInfo, "flood")
	}
	round()
	if n := len(k.logs) - 3; n != 1000 {
		t.Errorf("%d records of a flood were kept", n)
	}
	if err := c.(interface{ Close() error }).Close(); err != nil || len(tel.subs) != 0 {
		t.Errorf("after it was closed: %v, %d subscriptions", err, len(tel.subs))
	}
}

// TestSpansBecomeRecords: what ends after the first round is sent in the next, with all that it says.
func TestSpansBecomeRecords(t *testing.T) {
	tel := newTelemetry()
	c, err := self.Plugin.Open([]byte(`{"metrics": false, "logs": false}`), creel.Host{Self: tel, Resource: creel.Resource{Attrs: creel.Attrs{{Key: "host.name", Value: creel.String("h")}}}})
	if err != nil {
		t.Fatal(err)
	}
	var k keep
	round := func() {
		t.Helper()
		if err := c.(creel.Collector).Collect(t.Context(), &k); err != nil {
			t.Fatal(err)
		}
	}
	round()
	if !tel.tracer.Enabled() || len(tel.subs) != 0 {
		t.Fatalf("spans are made: %v; subscriptions of the log: %d", tel.tracer.Enabled(), len(tel.subs))
	}
	from := trace.Context{Trace: [16]byte{1}, Span: [8]byte{2}, Sampled: true, State: "a=b"}
	ctx, parent := tel.tracer.Start(trace.With(t.Context(), from), "receive", trace.Server, slog.String("transport", "grpc"), slog.Int("records", 3))
	_, child := tel.tracer.Start(ctx, "write", trace.Internal)
	child.Event("full", slog.Bool("ok", false))
	child.Fail(errors.New("no room"))
	child.End()
	parent.End()
	round()
	round()
	if len(k.spans) != 2 || len(k.logs)+len(k.metrics) != 0 {
		t.Fatalf("got %d spans, %d logs, %d metrics", len(k.spans), len(k.logs), len(k.metrics))
	}
	w, r := k.spans[0], k.spans[1]
	switch {
	case r.TraceID != from.Trace || r.Parent != from.Span || r.SpanID != parent.Context().Span || r.State != "a=b" || r.Flags != 0x301:
		t.Errorf("the span of a parent elsewhere is %+v", r)
	case w.TraceID != r.TraceID || w.Parent != r.SpanID || w.Flags != 0x101 || w.Start < r.Start || w.End < w.Start || r.End < w.End:
		t.Errorf("the child is %+v of %+v", w, r)
	case r.Name != "receive" || r.Kind != creel.SpanServer || r.Status.Code != creel.StatusUnset || len(r.Attrs) != 2 || r.Attrs[1].Value.Int() != 3:
		t.Errorf("the span is %+v", r)
	case w.Kind != creel.SpanInternal || w.Status != creel.Status{Code: creel.StatusError, Message: "no room"}:
		t.Errorf("what failed is %+v", w)
	case len(w.Events) != 1 || w.Events[0].Name != "full" || w.Events[0].Attrs[0].Value.Bool() || w.Events[0].Time < w.Start:
		t.Errorf("the events are %+v", w.Events)
	case r.Origin.Scope.Name != "github.com/creelhq/creel" || r.Origin.Resource.Attrs[0].Value.Str() != "h":
		t.Errorf("the origin is %+v", r.Origin)
	}
	for range 1500 {
		_, s := tel.tracer.Start(t.Context(), "flood", trace.Internal)
		s.End()
	}
	round()
	if n := len(k.spans) - 2; n != 1000 {
		t.Errorf("%d spans of a flood were kept", n)
	}
	if err := c.(interface{ Close() error }).Close(); err != nil || tel.tracer.Enabled() {
		t.Errorf("after it was closed: %v, spans are made: %v", err, tel.tracer.Enabled())
	}
}
