package pipeline

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// farSide is a server with some places: what finds none waits, or is told so.
type farSide struct {
	places  chan struct{}
	rejects bool
	took    time.Duration // for one request

	mu        sync.Mutex
	delivered int
	refused   int
	under     int
	most      int
}

func (f *farSide) serve() bool {
	f.mu.Lock()
	f.under++
	f.most = max(f.most, f.under)
	f.mu.Unlock()
	ok := true
	if f.rejects {
		select {
		case f.places <- struct{}{}:
		default:
			ok = false
		}
	} else {
		f.places <- struct{}{}
	}
	if ok {
		time.Sleep(f.took)
		<-f.places
	} else {
		time.Sleep(f.took / 10)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.under--
	if ok {
		f.delivered++
	} else {
		f.refused++
	}
	return ok
}

// load sends as much as the window lets through for a while, and returns the limits that were seen in its second half.
func (f *farSide) load(w *window, span time.Duration) (least, most int) {
	ctx, cancel := context.WithTimeout(context.Background(), span)
	defer cancel()
	var workers sync.WaitGroup
	for range w.max {
		workers.Go(func() {
			for w.claim(ctx) == nil {
				w.begin()
				began := time.Now()
				ok := f.serve()
				w.end(began, time.Now(), 1000, ok, !ok)
				w.release()
			}
		})
	}
	time.Sleep(span / 2)
	least = w.max
	for ctx.Err() == nil {
		least, most = min(least, w.size()), max(most, w.size())
		time.Sleep(span / 1000)
	}
	workers.Wait()
	return least, most
}

// TestWindowFindsTheFarSide: the limit goes to where more brings nothing, whatever the far side can take and how it says
// that it cannot.
func TestWindowFindsTheFarSide(t *testing.T) {
	for _, c := range []struct {
		places      int
		rejects     bool
		least, most int // of the limit, once it has settled
	}{
		{1, false, 1, 6}, {4, false, 3, 8}, {16, false, 12, 30}, {50, false, 38, 64}, {500, false, 64, 64},
		{4, true, 2, 5}, {16, true, 8, 17}, {50, true, 24, 51},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := &farSide{places: make(chan struct{}, c.places), rejects: c.rejects, took: 20 * time.Millisecond}
			w := newWindow(Adaptive{Enabled: true, Max: 64}, 4, time.Now())
			const span = 40 * time.Second
			least, most := f.load(w, span)
			full := min(c.places, w.max) * int(span/f.took)
			t.Logf("%d places, rejects %t: limit %d to %d, %d%% of what can be delivered, %.2f%% refused", c.places, c.rejects, least, most, 100*f.delivered/full, 100*float64(f.refused)/float64(f.delivered))
			if least < c.least || most > c.most {
				t.Errorf("%d places, rejects %t: the limit goes from %d to %d", c.places, c.rejects, least, most)
			}
			if f.delivered < full*8/10 || f.refused > f.delivered/20 {
				t.Errorf("%d places, rejects %t: %d of %d delivered, %d refused", c.places, c.rejects, f.delivered, full, f.refused)
			}
			if len(w.slots) != w.limit || w.debt != 0 || w.active != 0 {
				t.Errorf("in the end %d of %d places are free, %d too many, %d active", len(w.slots), w.limit, w.debt, w.active)
			}
		})
	}
}

// TestWindowFollowsTheFarSide down, when it becomes slower, and up again.
func TestWindowFollowsTheFarSide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWindow(Adaptive{Enabled: true, Max: 64}, 4, time.Now())
		var limits []int
		for _, places := range []int{32, 2, 32} {
			f := &farSide{places: make(chan struct{}, places), took: 20 * time.Millisecond}
			_, most := f.load(w, time.Minute)
			limits = append(limits, most)
		}
		t.Logf("limits %v", limits)
		if limits[0] < 24 || limits[1] > 12 || limits[2] < 24 {
			t.Errorf("with places for 32, 2 and 32 the limits were %v", limits)
		}
	})
}

// TestWindowStaysWithoutLoad: requests that find places free are no reason for more.
func TestWindowStaysWithoutLoad(t *testing.T) {
	now := time.Now()
	w := newWindow(Adaptive{Enabled: true, Max: 64}, 4, now)
	for range 1000 {
		w.begin()
		began := now
		now = now.Add(time.Millisecond)
		w.end(began, now, 1000, true, false)
	}
	if w.size() != 4 {
		t.Errorf("the limit is %d", w.size())
	}
}

// TestOldNewsOfOverload: all that was under way when the limit was halved may fail; it is halved once.
func TestOldNewsOfOverload(t *testing.T) {
	now := time.Now()
	w := newWindow(Adaptive{Enabled: true, Max: 64}, 32, now)
	for range 32 {
		_ = w.claim(context.Background())
		w.begin()
	}
	for i := range 32 {
		later := now.Add(time.Duration(i+1) * time.Millisecond)
		w.end(now, later, 0, false, true)
		if i < 10 { // tried again, while the others are still under way
			w.begin()
			w.end(later, later, 0, false, true)
		}
	}
	if w.size() != 16 || !w.over() {
		t.Errorf("the limit is %d, over %t", w.size(), w.over())
	}
	for range 32 {
		w.release()
	}
	if w.over() || len(w.slots) != 16 {
		t.Errorf("%d places are free", len(w.slots))
	}
}

// TestOrderIsKept: a window never changes a concurrency of 1.
func TestOrderIsKept(t *testing.T) {
	if newWindow(Adaptive{Enabled: true, Max: 64}, 1, time.Now()) != nil {
		t.Error("there is a window")
	}
}
