//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/report"
)

// process is an agent that runs on the first processor.
type process struct {
	cmd  *exec.Cmd
	data string
}

func (b *bench) start(config string) (*process, error) {
	dir, err := os.MkdirTemp(b.dir, "a")
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "c.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	p := &process{data: filepath.Join(dir, "d")}
	p.cmd = b.pinned("exec", b.agent, "-c", file, "--data", p.data)
	p.cmd.Stderr = nil // its log
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(p.data, "endpoints.json")); err == nil {
			return p, b.profile(p)
		}
		if time.Now().After(deadline) {
			p.stop()
			return nil, errors.New("the agent does not start")
		}
	}
}

// profile begins to take a CPU profile of p, if profiles are wanted.
func (b *bench) profile(p *process) error {
	if b.profiles == "" {
		return nil
	}
	f, err := os.Create(filepath.Join(b.profiles, strings.NewReplacer("/", "-", " ", "-").Replace(b.row)+".pprof"))
	if err != nil {
		return err
	}
	go func() {
		defer f.Close()
		resp, err := p.client().Get("http://agent/debug/pprof/profile?seconds=2")
		if err == nil {
			_, err = io.Copy(f, resp.Body)
			err = errors.Join(err, resp.Body.Close())
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "profile:", err)
		}
	}()
	return nil
}

// client talks to the agent's admin endpoint.
func (p *process) client() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", agent.AdminSocket(p.data))
	}}}
}

func (p *process) stop() {
	p.cmd.Process.Signal(syscall.SIGTERM)
	p.cmd.Wait() // how it ends does not matter any more
}

// ledger asks the agent for its books.
func (p *process) ledger() (l report.Ledger, err error) {
	resp, err := p.client().Get("http://agent/ledger")
	if err != nil {
		return l, err
	}
	defer resp.Body.Close()
	return l, json.NewDecoder(resp.Body).Decode(&l)
}

// delivered returns how many records have arrived; it is an error if any was dropped.
func (p *process) delivered() (int, error) {
	l, err := p.ledger()
	if err != nil {
		return 0, err
	}
	n := 0
	for _, st := range l.Spools {
		n += int(st.Delivered)
		if len(st.Dropped) > 0 {
			return n, fmt.Errorf("records were dropped: %v", st.Dropped)
		}
	}
	for _, pl := range l.Pipelines {
		for _, x := range pl.Exporters {
			n += int(x.Delivered)
			if len(x.Dropped) > 0 {
				return n, fmt.Errorf("records were dropped: %v", x.Dropped)
			}
		}
	}
	return n, nil
}

// usage reads what the agent has used so far.
func (p *process) usage() (cpu time.Duration, rss int64, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, 0, err
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+2:]))
	for _, f := range fields[11:13] { // utime and stime, in ticks of 10 ms
		ticks, err := strconv.Atoi(f)
		if err != nil {
			return 0, 0, err
		}
		cpu += time.Duration(ticks) * 10 * time.Millisecond
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, 0, err
	}
	_, after, alive := strings.Cut(string(status), "VmHWM:")
	if !alive {
		return 0, 0, errors.New("the process has ended")
	}
	kib, err := strconv.ParseInt(strings.Fields(after)[0], 10, 64)
	return cpu, kib << 10, err
}

// until waits until n records are delivered.
func (p *process) until(n int) error {
	last, progress := 0, time.Now()
	for {
		got, err := p.delivered()
		switch {
		case err != nil:
			return err
		case got == n:
			return nil
		case got > n:
			return fmt.Errorf("%d records were delivered, more than the %d there are", got, n)
		case got > last:
			last, progress = got, time.Now()
		case time.Since(progress) > 30*time.Second:
			return fmt.Errorf("stuck at %d of %d records", got, n)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (p *process) figure(n int, began time.Time) (figure, error) {
	wall := time.Since(began)
	cpu, rss, err := p.usage()
	return figure{n, wall, cpu, rss}, err
}
