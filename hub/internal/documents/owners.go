package documents

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/creelhq/creel/hub/internal/state"
	"github.com/creelhq/creel/report"
)

// placementsPrefix is where it is kept on which agents a document is that is to be on some only: placements/<name>.
const placementsPrefix = "placements/"

// AgentLabel is the label that every agent has for selectors: its id.
const AgentLabel = "creel.agent.id"

// An Owner is who has a place of a document.
type Owner struct {
	Agent string    `json:"agent,omitempty"` // "": nobody
	Epoch int64     `json:"epoch,omitempty"` // grows with every placing of the document on an agent
	Since time.Time `json:"since,omitzero"`  // by the clock of the hub that has placed it

	// From is the agent that had the place before, "": none that matters. It goes on until Agent runs the document; but if Agent
	// is nobody it is to stop, and may not have yet: nobody else may get the place before.
	From      string `json:"from,omitempty"`
	FromEpoch int64  `json:"from_epoch,omitempty"` // From's

	// Done is that the place needs nobody any more: a round was done, of a document that is to be done once.
	Done Done `json:"done,omitzero"`

	// Session is the revision of Agent's entry in the control state that says at which hub it is, when that hub made sure last that an
	// exclusive place is still Agent's, before it gave that a lease; From's, while Agent is nobody.
	Session int64 `json:"session,omitempty"`

	// Measured is the share of a slot that the document takes at Agent, as that has said last, or, until it has, at who had the place
	// before; 0: nobody has. It is written anew when it has doubled or halved.
	Measured float64 `json:"measured,omitempty"`

	// Cursor is what collectors of whoever has, or had, the place have saved, as control.EncodeCursors writes it, and Saved when that was
	// written here: now and then while it goes on, and when the agent is lost or has let go. Given is what Agent was given when it got the
	// place, to go on from there.
	Cursor string    `json:"cursor,omitempty"`
	Saved  time.Time `json:"saved,omitzero"`
	Given  string    `json:"given,omitempty"`
}

// A Cursor is what collectors of a document have saved at an agent, by their paths.
type Cursor struct {
	Epoch int64
	Of    map[string][]byte
	There bool // the agent is connected to this hub
}

// Leaving reports whether the place cannot be given to anybody before From has stopped.
func (o Owner) Leaving() bool { return o.Agent == "" && o.From != "" }

// Place returns what there is to say of the place whoever has it: what it costs, and how far it has come.
func (o Owner) Place() Owner { return Owner{Measured: o.Measured, Cursor: o.Cursor, Saved: o.Saved} }

// Void reports whether nobody has the place, or is to let go of it, and nothing was done there.
func (o Owner) Void() bool { return o == o.Place() }

// Free takes the place from whoever has it, or has to let go of it. That it is done stays.
func (o *Owner) Free() {
	done := o.Done
	*o = o.Place()
	o.Done = done
}

// A Failure is that a version of a document could not be made to run on an agent, or that its one round failed there.
type Failure struct {
	Agent   string `json:"agent"`
	Version int64  `json:"version"`
	Error   string `json:"error,omitempty"`
}

// Owners says where a document is placed. It is immutable.
type Owners struct {
	Owners    []Owner   `json:"owners"`              // by place
	Epoch     int64     `json:"epoch"`               // the last that was given
	Missing   string    `json:"missing,omitempty"`   // why it is on fewer agents than it is to be
	Parked    bool      `json:"parked,omitempty"`    // what is missing waits for another version
	Exclusive bool      `json:"exclusive,omitempty"` // as the document was when it was placed last
	Failed    []Failure `json:"failed,omitempty"`    // where the newest version has failed, each agent once
	Ended     Ended     `json:"ended,omitzero"`      // it was cancelled
	Asked     Asked     `json:"asked,omitzero"`      // of those who have it
	Past      []Past    `json:"past,omitempty"`      // epochs that have ended as they should, oldest first
	History   []Event   `json:"history,omitempty"`   // the last of what has become of it, oldest first

	revision int64 // of the control state; 0: it is placed nowhere
}

// A Past is an epoch that an agent was told to end, and has ended or was there to hear it. What it had collected by then may be on its
// way still, in a queue on its disk for one.
type Past struct {
	Epoch int64     `json:"epoch"`
	Until time.Time `json:"until"` // what was collected in it is taken
}

const (
	maxPast = 16        // epochs of a document that are kept
	late    = time.Hour // that what was collected may come after the end of its epoch
)

// End notes that an epoch has ended as it should. Only the newest stay.
func (o *Owners) End(epoch int64, now time.Time) {
	past := slices.DeleteFunc(slices.Clone(o.Past), func(p Past) bool { return p.Until.Before(now) })
	o.Past = append(past[max(0, len(past)-maxPast+1):], Past{epoch, now.Add(late).UTC()})
}

// Equal reports whether o and p say the same of where the document is, whatever came before.
func (o Owners) Equal(p Owners) bool {
	return o.Epoch == p.Epoch && o.Missing == p.Missing && o.Parked == p.Parked && o.Exclusive == p.Exclusive && o.Ended == p.Ended && o.Asked == p.Asked &&
		slices.Equal(o.Owners, p.Owners) && slices.Equal(o.Failed, p.Failed)
}

// of returns the epoch in which an agent has the document, and whether it has it.
func (o Owners) of(agent string) (epoch int64, has bool) {
	if agent == "" {
		return 0, false
	}
	for _, x := range o.Owners {
		switch {
		case x.Agent == agent:
			return x.Epoch, true
		case x.From == agent && x.Agent != "":
			epoch, has = x.FromEpoch, true
		}
	}
	return epoch, has
}

