// Package debug is the exporter that prints records, for people who look whether data flows.
package debug

import (
	"context"
	_ "embed"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/creelhq/creel"
)

//go:embed example.yaml
var example string

// Plugin is the exporter debug.
var Plugin = creel.NewExporter("debug", "Prints records, a sample of them if there are many.", New).WithExample(example)

// Config is the exporter's options.
type Config struct {
	To                 string `doc:"Where to print." default:"stdout" enum:"stdout|stderr"`
	Verbosity          string `doc:"How much to print: a line a batch, a line a record, or everything that a record holds." default:"normal" enum:"basic|normal|detailed"`
	SamplingInitial    int    `doc:"Records to print of each second before sampling begins." default:"20" min:"0"`
	SamplingThereafter int    `doc:"After these, print every so many-th record of the second; 0 for none." default:"0" min:"0"`
}

// New returns the exporter.
func New(c Config, _ creel.Host) (creel.Exporter, error) {
	out := io.Writer(os.Stdout)
	if c.To == "stderr" {
		out = os.Stderr
	}
	return &exporter{Config: c, out: out, now: time.Now}, nil
}

type exporter struct {
	Config
	out io.Writer
	now func() time.Time

	mu     sync.Mutex // guards what follows, and keeps the lines of one export together
	second int64
	seen   int // records of this second
	hidden int // of them, not printed
	buf    []byte
}

// Export prints what the sampling lets through, with one write.
func (x *exporter) Export(_ context.Context, batches []*creel.Batch) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.buf = x.buf[:0]
	for _, b := range batches {
		if x.Verbosity == "basic" {
			x.buf = fmt.Appendf(x.buf, "%v: %d records, %d bytes\n", b.Signal(), b.Len(), b.Bytes())
			continue
		}
		switch b.Signal() {
		case creel.Logs:
			for i := range b.Logs() {
				x.line(func() { x.log(&b.Logs()[i]) })
			}
		case creel.Metrics:
			for i := range b.Metrics() {
				x.line(func() { x.metric(&b.Metrics()[i]) })
			}
		case creel.Traces:
			for i := range b.Spans() {
				x.line(func() { x.span(&b.Spans()[i]) })
			}
		}
	}
	if len(x.buf) == 0 {
		return nil
	}
	if _, err := x.out.Write(x.buf); err != nil {
		return fmt.Errorf("print records: %w", err)
	}
	return nil
}

// line prints one record if the sampling lets it through.
func (x *exporter) line(print func()) {
	if s := x.now().Unix(); s != x.second {
		if x.hidden > 0 {
			x.buf = fmt.Appendf(x.buf, "… and %d more in that second\n", x.hidden)
		}
		x.second, x.seen, x.hidden = s, 0, 0
	}
	x.seen++
	if over := x.seen - x.SamplingInitial; over > 0 && (x.SamplingThereafter == 0 || over%x.SamplingThereafter != 0) {
		x.hidden++
		return
	}
	print()
	x.buf = append(x.buf, '\n')
}

// clean makes text that came from outside harmless to a terminal: control characters are escaped.
func clean(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) < 0 {
		return s
	}
	q := strconv.Quote(s)
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}

func (x *exporter) put(parts ...string) {
	for _, p := range parts {
		x.buf = append(x.buf, p...)
	}
}

func (x *exporter) time(ns int64) {
	if ns == 0 {
		x.put("-")
		return
	}
	x.buf = time.Unix(0, ns).UTC().AppendFormat(x.buf, "2006-01-02T15:04:05.000Z")
}

// attrs prints attributes as {a=1 b=x}.
func (x *exporter) attrs(as creel.Attrs) {
	if len(as) == 0 {
		return
	}
	x.put(" {")
	for i, a := range as {
		if i > 0 {
			x.put(" ")
		}
		x.put(clean(a.Key), "=", clean(a.Value.String()))
	}
	x.put("}")
}

