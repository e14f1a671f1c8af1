package rows

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"
	"unsafe"

	"github.com/creelhq/creel"
)

// rowsAtOnce is how many records one INSERT has: a statement costs several times as much as a row.
const rowsAtOnce = 50

// slotSeconds is the width of the counts that are kept for histograms.
const slotSeconds = 10

// ExportLogs stores the logs of batches. When it returns nil, they survive the end of the process. What it has already of
// the request that ctx belongs to, it leaves alone.
func (s *Store) ExportLogs(ctx context.Context, batches []*creel.Batch) error {
	if err := store(ctx, s, batches, (*creel.Batch).Logs, logTime, (*transaction).logs); err != nil {
		return fmt.Errorf("store logs: %w", err)
	}
	return nil
}

// ExportSpans stores the spans of batches, as ExportLogs does.
func (s *Store) ExportSpans(ctx context.Context, batches []*creel.Batch) error {
	if err := store(ctx, s, batches, (*creel.Batch).Spans, spanTime, (*transaction).spans); err != nil {
		return fmt.Errorf("store spans: %w", err)
	}
	return nil
}

// store stores records, those of each hour with a transaction.
func store[R any](
	ctx context.Context, s *Store, batches []*creel.Batch,
	of func(*creel.Batch) []R, at func(*R, time.Time) time.Time, write func(*transaction, []*R, time.Time) error,
) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	a, err := s.attempt(ctx)
	if err != nil {
		return err
	}
	byHour := make(map[time.Time][]*R)
	for _, b := range batches {
		records := of(b)
		for i := range records {
			hour := s.hourOf(at(&records[i], a.now), a.now)
			byHour[hour] = append(byHour[hour], &records[i])
		}
	}
	for hour, records := range byHour {
		if err := s.transact(ctx, hour, a, func(t *transaction) error { return write(t, records, a.now) }); err != nil {
			return err
		}
	}
	return nil
}

// logTime is when a log record happened, as far as it is known.
func logTime(l *creel.Log, now time.Time) time.Time {
	switch {
	case l.Time > 0:
		return time.Unix(0, l.Time)
	case l.Observed > 0:
		return time.Unix(0, l.Observed)
	}
	return now
}

// spanTime is when a span began, as far as it is known.
func spanTime(sp *creel.Span, now time.Time) time.Time {
	if sp.Start > 0 {
		return time.Unix(0, sp.Start)
	}
	return now
}

// A transaction writes records of one hour.
type transaction struct {
	*writer
	s      *Store
	file   *file
	ctx    context.Context
	tx     *sql.Tx
	fresh  map[string]int64 // resources that it adds
	lasts  *creel.Origin    // of the record before
	lastID int64            // its resource
	first  map[kind][2]int64
	after  []func() // to be called when it is committed
}

// transact runs f in a transaction on the file of an hour, unless that has the request's records already.
func (s *Store) transact(ctx context.Context, hour time.Time, a attempt, f func(*transaction) error) error {
	file := s.fileOf(hour)
	if slices.Contains(a.in, file) {
		s.repeats.Inc()
		return nil
	}
	w, err := file.write(ctx)
	if err != nil {
		return err
	}
	tx, err := w.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	t := &transaction{writer: w, s: s, file: file, ctx: ctx, tx: tx, fresh: make(map[string]int64), first: make(map[kind][2]int64)}
	if err = f(t); err == nil {
		err = t.remember(a)
	}
	if err == nil {
		err = tx.Commit()
	}
	if err != nil {
		_ = tx.Rollback() // the first error counts
		file.forget(w)
		s.requests.forget()
		if isDamage(err) {
			s.setAside(file, err)
		}
		return err
	}
	for text, id := range t.fresh {
		w.resources[text] = id
	}
	for k, r := range t.first {
		file.widen(k, r[0], r[1])
	}
	if !a.log.IsZero() {
		s.requests.add(a, file)
		s.requests.trim()
	}
	for _, f := range t.after {
		f()
	}
	return nil
}

