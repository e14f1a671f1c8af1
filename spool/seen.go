package spool

// seen is the window of batch ids that the queue has taken: the last size of them.
type seen struct {
	size int
	at   map[ID]uint64
	ring []taken // a ring once it is full
	head int     // the oldest
}

type taken struct {
	id  ID
	seq uint64
}

func newSeen(size int) *seen { return &seen{size: size, at: map[ID]uint64{}} }

// add takes id into the window, and the oldest out of it.
func (s *seen) add(id ID, seq uint64) {
	if id == (ID{}) || s.size <= 0 {
		return
	}
	if old, ok := s.at[id]; ok && old == seq { // from a segment and from the acknowledgements
		return
	}
	s.at[id] = seq
	if len(s.ring) < s.size {
		s.ring = append(s.ring, taken{id, seq})
		return
	}
	old := &s.ring[s.head]
	if s.at[old.id] == old.seq && old.id != id {
		delete(s.at, old.id)
	}
	*old = taken{id, seq}
	s.head = (s.head + 1) % s.size
}

// forget takes out the ids of records that were lost: a repeat is welcome.
func (s *seen) forget(from, to uint64) {
	for _, t := range s.ring {
		if t.seq >= from && t.seq < to && s.at[t.id] == t.seq {
			delete(s.at, t.id)
		}
	}
}

func (s *seen) find(id ID) (uint64, bool) {
	seq, ok := s.at[id]
	return seq, ok && id != (ID{})
}

// each calls f with the ids of the window, oldest first.
func (s *seen) each(f func(ID, uint64)) {
	for i := range s.ring {
		t := s.ring[(s.head+i)%len(s.ring)]
		if s.at[t.id] == t.seq {
			f(t.id, t.seq)
		}
	}
}
