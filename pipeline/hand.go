package pipeline

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"
)

// This file tells what is in hand: admitted, and not delivered yet.

// holders yields the stages that can hold records. e.mu is held.
func (e *Engine) holders() iter.Seq[*stage] {
	return func(yield func(*stage) bool) {
		for _, st := range e.stages {
			if st.held != nil && !yield(st) {
				return
			}
		}
		for _, st := range e.lingering {
			if st.held != nil && !yield(st) {
				return
			}
		}
	}
}

// inHand returns how many records are in processing, held, and in queues in memory. e.mu is held.
func (e *Engine) inHand() (n int64) {
	for st := range e.holders() {
		st.holds() // enters what it has done
	}
	e.books.mu.Lock()
	defer e.books.mu.Unlock()
	for name, b := range e.books.books {
		p := b.page(0)
		n += p.unexplained() // it is held, or between two stages
		for _, a := range e.books.accounts[name] {
			n += a.queued.Load()
		}
	}
	return max(0, n) // the terms are not of one moment
}

// leftovers is what is in hand, by where it is.
type leftovers struct {
	pages []page // of what was looked at
	where []string
}

// leftovers looks what is in hand, on disk as well. It says nothing certain while records move.
func (e *Engine) leftovers() (l leftovers) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for st := range e.holders() {
		st.holds()
	}
	for _, x := range e.exports {
		if x.store != nil {
			x.store.count()
		}
	}
	e.books.mu.Lock()
	defer e.books.mu.Unlock()
	add := func(p page, n int64, what string) {
		l.pages = append(l.pages, p)
		if n != 0 {
			l.where = append(l.where, fmt.Sprintf("%d %s", n, what))
		}
	}
	for _, name := range e.books.order {
		p := e.books.books[name].page(0)
		add(p, p.unexplained(), "in pipeline "+name)
		for _, a := range e.books.accounts[name] {
			add(a.page(), a.queued.Load(), "of pipeline "+name+" at exporter "+a.exporter)
		}
	}
	for _, a := range e.books.spools {
		if x := e.exports[a.exporter]; x != nil && x.store != nil { // else nobody takes from it
			add(a.page(), a.queued.Load(), "in the disk queue of exporter "+a.exporter)
		}
	}
	return l
}

// Flush waits until all that was admitted is delivered, or decided on: what processors hold and what waits on disk as well.
// When ctx is done before, the error says how many records are where. It is of little use unless the Engine is paused.
func (e *Engine) Flush(ctx context.Context) error {
	for {
		before, empty := e.leftovers(), e.current.Load().inside.Load() == 0
		after := e.leftovers() // as the audit does: what has not moved was so at the moment between
		if empty && len(after.where) == 0 && slices.Equal(before.pages, after.pages) {
			return nil
		}
		if pause(ctx, 5*time.Millisecond) != nil {
			return fmt.Errorf("flush: %w, and records are left: %s", ctx.Err(), strings.Join(after.where, ", "))
		}
	}
}
