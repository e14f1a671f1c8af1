// Package change decides which configuration an agent runs: of every source the newest that is right, unless it has
// proved worse than the one before. Each source's changes are judged by themselves, so that a mistake in one place does
// not hold up the others.
//
// It knows nothing of what a configuration means, of pipelines, hubs or centers: it is given functions that build, apply
// and observe.
package change

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/creelhq/creel/report"
)

// File is the source that is read when the agent starts: its own file, and what stands beside it.
const File = "file"

// A Document is a piece of a configuration.
type Document struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"` // as its source counts
	Text    []byte `json:"text"`

	// Terms are on what terms its source has given it, in that one's words. They are no part of what is to run: other terms
	// open nothing again.
	Terms string `json:"terms,omitempty"`
}

// Pieces are all documents of one source, in their order.
type Pieces []Document

// Hash names pieces by what is in them.
func (p Pieces) Hash() string {
	sum := sha256.New()
	for _, d := range p {
		fmt.Fprintf(sum, "%q %d\n", d.Name, len(d.Text))
		sum.Write(d.Text)
	}
	return digits(sum.Sum(nil))
}

func digits(sum []byte) string { return hex.EncodeToString(sum[:6]) }

// Set is the pieces of every source.
type Set map[string]Pieces

// Sources returns the names of the sources, File first.
func (s Set) Sources() []string {
	names := slices.Sorted(maps.Keys(s))
	if i := slices.Index(names, File); i > 0 {
		names = slices.Insert(slices.Delete(names, i, i+1), 0, File)
	}
	return names
}

// Hash names the set by what is in it.
func (s Set) Hash() string {
	sum := sha256.New()
	for _, name := range s.Sources() {
		if len(s[name]) > 0 {
			fmt.Fprintf(sum, "%q %s\n", name, s[name].Hash())
		}
	}
	return digits(sum.Sum(nil))
}

// with returns a copy in which one source has other pieces.
func (s Set) with(source string, p Pieces) Set {
	c := maps.Clone(s)
	if c == nil {
		c = make(Set)
	}
	c[source] = p
	if len(p) == 0 {
		delete(c, source)
	}
	return c
}

// Options are what a Manager works with. Build, Apply and Vitals are required.
type Options[C any] struct {
	Build     func(Set) (C, error)                                   // checks the whole, and opens nothing
	Apply     func(ctx context.Context, c C) (report.Receipt, error) // all or nothing
	Vitals    func() Vitals
	Probation func(C) time.Duration // for which a change is watched; 0: it is good at once
	Load      func(v any) error     // reads what Save has written; leaves v alone if there is nothing
	Save      func(v any) error     // survives a crash of process and machine when it returns
	Told      func()                // Report has changed; must not block. nil: nobody is
	Log       *slog.Logger
}

// A Manager keeps an agent at the right configuration. Its methods may be called concurrently, once Start has returned.
type Manager[C any] struct {
	o    Options[C]
	wake chan struct{}

	attempt sync.Mutex // held while a change is made

	mu        sync.Mutex // guards what follows
	sources   map[string]*source
	kept      kept
	loaded    bool       // kept was read
	probation *probation // nil: none
	past      *window    // the last while, as long as a probation
}

// source is what one source wants, and what became of it.
type source struct {
	wanted   Pieces
	revision string
	asked    uint64 // how often it has asked
	tried    uint64 // the last of these that was tried
	status   string // of what is wanted: as report.Document's
	err      string
	since    time.Time // when err began
	receipt  report.Receipt
}

// kept is what outlives the process.
type kept struct {
	Format   int              `json:"format"`
	Running  Set              `json:"running"`            // what is applied
	Good     Set              `json:"good,omitempty"`     // what has proved good last; none yet if nil
	Trying   *trial           `json:"trying,omitempty"`   // what has not proved good yet
	Crashes  map[string]int   `json:"crashes,omitempty"`  // of the process while pieces with this hash were tried
	Failed   []report.Failed  `json:"failed,omitempty"`   // by the hash of a source's pieces
	Receipts []report.Receipt `json:"receipts,omitempty"` // oldest first
	Refused  map[string]offer `json:"refused,omitempty"`  // what sources want, where that does not run
}

// offer is what a source has said last.
type offer struct {
	Revision string `json:"revision"`
	Pieces   Pieces `json:"pieces"`
}

// trial is a change that has not proved good.
type trial struct {
	Source string `json:"source"`
	Hash   string `json:"hash"`  // of the source's pieces
	Clean  bool   `json:"clean"` // the process has ended as it should
}

const (
	format      = 1
	maxReceipts = 20
	maxFailed   = 50
	maxCrashes  = 2
)

