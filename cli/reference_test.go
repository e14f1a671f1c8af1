package cli_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/agent/trial"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/pipeline"
	"github.com/creelhq/creel/plugins/all"
)

var rewrite = flag.Bool("rewrite", false, "write the reference pages anew")

const generated = "<!-- Written by `make docs` from the options' tags; do not edit. -->\n\n"

// TestReferenceIsCurrent compares the reference pages with what the plugins say of themselves.
func TestReferenceIsCurrent(t *testing.T) {
	pages := map[string][]byte{"creel.schema.json": schemaFile(t)}
	for k := creel.KindCollector; k <= creel.KindExporter; k++ {
		var page bytes.Buffer
		fmt.Fprintf(&page, "# %ss\n\n%s", title(k.String()), generated)
		for _, p := range all.Plugins() {
			if p.Kind != k {
				continue
			}
			fmt.Fprintf(&page, "## %s\n\n%s\n\n", p.Name, p.Doc)
			p.Config.Markdown(&page)
			fmt.Fprintln(&page)
			if p.Example != "" {
				fmt.Fprintf(&page, "```yaml\n%s\n```\n\n", strings.TrimSpace(p.Example))
			}
		}
		fmt.Fprintf(&page, "## Options that every %s has\n\n", k)
		if k == creel.KindCollector {
			pipeline.Schema(creel.Plugin{Kind: k}).Markdown(&page)
			fmt.Fprintf(&page, "\nCollectors that work in rounds (host, self) have these as well:\n\n")
			config.Of[pipeline.Schedule]().Markdown(&page)
		} else {
			pipeline.Schema(creel.Plugin{Kind: k}).Markdown(&page)
		}
		pages[pipeline.Section(k)+".md"] = page.Bytes()
	}
	var page bytes.Buffer
	fmt.Fprintf(&page, "# The agent, its pipelines and their tests\n\n%s## agent\n\n", generated)
	agent.SettingsSchema().Markdown(&page)
	fmt.Fprintf(&page, "\n## pipelines\n\nEach pipeline, by its id:\n\n")
	config.Of[pipeline.Route]().Markdown(&page)
	fmt.Fprintf(&page, "\n## tests\n\nEach test, by its name; `creel test` runs them, and an agent leaves them alone:\n\n")
	trial.Schema().Markdown(&page)
	for _, s := range creel.Signals() {
		fmt.Fprintf(&page, "\nA record of %s, in `given` and `expect`:\n\n", s)
		trial.RecordSchema(s).Markdown(&page)
	}
	pages["agent.md"] = page.Bytes()

	for name, want := range pages {
		file := filepath.Join("..", "docs", "reference", name)
		if *rewrite {
			if err := os.WriteFile(file, want, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not current (%v): run make docs", file, err)
		}
	}
}

func title(s string) string { return string(s[0]-'a'+'A') + s[1:] }

func schemaFile(t *testing.T) []byte {
	text, err := json.MarshalIndent(agent.JSONSchema(all.Plugins()), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(text, '\n')
}
