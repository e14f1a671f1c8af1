package otlp

import (
	"io"
	"sync"
	"sync/atomic"

	"github.com/creelhq/creel"
	codec "github.com/creelhq/creel/otlp"
)

// A message is an export request in protobuf, in parts that stand one behind the other: the bytes that batches came in,
// which are not copied, and what was encoded.
type message struct {
	parts   [][]byte
	encoded []*buffer // encoded[i] holds parts[i]; nil for bytes that a batch came in
	size    int
}

// buffer is the memory of an encoded part. It is a mem.BufferPool for that one part, so that grpc-go can say that it has
// done with it.
type buffer struct {
	bytes  []byte // the part
	memory []byte // what it lies in
	home   *sync.Pool
}

// Get belongs to mem.BufferPool, and is not called.
func (b *buffer) Get(int) *[]byte { panic("BUG: a buffer was asked for more memory") }

// Put takes the memory back.
func (b *buffer) Put(*[]byte) { b.home.Put(b) }

// encode makes m the request of the batches, with memory from pool.
func (m *message) encode(pool *sync.Pool, batches []*creel.Batch) {
	m.parts, m.encoded, m.size = m.parts[:0], m.encoded[:0], 0
	for i := 0; i < len(batches); {
		part, b, end := batches[i].Wire(), (*buffer)(nil), i+1
		if part == nil {
			for end < len(batches) && batches[end].Wire() == nil {
				end++
			}
			if b, _ = pool.Get().(*buffer); b == nil {
				b = &buffer{home: pool}
			}
			b.bytes, b.memory = codec.Encode(b.memory, batches[i:end]...)
			part = b.bytes
		}
		m.parts, m.encoded, m.size = append(m.parts, part), append(m.encoded, b), m.size+len(part)
		i = end
	}
}

// payload is the body of an HTTP request, in memory that is used again when nobody reads it any more: the transport may
// still do when the answer has come.
type payload struct {
	message
	zipped zipped
	text   []byte // as JSON
	body   [][]byte
	size   int
	users  atomic.Int32
	home   *sync.Pool
}

// zipped is what a compressor has written.
type zipped []byte

// Write appends p.
func (z *zipped) Write(p []byte) (int, error) {
	*z = append(*z, p...)
	return len(p), nil
}

// one makes b the whole body.
func (p *payload) one(b []byte) { p.body, p.size = append(p.body[:0], b), len(b) }

// drop is called once by each user.
func (p *payload) drop() {
	if p.users.Add(-1) > 0 {
		return
	}
	for i, b := range p.encoded {
		if b != nil {
			b.Put(nil)
		}
		p.encoded[i] = nil
	}
	clear(p.parts)
	clear(p.body)
	p.home.Put(p)
}

// open returns a reader of the body, which counts as a user until it is closed.
func (p *payload) open() io.ReadCloser {
	p.users.Add(1)
	return &payloadReader{payload: p}
}

type payloadReader struct {
	payload *payload
	part    int
	offset  int
	closed  atomic.Bool
}

// Read reads on. The transport does not read after it has closed.
func (r *payloadReader) Read(p []byte) (n int, err error) {
	for body := r.payload.body; r.part < len(body) && n < len(p); {
		k := copy(p[n:], body[r.part][r.offset:])
		n, r.offset = n+k, r.offset+k
		if r.offset == len(body[r.part]) {
			r.part, r.offset = r.part+1, 0
		}
	}
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

// Close may be called more than once.
func (r *payloadReader) Close() error {
	if !r.closed.Swap(true) {
		r.payload.drop()
	}
	return nil
}
