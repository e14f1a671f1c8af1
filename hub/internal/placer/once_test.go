package placer

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/expr"
	"github.com/creelhq/creel/hub/internal/documents"
	"github.com/creelhq/creel/report"
)

// owned looks until nothing changes any more, and returns where the first document is.
func (w *world) owned() documents.Owners {
	w.Helper()
	for range 4 {
		w.step()
	}
	list, _ := w.documents.Floating()
	return list[0].Owners
}

// done has an agent say that it has done version 1 of the document in an epoch.
func (w *world) done(agent string, epoch int64) {
	w.says[agent] = report.Document{Version: "1", Status: report.Done, Epoch: epoch, Ended: w.now}
}

func (w *world) history(what string) (n int) {
	for _, e := range w.owned().History {
		if e.What == what {
			n++
		}
	}
	return n
}

// TestOnceByTwo: a document that two agents are to do once is done when both have, whoever leads, and is not done again; an agent
// that is lost has another do it, with a higher epoch, and says in vain that it has done it when it is back.
func TestOnceByTwo(t *testing.T) {
	for _, overlap := range []string{"allow", "never"} {
		w := newWorld(t, 4)
		w.Lease = func() time.Duration { return 10 * time.Second }
		w.apply("document: task\nplace: 2\nonce: true\noverlap: " + overlap + "\nexporters: {debug: {}}")
		o := w.owned().Owners
		if len(o) != 2 || o[0].Agent == "" || o[1].Agent == "" || o[0].Agent == o[1].Agent {
			t.Fatalf("%s: it is placed on %+v", overlap, o)
		}
		lost, epoch := o[1].Agent, o[1].Epoch
		w.done(o[0].Agent, o[0].Epoch-1) // it speaks of an earlier time
		if now := w.owned().Owners[0]; now.Agent != o[0].Agent {
			t.Errorf("%s: it is done in an epoch that is over: %+v", overlap, now)
		}
		w.done(o[0].Agent, o[0].Epoch)
		if now := w.owned().Owners; now[0].Agent != "" || now[0].Done.Agent != o[0].Agent || now[1] != o[1] {
			t.Fatalf("%s: after one has done it, it is placed on %+v", overlap, now)
		}
		if tasks := w.documents.Tasks(expr.Selector{}).Tasks; tasks[0].Status != "done" || tasks[1].Status == "done" {
			t.Errorf("%s: after one has done it: %+v", overlap, tasks)
		}

		// The other is killed in mid-round.
		w.agent(lost).There = false
		w.now = w.now.Add(look)
		if now := w.owned().Owners[1]; overlap == "never" && now.Agent != "" && now.Agent != lost {
			t.Errorf("%s: another has it before the lease is over: %+v", overlap, now)
		}
		w.now = w.now.Add(10 * time.Second)
		now := w.owned().Owners[1]
		if now.Agent == "" || now.Agent == lost || now.Agent == o[0].Agent || now.Epoch <= epoch {
			t.Fatalf("%s: after %s was lost, which had it in epoch %d, it is placed on %+v", overlap, lost, epoch, now)
		}
		w.agent(lost).There = true
		w.done(lost, epoch)
		if again := w.owned().Owners[1]; again.Agent != now.Agent || again.Epoch != now.Epoch {
			t.Errorf("%s: who was lost says that it has done it, and is believed: %+v", overlap, again)
		}
		w.done(now.Agent, now.Epoch)
		w.owned()
		for range 3 {
			w.Placer = New(w.Options) // the hub starts again, or another leads
			w.says = map[string]report.Document{}
			w.now = w.now.Add(time.Hour)
			for i, x := range w.owned().Owners {
				if x.Agent != "" || x.Done.Epoch == 0 {
					t.Errorf("%s: place %d is done again: %+v", overlap, i, x)
				}
			}
			w.done(now.Agent, now.Epoch) // agents go on saying it
		}
		if n := w.history(documents.IsDone); n != 2 {
			t.Errorf("%s: it was noted %d times that it is done: %+v", overlap, n, w.owned().History)
		}
	}
}

