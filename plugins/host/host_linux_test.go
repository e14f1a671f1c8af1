package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	gocpu "github.com/shirou/gopsutil/v4/cpu"
	godisk "github.com/shirou/gopsutil/v4/disk"
	gohost "github.com/shirou/gopsutil/v4/host"
	gomem "github.com/shirou/gopsutil/v4/mem"
	gonet "github.com/shirou/gopsutil/v4/net"
	goprocess "github.com/shirou/gopsutil/v4/process"
	"golang.org/x/sys/unix"

	"github.com/creelhq/creel"
)

// fixture returns a collector of what stands below root, and the log it writes.
func fixture(t testing.TB, root string, cfg Config) (*collector, *bytes.Buffer) {
	t.Helper()
	m := newMachine(root)
	m.statfs = func(path string, st *unix.Statfs_t) error {
		switch path {
		case "/":
			*st = unix.Statfs_t{Bsize: 1 << 20, Frsize: 4096, Blocks: 100, Bfree: 60, Bavail: 50}
		case "/tank":
			*st = unix.Statfs_t{Bsize: 512, Blocks: 1000, Bfree: 1000, Bavail: 1000}
		case "/mnt/with space":
			*st = unix.Statfs_t{Frsize: 1024, Blocks: 10}
		case "/gone":
			return unix.ENOENT
		default:
			t.Errorf("asked for %s, which may hang or has no size", path)
		}
		return nil
	}
	var log bytes.Buffer
	c, err := newCollector(cfg, creel.Host{Log: slog.New(slog.NewTextHandler(&log, nil))}.Ready(), m)
	if err != nil {
		t.Fatal(err)
	}
	return c, &log
}

var everything = []string{"system", "cpu", "load", "memory", "swap", "disk", "filesystem", "network", "processes"}

func round(t testing.TB, c *collector, at time.Time) []creel.Metric {
	t.Helper()
	b, err := c.round(context.Background(), at)
	if err != nil {
		t.Fatal(err)
	}
	return b.Metrics()
}

// render returns one line a point, in order.
func render(ms []creel.Metric) string {
	var s strings.Builder
	for i := range ms {
		m := &ms[i]
		v := m.Value.Append(nil)
		if m.Value.Kind() == creel.ValueDouble {
			v = fmt.Appendf(nil, "%.6g", m.Value.Double())
		}
		fmt.Fprintf(&s, "%s %s %s\n", key(m), v, m.Desc.Unit)
	}
	return s.String()
}

var start = time.Unix(1700003661, 0)

// TestFixture compares a round on known files with points checked by hand.
func TestFixture(t *testing.T) {
	golden, err := os.ReadFile("testdata/points.txt")
	if err != nil {
		t.Fatal(err)
	}
	c, log := fixture(t, "testdata", Config{Collect: everything})
	ms := round(t, c, start)
	if diff := cmp.Diff(string(golden), render(ms)); diff != "" {
		t.Errorf("points (-want +got):\n%s", diff)
	}
	for i := range ms {
		m := &ms[i]
		want := int64(0)
		if m.Desc.Kind == creel.Sum {
			want = 1700000000e9
		}
		if m.Start != want || m.Time != start.UnixNano() {
			t.Errorf("%s is of %d-%d", key(m), m.Start, m.Time)
		}
	}
	if log.Len() > 0 {
		t.Errorf("logged %s", log)
	}
}

func TestPerCPUAndUtilization(t *testing.T) {
	root := t.TempDir()
	c, _ := fixture(t, root, Config{Collect: []string{"cpu"}, PerCPU: true})
	f := func(stat string, want ...string) {
		t.Helper()
		write(t, root, "proc/stat", stat)
		ms := slices.DeleteFunc(slices.Clone(round(t, c, start)), func(m creel.Metric) bool {
			return m.Desc != cpuUtilization || m.Value.Double() == 0
		})
		if diff := cmp.Diff(strings.Join(want, ""), render(ms)); diff != "" {
			t.Errorf("utilization (-want +got):\n%s", diff)
		}
	}
	line := func(cpu int, mode string, share string) string {
		return fmt.Sprintf("system.cpu.utilization{\"cpu.mode\":%q,\"cpu.logical_number\":%d} %s 1\n", mode, cpu, share)
	}
	f("cpu 9 0 0 9\ncpu0 100 0 0 100 0 0 0 0\ncpu1 7 0 0 7 0 0 0 0\n")
	f("cpu 9 0 0 9\ncpu0 175 0 0 125 0 0 0 0\ncpu1 7 0 0 7 0 0 0 0\n", line(0, "user", "0.75"), line(0, "idle", "0.25"))
	// Idle steps back, and a CPU is taken away: what stands in its place is compared with nothing.
	f("cpu 9 0 0 9\ncpu0 176 0 0 124 0 0 0 0\ncpu3 9 0 0 9 0 0 0 0\n", line(0, "user", "1"))
	f("cpu 9 0 0 9\ncpu0 176 0 0 124 0 0 0 0\ncpu3 9 0 0 19 0 5 5 0\n", line(3, "idle", "0.5"), line(3, "interrupt", "0.5"))
}

