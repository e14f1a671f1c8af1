package enrich

import (
	"io"
	"os"
	"path/filepath"
	"strings"
)

// idSize is the length of a container's id, in hexadecimal digits.
const idSize = 64

// maxProcFile bounds what is read of a process' files, in bytes.
const maxProcFile = 256 << 10

// containerOf returns the id of the container that a process is in, "" if it is in none or not there. The runtimes (Docker,
// containerd, CRI-O, Podman) name the process' control group after it; where that cannot be seen, within a namespace of
// control groups, files of the runtime that are mounted into the container give it away.
func containerOf(proc, pid string) string {
	for _, line := range lines(filepath.Join(proc, pid, "cgroup")) {
		if path := line[strings.LastIndexByte(line, ':')+1:]; path != line {
			if id := lastID(path); id != "" {
				return id
			}
		}
	}
	for _, line := range lines(filepath.Join(proc, pid, "mountinfo")) {
		fields := strings.Fields(line) // proc_pid_mountinfo(5): the fourth is the root within the file system, the fifth where it is mounted
		if len(fields) < 5 {
			continue
		}
		switch fields[4] {
		case "/etc/hostname", "/etc/hosts", "/etc/resolv.conf":
			if _, after, ok := strings.Cut(fields[3], "containers/"); ok {
				if id := lastID(after); id != "" {
					return id
				}
			}
		}
	}
	return ""
}

func lines(path string) []string {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxProcFile))
	if err != nil {
		return nil
	}
	return strings.Split(string(text), "\n")
}

// lastID returns the last 64 hexadecimal digits in a row.
func lastID(s string) string {
	n := 0
	for i := len(s) - 1; i >= -1; i-- {
		if i >= 0 && strings.IndexByte("0123456789abcdef", s[i]) >= 0 {
			n++
			continue
		}
		if n == idSize {
			return strings.Clone(s[i+1 : i+1+idSize])
		}
		n = 0
	}
	return ""
}
