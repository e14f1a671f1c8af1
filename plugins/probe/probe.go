// Package probe is a collector that checks from outside whether services answer: HTTP, TCP, TLS, DNS and ICMP echo. One
// round checks every target, some at a time.
//
// A target that is down is a result, not an error: metrics say so, and a log record says when it changed and why. What is
// checked may come from far away, so the package treats targets and what they answer as hostile: see guard. It knows
// nothing of intervals, and must not know who asked for a check.
package probe

import (
	"context"
	"crypto/tls"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/creelhq/creel"
)

//go:embed example.yaml
var example string

// Plugin is the collector probe.
var Plugin = creel.NewPolled("probe", "Checks whether services answer over HTTP, TCP, TLS, DNS and ICMP echo, and when their certificates expire.", New).WithExample(example)

// New returns a collector of which each Collect is one round.
func New(c Config, h creel.Host) (creel.Collector, error) {
	return newCollector(c, h, net.DefaultResolver, net.DefaultResolver)
}

// newCollector is New with a resolver for targets' hosts and one for what targets without a server ask for.
func newCollector(c Config, h creel.Host, hosts resolver, system *net.Resolver) (*collector, error) {
	col := &collector{
		host:     h,
		parallel: c.Parallel,
		guard:    newGuard(hosts, c.AllowNetworks, c.DenyNetworks),
		system:   system,
		tls:      c.TLS,
		origin:   &creel.Origin{Resource: h.Resource, Scope: creel.Scope{Name: "github.com/creelhq/creel/plugins/probe"}},
	}
	var err error
	if col.named, err = col.tls.client().Config("", nil, h.Log); err != nil {
		return nil, err
	}
	for _, t := range c.Targets {
		a, err := t.parse()
		if err != nil {
			return nil, fmt.Errorf("read target %s: %w", t.name(), err)
		}
		if t.Timeout == 0 {
			t.Timeout = c.TargetTimeout
		}
		col.targets = append(col.targets, &target{Target: t, address: a, attrs: attributes(t, a)})
	}
	col.results = make([]result, len(col.targets))
	return col, nil
}

// A target is one that is checked, and how it was.
type target struct {
	Target
	address address
	attrs   creel.Attrs // of all its records

	known, down bool
	since       time.Time // it is as it is
	unable      string    // why the last check could not be done; ""
}

// family returns what package net calls the version of IP.
func (t *target) family() string {
	if t.IPVersion == "any" {
		return "ip"
	}
	return "ip" + t.IPVersion
}

type collector struct {
	host     creel.Host
	origin   *creel.Origin
	parallel int
	guard    *guard
	system   *net.Resolver
	tls      TLS
	named    *tls.Config // for servers that are called by name

	mu      sync.Mutex // guards what follows: a round is alone
	targets []*target
	results []result // of targets, in this round
}

// Collect does one round. It fails only if no target could be checked, which is not the same as being down, or ctx is done.
func (c *collector) Collect(ctx context.Context, out creel.Sink) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.checkAll(ctx); err != nil {
		return err
	}
	now := time.Now()
	if err := c.noteUnable(); err != nil {
		return err
	}
	if err := out.Send(ctx, c.metrics(now)); err != nil {
		return err
	}
	if b := c.changes(now); b != nil {
		if err := out.Send(ctx, b); err != nil {
			return err // the next round has it, if it is so still
		}
	}
	c.remember(now)
	return nil
}

// checkAll checks all targets. The round waits without its slot, and starts a check only when it has it.
func (c *collector) checkAll(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{}, c.parallel)
	running := 0
	wait := func(most int) func() error {
		return func() error {
			for running > most {
				<-done
				running--
			}
			return nil
		}
	}
	for i := range c.targets {
		if err = creel.Yield(ctx); err == nil && running == c.parallel {
			err = creel.Blocking(ctx, wait(c.parallel-1))
		}
		if err != nil {
			break
		}
		running++
		go func() {
			c.results[i] = c.check(ctx, c.targets[i])
			done <- struct{}{}
		}()
	}
	if err != nil {
		cancel()
		_ = wait(0)() // there may be no slot to give up
		return err
	}
	if err := creel.Blocking(ctx, wait(0)); err != nil {
		return err
	}
	return ctx.Err()
}

