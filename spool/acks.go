package spool

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
)

// The log of acknowledgements: a file header, and then entries of 32 bytes in any order. An entry says that sequences are
// settled, or that a batch id, or a part of a source, was taken whose record is gone with its segment.
//
//	0 checksum 4   CRC32C of bytes 4 to 32
//	4 kind     1
//	8 sequence 8   16 end of the range 8, or the batch id 16
//	8 source   8   16 from 8               24 to 8
const (
	ackEntry  = 32
	acksName  = "acks"
	acksTemp  = "acks.tmp"
	acksAside = "acks.aside"
	compactAt = 256 << 10 // bytes from which on it is looked whether the log can be made smaller
)

// Kinds of entries.
const (
	ackDone = 1 + iota
	ackDropped
	ackLost
	ackSeen
	ackPart
)

func putAck(b []byte, kind byte, seq, x, y uint64) []byte {
	b = append(b, make([]byte, ackEntry)...) // in place: what is given to crc32 escapes
	e := b[len(b)-ackEntry:]
	e[4] = kind
	binary.LittleEndian.PutUint64(e[8:], seq)
	binary.LittleEndian.PutUint64(e[16:], x)
	binary.LittleEndian.PutUint64(e[24:], y)
	binary.LittleEndian.PutUint32(e, crc32.Checksum(e[4:], castagnoli))
	return b
}

func putSeen(b []byte, id ID, seq uint64) []byte {
	return putAck(b, ackSeen, seq, binary.LittleEndian.Uint64(id[:]), binary.LittleEndian.Uint64(id[8:]))
}

func putPart(b []byte, p Part) []byte { return putAck(b, ackPart, p.Source, p.From, p.To) }

// readAcks calls one of the functions for every entry that is whole, and returns where the next one goes.
func readAcks(f io.ReaderAt, size int64, settled func(kind byte, s span), taken func(ID, uint64), part func(Part)) (int64, error) {
	s := newScanner(f, 0, size, int(min(size, 64<<10)))
	off := int64(fileHeader)
	for ; off+ackEntry <= size; off += ackEntry {
		b := s.view(off, ackEntry)
		if binary.LittleEndian.Uint32(b) != crc32.Checksum(b[4:], castagnoli) {
			continue
		}
		seq, to := binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint64(b[16:])
		switch kind := b[4]; {
		case kind == ackSeen:
			taken(ID(b[16:32]), seq)
		case kind == ackPart:
			part(Part{seq, to, binary.LittleEndian.Uint64(b[24:])})
		case kind >= ackDone && kind <= ackLost && seq < to && to <= 2*maxSequence:
			settled(kind, span{seq, to})
		}
	}
	return max(off, fileHeader), s.fail
}

// ackLog writes that log. What it should hold is in memory, so after any error it is written anew, to another file.
type ackLog struct {
	q       *Queue
	size    atomic.Int64
	pending []byte      // entries that are not written; under Queue.mu
	stale   atomic.Bool // has entries that are not durable

	mu    sync.Mutex // before Queue.mu
	file  File       // nil: it is to be written anew
	spare []byte
	least int64 // its size when it was last written anew
}

// errNoLog says that the log is to be written anew, which has failed for a reason that was told.
var errNoLog = errors.New("acknowledgements cannot be written")

// flush writes the pending entries.
func (l *ackLog) flush() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.q.mu.Lock()
	b := l.pending
	l.pending = l.spare[:0]
	l.q.mu.Unlock()
	l.spare = b
	if len(b) == 0 {
		return nil
	}
	l.stale.Store(true)
	if l.file == nil {
		return errNoLog
	}
	_, err := l.file.WriteAt(b, l.size.Load())
	if isFull(err) && l.q.spare.release() {
		_, err = l.file.WriteAt(b, l.size.Load())
	}
	if err != nil {
		l.abandon()
		return err
	}
	l.size.Add(int64(len(b)))
	return nil
}

func (l *ackLog) abandon() {
	if l.file != nil {
		l.file.Close()
	}
	l.file = nil
	l.stale.Store(true)
}

