package placement

import (
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
)

// measuredFleet has tasks whose costs, none of which is said, lie within two orders of magnitude. Nothing is measured yet.
func measuredFleet(r *rand.Rand) (s *Snapshot, costs []float64) {
	s = fleet(50, 1500)
	s.Rebalance = 0.02
	for range s.Tasks {
		costs = append(costs, 0.002*math.Pow(100, r.Float64()))
	}
	return s, costs
}

// uneven is how much the most loaded agent has, for the mean of all.
func uneven(s *Snapshot, costs []float64) float64 {
	sum, most, at := 0.0, 0.0, map[string]float64{}
	for i := range s.Tasks {
		sum += costs[i]
		at[s.Tasks[i].Owners[0]] += costs[i]
	}
	for _, n := range at {
		most = max(most, n)
	}
	return most * float64(len(s.Agents)) / sum
}

// TestMeasured: what was placed before anything was measured is evened out when it is, comes to rest, and moves no more while what
// is measured differs by 30 % from look to look, but for what is beyond the bounds.
func TestMeasured(t *testing.T) {
	const seed = 7
	r := rand.New(rand.NewPCG(seed, 0))
	s, costs := measuredFleet(r)
	s.carry(Place(s))
	before := uneven(s, costs)
	for i := range s.Tasks {
		s.Tasks[i].Measured = costs[i]
	}
	plans := s.quiet(t, 30)
	after := uneven(s, costs)
	moves, looks := 0, 300
	for range looks {
		for i := range s.Tasks {
			s.Tasks[i].Measured = costs[i] * (0.7 + 0.6*r.Float64())
		}
		p := Place(s)
		moved(t, p, Balance)
		moves += len(p.Moves)
		s.carry(p)
	}
	t.Logf("seed %d: the most loaded agent had %.2f of the mean, %.2f after %v moves; %d moves in %d looks", seed, before, after, plans, moves, looks)
	if before < 1.5 || after > 1.5 || after >= before || moves > looks/10 {
		t.Error("it is not evened out, or moves without end")
	}
}

// TestMeasuredAndSaid: capacity is of costs that are said, or 1, whatever was measured; and so is balance where one is said.
func TestMeasuredAndSaid(t *testing.T) {
	s := fleet(2, 5)
	s.Agents[0].Capacity, s.Agents[1].Capacity = 2, 2
	for i := range s.Tasks {
		s.Tasks[i].Measured = []float64{0.001, 1000}[i%2]
	}
	p := Place(s)
	if s.carry(p); len(p.Moves) != 4 || len(p.Unplaced) != 1 || p.Unplaced[0].Reason != NoRoom {
		t.Errorf("with room for four of five: %+v", p)
	}

	s = fleet(10, 200)
	for i := range s.Tasks {
		s.Tasks[i].Cost = 1
	}
	said := Place(s)
	for i := range s.Tasks {
		s.Tasks[i].Measured = float64(1 + i)
	}
	if p := Place(s); !reflect.DeepEqual(p, said) {
		t.Error("what was measured counts, though a cost is said")
	}
}
