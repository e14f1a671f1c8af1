package rows

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/api"
)

const (
	maxSpans      = 20_000 // of one trace in an answer
	maxOperations = 200
	maxIDs        = 500 // of traces that are asked for by id
)

func rawAttrs(as creel.Attrs) json.RawMessage { return as.Append(nil) }

func eventsJSON(events []creel.SpanEvent) string {
	if len(events) == 0 {
		return ""
	}
	list := make([]api.SpanEvent, len(events))
	for i, e := range events {
		list[i] = api.SpanEvent{Time: time.Unix(0, e.Time).UTC(), Name: e.Name, Attributes: rawAttrs(e.Attrs)}
	}
	return mustJSON(list)
}

func linksJSON(links []creel.SpanLink) string {
	if len(links) == 0 {
		return ""
	}
	list := make([]api.SpanLink, len(links))
	for i, l := range links {
		list[i] = api.SpanLink{TraceID: l.TraceID.String(), SpanID: l.SpanID.String(), Attributes: rawAttrs(l.Attrs)}
	}
	return mustJSON(list)
}

func mustJSON(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return string(text)
}

var (
	spanKinds = []string{"unspecified", "internal", "server", "client", "producer", "consumer"}
	statuses  = []string{"unset", "ok", "error"}
)

func nameOf(list []string, n int) string {
	if n >= 0 && n < len(list) {
		return list[n]
	}
	return strconv.Itoa(n)
}

// Trace returns all spans of a trace, by start. An *api.Error says that there is none.
func (s *Store) Trace(ctx context.Context, id string) (api.Trace, error) {
	id = strings.ToLower(id)
	if len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" {
		return api.Trace{}, &api.Error{Code: "bad_request", Message: fmt.Sprintf("a trace's id is 32 hexadecimal digits, got %q", id)}
	}
	t := api.Trace{TraceID: id, Spans: []api.Span{}}
	files, partial := s.within(ctx, spanKind, 0, math.MaxInt64)
	t.Partial = partial
	for _, f := range files {
		spans, err := f.trace(ctx, id, maxSpans-len(t.Spans))
		if ctx.Err() != nil {
			return api.Trace{}, ctx.Err()
		}
		if err != nil {
			t.Partial = cmp.Or(t.Partial, explain(f.file, err))
		}
		t.Spans = append(t.Spans, spans...)
	}
	if len(t.Spans) == 0 {
		return api.Trace{}, &api.Error{Code: "not_found", Message: fmt.Sprintf("no span of a trace %s is stored here; it may not have arrived yet, or be too old", id)}
	}
	if len(t.Spans) >= maxSpans {
		t.Partial = fmt.Sprintf("only the first %d spans are shown", maxSpans)
	}
	slices.SortStableFunc(t.Spans, func(a, b api.Span) int { return a.Start.Compare(b.Start) })
	return t, nil
}

// trace returns the spans of a trace that a file has, at most so many.
func (x *file) trace(ctx context.Context, id string, most int) (spans []api.Span, err error) {
	err = x.read(ctx, func(db *sql.DB) error {
		rows, err := db.QueryContext(ctx, `SELECT span, parent, name, kind, start, duration, status, message, scope, attrs, events, links, resource.service, resource.json
			FROM span JOIN resource ON resource.id = span.resource WHERE trace = ? ORDER BY span.id LIMIT ?`, id, most)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var sp api.Span
			var start, duration int64
			var kind, status int
			var attrs, events, links, res string
			err := rows.Scan(&sp.SpanID, &sp.ParentID, &sp.Name, &kind, &start, &duration, &status, &sp.Message, &sp.Scope, &attrs, &events, &links, &sp.Service, &res)
			if err != nil {
				return err
			}
			sp.Kind, sp.Status, sp.Start, sp.Duration = nameOf(spanKinds, kind), nameOf(statuses, status), time.Unix(0, start).UTC(), float64(duration)/1e6
			sp.Attributes, sp.Resource = json.RawMessage(attrs), json.RawMessage(res)
			for text, into := range map[string]any{events: &sp.Events, links: &sp.Links} {
				if text != "" {
					if err := json.Unmarshal([]byte(text), into); err != nil {
						return err
					}
				}
			}
			spans = append(spans, sp)
		}
		return rows.Err()
	})
	return spans, err
}

// SearchTraces returns the newest traces with a span that matches.
func (s *Store) SearchTraces(ctx context.Context, q api.TraceQuery) (api.TraceList, error) {
	limit := cmp.Or(q.Limit, 20)
	if limit < 1 || limit > 500 {
		return api.TraceList{}, &api.Error{Code: "bad_request", Message: fmt.Sprintf("limit must be 1 to 500, got %d", q.Limit)}
	}
	if len(q.IDs) > maxIDs {
		return api.TraceList{}, &api.Error{Code: "bad_request", Message: fmt.Sprintf("id may be given %d times, got %d", maxIDs, len(q.IDs))}
	}
	start, end, err := s.window(q.Window)
	if err != nil {
		return api.TraceList{}, err
	}
	x := &search{from: idAt(start), to: idAt(end), deadline: time.Now().Add(patience)}
	if x.conditions, err = parseFilters(q.Filters); err != nil {
		return api.TraceList{}, err
	}
	limited, cancel := x.inTime(ctx)
	defer cancel()
	files, partial := s.within(limited, spanKind, x.from, x.to)
	x.sort(files)
	list := api.TraceList{Traces: []api.TraceSummary{}, Partial: partial}
	var found []string
	if len(q.IDs) > 0 {
		found, files = q.IDs, nil
	}
	for _, f := range files {
		err := x.traces(limited, f.file, q, func(trace string) bool {
			if !slices.Contains(found, trace) {
				found = append(found, trace)
			}
			return len(found) < limit
		})
		if err != nil {
			list.Partial = cmp.Or(list.Partial, explain(f.file, err))
		}
		if len(found) >= limit || limited.Err() != nil {
			break
		}
	}
	if ctx.Err() != nil {
		return api.TraceList{}, ctx.Err()
	}
	for _, id := range found {
		t, err := s.Trace(ctx, id)
		if err != nil {
			continue // its file has just been deleted
		}
		list.Traces = append(list.Traces, summarize(&t))
	}
	slices.SortStableFunc(list.Traces, func(a, b api.TraceSummary) int { return b.Start.Compare(a.Start) })
	return list, nil
}

