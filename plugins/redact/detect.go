package redact

import (
	"net/netip"
	"slices"
	"strings"
)

// The kinds that are known; those of patterns follow.
const (
	kindCard = iota
	kindMail
	kindToken
	kindPrivateKey
	kindPassword
	kindIP
	kindKey  // an attribute's value
	kindText // a text as a whole
	firstPattern
)

func kindNames() []string {
	return []string{"card", "mail", "token", "private_key", "password", "ip", keyKind, "text"}
}

// detectors finds secrets in one pass: most bytes cost one look into a table, which says what may begin, or be under
// way, where the byte stands.
type detectors struct {
	kinds                           []string // names, by kind
	active                          bool     // there is something to detect
	cards, mails, tokens, keyBlocks bool
	passwords, ips                  bool
	triggers                        [256]trigger
}

// trigger is what a byte sets off.
type trigger uint8

const (
	nothing trigger = iota
	onDigit
	onBracket // a mark
	onAt
	onJ          // of eyJ, with which JSON in base64 begins
	onB          // of Bearer and Basic
	onA          // of AWS' and Google's keys
	onUnderscore // at the end of a token's prefix
	onDash       // likewise; or of -----BEGIN
	onColon
	onEqual
)

func newDetectors(detect []string) detectors {
	has := func(name string) bool { return slices.Contains(detect, name) }
	d := detectors{
		kinds: kindNames(), active: len(detect) > 0,
		cards: has("cards"), mails: has("mails"), tokens: has("tokens"), keyBlocks: has("private_keys"),
		passwords: has("passwords"), ips: has("ips"),
	}
	set := func(on bool, t trigger, bytes string) {
		for i := range len(bytes) {
			if on {
				d.triggers[bytes[i]] = t
			}
		}
	}
	set(d.active, onBracket, "[")
	set(d.cards || d.ips, onDigit, "0123456789")
	set(d.mails, onAt, "@")
	set(d.tokens, onJ, "J")
	set(d.tokens, onB, "Bb")
	set(d.tokens, onA, "A")
	set(d.tokens, onUnderscore, "_")
	set(d.tokens || d.keyBlocks, onDash, "-")
	set(d.tokens || d.passwords || d.ips, onColon, ":")
	set(d.passwords, onEqual, "=")
	return d
}

// found is a secret: s[start:end].
type found struct{ start, end, kind int }

// scan finds the secrets of s, from left to right. Nothing before low is looked at any more. All that a trigger looks at
// is either bounded or not looked at again (dry), so that the time is linear in len(s).
type scan struct {
	d   *detectors
	s   string
	low int
	at  int
	dry int // no JSON Web Token ends before
}

// next returns the next secret.
func (sc *scan) next() (found, bool) {
	s, d, i := sc.s, sc.d, sc.at
	for i < len(s) {
		t := d.triggers[s[i]]
		if t == nothing {
			i++
			continue
		}
		if t == onDigit && !d.ips { // the most frequent one: nearly all digits are too few for a card
			end := i + 1
			for end < len(s) && isDigit(s[end]) {
				end++
			}
			if n := end - i; n < 3 || n < 13 && (end+1 >= len(s) || s[end] != ' ' && s[end] != '-' || !isDigit(s[end+1])) {
				i = end
				continue
			}
		} else if d.idle(t, s, i) {
			i++
			continue
		}
		f, ok := sc.try(t, i)
		if ok {
			sc.low, sc.at = f.end, f.end
			return f, true
		}
		i = sc.at
	}
	sc.at = i
	return found{}, false
}

// idle reports whether a glance at the neighbours of s[i] tells that there is nothing, which is the rule.
func (d *detectors) idle(t trigger, s string, i int) bool {
	next := byte(0)
	if i+1 < len(s) {
		next = s[i+1]
	}
	switch t {
	case onB:
		return next|0x20 != 'e' && next|0x20 != 'a'
	case onA:
		return next < 'A' || next > 'Z'
	case onJ:
		return i < 2 || s[i-1] != 'y'
	case onBracket:
		return next < 'a' || next > 'z'
	case onDash: // glpat-, xoxb-
		return next != '-' && (i < 4 || s[i-1] != 't' && s[i-3] != 'o')
	case onUnderscore: // ghp_, npm_, _pat_, _live_, _test_
		return i < 3 || s[i-2] != 'h' && s[i-2] != 'p' && s[i-2] != 'a' && s[i-2] != 'v' && s[i-2] != 's'
	case onColon:
		return !d.passwords && !d.ips && next != '/'
	}
	return false
}

