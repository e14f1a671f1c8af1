package parse

import (
	"context"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
)

func TestOptions(t *testing.T) {
	const line = `{"level":"warn","msg":"hi","user":"ann","trace_id":"5b8efff798038103d269b633813fc60c","spanId":"EEE19B7EC3C1B174"}`
	rest := `{"user":"ann"}`
	for _, c := range []struct{ name, options, attrs, body string }{
		{"defaults", ``, rest, "hi"},
		{"prefix", `"prefix":"app."`, `{"app.user":"ann"}`, "hi"},
		{"body: keep", `"body":"keep"`, `{"msg":"hi","user":"ann"}`, line},
		{"body: drop", `"body":"drop"`, `{"msg":"hi","user":"ann"}`, "null"},
		{"body: a field", `"body":"user"`, `{"msg":"hi"}`, "ann"},
		{"body: a field that is not there", `"body":"nobody"`, `{"msg":"hi","user":"ann"}`, line},
		{"to: body", `"to":"body","prefix":"p."`, `{}`, `{"p.msg":"hi","p.user":"ann"}`},
		{"original", `"keep_original":true,"prefix":"p."`, `{"p.user":"ann","log.record.original":` + string(creel.String(line).Append(nil)) + `}`, "hi"},
		{"lift: false", `"lift":false`, `{"level":"warn","user":"ann","trace_id":"5b8efff798038103d269b633813fc60c","spanId":"EEE19B7EC3C1B174"}`, "hi"},
		{"types", `"types":{"user":"int"}`, rest, "hi"},
	} {
		l := parsed(t, `"format":"json"`+strings.TrimRight(","+c.options, ","), line)
		if attrs, body := string(l.Attrs.Append(nil)), l.Body.String(); attrs != c.attrs || body != c.body {
			t.Errorf("%s:\n\t%s and %s, not\n\t%s and %s", c.name, attrs, body, c.attrs, c.body)
		}
		if c.name == "defaults" && (l.Severity != creel.SeverityWarn || l.TraceID.String() != "5b8efff798038103d269b633813fc60c" || l.SpanID.String() != "eee19b7ec3c1b174") {
			t.Errorf("lifted: %v", l)
		}
	}
}

// TestLiftsOnlyWhatIsUnderstood: other values stay fields.
func TestLiftsOnlyWhatIsUnderstood(t *testing.T) {
	const line = `{"level":"boss","time":0.25,"ts":"soon","trace_id":"00000000000000000000000000000000","span_id":"xyz","timestamp":1790000000,"severity":4}`
	l := parsed(t, `"format":"json"`, line)
	const want = `{"level":"boss","time":0.25,"ts":"soon","trace_id":"00000000000000000000000000000000","span_id":"xyz"}`
	if got := string(l.Attrs.Append(nil)); got != want || l.Time != 1_790_000_000_000_000_000 || l.Severity != creel.SeverityWarn {
		t.Errorf("got %s, %v", got, l)
	}
	// A field that is named must be understood, or the record says that it was not.
	l = parsed(t, `"format":"json","timestamp":{"field":"ts","layouts":["rfc3339"]},"severity":{"field":"level","map":{"BOSS":"ERROR2","x":"20"}}`, line)
	if fault(l) != "the timestamp is not understood" || l.Time != 0 || l.Severity != creel.SeverityError+1 || l.SeverityText != "boss" {
		t.Errorf("got %v", l)
	}
}

// TestExistingAttributes: fields replace attributes of the same name, others stay where they are.
func TestExistingAttributes(t *testing.T) {
	l := process(t, `"format":"json"`, creel.Log{
		Body:  creel.String(`{"b":2,"a":1,"c":3}`),
		Attrs: creel.Attrs{{Key: "x", Value: creel.Int(0)}, {Key: "a", Value: creel.Int(0)}},
	})[0]
	if got := string(l.Attrs.Append(nil)); got != `{"x":0,"a":1,"b":2,"c":3}` {
		t.Errorf("got %s", got)
	}
}

func TestFromAndWhere(t *testing.T) {
	logs := []creel.Log{
		{Body: creel.String("a=1"), Attrs: creel.Attrs{{Key: "log", Value: creel.String("b=2 msg=hi")}, {Key: "app", Value: creel.String("no")}}},
		{Body: creel.String("a=1"), Attrs: creel.Attrs{{Key: "log", Value: creel.String("b=2 msg=hi")}, {Key: "app", Value: creel.String("yes")}}},
	}
	out := process(t, `"format":"logfmt","from":"attributes[\"log\"]","where":"attributes[\"app\"] == \"yes\""`, logs...)
	for i, want := range []string{`{"log":"b=2 msg=hi","app":"no"}`, `{"log":"b=2 msg=hi","app":"yes","b":"2","msg":"hi"}`} {
		if got := string(out[i].Attrs.Append(nil)); got != want || out[i].Body.Str() != "a=1" {
			t.Errorf("log %d: %s and %v", i, got, out[i].Body)
		}
	}
	// Nothing is wanted: the batch is not touched, so that its bytes can be sent on.
	p := open(t, `"format":"logfmt","where":"attributes[\"app\"] == \"other\""`)
	wire := creel.NewWire(creel.Logs, 1, []byte("x"), nil, func(_ []byte, r *creel.Records) { r.Logs = append(r.Logs, creel.Log{Origin: origin}) })
	must(t, p.Process(context.Background(), wire, creel.NextFunc(func(b *creel.Batch) {
		if b.Wire() == nil {
			t.Error("the batch gave up its bytes")
		}
	})))
}

