package cli_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/plugins/all"
)

// runTests runs the tests of a configuration, and returns how many there are.
func runTests(t *testing.T, file, text string) int {
	t.Helper()
	cfg, err := agent.Parts{Plugins: all.Plugins()}.Parse(file, []byte(text), config.Env{})
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range cfg.Plan.Warnings {
		t.Errorf("warning: %s", w)
	}
	cases, err := cfg.Tests()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			r := c.Run(t.Context())
			for _, p := range r.Problems {
				t.Errorf("line %d: %v", r.Line, p)
			}
			for _, line := range r.Log {
				t.Log(line)
			}
		})
	}
	return len(cases)
}

// TestExamplesOfPlugins: every plugin has an example, which is right; those of processors have tests, which pass.
func TestExamplesOfPlugins(t *testing.T) {
	for _, p := range all.Plugins() {
		t.Run(p.Name+" "+p.Kind.String(), func(t *testing.T) {
			if p.Example == "" {
				t.Fatal("it has no example: see creel.Plugin.WithExample")
			}
			if !strings.Contains(p.Example, p.Name) {
				t.Error("its example does not show it")
			}
			if n := runTests(t, p.Name+".yaml", p.Example); n == 0 && p.Kind == creel.KindProcessor {
				t.Error("its example has no tests")
			}
		})
	}
}

// TestExamples: the configurations to begin with are right, and their tests pass. A hub's are for package full to look at.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("..", "examples", "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "quicklook") {
			continue
		}
		t.Run(filepath.Base(file), func(t *testing.T) {
			n := runTests(t, file, string(text))
			if strings.Contains(string(text), "\nprocessors:") && n == 0 {
				t.Error("it has processors, but no tests")
			}
		})
	}
}
