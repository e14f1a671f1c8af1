package pipeline

import (
	"context"
	"fmt"
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
	component string // that is to be named
	of        string // whose records, if not the component's own
	records   int64
	since     time.Time
	moments   int
	told      bool
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
	if !e.applying.TryLock() {
		return true // a reload moves everything
	}
	defer e.applying.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.books.mu.Lock()
	defer e.books.mu.Unlock()
	before := e.books.pages(nil, e.held())
	empty := e.current.Load().inside.Load() == 0
	after := e.books.pages(nil, e.held())
	done = true
	for i, l := range after {
		_, ofPipeline := l.of.(*book)
		switch {
		case judged[l.of]:
		case before[i].page != l.page || ofPipeline && !empty:
			done = false
		default:
			judged[l.of] = true
			e.judge(now, l)
		}
	}
	return done
}

// held returns how many records the stages of each pipeline hold, and enters what they have done to them.
func (e *Engine) held() map[string]int64 {
	held := make(map[string]int64)
	for _, st := range e.stages {
		if st.held != nil {
			st.count(st.held.Take())
			_, n := st.held.Len()
			held[st.comp.Pipeline] += int64(n)
		}
	}
	return held
}

// A leaf is a page, and what it is of.
type leaf struct {
	page
	of             any // a *book or an *account
	component, who string
}

// pages appends all pages. bs is locked.
func (bs *books) pages(list []leaf, held map[string]int64) []leaf {
	for _, name := range bs.order {
		b := bs.books[name]
		list = append(list, leaf{b.page(held[name]), b, "pipelines." + name, ""})
		for _, a := range bs.accounts[name] {
			list = append(list, leaf{a.page(), a, Section(creel.KindExporter) + "." + a.exporter, " of pipeline " + name})
		}
	}
	for _, a := range bs.spools {
		list = append(list, leaf{a.page(), a, Section(creel.KindExporter) + "." + a.exporter, " of its disk queue"})
	}
	return list
}

// judge notes what a quiet moment has shown.
func (e *Engine) judge(now time.Time, l leaf) {
	a := &e.audit
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open == nil {
		a.open, a.judged = make(map[any]*difference), make(map[any]int)
	}
	a.judged[l.of]++
	d, n := a.open[l.of], l.unexplained()
	switch {
	case n == 0 && d == nil:
	case n == 0:
		delete(a.open, l.of)
		if d.told {
			e.Log.Info("the books balance again", "component", d.component, "what", "records"+d.of)
		}
	case d == nil:
		a.open[l.of] = &difference{component: l.component, of: l.who, records: n, since: now, moments: 1}
	default:
		d.records = n
		if d.moments++; a.certain(d, now) && !d.told {
			d.told = true
			e.Log.Error("the books do not balance: this is a bug of creel; please report it with the ledger",
				"component", d.component, "what", "records"+d.of, "unexplained", n, "since", d.since)
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
		i := 0
		for i < len(list) && list[i].Component != d.component {
			i++
		}
		if i == len(list) {
			list = append(list, report.Component{Component: d.component, Healthy: true})
		}
		if c := &list[i]; c.Healthy {
			c.Healthy, c.Since = false, d.since
			c.Error = fmt.Sprintf("%d records%s are unexplained since %s", d.records, d.of, d.since.Format(time.RFC3339))
		}
	}
	return list
}
