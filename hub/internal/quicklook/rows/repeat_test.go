package rows

import (
	"context"
	"database/sql"
	"os"
	"testing"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/api"
)

var queue = creel.ID{1}

// deliver stores a request.
func deliver(t testing.TB, s *Store, log creel.ID, seq uint64, logs ...creel.Log) {
	t.Helper()
	ctx := creel.WithRequest(t.Context(), creel.Request{Log: log, Seq: seq})
	if err := s.ExportLogs(ctx, []*creel.Batch{creel.NewLogs(logs)}); err != nil {
		t.Fatal(err)
	}
}

func count(t testing.TB, s *Store) int64 {
	t.Helper()
	r, err := s.CountLogs(t.Context(), api.LogQuery{Window: api.Window{Start: time.Unix(0, 1), End: time.Now().Add(10_000 * time.Hour)}})
	if err != nil || r.Partial != "" {
		t.Fatal(err, r.Partial)
	}
	return r.Total
}

// TestRepeats: a request that comes again goes to the files that do not have it, also when the hour has changed.
func TestRepeats(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 59, 0, 0, time.UTC)
	o := Options{Dir: t.TempDir(), Now: func() time.Time { return now }, MaxAge: 10 * time.Hour}
	logs := []creel.Log{ // of four hours; two are filed by the clock
		{Time: now.Add(-time.Minute).UnixNano()}, {Time: now.Add(-time.Hour).UnixNano()}, {Time: now.Add(-2 * time.Hour).UnixNano()},
		{}, {Time: now.Add(time.Hour).UnixNano()}, {Time: now.Add(-9*time.Hour - 55*time.Minute).UnixNano()},
	}
	const files = 4
	s := open(t, o)
	check := func(what string, records, repeats int) {
		t.Helper()
		if n := count(t, s); n != int64(records) {
			t.Errorf("%s: %d records are there, want %d", what, n, records)
		}
		if n := s.repeats.Load(); n != uint64(repeats) {
			t.Errorf("%s: %d parts were recognised, want %d", what, n, repeats)
		}
	}
	deliver(t, s, queue, 100, logs...)
	deliver(t, s, queue, 100, logs...)
	check("at once", 6, files)
	now = now.Add(30 * time.Minute) // what was too early is not any more, what was young enough is too old
	deliver(t, s, queue, 100, logs...)
	check("later", 6, 2*files)

	s = open(t, o) // the other one is as if it was killed
	deliver(t, s, queue, 100, logs...)
	check("after a restart", 6, files)
	deliver(t, s, queue, 50, logs[0]) // in no order
	deliver(t, s, queue, 50, logs[0])
	check("one before", 7, files+1)
	deliver(t, s, creel.ID{2}, 100, logs[0])
	check("another queue", 8, files+1)
	export(t, s, logs[0])
	export(t, s, logs[0])
	check("no queue", 10, files+1)

	if err := s.remove(s.fileOf(now.Add(-2 * time.Hour).Truncate(time.Hour))); err != nil {
		t.Fatal(err)
	}
	check("a file is deleted", 9, files+1)
	deliver(t, s, queue, 100, logs...)
	check("the file is made anew", 10, 2*files)
	s = open(t, o)
	deliver(t, s, queue, 100, logs...)
	check("a restart after that", 10, files)
}

// TestRepeatAfterFailure: what failed before its last file is stored in the rest, and what a file knew before it failed
// holds.
func TestRepeatAfterFailure(t *testing.T) {
	now := time.Now()
	s := open(t, Options{})
	var logs []creel.Log
	for i := range 6 {
		logs = append(logs, creel.Log{Time: now.Add(-time.Duration(i) * time.Hour).UnixNano()})
	}
	blocked := s.fileOf(now.Add(-3 * time.Hour).UTC().Truncate(time.Hour)).path
	if err := os.Mkdir(blocked, 0o700); err != nil {
		t.Fatal(err)
	}
	ctx := creel.WithRequest(t.Context(), creel.Request{Log: queue, Seq: 1})
	b := creel.NewLogs(logs)
	for range 20 { // in another order each time
		if err := s.ExportLogs(ctx, []*creel.Batch{b}); err == nil {
			t.Fatal("a directory is no database")
		}
	}
	if err := os.Remove(blocked); err != nil {
		t.Fatal(err)
	}
	if err := s.ExportLogs(ctx, []*creel.Batch{b}); err != nil {
		t.Fatal(err)
	}
	if n := count(t, s); n != 6 || s.repeats.Load() == 0 {
		t.Errorf("%d records are there, want 6; %d parts were recognised", n, s.repeats.Load())
	}
}

// TestRequestsAreBounded: files and memory know the newest requests.
func TestRequestsAreBounded(t *testing.T) {
	s := open(t, Options{})
	now := time.Now().UnixNano()
	deliver(t, s, queue, 1, creel.Log{Time: now})
	file := s.all()[0]
	w, err := file.write(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const written = remembered - 100
	_, err = w.db.Exec("WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < ?) INSERT INTO request (log, seq, at) SELECT ?, i, ? FROM n", written, queue[:], now)
	if err != nil {
		t.Fatal(err)
	}
	const last = written + 600
	for seq := uint64(written + 1); seq <= last; seq++ {
		deliver(t, s, queue, seq, creel.Log{Time: now})
	}
	var rows, first int
	err = file.read(t.Context(), func(db *sql.DB) error {
		return db.QueryRow("SELECT count(*), min(seq) FROM request").Scan(&rows, &first)
	})
	if err != nil || rows < remembered || rows > remembered+256 || first != last-rows+1 {
		t.Errorf("the file knows %d requests, the first is %d; %v", rows, first, err)
	}
	s.requests.forget()
	deliver(t, s, queue, last-remembered+1, creel.Log{Time: now})
	if s.repeats.Load() != 1 || count(t, s) != 601 {
		t.Error("the oldest that is remembered was not recognised")
	}
	for seq := range uint64(3 * remembered) {
		s.requests.add(attempt{place: place{creel.ID{3}, seq}}, file)
		s.requests.trim()
	}
	if len(s.requests.known) != remembered || len(s.requests.order) != remembered {
		t.Errorf("%d requests are in memory", len(s.requests.known))
	}
}

// TestFileOfBefore: a file that has no table for requests serves.
func TestFileOfBefore(t *testing.T) {
	o := Options{Dir: t.TempDir()}
	s := open(t, o)
	now := time.Now().UnixNano()
	deliver(t, s, queue, 1, creel.Log{Time: now})
	w, err := s.all()[0].write(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.db.Exec("DROP TABLE request"); err != nil {
		t.Fatal(err)
	}
	s = open(t, o)
	for range 2 {
		deliver(t, s, queue, 2, creel.Log{Time: now})
	}
	if n := count(t, s); n != 2 || s.repeats.Load() != 1 {
		t.Errorf("%d records are there, %d parts were recognised", n, s.repeats.Load())
	}
}
