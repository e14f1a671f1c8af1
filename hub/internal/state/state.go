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
	More     bool // of a Watch: another change of the same revision follows; a lease takes all that hangs on it at one
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
	// List returns the entries under prefixes, for each by key, as they all were at the revision that it returns.
	List(ctx context.Context, prefixes ...string) ([]Entry, int64, error)
	// Put writes an entry and returns its revision. A leased entry disappears when this Store is closed or has lost its
	// lease.
	Put(ctx context.Context, key string, value []byte, leased bool, c Condition) (int64, error)
	// Delete removes an entry; that it is not there is no error, unless c says so.
	Delete(ctx context.Context, key string, c Condition) error
	// Watch calls f with every change under a prefix after a revision, in order, until ctx is done or f fails. It
	// returns ErrCompacted when changes after the revision are not known any more: then List, and watch from there.
	Watch(ctx context.Context, prefix string, after int64, f func(Entry) error) error
	// Lease returns the lease of now, or the one that the next leased Put gets. Ask before putting what is to be put again when
	// that is lost.
	Lease() *Lease
	// Close ends the lease and everything else.
	Close() error
}

// A Cluster is a Store that knows which processes keep it: all that lie in etcd.
type Cluster interface {
	Store
	// Members asks them all how they are; that takes up to two seconds if some do not answer.
	Members(ctx context.Context) ([]Member, error)
}

// A Member is an etcd that keeps a control state.
type Member struct {
	ID      string // etcd's, hexadecimal
	Name    string // of an etcd within a hub the hub's id; empty: it was added, and has not started yet
	Peer    string // the URL at which the others reach it
	Self    bool   // it is within this process
	Learner bool   // it is being brought up to date, and does not count yet
	Leader  bool
	Healthy bool  // it answers; of one within this process: it knows who leads
	Size    int64 // bytes that its database has on disk; 0: not known, as of etcds within other hubs
	Full    bool  // its database has no room, so that nothing can be written: alarm NOSPACE
}

// An OwnCluster is an etcd within, of which each hub keeps a member.
type OwnCluster interface {
	Cluster
	// ID returns that of the member within this process.
	ID() string
	// Size returns the bytes that the database of that member has on disk. It is cheap.
	Size() int64
	// Full reports whether nothing can be written because a member has no room.
	Full() bool
	// Add adds a member for a hub that joins, and returns its id, and the Peer of each there is then. A member that the hub had before
	// and whose data it has not is removed. It is a learner, which keeps nobody from working if it never starts, and makes itself
	// one that counts when it is up to date. The error is ErrAlone if this one is no member.
	Add(ctx context.Context, j Joiner) (id string, peers []string, err error)
	// Remove removes a hub's member for good; it may be that of this process, which ends then. The error is ErrNotFound if there is
	// none; it is refused if too few would be left that work.
	Remove(ctx context.Context, name string) error
}

// A Joiner is a hub that is to keep a member.
type Joiner struct {
	Name   string // its id
	Peer   string // the URL at which the others reach its etcd
	Before string // Peer of an attempt before; empty: none
	ID     string // of the member whose data it has; empty: none
}

// What the methods of a Store fail with.
var (
	ErrNotFound  = errors.New("there is no such entry")
	ErrConflict  = errors.New("somebody else has changed the entry")
	ErrCompacted = errors.New("the changes since are not known any more")
	ErrFull      = errors.New("the control state is full: nothing can be written to it until there is room. Delete documents or tokens that nobody needs: etcd within hubs frees by itself what that leaves; one outside is to be compacted and defragmented, and then its alarm disarmed: etcdctl compact, defrag, alarm disarm")
	ErrRemoved   = errors.New("this hub was removed from those that keep the control state together")
	ErrAlone     = errors.New("this hub keeps its control state to itself: no other can reach it")
	errClosed    = errors.New("the control state is closed")
)