// New returns a Manager that has not started.
func New[C any](o Options[C]) *Manager[C] {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Told == nil {
		o.Told = func() {}
	}
	return &Manager[C]{o: o, wake: make(chan struct{}, 1), sources: make(map[string]*source), past: &window{}}
}

// Offer says what a source other than File wants from now on; none of its pieces counts any more that is not among them.
// Revision is what Status gives back. It does not block: Run makes the change.
func (m *Manager[C]) Offer(name, revision string, p Pieces) {
	m.mu.Lock()
	m.want(name, revision, p)
	m.mu.Unlock()
	m.o.Told()
	m.hurry()
}

// want notes what a source wants. m.mu is held.
func (m *Manager[C]) want(name, revision string, p Pieces) *source {
	s := m.sources[name]
	if s == nil {
		s = &source{}
		m.sources[name] = s
	}
	s.wanted, s.revision, s.asked = p, revision, s.asked+1
	s.status, s.err = Waiting, ""
	return s
}

// Waiting is the status of what is being tried, or will be.
const Waiting = "waiting"

// The other values of report.Document.Status.
const (
	running    = report.Running
	refused    = report.Refused
	rolledBack = report.RolledBack
)

// Change makes what a source wants run, and returns the receipt; the error says why it was refused. by is who asks. With
// force, what has failed before is tried again, also what other sources want. Of changes that wait for one another only the newest of a source is made,
// and all get its receipt.
func (m *Manager[C]) Change(ctx context.Context, name, by string, p Pieces, force bool) (report.Receipt, error) {
	m.mu.Lock()
	s := m.want(name, "", p)
	mine := s.asked
	if force {
		m.amnesty(name)
	}
	m.mu.Unlock()
	m.attempt.Lock()
	defer m.attempt.Unlock()
	m.mu.Lock()
	newest := s.tried < mine
	m.mu.Unlock()
	if newest {
		m.try(ctx, name, by)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.receipt.Outcome == report.Refused {
		return s.receipt, &RefusedError{s.receipt.Error}
	}
	return s.receipt, nil
}

// A RefusedError says why a change was refused. Nothing has happened.
type RefusedError struct{ Reason string }

func (e *RefusedError) Error() string { return e.Reason }

// amnesty has everything tried again that has failed or was refused; but is about to be tried anyway. m.mu is held.
func (m *Manager[C]) amnesty(but string) {
	m.kept.Failed = nil
	clear(m.kept.Crashes)
	for name, s := range m.sources {
		if name != but && (s.status == refused || s.status == rolledBack) {
			s.asked++
			s.status = Waiting
			m.hurry()
		}
	}
}

// forgive has pieces tried again that have failed. m.mu is held.
func (m *Manager[C]) forgive(hash string) {
	m.kept.Failed = slices.DeleteFunc(m.kept.Failed, func(f report.Failed) bool { return f.Hash == hash })
	delete(m.kept.Crashes, hash)
}

// failed returns why pieces are not tried again, "" if they may be. m.mu is held.
func (m *Manager[C]) failed(hash string) string {
	for _, f := range m.kept.Failed {
		if f.Hash == hash {
			return fmt.Sprintf("this was given up at %s: %s; change it, or try it again with: creel reload --force", f.Time.Format(time.DateTime), f.Reason)
		}
	}
	return ""
}

// fail remembers that pieces have failed. m.mu is held.
func (m *Manager[C]) fail(hash, reason string) {
	m.forgive(hash)
	m.kept.Failed = append(m.kept.Failed, report.Failed{Hash: hash, Time: time.Now().UTC(), Reason: reason})
	if n := len(m.kept.Failed) - maxFailed; n > 0 {
		m.kept.Failed = slices.Delete(m.kept.Failed, 0, n)
	}
}

// save keeps what must outlive the process. m.mu is held.
func (m *Manager[C]) save() {
	m.kept.Format = format
	if err := m.o.Save(&m.kept); err != nil {
		m.o.Log.Error("the configuration is not kept: a crash may bring back an older one", "error", err)
	}
}

// try makes what a source wants run. m.attempt is held.
func (m *Manager[C]) try(ctx context.Context, name, by string) {
	began := time.Now()
	m.mu.Lock()
	s := m.sources[name]
	asked, p, revision := s.asked, s.wanted, s.revision
	set := m.kept.Running.with(name, p)
	why := m.failed(p.Hash())
	m.mu.Unlock()

	r := report.Receipt{Time: began.UTC(), Source: by, Hash: set.Hash(), Outcome: report.Refused, Error: why}
	if why == "" {
		done, err := m.apply(ctx, trial{Source: name, Hash: p.Hash()}, set)
		if err != nil {
			r.Error = err.Error()
		} else {
			done.Time, done.Source, done.Hash = r.Time, r.Source, r.Hash
			r = done
		}
	}
	r.Took = time.Since(began)

	m.mu.Lock()
	s.tried, s.receipt = asked, r
	if s.asked == asked {
		s.status, s.err = running, ""
		if r.Outcome == report.Refused {
			s.status, s.err, s.since = refused, r.Error, time.Now()
		}
	}
	m.refuse(name, r.Outcome == report.Refused, offer{revision, p})
	if r.Outcome == report.Applied {
		m.again(name)
	}
	m.note(r)
	m.mu.Unlock()
	m.o.Told()
}

// refuse notes whether what a source wants does not run, so that it is known after the process has ended. m.mu is held.
func (m *Manager[C]) refuse(name string, refused bool, o offer) {
	if !refused || name == File { // which is read anew
		delete(m.kept.Refused, name)
		return
	}
	if m.kept.Refused == nil {
		m.kept.Refused = make(map[string]offer)
	}
	m.kept.Refused[name] = o
}

// again has the other sources' refused changes tried once more: what was in their way may be gone. m.mu is held.
func (m *Manager[C]) again(but string) {
	for name, s := range m.sources {
		if name != but && s.status == refused && m.failed(s.wanted.Hash()) == "" {
			s.asked++
			s.status = Waiting
			m.hurry()
		}
	}
}

func (m *Manager[C]) hurry() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// apply builds and applies a set. What is tried is kept before, so that a crash is blamed on it. m.attempt is held.
func (m *Manager[C]) apply(ctx context.Context, t trial, set Set) (report.Receipt, error) {
	c, err := m.o.Build(set)
	if err != nil {
		return report.Receipt{}, err
	}
	m.mu.Lock()
	before := m.kept
	m.kept.Trying = &t
	m.save()
	m.mu.Unlock()
	r, err := m.o.Apply(ctx, c)

	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		m.kept.Trying = before.Trying
		m.save()
		return r, err
	}
	r.Outcome = report.Applied
	m.kept.Running = set
	if before.Running.Hash() == set.Hash() && !changed(r.Change) {
		r.Outcome = report.Unchanged
		m.kept.Trying = before.Trying
	} else {
		m.watch(m.o.Probation(c), r.Change)
	}
	return r, nil
}

