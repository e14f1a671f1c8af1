package trial_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/agent/trial"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/pipeline"
)

type none struct{}

// holder keeps batches until it is stopped; a careless one forgets them then.
type holder struct {
	careless bool
	mu       sync.Mutex
	held     []*creel.Batch
}

func (p *holder) Process(_ context.Context, b *creel.Batch, _ creel.Next) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	b.Hold()
	p.held = append(p.held, b)
	return nil
}

func (p *holder) Run(ctx context.Context, next creel.Next) error {
	<-ctx.Done()
	if p.careless {
		return nil
	}
	for _, b := range p.held {
		next.Send(b)
	}
	return nil
}

type sideConfig struct {
	To string `doc:"Where ERRORs go." ref:"pipeline"`
}

// plugins are collectors and exporters that must not be opened, and processors that do one thing each. block waits for
// the channel.
func plugins(block chan struct{}) []creel.Plugin {
	processor := func(name string, f func(*creel.Batch, creel.Next) error) creel.Plugin {
		return creel.NewProcessor(name, "Does what it is called.", func(none, creel.Host) (creel.Processor, error) {
			return creel.ProcessorFunc(func(_ context.Context, b *creel.Batch, next creel.Next) error { return f(b, next) }), nil
		})
	}
	return []creel.Plugin{
		creel.NewCollector("source", "Cannot be opened.", func(none, creel.Host) (creel.Collector, error) { return nil, errors.New("opened") }),
		creel.NewExporter("sink", "Cannot be opened.", func(struct {
			Endpoint string `doc:"Address."`
		}, creel.Host) (creel.Exporter, error) {
			return nil, errors.New("opened")
		}),
		processor("pass", func(b *creel.Batch, next creel.Next) error { next.Send(b); return nil }),
		processor("drop", func(b *creel.Batch, next creel.Next) error { return nil }),
		processor("fail", func(b *creel.Batch, next creel.Next) error { return errors.New("fails on purpose") }),
		processor("block", func(b *creel.Batch, next creel.Next) error { <-block; return nil }),
		processor("first", func(b *creel.Batch, next creel.Next) error {
			b.Keep(func(i int) bool { return i == 0 })
			next.Send(b)
			return nil
		}),
		creel.NewProcessor("hold", "Holds.", func(none, creel.Host) (creel.Processor, error) { return &holder{}, nil }),
		creel.NewProcessor("forget", "Holds, and forgets.", func(none, creel.Host) (creel.Processor, error) { return &holder{careless: true}, nil }),
		creel.NewProcessor("side", "Sends ERRORs to another pipeline, and all on.", func(c sideConfig, h creel.Host) (creel.Processor, error) {
			other, err := h.Output(c.To)
			return creel.ProcessorFunc(func(_ context.Context, b *creel.Batch, next creel.Next) error {
				side, logs := b.Clone(), b.Logs()
				side.Keep(func(i int) bool { return logs[i].Severity == creel.SeverityError })
				other.Send(side)
				next.Send(b)
				return nil
			}), err
		}),
	}
}

// world is a configuration with a pipeline for each processor.
const world = `
collectors: {source: , source/other: }
processors: {pass: , drop: , fail: , block: , first: , hold: , forget: , side: {to: vip}}
exporters: {sink: {endpoint: x}, sink/2: {endpoint: y}, sink/vip: {endpoint: z}}
pipelines:
  pass: {from: [source], through: [pass], to: [sink, sink/2]}
  drop: {from: [source], through: [drop], to: [sink]}
  fail: {from: [source], through: [fail], to: [sink]}
  block: {from: [source], through: [block], to: [sink]}
  first: {from: [source, source/other], through: [first], to: [sink]}
  hold: {from: [source], through: [hold], to: [sink]}
  forget: {from: [source], through: [forget], to: [sink]}
  side: {from: [source], through: [side], to: [sink]}
  vip: {through: [first], to: [sink/vip], ack: memory}
  off: {enabled: false, from: [source], to: [sink]}
tests:
`

func runText(t *testing.T, text string) []trial.Result {
	t.Helper()
	results, err := trial.Run(t.Context(), "c.yaml", []byte(text), config.Env{}, plugins(nil))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return results
}

