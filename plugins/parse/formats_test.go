package parse

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/creelhq/creel"
)

// formats is what each format makes of a line: the names of fields, and what becomes time, severity and body. The
// reference page is made of it. Names of OpenTelemetry's semantic conventions are used where there are any.
var formats = []struct {
	name, options, line string
	attrs               string // as JSON
	body                string // "": the line
	time                string
	severity, text      string
}{
	{"access, combined", `"format":"nginx"`, `192.0.2.17 - ann [24/Nov/2026:13:55:36 +0100] "GET /orders/4711?full=true HTTP/1.1" 200 5316 "https://shop.example.com/" "curl/8.9.1"`,
		`{"client.address":"192.0.2.17","user.name":"ann","http.request.method":"GET","url.path":"/orders/4711","url.query":"full=true","network.protocol.version":"1.1","http.response.status_code":200,"http.response.body.size":5316,"http.request.header.referer":"https://shop.example.com/","user_agent.original":"curl/8.9.1"}`,
		"", "2026-11-24T12:55:36Z", "", ""},
	{"access, common", `"format":"apache"`, `::1 frank J. Doe [24/Nov/2026:13:55:36 -0700] "OPTIONS * HTTP/1.0" 304 -`,
		`{"client.address":"::1","client.ident":"frank","user.name":"J. Doe","http.request.method":"OPTIONS","url.original":"*","network.protocol.version":"1.0","http.response.status_code":304}`,
		"", "2026-11-24T20:55:36Z", "", ""},
	{"access, what else there is", `"format":"nginx","severity":{"http_status":true}`, `10.0.0.1 - - [24/Nov/2026:13:55:36 +0000] "\x16\x03\x01\xE9" 400 150 "-" "a \"b\" \xC3\xA9" "203.0.113.9" 0.003 upstream`,
		`{"client.address":"10.0.0.1","http.request.line":"FgMB6Q==","http.response.status_code":400,"http.response.body.size":150,"user_agent.original":"a \"b\" é","http.request.header.x-forwarded-for":"203.0.113.9","rest":"0.003 upstream"}`,
		"", "2026-11-24T13:55:36Z", "WARN", "400"},
	{"access, proxy", `"format":"apache","severity":{"http_status":true}`, `h - - [24/Nov/2026:13:55:36 +0000] "GET http://example.com/a?b HTTP/2.0" 503 0 "-" "-"`,
		`{"client.address":"h","http.request.method":"GET","url.full":"http://example.com/a?b","network.protocol.version":"2","http.response.status_code":503,"http.response.body.size":0}`,
		"", "2026-11-24T13:55:36Z", "ERROR", "503"},
	{"nginx_error", `"format":"nginx_error"`, `2026/11/24 13:55:36 [crit] 31#32: *4711 connect() failed (111: refused), client: 192.0.2.17, server: shop.example.com, request: "GET /a?b=c HTTP/1.1", upstream: "http://10.0.0.2:80/a", host: "shop", subrequest: "/x", referrer: "https://r"`,
		`{"process.pid":31,"thread.id":32,"nginx.connection":4711,"client.address":"192.0.2.17","server.address":"shop.example.com","http.request.method":"GET","url.path":"/a","url.query":"b=c","network.protocol.version":"1.1","nginx.upstream":"http://10.0.0.2:80/a","http.request.header.host":"shop","nginx.subrequest":"/x","http.request.header.referer":"https://r"}`,
		"connect() failed (111: refused)", "2026-11-24T13:55:36Z", "ERROR2", "crit"},
	{"nginx_error, no request", `"format":"nginx_error"`, `2026/11/24 13:55:36 [notice] 1#1: start worker processes`,
		`{"process.pid":1,"thread.id":1}`, "start worker processes", "2026-11-24T13:55:36Z", "INFO2", "notice"},
	{"syslog 3164", `"format":"syslog"`, `<34>Oct 11 22:14:15 mymachine su[42]: 'su root' failed on /dev/pts/8`,
		`{"syslog.facility":"auth","host.name":"mymachine","syslog.appname":"su","syslog.procid":"42"}`, "'su root' failed on /dev/pts/8", "2026-10-11T22:14:15Z", "ERROR2", "crit"},
	{"syslog 3164, of a file", `"format":"syslog"`, `2026-11-24T13:55:36.25+01:00 web-7 kernel: [  12.5] eth0: up`,
		`{"host.name":"web-7","syslog.appname":"kernel"}`, "[  12.5] eth0: up", "2026-11-24T12:55:36.25Z", "", ""},
	{"syslog 3164, without a host", `"format":"syslog_3164"`, `<13>Nov  4 22:14:15 su[42]: no host` + "\x00",
		`{"syslog.facility":"user","syslog.appname":"su","syslog.procid":"42"}`, "no host", "2026-11-04T22:14:15Z", "INFO2", "notice"},
	{"syslog 3164, with a year", `"format":"syslog","timestamp":{"zone":"Europe/Berlin"}`, `<189>Jul 11 2025 22:14:15 router %LINK-3-UPDOWN: up`,
		`{"syslog.facility":"local7","host.name":"router","syslog.appname":"%LINK-3-UPDOWN"}`, "up", "2025-07-11T20:14:15Z", "INFO2", "notice"},
	{"syslog 3164, nothing but a priority", `"format":"syslog"`, `<0>what is this`, `{"syslog.facility":"kern"}`, "what is this", "", "FATAL", "emerg"},
	{"syslog 5424", `"format":"syslog"`, `<165>1 2026-10-11T22:14:15.003Z mymachine.example.com evntslog 77 ID47 [exampleSDID@32473 iut="3" eventSource="App \"x\" \] \\ \n"][empty][meta seq="1"] ` + "\uFEFFAn event",
		`{"syslog.facility":"local4","host.name":"mymachine.example.com","syslog.appname":"evntslog","syslog.procid":"77","syslog.msgid":"ID47","syslog.structured_data":{"exampleSDID@32473":{"iut":"3","eventSource":"App \"x\" ] \\ \\n"},"empty":{},"meta":{"seq":"1"}}}`,
		"An event", "2026-10-11T22:14:15.003Z", "INFO2", "notice"},
	{"syslog 5424, an id twice", `"format":"syslog"`, `<165>1 - - - - - [a x="1" x="2"][b][a y="3"]`, `{"syslog.facility":"local4","syslog.structured_data":{"a":{"y":"3"},"b":{}}}`, "", "", "INFO2", "notice"},
	{"syslog 5424, nothing known", `"format":"syslog_5424"`, `<191>1 - - - - - -`, `{"syslog.facility":"local7"}`, "", "", "DEBUG", "debug"},
	{"cri", `"format":"cri"`, `2026-10-06T00:17:09.669794202Z stderr P  half a line `, `{"log.iostream":"stderr","log.partial":true}`, " half a line ", "2026-10-06T00:17:09.669794202Z", "", ""},
	{"docker", `"format":"docker"`, `{"log":"hello \u003cb\u003e\r\n","stream":"stdout","attrs":{"tag":"x"},"time":"2026-10-06T00:17:09.669794202Z"}`,
		`{"attrs":{"tag":"x"},"log.iostream":"stdout"}`, "hello <b>", "2026-10-06T00:17:09.669794202Z", "", ""},
	{"docker, odd", `"format":"docker"`, `{"log.iostream":"x","log":"a\n","stream":"stdout","stream":"stderr","log.partial":7}`, `{"log.iostream":"stderr","log.partial":7}`, "a", "", "", ""},
	{"docker, half a line", `"format":"docker"`, `{"log":"half","stream":"stderr","time":"2026-10-06T00:17:09Z"}`, `{"log.partial":true,"log.iostream":"stderr"}`, "half", "2026-10-06T00:17:09Z", "", ""},
	{"klog", `"format":"klog"`, `E1123 23:15:15.525108      1 a/main.go:81] could not: "x"`, `{"thread.id":1,"code.file.path":"a/main.go","code.line.number":81}`,
		`could not: "x"`, "2026-11-23T23:15:15.525108Z", "ERROR", "E"},
	{"klog, structured", `"format":"klog"`, `I1123 23:15:15.525108   12 k.go:8] "Pod \"a\" updated" pod="kube-system/dns" attempt=2`,
		`{"thread.id":12,"code.file.path":"k.go","code.line.number":8,"pod":"kube-system/dns","attempt":"2"}`, `Pod "a" updated`, "2026-11-23T23:15:15.525108Z", "INFO", "I"},
	{"slog, text", `"format":"slog"`, `time=2026-11-24T13:55:36.123+01:00 level=WARN+2 source=/a/b.go:7 msg="say \"hi\"\t\u00e9\x00" req.id=7 ok`,
		`{"source":"/a/b.go:7","req.id":"7","ok":true}`, "say \"hi\"\té\x00", "2026-11-24T12:55:36.123Z", "WARN3", "WARN+2"},
	{"slog, JSON", `"format":"slog"`, `{"time":"2026-11-24T13:55:36.123456789Z","level":"DEBUG-4","msg":"hi","req":{"id":7}}`,
		`{"req":{"id":7}}`, "hi", "2026-11-24T13:55:36.123456789Z", "TRACE", "DEBUG-4"},
	{"json", `"format":"json"`, `{"ts":1790000000.123456,"level":30,"message":"hi","a":1,"b":1.5,"c":true,"d":null,"e":[1,"x"],"f":{"g":"h"}}`,
		`{"a":1,"b":1.5,"c":true,"d":null,"e":[1,"x"],"f":{"g":"h"}}`, "hi", "2026-09-21T14:13:20.123456Z", "INFO", "30"},
	{"logfmt", `"format":"logfmt"`, `ts=2026-11-24T13:55:36Z lvl=eror  msg="a=b" url=http://x/?a=b&c="d" empty= quoted="" flag level=err` + "\r\n",
		`{"lvl":"eror","url":"http://x/?a=b&c=\"d\"","empty":"","quoted":"","flag":true}`, "a=b", "2026-11-24T13:55:36Z", "ERROR", "err"},
	{"csv", `"format":"csv","columns":["time","user","","amount","note"],"types":{"amount":"double"}`, `2026-11-24 13:55:36,ann,x,12.50,"two, ""blue""` + "\n" + `pieces"`,
		`{"user":"ann","amount":12.5,"note":"two, \"blue\"\npieces"}`, "", "2026-11-24T13:55:36Z", "", ""},
	{"csv, tabs", `"format":"csv","delimiter":"\t","columns":["a","b","c"]`, "\t\"x\"\t", `{"a":"","b":"x","c":""}`, "", "", "", ""},
	{"key_value", `"format":"key_value"`, `a=1  b='x y' severity=WARNING c="d \"e\""`, `{"a":"1","b":"x y","c":"d \"e\""}`, "", "", "WARN", "WARNING"},
	{"key_value, delimiters", `"format":"key_value","delimiter":"=>","pair_delimiter":"||","types":{"n":"int","ok":"bool","d":"double","x":"int"}`, `n => 42|| ok=>true ||d=>2.50||x=>1x||e=>||`, `{"n":42,"ok":true,"d":2.5,"x":"1x","e":""}`, "", "", "", ""},
	{"regex", `"format":"regex","regex":"(?P<user>\\w+): (?<n>\\d+)(?P<never>x)?","types":{"n":"int"}`, `by ann: 12`, `{"user":"ann","n":12}`, "", "", "", ""},
	{"grok", `"format":"grok","grok":"%{IP:client.address} %{ORDER:order} %{NUMBER:took:float} %{GREEDYDATA:message}","patterns":{"ORDER":"[A-Z]{2}%{INT}"}`, `2001:db8::7 AB12 0.25 all is well`,
		`{"client.address":"2001:db8::7","order":"AB12","took":0.25}`, "all is well", "", "", ""},
	{"grok, access log", `"format":"grok","grok":"%{COMBINEDAPACHELOG}"`, `192.0.2.17 - ann [24/Nov/2026:13:55:36 +0100] "GET /a HTTP/1.1" 200 53 "-" "curl"`,
		`{"clientip":"192.0.2.17","ident":"-","auth":"ann","verb":"GET","request":"/a","httpversion":"1.1","response":200,"bytes":53,"referrer":"\"-\"","agent":"\"curl\""}`, "", "2026-11-24T12:55:36Z", "", ""},
}

