package rows

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/api"
)

// patience is for how long a search goes on; then it answers with what it has found.
const patience = 8 * time.Second

// A search is an api.LogQuery that was understood.
type search struct {
	from, to   int64 // ids: from inclusive, to exclusive
	words      words
	conditions []condition
	ascending  bool
	limit      int
	deadline   time.Time
}

func (s *Store) understand(q api.LogQuery) (*search, error) {
	x := &search{limit: q.Limit, ascending: q.Order == "asc"}
	if q.Order != "" && q.Order != "asc" && q.Order != "desc" {
		return nil, &api.Error{Code: "bad_request", Message: fmt.Sprintf("order must be asc or desc, got %q", q.Order)}
	}
	if x.limit == 0 {
		x.limit = 100
	}
	if x.limit < 1 || x.limit > 5000 {
		return nil, &api.Error{Code: "bad_request", Message: fmt.Sprintf("limit must be 1 to 5000, got %d", q.Limit)}
	}
	start, end, err := s.window(q.Window)
	if err != nil {
		return nil, err
	}
	x.from, x.to = idAt(start), idAt(end)
	if x.words, err = parseWords(q.Query); err != nil {
		return nil, err
	}
	if x.conditions, err = parseFilters(q.Filters); err != nil {
		return nil, err
	}
	if q.Cursor != "" {
		id, err := strconv.ParseInt(q.Cursor, 10, 64)
		if err != nil {
			return nil, &api.Error{Code: "bad_request", Message: "cursor must be what the answer before gave as next"}
		}
		if x.ascending {
			x.from = max(x.from, id+1)
		} else {
			x.to = min(x.to, id)
		}
	}
	x.deadline = time.Now().Add(patience)
	return x, nil
}

// window fills in what is missing: the last hour, until now.
func (s *Store) window(w api.Window) (start, end time.Time, err error) {
	if w.End.IsZero() {
		w.End = s.o.Now().Add(time.Second) // with what has just come
	}
	if w.Start.IsZero() {
		w.Start = w.End.Add(-time.Hour)
	}
	floor, ceiling := time.Unix(0, 0), time.UnixMilli(1<<(63-counterBits)-1) // what an id can say
	if w.Start.Before(floor) {
		w.Start = floor
	}
	if w.End.After(ceiling) {
		w.End = ceiling
	}
	if !w.Start.Before(w.End) {
		return w.Start, w.End, &api.Error{Code: "bad_request", Message: "start must be before end"}
	}
	return w.Start, w.End, nil
}

// plain reports whether every record in the window matches.
func (x *search) plain() bool { return x.words.empty() && len(x.conditions) == 0 }

// row is a log record as it lies in a block.
type row struct {
	id, time                  int64
	severity                  int
	text                      string
	resource                  int64
	scope, event, trace, span string
	body                      string
	isJSON                    bool
	attrs                     attributes
}

// resource is a row of the table of resources.
type resource struct {
	service string
	attributes
}

func resources(ctx context.Context, db *sql.DB) (map[int64]*resource, error) {
	rows, err := db.QueryContext(ctx, "SELECT id, service, json FROM resource")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := make(map[int64]*resource)
	for rows.Next() {
		var id int64
		r := &resource{}
		if err := rows.Scan(&id, &r.service, &r.text); err != nil {
			return nil, err
		}
		all[id] = r
	}
	return all, rows.Err()
}

// matches looks at the record itself. room is for words.holds.
func (x *search) matches(r *row, res *resource, room *[]byte) bool {
	for i := range x.conditions {
		c := &x.conditions[i]
		have, is := "", true
		switch c.key {
		case "severity":
			have = strconv.Itoa(r.severity)
		case "service":
			have = res.service
		case "trace_id":
			have = r.trace
		case "span_id":
			have = r.span
		case "event":
			have = r.event
		default:
			if have, is = r.attrs.get(c.key); !is {
				have, is = res.get(c.key)
			}
		}
		if !c.holds(have, is) {
			return false
		}
	}
	return x.words.holds(r.body, room)
}

// sql returns a clause that all records which match fulfil; "" if none is known.
func (c *condition) sql(table string, all map[int64]*resource) (string, []any) {
	switch {
	case c.key == "trace_id" && c.op == "=":
		return table + ".trace = ?", []any{c.value}
	case c.key == "service":
		return table + ".resource IN " + ids(all, func(r *resource) bool { return c.holds(r.service, true) }), nil
	case isColumn(c.key) || c.op != "=" || c.isNumber || c.value == "":
		return "", nil
	}
	// The attribute as it was written, in the record or in its resource.
	pair := creel.Attrs{{Key: c.key, Value: creel.String(c.value)}}.Append(nil)
	in := ids(all, func(r *resource) bool {
		have, is := r.get(c.key)
		return c.holds(have, is)
	})
	if c.value == "true" || c.value == "false" {
		return "", nil
	}
	return "(instr(" + table + ".attrs, ?) > 0 OR " + table + ".resource IN " + in + ")", []any{string(pair[1 : len(pair)-1])}
}

