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
)

// telemetry is an agent's, as a test makes it.
type telemetry struct {
	*metric.Set
	mu   sync.Mutex
	subs map[int]func(slog.Record)
	next int
}

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
	t := &telemetry{Set: metric.NewSet(metric.Label{Name: "a", Value: "b"})}
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
	tel.log(slog.LevelWarn, "this", "n", 7, "ok", true, "f", 0.5, "err", errors.New("oh"), slog.Group("g", "x", "y"))
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
	for range 1500 {
		tel.log(slog.LevelInfo, "flood")
	}
	round()
	if n := len(k.logs) - 1; n != 1000 {
		t.Errorf("%d records of a flood were kept", n)
	}
	if err := c.(interface{ Close() error }).Close(); err != nil || len(tel.subs) != 0 {
		t.Errorf("after it was closed: %v, %d subscriptions", err, len(tel.subs))
	}
}
