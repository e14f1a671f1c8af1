package api

import (
	"slices"
	"time"
)

// Role is what somebody may do at a hub.
type Role string

// The values of Role. A viewer may look, an operator may also change documents and order agents about, an admin may do
// everything. An agent may take part; whoever has the role ingest may send data and nothing else; with the role hub a hub joins.
const (
	Viewer   Role = "viewer"
	Operator Role = "operator"
	Admin    Role = "admin"
	Enrol    Role = "agent"
	Ingest   Role = "ingest"
	Member   Role = "hub"
)

var ranks = []Role{Viewer, Operator, Admin}

// May reports whether r includes what is asked for: a viewer's, an operator's or an admin's. The others include none.
func (r Role) May(asked Role) bool {
	return slices.Contains(ranks, r) && slices.Index(ranks, r) >= slices.Index(ranks, asked)
}

// Me is who asks.
type Me struct {
	Name   string    `json:"name"`
	Role   Role      `json:"role" doc:"viewer, operator or admin."`
	Within string    `json:"within,omitempty" doc:"A condition on labels: only agents that meet it are seen and changed, and what is not of one agent is not seen at all."`
	Ends   time.Time `json:"ends,omitzero" doc:"When the token that was shown ends."`
}

// AccessToken is a token that somebody has been given to come in, without its secret: enrolment tokens of agents, people's,
// and those of applications that send OTLP.
type AccessToken struct {
	ID      string            `json:"id" doc:"Its public part, which its text has as well."`
	Name    string            `json:"name" doc:"Whose it is, for people and the audit log."`
	Role    Role              `json:"role" doc:"viewer, operator, admin, agent, ingest or hub."`
	Within  string            `json:"within,omitempty" doc:"Of a viewer, operator or admin: a condition on labels that bounds what is seen and changed."`
	Signals []string          `json:"signals,omitempty" doc:"Of the role ingest: logs, metrics, traces. None is all of them."`
	Records int64             `json:"records,omitempty" doc:"Of the role ingest: records that are taken in any ten seconds; 0 is no limit."`
	Labels  map[string]string `json:"labels,omitempty" doc:"Of the role agent: what agents that enrol with it are labelled with, whatever they say of themselves."`
	Uses    int               `json:"uses,omitempty" doc:"Of the roles agent and hub: how many may still join with it."`
	Used    int               `json:"used,omitempty" doc:"Of the roles agent and hub: how many have."`
	By      string            `json:"by" doc:"Who has made it."`
	Created time.Time         `json:"created"`
	Ends    time.Time         `json:"ends,omitzero" doc:"When it is worth nothing any more; none is never."`
}

// AccessTokenList is all tokens that are worth something, by role and name.
type AccessTokenList struct {
	Tokens []AccessToken `json:"tokens"`
}

