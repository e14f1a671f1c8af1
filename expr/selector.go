package expr

import (
	"slices"
	"strings"
	"sync"

	"github.com/creelhq/creel"
	"github.com/expr-lang/expr/ast"
)

// A Selector says of a set of labels whether it is meant, such as an agent's: site == "north" && host.name matches "^web".
// It is the same language, of labels instead of fields; Semantics tells how they are written. The zero Selector, and that
// of an empty text, is for all. It is immutable and may be used concurrently.
type Selector struct{ s *selector }

type selector struct {
	text    string
	names   []string // of the labels that it names, by their slots
	test    func(*Record) bool
	records sync.Pool // of *Record, for variables and strings that are made
}

// ParseSelector compiles text, which must give a boolean. The error shows the line with a caret under the place.
func ParseSelector(text string) (Selector, error) {
	if strings.TrimSpace(text) == "" {
		return Selector{}, nil
	}
	tree, err := parsed(text)
	if err != nil {
		return Selector{}, err
	}
	s := &selector{text: text, records: sync.Pool{New: func() any { return new(Record) }}}
	if fail := s.compile(tree.Node); fail != nil {
		return Selector{}, fail.bind(tree.Source)
	}
	return Selector{s}, nil
}

// compile makes variables of the labels, so that all else is as it is of records.
func (s *selector) compile(n ast.Node) (fail *failure) {
	defer func() {
		if p := recover(); p != nil {
			f, ok := p.(*failure)
			if !ok {
				panic(p)
			}
			fail = f
		}
	}()
	c := &compiler{source: []rune(s.text)}
	s.find(c, &n)
	top := c.compile(n)
	c.want(n, top, boolean, "a selector")
	s.test = top.asTest()
	return nil
}

// find replaces what names a label, in n and below, by a name that is bound to a slot.
func (s *selector) find(c *compiler, n *ast.Node) {
	switch m := (*n).(type) {
	case *ast.IdentifierNode, *ast.MemberNode, *ast.ChainNode:
		s.replace(c, n)
	case *ast.UnaryNode:
		s.find(c, &m.Node)
	case *ast.BinaryNode:
		s.find(c, &m.Left)
		s.find(c, &m.Right)
		if _, left := m.Left.(*ast.IdentifierNode); left && (m.Operator == "-" || m.Operator == "/") {
			c.fail(m, `strings are not calculated with; a label whose name has a %s is written labels["any name"]`, m.Operator)
		}
	case *ast.ConditionalNode:
		s.find(c, &m.Cond)
		s.find(c, &m.Exp1)
		s.find(c, &m.Exp2)
	case *ast.ArrayNode:
		s.all(c, m.Nodes)
	case *ast.SliceNode:
		s.find(c, &m.Node)
		if m.From != nil {
			s.find(c, &m.From)
		}
		if m.To != nil {
			s.find(c, &m.To)
		}
	case *ast.BuiltinNode:
		s.call(c, m, m.Name, m.Arguments)
	case *ast.CallNode:
		name, _ := m.Callee.(*ast.IdentifierNode)
		if name == nil {
			return // there are no methods: the compiler says so
		}
		s.call(c, m, name.Value, m.Arguments)
	case *ast.PredicateNode:
		s.find(c, &m.Node)
	case *ast.NilNode:
		c.fail(m, `a label that is missing is "": ask for that, not for nil`)
	case *ast.VariableDeclaratorNode, *ast.MapNode, *ast.SequenceNode:
		c.fail(m, "there are no variables, maps or ; in a selector")
	}
}

func (s *selector) all(c *compiler, list []ast.Node) {
	for i := range list {
		s.find(c, &list[i])
	}
}

func (s *selector) call(c *compiler, n ast.Node, name string, args []ast.Node) {
	if f := functionOf(name); f != nil && f.impure {
		c.fail(n, "what labels select must not depend on %s", f.usage)
	}
	s.all(c, args)
}

func (s *selector) replace(c *compiler, n *ast.Node) {
	name, root := label(c, *n)
	if root == nil {
		switch m := (*n).(type) {
		case *ast.ChainNode:
			s.find(c, &m.Node)
		case *ast.MemberNode:
			s.find(c, &m.Node)
			s.find(c, &m.Property)
		}
		return
	}
	if name == "" {
		c.fail(root, `a label is written labels["any name"], or without labels if its name is plain; whether it is there, labels["any name"] != ""`)
	}
	if _, bound := c.bound(name); !bound {
		c.names = append(c.names, binding{name, c.slots, text})
		c.slots++
		s.names = append(s.names, name)
	}
	is := &ast.IdentifierNode{Value: name}
	is.SetLocation(root.Location())
	*n = is
}

// label returns the name of a label as it is written: site, host.name or labels["any name"]; and where that begins, nil if n
// is no label. The name of labels alone is "".
func label(c *compiler, n ast.Node) (name string, root *ast.IdentifierNode) {
	switch n := n.(type) {
	case *ast.ChainNode:
		return label(c, n.Node)
	case *ast.IdentifierNode:
		if n.Value == "labels" {
			return "", n
		}
		return n.Value, n
	case *ast.MemberNode:
		key, ok := n.Property.(*ast.StringNode)
		if !ok || n.Method {
			return "", nil
		}
		if name, root = label(c, n.Node); root == nil || name == "" {
			return key.Value, root
		}
		if at := n.Location().From; at < len(c.source) && c.source[at] == '[' {
			c.fail(n, `a label is a string and has no entries; its name is written like host.name or labels["any name"]`)
		}
		return name + "." + key.Value, root
	}
	return "", nil
}

// Match reports whether s is for what has these labels. One that is missing is "".
func (s Selector) Match(labels map[string]string) bool {
	if s.s == nil {
		return true
	}
	r := s.s.records.Get().(*Record)
	for i, name := range s.s.names {
		r.let(i, creel.String(labels[name]))
	}
	before := r.made
	ok := s.s.test(r)
	r.forget(before)
	s.s.records.Put(r)
	return ok
}

// Names reports whether s names the label, whatever it asks of it.
func (s Selector) Names(label string) bool { return s.s != nil && slices.Contains(s.s.names, label) }

// UnmarshalText is ParseSelector.
func (s *Selector) UnmarshalText(text []byte) (err error) {
	*s, err = ParseSelector(string(text))
	return err
}

// MarshalText returns the text that s was made from.
func (s Selector) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// TypeName is what help calls it.
func (Selector) TypeName() string { return "selector" }

// String returns the text that s was made from; "" if it is for all.
func (s Selector) String() string {
	if s.s == nil {
		return ""
	}
	return s.s.text
}

// IsZero reports whether s is for all because it says nothing.
func (s Selector) IsZero() bool { return s.s == nil }
