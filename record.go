package creel

import (
	"encoding/hex"
	"unsafe"
)

// Signal is the kind of telemetry a batch holds.
type Signal uint8

// The signals. Their order is that of queues and tables everywhere in creel.
const (
	Logs Signal = iota + 1
	Metrics
	Traces
)

// Signals lists them all.
func Signals() []Signal { return []Signal{Logs, Metrics, Traces} }

// String returns the name of the signal in OTLP paths and in creel's own metrics: logs, metrics or traces.
func (s Signal) String() string {
	switch s {
	case Logs:
		return "logs"
	case Metrics:
		return "metrics"
	case Traces:
		return "traces"
	}
	return "unknown"
}

// Origin is what many records share: where they come from. It is immutable, and never recycled, so that it may be
// kept and compared by pointer; to change it, point the record to another.
type Origin struct {
	Resource Resource
	Scope    Scope
}

// Resource describes the entity that produced the telemetry (OTLP Resource).
type Resource struct {
	Attrs     Attrs
	Dropped   uint32 // attributes that the source left out
	SchemaURL string
	Entities  []EntityRef
}

// EntityRef names the attributes of a Resource that identify and describe one entity (OTLP EntityRef).
type EntityRef struct {
	SchemaURL, Type         string
	IDKeys, DescriptionKeys []string
}

// Scope is the instrumentation scope: the library or component that made the records.
type Scope struct {
	Name, Version string
	Attrs         Attrs
	Dropped       uint32
	SchemaURL     string
}

// TraceID identifies a trace (W3C Trace Context). The zero TraceID is none.
type TraceID [16]byte

// String returns 32 lower-case hexadecimal digits, "" for none.
func (id TraceID) String() string {
	if id == (TraceID{}) {
		return ""
	}
	return hex.EncodeToString(id[:])
}

// SpanID identifies a span within a trace. The zero SpanID is none.
type SpanID [8]byte

// String returns 16 lower-case hexadecimal digits, "" for none.
func (id SpanID) String() string {
	if id == (SpanID{}) {
		return ""
	}
	return hex.EncodeToString(id[:])
}

// Severity is OpenTelemetry's severity number: 0 unknown, then four steps each of TRACE (1-4), DEBUG (5-8), INFO
// (9-12), WARN (13-16), ERROR (17-20) and FATAL (21-24).
type Severity int32

// The first step of each range.
const (
	SeverityTrace Severity = 1
	SeverityDebug Severity = 5
	SeverityInfo  Severity = 9
	SeverityWarn  Severity = 13
	SeverityError Severity = 17
	SeverityFatal Severity = 21
)

var severityNames = [...]string{"TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"}

// String returns the short name that OpenTelemetry gives the number, such as INFO or WARN2; "" when it is unknown.
func (s Severity) String() string {
	if s < 1 || s > 24 {
		return ""
	}
	name := severityNames[(s-1)/4]
	if step := (s - 1) % 4; step > 0 {
		name += string(rune('1' + step))
	}
	return name
}

// Log is one log record. Times are nanoseconds since the Unix epoch, 0 for unknown.
type Log struct {
	Origin         *Origin
	Time, Observed int64
	Body           Value
	Attrs          Attrs
	Severity       Severity
	Dropped        uint32 // attributes that the source left out
	SeverityText   string
	Event          string // event name
	TraceID        TraceID
	SpanID         SpanID
	Flags          uint32 // W3C trace flags in the low 8 bits
}

func (l *Log) size() int {
	return int(unsafe.Sizeof(*l)) + l.Body.size() + l.Attrs.size() + len(l.SeverityText) + len(l.Event)
}

// MetricKind is the kind of a metric's data points.
type MetricKind uint8

// The kinds of metrics, OTLP's data oneof.
const (
	MetricNone MetricKind = iota
	Gauge
	Sum
	HistogramKind
	ExponentialKind
	SummaryKind
)

// Temporality says what a sum or histogram counts from. The numbers are OTLP's.
type Temporality uint8

// The temporalities.
const (
	TemporalityUnspecified Temporality = iota
	Delta                              // since the previous point
	Cumulative                         // since a fixed start
)

// Descriptor is what the data points of one metric share. Like an Origin it is immutable and never recycled.
type Descriptor struct {
	Name, Description, Unit string
	Kind                    MetricKind
	Temporality             Temporality // of sums and histograms
	Monotonic               bool        // of sums
	Metadata                Attrs
}

