// Package spool is a queue on disk, usable by itself: what was appended comes out of Next until it is acknowledged, across
// crashes, damaged bytes and full disks. It knows payloads as bytes, and must not know what is in them, who makes them or
// where they go.
//
// The log is a row of segments, each a file of records named by its generation and first sequence (see format.go). Every
// record of a payload has a sequence; an Item takes as many as it holds, so a hole in the log tells how many records are
// gone. The writer's position is derived from the log. Acknowledgements have a log of their own, which is made durable
// before a segment is removed.
package spool

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// Options say how a queue works. The zero value is usable.
type Options struct {
	// MaxSize bounds the bytes on disk, the reserve included. Default 1 GiB, at least 64 KiB.
	MaxSize int64
	// WhenFull is what Append does when there is no room. Default Block.
	WhenFull WhenFull
	// MinFree is the bytes of the file system that the queue leaves to others. Default 0.
	MinFree int64
	// SegmentSize is the bytes of a segment, and of the reserve. Default 16 MiB, at most an eighth of MaxSize. A larger
	// record gets a segment of its own.
	SegmentSize int64
	// Order is how Next chooses. Default FreshFirst.
	Order Order
	// SyncEvery is how long Written items, and acknowledgements, may wait to be made durable. Default 1 s.
	SyncEvery time.Duration
	// ReadAhead bounds the bytes that are read before they are asked for, per lane. Default 256 KiB.
	ReadAhead int
	// Window is how many batch ids are remembered to recognise repeats. Default 16384; negative: none.
	Window int
	// Sources is of how many sources it is remembered which parts were taken, when the records are gone: those that were
	// appended last, with 16 ranges each on average, and at most 1024. While the records are there, it bounds the ranges of
	// a segment. Default 4096; negative: none.
	Sources int
	// Salvage lets Open count what cannot be read as lost. Without it, a disk that does not read fails Open.
	Salvage bool
	// Log is told, in a sentence, what an operator should know. It must not call the queue. Default: nothing.
	Log func(string)
	// FS is the file system. Default: the operating system's.
	FS FS

	manual bool // for tests: nothing happens in the background
}

// WhenFull is what Append does when there is no room.
type WhenFull string

// What to do when there is no room: wait for it, give up the oldest segment, or refuse the item with ErrFull.
const (
	Block      WhenFull = "block"
	DropOldest WhenFull = "drop_oldest"
	DropNewest WhenFull = "drop_newest"
)

// Order is how Next chooses between items.
type Order string

// FreshFirst gives three items of what came after the mark (see Queue.Mark) for one from before, so that a backlog
// neither delays what is new nor starves. InOrder gives the items in the order of their sequences.
const (
	FreshFirst Order = "fresh_first"
	InOrder    Order = "in_order"
)

// Item is what is spooled: some records of one signal, encoded.
type Item struct {
	ID            ID     // names the batch; zero: unnamed
	Signal, Codec byte   // the caller's
	Records       int    // how many records Payload holds, at least 1
	Payload       []byte // at most 128 MiB; Append does not keep it, Next gives it away
	Parts         []Part // what it was read from, at most 255; as Payload. Next gives none if they are damaged
}

// Taken is an Item that Next has handed out. It is in the caller's hands until Ack or Nack.
type Taken struct {
	Item
	Seq uint64 // of its first record
}

// How says when Append returns, and what for.
type How uint8

// Written: the operating system has it, so that it survives the death of the process. Synced: it is durable. With Held,
// the item counts as taken: Next hands it out only after Nack, for callers that deliver from memory. With Spill, it may
// use the reserve: for what a shutdown has to put down.
const (
	Written How = 0
	Synced  How = 1 << iota
	Held
	Spill
)

// What Append may return.
var (
	ErrFull      = errors.New("spool is full")
	ErrTooLarge  = errors.New("item is larger than the spool")
	ErrDuplicate = errors.New("batch is in the spool already") // with the sequence it has there, and as durable as asked for
	ErrClosed    = errors.New("spool is closed")
)

// Stats is what a queue tells of itself. Counters count since Open, and only grow. Whenever no call is under way, every
// record is in one place:
//
//	Found + Appended = Acked + Lost + Dropped + Records
type Stats struct {
	Bytes      int64     // on disk, acknowledgements and reserve included
	Reserve    int64     // of these, what is kept for acknowledgements and an orderly end
	MaxBytes   int64     // Options.MaxSize
	Segments   int       // files
	Records    uint64    // there, or in the hands of callers: neither acknowledged, lost nor dropped
	Taken      int       // items in the hands of callers of Next, or appended as Held
	Unsynced   int64     // bytes not yet durable
	Oldest     time.Time // no item is older; zero when there is none
	Found      uint64    // records at Open, those included that it found to be lost
	Appended   uint64    // records
	Acked      uint64    // records
	Lost       uint64    // records lost by damage, found at Open and since
	Dropped    uint64    // records given up for newer ones, by DropOldest
	Refused    uint64    // records that Append answered with ErrFull: never in the queue
	Duplicates uint64    // items that were repeats: not appended either
	Torn       int64     // bytes cut off at Open: what the last run had not finished writing
	Rewrites   uint64    // segments that were written anew after a failed sync
	Full       bool      // there is no room now
	Err        error     // why the disk does not do what it is asked for; nil when it does
}

