package config_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/creelhq/creel/config"
)

var someEnv = config.Env{
	Lookup: func(name string) (string, bool) {
		v, ok := map[string]string{"HOST": "example.org", "PORT": "7", "NOTHING": "", "PASSWORD": "hunter2"}[name]
		return v, ok
	},
	ReadFile: func(string) ([]byte, error) { return []byte("hunter3\n"), nil },
}

func TestOrigins(t *testing.T) {
	f := func(text string, want ...string) {
		t.Helper()
		n, err := config.Parse("f", []byte(text), someEnv)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, o := range config.Of[options]().Origins(n.Get("x")) {
			got = append(got, fmt.Sprintf("%s = %s (%s)", o.Path, o.Value, o.Where))
		}
		if a, b := strings.Join(got, "\n"), strings.Join(want, "\n"); a != b {
			t.Errorf("%s: got\n%s\nwant\n%s", text, a, b)
		}
	}
	f("x: {}") // endpoint is missing
	f("x: {endpoint: e}", "x.endpoint = e (f:1:5)", "x.rate = 0.1 (default)", "x.limit = 100/s (default)", "x.level = info (default)", `x.include = ["a","b"] (default)`,
		"x.color = red (default)", "x.batch.max_bytes = 4MiB (default)", "x.batch.max_wait = 200ms (default)")
	f(`
x:
  tls:
  endpoint: http://${env:HOST}:${env:PORT}/${env:HOST}
  rate: ${env:NOTHING}
  limit: 60/m
  level: ${env:LEVEL:-warn}
  include: [c, "${env:HOST}", '$${x']
  numbers: ${env:PORT}
  labels: {b: 1, a: "${env:PORT}"}
  password: ${env:SECRET:-hunter1}
  headers:
  - {value: "${env:PASSWORD}", name: a}
  - {name: b, value: "${file:/etc/password}"}
  targets: []
  batch: {max_wait: 60s}
  free: {a: [1, "${env:PORT}"], b: null}
`,
		"x.endpoint = http://example.org:7/example.org (f:4:3 ${env:HOST} ${env:PORT})",
		"x.rate = 0.1 (default)",
		"x.limit = 1/s (f:6:3)",
		"x.level = warn (f:7:3 ${env:LEVEL:-warn})",
		`x.include = ["c","example.org","${x"] (f:8:3 ${env:HOST})`,
		"x.numbers = [7] (f:9:3 ${env:PORT})",
		"x.labels.a = 7 (f:10:18 ${env:PORT})",
		"x.labels.b = 1 (f:10:12)",
		"x.password = [redacted] (f:11:3 ${env:SECRET:-[redacted]})",
		"x.color = red (default)",
		"x.headers[0].name = a (f:13:32)",
		"x.headers[0].value = [redacted] (f:13:6 ${env:PASSWORD})",
		"x.headers[1].name = b (f:14:6)",
		"x.headers[1].value = [redacted] (f:14:15 ${file:/etc/password})",
		"x.targets = [] (f:15:3)",
		"x.tls.insecure = false (default)",
		"x.batch.max_bytes = 4MiB (default)",
		"x.batch.max_wait = 1m (f:16:11)",
		`x.free = {"a":[1,"7"],"b":null} (f:17:3 ${env:PORT})`)
}

// TestDeferred: who does not know what references stand for takes a scalar with one for right, whatever it is, and finds all
// else that is wrong.
func TestDeferred(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		n, err := config.Parse("f", []byte(text), config.Env{Defer: true})
		if err != nil {
			if err.Error() != want {
				t.Errorf("%s: got %v, want %s", text, err, want)
			}
			return
		}
		canonical, errs := config.Of[options]().Check(n)
		if len(errs) > 0 {
			canonical = []byte(errs.Error())
		} else if o, err := config.Decode[options](canonical); err != nil {
			t.Errorf("%s: %v", text, err)
		} else if o.Rate != 0.1 || o.Batch != (batch{4 << 20, 200 * time.Millisecond}) || o.Level != "info" && !strings.HasPrefix(o.Level, "${") {
			t.Errorf("%s: decoded %+v", text, o)
		}
		if string(canonical) != want {
			t.Errorf("%s: got\n%s, want\n%s", text, canonical, want)
		}
	}
	const rest = `"rate":0.1,"limit":"100/s","level":"info","include":["a","b"],"color":"red","batch":{"max_bytes":"4MiB","max_wait":"200ms"}}`
	f("endpoint: ${env:NOBODY}", `{"endpoint":"${env:NOBODY}",`+rest)
	f("endpoint: $${env:NOBODY}", `{"endpoint":"${env:NOBODY}",`+rest)
	f("endpoint: a$${b}${file:/x}", `{"endpoint":"a$${b}${file:/x}",`+rest)
	f(`{endpoint: e, rate: "${env:R}", limit: "${env:L}", level: "${env:V:-loud}", include: "${env:I}", numbers: [1, "${env:N}"], labels: {a: "${env:A}"}, `+
		`color: "${env:C}", headers: "${env:H}", tls: "${env:T}", batch: {max_bytes: "${env:B}", max_wait: "${env:W}"}, free: ["${env:F}"]}`,
		`{"endpoint":"e","rate":"${env:R}","limit":"${env:L}","level":"${env:V:-loud}","include":["${env:I}"],"numbers":[1,"${env:N}"],"labels":{"a":"${env:A}"},`+
			`"color":"${env:C}","headers":[],"tls":{"insecure":false},"batch":{"max_bytes":"${env:B}","max_wait":"${env:W}"},"free":["${env:F}"]}`)
	f("endpoint: nowhere", "f:1:11: endpoint: must lead somewhere")
	f("{endpoint: nowhere, rate: '${env:R}'}", `{"endpoint":"nowhere",`+strings.Replace(rest, "0.1", `"${env:R}"`, 1))
	f("{endpoint: '${env:E}', level: loud, numbers: ['${env:N}', x]}", "f:1:31: level: must be debug, info or warn, got loud\nf:1:59: numbers[1]: must be an integer, got x")
	f("endpoint: ${env:X", "f:1:11: endpoint: ${env:X is not closed; write $${ for a literal ${")
	f("endpoint: ${x}", "f:1:11: endpoint: ${x} is neither ${env:NAME} nor ${file:PATH}; write $${ for a literal ${")

	n, err := config.Parse("f", []byte("a: ${env:A}\nb: $${env:B}\nc: d"), config.Env{Defer: true})
	if err != nil || !n.Get("a").Deferred() || n.Get("b").Deferred() || n.Get("c").Deferred() || n.Get("d").Deferred() || fmt.Sprint(n.Get("a").References()) != "[${env:A}]" {
		t.Errorf("%v, %v", n, err)
	}
}