// TestCases runs one case each: it must have exactly these problems.
func TestCases(t *testing.T) {
	f := func(text string, problems ...string) {
		t.Helper()
		r := runText(t, world+"  it: {"+text+"}\n")[0]
		var got []string
		for _, p := range r.Problems {
			got = append(got, p.String())
		}
		if strings.Join(got, "\n") != strings.Join(problems, "\n") || r.OK != (len(problems) == 0) {
			t.Errorf("%s has the problems\n%s\nnot\n%s", text, strings.Join(got, "\n"), strings.Join(problems, "\n"))
		}
	}
	// What is compared, and how.
	f("pipeline: pass, given: [a, {body: b, severity: WARN}], expect: [a, {severity: 13}]")
	f("pipeline: pass, given: [5, 2.5, {body: [1, {x: y, z: 1}]}], expect: [5.0, 2.5, {body: [1.0, {z: 1, x: y}]}]")
	f("pipeline: pass, given: [{body: {x: 1, y: 2}}], expect: [{body: {x: 1}}]", `sink, sink/2, record 1, body: expected {"x":1}, got {"x":1,"y":2}`)
	f("pipeline: pass, given: [5], expect: ['5']", `sink, sink/2, record 1, body: expected "5", got 5`)
	f("pipeline: pass, given: [a], expect: [{body: }]", `sink, sink/2, record 1, body: expected nothing, got "a"`)
	f("pipeline: pass, given: [{attributes: {a: 1, b: 2}}], expect: [{attributes: {b: 2, c: null}}]")
	f("pipeline: pass, given: [{attributes: {a: 1, b: 2}}], expect: [{attributes: {b: 3, a: null, c: x}}]",
		"sink, sink/2, record 1, attributes.a: expected nothing, got 1", "sink, sink/2, record 1, attributes.b: expected 3, got 2", `sink, sink/2, record 1, attributes.c: expected "x", got nothing`)
	f("pipeline: pass, given: [{attributes: {a: 1}}], expect: [{attributes: }]", `sink, sink/2, record 1, attributes: expected nothing, got {"a":1}`)
	f("pipeline: pass, given: [{resource: {a: 1}, scope: {name: s, attributes: {b: 2}}}], expect: [{resource: {a: 1}, scope: {name: s, version: , attributes: {b: 2}}}]")
	f("pipeline: pass, given: [{scope: {name: s}}], expect: [{scope: {name: t, version: '1'}}]",
		`sink, sink/2, record 1, scope.name: expected "t", got "s"`, `sink, sink/2, record 1, scope.version: expected "1", got nothing`)
	f("pipeline: pass, given: [{time: '2026-01-02T03:04:05Z', event: e, severity_text: w}], expect: [{time: '2026-01-02T04:04:05+01:00', event: e, severity_text: w, trace_id: ''}]")
	f("pipeline: pass, given: [{body: "+strings.Repeat("x", 100)+"}], expect: [y]", "sink, sink/2, record 1, body:\n  expected \"y\"\n  got      \""+strings.Repeat("x", 100)+"\"")
	// One that is missing, or too many, does not make the others look wrong.
	f("pipeline: pass, given: [a, b, c], expect: [b, c]", `sink, sink/2, record 1 is not expected: {"body":"a"}`)
	f("pipeline: pass, given: [b, c], expect: [a, b, x, c, d]", `sink, sink/2, record 1 is missing: "a"`, `sink, sink/2, record 3 is missing: "x"`, `sink, sink/2, record 5 is missing: "d"`)
	f("pipeline: pass, given: [a, X, c], expect: [a, b, c]", `sink, sink/2, record 2, body: expected "b", got "X"`)
	f("pipeline: pass, given: [a, a, a], expect: [a]", `sink, sink/2, record 2 is not expected: {"body":"a"}`, `sink, sink/2, record 3 is not expected: {"body":"a"}`)
	f("pipeline: pass, given: [a], expect: []", `sink, sink/2, record 1 is not expected: {"body":"a"}`)
	f("pipeline: pass, given: [a], expect: {sink: [a], sink/2: [b]}", `sink/2, record 1, body: expected "b", got "a"`)
	// Counts.
	f("pipeline: drop, given: [a, b], expect: [], filtered: 2")
	f("pipeline: drop, given: [a, b]")
	f("pipeline: first, given: [a, b], filtered: 0, expect: [a]", "filtered: expected 0, got 1")
	f("pipeline: fail, given: [a, b], dropped: 2, expect: []")
	f("pipeline: fail, given: [a, b]", "dropped: expected 0, got 2")
	f("pipeline: forget, given: [a, b]", "dropped: expected 0, got 2")
	f("pipeline: hold, given: [a, b], expect: [a, b], filtered: 0")
	f("pipeline: side, given: [a, {body: b, severity: ERROR}, {body: c, severity: ERROR}], expect: {sink: [a, b, c], sink/vip: [b]}, routed: {vip: 2}, filtered: 2")
	f("pipeline: side, given: [a], expect: [a], routed: {vip: 1}", "routed.vip: expected 1, got 0")
	f("pipeline: vip, given: [a, b], expect: [a]")
	// Other signals.
	f("pipeline: pass, signal: metrics, given: [{name: n, value: 1, unit: s}, {name: n, kind: sum, value: 2.5, monotonic: false}], expect: [{kind: gauge, value: 1.0, temporality: }, {kind: sum, temporality: cumulative, monotonic: false}]")
	f("pipeline: pass, signal: metrics, given: [{name: n, kind: histogram, count: 3, sum: 6, min: 1, bounds: [2], counts: [1, 2]}], expect: [{count: 3, sum: 6.0, min: 1, max: , bounds: [2.0], counts: [1, 2]}]")
	f("pipeline: pass, signal: metrics, given: [{name: n, value: 1}], expect: [{kind: summary, count: 3}]",
		`sink, sink/2, record 1, kind: expected "summary", got "gauge"`, "sink, sink/2, record 1, count: expected 3, got nothing")
	f("pipeline: pass, signal: traces, given: [{name: n, duration: 1500ms, kind: client, status: error, status_message: m, parent_id: '0102030405060708'}], expect: [{duration: 1.5s, kind: client, status: error, status_message: m, parent_id: '0102030405060708'}]")
	f("pipeline: pass, signal: traces, given: [{name: n}], expect: [{status: unset, duration: 1s}]", `sink, sink/2, record 1, duration: expected "1s", got nothing`)
}

