package aggregate

import (
	"fmt"
	"regexp"
	"testing"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/otlp"
)

var times = regexp.MustCompile(`\[\d{5,} \d{5,}\]`)

// untimed takes the times of points that are made out of what was sent.
func (s *stand) untimed() {
	for i := range s.out {
		s.out[i] = times.ReplaceAllString(s.out[i], "")
	}
}

func (s *stand) flushUntimed(want ...string) {
	s.t.Helper()
	s.a.flush(s)
	s.untimed()
	s.expect(want...)
}

func TestMade(t *testing.T) {
	s := newStand(t, `
metrics:
  - {name: lines}
  - {name: errors, where: severity >= ERROR, by: {code: 'attributes["code"]', logger: 'attributes["logger"]'}}
  - {name: bytes, kind: sum, value: 'attributes["bytes"]', unit: By}
  - {name: last, kind: gauge, value: 'attributes["bytes"]'}
  - {name: sizes, kind: histogram, value: 'attributes["bytes"]', buckets: [10, 100]}
`)
	at := &creel.Origin{Resource: creel.Resource{Attrs: attrs("host", "a")}, Scope: creel.Scope{Name: "lib"}}
	log := func(body string, severity creel.Severity, as ...any) creel.Log {
		return creel.Log{Origin: at, Body: creel.String(body), Severity: severity, Attrs: attrs(as...)}
	}
	s.logs(log("a", 9, "bytes", 10), log("b", 17, "bytes", "100", "code", 5), log("c", 18, "bytes", "nothing", "code", 5), log("d", 18, "logger", "x"))
	s.expect("log a", "log b", "log c", "log d")
	s.logs(log("e", 18, "code", 5, "bytes", "101.5"), creel.Log{})
	s.untimed()
	s.expect("log e", "log null")
	s.a.flush(s)
	for i := range s.out {
		s.out[i] = regexp.MustCompile(`\[0 \d+\]`).ReplaceAllString(s.out[i], "") // a gauge's
	}
	s.untimed()
	s.expect(
		`lines{}{"host":"a"}5`, `bytes{}{"host":"a"}211.5`, `last{}{"host":"a"}101.5`, `sizes{}{"host":"a"}n=3 sum=211.5 min=10 max=101.5 [10 100] [1 1 1]`,
		`errors{"code":5}{"host":"a"}3`, `errors{"logger":"x"}{"host":"a"}1`, `lines{}1`,
	)
	if n := s.counted("creel.aggregate.unusable"); n != 3 { // of one record, for three metrics
		t.Errorf("counted %v", n)
	}
	s.logs(log("f", 0, "bytes", -1))
	s.a.flush(s)
	if n := s.counted("creel.aggregate.unusable"); n != 4 { // a counter does not fall
		t.Errorf("counted %v", n)
	}
	s.out = nil
	s.expect()
	for i := range s.a.makers {
		if d := s.a.makers[i].kind.is; d.Name == "bytes" && (!d.Monotonic || d.Temporality != creel.Delta || d.Unit != "By") {
			t.Errorf("the descriptor is %+v", d)
		}
	}
}

func TestMadeOfSpans(t *testing.T) {
	s := newStand(t, "{metrics: [{name: calls, from: traces, by: {span: name}}]}")
	s.send(creel.Traces, func(r *creel.Records) {
		for _, name := range []string{"a", "b", "a"} {
			r.Spans = append(r.Spans, creel.Span{Origin: &creel.Origin{}, Name: name})
		}
	})
	s.logs(creel.Log{Body: creel.String("x")})
	s.flushUntimed("span a", "span b", "span a", "log x", `calls{"span":"a"}2`, `calls{"span":"b"}1`)
}

func TestKeepInput(t *testing.T) {
	s := newStand(t, `{keep_input: false, metrics: [{name: n, where: 'body != "x"'}]}`)
	first := s.logs(creel.Log{Body: creel.String("x")})
	if *first != nil || s.counts.Filtered != 1 {
		t.Errorf("told %v, %+v", *first, s.counts)
	}
	second := s.logs(creel.Log{Body: creel.String("a")}, creel.Log{Body: creel.String("x")}, creel.Log{Body: creel.String("b")})
	third := s.logs(creel.Log{Body: creel.String("c")})
	if *second == nil || *third == nil || s.counts.Filtered != 2 {
		t.Errorf("told %v and %v, %+v", *second, *third, s.counts)
	}
	s.points(point(gauge, 0, 1, 1)) // is not meant
	s.flushUntimed("g{}[0 1]1", "n{}3")
	if *second != nil || *third != nil || s.counts.Filtered != 2 || s.counts.Absorbed != 3 || s.counts.Created != 1 {
		t.Errorf("told %v and %v, %+v", *second, *third, s.counts)
	}
}

