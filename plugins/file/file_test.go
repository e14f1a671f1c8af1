package file_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/plugin/plugintest"
	"github.com/creelhq/creel/plugins/file"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// state is a State that outlives the collector.
type state struct {
	mu      sync.Mutex
	data    []byte
	version uint64
}

func (s *state) Load() ([]byte, uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.data), s.version, nil
}

func (s *state) Save(data []byte, version uint64) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if version != s.version {
		return 0, creel.ErrStale
	}
	s.data, s.version = slices.Clone(data), version+1
	return s.version, nil
}

// follower is a collector at work, and the sink that it sends to.
type follower struct {
	t    *testing.T
	c    creel.Collector
	stop context.CancelFunc
	done chan error

	mu     sync.Mutex
	lines  []string
	attrs  []creel.Attrs
	keep   bool // batches are not settled, but kept
	kept   []*creel.Batch
	closed bool
}

func (f *follower) Send(ctx context.Context, b *creel.Batch) error {
	f.TrySend(b)
	return nil
}

func (f *follower) TrySend(b *creel.Batch) bool {
	f.mu.Lock()
	for _, l := range b.Logs() {
		text := strings.Clone(l.Body.Str())
		if l.Body.Kind() == creel.ValueBytes { // not UTF-8
			text = string(l.Body.Bytes())
		}
		f.lines = append(f.lines, text)
		f.attrs = append(f.attrs, l.Attrs.Clone())
	}
	keep := f.keep
	if keep {
		f.kept = append(f.kept, b)
	}
	f.mu.Unlock()
	if !keep {
		creel.Settle(b, nil)
	}
	return true
}

// follow starts a collector; options are added to a short poll interval, or another one.
func follow(t *testing.T, s creel.State, log io.Writer, options string, poll ...string) *follower {
	t.Helper()
	interval := append(poll, "2ms")[0]
	n, err := config.Parse("t.yaml", []byte("{poll_interval: "+interval+", "+options+"}"), config.Env{})
	if err != nil {
		t.Fatal(err)
	}
	canonical, errs := file.Plugin.Config.Check(n)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	h := creel.Host{State: s}
	if log != nil {
		h.Log = slog.New(slog.NewTextHandler(log, nil))
	}
	c, err := file.Plugin.Open(canonical, h)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	f := &follower{t: t, c: c.(creel.Collector), stop: cancel, done: make(chan error, 1)}
	go func() { f.done <- f.c.Collect(ctx, f) }()
	t.Cleanup(f.end)
	return f
}

// end stops the collector as the pipeline does.
func (f *follower) end() {
	if f.closed {
		return
	}
	f.closed = true
	f.stop()
	if err := <-f.done; err != nil && !errors.Is(err, context.Canceled) {
		f.t.Error(err)
	}
	if err := f.c.(io.Closer).Close(); err != nil {
		f.t.Error(err)
	}
	for _, b := range f.kept {
		creel.Settle(b, creel.ErrAbandoned)
	}
}

// want waits until exactly these lines have arrived, in any order.
func (f *follower) want(lines ...string) {
	f.t.Helper()
	slices.Sort(lines)
	var got []string
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		f.mu.Lock()
		got = slices.Clone(f.lines)
		f.mu.Unlock()
		slices.Sort(got)
		if slices.Equal(got, lines) {
			return
		}
	}
	f.t.Fatalf("got %q, want %q", got, lines)
}

