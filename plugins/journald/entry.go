package journald

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/creelhq/creel"
)

// severities are OpenTelemetry's for syslog's priorities (Logs Data Model, appendix B; RFC 5424, section 6.2.1).
var severities = [8]creel.Severity{
	creel.SeverityFatal, creel.SeverityError + 2, creel.SeverityError + 1, creel.SeverityError,
	creel.SeverityWarn, creel.SeverityInfo + 1, creel.SeverityInfo, creel.SeverityDebug,
}

var priorities = [8]string{"emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"}

// names are the attributes for the fields of an entry that have one in OpenTelemetry's semantic conventions. Other fields
// become journald.field_name. Fields that say the same again, or only matter to the journal itself, are left out: "".
var names = map[string]string{
	"MESSAGE": "", "PRIORITY": "", "_HOSTNAME": "", "_MACHINE_ID": "", "_SOURCE_REALTIME_TIMESTAMP": "", "_SOURCE_MONOTONIC_TIMESTAMP": "",
	"_SOURCE_BOOTTIME_TIMESTAMP": "", "SYSLOG_TIMESTAMP": "", "SYSLOG_RAW": "", "SYSLOG_PID": "", "_RUNTIME_SCOPE": "", "_SYSTEMD_INVOCATION_ID": "",
	"_CAP_EFFECTIVE": "", "_SELINUX_CONTEXT": "", "_STREAM_ID": "", "_LINE_BREAK": "",
	"_PID": "process.pid", "_EXE": "process.executable.path", "_COMM": "process.executable.name", "_CMDLINE": "process.command_line",
	"CODE_FILE": "code.file.path", "CODE_LINE": "code.line.number", "CODE_FUNC": "code.function.name", "TID": "thread.id",
}

// integers are the attributes that are numbers.
var integers = map[string]bool{"process.pid": true, "code.line.number": true, "thread.id": true}

// maxOrigins bounds how many services' origins are kept for reuse.
const maxOrigins = 1000

// decoder makes a batch of entries.
type decoder struct {
	host    creel.Host
	origins map[string]*creel.Origin // by service
	records *creel.Records
	cursor  string // of the last entry
	bytes   int
}

func newDecoder(h creel.Host) *decoder {
	return &decoder{host: h, origins: make(map[string]*creel.Origin)}
}

func (d *decoder) len() int {
	if d.records == nil {
		return 0
	}
	return len(d.records.Logs)
}

// take returns the batch and the cursor of its last entry, and begins a new one; nil if there is nothing.
func (d *decoder) take() (*creel.Batch, string) {
	if d.len() == 0 {
		return nil, ""
	}
	b := creel.NewBatch(creel.Logs, d.records)
	d.records, d.bytes = nil, 0
	return b, d.cursor
}

// add decodes a line of journalctl -o json (systemd's Journal JSON Format). It returns false if it is none.
func (d *decoder) add(line []byte) bool {
	var fields map[string]any
	if json.Unmarshal(line, &fields) != nil || fields["__CURSOR"] == nil {
		return false
	}
	if d.records == nil {
		d.records = d.host.Memory.NewRecords()
	}
	d.bytes += len(line)
	d.cursor, _ = fields["__CURSOR"].(string)
	l := creel.Log{Origin: d.origin(service(fields)), Observed: time.Now().UnixNano(), Body: value(fields["MESSAGE"])}
	for _, name := range []string{"_SOURCE_REALTIME_TIMESTAMP", "__REALTIME_TIMESTAMP"} {
		if micro, err := strconv.ParseInt(text(fields[name]), 10, 64); err == nil && l.Time == 0 {
			l.Time = micro * 1000
		}
	}
	if p := text(fields["PRIORITY"]); len(p) == 1 && p[0] >= '0' && p[0] <= '7' {
		l.Severity, l.SeverityText = severities[p[0]-'0'], priorities[p[0]-'0']
	}
	attrs := creel.Attrs(d.records.Attrs.Make(len(fields))[:0])
	for field, v := range fields {
		name, known := names[field]
		switch {
		case known && name == "" || strings.HasPrefix(field, "__"):
			continue
		case !known:
			name = "journald." + strings.ToLower(strings.TrimLeft(field, "_"))
		}
		a := creel.Attr{Key: name, Value: value(v)}
		if integers[name] {
			if n, err := strconv.ParseInt(text(v), 10, 64); err == nil {
				a.Value = creel.Int(n)
			}
		}
		attrs = append(attrs, a)
	}
	slices.SortFunc(attrs, func(a, b creel.Attr) int { return strings.Compare(a.Key, b.Key) })
	l.Attrs = attrs
	d.records.Logs = append(d.records.Logs, l)
	return true
}

// service names what an entry comes from: its unit, else what it calls itself.
func service(fields map[string]any) string {
	unit := text(fields["_SYSTEMD_UNIT"])
	if name, ok := strings.CutSuffix(unit, ".service"); ok && !strings.HasPrefix(unit, "user@") {
		return name
	}
	if name := text(fields["SYSLOG_IDENTIFIER"]); name != "" {
		return name
	}
	return text(fields["_COMM"])
}

func (d *decoder) origin(service string) *creel.Origin {
	o := d.origins[service]
	if o != nil {
		return o
	}
	r := d.host.Resource
	if service != "" {
		r.Attrs = append(r.Attrs[:len(r.Attrs):len(r.Attrs)], creel.Attr{Key: "service.name", Value: creel.String(service)})
	}
	if len(d.origins) >= maxOrigins {
		clear(d.origins)
	}
	o = &creel.Origin{Resource: r, Scope: creel.Scope{Name: "github.com/creelhq/creel/plugins/journald"}}
	d.origins[service] = o
	return o
}

// text returns a field's text. A field that stands in an entry more than once is a list: the first counts.
func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case []any:
		if len(v) == 0 {
			return ""
		}
		if raw, ok := octets(v); ok {
			return string(raw)
		}
		return text(v[0])
	}
	return ""
}

// value returns a field as it is: a string, or bytes when it is none, or a list of them.
func value(v any) creel.Value {
	switch v := v.(type) {
	case string:
		return creel.String(v)
	case []any:
		if raw, ok := octets(v); ok {
			if utf8.Valid(raw) {
				return creel.String(string(raw))
			}
			return creel.Bytes(raw)
		}
		list := make([]creel.Value, len(v))
		for i, x := range v {
			list[i] = value(x)
		}
		return creel.List(list...)
	}
	return creel.Value{}
}

// octets returns the bytes of what journalctl prints as a list of numbers because it is not printable text.
func octets(v []any) ([]byte, bool) {
	raw := make([]byte, len(v))
	for i, x := range v {
		n, ok := x.(float64)
		if !ok || n < 0 || n > 255 {
			return nil, false
		}
		raw[i] = byte(n)
	}
	return raw, len(raw) > 0
}
