package parse

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/creelhq/creel"
)

// text returns a value of a line: a string if it can be one.
func text(line string) creel.Value {
	if utf8.ValidString(line) {
		return creel.String(line)
	}
	return creel.Bytes([]byte(line))
}

// fault returns why a log was not parsed.
func fault(l creel.Log) string {
	v, _ := l.Attrs.Get(ErrorAttr)
	return v.Str()
}

// sameAsJSON compares a value with what encoding/json, with UseNumber, makes of the same text.
func sameAsJSON(t *testing.T, v creel.Value, want any) {
	t.Helper()
	switch want := want.(type) {
	case nil:
		if v.Kind() != creel.ValueEmpty {
			t.Fatalf("got %v, not null", v)
		}
	case bool:
		if !v.Equal(creel.Bool(want)) {
			t.Fatalf("got %v, not %v", v, want)
		}
	case string:
		got := v.Str()
		if v.Kind() == creel.ValueBytes {
			if utf8.Valid(v.Bytes()) {
				t.Fatalf("%q is bytes", v.Bytes())
			}
			got = string([]rune(string(v.Bytes()))) // encoding/json replaces what is not valid
		}
		if got != want || v.Kind() != creel.ValueBytes && v.Kind() != creel.ValueString {
			t.Fatalf("got %v %q, not %q", v.Kind(), got, want)
		}
	case json.Number:
		sameNumber(t, v, want.String())
	case []any:
		if v.Kind() != creel.ValueList || len(v.List()) != len(want) {
			t.Fatalf("got %v, not %v", v, want)
		}
		for i, e := range v.List() {
			sameAsJSON(t, e, want[i])
		}
	case map[string]any:
		if v.Kind() != creel.ValueMap || len(v.Map()) != len(want) {
			t.Fatalf("got %v, not %v", v, want)
		}
		for _, a := range v.Map() {
			w, ok := want[a.Key]
			if !ok || !utf8.ValidString(a.Key) {
				t.Fatalf("key %q is not in %v", a.Key, want)
			}
			sameAsJSON(t, a.Value, w)
		}
	}
}

func sameNumber(t *testing.T, v creel.Value, want string) {
	t.Helper()
	expect := creel.String(want)
	if n, err := strconv.ParseInt(want, 10, 64); err == nil && want != "-0" {
		expect = creel.Int(n)
	} else if d, err := strconv.ParseFloat(want, 64); err == nil && (want == "-0" || strings.ContainsAny(want, ".eE")) {
		expect = creel.Double(d)
	}
	if !v.Equal(expect) {
		t.Fatalf("got %v %v, not %v %v", v.Kind(), v, expect.Kind(), expect)
	}
}

const plainJSON = `"format":"json","lift":false,"body":"keep","max_fields":8192`

// compareJSON parses data, and compares with encoding/json: what is valid and what it means.
func compareJSON(t *testing.T, p *processor, data []byte) {
	t.Helper()
	line := text(string(data))
	l := run(t, p, creel.Log{Body: line})[0]
	if !l.Body.Equal(line) {
		t.Fatalf("the body became %v", l.Body)
	}
	why := fault(l)
	trimmed := bytes.TrimLeft(data, " \t\r\n")
	object := len(trimmed) > 0 && trimmed[0] == '{'
	switch {
	case why == "nested too deeply" || why == tooMany:
		return
	case (why == "") != (object && json.Valid(data)):
		if _, own := jsonAttr(data); !own {
			t.Fatalf("%q: encoding/json says it is valid: %v; we say %q", data, json.Valid(data), why)
		}
	case why == "":
		d := json.NewDecoder(bytes.NewReader(data))
		d.UseNumber()
		var want map[string]any
		must(t, d.Decode(&want))
		sameAsJSON(t, creel.Map(l.Attrs...), want)
	}
}

// jsonAttr reports whether data itself has the attribute that tells of errors.
func jsonAttr(data []byte) (any, bool) {
	var m map[string]any
	_ = json.Unmarshal(data, &m)
	v, ok := m[ErrorAttr]
	return v, ok
}

