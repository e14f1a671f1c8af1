// Package series is the quick look's store of metrics: Prometheus' time series database, with its query engine and its
// HTTP API. OTLP's data points become series as OpenTelemetry's compatibility specification for Prometheus says.
//
// It knows neither who sends points nor who asks.
package series

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/metric"
)

// Options configure a Store. Dir, MaxBytes and MaxAge are required.
type Options struct {
	Dir      string
	MaxBytes int64         // on disk
	MaxAge   time.Duration // of samples
	Log      *slog.Logger
	Metrics  *metric.Set
}

const (
	maxIdentities = 200_000          // points' identities that are remembered, of series that may be many times as many
	forget        = 10 * time.Minute // after which an identity that was not seen may go
	late          = time.Hour        // how much out of order samples may come
	maxSamples    = 10_000_000       // that one query may hold
	queryTimeout  = 30 * time.Second
)

// A Store keeps samples. Its methods may be called concurrently.
type Store struct {
	db      *tsdb.DB
	engine  *promql.Engine
	parser  parser.Parser
	handler http.Handler
	damaged []string
	dropped map[string]*metric.Counter // by reason
	repeats *metric.Counter

	mu         sync.Mutex // guards what follows: one appends at a time
	requests   requests
	changed    []uint64 // room for writer.changed
	identities map[uint64]*identity
	swept      time.Time
	seed       maphash.Seed
	metadata   map[string]metadata // by name
}

// metadata is what a metric says of itself.
type metadata struct {
	Type string `json:"type"`
	Help string `json:"help"`
	Unit string `json:"unit"`
}

// The reasons for which points are not stored.
const (
	outOfOrder  = "out_of_order"
	duplicate   = "duplicate"
	unsupported = "unsupported"
)

// Open opens the store. What is damaged is mended or set aside.
func Open(o Options) (*Store, error) {
	s := &Store{
		identities: make(map[uint64]*identity), metadata: make(map[string]metadata), dropped: make(map[string]*metric.Counter), swept: time.Now(), seed: maphash.MakeSeed(),
		parser:  parser.NewParser(parser.Options{}),
		repeats: o.Metrics.Counter("creel.quicklook.repeats", "Parts of requests that came again from a disk queue, and were stored already.", "{part}"),
	}
	for _, reason := range []string{outOfOrder, duplicate, unsupported} {
		s.dropped[reason] = o.Metrics.Sub(metric.Label{Name: "reason", Value: reason}).Counter("creel.quicklook.points.dropped", "Data points that were not stored.", "{record}")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	var err error
	if s.db, err = openDB(o); err != nil {
		aside := fmt.Sprintf("%s.damaged-%s", o.Dir, time.Now().UTC().Format("20060102T150405.000"))
		if os.Rename(o.Dir, aside) != nil {
			return nil, fmt.Errorf("open metrics: %w", err)
		}
		o.Log.Error("metrics cannot be read and are set aside", "kept_as", aside, "error", err)
		s.damaged = append(s.damaged, filepath.Base(aside))
		if s.db, err = openDB(o); err != nil {
			return nil, fmt.Errorf("open metrics: %w", err)
		}
	}
	if s.requests, err = recall(s.db); err != nil {
		o.Log.Error("cannot read which requests were stored; if one of them comes again, its deltas are counted twice", "error", err)
	}
	s.engine = promql.NewEngine(promql.EngineOpts{
		Logger: o.Log, MaxSamples: maxSamples, Timeout: queryTimeout, LookbackDelta: 5 * time.Minute, EnableAtModifier: true, EnableNegativeOffset: true, Parser: s.parser,
	})
	s.handler = s.routes()
	return s, nil
}

func openDB(o Options) (*tsdb.DB, error) {
	opts := tsdb.DefaultOptions()
	opts.RetentionDuration, opts.MaxBytes = o.MaxAge.Milliseconds(), o.MaxBytes
	opts.NoLockfile = true // the hub has the directory
	opts.StripeSize = 1024
	opts.OutOfOrderTimeWindow = late.Milliseconds()
	opts.WALSegmentSize = 16 << 20
	opts.HeadChunksWriteBufferSize = 64 << 10
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	return tsdb.Open(o.Dir, o.Log.With("component", "tsdb"), nil, opts, nil)
}

// Close ends the store.
func (s *Store) Close() error { return errors.Join(s.engine.Close(), s.db.Close()) }

// Handler answers Prometheus' query API, below /api/v1.
func (s *Store) Handler() http.Handler { return s.handler }

// Stats returns the bytes on disk, the series in memory, and the names of what was set aside.
func (s *Store) Stats() (bytes, series int64, damaged []string) {
	_ = filepath.WalkDir(s.db.Dir(), func(_ string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				bytes += info.Size()
			}
		}
		return nil // what has just gone counts nothing
	})
	return bytes, int64(s.db.Head().NumSeries()), s.damaged
}