func write(t testing.TB, root, path, text string) {
	t.Helper()
	path = filepath.Join(root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestMissingSource takes one file away: that is said once, the rest is collected, and its return is noticed.
func TestMissingSource(t *testing.T) {
	files := map[string]string{ // a file whose absence spoils a source, and a metric of that source
		"proc/uptime":         "system.uptime",
		"proc/loadavg":        "system.cpu.load_average.1m",
		"proc/meminfo":        "system.memory.limit",
		"proc/vmstat":         "system.paging.faults",
		"proc/swaps":          "system.paging.faults",
		"proc/diskstats":      "system.disk.io",
		"proc/filesystems":    "system.filesystem.limit",
		"proc/self/mountinfo": "system.filesystem.limit",
		"proc/net/dev":        "system.network.io",
	}
	for file, metric := range files {
		root := t.TempDir()
		if err := os.CopyFS(root, os.DirFS("testdata")); err != nil {
			t.Fatal(err)
		}
		whole := filepath.Join(root, file)
		c, log := fixture(t, root, Config{Collect: everything})
		has := func() bool {
			return slices.ContainsFunc(round(t, c, start), func(m creel.Metric) bool { return m.Desc.Name == metric })
		}
		if !has() {
			t.Errorf("%s: no %s to begin with", file, metric)
		}
		if err := os.Rename(whole, whole+".away"); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if has() {
				t.Errorf("%s is away, but %s is there", file, metric)
			}
		}
		if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, file) {
			t.Errorf("%s: logged %q, want one line that names it", file, got)
		}
		if err := os.Rename(whole+".away", whole); err != nil {
			t.Fatal(err)
		}
		if !has() || strings.Count(log.String(), "\n") != 2 {
			t.Errorf("%s: is back, but not %s; logged %q", file, metric, log)
		}
	}
}

// TestNothing has no /proc at all, as some containers.
func TestNothing(t *testing.T) {
	c, _ := fixture(t, t.TempDir(), Config{Collect: everything})
	var out sink
	if err := c.Collect(t.Context(), &out); !errors.Is(err, os.ErrNotExist) || len(out.batches) != 0 {
		t.Errorf("got %v and %d batches", err, len(out.batches))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Collect(ctx, &out); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: got %v", err)
	}
}

// TestGarbage feeds every reader with the fixture's files cut short and torn: an error is fine, a panic is not.
func TestGarbage(t *testing.T) {
	root := t.TempDir()
	if err := os.CopyFS(root, os.DirFS("testdata")); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"stat", "uptime", "loadavg", "meminfo", "swaps", "vmstat", "diskstats", "net/dev", "101/stat"} {
		path = "proc/" + path
		data, err := os.ReadFile(filepath.Join("testdata", path))
		if err != nil {
			t.Fatal(err)
		}
		for cut := range data {
			write(t, root, path, string(data[:cut]))
			c, _ := fixture(t, root, Config{Collect: everything})
			c.round(t.Context(), start)
			torn := bytes.Clone(data)
			torn[cut] ^= 0x15
			write(t, root, path, string(torn))
			c.round(t.Context(), start.Add(time.Minute))
		}
		write(t, root, path, string(data))
	}
}

// TestProcessesAreCountedSeldom: the count is the costly part of a round.
func TestProcessesAreCountedSeldom(t *testing.T) {
	c, _ := fixture(t, "testdata", Config{Collect: []string{"processes"}})
	f := func(after time.Duration, counted bool) {
		t.Helper()
		ms := round(t, c, start.Add(after))
		if got := len(ms) == 1+processStates; got != counted {
			t.Errorf("after %v: counted %v, want %v", after, got, counted)
		}
	}
	f(0, true)
	f(time.Second, false)
	f(5*time.Second, false)
	f(10*time.Second, true)
	f(19*time.Second, true)
	f(20*time.Second, false)
}

