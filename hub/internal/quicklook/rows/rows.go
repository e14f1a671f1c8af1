// Package rows is the quick look's store of logs and spans: SQLite, one file for each hour, so that what is too old goes
// with its file. Spans are rows; log records lie in compressed blocks with filters.
//
// It knows neither who sends records nor who asks for them.
package rows

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/creelhq/creel/metric"
)

// Options configure a Store. Dir, MaxBytes and MaxAge are required.
type Options struct {
	Dir      string
	MaxBytes int64         // of all files
	MaxAge   time.Duration // of records
	Log      *slog.Logger
	Metrics  *metric.Set
	Now      func() time.Time // nil: time.Now
}

const (
	hourLayout = "2006-01-02T15"
	suffix     = ".db"
	future     = 10 * time.Minute // how far ahead a record's time may be to be believed
	idle       = 2 * time.Minute  // after which a file is closed
)

// A Store keeps logs and spans. Its methods may be called concurrently.
type Store struct {
	o       Options
	codec   codec
	deleted *metric.Counter
	repeats *metric.Counter

	writing  sync.Mutex // one writes at a time
	requests requests

	mu      sync.Mutex
	files   []*file // by hour, oldest first
	damaged []string
	tails   map[*tail]bool
}

// Open opens the store. It opens no file: damaged ones are set aside when they are used.
func Open(o Options) (*Store, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Store{
		o: o, codec: newCodec(), tails: make(map[*tail]bool), requests: newRequests(),
		deleted: o.Metrics.Counter("creel.quicklook.files.deleted", "Files of logs and spans that were deleted because they were too old or too much.", "{file}"),
		repeats: o.Metrics.Counter("creel.quicklook.repeats", "Parts of requests that came again from a disk queue, and were stored already.", "{part}"),
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open logs and spans: %w", err)
	}
	entries, err := os.ReadDir(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("open logs and spans: %w", err)
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), suffix)
		if strings.Contains(e.Name(), ".damaged-") && !strings.HasSuffix(e.Name(), "-wal") && !strings.HasSuffix(e.Name(), "-shm") {
			s.damaged = append(s.damaged, e.Name())
		}
		if hour, err := time.Parse(hourLayout, name); ok && err == nil {
			s.files = append(s.files, newFile(s, hour))
		}
	}
	return s, nil
}

// Close ends the store.
func (s *Store) Close() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	var errs []error
	for _, f := range s.all() {
		errs = append(errs, f.close())
	}
	return errors.Join(errs...)
}

// all returns the files as they are now, oldest first.
func (s *Store) all() []*file {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.files)
}

// fileOf returns the file of an hour, making it if it is not there.
func (s *Store) fileOf(hour time.Time) *file {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, found := slices.BinarySearchFunc(s.files, hour, func(f *file, h time.Time) int { return f.hour.Compare(h) })
	if !found {
		s.files = slices.Insert(s.files, i, newFile(s, hour))
	}
	return s.files[i]
}

// hourOf returns the hour that a record is filed under: its own, or now's when that is not to be believed.
func (s *Store) hourOf(t, now time.Time) time.Time {
	if t.After(now.Add(future)) || t.Before(now.Add(-s.o.MaxAge)) {
		t = now
	}
	return t.UTC().Truncate(time.Hour)
}

// setAside renames a damaged file, so that the rest serves.
func (s *Store) setAside(f *file, why error) {
	_ = f.close() // it is damaged
	aside := fmt.Sprintf("%s.damaged-%s", f.path, s.o.Now().UTC().Format("20060102T150405.000"))
	for _, end := range []string{"", "-wal", "-shm"} {
		if err := os.Rename(f.path+end, aside+end); err != nil && !errors.Is(err, os.ErrNotExist) {
			s.o.Log.Error("set a damaged file aside", "file", f.path+end, "error", err)
		}
	}
	s.o.Log.Error("a file of logs and spans is damaged and set aside; the others serve", "kept_as", aside, "error", why)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files = slices.DeleteFunc(s.files, func(x *file) bool { return x == f })
	s.damaged = append(s.damaged, filepath.Base(aside))
}

// Retain deletes the files that are too old or too much, and closes those that nobody uses. It is to be called each
// minute or so.
func (s *Store) Retain() error {
	now := s.o.Now()
	total := int64(0)
	files := s.all()
	sizes := make([]int64, len(files))
	for i, f := range files {
		sizes[i] = f.size()
		total += sizes[i]
	}
	var errs []error
	for i, f := range files {
		old := f.hour.Add(time.Hour).Before(now.Add(-s.o.MaxAge))
		last := i == len(files)-1
		if old || total > s.o.MaxBytes && !last {
			total -= sizes[i]
			errs = append(errs, s.remove(f))
			continue
		}
		f.rest(now)
	}
	return errors.Join(errs...)
}

func (s *Store) remove(f *file) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	s.files = slices.DeleteFunc(s.files, func(x *file) bool { return x == f })
	s.mu.Unlock()
	s.deleted.Inc()
	_ = f.close() // it is deleted anyway
	var errs []error
	for _, end := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(f.path + end); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Stats returns the bytes on disk, when the oldest file begins, and the names of what was set aside.
func (s *Store) Stats() (bytes int64, oldest time.Time, damaged []string) {
	files := s.all()
	for _, f := range files {
		bytes += f.size()
	}
	if len(files) > 0 {
		oldest = files[0].hour
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes, oldest, slices.Clone(s.damaged)
}

// An id orders records by millisecond, and within one by arrival. It is the row's key, so that no index is needed.
const counterBits = 20

func idAt(t time.Time) int64 { return t.UnixMilli() << counterBits }

func timeOf(id int64) time.Time { return time.UnixMilli(id >> counterBits).UTC() }

// ranged is a file and the first and last id that it has of a kind.
type ranged struct {
	*file
	first, last int64
}

// within returns the files that have records of a kind with ids in [from, to), and why there may be more.
func (s *Store) within(ctx context.Context, k kind, from, to int64) (list []ranged, partial string) {
	for _, f := range s.all() {
		first, last, err := f.span(ctx, k)
		if err != nil {
			partial = cmp.Or(partial, fmt.Sprintf("the file of %s cannot be read: %v", f.hour.Format(hourLayout), err))
			continue
		}
		if last >= from && first < to && last != 0 {
			list = append(list, ranged{f, first, last})
		}
	}
	return list, partial
}
