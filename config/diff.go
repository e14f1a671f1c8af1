package config

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The values of Difference.Kind.
const (
	Added   = "added"
	Removed = "removed"
	Changed = "changed"
)

// A Difference is one thing that one configuration says otherwise than another.
type Difference struct {
	Path  string `json:"path"` // such as exporters.otlp/hub.endpoint; items of a list have the new one's numbers, removed ones the old one's
	Kind  string `json:"kind"`
	Old   string `json:"old,omitempty"` // in short; secrets that Conceal marked are left out
	New   string `json:"new,omitempty"`
	Where string `json:"where"` // file:line:column in the new one, of what was removed in the old one
}

// Diff returns what is different in the meaning of two configurations, by path. The order of a map's entries, comments,
// quotes, anchors, and whether it is YAML or JSON make no difference; a section that is missing is as good as an empty
// one. Lists are compared in order: of an item between two that stayed it is said that it was added, removed or changed.
// What is added or removed as a whole is one difference.
func Diff(old, next *Node) []Difference {
	var d differ
	if old == nil {
		old = &Node{}
	}
	if next == nil {
		next = &Node{}
	}
	if !old.IsMap() || !next.IsMap() {
		d.value(old, next)
		return d.list
	}
	for _, key := range d.keys(old, next) {
		a, b := old.Get(key), next.Get(key)
		switch {
		case a == nil && b.IsMap():
			a = b.empty()
		case b == nil && a.IsMap():
			b = a.empty()
		}
		d.entry(a, b)
	}
	return d.list
}

type differ struct{ list []Difference }

