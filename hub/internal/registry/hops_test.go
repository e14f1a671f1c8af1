package registry

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/hub/internal/admission"
	"github.com/creelhq/creel/report"
)

const patience = time.Minute

// way is a model of one exporter, a hub, and what goes between them, each thing in its time.
type way struct {
	now   time.Time
	later []event // by time
	hub   *admission.Admission
	run   *run
	agent creel.Sender

	hubStarted time.Time
	heard      time.Time // the run that the hub before has heard of

	batches   uint64
	delivered int64 // by the agent's word
	options   int
	restarts  int // of counts, as the hub finds necessary
	worst     int64
	told      int
}

type event struct {
	at time.Time
	do func()
}

func newWay() *way {
	w := &way{now: time.Unix(1_700_000_000, 0)}
	w.startHub()
	w.startAgent()
	return w
}

func (w *way) startAgent() {
	w.pass(1)
	w.agent, w.delivered = creel.Sender{Agent: "a", Started: w.now, Exporter: "otlp/hub"}, 0
}

func (w *way) startHub() {
	if w.run != nil {
		w.heard = w.run.started
	}
	w.hubStarted = w.now
	w.hub, w.run = admission.New(admission.Options{Now: func() time.Time { return w.now }}), nil
}

func (w *way) after(d time.Duration, do func()) {
	w.later = append(w.later, event{w.now.Add(d), do})
	slices.SortStableFunc(w.later, func(a, b event) int { return a.at.Compare(b.at) })
}

func (w *way) pass(d time.Duration) {
	end := w.now.Add(d)
	for len(w.later) > 0 && !w.later[0].at.After(end) {
		e := w.later[0]
		w.later, w.now = w.later[1:], e.at
		e.do()
	}
	w.now = end
}

// send has the hub take a batch at once. Each attempt's answer takes its time; all but the last are lost, and so is one of a
// hub, or to an agent, that was started again meanwhile.
func (w *way) send(n int, answers ...time.Duration) {
	w.batches++
	var id creel.ID
	binary.BigEndian.PutUint64(id[:], w.batches)
	var attempt func()
	attempt = func() {
		w.hub.Took(w.agent, id, creel.Logs, n)
		d, hub, run := answers[0], w.hub, w.agent.Started
		if len(answers) > 1 {
			answers = answers[1:]
			w.after(d, attempt)
			return
		}
		w.after(d, func() {
			if w.hub != hub || w.agent.Started != run {
				attempt()
				return
			}
			w.delivered += int64(n)
		})
	}
	attempt()
}

// report has the agent tell what it knows now; the hub hears it later.
func (w *way) report(latency time.Duration) {
	l := report.Ledger{
		Pipelines: []report.Pipeline{{Exporters: []report.Exporter{{Exporter: "otlp/hub", Delivered: w.delivered / 3}, {Exporter: "null", Delivered: 1e6}}}},
		Spools:    []report.SpoolAccount{{Exporter: "otlp/hub", Delivered: w.delivered - w.delivered/3}},
	}
	effective := fmt.Sprintf(`{"exporters.otlp/hub": {"n": %d}, "exporters.null": {}, "collectors.host": {"n": %d}}`, w.options, w.batches)
	hub, run := w.hub, w.agent.Started
	w.after(latency, func() {
		if w.hub != hub || w.agent.Started != run {
			return
		}
		if w.run == nil || w.run.started != run {
			fresh := run != w.heard && run.After(w.hubStarted)
			w.run = newRun(run, fresh, &l, w.hub.Streams("a", run))
		}
		anew := w.run.configured(effective)
		for _, x := range anew {
			w.hub.Restart(w.agent.Agent, w.agent.Started, x)
		}
		elsewhere := w.run.compare(w.now, patience, &l, w.hub.Streams("a", w.agent.Started))
		for _, x := range elsewhere {
			w.hub.Restart(w.agent.Agent, w.agent.Started, x)
		}
		w.restarts += len(anew) + len(elsewhere)
		w.worst = max(w.worst, w.run.unexplained())
		if w.run.cause() != "" {
			w.told++
		}
	})
}

const step = patience / 20

// TestNoFalseAlarm: as long as nothing is lost nothing is unexplained, whatever is late, repeated, started again (hub or
// agent) and changed. Answers take up to half a patience, and reports a tenth.
func TestNoFalseAlarm(t *testing.T) {
	repeats, settled, exact, restarts := int64(0), 0, 0, 0
	rapid.Check(t, func(t *rapid.T) {
		w := newWay()
		wait := rapid.Custom(func(t *rapid.T) time.Duration {
			return time.Duration(rapid.IntRange(0, int(patience/2)).Draw(t, "wait"))
		})
		for range rapid.IntRange(10, 150).Draw(t, "steps") {
			switch rapid.IntRange(0, 39).Draw(t, "what") { // small numbers are drawn more often
			case 39:
				w.startHub()
				restarts++
			case 38:
				w.options++
			case 37:
				w.startAgent()
			case 2, 3:
				w.send(rapid.IntRange(1, 100).Draw(t, "n"), wait.Draw(t, "lost"), wait.Draw(t, "lost"), wait.Draw(t, "answer"))
			case 4, 5, 6, 7:
				w.pass(patience)
			default:
				w.send(rapid.IntRange(1, 100).Draw(t, "n"), wait.Draw(t, "answer"))
			}
			w.report(time.Duration(rapid.IntRange(0, int(patience/10)).Draw(t, "latency")))
			w.pass(time.Duration(rapid.IntRange(0, int(step)).Draw(t, "pass")))
			if w.worst > 0 || w.told > 0 {
				t.Fatalf("%d records are unexplained, and nothing was lost: %+v", w.worst, w.run.list())
			}
			for _, h := range w.run.list() {
				repeats += h.Repeats
				if !h.Settling {
					settled++
					if h.Since == w.hub.Streams("a", w.run.started)[0].Since {
						exact++
					}
				}
				if h.Taken < h.Sent {
					t.Fatalf("taken is less than sent: %+v", h)
				}
			}
		}
	})
	if repeats == 0 || settled == 0 || exact == 0 || restarts == 0 {
		t.Errorf("%d repeats, %d comparisons, %d from the beginning, %d restarts of the hub: the test has shown nothing", repeats, settled, exact, restarts)
	}
}

