package otlp

import (
	"errors"
	"fmt"
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
	for p := 0; p < len(b); {
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
		if f.shape == text || f.of == keyValue && isPlain(b[q:p]) {
			continue
		}
		if f.of.isData() && num != data {
			data, c.records = num, before // of a oneof the last one wins
		}
		if err := c.content(f, b[q:p], depth); err != nil {
			return fmt.Errorf("%v: %s: %w", k, f.proto, err)
		}
	}
	return nil
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

// isSimple reports whether b is the commonest kind of attribute: a short key and a short string, in this order.
func isSimple(b []byte) bool {
	if len(b) < 6 || b[0] != tagKey || b[1] >= 0x80 {
		return false
	}
	v := b[2:]
	if int(b[1]) > len(v)-4 {
		return false
	}
	v = v[b[1]:]
	return v[0] == tagValue && v[1] < 0x80 && int(v[1]) == len(v)-2 &&
		v[2] == tagString && v[3] < 0x80 && int(v[3]) == len(v)-4
}

// isPlain reports whether b is a common kind of attribute, and sound: a short key and a short string, or a number.
func isPlain(b []byte) bool {
	if isSimple(b) {
		return true
	}
	if len(b) < 6 || b[0] != tagKey || b[1] >= 0x80 || int(b[1]) > len(b)-6 {
		return false
	}
	v := b[2+int(b[1]):]
	if v[0] != tagValue || int(v[1]) != len(v)-2 {
		return false
	}
	switch v = v[2:]; v[0] {
	case 4<<3 | wireFixed64:
		return len(v) == 9
	case 2 << 3, 3 << 3:
		return v[1] < 0x80 && len(v) == 2 || v[1] >= 0x80 && len(v) == 3 && v[2] < 0x80
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
