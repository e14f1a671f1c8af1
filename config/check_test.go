package config_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"pgregory.net/rapid"

	"github.com/creelhq/creel/config"
)

// TestCanonicalIsAFixpoint draws options as people write them, in YAML's flow style, which is JSON's.
func TestCanonicalIsAFixpoint(t *testing.T) {
	s := config.Of[options]()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`[a-z<>&"\\ é]{0,6}`)
		o := map[string]any{"endpoint": text.Draw(t, "endpoint")}
		maybe := func(key string, v any) {
			if rapid.Bool().Draw(t, key+"?") {
				o[key] = v
			}
		}
		maybe("rate", rapid.Float64Range(0, 1).Draw(t, "rate"))
		maybe("limit", rapid.SampledFrom([]string{"1/s", "7/m", "5/h", "1e9/s", "0.3/m"}).Draw(t, "limit"))
		maybe("include", rapid.SliceOf(text).Draw(t, "include"))
		maybe("numbers", rapid.SliceOf(rapid.Int()).Draw(t, "numbers"))
		maybe("labels", rapid.MapOf(text, text).Draw(t, "labels"))
		maybe("free", map[string]any{"a": []any{1, "1", true, nil, text.Draw(t, "free")}})
		maybe("tls", map[string]any{"insecure": rapid.Bool().Draw(t, "insecure")})
		maybe("batch", map[string]any{
			"max_bytes": rapid.Int64Range(1024, 1<<62).Draw(t, "bytes"),
			"max_wait":  time.Duration(rapid.Int64Range(-1e12, 6e10).Draw(t, "wait")).String(),
		})
		doc, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		var first []byte
		for _, file := range []string{"f.yaml", "f.json"} {
			n, err := config.Parse(file, doc, config.Env{})
			if err != nil {
				t.Fatalf("%s: %v", doc, err)
			}
			canonical, errs := s.Check(n)
			if len(errs) > 0 {
				t.Fatalf("%s: %v", doc, errs)
			}
			if first == nil {
				first = canonical
			}
			if !bytes.Equal(first, canonical) {
				t.Fatalf("YAML means %s, the same as JSON %s", first, canonical)
			}
		}
		decoded, err := config.Decode[options](first)
		if err != nil || decoded.Endpoint != o["endpoint"] {
			t.Fatalf("%s: decoded %+v, %v", first, decoded, err)
		}
		n, err := config.Parse("f.json", first, config.Env{})
		if err != nil {
			t.Fatalf("%s: %v", first, err)
		}
		if again, errs := s.Check(n); !bytes.Equal(again, first) {
			t.Fatalf("%s becomes %s, %v", first, again, errs)
		}
	})
}

type guarded struct {
	Wait   time.Duration     `doc:"Wait." optional:"" secret:"true"`
	PIN    int               `doc:"PIN." optional:"" secret:"true" max:"9"`
	Levels []int             `doc:"Levels." optional:"" min:"1" max:"9"`
	Keys   []string          `doc:"Keys." optional:"" secret:"true"`
	Named  map[string]string `doc:"Named." optional:"" secret:"true"`
	When   time.Duration     `doc:"When." default:"1s"`
	Buffer config.Size       `doc:"Buffer." default:"1KiB" min:"16"`
	Speed  config.Rate       `doc:"Speed." default:"1/s"`
	Free   json.RawMessage   `doc:"Free." optional:""`
}

func TestSecretsStayOutOfErrors(t *testing.T) {
	n, err := config.Parse("f", []byte("wait: hunter2\npin: 4711\nkeys: {hunter2: x}\nnamed: hunter2\n"), config.Env{})
	if err != nil {
		t.Fatal(err)
	}
	_, errs := config.Of[guarded]().Check(n)
	if len(errs) != 4 || strings.Contains(errs.Error(), "hunter2") || strings.Contains(errs.Error(), "4711") {
		t.Errorf("got %v", errs)
	}
	// A secret may stand in the wrong place: what comes from a variable is named, not shown.
	env := config.Env{Lookup: func(string) (string, bool) { return "hunter2", true }}
	if n, err = config.Parse("f", []byte("when: ${env:X}\nbuffer: ${env:X}\nspeed: ${env:X}\nlevels: [\"${env:X}\"]\n"), env); err != nil {
		t.Fatal(err)
	}
	if _, errs = config.Of[guarded]().Check(n); len(errs) != 4 || strings.Contains(errs.Error(), "hunter2") || !strings.Contains(errs.Error(), "the value of ${env:X}") {
		t.Errorf("got %v", errs)
	}
}

