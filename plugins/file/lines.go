package file

import (
	"bytes"
	"encoding/binary"
	"slices"
	"unicode/utf8"
	"unsafe"

	"github.com/creelhq/creel"
)

const (
	// PartAttr says that a record is a part of a line longer than max_line_size: its start, a part of its middle or its end.
	PartAttr = "creel.line"
	// InvalidAttr, true, says that a line is not valid in the encoding of its file. Its body is the bytes as they were
	// read if that is UTF-16 or if they are not UTF-8: OTLP forbids such a string.
	InvalidAttr = "creel.invalid_utf8"
)

// liner makes records of lines.
type liner struct {
	records  *creel.Records
	origin   *creel.Origin
	static   creel.Attrs // of every record
	observed int64
	max      int
	cut      bool // the first line is the rest of one

	// What a container runtime says of the line at hand.
	time   int64
	extra  creel.Attrs
	stream string
	fault  string // what is wrong with it
	bad    bool   // it could not be decoded
}

// split appends a record for each line of text. unfinished tells that the last one goes on beyond it. The records refer
// to text, which must not change any more.
func (l *liner) split(text []byte, unfinished bool) {
	logs := slices.Grow(l.records.Logs, bytes.Count(text, newline)+1)
	valid := isUTF8(text)
	plain := len(l.static) == 0
	for len(text) > 0 {
		i := bytes.IndexByte(text, '\n')
		line, open := text, unfinished
		if i >= 0 {
			line, text, open = text[:i], text[i+1:], false
			if i > 0 && line[i-1] == '\r' {
				line = line[:i-1]
			}
		} else {
			text = nil
		}
		if l.cut || open || len(line) > l.max || !valid || !plain {
			logs = l.special(logs, line, open, valid)
			continue
		}
		logs = append(logs, creel.Log{
			Origin: l.origin, Observed: l.observed, Body: creel.String(unsafe.String(unsafe.SliceData(line), len(line))),
		})
	}
	l.records.Logs = logs
}

var newline = []byte{'\n'}

// special appends a line that may need marks.
func (l *liner) special(logs []creel.Log, line []byte, open, valid bool) []creel.Log {
	for len(line) > l.max {
		n := cutAt(line, l.max)
		logs = append(logs, l.record(line[:n], true, valid))
		line, l.cut = line[n:], true
	}
	logs = append(logs, l.record(line, open, valid))
	l.cut = open
	return logs
}

// record returns the record of a piece of a line, which is a part if l.cut or open.
func (l *liner) record(line []byte, open, valid bool) creel.Log {
	log := creel.Log{Origin: l.origin, Observed: l.observed, Time: l.time}
	if valid = !l.bad && (valid || utf8.Valid(line)); valid {
		log.Body = creel.String(unsafe.String(unsafe.SliceData(line), len(line)))
	} else {
		log.Body = creel.Bytes(line)
	}
	n := len(l.static) + len(l.extra)
	part := l.cut || open
	for _, has := range [...]bool{l.stream != "", part, !valid, l.fault != ""} {
		if has {
			n++
		}
	}
	if n == 0 {
		return log
	}
	attrs := l.records.Attrs.Make(n)[:0]
	attrs = append(attrs, l.static...)
	if l.stream != "" {
		attrs = append(attrs, creel.Attr{Key: "log.iostream", Value: creel.String(l.stream)})
	}
	attrs = append(attrs, l.extra...)
	if part {
		name := "middle"
		switch {
		case !l.cut:
			name = "start"
		case !open:
			name = "end"
		}
		attrs = append(attrs, creel.Attr{Key: PartAttr, Value: creel.String(name)})
	}
	if !valid {
		attrs = append(attrs, creel.Attr{Key: InvalidAttr, Value: creel.Bool(true)})
	}
	if l.fault != "" {
		attrs = append(attrs, creel.Attr{Key: FormatAttr, Value: creel.String(l.fault)})
	}
	log.Attrs = attrs
	return log
}

// cutAt returns where to cut a line of more than limit bytes: at limit, or a little before so as not to cut a character.
func cutAt(line []byte, limit int) int {
	for n := limit; n > limit-utf8.UTFMax; n-- {
		if utf8.RuneStart(line[n]) {
			return n
		}
	}
	return limit
}

// isUTF8 reports whether text is valid UTF-8.
func isUTF8(text []byte) bool { return ascii(text) || utf8.Valid(text) }

// ascii reports whether text is all ASCII, at several times the speed of utf8.Valid.
func ascii(text []byte) bool {
	const high = 0x8080808080808080
	for len(text) >= 64 {
		b := text[:64]
		if (binary.LittleEndian.Uint64(b)|binary.LittleEndian.Uint64(b[8:])|
			binary.LittleEndian.Uint64(b[16:])|binary.LittleEndian.Uint64(b[24:])|
			binary.LittleEndian.Uint64(b[32:])|binary.LittleEndian.Uint64(b[40:])|
			binary.LittleEndian.Uint64(b[48:])|binary.LittleEndian.Uint64(b[56:]))&high != 0 {
			return false
		}
		text = text[64:]
	}
	for _, b := range text {
		if b >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
