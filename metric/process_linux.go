package metric

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// CPU returns the processor time that this process has used; 0 where that is not known.
func CPU() time.Duration {
	var r syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &r) != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func processOS(s *Set) {
	s.CounterFunc("process.cpu.time", "CPU time, user and system.", "s", func() float64 { return CPU().Seconds() })
	s.GaugeFunc("process.memory.usage", "Resident memory.", "By", func() float64 {
		text, _ := os.ReadFile("/proc/self/statm") // unreadable: 0
		fields := strings.Fields(string(text))
		if len(fields) < 2 {
			return 0
		}
		pages, _ := strconv.ParseFloat(fields[1], 64)
		return pages * float64(os.Getpagesize())
	})
	s.GaugeFunc("process.open_file_descriptor.count", "Open file descriptors.", "{file_descriptor}", func() float64 {
		fds, _ := os.ReadDir("/proc/self/fd") // unreadable: 0
		return float64(len(fds))
	})
}
