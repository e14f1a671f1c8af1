package centertest

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creelhq/creel/center"
)

// A World is a registry, and what can happen to it.
type World struct {
	Center  center.Center
	Options string                // YAML
	Change  func(center.Registry) // makes it ask and beat often; may be nil

	Stop, Start func()        // of the server
	Forget      func()        // it has lost all instances
	Mute        func() func() // nobody can take an instance away until the returned function is called, which fails if nobody has tried
	Garbage     func() func() // the next answers, or what is there, make no sense; the returned function fails if nobody has seen that
}

// open makes a Registry, whose health the Rig hears of.
func (w *World) open(t testing.TB) (center.Registry, *Rig) {
	t.Helper()
	cfg, err := Options(w.Center, w.Options)
	if err != nil {
		t.Fatal(err)
	}
	c, open := w.Center, w.Center.Registry
	c.Registry = func(cfg []byte, h center.Host) (center.Registry, error) {
		r, err := open(cfg, h)
		if err == nil && w.Change != nil {
			w.Change(r)
		}
		return r, err
	}
	rig := NewRig(t)
	r, err := center.OpenRegistry(c, cfg, center.Host{ID: c.Name + "/test", Health: func(err error) { rig.Health <- err }})
	if err != nil {
		t.Fatal(err)
	}
	return r, rig
}

// Offer registers an instance until the test, or the returned function, ends it.
func (w *World) Offer(t testing.TB, i center.Instance) (*Rig, func()) {
	t.Helper()
	if err := i.Check(); err != nil {
		t.Fatal(err)
	}
	r, rig := w.open(t)
	return rig, background(t, func(ctx context.Context) { r.Register(ctx, i) })
}

// A Lookout sees who offers a service.
type Lookout struct {
	*Rig
	seen chan []center.Instance
}

// Look watches a service until the test ends.
func (w *World) Look(t testing.TB, service string) *Lookout {
	t.Helper()
	r, rig := w.open(t)
	l := &Lookout{rig, make(chan []center.Instance, 10000)}
	background(t, func(ctx context.Context) { r.Watch(ctx, service, func(list []center.Instance) { l.seen <- list }) })
	return l
}

func background(t testing.TB, f func(ctx context.Context)) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(ctx)
	}()
	end = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	t.Cleanup(end)
	return end
}

// written is how tests write instances: "id@address #tag key=value *weight id@address …".
func written(list []center.Instance) string {
	var words []string
	for _, i := range list {
		words = append(words, i.ID+"@"+i.Address)
		for _, tag := range i.Tags {
			words = append(words, "#"+tag)
		}
		for _, key := range slices.Sorted(maps.Keys(i.Meta)) {
			words = append(words, key+"="+i.Meta[key])
		}
		if i.Weight != 1 {
			words = append(words, fmt.Sprintf("*%d", i.Weight))
		}
	}
	return strings.Join(words, " ")
}

// Sees waits until exactly the wanted instances are there.
func (l *Lookout) Sees(want string) {
	l.t.Helper()
	got := "nothing yet"
	for late := time.After(Soon); ; {
		select {
		case list := <-l.seen:
			if !slices.IsSortedFunc(list, func(a, b center.Instance) int { return strings.Compare(a.ID, b.ID) }) {
				l.t.Fatalf("%v are not sorted by ID", list)
			}
			if got = written(list); got == want {
				return
			}
		case <-late:
			l.t.Fatalf("there never is %q; the last was %q", want, got)
		}
	}
}

// SeesNoNews fails if something was seen that the test has not looked at.
func (l *Lookout) SeesNoNews() {
	l.t.Helper()
	select {
	case list := <-l.seen:
		l.t.Fatalf("there is news: %q", written(list))
	default:
	}
}

