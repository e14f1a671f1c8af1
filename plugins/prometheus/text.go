package prometheus

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/creelhq/creel"
)

// lineKind is what a line of an exposition says.
type lineKind uint8

const (
	lineEnd lineKind = iota // there is no more
	lineSample
	lineType
	lineHelp
	lineUnit
)

// label is one label of a sample.
type label struct{ name, value string }

// parser reads an exposition line by line: Prometheus' text format 0.0.4, with the quoted names of 1.0.0, or OpenMetrics text
// 1.0 (prometheus.io/docs/instrumenting/exposition_formats, prometheus.io/docs/specs/om). Strings alias the text, but for those
// with escapes. What next has read is in the fields until it is called again.
//
// It is strict where a wrong number could come of it: a last line without a line feed, an OpenMetrics text without its EOF. An
// escape that is none stays as it is, as in Prometheus: paths of Windows often come so.
type parser struct {
	text  string
	pos   int
	line  int  // number of the line that was read, from 1
	open  bool // OpenMetrics
	valid bool // all of the text is UTF-8

	name    string  // of the sample or family
	info    string  // the type, help or unit
	raw     string  // a sample's name and labels as they stand there
	labels  []label // without the name
	value   float64
	number  string // value as it stands there
	time    int64  // nanoseconds since the Unix epoch
	stamped bool   // the sample has a time

	hasExemplar bool
	exemplar    exemplar

	chunk []byte // room for what is unescaped
}

// exemplar is what an OpenMetrics sample has after its #.
type exemplar struct {
	labels []label
	value  float64
	time   int64 // 0: none
}

// reset makes p begin with text.
func (p *parser) reset(text string, open bool) {
	p.text, p.pos, p.line, p.open, p.valid = text, 0, 0, open, utf8.ValidString(text)
}

// failure is why a text cannot be read. It says in which line.
func (p *parser) failure(format string, args ...any) error {
	return fmt.Errorf("read line %d: %s", p.line, fmt.Sprintf(format, args...))
}

// next reads up to the next line that says something.
func (p *parser) next() (lineKind, error) {
	for p.pos < len(p.text) {
		p.line++
		rest := p.text[p.pos:]
		end := strings.IndexByte(rest, '\n')
		if end < 0 {
			if p.open && rest == "# EOF" {
				p.pos = len(p.text)
				return lineEnd, nil
			}
			return 0, p.failure("there is no line feed at its end: the text is cut off")
		}
		s := rest[:end]
		p.pos += end + 1
		i := p.skip(s, 0)
		switch {
		case i == len(s):
			if p.open {
				return 0, p.failure("an empty line is not allowed in OpenMetrics")
			}
		case s[i] == '#':
			kind, err := p.comment(s[i+1:])
			if err != nil || kind != lineEnd || p.open {
				return kind, err
			}
		default:
			return lineSample, p.sample(s, i)
		}
	}
	if p.open {
		p.line++
		return 0, p.failure("# EOF is missing: the text is cut off")
	}
	return lineEnd, nil
}

// skip returns where the blanks from i on end. OpenMetrics allows none but where it demands one.
func (p *parser) skip(s string, i int) int {
	for !p.open && i < len(s) && (s[i] == ' ' || s[i] == '\t') {
		i++
	}
	return i
}

// gap skips the blanks that must be at i; ok is false if there are none.
func (p *parser) gap(s string, i int) (end int, ok bool) {
	if i >= len(s) || s[i] != ' ' && (p.open || s[i] != '\t') {
		return i, false
	}
	return p.skip(s, i+1), true
}

// token returns what stands from i to the next blank.
func (p *parser) token(s string, i int) (text string, end int) {
	end = i
	for end < len(s) && s[end] != ' ' && (p.open || s[end] != '\t') {
		end++
	}
	return s[i:end], end
}

