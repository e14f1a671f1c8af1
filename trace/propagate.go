package trace

import (
	"encoding/hex"
	"strings"
)

// The names of headers, as they are given to set and asked of get: in lower case, as gRPC wants its metadata.
const (
	headerParent    = "traceparent"
	headerState     = "tracestate"
	headerB3        = "b3"
	headerB3Trace   = "x-b3-traceid"
	headerB3Span    = "x-b3-spanid"
	headerB3Parent  = "x-b3-parentspanid"
	headerB3Sampled = "x-b3-sampled"
	headerB3Flags   = "x-b3-flags"
)

// Extract reads the context that a request carries: W3C Trace Context first, then B3 in one header, then B3 in several. get
// returns the value of a header, whose name is in lower case, "" if it is not there; several values joined by commas. What
// is malformed counts as if it were not there. It does not allocate: State is a part of the header.
func Extract(get func(key string) string) (Context, bool) {
	if c, ok := parseParent(get(headerParent)); ok {
		c.State = parseState(get(headerState))
		return c, true
	}
	if b3 := get(headerB3); b3 == "0" { // "do not sample", which names no span, and counts more than the headers below
		return Context{}, false
	} else if c, ok := parseB3(b3); ok {
		return c, true
	}
	return extractB3(get)
}

// Inject writes c as W3C Trace Context (https://www.w3.org/TR/trace-context/), if it is valid.
func (c Context) Inject(set func(key, value string)) {
	if !c.Valid() {
		return
	}
	var b [55]byte
	c.write(&b, "00-", '0')
	set(headerParent, string(b[:]))
	if c.State != "" {
		set(headerState, c.State)
	}
}

// InjectB3 writes c as B3 in one header (https://github.com/openzipkin/b3-propagation), if it is valid.
func (c Context) InjectB3(set func(key, value string)) {
	if !c.Valid() {
		return
	}
	var b [55]byte
	c.write(&b, "", 0)
	set(headerB3, string(b[:51]))
}

// write writes trace, span and flag, with dashes between them, after begin. The flag is one digit, or two.
func (c Context) write(b *[55]byte, begin string, flag byte) {
	n := copy(b[:], begin)
	hex.Encode(b[n:], c.Trace[:])
	b[n+32] = '-'
	hex.Encode(b[n+33:], c.Span[:])
	b[n+49] = '-'
	n += 50
	if flag != 0 {
		b[n] = flag
		n++
	}
	b[n] = '0'
	if c.Sampled {
		b[n] = '1'
	}
}

// parseParent reads a traceparent: version, trace, span and flags. Versions to come may have more, after another dash.
func parseParent(s string) (c Context, ok bool) {
	var version, flags [1]byte
	switch {
	case len(s) < 55 || s[2] != '-' || s[35] != '-' || s[52] != '-':
		return Context{}, false
	case !parseHex(version[:], s[:2]) || !parseHex(c.Trace[:], s[3:35]) || !parseHex(c.Span[:], s[36:52]) || !parseHex(flags[:], s[53:55]):
		return Context{}, false
	case version[0] == 0xff || len(s) > 55 && (version[0] == 0 || s[55] != '-'):
		return Context{}, false
	}
	c.Sampled = flags[0]&1 != 0
	return c.orNone()
}

// What is handed on of a tracestate.
const (
	maxMembers = 32
	maxState   = 512 // bytes
)

// parseState returns s if it is a tracestate, else "": it is dropped as a whole.
func parseState(s string) string {
	if len(s) > maxState {
		return ""
	}
	var keys [maxMembers]string
	n := 0
	for member := range strings.SplitSeq(s, ",") {
		member = strings.Trim(member, " \t")
		if member == "" {
			continue
		}
		key, value, _ := strings.Cut(member, "=")
		if n == maxMembers || !isStateKey(key) || !isStateValue(value) {
			return ""
		}
		for _, k := range keys[:n] {
			if k == key {
				return ""
			}
		}
		keys[n] = key
		n++
	}
	if n == 0 {
		return ""
	}
	return strings.Trim(s, " \t")
}

// isStateKey accepts the keys of both levels of the specification.
func isStateKey(key string) bool {
	if key == "" || len(key) > 256 || !isLower(key[0]) && !isDigit(key[0]) {
		return false
	}
	for i := range len(key) {
		if c := key[i]; !isLower(c) && !isDigit(c) && !strings.ContainsRune("_-*/@", rune(c)) {
			return false
		}
	}
	return true
}

func isStateValue(value string) bool {
	if value == "" || len(value) > 256 {
		return false
	}
	for i := range len(value) {
		if c := value[i]; c < ' ' || c > '~' || c == ',' || c == '=' {
			return false
		}
	}
	return true
}

func isLower(c byte) bool { return 'a' <= c && c <= 'z' }
func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// parseB3 reads the header b3: trace and span, then perhaps whether it is sampled, then perhaps the parent.
func parseB3(s string) (Context, bool) {
	id, rest, _ := strings.Cut(s, "-")
	span, rest, more := strings.Cut(rest, "-")
	sampled, parent, grand := strings.Cut(rest, "-")
	var ignored [8]byte
	if more && sampled == "" || grand && !parseHex(ignored[:], parent) {
		return Context{}, false
	}
	return makeB3(id, span, sampled)
}

// extractB3 reads the X-B3 headers.
func extractB3(get func(string) string) (Context, bool) {
	id := get(headerB3Trace)
	if id == "" {
		return Context{}, false
	}
	var ignored [8]byte
	if parent := get(headerB3Parent); parent != "" && !parseHex(ignored[:], parent) {
		return Context{}, false
	}
	sampled := strings.ToLower(get(headerB3Sampled))
	switch sampled {
	case "", "0", "1":
	case "true": // as early tracers wrote it
		sampled = "1"
	case "false":
		sampled = "0"
	default:
		return Context{}, false
	}
	if get(headerB3Flags) == "1" {
		sampled = "d"
	}
	return makeB3(id, get(headerB3Span), sampled)
}

// makeB3 makes a context of its parts. A trace of 64 bits is padded on the left. What leaves the decision to others, with
// sampled "", is not sampled.
func makeB3(id, span, sampled string) (c Context, ok bool) {
	trace := c.Trace[:]
	if len(id) == 16 {
		trace = trace[8:]
	}
	switch {
	case !parseHex(trace, id) || !parseHex(c.Span[:], span):
		return Context{}, false
	case sampled == "1" || sampled == "d":
		c.Sampled = true
	case sampled != "" && sampled != "0":
		return Context{}, false
	}
	return c.orNone()
}

// orNone returns c if it is valid: ids of zeros alone are none.
func (c Context) orNone() (Context, bool) {
	if !c.Valid() {
		return Context{}, false
	}
	return c, true
}

// parseHex decodes s, which must be lower case and fill dst.
func parseHex(dst []byte, s string) bool {
	if len(s) != 2*len(dst) {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case isDigit(c):
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		default:
			return false
		}
		dst[i/2] = dst[i/2]<<4 | c
	}
	return true
}