// await waits until a condition on what has arrived holds.
func (f *follower) await(holds func() bool) {
	f.t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		f.mu.Lock()
		ok := holds()
		f.mu.Unlock()
		if ok {
			return
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.t.Fatalf("waited in vain; %d records have arrived", len(f.lines))
}

func put(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// TestLast: with start_at: end the last bytes of what is there are read, from the beginning of the line that they begin
// in; a file that has fewer is read whole, and what follows is read as ever.
func TestLast(t *testing.T) {
	dir := t.TempDir()
	long, short := filepath.Join(dir, "long.log"), filepath.Join(dir, "short.log")
	if err := errors.Join(os.WriteFile(long, []byte("first line\nsecond line\nthird line\n"), 0o600), os.WriteFile(short, []byte("all\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	f := follow(t, &state{}, nil, "start_at: end, last: 15, include: ["+dir+"/*.log]")
	f.want("second line", "third line", "all")
	out, err := os.OpenFile(long, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := out.WriteString("fourth line\n"); err != nil {
		t.Fatal(err)
	}
	f.want("second line", "third line", "all", "fourth line")
}

func TestStartAt(t *testing.T) {
	for _, c := range []struct {
		at   string
		want []string
	}{{"beginning", []string{"old", "new", "later"}}, {"end", []string{"new", "later"}}} {
		dir := t.TempDir()
		app := filepath.Join(dir, "app.log")
		put(t, app, "old\n")
		f := follow(t, &state{}, nil, fmt.Sprintf("start_at: %s, include: [%s/*.log], exclude: [%s/not.log]", c.at, dir, dir))
		put(t, filepath.Join(dir, "marker.log"), "") // a second file, so that the first look is over when it is followed
		if c.at == "beginning" {
			f.want("old")
		} else {
			time.Sleep(50 * time.Millisecond) // nothing shows that the end was found
		}
		put(t, app, "new\n")
		put(t, filepath.Join(dir, "later.log"), "later\nunfinished")
		put(t, filepath.Join(dir, "not.log"), "excluded\n")
		f.want(c.want...)
		put(t, filepath.Join(dir, "later.log"), " line\r\n")
		f.want(append(c.want, "unfinished line")...)
		f.end()
	}
}

func TestRotation(t *testing.T) {
	for _, c := range []struct {
		name   string
		rotate func(t *testing.T, app string)
	}{
		{"rename", func(t *testing.T, app string) {
			rename(t, app, app+".1")
			put(t, app+".1", "after the rename\n") // the writer has it open still
		}},
		{"several back to back", func(t *testing.T, app string) {
			for i := range 5 {
				for n := i; n > 0; n-- {
					rename(t, fmt.Sprintf("%s.%d", app, n), fmt.Sprintf("%s.%d", app, n+1))
				}
				rename(t, app, app+".1")
				put(t, app, fmt.Sprintf("generation %d\n", i))
			}
			put(t, app+".5", "after the rename\n")
		}},
		{"copytruncate", func(t *testing.T, app string) {
			if err := os.Truncate(app, 0); err != nil {
				t.Fatal(err)
			}
			put(t, app, "after the rename\n")
		}},
		{"removed and made again", func(t *testing.T, app string) {
			if err := os.Remove(app); err != nil {
				t.Fatal(err)
			}
			put(t, app, "after the rename\n")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			app := filepath.Join(t.TempDir(), "app.log")
			put(t, app, "a first line that is longer than what comes after\nsecond\n")
			f := follow(t, &state{}, nil, "start_at: beginning, include: ["+app+"]")
			want := []string{"a first line that is longer than what comes after", "second"}
			f.want(want...)
			c.rotate(t, app)
			want = append(want, "after the rename")
			if c.name == "several back to back" {
				want = append(want, "generation 0", "generation 1", "generation 2", "generation 3", "generation 4")
			}
			f.want(want...)
			put(t, app, "last\n")
			f.want(append(want, "last")...)
		})
	}
}

// TestRestart: what was acknowledged is not sent again, what was not is; what was rotated meanwhile is found.
func TestRestart(t *testing.T) {
	app := filepath.Join(t.TempDir(), "app.log")
	s := &state{}
	options := "start_at: end, include: [" + app + "]"
	put(t, app, "before\n")
	f := follow(t, s, nil, "start_at: beginning, include: ["+app+"]")
	f.want("before")
	f.mu.Lock()
	f.keep = true
	f.mu.Unlock()
	put(t, app, "not acknowledged\n")
	f.want("before", "not acknowledged")
	f.end()
	put(t, app, "while down\n")
	rename(t, app, app+".1")
	put(t, app, "a new file while down\n")
	f = follow(t, s, nil, options)
	f.want("not acknowledged", "while down", "a new file while down")
	f.end()
	f = follow(t, s, nil, options)
	put(t, app, "at last\n")
	f.want("at last")
}

// TestAbandoned: what the pipeline gave up without a decision is sent again, what it refused is not.
func TestAbandoned(t *testing.T) {
	app := filepath.Join(t.TempDir(), "app.log")
	f := follow(t, &state{}, nil, "start_at: beginning, include: ["+app+"]")
	f.mu.Lock()
	f.keep = true
	f.mu.Unlock()
	put(t, app, "one\n")
	f.want("one")
	f.mu.Lock()
	b := f.kept[0]
	f.kept, f.keep = nil, false
	f.mu.Unlock()
	creel.Settle(b, creel.ErrAbandoned)
	f.want("one", "one")
	put(t, app, "two\n")
	f.want("one", "one", "two")
}

func TestOddLines(t *testing.T) {
	app := filepath.Join(t.TempDir(), "app.log")
	put(t, app, strings.Repeat("x", 40)+"\nplain\n\nbad \xff\n")
	f := follow(t, &state{}, nil, "start_at: beginning, max_line_size: 16, include: ["+app+"]")
	f.want(strings.Repeat("x", 16), strings.Repeat("x", 16), strings.Repeat("x", 8), "plain", "", "bad \xff")
	f.mu.Lock()
	defer f.mu.Unlock()
	var parts []string
	for i, a := range f.attrs {
		for _, key := range []string{file.PartAttr, file.InvalidAttr} {
			if v, ok := a.Get(key); ok {
				parts = append(parts, fmt.Sprint(i, " ", key, " ", v))
			}
		}
	}
	if want := []string{"0 creel.line start", "1 creel.line middle", "2 creel.line end", "5 creel.invalid_utf8 true"}; !slices.Equal(parts, want) {
		t.Errorf("marked are %q, want %q", parts, want)
	}
}

// TestHugeLine: a line of 100 MB comes in parts of max_line_size, whole, and the next line after it.
func TestHugeLine(t *testing.T) {
	size := 100 << 20
	if testing.Short() {
		size = 16 << 20
	}
	app := filepath.Join(t.TempDir(), "app.log")
	put(t, app, strings.Repeat("x", size)+"\nafter\n")
	f := follow(t, &state{}, nil, "start_at: beginning, max_line_size: 4MiB, include: ["+app+"]")
	want := slices.Repeat([]string{strings.Repeat("x", 4<<20)}, size>>22)
	f.await(func() bool { return slices.Equal(f.lines, append(want, "after")) })
}

// TestFair: while a large file is read, small ones have their turn.
func TestFair(t *testing.T) {
	const lines, small = 20_000, 100
	dir := t.TempDir()
	put(t, filepath.Join(dir, "a-large.log"), strings.Repeat("a line of the large file\n", lines))
	for i := range small {
		put(t, filepath.Join(dir, fmt.Sprintf("small-%d.log", i)), "small\n")
	}
	f := follow(t, &state{}, nil, "start_at: beginning, read_size: 4KiB, include: ["+dir+"/*.log]")
	f.await(func() bool { return len(f.lines) == lines+small })
	f.mu.Lock()
	defer f.mu.Unlock()
	last := 0
	for i, l := range f.lines {
		if l == "small" {
			last = i
		}
	}
	if last > lines/4 {
		t.Errorf("the last small file was read after %d lines of the large one", last)
	}
}

type lockedBuilder struct {
	mu sync.Mutex
	strings.Builder
}

func (b *lockedBuilder) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Builder.Write(p)
}

// TestUnreadable: what cannot be read is named once, and the rest is read; so it is when it becomes readable.
func TestUnreadable(t *testing.T) {
	dir := t.TempDir()
	loop := filepath.Join(dir, "loop.log")
	if err := os.Symlink(loop, loop); err != nil {
		t.Skip(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "folder.log"), 0o700); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "good.log"), "good\n")
	var log lockedBuilder
	f := follow(t, &state{}, &log, "start_at: beginning, include: ["+dir+"/*.log]")
	f.want("good")
	for range 20 { // many looks
		put(t, filepath.Join(dir, "good.log"), "more\n")
		time.Sleep(2 * time.Millisecond)
	}
	if err := os.Remove(loop); err != nil {
		t.Fatal(err)
	}
	put(t, loop, "mended\n")
	want := []string{"good", "mended"}
	for range 20 {
		want = append(want, "more")
	}
	f.want(want...)
	f.end()
	if n := strings.Count(log.String(), "path="+loop); n != 1 {
		t.Errorf("the file that cannot be read was named %d times: %s", n, log.String())
	}
}

// TestDamagedState: positions that cannot be read cost duplicates, never a refusal.
func TestDamagedState(t *testing.T) {
	for _, data := range []string{"garbage", `{"version":7}`, `{"version":1,"files":[{"offset":-5,"print_size":-1},{"offset":99999999,"path":"x"}]}`} {
		app := filepath.Join(t.TempDir(), "app.log")
		put(t, app, "line\n")
		f := follow(t, &state{data: []byte(data), version: 3}, nil, "start_at: beginning, include: ["+app+"]")
		f.want("line")
		f.end()
	}
}

func TestConformance(t *testing.T) {
	app := filepath.Join(t.TempDir(), "app.log")
	plugintest.Run(t, file.Plugin, plugintest.Options{Config: "{include: [" + app + "], start_at: beginning, poll_interval: 2ms}", Feed: func() error {
		put(t, app, "line\n")
		return nil
	}})
}
