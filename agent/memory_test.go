//go:build linux && !race

package agent_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/report"
)

// A flood is what the plugins of TestMemoryLimit do and see, by their ids.
type flood struct {
	open map[string]chan struct{} // an exporter delivers once it is closed
	pace map[string]time.Duration // between two batches of a collector

	mu        sync.Mutex
	sent      map[string]int             // batches that were taken
	told      map[string][]int           // batches that are safe
	delivered map[string]map[string]bool // by exporter
}

const floodBatch = 256 << 10

func (f *flood) plugins() []creel.Plugin {
	type none struct{}
	return []creel.Plugin{
		creel.NewCollector("flood", "Sends as much as is taken.", func(_ none, h creel.Host) (creel.Collector, error) {
			return creel.CollectorFunc(func(ctx context.Context, out creel.Sink) error {
				for i := 0; ; i++ {
					text := make([]byte, floodBatch)
					for j := range text {
						text[j] = 'x'
					}
					b := creel.NewLogs([]creel.Log{{Body: creel.String(string(text)), Attrs: creel.Attrs{{Key: "id", Value: creel.String(fmt.Sprintf("%s#%d", h.ID, i))}}}})
					b.OnDone(func(err error) {
						if err == nil {
							f.note(func() { f.told[h.ID] = append(f.told[h.ID], i) })
						}
					})
					if err := out.Send(ctx, b); err != nil {
						creel.Settle(b, err)
						return err
					}
					f.note(func() { f.sent[h.ID]++ })
					if wait := f.pace[h.ID]; wait > 0 {
						select {
						case <-time.After(wait):
						case <-ctx.Done():
						}
					}
				}
			}), nil
		}),
		creel.NewExporter("sink", "Delivers when it may.", func(_ none, h creel.Host) (creel.Exporter, error) {
			return creel.ExporterFunc(func(ctx context.Context, batches []*creel.Batch) error {
				select {
				case <-f.open[h.ID]:
				case <-ctx.Done():
					return ctx.Err()
				}
				f.note(func() {
					for _, b := range batches {
						for _, l := range b.Logs() {
							id, _ := l.Attrs.Get("id")
							f.delivered[h.ID][strings.Clone(id.Str())] = true
						}
					}
				})
				return nil
			}), nil
		}),
	}
}

func (f *flood) note(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

func (f *flood) count(id string) (n int) {
	f.note(func() { n = f.sent[id] })
	return n
}

// status returns a number of bytes that /proc says of this process.
func status(t *testing.T, what string) (bytes int64) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, what+":"); ok {
			if _, err := fmt.Sscan(rest, &bytes); err != nil {
				t.Fatal(err)
			}
			return bytes << 10
		}
	}
	t.Fatalf("/proc/self/status does not say %s", what)
	return 0
}

const aloneEnv = "CREEL_TEST_ALONE"

// alone runs the test in a process of its own, and reports whether this is it.
func alone(t *testing.T) bool {
	if os.Getenv(aloneEnv) == t.Name() {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=2m")
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "GOMEMLIMIT=") && !strings.HasPrefix(v, "GOGC=") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, aloneEnv+"="+t.Name())
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
	return false
}