// TestWrongCases: each error has its line.
func TestWrongCases(t *testing.T) {
	f := func(text string, want ...string) {
		t.Helper()
		_, err := trial.Run(t.Context(), "c.yaml", []byte(world+text), config.Env{}, plugins(nil))
		lines := strings.Count(world, "\n")
		for i := range want {
			if n, rest, ok := strings.Cut(want[i], " "); ok {
				var line, col int
				if _, err := fmt.Sscanf(n, "%d:%d", &line, &col); err != nil {
					t.Fatal(err)
				}
				want[i] = fmt.Sprintf("c.yaml:%d:%d: tests.%s", lines+line, col, rest)
			}
		}
		if err == nil || err.Error() != strings.Join(want, "\n") {
			t.Errorf("%s gives\n%v\nnot\n%s", text, err, strings.Join(want, "\n"))
		}
	}
	f("  a:\n    pipeline: pass\n    givn: [x]\n",
		`1:3 a: option "given" is missing; it says: Records that a collector sends, as one batch. A text is a log with that body.`, `3:5 a: unknown option "givn"; did you mean "given"?`)
	f("  a: {pipeline: pass, given: [{boddy: x}]}\n", `1:32 a.given[0]: unknown option "boddy"; did you mean "body"?`)
	f("  a: {pipeline: pass, given: []}\n", "1:30 a.given: must be at least one record")
	f("  a:\n    pipeline: pass\n    given: [{severity: LOUD}, {trace_id: xyz}, {time: noon}, [1]]\n    expect:\n      - {attributes: [1]}\n",
		`3:24 a.given[0].severity: must be a severity such as INFO or ERROR2, or a number from 0 to 24, got "LOUD"`,
		`3:42 a.given[1].trace_id: must be 32 hexadecimal digits in quotes, got "xyz"`,
		`3:55 a.given[2].time: must be a time such as 2026-01-02T15:04:05Z, got "noon"`,
		"3:62 a.given[3]: must be a map of options, got a list",
		"5:22 a.expect[0].attributes: must be a map of anything, got a list")
	f("  a: {given: [x]}\n", `1:3 a: option "pipeline" is missing; it is one of pass, drop, fail, block, first, hold, forget, side`)
	f("  a: {pipeline: pas, given: [x]}\n", `1:17 a.pipeline: there is no pipeline "pas"; did you mean "pass"?`)
	f("  a: {pipeline: off, given: [x]}\n", `1:17 a.pipeline: pipeline "off" does nothing: nobody feeds it, or all it sends to is switched off`)
	f("  a: {pipeline: pass, given: [x], expect: }\n", "1:43 a.expect: must be a list of records, or a map of such lists by exporter; [] says that nothing arrives")
	f("  a: {pipeline: pass, given: [x], expect: {sink/vip: [x]}}\n", `1:44 a.expect.sink/vip: no record can reach an exporter "sink/vip"; known are sink, sink/2`)
	f("  a: {pipeline: pass, given: [x], expect: {sink: x}}\n", `1:50 a.expect.sink: must be a list of records; [] says that nothing arrives`)
	f("  a: {pipeline: side, given: [x], routed: {pass: 1}}\n", `1:44 a.routed.pass: no record can come into pipeline "pass"; known are vip`)
	f("  a: {pipeline: pass, given: [x], filtered: -1}\n", "1:45 a.filtered: must be at least 0, got -1")
	f("  a: {pipeline: pass, signal: metrics, given: [x, {kind: summary}, {value: much}]}\n", "1:48 a.given[0]: must be a map of options, got x",
		"1:58 a.given[1].kind: summary can only be expected", `1:76 a.given[2].value: must be a number, got "much"`)
}

