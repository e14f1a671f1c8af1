package creel_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/creelhq/creel"

// A room is a folder of packages, and what of ours it may import. The rooms that those may import are allowed as well.
type room struct {
	name string // "" is the root; a trailing /* means one package each
	may  []string
	why  string
}

// rooms is the architecture: docs/architecture.md tells why. A room that is not listed here does not exist.
var rooms = []room{
	{"config", nil, "configuration must not know what is configured"},
	{"report", nil, "what an agent tells of itself is data, known to whoever tells or hears it"},
	{"metric", nil, "instruments must not know what is measured"},
	{"trace", nil, "spans must not know what is traced"},
	{"tlsconf", []string{"config"}, "certificates must not know who presents them"},
	{"", []string{"config", "metric", "trace"}, "the vocabulary must not know formats, wiring or plugins"},
	{"otlp", []string{""}, "the codec must not know who sends or receives"},
	{"expr", []string{""}, "expressions see records, not where they come from or go to"},
	{"spool", nil, "the disk queue holds bytes, and must not know what is in them"},
	{"deadletter", []string{"", "otlp", "spool"}, "dead letters must not know who refuses or resends them"},
	{"task", []string{""}, "the scheduler must not know what its rounds do"},
	{"center", []string{"config"}, "where configuration comes from must not know what it means"},
	{"center/file", []string{"center"}, "files are what every agent has, without any other center"},
	{"center/*", []string{"center", "tlsconf"}, "a center sees its technology, never what is done with what it says, nor another center"},
	{"plugins/*", []string{"", "otlp", "expr", "tlsconf"}, "a plugin sees the vocabulary and its technology, never the wiring or another plugin"},
	{"plugin/*", []string{"", "otlp", "expr", "tlsconf"}, "ways to bring a plugin see what plugins see"},
	{"pipeline", []string{"otlp", "expr", "spool", "deadletter", "task", "report"}, "the pipeline runs any plugin and knows none"},
	{"control", []string{"", "report", "tlsconf"}, "what agent and hub say to each other must not know what either does with it"},
	{"api", []string{"", "report", "tlsconf"}, "the API must not know how a hub answers"},
	{"agent", []string{"pipeline", "control", "center", "center/file"}, "an agent links only the plugins that it is given"},
	{"plugins/all", []string{"plugins/*"}, "the distribution is a list"},
	{"center/all", []string{"center/*", "center/file"}, "the distribution is a list"},
	{"ui", nil, "the pages know the API alone"},
	{"hub", []string{"agent", "api", "ui"}, "a hub contains an agent, and links only the plugins that it is given"},
	{"cli", []string{"agent", "api", "center/*", "center/all", "plugins/*", "plugins/all"}, "the command line wires"},
	{"cli/full", []string{"cli", "hub"}, "the commands of a hub, which an edge host has no use for"},
	{"cmd/*", []string{"cli", "cli/full"}, "a main only calls the command line"},
	{"bench", []string{"cli/full"}, "benchmarks see everything, nobody sees them"},
	{"test", []string{"cli/full"}, "tests see everything, nobody sees them"},
}

// roomOf returns the room that a folder belongs to: the one with the longest name, and of "x" and "x/*" the latter for what is in x.
func roomOf(dir string) *room {
	var found *room
	longest := -1
	for i := range rooms {
		r := &rooms[i]
		prefix, wild := strings.CutSuffix(r.name, "/*")
		within := dir == prefix && !wild || prefix != "" && strings.HasPrefix(dir, prefix+"/")
		if length := len(prefix); within && (length > longest || length == longest && wild) {
			found, longest = r, length
		}
	}
	return found
}

// allowed returns the names of all rooms that r may see.
func (r *room) allowed() []string {
	var list []string
	for _, name := range r.may {
		list = append(list, name)
		for i := range rooms {
			if rooms[i].name == name {
				list = append(list, rooms[i].allowed()...)
			}
		}
	}
	return list
}

// TestLayers keeps the walls between rooms, wants every package to say what it is for, and knows folders that say nothing.
func TestLayers(t *testing.T) {
	documented := map[string]bool{}
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (strings.HasPrefix(d.Name(), ".") && file != "." || d.Name() == "testdata" || d.Name() == "node_modules"):
			return filepath.SkipDir
		case d.IsDir() && slices.Contains([]string{"util", "utils", "common", "helper", "helpers", "core", "pkg", "base", "types", "misc"}, d.Name()):
			t.Errorf("%s: a folder must say what is in it", file)
		}
		if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		dir := path.Dir(filepath.ToSlash(file))
		if dir == "." {
			dir = ""
		}
		r := roomOf(dir)
		if r == nil {
			t.Errorf("%s: folder %q is no room of the architecture; see docs/architecture.md", file, dir)
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		documented[dir] = documented[dir] || f.Doc != nil
		checkImports(t, file, dir, r, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("package %s has no comment that says what it is for", path.Join(module, dir))
		}
	}
	if len(documented) < 5 {
		t.Errorf("only %d packages were found", len(documented))
	}
}

func checkImports(t *testing.T, file, dir string, r *room, f *ast.File) {
	for _, imp := range f.Imports {
		name, err := strconv.Unquote(imp.Path.Value)
		if err != nil {
			t.Error(err)
			continue
		}
		rest, ours := strings.CutPrefix(name, module)
		if !ours {
			continue
		}
		target := strings.TrimPrefix(rest, "/")
		to := roomOf(target)
		inside := to == r && (!strings.HasSuffix(r.name, "/*") || strings.HasPrefix(target, dir+"/"))
		if to == nil || !inside && !slices.Contains(r.allowed(), to.name) {
			t.Errorf("%s imports %s, but %s", file, name, r.why)
		}
	}
}
