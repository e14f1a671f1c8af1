package rows

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/api"
)

// A condition is one filter: a key, how to compare, and with what.
type condition struct {
	key, op, value string
	number         float64 // of value, if isNumber
	isNumber       bool
}

// operators, longest first.
var operators = []string{"!=", ">=", "<=", "=", ">", "<"}

func parseFilters(texts []string) ([]condition, error) {
	var list []condition
	for _, text := range texts {
		at, op := -1, ""
		for _, o := range operators {
			if i := strings.Index(text, o); i > 0 && (at < 0 || i < at || i == at && len(o) > len(op)) {
				at, op = i, o
			}
		}
		if at < 0 {
			return nil, &api.Error{Code: "bad_request", Message: fmt.Sprintf("filter must be key=value, key!=value or severity>=WARN, got %q", text)}
		}
		c := condition{key: strings.TrimSpace(text[:at]), op: op, value: strings.TrimSpace(text[at+len(op):])}
		if c.key == "severity" {
			n, ok := severityNumber(c.value)
			if !ok {
				return nil, &api.Error{Code: "bad_request", Message: fmt.Sprintf("severity must be TRACE, DEBUG, INFO, WARN, ERROR, FATAL or a number from 0 to 24, got %q", c.value)}
			}
			c.value = strconv.Itoa(n)
		}
		c.number, c.isNumber = parseNumber(c.value)
		list = append(list, c)
	}
	return list, nil
}

func severityNumber(text string) (int, bool) {
	if n, err := strconv.Atoi(text); err == nil && n >= 0 && n <= 24 {
		return n, true
	}
	for n := creel.Severity(1); n <= 24; n++ {
		if strings.EqualFold(n.String(), text) {
			return int(n), true
		}
	}
	return 0, false
}

// holds compares what a record has.
func (c *condition) holds(have string, is bool) bool {
	if !is {
		return c.op == "!="
	}
	order := strings.Compare(have, c.value)
	if n, ok := parseNumber(have); ok && c.isNumber {
		switch {
		case n < c.number:
			order = -1
		case n > c.number:
			order = 1
		default:
			order = 0
		}
	}
	switch c.op {
	case "=":
		return order == 0
	case "!=":
		return order != 0
	case ">=":
		return order >= 0
	case "<=":
		return order <= 0
	case ">":
		return order > 0
	}
	return order < 0
}

// attributes are those of a record or a resource, as Attrs.Append wrote them: a JSON object.
type attributes struct{ text string }

