package requires

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMemory: what is free is the least of machine and control groups, and what the kernel can take back from the cache
// is free.
func TestMemory(t *testing.T) {
	f := func(name string, files map[string]string, want int64, of string) {
		t.Helper()
		root := t.TempDir()
		for file, text := range files {
			file = filepath.Join(root, file)
			if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		free, where, err := memory(root)
		if err != nil || free != want || where != of {
			t.Errorf("%s: %d are free %s, not %d %s: %v", name, free, where, want, of, err)
		}
	}
	const info = "MemTotal:       16384 kB\nMemFree:          100 kB\nMemAvailable:    1000 kB"
	const here = 1000 << 10
	f("no groups", map[string]string{"proc/meminfo": info}, here, "on this machine")
	f("no limit", map[string]string{"proc/meminfo": info, "proc/self/cgroup": "0::/a", "sys/fs/cgroup/a/memory.max": "max", "sys/fs/cgroup/a/memory.current": "5"}, here, "on this machine")
	f("a group", map[string]string{"proc/meminfo": info, "proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/b/memory.max": "1000", "sys/fs/cgroup/a/b/memory.current": "900", "sys/fs/cgroup/a/b/memory.stat": "anon 500\ninactive_file 300\nactive_file 7"}, 400, "in the control group /a/b")
	f("one around it", map[string]string{"proc/meminfo": info, "proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/b/memory.max": "1000", "sys/fs/cgroup/a/b/memory.current": "900", "sys/fs/cgroup/a/memory.max": "2000", "sys/fs/cgroup/a/memory.current": "1990"}, 10, "in the control group /a")
	f("seen from a container", map[string]string{"proc/meminfo": info, "proc/self/cgroup": "0::/docker/x", "sys/fs/cgroup/memory.max": "1000", "sys/fs/cgroup/memory.current": "2000"}, 0, "in the control group /")
	f("a large one", map[string]string{"proc/meminfo": info, "proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": "2000000", "sys/fs/cgroup/memory.current": "1"}, here, "on this machine")
	f("version 1", map[string]string{"proc/meminfo": info, "proc/self/cgroup": "9:name=systemd:/x\n4:cpu,memory:/a\n0::/", "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "1000", "sys/fs/cgroup/memory/a/memory.usage_in_bytes": "900", "sys/fs/cgroup/memory/a/memory.stat": "inactive_file 1\ntotal_inactive_file 50"}, 150, "in the control group /a")
	f("version 1 without limit", map[string]string{"proc/meminfo": info, "proc/self/cgroup": "4:memory:/", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712", "sys/fs/cgroup/memory/memory.usage_in_bytes": "900"}, here, "on this machine")
	if _, _, err := memory(t.TempDir()); err == nil {
		t.Error("a machine that says nothing has memory")
	}
	if free, of, err := memory("/"); err != nil || free <= 0 {
		t.Errorf("%d are free %s on the real one: %v", free, of, err)
	}
}

// TestDescriptors: each that is open is one less, and when there is none left that can be told.
func TestDescriptors(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	before, _, err := descriptors()
	if err != nil {
		t.Fatal(err)
	}
	for range 7 {
		f, err := os.Open("/dev/null")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
	}
	if after, of, err := descriptors(); err != nil || before-after != 7 || !strings.HasPrefix(of, fmt.Sprintf("of the %d ", limit.Cur)) {
		t.Errorf("%d were free, with 7 more open %d are free %s: %v", before, after, of, err)
	}
	low := unix.Rlimit{Cur: uint64(int64(limit.Cur) - before), Max: limit.Max} // 7 less than there are
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	if _, err := os.Open("/dev/null"); !errors.Is(err, unix.EMFILE) {
		t.Fatalf("there are still descriptors: %v", err)
	}
	err = enough(1, perhaps(descriptors), number, " file descriptors", "raise the limit")(t.Context(), false)
	says(t, err, " file descriptors are free of the ", "that the agent may have, but 1 must be; raise the limit")
}

// TestDisk fills a file system of its own.
func TestDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Skip("mounting a file system takes root: ", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	g := New(Config{Timeout: time.Minute, Disk: 4 << 20}, dir, nil, silence)
	says(t, g.Check(t.Context())[0].Err)
	fill := filepath.Join(dir, "fill")
	if err := os.WriteFile(fill, make([]byte, 6<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	says(t, g.Check(t.Context())[0].Err, "2.0 MiB are free on the file system of "+dir+", but 4.0 MiB must be")
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	says(t, g.Check(t.Context())[0].Err)
	g = New(Config{Timeout: time.Minute, Disk: 4 << 20}, filepath.Join(dir, "gone"), nil, silence)
	says(t, g.Check(t.Context())[0].Err, "ask how much is free on the file system of "+dir, "no such file")
}

// TestUnreadable: files that may not be read are missing, and of a FIFO nobody is made to wait.
func TestUnreadable(t *testing.T) {
	dir := t.TempDir()
	secret, fifo := filepath.Join(dir, "secret"), filepath.Join(dir, "fifo")
	if err := os.WriteFile(secret, nil, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	says(t, path(fifo)) // to open it would take a writer
	for d := dir; len(d) > len(os.TempDir()); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // this thread ends with the goroutine
		if os.Geteuid() == 0 {
			if _, err := unix.SetfsuidRetUid(65534); err != nil {
				t.Error(err)
			}
		}
		done <- path(secret)
	}()
	says(t, <-done, "the agent cannot read "+secret+": permission denied; change that")
}

// TestSilentEndpoint: one that does not answer is told of in time, and those that do are not.
func TestSilentEndpoint(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	silent := fmt.Sprint("127.0.0.1:", name.(*unix.SockaddrInet4).Port)
	for { // until its queue is full, so that it does not answer any more
		c, err := net.DialTimeout("tcp", silent, 100*time.Millisecond)
		if err != nil {
			break
		}
		defer c.Close()
	}
	up := listen(t).Addr().String()
	g := New(Config{Timeout: 200 * time.Millisecond, Endpoints: []string{silent, up}, Paths: []string{"/"}}, "", nil, silence)
	var order []string
	g.round(t.Context(), nil, func(guard string, missing []lack) {
		order = append(order, guard)
		if guard == "endpoints" {
			says(t, joined(missing), silent+" does not answer within 200ms")
			if len(missing) != 1 {
				t.Errorf("missing is %v", missing)
			}
		}
	})
	if fmt.Sprint(order) != "[paths endpoints]" {
		t.Errorf("told was of %v", order)
	}
}
