package task

// order is a place in a queue: the least goes first. What has one rank goes in the order in which it came.
type order struct {
	rank int64
	seq  uint64
}

func (o order) before(p order) bool { return o.rank < p.rank || o.rank == p.rank && o.seq < p.seq }

// A heap is a queue of nodes by their order. Four children a node, and the order beside the pointer: with 100 000 entries
// the way down is short, and most of it is in one cache line.
type heap[T any] struct{ slots []slot[T] }

type slot[T any] struct {
	order
	node *node[T]
}

// node is what can be in one heap at a time.
type node[T any] struct {
	of    *T
	place int // in the heap, from 1; 0: it is in none
}

func (h *heap[T]) empty() bool { return len(h.slots) == 0 }

// first is the least order and whose it is; the heap must not be empty.
func (h *heap[T]) first() (order, *T) { return h.slots[0].order, h.slots[0].node.of }

// put takes n in, or gives it another place.
func (h *heap[T]) put(n *node[T], o order) {
	if n.place == 0 {
		h.slots = append(h.slots, slot[T]{})
		h.up(len(h.slots)-1, slot[T]{o, n})
		return
	}
	i := n.place - 1
	if o.before(h.slots[i].order) {
		h.up(i, slot[T]{o, n})
	} else {
		h.down(i, slot[T]{o, n})
	}
}

// remove takes n out; it may be in no heap.
func (h *heap[T]) remove(n *node[T]) {
	if n.place == 0 {
		return
	}
	i, last := n.place-1, len(h.slots)-1
	moved := h.slots[last]
	h.slots[last] = slot[T]{}
	h.slots = h.slots[:last]
	n.place = 0
	switch {
	case i == last:
	case moved.before(h.slots[max(0, i-1)/4].order):
		h.up(i, moved)
	default:
		h.down(i, moved)
	}
	if c := cap(h.slots); c > 1024 && last < c/4 { // a crowd has gone; its memory goes, too
		h.slots = append(make([]slot[T], 0, c/2), h.slots...)
	}
}

func (h *heap[T]) up(i int, s slot[T]) {
	for i > 0 {
		parent := (i - 1) / 4
		if !s.before(h.slots[parent].order) {
			break
		}
		h.set(i, h.slots[parent])
		i = parent
	}
	h.set(i, s)
}

func (h *heap[T]) down(i int, s slot[T]) {
	for {
		least := 4*i + 1
		if least >= len(h.slots) {
			break
		}
		for c := least + 1; c < min(4*i+5, len(h.slots)); c++ {
			if h.slots[c].before(h.slots[least].order) {
				least = c
			}
		}
		if !h.slots[least].before(s.order) {
			break
		}
		h.set(i, h.slots[least])
		i = least
	}
	h.set(i, s)
}

func (h *heap[T]) set(i int, s slot[T]) {
	h.slots[i] = s
	s.node.place = i + 1
}
