package config

import "slices"

// Without returns a map without some of its entries. n is not changed.
func (n *Node) Without(keys ...string) *Node {
	if n == nil || n.kind != mapNode {
		return n
	}
	rest := *n
	rest.keys, rest.index, rest.children = nil, nil, nil
	for key, child := range n.Entries() {
		if !slices.Contains(keys, key) {
			rest.put(key, child)
		}
	}
	return &rest
}
