package config_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"pgregory.net/rapid"

	"github.com/creelhq/creel/config"
)

type color string

func (c *color) UnmarshalText(text []byte) error {
	if string(text) != "red" && string(text) != "blue" {
		return fmt.Errorf("is no colour: %q", text)
	}
	*c = color(text)
	return nil
}

func (c color) MarshalText() ([]byte, error) { return []byte(c), nil }

type tls struct {
	CAFile   string `doc:"Certificates to trust." optional:"true"`
	Insecure bool   `doc:"No TLS." default:"false"`
}

type batch struct {
	MaxBytes config.Size   `doc:"Bytes of a request." default:"4MiB" min:"1KiB"`
	MaxWait  time.Duration `doc:"Time to wait." default:"200ms" max:"1m"`
}

type header struct {
	Name  string `doc:"Its name."`
	Value string `doc:"Its value." secret:"true"`
}

type options struct {
	Endpoint string            `doc:"Where to send to."`
	Rate     float64           `doc:"Share." default:"0.1" min:"0" max:"1"`
	Limit    config.Rate       `doc:"Limit." default:"100/s"`
	Level    string            `doc:"Level." default:"info" enum:"debug|info|warn"`
	Include  []string          `doc:"Globs." default:"a, b"`
	Numbers  []int             `doc:"Numbers." optional:"true"`
	Labels   map[string]string `doc:"Labels." optional:"true"`
	Password string            `doc:"Password." optional:"true" secret:"true"`
	Color    color             `doc:"Colour." default:"red"`
	Headers  []header          `doc:"Headers." optional:"true"`
	Targets  []string          `doc:"Pipelines." optional:"true" ref:"pipeline"`
	TLS      *tls              `doc:"TLS."`
	Batch    batch             `doc:"Batching."`
	Free     json.RawMessage   `doc:"Anything." optional:"true"`
}

func (o options) Validate() error {
	if o.Endpoint == "nowhere" {
		return config.FieldError("endpoint", errors.New("must lead somewhere"))
	}
	return nil
}

func check(t *testing.T, file, text string, env config.Env) ([]byte, error) {
	t.Helper()
	n, err := config.Parse(file, []byte(text), env)
	if err != nil {
		return nil, err
	}
	canonical, errs := config.Of[options]().Check(n)
	if len(errs) > 0 {
		return nil, errs
	}
	return canonical, nil
}

func TestDefaultsAndUnits(t *testing.T) {
	canonical, err := check(t, "c.yaml", `
endpoint: 10
include: [x]
labels: {b: 2, a: "one"}
tls:
batch: {max_wait: 60s}
limit: 60/m
free: {deep: [1, "2"]}
`, config.Env{})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"endpoint":"10","rate":0.1,"limit":"1/s","level":"info","include":["x"],"labels":{"a":"one","b":"2"},"color":"red",` +
		`"tls":{"insecure":false},"batch":{"max_bytes":"4MiB","max_wait":"1m"},"free":{"deep":[1,"2"]}}`
	if string(canonical) != want {
		t.Fatalf("canonical is\n%s, want\n%s", canonical, want)
	}
	o, err := config.Decode[options](canonical)
	if err != nil {
		t.Fatal(err)
	}
	if o.Batch != (batch{4 << 20, time.Minute}) || o.TLS == nil || o.Limit != 1 || !cmp.Equal(o.Labels, map[string]string{"a": "one", "b": "2"}) {
		t.Fatalf("decoded %+v", o)
	}
	again, err := check(t, "c.json", string(canonical), config.Env{})
	if err != nil || !bytes.Equal(again, canonical) {
		t.Fatalf("checking canonical options again gives %s, %v", again, err)
	}
}

func TestErrors(t *testing.T) {
	env := config.Env{
		Lookup: func(n string) (string, bool) {
			v, ok := map[string]string{"PORT": "7", "EMPTY": "", "WORD": "abc"}[n]
			return v, ok
		},
		ReadFile: func(p string) ([]byte, error) { return nil, errors.New("open " + p + ": no such file") },
	}
	for _, c := range []struct{ name, file, text, want string }{
		{"missing", "f", "{}", `f:1:1: option "endpoint" is missing; it says: Where to send to.`},
		{"all at once", "f", "endpont: x\nrate: 7\nlevel: loud\nbatch: {max_bytes: 1, max_wait: soon}\n",
			`f:1:1: unknown option "endpont"; did you mean "endpoint"?
f:1:1: option "endpoint" is missing; it says: Where to send to.
f:2:7: rate: must be at most 1, got 7
f:3:8: level: must be debug, info or warn, got loud
f:4:20: batch.max_bytes: must be at least 1KiB, got 1
f:4:33: batch.max_wait: must be a duration such as 500ms, 10s, 1m30s or 7d, got "soon"`},
		{"types", "f", "endpoint: [x]\nrate: \"0.5\"\ninclude: {x: y}\nnumbers: [1, b]\nlabels: [a]\ntls: {insecure: yes}\ncolor: green\n",
			`f:1:11: endpoint: must be a string, got a list
