package file

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/creelhq/creel"
)

// archive is what a tail has beyond others when its file is gzip: a rotated file that is read once, from its beginning
// to its end. Its positions are those of its text, and to go back to one is to decompress anew.
type archive struct {
	size  int64     // of the file, when it was last seen to change
	since time.Time // when that was; zero: not yet
	read  bool      // nothing will come of it until it changes
	retry time.Time // not to be looked at before

	zr   *gzip.Reader // nil: at its beginning
	at   int64        // how much of the text has come of zr
	rest []byte       // what of that is beyond the tail's position
	last []byte       // the end of what was skipped

	ending   ending // of the text up to the tail's position, if it was read before it was compressed
	distinct bool   // it is known that it was not
}

// ending tells how the text ended that was read of a file.
type ending struct {
	Size int    `json:"end_size,omitempty"`
	Sum  uint32 `json:"end_sum,omitempty"`
}

func endingOf(text []byte) ending {
	text = text[max(0, len(text)-maxEnding):]
	return ending{len(text), crc32.Checksum(text, castagnoli)}
}

const (
	maxEnding = 256
	settleFor = 2 * time.Second // an archive whose size changed more recently is still being written
	skipSize  = 8 << 20         // how much text is skipped before it is the next file's turn
	freeSize  = 1 << 30         // an archive may hold so much text, and beyond it
	maxRatio  = 100             // so many times what it has on disk
)

// content is a file that was read to its end. It may come again, compressed.
type content struct {
	Size int    `json:"print_size"`
	Sum  uint32 `json:"print"`
	End  int64  `json:"end"`
	Seen int64  `json:"seen"` // Unix seconds
	ending
	acked *progress // what decides about End, as long as there are batches without an answer
}

// settled brings k up to date. It reports whether all answers are there.
func (k *content) settled() bool {
	if p := k.acked; p != nil {
		k.End, k.ending = p.committed, p.ending
		if p.waiting > 0 {
			return false
		}
		k.acked = nil
	}
	return true
}

const (
	knownFor = 8 * 24 * time.Hour // log files are rotated, and so compressed, once a week at least
	maxKnown = 10_000
)

func isArchive(path string) bool { return strings.HasSuffix(path, ".gz") }

// isForeign reports whether a file is compressed in a way that we do not read.
func isForeign(path string) bool {
	switch filepath.Ext(path) {
	case ".zst", ".xz", ".bz2", ".lz4", ".zip":
		return true
	}
	return false
}

// turnArchive sends one read of t, of size bytes on disk. It reports whether there is more to read at once.
func (c *collector) turnArchive(ctx context.Context, t *tail, size int64, out creel.Sink, now time.Time) (more bool, err error) {
	a := t.zip
	if size != a.size || a.since.IsZero() {
		*a = archive{size: size, since: now}
	}
	t.drained = a.read
	switch {
	case a.read:
		return false, c.rest(ctx, t, out, now, !t.gone.IsZero() && now.Sub(t.gone) > c.linger)
	case now.Sub(a.since) < c.settleFor || now.Before(a.retry):
		return false, nil
	case a.zr == nil:
		if wait, err := c.begin(t, now); err != nil {
			c.damaged(t, err)
			return false, nil
		} else if wait {
			a.zr, a.retry = nil, now.Add(c.settleFor)
			return false, nil
		}
	}
	if ready, err := c.skip(t); err != nil {
		return false, c.ended(ctx, t, nil, err, out, now)
	} else if !ready {
		return true, nil
	}
	buf := creel.NewBuffer(len(a.rest) + int(c.cfg.ReadSize))
	buf, err = a.fill(buf, copy(buf, a.rest))
	if err == nil && a.at > c.free && a.at/maxRatio > a.size {
		err = fmt.Errorf("more than %d times its size, and so not what it seems", maxRatio)
	}
	if err != nil {
		return false, c.ended(ctx, t, buf, err, out, now)
	}
	k := chunk{}
	end, skip := t.chain.encoding.whole(buf), t.mark(buf)
	if limit := t.chain.limit; end == 0 && len(buf) >= skip+limit+2*t.chain.encoding.unit() {
		end, k.unfinished = skip+t.chain.encoding.cutAt(buf[skip:], limit), true
	}
	a.rest, k.text = buf[end:], buf[:end]
	if end == 0 {
		return true, nil
	}
	return true, c.deliver(ctx, t, k, out, now)
}

// skip passes over the text before t's position. It is ready when it is there; it stops before when it has been at it for
// long, or when it turns out that the text is not the one that was read before it was compressed.
func (c *collector) skip(t *tail) (ready bool, err error) {
	a := t.zip
	for skipped := 0; ; {
		if n := min(int64(len(a.rest)), t.pos-(a.at-int64(len(a.rest)))); n > 0 {
			a.last = append(a.last[max(0, len(a.last)+min(int(n), maxEnding)-maxEnding):], a.rest[max(0, n-maxEnding):n]...)
			a.rest = a.rest[n:]
		}
		switch {
		case a.at-int64(len(a.rest)) == t.pos:
			if a.ending.Size > 0 && a.ending != endingOf(a.last[max(0, len(a.last)-a.ending.Size):]) {
				c.startOver(t)
				return false, nil
			}
			return true, nil
		case skipped >= skipSize:
			return false, nil
		}
		a.rest, err = a.fill(creel.NewBuffer(int(c.cfg.ReadSize)), 0)
		skipped += len(a.rest)
		if err == io.EOF && len(a.rest) == 0 && a.ending.Size > 0 { // shorter than what was read
			c.startOver(t)
			return false, nil
		}
		if err != nil && len(a.rest) == 0 {
			return false, err
		}
	}
}

