package prometheus

import (
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unsafe"

	"github.com/creelhq/creel"
)

// The types of families, as TYPE lines name them.
const (
	typeCounter        = "counter"
	typeGauge          = "gauge"
	typeHistogram      = "histogram"
	typeGaugeHistogram = "gaugehistogram"
	typeSummary        = "summary"
	typeInfo           = "info"
	typeStateSet       = "stateset"
	typeUnknown        = "unknown"
)

// family is what an exposition says of the metrics with one name.
type family struct {
	name, kind, help, unit string
	typed                  bool
	hash                   uint64
	desc                   *creel.Descriptor // nil until the first sample
}

// role is what a sample is within its family.
type role uint8

const (
	roleNone role = iota // of no use
	roleValue
	roleBucket
	roleQuantile
	roleSum
	roleCount
	roleCreated
)

// place belongs to a record that is being made.
type place struct {
	series *series
	count  float64 // NaN: not known
}

// bucket is a bucket of a histogram or a quantile of a summary.
type bucket struct {
	point        int32 // index of the record
	bound, value float64
}

type pointExemplar struct {
	point    int32
	exemplar creel.Exemplar
}

// converter makes records of expositions, one after the other, by OpenTelemetry's "Prometheus and OpenMetrics
// Compatibility". Where that leaves a choice: names stay as they are exposed, _total included, so that they are found again
// under the name they have in Prometheus. A histogram without a count takes it from its bucket +Inf. What the specification
// has no place for (histograms of gauges, histograms and summaries without a count) is counted and left out.
//
// It is used by one goroutine at a time.
type converter struct {
	options *Config
	hasher  creel.Hasher
	counts  counts
	descs   map[descKey]*described
	round   uint32 // of the collector

	parser, again parser
	families      map[string]*family
	spare         []*family // of which families has some
	current       *family
	places        []place
	buckets       []bucket
	exemplars     []pointExemplar

	// Of the scrape under way.
	target      *target
	records     *creel.Records
	now         int64
	processTime int64 // when the process says it has begun; 0: nothing
	samples     int
	seen, added int // series
}

// outcome is what came of a scrape.
type outcome struct {
	start                time.Time
	took                 time.Duration
	samples, seen, added int
	err                  error
}

// convert makes a batch of an exposition: of what o.err says if there is none. It changes o.
func (c *converter) convert(m *creel.Memory, t *target, text string, open bool, o *outcome) *creel.Batch {
	c.begin(m, t, o.start)
	if o.err == nil {
		if o.err = c.read(text, open); o.err != nil { // what was read is not worth anything
			creel.Settle(creel.NewBatch(creel.Metrics, c.records), nil)
			c.records = m.NewRecords()
		} else {
			c.finish()
		}
		o.samples = c.samples
	}
	c.over(o.err != nil)
	o.seen, o.added = c.seen, c.added
	up := 1.0
	if o.err != nil {
		up, o.added = 0, 0
	}
	c.about([...]float64{up, o.took.Seconds(), float64(o.samples), float64(o.added)}, 0)
	return creel.NewBatch(creel.Metrics, c.records)
}

// farewell makes a batch that says that a target and its series are no more.
func (c *converter) farewell(m *creel.Memory, t *target, at time.Time) *creel.Batch {
	c.begin(m, t, at)
	c.over(true)
	c.about([4]float64{}, noValue)
	return creel.NewBatch(creel.Metrics, c.records)
}

func (c *converter) begin(m *creel.Memory, t *target, at time.Time) {
	c.target, c.records, c.now = t, m.NewRecords(), at.UnixNano()
	c.processTime, c.samples, c.seen, c.added = 0, 0, 0, 0
	t.round++
	c.places, c.buckets, c.exemplars, c.current = c.places[:0], c.buckets[:0], c.exemplars[:0], nil
}

// about adds what the collector says of the target, by the names that Prometheus has for it.
func (c *converter) about(values [4]float64, flags uint32) {
	for i, d := range &aboutTargets {
		m := creel.Metric{Origin: c.target.plain, Desc: d, Time: c.now, Flags: flags, Attrs: c.records.Attrs.Make(len(c.target.labels))}
		copy(m.Attrs, c.target.labels)
		if flags&noValue == 0 {
			m.Value = creel.Double(values[i])
		}
		c.records.Metrics = append(c.records.Metrics, m)
	}
}

