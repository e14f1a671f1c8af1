package command

import (
	"encoding/json"
	"io"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/creelhq/creel"
)

// fields returns the attributes that a line of JSON stands for, sorted by name. A line that is no object has one that
// says so, and is named as where logs are parsed.
func fields(line string) creel.Attrs {
	var object map[string]any
	d := json.NewDecoder(strings.NewReader(line))
	d.UseNumber()
	err := d.Decode(&object)
	if _, end := d.Token(); err != nil || object == nil || end != io.EOF {
		return creel.Attrs{{Key: "creel.parse_error", Value: creel.String("not a JSON object")}}
	}
	return attributesOf(object, 0)
}

// maxDepth is how deep a value may be nested; what is deeper stays JSON.
const maxDepth = 16

func attributesOf(object map[string]any, depth int) creel.Attrs {
	list := make(creel.Attrs, 0, len(object))
	for _, key := range slices.Sorted(maps.Keys(object)) {
		list = append(list, creel.Attr{Key: key, Value: valueOf(object[key], depth+1)})
	}
	return list
}

func valueOf(v any, depth int) creel.Value {
	if depth > maxDepth {
		text, err := json.Marshal(v)
		if err != nil {
			panic("BUG: what was JSON is none: " + err.Error())
		}
		return creel.String(string(text))
	}
	switch v := v.(type) {
	case string:
		return creel.String(v)
	case bool:
		return creel.Bool(v)
	case json.Number:
		return number(v.String())
	case []any:
		list := make([]creel.Value, len(v))
		for i := range v {
			list[i] = valueOf(v[i], depth+1)
		}
		return creel.List(list...)
	case map[string]any:
		return creel.Map(attributesOf(v, depth)...)
	}
	return creel.Value{}
}

// number returns the integer or floating-point number that text is; the text if it is too large for either.
func number(text string) creel.Value {
	if i, err := strconv.ParseInt(text, 10, 64); err == nil {
		return creel.Int(i)
	}
	if f, err := strconv.ParseFloat(text, 64); err == nil {
		return creel.Double(f)
	}
	return creel.String(text)
}

// The output of Nagios plugins is that of the Monitoring Plugins Development Guidelines: text, and behind a | performance
// data; in further lines long text, and behind another | more performance data.

// unknown is the last of the statuses OK, WARNING, CRITICAL and UNKNOWN.
const unknown = 3

var statuses = [...]struct {
	name     string
	severity creel.Severity
}{{"OK", creel.SeverityInfo}, {"WARNING", creel.SeverityWarn}, {"CRITICAL", creel.SeverityError}, {"UNKNOWN", creel.SeverityWarn}}

// status is the exit code; UNKNOWN if that is none, or the plugin did not end by itself.
func status(r *result) int {
	if r.killed != "" || r.exit > unknown {
		return unknown
	}
	return r.exit
}

// nagiosText parts output in text and performance data.
func nagiosText(output string) (text, data string) {
	first, more, _ := strings.Cut(strings.TrimSpace(output), "\n")
	first, firstData, _ := strings.Cut(first, "|")
	more, moreData, _ := strings.Cut(more, "|")
	return strings.TrimSpace(strings.TrimSpace(first) + "\n" + strings.TrimSpace(more)), firstData + " " + moreData
}

func (c *collector) nagiosLog(r *result, now int64) creel.Log {
	s := statuses[status(r)]
	body, _ := nagiosText(text(r))
	return creel.Log{
		Origin: c.origin, Time: now, Observed: now, Event: "nagios.status", Body: creel.String(body), Severity: s.severity, SeverityText: s.name,
		Attrs: c.attrs(creel.Attr{Key: "nagios.status", Value: creel.Int(int64(status(r)))}),
	}
}

var (
	nagiosStatus = nagiosGauge("nagios.status", "1", "Status of the check: 0 is OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.")
	perfTime     = nagiosGauge("nagios.perfdata.time", "s", "Performance data that is a time.")
	perfSize     = nagiosGauge("nagios.perfdata.size", "By", "Performance data that is a number of bytes.")
	perfPercent  = nagiosGauge("nagios.perfdata.percent", "%", "Performance data that is a percentage.")
	perfValue    = nagiosGauge("nagios.perfdata.value", "1", "Performance data without a unit, or with one that is not known.")
	perfCount    = &creel.Descriptor{Name: "nagios.perfdata.count", Unit: "1", Description: "Performance data that is a continuous counter.", Kind: creel.Sum, Temporality: creel.Cumulative, Monotonic: true}
)