// try looks for a secret around s[i], and moves on if there is none.
func (sc *scan) try(t trigger, i int) (f found, ok bool) {
	s, d := sc.s, sc.d
	sc.at = i + 1
	f.kind = kindToken
	switch t {
	case onBracket:
		if end := d.markEnd(s, i); end > 0 {
			sc.low, sc.at = end, end
		}
	case onDigit:
		return sc.number(i)
	case onAt:
		f.kind = kindMail
		f.start, f.end, ok = mailAt(s, sc.low, i)
	case onJ:
		f.start, f.end, ok = sc.webToken(i)
	case onB:
		f.start, f.end, ok = authorization(s, i)
	case onA:
		f.start, f.end, ok = cloudKey(s, sc.low, i)
	case onUnderscore:
		f.start, f.end, ok = prefixed(s, sc.low, i)
	case onDash:
		if d.keyBlocks {
			if end, is := keyBlock(s, i); is {
				return found{i, end, kindPrivateKey}, true
			}
		}
		if d.tokens {
			f.start, f.end, ok = prefixed(s, sc.low, i)
		}
	case onColon:
		return sc.colon(i)
	case onEqual:
		f.kind = kindPassword
		f.start, f.end, ok = sc.password(i)
	}
	return f, ok
}

func (sc *scan) colon(i int) (f found, ok bool) {
	d := sc.d
	if d.tokens && strings.HasPrefix(sc.s[i:], "://") {
		if f.start, f.end, ok = urlPassword(sc.s, i+3); ok && !sc.marked(f.start, f.end) {
			f.kind = kindToken
			return f, true
		}
	}
	if d.passwords {
		if f.start, f.end, ok = sc.password(i); ok {
			f.kind = kindPassword
			return f, true
		}
	}
	if d.ips {
		start, end := hexRun(sc.s, sc.low, i)
		if cut, ok := ip6(sc.s, start, end); ok {
			return found{start, cut, kindIP}, true
		}
		for sc.at < end && sc.s[sc.at] == ':' { // what was no address from the first colon on is none from the next
			sc.at++
		}
	}
	return found{}, false
}

// marked reports whether s[start:end] is nothing but a mark.
func (sc *scan) marked(start, end int) bool { return sc.d.markEnd(sc.s, start) == end }

// markEnd returns the end of the mark that begins at s[i], 0 if none does.
func (d *detectors) markEnd(s string, i int) int {
	if i >= len(s) || s[i] != '[' {
		return 0
	}
	j := i + 1
	for j < len(s) && j-i <= maxKind+1 && (s[j] == '_' || isDigit(s[j]) || 'a' <= s[j] && s[j] <= 'z') {
		j++
	}
	if j >= len(s) || !slices.Contains(d.kinds, s[i+1:j]) {
		return 0
	}
	if s[j] == ':' && j+hashSize+1 < len(s) {
		for k := range hashSize {
			if c := s[j+1+k]; !isDigit(c) && (c < 'a' || c > 'f') {
				return 0
			}
		}
		j += hashSize + 1
	}
	if s[j] != ']' {
		return 0
	}
	return j + 1
}

// number looks at the digits that begin at s[i].
func (sc *scan) number(i int) (found, bool) {
	s := sc.s
	if sc.d.ips {
		if end, ok := ip4(s, i); ok {
			return found{i, end, kindIP}, true
		}
	}
	if sc.d.cards {
		if end, ok := cardAt(s, i); ok {
			return found{i, end, kindCard}, true
		}
	}
	for sc.at < len(s) && isDigit(s[sc.at]) {
		sc.at++
	}
	return found{}, false
}

// cardAt returns the end of the card number that begins at s[i], the first of some digits: 13 to 19 of them, of which
// the first is that of a card scheme (ISO/IEC 7812: 2 to 6) and the last checks the others (Luhn). Groups may be separated
// by blanks or hyphens, as they are printed: four or six digits first, then at least three, after four at most seven.
// Fractions, UUIDs, and digits within a longer hexadecimal word are not meant.
func cardAt(s string, i int) (end int, ok bool) {
	if s[i] < '2' || s[i] > '6' || i > 1 && s[i-1] == '.' && isDigit(s[i-2]) {
		return 0, false
	}
	var digits [19]byte
	n, first, group, sep := 0, 0, 0, byte(0)
	for j := i; ; j++ {
		if j < len(s) && isDigit(s[j]) {
			if n == len(digits) {
				break
			}
			digits[n] = s[j] - '0'
			n++
			group++
			continue
		}
		if first == 4 && group > 7 {
			break
		}
		if n >= 13 && luhn(digits[:n]) && !(j+1 < len(s) && s[j] == '.' && isDigit(s[j+1])) && !inHexWord(s, i, j) {
			end, ok = j, true
		}
		if j+1 >= len(s) || s[j] != ' ' && s[j] != '-' || !isDigit(s[j+1]) ||
			sep == 0 && group != 4 && group != 6 || sep != 0 && (s[j] != sep || group < 3) {
			break
		}
		if sep == 0 {
			first, sep = group, s[j]
		}
		group = 0
	}
	return end, ok
}