// TestMemoryLimit: with queues that are larger than the memory there is, a far side that does not answer, and collectors that
// send whatever is taken, the agent stays within its limit. The pipeline of high priority flows on; the other waits, or sheds
// what also goes elsewhere. Nothing is lost that was said to be safe and was not shed, and when the far side answers all is as
// before.
func TestMemoryLimit(t *testing.T) {
	if !alone(t) {
		return
	}
	const limit = 128 << 20
	f := &flood{
		open: map[string]chan struct{}{"sink/low": make(chan struct{}), "sink/high": make(chan struct{})},
		pace: map[string]time.Duration{"flood/high": 10 * time.Millisecond, "flood/both": 10 * time.Millisecond},
		sent: map[string]int{}, told: map[string][]int{}, delivered: map[string]map[string]bool{"sink/low": {}, "sink/high": {}},
	}
	close(f.open["sink/high"])
	r := start(t, `
agent: {memory: {limit: 128MiB}, drain: 20s}
collectors: {flood/low: , flood/high: , flood/both: }
exporters:
  sink/low: {delivery: {queue: {max_bytes: 1GiB}, timeout: 5m}}
  sink/high: {delivery: {queue: {max_bytes: 1GiB}}}
pipelines:
  low: {from: [flood/low, flood/both], to: [sink/low], priority: 1}
  high: {from: [flood/high, flood/both], to: [sink/high], priority: 8}
`, agent.Options{Plugins: f.plugins()})
	var most, mostAnon atomic.Int64
	watch, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for watch.Err() == nil {
			most.Store(max(most.Load(), status(t, "VmRSS")))
			mostAnon.Store(max(mostAnon.Load(), status(t, "RssAnon")))
			time.Sleep(5 * time.Millisecond)
		}
	})
	health := func() (h report.Health) {
		_, body := r.request("GET", "/healthz")
		if err := json.Unmarshal([]byte(body), &h); err != nil {
			t.Fatal(err)
		}
		return h
	}
	low := func() (p report.Pipeline) {
		_, body := r.request("GET", "/ledger")
		var l report.Ledger
		if err := json.Unmarshal([]byte(body), &l); err != nil {
			t.Fatal(err)
		}
		for _, p = range l.Pipelines {
			if p.Pipeline == "low" {
				return p
			}
		}
		t.Fatal("there is no pipeline low")
		return p
	}
	await(t, func() bool { return health().Health == report.Degraded })
	await(t, func() bool { return low().Dropped["shed"] > 0 })
	stuck, flowing := f.count("flood/low"), f.count("flood/high")
	t.Logf("under pressure: %+v; %d batches of low priority were taken", health().Degraded, stuck)
	await(t, func() bool { return f.count("flood/high") > flowing+300 })
	if c := health().Degraded; len(c) != 1 || c[0].Component != "memory" || !strings.Contains(c[0].Error, "of 128 MiB: pipelines below priority ") {
		t.Errorf("health says %+v", c)
	}
	if n := f.count("flood/low"); n > stuck+limit/20/floodBatch {
		t.Errorf("%d batches of low priority were taken under pressure", n-stuck)
	}
	shed := low().Dropped["shed"]
	t.Logf("after 300 batches of high priority: %+v; %d were shed; at most %d MiB, %d of them anonymous", health().Degraded, shed, most.Load()>>20, mostAnon.Load()>>20)
	close(f.open["sink/low"])
	began := time.Now()
	await(t, func() bool { return health().Health == report.Healthy })
	t.Logf("healthy again after %v", time.Since(began).Round(time.Millisecond))
	after := f.count("flood/low")
	await(t, func() bool { return f.count("flood/low") > after+300 })
	stop()
	wg.Wait()
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	t.Logf("at most %d MiB were resident, %d of them anonymous", most.Load()>>20, mostAnon.Load()>>20)
	if most.Load() > limit*11/10 {
		t.Errorf("%d MiB were resident, of %d", most.Load()>>20, limit>>20)
	}
	if log := r.log.String(); !strings.Contains(log, "memory is scarce") || !strings.Contains(log, "enough memory again") {
		t.Errorf("the log says %s", log)
	}
	f.note(func() {
		missing := 0
		for id, list := range f.told {
			for _, i := range list {
				name := fmt.Sprintf("%s#%d", id, i)
				if id == "flood/low" && !f.delivered["sink/low"][name] || id != "flood/low" && !f.delivered["sink/high"][name] {
					t.Fatalf("%s was said to be safe and is nowhere", name)
				}
				if id == "flood/both" && !f.delivered["sink/low"][name] {
					missing++
				}
			}
			if len(list) != f.sent[id] {
				t.Errorf("%s sent %d batches, and was told of %d", id, f.sent[id], len(list))
			}
		}
		if shed == 0 || missing < int(shed) {
			t.Errorf("%d were shed at first, %d in all", shed, missing)
		}
	})
}
