package file

import (
	"context"
	"fmt"
	"github.com/creelhq/creel/center/centertest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// folder is a directory with files.
type folder struct {
	t   *testing.T
	dir string
}

func newFolder(t *testing.T) folder {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return folder{t, dir}
}

func (f folder) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f folder) path(name string) string { return filepath.Join(f.dir, filepath.FromSlash(name)) }

func (f folder) write(name, text string) {
	f.t.Helper()
	f.must(os.MkdirAll(filepath.Dir(f.path(name)), 0o755))
	f.must(os.WriteFile(f.path(name), []byte(text), 0o644))
}

// replace is an atomic replace.
func (f folder) replace(name, text string) {
	f.t.Helper()
	f.write(name+".tmp", text)
	f.must(os.Rename(f.path(name+".tmp"), f.path(name)))
}

func (f folder) watch(name, more string) *centertest.Rig {
	return watch(f.t, fmt.Sprintf("{path: %q%s}", f.path(name), more), nil)
}

// says waits for documents in the folder: "name=text name=text".
func (f folder) says(r *centertest.Rig, want string) {
	f.t.Helper()
	var list []string
	for _, d := range strings.Fields(want) {
		list = append(list, f.path(d))
	}
	r.Wants(strings.Join(list, " "))
}

func TestFile(t *testing.T) {
	f := newFolder(t)
	f.write("a.conf", "1")
	r := f.watch("a.conf", "")
	f.says(r, "a.conf=1")
	f.write("a.conf", "2") // in place
	f.says(r, "a.conf=2")
	f.replace("a.conf", "3")
	f.says(r, "a.conf=3")
	f.write("other.conf", "1")
	f.replace("a.conf", "3") // another file, the same text
	f.must(os.Remove(f.path("a.conf")))
	r.Troubled("no such file or directory")
	f.write("a.conf", "3")
	r.Well()
	r.Silent()
	f.write("a.conf", "")
	r.Troubled("is empty")
	f.write("a.conf", "4")
	f.says(r, "a.conf=4")
	r.Well()
}

func TestDirectory(t *testing.T) {
	f := newFolder(t)
	f.write("d/b.yaml", "b")
	f.write("d/a.yml", "a")
	f.write("d/.hidden.yaml", "no")
	f.write("d/notes.txt", "no")
	f.write("d/sub.yaml/x.yaml", "no")
	r := f.watch("d", "")
	f.says(r, "d/a.yml=a d/b.yaml=b")
	f.replace("d/c.json", "{}")
	f.says(r, "d/a.yml=a d/b.yaml=b d/c.json={}")
	f.must(os.Remove(f.path("d/a.yml")))
	f.says(r, "d/b.yaml=b d/c.json={}")
	f.must(os.Rename(f.path("d"), f.path("old"))) // the directory itself is another
	r.Troubled("no such file or directory")
	f.write("new/b.yaml", "new")
	f.must(os.Rename(f.path("new"), f.path("d")))
	f.says(r, "d/b.yaml=new")
	f.write("d/b.yaml", "newer")
	f.says(r, "d/b.yaml=newer")
	f.must(os.Remove(f.path("d/b.yaml")))
	r.Troubled("no document any more")
}

// TestDirectoryMadeAnew: the new one may have the inode of the old, but the kernel does not tell of it any more.
func TestDirectoryMadeAnew(t *testing.T) {
	f := newFolder(t)
	f.write("d/a.yaml", "0")
	r := f.watch("d", "")
	f.says(r, "d/a.yaml=0")
	for i := range 3 {
		f.must(os.RemoveAll(f.path("d")))
		f.write("d/a.yaml", fmt.Sprint("made", i))
		f.says(r, fmt.Sprintf("d/a.yaml=made%d", i))
		f.write("d/a.yaml", fmt.Sprint("changed", i))
		f.says(r, fmt.Sprintf("d/a.yaml=changed%d", i))
	}
}

// TestAppearsLater: neither the file nor the directories on the way are there.
func TestAppearsLater(t *testing.T) {
	f := newFolder(t)
	r := f.watch("x/y/a.yaml", "")
	r.Troubled("no such file or directory")
	f.must(os.Mkdir(f.path("x"), 0o755))
	f.write("x/y/a.yaml", "1")
	f.says(r, "x/y/a.yaml=1")
	f.write("x/y/a.yaml", "2")
	f.says(r, "x/y/a.yaml=2")
}

// mount makes a directory as Kubernetes mounts a ConfigMap: files are symlinks through ..data, which is switched.
func (f folder) mount(version string, files map[string]string) {
	f.t.Helper()
	for name, text := range files {
		f.write(filepath.Join("m", version, name), text)
		if _, err := os.Lstat(f.path("m/" + name)); err != nil {
			f.must(os.Symlink(filepath.Join("..data", name), f.path("m/"+name)))
		}
	}
	f.must(os.Symlink(version, f.path("m/..data_tmp")))
	old, _ := os.Readlink(f.path("m/..data")) // there is none at first
	f.must(os.Rename(f.path("m/..data_tmp"), f.path("m/..data")))
	if old != "" {
		f.must(os.RemoveAll(f.path("m/" + old)))
	}
}

