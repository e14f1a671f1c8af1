package expr

import (
	_ "embed"

	"github.com/creelhq/creel"
)

//go:embed semantics.md
var semantics string

// Semantics tells in Markdown what holds for the whole language.
func Semantics() string { return semantics }

// An Entry is one thing of the language, as the reference page shows it.
type Entry struct {
	Kind    string // field, operator or function
	Name    string
	Usage   string         // how it is written, such as split(text, separator)
	Signals []creel.Signal // of a field: the records that have it
	Doc     string
	Example string // an expression
	Result  string // what Example gives for the record that the package's tests have, as JSON
}

// Reference lists the whole language, from the tables that the compiler works by.
func Reference() (list []Entry) {
	for _, f := range fields {
		e := Entry{Kind: "field", Name: f.name, Usage: f.name, Doc: f.doc, Example: f.example, Result: f.want}
		for _, s := range creel.Signals() {
			if f.fits(index(s)) {
				e.Signals = append(e.Signals, s)
			}
		}
		list = append(list, e)
	}
	for _, o := range operators {
		list = append(list, Entry{Kind: "operator", Name: o.name, Usage: o.name, Doc: o.doc, Example: o.example, Result: o.want})
	}
	for _, f := range functions {
		list = append(list, Entry{Kind: "function", Name: f.name, Usage: f.usage, Doc: f.doc, Example: f.example, Result: f.want})
	}
	return list
}
