package config_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/creelhq/creel/config"
)

func TestDiff(t *testing.T) {
	f := func(old, next string, want ...string) {
		t.Helper()
		file := func(text, name string) string {
			if strings.HasPrefix(text, "{\n") {
				return name + ".json"
			}
			return name
		}
		checkDiff(t, config.Diff(parse(t, file(old, "old"), old), parse(t, file(next, "new"), next)), want)
	}
	// What makes no difference.
	f("", "")
	f("a: {b: 1, c: [x, y]}", "# comment\na:\n  c:\n  - 'x'\n  - \"y\"\n  b: \"1\"\n")
	f("a: &x {b: 1}\nc: {d: *x}", "a: {b: 1}\nc: {d: {b: 1}}")
	f("a: {b: 1.0, c: true, d: null}", "{\n\"a\": {\"d\": {}, \"c\": true, \"b\": 1.0}}")
	f("a:", "")
	f("", "a: {}")
	f("to: [null]", "to: ['null']")
	// What does.
	f("a: {b: 1}", "a: {b: 2}", "new:1:5 changed a.b 1 → 2")
	f("a: {b: 1}", "a: {c: 1}", "old:1:5 removed a.b 1 → ", "new:1:5 added a.c  → 1")
	f("a: {b: {d: 1}}", "a: {b: [1]}", "new:1:5 changed a.b {d: 1} → [1]")
	f("a: {b: }", "a: {b: ''}", `new:1:5 changed a.b null → ""`)
	f("", "collectors: {host: {every: 10s, b: [1, {c: d}]}, self: }", "new:1:14 added collectors.host  → {b: [1, {c: d}], every: 10s}", "new:1:50 added collectors.self  → null")
	f("x: {a.b: 1}", "", "old:1:5 removed x.a.b 1 → ")
	f("[1]", "a: 1", "new:1:1 changed  [1] → {a: 1}")
	f("a: 1", "", "old:1:1 removed a 1 → ")
	// Lists.
	f("a: [x, y, z]", "a: [x, n, y, z]", "new:1:8 added a[1]  → n")
	f("a: [x, y, z]", "a: [y, z]", "old:1:5 removed a[0] x → ")
	f("a: [x, y, z]", "a: [x, w, z]", "new:1:8 changed a[1] y → w")
	f("a: [x, y]", "a: [y, x]", "old:1:5 removed a[0] x → ", "new:1:8 added a[1]  → x")
	f("a: [{n: 1, v: 1}, {n: 2, v: 2}]", "a: [{n: 1, v: 1}, {n: 2, v: 3}, {n: 3}]", "new:1:26 changed a[1].v 2 → 3", "new:1:33 added a[2]  → {n: 3}")
	f("a: [p, x, q, y, r]", "a: [p, q, r, s]", "old:1:8 removed a[1] x → ", "old:1:14 removed a[3] y → ", "new:1:14 added a[3]  → s")
	// What is long is shown where it differs.
	long := strings.Repeat("0123456789", 20)
	f("a: "+long+"x"+long, "a: "+long+"y"+long,
		"new:1:1 changed a …234567890123456789x01234567890123456789012345678901234567890123456789012… → …234567890123456789y01234567890123456789012345678901234567890123456789012…")
	f("", "c: {h: {a: "+long+"}}", "new:1:5 added c.h  → {a: "+long[:68]+"…")
}

func checkDiff(t *testing.T, got []config.Difference, want []string) {
	t.Helper()
	var lines []string
	for _, d := range got {
		lines = append(lines, fmt.Sprintf("%s %s %s %s → %s", d.Where, d.Kind, d.Path, d.Old, d.New))
	}
	if a, b := strings.Join(lines, "\n"), strings.Join(want, "\n"); a != b {
		t.Errorf("got\n%s\nwant\n%s", a, b)
	}
}

