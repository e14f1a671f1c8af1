package parse

import (
	"slices"
	"strconv"
	"unicode/utf8"
	"unsafe"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/expr"
)

// fields is what a scan has found in one line, and the memory to find it with, which is used again for the next.
type fields struct {
	p      *processor
	own    *creel.Records // where lists, maps and attributes come from
	record expr.Record
	text   arena
	drop   []int // logs of the batch to drop

	list   []creel.Attr // the fields that are being added to start at base; below are those of the objects around
	base   int
	seen   uint64        // keyBit of the fields from base on: what is not in it is new
	values []creel.Value // of lists that are open
	left   int           // fields and elements of lists that may still come
	fault  string        // of a scan that cannot return it
	dirty  bool          // the line is not valid UTF-8
	parsed bool          // the record was stored

	observed     int64 // when the line was collected, in nanoseconds; 0 for unknown
	time         int64
	severity     creel.Severity
	severityText string
	trace        creel.TraceID
	span         creel.SpanID
	body         creel.Value
	bodied       bool // there is a field for the body
	gone         int  // fields that were lifted

	// Neighbours share dates, and timestamps: these were read last, the latter by package time.
	dayText     string
	day         int
	stampText   string
	stampLayout *Layout
	stamp       int64
}

// reset makes f ready for the next log.
func (f *fields) reset(l *creel.Log) {
	f.list, f.values = f.list[:0], f.values[:0]
	f.base, f.seen, f.left, f.fault, f.dirty, f.parsed = 0, 0, f.p.MaxFields, "", false, false
	f.observed, f.time, f.severity, f.severityText = l.Observed, 0, 0, ""
	f.trace, f.span, f.bodied, f.gone = creel.TraceID{}, creel.SpanID{}, false, 0
}

// release forgets everything that would keep a batch's memory alive.
func (f *fields) release() {
	clear(f.list[:cap(f.list)])
	clear(f.values[:cap(f.values)])
	f.own, f.record, f.drop, f.body = nil, expr.Record{}, f.drop[:0], creel.Value{}
	f.severityText, f.dayText, f.stampText = "", "", ""
	const most = 4096 // elements: what one strange line needed is not kept
	if cap(f.list) > most || cap(f.values) > most {
		f.list, f.values = nil, nil
	}
}

// slots is the number of bits in a set of keys.
const slots = 64

// slot returns a number below slots that depends on key: a key whose slot is empty is new. The factors are such that the
// names of the ready formats, and the usual ones of JSON logs, hardly share a slot.
func slot(key string) uint {
	n := len(key)
	if n == 0 {
		return 0
	}
	return (uint(n) + 27*uint(key[0]) + 29*uint(key[n-1])) % slots
}

func keyBit(key string) uint64 { return 1 << slot(key) }

// add adds a field, unless there are too many: then left is negative. Of a name that comes twice the last value stays, at
// the place of the first, as in JavaScript.
func (f *fields) add(key string, v creel.Value) {
	if f.left--; f.left < 0 {
		return
	}
	bit := keyBit(key)
	if f.seen&bit != 0 {
		for i := f.base; i < len(f.list); i++ {
			if f.list[i].Key == key {
				f.list[i].Value = v
				return
			}
		}
	}
	f.seen |= bit
	n := len(f.list)
	if n == cap(f.list) {
		f.list = slices.Grow(f.list, 16)
	}
	f.list = f.list[:n+1]
	f.list[n].Key, f.list[n].Value = key, v // not by append: it puts the pair together elsewhere, and copying what was just written stalls
}

// addText adds a field whose value is s, unless it is -, as logs write what is absent.
func (f *fields) addText(key, s string) {
	if s != "-" && s != "" {
		f.add(key, f.string(s))
	}
}

