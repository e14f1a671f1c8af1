// Package cli is the command line: it reads flags, calls the agent and prints. Answers go to standard output, progress
// and errors to standard error.
//
// It holds no state and decides nothing about data.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/config"
)

// Exit codes.
const (
	exitYes         = 0
	exitNo          = 1 // the answer is no
	exitUsage       = 2
	exitUnreachable = 3
)

// failure is an error that ends the program with a code of its own.
type failure struct {
	code int
	err  error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// Program says which program runs.
type Program struct {
	Name    string // creel or creel-agent
	Plugins []creel.Plugin

	// AgentIsDefault makes the program without a command run the agent.
	AgentIsDefault bool
}

// Main runs the program and returns its exit code.
func Main(p Program, args []string, stdout, stderr io.Writer) int {
	c := &commands{Program: p, out: stdout, err: stderr}
	root := c.root()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(context.Background())
	if err == nil {
		return exitYes
	}
	c.complain(err)
	if f := (*failure)(nil); errors.As(err, &f) {
		return f.code
	}
	return exitUsage // cobra found a wrong flag or command
}

type commands struct {
	Program
	out, err io.Writer

	file string // --config
	data string // --data
}

// complain prints an error; those of a configuration one by one, with their number.
func (c *commands) complain(err error) {
	var errs config.Errors
	if errors.As(err, &errs) {
		for _, e := range errs {
			fmt.Fprintln(c.err, e)
		}
		noun := "errors"
		if len(errs) == 1 {
			noun = "error"
		}
		fmt.Fprintf(c.err, "%s: %d %s in %s; nothing was started. %s explain PATH tells what can be written\n", c.Name, len(errs), noun, c.file, c.Name)
		return
	}
	fmt.Fprintf(c.err, "%s: %v\n", c.Name, err)
}

func (c *commands) root() *cobra.Command {
	root := &cobra.Command{
		Use: c.Name, SilenceUsage: true, SilenceErrors: true, Args: cobra.NoArgs,
		Short: "Collects logs, metrics and traces on this machine and delivers them.",
		Long: "creel collects logs, metrics and traces, processes them and delivers them, losing nothing on the way.\n\n" +
			"Begin with a configuration from examples/, look at it with `" + c.Name + " validate -c FILE`, run it with `" + c.Name + " agent -c FILE`.",
		Example: "  " + c.Name + " agent -c creel.yaml\n  " + c.Name + " explain exporters.otlp\n  " + c.Name + " status",
	}
	root.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	if c.AgentIsDefault {
		c.agentFlags(root)
		root.RunE = c.runAgent
	}
	root.AddCommand(c.agent(), c.validate(), c.explain(), c.schema(), c.graph(), c.status(), c.version())
	return root
}

// withConfig adds the flag --config, which must be given.
func (c *commands) withConfig(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVarP(&c.file, "config", "c", "", "configuration `FILE`, YAML or JSON (required)")
	cmd.MarkFlagFilename("config", "yaml", "yml", "json")
	prev := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		if c.file == "" {
			return fmt.Errorf("which configuration? Say -c FILE; examples/ has some to begin with")
		}
		if prev != nil {
			return prev(cmd, args)
		}
		return nil
	}
	return cmd
}

// withData adds the flag --data.
func (c *commands) withData(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVar(&c.data, "data", "", "state `DIR` (default "+defaultData()+")")
	cmd.MarkFlagDirname("data")
	return cmd
}

// dataDir returns the state directory that is meant.
func (c *commands) dataDir() string {
	if c.data != "" {
		return c.data
	}
	return defaultData()
}

// defaultData is $XDG_STATE_HOME/creel; for root, which runs services, /var/lib/creel.
func defaultData() string {
	if x := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(x) {
		return filepath.Join(x, "creel")
	}
	if os.Geteuid() == 0 {
		return "/var/lib/creel"
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "creel-data"
	}
	return filepath.Join(home, ".local", "state", "creel")
}

func (c *commands) version() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version.", Args: cobra.NoArgs,
		Run: func(*cobra.Command, []string) { fmt.Fprintln(c.out, c.Name, version()) },
	}
}

// version is what the Go tool noted when it built the program: the module's version, or the revision of its source.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	revision, changed := "development", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			changed = "+changes"
		}
	}
	return revision + changed
}