func TestFormats(t *testing.T) {
	for _, c := range formats {
		t.Run(c.name, func(t *testing.T) {
			l := parsed(t, c.options, c.line)
			if got := string(l.Attrs.Append(nil)); got != c.attrs {
				t.Errorf("attributes\n\t%s, not\n\t%s", got, c.attrs)
			}
			if body := l.Body.Str(); body != c.body && (c.body != "" || body != c.line) {
				t.Errorf("body %q, not %q", body, c.body)
			}
			at := ""
			if l.Time != 0 {
				at = time.Unix(0, l.Time).UTC().Format(time.RFC3339Nano)
			}
			if at != c.time {
				t.Errorf("time %s, not %s", at, c.time)
			}
			if l.Severity.String() != c.severity || l.SeverityText != c.text {
				t.Errorf("severity %v %q, not %v %q", l.Severity, l.SeverityText, c.severity, c.text)
			}
		})
	}
}

// TestBadLines: what is no line of a format stays as it is, but for the reason.
func TestBadLines(t *testing.T) {
	for _, c := range []struct{ options, line, want string }{
		{`"format":"nginx"`, "", "not an access log"},
		{`"format":"nginx"`, "hello world", "not an access log"},
		{`"format":"nginx"`, `a - - [24/Nov/2026:13:55:36 +0100] "GET / HTTP/1.1`, "not an access log"},
		{`"format":"nginx"`, `a - - [24/Nov/2026:13:55:36 +0100] "GET / HTTP/1.1" x 1`, "not an access log"},
		{`"format":"nginx"`, `a - - [24/Nov/2026:13:55:36 +0100] "GET / HTTP/1.1" 200 1 "x`, "not an access log"},
		{`"format":"nginx"`, `a - - [31/Nov/2026:13:55:36 +0100] "GET / HTTP/1.1" 200 1`, "the timestamp is not understood"},
		{`"format":"nginx_error"`, `2026/11/24 13:55:36 [loud] 1#1: x`, "not an error log of nginx"},
		{`"format":"syslog"`, `<192>Oct 11 22:14:15 a b: c`, "not a syslog priority"},
		{`"format":"syslog"`, `<1a>Oct 11 22:14:15 a b: c`, "not a syslog priority"},
		{`"format":"syslog"`, `Oct 41 22:14:15 a b: c`, "neither a priority nor a timestamp"},
		{`"format":"syslog_5424"`, `<34>Oct 11 22:14:15 a b: c`, "not RFC 5424"},
		{`"format":"syslog_5424"`, `<34>1 yesterday a b c d - x`, "the timestamp is not understood"},
		{`"format":"syslog_5424"`, `<34>1 - a b c d [x y="z" x`, "malformed structured data"},
		{`"format":"syslog_5424"`, `<34>1 - a b c d [x y]z="1"]`, "malformed structured data"},
		{`"format":"syslog_5424"`, `<34>1 - a b c`, "not RFC 5424"},
		{`"format":"cri"`, `2026-10-06T00:17:09.669794202Z stdin F x`, "not a CRI log"},
		{`"format":"cri"`, `yesterday stdout F x`, "the timestamp is not understood"},
		{`"format":"docker"`, `{"stream":"stdout"}`, "not a log of Docker"},
		{`"format":"docker"`, `{"log":7}`, "not a log of Docker"},
		{`"format":"klog"`, `I1341 00:15:15.525108 1 a.go:1] x`, "the timestamp is not understood"},
		{`"format":"klog"`, `X1023 00:15:15.525108 1 a.go:1] x`, "not a klog line"},
		{`"format":"logfmt"`, `only words`, "no key=value pair"},
		{`"format":"logfmt"`, `a="b`, "a quote that does not end"},
		{`"format":"logfmt"`, `a="b\"`, "a quote that does not end"},
		{`"format":"logfmt"`, `a="b"c`, "text after a closing quote"},
		{`"format":"logfmt"`, `a"b=c`, "a quote in a key"},
		{`"format":"logfmt"`, `=c`, "a value without a key"},
		{`"format":"csv","columns":["a","b"]`, `1`, "fewer columns than names"},
		{`"format":"csv","columns":["a","b"]`, `1,2,3`, "more columns than names"},
		{`"format":"csv","columns":["a","b"]`, `1,"2`, "a quote that does not end"},
		{`"format":"csv","columns":["a","b"]`, `"1"x,2`, "text after a closing quote"},
		{`"format":"key_value"`, `a=1 b`, "a pair without a delimiter"},
		{`"format":"key_value"`, `a='1`, "a quote that does not end"},
		{`"format":"key_value"`, `a='1'2`, "text after a closing quote"},
		{`"format":"key_value"`, `=1`, "a value without a key"},
		{`"format":"key_value"`, ``, "no pair"},
		{`"format":"regex","regex":"(?P<a>x)"`, `y`, "the pattern does not match"},
		{`"format":"regex","regex":"(?P<a>x)"`, strings.Repeat("x", 300<<10), "too long for a pattern"},
		{`"format":"json"`, `hello`, "not a JSON object"},
		{`"format":"json"`, `{"a":1} x`, "text after the JSON object"},
	} {
		l := parsed(t, c.options, c.line)
		if got := fault(l); got != c.want || len(l.Attrs) != 1 {
			t.Errorf("%s: %q: %q, not %q; %s", c.options, c.line, got, c.want, l.Attrs.Append(nil))
		}
		if l.Body.Str() != c.line || l.Time != 0 || l.Severity != 0 || l.SeverityText != "" {
			t.Errorf("%s: %q: the log was changed: %v", c.options, c.line, l)
		}
	}
}