// TestRegistry is what every Registry has to pass with which one can register. open makes a world in which an instance that
// is silent for about ttl is gone.
func TestRegistry(t *testing.T, open func(t *testing.T, ttl time.Duration) *World) {
	const (
		long  = time.Hour // nothing ends by itself
		short = 300 * time.Millisecond
	)
	at := func(id string, port int) center.Instance {
		return center.Instance{Service: "web", ID: id, Address: fmt.Sprintf("127.0.0.1:%d", port)}
	}
	run := func(name string, ttl time.Duration, f func(t *testing.T, w *World)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := open(t, ttl)
			w.Options = strings.TrimSuffix(w.Options, "}") + ", allow_empty: true}"
			f(t, w)
		})
	}
	run("comes and goes", long, func(t *testing.T, w *World) {
		l := w.Look(t, "web")
		l.Sees("")
		b := at("b", 2)
		b.Tags, b.Meta, b.Weight = []string{"blue", "v-2"}, map[string]string{"url": "https://b.example:2/x?y=z", "zone": "nörd"}, 7
		rig, endB := w.Offer(t, b)
		l.Sees("b@127.0.0.1:2 #blue #v-2 url=https://b.example:2/x?y=z zone=nörd *7")
		_, endA := w.Offer(t, at("a", 1))
		l.Sees("a@127.0.0.1:1 b@127.0.0.1:2 #blue #v-2 url=https://b.example:2/x?y=z zone=nörd *7")
		other := at("c", 3)
		other.Service = "web-2" // begins as the one that is watched
		w.Offer(t, other)
		w.Look(t, "web-2").Sees("c@127.0.0.1:3")
		endB()
		l.Sees("a@127.0.0.1:1")
		w.Look(t, "web").Sees("a@127.0.0.1:1")
		endA()
		l.Sees("")
		select {
		case err := <-rig.Health:
			t.Errorf("Health was told %v", err)
		default:
		}
	})
	run("is killed", short, func(t *testing.T, w *World) {
		l := w.Look(t, "web")
		_, kill := w.Offer(t, at("a", 1))
		w.Offer(t, at("b", 2))
		l.Sees("a@127.0.0.1:1 b@127.0.0.1:2")
		heard := w.Mute()
		kill()
		heard()
		l.Sees("b@127.0.0.1:2")
	})
	run("is forgotten", short, func(t *testing.T, w *World) {
		l := w.Look(t, "web")
		rig, _ := w.Offer(t, at("a", 1))
		l.Sees("a@127.0.0.1:1")
		for range 2 {
			w.Forget()
			w.Look(t, "web").Sees("a@127.0.0.1:1")
		}
		rig.notTroubled()
	})
	run("is taken over", short, func(t *testing.T, w *World) {
		l := w.Look(t, "web")
		_, endOld := w.Offer(t, at("a", 1))
		l.Sees("a@127.0.0.1:1")
		time.Sleep(2 * time.Millisecond) // some know by the time which is the later one
		_, endNew := w.Offer(t, at("a", 2))
		l.Sees("a@127.0.0.1:2")
		endOld()
		w.Look(t, "web").Sees("a@127.0.0.1:2")
		_, endOld = w.Offer(t, at("a", 1))
		l.Sees("a@127.0.0.1:1")
		endOld()
		l.Sees("a@127.0.0.1:2")
		endNew()
		l.Sees("")
	})
	run("is away", long, func(t *testing.T, w *World) {
		l := w.Look(t, "web")
		_, end := w.Offer(t, at("a", 1))
		l.Sees("a@127.0.0.1:1")
		w.Stop()
		l.Troubled("")
		late, _ := w.Offer(t, at("b", 2))
		late.Troubled("")
		l.SeesNoNews()
		w.Start()
		l.Well()
		late.Well()
		l.Sees("a@127.0.0.1:1 b@127.0.0.1:2")
		end()
		l.Sees("b@127.0.0.1:2")
	})
	run("flaps", short, func(t *testing.T, w *World) {
		l := w.Look(t, "web")
		_, end := w.Offer(t, at("a", 1))
		l.Sees("a@127.0.0.1:1")
		for range 3 {
			w.Stop()
			l.Troubled("")
			w.Start()
			l.Well()
		}
		w.Look(t, "web").Sees("a@127.0.0.1:1")
		end()
		w.Look(t, "web").Sees("")
	})
	run("says what makes no sense", long, func(t *testing.T, w *World) {
		l := w.Look(t, "web")
		w.Offer(t, at("a", 1))
		l.Sees("a@127.0.0.1:1")
		seen := w.Garbage()
		w.Offer(t, at("b", 2))
		l.Sees("a@127.0.0.1:1 b@127.0.0.1:2")
		seen()
	})
}

// notTroubled fails if Health was told of something.
func (r *Rig) notTroubled() {
	r.t.Helper()
	for {
		select {
		case err := <-r.Health:
			if err != nil {
				r.t.Fatalf("Health was told %v", err)
			}
		default:
			return
		}
	}
}

// world returns one around a server of this package: method and path are those of a farewell.
func (s *server) world(method, path string, forget func()) *World {
	return &World{
		Stop: s.Stop, Start: s.Start, Forget: forget,
		Mute: func() func() {
			before := s.Failed()
			s.Ignore(func(r *http.Request) bool { return r.Method == method && strings.Contains(r.URL.Path, path) })
			return func() {
				s.Ignore(nil)
				if s.Failed() == before {
					s.t.Error("nobody has said farewell")
				}
			}
		},
		Garbage: func() func() {
			faults := []http.HandlerFunc{Text("<html>welcome</html>"), Text(`{"half":`), Cut, Status(http.StatusBadGateway, "bad gateway")}
			before := s.Failed()
			s.Fail(faults...)
			return func() {
				if n := s.Failed() - before; n != len(faults) {
					s.t.Errorf("%d of %d faults have happened", n, len(faults))
				}
			}
		},
	}
}

// World returns a World around it.
func (c *Consul) World() *World { return c.world(http.MethodPut, "/deregister/", c.ForgetServices) }

// World returns a World around it.
func (n *Nacos) World() *World { return n.world(http.MethodDelete, "/instance", n.ForgetServices) }

// World returns a World around it.
func (e *Eureka) World() *World { return e.world(http.MethodDelete, "/apps/", e.ForgetServices) }
