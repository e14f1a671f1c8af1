package file

import (
	"path/filepath"
	"slices"
	"time"
)

// Most files are idle most of the time. So only those are looked at in each round that are hot: something was read of
// them lately, or they were said to have changed. The others are looked at in turn, all of them every few seconds.

// wakeUp makes t hot.
func (c *collector) wakeUp(t *tail) {
	t.woken = c.now
	if !t.hot {
		t.hot = true
		c.hot = append(c.hot, t)
	}
}

// cool forgets the hot files of which nothing is to be expected soon. It opens those that have waited for room, and
// reports whether there were any.
func (c *collector) cool(now time.Time) (more bool) {
	c.hot = slices.DeleteFunc(c.hot, func(t *tail) bool {
		t.hot = c.isHot(t, now)
		return !t.hot
	})
	for n := len(c.queue); n > 0 && (len(c.opened) < c.cfg.MaxOpenFiles || c.park()); n-- {
		t := c.queue[0]
		c.queue = c.queue[1:]
		t.queued = false
		if t.f == nil && !t.done {
			if !c.openTail(t) { // it was renamed meanwhile
				t.look = true
				c.suspects[t.path] = true
			}
			more = true
		}
	}
	return more
}

func (c *collector) isHot(t *tail, now time.Time) bool {
	if t.f == nil {
		return false
	}
	if !t.drained || !t.chain.idle() || !t.gone.IsZero() {
		return true
	}
	quiet := now.Sub(t.woken)
	if !t.active.Before(t.woken) {
		quiet = now.Sub(t.active)
	}
	return quiet < hotWatched || quiet < hotFor && !c.isWatched(t)
}

func (c *collector) isWatched(t *tail) bool {
	path := t.path
	if t.link != "" {
		path = t.link
	}
	return t.deaf < 2 && c.watch.has(filepath.Dir(path))
}

// hear takes what the kernel has told. It reports whether something has happened to directories.
func (c *collector) hear(now time.Time) (touched bool) {
	all := c.watch.take(func(dir, name string, what change) {
		if name == "" {
			c.finder.touch(dir, true)
			touched = true
			return
		}
		path := filepath.Join(dir, name)
		t := c.byPath[path]
		if what&moved != 0 {
			c.finder.touch(dir, false)
			touched = true
			if t != nil {
				c.suspects[t.path] = true
			}
		}
		if t != nil {
			t.deaf = 0
			if t.f != nil {
				c.wakeUp(t)
			} else {
				c.check(t)
			}
		}
	})
	if !all {
		touched = true
		for dir := range c.finder.dirs {
			c.finder.touch(dir, false)
		}
		c.patrolled = now.Add(-slowEvery)
	}
	return touched
}

// patrol looks at some of the files that are not hot, and of those behind links: nothing else tells that another file has
// taken their place there.
func (c *collector) patrol(now time.Time) {
	n := len(c.tails)
	share := min(n, int(int64(n)*int64(min(now.Sub(c.patrolled), slowEvery))/int64(slowEvery))+1)
	c.patrolled = now
	for range share {
		if c.cursor = (c.cursor + 1) % n; c.cursor == 0 {
			c.patrols++
		}
		t := c.tails[c.cursor]
		if t.link == "" && c.patrols%lazily != 0 && c.isWatched(t) {
			continue
		}
		if hot := t.hot; (!hot || t.link != "") && c.check(t) && !hot && c.watch.has(filepath.Dir(t.path)) {
			t.deaf++
		}
	}
}

// check looks whether t has changed, and has it read if so.
func (c *collector) check(t *tail) (changed bool) {
	if !t.gone.IsZero() || t.look || t.queued {
		return false
	}
	c.stats++
	id, fi, err := identify(t.path)
	switch {
	case err != nil || id != t.id, t.zip != nil && (!t.done || fi.Size() != t.zip.size):
		c.suspects[t.path] = true
		return false
	case t.zip != nil || t.done || t.isAsRead(fi):
		return false
	case t.f != nil:
		c.wakeUp(t)
	case !c.openTail(t):
		c.suspects[t.path] = true
	}
	return true
}
