package spool

import (
	"errors"
	"math/rand/v2"
	"syscall"
	"testing"
	"testing/synctest"
)

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
		o := *w.q.options()
		o.MaxSize, o.WhenFull = 24<<10, DropOldest
		w.q.Configure(o)
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
				for range 14 {
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

// TestCompactOnFullDisk: when there is no room to make the acknowledgements smaller, they stay as they are, and the reserve
// is not spent on it.
func TestCompactOnFullDisk(t *testing.T) {
	w := newOracle(newMemFS(), small(nil))
	w.o.MaxSize = 4 << 20
	if err := w.open(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := w.append(1000, Held); err != nil {
			t.Fatal(err)
		}
	}
	b := w.q.acks.pending
	for range compactAt / ackEntry {
		b = putSeen(b, ID{1}, 1)
	}
	w.q.acks.pending = b
	w.fs.fail = func(op, name string) error {
		if op == "sync" && name == acksName { // meanwhile somebody acknowledges
			w.q.mu.Lock()
			w.q.settle(w.hand[1], w.hand[1]+2, ackDone)
			w.q.mu.Unlock()
		}
		if op == "create" && name == acksTemp {
			return syscall.ENOSPC
		}
		return nil
	}
	w.ack(0)
	if err := w.sync(); err != nil || w.fs.hits == 0 || w.q.spare.size.Load() == 0 {
		t.Fatalf("%v, %d times full, %d bytes in reserve", err, w.fs.hits, w.q.spare.size.Load())
	}
	if err := w.q.acks.flush(); err != nil {
		t.Fatal(err)
	}
	w.fs.fail = nil
	w.crash(t, "all", nil)
	if got := drain(t, w.q); len(got) > 0 {
		t.Errorf("what was acknowledged comes again: %d items", len(got))
	}
	if err := w.sync(); err != nil || w.q.acks.size.Load() > compactAt/2 {
		t.Errorf("with room: %v, %d bytes", err, w.q.acks.size.Load())
	}
	w.close()
}

// TestHeldWithAnError: an item whose Append failed is not held, for its caller does not know it.
func TestHeldWithAnError(t *testing.T) {
	w := newOracle(newMemFS(), small(nil))
	if err := w.open(); err != nil {
		t.Fatal(err)
	}
	w.fs.fail = func(op, name string) error {
		if op == "sync" {
			return syscall.EIO
		}
		return nil
	}
	if err := w.append(100, Held|Synced); err == nil {
		t.Fatal("no sync failed")
	}
	w.fs.fail = nil
	if err := w.sync(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.q.Append(ctx, item(0, 100), Held|Synced); !errors.Is(err, ErrDuplicate) {
		t.Errorf("the repeat: %v", err)
	}
	if n, ok := w.next(t); !ok || n != 0 {
		t.Error("what is in the queue does not come")
	}
	w.balance(t)
	w.close()
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