// string returns s as a value: a string, or bytes when it is not valid UTF-8, which OTLP forbids in strings.
func (f *fields) string(s string) creel.Value {
	if f.dirty && !utf8.ValidString(s) {
		return creel.Bytes(unsafe.Slice(unsafe.StringData(s), len(s)))
	}
	return creel.String(s)
}

// key returns s as a field's name. Each byte that is not valid UTF-8 becomes U+FFFD.
func (f *fields) key(s string) string {
	if f.dirty && !utf8.ValidString(s) {
		return string([]rune(s))
	}
	return s
}

// action is what is done with a field of a certain name after a line was scanned.
type action uint8

const (
	toInt action = iota
	toDouble
	toBool
	toString
	liftTime
	liftSeverity
	liftTrace
	liftSpan
	liftBody
)

// rule does something with the field of a name. must: what cannot be done is an error.
type rule struct {
	name string
	does action
	must bool
}

// lifted is the key of a field that has become something else. It is no valid UTF-8, so no field is called so.
const lifted = "\xff"

// follow follows the rules.
func (f *fields) follow() (fault string) {
	if f.seen&f.p.mask == 0 {
		return ""
	}
	for i := range f.list {
		a := &f.list[i]
		n := slot(a.Key)
		if f.p.mask>>n&1 == 0 {
			continue
		}
		rules := f.p.rules[n]
		for j := range rules {
			if r := &rules[j]; r.name == a.Key && !f.do(r.does, a) && r.must {
				fault = "the timestamp is not understood"
			}
		}
	}
	return fault
}

// do does something with a field, and reports whether it could.
func (f *fields) do(does action, a *creel.Attr) bool {
	v, ok := a.Value, false
	switch does {
	case liftTime:
		if f.time == 0 {
			f.time, ok = f.readTime(v)
		}
	case liftSeverity:
		if f.severity == 0 {
			f.severity, f.severityText, ok = f.readSeverity(v)
		}
	case liftTrace:
		ok = f.trace == creel.TraceID{} && hexID(f.trace[:], v.Str())
	case liftSpan:
		ok = f.span == creel.SpanID{} && hexID(f.span[:], v.Str())
	case liftBody:
		if !f.bodied && v.Kind() != creel.ValueEmpty {
			f.body, f.bodied, ok = v, true, true
		}
	default:
		a.Value = f.convert(v, does)
		return true
	}
	if ok {
		a.Key = lifted
		f.gone++
	}
	return ok
}

// hexID reads an id, and reports whether s is one: of its length and not zero.
func hexID(id []byte, s string) bool {
	if len(s) != 2*len(id) {
		return false
	}
	var buf [16]byte
	var all, any byte
	for i := range id {
		hi, lo := unhex(s[2*i]), unhex(s[2*i+1])
		all |= hi | lo
		buf[i] = hi<<4 | lo
		any |= buf[i]
	}
	if all > 15 || any == 0 {
		return false
	}
	copy(id, buf[:])
	return true
}

// hexDigits has the value of each hexadecimal digit plus one, 0 for what is none.
var hexDigits = func() (t [256]byte) {
	for i := range byte(16) {
		c := "0123456789abcdef"[i]
		t[c] = i + 1
		if c >= 'a' {
			t[c-'a'+'A'] = i + 1
		}
	}
	return t
}()

// unhex returns the value of a hexadecimal digit, 255 if c is none.
func unhex(c byte) byte { return hexDigits[c] - 1 }

// convert returns v as another type, or as it is when it does not fit.
func (f *fields) convert(v creel.Value, to action) creel.Value {
	s := v.Str()
	switch to {
	case toInt:
		if n, ok := integer(s); ok {
			return creel.Int(n)
		}
	case toDouble:
		if v.Kind() == creel.ValueInt {
			return creel.Double(float64(v.Int()))
		}
		if s != "" && (s[len(s)-1]-'0' <= 9 || s[len(s)-1] == '.') { // neither NaN nor Infinity, nor the errors of words
			if d, err := strconv.ParseFloat(s, 64); err == nil {
				return creel.Double(d)
			}
		}
	case toBool:
		switch s {
		case "true", "True", "TRUE":
			return creel.Bool(true)
		case "false", "False", "FALSE":
			return creel.Bool(false)
		}
	case toString:
		if k := v.Kind(); k != creel.ValueString && k != creel.ValueBytes && k != creel.ValueEmpty {
			return creel.String(f.text.keep(v.Append(f.text.room(32))))
		}
	}
	return v
}

