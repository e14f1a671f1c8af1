package otlp

import (
	"encoding/binary"
	"math"
	"math/bits"
	"unsafe"

	"github.com/creelhq/creel"
)

// encoder writes a message from its end to its beginning: by the time a length is due, what it counts has been written.
// So everything is touched once, and nothing is measured beforehand. Fields are written in falling order, to stand in
// rising order. Its methods leave out zero values, as protobuf does, but for those that are members of a oneof.
//
// Encoders are handed on by value through function values, which keeps them off the heap.
type encoder struct {
	buf   []byte
	pos   int // what is written is buf[pos:]
	floor int // the caller's own is buf[:floor]
}

// newEncoder returns an encoder that will append to dst.
func newEncoder(dst []byte) encoder {
	return encoder{buf: dst[:cap(dst)], pos: cap(dst), floor: len(dst)}
}

// finish returns the caller's bytes and, after them, what was written.
func (e *encoder) finish() []byte {
	return e.buf[:e.floor+copy(e.buf[e.floor:], e.buf[e.pos:])]
}

// written returns how much has been written, for close.
func (e *encoder) written() int { return len(e.buf) - e.pos }

// room makes sure that n more bytes can be written.
func (e *encoder) room(n int) {
	if e.pos-e.floor < n {
		e.more(n)
	}
}

func (e *encoder) more(n int) {
	buf := make([]byte, max(2*len(e.buf), len(e.buf)+n, 512))
	buf = buf[:cap(buf)]
	copy(buf, e.buf[:e.floor])
	pos := len(buf) - e.written()
	copy(buf[pos:], e.buf[e.pos:])
	e.buf, e.pos = buf, pos
}

// The longest tag and varint: what is to be added to the length of a field's content.
const maxHeader = 2 + binary.MaxVarintLen64

// putVarint writes v; there must be room.
func (e *encoder) putVarint(v uint64) {
	if v < 0x80 {
		e.pos--
		e.buf[e.pos] = byte(v)
		return
	}
	if v < 1<<14 {
		e.pos -= 2
		to := e.buf[e.pos : e.pos+2]
		to[0], to[1] = byte(v)|0x80, byte(v>>7)
		return
	}
	e.pos -= varintSize(v)
	binary.PutUvarint(e.buf[e.pos:], v)
}

