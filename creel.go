// Package creel is the vocabulary of creel: the records, the batches they travel in, and the few interfaces that
// collectors, processors and exporters implement. A plugin imports this package and little else.
//
// Data flows one way, from a Collector through Processors to Exporters; acknowledgement flows back. A Batch is settled
// exactly once, by the framework, and whoever asked with OnDone learns whether its records are safe.
//
// The package knows neither wire formats nor how components are wired: that is for packages otlp and pipeline.
package creel

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A Collector brings records in.
type Collector interface {
	// Collect sends batches to out until ctx is done, and then returns ctx.Err() or nil. A polled collector (see
	// NewPolled) returns after one round. Any other return is a fault: the framework starts it again after a pause.
	Collect(ctx context.Context, out Sink) error
}

// CollectorFunc is a function as a Collector.
type CollectorFunc func(ctx context.Context, out Sink) error

// Collect calls f.
func (f CollectorFunc) Collect(ctx context.Context, out Sink) error { return f(ctx, out) }

// A Processor changes, drops or diverts records between collectors and exporters.
type Processor interface {
	// Process handles b and sends what becomes of it to next. It may be called concurrently, and must not block. What it
	// neither sends on nor holds (Batch.Hold) counts as filtered when it returns nil; an error drops it.
	Process(ctx context.Context, b *Batch, next Next) error
}

// ProcessorFunc is a function as a Processor.
type ProcessorFunc func(ctx context.Context, b *Batch, next Next) error

// Process calls f.
func (f ProcessorFunc) Process(ctx context.Context, b *Batch, next Next) error {
	return f(ctx, b, next)
}

// A Runner is a Processor for which things happen by time. Run sends to next until ctx is done; then it flushes what is
// held and returns. Process is not called any more by then.
type Runner interface {
	Run(ctx context.Context, next Next) error
}

// An Exporter delivers records.
type Exporter interface {
	// Export delivers the batches, which are of one signal. nil: they are safe elsewhere. Other errors are retried unless
	// they are Permanent; a *Partial says how many records were refused. It must not change the batches, nor keep them
	// after it returns, and must return soon after ctx is done. It is called concurrently if so configured.
	Export(ctx context.Context, batches []*Batch) error
}

// ExporterFunc is a function as an Exporter.
type ExporterFunc func(ctx context.Context, batches []*Batch) error

// Export calls f.
func (f ExporterFunc) Export(ctx context.Context, batches []*Batch) error { return f(ctx, batches) }

// A Sink is where a collector sends batches. Its methods may be called concurrently.
type Sink interface {
	// Send admits b. It blocks while there is no room, and fails only when ctx is done, before anything has happened to
	// b. After nil, b belongs to the Sink and will be settled.
	Send(ctx context.Context, b *Batch) error
	// TrySend admits b if there is room. After false, nothing has happened to b.
	TrySend(b *Batch) bool
}

// A Next is where a processor sends what it has done with. Send neither blocks nor fails; it may be called concurrently.
type Next interface {
	Send(b *Batch)
}

// NextFunc is a function as a Next.
type NextFunc func(b *Batch)

// Send calls f.
func (f NextFunc) Send(b *Batch) { f(b) }

// Permanent marks err as one that no retry will mend: the records are refused.
func Permanent(err error) error { return &permanent{err} }

// IsPermanent reports whether err, or an error it wraps, was marked by Permanent.
func IsPermanent(err error) bool {
	var p *permanent
	return errors.As(err, &p)
}

type permanent struct{ err error }

func (p *permanent) Error() string { return p.err.Error() }
func (p *permanent) Unwrap() error { return p.err }

// Throttled is an error that says when to try again: the far side's RetryInfo or Retry-After. With an After of 0 it is
// overloaded and did not say when; it may take less at once.
type Throttled struct {
	Err   error
	After time.Duration
}

func (t *Throttled) Error() string {
	if t.After == 0 {
		return t.Err.Error()
	}
	return fmt.Sprintf("%v (asked to wait %v)", t.Err, t.After)
}

// Unwrap returns the error that came with the hint.
func (t *Throttled) Unwrap() error { return t.Err }

// Partial is the error of an export which the far side took, but for some records. They are counted as dropped and
// not sent again.
type Partial struct {
	Rejected int // records
	Reason   string
}

func (p *Partial) Error() string { return fmt.Sprintf("%d records rejected: %s", p.Rejected, p.Reason) }
