package placer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/hub/internal/documents"
	"github.com/creelhq/creel/hub/internal/placement"
	"github.com/creelhq/creel/hub/internal/registry"
	"github.com/creelhq/creel/hub/internal/state"
)

// This file is one document at one look: what is known of its owners before placement decides, and what becomes of them.
//
// An exclusive document has no two owners of a place at any time. Who is to lose it is written first as one that leaves: it is not
// offered the document any more, and nobody else is before it has said that it does not run it, or its lease is over. That is in
// the entry, so that the next leader knows as much. And a hub that leases an agent anew confirms in the entry that the place is
// still its: so either that is known here, or what is written here fails, or what is written there.

const (
	// parkAfter is on how many agents a version of a document must have failed to be given to no other.
	parkAfter = 3
	// longest is how long a lease is thought to last where nobody says.
	longest = time.Minute
	// maxReason is the bytes that are kept of why a document has failed on an agent.
	maxReason = 300
)

// A task is a document that is looked at.
type task struct {
	*documents.Floating
	next  documents.Owners // as it is to be written
	open  []int            // its places that are not done
	bar   map[string]bool  // agents that must not get it
	moved int
}

// said is what agents say to this hub, by document.
type said struct {
	failures map[string][]documents.Failure
	results  map[string][]documents.Done
	costs    map[string]map[string]float64          // and by agent
	cursors  map[string]map[string]documents.Cursor // likewise
}

func ask(d Documents) said { return said{d.Failures(), d.Results(), d.Costs(), d.Cursors()} }

// heard returns where a document is by what agents say to this hub.
func heard(d Documents, f *documents.Floating, say said, now time.Time) documents.Owners {
	next := f.Owners
	next.Owners, next.Failed = slices.Clone(f.Owners.Owners), nil
	if next.Ended.Version != f.Version {
		next.Ended = documents.Ended{}
	}
	for _, x := range f.Owners.Failed {
		if x.Version == f.Version {
			next.Failed = append(next.Failed, x)
		}
	}
	for _, x := range say.failures[f.Name] {
		at := slices.IndexFunc(next.Owners, func(o documents.Owner) bool { return o.Agent == x.Agent })
		known := slices.ContainsFunc(next.Failed, func(k documents.Failure) bool { return k.Agent == x.Agent })
		if x.Version == f.Version && at >= 0 && !known {
			x.Error = strings.ToValidUTF8(x.Error[:min(len(x.Error), maxReason)], "")
			next.Failed = append(next.Failed, x)
			next.Note(documents.Event{Time: now, What: documents.Failed, Place: at + 1, From: x.Agent, Epoch: next.Owners[at].Epoch, Why: x.Error})
		}
	}
	for i := range next.Owners {
		o := &next.Owners[i]
		if o.Done.Version != f.Version || !f.Once {
			o.Done = documents.Done{}
		}
		goes := o.Leaving() && !d.Has(f.Name, o.From)
		save(o, say.cursors[f.Name][cmp.Or(o.Agent, o.From)], goes, now)
		for _, r := range say.results[f.Name] {
			if f.Once && r.Version == f.Version && o.Agent != "" && (r.Agent == o.Agent && r.Epoch == o.Epoch || r.Agent == o.From && r.Epoch == o.FromEpoch) {
				*o = o.Place()
				o.Done = r
				if f.Exclusive { // if it is tried again, then not before it has surely let go
					o.From, o.FromEpoch, o.Since = r.Agent, r.Epoch, now.UTC()
				}
				next.Note(documents.Event{Time: now, What: documents.IsDone, Place: i + 1, From: r.Agent, Epoch: r.Epoch})
				break
			}
		}
		if c := say.costs[f.Name][o.Agent]; c > 0 && (c >= 2*o.Measured || c <= o.Measured/2) {
			o.Measured = c
		}
		switch {
		case o.Leaving():
			if goes {
				next.End(o.FromEpoch, now)
				letGo(&next, i, "", now)
			}
		case o.From != "" && d.Runs(f.Name, o.Agent):
			next.End(o.FromEpoch, now)
			o.From, o.FromEpoch = "", 0
		}
	}
	return next
}

// save notes how far whoever has a place, or is to let go of it, has come: at once when that is the last word, else now and then.
func save(o *documents.Owner, c documents.Cursor, last bool, now time.Time) {
	if c.Epoch == 0 || c.Epoch != cmp.Or(o.Epoch, o.FromEpoch) || !last && c.There && now.Sub(o.Saved) < saveEvery {
		return
	}
	if text := control.EncodeCursors(c.Of); text != "" && text != o.Cursor {
		o.Cursor, o.Saved = text, now.UTC()
	}
}

// letGo takes a place for good from an agent that was to let go of it.
func letGo(next *documents.Owners, i int, why string, now time.Time) {
	if o := &next.Owners[i]; o.Done == (documents.Done{}) {
		next.Note(documents.Event{Time: now, What: documents.Let, Place: i + 1, From: o.From, Epoch: o.FromEpoch, Why: why})
	}
	next.Owners[i].Free()
}

