package pipeline

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
)

// An edge is a place of the graph where records can be looked at as they pass: what a collector sends, what a processor
// is given and what it sends on, what an exporter is given. It is known by name, and so outlives reloads.
type edge struct{ taps atomic.Pointer[[]*Tap] }

// see shows b to those who look. When nobody does, that costs one load.
func (e *edge) see(b *creel.Batch) {
	if taps := e.taps.Load(); taps != nil {
		for _, t := range *taps {
			t.see(b)
		}
	}
}

// edges are an engine's, by the key of a component. What a processor is given has an edge of its own.
type edges struct {
	mu   sync.Mutex
	list map[edgeName]*edge
	open int // taps
}

type edgeName struct {
	component string
	before    bool
}

func (es *edges) of(component string, before bool) *edge {
	es.mu.Lock()
	defer es.mu.Unlock()
	if es.list == nil {
		es.list = make(map[edgeName]*edge)
	}
	e := es.list[edgeName{component, before}]
	if e == nil {
		e = &edge{}
		es.list[edgeName{component, before}] = e
	}
	return e
}

// attach adds t to e, or takes it away.
func (es *edges) attach(e *edge, t *Tap, add bool) bool {
	es.mu.Lock()
	defer es.mu.Unlock()
	var taps []*Tap
	if old := e.taps.Load(); old != nil {
		taps = slices.DeleteFunc(slices.Clone(*old), func(o *Tap) bool { return o == t })
	}
	switch {
	case add && es.open == maxTaps:
		return false
	case add:
		taps = append(taps, t)
		es.open++
	default:
		es.open--
	}
	if len(taps) == 0 {
		e.taps.Store(nil)
	} else {
		e.taps.Store(&taps)
	}
	return true
}

// Bounds of what taps may cost.
const (
	maxTaps    = 8       // at the same time
	maxLooked  = 20_000  // records per second that a tap looks at, a batch more at most
	tapLines   = 256     // records that wait for whoever reads the tap
	tapBacklog = 4 << 20 // their bytes
)

// ErrTaps is what Tap fails with when there are too many.
var ErrTaps = fmt.Errorf("%d taps are open, which is as many as there may be", maxTaps)

// NoEdge is the error of a name that no edge, or more than one, has.
type NoEdge struct {
	Name  string
	Known []string // that it could be
	Many  bool
	hint  string
}

func (e *NoEdge) Error() string {
	known := strings.Join(e.Known, ", ")
	if e.Many {
		return fmt.Sprintf("%q can be any of %s", e.Name, known)
	}
	return strings.TrimSuffix(fmt.Sprintf("there is no edge %q; known are %s; %s", e.Name, known, e.hint), "; ")
}

// TapOptions say what to look at.
type TapOptions struct {
	// Edge is a component's key, such as exporters.otlp/hub or pipelines.web.parse/nginx. Its id alone will do if that
	// leaves no doubt; web.parse/nginx and web/parse/nginx say the pipeline too.
	Edge   string
	Before bool    // of a processor: what it is given, rather than what it sends on
	Rate   float64 // records per second to show, at most; above 0

	// Match returns what tells whether to show the i-th record of b; nil: all are. Render returns how one is shown. Both
	// are called in the pipeline's goroutines, one call at a time, and must not keep what they see.
	Match  func(b *creel.Batch) func(i int) bool
	Render func(b *creel.Batch, i int) []byte
}

// A Tap looks at the records that pass an edge. It holds up nobody: it looks at a bounded share, and what its reader does
// not take in time is left out. Its methods may be called concurrently.
type Tap struct {
	Edge string // the component's key

	o     TapOptions
	edges *edges
	edge  *edge
	once  sync.Once

	lines                 chan []byte
	waiting               atomic.Int64 // bytes in lines
	passed, looked, shown atomic.Int64
	fault                 atomic.Pointer[error]

	mu         sync.Mutex // held while looking; who does not get it at once goes on
	look, show budget
}

// TapCounts is what a Tap has done, in records.
type TapCounts struct {
	Passed int64 `json:"passed"` // the edge
	Looked int64 `json:"looked"` // at, of these
	Shown  int64 `json:"shown"`
}

