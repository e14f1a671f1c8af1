package spool

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"time"
)

const (
	// smallPayload and less is copied, to be written in one call with its header.
	smallPayload = 32 << 10
	// maxUnsynced bounds what waits to be made durable. It also bounds what Open has to verify after a crash.
	maxUnsynced = 256 << 20
	// muchUnsynced is when that is not left to time any more. What is delivered by then needs no sync, and segments that go
	// together share one of the acknowledgements.
	muchUnsynced = 64 << 20
	// retryRoom is how often Append looks whether others have freed space.
	retryRoom = 100 * time.Millisecond
	// freeStep is how much is written between two looks at the free space.
	freeStep = 1 << 20
)

var errNoRoom = errors.New("no room")

// Append puts it into the queue and returns the sequence of its first record. When there is no room, it does what
// Options.WhenFull says. A batch that is there already is not appended again: ErrDuplicate.
//
// After an error of the disk, or of ctx while it waits for Synced, the item may be in the queue or not, and is not held:
// repeat it with the same ID.
func (q *Queue) Append(ctx context.Context, it Item, how How) (uint64, error) {
	if it.Records < 1 || it.Records >= jump/4 {
		panic(fmt.Sprintf("BUG: an item of %d records", it.Records))
	}
	if len(it.Parts) > maxParts {
		panic(fmt.Sprintf("BUG: an item of %d parts", len(it.Parts)))
	}
	if len(it.Payload) > maxPayload {
		return 0, fmt.Errorf("%w: %d bytes", ErrTooLarge, len(it.Payload))
	}
	h := recHead{
		length: uint32(len(it.Payload)), sum: crc32.Checksum(it.Payload, castagnoli), parts: byte(len(it.Parts)),
		records: uint32(it.Records), codec: it.Codec, signal: it.Signal, id: it.ID,
	}
	err := q.admit(ctx, &h, &it, how)
	if err != nil && !errors.Is(err, ErrDuplicate) {
		return 0, err
	}
	if how&Synced != 0 {
		if e := q.durable(ctx, h.end()); e != nil {
			if how&Held != 0 && err == nil {
				q.Nack(h.seq) // who gets an error does not know what to give back
			}
			return 0, e
		}
	}
	return h.seq, err
}

// admit appends, once there is room.
func (q *Queue) admit(ctx context.Context, h *recHead, it *Item, how How) error {
	for {
		if o := q.options(); h.size() > o.MaxSize-o.SegmentSize-o.ackRoom()-2*fileHeader {
			return fmt.Errorf("%w: %d bytes", ErrTooLarge, h.size())
		}
		q.write.Lock()
		err := q.tryAppend(h, it, how)
		q.write.Unlock()
		if !errors.Is(err, errNoRoom) && !isFull(err) {
			return err
		}
		made, err := q.makeRoom(ctx)
		switch {
		case err != nil:
			return err
		case made:
		case q.options().WhenFull == Block:
			if err := q.waitRoom(ctx); err != nil {
				return err
			}
		default:
			q.mu.Lock()
			q.stats.Refused += uint64(h.records)
			q.mu.Unlock()
			return ErrFull
		}
	}
}

// makeRoom removes what is not needed any more or, if that was nothing, what the policy gives up. It reports whether it is
// worth to try again.
func (q *Queue) makeRoom(ctx context.Context) (bool, error) {
	if err := q.commit.lock(ctx); err != nil {
		return false, err
	}
	defer q.commit.unlock()
	if q.isClosed() {
		return false, ErrClosed
	}
	n, _ := q.collect() // an error shows in Stats, and leaves no room
	return n > 0 || q.options().WhenFull == DropOldest && q.dropOldest(), nil
}