// comment reads what follows #. lineEnd is a comment for people, or the EOF of OpenMetrics.
func (p *parser) comment(s string) (lineKind, error) {
	i := 0
	if p.open {
		if s == " EOF" {
			if p.pos < len(p.text) {
				p.line++
				return 0, p.failure("there is something after # EOF")
			}
			return lineEnd, nil
		}
		if !strings.HasPrefix(s, " ") {
			return 0, p.failure("after # must come a blank and HELP, TYPE, UNIT or EOF, got %s", excerpt(s))
		}
		i = 1
	}
	i = p.skip(s, i)
	word, i := p.token(s, i)
	var kind lineKind
	switch {
	case word == "HELP":
		kind = lineHelp
	case word == "TYPE":
		kind = lineType
	case word == "UNIT" && p.open:
		kind = lineUnit
	case p.open:
		return 0, p.failure("after # must come HELP, TYPE, UNIT or EOF, got %s", excerpt(word))
	default:
		return lineEnd, nil
	}
	i, _ = p.gap(s, i)
	if i == len(s) && !p.open {
		return lineEnd, nil // a word of somebody's, not a keyword
	}
	var err error
	if i < len(s) && s[i] == '"' {
		p.name, i, err = p.quoted(s, i+1)
	} else {
		end := nameEnd(s, i, metricStart, metricRest)
		p.name, i = s[i:end], end
	}
	switch {
	case err != nil:
		return 0, err
	case p.name == "":
		return 0, p.failure("after # %s must come the name of a metric, got %s", word, excerpt(s[i:]))
	}
	end, ok := p.gap(s, i)
	switch {
	case !ok && i < len(s):
		return 0, p.failure("%s is no name of a metric", excerpt(s[i-len(p.name):]))
	case !ok && kind == lineType:
		return 0, p.failure("the type of %s is missing", excerpt(p.name))
	}
	p.info = s[end:]
	switch kind {
	case lineHelp:
		p.info = p.unescape(p.info)
		if !p.valid {
			p.info = strings.ToValidUTF8(p.info, "\uFFFD")
		}
	case lineType:
		if !p.open {
			p.info = strings.TrimRight(p.info, " \t")
		}
	}
	return kind, nil
}

// sample reads a line with a value, which begins at i.
func (p *parser) sample(s string, i int) (err error) {
	i, closed, err := p.head(s, i)
	if err != nil {
		return err
	}
	end, ok := p.gap(s, i)
	if !ok && (!closed || p.open || i == len(s)) {
		return p.failure("after %s must come a blank and a value, got %s", excerpt(p.name), excerpt(s[i:]))
	}
	p.number, i = p.token(s, end)
	if p.value, err = parseFloat(p.number); err != nil {
		return p.failure("the value of %s must be a number, got %s", excerpt(p.name), excerpt(p.number))
	}
	return p.tail(s, i)
}

// head reads the name and labels that begin at i; end is behind them, and closed says whether a brace is the last of them.
func (p *parser) head(s string, i int) (end int, closed bool, err error) {
	begin := i
	p.name, p.labels, p.stamped, p.hasExemplar = "", p.labels[:0], false, false
	end = nameEnd(s, i, metricStart, metricRest)
	p.name, i = s[i:end], end
	if p.name == "" && (i == len(s) || s[i] != '{') {
		return i, false, p.failure("must begin with the name of a metric, got %s", excerpt(s[i:]))
	}
	brace := p.skip(s, i)
	if closed = brace < len(s) && s[brace] == '{'; closed {
		if p.labels, i, err = p.labelSet(s, brace+1, p.labels, p.name == ""); err != nil {
			return i, closed, err
		}
	}
	p.raw = s[begin:i]
	if p.name == "" {
		return i, closed, p.failure("has no name of a metric: %s", excerpt(s))
	}
	return i, closed, nil
}

