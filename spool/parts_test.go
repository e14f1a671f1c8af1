package spool

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestParts: what was taken stays known, in the records, in the acknowledgements, and in those that were written anew.
func TestParts(t *testing.T) {
	o := small(newMemFS())
	q := open(t, "d", o)
	want := []Part{{7, 100, 200}, {7, 300, 400}, {8, 0, 50}}
	it := Item{Records: 1, Payload: make([]byte, 2000), Parts: want}
	ask := func(when string, source uint64, want ...Range) {
		t.Helper()
		if got := q.Parts(source); !slices.Equal(got, want) {
			t.Fatalf("%s: of source %d are taken %v, not %v", when, source, got, want)
		}
	}
	add := func(parts ...Part) {
		t.Helper()
		it.Parts = parts
		if _, err := q.Append(ctx, it, Written); err != nil {
			t.Fatal(err)
		}
	}
	add(want...)
	add(Part{7, 200, 210}, Part{9, 5, 5})
	add(Part{7, 290, 300})
	add(Part{8, 10, 60})
	check := func(when string) {
		t.Helper()
		ask(when, 7, Range{100, 210}, Range{290, 400})
		ask(when, 8, Range{0, 60})
		ask(when, 9)
		ask(when, 0)
	}
	check("in the queue")
	again := func() {
		t.Helper()
		id := q.ID()
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
		if q = open(t, "d", o); q.ID() != id || id == [16]byte{} {
			t.Fatalf("the spool was %x, and is %x", id, q.ID())
		}
	}
	again()
	check("opened again")
	first, _, _ := q.TryNext()
	if !slices.Equal(first.Parts, want) {
		t.Errorf("the first came with %v", first.Parts)
	}
	q.Nack(first.Seq)
	for i := range 4 {
		got, ok, err := q.TryNext()
		if !ok || err != nil || i == 0 && !slices.Equal(got.Parts, want) {
			t.Errorf("item %d, given back or not, came with %v, %v, %v", i, got.Parts, ok, err)
		}
		q.Ack(got.Seq)
	}
	if err := q.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	add() // a new segment, so that the last of the old ones can go
	add()
	add()
	if err := q.Sync(ctx); err != nil || q.segs[0].base < 5 {
		t.Fatalf("a segment is left that holds parts: %v", err)
	}
	check("without the segments")
	again()
	check("without the segments, opened again")
	if err := q.acks.rewrite(); err != nil {
		t.Fatal(err)
	}
	again()
	check("acknowledgements written anew")
}

// TestManyParts: an item has up to 255, which do not fit into what is read for a header.
func TestManyParts(t *testing.T) {
	o := small(newMemFS())
	q := open(t, "d", o)
	it := Item{Records: 1, Payload: []byte("x")}
	for i := range maxParts {
		it.Parts = append(it.Parts, Part{uint64(i % 2), uint64(i * 10), uint64(i*10 + 9)})
	}
	for range 3 {
		if _, err := q.Append(ctx, it, Synced); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		for range 2 {
			got, ok, err := q.TryNext()
			if !ok || err != nil || fmt.Sprint(got.Item) != fmt.Sprint(it) {
				t.Fatalf("%v, %v, came %v", ok, err, got)
			}
			q.Nack(got.Seq) // and is read alone
		}
		if n, m := len(q.Parts(0)), len(q.Parts(1)); n != 128 || m != 127 {
			t.Errorf("%d and %d ranges are taken", n, m)
		}
		q.Close()
		q = open(t, "d", o)
	}
	defer func() {
		if recover() == nil {
			t.Error("256 parts were taken")
		}
	}()
	it.Parts = append(it.Parts, Part{})
	_, _ = q.Append(ctx, it, Written)
}

// TestPartsOfTheLost: what damage took away is not taken, neither its parts nor its name, now and after opening.
func TestPartsOfTheLost(t *testing.T) {
	fs := newMemFS()
	o := small(fs)
	q := open(t, "d", o)
	var seqs []uint64
	for n := range 12 {
		seqs = append(seqs, put(t, q, n, 1500, Synced))
	}
	g := q.locate(seqs[2])
	fs.now["d/"+g.name].data[g.end-5] ^= 1 // the payload of its last item
	lost := -1
	for n, seq := range seqs {
		if seq < g.next {
			lost = n
		}
	}
	got := numbers(t, drain(t, q))
	if slices.Contains(got, lost) || len(got) != 11 || q.Stats().Lost != uint64(lost%7+1) {
		t.Fatalf("came %v, without %d: %+v", got, lost, q.Stats())
	}
	if claims(q, lost) {
		t.Errorf("the parts of %d, which is lost, are said to be taken", lost)
	}
	if err := q.acks.rewrite(); err != nil {
		t.Fatal(err)
	}
	q.Close()
	q = open(t, "d", o)
	for n := range 12 {
		if claims(q, n) != (n != lost && n%97 != 5) {
			t.Errorf("opened again, without %d: of %d it is said %v", lost, n, claims(q, n))
		}
	}
	put(t, q, lost, 100, Written) // a repeat is welcome
	if !claims(q, lost) {
		t.Error("it came again, and is not taken")
	}
}

