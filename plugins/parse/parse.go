// Package parse is the processor that takes a log's text apart: JSON, logfmt, CSV, access logs, syslog and so on become
// attributes, a time, a severity, a body.
//
// What most people use is hand-written scanners which slice the line: no regular expression, no reflection, no map, and
// once warm no allocation for a record. Each format is one function in a file of its own; fields (fields.go) is what it
// fills, and the only thing that knows how records are changed. The room knows nothing of where lines come from.
package parse

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
	"unsafe"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/expr"
	"github.com/creelhq/creel/metric"
)

//go:embed example.yaml
var example string

// Plugin is the processor parse.
var Plugin = creel.NewProcessor("parse", "Parses the text of logs into attributes, time and severity; what it cannot parse stays as it is.", New).WithExample(example)

const (
	// ErrorAttr says why a record, or its timestamp, could not be parsed. Such a record is otherwise left as it was.
	ErrorAttr = "creel.parse_error"
	// OriginalAttr holds the whole line if keep_original is set (an OpenTelemetry semantic convention).
	OriginalAttr = "log.record.original"
)

// Config is the processor's options.
type Config struct {
	Format string         `doc:"What the text is. apache is combined and common; syslog tells RFC 3164 and RFC 5424 apart; slog is Go's, as text or JSON; docker is its json-file." enum:"json|logfmt|csv|key_value|regex|grok|nginx|nginx_error|apache|syslog|syslog_3164|syslog_5424|cri|docker|klog|slog"`
	From   expr.Target    `doc:"Where the text is; without it, the body. It stays there, unless it is the body." optional:"true" example:"attributes[\"log\"]"`
	Where  expr.Condition `doc:"Which logs to parse; without it, all." optional:"true" example:"attributes[\"app\"] == \"shop\""`

	To           string `doc:"Where fields go: to attributes, or to the body, which becomes a map of them." default:"attributes" enum:"attributes|body"`
	Prefix       string `doc:"Put before the name of each field. Other options name fields without it." optional:"true" example:"app."`
	Body         string `doc:"What becomes the body of a log that was parsed. keep: it stays. drop: it is emptied. Else the name of a field, which moves there; without such a field the body stays. auto: the field msg or message, when the text came from the body; of docker the field log." default:"auto"`
	KeepOriginal bool   `doc:"Keep the whole text as the attribute log.record.original." default:"false"`
	OnError      string `doc:"What becomes of a log that cannot be parsed. It is kept, with the attribute creel.parse_error, or dropped; it is counted either way." default:"keep" enum:"keep|drop"`

	Lift      bool              `doc:"Move well-known fields of json, logfmt, csv, key_value, regex, grok and slog to where OpenTelemetry has a place for them: time, timestamp, @timestamp, ts; level, severity, lvl, loglevel; trace_id, traceId, span_id, spanId. One that is not understood stays a field." default:"true"`
	Timestamp Timestamp         `doc:"How to read the log's time."`
	Severity  SeverityOptions   `doc:"How to read the log's severity."`
	MaxFields int               `doc:"A line with more fields, counting nested ones and elements of lists, is not parsed." default:"1024" min:"1" max:"8192"`
	Types     map[string]string `doc:"Types of fields that the format gives as text, by field. A field that does not fit stays text." optional:"true" enum:"int|double|bool|string" example:"{status: int}"`

	Flatten       bool              `doc:"Of json: nested objects become fields with dotted names, instead of maps." default:"false"`
	Columns       []string          `doc:"Of csv: the names of the columns. A column without a name is left out." optional:"true" example:"[time, user, \"\", amount]"`
	Delimiter     string            `doc:"Of csv: the one character between columns, by default a comma. Of key_value: what is between key and value, by default =." optional:"true"`
	PairDelimiter string            `doc:"Of key_value: what is between pairs, by default a space." optional:"true" example:";"`
	Regex         Regex             `doc:"Of regex: an expression with named groups, RE2 syntax. It may match anywhere in the text, unless anchored. A text of more than 256 KiB is not looked at." optional:"true" example:"^(?P<user>\\w+) (?P<action>.*)$"`
	Grok          Grok              `doc:"Of grok: a pattern. %{IP:client} is a named field; %{NUMBER:bytes:int} has a type as well: int, float, bool or string. It may match anywhere in the text, unless anchored." optional:"true" example:"%{IP:client} %{WORD:method} %{NUMBER:bytes:int}"`
	Patterns      map[string]string `doc:"Of grok: further patterns by name, or ones that replace built-in ones." optional:"true" example:"{ORDER: \"[A-Z]{2}[0-9]+\"}"`
}

