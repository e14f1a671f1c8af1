package file

import (
	"context"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
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
	life   uint64    // names what it holds among all that was ever read
	news   uint64    // the last of collector.news that is about it
	seen   time.Time // last time a path led to it
	acked  *progress
	origin *creel.Origin
	whole  int64 // size on disk of an archive that was read to its end; 0: it was not

	f       *os.File // nil: not open now
	opened  time.Time
	slot    int           // where it is in collector.opened
	hot     bool          // it is in collector.hot
	queued  bool          // it is in collector.queue
	woken   time.Time     // when it was last known to change
	link    string        // where path leads to, if it is a link
	deaf    int           // how often it changed without a word
	pos     int64         // up to where it was sent
	ending  ending        // of the text up to pos, if that is known
	clean   int64         // records that were sent before pos lie before it, and later ones do not; -1: there is no such place
	taken   []creel.Range // what a disk queue had of it at start
	chain   chain         // what makes records of its lines
	zip     *archive      // nil: it is not compressed
	align   bool          // pos is somewhere near the end, and shall be moved to the start of a line
	want    int           // size of the next read, when the line at pos is longer than the last one
	waited  int64         // size of the file when only an unfinished line was left of it
	stamp   time.Time     // of the file, when it was last known to be the one that it was; zero: not known
	drained bool          // everything was sent when last looked
	rested  time.Time     // when that was
	done    bool          // it will not be read again, unless a batch comes back

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
	waiting   int    // spans without an answer
	lost      bool   // the framework abandoned one: it must be sent again
	ending    ending // of the text up to committed, if that is known
}

type span struct {
	end    int64
	ending ending
	done   bool
}

// settle takes the answer about a batch. nil and a refusal both decide about its lines; an abandoned batch does not.
func (c *collector) settle(p *progress, s *span, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.waiting--
	if errors.Is(err, creel.ErrAbandoned) {
		p.lost, c.lost = true, true
		return
	}
	s.done = true
	c.advance(p)
}

// advance moves p on behind what is done. c.mu is locked.
func (c *collector) advance(p *progress) {
	for len(p.pending) > 0 && p.pending[0].done {
		if s := p.pending[0]; s.end > p.committed {
			c.unsaved += s.end - p.committed
			p.committed, p.ending = s.end, s.ending
		}
		p.pending = p.pending[1:]
		c.dirty = true
	}
	if c.unsaved >= saveBytes {
		c.hurry()
	}
}

// turn sends one read of t. It reports whether there is more to read at once.
func (c *collector) turn(ctx context.Context, t *tail, out creel.Sink, now time.Time) (more bool, err error) {
	if t.f == nil || c.isLost(t) || c.isNews(t) {
		return false, nil
	}
	size, err := t.f.Seek(0, io.SeekEnd) // costs less than Stat
	if err != nil {
		c.complain(t.path, slog.LevelWarn, "read file: "+err.Error())
		return false, nil
	}
	if t.zip != nil {
		return c.turnArchive(ctx, t, size, out, now)
	}
	if size < t.pos {
		return true, c.replaced(ctx, t, out, now)
	}
	stop, taken := t.ahead(size)
	if stop <= t.pos && taken.To > 0 {
		return true, c.leap(ctx, t, taken, out, now)
	}
	last := !t.gone.IsZero() && now.Sub(t.gone) > c.linger && now.Sub(t.active) > c.linger
	if size == t.pos || size == t.waited && !last {
		if t.drained && t.rested.Equal(now) { // others are busy in this round
			return false, nil
		}
		if same, err := c.unchanged(t, now); err != nil {
			c.complain(t.path, slog.LevelWarn, "read file: "+err.Error())
		} else if !same {
			return true, c.replaced(ctx, t, out, now)
		}
		t.drained, t.rested = true, now
		return false, c.rest(ctx, t, out, now, last)
	}
	t.drained = false
	before := t.ending.Size
	whole := creel.NewBuffer(before + int(min(stop-t.pos, max(int64(c.cfg.ReadSize), int64(t.want)))))
	n, err := t.f.ReadAt(whole, t.pos-int64(before))
	if err != nil && err != io.EOF {
		c.complain(t.path, slog.LevelWarn, "read file: "+err.Error())
		return false, nil
	}
	// Checked after the read: had the file been truncated before it, what was read is not what should follow.
	if same, err := c.verify(t); err != nil {
		c.complain(t.path, slog.LevelWarn, "read file: "+err.Error())
		return false, nil
	} else if !same || n < before || endingOf(whole[:before]) != t.ending {
		return true, c.replaced(ctx, t, out, now)
	} else if c.isNews(t) { // it has become known better
		return false, nil
	}
	n -= before
	code, buf := t.chain.encoding, whole[before:]
	end, unfinished := code.whole(buf[:n]), false
	if end == 0 {
		skip := t.mark(buf[:n])
		enough := skip + t.chain.limit + 2*code.unit() // to know that the line is too long, even if it ends with a carriage return
		switch {
		case n >= enough:
			end, unfinished = skip+code.cutAt(buf[skip:n], t.chain.limit), true
		case t.pos+int64(n) < stop:
			t.want = min(2*n, enough)
			return true, nil
		case stop < size:
			end, unfinished = n, true
		case last:
			end = n
		default:
			t.waited, t.drained = size, true
			return false, c.rest(ctx, t, out, now, false)
		}
	}
	t.want = 0
	if err := c.deliver(ctx, t, chunk{text: buf[:end], whole: whole[:before+end], unfinished: unfinished}, out, now); err != nil {
		return false, err
	}
	return t.pos < size, nil
}

