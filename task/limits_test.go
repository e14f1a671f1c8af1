package task_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/task"
)

// later adds a task after a time.
func later(t *testing.T, s *task.Scheduler, after time.Duration, tk task.Task) {
	time.AfterFunc(after, func() { add(t, s, tk) })
}

// TestRestart: a round that never yields makes way for a more urgent one, not for its like, and begins anew.
func TestRestart(t *testing.T) {
	bubble(t, task.Options{Slots: 1}, func(s *task.Scheduler, d *diary) {
		var rounds []error
		add(t, s, task.Task{ID: "long", Priority: 3, Preempt: task.Restart, Run: func(ctx context.Context) error {
			d.note("long begins")
			select {
			case <-time.After(10 * time.Second):
				return nil
			case <-ctx.Done():
				d.note("%v", errors.Is(context.Cause(ctx), task.ErrPreempted))
				return ctx.Err()
			}
		}, Done: func(r task.Round) { rounds = append(rounds, r.Err) }})
		later(t, s, time.Second, sleeper(d, "equal", 3, 0, time.Second))
		later(t, s, 2*time.Second, sleeper(d, "urgent", 4, 0, time.Second))
		run(s, time.Minute)
		// The equal has waited for longer than the one that begins anew.
		d.want(t, "0s long begins", "2s true", "2s urgent", "3s equal", "4s long begins")
		if len(rounds) != 1 || rounds[0] != nil {
			t.Errorf("rounds: %v", rounds)
		}
	})
}

