//go:build linux

package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/creelhq/creel/task"
)

// poolBurst is how many pieces of work come at once: as many as there are rounds of a large host's collectors after a pause.
const poolBurst = 100_000

// runPool compares a bounded pool with a goroutine for each piece of work: what they have in memory at most, and how long after
// it was submitted a piece is done.
func (b *bench) runPool() {
	n := min(poolBurst, b.lines)
	fmt.Printf("\n%-42s %12s %12s %12s\n", fmt.Sprintf("%d pieces of work at once", n), "MiB at most", "done, p99", "all done")
	var over sync.WaitGroup
	burst("a goroutine for each", n, func(f func()) { over.Go(f) }, over.Wait)
	p := task.NewPool(task.PoolOptions{Queue: n})
	burst("task.Pool", n, func(f func()) {
		over.Add(1)
		if err := p.TrySubmit(func() { defer over.Done(); f() }); err != nil {
			panic("BUG: " + err.Error()) // there is room for all
		}
	}, over.Wait)
	if err := p.Close(context.Background()); err != nil {
		panic("BUG: " + err.Error()) // nothing is left to do
	}
}

// burst submits work, waits until all is done, and prints a line.
func burst(name string, n int, submit func(func()), wait func()) {
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	took := make([]time.Duration, n)
	payload := make([]byte, 2<<10)
	began := time.Now()
	for i := range took {
		submitted := time.Now()
		submit(func() {
			work(payload, 16)
			took[i] = time.Since(submitted)
		})
	}
	var most runtime.MemStats
	runtime.ReadMemStats(&most) // when all are there, and few are done
	wait()
	all := time.Since(began)
	slices.Sort(took)
	used := int64(most.HeapInuse+most.StackInuse) - int64(before.HeapInuse+before.StackInuse)
	fmt.Printf("%-42s %12.1f %12v %12v\n", name, float64(max(used, 0))/(1<<20), took[len(took)*99/100].Round(time.Millisecond), all.Round(time.Millisecond))
}

// work computes some 20 µs, with a stack as deep as that of a round that parses something.
func work(payload []byte, depth int) byte {
	var frame [256]byte
	sum := sha256.Sum256(payload)
	frame[depth] = sum[0]
	if depth > 0 {
		frame[0] ^= work(payload[:len(payload)/2+1], depth-1)
	}
	return frame[0] ^ frame[depth]
}