// Export stores the points of batches. A *creel.Partial says how many could not be; another error that they are to come
// again. It does nothing if it has the request that ctx belongs to.
func (s *Store) Export(ctx context.Context, batches []*creel.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := creel.RequestOf(ctx)
	if s.requests.known[place{r.Log, r.Seq}] {
		s.repeats.Inc()
		return nil
	}
	now := time.Now()
	w := &writer{ctx: ctx, s: s, app: s.db.Appender(ctx), changed: s.changed[:0], now: now, lost: make(map[string]int)}
	err := w.store(batches, r)
	s.changed = w.changed
	if w.stored != nil {
		_ = w.stored.Close() // it only read
	}
	if err != nil {
		w.undo()
		return fmt.Errorf("store metrics: %w", err)
	}
	s.sweep(now)
	rejected, why := 0, ""
	for reason, n := range w.lost {
		s.dropped[reason].Add(uint64(n))
		rejected += n
		why = reason
	}
	if rejected > 0 {
		return &creel.Partial{Rejected: rejected, Reason: why}
	}
	return nil
}

// sweep forgets identities that were not seen for some time.
func (s *Store) sweep(now time.Time) {
	if len(s.identities) < maxIdentities && now.Sub(s.swept) < forget {
		return
	}
	s.swept = now
	for h, id := range s.identities {
		if now.Sub(id.seen) > forget || len(s.identities) > 2*maxIdentities {
			delete(s.identities, h)
		}
	}
}

// A writer stores the points of one Export.
type writer struct {
	ctx     context.Context
	s       *Store
	app     storage.Appender
	once    storage.Appender // for what must not come twice; nil: there is none
	stored  storage.Querier  // nil until it is needed
	changed []uint64         // hashes of identities whose sums have changed
	now     time.Time
	lost    map[string]int

	origin       *creel.Origin // of the point before
	originHash   uint64
	originLabels []label
}

// point stores one data point. An error is one of the database; what is wrong with the point is counted.
func (w *writer) point(m *creel.Metric) error {
	if m.Desc == nil || m.Desc.Name == "" {
		w.lost[unsupported]++
		return nil
	}
	id, err := w.identify(m)
	if err != nil {
		return err
	}
	if id == nil {
		w.lost[unsupported]++
		return nil
	}
	t, app := m.Time/1e6, w.app
	if t == 0 {
		t = w.now.UnixMilli()
	}
	if m.Desc.Kind == creel.ExponentialKind {
		return w.native(id, m, t)
	}
	if id.sum != nil && t < id.last-late.Milliseconds() {
		return w.refused(storage.ErrTooOldSample)
	}
	if id.sum != nil { // what is late goes into the next sum, which is right again: there are no sums that become less
		t = max(t, id.last+1)
	}
	if id.sum != nil || m.Time == 0 {
		app = w.atOnce()
	}
	values := id.values(m)
	for i, v := range values {
		ref, err := app.Append(id.refs[i], id.labels[i], t, v)
		if err != nil {
			return w.refused(err)
		}
		id.refs[i] = ref
	}
	if id.sum != nil {
		w.count(id, values, t)
	}
	return nil
}

// refused counts a point that came too late or twice.
func (w *writer) refused(err error) error {
	switch {
	case errors.Is(err, storage.ErrDuplicateSampleForTimestamp):
		w.lost[duplicate]++
	case errors.Is(err, storage.ErrOutOfOrderSample), errors.Is(err, storage.ErrOutOfBounds), errors.Is(err, storage.ErrTooOldSample):
		w.lost[outOfOrder]++
	default:
		return err
	}
	return nil
}

// maxSchema is the finest resolution of Prometheus' native histograms; OTLP's may be finer.
const maxSchema = 8

// native stores an exponential histogram as a native one.
func (w *writer) native(id *identity, m *creel.Metric, t int64) error {
	x := m.Exponential
	if x == nil || m.Desc.Temporality == creel.Delta || x.Scale < -4 {
		w.lost[unsupported]++
		return nil
	}
	down := max(0, x.Scale-maxSchema)
	h := &histogram.Histogram{Schema: x.Scale - down, ZeroThreshold: x.ZeroThreshold, ZeroCount: x.ZeroCount, Count: x.Count, Sum: x.Sum.Value}
	if !x.Sum.Valid {
		h.Sum = math.Float64frombits(value.NormalNaN)
	}
	h.PositiveSpans, h.PositiveBuckets = spans(x.Positive, down)
	h.NegativeSpans, h.NegativeBuckets = spans(x.Negative, down)
	if h.Validate() != nil {
		w.lost[unsupported]++
		return nil
	}
	ref, err := w.app.AppendHistogram(id.refs[0], id.labels[0], t, h, nil)
	if err != nil {
		return w.refused(err)
	}
	id.refs[0] = ref
	return nil
}

// spans returns buckets as Prometheus has them: its bucket i is OTLP's i-1, and counts are differences. down is by how
// many powers of two the resolution is lowered.
func spans(b creel.Buckets, down int32) ([]histogram.Span, []int64) {
	if len(b.Counts) == 0 {
		return nil, nil
	}
	first := b.Offset >> down
	counts := make([]int64, ((b.Offset+int32(len(b.Counts))-1)>>down)-first+1)
	for i, n := range b.Counts {
		counts[((b.Offset+int32(i))>>down)-first] += int64(n)
	}
	for i := len(counts) - 1; i > 0; i-- {
		counts[i] -= counts[i-1]
	}
	return []histogram.Span{{Offset: first + 1, Length: uint32(len(counts))}}, counts
}