// given returns what an owner was given to go on from.
func (o Owners) given(epoch int64) string {
	for _, x := range o.Owners {
		if x.Agent != "" && x.Epoch == epoch {
			return x.Given
		}
	}
	return ""
}

// A Floating document is one that is to be on some of the agents that it selects.
type Floating struct {
	Name      string
	Version   int64
	Count     int     // on how many; 0: it is deleted, and to be forgotten when its owners have stopped
	Spread    string  // a label over whose values these are spread; "": none
	Priority  int     // from 0 to 9
	Exclusive bool    // no two agents may ever work on the same place
	Once      bool    // a place needs nobody any more when a round was done there
	Cost      float64 // of a place, in the unit of agents' capacity; 0: it says none, which is 1
	Owners    Owners  // where it is
	Revision  int64   // of the control state, the newest that this hub has heard of

	Group   string                              // the same for documents that select the same agents
	Selects func(labels map[string]string) bool // whether an agent with these labels, AgentLabel among them, may be one of them
}

// Runs reports whether an agent says that it runs the newest version of a document.
func (s *Store) Runs(name, agent string) bool {
	set, all := s.Current(), s.o.Agents()
	d := slices.IndexFunc(set.docs, func(d *document) bool { return d.name == name })
	x := slices.IndexFunc(all, func(x Agent) bool { return x.ID == agent })
	return d >= 0 && x >= 0 && slices.Contains([]string{running, done, failed}, all[x].placed(set.docs[d]).Status)
}

// Has reports whether an agent may still run a document that is not offered to it any more: it has not said, to this hub, that it
// does not.
func (s *Store) Has(name, agent string) bool {
	all := s.o.Agents()
	i := slices.IndexFunc(all, func(x Agent) bool { return x.ID == agent })
	if i < 0 {
		return true
	}
	x := &all[i]
	return !x.Settled || x.Placement.has(name) ||
		slices.ContainsFunc(x.Documents, func(r report.Document) bool { return r.Source == "hub" && r.Name == name })
}

// Failures returns, by document, on which agents the newest version of a floating document has failed, as these say to this hub.
func (s *Store) Failures() map[string][]Failure {
	list := make(map[string][]Failure)
	all := s.o.Agents()
	for i := range all {
		x := &all[i]
		for _, d := range x.Placement.docs {
			if d.content.count == 0 {
				continue
			}
			if p := x.placed(d); p.Status == refused || p.Status == rolledBack || p.Status == failed {
				list[d.name] = append(list[d.name], Failure{Agent: x.ID, Version: d.Version, Error: clip(p.Error)})
			}
		}
	}
	return list
}

// Floating returns the documents that are to be on some agents, by name, and the names of those that are placed and are not any
// more, or on all agents now. One that is deleted and exclusive is floating until its owners have stopped: it may be written
// anew. And where it was is not forgotten before the revision of the control state has passed its epochs, which are those of a
// new one's first then: none is given twice.
func (s *Store) Floating() (list []Floating, gone []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(s.docs)) {
		if d := s.docs[name]; d.content != nil && d.content.count > 0 {
			list = append(list, Floating{
				Name: name, Version: d.Version, Count: d.content.count, Spread: d.content.spread, Priority: d.content.priority, Exclusive: d.content.never, Once: d.content.once, Cost: d.content.cost,
				Owners: s.owners[name], Revision: s.heard, Group: d.content.group(), Selects: d.content.selects,
			})
		}
	}
	for name, o := range s.owners {
		d := s.docs[name]
		switch {
		case o.revision == 0 || d != nil && (d.err != nil || !d.Deleted && d.content.count > 0):
		case o.Exclusive && len(o.Owners) > 0 && (d == nil || d.Deleted):
			list = append(list, Floating{Name: name, Exclusive: true, Owners: o, Revision: s.heard, Selects: func(map[string]string) bool { return false }})
		case o.Epoch <= s.heard:
			gone = append(gone, name)
		}
	}
	slices.SortFunc(list, func(a, b Floating) int { return strings.Compare(a.Name, b.Name) })
	slices.Sort(gone)
	return list, gone
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

// Confirm makes sure that an agent still has exclusive documents in these epochs, by their names, and that whoever is about to give
// them to another hears of the agent's session first, which was written in a revision before: by a compare-and-swap, so that this hub's
// view may be old, and whoever leads may not have heard of the session yet. It is to be called before the agent is offered them, or is
// leased, in a session: it may have had none for long. The error is state.ErrConflict if it has not, or if others have written
// meanwhile; then Changed will tell.
func (s *Store) Confirm(ctx context.Context, agent string, session int64, epochs map[string]int64) error {
	for name, epoch := range epochs {
		s.mu.Lock()
		was := s.owners[name]
		s.mu.Unlock()
		if now, has := was.of(agent); !has || now != epoch {
			return state.ErrConflict
		}
		next := was
		next.Owners = slices.Clone(was.Owners)
		for i := range next.Owners {
			if next.Owners[i].Agent == agent {
				next.Owners[i].Session = session
			}
		}
		if err := s.Place(ctx, name, was, next); err != nil {
			return err
		}
	}
	return nil
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
	s.heard = max(s.heard, revision)
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
	s.heard = max(s.heard, e.Revision)
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
