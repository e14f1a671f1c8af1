// Package audit is the log of what was changed at a hub, or tried: entries in the control state that are appended and never
// changed, each with a hash over itself and the hash of the one before.
//
// The entries of all hubs of one control state are one sequence without gaps. The newest 20 000 or so stay; the oldest are
// removed, so that the chain begins at the oldest that is left. Within what is left, an entry that was changed, removed or put
// elsewhere is seen. Not seen is that somebody who may write the control state has removed the oldest up to there, or has
// written all of the log anew: whoever wants to be safe from that keeps a hash somewhere else now and then. While a hub runs
// it remembers the newest entry, and goes on from it: those that are taken away there leave a gap.
//
// It knows neither who asks nor what is allowed.
package audit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/hub/internal/state"
)

// Done is the outcome of what was done.
const Done = "done"

const (
	prefix  = "audit/"
	block   = 100              // entries that are listed at once: their numbers differ in the last two digits
	timeout = 10 * time.Second // for a write
)

// Options configure a Log. Store and Hub are required.
type Options struct {
	Store state.Store
	Hub   string // this hub's id
	Log   *slog.Logger
	Now   func() time.Time // nil: time.Now

	keep   int64 // entries that stay; 0: 20 000
	remove int64 // that are removed at once; 0: 500
}

// A Log is the audit log. Its methods may be called concurrently.
type Log struct {
	o    Options
	turn chan struct{} // holds something while an entry is appended

	mu   sync.Mutex
	tip  tip
	held gathered

	trimming atomic.Bool
	stop     context.CancelFunc
	ctx      context.Context
	over     sync.WaitGroup
}

// tip is the newest entry as far as it is known.
type tip struct {
	number int64 // 0: there is none
	hash   string
}

// Open finds the end of the log.
func Open(ctx context.Context, o Options) (*Log, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.keep == 0 {
		o.keep = 20_000
	}
	if o.remove == 0 {
		o.remove = 500
	}
	l := &Log{o: o, turn: make(chan struct{}, 1), held: newGathered()}
	if err := l.reload(ctx, &l.tip); err != nil {
		return nil, fmt.Errorf("read the audit log: %w", err)
	}
	l.ctx, l.stop = context.WithCancel(context.Background())
	l.over.Go(l.flushes)
	return l, nil
}

// Close writes what was gathered.
func (l *Log) Close() {
	l.stop()
	l.over.Wait()
}

// Add appends an entry, and fills in its number, time, hub and hash. An error, which it has logged, says that the entry was
// not written: what it is of is to be refused then. Should the answer of the control state be lost, the entry may be there all
// the same. Entries of what was refused are gathered when there are many: then Add returns nil, and one entry will tell how
// many there were.
func (l *Log) Add(ctx context.Context, e api.AuditEntry) error {
	e = clean(e)
	e.Hub = l.o.Hub
	refused := e.Outcome != Done && e.Outcome != ""
	if refused && !l.lets(e) {
		return nil
	}
	err := l.write(ctx, e)
	if err != nil && refused {
		l.hold(e, 1)
	}
	return err
}

func key(number int64) string { return fmt.Sprintf("%s%016d", prefix, number) }

// write appends an entry.
func (l *Log) write(ctx context.Context, e api.AuditEntry) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var err error
	select {
	case l.turn <- struct{}{}:
		err = l.append(ctx, e)
		<-l.turn
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		l.o.Log.Error("the audit log cannot be written; changes are refused until it can", "action", e.Action, "who", e.Who, "target", e.Target, "outcome", e.Outcome, "error", err)
		return fmt.Errorf("write the audit log: %w", err)
	}
	return nil
}

// append puts an entry behind the newest. When another hub was faster it tries the next number.
func (l *Log) append(ctx context.Context, e api.AuditEntry) error {
	t := l.known()
	for {
		e.Number, e.Time = t.number+1, l.o.Now().UTC().Truncate(time.Millisecond)
		e.Hash = sum(t.hash, e)
		value, err := json.Marshal(e)
		if err != nil {
			panic("BUG: " + err.Error())
		}
		_, err = l.o.Store.Put(ctx, key(e.Number), value, false, state.Unchanged(0))
		if err != nil {
			there, readErr := l.o.Store.Get(ctx, key(e.Number))
			if readErr == nil && bytes.Equal(there.Value, value) {
				err = nil // only the answer was lost
			} else if readErr != nil && !errors.Is(err, state.ErrConflict) {
				return err
			}
		}
		if err == nil {
			written := tip{e.Number, e.Hash}
			end := written
			if err := l.confirm(ctx, t, &end); err != nil {
				return err
			}
			if end == written {
				l.learn(written)
				if e.Number%l.o.remove == 0 {
					l.trim(e.Number - l.o.keep)
				}
				return nil
			}
			if err := l.o.Store.Delete(ctx, key(e.Number), state.Always()); err != nil {
				return err
			}
			t = end
		} else if err := l.advance(ctx, &t); err != nil {
			return err
		}
	}
}

func (l *Log) known() tip {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tip
}

