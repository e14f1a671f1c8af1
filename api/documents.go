package api

import (
	"maps"
	"time"

	"github.com/creelhq/creel/report"
)

// MaxDocument is the largest text of a document, in bytes.
const MaxDocument = 1 << 20

// Document is a piece of configuration that the hub hands out: sections as in an agent's file, with a selector that says
// which agents get it. Its text is YAML, or JSON, and begins with whom it is for:
//
//	document: nginx-logs
//	selector: site == "north"
//	collectors: {file/nginx: {include: [/var/log/nginx/*.log]}}
//	pipelines: {nginx: {from: [file/nginx], to: [otlp/hub]}}
type Document struct {
	Name     string         `json:"name" doc:"As the key document in its text says: letters, digits, '-', '_' and '.'."`
	Version  int64          `json:"version" doc:"From 1; every change makes the next, a rollback as well."`
	Selector string         `json:"selector,omitempty" doc:"A condition on an agent's labels; none selects all agents but hubs' own."`
	Within   string         `json:"within,omitempty" doc:"What an agent must meet beside the selector, because who wrote the document sees no others; none if they see all."`
	Place    string         `json:"place" doc:"all: every agent that is selected runs it. A number: so many of them do."`
	Hash     string         `json:"hash" doc:"The first 12 digits of the SHA-256 of its text."`
	By       string         `json:"by" doc:"Who has changed it last."`
	Time     time.Time      `json:"time" doc:"When it was changed last."`
	Note     string         `json:"note,omitempty" doc:"What was said of the change, such as: rolled back to version 3."`
	Agents   DocumentAgents `json:"agents" doc:"How many agents run it."`
	Text     string         `json:"text,omitempty" doc:"Not in a list."`
	Deleted  bool           `json:"deleted,omitempty" doc:"Only in a history: this version is a deletion."`
}

// DocumentAgents counts the agents that a document selects, by how they are.
type DocumentAgents struct {
	Selected int `json:"selected"`
	Running  int `json:"running" doc:"They run this version."`
	Waiting  int `json:"waiting" doc:"They are not connected, or have not said yet."`
	Failed   int `json:"failed" doc:"They have refused it or gone back."`
}

// DocumentList is all documents, by name.
type DocumentList struct {
	Documents []Document `json:"documents"`
}

// DocumentHistory is the versions of one document with their text, newest first.
type DocumentHistory struct {
	Versions []Document `json:"versions"`
}

// DocumentDetail is all about one document.
type DocumentDetail struct {
	Document
	Placed []Placed `json:"placed" doc:"The agents that it selects."`
}

// Placed is how one document is on one agent.
type Placed struct {
	Agent   string `json:"agent" doc:"Its id."`
	Name    string `json:"name" doc:"Its name."`
	Status  string `json:"status" doc:"running, waiting, refused or rolled_back."`
	Version string `json:"version,omitempty" doc:"That the agent speaks of."`
	Error   string `json:"error,omitempty"`
}

// DocumentQuery says which version of a document is meant.
type DocumentQuery struct {
	Version int64 `query:"version" doc:"The newest if not given."`
}

// DocumentDeletion says how a document is to be deleted.
type DocumentDeletion struct {
	DryRun bool `query:"dry_run" doc:"Only tell whether it could be deleted."`
}

// DocumentChange asks to write a document.
type DocumentChange struct {
	Text    string `json:"text" doc:"YAML or JSON, at most 1 MiB. It says the document's name, and whom it is for."`
	Version *int64 `json:"version,omitempty" doc:"The version that is changed, 0 for none; the change is refused when it is another. Left out, whichever it is."`
	Note    string `json:"note,omitempty"`
	DryRun  bool   `json:"dry_run,omitempty" doc:"Only tell what would happen."`
}

// DocumentApplied is what became of a DocumentChange.
type DocumentApplied struct {
	Document    Document     `json:"document"`
	Outcome     string       `json:"outcome" doc:"created, changed or unchanged."`
	Differences []Difference `json:"differences"`
	Warnings    []string     `json:"warnings,omitempty"`
	Selected    []string     `json:"selected" doc:"Names of the agents that get it, at most 100."`
}

