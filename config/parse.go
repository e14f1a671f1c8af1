package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// Limits of one file. Aliases count as what they stand for.
const (
	maxText  = 1 << 20 // bytes
	maxDepth = 64
	maxNodes = 100_000
)

// Env resolves what a configuration refers to.
type Env struct {
	Lookup   func(name string) (string, bool)  // ${env:NAME}
	ReadFile func(path string) ([]byte, error) // ${file:PATH}

	// Defer leaves references as they are: who only looks at a configuration does not know what they stand for where it
	// runs. A scalar with one is deferred; Schema.Check takes it for right whatever the option is.
	Defer bool
}

// OSEnv is the environment of the process and its file system.
func OSEnv() Env { return Env{Lookup: os.LookupEnv, ReadFile: os.ReadFile} }

// Parse reads a configuration: JSON if the file's name ends in .json, else YAML 1.2. In scalars it expands
// ${env:NAME}, ${env:NAME:-default} and ${file:PATH}; $${ stands for ${. A scalar that is not quoted and nothing but one
// reference means what it would mean if its value stood there. The error is an Errors.
func Parse(file string, text []byte, env Env) (*Node, error) {
	p := &parser{file: file, env: env, left: maxNodes}
	if len(text) > maxText {
		return nil, Errors{{File: file, Message: fmt.Sprintf("is larger than %d bytes", maxText)}}
	}
	if !utf8.Valid(text) {
		return nil, Errors{{File: file, Message: "is not UTF-8"}}
	}
	var root *Node
	if filepath.Ext(file) == ".json" {
		root = p.parseJSON(text)
	} else {
		root = p.parseYAML(text)
	}
	if err := p.errs.or(); err != nil {
		return nil, err
	}
	return root, nil
}

type parser struct {
	file string
	env  Env
	left int // nodes
	errs Errors

	verbatim bool // references mean nothing
}

func (p *parser) fail(line, col int, path, format string, args ...any) {
	p.errs = append(p.errs, &Error{File: p.file, Line: line, Col: col, Path: path, Message: fmt.Sprintf(format, args...)})
}

// node makes the next node; nil when there are too many.
func (p *parser) node(k nodeKind, line, col int, path string, depth int) *Node {
	switch p.left--; {
	case p.left == 0:
		p.fail(line, col, path, "has more than %d nodes, aliases counted", maxNodes)
		return nil
	case p.left < 0:
		return nil
	case depth > maxDepth:
		p.fail(line, col, path, "is nested more than %d deep", maxDepth)
		p.left = 0
		return nil
	}
	return &Node{file: p.file, line: line, col: col, keyLine: line, keyCo: col, path: path, kind: k}
}

// add puts a child under a key that is new to n.
func (p *parser) add(n *Node, key string, line, col int, child *Node) {
	if child == nil {
		return
	}
	if old := n.Get(key); old != nil {
		p.fail(line, col, child.path, "is set twice, first in line %d", old.keyLine)
		return
	}
	child.keyLine, child.keyCo = line, col
	n.put(key, child)
}

func (p *parser) parseYAML(text []byte) *Node {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, more yaml.Node
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return p.node(nullNode, 1, 1, "", 0)
	}
	if err == nil {
		if err = dec.Decode(&more); err == nil {
			p.fail(more.Line, more.Column, "", "a second document begins here; write one only")
			return nil
		}
		if errors.Is(err, io.EOF) {
			err = nil
		}
	}
	if err != nil {
		e := &Error{File: p.file, Message: strings.TrimPrefix(err.Error(), "yaml: ")}
		if load := (*yaml.LoadError)(nil); errors.As(err, &load) {
			e.Line, e.Col, e.Message = load.Mark.Line, load.Mark.Column, "is not YAML: "+load.Message
		}
		if bytes.HasPrefix(bytes.TrimLeft(text, " \n"), []byte("\t")) || bytes.Contains(text, []byte("\n\t")) {
			e.Hint = "YAML is indented with spaces, not tabs"
		}
		p.errs = append(p.errs, e)
		return nil
	}
	if doc.Kind == yaml.DocumentNode && len(doc.Content) == 1 {
		return p.yaml(doc.Content[0], "", 0)
	}
	return p.yaml(&doc, "", 0)
}

