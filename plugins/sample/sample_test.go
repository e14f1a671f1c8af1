package sample_test

import (
	"context"
	"math/rand/v2"
	"testing"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/plugins/sample"
)

// kept opens the processor with a rate and returns which of the spans it lets through.
func kept(t *testing.T, rate string, spans []creel.Span) map[creel.TraceID]int {
	t.Helper()
	p, err := sample.Plugin.Open([]byte(`{"rate":`+rate+`}`), creel.Host{})
	if err != nil {
		t.Fatal(err)
	}
	out := map[creel.TraceID]int{}
	err = p.(creel.Processor).Process(context.Background(), creel.NewSpans(append([]creel.Span(nil), spans...)), creel.NextFunc(func(b *creel.Batch) {
		for _, s := range b.Spans() {
			out[s.TraceID]++
		}
	}))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestTracesAreKeptWhole: the share is right, all spans of a trace share one fate, every agent decides alike, and what a
// small share keeps, a larger one keeps as well.
func TestTracesAreKeptWhole(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var spans []creel.Span
	for range 20000 {
		var id creel.TraceID
		for i := range id {
			id[i] = byte(r.Uint32())
		}
		spans = append(spans, creel.Span{TraceID: id}, creel.Span{TraceID: id})
	}
	tenth, again, half := kept(t, "0.1", spans), kept(t, "0.1", spans), kept(t, "0.5", spans)
	if n := len(tenth); n < 1800 || n > 2200 {
		t.Errorf("a tenth of 20000 traces is %d", n)
	}
	for id, n := range tenth {
		if n != 2 || again[id] != 2 || half[id] != 2 {
			t.Fatalf("trace %v was kept %d times, then %d, and %d of a larger share", id, n, again[id], half[id])
		}
	}
	if all, nothing := kept(t, "1", spans), kept(t, "0", spans); len(all) != 20000 || len(nothing) != 0 {
		t.Errorf("all is %d, nothing is %d", len(all), len(nothing))
	}
}
