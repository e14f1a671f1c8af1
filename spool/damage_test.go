package spool

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
)

var torture = flag.Bool("torture", false, "run the long forms of the tests")

// lie makes a spool of about size bytes, closed or not, with some of it acknowledged, and returns its files.
func lie(t testing.TB, size int, closed bool) (files map[string][]byte, items int) {
	fs := newMemFS()
	q := open(t, "d", small(fs))
	q.Configure(Options{MaxSize: 1 << 30})
	var held []uint64
	n := 0
	for written := 0; written < size; n++ {
		length := 100 + n*131%900
		if n%20 == 4 { // a segment of its own, which goes when it is acknowledged: a hole
			length = 5000
		}
		how := Written
		if n%3 == 1 {
			how = Held
		}
		seq := put(t, q, n, length, how)
		if how == Held {
			held = append(held, seq)
		}
		written += length + recHeader
	}
	for _, seq := range held[1+len(held)/8:] {
		q.Ack(seq)
	}
	if err := q.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	if closed { // half of what is settled is in a log that was written anew
		if err := q.acks.rewrite(); err != nil {
			t.Fatal(err)
		}
		q.Ack(held[0])
	}
	files = map[string][]byte{}
	keep := func() {
		for name, f := range fs.now {
			if b := filepath.Base(name); b == acksName || filepath.Ext(b) == segSuffix {
				files[name] = slices.Clone(f.data)
			}
		}
	}
	if !closed {
		keep()
	}
	q.Close()
	if closed {
		keep()
	}
	return files, n
}

// names sorts files into the acknowledgements and the segments, in their order.
func names(files map[string][]byte) (acks string, segs []string) {
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if strings.HasSuffix(name, segSuffix) {
			segs = append(segs, name)
		} else {
			acks = name
		}
	}
	return acks, segs
}

func load(files map[string][]byte) *memFS {
	fs := newMemFS()
	for name, b := range files {
		node := &inode{data: slices.Clone(b), disk: b}
		fs.now[name], fs.disk[name] = node, node
	}
	return fs
}

// found opens a spool and returns the numbers of what is in it, and of the items up to n whose parts count as taken. Of
// no other place it may say so.
func found(t testing.TB, files map[string][]byte, n int) (got, taken map[int]bool, bare int, s Stats) {
	q, err := Open("d", small(load(files)))
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	got, taken = map[int]bool{}, map[int]bool{}
	for {
		it, ok, err := q.TryNext()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
		if _, yes := mended(&it.Item); yes {
			bare++
		}
		n := number(t, it.Item)
		if got[n] {
			t.Fatal("an item came twice")
		}
		got[n] = true
	}
	w := newOracle(nil, Options{})
	w.q = q
	for i := range n {
		w.tried[i] = true
		taken[i] = w.claims(i)
	}
	w.checkParts(t)
	w.balance(t)
	return got, taken, bare, q.Stats()
}

// TestBitFlips flips every byte of a spool, one at a time: at most one item is lost, and its records are counted exactly.
// A flip in the acknowledgements makes items come again, those of one entry.
func TestBitFlips(t *testing.T) {
	size := 9 << 10
	if *torture {
		size = 1 << 20
	} else if testing.Short() {
		size = 4 << 10
	}
	defer debug.SetGCPercent(debug.SetGCPercent(800))
	for _, closed := range []bool{true, false} {
		files, items := lie(t, size, closed)
		want, taken, bare, s := found(t, files, items)
		if s.Lost != 0 || len(want) < 3 || bare > 0 {
			t.Fatalf("without a flip: %+v", s)
		}
		for n := range items {
			if !taken[n] && n%97 != 5 {
				t.Fatalf("without a flip the parts of item %d are not taken", n)
			}
		}
		acks, segs := names(files)
		last := segs[len(segs)-1]
		losses, repeats, uncounted, forgotten := 0, 0, 0, 0
		for _, name := range append(segs, acks) {
			for i := range files[name] {
				if !closed && i%5 > 0 && !*torture {
					continue
				}
				flip := byte(1) << (i % 8)
				files[name][i] ^= flip
				got, claimed, bare, s := found(t, files, items)
				files[name][i] ^= flip
				missing, records := 0, uint64(0)
				for n := range want {
					if !got[n] {
						missing++
						records += uint64(n%7 + 1)
					}
					if !got[n] && claimed[n] {
						t.Fatalf("byte %d of %s: item %d is lost, and its parts are said to be taken", i, name, n)
					}
				}
				if bare += missing; bare > 1 || name == acks && bare > 0 {
					t.Fatalf("byte %d of %s, closed %v: %d items came without their parts", i, name, closed, bare)
				}
				if !maps.Equal(claimed, taken) {
					forgotten++
				}
				switch {
				case missing > 1 || name == acks && missing > 0:
					t.Fatalf("byte %d of %s, closed %v: %d items are lost", i, name, closed, missing)
				case s.Lost != records && (closed || name != last):
					t.Fatalf("byte %d of %s: %d records are lost, %d were counted", i, name, records, s.Lost)
				case s.Lost != records:
					uncounted++ // at the end of a log that was not closed, a damaged record is one that was not written
				case len(got) > len(want) && name != acks && records == 0 && s.Lost != 0:
					t.Fatalf("byte %d of %s: %d items more", i, name, len(got)-len(want))
				}
				losses += missing
				if len(got)+missing > len(want) {
					repeats++
				}
			}
		}
		if losses == 0 || repeats == 0 || forgotten <= losses {
			t.Errorf("%d flips cost an item, %d an acknowledgement, %d the knowledge of parts", losses, repeats, forgotten)
		}
		t.Logf("closed %v: %d flips cost an item, %d made some come again, %d at the open end were not counted", closed, losses, repeats, uncounted)
	}
}

