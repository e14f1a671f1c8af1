// Package file is the center file: documents are a file on this machine, or those in a directory. It also is how anything
// else can hear of changes of files: Watch.
//
// It notices files that are written in place, replaced by a rename, and switched by symlinks, as Kubernetes does it.
package file

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/creelhq/creel/center"
	"github.com/creelhq/creel/config"
)

// Center is the center file.
var Center = center.New("file", "A file on this machine, or all of a directory; a change is noticed at once.", New, nil)

// Config says what is to be watched.
type Config struct {
	Path string `doc:"A file, or a directory whose files that end in .yaml, .yml or .json are the documents; those whose name begins with a dot are left out, and so are directories in it." example:"/etc/creel/center"`
}

// Validate checks what no tag can.
func (c Config) Validate() error {
	if c.Path == "" {
		return config.FieldError("path", errors.New("must name a file or a directory"))
	}
	return nil
}

type source struct {
	path string
	host center.Host
}

// New returns the Source.
func New(c Config, h center.Host) (center.Source, error) {
	path, err := filepath.Abs(c.Path)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", c.Path, err)
	}
	return &source{path, h}, nil
}

// Watch reads at first and whenever something has changed. What cannot be read is tried again when it changes, and in
// between: a permission that is granted can be heard of by nobody.
func (s *source) Watch(ctx context.Context, f func(center.Snapshot)) {
	f = center.Changes(f)
	l := Listen(s.host.Log, s.path)
	t := center.Trouble{Host: s.host}
	read := func() {
		docs, err := Read(s.path)
		l.restless = err != nil
		if err != nil {
			t.Tell(err)
			return
		}
		t.Over()
		f(center.Snapshot{Revision: revision(docs), Documents: docs})
	}
	read()
	l.Run(ctx, read)
}

func revision(docs []center.Document) string {
	sum := sha256.New()
	for _, d := range docs {
		fmt.Fprintf(sum, "%s\x00%d\x00%s", d.Name, len(d.Text), d.Text)
	}
	return hex.EncodeToString(sum.Sum(nil)[:8])
}

// Read returns the documents in a file or directory, by name, which is the path. It fails if there is nothing at path, or
// something cannot be read, or is too much, or is being written at this moment.
func Read(path string) ([]center.Document, error) {
	before := stamp{}
	before.add(path)
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read documents: %w", err)
	}
	files := []string{path}
	if info.IsDir() {
		if files, err = list(path); err != nil {
			return nil, fmt.Errorf("read documents: %w", err)
		}
	}
	docs, total := make([]center.Document, 0, len(files)), 0
	for _, file := range files {
		text, err := readFile(file)
		if err != nil {
			return nil, fmt.Errorf("read documents: %w", err)
		}
		docs = append(docs, center.Document{Name: file, Text: text})
		if total += len(text); total > center.MaxTotal {
			break // Bound says so
		}
	}
	if err := center.Bound(docs); err != nil {
		return nil, fmt.Errorf("read documents of %s: %w", path, err)
	}
	after := stamp{}
	if after.add(path); !after.same(before) {
		return nil, fmt.Errorf("read documents of %s: they change at this moment", path)
	}
	return docs, nil
}

// list returns the files of a directory that are documents, sorted.
func list(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if !isDocument(e.Name()) {
			continue
		}
		if e.Type()&fs.ModeSymlink != 0 { // one that leads nowhere is no reason to do without the document: reading it fails
			if info, err := os.Stat(filepath.Join(dir, e.Name())); err == nil && !info.Mode().IsRegular() {
				continue
			}
		} else if !e.Type().IsRegular() {
			continue
		}
		if files = append(files, filepath.Join(dir, e.Name())); len(files) > center.MaxDocuments {
			return nil, fmt.Errorf("%s has more than %d documents; is that the right directory?", dir, center.MaxDocuments)
		}
	}
	return files, nil
}

func isDocument(name string) bool {
	switch filepath.Ext(name) {
	case ".yaml", ".yml", ".json":
		return !strings.HasPrefix(name, ".")
	}
	return false
}

// readFile reads a regular file.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() { // to open a FIFO would block
		return nil, fmt.Errorf("%s is no regular file", path)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, center.MaxDocument+1))
	if err != nil {
		return nil, err
	}
	if len(text) > center.MaxDocument {
		return nil, fmt.Errorf("%s has more than %d bytes, which is what is taken at most", path, center.MaxDocument)
	}
	return text, nil
}
