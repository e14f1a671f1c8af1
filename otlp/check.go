package otlp

import (
	"errors"
	"fmt"
	"math"
)

// maxDepth is how deep attribute values may nest: lists and maps in lists and maps.
const maxDepth = 32

// maxGroupDepth is how deep groups may nest in unknown fields. Groups are a relic that OTLP does not use.
const maxGroupDepth = 32

// maxField is protobuf's highest field number.
const maxField = 1<<29 - 1

var (
	errTruncated = errors.New("it is cut short")
	errVarint    = errors.New("a varint is too long")
	errTag       = errors.New("a field number is out of range, or not written as short as can be")
	errWireType  = errors.New("it has the wrong wire type")
	errID        = errors.New("an id has the wrong length")
	errPacked    = errors.New("packed numbers do not fill their length")
	errDepth     = errors.New("values are nested too deep")
	errUnsound   = errors.New("it is not sound")
)

// check makes sure that wire is a sound message of kind k, so that decoding it cannot fail, and counts the records in it.
func check(k kind, wire []byte) (records int, err error) {
	var c checker
	err = c.message(k, wire, 0)
	return c.records, err
}

type checker struct{ records int }

func (c *checker) message(k kind, b []byte, depth int) error {
	if k == anyValue {
		if depth++; depth > maxDepth {
			return errDepth
		}
	}
	data, before := uint64(0), c.records // of a metric: which of the oneof is set, and what was counted outside
	for p := 0; ; {
		if p = commonest[k].pass(b, p); p >= len(b) {
			return nil
		}
		tag, q := varint(b, p)
		if q < 0 {
			return fmt.Errorf("%v: %w", k, varintFault(b, p))
		}
		num := tag >> 3
		if num == 0 || num > maxField || tag < 0x80 && q > p+1 {
			return fmt.Errorf("%v: %w", k, errTag)
		}
		var f *field
		if num < uint64(len(schema[k])) {
			f = &schema[k][num]
		}
		if f == nil || f.shape == absent {
			if p = skip(b, p, 0); p < 0 {
				return fmt.Errorf("%v: field %d: %w", k, num, errUnsound)
			}
			continue
		}
		wt := uint8(tag & 7)
		if want := f.shape.wireType(); wt != want {
			if f.shape < varints || wt != f.shape.elementType() {
				return fmt.Errorf("%v: %s: %w", k, f.proto, errWireType)
			}
		}
		if wt != wireBytes {
			if p = skipScalar(b, q, wt); p < 0 {
				return fmt.Errorf("%v: %s: %w", k, f.proto, errTruncated)
			}
			continue
		}
		n, q := varint(b, q)
		if q < 0 || n > uint64(len(b)-q) {
			return fmt.Errorf("%v: %s: %w", k, f.proto, errTruncated)
		}
		p = q + int(n)
		if f.of.isData() && num != data {
			data, c.records = num, before // of a oneof the last one wins
		}
		if err := c.content(f, b[q:p], depth); err != nil {
			return fmt.Errorf("%v: %s: %w", k, f.proto, err)
		}
	}
}

// content checks what a length-prefixed field holds.
func (c *checker) content(f *field, b []byte, depth int) error {
	switch f.shape {
	case message, messages:
		if f.of.isRecord() {
			c.records++
		}
		return c.message(f.of, b, depth)
	case traceID:
		if len(b) != 16 && len(b) != 0 {
			return errID
		}
	case spanID:
		if len(b) != 8 && len(b) != 0 {
			return errID
		}
	case fixed64s, doubles:
		if len(b)%8 != 0 {
			return errPacked
		}
	case varints:
		for p := 0; p < len(b); {
			if _, p = varint(b, p); p < 0 {
				return errPacked
			}
		}
	}
	return nil
}

// A step is how to pass over a field in its commonest form.
type step uint8

const (
	closer  step = iota // look closer: the general way
	four                // fixed32
	eight               // fixed64
	number              // varint
	string_             // text, bytes
	attr                // keyValue
	body                // anyValue, not nested
	id8                 // spanID
	id16                // traceID
)

// steps are those of each kind of message, by a field's tag.
type steps [0x80]step

// commonest has the steps of every kind, as the schema has its fields.
var commonest = func() (all [len(schema)]steps) {
	for k := range schema {
		for num, f := range schema[k] {
			tag := num<<3 | int(f.shape.wireType())
			if tag >= 0x80 || f.shape == absent {
				continue
			}
			switch f.shape {
			case fixed32:
				all[k][tag] = four
			case fixed64, sfixed64, double:
				all[k][tag] = eight
			case boolean, enum, uint32s, sint32, int64s:
				all[k][tag] = number
			case text, texts, blob:
				all[k][tag] = string_
			case spanID:
				all[k][tag] = id8
			case traceID:
				all[k][tag] = id16
			case message, messages:
				switch {
				case f.of == keyValue:
					all[k][tag] = attr
				case f.of == anyValue && kind(k).isRecord():
					all[k][tag] = body
				}
			}
		}
	}
	return all
}()

