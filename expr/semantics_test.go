package expr_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/expr"
	lang "github.com/expr-lang/expr"
)

// TestSemantics: what is particular to creel, and the edges.
func TestSemantics(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		if got := eval(t, text); got != want {
			t.Errorf("%s gives %s, not %s", text, got, want)
		}
	}
	// What is missing.
	f(`attributes.nobody == "x"`, `false`)
	f(`attributes.nobody != "x"`, `false`)
	f(`not (attributes.nobody == "x")`, `true`)
	f(`attributes.nobody < 5`, `false`)
	f(`attributes.nobody == attributes.nobody`, `false`)
	f(`attributes.nobody == nil`, `true`)
	f(`nil == attributes.nobody`, `true`)
	f(`attributes.user != nil`, `true`)
	f(`nil == nil`, `true`)
	f(`attributes.empty == nil`, `true`)
	f(`attributes.nobody + 1`, `null`)
	f(`attributes.nobody + "x"`, `null`)
	f(`lower(attributes.nobody)`, `null`)
	f(`attributes.nobody contains "x"`, `false`)
	f(`attributes.nobody in ["x"]`, `false`)
	f(`attributes.nobody not in ["x"]`, `true`)
	f(`attributes.nobody.deeper[3].still`, `null`)
	f(`attributes.nobody ?? attributes.none ?? "end"`, `"end"`)
	f(`attributes.nobody ? 1 : 2`, `2`)
	f(`any(attributes.nobody, true)`, `false`)
	f(`all(attributes.nobody, true)`, `false`)
	f(`none(attributes.nobody, true)`, `false`)
	f(`count(attributes.nobody, true)`, `null`)
	f(`len(attributes.nobody)`, `null`)
	f(`median(attributes.nobody)`, `null`)
	// Nothing is converted by itself.
	f(`attributes.text == 42`, `false`)
	f(`attributes.text != 42`, `true`)
	f(`attributes.text > 5`, `false`)
	f(`int(attributes.text) > 5`, `true`)
	f(`attributes.text + 1`, `null`)
	f(`attributes.ok == true`, `true`)
	f(`attributes.ok == "true"`, `false`)
	f(`attributes.user`, `"ann"`)
	f(`attributes.user && true`, `false`)
	f(`!attributes.user`, `true`)
	f(`attributes.ok && attributes.ok`, `true`)
	// Numbers.
	f(`1 == 1.0 && 1 < 1.5 && 2 > 1.5 && 1 in [1.0]`, `true`)
	f(`9007199254740993 == 9007199254740992.0`, `false`)
	f(`9007199254740993 > 9007199254740992.0`, `true`)
	f(`9223372036854775807 < 9223372036854775808.0`, `true`)
	f(`-9223372036854775807 - 1 == -9223372036854775808.0`, `true`)
	f(`attributes["http.status"] * 20000000000000000`, `null`)
	f(`attributes["http.status"] + 9223372036854775807`, `null`)
	f(`-attributes["http.status"] - 9223372036854775807`, `null`)
	f(`attributes["http.status"] / 0`, `null`)
	f(`attributes["http.status"] % 0`, `null`)
	f(`-7 % 3`, `-1`)
	f(`7 / 2`, `3.5`)
	f(`attributes.ratio * 3`, `1.5`)
	f(`2 ** 0.5 > 1.41`, `true`)
	f(`-attributes.ratio`, `-0.5`)
	f(`+attributes.ratio`, `0.5`)
	f(`int(1e30 * attributes.ratio)`, `null`)
	f(`int("x" + attributes.user)`, `null`)
	f(`float(attributes.user)`, `null`)
	f(`500 <= attributes["http.status"] < 600`, `true`)
	f(`503 in 500..599 and 500.5 not in 500..599`, `true`)
	// Severities.
	f(`severity == ERROR && severity < ERROR2 && severity == 17 && severity in [ERROR, FATAL]`, `true`)
	f(`severity in 17..20`, `true`)
	f(`string(severity)`, `"17"`)
	f(`-severity`, `-17`)
	f(`abs(severity)`, `17`)
	f(`time in [date("2026-11-24 12:00:00")]`, `true`)
	// Strings.
	f(`"Ünï"[1:]`, `"Ünï"`)
	f(`"Ünï"[2:]`, `"nï"`)
	f(`"Ünï"[:4]`, `"Ün"`)
	f(`"abc"[5:9] + "abc"[-2:] + "abc"[:-2] + "abc"[2:1]`, `"bca"`)
	f(`len("Ü")`, `2`)
	f(`upper("straße")`, `"STRASSE"`[:0]+`"STRAßE"`)
	f(`split("", ",")`, `[""]`)
	f(`split("a,b,c", ",", 2)`, `["a","b,c"]`)
	f(`split("äb", "")`, `["ä","b"]`)
	f(`split("a,b,", ",")`, `["a","b",""]`)
	f(`split("abc", "b", 0)`, `[]`)
	f(`join([], ",") + join(["a"], ",")`, `"a"`)
	f(`join([1], attributes.user)`, `null`)
	f(`replace("aaa", "a", "b", 2)`, `"bba"`)
	f(`repeat(attributes.user, 10000000)`, `null`)
	f(`let a = repeat(body, 100000); let b = a + a + a + a; let c = b + b; c`, `null`)
	f(`body matches "timeout$" && body matches "^GET" && body matches "cart" && not (body matches "^cart$")`, `true`)
	f(`body matches "(?i)TIMEOUT"`, `true`)
	f(`attributes["http.status"] matches "5"`, `false`)
	f(`extract(body, "took (?P<how>\\w+) (?P<what>\\w+)", "what")`, `"long"`)
	f(`extract(body, "took \\w+")`, `"took too"`)
	f(`extract(body, "a(x)?")`, `null`)
	f(`extract(body, "nowhere (.)")`, `null`)
	f(`fromBase64(attributes.user + "!")`, `null`)
	f(`urlDecode("%zz" + attributes.user)`, `null`)
	f(`string(attributes.raw) + toBase64(attributes.raw)`, `"rawcmF3"`)
	f(`b"raw" == attributes.raw`, `true`)
	// Lists and maps.
	f(`attributes.tags == ["a", "b"]`, `true`)
	f(`attributes.tags[0] + attributes.tags[-1] + (attributes.tags[2] ?? "-") + (attributes.tags["a"] ?? "-")`, `"ab--"`)
	f(`attributes.tags[:1]`, `["a"]`)
	f(`attributes.k8s.pod.name + attributes["k8s"]["pod.name"] + attributes.k8s["node"].name`, `"p1p1n1"`)
	f(`attributes["k8s.pod.name"]`, `null`)
	f(`attributes["k8s"].node["name"]`, `"n1"`)
	f(`attributes.http.status`, `503`)
	f(`attributes?.k8s?.node?.name`, `"n1"`)
	f(`"pod.name" in attributes.k8s`, `true`)
	f(`"a" in attributes.tags && "user" in attributes && "service.name" in resource`, `true`)
	f(`attributes[lower("USER")]`, `"ann"`)
	f(`scope.name + scope["version"] + scope.team + scope["team"]`, `"net/http1.26webweb"`)
	f(`{a: 1, "b": [attributes.user]}`, `{"a":1,"b":["ann"]}`)
	f(`{a: {b: 2}}.a.b`, `2`)
	f(`[1, "x", nil, 1.5]`, `[1,"x",null,1.5]`)
	f(`map(filter(attributes.tags, # > "a"), # + "!")`, `["b!"]`)
	f(`any([[1, 2], [3]], any(#, # == 3))`, `true`)
	f(`map([[1, 2], [3]], sum(#, # * 10))`, `[30,30]`)
	f(`filter(["x", "y"], #index == 1)`, `["y"]`)
	f(`one([1, 1], # == 1) || none([1], # == 1) || all([1, 2], # == 1)`, `false`)
	f(`find([1], # > 1) ?? "none"`, `"none"`)
	f(`findIndex([1], # > 1)`, `-1`)
	f(`let x = 2; let y = x * 3; x + y`, `8`)
	f(`max(attributes.tags)`, `null`)
	f(`max(1, [2, 3.5])`, `3.5`)
	// Times.
	f(`now() - time == duration("5s")`, `true`)
	f(`string(time) + " " + string(now() - time)`, `"2026-11-24T12:00:00Z 5s"`)
	f(`string(time + duration("1h") * 1.5)`, `"2026-11-24T13:30:00Z"`)
	f(`time - duration("1d" + attributes.user)`, `null`)
	f(`now() - duration("10s") < time < now()`, `true`)
	f(`seconds(time)`, `1.7955216e+09`)
	f(`unix(attributes["http.status"]) == date("1970-01-01 00:08:23")`, `true`)
	f(`string(unix(1.5))`, `"1970-01-01T00:00:01.5Z"`)
	f(`format(time, "15:04 MST", "Asia/Tokyo")`, `"21:00 JST"`)
	f(`duration / duration("1s")`, `1.5`)
	f(`duration / 2 == duration("750ms")`, `true`)
	f(`attributes["http.status"] + duration("1ns") == 504`, `true`)
	f(`time - attributes["http.status"] < time`, `true`)
	f(`max(duration("1s"), duration("2s")) == duration("2s")`, `true`)
	f(`date("9999-01-01" + (attributes.nobody ?? ""))`, `null`)
}

