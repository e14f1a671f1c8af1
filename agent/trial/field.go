package trial

import (
	"strings"
	"time"

	"github.com/creelhq/creel"
)

// A field is one thing that a record says: under its name in a configuration, which is the one that expressions have for
// it; scope.name and the like for those of the scope. An empty value or text says nothing.
type field struct {
	name  string
	value creel.Value
}

// fieldsOf returns everything that the i-th record of b says. The values alias the batch's memory.
func fieldsOf(b *creel.Batch, i int) []field {
	switch b.Signal() {
	case creel.Logs:
		return logFields(&b.Logs()[i])
	case creel.Metrics:
		return pointFields(&b.Metrics()[i])
	}
	return spanFields(&b.Spans()[i])
}

func text(s string) creel.Value { return creel.String(s) }

func timeValue(ns int64) creel.Value {
	t, _ := moment(ns).MarshalText() // cannot fail
	return text(string(t))
}

func originFields(o *creel.Origin, as creel.Attrs) []field {
	if o == nil {
		o = &creel.Origin{}
	}
	return []field{
		{"attributes", creel.Map(as...)}, {"resource", creel.Map(o.Resource.Attrs...)},
		{"scope.name", text(o.Scope.Name)}, {"scope.version", text(o.Scope.Version)}, {"scope.attributes", creel.Map(o.Scope.Attrs...)},
	}
}

func logFields(l *creel.Log) []field {
	sev, _ := severity(l.Severity).MarshalText() // cannot fail
	return append([]field{
		{"time", timeValue(l.Time)}, {"observed_time", timeValue(l.Observed)}, {"severity", text(string(sev))}, {"severity_text", text(l.SeverityText)}, {"event", text(l.Event)},
		{"body", l.Body}, {"trace_id", text(l.TraceID.String())}, {"span_id", text(l.SpanID.String())},
	}, originFields(l.Origin, l.Attrs)...)
}

func pointFields(m *creel.Metric) []field {
	d := m.Desc
	if d == nil {
		d = &creel.Descriptor{}
	}
	fields := []field{
		{"time", timeValue(m.Time)}, {"start", timeValue(m.Start)}, {"name", text(d.Name)}, {"kind", text(name(metricKinds, d.Kind))},
		{"description", text(d.Description)}, {"unit", text(d.Unit)}, {"value", m.Value}, {"temporality", text(name(temporalities, d.Temporality))},
	}
	if d.Kind == creel.Sum {
		fields = append(fields, field{"monotonic", creel.Bool(d.Monotonic)})
	}
	switch {
	case m.Histogram != nil:
		h := m.Histogram
		fields = append(fields, distribution(h.Count, h.Sum, h.Min, h.Max)...)
		fields = append(fields, field{"bounds", listOf(h.Bounds, creel.Double)}, field{"counts", listOf(h.Counts, countValue)})
	case m.Exponential != nil:
		h := m.Exponential
		fields = append(fields, distribution(h.Count, h.Sum, h.Min, h.Max)...)
	case m.Summary != nil:
		fields = append(fields, distribution(m.Summary.Count, creel.Optional{Value: m.Summary.Sum, Valid: true}, creel.Optional{}, creel.Optional{})...)
	}
	return append(fields, originFields(m.Origin, m.Attrs)...)
}

func distribution(count uint64, sum, least, most creel.Optional) []field {
	fields := []field{{"count", countValue(count)}, {"sum", creel.Value{}}, {"min", creel.Value{}}, {"max", creel.Value{}}}
	for i, v := range []creel.Optional{sum, least, most} {
		if v.Valid {
			fields[i+1].value = creel.Double(v.Value)
		}
	}
	return fields
}

func countValue(n uint64) creel.Value { return creel.Int(int64(n)) }

func listOf[T any](from []T, value func(T) creel.Value) creel.Value {
	list := make([]creel.Value, len(from))
	for i, v := range from {
		list[i] = value(v)
	}
	return creel.List(list...)
}

func spanFields(s *creel.Span) []field {
	duration := ""
	if s.End != s.Start {
		duration = time.Duration(s.End - s.Start).String()
	}
	return append([]field{
		{"start", timeValue(s.Start)}, {"duration", text(duration)}, {"name", text(s.Name)}, {"kind", text(name(spanKinds, s.Kind))},
		{"status", text(name(statuses, s.Status.Code))}, {"status_message", text(s.Status.Message)},
		{"trace_id", text(s.TraceID.String())}, {"span_id", text(s.SpanID.String())}, {"parent_id", text(s.Parent.String())},
		{"state", text(s.State)},
	}, originFields(s.Origin, s.Attrs)...)
}

// silent reports whether a field says nothing.
func (f field) silent() bool {
	v := f.value
	return v.Kind() == creel.ValueEmpty || v.Kind() == creel.ValueString && v.Str() == "" ||
		v.Kind() == creel.ValueMap && len(v.Map()) == 0 || v.Kind() == creel.ValueList && len(v.List()) == 0 ||
		f.name == "status" && v.Str() == statuses[0]
}

// Append appends the i-th record of b as one writes it among a test's records, as JSON in one line. Control characters
// are escaped.
func Append(dst []byte, b *creel.Batch, i int) []byte { return appendFields(dst, fieldsOf(b, i)) }

// appendFields appends what fields say as a JSON object. Those of the scope stand together.
func appendFields(dst []byte, fields []field) []byte {
	var record, scope creel.Attrs
	for _, f := range fields {
		if f.silent() {
			continue
		}
		if inner, ok := strings.CutPrefix(f.name, "scope."); ok {
			scope = append(scope, creel.Attr{Key: inner, Value: f.value})
			continue
		}
		record = append(record, creel.Attr{Key: f.name, Value: f.value})
	}
	if len(scope) > 0 {
		record = append(record, creel.Attr{Key: "scope", Value: creel.Map(scope...)})
	}
	return record.Append(dst)
}
