package host

import "github.com/creelhq/creel"

// The names, units and attributes are those of OpenTelemetry's semantic conventions at this version, except the load
// averages, which it lacks: those are named as in OpenTelemetry's own collector.
const schemaURL = "https://opentelemetry.io/schemas/1.43.0"

func gauge(name, unit, doc string) *creel.Descriptor {
	return &creel.Descriptor{Name: name, Unit: unit, Description: doc, Kind: creel.Gauge}
}

func upDown(name, unit, doc string) *creel.Descriptor {
	return &creel.Descriptor{Name: name, Unit: unit, Description: doc, Kind: creel.Sum, Temporality: creel.Cumulative}
}

func counter(name, unit, doc string) *creel.Descriptor {
	d := upDown(name, unit, doc)
	d.Monotonic = true
	return d
}

var (
	uptime = gauge("system.uptime", "s", "Time since the system started.")

	cpuTime        = counter("system.cpu.time", "s", "Time that logical CPUs spent in each mode.")
	cpuUtilization = gauge("system.cpu.utilization", "1", "Share of time that logical CPUs spent in each mode since the round before.")

	loads = [3]*creel.Descriptor{
		gauge("system.cpu.load_average.1m", "{thread}", "Load average over 1 minute."),
		gauge("system.cpu.load_average.5m", "{thread}", "Load average over 5 minutes."),
		gauge("system.cpu.load_average.15m", "{thread}", "Load average over 15 minutes."),
	}

	memoryUsage       = upDown("system.memory.usage", "By", "Memory by what it is used for.")
	memoryUtilization = gauge("system.memory.utilization", "1", "Share of memory by what it is used for.")
	memoryLimit       = upDown("system.memory.limit", "By", "Memory that the system has.")
	memoryAvailable   = upDown("system.memory.linux.available", "By", "Estimate of what new programs can have without swapping.")

	pagingUsage       = upDown("system.paging.usage", "By", "Swap space or page file in use and free.")
	pagingUtilization = gauge("system.paging.utilization", "1", "Share of the swap space or page file in use and free.")
	pagingOperations  = counter("system.paging.operations", "{operation}", "Pages swapped in and out.")
	pagingFaults      = counter("system.paging.faults", "{fault}", "Page faults.")

	diskIO            = counter("system.disk.io", "By", "Bytes read and written.")
	diskOperations    = counter("system.disk.operations", "{operation}", "Reads and writes.")
	diskMerged        = counter("system.disk.merged", "{operation}", "Reads and writes that were merged into others.")
	diskIOTime        = counter("system.disk.io_time", "s", "Time the disk was active.")
	diskOperationTime = counter("system.disk.operation_time", "s", "Time that operations took, added up.")

	filesystemUsage       = upDown("system.filesystem.usage", "By", "Space of the file system by state.")
	filesystemLimit       = upDown("system.filesystem.limit", "By", "Size of the file system.")
	filesystemUtilization = gauge("system.filesystem.utilization", "1", "Share of the space open to everybody that is used.")

	networkIO      = counter("system.network.io", "By", "Bytes received and transmitted.")
	networkPackets = counter("system.network.packet.count", "{packet}", "Packets received and transmitted.")
	networkErrors  = counter("system.network.errors", "{error}", "Errors while receiving and transmitting.")
	networkDropped = counter("system.network.packet.dropped", "{packet}", "Packets dropped without an error.")

	processCount   = upDown("system.process.count", "{process}", "Processes by state, counted every ten seconds at most.")
	processCreated = counter("system.process.created", "{process}", "Processes created since the system started.")
)

// points adds data points to the records of one round.
type points struct {
	records     *creel.Records
	origin      *creel.Origin
	start, time int64
}

// add adds a point of d. The attributes are copied, as no two records may share theirs.
func (p *points) add(d *creel.Descriptor, v creel.Number, attrs ...creel.Attr) {
	m := creel.Metric{Origin: p.origin, Desc: d, Time: p.time, Value: v, Attrs: p.records.Attrs.Make(len(attrs))}
	copy(m.Attrs, attrs)
	if d.Kind == creel.Sum {
		m.Start = p.start
	}
	p.records.Metrics = append(p.records.Metrics, m)
}

// share adds a point of part divided by whole, if there is a whole.
func (p *points) share(d *creel.Descriptor, part, whole float64, attrs ...creel.Attr) {
	if whole > 0 {
		p.add(d, creel.Double(part/whole), attrs...)
	}
}

func attr(key, value string) creel.Attr { return creel.Attr{Key: key, Value: creel.String(value)} }

// The values of attributes, in the order of what machine.go defines.
var (
	modes          = [cpuModes]string{"user", "system", "nice", "idle", "iowait", "interrupt", "steal"}
	diskDirections = [2]string{"read", "write"}
	netDirections  = [2]string{"receive", "transmit"}
	states         = [processStates]string{"running", "sleeping", "stopped", "defunct"}
)

func (c *collector) emitUptime(p *points) { p.add(uptime, creel.Double(c.uptime)) }

