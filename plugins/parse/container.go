package parse

import (
	"strings"

	"github.com/creelhq/creel"
)

// scanCRI adds what a container runtime writes before a line (Kubernetes' CRI log format).
//
//	2016-10-06T00:17:09.669794202Z stdout F message
//
// A tag P says that the line goes on in the next record.
func scanCRI(f *fields, line string) (fault string) {
	const broken = "not a CRI log"
	stamp, rest, _ := strings.Cut(line, " ")
	stream, rest, _ := strings.Cut(rest, " ")
	tag, message, _ := strings.Cut(rest, " ")
	if stream != "stdout" && stream != "stderr" || tag == "" || tag[0] != 'F' && tag[0] != 'P' || len(tag) > 1 && tag[1] != ':' {
		return broken
	}
	var ok bool
	if f.time, ok = f.readISO(stamp); !ok {
		return "the timestamp is not understood"
	}
	f.add("log.iostream", creel.String(stream))
	if tag[0] == 'P' {
		f.add("log.partial", creel.Bool(true))
	}
	f.add("message", f.string(message))
	return ""
}

// scanDocker adds what Docker's json-file driver writes: {"log": "message\n", "stream": "stdout", "time": "…"}. A message
// without a line break at its end goes on in the next record.
func scanDocker(f *fields, line string) (fault string) {
	if fault = scanJSON(f, line); fault != "" {
		return fault
	}
	found := false
	for i := range f.list {
		switch a := &f.list[i]; a.Key {
		case "log":
			message := a.Value.Str()
			whole := strings.TrimSuffix(message, "\n")
			if found = a.Value.Kind() == creel.ValueString; found {
				a.Value = creel.String(strings.TrimSuffix(whole, "\r"))
			}
			if found && len(whole) == len(message) {
				f.add("log.partial", creel.Bool(true))
			}
		case "stream":
			stream := a.Value
			a.Key = lifted
			f.gone++
			f.add("log.iostream", stream)
		}
	}
	if !found {
		return "not a log of Docker"
	}
	return ""
}

// scanKlog adds what Kubernetes' components write, and the pairs of its structured messages.
//
//	I1025 00:15:15.525108   12 file.go:81] "Message" pod="default/web" attempt=2
func scanKlog(f *fields, line string) (fault string) {
	const broken = "not a klog line"
	if len(line) < 22 || line[5] != ' ' || !strings.Contains("IWEF", line[:1]) {
		return broken
	}
	f.severity, f.severityText = severityOf(line[:1]), line[:1]
	second := clock(line, 6)
	nanos, i := fraction(line, 14)
	m, d := digits(line, 1, 2), digits(line, 3, 2)
	if second < 0 || m < 0 || d < 0 {
		return broken
	}
	if f.time = f.nearest(m, d, second, nanos); f.time <= 0 {
		return "the timestamp is not understood"
	}
	header, message, ok := strings.Cut(line[i:], "] ")
	if !ok {
		header, ok = strings.CutSuffix(line[i:], "]")
	}
	thread, place, _ := strings.Cut(strings.TrimLeft(header, " "), " ")
	colon := strings.LastIndexByte(place, ':')
	if !ok || colon <= 0 || !f.addNumber("thread.id", thread) {
		return broken
	}
	f.addText("code.file.path", place[:colon])
	if !f.addNumber("code.line.number", place[colon+1:]) {
		return broken
	}
	f.addMessage(message)
	return ""
}

// addMessage adds the field message; if s is a quoted message with pairs behind, their fields as well.
func (f *fields) addMessage(s string) {
	if strings.HasPrefix(s, `"`) {
		if text, escaped, pairs, ok := cutQuoted(s[1:]); ok && (pairs == "" || pairs[0] == ' ') {
			n, seen := len(f.list), f.seen
			if pairs == "" || scanLogfmt(f, pairs) == "" {
				f.add("message", f.maybeQuoted(text, escaped))
				return
			}
			f.list, f.seen = f.list[:n], seen
		}
	}
	f.add("message", f.string(s))
}

// scanSlog adds what the handlers of Go's log/slog write, as JSON or text.
func scanSlog(f *fields, line string) (fault string) {
	if strings.HasPrefix(line, "{") {
		return scanJSON(f, line)
	}
	return scanLogfmt(f, line)
}
