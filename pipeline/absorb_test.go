package pipeline_test

import (
	"context"
	"testing"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/pipeline"
	"github.com/creelhq/creel/plugins/dedup"
	"github.com/creelhq/creel/plugins/generate"
	"github.com/creelhq/creel/plugins/null"
)

// TestAbsorbedRecordsTakeNoRoom: what a processor has worked into a record that it holds does not fill the queue behind it,
// so that far more can be absorbed in an interval than the queue has room for.
func TestAbsorbedRecordsTakeNoRoom(t *testing.T) {
	const records = 5000
	root, err := config.Parse("test.yaml", []byte(`
collectors: {generate: {rate: 0, count: 5000}}
processors: {dedup: {interval: 1h, by: [severity]}}
exporters: {"null": {delivery: {queue: {max_bytes: 256KiB}}}}
pipelines: {p: {from: [generate], through: [dedup], to: ["null"]}}`), config.Env{})
	if err != nil {
		t.Fatal(err)
	}
	plan, err := pipeline.Compile(root, []creel.Plugin{generate.Plugin, dedup.Plugin, null.Plugin}, nil)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	e := w.engine()
	if _, err := e.Apply(context.Background(), plan); err != nil {
		t.Fatal(err)
	}
	w.await("all records are taken", func() bool { return e.Ledger().Pipelines[0].Accepted == records })
	if err := e.Drain(context.Background()); err != nil {
		t.Fatal(err)
	}
	if p := e.Ledger().Pipelines[0]; p.Unexplained != 0 || p.Absorbed+p.Passed != records+p.Created || p.Absorbed < records/2 {
		t.Errorf("the books say %+v", p)
	}
}
