package hub

import (
	"testing"
	"time"

	"github.com/creelhq/creel/hub/internal/cluster"
)

// TestCutOff: a hub is to be left when etcd has neither kept its lease nor answered for longer than an election takes.
func TestCutOff(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		leased bool
		silent time.Duration
		want   bool
	}{{true, 0, false}, {true, time.Minute, false}, {false, 5 * time.Second, false}, {false, 11 * time.Second, true}} {
		if got := cutOff(cluster.Health{Leased: c.leased, Answered: now.Add(-c.silent)}, now); got != c.want {
			t.Errorf("leased %v, silent for %v: %v", c.leased, c.silent, got)
		}
	}
}
