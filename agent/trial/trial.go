// Package trial runs the tests that stand in a configuration: records that a collector would send, and what has to
// arrive at the exporters. Processors, the ways between pipelines and the ledger are the real ones; collectors and
// exporters are replaced.
//
// It opens no collector and no exporter, and does not know who reads its results.
package trial

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/pipeline"
)

// Section is the name of the section of a configuration that holds tests, by name.
const Section = "tests"

// options are what one says of a case.
type options struct {
	Pipeline string            `doc:"The pipeline that the records are sent into; not needed when collectors feed only one." optional:"true" ref:"pipeline"`
	Signal   string            `doc:"What the records are." default:"logs" enum:"logs|metrics|traces"`
	Given    []json.RawMessage `doc:"Records that a collector sends, as one batch. A text is a log with that body." example:"[{body: hello, severity: INFO, attributes: {user: ann}}, just a line]"`
	Expect   json.RawMessage   `doc:"Records that arrive at each of the pipeline's exporters, in order; or a map of such lists by exporter, also of those that records reach through other pipelines. Only fields that are named are compared; [] says that nothing arrives." optional:"true" example:"[{body: hello}]"`
	Filtered int               `doc:"Records that processors removed on purpose, in all pipelines." optional:"true" min:"0"`
	Routed   map[string]int    `doc:"Records that came into other pipelines, by pipeline." optional:"true" min:"0" example:"{vip: 1}"`
	Dropped  int               `doc:"Records that were lost to a processor's error." default:"0" min:"0"`
}

// A Case is one test: checked, and ready to run as often as one likes.
type Case struct {
	Name string
	File string
	Line int

	plan     *pipeline.Plan // the part that records can reach; its collector and its exporters are stand-ins
	signal   creel.Signal
	given    []record
	expect   map[string][]record // by exporter; nil: nothing is said
	counts   options
	filtered bool // counts.Filtered was named
}

// record is a record as it stands in the file.
type record struct {
	node      *config.Node
	canonical []byte
	text      string // as JSON, for the reader
}

// Compile checks the section tests of a configuration against its plan, and returns the cases in the order of the file.
// The error is a config.Errors with all that is wrong.
func Compile(root *config.Node, plan *pipeline.Plan) ([]Case, error) {
	section := root.Get(Section)
	if !section.IsMap() {
		return nil, config.Errors{section.Errorf("must be a map from the names of tests to {given, expect}")}
	}
	c := compiler{root: root, plan: plan}
	var cases []Case
	for name, node := range section.Entries() {
		cases = append(cases, c.compile(name, node))
	}
	if len(c.errs) > 0 {
		c.errs.Sort()
		return nil, c.errs
	}
	return cases, nil
}

type compiler struct {
	root *config.Node
	plan *pipeline.Plan
	errs config.Errors
}

func (c *compiler) fail(e *config.Error, hint string) {
	e.Hint = cmp.Or(e.Hint, hint)
	c.errs = append(c.errs, e)
}

func (c *compiler) compile(name string, n *config.Node) Case {
	canonical, errs := config.Of[options]().Check(n)
	if len(errs) > 0 {
		c.errs = append(c.errs, errs...)
		c.onlyRecords(n)
		return Case{}
	}
	o := decode[options](canonical)
	line, _ := n.Pos()
	t := Case{Name: name, File: n.File(), Line: line, counts: o, filtered: n.Get("filtered") != nil, signal: signalOf(o.Signal)}
	if len(o.Given) == 0 {
		c.fail(n.Get("given").Errorf("must be at least one record"), "")
	}
	for i, item := range n.Get("given").Items() {
		t.given = append(t.given, c.record(t.signal, item, o.Given[i], true))
	}
	if start := c.start(n, o.Pipeline); start != "" {
		t.plan = part(c.plan, start)
		c.routed(n, &t)
		c.expect(n, &t)
	}
	return t
}

// onlyRecords looks for further errors in a case that is wrong anyway.
func (c *compiler) onlyRecords(n *config.Node) {
	lists := []*config.Node{n.Get("given"), n.Get("expect")}
	for _, list := range n.Get("expect").Entries() {
		lists = append(lists, list)
	}
	for _, list := range lists {
		for _, item := range list.Items() {
			if item.IsMap() {
				_, errs := schemaOf(signalOf(n.Get("signal").Text())).Check(item)
				c.errs = append(c.errs, errs...)
			}
		}
	}
}

// signalOf returns the signal of a name; logs if there is none.
func signalOf(name string) creel.Signal {
	for _, s := range creel.Signals() {
		if s.String() == name {
			return s
		}
	}
	return creel.Logs
}

// start returns the pipeline that a case begins in.
func (c *compiler) start(n *config.Node, id string) string {
	var live, fed []string
	for _, p := range c.plan.Pipelines {
		live = append(live, p.ID)
		if len(p.From) > 0 {
			fed = append(fed, p.ID)
		}
	}
	switch {
	case id == "" && len(fed) == 1:
		return fed[0]
	case id == "" && len(fed) == 0:
		c.fail(n.KeyErrorf("no pipeline runs"), "")
	case id == "":
		c.fail(n.KeyErrorf("option %q is missing", "pipeline"), "it is one of "+strings.Join(fed, ", "))
	case slices.Contains(live, id):
		return id
	case c.root.Get("pipelines").Get(id) != nil:
		c.fail(n.Get("pipeline").Errorf("pipeline %q does nothing: nobody feeds it, or all it sends to is switched off", id), "")
	default:
		c.fail(n.Get("pipeline").Errorf("there is no pipeline %q", id), config.DidYouMean(id, live))
	}
	return ""
}

