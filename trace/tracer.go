package trace

import (
	"cmp"
	"context"
	"encoding/binary"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Kind is a span's role in its trace. The numbers are OTLP's.
type Kind int32

// The kinds of spans.
const (
	Internal Kind = iota + 1
	Server
	Client
	Producer
	Consumer
)

// Attr is an attribute of a span or an event. The attribute "component" is the path of the component that a span belongs
// to, such as exporters.otlp/hub.
type Attr = slog.Attr

// What is kept: what is more of a span is counted, and spans that are more are not made.
const (
	maxAttrs  = 32   // of a span, of an event, of a group
	maxEvents = 16   // of a span
	maxText   = 1024 // bytes of a value or an error
	maxSpans  = 256  // below a span that has no parent in this process
)

// Data is a span that has ended. Its slices are to be read only.
type Data struct {
	Context
	Parent [8]byte // zero: it is a root
	Remote bool    // whether the parent is of another process
	Name   string
	Kind   Kind
	Start  time.Time
	End    time.Time
	Attrs  []Attr // values are strings, numbers, truth values, times, durations, or groups of these
	Events []Event
	Failed bool
	Error  string // why it failed

	DroppedAttrs, DroppedEvents int // for want of room
}

// Event is something that happened at a moment of a span.
type Event struct {
	Time    time.Time
	Name    string
	Attrs   []Attr
	Dropped int // attributes, for want of room
}

// Options are a Tracer's. Their zero value is what an agent uses.
type Options struct {
	// Ratio is the share of roots that are sampled; 0 means all.
	Ratio float64
	// Rate is how many roots of one name are sampled a second, and ten seconds' worth at once; 0 means 1.
	Rate float64
	// RemoteRate bounds the spans of one name whose sampled parent is elsewhere, likewise; 0 means 20. What is above it is
	// passed on as it came.
	RemoteRate float64
}

// A Tracer makes spans while somebody subscribes: children of sampled parents, and roots as far as they are sampled. A nil
// Tracer makes none, and passes on the context of others. Its methods may be called concurrently.
type Tracer struct {
	*source
	attrs []Attr
}

// source is what a Tracer and those that With makes of it have in common.
type source struct {
	ratio, rate, remoteRate float64

	mu      sync.Mutex                            // of who changes what follows; neither is changed in place
	subs    atomic.Pointer[[]*func(Data)]         // nil: nobody subscribes
	buckets atomic.Pointer[map[bucketKey]*bucket] // nil: there is none yet
}

// New returns a Tracer.
func New(o Options) *Tracer {
	return &Tracer{source: &source{ratio: cmp.Or(o.Ratio, 1), rate: cmp.Or(o.Rate, 1), remoteRate: cmp.Or(o.RemoteRate, 20)}}
}

// With returns a Tracer whose spans have attrs as well.
func (t *Tracer) With(attrs ...Attr) *Tracer {
	if t == nil {
		return nil
	}
	return &Tracer{t.source, slices.Concat(t.attrs, attrs)}
}

// Enabled tells whether somebody subscribes: whether it is worth while to find out what only a span needs.
func (t *Tracer) Enabled() bool { return t != nil && t.subs.Load() != nil }

// Subscribe calls f with every span that ends from now on, in the goroutine that ends it: f must be quick and must end no
// span. A nil Tracer never calls it.
func (t *Tracer) Subscribe(f func(Data)) (cancel func()) {
	if t == nil {
		return func() {}
	}
	t.change(func(subs []*func(Data)) []*func(Data) { return append(subs, &f) })
	return func() {
		t.change(func(subs []*func(Data)) []*func(Data) {
			return slices.DeleteFunc(subs, func(s *func(Data)) bool { return s == &f })
		})
	}
}

func (s *source) change(to func([]*func(Data)) []*func(Data)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var subs []*func(Data)
	if old := s.subs.Load(); old != nil {
		subs = slices.Clone(*old)
	}
	if subs = to(subs); len(subs) == 0 {
		s.subs.Store(nil)
		return
	}
	s.subs.Store(&subs)
}

// Start starts a span, a child of the one that ctx is in, and returns a copy of ctx that is in it. It returns a nil Span,
// whose methods do nothing, if no span is made. While nobody subscribes that costs an atomic load, and no allocation. name is
// one of few, such as reload: what differs from one to the next belongs into attrs. Whatever outlives the operation must
// be given another context, or With(ctx, Context{}).
func (t *Tracer) Start(ctx context.Context, name string, kind Kind, attrs ...Attr) (context.Context, *Span) {
	if !t.Enabled() {
		return ctx, nil
	}
	return t.start(ctx, name, kind, attrs)
}

func (t *Tracer) start(ctx context.Context, name string, kind Kind, attrs []Attr) (context.Context, *Span) {
	now := time.Now()
	var parent Context
	var family *atomic.Int32
	switch p := ctx.Value(inContext{}).(type) {
	case *Span:
		if p == nil || p.family.Load() >= maxSpans || p.family.Add(1) > maxSpans {
			return ctx, nil
		}
		parent, family = p.Context(), p.family
	case Context:
		parent = p
	}
	of := parent // or of the trace that begins here
	switch {
	case !parent.Valid():
		of = Context{Trace: newTrace(), Sampled: true}
		if !t.share(of.Trace) || !t.allow(bucketKey{name, false}, t.rate, now) {
			return context.WithValue(ctx, inContext{}, (*Span)(nil)), nil // else its children would be roots
		}
		parent = Context{}
	case !parent.Sampled, family == nil && !t.allow(bucketKey{name, true}, t.remoteRate, now):
		return ctx, nil
	}
	binary.BigEndian.PutUint64(of.Span[:], newID())
	s := &Span{tracer: t.source, family: family, data: Data{
		Context: of, Parent: parent.Span, Remote: family == nil && parent.Valid(), Name: name, Kind: kind, Start: now,
		Attrs: make([]Attr, 0, len(t.attrs)+len(attrs)+4),
	}}
	if family == nil {
		s.family = new(atomic.Int32)
	}
	s.Set(t.attrs...)
	s.Set(attrs...)
	return context.WithValue(ctx, inContext{}, s), s
}

// share tells whether a trace is in the share that is sampled. Its id says so, the same everywhere.
func (s *source) share(id [16]byte) bool {
	return float64(binary.BigEndian.Uint64(id[8:])>>11) < s.ratio*(1<<53)
}

func newTrace() (id [16]byte) {
	binary.BigEndian.PutUint64(id[:8], rand.Uint64())
	binary.BigEndian.PutUint64(id[8:], newID())
	return id
}

func newID() uint64 {
	for {
		if id := rand.Uint64(); id != 0 {
			return id
		}
	}
}

// A bucket bounds how often something happens: each time moves it on by the interval, and it may be ten seconds ahead (the
// generic cell rate algorithm, ITU-T I.371).
type bucket struct{ ahead atomic.Int64 } // Unix nanoseconds

type bucketKey struct {
	name   string
	remote bool
}

// maxBuckets bounds how many names have a bucket of their own; the others share one.
const maxBuckets = 64

// allow takes from the bucket of key, if there is something in it.
func (s *source) allow(key bucketKey, rate float64, now time.Time) bool {
	b, t := s.bucket(key), now.UnixNano()
	interval := int64(min(1e9/rate, math.MaxInt64/4))
	for {
		ahead := b.ahead.Load()
		next := max(ahead, t) + interval
		if next > t+max(interval, int64(10*time.Second)) {
			return false
		}
		if b.ahead.CompareAndSwap(ahead, next) {
			return true
		}
	}
}

func (s *source) bucket(key bucketKey) *bucket {
	if m := s.buckets.Load(); m != nil && (*m)[key] != nil {
		return (*m)[key]
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	next := make(map[bucketKey]*bucket)
	if m := s.buckets.Load(); m != nil {
		if len(*m) >= maxBuckets {
			key = bucketKey{remote: key.remote}
		}
		for k, b := range *m {
			next[k] = b
		}
	}
	if next[key] == nil {
		next[key] = &bucket{}
		s.buckets.Store(&next)
	}
	return next[key]
}

// A Span is one operation, from Start to End. The methods of a nil Span do nothing. They may be called concurrently.
type Span struct {
	tracer *source
	family *atomic.Int32 // how many spans are below the first one in this process

	mu    sync.Mutex
	data  Data // Context never changes
	ended bool
}

// Context returns what is to be passed on, the zero Context if s is nil.
func (s *Span) Context() Context {
	if s == nil {
		return Context{}
	}
	return s.data.Context
}

// Set adds attributes, of keys that the span does not have yet.
func (s *Span) Set(attrs ...Attr) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		s.data.Attrs, s.data.DroppedAttrs = keep(s.data.Attrs, attrs, s.data.DroppedAttrs)
	}
}

