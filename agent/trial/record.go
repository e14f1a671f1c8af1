package trial

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
)

// origin is what records of every signal may say of where they come from.
type origin struct {
	Attributes map[string]json.RawMessage `doc:"Attributes. What is expected is a part of what arrives; null: there must be none of that name." optional:"true" example:"{user: ann, debug: null}"`
	Resource   map[string]json.RawMessage `doc:"Attributes of the resource, compared as attributes are." optional:"true" example:"{service.name: cart}"`
	Scope      scope                      `doc:"The instrumentation scope."`
}

type scope struct {
	Name       string                     `doc:"Its name." optional:"true"`
	Version    string                     `doc:"Its version." optional:"true"`
	Attributes map[string]json.RawMessage `doc:"Its attributes, compared as those of the record are." optional:"true"`
}

// logRecord is a log record as one writes it.
type logRecord struct {
	Body         json.RawMessage `doc:"The body: text, a number, a list, a map." optional:"true"`
	Severity     severity        `doc:"TRACE, DEBUG, INFO, WARN, ERROR or FATAL, one of its steps such as INFO2, or OpenTelemetry's number." optional:"true" example:"ERROR"`
	SeverityText string          `doc:"The severity as the source wrote it." optional:"true"`
	Event        string          `doc:"Event name." optional:"true"`
	Time         moment          `doc:"When it was written, as in RFC 3339." optional:"true" example:"2026-01-02T15:04:05Z"`
	ObservedTime moment          `doc:"When it was collected." optional:"true"`
	TraceID      traceID         `doc:"32 hexadecimal digits." optional:"true"`
	SpanID       spanID          `doc:"16 hexadecimal digits." optional:"true"`
	origin
}

// point is a metric's data point as one writes it.
type point struct {
	Name        string    `doc:"The metric's name." optional:"true"`
	Description string    `doc:"What the metric is." optional:"true"`
	Kind        string    `doc:"The metric's kind; of what is given, gauge if it is not said. Exponential histograms and summaries can be expected only." optional:"true" enum:"gauge|sum|histogram|exponential_histogram|summary"`
	Unit        string    `doc:"The metric's unit." optional:"true"`
	Value       number    `doc:"The value of a gauge or sum." optional:"true"`
	Temporality string    `doc:"Of a sum or histogram; of what is given, cumulative if it is not said." optional:"true" enum:"delta|cumulative"`
	Monotonic   bool      `doc:"Whether a sum only grows." default:"true"`
	Time        moment    `doc:"When it was measured, as in RFC 3339." optional:"true" example:"2026-01-02T15:04:05Z"`
	Start       moment    `doc:"Since when a sum or histogram counts." optional:"true"`
	Count       uint64    `doc:"How many values a histogram or summary is of." optional:"true"`
	Sum         number    `doc:"Their sum." optional:"true"`
	Min         number    `doc:"The least of a histogram's values." optional:"true"`
	Max         number    `doc:"The greatest." optional:"true"`
	Bounds      []float64 `doc:"Upper bounds of a histogram's buckets, without the last one's." optional:"true" example:"[0.1, 1]"`
	Counts      []uint64  `doc:"Values in each bucket." optional:"true" example:"[3, 1, 0]"`
	origin
}

// span is a span as one writes it.
type span struct {
	Name          string        `doc:"What the operation is called." optional:"true"`
	Kind          string        `doc:"Its role in the trace." optional:"true" enum:"internal|server|client|producer|consumer"`
	Status        string        `doc:"Its outcome." optional:"true" enum:"unset|ok|error"`
	StatusMessage string        `doc:"What went wrong." optional:"true"`
	Start         moment        `doc:"When it began, as in RFC 3339." optional:"true" example:"2026-01-02T15:04:05Z"`
	Duration      time.Duration `doc:"How long it took." optional:"true" example:"20ms"`
	TraceID       traceID       `doc:"32 hexadecimal digits." optional:"true"`
	SpanID        spanID        `doc:"16 hexadecimal digits." optional:"true"`
	ParentID      spanID        `doc:"16 hexadecimal digits." optional:"true"`
	State         string        `doc:"W3C tracestate." optional:"true"`
	origin
}

// schemaOf describes how records of a signal are written.
func schemaOf(s creel.Signal) config.Schema {
	switch s {
	case creel.Metrics:
		return config.Of[point]()
	case creel.Traces:
		return config.Of[span]()
	}
	return config.Of[logRecord]()
}

// moment is a time in nanoseconds since the Unix epoch, 0 for unknown.
type moment int64

