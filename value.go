package creel

import (
	"bytes"
	"encoding/base64"
	"math"
	"slices"
	"strconv"
	"unsafe"
)

// ValueKind says what a Value holds. The numbers are creel's own; the kinds are those of OTLP's AnyValue.
type ValueKind uint8

// The kinds of values.
const (
	ValueEmpty ValueKind = iota
	ValueString
	ValueBool
	ValueInt
	ValueDouble
	ValueBytes
	ValueList
	ValueMap
)

var valueKindNames = [...]string{"empty", "string", "bool", "int", "double", "bytes", "list", "map"}

// String returns the kind's name in lower case.
func (k ValueKind) String() string { return valueKindNames[k] }

// Value is an attribute's value or a log's body: OTLP's AnyValue in 24 bytes. The zero Value is empty.
//
// A Value is immutable: what it refers to (a string, bytes, a list, a map) is shared by its copies and must not be
// changed. A Value made from a decoded batch aliases the batch's memory; Clone it to keep it longer than the batch.
type Value struct {
	ptr  unsafe.Pointer // first byte or element of a string, bytes, list or map
	num  uint64         // a scalar's bits, or a length
	kind ValueKind
}

// String returns a Value that holds s.
func String(s string) Value {
	return Value{ptr: unsafe.Pointer(unsafe.StringData(s)), num: uint64(len(s)), kind: ValueString}
}

// Bool returns a Value that holds b.
func Bool(b bool) Value {
	v := Value{kind: ValueBool}
	if b {
		v.num = 1
	}
	return v
}

// Int returns a Value that holds i.
func Int(i int64) Value { return Value{num: uint64(i), kind: ValueInt} }

// Double returns a Value that holds f.
func Double(f float64) Value { return Value{num: math.Float64bits(f), kind: ValueDouble} }

// Bytes returns a Value that holds b, which must not be changed afterwards.
func Bytes(b []byte) Value {
	return Value{ptr: unsafe.Pointer(unsafe.SliceData(b)), num: uint64(len(b)), kind: ValueBytes}
}

// List returns a Value that holds the list vs, which must not be changed afterwards.
func List(vs ...Value) Value {
	return Value{ptr: unsafe.Pointer(unsafe.SliceData(vs)), num: uint64(len(vs)), kind: ValueList}
}

// Map returns a Value that holds the entries as, which must not be changed afterwards.
func Map(as ...Attr) Value {
	return Value{ptr: unsafe.Pointer(unsafe.SliceData(as)), num: uint64(len(as)), kind: ValueMap}
}

// Kind returns what v holds.
func (v Value) Kind() ValueKind { return v.kind }

// Str returns the string that v holds, "" if it holds none.
func (v Value) Str() string {
	if v.kind != ValueString {
		return ""
	}
	return unsafe.String((*byte)(v.ptr), int(v.num))
}

// Bool returns the boolean that v holds, false if it holds none.
func (v Value) Bool() bool { return v.kind == ValueBool && v.num != 0 }

// Int returns the integer that v holds, 0 if it holds none.
func (v Value) Int() int64 {
	if v.kind != ValueInt {
		return 0
	}
	return int64(v.num)
}

// Double returns the floating-point number that v holds, 0 if it holds none.
func (v Value) Double() float64 {
	if v.kind != ValueDouble {
		return 0
	}
	return math.Float64frombits(v.num)
}

// Bytes returns the bytes that v holds, nil if it holds none. They must not be changed.
func (v Value) Bytes() []byte {
	if v.kind != ValueBytes {
		return nil
	}
	return unsafe.Slice((*byte)(v.ptr), int(v.num))
}

// List returns the values that v holds, nil if it is no list. They must not be changed.
func (v Value) List() []Value {
	if v.kind != ValueList {
		return nil
	}
	return unsafe.Slice((*Value)(v.ptr), int(v.num))
}

// Map returns the entries that v holds, nil if it is no map. They must not be changed.
func (v Value) Map() Attrs {
	if v.kind != ValueMap {
		return nil
	}
	return unsafe.Slice((*Attr)(v.ptr), int(v.num))
}

// Equal reports whether v and w hold the same. Doubles are compared by their bits, so that NaN equals itself; maps are
// compared in order.
func (v Value) Equal(w Value) bool {
	if v.kind != w.kind || v.num != w.num {
		return false
	}
	switch v.kind {
	case ValueString:
		return v.Str() == w.Str()
	case ValueBytes:
		return bytes.Equal(v.Bytes(), w.Bytes())
	case ValueList:
		return slices.EqualFunc(v.List(), w.List(), Value.Equal)
	case ValueMap:
		return v.Map().Equal(w.Map())
	}
	return true
}

