package file

import (
	"time"
	"unsafe"

	"github.com/creelhq/creel"
)

// chain makes records of a file when that takes more than finding the ends of lines. Its stages are
//
//	bytes of the file → lines → decoded → unwrapped (container) → joined parts → joined lines (multi-line) → records
//
// A line that is waiting for what belongs to it is open. Open lines are sent before the position moves beyond where they
// begin; so a restart reads them again. What is made of a file does not depend on how it was cut into reads.
type chain struct {
	*stages
	encoding encoding
	cut      bool  // the next line of the file is the rest of one that was longer than stages.limit
	open     int   // of parts and groups
	sent     int64 // where the last line ends of which something was sent; not kept by plain ones, which send all they are fed
	parts    [streams]*piece
	groups   [streams]*piece // nil until there is one
}

// stages are what the chains of all files have in common.
type stages struct {
	format string // text, cri, docker or auto
	multi  Multiline
	max    int  // of a record's body
	limit  int  // of a line in the file, with all that is around it
	plain  bool // there is nothing to do but to find the ends of lines

	clock clock
	buf   []byte // what was decoded of one read; aliased by records, so never written again
	need  int    // how much that was the last time
	spare []byte // for what is joined
}

// piece is a line or a part of one, or several that were joined.
type piece struct {
	used   bool
	text   []byte
	own    bool  // text is ours, and may grow
	from   int64 // where it begins in the file; of what was cut, where the last line of it begins
	end    int64 // where its last line ends
	time   int64 // Unix nanoseconds
	since  time.Time
	lines  int
	stream stream
	extra  creel.Attrs
	more   bool // the line goes on in the next of its stream
	cut    bool // its beginning was longer than a record may be, and is sent
	valid  bool // known to be UTF-8
	bad    bool // it cannot be decoded, and is as it was read
}

// idle reports whether no line is open.
func (c *chain) idle() bool { return c.open == 0 }

// safe returns how far the file need not be read again, when all up to end has been fed.
func (c *chain) safe(end int64) int64 {
	for _, list := range [...]*[streams]*piece{&c.parts, &c.groups} {
		for _, p := range list {
			if p != nil && p.used {
				end = min(end, p.from)
			}
		}
	}
	return end
}

// isClean reports whether all that was sent lies before pos, which safe has returned: what is open, and what follows, lies
// behind it.
func (c *chain) isClean(pos int64) bool { return c.sent <= pos }

// reset forgets what is open.
func (c *chain) reset() {
	c.parts, c.groups, c.open, c.cut, c.sent = [streams]*piece{}, [streams]*piece{}, 0, false, 0
}

// feed appends to l the records of text, lines that begin at pos in the file. A byte order mark of skip bytes was taken
// off text. unfinished tells that the last line goes on beyond text.
func (c *chain) feed(l *liner, text []byte, pos int64, skip int, unfinished bool, now time.Time) {
	if c.plain {
		l.cut = c.cut
		l.split(text, unfinished)
		c.cut = l.cut
		return
	}
	valid := c.encoding.isUTF8() && isUTF8(text)
	if c.buf = nil; c.need > 0 {
		c.buf = creel.NewBuffer(min(c.need, 3*len(text)))[:0]
	}
	for len(text) > 0 {
		p := piece{from: pos, since: now, lines: 1, valid: valid}
		next, open := 0, unfinished
		p.text, next = c.encoding.line(text)
		if next > 0 {
			open = false
		} else {
			next = len(text)
		}
		text = text[next:]
		pos += int64(next + skip)
		skip, p.end = 0, pos
		if c.cut || open || len(p.text) > c.limit {
			c.overlong(l, p, open)
			continue
		}
		c.add(l, &p)
	}
	c.need = len(c.buf) + len(c.buf)/16
}

// add takes a whole line of the file.
func (c *chain) add(l *liner, p *piece) {
	if c.open > 0 {
		c.advance(l, p.from)
	}
	c.decode(p)
	if c.format == "text" {
		c.line(l, p)
		return
	}
	if l.fault = c.unwrap(p); l.fault != "" {
		c.settle(l, noStream)
		c.emit(l, p, false)
		l.fault = ""
		return
	}
	part := c.parts[p.stream]
	if !p.more && (part == nil || !part.used) {
		c.line(l, p)
		return
	}
	c.join(l, &c.parts[p.stream], p, false)
	if !p.more {
		c.end(l, c.parts[p.stream])
	}
}

// decode makes UTF-8 of p.
func (c *chain) decode(p *piece) {
	if c.encoding.isUTF8() {
		return
	}
	p.text, p.valid = c.encoding.decode(&c.buf, p.text)
	p.bad = !p.valid
}

// line takes a whole line that something has written.
func (c *chain) line(l *liner, p *piece) {
	m := &c.multi
	switch {
	case !m.on():
		c.emit(l, p, false)
		return
	case p.cut: // too long to be looked at as a whole
		c.settle(l, p.stream)
		c.emit(l, p, false)
		return
	}
	g := c.groups[p.stream]
	open := g != nil && g.used
	if open && m.StartPattern.match(p.text) {
		c.settle(l, p.stream)
		open = false
	}
	last := m.EndPattern.match(p.text) || m.MaxLines == 1
	if last && !open {
		c.emit(l, p, false)
		return
	}
	c.join(l, &c.groups[p.stream], p, true)
	if last || c.groups[p.stream].lines >= m.MaxLines {
		c.settle(l, p.stream)
	}
}

