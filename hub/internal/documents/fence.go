package documents

import (
	"fmt"
	"slices"
	"time"
)

// This file is which data of placed documents may still come in.

// A standing is what is known of a document's epochs.
type standing struct {
	owners Owners
	placed bool  // it is to be on some agents, as far as is known
	since  int64 // otherwise: the revision of the control state at which it was deleted, or came to all agents
}

// standings returns what is known of all documents that are or were placed. s.mu is held.
func (s *Store) standings() map[string]standing {
	all := make(map[string]standing, len(s.owners))
	for name, d := range s.docs {
		if placed := d.err != nil || d.content != nil && d.content.count > 0; placed {
			all[name] = standing{owners: s.owners[name], placed: true}
		} else {
			all[name] = standing{owners: s.owners[name], since: d.revision}
		}
	}
	for name, o := range s.owners {
		if s.docs[name] == nil {
			all[name] = standing{owners: o, placed: true}
		}
	}
	return all
}

// Admit returns why data is refused that was collected for a placed document in an epoch of its placing, and that an agent has
// sent, by the time now; nil if it is not. It is taken in if that epoch is some agent's now, or that in which a place was done, though
// not the sender's, which may pass on what others have collected; or if it is past, but has ended as it should; or if it is newer than
// all that this hub has heard of; or if this hub does not know the document.
func (s *Store) Admit(name, agent string, epoch int64, now time.Time) error {
	st, known := s.Current().standings[name]
	o := st.owners
	switch {
	case !known || epoch > max(o.Epoch, st.since):
		return nil
	case !st.placed:
		return fmt.Errorf("they were collected for document %s in epoch %d, and that is not placed on some agents any more: it is deleted, or on all%s", name, epoch, advice)
	}
	for _, x := range o.Owners {
		if x.Agent != "" && x.Epoch == epoch || x.From != "" && x.FromEpoch == epoch || x.Done.Agent != "" && x.Done.Epoch == epoch {
			return nil
		}
	}
	if slices.ContainsFunc(o.Past, func(p Past) bool { return p.Epoch == epoch && now.Before(p.Until) }) {
		return nil
	}
	if again, has := o.of(agent); has {
		return fmt.Errorf("they were collected for document %s in epoch %d, which is over: this agent has it again, in epoch %d, but others may have collected the same between%s", name, epoch, again, advice)
	}
	return fmt.Errorf("they were collected for document %s in epoch %d, which is over, as it has come to epoch %d: another agent may have collected the same%s", name, epoch, o.Epoch, advice)
}

// advice is what to do.
const advice = ". If it is wanted all the same, send it without the attribute creel.document.epoch"
