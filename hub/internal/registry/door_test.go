package registry_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/hub/internal/admission"
	"github.com/creelhq/creel/hub/internal/registry"
	"github.com/creelhq/creel/report"
)

// TestRecordsThatNeverCame: an agent calls more delivered than the hub took. After a while it is shown as degraded, though it
// knows nothing of it; when the missing come after all it is healthy again; and its next run begins with books of its own.
func TestRecordsThatNeverCame(t *testing.T) {
	door := admission.New(admission.Options{Records: 1000})
	w := newWorld(t, registry.Options{Door: door, Patience: 200 * time.Millisecond})
	sent := &atomic.Int64{}
	f := w.agentThatSends("alpha", sent)
	from := creel.Sender{Agent: f.id, Started: f.started, Exporter: "otlp"}
	took := func(n int) {
		if err := door.Admit(creel.Caller{}, from, creel.Logs, n, 10*n); err != nil {
			t.Error(err)
		}
		door.Took(from, creel.ID{}, creel.Logs, n)
	}
	w.await(f.id, "connected", connected)
	took(100)
	sent.Store(100)
	d := w.await(f.id, "compared", func(d api.AgentDetail) bool { return len(d.Hops) == 1 && d.Hops[0].Sent == 100 })
	if h := d.Hops[0]; h.Exporter != "otlp" || h.Taken != 100 || h.Unexplained != 0 || h.Settling || h.Since.IsZero() || d.Unexplained != 0 {
		t.Errorf("the hop is %+v", h)
	}
	if d.Intake == nil || *d.Intake != (api.Intake{Requests: 1, Records: 100, Bytes: 1000}) {
		t.Errorf("let in: %+v", d.Intake)
	}
	sent.Store(112)
	d = w.await(f.id, "degraded", func(d api.AgentDetail) bool { return d.Health == report.Degraded })
	if d.Unexplained != 12 || !strings.HasPrefix(d.Cause, "exporters.otlp: 12 records ") || !strings.Contains(d.Cause, "it has sent 112, and the hub has taken 100") || d.Timeline[0].Kind != report.Degraded {
		t.Errorf("%d unexplained, the cause is %q, the timeline %+v", d.Unexplained, d.Cause, d.Timeline[0])
	}
	if n := w.reg.Counts(everybody)[report.Degraded]; n != 1 {
		t.Errorf("%d agents are degraded", n)
	}
	l, err := w.reg.Ledger(api.LedgerQuery{})
	if err != nil || len(l.Agents) != 1 || l.Agents[0].Name != "alpha" || l.Total.Unexplained != 12 || l.Total.Sent != 112 || l.Total.Taken != 100 || l.Total.Delivered != 112 {
		t.Errorf("the ledger is %+v, %v", l, err)
	}
	took(12)
	d = w.await(f.id, "healthy", func(d api.AgentDetail) bool { return d.Health == report.Healthy && d.Hops[0].Taken == 112 })
	if d.Timeline[0].Kind != report.Healthy || d.Unexplained != 0 {
		t.Errorf("the timeline is %+v", d.Timeline)
	}
	f.stop()
	f.started = f.started.Add(time.Hour)
	sent.Store(0)
	w.agentAgain(f, "alpha", sent)
	w.await(f.id, "in its next run", func(d api.AgentDetail) bool { return connected(d) && d.Started.Equal(f.started) && len(d.Hops) == 0 })
}

// TestLedgerOfTheFleet adds up, the worst first.
func TestLedgerOfTheFleet(t *testing.T) {
	w := newWorld(t, registry.Options{})
	for i, name := range []string{"a", "b", "c"} {
		sent := &atomic.Int64{}
		sent.Store(int64(1000 * (i + 1)))
		f := w.agentThatSends(name, sent)
		w.await(f.id, "heard", func(d api.AgentDetail) bool { return len(d.Ledger.Pipelines) > 0 })
	}
	l, err := w.reg.Ledger(api.LedgerQuery{Limit: 2})
	if err != nil || len(l.Agents) != 2 || l.LeftOut != 1 || l.Agents[0].Name != "c" || l.Agents[1].Name != "b" {
		t.Fatalf("the ledger is %+v, %v", l, err)
	}
	b := l.Total
	if b.Accepted != 6000+6+60 || b.Delivered != 6000 || b.Dropped["refused"] != 6 || b.Spooled != 60 || b.Sent != 0 || l.Agents[0].Accepted != 3033 {
		t.Errorf("the sums are %+v, and c's are %+v", b, l.Agents[0])
	}
	for _, limit := range []int{-1, 10_001} {
		if _, err := w.reg.Ledger(api.LedgerQuery{Limit: limit}); err == nil {
			t.Errorf("a limit of %d is taken", limit)
		}
	}
}
