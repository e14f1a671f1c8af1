package parse

import (
	"math"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/creelhq/creel"
)

// maxDepth is how deep objects and lists may nest.
const maxDepth = 32

// scanJSON adds the members of a JSON object (RFC 8259). It takes what encoding/json takes, but for the caps on depth and
// number of values, and reads it alike, with these exceptions: integers that fit are integers, an integer that does not
// fit and a number beyond what a double holds stay text, so that no digit is lost; a string that is not valid UTF-8
// becomes bytes. null is an empty value.
func scanJSON(f *fields, line string) (fault string) {
	i := spaces(line, 0)
	if i == len(line) || line[i] != '{' {
		return "not a JSON object"
	}
	j := decoder{fields: f, s: line}
	if i = j.object(i+1, "", maxDepth-1); i < 0 {
		return f.fault
	}
	if spaces(line, i) != len(line) {
		return "text after the JSON object"
	}
	return ""
}

// decoder reads JSON. Its methods take an index and return the one behind what they have read, or -1 after fail.
type decoder struct {
	*fields
	s string
}

func (j *decoder) fail(fault string) int {
	j.fault = fault
	return -1
}

const malformed = "malformed JSON"

// spaces returns the index of what comes after white space at i.
func spaces(s string, i int) int {
	for i < len(s) && (s[i] == ' ' || s[i] == '\t' || s[i] == '\n' || s[i] == '\r') {
		i++
	}
	return i
}

// object adds the members of the object whose brace was before i, their names after path. depth is how much deeper one
// may go.
func (j *decoder) object(i int, path string, depth int) int {
	s := j.s
	if i = spaces(s, i); i < len(s) && s[i] == '}' {
		return i + 1
	}
	for {
		if i >= len(s) || s[i] != '"' {
			return j.fail(malformed)
		}
		key, next := j.name(i + 1)
		if next < 0 {
			return next
		}
		if i = spaces(s, next); i >= len(s) || s[i] != ':' {
			return j.fail(malformed)
		}
		if path != "" {
			key = j.text.concat(path, key)
		}
		i = spaces(s, i+1)
		if inner := i + 1; j.p.Flatten && i < len(s) && s[i] == '{' && depth > 0 {
			if inner = spaces(s, inner); inner < len(s) && s[inner] == '}' {
				j.add(key, creel.Map())
			}
			i = j.object(inner, j.text.concat(key, "."), depth-1)
		} else {
			var v creel.Value
			if v, i = j.value(i, depth); i >= 0 {
				j.add(key, v)
			}
		}
		if i < 0 {
			return i
		}
		if j.left < 0 {
			return j.fail(tooMany)
		}
		switch i = spaces(s, i); {
		case i >= len(s):
			return j.fail(malformed)
		case s[i] == ',':
			i = spaces(s, i+1)
		case s[i] == '}':
			return i + 1
		default:
			return j.fail(malformed)
		}
	}
}

// value reads the value at i.
func (j *decoder) value(i, depth int) (v creel.Value, next int) {
	s := j.s
	if i >= len(s) {
		return v, j.fail(malformed)
	}
	switch c := s[i]; {
	case c == '"':
		end := special(s, i+1)
		if end < len(s) && s[end] == '"' {
			return j.string(s[i+1 : end]), end + 1
		}
		text, next := j.escaped(i+1, end)
		return j.string(text), next
	case c == '-' || c-'0' <= 9:
		return j.number(i)
	case c == '{' || c == '[':
		if depth == 0 {
			return v, j.fail("nested too deeply")
		}
		if c == '[' {
			return j.array(i+1, depth-1)
		}
		return j.nested(i+1, depth-1)
	case strings.HasPrefix(s[i:], "true"):
		return creel.Bool(true), i + 4
	case strings.HasPrefix(s[i:], "false"):
		return creel.Bool(false), i + 5
	case strings.HasPrefix(s[i:], "null"):
		return v, i + 4
	}
	return v, j.fail(malformed)
}

// nested reads an object as a map. Its members lie above those around it until it is whole.
func (j *decoder) nested(i, depth int) (v creel.Value, next int) {
	base, seen := j.base, j.seen
	j.base, j.seen = len(j.list), 0
	next = j.object(i, "", depth)
	if next >= 0 {
		v = j.mapFrom(j.base)
	}
	j.base, j.seen = base, seen
	return v, next
}

// array reads the elements of an array.
func (j *decoder) array(i, depth int) (v creel.Value, next int) {
	s, base := j.s, len(j.values)
	if i = spaces(s, i); i < len(s) && s[i] == ']' {
		return creel.List(), i + 1
	}
	for {
		e, next := j.value(i, depth)
		if next < 0 {
			return v, next
		}
		if j.left--; j.left < 0 {
			return v, j.fail(tooMany)
		}
		j.values = append(j.values, e)
		switch i = spaces(s, next); {
		case i >= len(s):
			return v, j.fail(malformed)
		case s[i] == ',':
			i = spaces(s, i+1)
		case s[i] == ']':
			elements := j.own.Values.Make(len(j.values) - base)
			copy(elements, j.values[base:])
			j.values = j.values[:base]
			return creel.List(elements...), i + 1
		default:
			return v, j.fail(malformed)
		}
	}
}