// routed checks the names of pipelines.
func (c *compiler) routed(n *config.Node, t *Case) {
	var others []string
	for _, p := range t.plan.Pipelines[1:] {
		others = append(others, p.ID)
	}
	for id, node := range n.Get("routed").Entries() {
		if !slices.Contains(others, id) {
			c.fail(node.KeyErrorf("no record can come into pipeline %q", id), hint(id, others))
		}
	}
}

// expect checks what is to arrive, and where.
func (c *compiler) expect(n *config.Node, t *Case) {
	node, raw := n.Get("expect"), t.counts.Expect
	if node == nil {
		return
	}
	t.expect = make(map[string][]record)
	switch raw[0] {
	case '[':
		to := t.plan.Pipelines[0].To
		if len(to) == 0 {
			c.fail(node.Errorf("pipeline %q has no exporters of its own", t.plan.Pipelines[0].ID), "write a map from exporters to records")
		}
		list := c.records(t.signal, node, raw)
		for _, id := range to {
			t.expect[id] = list
		}
	case '{':
		lists := make(map[string]json.RawMessage)
		mustJSON(raw, &lists)
		var known []string
		for _, x := range t.plan.Exporters {
			known = append(known, x.ID)
		}
		for id, list := range node.Entries() {
			if !slices.Contains(known, id) {
				c.fail(list.KeyErrorf("no record can reach an exporter %q", id), hint(id, known))
				continue
			}
			t.expect[id] = c.records(t.signal, list, lists[id])
		}
	default:
		c.fail(node.Errorf("must be a list of records, or a map of such lists by exporter"), "[] says that nothing arrives")
	}
}

func hint(name string, known []string) string {
	if h := config.DidYouMean(name, known); h != "" || len(known) == 0 {
		return h
	}
	return "known are " + strings.Join(known, ", ")
}

func (c *compiler) records(s creel.Signal, n *config.Node, raw json.RawMessage) []record {
	if raw[0] != '[' {
		c.fail(n.Errorf("must be a list of records"), "[] says that nothing arrives")
		return nil
	}
	var items []json.RawMessage
	mustJSON(raw, &items)
	list := make([]record, len(items))
	for i, item := range n.Items() {
		list[i] = c.record(s, item, items[i], false)
	}
	return list
}

// record checks one record. raw is what stands there.
func (c *compiler) record(s creel.Signal, n *config.Node, raw json.RawMessage, given bool) record {
	scalar := !strings.Contains("{[n", string(raw[:1]))
	if scalar && s == creel.Logs {
		return record{node: n, canonical: slices.Concat([]byte(`{"body":`), raw, []byte(`}`)), text: string(raw)}
	}
	canonical, errs := schemaOf(s).Check(n)
	c.errs = append(c.errs, errs...)
	if s == creel.Metrics && given && (n.Get("kind").Text() == metricKinds[4] || n.Get("kind").Text() == metricKinds[5]) {
		c.fail(n.Get("kind").Errorf("%s can only be expected", n.Get("kind").Text()), "")
	}
	return record{node: n, canonical: canonical, text: string(raw)}
}

func mustJSON(text []byte, into any) {
	if err := json.Unmarshal(text, into); err != nil {
		panic("BUG: canonical options are no JSON: " + err.Error())
	}
}

// part returns the part of a plan that begins in a pipeline, which is its first. Nobody feeds it yet.
func part(whole *pipeline.Plan, start string) *pipeline.Plan {
	p := &pipeline.Plan{}
	reached := map[string]bool{start: true}
	uses := make(map[string]bool)
	for _, pl := range whole.Pipelines { // each stands before those that it sends to
		if !reached[pl.ID] {
			continue
		}
		pl.From = nil
		p.Pipelines = append(p.Pipelines, pl)
		for _, id := range pl.Outputs {
			reached[id] = true
		}
		for _, id := range pl.To {
			uses[id] = true
		}
	}
	for _, proc := range whole.Processors {
		if reached[proc.Pipeline] {
			p.Processors = append(p.Processors, proc)
		}
	}
	for _, x := range whole.Exporters {
		if uses[x.ID] {
			p.Exporters = append(p.Exporters, x)
		}
	}
	return p
}

// Schema describes what one says of a case.
func Schema() config.Schema { return config.Of[options]() }

// RecordSchema describes how one writes a record of a signal.
func RecordSchema(s creel.Signal) config.Schema { return schemaOf(s) }

// JSONSchema describes the section, for editors.
func JSONSchema() map[string]any {
	records := []any{map[string]any{"type": []any{"string", "number", "boolean"}}}
	for _, s := range creel.Signals() {
		records = append(records, schemaOf(s).JSONSchema())
	}
	list := map[string]any{"type": "array", "items": map[string]any{"anyOf": records}}
	js := Schema().JSONSchema()
	properties, ok := js["properties"].(map[string]any)
	if !ok {
		panic("BUG: a schema without properties")
	}
	for name, types := range map[string][]any{
		"given":  {list},
		"expect": {list, map[string]any{"type": "object", "additionalProperties": list}},
	} {
		f, _ := Schema().Lookup(name)
		properties[name] = map[string]any{"anyOf": types, "description": f.Doc}
	}
	return map[string]any{
		"type": []any{"object", "null"}, "additionalProperties": js, "description": "Tests of this configuration, by name; creel test runs them.",
	}
}

// Explain writes help about the section, for a terminal.
func Explain(w io.Writer) {
	Schema().Explain(w)
	for _, s := range creel.Signals() {
		fmt.Fprintf(w, "\nA record of %s, in given and expect:\n", s)
		schemaOf(s).Explain(w)
	}
}
