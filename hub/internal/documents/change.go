package documents

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/expr"
	"github.com/creelhq/creel/hub/internal/state"
)

// What is kept in the control state is bounded: an etcd within has room for 512 MiB, what was overwritten in the last hour
// included, and is of no use any more when that is full.
const (
	maxVersions  = 50       // of a document
	maxHistory   = 2 << 20  // bytes of older versions of a document; the last but one is kept in any case
	maxAll       = 8 << 20  // bytes of all documents' texts
	maxForgotten = 100      // deleted documents that are remembered
	maxWritten   = 64 << 20 // bytes an hour
	maxEntry     = 1400 << 10
	maxNote      = 1 << 10
	tries        = 10 // when others change the same document at the same time
)

// Apply writes a document, or tells what that would do. by is who asks, within which condition on agents' labels: what is
// new reaches only agents that meet it, whatever its selector says, and somebody who sees only some agents changes no
// documents but those that were written within the same condition. A document keeps its condition until it is deleted.
func (s *Store) Apply(ctx context.Context, by string, within expr.Selector, c api.DocumentChange) (api.DocumentApplied, error) {
	return s.change(ctx, by, within, nil, c)
}

// change is Apply. bound, if not nil, is the condition that the document is to have.
func (s *Store) change(ctx context.Context, by string, within expr.Selector, bound *string, c api.DocumentChange) (api.DocumentApplied, error) {
	next, warnings, err := s.check(c)
	if err != nil {
		return api.DocumentApplied{}, err
	}
	for range tries {
		old, err := s.newest(ctx, next.name)
		if err != nil {
			return api.DocumentApplied{}, err
		}
		if err := s.owned(old, within); err != nil && !old.Deleted {
			if asked := (*api.Error)(nil); errors.As(err, &asked) && asked.Code == "not_found" { // but it is there
				err = &api.Error{Code: "conflict", Message: fmt.Sprintf("the name %s is taken by a document that you may not see: take another", next.name)}
			}
			return api.DocumentApplied{}, err
		}
		condition := within.String()
		switch {
		case bound != nil:
			condition = *bound
		case old.Version > 0 && !old.Deleted:
			condition = old.Within
		}
		if err := next.bind(condition); err != nil {
			return api.DocumentApplied{}, wrong([]api.Problem{{Message: err.Error()}})
		}
		a, err := s.apply(ctx, old, next, by, within, c)
		if errors.Is(err, state.ErrConflict) {
			continue
		}
		if condition != within.String() {
			a.Warnings = append(a.Warnings, fmt.Sprintf("the document was written within %s, and goes on reaching no other agents: to change that, delete it and write it anew", condition))
		}
		a.Warnings = append(a.Warnings, warnings...)
		return a, err
	}
	return api.DocumentApplied{}, busy(next.name)
}

func busy(name string) error {
	return &api.Error{Code: "conflict", Message: fmt.Sprintf("document %s is changed by others all the time; try again", name)}
}

// check reads the text of a change. The error is an *api.Error with all that is wrong.
func (s *Store) check(c api.DocumentChange) (*content, []string, error) {
	if len(c.Text) > api.MaxDocument {
		return nil, nil, tooMuch("a document may have %d bytes, this one has %d: make several of it", api.MaxDocument, len(c.Text))
	}
	next, errs := parse(c.Text)
	if len(errs) > 0 {
		return nil, nil, wrong(problems(errs))
	}
	found, warnings := s.o.Check(next.name, c.Text)
	if len(found) > 0 {
		return nil, nil, wrong(found)
	}
	if len(next.ids) == 0 {
		warnings = append(warnings, "the document defines nothing")
	}
	return next, warnings, nil
}

func wrong(list []api.Problem) error {
	first := list[0]
	text := fmt.Sprintf("line %d, column %d: ", first.Line, first.Column)
	if first.Line == 0 {
		text = ""
	}
	if first.Path != "" {
		text += first.Path + ": "
	}
	text += first.Message
	if first.Hint != "" {
		text += "; " + first.Hint
	}
	if n := len(list); n > 1 {
		text += fmt.Sprintf(" (and %d more)", n-1)
	}
	return &api.Error{Code: "bad_request", Message: "the document is refused: " + text, Problems: list}
}

