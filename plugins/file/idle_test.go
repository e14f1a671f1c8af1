//go:build unix

package file

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/creelhq/creel"
)

// TestIdleFiles: thousands of files in which nothing happens are opened no more than is allowed, and looked at no more than all
// of them every few seconds.
func TestIdleFiles(t *testing.T) {
	files := 2_000
	if testing.Short() {
		files = 500
	}
	for _, watch := range []string{"poll", "auto"} {
		r := idle(t, watch, files)
		if got := len(r.c.opened); got > 1024 {
			t.Errorf("%d files are open", got)
		}
		before := r.c.stats + r.c.finder.stats
		for range 100 {
			r.step(200 * time.Millisecond)
		}
		if looks, most := r.c.stats+r.c.finder.stats-before, 20*files*int(time.Second)/int(slowEvery)+200; looks > most {
			t.Errorf("%d looks within 20 s, which is more than %d", looks, most)
		}
	}
}

// idle returns a collector that has sent what so many files have, and waits.
func idle(t testing.TB, watch string, files int) *rig {
	dir := t.TempDir()
	for i := range files {
		write(t, filepath.Join(dir, fmt.Sprintf("%d.log", i)), []byte("a line\n"))
	}
	r := newRig(t, nil, "watch: "+watch+", include: ["+dir+"/*.log]")
	for range 200 {
		r.step(200 * time.Millisecond)
	}
	if got := len(r.take()); got != files {
		t.Fatalf("%d lines of %d files", got, files)
	}
	return r
}

// BenchmarkIdleFiles: what ten thousand files cost in which nothing happens, in % of a CPU; the limit is 1.
func BenchmarkIdleFiles(b *testing.B) {
	for _, watch := range []string{"poll", "auto"} {
		b.Run(watch, func(b *testing.B) {
			r := idle(b, watch, 10_000)
			ctx, cancel := context.WithCancel(b.Context())
			r.c.cfg.StartAt, r.c.hot = "end", r.c.hot[:0]
			done := make(chan error)
			go func() { done <- r.c.Collect(ctx, &sleeper{}) }()
			time.Sleep(2 * time.Second) // so that it is idle; nothing depends on it but the figures
			runtime.GC()
			cpu, start := used(b), time.Now()
			time.Sleep(3 * time.Second)
			b.ReportMetric(100*float64(used(b)-cpu)/float64(time.Since(start)), "%-of-a-CPU")
			cancel()
			<-done
		})
	}
}

type sleeper struct{}

func (*sleeper) Send(context.Context, *creel.Batch) error { return nil }
func (*sleeper) TrySend(b *creel.Batch) bool              { creel.Settle(b, nil); return true }

func used(t testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
