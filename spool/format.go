package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"
	"strings"
)

// The format, little endian. A segment is a file header and then records, back to back:
//
//	file header, 64 bytes             record header, 48 bytes, then its parts, then the payload
//	 0  magic           8             0  sync marker       4
//	 8  version         4             4  checksum          4  CRC32C of generation and bytes 8 to 48
//	12  checksum        4  CRC32C     8  payload length    4
//	16  spool id       16            12  payload checksum  4  CRC32C
//	32  generation      8            16  sequence          8  of the first record; the next is this + records
//	40  base sequence   8            24  records           4
//	48  created         8  Unix ns   28  codec, signal, flags, parts
//	56  0               8            32  batch id         16
//
// Of parts, what the item was read from, the header holds the number. If there are any, source, from and to of each follow,
// 24 bytes, and a CRC32C that continues the header's. They have their own, so that a bad byte in them costs nothing else.
//
// The header has a checksum apart from the payload's (which it covers), so that opening can hop from header to header, and
// a bad byte in a payload costs neither the way to the next record nor the knowledge of what was lost. The generation
// starts at a random number, so that a payload that holds the image of a record is never taken for one.
const (
	version    = 1
	fileHeader = 64
	recHeader  = 48
	syncMarker = 0xc5ee15a7
	magicLog   = "creelseg"
	magicAcks  = "creelack"

	// maxPayload bounds what a damaged length can ask for; it is above the largest request that creel takes.
	maxPayload = 128 << 20
	// maxSequence keeps sums of sequences far from overflow.
	maxSequence = 1 << 62
	// A jump lies between the sequences before an opening that followed a crash, and those after it: what was handed out
	// but never reached the disk is not handed out again. Distances between records count modulo a jump.
	jump = 1 << 32
)

const flagEnd = 1 // a record without payload, by which Close says that the log ends here

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrNewer says that a newer version of creel has written the spool.
var ErrNewer = errors.New("written by a newer version of creel")

// ID names a batch. The zero ID is no name: such batches are never taken for repeats.
type ID [16]byte

type fileHead struct {
	id               [16]byte
	generation, base uint64
	created          int64
}

func (h *fileHead) encode(magic string) []byte {
	b := make([]byte, fileHeader)
	copy(b, magic)
	binary.LittleEndian.PutUint32(b[8:], version)
	copy(b[16:], h.id[:])
	binary.LittleEndian.PutUint64(b[32:], h.generation)
	binary.LittleEndian.PutUint64(b[40:], h.base)
	binary.LittleEndian.PutUint64(b[48:], uint64(h.created))
	binary.LittleEndian.PutUint32(b[12:], headSum(b))
	return b
}

func headSum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:12], castagnoli), castagnoli, b[16:fileHeader])
}

