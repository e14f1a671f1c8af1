package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/agent/identity"
	"github.com/creelhq/creel/config"
)

func (c *Commands) agent() *cobra.Command {
	cmd := &cobra.Command{
		Use: "agent [-c FILE]", Short: "Run an agent until it is told to stop.", Args: cobra.NoArgs, RunE: c.runAgent,
		Long: "Run an agent with the configuration in FILE. One that has joined a hub needs none: then it sends the hub what can be\n" +
			"collected from this machine, as " + c.Name + " join says.\n\n" +
			"SIGHUP reads the configuration anew; if it is wrong, everything goes on as before. SIGTERM and SIGINT stop\n" +
			"collecting and deliver what was collected, within agent.drain; a second one stops at once.",
	}
	c.agentFlags(cmd)
	return cmd
}

func (c *Commands) agentFlags(cmd *cobra.Command) {
	c.WithData(c.mayHaveConfig(cmd))
	cmd.Flags().StringVar(&c.hub, "hub", "", "`URL` of the hub to report to, instead of agent.hub.url")
}

// Signals returns a context that is done when the process is told to stop, and a channel that asks for a reload on
// SIGHUP. A second signal to stop ends the process.
func Signals(parent context.Context) (ctx context.Context, reload <-chan struct{}, stop func()) {
	ctx, cancel := signal.NotifyContext(parent, os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, cancel) // a second signal ends the process
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	asked := make(chan struct{})
	go func() {
		for {
			select {
			case <-hangups:
			case <-ctx.Done():
				return
			}
			select {
			case asked <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, asked, func() {
		signal.Stop(hangups)
		cancel()
	}
}

func (c *Commands) runAgent(cmd *cobra.Command, _ []string) error {
	LimitMemory()
	ctx, reload, stop := Signals(cmd.Context())
	defer stop()
	for {
		o := agent.Options{
			Config: c.file, Data: c.DataDir(), Plugins: c.Plugins, Centers: c.Centers, Version: Version(), Log: c.Err, Reload: reload, Hub: c.hub,
		}
		if c.file == "" {
			text, err := c.makeUp()
			if err != nil {
				return err
			}
			o.Config, o.Text = "what creel has made up for this machine", []byte(text)
		}
		if err := agent.Run(ctx, o); !errors.Is(err, agent.ErrRestart) {
			return Started(err)
		}
	}
}

// makeUp returns the configuration of an agent that was given none.
func (c *Commands) makeUp() (string, error) {
	is, err := identity.Open(agent.IdentityDir(c.DataDir()), identity.Options{})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("which configuration? Say -c FILE; examples/ has some to begin with. An agent that has joined a hub needs none: %s join URL --token TOKEN", c.Name)
	case err != nil:
		return "", Exit(ExitNo, err)
	}
	text, err := joinedConfig(Look(), is.Addresses())
	if err != nil {
		return "", Exit(ExitNo, err)
	}
	return text, nil
}

// LimitMemory sets the collector of garbage for a process that runs for long.
func LimitMemory() {
	// Most of the heap is text, which is not searched for pointers: collecting earlier costs little, and saves a tenth.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(70)
	}
}

// Started gives what agent.Run returns its exit code.
func Started(err error) error {
	if err == nil {
		return nil
	}
	var errs config.Errors
	if errors.As(err, &errs) || errors.Is(err, os.ErrNotExist) {
		return Exit(ExitUsage, err)
	}
	return Exit(ExitNo, err)
}
