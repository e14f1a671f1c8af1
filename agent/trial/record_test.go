package trial

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"pgregory.net/rapid"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
)

// drawValue draws what can be written in a configuration: everything but bytes and what an empty list or text says.
func drawValue(t *rapid.T, depth int) creel.Value {
	text := rapid.StringMatching("[a-z {}\"\\\\\u00e9\u0007\n]{1,8}")
	switch rapid.IntRange(0, 5-min(2, depth)).Draw(t, "kind") {
	case 0:
		return creel.String(text.Draw(t, "text"))
	case 1:
		return creel.Int(rapid.Int64().Draw(t, "int"))
	case 2:
		return creel.Double(rapid.Float64().Draw(t, "double"))
	case 3:
		return creel.Bool(rapid.Bool().Draw(t, "bool"))
	case 4:
		return creel.List(rapid.SliceOfN(rapid.Custom(func(t *rapid.T) creel.Value { return drawValue(t, depth+1) }), 1, 3).Draw(t, "list")...)
	}
	return creel.Map(drawAttrs(t, depth+1)...)
}

func drawAttrs(t *rapid.T, depth int) creel.Attrs {
	var as creel.Attrs
	for range rapid.IntRange(0, 3).Draw(t, "attributes") {
		as.Set(rapid.StringMatching(`[a-z. \n]{1,5}`).Draw(t, "key"), drawValue(t, depth))
	}
	return as
}

func drawBatch(t *rapid.T) *creel.Batch {
	text, ns := rapid.StringMatching("[a-z \u0007]{0,4}"), rapid.Int64Range(0, 4e18)
	origin := &creel.Origin{
		Resource: creel.Resource{Attrs: drawAttrs(t, 0)},
		Scope:    creel.Scope{Name: text.Draw(t, "scope"), Version: text.Draw(t, "version"), Attrs: drawAttrs(t, 0)},
	}
	var trace creel.TraceID
	var span creel.SpanID
	copy(trace[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "trace"))
	copy(span[:], rapid.SliceOfN(rapid.Byte(), 8, 8).Draw(t, "span"))
	attrs := drawAttrs(t, 0)
	switch rapid.SampledFrom(creel.Signals()).Draw(t, "signal") {
	case creel.Logs:
		return creel.NewLogs([]creel.Log{{
			Origin: origin, Time: ns.Draw(t, "time"), Observed: ns.Draw(t, "observed"), Body: drawValue(t, 0), Attrs: attrs, Severity: creel.Severity(rapid.IntRange(0, 24).Draw(t, "severity")),
			SeverityText: text.Draw(t, "severity text"), Event: text.Draw(t, "event"), TraceID: trace, SpanID: span,
		}})
	case creel.Metrics:
		m := creel.Metric{Origin: origin, Time: ns.Draw(t, "time"), Attrs: attrs, Desc: &creel.Descriptor{Name: text.Draw(t, "name"), Description: text.Draw(t, "description"), Unit: text.Draw(t, "unit"), Kind: creel.Gauge}}
		switch rapid.IntRange(0, 2).Draw(t, "metric") {
		case 0:
			m.Value = creel.Double(rapid.Float64().Draw(t, "value"))
		case 1:
			m.Value, m.Start = creel.Int(rapid.Int64().Draw(t, "value")), ns.Draw(t, "start")
			m.Desc.Kind, m.Desc.Temporality, m.Desc.Monotonic = creel.Sum, creel.Delta, rapid.Bool().Draw(t, "monotonic")
		case 2:
			m.Desc.Kind, m.Desc.Temporality = creel.HistogramKind, creel.Cumulative
			m.Histogram = &creel.Histogram{Count: 3, Sum: creel.Optional{Value: rapid.Float64().Draw(t, "sum"), Valid: true}, Bounds: []float64{.5, 1}, Counts: []uint64{1, 2, 0}}
		}
		return creel.NewMetrics([]creel.Metric{m})
	}
	start := ns.Draw(t, "time")
	return creel.NewSpans([]creel.Span{{
		Origin: origin, Start: start, End: start + rapid.Int64Range(0, 1e14).Draw(t, "duration"), Attrs: attrs, Name: text.Draw(t, "name"),
		Kind: creel.SpanKind(rapid.IntRange(0, 5).Draw(t, "kind")), TraceID: trace, SpanID: span, Parent: span, State: text.Draw(t, "state"),
		Status: creel.Status{Code: creel.StatusCode(rapid.IntRange(0, 2).Draw(t, "status")), Message: text.Draw(t, "message")},
	}})
}

// readRecord is what Compile and a run make of a record.
func readRecord(s creel.Signal, file, text string) (record, *creel.Batch, error) {
	root, err := config.Parse(file, []byte(text), config.Env{})
	if err != nil {
		return record{}, nil, err
	}
	canonical, errs := schemaOf(s).Check(root)
	if len(errs) > 0 {
		return record{}, nil, errs
	}
	r := &creel.Records{}
	appendRecord(r, s, canonical, root)
	return record{root, canonical, text}, creel.NewBatch(s, r), nil
}

