package control

import (
	"cmp"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/creelhq/creel"
)

// A Balance is how an agent chooses among hubs that are not to be left. The zero Balance is Rendezvous.
type Balance string

// The values of Balance.
const (
	Rendezvous  Balance = "rendezvous"   // by the agent's id: it chooses the same one as long as that is there
	RoundRobin  Balance = "round_robin"  // another one each time, in turn
	LeastLoaded Balance = "least_loaded" // of two, by chance, the one that has fewer agents
)

// A place is where a hub may be, and how it went there. Its URL never changes.
type place struct {
	HubAt
	told   bool      // by a hub; else by the configuration
	failed int       // attempts in a row
	wait   time.Time // it is not tried before that
	err    string    // of the last attempt, as it was logged
}

// key is what a place is balanced by.
func (p *place) key() string { return cmp.Or(p.ID, p.URL) }

// places are where an agent's hub may be. They are guarded by the Client's mutex.
type places struct {
	agent   string
	balance Balance
	seeds   []string // URLs of the configuration
	list    []*place
	last    string // the key of the hub that was connected to last
	first   string // the URL that is tried before all others
}

// learn takes in which hubs there are, as one says that was reached at a URL. Those that cannot be reached, and those without TLS
// if that one has it, are left out. What the configuration names stays, for when none of the others is there.
func (ps *places) learn(hubs []HubAt, at string) {
	before := ps.list
	ps.list = nil
	add := func(h HubAt, told bool) {
		if ps.at(h.URL) != nil {
			return
		}
		p := &place{HubAt: HubAt{Addresses: Addresses{URL: h.URL}}}
		if i := slices.IndexFunc(before, func(p *place) bool { return p.URL == h.URL }); i >= 0 {
			p = before[i]
		}
		if p.told = told; told {
			p.ID, p.Draining, p.Agents = h.ID, h.Draining, h.Agents
		}
		ps.list = append(ps.list, p)
	}
	for _, h := range hubs {
		if u, err := HubURL(h.URL); err == nil && (u.Scheme == "https" || !strings.HasPrefix(at, "https:")) {
			add(h, true)
		}
	}
	for _, seed := range ps.seeds {
		add(HubAt{Addresses: Addresses{URL: seed}}, false)
	}
}

func (ps *places) at(url string) *place {
	for _, p := range ps.list {
		if p.URL == url {
			return p
		}
	}
	return nil
}

// order returns all places, the one to be preferred first: those that hubs tell of, those of the configuration, and those that
// are to be left.
func (ps *places) order() []*place {
	var told, seeds, leave []*place
	for _, p := range ps.list {
		switch {
		case p.Draining:
			leave = append(leave, p)
		case p.told:
			told = append(told, p)
		default:
			seeds = append(seeds, p)
		}
	}
	ps.sort(told)
	ps.sort(seeds)
	ps.sort(leave)
	return slices.Concat(told, seeds, leave)
}

// sort puts the place to be preferred first.
func (ps *places) sort(list []*place) {
	if len(list) < 2 {
		return
	}
	rank := make(map[string]int, len(list)) // by rendezvous
	keys := make([]string, len(list))
	for i, p := range list {
		keys[i] = p.key()
	}
	for i, key := range creel.Rendezvous(ps.agent, keys) {
		rank[key] = i
	}
	slices.SortFunc(list, func(a, b *place) int { return cmp.Compare(rank[a.key()], rank[b.key()]) })
	switch ps.balance {
	case RoundRobin:
		start := list[0].key()
		slices.SortFunc(list, func(a, b *place) int { return strings.Compare(a.key(), b.key()) })
		i := slices.IndexFunc(list, func(p *place) bool { return p.key() > ps.last })
		if ps.last == "" {
			i = slices.IndexFunc(list, func(p *place) bool { return p.key() == start })
		}
		turned := slices.Concat(list[max(i, 0):], list[:max(i, 0)])
		copy(list, turned)
	case LeastLoaded:
		// Two by chance: else all would go to the same one (The Power of Two Choices in Randomized Load Balancing, Mitzenmacher, 2001).
		rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		fewer := func(a, b *place) int { return cmp.Compare(a.Agents, b.Agents) }
		slices.SortStableFunc(list[:2], fewer)
		slices.SortStableFunc(list[1:], fewer)
	}
}

// next returns which place is to be tried next, and when.
func (ps *places) next(now time.Time) (*place, time.Time) {
	list := ps.order()
	if p := ps.at(ps.first); p != nil {
		list = slices.Insert(list, 0, p)
	}
	best := list[0]
	for _, p := range list {
		if !p.wait.After(now) {
			return p, now
		}
		if p.wait.Before(best.wait) {
			best = p
		}
	}
	return best, best.wait
}

// others returns the places of hubs other than the one with an id, which can be tried now: only of the hub to, unless that is
// AnyHub, and none that is to be left itself.
func (ps *places) others(id, to string, now time.Time) []*place {
	return slices.DeleteFunc(ps.order(), func(p *place) bool {
		return p.ID == id || p.ID == "" || p.Draining || p.wait.After(now) || to != AnyHub && p.ID != to
	})
}

// alternatives reports whether there is another hub than p's.
func (ps *places) alternatives(p *place) bool {
	return slices.ContainsFunc(ps.list, func(q *place) bool { return q != p && (q.ID == "" || q.ID != p.ID) })
}

// put notes that p is not to be tried for a while, under whatever address.
func (ps *places) put(p *place, wait time.Time) {
	for _, q := range ps.list {
		if q == p || q.URL == p.URL || q.ID != "" && q.ID == p.ID {
			q.wait = wait
		}
	}
}

// reached notes that a hub has answered at p.
func (ps *places) reached(p *place, hub string) {
	p.failed, p.wait, p.err = 0, time.Time{}, ""
	if !p.told {
		p.ID = hub
	}
	ps.last = p.key()
}

// websocketURL returns where a hub takes OpAMP.
func websocketURL(u *url.URL) string {
	ws := &url.URL{Scheme: "ws", Host: "localhost"}
	if u.Scheme != unixScheme {
		*ws = *u
		ws.Scheme = strings.Replace(u.Scheme, "http", "ws", 1)
	}
	return ws.JoinPath(Path).String()
}
