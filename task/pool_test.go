package task_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/creelhq/creel/task"
)

func exit() { runtime.Goexit() }

func TestPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := task.NewPool(task.PoolOptions{Workers: 2, Queue: 3, Idle: time.Second})
		var done, now, most atomic.Int32
		work := func() {
			most.Store(max(most.Load(), now.Add(1)))
			time.Sleep(time.Second)
			now.Add(-1)
			done.Add(1)
		}
		for range 5 {
			if err := p.TrySubmit(work); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.TrySubmit(work); !errors.Is(err, task.ErrFull) {
			t.Errorf("a sixth: %v", err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
		defer cancel()
		if err := p.Submit(ctx, work); !errors.Is(err, task.ErrFull) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a sixth that has half a second: %v", err)
		}
		begin := time.Now()
		if err := p.Submit(context.Background(), work); err != nil || time.Since(begin) != 500*time.Millisecond {
			t.Errorf("a patient sixth: %v after %v", err, time.Since(begin))
		}
		time.Sleep(10 * time.Second)
		if done.Load() != 6 || most.Load() != 2 {
			t.Errorf("%d done, %d at the same time", done.Load(), most.Load())
		}
		blocked := make(chan error)
		for range 5 {
			_ = p.Submit(context.Background(), work)
		}
		go func() { blocked <- p.Submit(context.Background(), work) }()
		synctest.Wait()
		short, stop := context.WithTimeout(context.Background(), time.Millisecond)
		defer stop()
		if err := p.Close(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("closing while work is done: %v", err)
		}
		if err := <-blocked; !errors.Is(err, task.ErrClosed) && err != nil {
			t.Errorf("submitting while it closes: %v", err)
		}
		if err := p.Close(context.Background()); err != nil || done.Load() < 11 {
			t.Errorf("%v, %d done", err, done.Load())
		}
		if err := p.TrySubmit(work); !errors.Is(err, task.ErrClosed) {
			t.Errorf("submitting to a closed pool: %v", err)
		}
	})
}

// TestPoolRests: a pool that has nothing to do comes to have no goroutine, one that has little keeps what it needs.
func TestPoolRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		workers := func() int { // others of the process may end meanwhile
			stacks := make([]byte, 4<<20)
			return strings.Count(string(stacks[:runtime.Stack(stacks, true)]), "created by github.com/creelhq/creel/task.(*Pool)")
		}
		p := task.NewPool(task.PoolOptions{Workers: 100, Idle: 10 * time.Second})
		for range 50 {
			_ = p.TrySubmit(func() { time.Sleep(time.Second) })
		}
		synctest.Wait()
		full := workers()
		for range 30 {
			time.Sleep(2 * time.Second)
			_ = p.TrySubmit(func() { time.Sleep(time.Second) })
		}
		time.Sleep(1500 * time.Millisecond)
		few := workers()
		time.Sleep(30 * time.Second)
		none := workers()
		if full < 50 || few < 1 || few > 5 || none > 0 {
			t.Errorf("goroutines: %d, then %d, in the end %d", full, few, none)
		}
	})
}

func TestPoolSurvives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got *task.PanicError
		p := task.NewPool(task.PoolOptions{Workers: 1, Queue: 3, Panicked: func(e *task.PanicError) { got = e }})
		cause, done := errors.New("oh"), false
		for _, f := range []func(){func() { panic(cause) }, exit, func() { done = true }} {
			if err := p.TrySubmit(f); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Close(context.Background()); err != nil || !done {
			t.Errorf("%v, and the last was done: %v", err, done)
		}
		if got == nil || !errors.Is(got, cause) || !strings.Contains(got.Error(), "pool_test.go") {
			t.Errorf("got %v", got)
		}
	})
}