// persist makes durable what was settled before the call.
func (l *ackLog) persist() error {
	if err := l.flush(); err != nil {
		return l.rewrite()
	}
	if !l.stale.Swap(false) {
		return nil
	}
	l.mu.Lock()
	f := l.file
	l.mu.Unlock()
	if f != nil && f.Sync() == nil { // the only one who closes it meanwhile is a failed flush, and then this fails
		return nil
	}
	l.mu.Lock()
	if l.file == f {
		l.abandon()
	}
	l.mu.Unlock()
	return l.rewrite()
}

// rewrite writes the log anew, without what no segment needs any more. Before it forgets anything, the removal of
// segments is made durable.
func (l *ackLog) rewrite() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.replace()
	if isFull(err) && l.q.spare.release() {
		err = l.replace()
	}
	if err != nil {
		l.stale.Store(true)
	}
	return err
}

func (l *ackLog) replace() error {
	q := l.q
	q.mu.Lock()
	unlinked := q.unlinked
	q.unlinked = false
	q.mu.Unlock()
	if unlinked {
		if err := q.fs.SyncDir(q.dir); err != nil {
			q.mu.Lock()
			q.unlinked = true
			q.mu.Unlock()
			return err
		}
	}
	l.stale.Store(false)
	b := (&fileHead{id: q.id}).encode(magicAcks)
	q.mu.Lock()
	written := len(l.pending) // by what follows, if it comes to its end
	if len(q.segs) > 0 && !q.unlinked {
		q.settled.trim(q.segs[0].base)
		q.damaged.trim(q.segs[0].base)
	}
	for _, s := range q.settled {
		b = putAck(b, ackDone, s.from, s.to, 0)
		b = putAck(b, ackDone, s.from, s.to, 0) // twice: a damaged byte must not make a hole where segments are gone
	}
	for _, s := range q.damaged {
		b = putAck(b, ackLost, s.from, s.to, 0)
	}
	q.seen.each(func(id ID, seq uint64) {
		if g := q.locate(seq); g == nil || g.base > seq || q.isDone(g) {
			b = putSeen(b, id, seq)
		}
	})
	q.gone.each(func(p Part) { b = putPart(b, p) })
	q.mu.Unlock()
	f, err := l.create(b)
	if err != nil {
		_ = q.fs.Remove(q.path(acksTemp))
		return err
	}
	// Some systems do not rename what is open. If the rest fails, the old file may be there or the new one: both are true.
	f.Close()
	if l.file != nil {
		l.file.Close()
		l.file = nil
	}
	err = q.fs.Rename(q.path(acksTemp), q.path(acksName))
	if errors.Is(err, os.ErrExist) && q.fs.Rename(q.path(acksName), q.path(acksAside)) == nil { // a directory is in its place
		q.logf("spool %s: %s is no file; it is %s now", q.dir, acksName, acksAside)
		err = q.fs.Rename(q.path(acksTemp), q.path(acksName))
	}
	if err != nil {
		return err
	}
	if err := q.fs.SyncDir(q.dir); err != nil {
		return err
	}
	if l.file, err = q.fs.Open(q.path(acksName)); err != nil {
		l.file = nil
		return err
	}
	l.size.Store(int64(len(b)))
	l.least = int64(len(b))
	q.mu.Lock()
	l.pending = slices.Delete(l.pending, 0, written)
	q.mu.Unlock()
	return nil
}

// create writes b, durably, to the temporary file.
func (l *ackLog) create(b []byte) (File, error) {
	name := l.q.path(acksTemp)
	f, err := l.q.fs.Create(name)
	if errors.Is(err, os.ErrExist) {
		if err = l.q.fs.Remove(name); err == nil {
			f, err = l.q.fs.Create(name)
		}
	}
	if err != nil {
		return nil, err
	}
	if _, err = f.WriteAt(b, 0); err == nil {
		err = f.Sync()
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// compact makes the log smaller when it has grown to several times of what it needs, and there is room to do so: it is not
// worth the reserve.
func (l *ackLog) compact() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil && l.size.Load() <= max(compactAt, 4*l.least) {
		return nil
	}
	err := l.replace()
	if err == nil {
		return nil
	}
	l.stale.Store(true)
	if isFull(err) && l.file != nil {
		return nil // all is in the old one
	}
	return err
}

func (l *ackLog) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	return err
}
