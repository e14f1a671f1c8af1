package expr_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/creelhq/creel/expr"
	lang "github.com/expr-lang/expr"
)

func selector(t testing.TB, text string) expr.Selector {
	t.Helper()
	s, err := expr.ParseSelector(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return s
}

var labels = map[string]string{
	"site": "north", "rack": "7", "host.name": "web-1", "creel.role": "agent", "kubernetes.io/arch": "arm64", "INFO": "x", "body": "mine", "labels": "odd", "a.b.c": "abc", "tags": "a,b",
}

func TestSelector(t *testing.T) {
	f := func(text string, want bool, names string) {
		t.Helper()
		s := selector(t, text)
		if s.Match(labels) != want {
			t.Errorf("%s is %v", text, !want)
		}
		for name := range strings.FieldsSeq(names) {
			if !s.Names(name) {
				t.Errorf("%s does not name %s", text, name)
			}
		}
		if s.Names("other") || s.Names("labels") && !strings.Contains(names, "labels") || s.String() != text {
			t.Errorf("%s names too much, or is %s", text, s)
		}
	}
	f(`site == "north"`, true, "site")
	f(`site != "north"`, false, "site")
	f(`"north" == site && site == site`, true, "site")
	f(`host.name matches "^web"`, true, "host.name")
	f(`host.name matches "^web$"`, false, "host.name")
	f(`creel.role == "hub"`, false, "creel.role")
	f(`a.b.c == "abc"`, true, "a.b.c")
	f(`labels.a.b.c == labels["a.b.c"]`, true, "a.b.c")
	f(`host?.name == "web-1"`, true, "host.name")
	f(`labels["kubernetes.io/arch"] in ["amd64", "arm64"]`, true, "kubernetes.io/arch")
	f(`labels["labels"] == "odd" && labels.labels == "odd"`, true, "labels")
	f(`INFO == "x" && body == "mine"`, true, "INFO body") // neither severities nor fields
	f(`site not in ["south", "west"] and not (rack == "8")`, true, "site rack")
	f(`site contains "ort" or nobody == "x"`, true, "site nobody")
	f(`site startsWith "no" && site endsWith "th" && !(site startsWith "x")`, true, "site")
	f(`nobody == ""`, true, "nobody")
	f(`nobody != ""`, false, "nobody")
	f(`nobody != "north"`, true, "nobody")
	f(`nobody == nobody`, true, "nobody")
	f(`nobody contains "" && nobody matches "^$"`, true, "nobody")
	f(`true`, true, "")
	f(`false`, false, "")
	f(`lower(upper(site) + "-" + rack) == "north-7"`, true, "site rack")
	f(`int(rack) in 5..9 && len(site) == 5`, true, "rack site")
	f(`int(nobody) > 5`, false, "nobody")
	f(`hash(host.name) % 100 < 100`, true, "host.name")
	f(`any(split(tags, ","), # == "b") && split(tags, ",")[0] == "a"`, true, "tags")
	f(`site == "north" ? rack == "7" : nobody == "x"`, true, "site rack nobody")
	f(`host.name[:3] == "web" && host.name[-1:] == "1"`, true, "host.name")
	f(`site | upper() == "NORTH"`, true, "site")
	f(`extract(host.name, "-([0-9]+)") == rack`, false, "host.name rack")
	f(`hasPrefix(site, "n")`, true, "site")
	f("labels[\"ä\"] == \"\" && site == \"north\"", true, "ä site")
	f(`true`+strings.Repeat(` && site == "north"`, 500), true, "site")
}

// TestSelectorErrors: mistakes are found at load, and the caret stands under them.
func TestSelectorErrors(t *testing.T) {
	f := func(text, message, caret string) {
		t.Helper()
		s, err := expr.ParseSelector(text)
		if err == nil {
			t.Errorf("%s: no error", text)
			return
		}
		lines := strings.Split(err.Error(), "\n")
		if !strings.Contains(lines[0], message) || lines[len(lines)-1] != " | "+caret {
			t.Errorf("%s: the error is %v, not %s at %s", text, err, message, caret)
		}
		if !s.IsZero() {
			t.Errorf("%s: there is a selector", text)
		}
	}
	f(`site`, `a selector must be a boolean, not a string`, `^`)
	f(`host.name`, `a selector must be a boolean, not a string`, `^`)
	f(`site && rack == "7"`, `a condition must be a boolean, not a string`, `^`)
	f(`rack == 7`, `a string cannot be compared with an integer`, `.....^`)
	f(`host.name == "ä" && rack in [7]`, `a string cannot be compared with an integer`, `............................^`)
	f(`site == true`, `a string cannot be compared with a boolean`, `.....^`)
	f(`"a" in site`, `must be a list or a map, not a string`, `.......^`)
	f(`site matches "("`, `missing closing )`, `.............^`)
	f(`site matches rack`, `must be a constant string`, `.............^`)
	f(`lowr(site) == "x"`, `there is no function lowr; did you mean lower?`, `^`)
	f(`lower(5) == "x"`, `argument 1 of lower(text) must be a string, not an integer`, `......^`)
	f(`site == nil`, `a label that is missing is "": ask for that, not for nil`, `........^`)
	f(`(site ?? nil) == "x"`, `a label that is missing is "": ask for that, not for nil`, `.........^`)
	f(`"site" in labels`, `whether it is there, labels["any name"] != ""`, `..........^`)
	f(`labels == ""`, `a label is written labels["any name"]`, `^`)
	f(`labels[""] == ""`, `a label is written labels["any name"]`, `^`)
	f(`host["name"] == "x"`, `a label is a string and has no entries`, `....^`)
	f(`labels["a"]["b"] == "x"`, `a label is a string and has no entries`, `...........^`)
	f(`labels[site] == "x"`, `a label is written labels["any name"]`, `^`)
	f(`site[0] == "n"`, `what is looked into must be a list or a map, not a string`, `....^`)
	f(`site.lower() == "n"`, `there are no methods`, `.....^`)
	f(`cost-center == "x"`, `a label whose name has a - is written labels["any name"]`, `....^`)
	f(`kubernetes.io/arch == "x"`, `a label whose name has a / is written labels["any name"]`, `.............^`)
	f(`let x = site; x == "x"`, `there are no variables, maps or ; in a selector`, `....^`)
	f(`{a: site}.a == "x"`, `there are no variables, maps or ; in a selector`, `^`)
	f(`site; rack`, `there are no variables, maps or ; in a selector`, `^`)
	f(`now() > date("2026-01-01")`, `must not depend on now()`, `^`)
	f(`site == `, `unexpected token EOF`, `.......^`)
	f(strings.Repeat("!(", 100)+"true"+strings.Repeat(")", 100), `nested more than`, strings.Repeat(".", 128)+"^")
}

// TestSelectorShown: what Semantics shows are selectors.
func TestSelectorShown(t *testing.T) {
	shown := 0
	for _, block := range strings.Split(expr.Semantics(), "```yaml\n")[1:] {
		block, _, _ = strings.Cut(block, "```")
		var options map[string][]string
		if err := yaml.Unmarshal([]byte(block), &options); err != nil {
			t.Fatal(err)
		}
		for _, text := range options["selector"] {
			selector(t, text)
			shown++
		}
	}
	if shown != 5 {
		t.Errorf("%d selectors are shown", shown)
	}
}

// TestSelectorOfAll: no text is for all, and a selector goes through JSON as its text.
func TestSelectorOfAll(t *testing.T) {
	for _, text := range []string{"", " \n\t"} {
		if s := selector(t, text); !s.IsZero() || !s.Match(nil) || !s.Match(labels) || s.Names("site") || s.Names("") || s.String() != "" {
			t.Errorf("%q is %+v", text, s)
		}
	}
	if s := selector(t, `site == ""`); !s.Match(nil) || s.IsZero() {
		t.Error("no labels have a site")
	}
	type options struct{ All, North expr.Selector }
	var o, again options
	if err := json.Unmarshal([]byte(`{"All": "", "North": "site == \"north\""}`), &o); err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, &again); err != nil || !again.All.IsZero() || again.North.String() != `site == "north"` || !again.North.Match(labels) || again.North.Match(nil) {
		t.Errorf("%s is %v: %v", out, again, err)
	}
	if err := json.Unmarshal([]byte(`{"North": "site"}`), &o); err == nil {
		t.Error("what is no selector was taken")
	}
}

