// Package deadletter keeps records that a far side refused for good, so that somebody can look at them, send them again
// or drop them. There is one bounded directory for a whole agent, a spool, from which the oldest go when it is full.
//
// It must not know who refuses records, nor how they are sent again.
package deadletter

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/creelhq/creel/spool"
)

// Options say how a Store works. The zero value is usable.
type Options struct {
	// MaxSize bounds the bytes on disk. Default 256 MiB.
	MaxSize int64
	// MaxLetters bounds the letters, and with them the memory: each takes about 130 bytes while it waits. Default 131072.
	MaxLetters int
	// Log is told, in a sentence, what an operator should know. It must not call the Store. Default: nothing.
	Log func(string)
	// FS is the file system. Default: the operating system's.
	FS spool.FS
}

// Errors of a Store.
var (
	ErrNotFound = errors.New("no such dead letter")
	ErrClosed   = errors.New("dead letters are closed")
)

// Stats is what a Store tells of itself. Counters count since Open.
type Stats struct {
	Records  uint64    // that wait
	Bytes    int64     // on disk
	MaxBytes int64     // Options.MaxSize
	Oldest   time.Time // no letter is older; zero when there is none
	Dropped  uint64    // records whose letters made room for others
	Lost     uint64    // records lost by damage
	Err      error     // why the disk does not do what it is asked for; nil when it does
}

// Store is a directory of letters that this process owns. All methods may be called concurrently.
//
// Invariant: every letter in index is in flight in the queue, so that it can be acknowledged at any time; it is in the
// queue's hands only while read is held. What was there at Open is taken when it is first asked for, because that reads it.
type Store struct {
	queue *spool.Queue
	chunk int64 // bytes that are given up at once when there is no room
	most  int   // Options.MaxLetters

	read   sync.Mutex // taking from the queue, and giving back; before mu
	loaded bool       // under read
	closed bool       // under read

	mu      sync.Mutex
	index   []entry // by seq
	names   map[string]string
	dropped uint64
}

// slack is more than the queue needs for an item besides its payload, in bytes.
const slack = 512

// entry is what is kept in memory of a letter.
type entry struct {
	seq      uint64
	time     int64 // Unix ns
	size     int64 // bytes
	records  uint32
	exporter string // one of names
}

// Open opens the store in dir, and makes it if need be. Damage is no error: it is counted and logged. Errors are
// spool.ErrInUse, spool.ErrNewer, and those of the disk.
func Open(dir string, o Options) (*Store, error) {
	if o.MaxSize <= 0 {
		o.MaxSize = 256 << 20
	}
	if o.MaxLetters <= 0 {
		o.MaxLetters = 1 << 17
	}
	chunk := max(o.MaxSize/64, 4<<10)
	q, err := spool.Open(dir, spool.Options{
		MaxSize: o.MaxSize, SegmentSize: chunk, WhenFull: spool.DropNewest, Order: spool.InOrder, Window: -1, Log: o.Log, FS: o.FS,
	})
	if err != nil {
		return nil, fmt.Errorf("open dead letters: %w", err)
	}
	return &Store{queue: q, chunk: chunk, most: o.MaxLetters, names: map[string]string{}}, nil
}

// Put keeps l, durably, and drops the oldest letters when there is no room. Its Seq and Time do not matter. It keeps nothing
// of l in memory. After an error the letter does not wait, unless a disk that failed turns out to have it: then it turns up later.
func (s *Store) Put(l Letter) error {
	l.Time = time.Now()
	it := spool.Item{Signal: byte(l.Signal), Codec: Codec, Records: l.Records, Payload: l.encode()}
	for {
		seq, err := s.queue.Append(context.Background(), it, spool.Held|spool.Synced)
		switch {
		case err == nil:
			s.add(spool.Taken{Item: it, Seq: seq}, &l)
			return s.keepFew()
		case !errors.Is(err, spool.ErrFull):
			return fmt.Errorf("keep dead letter: %w", err)
		}
		if st := s.queue.Stats(); st.Err != nil && st.Bytes+int64(len(it.Payload))+slack <= st.MaxBytes-s.chunk {
			return fmt.Errorf("keep dead letter: %w", errors.Join(st.Err, err)) // others fill the disk: to drop letters would not help
		}
		n, e := s.dropOldest(s.chunk, 0)
		if err = errors.Join(err, e); n == 0 || e != nil {
			return fmt.Errorf("keep dead letter: %w", err)
		}
	}
}

// add puts a letter that is in flight into the index.
func (s *Store) add(t spool.Taken, l *Letter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, found := s.find(t.Seq)
	if found {
		return
	}
	name, known := s.names[l.Exporter]
	if !known {
		name = l.Exporter
		s.names[name] = name
	}
	s.index = slices.Insert(s.index, i, entry{t.Seq, l.Time.UnixNano(), int64(len(t.Payload)), uint32(t.Records), name})
}

// find returns where seq is in the index, or would be. mu is held.
func (s *Store) find(seq uint64) (int, bool) {
	return slices.BinarySearchFunc(s.index, seq, func(e entry, seq uint64) int { return cmp.Compare(e.seq, seq) })
}

