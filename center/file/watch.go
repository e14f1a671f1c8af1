package file

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	quiet    = 50 * time.Millisecond // without a change, and what was changed is taken to be whole
	settling = 2 * time.Second       // at most: some files never hold still
	leastGap = 2 * time.Second       // between two looks at what nothing was heard of; see Listener.gap
	mostGap  = 15 * time.Second
	retry    = time.Second // between two looks at what could not be read
)

// Watch calls f after something at or below paths has changed and has held still for a moment, until ctx is done. A path
// is a file, or a directory, of which what Read would read counts; it need not exist yet. Relative paths are meant from
// the working directory of now. log may be nil. See Listen for a caller that must miss nothing.
func Watch(ctx context.Context, log *slog.Logger, paths []string, f func()) {
	Listen(log, paths...).Run(ctx, f)
}

// A Listener hears of changes of files from the moment that Listen returns.
//
// It hears from the kernel, of the directories that the names stand in, symlinks on the way included. Besides it looks at
// the files every few seconds: not all file systems tell, and not all directories can be listened to.
type Listener struct {
	log      *slog.Logger
	paths    []string
	notify   *fsnotify.Watcher      // nil if there can be none
	dirs     map[string]fs.FileInfo // that notify listens to
	names    map[string]bool        // paths of which a change counts
	whole    map[string]bool        // directories of which changes of all documents do
	last     stamp
	gap      time.Duration // to the next look
	deaf     bool          // and it was logged
	restless bool          // f is to be called again without a change
}

// Listen begins to listen, as Watch does. Run must be called, and ends it.
func Listen(log *slog.Logger, paths ...string) *Listener {
	l := &Listener{log: log, dirs: map[string]fs.FileInfo{}}
	if log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	for _, p := range paths {
		abs, err := filepath.Abs(p)
		if err != nil { // there is no working directory
			l.log.Warn("a file cannot be watched", "path", p, "error", err)
			continue
		}
		l.paths = append(l.paths, abs)
	}
	var err error
	if l.notify, err = fsnotify.NewWatcher(); err != nil {
		l.notify = nil
		l.cannot("", err)
	}
	l.look()
	return l
}

// cannot logs, once, that changes are seen late.
func (l *Listener) cannot(dir string, err error) {
	if !l.deaf {
		l.log.Warn("changes of files cannot be heard of, and are looked for every few seconds", "directory", dir, "error", err)
	}
	l.deaf = true
}

// Run calls f after each change, until ctx is done.
func (l *Listener) Run(ctx context.Context, f func()) {
	var events chan fsnotify.Event
	var failures chan error
	if l.notify != nil {
		defer l.notify.Close()
		events, failures = l.notify.Events, l.notify.Errors
	}
	timer := time.NewTimer(l.next())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-events:
			if !l.counts(e.Name) {
				continue
			}
		case err := <-failures: // there were too many to tell, for one
			l.log.Debug("the system may not have told all changes of files", "error", err)
		case <-timer.C:
			if !l.look() && !l.restless {
				timer.Reset(l.next())
				continue
			}
		}
		if l.settle(ctx, events) != nil {
			return
		}
		f()
		timer.Reset(l.next())
	}
}

func (l *Listener) next() time.Duration {
	if l.restless {
		return retry
	}
	return l.gap
}

// settle waits until nothing changes any more.
func (l *Listener) settle(ctx context.Context, events <-chan fsnotify.Event) error {
	l.look() // there may be new directories to listen to
	for end := time.Now().Add(settling); ; {
		moved := false
		timer := time.NewTimer(quiet)
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				timer.Stop()
				return ctx.Err()
			case e := <-events:
				moved = moved || l.counts(e.Name)
			case <-timer.C:
				waiting = false
			}
		}
		if moved = l.look() || moved; !moved || time.Now().After(end) {
			return nil
		}
	}
}

// counts reports whether a change of a file is of interest.
func (l *Listener) counts(path string) bool {
	return l.names[path] || l.whole[filepath.Dir(path)] && isDocument(filepath.Base(path)) || l.dirs[path] != nil
}