// TestHugeLines: 100 MB of anything are one look, or two, at each byte.
func TestHugeLines(t *testing.T) {
	if testing.Short() {
		t.Skip("what is tested is the time that it takes")
	}
	for _, unit := range []string{"x", " ", `"`, `\`, `\"`, "a=", `a="`, "[", "{", ",", "=", `","`, `a="\`, "<1>", "]", "\x00"} {
		line := strings.Repeat(unit, (1<<20)/len(unit))
		for _, c := range lines {
			if strings.HasPrefix(c.line, "<") {
				parsed(t, c.options, `<34>1 - a b c d [x y="`+line)
			}
			parsed(t, c.options, line)
			parsed(t, c.options, c.line[:len(c.line)/2]+line)
		}
	}
	var pairs, elements strings.Builder
	for i := range 1_000_000 {
		fmt.Fprintf(&pairs, "k%d=1 ", i)
		fmt.Fprintf(&elements, "[k%d]", i)
	}
	for _, c := range [][2]string{
		{`"format":"logfmt"`, pairs.String()}, {`"format":"key_value"`, pairs.String()}, {`"format":"syslog"`, "<34>1 - - - - - " + elements.String()},
		{`"format":"syslog"`, "<34>1 - - - - - [x " + strings.ReplaceAll(pairs.String(), "1", `"1"`)},
		{`"format":"nginx_error"`, "2026/11/24 13:55:36 [error] 1#1: *1 x, client: " + strings.ReplaceAll(strings.ReplaceAll(pairs.String(), "=", ": "), "1 ", "1, ")},
	} {
		if l := parsed(t, c[0], c[1]); fault(l) == "" || len(l.Attrs) != 1 {
			t.Errorf("%s: %d attributes", c[0], len(l.Attrs))
		}
	}
	l := parsed(t, `"format":"cri"`, `2026-10-06T00:17:09.669794202Z stdout F `+strings.Repeat("x", 100<<20))
	if n := len(l.Body.Str()); n != 100<<20 {
		t.Errorf("the body has %d bytes", n)
	}
}

