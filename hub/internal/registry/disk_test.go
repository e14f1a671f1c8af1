package registry

import (
	"cmp"
	"fmt"
	"slices"
	"testing"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/report"
)

// TestDisk: the disk queues of an agent together.
func TestDisk(t *testing.T) {
	f := func(want api.Disk, spools ...report.Spool) {
		t.Helper()
		components := []report.Component{{Component: "collectors.host"}}
		for i, s := range spools {
			components = append(components, report.Component{Component: "exporters." + string(rune('a'+i)), Spool: &s})
		}
		if got := disk(components); got == nil || *got != want {
			t.Errorf("%+v are together %+v, want %+v", spools, got, want)
		}
	}
	if d := disk([]report.Component{{Component: "exporters.a"}}); d != nil {
		t.Errorf("an agent without disk queues has %+v", d)
	}
	calm := report.Spool{Bytes: 1, Limit: 10}
	fills := report.Spool{Bytes: 5, Limit: 10, Waiting: 3, FullIn: 60}
	sooner := report.Spool{Bytes: 6, Limit: 10, Waiting: 4, FullIn: 30}
	full := report.Spool{Bytes: 10, Limit: 10, Waiting: 9, Full: true}
	empties := report.Spool{Bytes: 2, Limit: 10, Waiting: 2, Replaying: true, EmptyIn: 20}
	later := report.Spool{Bytes: 3, Limit: 10, Waiting: 5, Replaying: true, EmptyIn: 40}
	f(api.Disk{Bytes: 1, Limit: 10}, calm)
	f(api.Disk{Bytes: 5, Limit: 10, Waiting: 3, FullIn: 60, Exporter: "a"}, fills)
	f(api.Disk{Bytes: 12, Limit: 30, Waiting: 7, FullIn: 30, Exporter: "b"}, fills, sooner, calm)
	f(api.Disk{Bytes: 12, Limit: 30, Waiting: 7, FullIn: 30, Exporter: "b"}, calm, sooner, fills)
	f(api.Disk{Bytes: 16, Limit: 20, Waiting: 13, Full: true, Exporter: "b"}, sooner, full)
	f(api.Disk{Bytes: 16, Limit: 20, Waiting: 13, Full: true, Exporter: "a"}, full, sooner)
	f(api.Disk{Bytes: 6, Limit: 30, Waiting: 7, Replaying: true, EmptyIn: 40}, empties, later, calm)
	f(api.Disk{Bytes: 10, Limit: 30, Waiting: 10, Replaying: true, FullIn: 60, Exporter: "c"}, empties, later, fills) // which does not empty
}

// TestWorstFirst: a full disk queue before one that fills before the rest, within each status; and pages follow on one
// another in that order.
func TestWorstFirst(t *testing.T) {
	spools := []*api.Disk{{Full: true}, {FullIn: 3600}, {FullIn: 1}, {Waiting: 7}, nil}
	ranks := []int{0, 1, 1, 2, 2}
	var rows, want []api.Agent
	for i, status := range worst {
		for j, d := range spools {
			a := api.Agent{Connection: api.Connected, Health: status, Disk: d, Name: fmt.Sprintf("name-%d", 9-j), ID: fmt.Sprint(i, j)}
			if status == string(api.Lost) || status == string(api.Disconnected) {
				a.Connection, a.Health = api.Connection(status), report.Healthy
			}
			rows = append(rows, a)
		}
		group := slices.Clone(rows[len(rows)-len(spools):])
		at := func(a api.Agent) int { return ranks[slices.Index(spools, a.Disk)] }
		slices.SortFunc(group, func(a, b api.Agent) int { return cmp.Or(cmp.Compare(at(a), at(b)), cmp.Compare(a.Name, b.Name)) })
		want = append(want, group...)
	}
	slices.Reverse(rows)
	slices.SortFunc(rows, func(a, b api.Agent) int { return keyOf(&a).compare(keyOf(&b)) })
	for i := range rows {
		if rows[i].ID != want[i].ID {
			t.Errorf("row %d is %+v, want %+v", i, rows[i], want[i])
		}
		k := keyOf(&rows[i])
		if back, err := cursor(k.cursor()); err != nil || *back != k {
			t.Errorf("the cursor of %+v leads to %+v (%v)", k, back, err)
		}
	}
}
