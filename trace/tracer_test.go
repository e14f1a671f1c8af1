package trace_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/slogtest"
	"testing/synctest"
	"time"

	"github.com/creelhq/creel/trace"
)

// collect returns where the spans of t go.
func collect(t *trace.Tracer) (spans *[]trace.Data, cancel func()) {
	spans = new([]trace.Data)
	var mu sync.Mutex
	return spans, t.Subscribe(func(d trace.Data) {
		mu.Lock()
		defer mu.Unlock()
		*spans = append(*spans, d)
	})
}

func TestSpansOfOneTrace(t *testing.T) {
	tr := trace.New(trace.Options{}).With(slog.String("component", "exporters.otlp/hub"))
	spans, cancel := collect(tr)
	ctx, root := tr.Start(t.Context(), "deliver", trace.Client, slog.Int("records", 7))
	in, child := tr.Start(ctx, "attempt", trace.Internal)
	child.Event("halved", slog.String("why", "too large"))
	child.Fail(errors.New("no"))
	child.Fail(errors.New("not this"))
	child.Fail(nil)
	child.End()
	child.End()
	child.Set(slog.Bool("late", true))
	child.Event("late")
	child.Fail(errors.New("late"))
	root.Set(slog.Float64("share", 0.5))
	root.End()
	if len(*spans) != 2 {
		t.Fatalf("got %+v", *spans)
	}
	c, r := (*spans)[0], (*spans)[1]
	switch {
	case !r.Valid() || !r.Sampled || r.Parent != [8]byte{} || r.Remote || r.Failed || r.Name != "deliver" || r.Kind != trace.Client:
		t.Errorf("the root is %+v", r)
	case c.Trace != r.Trace || c.Parent != r.Span || c.Span == r.Span || c.Remote || !c.Failed || c.Error != "no" || c.Start.Before(r.Start) || c.End.After(r.End):
		t.Errorf("the child is %+v of %+v", c, r)
	case fmt.Sprint(r.Attrs) != "[component=exporters.otlp/hub records=7 share=0.5]" || fmt.Sprint(c.Attrs) != "[component=exporters.otlp/hub]":
		t.Errorf("the attributes are %v, %v", r.Attrs, c.Attrs)
	case len(c.Events) != 1 || c.Events[0].Name != "halved" || fmt.Sprint(c.Events[0].Attrs) != "[why=too large]" || c.Events[0].Time.Before(c.Start):
		t.Errorf("the events are %v", c.Events)
	case trace.From(in) != c.Context || trace.From(ctx) != r.Context || trace.From(t.Context()) != trace.Context{}:
		t.Errorf("contexts are %v, %v", trace.From(in), trace.From(ctx))
	}
	cancel()
	if again, s := tr.Start(t.Context(), "deliver", trace.Client); s != nil || again != t.Context() || tr.Enabled() {
		t.Error("a span is made for nobody")
	}
}

func TestNilTracer(t *testing.T) {
	var tr *trace.Tracer
	from := trace.With(t.Context(), trace.Context{Trace: [16]byte{1}, Span: [8]byte{2}, Sampled: true, State: "a=b"})
	tr.Subscribe(func(trace.Data) { t.Error("a span of nobody") })()
	ctx, s := tr.With(slog.Int("n", 1)).Start(from, "x", trace.Server)
	s.Set(slog.Int("n", 1))
	s.Event("e")
	s.Fail(errors.New("e"))
	s.End()
	if s.Context().Valid() || trace.From(ctx) != trace.From(from) {
		t.Errorf("passed on %v", trace.From(ctx))
	}
}

