package expr

import (
	"encoding/hex"
	"slices"
	"strings"

	"github.com/creelhq/creel"
)

// eval is a compiled part of an expression.
type eval func(*Record) creel.Value

// A field is a name that stands for a part of a record. What has attrs is a map of which the field's places are entries.
type field struct {
	name, doc     string
	example, want string
	kinds         kinds
	takes         kinds       // what set takes, if that is not kinds
	names         [3][]string // if only these can be there, by signal
	get           [3]eval     // by signal, in creel's order; nil: records of it have no such field
	makes         bool        // get makes strings
	fixed         [3]bool     // by signal: it can be read only

	// set stores a value that can be there; an empty one deletes. It returns false for one that cannot be. nil: the
	// field cannot be changed.
	set func(*Record, creel.Value) bool

	// attrs returns the entries.
	attrs func(*Record) creel.Attrs
}

// can returns what can be stored.
func (f *field) can() kinds { return max(f.kinds, f.takes) }

func (f *field) fits(signal int) bool { return signal < 3 && f.get[signal] != nil }

// The names of numbers; where OTLP has nothing for 0, it is unspecified.
var (
	metricKinds = []string{"none", "gauge", "sum", "histogram", "exponential_histogram", "summary"}
	spanKinds   = []string{"unspecified", "internal", "server", "client", "producer", "consumer"}
	statusCodes = []string{"unset", "ok", "error"}
	signalNames = []string{"logs", "metrics", "traces"}
)

func name(names []string, i int) creel.Value {
	if i < 0 || i >= len(names) {
		return creel.Value{}
	}
	return creel.String(names[i])
}

// known returns a number that is empty when it is 0, which is how records say that they do not know.
func known(n int64) creel.Value {
	if n == 0 {
		return creel.Value{}
	}
	return creel.Int(n)
}

func logs(get eval) [3]eval    { return [3]eval{0: get} }
func metrics(get eval) [3]eval { return [3]eval{1: get} }
func spans(get eval) [3]eval   { return [3]eval{2: get} }
func all(get eval) [3]eval     { return [3]eval{get, get, get} }

