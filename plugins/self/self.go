// Package self is the collector of creel's own telemetry: what the agent measures, logs and traces of itself, as records
// like all others. The framework leaves out the log records and spans that these records themselves cause on their way.
package self

import (
	"context"
	_ "embed"
	"encoding/hex"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/metric"
	"github.com/creelhq/creel/trace"
)

//go:embed example.yaml
var example string

// Plugin is the collector self.
var Plugin = creel.NewPolled("self", "Collects the agent's own metrics, logs and traces.", New).WithExample(example)

// Config is the collector's options.
type Config struct {
	Metrics bool   `doc:"Collect the agent's metrics." default:"true"`
	Logs    bool   `doc:"Collect the agent's log, as far as agent.log.level lets it through." default:"true"`
	Level   string `doc:"The least severity of log records to collect. How rounds of placed documents went is collected whatever it says." default:"info" enum:"debug|info|warn|error"`
	Traces  bool   `doc:"Collect spans of what the agent does: reload, delivery, calls to its hub, rounds of polled collectors. Of each about one a second, and what belongs to traces of others who call it." default:"true"`
}

// backlog is how many log records, and how many spans, are kept from one round to the next; then the oldest go.
const backlog = 1000

// New returns the collector.
func New(c Config, h creel.Host) (creel.Collector, error) {
	s := &collector{
		Config: c, host: h, descriptors: make(map[string]*creel.Descriptor), lost: h.Metrics.Counter("creel.self.lost", "Log records and spans of the agent that were not collected because there were too many.", "{record}"),
		origin: &creel.Origin{Resource: h.Resource, Scope: creel.Scope{Name: "github.com/creelhq/creel"}}, named: named(h.Resource),
	}
	if err := s.level.UnmarshalText([]byte(c.Level)); err != nil {
		return nil, fmt.Errorf("read level: %w", err)
	}
	return s, nil
}

// named returns the origin of what is looked for by the name of a service.
func named(r creel.Resource) *creel.Origin {
	attrs := slices.Clone(r.Attrs)
	if _, ok := attrs.Get("service.name"); !ok {
		attrs.Set("service.name", creel.String("creel"))
	}
	return &creel.Origin{Resource: creel.Resource{Attrs: attrs}, Scope: creel.Scope{Name: "github.com/creelhq/creel"}}
}

type collector struct {
	Config
	host        creel.Host
	level       slog.Level
	origin      *creel.Origin                // of metrics
	named       *creel.Origin                // of logs and spans
	descriptors map[string]*creel.Descriptor // by name
	lost        *metric.Counter

	mu     sync.Mutex
	cancel []func() // of the subscriptions; nil before the first round
	closed bool
	logs   []slog.Record
	spans  []trace.Data
}

// Collect sends the metrics of this moment, what was logged since the last round, and the spans that have ended since.
func (s *collector) Collect(ctx context.Context, out creel.Sink) error {
	if s.host.Self == nil {
		return nil
	}
	logs, spans := s.gathered()
	for _, b := range []*creel.Batch{s.metricBatch(), s.logBatch(logs), s.spanBatch(spans)} {
		if b == nil {
			continue
		}
		if err := out.Send(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

// gathered returns what has come since the last time. The first time it subscribes.
func (s *collector) gathered() ([]slog.Record, []trace.Data) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cancel == nil && !s.closed {
		s.cancel = make([]func(), 0, 2)
		if s.Logs {
			s.cancel = append(s.cancel, s.host.Self.Subscribe(s.keepLog))
		}
		if s.Traces {
			s.cancel = append(s.cancel, s.host.Self.SubscribeSpans(s.keepSpan))
		}
	}
	logs, spans := s.logs, s.spans
	s.logs, s.spans = nil, nil
	return logs, spans
}

// keepLog is called by whoever logs.
func (s *collector) keepLog(r slog.Record) {
	if r.Level < s.level && !ofDocument(r) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logs = append(newest(s.logs, s.lost), r.Clone())
}

// ofDocument reports whether r says how something went that a hub has placed.
func ofDocument(r slog.Record) (is bool) {
	r.Attrs(func(a slog.Attr) bool {
		is = a.Key == "creel.document.name"
		return !is
	})
	return is
}

// keepSpan is called by whoever ends a span.
func (s *collector) keepSpan(d trace.Data) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spans = append(newest(s.spans, s.lost), d)
}

// newest makes room for one more.
func newest[T any](list []T, lost *metric.Counter) []T {
	if len(list) < backlog {
		return list
	}
	lost.Inc()
	return append(list[:0], list[1:]...)
}

// Close ends the subscriptions.
func (s *collector) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, cancel := range s.cancel {
		cancel()
	}
	s.cancel = nil
	return nil
}