func (c *collector) emitCPU(p *points) {
	for i := range c.cpus {
		cpu := &c.cpus[i]
		attrs := [2]creel.Attr{1: {Key: "cpu.logical_number", Value: creel.Int(int64(cpu.number))}}
		n := 2
		if cpu.number < 0 {
			n = 1
		}
		for m, seconds := range cpu.modes {
			attrs[0] = attr("cpu.mode", modes[m])
			p.add(cpuTime, creel.Double(seconds), attrs[:n]...)
		}
		// A CPU that came or went since the round before shifts the others: they are left out this once.
		if i >= len(c.before) || c.before[i].number != cpu.number {
			continue
		}
		var spent [cpuModes]float64
		elapsed := 0.0
		for m, seconds := range cpu.modes {
			spent[m] = max(0, seconds-c.before[i].modes[m]) // the kernel lets idle and iowait step back now and then
			elapsed += spent[m]
		}
		for m, seconds := range spent {
			attrs[0] = attr("cpu.mode", modes[m])
			p.share(cpuUtilization, seconds, elapsed, attrs[:n]...)
		}
	}
}

func (c *collector) emitLoad(p *points) {
	for i, d := range loads {
		p.add(d, creel.Double(c.load[i]))
	}
}

func (c *collector) emitMemory(p *points) {
	m := &c.memory
	p.add(memoryLimit, creel.Int(m.total))
	for _, s := range [...]struct {
		state string
		bytes int64
	}{{"used", m.used}, {"free", m.free}, {"buffers", m.buffers}, {"cached", m.cached}} {
		if s.bytes < 0 {
			continue
		}
		p.add(memoryUsage, creel.Int(s.bytes), attr("system.memory.state", s.state))
		p.share(memoryUtilization, float64(s.bytes), float64(m.total), attr("system.memory.state", s.state))
	}
	if m.available >= 0 {
		p.add(memoryAvailable, creel.Int(m.available))
	}
}

func (c *collector) emitPaging(p *points) {
	for i := range c.paging.devices {
		d := &c.paging.devices[i]
		attrs := [2]creel.Attr{1: attr("system.device", d.name)}
		n := 2
		if d.name == "" {
			n = 1
		}
		total := float64(d.used + d.free)
		attrs[0] = attr("system.paging.state", "used")
		p.add(pagingUsage, creel.Int(d.used), attrs[:n]...)
		p.share(pagingUtilization, float64(d.used), total, attrs[:n]...)
		attrs[0] = attr("system.paging.state", "free")
		p.add(pagingUsage, creel.Int(d.free), attrs[:n]...)
		p.share(pagingUtilization, float64(d.free), total, attrs[:n]...)
	}
	known := func(d *creel.Descriptor, v int64, attrs ...creel.Attr) {
		if v >= 0 {
			p.add(d, creel.Int(v), attrs...)
		}
	}
	known(pagingOperations, c.paging.in, attr("system.paging.fault.type", "major"), attr("system.paging.direction", "in"))
	known(pagingOperations, c.paging.out, attr("system.paging.fault.type", "major"), attr("system.paging.direction", "out"))
	known(pagingFaults, c.paging.major, attr("system.paging.fault.type", "major"))
	known(pagingFaults, c.paging.minor, attr("system.paging.fault.type", "minor"))
}

func (c *collector) emitDisks(p *points) {
	for i := range c.disks {
		d := &c.disks[i]
		device := attr("system.device", d.name)
		for i, name := range diskDirections {
			direction := attr("disk.io.direction", name)
			p.add(diskIO, creel.Int(d.bytes[i]), device, direction)
			p.add(diskOperations, creel.Int(d.operations[i]), device, direction)
			p.add(diskOperationTime, creel.Double(d.seconds[i]), device, direction)
			if !d.partial {
				p.add(diskMerged, creel.Int(d.merged[i]), device, direction)
			}
		}
		if !d.partial {
			p.add(diskIOTime, creel.Double(d.active), device)
		}
	}
}

func (c *collector) emitFilesystems(p *points) {
	for i := range c.filesystems {
		f := &c.filesystems[i]
		attrs := [5]creel.Attr{
			attr("system.device", f.device),
			attr("system.filesystem.type", f.kind),
			attr("system.filesystem.mode", f.mode),
			attr("system.filesystem.mountpoint", f.mountpoint),
		}
		p.add(filesystemLimit, creel.Int(f.used+f.free+f.reserved), attrs[:4]...)
		p.share(filesystemUtilization, float64(f.used), float64(f.used+f.free), attrs[:4]...)
		attrs[4] = attr("system.filesystem.state", "used")
		p.add(filesystemUsage, creel.Int(f.used), attrs[:]...)
		attrs[4] = attr("system.filesystem.state", "free")
		p.add(filesystemUsage, creel.Int(f.free), attrs[:]...)
		attrs[4] = attr("system.filesystem.state", "reserved")
		p.add(filesystemUsage, creel.Int(f.reserved), attrs[:]...)
	}
}

func (c *collector) emitInterfaces(p *points) {
	for i := range c.interfaces {
		f := &c.interfaces[i]
		name := attr("network.interface.name", f.name)
		for i, d := range netDirections {
			direction := attr("network.io.direction", d)
			p.add(networkIO, creel.Int(f.bytes[i]), name, direction)
			// So the conventions have it: this one metric names the interface by system.device.
			p.add(networkPackets, creel.Int(f.packets[i]), attr("system.device", f.name), direction)
			p.add(networkErrors, creel.Int(f.errors[i]), name, direction)
			p.add(networkDropped, creel.Int(f.dropped[i]), name, direction)
		}
	}
}

func (c *collector) emitProcesses(p *points) {
	if c.processes.created >= 0 {
		p.add(processCreated, creel.Int(c.processes.created))
	}
	switch {
	case !c.processes.counted:
	case c.processes.stateless > 0:
		p.add(processCount, creel.Int(c.processes.stateless))
	default:
		for i, n := range c.processes.states {
			p.add(processCount, creel.Int(n), attr("process.state", states[i]))
		}
	}
}
