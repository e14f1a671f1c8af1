package trial

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/creelhq/creel"
)

// compareLists compares two lists of records. Those that fit are paired so that as many as possible are (a longest common
// subsequence), so that one which is missing does not make all others look wrong; the rest is compared in its order.
func compareLists(expected []record, got []arrival) (problems []Problem) {
	wanted := make([][]field, len(expected))
	for i := range expected {
		wanted[i] = expected[i].named()
	}
	longest := make([][]int, len(expected)+1) // [i][j]: pairs of expected[i:] and got[j:]
	longest[len(expected)] = make([]int, len(got)+1)
	fits := make([][]bool, len(expected))
	for i := len(expected) - 1; i >= 0; i-- {
		longest[i], fits[i] = make([]int, len(got)+1), make([]bool, len(got))
		for j := len(got) - 1; j >= 0; j-- {
			longest[i][j] = max(longest[i+1][j], longest[i][j+1])
			if fits[i][j] = len(differ(wanted[i], got[j])) == 0; fits[i][j] {
				longest[i][j] = max(longest[i][j], 1+longest[i+1][j+1])
			}
		}
	}
	i, j := 0, 0
	for i < len(expected) || j < len(got) {
		k, l := i, j // up to the next pair
		for k < len(expected) && l < len(got) && !(fits[k][l] && longest[k][l] == 1+longest[k+1][l+1]) {
			if longest[k][l] == longest[k+1][l] {
				k++
			} else {
				l++
			}
		}
		if k == len(expected) || l == len(got) {
			k, l = len(expected), len(got)
		}
		for ; i < k || j < l; i, j = min(i+1, k), min(j+1, l) {
			switch {
			case j == l:
				problems = append(problems, Problem{Record: i + 1, Expected: expected[i].text, Message: "is missing"})
			case i == k:
				problems = append(problems, Problem{Record: j + 1, Got: got[j].text, Message: "is not expected"})
			default:
				for _, p := range differ(wanted[i], got[j]) {
					p.Record = j + 1
					problems = append(problems, p)
				}
			}
		}
		i, j = k+1, l+1
	}
	return problems
}

// differ returns the named fields that are not as expected.
func differ(wanted []field, got arrival) (problems []Problem) {
	for _, want := range wanted {
		has := field{name: want.name}
		if i := slices.IndexFunc(got.fields, func(f field) bool { return f.name == want.name }); i >= 0 {
			has = got.fields[i]
		}
		problems = append(problems, differField(want, has)...)
	}
	return problems
}

// named returns what the record says in the file: all that is compared.
func (r record) named() []field {
	var options map[string]json.RawMessage
	mustJSON(r.canonical, &options)
	if _, scalar := options["body"]; scalar && len(options) == 1 {
		return []field{{"body", valueOf(options["body"])}}
	}
	var fields []field
	for key, n := range r.node.Entries() {
		if key != "scope" {
			fields = append(fields, field{key, optionValue(key, options[key])})
			continue
		}
		var inner map[string]json.RawMessage
		mustJSON(options[key], &inner)
		for key := range n.Entries() {
			fields = append(fields, field{"scope." + key, optionValue("", inner[key])})
		}
	}
	return fields
}

// optionValue returns the value of one option as fieldsOf has it.
func optionValue(key string, canonical json.RawMessage) creel.Value {
	v := valueOf(canonical)
	switch key {
	case "value", "sum", "min", "max":
		return numberOf(v.Str())
	case "duration":
		if d, err := time.ParseDuration(v.Str()); err == nil {
			return text(d.String())
		}
	}
	return v
}

// differField compares one field. Of attributes, those that are named are.
func differField(want, got field) (problems []Problem) {
	attributes := want.name == "attributes" || want.name == "resource" || want.name == "scope.attributes"
	switch {
	case want.silent() && want.value.Kind() != creel.ValueMap:
		if got.silent() {
			return nil
		}
	case !attributes:
		if same(want.value, got.value) {
			return nil
		}
	default:
		for _, a := range want.value.Map() {
			v, there := got.value.Map().Get(a.Key)
			if absent := a.Value.Kind() == creel.ValueEmpty; absent == there || there && !same(a.Value, v) {
				p := Problem{Field: want.name + "." + a.Key, Expected: string(a.Value.Append(nil)), Got: string(v.Append(nil))}
				if absent {
					p.Expected = ""
				}
				if !there {
					p.Got = ""
				}
				problems = append(problems, p)
			}
		}
		return problems
	}
	p := Problem{Field: want.name}
	if !want.silent() {
		p.Expected = string(want.value.Append(nil))
	}
	if !got.silent() {
		p.Got = string(got.value.Append(nil))
	}
	return []Problem{p}
}

// same reports whether two values mean the same: an integer equals a double of its value, and the order of a map's
// entries does not matter.
func same(want, got creel.Value) bool {
	switch {
	case want.Kind() == creel.ValueInt && got.Kind() == creel.ValueDouble:
		return sameNumber(want.Int(), got.Double())
	case want.Kind() == creel.ValueDouble && got.Kind() == creel.ValueInt:
		return sameNumber(got.Int(), want.Double())
	case want.Kind() == creel.ValueDouble && got.Kind() == creel.ValueDouble:
		return want.Double() == got.Double()
	case want.Kind() != got.Kind():
		return false
	case want.Kind() == creel.ValueList:
		return slices.EqualFunc(want.List(), got.List(), same)
	case want.Kind() == creel.ValueMap:
		if len(want.Map()) != len(got.Map()) {
			return false
		}
		for _, a := range want.Map() {
			if v, there := got.Map().Get(a.Key); !there || !same(a.Value, v) {
				return false
			}
		}
		return true
	}
	return want.Equal(got)
}

// sameNumber compares without rounding: beyond 2^53 not every integer is a double.
func sameNumber(i int64, f float64) bool { return float64(i) == f && f < 1<<63 && int64(f) == i }

// lineLength is what one line of a problem may have.
const lineLength = 110

// String says the problem in one line or, if that becomes too long, with the values below each other.
func (p Problem) String() string {
	at := slices.Clone(p.Exporters)
	if p.Record > 0 {
		at = append(at, fmt.Sprintf("record %d", p.Record))
	}
	if p.Field != "" {
		at = append(at, p.Field)
	}
	place := strings.Join(at, ", ")
	switch {
	case p.Message != "" && place == "":
		return p.Message
	case p.Message != "":
		return place + " " + p.Message + ": " + p.Expected + p.Got
	}
	expected, got := orNothing(p.Expected), orNothing(p.Got)
	if len(place)+len(expected)+len(got) < lineLength {
		return fmt.Sprintf("%s: expected %s, got %s", place, expected, got)
	}
	return fmt.Sprintf("%s:\n  expected %s\n  got      %s", place, expected, got)
}

func orNothing(json string) string {
	if json == "" {
		return "nothing"
	}
	return json
}
