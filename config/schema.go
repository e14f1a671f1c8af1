package config

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// A Schema describes options: those of a struct's fields, or of several structs joined. The zero Schema has none. It is
// immutable.
//
// Fields are described by tags: doc (what it is for; every field has one), default, optional, min, max, enum (a|b|c),
// secret, ref (the kind of thing it names), example, name (if the derived one, max_age for MaxAge, does not do). A field
// with neither a default nor optional is required. Types are strings, numbers, booleans, time.Duration, Size, Rate,
// whatever has UnmarshalText and MarshalText (and is called what Named says), structs, pointers to structs (nil when
// absent), slices, maps from strings, and json.RawMessage for what is free.
type Schema struct{ parts []*object }

// Named is a type with UnmarshalText that help has a name for, such as size; without one it is a string.
type Named interface{ TypeName() string }

// A Field describes one option.
type Field struct {
	Name     string
	Doc      string
	Type     string // such as duration, list of string, map of object
	Default  string // as written; "" if there is none
	Required bool
	Secret   bool
	Min, Max string
	Enum     []string
	Example  string
	Ref      string  // the kind of what it names
	Fields   []Field // of an object, or of the objects in a list or map
}

// object is a struct's options.
type object struct {
	typ    reflect.Type
	fields []*field
}

type field struct {
	Field
	index  []int
	shape  *shape
	hasDef bool
}

// shape is what may stand somewhere.
type shape struct {
	kind   shapeKind
	typ    reflect.Type
	elem   *shape  // of lists and maps
	object *object // of objects
}

type shapeKind uint8

const (
	boolShape shapeKind = iota
	intShape
	uintShape
	floatShape
	stringShape
	durationShape
	textShape // has UnmarshalText
	rawShape
	listShape
	dictShape
	objectShape
	pointerShape // to an object
)

var (
	durationType      = reflect.TypeFor[time.Duration]()
	rawType           = reflect.TypeFor[json.RawMessage]()
	sizeType          = reflect.TypeFor[Size]()
	rateType          = reflect.TypeFor[Rate]()
	unmarshalTextType = reflect.TypeFor[encoding.TextUnmarshaler]()
	marshalTextType   = reflect.TypeFor[encoding.TextMarshaler]()
)

// Of returns the Schema of a struct type. It panics if the struct's tags are wrong: that is a bug.
func Of[C any]() Schema {
	t := reflect.TypeFor[C]()
	if t.Kind() != reflect.Struct {
		panic(fmt.Sprintf("BUG: options must be a struct, not %v", t))
	}
	return Schema{[]*object{newObject(t, nil)}}
}

// Join returns the Schema of all parts' options, which stand in one map.
func Join(parts ...Schema) Schema {
	var s Schema
	seen := make(map[string]bool)
	for _, p := range parts {
		for _, o := range p.parts {
			for _, f := range o.fields {
				if seen[f.Name] {
					panic(fmt.Sprintf("BUG: two options are called %q", f.Name))
				}
				seen[f.Name] = true
			}
			s.parts = append(s.parts, o)
		}
	}
	return s
}

func newObject(t reflect.Type, inside []reflect.Type) *object {
	if slices.Contains(inside, t) {
		panic(fmt.Sprintf("BUG: %v contains itself", t))
	}
	inside = append(slices.Clone(inside), t)
	o := &object{typ: t}
	for i := range t.NumField() {
		sf := t.Field(i)
		switch {
		case sf.Anonymous && sf.Type.Kind() == reflect.Struct:
			for _, f := range newObject(sf.Type, inside).fields {
				f.index = append([]int{i}, f.index...)
				o.fields = append(o.fields, f)
			}
		case sf.IsExported():
			o.fields = append(o.fields, newField(t, sf, inside))
		}
	}
	seen := make(map[string]bool)
	for _, f := range o.fields {
		if seen[f.Name] {
			panic(fmt.Sprintf("BUG: %v has two options %q", t, f.Name))
		}
		seen[f.Name] = true
	}
	return o
}

