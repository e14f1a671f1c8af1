package agent

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/creelhq/creel/agent/change"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/pipeline"
)

// TestHandedState: a collector of a placed document begins where another agent has ended, once in an epoch; what it saves from then on is its
// own, also after a restart, and the hub is told.
func TestHandedState(t *testing.T) {
	data := filepath.Join(t.TempDir(), "agent")
	var log bytes.Buffer
	const component = "collectors.sql"
	run := func(tenure control.Tenure, f func(a *agent)) {
		t.Helper()
		dir, err := openState(data)
		if err != nil {
			t.Fatal(err)
		}
		defer dir.close()
		a := &agent{dir: dir, terms: &terms{set: func(map[string]*pipeline.Terms) {}}, log: slog.New(slog.NewTextHandler(&log, nil))}
		a.terms.begin(change.Pieces{{Name: "d", Terms: tenure.String()}})
		f(a)
	}
	has := func(a *agent, want string) {
		t.Helper()
		got, version, err := a.stateOf(component, "d").Load()
		if err != nil || string(got) != want || want != "" && version == 0 {
			t.Errorf("it begins with %q, version %d, %v; want %q", got, version, err, want)
		}
	}
	save := func(a *agent, text string) {
		t.Helper()
		s := a.stateOf(component, "d")
		_, version, err := s.Load()
		if err == nil {
			_, err = s.Save([]byte(text), version)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	told := func(a *agent, epoch int64, want string) {
		t.Helper()
		list := a.saved()
		if want == "" && len(list) > 0 || want != "" && (len(list) != 1 || list[0].Document != "d" || list[0].Epoch != epoch || list[0].Component != component || string(list[0].Data) != want) {
			t.Errorf("the hub is told %+v, want %q in epoch %d", list, want, epoch)
		}
	}
	given := func(text string) string { return control.EncodeCursors(map[string][]byte{component: []byte(text)}) }

	run(control.Tenure{}, func(a *agent) { // it is on all agents
		save(a, "1")
		told(a, 0, "")
	})
	run(control.Tenure{Epoch: 5, Orphan: control.Forever}, func(a *agent) { // nobody has had it before
		has(a, "1")
		told(a, 5, "1")
		save(a, "2")
		told(a, 5, "2")
		if s := a.stateOf(component, ""); s != a.dir.component(component) {
			t.Error("what is no collector of a document is told of")
		}
	})
	five := control.Tenure{Epoch: 9, Orphan: control.Forever, Cursor: given("7")}
	run(five, func(a *agent) {
		has(a, "7")
		save(a, "8")
		told(a, 9, "8")
	})
	run(five, func(a *agent) { // it was started again
		has(a, "8")
		told(a, 9, "8")
		s := a.stateOf(component, "d")
		a.terms.run(nil) // it is taken away, and the collector closes
		_, version, err := s.Load()
		if err == nil {
			_, err = s.Save([]byte("8.5"), version)
		}
		if err != nil {
			t.Fatal(err)
		}
		told(a, 9, "8.5")
	})
	run(control.Tenure{Epoch: 11, Orphan: control.Forever, Cursor: given("6")}, func(a *agent) { has(a, "6") })
	run(control.Tenure{Epoch: 12, Orphan: control.Forever, Cursor: control.EncodeCursors(map[string][]byte{"collectors.other": []byte("x")})}, func(a *agent) { has(a, "6") })
	if log.Len() > 0 {
		t.Errorf("the log says\n%s", &log)
	}
	run(five, func(a *agent) {
		save(a, strings.Repeat("x", control.MaxCursor+1))
		save(a, strings.Repeat("x", control.MaxCursor+2))
		told(a, 9, "")
	})
	if n := strings.Count(log.String(), "too large to be handed over"); n == 0 || n > 2 {
		t.Errorf("%d times it says why that is not handed over:\n%s", n, &log)
	}
}
