package expr

import (
	"slices"
	"strings"

	"github.com/creelhq/creel"
	"github.com/expr-lang/expr/ast"
)

// operator is one operator. What it means is told by the first of these that is set; the compiler knows the others.
type operator struct {
	name, doc     string
	example, want string
	relation      relation                           // of a comparison that holds
	search        func(s, t string) bool             // of strings
	calculate     func(a, b creel.Value) creel.Value // of numbers
}

var operators = []operator{
	{name: "==", doc: "Equal. Integers and floating-point numbers are compared as numbers; nothing else is converted: \"5\" is not 5.", example: `attributes["http.status"] == 503.0`, want: `true`, relation: equal},
	{name: "!=", doc: "Not equal. Like every comparison it is false when a side is missing; only == nil and != nil ask for that.", example: `attributes.nobody != "ann"`, want: `false`, relation: unequal},
	{name: "<", doc: "Less: of numbers, strings, times, durations, severities.", example: `attributes["http.status"] < 500`, want: `false`, relation: less},
	{name: "<=", doc: "Less or equal.", example: `1 <= 1.0`, want: `true`, relation: less | equal},
	{name: ">", doc: "Greater.", example: `severity > WARN`, want: `true`, relation: greater},
	{name: ">=", doc: "Greater or equal.", example: `severity >= ERROR`, want: `true`, relation: greater | equal},
	{name: "contains", doc: "The left string contains the right one.", example: `body contains "timeout"`, want: `true`, search: strings.Contains},
	{name: "startsWith", doc: "The left string starts with the right one.", example: `body startsWith "GET "`, want: `true`, search: strings.HasPrefix},
	{name: "endsWith", doc: "The left string ends with the right one.", example: `body endsWith "timeout"`, want: `true`, search: strings.HasSuffix},
	{name: "matches", doc: "The left string matches the regular expression (RE2), a constant, somewhere.", example: `body matches "^(GET|HEAD) "`, want: `true`},
	{name: "in", doc: "The left side is in a list, is a key of a map, or is an integer in a range.", example: `attributes.user in ["ann", "bob"] && "user" in attributes && 3 in 1..5`, want: `true`},
	{name: "not", doc: "Not; also !. not in, not contains and their likes are one word in two.", example: `not (1 > 2) && !(1 > 2) && "x" not in ["y"]`, want: `true`},
	{name: "and", doc: "Both; also &&. What is empty or no boolean counts as false.", example: `severity >= ERROR and attributes.user == "ann"`, want: `true`},
	{name: "or", doc: "At least one; also ||.", example: `severity < ERROR or attributes.user == "ann"`, want: `true`},
	{name: "??", doc: "The left side, or the right one when that is empty. Beside other operators it needs parentheses.", example: `attributes.nobody ?? "none"`, want: `"none"`},
	{name: "?:", doc: "cond ? a : b is a when cond is true, else b; also if cond { a } else { b }.", example: `severity >= ERROR ? "bad" : "good"`, want: `"bad"`},
	{name: "+", doc: "The sum; of strings, one after the other; a time and a duration give a time. An integer that overflows is empty, and so is a string of more than 16 MiB.", example: `attributes.user + "@" + resource.zone`, want: `"ann@eu"`, calculate: add},
	{name: "-", doc: "The difference, or what is opposite; of two times, a duration.", example: `attributes["http.status"] - 500`, want: `3`, calculate: subtract},
	{name: "*", doc: "The product.", example: `3 * 1.5`, want: `4.5`, calculate: multiply},
	{name: "/", doc: "The quotient, a floating-point number; empty when divided by zero.", example: `attributes["http.status"] / 2`, want: `251.5`, calculate: divide},
	{name: "%", doc: "The remainder of integers, with the sign of the left one; empty when divided by zero.", example: `attributes["http.status"] % 100`, want: `3`, calculate: modulo},
	{name: "**", doc: "The power, a floating-point number; also ^.", example: `2 ** 10`, want: `1024`, calculate: power},
	{name: "..", doc: "A range of integers, at the right of in.", example: `attributes["http.status"] in 500..599`, want: `true`},
	{name: "|", doc: "Hands the left side to a function as its first argument.", example: `attributes.user | upper()`, want: `"ANN"`},
	{name: "[:]", doc: "A part of a string, in bytes, or of a list. Negative places count from the end, and no character is cut.", example: `body[:3] + body[-7:]`, want: `"GETtimeout"`},
	{name: "[]", doc: "An entry of a map or an element of a list, from 0; negative ones count from the end. Also map.key.", example: `attributes.tags[-1]`, want: `"b"`},
	{name: "let", doc: "let name = value; … names a value for what follows.", example: `let s = attributes["http.status"]; s >= 500 && s < 600`, want: `true`},
}

// others are further spellings.
var others = map[string]string{"!": "not", "&&": "and", "||": "or", "^": "**"}

func operatorOf(name string) *operator {
	if o := others[name]; o != "" {
		name = o
	}
	for i := range operators {
		if operators[i].name == name {
			return &operators[i]
		}
	}
	return nil
}

func (c *compiler) unary(n *ast.UnaryNode) part {
	p := c.compile(n.Node)
	if operatorOf(n.Operator).name == "not" {
		c.want(n, p, boolean, "what is negated")
		test := p.asTest()
		return tested(func(r *Record) bool { return !test(r) })
	}
	c.want(n, p, number|span, "what is calculated with")
	if n.Operator == "+" {
		return p
	}
	value := p.asValue()
	return c.fold(n, valued(plain(p.kinds).wide()&(number|span), func(r *Record) creel.Value { return negate(value(r)) }), p)
}