// rest is what there is to do when everything that can be read of t was read.
func (c *collector) rest(ctx context.Context, t *tail, out creel.Sink, now time.Time, last bool) error {
	switch {
	case !t.chain.idle() && last:
		return c.deliver(ctx, t, chunk{flush: true, since: now}, out, now)
	case !t.chain.idle():
		return c.deliver(ctx, t, chunk{flush: true, since: now.Add(-c.cfg.Multiline.Timeout)}, out, now)
	case last:
		c.finish(t)
	}
	return nil
}

// replaced sends what was read of t before it was truncated or another file got its inode, and starts anew.
func (c *collector) replaced(ctx context.Context, t *tail, out creel.Sink, now time.Time) error {
	if !t.chain.idle() {
		if err := c.deliver(ctx, t, chunk{flush: true, since: now}, out, now); err != nil {
			return err
		}
	}
	c.restart(t)
	return nil
}

// mark returns how many bytes of text, which is at t.pos, are a byte order mark.
func (t *tail) mark(text []byte) int {
	if t.pos > 0 {
		return 0
	}
	return t.chain.encoding.mark(text)
}

// chunk is a step of a file's reading.
type chunk struct {
	text       []byte // from the tail's pos on
	whole      []byte // text, with some of the file before it; nil: text is all there is
	unfinished bool   // the last line goes on beyond text
	flush      bool   // what was open since a time, or longer, shall be sent
	since      time.Time
}

// ending returns how the text up to the first n bytes of k ended.
func (k *chunk) ending(n int64) ending {
	if k.whole == nil {
		return endingOf(k.text[:n])
	}
	return endingOf(k.whole[:int64(len(k.whole)-len(k.text))+n])
}

// deliver sends the records of k.
func (c *collector) deliver(ctx context.Context, t *tail, k chunk, out creel.Sink, now time.Time) error {
	r := c.memory.NewRecords()
	l := liner{records: r, origin: t.origin, static: c.static, observed: time.Now().UnixNano(), max: int(c.cfg.MaxLineSize)}
	end, skip := t.pos+int64(len(k.text)), t.mark(k.text)
	t.chain.feed(&l, k.text[skip:], t.pos, skip, k.unfinished, now)
	if k.flush {
		t.chain.flush(&l, k.since)
	}
	b := creel.NewBatch(creel.Logs, r)
	if b.Len() == 0 { // everything is waiting for what follows
		creel.Settle(b, nil)
		t.moved(end, &k)
		return nil
	}
	p, s := t.acked, &span{end: t.chain.safe(end)}
	if s.end > t.pos {
		s.ending = k.ending(s.end - t.pos)
	}
	clean := t.chain.isClean(s.end)
	if clean && t.clean >= 0 && t.zip == nil {
		b.SetParts(creel.Part{Source: t.life, From: uint64(t.clean), To: uint64(s.end)})
	}
	c.mu.Lock()
	p.pending = append(p.pending, s)
	p.waiting++
	c.mu.Unlock()
	b.OnDone(func(err error) { c.settle(p, s, err) })
	if err := c.send(ctx, b, out); err != nil {
		creel.Settle(b, creel.ErrAbandoned) // still ours; and so its lines are read again, should Collect be called again
		return err
	}
	if t.active = now; t.acked != p { // it was begun anew meanwhile
		return nil
	}
	t.moved(end, &k)
	if t.clean = -1; clean {
		t.clean = s.end
	}
	return nil
}

