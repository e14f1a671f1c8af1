package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/report"
	"github.com/creelhq/creel/task"
)

// Common are the options that every component has.
type Common struct {
	Enabled Toggle `doc:"Whether it takes part: true, false, or a condition on the agent's labels. Switching it off leaves it out wherever it is named." default:"true" example:"site == 'north'"`
}

// Schedule are the options of collectors that work in rounds.
type Schedule struct {
	Every    time.Duration `doc:"Time between the starts of two rounds." default:"10s" min:"10ms"`
	Timeout  time.Duration `doc:"How long one round may take, without the time it waits for room; 0 for no limit." default:"0s" min:"0s"`
	Priority int           `doc:"Who goes first when there is more to do than slots: 9 before 0. Waiting raises it." default:"5" min:"0" max:"9"`
	Cron     string        `doc:"When rounds start, instead of every: minute, hour, day of month, month and day of week as in crontab(5), or @hourly, @daily, @weekly, @monthly, @yearly. What falls into the hour that a change to summer time leaves out is done at its end, what falls into a repeated one is done once." optional:"true" example:"30 6 * * mon-fri"`
	Zone     string        `doc:"The time zone of cron; this machine's if left out." optional:"true" example:"Europe/Berlin"`
	Jitter   time.Duration `doc:"Each round starts later by a chance amount below this, so that many agents do not ask the same server at once." default:"0s" min:"0s"`
	Missed   string        `doc:"What becomes of rounds that could not start in time, because there was no slot or this machine slept: one of them is done late (once), none (skip), or each, up to a hundred (all)." default:"once" enum:"once|skip|all"`
	Preempt  string        `doc:"How a round makes way for a more urgent one when there is no slot: where it can, going on later (yield), or at once, beginning anew (restart), which is for collectors that send at the end of a round only." default:"yield" enum:"yield|restart"`
	Class    string        `doc:"A name that collectors share of which only so many rounds run at once as agent.tasks.classes says." optional:"true" example:"snmp"`
	Key      string        `doc:"A name that collectors share of which only one round runs at once." optional:"true" example:"db-7"`
}

// Validate checks when rounds start.
func (s Schedule) Validate() error {
	if s.Zone != "" && s.Cron == "" {
		return config.FieldError("zone", errors.New("means nothing without cron"))
	}
	_, err := s.clock()
	return err
}

// clock returns the schedule by the clock, nil if there is none.
func (s Schedule) clock() (task.Schedule, error) {
	if s.Cron == "" {
		return nil, nil
	}
	clock, err := task.ParseCron(s.Cron, s.Zone)
	if err != nil {
		return nil, config.FieldError("cron", err)
	}
	return clock, nil
}

// task returns what the scheduler is to know.
func (s Schedule) task(id string, round func(context.Context) error) (task.Task, error) {
	clock, err := s.clock()
	t := task.Task{
		ID: id, Every: s.Every, Schedule: clock, Jitter: s.Jitter, Priority: s.Priority, Timeout: s.Timeout, Class: s.Class, Key: s.Key, Run: round,
		Missed:  map[string]task.Missed{"once": task.MissedOnce, "skip": task.MissedSkip, "all": task.MissedAll}[s.Missed],
		Preempt: map[string]task.Preempt{"yield": task.PreemptYield, "restart": task.Restart}[s.Preempt],
	}
	if clock != nil {
		t.Every = 0
	}
	return t, err
}

// Sending are the options that every exporter has.
type Sending struct {
	Delivery Delivery `doc:"What stands in front of the exporter: queue, batching, rate limit, breaker, retry."`
}

// Route is a pipeline's options.
type Route struct {
	Enabled Toggle   `doc:"Whether it runs: true, false, or a condition on the agent's labels." default:"true" example:"site == 'north'"`
	From    []string `doc:"Collectors that feed it. A pipeline that a processor sends to needs none." optional:"true" ref:"collector" example:"[file/nginx]"`
	Through []string `doc:"Processors, in order. Each pipeline has its own instances." optional:"true" ref:"processor" example:"[sample]"`
	To      []string `doc:"Exporters; each gets everything." optional:"true" ref:"exporter" example:"[otlp/hub]"`
	Ack     string   `doc:"When a collector is told that records are safe: when every exporter has delivered them (delivered), has them in its disk queue (process: they survive the process; disk: and the machine), or in its queue in memory (memory). Left out, process at exporters with a disk queue and delivered at others." optional:"true" enum:"delivered|process|disk|memory"`

	Priority int `doc:"Who goes on when memory is scarce: pipelines take no more records one after the other, 0 first and 9 last. While a collector feeds others as well, records are dropped for those that take none, and counted as shed; else it waits." default:"5" min:"0" max:"9"`
}

