//go:build !race

package creel_test

import (
	"testing"

	"github.com/creelhq/creel"
)

func TestAllocations(t *testing.T) {
	attrs := creel.Attrs{{Key: "a", Value: creel.Int(1)}, {Key: "b", Value: creel.Int(2)}}
	s := "text"
	if n := testing.AllocsPerRun(100, func() {
		v := creel.String(s)
		attrs.Set("b", v)
		if got, _ := attrs.Get("b"); got.Str() != s {
			t.Fatal("lost")
		}
	}); n != 0 {
		t.Errorf("setting and getting an attribute allocates %v times", n)
	}
	var m creel.Memory
	if n := testing.AllocsPerRun(100, func() { extend(t, &m) }); n > 1.5 { // the Batch itself; a pool may be emptied once
		t.Errorf("adding attributes to decoded records allocates %v times", n)
	}
	run := func(records int) float64 {
		return testing.AllocsPerRun(100, func() {
			r := m.NewRecords()
			for range records {
				a := creel.Attrs(r.Attrs.Make(2))
				a[0], a[1] = attrs[0], attrs[1]
				r.Logs = append(r.Logs, creel.Log{Attrs: a})
			}
			b := creel.NewBatch(creel.Logs, r)
			b.EditLogs()[0].Body = creel.Int(1)
			b.Keep(func(i int) bool { return i > 0 })
			creel.Settle(b, nil)
		})
	}
	if few, many := run(10), run(5000); many > few+2 {
		t.Errorf("a batch of 10 records costs %v allocations, one of 5000 costs %v", few, many)
	}
}