// TestPartsOfARewrite: after a failed sync a segment does not claim what went to another, where it may be lost.
func TestPartsOfARewrite(t *testing.T) {
	fs := newMemFS()
	q := open(t, "d", small(fs))
	put(t, q, 0, 500, Synced)
	put(t, q, 1, 500, Written)
	failed := false
	fs.fail = func(op, name string) error {
		if op == "sync" && !failed {
			failed = true
			return syscall.EIO
		}
		return nil
	}
	put(t, q, 2, 500, Synced)
	if q.Stats().Rewrites != 1 || !claims(q, 0) || !claims(q, 1) || !claims(q, 2) {
		t.Fatalf("after a failed sync: %+v", q.Stats())
	}
	g := q.segs[1]
	fs.now["d/"+g.name].data[g.end-5] ^= 1
	if got := numbers(t, drain(t, q)); !slices.Equal(got, upTo(0, 2)) || !claims(q, 0) || claims(q, 2) {
		t.Errorf("came %v; taken are %v, %v, %v", got, claims(q, 0), claims(q, 1), claims(q, 2))
	}
}

// TestPartsOfTheSpared: a segment that was delivered before it was synced is not synced, and what it knows is durable.
func TestPartsOfTheSpared(t *testing.T) {
	w := newOracle(newMemFS(), small(nil))
	if err := w.open(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := w.append(3000, Held); err != nil {
			t.Fatal(err)
		}
	}
	w.ack(0)
	if _, err := w.q.Append(ctx, item(0, 3000), Synced); !errors.Is(err, ErrDuplicate) {
		t.Fatal(err)
	}
	w.crash(t, "none", nil)
	if w.q.segs[0].next > 1 {
		t.Error("the segment was synced")
	}
	if _, err := w.q.Append(ctx, item(0, 3000), Synced); !errors.Is(err, ErrDuplicate) || !claims(w.q, 0) {
		t.Errorf("%v; taken: %v", err, claims(w.q, 0))
	}
	w.close()
}

// TestOpenHops: to learn of parts, Open reads not once more than without.
func TestOpenHops(t *testing.T) {
	reads := func(parts int) (n int) {
		fs := newMemFS()
		o := small(fs)
		o.MaxSize, o.SegmentSize = 4<<20, 256<<10
		q := open(t, "d", o)
		it := Item{Records: 1, Payload: make([]byte, 20<<10)}
		for i := range parts {
			it.Parts = append(it.Parts, Part{uint64(i), 0, 10})
		}
		for range 50 {
			if _, err := q.Append(ctx, it, Synced); err != nil {
				t.Fatal(err)
			}
		}
		q.Close()
		fs.fail = func(op, _ string) error {
			if op == "read" {
				n++
			}
			return nil
		}
		open(t, "d", o)
		return n
	}
	if none, some := reads(0), reads(3); some > none || none < 50 {
		t.Errorf("%d reads, and %d without parts", some, none)
	}
}

// TestPieces holds the parts of a segment, and those of the past, against sets of places.
func TestPieces(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var list pieces
	h := newHistory(8)
	model := map[[2]uint64]bool{}
	for range 3000 {
		if len(list) > 60 {
			list, h = nil, newHistory(8)
			clear(model)
		}
		p := Part{Source: r.Uint64N(6), From: r.Uint64N(200)}
		p.To = p.From + r.Uint64N(8)
		list.add(p, 1000)
		h.add(p)
		for i := p.From; i < p.To; i++ {
			model[[2]uint64{p.Source, i}] = true
		}
		got, past, last := map[[2]uint64]bool{}, map[[2]uint64]bool{}, Part{}
		for i, p := range list {
			if i > 0 && (p.Source < last.Source || p.Source == last.Source && p.From <= last.To) {
				t.Fatalf("after %v comes %v", last, p)
			}
			for i := p.From; i < p.To; i++ {
				got[[2]uint64{p.Source, i}] = true
			}
			last = p
		}
		n := 0
		h.each(func(p Part) {
			n++
			for i := p.From; i < p.To; i++ {
				past[[2]uint64{p.Source, i}] = true
			}
		})
		if !maps.Equal(got, model) || !maps.Equal(past, model) || n != h.ranges {
			t.Fatalf("%v", list)
		}
	}
}

