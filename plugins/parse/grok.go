package parse

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Grok is a pattern with references such as %{IP:client} or %{NUMBER:bytes:int}. It becomes one RE2 expression.
type Grok struct {
	text  string
	re    *regexp.Regexp
	names []string          // the field of each group, "" for none
	types map[string]action // of fields that have one
}

// UnmarshalText keeps the pattern. It is compiled when all options are known, as it may refer to patterns of the user's.
func (g *Grok) UnmarshalText(text []byte) error {
	g.text = string(text)
	if !strings.Contains(g.text, "%{") && !strings.Contains(g.text, "(?") {
		return errors.New("the pattern names no field; %{WORD:user} does")
	}
	return nil
}

// MarshalText returns the text that g was made from.
func (g Grok) MarshalText() ([]byte, error) { return []byte(g.text), nil }

// TypeName is what help calls it.
func (Grok) TypeName() string { return "grok pattern" }

// compile makes the expression, with the user's patterns before the built-in ones.
func (g *Grok) compile(own map[string]string) (err error) {
	e := expansion{own: own, types: map[string]action{}}
	if err := e.expand(g.text, nil); err != nil {
		return err
	}
	if g.re, err = compile(e.out.String()); err != nil {
		return err
	}
	g.names, g.types = slices.Clone(g.re.SubexpNames()), e.types
	for i, name := range g.names {
		if n, ok := strings.CutPrefix(name, groupPrefix); ok {
			if at, err := strconv.Atoi(n); err == nil && at < len(e.fields) {
				g.names[i] = e.fields[at]
			}
		}
	}
	return nil
}

// groupPrefix starts the names of groups, as RE2 allows fewer characters in them than fields have in their names.
const groupPrefix = "grok_"

// expansion is a pattern whose references are being replaced by what they mean.
type expansion struct {
	own    map[string]string
	out    strings.Builder
	fields []string // by the number of their group
	types  map[string]action
}

var grokTypes = map[string]action{
	"int": toInt, "long": toInt, "float": toDouble, "double": toDouble, "bool": toBool, "boolean": toBool, "string": toString,
}

// expand writes pattern with its references replaced. inside are the names of the patterns around it.
func (e *expansion) expand(pattern string, inside []string) error {
	const most = 256 << 10
	for {
		before, rest, found := strings.Cut(pattern, "%{")
		e.out.WriteString(before)
		if e.out.Len() > most {
			return errors.New("expand pattern: it is too large")
		}
		if !found {
			return nil
		}
		reference, after, ok := strings.Cut(rest, "}")
		if !ok {
			return errors.New("expand pattern: %{ without }")
		}
		pattern = after
		name, field, named := strings.Cut(reference, ":")
		field, kind, typed := strings.Cut(field, ":")
		meaning, known := e.own[name]
		if !known {
			meaning, known = grokPatterns[name]
		}
		does, knownType := grokTypes[kind]
		switch {
		case !known:
			return fmt.Errorf("expand pattern: there is no pattern %q%s", name, hint(name))
		case slices.Contains(inside, name):
			return fmt.Errorf("expand pattern: %q refers to itself", name)
		case named && field == "":
			return fmt.Errorf("expand pattern: %%{%s} has no name for the field", reference)
		case typed && !knownType:
			return fmt.Errorf("expand pattern: %%{%s}: there is no type %q, but int, float, bool and string", reference, kind)
		}
		if typed {
			e.types[field] = does
		}
		if named {
			fmt.Fprintf(&e.out, "(?P<%s%d>", groupPrefix, len(e.fields))
			e.fields = append(e.fields, field)
		} else {
			e.out.WriteString("(?:")
		}
		if err := e.expand(meaning, append(slices.Clone(inside), name)); err != nil {
			return err
		}
		e.out.WriteByte(')')
	}
}

// hint names the patterns that start most like name.
func hint(name string) string {
	name = strings.ToUpper(name)
	var alike []string
	best := 2 // letters in common
	for _, known := range slices.Sorted(maps.Keys(grokPatterns)) {
		n := 0
		for n < len(known) && n < len(name) && known[n] == name[n] {
			n++
		}
		if n > best {
			alike, best = nil, n
		}
		if n == best {
			alike = append(alike, known)
		}
	}
	if len(alike) == 0 || len(alike) > 5 {
		return "; your own go under patterns"
	}
	return ": did you mean " + strings.Join(alike, ", ") + "?"
}

