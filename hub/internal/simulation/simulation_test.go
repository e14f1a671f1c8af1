package simulation

import (
	"testing"
)

// TestSame: the same seed has the same history.
func TestSame(t *testing.T) {
	for seed := range uint64(5) {
		a, b := Run(Options{Seed: seed}), Run(Options{Seed: seed})
		if a.Hash() != b.Hash() || len(a.Events) != len(b.Events) {
			t.Errorf("seed %d: %d and %d events, which differ", seed, len(a.Events), len(b.Events))
		}
		t.Log(seed, a.Hubs, a.Agents, a.Documents, a.Faults, len(a.Events), a.Moves, a.Elected, a.Clashes, a.Counts)
		for _, f := range a.Final {
			t.Logf("%+v", f)
		}
	}
}
