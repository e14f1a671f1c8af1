// Package placer keeps documents that are to be on some agents where they are to be: the hub that leads looks at the fleet and
// at the documents whenever either changes, has package placement decide, and writes what has changed into the control state,
// from where every hub offers it to its agents.
//
// It knows nothing of what the documents say, nor of how they get to agents.
package placer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/creelhq/creel/hub/internal/documents"
	"github.com/creelhq/creel/hub/internal/leader"
	"github.com/creelhq/creel/hub/internal/placement"
	"github.com/creelhq/creel/hub/internal/registry"
	"github.com/creelhq/creel/hub/internal/state"
	"github.com/creelhq/creel/metric"
)

const (
	// grace is how long an agent whose connection broke keeps what is placed on it: it may only have been started again.
	grace = time.Second
	// rest is the least time between two looks, look the most: what could not be written is tried again.
	rest = 100 * time.Millisecond
	look = 5 * time.Second
	// patience is how long an agent goes on with what another is to take over.
	patience = 30 * time.Second
	// balanceEvery is how often a share of what is placed may move only because it would be better elsewhere.
	balanceEvery = 30 * time.Second
	balanceShare = 0.02
	// frozen is how long a loss of many agents at once may keep everything where it is.
	frozen = 2 * time.Minute
)

// A Fleet is the agents that a hub knows.
type Fleet interface {
	Candidates() []registry.Candidate
	Changed() <-chan struct{} // closed when they may be others
}

// Documents are the documents that a hub knows. *documents.Store is one.
type Documents interface {
	// Floating and the others are documents.Store's.
	Floating() (list []documents.Floating, gone []string)
	Runs(name, agent string) bool
	Place(ctx context.Context, name string, was, next documents.Owners) error
	Forget(ctx context.Context, name string) error
	Changed() <-chan struct{}
}

// Options configure a Placer. All are required.
type Options struct {
	Hub       string // its id
	Store     state.Store
	Documents Documents
	Fleet     Fleet
	Log       *slog.Logger
	Metrics   *metric.Set
}

// Run places documents, whenever this hub leads, until ctx is done.
func Run(ctx context.Context, o Options) {
	leading := o.Metrics.Gauge("creel.hub.leader", "Is 1 while this hub places documents.", "")
	leader.Run(ctx, o.Store, o.Hub, o.Log, func(term context.Context) {
		leading.Set(1)
		defer leading.Set(0)
		New(o).lead(term)
	})
}

// A Placer is one term of a hub that leads. Run makes one for each; by itself it is for who decides when it looks. Its methods
// must not be called concurrently.
type Placer struct {
	Options
	moves *metric.Counter

	balanced time.Time       // when something was moved last only for balance
	dealt    map[string]bool // agents whose loss was dealt with; nil before the first look
	since    time.Time       // when moves were frozen; zero: they are not
}

// New returns a term that begins with its first Step.
func New(o Options) *Placer {
	return &Placer{Options: o, moves: o.Metrics.Counter("creel.hub.placement.moves", "Places of documents that were given to an agent, or taken from one.", "{move}")}
}

func (p *Placer) lead(term context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		documents, fleet := p.Documents.Changed(), p.Fleet.Changed()
		timer.Reset(p.Step(term, time.Now()))
		select {
		case <-time.After(rest):
		case <-term.Done():
			return
		}
		select {
		case <-documents:
		case <-fleet:
		case <-timer.C:
		case <-term.Done():
			return
		}
	}
}

// Step looks once at the fleet and at the documents, as they are at now, and writes what is to change. It returns when to look
// again if neither changes before.
func (p *Placer) Step(ctx context.Context, now time.Time) (next time.Duration) {
	list, gone := p.Documents.Floating()
	for _, name := range gone {
		if err := p.Documents.Forget(ctx, name); err != nil {
			p.Log.Warn("where a document was is not forgotten yet", "document", name, "error", err)
		}
	}
	if len(list) == 0 {
		p.dealt, p.since = nil, time.Time{}
		return look
	}
	agents, again := p.agents(now)
	why := p.guard(agents, now)
	s := placement.Snapshot{Agents: agents, Frozen: why != ""}
	selects := make(map[string]*documents.Floating)
	for i := range list {
		f := &list[i]
		t := placement.Task{ID: f.Name, Selector: f.Group, Replicas: f.Count, Spread: f.Spread, Priority: f.Priority}
		for _, o := range f.Owners.Owners {
			t.Owners = append(t.Owners, o.Agent)
		}
		selects[t.Selector] = f
		s.Tasks = append(s.Tasks, t)
	}
	s.Eligible = func(selector string, a *placement.Agent) bool { return selects[selector].Selects(a.Labels) }
	if now.Sub(p.balanced) >= balanceEvery {
		p.balanced, s.Rebalance = now, balanceShare
	}
	plan := placement.Place(&s)
	for i := range list {
		p.write(ctx, &list[i], &plan, agents, why, now)
	}
	return again
}

