package expr_test

import (
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/expr"
)

// at is 2026-11-24 12:00 UTC.
const at = 1795521600_000000000

// The records of all tests, and of the examples in Reference.
func log() *expr.Record {
	return &expr.Record{Now: at + 5e9, Log: &creel.Log{
		Origin: origin(), Time: at, Observed: at + 1e9, Body: creel.String("GET /cart took too long: timeout"), Attrs: attrs(),
		Severity: creel.SeverityError, SeverityText: "error", Flags: 1,
		TraceID: creel.TraceID{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}, SpanID: creel.SpanID{1, 2, 3, 4, 5, 6, 7, 8},
	}}
}

func point() *expr.Record {
	desc := &creel.Descriptor{Name: "http.requests", Description: "Requests that were served.", Unit: "1", Kind: creel.Sum}
	return &expr.Record{Now: at + 5e9, Metric: &creel.Metric{Origin: origin(), Desc: desc, Start: at - 60e9, Time: at, Attrs: attrs(), Value: creel.Int(7), Flags: 1}}
}

func span() *expr.Record {
	return &expr.Record{Now: at + 5e9, Span: &creel.Span{
		Origin: origin(), Name: "http.get", Kind: creel.SpanServer, Start: at, End: at + 1.5e9, Attrs: attrs(), Flags: 1,
		Status:  creel.Status{Code: creel.StatusError, Message: "deadline exceeded"},
		TraceID: creel.TraceID{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}, SpanID: creel.SpanID{1, 2, 3, 4, 5, 6, 7, 8}, Parent: creel.SpanID{9},
	}}
}

func origin() *creel.Origin {
	return &creel.Origin{
		Resource: creel.Resource{Attrs: creel.Attrs{{Key: "service.name", Value: creel.String("cart")}, {Key: "zone", Value: creel.String("eu")}}},
		Scope:    creel.Scope{Name: "net/http", Version: "1.26", Attrs: creel.Attrs{{Key: "team", Value: creel.String("web")}}},
	}
}

func attrs() creel.Attrs {
	return creel.Attrs{
		{Key: "user", Value: creel.String("ann")},
		{Key: "http.status", Value: creel.Int(503)},
		{Key: "tags", Value: creel.List(creel.String("a"), creel.String("b"))},
		{Key: "ratio", Value: creel.Double(0.5)},
		{Key: "ok", Value: creel.Bool(true)},
		{Key: "k8s", Value: creel.Map(creel.Attr{Key: "pod.name", Value: creel.String("p1")}, creel.Attr{Key: "node", Value: creel.Map(creel.Attr{Key: "name", Value: creel.String("n1")})})},
		{Key: "raw", Value: creel.Bytes([]byte("raw"))},
		{Key: "text", Value: creel.String("42")},
		{Key: "empty", Value: creel.Value{}},
	}
}

// records are one of each signal, in creel's order.
func records() []*expr.Record { return []*expr.Record{log(), point(), span()} }

func condition(t testing.TB, text string) expr.Condition {
	t.Helper()
	c, err := expr.ParseCondition(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// eval returns what text gives, as JSON, for the first record that it fits.
func eval(t *testing.T, text string) string {
	t.Helper()
	e, err := expr.ParseExpression(text)
	if err != nil {
		t.Errorf("%s: %v", text, err)
		return ""
	}
	for i, s := range creel.Signals() {
		if e.Fits(s) {
			return string(e.Eval(records()[i]).Append(nil))
		}
	}
	t.Errorf("%s fits nothing", text)
	return ""
}

// TestSemanticsShown runs what Semantics shows.
func TestSemanticsShown(t *testing.T) {
	examples, conditions := 0, 0
	for i, block := range strings.Split(expr.Semantics(), "```") {
		switch text, isYAML := strings.CutPrefix(block, "yaml\n"); {
		case i%2 == 0:
		case isYAML:
			var options map[string][]string
			if err := yaml.Unmarshal([]byte(text), &options); err != nil {
				t.Fatal(err)
			}
			for _, text := range options["drop"] {
				condition(t, text)
				conditions++
			}
		default:
			for line := range strings.Lines(strings.TrimSpace(block)) {
				text, want, ok := strings.Cut(strings.TrimSpace(line), " → ")
				if got := eval(t, text); !ok || got != want {
					t.Errorf("%s gives %s, not %s", text, got, want)
				}
				examples++
			}
		}
	}
	if examples < 20 || conditions != 4 {
		t.Errorf("found %d examples and %d conditions", examples, conditions)
	}
}

// TestReference runs every example of the reference page.
func TestReference(t *testing.T) {
	seen := map[string]bool{}
	for _, e := range expr.Reference() {
		if got := eval(t, e.Example); got != e.Result {
			t.Errorf("%s %s: %s gives %s, not %s", e.Kind, e.Name, e.Example, got, e.Result)
		}
		if seen[e.Kind+e.Name] || !strings.HasSuffix(e.Doc, ".") || !strings.HasPrefix(e.Usage, e.Name) {
			t.Errorf("%s %s is described twice, or badly: %s %s", e.Kind, e.Name, e.Usage, e.Doc)
		}
		seen[e.Kind+e.Name] = true
	}
}