// TestAppendIsReadBack: what is appended of any record can be given, and then is the same record; and it can be expected
// of the record, which fits it.
func TestAppendIsReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := drawBatch(t)
		line := Append(nil, b, 0)
		if !json.Valid(line) || bytes.ContainsAny(line, "\n\u0007") {
			t.Fatalf("%q is no line of JSON", line)
		}
		for _, file := range []string{"r.json", "r.yaml"} {
			r, again, err := readRecord(b.Signal(), file, string(line))
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			if second := Append(nil, again, 0); !bytes.Equal(line, second) {
				t.Fatalf("%s\nis read as\n%s", line, second)
			}
			if p := differ(r.named(), arrival{fields: fieldsOf(b, 0)}); len(p) > 0 {
				t.Fatalf("%s\ndoes not fit: %v", line, p)
			}
		}
	})
}

func TestSame(t *testing.T) {
	const big = 1<<53 + 1
	f := func(want, got creel.Value, equal bool) {
		t.Helper()
		if same(want, got) != equal || same(got, want) != equal {
			t.Errorf("%v and %v are the same: %t", want, got, !equal)
		}
	}
	f(creel.Int(3), creel.Double(3), true)
	f(creel.Int(3), creel.Double(3.5), false)
	f(creel.Int(big), creel.Double(big), false)
	f(creel.Int(1<<63-1), creel.Double(1<<63), false)
	f(creel.Int(-1<<63), creel.Double(-1<<63), true)
	f(creel.Double(0), creel.Double(-1/1e400), true)
	f(creel.String("3"), creel.Int(3), false)
	f(creel.Map(creel.Attr{Key: "a", Value: creel.Int(1)}, creel.Attr{Key: "b"}), creel.Map(creel.Attr{Key: "b"}, creel.Attr{Key: "a", Value: creel.Double(1)}), true)
	f(creel.Map(creel.Attr{Key: "a"}), creel.Map(creel.Attr{Key: "b"}), false)
	f(creel.List(creel.Int(1), creel.Int(2)), creel.List(creel.Int(2), creel.Int(1)), false)
}

// TestJSONSchema: an editor takes what Compile takes.
func TestJSONSchema(t *testing.T) {
	text, err := json.Marshal(JSONSchema())
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("tests.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("tests.json")
	if err != nil {
		t.Fatal(err)
	}
	f := func(text string, good bool) {
		t.Helper()
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(v); (err == nil) != good {
			t.Errorf("%s: %v", text, err)
		}
	}
	f(`{}`, true)
	f(`{"a": {"given": ["x", 5, {"body": [1], "severity": 9}], "expect": [], "filtered": 1, "routed": {"p": 2}}}`, true)
	f(`{"a": {"signal": "metrics", "given": [{"name": "x", "value": 5}], "expect": {"sink": [{"attributes": {"x": null}}]}}}`, true)
	f(`{"a": {"expect": []}}`, false)
	f(`{"a": {"given": ["x"], "expct": []}}`, false)
	f(`{"a": {"given": [{"boddy": 1}]}}`, false)
	f(`{"a": {"given": ["x"], "expect": "x"}}`, false)
}

// FuzzRecord: whatever is written as a record is refused, or read and compared without a panic; and it fits itself.
func FuzzRecord(f *testing.F) {
	for _, text := range []string{
		`{body: x, severity: ERROR, trace_id: "4bf92f3577b34da6a3ce929d0e0e4736", time: "2026-01-02T03:04:05Z", attributes: {a: 1, b: [x, {c: 1e3}]}, scope: {name: s}}`,
		`{name: n, kind: sum, value: 1.5, temporality: delta, monotonic: true, attributes: {a: }, resource: {}}`,
		`{name: n, kind: histogram, count: 3, sum: 1e300, bounds: [1, 2], counts: [1, 1, 1], min: -1, max: }`,
		`{name: n, duration: 1d, status: error, kind: server, parent_id: "0102030405060708"}`,
		`{severity: 0, trace_id: "00000000000000000000000000000000", time: "1970-01-01T00:00:00Z"}`, `{body: "0x1p-2", attributes: {"": 9999999999999999999}}`, `{}`,
	} {
		for s := range creel.Signals() {
			f.Add(s, text)
		}
	}
	f.Fuzz(func(t *testing.T, s int, text string) {
		signals := creel.Signals()
		r, b, err := readRecord(signals[uint(s)%uint(len(signals))], "r.yaml", text)
		if err != nil {
			if errs := (config.Errors)(nil); !errors.As(err, &errs) {
				t.Fatalf("%q gives %v", text, err)
			}
			return
		}
		got := arrival{fields: fieldsOf(b, 0)}
		for _, p := range differ(r.named(), got) {
			if k := fmt.Sprint(r.node.Get("kind").Text(), r.node.Get("temporality").Text()); b.Signal() == creel.Metrics && k != "" {
				continue // a field that metrics of this kind have not
			}
			if b.Signal() == creel.Metrics || strings.Contains(text, "attributes") || strings.Contains(text, "resource") {
				continue // null is read as an empty value, and expected to be absent
			}
			t.Fatalf("%q does not fit itself: %v", text, p)
		}
	})
}
