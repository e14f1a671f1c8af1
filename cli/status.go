package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/creelhq/creel/agent"
	"github.com/creelhq/creel/config"
	"github.com/creelhq/creel/report"
)

func (c *Commands) status() *cobra.Command {
	format := "table"
	cmd := &cobra.Command{
		Use: "status", Short: "Show how the agent on this machine is.", Args: cobra.NoArgs,
		Long: "Show the state of the agent whose state directory is DIR, its components and its ledger: what became of every record.\nExit code 1: the agent is not healthy; 3: no agent was reached.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var s agentStatus
			for path, into := range map[string]any{"/healthz": &s.Health, "/components": &s.Components, "/ledger": &s.Ledger} {
				if err := c.ask(cmd.Context(), path, into); err != nil {
					return Exit(ExitUnreachable, err)
				}
			}
			switch format {
			case "json":
				enc := json.NewEncoder(c.Out)
				enc.SetIndent("", "  ")
				if err := enc.Encode(s); err != nil {
					return err
				}
			case "table":
				s.print(c.Out)
			default:
				return fmt.Errorf("unknown output %q; say -o table or -o json", format)
			}
			if s.Health.Health != "healthy" {
				return Exit(ExitNo, errors.New("the agent is degraded: see ERROR above"))
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", format, "table or json")
	return c.WithData(cmd)
}

type agentStatus struct {
	Health     report.Health      `json:"health"`
	Components []report.Component `json:"components"`
	Ledger     report.Ledger      `json:"ledger"`
}

// ask gets one path of the admin endpoint.
func (c *Commands) ask(ctx context.Context, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	resp, err := c.get(ctx, path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return fmt.Errorf("ask the agent: %w", err)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("ask the agent: %s answers %s: %w", path, resp.Status, err)
	}
	return nil
}

// get sends a request to the admin endpoint of the agent that is meant.
func (c *Commands) get(ctx context.Context, path string) (*http.Response, error) {
	data := c.DataDir()
	if _, err := os.Stat(filepath.Join(data, "hub.json")); err == nil { // a hub's: its agent is meant
		data = filepath.Join(data, "agent")
	}
	socket := agent.AdminSocket(data)
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if refused := (*url.Error)(nil); errors.As(err, &refused) {
		err = refused.Err // without the URL, which is nobody's business
	}
	if err != nil {
		return nil, fmt.Errorf("reach the agent at %s: %w; is it running? --data names its state directory", socket, err)
	}
	return resp, nil
}

func (s *agentStatus) print(out io.Writer) {
	h := s.Health
	fmt.Fprintf(out, "agent %s, version %s, %s and %s since %s\n", h.ID, h.Version, h.State, h.Health, h.Started.Local().Format(time.DateTime))
	if hub := h.Hub; hub.URL != "" {
		how := "connected to"
		if !hub.Connected {
			how = "not connected to"
		}
		fmt.Fprintf(out, "%s hub %s since %s", how, hub.URL, hub.Since.Local().Format(time.DateTime))
		if hub.Error != "" {
			fmt.Fprintf(out, ": %s", hub.Error)
		}
		fmt.Fprintln(out)
	}
	if r := h.Reload; r.Error != "" {
		fmt.Fprintf(out, "last reload refused at %s:\n  %s\n", r.Time.Local().Format(time.DateTime), strings.ReplaceAll(r.Error, "\n", "\n  "))
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nCOMPONENT\tHEALTH\tQUEUE\tERROR")
	for _, c := range s.Components {
		health, queue := "healthy", ""
		if !c.Healthy {
			health = "degraded"
		}
		if c.Limit > 0 {
			queue = fmt.Sprintf("%s of %s", config.Size(c.Queued), config.Size(c.Limit))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", c.Component, health, queue, strings.SplitN(c.Error, "\n", 2)[0])
	}
	fmt.Fprintln(w, "\nPIPELINE\tACCEPTED\tCREATED\tFILTERED\tABSORBED\tROUTED\tDROPPED\tHELD\tPASSED")
	for _, p := range s.Ledger.Pipelines {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%s\t%d\t%d\n", p.Pipeline, p.Accepted, p.Created, p.Filtered, p.Absorbed, p.Routed, dropped(p.Dropped), p.Held, p.Passed)
	}
	fmt.Fprintln(w, "\nPIPELINE\tEXPORTER\tIN\tDELIVERED\tQUEUED\tDROPPED")
	for _, p := range s.Ledger.Pipelines {
		for _, x := range p.Exporters {
			fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%s\n", p.Pipeline, x.Exporter, x.In, x.Delivered, x.Queued, dropped(x.Dropped))
		}
	}
	w.Flush() // where it fails is for out to remember
}

func dropped(m map[string]int64) string {
	var parts []string
	for reason, n := range m {
		parts = append(parts, fmt.Sprintf("%s %d", reason, n))
	}
	if len(parts) == 0 {
		return "0"
	}
	return strings.Join(parts, ", ")
}
