package state

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	electedWithin = 3 * time.Second // of the first such answer, which is given when one is elected, or none is known
	askElected    = 50 * time.Millisecond
)

// patient is the keys of an etcd within, asked again while its members elect one that leads: what is asked over a network etcd's client
// asks again by itself. A change begins with a question, so that it waits here. What is written waits within etcd until somebody
// leads; where the answer to that got lost with the leader nobody knows whether it was done, and it is not written again.
type patient struct{ clientv3.KV }

// Get asks again for some seconds.
func (p patient) Get(ctx context.Context, key string, options ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	var deadline time.Time
	for {
		resp, err := p.KV.Get(ctx, key, options...)
		switch {
		case !errors.Is(err, rpctypes.ErrLeaderChanged) && !errors.Is(err, rpctypes.ErrNoLeader):
			return resp, err
		case deadline.IsZero():
			deadline = time.Now().Add(electedWithin)
		case time.Now().After(deadline):
			return nil, err
		}
		select {
		case <-time.After(askElected):
		case <-ctx.Done():
			return nil, err
		}
	}
}