// name reads a member's name, whose quote was before i.
func (j *decoder) name(i int) (name string, next int) {
	end := special(j.s, i)
	if end < len(j.s) && j.s[end] == '"' {
		return j.key(j.s[i:end]), end + 1
	}
	name, next = j.escaped(i, end)
	return j.key(name), next
}

// escaped reads a string that starts at i and has something special at at, where no quote is.
func (j *decoder) escaped(i, at int) (text string, next int) {
	s, end := j.s, at
	for end < len(s) && s[end] != '"' { // first its end: a string that has none costs no memory
		if s[end] != '\\' || end+1 == len(s) {
			return "", j.fail(malformed)
		}
		end = special(s, end+2)
	}
	if end >= len(s) {
		return "", j.fail(malformed)
	}
	b := append(j.text.room(end-i), s[i:at]...)
	for at < end {
		var n int
		if b, n = jsonEscape(b, s[at:end]); n == 0 {
			return "", j.fail(malformed)
		}
		from := at + n
		at = special(s, from)
		b = append(b, s[from:at]...)
	}
	return j.text.keep(b), end + 1
}

// jsonEscape appends what the escape at the start of s stands for, and returns the escape's length, 0 if it is none. Half
// a surrogate pair is U+FFFD.
func jsonEscape(b []byte, s string) ([]byte, int) {
	switch s[1] {
	case '"', '\\', '/':
		return append(b, s[1]), 2
	case 'b':
		return append(b, '\b'), 2
	case 'f':
		return append(b, '\f'), 2
	case 'n':
		return append(b, '\n'), 2
	case 'r':
		return append(b, '\r'), 2
	case 't':
		return append(b, '\t'), 2
	}
	r := hex4(s)
	if r < 0 {
		return b, 0
	}
	if utf16.IsSurrogate(r) {
		if pair := utf16.DecodeRune(r, hex4(s[6:])); pair != utf8.RuneError {
			return utf8.AppendRune(b, pair), 12
		}
		r = utf8.RuneError
	}
	return utf8.AppendRune(b, r), 6
}

// hex4 reads \u and four digits at the start of s; -1 if that is not what is there.
func hex4(s string) rune {
	if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
		return -1
	}
	r := rune(0)
	for i := 2; i < 6; i++ {
		d := unhex(s[i])
		if d > 15 {
			return -1
		}
		r = r<<4 | rune(d)
	}
	return r
}

// tens are the powers of ten that a double holds exactly.
var tens = [...]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15}

// number reads the number at i.
func (j *decoder) number(i int) (v creel.Value, next int) {
	s, start := j.s, i
	minus := s[i] == '-'
	if minus {
		i++
	}
	whole := i
	var n uint64 // the digits, while they fit
	for i < len(s) && s[i]-'0' <= 9 {
		n = 10*n + uint64(s[i]-'0')
		i++
	}
	digits := i - whole
	if digits == 0 || digits > 1 && s[whole] == '0' {
		return v, j.fail(malformed)
	}
	if i >= len(s) || s[i] != '.' && s[i]|0x20 != 'e' {
		switch {
		case minus && n == 0 && digits == 1:
			return creel.Double(math.Copysign(0, -1)), i // an integer has no -0
		case digits < 19 || digits == 19 && n < 1<<63:
			if minus {
				return creel.Int(-int64(n)), i
			}
			return creel.Int(int64(n)), i
		case digits == 19 && minus && n == 1<<63:
			return creel.Int(-1 << 63), i
		}
		return creel.String(s[start:i]), i
	}
	fraction := 0
	if s[i] == '.' {
		i++
		point := i
		for i < len(s) && s[i]-'0' <= 9 {
			n = 10*n + uint64(s[i]-'0')
			i++
		}
		if fraction = i - point; fraction == 0 {
			return v, j.fail(malformed)
		}
	}
	if i < len(s) && s[i]|0x20 == 'e' {
		if i++; i < len(s) && (s[i] == '+' || s[i] == '-') {
			i++
		}
		power := i
		for i < len(s) && s[i]-'0' <= 9 {
			i++
		}
		if i == power {
			return v, j.fail(malformed)
		}
	} else if digits+fraction <= 15 { // both are exact, so their quotient is the nearest double
		d := float64(n) / tens[fraction]
		if minus {
			d = -d
		}
		return creel.Double(d), i
	}
	d, err := strconv.ParseFloat(s[start:i], 64)
	if err != nil { // too large
		return creel.String(s[start:i]), i
	}
	return creel.Double(d), i
}