func TestSymlinkSwitch(t *testing.T) {
	f := newFolder(t)
	f.mount("..2026_1", map[string]string{"a.yaml": "1", "b.yaml": "1"})
	dir, file := f.watch("m", ""), f.watch("m/a.yaml", "")
	f.says(dir, "m/a.yaml=1 m/b.yaml=1")
	f.says(file, "m/a.yaml=1")
	for i := 2; i < 5; i++ {
		f.mount(fmt.Sprintf("..2026_%d", i), map[string]string{"a.yaml": fmt.Sprint(i), "b.yaml": fmt.Sprint(i)})
		f.says(dir, fmt.Sprintf("m/a.yaml=%d m/b.yaml=%d", i, i))
		f.says(file, fmt.Sprintf("m/a.yaml=%d", i))
	}
}

// TestHalfWritten: who writes in small steps is waited for.
func TestHalfWritten(t *testing.T) {
	f := newFolder(t)
	f.write("a.yaml", "old")
	r := f.watch("a.yaml", "")
	f.says(r, "a.yaml=old")
	file, err := os.Create(f.path("a.yaml"))
	f.must(err)
	defer file.Close()
	longest, last := time.Duration(0), time.Now()
	for range 100 {
		_, err := file.WriteString("x")
		f.must(err)
		longest, last = max(longest, time.Since(last)), time.Now()
		time.Sleep(time.Millisecond)
	}
	whole := "a.yaml=" + strings.Repeat("x", 100)
	select {
	case s := <-r.Said:
		if got := "a.yaml=" + string(s.Documents[0].Text); got != whole && longest < quiet/2 {
			t.Errorf("half of it was taken, though the longest pause was %v: %q", longest, got)
		} else if got != whole {
			f.says(r, whole) // this machine had no time
		}
	case <-time.After(centertest.Soon):
		t.Error("it was never taken")
	}
}

// TestDeaf: without the kernel's help files are looked at.
func TestDeaf(t *testing.T) {
	f := newFolder(t)
	f.write("a.yaml", "1")
	l := Listen(nil, f.path("a.yaml"))
	f.must(l.notify.Close())
	l.notify = nil
	f.write("a.yaml", "22")
	l.gap = time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), centertest.Soon)
	defer cancel()
	calls := 0
	l.Run(ctx, func() { calls++; cancel() })
	if calls != 1 {
		t.Errorf("f was called %d times", calls)
	}
}

func TestWatch(t *testing.T) {
	f := newFolder(t)
	f.write("agent.yaml", "1")
	f.write("agent.d/x.txt", "1")
	ctx, cancel := context.WithCancel(t.Context())
	var calls atomic.Int32
	done := make(chan struct{})
	l := Listen(nil, f.path("agent.yaml"), f.path("agent.d"), f.path("not/there"))
	go func() {
		defer close(done)
		l.Run(ctx, func() { calls.Add(1) })
	}()
	r := centertest.NewRig(t)
	change := func(what func()) {
		t.Helper()
		before := calls.Load()
		what()
		r.Eventually("f is called", func() bool { return calls.Load() > before })
	}
	change(func() { f.replace("agent.yaml", "2") })
	change(func() { f.write("agent.d/a.yaml", "1") })
	change(func() { f.write("agent.d/a.yaml", "2") }) // the same size, and perhaps the same time
	change(func() { f.must(os.Remove(f.path("agent.d/a.yaml"))) })
	change(func() { f.write("not/there", "1") })
	before := calls.Load()
	f.write("agent.d/x.txt", "2")
	f.write("agent.d/.a.yaml.swp", "2")
	f.write("beside", "2")
	change(func() { f.replace("agent.yaml", "3") })
	if n := calls.Load() - before; n != 1 {
		t.Errorf("f was called %d times for one change", n)
	}
	cancel()
	<-done
}

func TestRead(t *testing.T) {
	f := newFolder(t)
	bad := func(name, want string) {
		t.Helper()
		if docs, err := Read(f.path(name)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %d documents and %v, not %q", name, len(docs), err, want)
		}
	}
	bad("none", "no such file")
	f.write("large", strings.Repeat("a", 1<<20+1))
	bad("large", "has more than 1048576 bytes")
	for i := range 11 {
		f.write(fmt.Sprintf("many/%d.yaml", i), strings.Repeat("a", 1<<20))
	}
	bad("many", "bytes together")
	f.must(os.Mkdir(f.path("links"), 0o755))
	f.must(os.Symlink("nowhere", f.path("links/a.yaml")))
	bad("links", "no such file")
	f.write("dir/a.yaml", "a")
	f.must(os.Symlink("a.yaml", f.path("dir/b.yaml")))
	f.must(os.Symlink("..", f.path("dir/c.yaml")))
	docs, err := Read(f.path("dir"))
	if err != nil || len(docs) != 2 || string(docs[1].Text) != "a" {
		t.Errorf("the directory has %q, %v", docs, err)
	}
}
