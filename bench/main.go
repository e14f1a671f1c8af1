//go:build linux

package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/creelhq/creel"
)

func main() {
	// A child: what is measured runs alone on the first processor.
	if len(os.Args) > 3 && os.Args[1] == "pinned" {
		if err := runPinned(os.Args[2], os.Args[3:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	lines := flag.Int("lines", 3_000_000, "lines of the file, and records of what is sent over the network")
	only := flag.String("only", "", "run only rows whose name contains this")
	idle := flag.Duration("idle", 20*time.Second, "how long to watch an agent that only measures its host")
	fleet := flag.Int("fleet", 2000, "agents of a hub, beside its own; each is a connection, so that the hub and this program need as many descriptors")
	profiles := flag.String("profiles", "", "keep a CPU profile of each row's first two seconds in this directory")
	flag.Parse()
	b := &bench{lines: *lines, idlers: 10_000, fleet: *fleet, only: *only, idle: *idle, profiles: *profiles}
	if err := b.run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench runs the rows one after the other and prints a table.
type bench struct {
	lines  int
	idlers int  // files that an idle agent follows
	fleet  int  // agents of a hub, beside its own
	brief  bool // only the first of the rows that are alike
	only   string
	idle   time.Duration

	profiles string // directory; "" for none
	row      string // the name of the one that runs

	dir   string            // of everything
	agent string            // creel-agent's binary
	files map[string]string // by the names of their shapes
	limit float64
}

// figure is what one row has cost.
type figure struct {
	records int
	wall    time.Duration
	cpu     time.Duration
	rss     int64 // bytes, at most
}

func (b *bench) run() error {
	dir, err := os.MkdirTemp("", "creel-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b.dir, b.agent, b.files = dir, filepath.Join(dir, "creel-agent"), map[string]string{}
	if runtime.NumCPU() > 1 { // the sink and the load stay off the first processor
		others := unix.CPUSet{}
		for cpu := 1; cpu < runtime.NumCPU(); cpu++ {
			others.Set(cpu)
		}
		if err := pinThreads(&others); err != nil {
			return err
		}
	}
	fmt.Println("building the agent …")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", b.agent, "github.com/creelhq/creel/cmd/creel-agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build agent: %w: %s", err, out)
	}
	fmt.Printf("%s, %d processors; what is measured has one of them\n\n", runtime.GOARCH, runtime.NumCPU())
	fmt.Printf("%-42s %12s %12s %8s %9s\n", "", "records/s", "CPU-s/M", "/ limit", "RSS MiB")
	for _, r := range b.rows() {
		if !strings.Contains(r.name, b.only) || b.brief && slices.Contains(alike, r.name) {
			continue
		}
		b.row = r.name
		f, err := r.run()
		if err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
		b.print(r, f)
	}
	if strings.Contains("encodings", b.only) {
		if err := b.encodings(); err != nil {
			return err
		}
	}
	if strings.Contains("pool", b.only) {
		b.runPool()
	}
	if strings.Contains("hub", b.only) {
		return b.runHub()
	}
	return nil
}

func (b *bench) print(r row, f figure) {
	if f.records == 0 { // an agent that only measures
		fmt.Printf("%-42s %12s %11.2f%% %8s %9.1f\n", r.name, "", 100*f.cpu.Seconds()/f.wall.Seconds(), "", float64(f.rss)/(1<<20))
		return
	}
	cost := f.cpu.Seconds() / float64(f.records) * 1e6
	if r.isLimit {
		b.limit = cost
	}
	ratio := ""
	if b.limit > 0 {
		ratio = fmt.Sprintf("%.2f", cost/b.limit)
	}
	fmt.Printf("%-42s %12.0f %12.3f %8s %9.1f\n", r.name, float64(f.records)/f.wall.Seconds(), cost, ratio, float64(f.rss)/(1<<20))
}

// row is one line of the table.
type row struct {
	name    string
	isLimit bool // later rows are compared with it
	run     func() (figure, error)
}

// alike are the rows that differ from others only in what is sent, not in how it is measured.
var alike = []string{
	"limit: the same and encode", "limit: the same, zstd", "limit: the same, gzip", "file → OTLP/gRPC", "file → OTLP/HTTP, zstd", "file → OTLP/HTTP, gzip",
	"file → OTLP/HTTP, disk queue, ack: disk", "CRI container logs → OTLP/HTTP", "file → parse access log → OTLP/HTTP",
	"OTLP/HTTP traces in → out", "OTLP/HTTP metrics in → out", "OTLP/GRPC logs in → out", "OTLP/GRPC metrics in → out",
}

func (b *bench) rows() []row {
	rows := []row{
		{"limit: read and split", false, func() (figure, error) { return b.limitOf("read") }},
		{"limit: the same and encode", false, func() (figure, error) { return b.limitOf("encode") }},
		{"limit: the same and send over loopback", true, func() (figure, error) { return b.limitOf("send") }},
		{"limit: the same, zstd", false, func() (figure, error) { return b.limitOf("zstd") }},
		{"limit: the same, gzip", false, func() (figure, error) { return b.limitOf("gzip") }},
	}
	file := func(name string, s shape, protocol, compression, options, processors string) {
		rows = append(rows, row{name, false, func() (figure, error) { return b.fromFile(s, protocol, compression, options, processors) }})
	}
	file("file → OTLP/HTTP", plainLines, "http", "none", "", "")
	file("file → OTLP/gRPC", plainLines, "grpc", "none", "", "")
	file("file → OTLP/HTTP, zstd", plainLines, "http", "zstd", "", "")
	file("file → OTLP/HTTP, gzip", plainLines, "http", "gzip", "", "")
	rows = append(rows,
		row{"file → OTLP/HTTP, disk queue, ack: process", false, func() (figure, error) { return b.spooled("process") }},
		row{"file → OTLP/HTTP, disk queue, ack: disk", false, func() (figure, error) { return b.spooled("disk") }},
		row{"disk queue → OTLP/HTTP, replay", false, b.replay},
	)
	file("CRI container logs → OTLP/HTTP", criLines, "http", "none", "format: cri", "")
	file("file → parse JSON → OTLP/HTTP", jsonLines, "http", "none", "", "parse: {format: json}")
	file("file → parse access log → OTLP/HTTP", accessLines, "http", "none", "", "parse: {format: nginx}")
	for _, protocol := range []string{"http", "grpc"} {
		for _, signal := range []creel.Signal{creel.Logs, creel.Traces, creel.Metrics} {
			rows = append(rows, row{"OTLP/" + strings.ToUpper(protocol) + " " + signal.String() + " in → out", false, func() (figure, error) { return b.relay(protocol, signal, "") }})
		}
	}
	return append(rows,
		row{"OTLP/GRPC logs, one attribute, one filter", false, func() (figure, error) {
			return b.relay("grpc", creel.Logs, `transform: {set: {'attributes["cluster"]': '"prod"'}}, filter: {drop: 'severity < INFO'}`)
		}},
		row{"host every 1 s (CPU, not CPU-s/M)", false, b.hostOnly},
		row{fmt.Sprintf("%d idle files (CPU, not CPU-s/M)", b.idlers), false, func() (figure, error) { return b.idleFiles(b.idlers) }},
	)
}

// lines returns the file of lines of a shape, which is written when first asked for.
func (b *bench) linesOf(s shape) (string, error) {
	if path, ok := b.files[s.name]; ok {
		return path, nil
	}
	path := filepath.Join(b.dir, s.name+".log")
	if err := writeLines(path, s, b.lines); err != nil {
		return "", err
	}
	b.files[s.name] = path
	return path, nil
}

// pinned starts this program again on the first processor, to become or do what args say.
func (b *bench) pinned(args ...string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		self = os.Args[0]
	}
	cmd := exec.Command(self, append([]string{"pinned"}, args...)...)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	cmd.Stderr = os.Stderr
	return cmd
}

// pinThreads keeps all threads of this process on some processors.
func pinThreads(set *unix.CPUSet) error {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range threads {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(id, set); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("choose processors: %w", err)
		}
	}
	return nil
}

// runPinned is the child: it moves to the first processor and becomes another program, or does a limit's work.
func runPinned(what string, args []string) error {
	first := unix.CPUSet{}
	first.Set(0)
	if err := pinThreads(&first); err != nil {
		return err
	}
	if what == "exec" {
		runtime.LockOSThread()
		if err := unix.SchedSetaffinity(0, &first); err != nil {
			return err
		}
		return syscall.Exec(args[0], args, os.Environ())
	}
	return limitWork(what, args[0], args[1])
}

// limitOf runs one of the limits in a process of its own.
func (b *bench) limitOf(what string) (figure, error) {
	file, err := b.linesOf(plainLines)
	if err != nil {
		return figure{}, err
	}
	s, err := newSink()
	if err != nil {
		return figure{}, err
	}
	defer s.close()
	cmd := b.pinned(what, file, s.http)
	began := time.Now()
	if err := cmd.Run(); err != nil {
		return figure{}, err
	}
	u := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return figure{b.lines, time.Since(began), cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), u.Maxrss << 10}, nil
}
