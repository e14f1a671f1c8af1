package expr

import (
	"fmt"

	"github.com/creelhq/creel"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
)

// The caps of what is compiled. They keep a configuration or a query from costing more than it can be worth.
const (
	maxText  = 64 << 10 // bytes of an expression
	maxDepth = 64       // of parts in parts; a chain of the same operator is one
)

// program is an expression, compiled for each signal that it fits: what of the others is nil. The last one is for empty
// Records.
type program struct {
	text   string
	kinds  kinds // what it can give, for any signal
	tests  [4]func(*Record) bool
	values [4]eval
}

// parse compiles text, for a condition or for any value.
func parse(text string, condition bool) (*program, error) {
	tree, err := parsed(text)
	if err != nil {
		return nil, err
	}
	p := &program{text: text}
	var misfit, wrong *failure
	fits := false
	for i := range creel.Signals() {
		c := &compiler{signal: i, source: []rune(text)}
		switch fail := c.program(p, tree.Node, condition); {
		case fail == nil:
			fits = true
		case fail.misfit:
			misfit = fail
		case wrong == nil:
			wrong = fail
		}
	}
	switch {
	case fits:
		return p, nil
	case wrong != nil:
		return nil, wrong.bind(tree.Source)
	}
	misfit.Message = "no kind of record has all the fields of this expression: " + misfit.Message
	return nil, misfit.bind(tree.Source)
}

// parsed parses text. That the parser panics on no text is for a test to show, but nothing that a user writes may stop
// an agent.
func parsed(text string) (tree *parser.Tree, err error) {
	if len(text) > maxText {
		return nil, fmt.Errorf("parse expression: it has %d bytes; at most %d are allowed", len(text), maxText)
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("parse expression: %v", p)
		}
	}()
	return parser.Parse(text)
}

// failure is what is wrong with an expression. It is a misfit when another signal may have what is missing.
type failure struct {
	file.Error
	misfit bool
}

func (f *failure) bind(source file.Source) error { return f.Error.Bind(source) }

// fail ends the compilation; program catches it.
func (c *compiler) fail(at ast.Node, format string, args ...any) {
	panic(&failure{Error: failureAt(at, format, args...)})
}

func failureAt(at ast.Node, format string, args ...any) file.Error {
	return file.Error{Location: at.Location(), Message: fmt.Sprintf(format, args...)}
}

// program compiles a whole expression into p.
func (c *compiler) program(p *program, n ast.Node, condition bool) (fail *failure) {
	defer func() {
		if p := recover(); p != nil {
			f, ok := p.(*failure)
			if !ok {
				panic(p)
			}
			fail = f
		}
	}()
	top := c.compile(n)
	if condition {
		c.want(n, top, boolean, "a condition")
		p.tests[c.signal] = top.asTest()
		if test := p.tests[c.signal]; c.makes {
			p.tests[c.signal] = func(r *Record) bool {
				before := r.made
				ok := test(r)
				r.forget(before)
				return ok
			}
		}
	}
	p.values[c.signal] = top.asValue()
	if value := p.values[c.signal]; c.aliens {
		p.values[c.signal] = func(r *Record) creel.Value { return r.own(value(r)) }
	}
	p.kinds |= top.kinds
	return nil
}

func index(s creel.Signal) int { return int(s) - 1 }

// String returns the text that p was made from.
func (p *program) String() string {
	if p == nil {
		return ""
	}
	return p.text
}

func (p *program) fits(s creel.Signal) bool {
	return p != nil && index(s) >= 0 && index(s) < 3 && p.values[index(s)] != nil
}

func (p *program) match(r *Record) bool {
	if p == nil {
		return false
	}
	test := p.tests[r.signal()&3]
	return test != nil && test(r)
}

func (p *program) eval(r *Record) creel.Value {
	if p == nil {
		return creel.Value{}
	}
	value := p.values[r.signal()&3]
	if value == nil {
		return creel.Value{}
	}
	return value(r)
}

// parsePlace compiles the text of a Target.
func parsePlace(text string) (*place, error) {
	tree, err := parsed(text)
	if err != nil {
		return nil, err
	}
	f := &failure{}
	switch root, steps := path(tree.Node, []rune(text)); {
	case root == nil || lookup(fields, root.Value) == nil:
		f.Location = tree.Node.Location()
		f.Message = `a place is a field or an entry of one, such as body or attributes["user"]`
	case steps == nil && root.Value == "scope":
		f.Message = `a scope is set by its parts, such as scope.name`
	case steps == nil && lookup(fields, root.Value).set == nil:
		f.Message = fmt.Sprintf("%s cannot be changed", root.Value)
	case steps != nil && lookup(fields, root.Value).attrs == nil:
		f.Message = fmt.Sprintf("%s has no entries", root.Value)
	case len(steps) == 1 && root.Value == "scope" && lookup(scopeFields, steps[0].key) != nil:
		return &place{text: text, field: lookup(scopeFields, steps[0].key)}, nil
	default:
		return &place{text: text, field: lookup(fields, root.Value), steps: steps}, nil
	}
	return nil, f.bind(tree.Source)
}

// path returns the name that a chain of members starts at and the steps from there; nil when it is no such chain, or its
// keys are not constant.
func path(n ast.Node, source []rune) (root *ast.IdentifierNode, steps []step) {
	for {
		switch m := n.(type) {
		case *ast.ChainNode:
			n = m.Node
			continue
		case *ast.IdentifierNode:
			for i, j := 0, len(steps)-1; i < j; i, j = i+1, j-1 {
				steps[i], steps[j] = steps[j], steps[i]
			}
			return m, joinSteps(steps)
		case *ast.MemberNode:
			key, ok := m.Property.(*ast.StringNode)
			if !ok || m.Method {
				return nil, nil
			}
			at := m.Location().From
			steps = append(steps, step{key.Value, at >= len(source) || source[at] != '['})
			n = m.Node
			continue
		}
		return nil, nil
	}
}