func changed(c report.Change) bool { return len(c.Open)+len(c.Reopen)+len(c.Close) > 0 }

// watch begins a probation, if there is something to be watched. m.mu is held.
func (m *Manager[C]) watch(length time.Duration, change report.Change) {
	changed := slices.Concat(change.Open, change.Reopen)
	m.past.length = length
	if m.probation != nil { // a change during a change: all that is new since the last good one
		for _, key := range m.probation.changed {
			if !slices.Contains(changed, key) && !slices.Contains(change.Close, key) {
				changed = append(changed, key)
			}
		}
	}
	if length == 0 || len(changed) == 0 && m.probation == nil {
		m.good()
		return
	}
	before := m.past
	if m.probation != nil {
		before = m.probation.before // what was before the first of these changes
	}
	m.probation = &probation{changed: changed, before: before, after: &window{length: length}, until: time.Now().Add(length)}
	m.past = &window{length: length}
}

// good notes that what runs has proved itself. m.mu is held.
func (m *Manager[C]) good() {
	m.probation = nil
	if t := m.kept.Trying; t != nil {
		delete(m.kept.Crashes, t.Hash)
	}
	m.kept.Trying, m.kept.Good = nil, maps.Clone(m.kept.Running)
	if m.kept.Good == nil {
		m.kept.Good = make(Set)
	}
}

// note keeps a receipt. m.mu is held.
func (m *Manager[C]) note(r report.Receipt) {
	m.kept.Receipts = append(m.kept.Receipts, r)
	if n := len(m.kept.Receipts) - maxReceipts; n > 0 {
		m.kept.Receipts = slices.Delete(m.kept.Receipts, 0, n)
	}
	m.save()
	attrs := []any{"by", r.Source, "configuration", r.Hash, "open", r.Change.Open, "reopen", r.Change.Reopen, "close", r.Change.Close,
		"took", r.Took.Round(time.Microsecond), "still", r.Still.Round(time.Microsecond)}
	if r.Trace != "" {
		attrs = append(attrs, "trace_id", r.Trace)
	}
	switch r.Outcome {
	case report.Applied, report.Unchanged:
		m.o.Log.Info("configuration "+r.Outcome, attrs...)
	case report.Refused:
		m.o.Log.Error("configuration refused, everything goes on as before", "by", r.Source, "configuration", r.Hash, "error", r.Error)
	case report.RolledBack:
		m.o.Log.Error("configuration rolled back to the last good one", append(attrs, "error", r.Error)...)
	}
}
