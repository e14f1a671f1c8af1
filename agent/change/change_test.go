package change

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creelhq/creel/report"
)

// world is what a Manager works on: texts are configurations; "bad" in one is an error to build, "shut" one to apply,
// and "sick" makes component x fail.
type world struct {
	t *testing.T

	mu      sync.Mutex
	disk    []byte // what was saved
	runs    string // applied last
	applied int
}

func text(s Set) string {
	var all []string
	for _, name := range s.Sources() {
		for _, d := range s[name] {
			all = append(all, string(d.Text))
		}
	}
	return strings.Join(all, "+")
}

func (w *world) manager(length time.Duration) *Manager[string] {
	return New(Options[string]{
		Build: func(s Set) (string, error) {
			t := text(s)
			if strings.Contains(t, "bad") || strings.Contains(t, "twin") && strings.Count(t, "one") > 1 {
				return "", fmt.Errorf("%q is wrong", t)
			}
			return t, nil
		},
		Apply: func(_ context.Context, t string) (report.Receipt, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			if strings.Contains(t, "shut") {
				return report.Receipt{}, errors.New("open: it is shut")
			}
			var r report.Receipt
			if t != w.runs {
				r.Change.Reopen = []string{"x"}
			}
			w.runs = t
			w.applied++
			return r, nil
		},
		Vitals: func() Vitals {
			w.mu.Lock()
			defer w.mu.Unlock()
			sick := strings.Contains(w.runs, "sick")
			return Vitals{Components: map[string]Vital{"x": {Healthy: !sick, Error: map[bool]string{true: "it is sick"}[sick]}}}
		},
		Probation: func(string) time.Duration { return length },
		Load: func(v any) error {
			if w.disk == nil {
				return nil
			}
			return json.Unmarshal(w.disk, v)
		},
		Save: func(v any) (err error) {
			w.disk, err = json.Marshal(v)
			return err
		},
	})
}

func anybody(string) bool { return true }

func pieces(text string) Pieces { return Pieces{{Name: "creel.yaml", Text: []byte(text)}} }

func (w *world) start(length time.Duration, text string) *Manager[string] {
	w.t.Helper()
	w.runs = ""
	m := w.manager(length)
	if err := m.Start(context.Background(), pieces(text), anybody); err != nil {
		w.t.Fatal(err)
	}
	return m
}

func (w *world) running(want string) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.runs != want {
		w.t.Fatalf("%q runs, want %q", w.runs, want)
	}
}

// change asks for a new file, and wants an outcome.
func (w *world) change(m *Manager[string], text string, force bool, outcome string) report.Receipt {
	w.t.Helper()
	r, err := m.Change(context.Background(), File, "request", pieces(text), force)
	if r.Outcome != outcome || (err != nil) != (outcome == report.Refused) {
		w.t.Fatalf("%q: %+v, %v; want %s", text, r, err, outcome)
	}
	return r
}

// look takes n observations, as Run does.
func look(m *Manager[string], n int) {
	for range n {
		m.observe(context.Background())
	}
}

// goodNow ends the probation as time does.
func goodNow(m *Manager[string]) {
	m.mu.Lock()
	if m.probation != nil {
		m.probation.until = time.Now().Add(-time.Nanosecond)
	}
	m.mu.Unlock()
	look(m, 4)
}

func TestChange(t *testing.T) {
	w := &world{t: t}
	m := w.start(time.Hour, "a")
	w.running("a")
	w.change(m, "b", false, report.Applied)
	w.running("b")
	w.change(m, "b", false, report.Unchanged)
	r := w.change(m, "bad", false, report.Refused)
	if !strings.Contains(r.Error, `"bad" is wrong`) {
		t.Errorf("the receipt says %q", r.Error)
	}
	w.change(m, "shut", false, report.Refused)
	w.running("b")
	c := m.Report()
	if c.Hash == c.Wanted || c.Wanted == "" || !strings.Contains(c.Error, "shut") || c.Documents[0].Status != report.Refused {
		t.Errorf("the report says %+v", c)
	}
	w.change(m, "c", false, report.Applied)
	if c := m.Report(); c.Wanted != "" || c.Error != "" || c.Documents[0].Status != "running" || len(c.Receipts) != 6 {
		t.Errorf("the report says %+v", c)
	}
}