// TestRestartEnds: more urgent rounds come without end, each cancels, and still the round gets its time: what it has waited
// counts, though it runs in between.
func TestRestartEnds(t *testing.T) {
	bubble(t, task.Options{Slots: 1, Ageing: 10 * time.Second}, func(s *task.Scheduler, d *diary) {
		begun := 0
		add(t, s, sleeper(d, "urgent", 5, 4*time.Second, time.Second), task.Task{ID: "long", Priority: 3, Preempt: task.Restart, Run: func(ctx context.Context) error {
			begun++
			select {
			case <-time.After(20 * time.Second):
				d.note("done")
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}})
		run(s, 5*time.Minute)
		if done := strings.Count(strings.Join(d.lines, " "), "done"); done != 1 || begun < 10 || begun > 30 {
			t.Errorf("it began %d times, and was done %d times", begun, done)
		}
	})
}

// TestInheritance: low holds what high waits for, and is preempted. Once high waits, it has its slot back ahead of mid.
func TestInheritance(t *testing.T) {
	for _, by := range []string{"key", "class"} {
		bubble(t, task.Options{Slots: 1, Classes: map[string]int{"one": 1}}, func(s *task.Scheduler, d *diary) {
			tag := func(tk task.Task) task.Task {
				if by == "key" {
					tk.Key = "disk"
				} else {
					tk.Class = "one"
				}
				return tk
			}
			add(t, s, tag(task.Task{ID: "low", Priority: 1, Run: func(ctx context.Context) error {
				d.note("low")
				time.Sleep(time.Second)
				err := creel.Yield(ctx) // to mid
				d.note("low goes on")
				time.Sleep(time.Second)
				err = errors.Join(err, creel.Yield(ctx)) // not to mid: high waits
				d.note("low ends")
				return err
			}}))
			later(t, s, 500*time.Millisecond, sleeper(d, "mid1", 5, 0, 2*time.Second))
			later(t, s, 1500*time.Millisecond, tag(sleeper(d, "high", 9, 0, time.Second)))
			later(t, s, 1600*time.Millisecond, sleeper(d, "mid2", 5, 0, time.Second))
			time.AfterFunc(2*time.Second, func() {
				for _, st := range s.Tasks() {
					if st.ID == "low" && (st.Priority < 9 || st.Priority > 9.1 || st.Waiting.IsZero() || st.Started.IsZero()) {
						t.Errorf("%+v", st)
					}
				}
			})
			run(s, time.Minute)
			d.want(t, "0s low", "1s mid1", "3s low goes on", "4s low ends", "4s high", "5s mid2")
		})
	}
}

func TestClass(t *testing.T) {
	bubble(t, task.Options{Slots: 8, Classes: map[string]int{"two": 2}}, func(s *task.Scheduler, d *diary) {
		for i := range 5 {
			tk := sleeper(d, "a", 5-i, 0, time.Second)
			tk.ID, tk.Class = fmt.Sprint(i), "two"
			add(t, s, tk)
		}
		tk := sleeper(d, "other", 1, 0, time.Second)
		tk.Class = "not listed"
		add(t, s, tk)
		run(s, time.Minute)
		if got := strings.Join(d.lines, ", "); strings.Count(got, "0s a") != 2 || strings.Count(got, "1s a") != 2 ||
			strings.Count(got, "2s a") != 1 || !strings.Contains(got, "0s other") {
			t.Error(got)
		}
	})
}

func TestBreaker(t *testing.T) {
	bubble(t, task.Options{}, func(s *task.Scheduler, d *diary) {
		var well atomic.Bool
		add(t, s, task.Task{ID: "a", Every: 10 * time.Second, Timeout: time.Second, Run: func(ctx context.Context) error {
			d.note("a")
			if well.Load() {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}})
		stop := start(s)
		look := func(after time.Duration) task.Status {
			time.Sleep(after - time.Since(d.start))
			return s.Tasks()[0]
		}
		if st := look(15 * time.Second); st.Breaker.Open || st.Timeouts != 2 || st.Failures != 2 {
			t.Errorf("after two timeouts: %+v", st)
		}
		if st := look(25 * time.Second); !st.Breaker.Open || !strings.Contains(st.Breaker.Reason, "3 rounds in a row") || st.Next.Sub(d.start) != 90*time.Second {
			t.Errorf("after three: %+v", st)
		}
		if st := look(95 * time.Second); st.Next.Sub(d.start) != 220*time.Second { // 91 s and two minutes
			t.Errorf("after a failed probe: %+v", st)
		}
		well.Store(true)
		if err := s.Trigger("a"); err != nil {
			t.Error(err)
		}
		if st := look(100 * time.Second); st.Breaker.Open || st.Timeouts != 4 || st.Next.Sub(d.start) != 105*time.Second {
			t.Errorf("after a good one: %+v", st)
		}
		stop()
		d.want(t, "0s a", "10s a", "20s a", "1m30s a", "1m35s a")
	})
}

// TestStuck: a round that does not return loses its slot, keeps its key, and nothing waits for it.
func TestStuck(t *testing.T) {
	bubble(t, task.Options{Slots: 1, Abandon: 5 * time.Second}, func(s *task.Scheduler, d *diary) {
		release := make(chan struct{})
		deaf := task.Task{ID: "deaf", Priority: 9, Every: time.Second, Timeout: time.Second, Key: "k", Run: func(ctx context.Context) error {
			d.note("deaf")
			<-release
			return errors.Join(creel.Yield(ctx), creel.Blocking(ctx, func() error { return nil }))
		}}
		same := sleeper(d, "same", 5, 0, 0)
		same.Key = "k"
		add(t, s, deaf, sleeper(d, "other", 1, 0, 0), same)
		stop := start(s)
		time.Sleep(10 * time.Second)
		st := s.Tasks()[0]
		if l := s.Load(); !st.Stuck || l != (task.Load{Waiting: 1, Stuck: 1}) {
			t.Errorf("%+v %+v", st, l)
		}
		d.want(t, "0s deaf", "6s other")
		ctx, cancel := context.WithCancelCause(context.Background())
		cancel(errors.New("no patience"))
		if err := s.Drain(ctx); err != nil && !strings.Contains(err.Error(), "1 of them do not return: no patience") {
			t.Error(err)
		}
		stop() // it returns, though deaf does not
		close(release)
		synctest.Wait()
		if l := s.Load(); l != (task.Load{}) {
			t.Errorf("%+v", l)
		}
	})
}

func TestDrain(t *testing.T) {
	bubble(t, task.Options{Slots: 2}, func(s *task.Scheduler, d *diary) {
		add(t, s, sleeper(d, "short", 9, time.Second, 1500*time.Millisecond), sleeper(d, "waits", 1, 0, 0), task.Task{ID: "long", Priority: 8, Run: func(ctx context.Context) error {
			<-ctx.Done()
			d.note("%v", context.Cause(ctx))
			return ctx.Err()
		}})
		stop := start(s)
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		if err := s.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "1 rounds were cancelled") {
			t.Error(err)
		}
		d.want(t, "0s short", "4s the scheduler stops")
		if err := s.Drain(context.Background()); err != nil {
			t.Error(err)
		}
		if err := s.Submit(sleeper(d, "late", 1, 0, 0)); err == nil {
			t.Error("a drained scheduler takes rounds in")
		}
		stop()
	})
}

// TestBlockedTogether: goroutines of one round block at the same time; the slot is given up once, and taken back once.
func TestBlockedTogether(t *testing.T) {
	bubble(t, task.Options{Slots: 1}, func(s *task.Scheduler, d *diary) {
		var escaped context.Context
		add(t, s, task.Task{ID: "a", Priority: 9, Run: func(ctx context.Context) error {
			escaped = ctx
			var wg sync.WaitGroup
			for i := range 5 {
				wg.Go(func() {
					_ = creel.Blocking(ctx, func() error { time.Sleep(time.Duration(i) * time.Second); return nil })
				})
			}
			wg.Wait()
			if err := s.Check(); err != nil {
				t.Error(err)
			}
			return nil
		}})
		stop := start(s)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		_ = creel.Blocking(escaped, func() error { return nil }) // its round has ended: it means nothing
		_ = creel.Yield(escaped)                                 // the same
		if err := s.Check(); err != nil || s.Load() != (task.Load{}) {
			t.Errorf("%v %+v", err, s.Load())
		}
		stop()
	})
}

// TestExit: a round that ends its goroutine loses nothing but that.
func TestExit(t *testing.T) {
	bubble(t, task.Options{Slots: 1}, func(s *task.Scheduler, d *diary) {
		var got error
		add(t, s, task.Task{ID: "a", Priority: 9, Run: func(context.Context) error { exit(); return nil }, Done: func(r task.Round) { got = r.Err }},
			sleeper(d, "b", 1, 0, 0))
		run(s, time.Minute)
		d.want(t, "0s b")
		if got == nil {
			t.Error("it is no error")
		}
	})
}