// keepFew drops what is more than MaxLetters, an eighth at once.
func (s *Store) keepFew() error {
	s.mu.Lock()
	many := len(s.index) > s.most
	s.mu.Unlock()
	if !many {
		return nil
	}
	_, err := s.dropOldest(0, s.most/8+1)
	return err
}

// load takes all that was in the queue at Open. read is held.
func (s *Store) load() error {
	if s.closed {
		return ErrClosed
	}
	for !s.loaded {
		t, ok, err := s.queue.TryNext()
		if err != nil {
			return fmt.Errorf("read dead letters: %w", err)
		}
		if !ok {
			s.loaded = true
			break
		}
		l := Read(t)
		s.add(t, &l)
	}
	return nil
}

// dropOldest gives up letters until those given up have so many bytes and are so many, and returns how many there were.
func (s *Store) dropOldest(size int64, count int) (n int, err error) {
	s.read.Lock()
	defer s.read.Unlock()
	if err := s.load(); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var seqs []uint64
	for ; n < len(s.index) && (size > 0 || n < count); n++ {
		e := &s.index[n]
		seqs = append(seqs, e.seq)
		size -= e.size
		s.dropped += uint64(e.records)
	}
	s.index = slices.Delete(s.index, 0, n)
	s.queue.Ack(seqs...)
	return n, nil
}

// Get returns the letter named seq, or ErrNotFound.
func (s *Store) Get(seq uint64) (Letter, error) {
	s.read.Lock()
	defer s.read.Unlock()
	if err := s.load(); err != nil {
		return Letter{}, err
	}
	s.mu.Lock()
	_, found := s.find(seq)
	s.mu.Unlock()
	if found {
		s.queue.Nack(seq) // and so it is what comes next
	}
	for found {
		t, ok, err := s.queue.TryNext()
		if err != nil {
			return Letter{}, fmt.Errorf("read letter %d: %w", seq, err)
		}
		if !ok {
			s.forget(seq)
			break
		}
		l := Read(t)
		if s.add(t, &l); t.Seq == seq {
			return l, nil
		}
	}
	return Letter{}, fmt.Errorf("%w: %d", ErrNotFound, seq)
}

// forget takes letters out of the index, and reports whether all were there.
func (s *Store) forget(seqs ...uint64) (all bool) {
	gone := slices.Clone(seqs)
	slices.Sort(gone)
	s.mu.Lock()
	defer s.mu.Unlock()
	before := len(s.index)
	s.index = slices.DeleteFunc(s.index, func(e entry) bool {
		_, found := slices.BinarySearch(gone, e.seq)
		return found
	})
	return before-len(s.index) == len(slices.Compact(gone))
}

// A Filter chooses letters. The zero Filter chooses all.
type Filter struct {
	Exporter string    // its id; "": any
	Since    time.Time // not those put before
}

// A Head is what is known of a letter without reading it.
type Head struct {
	Seq      uint64
	Time     time.Time
	Exporter string
	Records  int
	Bytes    int64 // of the letter
}

// Select returns the waiting letters that f chooses, oldest first.
func (s *Store) Select(f Filter) ([]Head, error) {
	s.read.Lock()
	defer s.read.Unlock()
	if err := s.load(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var heads []Head
	for _, e := range s.index {
		if t := time.Unix(0, e.time); f.Chooses(e.exporter, t) {
			heads = append(heads, Head{e.seq, t, e.exporter, int(e.records), e.size})
		}
	}
	return heads, nil
}

// Chooses reports whether f chooses a letter of an exporter that was put at t.
func (f Filter) Chooses(exporter string, t time.Time) bool {
	return (f.Exporter == "" || f.Exporter == exporter) && !t.Before(f.Since)
}

// List calls each with the waiting letters, oldest first, until it returns an error. Those that go meanwhile are left out.
func (s *Store) List(each func(Letter) error) error {
	heads, err := s.Select(Filter{})
	if err != nil {
		return err
	}
	for _, h := range heads {
		l, err := s.Get(h.Seq)
		switch {
		case errors.Is(err, ErrNotFound):
			continue
		case err == nil:
			err = each(l)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Drop drops letters for good. ErrNotFound: some were not there, and the others are dropped. That survives the death of the
// process at once, and that of the machine a second later.
func (s *Store) Drop(seqs ...uint64) error {
	s.read.Lock()
	defer s.read.Unlock()
	if err := s.load(); err != nil {
		return err
	}
	s.queue.Ack(seqs...)
	if !s.forget(seqs...) {
		return ErrNotFound
	}
	return nil
}

// Stats returns a snapshot.
func (s *Store) Stats() Stats {
	q := s.queue.Stats()
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{Records: q.Records, Bytes: q.Bytes, MaxBytes: q.MaxBytes, Oldest: q.Oldest, Dropped: s.dropped, Lost: q.Lost, Err: q.Err}
}

// Close makes everything durable and lets go of the directory.
func (s *Store) Close() error {
	s.read.Lock()
	defer s.read.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	return s.queue.Close()
}

// List calls each with the letters that wait in dir, oldest first, until it returns an error. Nobody needs to own dir, and
// another process may.
func List(dir string, each func(Letter) error) error {
	_, err := spool.Inspect(dir, nil, func(e spool.Entry) error {
		if e.Settled {
			return nil
		}
		e.Payload = bytes.Clone(e.Payload)
		return each(Read(e.Taken))
	})
	return err
}
