package state

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// electing answers with an error for so long.
type electing struct {
	clientv3.KV
	until time.Time
	err   error
	asked int
}

func (e *electing) Get(context.Context, string, ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	if e.asked++; time.Now().Before(e.until) {
		return nil, e.err
	}
	return new(clientv3.GetResponse), nil
}

// TestPatient: who asks while etcd elects is asked to wait, for seconds, and not about anything else.
func TestPatient(t *testing.T) {
	f := func(lasts, patience time.Duration, why, want error, took time.Duration) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			e := &electing{until: began.Add(lasts), err: why}
			_, err := patient{e}.Get(ctx, "k")
			if d := time.Since(began); !errors.Is(err, want) || d < took || d > took+askElected {
				t.Errorf("after %v, asked %d times: %v", d, e.asked, err)
			}
		})
	}
	const ever = time.Hour
	f(0, ever, nil, nil, 0)
	f(2*time.Second, ever, rpctypes.ErrLeaderChanged, nil, 2*time.Second)
	f(2*time.Second, ever, rpctypes.ErrNoLeader, nil, 2*time.Second)
	f(ever, ever, rpctypes.ErrNoLeader, rpctypes.ErrNoLeader, electedWithin)
	f(ever, time.Second, rpctypes.ErrNoLeader, rpctypes.ErrNoLeader, time.Second)
	f(ever, ever, rpctypes.ErrCompacted, rpctypes.ErrCompacted, 0)
}
