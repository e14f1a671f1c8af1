package rows

import (
	"context"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/api"
)

// backlog is how many records wait for a slow reader of a tail; then the oldest go.
const backlog = 1000

// A tail waits for records that match.
type tail struct {
	search *search
	found  chan api.Log
}

// TailLogs calls f with the records that match and are stored from now on, until ctx is done or f fails. A slow f misses
// records; it holds nobody up.
func (s *Store) TailLogs(ctx context.Context, q api.LogQuery, f func(api.Log) error) error {
	x, err := s.understand(api.LogQuery{Query: q.Query, Filters: q.Filters})
	if err != nil {
		return err
	}
	t := &tail{x, make(chan api.Log, backlog)}
	s.mu.Lock()
	s.tails[t] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.tails, t)
		s.mu.Unlock()
	}()
	for {
		select {
		case l := <-t.found:
			if err := f(l); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// publish tells those who wait of records that were stored.
func (s *Store) publish(logs []*creel.Log, ids []int64, now time.Time) {
	s.mu.Lock()
	tails := make([]*tail, 0, len(s.tails))
	for t := range s.tails {
		tails = append(tails, t)
	}
	s.mu.Unlock()
	if len(tails) == 0 {
		return
	}
	known := make(map[*creel.Origin]*resource)
	var room []byte
	for i, l := range logs {
		res := known[l.Origin]
		if res == nil {
			res = &resource{service: serviceOf(l.Origin)}
			if res.text = "{}"; l.Origin != nil {
				res.text = string(l.Origin.Resource.Attrs.Append(nil))
			}
			known[l.Origin] = res
		}
		r := &row{
			id: ids[i], time: logTime(l, now).UnixNano(), severity: int(l.Severity), text: l.SeverityText, scope: scopeOf(l.Origin), event: l.Event,
			trace: l.TraceID.String(), span: l.SpanID.String(), body: l.Body.String(), isJSON: l.Body.Kind() != creel.ValueString,
			attrs: attributes{text: string(l.Attrs.Append(nil))},
		}
		for _, t := range tails {
			if t.search.matches(r, res, &room) {
				t.offer(r.log(res))
			}
		}
	}
}

// offer hands a record over, in the place of the oldest if there is no room. Publishing is done by one goroutine at a
// time.
func (t *tail) offer(l api.Log) {
	for {
		select {
		case t.found <- l:
			return
		default:
		}
		select {
		case <-t.found:
		default:
		}
	}
}
