package otlp

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"google.golang.org/grpc/encoding"

	"github.com/creelhq/creel"
)

// compressor is one way to compress. It is also what grpc-go calls an encoding.Compressor.
type compressor struct {
	name    string
	writers sync.Pool // of flusher
	readers sync.Pool // of resetter
	write   func() flusher
	read    func() (resetter, error)
}

type flusher interface {
	io.WriteCloser
	Reset(io.Writer)
}

type resetter interface {
	io.Reader
	Reset(io.Reader) error
}

// window bounds what a zstd decoder remembers, and so its memory: 8 MiB, as RFC 8878 wants decoders to support at least.
const window = 8 << 20

// ratio is how many bytes may come out of one, beyond ratioFree: what is compressed more is made to cost memory.
const (
	ratio     = 100
	ratioFree = 1 << 20
)

var errRatio = fmt.Errorf("request is compressed more than %d : 1; send less at once", ratio)

func newGzip() *compressor {
	return &compressor{
		name:  "gzip",
		write: func() flusher { w, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed); return w }, // the level is right
		read:  func() (resetter, error) { return &gzip.Reader{}, nil },
	}
}

func newZstd() *compressor {
	return &compressor{
		name: "zstd",
		write: func() flusher {
			w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(256<<10))
			if err != nil {
				panic("BUG: " + err.Error())
			}
			return w
		},
		read: func() (resetter, error) {
			return zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(window), zstd.WithDecoderLowmem(true))
		},
	}
}

// compressors are those that requests may name. They hold pools, and nothing that one request could tell another.
//
// grpc-go finds compressors in a registry of the whole process, which must be filled before main begins. There is no
// other way to give it zstd.
var compressors = func() map[string]*compressor {
	all := map[string]*compressor{"gzip": newGzip(), "zstd": newZstd()}
	for _, c := range all {
		encoding.RegisterCompressor(c)
	}
	return all
}()

// Name is for grpc-go.
func (c *compressor) Name() string { return c.name }

// Compress returns a writer that writes what it gets, compressed, to w. It must be closed.
func (c *compressor) Compress(w io.Writer) (io.WriteCloser, error) {
	f, ok := c.writers.Get().(flusher)
	if !ok {
		f = c.write()
	}
	f.Reset(w)
	return &pooledWriter{f, c}, nil
}

type pooledWriter struct {
	flusher
	c *compressor
}

// Close writes the rest.
func (w *pooledWriter) Close() error {
	err := w.flusher.Close()
	w.flusher.Reset(nil)
	w.c.writers.Put(w.flusher)
	return err
}

// Decompress returns a reader of what r holds compressed.
func (c *compressor) Decompress(r io.Reader) (io.Reader, error) {
	d, ok := c.readers.Get().(resetter)
	if !ok {
		var err error
		if d, err = c.read(); err != nil {
			return nil, err
		}
	}
	p := &pooledReader{resetter: d, c: c, in: counter{Reader: r}}
	if err := d.Reset(&p.in); err != nil {
		c.readers.Put(d)
		return nil, fmt.Errorf("decompress %s: %w", c.name, err)
	}
	return p, nil
}

// counter counts what is read.
type counter struct {
	io.Reader
	n int64
}

// Read reads on.
func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	return n, err
}

type pooledReader struct {
	resetter
	c   *compressor
	in  counter
	out int64
}

// Read fails with errRatio when too much comes out, and gives the decoder back at the end.
func (r *pooledReader) Read(p []byte) (int, error) {
	if r.resetter == nil {
		return 0, io.EOF
	}
	n, err := r.resetter.Read(p)
	r.out += int64(n)
	if r.out > ratioFree+ratio*r.in.n {
		return 0, errRatio
	}
	if errors.Is(err, io.EOF) {
		r.c.readers.Put(r.resetter)
		r.resetter = nil
	}
	return n, err
}

// errTooLarge is what readAll fails with when there is more than the limit.
var errTooLarge = errors.New("request is too large")

// readAll reads r to its end into memory of its own, of which little is unused. hint is how much to expect, at most limit.
func readAll(r io.Reader, hint, limit int64) ([]byte, error) {
	buf := creel.NewBuffer(int(min(hint, limit)) + 1)[:0] // one more, to find the end without growing
	for {
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if int64(len(buf)) > limit {
			return nil, errTooLarge
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
	}
	if cap(buf)-len(buf) > len(buf)/4 {
		buf = append(make([]byte, 0, len(buf)), buf...)
	}
	return buf, nil
}
