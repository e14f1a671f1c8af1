package spool

import (
	"context"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestModel lives random lives: append, take, acknowledge, give back, fill the disk, free it, fail, crash, open again. The
// oracle (crash_test.go) holds every answer against what was promised.
func TestModel(t *testing.T) {
	crashes, faults, fulls := 0, 0, 0
	live := func(rt *rapid.T) {
		o := small(nil)
		o.Order = rapid.SampledFrom([]Order{FreshFirst, InOrder}).Draw(rt, "order")
		o.WhenFull = rapid.SampledFrom([]WhenFull{Block, DropNewest, DropOldest}).Draw(rt, "full")
		o.MaxSize = rapid.SampledFrom([]int64{64 << 10, 256 << 10}).Draw(rt, "max")
		w := newOracle(newMemFS(), o)
		w.dropped = o.WhenFull == DropOldest
		if err := w.open(); err != nil {
			rt.Fatal(err)
		}
		defer func() { w.q.Close() }()
		size := rapid.OneOf(rapid.IntRange(0, 200), rapid.IntRange(500, 1500), rapid.IntRange(3000, 9000))
		pick := func() (int, bool) {
			if len(w.hand) == 0 {
				return 0, false
			}
			list := make([]int, 0, len(w.hand))
			for n := range w.n {
				if _, ok := w.hand[n]; ok {
					list = append(list, n)
				}
			}
			return rapid.SampledFrom(list).Draw(rt, "item"), true
		}
		heal := func() {
			w.fs.mu.Lock()
			defer w.fs.mu.Unlock()
			w.fs.fail, w.fs.capacity = nil, 0
		}
		rt.Repeat(map[string]func(*rapid.T){
			"": func(rt *rapid.T) {
				w.balance(rt)
				w.checkParts(rt)
			},
			"configure": func(rt *rapid.T) {
				w.o.Order = rapid.SampledFrom([]Order{FreshFirst, InOrder}).Draw(rt, "order")
				w.o.WhenFull = rapid.SampledFrom([]WhenFull{Block, DropNewest, DropOldest}).Draw(rt, "full")
				w.o.MaxSize = rapid.SampledFrom([]int64{64 << 10, 256 << 10}).Draw(rt, "max")
				w.dropped = w.dropped || w.o.WhenFull == DropOldest
				w.q.Configure(w.o)
			},
			"append": func(rt *rapid.T) {
				how := rapid.SampledFrom([]How{Written, Synced, Held, Held | Synced, Spill}).Draw(rt, "how")
				c, cancel := context.WithTimeout(context.Background(), time.Millisecond)
				defer cancel()
				_ = w.appendWith(c, size.Draw(rt, "size"), how)
			},
			"repeat": func(rt *rapid.T) {
				n := rapid.IntRange(0, max(w.n-1, 0)).Draw(rt, "n")
				if !w.written[n] || w.filled { // without space, ids are forgotten before segments are kept
					return
				}
				if _, err := w.q.Append(ctx, item(n, 10), Written); err == nil {
					rt.Fatalf("the repeat of %d was taken", n)
				}
			},
			"next": func(rt *rapid.T) { w.next(rt) },
			"ack": func(rt *rapid.T) {
				if n, ok := pick(); ok {
					w.ack(n)
				}
			},
			"nack": func(rt *rapid.T) {
				if n, ok := pick(); ok {
					seq := w.hand[n]
					delete(w.hand, n)
					w.q.Nack(seq)
				}
			},
			"mark":    func(rt *rapid.T) { w.q.Mark() },
			"sync":    func(rt *rapid.T) { w.sync() },
			"rewrite": func(rt *rapid.T) { _ = w.q.acks.rewrite() },
			"fill": func(rt *rapid.T) {
				w.fs.mu.Lock()
				defer w.fs.mu.Unlock()
				w.fs.capacity = w.fs.used() + rapid.Int64Range(1, 3000).Draw(rt, "room")
				w.filled = true
				fulls++
			},
			"fail": func(rt *rapid.T) {
				op := rapid.SampledFrom([]string{"sync", "write", "create", "syncdir", "remove", "rename"}).Draw(rt, "op")
				left := rapid.IntRange(1, 4).Draw(rt, "times")
				w.fs.mu.Lock()
				defer w.fs.mu.Unlock()
				w.fs.fail = func(o, _ string) error {
					if o != op || left == 0 {
						return nil
					}
					left--
					faults++
					return syscall.EIO
				}
			},
			"heal": func(rt *rapid.T) { heal() },
			"reopen": func(rt *rapid.T) {
				w.close()
				heal()
				if err := w.open(); err != nil {
					rt.Fatal(err)
				}
			},
			"crash": func(rt *rapid.T) {
				keep := rapid.SampledFrom([]string{"none", "all", "some"}).Draw(rt, "keep")
				heal()
				w.crash(rt, keep, rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0)))
				w.check(rt, keep == "all")
				crashes++
			},
		})
		heal()
		if err := w.sync(); err != nil {
			rt.Fatalf("with a good disk: %v", err)
		}
		w.crash(rt, "none", nil)
		w.check(rt, false)
	}
	for range 20 { // twenty lives, which are what a short run has, may be too good to show anything
		if rapid.Check(t, live); crashes > 0 && faults > 0 && fulls > 0 {
			break
		}
	}
	if crashes == 0 || faults == 0 || fulls == 0 {
		t.Errorf("%d crashes, %d faults, %d full disks", crashes, faults, fulls)
	}
	t.Logf("%d crashes, %d faults, %d full disks", crashes, faults, fulls)
}
