package pipeline_test

import (
	"context"
	"testing"
)

// TestPipelineWithoutExporters: what its processors do not send elsewhere has nowhere to go, and is filtered.
func TestPipelineWithoutExporters(t *testing.T) {
	w := newWorld(t)
	e := w.engine()
	w.apply(e, "collectors: {manual: }\nprocessors: {route: {to: side}}\nexporters: {sink: }\npipelines: {p: {from: [manual], through: [route]}, side: {to: [sink]}}")
	w.await("all is settled", func() bool { return len(w.results) == 4 })
	if err := e.Drain(context.Background()); err != nil {
		t.Fatal(err)
	}
	for record, results := range w.results {
		if len(results) != 1 || results[0] != nil {
			t.Errorf("%s was settled as %v", record, results)
		}
	}
	for _, p := range e.Ledger().Pipelines {
		if p.Unexplained != 0 || p.Pipeline == "p" && (p.Filtered != 2 || p.Routed != 2 || p.Passed != 0) {
			t.Errorf("the books say %+v", p)
		}
	}
}
