package spool

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
)

// This file reads a spool from its files: when it is opened, inspected and repaired.

// afterCrash is how much of the log, from its end, is verified after a crash: more than what can have been on its way to
// the disk. What is before was durable; its payloads are verified when they are read.
const afterCrash = 2*maxUnsynced + maxPayload

// refuseNewer returns an error if a newer version has written in dir. It changes nothing.
func refuseNewer(fs FS, dir string) error {
	list, err := fs.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, i := range list {
		magic := magicLog
		if _, _, ours := parseSegName(i.Name); !ours {
			if magic = magicAcks; i.Name != acksName {
				continue
			}
		}
		f, err := fs.Open(filepath.Join(dir, i.Name))
		if err != nil {
			continue
		}
		_, _, err = readFileHead(f, magic)
		f.Close()
		if errors.Is(err, ErrNewer) {
			return fmt.Errorf("%s: %w", i.Name, err)
		}
	}
	return nil
}

// A stored segment is one as it was found.
type stored struct {
	*segment
	size  int64
	limit uint64 // records from here on are in a later segment
	whole bool   // its file header
	from  [16]byte
}

// findSegments lists the segments in dir, in the order of their sequences.
func findSegments(fs FS, dir string) ([]*stored, error) {
	list, err := fs.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var segs []*stored
	for _, i := range list {
		gen, base, ok := parseSegName(i.Name)
		if !ok {
			continue
		}
		g := &stored{
			segment: &segment{name: i.Name, gen: gen, base: base, end: fileHeader, next: base, synced: fileHeader, syncedSeq: base, sealed: true, linked: true},
			size:    i.Size, limit: math.MaxUint64,
		}
		if f, err := fs.Open(filepath.Join(dir, i.Name)); err == nil {
			h, ok, _ := readFileHead(f, magicLog)
			if f.Close(); ok && h.generation == gen && h.base == base {
				g.whole, g.from, g.created = true, h.id, h.created
			}
		}
		segs = append(segs, g)
	}
	slices.SortFunc(segs, func(a, b *stored) int {
		return cmp.Or(cmp.Compare(a.base, b.base), cmp.Compare(a.gen, b.gen))
	})
	for i := range segs[:max(len(segs), 1)-1] {
		segs[i].limit = segs[i+1].base
	}
	return segs, nil
}

// A walk goes through the records of a segment.
type walk struct {
	ahead  int
	verify bool                                            // payloads too
	item   func(off int64, h *recHead, parts []Part) error // a record that is whole; may be nil. Of damaged parts there are none
	bytes  func(off int64, p []byte) error                 // its payload, if wanted, before item
	lost   func(from, to uint64, off int64)                // records that are missing; off is where what follows was found
	parts  []Part
}

// run walks g in f. It sets end and next of g, and reports whether the log ends here with Close's mark, and a read error.
func (w *walk) run(g *stored, f io.ReaderAt) (marked bool, err error) {
	s := newScanner(f, g.gen, g.size, w.ahead)
	gap := func(to uint64, off int64) {
		if to > g.next {
			w.lost(g.next, to, off)
			g.next = to
		}
	}
	for off := int64(fileHeader); ; {
		var h recHead
		at, ok := off, s.head(off, &h)
		if !ok {
			at, ok = s.find(off, &h)
		}
		if !ok || h.seq >= g.limit && h.records > 0 {
			return marked, s.fail
		}
		off = at + h.size()
		if h.records == 0 {
			if h.seq >= g.next && h.seq <= g.limit {
				gap(h.seq, at)
				g.end, marked = at, true
			}
			continue
		}
		if h.seq < g.next || h.end() > g.limit {
			continue
		}
		gap(h.seq, at)
		marked = false
		if w.item != nil {
			w.parts, _ = s.parts(at, &h, w.parts[:0])
		}
		whole := true
		if w.verify || w.bytes != nil {
			var p []byte
			if p, whole = s.payload(at, &h, w.bytes != nil); whole && w.bytes != nil {
				if err := w.bytes(at, p); err != nil {
					return marked, err
				}
			}
		}
		if !whole {
			gap(h.end(), at)
		} else if w.item != nil {
			if err := w.item(at, &h, w.parts); err != nil {
				return marked, err
			}
		}
		g.next, g.end = h.end(), off
	}
}

// between returns how many records are missing between the end of one segment and the base of the next.
func between(settled spans, end, base uint64) uint64 {
	if base <= end {
		return 0
	}
	d := (base - end) % jump
	return d - min(d, settled.count(end, base))
}

// load reads the spool. Damage never fails it.
func (q *Queue) load() error {
	list, err := q.fs.ReadDir(q.dir)
	if err != nil {
		return err
	}
	for _, i := range list {
		switch i.Name {
		case reserveName:
			q.spare.size.Store(i.Size)
		case suspectName:
			q.suspects = true
		}
	}
	_ = q.fs.Remove(q.path(acksTemp))
	_ = q.fs.Remove(q.path(segTemp))
	known, err := q.loadAcks(list)
	if err != nil {
		return err
	}
	segs, err := findSegments(q.fs, q.dir)
	if err != nil {
		return err
	}
	segs = slices.DeleteFunc(segs, func(g *stored) bool {
		q.gen = max(q.gen, g.gen+1)
		if g.whole && known && g.from != q.id {
			q.logf("spool %s: %s belongs to another spool and is left alone", q.dir, g.name)
			return true
		}
		if g.whole {
			q.id, known = g.from, true
		}
		return false
	})
	if !known {
		rand.Read(q.id[:])
	}
	if q.gen == 0 {
		q.gen = random()
	}
	if err := q.loadSegments(segs); err != nil {
		for _, g := range q.dirty {
			g.file.Close()
		}
		return errors.Join(err, q.acks.close())
	}
	if q.acks.file == nil {
		if err := q.acks.rewrite(); err != nil {
			_ = q.diskError("write acknowledgements", err)
		}
	}
	q.fresh = &cursor{seq: q.next, limit: math.MaxUint64}
	q.stats.Found = q.stats.Records + q.stats.Lost
	if q.options().Order == InOrder {
		q.fresh.seq = 0
	} else {
		q.backlog = []*cursor{{limit: q.next}}
	}
	q.spare.restore()
	q.poke(true)
	return nil
}