func newField(t reflect.Type, sf reflect.StructField, inside []reflect.Type) *field {
	bug := func(format string, args ...any) {
		panic(fmt.Sprintf("BUG: field %s of %v: ", sf.Name, t) + fmt.Sprintf(format, args...))
	}
	f := &field{index: sf.Index, shape: newShape(sf.Type, inside, bug)}
	tag := sf.Tag
	f.Name, f.Doc, f.Min, f.Max, f.Example, f.Ref = tag.Get("name"), tag.Get("doc"), tag.Get("min"), tag.Get("max"), tag.Get("example"), tag.Get("ref")
	if f.Name == "" {
		f.Name = snake(sf.Name)
	}
	if f.Doc == "" {
		bug("has no doc")
	}
	f.Type = f.shape.String()
	f.Default, f.hasDef = tag.Lookup("default")
	_, optional := tag.Lookup("optional")
	_, f.Secret = tag.Lookup("secret")
	if e := tag.Get("enum"); e != "" {
		f.Enum = strings.Split(e, "|")
	}
	o := f.shape.innerObject()
	if o != nil {
		f.Fields = o.public()
	}
	f.Required = !f.hasDef && !optional && f.shape.kind != objectShape && f.shape.kind != pointerShape
	for _, bound := range []string{f.Min, f.Max} {
		if _, err := f.shape.measure(bound); bound != "" && err != nil {
			bug("bound: %v", err)
		}
	}
	if f.hasDef {
		var errs Errors
		d := decoder{errs: &errs}
		d.field(reflect.New(t).Elem().FieldByIndex(f.index), f, f.defaultNode(&Node{}, f.Name), nil)
		if len(errs) > 0 {
			bug("default: %v", errs)
		}
	}
	return f
}

func newShape(t reflect.Type, inside []reflect.Type, bug func(string, ...any)) *shape {
	s := &shape{typ: t}
	switch {
	case t == durationType:
		s.kind = durationShape
	case t == rawType:
		s.kind = rawShape
	case reflect.PointerTo(t).Implements(unmarshalTextType):
		if !t.Implements(marshalTextType) {
			bug("%v has UnmarshalText but no MarshalText", t)
		}
		s.kind = textShape
	case t.Kind() == reflect.Pointer && t.Elem().Kind() == reflect.Struct:
		s.kind, s.object = pointerShape, newObject(t.Elem(), inside)
	case t.Kind() == reflect.Struct:
		s.kind, s.object = objectShape, newObject(t, inside)
	case t.Kind() == reflect.Slice:
		s.kind, s.elem = listShape, newShape(t.Elem(), inside, bug)
	case t.Kind() == reflect.Map && t.Key().Kind() == reflect.String:
		s.kind, s.elem = dictShape, newShape(t.Elem(), inside, bug)
	case t.Kind() == reflect.Bool:
		s.kind = boolShape
	case t.Kind() == reflect.String:
		s.kind = stringShape
	case t.Kind() >= reflect.Int && t.Kind() <= reflect.Int64:
		s.kind = intShape
	case t.Kind() >= reflect.Uint && t.Kind() <= reflect.Uint64:
		s.kind = uintShape
	case t.Kind() == reflect.Float32 || t.Kind() == reflect.Float64:
		s.kind = floatShape
	default:
		bug("options cannot be of type %v", t)
	}
	return s
}

// String names the shape as help does.
func (s *shape) String() string {
	switch s.kind {
	case boolShape:
		return "boolean"
	case intShape, uintShape:
		return "integer"
	case floatShape:
		return "number"
	case durationShape:
		return "duration"
	case rawShape:
		return "anything"
	case listShape:
		return "list of " + s.elem.String()
	case dictShape:
		return "map of " + s.elem.String()
	case objectShape, pointerShape:
		return "object"
	case textShape:
		if n, ok := reflect.Zero(s.typ).Interface().(Named); ok {
			return n.TypeName()
		}
	}
	return "string"
}

// isScalar reports whether a scalar may stand here.
func (s *shape) isScalar() bool {
	switch s.kind {
	case rawShape, listShape, dictShape, objectShape, pointerShape:
		return false
	}
	return true
}

// takesScalar reports whether a scalar may be written here.
func (s *shape) takesScalar() bool {
	return s.isScalar() || s.kind == rawShape || s.kind == listShape && s.elem.isScalar()
}

// entry returns the shape's Entry, nil if it has none.
func (s *shape) entry() Entry {
	e, _ := reflect.Zero(s.typ).Interface().(Entry)
	return e
}