// Tap begins to look at an edge. It goes on, across reloads, until Close; while its component does not exist it sees
// nothing. The error is a *NoEdge if the name is wrong.
func (e *Engine) Tap(o TapOptions) (*Tap, error) {
	c, err := e.edgeOf(o.Edge)
	if err != nil {
		return nil, err
	}
	if o.Before && c.Plugin.Kind != creel.KindProcessor {
		return nil, fmt.Errorf("%s is no processor: it has one edge only", c.Key())
	}
	if o.Rate <= 0 {
		return nil, errors.New("nothing can be shown at a rate of 0")
	}
	t := &Tap{
		Edge: c.Key(), o: o, edges: &e.edges, edge: e.edges.of(c.Key(), o.Before), lines: make(chan []byte, tapLines),
		look: budget{rate: maxLooked}, show: budget{rate: o.Rate},
	}
	if !e.edges.attach(t.edge, t, true) {
		return nil, ErrTaps
	}
	return t, nil
}

// edgeOf finds the component that a name means.
func (e *Engine) edgeOf(name string) (Component, error) {
	var found []Component
	var shorts []string
	missing := &NoEdge{Name: name}
	for c := range e.Plan().Components() {
		_, short, _ := strings.Cut(c.Key(), ".")
		switch name {
		case c.Key():
			return c, nil
		case short, c.ID, c.Pipeline + "/" + c.ID:
			found = append(found, c)
		}
		missing.Known = append(missing.Known, c.Key())
		shorts = append(shorts, short)
	}
	if len(found) == 1 {
		return found[0], nil
	}
	if len(found) > 1 {
		missing.Known, missing.Many = nil, true
		for _, c := range found {
			missing.Known = append(missing.Known, c.Key())
		}
	}
	slices.Sort(missing.Known)
	missing.hint = config.DidYouMean(name, append(shorts, missing.Known...))
	return Component{}, missing
}

// Lines returns the channel of what is shown. It is never closed.
func (t *Tap) Lines() <-chan []byte { return t.lines }

// Taken tells that a line from Lines is not kept in memory any more.
func (t *Tap) Taken(line []byte) { t.waiting.Add(-int64(len(line))) }

// Counts returns what the tap has done so far.
func (t *Tap) Counts() TapCounts {
	return TapCounts{Passed: t.passed.Load(), Looked: t.looked.Load(), Shown: t.shown.Load()}
}

// Err returns why the tap sees nothing any more: a panic of Match or Render; nil if it does.
func (t *Tap) Err() error {
	if err := t.fault.Load(); err != nil {
		return *err
	}
	return nil
}

// Close ends the tap. A call of Match or Render that is under way may end later.
func (t *Tap) Close() { t.once.Do(func() { t.edges.attach(t.edge, t, false) }) }

// see looks at b as far as the budgets allow.
func (t *Tap) see(b *creel.Batch) {
	n := b.Len()
	t.passed.Add(int64(n))
	if n == 0 || len(t.lines) == cap(t.lines) || t.fault.Load() != nil || !t.mu.TryLock() {
		return
	}
	defer t.mu.Unlock()
	defer func() { // whoever looks must not harm what is looked at
		if p := recover(); p != nil {
			err := fmt.Errorf("look at records: panic: %v", p)
			t.fault.Store(&err)
		}
	}()
	now := time.Now()
	if !t.look.left(now) || !t.show.left(now) {
		return
	}
	t.look.tokens -= float64(n) // it is decoded whole
	match := func(int) bool { return true }
	if t.o.Match != nil {
		match = t.o.Match(b)
	}
	i := 0
	for ; i < n && t.show.tokens >= 1; i++ {
		if match(i) {
			t.show.tokens--
			t.offer(t.o.Render(b, i))
		}
	}
	t.looked.Add(int64(i))
}

// offer shows a line if there is room for it.
func (t *Tap) offer(line []byte) {
	size := int64(len(line))
	if t.waiting.Add(size) > tapBacklog {
		t.waiting.Add(-size)
		return
	}
	select {
	case t.lines <- line:
		t.shown.Add(1)
	default:
		t.waiting.Add(-size)
	}
}

// A budget is a token bucket that holds what comes in within a second, at least one token. It may be overdrawn.
type budget struct {
	rate, tokens float64
	at           time.Time
}

// left reports whether there is a token.
func (b *budget) left(now time.Time) bool {
	full := max(1, b.rate)
	if b.at.IsZero() {
		b.tokens = full
	} else {
		b.tokens = min(full, b.tokens+b.rate*now.Sub(b.at).Seconds())
	}
	b.at = now
	return b.tokens >= 1
}
