package expr

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
	"unsafe"

	"github.com/creelhq/creel"
)

// function is one function. An argument that cannot be what params say fails at load if that is known by then, else the
// result is empty: so call sees only what it can use.
type function struct {
	name, usage, doc string
	example, want    string
	params           []kinds
	optional         int  // how many of the last may be left out
	repeated         bool // the last may be given more often
	result           kinds
	makes            bool // it makes strings
	impure           bool // it may give another result for the same arguments
	walks            bool // the last argument is asked of each element: see compiler.walk

	// One of these computes it. With neither, and unless it walks, expr-lang's own function of that name does.
	call    func(r *Record, a []creel.Value) creel.Value
	prepare func(constant []creel.Value) (func(r *Record, a []creel.Value) creel.Value, error) // all but the first are constant
}

// maxMade is the most bytes of a string that is made; it is empty when it would be longer.
const maxMade = 16 << 20

var functions = []function{
	// Strings.
	{name: "lower", usage: "lower(text)", doc: "In lower case.", example: `lower("ÄBC")`, want: `"äbc"`, params: []kinds{text}, result: text, makes: true,
		call: func(r *Record, a []creel.Value) creel.Value { return r.recased(a[0], 'A', 'Z', strings.ToLower) }},
	{name: "upper", usage: "upper(text)", doc: "In upper case.", example: `upper(attributes.user)`, want: `"ANN"`, params: []kinds{text}, result: text, makes: true,
		call: func(r *Record, a []creel.Value) creel.Value { return r.recased(a[0], 'a', 'z', strings.ToUpper) }},
	{name: "trim", usage: "trim(text, characters?)", doc: "Without white space, or the given characters, at both ends.", example: `trim("  x ") + trim("--y-", "-")`, want: `"xy"`, params: []kinds{text, text}, optional: 1, result: text,
		call: func(_ *Record, a []creel.Value) creel.Value {
			if len(a) == 1 {
				return creel.String(strings.TrimSpace(a[0].Str()))
			}
			return creel.String(strings.Trim(a[0].Str(), a[1].Str()))
		}},
	{name: "trimPrefix", usage: "trimPrefix(text, prefix)", doc: "Without the prefix, if it has it.", example: `trimPrefix("/api/cart", "/api")`, want: `"/cart"`, params: []kinds{text, text}, result: text,
		call: func(_ *Record, a []creel.Value) creel.Value {
			return creel.String(strings.TrimPrefix(a[0].Str(), a[1].Str()))
		}},
	{name: "trimSuffix", usage: "trimSuffix(text, suffix)", doc: "Without the suffix, if it has it.", example: `trimSuffix("access.log", ".log")`, want: `"access"`, params: []kinds{text, text}, result: text,
		call: func(_ *Record, a []creel.Value) creel.Value {
			return creel.String(strings.TrimSuffix(a[0].Str(), a[1].Str()))
		}},
	{name: "hasPrefix", usage: "hasPrefix(text, prefix)", doc: "The same as startsWith.", example: `hasPrefix(body, "GET")`, want: `true`, params: []kinds{text, text}, result: boolean,
		call: func(_ *Record, a []creel.Value) creel.Value {
			return creel.Bool(strings.HasPrefix(a[0].Str(), a[1].Str()))
		}},
	{name: "hasSuffix", usage: "hasSuffix(text, suffix)", doc: "The same as endsWith.", example: `hasSuffix(body, "timeout")`, want: `true`, params: []kinds{text, text}, result: boolean,
		call: func(_ *Record, a []creel.Value) creel.Value {
			return creel.Bool(strings.HasSuffix(a[0].Str(), a[1].Str()))
		}},
	{name: "indexOf", usage: "indexOf(text, part)", doc: "Where the part first begins, in bytes; -1 if it is not there.", example: `indexOf("a=b=c", "=")`, want: `1`, params: []kinds{text, text}, result: integer,
		call: func(_ *Record, a []creel.Value) creel.Value {
			return creel.Int(int64(strings.Index(a[0].Str(), a[1].Str())))
		}},
	{name: "lastIndexOf", usage: "lastIndexOf(text, part)", doc: "Where the part last begins, in bytes; -1 if it is not there.", example: `lastIndexOf("a=b=c", "=")`, want: `3`, params: []kinds{text, text}, result: integer,
		call: func(_ *Record, a []creel.Value) creel.Value {
			return creel.Int(int64(strings.LastIndex(a[0].Str(), a[1].Str())))
		}},
	{name: "replace", usage: "replace(text, old, new, most?)", doc: "With every old, or at most so many, replaced by new.", example: `replace("a-b-c", "-", "+")`, want: `"a+b+c"`, params: []kinds{text, text, text, integer}, optional: 1, result: text, call: replaced},
	{name: "repeat", usage: "repeat(text, times)", doc: "So many times.", example: `repeat("ab", 3)`, want: `"ababab"`, params: []kinds{text, integer}, result: text,
		call: func(_ *Record, a []creel.Value) creel.Value {
			s, n := a[0].Str(), a[1].Int()
			if n < 0 || n > maxMade || n*int64(len(s)) > maxMade {
				return creel.Value{}
			}
			return creel.String(strings.Repeat(s, int(n)))
		}},
	{name: "split", usage: "split(text, separator, most?)", doc: "The list of the parts between separators, or of at most so many.", example: `split("a,b,c", ",")`, want: `["a","b","c"]`, params: []kinds{text, text, integer}, optional: 1, result: list, call: splitted},
	{name: "join", usage: "join(list, separator?)", doc: "A list's strings, one after the other.", example: `join(attributes.tags, "+")`, want: `"a+b"`, params: []kinds{list, text}, optional: 1, result: text, makes: true, call: joined},
	{name: "extract", usage: "extract(text, pattern, group?)", doc: "What a group of a regular expression (RE2), by number or name, matches first; the first group, or all if there is none. Pattern and group are constant.", example: `extract(body, "GET /(\\w+)")`, want: `"cart"`, params: []kinds{text, text, integer | text}, optional: 1, result: text, prepare: extractor},
	{name: "len", usage: "len(of)", doc: "The number of bytes of a string, of elements of a list, of entries of a map.", example: `len(attributes.tags)`, want: `2`, params: []kinds{text | binary | list | dict}, result: integer, call: length},

	// Hashes and encodings.
	{name: "sha256", usage: "sha256(text)", doc: "The SHA-256 hash, in hexadecimal.", example: `sha256("ann")[:16]`, want: `"49915e0d7d4b402e"`, params: []kinds{text | binary}, result: text, makes: true,
		call: func(r *Record, a []creel.Value) creel.Value {
			sum := sha256.Sum256(bytesOf(a[0]))
			return r.hex(sum[:])
		}},
	{name: "hash", usage: "hash(text)", doc: "A quick hash (FNV-1a, 63 bits of it), to sample or to shard by.", example: `hash(attributes.user) % 1000`, want: `468`, params: []kinds{text | binary}, result: integer,
		call: func(_ *Record, a []creel.Value) creel.Value {
			h := uint64(14695981039346656037)
			for _, b := range bytesOf(a[0]) {
				h = (h ^ uint64(b)) * 1099511628211
			}
			return creel.Int(int64(h >> 1))
		}},
	{name: "toBase64", usage: "toBase64(text)", doc: "In base64.", example: `toBase64("ann")`, want: `"YW5u"`, params: []kinds{text | binary}, result: text, makes: true,
		call: func(r *Record, a []creel.Value) creel.Value {
			b := bytesOf(a[0])
			s := r.make(base64.StdEncoding.EncodedLen(len(b)))
			base64.StdEncoding.Encode(s, b)
			return r.text(s)
		}},
	{name: "fromBase64", usage: "fromBase64(text)", doc: "Decoded from base64; empty if it is none.", example: `fromBase64("YW5u")`, want: `"ann"`, params: []kinds{text}, result: text, makes: true,
		call: func(r *Record, a []creel.Value) creel.Value {
			s := a[0].Str()
			b := r.make(base64.StdEncoding.DecodedLen(len(s)))
			n, err := base64.StdEncoding.Decode(b, bytesOf(a[0]))
			if err != nil {
				return creel.Value{}
			}
			return r.text(b[:n])
		}},
	{name: "urlDecode", usage: "urlDecode(text)", doc: "With %-escapes and + of a URL's query decoded; empty if they are wrong.", example: `urlDecode("a%20b+c")`, want: `"a b c"`, params: []kinds{text}, result: text,
		call: func(_ *Record, a []creel.Value) creel.Value {
			s, err := url.QueryUnescape(a[0].Str())
			if err != nil {
				return creel.Value{}
			}
			return creel.String(s)
		}},
	{name: "toJSON", usage: "toJSON(value)", doc: "As JSON, on one line.", example: `toJSON(attributes.tags)`, want: `"[\"a\",\"b\"]"`, params: []kinds{anything}, result: text, makes: true,
		call: func(r *Record, a []creel.Value) creel.Value {
			b := a[0].Append(r.make(0))
			return creel.String(string(b))
		}},
	{name: "fromJSON", usage: "fromJSON(text)", doc: "What JSON stands for, numbers in floating point; empty if it is none.", example: `fromJSON("{\"a\": [1]}").a[0]`, want: `1`, params: []kinds{text}, result: anything},

	// Conversions.
	{name: "int", usage: "int(value)", doc: "A number without its fraction, or a decimal string, as an integer; empty if it is none or too large.", example: `int("42") + int(1.9)`, want: `43`, params: []kinds{number | text | boolean | moment | span}, result: integer, call: toInt},
	{name: "float", usage: "float(value)", doc: "A number, or a decimal string, as a floating-point number; empty if it is none.", example: `float("1.5")`, want: `1.5`, params: []kinds{number | text}, result: double, call: toFloat},
	{name: "string", usage: "string(value)", doc: "As a string: a time in RFC 3339, a duration like 1.5s, lists and maps as JSON, what is empty stays so.", example: `string(42) + string(true)`, want: `"42true"`, params: []kinds{anything &^ nothing}, result: text, makes: true, call: toString},
	{name: "bool", usage: "bool(value)", doc: "A boolean, the strings true and false, or a number (0 is false); empty for others.", example: `bool("true")`, want: `true`, params: []kinds{boolean | text | number}, result: boolean | nothing, call: toBool},
	{name: "type", usage: "type(value)", doc: "What there is: empty, string, bool, int, double, bytes, list or map.", example: `type(attributes.nobody) + " " + type(body)`, want: `"empty string"`, params: []kinds{anything}, result: text,
		call: func(_ *Record, a []creel.Value) creel.Value { return creel.String(a[0].Kind().String()) }},

	// Numbers.
	{name: "abs", usage: "abs(number)", doc: "Without its sign.", example: `abs(-3)`, want: `3`, params: []kinds{number}, result: number,
		call: func(_ *Record, a []creel.Value) creel.Value {
			if f, _ := float(a[0]); f < 0 {
				return negate(a[0])
			}
			return a[0]
		}},
	{name: "ceil", usage: "ceil(number)", doc: "The least whole number that is not less.", example: `ceil(1.2)`, want: `2`, params: []kinds{number}, result: number, call: rounded(math.Ceil)},
	{name: "floor", usage: "floor(number)", doc: "The greatest whole number that is not greater.", example: `floor(1.7)`, want: `1`, params: []kinds{number}, result: number, call: rounded(math.Floor)},
	{name: "round", usage: "round(number)", doc: "The nearest whole number, away from zero when there are two.", example: `round(1.5)`, want: `2`, params: []kinds{number}, result: number, call: rounded(math.Round)},
	{name: "max", usage: "max(number, …)", doc: "The greatest, of what is given or is in a list.", example: `max(1, 3, 2)`, want: `3`, params: []kinds{number | list | moment | span}, repeated: true, result: number | moment | span, call: extreme(greater)},
	{name: "min", usage: "min(number, …)", doc: "The least, of what is given or is in a list.", example: `min([4, 2.5])`, want: `2.5`, params: []kinds{number | list | moment | span}, repeated: true, result: number | moment | span, call: extreme(less)},

	// Times.
	{name: "now", usage: "now()", doc: "The time, the same for all records of a batch.", example: `now() > date("2026-01-01")`, want: `true`, result: moment, impure: true,
		call: func(r *Record, _ []creel.Value) creel.Value { return creel.Int(r.now()) }},
	{name: "date", usage: "date(text, layout?, zone?)", doc: "The time that is written, by default in RFC 3339 or as 2006-01-02 15:04:05, with or without the hours; the layout is Go's, the zone is for texts that name none. Layout and zone are constant.", example: `date("24.11.2026 13:00", "02.01.2006 15:04", "Europe/Berlin") == date("2026-11-24 12:00:00")`, want: `true`, params: []kinds{text, text, text}, optional: 2, result: moment, prepare: dateParser},
	{name: "unix", usage: "unix(seconds)", doc: "The time that is so many seconds, or parts of them, after 1970.", example: `unix(1770000000) == date("2026-02-02T02:40:00Z")`, want: `true`, params: []kinds{number}, result: moment,
		call: func(_ *Record, a []creel.Value) creel.Value { return whole(multiply(a[0], creel.Int(1e9))) }},
	{name: "duration", usage: "duration(text)", doc: "A duration such as 1h30m or 250ms.", example: `duration("1m") == duration("60s")`, want: `true`, params: []kinds{text}, result: span,
		call: func(_ *Record, a []creel.Value) creel.Value {
			d, err := time.ParseDuration(a[0].Str())
			if err != nil {
				return creel.Value{}
			}
			return creel.Int(int64(d))
		}},
	{name: "seconds", usage: "seconds(time)", doc: "A time, as seconds since 1970, or a duration, in seconds; floating-point.", example: `seconds(duration("1.5s"))`, want: `1.5`, params: []kinds{moment | span}, result: double,
		call: func(_ *Record, a []creel.Value) creel.Value { return divide(a[0], creel.Int(1e9)) }},
	{name: "format", usage: "format(time, layout, zone?)", doc: "A time as Go's layout says, in UTC or the given zone. Layout and zone are constant.", example: `format(date("2026-11-24"), "Jan 2")`, want: `"Nov 24"`, params: []kinds{moment, text, text}, optional: 1, result: text, makes: true, prepare: dateFormat},

	// Lists and maps.
	{name: "first", usage: "first(list)", doc: "The first element.", example: `first(attributes.tags)`, want: `"a"`, params: []kinds{list}, result: anything,
		call: func(_ *Record, a []creel.Value) creel.Value { return item(a[0], creel.Int(0)) }},
	{name: "last", usage: "last(list)", doc: "The last element.", example: `last(attributes.tags)`, want: `"b"`, params: []kinds{list}, result: anything,
		call: func(_ *Record, a []creel.Value) creel.Value { return item(a[0], creel.Int(-1)) }},
	{name: "keys", usage: "keys(map)", doc: "The keys of a map, in its order.", example: `keys(resource)`, want: `["service.name","zone"]`, params: []kinds{dict}, result: list,
		call: func(r *Record, a []creel.Value) creel.Value {
			vs := r.values(len(a[0].Map()))
			for i, e := range a[0].Map() {
				vs[i] = creel.String(e.Key)
			}
			return creel.List(vs...)
		}},
	{name: "values", usage: "values(map)", doc: "The values of a map, in its order.", example: `values(resource)`, want: `["cart","eu"]`, params: []kinds{dict}, result: list,
		call: func(r *Record, a []creel.Value) creel.Value {
			vs := r.values(len(a[0].Map()))
			for i, e := range a[0].Map() {
				vs[i] = e.Value
			}
			return creel.List(vs...)
		}},
	{name: "any", usage: "any(list, condition)", doc: "The condition holds for an element, which is #.", example: `any(attributes.tags, # == "b")`, want: `true`, params: []kinds{list, boolean}, result: boolean, walks: true},
	{name: "all", usage: "all(list, condition)", doc: "The condition holds for all elements.", example: `all([1, 2], # > 0)`, want: `true`, params: []kinds{list, boolean}, result: boolean, walks: true},
	{name: "none", usage: "none(list, condition)", doc: "The condition holds for no element.", example: `none([1, 2], # > 2)`, want: `true`, params: []kinds{list, boolean}, result: boolean, walks: true},
	{name: "one", usage: "one(list, condition)", doc: "The condition holds for exactly one element.", example: `one([1, 2], # > 1)`, want: `true`, params: []kinds{list, boolean}, result: boolean, walks: true},
	{name: "count", usage: "count(list, condition?)", doc: "The number of elements for which the condition holds; without one, that are true.", example: `count(attributes.tags, # != "a")`, want: `1`, params: []kinds{list, boolean}, optional: 1, result: integer, walks: true},
	{name: "find", usage: "find(list, condition)", doc: "The first element for which the condition holds.", example: `find([1, 5, 7], # > 3)`, want: `5`, params: []kinds{list, boolean}, result: anything, walks: true},
	{name: "findIndex", usage: "findIndex(list, condition)", doc: "The index of the first element for which the condition holds; -1 if there is none.", example: `findIndex([1, 5, 7], # > 3)`, want: `1`, params: []kinds{list, boolean}, result: integer, walks: true},
	{name: "filter", usage: "filter(list, condition)", doc: "The elements for which the condition holds; #index is an element's index.", example: `filter([1, 5, 7], # > 3 && #index < 2)`, want: `[5]`, params: []kinds{list, boolean}, result: list, walks: true},
	{name: "map", usage: "map(list, expression)", doc: "What the expression gives for each element.", example: `map(attributes.tags, upper(#))`, want: `["A","B"]`, params: []kinds{list, anything}, result: list, walks: true},
	{name: "sum", usage: "sum(list, expression?)", doc: "The sum of the elements, or of what the expression gives for each.", example: `sum([1, 2, 3.5])`, want: `6.5`, params: []kinds{list, number}, optional: 1, result: number, walks: true},
	{name: "mean", usage: "mean(list)", doc: "The average.", example: `mean([1, 2, 6])`, want: `3`, params: []kinds{list}, result: number},
	{name: "median", usage: "median(list)", doc: "The middle one of the sorted elements.", example: `median([9, 1, 2])`, want: `2`, params: []kinds{list}, result: number},
	{name: "reverse", usage: "reverse(list)", doc: "From the last to the first.", example: `reverse([1, 2, 3])`, want: `[3,2,1]`, params: []kinds{list}, result: list},
	{name: "sort", usage: "sort(list, order?)", doc: "In ascending order, or descending with \"desc\".", example: `sort([3, 1, 2])`, want: `[1,2,3]`, params: []kinds{list, text}, optional: 1, result: list},
	{name: "uniq", usage: "uniq(list)", doc: "Each element once.", example: `uniq(["a", "b", "a"])`, want: `["a","b"]`, params: []kinds{list}, result: list},
	{name: "flatten", usage: "flatten(list)", doc: "With the elements of inner lists instead of these.", example: `flatten([[1, 2], [3]])`, want: `[1,2,3]`, params: []kinds{list}, result: list},
	{name: "take", usage: "take(list, most)", doc: "At most so many of the first elements.", example: `take([1, 2, 3], 2)`, want: `[1,2]`, params: []kinds{list, integer}, result: list},
	{name: "concat", usage: "concat(list, …)", doc: "The elements of all lists.", example: `concat([1], [2, 3])`, want: `[1,2,3]`, params: []kinds{list}, repeated: true, result: list},
}