// learn takes over a newer end.
func (l *Log) learn(t tip) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.number > l.tip.number {
		l.tip = t
	}
}

// confirm asks, after something was read or written behind an entry, whether that entry was there then, and sets end to the true
// end if it was not. If others have written so many since that it was removed, the number behind it is free again, and is not the
// end. Since the oldest are removed in order, an entry that is there still was followed by all that there are.
func (l *Log) confirm(ctx context.Context, before tip, end *tip) error {
	if before.number > 0 {
		_, err := l.o.Store.Get(ctx, key(before.number))
		if !errors.Is(err, state.ErrNotFound) {
			return err
		}
	}
	known := *end
	if err := l.reload(ctx, end); err != nil {
		return err
	}
	if before.number > 0 && *end == known {
		l.o.Log.Error("the newest entries of the audit log were taken away by somebody; the gap stays", "number", before.number)
	}
	return nil
}

// advance goes on to the newest entry.
func (l *Log) advance(ctx context.Context, t *tip) error {
	for {
		before := *t
		list, _, err := l.o.Store.List(ctx, blockOf(t.number+1))
		if err != nil {
			return err
		}
		t.take(list)
		if *t == before {
			return l.confirm(ctx, before, t)
		}
	}
}

// reload looks at everything.
func (l *Log) reload(ctx context.Context, t *tip) error {
	list, _, err := l.o.Store.List(ctx, prefix)
	if err == nil {
		t.take(list)
	}
	return err
}

// take goes on to the last of a list, if it is newer.
func (t *tip) take(list []state.Entry) {
	for i := len(list) - 1; i >= 0; i-- {
		if number, err := strconv.ParseInt(strings.TrimPrefix(list[i].Key, prefix), 10, 64); err == nil {
			if number > t.number {
				e, _ := read(number, list[i].Value) // one that cannot be read has no hash: the next one's is broken, and that is so
				*t = tip{number, e.Hash}
			}
			return
		}
	}
}

// blockOf returns the prefix of the keys of a number's block.
func blockOf(number int64) string {
	k := key(number)
	return k[:len(k)-2]
}

// trim removes the entries up to a number, the oldest first, so that those that are left have no gap whenever it ends. What
// it leaves for a failure the next one removes.
func (l *Log) trim(last int64) {
	if last < 1 || !l.trimming.CompareAndSwap(false, true) {
		return
	}
	l.over.Go(func() {
		defer l.trimming.Store(false)
		if err := l.removeUpTo(last); err != nil && l.ctx.Err() == nil {
			l.o.Log.Warn("remove the oldest of the audit log; will try again", "error", err)
		}
	})
}

func (l *Log) removeUpTo(last int64) error {
	var keys []string
	for number := last; number > 0; number -= number%block + 1 {
		list, _, err := l.o.Store.List(l.ctx, blockOf(number))
		if err != nil {
			return err
		}
		if len(list) == 0 {
			break
		}
		for i := len(list) - 1; i >= 0; i-- {
			if list[i].Key <= key(last) {
				keys = append(keys, list[i].Key)
			}
		}
	}
	for i := len(keys) - 1; i >= 0; i-- {
		if err := l.o.Store.Delete(l.ctx, keys[i], state.Always()); err != nil {
			return err
		}
	}
	return nil
}

// sum returns an entry's hash: SHA-256, hexadecimal, over the hash of the one before (nothing for the first) and the entry's
// fields in the order of their declaration, each as a netstring (its length in bytes, a colon, itself, a comma); the number
// decimal, the time as in RFC 3339, in UTC, with as many digits of a second as it needs.
func sum(before string, e api.AuditEntry) string {
	var text []byte
	for _, field := range []string{
		before, strconv.FormatInt(e.Number, 10), e.Time.UTC().Format(time.RFC3339Nano), e.Who, string(e.Role), e.Address, e.Hub, e.Action, e.Target, e.Outcome, e.Detail,
	} {
		text = strconv.AppendInt(text, int64(len(field)), 10)
		text = append(text, ':')
		text = append(text, field...)
		text = append(text, ',')
	}
	hash := sha256.Sum256(text)
	return hex.EncodeToString(hash[:])
}

// clean cuts what is too long, and takes out what is no text: it comes from outside, and is shown in terminals.
func clean(e api.AuditEntry) api.AuditEntry {
	e.Who, e.Address, e.Action, e.Outcome = cut(e.Who, 200), cut(e.Address, 100), cut(e.Action, 100), cut(e.Outcome, 100)
	e.Role, e.Target, e.Detail = api.Role(cut(string(e.Role), 20)), cut(e.Target, 300), cut(e.Detail, 2000)
	return e
}

// cut returns at most so many characters of a text, in one line.
func cut(text string, most int) string {
	var b strings.Builder
	n := 0
	for _, r := range text {
		if n++; n > most {
			b.WriteString("…")
			break
		}
		switch {
		case r == '\n' || r == '\t':
			r = ' '
		case !unicode.IsPrint(r): // and what turns the direction of text, which is not printed either
			r = unicode.ReplacementChar
		}
		b.WriteRune(r)
	}
	return b.String()
}
