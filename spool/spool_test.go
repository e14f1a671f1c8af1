package spool

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

var ctx = context.Background()

// item makes the nth item of a test: everything about it follows from n.
func item(n, size int) Item {
	it := Item{Signal: byte(n % 3), Codec: byte(n % 5), Records: n%7 + 1, Payload: make([]byte, size), Parts: parts(n)}
	binary.LittleEndian.PutUint64(it.ID[:], uint64(n)+1)
	for i := range it.Payload {
		it.Payload[i] = byte(i*7 + n)
	}
	if size >= 8 {
		binary.LittleEndian.PutUint64(it.Payload, uint64(n))
	}
	return it
}

// failer is what testing and rapid have in common.
type failer interface {
	Helper()
	Fatalf(string, ...any)
}

// number returns the n of an item, and fails when anything about it is not as item made it.
func number(t failer, it Item) int {
	t.Helper()
	n := int(binary.LittleEndian.Uint64(it.ID[:])) - 1
	want := item(n, len(it.Payload))
	if it.Signal != want.Signal || it.Codec != want.Codec || it.Records != want.Records || !bytes.Equal(it.Payload, want.Payload) || !slices.Equal(it.Parts, want.Parts) {
		t.Fatalf("item %d came back as another: %d records, %d bytes, %v", n, it.Records, len(it.Payload), it.Parts)
	}
	return n
}

func small(fs FS) Options {
	return Options{FS: fs, MaxSize: 256 << 10, SegmentSize: 4 << 10, ReadAhead: 4 << 10, manual: true}
}

func open(t testing.TB, dir string, o Options) *Queue {
	t.Helper()
	q, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	return q
}

func put(t testing.TB, q *Queue, n, size int, how How) uint64 {
	t.Helper()
	seq, err := q.Append(ctx, item(n, size), how)
	if err != nil {
		t.Fatalf("append %d: %v", n, err)
	}
	return seq
}

// drain takes all that is there, and returns it as it came.
func drain(t testing.TB, q *Queue) (list []Taken) {
	t.Helper()
	for {
		it, ok, err := q.TryNext()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return list
		}
		number(t, it.Item)
		list = append(list, it)
	}
}

func numbers(t testing.TB, list []Taken) (n []int) {
	for _, it := range list {
		n = append(n, number(t, it.Item))
	}
	return n
}

func upTo(from, to int) (n []int) {
	for i := from; i < to; i++ {
		n = append(n, i)
	}
	return n
}

func TestWhatGoesInComesOut(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "spool")
	o := Options{MaxSize: 4 << 20, SegmentSize: 64 << 10, Order: InOrder, ReadAhead: 8 << 10}
	q := open(t, dir, o)
	records, next := uint64(0), uint64(0)
	for n := range 300 {
		size := n * 37 % 5000
		if n%50 == 7 {
			size = 100 << 10 // larger than a segment
		}
		seq := put(t, q, n, size+8, Written)
		if seq < next {
			t.Fatalf("item %d got sequence %d after %d", n, seq, next)
		}
		next = seq + uint64(n%7+1)
		records += uint64(n%7 + 1)
	}
	if _, err := Open(dir, o); !errors.Is(err, ErrInUse) {
		t.Errorf("a second owner got %v", err)
	}
	if i, err := os.Stat(dir); err != nil || i.Mode().Perm() != 0o700 {
		t.Errorf("the directory is %v, %v", i.Mode(), err)
	}
	first := drain(t, q)
	if got := numbers(t, first); !slices.Equal(got, upTo(0, 300)) {
		t.Fatalf("in order is %v", got)
	}
	if s := q.Stats(); s.Records != records || s.Taken != 300 || s.Lost != 0 || s.Oldest.IsZero() {
		t.Errorf("stats are %+v", s)
	}
	var acked []int
	for i, it := range first { // in any order, some not
		if j := i * 7 % 300; j%10 != 3 {
			q.Ack(first[j].Seq)
			acked = append(acked, j)
		}
		_ = it
	}
	q.Nack(first[13].Seq, first[3].Seq)
	if it, err := q.Next(ctx); err != nil || number(t, it.Item) != 3 {
		t.Fatalf("the first that was given back does not come first: %v", err)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	q = open(t, dir, o)
	var want []int
	for n := 3; n < 300; n += 10 {
		want = append(want, n)
	}
	again := drain(t, q)
	if got := numbers(t, again); !slices.Equal(got, want) {
		t.Errorf("after %d acknowledgements came %v", len(acked), got)
	}
	for _, it := range again {
		q.Ack(it.Seq)
	}
	if err := q.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	if s := q.Stats(); s.Records != 0 || s.Segments != 1 || s.Lost != 0 || !s.Oldest.IsZero() {
		t.Errorf("after all is acknowledged: %+v", s)
	}
	if seq := put(t, q, 300, 8, Synced); seq != next {
		t.Errorf("after a clean close the sequence is %d, not %d", seq, next)
	}
}

