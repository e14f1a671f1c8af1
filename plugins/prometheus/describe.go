package prometheus

import (
	"slices"
	"strings"

	"github.com/creelhq/creel"
)

const scopeName = "github.com/creelhq/creel/plugins/prometheus"

// descKey is what makes a descriptor.
type descKey struct {
	name, kind, help, unit string
	open                   bool
}

// described is a descriptor, and the collector's round in which it was used last.
type described struct {
	desc  creel.Descriptor
	round uint32
}

// descriptor returns the descriptor of f's points. All targets share one, from one round to the next.
func (c *converter) descriptor(f *family) *creel.Descriptor {
	if f.desc != nil {
		return f.desc
	}
	key := descKey{f.name, f.kind, f.help, f.unit, c.parser.open}
	known := c.descs[key]
	if known == nil {
		key = descKey{strings.Clone(f.name), f.kind, strings.Clone(f.help), strings.Clone(f.unit), key.open}
		known = &described{desc: newDescriptor(key)}
		c.descs[key] = known
	}
	known.round = c.round
	f.desc = &known.desc
	return f.desc
}

// forget drops descriptors that are not used any more.
func (c *converter) forget() {
	for key, d := range c.descs {
		if d.round != c.round {
			delete(c.descs, key)
		}
	}
}

func newDescriptor(k descKey) creel.Descriptor {
	d := creel.Descriptor{Name: k.name, Description: k.help, Unit: unitOf(k.unit), Kind: creel.Gauge}
	d.Metadata = creel.Attrs{{Key: "prometheus.type", Value: creel.String(k.kind)}}
	suffix := ""
	switch k.kind {
	case typeCounter:
		d.Kind, d.Monotonic, suffix = creel.Sum, true, "_total"
	case typeInfo:
		d.Kind, suffix = creel.Sum, "_info"
	case typeStateSet:
		d.Kind = creel.Sum
	case typeHistogram:
		d.Kind = creel.HistogramKind
	case typeSummary:
		d.Kind = creel.SummaryKind
	}
	if d.Kind == creel.Sum || d.Kind == creel.HistogramKind {
		d.Temporality = creel.Cumulative
	}
	if k.open && !strings.HasSuffix(d.Name, suffix) { // OpenMetrics names the family without it, and the samples with it
		d.Name += suffix
	}
	return d
}

// unitOf translates a unit that OpenMetrics writes out into what OpenTelemetry has for it (UCUM).
func unitOf(unit string) string {
	if amount, per, ok := strings.Cut(unit, "_per_"); ok {
		if short, ok := units[per+"s"]; ok { // what it is divided by is in the singular
			per = short
		}
		return unitOf(amount) + "/" + per
	}
	if short, ok := units[unit]; ok {
		return short
	}
	return unit
}

var units = map[string]string{
	"days": "d", "hours": "h", "minutes": "min", "seconds": "s", "milliseconds": "ms", "microseconds": "us", "nanoseconds": "ns",
	"bytes": "By", "kibibytes": "KiBy", "mebibytes": "MiBy", "gibibytes": "GiBy", "kilobytes": "KBy", "megabytes": "MBy", "gigabytes": "GBy",
	"meters": "m", "volts": "V", "amperes": "A", "joules": "J", "watts": "W", "grams": "g", "celsius": "Cel", "hertz": "Hz",
	"percent": "%", "ratio": "1",
}

// variant is what labels of a series say of where it comes from, instead of the target.
type variant struct{ job, instance, scope, version string }

// attrs returns the attributes of a point with the given labels: these but for skip, and the target's own. Where both have one,
// the target's is the one that counts and the other is called exported_, unless honor_labels is set. The origin is nil if it is
// that of the target.
func (c *converter) attrs(labels []label, skip string) (creel.Attrs, *creel.Origin) {
	own, honor := c.target.labels, c.options.HonorLabels
	list := creel.Attrs(c.records.Attrs.Make(len(labels) + len(own))[:0])
	var v variant
	for i := range labels {
		l := labels[i]
		if l.value == "" || l.name == skip {
			continue
		}
		switch l.name {
		case "otel_scope_name":
			v.scope = l.value
			continue
		case "otel_scope_version":
			v.version = l.value
			continue
		case "job", "instance":
			if !honor {
				l.name = exported(l.name, labels, own)
				break
			}
			if l.name == "job" {
				v.job = l.value
			} else {
				v.instance = l.value
			}
			continue
		default:
			if len(own) > 0 && !honor {
				if _, taken := own.Get(l.name); taken {
					l.name = exported(l.name, labels, own)
				}
			}
		}
		list = append(list, creel.Attr{Key: l.name, Value: creel.String(l.value)})
	}
	scraped := list
	for _, a := range own {
		if honor {
			if _, taken := scraped.Get(a.Key); taken {
				continue
			}
		}
		list = append(list, a)
	}
	if v == (variant{}) {
		return list, nil
	}
	return list, c.target.variant(v)
}

// exported returns what a label is called that the target's own stands in the way of.
func exported(name string, labels []label, own creel.Attrs) string {
	taken := func() bool {
		_, ours := own.Get(name)
		return ours || slices.ContainsFunc(labels, func(l label) bool { return l.name == name })
	}
	for name = "exported_" + name; taken(); name = "exported_" + name {
	}
	return name
}

// maxVariants bounds the origins of one target, whose labels may say anything.
const maxVariants = 1000

// variant returns the origin of series that do not say that they come from the target itself.
func (t *target) variant(v variant) *creel.Origin {
	if o := t.origins[v]; o != nil {
		return o
	}
	if t.origins == nil || len(t.origins) >= maxVariants {
		t.origins = make(map[variant]*creel.Origin)
	}
	v = variant{strings.Clone(v.job), strings.Clone(v.instance), strings.Clone(v.scope), strings.Clone(v.version)}
	o := &creel.Origin{Resource: creel.Resource{Attrs: slices.Clone(t.origin.Resource.Attrs)}, Scope: t.origin.Scope}
	if v.job != "" {
		o.Resource.Attrs.Set("service.name", creel.String(v.job))
	}
	if v.instance != "" {
		o.Resource.Attrs.Set("service.instance.id", creel.String(v.instance))
	}
	if v.scope != "" || v.version != "" {
		o.Scope = creel.Scope{Name: v.scope, Version: v.version}
	}
	t.origins[v] = o
	return o
}

// describe takes the labels of target_info as attributes of the resource.
func (t *target) describe(p *parser, o *Config) {
	if p.raw == t.info {
		return
	}
	t.info = strings.Clone(p.raw)
	attrs := slices.Clone(t.plain.Resource.Attrs)
	for _, l := range p.labels {
		if l.value == "" || l.name == "job" || l.name == "instance" {
			continue
		}
		if _, taken := attrs.Get(l.name); !taken {
			attrs = append(attrs, creel.Attr{Key: strings.Clone(l.name), Value: creel.String(strings.Clone(l.value))})
		}
	}
	t.origin = &creel.Origin{Resource: creel.Resource{Attrs: attrs}, Scope: t.plain.Scope}
	t.origins = nil
}
