package cli

import (
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/spf13/cobra"

	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/config"
)

func (c *commands) agent() *cobra.Command {
	cmd := &cobra.Command{
		Use: "agent -c FILE", Short: "Run an agent until it is told to stop.", Args: cobra.NoArgs, RunE: c.runAgent,
		Long: "Run an agent with the configuration in FILE.\n\n" +
			"SIGHUP reads the configuration anew; if it is wrong, everything goes on as before. SIGTERM and SIGINT stop\n" +
			"collecting and deliver what was collected, within agent.drain; a second one stops at once.",
	}
	c.agentFlags(cmd)
	return cmd
}

func (c *commands) agentFlags(cmd *cobra.Command) {
	c.withData(c.withConfig(cmd))
}

func (c *commands) runAgent(cmd *cobra.Command, _ []string) error {
	// The limit of the container, less what is not the heap's; without one nothing changes.
	_, _ = memlimit.Set()

	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() {
		<-ctx.Done()
		stop() // a second signal ends the process
	}()
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	reload := make(chan struct{})
	go func() {
		for range hangups {
			select {
			case reload <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}()
	err := agent.Run(ctx, agent.Options{
		Config: c.file, Data: c.dataDir(), Plugins: c.Plugins, Version: version(), Log: c.err, Reload: reload,
	})
	if err == nil {
		return nil
	}
	var errs config.Errors
	if errors.As(err, &errs) || errors.Is(err, os.ErrNotExist) {
		return &failure{exitUsage, err}
	}
	return &failure{exitNo, err}
}
