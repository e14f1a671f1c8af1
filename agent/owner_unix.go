//go:build unix

package agent

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// CheckOwner keeps to state directories of one's own. In that of a service, root would make files that the service cannot read; in
// that of somebody else, who has made it in good time, they would see and change everything.
func CheckOwner(data string) error {
	info, err := os.Stat(data)
	if err != nil {
		return nil // it will be made
	}
	owner := info.Sys().(*syscall.Stat_t).Uid
	if int64(owner) == int64(os.Geteuid()) {
		return nil
	}
	name := strconv.FormatUint(uint64(owner), 10)
	if u, err := user.LookupId(name); err == nil {
		name = u.Username
	}
	return fmt.Errorf("state directory %s belongs to user %s; run this as that one: sudo -u %[2]s …", data, name)
}
