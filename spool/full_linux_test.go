package spool

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const mountEnv = "CREEL_SPOOL_TEST_MOUNTS"

// apart runs the test in a process with mounts of its own, which end with it, and reports whether this is that process.
func apart(t *testing.T) bool {
	if os.Getenv(mountEnv) != "" {
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("to mount a file system, one must be root")
	}
	self, err := os.Executable()
	if err != nil {
		t.Skip(err)
	}
	args := []string{"-test.run=^" + t.Name() + "$", "-test.v", "-test.timeout=20m"}
	if *torture {
		args = append(args, "-torture")
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), mountEnv+"=1")
	runtime.LockOSThread() // whose end would be the child's
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		t.Skipf("mounts of one's own are not permitted here: %v", err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if t.Logf("%s", out); bytes.Contains(out, []byte("--- SKIP")) {
		t.Skip("see above")
	}
	return false
}

// tmpfs mounts a file system of 8 MiB.
func tmpfs(t *testing.T) string {
	dir := filepath.Join(t.TempDir(), "small")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Skipf("mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", errors.Join(err, unix.Unmount(dir, unix.MNT_DETACH)))
		}
	})
	return dir
}

// countFS counts what the file system refuses.
type countFS struct {
	osFS
	full, readOnly *atomic.Int64
}

type countFile struct {
	File
	fs countFS
}

func (c countFS) count(err error) error {
	if isFull(err) {
		c.full.Add(1)
	}
	if isReadOnly(err) {
		c.readOnly.Add(1)
	}
	return err
}

func (c countFS) Create(name string) (File, error) {
	f, err := c.osFS.Create(name)
	return countFile{f, c}, c.count(err)
}

func (c countFS) Open(name string) (File, error) {
	f, err := c.osFS.Open(name)
	return countFile{f, c}, c.count(err)
}

func (c countFS) Rename(from, to string) error { return c.count(c.osFS.Rename(from, to)) }
func (c countFS) Remove(name string) error     { return c.count(c.osFS.Remove(name)) }

func (f countFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(p, off)
	return n, f.fs.count(err)
}

func (f countFile) Allocate(n int64) error { return f.fs.count(f.File.Allocate(n)) }

// A siege is a queue on a disk that is full again and again, and one who appends to it all the time.
type siege struct {
	t    *testing.T
	dir  string
	fs   countFS
	q    *Queue
	stop func()
	n    int          // the next item; under mu
	took atomic.Int64 // items appended

	mu    sync.Mutex
	there map[int]bool // promised and not acknowledged
	gone  map[int]bool // acknowledged
	known *oracle      // of parts
}

func besiege(t *testing.T) *siege {
	s := &siege{
		t: t, dir: tmpfs(t), fs: countFS{full: new(atomic.Int64), readOnly: new(atomic.Int64)},
		there: map[int]bool{}, gone: map[int]bool{}, known: newOracle(nil, Options{}),
	}
	t.Cleanup(func() { // before the unmount
		if s.q != nil {
			s.q.Close()
		}
	})
	return s
}

func (s *siege) spool() string { return filepath.Join(s.dir, "spool") }

func (s *siege) open() {
	s.t.Helper()
	var err error
	s.q, err = Open(s.spool(), Options{FS: s.fs, SegmentSize: 256 << 10, SyncEvery: 10 * time.Millisecond})
	if err != nil {
		s.t.Fatal(err)
	}
}

// append starts to append, until stop is called or the queue is closed.
func (s *siege) append() {
	c, cancel := context.WithCancel(ctx)
	done, q := make(chan struct{}), s.q
	s.stop = func() { cancel(); <-done }
	go func() {
		defer close(done)
		for c.Err() == nil {
			if err := s.one(c, q); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, ErrClosed) {
				s.t.Errorf("append: %v", err)
			} else if err != nil {
				return
			}
		}
	}()
}

