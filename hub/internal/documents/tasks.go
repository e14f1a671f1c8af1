package documents

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/expr"
	"github.com/creelhq/creel/hub/internal/state"
)

// This file is documents that are on some agents, as people see them and what they ask for.

// Tasks returns the places of floating documents, by name of the document, as far as this hub has heard. Of an owner outside
// within is only said that there is one.
func (s *Store) Tasks(within expr.Selector) api.TaskList {
	l, v := api.TaskList{Tasks: []api.Task{}}, s.view(within)
	for _, d := range s.Current().docs {
		if d.floats() && d.readable(within, v.agents) {
			l.Tasks = append(l.Tasks, v.tasks(d)...)
		}
	}
	return l
}

// floats reports whether d is to be on some agents.
func (d *document) floats() bool { return d.content != nil && d.content.count > 0 }

// Task returns all of one floating document, as Tasks.
func (s *Store) Task(ctx context.Context, within expr.Selector, name string) (api.TaskDetail, error) {
	d, err := s.floating(ctx, within, name)
	if err != nil {
		return api.TaskDetail{}, err
	}
	v := s.view(within)
	t := api.TaskDetail{
		Document: name, Version: d.Version, Selector: d.Selector, Place: d.content.count, Spread: d.content.spread, Priority: d.content.priority,
		Cost: cmp.Or(d.content.cost, 1), Once: d.content.once, Exclusive: d.content.never, Waits: d.owners.Missing, Parked: d.owners.Parked,
		Tasks: v.tasks(d), Failed: []api.TaskFailure{}, History: []api.TaskEvent{},
	}
	if d.cancelled() {
		t.Waits = d.owners.Ended.text()
	}
	for _, f := range d.owners.Failed {
		if f.Version == d.Version {
			id, name := v.agent(f.Agent)
			t.Failed = append(t.Failed, api.TaskFailure{Agent: id, Name: name, Version: f.Version, Error: f.Error})
		}
	}
	for _, e := range slices.Backward(d.owners.History) {
		one := api.TaskEvent{Time: e.Time, What: e.What, Place: e.Place, Epoch: e.Epoch, Why: e.Why}
		one.From, _ = v.agent(e.From)
		one.To, _ = v.agent(e.To)
		t.History = append(t.History, one)
	}
	return t, nil
}

// floating returns a document that is to be on some agents, if there is one that may be seen.
func (s *Store) floating(ctx context.Context, within expr.Selector, name string) (*document, error) {
	d, err := s.newest(ctx, name)
	switch {
	case err != nil:
		return nil, err
	case d.Version == 0 || !d.readable(within, s.agents(within)):
		return nil, unknown(name)
	case d.Deleted:
		return nil, deleted(name, &d.record)
	case d.err != nil:
		return nil, d.err
	case !d.floats():
		return nil, &api.Error{Code: "bad_request", Message: fmt.Sprintf("document %s is no task: it is on all agents that it selects; creel describe document %s tells how it is there", name, name)}
	}
	placed := *d
	s.mu.Lock()
	placed.owners = s.owners[name]
	s.mu.Unlock()
	return &placed, nil
}

// cancelled reports whether d was, as it is now.
func (d *document) cancelled() bool { return d.owners.Ended.Version == d.Version }

func (e Ended) text() string {
	text := fmt.Sprintf("cancelled by %s at %s", cmp.Or(e.By, "somebody"), e.Time.Format(time.DateTime+"Z"))
	if e.Cause != "" {
		text += ": " + e.Cause
	}
	return text
}

// A view is the agents as somebody sees them.
type view struct {
	within expr.Selector
	agents []Agent // that they see
	known  map[string]*Agent
}

func (s *Store) view(within expr.Selector) view {
	all := s.o.Agents()
	v := view{within, s.agents(within), make(map[string]*Agent, len(all))}
	for i := range all {
		v.known[all[i].ID] = &all[i]
	}
	return v
}

// agent returns the id and the name of an agent, as far as they may be seen.
func (v view) agent(of string) (id, name string) {
	switch x := v.known[of]; {
	case x == nil && v.within.IsZero():
		return of, ""
	case x == nil || !v.within.Match(x.Labels):
		return "", ""
	default:
		return x.ID, x.Name
	}
}

// tasks returns d's places.
func (v view) tasks(d *document) (list []api.Task) {
	for i := range max(d.content.count, len(d.owners.Owners)) {
		t := api.Task{Document: d.name, Version: d.Version, Place: d.content.count, Priority: d.content.priority, Status: unplaced, Error: d.owners.Missing}
		var o Owner
		if i < len(d.owners.Owners) {
			o = d.owners.Owners[i]
		}
		switch {
		case o.Done.Version == d.Version:
			t.Status, t.Error, t.Epoch, t.Since = done, "", o.Done.Epoch, o.Done.Time
			t.Agent, t.Name = v.agent(o.Done.Agent)
		case o.Agent != "":
			v.owned(&t, d, o)
		case o.Leaving():
			t.Error = fmt.Sprintf("the agent that had it has been asked to stop at %s and has not said that it has", o.Since.Format(time.TimeOnly+"Z"))
		case d.cancelled():
			t.Status, t.Error = cancelled, d.owners.Ended.text()
		case d.owners.Parked:
			t.Status = parked
		}
		list = append(list, t)
	}
	return list
}

