package config

import (
	"fmt"
	"slices"
	"strings"
)

// An Origin is the value of one option, and where it comes from.
type Origin struct {
	Path  string // such as exporters.otlp/hub.delivery.queue.size
	Value string // as Check writes it; lists as JSON; secrets redacted
	Where string // file:line:column, and the references that stand there: creel.yaml:12:5 ${env:HOST}; or default
}

// Origins tells of every option that has a value where it comes from, in the order of the schema. A list of scalars is one
// value, and so is whatever is free; other lists, maps and objects are told of piece by piece. n is what Check found
// right; of anything else there is nothing to tell.
func (s Schema) Origins(n *Node) []Origin {
	if n == nil {
		n = &Node{}
	}
	canonical, errs := s.Check(n)
	if len(errs) > 0 {
		return nil
	}
	var list []Origin
	root := mustCanonical(s.Redact(canonical))
	for _, o := range s.parts {
		list = o.origins(root, n, n.path, list)
	}
	return list
}

// origins appends what is known of an object: value is what Check made of n, which is nil if it is all defaults.
func (o *object) origins(value, n *Node, path string, list []Origin) []Origin {
	for _, f := range o.fields {
		if v := value.Get(f.Name); v != nil {
			list = f.shape.origins(f, v, n.Get(f.Name), below(path, f.Name), list)
		}
	}
	return list
}

func (s *shape) origins(f *field, value, n *Node, path string, list []Origin) []Origin {
	if n != nil && n.kind == nullNode && s.kind != rawShape {
		n = nil // as good as absent
	}
	switch {
	case s.kind == objectShape || s.kind == pointerShape:
		return s.object.origins(value, n, path, list)
	case s.kind == dictShape && len(value.children) > 0:
		for k, v := range value.Entries() {
			list = s.elem.origins(f, v, n.Get(k), below(path, k), list)
		}
		return list
	case s.kind == listShape && !s.elem.isScalar() && len(value.children) > 0:
		items := n.Items()
		for i, v := range value.Items() {
			var item *Node
			if i < len(items) {
				item = items[i]
			}
			list = s.elem.origins(f, v, item, fmt.Sprintf("%s[%d]", path, i), list)
		}
		return list
	}
	o := Origin{Path: path, Value: value.text, Where: "default"}
	if value.kind != scalarNode {
		o.Value = string(value.appendJSON(nil))
	}
	if n != nil {
		o.Where = n.Where()
		for _, ref := range n.references(nil) {
			if name, _, hasFallback := strings.Cut(ref, ":-"); hasFallback && f.Secret {
				ref = name + ":-" + redacted + "}"
			}
			o.Where += " " + ref
		}
	}
	return append(list, o)
}

// references appends all that is referred to in n to list.
func (n *Node) references(list []string) []string {
	for _, ref := range n.refs {
		if !slices.Contains(list, ref) {
			list = append(list, ref)
		}
	}
	for _, c := range n.children {
		list = c.references(list)
	}
	return list
}
