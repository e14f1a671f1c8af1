package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	longest = 1 << 20 // max_line_size

	// Each line has a mark somewhere that tells its number; a long one has it again and again, each followed by how often
	// it was there before, so that each part of it tells where it belongs.
	mark      = "#L"
	markBytes = len(mark) + 7
	unitBytes = markBytes + 8
)

// oddLines makes lines, each from its number alone, so that they need not be remembered. It is for one goroutine.
type oddLines struct {
	seed uint64
	n    int // how many there are
	pcg  rand.PCG
	r    *rand.Rand
	long map[int][]byte // by number; shared
}

func newOddLines(seed uint64, n int) *oddLines {
	o := &oddLines{seed: seed, n: n, long: map[int][]byte{}}
	for at, size := range map[int]int{
		n / 8: longest, n / 7: longest + 50 /* less might have no mark */, n / 6: 3<<20 + 12345, n / 3: 5 << 20, n / 2: 20<<20 + 777,
	} {
		text := make([]byte, 0, size+unitBytes)
		for unit := 0; len(text) < size; unit++ {
			text = append(appendNumber(append(text, markOf(at)...), unit), ' ')
		}
		o.long[at] = text[:size]
	}
	return o.fork()
}

// fork returns another one for another goroutine.
func (o *oddLines) fork() *oddLines {
	o = &oddLines{seed: o.seed, n: o.n, long: o.long}
	o.r = rand.New(&o.pcg)
	return o
}

// appendNumber appends n in seven digits.
func appendNumber(b []byte, n int) []byte {
	for div := 1_000_000; div > 0; div /= 10 {
		b = append(b, byte('0'+n/div%10))
	}
	return b
}

func markOf(line int) string { return string(appendNumber([]byte(mark), line)) }

// line returns line i without its line feed. It holds the line's mark, unless it is one of those that are nothing.
func (o *oddLines) line(i int) []byte {
	if text := o.long[i]; text != nil {
		return text
	}
	o.pcg.Seed(o.seed, uint64(i))
	line := o.ordinary(markOf(i))
	if o.r.IntN(20) == 0 {
		line = append(line, '\r')
	}
	return line
}

var nothings = []string{"", "", " ", "\t \t", "\x00\x00\x00", "    \v", "\xff", "{", "{}x"}

