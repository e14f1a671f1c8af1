package otlp

import (
	"encoding/binary"
	"math"
	"slices"
	"unsafe"

	"github.com/creelhq/creel"
)

// This file and those of the signals decode what check has found to be sound. Where a field that should be single
// occurs again, protobuf's rule holds: the last number or string wins, messages are merged.

// The tags of the fields that all signals share; see schema.
const (
	tagKey    = 1<<3 | wireBytes
	tagValue  = 2<<3 | wireBytes
	tagString = 1<<3 | wireBytes // of values, as the next three
	tagBool   = 2 << 3
	tagInt    = 3 << 3
	tagDouble = 4<<3 | wireFixed64
	tagItem   = 1<<3 | wireBytes // of a request, list, map, metric data
	tagGroup  = 1<<3 | wireBytes // resource of a resource group, scope of a scope group
	tagInner  = 2<<3 | wireBytes // scope groups of a resource group, records of a scope group
	tagSchema = 3<<3 | wireBytes
)

// decoder fills r. What outlives the batch (origins, descriptors and their attributes) is made in own instead, which is
// never recycled.
type decoder struct {
	r   *creel.Records
	own *creel.Records
}

// decoderOf returns the function that decodes requests of signal s.
func decoderOf(s creel.Signal) creel.Decode {
	switch s {
	case creel.Logs:
		return decodeLogs
	case creel.Metrics:
		return decodeMetrics
	case creel.Traces:
		return decodeSpans
	}
	panic("BUG: unknown signal")
}

func decodeLogs(wire []byte, r *creel.Records)    { decode(wire, r, (*decoder).logs) }
func decodeMetrics(wire []byte, r *creel.Records) { decode(wire, r, (*decoder).metrics) }
func decodeSpans(wire []byte, r *creel.Records)   { decode(wire, r, (*decoder).spans) }

// decode walks down to the scope groups, and lets records decode what is in each of them.
func decode(wire []byte, r *creel.Records, records func(d *decoder, scopeGroup []byte, o *creel.Origin)) {
	d := &decoder{r: r, own: &creel.Records{}}
	for p := 0; p < len(wire); {
		tag, q := varint(wire, p)
		if tag != tagItem {
			p = skip(wire, p, 0)
			continue
		}
		var group []byte
		group, p = bytesAt(wire, q)
		var res creel.Resource
		if shared(group, &res.SchemaURL, func(b []byte) { d.resource(b, &res) }) == 0 {
			continue
		}
		for q := 0; q < len(group); {
			tag, next := varint(group, q)
			if tag != tagInner {
				q = skip(group, q, 0)
				continue
			}
			var inner []byte
			inner, q = bytesAt(group, next)
			o := &creel.Origin{Resource: res}
			if shared(inner, &o.Scope.SchemaURL, func(b []byte) { d.scope(b, &o.Scope) }) > 0 {
				records(d, inner, o)
			}
		}
	}
}

// shared reads what the members of a resource or scope group share, wherever it stands among them: the message of field 1
// and the schema's URL. It returns the number of members.
func shared(group []byte, schemaURL *string, first func([]byte)) (members int) {
	for p := 0; p < len(group); {
		tag, q := varint(group, p)
		switch tag {
		case tagGroup:
			var b []byte
			b, p = bytesAt(group, q)
			first(b)
		case tagSchema:
			*schemaURL, p = stringAt(group, q)
		case tagInner:
			members++
			_, p = bytesAt(group, q)
		default:
			p = skip(group, p, 0)
		}
	}
	return members
}

func (d *decoder) resource(b []byte, res *creel.Resource) {
	for p := 0; p < len(b); {
		tag, q := varint(b, p)
		switch tag {
		case 1<<3 | wireBytes:
			res.Attrs, p = attrsAt(d.own, res.Attrs, b, p)
		case 2 << 3:
			res.Dropped, p = uint32At(b, q)
		case 3<<3 | wireBytes:
			var ref []byte
			ref, p = bytesAt(b, q)
			res.Entities = append(res.Entities, entity(ref))
		default:
			p = skip(b, p, 0)
		}
	}
}

