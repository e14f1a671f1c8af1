package generate_test

import (
	"context"
	"testing"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/plugin/plugintest"
	"github.com/creelhq/creel/plugins/generate"
)

func TestConformance(t *testing.T) {
	for _, signal := range []string{"logs", "metrics", "traces"} {
		t.Run(signal, func(t *testing.T) {
			plugintest.Run(t, generate.Plugin, plugintest.Options{Config: "{signal: " + signal + ", rate: 1000}"})
		})
	}
}

// upTo is a sink that ends the collection after n records.
type upTo struct {
	n      int
	cancel context.CancelFunc
	seen   []*creel.Batch
}

func (u *upTo) Send(_ context.Context, b *creel.Batch) error {
	u.seen = append(u.seen, b)
	if u.n -= b.Len(); u.n <= 0 {
		u.cancel()
	}
	return nil
}

func (u *upTo) TrySend(b *creel.Batch) bool { return u.Send(context.Background(), b) == nil }

func collect(t *testing.T, config string, n int) []*creel.Batch {
	t.Helper()
	c, err := generate.Plugin.Open([]byte(config), creel.Host{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	out := &upTo{n: n, cancel: cancel}
	_ = c.(creel.Collector).Collect(ctx, out) // it ends because it is told to
	return out.seen
}

// TestSameSeed: the same seed makes the same records, each once and in order, and no more than count.
func TestSameSeed(t *testing.T) {
	const options = `{"signal":"logs","rate":0,"count":950,"batch":100,"size":40,"services":2,"series":1,"seed":`
	var bodies [3][]string
	for i, seed := range []string{"1}", "1}", "2}"} {
		n := int64(0)
		for _, b := range collect(t, options+seed, 950) {
			for _, l := range b.Logs() {
				if v, _ := l.Attrs.Get("generate.sequence"); v.Int() != n || len(l.Body.Str()) != 40 {
					t.Fatalf("record %d has number %d and a body of %d bytes", n, v.Int(), len(l.Body.Str()))
				}
				bodies[i] = append(bodies[i], l.Body.Str())
				n++
			}
		}
		if n != 950 {
			t.Fatalf("made %d records, not 950", n)
		}
	}
	same := 0
	for i := range bodies[0] {
		if bodies[0][i] != bodies[1][i] {
			t.Fatalf("record %d differs between two runs with one seed", i)
		}
		if bodies[0][i] == bodies[2][i] {
			same++
		}
	}
	if same > 10 {
		t.Errorf("%d of 950 records are the same with another seed", same)
	}
}

// TestTracesHaveRoots: every parent is a span of the same trace.
func TestTracesHaveRoots(t *testing.T) {
	roots := map[creel.TraceID]creel.SpanID{}
	for _, b := range collect(t, `{"signal":"traces","rate":0,"count":0,"batch":100,"size":0,"services":3,"series":1,"seed":1}`, 1000) {
		for _, s := range b.Spans() {
			if s.Parent == (creel.SpanID{}) {
				roots[s.TraceID] = s.SpanID
			} else if roots[s.TraceID] != s.Parent {
				t.Fatalf("span %v of trace %v has a parent that is not there", s.SpanID, s.TraceID)
			}
		}
	}
	if len(roots) < 100 {
		t.Errorf("1000 spans are %d traces", len(roots))
	}
}
