// Package api is the hub's HTTP API: the types that go over it, its operations, and a Go client. The OpenAPI document is
// generated from them. Everything is JSON under Prefix; times are RFC 3339 with nanoseconds, in UTC.
//
// It knows nothing of how a hub answers. Values are plain data; the client's methods may be called concurrently.
package api

import (
	"encoding/json"
	"time"

	"github.com/creelhq/creel/report"
)

// Prefix is the path that all operations begin with.
const Prefix = "/api/creel/v1"

// Connection is whether an agent is there.
type Connection string

// The values of Connection.
const (
	Connected    Connection = "connected"
	Lost         Connection = "lost"         // it has missed three heartbeats, or its connection broke, without a word
	Disconnected Connection = "disconnected" // it said goodbye
)

// Agent is one row of the fleet.
type Agent struct {
	ID          string            `json:"id" doc:"The agent's id, a UUID; it survives restarts."`
	Name        string            `json:"name" doc:"The host's name, or what a foreign agent calls itself."`
	Type        string            `json:"type" doc:"creel, or the service.name of a foreign OpAMP agent."`
	Version     string            `json:"version"`
	Labels      map[string]string `json:"labels" doc:"What agent.labels says, creel.role and attributes of the machine."`
	Connection  Connection        `json:"connection" doc:"connected, lost or disconnected."`
	Health      string            `json:"health" doc:"healthy, degraded or unknown."`
	State       string            `json:"state" doc:"Where it is in its life: initializing, running, paused, stopping, stopped or unknown."`
	Cause       string            `json:"cause,omitempty" doc:"Why it is not connected or not healthy: the first cause."`
	Config      string            `json:"config" doc:"The configuration that it runs: the first 12 digits of the SHA-256 of its configuration."`
	In          float64           `json:"in" doc:"Records accepted per second."`
	Out         float64           `json:"out" doc:"Records delivered per second."`
	Totals      report.Totals     `json:"totals" doc:"Records since the agent was started."`
	QueueBytes  int64             `json:"queue_bytes" doc:"Bytes in the queues of its exporters."`
	QueueLimit  int64             `json:"queue_limit" doc:"Bytes that these queues can hold."`
	Disk        *Disk             `json:"disk,omitempty" doc:"Its disk queues together; none if no exporter has one."`
	Hub         string            `json:"hub" doc:"The hub that it is or was connected to."`
	Intake      *Intake           `json:"intake,omitempty" doc:"What this hub let in of it; none if it has never sent anything here."`
	Unexplained int64             `json:"unexplained,omitempty" doc:"Records that it calls delivered to this hub, and that the hub never took."`
	FirstSeen   time.Time         `json:"first_seen"`
	LastSeen    time.Time         `json:"last_seen" doc:"When the hub heard from it last, by the hub's clock."`
}

// Disk is how the disk queues of an agent are: their sums, and the one that is full, or full first.
type Disk struct {
	Bytes     int64   `json:"bytes" doc:"On disk, of all of them."`
	Limit     int64   `json:"limit_bytes" doc:"Bytes that they may hold."`
	Waiting   int64   `json:"waiting" doc:"Records that are to be delivered later."`
	Exporter  string  `json:"exporter,omitempty" doc:"Whose disk queue is full, or full first; none if none fills."`
	Full      bool    `json:"full" doc:"One has no room."`
	FullIn    float64 `json:"full_in,omitempty" doc:"Seconds until the first has no room; none if one is full already, or none fills."`
	Replaying bool    `json:"replaying" doc:"What waits in one is being delivered."`
	EmptyIn   float64 `json:"empty_in,omitempty" doc:"Seconds until all is delivered; none if something waits that does not become less."`
}

// Status is the row's one word, from worst to best: lost, degraded, disconnected, unknown, healthy.
func (a *Agent) Status() string {
	if a.Connection != Connected {
		return string(a.Connection)
	}
	return a.Health
}

// AgentList is a page of the fleet.
type AgentList struct {
	Agents []Agent        `json:"agents" doc:"Worst first: by status, then those with a full disk queue, with one that fills, the rest; then by name and id."`
	Next   string         `json:"next,omitempty" doc:"The cursor of the next page; none on the last."`
	Total  int            `json:"total" doc:"Agents that match, on all pages."`
	Counts map[string]int `json:"counts" doc:"Agents of the whole fleet by status: lost, degraded, disconnected, unknown, healthy."`
	Joint
}

// AgentQuery says which agents are meant.
type AgentQuery struct {
	Search string `query:"search" doc:"Words that the name, id, version, cause or a label must contain."`
	Status string `query:"status" doc:"Only this status: lost, degraded, disconnected, unknown or healthy."`
	Label  string `query:"label" doc:"Only agents with all these labels: key=value, separated by commas."`
	Config string `query:"config" doc:"Only agents that run this configuration."`
	Limit  int    `query:"limit" doc:"Rows on a page, 1 to 1000; 100 if not given."`
	Cursor string `query:"cursor" doc:"Next of the page before."`

	Hub []string `query:"hub" doc:"Only agents that are or were last connected to the hub with this id; with ! before it, only others. All must hold, and counts are of these agents alone."`
}

