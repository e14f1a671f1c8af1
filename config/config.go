// Package config turns struct tags into everything one wants of configuration: decoding with defaults, checks that find
// every error at once, each with its place in the file, help, reference pages and JSON Schema. It reads YAML and JSON,
// and expands ${env:NAME} and ${file:PATH}.
//
// It is a leaf: it knows no component and no section by name.
package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// An Error is one thing that is wrong, and where.
type Error struct {
	File      string
	Line, Col int    // from 1; 0 for unknown
	Path      string // such as exporters.otlp/hub.endpoint
	Message   string // what is wrong
	Hint      string // what to do, or ""
}

// Error returns file:line:column: path: message; hint.
func (e *Error) Error() string {
	var s strings.Builder
	if e.File != "" {
		s.WriteString(e.File + ":")
	}
	if e.Line > 0 {
		fmt.Fprintf(&s, "%d:%d:", e.Line, e.Col)
	}
	if s.Len() > 0 {
		s.WriteByte(' ')
	}
	if e.Path != "" {
		s.WriteString(e.Path + ": ")
	}
	s.WriteString(e.Message)
	if e.Hint != "" {
		s.WriteString("; " + e.Hint)
	}
	return s.String()
}

// Errors is everything that is wrong with a configuration.
type Errors []*Error

// Error returns one line for each.
func (es Errors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the errors one by one.
func (es Errors) Unwrap() []error {
	list := make([]error, len(es))
	for i, e := range es {
		list[i] = e
	}
	return list
}

// Sort orders the errors by their place.
func (es Errors) Sort() {
	slices.SortStableFunc(es, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
	})
}

// or returns es as an error, nil if there are none.
func (es Errors) or() error {
	if len(es) == 0 {
		return nil
	}
	es.Sort()
	return es
}

// DidYouMean returns a hint that names the one of known which name is probably meant to be, or "".
func DidYouMean(name string, known []string) string {
	best, least := "", max(2, len(name)/3+1)
	for _, k := range known {
		if len(name) > 2 && strings.HasPrefix(k, name) { // cut short
			return fmt.Sprintf("did you mean %q?", k)
		}
		if len(name)-len(k) >= least || len(k)-len(name) >= least {
			continue
		}
		d := distance(strings.ToLower(name), strings.ToLower(k))
		if d < least {
			best, least = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("did you mean %q?", best)
}

// distance is the number of insertions, deletions, replacements and swaps of neighbours between a and b (optimal string
// alignment).
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}
