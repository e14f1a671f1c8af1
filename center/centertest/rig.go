package centertest

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/creelhq/creel/center"
	"github.com/creelhq/creel/config"
)

// Soon is how long a test waits for what must happen soon.
const Soon = time.Minute

// A Rig is a center that is watched.
type Rig struct {
	t      testing.TB
	Said   chan center.Snapshot // what it says
	Health chan error           // what it tells of its health
}

// NewRig returns a Rig of no center yet.
func NewRig(t testing.TB) *Rig {
	return &Rig{t, make(chan center.Snapshot, 10000), make(chan error, 10000)}
}

// Options checks options of a center in YAML.
func Options(c center.Center, yaml string) ([]byte, error) {
	root, err := config.Parse("test", []byte(yaml), config.Env{})
	if err != nil {
		return nil, err
	}
	cfg, errs := center.Schema(c).Check(root)
	if len(errs) > 0 {
		return nil, errs
	}
	return cfg, nil
}

// Refuses wants options of a Source in YAML to be refused, with a certain word.
func Refuses(t testing.TB, c center.Center, yaml, want string) {
	t.Helper()
	cfg, err := Options(c, yaml)
	if err == nil {
		_, err = center.Open(c, cfg, center.Host{})
	}
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%s: %v, not %q", yaml, err, want)
	}
}

// Watch watches a center until the test ends. change, if not nil, is given the Source before.
func Watch(t testing.TB, c center.Center, yaml string, change func(center.Source)) *Rig {
	t.Helper()
	cfg, err := Options(c, yaml)
	if err != nil {
		t.Fatal(err)
	}
	r := NewRig(t)
	open := c.Open
	c.Open = func(cfg []byte, h center.Host) (center.Source, error) {
		s, err := open(cfg, h)
		if err == nil && change != nil {
			change(s)
		}
		return s, err
	}
	s, err := center.Open(c, cfg, center.Host{ID: c.Name + "/test", Health: func(err error) { r.Health <- err }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Watch(ctx, func(s center.Snapshot) { r.Said <- s })
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return r
}

// Wants waits for the next snapshot, which is "name=text name=text".
func (r *Rig) Wants(want string) center.Snapshot {
	r.t.Helper()
	select {
	case s := <-r.Said:
		var got []string
		for _, d := range s.Documents {
			got = append(got, d.Name+"="+string(d.Text))
		}
		if g := strings.Join(got, " "); g != want {
			r.t.Fatalf("the center says %q, not %q", g, want)
		}
		return s
	case <-time.After(Soon):
		r.t.Fatalf("the center never says %q", want)
	}
	return center.Snapshot{}
}

// Troubled waits until Health was told of something.
func (r *Rig) Troubled(what string) {
	r.t.Helper()
	last := error(nil)
	for late := time.After(Soon); ; {
		select {
		case last = <-r.Health:
			if last != nil && strings.Contains(last.Error(), what) {
				return
			}
		case <-late:
			r.t.Fatalf("Health was never told of %q, but of %v", what, last)
		}
	}
}

// Well waits until Health was told that all is well.
func (r *Rig) Well() {
	r.t.Helper()
	last := error(nil)
	for late := time.After(Soon); ; {
		select {
		case last = <-r.Health:
			if last == nil {
				return
			}
		case <-late:
			r.t.Fatalf("Health is still told %v", last)
		}
	}
}

// Silent fails if something was said that the test has not looked at.
func (r *Rig) Silent() {
	r.t.Helper()
	select {
	case s := <-r.Said:
		r.t.Fatalf("the center says %q", s.Documents)
	default:
	}
}

// Eventually waits until something is true.
func (r *Rig) Eventually(what string, is func() bool) {
	r.t.Helper()
	for late := time.Now().Add(Soon); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(late) {
			r.t.Fatalf("never: %s", what)
		}
	}
}
