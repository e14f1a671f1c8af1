package api

import "time"

// Cluster is the hubs that share a control state, and how that is.
type Cluster struct {
	Hub    string       `json:"hub" doc:"The id of the hub that answers."`
	Leader string       `json:"leader,omitempty" doc:"The id of the hub that places documents; none if none is elected at present."`
	Since  time.Time    `json:"since,omitzero" doc:"Since when it leads."`
	Hubs   []ClusterHub `json:"hubs" doc:"By name."`
	State  ControlState `json:"state"`
}

// ClusterHub is a hub as it says itself.
type ClusterHub struct {
	ID       string    `json:"id"`
	Name     string    `json:"name" doc:"Of its host."`
	Version  string    `json:"version"`
	Started  time.Time `json:"started"`
	URL      string    `json:"url,omitempty" doc:"Where others reach it; none if they cannot."`
	OTLPGRPC string    `json:"otlp_grpc,omitempty" doc:"Where it takes OTLP over gRPC: host:port."`
	OTLPHTTP string    `json:"otlp_http,omitempty" doc:"Where it takes OTLP over HTTP: host:port."`
	Agents   int       `json:"agents" doc:"About how many are connected to it."`
	Draining bool      `json:"draining,omitempty" doc:"Its agents are asked to go to other hubs, until that is taken back."`

	QuickLook *QuickLook `json:"quick_look,omitempty" doc:"How its store is: only of getHub, if it answers and that is for who asks."`
}

// ControlState is how etcd is, as the hub that answers sees it.
type ControlState struct {
	Healthy  bool          `json:"healthy" doc:"It answers, and the hub's lease is kept."`
	Error    string        `json:"error,omitempty" doc:"Why it does not."`
	Leased   bool          `json:"leased" doc:"The hub has a lease: others see it."`
	Answered time.Time     `json:"answered,omitzero" doc:"When it has answered last."`
	Took     float64       `json:"took" doc:"How long that took, seconds."`
	Embedded bool          `json:"embedded" doc:"It lies in the hubs themselves, not in a cluster outside."`
	Members  []StateMember `json:"members" doc:"Of etcd."`
}

// StateMember is a member of etcd.
type StateMember struct {
	Name    string `json:"name"`
	Peer    string `json:"peer,omitempty" doc:"Where the others reach it."`
	Leader  bool   `json:"leader,omitempty" doc:"It leads etcd, which need not be where the hub is that leads."`
	Learner bool   `json:"learner,omitempty" doc:"It is new and has no vote yet."`
	Self    bool   `json:"self,omitempty" doc:"It is the one within the hub that answers."`
	Healthy bool   `json:"healthy" doc:"It answers; of the one within the hub that answers: it knows who leads."`
	Full    bool   `json:"full,omitempty" doc:"Its database is as large as it may be: nothing can be written until there is room."`
	Size    int64  `json:"size,omitempty" doc:"Of its database, bytes; none if it is not known. Within another hub about, as that has said last."`
}

// HubDrain is whether a hub is to be left by its agents.
type HubDrain struct {
	Drain bool   `json:"drain"`
	Cause string `json:"cause,omitempty" doc:"Why, for the audit log."`
}