// traces calls f with the trace of each span that matches in one file, newest first, until f returns false.
func (x *search) traces(ctx context.Context, file *file, q api.TraceQuery, f func(trace string) bool) error {
	return file.read(ctx, func(db *sql.DB) error {
		all, err := resources(ctx, db)
		if err != nil {
			return err
		}
		query, args := "SELECT trace, span, name, status, resource, attrs FROM span WHERE id >= ? AND id < ?", []any{x.from, x.to}
		add := func(clause string, arg any) {
			query += " AND " + clause
			args = append(args, arg)
		}
		if q.Name != "" {
			add("name = ?", q.Name)
		}
		if q.MinDuration > 0 {
			add("duration >= ?", int64(q.MinDuration*1e6))
		}
		if q.MaxDuration > 0 {
			add("duration <= ?", int64(q.MaxDuration*1e6))
		}
		if q.Error {
			add("status = ?", int(creel.StatusError))
		}
		conditions := x.conditions
		if q.Service != "" {
			conditions = append(slices.Clone(conditions), condition{key: "service", op: "=", value: q.Service})
		}
		for i := range conditions {
			if clause, more := conditions[i].sql("span", all); clause != "" {
				query += " AND " + clause
				args = append(args, more...)
			}
		}
		rows, err := db.QueryContext(ctx, query+" ORDER BY id DESC", args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for n := 0; rows.Next(); n++ {
			var trace, span, name string
			var status int
			var res int64
			var attrs attributes
			if err := rows.Scan(&trace, &span, &name, &status, &res, &attrs.text); err != nil {
				return err
			}
			if n%256 == 255 && time.Now().After(x.deadline) {
				return errSlow
			}
			if all[res] != nil && x.spanMatches(conditions, trace, span, name, status, &attrs, all[res]) && !f(trace) {
				return nil
			}
		}
		return rows.Err()
	})
}

func (x *search) spanMatches(conditions []condition, trace, span, name string, status int, attrs *attributes, res *resource) bool {
	for i := range conditions {
		c := &conditions[i]
		have, is := "", true
		switch c.key {
		case "service":
			have = res.service
		case "trace_id":
			have = trace
		case "span_id":
			have = span
		case "name":
			have = name
		case "status":
			have = nameOf(statuses, status)
		default:
			if have, is = attrs.get(c.key); !is {
				have, is = res.get(c.key)
			}
		}
		if !c.holds(have, is) {
			return false
		}
	}
	return true
}

// summarize makes a row of a trace.
func summarize(t *api.Trace) api.TraceSummary {
	sum := api.TraceSummary{TraceID: t.TraceID, Spans: len(t.Spans), Services: make(map[string]int), Start: t.Spans[0].Start}
	end := t.Spans[0].Start
	root := &t.Spans[0]
	for i := range t.Spans {
		sp := &t.Spans[i]
		if sp.ParentID == "" && root.ParentID != "" {
			root = sp
		}
		sum.Services[sp.Service]++
		if sp.Status == "error" {
			sum.Errors++
		}
		if e := sp.Start.Add(time.Duration(sp.Duration * 1e6)); e.After(end) {
			end = e
		}
	}
	sum.Rootless = root.ParentID != ""
	sum.Service, sum.Name, sum.Duration = root.Service, root.Name, float64(end.Sub(sum.Start))/1e6
	return sum
}

// Services returns the services whose logs or spans are in files of the window, with the names of their spans.
func (s *Store) Services(ctx context.Context, w api.Window) (api.ServiceList, error) {
	start, end, err := s.window(w)
	if err != nil {
		return api.ServiceList{}, err
	}
	names := make(map[string][]string)
	seen := make(map[*file]bool)
	for _, k := range []kind{logKind, spanKind} {
		files, _ := s.within(ctx, k, idAt(start), idAt(end))
		for _, f := range files {
			if seen[f.file] {
				continue
			}
			seen[f.file] = true
			if err := f.services(ctx, names); err != nil && ctx.Err() != nil {
				return api.ServiceList{}, ctx.Err()
			}
		}
	}
	list := api.ServiceList{Services: []api.Service{}}
	for name, operations := range names {
		slices.Sort(operations)
		operations = slices.Compact(operations)
		list.Services = append(list.Services, api.Service{Name: name, Operations: operations[:min(len(operations), maxOperations)]})
	}
	slices.SortFunc(list.Services, func(a, b api.Service) int { return cmp.Compare(a.Name, b.Name) })
	return list, nil
}

func (x *file) services(ctx context.Context, names map[string][]string) error {
	return x.read(ctx, func(db *sql.DB) error {
		rows, err := db.QueryContext(ctx, "SELECT DISTINCT service, '' FROM resource WHERE service <> '' UNION ALL SELECT service, name FROM operation")
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var service, name string
			if err := rows.Scan(&service, &name); err != nil {
				return err
			}
			list := names[service]
			if list == nil {
				list = []string{}
			}
			if name != "" {
				list = append(list, name)
			}
			names[service] = list
		}
		return rows.Err()
	})
}
