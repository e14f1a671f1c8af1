package report

import "time"

// Life is where an agent is in its life, and how it came there.
type Life struct {
	State   string       `json:"state"` // initializing, running, paused, stopping or stopped
	Since   time.Time    `json:"since"`
	Holds   []Hold       `json:"holds,omitempty"`   // why it is paused, or would be; it runs when there is none
	History []Transition `json:"history,omitempty"` // oldest first; the last few only
}

// Hold is a reason to collect nothing.
type Hold struct {
	By    string    `json:"by"` // operator, or requires.disk, requires.paths and so on
	Cause string    `json:"cause"`
	Since time.Time `json:"since"`
}

// Transition is a change of state.
type Transition struct {
	Time  time.Time `json:"time"`
	From  string    `json:"from"`
	To    string    `json:"to"`
	Event string    `json:"event"` // such as ready, hold, release, stop
	Cause string    `json:"cause,omitempty"`
}

// Configuration is what an agent runs, what it was asked to run, and how the last changes went.
type Configuration struct {
	Hash      string     `json:"hash"`                // of what runs: the first 12 digits of a SHA-256
	Wanted    string     `json:"wanted,omitempty"`    // the hash of what it was asked to run, if it does not run that
	Error     string     `json:"error,omitempty"`     // why it does not
	Since     time.Time  `json:"since,omitzero"`      // when that began
	Documents []Document `json:"documents,omitempty"` // that it was asked to run
	Good      string     `json:"good,omitempty"`      // the hash of what has proved good last, and comes back if what runs does not
	Probation time.Time  `json:"probation_until,omitzero"`
	Receipts  []Receipt  `json:"receipts,omitempty"` // oldest first; the last few only
	Failed    []Failed   `json:"failed,omitempty"`   // what it will not try again by itself
}

// Document is one piece of a configuration.
type Document struct {
	Name    string `json:"name"`              // a file's name, a document's name at the hub, a key in a center
	Source  string `json:"source"`            // file, hub, or a center's id such as etcd/main
	Version string `json:"version,omitempty"` // as its source counts
	Hash    string `json:"hash"`              // the first 12 digits of the SHA-256 of its text
	Status  string `json:"status"`            // running, waiting, refused or rolled_back; of one that is to be done once, done or failed
	Error   string `json:"error,omitempty"`

	Epoch int64     `json:"epoch,omitempty"` // in which it was done or failed
	Ended time.Time `json:"ended,omitzero"`  // when that was, by the agent's clock

	// Cost is the share of a slot that the collectors take of one that a hub has placed on some agents, as measured over the last
	// minutes. It is coarse: it stays until it has doubled or halved. 0: it is not known, or they do not work in rounds.
	Cost float64 `json:"cost,omitempty"`
}

// Some values of Document.Status. Done and Failure are those of one that is to be done once, and is over.
const (
	Running = "running"
	Done    = "done"
	Failure = "failed"
)

// Failed is a configuration that was refused when it was opened, or rolled back.
type Failed struct {
	Hash   string    `json:"hash"`
	Time   time.Time `json:"time"`
	Reason string    `json:"reason"`
}

// The values of Receipt.Outcome.
const (
	Applied    = "applied"
	Unchanged  = "unchanged"
	Refused    = "refused"     // nothing has happened
	RolledBack = "rolled_back" // the last good configuration was applied instead
)

// Receipt is what became of one change of the configuration.
type Receipt struct {
	Time    time.Time     `json:"time"`
	Source  string        `json:"source"` // who asked: signal, request, file, hub, a center's id, probation, start
	Hash    string        `json:"hash"`   // of the configuration that was asked for
	Outcome string        `json:"outcome"`
	Error   string        `json:"error,omitempty"` // why it was refused or rolled back
	Change  Change        `json:"change,omitzero"`
	Took    time.Duration `json:"took"`             // nanoseconds, all in all
	Still   time.Duration `json:"still"`            // nanoseconds: the longest that one pipeline's way stood still
	InHand  int64         `json:"in_hand"`          // records that were in queues or held by processors at that moment
	Leaked  []string      `json:"leaked,omitempty"` // components that did not close in time and were left behind
	Trace   string        `json:"trace,omitempty"`  // the trace that shows the change
}
