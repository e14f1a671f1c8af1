package spool

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestManyAtOnce lets many append, take, acknowledge, give back, mark and look, while syncs fail now and then: every item
// is acknowledged once, and the books balance.
func TestManyAtOnce(t *testing.T) {
	const each, writers = 150, 6
	fs := newMemFS()
	syncs := 0
	fs.fail = func(op, name string) error {
		if op == "sync" && filepath.Ext(name) == segSuffix {
			if syncs++; syncs%13 == 5 {
				return syscall.EIO
			}
		}
		return nil
	}
	o := Options{FS: fs, MaxSize: 1 << 20, SegmentSize: 16 << 10, ReadAhead: 4 << 10, SyncEvery: time.Millisecond}
	q := open(t, "d", o)
	var acked [each * writers]atomic.Int32
	var appending, taking sync.WaitGroup
	c, stop := context.WithCancel(ctx)
	defer stop()
	left := atomic.Int64{}
	left.Store(each * writers)
	for w := range writers {
		appending.Go(func() {
			for i := range each {
				n := w*each + i
				how := []How{Written, Synced, Held, Synced | Held}[n%4]
				seq, err := q.Append(ctx, item(n, n*17%3000), how)
				if err != nil && !errors.Is(err, ErrDuplicate) {
					t.Errorf("append %d: %v", n, err)
					left.Add(-1)
					continue
				}
				if how&Held != 0 && n%3 > 0 {
					q.Nack(seq)
				} else if how&Held != 0 {
					acked[n].Add(1)
					q.Ack(seq)
					left.Add(-1)
				}
			}
		})
	}
	for r := range 3 {
		taking.Go(func() {
			for i := 0; ; i++ {
				it, err := q.Next(c)
				if err != nil {
					if !errors.Is(err, context.Canceled) {
						t.Error(err)
					}
					return
				}
				if i%5 == r {
					q.Nack(it.Seq)
					continue
				}
				acked[number(t, it.Item)].Add(1)
				q.Ack(it.Seq)
				if left.Add(-1) == 0 {
					stop()
				}
				if i%20 == 0 {
					q.Mark()
					q.Stats()
					q.Parts(1)
					q.Configure(Options{MaxSize: int64(1+i%3) << 20, SyncEvery: time.Millisecond})
				}
			}
		})
	}
	appending.Wait()
	if left.Load() == 0 {
		stop()
	}
	taking.Wait()
	if err := q.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	for n := range acked {
		if k := acked[n].Load(); k != 1 {
			t.Errorf("item %d was delivered %d times", n, k)
		}
	}
	s := q.Stats()
	for n := range acked {
		if !claims(q, n) && n%97 != 5 {
			t.Errorf("the parts of item %d are forgotten", n)
		}
	}
	if s.Records != 0 || s.Taken != 0 || s.Appended != s.Acked || s.Lost+s.Dropped > 0 || s.Segments != 1 || s.Rewrites == 0 {
		t.Errorf("at the end: %+v", s)
	}
}

// TestBackground: what is Written is durable after SyncEvery, without anybody asking; with nothing to do, nothing runs.
func TestBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := newMemFS()
		o := small(fs)
		o.manual, o.SyncEvery = false, 2*time.Second
		q := open(t, "d", o)
		for n := range 30 {
			put(t, q, n, 500, Written)
		}
		if s := q.Stats(); s.Unsynced == 0 {
			t.Error("all is durable at once")
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if s := q.Stats(); s.Unsynced != 0 {
			t.Errorf("after SyncEvery: %+v", s)
		}
		for _, it := range drain(t, q) {
			q.Ack(it.Seq)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if s := q.Stats(); s.Segments != 1 {
			t.Errorf("after all is acknowledged: %+v", s)
		}
		calls := fs.calls
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := fs.calls - calls; n > 0 {
			t.Errorf("%d calls in an idle hour", n)
		}
		w := newOracle(fs, o)
		w.q = q
		w.n = 30
		w.crash(t, "none", nil)
		if _, ok, _ := w.q.TryNext(); ok {
			t.Error("what was acknowledged comes again")
		}
		w.q.Close()
	})
}

// TestGroupCommit: while the disk is busy with one sync, all who come share the next.
func TestGroupCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := newMemFS()
		syncs := 0
		o := small(slowFS{fs, &syncs})
		o.SegmentSize = 32 << 10
		q := open(t, "d", o)
		put(t, q, 1000, 10, Synced)
		before := syncs
		var wait sync.WaitGroup
		for n := range 100 {
			wait.Go(func() {
				start := time.Now()
				put(t, q, n, 10, Synced)
				if d := time.Since(start); d > 25*time.Millisecond {
					t.Errorf("with a disk that needs 10 ms it took %v", d)
				}
			})
		}
		wait.Wait()
		if n := syncs - before; n > 4 {
			t.Errorf("100 callers needed %d syncs", n)
		}
		q.Close()
	})
}

// slowFS needs 10 ms for a sync of a segment.
type slowFS struct {
	*memFS
	syncs *int
}

type slowFile struct {
	File
	fs slowFS
}

func (s slowFS) Create(name string) (File, error) {
	f, err := s.memFS.Create(name)
	if filepath.Ext(name) == segSuffix && err == nil {
		f = slowFile{f, s}
	}
	return f, err
}

func (f slowFile) Sync() error {
	time.Sleep(10 * time.Millisecond)
	*f.fs.syncs++
	return f.File.Sync()
}
