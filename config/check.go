package config

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// A Validator is an options struct with a rule that no tag can say. Validate is called when all its fields are right by
// themselves. A FieldError places the error at a field.
type Validator interface{ Validate() error }

// FieldError returns an error that is shown at the field of the given name.
func FieldError(name string, err error) error { return &fieldError{name, err} }

type fieldError struct {
	name string
	err  error
}

func (e *fieldError) Error() string { return e.name + ": " + e.err.Error() }
func (e *fieldError) Unwrap() error { return e.err }

// Check checks n against the schema and finds every error. canonical is JSON with the defaults filled in and the fields
// in the schema's order; two configurations that mean the same give the same bytes. Deferred scalars are in it as they are
// written; Decode gives their fields the defaults.
func (s Schema) Check(n *Node) (canonical []byte, errs Errors) {
	if n == nil {
		n = &Node{}
	}
	d := decoder{errs: &errs}
	if !d.isMap(n, "options", false) {
		return nil, errs
	}
	var known []string
	for _, f := range s.Fields() {
		known = append(known, f.Name)
	}
	d.unknown(n, known)
	out := []byte{'{'}
	for _, o := range s.parts {
		out = d.object(reflect.New(o.typ).Elem(), o, n, out)
	}
	if len(errs) > 0 {
		errs.Sort()
		return nil, errs
	}
	return closeObject(out), nil
}

// Decode fills a C from canonical options, as Check and Pick return them. Nothing at all means the defaults.
func Decode[C any](canonical []byte) (C, error) {
	var c C
	if len(canonical) == 0 {
		canonical = []byte("{}")
	}
	p := &parser{left: maxNodes, verbatim: true}
	root := p.parseJSON(canonical)
	if err := p.errs.or(); err != nil {
		return c, err
	}
	var errs Errors
	d := decoder{errs: &errs}
	s := Of[C]()
	if d.isMap(root, "options", false) {
		var known []string
		for _, f := range s.Fields() {
			known = append(known, f.Name)
		}
		d.unknown(root, known)
		d.object(reflect.ValueOf(&c).Elem(), s.parts[0], root, nil)
	}
	return c, errs.or()
}

// Pick returns the part of the canonical options of a joined schema that belongs to s.
func (s Schema) Pick(canonical []byte) []byte {
	root := mustCanonical(canonical)
	part := &Node{kind: mapNode}
	for _, f := range s.Fields() {
		if c := root.Get(f.Name); c != nil {
			part.put(f.Name, c)
		}
	}
	return part.appendJSON(nil)
}

// mustCanonical reads what Check has written; no expansion happens.
func mustCanonical(canonical []byte) *Node {
	p := &parser{left: maxNodes, verbatim: true}
	root := p.parseJSON(canonical)
	if len(p.errs) > 0 {
		panic("BUG: options are not canonical: " + p.errs.Error())
	}
	return root
}

// decoder fills values from nodes, and writes what it has read as canonical JSON.
type decoder struct {
	errs   *Errors
	unread int // values that are deferred
}

func (d *decoder) fail(e *Error, hint string) {
	e.Hint = hint
	*d.errs = append(*d.errs, e)
}

func (d *decoder) isMap(n *Node, what string, secret bool) bool {
	if n.IsMap() {
		return true
	}
	d.fail(n.Errorf("must be a map of %s, got %s", what, n.describe(secret)), "")
	return false
}

func (d *decoder) unknown(n *Node, known []string) {
	for key, v := range n.Entries() {
		if slices.Contains(known, key) {
			continue
		}
		hint := DidYouMean(key, known)
		if hint == "" && len(known) > 0 {
			hint = "known are " + strings.Join(known, ", ")
		}
		e := v.KeyErrorf("unknown option %q", key)
		e.Path = n.path
		d.fail(e, hint)
	}
}