// grokPatterns are the built-in patterns. Their names are those that grok's users know; what they match is written anew for
// RE2, which has neither lookaround nor atomic groups. They are short rather than strict: package regexp has a fast way for
// what compiles to 500 instructions at most.
var grokPatterns = map[string]string{
	// Text.
	"WORD":         `\b\w+\b`,
	"NOTSPACE":     `\S+`,
	"SPACE":        `\s*`,
	"DATA":         `.*?`,
	"GREEDYDATA":   `.*`,
	"QUOTEDSTRING": `"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'`,
	"QS":           `%{QUOTEDSTRING}`,
	"USERNAME":     `[a-zA-Z0-9._-]+`,
	"USER":         `%{USERNAME}`,
	"EMAILADDRESS": `[a-zA-Z0-9!#$%&'*+/=?^_{|}~.-]+@%{HOSTNAME}`,
	"UUID":         `[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}`,

	// Numbers.
	"INT":        `[+-]?\d+`,
	"POSINT":     `\b[1-9]\d*\b`,
	"NONNEGINT":  `\b\d+\b`,
	"BASE10NUM":  `[+-]?(?:\d+(?:\.\d+)?|\.\d+)`,
	"NUMBER":     `%{BASE10NUM}(?:[eE][+-]?\d+)?`,
	"BASE16NUM":  `[+-]?(?:0[xX])?[0-9A-Fa-f]+`,
	"BOOL":       `true|false|True|False|TRUE|FALSE`,
	"HTTPSTATUS": `[1-5]\d\d`,

	// Networks.
	"IPV4":         `(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)\.){3}(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)`,
	"IPV6":         `(?:[0-9A-Fa-f]+:){7}[0-9A-Fa-f]+|(?:[0-9A-Fa-f]+(?::[0-9A-Fa-f]+)*)?::(?:[0-9A-Fa-f]+(?::[0-9A-Fa-f]+)*)?(?::?%{IPV4})?(?:%\w+)?`,
	"IP":           `%{IPV4}|%{IPV6}`,
	"HOSTNAME":     `\b[0-9A-Za-z][0-9A-Za-z-]*(?:\.[0-9A-Za-z][0-9A-Za-z-]*)*\.?`,
	"IPORHOST":     `%{IP}|%{HOSTNAME}`,
	"HOSTPORT":     `%{IPORHOST}:%{POSINT}`,
	"MAC":          `%{CISCOMAC}|%{WINDOWSMAC}|%{COMMONMAC}`,
	"CISCOMAC":     `(?:[0-9A-Fa-f]{4}\.){2}[0-9A-Fa-f]{4}`,
	"WINDOWSMAC":   `(?:[0-9A-Fa-f]{2}-){5}[0-9A-Fa-f]{2}`,
	"COMMONMAC":    `(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}`,
	"URIPROTO":     `[A-Za-z][A-Za-z0-9+.-]*`,
	"URIHOST":      `%{IPORHOST}(?::%{POSINT})?`,
	"URIPATH":      `(?:/[^\s?#]*)+`,
	"URIPARAM":     `\?[^\s#]*`,
	"URIPATHPARAM": `%{URIPATH}(?:%{URIPARAM})?`,
	"URI":          `%{URIPROTO}://(?:%{USER}(?::[^@\s]*)?@)?(?:%{URIHOST})?(?:%{URIPATHPARAM})?`,

	// Files.
	"PATH":     `%{UNIXPATH}|%{WINPATH}`,
	"UNIXPATH": `/[^\s]*`,
	"WINPATH":  `(?:[A-Za-z]:|\\)\\[^\s"*?<>|]*`,
	"TTY":      `/dev/(?:pts/\d+|tty\w*)`,

	// Times.
	"MONTH":              `\b(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sep(?:t(?:ember)?)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)\b`,
	"MONTHNUM":           `0?[1-9]|1[0-2]`,
	"MONTHNUM2":          `0[1-9]|1[0-2]`,
	"MONTHDAY":           `0[1-9]|[12]\d|3[01]|[1-9]`,
	"DAY":                `\b(?:Mon(?:day)?|Tue(?:sday)?|Wed(?:nesday)?|Thu(?:rsday)?|Fri(?:day)?|Sat(?:urday)?|Sun(?:day)?)\b`,
	"YEAR":               `\d{4}|\d{2}`,
	"HOUR":               `2[0-3]|[01]?\d`,
	"MINUTE":             `[0-5]\d`,
	"SECOND":             `(?:[0-5]?\d|60)(?:[.,:]\d+)?`,
	"TIME":               `(?:%{HOUR}):(?:%{MINUTE}):(?:%{SECOND})`,
	"TZ":                 `[A-Z]{3,4}`,
	"ISO8601_TIMEZONE":   `Z|[+-](?:%{HOUR}):?(?:%{MINUTE})`,
	"ISO8601_SECOND":     `%{SECOND}`,
	"DATE_US":            `(?:%{MONTHNUM})[/-](?:%{MONTHDAY})[/-](?:%{YEAR})`,
	"DATE_EU":            `(?:%{MONTHDAY})[./-](?:%{MONTHNUM})[./-](?:%{YEAR})`,
	"DATE":               `%{DATE_US}|%{DATE_EU}`,
	"DATESTAMP":          `(?:%{DATE})[- ]%{TIME}`,
	"TIMESTAMP_ISO8601":  `\d{4}-(?:%{MONTHNUM})-(?:%{MONTHDAY})[T ](?:%{HOUR}):?(?:%{MINUTE})(?::?(?:%{SECOND}))?(?:%{ISO8601_TIMEZONE})?`,
	"DATESTAMP_RFC822":   `%{DAY} %{MONTH} (?:%{MONTHDAY}) \d{4} %{TIME} %{TZ}`,
	"DATESTAMP_RFC2822":  `%{DAY}, (?:%{MONTHDAY}) %{MONTH} \d{4} %{TIME} (?:%{ISO8601_TIMEZONE})`,
	"DATESTAMP_OTHER":    `%{DAY} %{MONTH} (?:%{MONTHDAY}) %{TIME} %{TZ} \d{4}`,
	"HTTPDATE":           `(?:%{MONTHDAY})/[A-Z][a-z][a-z]/\d{4}:%{TIME} [+-]\d{4}`,
	"SYSLOGTIMESTAMP":    `%{MONTH} +(?:%{MONTHDAY}) %{TIME}`,
	"HTTPDERROR_DATE":    `%{DAY} %{MONTH} (?:%{MONTHDAY}) %{TIME} \d{4}`,
	"TIMESTAMP_UNIX":     `\d{10}(?:\.\d+)?`,
	"DATESTAMP_EVENTLOG": `\d{14}`,

	// Logs.
	"LOGLEVEL":           `(?i:trace|debug|notice|info(?:rmation)?|warn(?:ing)?|err(?:or)?|crit(?:ical)?|fatal|severe|emerg(?:ency)?|alert|panic)`,
	"PROG":               `[^\s\[\]:]+`,
	"SYSLOGPROG":         `%{PROG:program}(?:\[%{POSINT:pid:int}\])?`,
	"SYSLOGHOST":         `%{IPORHOST}`,
	"SYSLOGFACILITY":     `<%{NONNEGINT:facility}\.%{NONNEGINT:priority}>`,
	"SYSLOGBASE":         `%{SYSLOGTIMESTAMP:timestamp} (?:%{SYSLOGFACILITY} )?%{SYSLOGHOST:logsource} %{SYSLOGPROG}:`,
	"SYSLOGLINE":         `%{SYSLOGBASE} %{GREEDYDATA:message}`,
	"HTTPDUSER":          `%{EMAILADDRESS}|%{USER}`,
	"COMMONAPACHELOG":    `%{IPORHOST:clientip} (?:%{HTTPDUSER:ident}|-) (?:%{HTTPDUSER:auth}|-) \[%{HTTPDATE:timestamp}\] "(?:%{WORD:verb} %{NOTSPACE:request}(?: HTTP/%{NUMBER:httpversion})?|%{DATA:rawrequest})" (?:%{NUMBER:response:int}|-) (?:%{NUMBER:bytes:int}|-)`,
	"COMBINEDAPACHELOG":  `%{COMMONAPACHELOG} %{QS:referrer} %{QS:agent}`,
	"HTTPD_COMMONLOG":    `%{COMMONAPACHELOG}`,
	"HTTPD_COMBINEDLOG":  `%{COMBINEDAPACHELOG}`,
	"NGINXACCESS":        `%{COMBINEDAPACHELOG}`,
	"JAVACLASS":          `(?:[A-Za-z_$][\w$]*\.)*[A-Za-z_$][\w$]*`,
	"JAVAFILE":           `[\w. -]+`,
	"JAVAMETHOD":         `<(?:cl)?init>|[A-Za-z$_][\w$]*`,
	"JAVASTACKTRACEPART": `\s*at %{JAVACLASS:class}\.%{JAVAMETHOD:method}\(%{JAVAFILE:file}(?::%{INT:line:int})?\)`,
	"SEMVER":             `\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?`,
}
