package spool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"
)

// durable waits until the records below end are durable. Whoever comes first syncs for all who wait with it; those who
// come while the disk is busy share the next one.
func (q *Queue) durable(ctx context.Context, end uint64) error {
	if ok, err := q.isDurable(end); ok || err != nil {
		return err
	}
	if err := q.commit.lock(ctx); err != nil {
		return err
	}
	defer q.commit.unlock()
	if ok, err := q.isDurable(end); ok || err != nil {
		return err
	}
	if q.isClosed() {
		return ErrClosed
	}
	if err := q.sync(); err != nil {
		return err
	}
	_, err := q.isDurable(end)
	return err
}

// Durable makes all that was appended so far durable, and does nothing else: see Sync.
func (q *Queue) Durable(ctx context.Context) error { return q.durable(ctx, q.end()) }

func (q *Queue) isDurable(end uint64) (bool, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.voided.has(end - 1) {
		return false, errors.New("sync: the disk failed, and lost the record")
	}
	return len(q.dirty) == 0 || q.dirty[0].syncedSeq >= end, nil
}

// sync makes durable what is appended by now. commit is held.
func (q *Queue) sync() error {
	target := q.end()
	for failures := 0; ; {
		q.spareDone()
		q.mu.Lock()
		if len(q.dirty) == 0 || q.dirty[0].syncedSeq >= target {
			healed := !slices.ContainsFunc(q.dirty, func(g *segment) bool { return g.poisoned })
			q.mu.Unlock()
			if healed {
				q.suspect(false)
			}
			return nil
		}
		g := q.dirty[0]
		f, end, next, linked, poisoned := g.file, g.end, g.next, g.linked, g.poisoned
		q.mu.Unlock()
		if !poisoned {
			err := f.Sync()
			if err == nil && !linked {
				err = q.fs.SyncDir(q.dir)
			}
			if err == nil {
				q.synced(g, end, next)
				continue
			}
			q.poison(g, err)
			if failures++; failures > 3 {
				return fmt.Errorf("sync: %w", err)
			}
		}
		for err := q.rewrite(g); err != nil; err = q.rewrite(g) {
			if failures++; failures > 2 {
				return q.diskError("write anew after a failed sync", err)
			}
		}
	}
}

// poison notes that a sync of g failed.
func (q *Queue) poison(g *segment, err error) {
	q.mu.Lock()
	g.poisoned = true
	q.mu.Unlock()
	q.suspect(true)
	_ = q.diskError("sync", err)
	q.logf("spool %s: sync %s: %v; what was not durable is written anew", q.dir, g.name, err)
}

// suspect leaves a file, while there is a segment whose sync failed, for the next one who opens the spool: to it, the
// segment would read well and sync well, and might still not be on the disk.
func (q *Queue) suspect(yes bool) {
	switch {
	case yes == q.suspects:
	case yes:
		if f, err := q.fs.Create(q.path(suspectName)); err == nil || errors.Is(err, os.ErrExist) {
			q.suspects = true
			if err == nil {
				f.Close()
			}
		}
	case q.fs.Remove(q.path(suspectName)) == nil:
		q.suspects = false
	}
}