// origin prints who a record is from: for normal verbosity the service or host only.
func (x *exporter) origin(o *creel.Origin) {
	if o == nil {
		return
	}
	if x.Verbosity == "detailed" {
		x.put(" resource")
		x.attrs(o.Resource.Attrs)
		x.put(" scope=", clean(o.Scope.Name), "@", clean(o.Scope.Version))
		x.attrs(o.Scope.Attrs)
		return
	}
	for _, key := range []string{"service.name", "host.name"} {
		if v, ok := o.Resource.Attrs.Get(key); ok {
			x.put(" ", clean(v.String()))
			return
		}
	}
}

func (x *exporter) log(l *creel.Log) {
	x.put("log ")
	at := l.Time
	if at == 0 {
		at = l.Observed
	}
	x.time(at)
	severity := l.SeverityText
	if severity == "" {
		severity = l.Severity.String()
	}
	if severity != "" {
		x.put(" ", clean(severity))
	}
	x.origin(l.Origin)
	x.put(" ", clean(l.Body.String()))
	x.attrs(l.Attrs)
	if x.Verbosity == "detailed" {
		x.put(" event=", clean(l.Event), " trace=", l.TraceID.String(), " span=", l.SpanID.String())
		x.buf = fmt.Appendf(x.buf, " flags=%d dropped=%d observed=", l.Flags, l.Dropped)
		x.time(l.Observed)
	}
}

func (x *exporter) metric(m *creel.Metric) {
	x.put("metric ")
	x.time(m.Time)
	x.origin(m.Origin)
	unit := ""
	if m.Desc != nil {
		x.put(" ", clean(m.Desc.Name))
		unit = m.Desc.Unit
	}
	x.attrs(m.Attrs)
	x.put(" ")
	switch {
	case m.Histogram != nil:
		h := m.Histogram
		x.buf = fmt.Appendf(x.buf, "count=%d sum=%v", h.Count, h.Sum.Value)
		if x.Verbosity == "detailed" {
			x.buf = fmt.Appendf(x.buf, " bounds=%v counts=%v", h.Bounds, h.Counts)
		}
	case m.Exponential != nil:
		h := m.Exponential
		x.buf = fmt.Appendf(x.buf, "count=%d sum=%v", h.Count, h.Sum.Value)
		if x.Verbosity == "detailed" {
			x.buf = fmt.Appendf(x.buf, " scale=%d zero=%d positive=%v negative=%v", h.Scale, h.ZeroCount, h.Positive, h.Negative)
		}
	case m.Summary != nil:
		x.buf = fmt.Appendf(x.buf, "count=%d sum=%v quantiles=%v", m.Summary.Count, m.Summary.Sum, m.Summary.Quantiles)
	default:
		x.put(m.Value.String())
	}
	x.put(" ", clean(unit))
	if x.Verbosity == "detailed" {
		x.put(" since ")
		x.time(m.Start)
		x.buf = fmt.Appendf(x.buf, " flags=%d exemplars=%d", m.Flags, len(m.Exemplars))
	}
}

func (x *exporter) span(s *creel.Span) {
	x.put("span ")
	x.time(s.Start)
	x.origin(s.Origin)
	x.buf = fmt.Appendf(x.buf, " %s %v %s/%s", clean(s.Name), time.Duration(s.End-s.Start), s.TraceID, s.SpanID)
	if s.Status.Code == creel.StatusError {
		x.put(" error ", clean(s.Status.Message))
	}
	x.attrs(s.Attrs)
	if x.Verbosity != "detailed" {
		return
	}
	x.buf = fmt.Appendf(x.buf, " parent=%s kind=%d flags=%d state=%s", s.Parent, s.Kind, s.Flags, clean(s.State))
	for i := range s.Events {
		x.put(" event=", clean(s.Events[i].Name))
		x.attrs(s.Events[i].Attrs)
	}
	for i := range s.Links {
		x.put(" link=", s.Links[i].TraceID.String(), "/", s.Links[i].SpanID.String())
		x.attrs(s.Links[i].Attrs)
	}
}
