package audit

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/creelhq/creel/api"
)

// Whoever is refused can be so as often as he likes, and entries of it would push those out of the log that say what was done.
// So of one source some are written each minute, and the others are gathered in one entry; and all of those who have not
// even shown who they are share a budget, beyond which what is left of a minute is one entry for all of them. They write three
// entries a minute in the long run then, by which the log goes back for days however many they are.
const (
	few      = 3               // entries a minute of one source that has not shown who it is
	some     = 60              // of one that has
	burst    = 60              // entries at once of all that have not
	refill   = 2               // of which so many come back a minute
	sources  = 1000            // that are told apart in a minute
	every    = time.Minute     // entries that were gathered are written
	patience = 3 * time.Second // that writing them may take: Close waits for it
)

// gathered is what was refused and not written. It is guarded by Log.mu.
type gathered struct {
	budget int
	counts map[source]*count
}

type source struct {
	who, address, outcome string
	role                  api.Role
}

type count struct {
	written, more int
	last          api.AuditEntry
}

func newGathered() gathered { return gathered{budget: burst, counts: make(map[source]*count)} }

// of returns the count of an entry's source.
func (g *gathered) of(e api.AuditEntry) *count {
	s := source{e.Who, e.Address, e.Outcome, e.Role}
	if e.Role == "" {
		s.who = "" // it is what somebody says
	}
	c := g.counts[s]
	if c == nil && len(g.counts) >= sources {
		s = source{}
		c = g.counts[s]
	}
	if c == nil {
		c = &count{}
		g.counts[s] = c
	}
	return c
}

// lets reports whether an entry of what was refused is to be written at once; else it counts it.
func (l *Log) lets(e api.AuditEntry) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.held.of(e)
	limit := few
	if e.Role != "" {
		limit = some
	}
	if c.written < limit && (e.Role != "" || l.held.budget > 0) {
		c.written++
		if e.Role == "" {
			l.held.budget--
		}
		return true
	}
	c.more++
	c.last = e
	return false
}

// hold counts what could not be written.
func (l *Log) hold(e api.AuditEntry, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.held.of(e)
	c.more += n
	c.last = e
}

// flushes writes what was gathered, each minute and at the end.
func (l *Log) flushes() {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for open := true; open; {
		select {
		case <-tick.C:
		case <-l.ctx.Done():
			open = false
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		l.flush(ctx)
		cancel()
	}
}

// flush writes what was gathered, and begins a new minute. What cannot be written is held on to.
func (l *Log) flush(ctx context.Context) {
	list, alone := l.gather()
	for i, c := range list {
		e := c.last
		if i < alone {
			e.Detail = fmt.Sprintf("%d more of these within a minute; the last: %s", c.more, cmp.Or(e.Detail, "no more is known"))
		} else {
			e = together(list[i:])
		}
		if l.write(ctx, clean(e)) != nil {
			for _, c := range list[i:] {
				l.hold(c.last, c.more)
			}
			return
		}
		if i >= alone {
			return
		}
	}
}

// gather returns what was gathered, of which the first so many are worth an entry each, and begins anew.
func (l *Log) gather() (list []*count, alone int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.held.counts {
		if c.more > 0 {
			list = append(list, c)
		}
	}
	clear(l.held.counts)
	slices.SortFunc(list, func(a, b *count) int {
		return cmp.Or(cmp.Compare(b.last.Role, a.last.Role), cmp.Compare(b.more, a.more), cmp.Compare(a.last.Address, b.last.Address), cmp.Compare(a.last.Outcome, b.last.Outcome))
	})
	for alone < len(list) && (list[alone].last.Role != "" || l.held.budget > 0) {
		if list[alone].last.Role == "" {
			l.held.budget--
		}
		alone++
	}
	if alone == len(list)-1 {
		alone++ // an entry for all the others would be its own
	}
	l.held.budget = min(burst, l.held.budget+refill)
	return list, alone
}

// together is one entry for many sources, of which the first has most.
func together(list []*count) api.AuditEntry {
	n, first := 0, list[0].last
	for _, c := range list {
		n += c.more
	}
	return api.AuditEntry{
		Hub: first.Hub, Action: first.Action, Outcome: first.Outcome,
		Detail: fmt.Sprintf("%d more from %d sources within a minute, of them %d from %s", n, len(list), list[0].more, cmp.Or(first.Address, "an unknown address")),
	}
}