// AgentDetail is all that the hub knows of one agent.
type AgentDetail struct {
	Agent
	Started    time.Time          `json:"started,omitzero"`
	Heartbeat  float64            `json:"heartbeat_seconds" doc:"The interval that the hub has asked for."`
	Components []report.Component `json:"components"`
	Routes     []Flow             `json:"routes" doc:"Its pipelines, with rates."`
	Ledger     report.Ledger      `json:"ledger"`
	Hops       []Hop              `json:"hops" doc:"What of its records has arrived at this hub, for each exporter that has sent here in this run."`
	Intended   Intended           `json:"intended" doc:"What the hub wants of it, and what it says to that."`
	Effective  string             `json:"effective" doc:"The configuration that runs, secrets redacted: JSON or YAML, as the agent reports it."`
	Timeline   []Event            `json:"timeline" doc:"What happened to it, newest first."`
	Joint
}

// Flow is a pipeline with the rates on its edges, in records per second.
type Flow struct {
	report.Route
	In        float64            `json:"in" doc:"Accepted by the pipeline."`
	FromRates map[string]float64 `json:"from_rates" doc:"Sent by each collector, to all its pipelines."`
	ToRates   map[string]float64 `json:"to_rates" doc:"Delivered by each exporter for this pipeline."`
}

// Event is something that happened to an agent.
type Event struct {
	Time  time.Time `json:"time"`
	Kind  string    `json:"kind" doc:"connected, disconnected, lost, degraded, healthy, started, configured, refused, rolled_back, paused, resumed, ordered or cloned."`
	Cause string    `json:"cause,omitempty"`
}

// Configuration is what one or more agents run.
type Configuration struct {
	ID     string   `json:"id" doc:"The first 12 digits of the SHA-256 of its text."`
	Agents []string `json:"agents" doc:"The agents that run it."`
	Text   string   `json:"text,omitempty" doc:"Only when one configuration is asked for. Secrets are redacted."`
	Joint
}

// ConfigurationList is all that runs.
type ConfigurationList struct {
	Configurations []Configuration `json:"configurations"`
	Joint
}

// Hub is what a hub says of itself.
type Hub struct {
	ID        string            `json:"id"`
	Version   string            `json:"version"`
	Started   time.Time         `json:"started"`
	Agents    map[string]int    `json:"agents" doc:"The fleet by status."`
	Listen    []report.Endpoint `json:"listen"`
	QuickLook QuickLook         `json:"quick_look"`
	State     string            `json:"state,omitempty" doc:"What is wrong with the control state: that it is full, so that nothing can be changed. None if nothing is."`
	Hubs      []ClusterHub      `json:"hubs,omitempty" doc:"All hubs of the control state, this one first; none if it is alone."`
	Joint
}

// QuickLook is how the hub's store is.
type QuickLook struct {
	Bytes   int64            `json:"bytes" doc:"On disk."`
	Series  int64            `json:"series" doc:"Metric series in memory."`
	Oldest  time.Time        `json:"oldest,omitzero" doc:"Of logs and spans."`
	Stopped string           `json:"stopped,omitempty" doc:"Why nothing is being stored."`
	Dropped map[string]int64 `json:"dropped,omitempty" doc:"Records that were not stored, by reason."`
	Damaged []string         `json:"damaged,omitempty" doc:"Files that were set aside because they could not be read."`
}

// Span of time, and how much, of a search.
type Window struct {
	Start time.Time `query:"start" doc:"Not before: RFC 3339, Unix seconds, or a duration before now such as 15m; an hour ago if not given."`
	End   time.Time `query:"end" doc:"Before, in the same forms; now if not given."`
}

// LogQuery says which log records are meant.
type LogQuery struct {
	Window
	Query    string   `query:"query" doc:"Full text of the body: words, all of which must occur, and \"phrases\"; -word must not occur."`
	Filters  []string `query:"filter" doc:"Conditions, all of which must hold: key=value, key!=value; severity>=WARN. A key is that of an attribute of the record or its resource, or service, severity, trace_id, event."`
	Order    string   `query:"order" doc:"desc, newest first (if not given), or asc."`
	Limit    int      `query:"limit" doc:"1 to 5000; 100 if not given."`
	Cursor   string   `query:"cursor" doc:"Next of the answer before."`
	Interval float64  `query:"interval" doc:"Of the histogram: seconds per bucket; chosen for about 60 buckets if not given."`
}

// Log is one log record.
type Log struct {
	ID             string          `json:"id" doc:"Unique, and a cursor."`
	Time           time.Time       `json:"time" doc:"When it happened; when it was observed if that is unknown."`
	Severity       string          `json:"severity,omitempty" doc:"TRACE to FATAL with a step, such as INFO or WARN2."`
	SeverityNumber int             `json:"severity_number,omitempty"`
	Service        string          `json:"service,omitempty"`
	Body           json.RawMessage `json:"body" doc:"A string as a rule; any JSON."`
	Event          string          `json:"event,omitempty"`
	TraceID        string          `json:"trace_id,omitempty"`
	SpanID         string          `json:"span_id,omitempty"`
	Attributes     json.RawMessage `json:"attributes" doc:"An object."`
	Resource       json.RawMessage `json:"resource" doc:"An object."`
	Scope          string          `json:"scope,omitempty"`
}

