package test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fill fills the disk from outside, to the last byte.
func (w *diskWorld) fill() {
	w.Helper()
	f, err := os.OpenFile(filepath.Join(w.data, "ballast"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		w.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 4<<10); err == nil; {
		_, err = f.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		w.Fatal(err)
	}
}

func (w *diskWorld) relieve() {
	w.Helper()
	if err := os.Remove(filepath.Join(w.data, "ballast")); err != nil {
		w.Fatal(err)
	}
}

// blocked waits until the disk is full: health says so, clients are told to come later, and nothing more is acknowledged.
func (w *diskWorld) blocked() {
	w.Helper()
	later, took, since := w.turnedAway(), w.took.Load(), time.Now()
	w.soon("the disk is full, and clients are told to come later", func() bool {
		w.fill() // what the agent has given up meanwhile as well
		if now := w.took.Load(); now != took {
			took, since = now, time.Now()
		}
		return time.Since(since) > 300*time.Millisecond && w.turnedAway() > later
	})
	x := w.exporter("otlp")
	if x.Healthy || x.Spool == nil || x.Spool.Error == "" {
		w.Errorf("with a full disk the exporter is %+v, %+v", x, x.Spool)
	}
	if h := w.health(); h.Health != "degraded" {
		w.Errorf("with a full disk the agent is %+v", h)
	}
}

// TestDiskQueueFull: the disk under an agent fills, by its disk queue and from outside, while the far side is away. Nothing that
// was acknowledged is lost, and it goes on by itself.
func TestDiskQueueFull(t *testing.T) {
	if !diskApart(t) {
		return
	}
	cycles := 2
	if *torture {
		cycles = 20
	}
	w := newDiskWorld(t)
	if err := os.Mkdir(w.data, 0o700); err != nil {
		t.Fatal(err)
	}
	diskMount(t, "mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", w.data)
	t.Cleanup(func() {
		if w.agent != nil {
			w.agent.kill()
		}
		diskMount(t, "umount", w.data)
	})
	var slowest time.Duration
	var causes = map[string]int{}
	for cycle := range cycles {
		ack := []string{"process", "disk"}[cycle%2]
		w.configure("otlp", "{max_size: 64MiB, min_free: 0}", ack)
		w.start()
		w.clamour(16)
		w.soon("some are taken", func() bool { w.lines(20); return w.took.Load() > int64(100*cycle+50) })
		w.blocked()
		w.lines(500)
		causes[w.exporter("otlp").Error]++

		// Space returns.
		took, began := w.took.Load(), time.Now()
		w.relieve()
		w.soon("it goes on", func() bool { return w.took.Load() > took })
		slowest = max(slowest, time.Since(began))
		w.blocked()

		// A stop, and a start, with a full disk.
		if cycle%4 < 2 {
			w.agent.stop()
		} else {
			w.agent.kill()
		}
		w.fill()
		w.start()
		if n := w.exporter("otlp").Spool.Waiting; n == 0 {
			t.Error("after a start nothing waits in the disk queue")
		}
		w.lines(100)

		// The far side returns, the disk stays full.
		var there map[string]bool
		took = w.took.Load()
		w.comesAndGoes(true)
		w.soon("lines of the file arrive, the disk being full", func() bool {
			w.fill()
			there, _ = w.arrived()
			return there[fmt.Sprintf("file %d", w.written-1)] && w.took.Load() > took
		})
		w.rest()
		w.relieve()
		w.soon("it is healthy", func() bool { w.lines(1); return w.health().Health == "healthy" }) // the next record tells that there is room
		w.wantAll()
		l := w.wantBalance()
		if len(l.Spools) != 1 || len(l.Spools[0].Dropped)+len(l.Pipelines[0].Exporters[0].Dropped) > 0 {
			t.Errorf("cycle %d: the ledger has %+v", cycle, l)
		}
		w.comesAndGoes(false)
		w.agent.stop()
	}
	_, copies := w.arrived()
	if w.turnedAway() == 0 {
		t.Error("the test tests nothing")
	}
	t.Logf("%d cycles, %d lines acknowledged, %d of the file, %d came twice, %d requests told to come later; it went on within %v", cycles,
		len(w.safe), w.written, copies, w.turnedAway(), slowest)
	for cause, n := range causes {
		t.Logf("%d times the cause was %q", n, cause)
		if !strings.Contains(cause, w.data) || !strings.Contains(cause, "file system") {
			t.Errorf("the cause does not name the disk: %q", cause)
		}
	}
}

// TestDiskQueueReadOnly: the directory of the disk queue becomes read-only under an agent, as file systems do when they find
// an error in themselves. While the far side is there all goes on from memory, and afterwards everything is as before.
func TestDiskQueueReadOnly(t *testing.T) {
	if !diskApart(t) {
		return
	}
	rounds := 2
	if *torture {
		rounds = 10
	}
	w := newDiskWorld(t)
	dir, other := filepath.Join(w.data, "spool", "otlp"), filepath.Join(w.dir, "ro")
	if err := os.Mkdir(other, 0o700); err != nil {
		t.Fatal(err)
	}
	for round := range rounds {
		ack := []string{"process", "disk"}[round%2]
		w.configure("otlp", "{max_size: 8MiB, min_free: 0}", ack)
		w.comesAndGoes(true)
		w.start()
		w.clamour(16)
		took := w.took.Load()
		w.soon("records flow", func() bool { w.lines(20); return w.took.Load() > took+50 })
		diskMount(t, "mount", "--bind", dir, other)
		diskMount(t, "mount", "-o", "remount,bind,ro", other)
		diskMount(t, "mount", "--bind", other, dir)
		w.soon("health tells of it", func() bool {
			w.lines(20)
			x := w.exporter("otlp")
			return w.health().Health == "degraded" && strings.Contains(x.Error, "read-only")
		})
		t.Logf("ack %s: the cause is %q", ack, w.exporter("otlp").Error)
		lines := w.written
		took = w.took.Load()
		w.lines(100)
		w.soon("records flow from memory", func() bool {
			there, _ := w.arrived()
			return w.took.Load() > took+100 && there[fmt.Sprintf("file %d", lines+99)]
		})
		w.comesAndGoes(false)
		later := w.turnedAway()
		w.soon("clients are told to come later", func() bool { return w.turnedAway() > later+20 })
		w.comesAndGoes(true)
		took = w.took.Load()
		w.soon("records flow again", func() bool { return w.took.Load() > took })
		if round%4 > 1 {
			w.agent.kill()
			w.refuses()
		}
		diskMount(t, "umount", "-l", dir)
		diskMount(t, "umount", "-l", other)
		if round%4 > 1 {
			w.start()
		}
		w.lines(20)
		w.soon("it is healthy", func() bool { return w.health().Health == "healthy" })
		w.rest()
		w.wantAll()
		l := w.wantBalance()
		if len(l.Spools[0].Dropped)+len(l.Pipelines[0].Exporters[0].Dropped) > 0 {
			t.Errorf("the ledger has %+v", l)
		}
		w.agent.stop()
	}
}

// TestDiskQueueReload: exporters are removed, replaced and renamed while their disk queues are full of data, and the options
// of a disk queue change under load. Nothing is lost, and what stays behind is told of.
func TestDiskQueueReload(t *testing.T) {
	w := newDiskWorld(t)
	w.configure("otlp", "{max_size: 256MiB, min_free: 0}", "process")
	w.start()
	w.clamour(16)
	waits := func(id string) int64 {
		for _, s := range w.ledger().Spools {
			if s.Exporter == id {
				return s.Waiting
			}
		}
		return 0
	}
	for _, c := range []struct {
		spool string
		full  bool // it has no room for what is there
	}{
		{"{max_size: 2MiB, min_free: 0}", true},
		{"{max_size: 256MiB, min_free: 0, when_full: drop_newest}", false},
		{"{max_size: 256MiB, min_free: 0, order: in_order}", false},
		{"{max_size: 1MiB, min_free: 0, order: in_order}", true},
		{"{max_size: 256MiB, min_free: 0}", false},
	} {
		before := waits("otlp")
		w.soon("records wait", func() bool { w.lines(10); return waits("otlp") > before+2000 })
		before = waits("otlp")
		w.configure("otlp", c.spool, "process")
		w.reload()
		later := w.turnedAway()
		w.soon("it has its options", func() bool { return !c.full || w.turnedAway() > later })
		if now := waits("otlp"); now < before {
			t.Errorf("%s: before the reload %d records wait, now %d", c.spool, before, now)
		}
		if c.full { // or it would not grow
			w.configure("otlp", "{max_size: 256MiB, min_free: 0}", "process")
			w.reload()
		}
	}
	renamed := waits("otlp")
	w.configure("otlp/new", "{max_size: 256MiB, min_free: 0}", "process")
	w.reload()
	w.soon("records wait in the new disk queue", func() bool { w.lines(10); return waits("otlp/new") > 100 })
	if now := waits("otlp"); now < renamed {
		t.Errorf("renamed, %d records of %d are left", now, renamed)
	}
	w.told("otlp", int(waits("otlp")))
	w.configure("otlp/new", "none", "delivered") // without
	w.reload()
	w.told("otlp%2Fnew", int(waits("otlp/new")))
	out, code := w.creel("spool", "ls", w.data)
	if code != 0 || !strings.Contains(out, "otlp/new") || !strings.Contains(out, fmt.Sprint(waits("otlp"))) {
		t.Errorf("spool ls: exit code %d:\n%s", code, out)
	}
	w.comesAndGoes(true)
	took := w.took.Load()
	w.soon("records flow without a disk queue", func() bool { return w.took.Load() > took })
	w.configure("otlp/new", "{max_size: 256MiB, min_free: 0}", "process") // back again, under load
	w.reload()
	w.rest()
	for _, id := range []string{"otlp/new", "otlp"} {
		w.configure(id, "{max_size: 256MiB, min_free: 0}", "process")
		w.reload()
		w.soon("what waited is delivered", func() bool { return waits(id) == 0 })
	}
	w.wantAll()
	l := w.wantBalance()
	for _, p := range l.Pipelines {
		for _, x := range p.Exporters {
			if len(x.Dropped) > 0 {
				t.Errorf("dropped: %+v", x)
			}
		}
	}
	_, copies := w.arrived()
	t.Logf("%d lines acknowledged, %d of the file, %d came twice", len(w.safe), w.written, copies)
	w.agent.stop()
}

// told wants the log to say where n records wait, and how to get them out.
func (w *diskWorld) told(dir string, n int) {
	w.Helper()
	text, err := os.ReadFile(w.agent.log)
	if err != nil {
		w.Fatal(err)
	}
	path := filepath.Join(w.data, "spool", dir)
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "creel spool export "+path) && strings.Contains(line, fmt.Sprintf("records=%d ", n)) {
			return
		}
	}
	w.Errorf("the log does not tell that %d records wait in %s", n, path)
}
