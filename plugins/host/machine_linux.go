package host

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/creelhq/creel"
)

// machine reads /proc and /sys below root. Files are read into one buffer and names are kept, so that a round allocates
// next to nothing.
type machine struct {
	root   string
	statfs func(path string, st *unix.Statfs_t) error
	buf    []byte
	path   []byte            // of a process
	names  map[string]string // devices, interfaces, mount points that were seen
	whole  map[string]bool   // of a block device: it is no partition, and not made of a file or memory
	local  map[string]bool   // types of file systems that live on a block device
	mounts []mount
}

func newMachine(root string) *machine {
	return &machine{
		root:   root,
		statfs: unix.Statfs,
		buf:    make([]byte, 16<<10),
		names:  map[string]string{},
		whole:  map[string]bool{},
		local:  map[string]bool{},
	}
}

// userHz is the unit of times in /proc/stat, 1/100 s on every architecture that Go runs on.
const userHz = 100

// file returns the contents of the file at path below root, good until the next call.
func (m *machine) file(path string) ([]byte, error) {
	data, err := m.read(filepath.Join(m.root, path))
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: path, Err: err}
	}
	return data, nil
}

// read goes past package os, which would offer each file to the network poller.
func (m *machine) read(path string) ([]byte, error) {
	fd, err := retry(func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	n := 0
	for {
		if n == len(m.buf) {
			m.buf = append(m.buf, make([]byte, len(m.buf))...)
		}
		k, err := retry(func() (int, error) { return unix.Read(fd, m.buf[n:]) })
		if err != nil {
			return nil, err
		}
		if k == 0 {
			return m.buf[:n], nil
		}
		n += k
	}
}

// retry calls f until no signal interrupts it.
func retry(f func() (int, error)) (int, error) {
	for {
		if n, err := f(); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// name returns b as a string, the same one each time.
func (m *machine) name(b []byte) string {
	if s, ok := m.names[string(b)]; ok {
		return s
	}
	if len(m.names) > 10_000 { // devices that come and go must not fill the memory
		clear(m.names)
	}
	s := string(b)
	m.names[s] = s
	return s
}

// fields cuts the first len(to) fields off line and returns how many there were.
func fields(line []byte, to [][]byte) int {
	n := 0
	for n < len(to) {
		line = bytes.TrimLeft(line, " \t")
		if len(line) == 0 {
			break
		}
		end := bytes.IndexAny(line, " \t")
		if end < 0 {
			end = len(line)
		}
		to[n], line = line[:end], line[end:]
		n++
	}
	return n
}

// number reads an unsigned decimal, 0 if b is none. The kernel's 64-bit counters may exceed what a point can hold.
func number(b []byte) int64 {
	var n uint64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0
		}
		n = n*10 + uint64(c-'0')
	}
	return int64(min(n, math.MaxInt64))
}

// lookup returns the value after key in a file of lines "key value …".
func lookup(data, key []byte) (int64, bool) {
	for line := range bytes.Lines(data) {
		if rest, ok := bytes.CutPrefix(line, key); ok && len(rest) > 0 && (rest[0] == ' ' || rest[0] == '\t') {
			var f [1][]byte
			if fields(bytes.TrimRight(rest, "\n"), f[:]) == 1 {
				return number(f[0]), true
			}
		}
	}
	return 0, false
}

func missing(path, what string) error { return fmt.Errorf("read %s: there is no %s", path, what) }

func (m *machine) boot() (time.Time, error) {
	data, err := m.file("proc/stat")
	if err != nil {
		return time.Time{}, err
	}
	seconds, ok := lookup(data, []byte("btime"))
	if !ok {
		return time.Time{}, missing("proc/stat", "btime")
	}
	return time.Unix(seconds, 0), nil
}

func (m *machine) uptime() (float64, error) {
	var up [1]float64
	err := m.floats("proc/uptime", up[:])
	return up[0], err
}

func (m *machine) load() (load [3]float64, err error) {
	return load, m.floats("proc/loadavg", load[:])
}

// floats reads the numbers that the file begins with.
func (m *machine) floats(path string, to []float64) error {
	data, err := m.file(path)
	if err != nil {
		return err
	}
	var f [3][]byte
	n := fields(bytes.TrimSpace(data), f[:len(to)])
	if n < len(to) {
		return missing(path, strconv.Itoa(len(to))+" numbers")
	}
	for i := range to {
		if to[i], err = strconv.ParseFloat(string(f[i]), 64); err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
	}
	return nil
}

func (m *machine) cpu(to []cpuTimes, each bool) ([]cpuTimes, error) {
	data, err := m.file("proc/stat")
	if err != nil {
		return to, err
	}
	for line := range bytes.Lines(data) {
		if !bytes.HasPrefix(line, []byte("cpu")) {
			break // they come first
		}
		var f [9][]byte // name user nice system idle iowait irq softirq steal; guest is in user already
		fields(bytes.TrimRight(line, "\n"), f[:])
		all := len(f[0]) == len("cpu")
		if all == each {
			continue
		}
		t := cpuTimes{number: -1}
		if each {
			t.number = int(number(f[0][len("cpu"):]))
		}
		for i, mode := range [...]int{cpuUser, cpuNice, cpuSystem, cpuIdle, cpuIOWait, cpuInterrupt, cpuInterrupt, cpuSteal} {
			t.modes[mode] += float64(number(f[i+1])) / userHz
		}
		to = append(to, t)
	}
	if len(to) == 0 {
		return to, missing("proc/stat", "cpu")
	}
	return to, nil
}

func (m *machine) memory() (memory, error) {
	data, err := m.file("proc/meminfo")
	if err != nil {
		return memory{}, err
	}
	bytesOf := func(key string) int64 {
		kib, ok := lookup(data, []byte(key))
		if !ok {
			return -1
		}
		return kib << 10
	}
	s := memory{
		total:     bytesOf("MemTotal:"),
		free:      bytesOf("MemFree:"),
		buffers:   bytesOf("Buffers:"),
		cached:    bytesOf("Cached:"),
		available: bytesOf("MemAvailable:"), // since Linux 3.14
	}
	if s.total < 0 || s.free < 0 || s.buffers < 0 || s.cached < 0 {
		return memory{}, missing("proc/meminfo", "MemTotal, MemFree, Buffers or Cached")
	}
	s.cached += max(0, bytesOf("SReclaimable:"))
	s.used = max(0, s.total-s.free-s.buffers-s.cached)
	return s, nil
}

func (m *machine) paging(to *paging) error {
	to.devices = to.devices[:0]
	data, err := m.file("proc/swaps")
	if err != nil {
		return err
	}
	for line := range bytes.Lines(data) {
		var f [4][]byte // name type size used
		if fields(bytes.TrimRight(line, "\n"), f[:]) < 4 || string(f[0]) == "Filename" {
			continue
		}
		size, used := number(f[2])<<10, number(f[3])<<10
		to.devices = append(to.devices, swapDevice{name: m.name(unescape(f[0])), used: used, free: max(0, size-used)})
	}
	if data, err = m.file("proc/vmstat"); err != nil {
		return err
	}
	count := func(key string) int64 {
		if n, ok := lookup(data, []byte(key)); ok {
			return n
		}
		return -1
	}
	to.in, to.out, to.major, to.minor = count("pswpin"), count("pswpout"), count("pgmajfault"), -1
	if faults := count("pgfault"); faults >= to.major && to.major >= 0 {
		to.minor = faults - to.major
	}
	return nil
}

func (m *machine) disks(to []disk) ([]disk, error) {
	data, err := m.file("proc/diskstats")
	if err != nil {
		return to, err
	}
	const sector = 512 // whatever the device's own
	for line := range bytes.Lines(data) {
		var f [13][]byte // major minor name, reads merged sectors ms, writes merged sectors ms, in progress, ms active
		if fields(bytes.TrimRight(line, "\n"), f[:]) < 13 || !m.isDisk(f[2]) {
			continue
		}
		d := disk{name: m.name(f[2]), active: float64(number(f[12])) / 1000}
		for i := range 2 {
			v := f[3+4*i:]
			d.operations[i], d.merged[i], d.bytes[i] = number(v[0]), number(v[1]), number(v[2])*sector
			d.seconds[i] = float64(number(v[3])) / 1000
		}
		to = append(to, d)
	}
	return to, nil
}

// isDisk reports whether the block device is a whole one: reporting partitions too would count everything twice. Where
// /sys is missing every device passes but those that are known by name to be none.
func (m *machine) isDisk(name []byte) bool {
	if whole, ok := m.whole[string(name)]; ok {
		return whole
	}
	whole := !bytes.HasPrefix(name, []byte("loop")) && !bytes.HasPrefix(name, []byte("ram"))
	if whole {
		var st unix.Stat_t
		err := unix.Stat(filepath.Join(m.root, "sys/class/block", filepath.Base(string(name)), "partition"), &st)
		whole = err != nil
	}
	if len(m.whole) > 10_000 {
		clear(m.whole)
	}
	m.whole[string(name)] = whole
	return whole
}

func (m *machine) interfaces(to []netInterface) ([]netInterface, error) {
	data, err := m.file("proc/net/dev")
	if err != nil {
		return to, err
	}
	for line := range bytes.Lines(data) {
		name, rest, ok := bytes.Cut(line, []byte(":"))
		var f [12][]byte // received bytes packets errs drop fifo frame compressed multicast, transmitted bytes packets errs drop
		if !ok || fields(bytes.TrimRight(rest, "\n"), f[:]) < 12 {
			continue // the heading
		}
		d := netInterface{name: m.name(bytes.TrimSpace(name))}
		for i := range 2 {
			v := f[8*i:]
			d.bytes[i], d.packets[i], d.errors[i], d.dropped[i] = number(v[0]), number(v[1]), number(v[2]), number(v[3])
		}
		to = append(to, d)
	}
	return to, nil
}

func (m *machine) processes(ctx context.Context, to *processes) error {
	data, err := m.file("proc/stat")
	if err != nil {
		return err
	}
	to.created = -1
	if n, ok := lookup(data, []byte("processes")); ok {
		to.created = n
	}
	if !to.counted {
		return nil
	}
	to.states = [processStates]int64{}
	fd, err := retry(func() (int, error) {
		return unix.Open(filepath.Join(m.root, "proc"), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return fmt.Errorf("open proc: %w", err)
	}
	defer unix.Close(fd)
	entries := make([]byte, 8<<10)
	for {
		n, err := retry(func() (int, error) { return unix.ReadDirent(fd, entries) })
		if err != nil {
			return fmt.Errorf("list proc: %w", err)
		}
		if n <= 0 {
			return nil
		}
		m.count(entries[:n], &to.states)
		if err := creel.Yield(ctx); err != nil { // some 300 processes a time
			return err
		}
	}
}

// count counts the processes among the directory entries of /proc, by state.
func (m *machine) count(entries []byte, states *[processStates]int64) {
	for len(entries) > 19 {
		length := int(binary.NativeEndian.Uint16(entries[16:])) // struct linux_dirent64: inode, offset, length, type, name
		if length <= 19 || length > len(entries) {
			return
		}
		name, _, _ := bytes.Cut(entries[19:length], []byte{0})
		entries = entries[length:]
		if len(name) == 0 || name[0] < '1' || name[0] > '9' {
			continue
		}
		m.path = append(m.path[:0], m.root...)
		m.path = append(m.path, "/proc/"...)
		m.path = append(m.path, name...)
		m.path = append(m.path, "/stat"...)
		data, err := m.read(string(m.path))
		if err != nil {
			continue // it has ended meanwhile
		}
		// The name before the state stands in parentheses and may hold any character.
		end := bytes.LastIndexByte(data, ')')
		if end < 0 || end+2 >= len(data) {
			continue
		}
		switch data[end+2] {
		case 'R':
			states[processRunning]++
		case 'T', 't':
			states[processStopped]++
		case 'Z', 'X', 'x':
			states[processDefunct]++
		default: // S, D and I: waiting for something, interruptibly or not
			states[processSleeping]++
		}
	}
}