// startOver reads t from its beginning: its text only begins like one that was read before.
func (c *collector) startOver(t *tail) {
	c.mu.Lock()
	t.acked.committed, c.dirty = 0, true
	c.mu.Unlock()
	t.moveTo(0, ending{})
	t.zip.ending, t.zip.distinct = ending{}, true
}

// fill reads into buf behind its first n bytes, until it is full or there is an error.
func (a *archive) fill(buf []byte, n int) ([]byte, error) {
	for n < len(buf) {
		m, err := a.zr.Read(buf[n:])
		n += m
		a.at += int64(m)
		if err != nil {
			return buf[:n], err
		}
	}
	return buf, nil
}

// begin starts to decompress t. It finds out whether its text was read before, and moves t to where that ended; or says
// that it has to wait until that is over.
func (c *collector) begin(t *tail, now time.Time) (wait bool, err error) {
	a := t.zip
	a.at, a.rest, a.last = 0, nil, nil
	if a.zr, err = gzip.NewReader(bufio.NewReaderSize(io.NewSectionReader(t.f, 0, a.size), 64<<10)); err != nil {
		a.zr = nil
		return false, err
	}
	head, err := a.fill(creel.NewBuffer(len(c.head)+1), 0)
	a.rest = head
	whole := err == io.EOF
	if err != nil && len(head) == 0 && !whole {
		return false, err
	}
	t.chain.encoding = t.chain.encoding.of(head)
	if t.pos > 0 || a.distinct {
		return false, nil
	}
	if errors.Is(err, io.ErrUnexpectedEOF) && len(head) <= len(c.head) && now.Sub(a.since) < c.linger {
		return true, nil // too little to know what it is
	}
	pos, end, wait := c.readBefore(head[:min(len(head), len(c.head))], whole && len(head) <= len(c.head))
	if wait || now.Sub(a.since) < c.linger && slices.ContainsFunc(c.queue, (*tail).isUnknown) {
		return true, nil
	}
	if pos > 0 {
		a.ending = end
		c.mu.Lock()
		t.pos, t.acked.committed, c.dirty = pos, pos, true
		c.mu.Unlock()
	}
	return false, nil
}

// readBefore returns how much of a text has been read already, and how that ended. All that is known of the text is its
// head, which is the whole of it if it is short. wait tells that the file is known and will be read further.
func (c *collector) readBefore(head []byte, whole bool) (pos int64, end ending, wait bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.tails {
		full := k.print.size == len(c.head)
		if k.zip != nil || !k.print.of(head) {
			continue
		}
		settled := k.acked.waiting == 0 && !k.acked.lost
		over := k.done || k.f == nil && !k.queued && (!k.gone.IsZero() || k.look)
		switch {
		case !settled:
			return 0, end, true
		case over: // nobody will find it under another name any more
			k.done, k.look = true, false
			return k.acked.committed, k.acked.ending, false
		case full || k.f != nil && !k.drained:
			return 0, end, true
		case whole && k.acked.committed == int64(len(head)):
			return k.acked.committed, k.acked.ending, false
		}
	}
	for i := len(c.known) - 1; i >= 0; i-- {
		k := &c.known[i]
		if !(fingerprint{k.Size, k.Sum}).of(head) {
			continue
		}
		if !k.settled() {
			return 0, end, true
		}
		if k.End > 0 && (k.Size == len(c.head) || whole && k.End == int64(len(head))) {
			return k.End, k.ending, false
		}
	}
	return 0, end, false
}

// isUnknown reports whether t may have any text: it could not be opened yet.
func (t *tail) isUnknown() bool { return t.f == nil && t.zip == nil && !t.done && t.print.size == 0 }

// of reports whether the fingerprint is of a text that begins with head.
func (p fingerprint) of(head []byte) bool {
	return p.size > 0 && p.size <= len(head) && crc32.Checksum(head[:p.size], castagnoli) == p.sum
}

// remember keeps what is known of a text that was read. c.mu is locked.
func (c *collector) remember(p fingerprint, acked *progress, now time.Time) {
	if !c.finder.archives || p.size == 0 {
		return
	}
	c.known = append(c.known, content{p.size, p.sum, acked.committed, now.Unix(), acked.ending, acked})
	for len(c.known) > maxKnown || now.Sub(time.Unix(c.known[0].Seen, 0)) > knownFor {
		c.known = c.known[1:]
	}
	c.dirty = true
}

// ended sends the last that could be read of t: text, from its position on, before err.
func (c *collector) ended(ctx context.Context, t *tail, text []byte, err error, out creel.Sink, now time.Time) error {
	k := chunk{text: text, flush: true, since: now}
	if errors.Is(err, io.ErrUnexpectedEOF) { // it may grow
		k.text, k.flush = text[:t.chain.encoding.whole(text)], false
	}
	if len(k.text) > 0 || !t.chain.idle() {
		if err := c.deliver(ctx, t, k, out, now); err != nil {
			return err
		}
	}
	if err != io.EOF {
		c.damaged(t, err)
		return nil
	}
	c.mu.Lock()
	t.whole, c.dirty = t.zip.size, true
	c.mu.Unlock()
	t.zip.close()
	c.finish(t)
	return nil
}

// close tells that nothing will come of a until it changes.
func (a *archive) close() { a.read, a.zr, a.rest, a.last = true, nil, nil, nil }

// damaged says that t cannot be read further. It will be tried again when its size changes.
func (c *collector) damaged(t *tail, err error) {
	t.zip.close()
	t.drained = true
	if t.zip.size > 0 {
		c.complain(t.path, slog.LevelWarn, "decompress file: "+err.Error()+"; what could be read was sent, and the rest will be tried when the file changes")
	}
}
