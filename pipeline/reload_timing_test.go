//go:build !race

package pipeline_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/pipeline"
)

// fleet is a graph of 200 components, each of whose 50 collectors sends as fast as it can.
type fleet struct {
	*pipeline.Engine
	plugins []creel.Plugin
	longest [50]atomic.Int64 // nanoseconds: between two batches that a collector has sent
}

func newFleet(t *testing.T) *fleet {
	f := &fleet{Engine: pipeline.New(pipeline.Options{})}
	var m creel.Memory
	f.plugins = []creel.Plugin{
		creel.NewCollector("in", "Sends as fast as it can.", func(_ none, h creel.Host) (creel.Collector, error) {
			var n int
			if _, err := fmt.Sscanf(h.ID, "in/%d", &n); err != nil {
				return nil, err
			}
			return creel.CollectorFunc(func(ctx context.Context, out creel.Sink) error {
				for last := time.Now(); ; {
					r := m.NewRecords()
					for range 100 {
						r.Logs = append(r.Logs, creel.Log{Body: creel.Int(1)})
					}
					b := creel.NewBatch(creel.Logs, r)
					if err := out.Send(ctx, b); err != nil {
						creel.Settle(b, err)
						return err
					}
					now := time.Now()
					if gap := int64(now.Sub(last)); gap > f.longest[n].Load() {
						f.longest[n].Store(gap)
					}
					last = now
				}
			}), nil
		}),
		creel.NewProcessor("pass", "Reads every record.", func(none, creel.Host) (creel.Processor, error) {
			return creel.ProcessorFunc(func(_ context.Context, b *creel.Batch, next creel.Next) error {
				logs := b.Logs()
				b.Keep(func(i int) bool { return logs[i].Severity >= 0 })
				next.Send(b)
				return nil
			}), nil
		}),
		creel.NewExporter("out", "Takes all.", func(none, creel.Host) (creel.Exporter, error) {
			return creel.ExporterFunc(func(context.Context, []*creel.Batch) error { return nil }), nil
		}),
	}
	t.Cleanup(func() {
		if err := f.Drain(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return f
}

// plan returns one whose processor pass/0 is of some variant.
func (f *fleet) plan(t *testing.T, variant int) *pipeline.Plan {
	t.Helper()
	var in, pass, out, pipes strings.Builder
	for i := range f.longest {
		fmt.Fprintf(&in, "  in/%d: {}\n", i)
		fmt.Fprintf(&out, "  out/%d: {delivery: {concurrency: 1, queue: {max_bytes: 64KiB}}}\n", i)
		fmt.Fprintf(&pass, "  pass/%d: {variant: %d}\n  pass/b%d: {}\n", i, variant*max(0, 1-i), i)
		fmt.Fprintf(&pipes, "  p%d: {from: [in/%d], through: [pass/%d, pass/b%d], to: [out/%d]}\n", i, i, i, i, i)
	}
	root, err := config.Parse("c", []byte("collectors:\n"+in.String()+"processors:\n"+pass.String()+"exporters:\n"+out.String()+"pipelines:\n"+pipes.String()), config.Env{})
	if err != nil {
		t.Fatal(err)
	}
	plan, err := pipeline.Compile(root, f.plugins, nil)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

// gaps returns the longest gap of the touched pipeline and of the others since the last call.
func (f *fleet) gaps() (touched, others time.Duration) {
	touched = time.Duration(f.longest[0].Swap(0))
	for i := range f.longest[1:] {
		others = max(others, time.Duration(f.longest[i+1].Swap(0)))
	}
	return touched, others
}

// TestReloadDisturbsNobody reloads one processor in a graph of 200 components under full load, again and again. Neither the
// other pipelines nor its own may stand still for that.
func TestReloadDisturbsNobody(t *testing.T) {
	const (
		most = 1.5                   // times the longest gap of the others without reloads
		own  = 10 * time.Millisecond // p99 of its own pause
	)
	phase, bound := 500*time.Millisecond, 20.0 // other tests and processes share the machine
	if *torture {
		phase, bound = 20*time.Second, most
	}
	f := newFleet(t)
	plans := []*pipeline.Plan{f.plan(t, 1), f.plan(t, 2)}
	if _, err := f.Apply(t.Context(), plans[0]); err != nil {
		t.Fatal(err)
	}
	time.Sleep(phase / 2) // it is under way
	for attempt := 1; ; attempt++ {
		f.gaps()
		time.Sleep(phase)
		ownWithout, without := f.gaps()
		var still, took []time.Duration
		for end := time.Now().Add(phase); time.Now().Before(end); time.Sleep(time.Millisecond) {
			r, err := f.Apply(t.Context(), plans[(len(still)+1)%2])
			if err != nil {
				t.Fatal(err)
			}
			if len(r.Change.Reopen) != 1 {
				t.Fatalf("a reload has changed %+v", r.Change)
			}
			still, took = append(still, r.Still), append(took, r.Took)
		}
		ownWith, with := f.gaps()
		slices.Sort(still)
		slices.Sort(took)
		p99 := func(list []time.Duration) time.Duration { return list[len(list)*99/100] }
		ratio := float64(with) / float64(without)
		t.Logf("%d reloads: longest gap of the others %v, without reloads %v: %.2f times (limit %v); of its own %v, without %v; its pause p99 %v (limit %v); a reload takes p50 %v, p99 %v",
			len(still), with, without, ratio, most, ownWith, ownWithout, p99(still), own, took[len(took)/2], p99(took))
		if ratio <= bound && (p99(still) <= own || !*torture) {
			return
		}
		if attempt == 3 {
			t.Fatalf("%.2f times the gap without reloads, want at most %v", ratio, bound)
		}
	}
}