func functionOf(name string) *function {
	for i := range functions {
		if functions[i].name == name {
			return &functions[i]
		}
	}
	return nil
}

// recased returns s with its ASCII letters from a to z in the other case, s itself if it has none; or what other makes of
// it, if it is not all ASCII.
func (r *Record) recased(v creel.Value, from, to byte, other func(string) string) creel.Value {
	s := v.Str()
	for i := range len(s) {
		switch b := s[i]; {
		case b >= utf8.RuneSelf:
			return creel.String(other(s))
		case b >= from && b <= to:
			out := r.make(len(s))
			copy(out, s)
			for j := i; j < len(out); j++ {
				switch b := out[j]; {
				case b >= utf8.RuneSelf:
					return creel.String(other(s))
				case b >= from && b <= to:
					out[j] ^= 0x20
				}
			}
			return r.text(out)
		}
	}
	return v
}

// bytesOf returns what a string or bytes consist of, to read.
func bytesOf(v creel.Value) []byte {
	if s := v.Str(); s != "" {
		return unsafe.Slice(unsafe.StringData(s), len(s))
	}
	return v.Bytes()
}

// join returns s and t as one string.
func (r *Record) join(s, t string) creel.Value {
	if len(s)+len(t) > maxMade {
		return creel.Value{}
	}
	out := r.make(len(s) + len(t))
	copy(out[copy(out, s):], t)
	return r.text(out)
}