// spareDone spares the disk the segments that are about to be removed. Acknowledgements come first, or records that a
// power cut takes with such a segment would count as lost, and their ids and parts be forgotten.
func (q *Queue) spareDone() {
	q.mu.Lock()
	n := 0
	for n < len(q.dirty) && q.isDone(q.dirty[n]) {
		n++
	}
	done := slices.Clone(q.dirty[:n])
	q.remember(done)
	q.mu.Unlock()
	if n == 0 {
		return
	}
	if err := q.acks.persist(); err != nil {
		_ = q.diskError("write acknowledgements", err) // then the segments are synced as all others
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, g := range done {
		q.unDirty(g)
	}
}

// synced takes note that g is durable up to end.
func (q *Queue) synced(g *segment, end int64, next uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.unsynced -= end - g.synced
	g.synced, g.syncedSeq, g.linked = end, next, true
	q.stats.Err = nil
	if g.synced == g.end {
		q.unDirty(g)
		if g.sealed {
			g.file.Close()
			g.file = nil
		}
	}
}

// unDirty takes g from the list of what is to be made durable. mu is held.
func (q *Queue) unDirty(g *segment) {
	if i := slices.Index(q.dirty, g); i >= 0 {
		q.dirty = slices.Delete(q.dirty, i, i+1)
		q.unsynced -= g.end - g.synced
	}
}

// rewrite writes what is not durable in g to a new segment, for after a failed sync nobody knows what the file will hold,
// and a second sync of it may say that all is well. What cannot be read back is lost; who waits for it gets an error.
// commit is held.
func (q *Queue) rewrite(g *segment) error {
	q.write.Lock()
	defer q.write.Unlock()
	q.read.Lock()
	defer q.read.Unlock()
	q.mu.Lock()
	g.poisoned, g.sealed = true, true
	sealed := q.active != g
	if !sealed {
		q.active = nil
	}
	q.mu.Unlock()
	m, err := q.create(g.syncedSeq, segTemp) // under its own name it would stand for what is not in it yet
	if err != nil {
		return err
	}
	s := newScanner(g.file, g.gen, g.end, 64<<10)
	left := q.partsBelow(s, g)
	moved := map[uint64]int64{}
	var parts pieces
	var lost []span
	for off := g.synced; off < g.end; {
		var h recHead
		at, ok := off, s.head(off, &h)
		if !ok {
			at, ok = s.find(off, &h)
		}
		if !ok || h.seq < m.next || h.end() > g.next {
			break
		}
		off = at + h.size()
		from, known := s.parts(at, &h, nil)
		p, ok := s.payload(at, &h, true)
		if !ok {
			continue
		}
		if !known {
			h.parts = 0
		}
		if h.seq > m.next {
			lost = append(lost, span{m.next, h.seq})
		}
		moved[h.seq] = m.end
		for _, p := range from {
			parts.add(p, q.options().Sources)
		}
		if err := q.put(m, &h, from, p); err != nil {
			if m.file != nil {
				m.file.Close()
			}
			return err
		}
		m.end += h.size()
		m.next = h.end()
	}
	if m.next < g.next {
		lost = append(lost, span{m.next, g.next})
		m.next = g.next
	}
	m.sealed = sealed
	if err := q.name(m); err != nil { // durable before it stands for what may be durable in g
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.replaced(g, m, moved)
	for _, s := range lost {
		q.stats.Records -= q.lose(s.from, s.to)
		q.voided.add(s.from, s.to)
	}
	g.parts, m.parts = left, parts
	return nil
}

// partsBelow returns the parts of the records of g that are durable.
func (q *Queue) partsBelow(s *scanner, g *segment) (list pieces) {
	if len(g.parts) == 0 {
		return nil
	}
	for off := int64(fileHeader); off < g.synced; {
		var h recHead
		at, ok := s.find(off, &h)
		if !ok || at >= g.synced {
			break
		}
		from, _ := s.parts(at, &h, nil)
		q.mu.Lock()
		if !q.damaged.has(h.seq) {
			for _, p := range from {
				list.add(p, q.options().Sources)
			}
		}
		q.mu.Unlock()
		off = at + h.size()
	}
	return list
}

// name makes a segment that was written under the temporary name durable, and gives it its own. Some systems do not rename what is open.
func (q *Queue) name(m *segment) error {
	if err := errors.Join(m.file.Sync(), m.file.Close()); err != nil {
		return err
	}
	err := q.fs.Rename(q.path(segTemp), q.path(m.name))
	if err == nil {
		m.file, err = q.fs.Open(q.path(m.name))
	}
	if err != nil {
		_ = q.fs.Remove(q.path(m.name))
	}
	return err
}

// replaced puts m in the place of what was not durable in g. mu is held.
func (q *Queue) replaced(g, m *segment, moved map[uint64]int64) {
	q.stats.Rewrites++
	q.used += m.end
	q.unsynced += m.end - m.synced - (g.end - g.synced)
	q.segs = slices.Insert(q.segs, slices.Index(q.segs, g)+1, m)
	q.dirty[slices.Index(q.dirty, g)] = m
	g.file.Close()
	g.file = nil
	q.used -= g.end - g.synced
	g.end, g.next = g.synced, g.syncedSeq
	if !m.sealed {
		q.active = m
	}
	for seq, f := range q.flights {
		if off, ok := moved[seq]; ok && f.seg == g {
			f.seg, f.off = m, off
			q.flights[seq] = f
		}
	}
	for _, c := range append(q.backlog[:len(q.backlog):len(q.backlog)], q.fresh) {
		if c.seg == g && c.off >= g.end {
			c.seg = nil
		}
	}
}

// isDone reports whether nothing of g is needed any more. mu is held.
func (q *Queue) isDone(g *segment) bool { return g.sealed && q.settled.covers(g.base, g.next) }

// checkDone lets the background remove g if it can be, at once if somebody waits for room. mu is held.
func (q *Queue) checkDone(g *segment) {
	if q.isDone(g) {
		q.poke(q.stats.Full)
	}
}

// collect removes segments that are done, after what says so is durable, and returns how many. The last one stays. commit
// is held.
func (q *Queue) collect() (int, error) {
	q.mu.Lock()
	var done []*segment
	for i, g := range q.segs {
		if i < len(q.segs)-1 && q.isDone(g) && !(g.poisoned && slices.Contains(q.dirty, q.segs[i+1])) {
			done = append(done, g)
		}
	}
	if len(done) == 0 {
		q.mu.Unlock()
		return 0, nil
	}
	last := q.segs[len(q.segs)-1]
	linked := last.linked
	q.remember(done)
	q.mu.Unlock()
	if !linked { // or a power cut could take both away, and the position with them
		if err := q.fs.SyncDir(q.dir); err != nil {
			return 0, q.diskError("sync directory", err)
		}
		q.mu.Lock()
		last.linked = true
		q.mu.Unlock()
	}
	n := 0
	if err := q.acks.persist(); err != nil {
		if !isFull(err) {
			return 0, q.diskError("write acknowledgements", err)
		}
		// Without space for acknowledgements, and the reserve gone, what is oldest can go without them: nothing is missing
		// before the first segment. At worst a power cut brings it back.
		for n < len(done) && q.first(done[n]) && q.remove(done[n]) {
			n++
		}
		if err := q.acks.persist(); err != nil {
			return n, q.diskError("write acknowledgements", err)
		}
	}
	for _, g := range done[n:] {
		if q.remove(g) {
			n++
		}
	}
	return n, nil
}

// remember puts into the log of acknowledgements what is known only from segments that are done. mu is held.
func (q *Queue) remember(done []*segment) {
	done = slices.DeleteFunc(slices.Clone(done), func(g *segment) bool { return g.logged })
	if len(done) == 0 {
		return
	}
	for _, g := range done { // once more: a damaged byte must not make a hole where a segment is gone
		q.acks.pending = putAck(q.acks.pending, ackDone, g.base, g.next, 0)
		for _, p := range g.parts {
			q.acks.pending = putPart(q.acks.pending, p)
			q.gone.add(p)
		}
		g.logged = true
	}
	from, to := done[0].base, done[len(done)-1].next
	q.seen.each(func(id ID, seq uint64) {
		if seq < from || seq >= to {
			return
		}
		if g := q.locate(seq); g != nil && g.base <= seq && slices.Contains(done, g) {
			q.acks.pending = putSeen(q.acks.pending, id, seq)
		}
	})
}

// first reports whether g is the oldest segment.
func (q *Queue) first(g *segment) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.segs[0] == g
}

// remove removes g, whose records are all settled. commit is held.
func (q *Queue) remove(g *segment) bool {
	q.mu.Lock()
	q.unDirty(g)
	if g.file != nil {
		g.file.Close()
		g.file = nil
	}
	q.mu.Unlock()
	if err := q.fs.Remove(q.path(g.name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		_ = q.diskError("remove segment", err)
		return false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	g.gone = true
	q.unlinked = true
	q.segs = slices.DeleteFunc(q.segs, func(s *segment) bool { return s == g })
	q.used -= g.end
	q.freeLeft = 0
	q.stats.Full = false
	q.wakeAll()
	return true
}

// maintain does all that is to be done now and then. commit is held.
func (q *Queue) maintain() error {
	err := q.sync()
	_, e := q.collect() // first, for it may make the room that acknowledgements need
	err = errors.Join(err, e)
	if e := q.acks.persist(); e != nil {
		err = errors.Join(err, q.diskError("write acknowledgements", e))
	}
	if e := q.acks.compact(); e != nil {
		err = errors.Join(err, q.diskError("compact acknowledgements", e))
	}
	q.spare.restore()
	if err == nil {
		q.mu.Lock()
		q.stats.Err = nil
		q.mu.Unlock()
	}
	return err
}

// poke tells the background that there is something to do; now, or in SyncEvery.
func (q *Queue) poke(now bool) {
	if now {
		q.urgent.Store(true)
	}
	select {
	case q.kick <- struct{}{}:
	default:
	}
}

// background makes durable and removes, by time or when poked. It sleeps while there is nothing to do.
func (q *Queue) background() {
	every := q.options().SyncEvery
	t := time.NewTimer(every)
	defer t.Stop()
	for armed := true; ; {
		due := false
		select {
		case <-q.quit:
			return
		case <-q.kick:
		case <-t.C:
			armed, due = false, true
		}
		if e := q.options().SyncEvery; e != every {
			if every = e; armed {
				t.Reset(every)
			}
		}
		_ = q.commit.lock(context.Background())
		switch now := q.urgent.Swap(false); { // errors show in Stats and are tried again
		case due:
			_ = q.maintain()
		case now:
			_, _ = q.collect()
		}
		if q.much() {
			if _, _ = q.collect(); q.much() { // what is delivered needs no sync
				_ = q.sync()
			}
		}
		q.mu.Lock()
		todo := len(q.dirty) > 0 || q.acks.stale.Load() || q.spare.size.Load() != q.spare.want.Load()
		q.mu.Unlock()
		q.commit.unlock()
		if todo && !armed {
			t.Reset(every)
			armed = true
		}
	}
}

// much reports whether so much waits to be made durable that it should not wait for its time.
func (q *Queue) much() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.unsynced > muchUnsynced
}

// reserve is a file that does nothing but take up space, until the disk is full and acknowledgements, or what a shutdown
// has to put down, need it.
type reserve struct {
	fs    FS
	dir   string
	want  atomic.Int64 // its size, if there is room
	floor atomic.Int64 // free bytes that are to be left
	size  atomic.Int64
}

func (r *reserve) adjust(o *Options) {
	r.want.Store(o.SegmentSize)
	r.floor.Store(o.MinFree)
}

const reserveName = "reserve"

// release removes the file, for acknowledgements. It reports whether that made room.
func (r *reserve) release() bool {
	return r.size.Swap(0) > 0 && r.fs.Remove(filepath.Join(r.dir, reserveName)) == nil
}

// shrink gives three quarters of it to records; the rest is left to acknowledgements. It reports whether that made room.
func (r *reserve) shrink() bool {
	size := r.size.Load()
	return size >= r.want.Load() && r.cut(size, size/4)
}

func (r *reserve) cut(from, to int64) bool {
	if !r.size.CompareAndSwap(from, to) {
		return false
	}
	f, err := r.fs.Open(filepath.Join(r.dir, reserveName))
	if err != nil {
		return false
	}
	return errors.Join(f.Truncate(to), f.Close()) == nil
}

// restore makes the file, when there is room for it and as much again.
func (r *reserve) restore() {
	size, want := r.size.Load(), r.want.Load()
	if size >= want {
		if size > want { // it was to be larger before
			r.cut(size, want)
		}
		return
	}
	if free, err := r.fs.Free(r.dir); err != nil || free < uint64(2*want+r.floor.Load()) {
		return
	}
	name := filepath.Join(r.dir, reserveName)
	r.size.Store(0)
	_ = r.fs.Remove(name)
	f, err := r.fs.Create(name)
	if err != nil {
		return
	}
	if err = errors.Join(f.Allocate(want), f.Close()); err != nil {
		_ = r.fs.Remove(name)
		return
	}
	r.size.Store(want)
}
