package expr

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/creelhq/creel"
	"github.com/expr-lang/expr/ast"
)

// call compiles a call of a function.
func (c *compiler) call(n ast.Node, name string, args []ast.Node) part {
	f := functionOf(name)
	if f == nil {
		c.fail(n, "there is no function %s%s", name, didYouMean(name, functionNames()))
	}
	if least, most := len(f.params)-f.optional, len(f.params); len(args) < least || len(args) > most && !f.repeated {
		c.fail(n, "it is %s, but has %d arguments here", f.usage, len(args))
	}
	if f.walks {
		return c.walk(f, args)
	}
	parts := make([]part, len(args))
	for i, a := range args {
		parts[i] = c.compile(a)
		c.want(a, parts[i], f.param(i), fmt.Sprintf("argument %d of %s", i+1, f.usage))
	}
	c.makes = c.makes || f.makes
	p := valued(f.result, c.caller(n, f, args, parts))
	if f.impure {
		return p
	}
	if (f.name == "max" || f.name == "min") && len(parts) > 0 && parts[0].kinds&^(number|moment|span) == 0 {
		p.kinds = parts[0].kinds
		for _, o := range parts {
			p.kinds |= o.kinds & f.result
		}
	}
	return c.fold(n, p, parts...)
}

func (f *function) param(i int) kinds { return f.params[min(i, len(f.params)-1)] }

// caller returns what evaluates the arguments and calls f.
func (c *compiler) caller(n ast.Node, f *function, args []ast.Node, parts []part) eval {
	call := f.call
	switch {
	case f.prepare != nil:
		var constant []creel.Value
		for i, p := range parts[1:] {
			if !p.fixed {
				c.fail(args[i+1], "argument %d of %s must be constant", i+2, f.usage)
			}
			constant = append(constant, p.is)
		}
		var err error
		if call, err = f.prepare(constant); err != nil {
			c.fail(args[min(1, len(args)-1)], "%v", err)
		}
		parts = parts[:1]
	case call == nil:
		call = machine(f.name, len(parts))
	case f.name == "string" && parts[0].kinds == moment:
		call = func(r *Record, a []creel.Value) creel.Value {
			var b [40]byte
			return r.copied(time.Unix(0, a[0].Int()).UTC().AppendFormat(b[:0], time.RFC3339Nano))
		}
	case f.name == "string" && parts[0].kinds == span:
		call = func(_ *Record, a []creel.Value) creel.Value { return creel.String(time.Duration(a[0].Int()).String()) }
	}
	values := make([]eval, len(parts))
	for i, p := range parts {
		values[i] = p.asValue()
	}
	return func(r *Record) creel.Value {
		base := len(r.args)
		for i, value := range values {
			v := value(r)
			if !f.param(i).has(v) {
				r.args = r.args[:base]
				return creel.Value{}
			}
			r.args = append(r.args, v)
		}
		v := call(r, r.args[base:])
		r.args = r.args[:base]
		return v
	}
}

// walk compiles a function that asks something of each element of a list.
func (c *compiler) walk(f *function, args []ast.Node) part {
	of := c.compile(args[0])
	c.want(args[0], of, list, fmt.Sprintf("argument 1 of %s", f.usage))
	slot := c.bind("#", anything)
	each := variable(slot, anything)
	if len(args) > 1 {
		each = c.compile(args[1].(*ast.PredicateNode).Node)
		c.want(args[1], each, f.params[1], fmt.Sprintf("argument 2 of %s", f.usage))
	}
	c.unbind()
	w := &walk{of: of.asValue(), slot: slot, test: each.asTest()}
	switch f.name {
	case "map":
		return valued(list, w.mapped(each.asValue()))
	case "filter":
		return valued(list, w.filtered)
	case "sum":
		return valued(number, w.summed(each.asValue()))
	case "all":
		test := w.test
		w.test = func(r *Record) bool { return !test(r) }
		return w.counted(1, func(n int) bool { return n == 0 })
	case "none":
		return w.counted(1, func(n int) bool { return n == 0 })
	case "any":
		return w.counted(1, func(n int) bool { return n == 1 })
	case "one":
		return w.counted(2, func(n int) bool { return n == 1 })
	case "count":
		return valued(integer, func(r *Record) creel.Value {
			n, _, ok := w.count(r, math.MaxInt)
			if !ok {
				return creel.Value{}
			}
			return creel.Int(int64(n))
		})
	case "findIndex":
		return valued(integer, func(r *Record) creel.Value {
			_, i, ok := w.count(r, 1)
			if !ok {
				return creel.Value{}
			}
			return creel.Int(int64(i))
		})
	}
	return valued(anything, func(r *Record) creel.Value { // find
		if n, _, _ := w.count(r, 1); n == 0 {
			return creel.Value{}
		}
		return r.vars[slot]
	})
}

// walk goes through a list.
type walk struct {
	of   eval
	slot int
	test func(*Record) bool
}

// set makes v, the i-th element, the current one.
func (w *walk) set(r *Record, i int, v creel.Value) {
	r.let(w.slot+1, creel.Int(int64(i)))
	r.vars[w.slot] = v
}

// count counts the elements that pass, up to a limit, and returns the index of the last of them, -1 for none. It is not
// ok when there is no list.
func (w *walk) count(r *Record, limit int) (n, last int, ok bool) {
	v := w.of(r)
	last = -1
	for i, e := range v.List() {
		w.set(r, i, e)
		if w.test(r) {
			if n, last = n+1, i; n == limit {
				break
			}
		}
	}
	return n, last, v.Kind() == creel.ValueList
}

func (w *walk) counted(limit int, holds func(n int) bool) part {
	return tested(func(r *Record) bool {
		n, _, ok := w.count(r, limit)
		return ok && holds(n)
	})
}

func (w *walk) filtered(r *Record) creel.Value {
	v := w.of(r)
	if v.Kind() != creel.ValueList {
		return creel.Value{}
	}
	kept := r.values(len(v.List()))[:0]
	for i, e := range v.List() {
		w.set(r, i, e)
		if w.test(r) {
			kept = append(kept, e)
		}
	}
	return creel.List(kept...)
}

func (w *walk) mapped(each eval) eval {
	return func(r *Record) creel.Value {
		v := w.of(r)
		if v.Kind() != creel.ValueList {
			return creel.Value{}
		}
		out := r.values(len(v.List()))
		for i, e := range v.List() {
			w.set(r, i, e)
			out[i] = each(r)
		}
		return creel.List(out...)
	}
}

func (w *walk) summed(each eval) eval {
	return func(r *Record) creel.Value {
		v := w.of(r)
		if v.Kind() != creel.ValueList {
			return creel.Value{}
		}
		total := creel.Int(0)
		for i, e := range v.List() {
			w.set(r, i, e)
			total = add(total, each(r))
		}
		return total
	}
}

func functionNames() (names []string) {
	for i := range functions {
		names = append(names, functions[i].name)
	}
	return names
}

// identifiers returns what can stand alone.
func identifiers() []string {
	names := strings.Fields("TRACE DEBUG INFO WARN ERROR FATAL true false nil")
	for i := range fields {
		names = append(names, fields[i].name)
	}
	return names
}
