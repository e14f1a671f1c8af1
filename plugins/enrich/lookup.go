package enrich

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/metric"
)

// lookup is a table and what of it is to be added.
type lookup struct {
	Lookup
	names   []string // of the attributes, sorted
	columns []string // where they are
	missed  *metric.Counter
	table   atomic.Pointer[table]
	seen    fs.FileInfo // of the file that was read last, with success or not; used by Run alone once there is one
}

// table is the rows of a file. It is immutable.
type table struct {
	rows  map[string]int // by key
	cells []string       // of all rows, as many each as columns are wanted
}

func newLookup(c Lookup, missed *metric.Counter) (*lookup, error) {
	l := &lookup{Lookup: c, missed: missed, names: slices.Sorted(maps.Keys(c.Add))}
	for _, name := range l.names {
		l.columns = append(l.columns, c.Add[name])
	}
	t, info, err := l.read()
	if err != nil {
		return nil, err
	}
	l.table.Store(t)
	l.seen = info
	return l, nil
}

// read reads the file.
func (l *lookup) read() (*table, fs.FileInfo, error) {
	f, err := os.Open(l.File)
	if err != nil {
		return nil, nil, fmt.Errorf("read table: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, fmt.Errorf("read table: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, info, fmt.Errorf("read table %s: is no regular file", l.File)
	}
	if info.Size() > int64(l.MaxSize) {
		return nil, info, fmt.Errorf("read table %s: has %d bytes, more than max_size, %v", l.File, info.Size(), l.MaxSize)
	}
	t, err := l.parse(io.LimitReader(f, int64(l.MaxSize)))
	if err != nil {
		return nil, info, fmt.Errorf("read table %s: %w", l.File, err)
	}
	return t, info, nil
}

// parse reads rows. The cells of a row alias one string.
func (l *lookup) parse(from io.Reader) (*table, error) {
	in := csv.NewReader(from)
	in.ReuseRecord = true
	header, err := in.Read()
	if errors.Is(err, io.EOF) {
		return nil, errors.New("line 1: there is no row with the names of columns")
	}
	if err != nil {
		return nil, lineError(err)
	}
	header[0] = strings.TrimPrefix(header[0], "\ufeff")
	at := func(column string) (int, error) {
		i := slices.Index(header, column)
		if i < 0 {
			return 0, fmt.Errorf("line 1: there is no column %q; there are %s", column, strings.Join(header, ", "))
		}
		return i, nil
	}
	key, err := at(l.Column)
	if err != nil {
		return nil, err
	}
	places := make([]int, len(l.columns))
	for i, c := range l.columns {
		if places[i], err = at(c); err != nil {
			return nil, err
		}
	}
	t := &table{rows: make(map[string]int)}
	for {
		row, err := in.Read()
		if errors.Is(err, io.EOF) {
			return t, nil
		}
		if err != nil {
			return nil, lineError(err)
		}
		k := row[key]
		if l.CaseInsensitive {
			k = string(appendLower(nil, k))
		}
		if _, twice := t.rows[k]; twice {
			continue
		}
		t.rows[k] = len(t.rows)
		for _, p := range places {
			t.cells = append(t.cells, row[p])
		}
	}
}

// lineError says where an error is as creel does.
func lineError(err error) error {
	if pe := (*csv.ParseError)(nil); errors.As(err, &pe) {
		return fmt.Errorf("line %d: %w", pe.Line, pe.Err)
	}
	return err
}

// cells returns what the row for a record says. It returns false when there is no row; not so if there is no key.
func (l *lookup) cells(w *work) (cells []string, found bool) {
	v := l.Key.Eval(w.rec)
	b := w.text[:0]
	switch v.Kind() {
	case creel.ValueEmpty, creel.ValueList, creel.ValueMap, creel.ValueBytes:
		return nil, true
	case creel.ValueString:
		if l.CaseInsensitive {
			b = appendLower(b, v.Str())
		} else {
			b = append(b, v.Str()...)
		}
	case creel.ValueInt:
		b = strconv.AppendInt(b, v.Int(), 10)
	default:
		b = v.Append(b)
	}
	w.text = b
	t := l.table.Load()
	row, ok := t.rows[string(b)]
	if !ok {
		return nil, false
	}
	n := len(l.columns)
	return t.cells[row*n : row*n+n], true
}

// appendLower appends s in lower case.
func appendLower(dst []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c >= utf8.RuneSelf:
			for _, r := range s[i:] {
				dst = utf8.AppendRune(dst, unicode.ToLower(r))
			}
			return dst
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst
}

// refresher is an enricher whose tables are read again when their files change.
type refresher struct {
	*enricher
	every  time.Duration
	log    *slog.Logger
	failed *metric.Counter
}

// Run looks for changed tables until ctx is done. It sends nothing.
func (r *refresher) Run(ctx context.Context, _ creel.Next) error {
	tick := time.NewTicker(r.every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			for _, l := range r.lookups {
				r.refresh(l)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// refresh reads a table again if its file has changed. What cannot be read is not tried again until it changes again.
func (r *refresher) refresh(l *lookup) {
	now, err := os.Stat(l.File)
	if err == nil && l.seen != nil && os.SameFile(now, l.seen) && now.ModTime().Equal(l.seen.ModTime()) && now.Size() == l.seen.Size() {
		return
	}
	if err != nil && l.seen == nil {
		return // still gone
	}
	t, info, err := l.read()
	l.seen = info
	if err != nil {
		r.failed.Inc()
		r.log.Error("table cannot be read, the one before stays", "error", err)
		return
	}
	l.table.Store(t)
	r.log.Info("table was read again", "file", l.File, "rows", len(t.rows))
}
