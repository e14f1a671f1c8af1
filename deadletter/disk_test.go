package deadletter_test

import (
	"errors"
	"io"
	"os"
	"syscall"
	"testing"

	"github.com/creelhq/creel/deadletter"
	"github.com/creelhq/creel/spool"
)

// disk is a directory whose files cannot be written while fail is set.
type disk struct {
	fail error
	hits int
}

func (*disk) Own(dir string) (io.Closer, error) { return io.NopCloser(nil), os.MkdirAll(dir, 0o700) }

func (*disk) ReadDir(dir string) (list []spool.FileInfo, err error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if i, err := e.Info(); err == nil {
			list = append(list, spool.FileInfo{Name: e.Name(), Size: i.Size()})
		}
	}
	return list, err
}

func (d *disk) Open(name string) (spool.File, error) { return d.file(name, os.O_RDWR) }
func (d *disk) Create(name string) (spool.File, error) {
	return d.file(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
}
func (*disk) Rename(from, to string) error { return os.Rename(from, to) }
func (*disk) Remove(name string) error     { return os.Remove(name) }
func (*disk) SyncDir(string) error         { return nil }
func (*disk) Free(string) (uint64, error)  { return 1 << 40, nil }

func (d *disk) file(name string, flag int) (spool.File, error) {
	f, err := os.OpenFile(name, flag, 0o600)
	if err != nil {
		return nil, err
	}
	return diskFile{f, d}, nil
}

type diskFile struct {
	*os.File
	disk *disk
}

func (diskFile) Allocate(int64) error { return nil }

func (f diskFile) WriteAt(p []byte, off int64) (int, error) {
	if f.disk.fail != nil {
		f.disk.hits++
		return 0, f.disk.fail
	}
	return f.File.WriteAt(p, off)
}

// A disk that does not take a letter fails Put, and costs none that is there; when it is well again, so is the store.
func TestBadDisk(t *testing.T) {
	for _, fault := range []error{syscall.EIO, syscall.EROFS, syscall.ENOSPC} {
		d := &disk{}
		s := open(t, t.TempDir(), deadletter.Options{FS: d})
		put(t, s, letter(0, 1), letter(1, 1))
		d.fail = fault
		if err := s.Put(letter(2, 1)); !errors.Is(err, fault) || d.hits == 0 {
			t.Errorf("put on a bad disk: %v, %d faults", err, d.hits)
		}
		if got := answers(t, s.List); len(got) != 2 || s.Stats().Err == nil {
			t.Errorf("after the fault %v wait, %+v", got, s.Stats())
		}
		d.fail = nil
		put(t, s, letter(3, 1))
		if got := answers(t, s.List); len(got) != 3 {
			t.Errorf("afterwards %v wait", got)
		}
	}
}
