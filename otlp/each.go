package otlp

import "github.com/creelhq/creel"

// EncodeEach is Encode, and gives each batch, with creel.Encoded, its own part of the request. The batches must not be
// changed any more.
func EncodeEach(memory []byte, batches ...*creel.Batch) (request, next []byte) {
	e := newEncoder(memory[:0])
	var few [16]int
	ends := few[:0]
	for i := len(batches) - 1; i >= 0; i-- { // from the end: so it is written
		ends = append(ends, e.written())
		e = e.request(batches[i : i+1])
	}
	request = e.buf[e.pos:]
	to := 0
	for i, b := range batches {
		from := to
		to = len(request) - ends[len(batches)-1-i]
		creel.Encoded(b, request[from:to:to])
	}
	return request, e.buf
}
