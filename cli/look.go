package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/agent/trial"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/pipeline"
)

// load reads the configuration for a command that only looks at it.
func (c *Commands) load() (*agent.Config, error) {
	cfg, err := agent.Load(c.file, config.OSEnv(), c.Plugins)
	switch {
	case err == nil:
		return cfg, nil
	case errors.Is(err, os.ErrNotExist):
		return nil, Exit(ExitUsage, err)
	}
	return nil, Exit(ExitNo, err)
}

func (c *Commands) validate() *cobra.Command {
	return c.WithConfig(&cobra.Command{
		Use: "validate -c FILE", Short: "Check a configuration and say everything that is wrong.", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			cfg, err := c.load()
			if err != nil {
				return err
			}
			for _, w := range cfg.Plan.Warnings {
				fmt.Fprintf(c.Err, "warning: %s\n", w)
			}
			tests, err := cfg.Tests()
			if err != nil {
				return Exit(ExitNo, err)
			}
			fmt.Fprintf(c.Out, "%s is right: %d collectors, %d pipelines, %d exporters", c.file,
				len(cfg.Plan.Collectors), len(cfg.Plan.Pipelines), len(cfg.Plan.Exporters))
			if len(tests) > 0 {
				fmt.Fprintf(c.Out, ", %d tests", len(tests))
			}
			fmt.Fprintln(c.Out)
			return nil
		},
	})
}

func (c *Commands) schema() *cobra.Command {
	return &cobra.Command{
		Use: "schema", Short: "Print the JSON Schema of a configuration, for editors.", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			enc := json.NewEncoder(c.Out)
			enc.SetIndent("", "  ")
			return enc.Encode(agent.JSONSchema(c.Plugins))
		},
	}
}

