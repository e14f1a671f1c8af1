package spool

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"time"
)

// Report is what Inspect found.
type Report struct {
	Segments []SegmentReport
	Items    int    // whole ones, settled or not
	Waiting  uint64 // records that are whole and not settled
	Settled  uint64 // records that are whole, and acknowledged or dropped
	Lost     uint64 // records that are damaged, and not noted as such before
	Noted    uint64 // records that were noted as lost before
	Bytes    int64  // of segments and acknowledgements
	Closed   bool   // by Close: nothing can be missing at the end
}

// SegmentReport is one segment.
type SegmentReport struct {
	Name       string
	Size       int64
	Created    time.Time // zero when the file header is damaged
	Base, Next uint64    // sequences
	Items      int
	Waiting    uint64 // records
	Lost       uint64 // records
	Tail       int64  // bytes at its end which are no record
	Damage     []string
}

// Entry is an item as it lies in a spool.
type Entry struct {
	Taken
	Settled bool // acknowledged or dropped: kept until its segment can go
	Segment string
	Offset  int64
}

// Inspect reads and verifies the spool in dir without owning it, and changes nothing; fs may be nil. It calls each, which
// may be nil, with all whole items in the order of their sequences, until it returns an error. While another process
// writes, what it sees is a moment's: files may vanish under it, which it reports as damage.
func Inspect(dir string, fs FS, each func(Entry) error) (Report, error) {
	if fs == nil {
		fs = osFS{}
	}
	var r Report
	if err := refuseNewer(fs, dir); err != nil {
		return r, fmt.Errorf("inspect spool %s: %w", dir, err)
	}
	segs, err := findSegments(fs, dir)
	if err != nil {
		return r, fmt.Errorf("inspect spool %s: %w", dir, err)
	}
	settled, noted := r.acks(fs, dir)
	for i, g := range segs {
		if err := r.segment(fs, dir, g, settled, each); err != nil {
			return r, err
		}
		if i == len(segs)-1 {
			break
		}
		s := &r.Segments[i]
		if n := between(settled, g.next, g.limit); n > 0 {
			s.Lost += n
			s.Damage = append(s.Damage, fmt.Sprintf("%d records are missing before the next segment", n))
		}
	}
	for _, s := range r.Segments {
		r.Lost += s.Lost
	}
	for _, s := range noted {
		r.Noted += (s.to - s.from) % jump
	}
	return r, nil
}

// acks reads what is settled, and which of it was lost.
func (r *Report) acks(fs FS, dir string) (settled, noted spans) {
	list, _ := fs.ReadDir(dir)
	for _, i := range list {
		if i.Name != acksName {
			continue
		}
		f, err := fs.Open(filepath.Join(dir, acksName))
		if err != nil {
			continue
		}
		r.Bytes += i.Size
		_, _ = readAcks(f, i.Size, func(kind byte, s span) {
			settled.add(s.from, s.to)
			if kind == ackLost {
				noted.add(s.from, s.to)
			}
		}, func(ID, uint64) {}, func(Part) {})
		f.Close()
	}
	return settled, noted
}

func (r *Report) segment(fs FS, dir string, g *stored, settled spans, each func(Entry) error) error {
	s := SegmentReport{Name: g.name, Size: g.size, Base: g.base}
	if g.whole {
		s.Created = time.Unix(0, g.created)
	} else {
		s.Damage = append(s.Damage, "the file header is damaged; its name stands in for it")
	}
	f, err := fs.Open(filepath.Join(dir, g.name))
	if err != nil {
		s.Damage = append(s.Damage, err.Error())
		r.Segments = append(r.Segments, s)
		return nil
	}
	defer f.Close()
	stop := errors.New("stop")
	var payload []byte
	w := walk{ahead: 256 << 10, verify: true}
	w.lost = func(from, to uint64, off int64) {
		if n := to - from - settled.count(from, to); n > 0 {
			s.Lost += n
			s.Damage = append(s.Damage, fmt.Sprintf("%d records are damaged before or at byte %d", n, off))
		}
	}
	w.item = func(off int64, h *recHead, parts []Part) error {
		e := Entry{takenOf(h, slices.Clone(parts), payload), settled.has(h.seq), g.name, off}
		s.Items++
		if len(parts) < int(h.parts) {
			s.Damage = append(s.Damage, fmt.Sprintf("the parts of the item at byte %d are damaged, which costs no record", off))
		}
		if e.Settled {
			r.Settled += uint64(h.records)
		} else {
			s.Waiting += uint64(h.records)
		}
		if each == nil {
			return nil
		}
		if err = each(e); err != nil {
			return stop
		}
		return nil
	}
	if each != nil {
		w.bytes = func(_ int64, p []byte) error { payload = p; return nil }
	}
	marked, failed := w.run(g, f)
	if failed == stop {
		return err
	}
	if failed != nil && failed != io.EOF {
		s.Damage = append(s.Damage, failed.Error())
	}
	s.Next = g.next
	if s.Tail = g.size - g.end; marked {
		s.Tail = max(s.Tail-recHeader, 0)
	}
	r.Closed = marked
	r.Items += s.Items
	r.Waiting += s.Waiting
	r.Bytes += g.size
	r.Segments = append(r.Segments, s)
	return nil
}

// Repair owns the spool in dir for as long as it takes, verifies every record, cuts off what was not written to its end,
// notes what is lost, and removes what is not needed any more: after it, Inspect finds nothing lost that is not noted. The
// Stats tell what it found.
func Repair(dir string, o Options) (Stats, error) {
	o.manual, o.Salvage = true, true
	q, err := Open(dir, o)
	if err != nil {
		return Stats{}, err
	}
	segs, err := findSegments(q.fs, dir)
	if err != nil {
		return Stats{}, errors.Join(err, q.Close())
	}
	for _, g := range segs {
		if g.whole && g.from != q.id {
			continue
		}
		w := walk{verify: true, lost: func(from, to uint64, _ int64) {
			q.mu.Lock()
			defer q.mu.Unlock()
			q.stats.Records -= q.lose(from, to)
		}}
		if _, err := q.walk(g, &w, false); err != nil {
			return Stats{}, errors.Join(fmt.Errorf("repair %s: %w", g.name, err), q.Close())
		}
	}
	err = q.Close()
	return q.Stats(), err
}