// What does worse is undone, is not tried again, and is after all when it is forced.
func TestRollback(t *testing.T) {
	w := &world{t: t}
	m := w.start(time.Hour, "a")
	goodNow(m)
	w.change(m, "sick", false, report.Applied)
	look(m, 3)
	w.running("sick") // the first half is for settling down
	goodNow(m)
	w.running("a")
	c := m.Report()
	last := c.Receipts[len(c.Receipts)-1]
	if last.Outcome != report.RolledBack || !strings.Contains(last.Error, "x fails: it is sick") || c.Documents[0].Status != report.RolledBack || len(c.Failed) != 1 {
		t.Errorf("the report says %+v", c)
	}
	r := w.change(m, "sick", false, report.Refused)
	if !strings.Contains(r.Error, "creel reload --force") {
		t.Errorf("the receipt says %q", r.Error)
	}
	w.change(m, "sick", true, report.Applied)
	goodNow(m)
	w.running("a")

	m.Stop()
	m = w.start(time.Hour, "sick") // the file still says so
	w.running("a")
	if c := m.Report(); c.Documents[0].Status != report.RolledBack || !strings.Contains(c.Error, "it is sick") {
		t.Errorf("the report says %+v", c)
	}
}

// What another source wants and was rolled back is tried again when somebody says so.
func TestForceOthers(t *testing.T) {
	w := &world{t: t}
	m := w.start(time.Hour, "a")
	goodNow(m)
	m.Offer("hub", "1", pieces("sick"))
	m.tryAll(context.Background())
	goodNow(m)
	w.running("a")
	m.Offer("hub", "1", pieces("sick")) // it is told again
	m.tryAll(context.Background())
	w.running("a")
	w.change(m, "a", true, report.Unchanged)
	m.tryAll(context.Background())
	w.running("a+sick")
}

// What failed before the change is no reason to undo it, nor is what there is nothing to go back from.
func TestSickBefore(t *testing.T) {
	w := &world{t: t}
	m := w.start(time.Hour, "sick")
	goodNow(m)
	w.change(m, "sick but new", false, report.Applied)
	goodNow(m)
	w.running("sick but new")
	if c := m.Report(); len(c.Failed) != 0 || !c.Probation.IsZero() {
		t.Errorf("the report says %+v", c)
	}
}

// Sources are judged by themselves, and one that was refused because of another has a second chance.
func TestSources(t *testing.T) {
	w := &world{t: t}
	m := w.start(0, "file")
	offer := func(name, text string) {
		m.Offer(name, text+"@1", pieces(text))
		m.tryAll(context.Background())
	}
	offer("hub", "bad")
	offer("etcd", "e")
	w.running("file+e")
	if rev, status, why := m.Status("hub"); rev != "bad@1" || status != report.Refused || why == "" {
		t.Errorf("status %q %q %q", rev, status, why)
	}
	offer("hub", "one")
	w.running("file+e+one")
	w.change(m, "twin one", false, report.Refused) // both define one
	w.running("file+e+one")
	offer("hub", "two") // now there is no other
	m.tryAll(context.Background())
	w.running("twin one+e+two")
	m.Offer("etcd", "", nil)
	m.tryAll(context.Background())
	w.running("twin one+two")

	offer("hub", "bad")
	m.Stop()
	m = w.start(0, "file2") // what others have said is kept, and what was wrong with it
	m.tryAll(context.Background())
	w.running("file2+two")
	if rev, status, why := m.Status("hub"); rev != "bad@1" || status != report.Refused || why == "" {
		t.Errorf("status after a restart: %q %q %q", rev, status, why)
	}
}

// A process that ends twice without being stopped, before a change has proved good, starts with what has.
func TestCrashes(t *testing.T) {
	w := &world{t: t}
	m := w.start(time.Hour, "a")
	goodNow(m)
	w.change(m, "b", false, report.Applied)
	m = w.start(time.Hour, "b") // crash 1
	w.running("b")
	m.Stop()
	w.start(time.Hour, "b") // stopped: no crash
	w.running("b")
	m = w.start(time.Hour, "b") // crash 2
	w.running("a")
	if c := m.Report(); !strings.Contains(c.Error, "ended 2 times") {
		t.Errorf("the report says %+v", c)
	}
	m = w.start(time.Hour, "c") // a new file
	w.running("c")
	goodNow(m)
	for range 5 { // which has proved good: crashes are not its fault
		w.start(time.Hour, "c")
	}
	w.running("c")

	// In the middle of applying what a hub offers.
	for range maxCrashes {
		m.kept.Trying = &trial{Source: "hub", Hash: pieces("h").Hash()} // as apply keeps it
		m.save()
		m = w.start(time.Hour, "c")
		w.running("c")
	}
	m.Offer("hub", "", pieces("h"))
	m.tryAll(context.Background())
	w.running("c")
}

