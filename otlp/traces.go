package otlp

import "github.com/creelhq/creel"

// spans decodes the spans of a scope group.
func (d *decoder) spans(b []byte, o *creel.Origin) {
	for p := 0; p < len(b); {
		if b[p] != tagInner {
			p = skip(b, p, 0)
			continue
		}
		n := run(b, p)
		d.r.Spans = grow(d.r.Spans, n)
		for range n {
			var record []byte
			record, p = bytesAt(b, p+1)
			d.r.Spans = append(d.r.Spans, creel.Span{Origin: o})
			d.span(record, &d.r.Spans[len(d.r.Spans)-1])
		}
	}
}

func (d *decoder) span(b []byte, s *creel.Span) {
	for p := 0; p < len(b); {
		tag, q := varint(b, p)
		var n uint64
		var body []byte
		switch tag {
		case 1<<3 | wireBytes:
			s.TraceID, p = traceIDAt(b, q)
		case 2<<3 | wireBytes:
			s.SpanID, p = spanIDAt(b, q)
		case 3<<3 | wireBytes:
			s.State, p = stringAt(b, q)
		case 4<<3 | wireBytes:
			s.Parent, p = spanIDAt(b, q)
		case 5<<3 | wireBytes:
			s.Name, p = stringAt(b, q)
		case 6 << 3:
			n, p = varint(b, q)
			s.Kind = creel.SpanKind(n)
		case 7<<3 | wireFixed64:
			s.Start, p = timeAt(b, q)
		case 8<<3 | wireFixed64:
			s.End, p = timeAt(b, q)
		case 9<<3 | wireBytes:
			s.Attrs, p = attrsAt(d.r, s.Attrs, b, p)
		case 10 << 3:
			s.Dropped, p = uint32At(b, q)
		case 11<<3 | wireBytes:
			i := len(s.Events)
			s.Events = extend(&d.r.Events, s.Events, run(b, p))
			for ; i < len(s.Events); i++ {
				body, p = bytesAt(b, p+1)
				d.event(body, &s.Events[i])
			}
		case 12 << 3:
			s.DroppedEvents, p = uint32At(b, q)
		case 13<<3 | wireBytes:
			i := len(s.Links)
			s.Links = extend(&d.r.Links, s.Links, run(b, p))
			for ; i < len(s.Links); i++ {
				body, p = bytesAt(b, p+1)
				d.link(body, &s.Links[i])
			}
		case 14 << 3:
			s.DroppedLinks, p = uint32At(b, q)
		case 15<<3 | wireBytes:
			body, p = bytesAt(b, q)
			spanStatus(body, &s.Status)
		case 16<<3 | wireFixed32:
			s.Flags, p = fixed32At(b, q)
		default:
			p = skip(b, p, 0)
		}
	}
}

func (d *decoder) event(b []byte, ev *creel.SpanEvent) {
	for p := 0; p < len(b); {
		tag, q := varint(b, p)
		switch tag {
		case 1<<3 | wireFixed64:
			ev.Time, p = timeAt(b, q)
		case 2<<3 | wireBytes:
			ev.Name, p = stringAt(b, q)
		case 3<<3 | wireBytes:
			ev.Attrs, p = attrsAt(d.r, ev.Attrs, b, p)
		case 4 << 3:
			ev.Dropped, p = uint32At(b, q)
		default:
			p = skip(b, p, 0)
		}
	}
}

func (d *decoder) link(b []byte, l *creel.SpanLink) {
	for p := 0; p < len(b); {
		tag, q := varint(b, p)
		switch tag {
		case 1<<3 | wireBytes:
			l.TraceID, p = traceIDAt(b, q)
		case 2<<3 | wireBytes:
			l.SpanID, p = spanIDAt(b, q)
		case 3<<3 | wireBytes:
			l.State, p = stringAt(b, q)
		case 4<<3 | wireBytes:
			l.Attrs, p = attrsAt(d.r, l.Attrs, b, p)
		case 5 << 3:
			l.Dropped, p = uint32At(b, q)
		case 6<<3 | wireFixed32:
			l.Flags, p = fixed32At(b, q)
		default:
			p = skip(b, p, 0)
		}
	}
}

func spanStatus(b []byte, s *creel.Status) {
	for p := 0; p < len(b); {
		tag, q := varint(b, p)
		switch tag {
		case 2<<3 | wireBytes:
			s.Message, p = stringAt(b, q)
		case 3 << 3:
			var n uint64
			n, p = varint(b, q)
			s.Code = creel.StatusCode(n)
		default:
			p = skip(b, p, 0)
		}
	}
}

func spanOrigin(s *creel.Span) *creel.Origin { return s.Origin }

// spans writes spans of one origin.
func (e encoder) spans(records []creel.Span) encoder {
	for i := len(records) - 1; i >= 0; i-- {
		e.span(&records[i])
	}
	return e
}

func (e *encoder) span(s *creel.Span) {
	end := e.written()
	e.fixed32(16, s.Flags)
	if s.Status != (creel.Status{}) {
		inner := e.written()
		e.varint(3, uint64(s.Status.Code))
		e.string(2, s.Status.Message)
		e.close(15, inner)
	}
	e.varint(14, uint64(s.DroppedLinks))
	for i := len(s.Links) - 1; i >= 0; i-- {
		e.link(&s.Links[i])
	}
	e.varint(12, uint64(s.DroppedEvents))
	for i := len(s.Events) - 1; i >= 0; i-- {
		e.event(&s.Events[i])
	}
	e.varint(10, uint64(s.Dropped))
	e.attrs(9, s.Attrs)
	e.fixed64(8, uint64(s.End))
	e.fixed64(7, uint64(s.Start))
	e.varint(6, uint64(s.Kind))
	e.string(5, s.Name)
	e.spanID(4, s.Parent)
	e.string(3, s.State)
	e.spanID(2, s.SpanID)
	e.traceID(1, s.TraceID)
	e.close(2, end)
}

func (e *encoder) event(ev *creel.SpanEvent) {
	end := e.written()
	e.varint(4, uint64(ev.Dropped))
	e.attrs(3, ev.Attrs)
	e.string(2, ev.Name)
	e.fixed64(1, uint64(ev.Time))
	e.close(11, end)
}

func (e *encoder) link(l *creel.SpanLink) {
	end := e.written()
	e.fixed32(6, l.Flags)
	e.varint(5, uint64(l.Dropped))
	e.attrs(4, l.Attrs)
	e.string(3, l.State)
	e.spanID(2, l.SpanID)
	e.traceID(1, l.TraceID)
	e.close(13, end)
}
