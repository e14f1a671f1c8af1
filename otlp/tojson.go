package otlp

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"math"
	"strconv"

	"github.com/creelhq/creel"
)

// toJSON replaces buf[at:], a message of kind k as encoder writes it, by the same in JSON. It relies on what an encoder
// does: fields stand in order, so that the elements of a list follow each other, and only one member of a oneof is there.
func toJSON(buf []byte, at int, k kind) []byte {
	end := len(buf)
	buf = appendMessage(buf, k, buf[at:])
	return buf[:at+copy(buf[at:], buf[end:])]
}

func appendMessage(dst []byte, k kind, b []byte) []byte {
	dst = append(dst, '{')
	for p := 0; p < len(b); {
		tag, q := varint(b, p)
		f := &schema[k][tag>>3]
		if p > 0 {
			dst = append(dst, ',')
		}
		dst = append(append(append(dst, '"'), f.name...), `":`...)
		switch f.shape {
		case texts, messages:
			dst = append(dst, '[')
			for n := run(b, p); n > 0; n-- {
				dst, p = appendSingle(dst, f, b, p+1)
				dst = append(dst, ',')
			}
			dst[len(dst)-1] = ']'
		case varints, fixed64s, doubles:
			var packed []byte
			packed, p = bytesAt(b, q)
			dst = append(dst, '[')
			for i := 0; i < len(packed); {
				dst, i = appendSingle(dst, f, packed, i)
				dst = append(dst, ',')
			}
			dst[len(dst)-1] = ']'
		default:
			dst, p = appendSingle(dst, f, b, q)
		}
	}
	return append(dst, '}')
}

// appendSingle appends the value at b[p:] and returns where it ends.
func appendSingle(dst []byte, f *field, b []byte, p int) ([]byte, int) {
	var s []byte
	var u uint64
	switch f.shape {
	case boolean:
		u, p = varint(b, p)
		return strconv.AppendBool(dst, u != 0), p
	case enum:
		u, p = varint(b, p)
		return strconv.AppendInt(dst, int64(int32(u)), 10), p
	case uint32s:
		u, p = varint(b, p)
		return strconv.AppendUint(dst, u, 10), p
	case sint32:
		i, p := sint32At(b, p)
		return strconv.AppendInt(dst, int64(i), 10), p
	case int64s:
		u, p = varint(b, p)
		return append(strconv.AppendInt(append(dst, '"'), int64(u), 10), '"'), p
	case varints:
		u, p = varint(b, p)
		return append(strconv.AppendUint(append(dst, '"'), u, 10), '"'), p
	case fixed32:
		return strconv.AppendUint(dst, uint64(binary.LittleEndian.Uint32(b[p:])), 10), p + 4
	case fixed64, fixed64s:
		u, p = fixed64At(b, p)
		return append(strconv.AppendUint(append(dst, '"'), u, 10), '"'), p
	case sfixed64:
		u, p = fixed64At(b, p)
		return append(strconv.AppendInt(append(dst, '"'), int64(u), 10), '"'), p
	case double, doubles:
		u, p = fixed64At(b, p)
		return appendDouble(dst, math.Float64frombits(u)), p
	}
	s, p = bytesAt(b, p)
	switch f.shape {
	case blob:
		return append(base64.StdEncoding.AppendEncode(append(dst, '"'), s), '"'), p
	case traceID, spanID:
		return append(hex.AppendEncode(append(dst, '"'), s), '"'), p
	case message, messages:
		return appendMessage(dst, f.of, s), p
	}
	return appendText(dst, s), p
}

// appendText appends s as a JSON string. Most have nothing to escape.
func appendText(dst, s []byte) []byte {
	for _, c := range s {
		if c < ' ' || c == '"' || c == '\\' || c >= 0x7f {
			return creel.String(str(s)).Append(dst)
		}
	}
	return append(append(append(dst, '"'), s...), '"')
}

// appendDouble appends f as protobuf's JSON mapping writes it.
func appendDouble(dst []byte, f float64) []byte {
	switch {
	case math.IsNaN(f):
		return append(dst, `"NaN"`...)
	case math.IsInf(f, 1):
		return append(dst, `"Infinity"`...)
	case math.IsInf(f, -1):
		return append(dst, `"-Infinity"`...)
	}
	return strconv.AppendFloat(dst, f, 'g', -1, 64)
}