// selectors writes random selectors that name only labels that are there, which is where expr-lang means the same.
type selectors struct{ *rand.Rand }

func (w selectors) pick(texts ...string) string { return texts[w.IntN(len(texts))] }

func (w selectors) text(depth int) string {
	if depth == 0 {
		return w.pick(`"north"`, `""`, `"w"`, "site", "rack", "host.name", "creel.role", `labels["x/y"]`, "empty")
	}
	a, b := w.text(depth-1), w.text(depth-1)
	return w.pick(a, "("+a+" + "+b+")", "lower("+a+")", "upper("+a+")", "trimPrefix("+a+", "+b+")", "replace("+a+", \"n\", "+b+")", "("+w.condition(depth-1)+" ? "+a+" : "+b+")", a+"[1:]")
}

func (w selectors) condition(depth int) string {
	if depth == 0 {
		return w.pick("true", `(site == "north")`, `(creel.role != "hub")`, `(rack in ["7", "8"])`)
	}
	a, b, s, u := w.condition(depth-1), w.condition(depth-1), w.text(depth-1), w.text(depth-1)
	return w.pick("("+a+" && "+b+")", "("+a+" or "+b+")", "!("+a+")", "("+s+" "+w.pick("==", "!=", "<", ">=", "contains", "startsWith", "endsWith", "not contains")+" "+u+")",
		"("+s+" in ["+u+", \"w\"])", "("+s+" not matches \"^n|1$\")", "any(["+s+", "+u+"], # == site)", "(len("+s+") > 3)", "("+a+" ? "+b+" : "+a+")")
}