// get returns an attribute as text: a string as it is, anything else as JSON. Of two with one key it is the last.
func (a *attributes) get(key string) (value string, is bool) {
	if !strings.Contains(a.text, key) && !strings.Contains(a.text, `\`) {
		return "", false // without a look at each: as a rule it is so
	}
	for rest := strings.TrimPrefix(a.text, "{"); rest != "" && rest[0] == '"'; {
		end := jsonEnd(rest)
		name := rest[:end]
		rest = strings.TrimPrefix(rest[end:], ":")
		end = jsonEnd(rest)
		if unquote(name) == key {
			value, is = unquote(rest[:end]), true
		}
		rest = strings.TrimPrefix(rest[end:], ",")
	}
	return value, is
}

// unquote returns a JSON string's text; other JSON as it is.
func unquote(text string) string {
	if text == "" || text[0] != '"' {
		return text
	}
	if !strings.Contains(text, `\`) {
		return text[1 : len(text)-1]
	}
	var s string
	_ = json.Unmarshal([]byte(text), &s) // it is what Attrs.Append wrote
	return s
}

// jsonEnd returns where the JSON value ends that text, which is sound, begins with.
func jsonEnd(text string) int {
	depth := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			for i++; i < len(text) && text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
		case '{', '[':
			depth++
		case '}', ']':
			depth--
			if depth < 0 {
				return i // of what it is in
			}
		case ',', ':':
			if depth == 0 {
				return i
			}
			continue
		default:
			continue
		}
		if depth == 0 {
			return min(i+1, len(text))
		}
	}
	return len(text)
}

// isColumn reports whether a key is a field of the record rather than an attribute.
func isColumn(key string) bool {
	return slices.Contains([]string{"severity", "service", "trace_id", "span_id", "event", "name", "status"}, key)
}

// words is a full-text query.
type words struct {
	all     []string // tokens that must occur, lower case
	phrases []string // texts that must occur, lower case
	none    []string // words that must not occur: tokens, lower case
	nowhere []string // texts that must not occur, lower case
}

// parseWords reads words, "phrases" and -words.
func parseWords(text string) (q words, err error) {
	for rest := strings.TrimSpace(text); rest != ""; rest = strings.TrimSpace(rest) {
		if rest[0] == '"' {
			end := strings.IndexByte(rest[1:], '"')
			if end < 0 {
				return q, &api.Error{Code: "bad_request", Message: "query has a phrase without an end: a \" is missing"}
			}
			if phrase := strings.ToLower(rest[1 : 1+end]); phrase != "" {
				q.phrases = append(q.phrases, phrase)
				q.all = append(q.all, tokens(phrase)...)
			}
			rest = rest[end+2:]
			continue
		}
		word, after, _ := strings.Cut(rest, " ")
		if w, not := strings.CutPrefix(word, "-"); not && w != "" {
			if w = strings.ToLower(w); isToken(w) {
				q.none = append(q.none, w)
			} else {
				q.nowhere = append(q.nowhere, w)
			}
		} else {
			word = strings.ToLower(word)
			q.all = append(q.all, tokens(word)...)
			if !isToken(word) { // a word of several tokens, such as a path: all of it must occur
				q.phrases = append(q.phrases, word)
			}
		}
		rest = after
	}
	return q, nil
}

// tokens are the words of a text as filters have them: letters and digits in a row, in lower case.
func tokens(text string) []string {
	return strings.FieldsFunc(strings.ToLower(text), func(r rune) bool { return !isWord(r) })
}

// isToken reports whether text, which is in lower case, is one token.
func isToken(text string) bool {
	ts := tokens(text)
	return len(ts) == 1 && ts[0] == text
}

func (q *words) empty() bool {
	return len(q.all)+len(q.phrases)+len(q.none)+len(q.nowhere) == 0
}

// holds looks at a body itself: what a filter says is not exact. room is memory for the body in lower case.
func (q *words) holds(body string, room *[]byte) bool {
	if q.empty() {
		return true
	}
	lower := lowerCase(body, room)
	for _, p := range q.phrases {
		if !strings.Contains(lower, p) {
			return false
		}
	}
	for _, t := range q.all {
		if !hasWord(lower, t) {
			return false
		}
	}
	for _, n := range q.none {
		if hasWord(lower, n) {
			return false
		}
	}
	for _, n := range q.nowhere {
		if strings.Contains(lower, n) {
			return false
		}
	}
	return true
}

// lowerCase returns text in lower case, in room if it is all ASCII.
func lowerCase(text string, room *[]byte) string {
	const every, high = 0x0101010101010101, 0x8080808080808080
	buf := append((*room)[:0], text...)
	*room = buf
	for rest := buf; len(rest) > 0; {
		if len(rest) < 8 {
			for i, c := range rest {
				if c >= utf8.RuneSelf {
					return strings.ToLower(text)
				}
				if c >= 'A' && c <= 'Z' {
					rest[i] = c + 'a' - 'A'
				}
			}
			break
		}
		w := binary.LittleEndian.Uint64(rest)
		if w&high != 0 {
			return strings.ToLower(text)
		}
		// The high bit of each byte that is a capital: at least 'A', and not beyond 'Z'.
		capital := (w + (0x80-'A')*every) &^ (w + (0x80-'Z'-1)*every) & high
		binary.LittleEndian.PutUint64(rest, w+capital>>2)
		rest = rest[8:]
	}
	return alias(buf)
}

// hasWord reports whether a word is one of the tokens of a text in lower case.
func hasWord(text, word string) bool {
	for from := 0; ; {
		i := strings.Index(text[from:], word)
		if i < 0 {
			return false
		}
		i += from
		before, _ := utf8.DecodeLastRuneInString(text[:i])
		after, _ := utf8.DecodeRuneInString(text[i+len(word):])
		if !isWord(before) && !isWord(after) {
			return true
		}
		_, size := utf8.DecodeRuneInString(text[i:])
		from = i + size
	}
}

func isWord(r rune) bool {
	return r != utf8.RuneError && (unicode.IsLetter(r) || unicode.IsDigit(r))
}
