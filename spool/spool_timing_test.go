package spool

import (
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// memory returns a directory in memory where the system has one, so that what is measured is the queue and not the disk.
func memory(b *testing.B) string {
	dir, err := os.MkdirTemp("/dev/shm", "spool")
	if err != nil {
		return filepath.Join(b.TempDir(), "spool")
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "spool")
}

func bench(b *testing.B, dir string, o Options) *Queue {
	q, err := Open(dir, o)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { q.Close() })
	return q
}

// BenchmarkAppend is the life of a spool in front of an exporter that keeps up: append what is delivered from memory, with
// or without the part of a file that it was read from, and acknowledge it. The limit is writing the same bytes to files of 16 MiB that are removed when they are full.
func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{4 << 10, 64 << 10, 1 << 20} {
		it := Item{Records: 100, Payload: make([]byte, size)}
		for _, parts := range [][]Part{nil, {{Source: 1}}} {
			b.Run(fmt.Sprintf("held/%dKiB/parts=%d", size>>10, len(parts)), func(b *testing.B) {
				q := bench(b, memory(b), Options{MaxSize: 256 << 20})
				it.Parts = parts
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					for i := range parts { // read one after another
						parts[i].From, parts[i].To = parts[i].To, parts[i].To+uint64(size)
					}
					seq, err := q.Append(ctx, it, Held)
					if err != nil {
						b.Fatal(err)
					}
					q.Ack(seq)
				}
			})
		}
		b.Run(fmt.Sprintf("limit/%dKiB", size>>10), func(b *testing.B) {
			name := memory(b)
			var f *os.File
			b.SetBytes(int64(size))
			off := int64(16 << 20)
			for b.Loop() {
				if off >= 16<<20 {
					f.Close()
					os.Remove(name)
					off = 0
					var err error
					if f, err = os.Create(name); err != nil {
						b.Fatal(err)
					}
				}
				if _, err := f.WriteAt(it.Payload, off); err != nil {
					b.Fatal(err)
				}
				off += int64(size)
			}
			f.Close()
		})
	}
}

// BenchmarkAppendDisk is the same on the disk.
func BenchmarkAppendDisk(b *testing.B) {
	it := Item{Records: 100, Payload: make([]byte, 64<<10)}
	q := bench(b, filepath.Join(b.TempDir(), "spool"), Options{MaxSize: 256 << 20})
	b.SetBytes(64 << 10)
	b.ReportAllocs()
	for b.Loop() {
		seq, err := q.Append(ctx, it, Held)
		if err != nil {
			b.Fatal(err)
		}
		q.Ack(seq)
	}
}

// BenchmarkAppendSynced is for many who wait: they share syncs. The limit is one sync for each.
func BenchmarkAppendSynced(b *testing.B) {
	it := Item{Records: 100, Payload: make([]byte, 16<<10)}
	for _, callers := range []int{1, 16, 128} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			q := bench(b, filepath.Join(b.TempDir(), "spool"), Options{MaxSize: 256 << 20})
			b.SetBytes(16 << 10)
			b.ReportAllocs()
			b.SetParallelism(callers)
			var slowest atomic.Int64
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					start := time.Now()
					seq, err := q.Append(ctx, it, Held|Synced)
					if err != nil {
						b.Error(err)
						return
					}
					q.Ack(seq)
					slowest.Store(max(slowest.Load(), int64(time.Since(start))))
				}
			})
			b.ReportMetric(float64(slowest.Load())/1e6, "ms-worst")
		})
	}
}

// BenchmarkNext reads a backlog from the page cache.
func BenchmarkNext(b *testing.B) {
	for _, size := range []int{4 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			q := bench(b, memory(b), Options{MaxSize: 512 << 20})
			n := (128 << 20) / size
			fill := func() {
				for range n {
					if _, err := q.Append(ctx, Item{Records: 100, Payload: make([]byte, size)}, Written); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if i%n == 0 {
					b.StopTimer()
					fill()
					b.StartTimer()
				}
				t, err := q.Next(ctx)
				if err != nil {
					b.Fatal(err)
				}
				q.Ack(t.Seq)
			}
		})
	}
}

// BenchmarkOpen opens 256 MiB of backlog, with what it was read from, after a clean close.
func BenchmarkOpen(b *testing.B) {
	dir := memory(b)
	q := bench(b, dir, Options{MaxSize: 512 << 20})
	for i := range uint64(256 << 20 / (64 << 10)) {
		it := Item{Records: 100, Payload: make([]byte, 64<<10), Parts: []Part{{i % 5, i << 16, (i + 1) << 16}}}
		if _, err := q.Append(ctx, it, Written); err != nil {
			b.Fatal(err)
		}
	}
	if err := q.Close(); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(256 << 20)
	for b.Loop() {
		q, err := Open(dir, Options{MaxSize: 512 << 20, manual: true})
		if err != nil {
			b.Fatal(err)
		}
		q.Close()
	}
}

// TestNoAllocations: once warm, an item costs no allocation but the payload that Next gives away.
func TestNoAllocations(t *testing.T) {
	q := open(t, filepath.Join(t.TempDir(), "spool"), Options{manual: true})
	it := item(1, 2000)
	it.ID, it.Parts = ID{}, nil
	for range 1000 {
		seq, _ := q.Append(ctx, it, Held)
		q.Ack(seq)
	}
	if n := testing.AllocsPerRun(1000, func() {
		seq, err := q.Append(ctx, it, Held)
		if err != nil {
			t.Fatal(err)
		}
		q.Ack(seq)
	}); n > 0 {
		t.Errorf("append and acknowledge allocate %v times", n)
	}
	it.Parts = []Part{{Source: 3}}
	if n := testing.AllocsPerRun(1000, func() {
		it.Parts[0].From, it.Parts[0].To = it.Parts[0].To, it.Parts[0].To+2000
		seq, err := q.Append(ctx, it, Held)
		if err != nil {
			t.Fatal(err)
		}
		q.Ack(seq)
	}); n > 0 {
		t.Errorf("append with a part and acknowledge allocate %v times", n)
	}
	it.Parts = nil
	for range 2200 {
		if _, err := q.Append(ctx, it, Written); err != nil {
			t.Fatal(err)
		}
	}
	if n := testing.AllocsPerRun(1000, func() {
		got, err := q.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		q.Ack(got.Seq)
	}); n > 1 {
		t.Errorf("next and acknowledge allocate %v times", n)
	}
}
