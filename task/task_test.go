package task_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/task"
)

// diary notes who did what, and when.
type diary struct {
	mu    sync.Mutex
	start time.Time
	lines []string
}

func (d *diary) note(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, fmt.Sprintf("%v %s", time.Since(d.start), fmt.Sprintf(format, args...)))
}

func (d *diary) want(t *testing.T, lines ...string) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.Equal(d.lines, lines) {
		t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(d.lines, "\n\t"), strings.Join(lines, "\n\t"))
	}
}

// bubble runs f beside a scheduler, in virtual time.
func bubble(t *testing.T, o task.Options, f func(s *task.Scheduler, d *diary)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := task.New(o)
		d := &diary{start: time.Now()}
		f(s, d)
	})
}

// run lets s work for the given time.
func run(s *task.Scheduler, d time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	_ = s.Run(ctx) // the deadline
}

func add(t *testing.T, s *task.Scheduler, tasks ...task.Task) {
	t.Helper()
	for _, tk := range tasks {
		if err := s.Add(tk); err != nil {
			t.Fatal(err)
		}
	}
}

// sleeper is a task whose rounds take a time and note their beginning.
func sleeper(d *diary, id string, priority int, every, takes time.Duration) task.Task {
	return task.Task{ID: id, Every: every, Priority: priority, Run: func(ctx context.Context) error {
		d.note("%s", id)
		time.Sleep(takes)
		return nil
	}}
}

func TestIntervalAndSkippedRounds(t *testing.T) {
	bubble(t, task.Options{}, func(s *task.Scheduler, d *diary) {
		var skipped []int
		slow := sleeper(d, "slow", 5, 10*time.Second, 25*time.Second)
		slow.Done = func(r task.Round) { skipped = append(skipped, r.Skipped) }
		add(t, s, sleeper(d, "quick", 5, 20*time.Second, time.Second), slow)
		run(s, 59*time.Second)
		slices.Sort(d.lines)
		d.want(t, "0s quick", "0s slow", "20s quick", "30s slow", "40s quick")
		if !slices.Equal(skipped, []int{2, 2}) {
			t.Errorf("skipped %v", skipped)
		}
	})
}

func TestMostUrgentFirst(t *testing.T) {
	bubble(t, task.Options{Slots: 1}, func(s *task.Scheduler, d *diary) {
		add(t, s, sleeper(d, "low", 1, 0, time.Second), sleeper(d, "high", 9, 0, time.Second), sleeper(d, "mid", 5, 0, time.Second))
		run(s, time.Minute)
		d.want(t, "0s high", "1s mid", "2s low")
	})
}

// TestAgeing: rounds of priority 5 come without end, one of priority 4 still gets its turn.
func TestAgeing(t *testing.T) {
	bubble(t, task.Options{Slots: 1, Ageing: 3500 * time.Millisecond}, func(s *task.Scheduler, d *diary) {
		add(t, s, sleeper(d, "a", 5, time.Second, time.Second), sleeper(d, "b", 5, time.Second, time.Second), sleeper(d, "patient", 4, 0, 0))
		run(s, time.Minute)
		i := slices.IndexFunc(d.lines, func(l string) bool { return strings.HasSuffix(l, "patient") })
		if i < 3 || i > 6 {
			t.Errorf("its turn came as number %d of %v", i, d.lines)
		}
	})
}

func TestSlicesAreSharedAmongEquals(t *testing.T) {
	bubble(t, task.Options{Slots: 1, Slice: time.Second}, func(s *task.Scheduler, d *diary) {
		steps := func(id string) task.Task {
			return task.Task{ID: id, Priority: 5, Run: func(ctx context.Context) error {
				for range 4 {
					d.note("%s", id)
					time.Sleep(600 * time.Millisecond)
					if err := creel.Yield(ctx); err != nil {
						return err
					}
				}
				return nil
			}}
		}
		add(t, s, steps("a"), steps("b"))
		run(s, time.Minute)
		d.want(t, "0s a", "600ms a", "1.2s b", "1.8s b", "2.4s a", "3s a", "3.6s b", "4.2s b")
	})
}

func TestPreemptionAtYield(t *testing.T) {
	bubble(t, task.Options{Slots: 1, Slice: time.Hour}, func(s *task.Scheduler, d *diary) {
		add(t, s, task.Task{ID: "long", Priority: 3, Run: func(ctx context.Context) error {
			add(t, s, sleeper(d, "urgent", 4, 0, time.Second), sleeper(d, "lazy", 2, 0, time.Second))
			time.Sleep(time.Second)
			d.note("yields")
			err := creel.Yield(ctx)
			d.note("goes on")
			return err
		}})
		run(s, time.Minute)
		d.want(t, "1s yields", "1s urgent", "2s goes on", "2s lazy")
	})
}

