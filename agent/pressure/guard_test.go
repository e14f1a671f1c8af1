package pressure

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/creelhq/creel/metric"
)

// TestGuard: levels are told once each, the log says when it begins and ends, and what is collected under pressure is known.
func TestGuard(t *testing.T) {
	t.Setenv("GOMEMLIMIT", "off")
	synctest.Test(t, func(t *testing.T) {
		var levels []int
		var log bytes.Buffer
		set := metric.NewSet()
		g := NewGuard(func(o Order) {
			if n := len(levels); n == 0 || levels[n-1] != o.Level {
				levels = append(levels, o.Level)
			}
		}, slog.New(slog.NewTextHandler(&log, nil)), set)
		value := func(name string) (v float64) {
			set.Gather(func(p metric.Point) {
				if p.Name == name {
					v = p.Value
				}
			})
			return v
		}
		const MiB = 1 << 20
		var mu sync.Mutex
		now, freed := Reading{Used: 10 * MiB, Live: 10 * MiB}, 0
		is := func(r Reading) {
			mu.Lock()
			defer mu.Unlock()
			now = r
		}
		g.read = func() (Reading, uint64) {
			mu.Lock()
			defer mu.Unlock()
			return now, 1
		}
		g.free = func(bool) {
			mu.Lock()
			defer mu.Unlock()
			freed++
			now.Live = 20 * MiB
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); g.Run(ctx) }()
		is(Reading{Used: 99 * MiB, Live: 99 * MiB, Most: 99 * MiB})
		time.Sleep(time.Minute)
		if len(levels) > 0 || value("creel.agent.memory.limit") != 0 {
			t.Errorf("without a limit the levels were %v", levels)
		}
		is(Reading{Used: 80 * MiB, Live: 76 * MiB})
		g.Limit(100 * MiB)
		time.Sleep(100 * time.Millisecond)
		what, since := g.Scarce()
		if want := "80 % of 100 MiB: pipelines below priority 4 take nothing"; what != want || time.Since(since) != 100*time.Millisecond {
			t.Errorf("it says %q since %v, want %q", what, since, want)
		}
		if value("creel.agent.memory.limit") != 100*MiB || value("creel.agent.pressure") != 4 || value("creel.agent.memory.usage") < MiB {
			t.Error("the metrics do not say so")
		}
		is(Reading{Used: 98 * MiB, Live: 76 * MiB})
		time.Sleep(100 * time.Millisecond)
		if what, _ := g.Scarce(); what != "98 % of 100 MiB: no pipeline takes anything" {
			t.Errorf("it says %q", what)
		}
		is(Reading{Used: 80 * MiB, Live: 76 * MiB})
		time.Sleep(20 * time.Second)
		if what, _ := g.Scarce(); what != "" || freed == 0 {
			t.Errorf("garbage was collected %d times, and it says %q", freed, what)
		}
		is(Reading{Used: 99 * MiB, Live: 20 * MiB})
		time.Sleep(time.Second)
		cancel()
		<-done
		if want := []int{4, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 10, 0}; !slices.Equal(levels, want) {
			t.Errorf("the levels were %v, want %v", levels, want)
		}
		if strings.Count(log.String(), "memory is scarce") != 2 || strings.Count(log.String(), "enough memory again") != 2 || !strings.Contains(log.String(), "highest_level=10") {
			t.Errorf("the log says %s", log.String())
		}
	})
}

