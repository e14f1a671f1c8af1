package trial

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/metric"
	"github.com/creelhq/creel/pipeline"
	"github.com/creelhq/creel/report"
)

// A Result is what came of a Case.
type Result struct {
	Name     string    `json:"name"`
	File     string    `json:"file"`
	Line     int       `json:"line"`
	OK       bool      `json:"ok"`
	Problems []Problem `json:"problems,omitempty"`
	Log      []string  `json:"log,omitempty"` // warnings and errors that were logged
}

// A Problem is one thing that is not as expected. Expected and Got are JSON; "" stands for nothing.
type Problem struct {
	Exporters []string `json:"exporters,omitempty"`
	Record    int      `json:"record,omitempty"` // of those that arrived or, when it is missing, of those expected, from 1; 0: it is about no single one
	Field     string   `json:"field,omitempty"`  // such as attributes.user; "": it is about the whole record
	Expected  string   `json:"expected,omitempty"`
	Got       string   `json:"got,omitempty"`
	Message   string   `json:"message,omitempty"` // what else there is to say
}

// patience is how long one case may take.
const patience = 10 * time.Second

// late returns the problem of a case that takes longer.
func late() Problem {
	return Problem{Message: fmt.Sprintf("processing does not end within %v", patience)}
}

// Run runs the case. Whatever goes wrong is in the result.
func (t Case) Run(ctx context.Context) Result {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r := &run{Case: t, arrived: make(map[string][]arrival), sent: make(chan struct{})}
	r.memory.Poison = true
	done := make(chan []Problem, 1)
	go func() { done <- r.run(ctx) }()
	result := Result{Name: t.Name, File: t.File, Line: t.Line}
	select {
	case result.Problems = <-done:
	case <-ctx.Done():
		select {
		case result.Problems = <-done:
		case <-time.After(time.Second): // a processor blocks, which nothing can end
			result.Problems = []Problem{late()}
		}
	}
	result.OK = len(result.Problems) == 0
	result.Log = r.log.lines()
	return result
}

// run is a Case at work.
type run struct {
	Case
	memory creel.Memory
	log    logBuffer
	sent   chan struct{} // closed when the records are on their way

	mu      sync.Mutex
	arrived map[string][]arrival // by exporter
}

// arrival is a record that an exporter was given.
type arrival struct {
	fields []field
	text   string // as JSON
}

type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) lines() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.FieldsFunc(l.buf.String(), func(r rune) bool { return r == '\n' })
}

func (r *run) run(ctx context.Context) []Problem {
	handler := slog.NewTextHandler(&r.log, &slog.HandlerOptions{Level: slog.LevelWarn, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey && len(groups) == 0 {
			return slog.Attr{}
		}
		return a
	}})
	e := pipeline.New(pipeline.Options{Log: slog.New(handler), Metrics: metric.NewSet(), Memory: &r.memory, Patience: patience})
	if _, err := e.Apply(ctx, r.standIns()); err != nil {
		return []Problem{{Message: err.Error()}}
	}
	var problems []Problem
	select {
	case <-r.sent:
	case <-ctx.Done():
		problems = append(problems, late())
	}
	err := e.Drain(ctx) // which flushes what processors hold
	problems = append(problems, r.compare()...)
	problems = append(problems, r.audit(e.Ledger())...)
	if n := r.memory.Out(); n != 0 {
		problems = append(problems, Problem{Message: fmt.Sprintf("%d batches are not settled", n)})
	}
	if err != nil {
		problems = append(problems, Problem{Message: err.Error()})
	}
	return problems
}

// standIns returns the plan with a collector that sends what is given, and exporters that note what arrives.
func (r *run) standIns() *pipeline.Plan {
	type none struct{}
	const id = "given"
	p := *r.plan
	p.Pipelines = slices.Clone(p.Pipelines)
	p.Pipelines[0].From = []string{id}
	p.Collectors = []pipeline.Component{{ID: id, Options: []byte("{}"), Plugin: creel.NewCollector(id, "Sends what a test says.", func(none, creel.Host) (creel.Collector, error) {
		return creel.CollectorFunc(r.collect), nil
	})}}
	p.Exporters = slices.Clone(p.Exporters)
	for i := range p.Exporters {
		x := &p.Exporters[i]
		x.Options = []byte(`{"delivery":{"batch":{"max_wait":"0s"},"concurrency":1}}`)
		x.Plugin = creel.NewExporter(x.Plugin.Name, "Notes what arrives.", func(none, creel.Host) (creel.Exporter, error) {
			return creel.ExporterFunc(func(_ context.Context, batches []*creel.Batch) error {
				r.note(x.ID, batches)
				return nil
			}), nil
		})
	}
	return &p
}