// TestLossIsFound: what the agent calls delivered, and never came, is found to the record, if the hub has known the agent
// from the beginning.
func TestLossIsFound(t *testing.T) {
	lost := int64(0)
	rapid.Check(t, func(t *rapid.T) {
		w := newWay()
		var missing int64
		for range rapid.IntRange(0, 5).Draw(t, "before the first report") {
			w.send(rapid.IntRange(1, 100).Draw(t, "n"), time.Duration(rapid.IntRange(0, int(step)).Draw(t, "answer")))
			w.pass(step / 3)
		}
		w.report(0)
		w.pass(1)
		for range rapid.IntRange(1, 60).Draw(t, "batches") {
			w.send(rapid.IntRange(1, 100).Draw(t, "n"), time.Duration(rapid.IntRange(0, int(patience/2)).Draw(t, "answer")))
			if rapid.IntRange(0, 9).Draw(t, "lose") == 0 {
				n := int64(rapid.IntRange(1, 50).Draw(t, "lost"))
				missing, w.delivered = missing+n, w.delivered+n
			}
			w.report(0)
			w.pass(step)
		}
		for range 3 {
			w.pass(patience)
			w.report(0)
			w.pass(1)
		}
		h := w.run.list()
		if len(h) != 1 || h[0].Unexplained != missing || h[0].Settling || h[0].Sent != w.delivered || h[0].Sent-h[0].Taken != missing {
			t.Fatalf("lost %d, found %+v", missing, h)
		}
		if cause := w.run.cause(); (cause != "") != (missing > 0) || missing > 0 && !strings.HasPrefix(cause, fmt.Sprintf("exporters.otlp/hub: %d records ", missing)) {
			t.Fatalf("lost %d, told %q", missing, cause)
		}
		lost += missing
	})
	if lost == 0 {
		t.Error("nothing was lost: the test has shown nothing")
	}
}

// TestLossIsFoundLate: after a restart of the hub a loss is found if it is more than what came in the first minute, and it is
// told once it has lasted for a minute, not before.
func TestLossIsFoundLate(t *testing.T) {
	w := newWay()
	send := func(batches int) {
		for range batches {
			w.send(10, step)
			w.report(0)
			w.pass(step)
		}
	}
	send(50)
	w.startHub()
	send(10)
	if h := w.run.list(); len(h) != 1 || !h[0].Settling || h[0].Taken != 100 || h[0].Sent != 0 {
		t.Fatalf("before a minute is over: %+v", h)
	}
	send(50)
	if h := w.run.list()[0]; h.Settling || h.Sent == 0 || h.Taken-h.Sent > 20 || h.Unexplained != 0 {
		t.Fatalf("after it: %+v", h)
	}
	w.delivered += 1000
	send(15)
	if h := w.run.list()[0]; h.Unexplained == 0 || h.Unexplained > 1000 || h.Sent-h.Taken != h.Unexplained || w.told > 0 {
		t.Fatalf("told %d times, %+v", w.told, h)
	}
	send(10)
	if w.told == 0 {
		t.Error("the loss is not told")
	}
}

// TestElsewhere: an exporter that is made to send elsewhere, without this hub knowing, is no alarm; nor is one that comes
// back.
func TestElsewhere(t *testing.T) {
	w := newWay()
	w.report(0)
	for range 10 {
		w.send(10, step)
		w.report(0)
		w.pass(step)
	}
	for range 50 {
		w.delivered += 10
		w.report(0)
		w.pass(step)
	}
	if w.told > 0 || w.restarts != 1 || len(w.run.list()) != 0 {
		t.Fatalf("told %d times, begun anew %d times: %+v", w.told, w.restarts, w.run.list())
	}
	for range 50 {
		w.send(10, step)
		w.report(0)
		w.pass(step)
	}
	if h := w.run.list(); w.told > 0 || len(h) != 1 || h[0].Unexplained != 0 || h[0].Settling {
		t.Errorf("told %d times: %+v", w.told, h)
	}
}

// TestTheLastAreLost: no more comes, and what was lost is told all the same.
func TestTheLastAreLost(t *testing.T) {
	w := newWay()
	w.report(0)
	w.send(10, step)
	w.pass(step)
	w.report(0)
	w.delivered += 7
	for range 22 {
		w.pass(step)
		w.report(0)
	}
	if w.told == 0 || w.run.unexplained() != 7 {
		t.Errorf("told %d times: %+v", w.told, w.run.list())
	}
}
