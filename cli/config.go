package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/creelhq/creel/agent"
)

func (c *Commands) config() *cobra.Command {
	origin, format := false, ""
	cmd := &cobra.Command{
		Use: "config [-c FILE]", Short: "Print the configuration that is in force, with all defaults.", Args: cobra.NoArgs,
		Long: "Print the configuration in FILE, or without -c the one that the agent on this machine runs: defaults filled in, secrets\n" +
			"redacted, by component. --origin says of every option where its value comes from: the file, line and column of its key,\n" +
			"and the references there; default; or start, for what the machine or a flag says.",
		Example: fmt.Sprintf("  %[1]s config\n  %[1]s config -c creel.yaml -o json\n  %[1]s config --origin | grep -v default", c.Name),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if origin {
				return c.printOrigins(cmd.Context(), cmp.Or(format, "table"))
			}
			options, err := c.effective(cmd.Context())
			if err != nil {
				return err
			}
			if format == "table" {
				format = ""
			}
			return c.Print(cmp.Or(format, "yaml"), options, slices.Sorted(maps.Keys(options)), nil)
		},
	}
	cmd.Flags().BoolVar(&origin, "origin", false, "say where each value comes from")
	cmd.Flags().StringVarP(&format, "output", "o", "", "yaml, json or name; with --origin also table, its default")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json", "yaml", "name"}, cobra.ShellCompDirectiveNoFileComp)) // the flag is there
	return c.WithData(c.mayHaveConfig(cmd))
}

func (c *Commands) printOrigins(ctx context.Context, format string) error {
	var list []agent.Origin
	if c.file != "" {
		cfg, err := c.load()
		if err != nil {
			return err
		}
		list = cfg.Origins()
	} else if err := c.Call(ctx, http.MethodGet, "/config?origin=1", nil, &list); err != nil {
		return err
	}
	paths := make([]string, len(list))
	for i, o := range list {
		paths[i] = o.Path
	}
	return c.Print(format, list, paths, func(w *tabwriter.Writer) {
		fmt.Fprintln(w, "OPTION\tVALUE\tFROM")
		for _, o := range list {
			fmt.Fprintf(w, "%s\t%s\t%s\n", printable(o.Path), printable(shorten(o.Value, 60)), printable(o.Where))
		}
	})
}

// effective returns the options in the configuration file, or if none is named those that the agent here runs, by
// component.
func (c *Commands) effective(ctx context.Context) (map[string]json.RawMessage, error) {
	if c.file == "" {
		return c.running(ctx)
	}
	cfg, err := c.load()
	if err != nil {
		return nil, err
	}
	return cfg.Effective(), nil
}

// running returns the options that the agent here runs.
func (c *Commands) running(ctx context.Context) (options map[string]json.RawMessage, err error) {
	err = c.Call(ctx, http.MethodGet, "/config", nil, &options)
	return options, err
}
