package spool

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"sort"
	"time"
)

// A cursor is a place in the log that moves on as items are handed out. Its fields are under Queue.mu, the scanner is
// under Queue.read.
type cursor struct {
	seq   uint64   // the next record's, or less
	limit uint64   // the lane ends before it
	seg   *segment // where seq is; nil: to be looked up
	off   int64    // in seg

	file    File
	scan    *scanner
	open    *segment  // whose file that is
	failing time.Time // since when it cannot be read; zero: it can
}

func (c *cursor) close() {
	if c.file != nil {
		c.file.Close()
	}
	c.file, c.scan, c.open = nil, nil, nil
}

// pass moves on when the record at off is the one that c stands at: it needs not be read.
func (c *cursor) pass(g *segment, off int64, h *recHead) {
	if c.seq == h.seq || c.seg == g && c.off == off {
		c.seg, c.off, c.seq = g, off+h.size(), h.end()
	}
}

// locate returns the first segment that ends after seq. mu is held.
func (q *Queue) locate(seq uint64) *segment {
	i := sort.Search(len(q.segs), func(i int) bool { return q.segs[i].next > seq })
	if i == len(q.segs) {
		return nil
	}
	return q.segs[i]
}

// ready moves c to where a record is, if there is one. mu is held.
func (q *Queue) ready(c *cursor) bool {
	for c.seq < min(c.limit, q.next) {
		switch {
		case c.seg == nil:
			if c.seg = q.locate(c.seq); c.seg == nil {
				c.seq = q.next
				return false
			}
			c.seq, c.off = max(c.seq, c.seg.base), fileHeader
		case c.seg.gone:
			c.seq, c.seg = max(c.seq, c.seg.next), nil
		case c.off >= c.seg.end:
			c.seq, c.seg = max(c.seq, c.seg.next), nil
		default:
			return true
		}
	}
	return false
}

// lane returns the cursor whose turn it is, or nil. mu is held.
func (q *Queue) lane() *cursor {
	for len(q.backlog) > 0 && !q.ready(q.backlog[0]) {
		q.backlog[0].close()
		q.backlog = q.backlog[1:]
	}
	fresh := q.ready(q.fresh)
	switch {
	case len(q.backlog) == 0 && !fresh:
		return nil
	case len(q.backlog) == 0:
		return q.fresh
	case !fresh || q.options().Order == InOrder:
		return q.backlog[0]
	}
	if q.turn++; q.turn%4 == 0 {
		return q.backlog[0]
	}
	return q.fresh
}