// UnmarshalText reads RFC 3339, and nothing as an unknown time.
func (m *moment) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*m = 0
		return nil
	}
	t, err := time.Parse(time.RFC3339Nano, string(text))
	if err != nil {
		return fmt.Errorf("must be a time such as 2026-01-02T15:04:05Z, got %q", text)
	}
	*m = moment(t.UnixNano())
	return nil
}

// MarshalText writes RFC 3339 in UTC, nothing for an unknown time.
func (m moment) MarshalText() ([]byte, error) {
	if m == 0 {
		return nil, nil
	}
	return time.Unix(0, int64(m)).UTC().AppendFormat(nil, time.RFC3339Nano), nil
}

type severity creel.Severity

// UnmarshalText reads a name, a number or, for an unknown severity, nothing.
func (s *severity) UnmarshalText(text []byte) error {
	for n := creel.Severity(0); n <= 24; n++ {
		if strings.EqualFold(n.String(), string(text)) || strconv.Itoa(int(n)) == string(text) {
			*s = severity(n)
			return nil
		}
	}
	return fmt.Errorf("must be a severity such as INFO or ERROR2, or a number from 0 to 24, got %q", text)
}

// MarshalText writes the name, or the number if it has none and is not 0.
func (s severity) MarshalText() ([]byte, error) {
	if name := creel.Severity(s).String(); name != "" || s == 0 {
		return []byte(name), nil
	}
	return strconv.AppendInt(nil, int64(s), 10), nil
}

type traceID creel.TraceID

// UnmarshalText reads 32 hexadecimal digits, or nothing.
func (id *traceID) UnmarshalText(text []byte) error { return unhex(id[:], text) }

// MarshalText writes them.
func (id traceID) MarshalText() ([]byte, error) { return []byte(creel.TraceID(id).String()), nil }

type spanID creel.SpanID

// UnmarshalText reads 16 hexadecimal digits, or nothing.
func (id *spanID) UnmarshalText(text []byte) error { return unhex(id[:], text) }

// MarshalText writes them.
func (id spanID) MarshalText() ([]byte, error) { return []byte(creel.SpanID(id).String()), nil }

func unhex(id, text []byte) error {
	if len(text) == 0 {
		clear(id)
		return nil
	}
	if len(text) != 2*len(id) {
		return fmt.Errorf("must be %d hexadecimal digits in quotes, got %q", 2*len(id), text)
	}
	if _, err := hex.Decode(id, text); err != nil {
		return fmt.Errorf("must be %d hexadecimal digits in quotes, got %q", 2*len(id), text)
	}
	return nil
}

// number is an integer or a floating-point number, as it is written.
type number struct{ creel.Value }

// UnmarshalText reads 3, 3.0 or 3e9.
func (n *number) UnmarshalText(text []byte) error {
	if !json.Valid(text) || numberOf(string(text)).Kind() == creel.ValueEmpty {
		return fmt.Errorf("must be a number, got %q", text)
	}
	n.Value = numberOf(string(text))
	return nil
}

// MarshalText writes the number.
func (n number) MarshalText() ([]byte, error) { return n.Append(nil), nil }

func (n number) float() creel.Optional {
	switch n.Kind() {
	case creel.ValueInt:
		return creel.Optional{Value: float64(n.Int()), Valid: true}
	case creel.ValueDouble:
		return creel.Optional{Value: n.Double(), Valid: true}
	}
	return creel.Optional{}
}

// numberOf returns what a JSON number means: an integer, unless it is written with a fraction or an exponent, or is too
// large for one.
func numberOf(text string) creel.Value {
	if !strings.ContainsAny(text, ".eE") && text != "-0" {
		if i, err := strconv.ParseInt(text, 10, 64); err == nil {
			return creel.Int(i)
		}
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return creel.Value{}
	}
	return creel.Double(f)
}

