package spool

import (
	"cmp"
	"container/list"
	"encoding/binary"
	"hash/crc32"
	"slices"
)

// This file is what the queue knows of where its items came from, so that a source need not be read again after a crash. A
// record carries its parts, a segment keeps those of its records in memory, and before it is removed they go to the log of
// acknowledgements. All that can go wrong costs repeats: nothing is claimed that was not appended, and what a record's loss
// takes away is claimed no more.

// A Part is what an item was read from: the positions of Source from From up to, not including, To. Bytes of a file, say.
type Part struct{ Source, From, To uint64 }

// A Range is the positions of a source from From up to, not including, To.
type Range struct{ From, To uint64 }

const (
	maxParts  = 255 // of an item
	partSize  = 24
	maxPrefix = maxParts*partSize + 4

	maxRanges = 1024 // of a source whose records are gone
	meanRange = 16   // of all such sources
)

// Parts returns what the queue has taken of a source: sorted, and neither overlapping nor touching. Parts of items that were
// lost by damage are not in it; those that were dropped are. It may have forgotten some (see Options.Sources), never
// invented any.
func (q *Queue) Parts(source uint64) []Range {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := slices.Clone(q.gone.of(source))
	for _, g := range q.segs {
		for i := g.parts.after(source, 0); i < len(g.parts) && g.parts[i].Source == source; i++ {
			s.add(g.parts[i].From, g.parts[i].To)
		}
	}
	var list []Range
	for _, r := range s {
		list = append(list, Range{r.from, r.to})
	}
	return list
}

// putParts writes what lies between a record's header, whose checksum is check, and its payload: nothing without parts.
func putParts(b []byte, parts []Part, check uint32) int {
	if len(parts) == 0 {
		return 0
	}
	n := 0
	for _, p := range parts {
		binary.LittleEndian.PutUint64(b[n:], p.Source)
		binary.LittleEndian.PutUint64(b[n+8:], p.From)
		binary.LittleEndian.PutUint64(b[n+16:], p.To)
		n += partSize
	}
	binary.LittleEndian.PutUint32(b[n:], crc32.Update(check, castagnoli, b[:n]))
	return n + 4
}

// parts appends the parts of the record at off to into. When they are damaged, it appends none and ok is false.
func (s *scanner) parts(off int64, h *recHead, into []Part) (list []Part, ok bool) {
	if h.parts == 0 {
		return into, true
	}
	b := s.view(off+recHeader, int(h.prefix()))
	if b == nil {
		return into, false
	}
	n := len(b) - 4
	if crc32.Update(h.check, castagnoli, b[:n]) != binary.LittleEndian.Uint32(b[n:]) {
		return into, false
	}
	for ; len(b) > 4; b = b[partSize:] {
		into = append(into, Part{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint64(b[16:])})
	}
	return into, true
}

// pieces are the parts of a segment's records, sorted, and neither overlapping nor touching.
type pieces []Part

// after returns the index of the first piece that ends at or after place, or belongs to a later source.
func (p pieces) after(source, place uint64) int {
	i, _ := slices.BinarySearchFunc(p, source, func(a Part, source uint64) int {
		if c := cmp.Compare(a.Source, source); c != 0 {
			return c
		}
		if a.To < place {
			return -1
		}
		return 1
	})
	return i
}

// add takes n in. When there are most pieces already, only what touches one of them finds a place.
func (p *pieces) add(n Part, most int) {
	if n.From >= n.To {
		return
	}
	i := p.after(n.Source, n.From)
	j := i
	for j < len(*p) && (*p)[j].Source == n.Source && (*p)[j].From <= n.To {
		n.From, n.To = min(n.From, (*p)[j].From), max(n.To, (*p)[j].To)
		j++
	}
	if j > i {
		(*p)[i] = n
		*p = slices.Delete(*p, i+1, j)
	} else if len(*p) < most {
		*p = slices.Insert(*p, i, n)
	}
}

// history is the parts of records whose segments are gone, or about to go: of the last size sources.
type history struct {
	size   int
	at     map[uint64]*list.Element // of order, whose values are *past
	order  *list.List               // the least recently added first
	ranges int
}

type past struct {
	source uint64
	spans
}

func newHistory(size int) *history {
	return &history{size: size, at: map[uint64]*list.Element{}, order: list.New()}
}

func (h *history) of(source uint64) spans {
	if e, ok := h.at[source]; ok {
		return e.Value.(*past).spans
	}
	return nil
}

// add takes p in. What it has no room for is forgotten: of one source the lowest range, of all sources the oldest.
func (h *history) add(p Part) {
	if h.size <= 0 || p.From >= p.To {
		return
	}
	e, ok := h.at[p.Source]
	if !ok {
		e = h.order.PushBack(&past{source: p.Source})
		h.at[p.Source] = e
	}
	h.order.MoveToBack(e)
	s := e.Value.(*past)
	h.ranges -= len(s.spans)
	s.add(p.From, p.To)
	h.ranges += len(s.spans)
	if len(s.spans) > maxRanges {
		h.forget(s)
	}
	for len(h.at) > h.size || h.ranges > meanRange*h.size {
		old := h.order.Front().Value.(*past)
		if h.forget(old); len(h.at) > h.size || len(old.spans) == 0 {
			h.ranges -= len(old.spans)
			h.order.Remove(h.at[old.source])
			delete(h.at, old.source)
		}
	}
}

// forget takes out the lowest range of s.
func (h *history) forget(s *past) {
	s.spans = slices.Delete(s.spans, 0, 1)
	h.ranges--
}

// each calls f with all that is remembered, the oldest source first.
func (h *history) each(f func(Part)) {
	for e := h.order.Front(); e != nil; e = e.Next() {
		s := e.Value.(*past)
		for _, r := range s.spans {
			f(Part{s.source, r.from, r.to})
		}
	}
}
