package requires

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// Guards watch what a Config requires. Their methods may be called concurrently, but Run only once.
type Guards struct {
	dir    string
	mine   func(address string) bool
	log    *slog.Logger
	read   readers
	change chan struct{} // gets an element when Run is to look at once

	mu     sync.Mutex // guards what follows
	config Config
	items  []item
	calls  map[string]*call // checks that are under way, by their items' keys
	silent map[string]bool  // guards of which the log knows that they cannot be asked
}

// An item is one thing that is required.
type item struct {
	guard string // memory, disk, descriptors, paths, ports or endpoints
	name  string // which, of several; in errors
	// check returns what is missing, or a *unknown. failing is whether it was missing last.
	check func(ctx context.Context, failing bool) error
}

func (i item) key() string { return i.guard + " " + i.name }

// unknown is the error of a check that could not be made.
type unknown struct{ error }

// call is a check that is under way, or over. One that hangs, such as that of a path on a network that is away, is not
// repeated before it returns.
type call struct {
	done chan struct{}
	err  error
}

// A Verdict is what a guard says.
type Verdict struct {
	Guard string // memory, disk, descriptors, paths, ports or endpoints
	Err   error  // what is missing, how much there is, what to do; nil: nothing is

	missing []lack
}

// New returns Guards for an agent whose state directory is dir. mine says whether the agent itself listens at an address
// of Config.Ports, and may be called concurrently; nil: nowhere.
func New(c Config, dir string, mine func(address string) bool, log *slog.Logger) *Guards {
	if mine == nil {
		mine = func(string) bool { return false }
	}
	return newGuards(c, dir, mine, log, system)
}

func newGuards(c Config, dir string, mine func(address string) bool, log *slog.Logger, read readers) *Guards {
	g := &Guards{dir: dir, mine: mine, log: log, read: read, change: make(chan struct{}, 1), calls: make(map[string]*call)}
	g.Set(c)
	<-g.change // Run begins with a look
	return g
}

// Set replaces what is required. Run looks at once, and takes back what guards that are gone have said.
func (g *Guards) Set(c Config) {
	g.mu.Lock()
	g.config, g.items, g.silent = c, g.itemsOf(c), make(map[string]bool)
	g.mu.Unlock()
	select {
	case g.change <- struct{}{}:
	default:
	}
}

// Check looks at everything once, and returns what each guard says. It takes Config.Timeout at most; when ctx is
// done before, it returns what is known by then.
func (g *Guards) Check(ctx context.Context) (list []Verdict) {
	g.round(ctx, nil, func(guard string, missing []lack) { list = append(list, Verdict{guard, joined(missing), missing}) })
	slices.SortFunc(list, func(a, b Verdict) int { return slices.Index(order, a.Guard) - slices.Index(order, b.Guard) })
	return list
}

// Run tells whenever a guard says something else than before, until ctx is done: nil is that nothing is missing any more, an
// error what is. In the beginning it has said what Check has returned, if that is given, and else that nothing is missing.
// It does not tell that there is a little more or less of what is missing; and what has become scarce is enough again when
// there is a tenth more than required. told is not called concurrently.
func (g *Guards) Run(ctx context.Context, told func(guard string, err error), begin ...Verdict) {
	said := make(map[string][]lack) // by guards
	for _, v := range begin {
		said[v.Guard] = v.missing
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.change:
		case <-timer.C:
		}
		g.forget(said, told)
		g.round(ctx, said, func(guard string, missing []lack) {
			before := said[guard]
			said[guard] = missing
			if !slices.EqualFunc(before, missing, func(a, b lack) bool { return a.key == b.key }) {
				told(guard, joined(missing))
			}
		})
		g.mu.Lock()
		every, idle := g.config.Every, len(g.items) == 0
		g.mu.Unlock()
		if idle {
			timer.Stop() // until there is something to look at
		} else {
			timer.Reset(every)
		}
	}
}

// forget takes back what guards have said that are gone.
func (g *Guards) forget(said map[string][]lack, told func(guard string, err error)) {
	g.mu.Lock()
	items := g.items
	g.mu.Unlock()
	for _, guard := range order {
		if len(said[guard]) > 0 && !slices.ContainsFunc(items, func(i item) bool { return i.guard == guard }) {
			delete(said, guard)
			told(guard, nil)
		}
	}
}

// lack is something that is missing.
type lack struct {
	key string // of its item
	err error
}

func joined(missing []lack) (err error) {
	for _, l := range missing {
		if err == nil {
			err = l.err
		} else {
			err = fmt.Errorf("%w; %w", err, l.err)
		}
	}
	return err
}

// round looks at all items at once, and calls told for each guard as soon as all of its own are known. said is what guards
// have said before. When ctx is done it tells nothing more.
func (g *Guards) round(ctx context.Context, said map[string][]lack, told func(guard string, missing []lack)) {
	g.mu.Lock()
	items, wait := g.items, g.config.Timeout
	g.mu.Unlock()
	timeout, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	before := make(map[string]error, len(items)) // by keys
	for _, missing := range said {
		for _, l := range missing {
			before[l.key] = l.err
		}
	}
	left := make(map[string]int) // items by guard
	for _, i := range items {
		left[i.guard]++
	}
	type result struct {
		item int
		err  error
	}
	results, found := make(chan result, len(items)), make([]error, len(items))
	for n, i := range items {
		c := g.call(i, before[i.key()] != nil, wait)
		go func() {
			select {
			case <-c.done:
				results <- result{n, c.err}
			case <-timeout.Done():
				results <- result{n, fmt.Errorf("%s does not answer within %v", i.name, wait)}
			}
		}()
	}
	for range items {
		r := <-results
		if ctx.Err() != nil {
			return
		}
		i := items[r.item]
		if u := (*unknown)(nil); errors.As(r.err, &u) {
			g.skip(i.guard, u)
			r.err = before[i.key()] // as it was
		}
		found[r.item] = r.err
		if left[i.guard]--; left[i.guard] > 0 {
			continue
		}
		var missing []lack
		for n, err := range found {
			if items[n].guard == i.guard && err != nil {
				missing = append(missing, lack{items[n].key(), err})
			}
		}
		told(i.guard, missing)
	}
}

// call begins the check of an item, or returns the one that is under way.
func (g *Guards) call(i item, failing bool, wait time.Duration) *call {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c := g.calls[i.key()]; c != nil {
		return c
	}
	c := &call{done: make(chan struct{})}
	g.calls[i.key()] = c
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), wait) // others may wait for the same
		defer cancel()
		c.err = i.check(ctx, failing)
		g.mu.Lock()
		delete(g.calls, i.key())
		g.mu.Unlock()
		close(c.done)
	}()
	return c
}

// skip logs, once, that a guard cannot know.
func (g *Guards) skip(guard string, why error) {
	g.mu.Lock()
	logged := g.silent[guard]
	g.silent[guard] = true
	g.mu.Unlock()
	if !logged {
		g.log.Warn("what is required cannot be checked here and counts as there", "requires", guard, "why", why)
	}
}