// Queue is a spool that this process owns. All methods may be called concurrently.
//
// Invariants: segs is sorted by base, and the last one stays until there is a newer one, for the position is derived from
// it. A segment is removed only after acknowledgements for all of it are durable.
type Queue struct {
	o     atomic.Pointer[Options] // Configure replaces them
	asked int64                   // Options.SegmentSize as Open was told
	dir   string
	fs    FS
	owner io.Closer
	id    [16]byte

	// Locks, in the order in which they are taken. commit: making durable, removing. write: appending. read: reading.
	commit lock
	write  sync.Mutex
	read   sync.Mutex
	acks   ackLog
	spare  reserve
	mu     sync.Mutex // what follows

	closed   bool
	segs     []*segment
	active   *segment   // appended to; changes under write and mu
	dirty    []*segment // have bytes that are not durable, in order
	next     uint64     // sequence of the next record
	gen      uint64     // generation of the next segment
	used     int64      // bytes of segs
	unsynced int64
	settled  spans // sequences that are acknowledged, lost or dropped
	damaged  spans // those of them that are lost
	voided   spans // those that were lost before they were durable
	unlinked bool  // files were removed since the directory was last synced
	flights  map[uint64]flight
	back     []uint64 // those of flights that Nack gave back, in order
	seen     *seen
	gone     *history
	fresh    *cursor
	backlog  []*cursor
	turn     int
	stats    Stats
	freeLeft int64 // bytes that may be written before Free is asked again
	wake     chan struct{}
	waiting  bool

	suspects bool                                       // the file of suspect is there; under commit
	begun    bool                                       // a segment was begun since Open; under write
	head     [recHeader + maxPrefix + smallPayload]byte // under write
	kick     chan struct{}                              // to the background
	urgent   atomic.Bool                                // there is something to remove, or much to make durable
	quit     chan struct{}
	done     sync.WaitGroup
}

// A segment is one file of the log.
type segment struct {
	name      string
	gen, base uint64
	created   int64
	end       int64  // bytes of whole records, the file header included
	next      uint64 // the sequence after its last record
	file      File   // to write; nil once all is written and durable
	synced    int64  // bytes that are durable
	syncedSeq uint64 // sequences below it are durable
	linked    bool   // its directory entry is durable
	sealed    bool   // never appended to again
	poisoned  bool   // a sync failed: what was not durable is to be written anew, elsewhere
	gone      bool   // removed
	parts     pieces // of its records
	logged    bool   // its ids and parts are among the acknowledgements
}

// flight is an item in somebody's hands, or given back.
type flight struct {
	seg     *segment
	off     int64
	size    int64
	records uint32
	back    bool
	fate    byte // ackDropped or ackLost: it is not on the disk any more
}

// Open opens the queue in dir, and makes it if need be. Damage of any kind is never an error: it is counted in Stats.Lost
// and told to Options.Log. Errors are: ErrInUse, a directory that cannot be used, files that cannot be opened or read, and
// a spool that a newer version has written, which is left untouched.
func Open(dir string, o Options) (*Queue, error) {
	asked := o.SegmentSize
	o.setDefaults()
	if err := refuseNewer(o.FS, dir); err != nil {
		return nil, fmt.Errorf("open spool %s: %w", dir, err)
	}
	owner, err := o.FS.Own(dir)
	if err != nil {
		return nil, fmt.Errorf("open spool %s: %w", dir, err)
	}
	q := &Queue{
		asked: asked, dir: dir, fs: o.FS, owner: owner, commit: make(lock, 1), flights: map[uint64]flight{},
		seen: newSeen(o.Window), gone: newHistory(o.Sources),
		wake: make(chan struct{}), kick: make(chan struct{}, 1), quit: make(chan struct{}),
	}
	q.o.Store(&o)
	q.acks.q = q
	q.unlinked = true // by the last run, perhaps
	q.spare = reserve{fs: o.FS, dir: dir}
	q.spare.adjust(&o)
	if err := q.load(); err != nil {
		owner.Close()
		return nil, fmt.Errorf("open spool %s: %w", dir, err)
	}
	if !o.manual {
		q.done.Go(q.background)
	}
	return q, nil
}

func (o *Options) setDefaults() {
	pick := func(v *int64, standard, least, most int64) {
		if *v <= 0 {
			*v = standard
		}
		*v = max(min(*v, most), least)
	}
	pick(&o.MaxSize, 1<<30, 64<<10, 1<<60)
	pick(&o.SegmentSize, 16<<20, 4<<10, o.MaxSize/8)
	if o.WhenFull == "" {
		o.WhenFull = Block
	}
	if o.Order == "" {
		o.Order = FreshFirst
	}
	if o.SyncEvery <= 0 {
		o.SyncEvery = time.Second
	}
	if o.ReadAhead <= 0 {
		o.ReadAhead = 256 << 10
	}
	if o.Window == 0 {
		o.Window = 16384
	}
	if o.Sources == 0 {
		o.Sources = 4096
	}
	if o.Log == nil {
		o.Log = func(string) {}
	}
	if o.FS == nil {
		o.FS = osFS{}
	}
}

