//go:build !linux

package host

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	gocpu "github.com/shirou/gopsutil/v4/cpu"
	godisk "github.com/shirou/gopsutil/v4/disk"
	gohost "github.com/shirou/gopsutil/v4/host"
	goload "github.com/shirou/gopsutil/v4/load"
	gomem "github.com/shirou/gopsutil/v4/mem"
	gonet "github.com/shirou/gopsutil/v4/net"
	goprocess "github.com/shirou/gopsutil/v4/process"
)

// machine asks the operating system through gopsutil.
type machine struct{ booted time.Time }

func newMachine(string) *machine { return &machine{} }

func (m *machine) boot() (time.Time, error) {
	seconds, err := gohost.BootTime()
	m.booted = time.Unix(int64(seconds), 0)
	return m.booted, err
}

func (m *machine) uptime() (float64, error) { return time.Since(m.booted).Seconds(), nil }

func (m *machine) cpu(to []cpuTimes, each bool) ([]cpuTimes, error) {
	all, err := gocpu.Times(each)
	for i, t := range all {
		n := -1
		if each {
			n = i
		}
		to = append(to, cpuTimes{n, [cpuModes]float64{
			cpuUser: t.User, cpuSystem: t.System, cpuNice: t.Nice, cpuIdle: t.Idle,
			cpuIOWait: t.Iowait, cpuInterrupt: t.Irq + t.Softirq, cpuSteal: t.Steal,
		}})
	}
	return to, err
}

func (m *machine) load() ([3]float64, error) {
	avg, err := goload.Avg()
	if err != nil {
		return [3]float64{}, err
	}
	return [3]float64{avg.Load1, avg.Load5, avg.Load15}, nil
}

func (m *machine) memory() (memory, error) {
	v, err := gomem.VirtualMemory()
	if err != nil {
		return memory{}, err
	}
	total, free := int64(v.Total), int64(v.Free)
	if runtime.GOOS == "windows" {
		free = int64(v.Available) // what is on standby counts as free there
	}
	return memory{total: total, used: max(0, total-free), free: free, buffers: -1, cached: -1, available: -1}, nil
}

func (m *machine) paging(to *paging) error {
	s, err := gomem.SwapMemory()
	if err != nil {
		return err
	}
	to.devices = append(to.devices[:0], swapDevice{used: int64(s.Used), free: int64(s.Free)})
	to.in, to.out, to.major, to.minor = -1, -1, -1, -1
	return nil
}

func (m *machine) disks(to []disk) ([]disk, error) {
	all, err := godisk.IOCounters()
	for name, d := range all {
		to = append(to, disk{
			name:       name,
			bytes:      [2]int64{int64(d.ReadBytes), int64(d.WriteBytes)},
			operations: [2]int64{int64(d.ReadCount), int64(d.WriteCount)},
			seconds:    [2]float64{float64(d.ReadTime) / 1000, float64(d.WriteTime) / 1000},
			partial:    true,
		})
	}
	slices.SortFunc(to, func(a, b disk) int { return strings.Compare(a.name, b.name) })
	return to, err
}

func (m *machine) filesystems(to []filesystem) ([]filesystem, error) {
	mounted, err := godisk.Partitions(false)
	if err != nil {
		return to, err
	}
	for _, p := range mounted {
		if remote(p.Fstype) {
			continue
		}
		u, e := godisk.Usage(p.Mountpoint)
		if e != nil {
			err = fmt.Errorf("ask %s: %w", p.Mountpoint, e) // such as a drive without a medium
			continue
		}
		mode := "rw"
		if slices.Contains(p.Opts, "ro") {
			mode = "ro"
		}
		to = append(to, filesystem{
			device: p.Device, mountpoint: p.Mountpoint, kind: p.Fstype, mode: mode,
			used: int64(u.Used), free: int64(u.Free), reserved: max(0, int64(u.Total)-int64(u.Used)-int64(u.Free)),
		})
	}
	if len(to) > 0 {
		return to, nil
	}
	return to, err
}

// remote reports whether a file system of this type lies across a network, where asking may hang.
func remote(kind string) bool {
	switch kind {
	case "nfs", "smbfs", "afpfs", "webdav", "autofs", "osxfuse", "macfuse", "fuse", "devfs":
		return true
	}
	return false
}

func (m *machine) interfaces(to []netInterface) ([]netInterface, error) {
	all, err := gonet.IOCounters(true)
	for _, n := range all {
		to = append(to, netInterface{
			name:    n.Name,
			bytes:   [2]int64{int64(n.BytesRecv), int64(n.BytesSent)},
			packets: [2]int64{int64(n.PacketsRecv), int64(n.PacketsSent)},
			errors:  [2]int64{int64(n.Errin), int64(n.Errout)},
			dropped: [2]int64{int64(n.Dropin), int64(n.Dropout)},
		})
	}
	return to, err
}

func (m *machine) processes(ctx context.Context, to *processes) error {
	to.created = -1
	if !to.counted {
		return nil
	}
	ids, err := goprocess.PidsWithContext(ctx)
	to.stateless = int64(len(ids))
	return err
}
