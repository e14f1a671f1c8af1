// Package expr is creel's one language for conditions and values, written wherever a configuration or a query speaks of
// records: syntax and parser are expr-lang's, what runs per record is compiled to closures. Reference lists all of it.
//
// What a record does not have is empty. A comparison with something empty is false, whichever it is, but == nil and
// != nil; a calculation with it is empty. Where a boolean is asked for, what is empty or none counts as false. Unset
// severities and times are empty; unset texts are "". Nothing is converted by itself: "5" is not 5. Times, durations and
// severities are told apart at load; as values of attributes they are integers. Mistakes are found at load wherever they
// can be.
//
// It sees records, and must not know where they come from or go to.
package expr

import "github.com/creelhq/creel"

// A Condition says of a record whether it holds. It is immutable and may be used concurrently, with a Record each.
type Condition struct{ p *program }

// ParseCondition compiles text, which must give a boolean. The error shows the line with a caret under the place.
func ParseCondition(text string) (Condition, error) {
	p, err := parse(text, true)
	return Condition{p}, err
}

// UnmarshalText is ParseCondition.
func (c *Condition) UnmarshalText(text []byte) (err error) {
	*c, err = ParseCondition(string(text))
	return err
}

// MarshalText returns the text that c was made from.
func (c Condition) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// TypeName is what help calls it.
func (Condition) TypeName() string { return "condition" }

// String returns the text that c was made from.
func (c Condition) String() string { return c.p.String() }

// IsZero reports whether c is the zero Condition, which holds for nothing.
func (c Condition) IsZero() bool { return c.p == nil }

// Fits reports whether c can be asked of records of s: whether they have the fields that it names.
func (c Condition) Fits(s creel.Signal) bool { return c.p.fits(s) }

// Match reports whether c holds for r. It is false when c does not fit r's signal.
func (c Condition) Match(r *Record) bool { return c.p.match(r) }

// An Expression computes a value from a record. It is immutable and may be used concurrently, with a Record each.
type Expression struct{ p *program }

// ParseExpression compiles text. The error shows the line with a caret under the place.
func ParseExpression(text string) (Expression, error) {
	p, err := parse(text, false)
	return Expression{p}, err
}

// UnmarshalText is ParseExpression.
func (e *Expression) UnmarshalText(text []byte) (err error) {
	*e, err = ParseExpression(string(text))
	return err
}

// MarshalText returns the text that e was made from.
func (e Expression) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// TypeName is what help calls it.
func (Expression) TypeName() string { return "expression" }

// String returns the text that e was made from.
func (e Expression) String() string { return e.p.String() }

// IsZero reports whether e is the zero Expression, which is always empty.
func (e Expression) IsZero() bool { return e.p == nil }

// Fits reports whether e can be asked of records of s: whether they have the fields that it names.
func (e Expression) Fits(s creel.Signal) bool { return e.p.fits(s) }

// Eval returns e's value for r; it is empty when something that it needs is missing, or e does not fit r's signal.
// Lists and maps in it lie in r.Memory.
func (e Expression) Eval(r *Record) creel.Value { return e.p.eval(r) }