// Schema returns the options of a component of plugin p: the framework's options and the plugin's own.
func Schema(p creel.Plugin) config.Schema {
	return config.Join(config.Of[Common](), workOptions(p))
}

// workOptions are those that say how the component works, rather than whether.
func workOptions(p creel.Plugin) config.Schema {
	var parts []config.Schema
	switch {
	case p.Kind == creel.KindExporter:
		parts = append(parts, config.Of[Sending]())
	case p.Polled:
		parts = append(parts, config.Of[Schedule]())
	}
	return config.Join(append(parts, p.Config)...)
}

// Section returns the name of the section of a configuration that components of kind k stand in.
func Section(k creel.Kind) string { return k.String() + "s" }

// A Component is a node of a Plan.
type Component struct {
	ID       string // type or type/name
	Plugin   creel.Plugin
	Pipeline string // of a processor: the pipeline that the instance belongs to
	Options  []byte // all options, canonical

	refs []config.Ref
}

// Path names the component as errors, logs and metrics do, such as exporters.otlp/hub.
func (c Component) Path() string { return Section(c.Plugin.Kind) + "." + c.ID }

// Key tells the component from all others of a plan: its path, and for a processor pipelines.web.parse/nginx.
func (c Component) Key() string {
	if c.Pipeline != "" {
		return "pipelines." + c.Pipeline + "." + c.ID
	}
	return c.Path()
}

// Redacted returns the component's options without secrets.
func (c Component) Redacted() []byte { return Schema(c.Plugin).Redact(c.Options) }

// A Pipeline is a way through a Plan.
type Pipeline struct {
	ID      string
	From    []string // ids of collectors
	Through []string // ids of processors
	To      []string // ids of exporters
	Outputs []string // ids of pipelines that its processors send to
	Ack     string   // as Route.Ack

	Priority int // as Route.Priority
}

// ackAt returns the pipeline's level at an exporter.
func (p Pipeline) ackAt(spooled bool) ackLevel {
	if p.Ack == "" && spooled {
		return ackProcess
	}
	return ackLevels[p.Ack] // none: delivered
}

// A Plan is a checked configuration: flat nodes, without what is switched off or not used. The zero Plan runs nothing.
type Plan struct {
	Collectors []Component
	Processors []Component // one for each pipeline that names it
	Exporters  []Component
	Pipelines  []Pipeline // a pipeline stands before those that its processors send to
	Warnings   []string   // what is probably not meant

	// Resource says what this host and agent are, as collectors are told. Whoever has compiled the plan sets it before Apply.
	Resource creel.Resource

	// Documents tells which document that a hub has handed out defines a collector, by its id. It is set like Resource.
	Documents map[string]Document
}

// Compile checks the sections collectors, processors, exporters and pipelines of a configuration against the plugins, and
// leaves out what is switched off on an agent with the given labels. The error is a config.Errors with all that is wrong. It opens nothing.
func Compile(root *config.Node, plugins []creel.Plugin, labels map[string]string) (*Plan, error) {
	c := &compiler{plugins: plugins, labels: labels, declared: make(map[creel.Kind]map[string]*declared)}
	for _, k := range []creel.Kind{creel.KindCollector, creel.KindProcessor, creel.KindExporter} {
		c.declared[k] = make(map[string]*declared)
		c.components(k, root.Get(Section(k)))
	}
	c.pipelines(root.Get("pipelines"))
	c.order()
	if len(c.errs) > 0 {
		c.errs.Sort()
		return nil, c.errs
	}
	return c.plan(), nil
}

// compiler gathers what the sections say.
type compiler struct {
	plugins  []creel.Plugin
	labels   map[string]string
	declared map[creel.Kind]map[string]*declared
	ids      map[creel.Kind][]string // in file order
	routes   []*route
	errs     config.Errors
}

