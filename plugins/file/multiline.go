package file

import (
	"errors"
	"fmt"
	"iter"
	"regexp"
	"strings"
	"time"
)

// Multiline is the options for lines that belong together.
type Multiline struct {
	StartPattern Pattern       `name:"line_start_pattern" doc:"A line that matches begins a record; the lines after it, until the next that matches, belong to it." optional:"true" example:"^\\d{4}-\\d{2}-\\d{2}"`
	EndPattern   Pattern       `name:"line_end_pattern" doc:"A line that matches ends a record; the lines before it, from the last that matched, belong to it." optional:"true" example:";$"`
	MaxLines     int           `doc:"Most lines of a record. The lines after them begin another." default:"1000" min:"1"`
	Timeout      time.Duration `doc:"How long to wait for further lines of a record before it is sent as it is. It holds for parts of a container's line as well." default:"1s" min:"10ms" max:"1h"`
}

func (m *Multiline) on() bool { return m.StartPattern.re != nil || m.EndPattern.re != nil }

func (m *Multiline) check() error {
	if m.StartPattern.re != nil && m.EndPattern.re != nil {
		return errors.New("multiline: line_start_pattern and line_end_pattern cannot be used together")
	}
	return nil
}

// Pattern is a regular expression (RE2). The zero Pattern matches nothing.
type Pattern struct{ re *regexp.Regexp }

const maxPattern = 4 << 10 // bytes

// UnmarshalText compiles the expression.
func (p *Pattern) UnmarshalText(text []byte) (err error) {
	if len(text) > maxPattern {
		return fmt.Errorf("must be at most %d bytes long", maxPattern)
	}
	p.re = nil
	if len(text) > 0 {
		if p.re, err = regexp.Compile(string(text)); err != nil {
			return fmt.Errorf("must be a regular expression: %w", err)
		}
	}
	return nil
}

// MarshalText returns the expression as it was written.
func (p Pattern) MarshalText() ([]byte, error) {
	if p.re == nil {
		return nil, nil
	}
	return []byte(p.re.String()), nil
}

func (p Pattern) match(text []byte) bool { return p.re != nil && p.re.Match(text) }

// groups yields the named groups of the first match in text, and what they match.
func (p Pattern) groups(text string) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		if p.re == nil {
			return
		}
		found := p.re.FindStringSubmatch(text)
		for i, name := range p.re.SubexpNames() {
			if found != nil && name != "" && !yield(strings.ReplaceAll(name, "__", "."), found[i]) {
				return
			}
		}
	}
}