func TestErrors(t *testing.T) {
	logs := func() []creel.Log {
		return []creel.Log{{Body: creel.String("x")}, {Body: creel.String(`{"a":1}`)}, {Body: creel.Int(7)}, {}, {Body: creel.String(`{"b":1,"time":"x"}`)}}
	}
	out := process(t, `"format":"json","timestamp":{"field":"time"}`, logs()...)
	for i, want := range []string{"not a JSON object", "", "there is no text", "there is no text", "the timestamp is not understood"} {
		if got := fault(out[i]); got != want {
			t.Errorf("log %d: %q, not %q", i, got, want)
		}
	}
	p := open(t, `"format":"json","timestamp":{"field":"time"},"on_error":"drop"`)
	must(t, p.Process(context.Background(), creel.NewLogs(logs()), creel.NextFunc(func(b *creel.Batch) {
		if left := b.Logs(); len(left) != 2 || left[0].Attrs[0].Key != "a" || left[1].Attrs[0].Key != "b" { // the last one was parsed
			t.Errorf("left: %v", left)
		}
	})))
	if n := p.failed.Load(); n != 4 {
		t.Errorf("%d are counted as failed", n)
	}
}

func TestConfiguration(t *testing.T) {
	for _, c := range []struct{ options, want string }{
		{`{}`, `option "format" is missing`},
		{`{format: xml}`, "format: "},
		{`{format: regex}`, "regex: is needed for format: regex"},
		{`{format: regex, regex: "(?P<a"}`, "regex: compile expression: error parsing regexp: invalid named capture"},
		{`{format: regex, regex: "a(b)"}`, "regex: compile expression: it names no field"},
		{`{format: regex, regex: "(?P<a>(?:(?:(?:a{30}){30}){30}))"}`, "regex: compile expression: "},
		{`{format: regex, regex: "(?P<a>a{1000}b{1000}c{1000})(?P<b>(?:x{10}y){90})"}`, ""},
		{`{format: regex, regex: "(?P<a>a{1000}b{1000}c{1000}d{1000}e{1000}f{1000})"}`, "regex: compile expression: it is too large"},
		{`{format: json, regex: "(?P<a>b)"}`, "regex: is only for format: regex"},
		{`{format: grok, grok: "%{IPP:x}"}`, `grok: expand pattern: there is no pattern "IPP": did you mean IP, IPORHOST, IPV4, IPV6?`},
		{`{format: grok, grok: "%{HTTPDAT:x}"}`, `did you mean HTTPDATE?`},
		{`{format: grok, grok: "%{ip:x}"}`, `did you mean IP, `},
		{`{format: grok, grok: "%{ORDER:x}", patterns: {ORDER: "%{LINE}", LINE: "a%{ORDER}"}}`, `refers to itself`},
		{`{format: grok, grok: "%{IP:x:number}"}`, `there is no type "number"`},
		{`{format: grok, grok: "%{IP:"}`, "%{ without }"},
		{`{format: grok, grok: "%{IP}"}`, "it names no field"},
		{`{format: grok, grok: "%{IP:a} ("}`, "missing closing )"},
		{`{format: json, patterns: {A: b}}`, "patterns: is only for format: grok"},
		{`{format: csv}`, "columns: is needed"},
		{`{format: csv, columns: [a], delimiter: "::"}`, "delimiter: of csv"},
		{`{format: json, delimiter: ";"}`, "delimiter: is only for"},
		{`{format: json, pair_delimiter: ";"}`, "pair_delimiter: is only for"},
		{`{format: json, from: name}`, "from: "},
		{`{format: json, where: "duration > 5"}`, "where: "},
		{`{format: json, to: body, body: keep}`, "body: the fields become the body already"},
		{`{format: json, types: {a: number}}`, "types.a: "},
		{`{format: json, timestamp: {layouts: [sometimes]}}`, "layouts[0]: read layout"},
		{`{format: json, timestamp: {layouts: ["%Q"]}}`, "%Q is unknown"},
		{`{format: json, timestamp: {zone: Mars/Base}}`, "zone: find time zone"},
		{`{format: json, severity: {map: {x: LOUD}}}`, `"LOUD" is no severity`},
		{`{format: json, severity: {map: {x: "25"}}}`, "from 1 to 24"},
		{`{format: json, timestamp: {field: at, layouts: [unix_ms, "%d/%b/%Y:%H:%M:%S %z", "2006-01-02 15:04"], zone: Europe/Berlin}, severity: {map: {x: ERROR2, y: 3}}}`, ""},
	} {
		n, err := config.Parse("o.yaml", []byte(c.options), config.Env{})
		must(t, err)
		canonical, errs := Plugin.Config.Check(n)
		got := ""
		if len(errs) > 0 {
			got = errs.Error()
		} else if _, err := Plugin.Open(canonical, creel.Host{}); err != nil {
			t.Errorf("%s: it is found only when the processor is opened: %v", c.options, err)
		}
		if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s:\n\t%s, not\n\t%s", c.options, got, c.want)
		}
	}
}

