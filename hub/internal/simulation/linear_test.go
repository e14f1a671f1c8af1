package simulation

import (
	"fmt"
	"slices"

	"github.com/anishathalye/porcupine"

	"github.com/creelhq/creel/hub/internal/documents"
)

// This file asks porcupine, a checker of linearizability that knows nothing of what is simulated, about the same histories.

// step is an operation on a place: an epoch begins, or a result of one is taken.
type step struct {
	begins bool
	epoch  int64
}

// register is a place that only must have one owner at a time: what is taken was made as if by one worker after the other, in the
// order of their epochs.
var register = porcupine.Model{
	Init: func() any { return int64(0) },
	Step: func(state, input, _ any) (bool, any) {
		now, s := state.(int64), input.(step)
		if s.begins {
			return s.epoch > now, s.epoch
		}
		return s.epoch == now, now
	},
}

// fence is what one hub knows of a place: it takes nothing of an epoch below the last one that it has heard of, or below that of
// an owner that still hands over.
var fence = porcupine.Model{
	Init: func() any { return int64(0) },
	Step: func(state, input, _ any) (bool, any) {
		least, s := state.(int64), input.(step)
		if s.begins {
			return true, max(least, s.epoch)
		}
		return s.epoch >= least, least
	},
}

// linear returns which places have a history that is none of these.
func linear(h *History) (wrong []string) {
	for p, list := range h.registers() {
		if !porcupine.CheckOperations(register, list) {
			wrong = append(wrong, fmt.Sprintf("what was taken for %v was not made by one worker after the other: its history is not linearizable", p))
		}
	}
	for p, list := range h.fences() {
		if !porcupine.CheckOperations(fence, list) {
			wrong = append(wrong, fmt.Sprintf("hub %d has taken for %v what it knew to be over: its history is not linearizable", p.hub, p.place))
		}
	}
	slices.Sort(wrong)
	return wrong
}

// registers returns the operations on exclusive places. An epoch begins between being written and the first work in it; a result that
// was taken was made at a moment.
func (h *History) registers() map[place][]porcupine.Operation {
	all := make(map[place][]porcupine.Operation)
	written := make(map[place]map[int64]Event)
	for _, e := range h.Events {
		p := place{e.Document, e.Place}
		if e.Document < 0 || !h.Never[e.Document] || e.Agent < 0 || h.doubled(e.Agent) {
			continue
		}
		switch e.Kind {
		case Placed:
			if written[p] == nil {
				written[p] = make(map[int64]Event)
			}
			written[p][e.Epoch] = e
		case Began:
			if w, first := written[p][e.Epoch]; first {
				delete(written[p], e.Epoch)
				all[p] = append(all[p], porcupine.Operation{ClientId: e.Agent, Input: step{true, e.Epoch}, Call: int64(w.At), Return: int64(e.At)})
			}
		case Accepted:
			all[p] = append(all[p], porcupine.Operation{ClientId: e.Agent, Input: step{false, e.Epoch}, Call: int64(e.Begun), Return: int64(e.Begun)})
		}
	}
	return all
}

type hubPlace struct {
	place
	hub int
}

// fences returns what each hub has heard of and taken, in the order in which it did; without what came late of an epoch that has ended as
// it should: registers says that it was made in time.
func (h *History) fences() map[hubPlace][]porcupine.Operation {
	all := make(map[hubPlace][]porcupine.Operation)
	add := func(p hubPlace, at int, s step) {
		all[p] = append(all[p], porcupine.Operation{ClientId: p.hub, Input: s, Call: int64(at), Return: int64(at)})
	}
	views := make(map[hubPlace]*documents.Owners)
	for i, e := range h.Events {
		switch e.Kind {
		case Accepted:
			if past(views[hubPlace{place{e.Document, 0}, e.Hub}], &e) {
				continue
			}
			add(hubPlace{place{e.Document, e.Place}, e.Hub}, i, step{false, e.Epoch})
		case Applied:
			views[hubPlace{place{e.Document, 0}, e.Hub}] = e.Owners
			for n, o := range e.Owners.Owners {
				epoch := o.Epoch
				if o.From != "" {
					epoch = o.FromEpoch
				}
				add(hubPlace{place{e.Document, n}, e.Hub}, i, step{true, epoch})
			}
		}
	}
	return all
}
