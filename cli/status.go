package cli

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/creelhq/creel/report"
)

func (c *Commands) status() *cobra.Command {
	format := "table"
	cmd := &cobra.Command{
		Use: "status", Short: "Show how the agent on this machine is.", Args: cobra.NoArgs,
		Long: "Show the state of the agent whose state directory is DIR, its components and its ledger: what became of every record since\n" +
			"it was started. Each line of the ledger adds up; UNEXPLAINED is what is being worked on at this moment, or a fault if it stays.\n" +
			"Exit code 1: the agent is not healthy; 3: no agent was reached.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var s agentStatus
			for path, into := range map[string]any{"/healthz": &s.Health, "/components": &s.Components, "/ledger": &s.Ledger} {
				if err := c.Call(cmd.Context(), http.MethodGet, path, nil, into); err != nil {
					return err
				}
			}
			if err := c.Print(format, s, []string{s.Health.ID}, s.print); err != nil {
				return err
			}
			if s.Health.Health != report.Healthy {
				return Exit(ExitNo, errors.New("the agent is degraded: see ERROR above"))
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", format, "table, json, yaml or name")
	return c.WithData(cmd)
}

type agentStatus struct {
	Health     report.Health      `json:"health"`
	Components []report.Component `json:"components"`
	Ledger     report.Ledger      `json:"ledger"`
}

func (s *agentStatus) print(w *tabwriter.Writer) {
	h := s.Health
	fmt.Fprintf(w, "agent %s, version %s, %s and %s since %s\n", h.ID, h.Version, h.State, h.Health, h.Started.Local().Format(time.DateTime))
	if hub := h.Hub; hub.URL != "" {
		how := "connected to"
		if !hub.Connected {
			how = "not connected to"
		}
		fmt.Fprintf(w, "%s hub %s since %s", how, hub.URL, hub.Since.Local().Format(time.DateTime))
		if hub.Error != "" {
			fmt.Fprintf(w, ": %s", printable(hub.Error))
		}
		fmt.Fprintln(w)
	}
	if r := h.Reload; r.Error != "" {
		fmt.Fprintf(w, "last reload refused at %s:\n  %s\n", r.Time.Local().Format(time.DateTime), strings.ReplaceAll(r.Error, "\n", "\n  "))
	}
	ComponentTable(w, s.Components)
	LedgerTables(w, s.Ledger)
}