// tail reads what may follow a value: a time, and in OpenMetrics an exemplar.
func (p *parser) tail(s string, i int) (err error) {
	i, more := p.gap(s, i)
	if more && i < len(s) && s[i] != '#' {
		text, end := p.token(s, i)
		if p.time, err = p.timestamp(text); err != nil {
			return p.failure("the time of %s must be %v, got %s", excerpt(p.name), err, excerpt(text))
		}
		p.stamped = true
		i, more = p.gap(s, end)
	}
	switch {
	case p.open && more && i < len(s) && s[i] == '#':
		return p.readExemplar(s, i+1)
	case i < len(s) || more && p.open:
		return p.failure("there is more than a value and a time: %s", excerpt(s[i:]))
	}
	return nil
}

var (
	errSeconds      = errors.New("seconds since 1970, within 200 years")
	errMilliseconds = errors.New("whole milliseconds since 1970, within 200 years")
)

func (p *parser) timestamp(text string) (int64, error) {
	if p.open {
		return parseSeconds(text)
	}
	ms, err := strconv.ParseInt(text, 10, 64)
	if err != nil || ms > math.MaxInt64/1_000_000 || ms < math.MinInt64/1_000_000 {
		return 0, errMilliseconds
	}
	return ms * 1e6, nil
}

// readExemplar reads what follows the #.
func (p *parser) readExemplar(s string, i int) (err error) {
	e := &p.exemplar
	i, ok := p.gap(s, i)
	if !ok || i == len(s) || s[i] != '{' {
		return p.failure("an exemplar of %s must begin with its labels in braces, got %s", excerpt(p.name), excerpt(s[i:]))
	}
	if e.labels, i, err = p.labelSet(s, i+1, e.labels[:0], false); err != nil {
		return err
	}
	i, ok = p.gap(s, i)
	text, i := p.token(s, i)
	if e.value, err = parseFloat(text); err != nil || !ok {
		return p.failure("the value of an exemplar of %s must be a number, got %s", excerpt(p.name), excerpt(text))
	}
	e.time, p.hasExemplar = 0, true
	if i == len(s) {
		return nil
	}
	i, _ = p.gap(s, i)
	if e.time, err = parseSeconds(s[i:]); err != nil {
		return p.failure("the time of an exemplar of %s must be %v, got %s", excerpt(p.name), err, excerpt(s[i:]))
	}
	return nil
}

// labelSet appends the labels from i on, which is behind the brace; end is behind the closing one. If named, the name of the
// metric stands among them.
func (p *parser) labelSet(s string, i int, to []label, named bool) (list []label, end int, err error) {
	first := true
	for {
		i = p.skip(s, i)
		if i < len(s) && s[i] == '}' && (first || !p.open) {
			return to, i + 1, nil
		}
		var l label
		quoted := i < len(s) && s[i] == '"'
		if quoted {
			l.name, i, err = p.quoted(s, i+1)
			if err != nil {
				return to, i, err
			}
		} else {
			end := nameEnd(s, i, labelStart, labelRest)
			l.name, i = s[i:end], end
		}
		if l.name == "" {
			return to, i, p.failure("must have a label or a closing brace at %s", excerpt(s[i:]))
		}
		i = p.skip(s, i)
		if i < len(s) && s[i] == '=' {
			if i = p.skip(s, i+1); i == len(s) || s[i] != '"' {
				return to, i, p.failure("the value of label %s must be in double quotes", excerpt(l.name))
			}
			if l.value, i, err = p.quoted(s, i+1); err != nil {
				return to, i, err
			}
			if to, err = p.add(to, l); err != nil {
				return to, i, err
			}
		} else {
			if !quoted || !named || p.name != "" {
				return to, i, p.failure("label %s must have = and a value behind its name", excerpt(l.name))
			}
			p.name = l.name
		}
		first = false
		i = p.skip(s, i)
		switch {
		case i < len(s) && s[i] == '}':
			return to, i + 1, nil
		case i < len(s) && s[i] == ',':
			i++
		default:
			return to, i, p.failure("after label %s must come a comma or a closing brace, got %s", excerpt(l.name), excerpt(s[i:]))
		}
	}
}