func entity(b []byte) (ref creel.EntityRef) {
	for p := 0; p < len(b); {
		tag, q := varint(b, p)
		var s string
		switch tag {
		case 1<<3 | wireBytes:
			ref.SchemaURL, p = stringAt(b, q)
		case 2<<3 | wireBytes:
			ref.Type, p = stringAt(b, q)
		case 3<<3 | wireBytes:
			s, p = stringAt(b, q)
			ref.IDKeys = append(ref.IDKeys, s)
		case 4<<3 | wireBytes:
			s, p = stringAt(b, q)
			ref.DescriptionKeys = append(ref.DescriptionKeys, s)
		default:
			p = skip(b, p, 0)
		}
	}
	return ref
}

func (d *decoder) scope(b []byte, s *creel.Scope) {
	for p := 0; p < len(b); {
		tag, q := varint(b, p)
		switch tag {
		case 1<<3 | wireBytes:
			s.Name, p = stringAt(b, q)
		case 2<<3 | wireBytes:
			s.Version, p = stringAt(b, q)
		case 3<<3 | wireBytes:
			s.Attrs, p = attrsAt(d.own, s.Attrs, b, p)
		case 4 << 3:
			s.Dropped, p = uint32At(b, q)
		default:
			p = skip(b, p, 0)
		}
	}
}

// attrsAt appends the attributes at b[p:], all that follow each other, to as, in the memory of r.
func attrsAt(r *creel.Records, as creel.Attrs, b []byte, p int) (creel.Attrs, int) {
	n := len(as)
	as = extend(&r.Attrs, as, run(b, p))
	for ; n < len(as); n++ {
		var kv []byte
		kv, p = bytesAt(b, p+1)
		if !plainAttr(&as[n], kv) {
			attrAt(r, &as[n], kv)
		}
	}
	return as, p
}

// plainAttr reads the commonest kind of attribute; see isPlain. It returns false for others.
func plainAttr(a *creel.Attr, b []byte) bool {
	if len(b) < 6 || b[0] != tagKey || int(b[1]) > len(b)-6 || b[1] >= 0x80 {
		return false
	}
	k := 2 + int(b[1])
	v := b[k:]
	if v[0] != tagValue {
		return false
	}
	n, p := short(v, 1)
	if v = v[p:]; n != len(v) || n < 2 {
		return false
	}
	switch v[0] {
	case tagString:
		if n, p = short(v, 1); n != len(v)-p {
			return false
		}
		a.Value = creel.String(str(v[p:]))
	case tagBool, tagInt:
		u, p := varint(v, 1)
		if p != len(v) {
			return false
		}
		if v[0] == tagBool {
			a.Value = creel.Bool(u != 0)
		} else {
			a.Value = creel.Int(int64(u))
		}
	case tagDouble:
		if n != 9 {
			return false
		}
		a.Value = creel.Double(math.Float64frombits(binary.LittleEndian.Uint64(v[1:])))
	default:
		return false
	}
	a.Key = str(b[2:k])
	return true
}

func attrAt(r *creel.Records, a *creel.Attr, b []byte) {
	for p := 0; p < len(b); {
		tag, q := varint(b, p)
		switch tag {
		case tagKey:
			a.Key, p = stringAt(b, q)
		case tagValue:
			var v []byte
			v, p = bytesAt(b, q)
			a.Value = value(r, a.Value, v)
		default:
			p = skip(b, p, 0)
		}
	}
}

