package placement

import (
	"fmt"
	"testing"
	"time"
)

// What a plan costs for 10 000 agents and 100 000 tasks, on one core. The limits: 10 s from nothing, 1 s after the loss of 1 %,
// with or without the budget to rebalance; no more moves than what was lost and 5 %. Beside them stand the same without a loss,
// with everything full, and with all of them spread.
func BenchmarkPlace(b *testing.B) {
	const agents, tasks = 10_000, 100_000
	run := func(name string, limit time.Duration, s *Snapshot, prepare func()) {
		b.Run(fmt.Sprint(name), func(b *testing.B) {
			prepare()
			b.ReportAllocs()
			moves := 0
			for b.Loop() {
				moves = len(Place(s).Moves)
			}
			b.ReportMetric(float64(moves), "moves")
			b.ReportMetric(float64(limit.Nanoseconds()), "limit-ns")
			b.ReportMetric(float64(b.Elapsed())/float64(b.N)/float64(limit), "of-limit")
		})
	}
	empty := fleet(agents, tasks)
	run("nothing", 10*time.Second, empty, func() {})
	s := fleet(agents, tasks)
	s.carry(Place(s))
	run("same", time.Second, s, func() {})
	run("lost", time.Second, s, func() {
		for i := range agents / 100 {
			s.Agents[i*100].State = Lost
		}
	})
	s.Rebalance = 0
	run("lost-only", time.Second, s, func() {})
	s.Rebalance = 0.05
	run("returned", time.Second, s, func() {
		s.carry(Place(s))
		for i := range s.Agents {
			s.Agents[i].State = Live
		}
	})
	full := fleet(agents, tasks)
	for i := range full.Agents {
		full.Agents[i].Capacity = float64(3 + i%8)
	}
	for i := range full.Tasks {
		full.Tasks[i].Priority = i % 10
	}
	run("full", 10*time.Second, full, func() {})
	spread := fleet(agents, tasks/3)
	for i := range spread.Tasks {
		spread.Tasks[i].Replicas, spread.Tasks[i].Spread = 3, "zone"
	}
	run("spread", 10*time.Second, spread, func() {})
}
