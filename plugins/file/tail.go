package file

import (
	"bytes"
	"context"
	"errors"
	"hash/crc32"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/creelhq/creel"
)

// fileID is what a file system knows a file by, whatever its name.
type fileID struct{ dev, ino uint64 }

// fingerprint tells a file from the one that gets its inode next, and from what it was before it was truncated: the
// checksum of its first size bytes. It grows with the file up to Config.FingerprintSize.
type fingerprint struct {
	size int
	sum  uint32
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A tail is one file that is followed. It belongs to the goroutine of Collect; those fields that are saved are written
// under collector.mu.
type tail struct {
	id     fileID
	path   string
	print  fingerprint
	seen   time.Time // last time a path led to it
	acked  *progress
	origin *creel.Origin

	f       *os.File // nil: not open now
	pos     int64    // up to where it was sent
	cut     bool     // pos is inside of a line
	align   bool     // pos is somewhere near the end, and shall be moved to the start of a line
	want    int      // size of the next read, when the line at pos is longer than the last one
	waited  int64    // size of the file when only an unfinished line was left of it
	drained bool     // everything was sent when last looked
	done    bool     // it will not be read again, unless a batch comes back

	pass   int       // the last one of resolve in which an included path led here
	gone   time.Time // since when no included path leads here; zero: one does
	look   bool      // search for it among the siblings of path
	active time.Time // when a line was last sent
}

// progress is how far a file has been acknowledged. A truncated file gets a new one, so that late answers about what it
// held before count for nothing.
type progress struct {
	committed int64 // everything before has been acknowledged
	pending   []*span
	waiting   int  // spans without an answer
	lost      bool // the framework abandoned one: it must be sent again
}

type span struct {
	end  int64
	done bool
}

// settle takes the answer about a batch. nil and a refusal both decide about its lines; an abandoned batch does not.
func (c *collector) settle(p *progress, s *span, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.waiting--
	if errors.Is(err, creel.ErrAbandoned) {
		p.lost = true
		return
	}
	s.done = true
	for len(p.pending) > 0 && p.pending[0].done {
		p.committed, p.pending = p.pending[0].end, p.pending[1:]
		c.dirty = true
	}
}

// turn sends one read of t. It reports whether there is more to read at once.
func (c *collector) turn(ctx context.Context, t *tail, out creel.Sink, now time.Time) (more bool, err error) {
	if t.f == nil || c.isLost(t) {
		return false, nil
	}
	size, err := t.f.Seek(0, io.SeekEnd) // costs less than Stat
	if err != nil {
		c.complain(t.path, slog.LevelWarn, "read file: "+err.Error())
		return false, nil
	}
	if size < t.pos {
		c.restart(t)
	}
	last := !t.gone.IsZero() && now.Sub(t.gone) > c.linger && now.Sub(t.active) > c.linger
	if size == t.pos || size == t.waited && !last {
		t.drained = true
		if last {
			c.finish(t)
		}
		return false, nil
	}
	t.drained = false
	buf := newBuffer(int(min(size-t.pos, max(int64(c.cfg.ReadSize), int64(t.want)))))
	n, err := t.f.ReadAt(buf, t.pos)
	if err != nil && err != io.EOF {
		c.complain(t.path, slog.LevelWarn, "read file: "+err.Error())
		return false, nil
	}
	// Checked after the read: had the file been truncated before it, what was read is not what should follow.
	if same, err := c.verify(t); err != nil {
		c.complain(t.path, slog.LevelWarn, "read file: "+err.Error())
		return false, nil
	} else if !same {
		c.restart(t)
		return true, nil
	}
	buf = buf[:n]
	end, unfinished := bytes.LastIndexByte(buf, '\n')+1, false
	if limit := int(c.cfg.MaxLineSize); end == 0 {
		switch {
		case n > limit:
			end, unfinished = cutAt(buf, limit), true
		case t.pos+int64(n) < size:
			t.want = min(2*n, limit+1)
			return true, nil
		case last:
			end = n
		default:
			t.waited, t.drained = size, true
			return false, nil
		}
	}
	t.want = 0
	if err := c.deliver(ctx, t, buf[:end], unfinished, out, now); err != nil {
		return false, err
	}
	return t.pos < size, nil
}

// deliver sends text, the lines from t.pos on.
func (c *collector) deliver(ctx context.Context, t *tail, text []byte, unfinished bool, out creel.Sink, now time.Time) error {
	r := c.memory.NewRecords()
	l := liner{records: r, origin: t.origin, observed: time.Now().UnixNano(), max: int(c.cfg.MaxLineSize), cut: t.cut}
	l.split(text, unfinished)
	b := creel.NewBatch(creel.Logs, r)
	p, s := t.acked, &span{end: t.pos + int64(len(text))}
	c.mu.Lock()
	p.pending = append(p.pending, s)
	p.waiting++
	c.mu.Unlock()
	b.OnDone(func(err error) { c.settle(p, s, err) })
	if err := c.send(ctx, b, out); err != nil {
		creel.Settle(b, creel.ErrAbandoned) // still ours; and so its lines are read again, should Collect be called again
		return err
	}
	t.pos, t.cut, t.active = s.end, l.cut, now
	return nil
}

func (c *collector) isLost(t *tail) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return t.acked.lost
}

