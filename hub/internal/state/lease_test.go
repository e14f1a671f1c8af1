package state

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
)

// renewals is an etcd that renews leases as it is told. Nothing else can be asked.
type renewals struct {
	pb.LeaseClient
	answer func() (after time.Duration, ttl int64, err error)
}

func (r *renewals) LeaseKeepAlive(ctx context.Context, _ ...grpc.CallOption) (grpc.BidiStreamingClient[pb.LeaseKeepAliveRequest, pb.LeaseKeepAliveResponse], error) {
	return &renewal{r: r, ctx: ctx}, nil
}

type renewal struct {
	grpc.BidiStreamingClient[pb.LeaseKeepAliveRequest, pb.LeaseKeepAliveResponse]
	r   *renewals
	ctx context.Context
}

func (r *renewal) Send(*pb.LeaseKeepAliveRequest) error { return nil }

func (r *renewal) Recv() (*pb.LeaseKeepAliveResponse, error) {
	after, ttl, err := r.r.answer()
	select {
	case <-time.After(after):
	case <-r.ctx.Done():
		return nil, r.ctx.Err()
	}
	return &pb.LeaseKeepAliveResponse{TTL: ttl}, err
}

// TestHeld: a lease counts from when its renewal was asked for, not from the answer.
func TestHeld(t *testing.T) {
	for _, c := range []struct {
		name  string
		after time.Duration
		ttl   int64
		err   error
		held  time.Duration // of a minute, at most
		lost  time.Duration // when that is told; 0: it is not
	}{
		{"answered at once", 0, 3, nil, time.Minute, 0},
		{"answered in time", 1400 * time.Millisecond, 3, nil, time.Minute, 0},
		{"answered late", 1600 * time.Millisecond, 3, nil, LeaseTTL, LeaseTTL}, // when the lease that was granted is over
		{"fails", 0, 0, errors.New("unavailable"), LeaseTTL, LeaseTTL},
		{"is gone", 0, 0, nil, LeaseTTL / 4, LeaseTTL / 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newEtcd(nil, &renewals{answer: func() (time.Duration, int64, error) { return c.after, c.ttl, c.err }}, nil)
				l := s.Lease()
				l.id = 7
				if l.Held() {
					t.Error("held before it was granted")
				}
				began := time.Now()
				l.extend(began.Add(LeaseTTL))
				go s.keep(l, l.id)
				var lost, held time.Duration
				for time.Since(began) < time.Minute {
					time.Sleep(10 * time.Millisecond)
					synctest.Wait()
					if l.Held() {
						held = time.Since(began)
					}
					select {
					case <-l.Lost():
						if lost == 0 {
							lost = time.Since(began)
						}
					default:
					}
				}
				if lost != c.lost || held > c.held || held < c.held-10*time.Millisecond {
					t.Errorf("held for %v and lost after %v, want %v and %v", held, lost, c.held, c.lost)
				}
				if (s.Lease() == l) != (c.lost == 0) {
					t.Error("another lease comes if, and only if, this one is lost")
				}
				s.cancel()
			})
		})
	}
}

// TestHeldLate: a process that was stopped does not hold its lease when it goes on, whatever it has noticed by then; a renewal that it
// had asked for before does not change that.
func TestHeldLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLease(time.Now().Add(LeaseTTL))
		asked := time.Now().Add(time.Second)
		time.Sleep(10 * time.Second) // nothing of it runs
		if l.Held() {
			t.Error("held for too long")
		}
		l.extend(asked.Add(LeaseTTL))
		if l.Held() {
			t.Error("a renewal counts from when it was answered")
		}
		l.extend(time.Now().Add(LeaseTTL))
		l.extend(asked.Add(LeaseTTL)) // which is answered last
		if !l.Held() {
			t.Error("an older renewal counts more than a newer one")
		}
	})
}
