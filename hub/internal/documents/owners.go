package documents

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/expr"
	"github.com/creelhq/creel/hub/internal/state"
)

// placementsPrefix is where it is kept on which agents a document is that is to be on some only: placements/<name>.
const placementsPrefix = "placements/"

// AgentLabel is the label that every agent has for selectors: its id.
const AgentLabel = "creel.agent.id"

// An Owner is an agent on which a document is placed.
type Owner struct {
	Agent string    `json:"agent,omitempty"` // "": nobody
	Epoch int64     `json:"epoch,omitempty"` // grows with every placing of the document on an agent
	Since time.Time `json:"since,omitzero"`  // by the clock of the hub that has placed it
	From  string    `json:"from,omitempty"`  // the agent that had it before, which goes on until this one runs it; "": none does
}

// Owners says where a document is placed. It is immutable.
type Owners struct {
	Owners  []Owner `json:"owners"`            // by place
	Epoch   int64   `json:"epoch"`             // the last that was given
	Missing string  `json:"missing,omitempty"` // why it is on fewer agents than it is to be

	revision int64 // of the control state; 0: it is placed nowhere
}

func (o Owners) has(agent string) bool {
	return agent != "" && slices.ContainsFunc(o.Owners, func(x Owner) bool { return x.Agent == agent || x.From == agent })
}

// A Floating document is one that is to be on some of the agents that it selects.
type Floating struct {
	Name     string
	Count    int    // on how many
	Spread   string // a label over whose values these are spread; "": none
	Priority int    // from 0 to 9
	Owners   Owners // where it is

	Group   string                              // the same for documents that select the same agents
	Selects func(labels map[string]string) bool // whether an agent with these labels, AgentLabel among them, may be one of them
}

// Runs reports whether an agent says that it runs the newest version of a document.
func (s *Store) Runs(name, agent string) bool {
	set, all := s.Current(), s.o.Agents()
	d := slices.IndexFunc(set.docs, func(d *document) bool { return d.name == name })
	x := slices.IndexFunc(all, func(x Agent) bool { return x.ID == agent })
	return d >= 0 && x >= 0 && all[x].placed(set.docs[d]).Status == running
}

// Floating returns the documents that are to be on some agents, by name, and the names of those that are placed and are not any
// more, or on all agents now.
func (s *Store) Floating() (list []Floating, gone []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(s.docs)) {
		if d := s.docs[name]; d.content != nil && d.content.count > 0 {
			list = append(list, Floating{
				Name: name, Count: d.content.count, Spread: d.content.spread, Priority: d.content.priority, Owners: s.owners[name],
				Group: d.content.group(), Selects: d.content.selects,
			})
		}
	}
	for name, o := range s.owners {
		if d := s.docs[name]; o.revision > 0 && (d == nil || d.err == nil && (d.Deleted || d.content.count == 0)) {
			gone = append(gone, name)
		}
	}
	slices.Sort(gone)
	return list, gone
}

// Tasks returns the places of floating documents, by name of the document, as far as this hub has heard. Of an owner outside
// within is only said that there is one.
func (s *Store) Tasks(within expr.Selector) api.TaskList {
	l, all := api.TaskList{Tasks: []api.Task{}}, s.o.Agents()
	known := make(map[string]*Agent, len(all))
	for i := range all {
		known[all[i].ID] = &all[i]
	}
	visible := s.agents(within)
	for _, d := range s.Current().docs {
		if d.content == nil || d.content.count == 0 || !d.readable(within, visible) {
			continue
		}
		for i := range max(d.content.count, len(d.owners.Owners)) {
			t := api.Task{Document: d.name, Version: d.Version, Place: d.content.count, Priority: d.content.priority, Status: unplaced, Error: d.owners.Missing}
			if i < len(d.owners.Owners) && d.owners.Owners[i].Agent != "" {
				d.task(&t, d.owners.Owners[i], known, within)
			}
			l.Tasks = append(l.Tasks, t)
		}
	}
	return l
}

// task completes t, which is placed on an owner.
func (d *document) task(t *api.Task, o Owner, known map[string]*Agent, within expr.Selector) {
	t.Epoch, t.Since, t.Status, t.Error = o.Epoch, o.Since, waiting, ""
	x := known[o.Agent]
	if x == nil {
		if within.IsZero() {
			t.Agent = o.Agent
		}
		return
	}
	if slices.ContainsFunc(x.Placement.docs, func(other *document) bool { return other.name == d.name }) {
		p := x.placed(d)
		t.Status, t.Error = p.Status, p.Error
	}
	if within.Match(x.Labels) {
		t.Agent, t.Name = x.ID, x.Name
	}
}

// Place writes where a document is, if that is still as it was in was. The error is state.ErrConflict if it is not.
func (s *Store) Place(ctx context.Context, name string, was, next Owners) error {
	value, err := json.Marshal(next)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	_, err = s.o.Store.Put(ctx, placementsPrefix+name, value, false, state.Unchanged(was.revision))
	return err
}

// Forget deletes where a document was that is not placed any more.
func (s *Store) Forget(ctx context.Context, name string) error {
	s.mu.Lock()
	was := s.owners[name]
	s.mu.Unlock()
	err := s.o.Store.Delete(ctx, placementsPrefix+name, state.Unchanged(was.revision))
	if errors.Is(err, state.ErrConflict) {
		return nil // it is there again, or gone already
	}
	return err
}

// allOwned takes in where all documents are placed as of a revision.
func (s *Store) allOwned(list []state.Entry, revision int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.owners, func(_ string, o Owners) bool { return o.revision <= revision })
	for _, e := range list {
		s.own(e)
	}
	s.renew()
}

// oneOwned takes in a change of where a document is.
func (s *Store) oneOwned(e state.Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.own(e)
	s.renew()
}

func (s *Store) own(e state.Entry) {
	name := strings.TrimPrefix(e.Key, placementsPrefix)
	if e.Value == nil {
		delete(s.owners, name)
		return
	}
	var o Owners
	if err := json.Unmarshal(e.Value, &o); err != nil {
		s.o.Log.Error("where a document is placed cannot be read: it is placed anew", "document", name, "error", err)
		o = Owners{}
	}
	o.revision = e.Revision
	s.owners[name] = o
}