// TestRoom: an agent gets no more than its capacity. What fits nowhere is placed on nobody, with the reason, until there is room, and
// what was measured makes none.
func TestRoom(t *testing.T) {
	w := newWorld(t, 2)
	for i := range w.fleet {
		w.fleet[i].Labels[control.CapacityLabel] = "2"
	}
	for i := range 3 {
		w.apply(fmt.Sprintf("document: other-%d\nplace: 1\nexporters: {debug/%d: {}}", i, i))
	}
	tasks := func() (placed int, waits string) {
		for range 4 {
			w.step()
		}
		for _, x := range w.documents.Tasks(expr.Selector{}).Tasks {
			if x.Agent != "" {
				placed++
			} else if waits += x.Document + ": " + x.Error; x.Status != "unplaced" {
				t.Errorf("what fits nowhere is %s", x.Status)
			}
		}
		return placed, waits
	}
	if n, waits := tasks(); n != 3 {
		t.Fatalf("of three documents %d are placed; %q", n, waits)
	}
	w.apply("document: task\nplace: 1\ncost: 1.5\nexporters: {debug/task: {}}")
	for _, c := range w.fleet {
		w.says[c.ID] = report.Document{Version: "1", Status: report.Running, Cost: 0.001}
	}
	if n, waits := tasks(); n != 3 || !strings.Contains(waits, "task: the agents that are selected have no room left") {
		t.Fatalf("of four documents %d are placed; %q", n, waits)
	}
	w.apply("document: task\nplace: 1\ncost: 2.5\nexporters: {debug/task: {}}")
	w.fleet[1].Labels[control.CapacityLabel] = "3"
	if n, waits := tasks(); n != 3 {
		t.Errorf("it needs 2.5, and 2 are free of 3 at most: %d are placed, %q", n, waits)
	}
	w.fleet[1].Labels[control.CapacityLabel] = "3.5"
	w.fleet[0].Labels[control.CapacityLabel] = "3.5"
	if n, waits := tasks(); n != 4 || waits != "" {
		t.Errorf("when there is room %d are placed; %q", n, waits)
	}
}

// TestMeasuredIsKept: what an agent says that a document costs is written when it has doubled or halved, stays when the place moves,
// and moves nothing itself.
func TestMeasuredIsKept(t *testing.T) {
	w := newWorld(t, 3)
	w.apply("document: task\nplace: 1\nexporters: {debug: {}}")
	o := w.owned().Owners[0]
	say := func(agent string, cost float64) {
		w.says[agent] = report.Document{Version: "1", Status: report.Running, Cost: cost}
	}
	var kept []float64
	for _, cost := range []float64{0, 0.2, 0.3, 0.11, 0.2, 0.39, 0.5, 0.26} {
		say(o.Agent, cost)
		now := w.owned().Owners[0]
		if now.Agent != o.Agent || now.Epoch != o.Epoch {
			t.Fatalf("it moves: %+v", now)
		}
		kept = append(kept, now.Measured)
	}
	if want := []float64{0, 0.2, 0.2, 0.2, 0.2, 0.2, 0.5, 0.5}; !slices.Equal(kept, want) {
		t.Errorf("kept is %v, want %v", kept, want)
	}
	w.agent(o.Agent).There = false
	w.now = w.now.Add(time.Minute)
	now := w.owned().Owners[0]
	if now.Agent == o.Agent || now.Agent == "" || now.Measured != 0.5 {
		t.Errorf("moved it is %+v", now)
	}
	if list, _ := w.documents.Floating(); list[0].Cost != 0 {
		t.Errorf("it says a cost: %v", list[0].Cost)
	}
	say(now.Agent, 2)
	Tell(t.Context(), w.Options) // it leads no more, and has the agent
	w.await(func(o []documents.Owner) bool { return o[0].Measured == 2 && o[0].Epoch == now.Epoch })
	d, err := w.documents.Task(t.Context(), expr.Selector{}, "task")
	if err != nil || d.Cost != 1 || len(d.Tasks) != 1 || d.Tasks[0].Measured != 2 {
		t.Errorf("it is shown as %+v, %v", d, err)
	}
	w.apply("document: task\nplace: 2\nexporters: {debug: {}}")
	w.owned()
	w.apply("document: task\nplace: 1\nexporters: {debug: {}}")
	if o := w.owned().Owners; len(o) != 1 {
		t.Errorf("of two places one is not wanted any more, and stays: %+v", o)
	}
}