// integer reads a decimal integer that fits.
func integer(s string) (n int64, ok bool) {
	digits := s
	if s != "" && s[0] == '-' {
		digits = s[1:]
	}
	if len(digits) == 0 || len(digits) > 19 {
		return 0, false
	}
	var u uint64
	for i := range len(digits) {
		d := digits[i] - '0'
		if d > 9 {
			return 0, false
		}
		u = 10*u + uint64(d)
	}
	if len(digits) < len(s) {
		return -int64(u), u <= 1<<63
	}
	return int64(u), u < 1<<63
}

// store changes l to what was found. source is what was parsed.
func (f *fields) store(l *creel.Log, source creel.Value) {
	f.parsed = true
	if f.time != 0 {
		l.Time = f.time
	}
	if f.severity != 0 {
		l.Severity, l.SeverityText = f.severity, f.severityText
	}
	if f.trace != (creel.TraceID{}) {
		l.TraceID = f.trace
	}
	if f.span != (creel.SpanID{}) {
		l.SpanID = f.span
	}
	p, n := f.p, len(f.list)-f.gone
	if p.Prefix != "" {
		f.seen = 0
		for i := range f.list {
			if a := &f.list[i]; a.Key != lifted {
				a.Key = f.text.concat(p.Prefix, a.Key)
				f.seen |= keyBit(a.Key)
			}
		}
	}
	if p.To == "body" {
		l.Body = creel.Map(f.copyTo(f.own.Attrs.Make(n)[:0], true)...)
	} else {
		distinct := true // as far as bits tell
		for i := range l.Attrs {
			distinct = distinct && f.seen&keyBit(l.Attrs[i].Key) == 0
		}
		if p.KeepOriginal {
			n++
		}
		l.Attrs = f.copyTo(f.own.Extend(l.Attrs, n), distinct)
		switch {
		case f.bodied:
			l.Body = f.body
		case p.Body == "drop":
			l.Body = creel.Value{}
		}
	}
	if p.KeepOriginal {
		l.Attrs = f.own.Extend(l.Attrs, 1)
		l.Attrs.Set(OriginalAttr, source)
	}
}

// copyTo appends the fields to as, which has room; distinct: no name is in it.
func (f *fields) copyTo(as creel.Attrs, distinct bool) creel.Attrs {
	if distinct && f.gone == 0 {
		return append(as, f.list...)
	}
	for i := range f.list {
		switch a := &f.list[i]; {
		case a.Key == lifted:
		case distinct:
			as = append(as, *a)
		default:
			as.Set(a.Key, a.Value)
		}
	}
	return as
}

// arena makes strings without an allocation for each. What was made is never written again.
type arena struct{ free []byte } // its length is 0

const chunk = 32 << 10 // bytes that an arena allocates at once

// room returns an empty slice to which n bytes can be appended.
func (a *arena) room(n int) []byte {
	if cap(a.free) < n {
		a.free = make([]byte, 0, max(n, chunk))
	}
	return a.free
}

// keep returns what was written to room.
func (a *arena) keep(b []byte) string {
	if a.free = b[len(b):]; cap(a.free) > chunk { // the rest of one huge line would keep all of it alive
		a.free = nil
	}
	return unsafe.String(unsafe.SliceData(b), len(b))
}

func (a *arena) concat(s, t string) string {
	return a.keep(append(append(a.room(len(s)+len(t)), s...), t...))
}
