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
	c.now = now
	touched := c.hear(now)
	c.mu.Lock()
	lost := c.lost
	c.lost = false
	c.mu.Unlock()
	if lost {
		for _, t := range c.tails {
			c.rewind(t)
		}
	}
	if !touched && now.Sub(c.polled) < c.cfg.PollInterval {
		return
	}
	c.patrol(now)
	paths, changed, looked := c.finder.find(now)
	if since := now.Add(-slowEvery); c.linked && since.Before(looked) {
		looked = since
	}
	again := now.Sub(c.polled) >= resolveEvery || now.Truncate(resolveEvery) != c.polled.Truncate(resolveEvery)
	if changed || len(c.suspects) > 0 || again && len(c.complaints) > 0 || c.resolved.IsZero() {
		c.resolve(paths, looked, now)
	} else {
		c.mu.Lock()
		c.resolved = looked
		c.mu.Unlock()
	}
	if changed || again {
		c.forget(now)
	}
	c.polled = now
}

// resolve finds out which files the paths lead to. Those of directories in which nothing has happened still lead where
// they did.
func (c *collector) resolve(paths []string, looked, now time.Time) {
	c.pass++
	first, since := c.resolved.IsZero(), now.Add(-2*slowEvery)
	if first {
		since, c.began = c.before.saved, now
	} else if since.Before(c.began) {
		since = c.began
	}
	suspects := c.suspects
	c.suspects = map[string]bool{}
	var sweep []string // paths around which something has happened
	for _, path := range paths {
		_, wrong := c.complaints[path]
		t := c.byPath[path]
		if t != nil && t.path == path && t.gone.IsZero() && !first && !wrong && !t.look && !t.done && !suspects[path] && !c.finder.isFresh(path) {
			t.pass = c.pass
		} else if c.sight(path, first, now) {
			sweep = append(sweep, path)
		}
	}
	for _, t := range c.tails {
		if t.pass == c.pass || t.done && t.zip == nil {
			continue
		}
		if t.gone.IsZero() {
			c.mu.Lock()
			t.gone = now
			if !t.look { // it was found since we began
				t.seen = now
			}
			c.mu.Unlock()
			t.look = t.f == nil && !t.done
			if t.f != nil {
				c.wakeUp(t)
			}
			sweep = append(sweep, t.path, t.link)
		} else if t.look {
			sweep = append(sweep, t.path, t.link)
		}
	}
	if !since.IsZero() {
		slices.Sort(sweep)
		for _, path := range slices.Compact(sweep) {
			if path != "" {
				c.sweep(path, since, now)
			}
		}
		for _, t := range c.tails {
			t.look = t.look && t.gone.IsZero()
		}
	}
	for path := range c.complaints {
		if _, found := slices.BinarySearch(paths, path); !found {
			delete(c.complaints, path)
		}
	}
	c.mu.Lock()
	c.resolved = looked
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
	case isForeign(path):
		c.complain(path, slog.LevelInfo, "compressed, and not with gzip; it is left alone")
		return false
	}
	t := c.tailOf(path, id)
	if t == nil {
		return c.adopt(path, id, fi.Size(), c.start(path, fi, first), now) != nil
	}
	if t.pass == c.pass {
		return false // two paths lead to it
	}
	c.call(t, path, now)
	t.pass = c.pass
	t.done = t.zip != nil && t.done && fi.Size() == t.zip.size
	if t.whole > 0 && !t.done {
		c.mu.Lock()
		t.whole, c.dirty = 0, true
		c.mu.Unlock()
	}
	// One that was closed to make room, or is known from the previous run, is opened when there is something to read.
	if t.f == nil && !t.done && (t.look || t.zip != nil || !t.isAsRead(fi) || len(c.opened) < c.cfg.MaxOpenFiles) {
		c.openTail(t)
	} else if t.f != nil && !t.isAsRead(fi) {
		c.wakeUp(t)
	}
	return false
}

