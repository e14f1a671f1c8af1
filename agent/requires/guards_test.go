package requires

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/creelhq/creel/config"
)

var silence = slog.New(slog.DiscardHandler)

// must decodes a Config, with its defaults.
func must(t testing.TB, text string) Config {
	t.Helper()
	n, err := config.Parse("f", []byte(text), config.Env{})
	if err != nil {
		t.Fatal(err)
	}
	options, errs := config.Of[Config]().Check(n)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	c, err := config.Decode[Config](options)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestConfig(t *testing.T) {
	c := must(t, "{}")
	if c.Every != 5*time.Second || c.Timeout != 3*time.Second || len(New(c, "x", nil, silence).items) != 0 {
		t.Errorf("what nobody asked for is %+v", c)
	}
	c = must(t, `{memory: 64MiB, disk: 1GiB, descriptors: 100, paths: /etc, ports: ["127.0.0.1:1", ":2", "127.0.0.1:1"], endpoints: "h:5"}`)
	if c.Memory != 64<<20 || c.Paths[0] != "/etc" || len(New(c, "x", nil, silence).items) != 7 {
		t.Errorf("it is %+v", c)
	}
	for text, want := range map[string]string{
		`{ports: "127.0.0.1"}`:      "ports: must be host:port",
		`{ports: "127.0.0.1:0"}`:    "from 1 to 65535",
		`{ports: "127.0.0.1:otlp"}`: "from 1 to 65535",
		`{endpoints: ":80"}`:        "endpoints: :80 has no host",
		`{endpoints: "h:70000"}`:    "from 1 to 65535",
		`{paths: ["/ok", "/["]}`:    `paths: "/[" is no path`,
		`{paths: "/a/**/b"}`:        "is no path",
		`{paths: ""}`:               "is no path",
		`{memory: 1}`:               "must be at least 1MiB",
		`{descriptors: -1}`:         "must be at least 1",
		`{every: 1ms}`:              "must be at least 100ms",
	} {
		n, err := config.Parse("f", []byte(text), config.Env{})
		if err != nil {
			t.Fatal(err)
		}
		if _, errs := config.Of[Config]().Check(n); len(errs) != 1 || !strings.Contains(errs.Error(), want) {
			t.Errorf("%s: %v, not %s", text, errs, want)
		}
	}
}

// machine is a system that a test makes.
type machine struct {
	mu                        sync.Mutex
	memory, disk, descriptors int64
	err                       error
	asked                     int
}

func (m *machine) set(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
}

func (m *machine) times() (asked int) {
	m.set(func() { asked = m.asked })
	return asked
}

func (m *machine) readers() readers {
	read := func(n *int64) (int64, string, error) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.asked++
		return *n, "here", m.err
	}
	return readers{
		memory:      func() (int64, string, error) { return read(&m.memory) },
		descriptors: func() (int64, string, error) { return read(&m.descriptors) },
		disk: func(string) (int64, error) {
			n, _, err := read(&m.disk)
			return n, err
		},
	}
}

// heard is what was told.
type heard struct {
	mu    sync.Mutex
	lines []string
}

func (h *heard) told(guard string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	line := guard + " is fine"
	if err != nil {
		line = fmt.Sprintf("%s: %v", guard, err)
	}
	h.lines = append(h.lines, line)
}

// next returns what was told since it was called last, sorted, when all that happens at this moment has happened.
func (h *heard) next() []string {
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	lines := h.lines
	h.lines = nil
	slices.Sort(lines)
	return lines
}

// run lets Guards run within a bubble until the test ends.
func run(t *testing.T, g *Guards, begin ...Verdict) *heard {
	h := &heard{}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); g.Run(ctx, h.told, begin...) }()
	t.Cleanup(func() { cancel(); <-done })
	return h
}