// collect sends the records, once.
func (r *run) collect(ctx context.Context, out creel.Sink) error {
	records := r.memory.NewRecords()
	for _, g := range r.given {
		appendRecord(records, r.signal, g.canonical, g.node)
	}
	if err := out.Send(ctx, creel.NewBatch(r.signal, records)); err != nil {
		return err // the case has taken too long
	}
	close(r.sent)
	<-ctx.Done()
	return nil
}

// note keeps what arrives. It copies: the batches' memory is used again.
func (r *run) note(exporter string, batches []*creel.Batch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range batches {
		for i := range b.Len() {
			fields := fieldsOf(b, i)
			for j := range fields {
				fields[j].value = fields[j].value.Clone()
			}
			r.arrived[exporter] = append(r.arrived[exporter], arrival{fields, string(appendFields(nil, fields))})
		}
	}
}

// compare compares what arrived with what was expected, exporter by exporter. What is wrong at several is said once.
func (r *run) compare() (problems []Problem) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, x := range r.plan.Exporters {
		list, named := r.expect[x.ID]
		if !named {
			continue
		}
		for _, p := range compareLists(list, r.arrived[x.ID]) {
			i := slices.IndexFunc(problems, func(q Problem) bool {
				q.Exporters = nil
				return reflect.DeepEqual(p, q)
			})
			if i < 0 {
				i = len(problems)
				problems = append(problems, p)
			}
			problems[i].Exporters = append(problems[i].Exporters, x.ID)
		}
	}
	return problems
}

// audit compares the counts with the ledger, and checks that the books balance.
func (r *run) audit(l report.Ledger) []Problem {
	var problems []Problem
	count := func(what string, expected, got int64) {
		if expected != got {
			problems = append(problems, Problem{Field: what, Expected: fmt.Sprint(expected), Got: fmt.Sprint(got)})
		}
	}
	var filtered, dropped int64
	came := make(map[string]int64)
	for _, p := range l.Pipelines {
		filtered += p.Filtered
		for _, n := range p.Dropped {
			dropped += n
		}
		came[p.Pipeline] = p.Accepted
		if p.Unexplained != 0 || p.Held != 0 {
			problems = append(problems, Problem{Message: fmt.Sprintf("the books of pipeline %s do not balance: %+v", p.Pipeline, p)})
		}
		for _, x := range p.Exporters {
			if x.Unexplained != 0 || x.Queued != 0 || len(x.Dropped) > 0 {
				problems = append(problems, Problem{Message: fmt.Sprintf("the books of pipeline %s and exporter %s do not balance: %+v", p.Pipeline, x.Exporter, x)})
			}
		}
	}
	if r.filtered {
		count("filtered", int64(r.counts.Filtered), filtered)
	}
	count("dropped", int64(r.counts.Dropped), dropped)
	for _, p := range r.plan.Pipelines[1:] {
		if n, named := r.counts.Routed[p.ID]; named {
			count("routed."+p.ID, int64(n), came[p.ID])
		}
	}
	return problems
}

// Run parses a configuration, and runs the tests in it with the given plugins: for a Go test of plugins of one's own. It
// does not look at the section agent.
func Run(ctx context.Context, file string, text []byte, env config.Env, plugins []creel.Plugin) ([]Result, error) {
	root, err := config.Parse(file, text, env)
	if err != nil {
		return nil, err
	}
	plan, err := pipeline.Compile(root, plugins, nil)
	if err != nil {
		return nil, err
	}
	cases, err := Compile(root, plan)
	if err != nil {
		return nil, err
	}
	var results []Result
	for _, t := range cases {
		results = append(results, t.Run(ctx))
	}
	return results, nil
}
