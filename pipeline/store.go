package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/otlp"
	"github.com/creelhq/creel/spool"
)

// Spool are the options of an exporter's disk queue.
type Spool struct {
	MaxSize  config.Size `doc:"Bytes on disk at most." default:"1GiB" min:"1MiB"`
	MinFree  config.Size `doc:"Bytes of the file system that are left to others: it counts as full when less is free." default:"256MiB" min:"0"`
	WhenFull string      `doc:"What happens when it is full: collectors wait (block), the oldest records go (drop_oldest), or what comes goes (drop_newest). What goes is counted. While the far side takes records, none go." default:"block" enum:"block|drop_oldest|drop_newest"`
	Order    string      `doc:"What is delivered first when the far side is back: what is new, with a quarter for what has waited (fresh_first), or what came first (in_order, with concurrency: 1)." default:"fresh_first" enum:"fresh_first|in_order"`
	Replay   RateLimit   `doc:"How much of what has waited is sent in a second at most, within the exporter's rate_limit."`
}

func (c *Spool) options(log *slog.Logger) spool.Options {
	o := spool.Options{
		MaxSize: int64(c.MaxSize), MinFree: int64(c.MinFree), WhenFull: spool.WhenFull(c.WhenFull), Order: spool.Order(c.Order),
		Log: func(what string) { log.Warn(what) },
	}
	if o.WhenFull == spool.DropNewest {
		o.WhenFull = spool.Block // what goes is decided here
	}
	return o
}

// codecOTLP is the codec of items: an OTLP export request in protobuf's wire format, as it is sent.
const codecOTLP = 1

// patience is how long the far side may take nothing, before what comes is left to the disk queue alone.
const patience = time.Second

// briefly is the same while somebody who cannot wait is turned away.
const briefly = 50 * time.Millisecond

// retryDisk is the pause before what the disk did not take is tried again.
const retryDisk = 100 * time.Millisecond

// A store is an exporter's disk queue at work, for as long as the exporter's id has one. One writer takes what is meant for
// it from the queue, gives it a name and puts it down. While senders keep up, it then hands it to them in memory; else it
// leaves it to be read again.
//
// A record is in one account at a time: its pipeline's until it is delivered or left to the disk queue, then the store's.
type store struct {
	q     *queue
	spool *spool.Queue
	dir   string
	log   *slog.Logger
	acct  *account // of what is left to the disk queue; queued is what waits there

	breaker atomic.Pointer[breaker] // of the exporter's instance

	more  bool      // there may be something to replay; under q.mu
	again time.Time // when to look for it; under q.mu
	turn  atomic.Int32

	mu      sync.Mutex // guards what follows
	c       Spool
	batch   Batching
	limit   *limiter
	known   spool.Stats // what of them is in acct
	trouble error       // why the disk does not do what it is asked for
	hurry   bool        // the end is near: nothing waits for the far side
	samples []sample    // oldest first

	syncs   chan waiter
	free    chan []byte // memory to encode in
	stop    context.CancelFunc
	writing sync.WaitGroup
	syncing sync.WaitGroup
}

// waiter is told once all that was appended before is durable.
type waiter func(error)

// openStore opens the disk queue of an exporter.
func openStore(dir string, c Spool, q *queue, acct *account, log *slog.Logger) (*store, error) {
	sp, err := spool.Open(dir, c.options(log))
	if errors.Is(err, spool.ErrNewer) {
		return nil, fmt.Errorf("%w; run that version, or move the directory away", err)
	}
	if err != nil {
		return nil, err
	}
	s := &store{
		q: q, spool: sp, dir: dir, log: log, acct: acct, syncs: make(chan waiter, 1024), free: make(chan []byte, 4),
	}
	st := sp.Stats()
	s.more, s.known = true, st
	acct.recovered.Add(int64(st.Records+st.Lost) - acct.queued.Swap(int64(st.Records))) // it may have been open before
	acct.dropped.add(Damaged, int(st.Lost))
	if st.Records > 0 {
		log.Info("the disk queue has records of the last run", "records", st.Records, "bytes", st.Bytes)
	}
	return s, nil
}

// start lets the writer work.
func (s *store) start() {
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	s.q.keep(true)
	s.writing.Go(func() { s.write(ctx) })
	s.syncing.Go(s.sync)
}