var fields = []field{
	{name: "signal", doc: "The kind of telemetry: logs, metrics or traces.", example: `signal == "logs"`, want: `true`,
		kinds: text, names: [3][]string{signalNames, signalNames, signalNames},
		get: [3]eval{constant(creel.String("logs")), constant(creel.String("metrics")), constant(creel.String("traces"))}},
	{name: "body", doc: "A log's body: a string, or whatever else was logged; body.field and body[\"field\"] are entries of a map.", example: `body contains "timeout"`, want: `true`,
		kinds: anything &^ (moment | span | level), get: logs(func(r *Record) creel.Value { return r.Log.Body }),
		set:   func(r *Record, v creel.Value) bool { r.Log.Body = v; return true },
		attrs: func(r *Record) creel.Attrs { return r.Log.Body.Map() }},
	{name: "severity", doc: "A log's severity number, to be compared with TRACE, DEBUG, INFO, WARN, ERROR, FATAL and their finer steps such as INFO2; empty when it is unknown.", example: `severity >= WARN`, want: `true`,
		kinds: level, takes: level | text, get: logs(func(r *Record) creel.Value { return known(int64(r.Log.Severity)) }), set: setSeverity},
	{name: "severity_text", doc: "A log's severity as its source wrote it.", example: `severity_text`, want: `"error"`,
		kinds: text, get: logs(func(r *Record) creel.Value { return creel.String(r.Log.SeverityText) }),
		set: func(r *Record, v creel.Value) bool { r.Log.SeverityText = v.Str(); return true }},
	{name: "event", doc: "A log's event name.", example: `event == ""`, want: `true`,
		kinds: text, get: logs(func(r *Record) creel.Value { return creel.String(r.Log.Event) }),
		set: func(r *Record, v creel.Value) bool { r.Log.Event = v.Str(); return true }},
	{name: "time", doc: "When a log was written or a data point measured; empty when it is unknown.", example: `time > date("2026-01-01")`, want: `true`,
		kinds: moment,
		get:   [3]eval{func(r *Record) creel.Value { return known(r.Log.Time) }, func(r *Record) creel.Value { return known(r.Metric.Time) }, nil},
		set: func(r *Record, v creel.Value) bool {
			if r.Log != nil {
				r.Log.Time = v.Int()
			} else {
				r.Metric.Time = v.Int()
			}
			return true
		}},
	{name: "observed_time", doc: "When a log was collected; empty when it is unknown.", example: `(time ?? observed_time) == time`, want: `true`,
		kinds: moment, get: logs(func(r *Record) creel.Value { return known(r.Log.Observed) }),
		set: func(r *Record, v creel.Value) bool { r.Log.Observed = v.Int(); return true }},
	{name: "trace_id", doc: "The trace that a log or span belongs to, in lower-case hexadecimal, \"\" for none.", example: `trace_id`, want: `"0102030405060708090a0b0c0d0e0f10"`,
		kinds: text, makes: true, get: [3]eval{func(r *Record) creel.Value { return r.trace(&r.Log.TraceID) }, nil, func(r *Record) creel.Value { return r.trace(&r.Span.TraceID) }},
		set: func(r *Record, v creel.Value) bool {
			if r.Log != nil {
				return setID(r.Log.TraceID[:], v)
			}
			return setID(r.Span.TraceID[:], v)
		}},
	{name: "span_id", doc: "The span that a log belongs to, or a span itself, in lower-case hexadecimal, \"\" for none.", example: `span_id`, want: `"0102030405060708"`,
		kinds: text, makes: true, get: [3]eval{func(r *Record) creel.Value { return r.span(&r.Log.SpanID) }, nil, func(r *Record) creel.Value { return r.span(&r.Span.SpanID) }},
		set: func(r *Record, v creel.Value) bool {
			if r.Log != nil {
				return setID(r.Log.SpanID[:], v)
			}
			return setID(r.Span.SpanID[:], v)
		}},
	{name: "parent_id", doc: "A span's parent, in lower-case hexadecimal, \"\" for none.", example: `parent_id == ""`, want: `false`,
		kinds: text, makes: true, get: spans(func(r *Record) creel.Value { return r.span(&r.Span.Parent) }),
		set: func(r *Record, v creel.Value) bool { return setID(r.Span.Parent[:], v) }},
	{name: "flags", doc: "W3C trace flags of a log or span, OTLP's flags of a data point.", example: `flags`, want: `1`,
		kinds: integer, get: [3]eval{
			func(r *Record) creel.Value { return creel.Int(int64(r.Log.Flags)) },
			func(r *Record) creel.Value { return creel.Int(int64(r.Metric.Flags)) },
			func(r *Record) creel.Value { return creel.Int(int64(r.Span.Flags)) },
		}, set: setFlags},
	{name: "name", doc: "The name of a metric or span.", example: `name startsWith "http."`, want: `true`,
		kinds: text, get: [3]eval{nil, func(r *Record) creel.Value { return creel.String(r.Metric.Desc.Name) }, func(r *Record) creel.Value { return creel.String(r.Span.Name) }},
		set: func(r *Record, v creel.Value) bool {
			if r.Span != nil {
				r.Span.Name = v.Str()
				return true
			}
			return r.describe(placeName, v)
		}},
	{name: "description", doc: "A metric's description.", example: `description`, want: `"Requests that were served."`,
		kinds: text, get: metrics(func(r *Record) creel.Value { return creel.String(r.Metric.Desc.Description) }),
		set: func(r *Record, v creel.Value) bool { return r.describe(placeDescription, v) }},
	{name: "unit", doc: "A metric's unit, in UCUM.", example: `unit`, want: `"1"`,
		kinds: text, get: metrics(func(r *Record) creel.Value { return creel.String(r.Metric.Desc.Unit) }),
		set: func(r *Record, v creel.Value) bool { return r.describe(placeUnit, v) }},
	{name: "value", doc: "The number of a gauge or sum; empty for other data points.", example: `value * 2`, want: `14`,
		kinds: number, get: metrics(func(r *Record) creel.Value { return r.Metric.Value }),
		set: func(r *Record, v creel.Value) bool {
			if k := r.Metric.Desc.Kind; k != creel.Gauge && k != creel.Sum {
				return false
			}
			r.Metric.Value = v
			return true
		}},
	{name: "kind", doc: "A metric's kind (gauge, sum, histogram, exponential_histogram, summary) or a span's (unspecified, internal, server, client, producer, consumer).", example: `kind in ["gauge", "sum"]`, want: `true`,
		kinds: text, names: [3][]string{1: metricKinds, 2: spanKinds}, fixed: [3]bool{1: true},
		get: [3]eval{nil, func(r *Record) creel.Value { return name(metricKinds, int(r.Metric.Desc.Kind)) }, func(r *Record) creel.Value { return name(spanKinds, int(r.Span.Kind)) }},
		set: func(r *Record, v creel.Value) bool {
			i := max(0, slices.Index(spanKinds, v.Str()))
			if i == 0 && v.Str() != "" && v.Str() != spanKinds[0] {
				return false
			}
			r.Span.Kind = creel.SpanKind(i)
			return true
		}},
	{name: "status", doc: "A span's outcome: unset, ok or error.", example: `status == "error"`, want: `true`,
		kinds: text, names: [3][]string{2: statusCodes}, get: spans(func(r *Record) creel.Value { return name(statusCodes, int(r.Span.Status.Code)) }),
		set: func(r *Record, v creel.Value) bool {
			i := max(0, slices.Index(statusCodes, v.Str()))
			if i == 0 && v.Str() != "" && v.Str() != statusCodes[0] {
				return false
			}
			r.Span.Status.Code = creel.StatusCode(i)
			return true
		}},
	{name: "status_message", doc: "What went wrong in a span.", example: `status_message`, want: `"deadline exceeded"`,
		kinds: text, get: spans(func(r *Record) creel.Value { return creel.String(r.Span.Status.Message) }),
		set: func(r *Record, v creel.Value) bool { r.Span.Status.Message = v.Str(); return true }},
	{name: "start", doc: "When a span, or what a data point counts from, began.", example: `start < end`, want: `true`,
		kinds: moment, get: [3]eval{nil, func(r *Record) creel.Value { return known(r.Metric.Start) }, func(r *Record) creel.Value { return known(r.Span.Start) }},
		set: func(r *Record, v creel.Value) bool {
			if r.Span != nil {
				r.Span.Start = v.Int()
			} else {
				r.Metric.Start = v.Int()
			}
			return true
		}},
	{name: "end", doc: "When a span ended.", example: `end - start == duration`, want: `true`,
		kinds: moment, get: spans(func(r *Record) creel.Value { return known(r.Span.End) }),
		set: func(r *Record, v creel.Value) bool { r.Span.End = v.Int(); return true }},
	{name: "duration", doc: "How long a span took; empty when it has no end.", example: `duration > duration("1s")`, want: `true`,
		kinds: span, get: spans(func(r *Record) creel.Value {
			if r.Span.End == 0 {
				return creel.Value{}
			}
			return subtract(creel.Int(r.Span.End), creel.Int(r.Span.Start))
		})},
	{name: "state", doc: "A span's W3C tracestate.", example: `state == ""`, want: `true`,
		kinds: text, get: spans(func(r *Record) creel.Value { return creel.String(r.Span.State) }),
		set: func(r *Record, v creel.Value) bool { r.Span.State = v.Str(); return true }},
	{name: "attributes", doc: "The record's own attributes: attributes[\"http.status\"], or attributes.user for a plain name.", example: `attributes["http.status"] >= 500`, want: `true`,
		kinds: dict, get: all(func(r *Record) creel.Value { return creel.Map(*r.attrs()...) }),
		set:   func(r *Record, v creel.Value) bool { *r.attrs() = r.entries(v.Map(), 0, true); return true },
		attrs: func(r *Record) creel.Attrs { return *r.attrs() }},
	{name: "resource", doc: "The attributes of whatever the record comes from.", example: `resource["service.name"] == "cart"`, want: `true`,
		kinds: dict, get: all(func(r *Record) creel.Value { return creel.Map((*r.origin()).Resource.Attrs...) }),
		set:   func(r *Record, v creel.Value) bool { return r.change(placeResource, nil, v) },
		attrs: func(r *Record) creel.Attrs { return (*r.origin()).Resource.Attrs }},
	{name: "scope", doc: "The instrumentation scope: scope.name, scope.version, and its attributes.", example: `scope.name`, want: `"net/http"`,
		kinds: dict, get: all(func(r *Record) creel.Value { return creel.Map((*r.origin()).Scope.Attrs...) }),
		set:   func(r *Record, v creel.Value) bool { return r.change(placeScope, nil, v) },
		attrs: func(r *Record) creel.Attrs { return (*r.origin()).Scope.Attrs }},
}