func replaced(_ *Record, a []creel.Value) creel.Value {
	s, from, to, most := a[0].Str(), a[1].Str(), a[2].Str(), -1
	if len(a) > 3 {
		most = int(a[3].Int())
	}
	if strings.Count(s, from)*len(to)+len(s) > maxMade {
		return creel.Value{}
	}
	return creel.String(strings.Replace(s, from, to, most))
}

func splitted(r *Record, a []creel.Value) creel.Value {
	s, sep := a[0].Str(), a[1].Str()
	n := strings.Count(s, sep) + 1
	if sep == "" {
		n = utf8.RuneCountInString(s)
	}
	if len(a) > 2 && a[2].Int() >= 0 {
		n = int(min(int64(n), a[2].Int()))
	}
	vs := r.values(n)
	for i := range vs {
		width := strings.Index(s, sep)
		if sep == "" {
			_, width = utf8.DecodeRuneInString(s)
		}
		if i == n-1 {
			width = len(s)
		}
		vs[i] = creel.String(s[:width])
		s = s[min(width+len(sep), len(s)):]
	}
	return creel.List(vs...)
}

func joined(r *Record, a []creel.Value) creel.Value {
	sep := ""
	if len(a) > 1 {
		sep = a[1].Str()
	}
	n, vs := 0, a[0].List()
	for i := range vs {
		if vs[i].Kind() != creel.ValueString {
			return creel.Value{}
		}
		n += len(vs[i].Str()) + len(sep)
	}
	if n > maxMade {
		return creel.Value{}
	}
	out := r.make(max(0, n-len(sep)))
	at := out
	for i := range vs {
		if i > 0 {
			at = at[copy(at, sep):]
		}
		at = at[copy(at, vs[i].Str()):]
	}
	return r.text(out)
}

