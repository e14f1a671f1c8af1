package life

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/creelhq/creel/report"
)

// TestTable: every event is considered in every state, and nothing else; who is stopped stays so; each action has a way to
// it, and each state but the first.
func TestTable(t *testing.T) {
	reached := map[string]bool{Initializing: true}
	for _, s := range states {
		for _, e := range events {
			to, ok := table[step{s, e}]
			if !ok {
				t.Errorf("%s when %s is not in the table", e, s)
			}
			if to.state != "" && !slices.Contains(states, to.state) || (to.state == "" || to.state == s) && to.action != None {
				t.Errorf("%s when %s leads to %+v", e, s, to)
			}
			if s == Stopped && to.state != "" && to.state != Stopped {
				t.Errorf("%s brings back to life", e)
			}
			reached[to.state], reached[string(to.action)] = true, true
		}
	}
	if len(table) != len(states)*len(events) {
		t.Errorf("the table has %d entries", len(table))
	}
	for _, name := range append([]string{string(Collect), string(Pause), string(Drain)}, states...) {
		if !reached[name] {
			t.Errorf("nothing leads to %s", name)
		}
	}
}

// TestMarkdown: the page shows what the table has.
func TestMarkdown(t *testing.T) {
	lines := strings.Split(strings.TrimSpace(Markdown()), "\n")
	if len(lines) != len(states)+2 {
		t.Fatalf("there are %d lines", len(lines))
	}
	head := strings.Split(lines[0], "|")
	for i, line := range lines[2:] {
		cells := strings.Split(line, "|")
		if strings.Trim(cells[1], " *") != states[i] || len(cells) != len(events)+3 {
			t.Fatalf("line %d is %s", i, line)
		}
		for j, e := range events {
			cell, to := strings.TrimSpace(cells[j+2]), table[step{states[i], e}]
			if strings.TrimSpace(head[j+2]) != string(e) || (cell == "") != (to.state == "") || cell != "" && cell != "stays" && (!strings.HasPrefix(cell, to.state) || !strings.Contains(cell, string(to.action))) {
				t.Errorf("%s when %s is shown as %q", e, states[i], cell)
			}
		}
	}
}

// model is a life told in the words of DESIGN.md, without a table.
type model struct {
	ready, stop, ended bool
	holds              map[string]string
}

func (m *model) state() string {
	switch {
	case m.ended:
		return Stopped
	case m.stop:
		return Stopping
	case !m.ready:
		return Initializing
	case len(m.holds) > 0:
		return Paused
	}
	return Running
}

// TestModel: whatever happens, the machine is where the model is, returns what is to be done exactly when that changes, and
// tells what happened.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		most := rapid.IntRange(1, 5).Draw(t, "history")
		is := model{holds: map[string]string{}}
		var told []report.Transition
		var start []report.Hold
		if rapid.Bool().Draw(t, "held from the start") {
			start = append(start, report.Hold{By: Operator, Cause: "before"})
			is.holds[Operator] = "before"
		}
		m := New(most, func(tr report.Transition) { told = append(told, tr) }, start...)
		last := None
		// check compares after an event that was told as one of names.
		check := func(t *rapid.T, before string, did Action, names ...Event) {
			after := is.state()
			want := map[string]Action{Running: Collect, Paused: Pause, Stopping: Drain, Stopped: None}[after]
			if before == after {
				want = None
			} else {
				last = want
				tr := told[len(told)-1]
				if tr.From != before || tr.To != after || tr.Cause == "" || !slices.Contains(names, Event(tr.Event)) {
					t.Fatalf("from %s to %s was told as %+v", before, after, tr)
				}
			}
			if m.State() != after || did != want || m.Due() != last {
				t.Fatalf("from %s to %s the machine is %s, %q is to be done, %q is due", before, after, m.State(), did, m.Due())
			}
		}
		party := rapid.SampledFrom([]string{Operator, "requires.disk", "requires.paths"})
		fire := func(t *rapid.T, e Event, possible bool, names ...Event) {
			before := is.state()
			if possible {
				is.ready, is.stop, is.ended = is.ready || e == Ready, is.stop || e == Stop, is.ended || e == Ended
			}
			n := len(told)
			did, err := m.Fire(e, "test")
			if (err == nil) != possible || err != nil && (did != None || len(told) != n || !strings.Contains(err.Error(), before)) {
				t.Fatalf("%s when %s: %q, %v", e, before, did, err)
			}
			check(t, before, did, names...)
		}
		t.Repeat(map[string]func(*rapid.T){
			"ready": func(t *rapid.T) { fire(t, Ready, !is.ended && (!is.ready || is.stop), Ready, held) },
			"stop":  func(t *rapid.T) { fire(t, Stop, !is.ended, Stop) },
			"ended": func(t *rapid.T) { fire(t, Ended, !is.ended, Ended) },
			"hold": func(t *rapid.T) {
				p, cause, before := party.Draw(t, "party"), rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "cause"), is.state()
				is.holds[p] = cause
				check(t, before, m.Hold(p, cause), hold)
			},
			"release": func(t *rapid.T) {
				p, before := party.Draw(t, "party"), is.state()
				delete(is.holds, p)
				check(t, before, m.Release(p, ""), release)
			},
			"": func(t *rapid.T) {
				l := m.Life()
				holds := map[string]string{}
				for _, h := range l.Holds {
					holds[h.By] = h.Cause
				}
				if l.State != is.state() || len(l.Holds) != len(is.holds) || fmt.Sprint(holds) != fmt.Sprint(is.holds) {
					t.Fatalf("life is %+v, not %+v", l, is)
				}
				if want := told[max(0, len(told)-most):]; !slices.Equal(l.History, want) {
					t.Fatalf("history is %+v, not %+v", l.History, want)
				}
			},
		})
	})
}

