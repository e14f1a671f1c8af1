package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/agent/trial"
	"github.com/creelhq/creel/center"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/expr"
	"github.com/creelhq/creel/pipeline"
)

// expressions is what explain calls the language of conditions and values.
const expressions = "expressions"

func (c *Commands) explain() *cobra.Command {
	return &cobra.Command{
		Use: "explain [PATH]", Short: "Tell what can be written in a configuration.", Args: cobra.MaximumNArgs(1),
		Example: fmt.Sprintf("  %[1]s explain\n  %[1]s explain exporters\n  %[1]s explain parse\n  %[1]s explain exporters.otlp.delivery.batch\n  %[1]s explain %[2]s", c.Name, expressions),
		RunE: func(_ *cobra.Command, args []string) error {
			path := ""
			if len(args) > 0 {
				path = args[0]
			}
			return c.explainPath(path)
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			paths := append(c.words(), expressions)
			for _, p := range c.Plugins {
				paths = append(paths, pipeline.Section(p.Kind)+"."+p.Name)
			}
			return paths, cobra.ShellCompDirectiveNoFileComp
		},
	}
}

// words returns the words that a path begins with: sections, and names of plugins.
func (c *Commands) words() []string {
	words := []string{"agent", "pipelines", trial.Section}
	for k := creel.KindCollector; k <= creel.KindExporter; k++ {
		words = append(words, pipeline.Section(k))
	}
	for _, p := range c.Plugins {
		words = append(words, p.Name)
	}
	slices.Sort(words)
	return slices.Compact(words)
}

func (c *Commands) explainPath(path string) error {
	section, rest, _ := strings.Cut(path, ".")
	switch section {
	case "":
		c.explainAll()
		return nil
	case "agent":
		if path, ok := strings.CutPrefix(rest, "centers"); ok && (path == "" || path[0] == '.') {
			return c.explainCenters(strings.TrimPrefix(path, "."))
		}
		return c.explainOptions("agent", agent.SettingsSchema(), rest)
	case "pipelines":
		return c.explainOptions("pipelines", config.Of[pipeline.Route](), rest)
	case expressions:
		return c.explainExpressions(rest)
	case trial.Section:
		if rest != "" {
			return c.explainOptions(section, trial.Schema(), rest)
		}
		fmt.Fprintf(c.Out, "Tests of the configuration, by name: %s test runs them, an agent leaves them alone. Each has\n\n", c.Name)
		trial.Explain(c.Out)
		return nil
	}
	for k := creel.KindCollector; k <= creel.KindExporter; k++ {
		switch {
		case section != pipeline.Section(k):
		case rest == "":
			c.listPlugins(k)
			return nil
		default:
			return c.explainPlugin(k, rest)
		}
	}
	return c.explainName(path)
}

func (c *Commands) explainAll() {
	fmt.Fprintln(c.Out, "A configuration has these sections:")
	fmt.Fprintln(c.Out, "  agent       the agent itself: labels, log, admin endpoint\n  collectors  where records come from\n  processors  what happens to them\n  exporters   where they go\n  pipelines   who sends to whom: from, through, to\n  tests       what has to come of which records")
	for k := creel.KindCollector; k <= creel.KindExporter; k++ {
		fmt.Fprintln(c.Out)
		c.listPlugins(k)
	}
	fmt.Fprintf(c.Out, "\nMore: %[1]s explain exporters.otlp, %[1]s explain pipelines, %[1]s explain %[2]s\n", c.Name, expressions)
}

// explainPlugin explains a plugin, or one of its options. path is what follows the section.
func (c *Commands) explainPlugin(k creel.Kind, path string) error {
	id, options, _ := strings.Cut(path, ".")
	name, _, _ := strings.Cut(id, "/")
	var names []string
	for _, p := range c.Plugins {
		if p.Kind != k {
			continue
		}
		if names = append(names, p.Name); p.Name != name {
			continue
		}
		at := pipeline.Section(k) + "." + id
		if options != "" {
			return c.explainOptions(at, pipeline.Schema(p), options)
		}
		c.explainWhole(p, at)
		return nil
	}
	return c.unknown(fmt.Sprintf("there is no %s %q", k, name), name, names)
}

// explainCenters explains the centers, one of them, or one of its options. path is what follows agent.centers.
func (c *Commands) explainCenters(path string) error {
	id, options, _ := strings.Cut(path, ".")
	name, _, _ := strings.Cut(id, "/")
	var names []string
	for _, k := range c.Centers {
		if names = append(names, k.Name); k.Name == name {
			return c.explainOptions("agent.centers."+id, center.Schema(k), options)
		}
	}
	if path != "" {
		return c.unknown(fmt.Sprintf("there is no center %q", name), name, names)
	}
	fmt.Fprintln(c.Out, "agent.centers: where more of the configuration comes from, by id: type or type/name.")
	for _, k := range c.Centers {
		fmt.Fprintf(c.Out, "\n%s explain agent.centers.%s\n    %s\n", c.Name, k.Name, k.Doc)
	}
	return nil
}