func length(_ *Record, a []creel.Value) creel.Value {
	v := a[0]
	return creel.Int(int64(len(v.Str()) + len(v.Bytes()) + len(v.List()) + len(v.Map()))) // it is one of them
}

func toInt(_ *Record, a []creel.Value) creel.Value {
	switch v := a[0]; v.Kind() {
	case creel.ValueString:
		i, err := strconv.ParseInt(v.Str(), 10, 64)
		if err != nil {
			return creel.Value{}
		}
		return creel.Int(i)
	case creel.ValueBool:
		if v.Bool() {
			return creel.Int(1)
		}
		return creel.Int(0)
	default:
		return whole(v)
	}
}

func toFloat(_ *Record, a []creel.Value) creel.Value {
	if a[0].Kind() == creel.ValueString {
		f, err := strconv.ParseFloat(a[0].Str(), 64)
		if err != nil {
			return creel.Value{}
		}
		return creel.Double(f)
	}
	f, _ := float(a[0])
	return creel.Double(f)
}

func toString(r *Record, a []creel.Value) creel.Value {
	var b [32]byte
	switch v := a[0]; v.Kind() {
	case creel.ValueString:
		return v
	case creel.ValueBytes:
		return r.copied(v.Bytes())
	case creel.ValueInt:
		return r.copied(strconv.AppendInt(b[:0], v.Int(), 10))
	case creel.ValueDouble:
		return r.copied(strconv.AppendFloat(b[:0], v.Double(), 'g', -1, 64))
	default:
		return creel.String(string(v.Append(nil)))
	}
}

