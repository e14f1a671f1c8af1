package pipeline

import (
	"hash/fnv"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/spool"
)

// salt tells a collector's sources from those of others.
func salt(c Component) uint64 { return hashOf(c.Key()) }

func hashOf(texts ...string) uint64 {
	h := fnv.New64a()
	for _, t := range texts {
		h.Write([]byte(t))
		h.Write([]byte{0})
	}
	return h.Sum64()
}

// taken returns what tells a collector which parts of its sources are in the disk queues of all exporters that they lead to.
// That can be told only if each leads there one way: a part in a disk queue says nothing of the other copy.
func (e *Engine) taken(c Component) func(uint64) []creel.Range {
	mask := salt(c)
	return func(source uint64) (common []creel.Range) {
		g := e.current.Load()
		seen := make(map[*queue]bool)
		for _, p := range g.routes[c.ID] {
			for _, q := range p.leaves {
				st := e.storeOf(q)
				if st == nil || seen[q] {
					return nil
				}
				parts := st.spool.Parts(source ^ mask)
				if len(seen) == 0 {
					for _, r := range parts {
						common = append(common, creel.Range(r))
					}
				} else {
					common = intersect(common, parts)
				}
				seen[q] = true
			}
		}
		return common
	}
}

func (e *Engine) storeOf(q *queue) *store {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, x := range e.exports {
		if x.queue == q {
			return x.store
		}
	}
	return nil
}

// intersect returns what is in both lists, which are sorted.
func intersect(a []creel.Range, b []spool.Range) (both []creel.Range) {
	for len(a) > 0 && len(b) > 0 {
		if from, to := max(a[0].From, b[0].From), min(a[0].To, b[0].To); from < to {
			both = append(both, creel.Range{From: from, To: to})
		}
		if a[0].To < b[0].To {
			a = a[1:]
		} else {
			b = b[1:]
		}
	}
	return both
}
