package config

import "fmt"

// Merge makes one tree of several parsed files, the entries of each after those of the files before it. Maps whose path
// deep accepts ("" is the root's) are merged entry by entry, and nothing at all counts there as an empty map. Whatever
// else two files define is refused: the error is an Errors, each of which names both places. Nodes keep their places, so
// that whatever is found to be wrong later is told with the right file; a merged map has the place of the first.
func Merge(deep func(path string) bool, list ...*Node) (*Node, error) {
	var root *Node
	var errs Errors
	for _, n := range list {
		if n != nil && n.path != "" {
			panic("BUG: merge of " + n.path + ", which is no file's root")
		}
		root = merge(deep, root, n, &errs)
	}
	if root == nil {
		root = &Node{}
	}
	if err := errs.or(); err != nil {
		return nil, err
	}
	return root, nil
}

// merge returns both as one, and changes neither.
func merge(deep func(string) bool, a, b *Node, errs *Errors) *Node {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case !deep(a.path) || !a.IsMap() && b.kind != nullNode || !b.IsMap() && a.kind != nullNode:
		e := b.KeyErrorf("is defined twice: %s and %s", a.Where(), b.Where())
		*errs = append(*errs, e)
		return a
	case b.kind == nullNode:
		return a
	case a.kind == nullNode:
		return b
	}
	both := &Node{file: a.file, line: a.line, col: a.col, keyLine: a.keyLine, keyCo: a.keyCo, path: a.path, kind: mapNode}
	for key, child := range a.Entries() {
		both.put(key, merge(deep, child, b.Get(key), errs))
	}
	for key, child := range b.Entries() {
		if a.Get(key) == nil {
			both.put(key, child)
		}
	}
	return both
}

// Where returns where n is defined: file:line:column of its key, or its own if it has none.
func (n *Node) Where() string { return fmt.Sprintf("%s:%d:%d", n.file, n.keyLine, n.keyCo) }
