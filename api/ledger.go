package api

import (
	"time"

	"github.com/creelhq/creel/report"
)

// Intake counts what a hub let in of an agent, and what it did not, since the hub was started. An agent that has not sent
// anything for an hour begins at 0 again.
type Intake struct {
	Requests          int64 `json:"requests"`
	Records           int64 `json:"records"`
	Bytes             int64 `json:"bytes" doc:"Of the requests, as OTLP, uncompressed."`
	ThrottledRequests int64 `json:"throttled_requests" doc:"They were over the limit for one agent, and the agent was told when to come back."`
	ThrottledRecords  int64 `json:"throttled_records" doc:"In them; each time they come they count again."`
}

// Hop compares what an agent calls delivered by one of its exporters with what the hub took of that. Taken - Sent is under
// way: the answer, or the agent's next report.
type Hop struct {
	Exporter    string    `json:"exporter" doc:"The exporter's id, such as otlp/hub."`
	Sent        int64     `json:"sent" doc:"Records that the agent calls delivered."`
	Taken       int64     `json:"taken" doc:"Records that the hub took, each batch once."`
	Repeats     int64     `json:"repeats" doc:"Records that came once more, for their answer was lost; they are not in taken."`
	Unexplained int64     `json:"unexplained" doc:"Records that the agent calls delivered, and the hub has not taken: sent - taken if that is above 0."`
	Since       time.Time `json:"since" doc:"When sent and taken began to be counted."`
	Settling    bool      `json:"settling,omitempty" doc:"The hub has not known this run of the agent from its beginning: for a minute, sent is not counted."`
}

// LedgerQuery says how much of the fleet's ledger is meant.
type LedgerQuery struct {
	Limit int      `query:"limit" doc:"Agents that are listed, 1 to 10000; 1000 if not given. The total is of all."`
	Hub   []string `query:"hub" doc:"As for agents: only those of this hub, or with ! before its id, of others; the total as well."`
}

// Ledger is the books of the fleet. Counts are records, since each agent was started.
type Ledger struct {
	Total   Books        `json:"total" doc:"Of all agents, listed or not."`
	Agents  []AgentBooks `json:"agents" doc:"Those with unexplained, dropped and dead-lettered records first, then by name and id."`
	LeftOut int          `json:"left_out,omitempty" doc:"Agents that are not listed."`
	Joint
}

// AgentBooks is one agent's part of a Ledger.
type AgentBooks struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Books
}

// Books are sums over pipelines, exporters and disk queues. A record that goes to two exporters is counted at both.
type Books struct {
	Accepted     int64            `json:"accepted"`
	Created      int64            `json:"created"`
	Filtered     int64            `json:"filtered"`
	Absorbed     int64            `json:"absorbed"`
	Routed       int64            `json:"routed" doc:"Sent on from one pipeline to another, where they are accepted once more."`
	Held         int64            `json:"held" doc:"By processors, now."`
	Delivered    int64            `json:"delivered" doc:"By exporters, at once or out of their disk queues."`
	Dropped      map[string]int64 `json:"dropped" doc:"By reason."`
	DeadLettered int64            `json:"dead_lettered" doc:"Refused for good, and kept."`
	Spooled      int64            `json:"spooled" doc:"Waiting in disk queues, now."`
	Queued       int64            `json:"queued" doc:"In memory, now."`
	InWork       int64            `json:"in_work" doc:"What the agents' own books left over when they were read: records that were just being worked on."`
	Sent         int64            `json:"sent" doc:"Of delivered, what went to this hub: sums of the hops."`
	Taken        int64            `json:"taken"`
	Repeats      int64            `json:"repeats"`
	Unexplained  int64            `json:"unexplained" doc:"Records that agents call delivered to this hub, and that it never took."`
}

// Add adds an agent's ledger and hops to the sums.
func (b *Books) Add(l report.Ledger, hops []Hop) {
	for _, p := range l.Pipelines {
		b.Accepted, b.Created, b.Filtered, b.Absorbed = b.Accepted+p.Accepted, b.Created+p.Created, b.Filtered+p.Filtered, b.Absorbed+p.Absorbed
		b.Routed, b.Held, b.InWork = b.Routed+p.Routed, b.Held+p.Held, b.InWork+p.Unexplained
		b.drop(p.Dropped)
		for _, x := range p.Exporters {
			b.Delivered, b.DeadLettered, b.Queued, b.InWork = b.Delivered+x.Delivered, b.DeadLettered+x.DeadLettered, b.Queued+x.Queued, b.InWork+x.Unexplained
			b.drop(x.Dropped)
		}
	}
	for _, s := range l.Spools {
		b.Delivered, b.DeadLettered, b.Spooled, b.InWork = b.Delivered+s.Delivered, b.DeadLettered+s.DeadLettered, b.Spooled+s.Waiting, b.InWork+s.Unexplained
		b.drop(s.Dropped)
	}
	for _, h := range hops {
		b.Sent, b.Taken, b.Repeats, b.Unexplained = b.Sent+h.Sent, b.Taken+h.Taken, b.Repeats+h.Repeats, b.Unexplained+h.Unexplained
	}
}

// Plus adds other sums.
func (b *Books) Plus(o Books) {
	b.Accepted, b.Created, b.Filtered, b.Absorbed = b.Accepted+o.Accepted, b.Created+o.Created, b.Filtered+o.Filtered, b.Absorbed+o.Absorbed
	b.Routed, b.Held, b.Delivered, b.DeadLettered = b.Routed+o.Routed, b.Held+o.Held, b.Delivered+o.Delivered, b.DeadLettered+o.DeadLettered
	b.Spooled, b.Queued, b.InWork = b.Spooled+o.Spooled, b.Queued+o.Queued, b.InWork+o.InWork
	b.Sent, b.Taken, b.Repeats, b.Unexplained = b.Sent+o.Sent, b.Taken+o.Taken, b.Repeats+o.Repeats, b.Unexplained+o.Unexplained
	b.drop(o.Dropped)
}

// Lost returns how many records were dropped or dead-lettered.
func (b *Books) Lost() int64 {
	n := b.DeadLettered
	for _, d := range b.Dropped {
		n += d
	}
	return n
}

func (b *Books) drop(reasons map[string]int64) {
	if b.Dropped == nil {
		b.Dropped = make(map[string]int64)
	}
	for why, n := range reasons {
		b.Dropped[why] += n
	}
}
