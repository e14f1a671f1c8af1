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
}

// Operations returns all operations, in the order of the documentation.
func Operations() []Operation {
	get := func(id, path, doc string, request, response any) Operation {
		return Operation{ID: id, Method: http.MethodGet, Path: path, Doc: doc, Request: request, Response: response}
	}
	change := func(id, method, path, doc string, request, body, response any) Operation {
		return Operation{ID: id, Method: method, Path: path, Doc: doc, Request: request, Body: body, Response: response}
	}
	stream := func(o Operation) Operation {
		o.Stream = true
		return o
	}
	return []Operation{
		get("getHub", "/hub", "What the hub says of itself.", nil, Hub{}),
		get("listAgents", "/agents", "The fleet, worst first.", AgentQuery{}, AgentList{}),
		stream(get("watchAgents", "/agents/watch", "The fleet as it changes: an event agents with the first page at once and whenever it has changed, at most once a second.", AgentQuery{}, AgentList{})),
		get("getAgent", "/agents/{id}", "One agent: components, pipelines, ledger, configuration, timeline. A prefix of the id will do when it is unique.", nil, AgentDetail{}),
		stream(get("watchAgent", "/agents/{id}/watch", "One agent as it changes: an event agent at once and whenever it has changed, at most once a second.", nil, AgentDetail{})),
		change("orderAgent", http.MethodPost, "/agents/{id}/orders", "Ask an agent to pause, resume, drain, restart or stop. An agent that is not connected is told when it is again.", nil, OrderRequest{}, Order{}),
		get("getLedger", "/ledger", "The books of the fleet: what became of every record, and whether what agents call delivered to this hub has come.", LedgerQuery{}, Ledger{}),
		get("listConfigurations", "/configurations", "The configurations that run.", nil, ConfigurationList{}),
		get("getConfiguration", "/configurations/{id}", "One configuration that runs, with its text.", nil, Configuration{}),
		get("listDocuments", "/documents", "The documents that the hub hands out, without their text.", nil, DocumentList{}),
		change("applyDocument", http.MethodPut, "/documents", "Write a document, or with dry_run tell what that would change. One that is wrong, or that cannot be merged with what its agents run, is refused.", nil, DocumentChange{}, DocumentApplied{}),
		get("getDocument", "/documents/{name}", "One document with its text, and how it is on each agent that it selects.", DocumentQuery{}, DocumentDetail{}),
		change("deleteDocument", http.MethodDelete, "/documents/{name}", "Delete a document: its agents go on without it. Its history stays, so that it can be rolled back.", DocumentDeletion{}, nil, nil),
		get("getDocumentHistory", "/documents/{name}/history", "The versions of a document with their text, newest first.", nil, DocumentHistory{}),
		change("rollBackDocument", http.MethodPost, "/documents/{name}/rollback", "Make an earlier version of a document the newest.", nil, Rollback{}, DocumentApplied{}),
		get("getSchema", "/schema", "The JSON Schema (draft 2020-12) of a document, for editors.", nil, json.RawMessage{}),
		get("searchLogs", "/logs", "Search log records.", LogQuery{}, LogResult{}),
		stream(get("tailLogs", "/logs/tail", "Log records as they arrive: an event log for each that matches; start, end, order and limit do not count.", LogQuery{}, Log{})),
		get("countLogs", "/logs/histogram", "Count log records over time, by severity.", LogQuery{}, Histogram{}),
		get("searchTraces", "/traces", "Search traces.", TraceQuery{}, TraceList{}),
		get("getTrace", "/traces/{id}", "All spans of a trace.", nil, Trace{}),
		get("listServices", "/services", "The services that logs or spans came from.", Window{}, ServiceList{}),
	}
}