// keys returns the keys of both, sorted.
func (*differ) keys(a, b *Node) []string {
	all := make(map[string]bool)
	for _, n := range []*Node{a, b} {
		for k := range n.Entries() {
			all[k] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// entry compares what one key leads to, nil if it is not there.
func (d *differ) entry(a, b *Node) {
	switch {
	case a == nil:
		d.list = append(d.list, Difference{Path: b.path, Kind: Added, New: brief(b.show(false), 0), Where: b.Where()})
	case b == nil:
		d.list = append(d.list, Difference{Path: a.path, Kind: Removed, Old: brief(a.show(false), 0), Where: a.Where()})
	default:
		d.value(a, b)
	}
}

func (d *differ) value(a, b *Node) {
	switch {
	case a.IsMap() && b.IsMap():
		for _, key := range d.keys(a, b) {
			d.entry(a.Get(key), b.Get(key))
		}
	case a.kind == listNode && b.kind == listNode:
		d.items(a.named(), b.named())
	case a.meaning() != b.meaning():
		d.changed(a, b)
	}
}

func (d *differ) changed(a, b *Node) {
	old, next := a.show(false), b.show(false)
	if old == next && a.secret && b.secret {
		next += " (another one)"
	}
	same := 0
	for i, r := range old {
		if !strings.HasPrefix(next[i:], string(r)) {
			break
		}
		same++
	}
	d.list = append(d.list, Difference{Path: b.path, Kind: Changed, Old: brief(old, same), New: brief(next, same), Where: b.Where()})
}

// maxPairs bounds the work of comparing two lists; longer ones are compared item by item.
const maxPairs = 1 << 20

// items finds the items that stayed, as many as possible in order, and compares what is between them.
func (d *differ) items(a, b []*Node) {
	x, y := meanings(a), meanings(b)
	from, i, j := 0, len(a), len(b) // the ends are mostly the same
	for from < i && from < j && x[from] == y[from] {
		from++
	}
	for i > from && j > from && x[i-1] == y[j-1] {
		i, j = i-1, j-1
	}
	a, b, x, y = a[from:i], b[from:j], x[from:i], y[from:j]
	if len(a)*len(b) > maxPairs {
		d.gap(a, b)
		return
	}
	stay := make([][]int, len(a)+1) // how many of a[i:] and b[j:] can stay
	for i := range stay {
		stay[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if x[i] == y[j] {
				stay[i][j] = stay[i+1][j+1] + 1
			} else {
				stay[i][j] = max(stay[i+1][j], stay[i][j+1])
			}
		}
	}
	i, j = 0, 0
	for fromA, fromB := 0, 0; ; {
		switch {
		case i < len(a) && j < len(b) && x[i] == y[j]:
			d.gap(a[fromA:i], b[fromB:j])
			i, j = i+1, j+1
			fromA, fromB = i, j
		case i < len(a) && (j == len(b) || stay[i+1][j] >= stay[i][j+1]):
			i++
		case j < len(b):
			j++
		default:
			d.gap(a[fromA:], b[fromB:])
			return
		}
	}
}

// gap compares items that stand between two that stayed.
func (d *differ) gap(a, b []*Node) {
	both := min(len(a), len(b))
	for i := range both {
		d.value(a[i], b[i])
	}
	for _, n := range a[both:] {
		d.entry(n, nil)
	}
	for _, n := range b[both:] {
		d.entry(nil, n)
	}
}

func meanings(list []*Node) []string {
	texts := make([]string, len(list))
	for i, n := range list {
		texts[i] = n.meaning()
	}
	return texts
}

// meaning returns a text that is the same for all that means the same.
func (n *Node) meaning() string { return n.show(true) }

// named returns the items of a list, of which [null] is what is called null, as it is for Check.
func (n *Node) named() []*Node {
	items := slices.Clone(n.children)
	for i, c := range items {
		if c.kind == nullNode && c.text != "" {
			name := *c
			name.kind, items[i] = scalarNode, &name
		}
	}
	return items
}

// show writes n in YAML's flow style, the keys of maps sorted: exactly, or to be read, without secrets.
func (n *Node) show(exactly bool) string {
	switch {
	case n.kind == nullNode && exactly:
		return "{}"
	case n.kind == nullNode:
		return "null"
	case n.kind == mapNode:
		var parts []string
		for _, k := range slices.Sorted(slices.Values(n.keys)) {
			name := k
			if exactly {
				name = strconv.Quote(k)
			}
			parts = append(parts, name+": "+n.Get(k).show(exactly))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case n.kind == listNode:
		var parts []string
		for _, c := range n.named() {
			parts = append(parts, c.show(exactly))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case exactly:
		return strconv.Quote(n.text)
	case n.secret && n.text != "":
		return redacted
	case n.text == "" || strings.ContainsFunc(n.text, func(r rune) bool { return !unicode.IsPrint(r) }):
		return strconv.Quote(n.text)
	}
	return n.text
}

// briefly is how many characters of a value a Difference has.
const briefly = 72

// brief shortens text, so that what follows after the first same characters is in it.
func brief(text string, same int) string {
	if utf8.RuneCountInString(text) <= briefly {
		return text
	}
	r := []rune(text)
	from := 0
	if same > briefly/2 {
		from = min(same-briefly/4, len(r)-briefly)
	}
	short := string(r[from:min(len(r), from+briefly)])
	if from > 0 {
		short = "…" + short
	}
	if from+briefly < len(r) {
		short += "…"
	}
	return short
}

// redacted stands for a secret.
const redacted = "[redacted]"

// Conceal returns a tree like n whose secrets Diff does not show. schema is asked for every map from the root on, and
// returns the Schema of what stands there, if it is known; of what is in it, it is asked only where anything may stand.
func (n *Node) Conceal(schema func(*Node) (Schema, bool)) *Node {
	if n == nil || n.kind != mapNode {
		return n
	}
	s, known := schema(n)
	if known {
		var fields []*field
		for _, o := range s.parts {
			fields = append(fields, o.fields...)
		}
		return n.conceal(fields, schema)
	}
	return n.with(func(_ string, c *Node) *Node { return c.Conceal(schema) })
}

// conceal marks what fields call a secret.
func (n *Node) conceal(fields []*field, schema func(*Node) (Schema, bool)) *Node {
	return n.with(func(key string, c *Node) *Node {
		i := slices.IndexFunc(fields, func(f *field) bool { return f.Name == key })
		if i < 0 {
			return c
		}
		return c.concealValue(fields[i], fields[i].shape, schema)
	})
}

func (n *Node) concealValue(f *field, s *shape, schema func(*Node) (Schema, bool)) *Node {
	switch {
	case f.Secret && n.kind == scalarNode:
		hidden := *n
		hidden.secret = true
		return &hidden
	case f.Secret || s.elem != nil:
		if s.elem != nil {
			s = s.elem
		}
		return n.with(func(_ string, c *Node) *Node { return c.concealValue(f, s, schema) })
	case s.object != nil:
		return n.conceal(s.object.fields, schema)
	case s.kind == rawShape:
		return n.Conceal(schema)
	}
	return n
}

// with returns a copy of n with other entries or items.
func (n *Node) with(change func(key string, c *Node) *Node) *Node {
	if n.kind != mapNode && n.kind != listNode {
		return n
	}
	other := *n
	other.keys, other.index, other.children = nil, nil, nil
	for i, c := range n.children {
		if n.kind == listNode {
			other.children = append(other.children, change("", c))
			continue
		}
		other.put(n.keys[i], change(n.keys[i], c))
	}
	return &other
}

// empty returns an empty map at n's place.
func (n *Node) empty() *Node {
	return &Node{file: n.file, line: n.line, col: n.col, keyLine: n.keyLine, keyCo: n.keyCo, path: n.path, kind: mapNode}
}