// TestParentsFromElsewhere: what they say of sampling is followed, and their state handed on.
func TestParentsFromElsewhere(t *testing.T) {
	tr := trace.New(trace.Options{})
	spans, _ := collect(tr)
	parent := trace.Context{Trace: [16]byte{1}, Span: [8]byte{2}, State: "a=b"}
	ctx, s := tr.Start(trace.With(t.Context(), parent), "receive", trace.Server)
	if s != nil || trace.From(ctx) != parent {
		t.Errorf("a parent that is not sampled became %v", trace.From(ctx))
	}
	parent.Sampled = true
	ctx, s = tr.Start(trace.With(t.Context(), parent), "receive", trace.Server)
	_, child := tr.Start(ctx, "write", trace.Internal)
	child.End()
	s.End()
	if len(*spans) != 2 {
		t.Fatalf("got %+v", *spans)
	}
	c, r := (*spans)[0], (*spans)[1]
	if r.Trace != parent.Trace || r.Parent != parent.Span || r.Span == parent.Span || !r.Remote || r.State != "a=b" || c.Remote || c.State != "a=b" || c.Parent != r.Span {
		t.Errorf("spans are %+v", *spans)
	}
	ctx, s = tr.Start(trace.With(ctx, trace.Context{}), "new", trace.Internal)
	if c := trace.From(ctx); c != s.Context() || c.Trace == parent.Trace || c.State != "" {
		t.Errorf("what outlives its cause is in %v", c)
	}
}

// TestRates: roots of each name have a rate of their own, and so have spans whose parents are elsewhere; what is below a
// root that was not sampled is no root.
func TestRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := trace.New(trace.Options{Rate: 2, RemoteRate: 3})
		collect(tr)
		elsewhere := trace.With(t.Context(), trace.Context{Trace: [16]byte{1}, Span: [8]byte{2}, Sampled: true})
		made := func(ctx context.Context, name string) (n int) {
			for range 100 {
				below, s := tr.Start(ctx, name, trace.Internal)
				_, child := tr.Start(below, "child", trace.Internal)
				if s != nil {
					n++
				}
				if from := ctx == elsewhere; (child == nil) != (s == nil) && !from {
					t.Fatalf("of a span %v there is a child %v", s, child)
				}
			}
			return n
		}
		f := func(ctx context.Context, name string, want int) {
			t.Helper()
			if got := made(ctx, name); got != want {
				t.Errorf("of %s %d are made, want %d", name, got, want)
			}
		}
		f(t.Context(), "deliver", 20)
		f(t.Context(), "deliver", 0)
		f(t.Context(), "reload", 20)
		f(elsewhere, "deliver", 30)
		time.Sleep(2 * time.Second)
		f(t.Context(), "deliver", 4)
		f(elsewhere, "deliver", 6)
		time.Sleep(time.Hour)
		f(t.Context(), "deliver", 20)
		for i := range 100 { // more names than have a rate of their own
			made(t.Context(), fmt.Sprint(i))
		}
		f(t.Context(), "one more", 0)
		f(t.Context(), "deliver", 0)

		rare := trace.New(trace.Options{Rate: 1e-9})
		collect(rare)
		if _, s := rare.Start(t.Context(), "once", trace.Internal); s == nil {
			t.Error("the first is not made")
		}
		if _, s := rare.Start(t.Context(), "once", trace.Internal); s != nil {
			t.Error("the second is made")
		}
	})
}

func TestRatio(t *testing.T) {
	tr := trace.New(trace.Options{Ratio: 0.25, Rate: 1e9})
	collect(tr)
	n := 0
	for range 4000 {
		if _, s := tr.Start(t.Context(), "x", trace.Internal); s != nil {
			n++
		}
	}
	if n < 800 || n > 1200 { // 7 standard deviations
		t.Errorf("%d of 4000 are sampled, want a quarter", n)
	}
}

// TestBounds: neither a span nor a trace grows without end, and what a span holds nobody can change.
func TestBounds(t *testing.T) {
	tr := trace.New(trace.Options{})
	spans, _ := collect(tr)
	ctx, s := tr.Start(t.Context(), "x", trace.Internal)
	long := strings.Repeat("ä", 1000)
	buffer := bytes.NewBufferString("before")
	s.Set(slog.String("long", long), slog.Any("any", buffer), slog.Group("g", "long", long))
	buffer.Reset()
	for range 40 {
		s.Set(slog.Int("n", 1), slog.Int("n", 2))
		s.Event("e", make([]slog.Attr, 40)...)
	}
	s.Fail(errors.New(long))
	s.End()
	d := (*spans)[0]
	if len(d.Attrs) != 32 || d.DroppedAttrs != 83-32 || len(d.Events) != 16 || d.DroppedEvents != 24 || len(d.Events[0].Attrs) != 32 || d.Events[0].Dropped != 8 {
		t.Errorf("kept %d attributes of 83, %d events of 40, dropped %d, %d", len(d.Attrs), len(d.Events), d.DroppedAttrs, d.DroppedEvents)
	}
	clipped := strings.Repeat("ä", 512) + "…"
	if d.Error != clipped || d.Attrs[0].Value.String() != clipped || d.Attrs[2].Value.Group()[0].Value.String() != clipped || d.Attrs[1].Value.String() != "before" {
		t.Errorf("kept %v", d.Attrs[:3])
	}
	n := 0
	for range 1000 {
		if _, s := tr.Start(ctx, "child", trace.Internal); s != nil {
			n++
		}
	}
	if n != 256 {
		t.Errorf("a span has %d children", n)
	}
}