// rewind goes back to what has been acknowledged of t, once there is an answer about everything that was sent.
func (c *collector) rewind(t *tail) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := t.acked; p.lost && p.waiting == 0 {
		t.acked = &progress{committed: p.committed}
		t.done, t.look = false, t.f == nil
		t.moveTo(p.committed)
	}
}

// moveTo makes pos the next byte to be read.
func (t *tail) moveTo(pos int64) {
	t.pos, t.waited, t.want = pos, 0, 0
	t.cut = false
	if t.f != nil && pos > 0 {
		var before [1]byte
		n, _ := t.f.ReadAt(before[:], pos-1)
		t.cut = n == 1 && before[0] != '\n'
	}
}

// verify reports whether t is still the file it was, and lets its fingerprint grow.
func (c *collector) verify(t *tail) (bool, error) {
	n, err := t.f.ReadAt(c.head, 0)
	if err != nil && err != io.EOF {
		return false, err
	}
	if n < t.print.size || crc32.Checksum(c.head[:t.print.size], castagnoli) != t.print.sum {
		return false, nil
	}
	if n > t.print.size {
		c.mu.Lock()
		t.print = fingerprint{n, crc32.Checksum(c.head[:n], castagnoli)}
		c.dirty = true
		c.mu.Unlock()
	}
	return true, nil
}

// restart reads t from its beginning: it was truncated, or another file has got its inode.
func (c *collector) restart(t *tail) {
	c.log.Info("file was truncated or replaced; reading it from its beginning", "path", t.path)
	c.mu.Lock()
	t.acked, t.print, c.dirty = &progress{}, fingerprint{}, true
	c.mu.Unlock()
	t.moveTo(0)
	_, _ = c.verify(t) // takes the new fingerprint; an error will come again with the next read
}

// openTail opens t at its path, if that still leads to it. An error is named once.
func (c *collector) openTail(t *tail) bool {
	if c.open >= c.cfg.MaxOpenFiles && !c.park() {
		c.complain(t.path, slog.LevelWarn, "max_open_files is reached; the file has to wait")
		return true
	}
	f, id, fi, err := openFile(t.path)
	if err != nil {
		if !errors.Is(err, os.ErrNotExist) {
			c.complain(t.path, slog.LevelWarn, err.Error())
		}
		return false
	}
	if id != t.id || !fi.Mode().IsRegular() {
		f.Close() // the path leads elsewhere by now: the next look will tell
		return false
	}
	t.f = f
	c.open++
	t.look = false
	delete(c.complaints, t.path)
	switch same, err := c.verify(t); {
	case err != nil:
		c.complain(t.path, slog.LevelWarn, "read file: "+err.Error())
		c.shut(t)
		return false
	case !same || fi.Size() < t.pos:
		c.restart(t)
	case t.align:
		c.mu.Lock()
		t.acked.committed, c.dirty = lineStart(f, t.pos), true
		c.mu.Unlock()
		t.moveTo(t.acked.committed)
	default:
		t.moveTo(t.pos)
	}
	t.align = false
	return true
}

// lineStart returns the start of the line that pos is in, or pos if that is far away.
func lineStart(f io.ReaderAt, pos int64) int64 {
	buf := make([]byte, min(pos, 64<<10))
	from := pos - int64(len(buf))
	n, _ := f.ReadAt(buf, from)
	if i := bytes.LastIndexByte(buf[:n], '\n'); i >= 0 {
		return from + int64(i) + 1
	}
	if from == 0 {
		return 0
	}
	return pos
}

// park closes the file that has been idle the longest. It will be opened again when it has grown.
func (c *collector) park() bool {
	var idle *tail
	for _, t := range c.tails {
		if t.f != nil && t.drained && (idle == nil || t.active.Before(idle.active)) {
			idle = t
		}
	}
	if idle == nil {
		return false
	}
	c.shut(idle)
	idle.done = !idle.gone.IsZero() // a rotated one has no path that would show it growing
	return true
}

func (c *collector) shut(t *tail) {
	if t.f != nil {
		t.f.Close()
		t.f = nil
		c.open--
	}
}

// finish closes t for good. It is remembered until it has been acknowledged.
func (c *collector) finish(t *tail) {
	c.shut(t)
	t.done = true
}

// originOf describes the file at path.
func (c *collector) originOf(path string) *creel.Origin {
	o := &creel.Origin{Resource: c.resource}
	o.Resource.Attrs = append(c.resource.Attrs[:len(c.resource.Attrs):len(c.resource.Attrs)],
		creel.Attr{Key: "log.file.path", Value: creel.String(path)},
		creel.Attr{Key: "log.file.name", Value: creel.String(filepath.Base(path))})
	return o
}