// TestInspectAndRepair: what is damaged is told exactly, and repair leaves nothing untold.
func TestInspectAndRepair(t *testing.T) {
	files, _ := lie(t, 32<<10, true)
	fs := load(files)
	clean, err := Inspect("d", fs, nil)
	if err != nil || clean.Lost != 0 || !clean.Closed || clean.Items == 0 || clean.Waiting == 0 || clean.Settled == 0 {
		t.Fatalf("%+v, %v", clean, err)
	}
	var seen int
	waiting := uint64(0)
	if _, err := Inspect("d", fs, func(e Entry) error {
		number(t, e.Item)
		if seen++; !e.Settled {
			waiting += uint64(e.Records)
		}
		return nil
	}); err != nil || seen != clean.Items || waiting != clean.Waiting {
		t.Errorf("%d items, %d records waiting, %v", seen, waiting, err)
	}
	segs := clean.Segments
	damage := func(i int, at int) { fs.now["d/"+segs[i].Name].data[at] ^= 1 }
	damage(1, 20)                     // its file header: costs nothing
	damage(2, fileHeader+2)           // a record header
	damage(3, fileHeader+160)         // a payload
	damage(4, fileHeader+recHeader+3) // parts: cost no record
	fs.now["d/notes.txt"] = &inode{data: []byte("left alone")}
	r, err := Inspect("d", fs, nil)
	if err != nil || r.Items != clean.Items-2 || r.Lost > 14 || len(r.Segments[4].Damage) != 1 {
		t.Errorf("damaged: %+v, %v", r, err)
	}
	o := small(fs)
	s, err := Repair("d", o)
	if err != nil || s.Lost != r.Lost || s.Records != r.Waiting {
		t.Errorf("repair: %+v, %v; inspect said %d lost, %d waiting", s, err, r.Lost, r.Waiting)
	}
	r, err = Inspect("d", fs, nil)
	if err != nil || r.Lost != 0 || r.Noted != s.Lost || r.Waiting != s.Records {
		t.Errorf("after repair: %+v, %v", r, err)
	}
	if fs.now["d/notes.txt"] == nil {
		t.Error("a file that is not the spool's was removed")
	}
}

// TestGoneFiles takes away whole files: what they held is counted, the rest comes.
func TestGoneFiles(t *testing.T) {
	files, items := lie(t, 64<<10, true)
	want, _, _, _ := found(t, files, items)
	_, segs := names(files)
	for _, name := range segs[1 : len(segs)-1] { // nothing tells of the first and the last
		less := maps.Clone(files)
		delete(less, name)
		got, taken, _, s := found(t, less, items)
		records := uint64(0)
		for n := range want {
			if !got[n] {
				records += uint64(n%7 + 1)
			}
			if !got[n] && taken[n] {
				t.Errorf("without %s item %d is lost, and its parts are said to be taken", name, n)
			}
		}
		if s.Lost != records || records == 0 {
			t.Errorf("without %s %d records are lost, %d were counted", name, records, s.Lost)
		}
	}
}

// FuzzOpen: any bytes open, and what opens works.
func FuzzOpen(f *testing.F) {
	files, _ := lie(f, 9000, true)
	acks, segs := names(files)
	one, two := segs[0], segs[1]
	f.Add(files[one], files[two], files[acks])
	f.Add(files[one][:1000], files[one], []byte{})
	f.Add([]byte{}, files[two][fileHeader:], files[acks][:100])
	f.Add([]byte(magicLog), []byte(strings.Repeat("\xa7\x15\xee\xc5", 50)), make([]byte, 4096))
	r := rand.New(rand.NewPCG(1, 1))
	for range 20 {
		a, b, c := slices.Clone(files[one]), slices.Clone(files[two]), slices.Clone(files[acks])
		for range 10 {
			a[r.IntN(len(a))]++
			b[r.IntN(len(b))] = 0
			c[r.IntN(len(c))] ^= 0xff
		}
		f.Add(a, b, c)
	}
	f.Fuzz(func(t *testing.T, a, b, c []byte) {
		fs := load(map[string][]byte{one: a, two: b, acks: c})
		q, err := Open("d", small(fs))
		if err != nil {
			if strings.Contains(err.Error(), ErrNewer.Error()) {
				return
			}
			t.Fatal(err)
		}
		for range 2 {
			for {
				it, ok, err := q.TryNext()
				if err != nil {
					t.Fatal(err)
				}
				if !ok {
					break
				}
				q.Ack(it.Seq)
			}
			if _, err := q.Append(ctx, item(1<<20, 100), Synced); err != nil {
				t.Fatal(err)
			}
			it, err := q.Next(ctx)
			if err != nil || fmt.Sprint(it.Item) != fmt.Sprint(item(1<<20, 100)) {
				t.Fatalf("after any bytes, what is appended comes as %v, %v", it, err)
			}
			q.Ack(it.Seq)
			if err := q.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := Inspect("d", fs, nil); err != nil {
				t.Fatal(err)
			}
			o := small(fs)
			o.Window = -1
			if q, err = Open("d", o); err != nil {
				t.Fatal(err)
			}
			if s := q.Stats(); s.Lost > 0 || s.Records > 0 {
				t.Fatalf("after a clean close: %+v", s)
			}
		}
		q.Close()
	})
}