// oddJSON is what parsers trip over.
var oddJSON = []string{
	`{}`, ` { } `, "\t{\"a\":1}\r\n", `{"a":1}x`, `{"a":1}{"b":2}`, `{"a":1,}`, `{,}`, `{"a"}`, `{"a":}`, `{a:1}`, `{'a':1}`, `[1]`, `"a"`, `1`, ``, ` `, `{`, `{"a":1`, `}`,
	`{"a":tru}`, `{"a":truex}`, `{"a":true}`, `{"a":false,"b":null}`, `{"a":nul}`, `{"a":True}`,
	`{"a":0,"b":-0,"c":0.0,"d":-0.0}`, `{"a":01}`, `{"a":-01}`, `{"a":+1}`, `{"a":.5}`, `{"a":5.}`, `{"a":1e5,"b":1E-5,"c":1e+5}`, `{"a":1e}`, `{"a":1e+}`, `{"a":-}`, `{"a":1e999,"b":-1e999,"c":1e-999}`,
	`{"a":9223372036854775807,"b":9223372036854775808,"c":-9223372036854775808,"d":-9223372036854775809,"e":99999999999999999999999}`,
	`{"a":0.1,"b":123456789.123456,"c":0.000000000000001,"d":1234567890123456.7,"e":3.141592653589793238462643383279}`, `{"a":NaN}`, `{"a":Infinity}`, `{"a":0x10}`, `{"a":1_000}`,
	`{"a":"\ud800","b":"\udc00","c":"\ud83d\ude00","d":"\ud800\ud800","e":"\ud800x","f":"\uD83D\n","g":"\u0000","h":"\ud800A","i":"\ud83d\ude0"}`, `{"g":"\u0000","f":"\uD83D\n","d":"\ud800\ud800\udc00"}`,
	`{"a":"\x41"}`, `{"a":"\u12"}`, `{"a":"\u12g4"}`, `{"a":"\"}`, `{"a":"\\"}`, `{"a":"\"\\\/\b\f\n\r\t\u00e9"}`, `{"a":"\'"}`, "{\"a\":\"\n\"}", "{\"a\":\"\x00\"}", "{\"a\x00\":1}", "{\"a\":\"\x7f\"}",
	"{\"a\":\"\xff\xfe\"}", "{\"\xff\xff\":1,\"b\xc3\":2}", "{\"a\":\"\xff\\n\"}", "{\"a\":\"\xe2\x82\"}", "\xef\xbb\xbf{}", "{\"a\":\"\xc3\xa9\xe2\x82\xac\",\"\xc3\xa9\":1}", "{\"a\xff\":1,\"a\\ufffd\":2}",
	`{"a":1,"a":2,"b":3,"a":4}`, `{"a":{"x":1},"a":{"y":2}}`, `{"a":{"x":1,"x":2}}`, `{"":1}`, `{"a":{"":{"":1}}}`, `{"a\u0062":1,"ab":2}`,
	`{"a":[]}`, `{"a":[1,[2,[3,{"b":[4]}]],{}]}`, `{"a":[1,]}`, `{"a":[,1]}`, `{"a":[1 2]}`, `{"a":[1}`, `{"a":{"b":1]}`, `{"a":[`, `{"a":{"b"`,
	`{"a" : 1 , "b" : [ 1 , 2 ] , "c" : { } }`, `{"a":/**/1}`, "{\"a\":1}\x00", `{"long":"` + strings.Repeat("é", 100) + `"}`,
	`{"creel.parse_error":"mine"}`, `{"a":"1234567\"890","b":"12345678\\","c":"1234567` + "\x1f" + `"}`,
}

func TestJSONAgreesWithEncodingJSON(t *testing.T) {
	p := open(t, plainJSON)
	for _, s := range append(oddJSON, jsonLine) {
		compareJSON(t, p, []byte(s))
		for i := range s { // cut anywhere
			compareJSON(t, p, []byte(s[:i]))
		}
	}
}

func FuzzJSON(f *testing.F) {
	for _, s := range oddJSON {
		f.Add([]byte(s))
	}
	p := open(f, plainJSON)
	f.Fuzz(func(t *testing.T, data []byte) { compareJSON(t, p, data) })
}

func TestJSONCaps(t *testing.T) {
	nested := func(n int) string { return strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n) }
	huge := 100 << 20
	if testing.Short() {
		huge = 4 << 20
	}
	many := func(n int) string { return `{"a":[` + strings.Repeat("1,", n-2) + "1]}" }
	for _, c := range []struct{ name, line, want string }{
		{"32 objects", nested(32), ""},
		{"33 objects", nested(33), "nested too deeply"},
		{"a million lists", `{"a":` + strings.Repeat("[", 1e6), "nested too deeply"},
		{"1024 values", many(1024), ""},
		{"1025 values", many(1025), tooMany},
		{"a million values", many(1e6), tooMany},
		{"a string of 100 MB", `{"a":"` + strings.Repeat("x", huge) + `"}`, ""},
		{"a number of a million digits", `{"a":` + strings.Repeat("7", 1e6) + `}`, ""},
		{"a million backslashes", `{"a":"` + strings.Repeat(`\\`, 1e6), malformed},
	} {
		for _, flatten := range []string{"false", "true"} {
			l := parsed(t, `"format":"json","flatten":`+flatten, c.line)
			if got := fault(l); got != c.want {
				t.Errorf("%s, flatten %s: %q, not %q", c.name, flatten, got, c.want)
			}
			if c.want != "" && (l.Body.Str() != c.line || len(l.Attrs) != 1) {
				t.Errorf("%s: the log was changed", c.name)
			}
		}
	}
}

func TestFlatten(t *testing.T) {
	l := parsed(t, `"format":"json","flatten":true,"timestamp":{"field":"meta.at"}`, `{"a":{"b":1,"c":{"d":"x"},"e":{}},"f":[{"g":1}],"a.b":2,"meta":{"at":1790000000}}`)
	want := creel.Attrs{
		{Key: "a.b", Value: creel.Int(2)}, {Key: "a.c.d", Value: creel.String("x")}, {Key: "a.e", Value: creel.Map()},
		{Key: "f", Value: creel.List(creel.Map(creel.Attr{Key: "g", Value: creel.Int(1)}))},
	}
	if !l.Attrs.Equal(want) || l.Time != 1_790_000_000_000_000_000 {
		t.Errorf("got %s at %d", l.Attrs.Append(nil), l.Time)
	}
}

// TestDoubles: the short way reads what strconv reads.
func TestDoubles(t *testing.T) {
	for _, s := range []string{"0.1", "0.3", "12.5", "99999.99999", "123456789012345.0", "0.000000000000001", "-2.5", "999999999999999.9", "1.7976931348623157e308", "4.9e-324"} {
		l := parsed(t, `"format":"json"`, `{"a":`+s+`}`)
		want, err := strconv.ParseFloat(s, 64)
		must(t, err)
		if got := l.Attrs[0].Value.Double(); math.Float64bits(got) != math.Float64bits(want) {
			t.Errorf("%s is %v", s, got)
		}
	}
}
