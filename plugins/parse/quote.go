package parse

import (
	"encoding/binary"
	"math/bits"
	"strconv"
	"strings"
	"unicode/utf8"
	"unsafe"

	"github.com/creelhq/creel"
)

// Eight bytes are looked at at once: each of these words has the same byte eight times.
const (
	ones     = 0x0101010101010101
	highs    = 0x80 * ones
	quotes   = '"' * ones
	slashes  = '\\' * ones
	controls = 0x20 * ones
	blanks   = 0x21 * ones
)

// load returns the eight bytes of s from i on, the first one lowest. There must be so many: nothing checks it, as that
// would cost a third of what is done with them.
func load(s string, i int) uint64 {
	return binary.LittleEndian.Uint64((*[8]byte)(unsafe.Add(unsafe.Pointer(unsafe.StringData(s)), i))[:])
}

// specials returns a word with the high bit of each byte of x that is a quote, a backslash or a control character: to
// subtract borrows from the bit only there, and perhaps in bytes after it, so that the lowest bit is right.
func specials(x uint64) uint64 {
	return ((x ^ quotes - ones) | (x ^ slashes - ones) | (x - controls)) &^ x & highs
}

// special returns the index of the first quote, backslash or control character of s from i on, or its length.
func special(s string, i int) int {
	for ; i+16 <= len(s); i += 16 {
		m, n := specials(load(s, i)), specials(load(s, i+8))
		if m|n == 0 {
			continue
		}
		if m == 0 {
			return i + 8 + bits.TrailingZeros64(n)>>3
		}
		return i + bits.TrailingZeros64(m)>>3
	}
	for i < len(s) && s[i] != '"' && s[i] != '\\' && s[i] >= 0x20 {
		i++
	}
	return i
}

// blank returns the index of the first space or control character of s from i on, or its length.
func blank(s string, i int) int {
	for ; i+8 <= len(s); i += 8 {
		x := load(s, i)
		if m := (x - blanks) &^ x & highs; m != 0 {
			return i + bits.TrailingZeros64(m)>>3
		}
	}
	for i < len(s) && s[i] > ' ' {
		i++
	}
	return i
}

// quoted returns the index of the quote that ends what starts at s[i], past those with a backslash before; -1 if none
// does. escaped tells that there is a backslash.
func quoted(s string, i int, quote byte) (end int, escaped bool) {
	n := strings.IndexByte(s[i:], quote)
	if n < 0 {
		return -1, false
	}
	b := strings.IndexByte(s[i:i+n], '\\')
	if b < 0 {
		return i + n, false
	}
	for i += b; i < len(s); i++ {
		switch s[i] {
		case quote:
			return i, true
		case '\\':
			i++
		}
	}
	return -1, false
}

// unquote returns s without its backslash escapes, which are those of Go, C and JSON; what is none stays as it is.
func (f *fields) unquote(s string) creel.Value {
	b := f.text.room(len(s))
	for {
		i := strings.IndexByte(s, '\\')
		if i < 0 {
			break
		}
		b = append(b, s[:i]...)
		var n int
		b, n = appendEscape(b, s[i:])
		s = s[i+n:]
	}
	text := f.text.keep(append(b, s...))
	if !utf8.ValidString(text) { // of \xff, or of a line that was not
		return creel.Bytes(unsafe.Slice(unsafe.StringData(text), len(text)))
	}
	return creel.String(text)
}

// appendEscape appends what the escape at the start of s stands for, and returns the escape's length.
func appendEscape(b []byte, s string) ([]byte, int) {
	const names, means = `abfnrtv\/"'`, "\a\b\f\n\r\t\v\\/\"'"
	if len(s) > 1 {
		if i := strings.IndexByte(names, s[1]); i >= 0 {
			return append(b, means[i]), 2
		}
		digits := 0
		switch s[1] {
		case 'x':
			digits = 2
		case 'u':
			digits = 4
		case 'U':
			digits = 8
		}
		if digits > 0 && len(s) >= 2+digits {
			if r, err := strconv.ParseUint(s[2:2+digits], 16, 32); err == nil {
				if digits == 2 {
					return append(b, byte(r)), 4
				}
				return utf8.AppendRune(b, rune(r)), 2 + digits
			}
		}
	}
	return append(b, '\\'), 1
}
