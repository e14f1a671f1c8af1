package prometheus

import (
	"strings"

	"github.com/creelhq/creel"
)

// A series is what is remembered of one stream of points from one round to the next: since when it counts, and how to say
// that it is over.
type series struct {
	desc    *creel.Descriptor
	text    string  // its name and labels as the target wrote them, for the marker of its end
	last    float64 // value of a counter, count of a histogram or summary
	start   int64   // since when it counts
	round   uint32  // of the target, when it was seen last
	made    uint32  // likewise, when the target said since when it counts
	point   int32   // index of the record in that round; -1: none
	stamped bool    // the target says the time: there is no telling when it is over
	state   state
}

// state is what those who get the points know of a series.
type state uint8

const (
	fresh state = iota // nothing yet
	live
	stale // that it is over, for now
)

// noValue is OTLP's flag of a point that says that there is none: Prometheus' marker of staleness.
const noValue = 1

// begin returns since when a series counts of which the value at a time is known. It follows "Cumulative streams: handling
// unknown start time" of OpenTelemetry's data model: counting from zero began somewhere before the first point, which
// therefore has a length of zero, and so has the first after a value that went down.
func (s *series) begin(at int64, value float64) int64 {
	if s.start == 0 || value < s.last && s.made != s.round {
		s.start = at
	}
	s.last = value
	return min(s.start, at)
}

// seriesOf returns the series that the parser's sample belongs to.
func (c *converter) seriesOf(f *family, skip string) *series {
	p, t := &c.parser, c.target
	key := uint64(0)
	for i := range p.labels { // their order does not count
		if l := &p.labels[i]; l.value != "" && l.name != skip {
			key += c.hasher.Mix(c.hasher.String(l.name), c.hasher.String(l.value))
		}
	}
	key = c.hasher.Mix(f.hash, key)
	s := t.series[key]
	if s == nil {
		s = &series{text: strings.Clone(p.raw)}
		t.series[key] = s
		c.added++
	}
	if s.round != t.round {
		s.round, s.point, s.stamped = t.round, -1, false
		s.desc = c.descriptor(f)
		c.seen++
	}
	return s
}

// over adds markers for series that are: those that were not seen in this round, or, if the target has failed, all.
func (c *converter) over(all bool) {
	t := c.target
	if !all && len(t.series) == c.seen {
		return
	}
	for _, s := range t.series {
		if s.state != live || s.stamped || !all && s.round == t.round {
			continue
		}
		p := &c.again
		p.reset(s.text, false)
		if _, _, err := p.head(s.text, 0); err != nil {
			panic("BUG: the name of a series that was read cannot be read again: " + err.Error())
		}
		m := creel.Metric{Desc: s.desc, Time: c.now, Start: min(s.start, c.now), Flags: noValue}
		skip := ""
		switch s.desc.Kind {
		case creel.HistogramKind:
			skip, m.Histogram = "le", &c.records.Histograms.Make(1)[0]
		case creel.SummaryKind:
			skip, m.Summary = "quantile", &c.records.Summaries.Make(1)[0]
		}
		m.Attrs, m.Origin = c.attrs(p.labels, skip)
		if m.Origin == nil {
			m.Origin = t.origin
		}
		c.records.Metrics = append(c.records.Metrics, m)
	}
}

// sent is called when the round's points of a target are on their way: so what was said of its series is known.
func (t *target) sent(o outcome) {
	switch {
	case o.err != nil:
		for key, s := range t.series {
			switch s.state {
			case fresh:
				delete(t.series, key)
			case live:
				s.state = stale
			}
		}
		t.down = true
	case o.added > 0 || t.down || o.seen < len(t.series):
		for key, s := range t.series {
			if s.state = live; s.round != t.round {
				delete(t.series, key)
			}
		}
		t.down = false
	}
}
