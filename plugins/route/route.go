// Package route is the processor that sends records to other pipelines by conditions.
package route

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"sync"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/expr"
)

//go:embed example.yaml
var example string

// Plugin is the processor route.
var Plugin = creel.NewProcessor("route", "Sends records to other pipelines by conditions.", New).WithExample(example)

// Config is the processor's options.
type Config struct {
	Rules     []Rule `doc:"Where records go: the first rule whose condition holds decides."`
	Otherwise string `doc:"Pipeline for records that no rule decides about. Without it, they go on through this pipeline." optional:"true" ref:"pipeline" example:"rest"`
}

// Rule is one way that records can go.
type Rule struct {
	When expr.Condition `doc:"Condition for the records. One that names fields which records of a signal do not have, such as body for spans, holds for none of that signal." example:"resource[\"service.name\"] == \"cart\""`
	To   string         `doc:"Pipeline that they are sent to." ref:"pipeline" example:"cart"`
	Copy bool           `doc:"Sends copies: the records themselves go on to the next rules." default:"false"`
}

// maxOutputs is how many pipelines copies can be sent to: a record's are a set of bits.
const maxOutputs = 64

// router sends records to outputs.
type router struct {
	outputs []creel.Next             // [0] is for what no rule decides about; nil there: through this pipeline
	rules   [creel.Traces + 1][]rule // by signal
	plans   sync.Pool                // of *plan
}

type rule struct {
	when expr.Condition
	to   int // index of an output
	copy bool
}

// plan is what is to become of a batch's records.
type plan struct {
	to     []uint8  // by record: the output that it goes to
	copies []uint64 // by record: the set of outputs that get a copy
	counts [maxOutputs]int
	copied [maxOutputs]int
	order  []int32 // scratch for moving records: where each goes
	back   []int32
}

// New returns the processor.
func New(c Config, h creel.Host) (creel.Processor, error) {
	if len(c.Rules) == 0 {
		return nil, errors.New("rules must not be empty")
	}
	p := &router{outputs: make([]creel.Next, 1)}
	index := map[string]int{}
	for i, r := range c.Rules {
		to, ok := index[r.To]
		if !ok {
			next, err := h.Output(r.To)
			if err != nil {
				return nil, fmt.Errorf("rules[%d].to: %w", i, err)
			}
			to = len(p.outputs)
			index[r.To], p.outputs = to, append(p.outputs, next)
		}
		for _, s := range creel.Signals() {
			if r.When.Fits(s) {
				p.rules[s] = append(p.rules[s], rule{r.When, to, r.Copy})
			}
		}
	}
	if len(p.outputs) > maxOutputs {
		return nil, fmt.Errorf("rules lead to %d pipelines; at most %d are possible", len(p.outputs)-1, maxOutputs-1)
	}
	if c.Otherwise != "" {
		var err error
		if p.outputs[0], err = h.Output(c.Otherwise); err != nil {
			return nil, fmt.Errorf("otherwise: %w", err)
		}
	}
	p.plans.New = func() any { return &plan{} }
	return p, nil
}

// Process sends b's records where they belong, in their order.
func (p *router) Process(_ context.Context, b *creel.Batch, next creel.Next) error {
	pl := p.plans.Get().(*plan)
	defer p.plans.Put(pl)
	pl.make(b, p.rules[b.Signal()])
	for i, n := range pl.copied {
		if n > 0 {
			p.outputs[i].Send(pl.copy(b, i))
		}
	}
	if !pl.whole(b.Len()) {
		pl.sort(b)
	}
	for i := len(p.outputs) - 1; i >= 0; i-- { // from the end, for Split leaves the front
		n := pl.counts[i]
		if n == 0 {
			continue
		}
		out, share := p.outputs[i], b
		if out == nil {
			out = next
		}
		if n < b.Len() {
			share = b.Split(b.Len() - n)
		}
		out.Send(share)
		if share == b {
			return nil
		}
	}
	return nil
}

// make fills pl for the records of b.
func (pl *plan) make(b *creel.Batch, rules []rule) {
	n := b.Len()
	pl.to, pl.copies = resized(pl.to, n), resized(pl.copies, n)
	pl.counts, pl.copied = [maxOutputs]int{}, [maxOutputs]int{}
	if len(rules) == 0 { // nothing to look at
		pl.counts[0] = n
		return
	}
	r := expr.Read(b)
	for i := range n {
		r.Seek(i)
		for _, rule := range rules {
			if !rule.when.Match(r) {
				continue
			}
			if !rule.copy {
				pl.to[i] = uint8(rule.to)
				break
			}
			if bit := uint64(1) << rule.to; pl.copies[i]&bit == 0 {
				pl.copies[i] |= bit
				pl.copied[rule.to]++
			}
		}
		pl.counts[pl.to[i]]++
	}
}

// whole reports whether all n records go to one output.
func (pl *plan) whole(n int) bool { return n == 0 || pl.counts[pl.to[0]] == n }

// copy returns a batch with copies of the records that go to output i as such.
func (pl *plan) copy(b *creel.Batch, i int) *creel.Batch {
	n := pl.copied[i]
	if n == b.Len() {
		return b.Clone()
	}
	pl.order, pl.back = resized(pl.order, b.Len()), resized(pl.back, b.Len())
	front, rest := int32(0), int32(n)
	for j := range pl.order {
		at := &rest
		if pl.copies[j]&(1<<i) != 0 {
			at = &front
		}
		pl.order[j], pl.back[*at] = *at, int32(j)
		*at++
	}
	move(b, pl.order)
	others := b.Split(n)
	share := b.Clone()
	b.Join(others)
	move(b, pl.back)
	return share
}

// sort puts b's records in the order of their outputs; those of one output stay in their order.
func (pl *plan) sort(b *creel.Batch) {
	pl.order = resized(pl.order, b.Len())
	var at [maxOutputs]int32
	for i := 1; i < maxOutputs; i++ {
		at[i] = at[i-1] + int32(pl.counts[i-1])
	}
	for j, to := range pl.to {
		pl.order[j] = at[to]
		at[to]++
	}
	move(b, pl.order)
}

// move puts each record j of b at order[j], and uses order up.
func move(b *creel.Batch, order []int32) {
	switch b.Signal() {
	case creel.Logs:
		permute(b.EditLogs(), order)
	case creel.Metrics:
		permute(b.EditMetrics(), order)
	case creel.Traces:
		permute(b.EditSpans(), order)
	}
}

func permute[T any](records []T, order []int32) {
	for i := range records {
		for int(order[i]) != i {
			j := order[i]
			records[i], records[j] = records[j], records[i]
			order[i], order[j] = order[j], order[i]
		}
	}
}

// resized returns n zeroes, in s if they have room.
func resized[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	s = s[:n]
	clear(s)
	return s
}