// explainWhole explains a plugin: first its own options, then in short those of its kind, and its example.
func (c *Commands) explainWhole(p creel.Plugin, at string) {
	fmt.Fprintf(c.Out, "%s %s: %s\n", p.Kind, p.Name, p.Doc)
	own := map[string]bool{}
	for _, f := range p.Config.Fields() {
		own[f.Name] = true
	}
	if len(own) > 0 {
		fmt.Fprintln(c.Out)
		p.Config.Explain(c.Out)
	}
	fmt.Fprintf(c.Out, "\nand, as every such %s:\n\n", p.Kind)
	for _, f := range pipeline.Schema(p).Fields() {
		if own[f.Name] {
			continue
		}
		more := len(f.Fields) > 0
		f.Fields = nil
		f.Explain(c.Out)
		if more {
			fmt.Fprintf(c.Out, "    More: %s explain %s.%s\n", c.Name, at, f.Name)
		}
	}
	c.hintAt(p.Config.Fields())
	if p.Example != "" {
		fmt.Fprintf(c.Out, "\nExample, a whole configuration:\n\n    %s\n", strings.ReplaceAll(strings.TrimSpace(p.Example), "\n", "\n    "))
	}
}

// explainName explains the plugin of a name, or says which ones there are.
func (c *Commands) explainName(path string) error {
	id, _, _ := strings.Cut(path, ".")
	name, _, _ := strings.Cut(id, "/")
	var kinds []creel.Kind
	for _, p := range c.Plugins {
		if p.Name == name {
			kinds = append(kinds, p.Kind)
		}
	}
	switch len(kinds) {
	case 0:
		return c.unknown(fmt.Sprintf("there is no section and no plugin %q", name), name, append(c.words(), expressions))
	case 1:
		return c.explainPlugin(kinds[0], path)
	}
	fmt.Fprintf(c.Out, "There are several plugins %s:\n", name)
	for _, p := range c.Plugins {
		if p.Name == name {
			fmt.Fprintf(c.Out, "\n%s explain %s.%s\n    %s\n", c.Name, pipeline.Section(p.Kind), path, p.Doc)
		}
	}
	return nil
}

func (c *Commands) explainOptions(at string, s config.Schema, path string) error {
	fields := s.Fields()
	if path == "" {
		s.Explain(c.Out)
	} else {
		f, ok := s.Lookup(path)
		if !ok {
			var names []string
			for _, f := range fields {
				names = append(names, f.Name)
			}
			first, _, _ := strings.Cut(path, ".")
			return c.unknown(fmt.Sprintf("%s has no option %q", at, path), first, names)
		}
		f.Explain(c.Out)
		fields = []config.Field{f}
	}
	c.hintAt(fields)
	return nil
}

// hintAt says where the language of expressions is explained, if one of the options is written in it.
func (c *Commands) hintAt(fields []config.Field) {
	if hasExpressions(fields) {
		fmt.Fprintf(c.Out, "\nHow conditions and expressions are written: %s explain %s\n", c.Name, expressions)
	}
}

// hasExpressions reports whether something is written in the language of expressions.
func hasExpressions(fields []config.Field) bool {
	types := []config.Named{expr.Condition{}, expr.Expression{}, expr.Target{}, expr.Assignment{}, expr.Move{}}
	return slices.ContainsFunc(fields, func(f config.Field) bool {
		return hasExpressions(f.Fields) || slices.ContainsFunc(types, func(t config.Named) bool { return strings.HasSuffix(f.Type, t.TypeName()) })
	})
}

// explainExpressions prints the reference of the language, or of what is called name in it.
func (c *Commands) explainExpressions(name string) error {
	if name == "" {
		for line := range strings.Lines(expr.Semantics()) {
			heading, isHeading := strings.CutPrefix(line, "## ")
			switch {
			case isHeading:
				fmt.Fprint(c.Out, strings.ToUpper(heading))
			case !strings.HasPrefix(line, "```"):
				fmt.Fprint(c.Out, line)
			}
		}
	}
	kind, found := "", false
	var names []string
	for _, e := range expr.Reference() {
		names = append(names, e.Name)
		if name != "" && name != e.Name {
			continue
		}
		if found = true; kind != e.Kind && name == "" {
			kind = e.Kind
			fmt.Fprintf(c.Out, "\n%sS\n\n", strings.ToUpper(kind))
		}
		of := ""
		if n := len(e.Signals); n > 0 && n < len(creel.Signals()) {
			of = "  (" + strings.Trim(fmt.Sprint(e.Signals), "[]") + ")"
		}
		fmt.Fprintf(c.Out, "%s%s\n    %s\n    %s → %s\n", e.Usage, of, e.Doc, e.Example, e.Result)
	}
	if !found {
		return c.unknown(fmt.Sprintf("there is no field, operator or function %q", name), name, names)
	}
	return nil
}

func (c *Commands) unknown(what, name string, known []string) error {
	hint := config.DidYouMean(name, known)
	if hint == "" {
		hint = "known are " + strings.Join(known, ", ")
	}
	return Exit(ExitNo, fmt.Errorf("%s; %s", what, hint))
}

func (c *Commands) listPlugins(k creel.Kind) {
	width := 0
	for _, p := range c.Plugins {
		if p.Kind == k {
			width = max(width, len(p.Name))
		}
	}
	fmt.Fprintf(c.Out, "%s:\n", pipeline.Section(k))
	for _, p := range c.Plugins {
		if p.Kind == k {
			fmt.Fprintf(c.Out, "  %-*s  %s\n", width, p.Name, p.Doc)
		}
	}
}
