package series

import (
	"context"
	"encoding/hex"
	"errors"
	"math"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/creelhq/creel"
)

// This file is why a request that comes again is stored once, whatever the process was killed in.
//
// A sample that is there already changes nothing, so most points may be stored twice. What may not is what depends on
// something else than the point: deltas, which are added up, and points that are given their time here. Those are committed
// after all others, together with a sample that says which request they are of. The database writes the floats of a commit
// as one record, whose checksum is right or not, so a crash leaves all of them or none. With the sample there, all of the
// request is; without it, nothing of the request was added up. (Exponential histograms are no floats: one without a time
// may be there twice.)
//
// What the deltas of a stream were added up to is nowhere but in its last sample, and a stream that is met for the first
// time in this process goes on from there.

// remembered is how many of its newest requests are known.
const remembered = 4096

// markName is the metric whose samples say which requests were stored, by disk queue. No name of a metric that comes from
// outside has a dot when it is stored.
const (
	markName  = "creel.quicklook.request"
	markLabel = "log"
)

// place is where a request is: in which disk queue, and where in it.
type place struct {
	log creel.ID
	seq uint64
}

// requests are those that were stored.
type requests struct {
	known map[place]bool
	order []place // of known, as they came
	last  int64   // the time of the last sample of any
}

func (q *requests) add(p place, t int64) {
	q.known[p], q.last = true, max(q.last, t)
	q.order = append(q.order, p)
	for ; len(q.order) > remembered; q.order = q.order[1:] {
		delete(q.known, q.order[0])
	}
}

// recall reads which requests were stored.
func recall(db *tsdb.DB) (requests, error) {
	q := requests{known: make(map[place]bool)}
	from, to := db.Head().MinTime(), db.Head().MaxTime()
	if from > to { // there is nothing
		return q, nil
	}
	stored, err := db.Querier(from, to)
	if err != nil {
		return q, err
	}
	defer stored.Close()
	set := stored.Select(context.Background(), false, nil, labels.MustNewMatcher(labels.MatchEqual, model.MetricNameLabel, markName))
	for set.Next() {
		var id creel.ID
		if n, err := hex.Decode(id[:], []byte(set.At().Labels().Get(markLabel))); err != nil || n != len(id) {
			continue
		}
		samples := set.At().Iterator(nil)
		for samples.Next() == chunkenc.ValFloat {
			t, seq := samples.At()
			q.add(place{id, uint64(seq)}, t)
		}
		err = errors.Join(err, samples.Err())
	}
	return q, errors.Join(err, set.Err())
}

// store stores points as those of a request.
func (w *writer) store(batches []*creel.Batch, r creel.Request) error {
	for _, b := range batches {
		points := b.Metrics()
		for i := range points {
			if err := w.point(&points[i]); err != nil {
				return err
			}
		}
	}
	if err := w.app.Commit(); err != nil {
		return err
	}
	t := max(w.now.UnixMilli(), w.s.requests.last+1, w.s.db.Head().MaxTime()) // earlier may be too late to be stored
	if !r.Log.IsZero() {
		if _, err := w.atOnce().Append(0, labels.FromStrings(model.MetricNameLabel, markName, markLabel, hex.EncodeToString(r.Log[:])), t, float64(r.Seq)); err != nil {
			return err
		}
	}
	if w.once == nil {
		return nil
	}
	if err := w.once.Commit(); err != nil {
		return err
	}
	if !r.Log.IsZero() {
		w.s.requests.add(place{r.Log, r.Seq}, t)
	}
	return nil
}

// atOnce returns the appender for floats that must not be stored twice.
func (w *writer) atOnce() storage.Appender {
	if w.once == nil {
		w.once = w.s.db.Appender(w.ctx)
	}
	return w.once
}

// undo takes back what is not committed. Streams whose sums have changed are met anew, and go on from what is stored.
func (w *writer) undo() {
	_ = w.app.Rollback() // what made us give up counts; what is committed stays
	if w.once != nil {
		_ = w.once.Rollback()
	}
	for _, hash := range w.changed {
		delete(w.s.identities, hash)
	}
}

// resume lets the sums of a stream of deltas go on from its series' last samples. A series that cannot be read begins anew,
// as that of a counter that was reset does. It fails only when the context is done.
func (w *writer) resume(id *identity) error {
	for i, ls := range id.labels {
		if id.refs[i], _ = w.app.(storage.GetRef).GetRef(ls, ls.Hash()); id.refs[i] == 0 {
			continue // it is new
		}
		if w.stored == nil {
			var err error
			if w.stored, err = w.s.db.Querier(w.s.db.Head().MinTime(), math.MaxInt64); err != nil {
				return err
			}
		}
		var matchers []*labels.Matcher
		ls.Range(func(l labels.Label) {
			matchers = append(matchers, labels.MustNewMatcher(labels.MatchEqual, l.Name, l.Value))
		})
		for set := w.stored.Select(w.ctx, false, nil, matchers...); set.Next(); {
			if !labels.Equal(set.At().Labels(), ls) { // it has more
				continue
			}
			for samples := set.At().Iterator(nil); samples.Next() == chunkenc.ValFloat; {
				t, v := samples.At()
				if id.last = max(id.last, t); !value.IsStaleNaN(v) {
					id.sum[i] = v
				}
			}
		}
	}
	return w.ctx.Err()
}

// count keeps what the deltas of a point were added up to.
func (w *writer) count(id *identity, sums []float64, t int64) {
	if id.last = t; !value.IsStaleNaN(sums[0]) {
		copy(id.sum, sums)
	}
	w.changed = append(w.changed, id.hash)
}