// abort lets go of a disk queue that has not begun to work.
func (s *store) abort() {
	if err := s.spool.Close(); err != nil {
		s.log.Error("the disk queue does not close cleanly", "directory", s.dir, "error", err)
	}
}

// configure changes what can be changed while it works.
func (s *store) configure(c Spool, b Batching) {
	b.MaxBytes = min(b.MaxBytes, maxParcel)
	s.mu.Lock()
	s.c, s.batch, s.limit = c, b, newLimiter(c.Replay, time.Now())
	s.mu.Unlock()
	s.spool.Configure(c.options(s.log))
	s.q.poke()
}

func (s *store) config() (c Spool, b Batching, hurry bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.c, s.batch, s.hurry
}

func (s *store) setHurry() {
	s.mu.Lock()
	s.hurry = true
	s.mu.Unlock()
	s.q.poke()
}

// write moves what comes.
func (s *store) write(ctx context.Context) {
	for {
		var items []item
		err := s.q.await(ctx, func() (bool, time.Duration) {
			_, b, hurry := s.config()
			now := time.Now()
			if hurry {
				b.MaxWait = 0
			} else if left := s.gather(b, now); left > 0 {
				return false, left
			}
			var wait time.Duration
			items, wait = s.q.keeping.next(b, now, true)
			return items != nil, wait
		})
		if err != nil {
			return
		}
		p := newParcel(items)
		if !s.place(ctx, p) {
			s.q.putBack(p)
			return
		}
	}
}

// gatherFor is how long what somebody waits for may gather company while every sender is busy: a request of many small
// batches costs much less than as many requests.
const gatherFor = 5 * time.Millisecond

// gather returns how long what has come may still do so. q is locked.
func (s *store) gather(b Batching, now time.Time) time.Duration {
	l := s.q.keeping.oldest()
	if l == nil || len(s.q.ready) == 0 || l.bytes >= int64(b.MaxBytes) || !l.items[0].b.ID().IsZero() {
		return 0
	}
	return gatherFor - now.Sub(l.items[0].since)
}

// place puts p where it is to wait. It fails only when ctx is done.
func (s *store) place(ctx context.Context, p *parcel) bool {
	for again := false; ; again = true {
		room, err := s.awaitRoom(ctx, p, again)
		if err != nil {
			return false
		}
		if room {
			if p.level() >= ackProcess {
				s.append(p, spool.Held) // if the disk is in trouble, it goes from memory
			}
			s.handOver(p)
			return true
		}
		if s.append(p, spool.Written) {
			return true
		}
		if c, _, _ := s.config(); c.WhenFull == string(spool.DropNewest) && errors.Is(s.fault(), spool.ErrFull) {
			drop(p.items, SpoolFull)
			return true
		}
	}
}

// awaitRoom waits until the senders can take p soon. It does not wait when they cannot be expected to, when they have taken
// nothing for a while, or when somebody is turned away meanwhile. When the disk has just refused p, it waits until that is
// worth to be tried again.
func (s *store) awaitRoom(ctx context.Context, p *parcel, refused bool) (room bool, err error) {
	again := time.Now().Add(retryDisk)
	err = s.q.await(ctx, func() (bool, time.Duration) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.hurry || s.breaker.Load().down() != nil || s.c.Order == string(spool.InOrder) && s.acct.queued.Load() > 0 {
			wait := time.Until(again)
			return !refused || wait <= 0, wait
		}
		waiting := int64(0)
		for _, r := range s.q.ready {
			waiting += r.bytes()
		}
		if waiting == 0 || waiting+p.bytes() <= int64(s.batch.MaxBytes) {
			room, s.q.turned = true, nil
			return true, 0
		}
		wait := patience - time.Since(s.q.popped)
		if s.q.turned != nil {
			wait = min(wait, briefly-time.Since(s.q.turnedAt))
		}
		if refused {
			wait = time.Until(again)
		}
		if wait <= 0 {
			s.q.turned = nil
			return true, 0
		}
		return false, wait
	})
	return room, err
}

// handOver makes p one of the next to be sent.
func (s *store) handOver(p *parcel) {
	if len(p.items) == 0 {
		return // a repeat
	}
	s.q.mu.Lock()
	defer s.q.mu.Unlock()
	s.q.ready = append(s.q.ready, p)
	s.q.wakeTakers()
}

