package task

import (
	"fmt"
	"time"
)

// SetWall gives s another wall clock, for tests that put it forward and back. It is called before anything else.
func (s *Scheduler) SetWall(clock func() time.Time) { s.wall = clock }

// Check compares what s knows by its heaps and counts with what can be seen by looking at everything.
func (s *Scheduler) Check() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	busy, keys, classes := 0, map[string]int{}, map[string]int{}
	for _, r := range s.rounds {
		if r.state == running {
			busy++
		}
		keys[r.job.Key]++
		classes[r.job.Class]++
	}
	if busy > s.Slots || busy+s.free != s.Slots {
		return fmt.Errorf("%d rounds run in %d slots, of which %d are free", busy, s.Slots, s.free)
	}
	for name, n := range keys {
		if name != "" && n > 1 {
			return fmt.Errorf("%d rounds with the key %s", n, name)
		}
	}
	for name, n := range classes {
		if most, limited := s.Classes[name]; limited && n > most {
			return fmt.Errorf("%d rounds of the class %s", n, name)
		}
	}
	waits := s.limits.all()
	if len(waits) != s.limits.waiting {
		return fmt.Errorf("%d rounds wait, not %d", len(waits), s.limits.waiting)
	}
	wants := func(w, holder *job) bool {
		most, limited := s.Classes[w.Class]
		return w.Key != "" && w.Key == holder.Key || limited && w.Class == holder.Class && classes[w.Class] == most
	}
	var best *job
	var least order
	pick := func(j *job, o order) {
		if best == nil || o.before(least) {
			best, least = j, o
		}
	}
	for _, j := range waits {
		if want := j.asked - j.waited - int64(j.Priority)*int64(s.Ageing); j.order.rank != want {
			return fmt.Errorf("%s waits at %d, not at %d", j.ID, j.order.rank, want)
		}
		most, limited := s.Classes[j.Class]
		free := (j.Key == "" || keys[j.Key] == 0) && (!limited || classes[j.Class] < most)
		if free && s.started && !s.paused && !s.stopping && len(s.rounds) < s.Workers {
			pick(j, j.order)
		}
	}
	for _, r := range s.rounds {
		if r.state != resuming {
			continue
		}
		pick(r.job, r.job.order)
		for _, w := range waits {
			if wants(w, r.job) {
				pick(r.job, w.order)
			}
		}
	}
	begins, goesOn, o := s.next()
	if goesOn != nil {
		begins = goesOn.job
	}
	if begins != best && (begins == nil || best == nil || o != least) {
		return fmt.Errorf("next is %v at %v, not %v at %v", begins, o, best, least)
	}
	if best != nil && s.free > 0 {
		return fmt.Errorf("%s waits while %d slots are free", best.ID, s.free)
	}
	return nil
}
