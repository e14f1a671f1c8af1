package redact

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"strings"
	"unsafe"
)

// What is found is replaced by a mark: its kind in brackets, and its hash if so configured. Marks are never looked into,
// so that redacting twice is redacting once.
const (
	maxKind  = 32 // longest name of a kind
	hashSize = 16 // hexadecimal digits
	keyKind  = "key"
	keyMask  = "***"
)

// maxRounds bounds how often a text is looked at again after something in it was replaced, since what is left may have
// become something to replace. A text that needs more was made to; it is replaced as a whole.
const maxRounds = 16

// clean reports whether there is nothing to replace in s. It does not allocate.
func (r *redactor) clean(s string) bool {
	if r.active {
		sc := scan{d: &r.detectors, s: s}
		if _, ok := sc.next(); ok {
			return false
		}
	}
	for _, re := range r.patterns {
		if re.MatchString(s) && !r.free(s, re) {
			return false
		}
	}
	return true
}

// free reports whether re matches in no part of s between marks. What matches without a byte does not count.
func (r *redactor) free(s string, re *regexp.Regexp) bool {
	for from := 0; ; {
		start, end := r.mark(s, from)
		for _, at := range re.FindAllStringIndex(s[from:start], -1) {
			if at[1] > at[0] {
				return false
			}
		}
		if start == len(s) {
			return true
		}
		from = end
	}
}

// mark returns where the first mark from there on begins and ends; the end of s if there is none.
func (r *redactor) mark(s string, from int) (start, end int) {
	for {
		i := strings.IndexByte(s[from:], '[')
		if i < 0 {
			return len(s), len(s)
		}
		from += i
		if end := r.markEnd(s, from); end > 0 {
			return from, end
		}
		from++
	}
}

// rewrite returns s with everything replaced that is found in it, until nothing is.
func (r *redactor) rewrite(s string) string {
	for range maxRounds {
		before := s
		if r.active {
			s = r.scanned(s)
		}
		for i := range r.patterns {
			s = r.matched(s, i)
		}
		if s == before {
			return s
		}
	}
	if r.replace == "remove" {
		return ""
	}
	return "[text]"
}

// scanned returns s with what the detectors find replaced.
func (r *redactor) scanned(s string) string {
	sc := scan{d: &r.detectors, s: s}
	var out []byte
	copied := 0
	for {
		f, ok := sc.next()
		if !ok {
			break
		}
		if out == nil {
			out = make([]byte, 0, len(s)+2*maxKind)
		}
		out = append(out, s[copied:f.start]...)
		out = r.appendMark(out, f.kind, s[f.start:f.end])
		copied = f.end
	}
	if out == nil {
		return s
	}
	out = append(out, s[copied:]...)
	return unsafe.String(unsafe.SliceData(out), len(out))
}

// matched returns s with what the i-th pattern matches replaced.
func (r *redactor) matched(s string, i int) string {
	var out []byte
	copied := 0
	re := r.patterns[i]
	for from := 0; ; {
		start, end := r.mark(s, from)
		for _, at := range re.FindAllStringIndex(s[from:start], -1) {
			if at[1] == at[0] {
				continue
			}
			if out == nil {
				out = make([]byte, 0, len(s)+2*maxKind)
			}
			out = append(out, s[copied:from+at[0]]...)
			out = r.appendMark(out, firstPattern+i, s[from+at[0]:from+at[1]])
			copied = from + at[1]
		}
		if start == len(s) {
			break
		}
		from = end
	}
	if out == nil {
		return s
	}
	out = append(out, s[copied:]...)
	return unsafe.String(unsafe.SliceData(out), len(out))
}

// appendMark appends what takes the place of text.
func (r *redactor) appendMark(out []byte, kind int, text string) []byte {
	r.counted[kind].Inc()
	switch r.replace {
	case "remove":
		return out
	case "hash":
		return append(out, r.hashed(kind, text)...)
	}
	out = append(out, '[')
	out = append(out, r.kinds[kind]...)
	return append(out, ']')
}

// hashed returns the mark with text's hash. Of a card number only the digits count.
func (r *redactor) hashed(kind int, text string) string {
	in := append([]byte(r.salt), 0)
	for i := range len(text) {
		if kind != kindCard || isDigit(text[i]) {
			in = append(in, text[i])
		}
	}
	sum := sha256.Sum256(in)
	return "[" + r.kinds[kind] + ":" + hex.EncodeToString(sum[:hashSize/2]) + "]"
}

// isKeyMark reports whether an attribute's value is what this processor has put there.
func (r *redactor) isKeyMark(s string) bool {
	switch r.replace {
	case "mask":
		return s == keyMask
	case "hash":
		return strings.HasPrefix(s, "["+keyKind+":") && r.markEnd(s, 0) == len(s)
	}
	return false
}
