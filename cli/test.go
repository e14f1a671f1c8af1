package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/creelhq/creel/agent/trial"
)

func (c *Commands) test() *cobra.Command {
	format, pattern := "text", ""
	var files []string
	cmd := &cobra.Command{
		Use: "test -c FILE…", Short: "Run the tests that stand in configurations.", Args: cobra.ArbitraryArgs,
		Long: "Run the tests in the section tests of each FILE: records that a collector would send, and what has to arrive at the\n" +
			"exporters. Processors, pipelines and the ledger are the real ones; no collector and no exporter is opened.\n" +
			"Exit code 1: a test failed; 2: a configuration is wrong, or there is no test.",
		Example: fmt.Sprintf("  %[1]s test -c creel.yaml\n  %[1]s test -c examples/*.yaml --run 'errors|slow'\n  %[1]s explain tests", c.Name),
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != "text" && format != "json" {
				return fmt.Errorf("unknown output %q; say -o text or -o json", format)
			}
			run, err := regexp.Compile(pattern)
			if err != nil {
				return fmt.Errorf("read --run: %w", err)
			}
			if files = append(files, args...); len(files) == 0 {
				return errors.New("which configuration? Say -c FILE")
			}
			var cases []trial.Case
			names := 0
			for _, file := range files {
				c.file = file // that is where complain says errors are
				all, err := c.tests()
				if err != nil {
					return Exit(ExitUsage, err)
				}
				names += len(all)
				for _, t := range all {
					if run.MatchString(t.Name) {
						cases = append(cases, t)
					}
				}
			}
			switch {
			case names == 0:
				return fmt.Errorf("there are no tests in %s; %s explain %s tells how one writes them", strings.Join(files, ", "), c.Name, trial.Section)
			case len(cases) == 0:
				return fmt.Errorf("none of %d tests has a name that %q fits", names, pattern)
			}
			return c.runTests(cmd, cases, format)
		},
	}
	cmd.Flags().StringArrayVarP(&files, "config", "c", nil, "configuration `FILE`, YAML or JSON; there may be several")
	cmd.MarkFlagFilename("config", "yaml", "yml", "json")
	cmd.Flags().StringVarP(&format, "output", "o", format, "text or json")
	cmd.Flags().StringVar(&pattern, "run", "", "run only tests whose name the regular expression `NAME` fits")
	return cmd
}

// tests reads the tests in the configuration file.
func (c *Commands) tests() ([]trial.Case, error) {
	cfg, err := c.load()
	if err != nil {
		return nil, err
	}
	return cfg.Tests()
}

// testReport is what test prints as JSON.
type testReport struct {
	Tests  []trial.Result `json:"tests"`
	Passed int            `json:"passed"`
	Failed int            `json:"failed"`
}

func (c *Commands) runTests(cmd *cobra.Command, cases []trial.Case, format string) error {
	var r testReport
	for _, t := range cases {
		result := t.Run(cmd.Context())
		r.Tests = append(r.Tests, result)
		if result.OK {
			r.Passed++
		} else {
			r.Failed++
		}
		if format == "text" {
			c.printResult(result)
		}
	}
	if format == "json" {
		enc := json.NewEncoder(c.Out)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		if err := enc.Encode(r); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(c.Out, "%d passed, %d failed\n", r.Passed, r.Failed)
	}
	if r.Failed > 0 {
		return Exit(ExitNo, errors.New("tests failed"))
	}
	return nil
}

func (c *Commands) printResult(r trial.Result) {
	if r.OK {
		fmt.Fprintf(c.Out, "ok    %s\n", r.Name)
		return
	}
	fmt.Fprintf(c.Out, "FAIL  %s  (%s:%d)\n", r.Name, r.File, r.Line)
	for _, p := range r.Problems {
		fmt.Fprintf(c.Out, "      %s\n", strings.ReplaceAll(p.String(), "\n", "\n      "))
	}
	for _, line := range r.Log {
		fmt.Fprintf(c.Out, "      log: %s\n", line)
	}
}