// valueOf returns what canonical options have where anything may stand. Maps keep the order of the file.
func valueOf(text json.RawMessage) creel.Value {
	if len(text) == 0 {
		return creel.Value{}
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	return readValue(dec)
}

func readValue(dec *json.Decoder) creel.Value {
	token, err := dec.Token()
	if err != nil && err != io.EOF {
		panic("BUG: canonical options are no JSON: " + err.Error())
	}
	switch t := token.(type) {
	case string:
		return creel.String(t)
	case bool:
		return creel.Bool(t)
	case json.Number:
		return numberOf(t.String())
	case json.Delim:
		var list []creel.Value
		var entries []creel.Attr
		for dec.More() {
			if t == '{' {
				key := readValue(dec).Str()
				entries = append(entries, creel.Attr{Key: key, Value: readValue(dec)})
			} else {
				list = append(list, readValue(dec))
			}
		}
		_, _ = dec.Token() // the end
		if t == '{' {
			return creel.Map(entries...)
		}
		return creel.List(list...)
	}
	return creel.Value{}
}

// attrs returns attributes in the order of the file, which n is a part of.
func attrs(m map[string]json.RawMessage, n *config.Node) creel.Attrs {
	var as creel.Attrs
	for key := range n.Entries() {
		as = append(as, creel.Attr{Key: key, Value: valueOf(m[key])})
	}
	return as
}

// appendRecord appends the record that n describes to r. n was checked, and gave these canonical options.
func appendRecord(r *creel.Records, s creel.Signal, canonical []byte, n *config.Node) {
	switch s {
	case creel.Logs:
		l := decode[logRecord](canonical)
		r.Logs = append(r.Logs, creel.Log{
			Origin: l.make(n), Time: int64(l.Time), Observed: int64(l.ObservedTime), Body: valueOf(l.Body), Attrs: attrs(l.Attributes, n.Get("attributes")),
			Severity: creel.Severity(l.Severity), SeverityText: l.SeverityText, Event: l.Event,
			TraceID: creel.TraceID(l.TraceID), SpanID: creel.SpanID(l.SpanID),
		})
	case creel.Metrics:
		p := decode[point](canonical)
		m := creel.Metric{Origin: p.make(n), Start: int64(p.Start), Time: int64(p.Time), Attrs: attrs(p.Attributes, n.Get("attributes"))}
		p.fill(&m)
		r.Metrics = append(r.Metrics, m)
	case creel.Traces:
		sp := decode[span](canonical)
		r.Spans = append(r.Spans, creel.Span{
			Origin: sp.make(n), TraceID: creel.TraceID(sp.TraceID), SpanID: creel.SpanID(sp.SpanID), Parent: creel.SpanID(sp.ParentID),
			Kind: creel.SpanKind(max(0, slices.Index(spanKinds, sp.Kind))), State: sp.State, Name: sp.Name,
			Start: int64(sp.Start), End: int64(sp.Start) + int64(sp.Duration), Attrs: attrs(sp.Attributes, n.Get("attributes")),
			Status: creel.Status{Code: creel.StatusCode(max(0, slices.Index(statuses, sp.Status))), Message: sp.StatusMessage},
		})
	}
}

func decode[T any](canonical []byte) T {
	t, err := config.Decode[T](canonical)
	if err != nil {
		panic("BUG: checked options do not decode: " + err.Error())
	}
	return t
}

// The names of what OTLP has as numbers, by these.
var (
	metricKinds   = []string{"", "gauge", "sum", "histogram", "exponential_histogram", "summary"}
	temporalities = []string{"", "delta", "cumulative"}
	spanKinds     = []string{"", "internal", "server", "client", "producer", "consumer"}
	statuses      = []string{"unset", "ok", "error"}
)

// name returns one of names; the number itself when it is none of OTLP's.
func name[N ~uint8 | ~int32](names []string, n N) string {
	if int(n) >= 0 && int(n) < len(names) {
		return names[n]
	}
	return strconv.Itoa(int(n))
}

func (o origin) make(n *config.Node) *creel.Origin {
	sc := n.Get("scope")
	return &creel.Origin{
		Resource: creel.Resource{Attrs: attrs(o.Resource, n.Get("resource"))},
		Scope:    creel.Scope{Name: o.Scope.Name, Version: o.Scope.Version, Attrs: attrs(o.Scope.Attributes, sc.Get("attributes"))},
	}
}

// fill makes m what p says of the metric and its value.
func (p point) fill(m *creel.Metric) {
	kind := creel.MetricKind(max(1, slices.Index(metricKinds, p.Kind)))
	d := &creel.Descriptor{Name: p.Name, Description: p.Description, Unit: p.Unit, Kind: kind}
	m.Desc, m.Value = d, p.Value.Value
	if kind == creel.Gauge {
		return
	}
	d.Temporality = creel.Cumulative
	if p.Temporality == "delta" {
		d.Temporality = creel.Delta
	}
	if kind == creel.Sum {
		d.Monotonic = p.Monotonic
		return
	}
	m.Value = creel.Value{}
	switch kind {
	case creel.HistogramKind:
		m.Histogram = &creel.Histogram{Count: p.Count, Sum: p.Sum.float(), Min: p.Min.float(), Max: p.Max.float(), Bounds: p.Bounds, Counts: p.Counts}
	case creel.ExponentialKind:
		m.Exponential = &creel.ExponentialHistogram{Count: p.Count, Sum: p.Sum.float(), Min: p.Min.float(), Max: p.Max.float()}
	case creel.SummaryKind:
		m.Summary = &creel.Summary{Count: p.Count, Sum: p.Sum.float().Value}
	}
}