func TestBoundsHoldForItems(t *testing.T) {
	n, err := config.Parse("f", []byte("levels: [1, 10, 0]"), config.Env{})
	if err != nil {
		t.Fatal(err)
	}
	_, errs := config.Of[guarded]().Check(n)
	want := "f:1:13: levels[1]: must be at most 9, got 10\nf:1:17: levels[2]: must be at least 1, got 0"
	if errs.Error() != want {
		t.Errorf("got %v", errs)
	}
}

// A reference stands for a scalar: what it expands to cannot become structure, nor text that is not canonical.
func TestReferencesStayScalars(t *testing.T) {
	for value, want := range map[string]string{
		`{"a":1}`: `"{\"a\":1}"`, `[1]`: `"[1]"`, " 1": `" 1"`, `"x"`: `"\"x\""`, "7": "7", "true": "true", "null": "null",
	} {
		env := config.Env{Lookup: func(string) (string, bool) { return value, true }}
		n, err := config.Parse("f", []byte("free:\n  v: ${env:V}"), env)
		if err != nil {
			t.Fatal(err)
		}
		canonical, errs := config.Of[guarded]().Check(n)
		if len(errs) > 0 || !strings.Contains(string(canonical), `"free":{"v":`+want+`}`) {
			t.Errorf("%q: %s, %v", value, canonical, errs)
		}
	}
	env := config.Env{Lookup: func(string) (string, bool) { return "\xff", true }}
	if _, err := config.Parse("f", []byte("free: ${env:V}"), env); err == nil {
		t.Error("bytes that are not UTF-8 pass")
	}
	if _, err := config.Parse("f.json", []byte("{\"free\": \"\xff\"}"), config.Env{}); err == nil {
		t.Error("a file that is not UTF-8 passes")
	}
}

func TestNothingIsAnEmptyMap(t *testing.T) {
	canonical, errs := config.Of[guarded]().Check(nil)
	if want := `{"when":"1s","buffer":"1KiB","speed":"1/s"}`; string(canonical) != want || len(errs) > 0 {
		t.Errorf("got %s, %v", canonical, errs)
	}
	if _, errs := config.Of[options]().Check(nil); len(errs) != 1 {
		t.Errorf("got %v, want one missing option", errs)
	}
}

func TestSecondDocumentAndDuplicatesAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		"a: 1\nb: 2\na: 3\n":   "f:3:1: a: is set twice, first in line 1",
		"a: 1\n---\nb: 1\n":    "f:2:1: a second document begins here; write one only",
		"a: {b: 1,\n    b: 2}": "f:2:5: a.b: is set twice, first in line 1",
	} {
		if _, err := config.Parse("f", []byte(text), config.Env{}); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

// TestJSONSchemaOfUnits holds JSON Schema and Check against each other where values are text with a grammar.
func TestJSONSchemaOfUnits(t *testing.T) {
	s := config.Of[guarded]()
	text, err := json.Marshal(s.JSONSchema())
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
	accepted := 0
	for _, text := range []string{
		`{}`, `{"when":"500ms"}`, `{"when":"1d"}`, `{"when":"1m30s"}`, `{"when":5}`, `{"when":"soon"}`, `{"when":""}`, `{"when":null}`,
		`{"buffer":512}`, `{"buffer":1}`, `{"buffer":"4MiB"}`, `{"buffer":"1.5 GiB"}`, `{"buffer":"4MB"}`, `{"buffer":"many"}`, `{"buffer":true}`,
		`{"speed":"5/h"}`, `{"speed":"5"}`, `{"speed":5}`, `{"speed":"5/d"}`, `{"levels":[1,9]}`, `{"levels":[0]}`, `{"levels":null}`, `{"free":{"a":[1]}}`,
	} {
		instance, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		n, err := config.Parse("f.json", []byte(text), config.Env{})
		if err != nil {
			t.Fatal(err)
		}
		_, errs := s.Check(n)
		theirs := schema.Validate(instance)
		if (len(errs) == 0) != (theirs == nil) {
			t.Errorf("%s: Check says %v, the schema %v", text, errs, theirs)
		}
		if theirs == nil {
			accepted++
		}
	}
	if accepted < 10 {
		t.Errorf("only %d are accepted", accepted)
	}
}
