package hub

import (
	"cmp"
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

// How long one waits when somebody asks how etcd is: for its members, of which those that do not answer are shown so, and for the hub
// that leads, which is not asked for where nobody could say.
const (
	memberPatience  = time.Second
	clusterPatience = 1500 * time.Millisecond
)

// places returns where the hubs are, as agents are told. This one is to be left as well when it is cut off: agents go if another hub leases them.
func (c clustered) places() (list []control.HubAt) {
	health := c.cluster.Health()
	for _, h := range c.Hubs() {
		h.Draining = h.Draining || h.ID == c.id && cutOff(health, time.Now())
		list = append(list, h.HubAt)
	}
	return list
}

// cutOff reports whether a hub cannot lease its agents, and has not been able to for so long that it is not an election of etcd.
func cutOff(h cluster.Health, now time.Time) bool {
	return !h.Leased && now.Sub(h.Answered) > 10*time.Second
}

func (c clustered) Changed() <-chan struct{} { return c.cluster.Changed() }

func (c clustered) Cluster(ctx context.Context) api.Cluster {
	health := c.cluster.Health()
	_, embedded := c.state.(state.OwnCluster)
	x := api.Cluster{Hub: c.id, Hubs: []api.ClusterHub{}, State: api.ControlState{
		Healthy: health.Error == "" && health.Leased, Error: health.Error, Leased: health.Leased,
		Answered: health.Answered, Took: health.Took.Seconds(), Embedded: embedded, Members: []api.StateMember{},
	}}
	sizes := make(map[string]int64) // of etcds within other hubs, as these say
	for _, h := range c.cluster.Hubs() {
		x.Hubs, sizes[h.ID] = append(x.Hubs, shown(h)), h.State
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
		asking, done := context.WithTimeout(ctx, memberPatience)
		list, err := m.Members(asking)
		done()
		why := ""
		if err != nil {
			why = err.Error()
		}
		for _, m := range list {
			x.State.Members = append(x.State.Members, api.StateMember{
				Name: m.Name, Peer: m.Peer, Leader: m.Leader, Learner: m.Learner, Self: m.Self, Healthy: m.Healthy, Full: m.Full, Size: cmp.Or(m.Size, sizes[m.Name]),
			})
		}
		if embedded { // members outside need not be reachable one by one
			if why = cmp.Or(why, undecided(list)); why != "" {
				cancel()
			}
		}
		if why != "" && x.State.Error == "" {
			x.State.Healthy, x.State.Error = false, why
		}
	}
	wg.Wait()
	return x
}

// undecided says why members within hubs decide nothing at present: "" if they do.
func undecided(list []state.Member) string {
	votes, there, led := 0, 0, false
	for _, m := range list {
		led = led || m.Self && m.Healthy
		if m.Learner {
			continue
		}
		votes++
		if m.Healthy || m.Self {
			there++
		}
	}
	switch {
	case there <= votes/2:
		return fmt.Sprintf("%d of the %d members of etcd that count answer: nothing can be changed before it is more than half", there, votes)
	case !led:
		return fmt.Sprintf("%d of the %d members of etcd that count answer, and have not elected one that leads: nothing can be changed before they have", there, votes)
	}
	return ""
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
