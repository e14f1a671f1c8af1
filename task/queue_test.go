package task

import (
	"math/rand/v2"
	"testing"
)

// TestHeap changes a heap at random, and asks after every change for its first and whether everybody knows its place.
func TestHeap(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	var h heap[int]
	nodes, in := make([]node[int], 300), map[*node[int]]order{}
	for step := range 6000 {
		n := &nodes[r.IntN(len(nodes))]
		if _, is := in[n]; is && r.IntN(2) == 0 {
			h.remove(n)
			delete(in, n)
		} else {
			in[n] = order{r.Int64N(100), uint64(step)}
			h.put(n, in[n])
		}
		for i, s := range h.slots {
			if s.node.place != i+1 || s.order != in[s.node] || i > 0 && s.before(h.slots[(i-1)/4].order) {
				t.Fatalf("step %d: %+v is at %d", step, s, i)
			}
		}
		if len(h.slots) != len(in) {
			t.Fatalf("step %d: %d are in it, not %d", step, len(h.slots), len(in))
		}
	}
}
