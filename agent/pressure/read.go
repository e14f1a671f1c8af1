package pressure

import (
	"os"
	"path/filepath"
	"runtime/metrics"
	"strconv"
	"strings"
)

// names are what a Meter reads.
var names = [...]string{
	"/memory/classes/total:bytes", "/memory/classes/heap/released:bytes", "/memory/classes/heap/free:bytes",
	"/memory/classes/heap/unused:bytes", "/memory/classes/heap/objects:bytes", "/gc/heap/live:bytes", "/gc/cycles/total:gc-cycles",
}

// A Meter reads the memory of this process, without allocating any. It is used by one goroutine at a time.
type Meter struct{ samples []metrics.Sample }

// NewMeter returns a Meter.
func NewMeter() *Meter {
	m := &Meter{make([]metrics.Sample, len(names))}
	for i, name := range names {
		m.samples[i].Name = name
	}
	return m
}

// Read returns how memory is, and how many times garbage was collected.
func (m *Meter) Read() (r Reading, collections uint64) {
	metrics.Read(m.samples)
	at := func(i int) int64 { return int64(m.samples[i].Value.Uint64()) }
	total, released, free, unused, objects, live := at(0), at(1), at(2), at(3), at(4), at(5)
	r.Used = total - released
	r.Most = min(r.Used, max(live, r.Used-free-unused)) // the parts are not read at the same instant
	r.Live = min(r.Most, max(live, r.Most-objects+live))
	return r, m.samples[6].Value.Uint64()
}

// CgroupLimit returns the memory that the control group of this process, and those around it, may have, in bytes; 0 if there
// is no limit. root is where the file system begins, "/".
func CgroupLimit(root string) (limit int64) {
	groups, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return 0 // not a Linux that has any
	}
	for line := range strings.Lines(string(groups)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3) // such as 0::/system.slice/creel.service
		if len(parts) != 3 {
			continue
		}
		hierarchy, file := "sys/fs/cgroup", "memory.max"
		if parts[1] != "" { // version 1
			if !strings.Contains(","+parts[1]+",", ",memory,") {
				continue
			}
			hierarchy, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		}
		for dir := filepath.Join("/", parts[2]); ; dir = filepath.Dir(dir) { // what a container does not see is not there
			if n := readLimit(filepath.Join(root, hierarchy, dir, file)); n > 0 && (limit == 0 || n < limit) {
				limit = n
			}
			if dir == "/" {
				break
			}
		}
	}
	return limit
}

// unlimited is less than what version 1 says where there is no limit: the largest number of whole pages.
const unlimited = 1 << 60

func readLimit(file string) int64 {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64) // "max" is none
	if err != nil || n >= unlimited {
		return 0
	}
	return n
}
