//go:build !race

package expr_test

import (
	"testing"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/expr"
	lang "github.com/expr-lang/expr"
	"github.com/expr-lang/expr/vm"
)

// timed are conditions, from the simplest on; free is whether asking them costs no allocation.
var timed = []struct {
	name, text string
	free       bool
}{
	{"severity", `severity >= ERROR`, true},
	{"attribute", `attributes["http.status"] >= 500`, true},
	{"both", `severity >= ERROR && attributes["http.status"] >= 500`, true},
	{"resource", `resource["service.name"] == "cart"`, true},
	{"contains", `body contains "timeout"`, true},
	{"prefix", `body matches "^GET"`, true},
	{"regexp", `body matches "t[io]me(out|d)"`, true},
	{"in", `attributes["user"] in ["bob", "ann"]`, true},
	{"coalesce", `(attributes["x"] ?? "none") == "none"`, true},
	{"lower", `lower(body) contains "get"`, true},
	{"concat", `attributes.user + "@" + resource.zone == "ann@eu"`, true},
	{"arithmetic", `attributes["http.status"] * 2 - 6 == 1000`, true},
	{"time", `time > now() - duration("5m")`, true},
	{"hash", `hash(attributes.user) % 2 == 0`, true},
	{"sha256", `sha256(attributes.user) startsWith "49"`, true},
	{"trace", `trace_id startsWith "0102"`, true},
	{"any", `any(attributes.tags, # == "b")`, true},
	{"let", `let s = attributes["http.status"]; s >= 500 && s < 600`, true},
	{"extract", `extract(body, "GET /(\\w+)") == "cart"`, false},
	{"machine", `median([1, 2, attributes["http.status"]]) == 2`, false},
}

// TestAllocations: asking, computing and setting cost no allocation, once a Record is warm.
func TestAllocations(t *testing.T) {
	for _, c := range timed {
		is, r := condition(t, c.text), log()
		if !is.Match(r) {
			t.Errorf("%s does not hold", c.text)
		}
		if n := testing.AllocsPerRun(100, func() { is.Match(r) }); c.free && n > 0 {
			t.Errorf("%s allocates %v times", c.text, n)
		}
	}
	var memory creel.Memory
	e, err := expr.ParseExpression(`[upper(attributes.user), attributes.user + "!"]`)
	if err != nil {
		t.Fatal(err)
	}
	targets := []expr.Target{target(t, "attributes.list"), target(t, "attributes.new"), target(t, "severity"), target(t, "resource.zone"), target(t, "scope.name")}
	values := []creel.Value{creel.Value{}, creel.String("x"), creel.Int(9), creel.String("us"), creel.String("y")}
	run := func(records int) float64 {
		o, as := origin(), attrs()
		return testing.AllocsPerRun(50, func() {
			rs := memory.NewRecords()
			for range records {
				own := creel.Attrs(rs.Attrs.Make(len(as)))
				copy(own, as)
				rs.Logs = append(rs.Logs, creel.Log{Origin: o, Attrs: own})
			}
			b := creel.NewBatch(creel.Logs, rs)
			r := expr.Edit(b)
			for i := range records {
				r.Seek(i)
				values[0] = e.Eval(r)
				for j, to := range targets {
					if !to.Set(r, values[j]) {
						t.Fatalf("%v was not set", to)
					}
				}
			}
			creel.Settle(b, nil)
		})
	}
	if few, many := run(10), run(2000); many > few+20 { // strings come in chunks of 4 KiB
		t.Errorf("10 records cost %v allocations, 2000 cost %v", few, many)
	}
}

// BenchmarkMatch is one question about one record, by creel's closures.
func BenchmarkMatch(b *testing.B) {
	for _, c := range timed {
		b.Run(c.name, func(b *testing.B) {
			is, r := condition(b, c.text), log()
			b.ReportAllocs()
			for b.Loop() {
				is.Match(r)
			}
		})
	}
}

// BenchmarkMachine is what BenchmarkMatch is measured against: the same by expr-lang's machine, for which the record has
// even been converted before.
func BenchmarkMachine(b *testing.B) {
	env := map[string]any{
		"body": plain(log().Log.Body), "attributes": plain(creel.Map(attrs()...)), "resource": plain(creel.Map(origin().Resource.Attrs...)),
		"severity": 17, "ERROR": 17,
	}
	for _, c := range timed[:8] {
		b.Run(c.name, func(b *testing.B) {
			p, err := lang.Compile(c.text, lang.Env(env))
			if err != nil {
				b.Fatal(err)
			}
			var m vm.VM
			b.ReportAllocs()
			for b.Loop() {
				if out, err := m.Run(p, env); err != nil || out != true {
					b.Fatal(out, err)
				}
			}
		})
	}
}
