package peers

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/creelhq/creel/api"
)

// This file puts logs and spans together. Logs are in the order of their ids, which say when a hub has stored them, then of the
// hubs'. With the hub's an id is unique: <id>@<hub>.

const (
	maxSpans      = 20_000 // of one trace in an answer
	maxOperations = 200    // of one service
)

// CursorOf returns the id of a log in a joint answer.
func CursorOf(id, hub string) string { return id + "@" + hub }

// LogsOf returns what q asks of one hub: the cursor of a joint answer stands for another at each. The error is an *api.Error.
func LogsOf(q api.LogQuery, hub string) (api.LogQuery, error) {
	text, last, joint := strings.Cut(q.Cursor, "@")
	if !joint {
		return q, nil
	}
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return q, &api.Error{Code: "bad_request", Message: "cursor must be what the answer before gave as next"}
	}
	switch {
	case hub <= last: // what it has with this id was in the answer before
	case q.Order == "asc":
		id--
	default:
		id++
	}
	q.Cursor = strconv.FormatInt(id, 10)
	return q, nil
}

// Pinned returns w with a beginning and an end, so that hubs whose clocks differ mean the same: the last hour.
func Pinned(w api.Window, now time.Time) api.Window {
	if w.End.IsZero() {
		w.End = now.Add(time.Second) // with what has just come
	}
	if w.Start.IsZero() {
		w.Start = w.End.Add(-time.Hour)
	}
	return w
}

// lacks adds why the answer of a hub is not whole.
func lacks(partial *string, hub, why string) {
	if why == "" {
		return
	}
	if *partial != "" {
		*partial += "; "
	}
	*partial += "hub " + hub + ": " + why
}

// JoinLogs puts the first records of each hub together, whose answers are to LogsOf.
func JoinLogs(q api.LogQuery, all []Answer[api.LogResult]) api.LogResult {
	type record struct {
		api.Log
		id  int64
		hub string
	}
	var list []record
	joint := api.LogResult{Logs: []api.Log{}}
	more := false
	for _, a := range all {
		lacks(&joint.Partial, a.Hub, a.Value.Partial)
		more = more || a.Value.Next != ""
		for _, l := range a.Value.Logs {
			id, err := strconv.ParseInt(l.ID, 10, 64)
			if err != nil {
				lacks(&joint.Partial, a.Hub, fmt.Sprintf("the id of a record is %q: are the hubs of different versions?", l.ID))
				break
			}
			l.ID = CursorOf(l.ID, a.Hub)
			list = append(list, record{l, id, a.Hub})
		}
	}
	slices.SortFunc(list, func(a, b record) int {
		if q.Order != "asc" {
			return cmp.Or(cmp.Compare(b.id, a.id), cmp.Compare(a.hub, b.hub))
		}
		return cmp.Or(cmp.Compare(a.id, b.id), cmp.Compare(a.hub, b.hub))
	})
	limit := cmp.Or(q.Limit, 100)
	for _, r := range list[:min(len(list), limit)] {
		joint.Logs = append(joint.Logs, r.Log)
	}
	if n := len(joint.Logs); n > 0 && (more || len(list) > limit) {
		joint.Next = joint.Logs[n-1].ID
	}
	return joint
}

// JoinHistograms sums the buckets, which are of the same times where the window was Pinned.
func JoinHistograms(_ api.LogQuery, all []Answer[api.Histogram]) api.Histogram {
	joint := api.Histogram{Interval: all[0].Value.Interval, Buckets: all[0].Value.Buckets}
	at := make(map[int64]api.Bucket, len(joint.Buckets))
	for _, b := range joint.Buckets {
		at[b.Time.UnixNano()] = b
	}
	for i, a := range all {
		lacks(&joint.Partial, a.Hub, a.Value.Partial)
		joint.Total += a.Value.Total
		if i == 0 {
			continue
		}
		for _, b := range a.Value.Buckets {
			into, ok := at[b.Time.UnixNano()]
			if !ok && len(b.Counts) > 0 {
				lacks(&joint.Partial, a.Hub, "it counts by other times: are the hubs of different versions?")
				break
			}
			for severity, n := range b.Counts {
				into.Counts[severity] += n
			}
		}
	}
	return joint
}

