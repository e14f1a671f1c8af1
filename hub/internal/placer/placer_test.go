package placer

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/expr"
	"github.com/creelhq/creel/hub/internal/documents"
	"github.com/creelhq/creel/hub/internal/registry"
	"github.com/creelhq/creel/hub/internal/state"
	"github.com/creelhq/creel/metric"
	"github.com/creelhq/creel/report"
)

// world is a fleet as it is told, with documents in a control state.
type world struct {
	*testing.T
	*Placer
	store     state.Store
	documents *documents.Store
	now       time.Time
	fleet     []registry.Candidate
	runs      map[string]string           // what an agent says that it runs: the version of document task
	status    string                      // and how; "": running
	deaf      bool                        // what agents say is about what they were to run before
	says      map[string]report.Document  // what agents say of document task, instead
	saved     map[string]documents.Cursor // what collectors of document task have saved, by agent
	change    chan struct{}
	heard     int64 // of sessions
}

func (w *world) Candidates() []registry.Candidate { return w.fleet }
func (w *world) Altered() <-chan struct{}         { return w.change }
func (w *world) Heard() int64                     { return w.heard }

func newWorld(t *testing.T, agents int) *world {
	t.Helper()
	w := &world{T: t, store: new(state.Memory).Open(), now: time.Now(), runs: make(map[string]string), says: make(map[string]report.Document), saved: make(map[string]documents.Cursor), change: make(chan struct{})}
	for i := range agents {
		id := fmt.Sprintf("agent-%02d", i)
		w.fleet = append(w.fleet, registry.Candidate{
			ID: id, There: true, Working: true, Labels: map[string]string{"site": "north", "rack": fmt.Sprint(i % 3), documents.AgentLabel: id},
		})
	}
	d, err := documents.Open(t.Context(), documents.Options{Store: w.store, Agents: func() (list []documents.Agent) {
		for _, c := range w.fleet {
			x := documents.Agent{ID: c.ID, Labels: c.Labels, Connected: c.There, Placement: &documents.Placement{}, Here: c.There && c.Broke.IsZero(), Settled: c.There && !w.deaf}
			if w.documents != nil {
				x.Placement = w.documents.Current().For(c.Labels)
			}
			if version := w.runs[c.ID]; version != "" {
				x.Documents = []report.Document{{Source: "hub", Name: "task", Version: version, Status: cmp.Or(w.status, "running"), Error: "no such file"}}
			}
			if c, is := w.saved[c.ID]; is {
				x.Cursors = map[string]documents.Cursor{"task": c}
			}
			if d, is := w.says[c.ID]; is {
				d.Source, d.Name = "hub", "task"
				x.Documents = []report.Document{d}
			}
			list = append(list, x)
		}
		return list
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	w.documents = d
	log := slog.New(slog.DiscardHandler)
	set := metric.NewSet()
	w.Placer = New(Options{Hub: "hub", Store: w.store, Documents: d, Fleet: w, Log: log, Metrics: set})
	return w
}

// apply writes the document.
func (w *world) apply(text string) {
	w.Helper()
	if _, err := w.Documents.(*documents.Store).Apply(w.Context(), "ann", expr.Selector{}, api.DocumentChange{Text: text}); err != nil {
		w.Fatal(err)
	}
}

// look looks once, and returns who owns the document when that has come back from the control state.
func (w *world) look() (owners []documents.Owner, missing string) {
	w.Helper()
	before := w.moves.Load()
	changed := w.Documents.Changed()
	w.Step(w.Context(), w.now)
	if w.moves.Load() != before {
		<-changed
	}
	list, _ := w.Documents.Floating()
	if len(list) == 0 {
		return nil, ""
	}
	return list[0].Owners.Owners, list[0].Owners.Missing
}

func (w *world) agent(id string) *registry.Candidate {
	i := slices.IndexFunc(w.fleet, func(c registry.Candidate) bool { return c.ID == id })
	return &w.fleet[i]
}

func ids(owners []documents.Owner) (list []string) {
	for _, o := range owners {
		list = append(list, o.Agent)
	}
	return list
}

// TestMoves: a document stays where it is until its agent is lost, paused, or not selected any more, and moves then; a connection
// that breaks is given a second. Each move has a higher epoch.
func TestMoves(t *testing.T) {
	w := newWorld(t, 5)
	if owners, _ := w.look(); len(owners) != 0 {
		t.Fatalf("nothing is placed on %v", owners)
	}
	w.apply("document: task\nselector: site == \"north\"\nplace: 2\nspread: rack\nexporters: {debug: {}}")
	owners, missing := w.look()
	epoch := max(owners[0].Epoch, owners[1].Epoch)
	if len(owners) != 2 || missing != "" || w.agent(owners[0].Agent).Labels["rack"] == w.agent(owners[1].Agent).Labels["rack"] || owners[0].Epoch == owners[1].Epoch {
		t.Fatalf("it is placed on %+v, %s", owners, missing)
	}
	for range 3 {
		w.now = w.now.Add(balanceEvery)
		if again, _ := w.look(); !slices.Equal(ids(again), ids(owners)) {
			t.Fatalf("it moves from %v to %v for no reason", ids(owners), ids(again))
		}
	}

	// The connection breaks, and comes back in time.
	first, second := owners[0].Agent, owners[1].Agent
	w.agent(first).Broke = w.now
	w.now = w.now.Add(grace / 2)
	if again := w.Step(t.Context(), w.now); again > grace/2 {
		t.Errorf("it is looked again after %v", again)
	}
	if now, _ := w.look(); !slices.Equal(ids(now), ids(owners)) {
		t.Fatalf("it moves at once: %v", now)
	}
	w.agent(first).Broke = time.Time{}
	w.now = w.now.Add(grace)
	if now, _ := w.look(); !slices.Equal(ids(now), ids(owners)) {
		t.Fatalf("it moves though the agent is back: %v", now)
	}

	// It breaks for good.
	w.agent(first).Broke = w.now
	w.now = w.now.Add(grace)
	now, _ := w.look()
	if now[0].Agent == first || now[1] != owners[1] || now[0].Epoch != epoch+1 || now[0].From != "" {
		t.Fatalf("after agent %s broke off it is placed on %+v", first, now)
	}
	w.agent(first).There = false

	// Its agent is paused: another takes over before it lets go.
	w.agent(second).Working = false
	handed, _ := w.look()
	if handed[1].Agent == second || handed[1].From != second || handed[1].Epoch != epoch+2 {
		t.Fatalf("after agent %s was paused it is placed on %+v", second, handed)
	}
	if again, _ := w.look(); again[1].From != second {
		t.Fatalf("the agent lets go before the other has begun: %+v", again)
	}
	w.runs[handed[1].Agent] = "1"
	w.look()
	if done := w.await(func(o []documents.Owner) bool { return o[1].From == "" }); done[1].Agent != handed[1].Agent || done[1].Epoch != epoch+2 {
		t.Fatalf("after the other has begun it is placed on %+v", done)
	}
	for agent, epoch := range map[string]int64{first: owners[0].Epoch, second: owners[1].Epoch} { // what they had collected may come
		early, after := w.documents.Admit("task", agent, epoch, w.now), w.documents.Admit("task", agent, epoch, w.now.Add(2*time.Hour))
		if (early == nil) != (agent == second) || after == nil {
			t.Errorf("of epoch %d of %s, which was lost (%v) or has handed over: %v, much later %v", epoch, agent, agent == first, early, after)
		}
	}

	// Nobody is left but one.
	for i := range w.fleet {
		if c := &w.fleet[i]; c.ID != handed[1].Agent {
			c.There = false
		}
	}
	w.dealt = nil // not at once
	left, missing := w.look()
	if left[1].Agent != handed[1].Agent || !strings.Contains(missing, "1 agents") && !strings.Contains(w.awaitMissing(), "1 agents") {
		t.Errorf("with one agent left it is placed on %+v: %s", left, missing)
	}
	w.apply("document: task\nselector: site == \"north\"\nexporters: {debug: {}}")
	w.Step(t.Context(), w.now)
	if list, _, err := w.store.List(t.Context(), "placements/"); err != nil || len(list) != 0 {
		t.Errorf("when it is for all it is still placed: %+v, %v", list, err)
	}
}

// await waits until the owners are as ok says: what was written comes back.
func (w *world) await(ok func([]documents.Owner) bool) []documents.Owner {
	w.Helper()
	for {
		changed := w.Documents.Changed()
		list, _ := w.Documents.Floating()
		if ok(list[0].Owners.Owners) {
			return list[0].Owners.Owners
		}
		select {
		case <-changed:
		case <-time.After(20 * time.Second):
			w.Fatalf("it is placed on %+v", list[0].Owners.Owners)
		}
	}
}

func (w *world) awaitMissing() (missing string) {
	w.await(func([]documents.Owner) bool {
		list, _ := w.Documents.Floating()
		missing = list[0].Owners.Missing
		return missing != ""
	})
	return missing
}

// TestManyLost: when many are lost at once nothing moves, until the time is over or, when it is most of them, until they are back.
func TestManyLost(t *testing.T) {
	for _, lost := range []int{12, 30} {
		w := newWorld(t, 40)
		w.apply("document: task\nplace: 30\nexporters: {debug: {}}")
		owners, _ := w.look()
		gone := ids(owners)[:lost]
		for _, id := range gone {
			w.agent(id).There = false
		}
		if now, _ := w.look(); !slices.Equal(ids(now), ids(owners)) {
			t.Fatalf("%d lost: it moves at once", lost)
		}
		w.now = w.now.Add(frozen)
		now, _ := w.look()
		if moved := !slices.Equal(ids(now), ids(owners)); moved != (lost == 12) {
			t.Errorf("%d lost: after %v it has moved: %v", lost, frozen, moved)
		}
		if lost == 12 {
			continue
		}
		for _, id := range gone[5:] {
			w.agent(id).There = true
		}
		now, _ = w.look()
		for i, id := range ids(now) {
			if stays := !slices.Contains(gone[:5], ids(owners)[i]); stays != (id == ids(owners)[i]) {
				t.Errorf("when most are back, place %d is on %s, before on %s", i, id, ids(owners)[i])
			}
		}
	}
}

// TestExclusiveMoves: what is exclusive is nobody's until the old owner has said that it has stopped, or its lease is over; whoever
// leads then.
func TestExclusiveMoves(t *testing.T) {
	f := func(name string, lose func(w *world, old string), wait time.Duration, stop func(w *world, old string)) {
		t.Helper()
		w := newWorld(t, 3)
		w.Lease = func() time.Duration { return 10 * time.Second }
		w.apply("document: task\nplace: 1\noverlap: never\nexporters: {debug: {}}")
		for i := range w.fleet {
			w.fleet[i].Leased = w.now.Add(10 * time.Second)
		}
		owners, _ := w.look()
		old, epoch := owners[0].Agent, owners[0].Epoch
		w.runs[old], w.deaf = "1", true
		lose(w, old)
		owned := func() documents.Owner {
			t.Helper()
			w.step()
			list, _ := w.documents.Floating()
			return list[0].Owners.Owners[0]
		}
		for range 3 {
			w.Placer = New(w.Options) // another leads
			if o := owned(); o.Agent != old && o.From != old || o.Agent != "" && o.Agent != old {
				t.Fatalf("%s: it is given away at once: %+v", name, o)
			}
		}
		w.now = w.now.Add(wait - time.Millisecond)
		if o := owned(); o.Agent != old && o.From != old {
			t.Fatalf("%s: it is given away too early: %+v", name, o)
		}
		w.now = w.now.Add(time.Millisecond)
		if stop != nil {
			stop(w, old)
		}
		owned()
		if o := owned(); o.Agent == old || o.Agent == "" || o.Epoch != epoch+1 || o.From != "" {
			t.Errorf("%s: in the end it is placed on %+v, before on %s in epoch %d", name, o, old, epoch)
		}
		if err := w.documents.Admit("task", old, epoch, w.now); (err == nil) != !w.deaf {
			t.Errorf("%s: of epoch %d: %v", name, epoch, err)
		}
	}
	paused := func(w *world, old string) { w.agent(old).Working = false }
	gone := func(w *world, old string) { w.agent(old).There = false }
	f("it is lost", gone, 10*time.Second, nil)
	f("it is forgotten", func(w *world, old string) {
		w.fleet = slices.DeleteFunc(w.fleet, func(c registry.Candidate) bool { return c.ID == old })
	}, 10*time.Second, nil)
	f("its connection breaks", func(w *world, old string) { w.agent(old).Broke = w.now.Add(-grace) }, 10*time.Second, gone)
	f("it is paused, and stops", paused, time.Hour, func(w *world, old string) { w.deaf = false; delete(w.runs, old) })
	f("it is paused, and then lost", paused, time.Hour, func(w *world, old string) {
		gone(w, old)
		w.step()
		w.now = w.now.Add(10*time.Second + look)
	})
}

// TestBehind: an exclusive place whose owner is lost, as far as was heard, is nobody else's as long as it was made sure of in a session of
// which this hub has not heard, nor when it has just heard of that; whoever leads, and whether the owner was asked to let go or not.
func TestBehind(t *testing.T) {
	for _, asked := range []bool{false, true} {
		w := newWorld(t, 2)
		w.Lease = func() time.Duration { return 10 * time.Second }
		w.apply("document: task\nplace: 1\noverlap: never\nexporters: {debug: {}}")
		owners, _ := w.look()
		old, epoch := owners[0].Agent, owners[0].Epoch
		w.runs[old], w.deaf = "1", true
		changed := w.documents.Changed()
		if err := w.documents.Confirm(t.Context(), old, 7, map[string]int64{"task": epoch}); err != nil {
			t.Fatal(err)
		}
		<-changed
		if w.heard = 7; asked {
			w.agent(old).Working = false
			w.step()
		}
		w.heard = 6
		w.agent(old).There = false
		wait := func(most time.Duration) (waited time.Duration) {
			for ; waited < most; waited += time.Second {
				w.step()
				if list, _ := w.documents.Floating(); list[0].Owners.Owners[0].Epoch != epoch && list[0].Owners.Owners[0].Agent != "" {
					return waited
				}
				w.now = w.now.Add(time.Second)
			}
			return waited
		}
		if waited := wait(time.Minute); waited < time.Minute {
			t.Errorf("asked to let go: %t: it is given away after %v, though its session was not heard of", asked, waited)
		}
		w.Placer = New(w.Options) // another leads
		if waited := wait(time.Minute); waited < time.Minute {
			t.Errorf("asked to let go: %t: another leader gives it away after %v, though its session was not heard of", asked, waited)
		}
		w.heard = 7
		if waited := wait(time.Minute); waited < 9*time.Second || waited > 12*time.Second {
			t.Errorf("asked to let go: %t: it is given away %v after its session was heard of, and was over, want 10 s", asked, waited)
		}
	}
}

// step looks once, and waits until what was written has come back.
func (w *world) step() {
	w.Helper()
	before, _, err := w.store.List(w.Context(), "placements/")
	if err != nil {
		w.Fatal(err)
	}
	changed := w.documents.Changed()
	w.Step(w.Context(), w.now)
	after, _, err := w.store.List(w.Context(), "placements/")
	if err != nil {
		w.Fatal(err)
	}
	if fmt.Sprint(before) != fmt.Sprint(after) {
		<-changed
	}
}

// TestDeletedWhileItRuns: an exclusive document that is deleted, and written anew, is nobody's before its owner has stopped.
func TestDeletedWhileItRuns(t *testing.T) {
	const text = "document: task\nplace: 1\noverlap: never\nexporters: {debug: {}}"
	w := newWorld(t, 2)
	w.apply(text)
	owners, _ := w.look()
	old := owners[0]
	w.runs[old.Agent], w.deaf = "1", true
	remove := func() {
		if err := w.documents.Delete(t.Context(), "ann", expr.Selector{}, "task", false); err != nil {
			t.Fatal(err)
		}
	}
	remove()
	w.step()
	w.apply(text)
	w.step()
	if list, _ := w.documents.Floating(); !list[0].Owners.Owners[0].Leaving() {
		t.Fatalf("written anew it is placed on %+v", list[0].Owners)
	}
	w.deaf, w.runs = false, map[string]string{}
	w.step()
	list, _ := w.documents.Floating()
	if o := list[0].Owners.Owners[0]; o.Agent == "" || o.Epoch <= old.Epoch {
		t.Errorf("when the owner has stopped it is placed on %+v, before on %+v", o, old)
	}
	last := list[0].Owners.Epoch
	remove()
	for range 4 {
		w.step()
	}
	if list, _, err := w.store.List(t.Context(), "placements/"); err != nil || len(list) > 0 {
		t.Errorf("when all have stopped it is still placed: %v, %v", list, err)
	}
	w.apply(text)
	if owners, _ := w.look(); owners[0].Epoch <= last {
		t.Errorf("written anew it begins with epoch %d, and had come to %d", owners[0].Epoch, last)
	}
}

// TestParked: a version that fails moves on, to three agents, and waits then for the next version.
func TestParked(t *testing.T) {
	f := func(agents, tried int) {
		w := newWorld(t, agents)
		w.status = "refused"
		w.apply("document: task\nplace: 1\nexporters: {debug: {}}")
		for range 2 * (tried + 2) {
			w.step()
			for _, c := range w.fleet { // whoever has it fails
				if w.Current(c.ID) {
					w.runs[c.ID] = "1"
				}
			}
		}
		if len(w.runs) != tried {
			t.Fatalf("of %d agents %d have tried: %v", agents, len(w.runs), w.runs)
		}
		tasks := w.documents.Tasks(expr.Selector{}).Tasks
		if len(tasks) != 1 || tasks[0].Status != "parked" || !strings.Contains(tasks[0].Error, fmt.Sprintf("failed on %d agents", tried)) || !strings.Contains(tasks[0].Error, "no such file") {
			t.Errorf("after that: %+v", tasks)
		}
		w.status = ""
		w.apply("document: task\nplace: 1\nexporters: {debug: {verbosity: normal}}")
		w.step()
		if tasks := w.documents.Tasks(expr.Selector{}).Tasks; tasks[0].Status != "waiting" || tasks[0].Agent == "" {
			t.Errorf("the next version: %+v", tasks)
		}
		if list, _ := w.documents.Floating(); len(list[0].Owners.Failed) > 0 || list[0].Owners.Parked {
			t.Errorf("of the next version it is remembered: %+v", list[0].Owners)
		}
	}
	f(5, 3)
	f(2, 2)
}

// Current reports whether an agent is offered the document.
func (w *world) Current(agent string) bool {
	return len(w.documents.Current().For(w.agent(agent).Labels).Offer.Documents) > 0
}

// TestRun: the leader places by itself, and steps down when it ends.
func TestRun(t *testing.T) {
	w := newWorld(t, 3)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); Run(ctx, w.Options) }()
	w.apply("document: task\nplace: 1\nexporters: {debug: {}}")
	w.await(func(o []documents.Owner) bool { return len(o) == 1 && o[0].Agent != "" })
	stop()
	<-ended
	if _, err := w.store.Get(t.Context(), "leader"); err == nil {
		t.Error("who has ended still leads")
	}
}