// agents returns the fleet as package placement sees it, and when to look at it again.
func (p *Placer) agents(now time.Time) (list []placement.Agent, again time.Duration) {
	again = look
	for _, c := range p.Fleet.Candidates() {
		a := placement.Agent{ID: c.ID, Labels: c.Labels, State: placement.Lost}
		left := grace
		if !c.Broke.IsZero() {
			left -= now.Sub(c.Broke)
		}
		switch {
		case c.There && left <= 0:
		case c.There && !c.Working:
			a.State = placement.Draining
		case c.There:
			a.State = placement.Live
			if left < grace {
				again = min(again, left)
			}
		}
		list = append(list, a)
	}
	return list, again
}

// guard returns why everything stays where it is, "" if it need not.
func (p *Placer) guard(agents []placement.Agent, now time.Time) string {
	lost := make(map[string]bool)
	for _, a := range agents {
		if a.State == placement.Lost {
			lost[a.ID] = true
		}
	}
	if p.dealt == nil {
		p.dealt = lost
	}
	l := placement.Loss{Known: len(agents), Limit: frozen}
	for id := range lost {
		if !p.dealt[id] {
			l.Lost++
		}
	}
	for id := range p.dealt { // who came back can be lost again
		if !lost[id] {
			delete(p.dealt, id)
		}
	}
	l.Known -= len(p.dealt)
	if !p.since.IsZero() {
		l.Since = now.Sub(p.since)
	}
	verdict := placement.Guard(l)
	if verdict == placement.Go {
		if !p.since.IsZero() {
			p.Log.Info("what is placed on agents may move again", "lost", l.Lost, "agents", l.Known)
		}
		p.dealt, p.since = lost, time.Time{}
		return ""
	}
	if p.since.IsZero() {
		p.since = now
		p.Log.Warn("many agents were lost at once: what is placed on them stays there for now; it is likelier that this hub does not hear them than that they are gone",
			"lost", l.Lost, "agents", l.Known, "verdict", verdict.String())
	}
	until := fmt.Sprintf("for %v at most", frozen)
	if verdict == placement.Stop {
		until = "until some of them are back"
	}
	return fmt.Sprintf("%d of %d agents were lost at once: what is placed stays where it is, %s", l.Lost, l.Known, until)
}

// write writes where a document is to be, if that is different.
func (p *Placer) write(ctx context.Context, f *documents.Floating, plan *placement.Plan, agents []placement.Agent, why string, now time.Time) {
	next := f.Owners
	next.Owners, next.Missing = slices.Clone(f.Owners.Owners), ""
	moved := 0
	for _, m := range of(plan.Moves, f.Name, func(m placement.Move) string { return m.Task }) {
		for len(next.Owners) <= m.Slot {
			next.Owners = append(next.Owners, documents.Owner{})
		}
		o := documents.Owner{Agent: m.To, Since: now.UTC()}
		if m.To == "" {
			o.Since = time.Time{}
		} else {
			next.Epoch++
			o.Epoch = next.Epoch
		}
		if m.Handover {
			o.From = m.From
		}
		next.Owners[m.Slot] = o
		moved++
		p.Log.Info("a place of a document moves", "document", f.Name, "place", m.Slot+1, "from", m.From, "to", m.To, "epoch", o.Epoch, "why", m.Reason)
	}
	for len(next.Owners) > f.Count && next.Owners[len(next.Owners)-1].Agent == "" {
		next.Owners = next.Owners[:len(next.Owners)-1]
	}
	for i := range next.Owners {
		if o := &next.Owners[i]; o.From != "" && (p.Documents.Runs(f.Name, o.Agent) || now.Sub(o.Since) >= patience || !live(agents, o.From)) {
			o.From = ""
		}
	}
	for _, u := range of(plan.Unplaced, f.Name, func(u placement.Unplaced) string { return u.Task }) {
		if next.Missing = why; why == "" {
			next.Missing = missing(u, f.Count)
		}
	}
	if next.Missing == f.Owners.Missing && slices.Equal(next.Owners, f.Owners.Owners) {
		return
	}
	switch err := p.Documents.Place(ctx, f.Name, f.Owners, next); {
	case err == nil:
		p.moves.Add(uint64(moved))
	case !errors.Is(err, state.ErrConflict) && ctx.Err() == nil: // a conflict: another hub leads
		p.Log.Warn("where a document is to be is not written yet; will try again", "document", f.Name, "error", err)
	}
}

// of returns what of a list is of a document. The list is in the order of the documents' names.
func of[T any](list []T, name string, task func(T) string) []T {
	from, _ := slices.BinarySearchFunc(list, name, func(x T, name string) int {
		if task(x) < name {
			return -1
		}
		return 1
	})
	to := from
	for to < len(list) && task(list[to]) == name {
		to++
	}
	return list[from:to]
}

func live(agents []placement.Agent, id string) bool {
	return slices.ContainsFunc(agents, func(a placement.Agent) bool { return a.ID == id && a.State != placement.Lost })
}

// missing says why a document is on fewer agents than it is to be.
func missing(u placement.Unplaced, count int) string {
	switch u.Reason {
	case placement.NoAgent:
		return "no agent that is connected and not paused is selected"
	case placement.TooFew:
		return fmt.Sprintf("%d agents that are connected and not paused are selected; it is to be on %d", count-u.Missing, count)
	default:
		return "the agents that are selected have no room left"
	}
}
