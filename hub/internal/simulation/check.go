package simulation

import (
	"fmt"
	"slices"
	"time"

	"github.com/creelhq/creel/hub/internal/documents"
)

// Check returns what must not have happened, nil if all is well.
func (h *History) Check() (wrong []string) {
	for _, check := range []func() []string{h.overlaps, h.stale, h.epochs, h.gaps, h.unsettled} {
		wrong = append(wrong, check()...)
	}
	return wrong
}

// place is one of a document.
type place struct{ document, place int }

// overlaps: no two agents are working on the same place of a document that must not be worked on by two, at any moment. An agent
// of which there were two processes with one identity is left out: nobody can tell what only one of them has said.
func (h *History) overlaps() (wrong []string) {
	at := make(map[place]map[int]int64) // agents and their epochs
	for _, e := range h.Events {
		if e.Kind != Began && e.Kind != Ended || !h.Never[e.Document] || h.doubled(e.Agent) {
			continue
		}
		p := place{e.Document, e.Place}
		if e.Kind == Ended {
			delete(at[p], e.Agent)
			continue
		}
		if at[p] == nil {
			at[p] = make(map[int]int64)
		}
		for other, epoch := range at[p] {
			if other != e.Agent {
				wrong = append(wrong, fmt.Sprintf("%v: agents %d (epoch %d) and %d (epoch %d) work on %v", e.At, other, epoch, e.Agent, e.Epoch, p))
			}
		}
		at[p][e.Agent] = e.Epoch
	}
	return wrong
}

// doubled reports whether there was another process with an agent's identity.
func (h *History) doubled(agent int) bool {
	id := h.IDs[agent]
	return slices.Index(h.IDs, id) != agent || slices.Contains(h.IDs[agent+1:], id)
}

// stale: a hub that has heard of a placing takes no result of an epoch that is over by that, and refuses none of one that is not.
func (h *History) stale() (wrong []string) {
	type view struct{ hub, document int }
	views := make(map[view]*Event)
	for i := range h.Events {
		e := &h.Events[i]
		v := view{e.Hub, e.Document}
		switch e.Kind {
		case Applied:
			views[v] = e
		case Accepted, Refused:
			current, known := false, views[v]
			if known == nil {
				continue
			}
			for _, o := range known.Owners.Owners {
				current = current || o.Agent != "" && o.Epoch == e.Epoch || o.From != "" && o.FromEpoch == e.Epoch
			}
			current = current || past(known.Owners, e)
			if over := e.Epoch <= known.Owners.Epoch && !current; over == (e.Kind == Accepted) {
				wrong = append(wrong, fmt.Sprintf("%v: hub %d, which knows of %+v, has judged wrong of epoch %d of agent %d", e.At, e.Hub, known.Owners, e.Epoch, e.Agent))
			}
		}
	}
	return wrong
}

// past reports whether the epoch of a result has ended as it should, and not long ago.
func past(o *documents.Owners, e *Event) bool {
	return o != nil && slices.ContainsFunc(o.Past, func(p documents.Past) bool { return p.Epoch == e.Epoch && e.Clock.Before(p.Until) })
}

// late counts the results that were taken though their epoch was over.
func (h *History) late() (n int) {
	type view struct{ hub, document int }
	views := make(map[view]*documents.Owners)
	for i := range h.Events {
		switch e := &h.Events[i]; {
		case e.Kind == Applied:
			views[view{e.Hub, e.Document}] = e.Owners
		case e.Kind == Accepted && past(views[view{e.Hub, e.Document}], e):
			n++
		}
	}
	return n
}

// epochs: no two placings of a document have the same epoch, and later ones have higher ones.
func (h *History) epochs() (wrong []string) {
	last := make(map[int]int64)
	for i, e := range h.Events {
		if e.Kind != Placed || e.Agent < 0 {
			continue
		}
		together := i > 0 && h.Events[i-1].Kind == Placed && h.Events[i-1].At == e.At && h.Events[i-1].Document == e.Document
		if e.Epoch <= last[e.Document] && !together {
			wrong = append(wrong, fmt.Sprintf("%v: epoch %d of document %d comes after %d", e.At, e.Epoch, e.Document, last[e.Document]))
		}
		last[e.Document] = max(last[e.Document], e.Epoch)
	}
	return wrong
}

// unsettled: when all has been well for long, each place has one owner, which works on it and nobody else, and nothing moves.
func (h *History) unsettled() (wrong []string) {
	owned := make(map[int]int)
	for _, f := range h.Final {
		if f.Owner >= 0 {
			owned[f.Document]++
			if !slices.Equal(f.Workers, []int{f.Owner}) {
				wrong = append(wrong, fmt.Sprintf("at the end agents %v work on %+v", f.Workers, f))
			}
		} else if len(f.Workers) > 0 {
			wrong = append(wrong, fmt.Sprintf("at the end agents %v work on %+v, which nobody owns", f.Workers, f))
		}
	}
	for _, f := range h.Final {
		if f.Place == 0 && owned[f.Document] != min(f.Able, h.Places[f.Document]) {
			wrong = append(wrong, fmt.Sprintf("at the end %d places of document %d have owners; %d agents could be, of %d", owned[f.Document], f.Document, f.Able, h.Places[f.Document]))
		}
	}
	for _, e := range h.Events {
		if e.Kind == Placed && e.At > h.End-quiet+quiet/10 {
			wrong = append(wrong, fmt.Sprintf("%v: place %d of document %d still moves, to agent %d", e.At, e.Place, e.Document, e.Agent))
		}
	}
	return wrong
}