// LogResult is the answer to a LogQuery.
type LogResult struct {
	Logs    []Log  `json:"logs"`
	Next    string `json:"next,omitempty" doc:"Cursor of what follows, if more matches."`
	Partial string `json:"partial,omitempty" doc:"Why the answer may lack records: a damaged file, the time ran out."`
	Joint
}

// Histogram counts the log records that match a LogQuery, over time and by severity.
type Histogram struct {
	Interval float64  `json:"interval" doc:"Seconds per bucket."`
	Buckets  []Bucket `json:"buckets" doc:"From oldest to newest, empty ones included."`
	Total    int64    `json:"total"`
	Partial  string   `json:"partial,omitempty"`
	Joint
}

// Bucket is one bar of a Histogram.
type Bucket struct {
	Time   time.Time        `json:"time" doc:"Its beginning."`
	Counts map[string]int64 `json:"counts" doc:"By severity: TRACE, DEBUG, INFO, WARN, ERROR, FATAL, or unknown."`
}

// TraceQuery says which traces are meant: those with a span that matches.
type TraceQuery struct {
	Window
	Service     string   `query:"service" doc:"service.name of a span."`
	Name        string   `query:"name" doc:"Name of a span."`
	MinDuration float64  `query:"min_duration" doc:"Milliseconds that a span takes at least."`
	MaxDuration float64  `query:"max_duration" doc:"Milliseconds that a span takes at most; 0 is no limit."`
	Error       bool     `query:"error" doc:"Only with a span whose status is an error."`
	Filters     []string `query:"filter" doc:"As for logs: key=value, key!=value on a span's attributes or its resource's."`
	Limit       int      `query:"limit" doc:"1 to 500; 20 if not given."`
	IDs         []string `query:"id" doc:"These traces, at most 500, and no others: what else is asked for does not count."`
}

// TraceSummary is one row of a trace search.
type TraceSummary struct {
	TraceID  string         `json:"trace_id"`
	Service  string         `json:"service" doc:"Of the root, or of the earliest span when no root is here."`
	Name     string         `json:"name" doc:"Likewise."`
	Start    time.Time      `json:"start"`
	Duration float64        `json:"duration_ms" doc:"From the first start to the last end."`
	Spans    int            `json:"spans"`
	Errors   int            `json:"errors"`
	Services map[string]int `json:"services" doc:"Spans by service."`
	Rootless bool           `json:"rootless,omitempty" doc:"No root is here."`
}

// TraceList is the answer to a TraceQuery, newest first.
type TraceList struct {
	Traces  []TraceSummary `json:"traces"`
	Partial string         `json:"partial,omitempty"`
	Joint
}

// Trace is all spans of a trace, by start.
type Trace struct {
	TraceID string `json:"trace_id"`
	Spans   []Span `json:"spans"`
	Partial string `json:"partial,omitempty"`
	Joint
}

// Span is one span.
type Span struct {
	SpanID     string          `json:"span_id"`
	ParentID   string          `json:"parent_id,omitempty"`
	Service    string          `json:"service"`
	Name       string          `json:"name"`
	Kind       string          `json:"kind" doc:"internal, server, client, producer, consumer or unspecified."`
	Start      time.Time       `json:"start"`
	Duration   float64         `json:"duration_ms"`
	Status     string          `json:"status" doc:"unset, ok or error."`
	Message    string          `json:"message,omitempty" doc:"Of the status."`
	Attributes json.RawMessage `json:"attributes" doc:"An object."`
	Resource   json.RawMessage `json:"resource" doc:"An object."`
	Scope      string          `json:"scope,omitempty"`
	Events     []SpanEvent     `json:"events,omitempty"`
	Links      []SpanLink      `json:"links,omitempty"`
}

// SpanEvent is something that happened during a span.
type SpanEvent struct {
	Time       time.Time       `json:"time"`
	Name       string          `json:"name"`
	Attributes json.RawMessage `json:"attributes"`
}

// SpanLink points to another span.
type SpanLink struct {
	TraceID    string          `json:"trace_id"`
	SpanID     string          `json:"span_id"`
	Attributes json.RawMessage `json:"attributes"`
}

// ServiceList is the services that logs or spans came from, with the names of their spans.
type ServiceList struct {
	Services []Service `json:"services"`
	Joint
}

// Service is one of them.
type Service struct {
	Name       string   `json:"name"`
	Operations []string `json:"operations" doc:"Names of spans, at most 200."`
}

// Error is what every answer that is no success has as its body.
type Error struct {
	Code    string `json:"code" doc:"A word for programs: bad_request, unauthorized, forbidden, not_found, too_much, timeout, conflict, unavailable or internal."`
	Message string `json:"message" doc:"What is wrong, why, and what to do."`

	Problems []Problem `json:"problems,omitempty" doc:"Of a text that was refused."`
}

func (e *Error) Error() string { return e.Message }
