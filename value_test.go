package creel_test

import (
	"encoding/json"
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/creelhq/creel"
)

func drawValue(t *rapid.T, depth int) creel.Value {
	kinds := 7
	if depth == 0 {
		kinds = 5
	}
	switch rapid.IntRange(0, kinds).Draw(t, "kind") {
	case 0:
		return creel.String(rapid.String().Draw(t, "string"))
	case 1:
		return creel.Bool(rapid.Bool().Draw(t, "bool"))
	case 2:
		return creel.Int(rapid.Int64().Draw(t, "int"))
	case 3:
		return creel.Double(rapid.Float64().Draw(t, "double"))
	case 4:
		return creel.Bytes(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes"))
	case 6:
		var list []creel.Value
		for range rapid.IntRange(0, 3).Draw(t, "items") {
			list = append(list, drawValue(t, depth-1))
		}
		return creel.List(list...)
	case 7:
		var m creel.Attrs
		for range rapid.IntRange(0, 3).Draw(t, "entries") {
			m.Set(rapid.StringN(0, 3, -1).Draw(t, "key"), drawValue(t, depth-1))
		}
		return creel.Map(m...)
	}
	return creel.Value{}
}

func TestValueClonesEqualAndIsJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := drawValue(t, 3)
		if !v.Clone().Equal(v) {
			t.Fatalf("the clone of %v differs", v)
		}
		if text := v.Append(nil); v.Kind() != creel.ValueString && !json.Valid(text) {
			t.Fatalf("%q is not JSON", text)
		}
	})
}

func TestAttrsKeepOrderAndLookUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var a creel.Attrs
		model, order := map[string]int64{}, []string{}
		for i := range rapid.IntRange(0, 30).Draw(t, "steps") {
			key := rapid.StringOfN(rapid.RuneFrom([]rune("abc")), 1, 1, -1).Draw(t, "key")
			if rapid.Bool().Draw(t, "set") {
				if _, ok := model[key]; !ok {
					order = append(order, key)
				}
				model[key] = int64(i)
				a.Set(key, creel.Int(int64(i)))
				continue
			}
			_, had := model[key]
			if a.Delete(key) != had {
				t.Fatalf("deleting %q says the wrong thing", key)
			}
			delete(model, key)
			for i, k := range order {
				if k == key {
					order = append(order[:i], order[i+1:]...)
					break
				}
			}
		}
		if len(a) != len(order) {
			t.Fatalf("%v has not the keys %v", a, order)
		}
		for i, k := range order {
			if v, ok := a.Get(k); a[i].Key != k || !ok || v.Int() != model[k] {
				t.Fatalf("attribute %d is %v, want %s=%d", i, a[i], k, model[k])
			}
		}
	})
}

func TestSpecialDoubles(t *testing.T) {
	if !creel.Double(math.NaN()).Equal(creel.Double(math.NaN())) {
		t.Error("NaN differs from itself, so that a copy seems changed")
	}
	for _, f := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		if text := creel.List(creel.Double(f)).Append(nil); !json.Valid(text) {
			t.Errorf("%v becomes %s, which is not JSON", f, text)
		}
	}
}