// TestRuntimeLimit: the runtime gets a limit, but not a higher one than it has, nor if the environment has given it one; and
// what it had before in the end.
func TestRuntimeLimit(t *testing.T) {
	before := debug.SetMemoryLimit(1 << 40)
	defer debug.SetMemoryLimit(before)
	g := NewGuard(func(Order) {}, slog.New(slog.DiscardHandler), nil)
	for _, c := range []struct{ limit, want int64 }{{1 << 30, 1 << 30 * 9 / 10}, {1 << 32, 1 << 32 * 9 / 10}, {1 << 41, 1 << 40}, {0, 1 << 40}} {
		g.Limit(c.limit)
		if got := debug.SetMemoryLimit(-1); got != c.want {
			t.Errorf("with %d bytes the runtime may have %d, want %d", c.limit, got, c.want)
		}
	}
	g.Limit(1 << 30)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	g.Run(ctx)
	if got := debug.SetMemoryLimit(-1); got != 1<<40 {
		t.Errorf("in the end the runtime may have %d", got)
	}
	t.Setenv("GOMEMLIMIT", "1TiB")
	g.Limit(1 << 30)
	if got := debug.SetMemoryLimit(-1); got != 1<<40 {
		t.Errorf("against GOMEMLIMIT the runtime may have %d", got)
	}
}

// TestCgroupLimit: of either version, the lowest of the group's and those around it.
func TestCgroupLimit(t *testing.T) {
	f := func(groups string, files map[string]string, want int64) {
		t.Helper()
		root := t.TempDir()
		files["proc/self/cgroup"] = groups
		for name, text := range files {
			file := filepath.Join(root, name)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := CgroupLimit(root); got != want {
			t.Errorf("%q, %v: %d, want %d", groups, files, got, want)
		}
	}
	type m = map[string]string
	const v2, v1 = "sys/fs/cgroup/", "sys/fs/cgroup/memory/"
	f("0::/\n", m{v2 + "memory.max": "268435456\n"}, 268435456)
	f("0::/\n", m{v2 + "memory.max": "max\n"}, 0)
	f("0::/\n", m{}, 0)
	f("0::/a.slice/b.service\n", m{v2 + "a.slice/b.service/memory.max": "max\n", v2 + "a.slice/memory.max": "1000000\n"}, 1000000)
	f("0::/a.slice/b.service\n", m{v2 + "a.slice/b.service/memory.max": "2000000\n", v2 + "a.slice/memory.max": "3000000\n"}, 2000000)
	f("9:name=systemd:/\n4:memory:/c\n0::/\n", m{v1 + "c/memory.limit_in_bytes": "5000000\n", v1 + "memory.limit_in_bytes": "9223372036854771712\n"}, 5000000)
	f("4:cpu,memory:/docker/0123\n", m{v1 + "memory.limit_in_bytes": "6000000\n"}, 6000000) // a container does not see its own path
	f("4:memory:/\n", m{v1 + "memory.limit_in_bytes": "9223372036854771712\n"}, 0)
	f("nonsense\n\n1:memory\n4:memory:/../../..\n", m{v1 + "memory.limit_in_bytes": "garbage"}, 0)
	f("0::/\n", m{v2 + "memory.max": "-5"}, 0)
	if got := CgroupLimit(t.TempDir()); got != 0 {
		t.Errorf("without control groups: %d", got)
	}
}

// TestMeter: what is used and lives is about what it is, and reading it costs no memory.
func TestMeter(t *testing.T) {
	m := NewMeter()
	before, _ := m.Read()
	block := make([]byte, 64<<20)
	for i := range block {
		block[i] = 1
	}
	debug.FreeOSMemory()
	with, _ := m.Read()
	if grown := (with.Live - before.Live) >> 20; grown < 60 || grown > 70 || with.Used < with.Live {
		t.Errorf("64 MiB more are %+v, after %+v", with, before)
	}
	block[0] = 2
	debug.FreeOSMemory()
	after, n := m.Read()
	if after.Live > with.Live-60<<20 || after.Used > with.Used-50<<20 || n == 0 {
		t.Errorf("they are given back, and there are %+v, after %+v", after, with)
	}
	if n := testing.AllocsPerRun(100, func() { m.Read() }); n > 0 {
		t.Errorf("reading allocates %v times", n)
	}
}

func BenchmarkRead(b *testing.B) {
	m := NewMeter()
	for b.Loop() {
		m.Read()
	}
}