// look looks at everything, listens to what there is now, and reports whether something is different from the last time.
func (l *Listener) look() bool {
	start := time.Now()
	l.names, l.whole = map[string]bool{}, map[string]bool{}
	for _, p := range l.paths {
		l.trace(p, true, 0)
	}
	l.listen()
	now := stamp{}
	for _, p := range l.paths {
		now.add(p)
	}
	changed := l.last != nil && !now.same(l.last)
	l.last = now
	l.gap = min(max(leastGap, 1000*time.Since(start)), mostGap) // a thousandth of a processor
	return changed
}

// trace notes whose changes can make a difference to what is at path: the file itself, symlinks that lead to it, or what
// is missing on the way; and with inside, if it is a directory, the documents in it.
func (l *Listener) trace(path string, inside bool, depth int) {
	if depth > 40 { // symlinks in a circle
		return
	}
	const slash = string(filepath.Separator)
	volume := filepath.VolumeName(path)
	at, rest := volume+slash, strings.Trim(path[len(volume):], slash)
	for rest != "" {
		dir := at
		var name string
		name, rest, _ = strings.Cut(rest, slash)
		at = filepath.Join(dir, name)
		info, err := os.Lstat(at)
		link := err == nil && info.Mode()&fs.ModeSymlink != 0
		if err != nil || link || rest == "" {
			l.names[at] = true
		}
		if err != nil {
			return
		}
		if link {
			if to, err := os.Readlink(at); err == nil {
				if !filepath.IsAbs(to) {
					to = filepath.Join(dir, to)
				}
				l.trace(filepath.Join(to, rest), inside, depth+1)
			}
			return
		}
	}
	if info, err := os.Stat(at); !inside || err != nil || !info.IsDir() {
		return
	}
	l.whole[at] = true
	files, _ := list(at) // whoever reads is told the error
	for _, f := range files {
		if info, err := os.Lstat(f); err == nil && info.Mode()&fs.ModeSymlink != 0 {
			l.trace(f, false, depth+1)
		}
	}
}

// listen makes notify listen to the directories that matter now. It may have lost one that was removed: another that has
// its name is not it.
func (l *Listener) listen() {
	if l.notify == nil {
		return
	}
	want := maps.Clone(l.whole)
	for path := range l.names {
		want[filepath.Dir(path)] = true
	}
	heard := map[string]bool{}
	for _, dir := range l.notify.WatchList() {
		heard[dir] = true
	}
	for dir, old := range l.dirs {
		if now, err := os.Stat(dir); !want[dir] || !heard[dir] || err != nil || !os.SameFile(now, old) {
			_ = l.notify.Remove(dir) // it may be gone already
			delete(l.dirs, dir)
		}
	}
	for dir := range want {
		info, err := os.Stat(dir)
		if l.dirs[dir] != nil || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = l.notify.Add(dir)
		}
		if err != nil {
			l.cannot(dir, err)
			continue
		}
		l.dirs[dir] = info
	}
}

// stamp is what files look like from outside, by path. What is not there is absent.
type stamp map[string]fs.FileInfo

// add adds what is at path, and the documents in it.
func (s stamp) add(path string) {
	info, err := os.Stat(path)
	if err != nil {
		return
	}
	s[path] = info
	if info.IsDir() {
		files, _ := list(path) // whoever reads is told the error
		for _, f := range files {
			if info, err := os.Stat(f); err == nil {
				s[f] = info
			}
		}
	}
}

// same reports whether s and o show the same files. A directory's own times tell of other files in it too, and do not
// count.
func (s stamp) same(o stamp) bool {
	return maps.EqualFunc(s, o, func(a, b fs.FileInfo) bool {
		return a.Mode() == b.Mode() && (a.IsDir() || a.Size() == b.Size() && a.ModTime().Equal(b.ModTime()) && os.SameFile(a, b))
	})
}
