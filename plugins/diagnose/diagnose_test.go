package diagnose_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"runtime/metrics"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/plugin/plugintest"
	"github.com/creelhq/creel/plugins/diagnose"
)

func TestConformance(t *testing.T) {
	plugintest.Run(t, diagnose.Plugin, plugintest.Options{})
	plugintest.Run(t, diagnose.Plugin, plugintest.Options{Config: "{collect: [cpu], duration: 10ms}"})
}

// sink keeps what it gets, by its type.
type sink struct {
	logs map[string]creel.Log
}

func (s *sink) Send(_ context.Context, b *creel.Batch) error {
	for _, l := range b.Logs() {
		name, _ := l.Attrs.Get("profile.type")
		s.logs[name.Str()] = l
	}
	return nil
}

func (s *sink) TrySend(*creel.Batch) bool { panic("BUG: a collector that may wait does") }

func round(ctx context.Context, t *testing.T, c diagnose.Config) (map[string]creel.Log, error) {
	t.Helper()
	collector, err := diagnose.New(c, creel.Host{})
	if err != nil {
		t.Fatal(err)
	}
	s := &sink{logs: map[string]creel.Log{}}
	err = collector.Collect(ctx, s)
	return s.logs, err
}

const large = config.Size(8 << 20)

func TestEverything(t *testing.T) {
	all := []string{"goroutines", "heap", "allocs", "cpu", "threads", "metrics"}
	logs, err := round(t.Context(), t, diagnose.Config{Collect: all, Duration: 10 * time.Millisecond, MaxSize: large})
	if err != nil || len(logs) != len(all) {
		t.Fatalf("got %d logs, %v", len(logs), err)
	}
	for _, name := range []string{"goroutines", "metrics"} {
		l := logs[name]
		kind, _ := l.Attrs.Get("content.type")
		size, _ := l.Attrs.Get("profile.size")
		if kind.Str() != "text/plain; charset=utf-8" || int(size.Int()) != len(l.Body.Str()) {
			t.Errorf("%s: %v", name, l.Attrs)
		}
	}
	if text := logs["goroutines"].Body.Str(); !strings.HasPrefix(text, "goroutine profile: total ") || !strings.Contains(text, "TestEverything") {
		t.Errorf("goroutines are %s", text)
	}
	text := logs["metrics"].Body.Str()
	for _, d := range metrics.All() {
		if !strings.Contains(text, d.Name+" ") {
			t.Errorf("metrics lack %s", d.Name)
		}
	}
	for _, name := range []string{"heap", "allocs", "cpu", "threads"} {
		l := logs[name]
		kind, _ := l.Attrs.Get("content.type")
		z, err := gzip.NewReader(bytes.NewReader(l.Body.Bytes()))
		if err != nil || kind.Str() != "application/octet-stream" {
			t.Errorf("%s: %v, %v", name, err, l.Attrs)
			continue
		}
		if profile, err := io.ReadAll(z); err != nil || len(profile) == 0 {
			t.Errorf("%s: %d bytes, %v", name, len(profile), err)
		}
	}
}

func TestSizesAreBounded(t *testing.T) {
	logs, err := round(t.Context(), t, diagnose.Config{Collect: []string{"heap", "metrics"}, MaxSize: 64})
	if err == nil || !strings.Contains(err.Error(), "take heap: it has ") || len(logs) != 1 {
		t.Errorf("got %d logs, %v", len(logs), err)
	}
	l := logs["metrics"]
	size, _ := l.Attrs.Get("profile.size")
	if cut, _ := l.Attrs.Get("profile.truncated"); !cut.Bool() || len(l.Body.Str()) != 64 || size.Int() <= 64 {
		t.Errorf("got %d bytes, %v", len(l.Body.Str()), l.Attrs)
	}
}

func TestOneCPUProfileAtATime(t *testing.T) {
	if err := pprof.StartCPUProfile(io.Discard); err != nil {
		t.Fatal(err)
	}
	logs, err := round(t.Context(), t, diagnose.Config{Collect: []string{"cpu", "threads"}, Duration: time.Hour, MaxSize: large})
	pprof.StopCPUProfile()
	if err == nil || !strings.Contains(err.Error(), "take cpu: another CPU profile of this process is being taken") || len(logs) != 1 {
		t.Errorf("got %d logs, %v", len(logs), err)
	}
}

// TestCancel: a profile that is given up is over, and does not stand in the way of the next.
func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ctx = creel.WithYielder(ctx, parked(cancel))
	logs, err := round(ctx, t, diagnose.Config{Collect: []string{"cpu"}, Duration: time.Hour, MaxSize: large})
	if !errors.Is(err, context.Canceled) || len(logs) != 0 {
		t.Errorf("got %d logs, %v", len(logs), err)
	}
	if err := pprof.StartCPUProfile(io.Discard); err != nil {
		t.Error(err)
	}
	pprof.StopCPUProfile()
}

// parked is a scheduler that calls itself when a round has given up its slot.
type parked func()

func (parked) Yield(context.Context) error      { return nil }
func (p parked) Park()                          { p() }
func (parked) Unpark(ctx context.Context) error { return ctx.Err() }

func TestConfig(t *testing.T) {
	for yaml, want := range map[string]string{"{collect: []}": "at least one", "{collect: [cpu, cpu]}": "names cpu twice", "{duration: 1m}": "at most 30s"} {
		n, err := config.Parse("c.yaml", []byte(yaml), config.Env{})
		if err != nil {
			t.Fatal(err)
		}
		if _, errs := diagnose.Plugin.Config.Check(n); len(errs) == 0 || !strings.Contains(errs.Error(), want) {
			t.Errorf("%s: got %v", yaml, errs)
		}
	}
}
