package spool

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"testing/synctest"
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
}

func newOracle(fs *memFS, o Options) *oracle {
	o.FS = fs
	return &oracle{fs: fs, o: o, synced: map[int]bool{}, written: map[int]bool{}, tried: map[int]bool{}, given: map[int]bool{},
		acked: map[int]bool{}, settled: map[int]bool{}, hand: map[int]uint64{}}
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

func (w *oracle) append(size int, how How) error {
	n := w.n
	w.n++
	w.tried[n] = true
	seq, err := w.q.Append(ctx, item(n, size), how)
	if err != nil {
		return err
	}
	if seq < w.top {
		return fmt.Errorf("BUG: item %d got sequence %d, and %d was there before", n, seq, w.top)
	}
	w.top = seq + uint64(n%7+1)
	w.written[n] = true
	w.synced[n] = how&Synced != 0
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
	for n := range w.written {
		w.synced[n] = true
	}
	return nil
}

func (w *oracle) close() error {
	err := w.q.Close()
	if err == nil {
		for n := range w.acked {
			w.settled[n] = true
		}
		for n := range w.written {
			w.synced[n] = true
		}
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

// workloads are the lives that crashes end. Each returns at the first error of the machine.
var workloads = map[string]func(t testing.TB, w *oracle) error{
	"synced, acknowledged": func(t testing.TB, w *oracle) error {
		for i := range 24 {
			if err := w.append(700, Synced); err != nil {
				return err
			}
			if i%3 == 2 {
				for range 3 {
					if n, ok := w.next(t); ok {
						w.ack(n)
					}
				}
			}
			if i%8 == 7 {
				if err := w.sync(); err != nil {
					return err
				}
			}
		}
		return w.close()
	},
	"written, held, opened again": func(t testing.TB, w *oracle) error {
		for i := range 20 {
			if err := w.append(i*97%1500, []How{Written, Held, Written, Held | Synced}[i%4]); err != nil {
				return err
			}
			if _, ok := w.hand[i]; ok && i%5 < 3 {
				w.ack(i)
			}
			if i%10 == 9 {
				if err := w.close(); err != nil {
					return err
				}
				if err := w.open(); err != nil {
					return err
				}
			}
		}
		if err := w.q.acks.rewrite(); err != nil {
			return err
		}
		for range 10 {
			if n, ok := w.next(t); ok {
				w.ack(n)
			}
		}
		if err := w.sync(); err != nil {
			return err
		}
		return w.append(9000, Synced)
	},
	"full, the oldest dropped": func(t testing.TB, w *oracle) error {
		w.dropped = true
		w.q.o.WhenFull = DropOldest
		w.q.o.MaxSize = 24 << 10
		for i := range 24 {
			if err := w.append(1200, Written); err != nil {
				return err
			}
			if i%6 == 5 {
				if n, ok := w.next(t); ok {
					w.ack(n)
				}
			}
		}
		return w.sync()
	},
	"a sync fails": func(t testing.TB, w *oracle) error {
		syncs := 0
		w.fs.fail = func(op, name string) error {
			if op == "sync" && name != acksName && name != acksTemp {
				if syncs++; syncs%4 == 2 {
					return syscall.EIO
				}
			}
			return nil
		}
		for i := range 16 {
			how := Written
			if i%3 == 2 {
				how = Synced
			}
			if err := w.append(900, how); err != nil {
				return err
			}
			if i%5 == 4 {
				if n, ok := w.next(t); ok {
					w.ack(n)
				}
			}
		}
		if w.q.Stats().Rewrites == 0 {
			t.Error("no sync failed")
		}
		return w.close()
	},
}

// TestCrashPoints crashes at every call of the workloads, with nothing, all or some of what was not synced kept.
func TestCrashPoints(t *testing.T) {
	for name, work := range workloads {
		t.Run(name, func(t *testing.T) {
			points := 0
			keeps := []string{"none", "all", "some", "some", "some"}
			if testing.Short() {
				keeps = keeps[:3]
			}
			for i, keep := range keeps {
				points = 0
				for at := 1; ; at++ {
					r := rand.New(rand.NewPCG(uint64(at), uint64(i)))
					w := newOracle(newMemFS(), small(nil))
					w.fs.crashAt = at
					err := w.open()
					if err == nil {
						err = work(t, w)
					}
					if err == nil {
						break
					}
					if w.fs.hits == 0 || !errors.Is(err, errCrash) && w.q == nil {
						t.Fatalf("crash at %d: %v", at, err)
					}
					if points++; points > 1000 {
						t.Fatalf("without a crash: %v", err)
					}
					survive(t, w, keep, r, at)
					if t.Failed() {
						t.Fatalf("crash at call %d, %s kept", at, keep)
					}
				}
			}
			if points < 50 {
				t.Errorf("only %d calls to crash at", points)
			}
			t.Logf("%d calls", points)
		})
	}
}

func survive(t *testing.T, w *oracle, keep string, r *rand.Rand, at int) {
	defer func() {
		if t.Failed() {
			t.Logf("crash at call %d, %s kept", at, keep)
		}
	}()
	w.crash(t, keep, r)
	lost := w.q.Stats().Lost
	unsafe := uint64(0)
	for n := range w.tried {
		if !w.synced[n] {
			unsafe += uint64(n%7 + 1)
		}
	}
	if lost > unsafe || keep == "all" && lost > 0 {
		t.Fatalf("crash at %d: %d records are said to be lost by damage, of %d that were not synced", at, lost, unsafe)
	}
	w.check(t, keep == "all")
	if err := w.append(300, Synced); err != nil && !w.dropped {
		t.Fatal(err)
	}
	for n := range w.hand {
		w.ack(n)
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	if err := w.open(); err != nil {
		t.Fatal(err)
	}
	w.check(t, false)
	if s := w.q.Stats(); s.Lost > 0 {
		t.Fatalf("after a clean close %d records are lost", s.Lost)
	}
	w.close()
}

// TestFailingSync: one failed sync, with the pages kept or dropped, costs nothing that was promised; many in a row are an
// error to who waits, until the disk works again.
func TestFailingSync(t *testing.T) {
	for _, dropped := range []bool{false, true} {
		for fails := 1; fails <= 4; fails++ {
			w := newOracle(newMemFS(), small(nil))
			if err := w.open(); err != nil {
				t.Fatal(err)
			}
			for range 8 {
				if err := w.append(700, Synced); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.append(700, Held); err != nil {
				t.Fatal(err)
			}
			left := fails
			w.fs.dropped = dropped
			w.fs.fail = func(op, name string) error {
				if op == "sync" && left > 0 {
					left--
					return syscall.EIO
				}
				return nil
			}
			err := w.append(700, Synced)
			if dropped != (err != nil) && fails < 3 || fails >= 3 && err == nil {
				t.Errorf("dropped %v, %d failures: append returned %v", dropped, fails, err)
			}
			left = 0
			if err != nil { // the caller repeats it
				n := w.n - 1
				for i := range 3 {
					if _, err = w.q.Append(ctx, item(n, 700), Synced); err == nil || errors.Is(err, ErrDuplicate) {
						break
					}
					if i == 2 {
						t.Errorf("dropped %v, %d failures: repeated: %v", dropped, fails, err)
					}
				}
				w.written[n], w.synced[n] = true, true
			}
			s := w.q.Stats()
			if w.fs.hits != min(fails, 3) || s.Rewrites == 0 || (s.Lost > 0) != dropped || s.Err != nil {
				t.Errorf("dropped %v, %d failures: %+v", dropped, fails, s)
			}
			if !dropped {
				w.q.Nack(w.hand[8]) // in the new segment by now
				delete(w.hand, 8)
			}
			w.fs.fail = nil
			w.crash(t, "none", nil)
			if dropped {
				w.written[8] = false
			}
			w.check(t, false)
			w.close()
		}
	}
}

// TestFullDisk fills the disk to the last byte, again and again: acknowledgements and a shutdown work, nothing is lost,
// and appends go on when there is space.
func TestFullDisk(t *testing.T) {
	for capacity := int64(24 << 10); capacity < 32<<10; capacity += 513 {
		w := newOracle(newMemFS(), small(nil))
		w.o.WhenFull, w.o.Window = DropNewest, 8 // ids must fit into what is left of so small a reserve
		w.fs.capacity = capacity
		if err := w.open(); err != nil {
			t.Fatal(err)
		}
		for round := range 4 {
			for {
				if err := w.append(300, Synced); err != nil {
					if !errors.Is(err, ErrFull) {
						t.Fatalf("full disk: %v", err)
					}
					break
				}
			}
			w.tried[w.n-1] = false
			if !w.q.Stats().Full {
				t.Fatal("not full")
			}
			if round == 0 {
				for range 20 {
					if err := w.append(100, Synced|Spill); err != nil {
						t.Fatalf("the reserve was not there: %v", err)
					}
				}
			}
			for i := range 40 {
				n, ok := w.next(t)
				if !ok && i == 0 {
					t.Fatal("nothing is in a full queue")
				}
				if !ok {
					break
				}
				w.ack(n)
			}
			if err := w.sync(); err != nil {
				t.Fatalf("acknowledge on a full disk, capacity %d, round %d: %v; %d spans; %d ids, %+v", capacity, round, err, len(w.q.settled), len(w.q.seen.at), w.q.Stats())
			}
			if round%2 == 1 {
				if err := w.close(); err != nil {
					t.Fatalf("close on a full disk: %v", err)
				}
				if err := w.open(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if w.fs.hits == 0 {
			t.Error("the disk was never full")
		}
		w.crash(t, "none", nil)
		w.check(t, false)
		w.close()
	}
}

// TestFaults lets every call of the workloads fail once, with errors of a bad disk: no panic, no promise broken, and the
// queue works again.
func TestFaults(t *testing.T) {
	synctest.Test(t, testFaults) // who waits for room costs no time
}

func testFaults(t *testing.T) {
	for name, work := range workloads {
		if name == "a sync fails" {
			continue
		}
		hits := 0
		for _, fault := range []error{syscall.EIO, syscall.ENOSPC} {
			for at := 1; ; at++ {
				w := newOracle(newMemFS(), small(nil))
				w.fs.fail = func(op, file string) error {
					if w.fs.calls == at {
						return fault
					}
					return nil
				}
				if err := w.open(); err != nil {
					if w.fs.calls >= at && w.fs.hits > 0 {
						continue
					}
					t.Fatal(err)
				}
				err := work(t, w)
				if w.fs.hits == 0 {
					break
				}
				hits++
				w.fs.fail = nil
				_ = err
				w.q.Close()
				if err := w.open(); err != nil {
					t.Fatalf("%s: open after %v at call %d: %v", name, fault, at, err)
				}
				w.check(t, true)
				if s := w.q.Stats(); s.Lost > 0 {
					t.Fatalf("%s: %v at call %d: %d records lost", name, fault, at, s.Lost)
				}
				if err := w.append(300, Synced); err != nil {
					t.Fatalf("%s: after %v at call %d: %v", name, fault, at, err)
				}
				w.close()
			}
		}
		if hits < 50 {
			t.Errorf("%s: only %d faults", name, hits)
		}
	}
}

// TestReadErrors: an unreadable page is an error of Next, not a loss, until it stays so.
func TestReadErrors(t *testing.T) {
	w := newOracle(newMemFS(), small(nil))
	if err := w.open(); err != nil {
		t.Fatal(err)
	}
	for range 12 {
		if err := w.append(700, Synced); err != nil {
			t.Fatal(err)
		}
	}
	left := 6
	w.fs.fail = func(op, name string) error {
		if op == "read" && left > 0 {
			left--
			return syscall.EIO
		}
		return nil
	}
	failed := 0
	for left > 0 {
		if _, ok, err := w.q.TryNext(); err == nil || ok || !errors.Is(err, syscall.EIO) {
			t.Fatalf("a bad page: %v, %v", ok, err)
		}
		failed++
	}
	w.check(t, false)
	if s := w.q.Stats(); s.Lost > 0 || failed < 2 {
		t.Fatalf("lost after %d errors: %+v", failed, s)
	}
	w.close()
}

// TestAcksBeforeRemoval: when a segment is removed, what says that nothing of it is needed is durable.
func TestAcksBeforeRemoval(t *testing.T) {
	fs := newMemFS()
	q := open(t, "d", small(fs))
	removed := 0
	fs.fail = func(op, name string) error {
		if op == "remove" && name != acksTemp && name != segTemp && name != reserveName {
			removed++
			if n := len(fs.now["d/"+acksName].ops); n > 0 {
				t.Errorf("%s is removed while %d acknowledgements are not durable", name, n)
			}
		}
		return nil
	}
	var seqs []uint64
	for n := range 40 {
		seqs = append(seqs, put(t, q, n, 900, Held))
	}
	q.Ack(seqs[10:]...) // not the oldest
	if err := q.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	q.Ack(seqs[:10]...)
	if err := q.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	if removed < 5 {
		t.Errorf("%d segments were removed", removed)
	}
}

// TestSuspect: a segment whose sync failed is not trusted by the next process either, though there it reads and syncs well.
func TestSuspect(t *testing.T) {
	w := newOracle(newMemFS(), small(nil))
	if err := w.open(); err != nil {
		t.Fatal(err)
	}
	if err := w.append(500, Written); err != nil {
		t.Fatal(err)
	}
	w.fs.fail = func(op, name string) error {
		if op == "sync" || op == "create" && name == segTemp {
			return syscall.EIO
		}
		return nil
	}
	if err := w.sync(); err == nil {
		t.Fatal("no sync failed")
	}
	w.fs.fail = nil
	w.crash(t, "all", nil) // the process, not the machine
	w.written[0] = true
	if err := w.sync(); err != nil {
		t.Fatal(err)
	}
	if w.q.Stats().Rewrites == 0 || w.fs.now["d/"+suspectName] != nil {
		t.Errorf("after a sync: %+v", w.q.Stats())
	}
	w.crash(t, "none", nil)
	w.check(t, false)
	w.close()
}