// value merges the AnyValue b into v. A list or map replaces one that came before: to merge them would let a small request
// cost time that grows with its square.
func value(r *creel.Records, v creel.Value, b []byte) creel.Value {
	for p := 0; p < len(b); {
		tag, q := varint(b, p)
		var u uint64
		var s []byte
		switch tag {
		case tagString:
			s, p = bytesAt(b, q)
			v = creel.String(str(s))
		case tagBool:
			u, p = varint(b, q)
			v = creel.Bool(u != 0)
		case tagInt:
			u, p = varint(b, q)
			v = creel.Int(int64(u))
		case tagDouble:
			u, p = fixed64At(b, q)
			v = creel.Double(math.Float64frombits(u))
		case 5<<3 | wireBytes:
			s, p = bytesAt(b, q)
			v = creel.List(list(r, s)...)
		case 6<<3 | wireBytes:
			s, p = bytesAt(b, q)
			v = creel.Map(entries(r, s)...)
		case 7<<3 | wireBytes:
			s, p = bytesAt(b, q)
			v = creel.Bytes(s)
		default:
			p = skip(b, p, 0)
		}
	}
	return v
}

func list(r *creel.Records, b []byte) (vs []creel.Value) {
	for p := 0; p < len(b); {
		if b[p] != tagItem {
			p = skip(b, p, 0)
			continue
		}
		n := len(vs)
		vs = extend(&r.Values, vs, run(b, p))
		for ; n < len(vs); n++ {
			var v []byte
			v, p = bytesAt(b, p+1)
			vs[n] = value(r, creel.Value{}, v)
		}
	}
	return vs
}

func entries(r *creel.Records, b []byte) (as creel.Attrs) {
	for p := 0; p < len(b); {
		if b[p] != tagItem {
			p = skip(b, p, 0)
			continue
		}
		as, p = attrsAt(r, as, b, p)
	}
	return as
}

// run counts the fields at b[p:] that have the same tag and follow each other.
func run(b []byte, p int) (n int) {
	tag := b[p]
	for p < len(b) && b[p] == tag {
		size, q := varint(b, p+1)
		p = q + int(size)
		n++
	}
	return n
}

// extend returns s with n more zero elements, in the slab's memory. What comes piecemeal doubles the room, lest time grow
// with its square.
func extend[T any](slab *creel.Slab[T], s []T, n int) []T {
	if len(s)+n <= cap(s) {
		return s[:len(s)+n]
	}
	t := slab.Make(len(s) + max(n, len(s)))
	copy(t, s)
	return t[:len(s)+n]
}

// grow returns s with room for the n elements that are about to come, without giving up append's doubling.
func grow[T any](s []T, n int) []T {
	if cap(s)-len(s) >= n {
		return s
	}
	return slices.Grow(s, max(n, cap(s)))
}

// str returns b as a string that aliases it: wire bytes are never changed nor reused.
func str(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

func bytesAt(b []byte, p int) ([]byte, int) {
	n, p := varint(b, p)
	return b[p : p+int(n) : p+int(n)], p + int(n)
}

func stringAt(b []byte, p int) (string, int) {
	s, p := bytesAt(b, p)
	return str(s), p
}

func uint32At(b []byte, p int) (uint32, int) {
	u, p := varint(b, p)
	return uint32(u), p
}

func sint32At(b []byte, p int) (int32, int) {
	u, p := varint(b, p)
	return int32(uint32(u)>>1) ^ -int32(u&1), p
}

func fixed64At(b []byte, p int) (uint64, int) { return binary.LittleEndian.Uint64(b[p:]), p + 8 }

func fixed32At(b []byte, p int) (uint32, int) { return binary.LittleEndian.Uint32(b[p:]), p + 4 }

func timeAt(b []byte, p int) (int64, int) {
	u, p := fixed64At(b, p)
	return int64(u), p
}

func traceIDAt(b []byte, p int) (id creel.TraceID, end int) {
	s, p := bytesAt(b, p)
	copy(id[:], s)
	return id, p
}

func spanIDAt(b []byte, p int) (id creel.SpanID, end int) {
	s, p := bytesAt(b, p)
	copy(id[:], s)
	return id, p
}
