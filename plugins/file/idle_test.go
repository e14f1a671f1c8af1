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

// TestIdleFiles: ten thousand files in which nothing happens are opened no more than is allowed, and looked at no more
// than all of them every few seconds. What that costs is printed.
func TestIdleFiles(t *testing.T) {
	files := 10_000
	if testing.Short() {
		files = 500
	}
	dir := t.TempDir()
	for i := range files {
		write(t, filepath.Join(dir, fmt.Sprintf("%d.log", i)), []byte("a line\n"))
	}
	for _, watch := range []string{"poll", "auto"} {
		r := newRig(t, nil, "watch: "+watch+", include: ["+dir+"/*.log]")
		for range 200 {
			r.step(200 * time.Millisecond)
		}
		if got := len(r.take()); got != files {
			t.Fatalf("%d lines of %d files", got, files)
		}
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

		ctx, cancel := context.WithCancel(t.Context())
		r.c.cfg.StartAt, r.c.hot = "end", r.c.hot[:0]
		done := make(chan error)
		s := &sleeper{}
		go func() { done <- r.c.Collect(ctx, s) }()
		time.Sleep(2 * time.Second) // so that it is idle; nothing depends on it but the figures
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		cpu, start := used(t), time.Now()
		time.Sleep(3 * time.Second)
		t.Logf("watch: %s: %d files cost %.2f %% of a CPU; %d MiB of heap", watch, files,
			100*float64(used(t)-cpu)/float64(time.Since(start)), m.HeapAlloc>>20)
		cancel()
		<-done
	}
}

type sleeper struct{}

func (*sleeper) Send(context.Context, *creel.Batch) error { return nil }
func (*sleeper) TrySend(b *creel.Batch) bool              { creel.Settle(b, nil); return true }

func used(t *testing.T) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
