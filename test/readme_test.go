package test

import (
	"os"
	"strings"
	"testing"

	"github.com/creelhq/creel/agent/trial"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/plugins/all"
)

// TestReadme: the configuration that the README shows is right, and its tests pass.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "```yaml\n")
	example, _, found := strings.Cut(after, "```\n")
	if !found {
		t.Fatal("the README shows no configuration")
	}
	env := config.Env{Lookup: func(name string) (string, bool) { return "x", name == "TOKEN" }}
	results, err := trial.Run(t.Context(), "README.md", []byte(example), env, all.Plugins())
	if err != nil || len(results) == 0 {
		t.Fatal(results, err)
	}
	for _, r := range results {
		if !r.OK {
			t.Errorf("%s: %v", r.Name, r.Problems)
		}
	}
}
