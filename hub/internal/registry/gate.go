package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"net/http"
	"slices"
	"strconv"

	"github.com/gorilla/websocket"
	"github.com/open-telemetry/opamp-go/protobufs"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/control"
)

// A Gate decides who may come in. Its methods may be called concurrently.
type Gate interface {
	// Enter returns who connects, and the labels that whoever that is has, whatever it says of itself. The zero Peer is
	// somebody who need not prove who it is. The error is a *control.Refusal; it has been noted by whom and why.
	Enter(r *http.Request) (control.Peer, map[string]string, error)
	// Refused notes that somebody was turned away who has proven who it is: an id, a host's name, an address without port.
	Refused(id, name, address string, r *control.Refusal)
}

// A visitor is who connects, as the Gate knows it.
type visitor struct {
	peer     control.Peer
	labels   map[string]string
	expelled int64 // Registry.expelled before the Gate was asked
}

// enter asks the Gate. When it reports false, the request has been answered.
func (r *Registry) enter(w http.ResponseWriter, req *http.Request) (v visitor, ok bool) {
	if r.o.Gate == nil {
		return v, true
	}
	v.expelled = r.expelled.Load()
	var err error
	if v.peer, v.labels, err = r.o.Gate.Enter(req); err == nil {
		return v, true
	}
	var refused *control.Refusal
	if !errors.As(err, &refused) {
		refused = &control.Refusal{Code: control.Busy, Text: err.Error()}
	}
	r.turnAway(w, refused)
	return v, false
}

// Of an answer that is no WebSocket, clients show a kilobyte (gorilla/websocket keeps no more).
const maxRefusal = 1 << 10

// turnAway answers with a refusal as JSON.
func (r *Registry) turnAway(w http.ResponseWriter, refused *control.Refusal) {
	r.rejected(refused.Code)
	code := http.StatusForbidden
	switch refused.Code {
	case control.NoCertificate, control.UnknownAuthority, control.Expired:
		code = http.StatusUnauthorized
	case control.Busy:
		code = http.StatusServiceUnavailable
	}
	if refused.After > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(refused.After.Seconds()))))
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write(encode(*refused)) // the agent has gone
}

// encode makes JSON of a refusal that fits, though its text be cut.
func encode(refused control.Refusal) []byte {
	for {
		data, err := json.Marshal(refused)
		if err != nil {
			panic("BUG: " + err.Error())
		}
		runes := []rune(refused.Text)
		if over := len(data) - maxRefusal; over > 0 && len(runes) > 0 {
			refused.Text = string(runes[:max(0, len(runes)-max(over/6, 1))])
			continue
		}
		return data
	}
}

// matches refuses an agent that says another id than its certificate.
func (r *Registry) matches(v visitor, id string, m *protobufs.AgentToServer, req *http.Request) error {
	if v.peer.ID == "" || v.peer.ID == id && !v.peer.Hub {
		return nil
	}
	refused := &control.Refusal{
		Code: control.OtherIdentity, Text: fmt.Sprintf("the agent says that it is %s, and its certificate is of %s", id, v.peer.ID),
		Remedy: "a state directory belongs to one agent: give it back what it had, or move the folder identity out of it and run creel join",
	}
	host, _, err := net.SplitHostPort(req.RemoteAddr)
	if err != nil {
		host = req.RemoteAddr
	}
	name := ""
	for _, kv := range m.GetAgentDescription().GetNonIdentifyingAttributes() {
		if kv.GetKey() == "host.name" {
			name = short(text(kv.GetValue()))
		}
	}
	r.o.Gate.Refused(id, name, host, refused)
	return refused
}

// still asks the Gate again if somebody was expelled since: it may be this agent, which Expel has not found then.
func (r *Registry) still(v visitor, req *http.Request) error {
	if r.o.Gate == nil || v.expelled == r.expelled.Load() {
		return nil
	}
	_, _, err := r.o.Gate.Enter(req)
	return err
}

// Expel ends the connection of an agent to this hub, which is told why. The Gate must refuse it already. Other hubs do so
// themselves: their Gates hear of it as well.
func (r *Registry) Expel(id, why string) {
	r.expelled.Add(1)
	r.mu.Lock()
	a := r.agents[id]
	r.mu.Unlock()
	if a == nil {
		return
	}
	a.mu.Lock()
	conn := a.conn
	a.conn = nil
	if a.Connection == api.Connected && a.ours() {
		a.gone(api.Disconnected, why)
	}
	a.mu.Unlock()
	if conn != nil {
		go conn.Close(websocket.ClosePolicyViolation, why)
	}
}

// known takes in who the agent has proven to be. a.mu is held.
func (a *agent) known(v visitor) {
	a.Identified = v.peer.ID != ""
	if maps.Equal(a.Pinned, v.labels) {
		return
	}
	labels := maps.Clone(a.Labels)
	if labels == nil {
		labels = make(map[string]string)
	}
	for k := range a.Pinned {
		delete(labels, k) // it says itself again what it has there
	}
	maps.Copy(labels, v.labels)
	a.Labels, a.Pinned, a.set = labels, maps.Clone(v.labels), nil
	a.saveSession()
	a.saveServices()
}

// toTrust returns what the agent is to be told to trust. a.mu is held.
func (a *agent) toTrust() string {
	if a.r.o.Authorities == nil || !a.Identified {
		return ""
	}
	return a.r.o.Authorities()
}

// Confirmed says which of the creel agents that are connected, to whichever hub, and have an identity trust what they are to
// trust by now: how many do, and the ids of those that do not.
func (r *Registry) Confirmed() (confirmed int, behind []string) {
	if r.o.Authorities == nil {
		return 0, nil
	}
	now := r.o.Authorities()
	for _, a := range r.all() {
		a.mu.Lock()
		switch {
		case a.Connection != api.Connected || !a.Identified || a.Type != control.AgentType:
		case a.Trusts == now:
			confirmed++
		default:
			behind = append(behind, a.ID)
		}
		a.mu.Unlock()
	}
	slices.Sort(behind)
	return confirmed, behind
}
