package full

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"

	tea "github.com/charmbracelet/bubbletea"
	"github.com/spf13/cobra"

	"github.com/creelhq/creel/api"
)

// top shows the fleet as it changes.
func (c *commands) top() *cobra.Command {
	var q api.AgentQuery
	cmd := &cobra.Command{
		Use: "top", Short: "Watch the fleet, worst first.", Args: cobra.NoArgs,
		Long: "Watch the fleet as it changes, worst first. q ends it. When the answer does not go to a terminal, it is printed once.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			q.Limit = 200
			if f, ok := c.Out.(*os.File); !ok || !isTerminal(f) {
				list, err := client.Agents(cmd.Context(), q)
				if err != nil {
					return failed(err)
				}
				w := tabwriter.NewWriter(c.Out, 0, 0, 2, ' ', 0)
				agentTable(w, list.Agents, false)
				return w.Flush()
			}
			return watchFleet(cmd.Context(), client, q)
		},
	}
	cmd.Flags().StringVarP(&q.Label, "label", "l", "", "only with these labels: `KEY=VALUE`, separated by commas")
	return c.asking(cmd)
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// watchFleet runs the full-screen view.
func watchFleet(ctx context.Context, client *api.Client, q api.AgentQuery) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p := tea.NewProgram(&fleetView{}, tea.WithAltScreen(), tea.WithContext(ctx))
	ended := make(chan error, 1)
	go func() {
		err := client.WatchAgents(ctx, q, func(l api.AgentList) error {
			p.Send(l)
			return nil
		})
		p.Quit()
		ended <- err
	}()
	if _, err := p.Run(); err != nil {
		return err
	}
	cancel()
	if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
		return failed(err)
	}
	return nil
}

// fleetView is the screen.
type fleetView struct {
	list          api.AgentList
	known         bool
	width, height int
	from          int // the first row that is shown
}

// Init does nothing: the fleet comes by itself.
func (*fleetView) Init() tea.Cmd { return nil }

// Update takes in what has happened.
func (v *fleetView) Update(m tea.Msg) (tea.Model, tea.Cmd) {
	switch m := m.(type) {
	case api.AgentList:
		v.list, v.known = m, true
	case tea.WindowSizeMsg:
		v.width, v.height = m.Width, m.Height
	case tea.KeyMsg:
		switch m.String() {
		case "q", "esc", "ctrl+c":
			return v, tea.Quit
		case "down", "j":
			v.from++
		case "up", "k":
			v.from--
		case "pgdown", " ":
			v.from += v.rows()
		case "pgup":
			v.from -= v.rows()
		}
	}
	v.from = max(0, min(v.from, len(v.list.Agents)-v.rows()))
	return v, nil
}

// rows is how many agents fit.
func (v *fleetView) rows() int { return max(1, v.height-4) }

// View draws.
func (v *fleetView) View() string {
	if !v.known {
		return "waiting for the hub …"
	}
	var b strings.Builder
	n := v.list.Counts
	fmt.Fprintf(&b, "fleet: %d lost, %d degraded, %d disconnected, %d unknown, %d healthy    (q ends, arrows scroll)\n\n", n["lost"], n["degraded"], n["disconnected"], n["unknown"], n["healthy"])
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	agentTable(w, v.list.Agents[v.from:min(len(v.list.Agents), v.from+v.rows())], false)
	w.Flush() // a strings.Builder does not fail
	lines := strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
	for i, l := range lines {
		if r := []rune(l); len(r) > v.width && v.width > 0 {
			lines[i] = string(r[:v.width])
		}
	}
	return strings.Join(lines, "\n")
}