// check checks one target. It never fails: what goes wrong is the result.
func (c *collector) check(ctx context.Context, t *target) (r result) {
	r = newResult()
	ctx, cancel := context.WithTimeout(ctx, t.Timeout)
	defer cancel()
	start := time.Now()
	defer func() {
		r.total = time.Since(start)
		if p := recover(); p != nil {
			r.fail = failed(local, fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
		}
	}()
	var err error
	switch t.address.scheme {
	case "http", "https":
		err = c.checkHTTP(ctx, t, &r)
	case "tcp":
		err = c.checkTCP(ctx, t, &r)
	case "tls":
		err = c.checkTLS(ctx, t, &r)
	case "dns":
		err = c.checkDNS(ctx, t, &r)
	case "icmp":
		err = c.checkICMP(ctx, t, &r)
	}
	if err == nil {
		return r
	}
	if !errors.As(err, &r.fail) {
		r.fail = failed(kindOf(err, protocol), err)
	}
	if deadline, _ := ctx.Deadline(); r.fail.kind == timedOut && !time.Now().Before(deadline) { // not only of one of its addresses
		r.fail = failed(timedOut, fmt.Errorf("no answer within %v: %w", t.Timeout, err))
	}
	return r
}

func (c *collector) checkTCP(ctx context.Context, t *target, r *result) error {
	conn, err := c.guard.dial(ctx, r, "tcp", t.family(), t.address.host, t.address.port)
	if err != nil {
		return err
	}
	return conn.Close()
}

// noteUnable logs what this machine cannot check, when it is news, and fails if that is everything.
func (c *collector) noteUnable() error {
	var errs []error
	for i, t := range c.targets {
		why := ""
		if f := c.results[i].fail; f != nil && f.kind == local {
			why = f.Error()
			errs = append(errs, fmt.Errorf("check %s: %w", t.name(), f))
		}
		if why != "" && why != t.unable {
			c.host.Log.Warn("cannot check a target; nothing is known of it", "target", t.name(), "error", why)
		}
		t.unable = why
	}
	if len(errs) == len(c.targets) {
		return errors.Join(errs[:min(len(errs), 3)]...)
	}
	return nil
}

// news reports whether target i has gone down or come up. That a target is up at first is none.
func (c *collector) news(i int) bool {
	t, fail := c.targets[i], c.results[i].fail
	if fail != nil && fail.kind == local {
		return false
	}
	return t.known && t.down != (fail != nil) || !t.known && fail != nil
}

// remember keeps how the targets are.
func (c *collector) remember(now time.Time) {
	for i, t := range c.targets {
		fail := c.results[i].fail
		if fail != nil && fail.kind == local {
			continue
		}
		if down := fail != nil; !t.known || t.down != down {
			t.known, t.down, t.since = true, down, now
		}
	}
}

// attributes returns what all records of a target have; the user's come last and replace none.
func attributes(t Target, a address) creel.Attrs {
	as := creel.Attrs{attr("probe.target", t.name()), attr("probe.type", a.scheme)}
	if a.scheme == "https" {
		as[1] = attr("probe.type", "http")
	}
	if a.host != "" {
		as = append(as, attr("server.address", a.host))
	}
	if a.port != 0 && a.host != "" {
		as = append(as, creel.Attr{Key: "server.port", Value: creel.Int(int64(a.port))})
	}
	own := len(as)
	for key, value := range t.Attributes {
		if _, taken := as[:own].Get(key); !taken {
			as = append(as, attr(key, value))
		}
	}
	slices.SortFunc(as[own:], func(a, b creel.Attr) int { return strings.Compare(a.Key, b.Key) })
	return as
}

func attr(key, value string) creel.Attr { return creel.Attr{Key: key, Value: creel.String(value)} }
