//go:build linux || darwin || freebsd

package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creelhq/creel"
)

// noChildren wants that everything this process has started was waited for.
func noChildren(t *testing.T) {
	t.Helper()
	if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); !errors.Is(err, syscall.ECHILD) {
		t.Errorf("a child is left, perhaps as a zombie: %d, %v", pid, err)
	}
}

func TestLines(t *testing.T) {
	s := round(t, helperEntry("echo", "", "one", "$HOME `id` *", "", "three\nfour"), "lines")
	if got, want := s.bodies(), []string{"one", "$HOME `id` *", "three", "four"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if name, _ := s.logs[0].Attrs.Get("command.name"); name.Str() != "run" {
		t.Errorf("attributes are %v", s.logs[0].Attrs)
	}
	if m := s.metrics["command.exit_code"]; len(m) != 1 || m[0].Value.Kind() != creel.ValueInt || m[0].Value.Int() != 0 {
		t.Errorf("exit code is %+v", m)
	}
	if m := s.metrics["command.duration"]; len(m) != 1 || m[0].Value.Double() <= 0 {
		t.Errorf("duration is %+v", m)
	}
	noChildren(t)
}

func TestEnvironment(t *testing.T) {
	t.Setenv("SECRET_OF_THE_AGENT", "1")
	got := round(t, helperEntry("env", ""), "lines").bodies()
	groups, err := os.Getgroups()
	want := []string{
		"CREEL_TEST_HELPER=env", "LANG=C.UTF-8", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"dir / <nil>", "stdin 0 EOF", "leads its group true", fmt.Sprintln("ids", os.Getuid(), os.Getgid(), groups, err),
	}
	want[6] = strings.TrimSpace(want[6])
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Setenv("CREEL_COMMANDS", allow(t, helperEntry("env", "user: root")))
		if _, err := New(Config{Run: "run"}, creel.Host{}); err == nil || !strings.Contains(err.Error(), "only root can switch") {
			t.Errorf("got %v", err)
		}
		return
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Skip("there is no user nobody")
	}
	for _, name := range []string{"nobody", nobody.Uid} {
		s := round(t, helperEntry("env", "user: "+strconv.Quote(name)+", dir: "+filepath.Dir(helper)), "lines").bodies()
		if !slices.Contains(s, "dir "+filepath.Dir(helper)+" <nil>") || !strings.HasPrefix(s[len(s)-1], "ids "+nobody.Uid+" "+nobody.Gid+" [") {
			t.Errorf("as %s: %q", name, s)
		}
	}
}

func TestFailureIsAResult(t *testing.T) {
	long := strings.Repeat("x", 5000) + "the end"
	s := round(t, helperEntry("exit", "", "7", "before\n", "oh ", long), "lines")
	if len(s.logs) != 2 || s.logs[0].Body.Str() != "before" {
		t.Fatalf("got %q", s.bodies())
	}
	l := s.logs[1]
	stderr, _ := l.Attrs.Get("command.stderr")
	code, _ := l.Attrs.Get("command.exit_code")
	if l.Body.Str() != "command run ended with exit code 7" || l.Severity != creel.SeverityError || l.Event != "command.failed" || code.Int() != 7 {
		t.Errorf("got %+v", l)
	}
	if got := stderr.Str(); len(got) != 4<<10 || !strings.HasSuffix(got, "the end") {
		t.Errorf("of stderr %d bytes were kept: …%q", len(got), got[max(0, len(got)-10):])
	}
	if m := s.metrics["command.exit_code"]; m[0].Value.Int() != 7 {
		t.Errorf("exit code is %+v", m)
	}
}