// NewestTraces returns the ids of the newest traces that hubs have found, so many as q asks for.
func NewestTraces(q api.TraceQuery, all []Answer[api.TraceList]) []string {
	first := make(map[string]time.Time) // when a trace began, as far as is known
	for _, a := range all {
		for _, t := range a.Value.Traces {
			if was, ok := first[t.TraceID]; !ok || t.Start.Before(was) {
				first[t.TraceID] = t.Start
			}
		}
	}
	ids := slices.SortedFunc(maps.Keys(first), func(a, b string) int { return cmp.Or(first[b].Compare(first[a]), cmp.Compare(a, b)) })
	return ids[:min(len(ids), cmp.Or(q.Limit, 20))]
}

// JoinTraces puts the parts of traces together.
func JoinTraces(_ api.TraceQuery, all []Answer[api.TraceList]) api.TraceList {
	joint := api.TraceList{Traces: []api.TraceSummary{}}
	at := make(map[string]int)
	for _, a := range all {
		lacks(&joint.Partial, a.Hub, a.Value.Partial)
		for _, t := range a.Value.Traces {
			i, ok := at[t.TraceID]
			if !ok {
				at[t.TraceID] = len(joint.Traces)
				joint.Traces = append(joint.Traces, t)
				continue
			}
			joinTrace(&joint.Traces[i], t)
		}
	}
	slices.SortStableFunc(joint.Traces, func(a, b api.TraceSummary) int { return b.Start.Compare(a.Start) })
	return joint
}

// joinTrace adds another part of a trace. What it is called after is its root, or its earliest span where there is no root.
func joinTrace(into *api.TraceSummary, t api.TraceSummary) {
	if into.Rootless && (!t.Rootless || t.Start.Before(into.Start)) {
		into.Service, into.Name, into.Rootless = t.Service, t.Name, t.Rootless
	}
	end := func(t *api.TraceSummary) time.Time { return t.Start.Add(time.Duration(t.Duration * 1e6)) }
	last := end(into)
	if e := end(&t); e.After(last) {
		last = e
	}
	if t.Start.Before(into.Start) {
		into.Start = t.Start
	}
	into.Duration = float64(last.Sub(into.Start)) / 1e6
	into.Spans, into.Errors = into.Spans+t.Spans, into.Errors+t.Errors
	services := maps.Clone(into.Services)
	for s, n := range t.Services {
		services[s] += n
	}
	into.Services = services
}

// JoinTrace returns the spans of all hubs, by start. A span that was sent to two, for an answer was lost, is there once.
func JoinTrace(all []Answer[api.Trace]) api.Trace {
	joint := api.Trace{TraceID: all[0].Value.TraceID, Spans: []api.Span{}}
	type key struct {
		id, name string
		start    int64
	}
	seen := make(map[key]string) // which hub has it
	for _, a := range all {
		lacks(&joint.Partial, a.Hub, a.Value.Partial)
		for _, s := range a.Value.Spans {
			k := key{s.SpanID, s.Name, s.Start.UnixNano()}
			if hub, ok := seen[k]; ok && hub != a.Hub {
				continue
			}
			seen[k] = a.Hub
			joint.Spans = append(joint.Spans, s)
		}
	}
	slices.SortStableFunc(joint.Spans, func(a, b api.Span) int { return a.Start.Compare(b.Start) })
	if len(joint.Spans) > maxSpans {
		joint.Spans = joint.Spans[:maxSpans]
		lacks(&joint.Partial, all[0].Hub, fmt.Sprintf("only the first %d spans are shown", maxSpans))
	}
	return joint
}

// JoinServices returns the services of all hubs.
func JoinServices(_ api.Window, all []Answer[api.ServiceList]) api.ServiceList {
	names := make(map[string][]string)
	for _, a := range all {
		for _, s := range a.Value.Services {
			names[s.Name] = append(names[s.Name], s.Operations...)
		}
	}
	joint := api.ServiceList{Services: []api.Service{}}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		operations := append([]string{}, names[name]...)
		slices.Sort(operations)
		operations = slices.Compact(operations)
		joint.Services = append(joint.Services, api.Service{Name: name, Operations: operations[:min(len(operations), maxOperations)]})
	}
	return joint
}
