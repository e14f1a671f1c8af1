package access

import (
	"sync"
	"time"
)

const (
	span  = 10 * time.Second
	parts = 20 // that it is counted in
	part  = span / parts
)

// A window counts what was taken in the last ten seconds, in parts of half a second: the one that now is in, and the twenty
// before. So it looks back ten to ten and a half seconds: within any ten seconds never more is taken than the limit, and
// what an exact window of ten and a half would take is never refused. What is more than the whole limit at once is taken when
// there is nothing else in the window: else it could never be. The zero value is empty.
type window struct {
	mu    sync.Mutex
	at    int64 // the number of the newest part
	taken [parts + 1]int64
	sum   int64
}

// take takes n if the limit allows, at a moment since some beginning; else it returns how long it must wait for that.
func (w *window) take(now time.Duration, limit, n int64) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	current := max(w.at, int64(now/part)) // a clock may be set back
	for first := max(w.at, current-parts-1) + 1; first <= current; first++ {
		w.sum -= w.taken[first%(parts+1)]
		w.taken[first%(parts+1)] = 0
	}
	w.at = current
	if n == 0 || w.sum == 0 || n <= limit-w.sum {
		w.sum += n
		w.taken[current%(parts+1)] += n
		return 0
	}
	left := w.sum
	for p := max(0, current-parts); p <= current; p++ {
		if left -= w.taken[p%(parts+1)]; left == 0 || n <= limit-left {
			return time.Duration(p+parts+1)*part - now
		}
	}
	panic("BUG: a window does not empty")
}