// object fills the fields of v from n, without the check for unknown ones, and appends them to out.
func (d *decoder) object(v reflect.Value, o *object, n *Node, out []byte) []byte {
	before, unread := len(*d.errs), d.unread
	for _, f := range o.fields {
		fv := v.FieldByIndex(f.index)
		path := below(n.path, f.Name)
		c := n.Get(f.Name)
		if c == nil || c.kind == nullNode && f.shape.kind != rawShape {
			switch {
			case f.hasDef:
				c = f.defaultNode(n, path)
			case f.Required:
				e := n.KeyErrorf("option %q is missing", f.Name)
				d.fail(e, "it says: "+f.Doc)
				continue
			case f.shape.kind == objectShape || c != nil && f.shape.kind == pointerShape:
				c = &Node{file: n.file, line: n.line, col: n.col, keyLine: n.keyLine, keyCo: n.keyCo, path: path, kind: mapNode}
			default:
				continue
			}
		}
		out = appendKey(out, f.Name)
		out = d.field(fv, f, c, out)
	}
	if len(*d.errs) == before && d.unread == unread && v.CanAddr() {
		if val, ok := v.Addr().Interface().(Validator); ok {
			d.validate(val, n)
		}
	}
	return out
}

func (d *decoder) validate(v Validator, n *Node) {
	err := v.Validate()
	if err == nil || n.hasDeferred() {
		return
	}
	at := n
	if fe := (*fieldError)(nil); errors.As(err, &fe) {
		err = fe.err
		if c := n.Get(fe.name); c != nil {
			at = c
		} else {
			at = scalarAt(n, below(n.path, fe.name), "")
		}
	}
	d.fail(at.Errorf("%v", err), "")
}

// field fills one field, with the checks that its tags ask for.
func (d *decoder) field(v reflect.Value, f *field, n *Node, out []byte) []byte {
	before := len(*d.errs)
	if n.deferred && f.hasDef {
		d.value(v, f.shape, f.defaultNode(n, n.path), f.Secret, nil)
	}
	out = d.value(v, f.shape, n, f.Secret, out)
	if len(*d.errs) > before {
		return out
	}
	read := slices.DeleteFunc(leaves(n), (*Node).Deferred)
	for _, leaf := range read {
		if len(f.Enum) > 0 && !slices.Contains(f.Enum, leaf.text) {
			d.fail(leaf.Errorf("must be %s, got %s", orList(f.Enum), leaf.describe(f.Secret)), DidYouMean(leaf.text, f.Enum))
		}
	}
	for _, leaf := range read {
		d.bounds(f, leaf)
	}
	return out
}

func (d *decoder) bounds(f *field, n *Node) {
	if f.Min == "" && f.Max == "" {
		return
	}
	got := must(f.shape.measure(n.text))
	if f.Min != "" && got < must(f.shape.measure(f.Min)) {
		d.fail(n.Errorf("must be at least %s, got %s", f.Min, n.describe(f.Secret)), "")
	}
	if f.Max != "" && got > must(f.shape.measure(f.Max)) {
		d.fail(n.Errorf("must be at most %s, got %s", f.Max, n.describe(f.Secret)), "")
	}
}

// must is for what has been read before without an error.
func must(n float64, err error) float64 {
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return n
}

