package file

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/creelhq/creel"
)

// FormatAttr says that a line is not in the format that the collector was told, and why. Its body is the whole line.
const FormatAttr = "creel.parse_error"

// stream is where a container has written a line.
type stream uint8

const (
	noStream stream = iota
	stdout
	stderr
	streams
)

func (s stream) String() string { return [...]string{"", "stdout", "stderr"}[s] }

// unwrap takes off p what a container runtime has put around it. Line is what has to be written to buf. It returns what
// is wrong with the line, or "".
func (c *chain) unwrap(p *piece) (fault string) {
	if len(p.text) == 0 {
		return c.format + ": empty line"
	}
	switch {
	case c.format == "cri", c.format == "auto" && p.text[0] >= '0' && p.text[0] <= '9':
		return c.cri(p)
	case c.format == "docker", c.format == "auto" && p.text[0] == '{':
		return c.docker(p)
	}
	return "auto: neither CRI nor Docker"
}

// cri takes apart a line of the Kubernetes container runtime interface: a time stamp, the stream, tags (F for a full
// line, P for a part of one) and the text.
func (c *chain) cri(p *piece) string {
	i := bytes.IndexByte(p.text, ' ')
	if i < 0 {
		return "cri: no time stamp"
	}
	at, ok := c.clock.parse(p.text[:i])
	if !ok {
		return "cri: no time stamp"
	}
	rest := p.text[i+1:]
	if len(rest) < 8 || rest[6] != ' ' {
		return "cri: no stream"
	}
	var from stream
	switch string(rest[:6]) {
	case "stdout":
		from = stdout
	case "stderr":
		from = stderr
	default:
		return "cri: no stream"
	}
	tag, rest := rest[7], rest[8:]
	if tag != 'F' && tag != 'P' || len(rest) > 0 && rest[0] != ' ' && rest[0] != ':' {
		return "cri: neither F nor P"
	}
	if len(rest) > 0 && rest[0] == ':' { // more tags
		rest = rest[max(0, bytes.IndexByte(rest, ' ')):]
	}
	if len(rest) > 0 {
		rest = rest[1:]
	}
	p.text, p.time, p.stream, p.more = rest, at, from, tag == 'P'
	return ""
}

// clock reads time stamps of RFC 3339. Most are of the same minute as the one before.
type clock struct {
	minute [16]byte // as it is written
	start  int64    // its Unix time in seconds
}

func (c *clock) parse(s []byte) (ns int64, ok bool) {
	if len(s) < len("2006-01-02T15:04:05Z") || s[16] != ':' {
		return 0, false
	}
	if binary.LittleEndian.Uint64(s) != binary.LittleEndian.Uint64(c.minute[:]) ||
		binary.LittleEndian.Uint64(s[8:]) != binary.LittleEndian.Uint64(c.minute[8:]) {
		start, ok := minuteOf(s[:16])
		if !ok {
			return 0, false
		}
		c.minute, c.start = [16]byte(s[:16]), start
	}
	second, ok := digits(s[17:19])
	if !ok || second > 60 {
		return 0, false
	}
	ns, s = (c.start+second)*1e9, s[19:]
	if s[0] == '.' {
		unit, i := int64(1e8), 1
		for ; i < len(s) && s[i]-'0' <= 9; i++ {
			ns += int64(s[i]-'0') * unit
			unit /= 10
		}
		if i == 1 {
			return 0, false
		}
		s = s[i:]
	}
	switch {
	case len(s) == 1 && (s[0] == 'Z' || s[0] == 'z'):
		return ns, true
	case len(s) == 6 && (s[0] == '+' || s[0] == '-') && s[3] == ':':
		hours, ok1 := digits(s[1:3])
		minutes, ok2 := digits(s[4:6])
		offset := (hours*60 + minutes) * 60e9
		if s[0] == '+' {
			offset = -offset
		}
		return ns + offset, ok1 && ok2 && hours < 24 && minutes < 60
	}
	return 0, false
}

// minuteOf returns the Unix time of 2006-01-02T15:04.
func minuteOf(s []byte) (unix int64, ok bool) {
	var n [6]int64
	for i, at := range [...]int{0, 2, 5, 8, 11, 14} {
		if n[i], ok = digits(s[at : at+2]); !ok {
			return 0, false
		}
	}
	year, month, day := int(n[0]*100+n[1]), time.Month(n[2]), int(n[3])
	if s[4] != '-' || s[7] != '-' || s[10] != 'T' || s[13] != ':' || n[4] > 23 || n[5] > 59 {
		return 0, false
	}
	t := time.Date(year, month, day, int(n[4]), int(n[5]), 0, 0, time.UTC)
	// Beyond these years nanoseconds do not fit.
	return t.Unix(), t.Month() == month && t.Day() == day && year > 1677 && year < 2262
}

