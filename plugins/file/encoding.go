package file

import (
	"bytes"
	"encoding/binary"
	"slices"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/transform"
)

// encoding is how text lies in a file. Lines are found in the bytes of the file, and decoded one by one: so positions
// are those of the file.
type encoding struct {
	wide   bool // UTF-16: units of two bytes
	marked bool // the byte order mark tells the order; without one it is little-endian, as on the systems that write UTF-16
	order  binary.ByteOrder
	table  transform.Transformer // GBK, GB18030
	latin  bool                  // ISO 8859-1
}

// newEncoding returns the encoding of an option's name. It is for one goroutine.
func newEncoding(name string) encoding {
	switch name {
	case "utf-16":
		return encoding{wide: true, marked: true, order: binary.LittleEndian}
	case "utf-16le":
		return encoding{wide: true, order: binary.LittleEndian}
	case "utf-16be":
		return encoding{wide: true, order: binary.BigEndian}
	case "gbk":
		return encoding{table: simplifiedchinese.GBK.NewDecoder().Transformer}
	case "gb18030":
		return encoding{table: simplifiedchinese.GB18030.NewDecoder().Transformer}
	case "iso-8859-1":
		return encoding{latin: true}
	}
	return encoding{}
}

// isUTF8 reports whether there is nothing to decode.
func (e encoding) isUTF8() bool { return !e.wide && !e.latin && e.table == nil }

// of returns the encoding of a file that begins with head.
func (e encoding) of(head []byte) encoding {
	if e.marked && bytes.HasPrefix(head, []byte{0xfe, 0xff}) {
		e.order = binary.BigEndian
	} else if e.marked {
		e.order = binary.LittleEndian
	}
	return e
}

// mark returns how many bytes of a file's beginning are a byte order mark.
func (e encoding) mark(head []byte) int {
	switch {
	case e.wide && len(head) >= 2 && e.order.Uint16(head) == 0xfeff:
		return 2
	case e.isUTF8() && bytes.HasPrefix(head, []byte("\xef\xbb\xbf")):
		return 3
	}
	return 0
}

// unit returns how many bytes a line feed has.
func (e encoding) unit() int {
	if e.wide {
		return 2
	}
	return 1
}

// isFeed reports whether the line feed that lies at text[i] is one: in UTF-16 it may be half of something else. Text
// begins at a unit.
func (e encoding) isFeed(text []byte, i int) bool {
	if !e.wide {
		return true
	}
	i &^= 1
	return i+1 < len(text) && e.order.Uint16(text[i:]) == '\n'
}

// line returns the first line of text without its line feed, or carriage return and line feed, and where the next one
// begins; 0 if there is no line feed.
func (e encoding) line(text []byte) (line []byte, next int) {
	for from := 0; ; {
		i := bytes.IndexByte(text[from:], '\n')
		switch i += from; {
		case i < from:
			return text, 0
		case !e.wide:
			if i > 0 && text[i-1] == '\r' {
				return text[:i-1], i + 1
			}
			return text[:i], i + 1
		case e.isFeed(text, i):
			i &^= 1
			if i > 1 && e.order.Uint16(text[i-2:]) == '\r' {
				return text[:i-2], i + 2
			}
			return text[:i], i + 2
		}
		from = i + 1
	}
}

// whole returns how much of text are whole lines.
func (e encoding) whole(text []byte) int {
	for end := len(text); ; {
		i := bytes.LastIndexByte(text[:end], '\n')
		switch {
		case i < 0:
			return 0
		case !e.wide:
			return i + 1
		case e.isFeed(text, i):
			return i&^1 + 2
		}
		end = i
	}
}

// cutAt returns where to cut a line of more than limit bytes so as not to cut a character: at limit or a little before.
func (e encoding) cutAt(line []byte, limit int) int {
	switch {
	case e.wide:
		n := limit &^ 1
		if utf16.IsSurrogate(rune(e.order.Uint16(line[n-2:]))) && e.order.Uint16(line[n-2:]) < 0xdc00 {
			n -= 2
		}
		return n
	case e.table != nil:
		n := 0
		for next := 0; next <= limit; {
			n = next
			switch {
			case line[n] < 0x80 || n+1 == len(line):
				next = n + 1
			case line[n+1] < 0x40: // four bytes, in GB18030
				next = n + 4
			default:
				next = n + 2
			}
		}
		return n
	case e.latin:
		return limit
	}
	return cutAt(line, limit)
}

// decode returns line as UTF-8. What it has to write it appends to buf. It returns the line as it is, and false, if it is
// not valid.
func (e encoding) decode(buf *[]byte, line []byte) (text []byte, valid bool) {
	switch {
	case e.wide:
		return e.decodeWide(buf, line)
	case e.isUTF8():
		return line, true
	case ascii(line):
		return line, true
	case e.latin:
		from := len(*buf)
		for _, b := range line {
			*buf = utf8.AppendRune(*buf, rune(b))
		}
		return (*buf)[from:len(*buf):len(*buf)], true
	}
	from := len(*buf)
	out := slices.Grow(*buf, 3*len(line)+utf8.UTFMax) // no character becomes more than three times as long
	e.table.Reset()
	n, _, err := e.table.Transform(out[from:cap(out)], line, true)
	text = out[from : from+n : from+n]
	if err != nil || bytes.Contains(text, []byte("\ufffd")) && !bytes.Contains(line, []byte("\x84\x31\xa4\x37")) {
		return line, false
	}
	*buf = out[:from+n]
	return text, true
}

func (e encoding) decodeWide(buf *[]byte, line []byte) (text []byte, valid bool) {
	if len(line)%2 != 0 {
		return line, false
	}
	from, out := len(*buf), *buf
	for i := 0; i < len(line); i += 2 {
		u := rune(e.order.Uint16(line[i:]))
		switch {
		case u < utf8.RuneSelf:
			out = append(out, byte(u))
			continue
		case !utf16.IsSurrogate(u):
		case i+4 > len(line):
			return line, false
		default:
			if u = utf16.DecodeRune(u, rune(e.order.Uint16(line[i+2:]))); u == utf8.RuneError {
				return line, false
			}
			i += 2
		}
		out = utf8.AppendRune(out, u)
	}
	*buf = out
	return out[from:len(out):len(out)], true
}

// start returns where the line begins that pos is in, or pos if that is far away.
func (e encoding) start(f readerAt, pos int64) int64 {
	if e.wide {
		pos &^= 1
	}
	buf := make([]byte, min(pos, 64<<10))
	from := pos - int64(len(buf))
	n, _ := f.ReadAt(buf, from)
	if i := e.whole(buf[:n]); i > 0 {
		return from + int64(i)
	}
	if from == 0 {
		return 0
	}
	return pos
}

// atStart reports whether a line begins at pos, which is not 0.
func (e encoding) atStart(f readerAt, pos int64) bool {
	buf := make([]byte, min(int64(e.unit()), pos))
	n, err := f.ReadAt(buf, pos-int64(len(buf)))
	return n < len(buf) && err != nil || e.whole(buf[:n]) == len(buf)
}

type readerAt interface {
	ReadAt(p []byte, off int64) (int, error)
}