f:2:7: rate: must be a number, got "0.5"; remove the quotes
f:3:10: include: must be a list of string, got a map
f:4:14: numbers[1]: must be an integer, got b
f:5:9: labels: must be a map of string, got a list
f:6:17: tls.insecure: must be a boolean, got yes; write true
f:7:8: color: is no colour: "green"`},
		{"secret stays secret", "f", "endpoint: x\npassword: [hunter2]\nheaders: [{name: a, value: {hunter2: 1}}]\n",
			"f:2:11: password: must be a string, got a list\nf:3:28: headers[0].value: must be a string, got a map"},
		{"validate", "f", "endpoint: nowhere", "f:1:11: endpoint: must lead somewhere"},
		{"twice", "f", "endpoint: a\nendpoint: b", "f:2:1: endpoint: is set twice, first in line 1"},
		{"two documents", "f", "endpoint: a\n---\nendpoint: b", "f:2:1: a second document begins here; write one only"},
		{"tabs", "f", "batch:\n\tmax_wait: 1s", "f:2:1: is not YAML: found character that cannot start any token; YAML is indented with spaces, not tabs"},
		{"json", "f.json", "{\n \"endpoint\": 1,\n \"rate\": \"x\"}", `f.json:3:10: rate: must be a number, got "x"; remove the quotes`},
		{"json cut", "f.json", `{"endpoint": `, "f.json:1:14: endpoint: is not JSON: unexpected EOF"},
		{"json twice", "f.json", `{"endpoint": 1, "endpoint": 2}`, "f.json:1:17: endpoint: is set twice, first in line 1"},
		{"no such variable", "f", "endpoint: ${env:NOPE}", "f:1:11: endpoint: environment variable NOPE is not set; set it, or write ${env:NOPE:-default}"},
		{"no such file", "f", "endpoint: ${file:/x}", "f:1:11: endpoint: read what ${file:…} refers to: open /x: no such file"},
		{"odd reference", "f", "endpoint: a${b}", "f:1:11: endpoint: ${b} is neither ${env:NAME} nor ${file:PATH}; write $${ for a literal ${"},
		{"open reference", "f", "endpoint: a${env:B", "f:1:11: endpoint: ${env:B is not closed; write $${ for a literal ${"},
		{"quoted number", "f", `{endpoint: x, numbers: ["${env:PORT}"]}`, `f:1:25: numbers[0]: must be an integer, got the value of ${env:PORT}; remove the quotes`},
		{"word for a number", "f", `{endpoint: x, numbers: ["${env:WORD}"]}`, `f:1:25: numbers[0]: must be an integer, got the value of ${env:WORD}; remove the quotes`},
		{"not a map", "f", "[a]", "f:1:1: must be a map of options, got a list"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := check(t, c.file, c.text, env)
			if err == nil {
				t.Fatal("no error")
			}
			if diff := cmp.Diff(c.want, err.Error()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestReferences(t *testing.T) {
	env := config.Env{
		Lookup:   func(n string) (string, bool) { v, ok := map[string]string{"PORT": "7", "EMPTY": ""}[n]; return v, ok },
		ReadFile: func(string) ([]byte, error) { return []byte("hunter2\n"), nil },
	}
	canonical, err := check(t, "f", "endpoint: h:${env:PORT}/$${x}\nnumbers: ['${env:PORT}', 1]\n", env)
	if err == nil {
		t.Fatalf("a quoted reference counts as a number: %s", canonical)
	}
	canonical, err = check(t, "f", "endpoint: h:${env:PORT}/$${x}${env:EMPTY:-d}\nnumbers: [\"1\"]\n", env)
	if err == nil {
		t.Fatalf("a quoted number counts as a number: %s", canonical)
	}
	canonical, err = check(t, "f", "endpoint: h:${env:PORT}/$${x}${env:EMPTY:-d}\nnumbers:\n - ${env:PORT}\npassword: ${file:/p}\n", env)
	if err != nil {
		t.Fatal(err)
	}
	o, err := config.Decode[options](canonical)
	if err != nil || o.Endpoint != "h:7/${x}d" || !cmp.Equal(o.Numbers, []int{7}) || o.Password != "hunter2" {
		t.Fatalf("decoded %+v, %v", o, err)
	}
	if s := string(config.Of[options]().Redact(canonical)); strings.Contains(s, "hunter2") || !strings.Contains(s, "[redacted]") {
		t.Fatalf("redacted: %s", s)
	}
}

func TestBombsAreRefused(t *testing.T) {
	var bomb strings.Builder
	bomb.WriteString("a0: &a0 [x]\n")
	for i := 1; i < 12; i++ {
		fmt.Fprintf(&bomb, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 10), ","))
	}
	for name, text := range map[string]string{
		"aliases": bomb.String(), "depth": strings.Repeat("[", 70) + strings.Repeat("]", 70), "circle": "a: &a [*a]", "size": strings.Repeat("#", 2<<20),
	} {
		if _, err := config.Parse("f", []byte(text), config.Env{}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestMergeKeys(t *testing.T) {
	canonical, err := check(t, "f", "endpoint: x\nlabels: &l {a: 1}\nfree: {<<: *l, b: 2}\n", config.Env{})
	if err != nil || !strings.Contains(string(canonical), `"free":{"b":2,"a":1}`) {
		t.Fatalf("%s, %v", canonical, err)
	}
}

func TestRefsAndPick(t *testing.T) {
	canonical, err := check(t, "f", "endpoint: x\ntargets: [a, b]", config.Env{})
	if err != nil {
		t.Fatal(err)
	}
	want := []config.Ref{{Kind: "pipeline", Name: "a", Path: "targets[0]"}, {Kind: "pipeline", Name: "b", Path: "targets[1]"}}
	if diff := cmp.Diff(want, config.Of[options]().Refs(canonical)); diff != "" {
		t.Error(diff)
	}
	if got := config.Of[batch]().Pick([]byte(`{"x":1,"max_bytes":"1KiB"}`)); string(got) != `{"max_bytes":"1KiB"}` {
		t.Errorf("picked %s", got)
	}
}

func TestSize(t *testing.T) {
	for text, want := range map[string]config.Size{"0": 0, "512": 512, "4MiB": 4 << 20, "1.5 GiB": 3 << 29, "1MB": 1e6, "64KiB": 64 << 10, "1B": 1} {
		var s config.Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%s is %d, %v", text, s, err)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		s := config.Size(rapid.Int64Range(0, 1<<52).Draw(t, "size"))
		var back config.Size
		if err := back.UnmarshalText([]byte(s.String())); err != nil || back != s {
			t.Fatalf("%d is written %s, read as %d, %v", s, s, back, err)
		}
	})
}

func TestExplain(t *testing.T) {
	var out bytes.Buffer
	f, ok := config.Of[options]().Lookup("batch.max_bytes")
	if !ok {
		t.Fatal("not found")
	}
	f.Explain(&out)
	if want := "max_bytes  size, default 4MiB, at least 1KiB\n    Bytes of a request.\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
	if _, ok := config.Of[options]().Lookup("batch.nope"); ok {
		t.Error("found what is not there")
	}
}

// TestJSONSchema compares what the schema says with what Check says, for good and bad options.
func TestJSONSchema(t *testing.T) {
	text, err := json.Marshal(config.Of[options]().JSONSchema())
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("s.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("s.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		`{"endpoint":"x"}`, `{"endpoint":"x","rate":0.5,"tls":null,"batch":{"max_wait":"1s"},"headers":[{"name":"a","value":"b"}]}`, `{}`,
		`{"endpoint":"x","rate":7}`, `{"endpoint":"x","nope":1}`, `{"endpoint":"x","level":"loud"}`, `{"endpoint":"x","include":"a"}`, `{"endpoint":["x"]}`,
	} {
		instance, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		_, ours := check(t, "f.json", text, config.Env{})
		theirs := schema.Validate(instance)
		if (ours == nil) != (theirs == nil) {
			t.Errorf("%s: Check says %v, the schema %v", text, ours, theirs)
		}
	}
}

func TestBugs(t *testing.T) {
	for name, f := range map[string]func(){
		"no doc": func() { config.Of[struct{ A int }]() },
		"bad default": func() {
			config.Of[struct {
				A int `doc:"x" default:"y"`
			}]()
		},
		"bad bound": func() {
			config.Of[struct {
				A int `doc:"x" default:"1" min:"y"`
			}]()
		},
		"bad type": func() {
			config.Of[struct {
				A chan int `doc:"x"`
			}]()
		},
		"clash": func() { config.Join(config.Of[batch](), config.Of[batch]()) },
	} {
		func() {
			defer func() {
				if p := fmt.Sprint(recover()); !strings.HasPrefix(p, "BUG: ") {
					t.Errorf("%s: %v", name, p)
				}
			}()
			f()
		}()
	}
}

// FuzzParse looks for text that makes Parse or Check panic, or whose canonical options do not decode.
func FuzzParse(f *testing.F) {
	f.Add("endpoint: x\nbatch: {max_wait: 1s}\nfree: {<<: {a: 1}}", false)
	f.Add(`{"endpoint": "\u00ff", "numbers": [1, 2]}`, true)
	f.Fuzz(func(t *testing.T, text string, isJSON bool) {
		file := "f.yaml"
		if isJSON {
			file = "f.json"
		}
		n, err := config.Parse(file, []byte(text), config.Env{})
		if err != nil {
			return
		}
		s := config.Of[options]()
		canonical, errs := s.Check(n)
		if len(errs) > 0 {
			return
		}
		if _, err := config.Decode[options](canonical); err != nil {
			t.Fatalf("%s does not decode: %v", canonical, err)
		}
		n, err = config.Parse("f.json", []byte(strings.ReplaceAll(string(canonical), "${", "$${")), config.Env{})
		if err != nil {
			t.Fatalf("%s does not parse: %v", canonical, err)
		}
		again, errs := s.Check(n)
		if len(errs) > 0 || !bytes.Equal(again, canonical) {
			t.Fatalf("%s becomes %s, %v", canonical, again, errs)
		}
	})
}