// append puts p into the disk queue, and tells those who wait for that. With Held it stays in memory as well, else it is the
// disk queue's alone. A repeat is over. It does not wait for room.
func (s *store) append(p *parcel, how spool.How) bool {
	it := spool.Item{ID: spool.ID(p.id), Signal: byte(p.items[0].b.Signal()), Codec: codecOTLP, Records: records(p.items), Parts: partsOf(p.items)}
	it.Payload = s.encode(p)
	seq, err := s.put(it, how)
	repeat := errors.Is(err, spool.ErrDuplicate)
	if repeat {
		err = nil
	}
	s.setFault(err)
	if err != nil {
		return false
	}
	switch {
	case repeat:
		s.release(p, func(it item) { it.acct.dropped.add(Duplicate, it.b.Len()) })
		s.recycle(p)
	case how&spool.Held == 0:
		n := records(p.items)
		s.acct.in.Add(int64(n))
		s.acct.queued.Add(int64(n))
		s.release(p, func(it item) { it.acct.spooled.Add(int64(it.b.Len())) })
		s.recycle(p)
		s.replayAt(time.Time{})
	default:
		p.store, p.seq = s, seq
		for _, it := range p.items {
			s.tell(it)
		}
	}
	return true
}

// put appends it, and does not wait for room that only time can bring.
func (s *store) put(it spool.Item, how spool.How) (seq uint64, err error) {
	most := time.Duration(0)
	switch c, _, _ := s.config(); spool.WhenFull(c.WhenFull) {
	case spool.DropOldest:
		most = patience // the disk may be busy; then what is oldest goes
	case spool.DropNewest:
		most = briefly // likewise; then p goes
	}
	ctx, cancel := context.WithTimeout(context.Background(), most)
	defer cancel()
	if seq, err = s.spool.Append(ctx, it, how); errors.Is(err, context.DeadlineExceeded) {
		err = s.full()
	}
	return seq, err
}

// full says what there is no room in, and what helps.
func (s *store) full() error {
	c, _, _ := s.config()
	if st := s.spool.Stats(); st.Bytes >= int64(c.MaxSize)/4*3 { // an eighth is kept for acknowledgements
		return fmt.Errorf("%w: max_size, %v, is reached in %s; raise it, or see why the far side does not take records", spool.ErrFull, c.MaxSize, s.dir)
	}
	return fmt.Errorf("%w: the file system of %s has no room but min_free, %v; make some", spool.ErrFull, s.dir, c.MinFree)
}

// release ends the items, which are somebody else's from now on, or nobody's.
func (s *store) release(p *parcel, enter func(item)) {
	for _, it := range p.items {
		enter(it)
		it.acct.queued.Add(int64(-it.b.Len()))
		s.tell(it)
		creel.Settle(it.b, nil)
	}
	p.items = nil
}

// tell tells who waits for a batch that the disk queue has it; at level disk, once that is durable.
func (s *store) tell(it item) {
	if it.level != ackDisk {
		creel.Detach(it.b, noTicket)
		return
	}
	creel.Detach(it.b, func(t *creel.Ticket) bool { _, room := t.Owner().(creel.Room); return !room })
	s.syncs <- creel.Postpone(it.b, noTicket)
}

func noTicket(*creel.Ticket) bool { return false }

// sync makes durable what somebody waits for: all who have come meanwhile at once.
func (s *store) sync() {
	for w := range s.syncs {
		list := []waiter{w}
		for more := true; more; {
			select {
			case w, more = <-s.syncs:
				if more {
					list = append(list, w)
				}
			default:
				more = false
			}
		}
		err := s.spool.Durable(context.Background())
		for hurry := false; err != nil && !hurry; err = s.spool.Durable(context.Background()) {
			s.setFault(err)
			_ = pause(context.Background(), retryDisk)
			_, _, hurry = s.config()
		}
		if err != nil {
			err = fmt.Errorf("%w: %w", creel.ErrAbandoned, err)
		}
		for _, w := range list {
			w(err)
		}
	}
}

