package rows

import (
	"context"
	"database/sql"
	"slices"
	"strings"
	"time"

	"github.com/creelhq/creel"
)

// This file is why a request that comes again is stored once. Each file keeps the places of the requests that it has
// records of, written in the same transaction as those. So whatever the process was killed in, a repeat goes to the files
// that do not have it yet, and only there. Requests may come in any order; a file that is deleted, or set aside, takes what
// it knew with it.

// remembered is how many of its newest requests a file knows. The disk queue repeats what it was not told to be delivered:
// what was in flight, and after a power cut that of a second before.
const remembered = 4096

// place is where a request is: in which disk queue, and where in it.
type place struct {
	log creel.ID
	seq uint64
}

// attempt is one to store a request.
type attempt struct {
	place           // of no disk queue: it is not known whether it is a repeat
	now   time.Time // of the first attempt: records whose own time is not to be believed are filed by it, so that a repeat finds them
	in    []*file   // that have its records
}

// requests are those that are known. Store.writing guards them.
type requests struct {
	known map[place]attempt
	order []place             // of known, as they came
	from  map[creel.ID]uint64 // by disk queue: from which place on files were asked what they know
}

func newRequests() requests {
	return requests{known: make(map[place]attempt), from: make(map[creel.ID]uint64)}
}

// attempt returns what is known of the request that ctx belongs to.
func (s *Store) attempt(ctx context.Context) (attempt, error) {
	r := creel.RequestOf(ctx)
	a := attempt{place: place{r.Log, r.Seq}, now: s.o.Now()}
	if r.Log.IsZero() {
		return a, nil
	}
	if from, asked := s.requests.from[r.Log]; !asked || r.Seq < from {
		if !asked {
			from = 1 << 63 // more than SQLite's integers, and than there are
		}
		for _, f := range s.all() {
			if err := s.recall(ctx, f, a.place, from-1); err != nil {
				return a, err
			}
		}
		s.requests.from[r.Log] = r.Seq
	}
	if known, ok := s.requests.known[a.place]; ok {
		return known, nil
	}
	return a, nil
}

// recall asks a file for the requests that it knows, from a place to another in the same disk queue. It fails only when ctx
// is done: a file that cannot be read must not hold up the others.
func (s *Store) recall(ctx context.Context, f *file, from place, to uint64) error {
	err := f.read(ctx, func(db *sql.DB) error {
		found, err := db.QueryContext(ctx, "SELECT seq, at FROM request WHERE log = ? AND seq BETWEEN ? AND ?", from.log[:], int64(from.seq), int64(to))
		if err != nil {
			return err
		}
		defer found.Close()
		for found.Next() {
			var seq, at int64
			if err := found.Scan(&seq, &at); err != nil {
				return err
			}
			s.requests.add(attempt{place: place{from.log, uint64(seq)}, now: time.Unix(0, at)}, f)
		}
		return found.Err()
	})
	if err != nil && ctx.Err() == nil && !strings.Contains(err.Error(), "no such table") { // it is of an older version, or was never written to
		s.o.Log.Error("cannot ask a file which requests it has; if one of them comes again, it is stored twice", "file", f.path, "error", err)
	}
	return ctx.Err()
}

// add notes that a file has the records of a request.
func (q *requests) add(a attempt, f *file) {
	known, ok := q.known[a.place]
	if !ok {
		known = a
		q.order = append(q.order, a.place)
	}
	known.in = append(slices.Clip(known.in), f)
	q.known[a.place] = known
}

// trim forgets the oldest requests, if there are too many.
func (q *requests) trim() {
	for ; len(q.order) > remembered; q.order = q.order[1:] {
		delete(q.known, q.order[0])
	}
}

// forget has files asked again: it is not known what has happened.
func (q *requests) forget() { *q = newRequests() }

// remember writes down that the file has the records of a request.
func (t *transaction) remember(a attempt) error {
	if a.log.IsZero() {
		return nil
	}
	res, err := t.tx.ExecContext(t.ctx, "INSERT INTO request (log, seq, at) VALUES (?, ?, ?)", a.log[:], int64(a.seq), a.now.UnixNano())
	if err != nil {
		return err
	}
	id, err := res.LastInsertId()
	if err == nil && id%256 == 0 {
		_, err = t.tx.ExecContext(t.ctx, "DELETE FROM request WHERE id <= ?", id-remembered)
	}
	return err
}
