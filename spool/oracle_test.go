package spool

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
)

// An oracle knows what a queue has promised, whatever happens to it.
type oracle struct {
	fs      *memFS
	o       Options
	q       *Queue
	n       int
	synced  map[int]bool   // durable, as Append said
	written map[int]bool   // Append said that the process may die
	tried   map[int]bool   // appended, with whatever answer
	given   map[int]bool   // acknowledgement begun
	acked   map[int]bool   // acknowledged
	settled map[int]bool   // and that is durable
	hand    map[int]uint64 // taken, by number
	top     uint64         // above all sequences seen
	dropped bool           // the policy may give up anything
	filled  bool           // without space, ids and parts are forgotten before segments are kept
	known   map[int]bool   // appended: the queue knows the parts
	kept    map[int]bool   // and that is durable
}

func newOracle(fs *memFS, o Options) *oracle {
	o.FS = fs
	return &oracle{fs: fs, o: o, synced: map[int]bool{}, written: map[int]bool{}, tried: map[int]bool{}, given: map[int]bool{},
		acked: map[int]bool{}, settled: map[int]bool{}, hand: map[int]uint64{},
		known: map[int]bool{}, kept: map[int]bool{}}
}

// open opens the queue; what was in hand is not, any more.
func (w *oracle) open() error {
	q, err := Open("d", w.o)
	if err != nil {
		return err
	}
	w.q = q
	clear(w.hand)
	for n := range w.acked {
		if !w.settled[n] { // nobody knows
			delete(w.acked, n)
		}
	}
	return nil
}

func (w *oracle) append(size int, how How) error { return w.appendWith(ctx, size, how) }

// appendWith is append for a caller who may give up.
func (w *oracle) appendWith(c context.Context, size int, how How) error {
	n := w.n
	w.n++
	w.tried[n] = true
	seq, err := w.q.Append(c, item(n, size), how)
	if err != nil {
		return err
	}
	if seq < w.top {
		panic(fmt.Sprintf("BUG: item %d got sequence %d, and %d was there before", n, seq, w.top))
	}
	w.top = seq + uint64(n%7+1)
	w.written[n], w.synced[n] = true, how&Synced != 0
	w.known[n] = true
	if how&Synced != 0 {
		w.kept[n] = true
	}
	if how&Held != 0 {
		w.hand[n] = seq
	}
	return nil
}

func (w *oracle) next(t failer) (int, bool) {
	it, ok, err := w.q.TryNext()
	if err != nil || !ok {
		return 0, false
	}
	if n, bare := mended(&it.Item); bare && w.kept[n] {
		t.Fatalf("item %d comes without its parts", n)
	}
	n := number(t, it.Item)
	if w.settled[n] {
		t.Fatalf("item %d comes again, though its acknowledgement was durable", n)
	}
	if _, twice := w.hand[n]; twice {
		t.Fatalf("item %d is handed out twice", n)
	}
	if !w.tried[n] {
		t.Fatalf("item %d was never appended", n)
	}
	delete(w.acked, n) // if it was, a crash took that
	delete(w.given, n)
	w.hand[n] = it.Seq
	w.top = max(w.top, it.Seq+uint64(it.Records))
	return n, true
}

func (w *oracle) ack(n int) {
	seq := w.hand[n]
	delete(w.hand, n)
	w.given[n] = true
	w.q.Ack(seq)
	w.acked[n] = true
}

func (w *oracle) sync() error {
	if err := w.q.Sync(ctx); err != nil {
		return err
	}
	for n := range w.acked {
		w.settled[n] = true
	}
	w.durable()
	return nil
}

// durable notes that all that was appended is.
func (w *oracle) durable() {
	for n := range w.written {
		w.synced[n] = true
	}
	maps.Copy(w.kept, w.known)
}

func (w *oracle) close() error {
	err := w.q.Close()
	if err == nil {
		for n := range w.acked {
			w.settled[n] = true
		}
		w.durable()
	}
	return err
}

// crash is the end of the machine, or of the process only (keep is "all"), and the start of the next.
func (w *oracle) crash(t failer, keep string, r *rand.Rand) {
	t.Helper()
	w.fs.mu.Lock()
	w.fs.crashed = true
	w.fs.mu.Unlock()
	after := w.fs.after(keep, r)
	if w.q != nil {
		w.q.Close()
	}
	w.fs = after
	w.o.FS = after
	if keep != "all" {
		w.known = maps.Clone(w.kept)
	}
	if err := w.open(); err != nil {
		t.Fatalf("open after a crash: %v", err)
	}
}