// ids lists the resources for which f holds.
func ids(all map[int64]*resource, f func(*resource) bool) string {
	var list []string
	for id, r := range all {
		if f(r) {
			list = append(list, strconv.FormatInt(id, 10))
		}
	}
	slices.Sort(list)
	return "(" + strings.Join(list, ",") + ")"
}

// A head tells of a block.
type head struct{ id, first, last int64 }

// wanted is what a block must have for a search, as far as filters know.
type wanted struct {
	tokens     [][]uint64 // of each, at least one
	severities uint32
}

const maxAlternatives = 100 // tokens of which one must be there: more are not worth looking for

// wants says what blocks to open in a file with these resources.
func (x *search) wants(all map[int64]*resource) wanted {
	w := wanted{severities: math.MaxUint32}
	for _, word := range x.words.all {
		w.tokens = append(w.tokens, []uint64{token(nil, 'w', word)})
	}
	for i := range x.conditions {
		c := &x.conditions[i]
		kind := map[string]byte{"trace_id": 't', "span_id": 's', "event": 'e'}[c.key]
		var any []uint64
		switch {
		case c.key == "severity":
			for n := range 25 {
				if !c.holds(strconv.Itoa(n), true) {
					w.severities &^= severityBit(n)
				}
			}
			continue
		case c.key == "service":
			any = resourceTokens(all, func(r *resource) bool { return c.holds(r.service, true) })
		case c.op != "=" || c.value == "" || kind != 0 && c.isNumber:
			continue
		case kind != 0:
			any = []uint64{token(nil, kind, c.value)}
		default:
			any = resourceTokens(all, func(r *resource) bool {
				have, is := r.get(c.key)
				return c.holds(have, is)
			})
			any = append(any, pairToken(nil, c.key, c.value))
		}
		if len(any) <= maxAlternatives {
			w.tokens = append(w.tokens, any)
		}
	}
	return w
}

func resourceTokens(all map[int64]*resource, f func(*resource) bool) (tokens []uint64) {
	for id, r := range all {
		if f(r) {
			tokens = append(tokens, resourceToken(id))
		}
	}
	return tokens
}

// admits reports whether a block may have what is wanted.
func (w *wanted) admits(severities uint32, f filter) bool {
	if severities&w.severities == 0 {
		return false
	}
	for _, any := range w.tokens {
		if !slices.ContainsFunc(any, f.has) {
			return false
		}
	}
	return true
}

// each calls f with the records that match in one file, block by block in the search's order, until more returns false,
// which is asked before each block, or time is up. Blocks may overlap.
func (x *search) each(ctx context.Context, file *file, more func(head) bool, f func(*row, *resource)) error {
	return file.read(ctx, func(db *sql.DB) error {
		heads, all, err := x.heads(ctx, db)
		if err != nil {
			return err
		}
		body, err := db.PrepareContext(ctx, "SELECT data FROM body WHERE id = ?")
		if err != nil {
			return err
		}
		defer body.Close()
		opened := make([]openBlock, runtime.GOMAXPROCS(0))
		for len(heads) > 0 {
			n := 0
			for ; n < min(len(opened), len(heads)) && more(heads[n]); n++ {
				if err := body.QueryRowContext(ctx, heads[n].id).Scan(&opened[n].data); err != nil {
					return err
				}
			}
			if n == 0 {
				return nil
			}
			if time.Now().After(x.deadline) {
				return errSlow
			}
			if err := x.look(file.s.codec, opened[:n], all); err != nil {
				return err
			}
			for i := range opened[:n] {
				for j := range opened[i].found {
					r := &opened[i].found[j]
					f(r, all[r.resource])
				}
			}
			heads = heads[n:]
		}
		return nil
	})
}

// openBlock is a block and the records in it that match. Their strings lie in raw.
type openBlock struct {
	data, raw []byte
	lower     []byte // room for a body
	found     []row
	err       error
}

// look finds what matches in each of the blocks, all at the same time.
func (x *search) look(c codec, blocks []openBlock, all map[int64]*resource) error {
	var work sync.WaitGroup
	for i := range blocks[1:] {
		work.Go(func() { blocks[1+i].look(x, c, all) })
	}
	blocks[0].look(x, c, all)
	work.Wait()
	for i := range blocks {
		if blocks[i].err != nil {
			return blocks[i].err
		}
	}
	return nil
}