func TestBlockedRoundOwnsNoSlotAndNoTime(t *testing.T) {
	bubble(t, task.Options{Slots: 1}, func(s *task.Scheduler, d *diary) {
		add(t, s, task.Task{ID: "sender", Priority: 9, Timeout: 2 * time.Second, Run: func(ctx context.Context) error {
			time.Sleep(time.Second)
			err := creel.Blocking(ctx, func() error { time.Sleep(time.Minute); return nil })
			d.note("unblocked, %v", err)
			select {
			case <-time.After(900 * time.Millisecond):
				d.note("in time")
			case <-ctx.Done():
			}
			<-ctx.Done()
			d.note("%v", context.Cause(ctx))
			return ctx.Err()
		}}, sleeper(d, "other", 1, 0, 70*time.Second))
		run(s, 10*time.Minute)
		d.want(t, "1s other", "1m11s unblocked, <nil>", "1m11.9s in time", "1m12s round took longer than its timeout")
	})
}

func TestBusyIsTimeInSlots(t *testing.T) {
	bubble(t, task.Options{Slots: 1}, func(s *task.Scheduler, d *diary) {
		add(t, s, task.Task{ID: "sender", Every: 10 * time.Minute, Run: func(ctx context.Context) error {
			time.Sleep(time.Second)
			err := creel.Blocking(ctx, func() error { time.Sleep(time.Minute); return nil })
			time.Sleep(2 * time.Second)
			return err
		}})
		go run(s, 22*time.Minute)
		for _, c := range []struct{ at, want time.Duration }{{500 * time.Millisecond, 500 * time.Millisecond}, {30 * time.Second, time.Second}, {62 * time.Second, 2 * time.Second}, {21*time.Minute + 30*time.Second, 9 * time.Second}} {
			time.Sleep(c.at - time.Since(d.start))
			if got := s.Tasks()[0].Busy; got != c.want {
				t.Errorf("after %v it was busy for %v, want %v", c.at, got, c.want)
			}
		}
		time.Sleep(time.Minute)
	})
}

func TestOneKeyAtATime(t *testing.T) {
	bubble(t, task.Options{Slots: 4}, func(s *task.Scheduler, d *diary) {
		a, b, c := sleeper(d, "a", 9, 0, time.Second), sleeper(d, "b", 8, 0, time.Second), sleeper(d, "c", 1, 0, time.Second)
		a.Key, b.Key = "disk", "disk"
		add(t, s, a, b, c)
		run(s, time.Minute)
		slices.Sort(d.lines[:2])
		d.want(t, "0s a", "0s c", "1s b")
	})
}

func TestRemoveWaitsAndCancels(t *testing.T) {
	bubble(t, task.Options{Slots: 1}, func(s *task.Scheduler, d *diary) {
		add(t, s, task.Task{ID: "a", Every: time.Second, Priority: 5, Run: func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(time.Second)
			d.note("ended")
			return ctx.Err()
		}}, sleeper(d, "waits", 1, time.Second, 0))
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { _ = s.Run(ctx); close(done) }()
		time.Sleep(10 * time.Second)
		short, stop := context.WithTimeout(ctx, 500*time.Millisecond)
		defer stop()
		if err := s.Remove(short, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("removing what does not end in time: %v", err)
		}
		if err := s.Remove(ctx, "nobody"); err != nil {
			t.Error(err)
		}
		if err := s.Remove(ctx, "waits"); err != nil {
			t.Error(err)
		}
		time.Sleep(10 * time.Second)
		if got := s.Tasks(); len(got) != 0 {
			t.Errorf("left over: %v", got)
		}
		cancel()
		<-done
		if len(d.lines) == 0 || d.lines[0] != "11s ended" {
			t.Error(d.lines)
		}
		if err := s.Add(sleeper(d, "late", 1, 0, 0)); err == nil {
			t.Error("a stopped scheduler takes tasks in")
		}
	})
}

func TestPauseResumeTrigger(t *testing.T) {
	bubble(t, task.Options{}, func(s *task.Scheduler, d *diary) {
		add(t, s, sleeper(d, "a", 5, 10*time.Second, time.Second))
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { _ = s.Run(ctx); close(done) }()
		time.Sleep(5 * time.Second)
		s.Pause()
		time.Sleep(30 * time.Second)
		s.Resume()
		time.Sleep(2 * time.Second)
		if err := s.Trigger("a"); err != nil {
			t.Error(err)
		}
		time.Sleep(100 * time.Millisecond)
		if err := s.Trigger("a"); err != nil { // while it runs: once more
			t.Error(err)
		}
		if err := s.Trigger("b"); err == nil {
			t.Error("what does not exist was triggered")
		}
		time.Sleep(2 * time.Second)
		cancel()
		<-done
		d.want(t, "0s a", "35s a", "37s a", "38s a")
	})
}