// ordinary returns a line of any kind that fits.
func (o *oddLines) ordinary(id string) []byte {
	r := o.r
	b := make([]byte, 0, 256)
	switch kind := r.IntN(100); {
	case kind < 50:
		return o.object(b, id, "")
	case kind < 54: // cut off behind its mark
		b = o.object(b, id, "")
		from := bytes.IndexByte(b, ',')
		return b[:from+r.IntN(len(b)-from)]
	case kind < 58:
		return fmt.Appendf(b, "plain %s text, says %q", id, words[r.IntN(len(words))])
	case kind < 62:
		return append(b, nothings[r.IntN(len(nothings))]...)
	case kind < 64: // bytes that do not belong there
		at, odd := r.IntN(3), oddBytes[r.IntN(len(oddBytes))]
		return fmt.Appendf(b, `%[1]s{"id":"%[4]s","text":"a%[2]sb"}%[3]s`, odd[:len(odd)*b2i(at == 0)], odd[:len(odd)*b2i(at == 1)], odd[:len(odd)*b2i(at == 2)], id)
	case kind < 66: // values that are no objects
		return fmt.Appendf(b, []string{`["%s"]`, `"%s"`, ` {"id":"%s"} {}`, `{"id":"%s",}`, `{'id':"%s"}`, `{"id":"%s"`, `null %s`, "\ufeff{\"id\":\"%s\"}"}[r.IntN(8)], id)
	case kind < 70: // as deep as can be, and deeper
		n := []int{1, 10, 31, 32, 40, 500}[r.IntN(6)] // the object that is the line counts
		if r.IntN(2) == 0 {
			return o.object(b, id, `"deep":`+strings.Repeat("[", n)+strings.Repeat("]", n))
		}
		return o.object(b, id, `"deep":`+strings.Repeat(`{"d":`, n)+"1"+strings.Repeat("}", n))
	case kind < 71 && r.IntN(20) == 0: // as many as can be, and more
		return o.object(b, id, `"many":[`+strings.Repeat("1,", []int{900, 2000}[r.IntN(2)])+"1]")
	case kind < 72 && r.IntN(100) == 0:
		return o.object(b, id, `"big":"`+strings.Repeat("x", 100_000+r.IntN(800_000))+`"`)
	case kind < 80:
		return o.object(b, id, oddMembers[r.IntN(len(oddMembers))])
	}
	return o.object(b, id, oddMembers[r.IntN(len(oddMembers))]+","+oddMembers[r.IntN(len(oddMembers))])
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

var (
	words    = []string{"timeout", "card declined", "ok", "größer", "名前", "🚀", "a\x00b", "tab\there"}
	levels   = []string{`"INFO"`, `"info"`, `"WARN"`, `"error"`, `"DEBUG"`, `"debug"`, `"TRACE"`, `"purple"`, `30`, `20`, `50`, `null`, `["DEBUG"]`}
	times    = []string{`"2026-11-24T13:55:36.5Z"`, `"2026-11-24T13:55:36.123456789+01:00"`, `"yesterday"`, `{"at":1}`}
	bodies   = []string{`"card declined"`, `"caf\u00e9 \ud83d\ude80 \"quoted\" \\ \/ \b\f\n\r\t\u0000"`, `"名前"`, `""`, `{"code":7,"why":["a",null]}`, `null`, `12.5`, `"\ud800 lone \udc00"`}
	oddBytes = []string{"\xff", "\xc3", "\xe2\x82", "\x00", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\x1b[31m", "\xc0\xaf", "\x7f"}
	// Of a name that comes twice the last value counts, wherever it is.
	oddMembers = []string{
		`"a":1,"a":2`, `"a":{"x":1},"a":{"y":2}`, `"a":{"x":1,"y":2,"x":3}`, `"level":"DEBUG","level":"ERROR"`, `"level":"ERROR","level":"DEBUG"`,
		`"big":9223372036854775807,"bigger":9223372036854775808,"least":-9223372036854775808,"less":-9223372036854775809`,
		`"huge":123456789012345678901234567890,"e":1e400,"small":1e-400,"minus":-0,"zero":0.0`, `"e":1E+5,"f":0.1,"g":123456.789e-3,"h":3.141592653589793238462643383279`,
		`"":1`, `"nested":{"":{"":[{}]}}`, `"k\u0065y":1,"key":2`, `"surrogate":"\ud83d","\udc00":1`, `"pair":"\ud83d\ude80\ud83d"`, `"nul":"\u0000","n\u0000l":"x"`,
		`"list":[1,"x",null,true,{"y":[]},[[]],1.5]`, `"t":true,"f":false,"n":null`, "\"white\" \t: \r [ ] ", `"é":"ü","名":"前"`, `"trace_id":"5b8efff798038103d269b633813fc60c"`,
		`"trace_id":"00000000000000000000000000000000"`, `"trace_id":"short"`, `"long":"` + strings.Repeat("0123456789", 50) + `"`, "\"raw\":\"a\x00b\"", "\"raw\":\"a\x1fb\"", `"esc":"\x41"`,
		`"esc":"\u12"`, `"num":01`, `"num":+1`, `"num":.5`, `"num":NaN`, `"log.iostream":"x"`, "\"bad\":\"\xff\"", "\"bad\xff\":\"ok\"",
	}
)

// object appends an object that begins with the mark and has further members.
func (o *oddLines) object(b []byte, id, members string) []byte {
	r := o.r
	b = append(append(append(b, `{"id":"`...), id...), `","n":`...)
	b = strconv.AppendInt(b, int64(r.IntN(100_000)), 10)
	if members != "" {
		b = append(append(b, ','), members...)
	}
	if r.IntN(4) > 0 && !strings.Contains(members, `"level"`) {
		b = append(append(b, `,"level":`...), levels[r.IntN(len(levels))]...)
	}
	if r.IntN(2) == 0 {
		b = append(append(b, `,"msg":`...), bodies[r.IntN(len(bodies))]...)
	}
	if r.IntN(4) == 0 {
		b = append(append(b, `,"time":`...), times[r.IntN(len(times))]...)
	}
	return append(b, '}')
}

// fate is what must become of a line, by encoding/json and what the documentation says.
type fate struct {
	parts    int  // records
	failed   bool // each is marked with creel.parse_error
	filtered bool // none arrives

	attrs    map[string]any // of a line that is parsed
	body     any            // nil: the line
	severity int
	text     string // severity as it was written
	time     int64
	trace    string
}

// fateOf says what must become of a line, which is as it lies in the file but for the line feed.
func fateOf(line []byte) fate {
	line = bytes.TrimSuffix(line, []byte("\r"))
	f := fate{parts: max(1, (len(line)+longest-1)/longest), failed: true}
	if trimmed := bytes.TrimLeft(line, " \t\r\n"); f.parts > 1 || len(trimmed) == 0 || trimmed[0] != '{' {
		return f
	}
	var object map[string]any
	d := json.NewDecoder(bytes.NewReader(line))
	d.UseNumber()
	if d.Decode(&object) != nil || len(bytes.TrimLeft(line[d.InputOffset():], " \t\r\n")) > 0 {
		return f
	}
	if depth, members := measure(line); depth > 32 || members > 1024 {
		return f
	}
	f.attrs = object
	f.failed = false
	f.lift()
	f.filtered = f.severity > 0 && f.severity < 9
	return f
}

// measure returns how deep valid JSON is, and how many members and elements there are in it, those of equal names too.
func measure(text []byte) (depth, members int) {
	open, inside := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case inside && c == '\\':
			i++
		case c == '"':
			inside = !inside
		case inside:
		case c == '{' || c == '[':
			open++
			depth = max(depth, open)
			members++
		case c == '}' || c == ']':
			open--
		case c == ',':
			members++
		}
	}
	return depth, members
}

var severities = map[string]int{"TRACE": 1, "DEBUG": 5, "debug": 5, "INFO": 9, "info": 9, "WARN": 13, "error": 17, "ERROR": 17, "20": 5, "30": 9, "50": 17}

// lift moves well-known members.
func (f *fate) lift() {
	switch level := f.attrs["level"].(type) {
	case string:
		f.severity, f.text = severities[level], level
	case json.Number:
		f.severity, f.text = severities[level.String()], level.String()
	}
	if f.severity == 0 {
		f.text = ""
	} else {
		delete(f.attrs, "level")
	}
	if msg := f.attrs["msg"]; msg != nil {
		f.body = msg
		delete(f.attrs, "msg")
	}
	if text, ok := f.attrs["time"].(string); ok {
		if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
			f.time = at.UnixNano()
			delete(f.attrs, "time")
		}
	}
	if id, ok := f.attrs["trace_id"].(string); ok && len(id) == 32 && strings.Trim(id, "0") != "" {
		f.trace = id
		delete(f.attrs, "trace_id")
	}
}

// numberOf returns what a JSON number must become: an integer or a double, or text when either would change it.
func numberOf(text string) any {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && text != "-0" {
		return n
	}
	if d, err := strconv.ParseFloat(text, 64); err == nil && (text == "-0" || strings.ContainsAny(text, ".eE")) {
		return d
	}
	return text
}

// same reports whether a value that arrived is what it must be. A string that is not valid UTF-8 arrives as its bytes.
func same(got, want any) bool {
	switch want := want.(type) {
	case json.Number:
		return got == numberOf(want.String())
	case string:
		if raw, ok := got.([]byte); ok {
			return !utf8.Valid(raw) && string([]rune(string(raw))) == want
		}
		return got == want
	case []any:
		list, ok := got.([]any)
		if !ok || len(list) != len(want) {
			return false
		}
		for i := range list {
			if !same(list[i], want[i]) {
				return false
			}
		}
		return true
	case map[string]any:
		m, ok := got.(map[string]any)
		if !ok || len(m) != len(want) {
			return false
		}
		for k, v := range m {
			if w, ok := want[k]; !ok || !same(v, w) {
				return false
			}
		}
		return true
	}
	return got == want
}