// TestOracle compares this machine's values with those that gopsutil reads just before and after.
func TestOracle(t *testing.T) {
	m := newMachine("/")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	between := func(what string, low, got, high float64) {
		t.Helper()
		if got < low-1e-6 || got > high+1e-6 {
			t.Errorf("%s is %v, not in %v … %v", what, got, low, high)
		}
	}

	boot, err := m.boot()
	must(err)
	want, err := gohost.BootTime()
	must(err)
	between("boot", float64(want)-2, float64(boot.Unix()), float64(want)+2)

	for _, each := range []bool{false, true} {
		before, err := gocpu.Times(each)
		must(err)
		got, err := m.cpu(nil, each)
		must(err)
		after, err := gocpu.Times(each)
		must(err)
		if len(got) != len(before) {
			t.Fatalf("%d CPUs, want %d", len(got), len(before))
		}
		for i := range got {
			between("user", before[i].User, got[i].modes[cpuUser], after[i].User)
			between("system", before[i].System, got[i].modes[cpuSystem], after[i].System)
			between("interrupt", before[i].Irq+before[i].Softirq, got[i].modes[cpuInterrupt], after[i].Irq+after[i].Softirq)
			between("steal", before[i].Steal, got[i].modes[cpuSteal], after[i].Steal)
		}
	}

	v, err := gomem.VirtualMemory()
	must(err)
	mem, err := m.memory()
	must(err)
	if mem.total != int64(v.Total) || mem.used+mem.free+mem.buffers+mem.cached != mem.total {
		t.Errorf("memory %+v does not add up to %d", mem, v.Total)
	}
	slack := 0.2 * float64(v.Total) // others use this machine at the same time
	between("available", float64(v.Available)-slack, float64(mem.available), float64(v.Available)+slack)
	between("cached", float64(v.Cached)-slack, float64(mem.cached), float64(v.Cached)+slack)

	disksBefore, err := godisk.IOCounters()
	must(err)
	disks, err := m.disks(nil)
	must(err)
	disksAfter, err := godisk.IOCounters()
	must(err)
	for _, d := range disks {
		low, high := disksBefore[d.name], disksAfter[d.name]
		between("read bytes", float64(low.ReadBytes), float64(d.bytes[0]), float64(high.ReadBytes))
		between("written bytes", float64(low.WriteBytes), float64(d.bytes[1]), float64(high.WriteBytes))
		between("writes", float64(low.WriteCount), float64(d.operations[1]), float64(high.WriteCount))
		between("merged reads", float64(low.MergedReadCount), float64(d.merged[0]), float64(high.MergedReadCount))
		between("write time", float64(low.WriteTime)/1000, d.seconds[1], float64(high.WriteTime)/1000)
		between("active", float64(low.IoTime)/1000, d.active, float64(high.IoTime)/1000)
	}

	netBefore, err := gonet.IOCounters(true)
	must(err)
	interfaces, err := m.interfaces(nil)
	must(err)
	netAfter, err := gonet.IOCounters(true)
	must(err)
	if len(interfaces) != len(netBefore) || len(interfaces) == 0 {
		t.Fatalf("%d interfaces, want %d", len(interfaces), len(netBefore))
	}
	for i, d := range interfaces {
		low, high := netBefore[i], netAfter[i]
		if d.name != low.Name {
			t.Fatalf("interface %q, want %q", d.name, low.Name)
		}
		between("received", float64(low.BytesRecv), float64(d.bytes[0]), float64(high.BytesRecv))
		between("sent", float64(low.BytesSent), float64(d.bytes[1]), float64(high.BytesSent))
		between("packets sent", float64(low.PacketsSent), float64(d.packets[1]), float64(high.PacketsSent))
		between("errors", float64(low.Errin), float64(d.errors[0]), float64(high.Errin))
		between("dropped", float64(low.Dropin), float64(d.dropped[0]), float64(high.Dropin))
	}

	mounted, err := m.filesystems(nil)
	must(err)
	if len(mounted) == 0 {
		t.Log("no file system on a device here")
	}
	for _, f := range mounted {
		u, err := godisk.Usage(f.mountpoint)
		must(err)
		if total := uint64(f.used + f.free + f.reserved); total != u.Total {
			t.Errorf("%s has %d bytes, want %d", f.mountpoint, total, u.Total)
		}
		between("file system", float64(u.Free)-slack, float64(f.free), float64(u.Free)+slack)
	}

	ids, err := goprocess.Pids()
	must(err)
	counted := processes{counted: true}
	must(m.processes(t.Context(), &counted))
	sum := 0.0
	for _, n := range counted.states {
		sum += float64(n)
	}
	between("processes", math.Floor(float64(len(ids))*0.5), sum, float64(len(ids))*2+10)
	if counted.created < int64(sum)/2 {
		t.Errorf("%+v: fewer were created than there are", counted)
	}
}