func (s *collector) metricBatch() *creel.Batch {
	if !s.Metrics {
		return nil
	}
	now := time.Now().UnixNano()
	r := s.host.Memory.NewRecords()
	s.host.Self.Gather(func(p metric.Point) {
		m := creel.Metric{Origin: s.origin, Desc: s.descriptor(p), Start: p.Start.UnixNano(), Time: now, Value: creel.Double(p.Value)}
		m.Attrs = creel.Attrs(r.Attrs.Make(len(p.Labels)))
		for i, l := range p.Labels {
			m.Attrs[i] = creel.Attr{Key: l.Name, Value: creel.String(l.Value)}
		}
		if p.Kind == metric.KindHistogram {
			m.Value = creel.Value{}
			m.Histogram = &r.Histograms.Make(1)[0]
			*m.Histogram = creel.Histogram{Count: p.Count, Sum: creel.Optional{Value: p.Sum, Valid: true}, Counts: p.Counts, Bounds: p.Bounds}
		}
		r.Metrics = append(r.Metrics, m)
	})
	return creel.NewBatch(creel.Metrics, r)
}

func (s *collector) descriptor(p metric.Point) *creel.Descriptor {
	d := s.descriptors[p.Name]
	if d != nil {
		return d
	}
	d = &creel.Descriptor{Name: p.Name, Description: p.Help, Unit: p.Unit}
	switch p.Kind {
	case metric.KindCounter:
		d.Kind, d.Temporality, d.Monotonic = creel.Sum, creel.Cumulative, true
	case metric.KindGauge:
		d.Kind = creel.Gauge
	case metric.KindHistogram:
		d.Kind, d.Temporality = creel.HistogramKind, creel.Cumulative
	}
	s.descriptors[p.Name] = d
	return d
}

func (s *collector) logBatch(records []slog.Record) *creel.Batch {
	if len(records) == 0 {
		return nil
	}
	r := s.host.Memory.NewRecords()
	for _, l := range records {
		record := creel.Log{
			Origin: s.named, Time: l.Time.UnixNano(), Observed: l.Time.UnixNano(), Body: creel.String(l.Message),
			Severity: severity(l.Level), SeverityText: l.Level.String(), Attrs: creel.Attrs(r.Attrs.Make(l.NumAttrs())[:0]),
		}
		l.Attrs(func(a slog.Attr) bool {
			switch {
			case a.Key == "trace_id" && readID(record.TraceID[:], a.Value):
			case a.Key == "span_id" && readID(record.SpanID[:], a.Value):
			default:
				record.Attrs = append(record.Attrs, creel.Attr{Key: a.Key, Value: value(a.Value)})
			}
			return true
		})
		r.Logs = append(r.Logs, record)
	}
	return creel.NewBatch(creel.Logs, r)
}

// readID fills id with what v says in hexadecimal digits, if it does.
func readID(id []byte, v slog.Value) bool {
	text := v.String()
	if len(text) != hex.EncodedLen(len(id)) {
		return false
	}
	if _, err := hex.Decode(id, []byte(text)); err != nil {
		clear(id)
		return false
	}
	return true
}

// What OTLP's flags of a span say: W3C's flag of a trace that is recorded, and, where it is known, whether the parent is
// of another process.
const (
	flagSampled     = 0x001
	flagRemoteKnown = 0x100
	flagRemote      = 0x200
)

func (s *collector) spanBatch(spans []trace.Data) *creel.Batch {
	if len(spans) == 0 {
		return nil
	}
	r := s.host.Memory.NewRecords()
	for _, d := range spans {
		span := creel.Span{
			Origin: s.named, TraceID: d.Trace, SpanID: d.Span, Parent: d.Parent, Kind: creel.SpanKind(d.Kind), State: d.State, Name: d.Name,
			Start: d.Start.UnixNano(), End: d.End.UnixNano(), Attrs: attrs(r, d.Attrs), Events: r.Events.Make(len(d.Events)),
			Flags: flagSampled | flagRemoteKnown, Dropped: uint32(d.DroppedAttrs), DroppedEvents: uint32(d.DroppedEvents),
		}
		if d.Remote {
			span.Flags |= flagRemote
		}
		if d.Failed {
			span.Status = creel.Status{Code: creel.StatusError, Message: d.Error}
		}
		for i, e := range d.Events {
			span.Events[i] = creel.SpanEvent{Time: e.Time.UnixNano(), Name: e.Name, Attrs: attrs(r, e.Attrs), Dropped: uint32(e.Dropped)}
		}
		r.Spans = append(r.Spans, span)
	}
	return creel.NewBatch(creel.Traces, r)
}

// attrs returns list in memory of r's.
func attrs(r *creel.Records, list []slog.Attr) creel.Attrs {
	out := r.Attrs.Make(len(list))
	for i, a := range list {
		out[i] = creel.Attr{Key: a.Key, Value: value(a.Value)}
	}
	return out
}

// severity maps slog's levels (-4, 0, 4, 8) to OpenTelemetry's numbers (5, 9, 13, 17).
func severity(l slog.Level) creel.Severity {
	return creel.Severity(min(24, max(1, int(l)+9)))
}

func value(v slog.Value) creel.Value {
	switch v = v.Resolve(); v.Kind() {
	case slog.KindString:
		return creel.String(v.String())
	case slog.KindInt64:
		return creel.Int(v.Int64())
	case slog.KindFloat64:
		return creel.Double(v.Float64())
	case slog.KindBool:
		return creel.Bool(v.Bool())
	case slog.KindGroup:
		var attrs []creel.Attr
		for _, a := range v.Group() {
			attrs = append(attrs, creel.Attr{Key: a.Key, Value: value(a.Value)})
		}
		return creel.Map(attrs...)
	}
	return creel.String(v.String())
}
