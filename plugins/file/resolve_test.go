package file

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestRoom: when there is no room for all files, one that was rotated is not closed before its last bytes were read.
func TestRoom(t *testing.T) {
	app := filepath.Join(t.TempDir(), "app.log")
	write(t, app, []byte("first\n"))
	r := newRig(t, nil, "max_open_files: 2, include: ["+app+"]")
	r.step(0)
	r.want("first")
	write(t, app, []byte("after the last look\n"))
	rename(t, app, app+".1")
	write(t, app, []byte("came and went between two looks\n"))
	rename(t, app+".1", app+".2")
	rename(t, app, app+".1")
	write(t, app, []byte("next\n"))
	for range 3 {
		r.step(time.Second)
	}
	got := map[string]bool{}
	for _, line := range r.take() {
		got[line] = true
	}
	for _, line := range []string{"after the last look", "came and went between two looks", "next"} {
		if !got[line] {
			t.Errorf("%q is missing", line)
		}
	}
}

// TestSameSize: a file that was truncated and has grown to the size that it had is read anew, be it open or not.
func TestSameSize(t *testing.T) {
	for _, most := range []int{1, 10} {
		dir := t.TempDir()
		app := filepath.Join(dir, "app.log")
		write(t, app, []byte("one\n"))
		r := newRig(t, nil, fmt.Sprintf("max_open_files: %d, include: [%s/*]", most, dir))
		r.step(0)
		write(t, filepath.Join(dir, "other.log"), []byte("other\n"))
		r.step(time.Second)
		r.want("one", "other")
		if err := errors.Join(os.Truncate(app, 0), os.WriteFile(app, []byte("two\n"), 0o600)); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			r.step(time.Second)
		}
		r.want("two")
	}
}

// TestBehindLink: when the file behind a link is rotated while it is busy, and nobody tells, that is seen soon enough for
// the next rotation not to be missed.
func TestBehindLink(t *testing.T) {
	dir, behind := t.TempDir(), filepath.Join(t.TempDir(), "0.log")
	write(t, behind, []byte("a\n"))
	if err := os.Symlink(behind, filepath.Join(dir, "link.log")); err != nil {
		t.Skip(err)
	}
	r := newRig(t, nil, "watch: poll, include: ["+dir+"/*.log]")
	r.step(0)
	for range 10 { // the directory of the link is not looked at for having changed lately
		r.step(time.Second)
	}
	write(t, behind, []byte("b\n"))
	r.step(time.Second)
	r.want("a", "b")
	rename(t, behind, behind+".1")
	write(t, behind, []byte("c\n"))
	for range 50 {
		r.step(slowEvery / 50)
	}
	r.want("c")
}

func TestIsRotated(t *testing.T) {
	f := func(base, name string, want bool) {
		t.Helper()
		if got := isRotated(base, name); got != want {
			t.Errorf("%s to %s: %v", base, name, got)
		}
	}
	f("app.log", "app.log", true)
	f("app.log", "app.log.1", true)
	f("app.log", "app.log-20261124", true)
	f("app.log", "app-20261124.log", true)
	f("app.log", "app.1.txt", false)
	f("app.log", "other.log", false)
	f("app.log.1", "app.log.2", true)
	f("app.log.9", "app.log.10", true)
	f("app.log.1", "app.log", true)
	f("app.log.1", "other.log.1", false)
	f("1", "2", false)
	f(".log", ".log.1", true)
	f("app", "app.1", true)
}
