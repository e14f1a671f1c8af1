//go:build unix

package identity

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// private says why others than this user may have read or changed a file or directory.
func private(path string, info fs.FileInfo) error {
	if owner, me := info.Sys().(*syscall.Stat_t).Uid, os.Geteuid(); int64(owner) != int64(me) {
		return fmt.Errorf("%s belongs to user %d, but this is user %d; run creel as that user, or give it to this one with chown -R", path, owner, me)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		want := os.FileMode(0o600)
		if info.IsDir() {
			want = 0o700
		}
		return fmt.Errorf("%s may be read by others (mode %04o), so that the key in it may be known to them; if it was only copied carelessly, chmod %04o it, else join the hub again", path, mode, want)
	}
	return nil
}
