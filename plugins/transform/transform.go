// Package transform is the processor that changes records: sets, renames, hashes, deletes, truncates.
package transform

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/expr"
	"github.com/creelhq/creel/metric"
)

//go:embed example.yaml
var example string

// Plugin is the processor transform.
var Plugin = creel.NewProcessor("transform", "Sets, renames, hashes, deletes and truncates parts of records.", New).WithExample(example)

// Config is the processor's options: one step, or several.
type Config struct {
	Step
	Steps []Step `doc:"Steps to be done one after the other, each with a condition of its own; instead of the options beside it." optional:"true"`
}

// Step is what is done to a record, in the order of the fields. What a record does not have is left out.
type Step struct {
	Where    expr.Condition    `doc:"Condition for the records that are changed; without it, all are. One that names fields which records of a signal do not have holds for none of that signal." optional:"true" example:"resource[\"service.name\"] == \"cart\""`
	Rename   []expr.Move       `doc:"Places to be moved, as in new = old, or as a map, old: new; what is at the new place is replaced. Done first; set, hash, delete, limit and truncate follow in this order." optional:"true" example:"['attributes[\"http.response.status_code\"] = attributes[\"http.status\"]', 'body = attributes.message']"`
	Set      []expr.Assignment `doc:"Places to be set, as in place = expression, or as a map, place: expression; in this order. Nothing is set where the expression is empty." optional:"true" example:"['attributes.cluster = \"prod\"', 'severity = attributes.code >= 500 ? ERROR : INFO']"`
	Hash     []expr.Target     `doc:"Places whose values are replaced by their SHA-256 hash, in hexadecimal." optional:"true" example:"['attributes[\"user.email\"]']"`
	Salt     string            `doc:"Text that is hashed before each value. Values that can be guessed, such as addresses, are not hidden without one." optional:"true" secret:"true" example:"${SALT}"`
	Delete   []expr.Target     `doc:"Places to be emptied." optional:"true" example:"['attributes.password']"`
	Limit    int               `doc:"Most attributes of a record; those after them are deleted, and counted as dropped in logs and spans." optional:"true" min:"1" example:"128"`
	Truncate config.Size       `doc:"Most bytes of a log's body and of each attribute, if they are strings; longer ones are cut, never inside of a character." optional:"true" min:"1B" example:"4KiB"`
}

// processor does steps to records.
type processor struct {
	steps   [creel.Traces + 1][]Step // by signal, with what fits it
	refused *metric.Counter
}

// New returns the processor.
func New(c Config, h creel.Host) (creel.Processor, error) {
	steps := c.Steps
	switch {
	case len(steps) == 0:
		steps = []Step{c.Step}
	case !c.Step.idle() || !c.Where.IsZero():
		return nil, errors.New("steps stands alone: move the other options into a step")
	}
	p := &processor{refused: h.Metrics.Counter("creel.transform.refused", "Values that could not be stored where they should be, such as a map as severity.", "{value}")}
	for _, st := range steps {
		if st.idle() {
			return nil, errors.New("a step needs at least one of rename, set, hash, delete, limit and truncate")
		}
		if err := st.hashes(); err != nil {
			return nil, err
		}
		for _, s := range creel.Signals() {
			if !st.Where.IsZero() && !st.Where.Fits(s) {
				continue
			}
			if st := st.fitting(s); !st.idle() {
				p.steps[s] = append(p.steps[s], st)
			}
		}
	}
	return p, nil
}

// idle reports whether st does nothing.
func (st *Step) idle() bool {
	return len(st.Rename)+len(st.Set)+len(st.Hash)+len(st.Delete) == 0 && st.Truncate == 0 && st.Limit == 0
}

// hashes makes assignments of st.Hash, after those of st.Set.
func (st *Step) hashes() error {
	st.Set = slices.Clip(st.Set)
	for _, t := range st.Hash {
		a, err := expr.ParseAssignment(fmt.Sprintf("%s = sha256(%s + string(%[1]s))", t, strconv.Quote(st.Salt)))
		if err != nil { // which would show the salt
			return fmt.Errorf("hash: %s cannot hold a hash", t)
		}
		st.Set = append(st.Set, a)
	}
	return nil
}

