package task

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// A PanicError is a panic as an error.
type PanicError struct {
	Value any
	Stack []byte // of the goroutine that panicked, as text
}

// Error tells the value and the stack.
func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v\n%s", e.Value, e.Stack) }

// Unwrap returns the value if it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// protect calls f; a panic becomes a *PanicError.
func protect(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &PanicError{Value: p, Stack: debug.Stack()}
		}
	}()
	return f()
}

// What a Pool refuses with.
var (
	ErrFull   = errors.New("every worker of the pool is busy and its queue is full")
	ErrClosed = errors.New("the pool is closed")
)

// PoolOptions size a Pool. Zero means the default.
type PoolOptions struct {
	Workers  int               // goroutines at most; default 64
	Queue    int               // pieces of work that may wait for one; default none
	Idle     time.Duration     // a worker ends that had nothing to do for between one and two of these; default 10 s
	Panicked func(*PanicError) // is told when work panicked, in the worker; nil: nobody is
}

// A Pool runs work on a bounded number of goroutines, which are made when needed and end when idle. A pool at rest has no
// goroutine and no timer. Its methods may be called concurrently.
type Pool struct {
	o      PoolOptions
	places chan struct{} // one element for each piece of work that is here
	over   chan struct{} // closed by Close

	mu      sync.Mutex
	workers int
	idle    []*worker // the last one to rest is the first to work: so the others can end
	least   int       // how many were idle all the time since the last sweep
	sweeps  bool      // a sweep is to come
	timer   *time.Timer
	queue   []func()
	head    int // of the queue
	closed  bool
	ended   chan struct{} // closed when the last worker of a closed pool has ended
}

// worker is an idle goroutine. It ends when the channel is closed.
type worker struct{ work chan func() }

// NewPool returns an empty Pool.
func NewPool(o PoolOptions) *Pool {
	if o.Workers <= 0 {
		o.Workers = 64
	}
	if o.Idle <= 0 {
		o.Idle = 10 * time.Second
	}
	o.Queue = max(0, o.Queue)
	return &Pool{o: o, places: make(chan struct{}, o.Workers+o.Queue), over: make(chan struct{}), ended: make(chan struct{})}
}

// Submit runs f on a worker, or queues it. While the queue is full it waits, until ctx is done or the pool is closed.
func (p *Pool) Submit(ctx context.Context, f func()) error {
	select {
	case p.places <- struct{}{}:
		return p.place(f)
	case <-p.over:
		return fmt.Errorf("submit work: %w", ErrClosed)
	case <-ctx.Done():
		return fmt.Errorf("submit work: %w: %w", ErrFull, ctx.Err())
	}
}

// TrySubmit is Submit that does not wait: it fails with ErrFull instead.
func (p *Pool) TrySubmit(f func()) error {
	select {
	case p.places <- struct{}{}:
		return p.place(f)
	default:
		return fmt.Errorf("submit work: %w", ErrFull)
	}
}

func (p *Pool) place(f func()) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		<-p.places
		return fmt.Errorf("submit work: %w", ErrClosed)
	}
	if last := len(p.idle) - 1; last >= 0 {
		w := p.idle[last]
		p.idle[last] = nil
		p.idle = p.idle[:last]
		p.least = min(p.least, last)
		w.work <- f // it has room for one
		return nil
	}
	if p.workers < p.o.Workers {
		p.workers++
		go p.work(f)
		return nil
	}
	p.queue = append(p.queue, f)
	return nil
}

// work is a worker's life.
func (p *Pool) work(f func()) {
	w := &worker{work: make(chan func(), 1)}
	returned := false
	defer func() {
		if !returned { // f ended the goroutine: another takes its place
			<-p.places
			if next, _ := p.rest(nil); next != nil {
				go p.work(next)
			}
		}
	}()
	for f != nil {
		p.do(f)
		<-p.places
		var idle bool
		if f, idle = p.rest(w); idle {
			f = <-w.work
		}
	}
	returned = true
}

func (p *Pool) do(f func()) {
	err := protect(func() error { f(); return nil })
	if failed, ok := err.(*PanicError); ok && p.o.Panicked != nil {
		p.o.Panicked(failed)
	}
}

// rest returns what a worker is to do next. If there is nothing, w becomes idle; if it must not, because the pool is closed
// or w is nil, there is one worker less.
func (p *Pool) rest(w *worker) (next func(), idle bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.head < len(p.queue) {
		next, p.queue[p.head] = p.queue[p.head], nil
		if p.head++; p.head == len(p.queue) {
			p.queue, p.head = p.queue[:0], 0
		} else if p.head > len(p.queue)/2 {
			n := copy(p.queue, p.queue[p.head:])
			clear(p.queue[n:])
			p.queue, p.head = p.queue[:n], 0
		}
		return next, false
	}
	if p.closed || w == nil {
		p.leave(1)
		return nil, false
	}
	p.idle = append(p.idle, w)
	if !p.sweeps {
		p.sweeps, p.least = true, 0
		if p.timer == nil {
			p.timer = time.AfterFunc(p.o.Idle, p.sweep)
		} else {
			p.timer.Reset(p.o.Idle)
		}
	}
	return nil, true
}

func (p *Pool) leave(n int) {
	if p.workers -= n; p.workers == 0 && p.closed {
		close(p.ended)
	}
}

// sweep ends the workers that were idle since the last one.
func (p *Pool) sweep() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end(p.least)
	p.least = len(p.idle)
	if p.sweeps = p.least > 0 && !p.closed; p.sweeps {
		p.timer.Reset(p.o.Idle)
	}
}

// end ends the n workers that have been idle for longest.
func (p *Pool) end(n int) {
	for _, w := range p.idle[:n] {
		close(w.work)
	}
	kept := copy(p.idle, p.idle[n:])
	clear(p.idle[kept:])
	p.idle = p.idle[:kept]
	if n > 0 {
		p.leave(n)
	}
}

// Close refuses further work and lets what is here be done. It returns when it is, or with ctx's error. It may be called
// several times.
func (p *Pool) Close(ctx context.Context) error {
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		close(p.over)
		if p.timer != nil {
			p.timer.Stop()
		}
		if p.workers == 0 {
			close(p.ended)
		}
		p.end(len(p.idle))
	}
	p.mu.Unlock()
	select {
	case <-p.ended:
		return nil
	default:
	}
	select {
	case <-p.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("close pool: some work does not end: %w", ctx.Err())
	}
}
