package expr

import (
	"bytes"
	"math"
	"strings"

	"github.com/creelhq/creel"
	"github.com/expr-lang/expr/ast"
)

// relation is how two values stand to each other; none of them when one is empty.
type relation uint8

const (
	less relation = 1 << iota
	equal
	greater
	unlike // of different kinds, or not in any order

	unequal = less | greater | unlike
)

// comparison compiles == and its likes.
func (c *compiler) comparison(n *ast.BinaryNode, holds relation, l, r part) part {
	if l.kinds == nothing {
		l, r = r, l
	}
	left := l.asValue()
	if r.kinds == nothing {
		if holds != equal && holds != unequal {
			c.fail(n, "nil is only asked for with == and !=")
		}
		return tested(func(r *Record) bool { return (left(r).Kind() == creel.ValueEmpty) == (holds == equal) })
	}
	if !l.kinds.meets(r.kinds) {
		c.fail(n, "%v cannot be compared with %v%s", l.kinds, r.kinds, advice(l.kinds|r.kinds))
	}
	if holds != equal && holds != unequal {
		ordered := number | text | moment | span | level | binary
		c.want(n.Left, l, ordered, "what is compared")
		c.want(n.Right, r, ordered, "what is compared")
	}
	c.known(n.Right, l, r)
	c.known(n.Left, r, l)
	if l.fixed && !r.fixed {
		return against(r.asValue(), l.is, mirrored(holds))
	}
	if r.fixed {
		return against(left, r.is, holds)
	}
	right := r.asValue()
	return tested(func(r *Record) bool { return relate(left(r), right(r))&holds != 0 })
}

// advice says how to compare what has a kind of its own.
func advice(k kinds) string {
	switch {
	case k&level != 0:
		return "; severities are TRACE, DEBUG, INFO, WARN, ERROR, FATAL"
	case k&moment != 0:
		return `; a time is made by date("2006-01-02"), unix(seconds) or now()`
	case k&span != 0:
		return `; a duration is made like duration("1.5s")`
	}
	return ""
}

// known fails when p gives one of a few names, and o never does.
func (c *compiler) known(at ast.Node, p, o part) {
	if p.names == nil || !o.fixed {
		return
	}
	for _, name := range p.names {
		if name == o.is.Str() {
			return
		}
	}
	c.fail(at, "%s is none of %s", o.is.Append(nil), strings.Join(p.names, ", "))
}

// mirrored returns the relations with sides changed.
func mirrored(r relation) relation {
	out := r & (equal | unlike)
	if r&less != 0 {
		out |= greater
	}
	if r&greater != 0 {
		out |= less
	}
	return out
}

// against compares with a constant.
func against(left eval, is creel.Value, holds relation) part {
	switch is.Kind() {
	case creel.ValueString:
		s := is.Str()
		switch holds {
		case equal:
			return tested(func(r *Record) bool {
				v := left(r)
				return v.Kind() == creel.ValueString && v.Str() == s
			})
		case unequal:
			return tested(func(r *Record) bool {
				v := left(r)
				return v.Kind() != creel.ValueEmpty && (v.Kind() != creel.ValueString || v.Str() != s)
			})
		}
	case creel.ValueInt:
		n := is.Int()
		return tested(func(r *Record) bool {
			v := left(r)
			if v.Kind() == creel.ValueInt {
				return holds&order(v.Int(), n) != 0
			}
			return holds&relate(v, is) != 0
		})
	}
	return tested(func(r *Record) bool { return holds&relate(left(r), is) != 0 })
}

func order[T int64 | float64](a, b T) relation {
	switch {
	case a < b:
		return less
	case a > b:
		return greater
	case a == b:
		return equal
	}
	return unlike // NaN
}

// relate compares two values.
func relate(a, b creel.Value) relation {
	k, l := a.Kind(), b.Kind()
	switch {
	case k == creel.ValueEmpty || l == creel.ValueEmpty:
		return 0
	case k == creel.ValueInt && l == creel.ValueDouble:
		return mirrored(relateNumbers(b.Double(), a.Int()))
	case k == creel.ValueDouble && l == creel.ValueInt:
		return relateNumbers(a.Double(), b.Int())
	case k != l:
		return unlike
	}
	switch k {
	case creel.ValueInt:
		return order(a.Int(), b.Int())
	case creel.ValueDouble:
		return order(a.Double(), b.Double())
	case creel.ValueString:
		return order(int64(strings.Compare(a.Str(), b.Str())), 0)
	case creel.ValueBytes:
		return order(int64(bytes.Compare(a.Bytes(), b.Bytes())), 0)
	case creel.ValueList:
		return relateLists(a.List(), b.List())
	}
	if a.Equal(b) {
		return equal
	}
	return unlike
}

func relateLists(a, b []creel.Value) relation {
	if len(a) != len(b) {
		return unlike
	}
	for i := range a {
		if relate(a[i], b[i]) != equal && (a[i].Kind() != creel.ValueEmpty || b[i].Kind() != creel.ValueEmpty) {
			return unlike
		}
	}
	return equal
}

// relateNumbers compares exactly: an integer beyond 2^53 is not rounded.
func relateNumbers(f float64, i int64) relation {
	switch {
	case f != f:
		return unlike
	case f >= 1<<63:
		return greater
	case f < -1<<63:
		return less
	}
	whole := math.Trunc(f)
	if r := order(int64(whole), i); r != equal {
		return r
	}
	return order(f, whole)
}
