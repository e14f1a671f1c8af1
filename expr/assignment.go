package expr

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/creelhq/creel"
	"github.com/expr-lang/expr/file"
)

// Assignment is an Expression whose value goes to a Target, written as in attributes.cluster = "prod". It is immutable and
// may be used concurrently, with a Record each.
type Assignment struct {
	To   Target
	From Expression
}

// ParseAssignment compiles text. What can never be stored there is an error.
func ParseAssignment(text string) (a Assignment, err error) {
	to, from, err := sides(text)
	if err != nil {
		return Assignment{}, err
	}
	if a.To, err = ParseTarget(to); err != nil {
		return Assignment{}, within(text, err)
	}
	if a.From, err = ParseExpression(from); err != nil {
		return Assignment{}, within(text, err)
	}
	a.To.p.text, a.From.p.text = strings.TrimSpace(to), strings.TrimSpace(from)
	return a, a.To.Accepts(a.From)
}

// UnmarshalText is ParseAssignment.
func (a *Assignment) UnmarshalText(text []byte) (err error) {
	*a, err = ParseAssignment(string(text))
	return err
}

// MarshalText returns the text of both sides.
func (a Assignment) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// TypeName is what help calls it.
func (Assignment) TypeName() string { return "assignment" }

// String returns the text of both sides.
func (a Assignment) String() string { return a.To.String() + " = " + a.From.String() }

// EntryText makes the entry of a map an Assignment: place: expression.
func (Assignment) EntryText(place, expression string) string { return place + " = " + expression }

// Fits reports whether records of s have the place and the fields.
func (a Assignment) Fits(s creel.Signal) bool { return a.To.Fits(s) && a.From.Fits(s) }

// Move takes what is at one Target to another, written as in attributes.new = attributes.old.
type Move struct{ To, From Target }

// ParseMove compiles text.
func ParseMove(text string) (m Move, err error) {
	to, from, err := sides(text)
	if err != nil {
		return Move{}, err
	}
	if m.To, err = ParseTarget(to); err != nil {
		return Move{}, within(text, err)
	}
	if m.From, err = ParseTarget(from); err != nil {
		return Move{}, within(text, err)
	}
	m.To.p.text, m.From.p.text = strings.TrimSpace(to), strings.TrimSpace(from)
	return m, nil
}

// UnmarshalText is ParseMove.
func (m *Move) UnmarshalText(text []byte) (err error) {
	*m, err = ParseMove(string(text))
	return err
}

// EntryText makes the entry of a map a Move: old: new.
func (Move) EntryText(from, to string) string { return to + " = " + from }

// MarshalText returns the text of both sides.
func (m Move) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// TypeName is what help calls it.
func (Move) TypeName() string { return "move" }

// String returns the text of both sides.
func (m Move) String() string { return m.To.String() + " = " + m.From.String() }

// Do moves what is there; where nothing is, nothing happens. It returns false, and changes nothing, when it cannot be
// stored at To.
func (m Move) Do(r *Record) bool {
	v, ok := m.From.Get(r)
	if !ok || m.renames(r) {
		return true
	}
	m.From.Delete(r)
	ok = m.To.Set(r, v)
	if !ok {
		m.From.Set(r, v)
	}
	return ok
}

// renames gives an attribute a name that is not taken, which is what most moves come to, and costs the least.
func (m Move) renames(r *Record) bool {
	from, to := m.From.p.attribute(), m.To.p.attribute()
	as := *r.attrs()
	if from == "" || to == "" || slices.ContainsFunc(as, func(a creel.Attr) bool { return a.Key == to }) {
		return false
	}
	for i := range as {
		if as[i].Key == from {
			as[i].Key = to
		}
	}
	return true
}

// sides cuts text at its = sign. The right side is filled up so that what is wrong with it is found at the same column.
func sides(text string) (to, from string, err error) {
	quote, escaped := rune(0), false
	for i, r := range text {
		switch {
		case escaped:
			escaped = false
		case quote != 0:
			if escaped = r == '\\' && quote != '`'; r == quote {
				quote = 0
			}
		case r == '"' || r == '\'' || r == '`':
			quote = r
		case r == '=' && strings.HasPrefix(text[i:], "=="):
			return "", "", fmt.Errorf("%s compares; an assignment has one =", text)
		case r == '=':
			return text[:i], strings.Repeat(" ", utf8.RuneCountInString(text[:i+1])) + text[i+1:], nil
		}
	}
	return "", "", fmt.Errorf(`%s is no assignment such as attributes.cluster = "prod"`, text)
}

// within makes err show the whole text.
func within(text string, err error) error {
	if e := (*file.Error)(nil); errors.As(err, &e) {
		return e.Bind(file.NewSource(text))
	}
	return err
}
