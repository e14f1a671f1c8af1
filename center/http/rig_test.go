package http

import (
	"context"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/creelhq/creel/center"
	"github.com/creelhq/creel/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// soon is how long a test waits for what must happen soon.
const soon = 20 * time.Second

// rig is a center that is watched.
type rig struct {
	t      testing.TB
	said   chan center.Snapshot
	health chan error
}

// options checks options in YAML.
func options(yaml string) ([]byte, error) {
	root, err := config.Parse("test", []byte(yaml), config.Env{})
	if err != nil {
		return nil, err
	}
	cfg, errs := center.Schema(Center).Check(root)
	if len(errs) > 0 {
		return nil, errs
	}
	return cfg, nil
}

// watch watches a center until the test ends. change, if not nil, is given the source before.
func watch(t testing.TB, yaml string, change func(*source)) *rig {
	t.Helper()
	cfg, err := options(yaml)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t, make(chan center.Snapshot, 10000), make(chan error, 10000)}
	c := Center
	open := c.Open
	c.Open = func(cfg []byte, h center.Host) (center.Source, error) {
		s, err := open(cfg, h)
		if err == nil && change != nil {
			change(s.(*source))
		}
		return s, err
	}
	s, err := center.Open(c, cfg, center.Host{ID: Center.Name + "/test", Health: func(err error) { r.health <- err }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Watch(ctx, func(s center.Snapshot) { r.said <- s })
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return r
}

// wants waits for the next snapshot, which is "name=text name=text".
func (r *rig) wants(want string) center.Snapshot {
	r.t.Helper()
	select {
	case s := <-r.said:
		var got []string
		for _, d := range s.Documents {
			got = append(got, d.Name+"="+string(d.Text))
		}
		if g := strings.Join(got, " "); g != want {
			r.t.Fatalf("the center says %q, not %q", g, want)
		}
		return s
	case <-time.After(soon):
		r.t.Fatalf("the center never says %q", want)
	}
	return center.Snapshot{}
}

// troubled waits until Health was told of something.
func (r *rig) troubled(what string) {
	r.t.Helper()
	last := error(nil)
	for late := time.After(soon); ; {
		select {
		case last = <-r.health:
			if last != nil && strings.Contains(last.Error(), what) {
				return
			}
		case <-late:
			r.t.Fatalf("Health was never told of %q, but of %v", what, last)
		}
	}
}

// well waits until Health was told that all is well.
func (r *rig) well() {
	r.t.Helper()
	last := error(nil)
	for late := time.After(soon); ; {
		select {
		case last = <-r.health:
			if last == nil {
				return
			}
		case <-late:
			r.t.Fatalf("Health is still told %v", last)
		}
	}
}

// silent fails if something was said that the test has not looked at.
func (r *rig) silent() {
	r.t.Helper()
	select {
	case s := <-r.said:
		r.t.Fatalf("the center says %q", s.Documents)
	default:
	}
}

// eventually waits until something is true.
func (r *rig) eventually(what string, is func() bool) {
	r.t.Helper()
	for late := time.Now().Add(soon); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(late) {
			r.t.Fatalf("never: %s", what)
		}
	}
}
