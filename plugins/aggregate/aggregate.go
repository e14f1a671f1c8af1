// Package aggregate is the processor that makes few data points of many: of data points, over an interval and over
// attributes; and of log records and spans, which it counts, sums up or sorts into buckets.
//
// It knows what data points mean (OpenTelemetry's metrics data model), and must not know where they come from or go to.
package aggregate

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/expr"
	"github.com/creelhq/creel/metric"
)

//go:embed example.yaml
var example string

// Plugin is the processor aggregate.
var Plugin = creel.WithWaits(creel.NewProcessor("aggregate", "Makes one data point of many within an interval, and data points of log records and spans.", New).WithExample(example), func(c Config) time.Duration {
	if c.Ack == "memory" {
		return 0
	}
	return c.Interval
})

// Config is the processor's options.
type Config struct {
	Interval  time.Duration `doc:"After this time the points that were made are sent on." default:"60s" min:"10ms"`
	Points    *Points       `doc:"What is done with data points. They pass as they are if absent."`
	Metrics   []Made        `doc:"Metrics that are made of log records and spans, as deltas over an interval." optional:"true" example:"[{name: errors, where: severity >= ERROR}]"`
	KeepInput bool          `doc:"Whether log records and spans pass on. If not, those that went into no metric are filtered." default:"true"`
	MaxSeries int           `doc:"Series, each with attributes of its own, that are kept at a time. Data points beyond them pass as they are; records go into one series with the attribute otel.metric.overflow. Both are counted as creel.aggregate.overflow." default:"10000" min:"1"`
	Ack       string        `doc:"When whoever waits for records is told. delivered: when the points that were made of them are; so a file's position trails by an interval. memory: as soon as they are counted; a crash loses one interval's points. An otlp collector needs memory unless its clients wait longer than an interval: else they send again what was counted." default:"delivered" enum:"delivered|memory"`
}

// Points says what is done with data points.
//
// Of gauges one value is kept; deltas of sums and of histograms with the same bounds are added up; of cumulative ones the
// last point is kept. If attributes are dropped, all points that are the same without them are one series: of cumulative
// sums and histograms, the sum of their latest points, which grows on when one of them begins anew or ends. Exponential
// histograms, summaries and points without a value pass as they are. Exemplars are not kept.
type Points struct {
	Where          expr.Condition `doc:"Which data points. All if absent." optional:"true" example:"name startsWith \"http.\""`
	Gauge          string         `doc:"What is kept of a gauge's values." default:"last" enum:"last|min|max|mean|sum"`
	DropAttributes []string       `doc:"Attributes that do not tell series apart any more." optional:"true" example:"[process.pid]"`
	KeepAttributes []string       `doc:"The only attributes that tell series apart." optional:"true" example:"[http.route]"`
}

// Made is a metric that is made of records.
type Made struct {
	Name        string                     `doc:"The metric's name." example:"shop.errors"`
	Description string                     `doc:"What it is, for its readers." optional:"true"`
	Unit        string                     `doc:"In UCUM, such as By, s or {request}." optional:"true" example:"By"`
	From        string                     `doc:"What it is made of." default:"logs" enum:"logs|traces"`
	Kind        string                     `doc:"count: the number of records. sum: of values that are not negative, as a counter. gauge: the last value. histogram: how many values fell into which bucket." default:"count" enum:"count|sum|gauge|histogram"`
	Value       expr.Expression            `doc:"The value of a record; a number, or text that is one. Records without one do not count. Not for count." optional:"true" example:"attributes[\"bytes\"]"`
	Where       expr.Condition             `doc:"Which records. All if absent." optional:"true" example:"severity >= ERROR"`
	By          map[string]expr.Expression `doc:"The points' attributes. The resource is that of the records." optional:"true" example:"{route: 'attributes[\"http.route\"]'}"`
	Buckets     []float64                  `doc:"A histogram's bounds." default:"0, 5, 10, 25, 50, 75, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10000"`
}

// Validate checks what no tag can say.
func (c *Config) Validate() error {
	if c.Points == nil && len(c.Metrics) == 0 {
		return errors.New("says nothing to do: give points, or metrics, or both; points: {} will do")
	}
	for i, m := range c.Metrics {
		if slices.ContainsFunc(c.Metrics[:i], func(o Made) bool { return o.Name == m.Name }) {
			return config.FieldError("metrics", fmt.Errorf("two of them are called %q", m.Name))
		}
	}
	return nil
}

// Validate checks what no tag can say.
func (p *Points) Validate() error {
	if len(p.DropAttributes) > 0 && len(p.KeepAttributes) > 0 {
		return config.FieldError("keep_attributes", errors.New("is there, and drop_attributes as well; one of them says it all"))
	}
	if !p.Where.IsZero() && !p.Where.Fits(creel.Metrics) {
		return config.FieldError("where", errors.New("speaks of what data points do not have"))
	}
	return nil
}

