package rows

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"modernc.org/sqlite" // the driver
	sqlite3 "modernc.org/sqlite/lib"
)

// kind is what records are.
type kind string

const (
	logKind  kind = "log"
	spanKind kind = "span"
)

// schema is a file's. Log records are in blocks: what they have not is told by head, what they have by body. How many
// there are of each severity, in slots of time, is in rollup. Which requests of disk queues they came with is in request.
const schema = `
CREATE TABLE IF NOT EXISTS resource (id INTEGER PRIMARY KEY, service TEXT NOT NULL, json TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS head (id INTEGER PRIMARY KEY, first INTEGER, last INTEGER, severities INTEGER, filter BLOB);
CREATE INDEX IF NOT EXISTS head_time ON head (last, first);
CREATE TABLE IF NOT EXISTS body (id INTEGER PRIMARY KEY, data BLOB);
CREATE TABLE IF NOT EXISTS rollup (slot INTEGER, severity INTEGER, n INTEGER, PRIMARY KEY (slot, severity)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS span (id INTEGER PRIMARY KEY, trace TEXT, span TEXT, parent TEXT, name TEXT, kind INTEGER, start INTEGER, duration INTEGER,
	status INTEGER, message TEXT, resource INTEGER, scope TEXT, attrs TEXT, events TEXT, links TEXT);
CREATE INDEX IF NOT EXISTS span_trace ON span (trace);
CREATE TABLE IF NOT EXISTS operation (service TEXT, name TEXT, PRIMARY KEY (service, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS request (id INTEGER PRIMARY KEY, log BLOB, seq INTEGER, at INTEGER);
PRAGMA user_version = 1;`

// A file is one hour's records.
type file struct {
	s    *Store
	hour time.Time
	path string

	mu     sync.Mutex
	reader *sql.DB // nil: closed
	writer *writer // nil: nothing is written to it
	used   time.Time
	users  int
	ranges map[kind][2]int64 // the first and last id; nil until known
}

func newFile(s *Store, hour time.Time) *file {
	return &file{s: s, hour: hour, path: filepath.Join(s.o.Dir, hour.Format(hourLayout)+suffix)}
}

// connect opens the database with some pragmas.
func connect(path string, write bool) (*sql.DB, error) {
	q := url.Values{"_pragma": {"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(NORMAL)", "cache_size(-4000)", "temp_store(MEMORY)"}}
	if !write {
		q = url.Values{"_pragma": {"busy_timeout(5000)", "query_only(1)", "cache_size(-2000)"}}
	}
	db, err := sql.Open("sqlite", "file:"+url.PathEscape(path)+"?"+q.Encode())
	if err != nil {
		return nil, err
	}
	if write {
		db.SetMaxOpenConns(1)
	} else {
		db.SetMaxOpenConns(4)
		db.SetConnMaxIdleTime(idle)
	}
	return db, nil
}

// read calls f with the database. A damaged file is set aside.
func (x *file) read(ctx context.Context, f func(*sql.DB) error) error {
	x.mu.Lock()
	var err error
	if x.reader == nil {
		x.reader, err = connect(x.path, false)
	}
	db := x.reader
	x.users++
	x.used = x.s.o.Now()
	x.mu.Unlock()
	if err == nil {
		err = f(db)
	}
	x.mu.Lock()
	x.users--
	x.mu.Unlock()
	if isDamage(err) && ctx.Err() == nil {
		x.s.setAside(x, err)
	}
	return err
}

// isDamage tells damage from other errors.
func isDamage(err error) bool {
	var e *sqlite.Error
	if errors.As(err, &e) {
		return e.Code()&0xff == sqlite3.SQLITE_CORRUPT || e.Code()&0xff == sqlite3.SQLITE_NOTADB
	}
	return false
}

