// Package plugintest is the conformance suite for plugins. A plugin's test calls Run; each failure names the rule that
// was broken and why it is one.
//
// It sees plugins as the pipeline does, but knows nothing of pipelines.
package plugintest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"go.uber.org/goleak"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/otlp"
)

// Options are what the suite needs to know of a plugin.
type Options struct {
	Config string     // its options, in YAML; "" for the defaults
	Host   creel.Host // what it needs of a Host; the zero Host for most

	// Feed makes a collector have something to collect, while it collects. A collector without it must find something
	// by itself, or has Silent set.
	Feed   func() error
	Silent bool // the collector may have nothing to send

	// FailsAlone says that an exporter cannot deliver in this test, because there is no far side.
	FailsAlone bool
}

// patience is how long the suite waits for what must happen soon.
const patience = 10 * time.Second

// A Violation is a rule that a plugin breaks.
type Violation struct {
	Rule string // its short name
	Why  string // why it is a rule
	Err  error  // what was seen
}

func (v Violation) String() string {
	return fmt.Sprintf("%s: %v\n\tThe rule: %s", v.Rule, v.Err, v.Why)
}

// Run checks a plugin against all rules for its kind.
func Run(t *testing.T, p creel.Plugin, o Options) {
	t.Helper()
	for _, v := range Check(p, o) {
		t.Errorf("%v %s breaks a rule: %v", p.Kind, p.Name, v)
	}
}

// rule is one rule. Its check returns what was seen when it is broken.
type rule struct {
	name, why string
	check     func(*suite) error
}

// Check returns the rules that a plugin breaks.
func Check(p creel.Plugin, o Options) []Violation {
	rules := map[creel.Kind][]rule{
		creel.KindCollector: collectorRules(p.Polled), creel.KindProcessor: processorRules(), creel.KindExporter: exporterRules(),
	}[p.Kind]
	var broken []Violation
	for _, r := range append(generalRules(), rules...) {
		s := &suite{plugin: p, Options: o}
		s.memory.Poison = true
		err := guard(func() error { return r.check(s) })
		for _, c := range s.opened {
			if closer, ok := c.(io.Closer); ok {
				err = errors.Join(err, guard(closer.Close))
			}
		}
		if err != nil {
			broken = append(broken, Violation{r.name, r.why, err})
			if r.name == "options" {
				break // nothing else can be tried
			}
		}
	}
	return broken
}

// guard makes an error of a panic.
func guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return f()
}

// suite is one rule's try of a plugin.
type suite struct {
	Options
	plugin creel.Plugin
	memory creel.Memory
	opened []any
}

func (s *suite) options(yaml string) ([]byte, error) {
	n, err := config.Parse("options.yaml", []byte(yaml), config.Env{})
	if err != nil {
		return nil, err
	}
	canonical, errs := s.plugin.Config.Check(n)
	if len(errs) > 0 {
		return nil, errs
	}
	return canonical, nil
}

// open opens the component; it is closed when the rule's check is over.
func (s *suite) open() (any, error) {
	canonical, err := s.options(s.Config)
	if err != nil {
		return nil, err
	}
	h := s.Host
	h.Memory = &s.memory
	c, err := s.plugin.Open(canonical, h)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	s.opened = append(s.opened, c)
	return c, nil
}

// closeNow closes what is open before the check is over.
func (s *suite) closeNow() error {
	var errs []error
	for _, c := range s.opened {
		if closer, ok := c.(io.Closer); ok {
			errs = append(errs, closer.Close())
		}
	}
	s.opened = nil
	return errors.Join(errs...)
}

// soon runs f, and fails if it does not return in time.
func soon(what string, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- guard(f) }()
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		return fmt.Errorf("%s did not return within %v", what, patience)
	}
}