// moved notes that t was sent up to end, by k.
func (t *tail) moved(end int64, k *chunk) {
	if len(k.text) > 0 {
		t.ending = k.ending(int64(len(k.text)))
	}
	t.pos = end
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
	switch p := t.acked; {
	case p.lost && p.waiting > 0:
		c.lost = true
	case p.lost:
		t.acked = &progress{committed: p.committed, ending: p.ending}
		t.done, t.look, t.whole = false, t.f == nil, 0
		t.moveTo(p.committed, p.ending)
		if t.f != nil {
			c.wakeUp(t)
		} else {
			c.suspects[t.path] = true
		}
	}
}

// moveTo makes pos the next byte to be read, behind text that ends with e.
func (t *tail) moveTo(pos int64, e ending) {
	t.pos, t.ending, t.clean, t.waited, t.want = pos, e, pos, 0, 0
	t.chain.reset()
	if t.zip != nil {
		*t.zip = archive{size: t.zip.size, since: t.zip.since, ending: t.zip.ending, distinct: t.zip.distinct}
	} else if t.f != nil && pos > 0 {
		t.chain.cut = !t.chain.encoding.atStart(t.f, pos)
	}
}

// verify reports whether t is still the file it was, and lets its fingerprint grow.
func (c *collector) verify(t *tail) (bool, error) {
	n, err := t.f.ReadAt(c.head, 0)
	if err != nil && err != io.EOF {
		return false, err
	}
	if t.zip == nil {
		t.chain.encoding = t.chain.encoding.of(c.head[:n])
	}
	if n < t.print.size || crc32.Checksum(c.head[:t.print.size], castagnoli) != t.print.sum {
		return false, nil
	}
	if n > t.print.size {
		c.mu.Lock()
		t.print = fingerprint{n, crc32.Checksum(c.head[:n], castagnoli)}
		c.announce(t)
		c.mu.Unlock()
	}
	return true, nil
}

// unchanged reports whether t, which has the size that it had, is still the file it was: it may have been truncated and
// have grown since to where it was. That is looked at when its time stamp has changed.
func (c *collector) unchanged(t *tail, now time.Time) (bool, error) {
	fi, err := t.f.Stat()
	if err != nil || fi.ModTime().Equal(t.stamp) {
		return err == nil, err
	}
	same, err := c.verify(t)
	if same && err == nil {
		same, err = t.endsAsRead()
	}
	if same && err == nil {
		t.seal(fi, now)
	}
	return same, err
}

// endsAsRead reports whether what lies before t's position is still what was read.
func (t *tail) endsAsRead() (bool, error) {
	if t.zip != nil {
		return true, nil
	}
	e, err := endingAt(t.f, t.pos, t.ending.Size)
	return e == t.ending, err
}

// seal notes that t was the file it was, after fi was taken.
func (t *tail) seal(fi fs.FileInfo, now time.Time) {
	t.stamp = time.Time{}
	if now.Sub(fi.ModTime()) > clockGrain { // what is written from now on has a later stamp
		t.stamp = fi.ModTime()
	}
}

// isAsRead reports whether there is nothing to read of t, nor to be verified, when fi is what it is now.
func (t *tail) isAsRead(fi fs.FileInfo) bool {
	return (fi.Size() == t.pos || fi.Size() == t.waited) && fi.ModTime().Equal(t.stamp)
}

// restart reads t from its beginning: it was truncated, or another file has got its inode.
func (c *collector) restart(t *tail) {
	c.log.Info("file was truncated or replaced; reading it from its beginning", "path", t.path)
	c.mu.Lock()
	if t.zip == nil {
		c.remember(t.print, t.acked, c.now)
	}
	t.acked, t.print, t.whole = &progress{}, fingerprint{}, 0
	t.life, t.taken = rand.Uint64(), nil
	c.announce(t)
	c.mu.Unlock()
	t.moveTo(0, ending{})
	_, _ = c.verify(t) // takes the new fingerprint; an error will come again with the next read
}

