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
	"github.com/creelhq/creel/agent/life"
	"github.com/creelhq/creel/agent/trial"
	"github.com/creelhq/creel/center"
	centers "github.com/creelhq/creel/center/all"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/expr"
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
		if k == creel.KindProcessor {
			fmt.Fprintf(&page, "How conditions, expressions, places and so on are written: [expressions](expressions.md). What the formats of parse\nmake of a line: [formats](formats.md).\n\n")
		}
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
	fmt.Fprintf(&page, "\n## agent.centers\n\nPlaces that hold configuration for many agents, each by its id: `type` or `type/name`. What a center says is merged with the\nagent's own file; an agent works as well without it.\n")
	for _, c := range centers.Centers() {
		fmt.Fprintf(&page, "\n### %s\n\n%s\n\n", c.Name, c.Doc)
		center.Schema(c).Markdown(&page)
	}
	fmt.Fprintf(&page, "\n## States\n\nWhat an event makes of an agent, and what is done then. It is held while anybody has a hold: an operator, or something that\nagent.requires asks for.\n\n%s", life.Markdown())
	fmt.Fprintf(&page, "\n## pipelines\n\nEach pipeline, by its id:\n\n")
	config.Of[pipeline.Route]().Markdown(&page)
	fmt.Fprintf(&page, "\n## tests\n\nEach test, by its name; `creel test` runs them, and an agent leaves them alone:\n\n")
	trial.Schema().Markdown(&page)
	for _, s := range creel.Signals() {
		fmt.Fprintf(&page, "\nA record of %s, in `given` and `expect`:\n\n", s)
		trial.RecordSchema(s).Markdown(&page)
	}
	pages["agent.md"] = page.Bytes()
	pages["expressions.md"] = expressionsPage()

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

// expressionsPage is the reference of the language of conditions and values.
func expressionsPage() []byte {
	var page bytes.Buffer
	fmt.Fprintf(&page, "# Expressions\n\n%s%s", generated, expr.Semantics())
	kind := ""
	code := func(s string) string { return "`" + strings.ReplaceAll(s, "|", `\|`) + "`" }
	for _, e := range expr.Reference() {
		if e.Kind != kind {
			kind = e.Kind
			fmt.Fprintf(&page, "\n## %ss\n\n", title(kind))
			if kind == "field" {
				fmt.Fprintln(&page, "| field | of | what it is | example | gives |\n|---|---|---|---|---|")
			} else {
				fmt.Fprintf(&page, "| %s | what it does | example | gives |\n|---|---|---|---|\n", kind)
			}
		}
		fmt.Fprintf(&page, "| %s |", code(e.Usage))
		if kind == "field" {
			of := strings.Trim(strings.ReplaceAll(fmt.Sprint(e.Signals), " ", ", "), "[]")
			if len(e.Signals) == len(creel.Signals()) {
				of = "all"
			}
			fmt.Fprintf(&page, " %s |", of)
		}
		fmt.Fprintf(&page, " %s | %s | %s |\n", strings.ReplaceAll(e.Doc, "|", `\|`), code(e.Example), code(e.Result))
	}
	fmt.Fprintf(&page, "\nThe examples are run by a test, for one log, or if they are not of logs, one data point or span.\n")
	return page.Bytes()
}

func title(s string) string { return string(s[0]-'a'+'A') + s[1:] }

func schemaFile(t *testing.T) []byte {
	text, err := json.MarshalIndent(agent.Parts{Plugins: all.Plugins(), Centers: centers.Centers()}.JSONSchema(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(text, '\n')
}
