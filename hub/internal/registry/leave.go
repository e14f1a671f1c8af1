package registry

import (
	"slices"

	"github.com/creelhq/creel/control"
)

// A Balancer knows the hubs that agents can go to, and asks some of them to go. Its methods are called with each heartbeat.
type Balancer interface {
	Hubs() []control.HubAt
	// Leave returns where an agent is to go, as control.Lease has it; "": it may stay.
	Leave(agent string) string
}

// elsewhere puts into a lease which hubs there are, if the agent has not been told so, and whether it is to leave.
func (a *agent) elsewhere(l *control.Lease) {
	b := a.r.o.Balancer
	if b == nil {
		return
	}
	hubs := b.Hubs()
	a.mu.Lock()
	if !slices.EqualFunc(hubs, a.told.hubs, sameHub) {
		l.Hubs, a.told.hubs = hubs, slices.Clone(hubs)
	}
	a.mu.Unlock()
	l.Leave = b.Leave(a.ID)
}

// sameHub reports whether there is nothing new about a hub. How many agents it has is told when it is a fourth more or less.
func sameHub(now, told control.HubAt) bool {
	few := told.Agents - told.Agents/4 - 5
	many := told.Agents + told.Agents/4 + 5
	return now.ID == told.ID && now.Addresses == told.Addresses && now.Draining == told.Draining && now.Agents >= few && now.Agents <= many
}
