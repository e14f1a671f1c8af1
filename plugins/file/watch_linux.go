package file

import (
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// watcher hears from the kernel what happens in directories (inotify). It reads what has gathered in the kernel, where
// repeated writes to a file are one event, and then pauses: so a busy file costs no more than one that is polled.
type watcher struct {
	wake chan struct{} // something was heard
	file *os.File      // of the inotify instance
	fd   int
	stop chan struct{}
	over sync.WaitGroup

	mu     sync.Mutex
	closed bool
	dirs   map[int32]*watched
	byPath map[string]int32
	heard  int  // names
	missed bool // there was more than was kept
}

// watched is a directory, and what has happened in it.
type watched struct {
	path  string
	names map[string]change
	moved bool // it is no longer there
}

// change is what has happened to a file.
type change uint8

const (
	written change = 1 << iota // more text, or less
	moved                      // it has come or gone under this name
)

const (
	pauseLeast = 5 * time.Millisecond // between two looks; doubled while there is always something
	pauseMost  = 50 * time.Millisecond
	maxHeard   = 1 << 16
)

// newWatcher returns nil if there can be none.
func newWatcher() *watcher {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil
	}
	w := &watcher{wake: make(chan struct{}, 1), file: os.NewFile(uintptr(fd), "inotify"), fd: fd, stop: make(chan struct{}),
		dirs: map[int32]*watched{}, byPath: map[string]int32{}}
	w.over.Go(w.listen)
	return w
}

func (w *watcher) close() {
	if w == nil {
		return
	}
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	close(w.stop)
	w.file.Close()
	w.over.Wait()
}

// ready returns where a value comes when something was heard.
func (w *watcher) ready() <-chan struct{} {
	if w == nil {
		return nil
	}
	return w.wake
}

// add watches a directory. It reports whether it can be: on a network the kernel does not hear what others write.
func (w *watcher) add(dir string) bool {
	if w == nil || isRemote(dir) {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return false
	}
	wd, err := unix.InotifyAddWatch(w.fd, dir, unix.IN_ONLYDIR|unix.IN_MODIFY|unix.IN_CREATE|unix.IN_DELETE|unix.IN_MOVE|unix.IN_MOVE_SELF)
	if err != nil {
		return false
	}
	if d := w.dirs[int32(wd)]; d != nil && d.path != dir {
		return false // two paths lead to the directory: events come with the first
	}
	if w.dirs[int32(wd)] == nil {
		w.dirs[int32(wd)] = &watched{path: dir}
	}
	w.byPath[dir] = int32(wd)
	return true
}

func (w *watcher) has(dir string) bool {
	if w == nil {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	_, ok := w.byPath[dir]
	return ok
}

func (w *watcher) remove(dir string) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if wd, ok := w.byPath[dir]; ok && !w.closed {
		_, _ = unix.InotifyRmWatch(w.fd, uint32(wd)) // answered by IN_IGNORED
	}
}

// take calls f for everything that was heard since it was last called. It returns false if something was missed.
func (w *watcher) take(f func(dir, name string, c change)) (all bool) {
	if w == nil {
		return true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	all = !w.missed
	w.missed = false
	if w.heard == 0 {
		return all
	}
	w.heard = 0
	for wd, d := range w.dirs {
		for name, c := range d.names {
			f(d.path, name, c)
		}
		d.names = nil
		if d.moved {
			delete(w.dirs, wd)
			if w.byPath[d.path] == wd {
				delete(w.byPath, d.path)
			}
			f(d.path, "", moved)
		}
	}
	return all
}

func (w *watcher) listen() {
	buf := make([]byte, 64<<10)
	pause, last := pauseLeast, time.Time{}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		n, err := w.file.Read(buf)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		w.mu.Lock()
		if err != nil {
			w.missed = true
		}
		w.note(buf[:max(n, 0)])
		news := w.heard > 0 || w.missed
		w.mu.Unlock()
		if news {
			select {
			case w.wake <- struct{}{}:
			default:
			}
		}
		if now := time.Now(); now.Sub(last) < 2*pause {
			pause, last = min(2*pause, pauseMost), now
		} else {
			pause, last = pauseLeast, now
		}
		timer.Reset(pause)
		select {
		case <-timer.C:
		case <-w.stop:
			return
		}
	}
}

// note takes the kernel's events: watch, mask, cookie, length, name.
func (w *watcher) note(events []byte) {
	for len(events) >= unix.SizeofInotifyEvent {
		wd, mask := int32(binary.NativeEndian.Uint32(events)), binary.NativeEndian.Uint32(events[4:])
		end := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(events[12:]))
		name := events[unix.SizeofInotifyEvent:min(end, len(events))]
		events = events[min(end, len(events)):]
		for len(name) > 0 && name[len(name)-1] == 0 {
			name = name[:len(name)-1]
		}
		d := w.dirs[wd]
		switch {
		case mask&unix.IN_Q_OVERFLOW != 0:
			w.missed = true
			continue
		case d == nil:
			continue
		case mask&unix.IN_MOVE_SELF != 0: // it goes by another name now, and so do those in it
			for wd, o := range w.dirs {
				if o == d || strings.HasPrefix(o.path, d.path+"/") {
					_, _ = unix.InotifyRmWatch(w.fd, uint32(wd)) // answered by IN_IGNORED
				}
			}
			continue
		case mask&unix.IN_IGNORED != 0:
			d.moved = true
			w.heard++
			continue
		}
		c := written
		if mask&(unix.IN_CREATE|unix.IN_DELETE|unix.IN_MOVE) != 0 {
			c = moved
		}
		if old := d.names[string(name)]; old|c == old {
			continue
		}
		if w.heard >= maxHeard {
			w.missed = true
			continue
		}
		if d.names == nil {
			d.names = map[string]change{}
		}
		d.names[string(name)] |= c
		w.heard++
	}
}

// isRemote reports whether others than this kernel may write to the directory.
func isRemote(dir string) bool {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return true
	}
	switch uint32(fs.Type) {
	case unix.NFS_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.FUSE_SUPER_MAGIC,
		unix.V9FS_MAGIC, unix.AFS_SUPER_MAGIC, unix.CODA_SUPER_MAGIC, unix.CEPH_SUPER_MAGIC, unix.OCFS2_SUPER_MAGIC,
		0x0bd00bd0, 0x01161970: // Lustre, GFS2
		return true
	}
	return false
}