// is compares what was told with the beginnings of lines.
func is(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.EqualFunc(got, want, strings.HasPrefix) {
		t.Errorf("told was\n%s\nnot\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

const MiB = 1 << 20

// TestNumbers: what is scarce is told once, with what there is and what to do, and is enough when there is a tenth more.
func TestNumbers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &machine{memory: 100 * MiB, disk: 99*MiB + 1, descriptors: 4}
		g := newGuards(must(t, `{memory: 100MiB, disk: 99MiB, descriptors: 5}`), "/state", nil, silence, m.readers())
		h := run(t, g)
		is(t, h.next(), "descriptors: 4 file descriptors are free here, but 5 must be; raise the limit (LimitNOFILE=")
		m.set(func() { m.memory, m.disk, m.descriptors = 100*MiB-1, 50*MiB, 5 })
		time.Sleep(6 * time.Second)
		is(t, h.next(), "disk: 50.0 MiB are free on the file system of /state, but 99.0 MiB must be; delete something", "memory: 100.0 MiB of memory are free here, but 100.0 MiB must be; stop something")
		m.set(func() { m.memory, m.disk, m.descriptors = 110*MiB-1, 1, 6 })
		time.Sleep(time.Minute)
		is(t, h.next(), "descriptors is fine")
		v := g.Check(t.Context()) // which has no memory
		if len(v) != 3 || fmt.Sprint(v[0].Guard, v[1].Guard, v[2].Guard) != "memorydiskdescriptors" || v[0].Err != nil || v[1].Err == nil || v[2].Err != nil {
			t.Errorf("the verdicts are %v", v)
		}
		m.set(func() { m.memory, m.disk, m.descriptors = 110*MiB, 1<<40, 5 })
		time.Sleep(time.Minute)
		is(t, h.next(), "disk is fine", "memory is fine")
		if asked := m.times(); asked < 50 || asked > 100 {
			t.Errorf("the system was asked %d times", asked)
		}
	})
}

// TestFlapping: what goes up and down at the edge is told once.
func TestFlapping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &machine{}
		h := run(t, newGuards(must(t, `{memory: 100MiB}`), "/state", nil, silence, m.readers()))
		for i := range 100 {
			m.set(func() { m.memory = 100*MiB + int64(i%2*2-1)*5*MiB })
			time.Sleep(5 * time.Second)
		}
		is(t, h.next(), "memory: ")
	})
}

// TestBegin: what Check has said is not told again, but taken back, even if it is not required any more; and there must be a
// tenth more.
func TestBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &machine{memory: 99 * MiB, descriptors: 1}
		g := newGuards(must(t, `{memory: 100MiB, disk: 1MiB, descriptors: 5}`), "/state", nil, silence, m.readers())
		begin := g.Check(t.Context())
		m.set(func() { m.memory, m.disk = 109*MiB, 1<<40 })
		g.Set(must(t, `{memory: 100MiB, disk: 1MiB}`))
		h := run(t, g, begin...)
		time.Sleep(time.Minute)
		is(t, h.next(), "descriptors is fine", "disk is fine")
		m.set(func() { m.memory = 110 * MiB })
		time.Sleep(time.Minute)
		is(t, h.next(), "memory is fine")
	})
}

// TestLargest: no amount that can be configured overflows.
func TestLargest(t *testing.T) {
	check := enough(1<<62, func() (int64, string, error) { return 1<<62 + 1, "here", nil }, size, "", "")
	if err := check(t.Context(), false); err != nil {
		t.Error(err)
	}
	if err := check(t.Context(), true); err == nil || !strings.Contains(err.Error(), "after less than that it takes") {
		t.Errorf("a tenth more is %v", err)
	}
}

// TestUnknown: what cannot be known is as it was, fine in the beginning, and the log says so once for each guard. A disk that
// does not answer is something else.
func TestUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		m := &machine{err: errors.ErrUnsupported, memory: 1, disk: 1 << 40, descriptors: 1}
		g := newGuards(must(t, `{memory: 100MiB, disk: 99MiB, descriptors: 5}`), "/state", nil, slog.New(slog.NewTextHandler(&log, nil)), m.readers())
		h := run(t, g)
		time.Sleep(time.Minute)
		is(t, h.next(), "disk: ask how much is free on the file system of /state: unsupported operation")
		if n := strings.Count(log.String(), "\n"); n != 2 || !strings.Contains(log.String(), "requires=memory") || !strings.Contains(log.String(), "unsupported operation") {
			t.Errorf("the log is\n%s", &log)
		}
		m.set(func() { m.err = nil })
		time.Sleep(time.Minute)
		is(t, h.next(), "descriptors: ", "disk is fine", "memory: ")
		m.set(func() { m.err = errors.ErrUnsupported })
		time.Sleep(time.Minute)
		is(t, h.next(), "disk: ")
	})
}

