package pipeline

import (
	"fmt"

	"github.com/creelhq/creel/expr"
)

// A Toggle says whether something takes part: true, false, or where a condition on the labels of the agent holds.
type Toggle struct {
	text string
	off  bool
	when expr.Selector
}

// UnmarshalText reads a toggle. A condition is checked.
func (t *Toggle) UnmarshalText(text []byte) (err error) {
	*t = Toggle{text: string(text), off: string(text) == "false"}
	switch t.text {
	case "true", "false":
		return nil
	case "":
		return fmt.Errorf("must be true, false, or a condition on the agent's labels such as site == \"north\"")
	}
	if t.when, err = expr.ParseSelector(t.text); err != nil {
		return fmt.Errorf("must be true, false, or a condition on the agent's labels: %w", err)
	}
	return nil
}

// MarshalText returns what UnmarshalText has read.
func (t Toggle) MarshalText() ([]byte, error) { return []byte(t.text), nil }

// TypeName is what help calls it.
func (Toggle) TypeName() string { return "boolean or condition" }

// On reports whether it is on where an agent has these labels.
func (t Toggle) On(labels map[string]string) bool { return !t.off && t.when.Match(labels) }
