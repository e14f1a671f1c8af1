package otlp

import "github.com/creelhq/creel"

// logs decodes the log records of a scope group.
func (d *decoder) logs(b []byte, o *creel.Origin) {
	for p := 0; p < len(b); {
		if b[p] != tagInner {
			p = skip(b, p, 0)
			continue
		}
		n := run(b, p)
		d.r.Logs = grow(d.r.Logs, n)
		for range n {
			var record []byte
			record, p = bytesAt(b, p+1)
			d.r.Logs = append(d.r.Logs, creel.Log{Origin: o})
			d.log(record, &d.r.Logs[len(d.r.Logs)-1])
		}
	}
}

func (d *decoder) log(b []byte, l *creel.Log) {
	for p := 0; p < len(b); {
		tag, q := varint(b, p)
		switch tag {
		case 1<<3 | wireFixed64:
			l.Time, p = timeAt(b, q)
		case 2 << 3:
			var n uint64
			n, p = varint(b, q)
			l.Severity = creel.Severity(n)
		case 3<<3 | wireBytes:
			l.SeverityText, p = stringAt(b, q)
		case 5<<3 | wireBytes:
			var body []byte
			body, p = bytesAt(b, q)
			l.Body = value(d.r, l.Body, body)
		case 6<<3 | wireBytes:
			l.Attrs, p = attrsAt(d.r, l.Attrs, b, p)
		case 7 << 3:
			l.Dropped, p = uint32At(b, q)
		case 8<<3 | wireFixed32:
			l.Flags, p = fixed32At(b, q)
		case 9<<3 | wireBytes:
			l.TraceID, p = traceIDAt(b, q)
		case 10<<3 | wireBytes:
			l.SpanID, p = spanIDAt(b, q)
		case 11<<3 | wireFixed64:
			l.Observed, p = timeAt(b, q)
		case 12<<3 | wireBytes:
			l.Event, p = stringAt(b, q)
		default:
			p = skip(b, p, 0)
		}
	}
}

func logOrigin(l *creel.Log) *creel.Origin { return l.Origin }

// logs writes log records of one origin.
func (e encoder) logs(records []creel.Log) encoder {
	for i := len(records) - 1; i >= 0; i-- {
		e.log(&records[i])
	}
	return e
}

func (e *encoder) log(l *creel.Log) {
	end := e.written()
	e.string(12, l.Event)
	e.fixed64(11, uint64(l.Observed))
	e.spanID(10, l.SpanID)
	e.traceID(9, l.TraceID)
	e.fixed32(8, l.Flags)
	e.varint(7, uint64(l.Dropped))
	e.attrs(6, l.Attrs)
	if l.Body.Kind() != creel.ValueEmpty {
		e.value(5, l.Body)
	}
	e.string(3, l.SeverityText)
	e.varint(2, uint64(l.Severity))
	e.fixed64(1, uint64(l.Time))
	e.close(2, end)
}
