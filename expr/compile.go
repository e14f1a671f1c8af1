package expr

import (
	"fmt"
	"strings"

	"github.com/creelhq/creel"
	"github.com/expr-lang/expr/ast"
)

// A part is a compiled part of an expression. It has a test if it gives a boolean, else a value; see asTest and asValue.
type part struct {
	kinds kinds
	value eval
	test  func(*Record) bool
	fixed bool        // it always gives the same
	is    creel.Value // what that is
	names []string    // if it gives one of these only
}

func fixed(k kinds, v creel.Value) part {
	return part{kinds: k, value: constant(v), fixed: true, is: v}
}

func tested(test func(*Record) bool) part { return part{kinds: boolean, test: test} }

func valued(k kinds, value eval) part { return part{kinds: k, value: value} }

// asTest returns what tells whether p is true. What is empty or no boolean is not.
func (p part) asTest() func(*Record) bool {
	if p.test != nil {
		return p.test
	}
	value := p.value
	return func(r *Record) bool { return value(r).Bool() }
}

func (p part) asValue() eval {
	if p.value != nil {
		return p.value
	}
	test := p.test
	return func(r *Record) creel.Value { return creel.Bool(test(r)) }
}

// compiler compiles one expression for one signal.
type compiler struct {
	signal int
	source []rune
	depth  int
	slots  int       // of variables, as far as they are given out
	names  []binding // the variables and elements that can be seen, the innermost last
	makes  bool
	aliens bool
}

// binding is a variable, or with the name # the element of a list that is walked; its index is in the next slot.
type binding struct {
	name  string
	slot  int
	kinds kinds
}

func (c *compiler) bind(name string, k kinds) (slot int) {
	c.names = append(c.names, binding{name, c.slots, k})
	c.slots += 2
	return c.slots - 2
}

func (c *compiler) unbind() { c.names = c.names[:len(c.names)-1] }

func (c *compiler) bound(name string) (binding, bool) {
	for i := len(c.names) - 1; i >= 0; i-- {
		if c.names[i].name == name {
			return c.names[i], true
		}
	}
	return binding{}, false
}

// want fails unless p can be one of k. what says what p is.
func (c *compiler) want(at ast.Node, p part, k kinds, what string) {
	if p.kinds.wide()&k == 0 {
		c.fail(at, "%s must be %v, not %v", what, k, p.kinds)
	}
}

func (c *compiler) compile(n ast.Node) part {
	if c.depth++; c.depth > maxDepth {
		c.fail(n, "the expression is nested more than %d deep", maxDepth)
	}
	p := c.node(n)
	c.depth--
	return p
}

func (c *compiler) node(n ast.Node) part {
	switch n := n.(type) {
	case *ast.NilNode:
		return fixed(nothing, creel.Value{})
	case *ast.BoolNode:
		return fixed(boolean, creel.Bool(n.Value))
	case *ast.IntegerNode:
		return fixed(integer, creel.Int(int64(n.Value)))
	case *ast.FloatNode:
		return fixed(double, creel.Double(n.Value))
	case *ast.StringNode:
		return fixed(text, creel.String(n.Value))
	case *ast.BytesNode:
		return fixed(binary, creel.Bytes(n.Value))
	case *ast.IdentifierNode:
		return c.identifier(n)
	case *ast.ChainNode:
		return c.compile(n.Node)
	case *ast.MemberNode:
		return c.member(n)
	case *ast.SliceNode:
		return c.slice(n)
	case *ast.UnaryNode:
		return c.unary(n)
	case *ast.BinaryNode:
		return c.binary(n)
	case *ast.ConditionalNode:
		return c.conditional(n)
	case *ast.ArrayNode:
		return c.list(n)
	case *ast.MapNode:
		return c.dict(n)
	case *ast.PointerNode:
		return c.element(n)
	case *ast.VariableDeclaratorNode:
		return c.variable(n)
	case *ast.BuiltinNode:
		return c.call(n, n.Name, n.Arguments)
	case *ast.CallNode:
		callee, ok := n.Callee.(*ast.IdentifierNode)
		if !ok {
			c.fail(n, "there are no methods; functions are called like lower(body)")
		}
		return c.call(n, callee.Value, n.Arguments)
	case *ast.SequenceNode:
		c.fail(n, "an expression is one value; ; only stands after let")
	}
	c.fail(n, "this is not supported")
	panic("BUG: fail returned")
}

