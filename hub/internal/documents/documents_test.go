package documents_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/expr"
	"github.com/creelhq/creel/hub/internal/documents"
	"github.com/creelhq/creel/hub/internal/state"
	"github.com/creelhq/creel/report"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// everybody is the condition of those who see all agents.
var everybody expr.Selector

type fataler interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

func open(t *testing.T, s state.Store, o documents.Options) *documents.Store {
	t.Helper()
	o.Store = s
	d, err := documents.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// code returns what kind of error it is, "" for none.
func code(err error) string {
	var e *api.Error
	if err != nil && !errors.As(err, &e) {
		return err.Error()
	}
	if e == nil {
		return ""
	}
	return e.Code
}

func apply(t fataler, d *documents.Store, text string) api.DocumentApplied {
	t.Helper()
	a, err := d.Apply(context.Background(), "ann", everybody, api.DocumentChange{Text: text})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// await waits until what a store has heard is as ok says.
func await(t fataler, d *documents.Store, what string, ok func(*documents.Set) bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		changed := d.Changed()
		if ok(d.Current()) {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("the store does not hear of %s", what)
		}
	}
}

// offered is what an agent with the label site=north is offered: name@version, or the conflict.
func offered(s *documents.Set) string {
	p := s.For(map[string]string{"site": "north"})
	if p.Conflict != "" {
		return p.Conflict
	}
	return hearing(p)
}

// TestLifeOfADocument on both kinds of control state, with a second hub that follows.
func TestLifeOfADocument(t *testing.T) {
	test := func(t *testing.T, one, two state.Store) {
		d, other := open(t, one, documents.Options{}), open(t, two, documents.Options{})
		first := "document: web\nselector: site == \"north\"\nexporters: {debug: {}}\n"
		second := strings.Replace(first, "debug: {}", "debug: {verbosity: normal}", 1)
		if a := apply(t, d, first); a.Outcome != "created" || a.Document.Version != 1 || a.Document.By != "ann" || a.Document.Selector != `site == "north"` || len(a.Differences) == 0 {
			t.Errorf("created: %+v", a)
		}
		if a := apply(t, d, first); a.Outcome != "unchanged" || a.Document.Version != 1 || len(a.Differences) != 0 {
			t.Errorf("unchanged: %+v", a)
		}
		a := apply(t, d, second)
		if a.Outcome != "changed" || a.Document.Version != 2 || len(a.Differences) != 1 || a.Differences[0].Path != "exporters.debug.verbosity" || a.Differences[0].New != "normal" {
			t.Errorf("changed: %+v", a)
		}
		if got := offered(d.Current()); got != "web@2" {
			t.Errorf("offered at once: %s", got)
		}
		await(t, other, "the change", func(s *documents.Set) bool { return offered(s) == "web@2" })
		zero, one_ := int64(0), int64(1)
		for _, v := range []*int64{&zero, &one_} {
			if _, err := other.Apply(t.Context(), "bob", everybody, api.DocumentChange{Text: first, Version: v}); code(err) != "conflict" || !strings.Contains(err.Error(), "at version 2, by ann") {
				t.Errorf("a change of version %d: %v", *v, err)
			}
		}
		if a, err := other.Apply(t.Context(), "bob", everybody, api.DocumentChange{Text: first, DryRun: true}); err != nil || a.Outcome != "changed" || a.Document.Version != 3 {
			t.Errorf("a trial: %+v, %v", a, err)
		}
		if err := other.Delete(t.Context(), "bob", everybody, "web", true); err != nil || offered(other.Current()) != "web@2" {
			t.Errorf("a trial to delete: %v, %s", err, offered(other.Current()))
		}
		if a, err := other.Rollback(t.Context(), "bob", everybody, "web", 0); err != nil || a.Document.Version != 3 || a.Document.Text != first || a.Document.Note != "rolled back to version 1" {
			t.Errorf("rolled back: %+v, %v", a, err)
		}
		if err := d.Delete(t.Context(), "bob", everybody, "web", false); err != nil {
			t.Error(err)
		}
		if err := d.Delete(t.Context(), "bob", everybody, "web", false); code(err) != "not_found" {
			t.Errorf("deleted twice: %v", err)
		}
		await(t, other, "the deletion", func(s *documents.Set) bool { return offered(s) == "" })
		if _, err := other.Get(t.Context(), everybody, "web", 0); code(err) != "not_found" || !strings.Contains(err.Error(), "creel rollback") {
			t.Errorf("what is deleted: %v", err)
		}
		if a, err := other.Rollback(t.Context(), "bob", everybody, "web", 2); err != nil || a.Document.Version != 5 || a.Outcome != "created" {
			t.Errorf("brought back: %+v, %v", a, err)
		}
		h, err := d.History(t.Context(), everybody, "web")
		var list []string
		for _, v := range h.Versions {
			list = append(list, fmt.Sprint(v.Version, v.Deleted, v.Text == second))
		}
		if got := strings.Join(list, ", "); err != nil || got != "5 false true, 4 true false, 3 false false, 2 false true, 1 false false" {
			t.Errorf("the history is %s, %v", got, err)
		}
		if got, err := d.Get(t.Context(), everybody, "web", 2); err != nil || got.Text != second || got.Version != 2 {
			t.Errorf("version 2 is %+v, %v", got, err)
		}
		for what, err := range map[string]error{
			"unknown":         func() error { _, err := d.Get(t.Context(), everybody, "nobody", 0); return err }(),
			"unknown version": func() error { _, err := d.Get(t.Context(), everybody, "web", 99); return err }(),
			"no name":         func() error { _, err := d.Get(t.Context(), everybody, "../web", 0); return err }(),
			"no history":      func() error { _, err := d.History(t.Context(), everybody, "nobody"); return err }(),
			"no rollback":     func() error { _, err := d.Rollback(t.Context(), "bob", everybody, "nobody", 0); return err }(),
			"no such version": func() error { _, err := d.Rollback(t.Context(), "bob", everybody, "web", 77); return err }(),
		} {
			if code(err) != "not_found" {
				t.Errorf("%s: %v", what, err)
			}
		}
		if _, err := d.Rollback(t.Context(), "bob", everybody, "web", 4); code(err) != "bad_request" {
			t.Errorf("rolled back to a deletion: %v", err)
		}
	}
	t.Run("memory", func(t *testing.T) {
		m := new(state.Memory)
		test(t, m.Open(), m.Open())
	})
	t.Run("embedded", func(t *testing.T) {
		s, err := state.Embedded(t.Context(), state.EmbeddedOptions{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		test(t, s, s)
	})
}

// TestWhatIsRefused: each text has one thing that is wrong, at a place.
func TestWhatIsRefused(t *testing.T) {
	d := open(t, new(state.Memory).Open(), documents.Options{Check: func(_, text string) ([]api.Problem, []string) {
		if strings.Contains(text, "nonsense") {
			return []api.Problem{{Line: 2, Column: 13, Message: "no such plugin"}}, nil
		}
		return nil, []string{"looked at"}
	}})
	f := func(text, at, want string) {
		t.Helper()
		_, err := d.Apply(t.Context(), "ann", everybody, api.DocumentChange{Text: text})
		var e *api.Error
		if !errors.As(err, &e) || e.Code != "bad_request" || len(e.Problems) != 1 {
			t.Errorf("%q: %v", text, err)
			return
		}
		p := e.Problems[0]
		if got := fmt.Sprintf("%d:%d", p.Line, p.Column); got != at || !strings.Contains(p.Message+p.Hint, want) {
			t.Errorf("%q: %s: %s; %s", text, got, p.Message, p.Hint)
		}
	}
	f("", "1:1", "document is missing")
	f("[]", "1:1", "a document is a map")
	f("a: [", "2:1", "is not YAML")
	f("document: web\ncollektors: {}", "2:1", "collectors")
	f("document: a/b", "1:11", "letters")
	f("document: web.json", "1:11", ".json")
	f("document: ${env:NAME}", "1:11", "letters")
	f("document: web\nselector: site ==", "2:11", "unexpected")
	f("document: web\nselector: site", "2:11", "boolean")
	f("document: web\nselector: ${env:SELECTOR}", "2:11", "does not know what ${env:SELECTOR}")
	f("document: web\nselector:", "2:10", "condition")
	f("document: web\nplace: some", "2:8", "must be all")
	f("document: web\nplace: 0", "2:8", "from 1 to 1000")
	f("document: web\nplace: 2\nspread: {}", "3:9", "must be a label")
	f("document: web\nplace: 2\npriority: 10", "3:11", "from 0 to 9")
	f("document: web\nspread: site", "2:1", "means nothing")
	f("document: web\ncollectors: [file]", "2:13", "must be a map")
	f("document: web\nagent:\n  hub: {url: 'http://x'}", "3:3", "own file")
	f("document: web\nagent: {admin: {}}", "2:9", "own file")
	f("document: web\nagent: {centers: {}}", "2:9", "own file")
	f("document: web\nagent: {watch: {}}", "2:9", "own file")
	f("document: web\nagent: {labels: {creel.role: hub}}", "2:18", "cannot be given")
	f("document: web\nselector: site == \"north\"\nagent: {labels: {site: south}}", "3:18", "lose the document again")
	f("document: web\ncollectors: {nonsense: {}}", "2:13", "no such plugin")
	if got := offered(d.Current()); got != "" {
		t.Errorf("%s was written", got)
	}
	if a := apply(t, d, "document: web\ncollectors: {file: {include: ['${env:LOGS}']}}\n"); !slices.Contains(a.Warnings, "looked at") {
		t.Errorf("the warnings are %q", a.Warnings)
	}
	if a := apply(t, d, "{\"document\": \"json\",\n\t\"exporters\": {\"debug\": {}}}"); a.Outcome != "created" {
		t.Errorf("JSON: %+v", a)
	}
	if _, err := d.Apply(t.Context(), "ann", everybody, api.DocumentChange{Text: "document: big\n#" + strings.Repeat("x", api.MaxDocument)}); code(err) != "too_much" {
		t.Errorf("a document that is too large: %v", err)
	}
}

// TestWhoIsSelected: labels say who gets what; a hub's own agent must be named.
func TestWhoIsSelected(t *testing.T) {
	d := open(t, new(state.Memory).Open(), documents.Options{})
	for _, text := range []string{
		"document: all\nexporters: {debug: {}}",
		"document: north\nselector: site == \"north\"\nagent: {labels: {a: b}}",
		"document: not-south\nselector: site != \"south\"\nagent: {labels: {c: d}}",
		"document: hubs\nselector: creel.role == \"hub\"\nexporters: {debug/hubs: {}}",
		"document: everybody\nselector: creel.role == \"hub\" || true\nexporters: {debug/everybody: {}}",
	} {
		apply(t, d, text)
	}
	f := func(labels map[string]string, want string) {
		t.Helper()
		var got []string
		for _, o := range d.Current().For(labels).Offer.Documents {
			got = append(got, o.Name)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%v gets %s, want %s", labels, got, want)
		}
	}
	f(nil, "all everybody not-south")
	f(map[string]string{"site": "north"}, "all everybody north not-south")
	f(map[string]string{"site": "south"}, "all everybody")
	f(map[string]string{"site": "north", "creel.role": "hub"}, "everybody hubs")
	f(map[string]string{"site": "north", "creel.role": "edge"}, "all everybody north not-south")
}

// TestDefinedTwice: what a known agent would get twice is refused, and an agent that turns up later gets nothing.
func TestDefinedTwice(t *testing.T) {
	agents := []documents.Agent{{ID: "id-1", Name: "alpha", Labels: map[string]string{"site": "north"}}}
	d := open(t, new(state.Memory).Open(), documents.Options{Agents: func() []documents.Agent { return agents }})
	apply(t, d, "document: one\nselector: site == \"north\"\nexporters: {debug: {}}")
	apply(t, d, "document: two\nselector: site == \"south\"\nexporters:\n  debug: {}")
	_, err := d.Apply(t.Context(), "ann", everybody, api.DocumentChange{Text: "document: two\nselector: site != \"\"\nexporters:\n  debug: {}"})
	var e *api.Error
	if !errors.As(err, &e) || e.Code != "conflict" || len(e.Problems) != 1 || e.Problems[0].Line != 4 || e.Problems[0].Path != "exporters.debug" {
		t.Fatalf("defined twice: %+v", err)
	}
	for _, word := range []string{"document one", "document two", "alpha", "id-1"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q does not name %s", err, word)
		}
	}
	agents = nil
	a := apply(t, d, "document: two\nselector: site != \"\"\nexporters:\n  debug: {}")
	if len(a.Selected) != 0 || !slices.ContainsFunc(a.Warnings, func(w string) bool { return strings.Contains(w, "no agent") }) {
		t.Errorf("selected are %v, warnings %v", a.Selected, a.Warnings)
	}
	if p := d.Current().For(map[string]string{"site": "north"}); p.Offer != nil || p.Conflict != "documents one and two both define exporters.debug" {
		t.Errorf("the placement is %+v", p)
	}
	if p := d.Current().For(map[string]string{"site": "south"}); p.Offer == nil || p.Conflict != "" {
		t.Errorf("the placement of another is %+v", p)
	}
}

// TestLabelsComeToRest: documents may give labels, and others may select by them, but not in a circle.
func TestLabelsComeToRest(t *testing.T) {
	d := open(t, new(state.Memory).Open(), documents.Options{})
	apply(t, d, "document: one\nselector: site == \"north\"\nagent: {labels: {team: a}}")
	apply(t, d, "document: leaf\nselector: team == \"a\"\nagent: {log: {level: debug}}")
	apply(t, d, "document: other\nagent: {log: {format: json}}")
	for _, text := range []string{"document: two\nselector: team == \"a\"\nagent: {labels: {rack: b}}", "document: two\nagent: {labels: {site: south}}"} {
		if _, err := d.Apply(t.Context(), "ann", everybody, api.DocumentChange{Text: text}); code(err) != "conflict" || !strings.Contains(err.Error(), "come to rest") {
			t.Errorf("%q: %v", text, err)
		}
	}
	if p := d.Current().For(map[string]string{"site": "north", "team": "a"}); p.Conflict != "" || len(p.Offer.Documents) != 3 {
		t.Errorf("the placement is %+v", p)
	}
}

// TestUnreadable: a document that this hub does not understand stops it from taking anything away from anybody.
func TestUnreadable(t *testing.T) {
	s := new(state.Memory).Open()
	d := open(t, s, documents.Options{})
	apply(t, d, "document: good\nexporters: {debug: {}}")
	if _, err := s.Put(t.Context(), "documents/newer", []byte(`{"version":3,"text":"document: newer\nkey: 7"}`), false, state.Always()); err != nil {
		t.Fatal(err)
	}
	await(t, d, "what it cannot read", func(s *documents.Set) bool { return strings.Contains(offered(s), "unknown key") })
	if err := d.Delete(t.Context(), "ann", everybody, "newer", false); err != nil || offered(d.Current()) != "good@1" {
		t.Errorf("after it was deleted: %s, %v", offered(d.Current()), err)
	}
}

// TestFloating: a document that is to be on some agents is offered to those on which it is placed, and to nobody else that it
// selects; that it is not any more is known when it is gone or is for all.
func TestFloating(t *testing.T) {
	s := new(state.Memory).Open()
	d := open(t, s, documents.Options{})
	apply(t, d, "document: float\nselector: site == \"north\"\nplace: 2\nspread: rack\npriority: 7\nexporters: {debug: {}}")
	agent := func(id, site string) string {
		return hearing(d.Current().For(map[string]string{"site": site, documents.AgentLabel: id}))
	}
	list, gone := d.Floating()
	if len(list) != 1 || len(gone) != 0 || list[0].Name != "float" || list[0].Count != 2 || list[0].Spread != "rack" || list[0].Priority != 7 {
		t.Fatalf("got %+v, %v", list, gone)
	}
	if !list[0].Selects(map[string]string{"site": "north"}) || list[0].Selects(map[string]string{"site": "south"}) {
		t.Error("it selects others")
	}
	if tasks := d.Tasks(everybody).Tasks; len(tasks) != 2 || tasks[0].Status != "unplaced" || tasks[1].Agent != "" {
		t.Errorf("before it is placed the tasks are %+v", tasks)
	}
	if got := agent("a", "north"); got != "" {
		t.Errorf("before it is placed an agent gets %s", got)
	}
	next := documents.Owners{Owners: []documents.Owner{{Agent: "a", Epoch: 1}, {Agent: "c", Epoch: 2}}, Epoch: 2}
	if err := d.Place(t.Context(), "float", list[0].Owners, next); err != nil {
		t.Fatal(err)
	}
	await(t, d, "where it is placed", func(*documents.Set) bool { return agent("a", "north") == "float@1" })
	if b, c := agent("b", "north"), agent("c", "south"); b != "" || c != "" {
		t.Errorf("another gets %q, and one that is not selected any more %q", b, c)
	}
	tasks := d.Tasks(everybody).Tasks
	if len(tasks) != 2 || tasks[0].Agent != "a" || tasks[0].Status != "waiting" || tasks[1].Epoch != 2 || tasks[1].Place != 2 || tasks[1].Priority != 7 {
		t.Errorf("the tasks are %+v", tasks)
	}
	if err := d.Place(t.Context(), "float", list[0].Owners, next); !errors.Is(err, state.ErrConflict) {
		t.Errorf("a leader that is behind places: %v", err)
	}
	again := open(t, s, documents.Options{}) // another hub
	if list, _ = again.Floating(); len(list) != 1 || len(list[0].Owners.Owners) != 2 || list[0].Owners.Epoch != 2 {
		t.Errorf("another hub knows %+v", list)
	}
	apply(t, d, "document: float\nselector: site == \"north\"\nexporters: {debug: {}}")
	if _, gone = d.Floating(); !slices.Equal(gone, []string{"float"}) || agent("b", "north") != "float@2" {
		t.Errorf("when it is for all, %v are placed no more, and another agent gets %q", gone, agent("b", "north"))
	}
	if err := d.Forget(t.Context(), "float"); err != nil {
		t.Fatal(err)
	}
	await(t, d, "that it is placed no more", func(*documents.Set) bool { _, gone = d.Floating(); return len(gone) == 0 })
}

// hearing tells what a placement has.
func hearing(p *documents.Placement) string {
	var list []string
	for _, o := range p.Offer.Documents {
		list = append(list, o.Name+"@"+o.Version)
	}
	return strings.Join(list, " ")
}

// TestStatus: what agents say becomes the document's status.
func TestStatus(t *testing.T) {
	var agents []documents.Agent
	var d *documents.Store
	d = open(t, new(state.Memory).Open(), documents.Options{Agents: func() []documents.Agent {
		list := slices.Clone(agents)
		for i := range list {
			list[i].Placement = d.Current().For(list[i].Labels)
		}
		return list
	}})
	apply(t, d, "document: web\nselector: site == \"north\"\nexporters: {debug: {}}")
	hash := d.Current().For(map[string]string{"site": "north"}).Hash
	f := func(x documents.Agent, status, version, problem string) {
		t.Helper()
		x.ID, x.Name, x.Labels = "id", "alpha", map[string]string{"site": "north"}
		agents = []documents.Agent{x, {ID: "other", Labels: map[string]string{"site": "south"}}}
		got, err := d.Get(t.Context(), everybody, "web", 0)
		if want := (api.Placed{Agent: "id", Name: "alpha", Status: status, Version: version, Error: problem}); err != nil || len(got.Placed) != 1 || got.Placed[0] != want {
			t.Errorf("%+v: %+v, %v", x, got.Placed, err)
		}
		n := d.List(everybody).Documents[0].Agents
		if n.Selected != 1 || n.Running+n.Waiting+n.Failed != 1 || n.Running == 1 != (status == "running") || n.Waiting == 1 != (status == "waiting") {
			t.Errorf("%s counts as %+v", status, n)
		}
	}
	says := func(version, status string) []report.Document {
		return []report.Document{{Name: "web", Source: "file", Version: "9", Status: "refused"}, {Name: "web", Source: "hub", Version: version, Status: status, Error: "why"}}
	}
	f(documents.Agent{Connected: true}, "waiting", "", "")
	f(documents.Agent{Connected: true, Documents: says("1", "running")}, "running", "1", "why")
	f(documents.Agent{Connected: false, Documents: says("1", "running")}, "waiting", "1", "")
	f(documents.Agent{Connected: true, Documents: says("0", "running")}, "waiting", "0", "")
	f(documents.Agent{Connected: true, Documents: says("1", "rolled_back")}, "rolled_back", "1", "why")
	f(documents.Agent{Connected: false, Documents: says("1", "refused")}, "refused", "1", "why")
	f(documents.Agent{Connected: true, Remote: control.RemoteStatus{Hash: hash, Status: control.Applied}}, "running", "1", "")
	f(documents.Agent{Connected: true, Remote: control.RemoteStatus{Hash: hash, Status: control.Failed, Error: "no"}}, "refused", "1", "no")
	f(documents.Agent{Connected: true, Remote: control.RemoteStatus{Hash: "other", Status: control.Applied}}, "waiting", "", "")
}

// TestBounds: history, deleted documents and what is written in an hour are bounded.
func TestBounds(t *testing.T) {
	s := new(state.Memory).Open()
	d := open(t, s, documents.Options{})
	for i := range 60 {
		apply(t, d, fmt.Sprintf("document: small\nagent: {labels: {n: '%d'}}", i))
	}
	if h, err := d.History(t.Context(), everybody, "small"); err != nil || len(h.Versions) != 50 || h.Versions[0].Version != 60 || h.Versions[49].Version != 11 {
		t.Errorf("%d versions are kept, %v", len(h.Versions), err)
	}
	for i := range 110 {
		name := fmt.Sprintf("gone-%d", i)
		if _, err := s.Put(t.Context(), "documents/"+name, fmt.Appendf(nil, `{"version":2,"deleted":true,"time":"2026-01-02T15:04:%02dZ"}`, i%60), false, state.Always()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Put(t.Context(), "documents/last", []byte(`{"version":1,"text":"document: last"}`), false, state.Always()); err != nil {
		t.Fatal(err)
	}
	await(t, d, "the last", func(s *documents.Set) bool { return strings.Contains(offered(s), "last") })
	if err := d.Delete(t.Context(), "ann", everybody, "last", false); err != nil {
		t.Fatal(err)
	}
	list, _, err := s.List(t.Context(), "documents/gone-")
	if err != nil || len(list) > 100 {
		t.Errorf("%d deleted documents are remembered, %v", len(list), err)
	}
}

// TestBudget: whoever changes large documents all the time is stopped before the control state is full.
func TestBudget(t *testing.T) {
	if testing.Short() {
		t.Skip("reads 30 MB of YAML")
	}
	d := open(t, new(state.Memory).Open(), documents.Options{})
	padding := "\n#" + strings.Repeat("x", 900<<10)
	var err error
	for i := 0; err == nil; i++ {
		if i > 100 {
			t.Fatal("large documents can be changed without an end")
		}
		_, err = d.Apply(t.Context(), "ann", everybody, api.DocumentChange{Text: fmt.Sprintf("document: large\nagent: {labels: {m: '%d'}}%s", i, padding)})
	}
	if code(err) != "too_much" || !strings.Contains(err.Error(), "last hour") {
		t.Errorf("they end with %v", err)
	}
	if h, err := d.History(t.Context(), everybody, "large"); err != nil || len(h.Versions) != 3 {
		t.Errorf("%d large versions are kept, %v", len(h.Versions), err)
	}
}

// TestModel does what comes into its mind through two hubs, and compares with a map.
func TestModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	m := new(state.Memory)
	hubs := []*documents.Store{open(t, m.Open(), documents.Options{}), open(t, m.Open(), documents.Options{})}
	const kept = 50
	model := make(map[string][]string) // every version's text; "" is a deletion
	last := func(name string) string {
		if v := model[name]; len(v) > 0 {
			return v[len(v)-1]
		}
		return ""
	}
	done := make(map[string]int)
	for range 500 {
		name, d := string("abc"[random.IntN(3)]), hubs[random.IntN(2)]
		switch what := random.IntN(5); what {
		default:
			text := fmt.Sprintf("document: %s\nexporters: {debug/%s: {n: %d}}\n", name, name, random.IntN(4))
			a := apply(t, d, text)
			if text != last(name) {
				model[name] = append(model[name], text)
			}
			if a.Document.Version != int64(len(model[name])) {
				t.Fatalf("%s is at version %d, want %d", name, a.Document.Version, len(model[name]))
			}
			done[a.Outcome]++
		case 3:
			err := d.Delete(t.Context(), "ann", everybody, name, false)
			if (err == nil) != (last(name) != "") {
				t.Fatalf("delete %s: %v", name, err)
			}
			if err == nil {
				model[name] = append(model[name], "")
				done["deleted"]++
			}
		case 4:
			n := len(model[name])
			to, want := random.IntN(n+1), ""
			switch {
			case to > n-kept && to > 0:
				want = model[name][to-1]
			case to == 0 && n > 0:
				for _, text := range model[name][max(0, n-kept) : n-1] {
					want = cmp.Or(text, want)
				}
			}
			a, err := d.Rollback(t.Context(), "ann", everybody, name, int64(to))
			if (err == nil) != (want != "") || err == nil && a.Document.Text != want {
				t.Fatalf("%s of %d versions is rolled back to %d: %+v, want %q, %v", name, n, to, a, want, err)
			}
			if err == nil && want != last(name) {
				model[name] = append(model[name], want)
				done["rolled back"]++
			}
		}
		var want []string
		for _, name := range []string{"a", "b", "c"} {
			if last(name) != "" {
				want = append(want, fmt.Sprintf("%s@%d", name, len(model[name])))
			}
		}
		for _, d := range hubs {
			await(t, d, strings.Join(want, " "), func(s *documents.Set) bool { return offered(s) == strings.Join(want, " ") })
		}
		h, err := hubs[random.IntN(2)].History(t.Context(), everybody, name)
		if n := len(model[name]); n > 0 && (err != nil || len(h.Versions) != min(n, kept)) {
			t.Fatalf("%s has %d versions, want the last of %d: %v", name, len(h.Versions), n, err)
		}
		for i, v := range h.Versions {
			if n := len(model[name]) - i; v.Version != int64(n) || v.Text != model[name][n-1] || v.Deleted != (v.Text == "") {
				t.Fatalf("version %d of %s is %+v, want %q", n, name, v, model[name][n-1])
			}
		}
	}
	t.Logf("done: %v", done)
	if len(done) != 5 {
		t.Errorf("not everything was done: %v", done)
	}
}

// TestManyAgents prints how long it takes to know what all shall run once a document has changed.
func TestManyAgents(t *testing.T) {
	const agents, count = 5000, 20
	d := open(t, new(state.Memory).Open(), documents.Options{})
	for i := range count {
		apply(t, d, fmt.Sprintf("document: doc-%d\nselector: site == \"s%d\" || rack in [\"r1\", \"r2\"]\nexporters: {debug/%d: {}}\n#%s", i, i, i, strings.Repeat("x", 4000)))
	}
	labels := make([]map[string]string, agents)
	for i := range labels {
		labels[i] = map[string]string{"host.name": fmt.Sprint("host-", i), "site": fmt.Sprint("s", i%count), "rack": fmt.Sprint("r", i%7), "os.type": "linux"}
	}
	apply(t, d, "document: doc-0\nselector: site == \"s0\"\nexporters: {debug/0: {}}")
	began, offers := time.Now(), make(map[string]int)
	for _, l := range labels {
		offers[d.Current().For(l).Hash]++
	}
	t.Logf("%d documents, %d agents: %d different offers in %v", count, agents, len(offers), time.Since(began).Round(time.Microsecond))
	if len(offers) < count || len(offers) > 2*count {
		t.Errorf("there are %d different offers", len(offers))
	}
}
