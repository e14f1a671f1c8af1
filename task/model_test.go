package task_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/task"
)

// A step is what a round does: it works, and then yields, blocks or fails.
type step struct {
	work, block time.Duration
	yield       bool
	exit        error
}

// given is a task that is given to the scheduler at a time, and perhaps taken away again.
type given struct {
	at, drop time.Duration // drop 0: never
	task     task.Task
	submit   bool
	steps    []step
}

var errStep = errors.New("a step fails")

func drawGiven(t *rapid.T, i int) given {
	ms := func(most int, label string) time.Duration {
		return time.Duration(rapid.IntRange(0, most).Draw(t, label)) * time.Millisecond
	}
	g := given{at: ms(300, "at"), submit: rapid.Bool().Draw(t, "submit"), task: task.Task{
		ID: fmt.Sprint(i), Priority: rapid.IntRange(0, 9).Draw(t, "priority"),
		Class: rapid.SampledFrom([]string{"", "a", "b", "free"}).Draw(t, "class"),
		Key:   rapid.SampledFrom([]string{"", "", "x", "y", "z"}).Draw(t, "key"),
	}}
	if rapid.IntRange(0, 3).Draw(t, "restart") == 0 {
		g.task.Preempt = task.Restart
	}
	if !g.submit && rapid.IntRange(0, 3).Draw(t, "dropped") == 0 {
		g.drop = g.at + 1 + ms(300, "drop")
	}
	for range rapid.IntRange(1, 4).Draw(t, "steps") {
		s := step{work: ms(40, "work")}
		switch rapid.IntRange(0, 4).Draw(t, "step") {
		case 0:
			s.yield = true
		case 1:
			s.block = ms(50, "block")
		case 2:
			s.exit = errStep
		}
		g.steps = append(g.steps, s)
	}
	return g
}

// TestModel gives random tasks to a scheduler, and looks at it before and after every step: see Scheduler.Check. In the end
// every task has been done once, or was dropped.
func TestModel(t *testing.T) {
	restarted, late := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		o := task.Options{
			Slots: rapid.IntRange(1, 4).Draw(rt, "slots"), Slice: 10 * time.Millisecond, Ageing: 50 * time.Millisecond, Workers: 12,
			Classes: map[string]int{"a": rapid.IntRange(1, 3).Draw(rt, "a"), "b": 1},
		}
		var all []given
		for i := range rapid.IntRange(1, 40).Draw(rt, "tasks") {
			all = append(all, drawGiven(rt, i))
		}
		drain := time.Duration(rapid.SampledFrom([]int{0, 0, 50, 200}).Draw(rt, "drain")) * time.Millisecond
		var failed error
		synctest.Test(t, func(t *testing.T) {
			w := &world{s: task.New(o), begun: make([]int, len(all)), done: make([]int, len(all))}
			failed = w.run(all, drain)
			for i := range all {
				restarted += max(0, w.begun[i]-1)
			}
			if drain > 0 {
				late++
			}
		})
		if failed != nil {
			rt.Fatal(failed)
		}
	})
	if restarted == 0 || late == 0 {
		t.Errorf("%d rounds were restarted and %d drained: the test tests too little", restarted, late)
	}
}

// world runs what is given, and counts.
type world struct {
	s           *task.Scheduler
	mu          sync.Mutex
	begun, done []int
	failed      error
}

func (w *world) check() {
	if err := w.s.Check(); err != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.failed == nil {
			w.failed = err
		}
	}
}

func (w *world) round(i int, steps []step) func(context.Context) error {
	return func(ctx context.Context) error {
		w.mu.Lock()
		w.begun[i]++
		w.mu.Unlock()
		for _, s := range steps {
			w.check()
			select {
			case <-time.After(s.work):
			case <-ctx.Done():
				return ctx.Err()
			}
			var err error
			switch {
			case s.yield:
				err = creel.Yield(ctx)
			case s.block > 0:
				err = creel.Blocking(ctx, func() error { time.Sleep(s.block); return nil })
			}
			w.check()
			if err != nil {
				return err
			}
			if s.exit != nil {
				return s.exit
			}
		}
		return nil
	}
}

func (w *world) run(all []given, drain time.Duration) error {
	stop := start(w.s)
	defer stop()
	var wg sync.WaitGroup
	drained := false
	for i, g := range all {
		g.task.Run = w.round(i, g.steps)
		g.task.Done = func(task.Round) { w.mu.Lock(); w.done[i]++; w.mu.Unlock() }
		wg.Go(func() {
			time.Sleep(g.at)
			if g.submit {
				_ = w.s.Submit(g.task) // refused while it drains
			} else {
				_ = w.s.Add(g.task)
			}
			w.check()
			if g.drop > 0 {
				time.Sleep(g.drop - g.at)
				<-w.s.Drop(g.task.ID)
				w.check()
			}
		})
	}
	if drain > 0 {
		time.Sleep(drain)
		ctx, cancel := context.WithTimeout(context.Background(), drain)
		_ = w.s.Drain(ctx) // it may have to cancel
		cancel()
		drained = true
	} else {
		time.Sleep(time.Minute) // 40 tasks take 4 times 90 ms at most, and restart a few times
	}
	wg.Wait()
	w.check()
	if l := w.s.Load(); l != (task.Load{}) || len(w.s.Tasks()) != 0 {
		return fmt.Errorf("left: %+v %v", l, w.s.Tasks())
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, g := range all {
		if n := w.done[i]; n > 1 || n == 0 && g.drop == 0 && !drained {
			return fmt.Errorf("task %d was done %d times, and begun %d times", i, n, w.begun[i])
		}
	}
	return w.failed
}
