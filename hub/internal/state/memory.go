package state

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"
)

// always is when a lease in memory ends by itself.
var always = time.Unix(1<<40, 0)

// history is how many changes a Memory remembers for those who watch.
const history = 10_000

// A Memory is a control state in memory, the twin of etcd's. Open gives each hub a Store of its own on it. The zero value
// is empty.
type Memory struct {
	mu       sync.Mutex
	revision int64
	entries  map[string]memoryEntry
	log      []Entry // the last changes, oldest first
	changed  chan struct{}
}

type memoryEntry struct {
	Entry
	owner *memoryStore // nil: not leased
}

// Open returns a Store.
func (m *Memory) Open() Store { return &memoryStore{m: m, lease: NewLease(always)} }

// change makes a new revision. m.mu is held.
func (m *Memory) change(key string, value []byte, owner *memoryStore) int64 {
	m.revision++
	m.write(Entry{Key: key, Value: bytes.Clone(value), Revision: m.revision, Leased: owner != nil}, owner)
	return m.revision
}

// write makes a change of a revision. m.mu is held.
func (m *Memory) write(e Entry, owner *memoryStore) {
	if m.entries == nil {
		m.entries = make(map[string]memoryEntry)
	}
	if e.Value == nil {
		delete(m.entries, e.Key)
	} else {
		m.entries[e.Key] = memoryEntry{e, owner}
	}
	m.log = append(m.log, e)
	if len(m.log) > history {
		m.log = slices.Clone(m.log[len(m.log)-history/2:])
	}
	if m.changed != nil {
		close(m.changed)
		m.changed = nil
	}
}

type memoryStore struct {
	m     *Memory
	lease *Lease // closed with the store
	once  sync.Once
}

func (s *memoryStore) check(ctx context.Context) error {
	select {
	case <-s.lease.lost:
		return errClosed
	default:
		return ctx.Err()
	}
}

// Get returns an entry.
func (s *memoryStore) Get(ctx context.Context, key string) (Entry, error) {
	if err := s.check(ctx); err != nil {
		return Entry{}, err
	}
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	e, ok := s.m.entries[key]
	if !ok {
		return Entry{}, ErrNotFound
	}
	e.Value = bytes.Clone(e.Value)
	return e.Entry, nil
}

// List returns the entries under prefixes.
func (s *memoryStore) List(ctx context.Context, prefixes ...string) ([]Entry, int64, error) {
	if err := s.check(ctx); err != nil {
		return nil, 0, err
	}
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	list := []Entry{}
	for _, prefix := range prefixes {
		from := len(list)
		for key, e := range s.m.entries {
			if strings.HasPrefix(key, prefix) {
				e.Value = bytes.Clone(e.Value)
				list = append(list, e.Entry)
			}
		}
		slices.SortFunc(list[from:], func(a, b Entry) int { return cmp.Compare(a.Key, b.Key) })
	}
	return list, s.m.revision, nil
}

// Put writes an entry.
func (s *memoryStore) Put(ctx context.Context, key string, value []byte, leased bool, c Condition) (int64, error) {
	if err := s.check(ctx); err != nil {
		return 0, err
	}
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	if !c.Any && s.m.entries[key].Revision != c.Revision {
		return 0, ErrConflict
	}
	if value == nil {
		value = []byte{}
	}
	var owner *memoryStore
	if leased {
		owner = s
	}
	return s.m.change(key, value, owner), nil
}

// Delete removes an entry.
func (s *memoryStore) Delete(ctx context.Context, key string, c Condition) error {
	if err := s.check(ctx); err != nil {
		return err
	}
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	e, ok := s.m.entries[key]
	if !c.Any && e.Revision != c.Revision {
		return ErrConflict
	}
	if ok {
		s.m.change(key, nil, nil)
	}
	return nil
}

// Watch calls f with every change.
func (s *memoryStore) Watch(ctx context.Context, prefix string, after int64, f func(Entry) error) error {
	for {
		if err := s.check(ctx); err != nil {
			return err
		}
		s.m.mu.Lock()
		if len(s.m.log) > 0 && s.m.log[0].Revision > after+1 {
			s.m.mu.Unlock()
			return ErrCompacted
		}
		i, _ := slices.BinarySearchFunc(s.m.log, after+1, func(e Entry, r int64) int { return cmp.Compare(e.Revision, r) })
		news := slices.Clone(s.m.log[i:])
		if s.m.changed == nil {
			s.m.changed = make(chan struct{})
		}
		changed := s.m.changed
		s.m.mu.Unlock()
		for i, e := range news {
			after = e.Revision
			e.More = i+1 < len(news) && news[i+1].Revision == e.Revision && strings.HasPrefix(news[i+1].Key, prefix)
			if strings.HasPrefix(e.Key, prefix) {
				if err := f(e); err != nil {
					return err
				}
			}
		}
		if len(news) > 0 {
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
		case <-s.lease.lost:
		}
	}
}

// Lease is lost with Close alone.
func (s *memoryStore) Lease() *Lease { return s.lease }

// Close removes what was leased.
func (s *memoryStore) Close() error {
	s.once.Do(func() {
		close(s.lease.lost)
		s.m.mu.Lock()
		defer s.m.mu.Unlock()
		var own []string
		for key, e := range s.m.entries {
			if e.owner == s {
				own = append(own, key)
			}
		}
		if len(own) > 0 {
			s.m.revision++
		}
		slices.Sort(own)
		for i, key := range own { // at once, as etcd does
			s.m.write(Entry{Key: key, Revision: s.m.revision, More: i+1 < len(own)}, nil)
		}
	})
	return nil
}