// Rollback asks to make an earlier version the newest.
type Rollback struct {
	To int64 `json:"to" doc:"The version; 0 is the one before the newest."`
}

// Difference is one thing that is not the same in two configurations.
type Difference struct {
	Path string `json:"path" doc:"Such as exporters.otlp/hub.endpoint."`
	Kind string `json:"kind" doc:"added, removed or changed."`
	Old  string `json:"old,omitempty"`
	New  string `json:"new,omitempty"`
}

// Problem is something that is wrong in a text.
type Problem struct {
	Line    int    `json:"line,omitempty" doc:"From 1."`
	Column  int    `json:"column,omitempty" doc:"From 1."`
	Path    string `json:"path,omitempty"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// OrderRequest asks an agent to do something.
type OrderRequest struct {
	Do    string `json:"do" doc:"pause (collect nothing), resume, drain (pause, and deliver what there is), restart or stop."`
	Cause string `json:"cause,omitempty" doc:"Why; it stands in the agent's history."`
}

// Order is what an agent was asked to do.
type Order struct {
	ID    string    `json:"id"`
	Do    string    `json:"do"`
	By    string    `json:"by"`
	Cause string    `json:"cause,omitempty"`
	Time  time.Time `json:"time"`
	Done  bool      `json:"done" doc:"The agent has said so."`
}

// Intended is what the hub wants an agent to run, beside what it reports.
type Intended struct {
	Documents     []Placed             `json:"documents" doc:"The documents that select it."`
	Conflict      string               `json:"conflict,omitempty" doc:"Why they cannot be merged: then none of them is offered."`
	Order         *Order               `json:"order,omitempty" doc:"The last one."`
	Life          report.Life          `json:"life"`
	Configuration report.Configuration `json:"configuration" doc:"What it says of its configuration: receipts, probation, what has failed."`
}

// DocumentSchema returns the JSON Schema of a document, for editors, from that of a whole configuration.
func DocumentSchema(configuration map[string]any) map[string]any {
	properties := map[string]any{
		"document": map[string]any{"type": "string", "description": "Its name: letters, digits, '-', '_' and '.'."},
		"selector": map[string]any{"type": "string", "description": "A condition on an agent's labels, such as site == \"north\"; none selects all agents but hubs' own."},
		"place": map[string]any{
			"anyOf":   []any{map[string]any{"const": "all"}, map[string]any{"type": "integer", "minimum": 1, "maximum": 1000}},
			"default": "all", "description": "all: every agent that is selected runs it. A number: so many of them do, and when one is lost, another does.",
		},
		"spread":   map[string]any{"type": "string", "description": "With a number as place: a label, such as site, over whose values the agents that run it are spread."},
		"priority": map[string]any{"type": "integer", "minimum": 0, "maximum": 9, "default": 5, "description": "With a number as place: higher ones are placed first."},
		"once":     map[string]any{"type": "boolean", "default": false, "description": "With a number as place: each place is done when an agent has done a round of each of the document's collectors, which must work in rounds, and what these sent is delivered, or on disk. A round that fails is tried on up to three agents. Another version is done anew."},
		"cost":     map[string]any{"type": "number", "minimum": 0.001, "maximum": 1000000, "default": 1, "description": "With a number as place: what it takes of the capacity of an agent that has one (agent.tasks.capacity), and of its share. Left out, it takes 1 of the capacity, and of the share what is measured."},
		"overlap":  map[string]any{"enum": []any{"allow", "never"}, "default": "allow", "description": "With a number as place. allow: when its agent is lost, another has the place at once. never: only when the old one has surely stopped; no two agents ever work on the same place."},
		"orphan": map[string]any{
			"type": "string", "default": "keep", "pattern": "^(keep|stop|[0-9].*)$",
			"description": "With a number as place: what an agent does when no hub has confirmed within three heartbeats that it has the document. keep: it goes on; stop: it stops until one does; a duration such as 10m: it goes on for so long. With overlap: never it is stop.",
		},
	}
	if sections, ok := configuration["properties"].(map[string]any); ok {
		maps.Copy(properties, sections)
	}
	d := maps.Clone(configuration)
	d["title"], d["properties"], d["required"] = "creel document", properties, []any{"document"}
	return d
}
