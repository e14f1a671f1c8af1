package expr_test

import (
	"testing"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/expr"
)

func target(t testing.TB, text string) expr.Target {
	t.Helper()
	to, err := expr.ParseTarget(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return to
}

// TestSet: what is set is there, what is deleted is not, with and without a batch's memory.
func TestSet(t *testing.T) {
	f := func(text string, v creel.Value, where func() *expr.Record) {
		t.Helper()
		for _, memory := range []*creel.Records{nil, {}} {
			to, r := target(t, text), where()
			r.Memory = memory
			if !to.Set(r, v) {
				t.Errorf("%s does not take %v", text, v)
			}
			if got, ok := to.Get(r); !got.Equal(v) || !ok {
				t.Errorf("%s is %v after it was set to %v", text, got, v)
			}
			to.Delete(r)
			if got, ok := to.Get(r); ok && got.Kind() != creel.ValueString && got.Int() != 0 && len(got.Map()) != 0 || got.Str() != "" && got.Str() != "unset" && got.Str() != "unspecified" {
				t.Errorf("%s is %v after it was deleted", text, got)
			}
		}
	}
	x := creel.String("x")
	for _, where := range []func() *expr.Record{log, point, span} {
		for _, text := range []string{
			`attributes["user"]`, `attributes["new"]`, `attributes.a.b`, `attributes.k8s.node.name`, `attributes["k8s"]["new"]`, `attributes["new"]["deep"]["er"]`,
			`attributes.http.status`, `resource["service.name"]`, `resource.new`, `resource.deep["x"]`, `scope.name`, `scope.version`, `scope.team`, `scope["new"]`,
		} {
			f(text, x, where)
		}
		f(`attributes`, creel.Map(creel.Attr{Key: "a", Value: x}), where)
		f(`resource`, creel.Map(creel.Attr{Key: "a", Value: x}), where)
		f(`flags`, creel.Int(3), where)
	}
	f(`body`, x, log)
	f(`body`, creel.Int(4), log)
	f(`severity`, creel.Int(9), log)
	f(`severity_text`, x, log)
	f(`event`, x, log)
	f(`time`, creel.Int(1), log)
	f(`observed_time`, creel.Int(1), log)
	f(`trace_id`, creel.String("000102030405060708090a0b0c0d0e0f"), log)
	f(`span_id`, creel.String("0001020304050607"), log)
	f(`time`, creel.Int(1), point)
	f(`start`, creel.Int(1), point)
	f(`name`, x, point)
	f(`unit`, x, point)
	f(`description`, x, point)
	f(`value`, creel.Double(1.5), point)
	f(`trace_id`, creel.String("000102030405060708090a0b0c0d0e0f"), span)
	f(`span_id`, creel.String("0001020304050607"), span)
	f(`parent_id`, creel.String("0001020304050607"), span)
	f(`name`, x, span)
	f(`state`, x, span)
	f(`status`, creel.String("ok"), span)
	f(`status_message`, x, span)
	f(`kind`, creel.String("client"), span)
	f(`start`, creel.Int(1), span)
	f(`end`, creel.Int(1), span)
}

// TestSetRefuses: what cannot be there changes nothing.
func TestSetRefuses(t *testing.T) {
	f := func(text string, v creel.Value, r *expr.Record) {
		t.Helper()
		to := target(t, text)
		before, _ := to.Get(r)
		if to.Set(r, v) {
			t.Errorf("%s takes %v", text, v)
		}
		if after, _ := to.Get(r); !after.Equal(before) {
			t.Errorf("%s was %v, and is %v after %v was refused", text, before, after, v)
		}
	}
	f(`severity`, creel.Map(), log())
	f(`severity`, creel.Int(25), log())
	f(`severity`, creel.Int(-1), log())
	f(`severity`, creel.String("loud"), log())
	f(`severity_text`, creel.Int(1), log())
	f(`body.x`, creel.Int(1), log()) // the body is a string
	f(`trace_id`, creel.String("xy"), log())
	f(`trace_id`, creel.String("zz0102030405060708090a0b0c0d0e0f"), log())
	f(`time`, creel.String("now"), log())
	f(`flags`, creel.Int(-1), log())
	f(`attributes`, creel.String("x"), log())
	f(`name`, creel.String("x"), log())
	f(`kind`, creel.String("odd"), span())
	f(`kind`, creel.String("gauge"), point())
	f(`status`, creel.String("odd"), span())
	histogram := point()
	histogram.Metric.Desc = &creel.Descriptor{Kind: creel.HistogramKind}
	f(`value`, creel.Int(1), histogram)
}

// TestSeverityNames: a severity can be set by its name.
func TestSeverityNames(t *testing.T) {
	r := log()
	if to := target(t, "severity"); !to.Set(r, creel.String("warn2")) || r.Log.Severity != creel.SeverityWarn+1 {
		t.Errorf("the severity is %v", r.Log.Severity)
	}
}

// TestNested: maps inside of attributes are replaced, never changed; a dotted name means the key that is there.
func TestNested(t *testing.T) {
	r := log()
	before, _ := target(t, "attributes.k8s").Get(r)
	text := string(before.Append(nil))
	target(t, "attributes.k8s.node.name").Set(r, creel.String("n2"))
	target(t, "attributes.k8s.pod.name").Delete(r)
	target(t, "attributes.http.status").Set(r, creel.Int(200))
	target(t, "attributes.http.method").Set(r, creel.String("GET"))
	if string(before.Append(nil)) != text {
		t.Errorf("a map was changed in place: %v", before)
	}
	after, _ := target(t, "attributes.k8s").Get(r)
	if got, want := string(after.Append(nil)), `{"node":{"name":"n2"}}`; got != want {
		t.Errorf("the map is %s, not %s", got, want)
	}
	if v, _ := r.Log.Attrs.Get("http.status"); v.Int() != 200 {
		t.Errorf("http.status is %v", v)
	}
	if v, _ := r.Log.Attrs.Get("http.method"); v.Str() != "GET" {
		t.Errorf("http.method is %v", v)
	}
	r.Log.Body = creel.Value{}
	target(t, "body.a.b").Set(r, creel.Int(1))
	target(t, `body["a"]["c"]`).Set(r, creel.Int(2))
	if got, want := string(r.Log.Body.Append(nil)), `{"a.b":1,"a":{"c":2}}`; got != want {
		t.Errorf("the body is %s, not %s", got, want)
	}
}

// TestOrigins: origins are replaced, never changed; records of a batch that shared one still do, and only where the same
// was done to them.
func TestOrigins(t *testing.T) {
	shared := origin()
	logs := []creel.Log{{Origin: shared}, {Origin: shared}, {Origin: shared}, {Origin: origin()}}
	zone, name := target(t, "resource.zone"), target(t, "scope.name")
	r := &expr.Record{}
	for i := range logs {
		r.Log = &logs[i]
		zone.Set(r, creel.String([]string{"us", "us", "ap", "us"}[i]))
		name.Set(r, creel.String("mine"))
	}
	if v, _ := shared.Resource.Attrs.Get("zone"); v.Str() != "eu" || shared.Scope.Name != "net/http" {
		t.Errorf("an origin was changed in place: %v %v", v, shared.Scope.Name)
	}
	if logs[0].Origin != logs[1].Origin || logs[0].Origin == logs[2].Origin || logs[0].Origin == logs[3].Origin {
		t.Errorf("origins are %p %p %p %p", logs[0].Origin, logs[1].Origin, logs[2].Origin, logs[3].Origin)
	}
	if v, _ := logs[2].Origin.Resource.Attrs.Get("zone"); v.Str() != "ap" || logs[2].Origin.Scope.Name != "mine" || logs[2].Origin.Scope.Version != "1.26" {
		t.Errorf("the changed origin is %+v", logs[2].Origin)
	}
	// What changes nothing makes nothing new.
	r.Log = &creel.Log{Origin: shared}
	zone.Set(r, creel.String("eu"))
	target(t, "resource.nothing").Delete(r)
	if r.Log.Origin != shared {
		t.Error("an origin was copied for nothing")
	}
	// There may be more different values than are remembered.
	for i := range 200 {
		l := creel.Log{Origin: shared}
		r.Log = &l
		zone.Set(r, creel.Int(int64(i)))
		if v, _ := zone.Get(r); v.Int() != int64(i) {
			t.Fatalf("zone is %v, not %d", v, i)
		}
	}
}

// TestDescriptors: so it is with descriptors.
func TestDescriptors(t *testing.T) {
	desc := &creel.Descriptor{Name: "a", Kind: creel.Gauge}
	points := []creel.Metric{{Origin: origin(), Desc: desc}, {Origin: origin(), Desc: desc}}
	to, r := target(t, "name"), &expr.Record{}
	for i := range points {
		r.Metric = &points[i]
		to.Set(r, creel.String("b"))
	}
	if desc.Name != "a" || points[0].Desc != points[1].Desc || points[0].Desc.Name != "b" || points[0].Desc.Kind != creel.Gauge {
		t.Errorf("descriptors are %v %v %v", desc, points[0].Desc, points[1].Desc)
	}
}

// TestValuesAreOwn: a value that was made of a record's attributes does not change with them, nor they with it.
func TestValuesAreOwn(t *testing.T) {
	for _, text := range []string{`attributes`, `{a: attributes}`, `[attributes]`, `attributes.nobody ?? attributes`, `let x = attributes; [x]`} {
		e, err := expr.ParseExpression(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, memory := range []*creel.Records{nil, {}} {
			r := log()
			r.Memory = memory
			v := e.Eval(r)
			before := string(v.Append(nil))
			target(t, `attributes.user`).Set(r, v) // would contain itself
			target(t, `attributes.text`).Delete(r)
			target(t, `attributes.ratio`).Set(r, creel.Int(7))
			if after := string(v.Append(nil)); after != before {
				t.Errorf("%s was %s, is %s", text, before, after)
			}
		}
	}
}

// TestMadeStringsStay: strings that were made for one record are not overwritten by the next ones.
func TestMadeStringsStay(t *testing.T) {
	e, err := expr.ParseExpression(`upper(attributes.user) + "-" + string(attributes["http.status"])`)
	if err != nil {
		t.Fatal(err)
	}
	c, err := expr.ParseCondition(`lower(upper(body)) contains "timeout" && upper(attributes.user) + "x" == "ANNx"`)
	if err != nil {
		t.Fatal(err)
	}
	r := log()
	var made []creel.Value
	for i := range 2000 {
		r.Log.Attrs.Set("http.status", creel.Int(int64(i)))
		made = append(made, e.Eval(r))
		if !c.Match(r) {
			t.Fatal("the condition does not hold")
		}
	}
	for i, v := range made {
		if want := "ANN-" + string(creel.Int(int64(i)).Append(nil)); v.Str() != want {
			t.Fatalf("string %d is %q, not %q", i, v.Str(), want)
		}
	}
}
