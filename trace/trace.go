// Package trace is creel's own small instrument for traces: spans, and the context that they pass on, as W3C Trace Context
// and B3 write it.
//
// It knows nothing of what is traced, nor of where spans go.
package trace

import (
	"context"
	"encoding/hex"
	"log/slog"
)

// Context is what a span passes on to those that follow from it, within the process and to the far side of a request.
type Context struct {
	Trace   [16]byte
	Span    [8]byte
	Sampled bool   // whether somebody records the trace
	State   string // W3C tracestate: what other vendors say, handed on as it came
}

// Valid tells whether c names a span.
func (c Context) Valid() bool { return c.Trace != [16]byte{} && c.Span != [8]byte{} }

// TraceID returns the trace's id as 32 hexadecimal digits.
func (c Context) TraceID() string { return hex.EncodeToString(c.Trace[:]) }

// SpanID returns the span's id as 16 hexadecimal digits.
func (c Context) SpanID() string { return hex.EncodeToString(c.Span[:]) }

// inContext is the key of what a context.Context carries: a *Span of this process, nil below a root that was not sampled;
// or a Context.
type inContext struct{}

// From returns the context of the span that ctx is in, the zero Context if it is in none.
func From(ctx context.Context) Context {
	switch v := ctx.Value(inContext{}).(type) {
	case *Span:
		return v.Context()
	case Context:
		return v
	}
	return Context{}
}

// With returns a copy of ctx that is in c, which came from elsewhere. With the zero Context it is in no span, so that what
// is started next is a root.
func With(ctx context.Context, c Context) context.Context {
	return context.WithValue(ctx, inContext{}, c)
}

// Handler returns a slog.Handler that gives records to h. Those that are logged with a context that is in a span get the
// attributes trace_id and span_id, which are in no group.
func Handler(h slog.Handler) slog.Handler { return &handler{Handler: h, top: h} }

type handler struct {
	slog.Handler
	top   slog.Handler                      // as Handler was before the first group
	below []func(slog.Handler) slog.Handler // what makes Handler of top
}

// Handle adds the ids. Below a group this means to make the handler anew, with the ids above it.
func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	c := From(ctx)
	if !c.Valid() {
		return h.Handler.Handle(ctx, r)
	}
	ids := []slog.Attr{slog.String("trace_id", c.TraceID()), slog.String("span_id", c.SpanID())}
	if len(h.below) == 0 {
		r = r.Clone()
		r.AddAttrs(ids...)
		return h.Handler.Handle(ctx, r)
	}
	to := h.top.WithAttrs(ids)
	for _, add := range h.below {
		to = add(to)
	}
	return to.Handle(ctx, r)
}

// WithAttrs returns a handler whose records have attrs.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	if len(h.below) == 0 {
		return Handler(h.Handler.WithAttrs(attrs))
	}
	return h.add(func(to slog.Handler) slog.Handler { return to.WithAttrs(attrs) })
}

// WithGroup returns a handler whose further attributes are in a group.
func (h *handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	return h.add(func(to slog.Handler) slog.Handler { return to.WithGroup(name) })
}

func (h *handler) add(to func(slog.Handler) slog.Handler) slog.Handler {
	return &handler{to(h.Handler), h.top, append(h.below[:len(h.below):len(h.below)], to)}
}