// TestConcurrent is for the race detector.
func TestConcurrent(t *testing.T) {
	tr := trace.New(trace.Options{Rate: 1e9})
	spans, _ := collect(tr)
	ctx, root := tr.Start(t.Context(), "root", trace.Internal)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 20 {
				_, other := tr.Start(ctx, "child", trace.Internal)
				root.Set(slog.Int("n", 1))
				root.Event("e")
				other.End()
				root.End()
				tr.Subscribe(func(trace.Data) {})()
			}
		})
	}
	wg.Wait()
	if len(*spans) != 81 {
		t.Errorf("%d spans ended, want 81", len(*spans))
	}
}

func TestStartForNobodyDoesNotAllocate(t *testing.T) {
	ctx := trace.With(t.Context(), trace.Context{Trace: [16]byte{1}, Span: [8]byte{2}, Sampled: true})
	for _, tr := range []*trace.Tracer{nil, trace.New(trace.Options{})} {
		n := 0
		if allocs := testing.AllocsPerRun(100, func() {
			_, s := tr.Start(ctx, "deliver", trace.Client, slog.Int("records", n), slog.String("signal", "logs"))
			s.Set(slog.Int("bytes", n))
			s.Fail(nil)
			s.End()
			n++
		}); allocs > 0 {
			t.Errorf("%v allocations", allocs)
		}
	}
}

// BenchmarkStart is what a span costs that is made for nobody, one that is not sampled, and one that is made.
func BenchmarkStart(b *testing.B) {
	for _, name := range []string{"nobody", "not sampled", "sampled"} {
		tr := trace.New(trace.Options{Rate: map[string]float64{"sampled": 1e12}[name]})
		if name != "nobody" {
			tr.Subscribe(func(trace.Data) {})
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, s := tr.Start(b.Context(), "deliver", trace.Client, slog.Int("records", 1), slog.String("signal", "logs"))
				s.End()
			}
		})
	}
}

// TestHandler: records that are logged in a span say in which, outside of all groups; and else it is as any handler.
func TestHandler(t *testing.T) {
	var out bytes.Buffer
	ctx := trace.With(t.Context(), trace.Context{Trace: [16]byte{15: 1}, Span: [8]byte{7: 2}})
	ids := `"trace_id":"00000000000000000000000000000001","span_id":"0000000000000002"`
	f := func(l *slog.Logger, ctx context.Context, want string) {
		t.Helper()
		out.Reset()
		l.InfoContext(ctx, "m", "c", 3)
		if got := out.String(); !strings.HasSuffix(got, `"msg":"m",`+want+"}\n") {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	l := slog.New(trace.Handler(slog.NewJSONHandler(&out, nil))).With("a", 1)
	f(l, t.Context(), `"a":1,"c":3`)
	f(l, ctx, `"a":1,"c":3,`+ids)
	f(l.WithGroup(""), ctx, `"a":1,"c":3,`+ids)
	grouped := l.WithGroup("g").With("b", 2)
	f(grouped, t.Context(), `"a":1,"g":{"b":2,"c":3}`)
	f(grouped, ctx, `"a":1,`+ids+`,"g":{"b":2,"c":3}`)
	f(grouped.WithGroup("h"), ctx, `"a":1,`+ids+`,"g":{"b":2,"h":{"c":3}}`)

	out.Reset()
	err := slogtest.TestHandler(trace.Handler(slog.NewJSONHandler(&out, nil)), func() (list []map[string]any) {
		for line := range strings.Lines(out.String()) {
			var m map[string]any
			if err := json.Unmarshal([]byte(line), &m); err != nil {
				t.Fatal(err)
			}
			list = append(list, m)
		}
		return list
	})
	if err != nil {
		t.Error(err)
	}
}