// TestConditions: what a condition says, of a record of each signal.
func TestConditions(t *testing.T) {
	f := func(text string, want bool) {
		t.Helper()
		c, err := expr.ParseCondition(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		for i, s := range creel.Signals() {
			if c.Fits(s) && c.Match(records()[i]) != want {
				t.Errorf("%s is %v for %v", text, !want, s)
			}
		}
		text2, err := c.MarshalText()
		if err != nil || string(text2) != text {
			t.Errorf("%s is written %s", text, text2)
		}
	}
	f(`severity >= ERROR && attributes["http.status"] >= 500`, true)
	f(`resource["service.name"] == "cart"`, true)
	f(`resource["service.name"] == "shop"`, false)
	f(`body contains "timeout"`, true)
	f(`attributes["user"] in ["ann", "bob"]`, true)
	f(`attributes["user"] in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "ann"]`, true)
	f(`attributes["http.status"] in ["a", "b", "c", "d", "e", "f", "g", "h", "i", 503.0]`, true)
	f(`lower(body) contains "get" and upper(attributes.user) == "ANN"`, true)
	f(`trace_id startsWith "0102" && span_id endsWith "08"`, true)
	f(`if attributes.ok { attributes.user == "ann" } else { false }`, true)
}

// corpus is evaluated by creel and by expr-lang, which must agree where nothing is missing.
var corpus = []string{
	`attributes.user == "ann" && attributes["http.status"] >= 500`, `attributes.user != "bob" || false`, `not (1 > 2)`,
	`attributes["http.status"] + 1`, `attributes["http.status"] * 2.5`, `attributes["http.status"] / 2`, `attributes["http.status"] % 7`, `2 ** 3`, `-attributes.ratio`,
	`1 < 2 < 3`, `3 > 2 >= 2`, `1 == 1.0`, `"a" < "b"`, `"a" + "b"`, `attributes.user + "!"`,
	`body contains "cart"`, `body startsWith "GET"`, `body endsWith "out"`, `body matches "^G.T"`, `body not matches "x"`, `not (body contains "nope")`,
	`attributes.user in ["ann", "bob"]`, `attributes.user not in ["bob"]`, `"user" in attributes`, `attributes["http.status"] in 500..599`, `3 in [1, 2]`,
	`attributes.ok ? "yes" : "no"`, `attributes.ok && true`, `attributes.nobody ?? "none"`, `attributes.user ?? "none"`, `attributes.nobody == nil`, `attributes.user != nil`,
	`attributes.tags[0]`, `attributes.tags[-1]`, `attributes.tags[0:1]`, `body[4:9]`, `body[:-3]`, `body[-3:]`, `len(attributes.tags)`, `len(body)`,
	`lower("ABC")`, `upper(body)`, `trim("  x ")`, `trim("--x-", "-")`, `trimPrefix(body, "GET ")`, `trimSuffix(body, "out")`, `split("a,b,c", ",")`, `split("a,b,c", ",", 2)`, `split("abc", "")`,
	`replace("a-b-c", "-", "+")`, `replace("a-b-c", "-", "+", 1)`, `repeat("ab", 3)`, `join(attributes.tags, "-")`, `join(attributes.tags)`, `indexOf("abc", "c")`, `lastIndexOf("abca", "a")`, `hasPrefix(body, "GET")`, `hasSuffix(body, "x")`,
	`int("42")`, `int(1.9)`, `int(-1.9)`, `float("1.5")`, `float(2)`, `string(42)`, `string(true)`, `string("x")`, `abs(-3)`, `abs(-2.5)`, `ceil(1.2)`, `floor(-1.2)`, `round(2.5)`, `max(1, 3, 2)`, `min(4, 2.5)`, `max([1, 9])`,
	`toBase64("ann")`, `fromBase64("YW5u")`, `fromJSON("{\"a\": [1, null]}")`, `toJSON(attributes.tags)`,
	`any(attributes.tags, # == "b")`, `all([1, 2], # > 1)`, `none([1, 2], # > 2)`, `one([1, 2], # > 1)`, `count([1, 2, 3], # > 1)`, `count([true, false])`, `filter([1, 2, 3], # > 1)`, `map([1, 2], # * 2)`, `find([1, 5], # > 3)`, `findIndex([1, 5], # > 3)`, `sum([1, 2, 3])`, `sum([1, 2], # * 2)`,
	`first([1, 2])`, `last([1, 2])`, `mean([1, 2, 6])`, `median([9, 1, 2])`, `reverse([1, 2])`, `sort([2, 1])`, `sort([1, 2], "desc")`, `uniq([1, 1])`, `flatten([[1], [2]])`, `take([1, 2], 1)`, `concat([1], [2])`,
	`let x = 5; x * x`, `attributes.user | upper()`, `{a: 1, b: "x"}`, `[1, "x", 1.5, nil]`, `if 1 < 2 { "a" } else { "b" }`, `map(filter(attributes.tags, # != "a"), # + "!")`, `any([[1], [2]], any(#, # == 2))`, `filter(attributes.tags, #index > 0)`,
	`attributes["k8s"]["pod.name"]`, `attributes.k8s.node.name`, `attributes?.nobody?.x`, `true ? 1 : 2.5`, `"a" not in ["b"] and 2 > 1 or false`, `0x10 + 0b11 + 1_000`, `'single' + "double"`, "`raw` + \"\"",
}

// TestAgreesWithExprLang runs the corpus through creel's closures and through expr-lang's own machine.
func TestAgreesWithExprLang(t *testing.T) {
	env := map[string]any{"body": plain(log().Log.Body), "attributes": plain(creel.Map(attrs()...))}
	for _, text := range corpus {
		want, err := lang.Eval(text, env)
		if err != nil {
			t.Errorf("%s: expr-lang: %v", text, err)
			continue
		}
		e, err := expr.ParseExpression(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := plain(e.Eval(log())); normal(got) != normal(want) {
			t.Errorf("%s: creel has %s, expr-lang %s", text, normal(got), normal(want))
		}
	}
}

// plain returns v as expr-lang has it.
func plain(v creel.Value) any {
	switch v.Kind() {
	case creel.ValueString:
		return v.Str()
	case creel.ValueBool:
		return v.Bool()
	case creel.ValueInt:
		return int(v.Int())
	case creel.ValueDouble:
		return v.Double()
	case creel.ValueBytes:
		return v.Bytes()
	case creel.ValueList:
		out := []any{}
		for _, e := range v.List() {
			out = append(out, plain(e))
		}
		return out
	case creel.ValueMap:
		out := map[string]any{}
		for _, e := range v.Map() {
			out[e.Key] = plain(e.Value)
		}
		return out
	}
	return nil
}

// normal writes x without the differences that are none: []string and []any, 3 and 3.0 (creel's floor of an integer is
// one), 0 and -0, and how JSON is indented.
func normal(x any) string {
	if f, ok := x.(float64); ok && f == 0 {
		x = 0
	}
	s := strings.Join(strings.Fields(fmt.Sprint(x)), "")
	return strings.NewReplacer(`"`, "", ",", "").Replace(s)
}

// TestOddRecords: nothing that a record can hold makes an expression of the corpus or the reference panic.
func TestOddRecords(t *testing.T) {
	texts := slices.Clone(corpus)
	for _, e := range expr.Reference() {
		texts = append(texts, e.Example)
	}
	for _, text := range texts {
		e, err := expr.ParseExpression(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		for _, r := range odd() {
			e.Eval(r)
		}
	}
}

// odd returns records that no one would send.
func odd() (list []*expr.Record) {
	values := []creel.Value{
		{}, creel.String(""), creel.String("\xff\x00ä\xc3"), creel.Int(math.MinInt64), creel.Int(0), creel.Double(math.NaN()), creel.Double(math.Inf(-1)),
		creel.Bytes(nil), creel.List(), creel.List(creel.Value{}, creel.List(creel.Map())), creel.Map(), creel.Map(creel.Attr{}, creel.Attr{}), creel.Bool(true),
	}
	for _, v := range values {
		var as creel.Attrs
		for _, key := range []string{"user", "http.status", "tags", "ratio", "ok", "k8s", "raw", "text", "", "user"} {
			as = append(as, creel.Attr{Key: key, Value: v})
		}
		o := &creel.Origin{Resource: creel.Resource{Attrs: as}, Scope: creel.Scope{Attrs: as}}
		list = append(list,
			&expr.Record{Log: &creel.Log{Origin: o, Body: v, Attrs: as, Severity: -5, Time: math.MinInt64}},
			&expr.Record{Metric: &creel.Metric{Origin: o, Desc: &creel.Descriptor{Kind: 200}, Value: v, Attrs: as}},
			&expr.Record{Span: &creel.Span{Origin: o, Kind: -1, Status: creel.Status{Code: 77}, Start: math.MinInt64, End: math.MaxInt64, Attrs: as}},
		)
	}
	return append(list, &expr.Record{Log: &creel.Log{Origin: &creel.Origin{}}}, &expr.Record{Span: &creel.Span{Origin: &creel.Origin{}}})
}

// FuzzParse: no text makes Parse panic, and what it takes can be asked of any record.
func FuzzParse(f *testing.F) {
	for _, text := range corpus {
		f.Add(text)
	}
	for _, e := range expr.Reference() {
		f.Add(e.Example)
	}
	for _, text := range []string{`attributes["a"`, `((((`, `body matches "("`, `#`, `any(attributes, .x)`, `1 ? 2`, `..`, `a?.[1]`, "\xff", `let x = 1`, `if 1 {`, `{(1): 2}`, `::lower(body)`, `body | lower`, `not`, `duration("")`, `attributes.x = body + "="`, `body = attributes["a\"="]`, `attributes = attributes.k8s`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if e, err := expr.ParseExpression(text); err == nil {
			for _, r := range append(odd(), records()...) {
				e.Eval(r)
			}
		} else if err.Error() == "" {
			t.Error("an error says nothing")
		}
		if c, err := expr.ParseCondition(text); err == nil {
			for _, r := range records() {
				c.Match(r)
			}
		}
		if a, err := expr.ParseAssignment(text); err == nil {
			again, err := expr.ParseAssignment(a.String())
			if err != nil || again.String() != a.String() {
				t.Errorf("%q is written %q, and then %q: %v", text, a, again, err)
			}
		}
		if m, err := expr.ParseMove(text); err == nil {
			for _, r := range records() {
				m.Do(r)
			}
		}
		if to, err := expr.ParseTarget(text); err == nil {
			for _, r := range records() {
				to.Set(r, creel.String("x"))
				to.Get(r)
				to.Delete(r)
			}
		}
	})
}

// TestNow: all records of a batch have one time.
func TestNow(t *testing.T) {
	e, err := expr.ParseExpression("now()")
	if err != nil {
		t.Fatal(err)
	}
	r := log()
	r.Now = 0
	before := time.Now().UnixNano()
	first := e.Eval(r)
	if second := e.Eval(r); !second.Equal(first) || first.Int() < before || first.Int() > time.Now().UnixNano() {
		t.Errorf("now is %v, then %v", first, second)
	}
}