func TestStart(t *testing.T) {
	w := &world{t: t}
	if err := w.manager(0).Start(context.Background(), pieces("bad"), anybody); err == nil {
		t.Fatal("a wrong file is run")
	}
	m := w.start(0, "a")
	m.Offer("hub", "", pieces("h"))
	m.tryAll(context.Background())
	m.Stop()
	m = w.start(0, "bad") // there are others: it is better to run than not to
	w.running("a+h")
	if c := m.Report(); c.Documents[0].Status != report.RolledBack || !strings.Contains(c.Error, "wrong") {
		t.Errorf("the report says %+v", c)
	}
	w.disk = []byte(`{"format":2}`)
	if err := w.manager(0).Start(context.Background(), pieces("a"), anybody); err == nil || !strings.Contains(err.Error(), "format 2") {
		t.Errorf("a newer format: %v", err)
	}
	if string(w.disk) != `{"format":2}` {
		t.Error("a newer format was written over")
	}
}

// The newest wins, and whoever waited has its receipt.
func TestManyAtOnce(t *testing.T) {
	w := &world{t: t}
	m := w.start(time.Hour, "a")
	m.attempt.Lock() // a change is being made
	const n = 50
	receipts := make(chan report.Receipt, n)
	var wg sync.WaitGroup
	for i := range n {
		asked := m.asked()
		wg.Go(func() {
			r, err := m.Change(context.Background(), File, "request", pieces(fmt.Sprint(i)), false)
			if err != nil {
				t.Error(err)
			}
			receipts <- r
		})
		for m.asked() == asked { // one after the other
			time.Sleep(10 * time.Microsecond)
		}
	}
	before := w.applied
	m.attempt.Unlock()
	wg.Wait()
	w.running(fmt.Sprint(n - 1))
	if w.applied != before+1 {
		t.Errorf("%d changes were made, want 1", w.applied-before)
	}
	want := Set{File: pieces(fmt.Sprint(n - 1))}.Hash()
	for range n {
		if r := <-receipts; r.Hash != want {
			t.Fatalf("a receipt for %s, want %s", r.Hash, want)
		}
	}
}

func (m *Manager[C]) asked() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sources[File].asked
}

func TestRunEnds(t *testing.T) {
	w := &world{t: t}
	m := w.start(time.Millisecond*100, "a")
	goodNow(m)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		m.Run(ctx)
		close(done)
	}()
	m.Offer("hub", "1", pieces("sick"))
	for { // tried, watched, undone: as time goes
		_, status, _ := m.Status("hub")
		if status == report.RolledBack {
			break
		}
		time.Sleep(time.Millisecond)
	}
	w.running("a")
	cancel()
	<-done
	m.Stop()
}

// TestTerms: other terms of the same documents are kept, and are no change that is watched or blamed.
func TestTerms(t *testing.T) {
	w := &world{t: t}
	m := w.start(time.Minute, "one")
	offer := func(terms string) {
		m.Offer("hub", terms, Pieces{{Name: "d", Text: []byte("two"), Terms: terms}})
		m.tryAll(context.Background())
	}
	offer("epoch=1")
	m.good()
	offer("epoch=2")
	if r := m.Report(); r.Receipts[len(r.Receipts)-1].Outcome != report.Unchanged || !r.Probation.IsZero() {
		t.Errorf("other terms: %+v", r)
	}
	if revision, status, _ := m.Status("hub"); revision != "epoch=2" || status != running || w.applied != 3 {
		t.Errorf("%s is %s, applied were %d", revision, status, w.applied)
	}
	if _, said := m.Wanted("center"); said {
		t.Error("a center has said something that is not there")
	}
	again := w.start(time.Minute, "one")
	if p, said := again.Wanted("hub"); !said || p[0].Terms != "epoch=2" || again.Running()["hub"][0].Terms != "epoch=2" {
		t.Errorf("started again, it wants %+v and runs %+v", p, again.Running())
	}
	again.Offer("hub", "epoch=3", Pieces{{Name: "d", Text: []byte("bad"), Terms: "epoch=3"}})
	again.tryAll(context.Background())
	last := w.start(time.Minute, "one")
	if p, _ := last.Wanted("hub"); p[0].Terms != "epoch=3" || last.Running()["hub"][0].Terms != "epoch=2" {
		t.Errorf("after it was refused, it wants %+v and runs %+v", p, last.Running())
	}
}