func (b *openBlock) look(x *search, c codec, all map[int64]*resource) {
	b.found = b.found[:0]
	b.raw, b.err = c.decode(b.data, b.raw, func(r *row) {
		if r.id < x.from || r.id >= x.to {
			return
		}
		// A resource that is not there has come since the search began, and so have its records.
		if res := all[r.resource]; res != nil && x.matches(r, res, &b.lower) {
			b.found = append(b.found, *r)
		}
	})
}

// heads returns the blocks that may have something, in the search's order, and the file's resources.
func (x *search) heads(ctx context.Context, db *sql.DB) (heads []head, all map[int64]*resource, err error) {
	if all, err = resources(ctx, db); err != nil {
		return nil, nil, err
	}
	order := "last DESC"
	if x.ascending {
		order = "first ASC"
	}
	want := x.wants(all)
	rows, err := db.QueryContext(ctx, "SELECT id, first, last, severities, filter FROM head WHERE last >= ? AND first < ? ORDER BY "+order, x.from, x.to)
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var h head
		var severities uint32
		var f sql.RawBytes
		if err := rows.Scan(&h.id, &h.first, &h.last, &severities, &f); err != nil {
			return nil, nil, err
		}
		if want.admits(severities, filter(f)) {
			heads = append(heads, h)
		}
	}
	return heads, all, rows.Err()
}

type slowError struct{}

func (slowError) Error() string { return "it took too long" }

var errSlow = slowError{}

// inTime returns a context that ends a little after the search's deadline: one statement may find nothing for long.
func (x *search) inTime(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithDeadline(ctx, x.deadline.Add(time.Second))
}

// explain says why an answer is not whole.
func explain(file *file, err error) string {
	if err == errSlow || strings.Contains(err.Error(), "interrupt") || strings.Contains(err.Error(), "deadline") {
		return fmt.Sprintf("the search took too long and ended in the hour from %s: ask for less time, or say more of what you look for", file.hour.Format(hourLayout))
	}
	return fmt.Sprintf("the file of %s cannot be read: %v", file.hour.Format(hourLayout), err)
}

// SearchLogs returns the log records that match. Its errors are *api.Error when q is wrong.
func (s *Store) SearchLogs(ctx context.Context, q api.LogQuery) (api.LogResult, error) {
	x, err := s.understand(q)
	if err != nil {
		return api.LogResult{}, err
	}
	limited, cancel := x.inTime(ctx)
	defer cancel()
	files, partial := s.within(limited, logKind, x.from, x.to)
	x.sort(files)
	result := api.LogResult{Logs: []api.Log{}, Partial: partial}
	found := foundRows{search: x}
	for i := range files {
		if found.settled(files[i].first, files[i].last) {
			break
		}
		err := x.each(limited, files[i].file, func(h head) bool { return !found.settled(h.first, h.last) }, found.add)
		if ctx.Err() != nil {
			return api.LogResult{}, ctx.Err()
		}
		if err != nil {
			result.Partial = cmp.Or(result.Partial, explain(files[i].file, err))
		}
	}
	found.trim()
	for i := range found.rows[:min(len(found.rows), x.limit)] {
		result.Logs = append(result.Logs, found.rows[i].log(found.rows[i].res))
	}
	if len(found.rows) > x.limit {
		result.Next = result.Logs[x.limit-1].ID
	}
	return result, nil
}

// foundRows are those that a search has found: the first limit in its order, and one more that tells that there are more.
type foundRows struct {
	*search
	rows []foundRow
	full bool // the first limit+1 are sorted, and nothing behind the last of them matters
}

type foundRow struct {
	row
	res *resource
}

func (f *foundRows) add(r *row, res *resource) {
	if f.full && f.order(r.id, f.rows[f.limit].id) > 0 {
		return
	}
	kept := *r
	for _, s := range []*string{&kept.text, &kept.scope, &kept.event, &kept.trace, &kept.span, &kept.body, &kept.attrs.text} {
		*s = strings.Clone(*s)
	}
	if f.rows = append(f.rows, foundRow{kept, res}); len(f.rows) >= 2*f.limit+1024 {
		f.trim()
	}
}

// trim sorts, and leaves out what comes too late.
func (f *foundRows) trim() {
	slices.SortFunc(f.rows, func(a, b foundRow) int { return f.order(a.id, b.id) })
	if len(f.rows) > f.limit+1 {
		clear(f.rows[f.limit+1:])
		f.rows = f.rows[:f.limit+1]
	}
	f.full = len(f.rows) > f.limit
}

// settled reports whether nothing between two ids can come before what was found.
func (f *foundRows) settled(first, last int64) bool {
	if len(f.rows) <= f.limit {
		return false
	}
	f.trim()
	if end := f.rows[f.limit].id; f.ascending {
		return first > end
	} else {
		return last < end
	}
}

