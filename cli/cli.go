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
	"strings"

	"github.com/spf13/cobra"

	"github.com/creelhq/creel"
	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/center"
	"github.com/creelhq/creel/config"
)

// Exit codes.
const (
	ExitYes         = 0
	ExitNo          = 1 // the answer is no
	ExitUsage       = 2
	ExitUnreachable = 3
	ExitForbidden   = 4
	ExitNotFound    = 5
)

// failure is an error that ends the program with a code of its own.
type failure struct {
	code int
	err  error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// Exit makes err end the program with an exit code of its own.
func Exit(code int, err error) error { return &failure{code, err} }

// Program says which program runs.
type Program struct {
	Name    string // creel or creel-agent
	Plugins []creel.Plugin
	Centers []center.Center

	// AgentIsDefault makes the program without a command run the agent.
	AgentIsDefault bool

	// More returns further commands of the program; nil: there are none.
	More func(*Commands) []*cobra.Command
}

// Main runs the program and returns its exit code.
func Main(p Program, args []string, stdout, stderr io.Writer) int {
	c := &Commands{Program: p, Out: stdout, Err: stderr}
	root := c.root()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(context.Background())
	if err != nil && strings.HasPrefix(err.Error(), "accepts ") { // cobra counts arguments, and does not say which
		err = fmt.Errorf("%w; say: %s", err, cmd.UseLine())
	}
	return c.exit(err)
}

// exit prints an error, and returns the exit code.
func (c *Commands) exit(err error) int {
	if err == nil {
		return ExitYes
	}
	c.complain(err)
	if f := (*failure)(nil); errors.As(err, &f) {
		return f.code
	}
	return ExitUsage // cobra found a wrong flag or command
}

// Parts returns what the program makes agents of.
func (p Program) Parts() agent.Parts { return agent.Parts{Plugins: p.Plugins, Centers: p.Centers} }

// Commands is what the program's commands work with.
type Commands struct {
	Program
	Out, Err io.Writer

	file string // --config
	data string // --data
	hub  string // --hub
}

// complain prints an error; those of a configuration one by one, with their number.
func (c *Commands) complain(err error) {
	var errs config.Errors
	if errors.As(err, &errs) {
		for _, e := range errs {
			fmt.Fprintln(c.Err, e)
		}
		noun := "errors"
		if len(errs) == 1 {
			noun = "error"
		}
		fmt.Fprintf(c.Err, "%s: %d %s in %s; nothing was started. %s explain PATH tells what can be written\n", c.Name, len(errs), noun, c.file, c.Name)
		return
	}
	fmt.Fprintf(c.Err, "%s: %v\n", c.Name, err)
}

func (c *Commands) root() *cobra.Command {
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
	root.AddCommand(c.agent(), c.join(), c.validate(), c.test(), c.explain(), c.schema(), c.graph(), c.diff(), c.config(), c.status(), c.reload(), c.bundle(), c.tap(),
		c.deadletter(), c.spool(), c.service(), c.version())
	for _, o := range orders {
		root.AddCommand(c.orderCommand(o))
	}
	if c.More != nil {
		for _, cmd := range c.More(c) {
			extend(root, cmd)
		}
	}
	return root
}

// extend adds a command to root. If there is one of that name, it gets the new one's subcommands; a new one without any
// takes its place.
func extend(root, cmd *cobra.Command) {
	for _, old := range root.Commands() {
		switch {
		case old.Name() != cmd.Name():
		case cmd.HasSubCommands():
			old.AddCommand(cmd.Commands()...)
			return
		default:
			root.RemoveCommand(old)
		}
	}
	root.AddCommand(cmd)
}

// WithConfig adds the flag --config, which must be given.
func (c *Commands) WithConfig(cmd *cobra.Command) *cobra.Command {
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

// mayHaveConfig adds the flag --config, which may be left out.
func (c *Commands) mayHaveConfig(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVarP(&c.file, "config", "c", "", "configuration `FILE`, YAML or JSON")
	cmd.MarkFlagFilename("config", "yaml", "yml", "json")
	return cmd
}

// WithData adds the flag --data.
func (c *Commands) WithData(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVar(&c.data, "data", "", "state `DIR` (default "+defaultData()+")")
	cmd.MarkFlagDirname("data")
	return cmd
}

// File returns the configuration file that was named.
func (c *Commands) File() string { return c.file }

// DataDir returns the state directory that is meant.
func (c *Commands) DataDir() string {
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

func (c *Commands) version() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version.", Args: cobra.NoArgs,
		Run: func(*cobra.Command, []string) { fmt.Fprintln(c.Out, c.Name, Version()) },
	}
}

// Version is what the Go tool noted when it built the program: the module's version, or the revision of its source.
func Version() string {
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