// span returns the first and last id of a kind; 0 and 0 if there is none.
func (x *file) span(ctx context.Context, k kind) (first, last int64, err error) {
	x.mu.Lock()
	known := x.ranges
	x.mu.Unlock()
	if known == nil {
		if err := x.findSpans(ctx); err != nil {
			return 0, 0, err
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	r := x.ranges[k]
	return r[0], r[1], nil
}

func (x *file) findSpans(ctx context.Context) error {
	found := make(map[kind][2]int64)
	err := x.read(ctx, func(db *sql.DB) error {
		for k, query := range map[kind]string{
			logKind:  "SELECT (SELECT min(first) FROM head), (SELECT max(last) FROM head)",
			spanKind: "SELECT (SELECT min(id) FROM span), (SELECT max(id) FROM span)",
		} {
			var first, last sql.NullInt64
			if err := db.QueryRowContext(ctx, query).Scan(&first, &last); err != nil {
				return err
			}
			found[k] = [2]int64{first.Int64, last.Int64}
		}
		return nil
	})
	if err != nil && strings.Contains(err.Error(), "no such table") { // it was made, and never written to
		err = nil
	}
	if err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.ranges == nil {
		x.ranges = found
	}
	return nil
}

// widen notes that there are records from first to last.
func (x *file) widen(k kind, first, last int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if r := x.ranges[k]; r[1] != 0 {
		first, last = min(first, r[0]), max(last, r[1])
	}
	x.ranges[k] = [2]int64{first, last}
}

// size returns the bytes on disk.
func (x *file) size() (n int64) {
	for _, end := range []string{"", "-wal"} {
		if info, err := os.Stat(x.path + end); err == nil {
			n += info.Size()
		}
	}
	return n
}

// rest closes what nobody has used for some time.
func (x *file) rest(now time.Time) {
	x.s.writing.Lock()
	defer x.s.writing.Unlock()
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.users == 0 && now.Sub(x.used) > idle {
		x.closeLocked()
	}
}

func (x *file) close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.closeLocked()
}

func (x *file) closeLocked() error {
	var errs []error
	if x.writer != nil {
		errs = append(errs, x.writer.close())
		x.writer = nil
	}
	if x.reader != nil {
		errs = append(errs, x.reader.Close())
		x.reader = nil
	}
	return errors.Join(errs...)
}

// write returns the file's writer, opening it if need be. A damaged file is set aside: then it fails, and the next
// attempt has a new one.
func (x *file) write(ctx context.Context) (*writer, error) {
	x.mu.Lock()
	w := x.writer
	x.used = x.s.o.Now()
	x.mu.Unlock()
	if w != nil {
		return w, nil
	}
	w, err := openWriter(ctx, x.path)
	if err != nil {
		if isDamage(err) {
			x.s.setAside(x, err)
		}
		return nil, fmt.Errorf("open %s: %w", filepath.Base(x.path), err)
	}
	if _, _, err := x.span(ctx, logKind); err != nil {
		return nil, errors.Join(err, w.close())
	}
	x.mu.Lock()
	x.writer = w
	x.mu.Unlock()
	return w, nil
}

// forget closes a writer whose transaction failed: what it has in memory is not what the file has.
func (x *file) forget(w *writer) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.writer == w {
		x.writer = nil
	}
	_ = w.close() // the transaction's error counts
}

// A writer is the one connection that writes to a file.
type writer struct {
	db         *sql.DB
	resources  map[string]int64 // ids by JSON
	operations map[[2]string]bool
	counter    int64
	block      *block // the one that is not full yet
}

func openWriter(ctx context.Context, path string) (*writer, error) {
	db, err := connect(path, true)
	if err != nil {
		return nil, err
	}
	w := &writer{db: db, resources: make(map[string]int64), operations: make(map[[2]string]bool), counter: rand.Int64(), block: newBlock()}
	if _, err := db.ExecContext(ctx, schema); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	rows, err := db.QueryContext(ctx, "SELECT id, json FROM resource")
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		var text string
		if err := rows.Scan(&id, &text); err != nil {
			return nil, errors.Join(err, db.Close())
		}
		w.resources[text] = id
	}
	if err := rows.Err(); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return w, nil
}

// id makes the key of a record of a time.
func (w *writer) id(t time.Time) int64 {
	w.counter++
	return idAt(t) | w.counter&(1<<counterBits-1)
}

func (w *writer) close() error { return w.db.Close() }
