package placer

import (
	"testing"
	"time"

	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/hub/internal/documents"
)

// TestCursorMoves: how far an agent has come is written at first, now and then, and when it is lost or has let go; who has the place next
// is given that, and nobody has it before the one that is there has said its last word, or has not for long.
func TestCursorMoves(t *testing.T) {
	w := newWorld(t, 3)
	w.apply("document: task\nplace: 1\nexporters: {debug: {}}")
	says := func(agent string, epoch int64, text string) {
		w.saved[agent] = documents.Cursor{Epoch: epoch, Of: map[string][]byte{"collectors.x": []byte(text)}}
	}
	has := func(text string) string {
		return control.EncodeCursors(map[string][]byte{"collectors.x": []byte(text)})
	}
	place := func() documents.Owner {
		t.Helper()
		w.step()
		list, _ := w.documents.Floating()
		return list[0].Owners.Owners[0]
	}
	first := place()
	if first.Given != "" || first.Cursor != "" {
		t.Fatalf("at first: %+v", first)
	}
	w.runs[first.Agent] = "1"
	says(first.Agent, first.Epoch-1, "of before")
	if o := place(); o.Cursor != "" {
		t.Errorf("what was saved in another epoch is written: %+v", o)
	}
	says(first.Agent, first.Epoch, "1")
	if o := place(); o.Cursor != has("1") || o.Given != "" {
		t.Errorf("what is saved first is not written: %+v", o)
	}
	says(first.Agent, first.Epoch, "2")
	if o := place(); o.Cursor != has("1") {
		t.Errorf("it is written each time: %+v", o)
	}
	w.now = w.now.Add(saveEvery)
	if o := place(); o.Cursor != has("2") {
		t.Errorf("it is not written any more: %+v", o)
	}

	// It is lost: its last word counts.
	says(first.Agent, first.Epoch, "3")
	w.agent(first.Agent).There = false
	second := place()
	if second.Agent == first.Agent || second.Agent == "" || second.Given != has("3") {
		t.Fatalf("after it was lost: %+v", second)
	}
	if list, _ := w.documents.Floating(); w.documents.Current().For(w.agent(second.Agent).Labels).Offer.Documents[0].Tenure.Cursor != list[0].Owners.Owners[0].Given {
		t.Error("it is not told from where to go on")
	}
	delete(w.runs, first.Agent)

	// It pauses: it is waited for until it has let go.
	w.runs[second.Agent], w.deaf = "1", true
	says(second.Agent, second.Epoch, "4")
	w.agent(second.Agent).Working = false
	for range 3 {
		if o := place(); !o.Leaving() || o.From != second.Agent {
			t.Fatalf("it is given away at once: %+v", o)
		}
	}
	says(second.Agent, second.Epoch, "5")
	w.deaf = false
	delete(w.runs, second.Agent)
	place()
	third := place()
	if third.Agent == "" || third.Agent == second.Agent || third.Given != has("5") || third.Epoch != second.Epoch+1 {
		t.Fatalf("when it has let go: %+v", third)
	}
	if w.documents.Admit("task", second.Agent, second.Epoch, w.now) != nil {
		t.Error("what it has sent last is refused")
	}

	// The next one does not let go, and others may do the same meanwhile.
	w.runs[third.Agent], w.deaf = "1", true
	says(third.Agent, third.Epoch, "6")
	place()
	w.agent(second.Agent).Working = true
	w.agent(third.Agent).Working = false
	place()
	w.now = w.now.Add(patience - time.Millisecond)
	if o := place(); !o.Leaving() {
		t.Fatalf("it is given away too early: %+v", o)
	}
	w.now = w.now.Add(time.Millisecond)
	if o := place(); o.Agent != second.Agent {
		t.Errorf("it is waited for without end: %+v", o)
	}
}