// TestGrokPatterns: each built-in pattern compiles, and matches what it is for.
func TestGrokPatterns(t *testing.T) {
	for name := range grokPatterns {
		g := Grok{text: "(?P<all>%{" + name + "})"}
		must(t, g.compile(nil))
	}
	for _, c := range []struct{ name, yes, no string }{
		{"IPV6", "2001:db8::7 ::1 :: fe80::1%eth0 ::ffff:192.0.2.1 1:2:3:4:5:6:7:8", "13:55:36 12 abc"},
		{"IPV4", "192.0.2.1 255.255.255.255 0.0.0.0", "1.2.3 1.2.3.256 a"},
		{"NUMBER", "1 -1.5 .5 1e9", "x - ."},
		{"UUID", "5b8efff7-9803-8103-d269-b633813fc60c", "5b8efff7"},
		{"HOSTNAME", "a a.b-c.example.com.", "-a ."},
		{"URI", "http://a/b?c=d https://u:p@h:8080/x ftp://h", "/a http:"},
		{"TIMESTAMP_ISO8601", "2026-11-24T13:55:36Z 2026-11-24T13:55:36.123+01:00 2026-11-24T13:55", "2026-11-24"},
		{"HTTPDATE", "", "24/Nov/2026"},
		{"LOGLEVEL", "INFO warn Error fatal", "loud"},
		{"MAC", "00:1a:2b:3c:4d:5e 00-1A-2B-3C-4D-5E 001a.2b3c.4d5e", "00:1a"},
		{"QS", `"a\"b" 'c'`, `"a`},
		{"PATH", `/var/log C:\logs`, "var"},
		{"JAVACLASS", "com.example.Main$Inner", "1"},
	} {
		g := Grok{text: "^(?P<all>%{" + c.name + "})$"}
		must(t, g.compile(nil))
		for _, s := range strings.Fields(c.yes) {
			if !g.re.MatchString(s) {
				t.Errorf("%s does not match %q", c.name, s)
			}
		}
		for _, s := range strings.Fields(c.no) {
			if g.re.MatchString(s) {
				t.Errorf("%s matches %q", c.name, s)
			}
		}
	}
}

// FuzzLines: whatever the line, a log is parsed or stays as it is, and no string in it is invalid UTF-8.
func FuzzLines(f *testing.F) {
	all := append(lines, slow...)
	for i, c := range all {
		f.Add(uint8(i), []byte(c.line))
		f.Add(uint8(i), []byte(c.line[:len(c.line)/2]+"\xff\x00\r\n"))
	}
	for _, c := range formats {
		f.Add(uint8(len(c.name)), []byte(c.line))
	}
	var ps []*processor
	for _, c := range all {
		ps = append(ps, open(f, c.options+`,"prefix":"p.","keep_original":true`))
	}
	f.Fuzz(func(t *testing.T, which uint8, line []byte) {
		p := ps[int(which)%len(ps)]
		body := text(string(line))
		kept := creel.Attr{Key: "kept", Value: creel.String("x")}
		l := run(t, p, creel.Log{Body: body, Attrs: creel.Attrs{kept}})[0]
		if v, _ := l.Attrs.Get("kept"); !v.Equal(kept.Value) {
			t.Fatalf("an attribute was changed: %v", l.Attrs)
		}
		original, ok := l.Attrs.Get(OriginalAttr)
		switch {
		case ok && !original.Equal(body):
			t.Fatalf("the original is %v", original)
		case !ok && (!l.Body.Equal(body) || len(l.Attrs) != 2 || fault(l) == "" || l.Time != 0 || l.Severity != 0):
			t.Fatalf("a log that is not parsed was changed: %v", l)
		}
		wantValid(t, l.Body)
		wantValid(t, creel.Map(l.Attrs...))
		if !utf8.ValidString(l.SeverityText) || l.Severity < 0 || l.Severity > 24 || l.Time < 0 {
			t.Fatalf("time %d, severity %d %q", l.Time, l.Severity, l.SeverityText)
		}
	})
}

func wantValid(t *testing.T, v creel.Value) {
	switch v.Kind() {
	case creel.ValueString:
		if !utf8.ValidString(v.Str()) {
			t.Fatalf("%q is not valid UTF-8", v.Str())
		}
	case creel.ValueList:
		for _, e := range v.List() {
			wantValid(t, e)
		}
	case creel.ValueMap:
		seen := map[string]bool{}
		for _, a := range v.Map() {
			if !utf8.ValidString(a.Key) || seen[a.Key] {
				t.Fatalf("key %q is not valid UTF-8, or there twice", a.Key)
			}
			seen[a.Key] = true
			wantValid(t, a.Value)
		}
	}
}
