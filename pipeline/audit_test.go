package pipeline_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creelhq/creel/pipeline"
)

// audited lets the audit of e run until the test ends.
func audited(t *testing.T, e *pipeline.Engine, patience time.Duration) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { e.Audit(ctx, time.Millisecond, patience) })
	t.Cleanup(func() { cancel(); wg.Wait() })
}

// alarms returns what the components say of unexplained records.
func alarms(e *pipeline.Engine) (list []string) {
	for _, c := range e.Components() {
		if strings.Contains(c.Error, "unexplained") {
			list = append(list, c.Component+": "+c.Error)
		}
	}
	return list
}

// TestAuditIsNotWrong: whatever is going on, with exporters and collectors that fail, and reloads, the audit finds quiet
// moments, and never anything to complain of.
func TestAuditIsNotWrong(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	w := newWorld(t)
	w.faults = true
	e := w.engine()
	audited(t, e, 300*time.Millisecond)
	span := 10 * time.Second
	if testing.Short() {
		span = 3 * time.Second
	}
	reloads := 0
	for end := time.Now().Add(span); time.Now().Before(end); reloads++ {
		config := randomConfig(r)
		w.apply(e, config)
		stay := time.Duration(r.IntN(30)) * time.Millisecond
		if r.IntN(20) == 0 {
			stay = 600 * time.Millisecond // long enough to be wrong
		}
		time.Sleep(stay) // load, not synchronisation
		if wrong := alarms(e); len(wrong) > 0 {
			t.Fatalf("after %d reloads: %s\n%+v", reloads, wrong, e.Ledger())
		}
	}
	if err := e.Drain(context.Background()); err != nil {
		t.Fatal(err)
	}
	p, x, s := e.Moments()
	t.Logf("%d reloads, %d faults; quiet moments: %d of pipelines, %d of exporters, %d of disk queues", reloads, w.injected.Load(), p, x, s)
	if p < 100 || x < 100 || s < 20 || w.injected.Load() == 0 {
		t.Error("the test tests nothing")
	}
}

// TestAuditFinds: what is missing, or counted twice, is found while records flow, each where it is; and it is over when it is
// explained.
func TestAuditFinds(t *testing.T) {
	for _, lost := range []int64{12, -1} {
		w := newWorld(t)
		e := w.engine()
		audited(t, e, 20*time.Millisecond)
		w.apply(e, strings.Replace(one("gen", "", small+", spool: {min_free: 0}", "memory"), "ack: memory", "ack: process", 1))
		w.await("records flow", func() bool { return len(w.arrived["sink"]) > 100 })
		if got := alarms(e); len(got) > 0 {
			t.Fatal(got)
		}
		since := fmt.Sprintf("are unexplained since %d-", time.Now().Year())
		for _, c := range []struct {
			pipeline, exporter, disk int64
			want                     string
		}{
			{lost, 0, 0, fmt.Sprintf("pipelines.p: %d records ", lost)},
			{0, lost, 0, fmt.Sprintf("exporters.sink: %d records of pipeline p ", lost)},
			{0, 0, lost, fmt.Sprintf("exporters.sink: %d records of its disk queue ", lost)},
		} {
			e.Lose("p", c.pipeline, c.exporter, c.disk)
			w.await(c.want, func() bool {
				return slices.ContainsFunc(alarms(e), func(s string) bool { return strings.HasPrefix(s, c.want+since) })
			})
			e.Lose("p", -c.pipeline, -c.exporter, -c.disk)
			w.await("the books balance again", func() bool { return len(alarms(e)) == 0 })
		}
	}
}
