// Package redact is the processor that replaces what must not be seen: card numbers, mail addresses, credentials, text
// that fits a pattern, and the values of attributes with certain names.
//
// It looks at text wherever a record holds some. It must not know what the records mean, nor where they go.
package redact

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/expr"
	"github.com/creelhq/creel/metric"
)

//go:embed example.yaml
var example string

// Plugin is the processor redact.
var Plugin = creel.NewProcessor("redact", "Replaces card numbers, mail addresses, credentials and whatever else must not be seen.", New).WithExample(example)

// Config is the processor's options.
type Config struct {
	Detect   []string       `doc:"What is found by itself. cards: 13 to 19 digits with a right check digit. tokens: JSON Web Tokens, bearer and basic authorization, keys of AWS, GitHub, GitLab, Google, Slack, Stripe and npm, passwords in URLs. private_keys: blocks of PEM within one text. passwords: the value after a name such as password or api_key and = or a colon." default:"cards, mails, tokens, private_keys" enum:"cards|mails|tokens|private_keys|passwords|ips"`
	Patterns []NamedPattern `doc:"What else is to be replaced." optional:"true" example:"[{name: order, pattern: 'ORD-[0-9]{8}'}]"`
	Keys     []string       `doc:"Attributes, and entries of maps, whose values are replaced whatever they are. * stands for any text; case does not matter." optional:"true" example:"[password, authorization, '*secret*']"`
	Fields   []Field        `doc:"Where to look: body, attributes, resource, name (of spans), or a place such as attributes[\"url.query\"]. Everywhere if absent." optional:"true" example:"[body]"`
	Where    expr.Condition `doc:"Which records are looked at. All if absent." optional:"true" example:"resource[\"service.name\"] == \"shop\""`
	Replace  string         `doc:"What takes the place of what is found. mask: its kind, [card] say, or *** for an attribute. hash: its kind and 16 digits of its SHA-256 with salt, so that what was the same still is. remove: nothing." default:"mask" enum:"mask|hash|remove"`
	Salt     string         `doc:"A secret that goes into hashes: without it, short texts can be found by trying all. The same salt gives the same hashes everywhere." optional:"true" secret:"true"`
}

// NamedPattern is a pattern and what is written in place of its matches.
type NamedPattern struct {
	Name    string  `doc:"Stands in brackets where a match was, and in the counter's label." example:"order"`
	Pattern Pattern `doc:"A regular expression (RE2)." example:"ORD-[0-9]{8}"`
}

// Validate checks what no tag can say.
func (c *Config) Validate() error {
	if c.Replace == "hash" && c.Salt == "" {
		return config.FieldError("salt", errors.New("is needed for replace: hash, else short texts can be found by trying all"))
	}
	names := append(kindNames(), keyKind)
	for _, p := range c.Patterns {
		if p.Name == "" || len(p.Name) > maxKind || strings.Trim(p.Name, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
			return config.FieldError("patterns", fmt.Errorf("the name %q must be made of 1 to %d lower case letters, digits and _", p.Name, maxKind))
		}
		if slices.Contains(names, p.Name) {
			return config.FieldError("patterns", fmt.Errorf("the name %q is taken", p.Name))
		}
		names = append(names, p.Name)
	}
	return nil
}

// maxProgram bounds a pattern's compiled size, in instructions: matching costs as much for each byte at worst.
const maxProgram = 2000

// Pattern is a regular expression (RE2) of limited size.
type Pattern struct{ re *regexp.Regexp }

// UnmarshalText compiles text.
func (p *Pattern) UnmarshalText(text []byte) error {
	re, err := regexp.Compile(string(text))
	if err != nil {
		return fmt.Errorf("must be a regular expression: %w", err)
	}
	parsed, err := syntax.Parse(string(text), syntax.Perl)
	if err != nil {
		return fmt.Errorf("must be a regular expression: %w", err)
	}
	prog, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return fmt.Errorf("compile pattern: %w", err)
	}
	if n := len(prog.Inst); n > maxProgram {
		return fmt.Errorf("is too large: it compiles to %d instructions, at most %d are allowed", n, maxProgram)
	}
	if re.MatchString("") {
		return errors.New("matches nothing at all; write + for *, say")
	}
	p.re = re
	return nil
}

// MarshalText returns the text that p was made from.
func (p Pattern) MarshalText() ([]byte, error) {
	if p.re == nil {
		return nil, nil
	}
	return []byte(p.re.String()), nil
}

// Field is a part of a record to look at.
type Field struct {
	word   string // body, attributes, resource or name: all of it
	target expr.Target
}

// UnmarshalText reads the name of a part, or a place.
func (f *Field) UnmarshalText(text []byte) (err error) {
	switch s := string(text); s {
	case "body", "attributes", "resource", "name":
		f.word = s
		return nil
	default:
		f.target, err = expr.ParseTarget(s)
		return err
	}
}

// MarshalText returns the text that f was made from.
func (f Field) MarshalText() ([]byte, error) {
	if f.word != "" {
		return []byte(f.word), nil
	}
	return f.target.MarshalText()
}

// redactor is the processor. It is immutable.
type redactor struct {
	detectors
	patterns []*regexp.Regexp // patterns[i] is for kinds[firstPattern+i]
	keys     []glob
	where    expr.Condition

	body, attributes, resource, name bool
	others                           bool // what no Field names: a span's status, say
	places                           []expr.Target

	replace string
	salt    string
	counted []*metric.Counter // by kind
}

// New returns the processor.
func New(c Config, h creel.Host) (creel.Processor, error) {
	r := &redactor{detectors: newDetectors(c.Detect), where: c.Where, replace: c.Replace, salt: c.Salt}
	if len(c.Fields) == 0 {
		r.body, r.attributes, r.resource, r.name, r.others = true, true, true, true, true
	}
	for _, p := range c.Patterns {
		r.kinds = append(r.kinds, p.Name)
		r.patterns = append(r.patterns, p.Pattern.re)
	}
	for _, k := range c.Keys {
		r.keys = append(r.keys, glob(k))
	}
	for _, f := range c.Fields {
		switch f.word {
		case "body":
			r.body = true
		case "attributes":
			r.attributes = true
		case "resource":
			r.resource = true
		case "name":
			r.name = true
		default:
			r.places = append(r.places, f.target)
		}
	}
	for _, k := range r.kinds {
		set := h.Metrics.Sub(metric.Label{Name: "kind", Value: k})
		r.counted = append(r.counted, set.Counter("creel.redact.replaced", "Places where text was replaced.", "{place}"))
	}
	return r, nil
}

// Process replaces what is found. A batch in which nothing is found stays as it is, its wire bytes included.
func (r *redactor) Process(_ context.Context, b *creel.Batch, next creel.Next) error {
	w := work{redactor: r}
	expr.Rewrite(b, func(rec *expr.Record) bool {
		w.rec = rec
		return (w.where.IsZero() || w.where.Match(rec)) && w.record()
	})
	next.Send(b)
	return nil
}

// work is one call of Process. As long as rec has no Memory it changes nothing, and tells what it would.
type work struct {
	*redactor
	rec      *expr.Record
	from, to *creel.Origin // the last one, and what becomes of it
}