func TestRepeatsAreRecognised(t *testing.T) {
	fs := newMemFS()
	o := small(fs)
	q := open(t, "d", o)
	seqs := map[int]uint64{}
	for n := range 40 {
		seqs[n] = put(t, q, n, 500, Synced)
	}
	repeat := func(n int) {
		t.Helper()
		seq, err := q.Append(ctx, item(n, 500), Synced)
		if !errors.Is(err, ErrDuplicate) || seq != seqs[n] {
			t.Errorf("the repeat of %d got %d, %v, not %d", n, seq, err, seqs[n])
		}
	}
	repeat(0)
	repeat(39)
	for _, it := range drain(t, q) { // the segments go, the ids stay
		q.Ack(it.Seq)
	}
	if err := q.Sync(ctx); err != nil || q.Stats().Segments != 1 {
		t.Fatalf("%v, %+v", err, q.Stats())
	}
	repeat(5)
	q.Close()
	for range 2 {
		q = open(t, "d", o)
		repeat(5)
		repeat(39)
		if err := q.acks.rewrite(); err != nil {
			t.Fatal(err)
		}
		q.Close()
	}
	o.Window = 10
	q = open(t, "d", o)
	repeat(39)
	if _, err := q.Append(ctx, item(5, 500), Synced); err != nil {
		t.Errorf("out of the window: %v", err)
	}
	if _, err := q.Append(ctx, Item{Records: 1}, Synced); err != nil {
		t.Error(err)
	}
	if _, err := q.Append(ctx, Item{Records: 1}, Synced); err != nil {
		t.Errorf("what has no name is taken for a repeat: %v", err)
	}
}

func TestFreshFirst(t *testing.T) {
	fs := newMemFS()
	q := open(t, "d", small(fs))
	for n := range 20 {
		put(t, q, n, 600, Written)
	}
	first := drain(t, q)[:2] // in flight at the mark: not backlog
	q.Close()
	q = open(t, "d", small(fs))
	for n := 20; n < 40; n++ {
		put(t, q, n, 600, Written)
	}
	got := numbers(t, drain(t, q))
	var fresh, backlog []int
	for _, n := range got {
		if n < 20 {
			backlog = append(backlog, n)
		} else {
			fresh = append(fresh, n)
		}
	}
	if !slices.Equal(backlog, upTo(0, 20)) || !slices.Equal(fresh, upTo(20, 40)) {
		t.Errorf("lanes are %v and %v", backlog, fresh)
	}
	old := 0
	for _, n := range got[:24] {
		if n < 20 {
			old++
		}
	}
	if old != 6 {
		t.Errorf("of the first 24, %d are backlog: %v", old, got)
	}
	_ = first
	for n := 40; n < 50; n++ {
		put(t, q, n, 600, Written)
	}
	q.Mark()
	for n := 50; n < 60; n++ {
		put(t, q, n, 600, Written)
	}
	got = numbers(t, drain(t, q))
	if old := slices.IndexFunc(got, func(n int) bool { return n < 50 }); old > 3 {
		t.Errorf("after the mark the backlog starves: %v", got)
	}
	slices.Sort(got)
	if !slices.Equal(got, upTo(40, 60)) {
		t.Errorf("after the mark came %v", got)
	}
}

// TestHeld: what its owner delivers from memory is not handed out, until it is given back or the queue is opened again.
func TestHeld(t *testing.T) {
	fs := newMemFS()
	q := open(t, "d", small(fs))
	var seqs []uint64
	for n := range 30 {
		seqs = append(seqs, put(t, q, n, 600, Held))
	}
	put(t, q, 30, 600, Written)
	put(t, q, 31, 600, Held)
	reads := fs.calls
	if got := numbers(t, drain(t, q)); !slices.Equal(got, []int{30}) {
		t.Errorf("while the others are held came %v", got)
	}
	if n := fs.calls - reads; n > 8 {
		t.Errorf("it took %d calls to read one item", n)
	}
	q.Nack(seqs[20], seqs[4])
	if got := numbers(t, drain(t, q)); !slices.Equal(got, []int{4, 20}) {
		t.Errorf("what was given back is %v", got)
	}
	q.Ack(seqs[:10]...)
	q.Close()
	q = open(t, "d", small(fs))
	if got := numbers(t, drain(t, q)); !slices.Equal(got, upTo(10, 32)) {
		t.Errorf("after opening came %v", got)
	}
}