// Timestamp is how a log's time is read.
type Timestamp struct {
	Field   string   `doc:"The field that holds it, instead of the well-known ones. A log whose field is not understood gets creel.parse_error, and keeps the field." optional:"true"`
	Layouts []Layout `doc:"How it is written, tried in turn: auto, rfc3339, unix, unix_ms, unix_us, unix_ns, strptime's %d/%b/%Y:%H:%M:%S %z, or Go's 2006-01-02T15:04:05. auto knows all but the last two, and the layouts of access logs and syslog." default:"auto"`
	Zone    Zone     `doc:"The time zone of timestamps that name none: UTC, Local or a name like Europe/Berlin. It holds for all formats." default:"UTC"`
}

// SeverityOptions is how a log's severity is read.
type SeverityOptions struct {
	Field      string           `doc:"The field that holds it, instead of the well-known ones." optional:"true"`
	Map        map[string]Level `doc:"Severities by what is written, upper or lower case, for what is not understood by itself. Understood are the usual words, slog's INFO+2, syslog's priorities 0 to 7, and the numbers 10 to 60 of pino and bunyan." optional:"true" example:"{ok: INFO, boom: ERROR2}"`
	HTTPStatus bool             `doc:"Of access logs: the status gives the severity. 5xx is ERROR, 4xx WARN, others INFO." default:"false"`
}

// Validate checks what options say together.
func (c Config) Validate() error {
	needs := func(format, option string, set bool) error {
		if set == (c.Format == format) {
			return nil
		}
		if set {
			return config.FieldError(option, fmt.Errorf("is only for format: %s", format))
		}
		return config.FieldError(option, fmt.Errorf("is needed for format: %s", format))
	}
	if c.Format == "grok" && c.Grok.text != "" {
		if err := c.Grok.compile(c.Patterns); err != nil {
			return config.FieldError("grok", err)
		}
	}
	var err error
	switch {
	case !c.From.IsZero() && !c.From.Fits(creel.Logs):
		err = config.FieldError("from", errors.New("logs have no such place"))
	case !c.Where.IsZero() && !c.Where.Fits(creel.Logs):
		err = config.FieldError("where", errors.New("it names a field that logs do not have"))
	case c.To == "body" && c.Body != "auto":
		err = config.FieldError("body", errors.New("the fields become the body already: to is body"))
	case c.Delimiter != "" && c.Format != "csv" && c.Format != "key_value":
		err = config.FieldError("delimiter", errors.New("is only for format: csv and format: key_value"))
	case c.Format == "csv" && c.Delimiter != "" && (len(c.Delimiter) > 1 || strings.ContainsAny(c.Delimiter, "\"\r\n") || c.Delimiter >= "\x80"):
		err = config.FieldError("delimiter", errors.New("of csv must be one ASCII character, and neither a quote nor a line break"))
	case c.PairDelimiter != "" && c.Format != "key_value":
		err = config.FieldError("pair_delimiter", errors.New("is only for format: key_value"))
	case len(c.Patterns) > 0 && c.Format != "grok":
		err = config.FieldError("patterns", errors.New("is only for format: grok"))
	}
	return errors.Join(err, needs("csv", "columns", len(c.Columns) > 0), needs("regex", "regex", c.Regex.text != ""), needs("grok", "grok", c.Grok.text != ""))
}

const tooMany = "more fields than max_fields"

// A scan is a format: it adds the fields of a line to f, and returns why it cannot, or "". What it added is thrown away
// then. It may be called concurrently, with another f each.
type scan func(f *fields, line string) (fault string)

// New returns the processor.
func New(c Config, h creel.Host) (creel.Processor, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.Format == "grok" {
		if err := c.Grok.compile(c.Patterns); err != nil {
			return nil, err // not reached after Validate
		}
	}
	p := &processor{Config: c, failed: h.Metrics.Counter("creel.parse.failed", "Records, or their timestamps, that could not be parsed.", "{record}")}
	p.scan = c.scanner()
	for _, r := range c.rules() {
		p.mask |= keyBit(r.name)
		p.rules[slot(r.name)] = append(p.rules[slot(r.name)], r)
	}
	for _, word := range slices.Sorted(maps.Keys(c.Severity.Map)) {
		p.levels = append(p.levels, Level{word, c.Severity.Map[word].severity})
	}
	p.pool.New = func() any { return &fields{p: p} }
	return p, nil
}

// scanner returns the function for the format.
func (c *Config) scanner() scan {
	switch c.Format {
	case "json":
		return scanJSON
	case "logfmt":
		return scanLogfmt
	case "csv":
		return newCSV(c.Columns, c.Delimiter)
	case "key_value":
		return newKeyValue(c.Delimiter, c.PairDelimiter)
	case "regex":
		return newRegex(c.Regex.re, c.Regex.re.SubexpNames())
	case "grok":
		return newRegex(c.Grok.re, c.Grok.names)
	case "nginx", "apache":
		return scanAccess
	case "nginx_error":
		return scanNginxError
	case "syslog":
		return scanSyslog
	case "syslog_3164":
		return scanSyslog3164
	case "syslog_5424":
		return scanSyslog5424
	case "cri":
		return scanCRI
	case "docker":
		return scanDocker
	case "klog":
		return scanKlog
	case "slog":
		return scanSlog
	}
	panic("BUG: unknown format " + c.Format)
}