var aboutTargets = [4]*creel.Descriptor{
	{Name: "up", Description: "Whether the target was scraped.", Kind: creel.Gauge},
	{Name: "scrape_duration_seconds", Description: "How long the scrape took.", Unit: "s", Kind: creel.Gauge},
	{Name: "scrape_samples_scraped", Description: "Samples that the target exposed.", Kind: creel.Gauge},
	{Name: "scrape_series_added", Description: "Series that the scrape before did not have; a histogram or summary is one.", Kind: creel.Gauge},
}

func (c *converter) read(text string, open bool) error {
	p := &c.parser
	p.reset(text, open)
	clear(c.families)
	used := 0
	get := func(name string) *family {
		f := c.families[name]
		if f == nil {
			if used == len(c.spare) {
				c.spare = append(c.spare, &family{})
			}
			f = c.spare[used]
			used++
			*f = family{name: name, kind: typeUnknown, hash: c.hasher.String(name)}
			c.families[name] = f
		}
		return f
	}
	for {
		kind, err := p.next()
		if err != nil {
			return err
		}
		switch kind {
		case lineEnd:
			return nil
		case lineHelp:
			c.current = get(p.name)
			c.current.help = p.info
		case lineUnit:
			c.current = get(p.name)
			c.current.unit = p.info
		case lineType:
			c.current = get(p.name)
			if err := c.current.setType(p); err != nil {
				return err
			}
		case lineSample:
			if c.samples++; c.samples > c.options.MaxSamples {
				return fmt.Errorf("read line %d: there are more than %d samples (max_samples)", p.line, c.options.MaxSamples)
			}
			if err := c.sample(get); err != nil {
				return err
			}
		}
	}
}

// setType takes the type that a TYPE line has.
func (f *family) setType(p *parser) error {
	if f.typed && p.open {
		return p.failure("the type of %s stands there twice", excerpt(f.name))
	}
	for _, kind := range [...]string{typeCounter, typeGauge, typeHistogram, typeSummary, typeUnknown, typeInfo, typeStateSet, typeGaugeHistogram} {
		if p.info == kind || !p.open && strings.EqualFold(p.info, kind) {
			f.kind, f.typed = kind, true
			f.desc = nil
			return nil
		}
	}
	if !p.open && strings.EqualFold(p.info, "untyped") {
		f.typed = true
		return nil
	}
	return p.failure("the type of %s must be counter, gauge, histogram, summary or %s, got %s", excerpt(f.name), map[bool]string{true: typeUnknown, false: "untyped"}[p.open], excerpt(p.info))
}

// role returns what a sample with a name is within f; ok is false if it does not belong to it.
func (f *family) role(name string, open bool) (r role, ok bool) {
	suffix, ok := strings.CutPrefix(name, f.name)
	if !ok {
		return roleNone, false
	}
	if suffix == "" {
		switch f.kind {
		case typeSummary:
			return roleQuantile, true
		case typeHistogram, typeGaugeHistogram:
			return roleNone, true
		}
		return roleValue, true
	}
	switch f.kind {
	case typeCounter:
		switch {
		case open && suffix == "_total":
			return roleValue, true
		case open && suffix == "_created":
			return roleCreated, true
		}
	case typeInfo:
		return roleValue, open && suffix == "_info"
	case typeHistogram, typeSummary:
		switch {
		case suffix == "_bucket" && f.kind == typeHistogram:
			return roleBucket, true
		case suffix == "_sum":
			return roleSum, true
		case suffix == "_count":
			return roleCount, true
		case open && suffix == "_created":
			return roleCreated, true
		}
	case typeGaugeHistogram:
		return roleNone, slices.Contains([]string{"_bucket", "_gcount", "_gsum", "_count", "_sum", "_created"}, suffix)
	}
	return roleNone, false
}

// find returns the family of the parser's sample, and what the sample is in it.
func (c *converter) find(get func(string) *family) (*family, role) {
	name, open := c.parser.name, c.parser.open
	if c.current != nil {
		if r, ok := c.current.role(name, open); ok {
			return c.current, r
		}
	}
	f := c.families[name]
	if f == nil {
		if i := strings.LastIndexByte(name, '_'); i > 0 {
			if base := c.families[name[:i]]; base != nil {
				if r, ok := base.role(name, open); ok {
					c.current = base
					return base, r
				}
			}
		}
		f = get(name)
	}
	c.current = f
	r, _ := f.role(name, open)
	return f, r
}

