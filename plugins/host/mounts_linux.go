package host

import (
	"bytes"
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

// mount is a line of /proc/self/mountinfo that is worth asking about.
type mount struct {
	device string // major:minor
	top    bool   // of the file system, not one of its directories mounted elsewhere
	filesystem
}

// unreported are the types that live on a block device but are images: they are always full.
var unreported = [...]string{"squashfs", "erofs", "cramfs", "iso9660", "udf"}

// filesystems reports each file system once, however often it is mounted. Only those that live on a device of this
// machine are asked: a network file system may hang, and what the kernel makes up has no size.
func (m *machine) filesystems(to []filesystem) ([]filesystem, error) {
	if err := m.findMounts(); err != nil {
		return to, err
	}
	var errs []error
	for i := range m.mounts {
		f := m.mounts[i].filesystem
		var st unix.Statfs_t
		if err := m.statfs(f.mountpoint, &st); err != nil {
			if err != unix.EACCES && err != unix.ENOENT { // not for us, or unmounted meanwhile
				errs = append(errs, err)
			}
			continue
		}
		unit := st.Frsize
		if unit == 0 {
			unit = st.Bsize
		}
		size := func(blocks uint64) int64 { return int64(blocks) * int64(unit) }
		available := min(st.Bavail, st.Bfree)
		f.used, f.free, f.reserved = size(st.Blocks-min(st.Bfree, st.Blocks)), size(available), size(st.Bfree-available)
		to = append(to, f)
	}
	if len(to) > 0 {
		return to, nil
	}
	return to, errors.Join(errs...)
}

// findMounts fills m.mounts.
func (m *machine) findMounts() error {
	if err := m.findLocal(); err != nil {
		return err
	}
	data, err := m.file("proc/self/mountinfo")
	if err != nil {
		return err
	}
	m.mounts = m.mounts[:0]
	for line := range bytes.Lines(data) {
		// id parent major:minor root mountpoint options [optional…] - type source superoptions
		var f [6][]byte
		head, tail, ok := bytes.Cut(bytes.TrimRight(line, "\n"), []byte(" - "))
		if !ok || fields(head, f[:]) < 6 {
			continue
		}
		var g [2][]byte
		if fields(tail, g[:]) < 2 {
			continue
		}
		// The root of a container is an overlay, and has the size of what lies below.
		if !m.local[string(g[0])] && !(string(g[0]) == "overlay" && string(f[4]) == "/") {
			continue
		}
		m.addMount(mount{
			device: m.name(f[2]),
			top:    string(f[3]) == "/",
			filesystem: filesystem{
				device:     m.name(unescape(g[1])),
				kind:       m.name(g[0]),
				mountpoint: m.name(unescape(f[4])),
				mode:       mode(f[5]),
			},
		})
	}
	return nil
}

func (m *machine) addMount(add mount) {
	for i := range m.mounts {
		if have := &m.mounts[i]; have.device == add.device {
			if add.top && !have.top {
				*have = add
			}
			return
		}
	}
	m.mounts = append(m.mounts, add)
}

// findLocal learns which types of file systems need a device. ZFS manages its own, and so says it needs none.
func (m *machine) findLocal() error {
	data, err := m.file("proc/filesystems")
	if err != nil {
		return err
	}
	for line := range bytes.Lines(data) {
		nodev, kind, _ := bytes.Cut(bytes.TrimRight(line, "\n"), []byte("\t"))
		if _, known := m.local[string(kind)]; known {
			continue
		}
		local := len(nodev) == 0 || string(kind) == "zfs"
		for _, u := range unreported {
			local = local && string(kind) != u
		}
		m.local[string(kind)] = local
	}
	return nil
}

func mode(options []byte) string {
	if bytes.Equal(options, []byte("ro")) || bytes.HasPrefix(options, []byte("ro,")) {
		return "ro"
	}
	return "rw"
}

// unescape undoes the kernel's \040 for a space, and the like.
func unescape(b []byte) []byte {
	if bytes.IndexByte(b, '\\') < 0 {
		return b
	}
	return []byte(strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`, `\043`, "#").Replace(string(b)))
}