type declared struct {
	Component
	node *config.Node
	on   bool
	used bool
}

// spooled reports whether an exporter has a disk queue; true if its options are wrong anyway.
func (d *declared) spooled() bool {
	return d.Options == nil || common[Sending](d.Component).Delivery.Spool != nil
}

type route struct {
	Pipeline
	node *config.Node
	on   bool
	mark int // of the walk that orders
}

func (c *compiler) components(k creel.Kind, section *config.Node) {
	if section == nil {
		return
	}
	if !section.IsMap() {
		c.errs = append(c.errs, section.Errorf("must be a map from ids to options, such as %q", exampleID(k)+": {}"))
		return
	}
	for id, node := range section.Entries() {
		name, _, named := strings.Cut(id, "/")
		if err := checkID(id, named); err != "" {
			c.errs = append(c.errs, node.KeyErrorf("%s", err))
			continue
		}
		p, known := c.plugin(k, name)
		if p == nil {
			e := node.KeyErrorf("there is no %s %q", k, name)
			e.Hint = config.DidYouMean(name, known)
			if e.Hint == "" {
				e.Hint = "known are " + strings.Join(known, ", ")
			}
			c.errs = append(c.errs, e)
			continue
		}
		schema := Schema(*p)
		options, errs := schema.Check(node)
		c.errs = append(c.errs, errs...)
		d := &declared{Component: Component{ID: id, Plugin: *p, Options: options}, node: node, on: true}
		if len(errs) == 0 {
			common, err := config.Decode[Common](config.Of[Common]().Pick(options))
			if err != nil {
				panic("BUG: checked options do not decode: " + err.Error())
			}
			d.on = common.Enabled.On(c.labels)
			d.refs = schema.Refs(options)
		}
		c.declared[k][id] = d
		if c.ids == nil {
			c.ids = make(map[creel.Kind][]string)
		}
		c.ids[k] = append(c.ids[k], id)
	}
}

func exampleID(k creel.Kind) string {
	return map[creel.Kind]string{creel.KindCollector: "host", creel.KindProcessor: "sample", creel.KindExporter: "debug"}[k]
}