// insert writes rows into a table, many with one statement.
func (t *transaction) insert(table string, columns, n int, row func(i int, args []any) []any) error {
	values := "(" + strings.TrimSuffix(strings.Repeat("?,", columns), ",") + "),"
	many, err := t.prepare(table, values, min(n, rowsAtOnce))
	if err != nil {
		return err
	}
	defer many.Close()
	args := make([]any, 0, columns*rowsAtOnce)
	for i := 0; i < n; {
		args = args[:0]
		from := i
		for ; i < n && i-from < rowsAtOnce; i++ {
			args = row(i, args)
		}
		if i-from == min(n, rowsAtOnce) {
			_, err = many.ExecContext(t.ctx, args...)
		} else {
			_, err = t.tx.ExecContext(t.ctx, "INSERT INTO "+table+" VALUES "+strings.TrimSuffix(strings.Repeat(values, i-from), ","), args...)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *transaction) prepare(table, values string, n int) (*sql.Stmt, error) {
	return t.tx.PrepareContext(t.ctx, "INSERT INTO "+table+" VALUES "+strings.TrimSuffix(strings.Repeat(values, n), ","))
}

// resource returns the id of an origin's resource, adding it if it is new.
func (t *transaction) resource(o *creel.Origin) (int64, error) {
	if o == t.lasts && t.lastID != 0 {
		return t.lastID, nil
	}
	attrs := creel.Attrs(nil)
	if o != nil {
		attrs = o.Resource.Attrs
	}
	text := string(attrs.Append(nil))
	id, ok := t.resources[text]
	if !ok {
		id, ok = t.fresh[text]
	}
	if !ok {
		res, err := t.tx.ExecContext(t.ctx, "INSERT INTO resource (service, json) VALUES (?, ?)", serviceOf(o), text)
		if err != nil {
			return 0, err
		}
		if id, err = res.LastInsertId(); err != nil {
			return 0, err
		}
		t.fresh[strings.Clone(text)] = id
	}
	t.lasts, t.lastID = o, id
	return id, nil
}

// note widens the range of ids that the transaction adds.
func (t *transaction) note(k kind, id int64) {
	r, ok := t.first[k]
	if !ok {
		r = [2]int64{id, id}
	}
	t.first[k] = [2]int64{min(r[0], id), max(r[1], id)}
}

func scopeOf(o *creel.Origin) string {
	if o == nil {
		return ""
	}
	return o.Scope.Name
}

type slot struct {
	at       int64
	severity int
}

func (t *transaction) logs(logs []*creel.Log, now time.Time) error {
	// In the order of time, so that blocks span little of it.
	slices.SortStableFunc(logs, func(a, b *creel.Log) int { return logTime(a, now).Compare(logTime(b, now)) })
	ids := make([]int64, len(logs))
	counts := make(map[slot]int)
	var attrs []byte
	for i, l := range logs {
		at := logTime(l, now)
		ids[i] = t.id(at)
		t.note(logKind, ids[i])
		resource, err := t.resource(l.Origin)
		if err != nil {
			return err
		}
		attrs = l.Attrs.Append(attrs[:0])
		t.block.add(&row{
			id: ids[i], time: at.UnixNano(), severity: int(l.Severity), text: l.SeverityText, resource: resource, scope: scopeOf(l.Origin), event: l.Event,
			trace: l.TraceID.String(), span: l.SpanID.String(), body: clean(l.Body.String()), isJSON: l.Body.Kind() != creel.ValueString, attrs: attributes{text: alias(attrs)},
		}, l.Attrs)
		counts[slot{at.Unix() / slotSeconds, int(l.Severity)}]++
		if t.block.full() {
			if err := t.flush(); err != nil {
				return err
			}
			t.block.clear()
		}
	}
	if t.block.n > 0 {
		if err := t.flush(); err != nil {
			return err
		}
	}
	for at, n := range counts {
		if _, err := t.tx.ExecContext(t.ctx, "INSERT INTO rollup VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n", at.at, at.severity, n); err != nil {
			return err
		}
	}
	t.after = append(t.after, func() { t.s.publish(logs, ids, now) })
	return nil
}

// alias lends bytes as a string, for as long as they do not change.
func alias(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// flush writes the block that is being filled, as it is now.
func (t *transaction) flush() error {
	b := t.block
	data := t.s.codec.enc.EncodeAll(b.raw, nil)
	if b.id == 0 {
		res, err := t.tx.ExecContext(t.ctx, "INSERT INTO body (data) VALUES (?)", data)
		if err != nil {
			return err
		}
		if b.id, err = res.LastInsertId(); err != nil {
			return err
		}
	} else if _, err := t.tx.ExecContext(t.ctx, "UPDATE body SET data = ? WHERE id = ?", data, b.id); err != nil {
		return err
	}
	_, err := t.tx.ExecContext(t.ctx, "INSERT OR REPLACE INTO head VALUES (?, ?, ?, ?, ?)", b.id, b.first, b.last, b.severities, []byte(newFilter(b.tokens)))
	return err
}

func (t *transaction) spans(spans []*creel.Span, now time.Time) error {
	resources := make([]int64, len(spans))
	for i, sp := range spans {
		var err error
		if resources[i], err = t.resource(sp.Origin); err != nil {
			return err
		}
		service := serviceOf(sp.Origin)
		if op := [2]string{service, sp.Name}; !t.operations[op] && len(t.operations) < 10_000 {
			if _, err := t.tx.ExecContext(t.ctx, "INSERT OR IGNORE INTO operation VALUES (?, ?)", service, sp.Name); err != nil {
				return err
			}
			t.operations[[2]string{strings.Clone(service), strings.Clone(sp.Name)}] = true
		}
	}
	return t.insert("span", 15, len(spans), func(i int, args []any) []any {
		sp := spans[i]
		start := spanTime(sp, now)
		id := t.id(start)
		t.note(spanKind, id)
		return append(args, id, sp.TraceID.String(), sp.SpanID.String(), sp.Parent.String(), sp.Name, int(sp.Kind), start.UnixNano(), max(0, sp.End-sp.Start),
			int(sp.Status.Code), sp.Status.Message, resources[i], scopeOf(sp.Origin), string(sp.Attrs.Append(nil)), eventsJSON(sp.Events), linksJSON(sp.Links))
	})
}

func serviceOf(o *creel.Origin) string {
	if o == nil {
		return ""
	}
	if v, ok := o.Resource.Attrs.Get("service.name"); ok {
		return v.String()
	}
	return ""
}
