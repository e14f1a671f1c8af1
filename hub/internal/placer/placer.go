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
	"math"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/creelhq/creel/control"
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
	// saveEvery is how often it is written how far an agent has come that goes on.
	saveEvery = time.Minute
	// balanceEvery is how often a share of what is placed may move only because it would be better elsewhere.
	balanceEvery = 30 * time.Second
	balanceShare = 0.02
	// tellEvery is the least time between two looks of a hub that does not lead.
	tellEvery = time.Second
	// frozen is how long a loss of many agents at once may keep everything where it is.
	frozen = 2 * time.Minute
)

// A Fleet is the agents that a hub knows.
type Fleet interface {
	Candidates() []registry.Candidate
	Heard() int64             // the revision up to which it was heard where agents are
	Altered() <-chan struct{} // closed when they, or what they say of documents, may be others
}

// Documents are the documents that a hub knows. *documents.Store is one.
type Documents interface {
	// Floating and the others are documents.Store's.
	Floating() (list []documents.Floating, gone []string)
	Runs(name, agent string) bool
	Has(name, agent string) bool
	Failures() map[string][]documents.Failure
	Results() map[string][]documents.Done
	Costs() map[string]map[string]float64
	Cursors() map[string]map[string]documents.Cursor
	Place(ctx context.Context, name string, was, next documents.Owners) error
	Forget(ctx context.Context, name string) error
	Changed() <-chan struct{}
}

// Options configure a Placer. All but Lease and Answers are required.
type Options struct {
	Hub       string // its id
	Store     state.Store
	Documents Documents
	Fleet     Fleet
	Log       *slog.Logger
	Metrics   *metric.Set

	// Lease returns the longest time that an agent may believe that it has a lease after it was heard last, by any hub. nil: a
	// minute.
	Lease func() time.Duration
	// Answers reports whether another hub gives a sign of life, as leader.Candidate wants it.
	Answers func(ctx context.Context, hub string) bool
}

// Run places documents, whenever this hub leads, until ctx is done. When it does not, it writes what its agents say.
func Run(ctx context.Context, o Options) {
	leading := o.Metrics.Gauge("creel.hub.leader", "Is 1 while this hub places documents.", "")
	var leads atomic.Bool
	var over sync.WaitGroup
	defer over.Wait()
	over.Go(func() {
		o.follow(ctx, tellEvery, func() time.Duration {
			if !leads.Load() {
				Tell(ctx, o)
			}
			return look
		})
	})
	leader.Candidate{Hub: o.Hub, Store: o.Store, Log: o.Log, Answers: o.Answers}.Run(ctx, func(term context.Context) {
		leading.Set(1)
		leads.Store(true)
		defer leading.Set(0)
		defer leads.Store(false)
		p := New(o)
		o.follow(term, rest, func() time.Duration { return p.Step(term, time.Now()) })
	})
}

// follow calls step until ctx is done: whenever documents or fleet change, or the time has passed that it has returned; but not
// more often than every so often.
func (o Options) follow(ctx context.Context, every time.Duration, step func() time.Duration) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		documents, fleet := o.Documents.Changed(), o.Fleet.Altered()
		timer.Reset(step())
		select {
		case <-time.After(every):
		case <-ctx.Done():
			return
		}
		select {
		case <-documents:
		case <-fleet:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
}

// A Placer is one term of a hub that leads. Run makes one for each; by itself it is for who decides when it looks. Its methods
// must not be called concurrently.
type Placer struct {
	Options
	moves *metric.Counter

	balanced time.Time       // when something was moved last only for balance
	dealt    map[string]bool // agents whose loss was dealt with; nil before the first look
	since    time.Time       // when moves were frozen; zero: they are not

	began  time.Time            // its first look at the fleet
	leased map[string]time.Time // until when agents may believe that they have a lease, if that is known
	agents map[string]placement.Agent
}

// New returns a term that begins with its first Step.
func New(o Options) *Placer {
	return &Placer{Options: o, leased: make(map[string]time.Time), moves: o.Metrics.Counter("creel.hub.placement.moves", "Places of documents that were given to an agent, or taken from one.", "{move}")}
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
	if p.began.IsZero() || len(list) == 0 { // or it has not looked at the fleet
		p.began = now
	}
	if len(list) == 0 {
		p.dealt, p.since = nil, time.Time{}
		return look
	}
	p.behind(list, now)
	agents, again := p.look(now)
	tasks, said := make([]task, len(list)), ask(p.Documents)
	for i := range list {
		tasks[i] = p.begin(&list[i], said, now)
	}
	why := p.guard(agents, now)
	s := p.snapshot(agents, tasks, now)
	if s.Frozen = why != ""; now.Sub(p.balanced) >= balanceEvery {
		p.balanced, s.Rebalance = now, balanceShare
	}
	plan := placement.Place(s)
	for i := range tasks {
		p.carry(&tasks[i], &plan, why, now)
		p.write(ctx, &tasks[i])
	}
	return again
}

// look returns the fleet as package placement sees it, and when to look at it again.
func (p *Placer) look(now time.Time) (list []placement.Agent, again time.Duration) {
	again = look
	p.agents = make(map[string]placement.Agent)
	for _, c := range p.Fleet.Candidates() {
		a := placement.Agent{ID: c.ID, Labels: c.Labels, Capacity: capacity(c.Labels), State: placement.Lost}
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
		p.lease(&c, now)
		if a.State == placement.Lost {
			if left := p.lasts(c.ID, now); left > 0 {
				a.Leased, again = true, min(again, left)
			}
		}
		p.agents[c.ID] = a
		list = append(list, a)
	}
	return list, again
}

// capacity returns how much an agent says that may be placed on it, 0 if it does not say so.
func capacity(labels map[string]string) float64 {
	n, err := strconv.ParseFloat(labels[control.CapacityLabel], 64)
	if err != nil || !(n > 0) || math.IsInf(n, 1) {
		return 0
	}
	return n
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
func (p *Placer) write(ctx context.Context, t *task) {
	if t.next.Equal(t.Owners) {
		return
	}
	switch err := p.Documents.Place(ctx, t.Name, t.Owners, t.next); {
	case err == nil:
		p.moves.Add(uint64(t.moved))
	case !errors.Is(err, state.ErrConflict) && ctx.Err() == nil: // a conflict: another hub leads, or has told something
		p.Log.Warn("where a document is to be is not written yet; will try again", "document", t.Name, "error", err)
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