// fitting returns what of st can be done to records of s.
func (st Step) fitting(s creel.Signal) Step {
	out := Step{Where: st.Where, Truncate: st.Truncate, Limit: st.Limit}
	for _, m := range st.Rename {
		if m.To.Fits(s) && m.From.Fits(s) {
			out.Rename = append(out.Rename, m)
		}
	}
	for _, a := range st.Set {
		if a.Fits(s) {
			out.Set = append(out.Set, a)
		}
	}
	for _, t := range st.Delete {
		if t.Fits(s) {
			out.Delete = append(out.Delete, t)
		}
	}
	return out
}

// Process changes b's records. A batch in which nothing is to be changed goes on as the bytes that it came in.
func (p *processor) Process(_ context.Context, b *creel.Batch, next creel.Next) error {
	steps := p.steps[b.Signal()]
	if i := first(b, steps); i < b.Len() {
		r := expr.Edit(b)
		refused := 0
		for ; i < b.Len(); i++ {
			r.Seek(i)
			for j := range steps {
				if steps[j].asks(r) {
					refused += steps[j].do(r)
				}
			}
		}
		p.refused.Add(uint64(refused))
	}
	next.Send(b)
	return nil
}

// first returns the index of the first record that a step changes; b.Len() if there is none. As long as no step changes
// a record, the steps after it see it as it is now.
func first(b *creel.Batch, steps []Step) int {
	if len(steps) == 0 {
		return b.Len()
	}
	r := expr.Read(b)
	for i := range b.Len() {
		r.Seek(i)
		for j := range steps {
			if steps[j].asks(r) && steps[j].changes(r) {
				return i
			}
		}
	}
	return b.Len()
}

func (st *Step) asks(r *expr.Record) bool { return st.Where.IsZero() || st.Where.Match(r) }

// changes reports whether do would do anything.
func (st *Step) changes(r *expr.Record) bool {
	for _, m := range st.Rename {
		if _, ok := m.From.Get(r); ok {
			return true
		}
	}
	for _, a := range st.Set {
		v := a.From.Eval(r)
		if old, _ := a.To.Get(r); v.Kind() != creel.ValueEmpty && !v.Equal(old) {
			return true
		}
	}
	for _, t := range st.Delete {
		if _, ok := t.Get(r); ok {
			return true
		}
	}
	attrs, _ := r.Attrs()
	if st.Limit > 0 && len(*attrs) > st.Limit {
		return true
	}
	if st.Truncate > 0 {
		if r.Log != nil && len(r.Log.Body.Str()) > int(st.Truncate) {
			return true
		}
		for i := range *attrs {
			if len((*attrs)[i].Value.Str()) > int(st.Truncate) {
				return true
			}
		}
	}
	return false
}

// do does st to a record, and returns how many values could not be stored.
func (st *Step) do(r *expr.Record) (refused int) {
	for _, m := range st.Rename {
		if !m.Do(r) {
			refused++
		}
	}
	for _, a := range st.Set {
		if v := a.From.Eval(r); v.Kind() != creel.ValueEmpty && !a.To.Set(r, v) {
			refused++
		}
	}
	for _, t := range st.Delete {
		t.Delete(r)
	}
	attrs, dropped := r.Attrs()
	if n := len(*attrs) - st.Limit; st.Limit > 0 && n > 0 {
		*attrs = (*attrs)[:st.Limit]
		if dropped != nil {
			*dropped += uint32(n)
		}
	}
	if st.Truncate > 0 {
		if r.Log != nil {
			r.Log.Body = cut(r.Log.Body, int(st.Truncate))
		}
		for i := range *attrs {
			(*attrs)[i].Value = cut((*attrs)[i].Value, int(st.Truncate))
		}
	}
	return refused
}

// cut returns v, of which no more than n bytes are left if it is a string, and no part of a character.
func cut(v creel.Value, n int) creel.Value {
	s := v.Str()
	if len(s) <= n {
		return v
	}
	for back := 0; back < utf8.UTFMax && back <= n; back++ {
		if utf8.RuneStart(s[n-back]) {
			return creel.String(s[:n-back])
		}
	}
	return creel.String(s[:n]) // not UTF-8
}