// pass returns where, from b[p:] on, the first field begins that is not in its commonest form and sound: len(b) for most
// records, several times as fast as the general way.
func (s *steps) pass(b []byte, p int) int {
	for p < len(b) && b[p] < 0x80 {
		switch step := s[b[p]]; step {
		case closer:
			return p
		case four, eight:
			size := 1 + 4*int(step)
			if len(b)-p < size {
				return p
			}
			p += size
		case number:
			_, q := varint(b, p+1)
			if q < 0 {
				return p
			}
			p = q
		default:
			n, q := short(b, p+1)
			if n > len(b)-q {
				return p
			}
			switch content := b[q : q+n]; step {
			case attr:
				if !isPlain(content) {
					return p
				}
			case body:
				if !isPlainValue(content) {
					return p
				}
			case id8:
				if n != 8 {
					return p
				}
			case id16:
				if n != 16 {
					return p
				}
			}
			p = q + n
		}
	}
	return p
}

// short returns the length at b[p:] and where it ends, if it is of one or two bytes; else one that is out of bounds.
func short(b []byte, p int) (n, end int) {
	if p < len(b) && b[p] < 0x80 {
		return int(b[p]), p + 1
	}
	if p+1 < len(b) && b[p+1] < 0x80 {
		return int(b[p]&0x7f) | int(b[p+1])<<7, p + 2
	}
	return math.MaxInt, len(b)
}

// isPlain reports whether b is the commonest kind of attribute, and sound: a key, and a value that is a string or a number.
func isPlain(b []byte) bool {
	if len(b) < 6 || b[0] != tagKey || int(b[1]) > len(b)-6 || b[1] >= 0x80 {
		return false
	}
	v := b[2+int(b[1]):]
	if v[0] != tagValue {
		return false
	}
	n, p := short(v, 1)
	return n == len(v)-p && isPlainValue(v[p:])
}

// isPlainValue reports whether b is a string or a number, and sound.
func isPlainValue(b []byte) bool {
	if len(b) < 2 {
		return false
	}
	switch b[0] {
	case tagString:
		n, p := short(b, 1)
		return n == len(b)-p
	case tagDouble:
		return len(b) == 9
	case tagBool, tagInt:
		_, p := varint(b, 1)
		return p == len(b)
	}
	return false
}

// varint returns the varint at b[p:] and where it ends, -1 when it is not sound.
func varint(b []byte, p int) (uint64, int) {
	if uint(p) < uint(len(b)) && b[p] < 0x80 {
		return uint64(b[p]), p + 1
	}
	return longVarint(b, p)
}

//go:noinline
func longVarint(b []byte, p int) (uint64, int) {
	v := uint64(0)
	for shift := 0; shift < 64 && p < len(b); shift += 7 {
		c := b[p]
		p++
		v |= uint64(c&0x7f) << shift
		if c < 0x80 {
			if shift == 63 && c > 1 {
				return 0, -1
			}
			return v, p
		}
	}
	return 0, -1
}

// varintFault says what is wrong with the varint at b[p:].
func varintFault(b []byte, p int) error {
	for _, c := range b[p:] {
		if c < 0x80 {
			return errVarint
		}
	}
	return errTruncated
}

// skip returns where the field at b[p:] ends, -1 when it is not sound.
func skip(b []byte, p, depth int) int {
	tag, p := varint(b, p)
	if p < 0 || tag>>3 == 0 || tag>>3 > maxField {
		return -1
	}
	switch wt := uint8(tag & 7); wt {
	case wireBytes:
		n, p := varint(b, p)
		if p < 0 || n > uint64(len(b)-p) {
			return -1
		}
		return p + int(n)
	case wireGroup:
		return skipGroup(b, p, tag>>3, depth)
	default:
		return skipScalar(b, p, wt)
	}
}

// skipGroup returns where the group numbered num, of which b[p:] is the content, ends.
func skipGroup(b []byte, p int, num uint64, depth int) int {
	if depth == maxGroupDepth {
		return -1
	}
	for {
		tag, q := varint(b, p)
		if q < 0 {
			return -1
		}
		if tag&7 == wireEndGroup {
			if tag>>3 != num {
				return -1
			}
			return q
		}
		if p = skip(b, p, depth+1); p < 0 {
			return -1
		}
	}
}

// skipScalar returns where the number of wire type wt at b[p:] ends, -1 when it is cut short or wt is not a number's.
func skipScalar(b []byte, p int, wt uint8) int {
	switch wt {
	case wireVarint:
		_, p = varint(b, p)
		return p
	case wireFixed64:
		p += 8
	case wireFixed32:
		p += 4
	default:
		return -1
	}
	if p > len(b) {
		return -1
	}
	return p
}
