// Package enrich is the processor that adds attributes to records and their resources: what is known of this machine and
// of containers, fixed values, environment variables, and what stands in tables.
//
// It adds what does not depend on what a record means; for the rest there are expressions in other processors.
package enrich

import (
	"context"
	_ "embed"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/expr"
	"github.com/creelhq/creel/metric"
)

//go:embed example.yaml
var example string

// Plugin is the processor enrich.
var Plugin = creel.NewProcessor("enrich", "Adds attributes: of the host and of containers, fixed ones, and from tables.", New).WithExample(example)

// Config is the processor's options.
type Config struct {
	Host      bool              `doc:"Add to resources what this agent knows of its host and its own labels: host.name, host.arch, os.type and so on." default:"false"`
	Container bool              `doc:"Add container.id to resources: of the process that their process.pid names, else of the agent's own. For records of this machine; Linux only." default:"false"`
	Static    Static            `doc:"Attributes with fixed values." optional:"true"`
	Env       map[string]string `doc:"Attributes of resources whose values are environment variables of the agent. What is not set is left out." optional:"true" example:"{k8s.node.name: NODE_NAME}"`
	Lookup    []Lookup          `doc:"Attributes from tables." optional:"true"`
	Where     expr.Condition    `doc:"Which records get attributes. All if absent." optional:"true" example:"resource[\"service.name\"] == \"shop\""`
	Overwrite bool              `doc:"Whether to replace what a record or resource already has." default:"false"`
	Reload    time.Duration     `doc:"How often to look whether a table's file has changed." default:"10s" min:"10ms"`
}

// Static is attributes with fixed values.
type Static struct {
	Resource   map[string]string `doc:"Attributes of resources." optional:"true" example:"{deployment.environment.name: production}"`
	Attributes map[string]string `doc:"Attributes of records." optional:"true" example:"{team: shop}"`
}

// Lookup adds what a row of a table says.
type Lookup struct {
	File            string            `doc:"A CSV file (RFC 4180); its first row names the columns. A change is taken over; if what is there then is wrong, what was read before stays." example:"/etc/creel/users.csv"`
	Key             expr.Expression   `doc:"What to look for." example:"attributes[\"user\"]"`
	Column          string            `doc:"Where to look for it. If there are several rows with it, the first one counts." example:"id"`
	Add             map[string]string `doc:"Attributes of the record to add, and the columns they are in. Empty cells are left out." example:"{user.team: team}"`
	CaseInsensitive bool              `doc:"Whether case does not matter." default:"false"`
	MaxSize         config.Size       `doc:"The largest file to take. It is kept in memory; twice while it is read anew." default:"64MiB"`
}

// enricher is the processor. It is immutable but for the tables and the cache of origins.
type enricher struct {
	resource   creel.Attrs // for all resources
	attributes creel.Attrs // for all records
	lookups    []*lookup
	where      expr.Condition
	overwrite  bool
	container  bool
	proc       string // where processes are: /proc
	own        string // the id of the container that the agent is in
	origins    originCache
}

// New returns the processor. A table that cannot be read is an error that names the file and the line.
func New(c Config, h creel.Host) (creel.Processor, error) {
	e := &enricher{where: c.Where, overwrite: c.Overwrite, container: c.Container, proc: "/proc"}
	for _, name := range slices.Sorted(maps.Keys(c.Static.Resource)) {
		e.resource = append(e.resource, creel.Attr{Key: name, Value: creel.String(c.Static.Resource[name])})
	}
	for _, name := range slices.Sorted(maps.Keys(c.Env)) {
		if v, ok := os.LookupEnv(c.Env[name]); ok {
			e.resource = append(e.resource, creel.Attr{Key: name, Value: creel.String(v)})
		} else {
			h.Log.Warn("environment variable is not set", "variable", c.Env[name], "attribute", name)
		}
	}
	if c.Host {
		for _, a := range h.Resource.Attrs {
			if !strings.HasPrefix(a.Key, "creel.") {
				e.resource = append(e.resource, a)
			}
		}
	}
	if c.Container {
		e.own = containerOf(e.proc, "self")
	}
	for _, name := range slices.Sorted(maps.Keys(c.Static.Attributes)) {
		e.attributes = append(e.attributes, creel.Attr{Key: name, Value: creel.String(c.Static.Attributes[name])})
	}
	if len(c.Lookup) == 0 {
		return e, nil
	}
	r := &refresher{
		enricher: e, every: c.Reload, log: h.Log,
		failed: h.Metrics.Counter("creel.enrich.reload_failures", "Changed tables that could not be read.", "{read}"),
	}
	for i := range c.Lookup {
		missed := h.Metrics.Sub(metric.Label{Name: "file", Value: c.Lookup[i].File}).Counter("creel.enrich.missed", "Keys that were in no row.", "{record}")
		l, err := newLookup(c.Lookup[i], missed)
		if err != nil {
			return nil, fmt.Errorf("lookup %d: %w", i+1, err)
		}
		e.lookups = append(e.lookups, l)
	}
	return r, nil
}

// Process adds attributes to b's records. If there is nothing to add, b stays as it is, its wire bytes included.
func (e *enricher) Process(_ context.Context, b *creel.Batch, next creel.Next) error {
	w := work{enricher: e}
	expr.Rewrite(b, func(rec *expr.Record) bool {
		w.rec = rec
		return (w.where.IsZero() || w.where.Match(rec)) && w.record()
	})
	next.Send(b)
	return nil
}

// work is one call of Process. As long as rec has no Memory it changes nothing, and tells what it would.
type work struct {
	*enricher
	rec      *expr.Record
	from, to *creel.Origin // the last one, and what becomes of it
	text     []byte        // of keys
	missed   []*lookup     // that have no row for this record
}

// record adds to one record, and reports whether there is something to add.
func (w *work) record() bool {
	o := originOf(w.rec)
	if *o != w.from {
		w.from, w.to = *o, w.origin(*o)
	}
	added := false
	if w.to != *o {
		if added = true; w.rec.Memory == nil {
			return true
		}
		*o = w.to
	}
	as, _ := w.rec.Attrs()
	for i := range w.attributes {
		if w.add(as, w.attributes[i].Key, w.attributes[i].Value) {
			if added = true; w.rec.Memory == nil {
				return true
			}
		}
	}
	w.missed = w.missed[:0]
	for _, l := range w.lookups {
		cells, found := l.cells(w)
		if !found {
			w.missed = append(w.missed, l)
		}
		for i, cell := range cells {
			if cell != "" && w.add(as, l.names[i], creel.String(cell)) {
				if added = true; w.rec.Memory == nil {
					return true
				}
			}
		}
	}
	for _, l := range w.missed { // not earlier: a record with something to add is looked at twice
		l.missed.Inc()
	}
	return added
}

// add adds an attribute to those of a record, and reports whether it is to be added.
func (w *work) add(as *creel.Attrs, key string, v creel.Value) bool {
	if is, ok := as.Get(key); ok && (!w.overwrite || is.Equal(v)) {
		return false
	}
	if w.rec.Memory != nil {
		*as = w.rec.Memory.Extend(*as, 1)
		as.Set(key, v)
	}
	return true
}

func originOf(rec *expr.Record) **creel.Origin {
	switch {
	case rec.Log != nil:
		return &rec.Log.Origin
	case rec.Metric != nil:
		return &rec.Metric.Origin
	}
	return &rec.Span.Origin
}
