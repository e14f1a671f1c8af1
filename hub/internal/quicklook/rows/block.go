package rows

import (
	"encoding/binary"
	"errors"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"

	"github.com/creelhq/creel"
)

// A block is up to blockRows log records in one compressed piece, with a filter that tells what it has not. A search
// opens only the blocks that may have something. That costs a fraction of what rows and an index by word do: see
// docs/decisions.
const (
	blockRows  = 512
	blockBytes = 256 << 10 // before compression
)

// codec compresses and decompresses. It may be used concurrently.
type codec struct {
	enc *zstd.Encoder
	dec *zstd.Decoder
}

func newCodec() codec {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(512<<10))
	if err != nil {
		panic("BUG: " + err.Error())
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(256<<20))
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return codec{enc, dec}
}

// block is one that is being filled.
type block struct {
	id          int64 // in the file; 0: it is not there yet
	n           int
	first, last int64  // ids of records
	severities  uint32 // a bit for each that occurs
	raw         []byte
	before      int64 // id of the record before
	tokens      map[uint64]struct{}
}

func newBlock() *block { return &block{tokens: make(map[uint64]struct{}, 4096)} }

func (b *block) full() bool { return b.n >= blockRows || len(b.raw) >= blockBytes }

// clear makes it an empty one.
func (b *block) clear() {
	clear(b.tokens)
	*b = block{raw: b.raw[:0], tokens: b.tokens}
}

// add appends a record. attrs are those of r as they were.
func (b *block) add(r *row, attrs creel.Attrs) {
	if b.n == 0 {
		b.first, b.last = r.id, r.id
	}
	b.first, b.last = min(b.first, r.id), max(b.last, r.id)
	b.severities |= severityBit(r.severity)
	b.raw = r.append(b.raw, b.before)
	b.before = r.id
	b.n++
	var scratch [128]byte
	add := func(h uint64) { b.tokens[h] = struct{}{} }
	eachWord(r.body, scratch[:], add)
	for i := range attrs {
		add(attrToken(scratch[:], &attrs[i]))
	}
	add(resourceToken(r.resource))
	for kind, s := range map[byte]string{'t': r.trace, 's': r.span, 'e': r.event} {
		if s != "" {
			add(token(scratch[:], kind, s))
		}
	}
}

func severityBit(n int) uint32 {
	if n < 0 || n > 24 {
		return 1 << 31
	}
	return 1 << n
}

// append encodes a record behind the one with id before.
func (r *row) append(raw []byte, before int64) []byte {
	raw = binary.AppendVarint(raw, r.id-before)
	raw = binary.AppendVarint(raw, r.time-(r.id>>counterBits)*1e6)
	raw = binary.AppendVarint(raw, int64(r.severity))
	raw = binary.AppendVarint(raw, r.resource)
	json := byte(0)
	if r.isJSON {
		json = 1
	}
	raw = append(raw, json)
	for _, s := range [...]string{r.text, r.scope, r.event, r.trace, r.span, r.body, r.attrs.text} {
		raw = binary.AppendUvarint(raw, uint64(len(s)))
		raw = append(raw, s...)
	}
	return raw
}

var errBlock = errors.New("a block is damaged")

// decode calls f with each record of a block, in the order in which they came. buf is room to decompress in, which is
// returned for the next time: the record and its strings are gone by then.
func (c codec) decode(data, buf []byte, f func(*row)) ([]byte, error) {
	raw, err := c.dec.DecodeAll(data, buf[:0])
	if err != nil {
		return buf, errors.Join(errBlock, err)
	}
	d := decoder{text: alias(raw)}
	var r row
	for id := int64(0); d.text != ""; {
		id += d.varint()
		r = row{id: id, time: d.varint() + (id>>counterBits)*1e6, severity: int(d.varint()), resource: d.varint(), isJSON: d.take(1) == "\x01"}
		r.text, r.scope, r.event, r.trace, r.span, r.body, r.attrs.text = d.str(), d.str(), d.str(), d.str(), d.str(), d.str(), d.str()
		if d.bad {
			return raw, errBlock
		}
		f(&r)
	}
	return raw, nil
}

// decoder reads what row.append wrote.
type decoder struct {
	text string
	bad  bool
}

func (d *decoder) varint() int64 {
	u := d.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

func (d *decoder) uvarint() (u uint64) {
	for i := range min(len(d.text), binary.MaxVarintLen64) {
		c := d.text[i]
		u |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			d.text = d.text[i+1:]
			return u
		}
	}
	d.bad, d.text = true, ""
	return 0
}

