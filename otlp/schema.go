package otlp

import "github.com/creelhq/creel"

// shape is the type of a field, and so the wire type it must have and the way JSON writes it.
type shape uint8

const (
	absent   shape = iota // not a field that creel knows
	boolean               // varint
	enum                  // varint; JSON number. int32 likewise
	uint32s               // varint
	sint32                // varint, zigzag
	int64s                // varint; JSON string
	fixed32               // 4 bytes
	fixed64               // 8 bytes; JSON string
	sfixed64              // likewise, signed
	double                // 8 bytes
	text                  // length-prefixed, as all that follow
	blob                  // JSON base64
	traceID               // JSON hexadecimal, as spanID
	spanID
	message
	texts    // repeated
	messages // repeated
	varints  // repeated, packed or not; JSON strings
	fixed64s // likewise
	doubles  // repeated, packed or not
)

// The wire types of protobuf.
const (
	wireVarint = iota
	wireFixed64
	wireBytes
	wireGroup
	wireEndGroup
	wireFixed32
)

// wireType returns how fields of the shape are written. Those that may be packed are, in what creel writes.
func (s shape) wireType() uint8 {
	switch s {
	case boolean, enum, uint32s, sint32, int64s:
		return wireVarint
	case fixed64, sfixed64, double:
		return wireFixed64
	case fixed32:
		return wireFixed32
	}
	return wireBytes
}

// elementType returns the wire type of a packed field's elements.
func (s shape) elementType() uint8 {
	if s == varints {
		return wireVarint
	}
	return wireFixed64
}

// field describes one field of a message. of is set for messages.
type field struct {
	name  string // in JSON
	proto string // the original name, which JSON may also use
	shape shape
	of    kind
}

// kind is a type of message.
type kind uint8

const (
	logsRequest kind = iota
	metricsRequest
	traceRequest
	resourceLogs
	resourceMetrics
	resourceSpans
	scopeLogs
	scopeMetrics
	scopeSpans
	resource
	entityRef
	scope
	keyValue
	anyValue
	arrayValue
	keyValueList
	logRecord
	metric
	gauge
	sum
	histogram
	exponential
	summary
	numberPoint
	histogramPoint
	exponentialPoint
	buckets
	summaryPoint
	quantile
	exemplar
	span
	event
	link
	status
	logsResponse
	metricsResponse
	traceResponse
	logsPartial
	metricsPartial
	tracePartial
	rpcStatus
	rpcDetail
	retryInfo
	duration
)

var kindNames = [...]string{
	logsRequest: "request", metricsRequest: "request", traceRequest: "request",
	resourceLogs: "resource_logs", resourceMetrics: "resource_metrics", resourceSpans: "resource_spans",
	scopeLogs: "scope_logs", scopeMetrics: "scope_metrics", scopeSpans: "scope_spans",
	resource: "resource", entityRef: "entity_ref", scope: "scope",
	keyValue: "attribute", anyValue: "value", arrayValue: "list", keyValueList: "map",
	logRecord: "log record", metric: "metric", gauge: "gauge", sum: "sum", histogram: "histogram",
	exponential: "exponential histogram", summary: "summary", numberPoint: "data point", histogramPoint: "data point",
	exponentialPoint: "data point", buckets: "buckets", summaryPoint: "data point", quantile: "quantile",
	exemplar: "exemplar", span: "span", event: "event", link: "link", status: "status",
	logsResponse: "response", metricsResponse: "response", traceResponse: "response",
	logsPartial: "partial success", metricsPartial: "partial success", tracePartial: "partial success",
	rpcStatus: "status", rpcDetail: "detail", retryInfo: "retry info", duration: "duration",
}

// String returns a name for messages of kind k, for errors.
func (k kind) String() string { return kindNames[k] }

func requestOf(s creel.Signal) kind  { return logsRequest + kind(s-creel.Logs) }
func responseOf(s creel.Signal) kind { return logsResponse + kind(s-creel.Logs) }

// isRecord reports whether messages of kind k are what a batch counts.
func (k kind) isRecord() bool {
	switch k {
	case logRecord, numberPoint, histogramPoint, exponentialPoint, summaryPoint, span:
		return true
	}
	return false
}

// isData reports whether a field of kind k is one of the oneof that makes a metric's kind.
func (k kind) isData() bool { return k >= gauge && k <= summary }

// A message's fields, by number: at most 16.
type fields [17]field