// fold computes p at once if all that it is made of is fixed.
func (c *compiler) fold(n ast.Node, p part, of ...part) part {
	for _, o := range of {
		if !o.fixed {
			return p
		}
	}
	v := p.asValue()(&Record{})
	if v.Kind() == creel.ValueEmpty {
		c.fail(n, "this is always empty: %s", n)
	}
	return fixed(p.kinds, v)
}

func (c *compiler) binary(n *ast.BinaryNode) part {
	op := operatorOf(n.Operator)
	if op == nil || op.name == ".." {
		c.fail(n, "%s is not supported here", n.Operator)
	}
	c.depth-- // a long chain is not deep
	l := c.compile(n.Left)
	c.depth++
	if op.name == "in" {
		return c.in(n, l)
	}
	r := c.compile(n.Right)
	switch {
	case op.relation != 0:
		return c.comparison(n, op.relation, l, r)
	case op.search != nil:
		c.want(n.Left, l, text, "what is searched")
		c.want(n.Right, r, text, "what is searched for")
		return search(op.search, l, r)
	case op.calculate != nil:
		return c.arithmetic(n, op, l, r)
	}
	switch op.name {
	case "matches":
		c.want(n.Left, l, text, "what is matched")
		if !r.fixed || r.kinds != text {
			c.fail(n.Right, "the regular expression must be a constant string")
		}
		match, err := matcher(r.is.Str())
		if err != nil {
			c.fail(n.Right, "%v", err)
		}
		value := l.asValue()
		return tested(func(r *Record) bool {
			v := value(r)
			return v.Kind() == creel.ValueString && match(v.Str())
		})
	case "??":
		left, right := l.asValue(), r.asValue()
		k := l.kinds&^nothing | r.kinds
		if l.kinds == anything {
			k = anything
		}
		return valued(k, func(r *Record) creel.Value {
			if v := left(r); v.Kind() != creel.ValueEmpty {
				return v
			}
			return right(r)
		})
	}
	c.want(n.Left, l, boolean, "a condition")
	c.want(n.Right, r, boolean, "a condition")
	left, right := l.asTest(), r.asTest()
	if op.name == "and" {
		return tested(func(r *Record) bool { return left(r) && right(r) })
	}
	return tested(func(r *Record) bool { return left(r) || right(r) })
}

func search(found func(s, t string) bool, l, r part) part {
	left, right := l.asValue(), r.asValue()
	if r.fixed {
		t := r.is.Str()
		return tested(func(r *Record) bool {
			v := left(r)
			return v.Kind() == creel.ValueString && found(v.Str(), t)
		})
	}
	return tested(func(r *Record) bool {
		v, w := left(r), right(r)
		return v.Kind() == creel.ValueString && w.Kind() == creel.ValueString && found(v.Str(), w.Str())
	})
}

// in compiles the operator of that name.
func (c *compiler) in(n *ast.BinaryNode, l part) part {
	left := l.asValue()
	if b, ok := n.Right.(*ast.BinaryNode); ok && b.Operator == ".." {
		from, to := c.compile(b.Left), c.compile(b.Right)
		c.want(b.Left, from, integer, "an end of a range")
		c.want(b.Right, to, integer, "an end of a range")
		c.want(n.Left, l, number, "what is in a range")
		least, most := from.asValue(), to.asValue()
		return tested(func(r *Record) bool {
			v := left(r)
			return v.Kind() == creel.ValueInt && relate(v, least(r))&(greater|equal) != 0 && relate(v, most(r))&(less|equal) != 0
		})
	}
	right := c.compile(n.Right)
	c.want(n.Right, right, list|dict, "what is at the right of in")
	if right.kinds&list == 0 {
		c.want(n.Left, l, text, "a key of a map")
	}
	if right.fixed {
		for _, v := range right.is.List() {
			k := kinds(1) << v.Kind()
			if k == integer {
				k |= moment | span
			}
			if !l.kinds.meets(k) && k != nothing {
				c.fail(n.Right, "%v cannot be compared with %v%s", l.kinds, k, advice(l.kinds))
			}
			c.known(n.Right, l, fixed(k, v))
		}
		return oneOf(left, right.is.List())
	}
	value := right.asValue()
	return tested(func(r *Record) bool {
		v, of := left(r), value(r)
		if of.Kind() == creel.ValueMap {
			_, ok := of.Map().Get(v.Str())
			return ok && v.Kind() == creel.ValueString
		}
		return among(v, of.List())
	})
}

func among(v creel.Value, list []creel.Value) bool {
	for i := range list {
		if relate(v, list[i]) == equal {
			return true
		}
	}
	return false
}

// oneOf looks for a value in a constant list.
func oneOf(left eval, list []creel.Value) part {
	var texts []string
	var rest []creel.Value
	for _, v := range list {
		if v.Kind() == creel.ValueString {
			texts = append(texts, v.Str())
		} else {
			rest = append(rest, v)
		}
	}
	has := func(s string) bool { return slices.Contains(texts, s) }
	if len(texts) > 8 {
		set := make(map[string]bool, len(texts))
		for _, s := range texts {
			set[s] = true
		}
		has = func(s string) bool { return set[s] }
	}
	return tested(func(r *Record) bool {
		v := left(r)
		if v.Kind() == creel.ValueString {
			return has(v.Str())
		}
		return among(v, rest)
	})
}