func (d *decoder) take(n uint64) string {
	if n > uint64(len(d.text)) {
		d.bad, d.text = true, ""
		return ""
	}
	s := d.text[:n]
	d.text = d.text[n:]
	return s
}

func (d *decoder) str() string { return d.take(d.uvarint()) }

// A filter is a Bloom filter (Bloom 1970), with double hashing (Kirsch and Mitzenmacher 2006): 10 bits and 7 probes for
// each token, so that one in a hundred answers "perhaps" for nothing.
type filter []byte

const (
	filterBits   = 10
	filterProbes = 7
)

func newFilter(tokens map[uint64]struct{}) filter {
	f := make(filter, (len(tokens)*filterBits+7)/8)
	for h := range tokens {
		for i := range uint64(filterProbes) {
			bit := f.bit(h, i)
			f[bit/8] |= 1 << (bit % 8)
		}
	}
	return f
}

func (f filter) bit(h, i uint64) uint64 { return (h + i*(h>>32|1)) % (uint64(len(f)) * 8) }

// has reports whether the token may be there.
func (f filter) has(h uint64) bool {
	if len(f) == 0 {
		return false
	}
	for i := range uint64(filterProbes) {
		bit := f.bit(h, i)
		if f[bit/8]&(1<<(bit%8)) == 0 {
			return false
		}
	}
	return true
}

// token hashes a text of a kind: w a word, a an attribute, n an attribute that is a number, t a trace, s a span, e an
// event, r a resource.
func token(scratch []byte, kind byte, parts ...string) uint64 {
	buf := append(scratch[:0], kind)
	for i, p := range parts {
		if i > 0 {
			buf = append(buf, 0)
		}
		buf = append(buf, p...)
	}
	return xxhash.Sum64(buf)
}

func resourceToken(id int64) uint64 { return token(nil, 'r', strconv.FormatInt(id, 10)) }

// pairToken is that of an attribute as text; numbers that are equal have the same.
func pairToken(scratch []byte, key, value string) uint64 {
	if n, ok := parseNumber(value); ok {
		return numberToken(scratch, key, n)
	}
	return token(scratch, 'a', key, value)
}

func numberToken(scratch []byte, key string, n float64) uint64 {
	if n == 0 {
		n = 0 // not -0
	}
	buf := append(append(append(scratch[:0], 'n'), key...), 0)
	return xxhash.Sum64(binary.LittleEndian.AppendUint64(buf, math.Float64bits(n)))
}

// parseNumber reads what conditions compare as numbers.
func parseNumber(s string) (float64, bool) {
	if s == "" || s[0] > 'n' && s[0] != 'N' { // most texts: no number begins with a later letter
		return 0, false
	}
	n, err := strconv.ParseFloat(s, 64)
	return n, err == nil && n == n
}

// attrToken is the pairToken of an attribute, as attributes.get would have it.
func attrToken(scratch []byte, a *creel.Attr) uint64 {
	switch v := a.Value; {
	case !utf8.ValidString(a.Key):
	case v.Kind() == creel.ValueString && utf8.ValidString(v.Str()):
		return pairToken(scratch, a.Key, v.Str())
	case v.Kind() == creel.ValueInt:
		return numberToken(scratch, a.Key, float64(v.Int()))
	}
	written := strings.TrimPrefix(string(creel.Attrs{*a}.Append(nil)), "{")
	end := jsonEnd(written)
	value := strings.TrimPrefix(written[end:], ":")
	return pairToken(scratch, unquote(written[:end]), unquote(value[:jsonEnd(value)]))
}

// eachWord calls f with the tokens of a body's words: those that the function tokens returns.
func eachWord(body string, scratch []byte, f func(uint64)) {
	buf := append(scratch[:0], 'w')
	for i := 0; i <= len(body); i++ {
		c := byte(' ')
		if i < len(body) {
			c = body[i]
		}
		switch {
		case c >= utf8.RuneSelf:
			for _, w := range tokens(body) {
				f(token(nil, 'w', w))
			}
			return
		case c >= 'A' && c <= 'Z':
			buf = append(buf, c+'a'-'A')
		case c >= 'a' && c <= 'z' || c >= '0' && c <= '9':
			buf = append(buf, c)
		case len(buf) > 1:
			f(xxhash.Sum64(buf))
			buf = buf[:1]
		}
	}
}

// clean makes a body that can be told as JSON.
func clean(body string) string { return strings.ToValidUTF8(body, "\uFFFD") }