// encode returns p's records as one request. The batches keep their parts of it: an exporter needs not encode them again.
func (s *store) encode(p *parcel) []byte {
	if len(p.items) == 1 {
		if wire := p.items[0].b.Wire(); wire != nil {
			return wire
		}
	}
	if p.request == nil {
		select {
		case p.memory = <-s.free:
		default:
			p.memory = make([]byte, p.bytes())
		}
		p.request, p.memory = otlp.EncodeEach(p.memory, p.batches()...)
	}
	return p.request
}

// maxParcel is the size of a parcel from which on it gathers no more, in bytes. A parcel is in memory twice, as records and
// encoded, and it is what may come twice after a kill; larger ones would not be delivered faster.
const maxParcel = 1 << 20

// keptMemory is how much memory to encode in is kept for the next parcel, in bytes: one batch of its own may be larger.
const keptMemory = 2 * maxParcel

// recycle takes back the memory that p was encoded in. Nobody reads it any more.
func (s *store) recycle(p *parcel) {
	if p.memory != nil && cap(p.memory) <= keptMemory {
		select {
		case s.free <- p.memory:
		default:
		}
	}
	p.request, p.memory = nil, nil
}

// maxParts is how many parts an item of the disk queue can have. More are not remembered, which may cost a repeat.
const maxParts = 255

// partsOf returns what the items were read from. Neighbours are one part.
func partsOf(items []item) (parts []spool.Part) {
	for _, it := range items {
		for _, p := range it.b.Parts() {
			if n := len(parts); n > 0 && parts[n-1].Source == p.Source && parts[n-1].To == p.From {
				parts[n-1].To = p.To
			} else if n < maxParts {
				parts = append(parts, spool.Part(p))
			}
		}
	}
	return parts
}

func (s *store) setFault(err error) {
	s.mu.Lock()
	before := s.trouble
	s.trouble = err
	s.mu.Unlock()
	switch {
	case err != nil && (before == nil || before.Error() != err.Error()):
		s.log.Error("the disk queue does not take records; those that the far side does not take at once wait", "directory", s.dir, "error", err)
	case err == nil && before != nil:
		s.log.Info("the disk queue takes records again", "directory", s.dir)
	}
}

func (s *store) fault() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.trouble
}

// putBack makes p what is sent next.
func (s *store) putBack(p *parcel) { s.q.putBack(p) }

// halt ends the writer. What it had in hand is in the queue again.
func (s *store) halt() {
	s.setHurry()
	s.stop()
	s.writing.Wait()
}

// close puts down what was in memory, and lets go of the disk queue, from which nobody takes any more. It returns how many
// records wait on disk, and what could not be put there.
func (s *store) close(memory []item) (waiting int64, left []item) {
	for _, p := range s.q.takeStored(s) {
		s.leave(p)
	}
	_, b, _ := s.config()
	var rest lanes
	for _, it := range memory {
		if it.level == ackDelivered {
			left = append(left, it)
			continue
		}
		rest[it.b.Signal()].items = append(rest[it.b.Signal()].items, it)
	}
	for i := range rest {
		for l := &rest[i]; len(l.items) > 0; {
			p := newParcel(l.popNamed(int64(b.MaxBytes)))
			if !s.append(p, spool.Spill) {
				left = append(left, p.items...)
			}
		}
	}
	close(s.syncs)
	s.syncing.Wait()
	s.count()
	if err := s.spool.Close(); err != nil {
		s.log.Error("the disk queue does not close cleanly", "directory", s.dir, "error", err)
	}
	return s.acct.queued.Load(), left
}

// leave leaves a parcel, which is in the disk queue, to it alone. If some of it is delivered, the rest is put there anew.
func (s *store) leave(p *parcel) {
	n := int64(records(p.items))
	if p.divided && s.append(&parcel{items: p.items, id: newID()}, spool.Spill) {
		if p.replay {
			s.acct.in.Add(-n) // it has come before
		}
		s.spool.Ack(p.seq)
		return
	}
	s.acct.queued.Add(n)
	if !p.replay {
		s.acct.in.Add(n)
	}
	s.spool.Nack(p.seq) // if the disk queue has given it up meanwhile, it is dropped now
	s.release(p, func(it item) {
		if !p.replay {
			it.acct.spooled.Add(int64(it.b.Len()))
		}
	})
}