// loadAcks reads the log of acknowledgements, and reports whether that told the spool's id.
func (q *Queue) loadAcks(list []FileInfo) (known bool, err error) {
	i := slices.IndexFunc(list, func(i FileInfo) bool { return i.Name == acksName })
	if i < 0 {
		return false, nil
	}
	f, err := q.fs.Open(q.path(acksName))
	if err != nil {
		return false, err
	}
	h, whole, err1 := readFileHead(f, magicAcks)
	settled := func(kind byte, s span) {
		q.settled.add(s.from, s.to)
		if kind == ackLost {
			q.damaged.add(s.from, s.to)
		}
	}
	end, err2 := readAcks(f, list[i].Size, settled, q.seen.add, q.gone.add)
	if err := errors.Join(err1, err2); err != nil && !q.options().Salvage {
		f.Close()
		return false, fmt.Errorf("read %s: %w", acksName, err)
	}
	if !whole {
		f.Close() // it is written anew
		return false, nil
	}
	q.id = h.id
	q.acks.file = f
	q.acks.size.Store(end)
	q.acks.stale.Store(end > fileHeader)
	return true, nil
}

// loadSegments scans the log, and derives the position of the writer from it.
func (q *Queue) loadSegments(segs []*stored) (err error) {
	clean := len(segs) == 0
	if !clean {
		clean, err = q.walk(segs[len(segs)-1], &walk{lost: func(uint64, uint64, int64) {}}, false)
	}
	if err != nil {
		return err
	}
	later := int64(0)
	for i := len(segs) - 1; i >= 0; i-- {
		g := segs[i]
		g.end, g.next = fileHeader, g.base
		g.poisoned = !clean && later < afterCrash // borrowed for a moment: to be verified
		later += g.size
	}
	for i, g := range segs {
		verify := g.poisoned
		g.poisoned = false
		_, err = q.walk(g, &walk{
			verify: verify,
			item: func(_ int64, h *recHead, parts []Part) error {
				q.loaded(g.segment, h, parts)
				return nil
			},
			lost: func(from, to uint64, _ int64) { q.lose(from, to) },
		}, verify)
		if err != nil {
			return err
		}
		if i < len(segs)-1 {
			if n := between(q.settled, g.next, segs[i+1].base); n > 0 {
				q.missing(g.next, segs[i+1].base, n)
			}
		} else if torn := g.size - g.end; !clean && torn > 0 {
			q.cut(g, torn)
		}
		q.used += g.end
		q.segs = append(q.segs, g.segment)
	}
	q.next = 1
	if len(segs) > 0 {
		q.next = segs[len(segs)-1].next
	}
	if n := len(q.settled); n > 0 && q.settled[n-1].to > q.next {
		q.next, clean = q.settled[n-1].to, false
	}
	if !clean {
		q.next += jump
	}
	return nil
}

// loaded takes note of a record that was found. One whose payload is known to be damaged may come again.
func (q *Queue) loaded(g *segment, h *recHead, parts []Part) {
	q.stats.Records += uint64(h.records) - q.settled.count(h.seq, h.end())
	if q.damaged.has(h.seq) {
		return
	}
	q.seen.add(h.id, h.seq)
	for _, p := range parts {
		g.parts.add(p, q.options().Sources)
	}
	if len(parts) < int(h.parts) {
		q.logf("spool %s: it is not readable any more what the item at sequence %d was read from, which may come twice", q.dir, h.seq)
	}
}

// walk opens and walks g. With dirty, what was found is to be made durable: that the last run had written it does not
// mean that it had synced it. The error is that of a disk that does not read.
func (q *Queue) walk(g *stored, w *walk, dirty bool) (marked bool, err error) {
	f, err := q.fs.Open(q.path(g.name))
	if err != nil {
		return false, err
	}
	w.ahead = int(min(g.size, 64<<10))
	marked, err = w.run(g, f)
	if q.options().Salvage {
		err = nil
	}
	if err != nil {
		err = fmt.Errorf("read %s: %w", g.name, err)
	}
	if dirty && g.end > fileHeader {
		g.file, g.linked, g.poisoned = f, false, q.suspects
		q.dirty = append(q.dirty, g.segment)
		q.unsynced += g.end - g.synced
		return marked, err
	}
	f.Close()
	return marked, err
}

// missing counts n records that are gone between two segments.
func (q *Queue) missing(from, to, n uint64) {
	q.settle(from, to, ackLost)
	q.stats.Lost += n
	q.acks.stale.Store(true)
	q.logf("spool %s: %d records were lost by damage, from sequence %d on", q.dir, n, from)
}

// cut truncates what the last run had begun to write at the end of the log.
func (q *Queue) cut(g *stored, torn int64) {
	f, err := q.fs.Open(q.path(g.name))
	if err != nil {
		return
	}
	defer f.Close()
	if err := f.Truncate(g.end); err == nil {
		q.stats.Torn += torn
		q.logf("spool %s: %d bytes at the end of %s were not written to their end, and are cut off", q.dir, torn, g.name)
	}
}