// TestDiffOfSecrets: that a secret has changed is said, but not what it is.
func TestDiffOfSecrets(t *testing.T) {
	f := func(old, next string, want ...string) {
		t.Helper()
		conceal := func(file, text string) *config.Node {
			return parse(t, file, text).Conceal(func(n *config.Node) (config.Schema, bool) {
				return config.Of[options](), n.Path() == "x.a" || n.Path() == "x.a.free.b"
			})
		}
		got := config.Diff(conceal("old", old), conceal("new", next))
		checkDiff(t, got, want)
		if s := fmt.Sprint(got); strings.Contains(s, "hunter") {
			t.Errorf("a secret is shown: %s", s)
		}
	}
	f("x: {a: {password: hunter1}}", "x: {a: {password: hunter1}}")
	f("x: {a: {password: hunter1}}", "x: {a: {password: hunter2}}", "new:1:9 changed x.a.password [redacted] → [redacted] (another one)")
	f("x: {a: {password: ''}}", "x: {a: {password: hunter2}}", `new:1:9 changed x.a.password "" → [redacted]`)
	f("", "x: {a: {headers: [{name: n, value: hunter2}], endpoint: e}}", "new:1:5 added x.a  → {endpoint: e, headers: [{name: n, value: [redacted]}]}")
	f("x: {a: {free: {b: {password: hunter1}, c: 1}}}", "x: {a: {free: {b: {password: hunter2}, c: 2}}}",
		"new:1:20 changed x.a.free.b.password [redacted] → [redacted] (another one)", "new:1:40 changed x.a.free.c 1 → 2")
	f("x: {a: {headers: [{name: n, value: [hunter2]}]}}", "x: {a: {headers: [{name: n, value: {v: hunter3}}]}}",
		"new:1:29 changed x.a.headers[0].value [[redacted]] → {v: [redacted]}")
}

// tree draws a configuration: maps of maps and lists of scalars, as JSON values.
func tree(t *rapid.T, depth int) any {
	switch kind := rapid.IntRange(0, 5).Draw(t, "kind"); {
	case kind <= 1 && depth > 0:
		m := map[string]any{}
		for _, k := range rapid.SliceOfNDistinct(rapid.SampledFrom(strings.Split("abcdefg", "")), 0, 4, rapid.ID).Draw(t, "keys") {
			m[k] = tree(t, depth-1)
		}
		return m
	case kind == 2 && depth > 0:
		var l []any
		for range rapid.IntRange(0, 4).Draw(t, "length") {
			l = append(l, tree(t, depth-1))
		}
		return l
	}
	return rapid.SampledFrom([]any{"x", "y y", "1", 7, true, "${z", strings.Repeat("long ", 30)}).Draw(t, "scalar")
}