func orList(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// defaultNode returns what a field is when it is absent.
func (f *field) defaultNode(at *Node, path string) *Node {
	if f.shape.kind != listShape {
		return scalarAt(at, path, f.Default)
	}
	n := scalarAt(at, path, "")
	n.kind = listNode
	for i, item := range strings.Split(f.Default, ",") {
		if item = strings.TrimSpace(item); item != "" {
			n.children = append(n.children, scalarAt(at, fmt.Sprintf("%s[%d]", path, i), item))
		}
	}
	return n
}

// value fills v from n.
func (d *decoder) value(v reflect.Value, s *shape, n *Node, secret bool, out []byte) []byte {
	if n.deferred && !s.takesScalar() { // it can only stand for nothing
		n = &Node{file: n.file, line: n.line, col: n.col, keyLine: n.keyLine, keyCo: n.keyCo, path: n.path, kind: mapNode}
		if s.kind == listShape {
			n.kind = listNode
		}
	}
	switch s.kind {
	case rawShape:
		raw := n.appendJSON(nil)
		v.SetBytes(raw)
		return append(out, raw...)
	case pointerShape:
		v.Set(reflect.New(s.typ.Elem()))
		v = v.Elem()
		fallthrough
	case objectShape:
		if !d.isMap(n, "options", secret) {
			return out
		}
		var known []string
		for _, f := range s.object.fields {
			known = append(known, f.Name)
		}
		d.unknown(n, known)
		return closeObject(d.object(v, s.object, n, append(out, '{')))
	case dictShape:
		if !d.isMap(n, s.elem.String(), secret) {
			return out
		}
		return d.dict(v, s, n, secret, out)
	case listShape:
		return d.list(v, s, n, secret, out)
	}
	if n.kind != scalarNode {
		d.fail(n.Errorf("must be a %s, got %s", s, n.describe(secret)), "")
		return out
	}
	return d.scalar(v, s, n, secret, out)
}

func (d *decoder) dict(v reflect.Value, s *shape, n *Node, secret bool, out []byte) []byte {
	out = append(out, '{')
	v.Set(reflect.MakeMap(s.typ))
	keys := slices.Clone(n.keys)
	slices.Sort(keys) // the order means nothing, and canonical is the same for all
	for _, k := range keys {
		elem := reflect.New(s.elem.typ).Elem()
		out = d.value(elem, s.elem, n.Get(k), secret, appendKey(out, k))
		v.SetMapIndex(reflect.ValueOf(k).Convert(s.typ.Key()), elem)
	}
	return closeObject(out)
}

// An Entry is a type of list elements that may be written as a map, too: EntryText returns the element that key: value
// stands for. The elements are in the order of the file.
type Entry interface {
	EntryText(key, value string) string
}

func (d *decoder) list(v reflect.Value, s *shape, n *Node, secret bool, out []byte) []byte {
	if n = s.asList(n); n.kind != listNode {
		d.fail(n.Errorf("must be a %s, got %s", s, n.describe(secret)), "")
		return out
	}
	out = append(out, '[')
	v.Set(reflect.MakeSlice(s.typ, len(n.children), len(n.children)))
	for i, item := range n.children {
		if i > 0 {
			out = append(out, ',')
		}
		if item.kind == nullNode && item.text != "" && s.elem.kind == stringShape {
			named := *item // to: [null] means what is called null
			named.kind, item = scalarNode, &named
		}
		out = d.value(v.Index(i), s.elem, item, secret, out)
	}
	return append(out, ']')
}

// asList returns n as a list, if it is another way to write one: an element alone, or a map of what makes them.
func (s *shape) asList(n *Node) *Node {
	list := *n
	list.kind = listNode
	switch {
	case n.kind == scalarNode && s.elem.isScalar():
		list.children = []*Node{n}
		return &list
	case n.kind == mapNode && s.elem.entry() != nil:
		list.children = nil
		for key, value := range n.Entries() {
			if value.kind != scalarNode {
				return n
			}
			item := *value
			item.text, item.quoted = s.elem.entry().EntryText(key, value.text), true
			list.children = append(list.children, &item)
		}
		return &list
	}
	return n
}

// scalar fills v from the text of n.
func (d *decoder) scalar(v reflect.Value, s *shape, n *Node, secret bool, out []byte) []byte {
	hidden := secret || len(n.refs) > 0 // see Node.describe
	bad := func(hint string) []byte {
		if n.quoted && hint == "" {
			hint = "remove the quotes"
		}
		d.fail(n.Errorf("must be %s, got %s", withArticle(s.String()), n.describe(secret)), hint)
		return out
	}
	switch {
	case s.kind == stringShape:
		v.SetString(n.text)
		return appendString(out, n.text)
	case n.deferred:
		// What a literal ${env: was expanded from is read like any other text; what cannot be read has been left there.
		read := reflect.New(v.Type())
		if t, ok := read.Interface().(encoding.TextUnmarshaler); ok && t.UnmarshalText([]byte(n.text)) == nil {
			v.Set(read.Elem())
		} else {
			d.unread++
		}
		return appendString(out, n.text)
	}
	switch s.kind {
	case boolShape:
		b, ok := map[string]bool{"true": true, "false": false}[n.text]
		if !ok || n.quoted {
			hint := map[string]string{"yes": "write true", "on": "write true", "no": "write false", "off": "write false"}[strings.ToLower(n.text)]
			return bad(hint)
		}
		v.SetBool(b)
		return strconv.AppendBool(out, b)
	case intShape:
		i, err := strconv.ParseInt(n.text, 10, v.Type().Bits())
		if err != nil || n.quoted {
			return bad("")
		}
		v.SetInt(i)
		return strconv.AppendInt(out, i, 10)
	case uintShape:
		u, err := strconv.ParseUint(n.text, 10, v.Type().Bits())
		if err != nil || n.quoted {
			return bad("")
		}
		v.SetUint(u)
		return strconv.AppendUint(out, u, 10)
	case floatShape:
		f, err := strconv.ParseFloat(n.text, v.Type().Bits())
		if err != nil || n.quoted || math.IsNaN(f) || math.IsInf(f, 0) {
			return bad("")
		}
		v.SetFloat(f)
		return strconv.AppendFloat(out, f, 'g', -1, 64)
	case durationShape:
		t, err := ParseDuration(n.text)
		if err != nil {
			if hidden {
				err = errors.New("is no duration")
			}
			d.fail(n.Errorf("%v", err), "")
			return out
		}
		v.SetInt(int64(t))
		return appendString(out, formatDuration(t))
	case textShape:
		return d.text(v, n, hidden, out)
	}
	panic("BUG: a scalar cannot be " + s.String())
}

func (d *decoder) text(v reflect.Value, n *Node, secret bool, out []byte) []byte {
	if err := v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(n.text)); err != nil {
		if secret {
			err = errors.New("is not valid")
		}
		d.fail(n.Errorf("%v", err), "")
		return out
	}
	text, err := v.Interface().(encoding.TextMarshaler).MarshalText()
	if err != nil {
		d.fail(n.Errorf("%v", err), "")
		return out
	}
	return appendString(out, string(text))
}

