// Package report is what an agent tells of itself: its health, its components, its pipelines and its ledger. The same
// words go over the admin endpoint, over OpAMP to a hub, and from the hub's API to whoever asks.
//
// It holds data only, and knows nobody who makes or reads it.
package report

import "time"

// Health is whether an agent does its work.
type Health struct {
	ID       string      `json:"id"`
	Version  string      `json:"version"`
	State    string      `json:"state"`  // initializing, running or stopping
	Health   string      `json:"health"` // Healthy or Degraded
	Degraded []Component `json:"degraded,omitempty"`
	Started  time.Time   `json:"started"`
	Reload   Reload      `json:"last_reload,omitzero"`
	Hub      Hub         `json:"hub,omitzero"`
}

// The values of Health.Health.
const (
	Healthy  = "healthy"
	Degraded = "degraded"
)

// Hub is how an agent's connection to its hub is.
type Hub struct {
	URL       string    `json:"url"`
	ID        string    `json:"id,omitempty"`
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since,omitzero"` // of the last change
	Error     string    `json:"error,omitempty"`
	Leased    time.Time `json:"leased_until,omitzero"` // by the agent's clock
}

// Reload is how the last reload went.
type Reload struct {
	Time   time.Time `json:"time,omitzero"`
	Error  string    `json:"error,omitempty"`
	Change Change    `json:"change,omitzero"`
}

// Change is what a reload did. The names are components' paths.
type Change struct {
	Keep   []string `json:"keep"`
	Open   []string `json:"open"`
	Reopen []string `json:"reopen"`
	Close  []string `json:"close"`
}

// Component is how one component is.
type Component struct {
	Component string    `json:"component"` // such as exporters.otlp/hub; of a processor pipelines.web.parse/nginx
	Plugin    string    `json:"plugin"`
	Healthy   bool      `json:"healthy"`
	Error     string    `json:"error,omitempty"`             // why it is not
	Since     time.Time `json:"since,omitzero"`              // of the last change; none if it has always been healthy
	Queued    int64     `json:"queued_bytes,omitempty"`      // of an exporter
	Limit     int64     `json:"queue_limit_bytes,omitempty"` // of an exporter
	Records   int64     `json:"records,omitempty"`           // that a collector has sent into its pipelines
}

// Route is one pipeline as it is wired.
type Route struct {
	Pipeline string   `json:"pipeline"`
	From     []string `json:"from"`              // ids of collectors
	Through  []string `json:"through"`           // ids of processors, in their order
	To       []string `json:"to"`                // ids of exporters
	Outputs  []string `json:"outputs,omitempty"` // ids of pipelines that its processors send to
}

// Ledger is the state of the books. At every quiet moment
//
//	accepted + created = filtered + absorbed + routed + dropped + held + passed
//
// holds for each pipeline, and passed = delivered + dropped + queued for each of its exporters. Counts are records.
type Ledger struct {
	Pipelines []Pipeline `json:"pipelines"`
}

// Pipeline is one pipeline's part of the Ledger.
type Pipeline struct {
	Pipeline  string           `json:"pipeline"`
	Accepted  int64            `json:"accepted"`
	Created   int64            `json:"created"`
	Filtered  int64            `json:"filtered"`
	Absorbed  int64            `json:"absorbed"`
	Routed    int64            `json:"routed"` // sent on to other pipelines
	Dropped   map[string]int64 `json:"dropped,omitempty"`
	Held      int64            `json:"held"`
	Passed    int64            `json:"passed"`
	Exporters []Exporter       `json:"exporters"`

	// Unexplained is what the equation leaves over; records that are being worked on at this moment are in it.
	Unexplained int64 `json:"unexplained"`
}

// Exporter is what became of the records that a pipeline passed to one exporter.
type Exporter struct {
	Exporter    string           `json:"exporter"`
	In          int64            `json:"in"`
	Delivered   int64            `json:"delivered"`
	Dropped     map[string]int64 `json:"dropped,omitempty"`
	Queued      int64            `json:"queued"`
	Unexplained int64            `json:"unexplained"`
}

// Endpoint is an address where a component listens.
type Endpoint struct {
	Component string `json:"component"`
	Network   string `json:"network"`
	Address   string `json:"address"` // with the port that was chosen where 0 was asked for
}

// Totals are a ledger's sums over its pipelines, in records.
type Totals struct {
	In      int64 `json:"in"`      // accepted and created
	Out     int64 `json:"out"`     // delivered, by whichever exporter
	Dropped int64 `json:"dropped"` // for whatever reason
	Queued  int64 `json:"queued"`
}

// Totals returns the sums.
func (l Ledger) Totals() (t Totals) {
	for _, p := range l.Pipelines {
		t.In += p.Accepted + p.Created
		t.Dropped += sum(p.Dropped)
		for _, x := range p.Exporters {
			t.Out += x.Delivered
			t.Queued += x.Queued
			t.Dropped += sum(x.Dropped)
		}
	}
	return t
}

func sum(m map[string]int64) (n int64) {
	for _, v := range m {
		n += v
	}
	return n
}
