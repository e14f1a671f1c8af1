package host

import (
	"context"
	"testing"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
)

// sink keeps what is sent to it.
type sink struct{ batches []*creel.Batch }

func (s *sink) Send(_ context.Context, b *creel.Batch) error {
	s.batches = append(s.batches, b)
	return nil
}

func (s *sink) TrySend(b *creel.Batch) bool { return s.Send(context.Background(), b) == nil }

// key names a series.
func key(m *creel.Metric) string { return m.Desc.Name + string(m.Attrs.Append(nil)) }

func defaults(t testing.TB) []byte {
	t.Helper()
	n, err := config.Parse("test.yaml", []byte("{}"), config.Env{})
	if err != nil {
		t.Fatal(err)
	}
	cfg, errs := Plugin.Config.Check(n)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	return cfg
}

// TestThisMachine runs on every system: two rounds as the scheduler would have them.
func TestThisMachine(t *testing.T) {
	opened, err := Plugin.Open(defaults(t), creel.Host{Resource: creel.Resource{Attrs: creel.Attrs{attr("host.name", "here")}}})
	if err != nil {
		t.Fatal(err)
	}
	var out sink
	for range 2 {
		if err := opened.(creel.Collector).Collect(t.Context(), &out); err != nil {
			t.Fatal(err)
		}
	}
	if len(out.batches) != 2 {
		t.Fatalf("got %d batches from two rounds", len(out.batches))
	}
	first := map[string]creel.Metric{}
	for _, m := range out.batches[0].Metrics() {
		if _, twice := first[key(&m)]; twice {
			t.Errorf("%s is there twice", key(&m))
		}
		first[key(&m)] = m
		if m.Origin.Resource.Attrs[0].Value.Str() != "here" {
			t.Errorf("%s lacks the host's resource", key(&m))
		}
		if m.Desc.Kind == creel.Sum && (m.Start == 0 || m.Start > m.Time) {
			t.Errorf("%s starts at %d, after its time %d", key(&m), m.Start, m.Time)
		}
	}
	compared := 0
	for _, m := range out.batches[1].Metrics() {
		before, ok := first[key(&m)]
		if !ok || !m.Desc.Monotonic {
			continue
		}
		compared++
		if m.Start != before.Start || m.Time < before.Time {
			t.Errorf("%s went from %d-%d to %d-%d", key(&m), before.Start, before.Time, m.Start, m.Time)
		}
		// The kernel's idle and iowait may step back a little.
		if m.Desc != cpuTime && (m.Value.Int() < before.Value.Int() || m.Value.Double() < before.Value.Double()) {
			t.Errorf("%s fell from %v to %v", key(&m), before.Value, m.Value)
		}
	}
	if compared < 10 {
		t.Errorf("only %d counters were in both rounds", compared)
	}
}

func TestOptions(t *testing.T) {
	f := func(yaml string, ok bool) {
		t.Helper()
		n, err := config.Parse("test.yaml", []byte(yaml), config.Env{})
		if err != nil {
			t.Fatal(err)
		}
		cfg, errs := Plugin.Config.Check(n)
		if len(errs) == 0 {
			_, err = Plugin.Open(cfg, creel.Host{})
		}
		if got := len(errs) == 0 && err == nil; got != ok {
			t.Errorf("%s: accepted %v, want %v (%v, %v)", yaml, got, ok, errs, err)
		}
	}
	f(`{}`, true)
	f(`collect: [cpu, swap]`, true)
	f(`{collect: [cpu], per_cpu: true}`, true)
	f(`collect: []`, false)
	f(`collect: [cpu, cpu]`, false)
	f(`collect: [gpu]`, false)
}
