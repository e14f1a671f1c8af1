package redact

import (
	"encoding/base64"
	"strings"
)

// webToken returns the JSON Web Token (RFC 7519) whose eyJ ends with s[i]: parts in base64, joined by dots; three if it
// is signed, five if it is encrypted, two if somebody has cut the signature off.
func (sc *scan) webToken(i int) (start, end int, ok bool) {
	s := sc.s
	start = i - 2
	if start < sc.low || s[start] != 'e' || s[start+1] != 'y' || start < sc.dry {
		return 0, 0, false
	}
	parts, from := 0, start
	second := ""
	for parts < 5 {
		end = from
		for end < len(s) && isURL64(s[end]) {
			end++
		}
		sc.dry = end
		if parts++; parts == 1 && (end-start < 10 || end == len(s) || s[end] != '.') || parts == 2 && end-from < 2 {
			return 0, 0, false
		}
		if parts == 2 {
			second = s[from:end]
		}
		if end == len(s) || s[end] != '.' {
			break
		}
		from = end + 1
	}
	if end > start && s[end-1] == '.' { // the end of a sentence, or an empty signature
		end--
	}
	return start, end, parts > 2 || strings.HasPrefix(second, "eyJ")
}

// authorization returns the credentials after Bearer (RFC 6750) or Basic (RFC 7617), if that stands at s[i].
func authorization(s string, i int) (start, end int, ok bool) {
	basic := false
	switch {
	case hasPrefixFold(s[i:], "bearer "):
		start = i + len("bearer ")
	case hasPrefixFold(s[i:], "basic "):
		start, basic = i+len("basic "), true
	default:
		return 0, 0, false
	}
	digits := 0
	for end = start; end < len(s) && (isURL64(s[end]) || strings.IndexByte(".~+/=", s[end]) >= 0); end++ {
		if isDigit(s[end]) {
			digits++
		}
	}
	if basic {
		return start, end, isUserPassword(s[start:end])
	}
	return start, end, end-start >= 24 || end-start >= 8 && digits > 0 // not: a bearer certificate
}

// isUserPassword reports whether text is user:password in base64.
func isUserPassword(text string) bool {
	var raw, plain [256]byte
	if len(text) < 4 || len(text) > len(raw) {
		return len(text) > len(raw)
	}
	n, err := base64.StdEncoding.Decode(plain[:], raw[:copy(raw[:], text)])
	return err == nil && strings.IndexByte(string(plain[:n]), ':') >= 0
}

// cloudKey returns the access key of AWS, or the API key of Google, that begins at s[i].
func cloudKey(s string, low, i int) (start, end int, ok bool) {
	if i+4 > len(s) || i > low && isAlnum(s[i-1]) {
		return 0, 0, false
	}
	switch s[i : i+4] {
	case "AKIA", "ASIA", "ABIA", "ACCA", "AGPA", "AIDA", "AIPA", "ANPA", "ANVA", "AROA":
		for end = i + 4; end < len(s) && (isDigit(s[end]) || 'A' <= s[end] && s[end] <= 'Z'); end++ {
		}
		return i, end, end-i == 20 && (end == len(s) || !isAlnum(s[end]))
	case "AIza":
		for end = i + 4; end < len(s) && isURL64(s[end]); end++ {
		}
		return i, end, end-i >= 39
	}
	return 0, 0, false
}

// prefixed returns the token whose prefix ends with s[i], a _ or -.
func prefixed(s string, low, i int) (start, end int, ok bool) {
	before := s[low : i+1]
	least := 0
	switch {
	case len(before) < 3:
		return 0, 0, false
	case endsWith(before, "ghp_", "gho_", "ghu_", "ghs_", "ghr_"):
		start, least = i-3, 20
	case endsWith(before, "npm_"):
		start, least = i-3, 30
	case endsWith(before, "github_pat_"):
		start, least = i-len("github_pat"), 20
	case endsWith(before, "sk_live_", "rk_live_", "sk_test_", "rk_test_"):
		start, least = i-len("sk_live"), 10
	case endsWith(before, "glpat-"):
		start, least = i-len("glpat"), 16
	case endsWith(before, "xoxa-", "xoxb-", "xoxp-", "xoxr-", "xoxs-"):
		start, least = i-len("xoxa"), 10
	default:
		return 0, 0, false
	}
	for end = i + 1; end < len(s) && isURL64(s[end]); end++ {
	}
	return start, end, end-i-1 >= least
}