func TestWhenFull(t *testing.T) {
	f := func(policy WhenFull, check func(q *Queue, appended int, err error)) {
		t.Helper()
		o := small(newMemFS())
		o.WhenFull = policy
		q := open(t, "d", o)
		for n := 0; ; n++ {
			c, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
			_, err := q.Append(c, item(n, 1000), Written)
			cancel()
			if err != nil || n == 1000 {
				check(q, n, err)
				break
			}
			if s := q.Stats(); s.Bytes > s.MaxBytes+fileHeader {
				t.Fatalf("%s: %d bytes of %d", policy, s.Bytes, s.MaxBytes)
			}
		}
	}
	records := func(from, to int) (r uint64) {
		for n := from; n < to; n++ {
			r += uint64(n%7 + 1)
		}
		return r
	}
	room := func(q *Queue) { // half is delivered
		for _, it := range drain(t, q)[:100] {
			q.Ack(it.Seq)
		}
		if err := q.Sync(ctx); err != nil {
			t.Fatal(err)
		}
		put(t, q, 5000, 1000, Synced)
	}
	f(Block, func(q *Queue, n int, err error) {
		if !errors.Is(err, context.DeadlineExceeded) || n < 200 || !q.Stats().Full {
			t.Errorf("block: after %d: %v", n, err)
		}
		room(q)
		if s := q.Stats(); s.Dropped != 0 || s.Records != records(100, n)+5000%7+1 {
			t.Errorf("block: %+v", s)
		}
	})
	f(DropNewest, func(q *Queue, n int, err error) {
		if !errors.Is(err, ErrFull) || n < 200 {
			t.Errorf("drop_newest: after %d: %v", n, err)
		}
		room(q)
		if s := q.Stats(); s.Refused != records(n, n+1) || s.Dropped != 0 {
			t.Errorf("drop_newest: %+v", s)
		}
	})
	f(DropOldest, func(q *Queue, n int, err error) {
		if err != nil || n != 1000 {
			t.Fatalf("drop_oldest: after %d: %v", n, err)
		}
		s := q.Stats()
		rest := numbers(t, drain(t, q))
		if rest[len(rest)-1] != 1000 || !slices.Equal(rest, upTo(rest[0], 1001)) {
			t.Errorf("drop_oldest: left is %v", rest)
		}
		if s.Dropped != records(0, rest[0]) || s.Records != records(rest[0], 1001) {
			t.Errorf("drop_oldest: from %d on: %+v", rest[0], s)
		}
	})
}

// TestDroppedInHand: what is in somebody's hands while its segment is dropped is not dropped, unless it is given back.
func TestDroppedInHand(t *testing.T) {
	o := small(newMemFS())
	o.WhenFull = DropOldest
	q := open(t, "d", o)
	first := put(t, q, 0, 1000, Held)
	seq := put(t, q, 1, 1000, Held)
	for n := 2; n < 400; n++ {
		put(t, q, n, 1000, Written)
	}
	s := q.Stats()
	if s.Appended != s.Dropped+s.Records || s.Taken != 2 {
		t.Errorf("the books do not balance: %+v", s)
	}
	q.Nack(seq)
	if d := q.Stats().Dropped - s.Dropped; d != 2 {
		t.Errorf("given back after its segment was dropped: %d records dropped", d)
	}
	q.Ack(first)
	if s := q.Stats(); s.Acked != 1 || s.Taken != 0 || s.Appended != s.Acked+s.Dropped+s.Records {
		t.Errorf("at the end: %+v", s)
	}
	for n := range 20 { // what was dropped counts as taken
		if !claims(q, n) && n%97 != 5 {
			t.Errorf("the parts of item %d are forgotten", n)
		}
	}
}

// TestBlockGoesOn: Append waits for room, and goes on as soon as there is some, whoever makes it.
func TestBlockGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := newMemFS()
		o := small(fs)
		o.manual = false
		fs.capacity = 100 << 10 // less than the quota
		q := open(t, "d", o)
		n, blocked := 0, make(chan int)
		go func() {
			for {
				c, cancel := context.WithTimeout(ctx, time.Second)
				_, err := q.Append(c, item(n, 1000), Synced)
				cancel()
				if err != nil {
					blocked <- n
					return
				}
				n++
			}
		}()
		before := <-blocked
		if before < 50 {
			t.Fatalf("full after %d", before)
		}
		if s := q.Stats(); !s.Full {
			t.Errorf("full: %+v", s)
		}
		fs.free(20 << 10)
		start := time.Now()
		put(t, q, before, 1000, Synced)
		if d := time.Since(start); d > time.Second {
			t.Errorf("it took %v to see that there is room", d)
		}
		for range 80 { // fill again, and make room by delivering
			c, cancel := context.WithTimeout(ctx, time.Second)
			before++
			_, err := q.Append(c, item(before, 1000), Written)
			cancel()
			if err != nil {
				break
			}
		}
		done := make(chan error)
		go func() {
			_, err := q.Append(ctx, item(before, 1000), Synced)
			done <- err
		}()
		synctest.Wait()
		for range 20 {
			it, err := q.Next(ctx)
			if err != nil {
				t.Fatal(err)
			}
			number(t, it.Item)
			q.Ack(it.Seq)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if fs.hits == 0 {
			t.Error("the disk was never full")
		}
		q.Close()
	})
}