// varintSize returns how many bytes v takes.
func varintSize(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

// putTag writes the tag of field num; there must be room.
func (e *encoder) putTag(num int, wireType uint8) { e.putVarint(uint64(num)<<3 | uint64(wireType)) }

// close makes what was written since end a length-prefixed field.
func (e *encoder) close(num, end int) {
	e.room(maxHeader)
	e.putVarint(uint64(e.written() - end))
	e.putTag(num, wireBytes)
}

func (e *encoder) raw(b []byte) {
	e.room(len(b))
	e.pos -= len(b)
	copy(e.buf[e.pos:], b)
}

func (e *encoder) string(num int, s string) {
	if s != "" {
		e.room(len(s) + maxHeader)
		e.putString(num, s)
	}
}

// putString writes s, even an empty one; there must be room.
func (e *encoder) putString(num int, s string) {
	e.pos -= len(s)
	copy(e.buf[e.pos:], s)
	e.putVarint(uint64(len(s)))
	e.putTag(num, wireBytes)
}

func (e *encoder) varint(num int, v uint64) {
	if v != 0 {
		e.room(maxHeader)
		e.putVarint(v)
		e.putTag(num, wireVarint)
	}
}

func (e *encoder) sint32(num int, v int32) { e.varint(num, uint64(uint32(v<<1)^uint32(v>>31))) }

func (e *encoder) fixed64(num int, v uint64) {
	if v != 0 {
		e.room(maxHeader)
		e.putFixed64(num, v)
	}
}

// putFixed64 writes v, even zero; there must be room.
func (e *encoder) putFixed64(num int, v uint64) {
	e.putBits(v)
	e.putTag(num, wireFixed64)
}

// putBits writes v alone; there must be room.
func (e *encoder) putBits(v uint64) {
	e.pos -= 8
	binary.LittleEndian.PutUint64(e.buf[e.pos:], v)
}

func (e *encoder) fixed32(num int, v uint32) {
	if v != 0 {
		e.room(maxHeader)
		e.pos -= 4
		binary.LittleEndian.PutUint32(e.buf[e.pos:], v)
		e.putTag(num, wireFixed32)
	}
}

// double leaves out 0, but not -0.
func (e *encoder) double(num int, v float64) { e.fixed64(num, math.Float64bits(v)) }

func (e *encoder) traceID(num int, id creel.TraceID) {
	if id != (creel.TraceID{}) {
		e.room(len(id) + maxHeader)
		e.pos -= len(id)
		copy(e.buf[e.pos:], id[:])
		e.putVarint(uint64(len(id)))
		e.putTag(num, wireBytes)
	}
}

func (e *encoder) spanID(num int, id creel.SpanID) {
	if id != (creel.SpanID{}) {
		e.room(len(id) + maxHeader)
		e.pos -= len(id)
		copy(e.buf[e.pos:], id[:])
		e.putVarint(uint64(len(id)))
		e.putTag(num, wireBytes)
	}
}

func (e *encoder) attrs(num int, as creel.Attrs) {
	for i := len(as) - 1; i >= 0; i-- {
		a := &as[i]
		if e.plainAttr(num, a) {
			continue
		}
		end := e.written()
		if a.Value.Kind() != creel.ValueEmpty {
			e.value(2, a.Value)
		}
		e.string(1, a.Key)
		e.close(num, end)
	}
}

// plainAttr writes the commonest kind of attribute at once: a string or a number, less than 128 bytes in all. Others are
// left alone.
func (e *encoder) plainAttr(num int, a *creel.Attr) bool {
	size := 0 // of the AnyValue
	kind := a.Value.Kind()
	switch kind {
	case creel.ValueString:
		size = 2 + len(a.Value.Str())
	case creel.ValueInt:
		size = 1 + varintSize(uint64(a.Value.Int()))
	case creel.ValueDouble:
		size = 9
	case creel.ValueBool:
		size = 2
	default:
		return false
	}
	n := 4 + len(a.Key) + size
	if n >= 0x80 || a.Key == "" {
		return false
	}
	e.room(2 + n)
	e.pos -= 2 + n
	to := e.buf[e.pos : e.pos+2+n]
	to[0], to[1], to[2], to[3] = byte(num<<3|wireBytes), byte(n), tagKey, byte(len(a.Key))
	copy(to[4:], a.Key)
	to = to[4+len(a.Key):]
	to[0], to[1] = tagValue, byte(size)
	switch to = to[2:]; kind {
	case creel.ValueString:
		to[0], to[1] = tagString, byte(size-2)
		copy(to[2:], a.Value.Str())
	case creel.ValueInt:
		to[0] = tagInt
		binary.PutUvarint(to[1:], uint64(a.Value.Int()))
	case creel.ValueDouble:
		to[0] = tagDouble
		binary.LittleEndian.PutUint64(to[1:], math.Float64bits(a.Value.Double()))
	case creel.ValueBool:
		to[0], to[1] = tagBool, 0
		if a.Value.Bool() {
			to[1] = 1
		}
	}
	return true
}

// value writes v as an AnyValue, even an empty one.
func (e *encoder) value(num int, v creel.Value) {
	end := e.written()
	switch v.Kind() {
	case creel.ValueString:
		s := v.Str()
		e.room(len(s) + 2*maxHeader)
		e.putString(1, s)
		e.putVarint(uint64(e.written() - end))
		e.putTag(num, wireBytes)
		return
	case creel.ValueBool:
		e.room(maxHeader)
		b := uint64(0)
		if v.Bool() {
			b = 1
		}
		e.putVarint(b)
		e.putTag(2, wireVarint)
	case creel.ValueInt:
		e.room(maxHeader)
		e.putVarint(uint64(v.Int()))
		e.putTag(3, wireVarint)
	case creel.ValueDouble:
		e.room(maxHeader)
		e.putFixed64(4, math.Float64bits(v.Double()))
	case creel.ValueList:
		vs := v.List()
		for i := len(vs) - 1; i >= 0; i-- {
			e.value(1, vs[i])
		}
		e.close(5, end)
	case creel.ValueMap:
		e.attrs(1, v.Map())
		e.close(6, end)
	case creel.ValueBytes:
		e.raw(v.Bytes())
		e.close(7, end)
	}
	e.close(num, end)
}

// request writes the batches, those that nobody has changed as the bytes that they came in.
func (e encoder) request(batches []*creel.Batch) encoder {
	for i := len(batches) - 1; i >= 0; i-- {
		if wire := batches[i].Wire(); wire != nil {
			e.raw(wire)
			continue
		}
		e = e.batch(batches[i])
	}
	return e
}

// batch writes the records of b.
func (e encoder) batch(b *creel.Batch) encoder {
	switch b.Signal() {
	case creel.Logs:
		return groups(e, b.Logs(), logOrigin, encoder.logs)
	case creel.Metrics:
		return groups(e, b.Metrics(), metricOrigin, encoder.metrics)
	case creel.Traces:
		return groups(e, b.Spans(), spanOrigin, encoder.spans)
	}
	panic("BUG: unknown signal")
}

// groups writes records, in groups of one resource and in them groups of one origin, which write writes.
func groups[T any](e encoder, records []T, origin func(*T) *creel.Origin, write func(encoder, []T) encoder) encoder {
	var none creel.Origin
	for n := len(records); n > 0; {
		outer := e.written()
		o := origin(&records[n-1])
		if o == nil {
			o = &none
		}
		e.string(3, o.Resource.SchemaURL)
		for n > 0 {
			of := origin(&records[n-1])
			i := n - 1
			for i > 0 && origin(&records[i-1]) == of {
				i--
			}
			if of == nil {
				of = &none
			}
			if !sameResource(&of.Resource, &o.Resource) {
				break
			}
			inner := e.written()
			e.string(3, of.Scope.SchemaURL)
			e = write(e, records[i:n])
			e.scope(&of.Scope)
			e.close(2, inner)
			n = i
		}
		e.resource(&o.Resource)
		e.close(1, outer)
	}
	return e
}

// sameResource reports whether a and b are surely the same: they share their slices.
func sameResource(a, b *creel.Resource) bool {
	return a == b || sameSlice(a.Attrs, b.Attrs) && sameSlice(a.Entities, b.Entities) &&
		a.Dropped == b.Dropped && a.SchemaURL == b.SchemaURL
}

func sameSlice[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || unsafe.SliceData(a) == unsafe.SliceData(b))
}

func (e *encoder) resource(r *creel.Resource) {
	end := e.written()
	for i := len(r.Entities) - 1; i >= 0; i-- {
		e.entity(&r.Entities[i])
	}
	e.varint(2, uint64(r.Dropped))
	e.attrs(1, r.Attrs)
	if e.written() > end {
		e.close(1, end)
	}
}

func (e *encoder) entity(r *creel.EntityRef) {
	end := e.written()
	e.strings(4, r.DescriptionKeys)
	e.strings(3, r.IDKeys)
	e.string(2, r.Type)
	e.string(1, r.SchemaURL)
	e.close(3, end)
}

func (e *encoder) strings(num int, ss []string) {
	for i := len(ss) - 1; i >= 0; i-- {
		e.room(len(ss[i]) + maxHeader)
		e.putString(num, ss[i])
	}
}

func (e *encoder) scope(s *creel.Scope) {
	end := e.written()
	e.varint(4, uint64(s.Dropped))
	e.attrs(3, s.Attrs)
	e.string(2, s.Version)
	e.string(1, s.Name)
	if e.written() > end {
		e.close(1, end)
	}
}
