package file

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Glob is a pattern of path names: as filepath.Match has it, and ** for any number of directories.
type Glob string

// UnmarshalText checks the pattern.
func (g *Glob) UnmarshalText(text []byte) error {
	s := filepath.FromSlash(string(text))
	if s == "" {
		return fmt.Errorf("must not be empty")
	}
	for seg := range strings.SplitSeq(s, string(filepath.Separator)) {
		if _, err := filepath.Match(seg, ""); err != nil {
			return fmt.Errorf("must be a file pattern such as /var/log/*.log, got %q: %w", text, err)
		}
	}
	*g = Glob(text)
	return nil
}

// MarshalText returns the pattern as it was written.
func (g Glob) MarshalText() ([]byte, error) { return []byte(g), nil }

// pattern is a Glob made absolute: a directory, and what may follow, element by element.
type pattern struct {
	root string
	segs []string
}

func (g Glob) compile() (pattern, error) {
	path, err := filepath.Abs(filepath.FromSlash(string(g)))
	if err != nil {
		return pattern{}, fmt.Errorf("resolve %s: %w", g, err)
	}
	sep := string(filepath.Separator)
	root := filepath.VolumeName(path) + sep
	p := pattern{root, strings.Split(strings.TrimPrefix(path, root), sep)}
	for len(p.segs) > 1 && !hasMeta(p.segs[0]) {
		p.root, p.segs = filepath.Join(p.root, p.segs[0]), p.segs[1:]
	}
	if p.segs[len(p.segs)-1] == "**" {
		p.segs = append(p.segs, "*")
	}
	return p, nil
}

func hasMeta(seg string) bool { return strings.ContainsAny(seg, `*?[\`) }

func (p pattern) match(path string) bool {
	rest, ok := strings.CutPrefix(path, strings.TrimSuffix(p.root, string(filepath.Separator))+string(filepath.Separator))
	return ok && matchSegs(p.segs, strings.Split(rest, string(filepath.Separator)))
}

func matchSegs(segs, names []string) bool {
	if len(segs) == 0 || len(names) == 0 {
		return len(segs) == len(names)
	}
	if segs[0] == "**" {
		return matchSegs(segs[1:], names) || matchSegs(segs, names[1:])
	}
	return matchSeg(segs[0], names[0]) && matchSegs(segs[1:], names[1:])
}

func matchSeg(seg, name string) bool {
	ok, _ := filepath.Match(seg, name) // UnmarshalText has checked the pattern
	return ok
}

// finder lists the files that patterns match. Directories are read again only when they have changed.
type finder struct {
	include, exclude []pattern
	archives         bool // include may match some
	dirs             map[string]*listing
	paths            []string
	watch            *watcher // tells when to look; nil: nobody does
	stats            int      // how often a directory was looked at
}

// listing is what was last seen of a directory.
type listing struct {
	changed time.Time // the directory's time stamp; zero: it is not there
	checked time.Time
	read    bool // entries are valid
	entries []fs.DirEntry
	visited bool
	watched bool // changes are told
	touched bool // one was
	fresh   bool // it has changed since the last call of find but one
}

// A directory whose time stamp is younger than this may change again without a newer stamp.
const stampGrain = 2 * time.Second

func newFinder(include, exclude []Glob) (*finder, error) {
	f := &finder{dirs: map[string]*listing{}}
	for _, list := range []struct {
		globs []Glob
		to    *[]pattern
	}{{include, &f.include}, {exclude, &f.exclude}} {
		for _, g := range list.globs {
			p, err := g.compile()
			if err != nil {
				return nil, err
			}
			*list.to = append(*list.to, p)
		}
	}
	for _, p := range f.include {
		last := p.segs[len(p.segs)-1]
		f.archives = f.archives || isArchive(last) || strings.ContainsAny(last[len(last)-1:], "*?]")
	}
	return f, nil
}

// find returns the paths that match now, sorted, and whether any directory has changed since the last call; and when the
// directory that was looked at the longest ago was. The slice is the finder's.
func (f *finder) find(now time.Time) (paths []string, changed bool, looked time.Time) {
	changed, looked = len(f.dirs) == 0, now
	for dir, l := range f.dirs {
		l.visited, l.fresh = false, l.touched
		if l.touched || now.Sub(l.checked) >= l.pause(now) {
			f.look(dir, l, now)
		}
		if l.checked.Before(looked) {
			looked = l.checked
		}
		changed = changed || l.fresh
	}
	if !changed {
		return f.paths, false, looked
	}
	f.paths = f.paths[:0]
	for _, p := range f.include {
		f.walk(p.root, p.segs, now)
	}
	for dir, l := range f.dirs {
		if !l.visited {
			f.watch.remove(dir)
			delete(f.dirs, dir)
		}
	}
	slices.Sort(f.paths)
	f.paths = slices.Compact(f.paths)
	return f.paths, true, looked
}

// pause returns how long a directory need not be looked at: the longer nothing has happened there, the longer.
func (l *listing) pause(now time.Time) time.Duration {
	if l.watched {
		return slowEvery
	}
	return min(now.Sub(l.changed)/64, resolveEvery)
}

func (f *finder) look(dir string, l *listing, now time.Time) {
	f.stats++
	if stamp := stampOf(dir); l.touched || !stamp.Equal(l.changed) || l.checked.Sub(stamp) < stampGrain {
		l.watched = l.watched || f.watch.add(dir)
		l.changed, l.read, l.fresh, l.touched = stamp, false, true, false
	}
	l.checked = now
}

// touch tells that something has happened in a directory; and whether it is over with it.
func (f *finder) touch(dir string, over bool) {
	if l := f.dirs[dir]; l != nil {
		l.touched = true
		l.watched = l.watched && !over
	}
}

// isFresh reports whether the directory of path had changed when find was last called.
func (f *finder) isFresh(path string) bool {
	l := f.dirs[filepath.Dir(path)]
	return l == nil || l.fresh
}

func stampOf(dir string) time.Time {
	fi, err := os.Stat(dir)
	if err != nil {
		return time.Time{}
	}
	return fi.ModTime()
}

func (f *finder) walk(dir string, segs []string, now time.Time) {
	l := f.dirs[dir]
	if l == nil {
		l = &listing{watched: f.watch.add(dir), changed: stampOf(dir), checked: now, fresh: true}
		f.dirs[dir] = l
	}
	l.visited = true
	seg, rest := segs[0], segs[1:]
	if !hasMeta(seg) { // a name: the directory, which may be large, need not be read
		if len(rest) > 0 {
			f.walk(filepath.Join(dir, seg), rest, now)
		} else if path := filepath.Join(dir, seg); !f.excluded(path) {
			f.paths = append(f.paths, path)
		}
		return
	}
	if !l.read {
		l.entries, _ = os.ReadDir(dir) // a directory that cannot be read matches nothing
		l.read = true
	}
	if seg == "**" {
		f.walk(dir, rest, now)
	}
	for _, e := range l.entries {
		path := filepath.Join(dir, e.Name())
		switch {
		case seg == "**":
			if e.IsDir() { // symbolic links are not followed here: they may form a ring
				f.walk(path, segs, now)
			}
		case !matchSeg(seg, e.Name()):
		case len(rest) > 0:
			if e.IsDir() || e.Type() == fs.ModeSymlink {
				f.walk(path, rest, now)
			}
		case !e.IsDir() && !f.excluded(path):
			f.paths = append(f.paths, path)
		}
	}
}

func (f *finder) excluded(path string) bool {
	return slices.ContainsFunc(f.exclude, func(p pattern) bool { return p.match(path) })
}
