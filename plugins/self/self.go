// Package self is the collector of creel's own telemetry: what the agent measures and logs about itself, as records like
// all others. The framework leaves out the log records that these records themselves cause on their way.
package self

import (
	"context"
	_ "embed"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/metric"
)

//go:embed example.yaml
var example string

// Plugin is the collector self.
var Plugin = creel.NewPolled("self", "Collects the agent's own metrics and logs.", New).WithExample(example)

// Config is the collector's options.
type Config struct {
	Metrics bool   `doc:"Collect the agent's metrics." default:"true"`
	Logs    bool   `doc:"Collect the agent's log, as far as agent.log.level lets it through." default:"true"`
	Level   string `doc:"The least severity of log records to collect." default:"info" enum:"debug|info|warn|error"`
}

// backlog is how many log records are kept from one round to the next; then the oldest go.
const backlog = 1000

// New returns the collector.
func New(c Config, h creel.Host) (creel.Collector, error) {
	s := &collector{
		Config: c, host: h, descriptors: make(map[string]*creel.Descriptor), lost: h.Metrics.Counter("creel.self.lost", "Log records of the agent that were not collected because there were too many.", "{record}"),
		origin: &creel.Origin{Resource: h.Resource, Scope: creel.Scope{Name: "github.com/creelhq/creel"}},
	}
	if err := s.level.UnmarshalText([]byte(c.Level)); err != nil {
		return nil, fmt.Errorf("read level: %w", err)
	}
	return s, nil
}

type collector struct {
	Config
	host        creel.Host
	level       slog.Level
	origin      *creel.Origin
	descriptors map[string]*creel.Descriptor // by name
	lost        *metric.Counter

	mu     sync.Mutex
	cancel func() // of the subscription; nil before the first round
	closed bool
	logs   []slog.Record
}

// Collect sends the metrics of this moment, and what was logged since the last round.
func (s *collector) Collect(ctx context.Context, out creel.Sink) error {
	if s.host.Self == nil {
		return nil
	}
	for _, b := range []*creel.Batch{s.metricBatch(), s.logBatch()} {
		if b == nil {
			continue
		}
		if err := out.Send(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

// Close ends the subscription.
func (s *collector) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.cancel != nil {
		s.cancel()
	}
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

func (s *collector) logBatch() *creel.Batch {
	if !s.Logs {
		return nil
	}
	s.mu.Lock()
	if s.cancel == nil && !s.closed {
		s.cancel = s.host.Self.Subscribe(s.keep)
	}
	records := s.logs
	s.logs = nil
	s.mu.Unlock()
	if len(records) == 0 {
		return nil
	}
	r := s.host.Memory.NewRecords()
	for _, l := range records {
		attrs := creel.Attrs(r.Attrs.Make(l.NumAttrs())[:0])
		l.Attrs(func(a slog.Attr) bool {
			attrs = append(attrs, creel.Attr{Key: a.Key, Value: value(a.Value)})
			return true
		})
		r.Logs = append(r.Logs, creel.Log{
			Origin: s.origin, Time: l.Time.UnixNano(), Observed: l.Time.UnixNano(), Body: creel.String(l.Message), Attrs: attrs,
			Severity: severity(l.Level), SeverityText: l.Level.String(),
		})
	}
	return creel.NewBatch(creel.Logs, r)
}

// keep is called by whoever logs.
func (s *collector) keep(r slog.Record) {
	if r.Level < s.level {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.logs) == backlog {
		s.logs = append(s.logs[:0], s.logs[1:]...)
		s.lost.Inc()
	}
	s.logs = append(s.logs, r.Clone())
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
