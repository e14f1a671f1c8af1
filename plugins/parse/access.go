package parse

import (
	"strings"

	"github.com/creelhq/creel"
)

// scanAccess adds what an access log tells: the common format of Apache, and the combined one, which is nginx' default.
//
//	host ident user [time] "request" status bytes "referer" "user agent" "x-forwarded-for"
//
// The last three may be missing. What follows them, as many add something, is the field rest.
func scanAccess(f *fields, line string) (fault string) {
	const broken = "not an access log"
	address, rest, _ := strings.Cut(line, " ")
	ident, rest, _ := strings.Cut(rest, " ")
	n := strings.Index(rest, " [") // a user may have spaces
	if address == "" || ident == "" || n <= 0 {
		return broken
	}
	user := rest[:n]
	rest = rest[n+2:]
	end := strings.IndexByte(rest, ']')
	if end < 0 || len(rest) < end+3 || rest[end+1:end+3] != ` "` {
		return broken
	}
	var ok bool
	if f.time, ok = f.readAuto(rest[:end]); !ok {
		return "the timestamp is not understood"
	}
	f.addText("client.address", address)
	f.addText("client.ident", ident)
	f.addText("user.name", user)

	request, escaped, rest, ok := cutQuoted(rest[end+3:])
	if !ok || rest == "" || rest[0] != ' ' {
		return broken
	}
	f.addRequest(request, escaped)
	status, rest, _ := strings.Cut(rest[1:], " ")
	if !f.addNumber("http.response.status_code", status) {
		return broken
	}
	if f.p.Severity.HTTPStatus && len(status) == 3 {
		f.severity, f.severityText = severityOfStatus(status[0]), status
	}
	size, rest, _ := strings.Cut(rest, " ")
	if !f.addNumber("http.response.body.size", size) {
		return broken
	}
	for _, name := range [...]string{"http.request.header.referer", "user_agent.original", "http.request.header.x-forwarded-for"} {
		if rest == "" || rest[0] != '"' {
			break
		}
		value, escaped, after, ok := cutQuoted(rest[1:])
		if !ok {
			return broken
		}
		f.addQuoted(name, value, escaped)
		rest = strings.TrimPrefix(after, " ")
	}
	f.addText("rest", rest)
	return ""
}

// cutQuoted cuts s, whose opening quote is cut off already, behind the closing one.
func cutQuoted(s string) (value string, escaped bool, rest string, ok bool) {
	end, escaped := quoted(s, 0, '"')
	if end < 0 {
		return "", false, "", false
	}
	return s[:end], escaped, s[end+1:], true
}

// addQuoted is addText of what stood in quotes, where web servers escape quotes, control characters and more.
func (f *fields) addQuoted(key, s string, escaped bool) {
	if escaped {
		f.add(key, f.unquote(s))
	} else {
		f.addText(key, s)
	}
}

// addNumber adds a field with an integer, or none for -, and reports whether s is one of these.
func (f *fields) addNumber(key, s string) bool {
	if s == "-" {
		return true
	}
	n, ok := integer(s)
	if ok {
		f.add(key, creel.Int(n))
	}
	return ok
}

// addRequest adds what an HTTP request's first line tells. What is none, as a port scanner sends, is http.request.line.
func (f *fields) addRequest(line string, escaped bool) {
	first, last := strings.IndexByte(line, ' '), strings.LastIndexByte(line, ' ')
	if first <= 0 || !strings.HasPrefix(line[last+1:], "HTTP/") {
		f.addQuoted("http.request.line", line, escaped)
		return
	}
	f.add("http.request.method", f.string(line[:first]))
	if first < last {
		target := line[first+1 : last]
		path, query, _ := strings.Cut(target, "?")
		switch {
		case target[:min(1, len(target))] == "/":
			f.addQuoted("url.path", path, escaped)
			if query != "" {
				f.addQuoted("url.query", query, escaped)
			}
		case strings.Contains(path, "://"):
			f.addQuoted("url.full", target, escaped)
		default: // * of OPTIONS, host:port of CONNECT
			f.addQuoted("url.original", target, escaped)
		}
	}
	version := line[last+len(" HTTP/"):]
	if version == "2.0" || version == "3.0" { // as nginx writes 2 and 3
		version = version[:1]
	}
	f.addText("network.protocol.version", version)
}

// severityOfStatus maps the first digit of an HTTP status.
func severityOfStatus(digit byte) creel.Severity {
	switch digit {
	case '5':
		return creel.SeverityError
	case '4':
		return creel.SeverityWarn
	}
	return creel.SeverityInfo
}

// scanNginxError adds what nginx' error log tells.
//
//	2006/01/02 15:04:05 [error] 12#34: *56 message, client: …, server: …, request: "…", upstream: "…", host: "…"
func scanNginxError(f *fields, line string) (fault string) {
	const broken = "not an error log of nginx"
	if len(line) < 22 || line[19:21] != " [" {
		return broken
	}
	var ok bool
	if f.time, ok = f.readISO(line[:19]); !ok {
		return "the timestamp is not understood"
	}
	level, rest, ok := strings.Cut(line[21:], "] ")
	if f.severity, f.severityText = severityOf(level), level; !ok || f.severity == 0 {
		return broken
	}
	process, rest, _ := strings.Cut(rest, "#")
	thread, rest, ok := strings.Cut(rest, ": ")
	if !ok || !f.addNumber("process.pid", process) || !f.addNumber("thread.id", thread) {
		return broken
	}
	if strings.HasPrefix(rest, "*") {
		var connection string
		if connection, rest, _ = strings.Cut(rest[1:], " "); !f.addNumber("nginx.connection", connection) {
			return broken
		}
	}
	message := rest
	if n := strings.LastIndex(rest, ", client: "); n >= 0 {
		message = rest[:n]
		f.addContext(rest[n+len(", "):])
	}
	f.add("message", f.string(message))
	return ""
}

// addContext adds the pairs that nginx puts after a message.
func (f *fields) addContext(s string) {
	for s != "" {
		name, rest, ok := strings.Cut(s, ": ")
		if !ok {
			return
		}
		if strings.HasPrefix(rest, `"`) {
			value, escaped, after, ok := cutQuoted(rest[1:])
			if !ok {
				return
			}
			if name == "request" {
				f.addRequest(value, escaped)
			} else {
				f.addQuoted(f.contextName(name), value, escaped)
			}
			s = strings.TrimPrefix(after, ", ")
			continue
		}
		var value string
		value, s, _ = strings.Cut(rest, ", ")
		f.addText(f.contextName(name), value)
	}
}

func (f *fields) contextName(name string) string {
	switch name {
	case "client":
		return "client.address"
	case "server":
		return "server.address"
	case "host":
		return "http.request.header.host"
	case "referrer":
		return "http.request.header.referer"
	case "upstream":
		return "nginx.upstream"
	}
	return f.key(f.text.concat("nginx.", name))
}
