//go:build linux || darwin || freebsd

package command

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creelhq/creel"
)

// helper is a copy of this test's program, which others cannot change, wherever the original is and whatever the umask.
var helper string

func TestMain(m *testing.M) {
	if mode := os.Getenv("CREEL_TEST_HELPER"); mode != "" {
		help(mode, os.Args[1:])
		syscall.Exit(0) // not os.Exit: the race detector sleeps in it
	}
	syscall.Umask(0o022)
	code, err := func() (int, error) {
		self, err := os.Executable()
		if err != nil {
			return 0, err
		}
		dir, err := os.MkdirTemp("", "creel")
		if err != nil {
			return 0, err
		}
		defer os.RemoveAll(dir)
		helper = filepath.Join(dir, "helper")
		text, err := os.ReadFile(self)
		if err == nil {
			err = os.WriteFile(helper, text, 0o755)
		}
		if err == nil {
			err = os.Chmod(dir, 0o755) // another user can run it
		}
		if err == nil {
			err = os.Setenv("CREEL_TEST_PROGRAM", helper)
		}
		if err != nil {
			return 0, err
		}
		return m.Run(), nil
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// help is what the program does when it is run as a command.
func help(mode string, args []string) {
	switch mode {
	case "echo":
		for _, a := range args {
			fmt.Println(a)
		}
	case "env":
		fmt.Println(strings.Join(os.Environ(), "\n"))
		dir, err := os.Getwd()
		fmt.Println("dir", dir, err)
		n, err := os.Stdin.Read(make([]byte, 1))
		fmt.Println("stdin", n, err)
		fmt.Println("leads its group", syscall.Getpgrp() == os.Getpid())
		groups, err := os.Getgroups()
		fmt.Println("ids", os.Getuid(), os.Getgid(), groups, err)
	case "exit": // CODE STDOUT STDERR…
		fmt.Print(args[1])
		for _, a := range args[2:] {
			fmt.Fprint(os.Stderr, a)
		}
		code, err := strconv.Atoi(args[0])
		if err != nil {
			panic(err)
		}
		syscall.Exit(code)
	case "flood": // endless, or so many lines
		w := bufio.NewWriter(os.Stdout)
		n, endless := 0, true
		if len(args) > 0 {
			n, _ = strconv.Atoi(args[0])
			endless = false
		}
		for i := 0; endless || i < n; i++ {
			fmt.Fprintf(w, "line %d\n", i)
		}
		w.Flush()
	case "polite": // ends when it is asked to
		asked := make(chan os.Signal, 1)
		signal.Notify(asked, syscall.SIGTERM)
		fmt.Println("up")
		<-asked
		fmt.Println("bye")
	case "hold": // FIFO CHILDREN
		hold(args)
	case "leave", "escape": // FIFO: ends when its child is there, which has left the group or not
		c := exec.Command(os.Args[0], args[0], "0")
		c.Env, c.Stderr = []string{"CREEL_TEST_HELPER=hold"}, os.Stderr
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: mode == "escape"}
		up, err := c.StdoutPipe()
		if err == nil {
			err = c.Start()
		}
		if err == nil {
			_, err = up.Read(make([]byte, 1))
		}
		if err != nil {
			panic(err)
		}
		fmt.Println(c.Process.Pid)
	case "agent": // LIST: runs the command "hold" of it
		c := &collector{Config: Config{Run: "hold", Format: "lines"}, list: args[0], grace: killAfter, origin: &creel.Origin{}}
		fmt.Println(c.Collect(context.Background(), nil))
	default:
		panic(mode)
	}
}

// hold says in the FIFO and on standard output that it lives, and has children that do the same, each with one child
// less than it has itself. Only SIGKILL ends them.
func hold(args []string) {
	signal.Ignore(syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT, syscall.SIGPIPE)
	fifo, err := os.OpenFile(args[0], os.O_WRONLY, 0)
	if err != nil {
		panic(err)
	}
	children, err := strconv.Atoi(args[1])
	if err != nil {
		panic(err)
	}
	for range children {
		c := exec.Command(os.Args[0], args[0], strconv.Itoa(children-1))
		c.Stdout, c.Stderr = os.Stdout, os.Stderr
		if err := c.Start(); err != nil {
			panic(err)
		}
	}
	if _, err := fifo.WriteString("."); err != nil {
		panic(err)
	}
	fmt.Println("up")
	for {
		time.Sleep(time.Hour)
	}
}

// fifo is a pipe with a name, in which processes say that they live, and which they keep open as long as they do.
type fifo struct {
	path    string
	r, keep *os.File
}

func newFIFO(t *testing.T) fifo {
	t.Helper()
	f := fifo{path: filepath.Join(t.TempDir(), "fifo")}
	err := syscall.Mkfifo(f.path, 0o600)
	if err == nil {
		f.r, err = os.OpenFile(f.path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	}
	if err == nil {
		f.keep, err = os.OpenFile(f.path, os.O_WRONLY, 0) // without a writer there is nothing to wait for
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.r.Close(); f.keep.Close() })
	return f
}

// await returns when n processes live.
func (f fifo) await(t *testing.T, n int) {
	t.Helper()
	if _, err := io.ReadFull(f.r, make([]byte, n)); err != nil {
		t.Fatal(err)
	}
}

// ended returns when all that lived are dead, and how many they were, without those that were awaited.
func (f fifo) ended(t *testing.T) int {
	t.Helper()
	f.keep.Close()
	all, err := io.ReadAll(f.r)
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// sink keeps what it gets.
type sink struct {
	logs    []creel.Log
	metrics map[string][]creel.Metric
	batches int
}

func (s *sink) Send(_ context.Context, b *creel.Batch) error {
	s.batches++
	switch b.Signal() {
	case creel.Logs:
		s.logs = append(s.logs, b.Logs()...)
	case creel.Metrics:
		for _, m := range b.Metrics() {
			if s.metrics == nil {
				s.metrics = map[string][]creel.Metric{}
			}
			s.metrics[m.Desc.Name] = append(s.metrics[m.Desc.Name], m)
		}
	}
	return nil
}

func (s *sink) TrySend(*creel.Batch) bool { panic("BUG: a collector that may wait does") }

func (s *sink) bodies() []string {
	var list []string
	for _, l := range s.logs {
		list = append(list, l.Body.Str())
	}
	return list
}

// allow writes an allow list with one command, run, and returns the list's path.
func allow(t *testing.T, entry string) string {
	t.Helper()
	list := filepath.Join(t.TempDir(), "commands.yaml")
	if err := os.WriteFile(list, []byte("commands:\n  run: "+entry+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return list
}

// helperEntry returns the entry of the helper in a mode, with more options and arguments.
func helperEntry(mode, options string, args ...string) string {
	for i, a := range args {
		args[i] = strconv.Quote(a)
	}
	return fmt.Sprintf("{path: %q, env: {CREEL_TEST_HELPER: %s}, args: [%s], %s}", helper, mode, strings.Join(args, ", "), options)
}

// open opens the collector with the list.
func open(t *testing.T, list, format string) *collector {
	t.Helper()
	t.Setenv("CREEL_COMMANDS", list)
	c, err := New(Config{Run: "run", Format: format}, creel.Host{})
	if err != nil {
		t.Fatal(err)
	}
	return c.(*collector)
}

// round runs one round of a new collector.
func round(t *testing.T, entry, format string) *sink {
	t.Helper()
	var s sink
	if err := open(t, allow(t, entry), format).Collect(t.Context(), &s); err != nil {
		t.Fatal(err)
	}
	return &s
}