// waitRoom waits until something was removed, or it is time to look again.
func (q *Queue) waitRoom(ctx context.Context) error {
	q.mu.Lock()
	change := q.changed()
	closed := q.closed
	q.mu.Unlock()
	if closed {
		return ErrClosed
	}
	q.poke(true)
	t := time.NewTimer(retryRoom)
	defer t.Stop()
	select {
	case <-change:
	case <-t.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// tryAppend writes the record, or returns errNoRoom. write is held.
func (q *Queue) tryAppend(h *recHead, it *Item, how How) error {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return ErrClosed
	}
	if seq, ok := q.seen.find(h.id); ok {
		h.seq = seq
		q.stats.Duplicates++
		q.mu.Unlock()
		return ErrDuplicate
	}
	g := q.active
	over := g != nil && (g.poisoned || g.end > fileHeader && g.end+h.size() > q.options().SegmentSize)
	behind := q.unsynced > maxUnsynced || len(q.dirty) > 0 && q.next-q.dirty[0].syncedSeq > jump/2
	q.mu.Unlock()
	if behind {
		return q.catchUp(h, it, how)
	}
	if over {
		q.seal(g)
		g = nil
	}
	if err := q.room(h.size(), how); err != nil {
		q.setFull(true)
		return err
	}
	if g == nil {
		var err error
		if g, err = q.begin(); err != nil {
			return q.diskError("begin segment", err)
		}
	}
	h.seq = q.next
	if err := q.put(g, h, it.Parts, it.Payload); err != nil {
		if isFull(err) && how&Spill != 0 && !g.sealed && q.spare.shrink() {
			err = q.put(g, h, it.Parts, it.Payload)
		}
		if err != nil {
			return q.diskError("write", err)
		}
	}
	q.appended(g, h, it.Parts, how)
	return nil
}

// catchUp waits for the disk, when more is on the way to it than Open could verify. write is held, and held again when it
// returns.
func (q *Queue) catchUp(h *recHead, it *Item, how How) error {
	q.write.Unlock()
	err := q.durable(context.Background(), q.end())
	q.write.Lock()
	if err != nil {
		return err
	}
	return q.tryAppend(h, it, how)
}

// end returns the sequence after the last record.
func (q *Queue) end() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.next
}

// put writes a record behind the last one of g. write is held.
func (q *Queue) put(g *segment, h *recHead, parts []Part, payload []byte) (err error) {
	h.put(q.head[:], g.gen)
	n := recHeader + putParts(q.head[recHeader:], parts, h.check)
	if len(payload) <= smallPayload {
		n += copy(q.head[n:], payload)
		_, err = g.file.WriteAt(q.head[:n], g.end)
	} else if _, err = g.file.WriteAt(q.head[:n], g.end); err == nil {
		_, err = g.file.WriteAt(payload, g.end+int64(n))
	}
	if err != nil && (g.file.Truncate(g.end) != nil || !isFull(err)) {
		q.seal(g) // who knows what it holds beyond its end
	}
	return err
}

// appended takes note of a record that is written.
func (q *Queue) appended(g *segment, h *recHead, parts []Part, how How) {
	q.mu.Lock()
	off, size := g.end, h.size()
	g.end += size
	g.next = h.end()
	q.next = g.next
	q.used += size
	q.unsynced += size
	q.freeLeft -= size
	q.stats.Records += uint64(h.records)
	q.stats.Appended += uint64(h.records)
	q.stats.Full = false
	first := len(q.dirty) == 0
	if first || q.dirty[len(q.dirty)-1] != g {
		q.dirty = append(q.dirty, g)
	}
	q.seen.add(h.id, h.seq)
	for _, p := range parts {
		g.parts.add(p, q.options().Sources)
	}
	if how&Held != 0 {
		q.flights[h.seq] = flight{seg: g, off: off, size: size, records: h.records}
		q.fresh.pass(g, off, h)
	} else {
		q.wakeAll()
	}
	much := q.unsynced > muchUnsynced
	q.mu.Unlock()
	if first || much {
		q.poke(false)
	}
}

// begin makes a new segment, and appends go there. The name of the first one after Open is made durable: after a power
// cut the position is a jump away from it, so that no sequence is given out twice. write is held.
func (q *Queue) begin() (*segment, error) {
	g, err := q.create(q.next, "")
	if err != nil {
		return nil, err
	}
	if !q.begun {
		if err := q.fs.SyncDir(q.dir); err != nil {
			g.file.Close()
			_ = q.fs.Remove(q.path(g.name))
			return nil, err
		}
		q.begun = true
	}
	q.mu.Lock()
	q.segs = append(q.segs, g)
	q.used += g.end
	q.freeLeft -= g.end
	q.active = g
	q.mu.Unlock()
	return g, nil
}