// scopeFields are what of a scope is no attribute, though it is written like one.
var scopeFields = []field{
	{name: "name", kinds: text, get: all(func(r *Record) creel.Value { return creel.String((*r.origin()).Scope.Name) }),
		set: func(r *Record, v creel.Value) bool { return r.change(placeScopeName, nil, v) }},
	{name: "version", kinds: text, get: all(func(r *Record) creel.Value { return creel.String((*r.origin()).Scope.Version) }),
		set: func(r *Record, v creel.Value) bool { return r.change(placeScopeVersion, nil, v) }},
}

func constant(v creel.Value) eval { return func(*Record) creel.Value { return v } }

func lookup(table []field, name string) *field {
	for i := range table {
		if table[i].name == name {
			return &table[i]
		}
	}
	return nil
}

func (r *Record) trace(id *creel.TraceID) creel.Value {
	if *id == (creel.TraceID{}) {
		return creel.String("")
	}
	return r.hex(id[:])
}

func (r *Record) span(id *creel.SpanID) creel.Value {
	if *id == (creel.SpanID{}) {
		return creel.String("")
	}
	return r.hex(id[:])
}

func setID(id []byte, v creel.Value) bool {
	var b [16]byte
	s := v.Str()
	if s != "" && len(s) != 2*len(id) {
		return false
	}
	if _, err := hex.Decode(b[:], []byte(s)); err != nil {
		return false
	}
	copy(id, b[:])
	return true
}

func setFlags(r *Record, v creel.Value) bool {
	n := v.Int()
	if n < 0 || n > 1<<32-1 {
		return false
	}
	switch {
	case r.Log != nil:
		r.Log.Flags = uint32(n)
	case r.Metric != nil:
		r.Metric.Flags = uint32(n)
	default:
		r.Span.Flags = uint32(n)
	}
	return true
}

func setSeverity(r *Record, v creel.Value) bool {
	n := v.Int()
	if v.Kind() == creel.ValueString {
		s, ok := severity(strings.ToUpper(v.Str()))
		if !ok {
			return false
		}
		n = int64(s)
	}
	if n < 0 || n > int64(creel.SeverityFatal)+3 {
		return false
	}
	r.Log.Severity = creel.Severity(n)
	return true
}

// severity returns what a name such as INFO or WARN2 stands for.
func severity(name string) (creel.Severity, bool) {
	for s := creel.SeverityTrace; s <= creel.SeverityFatal+3; s++ {
		if s.String() == name {
			return s, true
		}
	}
	return 0, false
}