// AccessTokenRequest asks for a token.
type AccessTokenRequest struct {
	Name    string            `json:"name" doc:"Whose it is: at most 100 characters."`
	Role    Role              `json:"role"`
	Within  string            `json:"within,omitempty"`
	Signals []string          `json:"signals,omitempty"`
	Records int64             `json:"records,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
	Uses    int               `json:"uses,omitempty" doc:"Of the role agent: 1 if not given, 10 000 at most."`
	Seconds int64             `json:"seconds,omitempty" doc:"How long it is worth something. Of the roles agent and hub an hour at most, and that if not given; of others for ever if not given."`
}

// AccessTokenCreated is a new token, with the text that is shown this one time.
type AccessTokenCreated struct {
	AccessToken
	Text string `json:"text" doc:"The secret itself: the hub keeps only its hash."`
	Join string `json:"join,omitempty" doc:"Of the roles agent and hub: what to run on the host that is to join."`
}

// Knock is somebody who wanted to come in as an agent and was refused. The same one with the same reason is one Knock.
type Knock struct {
	Agent   string    `json:"agent,omitempty" doc:"The id that it gave; none if it gave none."`
	Name    string    `json:"name,omitempty" doc:"The host's name, as it says."`
	Address string    `json:"address" doc:"Where it came from, without the port."`
	Reason  string    `json:"reason" doc:"A word for programs, such as token_spent, revoked, cloned or unknown_authority."`
	Text    string    `json:"text" doc:"What is wrong and why."`
	Remedy  string    `json:"remedy" doc:"What to do about it."`
	First   time.Time `json:"first"`
	Last    time.Time `json:"last"`
	Count   int64     `json:"count"`
}

// KnockList is the newest of them, newest first.
type KnockList struct {
	Knocks  []Knock      `json:"knocks"`
	Revoked []Revocation `json:"revoked" doc:"Agents that may not come in any more, newest first."`
	Joint
}

// Revocation is why an agent may not come in any more.
type Revocation struct {
	Agent string    `json:"agent"`
	Name  string    `json:"name,omitempty"`
	By    string    `json:"by"`
	Cause string    `json:"cause,omitempty"`
	Time  time.Time `json:"time"`
}

// Because is why something is done.
type Because struct {
	Cause string `json:"cause,omitempty" doc:"For the audit log; at most 1 000 characters."`
}

// AuditEntry is something that was changed, or tried.
type AuditEntry struct {
	Number  int64     `json:"number" doc:"From 1, without gaps."`
	Time    time.Time `json:"time"`
	Who     string    `json:"who" doc:"The name of the token that was shown."`
	Role    Role      `json:"role,omitempty"`
	Address string    `json:"address,omitempty" doc:"Where the request came from, without the port."`
	Hub     string    `json:"hub" doc:"The hub that did it."`
	Action  string    `json:"action" doc:"The id of the operation, or what happened: applyDocument, orderAgent, createToken, enrol, signIn…"`
	Target  string    `json:"target,omitempty" doc:"What was changed: a document's name, an agent's id."`
	Outcome string    `json:"outcome" doc:"done, or the code of the error that it was refused with."`
	Detail  string    `json:"detail,omitempty"`
	Hash    string    `json:"hash" doc:"SHA-256 over this entry and the hash of the one before, hexadecimal: nobody can take one out unseen."`
}

// AuditQuery says which entries are meant.
type AuditQuery struct {
	Search string `query:"search" doc:"Words that who, action, target, outcome or detail must contain."`
	Before int64  `query:"before" doc:"Only entries with smaller numbers; the newest if not given."`
	Limit  int    `query:"limit" doc:"1 to 1000; 100 if not given."`
}

// AuditList is entries, newest first.
type AuditList struct {
	Entries []AuditEntry `json:"entries"`
	Next    int64        `json:"next,omitempty" doc:"Before of the next page; none on the last."`
	Broken  int64        `json:"broken,omitempty" doc:"The newest entry on this page whose hash is wrong: it, or one before it, is not what was written."`
}

// Authority is the hub's own: what its certificates and those of its agents come from.
type Authority struct {
	Phase     string      `json:"phase" doc:"steady; or of a change: announced, when the new root is trusted beside the old; issuing, when certificates come from the new one."`
	Roots     []Root      `json:"roots" doc:"Those that are trusted, the older one first."`
	Ends      time.Time   `json:"ends" doc:"When the authority's certificate in use ends: long before, it is to be renewed with the root's key."`
	RootKey   bool        `json:"root_key" doc:"Whether the root's key is at this hub. It is needed to renew, and may be kept elsewhere meanwhile."`
	Confirmed int         `json:"confirmed" doc:"Connected agents that trust what is trusted now."`
	Behind    []string    `json:"behind,omitempty" doc:"The ids of those that do not yet; a hundred at most."`
	Warnings  []string    `json:"warnings,omitempty" doc:"What somebody should do something about."`
	TLS       Certificate `json:"tls,omitzero" doc:"The certificate that the hub shows; none without TLS."`
}

// Root is a root certificate.
type Root struct {
	Fingerprint string    `json:"fingerprint" doc:"As tokens have it."`
	Begins      time.Time `json:"begins"`
	Ends        time.Time `json:"ends"`
	Issues      bool      `json:"issues" doc:"Whether certificates come from it now."`
}

// Certificate is one that is in use.
type Certificate struct {
	Names []string  `json:"names"`
	Ends  time.Time `json:"ends"`
	Own   bool      `json:"own" doc:"Whether it is of the hub's own authority; else of a file."`
}

// AuthorityChange asks for the next step of changing the authority.
type AuthorityChange struct {
	Step  string `json:"step" doc:"rotate: begin, and announce a new root. next: go on, from announced to issuing and from there to steady, without the old root. back: one phase back. renew: a new certificate of the same root."`
	Force bool   `json:"force,omitempty" doc:"Go on though agents have not confirmed; those are left behind."`
}

// LoginRequest shows a token.
type LoginRequest struct {
	Token string `json:"token"`
}

// LoginResponse is what a token was changed for: a JWT that is to be sent as a bearer token.
type LoginResponse struct {
	Token   string  `json:"token"`
	Seconds float64 `json:"seconds" doc:"How long it is worth something."`

	Authorities string `json:"authorities,omitempty" doc:"What to trust at this hub from now on, PEM: its own authority, which may be about to change; none if its certificate was brought."`
}
