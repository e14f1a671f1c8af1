package otlp

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/creelhq/creel"
)

// wireFromJSON appends the message of kind k that text describes to dst, in the wire format. What it writes is to be
// checked as if it had come so.
func wireFromJSON(dst []byte, k kind, text []byte) ([]byte, error) {
	if !json.Valid(text) {
		var none struct{}
		return nil, fmt.Errorf("read JSON: %w", json.Unmarshal(text, &none))
	}
	r := jsonReader{b: text, out: dst}
	if err := r.message(k, 0); err != nil {
		return nil, fmt.Errorf("read JSON: %w", err)
	}
	return r.out, nil
}

// jsonReader translates b, which is known to be JSON, so that it need not look out for syntax errors.
type jsonReader struct {
	b   []byte
	p   int
	out []byte
	tmp []byte // an unescaped string
	id  creel.TraceID
}

var (
	errObject  = errors.New("it must be an object")
	errArray   = errors.New("it must be an array")
	errString  = errors.New("it must be a string")
	errNumber  = errors.New("it must be a number")
	errInteger = errors.New("it must be an integer in range")
	errBool    = errors.New("it must be true or false")
)

// peek skips white space and returns the byte after it, which is 0 at the end.
func (r *jsonReader) peek() byte {
	for r.p < len(r.b) {
		switch c := r.b[r.p]; c {
		case ' ', '\t', '\r', '\n':
			r.p++
		default:
			return c
		}
	}
	return 0
}

// next steps over c, if it comes next.
func (r *jsonReader) next(c byte) bool {
	if r.peek() != c {
		return false
	}
	r.p++
	return true
}

// null steps over null, if it comes next.
func (r *jsonReader) null() bool {
	if r.peek() != 'n' {
		return false
	}
	r.p += len("null")
	return true
}

// message writes the fields of the object that comes next.
func (r *jsonReader) message(k kind, depth int) error {
	if k == anyValue {
		if depth++; depth > maxDepth {
			return errDepth
		}
	}
	if r.null() {
		return nil
	}
	if !r.next('{') {
		return errObject
	}
	num, f := 0, (*field)(nil)
	for !r.next('}') {
		r.next(',')
		r.peek()
		num, f = named(k, r.string(), num)
		r.next(':')
		if f == nil {
			r.skip()
			continue
		}
		if r.null() {
			continue
		}
		if err := r.field(uint64(num), f, depth); err != nil {
			return fmt.Errorf("%v: %s: %w", k, f.name, err)
		}
	}
	return nil
}

// named returns the number and description of the field of that name, nil if there is none. Most fields come in order: it
// begins to look behind number last.
func named(k kind, name []byte, last int) (int, *field) {
	fs := &schema[k]
	for num, i := last, 0; i < len(fs); i++ {
		if num++; num >= len(fs) {
			num = 0
		}
		if f := &fs[num]; f.shape != absent && (f.name == string(name) || f.proto == string(name)) {
			return num, f
		}
	}
	return last, nil
}

func (r *jsonReader) field(num uint64, f *field, depth int) error {
	switch f.shape {
	case texts, messages, varints, fixed64s, doubles:
	default:
		r.out = binary.AppendUvarint(r.out, num<<3|uint64(f.shape.wireType()))
		return r.single(f, depth)
	}
	if !r.next('[') {
		return errArray
	}
	packed := f.shape >= varints
	if packed && r.peek() == ']' {
		r.p++
		return nil
	}
	at := 0
	if packed {
		at = r.open(num)
	}
	for !r.next(']') {
		r.next(',')
		if !packed {
			r.out = binary.AppendUvarint(r.out, num<<3|wireBytes)
		}
		if err := r.single(f, depth); err != nil {
			return err
		}
	}
	if packed {
		r.close(at)
	}
	return nil
}

// open writes the tag of a length-prefixed field and leaves a byte for its length; close puts it there.
func (r *jsonReader) open(num uint64) int {
	r.out = append(binary.AppendUvarint(r.out, num<<3|wireBytes), 0)
	return len(r.out)
}

func (r *jsonReader) close(at int) {
	n := len(r.out) - at
	if n < 0x80 {
		r.out[at-1] = byte(n)
		return
	}
	var length [binary.MaxVarintLen64]byte
	size := binary.PutUvarint(length[:], uint64(n))
	r.out = append(r.out, length[:size-1]...) // to make room
	copy(r.out[at+size-1:], r.out[at:at+n])
	copy(r.out[at-1:], length[:size])
}

// single writes one value of f, without its tag.
func (r *jsonReader) single(f *field, depth int) (err error) {
	switch f.shape {
	case message, messages:
		r.out = append(r.out, 0)
		at := len(r.out)
		if err = r.message(f.of, depth); err == nil {
			r.close(at)
		}
		return err
	case text, texts, blob, traceID, spanID:
		return r.text(f.shape)
	case boolean:
		switch r.peek() {
		case 't':
			r.out = append(r.out, 1)
		case 'f':
			r.out = append(r.out, 0)
		default:
			return errBool
		}
		r.skip()
		return nil
	}
	return r.number(f.shape)
}