func (p *parser) yaml(y *yaml.Node, path string, depth int) *Node {
	switch y.Kind {
	case yaml.AliasNode:
		return p.yaml(y.Alias, path, depth+1)
	case yaml.MappingNode:
		n := p.node(mapNode, y.Line, y.Column, path, depth)
		if n == nil {
			return nil
		}
		p.yamlEntries(n, y, depth)
		return n
	case yaml.SequenceNode:
		n := p.node(listNode, y.Line, y.Column, path, depth)
		if n == nil {
			return nil
		}
		for i, item := range y.Content {
			if c := p.yaml(item, fmt.Sprintf("%s[%d]", path, i), depth+1); c != nil {
				n.children = append(n.children, c)
			}
		}
		return n
	case yaml.ScalarNode:
		n := p.node(scalarNode, y.Line, y.Column, path, depth)
		if n == nil {
			return nil
		}
		n.quoted = y.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0 || y.Style&yaml.TaggedStyle != 0 && y.Tag == "!!str"
		p.scalar(n, y.Value)
		return n
	}
	return p.node(nullNode, y.Line, y.Column, path, depth)
}

// yamlEntries adds the entries of y to n, and then those of maps that it merges with <<.
func (p *parser) yamlEntries(n *Node, y *yaml.Node, depth int) {
	var merged []*yaml.Node
	for i := 0; i+1 < len(y.Content); i += 2 {
		k, v := y.Content[i], y.Content[i+1]
		if k.Kind == yaml.AliasNode {
			k = k.Alias
		}
		switch {
		case k.Kind != yaml.ScalarNode:
			p.fail(k.Line, k.Column, n.path, "a key must be a scalar")
		case k.Tag == "!!merge":
			merged = append(merged, v)
		default:
			p.add(n, k.Value, k.Line, k.Column, p.yaml(v, below(n.path, k.Value), depth+1))
		}
	}
	for len(merged) > 0 {
		m := merged[0]
		merged = merged[1:]
		if m.Kind == yaml.AliasNode {
			m = m.Alias
		}
		switch m.Kind {
		case yaml.SequenceNode:
			merged = append(merged, m.Content...)
		case yaml.MappingNode:
			from := p.node(mapNode, m.Line, m.Column, n.path, depth+1)
			if from == nil {
				return
			}
			p.yamlEntries(from, m, depth+1)
			for i, k := range from.keys {
				if n.Get(k) == nil {
					n.put(k, from.children[i])
				}
			}
		default:
			p.fail(m.Line, m.Column, n.path, "<< merges maps only")
		}
	}
}

// parseJSON reads JSON (RFC 8259), with the places of its values.
func (p *parser) parseJSON(text []byte) *Node {
	j := &jsonReader{parser: p, text: text, dec: json.NewDecoder(bytes.NewReader(text)), line: 1}
	j.dec.UseNumber()
	root := j.value("", 0)
	if len(p.errs) > 0 {
		return nil
	}
	if _, err := j.dec.Token(); !errors.Is(err, io.EOF) {
		line, col := j.place()
		p.fail(line, col, "", "something follows the end")
	}
	return root
}

type jsonReader struct {
	*parser
	text []byte
	dec  *json.Decoder
	line int // at offset from
	from int // offset up to which lines are counted
	bol  int // offset of the line's beginning
}

// place returns where the next token begins.
func (j *jsonReader) place() (line, col int) {
	at := int(j.dec.InputOffset())
	for at < len(j.text) && strings.IndexByte(" \t\r\n,:", j.text[at]) >= 0 {
		at++
	}
	for ; j.from < at; j.from++ {
		if j.text[j.from] == '\n' {
			j.line++
			j.bol = j.from + 1
		}
	}
	return j.line, at - j.bol + 1
}