func checkID(id string, named bool) string {
	ok := id != "" && !strings.HasPrefix(id, "/") && !(named && strings.HasSuffix(id, "/")) && strings.Count(id, "/") <= 1
	for _, r := range id {
		ok = ok && (r == '/' || r == '_' || r == '-' || r == '.' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z')
	}
	if ok && len(id) <= 128 {
		return ""
	}
	return fmt.Sprintf("%q is no id: write type or type/name, of letters, digits, '-', '_' and '.'", id)
}

func (c *compiler) plugin(k creel.Kind, name string) (*creel.Plugin, []string) {
	var known []string
	for i := range c.plugins {
		if c.plugins[i].Kind != k {
			continue
		}
		if c.plugins[i].Name == name {
			return &c.plugins[i], nil
		}
		known = append(known, c.plugins[i].Name)
	}
	slices.Sort(known)
	return nil, known
}

func (c *compiler) pipelines(section *config.Node) {
	if section == nil {
		return
	}
	if !section.IsMap() {
		c.errs = append(c.errs, section.Errorf("must be a map from ids to {from, through, to}"))
		return
	}
	for id, node := range section.Entries() {
		if err := checkID(id, false); err != "" {
			c.errs = append(c.errs, node.KeyErrorf("%s", err))
			continue
		}
		schema := config.Of[Route]()
		options, errs := schema.Check(node)
		c.errs = append(c.errs, errs...)
		if len(errs) > 0 {
			continue
		}
		o, err := config.Decode[Route](options)
		if err != nil {
			panic("BUG: checked options do not decode: " + err.Error())
		}
		r := &route{Pipeline: Pipeline{ID: id, Ack: o.Ack, Priority: o.Priority}, node: node, on: o.Enabled.On(c.labels)}
		r.From = c.names(r, creel.KindCollector, "from", o.From)
		r.Through = c.names(r, creel.KindProcessor, "through", o.Through)
		r.To = c.names(r, creel.KindExporter, "to", o.To)
		if level := ackLevels[o.Ack]; level >= ackProcess {
			for _, x := range r.To {
				if d := c.declared[creel.KindExporter][x]; !d.spooled() {
					c.errs = append(c.errs, node.Get("ack").Errorf("%s needs a disk queue at exporter %q: give it delivery: {spool: {}}", o.Ack, x))
				}
			}
		}
		for _, p := range r.Through {
			for _, ref := range c.declared[creel.KindProcessor][p].refs {
				if ref.Kind == "pipeline" && !slices.Contains(r.Outputs, ref.Name) {
					r.Outputs = append(r.Outputs, ref.Name)
				}
			}
		}
		if len(o.To) == 0 && len(r.Outputs) == 0 {
			c.errs = append(c.errs, node.Errorf("sends to nobody: name exporters in \"to\""))
		}
		c.routes = append(c.routes, r)
	}
}

// names checks the names in one list of a pipeline, and returns those that are switched on.
func (c *compiler) names(r *route, k creel.Kind, list string, names []string) []string {
	var on []string
	for i, name := range names {
		at := r.node
		if l := r.node.Get(list); l != nil && i < len(l.Items()) {
			at = l.Items()[i]
		}
		d := c.declared[k][name]
		switch {
		case d == nil:
			if section := c.declaredAnywhere(name); section != "" {
				c.errs = append(c.errs, at.Errorf("there is no %s %q; it stands in %s", k, name, section))
				continue
			}
			e := at.Errorf("there is no %s %q", k, name)
			e.Hint = config.DidYouMean(name, c.ids[k])
			c.errs = append(c.errs, e)
		case slices.Contains(names[:i], name):
			c.errs = append(c.errs, at.Errorf("%s %q is named twice", k, name))
		default:
			if r.on {
				d.used = true
			}
			if d.on {
				on = append(on, name)
			}
		}
	}
	return on
}

func (c *compiler) declaredAnywhere(id string) (section string) {
	for k := creel.KindCollector; k <= creel.KindExporter; k++ {
		if c.declared[k][id] != nil {
			return Section(k)
		}
	}
	return ""
}

func (c *compiler) route(id string) *route {
	for _, r := range c.routes {
		if r.ID == id {
			return r
		}
	}
	return nil
}

// order sorts the routes so that each stands before those that it sends to, and finds circles and unknown targets.
func (c *compiler) order() {
	const walking, done = 1, 2
	var sorted []*route
	var visit func(r *route, path []string)
	visit = func(r *route, path []string) {
		if r.mark == done {
			return
		}
		path = append(path, r.ID)
		if r.mark == walking {
			c.errs = append(c.errs, r.node.KeyErrorf("goes in a circle: %s", strings.Join(path, " → ")))
			return
		}
		r.mark = walking
		for _, id := range r.Outputs {
			to := c.route(id)
			if to == nil {
				c.errs = append(c.errs, r.node.KeyErrorf("sends to pipeline %q, which does not exist", id))
				continue
			}
			visit(to, path)
		}
		r.mark = done
		sorted = append(sorted, r)
	}
	for _, r := range slices.Backward(c.routes) {
		visit(r, nil)
	}
	slices.Reverse(sorted)
	c.routes = sorted
}

// plan leaves out what is switched off, and what then leads nowhere.
func (c *compiler) plan() *Plan {
	p := &Plan{}
	live := make(map[string]bool)
	for _, r := range slices.Backward(c.routes) { // targets first
		r.Outputs = slices.DeleteFunc(r.Outputs, func(id string) bool { return !live[id] })
		live[r.ID] = r.on && (len(r.To) > 0 || len(r.Outputs) > 0)
	}
	fed := make(map[string]bool)
	uses := make(map[string]bool)
	for _, r := range c.routes {
		if live[r.ID] && (len(r.From) > 0 || fed[r.ID]) {
			for _, id := range r.Outputs {
				fed[id] = true
			}
			p.Pipelines = append(p.Pipelines, r.Pipeline)
			for _, id := range r.From {
				uses["collectors."+id] = true
			}
			for _, id := range r.To {
				uses["exporters."+id] = true
			}
			for _, id := range r.Through {
				proc := c.declared[creel.KindProcessor][id].Component
				proc.Pipeline = r.ID
				p.Processors = append(p.Processors, proc)
			}
		} else if r.on {
			p.Warnings = append(p.Warnings, fmt.Sprintf("pipelines.%s does nothing: nobody feeds it, or all it sends to is switched off", r.ID))
		}
	}
	pick := func(k creel.Kind) (picked []Component) {
		for _, id := range c.ids[k] {
			d := c.declared[k][id]
			if uses[d.Path()] {
				picked = append(picked, d.Component)
			}
			if d.on && !d.used {
				p.Warnings = append(p.Warnings, fmt.Sprintf("%s is not used by any pipeline", d.Path()))
			}
		}
		return picked
	}
	p.Collectors, p.Exporters = pick(creel.KindCollector), pick(creel.KindExporter)
	for _, r := range p.Pipelines {
		c.warnOfWaiting(p, r)
	}
	for _, x := range p.Exporters {
		if d := common[Sending](x).Delivery; d.Spool != nil && d.Queue.WhenFull == dropOldest {
			p.Warnings = append(p.Warnings, fmt.Sprintf("%s drops what waits in memory for its disk queue, though there may be room on disk: leave delivery.queue.when_full out; "+
				"delivery.spool.when_full says what happens when the disk is full", x.Path()))
		}
	}
	pick(creel.KindProcessor) // for its warnings
	return p
}

// warnOfWaiting warns when processors hold records for longer than a collector's clients wait.
func (c *compiler) warnOfWaiting(p *Plan, r Pipeline) {
	for _, from := range r.From {
		patience := c.declared[creel.KindCollector][from].waits()
		for _, id := range r.Through {
			if held := c.declared[creel.KindProcessor][id].waits(); patience > 0 && held >= patience {
				p.Warnings = append(p.Warnings, fmt.Sprintf("pipelines.%s: processors.%s holds records for %v, and clients of collectors.%s send them again after %v: set ack: memory at the processor",
					r.ID, id, held, from, patience))
			}
		}
	}
}

func (d *declared) waits() time.Duration {
	if d.Plugin.Waits == nil {
		return 0
	}
	return d.Plugin.Waits(d.Plugin.Config.Pick(d.Options))
}

// Diff says what becomes of the components of a plan when another takes its place, by their keys: paths such as
// exporters.otlp/hub, and for a processor pipelines.web.parse/nginx. A component is reopened when its plugin or any of its
// options changes, but for what switches it on; who sends to it and where it sends does not matter. Collectors are also
// reopened when the plan's Resource changes.
func Diff(old, next *Plan) report.Change {
	var ch report.Change
	moved := !sameResource(old.Resource, next.Resource)
	before := make(map[string]Component)
	for c := range old.Components() {
		before[c.Key()] = c
	}
	for c := range next.Components() {
		b, ok := before[c.Key()]
		delete(before, c.Key())
		switch {
		case !ok:
			ch.Open = append(ch.Open, c.Key())
		case b.Plugin.Name == c.Plugin.Name && sameOptions(b, c) && !(moved && c.Plugin.Kind == creel.KindCollector):
			ch.Keep = append(ch.Keep, c.Key())
		default:
			ch.Reopen = append(ch.Reopen, c.Key())
		}
	}
	for c := range old.Components() {
		if _, gone := before[c.Key()]; gone {
			ch.Close = append(ch.Close, c.Key())
		}
	}
	return ch
}

// sameOptions reports whether two components have the same options, but for what switches them on.
func sameOptions(a, b Component) bool {
	if bytes.Equal(a.Options, b.Options) {
		return true
	}
	working := func(c Component) []byte { return workOptions(c.Plugin).Pick(c.Options) }
	return bytes.Equal(working(a), working(b))
}

func sameResource(a, b creel.Resource) bool {
	same := slices.EqualFunc(a.Attrs, b.Attrs, func(x, y creel.Attr) bool { return x.Key == y.Key && x.Value.Equal(y.Value) })
	a.Attrs, b.Attrs = nil, nil
	return same && reflect.DeepEqual(a, b)
}

// Components yields every node, exporters first.
func (p *Plan) Components() iter.Seq[Component] {
	return func(yield func(Component) bool) {
		for _, list := range [][]Component{p.Exporters, p.Processors, p.Collectors} {
			for _, c := range list {
				if !yield(c) {
					return
				}
			}
		}
	}
}