// Validate checks what no tag can say.
func (m *Made) Validate() error {
	if m.Name == "" {
		return config.FieldError("name", errors.New("must not be empty"))
	}
	if m.Kind == "count" && !m.Value.IsZero() {
		return config.FieldError("value", errors.New("has no use for kind: count; did you mean kind: sum?"))
	}
	if m.Kind != "count" && m.Value.IsZero() {
		return config.FieldError("value", fmt.Errorf("is needed for kind: %s", m.Kind))
	}
	for i := 1; i < len(m.Buckets); i++ {
		if m.Buckets[i] <= m.Buckets[i-1] {
			return config.FieldError("buckets", errors.New("must rise"))
		}
	}
	unfit := fmt.Errorf("speaks of what %s do not have", m.From)
	if !m.Where.IsZero() && !m.Where.Fits(m.signal()) {
		return config.FieldError("where", unfit)
	}
	if !m.Value.IsZero() && !m.Value.Fits(m.signal()) {
		return config.FieldError("value", unfit)
	}
	for _, e := range m.By {
		if !e.Fits(m.signal()) {
			return config.FieldError("by", unfit)
		}
	}
	return nil
}

func (m *Made) signal() creel.Signal {
	if m.From == "traces" {
		return creel.Traces
	}
	return creel.Logs
}

// aggregate is the processor.
type aggregate struct {
	Config
	memory   *creel.Memory
	makers   []*maker
	keep     func(attribute string) bool // whether it tells data points apart; nil if all do
	unusable *metric.Counter
	overflow *metric.Counter
	scratch  sync.Pool

	mu    sync.Mutex // guards what follows
	table table

	// held answers for all records that went into the points of this interval: whoever waits for one waits for these.
	held  *creel.Batch
	began int64 // when the interval began
}

// New returns the processor.
func New(c Config, h creel.Host) (creel.Processor, error) {
	a := &aggregate{
		Config: c, memory: h.Memory, keep: c.Points.keep(), began: time.Now().UnixNano(),
		unusable: h.Metrics.Counter("creel.aggregate.unusable", "Values that were no number, or not one for their kind of metric.", "{record}"),
		overflow: h.Metrics.Counter("creel.aggregate.overflow", "Records that came when there were too many series.", "{record}"),
	}
	a.table.init(c.MaxSeries)
	for i := range c.Metrics {
		a.makers = append(a.makers, newMaker(&c.Metrics[i], i))
	}
	return a, nil
}

// scratch is what a call of Process works with.
type scratch struct {
	hashes  []uint64 // by record; 0: it is left alone
	samples []sample
	values  []creel.Value
}

// Process takes b's records in, and sends on those that it leaves alone, or is to keep.
func (a *aggregate) Process(_ context.Context, b *creel.Batch, next creel.Next) error {
	s, _ := a.scratch.Get().(*scratch)
	if s == nil {
		s = &scratch{}
	}
	defer a.scratch.Put(s)
	var pass, counted *creel.Batch
	switch {
	case b.Len() == 0:
		pass = b
	case b.Signal() == creel.Metrics:
		pass, counted = a.takePoints(b, s)
	case !slices.ContainsFunc(a.makers, func(m *maker) bool { return m.signal() == b.Signal() }):
		pass = b
	default:
		pass, counted = a.takeRecords(b, s)
	}
	if counted != nil { // nobody shall wait for it: so it is settled
		next.Send(counted)
	}
	if pass != nil {
		next.Send(pass)
	}
	return nil
}

// answer makes what is sent at the interval's end answer for b. If nobody shall wait for that, it returns an empty batch
// that answers for b.
func (a *aggregate) answer(b *creel.Batch) *creel.Batch {
	switch {
	case a.Ack == "memory":
		counted := creel.NewMetrics(nil)
		counted.Absorb(b)
		return counted
	case a.held == nil:
		b.Hold()
		a.held = b
	default:
		a.held.Absorb(b)
	}
	return nil
}

// Run sends the points at the end of every interval, and when ctx is done.
func (a *aggregate) Run(ctx context.Context, next creel.Next) error {
	tick := time.NewTicker(a.Interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			a.flush(next)
		case <-ctx.Done():
			a.flush(next)
			return ctx.Err()
		}
	}
}

func (a *aggregate) flush(next creel.Next) {
	if out := a.collect(time.Now().UnixNano()); out != nil {
		next.Send(out)
	}
}

// collect returns the points of the interval that ends now, and begins the next.
func (a *aggregate) collect(now int64) *creel.Batch {
	a.mu.Lock()
	defer a.mu.Unlock()
	began, held := a.began, a.held
	a.began, a.held = now, nil
	var out *creel.Batch
	if held != nil || a.table.touched() {
		r := a.memory.NewRecords()
		a.table.total()
		for _, s := range a.table.series {
			if s.n > 0 && s.group == nil {
				r.Metrics = append(r.Metrics, a.point(s, began, now, r))
			}
		}
		out = creel.NewBatch(creel.Metrics, r)
		if held != nil {
			out.Absorb(held)
		}
	}
	a.table.forget()
	return out
}

// point returns the data point of a series.
func (a *aggregate) point(s *series, began, now int64, r *creel.Records) creel.Metric {
	m := creel.Metric{Origin: s.place.is, Desc: s.kind.is, Start: s.start, Time: s.time, Attrs: r.Attrs.Make(len(s.attrs))}
	copy(m.Attrs, s.attrs)
	if s.made != nil {
		m.Start, m.Time = began, now
	}
	switch m.Desc.Kind {
	case creel.Gauge:
		m.Start, m.Value = 0, s.value
		if s.made == nil && a.Points.Gauge == "mean" {
			m.Value = creel.Double(float(s.value) / float64(s.n))
		}
	case creel.Sum:
		m.Value = s.value
	case creel.HistogramKind:
		m.Histogram = s.histogram(r)
	}
	return m
}
