// Package admission is a hub's door for data: it asks who sends, holds each agent to a rate, and counts what was taken of it,
// each batch once.
//
// Of those who need not prove who they are it believes what they say of themselves. It knows neither how data comes in nor
// what agents report of it.
package admission

import (
	"errors"
	"fmt"
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/metric"
)

// Options configure an Admission. The zero value has no limits.
type Options struct {
	Records int64 // a second that one agent may send; 0: no limit
	Bytes   int64 // likewise
	Senders int   // that are known apart; 0: 50 000
	Access  Access
	Epochs  Epochs // nil: data of all epochs is let in
	Metrics *metric.Set
	Now     func() time.Time // nil: time.Now
}

// Access knows who may send. A nil Access lets everybody in. It may be called concurrently.
type Access interface {
	// Authenticate is creel.Admission's.
	Authenticate(creel.Credentials, creel.Signal) (creel.Caller, error)
	// Limit charges an application's token for records, or returns a *creel.Throttled and charges nothing. It must be quick, and
	// must not call the Admission.
	Limit(c creel.Caller, records int) error
}

// Epochs knows in which epochs documents are placed. It may be called concurrently.
type Epochs interface {
	// Admit returns why data is refused that an agent, "" if nobody knows who, has sent, and that was collected for a document in
	// an epoch; nil if it is not.
	Admit(document, agent string, epoch int64, now time.Time) error
}

const (
	shards  = 64
	forget  = time.Hour   // after which a sender that is not heard is forgotten
	between = time.Minute // rounds of forgetting, at least
	maxName = 256         // bytes of an agent's or exporter's id
)

// An Admission implements creel.Admission and creel.Fence. Its methods may be called concurrently.
//
// Senders that do not say who they are, and those that are too many to be known apart, are one sender with one limit.
type Admission struct {
	o              Options
	records, bytes rate
	overRecords    error
	overBytes      error
	begun          time.Time // what times are reckoned from
	seed           maphash.Seed
	shards         [shards]shard
	unknown        *sender
	known          atomic.Int64 // senders but for unknown
	swept          atomic.Int64 // when senders were forgotten

	admitted, throttled              result
	strangers, forbidden, over, late *metric.Counter // requests, by why they were refused
	taken, repeated                  *metric.Counter
}

// result are the totals of requests that were decided alike.
type result struct{ requests, records *metric.Counter }

type shard struct {
	mu      sync.Mutex
	senders map[string]*sender // by the agent's id
	_       [48]byte           // no neighbour's lock in this cache line
}

// Counts are what was decided about one agent's requests.
type Counts struct {
	Requests, Records, Bytes            int64 // let in
	ThrottledRequests, ThrottledRecords int64
}

// sender is one agent.
type sender struct {
	seen           int64 // since begun, ns
	records, bytes bucket
	counts         Counts
	streams        []*stream
}

