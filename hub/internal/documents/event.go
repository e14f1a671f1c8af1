package documents

import (
	"slices"
	"strings"
	"time"
)

// This file is what becomes of a document that is on some agents, and what people ask for.

// Done is that a place of a document was done, which is to be done once.
type Done struct {
	Agent   string    `json:"agent"`
	Epoch   int64     `json:"epoch"`
	Version int64     `json:"version"` // another version is to be done as well
	Time    time.Time `json:"time"`    // by the agent's clock
}

// Ended is that a version of a document was cancelled. The zero Ended: it was not.
type Ended struct {
	By      string    `json:"by"`
	Cause   string    `json:"cause,omitempty"`
	Version int64     `json:"version"` // another version is placed
	Time    time.Time `json:"time"`
}

// Asked counts what the agents that have a document were asked for. Who gets it later does not care for what was asked before.
type Asked struct {
	Run    int64 `json:"run,omitempty"`    // rounds at once
	Cancel int64 `json:"cancel,omitempty"` // the ends of rounds under way
}

// The values of Event.What.
const (
	Placed    = "placed"    // To has the place. From, if it had it, goes on until To runs the document
	Taken     = "taken"     // From has the place no more, and nobody has it
	Leaving   = "leaving"   // From is to let go of the place, and nobody has it before it has
	Let       = "let_go"    // From has let go of the place
	Failed    = "failed"    // at From
	Parked    = "parked"    // it waits for another version, or to be tried again
	IsDone    = "done"      // a place, by From
	Cancelled = "cancelled" // by somebody
	Retried   = "retried"   // somebody asked for that
	Run       = "run"       // likewise: for a round at once
)

// An Event is something that has become of a document, or of one of its places.
type Event struct {
	Time  time.Time `json:"time"` // by the clock of the hub that has written it
	What  string    `json:"what"`
	Place int       `json:"place,omitempty"` // from 1; 0: it is about all
	From  string    `json:"from,omitempty"`  // an agent
	To    string    `json:"to,omitempty"`    // likewise
	Epoch int64     `json:"epoch,omitempty"` // To's, or where there is none From's
	Why   string    `json:"why,omitempty"`
}

const (
	maxEvents = 20  // events of a document that are kept
	maxWhy    = 300 // bytes of why
)

// Note adds an event to the history, of which only the newest stay.
func (o *Owners) Note(e Event) {
	e.Time = e.Time.UTC().Round(time.Millisecond)
	e.Why = strings.ToValidUTF8(e.Why[:min(len(e.Why), maxWhy)], "")
	o.History = append(slices.Clone(o.History[max(0, len(o.History)-maxEvents+1):]), e)
}

// Results returns, by document, which places of documents that are to be done once are done, as agents say to this hub.
func (s *Store) Results() map[string][]Done {
	list := make(map[string][]Done)
	all := s.o.Agents()
	for i := range all {
		x := &all[i]
		for _, d := range x.Placement.docs {
			if d.content.count == 0 || !d.content.once || x.placed(d).Status != done {
				continue
			}
			r, _ := x.says(d.name)
			list[d.name] = append(list[d.name], Done{Agent: x.ID, Epoch: r.Epoch, Version: d.Version, Time: r.Ended.UTC()})
		}
	}
	return list
}

// Cursors returns, by document and agent, what collectors of placed documents have saved, as agents have said to this hub.
func (s *Store) Cursors() map[string]map[string]Cursor {
	list := make(map[string]map[string]Cursor)
	all := s.o.Agents()
	for i := range all {
		x := &all[i]
		for name, c := range x.Cursors {
			if list[name] == nil {
				list[name] = make(map[string]Cursor)
			}
			c.There = x.Here
			list[name][x.ID] = c
		}
	}
	return list
}

// Costs returns, by document and agent, what share of a slot documents take, as agents say to this hub.
func (s *Store) Costs() map[string]map[string]float64 {
	list := make(map[string]map[string]float64)
	all := s.o.Agents()
	for i := range all {
		for _, r := range all[i].Documents {
			if r.Source != "hub" || !(r.Cost > 0) {
				continue
			}
			if list[r.Name] == nil {
				list[r.Name] = make(map[string]float64)
			}
			list[r.Name][all[i].ID] = r.Cost
		}
	}
	return list
}