// luhn checks the last digit (ISO/IEC 7812-1, annex B).
func luhn(digits []byte) bool {
	sum := 0
	for i, d := range digits {
		if (len(digits)-i)%2 == 0 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += int(d)
	}
	return sum%10 == 0
}

// inHexWord reports whether s[start:end] touches letters, and these make a hexadecimal word with it: an id of a trace,
// say, has many digits in a row now and then.
func inHexWord(s string, start, end int) bool {
	from, to := start, end
	for from > 0 && start-from < 128 && isAlnum(s[from-1]) {
		from--
	}
	for to < len(s) && to-end < 128 && isAlnum(s[to]) {
		to++
	}
	if from == start && to == end {
		return false
	}
	for _, part := range [2]string{s[from:start], s[end:to]} {
		for i := range len(part) {
			if !isHex(part[i]) {
				return false
			}
		}
	}
	return true
}

// ip4 returns the end of the IPv4 address that begins at s[i]. A version such as v1.2.3.4 is none.
func ip4(s string, i int) (end int, ok bool) {
	if i > 0 && (isAlnum(s[i-1]) || s[i-1] == '.') {
		return 0, false
	}
	j := i
	for octet := range 4 {
		if octet > 0 {
			if j >= len(s) || s[j] != '.' {
				return 0, false
			}
			j++
		}
		n, from := 0, j
		for j < len(s) && j-from < 3 && isDigit(s[j]) {
			n = 10*n + int(s[j]-'0')
			j++
		}
		if j == from || n > 255 {
			return 0, false
		}
	}
	if j < len(s) && (isAlnum(s[j]) || s[j] == '.' && j+1 < len(s) && isDigit(s[j+1])) {
		return 0, false
	}
	return j, true
}

// hexRun returns what around s[i] could be an IPv6 address.
func hexRun(s string, low, i int) (start, end int) {
	const longest = 45 // of an address
	for start = i; start > low && i-start < longest && (isHex(s[start-1]) || s[start-1] == ':'); start-- {
	}
	for end = i; end < len(s) && end-i < longest && (isHex(s[end]) || s[end] == ':' || s[end] == '.'); end++ {
	}
	return start, end
}

// ip6 returns the end of the IPv6 address that s[start:end] begins with. It must have a digit: a::b is also how names
// are written.
func ip6(s string, start, end int) (cut int, ok bool) {
	if start > 0 && (isAlnum(s[start-1]) || s[start-1] == '_') || end < len(s) && (isAlnum(s[end]) || s[end] == '_') {
		return 0, false
	}
	for end > start && (s[end-1] == '.' || s[end-1] == ':' && (end-start < 2 || s[end-2] != ':')) {
		end-- // punctuation
	}
	colons, digit, double := 0, false, false
	for i := start; i < end; i++ {
		if s[i] == ':' {
			colons++
			double = double || i > start && s[i-1] == ':'
		}
		digit = digit || isDigit(s[i])
	}
	if !digit || colons < 2 || colons != 7 && !double { // an error of ParseAddr would allocate
		return 0, false
	}
	a, err := netip.ParseAddr(s[start:end])
	return end, err == nil && a.Is6()
}

// mailAt returns the mail address whose @ is s[i]; nothing before low belongs to it. The domain ends with a dot and at
// least two letters.
func mailAt(s string, low, i int) (start, end int, ok bool) {
	for start = i; start > low && isLocal(s[start-1]); start-- {
	}
	if start == i {
		return 0, 0, false
	}
	letters, dotted := 0, false // since the last dot; nothing but letters has come since
	for j := i + 1; j < len(s); j++ {
		switch c := s[j]; {
		case c == '.' && j > i+1:
			letters, dotted = 0, true
			continue
		case isLetter(c):
			if letters++; dotted && letters >= 2 {
				end, ok = j+1, true
			}
			continue
		case isDigit(c) || c == '-':
			dotted = false
			continue
		}
		break
	}
	return start, end, ok
}

func isLocal(c byte) bool {
	return isAlnum(c) || c == '.' || c == '_' || c == '%' || c == '+' || c == '-'
}

func isDigit(c byte) bool  { return c-'0' < 10 }
func isLetter(c byte) bool { return c|0x20-'a' < 26 }
func isAlnum(c byte) bool  { return isDigit(c) || isLetter(c) }
func isHex(c byte) bool    { return isDigit(c) || c|0x20-'a' < 6 }