func tooMuch(format string, args ...any) error {
	return &api.Error{Code: "too_much", Message: fmt.Sprintf(format, args...)}
}

// apply makes next the version after old, unless that is what it says already. The error is state.ErrConflict if old is not
// the newest any more, and that is not what c asks for.
func (s *Store) apply(ctx context.Context, old *document, next *content, by string, within expr.Selector, c api.DocumentChange) (api.DocumentApplied, error) {
	version := old.Version
	if old.Deleted {
		version = 0
	}
	if c.Version != nil && *c.Version != version {
		text := fmt.Sprintf("document %s does not exist, and the change is one of version %d", next.name, *c.Version)
		if version > 0 {
			text = fmt.Sprintf("document %s is at version %d, by %s at %s, and the change is one of version %d: look at what it is now, and change that",
				next.name, version, old.By, old.Time.Format("2006-01-02 15:04:05Z"), *c.Version)
		}
		return api.DocumentApplied{}, &api.Error{Code: "conflict", Message: text}
	}
	r := record{
		Version: old.Version + 1, Text: c.Text, Selector: next.selector.String(), Within: next.within.String(), Place: next.place(),
		By: clip(by), Time: time.Now().UTC(), Note: clip(c.Note), Hash: hashOf(c.Text),
	}
	a := api.DocumentApplied{Outcome: "changed", Differences: s.differences(old, next)}
	switch {
	case version == 0:
		a.Outcome = "created"
	case old.Text == c.Text && old.Within == r.Within:
		r, a.Outcome = old.record, "unchanged"
	}
	var err error
	if a.Selected, err = s.selected(next, within); err != nil {
		return api.DocumentApplied{}, err
	}
	if len(a.Selected) == 0 {
		a.Warnings = append(a.Warnings, "no agent that this hub knows is selected")
	}
	a.Document = r.api(next.name)
	if c.DryRun || a.Outcome == "unchanged" {
		return a, nil
	}
	if err := s.room(next.name, len(c.Text)); err != nil {
		return api.DocumentApplied{}, err
	}
	return a, s.write(ctx, old, &document{name: next.name, record: r, content: next})
}

func clip(text string) string {
	if len(text) > maxNote {
		return strings.ToValidUTF8(text[:maxNote], "") + "…"
	}
	return text
}

// differences returns what is other in next than in old.
func (s *Store) differences(old *document, next *content) []api.Difference {
	list := []api.Difference{}
	var before *config.Node
	if old.content != nil {
		before = s.o.Conceal(old.content.root)
	}
	for _, d := range config.Diff(before, s.o.Conceal(next.root)) {
		if d.Path != "document" {
			list = append(list, api.Difference{Path: d.Path, Kind: d.Kind, Old: d.Old, New: d.New})
		}
	}
	return list
}

// maxSelected is how many agents are named.
const maxSelected = 100

// selected returns the names of the agents that next selects. The error is an *api.Error: which of them would get something
// that is defined twice, for example.
func (s *Store) selected(next *content, within expr.Selector) ([]string, error) {
	names, all := []string{}, s.o.Agents()
	var rivals []*document // they define something that next does, too
	for _, d := range s.Current().docs {
		if d.name != next.name && d.content != nil && len(next.shares(d.content)) > 0 {
			rivals = append(rivals, d)
		}
	}
	if err := s.turning(next, within); err != nil {
		return nil, err
	}
	for i := range all {
		x := &all[i]
		if !next.selects(x.Labels) {
			continue
		}
		names = append(names, x.Name)
		for _, d := range rivals {
			if d.content.selects(x.Labels) {
				e := wrong(next.clashes(d.content, x)).(*api.Error)
				e.Code = "conflict"
				return nil, e
			}
		}
	}
	slices.Sort(names)
	return names[:min(len(names), maxSelected)], nil
}

