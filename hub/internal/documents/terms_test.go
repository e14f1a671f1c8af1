package documents_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/expr"
	"github.com/creelhq/creel/hub/internal/documents"
	"github.com/creelhq/creel/hub/internal/state"
)

// TestTerms: what a text says of overlap and orphans is what its owners are offered, each in the epoch of its own; and what makes no
// sense is refused where it stands.
func TestTerms(t *testing.T) {
	s := new(state.Memory).Open()
	d := open(t, s, documents.Options{})
	value, err := json.Marshal(documents.Owners{Epoch: 9, Owners: []documents.Owner{
		{Agent: "ann", Epoch: 9, From: "old", FromEpoch: 3}, {Agent: "ben", Epoch: 5}, {From: "leaving", FromEpoch: 6},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(t.Context(), "placements/p", value, false, state.Always()); err != nil {
		t.Fatal(err)
	}
	apply(t, d, "document: all\nexporters: {debug/all: {}}")
	for _, c := range []struct {
		terms     string
		exclusive bool
		orphan    time.Duration
	}{
		{"", false, control.Forever},
		{"overlap: allow\norphan: keep\n", false, control.Forever},
		{"orphan: stop\n", false, 0},
		{"orphan: 10m\n", false, 10 * time.Minute},
		{"orphan: 1d12h\n", false, 36 * time.Hour},
		{"overlap: never\n", true, 0},
		{"overlap: never\norphan: stop\n", true, 0},
	} {
		apply(t, d, "document: p\nplace: 3\n"+c.terms+"exporters: {debug: {}}")
		var set *documents.Set
		await(t, d, "where it is", func(now *documents.Set) bool {
			set = now
			return len(now.For(map[string]string{documents.AgentLabel: "ben"}).Offer.Documents) == 2
		})
		for agent, epoch := range map[string]int64{"ann": 9, "old": 3, "ben": 5, "leaving": 0, "other": 0} {
			p := set.For(map[string]string{documents.AgentLabel: agent})
			var got control.Tenure
			for _, x := range p.Offer.Documents {
				if x.Name == "p" {
					got = x.Tenure
				} else if x.Tenure != (control.Tenure{}) {
					t.Errorf("a document that all have has the tenure %+v", x.Tenure)
				}
			}
			want := control.Tenure{Epoch: epoch, Exclusive: c.exclusive, Orphan: c.orphan}
			if epoch == 0 {
				want = control.Tenure{}
			}
			if got != want || (p.Exclusive["p"] != 0) != (c.exclusive && epoch != 0) {
				t.Errorf("%q: agent %s has the tenure %+v, want %+v; exclusive: %v", c.terms, agent, got, want, p.Exclusive)
			}
		}
		if one := set.For(map[string]string{documents.AgentLabel: "x"}); one != set.For(map[string]string{documents.AgentLabel: "leaving"}) {
			t.Error("agents without placed documents do not share what they are offered")
		}
	}
	for text, want := range map[string]string{
		"document: x\nplace: 2\noverlap: maybe":               "line 3, column 10: overlap: must be allow, so",
		"document: x\nplace: 2\norphan: soon":                 "line 3, column 9: orphan: must be keep, so",
		"document: x\nplace: 2\norphan: -5s":                  "line 3, column 9: orphan: must be keep, so",
		"document: x\nplace: 2\noverlap: never\norphan: 10m":  "line 4, column 9: orphan: must be stop where overlap is never",
		"document: x\nplace: 2\noverlap: never\norphan: keep": "line 4, column 9: orphan: must be stop where overlap is never",
		"document: x\noverlap: never":                         "line 2, column 1: overlap: means nothing where every agent",
		"document: x\nplace: all\norphan: stop":               "line 3, column 1: orphan: means nothing where every agent",
	} {
		_, err := d.Apply(t.Context(), "ann", expr.Selector{}, api.DocumentChange{Text: text})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// TestConfirm: what an agent has is confirmed for as long as it has it, and whoever writes otherwise at the same time fails.
func TestConfirm(t *testing.T) {
	s := new(state.Memory).Open()
	d := open(t, s, documents.Options{})
	apply(t, d, "document: p\nplace: 1\noverlap: never\nexporters: {debug: {}}")
	if err := d.Place(t.Context(), "p", documents.Owners{}, documents.Owners{Epoch: 4, Owners: []documents.Owner{{Agent: "ann", Epoch: 4}}}); err != nil {
		t.Fatal(err)
	}
	var before documents.Floating
	await(t, d, "where it is", func(*documents.Set) bool {
		list, _ := d.Floating()
		before = list[0]
		return before.Owners.Epoch == 4
	})
	if err := d.Confirm(t.Context(), "ann", 3, map[string]int64{"p": 4}); err != nil {
		t.Fatal(err)
	}
	if err := d.Place(t.Context(), "p", before.Owners, documents.Owners{Epoch: 5, Owners: []documents.Owner{{Agent: "ben", Epoch: 5}}}); err != state.ErrConflict {
		t.Errorf("who has not heard of that gives it to another: %v", err)
	}
	for agent, epoch := range map[string]int64{"ann": 3, "ben": 4} {
		if err := d.Confirm(t.Context(), agent, 3, map[string]int64{"p": epoch}); err != state.ErrConflict {
			t.Errorf("agent %s has it in epoch %d: %v", agent, epoch, err)
		}
	}
}