func TestCannotRun(t *testing.T) {
	notAProgram := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(notAProgram, []byte("#!/there/is/none\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	f := func(entry, want string) {
		t.Helper()
		var s sink
		err := open(t, allow(t, entry), "lines").Collect(t.Context(), &s)
		if err == nil || !strings.Contains(err.Error(), want) || s.batches > 0 {
			t.Errorf("got %v, %d batches", err, s.batches)
		}
	}
	f("{path: "+notAProgram+"}", "run command run: start program: ")
	f(helperEntry("echo", "dir: /there/is/none"), "run command run: start program: ")
	noChildren(t)
}

func TestOverflow(t *testing.T) {
	s := round(t, helperEntry("flood", "max_output: 8KiB", "20000"), "lines") // more than a pipe holds
	last := s.logs[len(s.logs)-1]
	if last.Event != "command.cut" || last.Severity != creel.SeverityWarn || !strings.Contains(last.Body.Str(), "only the first 8192 bytes") {
		t.Errorf("got %+v", last)
	}
	if n := len(s.logs); n < maxBatch || s.logs[n-2].Body.Str() != fmt.Sprintf("line %d", n-2) || s.batches < 3 {
		t.Errorf("got %d logs in %d batches, the last is %q", n, s.batches, s.logs[n-2].Body.Str())
	}
	if m := s.metrics["command.exit_code"]; m[0].Value.Int() != 0 {
		t.Errorf("exit code is %+v", m)
	}
	s = round(t, helperEntry("flood", "max_output: 8KiB, overflow: kill"), "lines")
	last = s.logs[len(s.logs)-1]
	if last.Event != "command.failed" || !strings.Contains(last.Body.Str(), "printed more than max_output") {
		t.Errorf("got %+v", last)
	}
	if m := s.metrics["command.exit_code"]; m[0].Value.Int() != 128+15 {
		t.Errorf("exit code is %+v", m)
	}
	noChildren(t)
}

// The program, its children and theirs: five that only SIGKILL ends.
const family = 5

func TestTimeoutKillsAll(t *testing.T) {
	for timeout := 250 * time.Millisecond; ; timeout *= 2 { // long enough for all to be there, on a slow machine too
		f := newFIFO(t)
		c := open(t, allow(t, helperEntry("hold", "timeout: "+timeout.String(), f.path, "2")), "lines")
		c.grace = 20 * time.Millisecond
		var s sink
		if err := c.Collect(t.Context(), &s); err != nil {
			t.Fatal(err)
		}
		n := f.ended(t)
		noChildren(t)
		if n < family && timeout < time.Minute {
			continue
		}
		last := s.logs[len(s.logs)-1]
		if n != family || last.Body.Str() != "command run was ended after its timeout of "+timeout.String() || len(s.logs) != family+1 {
			t.Errorf("%d of %d were there and are killed; logs are %q", n, family, s.bodies())
		}
		if m := s.metrics["command.exit_code"]; m[0].Value.Int() != 128+9 {
			t.Errorf("exit code is %+v", m)
		}
		return
	}
}

func TestCancelKillsAll(t *testing.T) {
	f := newFIFO(t)
	c := open(t, allow(t, helperEntry("hold", "timeout: 1h", f.path, "2")), "lines")
	c.grace = 20 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	var s sink
	go func() { done <- c.Collect(ctx, &s) }()
	f.await(t, family)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) || s.batches > 0 {
		t.Errorf("got %v, %d batches", err, s.batches)
	}
	f.ended(t)
	noChildren(t)
	if err := c.Collect(ctx, &s); !errors.Is(err, context.Canceled) {
		t.Errorf("a round of a context that is done: %v", err)
	}
}

func TestPoliteProgramEndsByItself(t *testing.T) {
	for timeout := 100 * time.Millisecond; timeout < time.Minute; timeout *= 2 {
		c := open(t, allow(t, helperEntry("polite", "timeout: "+timeout.String())), "lines")
		c.grace = time.Hour
		var s sink
		if err := c.Collect(t.Context(), &s); err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(s.bodies(), "up") {
			continue // it was not there yet
		}
		if got := s.bodies(); len(got) != 3 || got[1] != "bye" || s.metrics["command.exit_code"][0].Value.Int() != 0 {
			t.Errorf("got %q", got)
		}
		return
	}
	t.Error("it was never there")
}

// TestLeftBehind: what a program leaves in its group ends with it, what has left the group does not hold the round up.
func TestLeftBehind(t *testing.T) {
	f := newFIFO(t)
	s := round(t, helperEntry("leave", "", f.path), "lines")
	if n := f.ended(t); n != 1 || len(s.logs) != 1 {
		t.Errorf("%d were left; logs are %q", n, s.bodies())
	}
	f = newFIFO(t)
	c := open(t, allow(t, helperEntry("escape", "", f.path)), "lines")
	c.grace = 20 * time.Millisecond
	s = &sink{}
	if err := c.Collect(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(s.bodies()[0])
	if err == nil {
		err = syscall.Kill(pid, syscall.SIGKILL)
	}
	if err != nil {
		t.Fatal(err)
	}
	if n := f.ended(t); n != 1 || s.metrics["command.exit_code"][0].Value.Int() != 0 {
		t.Errorf("%d had left; logs are %q", n, s.bodies())
	}
	noChildren(t)
}

// agentKilled runs a command in another process, and kills that.
func agentKilled(t *testing.T, f fifo) {
	t.Helper()
	list := filepath.Join(t.TempDir(), "commands.yaml")
	if err := os.WriteFile(list, []byte("commands: {hold: "+helperEntry("hold", "", f.path, "0")+"}"), 0o644); err != nil {
		t.Fatal(err)
	}
	agent := exec.Command(helper, list)
	agent.Env = []string{"CREEL_TEST_HELPER=agent"}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	f.await(t, 1)
	if err := agent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = agent.Wait()
}