// How long a place may be without work, as far as it can be told why.
const (
	usual    = 4 * time.Second  // an interval, an offer's way, and its application
	again    = 5 * time.Second  // what got lost, or met a conflict, is tried again
	broke    = 1 * time.Second  // a broken connection
	silent   = 16 * time.Second // three heartbeats, by a clock that is slow
	election = 10 * time.Second // the lease of a hub that led, and attempts of the next
	vanished = 5*time.Second + silent
	freeze   = 2 * time.Minute
)

// allowance is how long a place may be without work because of a fault, and whether for as long as that lasts as well.
func (f Fault) allowance() (d time.Duration, lasts bool) {
	switch f {
	case AgentKilled, AgentReset, AgentHeld, AgentMoved:
		return broke, false
	case AgentCrashed, AgentPaused:
		return silent, false
	case AgentCut, AgentFlaps, AgentTwin:
		return silent + 10*time.Second, true
	case AllLost:
		return silent + freeze, true
	case HubCut: // its agents stay with it, and hear of nothing through it
		return election + vanished, true
	case HubKilled, HubCrashed, HubPaused, LeaderKilled, LeaderPaused:
		return election + vanished, false
	case StoreAway:
		return election + vanished, true
	case HubLags, AnswersLost:
		return 24 * time.Second, true
	}
	return usual, false
}

// Gap is a time in which nothing that was taken was made for a place.
type Gap struct {
	Document, Place int
	From, To        time.Duration
	Allowed         time.Duration
	Because         []Strike
}

// gaps: where two may work on a place, it is never without longer than the faults explain.
func (h *History) gaps() (wrong []string) {
	for _, g := range h.Gaps() {
		if g.To-g.From > g.Allowed {
			wrong = append(wrong, fmt.Sprintf("%v to %v: nothing was made for place %d of document %d, for %v; %v are explained by %+v", g.From, g.To, g.Place, g.Document, g.To-g.From, g.Allowed, g.Because))
		}
	}
	return wrong
}

// Gaps returns where work on places of documents, on which two may work, was interrupted.
func (h *History) Gaps() (list []Gap) {
	made := make(map[place][]time.Duration)
	wanted := make(map[place]time.Duration) // since when
	for _, e := range h.Events {
		p := place{e.Document, e.Place}
		switch {
		case e.Kind == Written:
			for n := range maxPlaces {
				p.place = n
				if _, already := wanted[p]; n >= e.Place && already {
					list = append(list, h.gapsOf(p, wanted[p], e.At, made[p])...)
					delete(wanted, p)
				} else if n < e.Place && !already {
					wanted[p] = e.At
					made[p] = nil
				}
			}
		case e.Kind == Accepted && !h.Never[e.Document]:
			made[p] = append(made[p], e.Begun)
		}
	}
	for d, n := range h.Places {
		for i := range n {
			p := place{d, i}
			list = append(list, h.gapsOf(p, wanted[p], h.End-keepsFor, made[p])...)
		}
	}
	return list
}

const (
	maxPlaces = 8
	keepsFor  = 10 * time.Second // what was made at the end is under way
)

func (h *History) gapsOf(p place, from, to time.Duration, made []time.Duration) (list []Gap) {
	if h.Never[p.document] {
		return nil
	}
	slices.Sort(made)
	last := from
	for _, at := range append(slices.Clip(made), to) {
		if at = min(at, to); at-last > 1200*time.Millisecond {
			if g := h.gap(p, last, at); g.Allowed >= 0 {
				list = append(list, g)
			}
		}
		last = max(last, at)
	}
	return list
}

// gap explains a gap. It is allowed for -1 where there may have been too few agents.
func (h *History) gap(p place, from, to time.Duration) Gap {
	g := Gap{Document: p.document, Place: p.place, From: from, To: to, Allowed: usual + again}
	if from < 20*time.Second {
		g.Allowed += 20 * time.Second // it begins
	}
	struck := make(map[int]bool)
	for _, s := range h.Strikes {
		if s.From > to || s.To+vanished+election < from {
			continue
		}
		g.Because = append(g.Because, s)
		d, lasts := s.Fault.allowance()
		g.Allowed += d
		if lasts || h.Hubs == 1 && s.Hub >= 0 {
			g.Allowed += max(min(s.To, to)-max(s.From, from), 0)
		}
		if s.Agent >= 0 {
			struck[s.Agent] = true
		}
	}
	if h.Able[p.document]-len(struck) < h.Most[p.document] {
		g.Allowed = -1
	}
	return g
}