func (c *compiler) identifier(n *ast.IdentifierNode) part {
	if b, ok := c.bound(n.Value); ok {
		return variable(b.slot, b.kinds)
	}
	if s, ok := severity(n.Value); ok {
		return fixed(level, creel.Int(int64(s)))
	}
	f := lookup(fields, n.Value)
	if f == nil {
		c.fail(n, "there is no field %s%s", n.Value, didYouMean(n.Value, identifiers()))
	}
	if n.Value == "attributes" {
		c.aliens = true
	}
	return c.field(n, f)
}

func (c *compiler) field(n ast.Node, f *field) part {
	if !f.fits(c.signal) {
		panic(&failure{Error: failureAt(n, "%s have no %s", signalNames[c.signal], f.name), misfit: true})
	}
	c.makes = c.makes || f.makes
	p := valued(f.kinds, f.get[c.signal])
	p.names = f.names[c.signal]
	return p
}

func variable(slot int, k kinds) part {
	return valued(k, func(r *Record) creel.Value { return r.vars[slot] })
}

func (c *compiler) variable(n *ast.VariableDeclaratorNode) part {
	v := c.compile(n.Value)
	slot := c.bind(n.Name, v.kinds)
	in := c.compile(n.Expr)
	c.unbind()
	value, then := v.asValue(), in.asValue()
	return valued(in.kinds, func(r *Record) creel.Value {
		r.let(slot, value(r))
		return then(r)
	})
}

func (c *compiler) element(n *ast.PointerNode) part {
	b, ok := c.bound("#")
	switch {
	case !ok:
		c.fail(n, "# only has a meaning inside of any, filter and their likes")
	case n.Name == "index":
		return variable(b.slot+1, integer)
	case n.Name != "":
		c.fail(n, "there is no #%s; there are # and #index", n.Name)
	}
	return variable(b.slot, anything)
}

// member compiles attributes["a"], body.a, list[0] and their likes.
func (c *compiler) member(n *ast.MemberNode) part {
	if n.Method {
		c.fail(n, "there are no methods; functions are called like lower(body)")
	}
	if root, steps := path(n, c.source); root != nil {
		if _, bound := c.bound(root.Value); !bound {
			if f := lookup(fields, root.Value); f != nil && f.attrs != nil {
				return c.entry(root, f, steps)
			}
		}
	}
	from, key := c.compile(n.Node), c.compile(n.Property)
	c.want(n, from, list|dict, "what is looked into")
	switch {
	case from.kinds&list == 0:
		c.want(n.Property, key, text, "a key of a map")
	case from.kinds&dict == 0:
		c.want(n.Property, key, integer, "an index of a list")
	default:
		c.want(n.Property, key, integer|text, "a key or an index")
	}
	value, at := from.asValue(), key.asValue()
	return valued(anything, func(r *Record) creel.Value { return item(value(r), at(r)) })
}

// item returns what of v is at a key or an index, which counts from the end when it is negative.
func item(v, at creel.Value) creel.Value {
	switch v.Kind() {
	case creel.ValueMap:
		if at.Kind() == creel.ValueString {
			found, _ := v.Map().Get(at.Str())
			return found
		}
	case creel.ValueList:
		i, vs := at.Int(), v.List()
		if i < 0 {
			i += int64(len(vs))
		}
		if at.Kind() == creel.ValueInt && i >= 0 && i < int64(len(vs)) {
			return vs[i]
		}
	}
	return creel.Value{}
}

func (c *compiler) entry(n ast.Node, f *field, steps []step) part {
	if f.name == "scope" && len(steps) == 1 {
		if part := lookup(scopeFields, steps[0].key); part != nil {
			return c.field(n, part)
		}
	}
	c.field(n, f) // it fits
	attrs, key := f.attrs, steps[0].key
	switch {
	case len(steps) > 1 || steps[0].dotted:
		return valued(anything, func(r *Record) creel.Value {
			v, _ := find(attrs(r), steps)
			return v
		})
	case f.name == "attributes" && c.signal == 0:
		return valued(anything, func(r *Record) creel.Value {
			as := r.Log.Attrs
			for i := range as {
				if as[i].Key == key {
					return as[i].Value
				}
			}
			return creel.Value{}
		})
	}
	return valued(anything, func(r *Record) creel.Value {
		v, _ := attrs(r).Get(key)
		return v
	})
}