// processor is immutable but for its pool, and used concurrently.
type processor struct {
	Config
	scan   scan
	rules  [slots][]rule // by the slot of the field
	mask   uint64        // keyBit of the fields that rules name
	levels []Level       // of Severity.Map, by word
	pool   sync.Pool
	failed *metric.Counter
}

// Process parses the logs of b. Other signals pass untouched, as does a batch that no log of is wanted.
func (p *processor) Process(_ context.Context, b *creel.Batch, next creel.Next) error {
	if b.Signal() == creel.Logs && b.Len() > 0 {
		f := p.pool.Get().(*fields)
		p.logs(f, b)
		f.release()
		p.pool.Put(f)
	}
	next.Send(b)
	return nil
}

func (p *processor) logs(f *fields, b *creel.Batch) {
	first, seen := 0, b.Logs()
	for first < len(seen) && !p.wanted(f, &seen[first]) {
		first++
	}
	if first == len(seen) {
		return
	}
	f.own = b.Records()
	logs := b.EditLogs()
	failed := 0
	for i := first; i < len(logs); i++ {
		l := &logs[i]
		if i > first && !p.wanted(f, l) {
			continue
		}
		fault := p.log(f, l)
		if fault == "" {
			continue
		}
		failed++
		l.Attrs = f.own.Extend(l.Attrs, 1)
		l.Attrs.Set(ErrorAttr, creel.String(fault))
		if p.OnError == "drop" && !f.parsed {
			f.drop = append(f.drop, i)
		}
	}
	if failed == 0 {
		return
	}
	p.failed.Add(uint64(failed))
	drop := f.drop
	if len(drop) > 0 {
		b.Keep(func(i int) bool {
			if len(drop) == 0 || drop[0] != i {
				return true
			}
			drop = drop[1:]
			return false
		})
	}
}

// wanted reports whether l is to be parsed.
func (p *processor) wanted(f *fields, l *creel.Log) bool {
	if p.Where.IsZero() {
		return true
	}
	f.record.Log = l
	return p.Where.Match(&f.record)
}

// log parses one log, and returns what went wrong, or "".
func (p *processor) log(f *fields, l *creel.Log) (fault string) {
	source := l.Body
	if !p.From.IsZero() {
		f.record.Log = l
		source, _ = p.From.Get(&f.record)
	}
	f.reset(l)
	var line string
	switch source.Kind() {
	case creel.ValueString:
		line = source.Str()
	case creel.ValueBytes: // a line that is not valid UTF-8, as a rule: its fields must be checked one by one
		raw := source.Bytes()
		line = unsafe.String(unsafe.SliceData(raw), len(raw))
		f.dirty = !utf8.ValidString(line)
	default:
		return "there is no text"
	}
	if n := len(line); n > 0 && line[n-1] <= '\r' {
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
	}
	if fault = p.scan(f, line); fault != "" {
		return fault
	}
	if f.left < 0 {
		return tooMany
	}
	fault = f.follow()
	f.store(l, source)
	return fault
}

// rules returns what is to be done with fields of certain names.
func (c *Config) rules() []rule {
	var rules []rule
	add := func(does action, must bool, names ...string) {
		for _, name := range names {
			rules = append(rules, rule{name, does, must})
		}
	}
	types := map[string]action{"int": toInt, "double": toDouble, "bool": toBool, "string": toString}
	for name, kind := range c.Types {
		add(types[kind], false, name)
	}
	if c.Format == "grok" {
		for name, does := range c.Grok.types {
			add(does, false, name)
		}
	}
	slices.SortFunc(rules, func(a, b rule) int { return strings.Compare(a.name, b.name) })

	free := slices.Contains([]string{"json", "logfmt", "csv", "key_value", "regex", "grok", "slog"}, c.Format)
	switch {
	case c.Timestamp.Field != "":
		add(liftTime, true, c.Timestamp.Field)
	case c.Format == "docker", free && c.Lift:
		add(liftTime, false, "time", "timestamp", "@timestamp", "ts")
	}
	switch {
	case c.Severity.Field != "":
		add(liftSeverity, false, c.Severity.Field)
	case free && c.Lift:
		add(liftSeverity, false, "level", "severity", "lvl", "loglevel")
	}
	if free && c.Lift {
		add(liftTrace, false, "trace_id", "traceId")
		add(liftSpan, false, "span_id", "spanId")
	}
	switch {
	case c.To == "body" || c.Body == "keep" || c.Body == "drop" || c.Body == "auto" && !c.From.IsZero():
	case c.Body != "auto":
		add(liftBody, false, c.Body)
	case c.Format == "docker":
		add(liftBody, false, "log")
	default:
		add(liftBody, false, "msg", "message")
	}
	return rules
}