// add appends a label that is sound and new.
func (p *parser) add(to []label, l label) ([]label, error) {
	if l.name == "__name__" {
		return to, p.failure("label __name__ is reserved")
	}
	for i := range to {
		if to[i].name == l.name {
			return to, p.failure("label %s stands there twice", excerpt(l.name))
		}
	}
	return append(to, l), nil
}

// quoted returns the text from i, which is behind a double quote, up to the next, and where that ends.
func (p *parser) quoted(s string, i int) (text string, end int, err error) {
	escaped := false
	for end = i; end < len(s) && s[end] != '"'; end++ {
		if s[end] == '\\' {
			escaped = true
			end++
		}
	}
	if end >= len(s) {
		return "", len(s), p.failure("a double quote is not closed: %s", excerpt(s[i:]))
	}
	text = s[i:end]
	if !p.valid && !utf8.ValidString(text) {
		return "", end, p.failure("must be UTF-8: %s", excerpt(text))
	}
	if escaped {
		text = p.unescape(text)
	}
	return text, end + 1, nil
}

// unescape resolves \\, \" and \n.
func (p *parser) unescape(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	if len(p.chunk) < len(s) {
		p.chunk = creel.NewBuffer(max(4<<10, len(s)))
	}
	out := p.chunk[:0:len(s)]
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '\\' && i+1 < len(s) {
			switch s[i+1] {
			case 'n':
				c = '\n'
				i++
			case '\\', '"':
				i++
				c = s[i]
			}
		}
		out = append(out, c)
	}
	p.chunk = p.chunk[len(s):]
	return alias(out)
}

// What a byte may be in a name that is not quoted.
const (
	metricStart = 1 << iota
	metricRest
	labelStart
	labelRest
)

var nameBytes = func() (t [256]uint8) {
	for c := range t {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_'
		if letter {
			t[c] = metricStart | metricRest | labelStart | labelRest
		}
		if c >= '0' && c <= '9' {
			t[c] = metricRest | labelRest
		}
		if c == ':' {
			t[c] = metricStart | metricRest
		}
	}
	return t
}()

// nameEnd returns where the name that begins at i ends: at i if there is none.
func nameEnd(s string, i int, start, rest uint8) int {
	if i >= len(s) || nameBytes[s[i]]&start == 0 {
		return i
	}
	for i++; i < len(s) && nameBytes[s[i]]&rest != 0; i++ {
	}
	return i
}

// parseFloat reads a number as both formats have it. Most are short and whole.
func parseFloat(s string) (float64, error) {
	if len(s) > 0 && len(s) <= 15 {
		n, i := int64(0), 0
		for ; i < len(s) && s[i] >= '0' && s[i] <= '9'; i++ {
			n = n*10 + int64(s[i]-'0')
		}
		if i == len(s) {
			return float64(n), nil
		}
	}
	if strings.ContainsAny(s, "pPxX_") { // which Go knows, and neither format does
		return 0, strconv.ErrSyntax
	}
	return strconv.ParseFloat(s, 64)
}

// parseSeconds reads seconds as nanoseconds. As a floating-point number they would lose some.
func parseSeconds(s string) (int64, error) {
	whole, fraction, _ := strings.Cut(s, ".")
	if n, err := strconv.ParseInt(whole, 10, 64); err == nil && n >= 0 && n < math.MaxInt64/1_000_000_000 && len(fraction) <= 9 && strings.Trim(fraction, "0123456789") == "" {
		n *= 1e9
		for i, unit := 0, int64(1e8); i < len(fraction); i, unit = i+1, unit/10 {
			n += int64(fraction[i]-'0') * unit
		}
		return n, nil
	}
	f, err := parseFloat(s)
	if err != nil || !(math.Abs(f) < math.MaxInt64/1e9-1) {
		return 0, errSeconds
	}
	return int64(math.Round(f * 1e9)), nil
}

// excerpt quotes the beginning of what others wrote.
func excerpt(s string) string {
	const most = 40
	if len(s) > most {
		return strconv.Quote(s[:most]) + "…"
	}
	return strconv.Quote(s)
}
