//go:build unix

package quicklook

import "golang.org/x/sys/unix"

// freeBytes returns how much this process can still write to the disk of a directory.
func freeBytes(dir string) (int64, bool) {
	var s unix.Statfs_t
	if unix.Statfs(dir, &s) != nil {
		return 0, false
	}
	return int64(s.Bavail) * int64(s.Bsize), true
}
