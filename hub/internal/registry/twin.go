package registry

import (
	"fmt"
	"net"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
	"github.com/creelhq/creel/hub/internal/state"
)

// This file is two processes with one identity: an agent's state directory was copied. Until one of them renews its certificate
// the gate cannot tell them apart, and each takes the other's place whenever it connects. The registry tells processes apart by
// when they were started. What no two may do it gives a process only when no other can be leased; and when there are two for sure,
// the one that was started first stays, and the other is refused as long as that is there.

// A rival is a process of the agent that may be leased, when another connects. Most often it is the same one that comes back, or
// is gone; but this is not known.
type rival struct {
	known bool      // the process that has connected has said which it is
	far   bool      // another hub may lease the rival, until it has heard that the agent is here now
	until time.Time // when the rival's lease is over
}

// rivalOf returns who may be leased beside a process that connects now. a.mu is held, and nothing is noted of the connection yet.
func (a *agent) rivalOf() rival {
	if a.Connection == api.Disconnected { // it said goodbye; only whoever was its rival is left
		return rival{far: a.told.rival.far, until: a.told.rival.until}
	}
	return rival{until: a.leased, far: !a.ours() && a.Connection == api.Connected && a.broke.IsZero()}
}

// alone reports whether no other process of the agent can be leased any more. a.mu is held.
func (a *agent) alone() bool {
	v := &a.told.rival
	if v.far && !a.unsure() {
		v.far, v.until = false, time.Now().Add(a.r.Lease()+state.LeaseTTL)
	}
	return !v.far && !time.Now().Before(v.until)
}

// starts takes in when the process was started that has this connection, and reports whether it is another than the last. One
// that was there before that cannot come back, unless there are two. a.mu is held.
func (a *agent) starts(at time.Time) (other bool) {
	if other = !at.Equal(a.Started); !other && !a.told.rival.known {
		a.told.rival = rival{} // it is that one
	}
	a.told.rival.known = true
	if !other {
		return false
	}
	if at.Equal(a.Earlier) {
		a.twins()
	} else if !a.Started.IsZero() {
		a.event("started", "")
	}
	a.Started, a.Earlier = at, a.Started
	return true
}

// twins tells that there are two. a.mu is held.
func (a *agent) twins() {
	first, second := a.Earlier, a.Started
	if second.Before(first) {
		first, second = second, first
	}
	if !a.Twin.Equal(second) {
		a.Twin = second
		a.event("cloned", fmt.Sprintf("another process with the same identity was started at %s, this one at %s: one has a copied state directory", second.Format(time.RFC3339), first.Format(time.RFC3339)))
		a.r.o.Log.Warn("two processes have the identity of an agent; the one that was started first stays", "agent", a.ID, "name", a.Name, "first", first, "second", second)
	}
}

// second refuses the second of two while the first is there. m is what it says first.
func (r *Registry) second(a *agent, m *protobufs.AgentToServer, from string) error {
	at := startOf(m.Health)
	a.mu.Lock()
	name, there := a.Name, a.Connection == api.Connected && a.broke.IsZero() && !a.Started.Equal(a.Twin)
	is := !at.IsZero() && at.Equal(a.Twin)
	a.mu.Unlock()
	if !is || !there {
		return nil
	}
	refused := &control.Refusal{
		Code:   control.Cloned,
		Text:   fmt.Sprintf("another process has the identity of agent %s as well, and was started before this one", a.ID),
		Remedy: "if this one has a copied state directory, give it one of its own and join again with creel token create --role agent; if the other has, stop it: then this one is let in",
	}
	if r.o.Gate != nil {
		host, _, err := net.SplitHostPort(from)
		if err != nil {
			host = from
		}
		r.o.Gate.Refused(a.ID, name, host, refused)
	}
	return refused
}

// startOf returns when the process was started that tells of its health; zero if it does not say.
func startOf(h *protobufs.ComponentHealth) time.Time {
	if h.GetStartTimeUnixNano() == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(h.StartTimeUnixNano)).UTC()
}