// Event notes that something has happened.
func (s *Span) Event(name string, attrs ...Attr) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended:
	case len(s.data.Events) == maxEvents:
		s.data.DroppedEvents++
	default:
		e := Event{Time: s.now(), Name: name}
		e.Attrs, e.Dropped = keep(nil, attrs, 0)
		s.data.Events = append(s.data.Events, e)
	}
}

// Fail says that the operation has failed; the first error is kept. With nil it does nothing.
func (s *Span) Fail(err error) {
	if s == nil || err == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended && !s.data.Failed {
		s.data.Failed, s.data.Error = true, clip(err.Error())
	}
}

// End ends the span and gives it to the subscribers. It does so once.
func (s *Span) End() {
	if s == nil {
		return
	}
	s.mu.Lock()
	ended := s.ended
	s.ended = true
	if !ended {
		s.data.End = s.now()
	}
	s.mu.Unlock()
	if subs := s.tracer.subs.Load(); subs != nil && !ended {
		for _, f := range *subs {
			(*f)(s.data)
		}
	}
}

// now returns the time by the clock that the span started with, so that it never goes back.
func (s *Span) now() time.Time { return s.data.Start.Add(time.Since(s.data.Start)) }

// keep appends attrs to list as far as there is room, and returns how many were dropped.
func keep(list, attrs []Attr, dropped int) ([]Attr, int) {
	for i, a := range attrs {
		if len(list) == maxAttrs {
			return list, dropped + len(attrs) - i
		}
		list = append(list, Attr{Key: a.Key, Value: plain(a.Value)})
	}
	return list, dropped
}

// plain returns v as a value that nobody changes any more, and that is not too long.
func plain(v slog.Value) slog.Value {
	switch v = v.Resolve(); v.Kind() {
	case slog.KindString, slog.KindAny:
		return slog.StringValue(clip(v.String()))
	case slog.KindGroup:
		attrs, _ := keep(nil, v.Group(), 0)
		return slog.GroupValue(attrs...)
	}
	return v
}

// clip returns the beginning of text.
func clip(text string) string {
	if len(text) <= maxText {
		return text
	}
	return strings.ToValidUTF8(text[:maxText], "") + "…"
}
