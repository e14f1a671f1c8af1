package placer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

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
	bar   map[string]bool  // agents that must not get it
	moved int
}

// heard returns where a document is by what agents say to this hub.
func heard(d Documents, f *documents.Floating, failures []documents.Failure) documents.Owners {
	next := f.Owners
	next.Owners, next.Failed = slices.Clone(f.Owners.Owners), nil
	for _, x := range f.Owners.Failed {
		if x.Version == f.Version {
			next.Failed = append(next.Failed, x)
		}
	}
	for _, x := range failures {
		owns := slices.ContainsFunc(next.Owners, func(o documents.Owner) bool { return o.Agent == x.Agent })
		known := slices.ContainsFunc(next.Failed, func(k documents.Failure) bool { return k.Agent == x.Agent })
		if x.Version == f.Version && owns && !known {
			x.Error = strings.ToValidUTF8(x.Error[:min(len(x.Error), maxReason)], "")
			next.Failed = append(next.Failed, x)
		}
	}
	for i := range next.Owners {
		switch o := &next.Owners[i]; {
		case o.Leaving():
			if !d.Has(f.Name, o.From) {
				*o = documents.Owner{}
			}
		case o.From != "" && d.Runs(f.Name, o.Agent):
			o.From, o.FromEpoch = "", 0
		}
	}
	return next
}

// Tell writes what the agents of a hub that does not lead have said to it, and the leader waits for: that they have taken a
// document over, that they have stopped, or that it has failed there.
func Tell(ctx context.Context, o Options) {
	list, _ := o.Documents.Floating()
	if len(list) == 0 {
		return
	}
	failures := o.Documents.Failures()
	for i := range list {
		f := &list[i]
		next := heard(o.Documents, f, failures[f.Name])
		if next.Equal(f.Owners) {
			continue
		}
		if err := o.Documents.Place(ctx, f.Name, f.Owners, next); err != nil && !errors.Is(err, state.ErrConflict) && ctx.Err() == nil {
			o.Log.Warn("what agents say of a document is not written yet; will try again", "document", f.Name, "error", err)
		}
	}
}

// begin takes in what is known of a document.
func (p *Placer) begin(f *documents.Floating, failures []documents.Failure, now time.Time) task {
	t := task{Floating: f, next: heard(p.Documents, f, failures), bar: make(map[string]bool)}
	t.next.Exclusive = f.Exclusive
	for _, x := range t.next.Failed {
		t.bar[x.Agent] = true
	}
	for i := range t.next.Owners {
		switch o := &t.next.Owners[i]; {
		case o.Leaving() && (!f.Exclusive || p.stopped(o.From, now)):
			*o = documents.Owner{}
		case o.Leaving():
			t.bar[o.From] = true
		case o.From != "" && (now.Sub(o.Since) >= patience || p.lost(o.From)):
			o.From, o.FromEpoch = "", 0
		}
	}
	return t
}

// snapshot is what placement decides by.
func (p *Placer) snapshot(agents []placement.Agent, tasks []task, now time.Time) *placement.Snapshot {
	s := &placement.Snapshot{Agents: agents}
	eligible := make(map[string]func(a *placement.Agent) bool)
	for i := range tasks {
		t := &tasks[i]
		x := placement.Task{ID: t.Name, Selector: t.Group, Replicas: t.Count, Spread: t.Spread, Priority: t.Priority, Exclusive: t.Exclusive}
		for _, o := range t.next.Owners {
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
		for len(next.Owners) <= m.Slot {
			next.Owners = append(next.Owners, documents.Owner{})
		}
		p.move(t, &next.Owners[m.Slot], m, now)
	}
	for n := len(next.Owners); n > t.Count && next.Owners[n-1] == (documents.Owner{}); n-- {
		next.Owners = next.Owners[:n-1]
	}
	next.Missing, next.Parked = "", false
	for _, u := range of(plan.Unplaced, t.Name, func(u placement.Unplaced) string { return u.Task }) {
		switch n := len(next.Failed); {
		case n >= parkAfter || n > 0 && u.Reason != placement.NoRoom:
			last := next.Failed[n-1]
			next.Parked = true
			next.Missing = fmt.Sprintf("version %d has failed on %d agents, and waits for another version now; the last one was %s: %s", last.Version, n, last.Agent, cmp.Or(last.Error, "it did not say why"))
		case why != "":
			next.Missing = why
		default:
			next.Missing = missing(u, t.Count)
		}
	}
}

// move does what a plan says of a place.
func (p *Placer) move(t *task, o *documents.Owner, m placement.Move, now time.Time) {
	was := *o
	switch {
	case t.Exclusive && m.From != "" && !p.stopped(m.From, now):
		if o.Leaving() {
			return
		}
		*o = documents.Owner{From: was.Agent, FromEpoch: was.Epoch, Since: now.UTC()}
		p.Log.Info("an agent is to let go of a place of a document, and nobody has it before it has", "document", t.Name, "place", m.Slot+1, "agent", m.From, "epoch", was.Epoch, "why", m.Reason)
		return
	case m.To == "":
		*o = documents.Owner{}
	default:
		if t.next.Epoch == 0 {
			t.next.Epoch = t.Revision
		}
		t.next.Epoch++
		*o = documents.Owner{Agent: m.To, Epoch: t.next.Epoch, Since: now.UTC()}
		if m.Handover {
			o.From, o.FromEpoch = was.Agent, was.Epoch
		}
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

// A place is one of a document on an agent.
type place struct {
	document string
	epoch    int64
}

// confirmed notes that hubs give leases to owners of an exclusive document, though this one may not have heard of them yet.
func (p *Placer) confirmed(f *documents.Floating, now time.Time) {
	for _, o := range f.Owners.Owners {
		if at := (place{f.Name, o.Epoch}); f.Exclusive && o.Agent != "" && p.counts[at] < o.Confirmed {
			p.counts[at] = o.Confirmed
			if until := now.Add(p.longest()); until.After(p.leased[o.Agent]) {
				p.leased[o.Agent] = until
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
