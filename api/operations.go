package api

import (
	"encoding/json"
	"net/http"
)

// An Operation is one thing that the API can do. Request, Body and Response are zero values of its types; nil is none.
type Operation struct {
	ID, Method, Path string // Path is below Prefix, with {id} for parts of it
	Doc              string
	Request          any  // its fields tagged query, in the query string
	Body             any  // of the request, as application/json
	Response         any  // nil: the answer is 204 without a body
	Stream           bool // Response is that of each server-sent event
	Role             Role // that is needed; empty: none, and no token either
	Within           bool // also for those who see only some agents: it shows and changes no more than these
	Joint            bool // all hubs answer it together: whichever is asked by somebody asks the others
}

// Operations returns all operations, in the order of the documentation.
func Operations() []Operation {
	get := func(id, path, doc string, request, response any) Operation {
		return Operation{ID: id, Method: http.MethodGet, Path: path, Doc: doc, Request: request, Response: response, Role: Viewer}
	}
	change := func(id, method, path, doc string, request, body, response any) Operation {
		return Operation{ID: id, Method: method, Path: path, Doc: doc, Request: request, Body: body, Response: response, Role: Operator}
	}
	admin := func(o Operation) Operation {
		o.Role = Admin
		return o
	}
	within := func(o Operation) Operation {
		o.Within = true
		return o
	}
	joint := func(o Operation) Operation {
		o.Joint = true
		return o
	}
	stream := func(o Operation) Operation {
		o.Stream = true
		return o
	}
	return []Operation{
		joint(within(get("getHub", "/hub", "What the hub says of itself.", nil, Hub{}))),
		get("getCluster", "/cluster", "The hubs that share a control state, which of them places documents, and how etcd is.", nil, Cluster{}),
		stream(get("watchCluster", "/cluster/watch", "The same as it changes: an event cluster at once and whenever it has changed, at most once a second.", nil, Cluster{})),
		admin(change("drainHub", http.MethodPost, "/hubs/{id}/drain", "Ask the agents of a hub to go to other hubs, or take that back. It holds while the hub is stopped, too.", nil, HubDrain{}, ClusterHub{})),
		within(get("getDirectory", "/directory", "Who is there: hubs, agents that are connected to one, and services that agents offer. Any hub tells of all.", DirectoryQuery{}, Directory{})),
		within(stream(get("watchDirectory", "/directory/watch", "The directory as it changes: an event all with what there is, and put and delete for each change after that, at most ten times a second. Each has an id with which to go on at any hub: in the header Last-Event-ID, or in after. An event at says every 15 seconds that nothing has changed.", DirectoryWatch{}, DirectoryEvent{}))),
		joint(within(get("listAgents", "/agents", "The fleet, worst first.", AgentQuery{}, AgentList{}))),
		within(stream(get("watchAgents", "/agents/watch", "The fleet as it changes: an event agents with the first page at once and whenever it has changed, at most once a second.", AgentQuery{}, AgentList{}))),
		joint(within(get("getAgent", "/agents/{id}", "One agent: components, pipelines, ledger, configuration, timeline. A prefix of the id will do when it is unique.", nil, AgentDetail{}))),
		within(stream(get("watchAgent", "/agents/{id}/watch", "One agent as it changes: an event agent at once and whenever it has changed, at most once a second.", nil, AgentDetail{}))),
		within(change("orderAgent", http.MethodPost, "/agents/{id}/orders", "Ask an agent to pause, resume, drain, restart or stop. An agent that is not connected is told when it is again.", nil, OrderRequest{}, Order{})),
		joint(get("getLedger", "/ledger", "The books of the fleet: what became of every record, and whether what agents call delivered to this hub has come.", LedgerQuery{}, Ledger{})),
		joint(get("listConfigurations", "/configurations", "The configurations that run.", nil, ConfigurationList{})),
		joint(get("getConfiguration", "/configurations/{id}", "One configuration that runs, with its text.", nil, Configuration{})),
		within(get("listDocuments", "/documents", "The documents that the hub hands out, without their text.", nil, DocumentList{})),
		within(change("applyDocument", http.MethodPut, "/documents", "Write a document, or with dry_run tell what that would change. One that is wrong, or that cannot be merged with what its agents run, is refused.", nil, DocumentChange{}, DocumentApplied{})),
		within(get("getDocument", "/documents/{name}", "One document with its text, and how it is on each agent that it selects.", DocumentQuery{}, DocumentDetail{})),
		within(change("deleteDocument", http.MethodDelete, "/documents/{name}", "Delete a document: its agents go on without it. Its history stays, so that it can be rolled back.", DocumentDeletion{}, nil, nil)),
		within(get("getDocumentHistory", "/documents/{name}/history", "The versions of a document with their text, newest first.", nil, DocumentHistory{})),
		within(change("rollBackDocument", http.MethodPost, "/documents/{name}/rollback", "Make an earlier version of a document the newest.", nil, Rollback{}, DocumentApplied{})),
		within(get("listTasks", "/tasks", "The tasks: documents that are to be on some of the agents that they select, and on which they are.", nil, TaskList{})),
		within(stream(get("watchTasks", "/watch/tasks", "The tasks as they change: an event tasks with all at once, and then with those of the documents whose tasks have changed, at most five times a second.", nil, TaskChange{}))), // not below /tasks, where a document may be called watch
		within(get("getTask", "/tasks/{name}", "The tasks of one document: where they are, what has become of them, and what they wait for.", nil, TaskDetail{})),
		within(change("runTask", http.MethodPost, "/tasks/{name}/run", "Have all agents that have a document do a round of its collectors now. One that is to be done once, and is, is done again.", nil, Because{}, TaskDetail{})),
		within(change("cancelTask", http.MethodPost, "/tasks/{name}/cancel", "End a document that is to be done once, and is not done yet; of one that goes on, give up the rounds under way.", nil, Because{}, TaskDetail{})),
		within(change("retryTask", http.MethodPost, "/tasks/{name}/retry", "Place a document anew that is parked, cancelled or done, whatever it has failed on.", nil, Because{}, TaskDetail{})),
		within(get("getSchema", "/schema", "The JSON Schema (draft 2020-12) of a document, for editors.", nil, json.RawMessage{})),
		joint(get("searchLogs", "/logs", "Search log records.", LogQuery{}, LogResult{})),
		joint(stream(get("tailLogs", "/logs/tail", "Log records as they arrive: an event log for each that matches; start, end, order and limit do not count.", LogQuery{}, Log{}))),
		joint(get("countLogs", "/logs/histogram", "Count log records over time, by severity.", LogQuery{}, Histogram{})),
		joint(get("searchTraces", "/traces", "Search traces.", TraceQuery{}, TraceList{})),
		joint(get("getTrace", "/traces/{id}", "All spans of a trace.", nil, Trace{})),
		joint(get("listServices", "/services", "The services that logs or spans came from.", Window{}, ServiceList{})),
		within(get("getMe", "/me", "Who asks, and what they may do.", nil, Me{})),
		admin(get("listTokens", "/tokens", "The tokens that agents, people and applications come in with, without their secrets.", nil, AccessTokenList{})),
		admin(change("createToken", http.MethodPost, "/tokens", "Make a token. Its text is in the answer, and nowhere else.", nil, AccessTokenRequest{}, AccessTokenCreated{})),
		admin(change("deleteToken", http.MethodDelete, "/tokens/{id}", "Make a token worth nothing, and whatever it was changed for. Agents that have enrolled with it stay.", nil, nil, nil)),
		joint(get("listKnocks", "/knocks", "Who wanted to come in as an agent and was refused, and why; and who may not come in any more.", nil, KnockList{})),
		admin(change("revokeAgent", http.MethodPost, "/agents/{id}/revoke", "Let an agent in no more, within seconds. It keeps what it collects until it is admitted again.", nil, Because{}, nil)),
		admin(change("admitAgent", http.MethodPost, "/agents/{id}/admit", "Let an agent in again that was revoked; or the one that knocks, of two with the same identity.", nil, Because{}, nil)),
		admin(change("removeHub", http.MethodDelete, "/hubs/{id}", "Remove a hub for good from those that keep the control state together. It may be the one that is asked, which stops then. A prefix of the id will do when it is unique.", nil, nil, nil)),
		admin(get("listAudit", "/audit", "What was changed, by whom, and what was refused.", AuditQuery{}, AuditList{})),
		get("getAuthority", "/authority", "The hub's own authority: what its certificates and its agents' come from.", nil, Authority{}),
		admin(change("changeAuthority", http.MethodPost, "/authority", "Change the authority, in steps of which each can be taken back but the last.", nil, AuthorityChange{}, Authority{})),
		Operation{ID: "login", Method: http.MethodPost, Path: "/login", Doc: "Change a token for a JWT that is worth something for ten minutes, and a cookie for browsers.", Body: LoginRequest{}, Response: LoginResponse{}},
	}
}