func toBool(_ *Record, a []creel.Value) creel.Value {
	switch v := a[0]; {
	case v.Kind() == creel.ValueBool:
		return v
	case v.Kind() != creel.ValueString:
		f, _ := float(v)
		return creel.Bool(f != 0)
	case v.Str() == "true" || v.Str() == "false":
		return creel.Bool(v.Str() == "true")
	}
	return creel.Value{}
}

func rounded(f func(float64) float64) func(*Record, []creel.Value) creel.Value {
	return func(_ *Record, a []creel.Value) creel.Value {
		if a[0].Kind() == creel.ValueInt {
			return a[0]
		}
		return creel.Double(f(a[0].Double()))
	}
}

// extreme returns the function that finds what stands so to all others.
func extreme(want relation) func(*Record, []creel.Value) creel.Value {
	var best func(a []creel.Value) creel.Value
	best = func(a []creel.Value) (found creel.Value) {
		for _, v := range a {
			if v.Kind() == creel.ValueList {
				v = best(v.List())
			}
			if _, ok := float(v); !ok {
				return creel.Value{}
			}
			if found.Kind() == creel.ValueEmpty || relate(v, found) == want {
				found = v
			}
		}
		return found
	}
	return func(_ *Record, a []creel.Value) creel.Value { return best(a) }
}