// TestPartsAreBounded: what there is no room for is forgotten, the oldest first.
func TestPartsAreBounded(t *testing.T) {
	h := newHistory(100)
	count := func() (n int) {
		h.each(func(Part) { n++ })
		if n != h.ranges || len(h.at) != h.order.Len() {
			t.Fatalf("%d ranges of %d sources, and %d, %d", n, len(h.at), h.ranges, h.order.Len())
		}
		return n
	}
	for i := range uint64(3000) {
		h.add(Part{1, i * 10, i*10 + 5})
	}
	if s := h.of(1); count() != maxRanges || s[0].from != 10*(3000-maxRanges) {
		t.Errorf("of 3000 ranges are left %d, from %d on", len(s), s[0].from)
	}
	for i := range uint64(100) {
		h.add(Part{10 + i, 0, 5})
	}
	if len(h.at) != 100 || h.of(1) != nil || count() != 100 {
		t.Errorf("%d sources, %v of the oldest", len(h.at), h.of(1))
	}
	for i := range uint64(100) {
		for k := range uint64(40) {
			h.add(Part{10 + i, k * 10, k*10 + 5})
		}
	}
	if n := count(); n != 100*meanRange || len(h.of(109)) != 40 || h.of(10) != nil {
		t.Errorf("%d ranges in all, %d of the newest source, %d of the oldest", n, len(h.of(109)), len(h.of(10)))
	}
	var p pieces
	for i := range uint64(50) {
		p.add(Part{1, i * 10, i*10 + 5}, 10)
	}
	p.add(Part{1, 95, 99}, 10)
	if len(p) != 10 || p[9] != (Part{1, 90, 99}) {
		t.Errorf("a segment knows %v", p)
	}
}

// TestConfigure: the options of a queue in use take hold at once, and wake who waits.
func TestConfigure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := newMemFS()
		o := small(fs)
		o.manual, o.SegmentSize = false, 0
		o.MaxSize, o.SyncEvery = 64<<10, time.Hour
		q := open(t, "d", o)
		fill := func(n int) int {
			for ; ; n++ {
				if q.Stats().Bytes+3000 > q.Stats().MaxBytes {
					return n
				}
				put(t, q, n, 1000, Written)
			}
		}
		n := fill(0)
		done := make(chan error)
		start := time.Now()
		blocked := func(k int) {
			go func() {
				_, err := q.Append(ctx, item(k, 9000), Written)
				done <- err
			}()
			synctest.Wait()
		}
		blocked(1000)
		o.MaxSize = 256 << 10
		q.Configure(o)
		if err := <-done; err != nil || time.Since(start) > 0 {
			t.Errorf("with more room, after %v: %v", time.Since(start), err)
		}
		o.SyncEvery = time.Second
		q.Configure(o)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		s := q.Stats()
		if s.Unsynced != 0 || s.MaxBytes != 256<<10 || q.spare.size.Load() != 32<<10 {
			t.Errorf("after the new SyncEvery %d bytes are in reserve, and %+v", q.spare.size.Load(), s)
		}
		n = fill(n)
		blocked(1001)
		o.WhenFull = DropNewest
		q.Configure(o)
		if err := <-done; err == nil || q.Stats().Refused != 1 {
			t.Errorf("refused: %v, %+v", err, q.Stats())
		}
		o.WhenFull, o.MaxSize = DropOldest, 128<<10
		q.Configure(o)
		put(t, q, n, 1000, Written)
		if s := q.Stats(); s.Bytes > 128<<10 || s.Dropped == 0 || s.Found+s.Appended != s.Acked+s.Lost+s.Dropped+s.Records {
			t.Errorf("with less room: %+v", s)
		}
		o.MinFree = 1 << 50
		o.WhenFull = DropNewest
		q.Configure(o)
		if _, err := q.Append(ctx, item(1002, 100), Written); err == nil {
			t.Error("what is to be left free is not")
		}
		time.Sleep(3 * time.Second)
		if q.spare.size.Load() != 16<<10 {
			t.Errorf("%d bytes are in reserve", q.spare.size.Load())
		}
		q.Close()
	})
}

// TestConfigureOrder: a change of the order is one for what is there as well.
func TestConfigureOrder(t *testing.T) {
	o := small(newMemFS())
	q := open(t, "d", o)
	for n := range 60 {
		if n%20 == 19 {
			q.Mark()
		}
		put(t, q, n, 600, Written)
	}
	o.Order = InOrder
	q.Configure(o)
	var got []int
	for range 40 {
		it, ok, err := q.TryNext()
		if !ok || err != nil {
			t.Fatal(ok, err)
		}
		got = append(got, number(t, it.Item))
	}
	if !slices.Equal(got, upTo(0, 40)) {
		t.Errorf("in order came %v", got)
	}
	o.Order = FreshFirst
	q.Configure(o)
	for n := 60; n < 80; n++ {
		put(t, q, n, 600, Written)
	}
	got = numbers(t, drain(t, q))
	if i := slices.IndexFunc(got, func(n int) bool { return n >= 60 }); i > 1 {
		t.Errorf("what is fresh comes late: %v", got)
	}
	slices.Sort(got)
	if !slices.Equal(got, upTo(40, 80)) {
		t.Errorf("came %v", got)
	}
}
