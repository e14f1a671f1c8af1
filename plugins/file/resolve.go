package file

import (
	"bytes"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// poll looks after the list of files: which paths lead where, what has to be read again, what is over.
func (c *collector) poll(now time.Time) {
	for _, t := range c.tails {
		c.rewind(t)
	}
	paths, changed := c.finder.find(now)
	if changed || now.Sub(c.resolved) >= resolveEvery {
		c.resolve(paths, now)
		c.forget(now)
	}
}

// resolve finds out which files the paths lead to.
func (c *collector) resolve(paths []string, now time.Time) {
	c.pass++
	first, since := c.resolved.IsZero(), c.resolved
	if first {
		since = c.before.saved
	}
	var sweep []string // paths around which something has happened
	for _, path := range paths {
		if c.sight(path, first, now) {
			sweep = append(sweep, path)
		}
	}
	for _, t := range c.tails {
		if t.pass == c.pass || t.done {
			continue
		}
		if t.gone.IsZero() {
			t.gone, t.look = now, t.f == nil
			sweep = append(sweep, t.path)
		} else if t.look {
			sweep = append(sweep, t.path)
		}
	}
	if !since.IsZero() {
		slices.Sort(sweep)
		for _, path := range slices.Compact(sweep) {
			c.sweep(path, since, now)
		}
	}
	for path := range c.complaints {
		if _, found := slices.BinarySearch(paths, path); !found {
			delete(c.complaints, path)
		}
	}
	c.mu.Lock()
	c.resolved = now
	c.mu.Unlock()
}

// sight notes that path leads to a file. It reports whether that is one not seen before.
func (c *collector) sight(path string, first bool, now time.Time) bool {
	id, fi, err := identify(path)
	switch {
	case err != nil:
		if !os.IsNotExist(err) {
			c.complain(path, slog.LevelWarn, err.Error())
		}
		return false
	case fi.IsDir():
		return false
	case !fi.Mode().IsRegular():
		c.complain(path, slog.LevelInfo, "not a regular file; it is left alone")
		return false
	}
	t := c.byID[id]
	if t == nil {
		return c.adopt(path, id, c.start(path, fi, first), now) != nil
	}
	if t.pass == c.pass {
		return false // two paths lead to it
	}
	if t.path != path {
		c.mu.Lock()
		t.path, c.dirty = path, true
		c.mu.Unlock()
	}
	t.pass, t.gone, t.done, t.seen = c.pass, time.Time{}, false, now
	// One that was closed to make room, or is known from the previous run, is opened when there is something to read.
	if t.f == nil && (t.look || fi.Size() != t.pos || c.open < c.cfg.MaxOpenFiles) {
		c.openTail(t)
	}
	return false
}

// start returns the position to start at in a file about which nothing is known.
func (c *collector) start(path string, fi fs.FileInfo, first bool) int64 {
	old, complained := c.complaints[path]
	switch {
	case c.cfg.StartAt == "beginning":
	case !first && (!complained || !old.early): // it has appeared since
	case c.before.paths[path]: // it has taken the place of one that was followed
	case !c.before.saved.IsZero() && born(path).After(c.before.saved):
	default:
		return max(0, fi.Size()-int64(c.cfg.Last))
	}
	return 0
}

// adopt follows a file from now on. It returns nil if the file cannot be opened.
func (c *collector) adopt(path string, id fileID, pos int64, now time.Time) *tail {
	t := &tail{id: id, path: path, pos: pos, align: pos > 0, pass: c.pass, seen: now, active: now,
		origin: c.originOf(path), acked: &progress{committed: pos}}
	if !c.openTail(t) {
		return nil
	}
	c.mu.Lock()
	c.tails = append(c.tails, t)
	c.dirty = true
	c.mu.Unlock()
	c.byID[id] = t
	c.fresh = true
	return t
}

// sweep looks beside path for what was renamed: files known but not open, and those that came and were renamed between
// two looks, which no path of ours has ever led to.
func (c *collector) sweep(path string, since, now time.Time) {
	var before []sibling
	for range 5 { // until nothing is renamed while we look: a file that moves on could slip through
		found := c.siblings(path)
		if before != nil && slices.Equal(found, before) {
			break
		}
		for _, s := range found {
			c.meet(s, since, now)
		}
		before = found
	}
	for _, t := range c.tails {
		if t.path == path {
			t.look = false
		}
	}
}

type sibling struct {
	path string
	id   fileID
}

// siblings returns the files beside path whose names are like those that it gets when it is rotated.
func (c *collector) siblings(path string) (found []sibling) {
	dir, base := filepath.Split(path)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		s := sibling{path: filepath.Join(dir, e.Name())}
		if !e.Type().IsRegular() || !isRotated(base, e.Name()) || c.finder.excluded(s.path) {
			continue
		}
		if s.id, _, err = identify(s.path); err == nil {
			found = append(found, s)
		}
	}
	return found
}

// meet follows a sibling if it is one we know but have not open, or if it is young.
func (c *collector) meet(s sibling, since, now time.Time) {
	// A second for clocks that tick coarsely. What is older has been read by a previous run, or was never ours.
	young := born(s.path).After(since.Add(-time.Second)) && !isCompressed(s.path)
	t := c.byID[s.id]
	switch {
	case t == nil && young:
		if t := c.adopt(s.path, s.id, 0, now); t != nil {
			t.gone = now
		}
	case t != nil && t.f == nil && (young || t.look && !t.done): // a young one has got the inode of one that is gone
		c.mu.Lock()
		t.path, t.seen, c.dirty = s.path, now, true
		c.mu.Unlock()
		t.done = false
		if c.openTail(t) && t.gone.IsZero() {
			t.gone = now
		}
	}
}

// isRotated reports whether name is one that base could have got when it was rotated: app.log becomes app.log.1,
// app.log-20261124 or app-20261124.log.
func isRotated(base, name string) bool {
	ext := filepath.Ext(base)
	return strings.HasPrefix(name, base) || ext != base && strings.HasPrefix(name, strings.TrimSuffix(base, ext)) && strings.HasSuffix(name, ext)
}

// isCompressed reports whether the file is gzip, zstd, xz or bzip2.
func isCompressed(path string) bool {
	f, _, _, err := openFile(path)
	if err != nil {
		return false
	}
	defer f.Close()
	var head [6]byte
	n, _ := f.ReadAt(head[:], 0)
	for _, magic := range []string{"\x1f\x8b", "\x28\xb5\x2f\xfd", "\xfd7zXZ\x00", "BZh"} {
		if bytes.HasPrefix(head[:n], []byte(magic)) {
			return true
		}
	}
	return false
}

// forget drops the files that are over and acknowledged, and those that could not be found for long.
func (c *collector) forget(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tails = slices.DeleteFunc(c.tails, func(t *tail) bool {
		over := t.done && len(t.acked.pending) == 0 || t.f == nil && !t.gone.IsZero() && now.Sub(t.seen) > rememberFor
		if over {
			c.dirty = true
			if c.byID[t.id] == t {
				delete(c.byID, t.id)
			}
		}
		return over
	})
}