// sample makes a record of the parser's sample, or a part of one.
func (c *converter) sample(get func(string) *family) error {
	p := &c.parser
	f, role := c.find(get)
	if p.name == "target_info" && role == roleValue {
		c.target.describe(p, c.options)
		return nil
	}
	skip := ""
	bound := math.NaN()
	switch role {
	case roleBucket:
		skip = "le"
	case roleQuantile:
		skip = "quantile"
	}
	if skip != "" {
		text := ""
		for i := range p.labels {
			if p.labels[i].name == skip {
				text = p.labels[i].value
			}
		}
		var err error
		if bound, err = parseFloat(text); err != nil || math.IsNaN(bound) {
			if p.open || text != "" {
				return p.failure("label %s of %s must be a number, got %s", skip, excerpt(p.name), excerpt(text))
			}
			role = roleNone
		}
	}
	if role == roleNone {
		c.counts.unfit.Inc()
		return nil
	}
	s := c.seriesOf(f, skip)
	if role == roleCreated {
		if at, err := parseSeconds(p.number); err == nil && at > 0 && at <= c.now {
			s.start, s.made = at, s.round
		}
		return nil
	}
	at := c.now
	if p.stamped && c.options.HonorTimestamps {
		at, s.stamped = p.time, true
	}
	m := c.point(s, role, at, skip)
	if m == nil {
		c.counts.repeated.Inc()
		return nil
	}
	c.enter(m, s, role, bound)
	return nil
}

// point returns the record that a sample of s belongs to, nil if there is one that it would repeat.
func (c *converter) point(s *series, r role, at int64, skip string) *creel.Metric {
	if s.point >= 0 {
		if m := &c.records.Metrics[s.point]; m.Time == at {
			if r == roleValue {
				return nil
			}
			return m
		}
	}
	s.point = int32(len(c.records.Metrics))
	m := creel.Metric{Desc: s.desc, Time: at}
	m.Attrs, m.Origin = c.attrs(c.parser.labels, skip)
	switch s.desc.Kind {
	case creel.HistogramKind:
		m.Histogram = &c.records.Histograms.Make(1)[0]
	case creel.SummaryKind:
		m.Summary = &c.records.Summaries.Make(1)[0]
	}
	c.records.Metrics = append(c.records.Metrics, m)
	c.places = append(c.places, place{s, math.NaN()})
	return &c.records.Metrics[s.point]
}

// enter puts the sample's value into its record.
func (c *converter) enter(m *creel.Metric, s *series, r role, bound float64) {
	p := &c.parser
	switch r {
	case roleValue:
		m.Value = creel.Double(p.value)
		if p.name == "process_start_time_seconds" && len(p.labels) == 0 {
			c.processTime, _ = parseSeconds(p.number)
		}
	case roleCount:
		c.places[s.point].count = p.value
	case roleSum:
		if m.Histogram != nil {
			m.Histogram.Sum = creel.Optional{Value: p.value, Valid: true}
		} else {
			m.Summary.Sum = p.value
		}
	case roleBucket, roleQuantile:
		c.buckets = append(c.buckets, bucket{s.point, bound, p.value})
	}
	if p.hasExemplar && (r == roleBucket || m.Desc.Monotonic) {
		c.exemplars = append(c.exemplars, pointExemplar{s.point, c.newExemplar(&p.exemplar)})
	}
}

func (c *converter) newExemplar(from *exemplar) creel.Exemplar {
	e := creel.Exemplar{Time: from.time, Value: creel.Double(from.value), Attrs: c.records.Attrs.Make(len(from.labels))[:0]}
	for _, l := range from.labels {
		switch {
		case l.name == "trace_id" && decodeID(e.TraceID[:], l.value), l.name == "span_id" && decodeID(e.SpanID[:], l.value):
		default:
			e.Attrs = append(e.Attrs, creel.Attr{Key: l.name, Value: creel.String(l.value)})
		}
	}
	return e
}

// decodeID reads an id in hexadecimal digits.
func decodeID(to []byte, text string) bool {
	if len(text) != hex.EncodedLen(len(to)) {
		return false
	}
	if _, err := hex.Decode(to, []byte(text)); err != nil {
		clear(to)
		return false
	}
	return true
}

