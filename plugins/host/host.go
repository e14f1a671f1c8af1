// Package host collects metrics of the machine the agent runs on: processor, memory, disks, file systems, network and
// processes, named by OpenTelemetry's semantic conventions for system metrics.
//
// On Linux it reads /proc and /sys itself, which costs a fraction of a millisecond a round; elsewhere a library asks the
// operating system. It walks no process's descriptors and never touches a network file system, which could hang. It
// knows nothing of intervals: a round is one call of Collect.
package host

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
)

//go:embed example.yaml
var example string

// Plugin is the host collector.
var Plugin = creel.NewPolled("host", "Collects metrics of this machine: CPU, load, memory, swap, disks, file systems, network and processes.", New).WithExample(example)

// Config is the options of the collector.
type Config struct {
	Collect []string `doc:"Which metrics to collect." default:"system,cpu,load,memory,swap,disk,filesystem,network,processes" enum:"system|cpu|load|memory|swap|disk|filesystem|network|processes"`
	PerCPU  bool     `doc:"Report each logical CPU by itself, not all of them together." default:"false"`
}

// Validate refuses to collect nothing, or one thing twice.
func (c Config) Validate() error {
	if len(c.Collect) == 0 {
		return config.FieldError("collect", errors.New("must name at least one"))
	}
	for i, name := range c.Collect {
		if slices.Contains(c.Collect[:i], name) {
			return config.FieldError("collect", fmt.Errorf("names %s twice", name))
		}
	}
	return nil
}

// countEvery is how often processes are counted at most. Their states stand in a file each, so that a count costs more
// than everything else together.
// It is a little less than the ten seconds of a usual interval, whose rounds may come early.
const countEvery = 9 * time.Second

// New returns a collector of which each Collect is one round. A source that fails is named in the log once, and the rest
// is collected.
func New(c Config, h creel.Host) (creel.Collector, error) {
	return newCollector(c, h, newMachine("/"))
}

func newCollector(cfg Config, h creel.Host, m *machine) (*collector, error) {
	c := &collector{
		host:    h,
		machine: m,
		perCPU:  cfg.PerCPU,
		origin: &creel.Origin{
			Resource: h.Resource,
			Scope:    creel.Scope{Name: "github.com/creelhq/creel/plugins/host", SchemaURL: schemaURL},
		},
	}
	all := map[string]source{
		"system":     {read: c.readUptime, emit: c.emitUptime},
		"cpu":        {read: c.readCPU, emit: c.emitCPU},
		"load":       {read: c.readLoad, emit: c.emitLoad},
		"memory":     {read: c.readMemory, emit: c.emitMemory},
		"swap":       {read: c.readPaging, emit: c.emitPaging},
		"disk":       {read: c.readDisks, emit: c.emitDisks},
		"filesystem": {read: c.readFilesystems, emit: c.emitFilesystems},
		"network":    {read: c.readInterfaces, emit: c.emitInterfaces},
		"processes":  {read: c.readProcesses, emit: c.emitProcesses},
	}
	for _, name := range cfg.Collect {
		s, ok := all[name]
		if !ok {
			return nil, fmt.Errorf("choose what to collect: there is no %q", name)
		}
		s.name = name
		c.sources = append(c.sources, s)
	}
	return c, nil
}

// A source is one of the things one can collect.
type source struct {
	name string
	read func(context.Context) error // asks the operating system
	emit func(*points)               // makes points of what was read; not called if that failed
	err  error                       // of the last read
}

type collector struct {
	host    creel.Host
	origin  *creel.Origin
	machine *machine
	perCPU  bool

	mu      sync.Mutex // guards what follows: a round is alone
	sources []source
	boot    time.Time // zero until known
	now     time.Time // of this round

	uptime       float64    // seconds
	cpus, before []cpuTimes // of this round and of the one before
	load         [3]float64 // over 1, 5 and 15 minutes
	memory       memory
	paging       paging
	disks        []disk
	filesystems  []filesystem
	interfaces   []netInterface
	processes    processes
	counted      time.Time // when the processes were counted
}

// Collect does one round. It fails only if nothing could be collected or ctx is done.
func (c *collector) Collect(ctx context.Context, out creel.Sink) error {
	b, err := c.round(ctx, time.Now())
	if err != nil || b == nil {
		return err
	}
	return out.Send(ctx, b)
}

// round reads everything and returns it as a batch, nil when there is nothing.
func (c *collector) round(ctx context.Context, now time.Time) (*creel.Batch, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = now
	if c.boot.IsZero() {
		// Once only: the kernel derives it from the clock, and a start that moves with the clock looks like a restart. Where
		// it cannot be had the points go without.
		c.boot, _ = c.machine.boot()
	}
	var errs []error
	for i := range c.sources {
		if err := creel.Yield(ctx); err != nil {
			return nil, err
		}
		s := &c.sources[i]
		err := s.read(ctx)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		c.note(s, err)
		if err != nil {
			errs = append(errs, fmt.Errorf("read %s: %w", s.name, err))
		}
	}
	if len(errs) == len(c.sources) {
		return nil, errors.Join(errs...)
	}
	p := points{records: c.host.Memory.NewRecords(), origin: c.origin, time: now.UnixNano()}
	if !c.boot.IsZero() {
		p.start = c.boot.UnixNano()
	}
	for i := range c.sources {
		if s := &c.sources[i]; s.err == nil {
			s.emit(&p)
		}
	}
	return creel.NewBatch(creel.Metrics, p.records), nil
}

// note keeps the outcome of s and logs it when it is news.
func (c *collector) note(s *source, err error) {
	switch {
	case err != nil && s.err == nil:
		c.host.Log.Warn("cannot collect; the rest goes on", "what", s.name, "error", err)
	case err == nil && s.err != nil:
		c.host.Log.Info("collecting again", "what", s.name)
	}
	s.err = err
}

func (c *collector) readUptime(context.Context) (err error) {
	c.uptime, err = c.machine.uptime()
	return err
}

func (c *collector) readCPU(context.Context) (err error) {
	c.cpus, c.before = c.before, c.cpus
	c.cpus, err = c.machine.cpu(c.cpus[:0], c.perCPU)
	if err != nil {
		c.cpus = c.cpus[:0] // nothing to compare the next round with
	}
	return err
}

func (c *collector) readLoad(context.Context) (err error) {
	c.load, err = c.machine.load()
	return err
}

func (c *collector) readMemory(context.Context) (err error) {
	c.memory, err = c.machine.memory()
	return err
}

func (c *collector) readPaging(context.Context) error { return c.machine.paging(&c.paging) }

func (c *collector) readDisks(context.Context) (err error) {
	c.disks, err = c.machine.disks(c.disks[:0])
	return err
}

func (c *collector) readFilesystems(context.Context) (err error) {
	c.filesystems, err = c.machine.filesystems(c.filesystems[:0])
	return err
}

func (c *collector) readInterfaces(context.Context) (err error) {
	c.interfaces, err = c.machine.interfaces(c.interfaces[:0])
	return err
}

func (c *collector) readProcesses(ctx context.Context) (err error) {
	c.processes.counted = c.counted.IsZero() || c.now.Sub(c.counted) >= countEvery
	if c.processes.counted {
		c.counted = c.now
	}
	return c.machine.processes(ctx, &c.processes)
}
