// Package otlp translates between batches and OTLP 1.11, in protobuf's wire format and in JSON.
//
// What comes in is walked once, when its whole structure is checked and its records are counted; it is decoded only if
// somebody looks at the records, and sent on as the bytes it came in if nobody changes them. One table (schema.go)
// describes the messages: the check and both directions of JSON follow it. Decoding and encoding the wire format are
// written out by hand, because every record pays for them.
//
// Kept is every field of the three signals, with these exceptions: unknown fields, profiles' indices into a dictionary of
// strings, and groups without records (a resource, scope or metric that has none) are lost when a batch is encoded anew.
// Neighbouring groups that do not differ may come out as one. Invalid UTF-8 is kept on the wire; JSON cannot carry it.
//
// The package knows nothing of transports: neither gRPC nor HTTP, compression nor sizes.
package otlp

import (
	"fmt"

	"github.com/creelhq/creel"
)

// Parse returns a batch of the records in wire, an ExportLogsServiceRequest, ExportMetricsServiceRequest or
// ExportTraceServiceRequest. The whole structure is checked and the records are counted, but nothing is decoded before
// somebody looks. wire belongs to the batch and must not be changed afterwards: decoded strings alias it.
//
// Errors: anything that protobuf forbids, a known field of another type than it has, an id that is neither absent nor of
// 16 (trace) or 8 (span) bytes, attribute values nested deeper than 32.
func Parse(s creel.Signal, wire []byte, m *creel.Memory) (*creel.Batch, error) {
	n, err := check(requestOf(s), wire)
	if err != nil {
		return nil, fmt.Errorf("parse %v request: %w", s, err)
	}
	return creel.NewWire(s, n, wire, m, decoderOf(s)), nil
}

// ParseJSON returns a batch of the records in text, an export request in OTLP's JSON encoding. text is not kept.
//
// As OTLP and protobuf's JSON mapping ask: names are lowerCamelCase or the original ones, ids are hexadecimal in any case, enums are
// integers, other numbers may be strings, bytes are base64, null is absent, unknown names are ignored. The errors are
// those of Parse, and of JSON itself.
func ParseJSON(s creel.Signal, text []byte, m *creel.Memory) (*creel.Batch, error) {
	wire, err := wireFromJSON(nil, requestOf(s), text)
	if err != nil {
		return nil, fmt.Errorf("parse %v request: %w", s, err)
	}
	return Parse(s, wire, m)
}

// Append appends an export request of the batches, which are of one signal, to dst. A batch that nobody has changed is
// passed through as the bytes it came in; others are encoded, neighbours of equal origin in one group. A record without
// an origin gets an empty one; a data point without a kind counts as a gauge's.
func Append(dst []byte, batches ...*creel.Batch) []byte {
	for len(batches) > 0 {
		if wire := batches[0].Wire(); wire != nil { // written at once where it shall be
			dst, batches = append(dst, wire...), batches[1:]
			continue
		}
		n := 1
		for n < len(batches) && batches[n].Wire() == nil {
			n++
		}
		e := newEncoder(dst).request(batches[:n])
		dst, batches = e.finish(), batches[n:]
	}
	return dst
}

// Encode is Append for who encodes often: the request lies where it was written, at the end of memory or of what has taken
// its place. next is the memory for the next call, when the request is not used any more.
func Encode(memory []byte, batches ...*creel.Batch) (request, next []byte) {
	e := newEncoder(memory[:0]).request(batches)
	return e.buf[e.pos:], e.buf
}

// AppendJSON appends an export request of the batches, which are of one signal, to dst, in OTLP's JSON encoding.
func AppendJSON(dst []byte, batches ...*creel.Batch) []byte {
	if len(batches) == 0 {
		return append(dst, "{}"...)
	}
	e := newEncoder(dst)
	for i := len(batches) - 1; i >= 0; i-- {
		e = e.batch(batches[i])
	}
	return toJSON(e.finish(), len(dst), requestOf(batches[0].Signal()))
}