// text writes a value as YAML's flow style, the keys of its maps in a random order and some scalars in quotes.
func text(t *rapid.T, v any) string {
	var parts []string
	switch v := v.(type) {
	case map[string]any:
		for _, k := range rapid.Permutation(slices.Sorted(maps.Keys(v))).Draw(t, "order") {
			parts = append(parts, k+": "+text(t, v[k]))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case []any:
		for _, c := range v {
			parts = append(parts, text(t, c))
		}
		return "[" + strings.Join(parts, ",  ") + "]"
	case string:
		if rapid.Bool().Draw(t, "single") {
			return "'" + strings.ReplaceAll(v, "${", "$${") + "'"
		}
		return `"` + strings.ReplaceAll(v, "${", "$${") + `"`
	}
	return fmt.Sprint(v)
}

func drawn(t *rapid.T, file string, v any) *config.Node {
	n, err := config.Parse(file, []byte(text(t, v)), config.Env{})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// edit changes one thing in v, which is a map or list with something in it, and says where and how. Nothing else in v is
// like what it puts there.
func edit(t *rapid.T, v any, path string) (edited any, at, kind string) {
	const fresh = "brand new"
	if l, isList := v.([]any); isList {
		i := rapid.IntRange(0, len(l)-1).Draw(t, "item")
		at = fmt.Sprintf("%s[%d]", path, i)
		switch rapid.IntRange(0, 2).Draw(t, "edit") {
		case 0:
			return slices.Insert(slices.Clone(l), i, any(fresh)), at, config.Added
		case 1:
			return slices.Delete(slices.Clone(l), i, i+1), "", config.Removed // of items that are alike, any
		}
		l = slices.Clone(l)
		l[i], at, kind = editBelow(t, l[i], at)
		return l, at, kind
	}
	m := maps.Clone(v.(map[string]any))
	k := rapid.SampledFrom(slices.Sorted(maps.Keys(m))).Draw(t, "key")
	at = path + "." + k
	switch rapid.IntRange(0, 2).Draw(t, "edit") {
	case 0:
		m["new"] = fresh
		return m, path + ".new", config.Added
	case 1:
		delete(m, k)
		return m, at, config.Removed
	}
	m[k], at, kind = editBelow(t, m[k], at)
	return m, at, kind
}

func editBelow(t *rapid.T, v any, path string) (edited any, at, kind string) {
	switch v := v.(type) {
	case map[string]any:
		if len(v) > 0 {
			return edit(t, v, path)
		}
	case []any:
		if len(v) > 0 {
			return edit(t, v, path)
		}
	}
	return "brand new", path, config.Changed
}

// TestDiffFindsTheEdit: what was written otherwise is the same, and of one edit there is one difference, wherever it is.
func TestDiffFindsTheEdit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		whole := map[string]any{"s": map[string]any{"c": tree(t, 4), "d": tree(t, 2)}}
		old := drawn(t, "old", whole)
		if d := config.Diff(old, drawn(t, "again", whole)); len(d) > 0 {
			t.Fatalf("the same differs: %v", d)
		}
		section, at, kind := edit(t, whole["s"], "s")
		next := drawn(t, "new", map[string]any{"s": section})
		d := config.Diff(old, next)
		if len(d) != 1 || d[0].Kind != kind || at != "" && d[0].Path != at {
			t.Fatalf("%s %s is found as %v", kind, at, d)
		}
		back := config.Diff(next, old)
		opposite := map[string]string{config.Added: config.Removed, config.Removed: config.Added, config.Changed: config.Changed}[kind]
		if len(back) != 1 || back[0].Kind != opposite || back[0].Old != d[0].New || back[0].New != d[0].Old {
			t.Fatalf("%v is the other way round %v", d, back)
		}
	})
}

// TestMergeOfPieces: pieces that share nothing make the whole, whichever file they stand in; one thing more is refused.
func TestMergeOfPieces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		whole := map[string]any{}
		pieces := []map[string]any{{}, {}, {}}
		for _, s := range []string{"collectors", "exporters"} {
			section := map[string]any{}
			for _, k := range rapid.SliceOfNDistinct(rapid.SampledFrom(strings.Split("abcdefg", "")), 0, 5, rapid.ID).Draw(t, "ids") {
				section[k] = tree(t, 2)
				p := rapid.SampledFrom(pieces).Draw(t, "piece")
				if p[s] == nil {
					p[s] = map[string]any{}
				}
				p[s].(map[string]any)[k] = section[k]
			}
			whole[s] = section
		}
		var list []*config.Node
		for i, p := range pieces {
			list = append(list, drawn(t, fmt.Sprint("piece", i), p))
		}
		merged, err := config.Merge(sections, list...)
		if err != nil {
			t.Fatal(err)
		}
		if d := config.Diff(drawn(t, "whole", whole), merged); len(d) > 0 {
			t.Fatalf("pieces %v make something else: %v", pieces, d)
		}
		_, err = config.Merge(sections, append(list, list[0])...)
		ids := 0
		for _, s := range pieces[0] {
			ids += len(s.(map[string]any))
		}
		var errs config.Errors
		if errors.As(err, &errs); len(errs) != ids {
			t.Fatalf("%d ids are there twice, and the errors are %v", ids, err)
		}
	})
}