// openTail opens t at its path, if that still leads to it. An error is named once.
func (c *collector) openTail(t *tail) bool {
	if len(c.opened) >= c.cfg.MaxOpenFiles && !c.park() {
		if !t.queued {
			t.queued = true
			c.queue = append(c.queue, t)
		}
		return true
	}
	c.stats++
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
	t.f, t.opened, t.slot = f, c.now, len(c.opened)
	c.opened = append(c.opened, t)
	c.wakeUp(t)
	t.look, t.drained = false, false
	delete(c.complaints, t.path)
	same, err := c.verify(t)
	if same && err == nil && fi.Size() >= t.pos {
		same, err = t.endsAsRead()
	}
	switch {
	case err != nil:
		c.complain(t.path, slog.LevelWarn, "read file: "+err.Error())
		c.shut(t)
		return false
	case !same || fi.Size() < t.pos && t.zip == nil:
		c.restart(t)
	case t.align:
		c.mu.Lock()
		t.acked.committed, c.dirty = t.chain.encoding.start(f, t.pos), true
		c.mu.Unlock()
		t.moveTo(t.acked.committed, ending{})
	default:
		t.moveTo(t.pos, t.ending)
		t.prove(fi.Size())
	}
	t.align = false
	t.seal(fi, c.now)
	return true
}

// park closes the file that has been idle the longest, or else the one that has been open the longest if others have
// waited for a while. It will be opened again when there is something to read. No path would show that of a rotated one:
// so it is closed only if there is no other, and if it was read to its end.
func (c *collector) park() bool {
	var idle, rotated, old *tail
	longer := func(t, than *tail) bool { return than == nil || t.active.Before(than.active) }
	for _, t := range c.opened {
		switch {
		case !t.chain.idle():
		case !t.gone.IsZero():
			if longer(t, rotated) && t.isRead() {
				rotated = t
			}
		case t.drained && longer(t, idle) && t.isRead():
			idle = t
		case c.now.Sub(t.opened) > c.cfg.PollInterval && (old == nil || t.opened.Before(old.opened)):
			old = t
		}
	}
	switch {
	case idle != nil:
		c.shut(idle)
	case rotated != nil:
		c.finish(rotated)
	case old != nil:
		c.shut(old)
		old.queued = true
		c.queue = append(c.queue, old)
	default:
		return false
	}
	return true
}

// isRead reports whether everything was read of t, which is open; but for a last line that is unfinished, unless t was
// rotated. That it was drained when last looked at does not tell: it may have grown since.
func (t *tail) isRead() bool {
	if t.zip != nil {
		return t.zip.read
	}
	size, err := t.f.Seek(0, io.SeekEnd)
	return err != nil || size == t.pos || size == t.waited && t.gone.IsZero()
}

func (c *collector) shut(t *tail) {
	if t.f == nil {
		return
	}
	t.f.Close()
	t.f = nil
	last := c.opened[len(c.opened)-1]
	c.opened[t.slot], last.slot = last, t.slot
	c.opened = c.opened[:len(c.opened)-1]
}

// finish closes t for good. It is remembered until it has been acknowledged.
func (c *collector) finish(t *tail) {
	c.shut(t)
	t.done = true
}

// newTail returns a tail of the file at path, whose position is pos.
func (c *collector) newTail(id fileID, path string, pos int64, seen time.Time) *tail {
	t := &tail{id: id, path: path, life: rand.Uint64(), pos: pos, clean: pos, seen: seen, acked: &progress{committed: pos}, origin: c.originOf(path),
		chain: chain{stages: &c.stages, encoding: c.encoding}}
	if isArchive(path) {
		t.zip = &archive{}
	}
	return t
}

// originOf describes the file at path.
func (c *collector) originOf(path string) *creel.Origin {
	attrs := slices.Clone(c.resource.Attrs)
	attrs.Set("log.file.path", creel.String(path))
	attrs.Set("log.file.name", creel.String(filepath.Base(path)))
	if c.cfg.Format != "text" {
		for _, a := range kubernetes(path) {
			attrs.Set(a.Key, a.Value)
		}
	}
	for name, value := range c.cfg.PathPattern.groups(path) {
		attrs.Set(name, creel.String(value))
	}
	for _, name := range slices.Sorted(maps.Keys(c.cfg.Resource)) {
		attrs.Set(name, creel.String(c.cfg.Resource[name]))
	}
	o := &creel.Origin{Resource: c.resource}
	o.Resource.Attrs = attrs
	return o
}