func (c *compiler) conditional(n *ast.ConditionalNode) part {
	test, yes, no := c.compile(n.Cond), c.compile(n.Exp1), c.compile(n.Exp2)
	c.want(n.Cond, test, boolean, "a condition")
	if is := test.asTest(); yes.test != nil && no.test != nil {
		yes, no := yes.test, no.test
		return tested(func(r *Record) bool {
			if is(r) {
				return yes(r)
			}
			return no(r)
		})
	} else {
		yes, no, k := yes.asValue(), no.asValue(), yes.kinds|no.kinds
		return valued(k, func(r *Record) creel.Value {
			if is(r) {
				return yes(r)
			}
			return no(r)
		})
	}
}

func (c *compiler) list(n *ast.ArrayNode) part {
	items, constants := make([]eval, len(n.Nodes)), make([]creel.Value, len(n.Nodes))
	same := true
	for i, e := range n.Nodes {
		p := c.compile(e)
		items[i], constants[i], same = p.asValue(), p.is, same && p.fixed
	}
	if same {
		return fixed(list, creel.List(constants...))
	}
	return valued(list, func(r *Record) creel.Value {
		vs := r.values(len(items))
		for i, e := range items {
			vs[i] = e(r)
		}
		return creel.List(vs...)
	})
}

func (c *compiler) dict(n *ast.MapNode) part {
	type entry struct {
		key   string
		value eval
	}
	var entries []entry
	for _, e := range n.Pairs {
		pair := e.(*ast.PairNode)
		key := c.compile(pair.Key)
		if !key.fixed || key.kinds != text {
			c.fail(pair.Key, "a key of a map must be a constant string")
		}
		entries = append(entries, entry{key.is.Str(), c.compile(pair.Value).asValue()})
	}
	return valued(dict, func(r *Record) creel.Value {
		as := r.entries(nil, len(entries), true)
		for _, e := range entries {
			as.Set(e.key, e.value(r))
		}
		return creel.Map(as...)
	})
}

// slice compiles s[from:to] of strings and lists; negative places count from the end.
func (c *compiler) slice(n *ast.SliceNode) part {
	of := c.compile(n.Node)
	c.want(n, of, text|list, "what is sliced")
	place := func(n ast.Node, otherwise int64) eval {
		if n == nil {
			return constant(creel.Int(otherwise))
		}
		p := c.compile(n)
		c.want(n, p, integer, "a place")
		return p.asValue()
	}
	value, from, to := of.asValue(), place(n.From, 0), place(n.To, 1<<62)
	return valued(of.kinds&(text|list), func(r *Record) creel.Value {
		v, from, to := value(r), from(r), to(r)
		if from.Kind() != creel.ValueInt || to.Kind() != creel.ValueInt {
			return creel.Value{}
		}
		switch v.Kind() {
		case creel.ValueString:
			s := v.Str()
			i, j := bounds(len(s), from.Int(), to.Int())
			return creel.String(s[start(s, i):start(s, j)])
		case creel.ValueList:
			i, j := bounds(len(v.List()), from.Int(), to.Int())
			return creel.List(v.List()[i:j]...)
		}
		return creel.Value{}
	})
}

// bounds returns from and to as they are meant of n things.
func bounds(n int, from, to int64) (i, j int) {
	if from < 0 {
		from += int64(n)
	}
	if to < 0 {
		to += int64(n)
	}
	j = int(min(max(to, 0), int64(n)))
	return int(min(max(from, 0), int64(j))), j
}

// start returns where the character begins of which s[i] is a part.
func start(s string, i int) int {
	for back := 0; back < 4 && i-back >= 0 && i < len(s); back++ {
		if s[i-back]&0xc0 != 0x80 {
			return i - back
		}
	}
	return i
}

// didYouMean returns a hint at the name that is nearest to one that does not exist.
func didYouMean(name string, names []string) string {
	best, near := "", len(name)/3+1
	if near > 8 {
		return ""
	}
	for _, n := range names {
		if d := distance(strings.ToLower(name), strings.ToLower(n)); d <= near && (best == "" || d < near) {
			best, near = n, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", best)
}

// distance is the least number of letters to insert, delete or replace (Levenshtein). Names are short.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