// Clone returns a copy of v that shares no memory with it.
func (v Value) Clone() Value {
	switch v.kind {
	case ValueString:
		return String(string(append([]byte(nil), v.Str()...)))
	case ValueBytes:
		return Bytes(bytes.Clone(v.Bytes()))
	case ValueList:
		list := make([]Value, v.num)
		for i, e := range v.List() {
			list[i] = e.Clone()
		}
		return List(list...)
	case ValueMap:
		return Map(v.Map().Clone()...)
	}
	return v
}

// size estimates the bytes v keeps alive beyond itself.
func (v Value) size() int {
	switch v.kind {
	case ValueString, ValueBytes:
		return int(v.num)
	case ValueList:
		n := 0
		for _, e := range v.List() {
			n += int(unsafe.Sizeof(e)) + e.size()
		}
		return n
	case ValueMap:
		return v.Map().size()
	}
	return 0
}

// String renders v for a reader: a string as it is, everything else as Append does.
func (v Value) String() string {
	if v.kind == ValueString {
		return v.Str()
	}
	return string(v.Append(nil))
}

// Append appends v as JSON: bytes in base64, an empty value as null, and the numbers that JSON lacks as strings.
func (v Value) Append(dst []byte) []byte {
	switch v.kind {
	case ValueString:
		return appendQuoted(dst, v.Str())
	case ValueBool:
		return strconv.AppendBool(dst, v.Bool())
	case ValueInt:
		return strconv.AppendInt(dst, v.Int(), 10)
	case ValueDouble:
		if f := v.Double(); math.IsNaN(f) || math.IsInf(f, 0) {
			return appendQuoted(dst, strconv.FormatFloat(f, 'g', -1, 64))
		}
		return strconv.AppendFloat(dst, v.Double(), 'g', -1, 64)
	case ValueBytes:
		dst = append(dst, '"')
		dst = base64.StdEncoding.AppendEncode(dst, v.Bytes())
		return append(dst, '"')
	case ValueList:
		dst = append(dst, '[')
		for i, e := range v.List() {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = e.Append(dst)
		}
		return append(dst, ']')
	case ValueMap:
		return v.Map().Append(dst)
	}
	return append(dst, "null"...)
}

const hexDigits = "0123456789abcdef"

// appendQuoted appends s as a JSON string. Control characters are escaped, which also keeps a terminal safe.
func appendQuoted(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for _, r := range s { // an invalid byte becomes U+FFFD
		switch {
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case r == '\n':
			dst = append(dst, `\n`...)
		case r == '\t':
			dst = append(dst, `\t`...)
		case r < 0x20 || r >= 0x7f && r < 0xa0:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[r>>4&15], hexDigits[r&15])
		default:
			dst = append(dst, string(r)...)
		}
	}
	return append(dst, '"')
}

// Attr is one attribute.
type Attr struct {
	Key   string
	Value Value
}

// Attrs is a list of attributes in the order in which they came. Keys are unique by convention, not by force: what
// arrives twice is kept twice. Lookup is linear, which beats a map for the handful that a record carries.
type Attrs []Attr

// Get returns the value of the first attribute named key.
func (as Attrs) Get(key string) (Value, bool) {
	for i := range as {
		if as[i].Key == key {
			return as[i].Value, true
		}
	}
	return Value{}, false
}

// Set gives the attribute named key the value v, appending it when it is new.
func (as *Attrs) Set(key string, v Value) {
	for i := range *as {
		if (*as)[i].Key == key {
			(*as)[i].Value = v
			return
		}
	}
	*as = append(*as, Attr{key, v})
}

// Delete removes the attributes named key and reports whether there was one. The order of the others stays.
func (as *Attrs) Delete(key string) bool {
	n := len(*as)
	*as = slices.DeleteFunc(*as, func(a Attr) bool { return a.Key == key })
	return len(*as) < n
}

// Equal reports whether as and bs hold equal attributes in the same order.
func (as Attrs) Equal(bs Attrs) bool {
	return slices.EqualFunc(as, bs, func(a, b Attr) bool { return a.Key == b.Key && a.Value.Equal(b.Value) })
}

// Clone returns a copy of as that shares no memory with it.
func (as Attrs) Clone() Attrs {
	if as == nil {
		return nil
	}
	out := make(Attrs, len(as))
	for i, a := range as {
		out[i] = Attr{string(append([]byte(nil), a.Key...)), a.Value.Clone()}
	}
	return out
}

// Append appends as as a JSON object.
func (as Attrs) Append(dst []byte) []byte {
	dst = append(dst, '{')
	for i := range as {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendQuoted(dst, as[i].Key)
		dst = append(dst, ':')
		dst = as[i].Value.Append(dst)
	}
	return append(dst, '}')
}

func (as Attrs) size() int {
	n := len(as) * int(unsafe.Sizeof(Attr{}))
	for i := range as {
		n += len(as[i].Key) + as[i].Value.size()
	}
	return n
}
