// Package cluster knows which hubs share a control state: each keeps an entry there, with its lease, that says where it is.
//
// It knows nothing of what hubs do for each other.
package cluster

import (
	"time"

	"github.com/creelhq/creel/control"
)

// hubsPrefix is where hubs say where they are: hubs/<id>.
const hubsPrefix = "hubs/"

// A Hub is one that is there, as it says itself.
type Hub struct {
	control.HubAt
	Name    string    `json:"name"` // of its host
	Version string    `json:"version"`
	Started time.Time `json:"started"`
}
