// Package sample is the processor that keeps a fixed share of records.
package sample

import (
	"context"
	_ "embed"
	"encoding/binary"
	"math/rand/v2"

	"github.com/creelhq/creel"
)

//go:embed example.yaml
var example string

// Plugin is the processor sample.
var Plugin = creel.NewProcessor("sample", "Keeps a fixed share of records; of traces, whole ones.", New).WithExample(example)

// Config is the processor's options.
type Config struct {
	Rate float64 `doc:"Share of records to keep." default:"0.1" min:"0" max:"1"`
}

// New returns the processor.
//
// What belongs to a trace is decided by the randomness in its id, the low 56 bits (W3C Trace Context, level 2), against
// a threshold, as OpenTelemetry's consistent probability sampling does: all agents that keep the same share keep the same
// traces.
func New(c Config, _ creel.Host) (creel.Processor, error) {
	threshold := uint64((1 - c.Rate) * (1 << 56))
	keep := func(id creel.TraceID) bool {
		if id == (creel.TraceID{}) {
			return rand.Float64() < c.Rate
		}
		return binary.BigEndian.Uint64(id[8:])&(1<<56-1) >= threshold
	}
	return creel.ProcessorFunc(func(_ context.Context, b *creel.Batch, next creel.Next) error {
		switch b.Signal() {
		case creel.Logs:
			logs := b.Logs()
			b.Keep(func(i int) bool { return keep(logs[i].TraceID) })
		case creel.Metrics:
			b.Keep(func(int) bool { return keep(creel.TraceID{}) })
		case creel.Traces:
			spans := b.Spans()
			b.Keep(func(i int) bool { return keep(spans[i].TraceID) })
		}
		next.Send(b)
		return nil
	}), nil
}
