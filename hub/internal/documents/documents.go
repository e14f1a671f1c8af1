// Package documents keeps what the hub hands out: pieces of configuration with a selector on labels, each with its history.
// They lie in the control state, and every hub follows them there, so that a change through any of them reaches all agents.
//
// It says what each agent shall run, and knows neither how that gets there nor what the pieces mean to the agent.
package documents

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/expr"
	"github.com/creelhq/creel/hub/internal/state"
)

const (
	prefix        = "documents/"
	historyPrefix = "documents-history/" // <name>/<version>: versions that are not the newest any more
)

// Options configure a Store. Store is required.
type Options struct {
	Store state.Store
	Log   *slog.Logger

	// Check looks into the sections of a document's text, which is otherwise right: whether the hub's plugins know what
	// stands there. nil: nobody does.
	Check func(name, text string) (problems []api.Problem, warnings []string)
	// Conceal marks secrets, so that differences do not show them. nil: there are none.
	Conceal func(*config.Node) *config.Node
	// Agents returns the creel agents that the hub knows. nil: it knows none.
	Agents func() []Agent
}

// A Store holds the documents. Its methods may be called concurrently. Their errors are an *api.Error when the request is
// to blame, or the control state is away.
type Store struct {
	o    Options
	stop context.CancelFunc
	over sync.WaitGroup

	mu      sync.Mutex
	docs    map[string]*document // by name, deleted ones included
	owners  map[string]Owners    // by name of the document, which need not be there
	heard   int64                // the highest revision of the control state that any of both has come with
	written float64              // bytes, less what the time since has made good
	wrote   time.Time

	set     atomic.Pointer[Set]
	changed atomic.Pointer[chan struct{}]
}

// Open loads the documents and follows them. Close ends it.
func Open(ctx context.Context, o Options) (*Store, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Check == nil {
		o.Check = func(string, string) ([]api.Problem, []string) { return nil, nil }
	}
	if o.Conceal == nil {
		o.Conceal = func(n *config.Node) *config.Node { return n }
	}
	if o.Agents == nil {
		o.Agents = func() []Agent { return nil }
	}
	s := &Store{o: o, docs: make(map[string]*document), owners: make(map[string]Owners)}
	ch := make(chan struct{})
	s.changed.Store(&ch)
	list, revision, err := o.Store.List(ctx, prefix)
	if err != nil {
		return nil, fmt.Errorf("load the documents: %w", err)
	}
	placed, placedAt, err := o.Store.List(ctx, placementsPrefix)
	if err != nil {
		return nil, fmt.Errorf("load where documents are placed: %w", err)
	}
	s.allOwned(placed, placedAt)
	s.all(list, revision)
	ctx, s.stop = context.WithCancel(context.Background())
	s.over.Go(func() { state.Follow(ctx, o.Store, prefix, revision, o.Log, s.all, s.one) })
	s.over.Go(func() { state.Follow(ctx, o.Store, placementsPrefix, placedAt, o.Log, s.allOwned, s.oneOwned) })
	return s, nil
}

// Close ends following. The control state stays open.
func (s *Store) Close() {
	s.stop()
	s.over.Wait()
}

// Current returns the documents as they are now, as far as this hub has heard.
func (s *Store) Current() *Set { return s.set.Load() }

// Changed returns a channel that is closed when Current is another.
func (s *Store) Changed() <-chan struct{} { return *s.changed.Load() }

// all takes in everything that there is as of a revision.
func (s *Store) all(list []state.Entry, revision int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.docs, func(_ string, d *document) bool { return d.revision <= revision })
	s.heard = max(s.heard, revision)
	for _, e := range list {
		s.take(e)
	}
	s.renew()
}

// one takes in a change: a newer state of a document.
func (s *Store) one(e state.Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.take(e) {
		s.renew()
	}
}

// take reports whether e is news. s.mu is held.
func (s *Store) take(e state.Entry) bool {
	name := strings.TrimPrefix(e.Key, prefix)
	s.heard = max(s.heard, e.Revision)
	old := s.docs[name]
	switch {
	case old != nil && old.revision >= e.Revision:
		return false
	case e.Value == nil:
		delete(s.docs, name)
		return old != nil
	}
	d := read(name, e)
	if d.err != nil {
		s.o.Log.Error("a document cannot be read: until it can or is deleted, agents go on with what they have", "document", name, "error", d.err)
	}
	s.docs[name] = d
	return true
}

// read reads a document out of the control state.
func read(name string, e state.Entry) *document {
	var r record
	if err := json.Unmarshal(e.Value, &r); err != nil {
		return &document{name: name, revision: e.Revision, err: fmt.Errorf("read document %s: %w", name, err)}
	}
	d := r.document(name)
	d.revision = e.Revision
	return d
}

// document returns r with what its text says.
func (r *record) document(name string) *document {
	d := &document{name: name, record: *r}
	if d.Deleted {
		return d
	}
	c, errs := parse(d.Text)
	switch {
	case len(errs) > 0:
		d.err = fmt.Errorf("read document %s: %w", name, errs)
	case c.name != name:
		d.err = fmt.Errorf("read document %s: its text says that it is %s", name, c.name)
	default:
		if d.err = c.bind(d.Within); d.err == nil {
			d.content = c
		}
	}
	return d
}

