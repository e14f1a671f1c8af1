package agent

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/creelhq/creel/metric"
	"github.com/creelhq/creel/trace"
)

// telemetry is what the agent measures and logs about itself.
type telemetry struct {
	metrics *metric.Set
	tracer  *trace.Tracer

	mu   sync.RWMutex
	subs map[*func(slog.Record)]bool
}

// Gather yields the current value of every instrument.
func (t *telemetry) Gather(yield func(metric.Point)) { t.metrics.Gather(yield) }

// Subscribe calls f with every log record from now on.
func (t *telemetry) Subscribe(f func(slog.Record)) (cancel func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.subs == nil {
		t.subs = make(map[*func(slog.Record)]bool)
	}
	t.subs[&f] = true
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.subs, &f)
	}
}

// SubscribeSpans calls f with every span that ends from now on.
func (t *telemetry) SubscribeSpans(f func(trace.Data)) (cancel func()) { return t.tracer.Subscribe(f) }

func (t *telemetry) publish(r slog.Record) {
	t.mu.RLock()
	subs := slices.Collect(maps.Keys(t.subs))
	t.mu.RUnlock()
	for _, f := range subs {
		(*f)(r)
	}
}

// handler returns a handler that writes to out and tells the subscribers.
func (t *telemetry) handler(out slog.Handler) slog.Handler { return &tee{Handler: out, t: t} }

// tee is a slog.Handler. Its attributes are kept, because subscribers want them in the record.
type tee struct {
	slog.Handler
	t      *telemetry
	attrs  []slog.Attr
	groups []string
}

// Handle writes r and publishes it.
func (h *tee) Handle(ctx context.Context, r slog.Record) error {
	err := h.Handler.Handle(ctx, r)
	whole := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	whole.AddAttrs(h.attrs...)
	var own []slog.Attr
	r.Attrs(func(a slog.Attr) bool {
		own = append(own, a)
		return true
	})
	whole.AddAttrs(h.grouped(own)...)
	h.t.publish(whole)
	return err
}

// WithAttrs returns a handler whose records have attrs.
func (h *tee) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &tee{h.Handler.WithAttrs(attrs), h.t, slices.Concat(h.attrs, h.grouped(attrs)), h.groups}
}

// WithGroup returns a handler whose further attributes are in a group.
func (h *tee) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	return &tee{h.Handler.WithGroup(name), h.t, h.attrs, append(slices.Clone(h.groups), name)}
}

func (h *tee) grouped(attrs []slog.Attr) []slog.Attr {
	for _, g := range slices.Backward(h.groups) {
		attrs = []slog.Attr{{Key: g, Value: slog.GroupValue(attrs...)}}
	}
	return attrs
}
