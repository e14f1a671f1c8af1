package parse

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
)

// The time that a match takes grows with the product of these two: instructions of a compiled expression, and bytes of a
// line. A processor must not block, so neither may be large.
const (
	maxProgram = 5_000
	maxMatched = 256 << 10
)

// Regex is an expression with named groups, RE2 syntax.
type Regex struct {
	text string
	re   *regexp.Regexp
}

// UnmarshalText compiles the expression.
func (r *Regex) UnmarshalText(text []byte) (err error) {
	r.text = string(text)
	r.re, err = compile(r.text)
	return err
}

// MarshalText returns the text that r was made from.
func (r Regex) MarshalText() ([]byte, error) { return []byte(r.text), nil }

// TypeName is what help calls it.
func (Regex) TypeName() string { return "regular expression" }

// compile compiles an expression that must have named groups, and not be too large.
func compile(text string) (*regexp.Regexp, error) {
	tree, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return nil, fmt.Errorf("compile expression: %w", err)
	}
	prog, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return nil, fmt.Errorf("compile expression: %w", err)
	}
	if n := len(prog.Inst); n > maxProgram {
		return nil, fmt.Errorf("compile expression: it is too large: %d instructions, of %d at most", n, maxProgram)
	}
	for _, name := range tree.CapNames() {
		if name != "" {
			re, err := regexp.Compile(text)
			if err != nil {
				return nil, fmt.Errorf("compile expression: %w", err)
			}
			return re, nil
		}
	}
	return nil, errors.New("compile expression: it names no field; a group such as (?P<user>\\w+) does")
}

// newRegex returns the scan of an expression: each group that has a name and took part in the match is a field. A match costs two
// allocations or so, as package regexp returns it in a new slice.
func newRegex(re *regexp.Regexp, names []string) scan {
	return func(f *fields, line string) (fault string) {
		if len(line) > maxMatched {
			return "too long for a pattern"
		}
		at := re.FindStringSubmatchIndex(line)
		if at == nil {
			return "the pattern does not match"
		}
		for i, name := range names {
			if name != "" && at[2*i] >= 0 {
				f.add(name, f.string(line[at[2*i]:at[2*i+1]]))
			}
		}
		return ""
	}
}
