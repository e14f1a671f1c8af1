package peers

import (
	"cmp"
	"slices"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/expr"
	"github.com/creelhq/creel/hub/internal/registry"
	"github.com/creelhq/creel/report"
)

// This file puts together what hubs know of agents. Each knows all agents from the control state, with what became of documents
// there; figures, and all that changes often, only of those that are connected to it.

// OnlyOf is the condition of api.AgentQuery.Hub for the agents of one hub.
func OnlyOf(hub string) []string { return []string{hub} }

// NotOf is that for the agents of no hub that has answered: those whose hub is gone, or did not answer.
func NotOf[T any](answers []Answer[T]) (conditions []string) {
	for _, a := range answers {
		conditions = append(conditions, "!"+a.Hub)
	}
	return conditions
}

// JoinAgents puts pages together that begin at the same place, each of other agents. An agent that has just gone from one hub to
// another may be on two: the later word counts.
func JoinAgents(q api.AgentQuery, all []Answer[api.AgentList]) api.AgentList {
	joint := api.AgentList{Agents: []api.Agent{}, Counts: make(map[string]int)}
	at, more := make(map[string]int), false
	for _, a := range all {
		joint.Total += a.Value.Total
		for status, n := range a.Value.Counts {
			joint.Counts[status] += n
		}
		more = more || a.Value.Next != ""
		for _, x := range a.Value.Agents {
			i, twice := at[x.ID]
			switch {
			case !twice:
				at[x.ID] = len(joint.Agents)
				joint.Agents = append(joint.Agents, x)
			case x.LastSeen.After(joint.Agents[i].LastSeen):
				joint.Agents[i] = x
			}
		}
	}
	slices.SortFunc(joint.Agents, registry.CompareAgents)
	if limit := cmp.Or(q.Limit, 100); len(joint.Agents) > limit {
		joint.Agents, more = joint.Agents[:limit], true
	}
	if n := len(joint.Agents); more && n > 0 {
		joint.Next = registry.CursorAfter(joint.Agents[n-1])
	}
	return joint
}

// JoinLedgers sums books, each of other agents.
func JoinLedgers(q api.LedgerQuery, all []Answer[api.Ledger]) api.Ledger {
	joint := api.Ledger{Agents: []api.AgentBooks{}, Total: api.Books{Dropped: map[string]int64{}}}
	for _, a := range all {
		joint.Total.Plus(a.Value.Total)
		joint.Agents = append(joint.Agents, a.Value.Agents...)
		joint.LeftOut += a.Value.LeftOut
	}
	slices.SortFunc(joint.Agents, registry.CompareBooks)
	if limit, n := cmp.Or(q.Limit, 1000), len(joint.Agents); n > limit {
		joint.Agents, joint.LeftOut = joint.Agents[:limit], joint.LeftOut+n-limit
	}
	return joint
}

// JoinConfigurations returns what agents of all hubs run.
func JoinConfigurations(all []Answer[api.ConfigurationList]) api.ConfigurationList {
	agents := make(map[string][]string)
	for _, a := range all {
		for _, c := range a.Value.Configurations {
			agents[c.ID] = append(agents[c.ID], c.Agents...)
		}
	}
	joint := api.ConfigurationList{Configurations: []api.Configuration{}}
	for id, list := range agents {
		joint.Configurations = append(joint.Configurations, api.Configuration{ID: id, Agents: sorted(list)})
	}
	slices.SortFunc(joint.Configurations, registry.CompareConfigurations)
	return joint
}

// JoinConfiguration returns one configuration and the agents of all hubs that run it.
func JoinConfiguration(all []Answer[api.Configuration]) api.Configuration {
	joint := all[0].Value
	var agents []string
	for _, a := range all {
		agents = append(agents, a.Value.Agents...)
	}
	joint.Agents = sorted(agents)
	return joint
}

func sorted(list []string) []string {
	list = append([]string{}, list...)
	slices.Sort(list)
	return slices.Compact(list)
}

// JoinHubs counts the agents of all hubs, and tells of those. Whoever sees only the agents within a condition hears of no others.
func (p *Peers) JoinHubs(within expr.Selector, all []Answer[api.Hub]) api.Hub {
	joint := all[0].Value
	joint.Agents = make(map[string]int)
	told := make(map[string]api.Hub)
	for _, a := range all {
		for status, n := range a.Value.Agents {
			joint.Agents[status] += n
		}
		told[a.Hub] = a.Value
	}
	for _, h := range p.o.Cluster.Hubs() {
		m := api.ClusterHub{ID: h.ID, Name: h.Name, Version: h.Version, Started: h.Started, URL: h.URL, Draining: h.Draining, Agents: h.HubAt.Agents}
		own, ok := told[h.ID]
		if !within.IsZero() {
			m.Agents = own.Agents[report.Healthy] + own.Agents[report.Degraded] + own.Agents["unknown"]
		} else if ok {
			m.QuickLook = &own.QuickLook
		}
		joint.Hubs = append(joint.Hubs, m)
	}
	slices.SortFunc(joint.Hubs, func(a, b api.ClusterHub) int {
		switch p.o.Hub {
		case a.ID:
			return -1
		case b.ID:
			return 1
		}
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return joint
}

// JoinKnocks returns who was refused at any hub. Who is revoked, all know.
func JoinKnocks(all []Answer[api.KnockList]) api.KnockList {
	joint := api.KnockList{Knocks: []api.Knock{}, Revoked: all[0].Value.Revoked}
	type key struct{ who, reason string }
	at := make(map[key]int)
	for _, a := range all {
		for _, n := range a.Value.Knocks {
			k := key{cmp.Or(n.Agent, n.Address), n.Reason}
			i, twice := at[k]
			if !twice {
				at[k] = len(joint.Knocks)
				joint.Knocks = append(joint.Knocks, n)
				continue
			}
			old := joint.Knocks[i]
			if n.Last.Before(old.Last) {
				n, old = old, n
			}
			if n.Count += old.Count; old.First.Before(n.First) {
				n.First = old.First
			}
			joint.Knocks[i] = n
		}
	}
	slices.SortStableFunc(joint.Knocks, func(a, b api.Knock) int { return b.Last.Compare(a.Last) })
	return joint
}
