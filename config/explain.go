package config

import (
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"
	"unicode/utf8"
)

// Explain writes help about the options, for a terminal. Where it fails is for w to remember.
func (s Schema) Explain(w io.Writer) { explain(w, s.Fields(), "") }

// Explain writes help about one option and those in it.
func (f Field) Explain(w io.Writer) {
	explain(w, []Field{f}, "")
}

func explain(w io.Writer, fields []Field, indent string) {
	for _, f := range fields {
		fmt.Fprintf(w, "%s%s  %s\n", indent, f.Name, f.facts())
		wrap(w, f.Doc, indent+"    ")
		if f.Example != "" {
			fmt.Fprintf(w, "%s    Example: %s: %s\n", indent, f.Name, f.Example)
		}
		explain(w, f.Fields, indent+"    ")
	}
}

// lineWidth is how long the lines of help are, in characters, if words allow.
const lineWidth = 100

// wrap writes text in lines.
func wrap(w io.Writer, text, indent string) {
	n := 0
	for _, word := range strings.Fields(text) {
		switch size := utf8.RuneCountInString(word); {
		case n == 0:
			n = len(indent) + size
			io.WriteString(w, indent+word)
		case n+1+size > lineWidth:
			n = len(indent) + size
			io.WriteString(w, "\n"+indent+word)
		default:
			n += 1 + size
			io.WriteString(w, " "+word)
		}
	}
	io.WriteString(w, "\n")
}

// facts says everything but the doc in one line.
func (f Field) facts() string {
	facts := []string{f.Type}
	if len(f.Enum) > 0 {
		facts[0] = f.Type[:strings.LastIndexByte(f.Type, ' ')+1] + strings.Join(f.Enum, "|")
	}
	switch {
	case f.Required:
		facts = append(facts, "required")
	case f.Default != "":
		facts = append(facts, "default "+f.Default)
	}
	if f.Min != "" {
		facts = append(facts, "at least "+f.Min)
	}
	if f.Max != "" {
		facts = append(facts, "at most "+f.Max)
	}
	if f.Ref != "" {
		facts = append(facts, "names a "+f.Ref)
	}
	if f.Secret {
		facts = append(facts, "secret")
	}
	return strings.Join(facts, ", ")
}

// Markdown writes the options as a table for a reference page.
func (s Schema) Markdown(w io.Writer) {
	fmt.Fprintln(w, "| option | type | what it is |\n|---|---|---|")
	markdown(w, s.Fields(), "")
}

func markdown(w io.Writer, fields []Field, prefix string) {
	for _, f := range fields {
		doc := f.Doc
		if f.Example != "" {
			doc += " Example: `" + f.Example + "`."
		}
		fmt.Fprintf(w, "| `%s%s` | %s | %s |\n", prefix, f.Name, cell(f.facts()), cell(doc))
		markdown(w, f.Fields, prefix+f.Name+".")
	}
}

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

// JSONSchema returns the options as a JSON Schema (draft 2020-12) of an object.
func (s Schema) JSONSchema() map[string]any {
	var fields []*field
	for _, o := range s.parts {
		fields = append(fields, o.fields...)
	}
	return objectSchema(fields)
}

func objectSchema(fields []*field) map[string]any {
	properties, required := map[string]any{}, []any{}
	for _, f := range fields {
		js := f.shape.jsonSchema(&f.Field)
		js["description"] = f.Doc
		if f.hasDef {
			js["default"] = f.defaultJSON()
		}
		if !f.Required && f.shape.kind != rawShape { // nothing is as good as absent
			js = map[string]any{"description": f.Doc, "anyOf": []any{js, map[string]any{"type": "null"}}}
		}
		properties[f.Name] = js
		if f.Required {
			required = append(required, f.Name)
		}
	}
	js := map[string]any{"type": []any{"object", "null"}, "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		js["required"] = required
		js["type"] = "object"
	}
	return js
}

// What the texts of units look like. Check knows better; these are for an editor.
const (
	durationPattern = `^(-?0|[0-9]+d|([0-9]+d|-)?([0-9]*\.?[0-9]+(ns|us|µs|ms|s|m|h))+)$`
	sizePattern     = `^[0-9]*\.?[0-9]+(e[0-9]+)? *([TGMKk]i?B|B)?$`
	ratePattern     = `^[0-9]*\.?[0-9]+(e[+-]?[0-9]+)? */ *[smh]$`
)

// jsonSchema describes what may stand here.
func (s *shape) jsonSchema(f *Field) map[string]any {
	switch s.kind {
	case rawShape:
		return map[string]any{}
	case objectShape, pointerShape:
		return objectSchema(s.object.fields)
	case listShape:
		item := s.elem.jsonSchema(f)
		ways := []any{map[string]any{"type": "array", "items": item}}
		if s.elem.isScalar() {
			ways = append(ways, item)
		}
		if s.elem.entry() != nil {
			ways = append(ways, map[string]any{"type": "object", "additionalProperties": map[string]any{"type": []any{"string", "number", "boolean"}}})
		}
		if len(ways) == 1 {
			return ways[0].(map[string]any)
		}
		return map[string]any{"anyOf": ways}
	case dictShape:
		return map[string]any{"type": []any{"object", "null"}, "additionalProperties": s.elem.jsonSchema(f)}
	}
	js := map[string]any{}
	switch {
	case s.kind == boolShape:
		js["type"] = "boolean"
	case s.kind == intShape || s.kind == uintShape:
		js["type"] = "integer"
	case s.kind == floatShape:
		js["type"] = "number"
	case s.kind == durationShape:
		js["type"], js["pattern"] = "string", durationPattern
	case s.typ == sizeType:
		js["type"], js["pattern"] = []any{"string", "integer"}, sizePattern
	case s.typ == rateType:
		js["type"], js["pattern"] = "string", ratePattern
	default:
		js["type"] = []any{"string", "number", "boolean"} // YAML's plain scalars
	}
	if len(f.Enum) > 0 {
		enum := make([]any, len(f.Enum))
		for i, e := range f.Enum {
			enum[i] = e
		}
		js = map[string]any{"enum": enum}
	}
	if s.kind != durationShape && s.typ != rateType { // their bounds are no JSON numbers
		for name, bound := range map[string]string{"minimum": f.Min, "maximum": f.Max} {
			if bound != "" {
				js[name] = must(s.measure(bound))
			}
		}
	}
	return withReference(js)
}

// withReference also allows a reference such as ${env:PORT}, which may stand for any scalar.
func withReference(js map[string]any) map[string]any {
	return map[string]any{"anyOf": []any{js, map[string]any{"type": "string", "pattern": `^\$\{`}}}
}

// defaultJSON is the default as a JSON value.
func (f *field) defaultJSON() any {
	d := decoder{errs: new(Errors)}
	text := d.field(reflect.New(f.shape.typ).Elem(), f, f.defaultNode(&Node{}, f.Name), nil)
	return json.RawMessage(text)
}
