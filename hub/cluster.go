package hub

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/hub/internal/cluster"
	"github.com/creelhq/creel/hub/internal/leader"
	"github.com/creelhq/creel/hub/internal/state"
)

// This file is a hub as one of several that share a control state.

// clusterPatience is how long one waits for etcd when somebody asks how it is.
const clusterPatience = 1500 * time.Millisecond

// places returns where the hubs are, as agents are told.
func (c clustered) places() (list []control.HubAt) {
	for _, h := range c.Hubs() {
		list = append(list, h.HubAt)
	}
	return list
}

func (c clustered) Changed() <-chan struct{} { return c.cluster.Changed() }

func (c clustered) Cluster(ctx context.Context) api.Cluster {
	health := c.cluster.Health()
	_, embedded := c.state.(state.OwnCluster)
	x := api.Cluster{Hub: c.id, Hubs: []api.ClusterHub{}, State: api.ControlState{
		Healthy: health.Error == "" && health.Leased, Error: health.Error, Leased: health.Leased,
		Answered: health.Answered, Took: health.Took.Seconds(), Embedded: embedded, Members: []api.StateMember{},
	}}
	for _, h := range c.cluster.Hubs() {
		x.Hubs = append(x.Hubs, shown(h))
	}
	slices.SortFunc(x.Hubs, func(a, b api.ClusterHub) int { return strings.Compare(a.Name+"\x00"+a.ID, b.Name+"\x00"+b.ID) })
	ctx, cancel := context.WithTimeout(ctx, clusterPatience)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		if t, err := leader.Current(ctx, c.state); err == nil { // else the members tell why
			x.Leader, x.Since = t.Hub, t.Since
		}
	})
	if m, ok := c.state.(state.Cluster); ok {
		list, err := m.Members(ctx)
		if err != nil && x.State.Error == "" {
			x.State.Healthy, x.State.Error = false, err.Error()
		}
		votes, there := 0, 0
		for _, m := range list {
			x.State.Members = append(x.State.Members, api.StateMember{
				Name: m.Name, Peer: m.Peer, Leader: m.Leader, Learner: m.Learner, Self: m.Self, Healthy: m.Healthy, Full: m.Full, Size: m.Size,
			})
			if !m.Learner {
				votes++
			}
			if !m.Learner && m.Healthy {
				there++
			}
		}
		if embedded && there <= votes/2 && x.State.Error == "" { // members outside need not be reachable one by one
			x.State.Healthy, x.State.Error = false, fmt.Sprintf("%d of the %d members of etcd that count answer: nothing can be changed before it is more than half", there, votes)
		}
	}
	wg.Wait()
	return x
}

func shown(h cluster.Hub) api.ClusterHub {
	return api.ClusterHub{
		ID: h.ID, Name: h.Name, Version: h.Version, Started: h.Started, URL: h.URL, OTLPGRPC: h.OTLPGRPC, OTLPHTTP: h.OTLPHTTP, Agents: h.Agents, Draining: h.Draining,
	}
}

// Drain has a hub left by its agents, or takes that back. The id may be a prefix of one, or a host's name, if only one hub has it.
func (c clustered) Drain(ctx context.Context, id string, on bool) (api.ClusterHub, error) {
	var found []cluster.Hub
	for _, h := range c.cluster.Hubs() {
		if h.ID == id {
			found = []cluster.Hub{h}
			break
		}
		if h.Name == id || len(id) >= 4 && strings.HasPrefix(h.ID, id) {
			found = append(found, h)
		}
	}
	switch {
	case len(found) == 0 && !on: // it need not run for that
		if err := c.cluster.Drain(ctx, id, false); err != nil {
			return api.ClusterHub{}, unavailable(err)
		}
		return api.ClusterHub{ID: id}, nil
	case len(found) == 0:
		return api.ClusterHub{}, &api.Error{Code: "not_found", Message: "there is no hub " + id + "; creel get hubs lists them"}
	case len(found) > 1:
		return api.ClusterHub{}, &api.Error{Code: "conflict", Message: "several hubs are called " + id + ": give more of an id; creel get hubs lists them"}
	}
	if err := c.cluster.Drain(ctx, found[0].ID, on); err != nil {
		return api.ClusterHub{}, unavailable(err)
	}
	found[0].Draining = on
	return shown(found[0]), nil
}

func unavailable(err error) error {
	var asked *api.Error
	if errors.As(err, &asked) {
		return err
	}
	return &api.Error{Code: "unavailable", Message: "the control state cannot do this now: " + err.Error() + "; nothing was changed"}
}