// TestSelectorAgreesWithExprLang: of what is written at random, expr-lang's machine says the same.
func TestSelectorAgreesWithExprLang(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	w := selectors{rand.New(rand.NewPCG(seed, 2))}
	compared, held := 0, 0
	for range 1500 {
		text := w.condition(1 + w.IntN(3))
		s := selector(t, text)
		for range 2 {
			value := func() string { return w.pick("north", "n", "", "web-1", "hub", "7", "W") }
			have := map[string]string{"site": value(), "rack": value(), "host.name": value(), "creel.role": value(), "x/y": value()}
			env := map[string]any{"site": have["site"], "rack": have["rack"], "host": map[string]any{"name": have["host.name"]}, "creel": map[string]any{"role": have["creel.role"]}, "labels": have, "empty": ""}
			want, err := lang.Eval(text, env)
			if err != nil {
				continue // a string is shorter than what is cut off
			}
			compared++
			if want == true {
				held++
			}
			if got := s.Match(have); got != want {
				t.Fatalf("%s of %v: creel has %v, expr-lang %v", text, have, got, want)
			}
		}
	}
	if compared < 1500 || held < compared/10 || held > compared*9/10 {
		t.Errorf("of %d that were compared %d held", compared, held)
	}
}

// TestSelectorConcurrent: one selector serves many goroutines.
func TestSelectorConcurrent(t *testing.T) {
	s := selector(t, `upper(site) + "-" + rack == "NORTH-" + n && any(split(tags, ","), # == n)`)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			n := fmt.Sprint(g)
			yes := map[string]string{"site": "north", "rack": n, "n": n, "tags": "x," + n}
			no := map[string]string{"site": "north", "rack": n, "n": "x", "tags": n}
			for range 500 {
				if !s.Match(yes) || s.Match(no) {
					t.Error("another's labels were seen")
					return
				}
			}
		})
	}
	wg.Wait()
}

// FuzzSelector: no text makes ParseSelector panic, and what it takes can be asked of any labels, names what it names, and
// is written as it was.
func FuzzSelector(f *testing.F) {
	for _, text := range corpus {
		f.Add(text)
	}
	for _, text := range []string{`site == "north"`, `labels["a"].b != ""`, `a?.["b"] == ""`, `labels?.x == ""`, `a.b[c.d].e`, `any([site], #.x == "")`, `hash(a) % 2 == 0`, `a in b..c`, `(a)[b:c] == ""`, `if a == b { c } else { d }`, `::lower(a) == ""`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := expr.ParseSelector(text)
		if err != nil {
			if err.Error() == "" {
				t.Error("an error says nothing")
			}
			return
		}
		bare := s.Match(nil)
		if s.Match(map[string]string{}) != bare || s.Match(map[string]string{"\x00 not named": "x"}) != bare && !s.Names("\x00 not named") {
			t.Errorf("%q depends on what it does not name", text)
		}
		s.Match(labels)
		if again, err := expr.ParseSelector(s.String()); err != nil || again.String() != s.String() {
			t.Errorf("%q is written %q: %v", text, s, err)
		}
	})
}

// BenchmarkSelector is one question about one agent; a hub asks two million of them at once, so the limit is 2 µs.
func BenchmarkSelector(b *testing.B) {
	for _, text := range []string{`site == "north"`, `site == "north" && host.name matches "^web" && creel.role != "hub"`, `host.name matches "^web-[0-9]+$"`, `lower(site) in ["north", "south"]`, `hash(host.name) % 100 < 5`} {
		b.Run(text, func(b *testing.B) {
			s := selector(b, text)
			b.ReportAllocs()
			for b.Loop() {
				s.Match(labels)
			}
		})
	}
}