func TestPanicIsAnError(t *testing.T) {
	bubble(t, task.Options{}, func(s *task.Scheduler, d *diary) {
		var got error
		add(t, s, task.Task{ID: "a", Run: func(context.Context) error { panic("oh") }, Done: func(r task.Round) { got = r.Err }})
		run(s, time.Second)
		if got == nil || !strings.Contains(got.Error(), "panic: oh") || !strings.Contains(got.Error(), "task_test.go") {
			t.Errorf("got %v", got)
		}
	})
}

func TestBadTasks(t *testing.T) {
	s := task.New(task.Options{})
	ok := func(context.Context) error { return nil }
	for _, bad := range []task.Task{{Run: ok}, {ID: "a"}, {ID: "a", Run: ok, Priority: 10}, {ID: "a", Run: ok, Every: -1}} {
		if err := s.Add(bad); err == nil {
			t.Errorf("%+v was taken in", bad)
		}
	}
	add(t, s, task.Task{ID: "a", Run: ok})
	if err := s.Add(task.Task{ID: "a", Run: ok}); err == nil {
		t.Error("one id was taken twice")
	}
}

// TestCrowd lets many tasks with random costs, blocking and yielding share few slots, and counts that never more run.
func TestCrowd(t *testing.T) {
	bubble(t, task.Options{Slots: 3, Slice: 10 * time.Millisecond}, func(s *task.Scheduler, d *diary) {
		var mu sync.Mutex
		running, most, rounds := 0, 0, 0
		enter := func(n int) {
			mu.Lock()
			defer mu.Unlock()
			running += n
			most = max(most, running)
		}
		for i := range 40 {
			add(t, s, task.Task{ID: fmt.Sprint(i), Every: time.Second, Priority: i % 10, Run: func(ctx context.Context) error {
				enter(1)
				defer enter(-1)
				time.Sleep(time.Duration(i) * time.Millisecond)
				enter(-1)
				err := creel.Blocking(ctx, func() error { time.Sleep(5 * time.Millisecond); return nil })
				if err == nil {
					err = creel.Yield(ctx)
				}
				enter(1)
				mu.Lock()
				rounds++
				mu.Unlock()
				return err
			}})
		}
		run(s, 30*time.Second)
		if most > 3 || rounds < 40*20 {
			t.Errorf("%d rounds, at most %d at the same time", rounds, most)
		}
	})
}

// TestContext: a round's context is one like any other, whenever it is looked at first: while the round runs, when it was cancelled, or
// when it has ended; by several goroutines at once.
func TestContext(t *testing.T) {
	bubble(t, task.Options{Slots: 4}, func(s *task.Scheduler, d *diary) {
		var early, late context.Context
		var child, timed, ended error
		add(t, s,
			task.Task{ID: "looks", Run: func(ctx context.Context) error {
				early = ctx
				var wg sync.WaitGroup
				dones := make([]<-chan struct{}, 8)
				for i := range dones {
					wg.Go(func() { dones[i] = ctx.Done() })
				}
				wg.Wait()
				for _, c := range dones {
					if c != ctx.Done() {
						t.Error("two looks see different ends")
					}
				}
				if ctx.Err() != nil {
					t.Errorf("it is over while it runs: %v", ctx.Err())
				}
				inner, cancel := context.WithTimeout(ctx, time.Second)
				defer cancel()
				<-inner.Done()
				child = inner.Err()
				return creel.Yield(ctx)
			}},
			task.Task{ID: "looks away", Run: func(ctx context.Context) error { late = ctx; return nil }},
			task.Task{ID: "late", Timeout: time.Second, Run: func(ctx context.Context) error {
				time.Sleep(2 * time.Second)
				timed = context.Cause(ctx)
				<-ctx.Done()
				return ctx.Err()
			}, Done: func(r task.Round) { ended = r.Err }},
		)
		run(s, time.Minute)
		if child != context.DeadlineExceeded {
			t.Errorf("what was made of it has ended with %v", child)
		}
		if timed != task.ErrTimeout {
			t.Errorf("looked at after the timeout it has ended because of %v", timed)
		}
		for _, ctx := range []context.Context{early, late} {
			if <-ctx.Done(); ctx.Err() != context.Canceled || context.Cause(ctx) != context.Canceled {
				t.Errorf("after the round it has ended with %v, because of %v", ctx.Err(), context.Cause(ctx))
			}
		}
		if !errors.Is(ended, task.ErrTimeout) {
			t.Errorf("the round has ended with %v", ended)
		}
	})
}