// Mark makes a backlog of what is in the queue and not yet handed out, for FreshFirst: to be called when the way to the
// destination is free again. Open marks as well.
func (q *Queue) Mark() {
	if q.options().Order == InOrder {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.mark()
}

func (q *Queue) mark() {
	if !q.ready(q.fresh) {
		return
	}
	old := q.fresh
	old.limit = q.next
	q.backlog = append(q.backlog, old)
	q.fresh = &cursor{seq: q.next, limit: math.MaxUint64}
}

// Next hands out an item, and waits for one while there is none. What was given back comes first.
//
// An error of the disk is returned as it is; Next may be called again. What cannot be read for a minute counts as lost.
func (q *Queue) Next(ctx context.Context) (Taken, error) {
	for {
		t, wait, err := q.tryNext()
		if wait == nil || err != nil {
			return t, err
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return Taken{}, ctx.Err()
		}
	}
}

// TryNext is Next without waiting: ok is false when there is no item.
func (q *Queue) TryNext() (t Taken, ok bool, err error) {
	t, wait, err := q.tryNext()
	return t, wait == nil && err == nil, err
}

// tryNext returns an item, or what to wait for.
func (q *Queue) tryNext() (Taken, <-chan struct{}, error) {
	q.read.Lock()
	defer q.read.Unlock()
	for {
		q.mu.Lock()
		if q.closed {
			q.mu.Unlock()
			return Taken{}, nil, ErrClosed
		}
		if len(q.back) > 0 {
			seq := q.back[0]
			q.back = slices.Delete(q.back, 0, 1)
			f := q.flights[seq]
			f.back = false
			q.flights[seq] = f
			q.mu.Unlock()
			if t, ok, err := q.again(seq, f); ok || err != nil {
				return t, nil, err
			}
			continue
		}
		c := q.lane()
		if c == nil {
			wait := q.changed()
			q.mu.Unlock()
			return Taken{}, wait, nil
		}
		g, off, end := c.seg, c.off, c.seg.end
		q.mu.Unlock()
		if t, ok, err := q.step(c, g, off, end); ok || err != nil {
			return t, nil, err
		}
	}
}

// patience is how long the disk may fail to read a record before that counts as lost: a whole disk that is away for a
// while must not cost what is on it.
const patience = time.Minute

func (c *cursor) patient() bool { return c.failing.IsZero() || time.Since(c.failing) < patience }

// enter makes c.scan read g up to end.
func (q *Queue) enter(c *cursor, g *segment, end int64, ahead int) error {
	if c.open != g {
		c.close()
		f, err := q.fs.Open(q.path(g.name))
		if err != nil {
			return err
		}
		c.file, c.open = f, g
		c.scan = newScanner(f, g.gen, end, ahead)
	}
	c.scan.end = end
	if c.scan.fail != nil { // what could not be read is to be read again
		c.scan.fail, c.scan.n = nil, 0
	}
	return nil
}

// step reads the record at off in g, and hands it out unless it is settled or in flight. read is held.
func (q *Queue) step(c *cursor, g *segment, off, end int64) (Taken, bool, error) {
	if err := q.enter(c, g, end, q.options().ReadAhead); err != nil {
		return Taken{}, false, q.unreadable(c, g, err)
	}
	var h recHead
	at, ok := off, c.scan.head(off, &h)
	if !ok {
		at, ok = c.scan.find(off, &h)
	}
	if err := c.scan.fail; err != nil && c.patient() {
		return Taken{}, false, q.unreadable(c, g, err)
	}
	skip, lostTo := q.look(c, g, &h, ok)
	if !skip {
		parts, known := c.scan.parts(at, &h, nil)
		p, whole := c.scan.payload(at, &h, true)
		if err := c.scan.fail; err != nil && !(whole && known) && c.patient() {
			return Taken{}, false, q.unreadable(c, g, err)
		}
		if whole {
			return q.take(c, g, at, &h, parts, p)
		}
		lostTo = h.end()
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	c.failing = time.Time{}
	if c.seg != g || c.off != off {
		return Taken{}, false, nil // it was moved meanwhile
	}
	if lostTo > c.seq && !g.gone {
		q.stats.Records -= q.lose(c.seq, lostTo)
		q.checkDone(g)
	}
	if ok {
		c.off = at + h.size()
		c.seq = max(c.seq, min(h.end(), g.next))
	} else {
		c.off, c.seq = end, max(c.seq, lostTo)
	}
	return Taken{}, false, nil
}

// look reports whether the record at c is to be skipped, and up to where records are gone.
func (q *Queue) look(c *cursor, g *segment, h *recHead, ok bool) (skip bool, lostTo uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !ok {
		return true, g.next
	}
	if h.records == 0 || h.seq < c.seq || h.end() > g.next {
		return true, 0
	}
	_, taken := q.flights[h.seq]
	return taken || g.gone || q.settled.has(h.seq), h.seq
}

// take hands out the record at off. What is missing before it is lost.
func (q *Queue) take(c *cursor, g *segment, off int64, h *recHead, parts []Part, p []byte) (Taken, bool, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	c.failing = time.Time{}
	if c.seg != g || g.gone || q.settled.has(h.seq) {
		return Taken{}, false, nil
	}
	if h.seq > c.seq {
		q.stats.Records -= q.lose(c.seq, h.seq)
		q.checkDone(g)
	}
	c.off, c.seq = off+h.size(), h.end()
	q.flights[h.seq] = flight{seg: g, off: off, size: h.size(), records: h.records}
	return takenOf(h, parts, p), true, nil
}

func takenOf(h *recHead, parts []Part, p []byte) Taken {
	return Taken{Item{ID: h.id, Signal: h.signal, Codec: h.codec, Records: int(h.records), Payload: p, Parts: parts}, h.seq}
}

// unreadable says that the disk did not read at c, which the caller of Next sees, unless the segment was removed meanwhile.
// A file that somebody removed is lost.
func (q *Queue) unreadable(c *cursor, g *segment, err error) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if g.gone || c.seg != g {
		return nil
	}
	if errors.Is(err, os.ErrNotExist) {
		q.stats.Records -= q.lose(c.seq, g.next)
		c.off, c.seq = g.end, g.next
		q.checkDone(g)
		return nil
	}
	q.stats.Err = err
	if c.failing.IsZero() {
		c.failing = time.Now()
	}
	return fmt.Errorf("read %s: %w", g.name, err)
}

// again reads an item that was given back. read is held.
func (q *Queue) again(seq uint64, f flight) (Taken, bool, error) {
	c := &cursor{}
	defer c.close()
	err := q.enter(c, f.seg, f.off+f.size, 0)
	if err == nil {
		var h recHead
		if c.scan.head(f.off, &h) && h.seq == seq {
			parts, _ := c.scan.parts(f.off, &h, nil)
			if p, ok := c.scan.payload(f.off, &h, true); ok {
				return takenOf(&h, parts, p), true, nil
			}
		}
		err = c.scan.fail
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if now := q.flights[seq]; now.fate != 0 {
		q.giveUp(seq, now)
		return Taken{}, false, nil
	}
	if err != nil {
		q.giveBack(seq)
		q.stats.Err = err
		return Taken{}, false, fmt.Errorf("read: %w", err)
	}
	f.back = true // in nobody's hands
	q.flights[seq] = f
	q.stats.Records -= q.lose(seq, seq+uint64(f.records))
	q.checkDone(f.seg)
	return Taken{}, false, nil
}

// Ack settles items, named by their sequences: they will not come again. A sequence that is not in flight is ignored. The
// acknowledgement survives the process at once, and is durable after SyncEvery, or Sync.
func (q *Queue) Ack(seqs ...uint64) {
	q.mu.Lock()
	for _, seq := range seqs {
		f, ok := q.flights[seq]
		if !ok || f.back {
			continue
		}
		delete(q.flights, seq)
		q.stats.Acked += uint64(f.records)
		q.stats.Records -= uint64(f.records)
		q.settle(seq, seq+uint64(f.records), ackDone)
		q.checkDone(f.seg)
	}
	fresh := !q.acks.stale.Load()
	q.mu.Unlock()
	if err := q.acks.flush(); err != nil && err != errNoLog {
		_ = q.diskError("write acknowledgements", err) // it is in memory, and written again with all others
	}
	if fresh {
		q.poke(false)
	}
}

// Nack gives items back: they are the next that Next hands out.
func (q *Queue) Nack(seqs ...uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, seq := range seqs {
		f, ok := q.flights[seq]
		if !ok || f.back {
			continue
		}
		if f.fate != 0 {
			q.giveUp(seq, f)
		} else {
			q.giveBack(seq)
		}
	}
	q.wakeAll()
}

// giveBack puts a flight into the row of what comes next. mu is held.
func (q *Queue) giveBack(seq uint64) {
	f := q.flights[seq]
	f.back = true
	q.flights[seq] = f
	i, _ := slices.BinarySearch(q.back, seq)
	q.back = slices.Insert(q.back, i, seq)
}

// giveUp takes note that an item comes back whose record is not on the disk any more. mu is held.
func (q *Queue) giveUp(seq uint64, f flight) {
	delete(q.flights, seq)
	q.stats.Records -= uint64(f.records)
	if f.fate == ackLost {
		q.stats.Lost += uint64(f.records)
	} else {
		q.stats.Dropped += uint64(f.records)
	}
}

// strand is called when sequences that were not settled are dropped or lost. What of them is in somebody's hands may still
// be delivered: it returns how many records that are, which are given up only when they come back. mu is held.
func (q *Queue) strand(from, to uint64, fate byte) (held uint64) {
	for seq, f := range q.flights {
		switch {
		case seq < from || seq >= to || f.fate != 0:
		case f.back:
			delete(q.flights, seq)
		default:
			f.fate = fate
			q.flights[seq] = f
			held += uint64(f.records)
		}
	}
	q.back = slices.DeleteFunc(q.back, func(seq uint64) bool { return seq >= from && seq < to })
	return held
}

// settle notes that sequences are done with, and returns how many were not before. mu is held.
func (q *Queue) settle(from, to uint64, kind byte) uint64 {
	n := q.settled.add(from, to)
	if n > 0 {
		q.acks.pending = putAck(q.acks.pending, kind, from, to, 0)
	}
	if n > 0 && kind == ackLost {
		q.damaged.add(from, to)
	}
	return n
}

// lose settles sequences whose records are damaged, and returns how many of them were not before, and are in nobody's
// hands. A segment that lost something does not know which parts it holds still, until it is read anew. mu is held.
func (q *Queue) lose(from, to uint64) uint64 {
	n := q.settle(from, to, ackLost)
	if n == 0 {
		return 0
	}
	q.seen.forget(from, to)
	for _, g := range q.segs {
		if g.base < to && g.next > from {
			g.parts = nil
		}
	}
	q.acks.stale.Store(true)
	q.logf("spool %s: %d records were lost by damage, from sequence %d on", q.dir, n, from)
	n -= q.strand(from, to, ackLost)
	q.stats.Lost += n
	return n
}
