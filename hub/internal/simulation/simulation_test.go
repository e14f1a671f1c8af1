package simulation

import (
	"flag"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	torture = flag.Bool("torture", false, "run the long forms of the tests")
	first   = flag.Uint64("seed", 0, "of the first run")
)

// runs checks runs with one seed after the other, and returns how often faults happened in them.
func runs(t *testing.T, n int, o Options) (counts map[Fault]int) {
	t.Helper()
	counts = make(map[Fault]int)
	began, late := time.Now(), 0
	for i := range n {
		o.Seed = *first + uint64(i)
		h := Run(o)
		wrong := append(h.Check(), linear(h)...)
		if len(wrong) > 0 {
			t.Errorf("seed %d, %d hubs, %d agents, %d documents: %d things are wrong; the first ones:\n%s", h.Seed, h.Hubs, h.Agents, h.Documents, len(wrong),
				strings.Join(wrong[:min(len(wrong), 3)], "\n"))
		}
		for f, n := range h.Counts {
			counts[f] += n
		}
		late += h.late()
		if (i+1)%1000 == 0 {
			t.Logf("%d seeds in %v", i+1, time.Since(began).Round(time.Second))
		}
	}
	if t.Logf("%d results came when their epoch had ended as it should", late); late == 0 && n > 1 {
		t.Error("no result came late")
	}
	return counts
}

// TestFaults: whatever goes wrong, no place of an exclusive document is worked on by two, no hub takes what is over by what it has
// heard, others are without work no longer than can be explained, and afterwards everything comes to rest.
func TestFaults(t *testing.T) {
	n, o := 30, Options{}
	switch {
	case *torture:
		n = 10_000
	case testing.Short():
		n, o.Faults = 16, 16
	}
	counts := runs(t, n, o)
	for f := range Relisted + 1 {
		if n := counts[f]; n == 0 {
			t.Errorf("%v did not happen", f)
		} else if *torture {
			t.Logf("%v: %d times", f, n)
		}
	}
}

// TestSame: the same seed has the same history, another one has not.
func TestSame(t *testing.T) {
	before := uint64(0)
	for seed := range uint64(4) {
		a, b := Run(Options{Seed: seed}), Run(Options{Seed: seed})
		if a.Hash() != b.Hash() || len(a.Events) != len(b.Events) {
			t.Errorf("seed %d: %d and %d events, which differ", seed, len(a.Events), len(b.Events))
		}
		if a.Hash() == before {
			t.Errorf("seeds %d and %d have the same history", seed, seed-1)
		}
		before = a.Hash()
	}
}

// TestDetection: how long a place is without work after one fault. What is heard of is repaired within seconds, silence within three
// heartbeats.
func TestDetection(t *testing.T) {
	for _, c := range []struct {
		fault Fault
		most  time.Duration
	}{
		{AgentKilled, broke + usual}, {AgentCrashed, silent + usual}, {AgentPaused, silent + usual}, {AgentHeld, usual}, {AgentMoved, usual}, {HubKilled, usual + again}, {HubCrashed, usual + again},
		{HubCut, usual}, {LeaderKilled, usual + again}, {LeaderDeposed, usual}, {StoreAway, usual}, {StoreCompacted, usual}, {HubJumps, usual}, {HubLags, usual},
	} {
		longest, n := time.Duration(0), 0
		for seed := range uint64(2) {
			h := Run(Options{Seed: seed + 50, Hubs: 3, Agents: 8, Documents: 6, Faults: 1, Only: []Fault{c.fault}, Overlap: "keep", Length: 90 * time.Second})
			n += h.Counts[c.fault]
			for _, g := range h.Gaps() {
				if g.From > 15*time.Second {
					longest = max(longest, g.To-g.From)
				}
			}
		}
		if n != 2 || longest > c.most {
			t.Errorf("%v: %d times; a place was without work for %v, want at most %v", c.fault, n, longest, c.most)
		}
		t.Logf("%v: %v", c.fault, longest)
	}
}

// TestWrong: the checks find what they are there for. Each bug is planted, and is found within some seeds.
func TestWrong(t *testing.T) {
	if testing.Short() {
		t.Skip("the bugs are not in what runs")
	}
	const overlap, unordered, stale = "work on", "comes after", "has judged wrong"
	plant := func(w Wrong, find string, o Options) {
		for o.Wrong, o.Seed = w, 0; o.Seed < 2000; o.Seed++ {
			h := Run(o)
			wrong := append(h.Check(), linear(h)...)
			if i := slices.IndexFunc(wrong, func(s string) bool { return strings.Contains(s, find) }); i >= 0 {
				t.Logf("bug %d is found with seed %d: %s", w, o.Seed, wrong[i][:min(len(wrong[i]), 120)])
				return
			}
		}
		t.Errorf("bug %d is not found", w)
	}
	plant(AllowsAlways, overlap, Options{Overlap: "never"})
	plant(NoWait, overlap, Options{Overlap: "never", Only: []Fault{AgentReset, AgentCut, HubPaused}, Faults: 20})
	plant(NoCompare, unordered, Options{Hubs: 3})
	plant(AcceptsAny, stale, Options{})
	plant(AcceptsAny, "what it knew to be over", Options{})
	plant(AllowsAlways, "one worker after the other", Options{Overlap: "never"})
	plant(GrantsForEver, overlap, Options{Overlap: "never", Hubs: 2, Agents: 8, Only: []Fault{HubCut}})
	plant(LeasesBlind, overlap, Options{Overlap: "never", Hubs: 2, Agents: 8, Documents: 3, Only: []Fault{HubCut, HubLags}, Faults: 16})
	plant(LateLoss, overlap, Options{Overlap: "never", Hubs: 2, Agents: 8, Documents: 3, Only: []Fault{HubPaused, HubCut, AgentReset}, Faults: 24})
}

// TestLarge: many agents, all lost at once and all back at once.
func TestLarge(t *testing.T) {
	o := Options{Hubs: 3, Agents: 150, Documents: 10, Faults: 3, Only: []Fault{AllLost, HubKilled, LeaderPaused}}
	switch {
	case *torture:
		o.Agents, o.Documents, o.Faults = 3000, 100, 8
	case testing.Short():
		o.Agents = 40
	}
	began := time.Now()
	runs(t, 1, o)
	t.Log(time.Since(began))
}