// TestCauses: a history says who wanted what, and when.
func TestCauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		m := New(10, nil)
		m.Hold("requires.disk", "too little")
		time.Sleep(time.Second)
		m.Hold(Operator, "upgrade")
		m.Hold("requires.disk", "even less")
		m.Fire(Ready, "opened")
		time.Sleep(time.Second)
		m.Release("requires.disk", "enough")
		time.Sleep(time.Second)
		m.Release(Operator, "")
		m.Fire(Stop, "SIGTERM")
		var lines []string
		for _, h := range m.Life().History {
			lines = append(lines, fmt.Sprintf("%v %s %s", h.Time.Sub(begin), h.Event, h.Cause))
		}
		want := []string{"1s held requires.disk: even less; operator: upgrade", "3s release operator", "3s stop SIGTERM"}
		if !slices.Equal(lines, want) {
			t.Errorf("the history is %q", lines)
		}
		m.Hold(Operator, "late")
		if l := m.Life(); l.Since.Sub(begin) != 3*time.Second || len(l.Holds) != 1 || l.Holds[0].Since.Sub(begin) != 3*time.Second {
			t.Errorf("life is %+v", l)
		}
		if _, err := m.Fire(hold, ""); err == nil {
			t.Error("a hold without a party was taken")
		}
	})
}

// TestConcurrent: transitions are told one after the other, each from where the one before has led to, though told asks the
// machine; and who does what is due ends with what belongs to the state.
func TestConcurrent(t *testing.T) {
	at, transitions := Initializing, 0 // changed by told alone
	var m *Machine
	m = New(3, func(tr report.Transition) {
		if tr.From != at || m.State() != tr.To || m.Life().State != tr.To {
			t.Errorf("%+v was told when it was %s", tr, at)
		}
		at = tr.To
		transitions++
	})
	m.Fire(Ready, "")
	var mu sync.Mutex
	done := None
	do := func() {
		mu.Lock()
		defer mu.Unlock()
		done = m.Due()
	}
	do()
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			party := fmt.Sprint("party ", g)
			for range 500 {
				m.Hold(party, "")
				do()
				m.Release(party, "")
				do()
			}
		})
	}
	wg.Wait()
	if m.State() != Running || at != Running || done != Collect || len(m.Life().Holds) != 0 {
		t.Errorf("it is %s, %s was told, %s was done last", m.State(), at, done)
	}
	if transitions < 10 {
		t.Errorf("there were only %d transitions", transitions)
	}
}

func TestKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "life.json")
	if k, err := Load(file); err != nil || k != (Kept{}) {
		t.Fatalf("of nothing is kept %+v: %v", k, err)
	}
	save := func(v any) error {
		text, err := json.Marshal(v)
		if err != nil {
			return err
		}
		return os.WriteFile(file, text, 0o600)
	}
	since := time.Date(2026, 11, 24, 12, 0, 0, 5, time.UTC)
	if err := (Kept{Hold: &report.Hold{By: Operator, Cause: "upgrade", Since: since}, Order: "o1"}).Save(save); err != nil {
		t.Fatal(err)
	}
	k, err := Load(file)
	if err != nil || k.Order != "o1" || k.Hold == nil {
		t.Fatalf("kept is %+v: %v", k, err)
	}
	m := New(1, nil, k.Holds()...)
	m.Fire(Ready, "")
	if l := m.Life(); l.State != Paused || l.Holds[0] != (report.Hold{By: Operator, Cause: "upgrade", Since: since}) {
		t.Errorf("a life that begins with what was kept is %+v", l)
	}
	m.Release(Operator, "")
	if k.Hold.Cause != "upgrade" || m.State() != Running || (Kept{}).Holds() != nil {
		t.Error("the operator's hold cannot be taken back")
	}
	full := errors.New("disk is full")
	if err := k.Save(func(any) error { return full }); !errors.Is(err, full) {
		t.Errorf("saving has returned %v", err)
	}
	for _, text := range []string{"", "{", `{"version": 2}`, `{}`, `{"version": 1, "hold": 7}`} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if k, err := Load(file); err == nil || k != (Kept{}) {
			t.Errorf("of %q is kept %+v", text, k)
		}
	}
}
