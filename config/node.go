package config

import (
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
)

type nodeKind uint8

const (
	nullNode nodeKind = iota
	scalarNode
	listNode
	mapNode
)

// A Node is a piece of a configuration: a map, a list, a scalar or nothing, and where it stands. It is immutable. A nil
// *Node is an empty one without a place: it has no entries, items or text.
type Node struct {
	file           string
	line, col      int
	keyLine, keyCo int // of the key that leads to it; the node's own if there is none
	path           string
	kind           nodeKind
	text           string   // of a scalar, expanded
	refs           []string // that text was made with
	deferred       bool     // a scalar whose references are not resolved
	quoted         bool     // a scalar that is surely a string
	secret         bool     // a scalar that Diff does not show
	keys           []string
	index          map[string]*Node // what keys lead to
	children       []*Node          // values of a map, items of a list
}

// File returns the name of the file that n stands in.
func (n *Node) File() string { return n.file }

// Pos returns the line and column that n starts at, from 1.
func (n *Node) Pos() (line, col int) { return n.line, n.col }

// Path returns the keys that lead to n, such as exporters.otlp/hub.delivery.
func (n *Node) Path() string { return n.path }

// IsMap reports whether n is a map, or nothing at all, which counts as an empty one.
func (n *Node) IsMap() bool { return n == nil || n.kind == mapNode || n.kind == nullNode }

// Entries yields the entries of a map in the order of the file.
func (n *Node) Entries() iter.Seq2[string, *Node] {
	return func(yield func(string, *Node) bool) {
		if n == nil || n.kind != mapNode {
			return
		}
		for i, k := range n.keys {
			if !yield(k, n.children[i]) {
				return
			}
		}
	}
}

// Get returns the value of a map's key, nil if there is none.
func (n *Node) Get(key string) *Node {
	if n == nil {
		return nil
	}
	return n.index[key]
}

// put adds an entry to a map that is being made. The key must be new to it.
func (n *Node) put(key string, child *Node) {
	if n.index == nil {
		n.index = make(map[string]*Node)
	}
	n.index[key] = child
	n.keys, n.children = append(n.keys, key), append(n.children, child)
}

// Text returns what a scalar says, references expanded; "" of anything else.
func (n *Node) Text() string {
	if n == nil {
		return ""
	}
	return n.text
}

// References returns what a scalar refers to, as written: ${env:HOST}.
func (n *Node) References() []string {
	if n == nil {
		return nil
	}
	return n.refs
}

// Deferred reports whether n is a scalar with references that Env.Defer left unresolved.
func (n *Node) Deferred() bool { return n != nil && n.deferred }

// hasDeferred reports whether anything in n is deferred.
func (n *Node) hasDeferred() bool {
	return n.deferred || slices.ContainsFunc(n.children, (*Node).hasDeferred)
}

// Items returns the items of a list.
func (n *Node) Items() []*Node {
	if n == nil || n.kind != listNode {
		return nil
	}
	return n.children
}

// Errorf returns an error about n.
func (n *Node) Errorf(format string, args ...any) *Error {
	return &Error{File: n.file, Line: n.line, Col: n.col, Path: n.path, Message: fmt.Sprintf(format, args...)}
}

// KeyErrorf returns an error about n which stands at its key.
func (n *Node) KeyErrorf(format string, args ...any) *Error {
	e := n.Errorf(format, args...)
	e.Line, e.Col = n.keyLine, n.keyCo
	return e
}

// describe says what n is, for errors: not what a secret is, nor what comes from a variable or a file.
func (n *Node) describe(secret bool) string {
	switch {
	case n.kind == mapNode:
		return "a map"
	case n.kind == listNode:
		return "a list"
	case n.kind == nullNode:
		return "nothing"
	case len(n.refs) > 0: // it may be a secret that belongs elsewhere
		return "the value of " + strings.Join(n.refs, " and ")
	case secret:
		return "something else"
	case n.quoted:
		return strconv.Quote(n.text)
	}
	return n.text
}

// child returns a path one step below n's.
func below(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// scalarAt returns a node for a default: text at the place of the map that lacks it.
func scalarAt(at *Node, path, text string) *Node {
	return &Node{file: at.file, line: at.line, col: at.col, keyLine: at.keyLine, keyCo: at.keyCo, path: path, kind: scalarNode, text: text}
}
