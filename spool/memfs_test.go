package spool

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
)

// memFS is a file system that forgets: what was not synced, per file and per directory entry, is gone or torn after a
// crash, as the crash decides. Faults are injected by fail.
type memFS struct {
	mu       sync.Mutex
	now      map[string]*inode // as processes see it
	disk     map[string]*inode // directory entries that are durable
	entries  []entryOp         // those that are not, in order
	owned    map[string]bool
	capacity int64 // bytes; 0: no limit

	calls   int
	crashAt int                         // the call that does not return; 0: none
	crashed bool                        // and nothing works any more
	fail    func(op, name string) error // called with mu held
	dropped bool                        // a failed sync also drops the pages that it could not write
	hits    int                         // faults that were really injected
}

type inode struct {
	data  []byte // as processes see it
	disk  []byte // durable
	ops   []op   // what makes data of disk, in order
	taken int64  // allocated bytes
}

// op is a write at off, or a truncation to off.
type op struct {
	off  int64
	p    []byte
	trim bool
}

type entryOp struct {
	name string
	node *inode // nil: removed
	from string // of a rename
}

var errCrash = errors.New("the machine has crashed")

func newMemFS() *memFS {
	return &memFS{now: map[string]*inode{}, disk: map[string]*inode{}, owned: map[string]bool{}}
}

// enter counts a call and decides its fate. mu is held.
func (m *memFS) enter(op, name string) error {
	if m.crashed {
		return errCrash
	}
	m.calls++
	if m.calls == m.crashAt {
		m.crashed = true
		m.hits++
		return errCrash
	}
	if m.fail != nil {
		if err := m.fail(op, filepath.Base(name)); err != nil {
			m.hits++
			return err
		}
	}
	return nil
}

func (o op) apply(b []byte) []byte {
	if o.trim {
		if int64(len(b)) > o.off {
			return b[:o.off]
		}
		return append(b, make([]byte, o.off-int64(len(b)))...)
	}
	if need := o.off + int64(len(o.p)); need > int64(len(b)) {
		b = append(b, make([]byte, need-int64(len(b)))...)
	}
	copy(b[o.off:], o.p)
	return b
}

// after returns what is on the disk after a crash: keep decides how much of what was not synced is there.
func (m *memFS) after(keep string, r *rand.Rand) *memFS {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := newMemFS()
	n.capacity = m.capacity
	dir := maps.Clone(m.disk)
	some := keep == "some"
	for _, e := range m.entries {
		if keep == "none" || some && r.IntN(3) == 0 {
			continue
		}
		if e.node == nil {
			delete(dir, e.name)
			continue
		}
		dir[e.name] = e.node
		if e.from != "" && dir[e.from] == e.node {
			delete(dir, e.from)
		}
	}
	for name, node := range dir {
		b := slices.Clone(node.disk)
		if keep == "all" { // the process died, not the machine
			n.now[name] = &inode{data: slices.Clone(node.data), disk: b, taken: node.taken, ops: node.ops}
			n.disk[name] = n.now[name]
			continue
		}
		for _, o := range node.ops {
			switch {
			case keep == "none":
				continue
			case some && r.IntN(2) == 0:
				if o.trim || len(o.p) == 0 || r.IntN(2) == 0 {
					continue
				}
				o.p = o.p[:r.IntN(len(o.p))] // torn
			}
			b = o.apply(b)
		}
		node := &inode{data: b, disk: slices.Clone(b), taken: node.taken}
		n.now[name], n.disk[name] = node, node
	}
	return n
}

// free lifts the capacity by n bytes.
func (m *memFS) free(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.capacity += n
}

func (m *memFS) used() (n int64) {
	for _, f := range m.now {
		n += max(int64(len(f.data)), f.taken)
	}
	return n
}

type memOwner struct {
	m   *memFS
	dir string
}

func (o memOwner) Close() error {
	o.m.mu.Lock()
	defer o.m.mu.Unlock()
	delete(o.m.owned, o.dir)
	return nil
}

func (m *memFS) Own(dir string) (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.enter("own", dir); err != nil {
		return nil, err
	}
	if m.owned[dir] {
		return nil, ErrInUse
	}
	m.owned[dir] = true
	return memOwner{m, dir}, nil
}