func TestNewerVersionIsRefused(t *testing.T) {
	fs := newMemFS()
	q := open(t, "d", small(fs))
	put(t, q, 1, 100, Synced)
	q.Close()
	for name, f := range fs.now {
		if filepath.Ext(name) != segSuffix {
			continue
		}
		f.data[8] = version + 1
		binary.LittleEndian.PutUint32(f.data[12:], headSum(f.data))
		before := fmt.Sprint(f.data)
		calls := fs.calls
		_, err := Open("d", small(fs))
		if !errors.Is(err, ErrNewer) || fs.owned["d"] || fmt.Sprint(f.data) != before || len(fs.now) != 3 {
			t.Errorf("a newer version got %v, in %d calls", err, fs.calls-calls)
		}
		if _, err := Inspect("d", fs, nil); !errors.Is(err, ErrNewer) {
			t.Errorf("inspect: %v", err)
		}
	}
}

func TestSpans(t *testing.T) {
	var s spans
	model := map[uint64]bool{}
	state := uint32(1)
	rnd := func(n uint32) uint64 { state = state*1664525 + 1013904223; return uint64(state >> 8 % n) }
	for range 5000 {
		from := rnd(200)
		to := from + rnd(12)
		want := uint64(0)
		for i := from; i < to; i++ {
			if !model[i] {
				want++
			}
			model[i] = true
		}
		if n := s.add(from, to); n != want {
			t.Fatalf("add %d-%d to %v: %d, want %d", from, to, s, n, want)
		}
		n := uint64(0)
		from, to = rnd(200), rnd(220)
		for i := from; i < to; i++ {
			if model[i] {
				n++
			}
		}
		if from < to && (s.count(from, to) != n || s.covers(from, to) != (n == to-from)) || s.has(from) != model[from] {
			t.Fatalf("%d-%d in %v", from, to, s)
		}
		for i := 1; i < len(s); i++ {
			if s[i].from <= s[i-1].to {
				t.Fatalf("spans touch: %v", s)
			}
		}
		if len(model) > 150 {
			s.trim(60)
			for i := range uint64(60) {
				delete(model, i)
			}
			for i := range model {
				if i > 100 {
					delete(model, i)
				}
			}
			i := s.after(100)
			s = s[:i]
			clear(model)
			for _, x := range s {
				for i := x.from; i < x.to; i++ {
					model[i] = true
				}
			}
		}
	}
}

// TestMinFree: the floor of free space is left to others, and appends go on when it is there again.
func TestMinFree(t *testing.T) {
	fs := newMemFS()
	fs.capacity = 120 << 10
	o := small(fs)
	o.MinFree, o.WhenFull = 60<<10, DropNewest
	q := open(t, "d", o)
	fill := func(n int) int {
		for ; ; n++ {
			_, err := q.Append(ctx, item(n, 1000), Written)
			if errors.Is(err, ErrFull) {
				return n
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	n := fill(0)
	if free, _ := fs.Free("d"); n < 20 || free < 60<<10 || free > 70<<10 {
		t.Errorf("after %d items %d bytes are free", n, free)
	}
	fs.free(10 << 10)
	if m := fill(n + 1); m < n+5 || m > n+12 {
		t.Errorf("10 KiB more were room for %d items", m-n)
	}
	if _, err := q.Append(ctx, item(5000, 1000), Spill); err != nil {
		t.Errorf("what a shutdown puts down: %v", err)
	}
	for _, it := range drain(t, q) {
		q.Ack(it.Seq)
	}
	if err := q.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	put(t, q, 6000, 1000, Synced)
}

// TestAppendIsChecked: what can never be taken is refused at once.
func TestAppendIsChecked(t *testing.T) {
	q := open(t, "d", small(newMemFS()))
	if _, err := q.Append(ctx, item(1, 300<<10), Written); !errors.Is(err, ErrTooLarge) {
		t.Errorf("an item larger than the spool: %v", err)
	}
	put(t, q, 2, 200<<10, Synced)
	if got := numbers(t, drain(t, q)); !slices.Equal(got, []int{2}) {
		t.Errorf("came %v", got)
	}
	q.Close()
	if _, err := q.Append(ctx, item(3, 10), Written); !errors.Is(err, ErrClosed) {
		t.Errorf("append after close: %v", err)
	}
	if _, err := q.Next(ctx); !errors.Is(err, ErrClosed) {
		t.Errorf("next after close: %v", err)
	}
	if err := q.Sync(ctx); !errors.Is(err, ErrClosed) {
		t.Errorf("sync after close: %v", err)
	}
}
