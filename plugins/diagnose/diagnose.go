// Package diagnose is a collector that looks at the agent's own process: each round it takes profiles and the runtime's
// metrics, and sends each as a log. It is meant to be handed to one agent for a round or two, by whoever wonders what that
// agent is doing.
//
// Profiles are counts of stacks, as package runtime/pprof makes them. What lies in memory is never in them: neither a heap
// dump nor the arguments of functions.
package diagnose

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime/metrics"
	"runtime/pprof"
	"slices"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
)

//go:embed example.yaml
var example string

// Plugin is the collector diagnose.
var Plugin = creel.NewPolled("diagnose", "Takes profiles and the runtime's metrics of the agent itself, each as a log.", New).WithExample(example)

// Config is the collector's options.
type Config struct {
	Collect  []string      `doc:"What to take: as text, goroutines by what they do, and metrics of Go's runtime; as gzipped pprof profiles, heap (in use), allocs (since the start), cpu and threads." default:"goroutines,heap,metrics" enum:"goroutines|heap|allocs|cpu|threads|metrics"`
	Duration time.Duration `doc:"How long the cpu profile looks." default:"10s" min:"10ms" max:"30s"`
	MaxSize  config.Size   `doc:"How large one of them may be: text is cut there, a profile that is larger is not sent." default:"4MiB" min:"1KiB" max:"8MiB"`
}

// Validate refuses to collect nothing, or one thing twice.
func (c Config) Validate() error {
	if len(c.Collect) == 0 {
		return config.FieldError("collect", errors.New("must name at least one"))
	}
	for i, name := range c.Collect {
		if slices.Contains(c.Collect[:i], name) {
			return config.FieldError("collect", fmt.Errorf("names %s twice", name))
		}
	}
	return nil
}

// New returns the collector.
func New(c Config, h creel.Host) (creel.Collector, error) {
	return &collector{cfg: c, origin: &creel.Origin{Resource: h.Resource, Scope: creel.Scope{Name: "github.com/creelhq/creel/plugins/diagnose"}}}, nil
}

type collector struct {
	cfg    Config
	origin *creel.Origin
}

// Collect takes and sends one thing after the other. It fails in the end if one could not be taken.
func (c *collector) Collect(ctx context.Context, out creel.Sink) error {
	var errs []error
	for _, name := range c.cfg.Collect {
		if err := creel.Yield(ctx); err != nil {
			return err
		}
		l, err := c.take(ctx, name)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("take %s: %w", name, err))
			continue
		}
		if err := out.Send(ctx, creel.NewLogs([]creel.Log{l})); err != nil { // by itself: each can be large
			return err
		}
	}
	return errors.Join(errs...)
}

// take returns what is called name, as a log.
func (c *collector) take(ctx context.Context, name string) (creel.Log, error) {
	start := time.Now()
	w := &bounded{max: int(c.cfg.MaxSize)}
	var err error
	text := false
	switch name {
	case "goroutines":
		text = true
		err = pprof.Lookup("goroutine").WriteTo(w, 1) // 2 would show arguments
	case "metrics":
		text = true
		writeMetrics(w)
	case "cpu":
		err = c.profileCPU(ctx, w)
	case "threads":
		err = pprof.Lookup("threadcreate").WriteTo(w, 0)
	default:
		err = pprof.Lookup(name).WriteTo(w, 0)
	}
	cut := w.size > w.max
	if err == nil && cut && !text {
		err = fmt.Errorf("it has %d bytes, more than max_size, which is %v; a part of it would be of no use", w.size, c.cfg.MaxSize)
	}
	if err != nil {
		return creel.Log{}, err
	}
	body, kind := creel.Bytes(w.buf.Bytes()), "application/octet-stream"
	if text {
		body, kind = creel.String(string(bytes.ToValidUTF8(w.buf.Bytes(), []byte("\uFFFD")))), "text/plain; charset=utf-8"
	}
	return creel.Log{
		Origin: c.origin, Time: start.UnixNano(), Observed: time.Now().UnixNano(), Severity: creel.SeverityInfo, SeverityText: creel.SeverityInfo.String(),
		Event: "creel.diagnose", Body: body,
		Attrs: creel.Attrs{
			{Key: "profile.type", Value: creel.String(name)},
			{Key: "content.type", Value: creel.String(kind)},
			{Key: "profile.size", Value: creel.Int(int64(w.size))}, // whole
			{Key: "profile.truncated", Value: creel.Bool(cut)},
			{Key: "profile.duration", Value: creel.Double(time.Since(start).Seconds())},
		},
	}, nil
}

// profileCPU looks for Duration, or until ctx is done.
func (c *collector) profileCPU(ctx context.Context, w io.Writer) error {
	if err := pprof.StartCPUProfile(w); err != nil {
		return fmt.Errorf("another CPU profile of this process is being taken, and there can be one at a time; try again when it is done: %w", err)
	}
	err := creel.Blocking(ctx, func() error {
		timer := time.NewTimer(c.cfg.Duration)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			return nil
		}
	})
	pprof.StopCPUProfile() // which writes
	return err
}

// writeMetrics writes a line for each metric of the runtime: its name and value, of a distribution the count and quantiles.
func writeMetrics(w io.Writer) {
	var samples []metrics.Sample
	for _, d := range metrics.All() {
		samples = append(samples, metrics.Sample{Name: d.Name})
	}
	metrics.Read(samples)
	for _, s := range samples {
		switch s.Value.Kind() {
		case metrics.KindUint64:
			fmt.Fprintf(w, "%s %d\n", s.Name, s.Value.Uint64())
		case metrics.KindFloat64:
			fmt.Fprintf(w, "%s %g\n", s.Name, s.Value.Float64())
		case metrics.KindFloat64Histogram:
			h := s.Value.Float64Histogram()
			var count uint64
			for _, n := range h.Counts {
				count += n
			}
			fmt.Fprintf(w, "%s count=%d p50=%g p99=%g max=%g\n", s.Name, count, quantile(h, count, 0.5), quantile(h, count, 0.99), quantile(h, count, 1))
		}
	}
}

// quantile returns the upper bound of the bucket that the quantile q of count values is in, its lower one where that is
// infinite; 0 of nothing.
func quantile(h *metrics.Float64Histogram, count uint64, q float64) float64 {
	rank, seen := uint64(math.Ceil(q*float64(count))), uint64(0)
	for i, n := range h.Counts {
		if seen += n; n > 0 && seen >= rank {
			if upper := h.Buckets[i+1]; !math.IsInf(upper, 1) {
				return upper
			}
			return h.Buckets[i]
		}
	}
	return 0
}

// bounded is a writer that keeps so much, and counts everything.
type bounded struct {
	max, size int
	buf       bytes.Buffer
}

func (b *bounded) Write(p []byte) (int, error) {
	b.size += len(p)
	b.buf.Write(p[:min(len(p), b.max-b.buf.Len())])
	return len(p), nil
}