// readFileHead reads the file header. ok is false when it is damaged. Errors are those of the disk, and ErrNewer: the
// checksum stays in its place in all versions to come.
func readFileHead(f io.ReaderAt, magic string) (h fileHead, ok bool, err error) {
	s := newScanner(f, 0, fileHeader, 0)
	b := s.view(0, fileHeader)
	if string(b[:8]) != magic || headSum(b) != binary.LittleEndian.Uint32(b[12:]) {
		return h, false, s.fail
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v > version {
		return h, false, fmt.Errorf("%w: format %d, this one knows %d", ErrNewer, v, version)
	}
	copy(h.id[:], b[16:])
	h.generation = binary.LittleEndian.Uint64(b[32:])
	h.base = binary.LittleEndian.Uint64(b[40:])
	h.created = int64(binary.LittleEndian.Uint64(b[48:]))
	return h, true, nil
}

// recHead is the header of a record.
type recHead struct {
	length, sum   uint32
	seq           uint64
	records       uint32
	codec, signal byte
	flags, parts  byte
	id            ID
	check         uint32 // its own checksum, once it was put or parsed
}

func (h *recHead) size() int64 { return recHeader + h.prefix() + int64(h.length) }
func (h *recHead) end() uint64 { return h.seq + uint64(h.records) }

// prefix is the bytes that parts take up before the payload.
func (h *recHead) prefix() int64 {
	if h.parts == 0 {
		return 0
	}
	return int64(h.parts)*partSize + 4
}

func (h *recHead) put(b []byte, generation uint64) {
	binary.LittleEndian.PutUint32(b, syncMarker)
	binary.LittleEndian.PutUint32(b[8:], h.length)
	binary.LittleEndian.PutUint32(b[12:], h.sum)
	binary.LittleEndian.PutUint64(b[16:], h.seq)
	binary.LittleEndian.PutUint32(b[24:], h.records)
	b[28], b[29], b[30], b[31] = h.codec, h.signal, h.flags, h.parts
	copy(b[32:], h.id[:])
	h.check = recSum(b, generation)
	binary.LittleEndian.PutUint32(b[4:], h.check)
}

// recSum mixes the generation in by hand: a buffer for it would escape to the heap.
func recSum(b []byte, generation uint64) uint32 {
	return crc32.Update(uint32(generation)^uint32(generation>>32)*0x9e3779b1, castagnoli, b[8:recHeader])
}

func (h *recHead) parse(b []byte, generation uint64) bool {
	if h.check = binary.LittleEndian.Uint32(b[4:]); binary.LittleEndian.Uint32(b) != syncMarker || h.check != recSum(b, generation) {
		return false
	}
	h.length = binary.LittleEndian.Uint32(b[8:])
	h.sum = binary.LittleEndian.Uint32(b[12:])
	h.seq = binary.LittleEndian.Uint64(b[16:])
	h.records = binary.LittleEndian.Uint32(b[24:])
	h.codec, h.signal, h.flags, h.parts = b[28], b[29], b[30], b[31]
	copy(h.id[:], b[32:])
	return h.length <= maxPayload && h.seq < maxSequence && (h.records > 0) != (h.flags&flagEnd != 0)
}

const (
	segSuffix = ".seg"
	segTemp   = "seg.tmp"

	suspectName = "suspect"
)

func segName(generation, base uint64) string {
	return fmt.Sprintf("%016x-%016x%s", generation, base, segSuffix)
}

// parseSegName is strict: a file with any other name is not ours.
func parseSegName(name string) (generation, base uint64, ok bool) {
	s, cut := strings.CutSuffix(name, segSuffix)
	if !cut || len(s) != 33 || s[16] != '-' {
		return 0, 0, false
	}
	generation, err1 := strconv.ParseUint(s[:16], 16, 64)
	base, err2 := strconv.ParseUint(s[17:], 16, 64)
	return generation, base, err1 == nil && err2 == nil && generation < maxSequence && base < maxSequence && name == segName(generation, base)
}

// A scanner reads the records of one segment through one buffer, whose size bounds the read-ahead.
type scanner struct {
	f    io.ReaderAt
	gen  uint64
	end  int64 // bytes of the file that may be read
	buf  []byte
	at   int64 // place of buf[0] in the file
	n    int   // bytes in buf
	fail error // the last read error; what could not be read reads as zeros
}

func newScanner(f io.ReaderAt, generation uint64, end int64, ahead int) *scanner {
	return &scanner{f: f, gen: generation, end: end, buf: make([]byte, max(ahead, fileHeader))}
}

const hop = 4 << 10 // bytes read for one header

// view returns n bytes at off, which are the buffer's; nil when the segment ends before.
func (s *scanner) view(off int64, n int) []byte {
	if off < 0 || off+int64(n) > s.end {
		return nil
	}
	if n > len(s.buf) {
		s.buf, s.n = make([]byte, n), 0
	}
	if off < s.at || off+int64(n) > s.at+int64(s.n) {
		ahead := len(s.buf)
		if off > s.at+int64(s.n) { // hopping from header to header: what is behind this one may not be wanted
			ahead = min(ahead, max(n, hop))
		}
		s.at, s.n = off, int(min(int64(ahead), s.end-off))
		s.read(s.buf[:s.n], off)
	}
	i := int(off - s.at)
	return s.buf[i : i+n]
}

// read fills p from off. After an error it goes on page by page, so that a bad sector costs what is on it.
func (s *scanner) read(p []byte, off int64) {
	if _, err := s.f.ReadAt(p, off); err == nil {
		return
	}
	const page = 4096
	for len(p) > 0 {
		n := min(len(p), page-int(off%page))
		if got, err := s.f.ReadAt(p[:n], off); err != nil {
			clear(p[got:n])
			if err != io.EOF { // a file that is shorter is damaged, not unreadable
				s.fail = err
			}
		}
		p, off = p[n:], off+int64(n)
	}
}

// head reads the record header at off.
func (s *scanner) head(off int64, h *recHead) bool {
	b := s.view(off, recHeader)
	return b != nil && h.parse(b, s.gen) && off+h.size() <= s.end
}

// find returns the first place at or after off where a whole record header is, or the end.
func (s *scanner) find(off int64, h *recHead) (int64, bool) {
	marker := binary.LittleEndian.AppendUint32(nil, syncMarker)
	for off+recHeader <= s.end {
		s.view(off, recHeader)
		b := s.buf[int(off-s.at):s.n]
		i := bytes.Index(b, marker)
		switch {
		case i < 0:
			off += int64(len(b)) - 3
		case s.head(off+int64(i), h):
			return off + int64(i), true
		default:
			off += int64(i) + 1
		}
	}
	return s.end, false
}

// payload reads and checks the payload of the record at off. The bytes are the buffer's unless own, which makes them the
// caller's.
func (s *scanner) payload(off int64, h *recHead, own bool) ([]byte, bool) {
	off += recHeader + h.prefix()
	var p []byte
	if n := int(h.length); n <= len(s.buf)/4 || off+int64(n) <= s.at+int64(s.n) && off >= s.at {
		if p = s.view(off, n); p == nil {
			return nil, false
		}
		if crc32.Checksum(p, castagnoli) != h.sum {
			return nil, false
		}
		if own {
			p = bytes.Clone(p)
		}
		return p, true
	}
	if !own {
		return nil, s.sum(off, int64(h.length)) == h.sum
	}
	p = make([]byte, h.length)
	have := 0
	if off >= s.at && off < s.at+int64(s.n) {
		have = copy(p, s.buf[int(off-s.at):s.n])
	}
	s.read(p[have:], off+int64(have))
	return p, crc32.Checksum(p, castagnoli) == h.sum
}

// sum is the checksum of n bytes at off, read through the buffer.
func (s *scanner) sum(off, n int64) (c uint32) {
	for n > 0 {
		b := s.view(off, int(min(n, int64(len(s.buf)))))
		if b == nil {
			return 0
		}
		c = crc32.Update(c, castagnoli, b)
		off, n = off+int64(len(b)), n-int64(len(b))
	}
	return c
}
