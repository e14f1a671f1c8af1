package state

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// LeaseTTL is how long a hub's lease outlives it. If its etcd led, that elects before, which takes up to two seconds, and begins to count anew
// then. It is the shortest that etcd gives.
const LeaseTTL = 2 * time.Second

// A Lease is what leased entries of a Store hang on: once it is over they are gone. Its methods may be called concurrently.
type Lease struct {
	id    clientv3.LeaseID // 0: it was not granted yet; Store.mu guards it
	lost  chan struct{}
	until atomic.Pointer[time.Time] // nil: it was not granted yet
}

func newLease() *Lease { return &Lease{lost: make(chan struct{})} }

// NewLease returns one that is held until then, for stores of other kinds.
func NewLease(until time.Time) *Lease {
	l := newLease()
	l.until.Store(&until)
	return l
}

// Lost returns what is closed when the lease is lost: what was put under it is gone or will be, and the next leased Put gets another.
// It may take a second until that is noticed, and longer in a process that was stopped meanwhile.
func (l *Lease) Lost() <-chan struct{} { return l.lost }

// Held reports whether the lease is held for sure, so that nobody else can have seen yet that what hangs on it is gone. Nil is not. It counts from when
// the last renewal that was granted was asked for, by the monotonic clock and that of the day: the one stands still while a
// machine sleeps, the other one can be set back.
func (l *Lease) Held() bool {
	if l == nil {
		return false
	}
	select {
	case <-l.lost:
		return false
	default:
	}
	until, now := l.until.Load(), time.Now()
	return until != nil && now.Before(*until) && now.Round(0).Before(until.Round(0))
}

// extend notes that a renewal was granted. They may be answered in another order than they were asked for.
func (l *Lease) extend(until time.Time) {
	for old := l.until.Load(); old == nil || until.After(*old); old = l.until.Load() {
		if l.until.CompareAndSwap(old, &until) {
			return
		}
	}
}

// Lease returns that of now, or the one that comes.
func (s *etcd) Lease() *Lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lease
}

// granted returns the lease of leased entries, getting one at first and after one was lost.
func (s *etcd) granted(ctx context.Context) (*Lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lease
	if l.id != clientv3.NoLease {
		return l, nil
	}
	asked := time.Now()
	resp, err := s.client.Grant(ctx, int64(LeaseTTL/time.Second))
	if err != nil {
		return nil, fmt.Errorf("get a lease: %w", err)
	}
	l.id = resp.ID
	l.extend(asked.Add(LeaseTTL))
	go s.keep(l, l.id)
	return l, nil
}

// keep renews a lease until it is lost. A renewal that is not answered does not hold up the next, which another member may get.
func (s *etcd) keep(l *Lease, id clientv3.LeaseID) {
	tick := time.NewTicker(LeaseTTL / 4)
	defer tick.Stop()
	for l.Held() {
		select {
		case <-tick.C:
		case <-l.lost:
			return
		case <-s.ctx.Done():
			return
		}
		asked := time.Now()
		go func() {
			switch err := s.renew(id); {
			case err == nil:
				l.extend(asked.Add(LeaseTTL))
			case errors.Is(err, rpctypes.ErrLeaseNotFound):
				s.lose(l)
			}
		}()
	}
	s.lose(l)
}

// renew asks once for a lease to be renewed. Later than that it is over, the answer does not count.
func (s *etcd) renew(id clientv3.LeaseID) error {
	ctx, cancel := context.WithTimeout(s.ctx, LeaseTTL)
	defer cancel()
	stream, err := s.leases.LeaseKeepAlive(ctx)
	if err != nil {
		return fmt.Errorf("renew a lease: %w", err)
	}
	if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: int64(id)}); err != nil {
		return fmt.Errorf("renew a lease: %w", err)
	}
	switch resp, err := stream.Recv(); {
	case err != nil:
		return fmt.Errorf("renew a lease: %w", err)
	case resp.TTL <= 0:
		return rpctypes.ErrLeaseNotFound
	}
	return nil
}

// lose takes note that a lease is lost.
func (s *etcd) lose(l *Lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lease == l {
		close(l.lost)
		s.lease = newLease()
	}
}
