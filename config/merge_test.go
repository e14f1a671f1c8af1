package config_test

import (
	"strings"
	"testing"

	"github.com/creelhq/creel/config"
)

func parse(t testing.TB, file, text string) *config.Node {
	t.Helper()
	n, err := config.Parse(file, []byte(text), config.Env{})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// sections accepts the root and what stands in it, as an agent's sections do.
func sections(path string) bool { return !strings.Contains(path, ".") }

func TestMerge(t *testing.T) {
	f := func(want string, texts ...string) {
		t.Helper()
		var list []*config.Node
		for i, text := range texts {
			list = append(list, parse(t, []string{"creel.yaml", "nginx@3 (hub)", "third.json"}[i], text))
		}
		n, err := config.Merge(sections, list...)
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			got = outline(n)
		}
		if got != want {
			t.Errorf("%q: got\n%s\nwant\n%s", texts, got, want)
		}
	}
	f("")
	f("", "")
	f("", "", "# nothing", "null")
	f("a{b=1@creel.yaml:1:5 c=2@nginx@3 (hub):2:5 }d=3@third.json:1:2 ", "a: {b: 1}", "\na: {c: 2}", `{"d": 3, "a": null}`)
	f("c{file{}host{x=1@nginx@3 (hub):1:12 }}", "c: {file: }", "c: {host: {x: 1}}")
	f("c{host{}}", "c: {host: }", "c:")
	f("c{host{}}", "c:", "c: {host: }")
	f("nginx@3 (hub):2:3: c.file/a: is defined twice: creel.yaml:1:5 and nginx@3 (hub):2:3", "c: {file/a: {x: 1}}", "c:\n  file/a: {y: 2}")
	f("nginx@3 (hub):1:5: c.host: is defined twice: creel.yaml:1:5 and nginx@3 (hub):1:5", "c: {host: }", "c: {host: }")
	f("nginx@3 (hub):1:1: c: is defined twice: creel.yaml:1:1 and nginx@3 (hub):1:1", "c: 1", "c: {host: }")
	f("nginx@3 (hub):1:1: c: is defined twice: creel.yaml:1:1 and nginx@3 (hub):1:1\n"+
		"nginx@3 (hub):2:1: d: is defined twice: creel.yaml:2:1 and nginx@3 (hub):2:1\n"+
		"third.json:1:2: c: is defined twice: creel.yaml:1:1 and third.json:1:2", "c: 1\nd: [1]", "c: 1\nd: []", `{"c": 1}`)
	f("nginx@3 (hub):1:1: is defined twice: creel.yaml:1:1 and nginx@3 (hub):1:1", "a: 1", "[1]")
}

// outline writes a tree with the places of its scalars.
func outline(n *config.Node) string {
	var s strings.Builder
	for key, c := range n.Entries() {
		s.WriteString(key)
		if c.IsMap() {
			s.WriteString("{" + outline(c) + "}")
			continue
		}
		s.WriteString("=" + c.Text() + "@" + c.Where() + " ")
	}
	return s.String()
}

// FuzzMerge looks for files that make Merge or Diff panic, or whose merge means something else the other way round.
func FuzzMerge(f *testing.F) {
	f.Add("a: {b: 1}", "a: {c: [1, {d: }]}")
	f.Add("a: &x {b: ~}\nc: *x", "{\"d\": [null]}")
	f.Fuzz(func(t *testing.T, one, two string) {
		a, errA := config.Parse("one", []byte(one), config.Env{Defer: true})
		b, errB := config.Parse("two", []byte(two), config.Env{Defer: true})
		if errA != nil || errB != nil {
			return
		}
		d := config.Diff(a, b)
		if len(d) != len(config.Diff(b, a)) && !strings.Contains(one+two, "[") && !strings.Contains(one+two, "-") {
			t.Fatalf("there are %d differences, and %d the other way round", len(d), len(config.Diff(b, a)))
		}
		ab, errAB := config.Merge(sections, a, b)
		ba, errBA := config.Merge(sections, b, a)
		if (errAB == nil) != (errBA == nil) {
			t.Fatalf("%v, the other way round %v", errAB, errBA)
		}
		if errAB != nil {
			return
		}
		if d := config.Diff(ab, ba); len(d) > 0 {
			t.Fatalf("the other way round it differs: %v", d)
		}
	})
}
