package file

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/creelhq/creel"
)

func zipped(t testing.TB, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

const settled = settleFor + time.Second

func lines(prefix string, n int) (text string, list []string) {
	for i := range n {
		list = append(list, fmt.Sprintf("%s line %d", prefix, i))
	}
	return strings.Join(list, "\n") + "\n", list
}

// TestArchive: an archive is read once, members and all, and after a restart not again.
func TestArchive(t *testing.T) {
	dir := t.TempDir()
	text, list := lines("some", 5000)
	path := filepath.Join(dir, "a.log.1.gz")
	write(t, path, append(zipped(t, text), zipped(t, "second member\nunfinished")...))
	s := creel.Host{}.Ready().State
	options := "read_size: 1KiB, max_line_size: 64, include: [" + dir + "/*]"
	r := newRig(t, s, options)
	r.step(0)
	r.want() // it may still be written
	r.step(settled)
	want := append(list, "second member", "unfinished")
	r.want(want...)
	r.step(settled)
	if err := os.Rename(path, filepath.Join(dir, "a.log.2.gz")); err != nil {
		t.Fatal(err)
	}
	r.step(settled)
	r = r.restart(s, options)
	r.step(settled)
	r.step(settled)
	r.want()
	write(t, filepath.Join(dir, "a.log.2.gz"), zipped(t, "!\nthird member\n"))
	r.step(settled)
	r.step(settled)
	r.want("!", "third member")
}

// TestArchiveResumes: a restart in the middle goes on where it was.
func TestArchiveResumes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.gz")
	text, list := lines("some", 3000)
	write(t, path, zipped(t, text))
	s := creel.Host{}.Ready().State
	options := "read_size: 1KiB, include: [" + path + "]"
	r := newRig(t, s, options)
	r.step(0)
	r.now = r.now.Add(settled)
	r.c.poll(r.now)
	for range 20 {
		if _, err := r.c.turn(t.Context(), r.c.tails[0], r, r.now); err != nil {
			t.Fatal(err)
		}
	}
	first := r.take()
	if len(first) == 0 || len(first) >= len(list) {
		t.Fatalf("%d lines in a few turns", len(first))
	}
	r = r.restart(s, options)
	r.step(0)
	r.step(settled)
	r.want(list[len(first):]...)
}

// TestDamagedArchive: what can be read is sent, and the rest is when the file has grown.
func TestDamagedArchive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.gz")
	text, list := lines("some", 20_000)
	z := zipped(t, text)
	write(t, path, z[:len(z)/2])
	r := newRig(t, nil, "include: ["+path+"]")
	r.step(0)
	r.step(settled)
	r.step(settled)
	first := r.take()
	if len(first) == 0 || len(first) >= len(list) || strings.Join(first, "") != strings.Join(list[:len(first)], "") {
		t.Fatalf("%d lines of half a file", len(first))
	}
	if n := strings.Count(r.logged.String(), "decompress file"); n != 1 {
		t.Errorf("said %d times: %s", n, r.logged.String())
	}
	write(t, path, z[len(z)/2:])
	r.step(0)
	r.step(settled)
	r.want(list[len(first):]...)

	for i, damage := range [][]byte{[]byte("no gzip at all\n"), {}, append(bytes.Clone(z[:100]), "damage within"...), append(zipped(t, "good\n"), "rubbish behind it"...)} {
		path := filepath.Join(t.TempDir(), "a.gz")
		write(t, path, damage)
		r := newRig(t, nil, "include: ["+path+"]")
		r.step(0)
		r.step(settled)
		r.step(settled)
		if got := strings.Join(r.take(), "|"); i == 3 && got != "good" || i < 2 && got != "" {
			t.Errorf("damage %d: got %q", i, got)
		}
	}
}

// TestBomb: an archive that is far larger than it seems is given up.
func TestBomb(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.gz")
	write(t, path, zipped(t, strings.Repeat("\x00", 16<<20)))
	r := newRig(t, nil, "include: ["+path+"]")
	r.c.free = 1 << 20
	r.step(0)
	r.step(settled)
	got := 0
	for _, s := range r.take() {
		got += len(s)
	}
	if got > 4<<20 || !strings.Contains(r.logged.String(), "not what it seems") {
		t.Errorf("%d bytes; %s", got, r.logged.String())
	}
}

// TestCompressed: a file that is compressed after it was rotated is not read twice, whether or not it was read to its end
// before, and one that only begins the same is read.
func TestCompressed(t *testing.T) {
	text, list := lines("a long line so that there is more than a fingerprint", 100)
	for _, c := range []struct {
		name string
		size int // how much of text there is
		do   func(t *testing.T, r *rig, s creel.State, options, app string, size int) *rig
	}{
		{"while it is followed", len(text), func(t *testing.T, r *rig, _ creel.State, _, app string, size int) *rig {
			rotate(t, app, text[:size])
			r.step(time.Second)
			return r
		}},
		{"long after", len(text), func(t *testing.T, r *rig, _ creel.State, _, app string, size int) *rig {
			rename(t, app, app+".1")
			write(t, app, []byte("next\n"))
			for range 5 {
				r.step(time.Minute)
			}
			compress(t, app+".1", text[:size])
			return r
		}},
		{"while nobody looked", len(text), func(t *testing.T, r *rig, s creel.State, options, app string, size int) *rig {
			if err := r.c.Close(); err != nil {
				t.Fatal(err)
			}
			rotate(t, app, text[:size])
			next := newRig(t, s, options)
			next.now, next.records = r.now, r.records
			next.step(0)
			return next
		}},
		{"after it was truncated", len(text), func(t *testing.T, r *rig, _ creel.State, _, app string, size int) *rig {
			if err := os.Truncate(app, 0); err != nil {
				t.Fatal(err)
			}
			write(t, app, []byte("next\n"))
			r.step(0)
			write(t, app+".1.gz", zipped(t, text[:size]))
			return r
		}},
	} {
		for _, size := range []int{c.size, strings.IndexByte(text, '\n') + 1} { // long and short
			t.Run(fmt.Sprint(c.name, " ", size), func(t *testing.T) {
				app := filepath.Join(t.TempDir(), "app.log")
				s := creel.Host{}.Ready().State
				options := "include: [" + app + "*]"
				write(t, app, []byte(text[:size]))
				r := newRig(t, s, options)
				r.step(0)
				r = c.do(t, r, s, options, app, size)
				for range 5 {
					r.step(time.Minute)
				}
				n := strings.Count(text[:size], "\n")
				r.want(append(append([]string(nil), list[:n]...), "next")...)
				write(t, app+".9.gz", zipped(t, text[:size-1]+" and more\nother\n"))
				r.step(time.Second)
				r.step(time.Minute)
				if got := r.take(); len(got) != n+1 {
					t.Errorf("of an archive that begins the same: %q", got)
				}
			})
		}
	}
}

func compress(t *testing.T, path, text string) {
	t.Helper()
	write(t, path+".gz", zipped(t, text))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func rotate(t *testing.T, app, text string) {
	t.Helper()
	rename(t, app, app+".1")
	write(t, app, []byte("next\n"))
	compress(t, app+".1", text)
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}