// options returns what is in force; it is not to be changed.
func (q *Queue) options() *Options { return q.o.Load() }

// Configure changes MaxSize, WhenFull, MinFree, Order and SyncEvery of a queue in use; the other options stay as they were
// at Open. It wakes who waits for room. When MaxSize is less than what is there, nothing is given up but by DropOldest, at
// the next Append. A change to FreshFirst marks (see Mark).
func (q *Queue) Configure(o Options) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := *q.options()
	old := n.Order
	n.MaxSize, n.WhenFull, n.MinFree, n.Order, n.SyncEvery = o.MaxSize, o.WhenFull, o.MinFree, o.Order, o.SyncEvery
	n.SegmentSize = q.asked // its bound is a matter of MaxSize
	n.setDefaults()
	q.o.Store(&n)
	q.spare.adjust(&n)
	q.freeLeft = 0
	if n.Order == FreshFirst && old != FreshFirst {
		q.mark()
	}
	q.wakeAll()
	q.poke(false)
}

// ID names the spool: drawn when it was made, and kept in its files.
func (q *Queue) ID() [16]byte { return q.id }

// path returns the name of a file of the queue.
func (q *Queue) path(name string) string { return filepath.Join(q.dir, name) }

func (q *Queue) logf(format string, args ...any) {
	q.options().Log(fmt.Sprintf(format, args...))
}

// Stats returns a snapshot.
func (q *Queue) Stats() Stats {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.stats
	s.MaxBytes = q.options().MaxSize
	s.Reserve = q.spare.size.Load()
	s.Bytes = q.used + q.acks.size.Load() + s.Reserve
	s.Segments = len(q.segs)
	s.Taken = len(q.flights) - len(q.back)
	s.Unsynced = q.unsynced
	if s.Records > 0 {
		for _, g := range q.segs {
			if !q.settled.covers(g.base, g.next) {
				s.Oldest = time.Unix(0, g.created)
				break
			}
		}
	}
	return s
}

// Sync makes all that was appended and acknowledged so far durable, and removes what is not needed any more.
func (q *Queue) Sync(ctx context.Context) error {
	if err := q.commit.lock(ctx); err != nil {
		return err
	}
	defer q.commit.unlock()
	if q.isClosed() {
		return ErrClosed
	}
	return q.maintain()
}

func (q *Queue) isClosed() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.closed
}

// Close makes everything durable, marks the end of the log, and lets go of the directory. Callers of Next and Append
// return with ErrClosed. Items in flight come again after the next Open.
func (q *Queue) Close() error {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return nil
	}
	q.closed = true
	close(q.quit)
	q.wakeAll()
	q.mu.Unlock()
	q.done.Wait()
	_ = q.commit.lock(context.Background())
	defer q.commit.unlock()
	err := q.maintain()
	q.write.Lock()
	defer q.write.Unlock()
	q.read.Lock()
	defer q.read.Unlock()
	if err == nil && q.active != nil {
		if e := q.putEnd(q.active); e != nil { // all is durable; the next Open is a little slower
			q.logf("spool %s: mark the end: %v", q.dir, e)
		}
	}
	for _, c := range append(q.backlog, q.fresh) {
		c.close()
	}
	for _, g := range q.segs {
		if g.file != nil {
			err = errors.Join(err, g.file.Close())
		}
	}
	err = errors.Join(err, q.acks.close(), q.owner.Close())
	if err != nil {
		return fmt.Errorf("close spool %s: %w", q.dir, err)
	}
	return nil
}

// putEnd writes the record that tells the next Open that nothing is missing after it.
func (q *Queue) putEnd(g *segment) error {
	h := recHead{seq: g.next, flags: flagEnd}
	h.put(q.head[:], g.gen)
	_, err := g.file.WriteAt(q.head[:recHeader], g.end)
	if isFull(err) && q.spare.release() {
		_, err = g.file.WriteAt(q.head[:recHeader], g.end)
	}
	if err != nil {
		return err
	}
	return g.file.Sync()
}

// wakeAll wakes all who wait for something to change. mu is held.
func (q *Queue) wakeAll() {
	if q.waiting {
		close(q.wake)
		q.wake = make(chan struct{})
		q.waiting = false
	}
}

// changed returns a channel that is closed at the next change. mu is held.
func (q *Queue) changed() <-chan struct{} {
	q.waiting = true
	return q.wake
}

// lock is a mutex whose waiters can give up.
type lock chan struct{}

func (l lock) lock(ctx context.Context) error {
	select {
	case l <- struct{}{}:
		return nil
	default:
	}
	select {
	case l <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l lock) unlock() { <-l }

// random returns a number that nobody can guess, below 2^48.
func random() uint64 {
	var b [8]byte
	rand.Read(b[:6])
	return binary.LittleEndian.Uint64(b[:])
}