func (m *memFS) ReadDir(dir string) (list []FileInfo, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.enter("readdir", dir); err != nil {
		return nil, err
	}
	for name, f := range m.now {
		if filepath.Dir(name) == dir {
			list = append(list, FileInfo{filepath.Base(name), max(int64(len(f.data)), f.taken)})
		}
	}
	slices.SortFunc(list, func(a, b FileInfo) int { return -1 * compare(a.Name, b.Name) })
	return list, nil
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (m *memFS) Open(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.enter("open", name); err != nil {
		return nil, err
	}
	f, ok := m.now[name]
	if !ok {
		return nil, fmt.Errorf("open %s: %w", name, os.ErrNotExist)
	}
	return &memFile{m: m, f: f, name: name}, nil
}

func (m *memFS) Create(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.enter("create", name); err != nil {
		return nil, err
	}
	if _, ok := m.now[name]; ok {
		return nil, fmt.Errorf("create %s: %w", name, os.ErrExist)
	}
	f := &inode{}
	m.now[name] = f
	m.entries = append(m.entries, entryOp{name: name, node: f})
	return &memFile{m: m, f: f, name: name}, nil
}

func (m *memFS) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.enter("rename", to); err != nil {
		return err
	}
	f, ok := m.now[from]
	if !ok {
		return os.ErrNotExist
	}
	delete(m.now, from)
	m.now[to] = f
	m.entries = append(m.entries, entryOp{name: to, node: f, from: from})
	return nil
}

func (m *memFS) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.enter("remove", name); err != nil {
		return err
	}
	if _, ok := m.now[name]; !ok {
		return os.ErrNotExist
	}
	delete(m.now, name)
	m.entries = append(m.entries, entryOp{name: name})
	return nil
}

func (m *memFS) SyncDir(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.enter("syncdir", dir); err != nil {
		return err
	}
	m.disk = maps.Clone(m.now)
	m.entries = nil
	return nil
}

func (m *memFS) Free(dir string) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.enter("free", dir); err != nil {
		return 0, err
	}
	if m.capacity == 0 {
		return 1 << 40, nil
	}
	return uint64(max(m.capacity-m.used(), 0)), nil
}

type memFile struct {
	m      *memFS
	f      *inode
	name   string
	closed bool
}

func (f *memFile) enter(op string) error {
	if f.closed {
		return os.ErrClosed
	}
	return f.m.enter(op, f.name)
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.enter("read"); err != nil {
		return 0, err
	}
	if off >= int64(len(f.f.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.f.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	err := f.enter("write")
	if err != nil && err != errCrash {
		return 0, err
	}
	if f.m.calls != f.m.crashAt && err != nil {
		return 0, err
	}
	if grow := off + int64(len(p)) - max(int64(len(f.f.data)), f.f.taken); f.m.capacity > 0 && grow > 0 && err == nil {
		if room := f.m.capacity - f.m.used(); grow > room {
			p, err = p[:max(int64(len(p))-grow+max(room, 0), 0)], syscall.ENOSPC
			f.m.hits++
		}
	}
	o := op{off: off, p: slices.Clone(p)}
	f.f.ops = append(f.f.ops, o)
	f.f.data = o.apply(f.f.data)
	return len(p), err
}

func (f *memFile) Truncate(size int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.enter("truncate"); err != nil {
		return err
	}
	o := op{off: size, trim: true}
	f.f.ops = append(f.f.ops, o)
	f.f.data = o.apply(f.f.data)
	f.f.taken = 0
	return nil
}

func (f *memFile) Allocate(size int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.enter("allocate"); err != nil {
		return err
	}
	if f.m.capacity > 0 && size > f.m.capacity-f.m.used() {
		f.m.hits++
		return syscall.ENOSPC
	}
	f.f.taken = size
	return nil
}

// Sync, when it fails, leaves the pages marked as clean: no later sync writes them.
func (f *memFile) Sync() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	err := f.enter("sync")
	if err == nil {
		for _, o := range f.f.ops {
			f.f.disk = o.apply(f.f.disk)
		}
	} else if f.m.dropped {
		f.f.data = slices.Clone(f.f.disk)
	}
	if err != errCrash {
		f.f.ops = nil
	}
	return err
}

func (f *memFile) Close() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.closed {
		return os.ErrClosed
	}
	f.closed = true
	return nil
}
