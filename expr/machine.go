package expr

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/creelhq/creel"
	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/vm"
)

// machine returns a function of expr-lang's, run by its virtual machine: the rarer ones, for which speed matters less.
// What it cannot do gives nothing. It panics if there is no such function: that is a bug.
func machine(name string, args int) func(*Record, []creel.Value) creel.Value {
	var names []string
	for i := range args {
		names = append(names, fmt.Sprintf("a%d", i))
	}
	program, err := expr.Compile(fmt.Sprintf("%s(%s)", name, strings.Join(names, ", ")))
	if err != nil {
		panic(fmt.Sprintf("BUG: compile %s: %v", name, err))
	}
	return func(_ *Record, a []creel.Value) creel.Value {
		env := make(map[string]any, len(a))
		for i := range a {
			env[names[i]] = export(a[i])
		}
		out, err := vm.Run(program, env)
		if err != nil {
			return creel.Value{}
		}
		return imported(out)
	}
}

// export returns v as the machine knows it.
func export(v creel.Value) any {
	switch v.Kind() {
	case creel.ValueString:
		return v.Str()
	case creel.ValueBool:
		return v.Bool()
	case creel.ValueInt:
		return int(v.Int())
	case creel.ValueDouble:
		return v.Double()
	case creel.ValueBytes:
		return v.Bytes()
	case creel.ValueList:
		out := make([]any, len(v.List()))
		for i, e := range v.List() {
			out[i] = export(e)
		}
		return out
	case creel.ValueMap:
		out := make(map[string]any, len(v.Map()))
		for _, e := range v.Map() {
			if _, ok := out[e.Key]; !ok { // the first counts, as everywhere
				out[e.Key] = export(e.Value)
			}
		}
		return out
	}
	return nil
}

// imported returns what the machine gave. Maps are sorted by key, as the machine keeps no order.
func imported(x any) creel.Value {
	switch x := x.(type) {
	case string:
		return creel.String(x)
	case bool:
		return creel.Bool(x)
	case int:
		return creel.Int(int64(x))
	case float64:
		return creel.Double(x)
	case []byte:
		return creel.Bytes(x)
	case []any:
		out := make([]creel.Value, len(x))
		for i := range x {
			out[i] = imported(x[i])
		}
		return creel.List(out...)
	case map[string]any:
		out := make(creel.Attrs, 0, len(x))
		for _, k := range slices.Sorted(maps.Keys(x)) {
			out = append(out, creel.Attr{Key: k, Value: imported(x[k])})
		}
		return creel.Map(out...)
	}
	return creel.Value{}
}
