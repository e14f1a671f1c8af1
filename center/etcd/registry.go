package etcd

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/creelhq/creel/center"
)

// ttl is how long an instance that says nothing any more is listed.
const ttl = 15 * time.Second

type registry struct {
	connection
	host center.Host
	ttl  time.Duration // ttl, but for tests; whole seconds
}

// NewRegistry returns the Registry.
func NewRegistry(c Config, h center.Host) (center.Registry, error) {
	return &registry{connection{Config: c, log: h.Log}, h, ttl}, nil
}

// entry is an instance as it is kept.
type entry struct {
	Address string            `json:"address"`
	Tags    []string          `json:"tags,omitempty"`
	Meta    map[string]string `json:"meta,omitempty"`
	Weight  int               `json:"weight,omitempty"`
}

// at returns what the keys of a service's instances begin with.
func (r *registry) at(service string) string {
	return strings.TrimSuffix(r.Services, "/") + "/" + service + "/"
}

// Register keeps a key under a lease. Whoever has put it last has it: only his lease takes it away.
func (r *registry) Register(ctx context.Context, i center.Instance) {
	text, err := json.Marshal(entry{i.Address, i.Tags, i.Meta, i.Weight})
	if err != nil {
		panic("BUG: " + err.Error()) // there are only strings
	}
	lease := clientv3.LeaseID(0) // the only one at a time, so that revoking it takes the key away
	center.Keep(ctx, r.host, func(worked func()) error {
		return r.hold(ctx, worked, r.at(i.Service)+i.ID, string(text), &lease)
	})
	if lease != 0 {
		center.Farewell(ctx, r.host, func(ctx context.Context) error { return r.revoke(ctx, lease) })
	}
}

// hold keeps a key there until ctx is done, or something is wrong.
func (r *registry) hold(ctx context.Context, worked func(), key, text string, lease *clientv3.LeaseID) error {
	client, err := r.connect(ctx)
	if err != nil {
		return r.explain(err)
	}
	defer client.Close() // an error would say that it is closed
	err = within(ctx, func(ctx context.Context) error {
		if *lease != 0 {
			if err := put(ctx, client, key, text, *lease); !errors.Is(err, rpctypes.ErrLeaseNotFound) {
				return err
			}
		}
		granted, err := client.Grant(ctx, int64(r.ttl/time.Second))
		if err != nil {
			return fmt.Errorf("get a lease: %w", err)
		}
		*lease = granted.ID
		return put(ctx, client, key, text, *lease)
	})
	if err != nil {
		return r.explain(err)
	}
	worked()
	ctx, cancel := whileConnected(ctx, client)
	defer cancel(nil)
	beats, err := client.KeepAlive(ctx, *lease)
	if err != nil {
		return r.explain(fmt.Errorf("keep the lease: %w", err))
	}
	for {
		late := time.NewTimer(r.ttl)
		select {
		case _, ok := <-beats:
			late.Stop()
			if !ok {
				return r.explain(cmp.Or(context.Cause(ctx), errors.New("the lease is over")))
			}
		case <-late.C:
			return r.explain(errors.New("the lease is not kept"))
		}
		// Whoever has had the key in between may have gone and taken it along.
		err := within(ctx, func(ctx context.Context) error {
			resp, err := client.Get(ctx, key, clientv3.WithCountOnly())
			if err != nil || resp.Count > 0 {
				return err
			}
			return put(ctx, client, key, text, *lease)
		})
		if err != nil {
			return r.explain(fmt.Errorf("look for %s: %w", key, err))
		}
		worked()
	}
}

// revoke takes a lease away, over a connection of its own: the client's is over with its context.
func (r *registry) revoke(ctx context.Context, lease clientv3.LeaseID) error {
	client, err := r.connect(ctx)
	if err != nil {
		return r.explain(err)
	}
	defer client.Close() // an error would say that it is closed
	if _, err := client.Revoke(ctx, lease); err != nil {
		return r.explain(err)
	}
	return nil
}

func put(ctx context.Context, client *clientv3.Client, key, text string, lease clientv3.LeaseID) error {
	if _, err := client.Put(ctx, key, text, clientv3.WithLease(lease)); err != nil {
		return fmt.Errorf("write %s: %w", key, err)
	}
	return nil
}

func within(ctx context.Context, f func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return f(ctx)
}

// Watch watches the keys of a service as if they were documents.
func (r *registry) Watch(ctx context.Context, service string, f func([]center.Instance)) {
	prefix := r.at(service)
	s := &source{host: r.host, connection: r.connection, options: []clientv3.OpOption{clientv3.WithPrefix()}}
	s.Key = prefix
	s.Watch(ctx, func(said center.Snapshot) {
		list := make([]center.Instance, 0, len(said.Documents))
		for _, d := range said.Documents {
			var e entry
			if err := json.Unmarshal(d.Text, &e); err != nil || e.Address == "" { // the others are none the worse for it
				r.host.Log.Warn("what is at this key is no instance of a service, and left out", "key", d.Name)
				continue
			}
			list = append(list, center.Instance{Service: service, ID: strings.TrimPrefix(d.Name, prefix), Address: e.Address, Tags: e.Tags, Meta: e.Meta, Weight: e.Weight})
		}
		f(list)
	})
}
