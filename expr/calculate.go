package expr

import (
	"math"
	"math/bits"

	"github.com/creelhq/creel"
	"github.com/expr-lang/expr/ast"
)

// arithmetic compiles + and its likes.
func (c *compiler) arithmetic(n *ast.BinaryNode, op *operator, l, r part) part {
	k := result(op.name, l.kinds, r.kinds)
	if k == 0 {
		c.fail(n, "%v %s %v has no meaning", l.kinds, op.name, r.kinds)
	}
	left, right, calculate := l.asValue(), r.asValue(), op.calculate
	if op.name == "+" && k&text != 0 {
		c.makes = true
		return c.fold(n, valued(k, func(r *Record) creel.Value {
			a, b := left(r), right(r)
			if a.Kind() == creel.ValueString && b.Kind() == creel.ValueString {
				return r.join(a.Str(), b.Str())
			}
			return add(a, b)
		}), l, r)
	}
	if k == span { // duration * 1.5
		return c.fold(n, valued(k, func(r *Record) creel.Value { return whole(calculate(left(r), right(r))) }), l, r)
	}
	return c.fold(n, valued(k, func(r *Record) creel.Value { return calculate(left(r), right(r)) }), l, r)
}

// whole returns a number without its fraction, as an integer; empty if it is none or too large.
func whole(v creel.Value) creel.Value {
	if v.Kind() != creel.ValueDouble {
		return v
	}
	if f := v.Double(); f >= -1<<63 && f < 1<<63 {
		return creel.Int(int64(f))
	}
	return creel.Value{}
}

// rules say what calculations give, beside numbers that give numbers.
var rules = []struct {
	op      string
	l, r, k kinds
}{
	{"+", text, text, text},
	{"+", moment, span, moment}, {"+", span, moment, moment}, {"+", span, span, span},
	{"-", moment, moment, span}, {"-", moment, span, moment}, {"-", span, span, span},
	{"*", span, number, span}, {"*", number, span, span},
	{"/", span, number, span}, {"/", span, span, double},
}

// result returns what an operator gives for what; 0 when it has no meaning. What may be anything is no time or duration by
// itself, but is taken for one beside one.
func result(op string, l, r kinds) (k kinds) {
	if both := l & r; l|r == anything && both != 0 && both&^(moment|span) == 0 && (op == "+" || op == "-") {
		return anything
	}
	l, r = plain(l), plain(r)
	for _, rule := range rules {
		if rule.op == op && rule.l&l != 0 && rule.r&r != 0 {
			k |= rule.k
		}
	}
	switch {
	case l&number == 0 || r&number == 0:
	case op == "%":
		k |= l & r & integer
	case op == "/" || op == "**":
		k |= double
	case l&double == 0 && r&double == 0:
		k |= integer
	case l&integer == 0 || r&integer == 0:
		k |= double
	default:
		k |= number
	}
	return k
}

func plain(k kinds) kinds {
	if k == anything {
		return k &^ (moment | span)
	}
	return k
}

func add(a, b creel.Value) creel.Value {
	if a.Kind() == creel.ValueInt && b.Kind() == creel.ValueInt {
		x, y := a.Int(), b.Int()
		if s := x + y; (s > x) == (y > 0) {
			return creel.Int(s)
		}
		return creel.Value{}
	}
	return floats(a, b, func(x, y float64) float64 { return x + y })
}

func subtract(a, b creel.Value) creel.Value {
	if a.Kind() == creel.ValueInt && b.Kind() == creel.ValueInt {
		x, y := a.Int(), b.Int()
		if d := x - y; (d < x) == (y > 0) {
			return creel.Int(d)
		}
		return creel.Value{}
	}
	return floats(a, b, func(x, y float64) float64 { return x - y })
}

func negate(v creel.Value) creel.Value {
	if v.Kind() == creel.ValueDouble {
		return creel.Double(-v.Double()) // of 0 as well
	}
	return subtract(creel.Int(0), v)
}

func multiply(a, b creel.Value) creel.Value {
	if a.Kind() == creel.ValueInt && b.Kind() == creel.ValueInt {
		x, y := a.Int(), b.Int()
		hi, lo := bits.Mul64(magnitude(x), magnitude(y))
		switch negative := (x < 0) != (y < 0); {
		case hi != 0 || lo > 1<<63 || lo == 1<<63 && !negative:
			return creel.Value{}
		}
		return creel.Int(x * y)
	}
	return floats(a, b, func(x, y float64) float64 { return x * y })
}

func magnitude(x int64) uint64 {
	if x < 0 {
		return -uint64(x)
	}
	return uint64(x)
}

func divide(a, b creel.Value) creel.Value {
	return floats(a, b, func(x, y float64) float64 { return x / y })
}

func power(a, b creel.Value) creel.Value { return floats(a, b, math.Pow) }

func modulo(a, b creel.Value) creel.Value {
	if a.Kind() != creel.ValueInt || b.Kind() != creel.ValueInt || b.Int() == 0 {
		return creel.Value{}
	}
	return creel.Int(a.Int() % b.Int())
}

// floats calculates with floating-point numbers. What gives no finite number is empty.
func floats(a, b creel.Value, f func(x, y float64) float64) creel.Value {
	x, ok := float(a)
	y, ok2 := float(b)
	if !ok || !ok2 {
		return creel.Value{}
	}
	z := f(x, y)
	if math.IsNaN(z) || math.IsInf(z, 0) {
		return creel.Value{}
	}
	return creel.Double(z)
}

func float(v creel.Value) (float64, bool) {
	switch v.Kind() {
	case creel.ValueInt:
		return float64(v.Int()), true
	case creel.ValueDouble:
		return v.Double(), true
	}
	return 0, false
}