func digits(s []byte) (n int64, ok bool) {
	a, b := s[0]-'0', s[1]-'0'
	return int64(a)*10 + int64(b), a <= 9 && b <= 9
}

// docker takes apart a line of Docker's json-file driver. Its text is a part of a line unless it ends with a line feed.
func (c *chain) docker(p *piece) string {
	const fault = "docker: not a JSON object with a log"
	s := scanner{rest: p.text}
	if !s.take('{') {
		return fault
	}
	var log []byte
	var seen, ended bool
	q := *p
	for {
		key, ok := s.text(&c.buf)
		if !ok || !s.take(':') {
			return fault
		}
		switch string(key) {
		case "log":
			if log, ended, ok = s.line(&c.buf); !ok {
				return fault
			}
			seen = true
		case "stream":
			v, ok := s.text(&c.buf)
			switch {
			case !ok:
				return fault
			case string(v) == "stdout":
				q.stream = stdout
			case string(v) == "stderr":
				q.stream = stderr
			}
		case "time":
			v, ok := s.text(&c.buf)
			if !ok {
				return fault
			}
			if q.time, ok = c.clock.parse(v); !ok {
				return "docker: no time stamp"
			}
		case "attrs":
			if q.extra, ok = s.attrs(&c.buf); !ok {
				return fault
			}
		default:
			if !s.skip(0) {
				return fault
			}
		}
		if s.take('}') {
			break
		}
		if !s.take(',') {
			return fault
		}
	}
	if s.space(); !seen || len(s.rest) > 0 {
		return fault
	}
	if ended && len(log) > 0 && log[len(log)-1] == '\r' {
		log = log[:len(log)-1]
	}
	*p = q
	p.text, p.more = log[:len(log):len(log)], !ended
	return ""
}

// scanner reads JSON.
type scanner struct{ rest []byte }

func (s *scanner) space() {
	for len(s.rest) > 0 && (s.rest[0] == ' ' || s.rest[0] == '\t' || s.rest[0] == '\r') {
		s.rest = s.rest[1:]
	}
}

func (s *scanner) take(b byte) bool {
	s.space()
	if len(s.rest) == 0 || s.rest[0] != b {
		return false
	}
	s.rest = s.rest[1:]
	return true
}

// text reads a string. If it has escapes it is written to buf.
func (s *scanner) text(buf *[]byte) (text []byte, ok bool) {
	if !s.take('"') {
		return nil, false
	}
	end := bytes.IndexByte(s.rest, '"')
	if end < 0 {
		return nil, false
	}
	if bytes.IndexByte(s.rest[:end], '\\') >= 0 {
		return s.unescape(buf, end)
	}
	text, s.rest = s.rest[:end:end], s.rest[end+1:]
	return text, true
}

// line reads a string, and reports whether it ended with a line feed, which is taken off. Almost all do, and have no
// other escape: so they are sliced.
func (s *scanner) line(buf *[]byte) (text []byte, ended, ok bool) {
	if !s.take('"') {
		return nil, false, false
	}
	end := bytes.IndexByte(s.rest, '"')
	if end < 0 {
		return nil, false, false
	}
	switch first := bytes.IndexByte(s.rest[:end], '\\'); {
	case first < 0:
		text, s.rest = s.rest[:end], s.rest[end+1:]
	case first == end-2 && s.rest[first+1] == 'n':
		text, s.rest, ended = s.rest[:first], s.rest[end+1:], true
	default:
		if text, ok = s.unescape(buf, end); !ok {
			return nil, false, false
		}
		text, ended = bytes.CutSuffix(text, newline)
	}
	return text, ended, true
}

// unescape reads a string, within which there are escapes. The next quotation mark is at end.
func (s *scanner) unescape(buf *[]byte, end int) (text []byte, ok bool) {
	from, out, rest := len(*buf), *buf, s.rest
	for {
		i := bytes.IndexByte(rest[:end], '\\')
		if i < 0 {
			out = append(out, rest[:end]...)
			*buf, s.rest = out, rest[end+1:]
			return out[from:len(out):len(out)], true
		}
		out = append(out, rest[:i]...)
		n := 2
		switch b := rest[i+1]; b {
		case 'n':
			out = append(out, '\n')
		case 't':
			out = append(out, '\t')
		case 'r':
			out = append(out, '\r')
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case '"', '\\', '/':
			out = append(out, b)
		case 'u':
			r, ok := hex4(rest[i+2:])
			if !ok {
				return nil, false
			}
			n = 6
			if utf16.IsSurrogate(r) {
				low := rune(-1)
				if after := rest[i+6:]; len(after) >= 6 && after[0] == '\\' && after[1] == 'u' {
					low, _ = hex4(after[2:])
				}
				if r = utf16.DecodeRune(r, low); r != utf8.RuneError {
					n = 12
				}
			}
			out = utf8.AppendRune(out, r)
		default:
			return nil, false
		}
		rest, end = rest[i+n:], end-i-n
		if end < 0 { // the quotation mark was escaped
			if end = bytes.IndexByte(rest, '"'); end < 0 {
				return nil, false
			}
		}
	}
}

