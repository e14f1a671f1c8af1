package documents_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/expr"
	"github.com/creelhq/creel/hub/internal/documents"
	"github.com/creelhq/creel/hub/internal/state"
)

func selector(t *testing.T, text string) expr.Selector {
	t.Helper()
	s, err := expr.ParseSelector(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sites is a fleet of one agent in each of two places, which has what documents say at once.
type sites struct {
	*documents.Store
	t *testing.T
}

func newSites(t *testing.T, s state.Store) *sites {
	f := &sites{t: t}
	f.Store = open(t, s, documents.Options{Agents: func() []documents.Agent {
		var list []documents.Agent
		for _, site := range []string{"north", "south"} {
			labels := map[string]string{"site": site}
			list = append(list, documents.Agent{ID: "id-" + site, Name: site, Labels: labels, Connected: true, Placement: f.Current().For(labels)})
		}
		return list
	}})
	return f
}

// at returns the names of the documents that an agent gets there.
func (f *sites) at(site string) string {
	var names []string
	for _, d := range f.Current().For(map[string]string{"site": site}).Offer.Documents {
		names = append(names, d.Name)
	}
	return strings.Join(names, " ")
}

func (f *sites) list(within expr.Selector) string {
	var names []string
	for _, d := range f.List(within).Documents {
		names = append(names, fmt.Sprintf("%s:%d", d.Name, d.Agents.Selected))
	}
	return strings.Join(names, " ")
}

func exporter(name, selector string) string {
	return fmt.Sprintf("document: %s\nselector: %s\nexporters: {debug/%s: {}}\n", name, selector, name)
}

// TestWithin: who sees only some agents reaches no others, whatever they write, and sees and changes no documents but theirs
// and those that are on their agents. Another hub, which reads the same control state, knows as much.
func TestWithin(t *testing.T) {
	m := new(state.Memory)
	f, other := newSites(t, m.Open()), newSites(t, m.Open())
	north, south := selector(t, `site == "north"`), selector(t, `site == "south"`)
	ctx := t.Context()
	put := func(within expr.Selector, text string) error {
		_, err := f.Apply(ctx, "ann", within, api.DocumentChange{Text: text})
		return err
	}
	a, err := f.Apply(ctx, "nora", north, api.DocumentChange{Text: exporter("n", `site != ""`)})
	if err != nil || a.Document.Within != north.String() || !slices.Equal(a.Selected, []string{"north"}) {
		t.Fatalf("written within: %+v, %v", a, err)
	}
	for what, err := range map[string]error{
		"everywhere": put(everybody, exporter("all", `site != ""`)),
		"in south":   put(everybody, exporter("s", `site == "south"`)),
		"of south":   put(south, exporter("own", `site matches "o"`)),
	} {
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	for _, hub := range []*sites{f, other} {
		await(t, hub.Store, "all", func(s *documents.Set) bool { return hub.at("south") == "all own s" && hub.at("north") == "all n" })
		for within, want := range map[expr.Selector]string{everybody: "all:2 n:1 own:1 s:1", north: "all:1 n:1", south: "all:1 own:1 s:1"} {
			if got := hub.list(within); got != want {
				t.Errorf("within %q there are %s, not %s", within, got, want)
			}
		}
	}
	d, err := other.Get(ctx, north, "all", 0)
	if err != nil || len(d.Placed) != 1 || d.Placed[0].Name != "north" {
		t.Errorf("a document of everybody's on their agents: %+v, %v", d.Placed, err)
	}
	for what, c := range map[string]struct {
		want string
		err  error
	}{
		"see another's":         {"not_found", second(f.Get(ctx, north, "own", 0))},
		"its history":           {"not_found", second(f.History(ctx, north, "own"))},
		"delete it":             {"not_found", f.Delete(ctx, "nora", north, "own", false)},
		"roll it back":          {"not_found", second(f.Rollback(ctx, "nora", north, "own", 1))},
		"take its name":         {"conflict", put(north, exporter("own", `site == "north"`))},
		"change everybody's":    {"forbidden", put(north, exporter("all", `site == "north"`))},
		"delete everybody's":    {"forbidden", f.Delete(ctx, "nora", north, "all", false)},
		"try to":                {"forbidden", f.Delete(ctx, "nora", north, "all", true)},
		"roll back everybody's": {"forbidden", second(f.Rollback(ctx, "nora", north, "all", 1))},
		"label themselves out":  {"bad_request", put(north, "document: out\nagent: {labels: {site: south}}\n")},
	} {
		if got := code(c.err); got != c.want {
			t.Errorf("%s: %v", what, c.err)
		}
		if c.want == "not_found" && strings.Contains(c.err.Error(), "ann") {
			t.Errorf("%s: the refusal says whose it is: %v", what, c.err)
		}
	}
	if at := f.at("north") + ", " + f.at("south"); at != "all n, all own s" {
		t.Errorf("refused changes have left %s", at)
	}
}

// second is the error of an answer that does not matter.
func second[T any](_ T, err error) error { return err }

// TestWithinStays: what was written within a condition keeps it, whoever changes it, until it is deleted; a rollback brings it
// back as well. What is hidden of a document's past stays hidden.
func TestWithinStays(t *testing.T) {
	f := newSites(t, new(state.Memory).Open())
	north := selector(t, `site == "north"`)
	ctx := t.Context()
	within := map[string]expr.Selector{"nora": north, "ann": everybody}
	step := func(what, by, want string, f func(within expr.Selector) (api.DocumentApplied, error)) api.DocumentApplied {
		t.Helper()
		a, err := f(within[by])
		if err != nil || a.Document.Within != want {
			t.Errorf("%s: within %q, %v", what, a.Document.Within, err)
		}
		return a
	}
	text := exporter("web", `site != ""`)
	write := func(by, text string) func(expr.Selector) (api.DocumentApplied, error) {
		return func(s expr.Selector) (api.DocumentApplied, error) {
			return f.Apply(ctx, by, s, api.DocumentChange{Text: text})
		}
	}
	remove := func(by string) {
		t.Helper()
		if err := f.Delete(ctx, by, within[by], "web", false); err != nil {
			t.Error(err)
		}
	}
	back := func(by string, to int64) func(expr.Selector) (api.DocumentApplied, error) {
		return func(s expr.Selector) (api.DocumentApplied, error) { return f.Rollback(ctx, by, s, "web", to) }
	}
	step("new", "nora", north.String(), write("nora", text))
	a := step("changed by who sees all", "ann", north.String(), write("ann", text+"# 2\n"))
	if !slices.ContainsFunc(a.Warnings, func(w string) bool { return strings.Contains(w, north.String()) }) {
		t.Errorf("nothing is said of that: %q", a.Warnings)
	}
	step("and once more by who wrote it", "nora", north.String(), write("nora", text+"# 3\n"))
	remove("nora")
	step("brought back by who sees all", "ann", north.String(), back("ann", 0)) // 5
	remove("ann")
	step("brought back by who wrote it", "nora", north.String(), back("nora", 0)) // 7
	remove("ann")
	step("written anew", "ann", "", write("ann", exporter("web", `site == "south"`))) // 9
	if f.at("south") != "web" || f.at("north") != "" {
		t.Errorf("it is at %q and %q", f.at("south"), f.at("north"))
	}
	if _, err := f.History(ctx, north, "web"); code(err) != "not_found" {
		t.Errorf("its history: %v", err)
	}
	step("rolled back to what it was within", "ann", north.String(), back("ann", 3)) // 10
	h, err := f.History(ctx, north, "web")
	seen := make(map[int64]bool)
	for _, v := range h.Versions {
		seen[v.Version] = true
	}
	if want := map[int64]bool{1: true, 2: true, 3: true, 4: true, 5: true, 6: true, 7: true, 8: true, 10: true}; err != nil || !maps.Equal(seen, want) {
		t.Errorf("they see versions %v, %v", seen, err)
	}
	if _, err := f.Get(ctx, north, "web", 9); code(err) != "not_found" {
		t.Errorf("version 9: %v", err)
	}
	if _, err := f.Rollback(ctx, "nora", north, "web", 9); code(err) != "not_found" {
		t.Errorf("back to version 9: %v", err)
	}
}
