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
	State    string      `json:"state"`  // as Life.State
	Health   string      `json:"health"` // Healthy or Degraded
	Degraded []Component `json:"degraded,omitempty"`
	Started  time.Time   `json:"started"`
	Reload   Receipt     `json:"last_reload,omitzero"` // of the last change of the configuration
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
	Identity  *Identity `json:"identity,omitempty"`    // nil: the agent has joined no hub
}

// Identity is how the certificate is by which an agent proves to its hub who it is. Times are by the agent's clock.
type Identity struct {
	Generation uint64    `json:"generation"`
	Expires    time.Time `json:"expires"`
	Renews     time.Time `json:"renews"`          // when it is tried to renew it
	Error      string    `json:"error,omitempty"` // of the last attempt
	Since      time.Time `json:"since,omitzero"`  // when attempts began to fail
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
	Breaker   string    `json:"breaker,omitempty"`           // of an exporter that has one: closed, open or half-open
	Spool     *Spool    `json:"spool,omitempty"`             // of an exporter that has one
}

// Spool is how the disk queue of an exporter is.
type Spool struct {
	Bytes     int64     `json:"bytes"` // on disk
	Limit     int64     `json:"limit_bytes"`
	Waiting   int64     `json:"waiting"`            // records that are to be delivered later
	Oldest    time.Time `json:"oldest,omitzero"`    // no waiting record was put there before
	Replaying bool      `json:"replaying"`          // what waits is being delivered
	InRate    float64   `json:"in_rate"`            // records that were left to be delivered later, a second, over the last half minute
	OutRate   float64   `json:"out_rate"`           // records that were delivered later, likewise
	FullIn    float64   `json:"full_in,omitempty"`  // seconds until there is no room, as the last half minute went; 0: it does not fill
	EmptyIn   float64   `json:"empty_in,omitempty"` // seconds until all is delivered, likewise; 0: it does not empty
	Full      bool      `json:"full"`               // there is no room now
	Error     string    `json:"error,omitempty"`    // why the disk does not do what it is asked for
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
// holds for each pipeline,
//
//	in = delivered + dropped + dead_lettered + spooled + queued
//
// for each of its exporters, where spooled records were left to the exporter's disk queue, and
//
//	recovered + in = delivered + dropped + dead_lettered + waiting
//
// for each disk queue. Counts are records, since the agent started.
type Ledger struct {
	Pipelines []Pipeline     `json:"pipelines"`
	Spools    []SpoolAccount `json:"spools,omitempty"`
}

// SpoolAccount is what became of the records that were left to one exporter's disk queue, of whichever pipeline.
type SpoolAccount struct {
	Exporter     string           `json:"exporter"`
	Recovered    int64            `json:"recovered"` // they were there when the agent started
	In           int64            `json:"in"`
	Delivered    int64            `json:"delivered"`
	Dropped      map[string]int64 `json:"dropped,omitempty"`
	DeadLettered int64            `json:"dead_lettered"`
	Waiting      int64            `json:"waiting"`
	Unexplained  int64            `json:"unexplained"`
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
	Exporter  string           `json:"exporter"`
	In        int64            `json:"in"`
	Delivered int64            `json:"delivered"`
	Dropped   map[string]int64 `json:"dropped,omitempty"`
	Queued    int64            `json:"queued"`

	DeadLettered int64 `json:"dead_lettered"` // refused for good, and kept to be looked at
	Spooled      int64 `json:"spooled"`       // left to the exporter's disk queue: see Ledger.Spools

	Unexplained int64 `json:"unexplained"`
}

// Endpoint is an address where a component listens.
type Endpoint struct {
	Component string `json:"component"`
	Network   string `json:"network"`
	Address   string `json:"address"`            // with the port that was chosen where 0 was asked for
	Protocol  string `json:"protocol,omitempty"` // that is spoken there, such as otlp/grpc
}

// Totals are a ledger's sums over its pipelines, in records.
type Totals struct {
	In      int64 `json:"in"`      // accepted and created
	Out     int64 `json:"out"`     // delivered, by whichever exporter
	Dropped int64 `json:"dropped"` // for whatever reason
	Queued  int64 `json:"queued"`  // in memory

	DeadLettered int64 `json:"dead_lettered"`
	Spooled      int64 `json:"spooled"` // waiting on disk
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
			t.DeadLettered += x.DeadLettered
		}
	}
	for _, s := range l.Spools {
		t.Out += s.Delivered
		t.Dropped += sum(s.Dropped)
		t.DeadLettered += s.DeadLettered
		t.Spooled += s.Waiting
	}
	return t
}

func sum(m map[string]int64) (n int64) {
	for _, v := range m {
		n += v
	}
	return n
}
