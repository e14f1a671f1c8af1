package requires

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// order is that of the guards.
var order = []string{"memory", "disk", "descriptors", "paths", "ports", "endpoints"}

// A reader returns how much is free, and of what.
type reader func() (free int64, of string, err error)

// readers ask the system.
type readers struct {
	memory, descriptors reader
	disk                func(dir string) (int64, error)
}

var system = readers{memory: func() (int64, string, error) { return memory("/") }, descriptors: descriptors, disk: diskFree}

func (g *Guards) itemsOf(c Config) (list []item) {
	add := func(guard, name string, check func(context.Context, bool) error) {
		if i := (item{guard, name, check}); !slices.ContainsFunc(list, func(o item) bool { return o.key() == i.key() }) {
			list = append(list, i)
		}
	}
	if c.Memory > 0 {
		add("memory", fmt.Sprint("memory of ", c.Memory), enough(int64(c.Memory), perhaps(g.read.memory), size, " of memory",
			"stop something else, give the agent more, or lower agent.requires.memory"))
	}
	if c.Disk > 0 {
		add("disk", fmt.Sprintf("the file system of %s, which must have %v,", g.dir, c.Disk), enough(int64(c.Disk), g.disk, size, "",
			"delete something there, name another directory with --data, or lower agent.requires.disk"))
	}
	if c.Descriptors > 0 {
		add("descriptors", fmt.Sprint("descriptors, of which there must be ", c.Descriptors), enough(int64(c.Descriptors), perhaps(g.read.descriptors), number, " file descriptors",
			"raise the limit (LimitNOFILE= of a systemd unit, ulimit -n), or lower agent.requires.descriptors"))
	}
	for _, p := range c.Paths {
		add("paths", p, func(context.Context, bool) error { return path(p) })
	}
	for _, a := range c.Ports {
		add("ports", a, func(ctx context.Context, _ bool) error { return g.port(ctx, a) })
	}
	for _, a := range c.Endpoints {
		add("endpoints", a, func(ctx context.Context, _ bool) error { return endpoint(ctx, a, c) })
	}
	return list
}

// enough returns the check of an amount.
func enough(need int64, read reader, write func(int64) string, what, advice string) func(context.Context, bool) error {
	return func(_ context.Context, failing bool) error {
		free, of, err := read()
		if err != nil {
			return err
		}
		least := need
		if failing {
			least += (need + 9) / 10
		}
		switch {
		case free >= least:
			return nil
		case free >= need:
			return fmt.Errorf("%s%s are free %s, which is no less than %s, but after less than that it takes %s; %s", write(free), what, of, write(need), write(least), advice)
		}
		return fmt.Errorf("%s%s are free %s, but %s must be; %s", write(free), what, of, write(need), advice)
	}
}

// perhaps makes unknown what cannot be read.
func perhaps(read reader) reader {
	return func() (free int64, of string, err error) {
		if free, of, err = read(); err != nil {
			err = &unknown{err}
		}
		return free, of, err
	}
}

func number(n int64) string { return strconv.FormatInt(n, 10) }

func size(n int64) string {
	if n >= 10<<30 {
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}

func (g *Guards) disk() (int64, string, error) {
	free, err := g.read.disk(g.dir)
	if err != nil {
		return 0, "", fmt.Errorf("ask how much is free on the file system of %s: %w", g.dir, err)
	}
	return free, "on the file system of " + g.dir, nil
}

// path checks a path, or a pattern of paths.
func path(p string) error {
	err := readable(p)
	if err == nil || !strings.ContainsAny(p, "*?[") {
		return explained(p, err)
	}
	matches, err := filepath.Glob(p)
	if err == nil && len(matches) == 0 {
		return fmt.Errorf("nothing matches %s; create it, or change agent.requires.paths", p)
	}
	for _, m := range matches {
		p = m
		if err = readable(m); err == nil {
			return nil
		}
	}
	return explained(p, err)
}

func explained(p string, err error) error {
	var in *fs.PathError // which names the path once more
	if errors.As(err, &in) {
		err = in.Err
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s does not exist; create or mount it, or change agent.requires.paths", p)
	}
	return fmt.Errorf("the agent cannot read %s: %w; change that, or agent.requires.paths", p, err)
}

// readable opens files and directories; what else there is it only looks at, since to open that can do something.
func readable(p string) error {
	is, err := os.Stat(p)
	if err != nil || !is.Mode().IsRegular() && !is.IsDir() {
		return err
	}
	f, err := os.Open(p)
	if err != nil {
		return err
	}
	defer f.Close()
	if is.IsDir() {
		if _, err := f.Readdirnames(1); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
	return nil
}

// port checks that the agent can listen at an address.
func (g *Guards) port(ctx context.Context, a string) error {
	if g.mine(a) {
		return nil
	}
	err := bind(ctx, a)
	var in *net.OpError // which names the address once more
	if errors.As(err, &in) {
		err = in.Err
	}
	switch {
	case err == nil || g.mine(a): // it may have begun to listen meanwhile
		return nil
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%s is in use by another process (ss -ltnp shows by which); stop that, or let the agent listen elsewhere and change agent.requires.ports", a)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("the agent may not listen at %s: %w; ports below 1024 need CAP_NET_BIND_SERVICE", a, err)
	}
	return fmt.Errorf("the agent cannot listen at %s: %w", a, err)
}

// endpoint checks that an address takes a connection.
func endpoint(ctx context.Context, a string, c Config) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", a)
	if err == nil {
		conn.Close()
		return nil
	}
	if ctx.Err() != nil || os.IsTimeout(err) {
		return fmt.Errorf("%s does not answer within %v", a, c.Timeout)
	}
	var in *net.OpError // which names the address once more
	if errors.As(err, &in) {
		err = in.Err
	}
	return fmt.Errorf("%s takes no connection: %w; start it, or change agent.requires.endpoints", a, err)
}
