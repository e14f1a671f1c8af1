package parse

import (
	"strings"

	"github.com/creelhq/creel"
)

// scanLogfmt adds pairs such as level=info msg="hello world". A word by itself is true, but there must be one pair.
func scanLogfmt(f *fields, line string) (fault string) {
	pairs := 0
	for i := 0; ; {
		for i < len(line) && line[i] <= ' ' {
			i++
		}
		if i == len(line) {
			break
		}
		start := i
		for i < len(line) && line[i] > ' ' && line[i] != '=' && line[i] != '"' {
			i++
		}
		key := f.key(line[start:i])
		switch {
		case i < len(line) && line[i] == '"':
			return "a quote in a key"
		case i == len(line) || line[i] != '=':
			f.add(key, creel.Bool(true))
			continue
		case key == "":
			return "a value without a key"
		}
		i++
		pairs++
		if i == len(line) || line[i] != '"' {
			end := blank(line, i)
			f.add(key, f.string(line[i:end]))
			i = end
			continue
		}
		end, escaped := quoted(line, i+1, '"')
		switch {
		case end < 0:
			return "a quote that does not end"
		case end+1 < len(line) && line[end+1] > ' ':
			return "text after a closing quote"
		}
		f.add(key, f.maybeQuoted(line[i+1:end], escaped))
		i = end + 1
	}
	if pairs == 0 {
		return "no key=value pair"
	}
	return ""
}

// maybeQuoted returns s, without its escapes if it has some.
func (f *fields) maybeQuoted(s string, escaped bool) creel.Value {
	if escaped {
		return f.unquote(s)
	}
	return f.string(s)
}

// newKeyValue returns the scan of pairs that are separated by pairs, key and value by equals. Space around them is none of
// theirs. A value may stand in single or double quotes.
func newKeyValue(equals, pairs string) scan {
	if equals == "" {
		equals = "="
	}
	if pairs == "" {
		pairs = " "
	}
	return func(f *fields, line string) (fault string) {
		rest := line
		for {
			if rest = strings.TrimLeft(rest, " \t"); rest == "" {
				break
			}
			if after, ok := strings.CutPrefix(rest, pairs); ok {
				rest = after
				continue
			}
			n := strings.Index(rest, equals)
			if end := strings.Index(rest, pairs); n < 0 || end >= 0 && end < n {
				return "a pair without a delimiter"
			}
			key := strings.Trim(rest[:n], " \t")
			if key == "" {
				return "a value without a key"
			}
			rest = rest[n+len(equals):]
			trimmed := rest
			if pairs[0] != ' ' && pairs[0] != '\t' {
				trimmed = strings.TrimLeft(rest, " \t")
			}
			if trimmed != "" && (trimmed[0] == '"' || trimmed[0] == '\'') {
				end, escaped := quoted(trimmed, 1, trimmed[0])
				if end < 0 {
					return "a quote that does not end"
				}
				f.add(f.key(key), f.maybeQuoted(trimmed[1:end], escaped))
				rest = trimmed[end+1:]
				if after := strings.TrimLeft(rest, " \t"); after != "" && !strings.HasPrefix(rest, pairs) && !strings.HasPrefix(after, pairs) {
					return "text after a closing quote"
				}
				continue
			}
			value := rest
			if end := strings.Index(rest, pairs); end >= 0 {
				value, rest = rest[:end], rest[end+len(pairs):]
			} else {
				rest = ""
			}
			f.add(f.key(key), f.string(strings.Trim(value, " \t")))
		}
		if len(f.list) == 0 {
			return "no pair"
		}
		return ""
	}
}

// newCSV returns the scan of a line of comma-separated values (RFC 4180), which may hold line breaks in quotes.
func newCSV(columns []string, delimiter string) scan {
	comma := byte(',')
	if delimiter != "" {
		comma = delimiter[0]
	}
	return func(f *fields, line string) (fault string) {
		i := 0
		for n := 0; ; n++ {
			var v creel.Value
			if i < len(line) && line[i] == '"' {
				if v, i = f.csvQuoted(line, i+1); i < 0 {
					return "a quote that does not end"
				}
				if i < len(line) && line[i] != comma {
					return "text after a closing quote"
				}
			} else {
				end := strings.IndexByte(line[i:], comma)
				if end < 0 {
					end = len(line) - i
				}
				v = f.string(line[i : i+end])
				i += end
			}
			if n == len(columns) {
				return "more columns than names"
			}
			if columns[n] != "" {
				f.add(columns[n], v)
			}
			if i == len(line) {
				if n+1 < len(columns) {
					return "fewer columns than names"
				}
				return ""
			}
			i++
		}
	}
}

// csvQuoted reads a value whose quote was before i, in which a quote is written twice; -1 if it does not end.
func (f *fields) csvQuoted(s string, i int) (v creel.Value, next int) {
	var b []byte
	doubled := false
	for from := i; ; {
		n := strings.IndexByte(s[from:], '"')
		if n < 0 {
			return v, -1
		}
		end := from + n
		if end+1 < len(s) && s[end+1] == '"' {
			if !doubled {
				b, doubled = f.text.room(len(s)-i), true
			}
			b = append(b, s[from:end+1]...)
			from = end + 2
			continue
		}
		if !doubled {
			return f.string(s[i:end]), end + 1
		}
		return f.string(f.text.keep(append(b, s[from:end]...))), end + 1
	}
}