func (c *Commands) graph() *cobra.Command {
	format := "text"
	cmd := &cobra.Command{
		Use: "graph -c FILE", Short: "Show which way records go.", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			cfg, err := c.load()
			if err != nil {
				return err
			}
			switch format {
			case "text":
				graphText(c.Out, cfg.Plan)
			case "dot":
				graphDot(c.Out, cfg.Plan)
			default:
				return fmt.Errorf("unknown output %q; say -o text or -o dot", format)
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", format, "text, or dot for Graphviz")
	return c.WithConfig(cmd)
}

func graphText(w io.Writer, p *pipeline.Plan) {
	for _, pl := range p.Pipelines {
		fmt.Fprintf(w, "%s\n", pl.ID)
		from := pl.From
		if len(from) == 0 {
			from = []string{"(other pipelines)"}
		}
		steps := []string{strings.Join(from, ", ")}
		steps = append(steps, pl.Through...)
		to := slices.Clone(pl.To)
		for _, id := range pl.Outputs {
			to = append(to, "pipeline "+id)
		}
		steps = append(steps, strings.Join(to, ", "))
		ack := ""
		if pl.AckedInMemory {
			ack = "   (acknowledged in memory)"
		}
		fmt.Fprintf(w, "  %s%s\n", strings.Join(steps, " → "), ack)
	}
}

func graphDot(w io.Writer, p *pipeline.Plan) {
	fmt.Fprintln(w, "digraph creel {\n  rankdir=LR; node [shape=box];")
	for _, pl := range p.Pipelines {
		enter := func(i int) string {
			if i < len(pl.Through) {
				return pl.ID + ": " + pl.Through[i]
			}
			return ""
		}
		var last []string
		for _, id := range pl.From {
			last = append(last, "collectors."+id)
		}
		for i := range pl.Through {
			for _, l := range last {
				fmt.Fprintf(w, "  %q -> %q;\n", l, enter(i))
			}
			last = []string{enter(i)}
		}
		for _, l := range last {
			for _, id := range pl.To {
				fmt.Fprintf(w, "  %q -> %q;\n", l, "exporters."+id)
			}
			for _, id := range pl.Outputs {
				fmt.Fprintf(w, "  %q -> %q [style=dashed];\n", l, "pipeline "+id)
			}
		}
	}
	fmt.Fprintln(w, "}")
}

func (c *Commands) explain() *cobra.Command {
	return &cobra.Command{
		Use: "explain [PATH]", Short: "Tell what can be written in a configuration.", Args: cobra.MaximumNArgs(1),
		Example: fmt.Sprintf("  %[1]s explain\n  %[1]s explain exporters\n  %[1]s explain exporters.otlp.delivery.batch", c.Name),
		RunE: func(_ *cobra.Command, args []string) error {
			path := ""
			if len(args) > 0 {
				path = args[0]
			}
			return c.explainPath(path)
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			paths := []string{"agent", "pipelines", trial.Section}
			for _, p := range c.Plugins {
				paths = append(paths, pipeline.Section(p.Kind)+"."+p.Name)
			}
			return paths, cobra.ShellCompDirectiveNoFileComp
		},
	}
}

func (c *Commands) explainPath(path string) error {
	section, rest, _ := strings.Cut(path, ".")
	switch section {
	case "":
		fmt.Fprintln(c.Out, "A configuration has these sections:")
		fmt.Fprintln(c.Out, "  agent       the agent itself: labels, log, admin endpoint\n  collectors  where records come from\n  processors  what happens to them\n  exporters   where they go\n  pipelines   who sends to whom: from, through, to\n  tests       what has to come of which records")
		for k := creel.KindCollector; k <= creel.KindExporter; k++ {
			fmt.Fprintln(c.Out)
			c.listPlugins(k)
		}
		fmt.Fprintf(c.Out, "\nMore: %s explain exporters.otlp, %s explain pipelines\n", c.Name, c.Name)
		return nil
	case "agent":
		return c.explainOptions("agent", agent.SettingsSchema(), rest)
	case "pipelines":
		return c.explainOptions("pipelines", config.Of[pipeline.Route](), rest)
	case trial.Section:
		if rest != "" {
			return c.explainOptions(section, trial.Schema(), rest)
		}
		fmt.Fprintf(c.Out, "Tests of the configuration, by name: %s test runs them, an agent leaves them alone. Each has\n\n", c.Name)
		trial.Explain(c.Out)
		return nil
	}
	var known []string
	for k := creel.KindCollector; k <= creel.KindExporter; k++ {
		known = append(known, pipeline.Section(k))
		if section != pipeline.Section(k) {
			continue
		}
		if rest == "" {
			c.listPlugins(k)
			return nil
		}
		id, options, _ := strings.Cut(rest, ".")
		name, _, _ := strings.Cut(id, "/")
		var names []string
		for _, p := range c.Plugins {
			if p.Kind != k {
				continue
			}
			if p.Name == name {
				if options == "" {
					fmt.Fprintf(c.Out, "%s %s: %s\n\n", p.Kind, p.Name, p.Doc)
				}
				return c.explainOptions(section+"."+id, pipeline.Schema(p), options)
			}
			names = append(names, p.Name)
		}
		return c.unknown(fmt.Sprintf("there is no %s %q", k, name), name, names)
	}
	return c.unknown(fmt.Sprintf("there is no section %q", section), section, append(known, "agent", "pipelines", trial.Section))
}

func (c *Commands) explainOptions(at string, s config.Schema, path string) error {
	if path == "" {
		s.Explain(c.Out)
		return nil
	}
	f, ok := s.Lookup(path)
	if !ok {
		var names []string
		for _, f := range s.Fields() {
			names = append(names, f.Name)
		}
		first, _, _ := strings.Cut(path, ".")
		return c.unknown(fmt.Sprintf("%s has no option %q", at, path), first, names)
	}
	f.Explain(c.Out)
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
	fmt.Fprintf(c.Out, "%s:\n", pipeline.Section(k))
	for _, p := range c.Plugins {
		if p.Kind == k {
			fmt.Fprintf(c.Out, "  %-8s %s\n", p.Name, p.Doc)
		}
	}
}
