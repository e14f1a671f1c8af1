package file

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"sort"
	"time"

	"github.com/creelhq/creel"
)

// What a disk queue has is not sent again, whether or not it was acknowledged and saved before a crash. For that a batch
// says which part of which source it is, and a source is not a file but one life of it: it gets a random number when it is
// first seen, and another when it is read from its beginning, so that nothing that was said of it holds for what comes
// after. The number and the fingerprint are saved before the first batch is sent.
//
// A part is only claimed if what lies in it is all of the batch's records, and nothing else is: lines of different streams
// that are interleaved just where a read ends cost the claim, and so perhaps a repetition. Archives claim nothing: their
// positions are not those of the file. Nor is anything believed after the machine was started anew: it may have lost the
// end of a file, while the disk queue lost nothing.

// ahead returns the first range at or after t's position that was taken, if there is one; and up to where t, of size
// bytes, is to be read before that.
func (t *tail) ahead(size int64) (stop int64, r creel.Range) {
	i := sort.Search(len(t.taken), func(i int) bool { return int64(t.taken[i].To) > t.pos })
	if i == len(t.taken) {
		return size, r
	}
	r = t.taken[i]
	if int64(r.To) > size { // it has become shorter since that was proved
		t.taken = nil
		return size, creel.Range{}
	}
	return int64(r.From), r
}

// prove forgets what was taken if it cannot be true of t, which is open and has size bytes.
func (t *tail) prove(size int64) {
	t.taken = slices.DeleteFunc(t.taken, func(r creel.Range) bool {
		if r.From >= r.To || r.To > uint64(size) {
			return true
		}
		from, to := int64(r.From), int64(r.To)
		return from != t.pos && !t.isEdge(from) || to < size && !t.isEdge(to)
	})
}

// isEdge reports whether a read may have ended at pos: where a line begins, or within one that is too long to wait for
// its end.
func (t *tail) isEdge(pos int64) bool {
	code := t.chain.encoding
	switch {
	case pos%int64(code.unit()) != 0:
		return false
	case pos == 0 || code.atStart(t.f, pos):
		return true
	}
	const character = 4 // so much less than the limit may have been sent, so as not to cut one
	buf := make([]byte, (t.chain.limit-character)&^1)
	if pos < int64(len(buf)) {
		return false
	}
	n, _ := t.f.ReadAt(buf, pos-int64(len(buf)))
	return n == len(buf) && code.whole(buf) == 0
}

// leap goes on behind r, which was taken and begins at t's position or before: what is open is sent first.
func (c *collector) leap(ctx context.Context, t *tail, r creel.Range, out creel.Sink, now time.Time) error {
	if !t.chain.idle() {
		return c.deliver(ctx, t, chunk{flush: true, since: now}, out, now)
	}
	to := int64(r.To)
	same, err := c.verify(t)
	if err == nil && same {
		same, err = t.endsAsRead()
	}
	switch {
	case err != nil:
		c.complain(t.path, slog.LevelWarn, "read file: "+err.Error())
		return nil
	case !same:
		return c.replaced(ctx, t, out, now)
	}
	e, err := endingAt(t.f, to, int(min(to, maxEnding)))
	if err != nil {
		c.complain(t.path, slog.LevelWarn, "read file: "+err.Error())
		return nil
	}
	c.mu.Lock()
	t.acked.pending = append(t.acked.pending, &span{end: to, ending: e, done: true})
	c.advance(t.acked)
	c.mu.Unlock()
	t.drained = false
	t.moveTo(to, e)
	return nil
}

// endingAt returns how the n bytes before pos end; zero if they are not there.
func endingAt(f readerAt, pos int64, n int) (ending, error) {
	if n == 0 {
		return ending{}, nil
	}
	buf := make([]byte, n)
	if m, err := f.ReadAt(buf, pos-int64(n)); m < n && err != io.EOF {
		return ending{}, err
	} else if m < n {
		return ending{}, nil
	}
	return endingOf(buf), nil
}