func (s *siege) one(c context.Context, q *Queue) error {
	s.mu.Lock()
	n := s.n
	s.n++
	s.known.tried[n] = true
	s.mu.Unlock()
	how := Written
	if n%8 == 0 {
		how = Synced
	}
	if _, err := q.Append(c, item(n, 200+n*31%20000), how); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.there[n], s.known.known[n] = !s.gone[n], true // it may have come out before Append returned
	s.took.Add(1)
	return nil
}

// until polls.
func (s *siege) until(what string, within time.Duration, yes func() bool) {
	s.t.Helper()
	for end := time.Now().Add(within); !yes(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("%s: not within %v; %+v", what, within, s.q.Stats())
		}
	}
}

// blocked waits until nothing has been appended for a while, because there is no room.
func (s *siege) blocked() {
	s.t.Helper()
	took, since := s.took.Load(), time.Now()
	s.until("full", 20*time.Second, func() bool {
		if now := s.took.Load(); now != took || !s.q.Stats().Full {
			took, since = now, time.Now()
		}
		return time.Since(since) > 3*retryRoom
	})
}

// resumes waits until something is appended.
func (s *siege) resumes(took int64) {
	s.t.Helper()
	s.until("resume", time.Second, func() bool { return s.took.Load() > took })
}

// ack takes up to n items and acknowledges them.
func (s *siege) ack(n int) {
	s.t.Helper()
	for range n {
		it, ok, err := s.q.TryNext()
		if err != nil {
			s.t.Fatalf("next: %v", err)
		}
		if !ok {
			return
		}
		k := number(s.t, it.Item)
		s.q.Ack(it.Seq)
		s.mu.Lock()
		delete(s.there, k)
		s.gone[k] = true
		s.mu.Unlock()
	}
}

func (s *siege) sync() {
	s.t.Helper()
	c, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := s.q.Sync(c); err != nil {
		s.t.Fatalf("sync: %v", err)
	}
}