func dateParser(constant []creel.Value) (func(*Record, []creel.Value) creel.Value, error) {
	zone, err := zoneOf(constant)
	return func(_ *Record, a []creel.Value) creel.Value {
		s, layout := a[0].Str(), time.RFC3339
		switch {
		case len(constant) > 0:
			layout = constant[0].Str()
		case len(s) <= len(time.DateOnly):
			layout = time.DateOnly
		case s[len(time.DateOnly)] == ' ':
			layout = time.DateTime
		}
		t, err := time.ParseInLocation(layout, s, zone)
		if err != nil || t.Year() <= 1677 || t.Year() >= 2262 { // which nanoseconds cannot tell
			return creel.Value{}
		}
		return creel.Int(t.UnixNano())
	}, err
}

func dateFormat(constant []creel.Value) (func(*Record, []creel.Value) creel.Value, error) {
	zone, err := zoneOf(constant)
	return func(r *Record, a []creel.Value) creel.Value {
		var b [64]byte
		return r.copied(time.Unix(0, a[0].Int()).In(zone).AppendFormat(b[:0], constant[0].Str()))
	}, err
}

// zoneOf returns the zone that stands after a layout, UTC if none does.
func zoneOf(constant []creel.Value) (*time.Location, error) {
	if len(constant) < 2 {
		return time.UTC, nil
	}
	zone, err := time.LoadLocation(constant[1].Str())
	if err != nil {
		return nil, fmt.Errorf("there is no time zone %q", constant[1].Str())
	}
	return zone, nil
}