// Tell writes what the agents of a hub that does not lead have said to it, and the leader waits for: that they have taken a
// document over, that they have stopped, or that it has failed there.
func Tell(ctx context.Context, o Options) {
	list, _ := o.Documents.Floating()
	if len(list) == 0 {
		return
	}
	say, now := ask(o.Documents), time.Now()
	for i := range list {
		f := &list[i]
		next := heard(o.Documents, f, say, now)
		if next.Equal(f.Owners) {
			continue
		}
		if err := o.Documents.Place(ctx, f.Name, f.Owners, next); err != nil && !errors.Is(err, state.ErrConflict) && ctx.Err() == nil {
			o.Log.Warn("what agents say of a document is not written yet; will try again", "document", f.Name, "error", err)
		}
	}
}

// begin takes in what is known of a document.
func (p *Placer) begin(f *documents.Floating, say said, now time.Time) task {
	t := task{Floating: f, next: heard(p.Documents, f, say, now), bar: make(map[string]bool)}
	t.next.Exclusive = f.Exclusive
	for _, x := range t.next.Failed {
		t.bar[x.Agent] = true
	}
	for i := range t.next.Owners {
		o := &t.next.Owners[i]
		if o.Done == (documents.Done{}) {
			t.open = append(t.open, i)
		} else {
			t.bar[o.Done.Agent] = true
		}
		switch {
		case o.Leaving() && !f.Exclusive && (o.Cursor == "" || p.lost(o.From) || now.Sub(o.Since) >= patience):
			letGo(&t.next, i, "others may do the same meanwhile", now)
		case o.Leaving() && p.stopped(o.From, now):
			letGo(&t.next, i, "it is not there, and its lease is over", now)
		case o.Leaving():
			t.bar[o.From] = true
		case o.From != "" && (now.Sub(o.Since) >= patience || p.lost(o.From)):
			o.From, o.FromEpoch = "", 0
		}
	}
	return t
}

// wants is how many agents are to have the document now.
func (t *task) wants() int {
	if t.next.Ended != (documents.Ended{}) {
		return 0
	}
	return max(0, t.Count-(len(t.next.Owners)-len(t.open)))
}

// slot returns a place that is not done, as package placement counts them.
func (t *task) slot(n int) (place int) {
	for len(t.open) <= n {
		t.open = append(t.open, len(t.next.Owners))
		t.next.Owners = append(t.next.Owners, documents.Owner{})
	}
	return t.open[n]
}

// measured returns what share of a slot a place takes, on average of those of which that is known; 0: it is of none.
func (t *task) measured() float64 {
	sum, n := 0.0, 0
	for _, o := range t.next.Owners {
		if o.Measured > 0 {
			sum, n = sum+o.Measured, n+1
		}
	}
	return sum / float64(max(n, 1))
}

// snapshot is what placement decides by.
func (p *Placer) snapshot(agents []placement.Agent, tasks []task, now time.Time) *placement.Snapshot {
	s := &placement.Snapshot{Agents: agents}
	eligible := make(map[string]func(a *placement.Agent) bool)
	for i := range tasks {
		t := &tasks[i]
		x := placement.Task{ID: t.Name, Selector: t.Group, Replicas: t.wants(), Spread: t.Spread, Priority: t.Priority, Cost: t.Cost, Measured: t.measured(), Exclusive: t.Exclusive}
		for _, i := range t.open {
			o := &t.next.Owners[i]
			owner := cmp.Or(o.Agent, o.From)
			if _, known := p.agents[owner]; owner != "" && !known && p.lasts(owner, now) > 0 { // it was forgotten, but may not know that
				p.agents[owner] = placement.Agent{ID: owner, State: placement.Lost, Leased: true}
				s.Agents = append(s.Agents, p.agents[owner])
			}
			x.Owners = append(x.Owners, owner)
		}
		selects := func(a *placement.Agent) bool { return t.Selects(a.Labels) }
		if len(t.bar) > 0 {
			x.Selector += "\x00" + t.Name
			selects = func(a *placement.Agent) bool { return t.mayHave(a.ID) && t.Selects(a.Labels) }
		}
		eligible[x.Selector] = selects
		s.Tasks = append(s.Tasks, x)
	}
	s.Eligible = func(selector string, a *placement.Agent) bool { return eligible[selector](a) }
	return s
}

// mayHave reports whether nothing but its selector speaks against an agent: it does not leave it and has not failed with it, and
// unless it runs there already others have not either.
func (t *task) mayHave(agent string) bool {
	return !t.bar[agent] && (len(t.next.Failed) < parkAfter || slices.ContainsFunc(t.next.Owners, func(o documents.Owner) bool { return o.Agent == agent }))
}

