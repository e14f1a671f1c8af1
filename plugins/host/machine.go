package host

// What a machine, the operating system's part of the collector, tells. Each system has its own machine; a machine is
// used by one goroutine at a time. Slices are appended to, so that rounds reuse them.

// The modes of a processor, in the order of cpuTimes.
const (
	cpuUser = iota
	cpuSystem
	cpuNice
	cpuIdle
	cpuIOWait
	cpuInterrupt
	cpuSteal
	cpuModes
)

// cpuTimes is how long one logical CPU, or all together, spent in each mode: seconds since boot.
type cpuTimes struct {
	number int // of the logical CPU; -1: all together
	modes  [cpuModes]float64
}

// memory is in bytes. What is not known is -1. Used, free, buffers and cached that are known add up to total.
type memory struct {
	total, used, free, buffers, cached int64
	available                          int64
}

// paging is swap space and page faults since boot.
type paging struct {
	devices      []swapDevice
	in, out      int64 // pages swapped; -1: not known
	major, minor int64 // faults; -1: not known
}

type swapDevice struct {
	name       string // "" if the system does not say
	used, free int64  // bytes
}

// disk is what one block device did since boot, [0] for reads and [1] for writes.
type disk struct {
	name                      string
	bytes, operations, merged [2]int64
	seconds                   [2]float64 // operations took together
	active                    float64    // seconds
	partial                   bool       // merged and active are not known
}

// filesystem is one mounted file system. Sizes are bytes.
type filesystem struct {
	device, mountpoint, kind, mode string // mode is ro or rw
	used, free, reserved           int64  // free to everybody, reserved for the superuser
}

// netInterface is what went through one interface since boot, [0] received and [1] transmitted.
type netInterface struct {
	name                            string
	bytes, packets, errors, dropped [2]int64
}

// The states of a process, in the order of processes.states.
const (
	processRunning = iota
	processSleeping
	processStopped
	processDefunct
	processStates
)

type processes struct {
	counted   bool // set by the caller: they are to be counted, not only those created
	states    [processStates]int64
	stateless int64 // all of them, where the system does not tell states cheaply; else 0
	created   int64 // since boot; -1: not known
}
