package requires

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// memory returns how much can be had before something is swapped or killed: on the machine, or in the control group of this
// process or one around it, wherever it is least. root is where the file system begins, "/".
func memory(root string) (free int64, of string, err error) {
	of = "on this machine"
	if free, err = entry(filepath.Join(root, "proc/meminfo"), "MemAvailable:"); err != nil {
		return 0, "", err
	}
	free *= 1024 // it says kB
	groups, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return free, of, nil // a kernel without any
	}
	for line := range strings.Lines(string(groups)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3) // such as 0::/system.slice/creel.service
		if len(parts) != 3 {
			continue
		}
		files := groupFiles{"sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"}
		if parts[1] != "" { // version 1
			if !strings.Contains(","+parts[1]+",", ",memory,") {
				continue
			}
			files = groupFiles{"sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"}
		}
		for dir := filepath.Join("/", parts[2]); ; dir = filepath.Dir(dir) { // what a container does not see is not there
			if n, ok := files.free(root, dir); ok && n < free {
				free, of = n, "in the control group "+dir
			}
			if dir == "/" {
				break
			}
		}
	}
	return free, of, nil
}

// groupFiles are what tells of the memory of control groups, in each version its own.
type groupFiles struct{ hierarchy, limit, usage, cache string }

// free returns what a group may still have. Files that were not used lately are as good as free.
func (f groupFiles) free(root, dir string) (int64, bool) {
	dir = filepath.Join(root, f.hierarchy, dir)
	limit, err := count(filepath.Join(dir, f.limit)) // max is none
	if err != nil {
		return 0, false
	}
	usage, err := count(filepath.Join(dir, f.usage))
	if err != nil {
		return 0, false
	}
	cache, _ := entry(filepath.Join(dir, "memory.stat"), f.cache) // unknown: as if there were none
	return max(0, limit-usage+min(cache, usage)), true
}

func count(file string) (int64, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
}

// entry returns the number behind a name at the beginning of a line.
func entry(file, name string) (int64, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		if words := strings.Fields(lines.Text()); len(words) > 1 && words[0] == name {
			return strconv.ParseInt(words[1], 10, 64)
		}
	}
	return 0, fmt.Errorf("%s has no %s", file, name)
}

// descriptors returns how many file descriptors this process can still open.
func descriptors() (free int64, of string, err error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, "", err
	}
	most := int64(min(limit.Cur, 1<<40))
	of = fmt.Sprintf("of the %d that the agent may have", most)
	const dir = "/proc/self/fd"
	if is, err := os.Stat(dir); err == nil && is.Size() > 0 { // since Linux 6.2 it is their number
		return most - is.Size(), of, nil
	}
	f, err := os.Open(dir)
	if errors.Is(err, unix.EMFILE) {
		return 0, of, nil
	} else if err != nil {
		return 0, "", err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	return most - int64(len(names)-1), of, err
}