// TestHanging: what hangs is told of, delays nobody, and is not asked again until it returns.
func TestHanging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &machine{memory: 1}
		r := m.readers()
		var asked atomic.Int32
		release := make(chan struct{})
		r.disk = func(string) (int64, error) { asked.Add(1); <-release; return 1 << 40, nil }
		g := newGuards(must(t, `{memory: 100MiB, disk: 99MiB, timeout: 2s}`), "/state", nil, silence, r)
		h := run(t, g)
		is(t, h.next(), "memory: ")
		time.Sleep(2*time.Second + 1)
		is(t, h.next(), "disk: the file system of /state, which must have 99MiB, does not answer within 2s")
		start := time.Now()
		if v := g.Check(t.Context()); len(v) != 2 || v[1].Err == nil || time.Since(start) != 2*time.Second {
			t.Errorf("after %v the verdicts are %v", time.Since(start), v)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if v := g.Check(ctx); len(v) != 1 || v[0].Guard != "memory" || time.Since(start) != 3*time.Second {
			t.Errorf("after %v the verdicts that are known are %v", time.Since(start), v)
		}
		time.Sleep(time.Minute)
		is(t, h.next())
		if n := asked.Load(); n != 1 {
			t.Errorf("the disk was asked %d times", n)
		}
		close(release)
		time.Sleep(10 * time.Second)
		is(t, h.next(), "disk is fine")
		if n := asked.Load(); n < 2 {
			t.Error("the disk was not asked again")
		}
	})
}

// TestSet: what is required can change: guards that are gone take back what they have said, others look at once, and a
// lower amount counts at once. Where nothing is required nothing is done.
func TestSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &machine{memory: 105 * MiB, disk: 1, descriptors: 1}
		g := newGuards(must(t, `{}`), "/state", nil, silence, m.readers())
		h := run(t, g)
		time.Sleep(time.Hour)
		is(t, h.next())
		set := func(text string, want ...string) {
			t.Helper()
			g.Set(must(t, text))
			is(t, h.next(), want...)
		}
		set(`{memory: 200MiB, disk: 1MiB, descriptors: 5, every: 1h}`, "descriptors: 1 ", "disk: ", "memory: 105.0 MiB")
		set(`{memory: 100MiB, disk: 2MiB, every: 1h}`, "descriptors is fine", "disk: 0.0 MiB are free on the file system of /state, but 2.0 MiB", "memory is fine")
		set(`{memory: 100MiB, disk: 2MiB, every: 1h}`)
		set(`{memory: 100MiB, every: 10s}`, "disk is fine")
		m.set(func() { m.memory = 1 })
		time.Sleep(11 * time.Second)
		is(t, h.next(), "memory: ")
		set(`{}`, "memory is fine")
		before := m.times()
		time.Sleep(time.Hour)
		if m.times() != before {
			t.Error("it looks at what nobody requires")
		}
		set(`{memory: 1MiB}`, "memory: ")
	})
}

// TestConcurrent: everything may be called at once. It means most with -race.
func TestConcurrent(t *testing.T) {
	m := &machine{memory: 1 << 40, disk: 1 << 40, descriptors: 1 << 40}
	g := newGuards(must(t, `{memory: 1MiB}`), "/state", nil, silence, m.readers())
	ctx, cancel := context.WithCancel(t.Context())
	var running, calling sync.WaitGroup
	last := map[string]error{}
	running.Go(func() { g.Run(ctx, func(guard string, err error) { last[guard] = err }) })
	configs := []Config{must(t, `{memory: 1MiB, disk: 1MiB, every: 100ms}`), must(t, `{descriptors: 7}`), must(t, `{}`)}
	for i := range 3 {
		calling.Go(func() {
			for j := range 100 {
				g.Set(configs[(i+j)%3])
				for _, v := range g.Check(ctx) {
					if v.Err != nil {
						t.Errorf("%s: %v", v.Guard, v.Err)
					}
				}
			}
		})
	}
	calling.Wait()
	cancel()
	running.Wait()
	for guard := range maps.Keys(last) {
		if last[guard] != nil {
			t.Errorf("%s: %v", guard, last[guard])
		}
	}
}

// BenchmarkIdle is one look at a machine that has everything; every 5 s one is made, so that 5 ms were 0.1 % of a core.
func BenchmarkIdle(b *testing.B) {
	g := New(must(b, `{memory: 1MiB, disk: 1MiB, descriptors: 1, paths: ["/", "/*"], ports: ["127.0.0.1:45999"]}`), b.TempDir(), nil, silence)
	b.ReportAllocs()
	for b.Loop() {
		for _, v := range g.Check(b.Context()) {
			if v.Err != nil {
				b.Fatal(v.Err)
			}
		}
	}
}