// innerObject returns the object that stands here, or in the list or map that does.
func (s *shape) innerObject() *object {
	for s.elem != nil {
		s = s.elem
	}
	return s.object
}

// measure returns a number to compare with bounds, which hold for every item of a list or map.
func (s *shape) measure(text string) (float64, error) {
	for s.elem != nil {
		s = s.elem
	}
	switch {
	case s.kind == durationShape:
		d, err := ParseDuration(text)
		return float64(d), err
	case s.typ == sizeType:
		var n Size
		err := n.UnmarshalText([]byte(text))
		return float64(n), err
	case s.typ == rateType:
		var n Rate
		err := n.UnmarshalText([]byte(text))
		return float64(n), err
	case s.kind == intShape, s.kind == uintShape, s.kind == floatShape:
		return strconv.ParseFloat(text, 64)
	}
	return 0, fmt.Errorf("a %v has no least and most", s)
}

// snake returns max_age for MaxAge, tls for TLS, ca_file for CAFile.
func snake(name string) string {
	var s strings.Builder
	rs := []rune(name)
	for i, r := range rs {
		if unicode.IsUpper(r) && i > 0 && (unicode.IsLower(rs[i-1]) || unicode.IsDigit(rs[i-1]) || i+1 < len(rs) && unicode.IsLower(rs[i+1])) {
			s.WriteByte('_')
		}
		s.WriteRune(unicode.ToLower(r))
	}
	return s.String()
}

func (o *object) public() []Field {
	fields := make([]Field, len(o.fields))
	for i, f := range o.fields {
		fields[i] = f.Field
	}
	return fields
}

// Fields describes the options, in their order.
func (s Schema) Fields() []Field {
	var fields []Field
	for _, o := range s.parts {
		fields = append(fields, o.public()...)
	}
	return fields
}

// Lookup finds the option that a path such as delivery.batch leads to.
func (s Schema) Lookup(path string) (Field, bool) {
	fields := s.Fields()
	for {
		name, rest, more := strings.Cut(path, ".")
		i := slices.IndexFunc(fields, func(f Field) bool { return f.Name == name })
		if i < 0 {
			return Field{}, false
		}
		if !more {
			return fields[i], true
		}
		fields, path = fields[i].Fields, rest
	}
}

// A Ref is a name that options give of something else.
type Ref struct {
	Kind, Name, Path string // Path leads from the options to the name
}

// Refs returns the names in options tagged ref. canonical is what Check returned.
func (s Schema) Refs(canonical []byte) []Ref {
	var refs []Ref
	s.walk(canonical, func(f *Field, n *Node) {
		if f.Ref == "" {
			return
		}
		for _, leaf := range leaves(n) {
			refs = append(refs, Ref{f.Ref, leaf.text, leaf.path})
		}
	})
	return refs
}

func leaves(n *Node) (list []*Node) {
	if n.kind == scalarNode {
		return []*Node{n}
	}
	for _, c := range n.children {
		list = append(list, leaves(c)...)
	}
	return list
}

// Redact returns canonical with the values of secret options, if not empty, replaced.
func (s Schema) Redact(canonical []byte) []byte {
	root := s.walk(canonical, func(f *Field, n *Node) {
		if !f.Secret {
			return
		}
		for _, leaf := range leaves(n) {
			if leaf.text != "" {
				leaf.text, leaf.quoted = redacted, true
			}
		}
	})
	return root.appendJSON(nil)
}

// walk calls f for every option that is set, and returns the tree, which f may change.
func (s Schema) walk(canonical []byte, f func(*Field, *Node)) *Node {
	root := mustCanonical(canonical)
	var visit func(fields []*field, n *Node)
	visit = func(fields []*field, n *Node) {
		for _, fd := range fields {
			c := n.Get(fd.Name)
			if c == nil {
				continue
			}
			f(&fd.Field, c)
			if o := fd.shape.innerObject(); o != nil {
				inner := []*Node{c}
				for sh := fd.shape; sh.elem != nil; sh = sh.elem {
					var next []*Node
					for _, n := range inner {
						next = append(next, n.children...)
					}
					inner = next
				}
				for _, n := range inner {
					visit(o.fields, n)
				}
			}
		}
	}
	for _, o := range s.parts {
		visit(o.fields, root)
	}
	return root
}