func endsWith(s string, suffixes ...string) bool {
	for _, x := range suffixes {
		if len(s) >= len(x) && s[len(s)-2] == x[len(x)-2] && strings.HasSuffix(s, x) {
			return true
		}
	}
	return false
}

// urlPassword returns the password in the authority of a URL, which begins at s[i].
func urlPassword(s string, i int) (start, end int, ok bool) {
	for j := i; j < len(s); j++ {
		switch c := s[j]; c {
		case ':':
			if start == 0 {
				start = j + 1
			}
		case '@':
			end = j
		case '/', '?', '#', ' ', '\t', '\n', '\r', '"', '\'', '<', '>', '\\', '`':
			return start, end, start > 0 && end > start
		}
	}
	return start, end, start > 0 && end > start
}

// keyBlock returns the end of the private key in PEM (RFC 7468) that begins at s[i]; of s if its own is missing.
func keyBlock(s string, i int) (end int, ok bool) {
	const begin, tail, longest = "-----BEGIN ", "PRIVATE KEY-----", 40
	if !strings.HasPrefix(s[i:], begin) {
		return 0, false
	}
	head := s[i : i+min(len(s)-i, len(begin)+longest)]
	k := strings.Index(head, tail)
	if k < 0 {
		return 0, false
	}
	body := i + k + len(tail)
	j := strings.Index(s[body:], "-----END ")
	if j < 0 {
		return len(s), true
	}
	end = body + j
	if k := strings.Index(s[end:end+min(len(s)-end, longest+len(begin))], tail); k >= 0 {
		return end + k + len(tail), true
	}
	return len(s), true
}

// password returns the value after a name that tells of a secret and s[i], which is = or a colon. Both may be quoted, as
// in JSON, and quotes escaped, as in JSON within JSON.
func (sc *scan) password(i int) (start, end int, ok bool) {
	s := sc.s
	stop := i
	for stop > sc.low && (s[stop-1] == '"' || s[stop-1] == '\'' || s[stop-1] == '\\') && i-stop < 2 {
		stop--
	}
	from := stop
	for from > sc.low && stop-from < 64 && (isAlnum(s[from-1]) || s[from-1] == '_' || s[from-1] == '-' || s[from-1] == '.') {
		from--
	}
	if !tellsSecret(s[from:stop]) {
		return 0, 0, false
	}
	start = i + 1
	if s[i] == ':' && start < len(s) && s[start] == ' ' {
		start++
	}
	escaped := start+1 < len(s) && s[start] == '\\' && s[start+1] == '"'
	if escaped {
		start++
	}
	if start < len(s) && (s[start] == '"' || s[start] == '\'') {
		start, end = start+1, quoted(s, start, escaped)
	} else {
		for end = start; end < len(s) && strings.IndexByte(" \t\r\n&;,\"'{}[]<>", s[end]) < 0; end++ {
		}
		switch s[start:end] {
		case "true", "false", "null":
			return 0, 0, false
		}
	}
	return start, end, end > start && !sc.marked(start, end) && s[start:end] != keyMask
}

// quoted returns where the text ends whose quote is s[i]. If the quote is itself escaped, so is the one at the end.
func quoted(s string, i int, escaped bool) int {
	q := s[i]
	for j := i + 1; j < len(s); j++ {
		switch {
		case s[j] == '\\' && escaped:
			return j
		case s[j] == '\\':
			j++
		case s[j] == q:
			return j
		}
	}
	return len(s)
}

// tellsSecret reports whether a name is that of a secret.
func tellsSecret(name string) bool {
	for i := range len(name) {
		switch lower(name[i]) {
		case 'p':
			if hasPrefixFold(name[i:], "password") || hasPrefixFold(name[i:], "passwd") || hasPrefixFold(name[i:], "passphrase") || strings.EqualFold(name[i:], "pwd") {
				return true
			}
		case 's':
			if hasPrefixFold(name[i:], "secret") {
				return true
			}
		case 't':
			if strings.EqualFold(name[i:], "token") {
				return true
			}
		case 'a':
			if hasPrefixFold(name[i:], "api_key") || hasPrefixFold(name[i:], "apikey") || hasPrefixFold(name[i:], "api-key") || hasPrefixFold(name[i:], "access_key") || hasPrefixFold(name[i:], "access-key") || hasPrefixFold(name[i:], "accesskey") {
				return true
			}
		}
	}
	return false
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && lower(s[1]) == prefix[1] && strings.EqualFold(s[:len(prefix)], prefix)
}

// isURL64 reports whether c is of the alphabet of base64url (RFC 4648).
func isURL64(c byte) bool { return isAlnum(c) || c == '-' || c == '_' }
