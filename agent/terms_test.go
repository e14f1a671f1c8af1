package agent

import (
	"strings"
	"testing"
	"time"

	"github.com/creelhq/creel/agent/change"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/pipeline"
)

// TestTermsMeanTenures: the pipelines are told what control.Tenure allows, for every lease and at every time.
func TestTermsMeanTenures(t *testing.T) {
	now := time.Now()
	for _, tenure := range []control.Tenure{
		{Epoch: 1}, {Epoch: 1, Exclusive: true}, {Epoch: 1, Exclusive: true, Orphan: time.Hour}, {Epoch: 1, Exclusive: true, Orphan: control.Forever},
		{Epoch: 1, Orphan: 30 * time.Second}, {Epoch: 1, Orphan: control.Forever},
	} {
		for _, leased := range []time.Time{{}, now, now.Add(-20 * time.Second), now.Add(15 * time.Second)} {
			for at := -time.Minute; at <= time.Minute; at += 5 * time.Second {
				if got, want := termsOf("d", tenure, leased).Allow(now.Add(at)), tenure.Allows(leased, now.Add(at)); got != want {
					t.Errorf("%+v, leased until %v, at %v: it is allowed %t, want %t", tenure, leased, at, got, want)
				}
			}
		}
	}
}

// TestTermsFollowTheHub: what the hub has said last counts, whatever runs.
func TestTermsFollowTheHub(t *testing.T) {
	var now map[string]*pipeline.Terms
	terms := &terms{set: func(list map[string]*pipeline.Terms) { now = list }}
	piece := func(name, terms string) change.Document { return change.Document{Name: name, Terms: terms} }
	check := func(what, name string, epoch int64, allowed bool, why string) {
		t.Helper()
		p := now[name]
		switch {
		case epoch == 0 && p != nil:
			t.Errorf("%s: %s has terms: %+v", what, name, p)
		case epoch != 0 && (p == nil || p.Epoch != epoch || p.Allow(time.Now()) != allowed || !strings.Contains(p.Why, why)):
			t.Errorf("%s: %s has terms %+v, want epoch %d, %t, %q", what, name, p, epoch, allowed, why)
		}
	}
	terms.begin(change.Pieces{piece("one", "epoch=1; overlap=never"), piece("keep", "epoch=2"), piece("all", "")})
	check("after a start", "one", 1, false, "yet")
	check("after a start", "keep", 2, true, "")
	check("after a start", "all", 0, false, "")
	terms.lease(time.Now().Add(time.Hour))
	check("leased", "one", 1, true, "")
	terms.want(change.Pieces{piece("one", "epoch=5; overlap=never"), piece("new", "epoch=4; orphan=1m")})
	check("placed again", "one", 5, true, "")
	check("taken away", "keep", 2, false, "taken")
	check("for all", "all", 0, false, "")
	terms.begin(change.Pieces{piece("one", "epoch=5; overlap=never"), piece("new", "epoch=4; orphan=1m")})
	check("while it changes", "keep", 2, false, "taken")
	check("while it changes", "new", 4, true, "")
	terms.run(change.Pieces{piece("one", "epoch=1; overlap=never"), piece("keep", "epoch=2")}) // it was rolled back
	check("rolled back", "one", 5, true, "")
	check("rolled back", "keep", 2, false, "taken")
	terms.lease(time.Now().Add(-time.Second))
	check("not renewed", "one", 5, false, "any more")
	terms.want(change.Pieces{})
	check("all taken away", "one", 1, false, "taken")
	terms.lease(time.Now().Add(time.Hour))

	again := change.Pieces{piece("one", "epoch=9; overlap=never")}
	terms.want(again)
	check("placed again, and what runs is about to close", "one", 1, false, "taken")
	terms.begin(change.Pieces{})
	check("while it closes", "one", 1, false, "taken")
	terms.run(change.Pieces{})
	check("closed", "one", 0, false, "")
	terms.begin(again)
	check("opened again", "one", 9, true, "")
	terms.run(again)
	terms.want(change.Pieces{})
	terms.want(again)
	terms.begin(again)
	check("placed again before anything was closed", "one", 9, true, "")
	terms.want(change.Pieces{})
	terms.want(change.Pieces{piece("one", "epoch=11; overlap=never")})
	terms.begin(again) // the file has changed
	check("something else changes", "one", 9, false, "taken")
}