// ballast fills the disk from outside, to the last byte.
func (s *siege) ballast() {
	s.t.Helper()
	f, err := os.OpenFile(filepath.Join(s.dir, "ballast"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 4<<10); err == nil; {
		_, err = f.Write(block)
	}
	if !isFull(s.fs.count(err)) {
		s.t.Fatal(err)
	}
}

func (s *siege) relieve() {
	if err := os.Remove(filepath.Join(s.dir, "ballast")); err != nil {
		s.t.Fatal(err)
	}
}

// verify opens the queue and finds all that was promised, and nothing that was acknowledged. It leaves a few items.
func (s *siege) verify() {
	s.t.Helper()
	s.open()
	s.known.q = s.q
	s.known.checkParts(s.t)
	got := map[int]uint64{}
	for _, it := range drain(s.t, s.q) {
		got[number(s.t, it.Item)] = it.Seq
	}
	for n, yes := range s.there {
		if _, ok := got[n]; !ok && yes {
			s.t.Fatalf("item %d of %d is lost: %+v", n, s.n, s.q.Stats())
		}
	}
	for n := range got {
		if s.gone[n] {
			s.t.Fatalf("item %d was acknowledged, and came again", n)
		}
		if n > s.n-10 {
			continue
		}
		s.q.Ack(got[n])
		s.gone[n] = true
		delete(s.there, n)
	}
	s.known.balance(s.t)
	if st := s.q.Stats(); st.Lost > 0 || st.Dropped > 0 {
		s.t.Fatalf("%+v", st)
	}
	s.sync()
	s.close()
}

func (s *siege) close() {
	s.t.Helper()
	if err := s.q.Close(); err != nil {
		s.t.Fatalf("close: %v", err)
	}
}

// TestFullDiskForReal fills a real file system, from outside and by the queue itself: what was promised is there,
// acknowledgements and Close work, and appends go on by themselves when there is space.
func TestFullDiskForReal(t *testing.T) {
	if !apart(t) {
		return
	}
	cycles := 5
	if *torture {
		cycles = 100
	}
	s := besiege(t)
	for cycle := range cycles {
		met := s.fs.full.Load()
		s.open()
		s.until("reserve", 5*time.Second, func() bool { return s.q.spare.size.Load() > 0 })
		s.append()
		outside := cycle%2 == 0
		if outside {
			s.until("append", 5*time.Second, func() bool { return s.q.Stats().Appended > 200 })
			s.ballast()
		}
		s.blocked()
		s.ack(10)
		s.sync()
		s.blocked()
		if cycle%3 == 1 { // a shutdown, and a start
			s.close()
			s.stop()
			s.open()
			s.append()
			s.blocked()
		}
		took := s.took.Load()
		if outside {
			s.relieve()
		} else {
			s.ack(150)
		}
		s.resumes(took)
		s.blocked() // by itself, once more
		s.stop()
		s.close()
		if s.fs.full.Load() == met {
			t.Errorf("cycle %d: the disk was never full", cycle)
		}
		s.verify()
	}
	t.Logf("%d cycles, %d items, the disk was full %d times", cycles, s.took.Load(), s.fs.full.Load())
}

// TestReadOnlyDisk takes the right to write away, as file systems do when they find an error in themselves: nothing that
// was promised is lost, and all goes on when it is given back. Under a queue in use only paths can be made read-only: files
// that are open for writing keep a file system writable.
func TestReadOnlyDisk(t *testing.T) {
	if !apart(t) {
		return
	}
	s := besiege(t)
	for round := range 4 {
		met := s.fs.readOnly.Load()
		s.open()
		for range 40 {
			if err := s.one(ctx, s.q); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(unix.Mount(s.dir, s.dir, "", unix.MS_BIND, ""), unix.Mount("", s.dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")); err != nil {
			t.Fatal(err)
		}
		var err error
		for range 200 { // as far as the open segment goes
			if err = s.one(ctx, s.q); err != nil {
				break
			}
		}
		told := s.q.Stats().Err
		for range 100 { // a sync that was under way may have ended well since
			if told != nil {
				break
			}
			_ = s.one(ctx, s.q)
			told = s.q.Stats().Err
		}
		if !isReadOnly(err) || told == nil {
			t.Errorf("append to a disk that is read-only: %v; %+v", err, s.q.Stats())
		}
		s.ack(20)
		_ = s.q.Sync(ctx) // it says that segments cannot be removed, if some are to be
		if round%2 == 1 {
			_ = s.q.Close()
		}
		if err := unix.Unmount(s.dir, unix.MNT_DETACH); err != nil { // the queue may be reading
			t.Fatal(err)
		}
		if round%2 == 0 {
			if err := s.one(ctx, s.q); err != nil {
				t.Errorf("append when the disk is writable again: %v", err)
			}
			if s.sync(); s.q.Stats().Err != nil {
				t.Errorf("%+v", s.q.Stats())
			}
			s.close()
		}
		if s.fs.readOnly.Load() == met {
			t.Errorf("round %d: nothing was refused", round)
		}
		s.remount(unix.MS_RDONLY)
		_, err = Open(s.spool(), Options{FS: s.fs})
		if !isReadOnly(s.fs.count(err)) {
			t.Errorf("open on a disk that is read-only: %v", err)
		}
		r, err := Inspect(s.spool(), s.fs, nil)
		if err != nil || r.Lost > 0 || r.Waiting == 0 {
			t.Errorf("inspect on a disk that is read-only: %+v, %v", r, err)
		}
		s.remount(0)
		s.verify()
	}
	t.Logf("%d items, %d calls were refused", s.took.Load(), s.fs.readOnly.Load())
}

func (s *siege) remount(flags uintptr) {
	s.t.Helper()
	if err := unix.Mount("", s.dir, "", unix.MS_REMOUNT|flags, ""); err != nil {
		s.t.Fatalf("remount: %v", err)
	}
}
