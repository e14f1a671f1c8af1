// Package filter is the processor that drops records by conditions.
package filter

import (
	"context"
	_ "embed"
	"errors"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/expr"
)

//go:embed example.yaml
var example string

// Plugin is the processor filter.
var Plugin = creel.NewProcessor("filter", "Drops records for which a condition holds, or keeps only those.", New).WithExample(example)

// Config is the processor's options.
type Config struct {
	Drop []expr.Condition `doc:"Drops records for which one of these conditions holds." optional:"true" example:"['severity < INFO', 'attributes[\"http.route\"] == \"/healthz\"']"`
	Keep []expr.Condition `doc:"Keeps only records for which one of these conditions holds. Conditions that name a field which records of a signal do not have, such as body for spans, leave that signal alone, here and under drop." optional:"true" example:"['severity >= WARN']"`
}

// New returns the processor.
func New(c Config, _ creel.Host) (creel.Processor, error) {
	if (len(c.Drop) == 0) == (len(c.Keep) == 0) {
		return nil, errors.New("set one of drop and keep")
	}
	conditions, kept := c.Drop, false
	if len(c.Keep) > 0 {
		conditions, kept = c.Keep, true
	}
	var asked [creel.Traces + 1][]expr.Condition // by signal
	for _, s := range creel.Signals() {
		for _, is := range conditions {
			if is.Fits(s) {
				asked[s] = append(asked[s], is)
			}
		}
	}
	return creel.ProcessorFunc(func(_ context.Context, b *creel.Batch, next creel.Next) error {
		if asked := asked[b.Signal()]; len(asked) > 0 {
			r := expr.Read(b)
			b.Keep(func(i int) bool {
				r.Seek(i)
				for _, is := range asked {
					if is.Match(r) {
						return kept
					}
				}
				return !kept
			})
		}
		next.Send(b)
		return nil
	}), nil
}