// text writes the string that comes next.
func (r *jsonReader) text(s shape) (err error) {
	if r.peek() != '"' {
		return errString
	}
	b := r.string()
	switch s {
	case blob:
		std := strings.NewReplacer("-", "+", "_", "/", "=", "").Replace(string(b))
		if b, err = base64.RawStdEncoding.DecodeString(std); err != nil {
			return err
		}
	case traceID, spanID:
		if len(b) > 2*len(r.id) {
			return errID
		}
		n, err := hex.Decode(r.id[:], b)
		if err != nil {
			return err
		}
		b = r.id[:n]
	}
	r.out = append(binary.AppendUvarint(r.out, uint64(len(b))), b...)
	return nil
}

// number writes the number that comes next, which may stand in quotes.
func (r *jsonReader) number(s shape) error {
	var word string // aliases what is read; nothing keeps it
	switch c := r.peek(); {
	case c == '"':
		word = str(r.string())
	case c == '-' || c >= '0' && c <= '9':
		at := r.p
		r.skip()
		word = str(r.b[at:r.p])
	default:
		return errNumber
	}
	switch s {
	case double, doubles:
		f, err := strconv.ParseFloat(word, 64)
		if err != nil {
			return errNumber
		}
		r.out = binary.LittleEndian.AppendUint64(r.out, math.Float64bits(f))
		return nil
	case enum, sint32, int64s, sfixed64:
		size := 32
		if s == int64s || s == sfixed64 {
			size = 64
		}
		i, err := integer(word, size, strconv.ParseInt)
		if err != nil {
			return err
		}
		switch s {
		case sfixed64:
			r.out = binary.LittleEndian.AppendUint64(r.out, uint64(i))
		case sint32:
			r.out = binary.AppendUvarint(r.out, uint64(uint32(i<<1)^uint32(i>>31)))
		default:
			r.out = binary.AppendUvarint(r.out, uint64(i))
		}
		return nil
	}
	size := 32
	if s == fixed64 || s == fixed64s || s == varints {
		size = 64
	}
	u, err := integer(word, size, strconv.ParseUint)
	if err != nil {
		return err
	}
	switch s {
	case fixed64, fixed64s:
		r.out = binary.LittleEndian.AppendUint64(r.out, u)
	case fixed32:
		r.out = binary.LittleEndian.AppendUint32(r.out, uint32(u))
	default:
		r.out = binary.AppendUvarint(r.out, u)
	}
	return nil
}

// integer reads an integer, which JSON may also write as 1e3 or 1.0, where it is small enough to be exact.
func integer[T int64 | uint64](word string, size int, parse func(string, int, int) (T, error)) (T, error) {
	n, err := parse(word, 10, size)
	if err == nil {
		return n, nil
	}
	f, err := strconv.ParseFloat(word, 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
		return 0, errInteger
	}
	if n, err = parse(strconv.FormatFloat(f, 'f', -1, 64), 10, size); err != nil {
		return 0, errInteger
	}
	return n, nil
}

// skip steps over the value that comes next.
func (r *jsonReader) skip() {
	for depth := 0; ; {
		switch r.peek() {
		case '"':
			r.string()
		case '{', '[':
			depth++
			r.p++
		case '}', ']':
			depth--
			r.p++
		case ',', ':':
			r.p++
			continue
		default:
			r.word()
		}
		if depth <= 0 {
			return
		}
	}
}

// word steps over a number, true, false or null.
func (r *jsonReader) word() {
	for ; r.p < len(r.b); r.p++ {
		switch r.b[r.p] {
		case ',', ':', ']', '}', ' ', '\t', '\r', '\n':
			return
		}
	}
}

// string returns the string that comes next; it is good until the next call. Halves of surrogate pairs become U+FFFD.
func (r *jsonReader) string() []byte {
	r.p++
	at := r.p
	end := at + bytes.IndexByte(r.b[at:], '"')
	plain := bytes.IndexByte(r.b[at:end], '\\')
	if plain < 0 {
		r.p = end + 1
		return r.b[at:end]
	}
	r.p = at + plain
	r.tmp = append(r.tmp[:0], r.b[at:r.p]...)
	for r.b[r.p] != '"' {
		c := r.b[r.p]
		r.p++
		if c == '\\' {
			r.escape()
		} else {
			r.tmp = append(r.tmp, c)
		}
	}
	r.p++
	return r.tmp
}

// escape appends what the escape sequence stands for of which the backslash has been read.
func (r *jsonReader) escape() {
	c := r.b[r.p]
	r.p++
	switch c {
	case 'b':
		c = '\b'
	case 'f':
		c = '\f'
	case 'n':
		c = '\n'
	case 'r':
		c = '\r'
	case 't':
		c = '\t'
	case 'u':
		char := r.hex4()
		if utf16.IsSurrogate(char) && r.b[r.p] == '\\' && r.b[r.p+1] == 'u' {
			at := r.p
			r.p += 2
			if char = utf16.DecodeRune(char, r.hex4()); char == utf8.RuneError {
				r.p = at // what follows stands for itself
			}
		}
		r.tmp = utf8.AppendRune(r.tmp, char)
		return
	}
	r.tmp = append(r.tmp, c)
}

func (r *jsonReader) hex4() rune {
	n, _ := strconv.ParseUint(string(r.b[r.p:r.p+4]), 16, 16)
	r.p += 4
	return rune(n)
}