// carry does what a plan says of a document.
func (p *Placer) carry(t *task, plan *placement.Plan, why string, now time.Time) {
	next := &t.next
	for _, m := range of(plan.Moves, t.Name, func(m placement.Move) string { return m.Task }) {
		m.Slot = t.slot(m.Slot)
		p.move(t, &next.Owners[m.Slot], m, now)
	}
	for n := len(next.Owners); n > t.Count && next.Owners[n-1].Void(); n-- {
		next.Owners = next.Owners[:n-1]
	}
	next.Missing, next.Parked = "", false
	for _, u := range of(plan.Unplaced, t.Name, func(u placement.Unplaced) string { return u.Task }) {
		switch n := len(next.Failed); {
		case n >= parkAfter || n > 0 && u.Reason != placement.NoRoom:
			last := next.Failed[n-1]
			next.Parked = true
			next.Missing = fmt.Sprintf("version %d has failed on %d agents, and waits for another version, or creel task retry; the last one was %s: %s", last.Version, n, last.Agent, cmp.Or(last.Error, "it did not say why"))
		case why != "":
			next.Missing = why
		default:
			next.Missing = missing(u, t.Count)
		}
	}
	if next.Parked && !t.Owners.Parked {
		next.Note(documents.Event{Time: now, What: documents.Parked, Why: next.Missing})
	}
}

// move does what a plan says of a place.
func (p *Placer) move(t *task, o *documents.Owner, m placement.Move, now time.Time) {
	was := *o
	if m.From != "" && !t.Exclusive && !m.Handover && !p.lost(m.From) { // it hears that it has the place no more
		t.next.End(was.Epoch, now)
	}
	switch {
	case t.Exclusive && m.From != "" && !p.stopped(m.From, now), was.Cursor != "" && m.From != "" && !p.lost(m.From): // who has it next goes on where it ends
		if o.Leaving() {
			return
		}
		*o = was.Place()
		o.From, o.FromEpoch, o.Session, o.Since = was.Agent, was.Epoch, was.Session, now.UTC()
		t.next.Note(documents.Event{Time: now, What: documents.Leaving, Place: m.Slot + 1, From: m.From, Epoch: was.Epoch, Why: string(m.Reason)})
		p.Log.Info("an agent is to let go of a place of a document, and nobody has it before it has", "document", t.Name, "place", m.Slot+1, "agent", m.From, "epoch", was.Epoch, "why", m.Reason)
		return
	case m.To == "":
		*o = was.Place()
		t.next.Note(documents.Event{Time: now, What: documents.Taken, Place: m.Slot + 1, From: m.From, Epoch: was.Epoch, Why: string(m.Reason)})
	default:
		if t.next.Epoch == 0 {
			t.next.Epoch = t.Revision
		}
		t.next.Epoch++
		*o = was.Place()
		o.Agent, o.Epoch, o.Since, o.Given = m.To, t.next.Epoch, now.UTC(), was.Cursor
		if m.Handover {
			o.From, o.FromEpoch = was.Agent, was.Epoch
		}
		t.next.Note(documents.Event{Time: now, What: documents.Placed, Place: m.Slot + 1, From: m.From, To: m.To, Epoch: o.Epoch, Why: string(m.Reason)})
	}
	t.moved++
	p.Log.Info("a place of a document moves", "document", t.Name, "place", m.Slot+1, "from", m.From, "to", m.To, "epoch", o.Epoch, "why", m.Reason)
}

// lost reports whether an agent is not there.
func (p *Placer) lost(agent string) bool {
	a, known := p.agents[agent]
	return !known || a.State == placement.Lost
}

// stopped reports whether an agent cannot work on an exclusive document any more: it is not there, and its lease is over.
func (p *Placer) stopped(agent string, now time.Time) bool {
	return p.lost(agent) && p.lasts(agent, now) <= 0
}

// lease notes until when an agent that is there may believe that it has a lease. Of agents of other hubs that is not known.
func (p *Placer) lease(c *registry.Candidate, now time.Time) {
	until := c.Leased
	if c.There && !until.After(now) {
		until = now.Add(look + p.longest()) // it may go right after
	}
	if _, known := p.leased[c.ID]; (known || c.There) && until.After(p.leased[c.ID]) {
		p.leased[c.ID] = until
	}
}

// behind notes that owners of exclusive places may just have been given a lease, if that was in a session of which this hub has not heard
// yet. Of those that it has heard of it knows when they end.
func (p *Placer) behind(list []documents.Floating, now time.Time) {
	heard, until := p.Fleet.Heard(), now.Add(p.longest())
	for _, f := range list {
		for _, o := range f.Owners.Owners {
			if who := cmp.Or(o.Agent, o.From); f.Exclusive && o.Session > heard && until.After(p.leased[who]) {
				p.leased[who] = until
			}
		}
	}
}

// lasts returns for how long from now an agent may still believe that it has a lease. Of those that were not there since this hub
// leads, another may have heard until then.
func (p *Placer) lasts(agent string, now time.Time) time.Duration {
	until, known := p.leased[agent]
	if !known {
		until = p.began.Add(p.longest())
	}
	return until.Sub(now)
}

func (p *Placer) longest() time.Duration {
	if p.Lease == nil {
		return longest
	}
	return p.Lease()
}