// order compares ids as the search wants them.
func (x *search) order(a, b int64) int {
	if x.ascending {
		return cmp.Compare(a, b)
	}
	return cmp.Compare(b, a)
}

// sort puts the files first whose records come first.
func (x *search) sort(files []ranged) {
	slices.SortFunc(files, func(a, b ranged) int {
		if x.ascending {
			return cmp.Compare(a.first, b.first)
		}
		return cmp.Compare(b.last, a.last)
	})
}

// log is the record as the API has it.
func (r *row) log(res *resource) api.Log {
	l := api.Log{
		ID: strconv.FormatInt(r.id, 10), Time: time.Unix(0, r.time).UTC(), Severity: cmp.Or(creel.Severity(r.severity).String(), r.text), SeverityNumber: r.severity,
		Service: res.service, Event: r.event, TraceID: r.trace, SpanID: r.span, Attributes: json.RawMessage(r.attrs.text), Resource: json.RawMessage(res.text), Scope: r.scope,
	}
	if r.isJSON && json.Valid([]byte(r.body)) {
		l.Body = json.RawMessage(r.body)
	} else {
		text, err := json.Marshal(r.body)
		if err != nil {
			panic("BUG: " + err.Error())
		}
		l.Body = text
	}
	return l
}

// CountLogs counts the log records that match, over time and by severity. The window is widened to whole buckets.
func (s *Store) CountLogs(ctx context.Context, q api.LogQuery) (api.Histogram, error) {
	x, err := s.understand(api.LogQuery{Window: q.Window, Query: q.Query, Filters: q.Filters})
	if err != nil {
		return api.Histogram{}, err
	}
	start, end := timeOf(x.from), timeOf(x.to)
	width, err := bucketWidth(q.Interval, end.Sub(start))
	if err != nil {
		return api.Histogram{}, err
	}
	start = start.Truncate(width)
	n := int((end.Sub(start) + width - 1) / width)
	h := api.Histogram{Interval: width.Seconds(), Buckets: make([]api.Bucket, n)}
	for i := range h.Buckets {
		h.Buckets[i] = api.Bucket{Time: start.Add(time.Duration(i) * width), Counts: map[string]int64{}}
	}
	x.from, x.to = idAt(start), idAt(start.Add(time.Duration(n)*width))
	limited, cancel := x.inTime(ctx)
	defer cancel()
	files, partial := s.within(limited, logKind, x.from, x.to)
	h.Partial = partial
	for _, f := range files {
		if err := x.count(limited, f.file, &h, start, width); err != nil {
			h.Partial = cmp.Or(h.Partial, explain(f.file, err))
		}
		if ctx.Err() != nil {
			return api.Histogram{}, ctx.Err()
		}
	}
	return h, nil
}

// bucketWidth returns the width that was asked for, or one that makes about 60 buckets: of round numbers.
func bucketWidth(seconds float64, window time.Duration) (time.Duration, error) {
	if seconds != 0 {
		width := time.Duration(seconds * float64(time.Second))
		if width < time.Millisecond || window/width > 5000 {
			return 0, &api.Error{Code: "bad_request", Message: fmt.Sprintf("interval must be at least a millisecond and a 5000th of the time, got %g s", seconds)}
		}
		return width, nil
	}
	for _, w := range []time.Duration{time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 20 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute,
		10 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour} {
		if window/w <= 75 {
			return w, nil
		}
	}
	return max(24*time.Hour, (window / 75).Truncate(24*time.Hour)), nil
}

// count adds what one file has.
func (x *search) count(ctx context.Context, file *file, h *api.Histogram, start time.Time, width time.Duration) error {
	add := func(at int64, severity int, n int64) { // at is in milliseconds
		i := int((at - start.UnixMilli()) / width.Milliseconds())
		if i >= 0 && i < len(h.Buckets) {
			h.Buckets[i].Counts[severityName(severity)] += n
			h.Total += n
		}
	}
	if !x.plain() || width%(slotSeconds*time.Second) != 0 {
		return x.each(ctx, file, func(head) bool { return true }, func(r *row, _ *resource) { add(r.id>>counterBits, r.severity, 1) })
	}
	return file.read(ctx, func(db *sql.DB) error {
		query, args := "SELECT slot * 10000, severity, n FROM rollup WHERE slot >= ? AND slot < ?", []any{start.Unix() / slotSeconds, timeOf(x.to).Unix() / slotSeconds}
		rows, err := db.QueryContext(ctx, query, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var at, n int64
			var severity int
			if err := rows.Scan(&at, &severity, &n); err != nil {
				return err
			}
			add(at, severity, n)
		}
		return rows.Err()
	})
}

// severityName returns the name of the range that a severity is in.
func severityName(n int) string {
	if n < 1 || n > 24 {
		return "unknown"
	}
	return creel.Severity((n-1)/4*4 + 1).String()
}
