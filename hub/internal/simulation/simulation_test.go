package simulation

import (
	"flag"
	"testing"
)

var seeds = flag.Uint64("seeds", 30, "")
var first = flag.Uint64("first", 0, "")

func TestSeeds(t *testing.T) {
	kinds := map[string]int{}
	for seed := range *seeds {
		h := Run(Options{Seed: seed + *first})
		for name, f := range map[string]func() []string{"overlaps": h.overlaps, "stale": h.stale, "epochs": h.epochs, "gaps": h.gaps, "unsettled": h.unsettled} {
			if w := f(); w != nil {
				kinds[name]++
				t.Errorf("seed %d: %d hubs, %d agents: %s: %d problems, %.400s", h.Seed, h.Hubs, h.Agents, name, len(w), w[0])
			}
		}
	}
	t.Log(kinds)
}