// turning refuses documents whose labels would select documents that give labels.
func (s *Store) turning(next *content, within expr.Selector) error {
	agents := s.agents(within)
	for _, d := range s.Current().docs {
		if d.name == next.name || d.content == nil {
			continue
		}
		for _, pair := range [][2]*content{{next, d.content}, {d.content, next}} {
			if label := pair[0].turns(pair[1]); label != "" {
				if !d.readable(within, agents) {
					return &api.Error{Code: "conflict", Message: "the document gives agents labels, or is selected by some, and so is another, which you may not see: who gets what might never come to rest; take other labels"}
				}
				return &api.Error{Code: "conflict", Message: fmt.Sprintf("document %s gives agents the label %s, by which document %s is selected, and that gives labels as well: who gets what might never come to rest", pair[0].name, label, pair[1].name)}
			}
		}
	}
	return nil
}

// shares returns the ids of what both define.
func (c *content) shares(other *content) (ids []string) {
	for id := range c.ids {
		if other.ids[id] != nil {
			ids = append(ids, id)
		}
	}
	return ids
}

// clashes says that x would get what both define.
func (c *content) clashes(other *content, x *Agent) []api.Problem {
	var errs config.Errors
	for _, id := range c.shares(other) {
		line, _ := other.ids[id].Pos()
		e := c.ids[id].KeyErrorf("document %s defines it as well, in line %d, and agent %s (%s) would get both that and document %s", other.name, line, x.Name, x.ID, c.name)
		e.Path, e.Hint = id, "take another name, or other selectors"
		errs = append(errs, e)
	}
	errs.Sort()
	return problems(errs)
}

// room refuses what would be too much for the control state.
func (s *Store) room(name string, size int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := size
	for _, d := range s.docs {
		if d.name != name {
			all += len(d.Text)
		}
	}
	if all > maxAll {
		return tooMuch("all documents together may have %d bytes, and would have %d: delete what is not needed any more", maxAll, all)
	}
	now := time.Now()
	s.written = max(0, s.written-now.Sub(s.wrote).Hours()*maxWritten)
	s.wrote = now
	if s.written+2*float64(size) > maxWritten { // it is written once more when it becomes history
		return tooMuch("documents of %d bytes were written within the last hour, and each change is kept: try again later, and find out who changes them so often", int64(s.written))
	}
	s.written += 2 * float64(size)
	return nil
}

// write makes d the newest version, if old still is. What old says becomes history before that, so that it cannot be lost.
func (s *Store) write(ctx context.Context, old, d *document) error {
	value := encode(&d.record)
	if len(value) > maxEntry {
		return tooMuch("the document has %d bytes as it is kept; %d is the most: make several of it", len(value), maxEntry)
	}
	if old.Version > 0 {
		if _, err := s.o.Store.Put(ctx, historyKey(old.name, old.Version), encode(&old.record), false, state.Always()); err != nil {
			return away(err)
		}
	}
	var err error
	d.revision, err = s.o.Store.Put(ctx, prefix+old.name, value, false, state.Unchanged(old.revision))
	if errors.Is(err, state.ErrConflict) {
		return err
	}
	if err != nil {
		return away(err)
	}
	s.mu.Lock()
	if now := s.docs[d.name]; now == nil || now.revision < d.revision { // the watch may have been faster
		s.docs[d.name], s.heard = d, max(s.heard, d.revision)
		s.renew()
	}
	s.mu.Unlock()
	if err := s.prune(ctx, old.name); err != nil {
		s.o.Log.Warn("old versions of a document stay until it is changed again", "document", old.name, "error", err)
	}
	return nil
}

// encode keeps conditions as they are: as JSON is written otherwise, each < takes six bytes.
func encode(r *record) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(r); err != nil {
		panic("BUG: " + err.Error())
	}
	return b.Bytes()
}

// prune deletes versions that are too old, or too much.
func (s *Store) prune(ctx context.Context, name string) error {
	list, _, err := s.o.Store.List(ctx, historyPrefix+name+"/")
	if err != nil {
		return err
	}
	n, size := 1, 0 // the newest is no history
	for _, e := range slices.Backward(list) {
		n, size = n+1, size+len(e.Value)
		if n > maxVersions || n > 2 && size > maxHistory {
			if err := s.o.Store.Delete(ctx, e.Key, state.Always()); err != nil {
				return err
			}
		}
	}
	return nil
}

