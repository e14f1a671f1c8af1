// Package quicklook is the hub's store for a first look: metrics in rooms of their own (series), logs and spans in
// another (rows), and the exporter that fills both.
//
// It keeps what fits, for as long as it may, and says what it could not keep. A request from a disk queue is stored once,
// however often it comes, also when the process is killed in between: each room keeps the places of the requests that it
// has, together with their records. It knows neither who asks nor who sent.
package quicklook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/hub/internal/quicklook/rows"
	"github.com/creelhq/creel/hub/internal/quicklook/series"
	"github.com/creelhq/creel/metric"
)

// Options configure a Store. Dir is required.
type Options struct {
	Dir      string
	MaxBytes int64         // of all files; 0: 4 GiB. Half is for metrics, half for logs and spans
	MaxAge   time.Duration // of records; 0: 7 days
	Log      *slog.Logger
	Metrics  *metric.Set

	now func() time.Time // for tests: what logs and spans are filed by; nil: time.Now
}

// A Store keeps records. Its methods may be called concurrently.
type Store struct {
	Rows   *rows.Store
	Series *series.Store

	dir  string
	stop context.CancelFunc
	done sync.WaitGroup

	mu      sync.Mutex
	stopped string    // why nothing is stored
	looked  time.Time // when the disk's room was last looked at
	full    bool
}

// reserve is what the quick look leaves free on its disk, for those to whom it matters more: the control state and the
// positions of collectors.
const reserve = 32 << 20

// Open opens the store. Damaged files are set aside, the others serve.
func Open(o Options) (*Store, error) {
	if o.MaxBytes == 0 {
		o.MaxBytes = 4 << 30
	}
	if o.MaxAge == 0 {
		o.MaxAge = 7 * 24 * time.Hour
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = metric.NewSet()
	}
	r, err := rows.Open(rows.Options{Dir: filepath.Join(o.Dir, "rows"), MaxBytes: o.MaxBytes / 2, MaxAge: o.MaxAge, Log: o.Log, Metrics: o.Metrics, Now: o.now})
	if err != nil {
		return nil, err
	}
	m, err := series.Open(series.Options{Dir: filepath.Join(o.Dir, "series"), MaxBytes: o.MaxBytes / 2, MaxAge: o.MaxAge, Log: o.Log, Metrics: o.Metrics})
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	s := &Store{Rows: r, Series: m, dir: o.Dir}
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	s.done.Go(func() { s.retain(ctx, o.Log) })
	return s, nil
}

// retain deletes each minute what is too old or too much.
func (s *Store) retain(ctx context.Context, log *slog.Logger) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := s.Rows.Retain(); err != nil {
				log.Error("delete old logs and spans", "error", err)
			}
		}
	}
}

// Close ends the store. Nobody may use it any more.
func (s *Store) Close() error {
	s.stop()
	s.done.Wait()
	return errors.Join(s.Rows.Close(), s.Series.Close())
}

// Plugin returns the exporter that stores in s. Its Config is empty. With a nil Store it can be configured, but not opened.
func (s *Store) Plugin() creel.Plugin {
	type none struct{}
	return creel.NewExporter("quicklook", "Stores in the hub's quick look: what its web UI and its API show.", func(none, creel.Host) (creel.Exporter, error) {
		if s == nil {
			return nil, errors.New("only a hub has a quick look: run this configuration with creel hub -c FILE")
		}
		return creel.ExporterFunc(s.export), nil
	})
}

// export stores batches. When the disk is full they are refused, not retried: a first look must not hold up those who
// send, nor the other exporters of its pipelines. Those in a disk queue wait there: it holds nobody up.
func (s *Store) export(ctx context.Context, batches []*creel.Batch) error {
	err := s.room()
	if err != nil && creel.RequestOf(ctx).Log.IsZero() {
		err = creel.Permanent(err)
	}
	if err == nil {
		switch batches[0].Signal() {
		case creel.Logs:
			err = s.Rows.ExportLogs(ctx, batches)
		case creel.Traces:
			err = s.Rows.ExportSpans(ctx, batches)
		case creel.Metrics:
			err = s.Series.Export(ctx, batches)
		}
	}
	partial := (*creel.Partial)(nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped = ""; err != nil && !errors.As(err, &partial) && ctx.Err() == nil {
		s.stopped = err.Error()
	}
	return err
}

// room fails when the disk has less than reserve left. It looks once a second.
func (s *Store) room() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); now.Sub(s.looked) > time.Second {
		free, known := freeBytes(s.dir)
		s.looked, s.full = now, known && free < reserve
	}
	if s.full {
		return fmt.Errorf("the disk of %s is full: less than %d MiB are free; make room, or give the quick look less with --max-size", s.dir, reserve>>20)
	}
	return nil
}

// Status returns how the store is.
func (s *Store) Status() api.QuickLook {
	bytes, oldest, damaged := s.Rows.Stats()
	more, n, set := s.Series.Stats()
	s.mu.Lock()
	defer s.mu.Unlock()
	return api.QuickLook{Bytes: bytes + more, Series: n, Oldest: oldest, Stopped: s.stopped, Damaged: append(damaged, set...)}
}
