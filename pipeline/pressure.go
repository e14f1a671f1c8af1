package pipeline

import "github.com/creelhq/creel"

// fullPressure is above all priorities.
const fullPressure = 10

// pressure is how scarce memory is; nil while there is enough.
type pressure struct {
	level int           // pipelines whose priority is lower take nothing
	over  chan struct{} // closed when there is another pressure, or none
}

// SetPressure says how scarce memory is. At a level above 0, pipelines whose priority is lower take nothing more: a
// collector that feeds no others waits, and what it sends into others as well is shed for those, and counted so. At 10
// nobody takes anything. What was taken before is not touched.
func (e *Engine) SetPressure(level int) {
	var next *pressure
	if level > 0 {
		next = &pressure{min(level, fullPressure), make(chan struct{})}
	}
	if old := e.pressure.Swap(next); old != nil {
		close(old.over)
	}
}

// divide tells the pipes that take records from those that take none.
func (p *pressure) divide(pipes []*pipe) (taking, shedding []*pipe) {
	for _, pipe := range pipes {
		if pipe.priority < p.level {
			shedding = append(shedding, pipe)
		} else {
			taking = append(taking, pipe)
		}
	}
	return taking, shedding
}

// shed enters a batch that p does not take.
func (p *pipe) shed(b *creel.Batch) {
	p.book.accepted.Add(int64(b.Len()))
	p.book.dropped.add(Shed, b.Len())
}

// sheds reports whether p takes nothing of what a pipeline sends on to it: that one has a higher priority, and may be
// taking records, which must not wait for those that are less important.
func (p *pipe) sheds(from *pipe, now *pressure) bool {
	return now != nil && from != nil && p.priority < now.level && p.priority < from.priority
}