// check takes all that is left and holds it against the promises. process says that only the process died.
func (w *oracle) check(t failer, process bool) {
	t.Helper()
	for {
		if _, ok := w.next(t); !ok {
			break
		}
	}
	promised := w.synced
	if process {
		promised = w.written
	}
	for n, yes := range promised {
		if _, there := w.hand[n]; yes && !there && !w.given[n] && !w.dropped {
			t.Fatalf("item %d of %d is lost; %+v", n, w.n, w.q.Stats())
		}
	}
	w.checkParts(t)
	for n := range w.tried { // or whoever asks for the parts would not read it again
		if _, there := w.hand[n]; !there && w.claims(n) && !w.given[n] && !w.dropped {
			t.Fatalf("item %d of %d is lost, and its parts are said to be taken; %+v", n, w.n, w.q.Stats())
		}
	}
	clear(w.written) // from here on, what is there
	waiting := uint64(0)
	for n := range w.hand {
		w.written[n] = true
		waiting += uint64(n%7 + 1)
	}
	if s := w.q.Stats(); s.Records != waiting || s.Taken != len(w.hand) {
		t.Fatalf("%d records in %d items came, but %+v", waiting, len(w.hand), s)
	}
}

// parts are those of the nth item. Most items have one, some several, some none; no two share any, so that it can be told
// whose they are. Those of the first items do not touch, so that a damaged bound shows.
func parts(n int) (list []Part) {
	if n%97 == 5 {
		return nil
	}
	p := Part{Source: uint64(n % 3), From: uint64(n / 3 * 16), To: uint64(n/3*16 + 16)}
	if n < 100 || n/3%64 == 63 {
		p.To -= 7
	}
	list = append(list, p)
	for i := range n % 7 / 4 * 3 {
		at := uint64(n/7*3+n%7-4) * 16
		list = append(list, Part{Source: uint64(1000 + i), From: at, To: at + 16})
	}
	return list
}

// mended gives an item its parts when it comes without: they were damaged, or not wholly written. It returns its number.
func mended(it *Item) (n int, bare bool) {
	n = int(binary.LittleEndian.Uint64(it.ID[:])) - 1
	if bare = it.Parts == nil && len(parts(n)) > 0; bare {
		it.Parts = parts(n)
	}
	return n, bare
}

// checkParts holds what the queue says of parts against what was appended.
func (w *oracle) checkParts(t failer) {
	t.Helper()
	all := map[uint64]*spans{}
	for n := range w.tried {
		for _, p := range parts(n) {
			if all[p.Source] == nil {
				all[p.Source] = &spans{}
			}
			all[p.Source].add(p.From, p.To)
		}
	}
	for source, s := range all {
		end := uint64(0)
		for i, r := range w.q.Parts(source) {
			if !s.covers(r.From, r.To) || r.From >= r.To || i > 0 && r.From <= end {
				t.Fatalf("of source %d, %v is said to be taken, and %v was appended", source, w.q.Parts(source), *s)
			}
			end = r.To
		}
	}
	for n := range w.known {
		if !w.filled && len(parts(n)) > 0 && !w.claims(n) {
			t.Fatalf("the parts of item %d of %d are forgotten: %v; %+v", n, w.n, parts(n), w.q.Stats())
		}
	}
}

// claims reports whether the queue says that it has taken the parts of item n.
func (w *oracle) claims(n int) bool { return claims(w.q, n) }

func claims(q *Queue, n int) bool {
	for _, p := range parts(n) {
		if !slices.ContainsFunc(q.Parts(p.Source), func(r Range) bool { return r.From <= p.From && p.To <= r.To }) {
			return false
		}
	}
	return len(parts(n)) > 0
}

// balance holds the queue's books against each other: every record is in one place.
func (w *oracle) balance(t failer) {
	t.Helper()
	if s := w.q.Stats(); s.Found+s.Appended != s.Acked+s.Lost+s.Dropped+s.Records {
		t.Fatalf("the books do not balance: %+v", s)
	}
}
