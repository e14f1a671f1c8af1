package spool

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// FS is the file system under a spool, so that tests can inject faults and take away what was not synced. Names are paths
// as package filepath joins them. It is used concurrently.
type FS interface {
	// Own makes the directory if need be, private to the user, and refuses one that is another user's. Until the Closer
	// is closed, other calls of Own with dir fail with ErrInUse.
	Own(dir string) (io.Closer, error)
	// ReadDir lists the files in dir; the order does not matter.
	ReadDir(dir string) ([]FileInfo, error)
	// Open opens a file to read and write, without following a symbolic link. Create makes it: it must not exist.
	Open(name string) (File, error)
	Create(name string) (File, error)
	Rename(from, to string) error
	Remove(name string) error
	// SyncDir makes the entries of dir durable.
	SyncDir(dir string) error
	// Free returns the bytes that may still be written to the file system of dir.
	Free(dir string) (uint64, error)
}

// FileInfo is an entry of a directory.
type FileInfo struct {
	Name string
	Size int64
}

// File is an open file.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Sync() error
	Truncate(size int64) error
	// Allocate gives the file size bytes of real disk space.
	Allocate(size int64) error
}

// ErrInUse says that another queue, of this process or another, owns the directory.
var ErrInUse = errors.New("spool is in use")

// osFS is the operating system's.
type osFS struct{}

const lockName = "lock"

func (osFS) Own(dir string) (io.Closer, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := private(dir); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE|noFollow, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("%w: %w", ErrInUse, err)
	}
	return f, nil
}

func (osFS) ReadDir(dir string) ([]FileInfo, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var list []FileInfo
	for _, e := range entries {
		if i, err := e.Info(); err == nil && i.Mode().IsRegular() {
			list = append(list, FileInfo{e.Name(), i.Size()})
		}
	}
	return list, nil
}

func (osFS) Open(name string) (File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|noFollow, 0)
	if errors.Is(err, os.ErrPermission) || isReadOnly(err) { // who only looks need not be able to write
		f, err = os.OpenFile(name, os.O_RDONLY|noFollow, 0)
	}
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osFS) Create(name string) (File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL|noFollow, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osFS) Rename(from, to string) error { return os.Rename(from, to) }
func (osFS) Remove(name string) error     { return os.Remove(name) }

type osFile struct{ *os.File }

// zeros fills f by writing: what file systems that cannot allocate need.
func zeros(f *os.File, size int64) error {
	b := make([]byte, 256<<10)
	for off := int64(0); off < size; off += int64(len(b)) {
		if _, err := f.WriteAt(b[:min(int64(len(b)), size-off)], off); err != nil {
			return err
		}
	}
	return nil
}