// join appends p to what is open in a place, and opens it if nothing is. What is longer than a record may be is sent in
// parts.
func (c *chain) join(l *liner, place **piece, p *piece, lines bool) {
	if *place == nil {
		*place = &piece{}
	}
	open := *place
	if !open.used {
		*open = *p
		open.used, open.more = true, false
		c.open++
	} else {
		c.append(open, p.text, lines)
		open.lines += p.lines
		open.since, open.end = p.since, p.end
		open.valid = open.valid && p.valid
		open.bad = open.bad || p.bad
	}
	for len(open.text) > c.max {
		if !lines && !open.cut {
			c.settle(l, open.stream) // what was there before
		}
		n := cutAt(open.text, c.max)
		rest := open.text[n:]
		open.text = open.text[:n:n]
		c.emit(l, open, true)
		open.text, open.cut, open.from = rest, true, p.from
	}
}

// append adds text to p, behind a line feed if it is another line. If it lies just there in memory already, nothing is
// copied.
func (s *stages) append(p *piece, text []byte, line bool) {
	n := len(p.text)
	if whole := n + 1 + len(text); line && !p.own && n > 0 && whole <= cap(p.text) {
		if in := p.text[:whole]; in[n] == '\n' && unsafe.SliceData(in[n+1:]) == unsafe.SliceData(text) {
			p.text = in
			return
		}
	}
	if !p.own {
		p.text = append(s.room(2*(n+len(text)+1)), p.text...)
		p.own = true
	}
	if line {
		p.text = append(p.text, '\n')
	}
	p.text = append(p.text, text...)
}

// room returns an empty slice of which n bytes can be made.
func (s *stages) room(n int) []byte {
	const chunk = 64 << 10
	if n > chunk/4 {
		return make([]byte, 0, n)
	}
	if len(s.spare) < n {
		s.spare = creel.NewBuffer(chunk)
	}
	free := s.spare[:0:n]
	s.spare = s.spare[n:]
	return free
}

// settle sends the group of a stream, if one is open.
func (c *chain) settle(l *liner, s stream) {
	if g := c.groups[s]; g != nil && g.used {
		c.emit(l, g, false)
		*g = piece{}
		c.open--
	}
}

// end takes a line whose parts were joined.
func (c *chain) end(l *liner, part *piece) {
	p := *part
	*part = piece{}
	c.open--
	p.used = false
	c.line(l, &p)
}

// flush ends what has been open since a time, or longer.
func (c *chain) flush(l *liner, since time.Time) {
	c.flushIf(l, func(p *piece) bool { return !p.since.After(since) })
}

// flushAll ends what is open.
func (c *chain) flushAll(l *liner) { c.flushIf(l, func(*piece) bool { return true }) }

// advance ends what would keep the position back for too long, while other streams go on. How far that is must not depend
// on reads.
func (c *chain) advance(l *liner, pos int64) {
	if c.format != "text" {
		c.flushIf(l, func(p *piece) bool { return pos-p.from > int64(2*c.limit) })
	}
}

// flushIf ends what is open and due: lines, and then groups of lines, in the order in which they begin in the file.
func (c *chain) flushIf(l *liner, due func(p *piece) bool) {
	for _, list := range [...]*[streams]*piece{&c.parts, &c.groups} {
		for c.open > 0 {
			first := -1
			for s, p := range list {
				if p != nil && p.used && due(p) && (first < 0 || p.from < list[first].from) {
					first = s
				}
			}
			if first < 0 {
				break
			}
			if list == &c.parts {
				c.end(l, list[first])
			} else {
				c.settle(l, stream(first))
			}
		}
	}
}

// overlong sends a line, or a part of one if open, that is longer than any may be in a file. It is not unwrapped.
func (c *chain) overlong(l *liner, p piece, open bool) {
	if !c.cut {
		c.flushAll(l)
	}
	if c.format != "text" {
		l.fault = c.format + ": longer than max_line_size"
	}
	for raw := p.text; ; {
		n := len(raw)
		if n > c.limit {
			n = c.encoding.cutAt(raw, c.limit)
		}
		last := n == len(raw)
		q := p
		q.text, q.cut = raw[:n:n], c.cut
		c.decode(&q)
		c.cut = open || !last
		c.emit(l, &q, c.cut)
		if last {
			break
		}
		raw = raw[n:]
	}
	l.fault = ""
}

// emit appends the record of p, or several if it is longer than one may be. open tells that it goes on.
func (c *chain) emit(l *liner, p *piece, open bool) {
	l.time, l.extra, l.stream, l.cut, l.bad = p.time, p.extra, p.stream.String(), p.cut, p.bad
	l.records.Logs = l.special(l.records.Logs, p.text, open, p.valid)
	c.sent = max(c.sent, p.end)
}