// TestMadeAcknowledged: whoever waits for a record that passes waits for the points as well.
func TestMadeAcknowledged(t *testing.T) {
	s := newStand(t, `{metrics: [{name: n, where: 'body != "x"'}]}`)
	first, second, other := s.logs(creel.Log{Body: creel.String("a")}), s.logs(creel.Log{Body: creel.String("b")}), s.logs(creel.Log{Body: creel.String("x")})
	if *first == nil || *second == nil || *other != nil {
		t.Errorf("told %v, %v, %v", *first, *second, *other)
	}
	s.flushUntimed("log a", "log b", "log x", "n{}2")
	if *first != nil || *second != nil {
		t.Errorf("told %v, %v", *first, *second)
	}
	s = newStand(t, "{ack: memory, metrics: [{name: n}]}")
	if first := s.logs(creel.Log{}); *first != nil {
		t.Errorf("not told: %v", *first)
	}
	s.flushUntimed("log null", "n{}1")
}

func TestOverflow(t *testing.T) {
	s := newStand(t, `{max_series: 2, metrics: [{name: n, by: {b: body}}]}`)
	for range 2 {
		var list []creel.Log
		for _, body := range []string{"a", "b", "c", "d", "a"} {
			list = append(list, creel.Log{Body: creel.String(body)})
		}
		s.logs(list...)
		s.flushUntimed("log a", "log b", "log c", "log d", "log a", `n{"b":"a"}2`, `n{"b":"b"}1`, `n{"otel.metric.overflow":true}2`)
	}
	if n := s.counted("creel.aggregate.overflow"); n != 4 {
		t.Errorf("counted %v", n)
	}
	s.logs(creel.Log{Body: creel.String("a")})
	s.flushUntimed("log a", `n{"b":"a"}1`) // after which the others are given up
	s.logs(creel.Log{Body: creel.String("c")})
	s.flushUntimed("log c", `n{"b":"c"}1`)
	s = newStand(t, `{max_series: 2, metrics: [{name: n}]}`)
	for i := range 4 {
		s.logs(creel.Log{Origin: &creel.Origin{Resource: creel.Resource{Attrs: attrs("i", i)}}})
	}
	s.flushUntimed("log null", "log null", "log null", "log null", `n{}{"i":0}1`, `n{}{"i":1}1`, `n{"otel.metric.overflow":true}2`)
}

func TestNumber(t *testing.T) {
	f := func(v creel.Value, want string) {
		t.Helper()
		n, ok := number(v)
		if got := fmt.Sprint(n.Kind(), n, ok); ok && got != want || !ok && want != "" {
			t.Errorf("%v is %s, not %s", v, got, want)
		}
	}
	f(creel.Int(7), "int 7 true")
	f(creel.Double(7.5), "double 7.5 true")
	f(creel.String("7"), "int 7 true")
	f(creel.String("-7"), "int -7 true")
	f(creel.String("7.0"), "double 7 true")
	f(creel.String("99999999999999999999"), "double 1e+20 true")
	f(creel.String("7ms"), "")
	f(creel.String("seven"), "")
	f(creel.String("+Inf"), "")
	f(creel.String(""), "")
	f(creel.Bool(true), "")
}

// TestWirePassesOn: records that are only counted keep their bytes.
func TestWirePassesOn(t *testing.T) {
	s := newStand(t, "{metrics: [{name: n}]}")
	b, err := otlp.Parse(creel.Logs, otlp.Append(nil, creel.NewLogs([]creel.Log{{Origin: &creel.Origin{}}})), &s.memory)
	if err != nil {
		t.Fatal(err)
	}
	c := creel.NewCustody(s.held)
	c.Give(b)
	pass, _ := s.a.takeRecords(b, &scratch{})
	if pass.Wire() == nil {
		t.Error("the bytes do not pass")
	}
	creel.Forward(pass)
	creel.Settle(pass, nil)
	c.End(nil, nil)
	s.a.flush(s)
}