// renew makes the next Set. s.mu is held.
func (s *Store) renew() {
	set := &Set{standings: s.standings(), placements: make(map[string]*Placement)}
	for _, name := range slices.Sorted(maps.Keys(s.docs)) {
		d := s.docs[name]
		if d.Deleted {
			continue
		}
		placed := *d
		placed.owners = s.owners[name]
		set.docs = append(set.docs, &placed)
		if d.err != nil { // it may be of a newer hub, and mean any agent
			set.unreadable = d.err.Error()
		}
	}
	s.set.Store(set)
	next := make(chan struct{})
	close(*s.changed.Swap(&next))
}

// List returns the documents by name, as far as this hub has heard. It leaves out their text. Who sees only agents within a
// condition sees the documents that reach one of these, and those that were written within the same condition, here and
// elsewhere.
func (s *Store) List(within expr.Selector) api.DocumentList {
	l, agents := api.DocumentList{Documents: []api.Document{}}, s.agents(within)
	for _, d := range s.Current().docs {
		if !d.readable(within, agents) {
			continue
		}
		one := d.api(d.name)
		one.Text = ""
		one.Agents, _ = d.count(agents)
		l.Documents = append(l.Documents, one)
	}
	return l
}

// Get returns a version of a document, 0 for the newest, and how that is on the agents.
func (s *Store) Get(ctx context.Context, within expr.Selector, name string, version int64) (api.DocumentDetail, error) {
	d, err := s.newest(ctx, name)
	if err != nil {
		return api.DocumentDetail{}, err
	}
	agents := s.agents(within)
	switch {
	case d.Version == 0 || !d.readable(within, agents):
		return api.DocumentDetail{}, unknown(name)
	case version == 0 && d.Deleted:
		return api.DocumentDetail{}, deleted(name, &d.record)
	case version == 0 || version == d.Version:
		detail := api.DocumentDetail{Document: d.api(name)}
		detail.Agents, detail.Placed = d.count(agents)
		return detail, nil
	}
	r, err := s.past(ctx, name, version)
	if err == nil && !r.document(name).readable(within, agents) {
		err = noVersion(name, version)
	}
	if err != nil {
		return api.DocumentDetail{}, err
	}
	return api.DocumentDetail{Document: r.api(name), Placed: []api.Placed{}}, nil
}

// History returns the versions of a document that are remembered, newest first, with their text.
func (s *Store) History(ctx context.Context, within expr.Selector, name string) (api.DocumentHistory, error) {
	d, err := s.newest(ctx, name)
	if err != nil {
		return api.DocumentHistory{}, err
	}
	agents := s.agents(within)
	if d.Version == 0 || !d.readable(within, agents) {
		return api.DocumentHistory{}, unknown(name)
	}
	h := api.DocumentHistory{Versions: []api.Document{d.api(name)}}
	old, err := s.history(ctx, name)
	if err != nil {
		return h, err
	}
	for _, r := range slices.Backward(old) {
		if r.Version < d.Version && r.document(name).readable(within, agents) {
			h.Versions = append(h.Versions, r.api(name))
		}
	}
	return h, nil
}

// history returns what is kept of older versions, oldest first.
func (s *Store) history(ctx context.Context, name string) ([]record, error) {
	entries, _, err := s.o.Store.List(ctx, historyPrefix+name+"/")
	if err != nil {
		return nil, away(err)
	}
	var list []record
	for _, e := range entries {
		var r record
		if err := json.Unmarshal(e.Value, &r); err != nil {
			s.o.Log.Error("a version of a document cannot be read and is left out", "key", e.Key, "error", err)
			continue
		}
		list = append(list, r)
	}
	return list, nil
}

// past returns an older version.
func (s *Store) past(ctx context.Context, name string, version int64) (*record, error) {
	e, err := s.o.Store.Get(ctx, historyKey(name, version))
	if errors.Is(err, state.ErrNotFound) {
		return nil, noVersion(name, version)
	}
	if err != nil {
		return nil, away(err)
	}
	r := &record{}
	if err := json.Unmarshal(e.Value, r); err != nil {
		return nil, fmt.Errorf("read document %s version %d: %w", name, version, err)
	}
	return r, nil
}

// historyKey is where a version lies that is not the newest; in order of the versions.
func historyKey(name string, version int64) string {
	return fmt.Sprintf("%s%s/%019d", historyPrefix, name, version)
}

// newest returns the newest version of a document, with Version 0 if there never was one.
func (s *Store) newest(ctx context.Context, name string) (*document, error) {
	if !goodName.MatchString(name) {
		return nil, unknown(name)
	}
	e, err := s.o.Store.Get(ctx, prefix+name)
	if errors.Is(err, state.ErrNotFound) {
		return &document{name: name}, nil
	}
	if err != nil {
		return nil, away(err)
	}
	s.mu.Lock()
	d := s.docs[name]
	s.mu.Unlock()
	if d != nil && d.revision == e.Revision {
		return d, nil
	}
	return read(name, e), nil
}

func unknown(name string) error {
	return &api.Error{Code: "not_found", Message: fmt.Sprintf("there is no document %q; creel get documents lists them", name)}
}

func noVersion(name string, version int64) error {
	return &api.Error{Code: "not_found", Message: fmt.Sprintf("document %s has no version %d, or not any more: the last %d are kept", name, version, maxVersions)}
}

func deleted(name string, r *record) error {
	return &api.Error{Code: "not_found", Message: fmt.Sprintf("document %s was deleted by %s at %s; creel rollback brings it back", name, r.By, r.Time.Format("2006-01-02 15:04:05Z"))}
}

func away(err error) error {
	return &api.Error{Code: "unavailable", Message: fmt.Sprintf("the control state cannot do this now: %v; agents go on with what they have, and creel get hubs tells how it is", err)}
}
