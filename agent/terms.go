package agent

import (
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/creelhq/creel/agent/change"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/pipeline"
)

// terms knows on what terms the agent has the documents that its hub has placed on it, and until when it is leased, and passes on
// what the pipelines may do. What the hub has said last counts at once, even if it cannot be made to run: a document that
// was taken away is left alone, though it may run until it can be closed.
type terms struct {
	set func(map[string]*pipeline.Terms) // is told; must not block

	mu     sync.Mutex
	leased time.Time
	runs   map[string]control.Tenure // of the documents that run, or are about to
	wanted map[string]control.Tenure // of those that the hub wants; nil: it has said nothing in this process
	taken  map[string]bool           // those that run, and that the hub has taken away: what it says of them since is of what is about to run
}

// tenure returns on what terms the agent has a document that runs, or is about to.
func (t *terms) tenure(document string) control.Tenure {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.runs[document]
}

// lease notes until when a hub knows this agent.
func (t *terms) lease(until time.Time) {
	t.change(func() { t.leased = until })
}

// want notes what the hub has said last.
func (t *terms) want(p change.Pieces) {
	t.change(func() {
		t.wanted = tenures(p)
		for name, tenure := range t.runs {
			if _, is := t.wanted[name]; !is && tenure.Epoch != 0 {
				if t.taken == nil {
					t.taken = make(map[string]bool)
				}
				t.taken[name] = true
			}
		}
	})
}

// begin notes what is about to run, beside what runs.
func (t *terms) begin(p change.Pieces) {
	t.change(func() {
		both := tenures(p)
		for name, tenure := range both {
			if wanted, is := t.wanted[name]; is && wanted.Epoch == tenure.Epoch {
				delete(t.taken, name)
			}
		}
		for name, tenure := range t.runs {
			if _, is := both[name]; !is {
				both[name] = tenure
			}
		}
		t.runs = both
	})
}

// run notes what runs.
func (t *terms) run(p change.Pieces) {
	t.change(func() {
		t.runs = tenures(p)
		maps.DeleteFunc(t.taken, func(name string, _ bool) bool { _, is := t.runs[name]; return !is })
	})
}

func tenures(p change.Pieces) map[string]control.Tenure {
	list := make(map[string]control.Tenure, len(p))
	for _, d := range p {
		list[d.Name] = control.ParseTenure(d.Terms)
	}
	return list
}

// change notes something, and passes on what follows from it.
func (t *terms) change(note func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	note()
	list := make(map[string]*pipeline.Terms)
	for name, tenure := range t.runs {
		wanted, is := t.wanted[name]
		switch {
		case t.wanted == nil:
			wanted = tenure
		case tenure.Epoch != 0 && (!is || t.taken[name]):
			list[name] = &pipeline.Terms{Epoch: tenure.Epoch, Why: fmt.Sprintf("the hub has taken document %s away from this agent, which could not close it yet: it does nothing of it any more", name)}
			continue
		}
		if wanted.Epoch != 0 {
			list[name] = termsOf(name, wanted, t.leased)
		}
	}
	t.set(list)
}

// termsOf returns what a document's tenure means for an agent that is leased until then.
func termsOf(name string, t control.Tenure, leased time.Time) *pipeline.Terms {
	p := &pipeline.Terms{
		Epoch: t.Epoch, Once: t.Once, Run: t.Run, Cancel: t.Cancel, Until: leased, Forever: !t.Exclusive && t.Orphan < 0,
		Why: fmt.Sprintf("no hub confirms any more that this agent has document %s: it does nothing of it until one does", name),
	}
	if leased.IsZero() {
		p.Why = fmt.Sprintf("no hub has confirmed yet that this agent has document %s: it does nothing of it until one does", name)
	} else if !t.Exclusive && t.Orphan > 0 {
		p.Until = leased.Add(t.Orphan)
	}
	return p
}
