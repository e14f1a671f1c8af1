package spool

import "golang.org/x/sys/unix"

func (f osFile) Allocate(size int64) error {
	err := unix.Fallocate(int(f.Fd()), 0, 0, size)
	if err == unix.EOPNOTSUPP || err == unix.ENOSYS {
		return zeros(f.File, size)
	}
	return err
}

// Sync waits for the bytes and what is needed to find them; times of access may come later.
func (f osFile) Sync() error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); err != unix.EINTR {
			return err
		}
	}
}
