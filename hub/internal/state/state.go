// Package state is the hub's control state: small values under keys, with revisions, compare-and-swap, leases and watch.
// It lies in etcd, embedded or a cluster outside, or, for tests and tools, in memory.
//
// Only this package knows etcd. It knows nothing of what the values mean.
package state

import (
	"context"
	"errors"
)

// An Entry is a value under a key. Revision grows with every change of the store; it is that of the entry's last change.
type Entry struct {
	Key      string
	Value    []byte // nil in an Event of a deletion
	Revision int64
	Leased   bool // it disappears with the lease of the Store that has put it
}

// A Condition must hold for a Put or Delete; else it fails with ErrConflict.
type Condition struct {
	Any      bool  // nothing is asked
	Revision int64 // the entry's revision must be this; 0: there must be none
}

// Always asks nothing.
func Always() Condition { return Condition{Any: true} }

// Unchanged asks that the entry is as it was at a revision, 0 for absent.
func Unchanged(revision int64) Condition { return Condition{Revision: revision} }

// A Store holds a control state. Its methods may be called concurrently. Keys are paths such as agents/<id>.
type Store interface {
	// Get returns an entry, or ErrNotFound.
	Get(ctx context.Context, key string) (Entry, error)
	// List returns the entries under a prefix, by key, as they all were at the revision that it returns.
	List(ctx context.Context, prefix string) ([]Entry, int64, error)
	// Put writes an entry and returns its revision. A leased entry disappears when this Store is closed or has lost its
	// lease; see Lost.
	Put(ctx context.Context, key string, value []byte, leased bool, c Condition) (int64, error)
	// Delete removes an entry; that it is not there is no error, unless c says so.
	Delete(ctx context.Context, key string, c Condition) error
	// Watch calls f with every change under a prefix after a revision, in order, until ctx is done or f fails. It
	// returns ErrCompacted when changes after the revision are not known any more: then List, and watch from there.
	Watch(ctx context.Context, prefix string, after int64, f func(Entry) error) error
	// Lost returns a channel that is closed when the lease of now is lost: what was put under it is gone or will be, and
	// the next leased Put gets another. Ask before putting what is to be put again then.
	Lost() <-chan struct{}
	// Close ends the lease and everything else.
	Close() error
}

// What the methods of a Store fail with.
var (
	ErrNotFound  = errors.New("there is no such entry")
	ErrConflict  = errors.New("somebody else has changed the entry")
	ErrCompacted = errors.New("the changes since are not known any more")
	errClosed    = errors.New("the control state is closed")
)