// New returns an Admission.
func New(o Options) *Admission {
	if o.Senders == 0 {
		o.Senders = 50_000
	}
	if o.Metrics == nil {
		o.Metrics = metric.NewSet()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	a := &Admission{
		o: o, records: rate(o.Records), bytes: rate(o.Bytes), begun: o.Now(), seed: maphash.MakeSeed(), unknown: &sender{},
		overRecords: fmt.Errorf("the hub takes %d records a second from one agent", o.Records),
		overBytes:   fmt.Errorf("the hub takes %d bytes a second from one agent", o.Bytes),
	}
	for i := range a.shards {
		a.shards[i].senders = make(map[string]*sender)
	}
	a.shardOf("").senders[""] = a.unknown
	a.meter()
	return a
}

func (a *Admission) meter() {
	of := func(name string) result {
		m := a.o.Metrics.Sub(metric.Label{Name: "result", Value: name})
		return result{
			m.Counter("creel.hub.intake.requests", "Requests with records that the hub has let in, or throttled because their sender was over its limit.", "{request}"),
			m.Counter("creel.hub.intake.records", "Records in them.", "{record}"),
		}
	}
	a.admitted, a.throttled = of("admitted"), of("throttled")
	refused := func(why string) *metric.Counter {
		return a.o.Metrics.Sub(metric.Label{Name: "reason", Value: why}).Counter("creel.hub.intake.refused",
			"Requests that the hub has not let in: unauthenticated, they did not show who sends; forbidden, it may not send these; token_limit, its token's records were used up; epoch, another agent has the document by now that they were collected for.", "{request}")
	}
	a.strangers, a.forbidden, a.over, a.late = refused("unauthenticated"), refused("forbidden"), refused("token_limit"), refused("epoch")
	a.taken = a.o.Metrics.Counter("creel.hub.intake.taken", "Records of agents that are safe here, each batch once.", "{record}")
	a.repeated = a.o.Metrics.Counter("creel.hub.intake.repeats", "Records of agents that came once more.", "{record}")
	a.o.Metrics.GaugeFunc("creel.hub.intake.senders", "Agents whose data the hub has taken within the last hour or so.", "{agent}", func() float64 { return float64(a.known.Load()) })
}

// now is the time since the beginning.
func (a *Admission) now() int64 { return int64(a.o.Now().Sub(a.begun)) }

func (a *Admission) shardOf(agent string) *shard {
	return &a.shards[maphash.String(a.seed, agent)%shards]
}

// lock returns the sender with an agent's id, making it if it is new; and its shard, locked.
func (a *Admission) lock(agent string, now int64) (*shard, *sender) {
	if len(agent) <= maxName {
		sh := a.shardOf(agent)
		sh.mu.Lock()
		if s := sh.senders[agent]; s != nil {
			s.seen = now
			return sh, s
		}
		sh.mu.Unlock()
		a.sweep(now)
		if s := a.add(sh, agent); s != nil {
			s.seen = now
			return sh, s
		}
	}
	sh := a.shardOf("")
	sh.mu.Lock()
	return sh, a.unknown
}

// add makes a sender and returns it with its shard locked; nil if there are too many.
func (a *Admission) add(sh *shard, agent string) *sender {
	sh.mu.Lock()
	s := sh.senders[agent]
	if s == nil {
		if a.known.Add(1) > int64(a.o.Senders) {
			a.known.Add(-1)
			sh.mu.Unlock()
			return nil
		}
		s = &sender{}
		sh.senders[strings.Clone(agent)] = s
	}
	return s
}

// sweep forgets who was not heard for long, if it is time to.
func (a *Admission) sweep(now int64) {
	last := a.swept.Load()
	if now-last < int64(between) || !a.swept.CompareAndSwap(last, now) {
		return
	}
	for i := range a.shards {
		sh := &a.shards[i]
		sh.mu.Lock()
		for agent, s := range sh.senders {
			if s != a.unknown && now-s.seen >= int64(forget) && s.records.owed(now) <= 0 && s.bytes.owed(now) <= 0 {
				delete(sh.senders, agent)
				a.known.Add(-1)
			}
		}
		sh.mu.Unlock()
	}
}

// Authenticate returns who sends, as Access says.
func (a *Admission) Authenticate(c creel.Credentials, s creel.Signal) (creel.Caller, error) {
	if a.o.Access == nil {
		return creel.Caller{}, nil
	}
	caller, err := a.o.Access.Authenticate(c, s)
	switch {
	case err == nil:
		return caller, nil
	case errors.Is(err, creel.ErrUnauthenticated):
		a.strangers.Inc()
	default:
		a.forbidden.Inc()
	}
	return creel.Caller{}, err
}

// Fence refuses data of epochs that are over, as Epochs says. It is a creel.Fence's.
func (a *Admission) Fence(from creel.Sender, document string, epoch int64) error {
	if a.o.Epochs == nil {
		return nil
	}
	err := a.o.Epochs.Admit(document, from.Agent, epoch, time.Now())
	if err != nil {
		a.late.Inc()
	}
	return err
}

// Admit lets records in, or returns a *creel.Throttled that says when there will be room. An application with a token is held
// to what one agent may send, each by itself, and to what its token may besides.
func (a *Admission) Admit(c creel.Caller, from creel.Sender, _ creel.Signal, records, bytes int) error {
	now := a.now()
	name := from.Agent
	if c.Token != "" && c.Agent == "" {
		name = c.Token
	}
	sh, s := a.lock(name, now)
	r, b := a.records.cost(records), a.bytes.cost(bytes)
	wait, over := s.records.wait(now, r), a.overRecords
	if w := s.bytes.wait(now, b); w > wait {
		wait, over = w, a.overBytes
	}
	var err error
	if wait > 0 {
		err = &creel.Throttled{Err: over, After: max(time.Duration(wait), time.Millisecond)}
	} else if c.Token != "" && a.o.Access != nil {
		// Between looking at the sender's limit and charging it, with the sender locked: so neither is charged for what the other
		// refuses.
		if err = a.o.Access.Limit(c, records); err != nil {
			a.over.Inc()
		}
	}
	if err != nil {
		s.counts.ThrottledRequests++
		s.counts.ThrottledRecords += int64(records)
		sh.mu.Unlock()
		a.throttled.add(records)
		return err
	}
	s.records.take(now, r)
	s.bytes.take(now, b)
	s.counts.Requests++
	s.counts.Records += int64(records)
	s.counts.Bytes += int64(bytes)
	sh.mu.Unlock()
	a.admitted.add(records)
	return nil
}

func (r result) add(records int) {
	r.requests.Inc()
	r.records.Add(uint64(records))
}

// Took counts records that are safe here, if their batch is not a repeat.
func (a *Admission) Took(from creel.Sender, id creel.ID, of creel.Signal, records int) {
	now := a.now()
	sh, s := a.lock(from.Agent, now)
	repeat := false
	if s != a.unknown && len(from.Exporter) <= maxName {
		repeat = s.stream(from, now, a.begun).took(id, of, records)
	}
	sh.mu.Unlock()
	if repeat {
		a.repeated.Add(uint64(records))
	} else {
		a.taken.Add(uint64(records))
	}
}

// Counts returns what was decided about an agent's requests, and false if none has come.
func (a *Admission) Counts(agent string) (Counts, bool) {
	sh := a.shardOf(agent)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	s := sh.senders[agent]
	if s == nil {
		return Counts{}, false
	}
	return s.counts, true
}