func generalRules() []rule {
	return []rule{
		{"options", "the options that a test or an example shows must be right", func(s *suite) error {
			_, err := s.options(s.Config)
			return err
		}},
		{"doc", "users read it in lists and reference pages: one sentence, from a capital letter to a full stop", func(s *suite) error {
			d := s.plugin.Doc
			if d == "" || !unicode.IsUpper(rune(d[0])) || !strings.HasSuffix(d, ".") {
				return fmt.Errorf("its doc is %q", d)
			}
			return nil
		}},
		{"name", "it is written in configurations: lower case letters, digits and _", func(s *suite) error {
			if n := s.plugin.Name; n == "" || strings.Trim(n, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
				return fmt.Errorf("its name is %q", n)
			}
			return nil
		}},
		{"strict", "an option that is misspelt must be an error, not silence", func(s *suite) error {
			if _, err := s.options("{no_such_option_exists: 1}"); err == nil || !strings.Contains(err.Error(), "no_such_option_exists") {
				return fmt.Errorf("an unknown option gives %v", err)
			}
			return nil
		}},
		{"open", "a reload opens the new component beside the old one, and may close it unused: opening takes nothing in and leaves nothing behind", func(s *suite) error {
			before := goleak.IgnoreCurrent()
			for range 2 {
				if _, err := s.open(); err != nil {
					return err
				}
			}
			if err := s.closeNow(); err != nil {
				return fmt.Errorf("close: %w", err)
			}
			if err := goleak.Find(before); err != nil {
				return fmt.Errorf("after it was closed, goroutines are left: %w", err)
			}
			return nil
		}},
	}
}

// sink takes batches, looks at every record and settles them; or has no room.
type sink struct {
	full bool

	mu       sync.Mutex
	records  int
	problems []error
	arrived  chan struct{}
}

