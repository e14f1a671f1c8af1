// Package dedup is the processor that makes one log record, with a count, of those that are the same within an interval.
//
// It compares records, and must not know what they mean.
package dedup

import (
	"context"
	_ "embed"
	"slices"
	"sync"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/expr"
	"github.com/creelhq/creel/metric"
)

//go:embed example.yaml
var example string

// Plugin is the processor dedup.
var Plugin = creel.WithWaits(creel.NewProcessor("dedup", "Makes one log record, with a count, of those that are the same within an interval.", New).WithExample(example), func(c Config) time.Duration {
	if c.Ack == "memory" {
		return 0
	}
	return c.Interval
})

// Config is the processor's options.
type Config struct {
	Interval          time.Duration  `doc:"After this time the records with their counts are sent on, and counting begins anew." default:"10s" min:"10ms"`
	By                []Field        `doc:"What must be the same: body, severity, event, attributes, resource, scope, or a value such as attributes[\"code\"]. Of the rest, the first record's is kept." default:"body, severity, attributes, resource"`
	Ignore            []string       `doc:"Attributes that may differ." optional:"true" example:"[request.id]"`
	Where             expr.Condition `doc:"Which records are counted; the others pass at once. All if absent." optional:"true" example:"severity >= WARN"`
	PassFirst         bool           `doc:"Whether the first record passes at once and only those that repeat it are counted. The record that is sent in the end is for these alone, if there were any." default:"false"`
	LogCountAttribute string         `doc:"The attribute that says how many records one stands for. first_observed_timestamp and last_observed_timestamp say when." default:"log_count"`
	MaxKeys           int            `doc:"Different records that are remembered at a time. What comes beyond passes as it is, and is counted as creel.dedup.overflow." default:"10000" min:"1"`
	MaxSize           config.Size    `doc:"Bytes of records that are remembered at a time; likewise." default:"16MiB" min:"1KiB"`
	Ack               string         `doc:"When whoever waits for the records is told. delivered: when the record that stands for them is; so a file's position trails by an interval. memory: as soon as they are counted; a crash loses one interval's counts. An otlp collector needs memory unless its clients wait longer than an interval: else they send again what was counted." default:"delivered" enum:"delivered|memory"`
}

// dedup is the processor.
type dedup struct {
	Config
	memory   *creel.Memory
	overflow *metric.Counter
	creel.Hasher
	compared   func(key string) bool // which attributes are; nil: all
	calculated int                   // how many of By are calculated
	scratch    sync.Pool

	mu    sync.Mutex // guards what follows
	now   *window
	spare *window // empty, to be used again; may be nil
	text  arena
}

// New returns the processor.
func New(c Config, h creel.Host) (creel.Processor, error) {
	d := &dedup{
		Config: c, memory: h.Memory, Hasher: creel.NewHasher(), now: newWindow(),
		overflow: h.Metrics.Counter("creel.dedup.overflow", "Records that passed uncounted because too many different ones were remembered.", "{record}"),
	}
	if len(c.Ignore) > 0 {
		d.compared = func(key string) bool { return !slices.Contains(c.Ignore, key) }
	}
	for _, f := range c.By {
		if f.word == "" {
			d.calculated++
		}
	}
	return d, nil
}

// scratch is what a call of Process works with.
type scratch struct {
	hashes []uint64      // by record; 0: it is not counted
	values []creel.Value // calculated ones, of each record
	origin *creel.Origin // the last one, and its hash
	hash   uint64
}

// Process counts the records of b and sends on those that are not to be counted.
func (d *dedup) Process(_ context.Context, b *creel.Batch, next creel.Next) error {
	if b.Signal() != creel.Logs || b.Len() == 0 {
		next.Send(b)
		return nil
	}
	s, _ := d.scratch.Get().(*scratch)
	if s == nil {
		s = &scratch{}
	}
	defer d.scratch.Put(s)
	if !d.measure(b, s) {
		next.Send(b)
		return nil
	}
	pass, counted := d.count(b, s)
	if counted != nil { // nobody shall wait for it: so it is settled
		next.Send(counted)
	}
	if pass != nil {
		next.Send(pass)
	}
	return nil
}

// Run sends the records with their counts at the end of every interval, and when ctx is done.
func (d *dedup) Run(ctx context.Context, next creel.Next) error {
	tick := time.NewTicker(d.Interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			d.flush(next)
		case <-ctx.Done():
			d.flush(next)
			return ctx.Err()
		}
	}
}

func (d *dedup) flush(next creel.Next) {
	d.mu.Lock()
	w := d.now
	if w.records == nil {
		d.mu.Unlock()
		return
	}
	d.now, d.spare = d.spare, nil
	if d.now == nil {
		d.now = newWindow()
	}
	d.mu.Unlock()
	w.finish(d.LogCountAttribute)
	out := creel.NewBatch(creel.Logs, w.records)
	if w.held != nil {
		out.Absorb(w.held)
	}
	next.Send(out)
	w.reset()
	d.mu.Lock()
	d.spare = w
	d.mu.Unlock()
}