// Delete deletes a document, or tells only whether it could. That it was is a version of its own. by and within are as for
// Apply.
func (s *Store) Delete(ctx context.Context, by string, within expr.Selector, name string, dryRun bool) error {
	for range tries {
		old, err := s.newest(ctx, name)
		if err == nil {
			err = s.owned(old, within)
		}
		switch {
		case err != nil:
			return err
		case old.Version == 0 && old.err == nil:
			return unknown(name)
		case old.Deleted:
			return deleted(name, &old.record)
		case dryRun:
			return nil
		}
		r := record{Version: old.Version + 1, Within: old.Within, Place: placeAll, By: clip(by), Time: time.Now().UTC(), Note: "deleted", Deleted: true}
		err = s.write(ctx, old, &document{name: name, record: r})
		if errors.Is(err, state.ErrConflict) {
			continue
		}
		if err == nil {
			s.forget(ctx)
		}
		return err
	}
	return busy(name)
}

// forget forgets what was deleted long ago.
func (s *Store) forget(ctx context.Context) {
	s.mu.Lock()
	var gone []*document
	for _, d := range s.docs {
		if d.Deleted {
			gone = append(gone, d)
		}
	}
	s.mu.Unlock()
	slices.SortFunc(gone, func(a, b *document) int { return b.Time.Compare(a.Time) })
	for _, d := range gone[min(len(gone), maxForgotten):] {
		if err := s.forgetOne(ctx, d); err != nil {
			s.o.Log.Warn("a deleted document stays in the history for now", "document", d.name, "error", err)
		}
	}
}

// forgetOne deletes the versions first: whoever reads between finds less of them, not those of a document that never was.
func (s *Store) forgetOne(ctx context.Context, d *document) error {
	list, _, err := s.o.Store.List(ctx, historyPrefix+d.name+"/")
	if err != nil {
		return err
	}
	for _, e := range list {
		if err := s.o.Store.Delete(ctx, e.Key, state.Always()); err != nil {
			return err
		}
	}
	err = s.o.Store.Delete(ctx, prefix+d.name, state.Unchanged(d.revision))
	if errors.Is(err, state.ErrConflict) {
		return nil // it is there again
	}
	return err
}

// Rollback makes an earlier version the newest, with the condition that it was written within; to 0 is the one before the
// newest. by and within are as for Apply.
func (s *Store) Rollback(ctx context.Context, by string, within expr.Selector, name string, to int64) (api.DocumentApplied, error) {
	d, err := s.newest(ctx, name)
	if err == nil {
		err = s.owned(d, within)
	}
	if err != nil {
		return api.DocumentApplied{}, err
	}
	if d.Version == 0 {
		return api.DocumentApplied{}, unknown(name)
	}
	r := &d.record
	if to == 0 {
		r, err = s.before(ctx, d)
	} else if to != d.Version {
		r, err = s.past(ctx, name, to)
	}
	if err != nil {
		return api.DocumentApplied{}, err
	}
	if !within.IsZero() && r.Within != within.String() {
		return api.DocumentApplied{}, noVersion(name, r.Version)
	}
	if r.Deleted {
		return api.DocumentApplied{}, &api.Error{Code: "bad_request", Message: fmt.Sprintf("version %d of document %s is its deletion: creel delete deletes it", r.Version, name)}
	}
	now := d.Version
	if d.Deleted {
		now = 0
	}
	return s.change(ctx, by, within, &r.Within, api.DocumentChange{Text: r.Text, Version: &now, Note: fmt.Sprintf("rolled back to version %d", r.Version)})
}

// before returns the last version before d that is no deletion.
func (s *Store) before(ctx context.Context, d *document) (*record, error) {
	list, err := s.history(ctx, d.name)
	if err != nil {
		return nil, err
	}
	for _, r := range slices.Backward(list) {
		if r.Version < d.Version && !r.Deleted {
			return &r, nil
		}
	}
	return nil, &api.Error{Code: "not_found", Message: fmt.Sprintf("document %s has no version before %d that is remembered", d.name, d.Version)}
}
