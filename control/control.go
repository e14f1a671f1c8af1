// Package control is what agents and hubs say to each other: OpAMP over WebSocket, and within it creel's own messages,
// Beat from the agent, Lease and Order from the hub.
//
// It carries what is said and knows nothing of what either side does with it. Data does not go this way.
package control

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"

	"github.com/creelhq/creel/report"
)

// Path is where a hub takes OpAMP.
const Path = "/v1/opamp"

// Capability is the OpAMP custom capability by which both sides know that the other speaks creel's messages.
const Capability = "io.github.creelhq.v1"

// MaxMessage is the largest message in bytes that either side takes, if nothing else is configured.
const MaxMessage = 4 << 20

// Beat is the heartbeat of a creel agent: what it counts. All but the first two are left out when they are as in the Beat
// before.
type Beat struct {
	Nonce      uint64             `json:"nonce"`  // echoed by the Lease
	Uptime     float64            `json:"uptime"` // seconds since the agent started, of a monotonic clock
	Components []report.Component `json:"components,omitempty"`
	Routes     []report.Route     `json:"routes,omitempty"`
	Ledger     *report.Ledger     `json:"ledger,omitempty"`

	Life          *report.Life          `json:"life,omitempty"`
	Configuration *report.Configuration `json:"configuration,omitempty"`
	Done          string                `json:"done,omitempty"` // the ID of the last Order that was done

	Authorities string `json:"authorities,omitempty"` // the FingerprintOfBundle of the authorities that the agent trusts

	Services []Service `json:"services,omitzero"` // empty, not nil: it offers none any more

	Cursors []Cursor `json:"cursors,omitempty"` // those that are other than they were
}

// Service is what an agent offers to others, for its hub to tell of.
type Service struct {
	Name    string            `json:"service"`
	Address string            `json:"address"` // host:port, as others reach it
	Tags    []string          `json:"tags,omitempty"`
	Meta    map[string]string `json:"meta,omitempty"`
	Weight  int               `json:"weight"`
}

// Lease is the hub's answer to a Beat. The agent is leased until Expires after it *sent* the Beat with this Nonce, so
// that its own expiry is always before the hub's.
type Lease struct {
	Nonce     uint64        `json:"nonce"`
	Hub       string        `json:"hub"`
	Expires   time.Duration `json:"expires"`   // nanoseconds
	Heartbeat time.Duration `json:"heartbeat"` // nanoseconds: how often to send a Beat

	// Authorities is the FingerprintOfBundle of what the agent is to trust: if it trusts others, it renews at once.
	Authorities string `json:"authorities,omitempty"`

	// Hubs are all that share the control state, this one among them, when that has changed and with the first Lease of a
	// connection. When this one is gone the agent goes to another.
	Hubs []HubAt `json:"hubs,omitempty"`

	// Leave asks the agent to go to another hub, as soon as it has a connection there: this one is drained, or has more than its
	// share. It is the id of the hub to go to, or AnyHub.
	Leave string `json:"leave,omitempty"`
}

// AnyHub is a Lease.Leave that leaves it to the agent where to go.
const AnyHub = "any"

// HubAt is where a hub is.
type HubAt struct {
	ID string `json:"id"`
	Addresses
	Draining bool `json:"draining,omitempty"` // it is to be left
	Agents   int  `json:"agents"`             // about how many are connected to it
}

const (
	beatType  = "beat"
	leaseType = "lease"
	orderType = "order"
)

// Message returns b as an OpAMP custom message.
func (b *Beat) Message() *protobufs.CustomMessage { return custom(beatType, b) }

// Message returns l as an OpAMP custom message.
func (l *Lease) Message() *protobufs.CustomMessage { return custom(leaseType, l) }

// Message returns o as an OpAMP custom message.
func (o *Order) Message() *protobufs.CustomMessage { return custom(orderType, o) }

func custom(kind string, v any) *protobufs.CustomMessage {
	data, err := json.Marshal(v)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return &protobufs.CustomMessage{Capability: Capability, Type: kind, Data: data}
}

// BeatOf returns the Beat in m, nil if m is none or of somebody else's capability.
func BeatOf(m *protobufs.CustomMessage) (*Beat, error) { return messageOf[Beat](m, beatType) }

// LeaseOf returns the Lease in m, nil if m is none or of somebody else's capability.
func LeaseOf(m *protobufs.CustomMessage) (*Lease, error) { return messageOf[Lease](m, leaseType) }

// OrderOf returns the Order in m, nil if m is none or of somebody else's capability.
func OrderOf(m *protobufs.CustomMessage) (*Order, error) { return messageOf[Order](m, orderType) }

func messageOf[T any](m *protobufs.CustomMessage, kind string) (*T, error) {
	if m.GetCapability() != Capability || m.GetType() != kind {
		return nil, nil
	}
	v := new(T)
	if err := json.Unmarshal(m.GetData(), v); err != nil {
		return nil, fmt.Errorf("read %s: %w", kind, err)
	}
	return v, nil
}