// tailOf returns the tail of a file, nil if there is none, or only one of another file that had the inode before.
func (c *collector) tailOf(path string, id fileID) *tail {
	t := c.byID[id]
	if t != nil && t.f == nil && (t.zip != nil) != isArchive(path) {
		t.done, t.look = true, false
		delete(c.byID, id)
		return nil
	}
	return t
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

// skip tells that an archive was there before us, and is not to be read.
func (t *tail) skip(size int64) {
	t.zip.size, t.whole, t.done, t.pos, t.acked.committed = size, size, true, 0, 0
}

// adopt follows a file from now on. It returns nil if the file cannot be opened.
func (c *collector) adopt(path string, id fileID, size, pos int64, now time.Time) *tail {
	t := c.newTail(id, path, pos, now)
	t.align, t.pass, t.active = pos > 0 && t.zip == nil, c.pass, now
	if t.zip != nil && pos > 0 {
		t.skip(size)
	} else if !c.openTail(t) {
		return nil
	}
	c.mu.Lock()
	c.tails = append(c.tails, t)
	c.announce(t)
	c.mu.Unlock()
	c.byID[id] = t
	c.call(t, path, now)
	return t
}

// call notes that path leads to t now.
func (c *collector) call(t *tail, path string, now time.Time) {
	c.uncall(t)
	c.mu.Lock()
	c.dirty = c.dirty || t.path != path
	t.path, t.gone, t.seen = path, time.Time{}, now
	c.mu.Unlock()
	c.byPath[path] = t
	link := target(path)
	c.mu.Lock()
	t.link = link
	c.mu.Unlock()
	if link != "" {
		c.linked = true
		c.byPath[link] = t
		c.watch.add(filepath.Dir(link))
	}
}

// target returns what a symbolic link leads to, "" if path is none.
func target(path string) string {
	if fi, err := os.Lstat(path); err != nil || fi.Mode()&os.ModeSymlink == 0 {
		return ""
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return ""
	}
	return real
}

// uncall forgets which paths lead to t.
func (c *collector) uncall(t *tail) {
	for _, path := range [...]string{t.path, t.link} {
		if c.byPath[path] == t {
			delete(c.byPath, path)
		}
	}
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

// meet follows a sibling if it is one that we have lost sight of, or if it is young.
func (c *collector) meet(s sibling, since, now time.Time) {
	// A second for clocks that tick coarsely. What is older has been read by a previous run, or was never ours.
	young := born(s.path).After(since.Add(-time.Second)) && !isCompressed(s.path)
	t := c.tailOf(s.path, s.id)
	switch {
	case t == nil && young:
		if t := c.adopt(s.path, s.id, 0, 0, now); t != nil {
			c.mu.Lock()
			t.gone = now
			c.mu.Unlock()
		}
	case t != nil && t.f == nil && (young || !t.done && (t.look || !t.gone.IsZero())): // a young one has got the inode of one that is gone
		c.uncall(t)
		c.mu.Lock()
		t.path, t.seen, c.dirty = s.path, now, true
		if t.gone.IsZero() {
			t.gone = now
		}
		c.mu.Unlock()
		t.done = false
		c.openTail(t)
	}
}

// isRotated reports whether name is one that base could have got when it was rotated: app.log becomes app.log.1,
// app.log-20261124 or app-20261124.log; and app.log.1 becomes app.log.2.
func isRotated(base, name string) bool {
	if i := strings.LastIndexByte(base, '.'); i > 0 && i+1 < len(base) && strings.Trim(base[i:], ".0123456789") == "" {
		base = base[:i]
	}
	ext := filepath.Ext(base)
	return strings.HasPrefix(name, base) || ext != base && strings.HasPrefix(name, strings.TrimSuffix(base, ext)) && strings.HasSuffix(name, ext)
}

// isCompressed reports whether the file is gzip, zstd, xz or bzip2, or will be.
func isCompressed(path string) bool {
	if isArchive(path) || isForeign(path) {
		return true
	}
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
		over := t.done && len(t.acked.pending) == 0 && (t.zip == nil || !t.gone.IsZero()) && now.Sub(t.gone) > 3*slowEvery || t.f == nil && !t.gone.IsZero() && now.Sub(t.seen) > rememberFor
		if over {
			c.dirty = true
			if t.zip == nil && t.done {
				c.remember(t.print, t.acked, now)
			}
			if c.byID[t.id] == t {
				delete(c.byID, t.id)
			}
			c.uncall(t)
		}
		return over
	})
}
