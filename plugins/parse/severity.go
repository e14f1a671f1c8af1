package parse

import (
	"fmt"
	"strings"

	"github.com/creelhq/creel"
)

// Level is a severity in a configuration: a name such as INFO or ERROR2, another usual word, or a number from 1 to 24.
type Level struct {
	text     string
	severity creel.Severity
}

// UnmarshalText reads the name or number.
func (l *Level) UnmarshalText(text []byte) error {
	l.text = string(text)
	if n, ok := integer(l.text); ok {
		l.severity = creel.Severity(n)
		if n < 1 || n > 24 {
			return fmt.Errorf("a severity is from 1 to 24, not %d", n)
		}
		return nil
	}
	if l.severity = severityOf(l.text); l.severity == 0 {
		return fmt.Errorf("%q is no severity; there are TRACE, DEBUG, INFO, WARN, ERROR, FATAL, with a step such as ERROR2, and the numbers 1 to 24", l.text)
	}
	return nil
}

// MarshalText returns the text that l was made from.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.text), nil }

// TypeName is what help calls it.
func (Level) TypeName() string { return "severity" }

// syslogLevels are the priorities of RFC 5424 as OpenTelemetry's data model for logs maps them, and their keywords.
var syslogLevels = [8]struct {
	severity creel.Severity
	name     string
}{
	{creel.SeverityFatal, "emerg"}, {creel.SeverityError + 2, "alert"}, {creel.SeverityError + 1, "crit"}, {creel.SeverityError, "err"},
	{creel.SeverityWarn, "warning"}, {creel.SeverityInfo + 1, "notice"}, {creel.SeverityInfo, "info"}, {creel.SeverityDebug, "debug"},
}

// readSeverity reads a field as a severity, by the map that is configured and then by itself. text is as it was written.
func (f *fields) readSeverity(v creel.Value) (s creel.Severity, text string, ok bool) {
	switch v.Kind() {
	case creel.ValueString:
		text = v.Str()
	case creel.ValueInt:
		if n := v.Int(); n >= 0 && n < int64(len(smallNumbers)) {
			text = smallNumbers[n]
		}
		if text == "" {
			text = f.text.keep(v.Append(f.text.room(20)))
		}
	default:
		return 0, "", false
	}
	for _, l := range f.p.levels {
		if strings.EqualFold(l.text, text) {
			return l.severity, text, true
		}
	}
	if n, isNumber := integer(text); isNumber {
		s = severityOfNumber(n)
	} else {
		s = severityOf(text)
	}
	return s, text, s != 0
}

// smallNumbers are written so often that they are not written anew.
var smallNumbers = [...]string{"0", "1", "2", "3", "4", "5", "6", "7", "8", 10: "10", 20: "20", 30: "30", 40: "40", 50: "50", 60: "60"}

// severityOfNumber maps syslog's priorities, and the levels of pino and bunyan with what lies between them.
func severityOfNumber(n int64) creel.Severity {
	switch {
	case n >= 0 && n < int64(len(syslogLevels)):
		return syslogLevels[n].severity
	case n >= 10 && n < 70:
		return creel.SeverityTrace + 4*creel.Severity(n/10-1)
	}
	return 0
}

// severityOf maps the words that loggers use, in any case; 0 if word is none. critical is Python's highest level, crit
// syslog's third. slog's INFO+2 and OpenTelemetry's INFO3 are the same.
func severityOf(word string) creel.Severity {
	var buf [16]byte
	n := 0
	for n < len(word) && word[n]|0x20 >= 'a' && word[n]|0x20 <= 'z' {
		if n == len(buf) {
			return 0
		}
		buf[n] = word[n] | 0x20
		n++
	}
	s := severityOfWord(buf[:n])
	if n == len(word) || s == 0 {
		return s
	}
	step, ok := integer(strings.TrimPrefix(word[n:], "+"))
	switch {
	case !ok || step > 99 || step < -99:
		return 0
	case word[n] == '+' || word[n] == '-':
		return min(max(s+creel.Severity(step), 1), 24)
	case step >= 1 && step <= 4 && (s-1)%4 == 0:
		return s + creel.Severity(step) - 1
	}
	return 0
}

func severityOfWord(lower []byte) creel.Severity {
	switch string(lower) {
	case "info", "information", "informational", "i":
		return creel.SeverityInfo
	case "error", "err", "severe", "e":
		return creel.SeverityError
	case "warn", "warning", "w":
		return creel.SeverityWarn
	case "debug", "dbg", "verbose", "d":
		return creel.SeverityDebug
	case "trace", "t":
		return creel.SeverityTrace
	case "fatal", "critical", "emerg", "emergency", "panic", "dpanic", "f":
		return creel.SeverityFatal
	case "notice", "n":
		return creel.SeverityInfo + 1
	case "crit", "c":
		return creel.SeverityError + 1
	case "alert":
		return creel.SeverityError + 2
	}
	return 0
}
