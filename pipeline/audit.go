package pipeline

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/report"
)

// The audit looks whether the books balance, while records are on their way. It may judge quiet moments only: those when
// nobody was moving records from one term of an equation to another. To find one costs those who move them nothing: all
// terms are read, it is seen that no batch is inside the generation, and all are read again. All that is counted only grows,
// or has a counterpart that does; so what is the same both times was so at the moment between.
//
// Who enters a record's fate at an exporter's queue does so in two steps, which are not marked. So a difference is believed
// only when every moment shows it, for long.

// A page is one equation of the books: what has come, less what has become of it, is nothing.
type page [6 + reasons]int64

func (p *page) unexplained() int64 {
	n := p[0]
	for _, out := range p[1:] {
		n -= out
	}
	return n
}

func (p *page) drops(d *dropped) {
	for r := range reasons {
		p[6+r] = d[r].Load()
	}
}

func (b *book) page(held int64) (p page) {
	p = page{b.accepted.Load() + b.created.Load(), b.filtered.Load(), b.absorbed.Load(), b.routed.Load(), b.passed.Load(), held}
	p.drops(&b.dropped)
	return p
}

func (a *account) page() (p page) {
	p = page{a.recovered.Load() + a.in.Load(), a.delivered.Load(), a.deadLettered.Load(), a.spooled.Load(), a.queued.Load()}
	p.drops(&a.dropped)
	return p
}

// looks is how often a quiet moment is looked for at a time.
const (
	looks     = 10
	lookAgain = 100 * time.Microsecond
)

// A difference is one that every quiet moment has shown since a time.
type difference struct {
	of                 any // a *book or an *account
	pipeline, exporter string
	records            int64
	since              time.Time
	moments            int
	told               bool
}

// component names where it is.
func (d *difference) component() string {
	if d.exporter == "" {
		return "pipelines." + d.pipeline
	}
	return Section(creel.KindExporter) + "." + d.exporter
}

func (d *difference) String() string {
	whose := ""
	switch {
	case d.pipeline == "":
		whose = " of its disk queue"
	case d.exporter != "":
		whose = " of pipeline " + d.pipeline
	}
	return fmt.Sprintf("%d records%s are unexplained since %s", d.records, whose, d.since.Format(time.RFC3339))
}

// An audit remembers what does not balance.
type audit struct {
	mu       sync.Mutex
	patience time.Duration
	open     map[any]*difference // by *book or *account
	judged   map[any]int         // quiet moments
}

// enough is how many quiet moments a difference must have been seen in.
const enough = 3

// Audit looks at the books all the time until ctx is done. A difference that is there at every quiet moment for longer than
// patience makes the component that it is at unhealthy, until it is gone.
func (e *Engine) Audit(ctx context.Context, every, patience time.Duration) {
	e.audit.mu.Lock()
	e.audit.patience = patience
	e.audit.mu.Unlock()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		judged := make(map[any]bool)
		for range looks {
			if e.lookAtBooks(time.Now(), judged) || pause(ctx, lookAgain) != nil {
				break
			}
		}
	}
}

// lookAtBooks judges the equations that are not judged yet, as far as it finds them quiet. It reports whether all are.
func (e *Engine) lookAtBooks(now time.Time, judged map[any]bool) (done bool) {
	select {
	case <-e.applying:
		defer func() { e.applying <- struct{}{} }()
	default:
		return true // a reload moves everything
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	held := make(map[string][]*stage)
	for st := range e.holders() {
		held[st.comp.Pipeline] = append(held[st.comp.Pipeline], st)
	}
	e.books.mu.Lock()
	defer e.books.mu.Unlock()
	done = true
	look := func(of any, pipeline, exporter string, read func() page) {
		if judged[of] {
			return
		}
		before, empty, after := read(), exporter != "" || e.current.Load().inside.Load() == 0, read()
		if before != after || !empty {
			done = false
			return
		}
		judged[of] = true
		e.judge(now, difference{of: of, pipeline: pipeline, exporter: exporter, records: after.unexplained()})
	}
	for _, name := range e.books.order {
		b := e.books.books[name]
		look(b, name, "", func() page {
			n := int64(0)
			for _, st := range held[name] {
				n += st.holds()
			}
			return b.page(n)
		})
		for _, a := range e.books.accounts[name] {
			look(a, name, a.exporter, a.page)
		}
	}
	for _, a := range e.books.spools {
		look(a, "", a.exporter, a.page)
	}
	return done
}

// holds returns how many records the stage holds, and enters what it has done to them.
func (st *stage) holds() int64 {
	st.count(st.held.Take())
	_, n := st.held.Len()
	return int64(n)
}

// judge notes what a quiet moment has shown.
func (e *Engine) judge(now time.Time, seen difference) {
	a := &e.audit
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open == nil {
		a.open, a.judged = make(map[any]*difference), make(map[any]int)
	}
	a.judged[seen.of]++
	d := a.open[seen.of]
	switch {
	case seen.records == 0 && d == nil:
	case seen.records == 0:
		delete(a.open, seen.of)
		if d.told {
			e.Log.Info("the books balance again", "component", d.component(), "pipeline", d.pipeline)
		}
	case d == nil:
		seen.since, seen.moments = now, 1
		a.open[seen.of] = &seen
	default:
		d.records = seen.records
		if d.moments++; a.certain(d, now) && !d.told {
			d.told = true
			e.Log.Error("the books do not balance: this is a bug of creel; please report it with the ledger",
				"component", d.component(), "pipeline", d.pipeline, "unexplained", d.records, "since", d.since)
		}
	}
}

func (a *audit) certain(d *difference, now time.Time) bool {
	return d.moments >= enough && now.Sub(d.since) >= a.patience
}

// complain makes the components unhealthy whose records are unexplained. What is not in the list is added.
func (a *audit) complain(list []report.Component) []report.Component {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, d := range a.open {
		if !d.told {
			continue
		}
		name := d.component()
		i := slices.IndexFunc(list, func(c report.Component) bool { return c.Component == name })
		if i < 0 {
			i = len(list)
			list = append(list, report.Component{Component: name, Healthy: true})
		}
		if c := &list[i]; c.Healthy {
			c.Healthy, c.Since, c.Error = false, d.since, d.String()
		}
	}
	return list
}