// schema is OTLP 1.11.0 (opentelemetry/proto/{common,resource,logs,metrics,trace,collector}) without profiles.
var schema = [...]fields{
	logsRequest:     {1: {"resourceLogs", "resource_logs", messages, resourceLogs}},
	metricsRequest:  {1: {"resourceMetrics", "resource_metrics", messages, resourceMetrics}},
	traceRequest:    {1: {"resourceSpans", "resource_spans", messages, resourceSpans}},
	resourceLogs:    group("scopeLogs", "scope_logs", scopeLogs),
	resourceMetrics: group("scopeMetrics", "scope_metrics", scopeMetrics),
	resourceSpans:   group("scopeSpans", "scope_spans", scopeSpans),
	scopeLogs:       scoped("logRecords", "log_records", logRecord),
	scopeMetrics:    scoped("metrics", "metrics", metric),
	scopeSpans:      scoped("spans", "spans", span),
	resource: {
		1: {"attributes", "attributes", messages, keyValue},
		2: {"droppedAttributesCount", "dropped_attributes_count", uint32s, 0},
		3: {"entityRefs", "entity_refs", messages, entityRef},
	},
	entityRef: {
		1: {"schemaUrl", "schema_url", text, 0},
		2: {"type", "type", text, 0},
		3: {"idKeys", "id_keys", texts, 0},
		4: {"descriptionKeys", "description_keys", texts, 0},
	},
	scope: {
		1: {"name", "name", text, 0},
		2: {"version", "version", text, 0},
		3: {"attributes", "attributes", messages, keyValue},
		4: {"droppedAttributesCount", "dropped_attributes_count", uint32s, 0},
	},
	keyValue: {
		1: {"key", "key", text, 0},
		2: {"value", "value", message, anyValue},
	},
	anyValue: {
		1: {"stringValue", "string_value", text, 0},
		2: {"boolValue", "bool_value", boolean, 0},
		3: {"intValue", "int_value", int64s, 0},
		4: {"doubleValue", "double_value", double, 0},
		5: {"arrayValue", "array_value", message, arrayValue},
		6: {"kvlistValue", "kvlist_value", message, keyValueList},
		7: {"bytesValue", "bytes_value", blob, 0},
	},
	arrayValue:   {1: {"values", "values", messages, anyValue}},
	keyValueList: {1: {"values", "values", messages, keyValue}},
	logRecord: {
		1:  {"timeUnixNano", "time_unix_nano", fixed64, 0},
		2:  {"severityNumber", "severity_number", enum, 0},
		3:  {"severityText", "severity_text", text, 0},
		5:  {"body", "body", message, anyValue},
		6:  {"attributes", "attributes", messages, keyValue},
		7:  {"droppedAttributesCount", "dropped_attributes_count", uint32s, 0},
		8:  {"flags", "flags", fixed32, 0},
		9:  {"traceId", "trace_id", traceID, 0},
		10: {"spanId", "span_id", spanID, 0},
		11: {"observedTimeUnixNano", "observed_time_unix_nano", fixed64, 0},
		12: {"eventName", "event_name", text, 0},
	},
	metric: {
		1:  {"name", "name", text, 0},
		2:  {"description", "description", text, 0},
		3:  {"unit", "unit", text, 0},
		5:  {"gauge", "gauge", message, gauge},
		7:  {"sum", "sum", message, sum},
		9:  {"histogram", "histogram", message, histogram},
		10: {"exponentialHistogram", "exponential_histogram", message, exponential},
		11: {"summary", "summary", message, summary},
		12: {"metadata", "metadata", messages, keyValue},
	},
	gauge: {1: {"dataPoints", "data_points", messages, numberPoint}},
	sum: {
		1: {"dataPoints", "data_points", messages, numberPoint},
		2: {"aggregationTemporality", "aggregation_temporality", enum, 0},
		3: {"isMonotonic", "is_monotonic", boolean, 0},
	},
	histogram: {
		1: {"dataPoints", "data_points", messages, histogramPoint},
		2: {"aggregationTemporality", "aggregation_temporality", enum, 0},
	},
	exponential: {
		1: {"dataPoints", "data_points", messages, exponentialPoint},
		2: {"aggregationTemporality", "aggregation_temporality", enum, 0},
	},
	summary: {1: {"dataPoints", "data_points", messages, summaryPoint}},
	numberPoint: {
		2: {"startTimeUnixNano", "start_time_unix_nano", fixed64, 0},
		3: {"timeUnixNano", "time_unix_nano", fixed64, 0},
		4: {"asDouble", "as_double", double, 0},
		5: {"exemplars", "exemplars", messages, exemplar},
		6: {"asInt", "as_int", sfixed64, 0},
		7: {"attributes", "attributes", messages, keyValue},
		8: {"flags", "flags", uint32s, 0},
	},
	histogramPoint: {
		2:  {"startTimeUnixNano", "start_time_unix_nano", fixed64, 0},
		3:  {"timeUnixNano", "time_unix_nano", fixed64, 0},
		4:  {"count", "count", fixed64, 0},
		5:  {"sum", "sum", double, 0},
		6:  {"bucketCounts", "bucket_counts", fixed64s, 0},
		7:  {"explicitBounds", "explicit_bounds", doubles, 0},
		8:  {"exemplars", "exemplars", messages, exemplar},
		9:  {"attributes", "attributes", messages, keyValue},
		10: {"flags", "flags", uint32s, 0},
		11: {"min", "min", double, 0},
		12: {"max", "max", double, 0},
	},
	exponentialPoint: {
		1:  {"attributes", "attributes", messages, keyValue},
		2:  {"startTimeUnixNano", "start_time_unix_nano", fixed64, 0},
		3:  {"timeUnixNano", "time_unix_nano", fixed64, 0},
		4:  {"count", "count", fixed64, 0},
		5:  {"sum", "sum", double, 0},
		6:  {"scale", "scale", sint32, 0},
		7:  {"zeroCount", "zero_count", fixed64, 0},
		8:  {"positive", "positive", message, buckets},
		9:  {"negative", "negative", message, buckets},
		10: {"flags", "flags", uint32s, 0},
		11: {"exemplars", "exemplars", messages, exemplar},
		12: {"min", "min", double, 0},
		13: {"max", "max", double, 0},
		14: {"zeroThreshold", "zero_threshold", double, 0},
	},
	buckets: {
		1: {"offset", "offset", sint32, 0},
		2: {"bucketCounts", "bucket_counts", varints, 0},
	},
	summaryPoint: {
		2: {"startTimeUnixNano", "start_time_unix_nano", fixed64, 0},
		3: {"timeUnixNano", "time_unix_nano", fixed64, 0},
		4: {"count", "count", fixed64, 0},
		5: {"sum", "sum", double, 0},
		6: {"quantileValues", "quantile_values", messages, quantile},
		7: {"attributes", "attributes", messages, keyValue},
		8: {"flags", "flags", uint32s, 0},
	},
	quantile: {
		1: {"quantile", "quantile", double, 0},
		2: {"value", "value", double, 0},
	},
	exemplar: {
		2: {"timeUnixNano", "time_unix_nano", fixed64, 0},
		3: {"asDouble", "as_double", double, 0},
		4: {"spanId", "span_id", spanID, 0},
		5: {"traceId", "trace_id", traceID, 0},
		6: {"asInt", "as_int", sfixed64, 0},
		7: {"filteredAttributes", "filtered_attributes", messages, keyValue},
	},
	span: {
		1:  {"traceId", "trace_id", traceID, 0},
		2:  {"spanId", "span_id", spanID, 0},
		3:  {"traceState", "trace_state", text, 0},
		4:  {"parentSpanId", "parent_span_id", spanID, 0},
		5:  {"name", "name", text, 0},
		6:  {"kind", "kind", enum, 0},
		7:  {"startTimeUnixNano", "start_time_unix_nano", fixed64, 0},
		8:  {"endTimeUnixNano", "end_time_unix_nano", fixed64, 0},
		9:  {"attributes", "attributes", messages, keyValue},
		10: {"droppedAttributesCount", "dropped_attributes_count", uint32s, 0},
		11: {"events", "events", messages, event},
		12: {"droppedEventsCount", "dropped_events_count", uint32s, 0},
		13: {"links", "links", messages, link},
		14: {"droppedLinksCount", "dropped_links_count", uint32s, 0},
		15: {"status", "status", message, status},
		16: {"flags", "flags", fixed32, 0},
	},
	event: {
		1: {"timeUnixNano", "time_unix_nano", fixed64, 0},
		2: {"name", "name", text, 0},
		3: {"attributes", "attributes", messages, keyValue},
		4: {"droppedAttributesCount", "dropped_attributes_count", uint32s, 0},
	},
	link: {
		1: {"traceId", "trace_id", traceID, 0},
		2: {"spanId", "span_id", spanID, 0},
		3: {"traceState", "trace_state", text, 0},
		4: {"attributes", "attributes", messages, keyValue},
		5: {"droppedAttributesCount", "dropped_attributes_count", uint32s, 0},
		6: {"flags", "flags", fixed32, 0},
	},
	status: {
		2: {"message", "message", text, 0},
		3: {"code", "code", enum, 0},
	},
	logsResponse:    {1: {"partialSuccess", "partial_success", message, logsPartial}},
	metricsResponse: {1: {"partialSuccess", "partial_success", message, metricsPartial}},
	traceResponse:   {1: {"partialSuccess", "partial_success", message, tracePartial}},
	logsPartial:     partial("rejectedLogRecords", "rejected_log_records"),
	metricsPartial:  partial("rejectedDataPoints", "rejected_data_points"),
	tracePartial:    partial("rejectedSpans", "rejected_spans"),
	rpcStatus: { // google/rpc/status.proto
		1: {"code", "code", enum, 0},
		2: {"message", "message", text, 0},
		3: {"details", "details", messages, rpcDetail},
	},
	rpcDetail: { // google/protobuf/any.proto
		1: {"type_url", "type_url", text, 0},
		2: {"value", "value", blob, 0},
	},
	retryInfo: {1: {"retryDelay", "retry_delay", message, duration}}, // google/rpc/error_details.proto
	duration: { // google/protobuf/duration.proto
		1: {"seconds", "seconds", int64s, 0},
		2: {"nanos", "nanos", enum, 0},
	},
}

func group(name, proto string, of kind) fields {
	return fields{
		1: {"resource", "resource", message, resource},
		2: {name, proto, messages, of},
		3: {"schemaUrl", "schema_url", text, 0},
	}
}

func scoped(name, proto string, of kind) fields {
	return fields{
		1: {"scope", "scope", message, scope},
		2: {name, proto, messages, of},
		3: {"schemaUrl", "schema_url", text, 0},
	}
}

func partial(name, proto string) fields {
	return fields{
		1: {name, proto, int64s, 0},
		2: {"errorMessage", "error_message", text, 0},
	}
}
