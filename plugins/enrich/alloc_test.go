//go:build !race

package enrich

import (
	"context"
	"fmt"
	"testing"

	"github.com/creelhq/creel"
)

// TestAllocations: what is added to a record costs none, nor does looking it up.
func TestAllocations(t *testing.T) {
	f := func(yaml string) {
		t.Helper()
		var m creel.Memory
		p := mustOpen(t, yaml, host)
		settle := creel.NextFunc(func(b *creel.Batch) { creel.Settle(b, nil) })
		run := func(n int) float64 {
			return testing.AllocsPerRun(50, func() {
				if err := p.Process(context.Background(), batchOf(&m, n), settle); err != nil {
					t.Fatal(err)
				}
			})
		}
		if few, many := run(10), run(2000); many > few+2 {
			t.Errorf("%s: a batch of 10 records costs %v allocations, one of 2000 costs %v", yaml, few, many)
		}
	}
	f("{host: true, static: {resource: {a: b}, attributes: {c: d, e: f}}}")
	f(fmt.Sprintf("{host: true, lookup: ["+lookupOptions+"]}", file(t, tableOf(1000))))
	f(fmt.Sprintf("{lookup: ["+lookupOptions[:len(lookupOptions)-1]+", case_insensitive: true}]}", file(t, tableOf(10))))
}