// TestInvalidUTF8: no string is made of bytes that are not valid; what is valid in the same line is a string.
func TestInvalidUTF8(t *testing.T) {
	for _, c := range []struct{ options, line, want string }{
		{`"format":"json"`, "{\"a\":\"\xff\",\"b\":\"ok\",\"c\xff\":1}", `{"a":"/w==","b":"ok","c` + "\uFFFD" + `":1}`},
		{`"format":"logfmt"`, "a=\xff b=ok c=\"\\n\xff\" d=\"\\xff\"", `{"a":"/w==","b":"ok","c":"Cv8=","d":"/w=="}`},
		{`"format":"csv","columns":["a","b"]`, "\xff,\"o\"\"\xe2\x82\"", `{"a":"/w==","b":"byLigg=="}`},
		{`"format":"regex","regex":"^(?P<a>.)(?P<b>.)"`, "\xffx", `{"a":"/w==","b":"x"}`},
		{`"format":"syslog","body":"keep"`, "<34>1 - h\xff a p m [i\xff n=\"\xff\"] \xff", `{"syslog.facility":"auth","host.name":"aP8=","syslog.appname":"a","syslog.procid":"p","syslog.msgid":"m","syslog.structured_data":{"i` + "\uFFFD" + `":{"n":"/w=="}},"message":"/w=="}`},
	} {
		l := process(t, c.options, creel.Log{Body: text(c.line)})[0]
		if got := string(l.Attrs.Append(nil)); got != c.want {
			t.Errorf("%q:\n\t%s, not\n\t%s", c.line, got, c.want)
		}
	}
}
