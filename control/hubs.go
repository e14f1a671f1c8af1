package control

// HubRequest asks a hub to let another one share its control state. The connection need not show a certificate, and must have TLS
// unless it is on one machine: the answer is secret.
type HubRequest struct {
	Token  string `json:"token"`            // the text of a token of the role hub
	Hub    string `json:"hub"`              // the id of the one that joins: a UUID
	Name   string `json:"name"`             // of its host, for people
	Key    []byte `json:"key"`              // 32 random bytes that only it knows: with them an answer that was lost is repeated while the token lasts
	Peer   string `json:"peer"`             // https://host:port at which other hubs reach its etcd, if it is to have one
	Member string `json:"member,omitempty"` // of an etcd that it has had here: the id of its member
}

// HubGrant is what a hub needs to share a control state: either where an etcd outside is, or the members of those within hubs.
type HubGrant struct {
	Secret  []byte       `json:"secret"` // what keys in the control state are sealed with
	Etcd    *EtcdAddress `json:"etcd,omitempty"`
	Member  string       `json:"member,omitempty"`  // the id of its member
	Members []string     `json:"members,omitempty"` // where all members are reached, it as well: https://host:port
}

// EtcdAddress says where an etcd outside is, and how to come in. Certificates are PEM.
type EtcdAddress struct {
	Endpoints []string `json:"endpoints"`
	CA        []byte   `json:"ca,omitempty"`
	Cert      []byte   `json:"cert,omitempty"`
	Key       []byte   `json:"key,omitempty"`
	User      string   `json:"user,omitempty"`
	Password  string   `json:"password,omitempty"`
}
