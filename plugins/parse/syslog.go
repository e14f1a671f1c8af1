package parse

import (
	"strings"

	"github.com/creelhq/creel"
)

// facilities are the names of RFC 5424's facilities, as syslog(3) and its configurations write them.
var facilities = [24]string{
	"kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp", "audit", "alert",
	"clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
}

// scanSyslog tells the two formats apart: after the priority, only RFC 5424 has a version and a space.
func scanSyslog(f *fields, line string) (fault string) {
	if n := strings.IndexByte(line, '>'); n > 0 && n < 5 && strings.HasPrefix(line[n+1:], "1 ") {
		return scanSyslog5424(f, line)
	}
	return scanSyslog3164(f, line)
}

// priority reads <34> at the start of line, and returns what follows it.
func (f *fields) priority(line string) (rest string, ok bool) {
	n := strings.IndexByte(line[:min(5, len(line))], '>')
	if n < 2 || line[0] != '<' {
		return "", false
	}
	p := digits(line, 1, n-1)
	if p < 0 || p/8 >= len(facilities) {
		return "", false
	}
	level := &syslogLevels[p%8]
	f.severity, f.severityText = level.severity, level.name
	f.add("syslog.facility", creel.String(facilities[p/8]))
	return line[n+1:], true
}

// scanSyslog5424 adds what a message of RFC 5424 tells.
//
//	<34>1 2003-10-11T22:14:15.003Z host app procid msgid [id name="value"] message
func scanSyslog5424(f *fields, line string) (fault string) {
	const broken = "not RFC 5424"
	rest, ok := f.priority(line)
	if !ok || !strings.HasPrefix(rest, "1 ") {
		return broken
	}
	stamp, rest, _ := strings.Cut(rest[2:], " ")
	if stamp != "-" {
		if f.time, ok = f.readISO(stamp); !ok {
			return "the timestamp is not understood"
		}
	}
	for _, name := range [...]string{"host.name", "syslog.appname", "syslog.procid", "syslog.msgid"} {
		var part string
		if part, rest, ok = strings.Cut(rest, " "); !ok || part == "" {
			return broken
		}
		f.addText(name, part)
	}
	if rest, ok = f.structuredData(rest); !ok {
		return "malformed structured data"
	}
	if rest != "" {
		if rest[0] != ' ' {
			return broken
		}
		f.add("message", f.string(strings.TrimPrefix(rest[1:], "\uFEFF")))
	}
	return ""
}

// structuredData adds RFC 5424's STRUCTURED-DATA as a map of maps, by id and name. It returns what follows.
func (f *fields) structuredData(s string) (rest string, ok bool) {
	if strings.HasPrefix(s, "-") {
		return s[1:], true
	}
	if !strings.HasPrefix(s, "[") {
		return "", false
	}
	seen, outer, ids := f.seen, len(f.list), uint64(0)
	for strings.HasPrefix(s, "[") {
		n := strings.IndexAny(s, " ]")
		if n < 2 {
			return "", false
		}
		id := f.key(s[1:n])
		f.base, f.seen = len(f.list), 0
		for s = s[n:]; s != "" && s[0] == ' '; {
			name, after, ok := strings.Cut(s[1:], `="`)
			if !ok || name == "" || strings.ContainsAny(name, ` ]"=`) {
				return "", false
			}
			end, escaped := quoted(after, 0, '"')
			if end < 0 {
				return "", false
			}
			f.add(f.key(name), f.sdValue(after[:end], escaped))
			s = after[end+1:]
		}
		if s == "" || s[0] != ']' {
			return "", false
		}
		s = s[1:]
		element := f.mapFrom(f.base)
		f.base, f.seen = outer, ids
		f.add(id, element)
		ids = f.seen
	}
	all := f.mapFrom(outer)
	f.base, f.seen = 0, seen
	f.add("syslog.structured_data", all)
	return s, true
}

// mapFrom makes a map of the fields from i on, and takes them away.
func (f *fields) mapFrom(i int) creel.Value {
	entries := f.own.Attrs.Make(len(f.list) - i)
	copy(entries, f.list[i:])
	f.list = f.list[:i]
	return creel.Map(entries...)
}

// sdValue returns a value of structured data: only a quote, a bracket and the backslash have one before them.
func (f *fields) sdValue(s string, escaped bool) creel.Value {
	if !escaped {
		return f.string(s)
	}
	b := f.text.room(len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) && (s[i+1] == '"' || s[i+1] == '\\' || s[i+1] == ']') {
			i++
		}
		b = append(b, s[i])
	}
	return f.string(f.text.keep(b))
}

// scanSyslog3164 adds what a message of RFC 3164 tells, which is what was seen on the wire rather than a standard: so
// without a priority, as in files, with a timestamp as in RFC 5424, or without a host, it is taken as well.
//
//	<34>Oct 11 22:14:15 host app[123]: message
func scanSyslog3164(f *fields, line string) (fault string) {
	rest, found := line, false
	if strings.HasPrefix(line, "<") {
		if rest, found = f.priority(line); !found {
			return "not a syslog priority"
		}
	}
	if t, next := f.readBSD(rest); next > 0 && next < len(rest) && rest[next] == ' ' {
		f.time, rest = t, rest[next+1:]
	} else if stamp, after, ok := strings.Cut(rest, " "); ok {
		if t, ok := f.readISO(stamp); ok {
			f.time, rest = t, after
		}
	}
	if f.time == 0 {
		if !found {
			return "neither a priority nor a timestamp"
		}
		f.add("message", f.string(strings.TrimSuffix(rest, "\x00")))
		return ""
	}
	rest = strings.TrimLeft(rest, " ")
	if first, after, ok := strings.Cut(rest, " "); ok && !strings.HasSuffix(first, ":") && !strings.Contains(first, "[") {
		f.addText("host.name", first)
		rest = after
	}
	f.add("message", f.string(strings.TrimSuffix(f.addTag(rest), "\x00")))
	return ""
}

// addTag adds app[123]: at the start of s, and returns what follows it; all of s if there is no tag.
func (f *fields) addTag(s string) (message string) {
	n := 0
	for n < len(s) && s[n] > ' ' && s[n] != ':' && s[n] != '[' {
		n++
	}
	name, process, rest := s[:n], "", s[n:]
	if strings.HasPrefix(rest, "[") {
		end := strings.IndexByte(rest, ']')
		if end < 0 {
			return s
		}
		process, rest = rest[1:end], rest[end+1:]
	}
	if name == "" || !strings.HasPrefix(rest, ":") {
		return s
	}
	f.addText("syslog.appname", name)
	f.addText("syslog.procid", process)
	return strings.TrimPrefix(rest[1:], " ")
}