func nagiosGauge(name, unit, doc string) *creel.Descriptor {
	return &creel.Descriptor{Name: name, Unit: unit, Description: doc, Kind: creel.Gauge}
}

type perfUnit struct {
	desc  *creel.Descriptor
	scale float64
}

// perfUnits are by their names in lower case. Multiples of bytes are binary, as check_disk and its like mean them.
var perfUnits = map[string]perfUnit{
	"": {perfValue, 1}, "%": {perfPercent, 1}, "c": {perfCount, 1},
	"s": {perfTime, 1}, "ms": {perfTime, 1e-3}, "us": {perfTime, 1e-6}, "ns": {perfTime, 1e-9},
	"b": {perfSize, 1}, "kb": {perfSize, 1 << 10}, "mb": {perfSize, 1 << 20}, "gb": {perfSize, 1 << 30}, "tb": {perfSize, 1 << 40},
	"kib": {perfSize, 1 << 10}, "mib": {perfSize, 1 << 20}, "gib": {perfSize, 1 << 30}, "tib": {perfSize, 1 << 40},
}

// nagiosMetrics yields the status and the values of performance data. Thresholds are left out: they are no measurements.
func (c *collector) nagiosMetrics(r *result, now int64, yield func(creel.Metric) bool) {
	if !yield(creel.Metric{Origin: c.origin, Desc: nagiosStatus, Time: now, Attrs: c.attrs(), Value: creel.Int(int64(status(r)))}) {
		return
	}
	_, data := nagiosText(text(r))
	for label, value := range perfdata(data) {
		n, unit, ok := measure(value)
		if !ok {
			continue // U: the plugin could not find out
		}
		attrs := c.attrs(creel.Attr{Key: "nagios.label", Value: creel.String(label)})
		u, known := perfUnits[strings.ToLower(unit)]
		if !known || unit == "C" { // degrees
			u = perfUnit{perfValue, 1}
			attrs = append(attrs, creel.Attr{Key: "nagios.unit", Value: creel.String(unit)})
		}
		if !yield(creel.Metric{Origin: c.origin, Desc: u.desc, Time: now, Attrs: attrs, Value: creel.Double(n * u.scale)}) {
			return
		}
	}
}

// perfdata yields labels and values of 'label'=value;warn;crit;min;max, parted by spaces. In quotes ” is a quote.
func perfdata(s string) iter.Seq2[string, string] {
	return func(yield func(label, value string) bool) {
		for s = strings.TrimSpace(s); s != ""; s = strings.TrimSpace(s) {
			var label string
			if s[0] == '\'' {
				label, s = quoted(s[1:])
			} else {
				i := strings.IndexAny(s, "= \t\r\n")
				if i < 0 {
					return
				}
				label, s = s[:i], s[i:]
			}
			end := strings.IndexAny(s, " \t\r\n")
			if end < 0 {
				end = len(s)
			}
			value, ok := strings.CutPrefix(s[:end], "=")
			s = s[end:]
			value, _, _ = strings.Cut(value, ";")
			if ok && label != "" && !yield(label, value) {
				return
			}
		}
	}
}

// quoted returns what stands before the closing quote, and what behind.
func quoted(s string) (text, rest string) {
	var b strings.Builder
	for {
		before, after, ok := strings.Cut(s, "'")
		b.WriteString(before)
		if !ok || !strings.HasPrefix(after, "'") {
			return b.String(), after
		}
		b.WriteByte('\'')
		s = after[1:]
	}
}

// measure parts a value in number and unit.
func measure(value string) (n float64, unit string, ok bool) {
	end := strings.IndexFunc(value, func(r rune) bool { return !strings.ContainsRune("+-.0123456789", r) })
	if end < 0 {
		end = len(value)
	}
	// An exponent is rare, and no unit begins with one.
	if exp := end + 1; exp < len(value) && strings.ContainsRune("eE", rune(value[end])) && strings.ContainsRune("+-0123456789", rune(value[exp])) {
		for exp++; exp < len(value) && value[exp] >= '0' && value[exp] <= '9'; exp++ {
		}
		end = exp
	}
	n, err := strconv.ParseFloat(value[:end], 64)
	return n, value[end:], err == nil
}