func (j *jsonReader) value(path string, depth int) *Node {
	line, col := j.place()
	t, err := j.dec.Token()
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		j.fail(line, col, path, "is not JSON: %v", err)
		return nil
	}
	switch t := t.(type) {
	case json.Delim:
		kind := listNode
		if t == '{' {
			kind = mapNode
		}
		n := j.node(kind, line, col, path, depth)
		for n != nil && j.dec.More() && len(j.errs) == 0 {
			if kind == listNode {
				if c := j.value(fmt.Sprintf("%s[%d]", path, len(n.children)), depth+1); c != nil {
					n.children = append(n.children, c)
				}
				continue
			}
			line, col := j.place()
			k, err := j.dec.Token()
			if err != nil {
				j.fail(line, col, path, "is not JSON: %v", err)
				return nil
			}
			key := k.(string) // the decoder accepts nothing else here
			j.add(n, key, line, col, j.value(below(path, key), depth+1))
		}
		if len(j.errs) > 0 {
			return nil
		}
		if _, err := j.dec.Token(); err != nil {
			line, col := j.place()
			j.fail(line, col, path, "is not JSON: %v", err)
		}
		return n
	case nil:
		return j.node(nullNode, line, col, path, depth)
	}
	n := j.node(scalarNode, line, col, path, depth)
	if n == nil {
		return nil
	}
	switch t := t.(type) {
	case string:
		n.quoted = true
		j.scalar(n, t)
	case json.Number:
		n.text = t.String()
	case bool:
		n.text = strconv.FormatBool(t)
	}
	return n
}

var reference = regexp.MustCompile(`\$?\$\{[^}]*\}?`)

// scalar sets n's text, with references expanded.
func (p *parser) scalar(n *Node, raw string) {
	if p.verbatim {
		n.text, n.deferred = raw, strings.Contains(raw, "${env:") || strings.Contains(raw, "${file:") // Check left it there
		return
	}
	n.text = reference.ReplaceAllStringFunc(raw, func(ref string) string {
		if strings.HasPrefix(ref, "$$") {
			return ref[1:]
		}
		n.refs = append(n.refs, ref)
		text, err := p.resolve(ref)
		if err == nil && !utf8.ValidString(text) {
			err = fmt.Errorf("what %s refers to is not UTF-8", ref)
		}
		if err != nil {
			p.fail(n.line, n.col, n.path, "%v", err)
		}
		return text
	})
	n.deferred = p.env.Defer && len(n.refs) > 0
	if !n.quoted && (n.text != raw || n.deferred) && reference.FindString(raw) != raw {
		n.quoted = true // text around a reference: surely a string
	}
	if n.deferred {
		n.text = raw
	}
	if !n.quoted && (n.text == "" || n.text == "~" || n.text == "null" || n.text == "Null" || n.text == "NULL") {
		n.kind = nullNode
	}
}

// resolve returns what a reference stands for.
func (p *parser) resolve(ref string) (string, error) {
	if !strings.HasSuffix(ref, "}") {
		return "", fmt.Errorf("%s is not closed; write $${ for a literal ${", ref)
	}
	scheme, name, _ := strings.Cut(ref[2:len(ref)-1], ":")
	switch {
	case p.env.Defer && (scheme == "env" || scheme == "file"):
		return ref, nil
	case scheme == "env":
		name, fallback, hasFallback := strings.Cut(name, ":-")
		if p.env.Lookup != nil {
			if v, ok := p.env.Lookup(name); ok && (v != "" || !hasFallback) {
				return v, nil
			}
		}
		if !hasFallback {
			return "", fmt.Errorf("environment variable %s is not set; set it, or write ${env:%s:-default}", name, name)
		}
		return fallback, nil
	case scheme == "file":
		if p.env.ReadFile == nil {
			return "", fmt.Errorf("${file:%s} cannot be used here", name)
		}
		text, err := p.env.ReadFile(name)
		if err != nil {
			return "", fmt.Errorf("read what ${file:…} refers to: %w", err)
		}
		if len(text) > maxText {
			return "", fmt.Errorf("%s is larger than %d bytes", name, maxText)
		}
		return strings.TrimRight(string(text), "\r\n"), nil
	}
	return "", fmt.Errorf("%s is neither ${env:NAME} nor ${file:PATH}; write $${ for a literal ${", ref)
}