// finish makes the records whole once all samples are known.
func (c *converter) finish() {
	byPoint := func(a, b bucket) int { return int(a.point - b.point) }
	if !slices.IsSortedFunc(c.buckets, byPoint) {
		slices.SortStableFunc(c.buckets, byPoint)
	}
	slices.SortStableFunc(c.exemplars, func(a, b pointExemplar) int { return int(a.point - b.point) })
	buckets, exemplars, kept := c.buckets, c.exemplars, 0
	for i := range c.records.Metrics {
		m, place := &c.records.Metrics[i], &c.places[i]
		n := 0
		for n < len(buckets) && int(buckets[n].point) == i {
			n++
		}
		own := buckets[:n]
		buckets = buckets[n:]
		for n = 0; n < len(exemplars) && int(exemplars[n].point) == i; n++ {
		}
		if n > 0 {
			m.Exemplars = c.records.Exemplars.Make(n)
			for j := range m.Exemplars {
				m.Exemplars[j] = exemplars[j].exemplar
			}
			exemplars = exemplars[n:]
		}
		value, whole := c.complete(m, place, own)
		if !whole {
			c.counts.unfit.Inc()
			continue
		}
		if m.Desc.Monotonic || m.Desc.Kind != creel.Sum && m.Desc.Kind != creel.Gauge {
			m.Start = place.series.begin(m.Time, value)
			if c.options.ProcessStart && c.processTime > 0 && c.processTime <= m.Time && place.series.made != place.series.round {
				m.Start = c.processTime
			}
		}
		if m.Origin == nil {
			m.Origin = c.target.origin
		}
		c.records.Metrics[kept] = *m
		kept++
	}
	clear(c.records.Metrics[kept:])
	c.records.Metrics = c.records.Metrics[:kept]
}

// complete fills a histogram or summary. value is what only grows while the target counts; whole is false if the record is
// of no use.
func (c *converter) complete(m *creel.Metric, place *place, own []bucket) (value float64, whole bool) {
	switch m.Desc.Kind {
	case creel.HistogramKind:
		return c.completeHistogram(m.Histogram, place.count, own)
	case creel.SummaryKind:
		m.Summary.Count = toCount(place.count)
		m.Summary.Quantiles = c.records.Quantiles.Make(len(own))
		for i, b := range own {
			m.Summary.Quantiles[i] = creel.Quantile{Q: b.bound, Value: b.value}
		}
		return place.count, !math.IsNaN(place.count)
	}
	return m.Value.Double(), true
}

// completeHistogram turns buckets that count what is below their bound into such that count what is in between. A target that
// counts while it writes may have one that is less than the one before, which then is taken as empty.
func (c *converter) completeHistogram(h *creel.Histogram, count float64, own []bucket) (float64, bool) {
	byBound := func(a, b bucket) int {
		switch {
		case a.bound < b.bound:
			return -1
		case a.bound > b.bound:
			return 1
		}
		return 0
	}
	if !slices.IsSortedFunc(own, byBound) {
		slices.SortStableFunc(own, byBound)
	}
	own = slices.CompactFunc(own, func(a, b bucket) bool { return a.bound == b.bound })
	if n := len(own); n > 0 && math.IsInf(own[n-1].bound, 1) {
		count = own[n-1].value // the same as _count, but certain to be of the same moment as the others
		own = own[:n-1]
	} else if n == 0 {
		h.Count = toCount(count)
		return count, !math.IsNaN(count)
	}
	if math.IsNaN(count) {
		return 0, false
	}
	h.Count = toCount(count)
	h.Bounds, h.Counts = c.records.Float64s.Make(len(own)), c.records.Uint64s.Make(len(own)+1)
	below := uint64(0)
	for i, b := range own {
		n := min(max(toCount(b.value), below), h.Count)
		h.Bounds[i], h.Counts[i] = b.bound, n-below
		below = n
	}
	h.Counts[len(own)] = h.Count - below
	return count, true
}

// toCount returns what OTLP has for a count: it knows whole ones only.
func toCount(f float64) uint64 {
	switch {
	case !(f > 0):
		return 0
	case f >= math.MaxInt64:
		return math.MaxInt64
	}
	return uint64(f)
}

// alias returns b as a string. It must not be changed any more.
func alias(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
