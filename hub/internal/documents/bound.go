package documents

import (
	"fmt"
	"slices"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/expr"
)

// This file is what somebody may see and change who sees only agents that meet a condition on labels.

// agents returns the agents that somebody sees.
func (s *Store) agents(within expr.Selector) []Agent {
	all := s.o.Agents()
	if within.IsZero() {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), func(x Agent) bool { return !within.Match(x.Labels) })
}

// readable reports whether somebody may see d: it was written within the same condition, or reaches one of the agents that
// they see.
func (d *document) readable(within expr.Selector, agents []Agent) bool {
	return within.IsZero() || d.Within == within.String() ||
		d.content != nil && slices.ContainsFunc(agents, func(x Agent) bool { return d.content.selects(x.Labels) })
}

// owned refuses to let somebody change d who may not. What they may not see is not there for them.
func (s *Store) owned(d *document, within expr.Selector) error {
	switch {
	case within.IsZero() || d.revision == 0 || d.Within == within.String():
		return nil
	case !d.readable(within, s.agents(within)):
		return unknown(d.name)
	}
	return &api.Error{Code: "forbidden", Message: fmt.Sprintf("document %s may reach agents that you do not see: you may change only what was written within %s; write a document of another name", d.name, within)}
}
