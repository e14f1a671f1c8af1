package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/pipeline"
)

// load reads the configuration for a command that only looks at it.
func (c *Commands) load() (*agent.Config, error) {
	cfg, err := c.Parts().Load(c.file, config.OSEnv())
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
			return enc.Encode(c.Parts().JSONSchema())
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
	disks := spooled(p)
	for _, pl := range p.Pipelines {
		fmt.Fprintf(w, "%s\n", pl.ID)
		from := pl.From
		if len(from) == 0 {
			from = []string{"(other pipelines)"}
		}
		steps := []string{strings.Join(from, ", ")}
		steps = append(steps, pl.Through...)
		var to []string
		for _, id := range pl.To {
			disk := ""
			if disks[id] {
				disk = "spool, "
			}
			to = append(to, fmt.Sprintf("%s (%sack: %s)", id, disk, ackAt(pl, disks[id])))
		}
		for _, id := range pl.Outputs {
			to = append(to, "pipeline "+id)
		}
		steps = append(steps, strings.Join(to, ", "))
		fmt.Fprintf(w, "  %s\n", strings.Join(steps, " → "))
	}
}

// spooled returns the ids of the exporters that have a disk queue.
func spooled(p *pipeline.Plan) map[string]bool {
	ids := make(map[string]bool)
	for _, c := range p.Exporters {
		o, err := config.Decode[pipeline.Sending](config.Of[pipeline.Sending]().Pick(c.Options))
		if err != nil {
			panic("BUG: checked options do not decode: " + err.Error())
		}
		ids[c.ID] = o.Delivery.Spool != nil
	}
	return ids
}

// ackAt returns when an exporter's share of a pipeline is acknowledged.
func ackAt(p pipeline.Pipeline, spooled bool) string {
	switch {
	case p.Ack != "":
		return p.Ack
	case spooled:
		return "process"
	}
	return "delivered"
}

func graphDot(w io.Writer, p *pipeline.Plan) {
	fmt.Fprintln(w, "digraph creel {\n  rankdir=LR; node [shape=box];")
	disks := spooled(p)
	for _, c := range p.Exporters {
		if disks[c.ID] {
			fmt.Fprintf(w, "  %q [shape=cylinder];\n", c.Path())
		}
	}
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
				fmt.Fprintf(w, "  %q -> %q [label=%q];\n", l, "exporters."+id, ackAt(pl, disks[id]))
			}
			for _, id := range pl.Outputs {
				fmt.Fprintf(w, "  %q -> %q [style=dashed];\n", l, "pipeline "+id)
			}
		}
	}
	fmt.Fprintln(w, "}")
}