// Metric is one data point of a metric. Times are nanoseconds since the Unix epoch, 0 for unknown.
type Metric struct {
	Origin      *Origin
	Desc        *Descriptor
	Start, Time int64
	Attrs       Attrs
	Value       Number // of a gauge or sum
	Flags       uint32
	Exemplars   []Exemplar

	// One of these is set when Desc.Kind is HistogramKind, ExponentialKind or SummaryKind.
	Histogram   *Histogram
	Exponential *ExponentialHistogram
	Summary     *Summary
}

func (m *Metric) size() int {
	n := int(unsafe.Sizeof(*m)) + m.Attrs.size()
	for i := range m.Exemplars {
		n += int(unsafe.Sizeof(m.Exemplars[i])) + m.Exemplars[i].Attrs.size()
	}
	if h := m.Histogram; h != nil {
		n += int(unsafe.Sizeof(*h)) + 8*(len(h.Bounds)+len(h.Counts))
	}
	if h := m.Exponential; h != nil {
		n += int(unsafe.Sizeof(*h)) + 8*(len(h.Positive.Counts)+len(h.Negative.Counts))
	}
	if s := m.Summary; s != nil {
		n += int(unsafe.Sizeof(*s)) + len(s.Quantiles)*int(unsafe.Sizeof(Quantile{}))
	}
	return n
}

// Number is an integer, a floating-point number or nothing (a point without a recorded value). Its Kind is ValueInt,
// ValueDouble or ValueEmpty.
type Number = Value

// Exemplar is a single measurement that went into a data point.
type Exemplar struct {
	Time    int64
	Value   Number
	Attrs   Attrs // those filtered from the point's own
	TraceID TraceID
	SpanID  SpanID
}

// Optional is a floating-point number that may be absent.
type Optional struct {
	Value float64
	Valid bool
}

// Histogram is a distribution over explicit buckets: Counts[i] is for (Bounds[i-1], Bounds[i]].
type Histogram struct {
	Count         uint64
	Sum, Min, Max Optional
	Counts        []uint64
	Bounds        []float64
}

// Buckets is one half of an exponential histogram: Counts[i] is for (base^(Offset+i), base^(Offset+i+1)].
type Buckets struct {
	Offset int32
	Counts []uint64
}

// ExponentialHistogram is a distribution over buckets whose bounds grow by base = 2^(2^-Scale).
type ExponentialHistogram struct {
	Count, ZeroCount   uint64
	Sum, Min, Max      Optional
	Scale              int32
	ZeroThreshold      float64
	Positive, Negative Buckets
}

// Quantile is one value of a Summary. Q is from 0 to 1.
type Quantile struct{ Q, Value float64 }

// Summary is a distribution by quantiles, as Prometheus' summaries are.
type Summary struct {
	Count     uint64
	Sum       float64
	Quantiles []Quantile
}

// SpanKind is a span's role in its trace. The numbers are OTLP's.
type SpanKind int32

// The kinds of spans.
const (
	SpanUnspecified SpanKind = iota
	SpanInternal
	SpanServer
	SpanClient
	SpanProducer
	SpanConsumer
)

// StatusCode is a span's outcome. The numbers are OTLP's.
type StatusCode int32

// The outcomes.
const (
	StatusUnset StatusCode = iota
	StatusOK
	StatusError
)

// Status is a span's outcome and, for an error, its text.
type Status struct {
	Code    StatusCode
	Message string
}

// Span is one operation of a trace. Times are nanoseconds since the Unix epoch, 0 for unknown.
type Span struct {
	Origin        *Origin
	TraceID       TraceID
	SpanID        SpanID
	Parent        SpanID
	Kind          SpanKind
	Flags         uint32
	State         string // W3C tracestate
	Name          string
	Start, End    int64
	Attrs         Attrs
	Events        []SpanEvent
	Links         []SpanLink
	Status        Status
	Dropped       uint32 // attributes that the source left out
	DroppedEvents uint32
	DroppedLinks  uint32
}

func (s *Span) size() int {
	n := int(unsafe.Sizeof(*s)) + len(s.State) + len(s.Name) + s.Attrs.size() + len(s.Status.Message)
	for i := range s.Events {
		n += int(unsafe.Sizeof(s.Events[i])) + len(s.Events[i].Name) + s.Events[i].Attrs.size()
	}
	for i := range s.Links {
		n += int(unsafe.Sizeof(s.Links[i])) + len(s.Links[i].State) + s.Links[i].Attrs.size()
	}
	return n
}

// SpanEvent is something that happened at a moment of a span.
type SpanEvent struct {
	Time    int64
	Name    string
	Attrs   Attrs
	Dropped uint32
}

// SpanLink points from a span to another, possibly of another trace.
type SpanLink struct {
	TraceID TraceID
	SpanID  SpanID
	State   string
	Attrs   Attrs
	Dropped uint32
	Flags   uint32
}
