package spool

import "slices"

// A span is the sequences from from up to, not including, to.
type span struct{ from, to uint64 }

// spans is a set of sequences: sorted spans that neither overlap nor touch.
type spans []span

// after returns the index of the first span that ends after seq.
func (s spans) after(seq uint64) int {
	i, _ := slices.BinarySearchFunc(s, seq, func(a span, seq uint64) int {
		if a.to <= seq {
			return -1
		}
		return 1
	})
	return i
}

// has reports whether seq is in the set.
func (s spans) has(seq uint64) bool {
	i := s.after(seq)
	return i < len(s) && s[i].from <= seq
}

// covers reports whether all of from to to is in the set.
func (s spans) covers(from, to uint64) bool {
	if from >= to {
		return true
	}
	i := s.after(from)
	return i < len(s) && s[i].from <= from && s[i].to >= to
}

// count returns how many sequences of from to to are in the set.
func (s spans) count(from, to uint64) (n uint64) {
	for i := s.after(from); i < len(s) && s[i].from < to; i++ {
		n += min(s[i].to, to) - max(s[i].from, from)
	}
	return n
}

// add puts from to to into the set, and returns how many were not in it.
func (s *spans) add(from, to uint64) uint64 {
	if from >= to {
		return 0
	}
	fresh := to - from - s.count(from, to)
	i := 0
	if from > 0 {
		i = s.after(from - 1)
	}
	j := i
	for j < len(*s) && (*s)[j].from <= to {
		from, to = min(from, (*s)[j].from), max(to, (*s)[j].to)
		j++
	}
	if j == i {
		*s = slices.Insert(*s, i, span{from, to})
	} else {
		(*s)[i] = span{from, to}
		*s = slices.Delete(*s, i+1, j)
	}
	return fresh
}

// trim forgets what is below floor.
func (s *spans) trim(floor uint64) {
	i := s.after(floor)
	*s = slices.Delete(*s, 0, i)
	if len(*s) > 0 {
		(*s)[0].from = max((*s)[0].from, floor)
	}
}
