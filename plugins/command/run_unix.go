//go:build linux || darwin || freebsd

package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// program is a command that was checked.
type program struct {
	entry
	file       string              // what Path leads to
	credential *syscall.Credential // nil: the agent's
}

// prepare checks what e names.
func prepare(e entry) (*program, error) {
	file, err := follow(e.Path)
	if err != nil {
		return nil, fmt.Errorf("check program: %w", err)
	}
	i, err := os.Lstat(file)
	if err != nil {
		return nil, fmt.Errorf("check program: %w", err)
	}
	if !i.Mode().IsRegular() || i.Mode().Perm()&0o111 == 0 {
		return nil, fmt.Errorf("check program: %s is not an executable file: chmod a+x makes one of a script or program", e.Path)
	}
	p := &program{entry: e, file: file}
	p.credential, err = credential(e.User)
	return p, err
}

// credential returns how to become a user, with all their groups; nil if there is nothing to do.
func credential(name string) (*syscall.Credential, error) {
	if name == "" {
		return nil, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		byID, idErr := user.LookupId(name)
		if idErr != nil {
			return nil, fmt.Errorf("find user of command: %w", err)
		}
		u = byID
	}
	me := os.Geteuid()
	if u.Uid == strconv.Itoa(me) {
		return nil, nil
	}
	if me != 0 {
		return nil, fmt.Errorf("switch to user %s: the agent runs as user %d, and only root can switch; leave user out, or run the agent as root", name, me)
	}
	groups, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("find groups of user %s: %w", name, err)
	}
	c := &syscall.Credential{}
	for _, id := range append([]string{u.Uid, u.Gid}, groups...) {
		n, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("read ids of user %s: %w", name, err)
		}
		c.Groups = append(c.Groups, uint32(n))
	}
	c.Uid, c.Gid, c.Groups = c.Groups[0], c.Groups[1], c.Groups[2:]
	return c, nil
}

var (
	errTimeout  = errors.New("was ended after its timeout")
	errOverflow = errors.New("was ended because it printed more than max_output")
)

// run runs the program until it ends, and ends it after its timeout or when ctx is done. Then nothing of its process
// group is left, and nothing to wait for; what has left the group can keep the output open no longer than grace. It
// fails if ctx is done or the program could not be started.
func (p *program) run(ctx context.Context, grace time.Duration) (*result, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeoutCause(ctx, p.Timeout, errTimeout)
	defer cancel()
	limited, end := context.WithCancelCause(limited)
	defer end(nil)

	out := &head{max: int(p.MaxOutput)}
	if p.Overflow == "kill" {
		out.full = func() { end(errOverflow) }
	}
	stderr := &tail{max: 4 << 10}
	cmd := &exec.Cmd{
		Path: p.file, Args: append([]string{p.Path}, p.Args...), Env: p.environ(), Dir: p.Dir,
		Stdout: out, Stderr: stderr, WaitDelay: grace, SysProcAttr: attributes(),
	}
	cmd.SysProcAttr.Setsid = true // which makes a process group, too, and has no terminal
	cmd.SysProcAttr.Credential = p.credential

	// The kernel ends the program when the thread that started it ends, not the process: this thread must stay.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start program: %w", err)
	}
	ended, stopped := make(chan struct{}), make(chan error, 1)
	go func() { stopped <- stop(limited, cmd.Process.Pid, grace, ended) }()
	var why error
	err := wait(cmd, func() {
		close(ended)
		why = <-stopped
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // whoever is left; mostly nobody is
	})
	r := &result{output: out.buf, stderr: string(stderr.buf), took: time.Since(start), cut: out.cut}
	if cmd.ProcessState == nil {
		return nil, fmt.Errorf("wait for program: %w", err)
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if r.exit = cmd.ProcessState.ExitCode(); r.exit < 0 {
		r.exit = 128 + int(cmd.ProcessState.Sys().(syscall.WaitStatus).Signal())
	}
	switch {
	case errors.Is(why, errTimeout):
		r.killed = fmt.Sprintf("%v of %v", why, p.Timeout)
	case p.Overflow == "kill" && out.cut: // it may have ended in the same moment
		r.killed = errOverflow.Error()
	}
	return r, nil
}

// stop waits until the program has ended, or ctx is done: then it ends the whole process group, and returns why.
func stop(ctx context.Context, group int, grace time.Duration, ended <-chan struct{}) error {
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	}
	_ = syscall.Kill(-group, syscall.SIGTERM)
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
		_ = syscall.Kill(-group, syscall.SIGKILL)
	}
	return context.Cause(ctx)
}

// head is a writer that keeps the beginning of what is written and takes the rest.
type head struct {
	max  int
	full func() // called when there is more; may be nil
	buf  []byte
	cut  bool
}

func (h *head) Write(p []byte) (int, error) {
	n := min(len(p), h.max-len(h.buf))
	h.buf = append(h.buf, p[:n]...)
	if n < len(p) && !h.cut {
		if h.cut = true; h.full != nil {
			h.full()
		}
	}
	return len(p), nil
}

// tail is a writer that keeps the end of what is written.
type tail struct {
	max int
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - t.max; over > 0 {
		t.buf = bytes.Clone(t.buf[over:])
	}
	return len(p), nil
}