func withArticle(name string) string {
	if strings.HasPrefix(name, "i") {
		return "an " + name
	}
	return "a " + name
}

func appendKey(out []byte, key string) []byte {
	if n := len(out); n > 0 && out[n-1] != '{' {
		out = append(out, ',')
	}
	return append(appendString(out, key), ':')
}

func closeObject(out []byte) []byte { return append(out, '}') }

// appendString appends s as JSON that people can read: conditions are full of < and &.
func appendString(out []byte, s string) []byte {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		panic("BUG: a string has no JSON: " + err.Error())
	}
	return append(out, bytes.TrimSuffix(text.Bytes(), []byte("\n"))...)
}

// isJSONScalar reports whether a plain scalar is a number or boolean; what a reference expanded to may be anything.
func isJSONScalar(text string) bool {
	return text != "" && strings.IndexByte("-0123456789tf", text[0]) >= 0 && json.Valid([]byte(text)) && strings.TrimSpace(text) == text
}

// appendJSON appends n as JSON.
func (n *Node) appendJSON(out []byte) []byte {
	switch n.kind {
	case mapNode:
		out = append(out, '{')
		for i, k := range n.keys {
			out = n.children[i].appendJSON(appendKey(out, k))
		}
		return closeObject(out)
	case listNode:
		out = append(out, '[')
		for i, c := range n.children {
			if i > 0 {
				out = append(out, ',')
			}
			out = c.appendJSON(out)
		}
		return append(out, ']')
	case scalarNode:
		if !n.quoted && isJSONScalar(n.text) {
			return append(out, n.text...)
		}
		return appendString(out, n.text)
	}
	return append(out, "null"...)
}
