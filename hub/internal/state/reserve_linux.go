package state

import (
	"os"

	"golang.org/x/sys/unix"
)

// reserve takes room on the disk for a file to grow by n bytes, so that it can be written to when the disk is full. On
// file systems that copy on write that does not help.
func reserve(path string, n int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, info.Size()+n)
}