// TestPipelineMayBeLeftOut when collectors feed only one.
func TestPipelineMayBeLeftOut(t *testing.T) {
	text := "collectors: {source: }\nprocessors: {side: {to: vip}}\nexporters: {sink: {endpoint: x}}\n" +
		"pipelines: {web: {from: [source], through: [side]}, vip: {to: [sink]}}\n" +
		"tests: {it: {given: [{body: a, severity: ERROR}, b], expect: {sink: [a]}, routed: {vip: 1}}}"
	if r := runText(t, text)[0]; !r.OK {
		t.Errorf("it has the problems %v", r.Problems)
	}
	_, err := trial.Run(t.Context(), "c.yaml", []byte(strings.Replace(text, "{sink: [a]}", "[a]", 1)), config.Env{}, plugins(nil))
	if err == nil || !strings.Contains(err.Error(), `pipeline "web" has no exporters of its own; write a map from exporters to records`) {
		t.Errorf("got %v", err)
	}
}

// TestOrderAndLog: cases come in the order of the file, with what was logged.
func TestOrderAndLog(t *testing.T) {
	r := runText(t, world+"  z: {pipeline: pass, given: [x]}\n  a: {pipeline: fail, given: [x]}\n")
	if len(r) != 2 || r[0].Name != "z" || r[1].Name != "a" || r[1].File != "c.yaml" || r[1].Line == 0 {
		t.Fatalf("ran %+v", r)
	}
	if log := strings.Join(r[1].Log, "\n"); !strings.Contains(log, "processor failed") || !strings.Contains(log, "fails on purpose") || strings.Contains(log, "time=") {
		t.Errorf("the log is %s", log)
	}
}

// TestBlockedProcessor: a case ends though processing does not.
func TestBlockedProcessor(t *testing.T) {
	block := make(chan struct{})
	root, err := config.Parse("c.yaml", []byte(world+"  it: {pipeline: block, given: [x]}\n"), config.Env{})
	if err != nil {
		t.Fatal(err)
	}
	plan, err := pipeline.Compile(root, plugins(block), nil)
	if err != nil {
		t.Fatal(err)
	}
	cases, err := trial.Compile(root, plan)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if r := cases[0].Run(ctx); r.OK || !strings.Contains(r.Problems[0].Message, "does not end") {
		t.Errorf("it ends as %+v", r)
	}
	close(block)
}