func hex4(s []byte) (r rune, ok bool) {
	if len(s) < 4 {
		return 0, false
	}
	for _, b := range s[:4] {
		switch {
		case b-'0' <= 9:
			r = r<<4 | rune(b-'0')
		case b|0x20 >= 'a' && b|0x20 <= 'f':
			r = r<<4 | rune(b|0x20-'a'+10)
		default:
			return 0, false
		}
	}
	return r, true
}

// attrs reads an object whose values are strings: the labels and variables that the driver was asked for.
func (s *scanner) attrs(buf *[]byte) (as creel.Attrs, ok bool) {
	if !s.take('{') {
		return nil, s.skip(0)
	}
	if s.take('}') {
		return nil, true
	}
	for {
		key, ok := s.text(buf)
		if !ok || !s.take(':') {
			return nil, false
		}
		value, ok := s.text(buf)
		if !ok {
			return nil, false
		}
		if utf8.Valid(key) && utf8.Valid(value) {
			as = append(as, creel.Attr{Key: "attrs." + string(key), Value: creel.String(string(value))})
		}
		if s.take('}') {
			return as, true
		}
		if !s.take(',') {
			return nil, false
		}
	}
}

// skip passes over a value.
func (s *scanner) skip(depth int) bool {
	s.space()
	if len(s.rest) == 0 || depth > 32 {
		return false
	}
	switch b := s.rest[0]; b {
	case '"':
		for i := 1; i < len(s.rest); i++ {
			switch s.rest[i] {
			case '\\':
				i++
			case '"':
				s.rest = s.rest[i+1:]
				return true
			}
		}
		return false
	case '{', '[':
		s.rest = s.rest[1:]
		if s.take(b + 2) { // } and ] come two after { and [
			return true
		}
		for {
			if b == '{' && (!s.skip(depth+1) || !s.take(':')) || !s.skip(depth+1) {
				return false
			}
			if s.take(b + 2) {
				return true
			}
			if !s.take(',') {
				return false
			}
		}
	}
	i := bytes.IndexAny(s.rest, ",}] \t")
	if i <= 0 {
		return false
	}
	s.rest = s.rest[i:]
	return true
}

// kubernetes returns what the path of a container's log says of the container: the kubelet's
// …/pods/<namespace>_<pod>_<uid>/<container>/<restarts>.log, and the links to them,
// …/containers/<pod>_<namespace>_<container>-<id>.log.
func kubernetes(path string) (as creel.Attrs) {
	add := func(key, value string) { as = append(as, creel.Attr{Key: key, Value: creel.String(value)}) }
	parts := strings.Split(strings.ReplaceAll(path, `\`, "/"), "/")
	n := len(parts)
	if n >= 4 && parts[n-4] == "pods" {
		pod, container := strings.Split(parts[n-3], "_"), parts[n-2]
		number, _, dotted := strings.Cut(parts[n-1], ".")
		if restarts, err := strconv.ParseUint(number, 10, 31); err == nil && dotted && len(pod) == 3 && container != "" {
			add("k8s.namespace.name", pod[0])
			add("k8s.pod.name", pod[1])
			add("k8s.pod.uid", pod[2])
			add("k8s.container.name", container)
			as = append(as, creel.Attr{Key: "k8s.container.restart_count", Value: creel.Int(int64(restarts))})
		}
		return as
	}
	if n < 2 || parts[n-2] != "containers" {
		return nil
	}
	name, ok := strings.CutSuffix(parts[n-1], ".log")
	dash := strings.LastIndexByte(name, '-')
	if !ok || dash < 0 || len(name)-dash-1 != 64 || strings.Trim(name[dash+1:], "0123456789abcdef") != "" {
		return nil
	}
	if f := strings.Split(name[:dash], "_"); len(f) == 3 {
		add("k8s.pod.name", f[0])
		add("k8s.namespace.name", f[1])
		add("k8s.container.name", f[2])
		add("container.id", name[dash+1:])
	}
	return as
}
