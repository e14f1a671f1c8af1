//go:build linux

package file_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestWatch: with a poll interval that is longer than the test, what happens is heard of: lines, new files, files of new
// directories, rotations, and what lies behind links.
func TestWatch(t *testing.T) {
	dir, behind := t.TempDir(), t.TempDir()
	app, link := filepath.Join(dir, "app.log"), filepath.Join(dir, "link.log")
	put(t, app, "first\n")
	put(t, filepath.Join(behind, "0.log"), "linked\n")
	if err := os.Symlink(filepath.Join(behind, "0.log"), link); err != nil {
		t.Fatal(err)
	}
	f := follow(t, &state{}, nil, fmt.Sprintf("start_at: beginning, max_open_files: 2, include: [%s/**/*.log]", dir), "1m")
	want := []string{"first", "linked"}
	do := func(line string, act func() error) {
		t.Helper()
		if err := act(); err != nil {
			t.Fatal(err)
		}
		if line != "" {
			want = append(want, line)
			f.want(want...)
		}
	}
	f.want(want...)
	add := func(path, line string) {
		t.Helper()
		do(line, func() error { put(t, path, line+"\n"); return nil })
	}
	add(app, "second")
	add(filepath.Join(behind, "0.log"), "more behind the link")
	add(filepath.Join(dir, "new.log"), "in a new file")
	add(app, "after others were opened")
	do("", func() error { return os.MkdirAll(filepath.Join(dir, "deep", "deeper"), 0o700) })
	add(filepath.Join(dir, "deep", "deeper", "x.log"), "in a new directory")
	do("", func() error { return os.Rename(app, app+".1") })
	add(app, "after a rotation")
	add(app, "and more")
	do("", func() error {
		return os.Rename(filepath.Join(behind, "0.log"), filepath.Join(behind, "0.log.1"))
	})
	add(filepath.Join(behind, "0.log"), "rotated behind the link")
	put(t, filepath.Join(behind, "1.log"), "the link leads elsewhere\n")
	do("the link leads elsewhere", func() error { return errors.Join(os.Remove(link), os.Symlink(filepath.Join(behind, "1.log"), link)) })
	do("", func() error {
		return errors.Join(os.Rename(filepath.Join(dir, "deep"), filepath.Join(t.TempDir(), "away")), os.MkdirAll(filepath.Join(dir, "deep", "deeper"), 0o700))
	})
	add(filepath.Join(dir, "deep", "deeper", "y.log"), "in a directory that took the place of another")
}
