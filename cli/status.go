package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/report"
)

func (c *Commands) status() *cobra.Command {
	format := "table"
	cmd := &cobra.Command{
		Use: "status", Short: "Show how the agent on this machine is.", Args: cobra.NoArgs,
		Long: "Show the state of the agent whose state directory is DIR, and why it is paused if it is; what it runs, how the last change of\n" +
			"that went, and what was refused or rolled back; its components; and its ledger: what became of every record since it was\n" +
			"started. -o wide adds the changes and transitions before. Each line of the ledger adds up; UNEXPLAINED is what is being worked on at this moment, or a fault if it stays.\n" +
			"Exit code 1: the agent is not healthy; 3: no agent was reached.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var s agentStatus
			for path, into := range map[string]any{"/healthz": &s.Health, "/components": &s.Components, "/ledger": &s.Ledger} {
				if err := c.Call(cmd.Context(), http.MethodGet, path, nil, into); err != nil {
					return err
				}
			}
			var err error
			if s.State, err = c.state(cmd.Context()); err != nil {
				return err
			}
			print := func(w *tabwriter.Writer) { c.printStatus(w, &s, format == "wide") }
			if err := c.Print(format, s, []string{s.Health.ID}, print); err != nil {
				return err
			}
			if s.Health.Health != report.Healthy {
				return Exit(ExitNo, errors.New("the agent is degraded: see ERROR above"))
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", format, "table, wide, json, yaml or name")
	return c.WithData(cmd)
}

type agentStatus struct {
	Health     report.Health      `json:"health"`
	Components []report.Component `json:"components"`
	Ledger     report.Ledger      `json:"ledger"`
	State      agent.State        `json:"state"`
}

// state returns what the agent says of its life and of what it runs; the last release's says nothing.
func (c *Commands) state(ctx context.Context) (s agent.State, err error) {
	err = c.Call(ctx, http.MethodGet, "/state", nil, &s)
	if f := (*failure)(nil); errors.As(err, &f) && f.code == ExitNotFound {
		err = nil
	}
	return s, err
}

func (c *Commands) printStatus(w *tabwriter.Writer, s *agentStatus, wide bool) {
	h := s.Health
	fmt.Fprintf(w, "agent %s, version %s, %s and %s since %s\n", h.ID, h.Version, h.State, h.Health, stamp(h.Started))
	if l := s.State.Life; l.State != "" && (l.State != h.State || l.Since.Sub(h.Started) >= time.Second) {
		fmt.Fprintf(w, "%s since %s\n", printable(l.State), stamp(l.Since))
	}
	c.holds(w, s.State.Life)
	if hub := h.Hub; hub.URL != "" {
		how := "connected to"
		if !hub.Connected {
			how = "not connected to"
		}
		fmt.Fprintf(w, "%s hub %s since %s", how, hub.URL, stamp(hub.Since))
		if hub.Error != "" {
			fmt.Fprintf(w, ": %s", printable(hub.Error))
		}
		fmt.Fprintln(w)
	}
	if id := h.Hub.Identity; id != nil {
		fmt.Fprintf(w, "certificate %d for the hub ends at %s and is renewed from %s on", id.Generation, stamp(id.Expires), stamp(id.Renews))
		if id.Error != "" {
			fmt.Fprintf(w, "; that has failed since %s: %s", stamp(id.Since), printable(id.Error))
		}
		fmt.Fprintln(w)
	}
	if r := h.Reload; r.Error != "" && len(s.State.Configuration.Receipts) == 0 {
		fmt.Fprintf(w, "last reload refused at %s:\n  %s\n", stamp(r.Time), indented(r.Error))
	}
	c.configurationTables(w, &s.State.Configuration, wide)
	if history := s.State.Life.History; wide && len(history) > 0 {
		fmt.Fprintln(w, "\nTRANSITION\tFROM\tTO\tEVENT\tCAUSE")
		for _, t := range slices.Backward(history) {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", stamp(t.Time), printable(t.From), printable(t.To), printable(t.Event), printable(t.Cause))
		}
	}
	ComponentTable(w, s.Components)
	LedgerTables(w, s.Ledger)
}

// configurationTables write what an agent runs, what it shall run, and what became of the last changes: with wide of all
// that it remembers.
func (c *Commands) configurationTables(w io.Writer, cfg *report.Configuration, wide bool) {
	if cfg.Hash == "" {
		return
	}
	fmt.Fprintf(w, "configuration %s runs\n", printable(cfg.Hash))
	if cfg.Wanted != "" && cfg.Wanted != cfg.Hash {
		fmt.Fprintf(w, "configuration %s is wanted, and does not run:\n  %s\n", printable(cfg.Wanted), indented(cmp.Or(cfg.Error, "it has not been tried yet")))
	}
	if left := time.Until(cfg.Probation); left > 0 {
		then := "if what has changed does worse than before, the last good configuration comes back"
		if cfg.Good == "" {
			then = "then it counts as good; there is none before to go back to"
		}
		fmt.Fprintf(w, "on probation for %s more: %s\n", Span(left.Seconds()), then)
	}
	for i, r := range slices.Backward(cfg.Receipts) {
		if wide || i == len(cfg.Receipts)-1 {
			fmt.Fprintln(w)
			c.receipt(w, r)
		}
	}
	if len(cfg.Documents) > 0 {
		fmt.Fprintln(w, "\nSOURCE\tDOCUMENT\tVERSION\tHASH\tSTATUS\tERROR")
		bySource := slices.Clone(cfg.Documents)
		slices.SortStableFunc(bySource, func(a, b report.Document) int { return cmp.Compare(a.Source, b.Source) })
		for _, d := range bySource {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", printable(d.Source), printable(d.Name), printable(d.Version), printable(d.Hash),
				printable(strings.ReplaceAll(d.Status, "_", " ")), printable(shorten(d.Error, 1000)))
		}
	}
	if len(cfg.Failed) > 0 {
		fmt.Fprintln(w, "\nFAILED\tWHEN\tREASON")
		for _, f := range cfg.Failed {
			fmt.Fprintf(w, "%s\t%s\t%s\n", printable(f.Hash), stamp(f.Time), printable(shorten(f.Reason, 1000)))
		}
		fmt.Fprintf(w, "\nWhat has failed is not tried again by itself: correct it, or say %s reload --force.\n", c.Name)
	}
}