func (k *sink) Send(ctx context.Context, b *creel.Batch) error {
	if k.TrySend(b) {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

func (k *sink) TrySend(b *creel.Batch) bool {
	if k.full {
		select {
		case k.arrived <- struct{}{}:
		default:
		}
		return false
	}
	k.mu.Lock()
	k.records += b.Len()
	if err := originsOf(b); err != nil {
		k.problems = append(k.problems, err)
	}
	k.mu.Unlock()
	creel.Settle(b, nil) // poisons the records: whoever still looks at them finds out
	select {
	case k.arrived <- struct{}{}:
	default:
	}
	return true
}

func originsOf(b *creel.Batch) error {
	missing := 0
	switch b.Signal() {
	case creel.Logs:
		for _, l := range b.Logs() {
			if l.Origin == nil {
				missing++
			}
		}
	case creel.Metrics:
		for _, m := range b.Metrics() {
			if m.Origin == nil || m.Desc == nil {
				missing++
			}
		}
	case creel.Traces:
		for _, sp := range b.Spans() {
			if sp.Origin == nil {
				missing++
			}
		}
	}
	if missing > 0 {
		return fmt.Errorf("%d records have no origin or descriptor", missing)
	}
	return nil
}

func collectorRules(polled bool) []rule {
	rules := []rule{
		{"collects", "what it sends must be whole records, and settled batches are not touched again", func(s *suite) error {
			return s.collect(&sink{arrived: make(chan struct{}, 1)}, polled, func(k *sink) error {
				if k.records == 0 && !s.Silent {
					return errors.New("nothing was collected")
				}
				return errors.Join(k.problems...)
			})
		}},
		{"full", "when there is no room it waits, and stops waiting when its context is done", func(s *suite) error {
			return s.collect(&sink{full: true, arrived: make(chan struct{}, 1)}, false, func(*sink) error { return nil })
		}},
	}
	if polled {
		rules = append(rules, rule{"rounds", "a polled collector's Collect is one round: it returns by itself, and again", func(s *suite) error {
			c, err := s.open()
			if err != nil {
				return err
			}
			for range 3 {
				err := soon("a round", func() error {
					return c.(creel.Collector).Collect(context.Background(), &sink{arrived: make(chan struct{}, 1)})
				})
				if err != nil {
					return err
				}
			}
			return nil
		}})
	}
	return rules
}

// collect runs a collector until something has arrived, then cancels it and wants it to return.
func (s *suite) collect(k *sink, polled bool, then func(*sink) error) error {
	before := goleak.IgnoreCurrent()
	c, err := s.open()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- guard(func() error { return c.(creel.Collector).Collect(ctx, k) }) }()
	if s.Feed != nil {
		if err := soon("Feed", s.Feed); err != nil && !k.full {
			return fmt.Errorf("feed: %w", err)
		}
	}
	select {
	case <-k.arrived:
	case err := <-done:
		done <- err
		if !polled && ctx.Err() == nil && !s.plugin.Polled {
			return fmt.Errorf("collect returned %v before it was asked to", err)
		}
	case <-time.After(patience):
		if !s.Silent {
			return fmt.Errorf("nothing was sent within %v", patience)
		}
	}
	if polled { // it ends by itself
		if err := soon("Collect", func() error { return <-done }); err != nil {
			return err
		}
	} else {
		cancel()
		if err := soon("Collect, after its context was done,", func() error { return <-done }); err != nil && !errors.Is(err, context.Canceled) {
			return fmt.Errorf("collect returned %w, not its context's error", err)
		}
	}
	if err := s.closeNow(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	if err := goleak.Find(before); err != nil {
		return fmt.Errorf("goroutines are left: %w", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return then(k)
}

// batches returns a batch of n records of each signal, once undecoded and once not.
func (s *suite) batches(n int) (list []*creel.Batch, err error) {
	for _, signal := range creel.Signals() {
		wire := encode(sample(signal, n))
		b, err := otlp.Parse(signal, wire, &s.memory)
		if err != nil {
			return nil, err
		}
		list = append(list, b, s.decoded(signal, n))
	}
	return list, nil
}

// decoded returns a batch that did not come as bytes.
func (s *suite) decoded(signal creel.Signal, n int) *creel.Batch {
	from := sample(signal, n)
	r := s.memory.NewRecords()
	switch signal {
	case creel.Logs:
		r.Logs = append(r.Logs, from.Logs()...)
	case creel.Metrics:
		r.Metrics = append(r.Metrics, from.Metrics()...)
	case creel.Traces:
		r.Spans = append(r.Spans, from.Spans()...)
	}
	return creel.NewBatch(signal, r)
}

// sample returns a batch of n records that owns its memory.
func sample(signal creel.Signal, n int) *creel.Batch {
	origin := &creel.Origin{
		Resource: creel.Resource{Attrs: creel.Attrs{{Key: "service.name", Value: creel.String("shop")}}},
		Scope:    creel.Scope{Name: "test", Version: "1"},
	}
	desc := &creel.Descriptor{Name: "requests", Unit: "1", Kind: creel.Sum, Temporality: creel.Cumulative, Monotonic: true}
	attrs := func(i int) creel.Attrs {
		return creel.Attrs{{Key: "n", Value: creel.Int(int64(i))}, {Key: "text", Value: creel.String("some \x1b[31mtext\n")}}
	}
	at := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC).UnixNano()
	switch signal {
	case creel.Logs:
		logs := make([]creel.Log, n)
		for i := range logs {
			logs[i] = creel.Log{Origin: origin, Time: at + int64(i), Body: creel.String("line"), Attrs: attrs(i), Severity: creel.SeverityInfo, TraceID: creel.TraceID{byte(i + 1)}}
		}
		return creel.NewLogs(logs)
	case creel.Metrics:
		metrics := make([]creel.Metric, n)
		for i := range metrics {
			metrics[i] = creel.Metric{Origin: origin, Desc: desc, Start: at, Time: at + int64(i), Attrs: attrs(i), Value: creel.Int(int64(i))}
		}
		return creel.NewMetrics(metrics)
	}
	spans := make([]creel.Span, n)
	for i := range spans {
		spans[i] = creel.Span{Origin: origin, TraceID: creel.TraceID{byte(i + 1)}, SpanID: creel.SpanID{1}, Name: "GET /", Start: at, End: at + 5, Attrs: attrs(i),
			Events: []creel.SpanEvent{{Time: at, Name: "event", Attrs: attrs(i)}}}
	}
	return creel.NewSpans(spans)
}

// encode returns what a batch holds, as an OTLP request.
func encode(b *creel.Batch) []byte { return otlp.Append(nil, b) }

func same(what string, before, after []byte) error {
	if !bytes.Equal(before, after) {
		return fmt.Errorf("%s: before\n\t%s\nafter\n\t%s", what, before, after)
	}
	return nil
}
