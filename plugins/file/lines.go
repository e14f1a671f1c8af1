package file

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"unicode/utf8"
	"unsafe"

	"github.com/creelhq/creel"
)

const (
	// PartAttr says that a record is a part of a line longer than max_line_size: its start, a part of its middle or its end.
	PartAttr = "creel.line"
	// InvalidAttr, true, says that a line is not valid UTF-8. Its body is bytes then: OTLP forbids such a string.
	InvalidAttr = "creel.invalid_utf8"
)

// newBuffer returns n bytes that are not cleared: they are about to be read into, and clearing them would cost a fifth
// of that. A buffer is never used again, as lines refer to it.
func newBuffer(n int) []byte {
	var b strings.Builder
	b.Grow(max(n, 1))
	b.WriteByte(0)
	return unsafe.Slice(unsafe.StringData(b.String()), n)
}

// liner makes records of lines.
type liner struct {
	records  *creel.Records
	origin   *creel.Origin
	observed int64
	max      int
	cut      bool // the first line is the rest of one
}

// split appends a record for each line of text. unfinished tells that the last one goes on beyond it. The records refer
// to text, which must not change any more.
func (l *liner) split(text []byte, unfinished bool) {
	logs := slices.Grow(l.records.Logs, bytes.Count(text, newline)+1)
	valid := ascii(text) || utf8.Valid(text)
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
		if l.cut || open || len(line) > l.max || !valid {
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
	log := creel.Log{Origin: l.origin, Observed: l.observed}
	valid = valid || utf8.Valid(line)
	if valid {
		log.Body = creel.String(unsafe.String(unsafe.SliceData(line), len(line)))
	} else {
		log.Body = creel.Bytes(line)
	}
	part := l.cut || open
	switch {
	case part && !valid:
		log.Attrs = l.records.Attrs.Make(2)
		log.Attrs[1] = creel.Attr{Key: InvalidAttr, Value: creel.Bool(true)}
	case part || !valid:
		log.Attrs = l.records.Attrs.Make(1)
		log.Attrs[0] = creel.Attr{Key: InvalidAttr, Value: creel.Bool(true)}
	}
	if part {
		name := "middle"
		switch {
		case !l.cut:
			name = "start"
		case !open:
			name = "end"
		}
		log.Attrs[0] = creel.Attr{Key: PartAttr, Value: creel.String(name)}
	}
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