// create makes the file of a segment that starts at base, under the name as, if that is not empty. write is held.
func (q *Queue) create(base uint64, as string) (*segment, error) {
	q.mu.Lock()
	gen := q.gen
	q.gen++
	q.mu.Unlock()
	g := &segment{
		name: segName(gen, base), gen: gen, base: base, created: time.Now().UnixNano(), end: fileHeader, next: base, synced: fileHeader, syncedSeq: base,
	}
	if as == "" {
		as = g.name
	} else {
		_ = q.fs.Remove(q.path(as))
	}
	f, err := q.fs.Create(q.path(as))
	if err != nil {
		return nil, err
	}
	h := fileHead{id: q.id, generation: gen, base: base, created: g.created}
	if _, err := f.WriteAt(h.encode(magicLog), 0); err != nil {
		f.Close()
		_ = q.fs.Remove(q.path(as)) // if it stays, it is an empty segment
		return nil, err
	}
	g.file = f
	return g, nil
}

// seal ends g: the next record goes to another segment. write is held.
func (q *Queue) seal(g *segment) {
	q.mu.Lock()
	defer q.mu.Unlock()
	g.sealed = true
	if q.active == g {
		q.active = nil
	}
	if g.synced == g.end && g.file != nil && !g.poisoned {
		g.file.Close()
		g.file = nil
	}
	q.checkDone(g)
}

// ackRoom is the bytes that records leave to the acknowledgements of what is there already.
func (o *Options) ackRoom() int64 { return o.SegmentSize / 64 }

// room reports whether n more bytes may be written: within the quota, and above the floor of free space. write is held.
func (q *Queue) room(n int64, how How) error {
	o := q.options()
	limit := o.MaxSize - o.SegmentSize
	if how&Spill != 0 {
		limit = o.MaxSize
	}
	q.mu.Lock()
	over := q.used+n+q.acks.size.Load() > limit-o.ackRoom()
	left := q.freeLeft
	last := len(q.segs) - 1
	idle := last >= 0 && q.segs[last].next > q.segs[last].base && q.settled.covers(q.segs[last].base, q.segs[last].next)
	q.mu.Unlock()
	if over {
		if idle { // the last segment cannot be removed, but for a newer one
			if q.active != nil {
				q.seal(q.active)
			}
			_, _ = q.begin() // an error is met again, and reported, by the next one who tries
		}
		return errNoRoom
	}
	keep := o.MinFree
	if gap := q.spare.want.Load() - q.spare.size.Load(); gap > 0 { // what acknowledgements were given is not for records
		keep, left = keep+gap, 0
	}
	if keep <= 0 || how&Spill != 0 || left >= n {
		return nil
	}
	free, err := q.fs.Free(q.dir)
	if err != nil {
		return nil // a full disk will say so itself
	}
	spare := int64(min(free, 1<<62)) - keep
	if spare < n {
		return errNoRoom
	}
	q.mu.Lock()
	q.freeLeft = min(spare, n+freeStep)
	q.mu.Unlock()
	return nil
}

// diskError counts and words an error of the disk.
func (q *Queue) diskError(what string, err error) error {
	q.mu.Lock()
	q.stats.Err = err
	q.mu.Unlock()
	if isFull(err) {
		q.setFull(true)
	}
	return fmt.Errorf("%s: %w", what, err)
}

func (q *Queue) setFull(full bool) {
	q.mu.Lock()
	q.stats.Full = full
	q.mu.Unlock()
}

// dropOldest gives up the oldest segment. What is in somebody's hands counts as dropped only when it is given back. commit
// is held. It reports whether room was made.
func (q *Queue) dropOldest() bool {
	q.write.Lock()
	if len(q.segs) == 1 {
		if q.active != nil && q.active.next > q.active.base {
			q.seal(q.active)
		}
		if q.active == nil {
			if _, err := q.begin(); err != nil {
				q.write.Unlock()
				return false
			}
		}
	}
	q.write.Unlock()
	q.mu.Lock()
	if len(q.segs) < 2 {
		q.mu.Unlock()
		return false
	}
	g := q.segs[0]
	gone := q.settle(g.base, g.next, ackDropped) - q.strand(g.base, g.next, ackDropped)
	q.stats.Records -= gone
	q.stats.Dropped += gone
	q.mu.Unlock()
	n, err := q.collect()
	return n > 0 && err == nil
}