// owned completes t, which is placed on an owner.
func (v view) owned(t *api.Task, d *document, o Owner) {
	t.Epoch, t.Since, t.Status, t.Error, t.Measured = o.Epoch, o.Since, waiting, "", o.Measured
	t.Agent, t.Name = v.agent(o.Agent)
	if x := v.known[o.Agent]; x != nil && x.Placement.has(d.name) {
		p := x.placed(d)
		if t.Status, t.Error = p.Status, p.Error; t.Status == done { // it is when that is written
			t.Status = running
		}
	}
}

// Cancel ends a version of a document that is to be done once: what is not done is taken from its agents, and nobody gets it before
// it is retried or there is another version. Of one that goes on, the rounds under way are given up. by and within are as for Apply.
func (s *Store) Cancel(ctx context.Context, by string, within expr.Selector, name, cause string) error {
	return s.ask(ctx, within, name, func(d *document, next *Owners, now time.Time) error {
		e := Event{Time: now, What: Cancelled, Why: because(by, cause)}
		switch left := next.left(d); {
		case !d.content.once:
			next.Asked.Cancel++
		case left == 0:
			return &api.Error{Code: "conflict", Message: fmt.Sprintf("document %s is done: there is nothing to cancel", name)}
		case d.cancelled():
			return &api.Error{Code: "conflict", Message: fmt.Sprintf("document %s was %s", name, next.Ended.text())}
		default:
			next.Ended = Ended{By: clip(by), Cause: clip(cause), Version: d.Version, Time: now}
		}
		next.Note(e)
		return nil
	})
}

// Retry forgets where a document has failed, what of it is done, and that it was cancelled: it is placed anew. by and within are as
// for Apply.
func (s *Store) Retry(ctx context.Context, by string, within expr.Selector, name, cause string) error {
	return s.ask(ctx, within, name, func(d *document, next *Owners, now time.Time) error {
		if !next.rest(d) && len(next.Failed) == 0 && !next.Parked {
			return &api.Error{Code: "conflict", Message: fmt.Sprintf("document %s has not failed, and is neither done nor cancelled: there is nothing to retry", name)}
		}
		next.again()
		next.Note(Event{Time: now, What: Retried, Why: because(by, cause)})
		return nil
	})
}

// Run asks for a round of a document now: of all agents that have it; one that is to be done once, and is, is done again. by and
// within are as for Apply.
func (s *Store) Run(ctx context.Context, by string, within expr.Selector, name, cause string) error {
	return s.ask(ctx, within, name, func(d *document, next *Owners, now time.Time) error {
		switch left := next.left(d); {
		case d.content.once && (left == 0 || d.cancelled() || next.Parked):
			next.again()
		case d.content.once:
			return &api.Error{Code: "conflict", Message: fmt.Sprintf("document %s is to be done once, and %d of its places are not done yet", name, left)}
		case !slices.ContainsFunc(next.Owners, func(o Owner) bool { return o.Agent != "" }):
			return &api.Error{Code: "conflict", Message: fmt.Sprintf("document %s is on no agent that could run it: %s", name, cmp.Or(next.Missing, "it is not placed yet"))}
		default:
			next.Asked.Run++
		}
		next.Note(Event{Time: now, What: Run, Why: because(by, cause)})
		return nil
	})
}

func because(by, cause string) string {
	if cause == "" {
		return "by " + by
	}
	return "by " + by + ": " + cause
}

// left is how many places of d are not done.
func (o *Owners) left(d *document) int {
	n := d.content.count
	for _, x := range o.Owners {
		if x.Done.Version == d.Version {
			n--
		}
	}
	return n
}

// rest reports whether something of d is done or cancelled.
func (o *Owners) rest(d *document) bool {
	return o.Ended.Version == d.Version || o.left(d) < d.content.count
}

// again has all of d done anew that is done, was cancelled or has failed.
func (o *Owners) again() {
	o.Ended, o.Failed, o.Parked, o.Missing = Ended{}, nil, false, ""
	for i := range o.Owners {
		o.Owners[i].Done = Done{}
	}
}

// ask changes where a document is, as change says of its newest version.
func (s *Store) ask(ctx context.Context, within expr.Selector, name string, change func(d *document, next *Owners, now time.Time) error) error {
	for range tries {
		d, err := s.floating(ctx, within, name)
		if err == nil {
			err = s.owned(d, within)
		}
		if err == nil {
			d.owners, err = s.placement(ctx, name)
		}
		if err != nil {
			return err
		}
		next := d.owners
		next.Owners = slices.Clone(d.owners.Owners)
		if err := change(d, &next, time.Now().UTC()); err != nil {
			return err
		}
		err = s.Place(ctx, name, d.owners, next)
		switch {
		case errors.Is(err, state.ErrConflict):
			continue
		case err != nil:
			return away(err)
		}
		return nil
	}
	return busy(name)
}

// placement returns where a document is, as it is now.
func (s *Store) placement(ctx context.Context, name string) (o Owners, err error) {
	e, err := s.o.Store.Get(ctx, placementsPrefix+name)
	switch {
	case errors.Is(err, state.ErrNotFound):
		return o, nil
	case err != nil:
		return o, away(err)
	}
	if err := json.Unmarshal(e.Value, &o); err != nil {
		return o, fmt.Errorf("read where document %s is placed: %w", name, err)
	}
	o.revision = e.Revision
	return o, nil
}
